//! A rule of the machine's firewall that lets visitors in, by the profile or service that is laid out for the site. Named
//! after the firewall and the site: `ufw camcops`, `firewalld camcops`.
//!
//! Facet: `ports`, those that are open now. The firewall itself is never switched on or off, and nobody else's rules
//! change: firewalld is not reloaded, which would lose what others opened until its next start.

use crate::base::error::Exit;
use crate::host::Host;
use crate::resource::{Enforced, Facets, State};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::Duration;

/// Where ufw keeps the rules that people gave it.
const UFW_RULES: &str = "/etc/ufw/user.rules";
/// What stands above each rule there.
const UFW_TUPLE: &str = "### tuple ### ";
/// firewalld sees a new file of a service by itself, and after this at the latest.
const NOTICES: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);

/// A firewall that is in use on a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Firewall {
    Ufw,
    Firewalld,
}

fn split_name(name: &str) -> Result<(Firewall, &str)> {
    match name.split_once(' ') {
        Some(("ufw", profile)) => Ok((Firewall::Ufw, profile)),
        Some(("firewalld", service)) => Ok((Firewall::Firewalld, service)),
        _ => bail!("{name} is no rule of a firewall that is known here"),
    }
}

/// Ports as a facet has them.
pub(crate) fn join_ports(ports: impl IntoIterator<Item = u16>) -> String {
    let ports: BTreeSet<u16> = ports.into_iter().collect();
    ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Whether there is such a rule, and for which ports.
pub(crate) fn observe(host: &Host, name: &str) -> Result<State> {
    let ports = match split_name(name)? {
        (Firewall::Ufw, profile) => {
            let rules = host.read_text(UFW_RULES)?.unwrap_or_default();
            ports_of_ufw(&rules, profile)
        }
        (Firewall::Firewalld, service) => ports_of_firewalld(host, service)?,
    };
    Ok(match ports {
        None => State::Absent,
        Some(ports) => State::Present(Facets::new().with("ports", ports)),
    })
}

/// `### tuple ### allow tcp 80,443 0.0.0.0/0 any 0.0.0.0/0 camcops - in`
fn ports_of_ufw(rules: &str, profile: &str) -> Option<String> {
    rules.lines().filter_map(|line| line.strip_prefix(UFW_TUPLE)).find_map(|rule| {
        let fields: Vec<&str> = rule.split_whitespace().collect();
        let [action, _, ports, _, _, _, of, ..] = fields[..] else {
            return None;
        };
        // A blank in the name of a profile stands there as %20; ours has none.
        let is_ours = action == "allow" && of == profile;
        is_ours.then(|| join_ports(ports.split(',').filter_map(|port| port.parse().ok())))
    })
}

fn ports_of_firewalld(host: &Host, service: &str) -> Result<Option<String>> {
    let known = Firewalld::of(host)?;
    if !known.says_yes(&["--permanent"], &format!("--query-service={service}"))? {
        return Ok(None);
    }
    let wanted = ports_of_service(host, service)?;
    if !known.runs {
        return Ok(Some(join_ports(wanted)));
    }
    if known.says_yes(&[], &format!("--query-service={service}"))? {
        let told = known.ask(&[&format!("--info-service={service}")])?;
        let line = told.lines().find_map(|line| line.trim().strip_prefix("ports:")).unwrap_or_default();
        let open = line.split_whitespace().filter_map(|port| port.strip_suffix("/tcp")?.parse().ok());
        return Ok(Some(join_ports(open)));
    }
    let mut open = Vec::new();
    for port in wanted {
        if known.says_yes(&[], &format!("--query-port={port}/tcp"))? {
            open.push(port);
        }
    }
    Ok(Some(join_ports(open)))
}

/// The ports in the file of a service of firewalld.
fn ports_of_service(host: &Host, service: &str) -> Result<Vec<u16>> {
    let text = host.read_text(&format!("/etc/firewalld/services/{service}.xml"))?.unwrap_or_default();
    let ports = text.split("port=\"").skip(1);
    Ok(ports.filter_map(|rest| rest.split('"').next()?.parse().ok()).collect())
}

/// Makes the rule, or has it follow the ports; or takes it away.
pub(crate) fn enforce(host: &Host, name: &str, before: &State, after: &State) -> Result<Enforced> {
    let goes = *after == State::Absent;
    match split_name(name)? {
        (Firewall::Ufw, _) if goes && !host.has_program("ufw") => {}
        (Firewall::Ufw, profile) => {
            let arguments: &[&str] = match (goes, before) {
                (true, _) => &["delete", "allow", profile],
                // A rule of a profile keeps the ports that it had.
                (false, State::Present(_)) => &["app", "update", profile],
                (false, State::Absent) => &["allow", profile],
            };
            host.child("ufw").args(arguments).run().with_context(|| failed("ufw", profile))?;
        }
        (Firewall::Firewalld, _) if goes && !host.has_program("firewall-cmd") => {}
        (Firewall::Firewalld, service) => {
            enforce_firewalld(host, service, before, goes).with_context(|| failed("firewalld", service))?;
        }
    }
    Ok(Enforced::Done)
}

fn failed(firewall: &str, service: &str) -> String {
    format!("the rule of {firewall} for {service} could not be changed")
}

fn enforce_firewalld(host: &Host, service: &str, before: &State, goes: bool) -> Result<()> {
    let known = Firewalld::of(host)?;
    let verb = if goes { "remove" } else { "add" };
    let is_there = known.says_yes(&["--permanent"], &format!("--query-service={service}"))?;
    if is_there == goes {
        known.when_noticed(&format!("--{verb}-service={service}"))?;
    }
    if !known.runs {
        return Ok(());
    }
    let wanted = if goes { Vec::new() } else { ports_of_service(host, service)? };
    let former: Vec<u16> =
        before.text("ports").unwrap_or_default().split(',').filter_map(|port| port.parse().ok()).collect();
    // Until its next start it goes by the ports: it knows the service only then, or as it was.
    if known.says_yes(&[], &format!("--query-service={service}"))? {
        known.ask(&[&known.zone(), &format!("--remove-service={service}")])?;
    }
    for port in &wanted {
        if !known.says_yes(&[], &format!("--query-port={port}/tcp"))? {
            known.ask(&[&known.zone(), &format!("--add-port={port}/tcp")])?;
        }
    }
    for port in former.iter().filter(|port| !wanted.contains(port)) {
        if known.says_yes(&[], &format!("--query-port={port}/tcp"))? {
            known.ask(&[&known.zone(), &format!("--remove-port={port}/tcp")])?;
        }
    }
    Ok(())
}

/// How firewalld is asked: itself while it runs, its files otherwise.
struct Firewalld<'a> {
    host: &'a Host,
    runs: bool,
    /// The default one, which interfaces are in that nobody put elsewhere.
    zone: String,
}

