//! Changing what stands at a path: what is new gets its name only when it is whole.

use super::read::READING;
use super::walk::OpenedPlace;
use super::{Host, PathKind, entry_of_stat, tree};
use crate::base::error::Exit;
use crate::layout::{RUNTIME, SERVICE_ACCOUNTS};
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmod, fchmodat, fstat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, fsync, symlinkat, unlinkat};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

const NEW_FILE: OFlag =
    OFlag::O_WRONLY.union(OFlag::O_CREAT).union(OFlag::O_EXCL).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
const PRIVATE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

impl Host {
    /// Puts a file in place in one step: readers see the old one or the new one, whole.
    pub(crate) fn put_file(&self, path: &str, bytes: &[u8], owner: Option<(u32, u32)>, mode: u32) -> Result<()> {
        self.put_file_from(path, bytes, owner, mode)
    }

    /// The same for one that may not fit into memory.
    pub(crate) fn put_file_from(
        &self,
        path: &str,
        mut bytes: impl Read,
        owner: Option<(u32, u32)>,
        mode: u32,
    ) -> Result<()> {
        self.put_new(path, "write", |directory, unfinished| {
            let mut file = File::from(openat(directory, unfinished, NEW_FILE, PRIVATE)?);
            self.cut.after_write();
            std::io::copy(&mut bytes, &mut file)?;
            self.cut.after_write();
            self.give(&file, owner, mode)?;
            Ok(file.sync_all()?)
        })
    }

    /// Puts a symbolic link in place in one step.
    pub(crate) fn put_link(&self, path: &str, target: &str) -> Result<()> {
        self.put_new(path, "make the link", |directory, unfinished| {
            symlinkat(target, directory, unfinished)?;
            self.cut.after_write();
            Ok(())
        })
    }

