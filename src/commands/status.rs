//! `status`: what is installed, and what differs.

use crate::backup::summary::BackupSummary;
use crate::base::error::Exit;
use crate::base::report::Report;
use crate::base::terminal::{self, count_of};
use crate::camcops_conf::kept::KeptSetting;
use crate::certificate::{self, CertificateSummary};
use crate::cli::{Cli, Global, Parts, Status};
use crate::commands::cert::find_renewer;
use crate::commands::overview::Overview;
use crate::commands::services::{ServiceRow, format_row, service_rows};
use crate::doctor::history::History;
use crate::drivers::release::{self, PdfEngine};
use crate::engine::{self, Drift, report};
use crate::host::named_file::replace_file;
use crate::host::{Host, processes};
use crate::journal;
use crate::layout::DEFAULT_INSTANCE;
use crate::probe::{Answer, Backend, Cause, Trouble};
use crate::resource::{Part, Resource};
use crate::session::Session;
use crate::session::converge::plan_from;
use crate::settings::TlsMode;
use crate::site::Certificate;
use crate::site::maintenance::Maintenance;
use anyhow::Result;
use clap::CommandFactory;
use serde::Serialize;
use serde_json::json;
use std::path::Path;
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;
use tokio::time::timeout;

/// A server that takes longer does not answer. All are asked at once, so that what is known is told soon all the same.
const PATIENCE: Duration = Duration::from_secs(2);

/// The database or the broker, as the application sees it.
#[derive(Debug, Serialize)]
struct ServerRow {
    role: &'static str,
    at: String,
    #[serde(flatten)]
    answers: Option<Answer>,
    trouble: Option<String>,
    /// Whether all that needs it would wait for it.
    #[serde(skip)]
    hangs: bool,
}

/// Another run that is at work.
#[derive(Debug, Serialize)]
struct RunningOperation {
    command: String,
    instance: String,
    process: u32,
}

fn running_operation(host: &Host) -> Option<RunningOperation> {
    let process = journal::at_work(host)?;
    let (command, instance) = split_command(&processes::command_words(process)?);
    Some(RunningOperation { command: command.unwrap_or_else(|| "another command".to_owned()), instance, process })
}

/// The command that words on the command line mean, and on which instance.
fn split_command(words: &[String]) -> (Option<String>, String) {
    let instance = || DEFAULT_INSTANCE.to_owned();
    let Ok(matches) = Cli::command().try_get_matches_from(words) else {
        return (None, instance());
    };
    let mut names = Vec::new();
    let mut below = matches.subcommand();
    while let Some((name, more)) = below {
        names.push(name.to_owned());
        below = more.subcommand();
    }
    let given = matches.get_one::<String>("instance").cloned();
    ((!names.is_empty()).then(|| names.join(" ")), given.unwrap_or_else(instance))
}

/// The CamCOPS that is in use.
#[derive(Debug, Serialize)]
struct Release {
    name: String,
    /// What makes PDF documents in it, where it says so.
    pdf_engine: Option<PdfEngine>,
    /// An upgrade of the distribution may have taken it away.
    has_python: bool,
}

fn release_status(site: &Session) -> Result<Option<Release>> {
    let venv = &site.layout.venv;
    let Some(target) = site.host.read_link(venv)? else {
        return Ok(None);
    };
    let name = target.rsplit('/').next().unwrap_or_default().to_owned();
    Ok(Some(Release {
        pdf_engine: release::pdf_engine_of(&site.host, &name)?,
        name,
        has_python: std::fs::metadata(format!("{venv}/bin/python3")).is_ok(),
    }))
}

async fn ask_servers(site: &Session) -> Vec<ServerRow> {
    let (database, broker) =
        tokio::join!(ask_server(site, Backend::Database, "database"), ask_server(site, Backend::Broker, "broker"));
    vec![database, broker]
}

