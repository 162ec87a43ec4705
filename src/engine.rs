//! Plan, apply, invert: the whole of what the program does to a machine.
//!
//! * a plan is the wanted resources whose observed facets differ;
//! * applying it is, for each change, to tell the journal, enforce, observe again and tell the journal that it is done;
//! * undoing is the journal read backwards with before and after swapped.
//!
//! A re-run, a repair, an upgrade and the package's hook are nothing else than `plan` and `apply` once more.

use crate::base::error::Exit;
use crate::base::text::sets_nothing;
use crate::drivers::broker::NODE_SETTINGS;
use crate::drivers::{Drivers, files, packages};
use crate::engine::report::Progress;
use crate::host::Host;
use crate::journal::{self, Journal, Owned, Writer};
use crate::resource::{Change, Content, Enforced, Part, Resource, Shown, State, Wanted};
use anyhow::{Context, Result, bail};
use put_back::FormerContents;
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

mod put_back;
pub(crate) mod report;

/// What a change does, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    /// It is not there and will be.
    Create,
    /// We made it, and it is not there or can't be seen now: its server may only be down.
    Again,
    /// It is there and will be otherwise.
    Update,
    /// We made it, and the settings no longer want it.
    Remove,
    /// Another instance made it; this one needs it too.
    Share,
    /// The last run was cut in the middle of it.
    Finish,
}

/// One change, and why.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    /// What it does.
    pub(crate) action: Action,
    /// Resource, before, after.
    pub(crate) change: Change,
    /// The facets that differ.
    pub(crate) facets: Vec<String>,
    /// The line that explains it.
    pub(crate) because: String,
    /// Its part of the installation.
    pub(crate) part: Option<Part>,
    pub(crate) shown: Shown,
    base: Option<Content>,
    /// What it reads, where it is a service.
    inputs: Vec<Resource>,
}

impl Planned {
    fn undo(&self) -> bool {
        self.action == Action::Remove
    }
}

impl Serialize for Planned {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Where a password was chosen by a person, even a digest would let others try out guesses.
        let public = |state: &State| match (state, self.shown) {
            (State::Present(facets), Shown::Masked | Shown::Nothing) if facets.content("content").is_some() => {
                State::Present(facets.clone().with("content", "secret"))
            }
            _ => state.clone(),
        };
        let change = Change {
            resource: self.change.resource.clone(),
            before: public(&self.change.before),
            after: public(&self.change.after),
        };
        let mut fields = serializer.serialize_struct("Planned", 5)?;
        fields.serialize_field("action", &self.action)?;
        fields.serialize_field("change", &change)?;
        fields.serialize_field("facets", &self.facets)?;
        fields.serialize_field("because", &self.because)?;
        fields.serialize_field("part", &self.part)?;
        fields.end()
    }
}

/// Something of somebody else that stands where ours should.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Conflict {
    pub(crate) resource: Resource,
    /// What is there, and what to do.
    pub(crate) what: String,
    /// Whether `--adopt` may take it over.
    pub(crate) adoptable: bool,
}

/// Everything that `install` would do.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Plan {
    /// In the order of doing.
    pub(crate) changes: Vec<Planned>,
    /// What stands in the way.
    pub(crate) conflicts: Vec<Conflict>,
    /// What a staged tree leaves to the first boot.
    pub(crate) on_first_boot: Vec<Resource>,
    /// Files of ours that the settings no longer want, but that the administrator changed: they stay.
    pub(crate) left: Vec<Left>,
    /// What was seen of what is ours and wanted.
    #[serde(skip)]
    pub(crate) seen: BTreeMap<Resource, State>,
}

/// Something that stays although it is no longer wanted, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Left {
    pub(crate) resource: Resource,
    /// Why it stays.
    pub(crate) why: String,
}

/// Which instance is at work, and what it may do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(crate) instance: &'a str,
    /// Whether files of somebody else may be taken over (they come back with `uninstall`).
    pub(crate) adopt: bool,
    /// Whether all parts were asked for: only then is it known what is no longer wanted.
    pub(crate) whole: bool,
}

