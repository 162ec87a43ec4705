//! Services of others on a machine without systemd: seen by their processes, driven by their own scripts.

use super::{Phase, Seen};
use crate::host::Host;
use crate::processes::{self, Table};
use anyhow::Result;

/// What runs under this name.
pub fn see(host: &Host, service: &str) -> Result<Seen> {
    let programs: &[&str] = match service {
        "apache2" | "httpd" => &["apache2", "httpd"],
        "rabbitmq-server" => &["beam.smp"],
        _ => &["mariadbd", "mysqld"],
    };
    let mut running: Vec<(std::time::SystemTime, u32)> = processes::all()
        .into_iter()
        .filter(|pid| {
            processes::program(*pid).is_some_and(|name| programs.contains(&name.as_str()))
        })
        .filter_map(|pid| Some((processes::started(pid)?, pid)))
        .collect();
    running.sort();
    let first = running.first().copied();
    let script = format!("/etc/init.d/{service}");
    Ok(Seen {
        there: first.is_some() || host.look(&script)?.is_some(),
        phase: match first {
            Some(_) => Phase::Running,
            None => Phase::Stopped,
        },
        pid: first.map(|(_, pid)| pid),
        since: first.map(|(started, _)| started),
        // The workers of Apache are replaced when it reads its configuration again.
        reloaded: first.and_then(|(_, pid)| {
            let table = Table::read();
            table.children(pid).filter_map(processes::started).min()
        }),
        ..Seen::default()
    })
}

/// Starts, restarts or reloads it.
pub fn order(host: &Host, verb: &str, service: &str) -> Result<()> {
    host.run("service", &[service, verb])
}
