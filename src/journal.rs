//! The journal: what this program is about to do and what it has done, told to the disk before and after each change.
//!
//! One file per instance under `/var/lib/camcops-provision`, one line of JSON per event, each made to last before the
//! next step. It holds names, facets and digests, never a secret and never code. An intent without its completion only
//! means "observe that one again". What `uninstall` undoes is the fold of these lines.
//!
//! It decides what `uninstall` removes: one that somebody else could have written is refused.
//!
//! The directory appears in one step and goes in one step, so that a run cut at any point can be continued or undone.

use crate::base::error::Exit;
use crate::base::text::format_time;
pub(crate) use crate::host::lock::lock_holder;
use crate::host::{Host, PathKind, accounts, unfinished_path};
use crate::layout::{HOME, NOT_INSTANCES, instance_directory};
use crate::resource::{Change, Content, Resource, State};
use anyhow::{Context, Result, bail};
pub(crate) use contents::{kept_contents, recalled_base, recalled_state};
pub(crate) use home::{at_work, clear_up, try_lock};
use home::{create_home, empty_directory, lock_path, remove_home, take_lock};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};
use nix::sys::stat::fstat;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::time::SystemTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use times::{Clocks, Times};

mod contents;
pub(crate) mod home;
mod times;

/// The format that this version writes. Every older one is read; a newer one is refused.
pub(crate) const FORMAT: u32 = 1;

/// One line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum JournalLine {
    Journal {
        format: u32,
        instance: String,
    },
    Run {
        at: String,
        by: String,
        command: String,
        version: String,
    },
    Intent {
        number: u64,
        change: Change,
        undo: bool,
        /// What the settings alone would have written, where that was merged with the administrator's changes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        base: Option<Content>,
    },
    Done {
        number: u64,
        /// The milliseconds that it took, where that may be long.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        took_ms: Option<u64>,
    },
    /// An event that a newer version of the same format added.
    #[serde(other)]
    Unknown,
}

/// What the journal says about one resource: its first state before us and the last that we gave it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Owned {
    /// Which resource, what it was before us, what we made of it.
    pub(crate) change: Change,
    /// An intent without its completion: the last run was cut here.
    pub(crate) open: bool,
    base: Option<Content>,
    /// While an intent is open: what else of ours may still be there, the last completed first.
    earlier: Vec<OwnState>,
}

/// What we made of a resource, and what the settings alone would have made of it.
#[derive(Debug, Clone, PartialEq)]
struct OwnState {
    after: State,
    base: Option<Content>,
}

impl Owned {
    /// Every state of ours that may be found: one, or more in the middle of a change.
    pub(crate) fn ours(&self) -> impl Iterator<Item = &State> {
        self.made().map(|(state, _)| state)
    }

    /// What the settings alone would have made of a file, for one that has this content now.
    pub(crate) fn base(&self, found: &Content) -> Option<&Content> {
        let written = self.made().find(|(state, _)| state.content() == Some(found));
        match (written, self.earlier.first()) {
            (Some((_, base)), _) => base,
            (None, Some(completed)) => completed.base.as_ref(),
            // Cut before we ever wrote it: it is still what was there before us.
            (None, None) if self.open => None,
            (None, None) => self.base.as_ref(),
        }
    }

    /// Whether content of ours has the administrator's own changes merged into it.
    pub(crate) fn holds_edits(&self, found: &State) -> bool {
        found.content().is_some_and(|found| self.base(found).is_some_and(|base| base != found))
    }

    fn made(&self) -> impl Iterator<Item = (&State, Option<&Content>)> {
        let earlier = self.earlier.iter().map(|made| (&made.after, made.base.as_ref()));
        std::iter::once((&self.change.after, self.base.as_ref())).chain(earlier)
    }
}

/// The journal of one instance, as it was read.
#[derive(Debug, Default)]
pub struct Journal {
    owned: Vec<Owned>,
    next: u64,
    /// The bytes up to the last whole line; what follows was cut.
    whole: u64,
    exists: bool,
    since: Option<String>,
    /// How long its changes took.
    pub(crate) times: Times,
}

impl Journal {
    /// When the first change was made.
    pub(crate) fn since(&self) -> Option<OffsetDateTime> {
        OffsetDateTime::parse(self.since.as_deref()?, &Rfc3339).ok()
    }

    /// Reads the journal of an instance; an instance that was never installed has an empty one.
    pub(crate) fn read(host: &Host, instance: &str) -> Result<Journal> {
        check_directory(host, HOME)?;
        check_directory(host, &instance_directory(instance))?;
        let path = journal_path(instance);
        if let Some(entry) = host.stat(&path)?
            && !(entry.kind == PathKind::File && host.is_ours(&entry))
        {
            return Err(not_ours(host, &path));
        }
        match host.read_text(&path)? {
            Some(text) => {
                Journal::parse(&text, instance).map_err(|why| {
                    Exit::Unusable.because(format!(
                        "can't use {}: {why:#}; restore it from a backup, or move it away (camcops-provision then no longer knows what it installed)",
                        host.outside(&path)
                    ))
                })
            }
            None => Ok(Journal::default()),
        }
    }