async fn ask_server(site: &Session, role: Backend, name: &'static str) -> ServerRow {
    let (at, answer) = match site.endpoint(role) {
        Ok(endpoint) => (endpoint.place(), endpoint.answers(PATIENCE).await),
        Err(why) => {
            let cause = Cause::Other;
            let text = format!("{why:#}");
            (String::new(), Err(Trouble { cause, text }))
        }
    };
    let (answers, trouble) = match answer {
        Ok(answer) => (Some(answer), None),
        Err(trouble) => (None, Some(trouble)),
    };
    ServerRow {
        role: name,
        at,
        answers,
        hangs: trouble.as_ref().is_some_and(|trouble| {
            // One that does not run is asked again in no time, and one that refuses has answered.
            let silent = trouble.cause.passes() && trouble.cause != Cause::Closed;
            silent || trouble.cause == Cause::SomethingElse
        }),
        trouble: trouble.map(|trouble| trouble.text),
    }
}

/// What is not looked at because a server does not answer: each question would wait for it.
fn unasked_parts(servers: &[ServerRow]) -> Vec<Part> {
    let mut parts = Vec::new();
    for server in servers.iter().filter(|server| server.hangs) {
        match server.role {
            "database" => parts.extend([Part::Database, Part::Tables, Part::Superuser]),
            _ => parts.push(Part::Broker),
        }
    }
    parts
}

/// Whether something can be looked at although these parts can't.
fn can_be_asked(resource: &Resource, unasked: &[Part]) -> bool {
    let needed = match resource {
        Resource::Schema(_) | Resource::SqlAccount(_) | Resource::Tables(_) | Resource::Superuser(_) => Part::Database,
        Resource::Vhost(_) | Resource::BrokerAccount(_) => Part::Broker,
        _ => return true,
    };
    !unasked.contains(&needed)
}

/// What is found out about a site.
#[derive(Serialize)]
pub(super) struct SiteStatus {
    instance: String,
    release: Option<Release>,
    backups: Option<BackupSummary>,
    servers: Vec<ServerRow>,
    services: Vec<ServiceRow>,
    installed: bool,
    owned: usize,
    interrupted: bool,
    running: Option<RunningOperation>,
    drift: Vec<Drift>,
    pending: usize,
    not_looked_at: Vec<Part>,
    kept: Vec<KeptSetting>,
    certificate: Option<CertificateSummary>,
    certificate_renewed_by: Option<String>,
    maintenance: Option<MaintenanceRow>,
    on_first_boot: Vec<Resource>,
}

pub(crate) async fn run(global: &Global, flags: &Status) -> Result<Report> {
    let (site, status, warnings) = match &flags.html {
        Some(file) => write_overview(global, file).await?,
        None => collect_status(global).await?,
    };
    let code = if flags.exit_code && status.pending > 0 { Exit::Pending as u8 } else { 0 };
    let report = Report::new(json!(status)).with_warnings(warnings).with_code(code);
    Ok(match &flags.html {
        None => report.with_rows(status.rows(&site)),
        Some(file) if file.as_os_str() == "-" => report,
        Some(file) => report.with_remark(format!("{} is written", file.display())),
    })
}

async fn write_overview(global: &Global, file: &Path) -> Result<(Session, SiteStatus, Vec<String>)> {
    if file.as_os_str() == "-" && global.json {
        return Err(Exit::Usage.because("--html -: --json has standard output; name a file"));
    }
    let refused = |why: String| Exit::CannotCreate.because(format!("--html {}: {why}", file.display()));
    let path = std::path::absolute(file)?;
    if let Some(directory) = path.parent().filter(|directory| !directory.is_dir()) {
        return Err(refused(format!("there is no directory {}", directory.display())));
    }
    let overview = Overview::take(global).await?;
    let history = History::read(&overview.site.host, &overview.site.instance)?;
    let page = overview.page(&history)?;
    match file.as_os_str() == "-" {
        true => terminal::print(&page)?,
        false => replace_file(&path, &page).map_err(|why| refused(format!("{why:#}")))?,
    }
    Ok((overview.site, overview.status, overview.warnings))
}

