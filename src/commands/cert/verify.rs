//! `cert verify`: the site as a tablet meets it.

use crate::base::error::Exit;
use crate::base::report::Report;
use crate::certificate::{self, CertificateSummary, Severity};
use crate::cli::Global;
use crate::probe::{Cause, visitor};
use crate::session::Session;
use anyhow::Result;
use rustls::pki_types::ServerName;
use serde_json::json;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// How long a visitor waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Goes there, and says what a tablet would say.
pub(crate) async fn verify_served(global: &Global, host: Option<&str>, port: Option<u16>) -> Result<Report> {
    if global.root.is_some() {
        return Err(
            Exit::Usage.because("a staged tree does not run; use this command without --root on the running machine")
        );
    }
    let site = Session::open(global)?;
    let host = host.map_or_else(|| site.names()[0].clone(), str::to_owned);
    let port = port.unwrap_or(site.settings().web.public_port());
    if ServerName::try_from(host.as_str()).is_err() {
        return Err(Exit::Usage.because(format!("--host {host}: neither a host name nor an address")));
    }
    let met = visitor::meet_server(&host, port, PATIENCE).await.map_err(|why| {
        let exit = match why.cause {
            Cause::NoTls => Exit::Unusable,
            Cause::Other => Exit::Failed,
            _ => Exit::Unreachable,
        };
        exit.because(format!("can't connect to the site: {why}"))
    })?;
    let now = SystemTime::now();
    let chain: Vec<CertificateSummary> =
        met.chain.iter().filter_map(|der| certificate::summary_of(der, now).ok()).collect();
    let problem = met
        .trouble
        .as_ref()
        .map(|why| describe_complaint(&met, why, &chain, &host))
        .or_else(|| explain_refusal(&host, port, &met, now));
    let report = Report::new(json!({
        "instance": site.instance,
        "host": host,
        "port": port,
        "trusted": problem.is_none(),
        "problem": problem,
        // The visitor speaks nothing else.
        "protocol": (!chain.is_empty()).then_some("TLS 1.2"),
        "chain": chain,
    }));
    if let Some(problem) = problem {
        return Ok(report.refusing(Exit::Unusable, format!("{host}:{port}: {problem}")));
    }
    let left = chain.first().map(CertificateSummary::left).unwrap_or_default();
    Ok(report.with_remark(format!(
        "a tablet trusts {host}:{port}: TLS 1.2, name in the certificate, complete chain of {}, {left}",
        chain.len()
    )))
}

/// What other clients than this one have against a certificate that this one takes: the same as `cert install` would.
fn explain_refusal(host: &str, port: u16, met: &visitor::Met, now: SystemTime) -> Option<String> {
    let place = format!("{host}:{port}");
    let names = [host.to_owned()];
    let findings = certificate::check_served(Path::new(&place), &met.chain, &names, now);
    let mut findings = findings.into_iter();
    let refused = findings.find(|finding| finding.severity == Severity::Refuse)?;
    Some(format!("it {}: {}", refused.what, refused.remedy))
}

/// What a tablet has against it.
fn describe_complaint(met: &visitor::Met, why: &rustls::Error, chain: &[CertificateSummary], host: &str) -> String {
    let Some(own) = chain.first() else {
        return format!(
            "no TLS 1.2: {why}; tablets with iOS support nothing newer, so allow it with SSLProtocol in Apache's configuration"
        );
    };
    if own.days_left < 0 {
        return format!(
            "the certificate expired on {}: renew it and run `camcops-provision cert install`, or `cert renew` if it is self-signed",
            own.not_after
        );
    }
    if own.self_signed {
        return format!(
            "the certificate is self-signed, so a tablet trusts it only where it was told to (fingerprint {}): get one from an authority with `camcops-provision cert csr`",
            own.fingerprint_sha256
        );
    }
    if met.is_other_name() {
        return format!(
            "the certificate is for {} and not for {host}: use its name, or have one issued for this name",
            own.names.join(", ")
        );
    }
    match chain.last() {
        Some(last) if met.is_unknown() && !last.self_signed => format!(
            "it is not from an authority that this machine trusts, or its chain is incomplete: the last certificate sent is that of {}, issued by {}; add the missing ones with `camcops-provision cert install --chain`",
            last.subject, last.issuer
        ),
        Some(last) if met.is_unknown() => format!(
            "it was issued by {}, which this machine does not trust; each tablet has to be told to trust it",
            last.subject
        ),
        _ => format!("{why}"),
    }
}
