//! Tables brought back from a dump: loaded into a database beside, and put in the place of the others in one step.

use super::{Application, dump, read_table_state};
use crate::drivers::sql::copy::load::{self, DumpSource, ScratchDatabase};
use crate::drivers::sql::{self, CHARSET, COLLATION, Database, quote};
use crate::host::Host;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;

/// What comes and goes by itself, without anybody having entered anything.
const PASSING: [&str; 4] =
    ["_security_webviewer_sessions", "_security_login_failures", "_security_account_lockouts", "_dirty_tables"];

/// A sum over the content of each table that somebody enters something into: where it is the same, nothing is new.
pub(crate) async fn table_sums(known: &Database) -> Result<BTreeMap<String, String>> {
    let database = &known.database;
    let tables = sql::tables_of(&known.server, database).await?;
    let named: Vec<String> = tables
        .iter()
        .filter(|table| !PASSING.contains(&table.as_str()))
        .map(|table| quote::quote_table(database, table))
        .collect();
    if named.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows: Vec<(String, Option<u64>)> = known.server.rows(&format!("CHECKSUM TABLE {}", named.join(", "))).await?;
    let sum = |(table, sum): (String, Option<u64>)| {
        let table = table.split_once('.').map(|(_, table)| table.to_owned());
        Some((table?, sum?.to_string()))
    };
    Ok(rows.into_iter().filter_map(sum).collect())
}

/// Puts the tables of a dump in the place of those of the database; they are at this revision then. A run that was cut is
/// continued.
pub(crate) async fn bring_back(
    known: &Database,
    application: &Application,
    host: &Host,
    dump: &str,
    revision: &str,
) -> Result<()> {
    let database = &known.database;
    known.server.started(host).await?;
    application.wait_for_old_run(host)?;
    load::need_power(known, "")?;
    let is_at =
        |found: Option<super::TableState>| found.is_some_and(|found| !found.unfinished && found.revision == revision);
    let were_switched = load::were_switched(known).await?;
    if !(were_switched && is_at(read_table_state(known, database).await?)) {
        load::clear_up(known).await?;
        application.tell.line(&format!("loading {dump} beside the database {database}"));
        let Some((_, file)) = host.open_file(dump)? else {
            bail!("the dump {dump} is not a file");
        };
        load::check_room(host, known, file.metadata()?.len()).await?;
        let beside = load::create_scratch(known, ScratchDatabase::Restore, CHARSET, COLLATION).await?;
        let source = DumpSource::Stream { file: &file, decrypted: None };
        let scan = load::load_dump(host, known, &beside, source).await.with_context(|| format!("the dump {dump}"))?;
        if !scan.complete {
            bail!("the dump {dump} is incomplete");
        }
        if !is_at(read_table_state(known, &beside).await?) {
            bail!("the tables in the dump {dump} are not at revision {revision}");
        }
        let aside = load::create_scratch(known, ScratchDatabase::Replaced, CHARSET, COLLATION).await?;
        application.tell.line("replacing the old tables");
        load::switch_tables(known, &beside, &aside).await?;
    }
    load::clear_up(known).await?;
    dump::end_upgrade(host, application, database)
}