/// What is found out, and the warnings of the recipe.
pub(super) async fn collect_status(global: &Global) -> Result<(Session, SiteStatus, Vec<String>)> {
    let mut site = Session::open(global)?;
    site.only_shows = true;
    if let Some(services) = &site.drivers.services {
        services.hurry(PATIENCE);
        services.weigh_too();
    }
    site.drivers.begin_to_look(&site.host);
    let journal = site.journal()?;
    let mut found = site.read_existing(&journal)?;
    site.load_secrets(&found)?;
    let servers = if site.drivers.services.is_some() { ask_servers(&site).await } else { Vec::new() };
    let unasked = unasked_parts(&servers);
    let parts = Parts { adopt: true, ..Parts::all_but(&unasked) };
    let (recipe, plan) = plan_from(&site, &journal, &parts, &mut found).await?;
    let can_be_asked = |resource: &Resource| can_be_asked(resource, &unasked);
    let drift = engine::find_drift(&site.host, &site.drivers, &journal, &plan, can_be_asked).await?;
    // A goodbye to a server that hangs would wait for it.
    let _ = timeout(PATIENCE, site.close()).await;
    let (release, services, backups) = match site.host.staged_root() {
        Some(_) => (None, Vec::new(), None),
        None => (release_status(&site)?, service_rows(&site, |_| true).await?, BackupSummary::of(&site.host, &site)?),
    };
    let running = running_operation(&site.host);
    let is_at_work = running.as_ref().is_some_and(|running| running.instance == site.instance);
    let status = SiteStatus {
        instance: site.instance.clone(),
        release,
        backups,
        servers,
        services,
        installed: journal.exists(),
        owned: journal.owned().len(),
        interrupted: !is_at_work && journal.owned().iter().any(|owned| owned.open),
        running,
        drift,
        pending: plan.changes.len() + plan.conflicts.len(),
        not_looked_at: unasked,
        kept: recipe.kept,
        certificate: summarize_certificate(&site, &found.certificate)?,
        certificate_renewed_by: find_renewer(&site)?,
        maintenance: maintenance_row(&site)?,
        on_first_boot: plan.on_first_boot,
    };
    Ok((site, status, recipe.warnings))
}

/// That visitors see a page in place of the site.
#[derive(Debug, Serialize)]
struct MaintenanceRow {
    #[serde(with = "time::serde::rfc3339")]
    until: OffsetDateTime,
    /// In the time of the machine.
    #[serde(skip)]
    shown: String,
}

fn maintenance_row(site: &Session) -> Result<Option<MaintenanceRow>> {
    let found = Maintenance::now(&site.host, &site.layout)?;
    Ok(found.map(|one| MaintenanceRow { until: one.until, shown: one.shown_end(&site.host) }))
}

fn summarize_certificate(site: &Session, certificate: &Certificate) -> Result<Option<CertificateSummary>> {
    let pem = match certificate {
        Certificate::Issued { .. } => site.host.read(&site.layout.certificate_with_key)?,
        Certificate::Own { because, .. } if !because.is_empty() => None,
        Certificate::Own { pair, .. } => Some(pair.certificate.as_bytes().to_vec()),
        Certificate::Given { certificate, .. } => site.host.read(&site.host.followed(certificate)?)?,
    };
    pem.map(|pem| certificate::summarize_first(&pem, SystemTime::now())).transpose()
}

