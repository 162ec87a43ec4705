//! Versions, compared as those who give them out compare them.
//!
//! Each of the three orders is a page, and its rules have not changed in years: a crate for each (`pep440_rs` with what it
//! stands on, `semver`, `debversion`) would be more code to look after than this is. They are held against the examples of
//! their authors in the tests beside them.

mod debian;
mod python;
mod semantic;

use super::parts::PartKind;
use debian::DebianVersion;
use python::PythonVersion;
use semantic::SemanticVersion;

/// A version that can be compared with others of its kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PartVersion {
    /// By PEP 440.
    Python(PythonVersion),
    /// By Semantic Versioning 2.0.
    Semantic(SemanticVersion),
    /// As dpkg does.
    Debian(DebianVersion),
}

impl PartVersion {
    /// Nothing for what is no version of this kind.
    pub(crate) fn parse(kind: PartKind, text: &str) -> Option<PartVersion> {
        let text = text.trim();
        match kind {
            PartKind::Python => PythonVersion::parse(text).map(PartVersion::Python),
            PartKind::Program => SemanticVersion::parse(text).map(PartVersion::Semantic),
            PartKind::System => DebianVersion::parse(text).map(PartVersion::Debian),
        }
    }
}
