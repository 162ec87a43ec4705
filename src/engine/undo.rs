//! What this instance made, taken back: all of it, or some.

use super::apply::{Progress, RunOutcome, make_change, stopped_midway};
use super::plan::{Left, Planned};
use super::reverse::{Data, Others, Undoing, plan_undoing};
use crate::base::signals::Interrupt;
use crate::drivers::{Drivers, files};
use crate::host::Host;
use crate::journal::{self, Owned, Writer};
use crate::resource::{Change, Content, Resource, State};
use anyhow::{Context, Result};

/// Undoes everything that this instance made and that is still as we made it, last made first.
pub(crate) async fn undo_all(
    drivers: &Drivers,
    writer: &mut Writer<'_>,
    instance: &str,
    data: Data,
    stop: Interrupt,
    progress: &mut dyn Progress,
) -> Result<RunOutcome> {
    let host = writer.host();
    let others = Others::read(host, instance)?;
    let owned: Vec<Owned> = writer.journal.owned().iter().rev().cloned().collect();
    let mut outcome = RunOutcome { planned: owned.len(), ..RunOutcome::default() };
    for (index, owned) in owned.iter().enumerate() {
        if stop.is_set() {
            return Err(stopped_midway(index, outcome.planned));
        }
        let step = async {
            let planned = match plan_undoing(host, drivers, instance, owned, &others, data).await? {
                // It stays ours: a later purge, or an uninstall when it is empty, removes it.
                Undoing::Restore(change) if goes_while_full(host, &change)? => {
                    return anyhow::Ok(Err(files::NOT_EMPTY.to_owned()));
                }
                Undoing::Restore(change) => Planned::removal(change, "uninstall"),
                Undoing::Leave(why) => {
                    let beside = keep_original(host, instance, owned)?;
                    let beside = beside.map(|name| format!("; the original is in {name}"));
                    return Ok(Err(why + &beside.unwrap_or_default()));
                }
            };
            progress.begins(&planned, index + 1, outcome.planned, None);
            let left = make_change(drivers, writer, &planned).await?;
            Ok(Ok((planned, left)))
        };
        let made = step.await.with_context(|| {
            format!(
                "stopped at {} ({index} of {} undone; fix the cause, then run this again to continue)",
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

/// Undoes one thing that this instance made, unless somebody changed it or needs it: then it is left.
pub(crate) async fn undo_resource(
    drivers: &Drivers,
    writer: &mut Writer<'_>,
    instance: &str,
    resource: &Resource,
    progress: &mut dyn Progress,
) -> Result<Option<Left>> {
    let host = writer.host();
    let Some(owned) = writer.journal.find(resource).cloned() else {
        return Ok(None);
    };
    let others = Others::read(host, instance)?;
    let change = match plan_undoing(host, drivers, instance, &owned, &others, Data::Stays).await? {
        Undoing::Restore(change) => change,
        Undoing::Leave(why) => return Ok(Some(Left { resource: resource.clone(), why })),
    };
    let planned = Planned::removal(change, "no longer needed");
    let left = make_change(drivers, writer, &planned)
        .await
        .with_context(|| format!("stopped at {resource}; run this again to continue"))?;
    progress.made(&planned, usize::from(left.is_none()), 1, left.as_ref());
    Ok(left)
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
    if original.content().and_then(Content::bytes).is_none() {
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
        let same = found.content() == original.content();
        if found == State::Absent {
            files::enforce(host, &beside, &found, &original)?;
        } else if !same {
            continue;
        }
        return Ok(Some(host.outside(&name)));
    }
    Ok(None)
}