/// Compares what is wanted with what is there.
pub(crate) async fn make_plan(
    host: &Host,
    drivers: &Drivers,
    journal: &Journal,
    wanted: &[Wanted],
    scope: Scope<'_>,
) -> Result<Plan> {
    let others = Others::read(host, scope.instance)?;
    let mut plan = Plan::default();
    for (wanted, observed) in wanted.iter().zip(observe_all(host, drivers, wanted).await?) {
        let resource = &wanted.resource;
        let Some(observed) = observed else {
            plan.on_first_boot.push(resource.clone());
            continue;
        };
        let ours = journal.find(resource);
        if ours.is_some() {
            plan.seen.insert(resource.clone(), observed.clone());
        }
        let mut differences = wanted.state.differences(&observed);
        // Its inputs are about to change, so it will not be fresh any more when its turn comes.
        let stale = |input: &Resource| plan.changes.iter().any(|c| c.change.resource == *input);
        if differences.is_empty() && wanted.inputs.iter().any(stale) {
            differences.push("fresh");
        }
        let shared = others.find(resource);
        let action = match (&observed, ours, shared) {
            _ if ours.is_some_and(|owned| owned.open) => Action::Finish,
            (_, None, Some(_)) if differences.is_empty() => Action::Share,
            _ if differences.is_empty() => continue,
            (State::Absent, Some(_), _) if resource.needs_live_machine() => Action::Again,
            (State::Absent, ..) => Action::Create,
            (State::Present(_), ..) => Action::Update,
        };
        if action == Action::Update
            && let Some(conflict) = find_conflict(host, wanted, &observed, ours.is_some() || shared.is_some())
            && !(conflict.adoptable && scope.adopt)
        {
            plan.conflicts.push(conflict);
            continue;
        }
        let facets = differences.into_iter().map(str::to_owned).collect();
        // A file that others may not read may hold a secret, whosever it is.
        let shown = match wanted.shown {
            Shown::Whole if is_private(&observed) => Shown::Nothing,
            shown => shown,
        };
        let before = match (action, shared) {
            (Action::Share, Some((other, owned))) => journal::recalled_state(host, other, &owned.change.before)?,
            _ => observed,
        };
        plan.changes.push(Planned {
            action,
            change: Change { resource: resource.clone(), before, after: wanted.state.clone() },
            facets,
            because: wanted.because.clone(),
            part: Some(wanted.part),
            shown,
            base: wanted.base.clone(),
            inputs: wanted.inputs.clone(),
        });
    }
    if scope.whole {
        plan_removals(host, drivers, journal, wanted, scope, &others, &mut plan).await?;
    }
    Ok(plan)
}

/// What is there of each; nothing where that can't be asked before a first boot.
async fn observe_all(host: &Host, drivers: &Drivers, wanted: &[Wanted]) -> Result<Vec<Option<State>>> {
    let is_staged = host.staged_root().is_some();
    let (ahead, rest): (Vec<_>, Vec<_>) = wanted
        .iter()
        .map(|wanted| &wanted.resource)
        .enumerate()
        .filter(|(_, resource)| !(is_staged && resource.needs_live_machine()))
        .partition(|(_, resource)| resource.is_looked_at_ahead());
    let mut all = vec![None; wanted.len()];
    let look_at_rest = async {
        for (at, resource) in rest {
            all[at] = Some(drivers.observe(host, resource).await?);
        }
        anyhow::Ok(())
    };
    if ahead.iter().any(|(_, one)| matches!(one, Resource::Service(_))) {
        let ((), looked) = tokio::join!(drivers.look_ahead(host), look_at_rest);
        looked?;
    } else {
        look_at_rest.await?;
    }
    for (at, resource) in ahead {
        all[at] = Some(drivers.observe(host, resource).await?);
    }
    Ok(all)
}

/// Something that is not as we made it.
#[derive(Debug, Serialize)]
pub(crate) struct Drift {
    pub(crate) resource: Resource,
    /// The facets that differ.
    pub(crate) facets: Vec<String>,
}

/// What is ours and not as we made it. What the plan has seen is not looked at again, and what can't be asked is left out.
pub(crate) async fn find_drift(
    host: &Host,
    drivers: &Drivers,
    journal: &Journal,
    plan: &Plan,
    can_be_asked: impl Fn(&Resource) -> bool,
) -> Result<Vec<Drift>> {
    let mut drift = Vec::new();
    for owned in journal.owned() {
        let resource = &owned.change.resource;
        if host.staged_root().is_some() && resource.needs_live_machine() {
            continue;
        }
        let facets = match plan.seen.get(resource) {
            Some(seen) => owned.change.after.differences(seen),
            None if !can_be_asked(resource) => continue,
            None => {
                let seen = drivers.observe(host, resource).await?;
                owned.change.after.differences(&seen)
            }
        };
        if !facets.is_empty() {
            drift.push(Drift { resource: resource.clone(), facets: facets.into_iter().map(str::to_owned).collect() });
        }
    }
    Ok(drift)
}

