//! `db check --fix-collation`: every table gets the one collation that CamCOPS's tables have.

use super::{reached, with_services};
use crate::base::error::Exit;
use crate::base::signals::stop_on_signals;
use crate::base::terminal::{self, Style, count};
use crate::cli::Global;
use crate::drivers::sql::{self, CHARSET, COLLATION, Known, quote};
use crate::drivers::{services, tables};
use crate::journal::Writer;
use crate::session::Session;
use anyhow::Result;
use std::sync::atomic::{AtomicBool, Ordering};

/// Converts what differs, after a dump and while nobody writes. A run that was cut is continued by the next one.
pub(crate) async fn fix(global: &Global, style: Style) -> Result<()> {
    let stop = stop_on_signals(style)?;
    let (site, known) = reached(global).await?;
    let fixed = fixed(&site, &known, stop, style).await;
    site.close().await;
    fixed
}

async fn fixed(site: &Session, known: &Known, stop: &AtomicBool, style: Style) -> Result<()> {
    let (server, database) = (&known.server, &known.database);
    let mut writer = Writer::open(&site.host, &site.instance, "db check --fix-collation")?;
    site.drivers.application()?.wait_for_old_run(&site.host)?;
    let wrong = sql::other_collations(server, database).await?;
    let default: Option<(String,)> = server
        .row(&format!(
            "SELECT DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {}",
            quote::text(database)
        ))
        .await?;
    if wrong.is_empty() && default.is_none_or(|(one,)| one == COLLATION) {
        return Ok(());
    }
    services::stop_ours(site.drivers.services.as_ref(), &site.host)?;
    let done = converted(site, known, &wrong, stop).await;
    let done = with_services(done, site, &mut writer, style).await;
    if done.is_ok() && !style.quiet {
        terminal::note(&format!(
            "  {} of {database} converted to {COLLATION}",
            count(wrong.len(), "table")
        ));
    }
    done
}

async fn converted(
    site: &Session,
    known: &Known,
    wrong: &[(String, String)],
    stop: &AtomicBool,
) -> Result<()> {
    let (server, database) = (&known.server, &known.database);
    let tell = site.drivers.application()?.tell;
    site.dump_before(database, "collation", tables::Reader::Somebody)
        .await?;
    let like = format!("CHARACTER SET {CHARSET} COLLATE {COLLATION}");
    let quoted = quote::name(database);
    server
        .change(&format!("ALTER DATABASE {quoted} {like}"))
        .await?;
    // What refers to a column and that column are converted one after the other.
    server.change("SET SESSION foreign_key_checks = 0").await?;
    for (at, (table, _)) in wrong.iter().enumerate() {
        if stop.load(Ordering::SeqCst) {
            return Err(Exit::Failed.because(format!(
                "stopped by a signal: {at} of {} converted; run again to continue",
                count(wrong.len(), "table")
            )));
        }
        if at % 20 == 0 {
            tell(&format!("converting table {} of {}", at + 1, wrong.len()));
        }
        let table = quote::name(table);
        server
            .change(&format!("ALTER TABLE {quoted}.{table} CONVERT TO {like}"))
            .await?;
    }
    server.change("SET SESSION foreign_key_checks = 1").await
}
