//! Packages of the distribution: looked up in the package manager's own records, read once, and all that are missing
//! installed by one call of it. Nothing is ever removed but the library of an earlier release of the distribution that the one
//! of this release replaces, and no source of packages is ever added.
//!
//! A package has no facets: it is there, or not. Its name may be a list of alternatives ([`crate::layout::alternative_names`]).

mod apt;
mod debsecan;
mod dnf;
pub(crate) mod fetch;
mod records;

use crate::archive::bundle::Bundle;
use crate::archive::bundle::manifest::BundleManifest;
use crate::base::error::Exit;
use crate::base::progress::Tell;
use crate::host::Host;
use crate::layout::{PackageManager, Packages, alternative_names};
use crate::resource::{Facets, Resource, State};
use crate::settings::Internet;
use anyhow::{Context, Result};
pub(crate) use debsecan::{AskedDebsecan, ask_debsecan};
pub(crate) use records::{DpkgRecord, list_records};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

/// What this driver knows of the machine and of the run.
#[derive(Debug)]
pub(crate) struct PackageSource {
    names: &'static Packages,
    /// How packages may be fetched, if they may be fetched at all.
    pub(crate) network: Internet,
    /// Where they come from, if that is a bundle.
    bundle: Option<Rc<Bundle>>,
    pub(crate) tell: Tell,
    installed: RefCell<Option<BTreeSet<String>>>,
    /// What leads the package manager to other sources than the machine's own.
    aside: RefCell<Vec<String>>,
}

impl PackageSource {
    /// Nothing is read yet; `tell` is told what is going on.
    pub(crate) fn new(
        names: &'static Packages,
        network: &Internet,
        bundle: Option<Rc<Bundle>>,
        tell: Tell,
    ) -> PackageSource {
        PackageSource {
            names,
            network: network.clone(),
            bundle,
            tell,
            installed: RefCell::default(),
            aside: RefCell::default(),
        }
    }

    /// Reads the records anew when they are next needed.
    pub(crate) fn forget(&self) {
        self.installed.take();
    }

    fn has(&self, host: &Host, name: &str) -> Result<bool> {
        let mut installed = self.installed.borrow_mut();
        let installed = match &mut *installed {
            Some(installed) => installed,
            unread => unread.insert(match self.names.manager {
                PackageManager::Apt => apt::list_installed(host)?,
                PackageManager::Dnf => dnf::list_installed(host, self.names)?,
            }),
        };
        Ok(alternative_names(name).any(|name| installed.contains(name)))
    }

    /// The bundle that packages come from. While dpkg is at work, as in the hook of a package, there can't be one.
    fn bundle(&self) -> Option<&Bundle> {
        let bundle = self.bundle.as_deref();
        bundle.filter(|_| std::env::var_os("DPKG_RUNNING_VERSION").is_none())
    }

    fn command_for(&self, names: &[&str]) -> String {
        let command = match self.names.manager {
            PackageManager::Apt => "apt-get install --no-install-recommends",
            PackageManager::Dnf => "dnf install",
        };
        format!("{command} {}", best_names(names))
    }
}

/// The first alternative of each, as a command takes them.
fn best_names(names: &[&str]) -> String {
    let best: Vec<&str> = names.iter().filter_map(|name| alternative_names(name).next()).collect();
    best.join(" ")
}

/// Whether a package is there, whole and configured.
pub(crate) fn observe(known: &PackageSource, host: &Host, name: &str) -> Result<State> {
    Ok(match known.has(host, name)? {
        true => State::Present(Facets::new()),
        false => State::Absent,
    })
}

/// Why a package stays when it is no longer wanted.
pub(crate) const KEPT: &str = "a package is kept: other software may rely on it";

