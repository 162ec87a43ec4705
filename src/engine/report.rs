//! What people and scripts read: the plan as a list, the diff, the summary, JSON. Nothing else prints.
//!
//! Results go to standard output, progress and complaints to standard error.

use super::apply::{Progress, RunOutcome};
use super::plan::{Action, Left, Plan, Planned};
use super::reverse::ALL_DATA;
use crate::base::progress::{self, ShownRun, ShownStep, Tell};
use crate::base::terminal::{Style, count_of};
use crate::camcops_conf::kept;
use crate::host::Host;
use crate::layout::alternative_names;
use crate::resource::{FacetValue, Resource, Shown, State};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

/// The progress of a run, on standard error.
#[derive(Debug)]
pub(crate) struct Lines<'a> {
    style: Style,
    /// For paths as they are seen from outside.
    host: &'a Host,
    run: Option<ShownRun>,
}

impl Lines<'_> {
    pub(crate) fn new(style: Style, host: &Host) -> Lines<'_> {
        Lines { style, host, run: None }
    }

    fn shown(&mut self, all: usize) -> &ShownRun {
        self.run.get_or_insert_with(|| progress::begin_run(all))
    }
}

impl Progress for Lines<'_> {
    fn begins(&mut self, planned: &Planned, index: usize, all: usize, left: Option<Duration>) {
        let (part, what) = (part_of(planned), describe_change(self.host, planned));
        self.shown(all).begins(ShownStep { index, all, part: &part, what: &what }, left);
    }

    fn made(&mut self, planned: &Planned, index: usize, all: usize, left: Option<&Left>) {
        let (part, what, verbose) = (part_of(planned), describe_change(self.host, planned), self.style.verbose);
        let remark = left.map(|left| format!("kept: {}", left.why));
        self.shown(all).made(ShownStep { index, all, part: &part, what: &what }, remark.as_deref(), verbose);
    }

    fn note(&mut self, text: &str) {
        match &self.run {
            Some(run) => run.note(text),
            None => Tell::SHOWN.line(text),
        }
    }
}

/// The part of the installation that a change belongs to; of what is taken back, its kind.
fn part_of(planned: &Planned) -> String {
    planned.part.map_or_else(|| planned.change.resource.kind().replace('_', " "), |part| part.to_string())
}

/// A resource as it is called in messages: a path as it is seen from outside.
pub(crate) fn shown_name(host: &Host, resource: &Resource) -> String {
    match resource {
        Resource::Directory(path) => format!("{}/", host.outside(path)),
        Resource::File(path) | Resource::Symlink(path) => host.outside(path),
        _ => resource.to_string(),
    }
}

fn describe_change(host: &Host, planned: &Planned) -> String {
    let name = shown_name(host, &planned.change.resource);
    let is_only = |facet: &str| planned.facets == [facet];
    match (planned.action, &planned.change.after) {
        (Action::Create | Action::Again, _) if matches!(planned.change.resource, Resource::Service(_)) => {
            format!("start {}", planned.change.resource.name())
        }
        (Action::Update, _) if matches!(planned.change.resource, Resource::Service(_)) && is_only("fresh") => {
            let service = planned.change.resource.name();
            match service {
                "apache2.service" | "httpd.service" => format!("reload {service}: its configuration changed"),
                _ => format!("restart {service}: its configuration changed"),
            }
        }
        (Action::Update, _) if matches!(planned.change.resource, Resource::Service(_)) && is_only("answers") => {
            format!("restart {}: it does not answer", planned.change.resource.name())
        }
        (Action::Update, _) if matches!(planned.change.resource, Resource::Service(_)) && is_only("enabled") => {
            format!("enable {} at boot", planned.change.resource.name())
        }
        (Action::Create, _) if matches!(planned.change.resource, Resource::Package(_)) => format!("install {name}"),
        (Action::Create, State::Present(facets)) => match facets.text("target") {
            Some(target) => format!("create {name} -> {target}"),
            None => format!("create {name}"),
        },
        (Action::Create, State::Absent) => format!("create {name}"),
        (Action::Again, _) => format!("re-check {name}: it was not found, or its server did not answer"),
        (Action::Update, _) => format!("change {name}: {}", describe_differences(planned)),
        (Action::Remove, State::Absent) => format!("remove {name}"),
        (Action::Remove, State::Present(_)) => format!("restore {name}"),
        (Action::Share, _) => format!("share {name} with another instance"),
        (Action::Finish, _) => format!("finish {name}: the last run was interrupted there"),
    }
}

