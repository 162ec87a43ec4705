//! Walking: from a path to a handle of the directory that holds it, one component at a time.

use super::{Host, entry_of_stat};
use crate::base::error::Exit;
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{Mode, fstat};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// A link that leads to a link that leads to a link: more than this is a loop.
pub(super) const MOST_LINKS: usize = 32;
/// A handle to walk from: it needs no permission to list the directory.
pub(super) const HANDLE: OFlag =
    OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// The directory that holds a path, opened, and the last component.
pub(super) struct OpenedPlace {
    pub(super) directory: OwnedFd,
    pub(super) name: OsString,
    /// Only root, or whoever runs the program, can change what this directory holds.
    pub(super) trusted: bool,
}

impl Host {
    pub(super) fn place_for_writing(&self, path: &str) -> Result<OpenedPlace> {
        self.place(path)?.ok_or_else(|| {
            Exit::CannotCreate
                .because(format!("the directory of {} does not exist, or is not a directory", self.outside(path)))
        })
    }

    pub(super) fn place(&self, path: &str) -> Result<Option<OpenedPlace>> {
        let mut walked: Vec<OwnedFd> = Vec::new();
        let mut left: VecDeque<OsString> = split_path(Path::new(path));
        let Some(name) = left.pop_back() else {
            bail!("{path} is not a path of something");
        };
        match self.directory_at_once(&left) {
            Ok(directory) => {
                let trusted = self.trusts(directory.as_fd())?;
                return Ok(Some(OpenedPlace { directory, name, trusted }));
            }
            Err(Errno::ENOENT) => return Ok(None),
            // What stands in the way is found out step by step.
            Err(_) => {}
        }
        let mut links = 0;
        while let Some(step) = left.pop_front() {
            if step == ".." {
                walked.pop();
                continue;
            }
            let here = self.here(&walked);
            match openat(here, &*step, HANDLE, Mode::empty()) {
                Ok(next) => walked.push(next),
                Err(Errno::ENOENT) => return Ok(None),
                // A link answers ENOTDIR to O_DIRECTORY with O_NOFOLLOW.
                Err(Errno::ELOOP | Errno::ENOTDIR) => {
                    let target = match readlinkat(here, &*step) {
                        Ok(target) => PathBuf::from(target),
                        // Something else stands where the directory should: nothing can be in it.
                        Err(_) => return Ok(None),
                    };
                    links += 1;
                    if links > MOST_LINKS || !self.trusts(here)? {
                        return Err(Exit::CannotCreate.because(format!(
                            "{}: {} is a symbolic link in a directory that others can write to; it is not followed: remove it and run again",
                            self.outside(path),
                            step.to_string_lossy()
                        )));
                    }
                    if target.is_absolute() {
                        walked.clear();
                    }
                    for part in split_path(&target).into_iter().rev() {
                        left.push_front(part);
                    }
                }
                Err(why) => {
                    return Err(why).with_context(|| format!("can't enter {}", self.outside(path)));
                }
            }
        }
        let here = self.here(&walked);
        let trusted = self.trusts(here)?;
        let directory = match walked.pop() {
            Some(handle) => handle,
            None => self.root.try_clone()?,
        };
        Ok(Some(OpenedPlace { directory, name, trusted }))
    }

    /// The same in one step, where no link is on the way: most ways have none, and are walked a thousand times.
    fn directory_at_once(&self, steps: &VecDeque<OsString>) -> nix::Result<OwnedFd> {
        let Some(first) = steps.front() else {
            return Err(Errno::EINVAL);
        };
        let mut way = first.clone();
        for step in steps.iter().skip(1) {
            way.push("/");
            way.push(step);
        }
        let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
        openat2(&self.root, &*way, OpenHow::new().flags(HANDLE).resolve(resolve))
    }

    pub(super) fn here<'a>(&'a self, walked: &'a [OwnedFd]) -> BorrowedFd<'a> {
        walked.last().map_or(self.root.as_fd(), |handle| handle.as_fd())
    }

    pub(super) fn trusts(&self, directory: BorrowedFd<'_>) -> Result<bool> {
        Ok(self.is_ours(&entry_of_stat(&fstat(directory)?)))
    }
}

fn split_path(path: &Path) -> VecDeque<OsString> {
    let mut parts: VecDeque<OsString> = path
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect();
    // `Path` drops a last "."; here it means the directory itself.
    if path.as_os_str().as_bytes().ends_with(b"/.") {
        parts.push_back(".".into());
    }
    parts
}
