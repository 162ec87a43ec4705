//! The journal: what this program is about to do and what it has done, told to the disk before and after each change.
//!
//! One file per instance under `/var/lib/camcops-provision`, one line of JSON per event, each made to last before the
//! next step. It holds names, facets and digests, never a secret and never code. An intent without its completion only
//! means "observe that one again". What `uninstall` undoes is the fold of these lines.
//!
//! It decides what `uninstall` removes: one that somebody else could have written is refused.
//!
//! The directory appears in one step and goes in one step, so that a run cut at any point can be continued or undone.

use crate::error::Exit;
use crate::host::{Host, Kind, unfinished_path};
use crate::resource::{Change, Content, Resource, State};
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, Flock, FlockArg, OFlag, fcntl, openat};
use nix::sys::stat::{Mode, fstat};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// The format that this version writes. Every older one is read; a newer one is refused.
pub const FORMAT: u32 = 1;
/// Where the program keeps what it has to remember.
pub const HOME: &str = "/var/lib/camcops-provision";
const NEW: &str = ".camcops-provision.new";
const OLD: &str = ".camcops-provision.old";
/// To make the program's directory takes far less.
const LONGEST_TURN: Duration = Duration::from_secs(5);

/// One line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line {
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
    },
    /// An event that a newer version of the same format added.
    #[serde(other)]
    Unknown,
}

/// What the journal says about one resource: its first state before us and the last that we gave it.
#[derive(Debug, Clone, PartialEq)]
pub struct Owned {
    /// Which resource, what it was before us, what we made of it.
    pub change: Change,
    /// An intent without its completion: the last run was cut here.
    pub open: bool,
    base: Option<Content>,
    /// While an intent is open: what else of ours may still be there, the last completed first.
    earlier: Vec<Made>,
}

/// What we made of a resource, and what the settings alone would have made of it.
#[derive(Debug, Clone, PartialEq)]
struct Made {
    after: State,
    base: Option<Content>,
}

impl Owned {
    /// Every state of ours that may be found: one, or more in the middle of a change.
    pub fn ours(&self) -> impl Iterator<Item = &State> {
        self.made().map(|(state, _)| state)
    }

    /// What the settings alone would have made of a file, for one that has this content now.
    pub fn base(&self, found: &Content) -> Option<&Content> {
        let written = self.made().find(|(state, _)| content(state) == Some(found));
        match (written, self.earlier.first()) {
            (Some((_, base)), _) => base,
            (None, Some(completed)) => completed.base.as_ref(),
            // Cut before we ever wrote it: it is still what was there before us.
            (None, None) if self.open => None,
            (None, None) => self.base.as_ref(),
        }
    }

    /// Whether content of ours has the administrator's own changes merged into it.
    pub fn holds_edits(&self, found: &State) -> bool {
        content(found).is_some_and(|found| self.base(found).is_some_and(|base| base != found))
    }

    fn made(&self) -> impl Iterator<Item = (&State, Option<&Content>)> {
        let earlier = self
            .earlier
            .iter()
            .map(|made| (&made.after, made.base.as_ref()));
        std::iter::once((&self.change.after, self.base.as_ref())).chain(earlier)
    }
}

fn content(state: &State) -> Option<&Content> {
    state.facets().and_then(|facets| facets.content("content"))
}

/// The journal of one instance, as it was read.
#[derive(Debug, Default)]
pub struct Journal {
    owned: Vec<Owned>,
    next: u64,
    /// The bytes up to the last whole line; what follows was cut.
    whole: u64,
    exists: bool,
}

impl Journal {
    /// Reads the journal of an instance; an instance that was never installed has an empty one.
    pub fn read(host: &Host, instance: &str) -> Result<Journal> {
        check_directory(host, HOME)?;
        check_directory(host, &directory(instance))?;
        let path = path(instance);
        if let Some(entry) = host.look(&path)?
            && !(entry.kind == Kind::File && host.is_ours(&entry))
        {
            return Err(not_ours(host, &path));
        }
        match host.read_text(&path)? {
            Some(text) => {
                Journal::parse(&text, instance).map_err(|why| {
                    Exit::Unusable.because(format!(
                        "can't use {}: {why:#}; bring it back from a backup, or move it away: what was installed is then nobody's",
                        host.outside(&path)
                    ))
                })
            }
            None => Ok(Journal::default()),
        }
    }

