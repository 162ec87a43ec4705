//! What users of the site meet.

use super::{Finding, Look};
use crate::drivers::release::{self, PdfEngine};
use crate::drivers::services::member::ServiceRole;
use crate::drivers::services::{ServicePhase, proof};
use crate::host::Ended;
use crate::layout::PackageManager;
use crate::probe::http::Request;
use crate::settings::Frontend;
use anyhow::{Result, anyhow};
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

/// A page may take this long.
const PATIENCE: Duration = Duration::from_secs(15);
/// A first PDF reads the fonts of the machine.
const PDF_PATIENCE: Duration = Duration::from_secs(120);
/// What a tablet is told that nobody has registered.
const UNREGISTERED: &str = "Unregistered device";
/// Makes a PDF as CamCOPS does, looks into it, and says how long it is.
const PDF: &str = include_str!("end_to_end/pdf.py");

/// What a role of the services answers.
async fn check_role(look: &Look<'_>, role: ServiceRole, well: &str) -> Result<Finding> {
    let Some((member, seen)) = look.service(role)? else {
        return Ok(Finding::not_applicable("this service is disabled on this machine"));
    };
    let remedy = "camcops-provision doctor services web";
    if seen.phase != ServicePhase::Running {
        return Ok(Finding::failed(format!("{} does not run", member.name), remedy));
    }
    Ok(match look.answer(&member).await? {
        Some(Err(why)) => Finding::failed(why.text, remedy),
        _ => Finding::ok(well),
    })
}

pub(crate) async fn check_login(look: &Look<'_>) -> Result<Finding> {
    let url = look.site.url();
    check_role(look, ServiceRole::Web, &format!("{url}login shows the login form")).await
}

pub(crate) async fn check_api(look: &Look<'_>) -> Result<Finding> {
    if look.site.settings().web.frontend != Frontend::Apache {
        return Ok(Finding::not_applicable("not served by Apache (web.frontend)"));
    }
    let wanted = release::WantedRelease::new(look.site.settings(), &look.site.facts).map_err(|why| anyhow!(why.0))?;
    let form = format!(
        "operation=check_device_registered&camcops_version={}&device=camcops-provision",
        wanted.version.of_camcops()
    );
    let endpoint = proof::visitor_address(look.services()?);
    let place = format!("{}api", endpoint.place());
    let answer = endpoint.ask(Request { method: "POST", form: &form, ..Request::get("/api") }, PATIENCE).await?;
    if answer.0.contains(UNREGISTERED) {
        return Ok(Finding::ok(format!("{place} answers tablets")));
    }
    let who = answer.0.lines().take_while(|line| !line.is_empty()).find_map(|line| line.strip_prefix("Server: "));
    let code = answer.status().map_or_else(|| "no web server".into(), |code| code.to_string());
    Ok(Finding::failed(
        format!(
            "{place} answers {code}, but not as CamCOPS; the server identifies itself as {}",
            who.unwrap_or("nothing")
        ),
        "camcops-provision doctor web",
    ))
}

pub(crate) async fn check_workers(look: &Look<'_>) -> Result<Finding> {
    check_role(look, ServiceRole::Workers, "the workers answer through the broker").await
}

pub(crate) async fn check_scheduler(look: &Look<'_>) -> Result<Finding> {
    check_role(look, ServiceRole::Scheduler, "the scheduler keeps its schedule").await
}

pub(crate) fn check_pdf(look: &Look<'_>) -> Result<Finding> {
    let host = &look.site.host;
    let current = release::current_release(host)?.unwrap_or_default();
    let engine = release::pdf_engine_of(host, &current)?.unwrap_or(PdfEngine::Wkhtmltopdf);
    let made =
        look.site.drivers.application()?.command(host, "python3")?.args(["-c", PDF]).patience(PDF_PATIENCE).end()?;
    let said = made.output.trim();
    if made.status.success() && !said.is_empty() {
        return Ok(Finding::ok(format!("{} makes a PDF of {said}", engine.name())));
    }
    let packages = look.site.facts.flavour.packages;
    let names = match engine {
        PdfEngine::Wkhtmltopdf => packages.wkhtmltopdf,
        PdfEngine::Weasyprint => look.site.facts.weasyprint_packages(),
    };
    let again = match packages.manager {
        PackageManager::Apt => "apt-get install --reinstall",
        PackageManager::Dnf => "dnf reinstall",
    };
    Ok(Finding::failed(
        format!("no PDF by {}: {}", engine.name(), why_not(&made)),
        format!("{again} {} && camcops-provision install", names.join(" ")),
    ))
}

/// Where a library crashes, there are no words.
fn why_not(made: &Ended) -> String {
    match made.status.signal() {
        Some(signal) => format!("it was ended by signal {signal}"),
        None => format!("{} ({})", made.last_words(), made.status),
    }
}
