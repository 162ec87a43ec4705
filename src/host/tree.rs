//! Whole trees: made elsewhere, put in place in one step, removed without following a link.

use super::Host;
use super::write::sync_directory;
use anyhow::{Context, Result, bail};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat2};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat};
use nix::sys::statvfs::{Statvfs, fstatvfs, statvfs};
use nix::unistd::{UnlinkatFlags, syncfs, unlinkat};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A process that was just killed may still finish a file in a tree that is being removed.
const ATTEMPTS: u32 = 20;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

impl Host {
    /// Removes what stands at a path with all that is in it; nothing there is as good. Links go as links, and another
    /// file system that is mounted inside is refused.
    pub(crate) fn remove_tree(&self, path: &str) -> Result<()> {
        let Some(place) = self.place(path)? else {
            return Ok(());
        };
        let device = fstat(&place.directory)?.st_dev;
        for attempt in 1.. {
            match remove_tree(place.directory.as_fd(), &place.name, device) {
                Err(Errno::ENOTEMPTY) if attempt < ATTEMPTS => std::thread::sleep(PAUSE),
                Err(Errno::EXDEV) => {
                    bail!("{}: another file system is mounted in it; unmount that and run again", self.outside(path))
                }
                other => {
                    other.with_context(|| format!("can't remove {}", self.outside(path)))?;
                    break;
                }
            }
        }
        self.cut.after_write();
        Ok(sync_directory(&place.directory)?)
    }

    /// What a tree takes on the disk, in bytes; nothing there takes nothing. What has several names is counted once.
    pub(crate) fn tree_size(&self, path: &str) -> Result<u64> {
        let Some(place) = self.place(path)? else {
            return Ok(0);
        };
        tree_size(place.directory.as_fd(), &place.name, &mut BTreeSet::new())
            .with_context(|| format!("can't measure {}", self.outside(path)))
    }

    /// Lets two things of one file system change places in one step.
    pub(crate) fn exchange(&self, one: &str, other: &str) -> Result<()> {
        let (first, second) = (self.place_for_writing(one)?, self.place_for_writing(other)?);
        renameat2(&first.directory, &*first.name, &second.directory, &*second.name, RenameFlags::RENAME_EXCHANGE)
            .with_context(|| format!("can't exchange {} and {}", self.outside(one), self.outside(other)))?;
        self.cut.after_write();
        Ok(sync_directory(&first.directory)?)
    }

    /// Makes everything on the file system of a directory last.
    pub(crate) fn sync_file_system(&self, directory: &str) -> Result<()> {
        let handle = self.readable(directory)?;
        syncfs(&handle).with_context(|| format!("can't sync {}", self.outside(directory)))
    }

    /// What the file system of a directory has, and has left.
    pub(crate) fn space(&self, directory: &str) -> Result<DiskSpace> {
        let told = fstatvfs(&self.readable(directory)?);
        Ok(DiskSpace::of(told.with_context(|| format!("can't ask {} for space", self.outside(directory)))?))
    }

    fn readable(&self, directory: &str) -> Result<OwnedFd> {
        let handle =
            self.directory(directory)?.with_context(|| format!("{} does not exist", self.outside(directory)))?;
        Ok(openat(&handle, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
    }
}

/// What a file system has, and what it has left for everybody.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DiskSpace {
    pub(crate) bytes: u64,
    pub(crate) free_bytes: u64,
    /// None where files are not counted.
    pub(crate) inodes: u64,
    pub(crate) free_inodes: u64,
}

impl DiskSpace {
    /// That of a path of this machine, behind links.
    pub(crate) fn at(path: &Path) -> Result<DiskSpace> {
        Ok(DiskSpace::of(statvfs(path)?))
    }

