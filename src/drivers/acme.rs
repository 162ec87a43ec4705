//! A certificate that certbot gets from an authority that speaks ACME, and renews: certbot's own records tell what it has.
//!
//! Its name is certbot's name for it. Facets: `names`, `server`, `authenticator` (how the authority is shown that the site
//! is ours) and `valid`. It is proved by files that Apache serves, so it comes after the site.

use super::release::index::proxy_variables;
use super::services;
use crate::base::error::Exit;
use crate::base::progress::Tell;
use crate::base::terminal::strip_controls;
use crate::certificate;
use crate::host::{Ended, Host, processes};
use crate::layout::ACME;
use crate::resource::{Enforced, Facets, State};
use crate::settings::{Internet, Tls};
use anyhow::Result;
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

/// Where certbot keeps the current certificates.
pub(crate) const LIVE: &str = "/etc/letsencrypt/live";
/// Where certbot keeps what it needs to renew them.
const RENEWAL: &str = "/etc/letsencrypt/renewal";
/// How the authority is shown that the site is ours.
pub(crate) const AUTHENTICATOR: &str = "webroot";
/// The authority tries each name several times before it gives up.
const PATIENCE: Duration = Duration::from_secs(600);
/// What Debian, RHEL and certbot's own snap call the timer that renews.
const TIMERS: [&str; 3] = ["certbot.timer", "certbot-renew.timer", "snap.certbot.renew.timer"];
/// What renews where systemd does not run.
const CRON: &str = "/etc/cron.d/certbot";
/// What certbot says beside the reason.
const NOISE: [&str; 12] = [
    "Saving debug log",
    "Ask for help",
    "See the logfile",
    "Plugins selected",
    "Account registered",
    "Requesting a certificate",
    "Renewing an existing",
    "Simulating renewal",
    "Processing /etc/",
    "An unexpected error occurred",
    "Some challenges have failed",
    "- - -",
];

/// What this driver knows of the site.
#[derive(Debug)]
pub(crate) struct Certbot {
    names: Vec<String>,
    server: String,
    email: Option<String>,
    network: Internet,
    tell: Tell,
}

impl Certbot {
    /// For the names of a site; `tell` is told what is going on.
    pub(crate) fn new(names: Vec<String>, tls: &Tls, network: &Internet, tell: Tell) -> Certbot {
        Certbot {
            names,
            server: tls.acme_server.as_str().to_owned(),
            email: tls.acme_email.as_ref().map(|to| to.as_str().to_owned()),
            network: network.clone(),
            tell,
        }
    }
}

/// The names of a certificate, as they are compared.
pub(crate) fn joined_names(names: &[String]) -> BTreeSet<String> {
    names.iter().map(|name| name.to_lowercase()).collect()
}

/// What certbot has under this name.
pub(crate) fn observe(host: &Host, name: &str) -> Result<State> {
    let Some(records) = host.read_text(&format!("{RENEWAL}/{name}.conf"))? else {
        return Ok(State::Absent);
    };
    let mut facets = Facets::new();
    for facet in ["server", "authenticator"] {
        if let Some(value) = recorded_value(&records, facet) {
            facets = facets.with(facet, value);
        }
    }
    let path = host.followed(&format!("{LIVE}/{name}/cert.pem"))?;
    let summary = host.read(&path)?.map(|pem| certificate::summarize_first(&pem, SystemTime::now()));
    if let Some(Ok(summary)) = summary {
        facets = facets.with("names", joined_names(&summary.names)).with(
            "valid",
            match summary.days_left {
                0.. => "yes",
                _ => "expired",
            },
        );
    }
    Ok(State::Present(facets))
}

/// A value of certbot's records.
fn recorded_value<'a>(records: &'a str, key: &str) -> Option<&'a str> {
    records.lines().find_map(|line| {
        let (found, value) = line.split_once('=')?;
        (found.trim() == key).then(|| value.trim())
    })
}

/// Has it issued, with what differs.
pub(crate) fn issue(known: &Certbot, host: &Host, name: &str) -> Result<Enforced> {
    if known.network.offline {
        return Err(Exit::Unreachable.because(
            "no certificate can be requested with --offline: the site keeps its present certificate; run again when the authority can be reached",
        ));
    }
    known.tell.line(&format!("requesting a certificate for {} from {}", known.names.join(", "), known.server));
    let mut arguments = vec!["certonly", "--non-interactive", "--webroot"];
    arguments.extend(["--webroot-path", ACME, "--cert-name", name]);
    arguments.extend(["--server", &known.server, "--agree-tos"]);
    match &known.email {
        Some(email) => arguments.extend(["--email", email, "--no-eff-email"]),
        None => arguments.push("--register-unsafely-without-email"),
    }
    // It is asked only where something differs, and the hook would wait for the run that is waiting for it.
    arguments.extend(["--force-renewal", "--renew-with-new-domains", "--no-directory-hooks"]);
    for name in &known.names {
        arguments.extend(["--domain", name]);
    }
    let said = run_certbot(known, host, &arguments)?;
    check_success(&said, "the site keeps its present certificate; fix the cause and run again")?;
    Ok(Enforced::Done)
}

/// Has certbot forget it.
pub(crate) fn forget_certificate(host: &Host, name: &str) -> Result<Enforced> {
    if !host.has_program("certbot") {
        return Ok(Enforced::LeftAlone("certbot is no longer installed".into()));
    }
    let said =
        host.child("certbot").args(["delete", "--non-interactive", "--cert-name", name]).patience(PATIENCE).end()?;
    check_success(&said, "fix the cause and run again")?;
    Ok(Enforced::Done)
}

