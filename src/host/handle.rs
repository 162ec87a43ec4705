//! A directory that is open to look at what is in it, from any thread.

use super::Host;
use super::walk::HANDLE;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstatat};
use std::os::fd::OwnedFd;

/// The links on the way to what is in it are followed, as by any program that uses it.
const ENTER: OFlag = HANDLE.difference(OFlag::O_NOFOLLOW);

#[derive(Debug)]
pub(crate) struct DirectoryHandle(OwnedFd);

/// What stands at a path, itself and not what it points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntrySummary {
    pub(crate) is_directory: bool,
    pub(crate) size: u64,
    /// When its content last changed, in nanoseconds.
    pub(crate) modified: i128,
}

impl Host {
    /// Opens a directory behind links that only root could have made; nothing if there is none.
    pub(crate) fn open_directory(&self, path: &str) -> Result<Option<DirectoryHandle>> {
        Ok(self.directory(path)?.map(DirectoryHandle))
    }
}

impl DirectoryHandle {
    pub(crate) fn summary(&self, path: &str) -> Result<Option<EntrySummary>> {
        let found = if_there(path, fstatat(&self.0, path, AtFlags::AT_SYMLINK_NOFOLLOW))?;
        Ok(found.map(|found| EntrySummary {
            is_directory: SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR,
            size: u64::try_from(found.st_size).unwrap_or(0),
            modified: i128::from(found.st_mtime) * 1_000_000_000 + i128::from(found.st_mtime_nsec),
        }))
    }

    pub(crate) fn open(&self, path: &str) -> Result<Option<DirectoryHandle>> {
        let opened = if_there(path, openat(&self.0, path, ENTER, Mode::empty()))?;
        Ok(opened.map(DirectoryHandle))
    }
}

fn if_there<T>(path: &str, looked: nix::Result<T>) -> Result<Option<T>> {
    match looked {
        Ok(found) => Ok(Some(found)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(why) => Err(why).with_context(|| format!("can't read {path}")),
    }
}
