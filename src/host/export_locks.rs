//! Export locks whose owner is dead. CamCOPS waits for such a lock for ever, its web server too, when it starts.
//!
//! A lock is `NAME.lock`, a hard link to the file of its owner (Python's `lockfile`). That is `HOST-THREAD.PID-START-HASH`
//! for the processes of the services (`sitecustomize.py`): one process, whatever the clock was. Others call it
//! `HOST-THREAD.PIDHASH`, where several numbers may be meant. The lock is all that keeps a clinical record from being
//! exported twice, so it is broken only if its owner is proved dead: same machine, and no process that may be meant is of
//! that account, runs Python and was there when the lock was taken.
//!
//! A sandbox hides the other processes of its own account, so this is done outside of it.

use crate::camcops_conf::Ini;
use crate::host::lock::wait_turn;
use crate::host::{Ended, Host, PathInfo, PathKind, processes};
use crate::layout::{Layout, TOOL};
use anyhow::Result;
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::{Pid, getuid};
use serde::Serialize;
use std::time::{Duration, SystemTime};

const SUFFIX: &str = ".lock";
/// An owner removes its own file first and the lock then: between the two it is at work no more.
const LEAVING: Duration = Duration::from_secs(10);
/// What the clock may have been corrected by since the lock was taken: a machine was paused, or had the wrong time.
const SLACK: Duration = Duration::from_secs(60);
/// The largest process number that Linux gives.
const LARGEST_PID: u32 = 1 << 22;

/// How long it may take to break them; the directory's own lock is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the locks of exports are: the administrator may keep them elsewhere.
pub(crate) fn lock_directory(host: &Host, layout: &Layout) -> Result<String> {
    let config = host.read_text(&layout.config)?;
    Ok(config
        .and_then(|text| Ini::parse(&text).get("export", "EXPORT_LOCKDIR"))
        .filter(|directory| directory.starts_with('/'))
        .unwrap_or_else(|| layout.lock.clone()))
}

/// Whether there are exports that the broker could not be told of.
pub(crate) fn has_unsent(host: &Host, layout: &Layout) -> Result<bool> {
    let has = |name: &str| Ok::<_, anyhow::Error>(host.stat(&format!("{}/{name}", layout.state))?.is_some());
    Ok(has("unsent")? || has("unsent.sending")?)
}

/// Breaks the stale locks of an instance as the account whose they are, and gives how that ended; nothing where this is
/// not root. That account can put links in the place of everything in there, which root would follow.
pub(crate) fn break_as_owner(host: &Host, layout: &Layout, json: bool) -> Result<Option<Ended>> {
    if !host.is_root() || host.staged_root().is_some() {
        return Ok(None);
    }
    let Some(state) = host.stat(&layout.state)?.filter(|state| state.uid != 0) else {
        return Ok(None);
    };
    let more: &[&str] = if json { &["--json"] } else { &[] };
    // What root's own environment says is not for that account.
    let child = host.child_of(state.uid, state.gid, TOOL).bare();
    let child = child.args(["--instance", &layout.slug]).args(more);
    let child = child.args(["break-locks"]).patience(PATIENCE);
    child.end().map(Some)
}

/// Before something waits for processes that may wait for a lock: stale ones are broken. It is no reason not to go on
/// where that fails.
pub(crate) fn break_before_waiting(host: &Host, layout: &Layout) {
    let _ = break_as_owner(host, layout, false);
}

/// A lock, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lock {
    pub(crate) path: String,
    /// Whether it was broken.
    pub broken: bool,
    pub(crate) why: String,
}

/// Breaks the locks in a directory whose owners are dead.
pub fn break_stale(host: &Host, directory: &str) -> Result<Vec<Lock>> {
    if host.directory(directory)?.is_none() {
        return Ok(Vec::new());
    }
    // Two that start at the same time must not break the same lock twice: the second time it may be somebody's.
    let _turn = wait_turn(host, directory)?;
    let mut locks = Vec::new();
    for Judged { path, lock, holder, mut verdict } in judge_all(host, directory)? {
        // It may have been given back and taken by another while the others were looked at.
        if verdict.is_stale && !is_still(&lock, host.stat(&path)?) {
            verdict = LockVerdict::held("it changed a moment ago");
        }
        let LockVerdict { is_stale: broken, why } = verdict;
        if broken {
            host.remove_file(&path)?;
            if let Some(holder) = holder {
                host.remove_file(&format!("{directory}/{holder}"))?;
            }
        }
        locks.push(Lock { path, broken, why });
    }
    Ok(locks)
}

