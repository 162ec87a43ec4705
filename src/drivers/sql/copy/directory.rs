//! The directory that holds copies of a database, and the moments in their names.

use crate::base::error::Exit;
use crate::drivers::sql::copy::place::missing_mount;
use crate::host::Host;
use crate::layout::{self, HOME};
use anyhow::Result;
use std::os::unix::fs::MetadataExt;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

/// The file that remembers where backups are.
pub(crate) const DIRECTORY: &str = "backups-in";

/// What it says of a directory that is not on the file system of the machine itself.
pub(crate) const MOUNTED: &str = "mounted";

/// Sees to it that a directory for backups and dumps is there, that nobody else can change it, and that it is the one
/// that it was: a share that is not mounted is not replaced by what is below it.
pub(crate) fn enter_directory(host: &Host, instance: &str, directory: &str) -> Result<()> {
    if let Some(why) = explain_absence(host, instance, directory)? {
        return Err(Exit::Io.because(why));
    }
    match host.look_into(directory)? {
        None => {
            for (end, _) in directory.match_indices('/').skip(1) {
                if host.look_into(&directory[..end])?.is_none() {
                    host.make_directory(&directory[..end], Some((0, 0)), 0o755)?;
                }
            }
            host.make_directory(directory, Some((0, 0)), 0o700)?;
        }
        Some(entry) if host.is_ours(&entry) => {}
        Some(_) => {
            return Err(Exit::CannotCreate.because(format!(
                "backup.directory: accounts other than root can change {directory}, but backups contain every secret of the site: chown root:root and chmod 700 it, or choose another one"
            )));
        }
    }
    Ok(())
}

/// Why a directory for backups is not the one that it should be: what it is on is not mounted.
pub(crate) fn explain_absence(host: &Host, instance: &str, directory: &str) -> Result<Option<String>> {
    if let Some(point) = missing_mount(host, directory)? {
        return Ok(Some(format!(
            "backup.directory {directory} is not mounted: nothing is mounted at {point}; run `mount {point}`"
        )));
    }
    let remembered = host.read_text(&layout::path_beside_journal(instance, DIRECTORY))?;
    let remembered = remembered.as_deref().and_then(|text| text.split_once('\n'));
    let Some((_, on)) = remembered.filter(|(place, _)| *place == directory) else {
        return Ok(None);
    };
    let is_there = host.look_into(directory)?.is_some();
    if is_there && (on != MOUNTED || is_mounted(host, directory)?) {
        return Ok(None);
    }
    Ok(Some(format!(
        "backup.directory {directory} had backups, but is missing now: mount its file system; if it is gone for good, `rm {}` and run again",
        layout::path_beside_journal(instance, DIRECTORY)
    )))
}

/// Whether there were backups in a directory.
pub(crate) fn had_backups(host: &Host, instance: &str, directory: &str) -> Result<bool> {
    let remembered = host.read_text(&layout::path_beside_journal(instance, DIRECTORY))?;
    Ok(remembered.is_some_and(|text| text.split('\n').next() == Some(directory)))
}

/// Remembers where backups are, and whether that is on a file system of its own.
pub(crate) fn remember_directory(host: &Host, instance: &str, directory: &str) -> Result<()> {
    if host.look_into(&format!("{HOME}/{instance}"))?.is_none() {
        return Ok(());
    }
    let on = match is_mounted(host, directory)? {
        true => MOUNTED,
        false => "",
    };
    let (path, text) = (layout::path_beside_journal(instance, DIRECTORY), format!("{directory}\n{on}"));
    match host.read_text(&path)? {
        Some(before) if before == text => Ok(()),
        _ => host.put_file(&path, text.as_bytes(), Some((0, 0)), 0o600),
    }
}

pub(crate) fn is_mounted(host: &Host, directory: &str) -> Result<bool> {
    let device = |path: &str| std::fs::metadata(host.outside(path)).map(|data| data.dev());
    Ok(device(directory)? != device("/")?)
}

/// The moment as names have it.
pub(crate) fn time_stamp() -> Result<String> {
    Ok(OffsetDateTime::now_utc().format(format_description!("[year][month][day]T[hour][minute][second]Z"))?)
}

/// The moment that a name has.
pub(crate) fn parse_stamp(stamp: &str) -> Option<OffsetDateTime> {
    let form = format_description!("[year][month][day]T[hour][minute][second]Z");
    let moment = PrimitiveDateTime::parse(stamp, form).ok()?;
    Some(moment.assume_utc())
}
