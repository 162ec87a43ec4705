//! `db check --fix-collation`: every table gets the one collation that CamCOPS's tables have.

use super::{reach_database, with_services};
use crate::base::error::Exit;
use crate::base::progress::{Amount, Unit};
use crate::base::signals::{Interrupt, stop_on_signals};
use crate::base::terminal::{self, Style, count_of};
use crate::cli::Global;
use crate::drivers::sql::{self, CHARSET, COLLATION, Database, quote};
use crate::drivers::{services, tables};
use crate::journal::Writer;
use crate::session::Session;
use anyhow::Result;

/// Converts what differs, after a dump and while nobody writes. A run that was cut is continued by the next one.
pub(crate) async fn fix_collations(global: &Global) -> Result<()> {
    let stop = stop_on_signals(Style::of(global))?;
    let (site, known) = reach_database(global).await?;
    site.close_after(fix_in_turn(&site, &known, stop).await).await
}

async fn fix_in_turn(site: &Session, known: &Database, stop: Interrupt) -> Result<()> {
    let (server, database) = (&known.server, &known.database);
    let mut writer = Writer::open(&site.host, &site.instance, "db check --fix-collation")?;
    site.drivers.application()?.wait_for_old_run(&site.host)?;
    let wrong = sql::other_collations(server, database).await?;
    let default: Option<(String,)> = server
        .row(&format!(
            "SELECT DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {}",
            quote::quote_text(database)
        ))
        .await?;
    if wrong.is_empty() && default.is_none_or(|(one,)| one == COLLATION) {
        return Ok(());
    }
    services::stop_ours(site.drivers.services()?, &site.host)?;
    let done = convert_tables(site, known, &wrong, stop).await;
    let done = with_services(done, site, &mut writer).await;
    if done.is_ok() && !site.style.quiet {
        terminal::print_note(&format!("  {} of {database} converted to {COLLATION}", count_of(wrong.len(), "table")));
    }
    done
}

async fn convert_tables(site: &Session, known: &Database, wrong: &[(String, String)], stop: Interrupt) -> Result<()> {
    let (server, database) = (&known.server, &known.database);
    let tell = site.drivers.application()?.tell;
    site.dump_before(database, "collation", tables::Reader::Somebody).await?;
    let like = format!("CHARACTER SET {CHARSET} COLLATE {COLLATION}");
    let quoted = quote::quote_name(database);
    server.change(&format!("ALTER DATABASE {quoted} {like}")).await?;
    // What refers to a column and that column are converted one after the other.
    server.change("SET SESSION foreign_key_checks = 0").await?;
    for (at, (table, _)) in wrong.iter().enumerate() {
        if stop.is_set() {
            return Err(Exit::Failed.because(format!(
                "stopped by a signal: {at} of {} converted; run again to continue",
                count_of(wrong.len(), "table")
            )));
        }
        tell.amount(Amount { what: "converting tables", done: at as u64, all: wrong.len() as u64, unit: Unit::Items });
        let table = quote::quote_name(table);
        server.change(&format!("ALTER TABLE {quoted}.{table} CONVERT TO {like}")).await?;
    }
    server.change("SET SESSION foreign_key_checks = 1").await
}