    fn parse(text: &str, instance: &str) -> Result<Journal> {
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut journal = Journal { whole: whole as u64, exists: true, ..Journal::default() };
        let first = text.lines().next().map(serde_json::from_str);
        match first {
            Some(Ok(JournalLine::Journal { instance: of, .. })) if of == instance => {}
            Some(Ok(JournalLine::Journal { instance: of, .. })) => {
                bail!("it is the journal of instance {of}")
            }
            _ => bail!("it does not start like a journal"),
        }
        // Packages are made several at once: the intents of all of them come first.
        let mut open: BTreeMap<u64, (Change, Option<Content>, bool)> = BTreeMap::new();
        for (index, line) in text[..whole].lines().enumerate() {
            let line: JournalLine =
                serde_json::from_str(line).with_context(|| format!("line {} is not a line of a journal", index + 1))?;
            match line {
                JournalLine::Journal { format, .. } if format > FORMAT => {
                    bail!("a newer version of camcops-provision wrote it (format {format}); use that version")
                }
                JournalLine::Run { at, .. } => {
                    journal.since.get_or_insert(at);
                }
                JournalLine::Journal { .. } | JournalLine::Unknown => {}
                JournalLine::Intent { number, change, undo, base } => {
                    journal.next = number + 1;
                    journal.note(&change, base.as_ref(), undo, true);
                    open.insert(number, (change, base, undo));
                }
                JournalLine::Done { number, took_ms } => {
                    if let Some((change, base, undo)) = open.remove(&number) {
                        if let Some(took) = took_ms {
                            journal.times.note(&change, undo, took);
                        }
                        journal.note(&change, base.as_ref(), undo, false);
                    }
                }
            }
        }
        Ok(journal)
    }

    /// Everything that this instance owns, oldest first.
    pub(crate) fn owned(&self) -> &[Owned] {
        &self.owned
    }

    /// What this instance owns of one resource.
    pub(crate) fn find(&self, resource: &Resource) -> Option<&Owned> {
        self.owned.iter().find(|owned| owned.change.resource == *resource)
    }

    /// Whether there is a journal at all.
    pub(crate) fn exists(&self) -> bool {
        self.exists
    }

    fn note(&mut self, change: &Change, base: Option<&Content>, undo: bool, open: bool) {
        let position = self.owned.iter().position(|owned| owned.change.resource == change.resource);
        match position {
            Some(at) if undo && !open => {
                self.owned.remove(at);
            }
            Some(at) => {
                let owned = &mut self.owned[at];
                // While an undo is under way, what we had made of it is still the thing to compare with.
                if !undo && open {
                    owned.earlier.push(OwnState {
                        after: std::mem::replace(&mut owned.change.after, change.after.clone()),
                        base: std::mem::replace(&mut owned.base, base.cloned()),
                    });
                } else if !undo {
                    owned.earlier.clear();
                }
                owned.open = open;
            }
            None if undo => {}
            None => self.owned.push(Owned { change: change.clone(), open, base: base.cloned(), earlier: Vec::new() }),
        }
    }
}

/// The lock, and the journal open for writing. Dropping it releases the lock.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    host: &'a Host,
    instance: String,
    /// Held for its lock.
    _lock: Flock<File>,
    file: File,
    /// What the journal says, kept up to date.
    pub(crate) journal: Journal,
    announced: Option<JournalLine>,
    clocks: Clocks,
}

impl<'a> Writer<'a> {
    /// Takes the lock and opens the journal, making both if this is the first run.
    pub(crate) fn open(host: &'a Host, instance: &str, command: &str) -> Result<Writer<'a>> {
        check_directory(host, HOME)?;
        let lock = loop {
            let Some(lock) = host.open_for_appending(&lock_path())? else {
                create_home(host, instance)?;
                continue;
            };
            let lock = take_lock(host, lock)?;
            // Whoever held it before may have removed the file with the last instance.
            if fstat(&*lock)?.st_nlink > 0 {
                break lock;
            }
        };
        let path = journal_path(instance);
        if host.open_for_appending(&path)?.is_none() {
            let directory = instance_directory(instance);
            if host.stat(&directory)?.is_none() {
                host.make_directory(&directory, Some((0, 0)), 0o700)?;
            }
            host.put_file(&path, first_line(instance)?.as_bytes(), Some((0, 0)), 0o600)?;
        }
        let file = host.open_for_appending(&path)?.with_context(|| format!("{} is gone", host.outside(&path)))?;
        let journal = Journal::read(host, instance)?;
        // A line that was cut is no line: the next one starts afresh.
        if file.metadata()?.len() > journal.whole {
            file.set_len(journal.whole)?;
        }
        let writer = Writer {
            host,
            instance: instance.to_owned(),
            _lock: lock,
            file,
            journal,
            announced: Some(JournalLine::Run {
                at: format_time(SystemTime::now()).unwrap_or_default(),
                by: accounts::user_at_work(),
                command: command.to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            }),
            clocks: Clocks::default(),
        };
        writer.forget_superseded()?;
        Ok(writer)
    }

    /// The machine whose journal this is.
    pub(crate) fn host(&self) -> &'a Host {
        self.host
    }