/// `mode 0644 -> 0640, content`
fn describe_differences(planned: &Planned) -> String {
    let is_account = matches!(planned.change.resource, Resource::SqlAccount(_) | Resource::BrokerAccount(_));
    let one = |facet: &String| {
        let value = |state: &State| state.get(facet).map(FacetValue::to_string);
        match (facet.as_str(), value(&planned.change.before), value(&planned.change.after)) {
            (_, _, after) if is_account => return describe_account_change(planned, facet, after.as_deref()),
            ("content", ..) => "content".to_owned(),
            (_, Some(before), Some(after)) => format!("{facet} {before} -> {after}"),
            _ => facet.clone(),
        }
        .into()
    };
    let all: Vec<String> = planned.facets.iter().filter_map(one).collect();
    all.join(", ")
}

/// What is done to an account of a server, in the words of its administrator; nothing where another facet says it.
fn describe_account_change(planned: &Planned, facet: &str, after: Option<&str>) -> Option<String> {
    let has = |other: &str| planned.facets.iter().any(|one| one == other);
    let text = match (facet, after) {
        ("passwords", Some("two")) => "add the new password beside the old one",
        ("passwords", _) => "drop the old password",
        ("login" | "former", _) if has("passwords") => return None,
        ("login" | "former", _) => "set its password",
        ("method", Some("socket")) => "log in by the socket, without a password",
        ("method", _) => "log in by password",
        ("tls", _) => "require TLS",
        ("grants" | "permissions", _) => "set its privileges",
        ("tags", _) => "remove its administrator tags",
        (other, _) => other,
    };
    Some(text.to_owned())
}

/// What differs from what install made, in the words of an administrator.
pub(crate) fn describe_drift(resource: &Resource, facets: &[String]) -> String {
    let is_only = |facet: &str| facets == [facet];
    match resource {
        Resource::Service(name) if is_only("presence") => format!("{name} is stopped"),
        _ if is_only("presence") => format!("{resource}: missing"),
        Resource::Service(name) if is_only("fresh") => format!("{name} still runs with the old configuration"),
        Resource::Service(name) if is_only("answers") => format!("{name} does not answer"),
        Resource::Service(name) if is_only("enabled") => format!("{name} is not enabled at boot"),
        Resource::SqlAccount(_) | Resource::BrokerAccount(_) if is_only("login") => {
            format!("{resource}: cannot log in")
        }
        _ => format!("{resource}: {} changed since install", facets.join(", ")),
    }
}

/// The plan for people: a line per change with its reason, and the diff of every file if asked.
pub(crate) fn describe_plan(host: &Host, plan: &Plan, kept: &[kept::KeptSetting], diff: bool, style: Style) -> String {
    let mut text = String::new();
    let (green, yellow, red, dim, reset) =
        if style.color { ("\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[2m", "\x1b[0m") } else { ("", "", "", "", "") };
    let (bold, mut part) = (if style.color { "\x1b[1m" } else { "" }, String::new());
    let folded = if style.verbose { BTreeSet::new() } else { implied_directories(plan) };
    for (at, planned) in plan.changes.iter().enumerate() {
        let of = part_of(planned);
        if of != part {
            let of_it = plan.changes[at..].iter().take_while(|next| part_of(next) == of).count();
            let _ = writeln!(text, "{bold}{of}: {}{reset}", count_of(of_it, "change"));
            part = of;
        }
        if folded.contains(&at) {
            continue;
        }
        let (mark, colour) = match planned.action {
            Action::Create | Action::Share => ('+', green),
            Action::Update | Action::Again | Action::Finish => ('~', yellow),
            Action::Remove => ('-', red),
        };
        let _ = writeln!(
            text,
            "{colour}{mark} {}{reset}{dim}  ({}){reset}",
            describe_change(host, planned),
            planned.because
        );
        if diff {
            text.push_str(&content_diff(host, planned, style));
        }
    }
    for kept in kept {
        let _ = writeln!(text, "{yellow}= keep {kept}{reset}");
    }
    for conflict in &plan.conflicts {
        let _ = writeln!(text, "{red}! {}{reset}", conflict.what);
    }
    for left in &plan.left {
        let _ = writeln!(text, "= keep {} ({})", shown_name(host, &left.resource), left.why);
    }
    if let Some(line) = first_boot(&plan.on_first_boot)
        && !plan.changes.is_empty()
    {
        let _ = writeln!(text, "{dim}> on first boot: {line}{reset}");
    }
    text.push_str(&count_actions(plan));
    text
}