    /// Puts a directory in place in one step, with its owner and mode. An empty one that somebody made meanwhile is
    /// replaced, everything else stays.
    pub(crate) fn make_directory(&self, path: &str, owner: Option<(u32, u32)>, mode: u32) -> Result<()> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        self.put_new(path, "make the directory", |directory, unfinished| {
            mkdirat(directory, unfinished, Mode::S_IRWXU)?;
            self.cut.after_write();
            let handle = openat(directory, unfinished, flags, Mode::empty())?;
            if fstat(&handle)?.st_uid != self.me.as_raw() {
                return Err(Exit::CannotCreate.because("something else replaced it"));
            }
            self.give(&handle, owner, mode)
        })
    }

    /// Makes something beside a path and gives it its name once it is whole.
    fn put_new(&self, path: &str, verb: &str, mut make: impl FnMut(&OwnedFd, &OsStr) -> Result<()>) -> Result<()> {
        let place = self.place_for_writing(path)?;
        let unfinished = unfinished_name(&place.name);
        self.clear_unfinished(&place, path)?;
        let made = make(&place.directory, &unfinished).and_then(|()| self.name(&place, &unfinished));
        made.map_err(|why| {
            // The first failure is the one to tell; what is left of the new file goes with it.
            let _ = unlinkat(&place.directory, &*unfinished, UnlinkatFlags::NoRemoveDir);
            why.context(format!("can't {verb} {}", self.outside(path)))
        })
    }

    /// The path of a file that is needed while the program runs; its directory is made if it is missing.
    pub(crate) fn runtime_file(&self, name: &str) -> Result<String> {
        if self.stat(RUNTIME)?.is_none() {
            // Others may pass, to a file that is given to them.
            let made = self.make_directory(RUNTIME, Some((0, 0)), 0o711);
            // Another run may have been faster.
            if made.is_err() && self.stat(RUNTIME)?.is_none() {
                made?;
            }
        }
        Ok(format!("{RUNTIME}/{name}"))
    }

    /// Gives what is finished its name, for good.
    fn name(&self, place: &OpenedPlace, unfinished: &OsStr) -> Result<()> {
        let directory = &place.directory;
        renameat(directory, unfinished, directory, &*place.name)?;
        self.cut.after_write();
        Ok(sync_directory(directory)?)
    }

    /// Gives what stands at a path its owner and mode.
    pub fn set(&self, path: &str, owner: Option<(u32, u32)>, mode: Option<u32>) -> Result<()> {
        let place = self.place_for_writing(path)?;
        let handle = match openat(&place.directory, &*place.name, READING, Mode::empty()) {
            Ok(handle) => handle,
            // Our own directory or file that we shut ourselves out of, as an ordinary user.
            Err(Errno::EACCES) if place.trusted => return self.set_unopened(&place, path, mode),
            Err(why) => return Err(why).with_context(|| format!("can't open {}", self.outside(path))),
        };
        let stat = fstat(&handle)?;
        let now = entry_of_stat(&stat);
        if !place.trusted {
            let handed_over = now.kind == PathKind::Directory
                && SERVICE_ACCOUNTS.iter().any(|name| self.accounts.uid(name) == Some(now.uid));
            let rightful = now.uid == self.me.as_raw() || owner.is_some_and(|(uid, _)| uid == now.uid) || handed_over;
            let plain = now.kind == PathKind::Directory || stat.st_nlink == 1;
            if !plain || !rightful {
                return Err(Exit::CannotCreate.because(format!(
                    "{} belongs to {} and is in a directory that others can write to; it was not touched: move it away and run again",
                    self.outside(path),
                    self.accounts.owner_name(now.uid, now.gid)
                )));
            }
        }
        let mode = mode.unwrap_or(now.mode);
        let given = owner.filter(|o| *o != (now.uid, now.gid));
        let is_mine = |uid| uid == 0 || uid == self.me.as_raw();
        let taken_over =
            now.kind == PathKind::Directory && !is_mine(now.uid) && given.is_some_and(|(uid, _)| is_mine(uid));
        let done = match taken_over {
            true => self.take_over(&handle, given, mode, place.trusted),
            false => self.give(&handle, given, mode),
        };
        done.with_context(|| format!("can't set owner and mode of {}", self.outside(path)))
    }

    /// A directory of another account becomes root's: what that account put into it would be trusted from now on. Links
    /// of others go; where everybody can write to what the directory stands in, it held only temporary things, which
    /// all go. An interrupted run is seen by the mode, and begins again.
    fn take_over(&self, directory: &OwnedFd, owner: Option<(u32, u32)>, mode: u32, is_kept: bool) -> Result<()> {
        let unfinished = Mode::from_bits_truncate(mode | Mode::S_ISVTX.bits());
        fchmod(directory, unfinished)?;
        self.give(directory, owner, unfinished.bits())?;
        tree::sweep_tree(directory.as_fd(), self.me.as_raw(), is_kept)?;
        self.cut.after_write();
        fchmod(directory, Mode::from_bits_truncate(mode))?;
        self.cut.after_write();
        Ok(())
    }

    fn set_unopened(&self, place: &OpenedPlace, path: &str, mode: Option<u32>) -> Result<()> {
        let Some(mode) = mode else { return Ok(()) };
        let mode = Mode::from_bits_truncate(mode);
        fchmodat(&place.directory, &*place.name, mode, FchmodatFlags::FollowSymlink)
            .with_context(|| format!("can't set the mode of {}", self.outside(path)))?;
        self.cut.after_write();
        Ok(())
    }

    /// Gives a symbolic link its owner.
    pub(crate) fn set_link_owner(&self, path: &str, owner: (u32, u32)) -> Result<()> {
        let place = self.place_for_writing(path)?;
        #[cfg(test)]
        if super::script::is_on() {
            let name = Some(std::path::Path::new(&place.name));
            super::script::owns(place.directory.as_fd(), name, &self.accounts, owner, None);
            return Ok(());
        }
        fchownat(
            &place.directory,
            &*place.name,
            Some(Uid::from_raw(owner.0)),
            Some(Gid::from_raw(owner.1)),
            AtFlags::AT_SYMLINK_NOFOLLOW,
        )
        .with_context(|| format!("can't set the owner of {}", self.outside(path)))?;
        self.cut.after_write();
        Ok(())
    }

    /// Removes a file or a link; nothing there is as good.
    pub(crate) fn remove_file(&self, path: &str) -> Result<()> {
        let Some(place) = self.place(path)? else {
            return Ok(());
        };
        self.discard(&place, &place.name).with_context(|| format!("can't remove {}", self.outside(path)))
    }

    /// Removes a directory if it is empty; says whether it is gone.
    pub(crate) fn remove_directory(&self, path: &str) -> Result<bool> {
        let Some(place) = self.place(path)? else {
            return Ok(true);
        };
        match unlinkat(&place.directory, &*place.name, UnlinkatFlags::RemoveDir) {
            Ok(()) => {
                self.cut.after_write();
                Ok(true)
            }
            Err(Errno::ENOENT) => Ok(true),
            Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::EBUSY) => Ok(false),
            Err(why) => Err(why).with_context(|| format!("can't remove {}", self.outside(path))),
        }
    }

    /// Moves something within a tree in one step.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<()> {
        let (old, new) = (self.place_for_writing(from)?, self.place_for_writing(to)?);
        renameat(&old.directory, &*old.name, &new.directory, &*new.name)
            .with_context(|| format!("can't move {} to {}", self.outside(from), self.outside(to)))?;
        self.cut.after_write();
        Ok(sync_directory(&new.directory)?)
    }

    /// Removes what an interrupted write may have left beside a path.
    pub(crate) fn remove_unfinished(&self, path: &str) -> Result<()> {
        self.place(path)?.map_or(Ok(()), |place| self.clear_unfinished(&place, path))
    }

    /// Makes a file that was not there before, for root alone, to be written bit by bit.
    pub(crate) fn new_file(&self, path: &str) -> Result<File> {
        let place = self.place_for_writing(path)?;
        let file = openat(&place.directory, &*place.name, NEW_FILE, PRIVATE)
            .with_context(|| format!("can't make {}", self.outside(path)))?;
        self.cut.after_write();
        Ok(File::from(file))
    }

    /// Opens a file for reading and appending, the same file that later calls of the same path see.
    pub(crate) fn open_for_appending(&self, path: &str) -> Result<Option<File>> {
        let Some(place) = self.place(path)? else {
            return Ok(None);
        };
        let flags = OFlag::O_RDWR | OFlag::O_APPEND | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(&place.directory, &*place.name, flags, Mode::empty()) {
            Ok(handle) => Ok(Some(File::from(handle))),
            Err(Errno::ENOENT) => Ok(None),
            Err(why) => Err(why).with_context(|| format!("can't open {}", self.outside(path))),
        }
    }

    /// The same for one that may not be there yet: then it is made, for its owner alone.
    pub(crate) fn create_for_appending(&self, path: &str) -> Result<File> {
        let place = self.place_for_writing(path)?;
        let flags = OFlag::O_RDWR | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let handle = openat(&place.directory, &*place.name, flags, PRIVATE)
            .with_context(|| format!("can't open {}", self.outside(path)))?;
        sync_directory(&place.directory)?;
        Ok(File::from(handle))
    }

    /// Takes away what a file has beyond a length.
    pub(crate) fn shorten(&self, file: &File, length: u64) -> Result<()> {
        Ok(file.set_len(length)?)
    }

    /// Appends whole lines to a file and makes them last.
    pub(crate) fn append(&self, file: &File, lines: &str) -> Result<()> {
        let mut writer = file;
        writer.write_all(lines.as_bytes())?;
        self.cut.after_write();
        Ok(file.sync_data()?)
    }

    fn clear_unfinished(&self, place: &OpenedPlace, path: &str) -> Result<()> {
        self.discard(place, &unfinished_name(&place.name)).map_err(|why| match why.downcast_ref() {
            // An interrupted run leaves a file, a link or an empty directory.
            Some(Errno::ENOTEMPTY | Errno::EEXIST) => Exit::CannotCreate.because(format!(
                "{} is a directory of another account where {} would be created; move it away and run again",
                self.outside(&unfinished_path(path)),
                self.outside(path)
            )),
            _ => why.context(format!("can't make {}", self.outside(path))),
        })
    }

    fn discard(&self, place: &OpenedPlace, name: &OsStr) -> Result<()> {
        let removed = match unlinkat(&place.directory, name, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::EISDIR) => unlinkat(&place.directory, name, UnlinkatFlags::RemoveDir),
            other => other,
        };
        match removed {
            Ok(()) => {
                self.cut.after_write();
                Ok(sync_directory(&place.directory)?)
            }
            Err(Errno::ENOENT) => Ok(()),
            Err(why) => Err(why.into()),
        }
    }

    fn give(&self, handle: impl AsFd, owner: Option<(u32, u32)>, mode: u32) -> Result<()> {
        let handle = handle.as_fd();
        let now = fstat(handle)?;
        let given = owner.filter(|owner| *owner != (now.st_uid, now.st_gid));
        #[cfg(test)]
        let given = given.filter(|owner| {
            let mode = Some(mode);
            !super::script::is_on() || super::script::owns(handle, None, &self.accounts, *owner, mode)
        });
        if let Some((uid, gid)) = given.filter(|_| self.is_root()) {
            fchown(handle, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            self.cut.after_write();
        }
        // After the owner: changing that one clears the set-id bits.
        fchmod(handle, Mode::from_bits_truncate(mode))?;
        self.cut.after_write();
        Ok(())
    }
}

/// Makes what was done in a directory last.
pub(super) fn sync_directory(directory: &OwnedFd) -> nix::Result<()> {
    match openat(directory, ".", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(readable) => fsync(readable),
        // One may write to it without being allowed to list it.
        Err(Errno::EACCES) => Ok(()),
        Err(why) => Err(why),
    }
}

/// The path beside another one under which the next thing to stand there is made.
pub(crate) fn unfinished_path(path: &str) -> String {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    format!("{directory}/{}", unfinished_name(OsStr::new(name)).display())
}

/// The name of the file whose next content this is, which a killed run left; nothing if it is none.
pub(crate) fn finished_name(name: &str) -> Option<&str> {
    name.strip_prefix('.')?.strip_suffix(".camcops-provision")
}

/// The name beside a file under which its next content is written.
fn unfinished_name(name: &OsStr) -> OsString {
    let mut unfinished = OsString::from(".");
    unfinished.push(name);
    unfinished.push(".camcops-provision");
    unfinished
}