    fn parse(text: &str, instance: &str) -> Result<Journal> {
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut journal = Journal {
            whole: whole as u64,
            exists: true,
            ..Journal::default()
        };
        let first = text.lines().next().map(serde_json::from_str);
        match first {
            Some(Ok(Line::Journal { instance: of, .. })) if of == instance => {}
            Some(Ok(Line::Journal { instance: of, .. })) => {
                bail!("it is the journal of instance {of}")
            }
            _ => bail!("it does not begin as a journal does"),
        }
        let mut open: Option<(u64, Change, Option<Content>, bool)> = None;
        for (index, line) in text[..whole].lines().enumerate() {
            let line: Line = serde_json::from_str(line)
                .with_context(|| format!("line {} is not a line of a journal", index + 1))?;
            match line {
                Line::Journal { format, .. } if format > FORMAT => bail!(
                    "a newer version of camcops-provision wrote it (format {format}); use that version"
                ),
                Line::Journal { .. } | Line::Run { .. } | Line::Unknown => {}
                Line::Intent {
                    number,
                    change,
                    undo,
                    base,
                } => {
                    journal.next = number + 1;
                    journal.note(&change, base.as_ref(), undo, true);
                    open = Some((number, change, base, undo));
                }
                Line::Done { number } => {
                    if let Some((_, change, base, undo)) =
                        open.take_if(|(last, ..)| *last == number)
                    {
                        journal.note(&change, base.as_ref(), undo, false);
                    }
                }
            }
        }
        Ok(journal)
    }

    /// Everything that this instance owns, oldest first.
    pub fn owned(&self) -> &[Owned] {
        &self.owned
    }

    /// What this instance owns of one resource.
    pub fn find(&self, resource: &Resource) -> Option<&Owned> {
        self.owned
            .iter()
            .find(|owned| owned.change.resource == *resource)
    }

    /// Whether there is a journal at all.
    pub fn exists(&self) -> bool {
        self.exists
    }

    fn note(&mut self, change: &Change, base: Option<&Content>, undo: bool, open: bool) {
        let position = self
            .owned
            .iter()
            .position(|owned| owned.change.resource == change.resource);
        match position {
            Some(at) if undo && !open => {
                self.owned.remove(at);
            }
            Some(at) => {
                let owned = &mut self.owned[at];
                // While an undo is under way, what we had made of it is still the thing to compare with.
                if !undo && open {
                    owned.earlier.push(Made {
                        after: std::mem::replace(&mut owned.change.after, change.after.clone()),
                        base: std::mem::replace(&mut owned.base, base.cloned()),
                    });
                } else if !undo {
                    owned.earlier.clear();
                }
                owned.open = open;
            }
            None if undo => {}
            None => self.owned.push(Owned {
                change: change.clone(),
                open,
                base: base.cloned(),
                earlier: Vec::new(),
            }),
        }
    }
}

/// The lock, and the journal open for writing. Dropping it releases the lock.
#[derive(Debug)]
pub struct Writer<'a> {
    host: &'a Host,
    instance: String,
    /// Held for its lock.
    _lock: Flock<File>,
    file: File,
    /// What the journal says, kept up to date.
    pub journal: Journal,
    announced: Option<Line>,
}

