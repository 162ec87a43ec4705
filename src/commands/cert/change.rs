//! `cert install` and `cert renew`: another pair in the place of the one that is served.
//!
//! A key and its certificate are two files, and a run may end between them. So a new pair gets names of its own, and
//! Apache's site, which is one file, goes from naming one whole pair to naming the other.

use super::waiting_key;
use crate::base::error::Exit;
use crate::base::report::Report;
use crate::base::signals::{Interrupt, stop_on_signals};
use crate::base::terminal::Style;
use crate::base::text::sha256_hex;
use crate::certificate::{self, CertificateSummary, Pair};
use crate::cli::{CertInstall, Global, Parts};
use crate::commands::cert::import::ImportedPair;
use crate::commands::{begin_change, config, open_running};
use crate::drivers::acme;
use crate::drivers::services::apache;
use crate::engine::{Left, Plan, Planned};
use crate::host::named_file::{remove_file, replace_file};
use crate::host::{self, Host};
use crate::journal::Writer;
use crate::probe::http::Request;
use crate::probe::{Backend, Endpoint, Trouble};
use crate::resource::{Content, Part, Resource};
use crate::session::Session;
use crate::session::converge::{apply_plan, make_plan};
use crate::settings::{Frontend, TlsMode};
use anyhow::Result;
use serde_json::json;
use std::time::{Duration, Instant, SystemTime};
use tokio::time::sleep;
use zeroize::Zeroizing;

/// How long Apache may go on with the former certificate: those who are being served are served to the end.
const UNTIL_SERVED: Duration = Duration::from_secs(20);
/// How long it may take to answer once.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much of a digest is in the name of a file.
const MARK: usize = 16;

/// Serves a certificate that an authority issued.
pub(crate) async fn install_certificate(global: &Global, flags: &CertInstall) -> Result<Report> {
    let stop = begin_change(global, "change the certificate")?;
    let former = Session::open(global)?;
    refuse_managed(&former)?;
    let brought = ImportedPair::read(&former, flags)?;
    former.style.warn(&brought.warnings);
    let summary = certificate::summarize_first(&brought.certificate, SystemTime::now())?;
    former.drivers.refuse_unfit_apache(&former.host)?;
    let mut writer = Writer::open(&former.host, &former.instance, "cert install")?;
    let (certificate, key) = own_names(&former, &brought.certificate);
    stop.check("stopped by a signal; nothing was changed")?;
    remember_former(&former, &writer)?;
    let host = &former.host;
    host.put_file(&key, &brought.key, Some((0, 0)), 0o600)?;
    host.put_file(&certificate, &brought.certificate, Some((0, 0)), 0o644)?;
    let changes = [
        ("tls.mode", Some("files")),
        ("tls.certificate", Some(certificate.as_str())),
        ("tls.key", Some(key.as_str())),
        ("tls.chain", None),
    ];
    let rewritten = config::rewrite_file(global, &changes);
    let taken = match &rewritten {
        Ok(_) => take_certificate(global, &mut writer, &certificate).await,
        Err(_) => Ok(()),
    };
    let failed = match (rewritten, taken) {
        (Ok(_), Ok(())) => None,
        (Ok(file), Err(why)) => Some(go_back(global, &mut writer, &file, why).await),
        (Err(why), _) => Some(why),
    };
    let now = Session::open(global)?;
    if let Some(why) = failed {
        if now.certificate_files().0 != certificate {
            host.remove_file(&certificate)?;
            host.remove_file(&key)?;
        }
        return Err(why);
    }
    let cleared = async {
        clear_up(&now, &mut writer).await?;
        remove_unnamed(&now, &former.host).map(drop)
    };
    tell_cleared(&now, cleared.await);
    let waiting = waiting_key(&now);
    if former.host.read(&waiting)?.as_deref() == Some(&brought.key[..]) {
        former.host.remove_file(&waiting)?;
    }
    Ok(report_change(&now, &summary, "is in use now"))
}

