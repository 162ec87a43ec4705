//! `cert`: the certificate of the site: what it is, a request for a better one, that one in its place, and what a tablet
//! says to it.
//!
//! A certificate of an authority gets files of its own, named after its fingerprint. So the one that is served stays whole
//! until the settings name the other, which is one step, and the engine brings that to Apache.

use super::install::planned;
use super::{config, need_machine, need_root, stop_on_signals};
use crate::certificate::{self, Given, Severity, Summary};
use crate::cli::{Cert, CertInstall, Global, Parts};
use crate::engine::{self, Outcome};
use crate::error::Exit;
use crate::journal::{self, Writer};
use crate::probe::{Cause, visitor};
use crate::report::{self, Lines, Style};
use crate::resource::{Part, services};
use crate::settings::TlsMode;
use crate::site::{NewKey, Site};
use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::json;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};
use zeroize::Zeroizing;

/// How long a visitor waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Does it.
pub async fn run(global: &Global, command: &Cert, style: Style) -> Result<u8> {
    match command {
        Cert::Show => show(global, style),
        Cert::Csr { new_key } => request(global, *new_key, style),
        Cert::Install(flags) => install(global, flags, style).await,
        Cert::Renew { new_key } => renew(global, *new_key, style).await,
        Cert::Verify { host, port } => verify(global, host.as_deref(), *port, style).await,
    }
}

/// A certificate that was served before.
#[derive(Debug, Serialize)]
struct Former {
    fingerprint_sha256: String,
    names: Vec<String>,
    not_before: String,
    not_after: String,
}

fn show(global: &Global, style: Style) -> Result<u8> {
    let site = Site::load(global)?;
    let (path, key, chain) = site.certificate_files();
    let now = SystemTime::now();
    let read = |path: &str| -> Result<Vec<u8>> {
        let bytes = site.host.read(&site.host.followed(path)?)?;
        bytes.ok_or_else(|| {
            Exit::Unreachable.because(format!(
                "there is no certificate at {} yet: run `camcops-provision install`",
                site.host.outside(path)
            ))
        })
    };
    let unusable = |path: &str, why: anyhow::Error| {
        Exit::Unusable.because(format!("{}: {why:#}", site.host.outside(path)))
    };
    let mut all = certificate::summaries(&read(&path)?, now).map_err(|why| unusable(&path, why))?;
    if let Some(chain) = &chain {
        let more = certificate::summaries(&read(chain)?, now);
        all.extend(more.map_err(|why| unusable(chain, why))?);
    }
    if all.is_empty() {
        return Err(unusable(&path, anyhow::anyhow!("it holds no certificate")));
    }
    let own = all.remove(0);
    let former = former(&site, &own)?;
    if style.json {
        report::print_json(&json!({
            "instance": site.instance,
            "file": path,
            "key_file": key,
            "certificate": own,
            "chain": all,
            "former": former,
        }))?;
        return Ok(0);
    }
    let mut text = String::new();
    let _ = writeln!(text, "file         {path}");
    let _ = writeln!(text, "subject      {}", own.subject);
    let _ = writeln!(text, "names        {}", own.names.join(", "));
    let issuer = match own.self_signed {
        true => "itself",
        false => &own.issuer,
    };
    let _ = writeln!(text, "issued by    {issuer}");
    for link in &all {
        let _ = writeln!(
            text,
            "chain        {}, issued by {}, until {}",
            link.subject, link.issuer, link.not_after
        );
    }
    let _ = writeln!(
        text,
        "valid        {} to {}, {} days left",
        own.not_before, own.not_after, own.days_left
    );
    let _ = writeln!(text, "SHA-256      {}", own.fingerprint_sha256);
    for one in &former {
        let _ = writeln!(
            text,
            "before       {}, made {}",
            one.fingerprint_sha256, one.not_before
        );
    }
    report::print(&text)?;
    Ok(0)
}

