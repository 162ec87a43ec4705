//! Apache belongs to the whole machine: its configuration is tested before and after each change of ours, what fails is
//! put back, and it is only ever told to read again, never restarted.

use super::known::{ServiceManager, look_at_service};
use super::state::{Handler, ServicePhase};
use super::{scripts, systemd};
use crate::base::error::Exit;
use crate::base::kernel::read_process;
use crate::drivers::{files, packages};
use crate::host::processes::{self, Process};
use crate::host::{Child, Ended, Host};
use crate::layout::{DEBIAN, Flavour, RHEL};
use crate::resource::{Enforced, Resource, State};
use crate::settings::Frontend;
use crate::site::listens::{USUAL_HTTP, uses_own_ports};
use anyhow::{Context, Result};

/// Why Apache does not like its configuration; nothing if it does, or is not there.
pub(crate) fn find_complaint(host: &Host, flavour: &Flavour) -> Result<Option<String>> {
    match test_question(host, flavour) {
        Some(question) => Ok(complaint_of(&question.end()?)),
        None => Ok(None),
    }
}

/// What is run to find it; nothing where Apache is not installed.
pub(crate) fn test_question<'a>(host: &'a Host, flavour: &Flavour) -> Option<Child<'a>> {
    let is_there = host.has_program(flavour.apache_control);
    is_there.then(|| host.child(flavour.apache_control).args(["-t"]))
}

pub(crate) fn complaint_of(said: &Ended) -> Option<String> {
    if said.status.success() {
        return None;
    }
    let lines: Vec<&str> = said
        .complaint
        .lines()
        .chain(said.output.lines())
        .map(str::trim)
        // A warning about its own name, and where the wrapper says to look.
        .filter(|line| !line.is_empty() && !line.starts_with("AH00558") && !line.starts_with("Action '"))
        .filter(|line| !line.starts_with("The Apache error log may have more"))
        .collect();
    Some(lines.join(" / "))
}

/// Fails with Apache's own message where it does not like its configuration.
pub(crate) fn test_configuration(host: &Host, known: &ServiceManager) -> Result<()> {
    match find_complaint(host, known.layout.flavour)? {
        None => Ok(()),
        Some(why) => Err(Exit::Settings.because(format!("Apache's configuration is broken: {why}"))),
    }
}

/// Refuses to begin where Apache could not serve the site anyway: somebody else's site is broken, or the port is not its.
pub(crate) fn refuse_unfit(known: &ServiceManager, packages: &packages::PackageSource, host: &Host) -> Result<()> {
    if known.settings.web.frontend != Frontend::Apache {
        return Ok(());
    }
    let layout = &known.layout;
    let mut is_whole = true;
    for package in layout.flavour.packages.web {
        is_whole &= packages::observe(packages, host, package)? != State::Absent;
    }
    // What a cut run has unpacked but not configured has no configuration yet.
    if is_whole && let Some(why) = find_complaint(host, layout.flavour)? {
        // Our own site may be what this run mends.
        let ours = [Some(layout.apache_site()), layout.apache_link()];
        if !ours.iter().flatten().any(|path| why.contains(path.as_str())) {
            return Err(Exit::Settings.because(format!(
                "Apache's configuration was broken before anything was changed: {why}\nfix that, check it with `{} -t`, and run again",
                layout.flavour.apache_control
            )));
        }
    }
    match foreign_holder(known) {
        Some(text) => Err(Exit::CannotCreate.because(text)),
        None => Ok(()),
    }
}

/// Somebody else on a port of the site.
fn foreign_holder(known: &ServiceManager) -> Option<String> {
    let web = &known.settings.web;
    // Without the usual port for it there is only no redirect; another one was asked for.
    let http = web.http_port.get().map(|port| port.get()).filter(|port| *port != USUAL_HTTP);
    let ports = [Some(("web.https_port", web.https_port.get())), http.map(|port| ("web.http_port", port))];
    ports.into_iter().flatten().find_map(|(key, port)| refuse_holder(key, port))
}

fn refuse_holder(key: &str, port: u16) -> Option<String> {
    let holder = port_holder(port)?;
    if ["apache2", "httpd"].contains(&holder.name.as_str()) {
        return None;
    }
    Some(format!("port {port} is held by {} (process {}): stop that, or choose another {key}", holder.name, holder.pid))
}

/// An Apache that can't listen where it is told to ends, so what we told it is checked before it reads that.
fn refuse_taken_port(known: &ServiceManager) -> Result<()> {
    if known.settings.web.frontend != Frontend::Apache || !uses_own_ports(&known.settings) {
        return Ok(());
    }
    match foreign_holder(known) {
        Some(text) => Err(Exit::CannotCreate.because(text)),
        None => Ok(()),
    }
}

fn port_holder(port: u16) -> Option<Process> {
    let mut listeners = processes::list_listeners().ok()?;
    listeners.retain(|one| one.address.port() == port);
    processes::find_holders(&listeners).into_values().next()
}

