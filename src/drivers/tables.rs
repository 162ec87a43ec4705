//! The application's tables in a database.
//!
//! Facet: `revision`, `head` where the tables are what the installed release makes, else the revision that they are at.
//! One query asks for it, and the release is asked through the texts of its migrations: its own commands take seconds.
//!
//! Tables that hold anything are dumped first, and the dump is checked: the server makes each change of a table durable
//! by itself, so a migration that fails leaves the tables half-way, and the dump is the only way back.
//!
//! While the very first tables are made, a table of ours says so. A run that was cut there is started over.

mod application;
mod dump;
mod migrate;
mod restore;
mod revisions;

use super::sql::{self, Database, quote};
use crate::base::error::Exit;
use crate::drivers::sql::copy::load;
use crate::host::Host;
use crate::layout::RELEASES;
use crate::resource::{Facets, State};
use anyhow::{Result, bail};
pub(crate) use application::{Application, check_success};
pub(crate) use dump::Reader;
pub(crate) use migrate::{KEPT, make};
pub(crate) use restore::{bring_back, table_sums};
use revisions::Revisions;
use std::collections::BTreeMap;

/// Says that the first tables are being made.
const UNFINISHED: &str = "_camcops_provision_unfinished";
/// Where the application keeps the revision of its tables.
const REVISION: &str = "_alembic_version";
/// The value of the facet where nothing is to be done.
pub(crate) const HEAD: &str = "head";
/// There is no such table, or no such database.
const NOT_THERE: [u16; 2] = [1146, 1049];

/// At which revision the tables are.
pub(crate) async fn observe(known: &Database, application: &Application, host: &Host, name: &str) -> Result<State> {
    if !known.server.is_there().await? {
        return Ok(State::Absent);
    }
    let Some(revision) = read_revision(known, name).await? else {
        return Ok(State::Absent);
    };
    let head = application.revisions(host)?;
    let revision = match head.is_some_and(|revisions| revisions.head == revision) {
        true => HEAD.to_owned(),
        false => revision,
    };
    Ok(State::Present(Facets::new().with("revision", revision)))
}

/// What a database says about its tables.
struct TableState {
    revision: String,
    unfinished: bool,
}

async fn read_table_state(known: &Database, database: &str) -> Result<Option<TableState>> {
    let there = sql::tables_among(&known.server, database, &[REVISION, UNFINISHED]).await?;
    if !there.iter().any(|table| table == REVISION) {
        return Ok(None);
    }
    let rows: Option<Vec<(String,)>> = known
        .server
        .rows_if_any(&format!("SELECT version_num FROM {}", quote::quote_table(database, REVISION)), &NOT_THERE)
        .await?;
    let Some(rows) = rows else { return Ok(None) };
    let several = rows.len() > 1;
    match rows.into_iter().next() {
        Some(_) if several => Err(unusable_tables(database, "are at several revisions at once")),
        Some((revision,)) => {
            Ok(Some(TableState { revision, unfinished: there.iter().any(|table| table == UNFINISHED) }))
        }
        None => Ok(None),
    }
}

/// At which revision the tables of a database are; nothing where they were never finished.
pub(crate) async fn read_revision(known: &Database, database: &str) -> Result<Option<String>> {
    let found = read_table_state(known, database).await?;
    Ok(found.filter(|found| !found.unfinished).map(|found| found.revision))
}

/// Refuses tables that the installed release does not know, before anything is done with them.
pub(crate) fn refuse_unknown(application: &Application, host: &Host, revision: Option<&str>, what: &str) -> Result<()> {
    let Some(revision) = revision else {
        return Err(Exit::Unusable.because(format!(
            "{what} has no tables of CamCOPS, or they do not say their revision; nothing was changed"
        )));
    };
    let Some(revisions) = application.revisions(host)? else {
        return Ok(());
    };
    if revisions.all.contains(revision) {
        return Ok(());
    }
    Err(Exit::Unusable.because(format!(
        "{what} has tables at revision {revision}, which the installed release does not know (its newest is {}): they are from a newer CamCOPS; nothing was changed: install that version first",
        revisions.head
    )))
}

