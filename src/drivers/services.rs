//! Running services: our own under systemd or supervisor, and those of others that must pick up what we changed.
//!
//! A service that does not run is absent. Facets: `enabled` (comes back at boot), `fresh` (its main process started after
//! its newest input changed, so it has read it), `answers` (a real page, ping or login; see [`proof`]).

pub(crate) mod apache;
pub(crate) mod config_part;
mod failure;
mod known;
pub(crate) mod member;
pub(crate) mod proof;
mod sandbox;
pub(crate) mod scripts;
pub(crate) mod supervisor;
pub(crate) mod systemd;

use crate::base::error::Exit;
use crate::host::{Host, export_locks, processes};
use crate::layout::MANAGED;
use crate::layout::PORT_MAPPER_SETTINGS;
use crate::probe::{Trouble, format_seconds};
use crate::resource::{Enforced, Facets, Resource, State};
use anyhow::{Context, Result};
pub(crate) use failure::KEEPS_FAILING;
use failure::explain_failure;
pub(crate) use known::ServiceManager;
use member::{Member, ServiceRole};
use std::os::unix::fs::FileTypeExt;
use std::time::{Duration, Instant, SystemTime};
use tokio::time::sleep;

/// A service that runs but does not answer may only be starting: this long it is left alone.
const STARTING: Duration = Duration::from_secs(60);
/// How long a service that was just started has until it answers. Python reads for some seconds, on a busy machine for a minute.
const READY: Duration = Duration::from_secs(180);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(200);
/// After so many failures it is not waited for any longer.
const MANY_RESTARTS: u32 = 3;
/// What has run so long since its last failure runs.
const SETTLED: Duration = Duration::from_secs(60);
/// What systemd calls Erlang's port mapper.
const PORT_MAPPER: &str = "epmd.socket";
/// Where a service is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ServicePhase {
    /// It does not run.
    #[default]
    Stopped,
    /// It does not run yet.
    Starting,
    Running,
    /// It still runs.
    Stopping,
    /// It does not run, because something went wrong.
    Failed,
}

/// That the process from before goes on, because its manager would not replace it. What it would say to the new
/// configuration is not known.
#[derive(Debug, thiserror::Error)]
#[error("{0} was not restarted and still runs with its former configuration: restart it, then run again to continue")]
pub(crate) struct NotRestarted(String);

/// What its manager knows of a service.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServiceState {
    /// Whether the manager knows it at all.
    pub(crate) there: bool,
    /// Whether the administrator forbade it.
    pub(crate) masked: bool,
    /// Where it is in its life.
    pub(crate) phase: ServicePhase,
    /// More about that, in the manager's own words.
    pub(crate) detail: String,
    /// Its main process.
    pub(crate) pid: Option<u32>,
    /// Since when it runs.
    pub(crate) since: Option<SystemTime>,
    /// When it last read its configuration again without a restart.
    pub(crate) reloaded: Option<SystemTime>,
    /// Whether it comes back at boot, where the manager tells.
    pub(crate) enabled: Option<bool>,
    /// Whether its manager has not read its files since they changed.
    pub(crate) stale_files: bool,
    /// The files that describe it.
    pub(crate) files: Vec<String>,
    /// How often it was restarted after a failure.
    pub(crate) restarts: u32,
    /// How its last run ended, in the manager's own words.
    pub(crate) result: String,
    /// Whether its manager is just about to start it once more after a failure.
    pub(crate) again: bool,
}

impl ServiceState {
    /// Whether it ends soon after each start. It is never only starting then, even if it seems so at this moment.
    pub(crate) fn keeps_failing(&self) -> bool {
        let is_young = || {
            let age = self.since.and_then(|since| since.elapsed().ok());
            age.is_some_and(|age| age < SETTLED)
        };
        match self.phase {
            ServicePhase::Starting => self.again || self.restarts > 0,
            ServicePhase::Running => self.restarts >= MANY_RESTARTS && is_young(),
            ServicePhase::Failed => self.again || self.restarts > 0,
            ServicePhase::Stopped | ServicePhase::Stopping => false,
        }
    }
}

/// Who manages a service: its name tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handler {
    Systemd,
    Supervisor,
    Scripts,
}

impl Handler {
    fn of(name: &str) -> Handler {
        if [".service", ".socket", ".timer"].iter().any(|end| name.ends_with(end)) {
            Handler::Systemd
        } else if name.contains(':') {
            Handler::Supervisor
        } else {
            Handler::Scripts
        }
    }