impl<'a> Firewalld<'a> {
    fn of(host: &'a Host) -> Result<Firewalld<'a>> {
        let runs = host.child("firewall-cmd").args(["--state"]).end()?.status.success();
        let mut known = Firewalld { host, runs, zone: String::new() };
        known.zone = known.ask(&["--get-default-zone"])?.trim().to_owned();
        Ok(known)
    }

    fn zone(&self) -> String {
        format!("--zone={}", self.zone)
    }

    fn program(&self) -> &'static str {
        if self.runs { "firewall-cmd" } else { "firewall-offline-cmd" }
    }

    fn ask(&self, arguments: &[&str]) -> Result<String> {
        self.host.child(self.program()).args(arguments).run()
    }

    fn says_yes(&self, how: &[&str], query: &str) -> Result<bool> {
        // Of its files there is only what is permanent.
        let how = how.iter().filter(|_| self.runs);
        let ended = self.host.child(self.program()).args(how).args([&self.zone(), query]).end()?;
        Ok(ended.status.success())
    }

    /// Changes what is permanent, as soon as firewalld knows a service whose file was just written.
    fn when_noticed(&self, change: &str) -> Result<()> {
        let zone = self.zone();
        let arguments: Vec<&str> = if self.runs { vec!["--permanent", &zone, change] } else { vec![&zone, change] };
        let mut waited = Duration::ZERO;
        loop {
            let ended = self.host.child(self.program()).args(&arguments).end()?;
            if ended.status.success() {
                return Ok(());
            }
            if !ended.complaint.contains("INVALID_SERVICE") || waited >= NOTICES {
                return Err(Exit::Failed.because(format!("{}: {}", self.program(), ended.last_words())));
            }
            sleep(PAUSE);
            waited += PAUSE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_of_ufw_is_read_with_its_ports() {
        let rules = "*filter\n### RULES ###\n\n### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in\n-A x\n\n### tuple ### allow tcp 443,80 0.0.0.0/0 any 0.0.0.0/0 camcops - in\n-A y\n### tuple ### deny tcp 8443 0.0.0.0/0 any 0.0.0.0/0 camcops_two - in\n";
        assert_eq!(ports_of_ufw(rules, "camcops").as_deref(), Some("80,443"));
        assert_eq!(ports_of_ufw(rules, "camcops_two"), None);
        assert_eq!(join_ports([443, 80]), "80,443");
    }
}
