//! `backup restore`: what a backup has takes the place of what is there, in one step, or not at all.

use super::{backup_path, load_beside, open_files};
use crate::archive::pack;
use crate::backup::{self, Opened, files, make};
use crate::base::error::Exit;
use crate::base::prompt::confirm_database;
use crate::base::report::Report;
use crate::base::signals::{Interrupt, STOPPED, stop_on_signals};
use crate::base::terminal::{Style, count_of};
use crate::cli::{Global, Parts, Restore};
use crate::commands::{load_site, refuse_unknown_distribution};
use crate::drivers::sql::copy::load::{self, DumpSource, ScratchDatabase};
use crate::drivers::sql::{self, Database};
use crate::drivers::{services, tables};
use crate::host::PathKind;
use crate::journal::{self, Journal, Writer};
use crate::resource::{Part, State};
use crate::session::Session;
use crate::session::converge::{converge_site, parts_with_data};
use anyhow::Result;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

enum Input {
    /// A backup of ours, with its sums checked.
    Backup(Box<Opened>),
    /// A dump of the database alone, of whatever tool.
    Dump(String),
}

/// How it went.
struct Restored {
    tables: usize,
    rows: u64,
    safety: Option<String>,
    downtime: Duration,
}

pub(crate) async fn run(global: &Global, flags: &Restore) -> Result<Report> {
    let stop = stop_on_signals(Style::of(global))?;
    let begin = Instant::now();
    let mut site = Session::open(global)?;
    let input = open_input(&site, &backup_path(&site, &flags.what)?)?;
    let is_new = !Journal::read(&site.host, &site.instance)?.exists();
    if is_new || flags.with_configuration {
        refuse_unknown_distribution(&site)?;
    }
    let Input::Backup(opened) = &input else {
        if is_new {
            return Err(Exit::Unreachable.because(
                "there is no site on this machine, and a database dump alone is not enough to create one: run `camcops-provision install` first",
            ));
        }
        return restore_data(global, site, &input, flags, stop, begin).await;
    };
    if opened.manifest.encrypted_to.is_some() && flags.identity.identity.is_none() {
        return Err(super::identity_needed());
    }
    if !is_new && !flags.with_configuration {
        return restore_data(global, site, &input, flags, stop, begin).await;
    }
    confirm_restore(flags, &opened.manifest.database.name)?;
    let before = before_files(global, &mut site, opened, is_new, flags).await?;
    let restored = match with_files(global, &mut site, opened, flags) {
        Ok(()) => restore_data(global, site, &input, flags, stop, begin).await,
        Err(why) => Err(why),
    };
    restored.map_err(|why| match before {
        Some(path) => why.context(format!(
            "the old data and configuration are in {path}; restore them with `camcops-provision backup restore {path} --with-configuration` and the other flags of this run"
        )),
        None => why,
    })
}

/// The data, on ground that is made for it where there is none.
async fn restore_data(
    global: &Global,
    mut site: Session,
    input: &Input,
    flags: &Restore,
    stop: Interrupt,
    begin: Instant,
) -> Result<Report> {
    let database = site.settings().database.name_or(&site.layout.slug).to_owned();
    confirm_restore(flags, &database)?;
    let is_new = !Journal::read(&site.host, &site.instance)?.exists();
    site = load_site(global)?;
    if is_new || !has_ground(&site).await? {
        // Everything that data can be loaded into; what reads it comes after it.
        let ground = Parts::all_but(&[Part::Tables, Part::Superuser, Part::Services, Part::Web]);
        let mut writer = Writer::open(&site.host, &site.instance, "backup restore")?;
        let converged = converge_site(&site, &mut writer, &ground, stop).await;
        site.close_after(converged).await?;
        drop(writer);
        site = load_site(global)?;
    }
    let mut writer = Writer::open(&site.host, &site.instance, "backup restore")?;
    let known = site.drivers.database()?;
    let restored = restore_tables(&site, &known, &mut writer, input, flags).await;
    let restored = site.close_after(restored).await?;
    let report = Report::new(json!({
        "instance": site.instance,
        "database": database,
        "tables": restored.tables,
        "rows": restored.rows,
        "safety_backup": restored.safety,
        "seconds": begin.elapsed().as_secs_f64(),
        "downtime_seconds": restored.downtime.as_secs_f64(),
        "url": site.url(),
    }));
    Ok(report
        .with_lines(restored.safety.map(|safety| format!("the old data is in {safety}")))
        .with_line(format!(
            "restored {} in {} into {database}: {:.0} s, the site was down for {:.0} s",
            count_of(restored.rows, "row"),
            count_of(restored.tables, "table"),
            begin.elapsed().as_secs_f64(),
            restored.downtime.as_secs_f64()
        ))
        .with_line(format!("The CamCOPS application is running at {}", site.url())))
}

fn tell_step(site: &Session, text: &str) -> Result<()> {
    site.drivers.application()?.tell.line(text);
    Ok(())
}

