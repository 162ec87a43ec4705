//! `install`, `plan`, `uninstall`.

mod next_steps;

use super::superuser::{ask_name, ask_password, take_file};
use super::{cert, doctor, load_site, need_root, purge, refuse_unknown_distribution, watch};
use crate::archive::bundle;
use crate::base::error::Exit;
use crate::base::prompt::{Enter, Question, ask_to_agree, has_terminal};
use crate::base::report::Report;
use crate::base::signals::stop_on_signals;
use crate::base::stack::box_future;
use crate::base::terminal::{self, Style, count_of};
use crate::cli::{Global, Install, Parts, PlanFlags, Uninstall};
use crate::commands::upgrade::rollback;
use crate::doctor::{choose_ignored, find_nameless};
use crate::drivers::{Drivers, packages, services};
use crate::engine::report::{Lines, describe_outcome, describe_plan, first_boot, shown_name};
use crate::engine::{self, Action, Data, Plan};
use crate::host::Host;
use crate::host::named_file::write_output;
use crate::journal::{self, Journal, Owned, Writer};
use crate::layout::{COMBINED_AUTHORITIES, RUNTIME, TOOL};
use crate::recipe::Recipe;
use crate::resource::{Part, Resource, State};
use crate::session::converge::{
    converge_site, is_issued, issue_certificate, make_plan, missing_from_bundle, overriding_sources, place_advisories,
    refuse_undoable,
};
use crate::session::{Session, open_host, trial};
use crate::settings::Source;
use crate::site::pages::remove_pages;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;

pub(crate) async fn make_plan_report(global: &Global, flags: &PlanFlags) -> Result<Report> {
    let mut global = global.clone();
    global.set.extend(overriding_sources(&flags.origin)?);
    let site = Session::open(&global)?;
    let journal = site.journal()?;
    refuse_unknown_distribution(&site)?;
    let (recipe, plan) = make_plan(&site, &journal, &flags.parts).await?;
    site.close().await;
    let reading = trial::due_reading(&site, &recipe, &plan, &journal)?;
    let (refused, warned) = reading
        .map(|reading| (trial::problem_lines(&reading.refused), trial::problem_lines(&reading.warnings)))
        .unwrap_or_default();
    let warnings = [recipe.warnings, warned].concat();
    let missing = recipe.missing.iter().map(|(_, what)| what.clone());
    let missing: Vec<String> = missing.chain(missing_from_bundle(&site, &plan)?).collect();
    let document = json!({
        "instance": site.instance,
        "plan": plan,
        "missing": missing,
        "refused": refused,
        "kept": recipe.kept,
        "warnings": warnings,
    });
    if let Some(file) = &flags.out {
        let mut text = serde_json::to_string_pretty(&terminal::with_version(&document)?)?;
        text.push('\n');
        write_output(file, text.as_bytes())
            .map_err(|why| Exit::CannotCreate.because(format!("--out {}: {why}", file.display())))?;
    }
    let pending = !plan.changes.is_empty() || !plan.conflicts.is_empty() || !missing.is_empty();
    let code = match refused.is_empty() {
        false => Exit::Unusable as u8,
        true if flags.exit_code && pending => Exit::Pending as u8,
        true => 0,
    };
    Ok(Report::new(document)
        .with_warnings(&warnings)
        .with_lines(missing.iter().chain(&refused).map(|what| format!("! {what}")))
        .with_table(describe_plan(&site.host, &plan, &recipe.kept, flags.diff, site.style))
        .with_code(code))
}

