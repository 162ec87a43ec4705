//! A consistent dump of a database while the site runs, by the client of the same family as the server: counted,
//! compressed and summed in the one pass in which it is written.

use super::client::{ClientLogin, ClientPurpose};
use super::scan::{Begins, DumpScan};
use crate::archive::pack::{Compression, PIECE, PackedSum, Packer};
use crate::base::error::Exit;
use crate::base::progress::{Amount, Tell, Unit};
use crate::base::signals::{Interrupt, STOPPED};
use crate::drivers::sql::{self, Database, quote};
use crate::host::{Ends, Host};
use crate::site::facts::DatabaseFamily;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};

/// A part of a dump that can be read by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DumpSection {
    /// Where its frame begins.
    pub(crate) offset: u64,
    /// Which table it has; nothing for what is before the first one, for views, and for the end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) table: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Dumped {
    /// Each table with the number of its rows.
    pub(crate) tables: BTreeMap<String, u64>,
    pub(crate) sections: Vec<DumpSection>,
    /// Its size as text.
    pub(crate) text_bytes: u64,
    /// Its size and sum on the disk.
    pub(crate) packed: PackedSum,
}

/// How much a database is: the dump of it is about as large.
pub(crate) async fn estimate_size(known: &Database) -> Result<u64> {
    let size: Option<(Option<u64>,)> = known
        .server
        .row(&format!(
            "SELECT CAST(SUM(DATA_LENGTH) AS UNSIGNED) FROM information_schema.TABLES WHERE TABLE_SCHEMA = {}",
            quote::quote_text(&known.database)
        ))
        .await?;
    Ok(size.and_then(|(size,)| size).unwrap_or(0))
}

/// Refuses to fill the disk.
pub(crate) fn check_room(host: &Host, directory: &str, needed: u64, what: &str) -> Result<()> {
    let needed = needed / 5 * 6;
    let free = host.space(directory)?.free_bytes;
    if free < needed {
        return Err(Exit::Io.because(format!(
            "{what} needs about {} MiB, and {directory} has {} MiB left; free some space there, or make it a link to a larger disk",
            needed >> 20,
            free >> 20
        )));
    }
    Ok(())
}

/// What a database has to dump.
#[derive(Debug)]
pub(crate) struct DumpContents {
    pub(crate) tables: Vec<String>,
    /// About how large they are.
    pub(crate) size: u64,
}

/// Looks at what there is; refuses a database without tables, and to fill the disk.
pub(crate) async fn find_contents(host: &Host, known: &Database, directory: &str, what: &str) -> Result<DumpContents> {
    known.server.started(host).await?;
    let tables = sql::tables_of(&known.server, &known.database).await?;
    if tables.is_empty() {
        return Err(Exit::Unreachable.because(format!(
            "the database {} has no tables yet: run `camcops-provision install` first",
            known.database
        )));
    }
    let size = estimate_size(known).await?;
    check_room(host, directory, size, what)?;
    Ok(DumpContents { tables, size })
}

/// A file for a dump.
#[derive(Debug)]
pub(crate) struct DumpFile<'a> {
    pub(crate) path: &'a str,
    /// Its name until it is whole.
    pub(crate) unfinished: &'a str,
    pub(crate) recipient: Option<&'a str>,
    pub(crate) compression: Compression,
}

/// Dumps the database of the site into a new file, which gets its name when it is whole; of a dump that failed nothing is
/// left.
pub(crate) async fn write_file(
    host: &Host,
    known: &Database,
    tables: &[String],
    size: u64,
    file: &DumpFile<'_>,
) -> Result<Dumped> {
    host.remove_file(file.unfinished)?;
    let opened = host.new_file(file.unfinished)?;
    let written = async {
        let packer = Packer::compressing(host, opened, file.recipient, file.compression)?;
        let dumped = pack_dump(host, known, tables, size, packer).await?;
        host.rename(file.unfinished, file.path)?;
        anyhow::Ok(dumped)
    };
    let written = written.await;
    if written.is_err() {
        host.remove_file(file.unfinished)?;
    }
    written
}