/// Only whoever names the database exactly may have it replaced.
fn confirm_restore(flags: &Restore, database: &str) -> Result<()> {
    confirm_database(flags.confirm.as_deref(), database, "replaces", "replaced")
}

fn open_input(site: &Session, path: &str) -> Result<Input> {
    let host = &site.host;
    let followed = host.followed(path)?;
    match host.stat(&followed)? {
        Some(entry) if entry.kind == PathKind::Directory => {
            Ok(Input::Backup(Box::new(backup::open_backup(host, &followed)?)))
        }
        Some(entry) if entry.kind == PathKind::File => Ok(Input::Dump(followed)),
        _ => Err(Exit::Unusable
            .because(format!("there is no backup {path}; `camcops-provision backup list` shows the existing ones"))),
    }
}

/// Whether what is not in the database can be brought back. A machine without a site gets it only where nothing else
/// stands; on a site it replaces what is there, after the backup's data was read to its end and what is there was backed
/// up: gives where.
async fn before_files(
    global: &Global,
    site: &mut Session,
    opened: &Opened,
    is_new: bool,
    flags: &Restore,
) -> Result<Option<String>> {
    let identity = flags.identity.identity.as_deref();
    let instance = &opened.manifest.instance;
    if *instance != site.instance {
        return Err(Exit::Usage.because(format!(
            "the backup is of the instance {instance}, and its configuration can only be restored there: --instance {instance}"
        )));
    }
    open_files(&site.host, opened, identity)?.read(&site.host, |packed| files::check_archive(&site.host, packed))?;
    if is_new {
        let differing = open_files(&site.host, opened, identity)?
            .read(&site.host, |packed| files::find_differing(&site.host, packed))?;
        if !differing.is_empty() {
            return Err(Exit::CannotCreate.because(format!(
                "existing files differ from those in the backup, and nothing is overwritten on a machine without a site: move {} away, and run again",
                differing.join(", ")
            )));
        }
        return Ok(None);
    }
    *site = load_site(global)?;
    let known = site.drivers.database()?;
    let _lock = journal::try_lock(&site.host)?;
    load::need_power(&known, "")?;
    known.server.started(&site.host).await?;
    load::refuse_triggers(&known).await?;
    let scan = super::open_database(&site.host, opened, identity)?
        .read(&site.host, |packed| super::scan_dump(packed, &opened.path))?;
    load::compare_counts(&opened.manifest.database.tables, &scan.tables)?;
    let before = make_safety_copy(site, &known).await?;
    if let Some(path) = &before {
        tell_step(site, &format!("the present data is in {path}"))?;
    }
    site.close().await;
    Ok(before)
}

/// Brings back what is not in the database.
fn with_files(global: &Global, site: &mut Session, opened: &Opened, flags: &Restore) -> Result<()> {
    let identity = flags.identity.identity.as_deref();
    let brought =
        open_files(&site.host, opened, identity)?.read(&site.host, |packed| files::bring_back(&site.host, packed))?;
    tell_step(site, &format!("restored {}", count_of(brought.number, "file")))?;
    if !brought.left_out.is_empty() {
        tell_step(
            site,
            &format!("not restored, because a site stores nothing there: {}", brought.left_out.join(", ")),
        )?;
    }
    *site = Session::open(global)?;
    Ok(())
}

/// Whether there is a server with the site's database.
async fn has_ground(site: &Session) -> Result<bool> {
    let known = site.drivers.database()?;
    if !known.server.is_there().await? {
        return Ok(false);
    }
    let state = sql::schema::observe(&known, &known.database).await?;
    Ok(state != State::Absent)
}

/// What is there, if it is anything, in a backup of its own.
async fn make_safety_copy(site: &Session, known: &Database) -> Result<Option<String>> {
    known.server.started(&site.host).await?;
    if !tables::has_data(known, &known.database).await? {
        return Ok(None);
    }
    let made = make::make_backup(&site.host, site, known, Some("a restore")).await?;
    // It is read again: what is on the disk is what counts.
    backup::open_backup(&site.host, &made.path)?;
    Ok(Some(made.path))
}

