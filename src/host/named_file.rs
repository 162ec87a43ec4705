//! Files that the caller names on the command line: settings, pages, a plan. They are the caller's own, so links are
//! followed as other programs follow them, unless the file is one that root replaces.

use crate::base::error::Exit;
use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// Opened for reading, so that a pipe or a terminal of that name can't hold the program up.
pub(crate) fn open_at_once(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)
}

/// Writes a file as any program would.
pub(crate) fn write_output(file: &Path, content: &[u8]) -> io::Result<()> {
    fs::write(file, content)
}

/// Makes a directory, and those above it.
pub(crate) fn create_directory(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)
}

pub(crate) fn remove_file(file: &Path) -> io::Result<()> {
    fs::remove_file(file)
}

/// Replaces the administrator's file in one step; its mode and owner stay, and a link leads where it led.
pub(crate) fn replace_file(file: &Path, text: &str) -> Result<()> {
    let file = &follow_link(file)?;
    let new = hidden_beside(file, "new");
    write_private(&new, text)?;
    let mut mode = 0o640;
    if let Ok(old) = fs::metadata(file) {
        mode = old.mode() & 0o7777;
        chown(&new, Some(old.uid()), Some(old.gid()))
            .with_context(|| format!("can't keep the owner of {}", file.display()))?;
    }
    fs::set_permissions(&new, Permissions::from_mode(mode))?;
    fs::rename(&new, file).with_context(|| format!("can't write {}", file.display()))
}

/// Where a link leads, if nobody else can have put it there.
fn follow_link(file: &Path) -> Result<PathBuf> {
    if !fs::symlink_metadata(file).is_ok_and(|found| found.is_symlink()) {
        return Ok(file.to_owned());
    }
    let directory = file.parent().unwrap_or(Path::new("/"));
    let found = fs::metadata(directory)?;
    let is_own = [0, nix::unistd::geteuid().as_raw()].contains(&found.uid());
    if !is_own || found.mode() & 0o022 != 0 {
        return Err(Exit::CannotCreate.because(format!(
            "{} is a link in a directory that others can write to; it is not followed",
            file.display()
        )));
    }
    fs::canonicalize(file).with_context(|| format!("{} is a dangling link", file.display()))
}

/// A name in the same directory, so that it can take the place of the file in one step.
pub(crate) fn hidden_beside(file: &Path, what: &str) -> PathBuf {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    file.with_file_name(format!(".{name}.{what}"))
}

/// A new file that only its owner can read, in place of one of that name.
pub(crate) fn write_private(file: &Path, text: &str) -> Result<()> {
    let write = || -> io::Result<()> {
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory)?;
        }
        match fs::remove_file(file) {
            Err(why) if why.kind() != ErrorKind::NotFound => return Err(why),
            _ => {}
        }
        let mut handle = OpenOptions::new()
            .write(true)
            .create_new(true)
            // Until it is known who may read it.
            .mode(0o600)
            .open(file)?;
        handle.write_all(text.as_bytes())?;
        handle.sync_all()
    };
    write().with_context(|| format!("can't write {}", file.display()))
}
