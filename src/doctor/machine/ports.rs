//! Who holds the ports of the site.

use crate::doctor::{Finding, Look, or_well};
use crate::host::processes::{self, Process};
use crate::session::Session;
use crate::settings::Listen;
use crate::site::ports::{self, Listening, UsedPort};
use anyhow::Result;
use std::net::{IpAddr, SocketAddr};

pub(crate) fn check_ports(look: &Look<'_>) -> Result<Vec<Finding>> {
    let site = look.site;
    let mut findings = Vec::new();
    for port in ports::observe_ports(site)? {
        let Some(number) = port.port else { continue };
        let strangers = port
            .listening
            .iter()
            .filter(|one| is_in_the_way(site, &port.purpose, one))
            .filter_map(|one| Some((one, one.by.as_ref()?)))
            .filter(|(_, holder)| !is_right(site, &port.purpose, holder));
        let strangers: Vec<Finding> = strangers
            .map(|(one, holder)| {
                let unit = processes::unit_of(holder.pid);
                let (whose, stop) = match &unit {
                    Some(unit) => (format!(" of {unit}"), format!("systemctl disable --now {unit}")),
                    None => (String::new(), format!("ps -fp {}   # find out what it is, and stop it", holder.pid)),
                };
                Finding::failed(
                    format!(
                        "{} at {} is in use by {} (process {}{whose})",
                        port.purpose, one.address, holder.name, holder.pid
                    ),
                    match setting_of_port(&port.purpose) {
                        Some("services.extra") => {
                            format!("{stop}   # or another port in services.extra: camcops-provision config edit")
                        }
                        Some(key) => {
                            format!("{stop}   # or: camcops-provision config set {key} PORT")
                        }
                        None => stop,
                    },
                )
            })
            .collect();
        if strangers.is_empty() {
            findings.push(Finding::ok(free_port(&port, number)));
        }
        findings.extend(strangers);
    }
    Ok(or_well(findings, || Finding::not_applicable("the site uses no port on this machine")))
}

fn free_port(port: &UsedPort, number: u16) -> String {
    let holders: Vec<&str> = port.listening.iter().filter_map(|one| Some(one.by.as_ref()?.name.as_str())).collect();
    match holders.first() {
        Some(holder) => format!("{}: {number}, used by {holder}", port.purpose),
        None => format!("{}: {number} is free", port.purpose),
    }
}

/// Whether a listener takes an address that the site needs. Where nobody knows whose it is, it is nobody's fault.
fn is_in_the_way(site: &Session, purpose: &str, one: &Listening) -> bool {
    let Ok(address) = one.address.parse::<SocketAddr>() else {
        return false;
    };
    let theirs = address.ip();
    let listen = &site.settings().web.listen;
    let ours: Vec<IpAddr> = match purpose {
        "https" | "http" => listen
            .iter()
            .filter_map(|listen| match listen {
                Listen::Any => None,
                Listen::Address(address) => Some(*address),
            })
            .collect(),
        _ => return theirs.is_unspecified() || theirs.is_loopback(),
    };
    let everywhere = ours.len() < listen.len() || listen.is_empty();
    everywhere || theirs.is_unspecified() || ours.contains(&theirs)
}

/// Whether it is who should be there.
fn is_right(site: &Session, purpose: &str, holder: &Process) -> bool {
    let program = holder.name.as_str();
    match purpose {
        "https" | "http" => program == site.facts.flavour.apache_service,
        "broker" => program.starts_with("beam"),
        _ if purpose != "database" => {
            let ours = format!("camcops-{purpose}@{}", site.layout.slug);
            let unit = processes::unit_of(holder.pid);
            // The manager itself holds a socket until its service is started.
            holder.pid == 1
                || match unit {
                    Some(unit) if unit.starts_with("camcops-") => unit.starts_with(&ours),
                    Some(unit) => unit.starts_with("supervisor"),
                    // A service of the site's own may have an account of its own.
                    None if !["server", "monitor"].contains(&purpose) => true,
                    None => processes::owner_of(holder.pid) == site.host.accounts.uid(site.account()),
                }
        }
        _ => true,
    }
}

fn setting_of_port(purpose: &str) -> Option<&'static str> {
    Some(match purpose {
        "https" => "web.https_port",
        "http" => "web.http_port",
        "server" => "web.bind",
        "monitor" => "monitor.port",
        "broker" => "broker.port",
        "database" => return None,
        _ => "services.extra",
    })
}