/// Why nobody gets through to the site's port.
pub(crate) fn port_trouble(known: &ServiceManager) -> Option<String> {
    if let Some(text) = foreign_holder(known) {
        return Some(text);
    }
    let (port, flavour) = (known.settings.web.https_port.get(), known.layout.flavour);
    if port_holder(port).is_some() {
        return None;
    }
    let is_running = processes::all_processes()
        .into_iter()
        .any(|pid| read_process(pid, "comm").is_some_and(|name| ["apache2", "httpd"].contains(&name.trim())));
    Some(match port {
        _ if !is_running => format!(
            "{0} is not running: `systemctl start {0}`, and `journalctl -u {0}` if it does not stay",
            flavour.apache_service
        ),
        443 => format!(
            "Apache does not listen on port 443: `Listen 443` is missing in {} (Debian has it there for mod_ssl)",
            flavour.apache_ports
        ),
        _ => format!(
            "Apache does not listen on port {port}, although its configuration says so: look in {}, and restart it with `systemctl restart {}`",
            flavour.apache_logs, flavour.apache_service
        ),
    })
}

/// Lets Apache read its configuration again, or starts it.
pub(crate) fn read_again(host: &Host, known: &ServiceManager, running: bool) -> Result<()> {
    test_configuration(host, known)?;
    refuse_taken_port(known)?;
    give_order(host, if running { "reload" } else { "start" }, known.layout.flavour)
}

/// The same for whoever changed a file that Apache's configuration names.
pub(crate) fn follow_changes(known: &ServiceManager, host: &Host) -> Result<()> {
    let name = service_name(host, known.layout.flavour)?;
    known.forget();
    let running = look_at_service(Some(known), host, &name)?.phase == ServicePhase::Running;
    read_again(host, known, running)
}

/// The name that its manager has for it.
fn service_name(host: &Host, flavour: &Flavour) -> Result<String> {
    Ok(match systemd::is_running(host)? {
        true => format!("{}.service", flavour.apache_service),
        false => flavour.apache_service.to_owned(),
    })
}

fn give_order(host: &Host, verb: &str, flavour: &Flavour) -> Result<()> {
    let name = service_name(host, flavour)?;
    match Handler::of(&name) {
        Handler::Systemd => systemd::give_order(host, verb, &name),
        _ => scripts::give_order(host, verb, &name),
    }
}

/// After everything of ours is gone: Apache serves what is left.
pub(crate) fn after_undoing(known: Option<&ServiceManager>, host: &Host) -> Result<()> {
    for flavour in [&DEBIAN, &RHEL] {
        if !host.has_program(flavour.apache_control) {
            continue;
        }
        let seen = look_at_service(known, host, &service_name(host, flavour)?)?;
        if seen.phase != ServicePhase::Running {
            continue;
        }
        let directories = [Some(flavour.apache_sites), flavour.apache_enabled, flavour.apache_modules];
        let mut changed = None;
        for directory in directories.into_iter().flatten() {
            changed = changed.max(processes::changed_time(&host.outside(directory))?);
        }
        if changed > seen.reloaded {
            if let Some(why) = find_complaint(host, flavour)? {
                return Err(Exit::Settings.because(format!(
                    "Apache still runs with its old configuration, because the new one is broken: {why}"
                )));
            }
            give_order(host, "reload", flavour)?;
        }
        return Ok(());
    }
    Ok(())
}

/// Whether a path is part of Apache's configuration, so that changes of it are tested.
pub(crate) fn guarded_flavour(host: &Host, path: &str) -> Option<&'static Flavour> {
    if host.staged_root().is_some() {
        return None;
    }
    [&DEBIAN, &RHEL].into_iter().find(|flavour| {
        let directories = [Some(flavour.apache_sites), flavour.apache_enabled, flavour.apache_modules];
        directories
            .into_iter()
            .flatten()
            .any(|directory| path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/')))
    })
}

/// Changes a file or link of Apache's configuration; what Apache does not like afterwards is put back.
pub(crate) fn enforce_guarded(
    host: &Host,
    flavour: &Flavour,
    resource: &Resource,
    before: &State,
    after: &State,
) -> Result<Enforced> {
    let done = files::enforce(host, resource, before, after)?;
    let module = flavour.apache_modules.is_some_and(|directory| resource.name().starts_with(directory));
    // A module alone breaks nothing, but some only load once others are there.
    if module && *after != State::Absent {
        return Ok(done);
    }
    let Some(why) = find_complaint(host, flavour)? else {
        return Ok(done);
    };
    let changed = files::observe(host, resource.name())?;
    files::enforce(host, resource, &changed, before).with_context(|| format!("can't put {} back", resource.name()))?;
    if *after != State::Absent {
        return Err(Exit::Settings.because(format!("Apache rejects it, so the old content was restored: {why}")));
    }
    // Broken with it and without it: then it is not what is missing.
    if find_complaint(host, flavour)?.is_some() {
        files::enforce(host, resource, before, after)?;
        return Ok(done);
    }
    Ok(Enforced::LeftAlone("the rest of Apache's configuration now depends on it".into()))
}
