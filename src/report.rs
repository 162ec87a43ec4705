//! What people and scripts read: the plan as a list, the diff, the summary, JSON. Nothing else prints.
//!
//! Results go to standard output, progress and complaints to standard error.

use crate::engine::{Action, Left, Outcome, Plan, Planned};
use crate::error::Exit;
use crate::resource::{Resource, Shown, State, Value};
use crate::{host::Host, mask};
use anyhow::Result;
use serde::Serialize;
use serde_json::{Map, json};
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

/// The version of every JSON document.
pub const SCHEMA_VERSION: u32 = 1;

/// How to print.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Colours on standard output.
    pub color: bool,
    /// One JSON document instead of text.
    pub json: bool,
    /// Only results and errors.
    pub quiet: bool,
    /// More than usual.
    pub verbose: bool,
}

impl Style {
    /// What the command line asks for.
    pub fn of(global: &crate::cli::Global) -> Style {
        Style {
            color: global.color.wanted() && !global.json,
            json: global.json,
            quiet: global.quiet,
            verbose: global.verbose,
        }
    }

    /// Says what is worth a word but stops nothing.
    pub fn warn(self, warnings: &[String]) {
        if !self.quiet {
            for warning in warnings {
                note(&format!("warning: {warning}"));
            }
        }
    }
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Color {
    /// Whether to use them on standard output.
    pub fn wanted(self) -> bool {
        let unwanted = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        match self {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                io::stdout().is_terminal()
                    && !unwanted("NO_COLOR")
                    && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
            }
        }
    }
}

/// Prints a result. A reader that went away is no error.
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(why) if why.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Prints a result line.
pub fn print_line(text: &str) -> Result<()> {
    print(&format!("{text}\n"))
}

/// Without escape sequences and other control characters.
pub fn plain(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        if c == '\u{1b}' {
            // A colour ends with a letter.
            let _ = rest.by_ref().find(char::is_ascii_alphabetic);
        } else if !c.is_control() {
            plain.push(c);
        }
    }
    plain
}

/// A JSON document with its schema version.
pub fn versioned(document: &impl Serialize) -> Result<serde_json::Value> {
    let mut whole = Map::new();
    whole.insert("schema_version".into(), json!(SCHEMA_VERSION));
    match serde_json::to_value(document)? {
        serde_json::Value::Object(fields) => whole.extend(fields),
        other => {
            whole.insert("result".into(), other);
        }
    }
    Ok(whole.into())
}

/// Prints a JSON document.
pub fn print_json(document: &impl Serialize) -> Result<()> {
    print_line(&serde_json::to_string_pretty(&versioned(document)?)?)
}

/// Says what failed: one line, or one JSON document where that was asked for.
pub fn failure(why: &anyhow::Error, exit: Exit, json: bool) {
    note(&format!("error: {why:#}"));
    if json {
        failure_document(&format!("{why:#}"), exit);
    }
}

/// The JSON document of a failure.
pub fn failure_document(why: &str, exit: Exit) {
    // Standard output may be what failed.
    let _ = print_json(&json!({ "error": why, "exit_code": exit as u8 }));
}

/// Says something on standard error.
pub fn note(text: &str) {
    // There is nobody left to tell if standard error is closed.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Told of every change that was made.
pub trait Progress {
    /// One more.
    fn made(&mut self, planned: &Planned, index: usize, all: usize, left: Option<&Left>);
    /// Something that was not planned.
    fn note(&mut self, text: &str);
}

/// Progress as lines on standard error.
#[derive(Debug)]
pub struct Lines<'a> {
    /// How to print.
    pub style: Style,
    /// For paths as they are seen from outside.
    pub host: &'a Host,
}

impl Progress for Lines<'_> {
    fn made(&mut self, planned: &Planned, index: usize, all: usize, left: Option<&Left>) {
        if self.style.quiet || self.style.json {
            return;
        }
        let width = all.to_string().len();
        let left = left
            .map(|left| format!(" (left: {})", left.why))
            .unwrap_or_default();
        note(&format!(
            "[{index:width$}/{all}] {}{left}",
            headline(self.host, planned)
        ));
    }

    fn note(&mut self, text: &str) {
        if !self.style.quiet && !self.style.json {
            note(&format!("  {text}"));
        }
    }
}

/// A resource as it is called in messages: a path as it is seen from outside.
pub(crate) fn shown_name(host: &Host, resource: &Resource) -> String {
    match resource {
        Resource::Directory(path) => format!("{}/", host.outside(path)),
        Resource::File(path) | Resource::Symlink(path) => host.outside(path),
        _ => resource.to_string(),
    }
}

