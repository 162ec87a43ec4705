//! What users of the site meet.

use super::{Finding, Look};
use crate::drivers::release;
use crate::drivers::services::member::ServiceRole;
use crate::drivers::services::{ServicePhase, proof};
use crate::probe::http::Request;
use crate::settings::Frontend;
use anyhow::{Result, anyhow};
use std::time::Duration;

/// A page may take this long.
const PATIENCE: Duration = Duration::from_secs(15);
/// A first PDF reads the fonts of the machine.
const PDF_PATIENCE: Duration = Duration::from_secs(120);
/// What a tablet is told that nobody has registered.
const UNREGISTERED: &str = "Unregistered device";
/// Makes a PDF as CamCOPS does, and says how long it is.
const PDF: &str = include_str!("end_to_end/pdf.py");

/// What a role of the services answers.
async fn check_role(look: &Look<'_>, role: ServiceRole, well: &str) -> Result<Finding> {
    let Some((member, seen)) = look.service(role)? else {
        return Ok(Finding::not_applicable("this service is not wanted on this machine"));
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
    check_role(look, ServiceRole::Web, &format!("{url}login has its form")).await
}

pub(crate) async fn check_api(look: &Look<'_>) -> Result<Finding> {
    if look.site.settings().web.frontend != Frontend::Apache {
        return Ok(Finding::not_applicable("no Apache of ours is in front"));
    }
    let wanted =
        release::WantedRelease::new(&look.site.settings().camcops, &look.site.facts).map_err(|why| anyhow!(why.0))?;
    let form = format!(
        "operation=check_device_registered&camcops_version={}&device=camcops-provision",
        wanted.version.of_camcops()
    );
    let endpoint = proof::visitor_address(look.services()?);
    let place = format!("{}api", endpoint.place());
    let answer = endpoint.ask(Request { method: "POST", form: &form, ..Request::get("/api") }, PATIENCE).await?;
    if answer.0.contains(UNREGISTERED) {
        return Ok(Finding::ok(format!("{place} answers as to a tablet")));
    }
    let who = answer.0.lines().take_while(|line| !line.is_empty()).find_map(|line| line.strip_prefix("Server: "));
    let code = answer.status().map_or_else(|| "nothing of the web".into(), |code| code.to_string());
    Ok(Finding::failed(
        format!("{place} answers {code}, and not as CamCOPS; who answers calls itself {}", who.unwrap_or("nothing")),
        "camcops-provision doctor web",
    ))
}

pub(crate) async fn check_workers(look: &Look<'_>) -> Result<Finding> {
    check_role(look, ServiceRole::Workers, "the workers answer through the broker").await
}

pub(crate) async fn check_scheduler(look: &Look<'_>) -> Result<Finding> {
    check_role(look, ServiceRole::Scheduler, "the scheduler has its schedule open").await
}

pub(crate) fn check_pdf(look: &Look<'_>) -> Result<Finding> {
    let host = &look.site.host;
    let made =
        look.site.drivers.application()?.command(host, "python3")?.args(["-c", PDF]).patience(PDF_PATIENCE).end()?;
    let said = made.output.trim().to_owned();
    Ok(match made.status.success() && !said.is_empty() {
        true => Finding::ok(format!("a page of {said} bytes")),
        false => Finding::failed(
            format!("no PDF: {}", made.last_words()),
            "apt-get install --reinstall wkhtmltopdf && camcops-provision install",
        ),
    })
}
