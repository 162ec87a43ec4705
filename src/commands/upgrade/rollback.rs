//! The way back from an upgrade: by itself, when the new version does not work, and by `rollback`.

use super::{check, converge_parts, with_version};
use crate::base::error::Exit;
use crate::base::prompt::{Enter, Question, ask_to_agree, is_confirmed};
use crate::base::report::Report;
use crate::base::signals::{Interrupt, go_on_to_the_end};
use crate::base::terminal::{self, Style};
use crate::cli::{Global, Parts, Rollback};
use crate::commands::{begin_change, load_site};
use crate::drivers::sql::copy::load;
use crate::drivers::{release, services, tables};
use crate::journal::Writer;
use crate::session::Session;
use crate::session::converge::overriding_sources;
use crate::session::upgrade_record::{self, UpgradePhase, UpgradeRecord};
use anyhow::{Context, Result};
use serde_json::json;
use std::collections::BTreeSet;

/// Who can have written into the tables since they were changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writes {
    /// Only this run knows of all starts of the services: what differs from the sums is new.
    Ours,
    /// The machine may have been started again in between: whatever is there now is dumped first.
    Anybodys,
    /// The administrator gives up what is new; it is dumped first.
    GivenUp,
}

/// Goes back to the release from before the last upgrade.
pub(crate) async fn roll_back(global: &Global, flags: &Rollback) -> Result<Report> {
    begin_change(global, "roll back")?;
    let mut global = global.clone();
    global.set.extend(overriding_sources(&flags.origin)?);
    let site = load_site(&global)?;
    let known = site.drivers.database()?;
    let what = "the database whose new data would be given up";
    let is_given_up = is_confirmed(flags.confirm.as_deref(), &known.database, what)?;
    if finish_begun(&global, flags.yes).await? {
        return report_rolled_back(&site);
    }
    let Some(upgrade) = upgrade_record::read_record(&site.host, &site.instance)? else {
        return Err(Exit::Failed.because("no rollback possible: there was no upgrade, or it was rolled back already"));
    };
    let current = release::current_release(&site.host)?;
    if upgrade.phase == UpgradePhase::Done && current.as_ref() != Some(&upgrade.to.release) {
        return Err(Exit::Failed.because(format!(
            "the last upgrade was to release {}, but {} is in use now: no rollback to {} from there",
            upgrade.to.release,
            current.unwrap_or_default(),
            upgrade.from.version
        )));
    }
    let question = format!("Go back from CamCOPS {} to {}", upgrade.to.version, upgrade.from.version);
    ask_to_agree(&Question::new(&question, Enter::No), flags.yes, site.style)?;
    let mut writer = Writer::open(&site.host, &site.instance, "rollback")?;
    let writes = match (is_given_up, upgrade.phase) {
        (true, _) => Writes::GivenUp,
        (false, UpgradePhase::Done) => Writes::Ours,
        (false, _) => Writes::Anybodys,
    };
    if upgrade.migrates && writes != Writes::GivenUp {
        refuse_unknown_data(&site, &upgrade).await?;
        refuse_new_data(&site, &upgrade).await?;
    }
    site.close().await;
    undo_upgrade(&global, &mut writer, &upgrade, writes).await?;
    report_rolled_back(&site)
}

fn report_rolled_back(site: &Session) -> Result<Report> {
    let current = release::current_release(&site.host)?.unwrap_or_default();
    Ok(Report::new(json!({ "instance": site.instance, "release": current }))
        .with_line(format!("release {current} is in use again")))
}

/// Finishes what an earlier run began to undo; says whether there was anything to finish.
pub(crate) async fn finish_begun(global: &Global, yes: bool) -> Result<bool> {
    let host = crate::session::open_host(global)?;
    let Some(upgrade) = upgrade_record::read_record(&host, &global.instance)? else {
        return Ok(false);
    };
    if upgrade.phase != UpgradePhase::GoingBack {
        return Ok(false);
    }
    let version = &upgrade.from.version;
    let question = format!("The return to CamCOPS {version} was interrupted: finish it first");
    ask_to_agree(&Question::new(&question, Enter::No), yes, Style::of(global))?;
    if !global.quiet {
        terminal::print_note(&format!("  finishing the interrupted return to CamCOPS {version}"));
    }
    let mut writer = Writer::open(&host, &global.instance, "rollback")?;
    undo_upgrade(global, &mut writer, &upgrade, Writes::Anybodys).await?;
    Ok(true)
}