/// Makes the machine what the settings say.
pub(crate) async fn install_site(global: &Global, flags: &Install) -> Result<Report> {
    need_root(global, "install")?;
    let ignored = choose_ignored(&flags.ignore)?;
    let stop = stop_on_signals(Style::of(global))?;
    if global.root.is_none() {
        rollback::finish_begun(global, flags.yes).await?;
    }
    let mut global = with_flags(global, flags)?;
    let mut site = open_for(&global, flags)?;
    refuse_unknown_distribution(&site)?;
    if site.host.staged_root().is_none() && site.host.stat(TOOL)?.is_none() {
        return Err(Exit::Unreachable.because(format!(
            "the services call {TOOL}, which does not exist: install this program there, as its package and packaging/from-source do, and run again"
        )));
    }
    let (mut recipe, mut plan) = make_plan(&site, &site.journal()?, &flags.parts).await?;
    if let Some(name) = ask_name(&site, &plan, flags)? {
        global.set.push(format!("superuser.username={name}"));
        site = open_for(&global, flags)?;
        (recipe, plan) = make_plan(&site, &site.journal()?, &flags.parts).await?;
    }
    take_file(&site, flags.superuser_password_file.as_deref())?;
    site.style.warn(&recipe.warnings);
    if !plan.conflicts.is_empty()
        && let Some(_lock) = journal::try_lock(&site.host)?
    {
        // What another run was just making is no conflict.
        (recipe, plan) = make_plan(&site, &site.journal()?, &flags.parts).await?;
    }
    if let Some(file) = &flags.plan {
        refuse_other_plan(&site, &plan, file)?;
    }
    refuse_undoable(&site, &recipe, &plan).await?;
    if plan.changes.is_empty() {
        if let Ok(Some(_lock)) = journal::try_lock(&site.host) {
            bundle::clear_unpacked(&site.host)?;
            place_advisories(&site, &flags.origin)?;
        }
        site.close().await;
        let report = report_installed(&site, &recipe, &plan, None, &flags.parts);
        return Ok(with_page(report, &global, &site, false).await);
    }
    let is_first = next_steps::is_first(&plan);
    if plan.changes.iter().any(|c| c.part == Some(Part::Web)) {
        site.drivers.refuse_unfit_apache(&site.host)?;
    }
    trial::refuse_verdict(&site, &recipe, &plan, &site.journal()?)?;
    if flags.parts.whole() {
        doctor::before_install(&site, &ignored).await?;
    }
    if let Some((found, remedy)) = find_nameless(&plan).await {
        return Err(Exit::CannotCreate.because(format!("{found}; nothing was changed; run `{remedy}` and try again")));
    }
    ask_password(&site, &plan)?;
    let shown = || Ok(describe_plan(&site.host, &plan, &recipe.kept, false, site.style));
    let changes = count_of(plan.changes.len(), "change");
    let place = place_of(&site.host);
    // How much there is to fetch takes a moment to find out, and only who is asked needs to know.
    let cost = if flags.yes || !has_terminal() { String::new() } else { describe_cost(&site, &plan)? };
    let what = format!("Make {changes} to {place}{cost}");
    let question = Question { plan: Some(&shown), ..Question::new(&what, Enter::No) };
    ask_to_agree(&question, flags.yes, site.style)?;
    let mut writer = Writer::open(&site.host, &site.instance, "install")?;
    let is_to_issue = plan.changes.iter().any(is_issued);
    let converged = async {
        let (recipe, plan, mut outcome) = converge_site(&site, &mut writer, &flags.parts, stop).await?;
        place_advisories(&site, &flags.origin)?;
        if is_to_issue {
            let issued = issue_certificate(&site, &mut writer, &flags.parts, stop).await?;
            outcome.done += issued.done;
            outcome.planned += issued.planned;
        }
        anyhow::Ok((recipe, plan, outcome))
    };
    let (recipe, plan, outcome) = site.close_after(converged.await).await?;
    let report = report_installed(&site, &recipe, &plan, Some((&outcome, is_first)), &flags.parts);
    Ok(with_page(report, &global, &site, true).await)
}

/// The status page follows the settings. The site is installed, whatever becomes of its page.
async fn with_page(report: Report, global: &Global, site: &Session, is_changed: bool) -> Report {
    if site.host.staged_root().is_some() {
        return report;
    }
    match box_future(|| watch::follow_install(global, site, is_changed)).await {
        Ok(()) => report,
        Err(why) => report.with_warnings([format!("{why:#}")]),
    }
}

