//! The releases that are on a machine.

use super::{Places, read_about};
use crate::host::{Host, PathKind};
use crate::layout::{APPLICATION, RELEASES};
use anyhow::Result;
use std::time::SystemTime;

/// A release that is there.
#[derive(Debug)]
pub(crate) struct Installed {
    pub(crate) id: String,
    /// The version of CamCOPS, where it says so.
    pub(crate) version: Option<String>,
    /// The interpreter that it runs on, where it says so.
    pub(crate) python: Option<String>,
    /// What it takes on the disk, in bytes.
    pub(crate) size: u64,
    pub(crate) built: Option<SystemTime>,
    pub(crate) whole: bool,
    /// Whether the services use it.
    pub(crate) current: bool,
}

/// The release that the services use.
pub(crate) fn current_release(host: &Host) -> Result<Option<String>> {
    let target = host.read_link(&format!("{APPLICATION}/venv"))?;
    let name = target.and_then(|target| target.rsplit('/').next().map(str::to_owned));
    Ok(name.filter(|name| !name.is_empty()))
}

/// Every release, those that were never finished too, under the name that they were to get.
pub(crate) fn installed_releases(host: &Host) -> Result<Vec<Installed>> {
    let current = current_release(host)?;
    let mut ids: Vec<String> = Vec::new();
    for name in host.list(RELEASES)?.unwrap_or_default() {
        let passing = name.strip_prefix('.').and_then(|rest| {
            let ends = [".new", ".old", ".work"];
            ends.iter().find_map(|end| rest.strip_suffix(end))
        });
        let id = passing.unwrap_or(&name);
        if !ids.iter().any(|known| known == id) {
            ids.push(id.to_owned());
        }
    }
    // By number: a level is newer than what it is a level of. What is no release comes last.
    ids.sort_by_cached_key(|id| {
        let version = id.split("-py").next().unwrap_or(id);
        let numbers: Option<Vec<u32>> = version.split(['.', '+']).map(|number| number.parse().ok()).collect();
        (numbers.is_none(), numbers, id.clone())
    });
    let one = |id: String| -> Result<Installed> {
        let places = Places::of(&id);
        let mut size = host.tree_size(&places.own)?;
        for path in places.passing() {
            size += host.tree_size(path)?;
        }
        let own = host.stat(&places.own)?;
        let is_directory = own.is_some_and(|entry| entry.kind == PathKind::Directory);
        let about = read_about(host, &places, &id)?;
        let note = match is_directory {
            true => host.stat(&format!("{}/release.json", places.own))?,
            false => None,
        };
        Ok(Installed {
            whole: about.is_some(),
            current: current.as_ref() == Some(&id),
            built: note.map(|note| note.modified),
            version: about.as_ref().map(|about| about.version.clone()),
            python: about.map(|about| about.python),
            size,
            id,
        })
    };
    ids.into_iter().map(one).collect()
}
