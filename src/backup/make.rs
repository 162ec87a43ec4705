//! Making a backup.

use super::manifest::{self, BackupManifest, DumpedDatabase, FORMAT, MANIFEST, SUMS};
use super::{DATABASE, DATABASE_ENCRYPTED, FILES, FILES_ENCRYPTED, UNFINISHED, files};
use crate::archive::pack::{PackedSum, Packer};
use crate::base::error::Exit;
use crate::base::progress::Tell;
use crate::base::text::sha256_hex;
use crate::drivers::sql::copy::directory::{enter_directory, remember_directory, time_stamp};
use crate::drivers::sql::copy::dump::{self, DumpContents};
use crate::drivers::sql::{self, Database, quote};
use crate::drivers::tables;
use crate::history;
use crate::host::Host;
use crate::settings::Settings;
use crate::site::Site;
use anyhow::{Context, Result};
use std::io::Write;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A backup that was just made.
#[derive(Debug)]
pub(crate) struct MadeBackup {
    pub(crate) name: String,
    pub(crate) path: String,
    pub(crate) bytes: u64,
    pub(crate) manifest: BackupManifest,
}

/// Removes what runs before this one left unfinished, and says so. The lock is ours, so that none is at work.
fn clear_up(host: &Host, site: &Site, directory: &str, tell: Tell) -> Result<u64> {
    let mut freed = 0;
    for found in list_site_backups(host, site.settings(), &site.layout.slug)? {
        if found.what == super::BackupKind::Unfinished {
            tell.line(&format!("removing the unfinished {directory}/{}", found.name));
            host.remove_tree(&format!("{directory}/{}", found.name))?;
            freed += found.bytes;
        }
    }
    Ok(freed)
}

/// What is in the directory of backups of a site.
pub(crate) fn list_site_backups(host: &Host, settings: &Settings, slug: &str) -> Result<Vec<super::BackupEntry>> {
    super::list_backups(host, settings.backup.directory.as_str(), slug, settings.database.name_or(slug))
}

/// Makes a backup of a site, for its own sake or before something; whoever calls holds the lock.
pub(crate) async fn make_backup(
    host: &Host,
    site: &Site,
    known: &Database,
    before: Option<&str>,
) -> Result<MadeBackup> {
    let directory = site.settings().backup.directory.as_str();
    enter_directory(host, &site.instance, directory)?;
    let clear = clear_up(host, site, directory, known.tell)?;
    if clear > 0 {
        host.sync_file_system(directory)?;
    }
    let what = format!("a backup of {}", site.layout.slug);
    let found = dump::find_contents(host, known, directory, &what).await?;
    let name = format!("{}-{}", site.layout.slug, time_stamp()?);
    let path = format!("{directory}/{name}");
    if host.stat(&path)?.is_some() {
        return Err(Exit::CannotCreate.because(format!("{path} was made in this second; wait for the next one")));
    }
    known.tell.line(&format!("backing up {} to {path}", known.database));
    let unfinished = format!("{path}{UNFINISHED}");
    host.make_directory(&unfinished, Some((0, 0)), 0o700)?;
    let written = write_backup(host, site, known, &unfinished, &found, before).await;
    let (manifest, bytes) = match written {
        Ok(written) => written,
        Err(why) => {
            // The first failure is the one to tell.
            let _ = host.remove_tree(&unfinished);
            return Err(why.context("no backup was made"));
        }
    };
    host.sync_file_system(directory)?;
    host.rename(&unfinished, &path)?;
    remember_directory(host, &site.instance, directory)?;
    Ok(MadeBackup { name, path, bytes, manifest })
}

async fn write_backup(
    host: &Host,
    site: &Site,
    known: &Database,
    path: &str,
    found: &DumpContents,
    before: Option<&str>,
) -> Result<(BackupManifest, u64)> {
    let made_at = OffsetDateTime::now_utc().replace_nanosecond(0)?;
    let recipient = site.settings().backup.encrypt_to.as_ref();
    let recipient = recipient.map(|recipient| recipient.as_str());
    let names = match recipient {
        Some(_) => (DATABASE_ENCRYPTED, FILES_ENCRYPTED),
        None => (DATABASE, FILES),
    };
    let like: Option<(String, String, String)> = known
        .server
        .row(&format!(
            "SELECT DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME, VERSION() FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {}",
            quote::quote_text(&known.database)
        ))
        .await?;
    let (charset, collation, server) = like.context("the database has disappeared")?;
    let revision = tables::read_revision(known, &known.database).await?;
    let left_out = sql::others_of(&known.server, &known.database).await?;
    let file = host.new_file(&format!("{path}/{}", names.0))?;
    let dumped = dump::write_dump(host, known, &found.tables, found.size, file, recipient).await?;
    let mut packer = Packer::new(host, host.new_file(&format!("{path}/{}", names.1))?, recipient)?;
    let kept = match files::pack_files(host, site, &mut packer) {
        Ok(kept) => kept,
        Err(why) => return Err(packer.cause(why)),
    };
    let files = packer.finish()?;
    let release = host.read_link(&site.layout.venv)?;
    let manifest = BackupManifest {
        format: FORMAT,
        instance: site.instance.clone(),
        made_at: made_at.format(&Rfc3339)?,
        tool: env!("CARGO_PKG_VERSION").to_owned(),
        release: release.map(|link| link.rsplit('/').next().unwrap_or_default().to_owned()),
        server,
        machine: site.facts.host_name.clone(),
        encrypted_to: recipient.map(str::to_owned),
        before: before.map(str::to_owned),
        history: history::current_mark(host, &site.instance)?,
        database: DumpedDatabase {
            name: known.database.clone(),
            file: names.0.to_owned(),
            revision,
            charset,
            collation,
            data_bytes: found.size,
            text_bytes: dumped.text_bytes,
            tables: dumped.tables,
            sections: dumped.sections,
            left_out,
        },
        files: kept,
    };
    let mut text = serde_json::to_vec_pretty(&manifest)?;
    text.push(b'\n');
    let said = PackedSum { bytes: text.len() as u64, sha256: sha256_hex(&text) };
    let sums = manifest::format_sums(&[(names.0, &dumped.packed), (names.1, &files), (MANIFEST, &said)]);
    for (name, text) in [(MANIFEST, text.as_slice()), (SUMS, sums.as_bytes())] {
        let mut file = host.new_file(&format!("{path}/{name}"))?;
        file.write_all(text)?;
        file.sync_all()?;
    }
    let bytes = dumped.packed.bytes + files.bytes + said.bytes + sums.len() as u64;
    Ok((manifest, bytes))
}
