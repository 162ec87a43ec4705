//! Reading what stands at a path.

use super::walk::MOST_LINKS;
use super::{Host, PathInfo, PathKind, entry_of_stat};
use crate::base::error::Exit;
use anyhow::{Context, Error, Result, bail};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, fstat, fstatat};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

/// No file that this program manages is larger.
const LARGEST_FILE: u64 = 64 << 20;
/// Non-blocking, so that a pipe put here by somebody can't hold the program up.
pub(super) const READING: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_NOFOLLOW).union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY).union(OFlag::O_CLOEXEC);

impl Host {
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
        let file = match openat(&place.directory, &*place.name, READING, Mode::empty()) {
            Ok(handle) => File::from(handle),
            Err(Errno::ENOENT) => return Ok(None),
            // A link, or a socket: there, but nothing to read. And an ordinary user may have shut itself out of its own
            // staged tree: that is a difference, not a failure.
            Err(Errno::ELOOP | Errno::ENXIO) => return Ok(self.stat(path)?.map(|entry| (entry, None))),
            Err(Errno::EACCES) if self.staged.is_some() => return Ok(self.stat(path)?.map(|entry| (entry, None))),
            Err(why) => return Err(self.unreadable(path, why)),
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
        file.take(LARGEST_FILE).read_to_end(&mut bytes).map_err(|why| self.unreadable(path, why))?;
        Ok(Some((entry, Some(bytes))))
    }

    fn unreadable(&self, path: &str, why: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::new(why).context(format!("can't read {}", self.outside(path)))
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
            "{} is a symbolic link that is not followed: other accounts can change its target, or it is dangling",
            self.outside(&path)
        )))
    }

    /// A file's text; a file that is not UTF-8 is an error that names it.
    pub(crate) fn read_text(&self, path: &str) -> Result<Option<String>> {
        let foreign = |_| Exit::Unusable.because(format!("{} is not UTF-8 text", self.outside(path)));
        self.read(path)?.map(|bytes| String::from_utf8(bytes).map_err(foreign)).transpose()
    }

    /// Where a symbolic link points.
    pub(crate) fn read_link(&self, path: &str) -> Result<Option<String>> {
        let Some(place) = self.place(path)? else {
            return Ok(None);
        };
        match readlinkat(&place.directory, &*place.name) {
            Ok(target) => Ok(Some(target.to_string_lossy().into_owned())),
            Err(Errno::ENOENT | Errno::EINVAL) => Ok(None),
            Err(why) => Err(self.unreadable(path, why)),
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

    /// What a directory is, behind links that only root could have made; nothing if there is none.
    pub(crate) fn look_into(&self, path: &str) -> Result<Option<PathInfo>> {
        self.directory(path)?.map(|handle| Ok(entry_of_stat(&fstat(handle)?))).transpose()
    }

    /// Opens a directory of this tree, following links that only root could have made.
    pub(crate) fn directory(&self, path: &str) -> Result<Option<OwnedFd>> {
        if path == "/" {
            return Ok(Some(self.root.try_clone()?));
        }
        let place = self.place(&format!("{}/.", path.trim_end_matches('/')))?;
        Ok(place.map(|place| place.directory))
    }

    /// Opens a regular file for reading; nothing if there is none.
    pub(crate) fn open_file(&self, path: &str) -> Result<Option<(PathInfo, File)>> {
        let Some(place) = self.place(path)? else {
            return Ok(None);
        };
        let file = match openat(&place.directory, &*place.name, READING, Mode::empty()) {
            Ok(handle) => File::from(handle),
            Err(Errno::ENOENT | Errno::ELOOP | Errno::ENXIO) => return Ok(None),
            Err(why) => return Err(self.unreadable(path, why)),
        };
        let entry = entry_of_stat(&fstat(&file)?);
        Ok((entry.kind == PathKind::File).then_some((entry, file)))
    }
}
