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
mod finding;
pub(crate) mod history;
mod look;
mod machine;
pub(crate) mod metrics;
pub(crate) mod paths;
mod services;
mod table;
mod tablets;
mod vulnerabilities;
mod web;

use crate::base::error::Exit;
use anyhow::Result;
pub(crate) use finding::{CheckOutcome, Finding, Health, LOG_ENDS, Measure, NotApplicable, or_well};
pub(crate) use look::Look;
pub(crate) use machine::find_nameless;
use std::time::Instant;
pub(crate) use table::{CHECKS, Check, Occasion};

/// The checks that are meant: by their ids, or by the first word of several. Without any, all that fit.
pub(crate) fn choose_checks(asked: &[String], subject: Occasion) -> Result<Vec<&'static Check>> {
    if asked.is_empty() {
        return Ok(CHECKS.iter().filter(|check| check.fits(subject)).collect());
    }
    let means = |asked: &str, check: &Check| {
        let rest = check.id.strip_prefix(asked);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    for one in asked {
        if !CHECKS.iter().any(|check| means(one, check)) {
            return Err(unknown_check(one));
        }
    }
    Ok(CHECKS.iter().filter(|check| asked.iter().any(|one| means(one, check))).collect())
}

fn unknown_check(asked: &str) -> anyhow::Error {
    let groups = CHECKS.iter().filter_map(|check| Some(check.id.split_once('.')?.0));
    let names = CHECKS.iter().map(|check| check.id).chain(groups);
    let near = |name: &&str| strsim::jaro_winkler(asked, name);
    let nearest = names.max_by(|one, other| near(one).total_cmp(&near(other)));
    Exit::Usage.because(format!(
        "there is no check {asked}; nearest: {}; `camcops-provision doctor --list` shows all",
        nearest.unwrap_or_default()
    ))
}

/// The ids of the checks that are to be ignored, by their ids or by the first word of several.
pub(crate) fn choose_ignored(ignored: &[String]) -> Result<Vec<&'static str>> {
    if ignored.is_empty() {
        return Ok(Vec::new());
    }
    Ok(choose_checks(ignored, Occasion::Site)?.iter().map(|check| check.id).collect())
}

/// Runs them one after the other; what needs nobody's answer has begun by then. Where one has failed, those that stand on it are not asked: its failure is theirs.
pub(crate) async fn run_checks(look: &Look<'_>, checks: &[&'static Check], ignored: &[&str]) -> Vec<CheckOutcome> {
    let mut outcomes: Vec<CheckOutcome> = Vec::with_capacity(checks.len());
    for check in checks.iter().filter(|check| !ignored.contains(&check.id)) {
        // What can't begin is asked for in its turn, and tells why then.
        let _ = begin_early(look, check.id);
    }
    for check in checks {
        let begin = Instant::now();
        let broken = check
            .stands_on
            .iter()
            .find(|id| outcomes.iter().any(|outcome| outcome.id == **id && outcome.state == Health::Failed));
        let findings = match broken {
            _ if ignored.contains(&check.id) => vec![Finding::not_applicable("skipped (--ignore)")],
            Some(id) => vec![Finding::not_applicable(format!("not checked: {id} failed"))],
            None => check.findings(look).await.unwrap_or_else(|why| {
                vec![match why.downcast_ref() {
                    Some(NotApplicable(why)) => Finding::not_applicable(*why),
                    None => Finding::new(Health::Failed, format!("{why:#}"), None),
                }]
            }),
        };
        let state = findings.iter().map(|finding| finding.state).max();
        outcomes.push(CheckOutcome {
            id: check.id,
            looks_at: check.looks_at,
            matters: check.matters,
            state: state.unwrap_or(Health::Ok),
            findings,
            measures: look.measures.take(),
            milliseconds: begin.elapsed().as_millis() as u64,
        });
    }
    outcomes
}

fn begin_early(look: &Look<'_>, id: &str) -> Result<()> {
    match id {
        "files" => files::begin_search(look),
        "time" => machine::begin_clock(look),
        "broker.login" => broker::begin_login(look),
        "web.config" => web::begin_config(look),
        _ => Ok(()),
    }
}

pub(crate) fn worst_state(outcomes: &[CheckOutcome]) -> Health {
    let states = outcomes.iter().map(|outcome| outcome.state);
    states.max().unwrap_or(Health::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(asked: &[&str]) -> Vec<&'static str> {
        let asked: Vec<String> = asked.iter().map(|one| (*one).to_owned()).collect();
        let chosen = choose_checks(&asked, Occasion::Site).unwrap();
        chosen.iter().map(|check| check.id).collect()
    }

    #[test]
    fn a_word_stands_for_all_that_begin_with_it() {
        assert_eq!(ids(&["disk"]), ["disk"]);
        assert_eq!(&ids(&["web"])[..4], ["web.app", "web.socket", "web.apache", "web.public"]);
        assert!(!ids(&[]).iter().any(|id| id.starts_with("e2e")));
        let why = choose_checks(&["web.sockt".into()], Occasion::Site).unwrap_err();
        assert!(why.to_string().contains("nearest: web.socket"), "{why}");
        assert_eq!(Exit::of(&why), Exit::Usage);
    }

    #[test]
    fn the_table_is_in_order() {
        for (at, check) in CHECKS.iter().enumerate() {
            let before: Vec<&str> = CHECKS[..at].iter().map(|check| check.id).collect();
            assert!(!before.contains(&check.id), "{}", check.id);
            assert!(check.stands_on.iter().all(|id| before.contains(id)), "{}", check.id);
            assert!(!check.looks_at.ends_with('.') && !check.matters.ends_with('.'));
        }
    }
}