/// Whether these are tables of CamCOPS, or the beginning of them.
pub(crate) fn are_ours(tables: &[String]) -> bool {
    let is_ours = |table: &String| table == REVISION || table == UNFINISHED;
    tables.iter().any(is_ours)
}

/// The tables of the site's database that tablets fill, as far as they have rows, and how many.
pub(crate) async fn count_clinical(known: &Database) -> Result<BTreeMap<String, u64>> {
    let database = &known.database;
    let of_tablets = known
        .server
        .texts(&format!(
            "SELECT TABLE_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = {} AND COLUMN_NAME = '_era'",
            quote::quote_text(database)
        ))
        .await?;
    let mut counts = load::count_rows(known, database).await?;
    counts.retain(|table, rows| *rows > 0 && of_tablets.contains(table));
    Ok(counts)
}

/// The revision that the installed release works with.
pub(crate) fn newest_revision(application: &Application, host: &Host) -> Result<String> {
    match application.revisions(host)? {
        Some(revisions) => Ok(revisions.head.clone()),
        None => {
            // This says what to do.
            application.command(host, "camcops_server")?;
            bail!("the release at {} has no migrations", application.layout.venv)
        }
    }
}

/// Whether any table of a database has a row, besides the one that says the revision.
pub(crate) async fn has_data(known: &Database, database: &str) -> Result<bool> {
    let tables = sql::tables_of(&known.server, database).await?;
    holds_anything(known, database, &tables).await
}

fn unusable_tables(database: &str, what: &str) -> anyhow::Error {
    Exit::Unusable.because(format!(
        "the tables of the database {database} {what}: an upgrade of them was interrupted or is running; wait for it, or restore a dump from before it, and run again"
    ))
}

/// Dumps a database before something is done to it, and says in the dump's name what; nothing if there is nothing in it.
pub(crate) async fn dump_before(
    known: &Database,
    application: &Application,
    host: &Host,
    name: &str,
    next: &str,
    reader: Reader,
) -> Result<Option<String>> {
    known.server.started(host).await?;
    // What an earlier run left would be taken for a part of the change that begins here.
    load::clear_up(known).await?;
    let tables = sql::tables_of(&known.server, name).await?;
    if !holds_anything(known, name, &tables).await? {
        return Ok(None);
    }
    let found = read_table_state(known, name).await?;
    let revision = found.map_or_else(|| "unknown".to_owned(), |found| found.revision);
    let dump = dump::make_dump(host, known, application, &tables, &revision, next, reader);
    Ok(Some(dump.await?))
}

/// Whether a migration from this revision was begun, wherever it ended.
pub(crate) async fn was_begun(known: &Database, application: &Application, host: &Host, from: &str) -> Result<bool> {
    let cut = dump::of_cut_upgrade(host, application, &known.database)?;
    Ok(cut.is_some() || read_revision(known, &known.database).await?.as_deref() != Some(from))
}

/// The revision that a release works with; nothing where there is no such release.
pub(crate) fn head_of(host: &Host, release: &str) -> Result<Option<String>> {
    let found = Revisions::read(host, &format!("{RELEASES}/{release}"))?;
    Ok(found.map(|found| found.head))
}

/// What the data of a database takes, in bytes, indexes included.
pub(crate) async fn database_size(known: &Database) -> Result<u64> {
    let size: Option<(Option<u64>,)> = known
        .server
        .row(&format!(
            "SELECT CAST(SUM(DATA_LENGTH + INDEX_LENGTH) AS UNSIGNED) FROM information_schema.TABLES WHERE TABLE_SCHEMA = {}",
            quote::quote_text(&known.database)
        ))
        .await?;
    Ok(size.and_then(|(size,)| size).unwrap_or(0))
}

/// Whether any table has a row, besides the one that says the revision.
async fn holds_anything(known: &Database, database: &str, tables: &[String]) -> Result<bool> {
    let each: Vec<String> = tables
        .iter()
        .filter(|table| *table != REVISION && *table != UNFINISHED)
        .map(|table| format!("EXISTS(SELECT 1 FROM {})", quote::quote_table(database, table)))
        .collect();
    if each.is_empty() {
        return Ok(false);
    }
    let any: Option<(u8,)> = known.server.row(&format!("SELECT {}", each.join(" OR "))).await?;
    Ok(any.is_none_or(|(any,)| any != 0))
}
