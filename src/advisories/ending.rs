//! What ends a flaw: a newer level of the release, a newer package of the distribution, a newer version of this program.

use super::fold::FoldedFlaw;
use super::matching::is_affected;
use super::parts::{PartKind, SitePart, normal_name};
use super::record::{OsvPackage, OsvRecord};
use crate::drivers::release::hardening::Remainder;
use anyhow::Result;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// What an administrator can do about a flaw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "how")]
pub(crate) enum FlawEnding {
    /// The newest release that this program knows has another version, or does without the package.
    Release {
        release: String,
        version: Option<String>,
        command: String,
    },
    /// The distribution has a newer package.
    Package {
        command: String,
    },
    /// Newer versions of this program are linked from newer crates.
    Program,
    /// Nothing ends it, which was judged to be bearable.
    Judged {
        reason: String,
    },
    Nothing,
}

/// What the newest release that this program knows is made of.
#[derive(Debug, Default)]
pub(crate) struct NewestRelease {
    pub(crate) name: String,
    pub(crate) pins: BTreeMap<String, String>,
    /// Advisories that nothing ends, and why that can be lived with.
    pub(crate) left: &'static [Remainder],
}

impl NewestRelease {
    /// Whether it does not have what an advisory is about, in any of the places where that names the package.
    pub(crate) fn is_without(&self, package: &str, record: &OsvRecord) -> Result<bool> {
        let Some(version) = self.pins.get(package) else {
            return Ok(!self.pins.is_empty());
        };
        for affected in &record.affected {
            let is_meant = |named: &OsvPackage| named.ecosystem == "PyPI" && normal_name(&named.name) == package;
            if affected.package.as_ref().is_some_and(is_meant) && is_affected(PartKind::Python, version, affected)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What ends a flaw of a part.
    pub(crate) fn find_ending(&self, kind: PartKind, package: &str, part: &SitePart, flaw: &FoldedFlaw) -> FlawEnding {
        match kind {
            PartKind::Python if flaw.is_ended => FlawEnding::Release {
                release: self.name.clone(),
                version: self.pins.get(package).cloned(),
                command: format!("camcops-provision upgrade --to {}", self.name),
            },
            PartKind::Python => self.find_judgement(package, flaw),
            PartKind::Program => FlawEnding::Program,
            PartKind::System if flaw.has_fix => {
                let binaries: Vec<&str> = part.binaries.keys().map(String::as_str).collect();
                FlawEnding::Package { command: format!("apt-get install --only-upgrade {}", binaries.join(" ")) }
            }
            PartKind::System => FlawEnding::Nothing,
        }
    }

    fn find_judgement(&self, package: &str, flaw: &FoldedFlaw) -> FlawEnding {
        let is_meant = |one: &&Remainder| {
            normal_name(&one.package) == package && (one.advisory == flaw.id || flaw.aliases.contains(&one.advisory))
        };
        match self.left.iter().find(is_meant) {
            Some(one) => FlawEnding::Judged { reason: one.reason.clone() },
            None => FlawEnding::Nothing,
        }
    }
}

impl fmt::Display for FlawEnding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FlawEnding::Release { version: Some(version), command, .. } => {
                write!(f, "`{command}`, which has {version}")
            }
            FlawEnding::Release { version: None, command, .. } => write!(f, "`{command}`, which does not need it"),
            FlawEnding::Package { command } => write!(f, "`{command}`"),
            FlawEnding::Program => f.write_str("a newer version of camcops-provision"),
            FlawEnding::Judged { reason } => write!(f, "no fix; judged: {reason}"),
            FlawEnding::Nothing => f.write_str("no known fix"),
        }
    }
}
