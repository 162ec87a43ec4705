//! What is to be done: the wanted resources whose observed facets differ, and what is wanted no longer.

use super::reverse::{Data, Others, Undoing, plan_undoing};
use crate::base::stack::box_future;
use crate::base::text::sets_nothing;
use crate::drivers::broker::NODE_SETTINGS;
use crate::drivers::{Drivers, files, services};
use crate::host::Host;
use crate::journal::{self, Journal};
use crate::resource::{Change, Content, Part, Resource, Shown, State, Wanted};
use anyhow::Result;
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use tokio::task::yield_now;

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
    pub(crate) action: Action,
    pub(crate) change: Change,
    /// The facets that differ.
    pub(crate) facets: Vec<String>,
    /// The line that explains it.
    pub(crate) because: String,
    /// Its part of the installation.
    pub(crate) part: Option<Part>,
    pub(crate) shown: Shown,
    pub(super) base: Option<Content>,
    /// What it reads, where it is a service.
    pub(super) inputs: Vec<Resource>,
}

impl Planned {
    /// What takes back a thing that we made.
    pub(super) fn removal(change: Change, because: &str) -> Planned {
        Planned {
            action: Action::Remove,
            change,
            facets: vec!["presence".into()],
            because: because.into(),
            part: None,
            shown: Shown::Nothing,
            base: None,
            inputs: Vec::new(),
        }
    }

    pub(super) fn undo(&self) -> bool {
        self.action == Action::Remove
    }
}

impl Serialize for Planned {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Where a password was chosen by a person, even a digest would let others try out guesses.
        let public = |state: &State| match (state, self.shown) {
            (State::Present(facets), Shown::Masked | Shown::Nothing) if facets.content().is_some() => {
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
        stop_former_first(&mut plan.changes);
    }
    Ok(plan)
}

/// What is there of each; nothing where that can't be asked before a first boot.
async fn observe_all(host: &Host, drivers: &Drivers, wanted: &[Wanted]) -> Result<Vec<Option<State>>> {
    let is_staged = host.staged_root().is_some();
    let mut groups: [Vec<Numbered<'_>>; 5] = Default::default();
    let resources = wanted.iter().map(|wanted| &wanted.resource).enumerate();
    for (at, resource) in resources.filter(|(_, resource)| !(is_staged && resource.needs_live_machine())) {
        groups[group_of(resource)].push((at, resource));
    }
    let [files, release, database, broker, ahead] = groups;
    let look_ahead = async {
        if ahead.iter().any(|(_, one)| matches!(one, Resource::Service(_))) {
            drivers.look_ahead(host).await;
        }
    };
    let (release, database, broker, files, ()) = tokio::join!(
        box_future(|| observe_each(host, drivers, release)),
        box_future(|| observe_each(host, drivers, database)),
        box_future(|| observe_each(host, drivers, broker)),
        box_future(|| observe_each(host, drivers, files)),
        box_future(|| look_ahead),
    );
    let mut seen: Vec<_> = [release, database, broker, files].into_iter().flatten().collect();
    if seen.iter().all(|(_, state)| state.is_ok()) {
        seen.extend(box_future(|| observe_each(host, drivers, ahead)).await);
    }
    // Of several failures the first is told.
    seen.sort_by_key(|(at, _)| *at);
    let mut all = vec![None; wanted.len()];
    for (at, state) in seen {
        all[at] = Some(state?);
    }
    Ok(all)
}

/// Of each group one is looked at after the other, and of all groups at once: files, what has a thread of its own, the
/// database, the broker, and what is asked while the rest is looked at.
fn group_of(resource: &Resource) -> usize {
    match resource {
        Resource::Release(_) => 1,
        Resource::Schema(_) | Resource::SqlAccount(_) | Resource::Tables(_) | Resource::Superuser(_) => 2,
        Resource::Vhost(_) => 3,
        _ if resource.is_looked_at_ahead() => 4,
        _ => 0,
    }
}

/// A resource and its place in the recipe.
type Numbered<'a> = (usize, &'a Resource);

/// Looks at one after the other until one can't be looked at, and lets others go on meanwhile.
async fn observe_each(host: &Host, drivers: &Drivers, resources: Vec<Numbered<'_>>) -> Vec<(usize, Result<State>)> {
    let mut seen = Vec::with_capacity(resources.len());
    for (at, resource) in resources {
        let state = box_future(|| drivers.observe(host, resource)).await;
        let is_over = state.is_err();
        seen.push((at, state));
        if is_over {
            break;
        }
        yield_now().await;
    }
    seen
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
            // An upgrade of the distribution may have taken it, and nothing of the site needs it any more.
            None if matches!(resource, Resource::Package(_)) => continue,
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
    let open = state.text("mode").is_some_and(|mode| mode.ends_with(['4', '5', '6', '7']));
    state.content().is_some() && !open
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
        let is_reader = drivers.made_for_reading(owned);
        if wanted.iter().any(|wanted| wanted.resource == *resource)
            || (resource.holds_data(host) && !is_reader)
            // There may be a way back to it; `releases prune` knows.
            || matches!(resource, Resource::Release(_))
        {
            continue;
        }
        // With such an account goes nothing but somebody's way in.
        let data = if is_reader { Data::Goes } else { Data::Stays };
        match plan_undoing(host, drivers, scope.instance, owned, others, data).await? {
            Undoing::Restore(change) => {
                plan.changes.push(Planned::removal(change, "no longer in the settings"));
            }
            Undoing::Leave(why) => plan.left.push(Left { resource: resource.clone(), why }),
        }
    }
    Ok(())
}