/// Whether it is a file that not everybody may read.
fn is_private(state: &State) -> bool {
    let facets = state.facets();
    let content = facets.and_then(|facets| facets.content("content"));
    let mode = facets.and_then(|facets| facets.text("mode"));
    let open = mode.is_some_and(|mode| mode.ends_with(['4', '5', '6', '7']));
    content.is_some() && !open
}

/// What we made and the settings no longer want goes, last made first.
async fn plan_removals(
    host: &Host,
    drivers: &Drivers,
    journal: &Journal,
    wanted: &[Wanted],
    scope: Scope<'_>,
    others: &Others,
    plan: &mut Plan,
) -> Result<()> {
    for owned in journal.owned().iter().rev() {
        let resource = &owned.change.resource;
        if wanted.iter().any(|wanted| wanted.resource == *resource)
            || resource.holds_data(host)
            // There may be a way back to it; `releases prune` knows.
            || matches!(resource, Resource::Release(_))
        {
            continue;
        }
        match plan_undoing(host, drivers, scope.instance, owned, others, Data::Stays).await? {
            Undoing::Restore(change) => plan.changes.push(Planned {
                action: Action::Remove,
                change,
                facets: vec!["presence".into()],
                because: "the settings no longer want it".into(),
                part: None,
                shown: Shown::Nothing,
                base: None,
                inputs: Vec::new(),
            }),
            Undoing::Leave(why) => plan.left.push(Left { resource: resource.clone(), why }),
        }
    }
    Ok(())
}

/// Something unlike ours that we did not put there.
fn find_conflict(host: &Host, wanted: &Wanted, observed: &State, ours: bool) -> Option<Conflict> {
    let found = observed.facets()?.text("type")?;
    let needed = wanted.state.facets()?.text("type")?;
    let replaceable = |kind| kind == "file" || kind == "symlink";
    let path = host.outside(wanted.resource.name());
    let conflict = |what, adoptable| Some(Conflict { resource: wanted.resource.clone(), what, adoptable });
    if found != needed && !(replaceable(found) && replaceable(needed)) {
        return conflict(format!("{path} is a {found} where a {needed} is needed; move it away and run again"), false);
    }
    let other = found != needed
        || ["content", "target"]
            .iter()
            .any(|facet| wanted.state.get(facet).is_some() && wanted.state.get(facet) != observed.get(facet));
    if ours || !other {
        return None;
    }
    // As its package brings it: nothing but comments. Uninstall brings it back.
    let content = observed.facets()?.content("content");
    if wanted.resource.name() == NODE_SETTINGS && content.and_then(Content::bytes).is_some_and(sets_nothing) {
        return None;
    }
    conflict(
        format!(
            "{path} was not written by camcops-provision; move it away, or take it over with --adopt (uninstall brings it back)"
        ),
        true,
    )
}

/// How a run ended.
#[derive(Debug, Default, Serialize)]
pub(crate) struct RunOutcome {
    /// How many changes were made.
    pub(crate) done: usize,
    /// How many were planned.
    pub(crate) planned: usize,
    /// What was left as it is, and why.
    pub(crate) left: Vec<Left>,
}

/// Makes the changes of a plan, each journalled before and after. Stops between two changes when `stop` says so.
pub(crate) async fn apply_plan(
    host: &Host,
    drivers: &Drivers,
    writer: &mut Writer<'_>,
    plan: &Plan,
    stop: &AtomicBool,
    progress: &mut dyn Progress,
) -> Result<RunOutcome> {
    if !plan.conflicts.is_empty() {
        let all: Vec<&str> = plan.conflicts.iter().map(|c| c.what.as_str()).collect();
        return Err(Exit::CannotCreate.because(all.join("\n")));
    }
    let mut outcome = RunOutcome { planned: plan.changes.len(), left: plan.left.clone(), ..RunOutcome::default() };
    let former = FormerContents::of(&writer.journal, &plan.changes);
    for batch in plan.changes.chunk_by(at_once) {
        if stop.load(Ordering::Relaxed) {
            return Err(stopped_midway(outcome.done, plan.changes.len()));
        }
        let stopped_at = |planned: &Planned, done: usize| {
            format!(
                "stopped at {} ({done} of {} changes done, {} left; what is done stays: mend the cause and run again to continue)",
                planned.change.resource,
                plan.changes.len(),
                plan.changes.len() - done
            )
        };
        let numbers =
            record_intents(host, drivers, writer, batch).with_context(|| stopped_at(&batch[0], outcome.done))?;
        for (planned, number) in batch.iter().zip(numbers) {
            let left = match carry_out(host, drivers, writer, planned, number).await {
                Ok(left) => left,
                Err(why) => {
                    let at = (&plan.changes[..], outcome.done);
                    let put_back = put_back::after_failure(host, drivers, writer, at, &former, &why, progress);
                    return match put_back.await {
                        Some(told) => Err(told),
                        None => Err(why.context(stopped_at(planned, outcome.done))),
                    };
                }
            };
            outcome.done += 1;
            outcome.left.extend(left.clone());
            progress.made(planned, outcome.done, plan.changes.len(), left.as_ref());
        }
    }
    Ok(outcome)
}