/// Those that this program served before: their content is kept beside the journal.
fn former(site: &Site, now: &Summary) -> Result<Vec<Former>> {
    let mut all = Vec::new();
    for pem in journal::kept_contents(&site.host, &site.instance)? {
        if !pem.starts_with(b"-----BEGIN CERTIFICATE") {
            continue;
        }
        let Ok(one) = certificate::summary(&pem, SystemTime::now()) else {
            continue;
        };
        if one.fingerprint_sha256 != now.fingerprint_sha256 {
            all.push(Former {
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
fn waiting_key(site: &Site) -> String {
    format!("{}.new", site.layout.key)
}

fn request(global: &Global, new_key: bool, style: Style) -> Result<u8> {
    need_root(global, "use the key of the certificate")?;
    let site = Site::load(global)?;
    let host = &site.host;
    let (_, present, _) = site.certificate_files();
    let waiting = waiting_key(&site);
    let directory = waiting
        .rsplit_once('/')
        .map_or("/", |(directory, _)| directory);
    if host.look(directory)?.is_none() {
        return Err(Exit::Unreachable.because(format!(
            "there is no {}: run `camcops-provision install`",
            host.outside(directory)
        )));
    }
    let path = match new_key {
        true => waiting,
        false => host.followed(&present)?,
    };
    let key = match host.read_text(&path)? {
        Some(key) => Zeroizing::new(key),
        None if new_key => {
            let key = certificate::new_key()?;
            let root = host.may_give_away().then_some((0, 0));
            host.put_file(&path, key.as_bytes(), root, 0o600)?;
            key
        }
        None => {
            return Err(Exit::Unreachable.because(format!(
                "there is no key at {}: run `camcops-provision install`, or take --new-key",
                host.outside(&path)
            )));
        }
    };
    let request = certificate::request(&key, &site.subject())
        .map_err(|why| Exit::Unusable.because(format!("{}: {why:#}", host.outside(&path))))?;
    if style.json {
        report::print_json(&json!({
            "instance": site.instance,
            "request": request,
            "key_file": host.outside(&path),
        }))?;
    } else {
        report::print(&request)?;
        if !style.quiet {
            report::note(&format!(
                "the key stays in {}; when the authority has signed: `camcops-provision cert install --cert FILE --chain FILE`",
                host.outside(&path)
            ));
        }
    }
    Ok(0)
}

async fn install(global: &Global, flags: &CertInstall, style: Style) -> Result<u8> {
    need_machine(global, "change the certificate")?;
    let stop = stop_on_signals(style)?;
    let site = Site::load(global)?;
    refuse_uninstalled(&site)?;
    let brought = Brought::read(&site, flags)?;
    style.warn(&brought.warnings);
    services::apache::refuse_unfit(&site.host).await?;
    let summary = certificate::summary(&brought.certificate, SystemTime::now())?;
    let prefix = format!(
        "{}-",
        site.layout
            .certificate
            .strip_suffix(".crt")
            .unwrap_or(&site.layout.certificate)
    );
    let mark: String = summary
        .fingerprint_sha256
        .replace(':', "")
        .to_lowercase()
        .chars()
        .take(16)
        .collect();
    let (certificate, key) = (format!("{prefix}{mark}.crt"), format!("{prefix}{mark}.key"));
    let (former, former_key, _) = site.certificate_files();
    let host = &site.host;
    host.put_file(&key, &brought.key, Some((0, 0)), 0o600)?;
    host.put_file(&certificate, &brought.certificate, Some((0, 0)), 0o644)?;
    let remove = |paths: &[&String]| -> Result<()> {
        for path in paths {
            if host.look(path)?.is_some() {
                host.remove_file(path)?;
            }
        }
        Ok(())
    };
    let rewritten = config::rewrite(
        global,
        &[
            ("tls.mode", Some("files")),
            ("tls.certificate", Some(&certificate)),
            ("tls.key", Some(&key)),
            ("tls.chain", None),
        ],
    );
    let (file, old, _) = match rewritten {
        Ok(rewritten) => rewritten,
        Err(why) => {
            if former != certificate {
                remove(&[&certificate, &key])?;
            }
            return Err(why);
        }
    };
    if let Err(why) = follow(global, Some(&certificate), None, stop, style).await {
        match &old {
            Some(old) => config::write(&file, old)?,
            None => std::fs::remove_file(&file)
                .with_context(|| format!("can't remove {}", file.display()))?,
        }
        let back = follow(global, None, None, stop, style).await;
        if back.is_ok() && former != certificate {
            remove(&[&certificate, &key])?;
        }
        return Err(why.context(match back {
            Ok(_) => "the certificate was not taken; the former one is served as before",
            Err(_) => "the certificate was not taken, and the settings name the former one again: mend the cause and run `camcops-provision install`",
        }));
    }
    if former != certificate && former.starts_with(&prefix) {
        if let Some(text) = host.read(&former)? {
            let writer = Writer::open(host, &site.instance, "cert install")?;
            writer.remember(&crate::resource::Content::new(text))?;
        }
        remove(&[&former, &former_key])?;
    }
    remove(&[&waiting_key(&site)])?;
    finish(&site, &summary, "is served now", style)
}

/// What an administrator brought along, checked.
struct Brought {
    /// With its chain.
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    warnings: Vec<String>,
}

impl Brought {
    fn read(site: &Site, flags: &CertInstall) -> Result<Brought> {
        let host = &site.host;
        let bytes = |flag: &str, path: &Path| -> Result<Vec<u8>> {
            let path = std::path::absolute(path)?;
            let path = path.to_str().context("the name of a file is not UTF-8")?;
            host.read(&host.followed(path)?)?.ok_or_else(|| {
                Exit::Unusable.because(format!("{flag} {path}: there is no such file"))
            })
        };
        let certificate = bytes("--cert", &flags.cert)?;
        let chain = flags
            .chain
            .as_ref()
            .map(|path| bytes("--chain", path))
            .transpose()?;
        let (key_path, key) = match &flags.key {
            Some(path) => (path.clone(), Zeroizing::new(bytes("--key", path)?)),
            None => present_key(site, &certificate)?,
        };
        let names = site.names();
        let findings = certificate::check(&Given {
            certificate: (&flags.cert, &certificate),
            key: (&key_path, &key),
            chain: flags.chain.as_deref().zip(chain.as_deref()),
            names: &names,
            now: SystemTime::now(),
        });
        let (refused, warnings): (Vec<_>, Vec<_>) = findings
            .into_iter()
            .partition(|finding| finding.severity == Severity::Refuse);
        if !refused.is_empty() {
            let lines: Vec<String> = refused.iter().map(ToString::to_string).collect();
            return Err(Exit::Unusable.because(lines.join("\n")));
        }
        let mut whole = certificate;
        if let Some(chain) = chain {
            if !whole.ends_with(b"\n") {
                whole.push(b'\n');
            }
            whole.extend(chain);
        }
        Ok(Brought {
            certificate: whole,
            key,
            warnings: warnings.iter().map(ToString::to_string).collect(),
        })
    }
}

/// The key that the certificate was requested with: the one that waits, or the one in use.
fn present_key(site: &Site, certificate: &[u8]) -> Result<(PathBuf, Zeroizing<Vec<u8>>)> {
    let (_, present, _) = site.certificate_files();
    for path in [waiting_key(site), present] {
        if let Some(key) = site.host.read(&site.host.followed(&path)?)? {
            let key = Zeroizing::new(key);
            if certificate::fits(certificate, &key) {
                return Ok((path.into(), key));
            }
        }
    }
    Err(Exit::Unusable.because(
        "--cert: the certificate can't be read, or no key of this site fits it; name its key with --key, or have the request of `camcops-provision cert csr` signed",
    ))
}

fn refuse_uninstalled(site: &Site) -> Result<()> {
    match site.journal()?.exists() {
        true => Ok(()),
        false => Err(Exit::Unreachable
            .because("nothing is installed here yet: run `camcops-provision install`")),
    }
}

/// Brings the certificate that the settings name to Apache. What else is pending is for `install`.
async fn follow(
    global: &Global,
    meant: Option<&str>,
    new: Option<NewKey>,
    stop: &AtomicBool,
    style: Style,
) -> Result<Outcome> {
    let mut site = Site::load(global)?;
    site.new_certificate = new;
    let (served, ..) = site.certificate_files();
    if meant.is_some_and(|meant| meant != served) {
        return Err(Exit::Settings.because(format!(
            "the settings still name {served}: a file in provision.d, the environment or --set says so, and goes before {}",
            site.settings_file.display()
        )));
    }
    let mut writer = Writer::open(&site.host, &site.instance, "cert")?;
    let everything = Parts {
        only: Vec::new(),
        skip: Vec::new(),
        adopt: false,
    };
    let made = async {
        let (_, mut plan) = planned(&site, &writer.journal, &everything).await?;
        let own = [&site.layout.certificate, &site.layout.key];
        plan.changes.retain(|planned| match planned.part {
            Some(part) => matches!(part, Part::Certificate | Part::Web),
            None => own
                .iter()
                .any(|path| *path == planned.change.resource.name()),
        });
        let web = [Some(site.layout.apache_site()), site.layout.apache_link()];
        plan.conflicts.retain(|conflict| {
            let name = conflict.resource.name();
            own.iter().any(|path| *path == name) || web.iter().flatten().any(|path| path == name)
        });
        let mut lines = Lines {
            style,
            host: &site.host,
        };
        engine::apply(&site.host, &mut writer, &plan, stop, &mut lines).await
    };
    let outcome = made.await;
    site.host.close().await;
    outcome
}

async fn renew(global: &Global, new_key: bool, style: Style) -> Result<u8> {
    need_machine(global, "change the certificate")?;
    let stop = stop_on_signals(style)?;
    let site = Site::load(global)?;
    refuse_uninstalled(&site)?;
    let (path, ..) = site.certificate_files();
    if site.settings().tls.mode != TlsMode::SelfSigned {
        return Err(Exit::Settings.because(match path.starts_with("/etc/letsencrypt/") {
            true => format!("{path} is certbot's: run `certbot renew`, then `camcops-provision reload`"),
            false => format!(
                "{path} was issued by an authority, which renews it: send it the request of `camcops-provision cert csr`, then run `camcops-provision cert install`"
            ),
        }));
    }
    let key = match new_key {
        true => NewKey::Yes,
        false => NewKey::No,
    };
    services::apache::refuse_unfit(&site.host).await?;
    follow(global, None, Some(key), stop, style).await?;
    let pem = site.host.read(&path)?.unwrap_or_default();
    let summary = certificate::summary(&pem, SystemTime::now())?;
    finish(
        &site,
        &summary,
        "is served now; tablets that were told to trust the former one have to be told again",
        style,
    )
}

fn finish(site: &Site, summary: &Summary, what: &str, style: Style) -> Result<u8> {
    if style.json {
        report::print_json(&json!({ "instance": site.instance, "certificate": summary }))?;
    } else if !style.quiet {
        report::print_line(&format!(
            "the certificate for {}, until {}, {what}; its SHA-256 fingerprint is {}",
            summary.names.join(", "),
            summary.not_after,
            summary.fingerprint_sha256
        ))?;
    }
    Ok(0)
}

async fn verify(
    global: &Global,
    host: Option<&str>,
    port: Option<u16>,
    style: Style,
) -> Result<u8> {
    if global.root.is_some() {
        return Err(Exit::Usage.because(
            "a staged tree does not run; leave --root out on the machine that it becomes",
        ));
    }
    let site = Site::load(global)?;
    let host = host.map_or_else(|| site.names()[0].clone(), str::to_owned);
    let port = port.unwrap_or(site.settings().web.https_port.get());
    let met = visitor::meet(&host, port, PATIENCE).await.map_err(|why| {
        let exit = match why.cause {
            Cause::NoTls => Exit::Unusable,
            Cause::Other => Exit::Failed,
            _ => Exit::Unreachable,
        };
        exit.because(format!("the site can't be met: {why}"))
    })?;
    let now = SystemTime::now();
    let chain: Vec<Summary> = met
        .chain
        .iter()
        .filter_map(|der| certificate::summary_of(der, now).ok())
        .collect();
    let problem = met
        .trouble
        .as_ref()
        .map(|why| complaint(&met, why, &chain, &host));
    if style.json {
        report::print_json(&json!({
            "instance": site.instance,
            "host": host,
            "port": port,
            "trusted": problem.is_none(),
            "problem": problem,
            "protocol": "TLS 1.2",
            "chain": chain,
        }))?;
        return Ok(problem.map_or(0, |_| Exit::Unusable as u8));
    }
    if let Some(problem) = problem {
        return Err(Exit::Unusable.because(format!("{host}:{port}: {problem}")));
    }
    let days = chain.first().map_or(0, |own| own.days_left);
    report::print_line(&format!(
        "a tablet trusts {host}:{port}: TLS 1.2, the name is in the certificate, its chain of {} is complete, {days} days left",
        chain.len()
    ))?;
    Ok(0)
}

/// What a tablet has against it.
fn complaint(met: &visitor::Met, why: &rustls::Error, chain: &[Summary], host: &str) -> String {
    let Some(own) = chain.first() else {
        return format!(
            "no TLS 1.2: {why}; tablets with iOS know nothing newer, so let SSLProtocol in Apache's configuration allow it"
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
            "the certificate is for {} and not for {host}: go there by its name, or have one issued for this name",
            own.names.join(", ")
        );
    }
    match chain.last() {
        Some(last) if met.is_unknown() && !last.self_signed => format!(
            "nobody that this machine trusts has issued it, or its chain is not complete: the last certificate that is sent is of {}, issued by {}; give the missing ones with `camcops-provision cert install --chain`",
            last.subject, last.issuer
        ),
        Some(last) if met.is_unknown() => format!(
            "it was issued by {}, which this machine does not trust; each tablet has to be told to",
            last.subject
        ),
        _ => format!("{why}"),
    }
}
