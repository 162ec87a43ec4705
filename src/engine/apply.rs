//! How a plan is carried out: each change is journalled before and after.

use super::plan::{Action, Left, Plan, Planned};
use super::put_back::{self, FormerContents};
use crate::base::error::Exit;
use crate::base::signals::Interrupt;
use crate::drivers::{Drivers, packages};
use crate::journal::{Journal, Writer};
use crate::resource::{Content, Enforced, Resource, Shown};
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::slice;
use std::time::Duration;

/// How a run ended.
#[derive(Debug, Default, Serialize)]
pub(crate) struct RunOutcome {
    pub(crate) done: usize,
    pub(crate) planned: usize,
    /// What was left as it is, and why.
    pub(crate) left: Vec<Left>,
}

/// Told of every change.
pub(crate) trait Progress {
    /// The next one; all that is left took so long the last time.
    fn begins(&mut self, planned: &Planned, index: usize, all: usize, left: Option<Duration>);
    /// One more was made.
    fn made(&mut self, planned: &Planned, index: usize, all: usize, left: Option<&Left>);
    /// Something that was not planned.
    fn note(&mut self, text: &str);
}

/// Makes the changes of a plan, each journalled before and after. Stops between two changes when `stop` says so.
pub(crate) async fn apply_plan(
    drivers: &Drivers,
    writer: &mut Writer<'_>,
    plan: &Plan,
    stop: Interrupt,
    progress: &mut dyn Progress,
) -> Result<RunOutcome> {
    if !plan.conflicts.is_empty() {
        let all: Vec<&str> = plan.conflicts.iter().map(|c| c.what.as_str()).collect();
        return Err(Exit::CannotCreate.because(all.join("\n")));
    }
    let mut outcome = RunOutcome { planned: plan.changes.len(), left: plan.left.clone(), ..RunOutcome::default() };
    let former = FormerContents::of(&writer.journal, &plan.changes);
    for batch in plan.changes.chunk_by(at_once) {
        if stop.is_set() {
            return Err(stopped_midway(outcome.done, plan.changes.len()));
        }
        let stopped_at = |planned: &Planned, done: usize| {
            format!(
                "stopped at {} ({done} of {} changes done, {} left; they are kept: fix the cause, then run this again to continue)",
                planned.change.resource,
                plan.changes.len(),
                plan.changes.len() - done
            )
        };
        let left_over = plan.changes.get(outcome.done..).unwrap_or_default();
        progress.begins(&batch[0], outcome.done + 1, plan.changes.len(), expect_time(&writer.journal, left_over));
        let numbers = record_intents(drivers, writer, batch).with_context(|| stopped_at(&batch[0], outcome.done))?;
        for (planned, number) in batch.iter().zip(numbers) {
            let left = match carry_out(drivers, writer, planned, number).await {
                Ok(left) => left,
                Err(why) => {
                    let at = (&plan.changes[..], outcome.done);
                    let put_back = put_back::after_failure(drivers, writer, at, &former, &why, progress);
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

/// How long these changes may take, from how long they took before.
pub(crate) fn expect_time(journal: &Journal, changes: &[Planned]) -> Option<Duration> {
    journal.times.expect(changes.iter().map(|planned| (&planned.change, planned.undo())))
}

pub(super) fn stopped_midway(done: usize, all: usize) -> anyhow::Error {
    Exit::Failed.because(format!(
        "stopped by a signal: {done} of {all} changes done, {} left; run this again to continue",
        all - done
    ))
}

/// Packages that follow each other are installed by one call of the package manager, and the first tables and the first
/// superuser are made by one of CamCOPS.
fn at_once(one: &Planned, next: &Planned) -> bool {
    is_missing_package(one) && is_missing_package(next) || is_superuser_of(one, next)
}

fn is_superuser_of(tables: &Planned, superuser: &Planned) -> bool {
    let are_made = [tables, superuser].iter().all(|one| matches!(one.action, Action::Create | Action::Finish));
    let kinds = (&tables.change.resource, &superuser.change.resource);
    are_made && matches!(kinds, (Resource::Tables(_), Resource::Superuser(_)))
}

fn is_missing_package(planned: &Planned) -> bool {
    matches!(planned.change.resource, Resource::Package(_))
        && matches!(planned.action, Action::Create | Action::Again | Action::Finish)
}

/// Tells the journal what comes next; gives the numbers under which it knows the changes. Packages are made here: all of
/// them are in the journal by then, and each finds itself made when its turn comes.
fn record_intents(drivers: &Drivers, writer: &mut Writer<'_>, batch: &[Planned]) -> Result<Vec<u64>> {
    let mut numbers = Vec::with_capacity(batch.len());
    for planned in batch {
        let (change, undo) = (&planned.change, planned.undo());
        let (old, new) = (change.before.content(), change.after.content());
        // A former secret of our own is of no use to anybody; what somebody else wrote there may be. Where both stand in
        // one file, what somebody else wrote stays in it.
        let superseded = |old: &Content| {
            let owned = writer.journal.find(&change.resource);
            owned.is_some_and(|owned| match planned.shown {
                Shown::Whole => false,
                Shown::Masked => true,
                Shown::Nothing => owned.ours().any(|ours| ours.content() == Some(old)),
            })
        };
        if let Some(old) = old.filter(|old| !undo && !superseded(old) && Some(*old) != new) {
            writer.remember(old)?;
        }
        if let Some(base) = &planned.base {
            writer.remember_base(base)?;
        }
        numbers.push(writer.intend(change, planned.base.as_ref(), undo)?);
    }
    if batch.iter().all(is_missing_package) {
        let names: Vec<&str> = batch.iter().map(|p| p.change.resource.name()).collect();
        let resumed = batch.iter().any(|p| p.action == Action::Finish);
        packages::install_packages(drivers.packages()?, writer.host(), &names, resumed)?;
    }
    if let [tables, superuser] = batch
        && is_superuser_of(tables, superuser)
    {
        drivers.want_first_superuser(superuser.change.resource.name());
    }
    Ok(numbers)
}

/// Makes one change, journalled before and after. Gives what was left as it is.
pub(super) async fn make_change(drivers: &Drivers, writer: &mut Writer<'_>, planned: &Planned) -> Result<Option<Left>> {
    let mut left = None;
    for number in record_intents(drivers, writer, slice::from_ref(planned))? {
        left = carry_out(drivers, writer, planned, number).await?;
    }
    Ok(left)
}

/// Makes one change; packages are there already. Gives what was left as it is.
async fn carry_out(drivers: &Drivers, writer: &mut Writer<'_>, planned: &Planned, number: u64) -> Result<Option<Left>> {
    let (host, change, undo) = (writer.host(), &planned.change, planned.undo());
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
                    bail!("its {facet} was set, but reads back differently: does something else change it?");
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
