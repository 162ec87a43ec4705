//! `start`, `stop`, `restart`, `reload`: the services of an instance, by hand. `status` shows them.

use super::open_running;
use crate::base::error::Exit;
use crate::base::report::Report;
use crate::base::terminal::count_of;
use crate::base::text::format_time;
use crate::cli::{Global, Services};
use crate::drivers::services::member::{Member, ServiceRole};
use crate::drivers::services::{self, ServiceManager, ServicePhase, ServiceState};
use crate::host::Host;
use crate::host::processes::{self, Table};
use crate::session::Session;
use crate::settings::ServiceName;
use anyhow::Result;
use serde::Serialize;
use serde_json::json;

pub(crate) async fn start_services(global: &Global, flags: &Services) -> Result<Report> {
    let (site, chosen) = choose_services(global, flags, "start services")?;
    for member in &chosen {
        bring_up(&site, member).await?;
    }
    wait_for_start(&site, &chosen, "started").await
}

/// Stops them, the last one first.
pub(crate) async fn stop_services(global: &Global, flags: &Services) -> Result<Report> {
    let (site, chosen) = choose_services(global, flags, "stop services")?;
    for member in chosen.iter().rev() {
        services::stop_service(site.drivers.services.as_ref(), &site.host, &member.name)?;
    }
    report_services(&site, &chosen, "stopped").await
}

pub(crate) async fn restart_services(global: &Global, flags: &Services) -> Result<Report> {
    let (site, chosen) = choose_services(global, flags, "restart services")?;
    for member in &chosen {
        // The socket stays open: that is what it is for.
        if member.role != ServiceRole::Socket {
            services::restart_service(known(&site)?, &site.host, &member.name).await?;
        } else {
            bring_up(&site, member).await?;
        }
    }
    wait_for_start(&site, &chosen, "restarted").await
}

/// Restarts those that have not read what changed since they started.
pub(crate) async fn reload_services(global: &Global, flags: &Services) -> Result<Report> {
    let (site, mut chosen) = choose_services(global, flags, "reload services")?;
    // Only what runs has something to read again.
    let seen = known(&site)?.see(&site.host)?;
    chosen.retain(|member| seen.get(&member.name).is_some_and(|seen| seen.phase == ServicePhase::Running));
    for member in &chosen {
        bring_up(&site, member).await?;
    }
    report_services(&site, &chosen, "up to date").await
}

pub(super) fn known(site: &Session) -> Result<&ServiceManager> {
    let known = site.drivers.services.as_ref();
    known.ok_or_else(|| Exit::Usage.because("a staged tree has no services; run without --root"))
}

pub(super) fn choose_services(global: &Global, flags: &Services, what: &str) -> Result<(Session, Vec<Member>)> {
    let site = open_running(global, what)?;
    refuse_unwanted(&site, &flags.services)?;
    let members = known(&site)?.members.iter().filter(|member| is_chosen(member, &flags.services)).cloned().collect();
    Ok((site, members))
}

/// Whether a service is one of those that were named, or that can be where none was.
pub(crate) fn is_chosen(member: &Member, wanted: &[ServiceName]) -> bool {
    let named = |name: &String| wanted.iter().any(|one| one.as_str() == name);
    let service = member.service.as_ref();
    service.is_some_and(|name| wanted.is_empty() || named(name))
}

pub(crate) fn refuse_unknown(site: &Session, services: &[ServiceName]) -> Result<()> {
    let names = site.settings().services.names();
    match services.iter().find(|one| !names.contains(&one.as_str())) {
        Some(unknown) => {
            Err(Exit::Usage.because(format!("there is no service \"{unknown}\"; there are {}", names.join(", "))))
        }
        None => Ok(()),
    }
}

/// Refuses names that no service has, and services that are switched off.
pub(crate) fn refuse_unwanted(site: &Session, services: &[ServiceName]) -> Result<()> {
    refuse_unknown(site, services)?;
    let settings = &site.settings().services;
    match services.iter().find(|one| settings.is_disabled(one.as_str())) {
        Some(service) => Err(Exit::Settings
            .because(format!("{service} is disabled on this machine (services.disabled); `camcops-provision service enable {service}` enables it"))),
        None => Ok(()),
    }
}

async fn bring_up(site: &Session, member: &Member) -> Result<()> {
    services::bring_up(known(site)?, &site.host, &member.name).await
}

/// What is to be told of a service.
#[derive(Debug, Serialize)]
pub(crate) struct ServiceRow {
    pub(crate) name: String,
    /// Where it is in its life.
    pub(crate) state: ServicePhase,
    pub(crate) since: Option<String>,
    pub(crate) pid: Option<u32>,
    /// Its memory and its children's, what is shared counted once, in bytes.
    pub(crate) memory: Option<u64>,
    /// How often it was restarted after a failure.
    pub(crate) restarts: u32,
    /// Whether it has read what it reads as it is now.
    pub(crate) fresh: Option<bool>,
    /// Whether it answers; nothing where that is not asked.
    pub(crate) answers: Option<bool>,
    /// Whether it is started again and again, in vain.
    pub(crate) keeps_failing: bool,
    pub(crate) trouble: Option<String>,
    /// Files in which the administrator says more about it, or otherwise than we do.
    pub(crate) drop_ins: Vec<String>,
}

