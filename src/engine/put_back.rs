//! What a service that ran does not start with does not stay: the files that were changed for it get their former content
//! back, and it goes on with that.

use super::apply::{Progress, make_change};
use super::plan::{Action, Planned};
use crate::base::error::Exit;
use crate::base::terminal::strip_controls;
use crate::drivers::Drivers;
use crate::drivers::services::NotRestarted;
use crate::journal::{Journal, Writer};
use crate::resource::{Change, Content, Resource, Shown, State};
use anyhow::Result;
use std::collections::BTreeMap;

/// What the settings alone had made of the files that a plan changes, before it is carried out; files of somebody else
/// are not in it.
pub(super) struct FormerContents(BTreeMap<Resource, Option<Content>>);

impl FormerContents {
    pub(super) fn of(journal: &Journal, changes: &[Planned]) -> FormerContents {
        let known = changes.iter().filter_map(|planned| {
            let resource = &planned.change.resource;
            let owned = journal.find(resource)?;
            let found = planned.change.before.content()?;
            Some((resource.clone(), owned.base(found).cloned()))
        });
        FormerContents(known.collect())
    }
}

/// After a service did not come up: puts back what was changed for it, and lets all that have read it go on with that.
/// Gives what is to be said then; nothing where that is no way out.
pub(super) async fn after_failure(
    drivers: &Drivers,
    writer: &mut Writer<'_>,
    (changes, failed): (&[Planned], usize),
    former: &FormerContents,
    why: &anyhow::Error,
    progress: &mut dyn Progress,
) -> Option<anyhow::Error> {
    let replaced = find_replaced(changes, failed);
    if replaced.is_empty() || why.is::<NotRestarted>() {
        return None;
    }
    let service = changes.get(failed)?.change.resource.name();
    let outside = |planned: &&Planned| writer.host().outside(planned.change.resource.name());
    let files: Vec<String> = replaced.iter().rev().map(outside).collect();
    let former_files = match files.len() {
        1 => "the previous file",
        _ => "the previous files",
    };
    let files = files.join(", ");
    let trouble = first_cause(&format!("{why:#}"));
    progress.note(&format!("{service} does not start with the new {files}: restoring {former_files}"));
    let begun = &changes[..=failed];
    let then = match restore_replaced(drivers, writer, begun, &replaced, former).await {
        Ok(()) => format!("the services run with {former_files} again; correct the settings, then run this again"),
        Err(again) => format!("they do not start with {former_files} either: {again:#}"),
    };
    // The cause has not become another one by what was put back.
    Some(Exit::of(why).because(format!("{service} does not start with the new {files}: {trouble}\n{then}")))
}

/// The files that were changed for services, the last one first, where one that ran and failed reads any of them. None
/// where anything changed besides files: the former content might not fit a new password, another release or other tables.
fn find_replaced(changes: &[Planned], failed: usize) -> Vec<&Planned> {
    let Some((made, [failed, ..])) = changes.split_at_checked(failed) else {
        return Vec::new();
    };
    let services: Vec<&Planned> = changes.iter().filter(|one| is_service(one)).collect();
    let is_input = |planned: &Planned| {
        let mut services = services.iter();
        services.any(|service| service.inputs.contains(&planned.change.resource))
    };
    let is_plain = |planned: &Planned| match &planned.change.resource {
        Resource::Symlink(_) => !is_input(planned),
        Resource::File(_) | Resource::Directory(_) | Resource::Service(_) => true,
        _ => false,
    };
    let ran = is_service(failed) && failed.change.before != State::Absent;
    if !ran || !made.iter().all(is_plain) {
        return Vec::new();
    }
    let is_replaced = |planned: &&Planned| {
        let before = &planned.change.before;
        let is_known = *before == State::Absent || before.content().is_some_and(|content| content.bytes().is_some());
        matches!(planned.change.resource, Resource::File(_))
            && matches!(planned.action, Action::Update | Action::Create)
            && is_input(planned)
            && is_known
    };
    let replaced: Vec<&Planned> = made.iter().rev().filter(is_replaced).collect();
    let mut all = replaced.iter();
    match all.any(|planned| failed.inputs.contains(&planned.change.resource)) {
        true => replaced,
        false => Vec::new(),
    }
}

fn is_service(planned: &Planned) -> bool {
    matches!(planned.change.resource, Resource::Service(_))
}

async fn restore_replaced(
    drivers: &Drivers,
    writer: &mut Writer<'_>,
    changes: &[Planned],
    replaced: &[&Planned],
    former: &FormerContents,
) -> Result<()> {
    for planned in replaced {
        make_change(drivers, writer, &reverse_change(planned, former)).await?;
    }
    let reads = |planned: &&Planned| {
        let mut files = replaced.iter();
        is_service(planned) && files.any(|file| planned.inputs.contains(&file.change.resource))
    };
    for planned in changes.iter().filter(reads) {
        make_change(drivers, writer, planned).await?;
    }
    Ok(())
}