/// Goes back: the old tables, if they were changed; then the settings; then everything else follows from these.
pub(crate) async fn undo_upgrade(
    global: &Global,
    writer: &mut Writer<'_>,
    upgrade: &UpgradeRecord,
    writes: Writes,
) -> Result<()> {
    let _going_on = go_on_to_the_end();
    let old = with_version(global, &upgrade.from.version)?;
    if let Err(why) = old_tables(&old, upgrade, writes).await {
        old.close().await;
        return Err(why.context(format!(
            "CamCOPS {} is not in use again; fix this, then run `camcops-provision rollback`",
            upgrade.from.version
        )));
    }
    check::set_version(global, &upgrade.from.version)?;
    old.host.cut().after_write();
    upgrade_record::forget_record(&old.host, &old.instance)?;
    let converged = converge_parts(&old, writer, &Parts::default(), Interrupt::Never).await;
    old.close_after(converged).await.with_context(|| {
        format!(
            "the settings ask for CamCOPS {} again; fix this, then run `camcops-provision install`",
            upgrade.from.version
        )
    })
}

/// The tables as they were, if they were changed.
async fn old_tables(old: &Session, upgrade: &UpgradeRecord, writes: Writes) -> Result<()> {
    let known = old.drivers.database()?;
    known.server.started(&old.host).await?;
    let changed = upgrade.migrates
        && (upgrade.phase == UpgradePhase::GoingBack
            || tables::was_begun(&known, old.drivers.application()?, &old.host, &upgrade.revision).await?);
    if !changed {
        return Ok(());
    }
    let dump = upgrade
        .dump
        .as_ref()
        .with_context(|| format!("the tables of {} were empty, so there is no dump to go back to", known.database))?;
    if old.host.stat(dump)?.is_none() {
        return Err(Exit::Unusable.because(format!(
            "the dump {dump} from before the upgrade is missing, so no rollback is possible: put it there again, or remove {} and run `camcops-provision install` to keep the present version",
            upgrade_record::record_path(&old.instance)
        )));
    }
    load::need_power(&known, "")?;
    load::refuse_triggers(&known).await?;
    services::stop_ours(old.drivers.services()?, &old.host)?;
    if writes != Writes::GivenUp
        && upgrade.phase != UpgradePhase::GoingBack
        && let Err(why) = refuse_new_data(old, upgrade).await
    {
        // With the new version, as the settings say.
        start_services(old).await;
        return Err(why);
    }
    // Of tables that are the old ones already there is nothing to dump.
    let at = tables::read_revision(&known, &known.database).await?;
    if writes != Writes::Ours
        && at.as_ref() != Some(&upgrade.revision)
        && let Err(why) = old.dump_before(&known.database, "rollback", tables::Reader::Somebody).await
    {
        if upgrade.phase != UpgradePhase::GoingBack {
            start_services(old).await;
        }
        return Err(why);
    }
    let going_back = UpgradeRecord { phase: UpgradePhase::GoingBack, ..upgrade.clone() };
    upgrade_record::write_record(&old.host, &old.instance, &going_back)?;
    old.host.cut().after_write();
    tables::bring_back(&known, old.drivers.application()?, &old.host, dump, &upgrade.revision).await?;
    old.host.cut().after_write();
    Ok(())
}

/// Where an upgrade was cut before its sums were taken, no service had run with the new tables; but the machine may have
/// started them since.
async fn refuse_unknown_data(site: &Session, upgrade: &UpgradeRecord) -> Result<()> {
    if upgrade.sums.is_some() || upgrade.phase == UpgradePhase::GoingBack {
        return Ok(());
    }
    let known = site.drivers.database()?;
    if !services::any_of_ours_runs(site.drivers.services()?, &site.host)?
        || !tables::was_begun(&known, site.drivers.application()?, &site.host, &upgrade.revision).await?
    {
        return Ok(());
    }
    Err(Exit::CannotCreate.because(format!(
        "the upgrade to CamCOPS {} was interrupted after the tables were upgraded, and the services run with them, so data may have been entered since: finish it with `camcops-provision upgrade`, or go back with `camcops-provision rollback --confirm {}` (the present data is kept in a dump)",
        upgrade.to.version, known.database
    )))
}

/// Whatever was entered since the tables were changed would be lost.
async fn refuse_new_data(site: &Session, upgrade: &UpgradeRecord) -> Result<()> {
    // Until there are sums, no service was started.
    let Some(before) = &upgrade.sums else {
        return Ok(());
    };
    let known = site.drivers.database()?;
    let now = tables::table_sums(&known).await?;
    let differs = |table: &&String| before.get(*table) != now.get(*table);
    let all: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let new: Vec<&str> = all.into_iter().filter(differs).map(String::as_str).collect();
    if new.is_empty() {
        return Ok(());
    }
    Err(Exit::CannotCreate.because(format!(
        "data was entered in {} since the upgrade, which the old tables do not have: stay with CamCOPS {}, or give that data up with `camcops-provision rollback --confirm {}` (it is kept in a dump)",
        new.join(", "),
        upgrade.to.version,
        known.database
    )))
}

async fn start_services(site: &Session) {
    let Some(known) = &site.drivers.services else {
        return;
    };
    for member in known.members.iter().filter(|one| one.role.is_ours()) {
        if let Err(why) = services::bring_up(known, &site.host, &member.name).await {
            terminal::print_note(&format!("  {}: {why:#}", member.name));
        }
    }
}
