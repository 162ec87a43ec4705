//! What makes up a site besides its database: settings, secrets, certificate, CamCOPS's configuration, the site's own
//! files, and the journal for whoever wants to read what was done there.

use super::manifest::BackedUpFile;
use crate::archive::pack::{Packer, unpack_stream};
use crate::base::error::Exit;
use crate::host::{Host, PathKind};
use crate::layout::HOME;
use crate::settings::AbsolutePath;
use crate::site::Site;
use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::time::UNIX_EPOCH;
use tar::{Archive, Builder, EntryType, Header};

/// What is kept of a site, parents before what is in them; what is not there is not kept.
pub(crate) fn list_paths(host: &Host, site: &Site) -> Result<Vec<String>> {
    let (layout, settings) = (&site.layout, site.settings());
    let text = |path: &Option<AbsolutePath>| path.as_ref().map(|path| path.as_str().to_owned());
    let mut all = BTreeSet::new();
    let mut tree = |root: &str| -> Result<()> {
        let mut left = vec![root.to_owned()];
        while let Some(path) = left.pop() {
            let Some(entry) = host.stat(&path)? else {
                continue;
            };
            match entry.kind {
                PathKind::Special => continue,
                PathKind::Directory => {
                    let names = host.list(&path)?.unwrap_or_default();
                    left.extend(names.iter().map(|name| format!("{path}/{name}")));
                }
                PathKind::File | PathKind::Symlink => {}
            }
            all.insert(path);
        }
        Ok(())
    };
    let settings_file = site.settings_file.to_string_lossy().into_owned();
    let more = site.settings_file.with_extension("d");
    tree(&settings_file)?;
    tree(&host.followed(&settings_file)?)?;
    tree(&more.to_string_lossy())?;
    for included in site.resolved.included_files() {
        tree(&included.to_string_lossy())?;
    }
    tree(&layout.config)?;
    tree(&layout.secrets)?;
    tree(&layout.data)?;
    tree(&format!("{HOME}/{}/journal", site.instance))?;
    for name in host.list(&layout.env_dir)?.unwrap_or_default() {
        if name.starts_with(&format!("{}-", layout.slug)) {
            tree(&format!("{}/{name}", layout.env_dir))?;
        }
    }
    let (certificate, key, chain) = site.certificate_files();
    let database = &settings.database;
    let named = [
        Some(certificate),
        Some(key),
        chain,
        // Everybody trusts it, wherever the site moves to.
        Some(layout.authority.clone()),
        Some(layout.authority_key.clone()),
        text(&database.password_file),
        text(&database.admin_defaults_file),
        text(&database.tls_ca),
        text(&settings.broker.password_file),
        text(&settings.broker.tls_ca),
        text(&settings.monitor.password_file),
        text(&settings.network.proxy_login_file),
        text(&settings.network.pip_login_file),
        text(&settings.network.ca_bundle),
        text(&settings.site.logo),
        text(&settings.site.snomed_task_xml),
        text(&settings.site.snomed_icd9_xml),
        text(&settings.site.snomed_icd10_xml),
    ];
    let given = site.secret_files().map(|(_, _, path)| path.to_owned());
    let of_readers = database.readers().filter_map(|reader| reader.password_file);
    let given = given.chain(of_readers.map(|path| path.as_str().to_owned()));
    for path in named.into_iter().flatten().chain(given) {
        tree(&path)?;
        // A link alone leads to nothing on another machine.
        tree(&host.followed(&path)?)?;
    }
    Ok(all.into_iter().collect())
}

