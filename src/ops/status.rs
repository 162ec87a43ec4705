//! `status`: what is installed, and what differs.

use super::install::planned;
use crate::certificate;
use crate::cli::{Global, Parts, Status};
use crate::engine;
use crate::error::Exit;
use crate::probe::{Answer, Endpoint, Role};
use crate::report::{self, Style};
use crate::resource::acme;
use crate::settings::TlsMode;
use crate::site::{Certificate, Site};
use anyhow::Result;
use serde::Serialize;
use serde_json::json;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

/// A server that takes longer does not answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The database or the broker, as the application sees it.
#[derive(Debug, Serialize)]
struct Server {
    role: &'static str,
    at: String,
    #[serde(flatten)]
    answers: Option<Answer>,
    trouble: Option<String>,
}

/// The CamCOPS that is in use.
#[derive(Debug, Serialize)]
struct Release {
    name: String,
    /// An upgrade of the distribution may have taken it away.
    has_python: bool,
}

fn release(site: &Site) -> Result<Option<Release>> {
    let venv = &site.layout.venv;
    let Some(target) = site.host.read_link(venv)? else {
        return Ok(None);
    };
    Ok(Some(Release {
        name: target.rsplit('/').next().unwrap_or_default().to_owned(),
        has_python: std::fs::metadata(format!("{venv}/bin/python3")).is_ok(),
    }))
}

async fn servers(site: &Site) -> Vec<Server> {
    let (database, broker) = tokio::join!(
        server(site, Role::Database, "database"),
        server(site, Role::Broker, "broker")
    );
    vec![database, broker]
}

async fn server(site: &Site, role: Role, name: &'static str) -> Server {
    let (at, answer) = match Endpoint::of(site, role) {
        Ok(endpoint) => {
            let answer = endpoint.answers(PATIENCE).await;
            (endpoint.place(), answer.map_err(|trouble| trouble.text))
        }
        Err(why) => (String::new(), Err(format!("{why:#}"))),
    };
    let (answers, trouble) = match answer {
        Ok(answer) => (Some(answer), None),
        Err(trouble) => (None, Some(trouble)),
    };
    Server {
        role: name,
        at,
        answers,
        trouble,
    }
}

/// Shows it.
pub async fn run(global: &Global, flags: &Status, style: Style) -> Result<u8> {
    let mut site = Site::load(global)?;
    site.only_shows = true;
    let journal = site.journal()?;
    let parts = Parts {
        only: Vec::new(),
        skip: Vec::new(),
        adopt: true,
    };
    let (recipe, plan) = planned(&site, &journal, &parts).await?;
    let drift = engine::drift(&site.host, &journal, &plan).await?;
    site.host.close().await;
    let servers = match site.host.staged_root() {
        Some(_) => Vec::new(),
        None => servers(&site).await,
    };
    let release = match site.host.staged_root() {
        Some(_) => None,
        None => release(&site)?,
    };
    let interrupted = journal.owned().iter().any(|owned| owned.open);
    let pending = plan.changes.len() + plan.conflicts.len();
    let found = site.found(&journal)?;
    let certificate = match &found.certificate {
        Certificate::Issued { .. } => site
            .host
            .read(&site.layout.certificate_with_key)?
            .map(|pem| certificate::summary(&pem, SystemTime::now()))
            .transpose()?,
        Certificate::Own { because, .. } if !because.is_empty() => None,
        Certificate::Own { pair, .. } => Some(certificate::summary(
            pair.certificate.as_bytes(),
            SystemTime::now(),
        )?),
        Certificate::Given { certificate, .. } => site
            .host
            .read(&site.host.followed(certificate)?)?
            .map(|pem| certificate::summary(&pem, SystemTime::now()))
            .transpose()?,
    };
    let renewer = match (site.settings().tls.mode, site.host.staged_root()) {
        (TlsMode::Certbot, None) => acme::renewer(&site.host)?,
        _ => None,
    };
    let services = match site.host.staged_root() {
        Some(_) => Vec::new(),
        None => super::services::told(&site.host, |_| true).await?,
    };
    let backups = match site.host.staged_root() {
        Some(_) => None,
        None => super::backup::Summary::of(&site)?,
    };
    if style.json {
        report::print_json(&json!({
            "instance": site.instance,
            "release": release,
            "backups": backups,
            "servers": servers,
            "services": services,
            "installed": journal.exists(),
            "owned": journal.owned().len(),
            "interrupted": interrupted,
            "drift": drift,
            "pending": pending,
            "kept": recipe.kept,
            "certificate": certificate,
            "certificate_renewed_by": renewer,
            "on_first_boot": plan.on_first_boot,
        }))?;
    } else {
        style.warn(&recipe.warnings);
        let mut text = String::new();
        let facts = &site.facts;
        let _ = writeln!(
            text,
            "instance     {} ({}, {:?})",
            site.instance,
            facts.distribution,
            site.manager()
        );
        let _ = writeln!(text, "settings     {}", site.settings_file.display());
        let state = match (journal.exists(), interrupted) {
            (false, _) => "not installed".to_owned(),
            (true, true) => {
                "the last run was interrupted; run install to finish it, or uninstall to undo it"
                    .to_owned()
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
                (Some(answer), _) => writeln!(
                    text,
                    "{:<12} {answer} answers at {}",
                    server.role, server.at
                ),
                (None, trouble) => writeln!(
                    text,
                    "{:<12} {}",
                    server.role,
                    trouble.as_deref().unwrap_or_default()
                ),
            };
        }
        for told in &services {
            let _ = writeln!(text, "service      {}", super::services::line(told));
            for path in &told.drop_ins {
                let _ = writeln!(text, "             with your {path}");
            }
        }
        for drift in &drift {
            let facets = drift.facets.join(", ");
            let _ = match facets.as_str() {
                "presence" => writeln!(text, "drift        {}: not to be seen", drift.resource),
                _ => writeln!(
                    text,
                    "drift        {}: {facets} changed since",
                    drift.resource
                ),
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
        let _ = match pending {
            0 => writeln!(text, "pending      nothing"),
            some => writeln!(
                text,
                "pending      {}; `camcops-provision plan` shows them",
                report::count(some, "change")
            ),
        };
        report::print(&text)?;
    }
    Ok(if flags.exit_code && pending > 0 {
        Exit::Pending as u8
    } else {
        0
    })
}
