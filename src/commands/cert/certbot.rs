//! `cert install --from-certbot` and `cert renew` where certbot gets the certificate: what it has, in Apache.
//!
//! Key and certificate stand in one file, so that they change in one step. What can't be served is never put there, and
//! where Apache does not take it, the former one comes back.

use super::change::{is_served, place_certificate, refuse_managed, remember_former, report_change, serve_certificate};
use crate::base::error::Exit;
use crate::base::report::Report;
use crate::base::signals::stop_on_signals;
use crate::certificate::{self, Pair};
use crate::cli::Global;
use crate::commands::begin_change;
use crate::drivers::acme;
use crate::journal::Writer;
use crate::session::Session;
use crate::settings::TlsMode;
use anyhow::Result;
use std::time::{Duration, Instant, SystemTime};
use tokio::time::sleep;
use zeroize::Zeroizing;

/// Certbot renews when it likes, perhaps during a backup: this long it waits for its turn.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
const PAUSE: Duration = Duration::from_secs(2);

pub(crate) async fn install_certbot(global: &Global) -> Result<Report> {
    begin_change(global, "change the certificate")?;
    deploy_certificate(global, "is in use now").await
}

/// Has certbot renew it, and serves what it has then.
pub(crate) async fn renew_certificate(global: &Global, site: &Session, how: acme::Renewal) -> Result<Report> {
    stop_on_signals(site.style)?;
    site.drivers.refuse_unfit_apache(&site.host)?;
    // Without the lock: certbot calls this program, which takes it.
    let what = match acme::renew_certificate(site.drivers.acme()?, &site.host, &site.layout.slug, how)? {
        true => "is in use now",
        false => "is in use; it is not due for renewal yet, --force renews it nevertheless",
    };
    deploy_certificate(global, what).await
}

async fn deploy_certificate(global: &Global, what: &str) -> Result<Report> {
    let site = Session::open(global)?;
    refuse_managed(&site)?;
    if site.settings().tls.mode != TlsMode::Certbot {
        return Err(Exit::Settings
            .because("tls.mode is not \"certbot\": set it and run `camcops-provision install`, or use --cert"));
    }
    let text = read_issued(&site)?;
    let summary = certificate::summarize_first(text.as_bytes(), SystemTime::now())?;
    let (path, ..) = site.certificate_files();
    let former = site.host.read_text(&path)?.map(Zeroizing::new);
    if former.as_ref() == Some(&text) && is_served(&site).await {
        return Ok(report_change(&site, &summary, what));
    }
    site.drivers.refuse_unfit_apache(&site.host)?;
    let own = Session::open(global)?;
    let mut writer = wait_for_journal(&own).await?;
    remember_former(&site, &writer)?;
    let taken = async {
        place_certificate(&site, &mut writer).await?;
        serve_certificate(&site, &writer).await
    };
    let Err(why) = taken.await else {
        return Ok(report_change(&site, &summary, what));
    };
    let Some(former) = former else {
        return Err(why);
    };
    let mut site = site;
    site.new_certificate = Some(Pair { certificate: former.to_string(), key: Zeroizing::default() });
    let back = async {
        place_certificate(&site, &mut writer).await?;
        serve_certificate(&site, &writer).await
    };
    Err(why.context(match back.await {
        Ok(()) => "the certificate was refused, and the old one stays in use",
        Err(_) => "the certificate was refused; fix the cause and run `camcops-provision install`",
    }))
}

fn read_issued(site: &Session) -> Result<Zeroizing<String>> {
    match site.at_certbot()? {
        Some(Ok(text)) => Ok(text),
        Some(Err(why)) => {
            Err(Exit::Unusable
                .because(format!("certbot's certificate can't be used, and the old one stays in use: {why}")))
        }
        None => Err(Exit::Unreachable.because(format!(
            "certbot has no certificate in {}/{} yet: run `camcops-provision install`",
            acme::LIVE,
            site.layout.slug
        ))),
    }
}

async fn wait_for_journal(site: &Session) -> Result<Writer<'_>> {
    let begin = Instant::now();
    loop {
        match Writer::open(&site.host, &site.instance, "cert install") {
            Err(why) if Exit::of(&why) == Exit::Locked && begin.elapsed() < PATIENCE => {}
            opened => return opened,
        }
        sleep(PAUSE).await;
    }
}