/// Packs what is there; gives what that was.
pub(crate) fn pack_files(host: &Host, site: &Site, packer: &mut Packer<'_>) -> Result<Vec<BackedUpFile>> {
    let mut kept = Vec::new();
    let mut archive = Builder::new(packer);
    for path in list_paths(host, site)? {
        let Some(entry) = host.stat(&path)? else {
            continue;
        };
        let mut header = Header::new_gnu();
        header.set_mode(entry.mode);
        header.set_uid(entry.uid.into());
        header.set_gid(entry.gid.into());
        let owner = host.accounts.owner_name(entry.uid, entry.gid);
        if let Some((user, group)) = owner.split_once(':') {
            header.set_username(user)?;
            header.set_groupname(group)?;
        }
        let age = entry.modified.duration_since(UNIX_EPOCH);
        header.set_mtime(age.map_or(0, |age| age.as_secs()));
        header.set_size(0);
        let inside = path.trim_start_matches('/');
        let mut bytes = 0;
        match entry.kind {
            PathKind::Directory => {
                header.set_entry_type(EntryType::Directory);
                archive.append_data(&mut header, inside, io::empty())?;
            }
            PathKind::Symlink => {
                let target = host.read_link(&path)?.unwrap_or_default();
                header.set_entry_type(EntryType::Symlink);
                archive.append_link(&mut header, inside, target)?;
            }
            _ => {
                let Some((_, file)) = host.open_file(&path)? else {
                    continue;
                };
                bytes = file.metadata()?.len();
                header.set_entry_type(EntryType::Regular);
                header.set_size(bytes);
                // What is written to meanwhile is taken as long as it was; the archive would not fit together else.
                let whole = file.take(bytes).chain(io::repeat(0)).take(bytes);
                archive.append_data(&mut header, inside, whole).with_context(|| format!("can't keep {path}"))?;
            }
        }
        kept.push(BackedUpFile { path, bytes });
    }
    archive.finish()?;
    Ok(kept)
}

/// One thing of the archive.
struct Item<'a> {
    path: String,
    kind: EntryType,
    mode: u32,
    owner: Option<(u32, u32)>,
    target: String,
    content: &'a mut dyn Read,
}

/// Goes through an archive. What it has was written by whoever made it: nothing of it is taken that no backup has.
fn for_each_file(host: &Host, packed: impl Read, mut one: impl FnMut(Item<'_>) -> Result<()>) -> Result<()> {
    let damaged = |why: io::Error| Exit::Unusable.because(format!("the files of the backup: {why}"));
    let mut archive = Archive::new(unpack_stream(packed).map_err(damaged)?);
    let mut seen = SeenPaths::default();
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let header = entry.header().clone();
        let inside = entry.path_bytes().into_owned();
        let kind = header.entry_type();
        let path = seen.path_of(&inside, kind)?;
        let name = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        let owner = format!("{}:{}", name(header.username_bytes()), name(header.groupname_bytes()));
        let target = entry.link_name().map_err(damaged)?;
        one(Item {
            path,
            kind,
            // Nothing of a site runs as somebody else than who starts it.
            mode: header.mode().map_err(damaged)? & 0o777,
            // An account that is not here yet: install gives it what it needs.
            owner: host.accounts.owner(&owner).or(Some((0, 0))),
            target: target.map_or_else(String::new, |target| target.to_string_lossy().into_owned()),
            content: &mut entry,
        })?;
    }
    Ok(())
}

/// What an archive has had so far.
#[derive(Debug, Default)]
struct SeenPaths {
    /// Each path, and whether something can be below it.
    paths: BTreeMap<String, bool>,
}

impl SeenPaths {
    /// The path of the next thing, if a backup could have such a thing there.
    fn path_of(&mut self, inside: &[u8], kind: EntryType) -> Result<String> {
        let refused = |what: &str| {
            let name = String::from_utf8_lossy(inside);
            Err(Exit::Unusable.because(format!(
                "the files of the backup have {name:?}, {what}: it was not made by camcops-provision, or was modified; nothing was changed"
            )))
        };
        let is_directory = kind == EntryType::Directory;
        if !is_directory && !matches!(kind, EntryType::Regular | EntryType::Symlink) {
            return refused("which is neither a file, a directory nor a symbolic link");
        }
        let Ok(text) = std::str::from_utf8(inside) else {
            return refused("whose name is not UTF-8");
        };
        let text = if is_directory { text.strip_suffix('/').unwrap_or(text) } else { text };
        let strange = |part: &str| ["", ".", ".."].contains(&part);
        if text.split('/').any(strange) || text.chars().any(char::is_control) {
            return refused("which is not a path of a site");
        }
        let path = format!("/{text}");
        for (end, _) in path.match_indices('/').skip(1) {
            if self.paths.get(&path[..end]) == Some(&false) {
                return refused("and a file or a symbolic link where its directory should be");
            }
        }
        if self.paths.insert(path.clone(), is_directory).is_some() {
            return refused("and it more than once");
        }
        let below = format!("{path}/");
        let next = self.paths.range(below.clone()..).next();
        if !is_directory && next.is_some_and(|(next, _)| next.starts_with(&below)) {
            return refused("and other things below it");
        }
        Ok(path)
    }
}