/// What there is to tell of the services of a machine.
pub(crate) async fn service_rows(site: &Session, wanted: impl Fn(&Member) -> bool) -> Result<Vec<ServiceRow>> {
    let (host, known) = (&site.host, known(site)?);
    let seen = known.see(host)?;
    let table = Table::read();
    let mut all = Vec::new();
    for member in known.members.iter().filter(|member| wanted(member)) {
        let seen = seen.get(&member.name).cloned().unwrap_or_default();
        all.push(service_row(host, known, member, &seen, &table).await?);
    }
    Ok(all)
}

async fn service_row(
    host: &Host,
    known: &ServiceManager,
    member: &Member,
    seen: &ServiceState,
    table: &Table,
) -> Result<ServiceRow> {
    let up = seen.phase == ServicePhase::Running;
    let answer = if up { known.answer(host, member).await? } else { None };
    let keeps_failing = known.keeps_failing(host, member, seen);
    let trouble = match (&answer, seen.phase) {
        _ if keeps_failing.is_some() => keeps_failing.clone(),
        (Some(Err(why)), _) => Some(why.text.clone()),
        (None, ServicePhase::Running) if member.role == ServiceRole::Socket && !services::has_socket(known, host) => {
            Some("its file is gone: run `camcops-provision install`".into())
        }
        (_, ServicePhase::Failed) => Some(format!("{} {}", seen.result, seen.detail).trim().to_owned()),
        (_, ServicePhase::Stopped) if !seen.there => Some("not installed".into()),
        (_, ServicePhase::Stopped) if !["", "success"].contains(&seen.result.as_str()) => Some(seen.result.clone()),
        _ => None,
    };
    let since = if up { seen.since.or_else(|| seen.pid.and_then(processes::start_time)) } else { None };
    Ok(ServiceRow {
        name: member.name.clone(),
        state: match keeps_failing {
            Some(_) => ServicePhase::Failed,
            None => seen.phase,
        },
        keeps_failing: keeps_failing.is_some(),
        since: since.and_then(format_time),
        pid: seen.pid.filter(|_| up),
        memory: seen.pid.filter(|_| up).and_then(|pid| known.memory_of(pid, table)),
        restarts: seen.restarts,
        fresh: up.then(|| services::is_fresh(known, host, member, seen)).transpose()?,
        answers: answer.map(|answer| answer.is_ok()),
        trouble,
        drop_ins: seen.files.iter().filter(|path| is_own_drop_in(path)).cloned().collect(),
    })
}

/// Whether a file of a unit is the administrator's: neither ours, nor a package's, nor the unit itself.
fn is_own_drop_in(path: &str) -> bool {
    let packaged = ["/usr/lib/", "/lib/"].iter().any(|home| path.starts_with(home));
    let ours = path.ends_with("/10-provision.conf");
    path.ends_with(".conf") && path.contains(".d/") && !packaged && !ours
}

/// One line for people.
pub(crate) fn format_row(told: &ServiceRow) -> String {
    let state = match (told.state, told.answers, told.fresh) {
        (ServicePhase::Running, Some(false), _) => "runs, but does not answer",
        (ServicePhase::Running, None, _) if told.trouble.is_some() => "is lost",
        (ServicePhase::Running, _, Some(false)) => "still runs with the old configuration",
        (ServicePhase::Running, Some(true), _) => "answers",
        (ServicePhase::Running, None, _) => "runs",
        (ServicePhase::Starting, ..) => "is starting",
        (ServicePhase::Stopping, ..) => "is stopping",
        (ServicePhase::Stopped, ..) => "is stopped",
        (ServicePhase::Failed, ..) => "has failed",
    };
    let mut line = match (told.keeps_failing, &told.trouble) {
        (true, Some(trouble)) => format!("{:<34} {trouble}", told.name),
        (_, Some(trouble)) => format!("{:<34} {state}: {trouble}", told.name),
        (_, None) => format!("{:<34} {state}", told.name),
    };
    if let Some(since) = &told.since {
        line += &format!(", since {since}");
    }
    if let Some(pid) = told.pid {
        line += &format!(", process {pid}");
    }
    if let Some(memory) = told.memory {
        line += &format!(", {} MiB", memory >> 20);
    }
    if told.restarts > 0 && !told.keeps_failing {
        line += &format!(", {} after failures", count_of(told.restarts, "restart"));
    }
    line
}

/// Tells of services that were started, and of the site where its web server was one of them: that each of them answers
/// does not say that visitors reach it.
async fn wait_for_start(site: &Session, chosen: &[Member], what: &str) -> Result<Report> {
    let report = report_services(site, chosen, what).await?;
    let known = known(site)?;
    let web = known.members.iter().find(|member| member.role == ServiceRole::Web);
    let Some(web) = web.filter(|_| chosen.iter().any(|member| member.role == ServiceRole::Server)) else {
        return Ok(report);
    };
    Ok(match known.answer(&site.host, web).await {
        Err(why) => report.and_then(Err(why)),
        Ok(Some(Err(why))) => report.but_failed(
            Exit::Unreachable,
            format!(
                "the services are {what}, but the site does not answer: {}; see `camcops-provision doctor web`",
                why.text
            ),
        ),
        _ => report,
    })
}

async fn report_services(site: &Session, chosen: &[Member], what: &str) -> Result<Report> {
    known(site)?.forget();
    let rows = service_rows(site, |member| chosen.iter().any(|one| one.name == member.name)).await?;
    let report = Report::new(json!({ "instance": site.instance, "services": rows }));
    Ok(match rows.is_empty() {
        true => report.with_remark(format!("no service to be {what}")),
        false => rows.iter().map(format_row).fold(report, Report::with_remark),
    })
}