impl<'a> Writer<'a> {
    /// Takes the lock and opens the journal, making both if this is the first run.
    pub fn open(host: &'a Host, instance: &str, command: &str) -> Result<Writer<'a>> {
        check_directory(host, HOME)?;
        let lock = loop {
            let Some(lock) = host.open_for_appending(&lock_path())? else {
                create_home(host, instance)?;
                continue;
            };
            let lock = take(host, lock)?;
            // Whoever held it before may have removed the file with the last instance.
            if fstat(&*lock)?.st_nlink > 0 {
                break lock;
            }
        };
        let path = path(instance);
        if host.open_for_appending(&path)?.is_none() {
            let directory = directory(instance);
            if host.look(&directory)?.is_none() {
                host.make_directory(&directory, Some((0, 0)), 0o700)?;
            }
            host.put_file(&path, first_line(instance)?.as_bytes(), Some((0, 0)), 0o600)?;
        }
        let file = host
            .open_for_appending(&path)?
            .with_context(|| format!("{} is gone", host.outside(&path)))?;
        let journal = Journal::read(host, instance)?;
        // A line that was cut is no line: the next one starts afresh.
        if file.metadata()?.len() > journal.whole {
            file.set_len(journal.whole)?;
        }
        Ok(Writer {
            host,
            instance: instance.to_owned(),
            _lock: lock,
            file,
            journal,
            announced: Some(Line::Run {
                at: now(),
                by: who(),
                command: command.to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            }),
        })
    }

    /// Says what comes next, and returns when the disk has it.
    pub fn intend(&mut self, change: &Change, base: Option<&Content>, undo: bool) -> Result<u64> {
        let number = self.journal.next;
        let mut lines = String::new();
        // A run that changes nothing writes nothing.
        if let Some(run) = self.announced.take() {
            lines.push_str(&line(&run)?);
        }
        lines.push_str(&line(&Line::Intent {
            number,
            change: change.clone(),
            undo,
            base: base.cloned(),
        })?);
        self.host.append(&self.file, &lines)?;
        self.host.cut().after_intent();
        self.journal.next += 1;
        self.journal.note(change, base, undo, true);
        Ok(number)
    }

    /// Says that it is done.
    pub fn done(
        &mut self,
        number: u64,
        change: &Change,
        base: Option<&Content>,
        undo: bool,
    ) -> Result<()> {
        self.host
            .append(&self.file, &line(&Line::Done { number })?)?;
        self.journal.note(change, base, undo, false);
        Ok(())
    }

    /// Keeps content that the journal knows by its digest only.
    pub fn remember(&self, content: &Content) -> Result<()> {
        let path = memory_path(&self.instance, content);
        let Some(bytes) = content.bytes() else {
            return Ok(());
        };
        if self.host.look(&path)?.is_some() {
            return Ok(());
        }
        let directory = format!("{}/contents", directory(&self.instance));
        if self.host.look(&directory)?.is_none() {
            self.host.make_directory(&directory, Some((0, 0)), 0o700)?;
        }
        self.host.put_file(&path, bytes, Some((0, 0)), 0o600)
    }

    /// Forgets the instance, when nothing is left to undo; with the last instance the program's own directory goes.
    pub fn forget(self) -> Result<()> {
        let directory = directory(&self.instance);
        let contents = format!("{directory}/contents");
        empty(self.host, &contents)?;
        self.host.remove_directory(&contents)?;
        self.host.remove_file(&path(&self.instance))?;
        empty(self.host, &directory)?;
        self.host.remove_directory(&directory)?;
        if instances(self.host)?.is_empty() {
            remove_home(self.host)?;
        }
        Ok(())
    }
}

/// Content that the journal knows by its digest, with its bytes if they were kept.
pub fn recalled(host: &Host, instance: &str, content: &Content) -> Result<Option<Content>> {
    Ok(host
        .read(&memory_path(instance, content))?
        .map(Content::new)
        .filter(|found| found == content))
}

/// A state from the journal, with the bytes of its content if they were kept.
pub fn recalled_state(host: &Host, instance: &str, state: &State) -> Result<State> {
    let State::Present(facets) = state else {
        return Ok(State::Absent);
    };
    let mut facets = facets.clone();
    if let Some(content) = facets.content("content")
        && let Some(content) = recalled(host, instance, content)?
    {
        facets = facets.with("content", content);
    }
    Ok(State::Present(facets))
}

/// The instances that have a journal, sorted.
pub fn instances(host: &Host) -> Result<Vec<String>> {
    check_directory(host, HOME)?;
    let mut names = host.list(HOME)?.unwrap_or_default();
    names.retain(|name| name != "lock" && !name.starts_with('.'));
    Ok(names)
}

fn check_directory(host: &Host, path: &str) -> Result<()> {
    if host.look(path)?.is_none() {
        return Ok(());
    }
    match host.look_into(path)? {
        Some(entry) if host.is_ours(&entry) => Ok(()),
        _ => Err(not_ours(host, path)),
    }
}

fn not_ours(host: &Host, path: &str) -> anyhow::Error {
    Exit::CannotCreate.because(format!(
        "{} is not what camcops-provision made, or others can write to it; look at what it holds, then move it away and run again",
        host.outside(path)
    ))
}

/// Takes the lock if there is one to take; an error that names the holder if somebody else has it.
pub fn try_lock(host: &Host) -> Result<Option<Flock<File>>> {
    check_directory(host, HOME)?;
    host.open_for_appending(&lock_path())?
        .map(|lock| take(host, lock))
        .transpose()
}

/// Clears away what a run left that was cut while it made or removed the program's own directory.
pub fn clear_up(host: &Host) -> Result<()> {
    clear_up_aside(host)?;
    let unfinished = |name: &String| name.starts_with('.');
    let left: Vec<String> = host
        .list(HOME)?
        .unwrap_or_default()
        .into_iter()
        .filter(unfinished)
        .collect();
    if left.is_empty() && !instances(host)?.is_empty() {
        return Ok(());
    }
    let Some(_lock) = try_lock(host)? else {
        return Ok(());
    };
    for name in left {
        remove_tree(host, &join(HOME, &name))?;
    }
    if instances(host)?.is_empty() {
        remove_home(host)?;
    }
    Ok(())
}

fn clear_up_aside(host: &Host) -> Result<()> {
    for ancestor in ancestors() {
        if host.look(&join(&ancestor, OLD))?.is_some() {
            remove_moved_home(host, &ancestor)?;
        }
        let aside = join(&ancestor, NEW);
        if host.look(&aside)?.is_some() || host.look(&unfinished_path(&aside))?.is_some() {
            let _turn = turn(host, &ancestor)?;
            host.remove_unfinished(&aside)?;
            remove_tree(host, &aside)?;
        }
    }
    Ok(())
}

/// A turn at making the program's directory: two first runs at the same time wait for each other here.
fn turn(host: &Host, base: &str) -> Result<Flock<OwnedFd>> {
    let handle = host
        .directory(base)?
        .with_context(|| format!("{} is not a directory", host.outside(base)))?;
    let readable = openat(
        &handle,
        ".",
        OFlag::O_RDONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    let begin = Instant::now();
    let mut handle = readable;
    loop {
        handle = match Flock::lock(handle, FlockArg::LockExclusiveNonblock) {
            Ok(turn) => return Ok(turn),
            // Everybody who may read the directory can hold this lock, for as long as it likes.
            Err((_, Errno::EWOULDBLOCK)) if begin.elapsed() > LONGEST_TURN => {
                return Err(Exit::Locked.because(format!(
                    "another process holds a lock on {}; end it (`lslocks` shows it) and run again",
                    host.outside(base)
                )));
            }
            Err((handle, Errno::EWOULDBLOCK)) => handle,
            Err((_, why)) => {
                return Err(why).with_context(|| format!("can't lock {}", host.outside(base)));
            }
        };
        std::thread::sleep(Duration::from_millis(20));
    }
}

// The program's own directory.

/// Makes the program's directory with the lock and the journal in one step: built aside, then moved to its place.
fn create_home(host: &Host, instance: &str) -> Result<()> {
    clear_up_aside(host)?;
    let mut base = String::from("/");
    let mut missing = Vec::new();
    for ancestor in ancestors().iter().skip(1).map(String::as_str).chain([HOME]) {
        if missing.is_empty() && host.look(ancestor)?.is_some() {
            base = ancestor.to_owned();
        } else {
            missing.push(ancestor.to_owned());
        }
    }
    let _turn = turn(host, &base)?;
    if host.look(&lock_path())?.is_some() {
        return Ok(());
    }
    let aside = join(&base, NEW);
    remove_tree(host, &aside)?;
    let home = missing.last().map_or(HOME, String::as_str);
    let root = Some((0, 0));
    if missing.is_empty() {
        // The directory is there without a lock: somebody made it by hand, or removed the lock.
        host.put_file(&lock_path(), b"", root, 0o600)?;
        return Ok(());
    }
    let mut path = aside.clone();
    for (depth, directory) in missing.iter().enumerate() {
        if depth > 0 {
            path = join(&path, last_name(directory));
        }
        let mode = if directory == home { 0o700 } else { 0o755 };
        host.make_directory(&path, root, mode)?;
    }
    // The lock file also says which directories were made for it, so that the last uninstall takes them along.
    let made = &missing[..missing.len() - 1];
    host.put_file(
        &join(&path, "lock"),
        made.join("\n").as_bytes(),
        root,
        0o600,
    )?;
    host.make_directory(&join(&path, instance), root, 0o700)?;
    let journal = format!("{path}/{instance}/journal");
    host.put_file(&journal, first_line(instance)?.as_bytes(), root, 0o600)?;
    host.rename(&aside, &missing[0])
}

/// Removes the program's directory in one step: moved aside, then emptied.
fn remove_home(host: &Host) -> Result<()> {
    let made = host.read_text(&lock_path())?.unwrap_or_default();
    let base = made
        .lines()
        .next()
        .and_then(|first| first.rsplit_once('/'))
        .map_or_else(|| "/var/lib".into(), |(parent, _)| or_root(parent));
    remove_tree(host, &join(&base, OLD))?;
    host.rename(HOME, &join(&base, OLD))?;
    remove_moved_home(host, &base)
}

fn remove_moved_home(host: &Host, base: &str) -> Result<()> {
    let moved = join(base, OLD);
    let lock = join(&moved, "lock");
    let made = host.read_text(&lock)?.unwrap_or_default();
    for directory in made.lines().rev() {
        if !host.remove_directory(directory)? {
            break;
        }
    }
    remove_tree(host, &moved)
}

/// Takes the lock of the whole file, and a second one of the older kind, whose holder can be asked for.
fn take(host: &Host, lock: File) -> Result<Flock<File>> {
    match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => {
            let mut named = lock_request();
            named.l_type = nix::libc::F_WRLCK as i16;
            fcntl(&*lock, FcntlArg::F_SETLK(&named)).context("can't lock")?;
            Ok(lock)
        }
        Err((lock, Errno::EWOULDBLOCK)) => {
            let holder =
                holder(&lock)?.map_or("another process".into(), |pid| format!("process {pid}"));
            Err(Exit::Locked.because(format!(
                "{holder} is already at work here and holds {}; wait for it to end and run again",
                host.outside(&lock_path())
            )))
        }
        Err((_, why)) => Err(why).context("can't lock"),
    }
}

fn holder(lock: &File) -> Result<Option<i32>> {
    let mut found = lock_request();
    found.l_type = nix::libc::F_WRLCK as i16;
    fcntl(lock, FcntlArg::F_GETLK(&mut found))?;
    Ok((i32::from(found.l_type) != nix::libc::F_UNLCK).then_some(found.l_pid))
}

fn lock_request() -> nix::libc::flock {
    nix::libc::flock {
        l_type: 0,
        l_whence: nix::libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

fn first_line(instance: &str) -> Result<String> {
    line(&Line::Journal {
        format: FORMAT,
        instance: instance.to_owned(),
    })
}

fn who() -> String {
    std::env::var("SUDO_USER")
        .ok()
        .or_else(|| users::get_current_username().map(|name| name.to_string_lossy().into_owned()))
        .unwrap_or_else(|| nix::unistd::getuid().to_string())
}

fn line(line: &Line) -> Result<String> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    Ok(text)
}

fn now() -> String {
    time::OffsetDateTime::now_utc()
        .replace_nanosecond(0)
        .ok()
        .and_then(|now| {
            now.format(&time::format_description::well_known::Rfc3339)
                .ok()
        })
        .unwrap_or_default()
}

fn directory(instance: &str) -> String {
    format!("{HOME}/{instance}")
}

/// Where the journal of an instance is.
pub fn path(instance: &str) -> String {
    format!("{HOME}/{instance}/journal")
}

fn lock_path() -> String {
    format!("{HOME}/lock")
}

fn memory_path(instance: &str, content: &Content) -> String {
    format!("{HOME}/{instance}/contents/{}", content.digest())
}

fn empty(host: &Host, directory: &str) -> Result<()> {
    for name in host.list(directory)?.unwrap_or_default() {
        host.remove_file(&join(directory, &name))?;
    }
    Ok(())
}

fn remove_tree(host: &Host, path: &str) -> Result<()> {
    match host.list(path) {
        Ok(Some(names)) => {
            for name in names {
                let child = join(path, &name);
                match host.look(&child)? {
                    Some(entry) if entry.kind == Kind::Directory => {
                        remove_tree(host, &child)?;
                    }
                    _ => host.remove_file(&child)?,
                }
            }
            host.remove_directory(path)?;
            Ok(())
        }
        Ok(None) => Ok(()),
        Err(why) => Err(why),
    }
}

fn ancestors() -> Vec<String> {
    vec!["/".into(), "/var".into(), "/var/lib".into()]
}

fn join(directory: &str, name: &str) -> String {
    format!("{}/{name}", directory.trim_end_matches('/'))
}

fn last_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn or_root(path: &str) -> String {
    if path.is_empty() {
        "/".into()
    } else {
        path.to_owned()
    }
}
