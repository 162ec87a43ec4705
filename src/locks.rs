//! Export locks whose owner is dead. CamCOPS waits for such a lock for ever, its web server too, when it starts.
//!
//! A lock is `NAME.lock`, a hard link to the file `HOST-THREAD.PIDHASH` of whoever holds it (Python's `lockfile`). The
//! lock is all that keeps a clinical record from being exported twice, so it is broken only if its owner is proved dead:
//! same machine, and no process of that number and account that ran Python when the lock was taken.

use crate::camcops_conf::Ini;
use crate::host::{Ended, Entry, Host, Kind};
use crate::journal;
use crate::layout::{Layout, TOOL};
use crate::processes;
use anyhow::Result;
use nix::sys::signal::kill;
use nix::unistd::{Pid, getuid};
use serde::Serialize;
use std::time::{Duration, SystemTime};

const SUFFIX: &str = ".lock";
/// An owner removes its own file first and the lock then: between the two it is at work no more.
const LEAVING: Duration = Duration::from_secs(10);
/// What the clock may have been corrected by since the lock was taken.
const SLACK: Duration = Duration::from_secs(2);
/// The largest process number that Linux gives.
const LARGEST_PID: u32 = 1 << 22;

/// How long it may take to break them; the directory's own lock is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the locks of exports are: the administrator may keep them elsewhere.
pub(crate) fn directory(host: &Host, layout: &Layout) -> Result<String> {
    let config = host.read_text(&layout.config)?;
    Ok(config
        .and_then(|text| Ini::parse(&text).get("export", "EXPORT_LOCKDIR"))
        .filter(|directory| directory.starts_with('/'))
        .unwrap_or_else(|| layout.lock.clone()))
}

/// Whether there are exports that the broker could not be told of.
pub(crate) fn has_unsent(host: &Host, layout: &Layout) -> Result<bool> {
    let has = |name: &str| {
        Ok::<_, anyhow::Error>(host.look(&format!("{}/{name}", layout.state))?.is_some())
    };
    Ok(has("unsent")? || has("unsent.sending")?)
}

/// Breaks the stale locks of an instance as the account whose they are, and gives how that ended; nothing where this is
/// not root. That account can put links in the place of everything in there, which root would follow.
pub(crate) fn break_as_owner(host: &Host, layout: &Layout, json: bool) -> Result<Option<Ended>> {
    if !host.may_give_away() || host.staged_root().is_some() {
        return Ok(None);
    }
    let Some(state) = host.look(&layout.state)?.filter(|state| state.uid != 0) else {
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
    /// Its path.
    pub path: String,
    /// Whether it was broken.
    pub broken: bool,
    /// Why, or why not.
    pub why: String,
}

/// Breaks the locks in a directory whose owners are dead.
pub fn break_stale(host: &Host, directory: &str) -> Result<Vec<Lock>> {
    if host.directory(directory)?.is_none() {
        return Ok(Vec::new());
    }
    // Two that start at the same time must not break the same lock twice: the second time it may be somebody's.
    let _turn = journal::turn(host, directory)?;
    let mut locks = Vec::new();
    for Judged {
        path,
        holder,
        verdict,
    } in all(host, directory)?
    {
        let broken = verdict.is_ok();
        if broken {
            host.remove_file(&path)?;
            if let Some(holder) = holder {
                host.remove_file(&format!("{directory}/{holder}"))?;
            }
        }
        let (Ok(why) | Err(why)) = verdict;
        locks.push(Lock { path, broken, why });
    }
    Ok(locks)
}

/// The locks in a directory that [`break_stale`] would break; nothing is changed.
pub fn stale(host: &Host, directory: &str) -> Result<Vec<String>> {
    let locks = all(host, directory)?.into_iter();
    Ok(locks
        .filter_map(|lock| lock.verdict.ok().map(|why| format!("{}: {why}", lock.path)))
        .collect())
}

/// A lock, the file of whoever holds it, and why it may be broken, or why it may not.
struct Judged {
    path: String,
    holder: Option<String>,
    verdict: Result<String, String>,
}

fn all(host: &Host, directory: &str) -> Result<Vec<Judged>> {
    let names = host.list(directory)?.unwrap_or_default();
    let mut files = Vec::new();
    for name in &names {
        if let Some(entry) = host.look(&format!("{directory}/{name}"))?
            && entry.kind == Kind::File
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
                .find(|(other, entry)| !other.ends_with(SUFFIX) && entry.inode == lock.inode)
                .map(|(other, _)| (*other).to_owned());
            Judged {
                path: format!("{directory}/{name}"),
                verdict: match &holder {
                    None => without_owner(lock),
                    Some(holder) => judged(holder, lock, &here, &Machine),
                },
                holder,
            }
        })
        .collect())
}

/// What is known of processes.
trait Processes {
    /// The account of a living process.
    fn owner(&self, pid: u32) -> Option<u32>;
    fn program(&self, pid: u32) -> Option<String>;
    fn started(&self, pid: u32) -> Option<SystemTime>;
}

struct Machine;

impl Processes for Machine {
    /// Not every process is in a /proc of those that a sandbox gives; a signal tells that it is there all the same. What
    /// may not be sent one is of another account.
    fn owner(&self, pid: u32) -> Option<u32> {
        processes::owner(pid).or_else(|| {
            let number = i32::try_from(pid).ok()?;
            kill(Pid::from_raw(number), None)
                .is_ok()
                .then(|| getuid().as_raw())
        })
    }

    fn program(&self, pid: u32) -> Option<String> {
        processes::program(pid)
    }

