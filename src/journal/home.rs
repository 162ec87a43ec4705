//! The program's own directory with its lock: it appears in one step and goes in one step.

use super::*;
use crate::host::lock::{lock_holder, lock_request, wait_turn};

const NEW: &str = ".camcops-provision.new";
const OLD: &str = ".camcops-provision.old";

/// Takes the lock if there is one to take; an error that names the holder if somebody else has it.
pub(crate) fn try_lock(host: &Host) -> Result<Option<Flock<File>>> {
    check_directory(host, HOME)?;
    host.open_for_appending(&lock_path())?.map(|lock| take_lock(host, lock)).transpose()
}

/// The process that holds the lock just now; nothing where nobody does, or where it is not for us to know.
pub(crate) fn at_work(host: &Host) -> Option<u32> {
    let lock = host.open_for_appending(&lock_path()).ok().flatten()?;
    let holder = lock_holder(&lock).ok().flatten()?;
    u32::try_from(holder).ok().filter(|pid| *pid > 0)
}

/// Clears away what a run left that was cut while it made or removed the program's own directory.
pub(crate) fn clear_up(host: &Host) -> Result<()> {
    clear_up_aside(host)?;
    let unfinished = |name: &String| name.starts_with('.');
    let left: Vec<String> = host.list(HOME)?.unwrap_or_default().into_iter().filter(unfinished).collect();
    if left.is_empty() && !list_instances(host)?.is_empty() {
        return Ok(());
    }
    let Some(_lock) = try_lock(host)? else {
        return Ok(());
    };
    for name in left {
        host.remove_tree(&join_path(HOME, &name))?;
    }
    if list_instances(host)?.is_empty() {
        remove_home(host)?;
    }
    Ok(())
}

fn clear_up_aside(host: &Host) -> Result<()> {
    for ancestor in home_ancestors() {
        if host.stat(&join_path(&ancestor, OLD))?.is_some() {
            remove_moved_home(host, &ancestor)?;
        }
        let aside = join_path(&ancestor, NEW);
        if host.stat(&aside)?.is_some() || host.stat(&unfinished_path(&aside))?.is_some() {
            let _turn = wait_turn(host, &ancestor)?;
            host.remove_unfinished(&aside)?;
            host.remove_tree(&aside)?;
        }
    }
    Ok(())
}

/// Makes the program's directory with the lock and the journal in one step: built aside, then moved to its place.
pub(super) fn create_home(host: &Host, instance: &str) -> Result<()> {
    clear_up_aside(host)?;
    let mut base = String::from("/");
    let mut missing = Vec::new();
    for ancestor in home_ancestors().iter().skip(1).map(String::as_str).chain([HOME]) {
        if missing.is_empty() && host.stat(ancestor)?.is_some() {
            base = ancestor.to_owned();
        } else {
            missing.push(ancestor.to_owned());
        }
    }
    let _turn = wait_turn(host, &base)?;
    if host.stat(&lock_path())?.is_some() {
        return Ok(());
    }
    let aside = join_path(&base, NEW);
    host.remove_tree(&aside)?;
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
            path = join_path(&path, last_name(directory));
        }
        let mode = if directory == home { 0o700 } else { 0o755 };
        host.make_directory(&path, root, mode)?;
    }
    // The lock file also says which directories were made for it, so that the last uninstall takes them along.
    let made = &missing[..missing.len() - 1];
    host.put_file(&join_path(&path, "lock"), made.join("\n").as_bytes(), root, 0o600)?;
    host.make_directory(&join_path(&path, instance), root, 0o700)?;
    let journal = format!("{path}/{instance}/journal");
    host.put_file(&journal, first_line(instance)?.as_bytes(), root, 0o600)?;
    host.rename(&aside, &missing[0])
}

/// Removes the program's directory in one step: moved aside, then emptied.
pub(super) fn remove_home(host: &Host) -> Result<()> {
    let made = host.read_text(&lock_path())?.unwrap_or_default();
    let base = made
        .lines()
        .next()
        .and_then(|first| first.rsplit_once('/'))
        .map_or_else(|| "/var/lib".into(), |(parent, _)| or_root(parent));
    host.remove_tree(&join_path(&base, OLD))?;
    host.rename(HOME, &join_path(&base, OLD))?;
    remove_moved_home(host, &base)
}

fn remove_moved_home(host: &Host, base: &str) -> Result<()> {
    let moved = join_path(base, OLD);
    let lock = join_path(&moved, "lock");
    let made = host.read_text(&lock)?.unwrap_or_default();
    for directory in made.lines().rev() {
        if !host.remove_directory(directory)? {
            break;
        }
    }
    host.remove_tree(&moved)
}

/// Takes the lock of the whole file, and a second one of the older kind, whose holder can be asked for.
pub(super) fn take_lock(host: &Host, lock: File) -> Result<Flock<File>> {
    match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => {
            let mut named = lock_request();
            named.l_type = nix::libc::F_WRLCK as i16;
            fcntl(&*lock, FcntlArg::F_SETLK(&named)).context("can't lock")?;
            Ok(lock)
        }
        Err((lock, Errno::EWOULDBLOCK)) => {
            let holder = lock_holder(&lock)?.map_or("another process".into(), |pid| format!("process {pid}"));
            Err(Exit::Locked.because(format!(
                "{holder} is already running here and holds the lock {}; wait for it to finish and run again",
                host.outside(&lock_path())
            )))
        }
        Err((_, why)) => Err(why).context("can't lock"),
    }
}

pub(super) fn lock_path() -> String {
    format!("{HOME}/lock")
}

pub(super) fn empty_directory(host: &Host, directory: &str) -> Result<()> {
    for name in host.list(directory)?.unwrap_or_default() {
        host.remove_file(&join_path(directory, &name))?;
    }
    Ok(())
}

fn home_ancestors() -> Vec<String> {
    vec!["/".into(), "/var".into(), "/var/lib".into()]
}

fn join_path(directory: &str, name: &str) -> String {
    format!("{}/{name}", directory.trim_end_matches('/'))
}

fn last_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn or_root(path: &str) -> String {
    if path.is_empty() { "/".into() } else { path.to_owned() }
}