pub(super) fn refuse_managed(site: &Session) -> Result<()> {
    let web = &site.settings().web;
    if web.own_https().is_some() {
        return Err(Exit::Settings.because(
            "CamCOPS serves HTTPS itself (web.bind): set tls.mode, tls.certificate and tls.key, and run `camcops-provision install`; it also renews a self-signed certificate",
        ));
    }
    if web.frontend != Frontend::Apache {
        return Err(Exit::Settings.because(
            "Apache does not serve this site (web.frontend = \"none\"): the certificate belongs to the reverse proxy in front of it",
        ));
    }
    match site.journal()?.exists() {
        true => Ok(()),
        false => Err(Exit::Unreachable.because("nothing is installed here yet: run `camcops-provision install`")),
    }
}

/// Keeps the certificate that is served now for those who ask which ones were served before.
pub(super) fn remember_former(site: &Session, writer: &Writer<'_>) -> Result<()> {
    let (path, ..) = site.certificate_files();
    let host = &site.host;
    match host.read(&host.followed(&path)?)? {
        // The file may hold the key, too.
        Some(text) => match certificate::certificates_only(&text) {
            Some(text) => writer.remember(&Content::new(text)),
            None => Ok(()),
        },
        None => Ok(()),
    }
}

/// What the files of a pair are called that is not at the usual place: the certificate and its key.
fn own_names(site: &Session, certificate: &[u8]) -> (String, String) {
    let mark = &sha256_hex(certificate)[..MARK];
    let prefix = own_prefix(site);
    (format!("{prefix}{mark}.crt"), format!("{prefix}{mark}.key"))
}

fn own_prefix(site: &Session) -> String {
    let usual = &site.layout.certificate;
    format!("{}-", usual.strip_suffix(".crt").unwrap_or(usual))
}

