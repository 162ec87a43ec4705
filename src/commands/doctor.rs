//! `doctor`: the named checks, each failure with its remedy.

use super::need_machine;
use crate::base::error::Exit;
use crate::base::terminal::{self, Style};
use crate::cli::{Doctor, Global};
use crate::doctor::{self, CHECKS, Look, Outcome, State, Subject, metrics};
use crate::session::Session;
use anyhow::Result;
use serde_json::json;
use std::fmt::Write as _;

/// Runs the checks and says what is wrong.
pub(crate) async fn run(global: &Global, flags: &Doctor, style: Style) -> Result<u8> {
    if flags.list {
        return list(style);
    }
    let done = examined(global, flags).await;
    match done {
        Ok((site, outcomes)) => tell(&site, &outcomes, flags, style),
        Err(why) if flags.monitoring => {
            // A plugin has no other way to say that it could not find out.
            terminal::print_line(&format!(
                "CAMCOPS UNKNOWN: {}",
                format!("{why:#}").replace(['\n', '|'], " ")
            ))?;
            Ok(metrics::UNKNOWN)
        }
        Err(why) => Err(why),
    }
}

async fn examined(global: &Global, flags: &Doctor) -> Result<(Session, Vec<Outcome>)> {
    let subject = match (flags.preflight, flags.end_to_end) {
        (true, _) => Subject::Before,
        (_, true) => Subject::EndToEnd,
        _ => Subject::Site,
    };
    let checks = doctor::chosen(&flags.checks, subject)?;
    need_machine(global, "examine it")?;
    let site = Session::open(global)?;
    let journal = site.journal()?;
    if !journal.exists() && !flags.preflight {
        return Err(Exit::Failed.because(format!(
            "the instance {} is not installed; `camcops-provision doctor --preflight` says whether it could be",
            site.instance
        )));
    }
    let outcomes = doctor::run(&Look::at(&site, journal, flags.preflight), &checks).await;
    site.close().await;
    Ok((site, outcomes))
}

fn list(style: Style) -> Result<u8> {
    if style.json {
        let all: Vec<_> = CHECKS
            .iter()
            .map(|check| json!({ "id": check.id, "looks_at": check.looks_at, "matters": check.matters }))
            .collect();
        terminal::print_json(&json!({ "checks": all }))?;
        return Ok(0);
    }
    for check in &CHECKS {
        terminal::print_line(&format!("{:<21} {}", check.id, check.looks_at))?;
    }
    Ok(0)
}

fn tell(site: &Session, outcomes: &[Outcome], flags: &Doctor, style: Style) -> Result<u8> {
    if let Some(file) = &flags.metrics {
        let text = metrics::prometheus(&site.instance, outcomes);
        match file.to_str() {
            Some("-") => terminal::print(&text)?,
            Some(path) if path.starts_with('/') => {
                // What is collected is read by an account of its own.
                site.host
                    .put_file(path, text.as_bytes(), Some((0, 0)), 0o644)?;
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
        let (text, code) = metrics::plugin(outcomes);
        terminal::print(&text)?;
        return Ok(code);
    }
    let worst = doctor::worst(outcomes);
    if style.json {
        terminal::print_json(&json!({
            "instance": site.instance,
            "state": worst,
            "checks": outcomes,
        }))?;
    } else if flags.metrics.is_none() {
        for outcome in outcomes {
            terminal::print(&told(outcome, style))?;
        }
    }
    Ok(match worst {
        State::Failed => Exit::Failed as u8,
        _ => 0,
    })
}

fn told(outcome: &Outcome, style: Style) -> String {
    let mut text = String::new();
    let mut explained = false;
    for finding in &outcome.findings {
        if finding.state <= State::Ok && style.quiet {
            continue;
        }
        let (colour, reset) = match (style.color, finding.state) {
            (false, _) => ("", ""),
            (_, State::NotApplicable) => ("\x1b[2m", "\x1b[0m"),
            (_, State::Ok) => ("\x1b[32m", "\x1b[0m"),
            (_, State::Warning) => ("\x1b[33m", "\x1b[0m"),
            (_, State::Failed) => ("\x1b[31m", "\x1b[0m"),
        };
        let found = finding
            .found
            .replace('\n', "\n                                 ");
        let _ = writeln!(
            text,
            "{colour}{:<8}{reset} {:<21} {found}",
            finding.state.to_string(),
            outcome.id
        );
        if finding.state > State::Ok {
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
pub(crate) async fn before_install(site: &Session, style: Style) -> Result<()> {
    let journal = site.journal()?;
    if journal.exists() || site.host.staged_root().is_some() {
        return Ok(());
    }
    // Of the settings install itself has told by now.
    let checks: Vec<_> = doctor::chosen(&[], Subject::Before)?
        .into_iter()
        .filter(|check| !["settings", "packages", "python"].contains(&check.id))
        .collect();
    let outcomes = doctor::run(&Look::at(site, journal, true), &checks).await;
    let lines = |wanted: State| -> Vec<String> {
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
    style.warn(&lines(State::Warning));
    match lines(State::Failed) {
        failed if failed.is_empty() => Ok(()),
        failed => Err(Exit::CannotCreate.because(format!(
            "this machine is not ready, and nothing was changed:\n{}",
            failed.join("\n")
        ))),
    }
}
