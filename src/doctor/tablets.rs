//! Which versions of the tablet application come, as CamCOPS's own log has them.
//!
//! What stands there is what clients say of themselves, and anybody can be a client: only numbers of versions are taken
//! from it.

use super::{Finding, Look, NotApplicable};
use crate::base::terminal::{count_of, strip_controls};
use crate::drivers::release;
use crate::drivers::services::member::ServiceRole;
use crate::settings::LogMode;
use crate::site::facts::Manager;
use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What CamCOPS logs of each request of a tablet that it takes for one (`cc_tabletsession.py`).
const MARK: &str = "Incoming client API connection from IP=";
/// What it logs of one that is too old.
const TOO_OLD: &str = "Tablet CamCOPS version too old: is ";
/// The device that this program calls itself.
const OURS: &str = "camcops-provision";
const DAYS: u32 = 7;
/// A busy site has some thousand requests a day.
const LINES: u32 = 20_000;
const PATIENCE: Duration = Duration::from_secs(30);
/// More are a mischief of somebody.
const MOST: usize = 20;

/// The versions that came, each with its devices, and those that were turned away.
#[derive(Debug, Default, PartialEq)]
struct Versions {
    came: BTreeMap<Vec<u32>, BTreeSet<String>>,
    too_old: BTreeSet<Vec<u32>>,
}

pub(crate) fn check_tablets(look: &Look<'_>) -> Result<Vec<Finding>> {
    let Some(log) = read_log(look)? else {
        return Ok(vec![Finding::not_applicable("the web server is disabled on this machine")]);
    };
    let seen = read_versions(&log);
    let mut findings = Vec::new();
    for version in seen.too_old.iter().take(MOST) {
        findings.push(Finding::warning(
            format!("a tablet with version {} is too old and is refused", dotted(version)),
            "update the application on that tablet",
        ));
    }
    if seen.came.is_empty() {
        let of = if is_in_journal(look) { format!(" in the last {DAYS} days") } else { " in the log".into() };
        findings.push(Finding::not_applicable(format!("no tablet connected{of}")));
        return Ok(findings);
    }
    let all: Vec<String> = seen
        .came
        .iter()
        .rev()
        .take(MOST)
        .map(|(version, devices)| format!("{} ({})", dotted(version), count_of(devices.len(), "device")))
        .collect();
    let all = format!("versions of tablets: {}", all.join(", "));
    let server = release::WantedRelease::new(look.site.settings(), &look.site.facts).ok();
    let server = server.and_then(|wanted| numbers_of(wanted.version.of_camcops()));
    findings.push(match (server, seen.came.keys().next_back()) {
        (Some(server), Some(newest)) if *newest > server => Finding::warning(
            format!("{all}; the server is older: {}", dotted(&server)),
            "camcops-provision upgrade --check",
        ),
        _ => Finding::ok(all),
    });
    Ok(findings)
}

fn is_in_journal(look: &Look<'_>) -> bool {
    look.site.manager() == Manager::Systemd && look.site.settings().logging.mode == LogMode::Journal
}

/// The lines of the web server's log that tell of tablets.
fn read_log(look: &Look<'_>) -> Result<Option<String>> {
    let members = &look.services()?.members;
    let Some(server) = members.iter().find(|member| member.role == ServiceRole::Server) else {
        return Ok(None);
    };
    let (host, layout) = (&look.site.host, &look.site.layout);
    if is_in_journal(look) {
        let child = host.child("journalctl").args([format!("--unit={}", server.name)]);
        let arguments = [
            "--quiet".to_owned(),
            "--no-pager".into(),
            "--output=cat".into(),
            format!("--since=-{DAYS}days"),
            format!("--lines={LINES}"),
            format!("--grep={MARK}|{TOO_OLD}"),
        ];
        let ended = child.args(arguments).patience(PATIENCE).end()?;
        // Where there is no such line, it ends with 1 and says nothing.
        if !ended.status.success() && !ended.last_words().is_empty() {
            return Err(NotApplicable("the journal of this machine can't be searched").into());
        }
        return Ok(Some(ended.output));
    }
    let program = server.name.rsplit(':').next().unwrap_or(&server.name);
    let file = match look.site.manager() {
        Manager::Systemd => format!("{}/{}.log", layout.logs, server.service.as_deref().unwrap_or("server")),
        Manager::Supervisor => format!("{}/{program}.log", layout.supervisor_logs),
    };
    let lines = format!("--lines={LINES}");
    let tail = host.child("tail").args([lines.as_str(), "--", &file]).patience(PATIENCE);
    Ok(Some(tail.end()?.output))
}

fn read_versions(log: &str) -> Versions {
    let mut seen = Versions::default();
    for line in log.lines() {
        let line = strip_controls(line);
        if let Some((_, rest)) = line.split_once(TOO_OLD) {
            seen.too_old.extend(numbers_of(rest.split(',').next().unwrap_or_default()));
            continue;
        }
        let Some((_, rest)) = line.split_once(MARK) else { continue };
        // The name of a device has no quotes in it; CamCOPS refuses others.
        let device = rest.split_once("device_name='").and_then(|(_, rest)| rest.split_once("', camcops_version="));
        let Some((device, rest)) = device else { continue };
        let version = rest.split_once(", username=").and_then(|(version, _)| numbers_of(version));
        let Some(version) = version.filter(|_| device != OURS) else { continue };
        seen.came.entry(version).or_default().insert(device.to_owned());
    }
    seen
}

/// `2.4.24` in numbers; nothing for what is none.
fn numbers_of(version: &str) -> Option<Vec<u32>> {
    let numbers: Vec<u32> = version.split('.').map(|number| number.parse().ok()).collect::<Option<_>>()?;
    (2..=4).contains(&numbers.len()).then_some(numbers)
}

fn dotted(version: &[u32]) -> String {
    version.iter().map(u32::to_string).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the log of a server has it, colours and all.
    const LOG: &str = "\u{1b}[37m2026-11-30 10:00:00.000 camcops_server.cc_modules.cc_tabletsession:INFO: \u{1b}[0mIncoming client API connection from IP='192.0.2.1', port=None, device_name='ward_one', camcops_version=2.4.18, username=nurse, operation=upload_table\n\
        INFO: Incoming client API connection from IP=None, port=None, device_name='ward_two', camcops_version=2.4.18, username=x, operation=register\n\
        INFO: Incoming client API connection from IP=None, port=None, device_name='ward_one', camcops_version=2.4.24, username=x, operation=register\n\
        INFO: Incoming client API connection from IP=None, port=None, device_name='camcops-provision', camcops_version=2.4.23, username=None, operation=check_device_registered\n\
        INFO: Incoming client API connection from IP=None, port=None, device_name='evil', camcops_version=<b>9.9</b>, username=x, operation=register\n\
        WARNING: CLIENT-SIDE SCRIPT ERROR: Tablet CamCOPS version too old: is 1.3.0, need 1.14.0\n\
        INFO: something else with camcops_version=7.7.7, username=y\n";

    #[test]
    fn versions_are_read_from_the_log_and_nothing_else() {
        let seen = read_versions(LOG);
        let came: Vec<(String, usize)> = seen.came.iter().map(|(one, of)| (dotted(one), of.len())).collect();
        assert_eq!(came, [("2.4.18".to_owned(), 2), ("2.4.24".to_owned(), 1)]);
        assert_eq!(seen.too_old.into_iter().collect::<Vec<_>>(), [vec![1, 3, 0]]);
        assert_eq!(numbers_of("2.4.24 "), None);
        assert!(numbers_of("2.10.0") > numbers_of("2.4.24"));
    }
}
