//! What a bundle says of itself.

use super::advisories::ADVISORY_FILE;
use super::{PACKAGES, TOOL, WHEELS};
use crate::host::Host;
use crate::site::facts;
use anyhow::{Result, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The format that this version writes. A newer one is refused.
pub(crate) const FORMAT: u32 = 2;
/// That of bundles without advisories, which earlier versions read, too.
const WITHOUT_ADVISORIES: u32 = 1;
/// Its name in the archive.
pub(crate) const MANIFEST: &str = "manifest.json";

/// What a bundle says of itself. It never has a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BundleManifest {
    pub(crate) format: u32,
    /// When it was made.
    pub(crate) made_at: String,
    /// The version of the program that made it, and that is in it.
    pub(crate) tool: String,
    pub(crate) machine: BundleMachine,
    /// The version of CamCOPS.
    pub(crate) camcops: String,
    /// The Python that its packages are for, as 3.MINOR.
    pub(crate) python: String,
    /// The release that they make.
    pub(crate) release: String,
    /// The Python packages that were built from source: their hashes are no other's.
    pub(crate) built: Vec<Built>,
    /// The names of the distribution's packages.
    pub(crate) packages: BTreeSet<String>,
    /// What its advisories were chosen from, where it has any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) advisories: Covers,
    /// Every file, in the order in which they follow.
    pub(crate) files: Vec<BundledFile>,
}

/// What a list of advisories was chosen from, by ecosystem: what is not in it is not known to be wrong.
pub(crate) type Covers = BTreeMap<String, CoveredData>;

/// How much was known of an ecosystem, and when.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CoveredData {
    pub(crate) records: usize,
    pub(crate) modified: String,
}

/// A kind of machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BundleMachine {
    /// The distribution, as /etc/os-release has it: ID.
    pub(crate) distribution: String,
    /// Its release: `VERSION_ID`.
    pub(crate) version: String,
    pub(crate) architecture: String,
}

/// A Python package that was built from source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Built {
    /// As the lock has it: `name==version`.
    pub(crate) pin: String,
    pub(crate) path: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BundledFile {
    /// Its directory and its name.
    pub(crate) path: String,
    pub(crate) bytes: u64,
    /// Its SHA-256, in lower-case hexadecimal digits.
    pub(crate) sha256: String,
}

impl BundleMachine {
    pub(crate) fn this(host: &Host) -> Result<BundleMachine> {
        let (distribution, version) = facts::distribution_release(host)?;
        Ok(BundleMachine { distribution, version, architecture: std::env::consts::ARCH.to_owned() })
    }
}

impl std::fmt::Display for BundleMachine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let BundleMachine { distribution, version, architecture } = self;
        write!(f, "{distribution} {version} on {architecture}")
    }
}

/// The format that such a bundle is written in.
pub(crate) fn format_for(advisories: &Covers) -> u32 {
    if advisories.is_empty() { WITHOUT_ADVISORIES } else { FORMAT }
}

impl BundleManifest {
    /// Reads one; says what is wrong with it otherwise.
    pub(crate) fn parse(text: &[u8]) -> Result<BundleManifest> {
        let damaged = |why| anyhow!("is damaged: {MANIFEST}: {why}");
        let whole: serde_json::Value = serde_json::from_slice(text).map_err(damaged)?;
        if let Some(format) = whole["format"].as_u64().filter(|format| *format > FORMAT.into()) {
            bail!(
                "was made by a newer version of camcops-provision (format {format}): use that version, which is in it as {TOOL}"
            );
        }
        let manifest: BundleManifest = serde_json::from_value(whole).map_err(damaged)?;
        let mut seen = BTreeSet::new();
        for BundledFile { path, .. } in &manifest.files {
            ensure!(
                is_allowed(path) && seen.insert(path),
                "is damaged: {MANIFEST} names {path:?}, which no bundle contains, or twice"
            );
        }
        Ok(manifest)
    }

    /// Why it is not for this machine; nothing if it is.
    pub(crate) fn misfit(&self, host: &Host) -> Result<Option<String>> {
        let here = BundleMachine::this(host)?;
        Ok((here != self.machine).then(|| {
            format!("is for {}, but this machine is {here}: create one on a machine like this one", self.machine)
        }))
    }

    /// How large all of its files are.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// How many files one of its directories has.
    pub(crate) fn count(&self, directory: &str) -> usize {
        let inside = |file: &&BundledFile| file.path.split('/').next() == Some(directory);
        self.files.iter().filter(inside).count()
    }
}

/// A plain name in one of the directories that a bundle has: it can lead nowhere else.
fn is_allowed(path: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._+-~!".contains(c);
    [TOOL, ADVISORY_FILE].contains(&path)
        || path.split_once('/').is_some_and(|(directory, name)| {
            [WHEELS, PACKAGES].contains(&directory)
                && name.chars().all(plain)
                && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        })
}