/// The paths of all that an archive has.
pub(crate) fn list_names(host: &Host, packed: impl Read) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for_each_file(host, packed, |item| {
        names.push(item.path);
        Ok(())
    })?;
    Ok(names)
}

/// Whether two streams have the same bytes.
fn is_same(mut one: impl Read, mut other: impl Read) -> io::Result<bool> {
    let (mut left, mut right) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let read = one.read(&mut left)?;
        if read == 0 {
            return Ok(other.read(&mut right)? == 0);
        }
        let same = match other.read_exact(&mut right[..read]) {
            Ok(()) => left[..read] == right[..read],
            Err(why) if why.kind() == io::ErrorKind::UnexpectedEof => false,
            Err(why) => return Err(why),
        };
        if !same {
            return Ok(false);
        }
    }
}

/// It is for reading only: what was done on one machine was not done on another.
fn is_journal(path: &str) -> bool {
    path.strip_prefix(HOME).is_some_and(|rest| rest.starts_with('/'))
}

/// Where settings, secrets, certificates and files of a site may be. A backup that has more was not made of a site alone.
const PLACES: [&str; 11] = [
    "/etc/camcops",
    "/etc/letsencrypt",
    "/etc/pki",
    "/etc/ssl",
    "/home",
    "/opt",
    "/root",
    "/srv",
    "/usr/local/share",
    "/usr/share/camcops",
    "/var/lib/camcops",
];

/// Where a site's things may be, and below which this one is; what decides who may log in or what runs is not such a
/// thing, wherever a backup has it.
fn place_of(path: &str) -> Option<&'static str> {
    let is_below =
        |place: &&&str| path.strip_prefix(**place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let is_hidden = path.split('/').any(|part| part.starts_with('.'));
    let place = PLACES.iter().find(is_below).copied();
    place.filter(|_| !is_hidden && !is_journal(path))
}

/// Whether it is brought back. A link that leads out of a site's places would be followed by whoever reads it later.
fn is_brought_back(item: &Item<'_>) -> bool {
    let leads_out = || {
        let target = led_to(&item.path, &item.target);
        target.is_none_or(|target| place_of(&target).is_none())
    };
    place_of(&item.path).is_some() && !(item.kind == EntryType::Symlink && leads_out())
}

/// Where a link at this path leads, by its words alone.
fn led_to(path: &str, target: &str) -> Option<String> {
    let (directory, _) = path.rsplit_once('/')?;
    let whole = if target.starts_with('/') { target.to_owned() } else { format!("{directory}/{target}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop()?,
            part => parts.push(part),
        }
    }
    Some(format!("/{}", parts.join("/")))
}

