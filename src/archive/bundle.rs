//! Bundles: one file with all that an installation fetches, for a machine without a network.
//!
//! A bundle is a tar archive, compressed by zstd: first its manifest, which names every other file with its size and its
//! SHA-256, then these files in the same order. It is made for one release of one distribution, holds no secret, and has
//! its name only when it is whole. Each of its bytes is held against the manifest before any of it is used.

pub(crate) mod advisories;
pub(crate) mod manifest;
pub(crate) mod read;
pub(crate) mod write;

use crate::base::error::Exit;
use crate::base::progress::Tell;
use crate::host::Host;
use crate::layout::HOME;
use crate::settings::{Camcops, Source};
use anyhow::Result;
use manifest::BundleManifest;
use std::cell::OnceCell;

/// The Python packages in a bundle.
pub(crate) const WHEELS: &str = "wheels";
/// The distribution's packages in a bundle, and their index.
pub(crate) const PACKAGES: &str = "packages";
/// This program in a bundle.
pub(crate) const TOOL: &str = "tool/camcops-provision";

/// The bundle that an installation takes its files from: unpacked when the first of them is needed.
#[derive(Debug)]
pub(crate) struct Bundle {
    pub(crate) path: String,
    tell: Tell,
    manifest: OnceCell<BundleManifest>,
    unpacked: OnceCell<()>,
}

impl Bundle {
    /// The one that the settings name; `tell` is told what is going on.
    pub(crate) fn of(camcops: &Camcops, tell: Tell) -> Option<Bundle> {
        let path = camcops.bundle.as_ref()?.as_str().to_owned();
        (camcops.source == Source::Bundle).then(|| Bundle {
            path,
            tell,
            manifest: OnceCell::new(),
            unpacked: OnceCell::new(),
        })
    }

    /// What it says of itself; refused if that is not for this machine.
    pub(crate) fn manifest(&self, host: &Host) -> Result<&BundleManifest> {
        if let Some(manifest) = self.manifest.get() {
            return Ok(manifest);
        }
        let manifest = read::read_manifest(&self.path)?;
        if let Some(why) = manifest.misfit(host)? {
            return Err(unusable_bundle(&self.path, &why));
        }
        Ok(self.manifest.get_or_init(|| manifest))
    }

    /// Refuses to build a release that it is not made for.
    pub(crate) fn refuse_other(&self, host: &Host, release: &str) -> Result<()> {
        let manifest = self.manifest(host)?;
        if manifest.release == release {
            return Ok(());
        }
        Err(unusable_bundle(
            &self.path,
            &format!(
                "has release {} (CamCOPS {} on Python {}, by camcops-provision {}), but this machine needs {release}: set camcops.version and camcops.python to match, or create a bundle with this version of the program",
                manifest.release, manifest.camcops, manifest.python, manifest.tool
            ),
        ))
    }

    /// Unpacks it, once, after all of it was found to be right; says where the files are. The lock has to be held.
    pub(crate) fn unpacked(&self, host: &Host) -> Result<&'static str> {
        let is_there = host.stat(UNPACKED)?.is_some();
        if self.unpacked.get().is_none() || !is_there {
            self.manifest(host)?;
            clear_unpacked(host)?;
            self.tell.line(&format!("checking and unpacking {}", self.path));
            let unpacked = read::unpack_bundle(&self.path, host, UNPACKED);
            if unpacked.is_err() {
                clear_unpacked(host)?;
            }
            if unpacked? != *self.manifest(host)? {
                clear_unpacked(host)?;
                return Err(unusable_bundle(&self.path, "was changed meanwhile: run again"));
            }
            let _ = self.unpacked.set(());
        }
        Ok(UNPACKED)
    }

    /// Removes what was unpacked.
    pub(crate) fn close(&self, host: &Host) -> Result<()> {
        match self.unpacked.get() {
            Some(()) => clear_unpacked(host),
            None => Ok(()),
        }
    }
}

/// Where a bundle is unpacked, for root alone. What a run left there that was cut goes with the next one.
pub(crate) const UNPACKED: &str = "/var/lib/camcops-provision/.bundle";
const _: () = assert!(HOME.len() + "/.bundle".len() == UNPACKED.len());

/// Removes what was unpacked, by an earlier run too; the lock has to be held.
pub(crate) fn clear_unpacked(host: &Host) -> Result<()> {
    match host.stat(UNPACKED)? {
        Some(_) => host.remove_tree(UNPACKED),
        None => Ok(()),
    }
}

fn unusable_bundle(path: &str, what: &str) -> anyhow::Error {
    Exit::Unusable.because(format!("the bundle {path} {what}"))
}

#[cfg(test)]
mod tests;
