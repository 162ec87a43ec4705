//! How a service comes to run, fresh and answering.

use super::failure::{explain_end, explain_failure};
use super::fresh::{is_fresh, is_mapper_fresh};
use super::known::look_at_service;
use super::member::{Member, ServiceRole};
use super::orders::give_order;
use super::state::{Handler, MANY_RESTARTS, PORT_MAPPER, ServicePhase, ServiceState};
use super::{ServiceManager, apache, proof, supervisor, systemd};
use crate::base::error::Exit;
use crate::drivers::broker;
use crate::host::Host;
use crate::probe::format_seconds;
use crate::resource::Facets;
use anyhow::Result;
use std::time::{Duration, Instant, SystemTime};
use tokio::time::sleep;

/// A service that runs but does not answer may only be starting: this long it is left alone.
const STARTING: Duration = Duration::from_secs(60);

/// How long a service that was just started has until it answers. Python reads for some seconds, on a busy machine for a minute.
const READY: Duration = Duration::from_secs(180);

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(200);

/// That the process from before goes on, because its manager would not replace it. What it would say to the new
/// configuration is not known.
#[derive(Debug, thiserror::Error)]
#[error("{0} was not restarted and still runs with its old configuration: restart it, then run again to continue")]
pub(crate) struct NotRestarted(String);

/// Starts a service, or lets it read what it has not read yet, and waits until it answers.
pub(super) async fn make_ready(known: &ServiceManager, host: &Host, name: &str, wanted: &Facets) -> Result<()> {
    let Some(member) = known.find(name) else {
        return Ok(());
    };
    let handler = Handler::of(name);
    known.forget();
    follow_files(host, known, member, handler)?;
    let mut seen = look_at_service(Some(known), host, name)?;
    refuse_impossible(host, known, member, &seen)?;
    if wanted.text("enabled").is_some() && seen.enabled == Some(false) {
        systemd::enable_unit(host, name)?;
    }
    if seen.is_up() && is_fresh(known, host, member, &seen)? && answers_soon(host, known, member).await? {
        return Ok(());
    }
    known.forget();
    seen = look_at_service(Some(known), host, name)?;
    let running = seen.is_up();
    let since = SystemTime::now();
    let ordered = match (member.role, running) {
        (ServiceRole::Web, _) => apache::read_again(host, known, running),
        (ServiceRole::Socket, _) => reopen_socket(host, name),
        (ServiceRole::Broker, true) => {
            // One that does not listen to its present name, or not at all, is restarted.
            let is_adjusted = match known.broker() {
                Some(broker) => broker::adjust_node(&broker, host).await.unwrap_or(false),
                None => false,
            };
            if is_adjusted && is_fresh(known, host, member, &seen)? {
                return Ok(());
            }
            broker_anew(host, known, handler, name)
        }
        // It may be what it starts that changed, of which systemd says nothing here.
        (ServiceRole::Timer, true) => {
            systemd::reload_files(host).and_then(|()| give_order(Some(known), host, "restart", name))
        }
        (_, false) => give_order(Some(known), host, "start", name),
        (_, true) => give_order(Some(known), host, "restart", name),
    };
    known.forget();
    if let Err(why) = ordered {
        let why = explain_failure(host, known, member, &format!("{why:#}"), since);
        let now = look_at_service(Some(known), host, name)?;
        let is_as_before = running && now.pid.is_some() && now.pid == seen.pid;
        return Err(match is_as_before && member.role != ServiceRole::Web {
            true => why.context(NotRestarted(name.to_owned())),
            false => why,
        });
    }
    let patience = match member.role {
        ServiceRole::Extra => STARTING,
        _ => READY,
    };
    let limit = Instant::now() + patience;
    let mut last = "it does not answer".to_owned();
    while Instant::now() < limit {
        known.forget();
        let seen = look_at_service(Some(known), host, name)?;
        if !seen.is_up() || seen.restarts >= MANY_RESTARTS && seen.keeps_failing() {
            return Err(explain_end(host, known, member, &seen, since));
        }
        last = if seen.phase != ServicePhase::Running {
            "it is still starting".into()
        } else if member.role == ServiceRole::Web && !is_fresh(known, host, member, &seen)? {
            "it still runs with its old configuration".into()
        } else {
            match proof::ask_member(host, known, member, &seen).await {
                None | Some(Ok(())) => return Ok(()),
                Some(Err(why)) => why.text,
            }
        };
        sleep(PAUSE).await;
    }
    let why = format!("not ready after {}: {last}", format_seconds(patience));
    Err(explain_failure(host, known, member, &why, since))
}