    fn order(self, known: Option<&ServiceManager>, host: &Host, verb: &str, name: &str) -> Result<()> {
        if verb != "start" && is_export(name) {
            break_stale_locks(known, host);
        }
        match self {
            Handler::Systemd => systemd::give_order(host, verb, name),
            Handler::Supervisor => supervisor::give_order(host, &[verb, name]),
            Handler::Scripts => scripts::give_order(host, verb, name),
        }
    }
}

/// Whether a service is one of those whose processes hold and await locks of exports.
fn is_export(name: &str) -> bool {
    ["camcops-server@", "camcops-workers@"].iter().any(|begin| name.starts_with(begin))
        || (is_ours(name) && (name.ends_with("_server") || name.ends_with("_workers")))
}

/// Before a service ends: a process that awaits a lock of a dead one would be waited for until it is killed.
fn break_stale_locks(known: Option<&ServiceManager>, host: &Host) {
    if let Some(known) = known {
        export_locks::break_before_waiting(host, &known.layout);
    }
}

/// Whether a service is one that this program makes, and not one of somebody else.
pub(crate) fn is_ours(name: &str) -> bool {
    name.starts_with("camcops")
}

fn look_at_service(known: Option<&ServiceManager>, host: &Host, name: &str) -> Result<ServiceState> {
    if let Some(known) = known
        && known.find(name).is_some()
    {
        return Ok(known.see(host)?.remove(name).unwrap_or_default());
    }
    Ok(match Handler::of(name) {
        Handler::Systemd => systemd::see_units(host, &[name.to_owned()])?.remove(name).unwrap_or_default(),
        Handler::Supervisor => {
            let group = name.split(':').next().unwrap_or(name);
            supervisor::see_group(host, group)?.remove(name).unwrap_or_default()
        }
        Handler::Scripts => scripts::see_service(host, name)?,
    })
}

/// Whether it runs, has read its newest input, and answers.
pub(crate) async fn observe(known: Option<&ServiceManager>, host: &Host, name: &str) -> Result<State> {
    let seen = look_at_service(known, host, name)?;
    if matches!(seen.phase, ServicePhase::Stopped | ServicePhase::Failed) {
        return Ok(State::Absent);
    }
    let mut facets = Facets::new();
    if let Some(enabled) = seen.enabled {
        facets = facets.with("enabled", yes_or_no(enabled));
    }
    let Some(known) = known else {
        return Ok(State::Present(facets));
    };
    let Some(member) = known.find(name) else {
        return Ok(State::Present(facets));
    };
    facets = facets.with("fresh", yes_or_no(is_fresh(Some(known), host, member, &seen)?));
    // A socket that is asked would start the service behind it, and a stopping one has no answer to give.
    if seen.phase == ServicePhase::Running
        && let Some(proof) = known.answer(host, member).await?
    {
        facets = facets.with("answers", yes_or_no(proof.is_ok()));
    }
    Ok(State::Present(facets))
}

fn yes_or_no(fact: bool) -> &'static str {
    if fact { "yes" } else { "no" }
}

