//! `status`: what is installed, and what differs.

use crate::base::error::Exit;
use crate::base::terminal::{self, Style};
use crate::cli::{Cli, Global, Parts, Status};
use crate::drivers::acme;
use crate::engine::{self, report};
use crate::host::{Host, processes};
use crate::layout::DEFAULT_INSTANCE;
use crate::probe::{Answer, Backend, Cause, Trouble};
use crate::resource::{Part, Resource};
use crate::session::Session;
use crate::session::converge::make_plan;
use crate::settings::TlsMode;
use crate::site::Certificate;
use crate::{certificate, journal};
use anyhow::Result;
use clap::CommandFactory;
use serde::Serialize;
use serde_json::json;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};
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

impl std::fmt::Display for RunningOperation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is running, process {}", self.command, self.process)
    }
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
    /// An upgrade of the distribution may have taken it away.
    has_python: bool,
}

fn release_status(site: &Session) -> Result<Option<Release>> {
    let venv = &site.layout.venv;
    let Some(target) = site.host.read_link(venv)? else {
        return Ok(None);
    };
    Ok(Some(Release {
        name: target.rsplit('/').next().unwrap_or_default().to_owned(),
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

/// Shows it.
pub(crate) async fn run(global: &Global, flags: &Status, style: Style) -> Result<u8> {
    let mut site = Session::open(global)?;
    site.only_shows = true;
    let journal = site.journal()?;
    let found = site.read_existing(&journal)?;
    site.load_secrets(&found)?;
    let mut asked = Vec::new();
    if let Some(services) = &site.drivers.services {
        services.hurry(PATIENCE);
        services.begin_to_look(&site.host);
        let ((), answers) = tokio::join!(services.look_ahead(&site.host), ask_servers(&site));
        asked = answers;
    }
    let servers = asked;
    let unasked = unasked_parts(&servers);
    let parts = Parts { only: Vec::new(), skip: unasked.clone(), adopt: true };
    let (recipe, plan) = make_plan(&site, &journal, &parts).await?;
    let can_be_asked = |resource: &Resource| can_be_asked(resource, &unasked);
    let drift = engine::find_drift(&site.host, &site.drivers, &journal, &plan, can_be_asked).await?;
    // A goodbye to a server that hangs would wait for it.
    let _ = timeout(PATIENCE, site.close()).await;
    let release = match site.host.staged_root() {
        Some(_) => None,
        None => release_status(&site)?,
    };
    let running = running_operation(&site.host);
    let is_ours = |running: &&RunningOperation| running.instance == site.instance;
    let at_work = running.as_ref().filter(is_ours);
    let interrupted = at_work.is_none() && journal.owned().iter().any(|owned| owned.open);
    let pending = plan.changes.len() + plan.conflicts.len();
    let certificate = match &found.certificate {
        Certificate::Issued { .. } => site
            .host
            .read(&site.layout.certificate_with_key)?
            .map(|pem| certificate::summarize_first(&pem, SystemTime::now()))
            .transpose()?,
        Certificate::Own { because, .. } if !because.is_empty() => None,
        Certificate::Own { pair, .. } => {
            Some(certificate::summarize_first(pair.certificate.as_bytes(), SystemTime::now())?)
        }
        Certificate::Given { certificate, .. } => site
            .host
            .read(&site.host.followed(certificate)?)?
            .map(|pem| certificate::summarize_first(&pem, SystemTime::now()))
            .transpose()?,
    };
    let renewer = match (site.settings().tls.mode, site.host.staged_root()) {
        (TlsMode::Certbot, None) => acme::find_renewer(&site.host)?,
        _ => None,
    };
    let services = match site.host.staged_root() {
        Some(_) => Vec::new(),
        None => super::services::service_rows(&site, |_| true).await?,
    };
    let backups = match site.host.staged_root() {
        Some(_) => None,
        None => crate::backup::summary::BackupSummary::of(&site.host, &site)?,
    };
    if style.json {
        terminal::print_json(&json!({
            "instance": site.instance,
            "release": release,
            "backups": backups,
            "servers": servers,
            "services": services,
            "installed": journal.exists(),
            "owned": journal.owned().len(),
            "interrupted": interrupted,
            "running": running,
            "drift": drift,
            "pending": pending,
            "not_looked_at": unasked,
            "kept": recipe.kept,
            "certificate": certificate,
            "certificate_renewed_by": renewer,
            "on_first_boot": plan.on_first_boot,
        }))?;
    } else {
        style.warn(&recipe.warnings);
        let mut text = String::new();
        let facts = &site.facts;
        let _ = writeln!(text, "instance     {} ({}, {:?})", site.instance, facts.distribution, site.manager());
        let _ = writeln!(text, "settings     {}", site.settings_file.display());
        let state = match (journal.exists(), interrupted) {
            _ if at_work.is_some() => at_work.map(ToString::to_string).unwrap_or_default(),
            (false, _) => "not installed".to_owned(),
            (true, true) => {
                "the last run was interrupted; run install to finish it, or uninstall to undo it".to_owned()
            }
            (true, false) => format!("{} things in place", journal.owned().len()),
        };
        let _ = writeln!(text, "installed    {state}");
        if let Some(Release { name, has_python }) = &release {
            let trouble = match has_python {
                true => "",
                false => ": the Python that it runs on is gone; run `camcops-provision install`",
            };
            let _ = writeln!(text, "release      {name}{trouble}");
        }
        for server in &servers {
            let _ = match (&server.answers, &server.trouble) {
                (Some(answer), _) => writeln!(text, "{:<12} {answer} answers at {}", server.role, server.at),
                (None, trouble) => writeln!(text, "{:<12} {}", server.role, trouble.as_deref().unwrap_or_default()),
            };
        }
        for told in &services {
            let _ = writeln!(text, "service      {}", super::services::format_row(told));
            for path in &told.drop_ins {
                let _ = writeln!(text, "             with your {path}");
            }
        }
        for drift in &drift {
            let facets = drift.facets.join(", ");
            let _ = match facets.as_str() {
                "presence" => writeln!(text, "drift        {}: not to be seen", drift.resource),
                _ => writeln!(text, "drift        {}: {facets} changed since", drift.resource),
            };
        }
        for kept in &recipe.kept {
            let _ = writeln!(text, "kept         {kept}");
        }
        match &certificate {
            Some(summary) => {
                let is_certbots = site.settings().tls.mode == TlsMode::Certbot;
                let kind = match (summary.self_signed, is_certbots) {
                    (true, _) => "self-signed",
                    (false, true) => "from certbot",
                    (false, false) => "given",
                };
                let renewer = match (is_certbots, &renewer) {
                    (false, _) => String::new(),
                    (true, Some(renewer)) => format!(", renewed by {renewer}"),
                    (true, None) => ", renewed by nobody".to_owned(),
                };
                let _ = writeln!(
                    text,
                    "certificate  {kind}, for {}, {}{renewer}",
                    summary.names.join(", "),
                    summary.left()
                );
            }
            None => text.push_str("certificate  none yet\n"),
        }
        if let Some(backups) = &backups {
            let _ = writeln!(text, "backups      {backups}");
        }
        let _ = writeln!(text, "site         {}", site.url());
        if let Some(line) = report::first_boot(&plan.on_first_boot) {
            let _ = writeln!(text, "first boot   {line}");
        }
        let besides = match unasked.is_empty() {
            true => String::new(),
            false => {
                let parts: Vec<String> = unasked.iter().map(ToString::to_string).collect();
                format!(" (not looked at, for want of an answer: {})", parts.join(", "))
            }
        };
        let _ = match pending {
            0 => writeln!(text, "pending      nothing{besides}"),
            some => writeln!(
                text,
                "pending      {}; `camcops-provision plan` shows them{besides}",
                terminal::count_of(some, "change")
            ),
        };
        terminal::print(&text)?;
    }
    Ok(if flags.exit_code && pending > 0 { Exit::Pending as u8 } else { 0 })
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