/// Lets the manager read what describes the service, if that changed.
fn follow_files(host: &Host, known: &ServiceManager, member: &Member, handler: Handler) -> Result<()> {
    let seen = look_at_service(Some(known), host, &member.name)?;
    match handler {
        // A template's file may be there although systemd has not seen it yet.
        Handler::Systemd if seen.stale_files || !seen.there && !seen.masked => systemd::reload_files(host)?,
        Handler::Supervisor if !seen.there || !is_fresh(known, host, member, &seen)? => {
            supervisor::update_group(host, &known.layout.slug)?;
        }
        _ => return Ok(()),
    }
    known.forget();
    Ok(())
}

fn refuse_impossible(host: &Host, known: &ServiceManager, member: &Member, seen: &ServiceState) -> Result<()> {
    let name = &member.name;
    if seen.masked {
        return Err(Exit::CannotCreate.because(format!(
            "{name} is masked and can't be started: run `systemctl unmask {name}`, or name the service in services.disabled"
        )));
    }
    if !seen.there {
        let next = match member.role.is_ours() {
            true => "run install without --only and --skip".to_owned(),
            false => "its package is missing: run install without --skip packages".to_owned(),
        };
        return Err(Exit::Unreachable.because(format!("{name} is not known on this machine; {next}")));
    }
    if member.role == ServiceRole::Web {
        apache::test_configuration(host, known)?;
    }
    Ok(())
}

async fn answers_soon(host: &Host, known: &ServiceManager, member: &Member) -> Result<bool> {
    let limit = Instant::now() + STARTING;
    loop {
        known.forget();
        let seen = look_at_service(Some(known), host, &member.name)?;
        if seen.keeps_failing() {
            return Ok(false);
        }
        match seen.phase {
            ServicePhase::Running => match proof::ask_member(host, known, member, &seen).await {
                None | Some(Ok(())) => return Ok(true),
                Some(Err(_)) => {}
            },
            ServicePhase::Failed | ServicePhase::Stopped => return Ok(false),
            ServicePhase::Starting | ServicePhase::Stopping => {}
        }
        if Instant::now() > limit {
            return Ok(false);
        }
        sleep(PAUSE).await;
    }
}

/// A socket is opened anew only while nobody serves it.
fn reopen_socket(host: &Host, socket: &str) -> Result<()> {
    let service = socket.replace(".socket", ".service");
    systemd::give_order(host, "stop", socket)?;
    systemd::give_order(host, "stop", &service)?;
    systemd::give_order(host, "start", socket)
}

/// Restarts the broker while visitors wait at the socket of the web server, where it has one that stays open.
fn broker_anew(host: &Host, known: &ServiceManager, handler: Handler, name: &str) -> Result<()> {
    let of = |role: ServiceRole| known.members.iter().find(|member| member.role == role);
    let server = of(ServiceRole::Socket).and(of(ServiceRole::Server));
    let seen = known.see(host)?;
    let server = server.filter(|server| seen.get(&server.name).is_some_and(|seen| seen.phase == ServicePhase::Running));
    if let Some(server) = server {
        give_order(Some(known), host, "stop", &server.name)?;
    }
    let restarted = restart_broker(known, host, handler, name);
    if let Some(server) = server {
        give_order(Some(known), host, "start", &server.name)?;
    }
    restarted
}

/// The broker, and Erlang's port mapper if that does not listen as we told it.
fn restart_broker(known: &ServiceManager, host: &Host, handler: Handler, name: &str) -> Result<()> {
    let is_mapper_fresh = is_mapper_fresh(known, host)?;
    give_order(Some(known), host, "stop", name)?;
    if handler == Handler::Scripts {
        broker::stop_former(host)?;
        // It refuses while somebody else uses it; the broker starts it again.
        let _ = host.child("epmd").args(["-kill"]).end();
    } else if !is_mapper_fresh {
        systemd::reload_files(host)?;
        systemd::give_order(host, "restart", PORT_MAPPER)?;
    }
    give_order(Some(known), host, "start", name)
}