/// Whether it started, or was told to read again, after all that it reads had changed for the last time.
pub(crate) fn is_fresh(
    known: Option<&ServiceManager>,
    host: &Host,
    member: &Member,
    seen: &ServiceState,
) -> Result<bool> {
    if seen.stale_files && member.role.is_ours() {
        return Ok(false);
    }
    if member.role == ServiceRole::Socket && !has_socket(known) {
        return Ok(false);
    }
    if member.role.is_ours() && sandbox::lacks_write_path(host, seen)? {
        return Ok(false);
    }
    let read = match member.role {
        ServiceRole::Web => seen.reloaded,
        ServiceRole::Socket | ServiceRole::Timer => seen.since,
        _ => seen.pid.and_then(processes::start_time),
    };
    let Some(read) = read else {
        // Between two processes of its own.
        return Ok(seen.phase != ServicePhase::Running);
    };
    let mut inputs = member.inputs.clone();
    if member.role.is_ours() {
        // Also the administrator's own drop-ins.
        inputs.extend(seen.files.iter().cloned());
    }
    if member.role == ServiceRole::Broker {
        // Others' settings are for others to bring to a broker.
        inputs.retain(|input| {
            let text = host.read_text(input).ok().flatten();
            text.is_some_and(|text| text.contains(MANAGED))
        });
        if !is_mapper_fresh(known, host)? {
            return Ok(false);
        }
        let late = |input: &String| Ok::<_, anyhow::Error>(newest_change(input)? > Some(read));
        let settings = inputs.iter().position(|input| input.starts_with(super::broker::MORE_SETTINGS));
        if let Some(settings) = settings
            && late(&inputs[settings])?
            && super::broker::is_followed(host, &inputs[settings])?
        {
            inputs.remove(settings);
        }
    }
    if let Some(part) = &member.config
        && part.changed(host)?.is_some_and(|changed| changed > read)
    {
        return Ok(false);
    }
    for input in inputs {
        if newest_change(&input)?.is_some_and(|changed| changed > read) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether visitors find the socket.
pub(crate) fn has_socket(known: Option<&ServiceManager>) -> bool {
    known.is_none_or(|known| {
        std::fs::symlink_metadata(&known.layout.socket).is_ok_and(|found| found.file_type().is_socket())
    })
}

/// When a path last changed, or what stands in it if it is a directory.
fn newest_change(path: &str) -> Result<Option<SystemTime>> {
    let mut newest = processes::changed_time(path)?;
    // Not through a link: the release is replaced as a whole, and its link changes with it.
    let is_directory = std::fs::symlink_metadata(path).is_ok_and(|data| data.is_dir());
    if is_directory {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            newest = newest.max(processes::changed_time(&entry.path().to_string_lossy())?);
        }
    }
    Ok(newest)
}

/// Makes a service run, fresh and answering; or stops it.
pub(crate) async fn enforce(
    known: Option<&ServiceManager>,
    host: &Host,
    name: &str,
    after: &State,
) -> Result<Enforced> {
    let done = match after {
        State::Absent => stop_service(known, host, name),
        State::Present(wanted) => wait_until_ready(known, host, name, wanted).await,
    };
    if let Some(known) = known {
        known.forget();
    }
    done?;
    Ok(Enforced::Done)
}

/// Stops a service of ours, and the socket that would start it again.
pub(crate) fn stop_service(known: Option<&ServiceManager>, host: &Host, name: &str) -> Result<()> {
    let seen = look_at_service(known, host, name)?;
    if !seen.there || seen.phase == ServicePhase::Stopped {
        return Ok(());
    }
    if let Some(socket) = socket_of(name) {
        systemd::give_order(host, "stop", &socket)?;
    }
    Handler::of(name).order(known, host, "stop", name).with_context(|| format!("can't stop {name}"))
}

/// Stops all of ours that use the site's data, the last one first.
pub(crate) fn stop_ours(known: Option<&ServiceManager>, host: &Host) -> Result<()> {
    let Some(known) = known else {
        return Ok(());
    };
    known.forget();
    let ours = known.members.iter().rev();
    for member in ours.filter(|one| one.role.is_ours() && one.role != ServiceRole::Timer) {
        stop_service(Some(known), host, &member.name)?;
    }
    known.forget();
    Ok(())
}

/// Whether a resource is our web server, its socket, or what passes visitors on to it and is proved by its answers.
pub(crate) fn lets_visitors_in(known: Option<&ServiceManager>, resource: &Resource) -> bool {
    let (Resource::Service(name), Some(known)) = (resource, known) else {
        return false;
    };
    let is_it = |role| matches!(role, ServiceRole::Server | ServiceRole::Socket | ServiceRole::Web);
    let mut members = known.members.iter();
    members.any(|member| member.name == *name && is_it(member.role))
}

/// Whether any of ours runs that uses the site's data.
pub(crate) fn any_of_ours_runs(known: Option<&ServiceManager>, host: &Host) -> Result<bool> {
    let Some(known) = known else {
        return Ok(false);
    };
    known.forget();
    let seen = known.see(host)?;
    let runs = |name: &String| {
        seen.get(name)
            .is_some_and(|seen| seen.there && !matches!(seen.phase, ServicePhase::Stopped | ServicePhase::Failed))
    };
    let users = known
        .members
        .iter()
        .filter(|one| one.role.is_ours() && !matches!(one.role, ServiceRole::Timer | ServiceRole::Socket));
    Ok(users.map(|one| &one.name).any(runs))
}

/// Stops those of ours that have not read what changed since they started, and lets visitors wait: those with work to
/// finish first.
pub(crate) fn pause_stale(known: Option<&ServiceManager>, host: &Host) -> Result<()> {
    let Some(known) = known else {
        return Ok(());
    };
    known.forget();
    let seen = known.see(host)?;
    let ours = known.members.iter().filter(|member| member.role.is_ours());
    let (server, others): (Vec<_>, Vec<_>) =
        ours.filter(|member| member.role != ServiceRole::Socket).partition(|member| member.role == ServiceRole::Server);
    for member in others.into_iter().chain(server) {
        let Some(seen) = seen.get(&member.name) else {
            continue;
        };
        let runs = seen.there && !matches!(seen.phase, ServicePhase::Stopped | ServicePhase::Failed);
        if runs && !is_fresh(Some(known), host, member, seen)? {
            Handler::of(&member.name)
                .order(Some(known), host, "stop", &member.name)
                .with_context(|| format!("can't stop {}", member.name))?;
        }
    }
    known.forget();
    Ok(())
}

/// Restarts a service of ours, fresh or not, and waits until it answers.
pub(crate) async fn restart_service(known: Option<&ServiceManager>, host: &Host, name: &str) -> Result<()> {
    let seen = look_at_service(known, host, name)?;
    if !matches!(seen.phase, ServicePhase::Stopped | ServicePhase::Failed) {
        Handler::of(name).order(known, host, "stop", name).with_context(|| format!("can't stop {name}"))?;
    }
    enforce(known, host, name, &State::Present(Facets::new())).await?;
    Ok(())
}

/// The socket of our web server.
fn socket_of(name: &str) -> Option<String> {
    let rest = name.strip_prefix("camcops-server@")?;
    Some(format!("camcops-server@{}.socket", rest.strip_suffix(".service")?))
}

async fn wait_until_ready(known: Option<&ServiceManager>, host: &Host, name: &str, wanted: &Facets) -> Result<()> {
    let Some(known) = known else {
        return Ok(());
    };
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
    let running = !matches!(seen.phase, ServicePhase::Stopped | ServicePhase::Failed);
    if running && is_fresh(Some(known), host, member, &seen)? && answers_soon(host, known, member).await? {
        return Ok(());
    }
    known.forget();
    seen = look_at_service(Some(known), host, name)?;
    let running = !matches!(seen.phase, ServicePhase::Stopped | ServicePhase::Failed);
    let since = SystemTime::now();
    let ordered = match (member.role, running) {
        (ServiceRole::Web, _) => apache::read_again(host, known, running),
        (ServiceRole::Socket, _) => reopen_socket(host, name),
        (ServiceRole::Broker, true) => {
            // One that does not listen to its present name, or not at all, is restarted.
            let is_adjusted = match known.broker() {
                Some(broker) => super::broker::adjust_node(&broker, host).await.unwrap_or(false),
                None => false,
            };
            if is_adjusted && is_fresh(Some(known), host, member, &seen)? {
                return Ok(());
            }
            broker_anew(host, known, handler, name)
        }
        (_, false) => handler.order(Some(known), host, "start", name),
        (_, true) => handler.order(Some(known), host, "restart", name),
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
        if seen.restarts >= MANY_RESTARTS
            && let Some(why) = known.keeps_failing(host, member, &seen)
        {
            return Err(explain_failure(host, known, member, &why, since));
        }
        if matches!(seen.phase, ServicePhase::Failed | ServicePhase::Stopped) {
            let why = known.keeps_failing(host, member, &seen);
            let why = why.unwrap_or_else(|| format!("it ended right after its start ({})", seen.result));
            return Err(explain_failure(host, known, member, &why, since));
        }
        match proof::ask_member(host, known, member, &seen).await {
            _ if seen.phase != ServicePhase::Running => last = "it is still starting".into(),
            _ if member.role == ServiceRole::Web && !is_fresh(Some(known), host, member, &seen)? => {
                last = "it has not read its configuration again".into();
            }
            None | Some(Ok(())) => return Ok(()),
            Some(Err(why)) => last = why.text,
        }
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
        Handler::Systemd if seen.stale_files || !seen.there => systemd::reload_files(host)?,
        Handler::Supervisor if !seen.there || !is_fresh(Some(known), host, member, &seen)? => {
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
            "{name} is masked, so that it can't be started: run `systemctl unmask {name}`, or name the service in services.disabled"
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

/// Whether Erlang's port mapper, where systemd holds its socket, listens as we told it.
fn is_mapper_fresh(known: Option<&ServiceManager>, host: &Host) -> Result<bool> {
    let (Some(known), Some(told)) = (known, processes::changed_time(PORT_MAPPER_SETTINGS)?) else {
        return Ok(true);
    };
    let mapper = known.see(host)?.remove(PORT_MAPPER);
    let since = mapper.and_then(|mapper| mapper.since);
    Ok(since.is_none_or(|since| since > told))
}

/// Restarts the broker while visitors wait at the socket of the web server, where it has one that stays open.
fn broker_anew(host: &Host, known: &ServiceManager, handler: Handler, name: &str) -> Result<()> {
    let of = |role: ServiceRole| known.members.iter().find(|member| member.role == role);
    let server = of(ServiceRole::Socket).and(of(ServiceRole::Server));
    let seen = known.see(host)?;
    let server = server.filter(|server| seen.get(&server.name).is_some_and(|seen| seen.phase == ServicePhase::Running));
    if let Some(server) = server {
        Handler::of(&server.name).order(Some(known), host, "stop", &server.name)?;
    }
    let restarted = restart_broker(known, host, handler, name);
    if let Some(server) = server {
        Handler::of(&server.name).order(Some(known), host, "start", &server.name)?;
    }
    restarted
}

/// The broker, and Erlang's port mapper if that does not listen as we told it.
fn restart_broker(known: &ServiceManager, host: &Host, handler: Handler, name: &str) -> Result<()> {
    let is_mapper_fresh = is_mapper_fresh(Some(known), host)?;
    handler.order(Some(known), host, "stop", name)?;
    if handler == Handler::Scripts {
        super::broker::stop_former(host)?;
        // It refuses while somebody else uses it; the broker starts it again.
        let _ = host.child("epmd").args(["-kill"]).end();
    } else if !is_mapper_fresh {
        systemd::reload_files(host)?;
        systemd::give_order(host, "restart", PORT_MAPPER)?;
    }
    handler.order(Some(known), host, "start", name)
}

/// What becomes of our services when everything is undone: they stop first.
pub(crate) fn before_undoing(known: Option<&ServiceManager>, host: &Host, slug: &str) -> Result<()> {
    if host.staged_root().is_some() {
        return Ok(());
    }
    break_stale_locks(known, host);
    systemd::stop_instance(host, slug)?;
    supervisor::stop_group(host, slug)
}

/// After files that the settings no longer want are gone: systemd forgets the units that stood in them.
pub(crate) fn after_removals(host: &Host, removed: &[&str]) -> Result<()> {
    let mut units = removed
        .iter()
        .filter_map(|path| path.strip_prefix(member::UNIT_HOME)?.strip_prefix('/'))
        .filter(|unit| unit.ends_with(".service") && !unit.contains('/'))
        .peekable();
    if units.peek().is_none() || host.staged_root().is_some() || !systemd::is_running(host)? {
        return Ok(());
    }
    systemd::reload_files(host)?;
    for unit in units {
        // It may have failed, and would be told of for ever; where it has not, this is refused.
        let _ = host.child("systemctl").args(["reset-failed", "--", unit]).end()?;
    }
    Ok(())
}

/// After undoing: managers and Apache forget what is gone.
pub(crate) fn after_undoing(known: Option<&ServiceManager>, host: &Host, slug: &str) -> Result<()> {
    if host.staged_root().is_some() {
        return Ok(());
    }
    if systemd::is_running(host)? {
        systemd::reload_files(host)?;
        // Another instance may have kept it.
        systemd::stop_forgotten(host, "camcops.target")?;
    }
    if !supervisor::see_group(host, slug)?.is_empty() {
        supervisor::update_group(host, slug)?;
    }
    apache::after_undoing(known, host)
}

/// What a proof says when it fails.
pub(crate) type ProofResult = Result<(), Trouble>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_who_manages_it() {
        assert_eq!(Handler::of("camcops-server@camcops.socket"), Handler::Systemd);
        assert_eq!(Handler::of("camcops:camcops_server"), Handler::Supervisor);
        assert_eq!(Handler::of("rabbitmq-server"), Handler::Scripts);
        assert!(is_ours("camcops_two:camcops_two_server") && !is_ours("apache2.service"));
        assert_eq!(
            socket_of("camcops-server@camcops_two.service").as_deref(),
            Some("camcops-server@camcops_two.socket")
        );
        assert_eq!(socket_of("camcops-workers@camcops.service"), None);
    }

    #[test]
    fn a_change_after_the_start_makes_it_stale() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("input");
        std::fs::write(&file, "").unwrap();
        let member = |input: &std::path::Path| Member {
            name: "camcops-server@camcops.socket".into(),
            role: ServiceRole::Socket,
            service: None,
            inputs: vec![input.to_string_lossy().into_owned(), "/no/such".into()],
            config: None,
        };
        let seen = |since: SystemTime| ServiceState {
            phase: ServicePhase::Running,
            since: Some(since),
            ..ServiceState::default()
        };
        let host = Host::live().unwrap();
        let later = SystemTime::now() + Duration::from_secs(5);
        let earlier = SystemTime::now() - Duration::from_secs(5);
        for input in [file.as_path(), directory.path()] {
            assert!(is_fresh(None, &host, &member(input), &seen(later)).unwrap());
            assert!(!is_fresh(None, &host, &member(input), &seen(earlier)).unwrap());
        }
        let stale = ServiceState { stale_files: true, ..seen(later) };
        assert!(!is_fresh(None, &host, &member(&file), &stale).unwrap());
    }
}