/// Refuses to do anything but what a file of `plan --out` says.
fn refuse_other_plan(site: &Session, plan: &Plan, file: &Path) -> Result<()> {
    let unusable = |why: String| Exit::Unusable.because(format!("--plan {}: {why}", file.display()));
    let text = std::fs::read(file).map_err(|why| unusable(why.to_string()))?;
    let agreed: Value =
        serde_json::from_slice(&text).map_err(|why| unusable(format!("not a file of `plan --out`: {why}")))?;
    if agreed["instance"] != json!(site.instance) {
        return Err(unusable(format!("not a plan for the instance {}", site.instance)));
    }
    let changes = |plan: &Value| -> Vec<Value> {
        let mut changes = plan["changes"].as_array().cloned().unwrap_or_default();
        // A self-signed certificate is another one each time that it is planned.
        let random = changes.iter_mut().filter(|one| one["part"] == json!(Part::Certificate));
        random.for_each(|one| one["change"]["after"] = Value::Null);
        changes
    };
    let (agreed, now) = (changes(&agreed["plan"]), changes(&serde_json::to_value(plan)?));
    let differing = |these: &[Value], those: &[Value]| these.iter().filter(|one| !those.contains(one)).count();
    let (more, less) = (differing(&now, &agreed), differing(&agreed, &now));
    if more + less == 0 {
        return Ok(());
    }
    Err(Exit::Failed.because(format!(
        "--plan {}: the machine or the settings have changed since: {} not in it, {} of it no longer due; nothing was changed; look at `camcops-provision plan` and write a new one with --out",
        file.display(),
        count_of(more, "change"),
        less
    )))
}

/// Where changes are made, in a question.
fn place_of(host: &Host) -> String {
    match host.staged_root() {
        Some(_) => host.outside("/").trim_end_matches('/').to_owned(),
        None => "this machine".to_owned(),
    }
}

/// How long a plan takes and how much it fetches, in brackets, as far as that is known from earlier runs and without
/// fetching anything.
fn describe_cost(site: &Session, plan: &Plan) -> Result<String> {
    let time = engine::expect_time(&site.journal()?, &plan.changes);
    let time = time.filter(|time| time.as_secs() > 0).map(|time| match time.as_secs() {
        seconds @ ..60 => format!("about {seconds} s"),
        seconds => format!("about {} min", seconds.div_ceil(60)),
    });
    let resources = || plan.changes.iter().filter(|one| one.action == Action::Create).map(|one| &one.change.resource);
    let is_fetched = !site.settings().network.offline && site.settings().camcops.source == Source::Pypi;
    let packages =
        site.drivers.packages().ok().and_then(|known| packages::size_to_fetch(known, &site.host, resources()));
    let packages = packages.map(|bytes| format!("{} MB of packages", bytes.div_ceil(1_000_000)));
    let mut releases = resources().filter(|resource| matches!(resource, Resource::Release(_)));
    let release = releases.next().filter(|_| is_fetched).map(|_| "CamCOPS from the Python package index".to_owned());
    let fetched = match [packages, release].into_iter().flatten().collect::<Vec<_>>().join(" and ") {
        nothing if nothing.is_empty() => None,
        some => Some(format!("{some} to fetch")),
    };
    Ok(match [time, fetched].into_iter().flatten().collect::<Vec<_>>().join(", ") {
        nothing if nothing.is_empty() => nothing,
        some => format!(" ({some})"),
    })
}

/// The site, with a release that is to be built again if that was asked for.
fn open_for(global: &Global, flags: &Install) -> Result<Session> {
    let site = Session::open(global)?;
    if !flags.rebuild {
        return Ok(site);
    }
    if !flags.parts.include(Part::Application) {
        return Err(Exit::Usage.because("--rebuild is about the part application, which --only or --skip leaves out"));
    }
    match &site.drivers.release {
        Some(release) => release.rebuild.set(true),
        None => return Err(Exit::Usage.because("--rebuild: a staged tree has no release; run without --root")),
    }
    Ok(site)
}

/// Flags that are settings for this one run.
fn with_flags(global: &Global, flags: &Install) -> Result<Global> {
    let mut global = global.clone();
    if let Some(name) = &flags.superuser {
        global.set.push(format!("superuser.username={name}"));
    }
    global.set.extend(overriding_sources(&flags.origin)?);
    Ok(global)
}