/// The same change with before and after swapped. What was not ours before is not ours after it.
fn reverse_change(planned: &Planned, former: &FormerContents) -> Planned {
    let base = former.0.get(&planned.change.resource);
    Planned {
        action: match base {
            Some(_) => Action::Update,
            None => Action::Remove,
        },
        change: Change {
            resource: planned.change.resource.clone(),
            before: planned.change.after.clone(),
            after: planned.change.before.clone(),
        },
        facets: vec!["content".into()],
        because: "a service does not start with the new content".into(),
        part: planned.part,
        // It is of no use to anybody.
        shown: Shown::Nothing,
        base: base.cloned().flatten(),
        inputs: Vec::new(),
    }
}

/// In one line: the last exception that a service has told of, else all that was said.
fn first_cause(why: &str) -> String {
    let mut lines = why.lines().rev().map(strip_controls);
    let exception = lines.find(|line| is_exception(line.trim()));
    exception.map_or_else(|| why.to_owned(), |line| line.trim().to_owned())
}

/// `module.Exception: its words`
fn is_exception(line: &str) -> bool {
    let Some((name, _)) = line.split_once(": ") else {
        return false;
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '_')
        && last.starts_with(|c: char| c.is_ascii_uppercase())
        && (name.contains('.') || last.ends_with("Error") || last.ends_with("Exception"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Facets;

    #[test]
    fn the_cause_is_the_last_exception() {
        let why = "stopped: camcops-server@camcops.service: it ended right after its start\nits log ends:\n  ValueError: one\n  camcops_server.cc_modules.cc_exportrecipientinfo.InvalidExportRecipient: For export recipient [x]: No such group: 'y'\n  (Background on this error at: https://sqlalche.me/e/20/e3q8)\n  camcops-server@camcops.service: Main process exited, code=exited, status=1/FAILURE";
        assert!(first_cause(why).starts_with("camcops_server.cc_modules"));
        assert!(first_cause(why).ends_with("No such group: 'y'"));
        assert_eq!(first_cause("nothing of that kind\nmore"), "nothing of that kind\nmore");
    }

    fn planned(resource: Resource, before: &str) -> Planned {
        let state = |text: &str| match text {
            "" => State::Absent,
            text => State::Present(Facets::new().with("content", Content::new(text.as_bytes().to_vec()))),
        };
        Planned {
            action: match before {
                "" => Action::Create,
                _ => Action::Update,
            },
            change: Change { resource, before: state(before), after: state("new") },
            facets: vec!["content".into()],
            because: String::new(),
            part: None,
            shown: Shown::Whole,
            base: None,
            inputs: Vec::new(),
        }
    }

    fn file(name: &str) -> Resource {
        Resource::File(name.into())
    }

    fn service(name: &str, before: &str, inputs: &[&str]) -> Planned {
        Planned {
            inputs: inputs.iter().map(|name| file(name)).collect(),
            ..planned(Resource::Service(name.into()), before)
        }
    }

    fn replaced_names(failed: Planned, made: &[Planned]) -> Vec<String> {
        let mut changes = made.to_vec();
        changes.push(failed);
        changes.push(service("monitor", "runs", &["/more"]));
        let all = find_replaced(&changes, made.len());
        let names = all.iter().map(|planned| planned.change.resource.name());
        names.map(str::to_owned).collect()
    }

    #[test]
    fn what_services_read_goes_back_the_last_one_first() {
        let made = [
            planned(file("/conf"), "old"),
            planned(file("/part"), ""),
            planned(file("/other"), "old"),
            planned(file("/more"), "old"),
            service("server", "runs", &["/conf"]),
        ];
        let failed = service("scheduler", "runs", &["/part"]);
        assert_eq!(replaced_names(failed.clone(), &made), ["/more", "/part", "/conf"]);
        let unconcerned = service("scheduler", "runs", &["/none"]);
        assert!(replaced_names(unconcerned, &made).is_empty());
        let new = service("scheduler", "", &["/part"]);
        assert!(replaced_names(new, &made).is_empty());
    }

    #[test]
    fn nothing_goes_back_where_more_than_files_changed() {
        let failed = service("server", "runs", &["/conf"]);
        for other in [
            Resource::Package("a".into()),
            Resource::Tables("a".into()),
            Resource::Release("a".into()),
            Resource::BrokerAccount("a".into()),
        ] {
            let made = [planned(file("/conf"), "old"), planned(other, "old")];
            assert!(replaced_names(failed.clone(), &made).is_empty());
        }
    }

    #[test]
    fn what_was_not_ours_is_not_ours_afterwards() {
        let base = Content::new(b"ours".to_vec());
        let known = [(file("/conf"), Some(base.clone()))];
        let former = FormerContents(known.into_iter().collect());
        let back_to = reverse_change(&planned(file("/conf"), "old"), &former);
        assert_eq!((back_to.undo(), back_to.base), (false, Some(base)));
        assert!(reverse_change(&planned(file("/new"), ""), &former).undo());
    }
}