fn is_still(lock: &PathInfo, now: Option<PathInfo>) -> bool {
    now.is_some_and(|now| (now.inode, now.changed) == (lock.inode, lock.changed))
}

/// The locks in a directory that [`break_stale`] would break; nothing is changed.
pub(crate) fn stale_locks(host: &Host, directory: &str) -> Result<Vec<String>> {
    let locks = judge_all(host, directory)?.into_iter().filter(|lock| lock.verdict.is_stale);
    Ok(locks.map(|lock| format!("{}: {}", lock.path, lock.verdict.why)).collect())
}

/// Why a lock may be broken, or why it may not.
struct LockVerdict {
    is_stale: bool,
    why: String,
}

impl LockVerdict {
    fn stale(why: &str) -> LockVerdict {
        LockVerdict { is_stale: true, why: why.into() }
    }

    fn held(why: impl Into<String>) -> LockVerdict {
        LockVerdict { is_stale: false, why: why.into() }
    }
}

/// A lock, and the file of whoever holds it.
struct Judged {
    path: String,
    lock: PathInfo,
    holder: Option<String>,
    verdict: LockVerdict,
}

fn judge_all(host: &Host, directory: &str) -> Result<Vec<Judged>> {
    let names = host.list(directory)?.unwrap_or_default();
    let mut files = Vec::new();
    for name in &names {
        if let Some(entry) = host.stat(&format!("{directory}/{name}"))?
            && entry.kind != PathKind::Directory
        {
            files.push((name.as_str(), entry));
        }
    }
    let here = nix::unistd::gethostname()?.to_string_lossy().into_owned();
    let locks = files.iter().filter(|(name, _)| name.ends_with(SUFFIX));
    Ok(locks
        .map(|(name, lock)| {
            let holder = files
                .iter()
                .find(|(other, entry)| {
                    !other.ends_with(SUFFIX) && (entry.kind, entry.inode) == (PathKind::File, lock.inode)
                })
                .map(|(other, _)| (*other).to_owned());
            Judged {
                path: format!("{directory}/{name}"),
                verdict: match &holder {
                    // It would be waited for like any other.
                    None if lock.kind != PathKind::File => LockVerdict::stale("it is not a regular file"),
                    None => without_owner(lock),
                    Some(holder) => judge_lock(holder, lock, &here, Living::look_up),
                },
                lock: lock.clone(),
                holder,
            }
        })
        .collect())
}

/// What is known of a living process.
#[derive(Debug, Clone)]
struct Living {
    account: u32,
    program: Option<String>,
    started: Option<SystemTime>,
    /// The same by the kernel's own count.
    start_ticks: Option<u64>,
}

impl Living {
    /// Nothing if there is no such process, or none that may be of this account. Some machines show nobody the processes of
    /// others. A signal tells that one is there all the same, or is of another account; whatever else comes of it proves
    /// nothing.
    fn look_up(pid: u32) -> Option<Living> {
        let account = processes::account_of(pid).or_else(|| {
            let number = i32::try_from(pid).ok()?;
            match kill(Pid::from_raw(number), None) {
                Err(Errno::ESRCH | Errno::EPERM) => None,
                _ => Some(getuid().as_raw()),
            }
        })?;
        Some(Living {
            account,
            program: processes::program_of(pid),
            started: processes::start_time(pid),
            start_ticks: processes::start_ticks(pid),
        })
    }
}

fn without_owner(lock: &PathInfo) -> LockVerdict {
    let age = lock.changed.elapsed().unwrap_or_default();
    match age > LEAVING {
        true => LockVerdict::stale("left behind by its owner"),
        false => LockVerdict::held("its owner is releasing it"),
    }
}

fn judge_lock(holder: &str, lock: &PathInfo, here: &str, look_up: impl Fn(u32) -> Option<Living>) -> LockVerdict {
    match parse_owner(holder) {
        Some((host, _)) if host != here => LockVerdict::held(format!("its owner is on another machine, {host}")),
        Some((_, candidates)) if !candidates.is_empty() => {
            match candidates.into_iter().find(|candidate| may_hold(*candidate, lock, look_up(candidate.pid))) {
                Some(Candidate { pid, .. }) => LockVerdict::held(format!("its owner, process {pid}, is running")),
                None => LockVerdict::stale("its owner has ended"),
            }
        }
        _ => LockVerdict::held(format!("its owner {holder} is not recognised")),
    }
}

/// A process that the file of an owner may mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Candidate {
    pid: u32,
    start_ticks: Option<u64>,
}