    /// Says what comes next, and returns when the disk has it.
    pub(crate) fn intend(&mut self, change: &Change, base: Option<&Content>, undo: bool) -> Result<u64> {
        let number = self.journal.next;
        let mut lines = String::new();
        // A run that changes nothing writes nothing.
        if let Some(run) = self.announced.take() {
            lines.push_str(&format_line(&run)?);
        }
        lines.push_str(&format_line(&JournalLine::Intent {
            number,
            change: change.clone(),
            undo,
            base: base.cloned(),
        })?);
        self.host.append(&self.file, &lines)?;
        self.host.cut().after_intent();
        self.journal.next += 1;
        self.journal.note(change, base, undo, true);
        self.clocks.begin(number);
        Ok(number)
    }

    /// Says that it is done.
    pub(crate) fn done(&mut self, number: u64, change: &Change, base: Option<&Content>, undo: bool) -> Result<()> {
        let took_ms = self.clocks.end(number, change);
        self.host.append(&self.file, &format_line(&JournalLine::Done { number, took_ms })?)?;
        self.journal.note(change, base, undo, false);
        if let Some(took) = took_ms {
            self.journal.times.note(change, undo, took);
        }
        Ok(())
    }

    /// Forgets the instance, when nothing is left to undo; with the last instance the program's own directory goes.
    pub(crate) fn forget(self) -> Result<()> {
        let directory = instance_directory(&self.instance);
        let contents = contents::directory_of(&self.instance);
        empty_directory(self.host, &contents)?;
        self.host.remove_directory(&contents)?;
        self.host.remove_file(&journal_path(&self.instance))?;
        empty_directory(self.host, &directory)?;
        self.host.remove_directory(&directory)?;
        if list_instances(self.host)?.is_empty() {
            remove_home(self.host)?;
        }
        Ok(())
    }
}

/// The instances that have a journal, sorted.
pub(crate) fn list_instances(host: &Host) -> Result<Vec<String>> {
    check_directory(host, HOME)?;
    let mut names = host.list(HOME)?.unwrap_or_default();
    names.retain(|name| !NOT_INSTANCES.contains(&name.as_str()) && !name.starts_with('.'));
    Ok(names)
}

fn check_directory(host: &Host, path: &str) -> Result<()> {
    if host.stat(path)?.is_none() {
        return Ok(());
    }
    match host.look_into(path)? {
        Some(entry) if host.is_ours(&entry) => Ok(()),
        _ => Err(not_ours(host, path)),
    }
}

fn not_ours(host: &Host, path: &str) -> anyhow::Error {
    Exit::CannotCreate.because(format!(
        "{} was not created by camcops-provision, or others can write to it; check its content, then move it away and run again",
        host.outside(path)
    ))
}

fn first_line(instance: &str) -> Result<String> {
    format_line(&JournalLine::Journal { format: FORMAT, instance: instance.to_owned() })
}

fn format_line(line: &JournalLine) -> Result<String> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    Ok(text)
}

/// Where the journal of an instance is.
pub(crate) fn journal_path(instance: &str) -> String {
    format!("{HOME}/{instance}/journal")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_intents_may_be_open_at_once() {
        let intent = |number, name: &str| JournalLine::Intent {
            number,
            change: Change { resource: Resource::Package(name.into()), before: State::Absent, after: State::default() },
            undo: false,
            base: None,
        };
        let lines = [intent(0, "a"), intent(1, "b"), JournalLine::Done { number: 0, took_ms: None }];
        let lines = lines.iter().map(|one| format_line(one).unwrap());
        let text = std::iter::once(first_line("camcops").unwrap()).chain(lines);
        let journal = Journal::parse(&text.collect::<String>(), "camcops").unwrap();
        let open: Vec<(&str, bool)> =
            journal.owned().iter().map(|owned| (owned.change.resource.name(), owned.open)).collect();
        assert_eq!(open, [("a", false), ("b", true)]);
    }
}
