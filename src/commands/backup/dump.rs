//! `backup create --out FILE`: the database alone, as SQL, for who wants to read it elsewhere.

use super::{format_mib, saved_site};
use crate::archive::pack::Compression;
use crate::base::report::Report;
use crate::base::signals::stop_on_signals;
use crate::base::terminal::{Style, count_of};
use crate::cli::{DumpFormat, Global};
use crate::commands::bundle::output_path;
use crate::drivers::sql::Database;
use crate::drivers::sql::copy::dump::{self, DumpFile, Dumped};
use crate::host::unfinished_path;
use crate::journal;
use crate::session::Session;
use anyhow::Result;
use serde_json::json;
use std::path::Path;
use std::time::Instant;

/// What the name of a file that age has encrypted ends with.
const ENCRYPTED: &str = ".age";

pub(super) async fn dump_database(global: &Global, out: &Path, format: Option<DumpFormat>) -> Result<Report> {
    stop_on_signals(Style::of(global))?;
    let site = saved_site(global)?;
    let out = output_path(&site.host, out)?;
    let _lock = journal::try_lock(&site.host)?;
    let begin = Instant::now();
    let format = format.unwrap_or_else(|| format_of_name(&out));
    let known = site.drivers.database()?;
    let dumped = site.close_after(write_file(&site, &known, &out, format).await).await?;
    let recipient = site.settings().backup.encrypt_to.as_ref();
    let rows: u64 = dumped.tables.values().sum();
    let encrypted = recipient.map_or("not encrypted", |_| "encrypted as backup.encrypt_to says");
    Ok(Report::new(json!({
        "instance": site.instance,
        "path": out,
        "bytes": dumped.packed.bytes,
        "sha256": dumped.packed.sha256,
        "tables": dumped.tables.len(),
        "rows": rows,
        "encrypted": recipient.is_some(),
    }))
    .with_line(format!(
        "{out}: {} in {}, {} MiB, {:.1} s, {encrypted}",
        count_of(rows, "row"),
        count_of(dumped.tables.len(), "table"),
        format_mib(dumped.packed.bytes),
        begin.elapsed().as_secs_f64()
    ))
    .with_remark("it contains all patient data and is readable by root only; `camcops-provision backup create` also saves secrets, certificate and files"))
}

async fn write_file(site: &Session, known: &Database, out: &str, format: DumpFormat) -> Result<Dumped> {
    let host = &site.host;
    let directory =
        out.rsplit_once('/').map_or("/", |(directory, _)| if directory.is_empty() { "/" } else { directory });
    let what = format!("a dump of the database {}", known.database);
    let found = dump::find_contents(host, known, directory, &what).await?;
    let compression = match format {
        DumpFormat::Zstd => Compression::Zstd,
        DumpFormat::Gzip => Compression::Gzip,
        DumpFormat::Plain => Compression::None,
    };
    let recipient = site.settings().backup.encrypt_to.as_ref().map(|recipient| recipient.as_str());
    let unfinished = unfinished_path(out);
    let file = DumpFile { path: out, unfinished: &unfinished, recipient, compression };
    let written = dump::write_file(host, known, &found.tables, found.size, &file).await;
    written.map_err(|why| why.context(format!("no dump was made at {out}")))
}

fn format_of_name(out: &str) -> DumpFormat {
    let name = out.strip_suffix(ENCRYPTED).unwrap_or(out);
    match name.rsplit_once('.').map(|(_, end)| end) {
        Some("gz") => DumpFormat::Gzip,
        Some("sql") => DumpFormat::Plain,
        _ => DumpFormat::Zstd,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_says_the_format() {
        for (name, format) in [
            ("/x/a.sql", DumpFormat::Plain),
            ("/x/a.sql.age", DumpFormat::Plain),
            ("/x/a.sql.gz", DumpFormat::Gzip),
            ("/x/a.sql.zst", DumpFormat::Zstd),
            ("/x/a", DumpFormat::Zstd),
        ] {
            assert_eq!(format_of_name(name), format, "{name}");
        }
    }
}
