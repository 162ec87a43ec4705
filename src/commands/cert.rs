//! `cert`: the certificate of the site: what it is, a request for a better one, that one in its place, and what a tablet
//! says to it.
//!
//! A certificate of an authority gets files of its own, named after its fingerprint. So the one that is served stays whole
//! until the settings name the other, which is one step, and the engine brings that to Apache.

mod certbot;
mod change;
mod import;
mod pfx;
mod verify;

use super::need_root;
use crate::base::error::Exit;
use crate::base::report::Report;
use crate::base::stack::box_future;
use crate::certificate::{self, CertificateSummary};
use crate::cli::{Cert, Global};
use crate::drivers::acme;
use crate::journal;
use crate::session::Session;
use crate::settings::{Frontend, TlsMode};
use anyhow::Result;
pub(crate) use change::remove_parked;
use serde::Serialize;
use serde_json::json;
use std::time::SystemTime;
use zeroize::Zeroizing;

pub(crate) async fn run(global: &Global, command: &Cert) -> Result<Report> {
    match command {
        Cert::Show => show_certificate(&Session::open(global)?),
        Cert::Csr { new_key } => request_certificate(global, *new_key),
        Cert::Install(flags) if flags.from_certbot => box_future(|| certbot::install_certbot(global)).await,
        Cert::Install(flags) => box_future(|| change::install_certificate(global, flags)).await,
        Cert::Renew { new_key, force } => {
            let how = acme::Renewal { force: *force, new_key: *new_key };
            change::renew_certificate(global, how).await
        }
        Cert::Verify { host, port } => box_future(|| verify::verify_served(global, host.as_deref(), *port)).await,
    }
}

/// What renews the certificate by itself, where certbot gets it.
pub(crate) fn find_renewer(site: &Session) -> Result<Option<String>> {
    match (site.settings().tls.mode, site.host.staged_root()) {
        (TlsMode::Certbot, None) => acme::find_renewer(&site.host),
        _ => Ok(None),
    }
}

/// A certificate that was served before.
#[derive(Debug, Serialize)]
struct FormerCertificate {
    fingerprint_sha256: String,
    names: Vec<String>,
    not_before: String,
    not_after: String,
}

fn show_certificate(site: &Session) -> Result<Report> {
    let (path, key, chain_file) = site.certificate_files();
    let unusable =
        |path: &str, why: anyhow::Error| Exit::Unusable.because(format!("{}: {why:#}", site.host.outside(path)));
    let read = |path: &str| -> Result<Vec<CertificateSummary>> {
        let bytes = site.host.read(&site.host.followed(path)?)?.ok_or_else(|| {
            Exit::Unreachable.because(format!(
                "there is no certificate at {} yet: run `camcops-provision install`",
                site.host.outside(path)
            ))
        })?;
        certificate::summarize_all(&bytes, SystemTime::now()).map_err(|why| unusable(path, why))
    };
    let mut chain = read(&path)?;
    if let Some(file) = &chain_file {
        chain.extend(read(file)?);
    }
    if chain.is_empty() {
        return Err(unusable(&path, anyhow::anyhow!("it holds no certificate")));
    }
    let own = chain.remove(0);
    let former = former_certificates(site, &own)?;
    let authority = match site.settings().tls.mode {
        TlsMode::LocalCa => read(&site.layout.authority)?.into_iter().next(),
        _ => None,
    };
    let renewer = find_renewer(site)?;
    let report = Report::new(json!({
        "instance": site.instance,
        "file": path,
        "key_file": key,
        "certificate": own,
        "chain": chain,
        "authority": authority,
        "former": former,
        "renewed_by": renewer,
    }));
    let issuer = if own.self_signed { "itself" } else { &own.issuer };
    let of_chain = |link: &CertificateSummary| {
        ("chain", format!("{}, issued by {}, until {}", link.subject, link.issuer, link.not_after))
    };
    let renewed = (site.settings().tls.mode == TlsMode::Certbot)
        .then(|| ("renewed by", renewer.unwrap_or_else(|| "nothing: certbot's timer is not active".into())));
    let before = |one: &FormerCertificate| ("before", format!("{}, made {}", one.fingerprint_sha256, one.not_before));
    Ok(report
        .with_row("file", path)
        .with_row("subject", &own.subject)
        .with_row("names", own.names.join(", "))
        .with_row("issued by", issuer)
        .with_rows(chain.iter().map(of_chain))
        .with_row("valid", format!("{} to {}, {}", own.not_before, own.not_after, own.left()))
        .with_row("SHA-256", &own.fingerprint_sha256)
        .with_rows(authority.iter().map(|one| ("authority", describe_authority(site, one))))
        .with_rows(renewed)
        .with_rows(former.iter().map(before)))
}

/// What is to be trusted, and by what people recognise it.
fn describe_authority(site: &Session, authority: &CertificateSummary) -> String {
    let place = match site.settings().web.frontend {
        Frontend::Apache => format!("{}camcops-authority.crt", site.url()),
        Frontend::None => site.layout.authority.clone(),
    };
    format!("trust {place} once; SHA-256 {}; until {}", authority.fingerprint_sha256, authority.not_after)
}

/// Those that this program served before: their content is kept beside the journal.
fn former_certificates(site: &Session, now: &CertificateSummary) -> Result<Vec<FormerCertificate>> {
    let mut all = Vec::new();
    for pem in journal::kept_contents(&site.host, &site.instance)? {
        if !pem.starts_with(b"-----BEGIN CERTIFICATE") {
            continue;
        }
        let Ok(one) = certificate::summarize_first(&pem, SystemTime::now()) else {
            continue;
        };
        if one.fingerprint_sha256 != now.fingerprint_sha256 {
            all.push(FormerCertificate {
                fingerprint_sha256: one.fingerprint_sha256,
                names: one.names,
                not_before: one.not_before,
                not_after: one.not_after,
            });
        }
    }
    all.sort_by(|one, other| other.not_before.cmp(&one.not_before));
    Ok(all)
}

/// Where a key waits for its certificate.
fn waiting_key(site: &Session) -> String {
    format!("{}.new", site.layout.key)
}

fn request_certificate(global: &Global, new_key: bool) -> Result<Report> {
    need_root(global, "use the key of the certificate")?;
    let site = Session::open(global)?;
    let host = &site.host;
    let (_, present, _) = site.certificate_files();
    let waiting = waiting_key(&site);
    let directory = waiting.rsplit_once('/').map_or("/", |(directory, _)| directory);
    if host.stat(directory)?.is_none() {
        return Err(Exit::Unreachable
            .because(format!("there is no {}: run `camcops-provision install`", host.outside(directory))));
    }
    let path = if new_key { waiting } else { host.followed(&present)? };
    let shown = host.outside(&path);
    let key = match host.read_text(&path)? {
        Some(key) => Zeroizing::new(key),
        None if new_key => {
            let key = certificate::new_key()?;
            let root = host.is_root().then_some((0, 0));
            host.put_file(&path, key.as_bytes(), root, 0o600)?;
            key
        }
        None => {
            return Err(Exit::Unreachable
                .because(format!("there is no key at {shown}: run `camcops-provision install`, or use --new-key")));
        }
    };
    let request = certificate::create_request(&key, &site.subject())
        .map_err(|why| Exit::Unusable.because(format!("{shown}: {why:#}")))?;
    Ok(Report::new(json!({ "instance": site.instance, "request": request, "key_file": shown }))
        .with_text(request)
        .with_note(format!(
            "the key stays in {shown}; when you have the signed certificate: `camcops-provision cert install --cert FILE --chain FILE`"
        )))
}
