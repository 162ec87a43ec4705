//! `doctor`: the named checks, each failure with its remedy.

use super::open_running;
use crate::base::error::Exit;
use crate::base::report::Report;
use crate::base::terminal::{self, Style, count_of};
use crate::cli::{Doctor, Global};
use crate::doctor::{self, CHECKS, CheckOutcome, Health, Look, Occasion, metrics};
use crate::session::Session;
use anyhow::Result;
use serde_json::json;
use std::fmt::Write as _;

pub(crate) async fn run(global: &Global, flags: &Doctor) -> Result<Report> {
    if flags.list {
        return Ok(list_checks());
    }
    match examine_site(global, flags).await {
        Ok((site, outcomes)) => report_outcomes(&site, &outcomes, flags),
        // A plugin has no other way to say that it could not find out.
        Err(why) if flags.monitoring => Ok(Report::of_code(metrics::UNKNOWN)
            .with_line(format!("CAMCOPS UNKNOWN: {}", format!("{why:#}").replace(['\n', '|'], " ")))),
        Err(why) => Err(why),
    }
}

pub(super) async fn examine_site(global: &Global, flags: &Doctor) -> Result<(Session, Vec<CheckOutcome>)> {
    let subject = match (flags.preflight, flags.end_to_end) {
        (true, _) => Occasion::Before,
        (_, true) => Occasion::EndToEnd,
        _ => Occasion::Site,
    };
    let checks = doctor::choose_checks(&flags.checks, subject)?;
    let ignored = doctor::choose_ignored(&flags.ignore)?;
    let site = open_running(global, "examine it")?;
    let journal = site.journal()?;
    if !journal.exists() && !flags.preflight {
        return Err(Exit::Failed.because(format!(
            "the instance {} is not installed; `camcops-provision doctor --preflight` checks whether it can be",
            site.instance
        )));
    }
    let outcomes = doctor::run_checks(&Look::at(&site, journal, flags.preflight), &checks, &ignored).await;
    site.close().await;
    Ok((site, outcomes))
}

fn list_checks() -> Report {
    let document: Vec<_> = CHECKS
        .iter()
        .map(|check| json!({ "id": check.id, "looks_at": check.looks_at, "matters": check.matters }))
        .collect();
    Report::new(json!({ "checks": document }))
        .with_lines(CHECKS.iter().map(|check| format!("{:<21} {}", check.id, check.looks_at)))
}

fn report_outcomes(site: &Session, outcomes: &[CheckOutcome], flags: &Doctor) -> Result<Report> {
    let worst = doctor::worst_state(outcomes);
    let mut report = Report::new(json!({ "instance": site.instance, "state": worst, "checks": outcomes }));
    if let Some(file) = &flags.metrics {
        let text = metrics::prometheus_text(&site.instance, outcomes);
        match file.to_str() {
            Some("-") => terminal::print(&text)?,
            Some(path) if path.starts_with('/') => {
                // What is collected is read by an account of its own.
                site.host.put_file(path, text.as_bytes(), Some((0, 0)), 0o644)?;
            }
            _ => {
                return Err(Exit::Usage.because(format!(
                    "--metrics {}: give an absolute path, or - for standard output",
                    file.display()
                )));
            }
        }
    }
    if flags.monitoring {
        let (text, code) = metrics::plugin_output(outcomes);
        return Ok(Report::of_code(code).with_text(text));
    }
    if flags.metrics.is_none() {
        report = report.with_table(describe_outcomes(outcomes, site.style)).with_remark(count_outcomes(outcomes));
    }
    Ok(report.with_code(if worst == Health::Failed { Exit::Failed as u8 } else { 0 }))
}

/// What is wrong comes last: that is what stays on the screen.
fn describe_outcomes(outcomes: &[CheckOutcome], style: Style) -> String {
    let mut sorted: Vec<&CheckOutcome> = outcomes.iter().collect();
    sorted.sort_by_key(|outcome| outcome.state.max(Health::Ok));
    sorted.into_iter().map(|outcome| describe_outcome(outcome, style)).collect()
}

/// `41 checks: 1 failed, 1 warning`
fn count_outcomes(outcomes: &[CheckOutcome]) -> String {
    let number = |state: Health| outcomes.iter().filter(|outcome| outcome.state == state).count();
    let mut counts = Vec::new();
    if number(Health::Failed) > 0 {
        counts.push(format!("{} failed", number(Health::Failed)));
    }
    if number(Health::Warning) > 0 {
        counts.push(count_of(number(Health::Warning), "warning"));
    }
    if counts.is_empty() {
        counts.push("no problem found".into());
    }
    format!("{}: {}", count_of(outcomes.len(), "check"), counts.join(", "))
}

fn describe_outcome(outcome: &CheckOutcome, style: Style) -> String {
    let mut text = String::new();
    let mut explained = false;
    for finding in &outcome.findings {
        if finding.state <= Health::Ok && style.quiet {
            continue;
        }
        let (colour, reset) = match (style.color, finding.state) {
            (false, _) => ("", ""),
            (_, Health::NotApplicable) => ("\x1b[2m", "\x1b[0m"),
            (_, Health::Ok) => ("\x1b[32m", "\x1b[0m"),
            (_, Health::Warning) => ("\x1b[33m", "\x1b[0m"),
            (_, Health::Failed) => ("\x1b[31m", "\x1b[0m"),
        };
        let found = finding.found.replace('\n', "\n                                 ");
        let _ = writeln!(text, "{colour}{:<8}{reset} {:<21} {found}", finding.state.to_string(), outcome.id);
        if finding.state > Health::Ok {
            if !explained {
                let _ = writeln!(text, "{:31}why: {}", "", outcome.matters);
                explained = true;
            }
            if let Some(remedy) = &finding.remedy {
                let _ = writeln!(text, "{:31}do:  {remedy}", "");
            }
        }
    }
    text
}

/// What `install` asks before the first change of a new site: failures stop it, the rest is told once.
pub(crate) async fn before_install(site: &Session, ignored: &[&str]) -> Result<()> {
    let journal = site.journal()?;
    if journal.exists() || site.host.staged_root().is_some() {
        return Ok(());
    }
    // Of the settings install itself has told by now.
    let checks: Vec<_> = doctor::choose_checks(&[], Occasion::Before)?
        .into_iter()
        .filter(|check| !["settings", "packages", "python"].contains(&check.id))
        .collect();
    let outcomes = doctor::run_checks(&Look::at(site, journal, true), &checks, ignored).await;
    let lines = |wanted: Health| -> Vec<String> {
        let all = outcomes.iter().flat_map(|outcome| {
            let findings = outcome.findings.iter();
            findings.map(move |finding| (outcome.id, finding))
        });
        all.filter(|(_, finding)| finding.state == wanted)
            .map(|(id, finding)| match &finding.remedy {
                Some(remedy) => format!("{id}: {}; try `{remedy}`", finding.found),
                None => format!("{id}: {}", finding.found),
            })
            .collect()
    };
    site.style.warn(&lines(Health::Warning));
    let failed = lines(Health::Failed);
    if failed.is_empty() {
        return Ok(());
    }
    let ids = outcomes.iter().filter(|outcome| outcome.state == Health::Failed).map(|outcome| outcome.id);
    Err(Exit::CannotCreate.because(format!(
        "this machine is not ready; nothing was changed:\n{}\nto install anyway: camcops-provision install --ignore {}",
        failed.join("\n"),
        ids.collect::<Vec<_>>().join(",")
    )))
}
