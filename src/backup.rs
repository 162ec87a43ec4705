//! Backups: directories that hold a database and what else makes up a site, with their sums.
//!
//! A backup is built under another name beside its place, made to last, and renamed as the last step: what has a
//! backup's name is whole. It is only read after its sums were found to be right.

pub(crate) mod files;
pub(crate) mod make;
pub(crate) mod manifest;
pub(crate) mod retention;
pub(crate) mod summary;

use crate::archive::pack::sum_of;
use crate::base::error::Exit;
use crate::base::text::sha256_hex;
use crate::drivers::sql::copy::directory::parse_stamp;
use crate::host::{Host, PathKind};
use anyhow::Result;
use manifest::{BackupManifest, MANIFEST, SUMS};
use serde::Serialize;
use std::fs::File;
use time::OffsetDateTime;

/// The database in a backup.
pub(crate) const DATABASE: &str = "database.sql.zst";
/// What else makes up a site.
pub(crate) const FILES: &str = "files.tar.zst";
pub(crate) const DATABASE_ENCRYPTED: &str = "database.sql.zst.age";
pub(crate) const FILES_ENCRYPTED: &str = "files.tar.zst.age";
/// What is not finished ends with this.
pub(crate) const UNFINISHED: &str = ".unfinished";
/// No list of tables and files is larger.
const LARGEST_MANIFEST: u64 = 32 << 20;

/// What something in the directory of backups is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BackupKind {
    /// A whole backup.
    Backup,
    /// One that was never finished.
    Unfinished,
    /// A dump of the database alone, from before an upgrade or a purge.
    Dump,
}

/// Something in the directory of backups.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct BackupEntry {
    pub(crate) name: String,
    pub(crate) what: BackupKind,
    #[serde(serialize_with = "time::serde::rfc3339::serialize")]
    pub(crate) made_at: OffsetDateTime,
    pub(crate) bytes: u64,
    /// What it says of itself; its sums are not checked for that.
    #[serde(skip)]
    pub(crate) manifest: Option<BackupManifest>,
}

/// What is in the directory of backups of an instance, oldest first.
pub(crate) fn list_backups(host: &Host, directory: &str, slug: &str, database: &str) -> Result<Vec<BackupEntry>> {
    let mut all = Vec::new();
    for name in host.list(directory)?.unwrap_or_default() {
        let Some((what, made_at)) = parse_file_name(&name, slug, database) else {
            continue;
        };
        let path = format!("{directory}/{name}");
        let Some(entry) = host.stat(&path)? else {
            continue;
        };
        let is_right = match what {
            BackupKind::Backup => entry.kind == PathKind::Directory,
            BackupKind::Dump => entry.kind == PathKind::File,
            BackupKind::Unfinished => entry.kind != PathKind::Symlink,
        };
        if !is_right {
            continue;
        }
        let mut bytes = 0;
        let mut size = |path: &str| -> Result<()> {
            if let Some((_, file)) = host.open_file(path)? {
                bytes += file.metadata()?.len();
            }
            Ok(())
        };
        match entry.kind {
            PathKind::Directory => {
                for file in host.list(&path)?.unwrap_or_default() {
                    size(&format!("{path}/{file}"))?;
                }
            }
            _ => size(&path)?,
        }
        let manifest = match what {
            BackupKind::Backup => read_manifest(host, &path).ok(),
            _ => None,
        };
        all.push(BackupEntry { name, what, made_at, bytes, manifest });
    }
    all.sort_by(|one, other| (one.made_at, &one.name).cmp(&(other.made_at, &other.name)));
    Ok(all)
}

impl BackupEntry {
    /// Whether it is a backup of that instance that came to its end, by what it says of itself.
    pub(crate) fn is_whole(&self, instance: &str) -> bool {
        let manifest = self.manifest.as_ref();
        self.what == BackupKind::Backup && manifest.is_some_and(|manifest| manifest.instance == instance)
    }

    /// What it was made before, if that is why there is one.
    pub(crate) fn before(&self) -> Option<&str> {
        self.manifest.as_ref()?.before.as_deref()
    }
}