/// The directories that need no line of their own: one below them is created right after.
fn implied_directories(plan: &Plan) -> BTreeSet<usize> {
    let is_created = |planned: &Planned| {
        matches!(planned.change.resource, Resource::Directory(_)) && planned.action == Action::Create
    };
    let changes = plan.changes.iter().enumerate();
    changes
        .filter(|(at, planned)| {
            let below = format!("{}/", planned.change.resource.name());
            let next = plan.changes.get(at + 1);
            is_created(planned)
                && next.is_some_and(|next| is_created(next) && next.change.resource.name().starts_with(&below))
        })
        .map(|(at, _)| at)
        .collect()
}

fn count_actions(plan: &Plan) -> String {
    match (plan.changes.len(), plan.conflicts.len()) {
        (0, 0) => "nothing to do\n".into(),
        (changes, 0) => format!("{} pending{}\n", count_of(changes, "change"), describe_effects(plan)),
        (changes, conflicts) => {
            format!("{} pending, {}\n", count_of(changes, "change"), count_of(conflicts, "conflict"))
        }
    }
}

/// What an administrator wants to know of a plan before its details: `: 11 packages to install, 2 services to restart`
fn describe_effects(plan: &Plan) -> String {
    let count = |is_it: &dyn Fn(&Planned) -> bool| plan.changes.iter().filter(|planned| is_it(planned)).count();
    let is_service = |planned: &Planned| matches!(planned.change.resource, Resource::Service(_));
    let effects = [
        (
            count(&|one| matches!(one.change.resource, Resource::Package(_)) && one.action == Action::Create),
            "package",
            "install",
        ),
        (count(&|one| is_service(one) && matches!(one.action, Action::Create | Action::Again)), "service", "start"),
        (
            count(&|one| is_service(one) && one.action == Action::Update && one.facets == ["fresh"]),
            "service",
            "restart",
        ),
    ];
    let told = effects.iter().filter(|(number, ..)| *number > 0);
    let told: Vec<String> = told.map(|(number, what, verb)| format!("{} to {verb}", count_of(*number, what))).collect();
    if told.is_empty() { String::new() } else { format!(": {}", told.join(", ")) }
}

/// What a staged tree leaves to the first boot, in one line.
pub(crate) fn first_boot(left: &[Resource]) -> Option<String> {
    let mut kinds: Vec<(String, usize)> = Vec::new();
    for resource in left {
        let noun = resource.noun();
        match kinds.iter_mut().find(|(known, _)| known == noun) {
            Some((_, number)) => *number += 1,
            None => kinds.push((noun.to_owned(), 1)),
        }
    }
    let named: Vec<String> = kinds
        .into_iter()
        .map(|(kind, number)| match number {
            1 => kind,
            _ => count_of(number, &kind),
        })
        .collect();
    (!named.is_empty()).then(|| named.join(", "))
}

