//! A machine that a case has written down: what is asked of programs and servers, in this order, and what they answer.
//!
//! Only tests have one. While it is there, no program is started, no server is reached and no owner is changed: each
//! door of the crate asks here first. It belongs to the thread that reads the case, so that cases run side by side.

use super::accounts::Accounts;
use super::finished_name;
use anyhow::{Result, bail};
use nix::unistd::gethostname;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Stands for anything, also for nothing, in what is asked.
const ANYTHING: char = '…';
/// Longer words of a command, and longer inputs, are shortened where they are written down for the first time.
const LONGEST: usize = 160;
/// Every program has these.
const USUAL: [&str; 3] = ["PATH", "LC_ALL", "LANG"];
/// A developer's own way out of the network is none of the case's.
const INHERITED: [&str; 3] = ["http_proxy", "https_proxy", "no_proxy"];

thread_local! {
    static SCRIPT: RefCell<Option<Script>> = const { RefCell::new(None) };
}

/// One thing that is asked or told, and the answer. Exactly one of the first six is there.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Step {
    /// A program with its arguments, as a shell would take them.
    pub(crate) run: Option<String>,
    /// A statement for the database server.
    pub(crate) sql: Option<String>,
    /// A login to the database server.
    pub(crate) login: Option<String>,
    /// A question to the broker.
    pub(crate) amqp: Option<String>,
    /// A question to a web server.
    pub(crate) http: Option<String>,
    /// A line for the user.
    pub(crate) tell: Option<String>,
    /// A path that is given to an owner.
    pub(crate) own: Option<String>,
    /// What the program finds in its environment besides the usual.
    pub(crate) env: BTreeMap<String, String>,
    /// What it reads.
    pub(crate) input: Option<String>,
    /// Where it starts, if not at the root.
    pub(crate) directory: Option<String>,
    /// How it ends, if not well.
    pub(crate) status: Option<i32>,
    /// What it prints, or the names of the workers, or the page.
    pub(crate) output: Option<String>,
    pub(crate) complaint: Option<String>,
    /// It is not installed.
    pub(crate) missing: bool,
    /// Files that are there from then on.
    pub(crate) makes: BTreeMap<String, String>,
    /// What the server answers; "NULL" is none.
    pub(crate) rows: Vec<Vec<serde_json::Value>>,
    /// The server's refusal: its number and its words.
    pub(crate) refused: Option<(u16, String)>,
    /// Why there is no answer at all, by the name of the cause.
    pub(crate) trouble: Option<String>,
}

impl Step {
    /// Which kind of question, and its text.
    pub(crate) fn question(&self) -> (&'static str, &str) {
        let all = [
            ("run", &self.run),
            ("sql", &self.sql),
            ("login", &self.login),
            ("amqp", &self.amqp),
            ("http", &self.http),
            ("tell", &self.tell),
            ("own", &self.own),
        ];
        let mut given = all.into_iter().filter_map(|(kind, text)| Some((kind, text.as_deref()?)));
        match (given.next(), given.next()) {
            (Some(one), None) => one,
            _ => panic!("a step asks or tells exactly one thing: {self:?}"),
        }
    }

    fn of(kind: &str, text: String) -> Step {
        let mut step = Step::default();
        let text = Some(text);
        match kind {
            "run" => step.run = text,
            "sql" => step.sql = text,
            "login" => step.login = text,
            "amqp" => step.amqp = text,
            "http" => step.http = text,
            "tell" => step.tell = text,
            _ => step.own = text,
        }
        step
    }

    /// Whether this is what was asked; a case that is being written may have only a part of the words.
    fn fits(&self, asked: &Step, is_draft: bool) -> bool {
        let ((kind, words), (asked_kind, text)) = (self.question(), asked.question());
        let same = |mine: &Option<String>, theirs: &Option<String>| match (mine, theirs) {
            (Some(mine), Some(theirs)) => like(mine, theirs),
            (None, None) => true,
            _ => false,
        };
        let env = self.env.len() == asked.env.len()
            && self.env.iter().all(|(name, value)| asked.env.get(name).is_some_and(|told| like(value, told)));
        kind == asked_kind
            && match is_draft {
                true => like(words, text) || like(&format!("…{words}…"), text),
                false => {
                    like(words, text)
                        && env
                        && same(&self.input, &asked.input)
                        && same(&self.directory, &asked.directory)
                }
            }
    }
}

