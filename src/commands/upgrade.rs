//! `upgrade`: another version of CamCOPS, and back by itself if that does not work.
//!
//! The new release is built beside the old one while the site runs. From then on it is an `install` with another wish:
//! the moment at which the settings get the new version is the one at which a run that is cut goes on forward, by
//! `upgrade` or by `install`; before it there is only the old one. Where the tables have to be changed, nobody can write
//! from before the dump until the new release is seen to work.

pub(crate) mod check;
pub(crate) mod rollback;

use super::{load_site, need_machine, refuse_unknown_distribution};
use crate::base::error::Exit;
use crate::base::prompt::{Enter, Question, ask_to_agree};
use crate::base::report::Report;
use crate::base::signals::{Interrupt, stop_on_signals};
use crate::base::terminal::{self};
use crate::cli::{Global, Parts, UpgradeFlags as Flags};
use crate::commands::upgrade::rollback::Writes;
use crate::drivers::{release, services, tables};
use crate::engine::Plan;
use crate::journal::{self, Writer};
use crate::probe::{Backend, Endpoint};
use crate::resource::{Part, Resource};
use crate::session::Session;
use crate::session::converge::{
    apply_plan, make_plan, overriding_sources, place_advisories, refuse_plan, unpack_bundle,
};
use crate::session::upgrade_record::{self, Side, UpgradePhase, UpgradeRecord};
use crate::settings::Version;
use anyhow::{Context, Result, bail};
use check::{KEY, Preflight};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long the site may take to answer one visitor.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two visits while the release is changed.
const PAUSE: Duration = Duration::from_millis(250);

pub(crate) async fn run(global: &Global, flags: &Flags) -> Result<Report> {
    need_machine(global, "upgrade")?;
    let mut global = global.clone();
    global.set.extend(overriding_sources(&flags.origin)?);
    let site = load_site(&global)?;
    refuse_unknown_distribution(&site)?;
    let to = check::target_version(flags.to.as_deref(), flags.untested, site.settings().camcops.hardening)?;
    if flags.check {
        // What is found of an unknown version is put where releases are built.
        let lock = (!to.is_known()).then(|| journal::try_lock(&site.host)).transpose()?;
        let facts = check::with_untested(&site, to, false)?;
        drop(lock);
        let mut found = site.close_after(check::check_upgrade(&site, &facts, to).await).await?;
        found.published = Some(check::ask_index(&site));
        return check::report_preflight(&site, &found, flags.exit_code);
    }
    let stop = stop_on_signals(site.style)?;
    if rollback::finish_begun(&global, flags.yes).await? {
        return Err(Exit::Failed.because("an interrupted rollback is finished now; run this again to upgrade"));
    }
    let mut writer = Writer::open(&site.host, &site.instance, "upgrade")?;
    let begun = begun_upgrade(&site, to)?;
    let facts = check::with_untested(&site, to, begun.is_some())?;
    let found = check::check_upgrade(&site, &facts, to).await?;
    if !found.problems.is_empty() {
        return Err(Exit::Failed.because(found.problems.join("\n")));
    }
    if !found.pending && begun.is_none() {
        place_advisories(&site, &flags.origin)?;
        site.close().await;
        check::set_version(&global, to.as_str())?;
        return Ok(report_unchanged(&site));
    }
    let known = if to.is_known() { "" } else { ", which was never tested with this camcops-provision" };
    let question = format!("Upgrade CamCOPS {} to {}{known}", found.from, to.as_str());
    ask_to_agree(&Question::new(&question, Enter::No), flags.yes, site.style)?;
    let writes = match begun {
        Some(_) => Writes::Anybodys,
        None => Writes::Ours,
    };
    for list in facts.untested.iter().filter(|list| list.version == to.as_str()) {
        release::untested::keep_list(&site.host, &site.instance, list)?;
    }
    let next = with_version(&global, to.as_str())?;
    build_release(&next, &mut writer, stop).await?;
    place_advisories(&next, &flags.origin)?;
    let visitor = Visitor::begin(&next)?;
    let upgrade = prepare_upgrade(&site, &next, &found, begun).await;
    let mut upgrade = match site.close_after(upgrade).await {
        Ok(upgrade) => upgrade,
        Err(why) => {
            // What the settings ask for has not changed yet.
            let asked_for = match writes {
                Writes::Anybodys => to.as_str(),
                _ => &found.from,
            };
            let old = with_version(&global, asked_for)?;
            let started = converge_parts(&old, &mut writer, &Parts::default(), Interrupt::Never).await;
            old.close_after(started).await.context("the services could not be started again")?;
            return Err(why.context(format!("CamCOPS {asked_for} is unchanged")));
        }
    };
    let result = go_forward(&global, &next, &mut writer, &mut upgrade, stop).await;
    let Err(why) = next.close_after(result).await else {
        let gap = visitor.end().await;
        return Ok(report_upgraded(&next, &upgrade, gap));
    };
    let (old, new) = (&upgrade.from.version, &upgrade.to.version);
    if !site.style.quiet {
        terminal::print_note(&format!("  CamCOPS {new} could not be started ({why:#}); returning to {old}"));
    }
    rollback::undo_upgrade(&global, &mut writer, &upgrade, writes)
        .await
        .with_context(|| format!("CamCOPS {new} could not be started: {why:#}"))?;
    let gap = visitor.end().await.as_secs_f64();
    let data = match writes {
        Writes::Ours => "with all data",
        _ => "with the data from before the upgrade (later data is in the newest dump from before a rollback)",
    };
    Err(why.context(format!(
        "CamCOPS {new} could not be started, so {old} is in use again, {data} (the site did not answer for {gap:.1} s)"
    )))
}

