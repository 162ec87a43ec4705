//! The web site, layer by layer: CamCOPS, the socket, Apache, the name by which others come.

mod certificate;
mod config;

use super::machine::is_ours;
use super::{Finding, LOG_ENDS, Look, or_well};
use crate::drivers::services::member::{Member, ServiceRole};
use crate::drivers::services::{ServicePhase, ServiceState, proof};
use crate::probe::http::Request;
use crate::probe::site::SiteAddress;
use crate::probe::{Cause, Trouble};
use crate::settings::{Bind, Frontend};
use crate::site::maintenance::Maintenance;
use anyhow::Result;
pub(crate) use certificate::check_certificate;
pub(crate) use config::{begin_config, check_config};
use std::time::Duration;
use tokio::net::lookup_host;

/// A site that takes longer does not answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// What nobody may make CamCOPS believe.
const STRANGER: &str = "stranger.invalid";

/// The server of the site; nothing where it is on another machine.
fn web_server(look: &Look<'_>) -> Result<Option<(Member, ServiceState)>> {
    look.service(ServiceRole::Server)
}

fn served_elsewhere() -> Finding {
    Finding::not_applicable("the web server is disabled on this machine")
}

/// Whether it is the way to CamCOPS that fails, and not CamCOPS itself.
fn is_on_the_way(trouble: &Trouble) -> bool {
    matches!(trouble.cause, Cause::Closed | Cause::Unreachable | Cause::UnknownName)
        || trouble.cause == Cause::Other && trouble.text.contains("ermission denied")
}

pub(crate) async fn check_app(look: &Look<'_>) -> Result<Finding> {
    let Some((member, seen)) = web_server(look)? else {
        return Ok(served_elsewhere());
    };
    if let Some(how) = look.services()?.keeps_failing(&look.site.host, &member, &seen) {
        return Ok(Finding::failed(format!("{} {how}", member.name), "camcops-provision logs server"));
    }
    if seen.phase == ServicePhase::Starting {
        return Ok(Finding::failed(format!("{} is still starting", member.name), "camcops-provision wait --for web"));
    }
    let Some(pid) = seen.pid.filter(|_| seen.phase == ServicePhase::Running) else {
        let last = look.services()?.cause(&look.site.host, &member);
        let last = last.map(|line| format!("{LOG_ENDS}{line}"));
        return Ok(Finding::failed(
            format!("{} does not run{}", member.name, last.unwrap_or_default()),
            "camcops-provision start server",
        ));
    };
    Ok(match look.answer(&member).await? {
        Some(Err(why)) if !is_on_the_way(&why) => Finding::failed(why.text, "camcops-provision logs server"),
        Some(Ok(())) => Finding::ok(format!("{} shows its login page", member.name)),
        _ => Finding::ok(format!("{} runs as process {pid}", member.name)),
    })
}

pub(crate) async fn check_socket(look: &Look<'_>) -> Result<Finding> {
    let Some((member, _)) = web_server(look)? else {
        return Ok(served_elsewhere());
    };
    if let Some(Err(why)) = look.answer(&member).await?
        && is_on_the_way(&why)
    {
        return Ok(Finding::for_install(why.text));
    }
    let site = look.site;
    let web = &site.settings().web;
    let Bind::Socket = web.bind else {
        return Ok(Finding::ok("CamCOPS answers on its port"));
    };
    let (socket, account) = (&site.layout.socket, site.facts.flavour.web_account);
    let accounts = &site.host.accounts;
    if web.frontend == Frontend::Apache
        && let Some((user, group)) = accounts.uid(account).zip(accounts.gid(account))
    {
        let asked = site.host.child_of(user, group, "test");
        let ended = asked.args(["-w", socket]).end()?;
        if !ended.status.success() {
            return Ok(Finding::for_install(format!("{socket}: Apache's account {account} cannot access it")));
        }
    }
    Ok(Finding::ok(format!("CamCOPS answers on {socket}")))
}

pub(crate) fn check_maintenance(look: &Look<'_>) -> Result<Finding> {
    if look.site.settings().web.frontend != Frontend::Apache {
        return Ok(Finding::not_applicable("not served by Apache (web.frontend)"));
    }
    Ok(match Maintenance::now(&look.site.host, &look.site.layout)? {
        Some(found) => Finding::warning(
            format!("maintenance is on until {}: visitors see a page that says so", found.shown_end(&look.site.host)),
            "camcops-provision maintenance off",
        ),
        None => Finding::ok("maintenance is off"),
    })
}

fn visitor_address(look: &Look<'_>) -> Result<SiteAddress> {
    Ok(proof::visitor_address(look.services()?))
}

