//! How services are started and stopped by their managers: in which order, and what must not start them again.

use super::fresh::is_fresh;
use super::known::look_at_service;
use super::member::ServiceRole;
use super::state::{Handler, ServicePhase, is_ours};
use super::{ServiceManager, scripts, supervisor, systemd};
use crate::base::error::Exit;
use crate::host::{Host, export_locks};
use anyhow::Result;

/// Has its manager start, stop, restart or reload a service.
pub(super) fn give_order(known: Option<&ServiceManager>, host: &Host, verb: &str, name: &str) -> Result<()> {
    if verb != "start" && is_export(name) {
        break_stale_locks(known, host);
    }
    match Handler::of(name) {
        Handler::Systemd => systemd::give_order(host, verb, name),
        Handler::Supervisor => supervisor::give_order(host, &[verb, name]),
        Handler::Scripts => scripts::give_order(host, verb, name),
    }
}

/// Whether a service is one of those whose processes hold and await locks of exports.
fn is_export(name: &str) -> bool {
    // One of several workers has a number behind that.
    ["camcops-server@", "camcops-workers@", "camcops-workers-"].iter().any(|begin| name.starts_with(begin))
        || (is_ours(name) && (name.ends_with("_server") || name.contains("_workers")))
}

/// Before a service ends: a process that awaits a lock of a dead one would be waited for until it is killed.
pub(super) fn break_stale_locks(known: Option<&ServiceManager>, host: &Host) {
    if let Some(known) = known {
        export_locks::break_before_waiting(host, &known.layout);
    }
}

/// Stops a service of ours, and the socket that would start it again.
pub(crate) fn stop_service(known: Option<&ServiceManager>, host: &Host, name: &str) -> Result<()> {
    let seen = look_at_service(known, host, name)?;
    if !seen.there || seen.phase == ServicePhase::Stopped {
        return Ok(());
    }
    if let Some(socket) = socket_of(name) {
        stop_alone(known, host, &socket)?;
        if let Some(known) = known {
            known.note_stopped(&socket);
        }
    }
    stop_alone(known, host, name)
}

/// Stops a service. What would start it again may do so.
pub(super) fn stop_alone(known: Option<&ServiceManager>, host: &Host, name: &str) -> Result<()> {
    let stopped = give_order(known, host, "stop", name);
    stopped.map_err(|why| {
        let why = format!("{why:#}");
        // systemd may have said it already.
        let why = why.strip_prefix(&format!("Failed to stop {name}: ")).unwrap_or(&why);
        Exit::Unreachable.because(format!("can't stop {name}: {why}"))
    })
}

/// Stops all of ours that use the site's data, the last one first.
pub(crate) fn stop_ours(known: &ServiceManager, host: &Host) -> Result<()> {
    known.forget();
    let ours = known.members.iter().rev();
    for member in ours.filter(|one| one.role.is_ours() && one.role != ServiceRole::Timer) {
        stop_service(Some(known), host, &member.name)?;
    }
    known.forget();
    Ok(())
}

/// Stops those of ours that have not read what changed since they started, and lets visitors wait: those with work to
/// finish first.
pub(crate) fn pause_stale(known: &ServiceManager, host: &Host) -> Result<()> {
    known.forget();
    let seen = known.see(host)?;
    let ours = known.members.iter().filter(|member| member.role.is_ours());
    let (server, others): (Vec<_>, Vec<_>) =
        ours.filter(|member| member.role != ServiceRole::Socket).partition(|member| member.role == ServiceRole::Server);
    for member in others.into_iter().chain(server) {
        let Some(seen) = seen.get(&member.name) else {
            continue;
        };
        if seen.there && seen.is_up() && !is_fresh(known, host, member, seen)? {
            stop_alone(Some(known), host, &member.name)?;
        }
    }
    known.forget();
    Ok(())
}

/// The socket of our web server.
fn socket_of(name: &str) -> Option<String> {
    let rest = name.strip_prefix("camcops-server@")?;
    Some(format!("camcops-server@{}.socket", rest.strip_suffix(".service")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_web_server_has_a_socket() {
        let socket = socket_of("camcops-server@camcops_two.service");
        assert_eq!(socket.as_deref(), Some("camcops-server@camcops_two.socket"));
        assert_eq!(socket_of("camcops-workers@camcops.service"), None);
    }
}