/// How a certificate is renewed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Renewal {
    /// Also where it is not due.
    pub(crate) force: bool,
    /// With another key, even if certbot was told to keep it.
    pub(crate) new_key: bool,
}

/// Renews it; certbot's hooks bring it to Apache. Says whether it is another one now.
pub(crate) fn renew_certificate(known: &Certbot, host: &Host, name: &str, how: Renewal) -> Result<bool> {
    if observe(host, name)? == State::Absent {
        return Err(Exit::Unreachable
            .because(format!("certbot has no certificate called {name} yet: run `camcops-provision install`")));
    }
    let mut arguments = vec!["renew", "--non-interactive", "--no-random-sleep-on-renew"];
    arguments.extend(["--cert-name", name]);
    if how.force {
        arguments.push("--force-renewal");
    }
    if how.new_key {
        arguments.push("--new-key");
    }
    let current = || host.followed(&format!("{LIVE}/{name}/cert.pem"));
    let before = current()?;
    let said = run_certbot(known, host, &arguments)?;
    check_success(&said, "the site keeps its present certificate; fix the cause and run again")?;
    Ok(current()? != before)
}

fn run_certbot(known: &Certbot, host: &Host, arguments: &[&str]) -> Result<Ended> {
    let bundle = known.network.ca_bundle.iter().map(|path| ("REQUESTS_CA_BUNDLE", path.as_str()));
    let child = host.child("certbot").args(arguments).envs(proxy_variables(host, &known.network)?);
    child.envs(bundle).patience(PATIENCE).end()
}

fn check_success(said: &Ended, next: &str) -> Result<()> {
    if said.status.success() {
        return Ok(());
    }
    Err(Exit::Unreachable.because(format!(
        "certbot got no certificate: {}; {next} (see /var/log/letsencrypt/letsencrypt.log)",
        refusal_reason(&format!("{}\n{}", said.output, said.complaint))
    )))
}

/// Why there is none: the authority's own word where it gave one.
fn refusal_reason(said: &str) -> String {
    let lines: Vec<String> =
        said.lines().map(|line| strip_controls(line).trim().to_owned()).filter(|line| !line.is_empty()).collect();
    let mut reasons = Vec::new();
    let mut domain = String::new();
    let mut renewal = None;
    for line in &lines {
        if let Some(name) = line.strip_prefix("Domain:") {
            domain = name.trim().to_owned();
        } else if let Some((_, why)) = line.split_once(" with error: ") {
            renewal = Some(why);
        } else if let Some(detail) = line.strip_prefix("Detail:") {
            let reason = format!("{domain}: {}", detail.trim());
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
    }
    if reasons.is_empty()
        && let Some(why) = renewal
    {
        reasons.push(why.to_owned());
    }
    if reasons.is_empty() {
        let telling = |line: &String| !NOISE.iter().any(|noise| line.starts_with(noise));
        reasons = lines.into_iter().filter(telling).collect();
        reasons.drain(..reasons.len().saturating_sub(3));
    }
    match reasons.is_empty() {
        true => "no reason given".to_owned(),
        false => reasons.join(" / "),
    }
}

/// Who renews the certificates of certbot on this machine; nothing if nobody does.
pub(crate) fn find_renewer(host: &Host) -> Result<Option<String>> {
    if services::systemd::is_running(host)? {
        let units = TIMERS.map(str::to_owned);
        let seen = services::systemd::see_units(host, &units)?;
        return Ok(units
            .into_iter()
            .find(|unit| seen.get(unit).is_some_and(|one| one.phase == services::ServicePhase::Running)));
    }
    let is_cron = |pid| processes::program_of(pid).is_some_and(|name| ["cron", "crond"].contains(&name.as_str()));
    let runs = host.stat(CRON)?.is_some() && processes::all_processes().into_iter().any(is_cron);
    Ok(runs.then(|| CRON.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_of_the_authority_is_the_reason() {
        let said = "Saving debug log to /var/log/letsencrypt/letsencrypt.log\n\
            Requesting a certificate for a.example.org and b.example.org\n\n\
            Certbot failed to authenticate some domains (authenticator: webroot). The Certificate Authority reported these problems:\n\
            \x20 Domain: b.example.org\n  Type:   dns\n  Detail: no such name\n\n\
            Hint: something long\n\nSome challenges have failed.\nAsk for help at a place.";
        assert_eq!(refusal_reason(said), "b.example.org: no such name");
        let said = "Saving debug log to /x\nAn unexpected error occurred:\nError creating new order :: too many certificates already issued\nAsk for help";
        assert_eq!(refusal_reason(said), "Error creating new order :: too many certificates already issued");
        assert_eq!(refusal_reason("Saving debug log to /x\n"), "no reason given");
        let said = "Processing /etc/letsencrypt/renewal/camcops.conf\n\
            Failed to renew certificate camcops with error: Connection refused\n\
            All renewals failed. The following certificates could not be renewed:\n1 renew failure(s)";
        assert_eq!(refusal_reason(said), "Connection refused");
    }

    #[test]
    fn records_are_read_by_key() {
        let records =
            "version = 2.1.0\n[renewalparams]\nauthenticator = webroot\nserver = https://localhost:14000/dir\n";
        assert_eq!(recorded_value(records, "authenticator"), Some("webroot"));
        assert_eq!(recorded_value(records, "serve"), None);
    }
}