/// Whether a text is like a pattern in which `…` stands for anything.
pub(crate) fn like(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split(ANYTHING);
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// What is written down, and what has come of it so far.
#[derive(Debug)]
struct Script {
    root: PathBuf,
    /// What differs from one machine or release to the next, and what is written for it.
    names: Vec<(String, String)>,
    lacks: BTreeSet<String>,
    left: Vec<Step>,
    is_draft: bool,
    is_over: bool,
    asked: Vec<Step>,
}

/// The script of a case, in use until it is let go.
pub(crate) struct Playing;

impl Playing {
    /// Begins: `root` is the machine's root directory, `lacks` names programs that it has not. A draft takes the steps in
    /// any order, and answers what it has no step for as if all were well.
    pub(crate) fn begin(
        root: &Path,
        names: &[(String, String)],
        lacks: &[String],
        steps: &[Step],
        is_draft: bool,
    ) -> Playing {
        let script = Script {
            root: root.to_owned(),
            names: names.to_vec(),
            lacks: lacks.iter().cloned().collect(),
            left: steps.to_vec(),
            is_draft,
            is_over: false,
            asked: Vec::new(),
        };
        SCRIPT.set(Some(script));
        Playing
    }

    /// What was asked and told, in order, and the steps that nobody came to.
    pub(crate) fn end(self) -> (Vec<Step>, Vec<Step>) {
        let script = SCRIPT.take();
        script.map_or_else(Default::default, |script| (script.asked, script.left))
    }
}

impl Drop for Playing {
    fn drop(&mut self) {
        SCRIPT.take();
    }
}

/// Whether the machine is one that was written down.
pub(crate) fn is_on() -> bool {
    SCRIPT.with_borrow(Option::is_some)
}

/// Whether a program is there; nothing where the machine is a real one.
pub(crate) fn has_program(name: &str) -> Option<bool> {
    SCRIPT.with_borrow(|script| script.as_ref().map(|script| !script.lacks.contains(name)))
}

/// The answer to something; nothing where the machine is a real one, a failure where the case has another step here.
pub(crate) fn ask(kind: &str, text: impl Into<String>) -> Option<Result<Step>> {
    let text = text.into();
    answer(|names| Step::of(kind, plain(names, &text)))
}

/// Notes what needs no answer.
pub(crate) fn note(kind: &str, text: &str) {
    let _ = ask(kind, text);
}

/// The answer of a program.
pub(crate) fn run(command: &Command, input: Option<&[u8]>) -> Option<Result<Step>> {
    answer(|names| {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<String> = words.map(|word| quoted(&plain(names, &word.to_string_lossy()))).collect();
        let mut step = Step::of("run", words.join(" "));
        step.input = input.map(|input| plain(names, &String::from_utf8_lossy(input)));
        let directory = command.get_current_dir().unwrap_or(Path::new("/"));
        let directory = plain(names, &directory.to_string_lossy());
        step.directory = (directory != "/").then_some(directory);
        for (name, value) in command.get_envs() {
            let (name, value) = (name.to_string_lossy(), value.unwrap_or_default());
            let own = INHERITED.contains(&&*name)
                && [name.to_lowercase(), name.to_uppercase()]
                    .iter()
                    .any(|name| std::env::var_os(name).as_deref() == Some(value));
            if !own && !USUAL.contains(&&*name) {
                let value = plain(names, &value.to_string_lossy());
                step.env.insert(name.into_owned(), value);
            }
        }
        step
    })
}

/// Notes an owner, and the mode that goes with it, in place of giving something to it. Says no: nothing is given.
pub(crate) fn owns(
    file: BorrowedFd<'_>,
    name: Option<&Path>,
    accounts: &Accounts,
    to: (u32, u32),
    mode: Option<u32>,
) -> bool {
    let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or_default();
    let path = name.map_or_else(|| path.clone(), |name| path.join(name));
    // It has its own name only when it is finished.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let path = finished_name(&name).map_or_else(|| path.clone(), |own| path.with_file_name(own));
    let owner = accounts.owner_name(to.0, to.1);
    // What is root's is so already, whoever plays root.
    if to != (0, 0) && owner != "root:root" {
        let mode = mode.map_or_else(String::new, |mode| format!(" {mode:04o}"));
        note("own", &format!("{} {owner}{mode}", path.display()));
    }
    false
}

fn answer(asked: impl FnOnce(&[(String, String)]) -> Step) -> Option<Result<Step>> {
    SCRIPT.with_borrow_mut(|script| Some(script.as_mut()?.answer(asked)))
}

impl Script {
    /// The other way round: what stands for a name becomes that name.
    fn real(&self, text: &str) -> String {
        let stand_ins = self.names.iter().filter(|(_, written)| !written.is_empty());
        stand_ins.fold(text.to_owned(), |text, (name, written)| text.replace(written, name))
    }

    fn answer(&mut self, asked: impl FnOnce(&[(String, String)]) -> Step) -> Result<Step> {
        let asked = asked(&self.names);
        let at = match self.is_draft {
            true => self.left.iter().position(|step| step.fits(&asked, true)),
            false => (!self.is_over && self.left.first().is_some_and(|one| one.fits(&asked, false))).then_some(0),
        };
        let mut step = match at {
            Some(at) => self.left.remove(at),
            None if self.is_draft => Step::default(),
            None => {
                // Whatever comes after it tells nothing more.
                if !self.is_over {
                    self.asked.push(asked.clone());
                }
                self.is_over = true;
                let (kind, text) = asked.question();
                bail!("the case has no such step here: {kind} {text}");
            }
        };
        if self.is_draft {
            step = written(step, asked);
        }
        self.asked.push(step.clone());
        for (path, text) in &step.makes {
            let (path, text) = (self.real(path), self.real(text));
            let path = self.root.join(path.trim_start_matches('/'));
            make_directory(&self.root, path.parent().unwrap_or(&self.root));
            fs::write(&path, &*text)?;
            fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        }
        let monotonic = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?;
        let now = std::time::Duration::from(monotonic).as_micros().to_string();
        step.output =
            step.output.map(|text| text.replace("{pid}", &std::process::id().to_string()).replace("{now}", &now));
        Ok(step)
    }
}

/// Makes a directory and those above it, each with a mode of its own: what a developer's umask would give is another one.
pub(crate) fn make_directory(root: &Path, path: &Path) {
    if path == root || path.is_dir() {
        return;
    }
    make_directory(root, path.parent().expect("it is below the root"));
    fs::create_dir(path).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

/// A step of a draft with the words that were really asked; a pattern stays one.
fn written(draft: Step, asked: Step) -> Step {
    let is_new = draft == Step::default();
    let is_pattern = !is_new && draft.question().1.contains(ANYTHING);
    let pattern_of = |text: &Option<String>| {
        let kept = text.as_deref().filter(|text| text.contains(ANYTHING));
        kept.map(str::to_owned)
    };
    let input = asked.input.clone().map(|input| {
        let is_long = input.chars().count() > LONGEST;
        let short = || input.chars().take(60).chain([ANYTHING]).collect();
        let kept = pattern_of(&draft.input).filter(|kept| like(kept, &input));
        kept.unwrap_or_else(|| if is_long { short() } else { input.clone() })
    });
    let words = match is_pattern && like(draft.question().1, asked.question().1) {
        true => draft.clone(),
        false => asked.clone(),
    };
    let Step { run, sql, login, amqp, http, tell, own, .. } = words;
    Step { run, sql, login, amqp, http, tell, own, env: asked.env, input, directory: asked.directory, ..draft }
}

/// Without what differs from one machine to the next: the place of its root, its name, and the time.
pub(crate) fn plain(names: &[(String, String)], text: &str) -> String {
    let mut text = text.to_owned();
    for (name, stands_for_it) in names {
        text = text.replace(name, stands_for_it);
    }
    let name = gethostname().unwrap_or_default().to_string_lossy().into_owned();
    let short = name.split('.').next().unwrap_or_default();
    let text = text.replace(&format!("rabbit@{short}"), "rabbit@HOST");
    match text.strip_prefix("--since=@") {
        Some(_) => "--since=@NOW".into(),
        None => text,
    }
}

/// A word as a shell takes it; one that is very long, shortened.
fn quoted(word: &str) -> String {
    let word: String = match word.chars().count() > LONGEST {
        true => word.chars().take(40).chain([ANYTHING]).collect(),
        false => word.to_owned(),
    };
    let is_plain = |c: char| c.is_alphanumeric() || "-_=./:@%+,~^…*{}".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word,
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}