fn may_hold(candidate: Candidate, lock: &PathInfo, found: Option<Living>) -> bool {
    let Some(living) = found else {
        return false;
    };
    if let (Some(named), Some(seen)) = (candidate.start_ticks, living.start_ticks) {
        return named == seen;
    }
    // Another account, another program or a younger process has the number by chance.
    let python = living.program.is_none_or(|program| program.starts_with("python"));
    let young = living.started.is_some_and(|started| started > lock.modified + SLACK);
    living.account == lock.uid && python && !young
}

/// The machine of an owner, and the processes of it that may be meant.
fn parse_owner(name: &str) -> Option<(&str, Vec<Candidate>)> {
    let (left, digits) = name.rsplit_once('.')?;
    let (host, _thread) = left.rsplit_once('-')?;
    let parts: Vec<&str> = digits.split('-').collect();
    let one = |pid: &str, start_ticks| {
        let pid = parse_pid(pid);
        pid.map(|pid| Candidate { pid, start_ticks })
    };
    let candidates = match parts.as_slice() {
        [pid, start, _hash] => vec![one(pid, Some(start.parse().ok()?))?],
        // A hash below zero.
        [pid, _hash] => vec![one(pid, None)?],
        [both] => (1..both.len())
            .filter_map(|end| both.split_at_checked(end))
            .filter(|(_, hash)| is_hash(hash))
            .filter_map(|(pid, _)| one(pid, None))
            .collect(),
        _ => return None,
    };
    Some((host, candidates))
}

fn parse_pid(digits: &str) -> Option<u32> {
    let pid = digits.parse().ok()?;
    ((1..=LARGEST_PID).contains(&pid) && pid.to_string() == digits).then_some(pid)
}