async fn restore_tables(
    site: &Session,
    known: &Database,
    writer: &mut Writer<'_>,
    input: &Input,
    flags: &Restore,
) -> Result<Restored> {
    load::need_power(known, "")?;
    known.server.started(&site.host).await?;
    load::refuse_triggers(known).await?;
    load::clear_up(known).await?;
    let (name, counts) = match load_beside_live(site, known, input, flags).await {
        Ok(loaded) => loaded,
        Err(why) => {
            load::drop_scratch(known, ScratchDatabase::Restore).await?;
            return Err(why);
        }
    };
    if let Err(stopped) = Interrupt::Signals.check(STOPPED) {
        load::drop_scratch(known, ScratchDatabase::Restore).await?;
        return Err(stopped);
    }
    let begin = Instant::now();
    tell_step(site, "stopping the services of the site")?;
    services::stop_ours(site.drivers.services()?, &site.host)?;
    let safety = match switch_databases(site, known, &name).await {
        Ok(safety) => safety,
        Err(why) => {
            // The server may have gone away just when the tables changed places.
            let were_switched = load::were_switched(known).await;
            if !matches!(were_switched, Ok(false)) {
                return Err(why.context(
                    "the services are stopped, and the tables may be replaced already; both old and new ones are kept: make sure that the database server runs, then run the same command again",
                ));
            }
            load::drop_scratch(known, ScratchDatabase::Restore).await?;
            load::drop_scratch(known, ScratchDatabase::Replaced).await?;
            start_services(site, writer).await?;
            return Err(why.context("the database is unchanged, and the site runs again"));
        }
    };
    tell_step(site, "the tables are replaced; starting the site")?;
    load::drop_scratch(known, ScratchDatabase::Restore).await?;
    if let Err(why) = start_services(site, writer).await {
        let before = safety.as_deref().unwrap_or("no backup, because it was empty");
        return Err(why.context(format!(
            "the data was restored, but the site does not run with it (the old data is in {before}; fix the cause and run `camcops-provision install`)"
        )));
    }
    let downtime = begin.elapsed();
    load::drop_scratch(known, ScratchDatabase::Replaced).await?;
    Ok(Restored { tables: counts.len(), rows: counts.values().sum(), safety, downtime })
}

/// Brings the site up again, whatever signal comes.
async fn start_services(site: &Session, writer: &mut Writer<'_>) -> Result<()> {
    converge_site(site, writer, &parts_with_data(site), Interrupt::Never).await?;
    Ok(())
}

/// Lets the tables change places, after what was there is safe.
async fn switch_databases(site: &Session, known: &Database, name: &str) -> Result<Option<String>> {
    let safety = make_safety_copy(site, known).await?;
    let (charset, collation) = charset_of(known).await?;
    let aside = load::create_scratch(known, ScratchDatabase::Replaced, &charset, &collation).await?;
    load::switch_tables(known, name, &aside).await?;
    Ok(safety)
}

/// What the site's database gives its tables.
async fn charset_of(known: &Database) -> Result<(String, String)> {
    let like: Option<(String, String)> = known
        .server
        .row(&format!(
            "SELECT DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {}",
            sql::quote::quote_text(&known.database)
        ))
        .await?;
    like.ok_or_else(|| Exit::Unreachable.because(format!("the database {} does not exist", known.database)))
}

/// Loads it beside the site's database, and looks at what came: its name, and the rows of its tables.
async fn load_beside_live(
    site: &Session,
    known: &Database,
    input: &Input,
    flags: &Restore,
) -> Result<(String, BTreeMap<String, u64>)> {
    let host = &site.host;
    let (name, wanted, what) = match input {
        Input::Backup(opened) => {
            let database = &opened.manifest.database;
            tables::refuse_unknown(
                site.drivers.application()?,
                &site.host,
                database.revision.as_deref(),
                &opened.path,
            )?;
            let identity = flags.identity.identity.as_deref();
            let name = load_beside(site, known, opened, identity, ScratchDatabase::Restore).await?;
            (name, Some(database.tables.clone()), &opened.path)
        }
        Input::Dump(path) => {
            let Some((_, file)) = host.open_file(path)? else {
                return Err(Exit::Unusable.because(format!("{path} is no longer a file")));
            };
            let identity = flags.identity.identity.as_deref();
            let payload = super::open_payload(host, &file, pack::is_encrypted(&file)?, identity)?;
            load::check_room(host, known, file.metadata()?.len()).await?;
            tell_step(site, &format!("loading {path} into a temporary database"))?;
            let (charset, collation) = charset_of(known).await?;
            let name = load::create_scratch(known, ScratchDatabase::Restore, &charset, &collation).await?;
            let source = DumpSource::Stream { file: &payload.file, decrypted: payload.decrypted };
            let scan = load::load_dump(host, known, &name, source).await?;
            if scan.by_a_client && !scan.complete {
                return Err(Exit::Unusable.because(format!("{path} is incomplete; nothing was changed")));
            }
            // Other tools write in ways of their own.
            (name, scan.by_a_client.then_some(scan.tables), path)
        }
    };
    let more = sql::others_of(&known.server, &name).await?;
    if more.iter().any(|what| what.starts_with(sql::TRIGGER)) {
        return Err(Exit::Unusable.because(format!(
            "{what} has triggers, and the server can't rename tables with triggers; nothing was changed: make a dump with --skip-triggers"
        )));
    }
    let found = load::count_rows(known, &name).await?;
    if let Some(wanted) = wanted {
        load::compare_counts(&wanted, &found)?;
    }
    let revision = tables::read_revision(known, &name).await?;
    tables::refuse_unknown(site.drivers.application()?, &site.host, revision.as_deref(), what)?;
    Ok((name, found))
}