/// The upgrade to this version that an earlier run was cut in, if the settings say that it is to go on.
fn begun_upgrade(site: &Session, to: Version) -> Result<Option<UpgradeRecord>> {
    let upgrade = upgrade_record::read_record(&site.host, &site.instance)?;
    let is_asked_for = site.settings().camcops.wanted_version() == to;
    Ok(upgrade.filter(|upgrade| {
        upgrade.phase == UpgradePhase::Switching && upgrade.to.version == to.as_str() && is_asked_for
    }))
}

/// The site as if its settings asked for this version.
fn with_version(global: &Global, version: &str) -> Result<Session> {
    let mut global = global.clone();
    global.set.push(format!("{KEY}={version}"));
    load_site(&global)
}

/// Makes parts of the machine what the site wants.
async fn converge_parts(site: &Session, writer: &mut Writer<'_>, parts: &Parts, stop: Interrupt) -> Result<()> {
    apply_chosen(site, writer, parts, stop, |_| {}).await
}

async fn apply_chosen(
    site: &Session,
    writer: &mut Writer<'_>,
    parts: &Parts,
    stop: Interrupt,
    choose: impl FnOnce(&mut Plan),
) -> Result<()> {
    // What earlier steps did is looked at anew.
    if let Some(services) = &site.drivers.services {
        services.forget();
    }
    site.drivers.forget();
    let (recipe, mut plan) = make_plan(site, &writer.journal, parts).await?;
    choose(&mut plan);
    refuse_plan(site, &recipe, &plan)?;
    unpack_bundle(site, &plan)?;
    apply_plan(site, writer, &plan, stop).await?;
    Ok(())
}

/// The new release, beside the one in use.
async fn build_release(next: &Session, writer: &mut Writer<'_>, stop: Interrupt) -> Result<()> {
    let parts = Parts::only_of(&[Part::Packages, Part::Application]);
    // The links are what makes it the current one.
    apply_chosen(next, writer, &parts, stop, |plan| {
        plan.changes.retain(|planned| !matches!(planned.change.resource, Resource::Symlink(_)));
    })
    .await
    .context("nothing was changed, except files beside the current release")
}

/// The way back, before anything of the site is changed.
async fn prepare_upgrade(
    site: &Session,
    next: &Session,
    found: &Preflight,
    begun: Option<UpgradeRecord>,
) -> Result<UpgradeRecord> {
    let known = next.drivers.database()?;
    let wanted =
        release::WantedRelease::new(next.settings(), &next.facts).map_err(|why| Exit::Unreachable.because(why.0))?;
    let head =
        tables::head_of(&next.host, &wanted.id)?.with_context(|| format!("release {} has no migrations", wanted.id))?;
    let migrates = found.revision != head;
    let mut from = Side { version: found.from.clone(), release: found.from_release.clone() };
    if let Some(begun) = begun {
        if tables::was_begun(&known, next.drivers.application()?, &next.host, &begun.revision).await? {
            // Its dump is the one that leads back; another one is made of what there is now.
            services::stop_ours(site.drivers.services()?, &site.host)?;
            return Ok(begun);
        }
        from = begun.from;
    }
    if migrates {
        // What is written after the dump would be lost on the way back.
        services::stop_ours(site.drivers.services()?, &site.host)?;
    }
    let dump = next.dump_before(&known.database, found.to, tables::Reader::Program).await?;
    next.drivers.application()?.dumped.replace(dump.clone());
    Ok(UpgradeRecord {
        phase: UpgradePhase::Switching,
        from,
        to: Side { version: found.to.to_owned(), release: wanted.id },
        dump,
        revision: found.revision.clone(),
        migrates,
        sums: None,
    })
}

