//! Programs of supervisor, through supervisorctl. Only our own group is ever touched.

use super::{Phase, Seen, scripts, systemd};
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
const ASLEEP: [&str; 4] = [
    "no such file",
    "refused connection",
    "FileNotFoundError",
    "ConnectionRefusedError",
];

/// What supervisor knows of the programs of a group; nothing where it does not run.
pub(crate) fn see(host: &Host, group: &str) -> Result<BTreeMap<String, Seen>> {
    if !host.has_program("supervisorctl") {
        return Ok(BTreeMap::new());
    }
    let said = host
        .child("supervisorctl")
        .args(["status", &format!("{group}:*")])
        .end()?;
    Ok(said.output.lines().filter_map(seen).collect())
}

/// `camcops:camcops_server   RUNNING   pid 1234, uptime 0:01:02`
fn seen(line: &str) -> Option<(String, Seen)> {
    let mut words = line.split_whitespace();
    let name = words.next().filter(|name| name.contains(':'))?;
    let state = words.next()?;
    let phase = match state {
        "RUNNING" => Phase::Running,
        "STARTING" | "BACKOFF" => Phase::Starting,
        "STOPPING" => Phase::Stopping,
        "FATAL" | "UNKNOWN" => Phase::Failed,
        "STOPPED" | "EXITED" => Phase::Stopped,
        _ => return None,
    };
    let detail: Vec<&str> = words.collect();
    let pid = detail
        .iter()
        .position(|word| *word == "pid")
        .and_then(|at| detail.get(at + 1)?.trim_end_matches(',').parse().ok());
    let seen = Seen {
        there: true,
        phase,
        // It gives up in the end, after some tries.
        again: matches!(state, "BACKOFF" | "FATAL"),
        pid,
        since: pid.and_then(processes::started),
        detail: match pid {
            Some(_) => String::new(),
            None => detail.join(" "),
        },
        ..Seen::default()
    };
    Some((name.to_owned(), seen))
}

/// Stops all programs of a group at once, which takes as long as the slowest of them.
pub(crate) fn stop_group(host: &Host, group: &str) -> Result<()> {
    if see(host, group)?.is_empty() {
        return Ok(());
    }
    order(host, &["stop", &format!("{group}:*")])
}

/// Makes supervisor read its files again and follow them, for our group alone. Where it does not run, it is started.
pub(crate) fn update(host: &Host, group: &str) -> Result<()> {
    wake(host)?;
    order(host, &["reread"])?;
    order(host, &["update", group])
}

/// Its package does not start it on a machine without systemd that was never booted.
fn wake(host: &Host) -> Result<()> {
    if !is_asleep(host)? {
        return Ok(());
    }
    for service in SERVICES {
        if systemd::runs(host)? {
            let unit = format!("{service}.service");
            if systemd::see(host, std::slice::from_ref(&unit))?[&unit].there {
                systemd::order(host, "start", &unit)?;
            }
        } else if host.look(&format!("/etc/init.d/{service}"))?.is_some() {
            scripts::order(host, "start", service)?;
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
pub(crate) fn order(host: &Host, words: &[&str]) -> Result<()> {
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
        let (name, running) =
            seen("camcops:camcops_server   RUNNING   pid 1234, uptime 0:01:02").unwrap();
        assert_eq!(name, "camcops:camcops_server");
        assert_eq!((running.phase, running.pid), (Phase::Running, Some(1234)));
        let (_, failed) = seen(
            "camcops:camcops_workers  FATAL     Exited too quickly (process log may have details)",
        )
        .unwrap();
        assert_eq!(failed.phase, Phase::Failed);
        assert!(failed.detail.starts_with("Exited too quickly"));
        assert!(failed.keeps_failing() && !running.keeps_failing());
        let (_, again) = seen("camcops:camcops_server BACKOFF Exited too quickly").unwrap();
        assert!(again.phase == Phase::Starting && again.keeps_failing());
        let (_, starting) = seen("camcops:camcops_server STARTING").unwrap();
        assert!(!starting.keeps_failing());
        assert!(seen("unix:///var/run/supervisor.sock no such file").is_none());
        assert!(seen("camcops:*: ERROR (no such group)").is_none());
        assert!(seen("").is_none());
    }
}
