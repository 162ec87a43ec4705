//! Whether the names of the site lead to this machine.

use crate::doctor::{Finding, Look};
use crate::engine::{Plan, Planned};
use crate::resource::{Resource, State};
use anyhow::Result;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;
use tokio::net::lookup_host;
use tokio::time::timeout;

/// The package of the broker, on each distribution.
const BROKER: &str = "rabbitmq-server";
/// A name service that takes longer does not answer.
const PATIENCE: Duration = Duration::from_secs(3);

pub(crate) async fn check_names(look: &Look<'_>) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    if look.before
        && let Ok((_, plan)) = look.plan().await
        && let Some((found, remedy)) = find_nameless(plan).await
    {
        findings.push(Finding::failed(found, remedy));
    }
    for name in look.site.names() {
        let found = resolve_name(&name).await;
        let told: Vec<String> = found.iter().map(ToString::to_string).collect();
        let told = told.join(", ");
        findings.push(if found.is_empty() {
            Finding::warning(
                format!("{name} does not resolve on this machine"),
                format!("getent hosts {name}   # add it to DNS, or to /etc/hosts"),
            )
        } else if found.iter().copied().any(is_ours) {
            Finding::ok(format!("{name} is {told}"))
        } else {
            Finding::warning(
                format!("{name} is {told}, which is not an address of this machine: a proxy in front, or a mistake"),
                format!("getent hosts {name}   # and camcops-provision config get web.server_names"),
            )
        });
    }
    Ok(findings)
}

async fn resolve_name(name: &str) -> Vec<IpAddr> {
    match timeout(PATIENCE, lookup_host((name, 0))).await {
        Ok(Ok(addresses)) => addresses.map(|address| address.ip()).collect(),
        _ => Vec::new(),
    }
}

/// RabbitMQ's package starts the broker as it comes, and Erlang insists on the machine's own name then. What is wrong with
/// that name, and what puts it right; nothing where the package is there already.
pub(crate) async fn find_nameless(plan: &Plan) -> Option<(String, String)> {
    let is_broker = |planned: &Planned| {
        matches!(&planned.change.resource, Resource::Package(name) if name == BROKER)
            && planned.change.after != State::Absent
    };
    if !plan.changes.iter().any(is_broker) {
        return None;
    }
    let name = nix::unistd::gethostname().ok()?;
    let name = name.to_string_lossy().into_owned();
    let short = name.split('.').next().unwrap_or_default();
    if !resolve_name(short).await.is_empty() {
        return None;
    }
    let names = if short == name { name.clone() } else { format!("{name} {short}") };
    Some((
        format!("this machine's own name {short} does not resolve, and RabbitMQ does not start without it"),
        format!("echo '127.0.1.1 {names}' >> /etc/hosts"),
    ))
}

/// Only an address of one's own can be bound.
pub(crate) fn is_ours(address: IpAddr) -> bool {
    UdpSocket::bind(SocketAddr::new(address, 0)).is_ok()
}