/// The wish; the links, the configuration and the tables; then the services; then whether all of it works.
async fn go_forward(
    global: &Global,
    next: &Session,
    writer: &mut Writer<'_>,
    upgrade: &mut UpgradeRecord,
    stop: Interrupt,
) -> Result<()> {
    let remember = |upgrade: &UpgradeRecord| {
        upgrade_record::write_record(&next.host, &next.instance, upgrade)?;
        next.host.cut().after_write();
        anyhow::Ok(())
    };
    remember(upgrade)?;
    check::set_version(global, &upgrade.to.version)?;
    next.host.cut().after_write();
    let parts = Parts::all_but(&[Part::Services, Part::Web]);
    converge_parts(next, writer, &parts, stop).await?;
    if upgrade.migrates {
        upgrade.sums = Some(tables::table_sums(&*next.drivers.database()?).await?);
        remember(upgrade)?;
        // What somebody enters ends the way back: nobody can before everything else runs.
        let services = next.drivers.services()?;
        apply_chosen(next, writer, &Parts::default(), stop, |plan| {
            plan.changes.retain(|planned| !services::lets_visitors_in(services, &planned.change.resource));
        })
        .await?;
    }
    converge_parts(next, writer, &Parts::default(), stop).await?;
    check_site_works(next, writer).await?;
    upgrade.phase = UpgradePhase::Done;
    remember(upgrade)
}

/// A real login page, what tablets are answered, logins to the database and to the broker, an answer of each service.
async fn check_site_works(site: &Session, writer: &Writer<'_>) -> Result<()> {
    for role in Backend::ALL {
        let endpoint = site.endpoint(role)?;
        endpoint.answers(PATIENCE).await?;
        if let Endpoint::Web(web, _) = &endpoint {
            web.serves_tablets(PATIENCE).await?;
        }
    }
    site.drivers.forget();
    let (_, plan) = make_plan(site, &writer.journal, &Parts::default()).await?;
    let differing = plan.changes.iter().map(|one| one.change.resource.to_string());
    let differing: Vec<String> = differing.collect();
    if !differing.is_empty() {
        bail!("after the upgrade: {}", differing.join(", "));
    }
    Ok(())
}

fn report_unchanged(site: &Session) -> Report {
    let version = site.settings().camcops.wanted_version();
    Report::new(json!({ "instance": site.instance, "changed": false }))
        .with_line(format!("nothing to do: CamCOPS {} is in use", version.as_str()))
}

fn report_upgraded(site: &Session, upgrade: &UpgradeRecord, gap: Duration) -> Report {
    let report = Report::new(json!({
        "instance": site.instance,
        "changed": true,
        "from": upgrade.from,
        "to": upgrade.to,
        "migrated": upgrade.migrates,
        "dump": upgrade.dump,
        "unanswered_ms": gap.as_millis() as u64,
    }));
    report
        .with_line(format!(
            "CamCOPS {} -> {}: the site did not answer for {:.1} s",
            upgrade.from.version,
            upgrade.to.version,
            gap.as_secs_f64()
        ))
        .with_lines(upgrade.dump.as_ref().map(|dump| format!("the old data is in {dump}")))
        .with_line(
            "`camcops-provision rollback` returns to the old release; `camcops-provision releases prune` keeps it for that",
        )
}

/// Visits the site again and again, and knows for how long it did not answer.
struct Visitor {
    over: watch::Sender<bool>,
    visits: JoinHandle<Duration>,
}

impl Visitor {
    fn begin(site: &Session) -> Result<Visitor> {
        let endpoint = site.endpoint(Backend::Web)?;
        let (over, mut is_over) = watch::channel(false);
        let visits = tokio::spawn(async move {
            let (mut longest, mut answered) = (Duration::ZERO, Instant::now());
            loop {
                if endpoint.answers(PATIENCE).await.is_ok() {
                    longest = longest.max(answered.elapsed());
                    // Only now: it does not matter when nobody asks.
                    if *is_over.borrow() {
                        return longest;
                    }
                    tokio::time::sleep(PAUSE).await;
                    answered = Instant::now();
                } else if *is_over.borrow() {
                    return longest.max(answered.elapsed());
                } else {
                    let _ = tokio::time::timeout(PAUSE, is_over.changed()).await;
                }
            }
        });
        Ok(Visitor { over, visits })
    }

    async fn end(self) -> Duration {
        let _ = self.over.send(true);
        self.visits.await.unwrap_or_default()
    }
}