fn stopped_midway(done: usize, all: usize) -> anyhow::Error {
    Exit::Failed.because(format!(
        "stopped by a signal: {done} of {all} changes done, {} left; run again to continue",
        all - done
    ))
}

/// Packages that follow each other are installed by one call of the package manager.
fn at_once(one: &Planned, next: &Planned) -> bool {
    is_missing_package(one) && is_missing_package(next)
}

fn is_missing_package(planned: &Planned) -> bool {
    matches!(planned.change.resource, Resource::Package(_))
        && matches!(planned.action, Action::Create | Action::Again | Action::Finish)
}

/// Tells the journal what comes next; gives the numbers under which it knows the changes. Packages are made here: all of
/// them are in the journal by then, and each finds itself made when its turn comes.
fn record_intents(host: &Host, drivers: &Drivers, writer: &mut Writer<'_>, batch: &[Planned]) -> Result<Vec<u64>> {
    let mut numbers = Vec::with_capacity(batch.len());
    for planned in batch {
        let (change, undo) = (&planned.change, planned.undo());
        let content = |state: &State| state.facets().and_then(|f| f.content("content").cloned());
        let (old, new) = (content(&change.before), content(&change.after));
        // A former secret of our own is of no use to anybody; what somebody else wrote there may be. Where both stand in
        // one file, what somebody else wrote stays in it.
        let superseded = |old: &Content| {
            let owned = writer.journal.find(&change.resource);
            owned.is_some_and(|owned| match planned.shown {
                Shown::Whole => false,
                Shown::Masked => true,
                Shown::Nothing => owned.ours().any(|ours| content(ours).as_ref() == Some(old)),
            })
        };
        if let Some(old) = old.filter(|old| !undo && !superseded(old) && Some(old) != new.as_ref()) {
            writer.remember(&old)?;
        }
        if let Some(base) = &planned.base {
            writer.remember_base(base)?;
        }
        numbers.push(writer.intend(change, planned.base.as_ref(), undo)?);
    }
    if batch.iter().all(is_missing_package) {
        let names: Vec<&str> = batch.iter().map(|p| p.change.resource.name()).collect();
        let resumed = batch.iter().any(|p| p.action == Action::Finish);
        packages::install_packages(drivers.packages()?, host, &names, resumed)?;
    }
    Ok(numbers)
}

async fn carry_out(
    host: &Host,
    drivers: &Drivers,
    writer: &mut Writer<'_>,
    planned: &Planned,
    number: u64,
) -> Result<Option<Left>> {
    let (change, undo) = (&planned.change, planned.undo());
    let mut left = None;
    if planned.action != Action::Share {
        change.resource.clear_up(host)?;
        let mut before = change.before.clone();
        if change.resource.needs_live_machine() || matches!(change.resource, Resource::Directory(_)) {
            // What was done since the plan may have made it already: a package brings directories and starts its service.
            before = drivers.observe(host, &change.resource).await?;
            if change.after.is_met_by(&before) {
                writer.done(number, change, planned.base.as_ref(), undo)?;
                return Ok(None);
            }
        }
        let enforced = drivers.enforce(host, &change.resource, &before, &change.after).await;
        drivers.forget();
        match enforced? {
            Enforced::Done => {
                let now = drivers.observe(host, &change.resource).await?;
                if let Some(facet) = change.after.differences(&now).first() {
                    bail!("its {facet} was set, but reads back as something else: is somebody else changing it?");
                }
            }
            Enforced::LeftAlone(why) => {
                left = Some(Left { resource: change.resource.clone(), why });
            }
        }
    }
    writer.done(number, change, planned.base.as_ref(), undo)?;
    Ok(left)
}

