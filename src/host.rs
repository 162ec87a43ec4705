//! The machine: the only place that writes to it or starts a process on it.
//!
//! Every path is walked from a directory handle, one component at a time, and a symbolic link is followed only where
//! nobody but root (or whoever runs the program) could have put it. So an unprivileged account that owns a directory
//! in the way can't make root write elsewhere: it is refused, and the path is named.

mod child;
mod flow;
mod tree;
mod trust;

use crate::base::error::Exit;
use crate::host::accounts::Accounts;
use crate::host::cut::Cut;
use crate::layout::{RUNTIME, SERVICE_ACCOUNTS};
use anyhow::{Context, Result, bail};
pub(crate) use child::{Begun, Child, Ended};
pub(crate) use flow::{Ends, Flow};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, fsync, geteuid, symlinkat, unlinkat};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use walk::{HANDLE, MOST_LINKS, OpenedPlace};

/// No file that this program manages is larger.
const LARGEST_FILE: u64 = 64 << 20;

pub(crate) mod accounts;
pub(crate) mod cut;
pub mod export_locks;
pub(crate) mod lock;
pub(crate) mod named_file;
pub(crate) mod own_program;
pub(crate) mod processes;
pub(crate) mod pty;
#[cfg(test)]
pub(crate) mod script;
pub(crate) mod secrets;
pub(crate) mod take_over;
mod walk;

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
                .because(format!("--root {}: {why}; make the directory first, it may be empty", root.display()))
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

    /// What a directory is, behind links that only root could have made; nothing if there is none.
    pub(crate) fn look_into(&self, path: &str) -> Result<Option<PathInfo>> {
        self.directory(path)?.map(|handle| Ok(entry_of_stat(&fstat(handle)?))).transpose()
    }

    /// The path as the administrator sees it from outside of a staged tree.
    pub(crate) fn outside(&self, path: &str) -> String {
        match &self.staged {
            Some(root) => format!("{}{path}", root.display()),
            None => path.to_owned(),
        }
    }

    // Reading.

    /// What stands at a path, itself and not what it points to; nothing if it or its directory is missing.
    pub(crate) fn stat(&self, path: &str) -> Result<Option<PathInfo>> {
        let Some(place) = self.place(path)? else {
            return Ok(None);
        };
        match fstatat(&place.directory, &*place.name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(entry_of_stat(&stat))),
            Err(Errno::ENOENT) => Ok(None),
            Err(why) => Err(why).with_context(|| format!("can't look at {}", self.outside(path))),
        }
    }

    /// The bytes of a regular file; nothing if there is no regular file.
    pub(crate) fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.look_and_read(path)?.and_then(|(_, bytes)| bytes))
    }

    /// What stands at a path and, if it is a regular file, its bytes, in one look.
    pub(crate) fn look_and_read(&self, path: &str) -> Result<Option<(PathInfo, Option<Vec<u8>>)>> {
        let Some(place) = self.place(path)? else {
            return Ok(None);
        };
        // Non-blocking, so that a pipe put here by somebody can't hold the program up.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let file = match openat(&place.directory, &*place.name, flags, Mode::empty()) {
            Ok(handle) => File::from(handle),
            Err(Errno::ENOENT) => return Ok(None),
            // A link, or a socket: there, but nothing to read.
            Err(Errno::ELOOP | Errno::ENXIO) => {
                return Ok(self.stat(path)?.map(|entry| (entry, None)));
            }
            // An ordinary user may have shut itself out of its own staged tree: that is a difference, not a failure.
            Err(Errno::EACCES) if self.staged.is_some() => {
                return Ok(self.stat(path)?.map(|entry| (entry, None)));
            }
            Err(why) => {
                return Err(why).with_context(|| format!("can't read {}", self.outside(path)));
            }
        };
        let stat = fstat(&file)?;
        let entry = entry_of_stat(&stat);
        if entry.kind != PathKind::File {
            return Ok(Some((entry, None)));
        }
        let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        if size > LARGEST_FILE {
            bail!("{} has {size} bytes, far more than expected; move it away", self.outside(path));
        }
        let mut bytes = Vec::with_capacity(size as usize + 1);
        file.take(LARGEST_FILE)
            .read_to_end(&mut bytes)
            .with_context(|| format!("can't read {}", self.outside(path)))?;
        Ok(Some((entry, Some(bytes))))
    }

    /// The path of what stands at the end of symbolic links that only root could have made: of a certificate, say.
    pub(crate) fn followed(&self, path: &str) -> Result<String> {
        let mut path = path.to_owned();
        for _ in 0..MOST_LINKS {
            let Some(place) = self.place(&path)? else {
                return Ok(path);
            };
            let Some(target) = self.read_link(&path)? else {
                return Ok(path);
            };
            if !place.trusted {
                break;
            }
            path = match (target.starts_with('/'), path.rsplit_once('/')) {
                (false, Some((directory, _))) => format!("{directory}/{target}"),
                _ => target,
            };
        }
        Err(Exit::CannotCreate.because(format!(
            "{} is a symbolic link that is not followed: others can change where it leads, or it leads nowhere",
            self.outside(&path)
        )))
    }

    /// A file's text; a file that is not UTF-8 is an error that names it.
    pub(crate) fn read_text(&self, path: &str) -> Result<Option<String>> {
        self.read(path)?
            .map(|bytes| {
                String::from_utf8(bytes)
                    .map_err(|_| Exit::Unusable.because(format!("{} is not UTF-8 text", self.outside(path))))
            })
            .transpose()
    }

    /// Where a symbolic link points.
    pub(crate) fn read_link(&self, path: &str) -> Result<Option<String>> {
        let Some(place) = self.place(path)? else {
            return Ok(None);
        };
        match readlinkat(&place.directory, &*place.name) {
            Ok(target) => Ok(Some(target.to_string_lossy().into_owned())),
            Err(Errno::ENOENT | Errno::EINVAL) => Ok(None),
            Err(why) => Err(why).with_context(|| format!("can't read {}", self.outside(path))),
        }
    }

    /// The names in a directory, sorted; nothing if there is no such directory.
    pub(crate) fn list(&self, path: &str) -> Result<Option<Vec<String>>> {
        let Some(handle) = self.directory(path)? else {
            return Ok(None);
        };
        let readable = openat(&handle, ".", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
            .with_context(|| format!("can't list {}", self.outside(path)))?;
        let mut names = Vec::new();
        for item in Dir::from_fd(readable)?.iter() {
            let name = item?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort();
        Ok(Some(names))
    }

    // Writing.

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
        let place = self.place_for_writing(path)?;
        let unfinished = unfinished_name(&place.name);
        self.clear_unfinished(&place, path)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let private = Mode::S_IRUSR | Mode::S_IWUSR;
        let mut write = || -> Result<()> {
            let mut file = File::from(openat(&place.directory, &*unfinished, flags, private)?);
            self.cut.after_write();
            std::io::copy(&mut bytes, &mut file)?;
            self.cut.after_write();
            self.give(&file, owner, mode)?;
            file.sync_all()?;
            self.name(&place, &unfinished)
        };
        write().map_err(|why| {
            // The first failure is the one to tell; what is left of the new file goes with it.
            let _ = unlinkat(&place.directory, &*unfinished, UnlinkatFlags::NoRemoveDir);
            why.context(format!("can't write {}", self.outside(path)))
        })
    }

    /// Puts a symbolic link in place in one step.
    pub(crate) fn put_link(&self, path: &str, target: &str) -> Result<()> {
        let place = self.place_for_writing(path)?;
        let unfinished = unfinished_name(&place.name);
        self.clear_unfinished(&place, path)?;
        let write = || -> Result<()> {
            symlinkat(target, &place.directory, &*unfinished)?;
            self.cut.after_write();
            self.name(&place, &unfinished)
        };
        write().with_context(|| format!("can't make the link {}", self.outside(path)))
    }

    /// Puts a directory in place in one step, with its owner and mode.
    pub(crate) fn make_directory(&self, path: &str, owner: Option<(u32, u32)>, mode: u32) -> Result<()> {
        let place = self.place_for_writing(path)?;
        let unfinished = unfinished_name(&place.name);
        self.clear_unfinished(&place, path)?;
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let make = || -> Result<()> {
            mkdirat(&place.directory, &*unfinished, Mode::S_IRWXU)?;
            self.cut.after_write();
            let handle = openat(&place.directory, &*unfinished, flags, Mode::empty())?;
            if fstat(&handle)?.st_uid != self.me.as_raw() {
                return Err(Exit::CannotCreate.because("somebody else put another one in its place"));
            }
            self.give(&handle, owner, mode)?;
            // An empty directory that somebody made meanwhile is replaced, everything else stays.
            self.name(&place, &unfinished)
        };
        make().with_context(|| format!("can't make the directory {}", self.outside(path)))
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
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let opened = openat(&place.directory, &*place.name, flags, Mode::empty());
        let handle = match opened {
            Ok(handle) => handle,
            // Our own directory or file that we shut ourselves out of, as an ordinary user.
            Err(Errno::EACCES) if place.trusted => return self.set_unopened(&place, path, mode),
            Err(why) => {
                return Err(why).with_context(|| format!("can't open {}", self.outside(path)));
            }
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
                    "{} belongs to {} and stands in a directory that others can write to; it is left alone: move it away and run again",
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
        nix::sys::stat::fchmodat(
            &place.directory,
            &*place.name,
            Mode::from_bits_truncate(mode),
            nix::sys::stat::FchmodatFlags::FollowSymlink,
        )
        .with_context(|| format!("can't set the mode of {}", self.outside(path)))?;
        self.cut.after_write();
        Ok(())
    }

    /// Gives a symbolic link its owner.
    pub(crate) fn set_link_owner(&self, path: &str, owner: (u32, u32)) -> Result<()> {
        let place = self.place_for_writing(path)?;
        #[cfg(test)]
        if script::is_on() {
            let name = Some(Path::new(&place.name));
            script::owns(place.directory.as_fd(), name, &self.accounts, owner, None);
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
        sync_directory(&new.directory)?;
        Ok(())
    }

    /// Removes what an interrupted write may have left beside a path.
    pub(crate) fn remove_unfinished(&self, path: &str) -> Result<()> {
        match self.place(path)? {
            Some(place) => self.clear_unfinished(&place, path),
            None => Ok(()),
        }
    }

    /// Makes a file that was not there before, for root alone, to be written bit by bit.
    pub(crate) fn new_file(&self, path: &str) -> Result<File> {
        let place = self.place_for_writing(path)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let private = Mode::S_IRUSR | Mode::S_IWUSR;
        let file = openat(&place.directory, &*place.name, flags, private)
            .with_context(|| format!("can't make {}", self.outside(path)))?;
        self.cut.after_write();
        Ok(File::from(file))
    }

    /// Opens a regular file for reading; nothing if there is none.
    pub(crate) fn open_file(&self, path: &str) -> Result<Option<(PathInfo, File)>> {
        let Some(place) = self.place(path)? else {
            return Ok(None);
        };
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = match openat(&place.directory, &*place.name, flags, Mode::empty()) {
            Ok(handle) => File::from(handle),
            Err(Errno::ENOENT | Errno::ELOOP | Errno::ENXIO) => return Ok(None),
            Err(why) => {
                return Err(why).with_context(|| format!("can't read {}", self.outside(path)));
            }
        };
        let entry = entry_of_stat(&fstat(&file)?);
        Ok((entry.kind == PathKind::File).then_some((entry, file)))
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

    /// Appends whole lines to a file and makes them last.
    pub(crate) fn append(&self, file: &File, lines: &str) -> Result<()> {
        let mut writer = file;
        writer.write_all(lines.as_bytes())?;
        self.cut.after_write();
        file.sync_data()?;
        Ok(())
    }

    /// The test's scissors, for the journal's own points.
    pub(crate) fn cut(&self) -> &Cut {
        &self.cut
    }

    /// Opens a directory of this tree, following links that only root could have made.
    pub(crate) fn directory(&self, path: &str) -> Result<Option<OwnedFd>> {
        if path == "/" {
            return Ok(Some(self.root.try_clone()?));
        }
        let Some(place) = self.place(&format!("{}/.", path.trim_end_matches('/')))? else {
            return Ok(None);
        };
        Ok(Some(place.directory))
    }

    /// Runs a program of this machine to its end, without input; the end of its complaint is in the error.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        self.child(program).args(arguments).run()?;
        Ok(())
    }

    fn clear_unfinished(&self, place: &OpenedPlace, path: &str) -> Result<()> {
        self.discard(place, &unfinished_name(&place.name)).map_err(|why| match why.downcast_ref() {
            // An interrupted run leaves a file, a link or an empty directory.
            Some(Errno::ENOTEMPTY | Errno::EEXIST) => Exit::CannotCreate.because(format!(
                "{} is a directory of somebody else where {} would be made; move it away and run again",
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
                sync_directory(&place.directory)?;
                Ok(())
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
            !script::is_on() || script::owns(handle, None, &self.accounts, *owner, mode)
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
fn sync_directory(directory: &OwnedFd) -> nix::Result<()> {
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