pub(crate) async fn check_apache(look: &Look<'_>) -> Result<Finding> {
    let Some((member, seen)) = look.service(ServiceRole::Web)? else {
        return Ok(Finding::not_applicable("not served by Apache (web.frontend)"));
    };
    let service = look.site.facts.flavour.apache_service;
    if seen.phase != ServicePhase::Running {
        return Ok(Finding::failed(format!("{} does not run", member.name), format!("systemctl start {service}")));
    }
    Ok(match look.answer(&member).await? {
        Some(Err(why)) => Finding::failed(
            why.text,
            match why.cause {
                Cause::Closed => "camcops-provision doctor ports web.config",
                _ => "camcops-provision install",
            },
        ),
        _ => Finding::ok(format!("{} through Apache", look.site.url())),
    })
}

pub(crate) async fn check_public(look: &Look<'_>) -> Result<Vec<Finding>> {
    if look.site.settings().web.frontend != Frontend::Apache {
        return Ok(vec![Finding::not_applicable("not served by Apache (web.frontend)")]);
    }
    let mut findings = Vec::new();
    for name in look.site.names() {
        let endpoint = SiteAddress { host: name.clone(), name: name.clone(), ..visitor_address(look)? };
        let place = endpoint.place();
        findings.push(match endpoint.answers(PATIENCE).await {
            Ok(_) => Finding::ok(place),
            Err(why) => {
                let found = lookup_host((name.as_str(), 0)).await;
                let here = found.is_ok_and(|mut all| all.any(|one| is_ours(one.ip())));
                let ask = format!("curl --verbose --head {place}login");
                match here {
                    true => Finding::failed(why.text, ask),
                    // What answers in our place may well be meant to.
                    false => Finding::warning(why.text, ask),
                }
            }
        });
    }
    Ok(findings)
}

pub(crate) async fn check_headers(look: &Look<'_>) -> Result<Vec<Finding>> {
    if look.site.settings().web.frontend != Frontend::Apache {
        return Ok(vec![Finding::not_applicable("not served by Apache (web.frontend)")]);
    }
    let endpoint = visitor_address(look)?;
    let lies = format!(
        "X-Forwarded-Proto: http\r\nX-Forwarded-Host: {STRANGER}\r\nX-Forwarded-Server: {STRANGER}\r\nX-Script-Name: /{STRANGER}\r\nScript_Name: /{STRANGER}\r\nX-Forwarded-For: 192.0.2.1\r\n"
    );
    let page = match endpoint.ask(Request { header: &lies, ..Request::get("/login") }, PATIENCE).await {
        Ok(page) => page,
        Err(why) => {
            return Ok(vec![Finding::failed(why.text, "camcops-provision doctor web")]);
        }
    };
    let install = "camcops-provision install && camcops-provision restart server";
    let (header, body) = page.0.split_once("\r\n\r\n").unwrap_or((&page.0, ""));
    if page.status() != Some(200) {
        return Ok(vec![Finding::failed(
            format!("{} answers {:?}", endpoint.place(), header.lines().next().unwrap_or_default()),
            "camcops-provision doctor web.apache",
        )]);
    }
    let authority = endpoint.authority();
    let (right, wrong) = (format!("\"https://{authority}{}/", endpoint.path), format!("\"http://{authority}"));
    let mut findings = Vec::new();
    if page.0.contains(STRANGER) {
        findings.push(Finding::failed(
            "CamCOPS believes host and path headers of any client: Apache passes X-Forwarded-* or X-Script-Name on",
            install,
        ));
    }
    let stranger = SiteAddress { name: STRANGER.to_owned(), ..endpoint.clone() };
    if stranger.answers(PATIENCE).await.is_ok() {
        findings.push(Finding::failed(
            format!("CamCOPS answers to any name (such as {STRANGER}) and uses it in its links: Apache should refuse all except web.server_names"),
            install,
        ));
    }
    if body.contains(&wrong) {
        findings.push(Finding::failed(
            format!("the links of the page start with http:// although it was requested by https ({authority}): CamCOPS does not accept Apache's X-Forwarded-Proto"),
            install,
        ));
    } else if !page.0.contains(STRANGER) && !body.contains(&right) {
        findings.push(Finding::failed(
            format!(
                "no link of the page starts with https://{authority}{}/: CamCOPS does not know its own name or path",
                endpoint.path
            ),
            install,
        ));
    }
    let cookies = header.lines().filter(|line| {
        let line = line.to_lowercase();
        line.starts_with("set-cookie:") && !line.contains("secure")
    });
    if cookies.count() > 0 {
        findings.push(Finding::failed(
            "cookies are allowed over plain HTTP: browsers drop them on https, and users are logged out at once",
            "camcops-provision config unset config.site.ALLOW_INSECURE_COOKIES && camcops-provision install",
        ));
    }
    Ok(or_well(findings, || {
        Finding::ok(format!(
            "CamCOPS knows that it is https://{authority}{}/, whatever headers clients send",
            endpoint.path
        ))
    }))
}