fn report_installed(
    site: &Session,
    recipe: &Recipe,
    plan: &Plan,
    made: Option<(&engine::RunOutcome, bool)>,
    parts: &Parts,
) -> Report {
    let nothing = engine::RunOutcome::default();
    let (outcome, is_first) = made.map_or((None, false), |(outcome, is_first)| (Some(outcome), is_first));
    let mut report = Report::new(json!({
        "instance": site.instance,
        "changed": outcome.map_or(0, |outcome| outcome.done),
        "left": outcome.map_or(&plan.left, |outcome| &outcome.left),
        "kept": recipe.kept,
        "on_first_boot": plan.on_first_boot,
        "url": site.url(),
    }))
    .with_text(describe_outcome(&site.host, "installed", outcome.unwrap_or(&nothing)));
    if site.style.verbose {
        report = report.with_lines(recipe.kept.iter().map(|kept| format!("kept: {kept}")));
    }
    if let (Some(_), Some(line)) = (outcome, first_boot(&plan.on_first_boot)) {
        let name = site.settings().superuser.username.as_ref();
        let flag = name.map_or_else(String::new, |name| format!(" --superuser {}", name.as_str()));
        report = report.with_line(format!("on first boot, by `camcops-provision install{flag}`: {line}"));
    }
    // Every service was seen to answer by now, or this run would not have come so far.
    if site.host.staged_root().is_none() && parts.whole() {
        if is_first {
            report = report.with_rows(next_steps::list_next_steps(site));
        }
        report = report.with_line(format!("The CamCOPS application is running at {}", site.url()));
    }
    report
}

/// Undoes what this instance made.
pub(crate) async fn uninstall_site(global: &Global, flags: &Uninstall) -> Result<Report> {
    need_root(global, "uninstall")?;
    let stop = stop_on_signals(Style::of(global))?;
    let instance = global.instance.as_str();
    let data = purge::wanted_data(instance, flags)?;
    let host = open_host(global)?;
    if !journal::list_instances(&host)?.iter().any(|name| name == instance) {
        journal::clear_up(&host)?;
        let nothing = engine::RunOutcome::default();
        return Ok(report_uninstalled(&host, instance, &nothing, &[]));
    }
    let site = match data {
        Data::Goes => Some(load_site(global)?),
        Data::Stays => None,
    };
    let none = Drivers::default();
    let (host, drivers) = match &site {
        Some(site) => (&site.host, &site.drivers),
        None => (&host, &none),
    };
    let services = drivers.services.as_ref();
    let journal = Journal::read(host, instance)?;
    let changes = count_of(journal.owned().len(), "change");
    let shown = || Ok(describe_undoing(host, journal.owned(), data));
    let what = format!("Undo {changes} to {}", place_of(host));
    let question = Question { name: Some(instance), plan: Some(&shown), ..Question::new(&what, Enter::No) };
    ask_to_agree(&question, flags.yes, Style::of(global))?;
    let mut writer = Writer::open(host, instance, "uninstall")?;
    let mut lines = Lines::new(Style::of(global), host);
    let slug = crate::layout::instance_slug(instance);
    services::before_undoing(services, host, &slug)?;
    let dumps = match &site {
        Some(site) => purge::before_undoing(site, &writer.journal).await?,
        None => Vec::new(),
    };
    let parked = cert::remove_parked(global)?;
    remove_pages(host, instance)?;
    let outcome = engine::undo_all(drivers, &mut writer, instance, data, stop, &mut lines).await;
    if let Some(site) = &site {
        site.close().await;
    }
    let mut outcome = outcome?;
    outcome.left.extend(parked);
    services::after_undoing(services, host, &slug)?;
    host.remove_file(&format!("{RUNTIME}/{slug}.lock"))?;
    host.remove_file(&format!("{RUNTIME}/{COMBINED_AUTHORITIES}"))?;
    host.remove_directory(RUNTIME)?;
    if !purge::is_left(&writer.journal) {
        writer.forget().context("everything is undone, but the journal could not be removed; run uninstall again")?;
    }
    Ok(report_uninstalled(host, instance, &outcome, &dumps))
}

/// What `uninstall` would take back, the last of it first.
fn describe_undoing(host: &Host, owned: &[Owned], data: Data) -> String {
    let mut text = String::new();
    for one in owned.iter().rev() {
        let stays = one.change.resource.holds_data(host) && data == Data::Stays;
        let name = shown_name(host, &one.change.resource);
        let _ = match (stays, &one.change.before) {
            (true, _) => writeln!(text, "= keep {name}"),
            (false, State::Absent) => writeln!(text, "- remove {name}"),
            (false, State::Present(_)) => writeln!(text, "~ restore {name}"),
        };
    }
    text
}

fn report_uninstalled(host: &Host, instance: &str, outcome: &engine::RunOutcome, dumps: &[String]) -> Report {
    Report::new(json!({ "instance": instance, "undone": outcome.done, "left": outcome.left, "dumps": dumps }))
        .with_text(describe_outcome(host, "uninstalled", outcome))
        .with_lines(dumps.iter().map(|dump| format!("the data is kept in {dump}")))
}
