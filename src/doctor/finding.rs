//! What checks find and measure.

use serde::Serialize;
use std::fmt;

/// What comes before the last line of a log: that may have anything in it.
pub(crate) const LOG_ENDS: &str = "; its log ends: ";

/// What mends most of it.
const INSTALL: &str = "camcops-provision install";

/// How well something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Health {
    /// There is nothing to look at here.
    NotApplicable,
    /// All is well.
    Ok,
    /// It works, but not for ever, or not for everybody.
    Warning,
    /// It does not work.
    Failed,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Health::NotApplicable => "n/a",
            Health::Ok => "ok",
            Health::Warning => "warning",
            Health::Failed => "failed",
        })
    }
}

/// One thing that a check has found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Finding {
    pub(crate) state: Health,
    pub(crate) found: String,
    /// What mends it, as a command where there is one.
    pub(crate) remedy: Option<String>,
}

impl Finding {
    /// All is well.
    pub(crate) fn ok(found: impl Into<String>) -> Finding {
        Finding::new(Health::Ok, found, None)
    }

    /// There is nothing to look at.
    pub(crate) fn not_applicable(why: impl Into<String>) -> Finding {
        Finding::new(Health::NotApplicable, why, None)
    }

    /// It works, for now.
    pub(crate) fn warning(found: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding::new(Health::Warning, found, Some(remedy.into()))
    }

    /// It does not work.
    pub(crate) fn failed(found: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding::new(Health::Failed, found, Some(remedy.into()))
    }

    /// It does not work, and `install` mends it.
    pub(crate) fn for_install(found: impl Into<String>) -> Finding {
        Finding::failed(found, INSTALL)
    }

    pub(super) fn new(state: Health, found: impl Into<String>, remedy: Option<String>) -> Finding {
        Finding { state, found: found.into(), remedy }
    }
}

/// Most checks find one thing.
impl From<Finding> for Vec<Finding> {
    fn from(finding: Finding) -> Vec<Finding> {
        vec![finding]
    }
}

/// What was found, or that all is well where that was nothing.
pub(crate) fn or_well(mut findings: Vec<Finding>, well: impl FnOnce() -> Finding) -> Vec<Finding> {
    if findings.is_empty() {
        findings.push(well());
    }
    findings
}

/// Why a check has nothing to look at.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotApplicable(pub(crate) &'static str);

/// A number that monitoring can draw.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Measure {
    /// In small letters, with its unit at the end, such as `certificate_days_left`.
    pub(crate) name: &'static str,
    /// Which of several, such as a directory.
    pub(crate) of: Option<String>,
    pub(crate) value: f64,
}

/// What one check has found.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct CheckOutcome {
    pub(crate) id: &'static str,
    pub(crate) looks_at: &'static str,
    pub(crate) matters: &'static str,
    pub(crate) state: Health,
    pub(crate) findings: Vec<Finding>,
    pub(crate) measures: Vec<Measure>,
    pub(crate) milliseconds: u64,
}