/// Whether a path is of a pair that got its names from [`own_names`].
fn has_own_name(site: &Session, path: &str) -> bool {
    let rest = path.strip_prefix(&own_prefix(site)).unwrap_or_default();
    let mark = rest.strip_suffix(".crt").or_else(|| rest.strip_suffix(".key"));
    mark.is_some_and(|mark| mark.len() == MARK && mark.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

/// Brings what the settings name by now to Apache.
async fn take_certificate(global: &Global, writer: &mut Writer<'_>, certificate: &str) -> Result<()> {
    let site = Session::open(global)?;
    let (named, ..) = site.certificate_files();
    if named != certificate {
        return Err(Exit::Settings.because(format!(
            "the settings still name {named}: a file in provision.d, the environment or --set overrides {}",
            site.settings_file.display()
        )));
    }
    place_certificate(&site, writer).await?;
    serve_certificate(&site, writer).await
}

/// Undoes what was begun, unless the former certificate is no good any more; gives what to tell.
async fn go_back(
    global: &Global,
    writer: &mut Writer<'_>,
    file: &config::RewrittenFile,
    why: anyhow::Error,
) -> anyhow::Error {
    let placed = async {
        let new = std::fs::read_to_string(&file.path)?;
        match &file.before {
            Some(before) => replace_file(&file.path, before)?,
            None => remove_file(&file.path)?,
        }
        let site = Session::open(global)?;
        if let Err(why) = place_certificate(&site, writer).await {
            replace_file(&file.path, &new)?;
            return Err(why);
        }
        Ok(site)
    };
    why.context(match placed.await {
        Ok(site) => match serve_certificate(&site, writer).await {
            Ok(()) => "the certificate was refused, and the old one stays in use",
            Err(_) => {
                "the certificate was refused; Apache's site uses the old one again, but Apache does not serve that either"
            }
        },
        Err(_) => {
            "the certificate is installed, but not in use yet; fix the cause and run `camcops-provision install`"
        }
    })
}

/// Puts the pair of the site and what names it in place. What else is pending is for `install`.
pub(super) async fn place_certificate(site: &Session, writer: &mut Writer<'_>) -> Result<()> {
    let parts = Parts::only_of(&[Part::Certificate, Part::Web]);
    let (_, plan) = make_plan(site, &writer.journal, &parts).await?;
    let layout = &site.layout;
    let concerned = [
        Some(layout.key.clone()),
        Some(layout.certificate.clone()),
        Some(layout.certificate_with_key.clone()),
        Some(layout.apache_site()),
        layout.apache_link(),
    ];
    carry_out(site, writer, plan, |path| concerned.iter().flatten().any(|one| one == path)).await
}

/// Makes the changes of a plan that concern certain files. Nothing of that takes long, and to be stopped between two of
/// them would help nobody.
async fn carry_out(
    site: &Session,
    writer: &mut Writer<'_>,
    mut plan: Plan,
    concerns: impl Fn(&str) -> bool,
) -> Result<()> {
    let is_meant = |planned: &Planned| concerns(planned.change.resource.name());
    plan.changes.retain(is_meant);
    plan.conflicts.retain(|conflict| concerns(conflict.resource.name()));
    apply_plan(site, writer, &plan, Interrupt::Never).await.map(drop)
}

/// Lets Apache read its configuration again, and waits until it shows the certificate. Whether the application behind it
/// answers is another matter.
pub(super) async fn serve_certificate(site: &Session, writer: &Writer<'_>) -> Result<()> {
    if let Some(services) = &site.drivers.services {
        apache::follow_changes(services, writer.host()).map_err(|why| Exit::Unreachable.give_to(why))?;
    }
    let begin = Instant::now();
    loop {
        let Err(trouble) = ask_server(site).await? else {
            return Ok(());
        };
        if begin.elapsed() > UNTIL_SERVED {
            return Err(Exit::Unreachable.because(format!("Apache does not serve it: {trouble}")));
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Asks Apache once; that fails where it shows any other certificate.
async fn ask_server(site: &Session) -> Result<Result<(), Trouble>> {
    let Endpoint::Web(_, Some(front)) = site.endpoint(Backend::Web)? else {
        return Ok(Ok(()));
    };
    Ok(front.ask(Request { method: "HEAD", ..Request::get("/") }, PATIENCE).await.map(drop))
}

/// Whether Apache shows the certificate of the site already.
pub(super) async fn is_served(site: &Session) -> bool {
    matches!(ask_server(site).await, Ok(Ok(())))
}

/// Takes back what the journal knows of and the site does not name any more.
async fn clear_up(site: &Session, writer: &mut Writer<'_>) -> Result<()> {
    let layout = &site.layout;
    let goes = |path: &str| {
        let is_usual = [&layout.certificate, &layout.key, &layout.certificate_with_key, &layout.certbot_hook]
            .contains(&&path.to_owned());
        (is_usual || has_own_name(site, path)) && !is_named(site, path)
    };
    let owned = writer.journal.owned();
    if !owned.iter().any(|one| goes(one.change.resource.name())) {
        return Ok(());
    }
    let (_, plan) = make_plan(site, &writer.journal, &Parts::default()).await?;
    carry_out(site, writer, plan, goes).await
}

/// Removes the pairs that `cert install` once put here, also those that a killed run left; gives those that are in use.
fn remove_unnamed(site: &Session, host: &Host) -> Result<Vec<String>> {
    let usual = &site.layout.certificate;
    let directory = usual.rsplit_once('/').map_or("/", |(directory, _)| directory);
    let mut named = Vec::new();
    for name in host.list(directory)?.unwrap_or_default() {
        let meant = host::finished_name(&name);
        let path = format!("{directory}/{}", meant.unwrap_or(&name));
        if !has_own_name(site, &path) {
            continue;
        }
        match meant.is_none() && is_named(site, &path) {
            true => named.push(path),
            false => host.remove_file(&format!("{directory}/{name}"))?,
        }
    }
    Ok(named)
}

/// Before everything is undone: the pairs of authorities that nothing names any more go, and the others are told.
pub(crate) fn remove_parked(global: &Global) -> Result<Vec<Left>> {
    let Ok(site) = Session::open(global) else {
        // Who can't be asked may name any of them.
        return Ok(Vec::new());
    };
    let apache = site.host.read_text(&site.layout.apache_site())?;
    let served = format!("\"{}", own_prefix(&site));
    if apache.is_some_and(|text| text.contains(&served)) && site.settings().tls.mode != TlsMode::Files {
        return Ok(Vec::new());
    }
    let named = remove_unnamed(&site, &site.host)?;
    let left = named.into_iter().map(|path| Left {
        resource: Resource::File(path),
        why: "it belongs to the certificate in your settings".to_owned(),
    });
    Ok(left.collect())
}

fn is_named(site: &Session, path: &str) -> bool {
    let (certificate, key, chain) = site.certificate_files();
    path == certificate || path == key || chain.as_deref() == Some(path)
}

fn tell_cleared(site: &Session, cleared: Result<()>) {
    if let Err(why) = cleared {
        site.style.warn(&[format!(
            "the old certificate and its key are still there; `camcops-provision install` removes them: {why:#}"
        )]);
    }
}

/// Makes the self-signed certificate anew, or has certbot renew its one.
pub(crate) async fn renew_certificate(global: &Global, how: acme::Renewal) -> Result<Report> {
    let mut site = open_running(global, "change the certificate")?;
    refuse_managed(&site)?;
    if site.settings().tls.mode == TlsMode::Certbot {
        return super::certbot::renew_certificate(global, &site, how).await;
    }
    let stop = stop_on_signals(Style::of(global))?;
    let (path, ..) = site.certificate_files();
    let mode = site.settings().tls.mode;
    if !matches!(mode, TlsMode::SelfSigned | TlsMode::LocalCa) {
        return Err(Exit::Settings.because(match path.starts_with("/etc/letsencrypt/") {
            true => format!("{path} is certbot's: run `certbot renew`, then `camcops-provision reload`"),
            false => format!(
                "{path} was issued by an authority, which has to renew it: send it the request of `camcops-provision cert csr`, then run `camcops-provision cert install`"
            ),
        }));
    }
    site.drivers.refuse_unfit_apache(&site.host)?;
    let own = Session::open(global)?;
    let mut writer = Writer::open(&own.host, &own.instance, "cert renew")?;
    let present = site.host.read_text(&site.layout.key)?.map(Zeroizing::new);
    let pair: Pair = site.make_another(present.as_ref().filter(|_| !how.new_key).map(|key| key.as_str()))?;
    let summary = certificate::summarize_first(pair.certificate.as_bytes(), SystemTime::now())?;
    stop.check("stopped by a signal; nothing was changed")?;
    let fits = present.is_some_and(|key| *key == *pair.key);
    site.new_certificate = Some(pair);
    if !fits {
        // While both files at the usual place change, Apache has the pair from elsewhere.
        let usual = (site.layout.certificate.clone(), site.layout.key.clone());
        (site.site.layout.certificate, site.site.layout.key) = own_names(&site, summary.fingerprint_sha256.as_bytes());
        place_certificate(&site, &mut writer).await?;
        serve_certificate(&site, &writer).await?;
        (site.site.layout.certificate, site.site.layout.key) = usual;
    }
    place_certificate(&site, &mut writer).await?;
    serve_certificate(&site, &writer).await?;
    tell_cleared(&site, clear_up(&site, &mut writer).await);
    let what = match mode {
        TlsMode::LocalCa => "is in use now; who trusts the site's own authority trusts it",
        _ => "is in use now; tablets that were told to trust the old one have to be told again",
    };
    Ok(report_change(&site, &summary, what))
}

pub(super) fn report_change(site: &Session, summary: &CertificateSummary, what: &str) -> Report {
    Report::new(json!({ "instance": site.instance, "certificate": summary })).with_remark(format!(
        "the certificate for {}, until {}, {what}; its SHA-256 fingerprint is {}",
        summary.names.join(", "),
        summary.not_after,
        summary.fingerprint_sha256
    ))
}
