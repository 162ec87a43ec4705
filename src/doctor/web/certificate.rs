//! The certificate of the site.

use crate::certificate::{self, GivenFiles, Severity};
use crate::doctor::{Finding, Look};
use crate::drivers::acme;
use crate::session::Session;
use crate::settings::{Frontend, TlsMode};
use anyhow::Result;
use std::path::Path;
use std::time::SystemTime;
use zeroize::Zeroizing;

/// Below this many days somebody should begin to order another one, and below these it is urgent.
const SOON: i64 = 30;
const NOW: i64 = 7;

pub(crate) fn check_certificate(look: &Look<'_>) -> Result<Vec<Finding>> {
    let site = look.site;
    let web = &site.settings().web;
    if web.frontend != Frontend::Apache && web.own_https().is_none() {
        return Ok(vec![Finding::not_applicable("the certificate belongs to the reverse proxy in front")]);
    }
    let mode = site.settings().tls.mode;
    let own = matches!(mode, TlsMode::SelfSigned | TlsMode::LocalCa);
    let (path, key_path, chain_path) = site.certificate_files();
    let renew = match mode {
        TlsMode::SelfSigned | TlsMode::LocalCa => "camcops-provision install".to_owned(),
        TlsMode::Files => {
            format!("camcops-provision install   # once the renewed certificate is in {path}")
        }
        TlsMode::Certbot => "camcops-provision cert renew".to_owned(),
    };
    let read = |path: &str| site.host.read(&site.host.followed(path)?);
    let Some(pem) = read(&path)? else {
        return Ok(vec![Finding::failed(format!("{path} is not there"), renew)]);
    };
    let now = SystemTime::now();
    let summary = match certificate::summarize_first(&pem, now) {
        Ok(summary) => summary,
        Err(why) => return Ok(vec![Finding::failed(format!("{path}: {why:#}"), renew)]),
    };
    look.measure("certificate_days_left", None, summary.days_left as f64);
    let key = Zeroizing::new(read(&key_path)?.unwrap_or_default());
    let names = site.names();
    let for_whom = summary.names.join(", ");
    let found = format!("for {for_whom}, {}", summary.left());
    let mut findings = Vec::new();
    if mode == TlsMode::Certbot {
        if summary.self_signed {
            return Ok(vec![Finding::for_install(format!("certbot has no certificate yet: {found}, self-signed"))]);
        }
        findings.extend(from_certbot(site, &pem)?);
    }
    if own {
        match site.judge_own((&pem, &key), now) {
            // A short life is no reason to worry: install makes it anew in time.
            Ok(()) => findings.push(Finding::ok(found.clone())),
            Err(why) if summary.days_left > SOON => {
                findings.push(Finding::failed(format!("{path}: {why}"), renew.clone()));
            }
            Err(_) => {}
        }
    } else {
        let chain = chain_path.as_deref().map(read).transpose()?.flatten();
        let given = certificate::check_given(&GivenFiles {
            certificate: (Path::new(&path), &pem),
            key: (Path::new(&key_path), &key),
            chain: chain_path.as_deref().map(Path::new).zip(chain.as_deref()),
            names: &names,
            now,
            is_trusted: &|leaf, others| site.is_trusted(leaf, others),
        });
        for one in given {
            let found = format!("{} {}", one.file.display(), one.what);
            findings.push(match one.severity {
                Severity::Refuse => Finding::failed(found, one.remedy),
                Severity::Warn => Finding::warning(found, one.remedy),
            });
        }
    }
    match summary.days_left {
        _ if own && !findings.is_empty() => {}
        ..NOW => findings.push(Finding::failed(found, renew)),
        // Certbot renews when thirty days are left, twice a day.
        20.. if mode == TlsMode::Certbot && findings.is_empty() => findings.push(Finding::ok(found)),
        20.. if mode == TlsMode::Certbot => {}
        NOW..SOON => findings.push(Finding::warning(found, renew)),
        _ if findings.is_empty() => findings.push(Finding::ok(found)),
        _ => {}
    }
    Ok(findings)
}

/// Whether certbot has another one than is served, and whether somebody renews it.
fn from_certbot(site: &Session, served: &[u8]) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    if let Some(Ok(text)) = site.at_certbot()?
        && text.as_bytes() != served
    {
        findings.push(Finding::failed(
            "certbot has another certificate than the one in use",
            "camcops-provision cert install --from-certbot",
        ));
    }
    if site.host.staged_root().is_none() && acme::find_renewer(&site.host)?.is_none() {
        findings.push(Finding::failed(
            "it is not renewed: neither certbot's timer nor its cron job is active",
            "systemctl enable --now certbot.timer   # where systemd does not run: install cron",
        ));
    }
    Ok(findings)
}