impl SiteStatus {
    /// What people are told: names, and what each is.
    pub(super) fn rows(&self, site: &Session) -> Vec<(&'static str, String)> {
        let facts = &site.facts;
        let release = self.release.iter().map(|Release { name, pdf_engine, has_python }| {
            let pdf = pdf_engine.map_or_else(String::new, |one| format!(", PDF documents by {}", one.name()));
            let trouble = match has_python {
                true => pdf.as_str(),
                false => ": the Python that it runs on is gone; run `camcops-provision install`",
            };
            ("release", format!("{name}{trouble}"))
        });
        let servers = self.servers.iter().map(|server| match (&server.answers, &server.trouble) {
            (Some(answer), _) => (server.role, format!("{answer} answers at {}", server.at)),
            (None, trouble) => (server.role, trouble.clone().unwrap_or_default()),
        });
        let services = self.services.iter().flat_map(|row| {
            let drop_ins = row.drop_ins.iter().map(|path| ("", format!("with your {path}")));
            [("service", format_row(row))].into_iter().chain(drop_ins)
        });
        let drift = self.drift.iter().map(|drift| ("drift", report::describe_drift(&drift.resource, &drift.facets)));
        let mut rows = vec![("instance", format!("{} ({}, {:?})", self.instance, facts.distribution, site.manager()))];
        rows.extend(facts.unknown_distribution().map(|why| ("distribution", why)));
        rows.push(("settings", site.settings_file.display().to_string()));
        rows.push(("installed", self.describe_installation()));
        rows.extend(release);
        rows.extend(servers);
        rows.extend(services);
        rows.extend(drift);
        rows.extend(self.kept.iter().map(|kept| ("kept", kept.to_string())));
        rows.push(("certificate", self.describe_certificate(site.settings().tls.mode)));
        rows.extend(self.backups.iter().map(|backups| ("backups", backups.to_string())));
        rows.extend(self.maintenance_text().map(|text| ("maintenance", text)));
        rows.push(("site", site.url()));
        rows.extend(report::first_boot(&self.on_first_boot).map(|line| ("first boot", line)));
        rows.extend(facts.release.map(|_| ("pending", self.describe_pending())));
        rows
    }

    /// That visitors see a page in place of the site, where that is so.
    pub(super) fn maintenance_text(&self) -> Option<String> {
        let row = self.maintenance.as_ref()?;
        Some(format!("on until {}; `camcops-provision maintenance off` ends it now", row.shown))
    }

    fn describe_installation(&self) -> String {
        match (&self.running, self.interrupted) {
            (Some(running), _) if running.instance == self.instance => {
                format!("{} is running, process {}", running.command, running.process)
            }
            _ if !self.installed => "not installed".to_owned(),
            (_, true) => {
                "the last run was interrupted; run `camcops-provision install` to finish it, or `uninstall` to undo it"
                    .to_owned()
            }
            (_, false) => format!("{} items", self.owned),
        }
    }

    fn describe_certificate(&self, mode: TlsMode) -> String {
        let Some(summary) = &self.certificate else {
            return "none yet".to_owned();
        };
        let is_certbots = mode == TlsMode::Certbot;
        let kind = match (summary.self_signed, mode) {
            (true, _) => "self-signed",
            (false, TlsMode::Certbot) => "from certbot",
            (false, TlsMode::LocalCa) => "of the site's own authority",
            (false, _) => "from your files",
        };
        let renewer = match (is_certbots, &self.certificate_renewed_by) {
            (false, _) => String::new(),
            (true, Some(renewer)) => format!(", renewed by {renewer}"),
            (true, None) => ", not renewed by anything (no timer of certbot)".to_owned(),
        };
        format!("{kind}, for {}, {}{renewer}", summary.names.join(", "), summary.left())
    }

    fn describe_pending(&self) -> String {
        let besides = match self.not_looked_at.as_slice() {
            [] => String::new(),
            parts => {
                let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
                format!(" (not checked, their servers do not answer: {})", parts.join(", "))
            }
        };
        match self.pending {
            0 => format!("nothing{besides}"),
            some => format!("{}; `camcops-provision plan` shows them{besides}", count_of(some, "change")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_known_by_its_words() {
        let meant = |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let (command, instance) = split_command(&words);
            (command.unwrap_or_default(), instance)
        };
        let is = |command: &str, instance: &str| (command.to_owned(), instance.to_owned());
        assert_eq!(meant("camcops-provision install --yes"), is("install", "camcops"));
        assert_eq!(
            meant("/usr/bin/camcops-provision --set web.path=/x --instance two secret rotate broker"),
            is("secret rotate", "two")
        );
        assert_eq!(meant("something else"), is("", "camcops"));
    }
}