/// What becomes of a database and of a vhost that we made when everything is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Data {
    Stays,
    /// They go, with the accounts that use them.
    Goes,
}

/// Undoes everything that this instance made and that is still as we made it, last made first.
pub(crate) async fn undo_all(
    host: &Host,
    drivers: &Drivers,
    writer: &mut Writer<'_>,
    instance: &str,
    data: Data,
    stop: &AtomicBool,
    progress: &mut dyn Progress,
) -> Result<RunOutcome> {
    let others = Others::read(host, instance)?;
    let owned: Vec<Owned> = writer.journal.owned().iter().rev().cloned().collect();
    let mut outcome = RunOutcome { planned: owned.len(), ..RunOutcome::default() };
    for (index, owned) in owned.iter().enumerate() {
        if stop.load(Ordering::Relaxed) {
            return Err(stopped_midway(index, outcome.planned));
        }
        let step = async {
            let planned = match plan_undoing(host, drivers, instance, owned, &others, data).await? {
                // It stays ours: a later purge, or an uninstall when it is empty, removes it.
                Undoing::Restore(change) if goes_while_full(host, &change)? => {
                    return anyhow::Ok(Err(files::NOT_EMPTY.to_owned()));
                }
                Undoing::Restore(change) => Planned {
                    action: Action::Remove,
                    change,
                    facets: Vec::new(),
                    because: "uninstall".into(),
                    part: None,
                    shown: Shown::Nothing,
                    base: None,
                    inputs: Vec::new(),
                },
                Undoing::Leave(why) => {
                    let beside = keep_original(host, instance, owned)?;
                    let beside = beside.map(|name| format!("; what it was before is in {name}"));
                    return Ok(Err(why + &beside.unwrap_or_default()));
                }
            };
            let mut left = None;
            for number in record_intents(host, drivers, writer, std::slice::from_ref(&planned))? {
                left = carry_out(host, drivers, writer, &planned, number).await?;
            }
            Ok(Ok((planned, left)))
        };
        let made = step.await.with_context(|| {
            format!(
                "stopped at {} ({index} of {} undone; mend the cause and run again to continue)",
                owned.change.resource, outcome.planned
            )
        })?;
        match made {
            Ok((planned, left)) => {
                outcome.done += 1;
                outcome.left.extend(left.clone());
                progress.made(&planned, index + 1, outcome.planned, left.as_ref());
            }
            Err(why) => outcome.left.push(Left { resource: owned.change.resource.clone(), why }),
        }
    }
    Ok(outcome)
}

/// Undoes some of what this instance made, unless somebody changed it or needs it.
pub(crate) async fn undo_resources(
    host: &Host,
    drivers: &Drivers,
    writer: &mut Writer<'_>,
    instance: &str,
    resources: &[Resource],
    progress: &mut dyn Progress,
) -> Result<RunOutcome> {
    let others = Others::read(host, instance)?;
    let owned: Vec<Owned> = resources.iter().filter_map(|resource| writer.journal.find(resource).cloned()).collect();
    let mut outcome = RunOutcome { planned: owned.len(), ..RunOutcome::default() };
    for owned in &owned {
        let resource = &owned.change.resource;
        let change = match plan_undoing(host, drivers, instance, owned, &others, Data::Stays).await? {
            Undoing::Restore(change) => change,
            Undoing::Leave(why) => {
                outcome.left.push(Left { resource: resource.clone(), why });
                continue;
            }
        };
        let planned = Planned {
            action: Action::Remove,
            change,
            facets: Vec::new(),
            because: "it is not needed any more".into(),
            part: None,
            shown: Shown::Nothing,
            base: None,
            inputs: Vec::new(),
        };
        for number in record_intents(host, drivers, writer, std::slice::from_ref(&planned))? {
            let left = carry_out(host, drivers, writer, &planned, number)
                .await
                .with_context(|| format!("stopped at {resource}; run again to continue"))?;
            outcome.left.extend(left.clone());
            outcome.done += usize::from(left.is_none());
            progress.made(&planned, outcome.done, outcome.planned, left.as_ref());
        }
    }
    Ok(outcome)
}

enum Undoing {
    Restore(Change),
    Leave(String),
}