fn headline(host: &Host, planned: &Planned) -> String {
    let name = shown_name(host, &planned.change.resource);
    match (planned.action, &planned.change.after) {
        (Action::Create | Action::Again, _)
            if matches!(planned.change.resource, Resource::Service(_)) =>
        {
            format!("start {}", planned.change.resource.name())
        }
        (Action::Update, _)
            if matches!(planned.change.resource, Resource::Service(_))
                && planned.facets == ["fresh"] =>
        {
            format!("let {} read what changed", planned.change.resource.name())
        }
        (Action::Create, State::Present(facets)) => match facets.text("target") {
            Some(target) => format!("create {name} -> {target}"),
            None => format!("create {name}"),
        },
        (Action::Create, State::Absent) => format!("create {name}"),
        (Action::Again, _) => format!("look again for {name}"),
        (Action::Update, _) => format!("change {name}: {}", differences(planned)),
        (Action::Remove, State::Absent) => format!("remove {name}"),
        (Action::Remove, State::Present(_)) => format!("give back {name}"),
        (Action::Share, _) => format!("share {name}"),
        (Action::Finish, _) => format!("finish {name}"),
    }
}

/// `mode 0644 -> 0640, content`
fn differences(planned: &Planned) -> String {
    let one = |facet: &String| {
        let value = |state: &State| state.get(facet).map(Value::to_string);
        match (
            facet.as_str(),
            value(&planned.change.before),
            value(&planned.change.after),
        ) {
            ("content", ..) => "content".to_owned(),
            (_, Some(before), Some(after)) => format!("{facet} {before} -> {after}"),
            _ => facet.clone(),
        }
    };
    let all: Vec<String> = planned.facets.iter().map(one).collect();
    all.join(", ")
}

/// The plan for people: a line per change with its reason, and the diff of every file if asked.
pub fn plan(host: &Host, plan: &Plan, kept: &[mask::Kept], diff: bool, style: Style) -> String {
    let mut text = String::new();
    let (green, yellow, red, dim, reset) = if style.color {
        ("\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[2m", "\x1b[0m")
    } else {
        ("", "", "", "", "")
    };
    for planned in &plan.changes {
        let (mark, colour) = match planned.action {
            Action::Create | Action::Share => ('+', green),
            Action::Update | Action::Again | Action::Finish => ('~', yellow),
            Action::Remove => ('-', red),
        };
        let _ = writeln!(
            text,
            "{colour}{mark} {}{reset}{dim}  ({}){reset}",
            headline(host, planned),
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
        let _ = writeln!(
            text,
            "= leave {}: {}",
            shown_name(host, &left.resource),
            left.why
        );
    }
    if let Some(line) = first_boot(&plan.on_first_boot)
        && !plan.changes.is_empty()
    {
        let _ = writeln!(text, "{dim}> on first boot: {line}{reset}");
    }
    text.push_str(&counted(plan));
    text
}

fn counted(plan: &Plan) -> String {
    match (plan.changes.len(), plan.conflicts.len()) {
        (0, 0) => "nothing to do\n".into(),
        (changes, 0) => format!("{} pending\n", count(changes, "change")),
        (changes, conflicts) => format!(
            "{} pending, {} in the way\n",
            count(changes, "change"),
            count(conflicts, "thing")
        ),
    }
}

/// `1 change`, `2 changes`.
pub fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// What a staged tree leaves to the first boot, in one line.
pub fn first_boot(left: &[Resource]) -> Option<String> {
    let mut kinds: Vec<(String, usize)> = Vec::new();
    for resource in left {
        let kind = resource.kind().replace('_', " ");
        match kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, number)) => *number += 1,
            None => kinds.push((kind, 1)),
        }
    }
    let named: Vec<String> = kinds
        .into_iter()
        .map(|(kind, number)| match number {
            1 => kind,
            _ => count(number, &kind),
        })
        .collect();
    (!named.is_empty()).then(|| named.join(", "))
}

fn content_diff(host: &Host, planned: &Planned, style: Style) -> String {
    let content = |state: &State| -> Option<String> {
        let bytes = state.facets()?.content("content")?.bytes()?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    };
    let differs = planned
        .facets
        .iter()
        .any(|f| f == "content" || f == "presence");
    let after = content(&planned.change.after);
    if !differs || (after.is_none() && content(&planned.change.before).is_none()) {
        return String::new();
    }
    let masked = |text: Option<String>| match planned.shown {
        Shown::Masked => mask::masked(&text.unwrap_or_default()),
        Shown::Whole | Shown::Nothing => text.unwrap_or_default(),
    };
    if planned.shown == Shown::Nothing {
        return "    (content not shown: it is secret or not for everybody, or goes)\n".into();
    }
    let (old, new) = (masked(content(&planned.change.before)), masked(after));
    if old == new {
        return "    (only secret values differ)\n".into();
    }
    let path = shown_name(host, &planned.change.resource);
    let diff = similar::TextDiff::from_lines(&old, &new);
    let text = diff
        .unified_diff()
        .context_radius(2)
        .header(&path, &path)
        .to_string();
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

/// The closing lines of a run.
pub fn outcome(host: &Host, what: &str, outcome: &Outcome) -> String {
    let mut text = String::new();
    for left in &outcome.left {
        let _ = writeln!(
            text,
            "left: {}: {}",
            shown_name(host, &left.resource),
            left.why
        );
    }
    match outcome.done {
        0 => text.push_str("nothing to do\n"),
        _ => {
            let _ = writeln!(text, "{what}: {} made", count(outcome.done, "change"));
        }
    }
    text
}
