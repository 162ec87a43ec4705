//! `db`: the site's database, changed as a whole. Each command is a part of the recipe, so that a run which was cut is
//! continued by the next one, or by `install`.

mod anonymise;
mod collation;
mod reader;
mod reset;

use super::{begin_change, doctor, need_machine, open_installed};
use crate::base::report::Report;
use crate::base::signals::Interrupt;
use crate::base::stack::box_future;
use crate::cli::{Db, Doctor, Global, Parts};
use crate::commands::exec;
use crate::drivers::sql::Database;
use crate::drivers::{services, tables};
use crate::journal::Writer;
use crate::resource::Part;
use crate::session::Session;
use crate::session::converge::{converge_site, make_plan};
use anyhow::Result;
use serde_json::json;
use std::rc::Rc;

pub(crate) async fn run(global: &Global, command: &Db) -> Result<Report> {
    match command {
        Db::Shell { admin: true } => box_future(|| exec::run_administrator(global)).await,
        Db::Shell { admin: false } => box_future(|| exec::run_database(global)).await,
        Db::Upgrade { show_sql: true, .. } => box_future(|| exec::run_statements(global)).await,
        Db::Upgrade { show_sql: false, no_reindex } => box_future(|| upgrade_database(global, *no_reindex)).await,
        Db::Check { fix_collation } => box_future(|| check_database(global, *fix_collation)).await,
        Db::GrantReadonly(flags) => box_future(|| reader::grant_readonly(global, flags)).await,
        Db::Reset(flags) => box_future(|| reset::run(global, flags)).await,
        Db::Anonymise(flags) => box_future(|| anonymise::run(global, flags)).await,
    }
}

/// The site that is installed, with all that it takes to reach its database.
async fn reach_database(global: &Global) -> Result<(Session, Rc<Database>)> {
    let site = open_installed(global)?;
    let known = site.drivers.database()?;
    match known.need_server().await {
        Ok(_) => Ok((site, known)),
        Err(why) => site.close_after(Err(why)).await,
    }
}

/// Brings the services back after something was done without them.
async fn start_again(site: &Session, writer: &mut Writer<'_>) -> Result<()> {
    site.drivers.forget();
    converge_site(site, writer, &Parts::only_of(&[Part::Services]), Interrupt::Never).await?;
    Ok(())
}

/// What a step without the services has come to, once they run again.
async fn with_services<T>(done: Result<T>, site: &Session, writer: &mut Writer<'_>) -> Result<T> {
    let started = start_again(site, writer).await;
    match (done, started) {
        (Err(why), Err(also)) => {
            Err(why.context(format!("the services are stopped, and could not be started again ({also:#})")))
        }
        (done, started) => started.and(done),
    }
}

/// The tables of what the installed release works with.
async fn upgrade_database(global: &Global, no_reindex: bool) -> Result<Report> {
    let stop = begin_change(global, "change the tables")?;
    let (site, known) = reach_database(global).await?;
    site.drivers.application()?.no_reindex.set(no_reindex);
    let migrated = migrate_database(&site, &known, stop).await;
    let Migrated { before, after, dump, changed } = site.close_after(migrated).await?;
    let report = Report::new(json!({
        "instance": site.instance,
        "database": known.database,
        "changed": changed,
        "before": before,
        "after": after,
        "dump": dump,
    }));
    let (before, after) = (before.as_deref().unwrap_or("none"), after.as_deref().unwrap_or("none"));
    if !changed {
        let done = format!("nothing to do: the tables of {} are at revision {after}", known.database);
        return Ok(report.with_remark(done));
    }
    let warning = "the index of tasks was not rebuilt: tasks missing in it appear on no page and in no export; run `camcops-provision run -- reindex`";
    Ok(report
        .with_line(format!("the tables of {}: revision {before} -> {after}", known.database))
        .with_lines(dump.map(|dump| format!("the old data is in {dump}")))
        .with_warnings(no_reindex.then_some(warning)))
}

struct Migrated {
    before: Option<String>,
    after: Option<String>,
    dump: Option<String>,
    changed: bool,
}

async fn migrate_database(site: &Session, known: &Database, stop: Interrupt) -> Result<Migrated> {
    let host = &site.host;
    let database = &known.database;
    let mut writer = Writer::open(host, &site.instance, "db upgrade")?;
    site.drivers.application()?.wait_for_old_run(host)?;
    let before = tables::read_revision(known, database).await?;
    if before.is_some() {
        let what = format!("the database {database}");
        tables::refuse_unknown(site.drivers.application()?, host, before.as_deref(), &what)?;
    }
    let (_, plan) = make_plan(site, &writer.journal, &Parts::only_of(&[Part::Tables])).await?;
    if plan.changes.is_empty() {
        return Ok(Migrated { after: before.clone(), before, dump: None, changed: false });
    }
    let head = tables::newest_revision(site.drivers.application()?, host)?;
    services::stop_ours(site.drivers.services()?, &site.host)?;
    let done = async {
        let dump = site.dump_before(database, &head, tables::Reader::Program).await?;
        // What was just made while nobody could write is not made once more.
        site.drivers.application()?.dumped.replace(dump.clone());
        converge_site(site, &mut writer, &Parts::only_of(&[Part::Tables]), stop).await?;
        anyhow::Ok(dump)
    };
    let dump = match done.await {
        Ok(dump) => dump,
        Err(why) => {
            let begun = match &before {
                Some(before) => tables::was_begun(known, site.drivers.application()?, host, before).await?,
                None => true,
            };
            // Services would write to tables that are half-way.
            return match begun {
                true => Err(why.context("the services are stopped, because the tables are only partly converted")),
                false => with_services(Err(why), site, &mut writer).await,
            };
        }
    };
    start_again(site, &mut writer).await?;
    let after = tables::read_revision(known, database).await?;
    Ok(Migrated { before, after, dump, changed: true })
}

/// Looks at the database as `doctor` does, after what is asked was mended.
async fn check_database(global: &Global, fix_collation: bool) -> Result<Report> {
    need_machine(global, "look at the database")?;
    if fix_collation {
        collation::fix_collations(global).await?;
    }
    let flags = Doctor { checks: vec!["database".into()], ..Doctor::default() };
    doctor::run(global, &flags).await
}