fn content_diff(host: &Host, planned: &Planned, style: Style) -> String {
    let content = |state: &State| -> Option<String> {
        let bytes = state.content()?.bytes()?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    };
    let differs = planned.facets.iter().any(|f| f == "content" || f == "presence");
    let after = content(&planned.change.after);
    if !differs || (after.is_none() && content(&planned.change.before).is_none()) {
        return String::new();
    }
    let masked = |text: Option<String>| match planned.shown {
        Shown::Masked => kept::mask_secrets(&text.unwrap_or_default()),
        Shown::Whole | Shown::Nothing => text.unwrap_or_default(),
    };
    if planned.shown == Shown::Nothing {
        return "    (content not shown: it is secret, not readable by everybody, or removed)\n".into();
    }
    let (old, new) = (masked(content(&planned.change.before)), masked(after));
    if old == new {
        return "    (only secret values differ)\n".into();
    }
    let path = shown_name(host, &planned.change.resource);
    let diff = similar::TextDiff::from_lines(&old, &new);
    let text = diff.unified_diff().context_radius(2).header(&path, &path).to_string();
    let mut shown = String::new();
    for line in text.lines() {
        let colour = match line.as_bytes().first() {
            Some(b'+') if style.color => "\x1b[32m",
            Some(b'-') if style.color => "\x1b[31m",
            _ => "",
        };
        let reset = if colour.is_empty() { "" } else { "\x1b[0m" };
        let _ = writeln!(shown, "    {colour}{line}{reset}");
    }
    shown
}

/// What stays, and why: the data first, and what has the same reason together.
fn describe_left(host: &Host, all: &[Left]) -> Vec<String> {
    let is_data = |left: &&Left| left.why == ALL_DATA;
    let data = all.iter().filter(is_data).map(|left| format!("{} {ALL_DATA}", shown_name(host, &left.resource)));
    let mut groups: Vec<(&str, &str, Vec<String>)> = Vec::new();
    for left in all.iter().filter(|left| !is_data(left)) {
        let (noun, name) = match &left.resource {
            resource if resource.is_file() => ("", shown_name(host, resource)),
            Resource::Package(name) => ("package", alternative_names(name).next().unwrap_or(name).to_owned()),
            resource => (resource.noun(), resource.name().to_owned()),
        };
        match groups.iter_mut().find(|(known, why, _)| (*known, *why) == (noun, &left.why)) {
            Some((_, _, names)) => names.push(name),
            None => groups.push((noun, &left.why, vec![name])),
        }
    }
    let groups = groups.into_iter().map(|(noun, why, names)| {
        let noun = match (noun, names.len()) {
            ("", _) => String::new(),
            (noun, 1) => format!("{noun} "),
            (noun, _) => format!("{noun}s "),
        };
        format!("{noun}{} ({why})", names.join(", "))
    });
    data.chain(groups).collect()
}

/// The closing lines of a run.
pub(crate) fn describe_outcome(host: &Host, what: &str, outcome: &RunOutcome) -> String {
    let mut text = String::new();
    for line in describe_left(host, &outcome.left) {
        let _ = writeln!(text, "kept: {line}");
    }
    match outcome.done {
        0 => text.push_str("nothing to do\n"),
        _ => {
            let _ = writeln!(text, "{what}: {} made", count_of(outcome.done, "change"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_told_by_its_reason_and_the_data_first() {
        let left = |resource: Resource, why: &str| Left { resource, why: why.to_owned() };
        let package = |name: &str| left(Resource::Package(name.into()), "possibly needed by other software");
        let all = [
            left(Resource::Directory("/etc/apache2".into()), "not empty"),
            package("gcc"),
            left(Resource::Service("apache2.service".into()), "not part of CamCOPS"),
            left(Resource::Schema("camcops".into()), ALL_DATA),
            package("mariadb-server | virtual-mysql-server"),
            left(Resource::Directory("/etc/mysql".into()), "not empty"),
        ];
        let outcome = RunOutcome { left: all.to_vec(), done: 2, ..RunOutcome::default() };
        assert_eq!(
            describe_outcome(&Host::live().unwrap(), "uninstalled", &outcome),
            "kept: database camcops with all patient data (--purge removes it)\n\
             kept: /etc/apache2/, /etc/mysql/ (not empty)\n\
             kept: packages gcc, mariadb-server (possibly needed by other software)\n\
             kept: service apache2.service (not part of CamCOPS)\n\
             uninstalled: 2 changes made\n"
        );
    }
}
