//! Whether the names of the site lead to this machine.

use crate::check::{Finding, Look};
use anyhow::Result;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;
use tokio::net::lookup_host;
use tokio::time::timeout;

/// A name service that takes longer does not answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Looks each of them up.
pub async fn names(look: &Look<'_>) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for name in look.site.names() {
        let found: Vec<IpAddr> = match timeout(PATIENCE, lookup_host((name.as_str(), 0))).await {
            Ok(Ok(addresses)) => addresses.map(|address| address.ip()).collect(),
            _ => Vec::new(),
        };
        let told: Vec<String> = found.iter().map(ToString::to_string).collect();
        let told = told.join(", ");
        findings.push(if found.is_empty() {
            Finding::warning(
                format!("{name} does not resolve on this machine"),
                format!("getent hosts {name}   # enter it in the name service, or in /etc/hosts"),
            )
        } else if found.iter().copied().any(is_ours) {
            Finding::ok(format!("{name} is {told}"))
        } else {
            Finding::warning(
                format!("{name} is {told}, which is no address of this machine: a proxy in front, or a mistake"),
                format!("getent hosts {name}   # and camcops-provision config get web.server_names"),
            )
        });
    }
    Ok(findings)
}

/// Only an address of one's own can be bound.
pub fn is_ours(address: IpAddr) -> bool {
    UdpSocket::bind(SocketAddr::new(address, 0)).is_ok()
}