/// Dumps the database of the site into a file that was just made, compressed by zstd.
pub(crate) async fn write_dump(
    host: &Host,
    known: &Database,
    tables: &[String],
    size: u64,
    file: File,
    recipient: Option<&str>,
) -> Result<Dumped> {
    let packer = Packer::new(host, file, recipient)?;
    pack_dump(host, known, tables, size, packer).await
}

/// Dumps the database of the site by way of a packer.
async fn pack_dump(
    host: &Host,
    known: &Database,
    tables: &[String],
    size: u64,
    mut packer: Packer<'_>,
) -> Result<Dumped> {
    let (server, database) = (&known.server, &known.database);
    let family = server.identity().await?.family;
    let way = ClientLogin::new(host, &server.endpoint, family, &format!("dump-{database}"))?;
    let program = way.program(ClientPurpose::Dump)?;
    let mut child = way.client(program).args([
        "--single-transaction",
        "--quick",
        "--hex-blob",
        "--no-autocommit",
        // Tables are loaded side by side, and one that refers to a locked one is not locked with it.
        "--skip-add-locks",
        // An account that may only fill one database can't bring back what runs in it.
        "--skip-triggers",
        "--default-character-set=utf8mb4",
        "--max-allowed-packet=1G",
    ]);
    if family == DatabaseFamily::Mysql {
        // Both want privileges on the whole server, and neither is needed here.
        child = child.args(["--no-tablespaces", "--set-gtid-purged=OFF"]);
    }
    for view in sql::views_of(server, database).await? {
        child = child.args([format!("--ignore-table={database}.{view}")]);
    }
    let mut flow = child.args(["--", database]).flow(Ends::Output)?;
    let mut output = flow.output.take().context("it has no output")?;
    let mut scan = DumpScan::default();
    let pumped = pump_output(&mut output, &mut packer, &mut scan, size, known.tell);
    drop(output);
    let sections = match pumped {
        Ok(sections) => {
            flow.end(host)?;
            sections
        }
        Err(why) => return Err(packer.cause(why)),
    };
    check_dump(&scan, tables)?;
    let text_bytes = packer.given;
    Ok(Dumped { tables: scan.tables, sections, text_bytes, packed: packer.finish()? })
}

fn pump_output(
    output: &mut impl Read,
    packer: &mut Packer<'_>,
    scan: &mut DumpScan,
    size: u64,
    tell: Tell,
) -> Result<Vec<DumpSection>> {
    let mut sections = vec![DumpSection { offset: 0, table: None }];
    let mut piece = vec![0; PIECE];
    loop {
        let read = output.read(&mut piece)?;
        Interrupt::Signals.check(STOPPED)?;
        if read == 0 {
            return Ok(sections);
        }
        let mut rest = &piece[..read];
        while !rest.is_empty() {
            let (taken, begins) = scan.next(rest);
            packer.write_all(&rest[..taken])?;
            rest = &rest[taken..];
            let Some(begins) = begins else { continue };
            packer.end_frame()?;
            sections.push(DumpSection {
                offset: packer.packed,
                table: match begins {
                    Begins::Table(name) => Some(name),
                    Begins::Other => None,
                },
            });
        }
        // The estimate is of what the tables take, and their text may be more.
        let all = if size > packer.given { size } else { 0 };
        tell.amount(Amount { what: "dumping the database", done: packer.given, all, unit: Unit::Bytes });
    }
}

/// Whether a dump is whole: every table is in it, and it says itself that it has come to its end.
pub(crate) fn check_dump(scan: &DumpScan, tables: &[String]) -> Result<()> {
    if let Some(missing) = tables.iter().find(|name| !scan.tables.contains_key(*name)) {
        bail!("the dump has {} of {} tables; missing: {missing}", scan.tables.len(), tables.len());
    }
    if !scan.complete {
        bail!("the dump is incomplete");
    }
    Ok(())
}
