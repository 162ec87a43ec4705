//! `db reset`: an empty database in the place of what is there, as `install` would make it, after a dump.
//!
//! All tables leave in one step, into a database beside: whenever it is cut, there is all of it or nothing of it, and
//! `install` goes on from either.

use super::{reach_database, with_services};
use crate::base::error::Exit;
use crate::base::prompt::confirm_database;
use crate::base::report::Report;
use crate::base::signals::Interrupt;
use crate::base::terminal::count_of;
use crate::cli::{Global, Reset};
use crate::commands::superuser::{need_password, take_file};
use crate::commands::{begin_change, purge};
use crate::drivers::sql::copy::load::{self, ScratchDatabase};
use crate::drivers::sql::{self, CHARSET, COLLATION, Database, quote};
use crate::drivers::{services, tables};
use crate::journal::Writer;
use crate::resource::{Resource, State};
use crate::session::Session;
use crate::session::converge::{converge_site, parts_with_data};
use anyhow::Result;
use serde_json::json;

/// What has rows of patients beside the tables of tasks.
const PATIENTS: &str = "patient";

pub(crate) async fn run(global: &Global, flags: &Reset) -> Result<Report> {
    let stop = begin_change(global, "reset the database")?;
    let mut global = global.clone();
    if let Some(name) = &flags.superuser {
        global.set.push(format!("superuser.username={name}"));
    }
    let (site, known) = reach_database(&global).await?;
    let dump = site.close_after(reset_database(&site, &known, flags, stop).await).await?;
    let superuser = site.settings().superuser.username.as_ref().map(|name| name.as_str());
    let report = Report::new(json!({
        "instance": site.instance,
        "database": known.database,
        "dump": dump,
        "superuser": superuser,
        "url": site.url(),
    }));
    Ok(report.with_lines(dump.map(|dump| format!("the old data is in {dump}"))).with_line(match superuser {
        Some(name) => format!("the database {} is new and empty, with the superuser {name}", known.database),
        None => format!(
            "the database {} is new and empty; `camcops-provision user superuser NAME` creates the first user",
            known.database
        ),
    }))
}

/// Refuses what must not be done, then does it; gives the dump.
async fn reset_database(site: &Session, known: &Database, flags: &Reset, stop: Interrupt) -> Result<Option<String>> {
    let (host, database) = (&site.host, &known.database);
    confirm_database(flags.confirm.as_deref(), database, "removes", "emptied")?;
    load::need_power(known, "")?;
    if purge::is_shared(site, &Resource::Schema(database.clone()))? {
        return Err(Exit::CannotCreate
            .because(format!("another instance also uses the database {database}; nothing was changed")));
    }
    let tables = sql::tables_of(&known.server, database).await?;
    if !tables.is_empty() && !tables::are_ours(&tables) {
        return Err(Exit::CannotCreate.because(format!(
            "the database {database} has tables, but not those of CamCOPS ({}, …); nothing was changed",
            tables[0]
        )));
    }
    load::refuse_others(known).await?;
    refuse_patients(known, flags).await?;
    take_file(site, flags.superuser_password_file.as_deref())?;
    if let Some(name) = &site.settings().superuser.username {
        need_password(site, name.as_str())?;
    }
    // This says what to do where there is no release that could make tables.
    site.drivers.application()?.command(host, "camcops_server")?;
    let mut writer = Writer::open(host, &site.instance, "db reset")?;
    site.drivers.application()?.wait_for_old_run(host)?;
    services::stop_ours(site.drivers.services()?, host)?;
    let emptied = async {
        let dump = site.dump_before(database, "reset", tables::Reader::Somebody).await?;
        stop.check("stopped by a signal: nothing was changed")?;
        drop_tables(site, known).await?;
        Ok(dump)
    };
    let dump = match emptied.await {
        Ok(dump) => dump,
        failed => return with_services(failed, site, &mut writer).await,
    };
    site.drivers.forget();
    if let Err(why) = converge_site(site, &mut writer, &parts_with_data(site), Interrupt::Never).await {
        let before = dump.as_deref().unwrap_or("no dump, because it was empty");
        return Err(why.context(format!(
            "the database {database} is empty and not set up again yet (its old content is in {before}; fix the cause and run `camcops-provision install`)"
        )));
    }
    Ok(dump)
}

/// Refuses where there is anything of a patient, unless that is said too.
async fn refuse_patients(known: &Database, flags: &Reset) -> Result<()> {
    if flags.destroy_clinical_data {
        return Ok(());
    }
    let counts = tables::count_clinical(known).await?;
    let patients = counts.get(PATIENTS).copied().unwrap_or(0);
    let others = counts.iter().filter(|(name, _)| *name != PATIENTS);
    let (others, rows) = others.fold((0, 0), |(tables, all), (_, rows)| (tables + 1, all + rows));
    if patients == 0 && others == 0 {
        return Ok(());
    }
    Err(Exit::Failed.because(format!(
        "the database {} contains {} of patients and {} of other clinical data, in {}: to delete all of that, add --destroy-clinical-data; nothing was changed",
        known.database,
        count_of(patients, "record"),
        count_of(rows, "row"),
        count_of(others, "table")
    )))
}

/// Everything leaves in one step, and then for good.
async fn drop_tables(site: &Session, known: &Database) -> Result<()> {
    let (host, database) = (&site.host, &known.database);
    load::clear_up(known).await?;
    let there = sql::schema::observe(known, database).await?;
    let tables = sql::tables_of(&known.server, database).await?;
    if !tables.is_empty() {
        let aside = load::create_scratch(known, ScratchDatabase::Replaced, CHARSET, COLLATION).await?;
        load::hand_over(known, database, &aside).await?;
        host.cut().after_write();
    }
    if there != State::Absent {
        let statement = format!("DROP DATABASE {}", quote::quote_name(database));
        known.server.change(&statement).await?;
        host.cut().after_write();
    }
    load::drop_scratch(known, ScratchDatabase::Replaced).await?;
    Ok(())
}
