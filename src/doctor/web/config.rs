//! Apache's configuration, and the classic mistakes of a proxy in it.

use crate::base::terminal::count_of;
use crate::camcops_conf::Ini;
use crate::doctor::{Finding, Look, or_well};
use crate::drivers::services::apache::{complaint_of, find_complaint, test_question};
use crate::layout::Flavour;
use crate::resource::Resource;
use crate::settings::Frontend;
use anyhow::Result;
use std::collections::BTreeMap;

pub(crate) fn begin_config(look: &Look<'_>) -> Result<()> {
    let site = look.site;
    if site.settings().web.frontend == Frontend::Apache
        && let Some(question) = test_question(&site.host, site.facts.flavour)
    {
        look.early.configtest.begin(question.begin()?.end_apart());
    }
    Ok(())
}

pub(crate) async fn check_config(look: &Look<'_>) -> Result<Vec<Finding>> {
    let site = look.site;
    if site.settings().web.frontend != Frontend::Apache {
        return Ok(vec![Finding::not_applicable("not served by Apache (web.frontend)")]);
    }
    let flavour = site.facts.flavour;
    let mut findings = Vec::new();
    let missing = look
        .pending(|planned| {
            let name = planned.change.resource.name();
            let is_module = flavour.apache_modules.is_some_and(|directory| name.starts_with(directory));
            is_module && matches!(planned.change.resource, Resource::Symlink(_))
        })
        .await
        // Where no plan can be made, `settings` tells why.
        .unwrap_or_default();
    for module in missing {
        findings.push(Finding::for_install(format!("an Apache module is disabled: {module}")));
    }
    let complaint = match look.early.configtest.take().await {
        Some(said) => complaint_of(&said?),
        None => find_complaint(&site.host, flavour)?,
    };
    if let Some(why) = complaint {
        findings.push(Finding::failed(
            format!("Apache's configuration is broken: {why}"),
            format!("{} -t", flavour.apache_control),
        ));
    }
    let sites = read_sites(look, flavour)?;
    for found in find_mistakes(&sites, &site.layout.socket) {
        findings.push(Finding::failed(found.0, found.1));
    }
    findings.extend(check_timeouts(look)?);
    Ok(or_well(findings, || {
        Finding::ok(format!("configtest passes; no known problem in {}", count_of(sites.len(), "site")))
    }))
}

/// Path and text of each enabled site.
fn read_sites(look: &Look<'_>, flavour: &Flavour) -> Result<Vec<(String, String)>> {
    let host = &look.site.host;
    let directory = flavour.apache_enabled.unwrap_or(flavour.apache_sites);
    let mut sites = Vec::new();
    for name in host.list(directory)?.unwrap_or_default() {
        let path = format!("{directory}/{name}");
        // A link that leads nowhere is Apache's own complaint.
        let Ok(followed) = host.followed(&path) else {
            continue;
        };
        if let Ok(Some(text)) = host.read_text(&followed) {
            sites.push((followed, text));
        }
    }
    Ok(sites)
}

/// A line that passes requests on to a socket.
struct Passed<'a> {
    from: &'a str,
    socket: &'a str,
    to: &'a str,
}

fn parse_proxy_line(line: &str) -> Option<Passed<'_>> {
    let line = line.trim();
    let directive = line.split_whitespace().next()?.to_lowercase();
    if !["proxypass", "proxypassmatch", "balancermember", "sethandler"].contains(&directive.as_str()) {
        return None;
    }
    let at = line.find("unix:")?;
    let target = line[at + 5..].split(['"', ' ', '\t']).next()?;
    let (socket, to) = target.split_once('|')?;
    let from = line[..at].split_whitespace().nth(1).unwrap_or_default();
    Some(Passed { from: from.trim_matches('"'), socket, to })
}

/// What is wrong, and what mends it.
fn find_mistakes(sites: &[(String, String)], socket: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut workers: BTreeMap<&str, &str> = BTreeMap::new();
    for (path, text) in sites {
        let ours = text.contains(crate::layout::MANAGED);
        let remedy = match ours {
            true => "camcops-provision install".to_owned(),
            false => format!("editor {path}   # then: systemctl reload apache2"),
        };
        for (number, line) in text.lines().enumerate() {
            let Some(passed) = parse_proxy_line(line) else {
                continue;
            };
            let place = format!("{path}:{}", number + 1);
            if passed.to.starts_with("https:") {
                found.push((
                    format!(
                        "{place}: passes requests to a socket by https, which it does not support: write unix:{}|http:",
                        passed.socket
                    ),
                    remedy.clone(),
                ));
            }
            if passed.socket == socket && !passed.from.is_empty() && passed.from != "!" {
                let ends = (passed.from.ends_with('/'), passed.to.ends_with('/'));
                if ends.0 && !ends.1 {
                    found.push((
                        format!("{place}: {} ends with a slash and its target {} does not: all pages except the first get a wrong host", passed.from, passed.to),
                        remedy.clone(),
                    ));
                }
            }
            let known = workers.entry(passed.to).or_insert(passed.socket);
            if *known != passed.socket {
                found.push((
                    format!("{place}: two sockets share the worker {}: give each its own host name, or Apache may mix them up", passed.to),
                    remedy.clone(),
                ));
            }
        }
    }
    found
}

/// Apache and CamCOPS should give up on a slow request at the same time.
fn check_timeouts(look: &Look<'_>) -> Result<Option<Finding>> {
    let site = look.site;
    let wanted = site.settings().web.timeout_s.get();
    let text = site.host.read_text(&site.layout.config)?.unwrap_or_default();
    let set = Ini::parse(&text).get("server", "GUNICORN_TIMEOUT_S");
    let set = set.and_then(|value| value.trim().parse::<u32>().ok());
    Ok(match set {
        Some(seconds) if seconds != wanted => Some(Finding::warning(
            format!("CamCOPS aborts a request after {seconds} s, but Apache after {wanted} s"),
            format!("camcops-provision config set web.timeout_s {seconds} && camcops-provision install"),
        )),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(lines: &str) -> Vec<String> {
        let sites = [("/etc/a.conf".to_owned(), lines.to_owned())];
        let all = find_mistakes(&sites, "/run/camcops/camcops.socket");
        all.into_iter().map(|(what, _)| what).collect()
    }

    #[test]
    fn the_classic_mistakes_are_found() {
        let right = "ProxyPass \"/\" \"unix:/run/camcops/camcops.socket|http://camcops.invalid/\" retry=0";
        assert_eq!(found(right), Vec::<String>::new());
        let other = "  ProxyPass /x unix:/run/x.socket|http://x.invalid";
        assert_eq!(found(&format!("{right}\n{other}\n# ProxyPass / unix:/y|https://z")), Vec::<String>::new());
        let https = found("ProxyPass / unix:/run/camcops/camcops.socket|https://localhost/");
        assert!(https[0].starts_with("/etc/a.conf:1: passes requests to a socket by https"), "{https:?}");
        let slash = found("ProxyPass / unix:/run/camcops/camcops.socket|http://dummy1");
        assert!(slash[0].contains("ends with a slash"), "{slash:?}");
        let shared = found("ProxyPass /a unix:/run/a|http://localhost/\nProxyPass /b unix:/run/b|http://localhost/");
        assert!(shared[0].contains("share the worker"), "{shared:?}");
    }
}
