//! Units of systemd, through systemctl: one look at all of them, and one step at a time.

use super::{ServicePhase, ServiceState};
use crate::base::error::Exit;
use crate::host::{Begun, Child, Ended, Host, processes};
use anyhow::{Result, bail};
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

const PROPERTIES: &str = "LoadState,ActiveState,SubState,UnitFileState,NeedDaemonReload,MainPID,FragmentPath,DropInPaths,StateChangeTimestampMonotonic,ActiveEnterTimestampMonotonic,ReloadResult,Result,NRestarts";
/// The sign that systemd itself documents.
const RUNNING: &str = "/run/systemd/system";
/// Where it remembers when a timer last went off.
const STAMPS: &str = "/var/lib/systemd/timers";

/// Whether systemd runs this machine.
pub(crate) fn is_running(host: &Host) -> Result<bool> {
    Ok(host.stat(RUNNING)?.is_some())
}

/// What systemd knows of these units.
pub(crate) fn see_units(host: &Host, units: &[String]) -> Result<BTreeMap<String, ServiceState>> {
    match ask_about(host, units)? {
        Some(question) => parse_answer(units, &question.end()?),
        None => Ok(BTreeMap::new()),
    }
}

/// Begins to ask for them; [`parse_answer`] gives the answer.
pub(crate) fn begin_to_see(host: &Host, units: &[String]) -> Result<Option<Begun>> {
    ask_about(host, units)?.map(Child::begin).transpose()
}

fn ask_about<'a>(host: &'a Host, units: &[String]) -> Result<Option<Child<'a>>> {
    if units.is_empty() || !is_running(host)? {
        return Ok(None);
    }
    let property = format!("--property={PROPERTIES}");
    let question = host.child("systemctl").args(["show", "--no-pager", &property, "--"]);
    Ok(Some(question.args(units)))
}

pub(crate) fn parse_answer(units: &[String], said: &Ended) -> Result<BTreeMap<String, ServiceState>> {
    if !said.status.success() {
        return Err(Exit::Unreachable
            .because(format!("systemd does not answer: {}; check `systemctl status`", said.last_words())));
    }
    // A name may be an alias, so the order tells which is which.
    Ok(units.iter().cloned().zip(said.output.split("\n\n").map(parse_block)).collect())
}

fn parse_block(block: &str) -> ServiceState {
    let value = |key: &str| {
        block.lines().find_map(|line| line.trim_start().strip_prefix(key)?.strip_prefix('=')).unwrap_or_default()
    };
    let number = |key: &str| value(key).parse::<u64>().unwrap_or(0);
    let moment = |key: &str| match number(key) {
        0 => None,
        microseconds => processes::from_monotonic(microseconds),
    };
    let mut files: Vec<String> = value("DropInPaths").split_whitespace().map(str::to_owned).collect();
    if !value("FragmentPath").is_empty() {
        files.push(value("FragmentPath").to_owned());
    }
    ServiceState {
        there: value("LoadState") == "loaded",
        masked: value("LoadState") == "masked",
        phase: match value("ActiveState") {
            "active" | "reloading" => ServicePhase::Running,
            "activating" => ServicePhase::Starting,
            "deactivating" => ServicePhase::Stopping,
            "failed" => ServicePhase::Failed,
            _ => ServicePhase::Stopped,
        },
        detail: value("SubState").to_owned(),
        pid: u32::try_from(number("MainPID")).ok().filter(|pid| *pid > 0),
        since: moment("ActiveEnterTimestampMonotonic"),
        reloaded: moment("StateChangeTimestampMonotonic").filter(|_| value("ReloadResult") == "success"),
        enabled: Some(matches!(value("UnitFileState"), "enabled" | "enabled-runtime" | "alias")),
        stale_files: value("NeedDaemonReload") == "yes",
        files,
        restarts: u32::try_from(number("NRestarts")).unwrap_or(u32::MAX),
        result: value("Result").to_owned(),
        again: value("SubState").starts_with("auto-restart"),
    }
}

/// Makes systemd read its unit files again.
pub(crate) fn reload_files(host: &Host) -> Result<()> {
    host.run("systemctl", &["daemon-reload"])
}

/// Starts, stops, restarts or reloads a unit, and waits for it.
pub(crate) fn give_order(host: &Host, verb: &str, unit: &str) -> Result<()> {
    if verb == "start" || verb == "restart" {
        // A unit that failed too often is otherwise refused without a try.
        let _ = host.child("systemctl").args(["reset-failed", "--", unit]).end()?;
    }
    let said = host.child("systemctl").args([verb, "--", unit]).end()?;
    if said.status.success() {
        return Ok(());
    }
    let hints = ["See ", "Hint: "];
    let complaint: Vec<&str> = said
        .complaint
        .lines()
        .map(|line| line.split(" See \"").next().unwrap_or(line))
        .filter(|line| !hints.iter().any(|hint| line.starts_with(hint)))
        .collect();
    bail!("{}", complaint.join(" "))
}

