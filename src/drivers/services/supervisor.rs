//! Programs of supervisor, through supervisorctl. Only our own group is ever touched.

use super::{ServicePhase, ServiceState, scripts, systemd};
use crate::base::error::Exit;
use crate::host::{Host, processes};
use anyhow::{Result, bail};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Debian's name for its service, and Red Hat's.
const SERVICES: [&str; 2] = ["supervisor", "supervisord"];
/// How long it has until it listens.
const READY: Duration = Duration::from_secs(30);
/// How supervisorctl says that nobody listens: each of its commands has its own way.
const ASLEEP: [&str; 4] = ["no such file", "refused connection", "FileNotFoundError", "ConnectionRefusedError"];

/// What supervisor knows of the programs of a group; nothing where it does not run.
pub(crate) fn see_group(host: &Host, group: &str) -> Result<BTreeMap<String, ServiceState>> {
    if !host.has_program("supervisorctl") {
        return Ok(BTreeMap::new());
    }
    let said = host.child("supervisorctl").args(["status", &format!("{group}:*")]).end()?;
    Ok(said.output.lines().filter_map(parse_status_line).collect())
}

/// `camcops:camcops_server   RUNNING   pid 1234, uptime 0:01:02`
fn parse_status_line(line: &str) -> Option<(String, ServiceState)> {
    let mut words = line.split_whitespace();
    let name = words.next().filter(|name| name.contains(':'))?;
    let state = words.next()?;
    let phase = match state {
        "RUNNING" => ServicePhase::Running,
        "STARTING" | "BACKOFF" => ServicePhase::Starting,
        "STOPPING" => ServicePhase::Stopping,
        "FATAL" | "UNKNOWN" => ServicePhase::Failed,
        "STOPPED" | "EXITED" => ServicePhase::Stopped,
        _ => return None,
    };
    let detail: Vec<&str> = words.collect();
    let pid = detail
        .iter()
        .position(|word| *word == "pid")
        .and_then(|at| detail.get(at + 1)?.trim_end_matches(',').parse().ok());
    let seen = ServiceState {
        there: true,
        phase,
        // It gives up in the end, after some tries.
        again: matches!(state, "BACKOFF" | "FATAL"),
        pid,
        since: pid.and_then(processes::start_time),
        detail: match pid {
            Some(_) => String::new(),
            None => detail.join(" "),
        },
        ..ServiceState::default()
    };
    Some((name.to_owned(), seen))
}

/// Stops all programs of a group at once, which takes as long as the slowest of them.
pub(crate) fn stop_group(host: &Host, group: &str) -> Result<()> {
    if see_group(host, group)?.is_empty() {
        return Ok(());
    }
    give_order(host, &["stop", &format!("{group}:*")])
}

/// Makes supervisor read its files again and follow them, for our group alone. Where it does not run, it is started.
pub(crate) fn update_group(host: &Host, group: &str) -> Result<()> {
    wake_supervisor(host)?;
    give_order(host, &["reread"])?;
    give_order(host, &["update", group])
}

/// Its package does not start it on a machine without systemd that was never booted.
fn wake_supervisor(host: &Host) -> Result<()> {
    if !is_asleep(host)? {
        return Ok(());
    }
    for service in SERVICES {
        if systemd::is_running(host)? {
            let unit = format!("{service}.service");
            if systemd::see_units(host, std::slice::from_ref(&unit))?[&unit].there {
                systemd::give_order(host, "start", &unit)?;
            }
        } else if host.stat(&format!("/etc/init.d/{service}"))?.is_some() {
            scripts::give_order(host, "start", service)?;
        }
    }
    let limit = Instant::now() + READY;
    while is_asleep(host)? && Instant::now() < limit {
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn is_asleep(host: &Host) -> Result<bool> {
    let said = host.child("supervisorctl").args(["pid"]).end()?;
    Ok(ASLEEP.iter().any(|sign| said.output.contains(sign)))
}

/// Lets supervisor do something, and waits until it did.
pub(crate) fn give_order(host: &Host, words: &[&str]) -> Result<()> {
    let said = host.child("supervisorctl").args(words).end()?;
    let goes_down = said.output.contains("SHUTDOWN_STATE");
    if goes_down || ASLEEP.iter().any(|sign| said.output.contains(sign)) {
        return Err(Exit::Unreachable.because(format!(
            "supervisor does not run: {}; start it with `service supervisor start`, or run `supervisord`, and run again",
            said.output.trim()
        )));
    }
    // Its exit code is 0 for much that went wrong.
    let wrong = said.output.lines().find(|line| line.contains("ERROR"));
    if said.status.success() && wrong.is_none() {
        return Ok(());
    }
    let already = ["already started", "not running"];
    if already.iter().any(|sign| said.output.contains(sign)) {
        return Ok(());
    }
    bail!(
        "supervisorctl {}: {}",
        words.join(" "),
        wrong.map_or_else(|| said.last_words(), |line| line.trim().to_owned())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_status_is_read() {
        let (name, running) = parse_status_line("camcops:camcops_server   RUNNING   pid 1234, uptime 0:01:02").unwrap();
        assert_eq!(name, "camcops:camcops_server");
        assert_eq!((running.phase, running.pid), (ServicePhase::Running, Some(1234)));
        let (_, failed) =
            parse_status_line("camcops:camcops_workers  FATAL     Exited too quickly (process log may have details)")
                .unwrap();
        assert_eq!(failed.phase, ServicePhase::Failed);
        assert!(failed.detail.starts_with("Exited too quickly"));
        assert!(failed.keeps_failing() && !running.keeps_failing());
        let (_, again) = parse_status_line("camcops:camcops_server BACKOFF Exited too quickly").unwrap();
        assert!(again.phase == ServicePhase::Starting && again.keeps_failing());
        let (_, starting) = parse_status_line("camcops:camcops_server STARTING").unwrap();
        assert!(!starting.keeps_failing());
        assert!(parse_status_line("unix:///var/run/supervisor.sock no such file").is_none());
        assert!(parse_status_line("camcops:*: ERROR (no such group)").is_none());
        assert!(parse_status_line("").is_none());
    }
}
