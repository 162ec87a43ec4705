//! The dump of the tables before they are changed or go: the way back, until the change has come to its end.

use super::Application;
use crate::archive::pack::Compression;
use crate::drivers::sql::Database;
use crate::drivers::sql::copy::directory::{self, time_stamp};
use crate::drivers::sql::copy::dump::{self, DumpFile};
use crate::host::Host;
use anyhow::{Context, Result};

/// Who reads a dump again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// This program, by itself: the way back of an upgrade.
    Program,
    /// Somebody who wants back what was given up.
    Somebody,
}

/// Dumps a database and checks the dump; gives the file, whose name ends with the revision and what comes next. What
/// this program has to read again by itself is not encrypted.
pub(crate) async fn make_dump(
    host: &Host,
    known: &Database,
    application: &Application,
    tables: &[String],
    revision: &str,
    next: &str,
    reader: Reader,
) -> Result<String> {
    let (database, directory) = (&known.database, &application.dumps);
    directory::enter_directory(host, &known.instance, directory)?;
    let size = dump::estimate_size(known).await?;
    dump::check_room(host, directory, size, &format!("a dump of the database {database}"))?;
    let recipient = match reader {
        Reader::Program => None,
        Reader::Somebody => application.recipient.as_deref(),
    };
    let path = format!(
        "{directory}/{database}-{}-{revision}-before-{next}.sql.zst{}",
        time_stamp()?,
        recipient.map_or("", |_| ".age")
    );
    let unfinished = format!("{path}.unfinished");
    application.tell.line(&format!("dumping the database {database} to {path}"));
    let file = DumpFile { path: &path, unfinished: &unfinished, recipient, compression: Compression::Zstd };
    let written = dump::write_file(host, known, tables, size, &file).await;
    written.with_context(|| {
        format!("the tables contain data and could not be dumped, so nothing was changed (database {database})")
    })?;
    Ok(path)
}

/// Leads to the dump from before an upgrade, until that has come to its end.
fn way_back(application: &Application, database: &str) -> String {
    format!("{}/{database}.before-upgrade", application.dumps)
}

/// The dump from before an upgrade that was cut, if it is still there.
pub(crate) fn of_cut_upgrade(host: &Host, application: &Application, database: &str) -> Result<Option<String>> {
    let Some(dump) = host.read_link(&way_back(application, database))? else {
        return Ok(None);
    };
    Ok(host.stat(&dump)?.map(|_| dump))
}

/// Remembers which dump leads back.
pub(crate) fn begin_upgrade(host: &Host, application: &Application, database: &str, dump: &str) -> Result<()> {
    host.put_link(&way_back(application, database), dump)
}

/// The upgrade has come to its end, and nobody needs to go back.
pub(crate) fn end_upgrade(host: &Host, application: &Application, database: &str) -> Result<()> {
    host.remove_file(&way_back(application, database))
}