    fn of(told: Statvfs) -> DiskSpace {
        let size = |blocks: u64| blocks.saturating_mul(told.fragment_size());
        DiskSpace {
            bytes: size(told.blocks()),
            free_bytes: size(told.blocks_available()),
            inodes: told.files(),
            free_inodes: told.files_available(),
        }
    }
}

fn tree_size(directory: BorrowedFd<'_>, name: &OsStr, seen: &mut BTreeSet<u64>) -> nix::Result<u64> {
    let found = match fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Err(Errno::ENOENT) => return Ok(0),
        other => other?,
    };
    let own = u64::try_from(found.st_blocks).unwrap_or(0) * 512;
    if found.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFDIR.bits() {
        let again = found.st_nlink > 1 && !seen.insert(found.st_ino);
        return Ok(if again { 0 } else { own });
    }
    let (inside, names) = open_tree(directory, name)?;
    let mut sum = own;
    for name in &names {
        sum += tree_size(inside.as_fd(), name, seen)?;
    }
    Ok(sum)
}

/// A directory and the names in it.
fn open_tree(directory: BorrowedFd<'_>, name: &OsStr) -> nix::Result<(Dir, Vec<OsString>)> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut inside = Dir::from_fd(openat(directory, name, flags, Mode::empty())?)?;
    let mut names: Vec<OsString> = Vec::new();
    for entry in inside.iter() {
        let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    Ok((inside, names))
}

/// Removes what others put into a directory that they can't write to any more: their links, or all that is theirs and
/// what they gave another name there.
pub(super) fn sweep_tree(directory: BorrowedFd<'_>, me: u32, links_only: bool) -> nix::Result<()> {
    let (inside, names) = open_tree(directory, OsStr::new("."))?;
    let device = fstat(&inside)?.st_dev;
    for name in &names {
        let found = fstatat(&inside, &**name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let is_link = found.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFLNK.bits();
        let is_directory = found.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits();
        let is_theirs = found.st_uid != 0 && found.st_uid != me;
        // Its owner does not say who linked it there.
        let has_names = !is_directory && found.st_nlink > 1;
        if (is_theirs && is_link) || (!links_only && (is_theirs || has_names)) {
            remove_tree(inside.as_fd(), name, device)?;
        }
    }
    Ok(())
}

fn remove_tree(directory: BorrowedFd<'_>, name: &OsStr, device: u64) -> nix::Result<()> {
    match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(()),
        Err(Errno::EISDIR | Errno::EPERM) => {}
        Err(why) => return Err(why),
    }
    let (inside, names) = open_tree(directory, name)?;
    if fstat(&inside)?.st_dev != device {
        return Err(Errno::EXDEV);
    }
    for name in &names {
        remove_tree(inside.as_fd(), name, device)?;
    }
    match unlinkat(directory, name, UnlinkatFlags::RemoveDir) {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_tree_goes_and_what_its_links_lead_to_stays() {
        let home = tempfile::tempdir().unwrap();
        let at = |path: &str| home.path().join(path);
        fs::create_dir_all(at("tree/a/b")).unwrap();
        fs::create_dir(at("kept")).unwrap();
        fs::write(at("kept/file"), "kept").unwrap();
        fs::write(at("kept/large"), vec![1; 1 << 17]).unwrap();
        fs::write(at("tree/a/b/file"), "gone").unwrap();
        symlink(at("kept"), at("tree/a/link")).unwrap();
        symlink(at("kept/file"), at("tree/link")).unwrap();
        let host = Host::staged(home.path()).unwrap();
        // Not what a link leads to.
        let size = host.tree_size("/tree").unwrap();
        assert!(size > 0 && size < 1 << 16, "{size}");
        assert_eq!(host.tree_size("/none").unwrap(), 0);
        host.remove_tree("/tree").unwrap();
        host.remove_tree("/tree").unwrap();
        assert!(!at("tree").exists());
        assert_eq!(fs::read_to_string(at("kept/file")).unwrap(), "kept");
        symlink(at("kept"), at("link")).unwrap();
        host.remove_tree("/link").unwrap();
        assert!(at("kept/file").exists() && !at("link").exists());
    }

    #[test]
    fn two_trees_change_places() {
        let home = tempfile::tempdir().unwrap();
        for name in ["one", "two"] {
            fs::create_dir(home.path().join(name)).unwrap();
            fs::write(home.path().join(name).join("name"), name).unwrap();
        }
        let host = Host::staged(home.path()).unwrap();
        host.exchange("/one", "/two").unwrap();
        assert_eq!(host.read_text("/one/name").unwrap().unwrap(), "two");
        assert_eq!(host.read_text("/two/name").unwrap().unwrap(), "one");
    }
}
