//! What users of the site meet.

use super::{Finding, Look};
use crate::drivers::release::{self, PdfEngine};
use crate::drivers::services::member::ServiceRole;
use crate::drivers::services::{ServicePhase, proof};
use crate::host::Ended;
use crate::layout::PackageManager;
use crate::probe::http::{Page, Request};
use crate::probe::{Cause, Trouble};
use crate::settings::Frontend;
use anyhow::{Result, anyhow};
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

/// A page may take this long.
const PATIENCE: Duration = Duration::from_secs(15);
/// A first PDF reads the fonts of the machine.
const PDF_PATIENCE: Duration = Duration::from_secs(120);
/// Most of what tablets send is smaller.
const LARGE: usize = 1 << 20;
/// Where browsers go by themselves.
const USUAL_PORT: u16 = 80;
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

fn version_of_camcops(look: &Look<'_>) -> Result<&'static str> {
    let wanted = release::WantedRelease::new(look.site.settings(), &look.site.facts).map_err(|why| anyhow!(why.0))?;
    Ok(wanted.version.of_camcops())
}

pub(crate) async fn check_api(look: &Look<'_>) -> Result<Finding> {
    if look.site.settings().web.frontend != Frontend::Apache {
        return Ok(Finding::not_applicable("not served by Apache (web.frontend)"));
    }
    let form = format!(
        "operation=check_device_registered&camcops_version={}&device=camcops-provision",
        version_of_camcops(look)?
    );
    let endpoint = proof::visitor_address(look.services()?);
    let place = format!("{}api", endpoint.place());
    let answer = endpoint.ask(Request { method: "POST", form: &form, ..Request::get("/api") }, PATIENCE).await?;
    if answer.0.contains(UNREGISTERED) {
        return Ok(Finding::ok(format!("{place} answers tablets")));
    }
    let who = answer.0.lines().take_while(|line| !line.is_empty()).find_map(|line| line.strip_prefix("Server: "));
    let code = status_of(&answer);
    Ok(Finding::failed(
        format!(
            "{place} answers {code}, but not as CamCOPS; the server identifies itself as {}",
            who.unwrap_or("nothing")
        ),
        "camcops-provision doctor web",
    ))
}

/// The question of [`check_api`], with what makes it as large as a photograph.
pub(crate) async fn check_upload(look: &Look<'_>) -> Result<Finding> {
    if look.site.settings().web.frontend != Frontend::Apache {
        return Ok(Finding::not_applicable("not served by Apache (web.frontend)"));
    }
    let form = format!(
        "operation=check_device_registered&camcops_version={}&device=camcops-provision&padding={}",
        version_of_camcops(look)?,
        "A".repeat(LARGE)
    );
    let endpoint = proof::visitor_address(look.services()?);
    let place = format!("{}api", endpoint.place());
    let answer = endpoint.ask(Request { method: "POST", form: &form, ..Request::get("/api") }, PATIENCE).await;
    let remedy = "camcops-provision doctor web.config   # web.max_body_mb, and LimitRequestBody of others";
    Ok(match answer {
        Ok(page) if page.0.contains(UNREGISTERED) => Finding::ok(format!("{place} accepts a request of 1 MiB")),
        Ok(page) => {
            Finding::failed(format!("{place} rejects a request of 1 MiB: it answers {}", status_of(&page)), remedy)
        }
        Err(why) => Finding::failed(format!("a request of 1 MiB does not reach CamCOPS: {}", why.text), remedy),
    })
}

/// Neither pages nor answers to tablets without TLS.
pub(crate) async fn check_plain_http(look: &Look<'_>) -> Result<Vec<Finding>> {
    let web = &look.site.settings().web;
    if web.frontend != Frontend::Apache {
        return Ok(vec![Finding::not_applicable("not served by Apache (web.frontend)")]);
    }
    let endpoint = proof::visitor_address(look.services()?);
    let form = format!(
        "operation=check_device_registered&camcops_version={}&device=camcops-provision",
        version_of_camcops(look)?
    );
    let to_tablet = Request { method: "POST", form: &form, ..Request::get("/api") };
    let mut findings = Vec::new();
    for port in [web.http_port.get().map_or(USUAL_PORT, |port| port.get()), web.https_port.get()] {
        let place = format!("http://{}:{port}", endpoint.name);
        for request in [Request::get("/login"), to_tablet] {
            let answer = endpoint.ask_plainly(port, request, PATIENCE).await;
            findings.push(judge_plain(&place, answer));
        }
    }
    findings.dedup();
    Ok(findings)
}

/// What an answer over plain HTTP means.
fn judge_plain(place: &str, answer: Result<Page, Trouble>) -> Finding {
    match answer {
        Ok(page) if page.is_login() || page.0.contains(UNREGISTERED) => Finding::failed(
            format!("{place} serves CamCOPS without encryption"),
            "apachectl -S   # find the site that answers there, and remove CamCOPS from it or redirect to HTTPS",
        ),
        Ok(page) if page.redirects_to_https() => Finding::ok(format!("{place} redirects to HTTPS")),
        Ok(page) => Finding::ok(format!("{place} answers {}, but not with CamCOPS", status_of(&page))),
        Err(why) if why.cause == Cause::Closed => Finding::ok(format!("{place}: no server listens")),
        Err(why) => Finding::ok(format!("{place} serves nothing: {}", why.text)),
    }
}

fn status_of(page: &Page) -> String {
    page.status().map_or_else(|| "no web server".into(), |code| code.to_string())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Health;

    #[test]
    fn plain_http_may_lead_away_and_nothing_else() {
        let judged = |answer: &str| {
            let found = judge_plain("http://x:80", Ok(Page(answer.to_owned())));
            (found.state, found.found)
        };
        let moved = "HTTP/1.1 301 Moved Permanently\r\nLocation: https://x/\r\n\r\n";
        assert_eq!(judged(moved), (Health::Ok, "http://x:80 redirects to HTTPS".into()));
        let form = "CamCOPS <input name=\"csrf_token\"><input name=\"password\">";
        assert_eq!(judged(&format!("HTTP/1.1 200 OK\r\n\r\n{form}")).0, Health::Failed);
        assert_eq!(judged("HTTP/1.1 200 OK\r\n\r\nsuccess:0\nerror:Unregistered device").0, Health::Failed);
        let (state, found) = judged("HTTP/1.1 302 Found\r\nlocation: http://x/other\r\n\r\n");
        assert_eq!((state, found.as_str()), (Health::Ok, "http://x:80 answers 302, but not with CamCOPS"));
        assert_eq!(judged("HTTP/1.1 200 OK\r\n\r\nsomebody's own page").0, Health::Ok);
    }
}
