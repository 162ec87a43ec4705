//! What checks find and measure.

use serde::Serialize;
use std::fmt;

/// What comes before the last line of a log: that may have anything in it.
pub(crate) const LOG_ENDS: &str = "; its log ends: ";

/// How well something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// There is nothing to look at here.
    NotApplicable,
    /// All is well.
    Ok,
    /// It works, but not for ever, or not for everybody.
    Warning,
    /// It does not work.
    Failed,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::NotApplicable => "n/a",
            State::Ok => "ok",
            State::Warning => "warning",
            State::Failed => "failed",
        })
    }
}

/// One thing that a check has found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Finding {
    /// How well it is.
    pub(crate) state: State,
    /// What it is.
    pub(crate) found: String,
    /// What mends it, as a command where there is one.
    pub(crate) remedy: Option<String>,
}

impl Finding {
    /// All is well.
    pub(crate) fn ok(found: impl Into<String>) -> Finding {
        Finding::new(State::Ok, found, None)
    }

    /// There is nothing to look at.
    pub(crate) fn not_applicable(why: impl Into<String>) -> Finding {
        Finding::new(State::NotApplicable, why, None)
    }

    /// It works, for now.
    pub(crate) fn warning(found: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding::new(State::Warning, found, Some(remedy.into()))
    }

    /// It does not work.
    pub(crate) fn failed(found: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding::new(State::Failed, found, Some(remedy.into()))
    }

    pub(super) fn new(state: State, found: impl Into<String>, remedy: Option<String>) -> Finding {
        Finding {
            state,
            found: found.into(),
            remedy,
        }
    }
}

/// A number that monitoring can draw.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Measure {
    /// In small letters, with its unit at the end, such as `certificate_days_left`.
    pub(crate) name: &'static str,
    /// Which of several, such as a directory.
    pub(crate) of: Option<String>,
    /// How much.
    pub(crate) value: f64,
}

/// What one check has found.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    /// The check.
    pub(crate) id: &'static str,
    /// What it looks at.
    pub(crate) looks_at: &'static str,
    /// Why that matters.
    pub(crate) matters: &'static str,
    /// The worst of its findings.
    pub(crate) state: State,
    /// What it found.
    pub(crate) findings: Vec<Finding>,
    /// What it measured.
    pub(crate) measures: Vec<Measure>,
    /// How long it took.
    pub(crate) milliseconds: u64,
}