/// Installs, in one call, those of the packages that are missing. Where an earlier run of this program was cut in the
/// middle of it (`resumed`), what that one left half-configured is finished first.
pub(crate) fn install_packages(known: &PackageSource, host: &Host, names: &[&str], resumed: bool) -> Result<()> {
    // A run that was killed leaves its package manager at work: it may be about to install what is missing.
    if known.names.manager == PackageManager::Apt {
        apt::wait_for_others(host, known)?;
        known.forget();
    }
    let mut missing = Vec::new();
    for name in names {
        if !known.has(host, name)? {
            missing.push(*name);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    match known.bundle() {
        Some(bundle) => {
            refuse_absent(bundle.manifest(host)?, &bundle.path, &missing)?;
            let directory = bundle.unpacked(host)?;
            known.aside.replace(apt::from_bundle(host, directory)?);
        }
        None if known.network.offline => return Err(not_offline(known, &missing)),
        None => {}
    }
    known.tell.line(&format!("installing {}", best_names(&missing)));
    let made = match known.names.manager {
        PackageManager::Apt => apt::install_packages(host, known, &missing, resumed),
        PackageManager::Dnf => dnf::install_packages(host, known, &missing),
    };
    known.forget();
    known.aside.take();
    match known.bundle() {
        Some(bundle) => made.with_context(|| {
            format!(
                "the packages in {} can't be installed (if this machine has newer ones, create the bundle again)",
                bundle.path
            )
        }),
        None => made,
    }
}

/// How many bytes apt would fetch for the packages among these; nothing where that is not known without fetching its lists.
pub(crate) fn size_to_fetch<'a>(
    known: &PackageSource,
    host: &Host,
    planned: impl Iterator<Item = &'a Resource>,
) -> Option<u64> {
    let names: Vec<&str> = planned
        .filter_map(|resource| match resource {
            Resource::Package(name) => Some(name.as_str()),
            _ => None,
        })
        .collect();
    let is_known = known.names.manager == PackageManager::Apt && known.bundle().is_none() && !known.network.offline;
    if names.is_empty() || !is_known || host.staged_root().is_some() {
        return None;
    }
    apt::size_to_fetch(host, known, &names).ok().flatten().filter(|bytes| *bytes > 0)
}

/// Refuses what a bundle does not have.
fn refuse_absent(manifest: &BundleManifest, path: &str, missing: &[&str]) -> Result<()> {
    let absent: Vec<&str> = missing
        .iter()
        .copied()
        .filter(|name| !alternative_names(name).any(|name| manifest.packages.contains(name)))
        .collect();
    match absent.is_empty() {
        true => Ok(()),
        false => Err(Exit::Unreachable.because(format!(
            "these packages are missing, and the bundle {path} does not have them: {}; install them yourself, or create the bundle again with the settings of this machine",
            absent.join(", ")
        ))),
    }
}

/// Refuses a plan that can't be carried out without a connection, before any of it is.
pub(crate) fn refuse_offline<'a>(
    known: &PackageSource,
    host: &Host,
    planned: impl Iterator<Item = &'a Resource>,
) -> Result<()> {
    let missing: Vec<&str> = planned
        .filter_map(|resource| match resource {
            Resource::Package(name) => Some(name.as_str()),
            _ => None,
        })
        .collect();
    match known.bundle() {
        _ if missing.is_empty() => Ok(()),
        Some(bundle) => refuse_absent(bundle.manifest(host)?, &bundle.path, &missing),
        None if known.network.offline => Err(not_offline(known, &missing)),
        None => Ok(()),
    }
}

fn not_offline(known: &PackageSource, missing: &[&str]) -> anyhow::Error {
    Exit::Unreachable.because(format!(
        "these packages are missing, and they can't be downloaded now (--offline, or dpkg is running): {}; install them yourself with `{}`, and run again",
        missing.join(", "),
        known.command_for(missing)
    ))
}

/// Packages that no source has, all of them in one line.
fn found_nowhere(known: &PackageSource, missing: &[&str]) -> anyhow::Error {
    Exit::Unreachable.because(format!(
        "no package repository of this machine has {}; add one that you trust, or install an equivalent yourself, and run again (`{}` must work)",
        missing.join(", "),
        known.command_for(missing)
    ))
}