/// Refuses what can't be put where it was: nothing is written through a link below a site's places, and no directory
/// is taken away for a file.
fn refuse_unfit(host: &Host, item: &Item<'_>) -> Result<()> {
    let path = item.path.as_str();
    let place = place_of(path).unwrap_or(path);
    for (end, _) in path.match_indices('/').skip(1) {
        let parent = &path[..end];
        if parent.len() < place.len() {
            continue;
        }
        let kind = host.stat(parent)?.map(|entry| entry.kind);
        let is_place = parent == place;
        match kind {
            None | Some(PathKind::Directory) => {}
            // A place itself may have been moved to where there is room.
            Some(PathKind::Symlink) if is_place => {}
            Some(PathKind::Symlink) => {
                return Err(Exit::CannotCreate.because(format!(
                    "{parent} is a symbolic link here, and the backup contains {path}: links are not followed; nothing was changed: move the link away, and run again"
                )));
            }
            Some(_) => {
                return Err(Exit::CannotCreate.because(format!(
                    "{parent} is not a directory here, but the backup contains {path}; nothing was changed: move it away, and run again"
                )));
            }
        }
    }
    let there = host.stat(path)?.map(|entry| entry.kind);
    let fits = match (there, item.kind) {
        (None, _) | (Some(PathKind::Directory), EntryType::Directory) => true,
        (Some(PathKind::Symlink), EntryType::Directory) => path == place,
        (Some(there), EntryType::Directory) => there == PathKind::Directory,
        (Some(there), _) => there != PathKind::Directory,
    };
    match fits {
        true => Ok(()),
        false => Err(Exit::CannotCreate.because(format!(
            "{path} is of another type here than in the backup; nothing was changed: move it away, and run again"
        ))),
    }
}

/// Looks through the whole archive before anything of it is put anywhere.
pub(crate) fn check_archive(host: &Host, packed: impl Read) -> Result<()> {
    for_each_file(host, packed, |mut item| {
        if is_brought_back(&item) {
            refuse_unfit(host, &item)?;
        }
        // What can't be read to its end is found out now, and not in the middle.
        io::copy(&mut item.content, &mut io::sink())
            .map_err(|why| Exit::Unusable.because(format!("the files of the backup: {}: {why}", item.path)))?;
        Ok(())
    })
}

/// What stands on the machine otherwise than in the backup.
pub(crate) fn find_differing(host: &Host, packed: impl Read) -> Result<Vec<String>> {
    let mut differing = Vec::new();
    for_each_file(host, packed, |item| {
        if !is_brought_back(&item) {
            return Ok(());
        }
        let is_other = match (host.stat(&item.path)?, item.kind) {
            (None, _) => false,
            (Some(entry), EntryType::Directory) => entry.kind != PathKind::Directory,
            (Some(_), EntryType::Symlink) => host.read_link(&item.path)?.as_ref() != Some(&item.target),
            (Some(_), _) => match host.open_file(&item.path)? {
                Some((_, file)) => !is_same(item.content, file)?,
                None => true,
            },
        };
        if is_other {
            differing.push(item.path);
        }
        Ok(())
    })?;
    Ok(differing)
}

/// How much was put where it was, and what was not.
#[derive(Debug, Default)]
pub(crate) struct RestoredFiles {
    /// So many things.
    pub(crate) number: usize,
    /// What is where nothing of a site is.
    pub(crate) left_out: Vec<String>,
}

/// Puts everything where it was. What stands there is replaced: who does not want that asks [`find_differing`] before.
pub(crate) fn bring_back(host: &Host, packed: impl Read) -> Result<RestoredFiles> {
    let mut brought = RestoredFiles::default();
    for_each_file(host, packed, |item| {
        if !is_brought_back(&item) {
            if !is_journal(&item.path) {
                brought.left_out.push(item.path);
            }
            return Ok(());
        }
        refuse_unfit(host, &item)?;
        let path = item.path.as_str();
        for (end, _) in path.match_indices('/').skip(1) {
            let parent = &path[..end];
            if host.look_into(parent)?.is_none() {
                host.make_directory(parent, Some((0, 0)), 0o755)?;
            }
        }
        match item.kind {
            EntryType::Directory => match host.stat(path)? {
                // Whose else it is stays so, and install gives ours what they need.
                Some(_) => {}
                None => host.make_directory(path, item.owner, item.mode)?,
            },
            EntryType::Symlink => host.put_link(path, &item.target)?,
            _ => host.put_file_from(path, item.content, item.owner, item.mode)?,
        }
        brought.number += 1;
        Ok(())
    })?;
    Ok(brought)
}

#[cfg(test)]
mod tests;
