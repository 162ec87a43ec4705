//! `ports`: the ports and sockets that the settings name, and who really listens there.

use crate::base::error::Exit;
use crate::base::report::Report;
use crate::session::Session;
use crate::site::ports::{self, UsedPort};
use anyhow::Result;
use serde_json::json;

pub(crate) fn run(site: &Session) -> Result<Report> {
    if site.host.staged_root().is_some() {
        return Err(Exit::Usage.because("ports needs a running machine; run without --root"));
    }
    let ports = ports::observe_ports(site)?;
    Ok(Report::new(json!({ "instance": site.instance, "ports": ports })).with_lines(ports.iter().map(format_port)))
}

fn format_port(port: &UsedPort) -> String {
    let listening: Vec<String> = port
        .listening
        .iter()
        .map(|one| match &one.by {
            Some(process) => format!("{} ({}, process {})", one.address, process.name, process.pid),
            None => one.address.clone(),
        })
        .collect();
    let listening = match (listening.is_empty(), port.port) {
        (false, _) => listening.join(", "),
        (true, None) if port.hidden => "only root can see it".into(),
        (true, None) if !port.declared.starts_with('/') => "on another machine".into(),
        (true, _) => "nothing listens".into(),
    };
    format!("{:<12} {:<34} {listening}", port.purpose, port.declared)
}