    fn started(&self, pid: u32) -> Option<SystemTime> {
        processes::started(pid)
    }
}

fn without_owner(lock: &Entry) -> Result<String, String> {
    let age = lock.changed.elapsed().unwrap_or_default();
    match age > LEAVING {
        true => Ok("its owner left it behind".into()),
        false => Err("its owner is just leaving it".into()),
    }
}

/// Why the lock may be broken, or why it may not.
fn judged(
    holder: &str,
    lock: &Entry,
    here: &str,
    machine: &impl Processes,
) -> Result<String, String> {
    let Some((host, digits)) = holder.rsplit_once('.').and_then(|(left, right)| {
        let (host, _thread) = left.rsplit_once('-')?;
        Some((host, right))
    }) else {
        return Err(format!("its owner {holder} is not understood"));
    };
    if host != here {
        return Err(format!("its owner is on another machine, {host}"));
    }
    for pid in candidates(digits) {
        let Some(account) = machine.owner(pid) else {
            continue;
        };
        // Another account, another program or a younger process has the number by chance.
        let python = machine
            .program(pid)
            .is_none_or(|program| program.starts_with("python"));
        let young = machine
            .started(pid)
            .is_some_and(|started| started > lock.modified + SLACK);
        if account == lock.uid && python && !young {
            return Err(format!("its owner, process {pid}, is alive"));
        }
    }
    Ok("its owner is dead".into())
}

/// Number and hash are written one after the other. A hash without a minus sign does not tell where it begins, so every
/// number that it may be is looked at.
fn candidates(digits: &str) -> Vec<u32> {
    let whole = digits.split('-').next().unwrap_or_default();
    let exact = digits.contains('-');
    (1..=whole.len())
        .filter(|length| !exact || *length == whole.len())
        .filter_map(|length| whole.get(..length)?.parse().ok())
        .take_while(|pid| *pid <= LARGEST_PID)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    struct One {
        pid: u32,
        uid: u32,
        program: &'static str,
        started: u64,
    }

    impl Processes for One {
        fn owner(&self, pid: u32) -> Option<u32> {
            (pid == self.pid).then_some(self.uid)
        }

        fn program(&self, _: u32) -> Option<String> {
            Some(self.program.into())
        }

        fn started(&self, _: u32) -> Option<SystemTime> {
            Some(UNIX_EPOCH + Duration::from_secs(self.started))
        }
    }

    fn lock() -> Entry {
        Entry {
            kind: Kind::File,
            uid: 33,
            gid: 33,
            mode: 0o600,
            inode: 1,
            modified: UNIX_EPOCH + Duration::from_secs(1000),
            changed: UNIX_EPOCH + Duration::from_secs(1000),
        }
    }

    fn broken(holder: &str, process: &One) -> bool {
        judged(holder, &lock(), "machine", process).is_ok()
    }

    #[test]
    fn only_a_dead_owner_of_this_machine_loses_its_lock() {
        let alive = One {
            pid: 4711,
            uid: 33,
            program: "python3.11",
            started: 900,
        };
        assert!(!broken("machine-7f00aa40.4711-1234567", &alive));
        assert!(!broken("machine-7f00aa40.47111234567", &alive));
        assert!(broken("machine-7f00aa40.4712-1234567", &alive));
        assert!(broken("machine-7f00aa40.47121234567", &alive));
        assert!(!broken("other-7f00aa40.4712-1234567", &alive));
        assert!(!broken("nonsense", &alive));
        assert!(!broken("a-b-7f00aa40.4712-1", &alive));
        // The number went to somebody else meanwhile.
        let younger = One {
            started: 1010,
            ..alive
        };
        assert!(broken("machine-7f00aa40.4711-1234567", &younger));
        let apache = One {
            program: "apache2",
            ..alive
        };
        assert!(broken("machine-7f00aa40.4711-1234567", &apache));
        let stranger = One { uid: 34, ..alive };
        assert!(broken("machine-7f00aa40.4711-1234567", &stranger));
    }

    #[test]
    fn a_hash_without_a_sign_leaves_several_numbers_open() {
        assert_eq!(candidates("4711-99"), [4711]);
        assert_eq!(
            candidates("123456789"),
            [1, 12, 123, 1234, 12345, 123_456, 1_234_567]
        );
        assert_eq!(candidates(""), Vec::<u32>::new());
        assert_eq!(candidates("x"), Vec::<u32>::new());
    }

    #[test]
    fn what_stands_in_the_directory_is_broken_or_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let here = nix::unistd::gethostname()
            .unwrap()
            .to_string_lossy()
            .into_owned();
        let take = |name: &str, holder: &str| {
            std::fs::write(path(holder), "").unwrap();
            std::fs::hard_link(path(holder), path(name)).unwrap();
        };
        let dead = format!("{here}-7f00.{}-1", LARGEST_PID);
        take("dead.lock", &dead);
        take("far.lock", "elsewhere-7f00.1-1");
        std::fs::write(path("leaving.lock"), "").unwrap();
        std::fs::write(path("other"), "").unwrap();
        let host = Host::staged(directory.path()).unwrap();
        let locks = break_stale(&host, "/").unwrap();
        let broken: Vec<(&str, bool)> = locks
            .iter()
            .map(|lock| (lock.path.as_str(), lock.broken))
            .collect();
        assert_eq!(
            broken,
            [
                ("//dead.lock", true),
                ("//far.lock", false),
                ("//leaving.lock", false)
            ]
        );
        assert!(!path("dead.lock").exists() && !path(&dead).exists());
        assert!(path("far.lock").exists() && path("other").exists());
    }
}
