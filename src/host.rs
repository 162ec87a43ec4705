//! The machine: the only place that writes to it or starts a process on it.
//!
//! Every path is walked from a directory handle, one component at a time, and a symbolic link is followed only where
//! nobody but root (or whoever runs the program) could have put it. So an unprivileged account that owns a directory
//! in the way can't make root write elsewhere: it is refused, and the path is named.

pub(crate) mod accounts;
pub(crate) mod actor;
mod child;
mod clock;
pub(crate) mod cut;
pub mod export_locks;
mod flow;
mod handle;
pub(crate) mod lock;
pub(crate) mod named_file;
pub(crate) mod own_program;
pub(crate) mod processes;
pub(crate) mod pty;
mod read;
#[cfg(test)]
pub(crate) mod script;
pub(crate) mod secrets;
pub(crate) mod system_log;
pub(crate) mod take_over;
mod tree;
mod trust;
mod walk;
mod write;

use crate::base::error::Exit;
use crate::host::accounts::Accounts;
use crate::host::cut::Cut;
use anyhow::{Context, Result};
pub(crate) use child::{Begun, Child, Ended};
pub(crate) use flow::{Ends, Flow};
pub(crate) use handle::DirectoryHandle;
use nix::fcntl::open;
use nix::sys::stat::{FileStat, Mode, SFlag};
use nix::unistd::{Uid, geteuid};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
pub(crate) use tree::DiskSpace;
use walk::HANDLE;
pub(crate) use write::{finished_name, unfinished_path};

/// What kind of thing stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathKind {
    /// A regular file.
    File,
    Directory,
    /// A symbolic link.
    Symlink,
    /// A pipe, a socket or a device: never ours.
    Special,
}

/// What stands at a path: kind, owner, mode, and when it last changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PathInfo {
    pub(crate) kind: PathKind,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Permission bits, with the set-id and sticky bits.
    pub(crate) mode: u32,
    /// Its number in the file system: hard links have the same.
    pub(crate) inode: u64,
    /// When its content last changed.
    pub(crate) modified: SystemTime,
    /// When anything of it last changed.
    pub(crate) changed: SystemTime,
}

/// The machine itself, or a staged tree that will become one.
#[derive(Debug)]
pub struct Host {
    staged: Option<PathBuf>,
    root: OwnedFd,
    me: Uid,
    /// Names and numbers of accounts, as this machine (or staged tree) has them.
    pub(crate) accounts: Accounts,
    cut: Cut,
}

impl Host {
    /// The machine that the program runs on.
    pub(crate) fn live() -> Result<Host> {
        Host::at(Path::new("/"), None)
    }

    /// A staged tree: files only; services, accounts and packages wait for the first boot.
    pub fn staged(root: &Path) -> Result<Host> {
        let root = root.canonicalize().map_err(|why| {
            Exit::Unusable
                .because(format!("--root {}: {why}; create the directory first; it may be empty", root.display()))
        })?;
        if !root.is_dir() {
            return Err(Exit::Unusable
                .because(format!("--root {} is not a directory; name one, it may be empty", root.display())));
        }
        Host::at(&root, Some(root.clone()))
    }

    fn at(root: &Path, staged: Option<PathBuf>) -> Result<Host> {
        let handle = open(root, HANDLE, Mode::empty()).with_context(|| format!("can't open {}", root.display()))?;
        let mut host =
            Host { staged, root: handle, me: geteuid(), accounts: Accounts::live(), cut: Cut::from_environment() };
        if host.staged.is_some() {
            let passwd = host.read_text("/etc/passwd")?.unwrap_or_default();
            let group = host.read_text("/etc/group")?.unwrap_or_default();
            host.accounts = Accounts::staged(&passwd, &group);
        }
        Ok(host)
    }

    /// The staged tree, if this is one.
    pub(crate) fn staged_root(&self) -> Option<&Path> {
        // The tree of a case stands for a machine that runs.
        #[cfg(test)]
        if script::is_on() {
            return None;
        }
        self.staged.as_deref()
    }

    /// Whether files can be given to other accounts: only root can.
    pub(crate) fn is_root(&self) -> bool {
        #[cfg(test)]
        if script::is_on() {
            return true;
        }
        self.me.is_root()
    }

    /// Whether nobody but root, or whoever runs the program, can have written to something.
    pub(crate) fn is_ours(&self, entry: &PathInfo) -> bool {
        (entry.uid == 0 || entry.uid == self.me.as_raw()) && entry.mode & 0o022 == 0
    }

    /// The path as the administrator sees it from outside of a staged tree.
    pub(crate) fn outside(&self, path: &str) -> String {
        match &self.staged {
            Some(root) => format!("{}{path}", root.display()),
            None => path.to_owned(),
        }
    }

    /// The test's scissors, for the journal's own points.
    pub(crate) fn cut(&self) -> &Cut {
        &self.cut
    }

    /// Runs a program of this machine to its end, without input; the end of its complaint is in the error.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        self.child(program).args(arguments).run()?;
        Ok(())
    }
}

fn entry_of_stat(stat: &FileStat) -> PathInfo {
    let kind = match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFREG => PathKind::File,
        SFlag::S_IFDIR => PathKind::Directory,
        SFlag::S_IFLNK => PathKind::Symlink,
        _ => PathKind::Special,
    };
    PathInfo {
        kind,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mode: stat.st_mode & 0o7777,
        inode: stat.st_ino,
        modified: time_of_stat(stat.st_mtime, stat.st_mtime_nsec),
        changed: time_of_stat(stat.st_ctime, stat.st_ctime_nsec),
    }
}

/// A file may be as old as it likes, but nothing here cares about what was before 1970.
fn time_of_stat(seconds: i64, nanoseconds: i64) -> SystemTime {
    let seconds = u64::try_from(seconds).unwrap_or(0);
    UNIX_EPOCH + Duration::new(seconds, u32::try_from(nanoseconds).unwrap_or(0))
}