/// Whether Python writes a hash like this: most numbers that are too short for a process leave too much for one.
fn is_hash(digits: &str) -> bool {
    let hash: Result<i64, _> = digits.parse();
    hash.is_ok_and(|hash| hash.to_string() == digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[derive(Clone)]
    struct One {
        pid: u32,
        uid: u32,
        program: &'static str,
        started: u64,
    }

    impl One {
        fn look_up(&self, pid: u32) -> Option<Living> {
            (pid == self.pid).then(|| Living {
                account: self.uid,
                program: Some(self.program.into()),
                started: Some(UNIX_EPOCH + Duration::from_secs(self.started)),
                start_ticks: Some(self.started * 100),
            })
        }
    }

    fn lock() -> PathInfo {
        PathInfo {
            kind: PathKind::File,
            uid: 33,
            gid: 33,
            mode: 0o600,
            inode: 1,
            modified: UNIX_EPOCH + Duration::from_secs(1000),
            changed: UNIX_EPOCH + Duration::from_secs(1000),
        }
    }

    fn broken(holder: &str, machine: &One) -> bool {
        judge_lock(holder, &lock(), "machine", |pid| machine.look_up(pid)).is_stale
    }

    const ALIVE: One = One { pid: 4711, uid: 33, program: "python3.11", started: 900 };

    #[test]
    fn only_a_dead_owner_of_this_machine_loses_its_lock() {
        assert!(!broken("machine-7f00aa40.4711-1234567", &ALIVE));
        assert!(!broken("machine-7f00aa40.47111234567", &ALIVE));
        assert!(broken("machine-7f00aa40.4712-1234567", &ALIVE));
        assert!(broken("machine-7f00aa40.47121234567", &ALIVE));
        assert!(!broken("other-7f00aa40.4712-1234567", &ALIVE));
        assert!(!broken("a-b-7f00aa40.4712-1", &ALIVE));
    }

    #[test]
    fn what_is_not_understood_is_kept() {
        for holder in [
            "nonsense",
            "machine-7f.",
            "machine-7f.x",
            "machine-7f.-1",
            "machine-7f.4712-x-1",
            "machine-7f.4712-1-1-1",
            // No number is left for a process, or for a hash.
            "machine-7f.0123456789",
            "machine-7f.4",
            "machine-7f.99999999999999999999999999999999",
        ] {
            assert!(!broken(holder, &ALIVE), "{holder}");
        }
    }

    #[test]
    fn a_number_that_another_process_has_meanwhile_is_no_owner() {
        let holder = "machine-7f00aa40.4711-1234567";
        let with = |change: fn(&mut One)| {
            let mut process = ALIVE.clone();
            change(&mut process);
            process
        };
        assert!(broken(holder, &with(|one| one.started = 1061)));
        // The clock may have been corrected since.
        assert!(!broken(holder, &with(|one| one.started = 1010)));
        assert!(broken(holder, &with(|one| one.program = "apache2")));
        assert!(broken(holder, &with(|one| one.uid = 34)));
    }

    #[test]
    fn a_name_with_the_start_means_one_process_whatever_the_clock_says() {
        assert!(!broken("machine-7f00aa40.4711-90000-123", &ALIVE));
        assert!(broken("machine-7f00aa40.4711-90001-123", &ALIVE));
        assert!(broken("machine-7f00aa40.4712-90000-123", &ALIVE));
        let moved = One { started: 5000, ..ALIVE };
        assert!(!broken("machine-7f00aa40.4711-500000-123", &moved));
    }

    #[test]
    fn what_does_not_show_its_start_counts_as_the_owner() {
        // A sandbox, or /proc with `hidepid`, shows of another process that it is there.
        let hidden = Living { account: 33, program: None, started: None, start_ticks: None };
        let broken = |holder: &str, there: u32| {
            judge_lock(holder, &lock(), "machine", |pid| (pid == there).then(|| hidden.clone())).is_stale
        };
        assert!(!broken("machine-7f00aa40.4711-90000-123", 4711));
        assert!(!broken("machine-7f00aa40.47111234567", 4711));
        assert!(broken("machine-7f00aa40.4711-90000-123", 47));
    }

    fn meant(digits: &str) -> Vec<u32> {
        let name = format!("machine-7f.{digits}");
        let (host, candidates) = parse_owner(&name).unwrap();
        assert_eq!(host, "machine");
        candidates.iter().map(|one| one.pid).collect()
    }

    #[test]
    fn a_hash_without_a_sign_leaves_several_numbers_open() {
        assert_eq!(meant("4711-99"), [4711]);
        assert_eq!(meant("4711-12-99"), [4711]);
        assert_eq!(meant("123456789"), [1, 12, 123, 1234, 12345, 123_456, 1_234_567]);
        // A hash does not begin with a zero, unless it is zero.
        assert_eq!(meant("47110205"), [4, 47, 471, 47110]);
        assert_eq!(meant("47110"), [4, 47, 471, 4711]);
        // What is too short for a process leaves more than a hash can be.
        assert_eq!(meant("47119223372036854775807"), [4711, 47119, 471_192]);
        assert_eq!(meant("47119223372036854775808"), [47119, 471_192]);
    }

    #[test]
    fn every_process_finds_itself_in_its_name() {
        for pid in [1, 9, 10, 4711, 47110, LARGEST_PID] {
            for hash in [0, 1, 10, i64::MAX, i64::MIN, -1, 1_000_000_000_000_000_000] {
                assert!(meant(&format!("{pid}{hash}")).contains(&pid), "{pid}{hash}");
            }
        }
    }

    #[test]
    fn a_lock_that_was_taken_meanwhile_is_another() {
        let other = |change: fn(&mut PathInfo)| {
            let mut entry = lock();
            change(&mut entry);
            Some(entry)
        };
        assert!(is_still(&lock(), Some(lock())));
        assert!(!is_still(&lock(), None));
        assert!(!is_still(&lock(), other(|entry| entry.inode = 2)));
        assert!(!is_still(&lock(), other(|entry| entry.changed += Duration::from_nanos(1))));
    }

    #[test]
    fn what_stands_in_the_directory_is_broken_or_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let here = nix::unistd::gethostname().unwrap().to_string_lossy().into_owned();
        let take = |name: &str, holder: &str| {
            std::fs::write(path(holder), "").unwrap();
            std::fs::hard_link(path(holder), path(name)).unwrap();
        };
        let dead = format!("{here}-7f00.{}-1", LARGEST_PID);
        take("dead.lock", &dead);
        take("far.lock", "elsewhere-7f00.1-1");
        std::fs::write(path("leaving.lock"), "").unwrap();
        std::fs::write(path("other"), "").unwrap();
        std::os::unix::fs::symlink(path("other"), path("link.lock")).unwrap();
        let host = Host::staged(directory.path()).unwrap();
        let locks = break_stale(&host, "/").unwrap();
        let broken: Vec<(&str, bool)> = locks.iter().map(|lock| (lock.path.as_str(), lock.broken)).collect();
        assert_eq!(
            broken,
            [("//dead.lock", true), ("//far.lock", false), ("//leaving.lock", false), ("//link.lock", true)]
        );
        assert!(!path("dead.lock").exists() && !path(&dead).exists());
        assert!(path("far.lock").exists() && path("other").exists());
        assert!(path("link.lock").symlink_metadata().is_err());
    }
}