/// What becomes of one thing that we made: it goes back to what it was, unless somebody changed it or needs it.
async fn plan_undoing(
    host: &Host,
    drivers: &Drivers,
    instance: &str,
    owned: &Owned,
    others: &Others,
    data: Data,
) -> Result<Undoing> {
    let Change { resource, before: original, after: ours } = &owned.change;
    // A service of ours does not go back to what it was when we first looked: it stops.
    let original = match resource {
        Resource::Service(_) => &State::Absent,
        _ => original,
    };
    let purged = data == Data::Goes && resource.can_be_purged();
    if purged && *original != State::Absent {
        return Ok(Undoing::Leave("it was here before".into()));
    }
    if resource.holds_data(host) && !purged {
        return Ok(Undoing::Leave(match data {
            Data::Goes if resource.is_in_the_database() => "it is in the database".into(),
            _ if matches!(resource, Resource::AcmeCertificate(_)) => {
                format!("certbot goes on renewing it; `certbot delete --cert-name {}` removes it", resource.name())
            }
            _ => "it may still be needed; it is never removed".into(),
        }));
    }
    if let Some((other, _)) = others.find(resource) {
        return Ok(Undoing::Leave(format!("instance {other} needs it")));
    }
    let observed = drivers.observe(host, resource).await?;
    let found = |facet| observed.get(facet);
    let same_thing = ["type", "content", "target"].iter().all(|facet| {
        let expected = ours.get(facet);
        // In the middle of a change it is either what it was or what it was to become.
        expected.is_none()
            || owned.ours().any(|ours| found(facet) == ours.get(facet))
            || (owned.open && found(facet) == original.get(facet))
    });
    let untouched = match original {
        // What we made goes with all its facets: a mode that somebody changed meanwhile is no reason to leave it.
        State::Absent => observed == State::Absent || (same_thing && !owned.holds_edits(&observed)),
        State::Present(_) => original.is_met_by(&observed) || ours.is_met_by(&observed) || (owned.open && same_thing),
    };
    if !untouched {
        return Ok(Undoing::Leave("it was changed since".into()));
    }
    let after = journal::recalled_state(host, instance, original)?;
    let content = |state: &State| state.facets().and_then(|f| f.content("content").cloned());
    if let Some(lost) = content(&after).filter(|content| content.bytes().is_none())
        && content(&observed).as_ref() != Some(&lost)
    {
        return Ok(Undoing::Leave("what was there before is not in the journal's directory any more".into()));
    }
    Ok(Undoing::Restore(Change { resource: resource.clone(), before: observed, after }))
}

fn goes_while_full(host: &Host, change: &Change) -> Result<bool> {
    let Resource::Directory(path) = &change.resource else {
        return Ok(false);
    };
    Ok(change.after == State::Absent && host.list(path)?.is_some_and(|names| !names.is_empty()))
}

/// A file that we took over and that was edited since stays; what it was before us is put beside it, under the name returned.
fn keep_original(host: &Host, instance: &str, owned: &Owned) -> Result<Option<String>> {
    let original = journal::recalled_state(host, instance, &owned.change.before)?;
    let Some(facets) = original.facets() else {
        return Ok(None);
    };
    if facets.content("content").and_then(Content::bytes).is_none() {
        return Ok(None);
    }
    let first = format!("{}.before-camcops", owned.change.resource.name());
    let names = (1..).map(|number| match number {
        1 => first.clone(),
        more => format!("{first}.{more}"),
    });
    for name in names {
        let beside = Resource::File(name.clone());
        let found = files::observe(host, &name)?;
        let same = found.get("content") == facets.get("content");
        if found == State::Absent {
            files::enforce(host, &beside, &found, &original)?;
        } else if !same {
            continue;
        }
        return Ok(Some(host.outside(&name)));
    }
    Ok(None)
}

/// What the other instances' journals say: shared things stay while one of them names them.
struct Others(BTreeMap<String, Journal>);

impl Others {
    fn read(host: &Host, instance: &str) -> Result<Others> {
        let mut journals = BTreeMap::new();
        for name in journal::list_instances(host)? {
            if name != instance {
                let journal = Journal::read(host, &name)?;
                journals.insert(name, journal);
            }
        }
        Ok(Others(journals))
    }

    fn find(&self, resource: &Resource) -> Option<(&str, &Owned)> {
        self.0.iter().find_map(|(name, journal)| Some((name.as_str(), journal.find(resource)?)))
    }
}