/// Switches a unit on for the next boot.
pub(crate) fn enable_unit(host: &Host, unit: &str) -> Result<()> {
    host.run("systemctl", &["--quiet", "enable", "--", unit])
}

/// Stops everything of an instance, whatever of it is loaded.
pub(crate) fn stop_instance(host: &Host, slug: &str) -> Result<()> {
    if !is_running(host)? {
        return Ok(());
    }
    let units = [
        format!("camcops-*@{slug}.timer"),
        format!("camcops-*@{slug}.socket"),
        format!("camcops-*@{slug}.service"),
        // A pattern too: one that is not loaded any more is no failure then.
        format!("camcops[@]{slug}.target"),
    ];
    let mut arguments = vec!["--quiet", "stop", "--"];
    arguments.extend(units.iter().map(String::as_str));
    host.run("systemctl", &arguments)?;
    // A timer that makes up for what it missed is remembered beyond its end.
    host.remove_file(&format!("{STAMPS}/stamp-camcops-backup@{slug}.timer"))
}

/// Stops a unit that still runs although its file is gone.
pub(crate) fn stop_forgotten(host: &Host, unit: &str) -> Result<()> {
    let seen = see_units(host, &[unit.to_owned()])?;
    match seen.get(unit) {
        Some(seen) if !seen.there && seen.phase == ServicePhase::Running => give_order(host, "stop", unit),
        _ => Ok(()),
    }
}

/// The last lines that a unit logged since then.
pub(crate) fn read_log(host: &Host, unit: &str, since: SystemTime) -> Result<String> {
    let seconds = since.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
    let since = format!("--since=@{seconds}");
    let arguments = [
        "--no-pager",
        "--output=cat",
        "--lines=60",
        // Without it these would be the first lines since then.
        "--reverse",
        &since,
        "--unit",
        unit,
    ];
    // What was just said may not be written yet.
    let _ = host.child("journalctl").args(["--sync"]).end();
    let newest_first = host.child("journalctl").args(arguments).end()?.output;
    Ok(newest_first.lines().rev().fold(String::new(), |text, line| text + line + "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_of_properties_is_read() {
        let seen = parse_block(
            "MainPID=885\nResult=success\nNRestarts=2\nReloadResult=success\nLoadState=loaded\nActiveState=active\nSubState=running\nFragmentPath=/etc/a@.service\nDropInPaths=/etc/a.d/1.conf /etc/a.d/2.conf\nUnitFileState=enabled\nStateChangeTimestampMonotonic=1\nActiveEnterTimestampMonotonic=0\nNeedDaemonReload=no\n",
        );
        assert_eq!(seen.phase, ServicePhase::Running);
        assert_eq!((seen.pid, seen.restarts), (Some(885), 2));
        assert_eq!(seen.files, ["/etc/a.d/1.conf", "/etc/a.d/2.conf", "/etc/a@.service"]);
        assert!(seen.there && !seen.stale_files && seen.enabled == Some(true));
        assert!(seen.since.is_none() && seen.reloaded.is_some());
    }

    #[test]
    fn a_unit_that_is_started_again_and_again_keeps_failing() {
        let seen = |sub: &str, restarts: u32| {
            parse_block(&format!(
                "LoadState=loaded\nActiveState=activating\nSubState={sub}\nNRestarts={restarts}\nResult=exit-code\n"
            ))
        };
        // It waits for the next start, whether that is the first one or not, or it is in it.
        for (sub, restarts) in [("auto-restart", 0), ("auto-restart-queued", 4), ("start", 3)] {
            assert!(seen(sub, restarts).keeps_failing(), "{sub}");
        }
        assert!(!seen("start", 0).keeps_failing());
        let mut runs = ServiceState {
            phase: ServicePhase::Running,
            restarts: 3,
            since: Some(SystemTime::now()),
            ..ServiceState::default()
        };
        assert!(runs.keeps_failing());
        runs.since = SystemTime::now().checked_sub(std::time::Duration::from_secs(600));
        assert!(!runs.keeps_failing());
    }

    #[test]
    fn a_unit_that_is_not_there_is_stopped() {
        let seen = parse_block("MainPID=0\nLoadState=not-found\nActiveState=inactive\nUnitFileState=\n");
        assert!(!seen.there && seen.pid.is_none());
        assert_eq!(seen.phase, ServicePhase::Stopped);
        assert_eq!(seen.enabled, Some(false));
    }
}