/// Where another manager takes over, the services of the former one stop first: they have the ports and the sockets that
/// the new ones need.
fn stop_former_first(changes: &mut Vec<Planned>) {
    let service = |planned: &Planned| match &planned.change.resource {
        Resource::Service(name) if services::is_ours(name) => Some(name.clone()),
        _ => None,
    };
    let starting = changes.iter().position(|planned| planned.action != Action::Remove && service(planned).is_some());
    let Some((first, starting)) = starting.and_then(|at| Some((at, service(&changes[at])?))) else {
        return;
    };
    let is_former = |planned: &Planned| {
        planned.action == Action::Remove
            && service(planned).is_some_and(|name| !services::have_same_manager(&name, &starting))
    };
    let mut at = first;
    for index in first..changes.len() {
        if is_former(&changes[index]) {
            let former = changes.remove(index);
            changes.insert(at, former);
            at += 1;
        }
    }
}

/// Something unlike ours that we did not put there.
fn find_conflict(host: &Host, wanted: &Wanted, observed: &State, ours: bool) -> Option<Conflict> {
    let found = observed.text("type")?;
    let needed = wanted.state.text("type")?;
    let conflict = |what, adoptable| Some(Conflict { resource: wanted.resource.clone(), what, adoptable });
    if let Some(what) = files::find_obstacle(host, wanted.resource.name(), found, needed) {
        return conflict(what, false);
    }
    let other = found != needed
        || ["content", "target"]
            .iter()
            .any(|facet| wanted.state.get(facet).is_some() && wanted.state.get(facet) != observed.get(facet));
    if ours || !other {
        return None;
    }
    // As its package brings it: nothing but comments. Uninstall brings it back.
    let content = observed.content();
    if wanted.resource.name() == NODE_SETTINGS && content.and_then(Content::bytes).is_some_and(sets_nothing) {
        return None;
    }
    let path = host.outside(wanted.resource.name());
    conflict(
        format!(
            "{path} was not written by camcops-provision; move it away, or take it over with --adopt (uninstall restores it)"
        ),
        true,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(action: Action, resource: Resource) -> Planned {
        let change = Change { resource, before: State::Absent, after: State::Absent };
        Planned { action, ..Planned::removal(change, "") }
    }

    #[test]
    fn services_of_a_former_manager_stop_before_the_first_start() {
        let service = |action, name: &str| planned(action, Resource::Service(name.to_owned()));
        let file = |action, path: &str| planned(action, Resource::File(path.to_owned()));
        let names = |changes: &[Planned]| -> Vec<String> {
            changes.iter().map(|planned| planned.change.resource.name().to_owned()).collect()
        };
        let mut changes = vec![
            file(Action::Create, "/a"),
            service(Action::Update, "mariadb.service"),
            service(Action::Create, "camcops:camcops_server"),
            service(Action::Create, "camcops:camcops_monitor"),
            service(Action::Remove, "camcops-monitor@camcops.service"),
            file(Action::Remove, "/b"),
            service(Action::Remove, "camcops-server@camcops.socket"),
        ];
        stop_former_first(&mut changes);
        let expected = [
            "/a",
            "mariadb.service",
            "camcops-monitor@camcops.service",
            "camcops-server@camcops.socket",
            "camcops:camcops_server",
            "camcops:camcops_monitor",
            "/b",
        ];
        assert_eq!(names(&changes), expected);
        // Under the same manager everything stays in its order.
        let mut changes = vec![
            service(Action::Create, "camcops-workers@camcops.service"),
            service(Action::Remove, "camcops-workers-2@camcops.service"),
        ];
        let before = names(&changes);
        stop_former_first(&mut changes);
        assert_eq!(names(&changes), before);
    }
}
