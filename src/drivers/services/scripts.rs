//! Services of others on a machine without systemd: seen by their processes, driven by their own scripts.

use super::{ServicePhase, ServiceState};
use crate::host::{Host, processes};
use anyhow::Result;
use std::time::SystemTime;

/// What runs under this name.
pub(crate) fn see_service(host: &Host, service: &str) -> Result<ServiceState> {
    let programs: &[&str] = match service {
        "apache2" | "httpd" => &["apache2", "httpd"],
        "rabbitmq-server" => &["beam.smp"],
        _ => &["mariadbd", "mysqld"],
    };
    let mut running: Vec<(SystemTime, u32)> = processes::all_processes()
        .into_iter()
        .filter(|pid| processes::program_of(*pid).is_some_and(|name| programs.contains(&name.as_str())))
        .filter_map(|pid| Some((processes::start_time(pid)?, pid)))
        .collect();
    running.sort();
    let noted = noted_process(service);
    let main = |one: &&(SystemTime, u32)| noted.is_some_and(|(pid, _)| pid == one.1);
    let first = running.iter().find(main).or(running.first()).copied();
    let script = format!("/etc/init.d/{service}");
    Ok(ServiceState {
        there: first.is_some() || host.stat(&script)?.is_some(),
        phase: match first {
            Some(_) => ServicePhase::Running,
            None => ServicePhase::Stopped,
        },
        pid: first.map(|(_, pid)| pid),
        since: first.map(|(started, _)| started),
        // A former worker of Apache tells nothing: it lives as long as a visitor of its own stays.
        reloaded: first.map(|(started, _)| noted.map_or(started, |(_, when)| when.max(started))),
        ..ServiceState::default()
    })
}

/// The main process of Apache as it noted it, and when: it does so each time that it reads its configuration.
fn noted_process(service: &str) -> Option<(u32, SystemTime)> {
    let path = format!("/run/{service}/{service}.pid");
    let when = std::fs::metadata(&path).and_then(|file| file.modified());
    let pid = std::fs::read_to_string(&path).ok()?.trim().parse().ok()?;
    Some((pid, when.ok()?))
}

/// Starts, restarts or reloads it.
pub(crate) fn give_order(host: &Host, verb: &str, service: &str) -> Result<()> {
    let child = host.child_apart("service");
    child.args([service, verb]).run().map(drop)
}