/// What a name says.
fn parse_file_name(name: &str, slug: &str, database: &str) -> Option<(BackupKind, OffsetDateTime)> {
    let (name, unfinished) = match name.strip_suffix(UNFINISHED) {
        Some(name) => (name, true),
        None => (name, false),
    };
    let either = |what| {
        if unfinished { BackupKind::Unfinished } else { what }
    };
    let of = |owner: &str| name.strip_prefix(owner)?.strip_prefix('-');
    if let Some(moment) = of(slug).and_then(parse_stamp) {
        return Some((either(BackupKind::Backup), moment));
    }
    let rest = of(database)?;
    let (stamp, more) = rest.split_once('-')?;
    let ends = [".sql", ".sql.zst", ".sql.zst.age"];
    let is_dump = more.contains("-before-") && ends.iter().any(|end| more.ends_with(end));
    is_dump.then_some((either(BackupKind::Dump), parse_stamp(stamp)?))
}

fn read_manifest(host: &Host, path: &str) -> Result<BackupManifest> {
    BackupManifest::parse(&read_small_file(host, path, MANIFEST)?, path)
}

fn read_small_file(host: &Host, path: &str, name: &str) -> Result<Vec<u8>> {
    use std::io::Read;
    let Some((_, file)) = host.open_file(&format!("{path}/{name}"))? else {
        return Err(unusable_backup(path, &format!("has no {name}")));
    };
    let mut bytes = Vec::new();
    file.take(LARGEST_MANIFEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn unusable_backup(path: &str, what: &str) -> anyhow::Error {
    Exit::Unusable.because(format!(
        "the backup {path} {what}: nothing was changed; use another one (`camcops-provision backup list` shows them)"
    ))
}

/// A backup whose sums were found to be right.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) path: String,
    pub(crate) manifest: BackupManifest,
    /// Its database, as it was summed: nobody can have exchanged it since.
    pub(crate) database: File,
    pub(crate) files: File,
}

/// Opens a backup and checks each sum.
pub(crate) fn open_backup(host: &Host, path: &str) -> Result<Opened> {
    let sums = read_small_file(host, path, SUMS)?;
    let Some(sums) = manifest::parse_sums(&sums) else {
        return Err(unusable_backup(path, &format!("has a damaged {SUMS}")));
    };
    let check = |name: &str, sum: &str| -> Result<()> {
        match sums.get(name).is_some_and(|wanted| wanted == sum) {
            true => Ok(()),
            false => Err(unusable_backup(path, &format!("is damaged: {name} does not match {SUMS}"))),
        }
    };
    let said = read_small_file(host, path, MANIFEST)?;
    check(MANIFEST, &sha256_hex(&said))?;
    let manifest = BackupManifest::parse(&said, path)?;
    let open = |plain: &str, encrypted: &str| -> Result<File> {
        let name = match &manifest.encrypted_to {
            Some(_) => encrypted,
            None => plain,
        };
        let Some((_, file)) = host.open_file(&format!("{path}/{name}"))? else {
            return Err(unusable_backup(path, &format!("has no {name}")));
        };
        check(name, &sum_of(&file)?.sha256)?;
        std::io::Seek::rewind(&mut &file)?;
        Ok(file)
    };
    let database = open(DATABASE, DATABASE_ENCRYPTED)?;
    let files = open(FILES, FILES_ENCRYPTED)?;
    Ok(Opened { path: path.to_owned(), manifest, database, files })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_it_is() {
        let what = |name: &str| parse_file_name(name, "camcops", "camcops").map(|(what, _)| what);
        for (name, expected) in [
            ("camcops-20261121T101500Z", Some(BackupKind::Backup)),
            ("camcops-20261121T101500Z.unfinished", Some(BackupKind::Unfinished)),
            ("camcops_two-20261121T101500Z", None),
            ("camcops-20261321T101500Z", None),
            ("camcops-20261121T101500Z-old", None),
            ("camcops-20261121T101500Z-0086-before-0087.sql", Some(BackupKind::Dump)),
            ("camcops-20261121T101500Z-0087-before-purge.sql.zst.unfinished", Some(BackupKind::Unfinished)),
            ("camcops.before-upgrade", None),
        ] {
            assert_eq!(what(name), expected, "{name}");
        }
    }
}
