//! The named checks behind `doctor`, a static table: what each looks at, why it matters, and what mends what it found.
//!
//! A check only looks. What the recipe can tell (a missing package, a wrong owner, lacking grants) comes from the plan, so
//! that there is one truth; the rest is asked of the machine itself. Everything is asked once: see [`Look`].

mod backups;
mod broker;
mod database;
mod end_to_end;
mod exports;
mod files;
mod look;
mod machine;
pub(crate) mod metrics;
mod services;
mod table;
mod web;

use crate::base::error::Exit;
use anyhow::Result;
pub(crate) use look::Look;
pub(crate) use machine::nameless;
use serde::Serialize;
use std::fmt;
use std::time::Instant;
pub(crate) use table::{CHECKS, Check, Subject};

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

    fn new(state: State, found: impl Into<String>, remedy: Option<String>) -> Finding {
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

/// The checks that are meant: by their ids, or by the first word of several. Without any, all that fit.
pub(crate) fn chosen(asked: &[String], subject: Subject) -> Result<Vec<&'static Check>> {
    if asked.is_empty() {
        return Ok(CHECKS.iter().filter(|check| check.fits(subject)).collect());
    }
    let means = |asked: &str, check: &Check| {
        let rest = check.id.strip_prefix(asked);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    for one in asked {
        if !CHECKS.iter().any(|check| means(one, check)) {
            return Err(unknown(one));
        }
    }
    Ok(CHECKS
        .iter()
        .filter(|check| asked.iter().any(|one| means(one, check)))
        .collect())
}

fn unknown(asked: &str) -> anyhow::Error {
    let groups = CHECKS
        .iter()
        .filter_map(|check| Some(check.id.split_once('.')?.0));
    let names = CHECKS.iter().map(|check| check.id).chain(groups);
    let near = |name: &&str| strsim::jaro_winkler(asked, name);
    let nearest = names.max_by(|one, other| near(one).total_cmp(&near(other)));
    Exit::Usage.because(format!(
        "there is no check {asked}; nearest: {}; `camcops-provision doctor --list` shows them all",
        nearest.unwrap_or_default()
    ))
}

/// Runs them one after the other. Where one has failed, those that stand on it are not asked: its failure is theirs.
pub(crate) async fn run(look: &Look<'_>, checks: &[&'static Check]) -> Vec<Outcome> {
    let mut outcomes: Vec<Outcome> = Vec::with_capacity(checks.len());
    for check in checks {
        let begin = Instant::now();
        let broken = check.stands_on.iter().find(|id| {
            outcomes
                .iter()
                .any(|outcome| outcome.id == **id && outcome.state == State::Failed)
        });
        let findings = match broken {
            Some(id) => vec![Finding::not_applicable(format!("not asked: {id} failed"))],
            None => check
                .findings(look)
                .await
                .unwrap_or_else(|why| vec![Finding::new(State::Failed, format!("{why:#}"), None)]),
        };
        let state = findings.iter().map(|finding| finding.state).max();
        outcomes.push(Outcome {
            id: check.id,
            looks_at: check.looks_at,
            matters: check.matters,
            state: state.unwrap_or(State::Ok),
            findings,
            measures: look.measures.take(),
            milliseconds: begin.elapsed().as_millis() as u64,
        });
    }
    outcomes
}

/// The worst of all.
pub(crate) fn worst(outcomes: &[Outcome]) -> State {
    let states = outcomes.iter().map(|outcome| outcome.state);
    states.max().unwrap_or(State::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(asked: &[&str]) -> Vec<&'static str> {
        let asked: Vec<String> = asked.iter().map(|one| (*one).to_owned()).collect();
        let chosen = chosen(&asked, Subject::Site).unwrap();
        chosen.iter().map(|check| check.id).collect()
    }

    #[test]
    fn a_word_stands_for_all_that_begin_with_it() {
        assert_eq!(ids(&["disk"]), ["disk"]);
        assert_eq!(
            &ids(&["web"])[..4],
            ["web.app", "web.socket", "web.apache", "web.public"]
        );
        assert!(!ids(&[]).iter().any(|id| id.starts_with("e2e")));
        let why = chosen(&["web.sockt".into()], Subject::Site).unwrap_err();
        assert!(why.to_string().contains("nearest: web.socket"), "{why}");
        assert_eq!(Exit::of(&why), Exit::Usage);
    }

    #[test]
    fn the_table_is_in_order() {
        for (at, check) in CHECKS.iter().enumerate() {
            let before: Vec<&str> = CHECKS[..at].iter().map(|check| check.id).collect();
            assert!(!before.contains(&check.id), "{}", check.id);
            assert!(
                check.stands_on.iter().all(|id| before.contains(id)),
                "{}",
                check.id
            );
            assert!(!check.looks_at.ends_with('.') && !check.matters.ends_with('.'));
        }
    }
}
