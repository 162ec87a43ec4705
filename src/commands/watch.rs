//! What a timer does every five minutes: it looks at the site, keeps a sample for the plots, and writes the metrics and the page.

use super::need_machine;
use super::overview::Overview;
use crate::base::error::Exit;
use crate::base::report::Report;
use crate::cli::Global;
use crate::doctor::history::History;
use crate::doctor::metrics;
use crate::host::secrets::KeptSecret;
use crate::session::Session;
use crate::site::pages;
use anyhow::{Context, Result};
use serde_json::json;
use zeroize::Zeroizing;

/// Who may read what Apache shows: root, and the web server's group.
const MODE: u32 = 0o640;

/// Looks at the site once.
pub(crate) async fn observe_site(global: &Global) -> Result<Report> {
    need_machine(global, "observe the site")?;
    let overview = Overview::take(global).await?;
    let site = &overview.site;
    let mut history = History::read(&site.host, &site.instance)?;
    let sample = overview.sample(&mut history)?;
    history.add(sample);
    history.write(&site.host, &site.instance)?;
    let page = write_page(&overview, &history);
    if let Some(file) = &site.settings().monitor.metrics_file {
        let text = metrics::prometheus_text(&site.instance, &overview.outcomes);
        // What is collected is read by an account of its own.
        site.host.put_file(file.as_str(), text.as_bytes(), Some((0, 0)), 0o644)?;
    }
    page?;
    Ok(Report::new(json!({ "instance": site.instance, "samples": history.samples.len() })))
}

fn write_page(overview: &Overview, history: &History) -> Result<()> {
    let site = &overview.site;
    if !site.settings().monitor.page {
        return Ok(());
    }
    keep_login(site)?;
    let page = overview.page(history)?;
    put_for_apache(site, &pages::status_file(&site.layout), &page)
}

/// After an `install`: the page is there at once, and gone where it is no longer wanted.
pub(crate) async fn follow_install(global: &Global, site: &Session, is_changed: bool) -> Result<()> {
    let page = pages::status_file(&site.layout);
    let is_there = site.host.stat(&page)?.is_some();
    match (site.settings().monitor.page, is_there) {
        (false, true) => pages::remove_status(&site.host, &site.layout),
        (true, false) => observe_site(global).await.map(drop),
        (true, true) if is_changed => keep_login(site),
        _ => Ok(()),
    }
    .context("the status page (monitor.page)")
}

/// Puts the login of the page in place, unless the one that is there takes the password.
pub(crate) fn keep_login(site: &Session) -> Result<()> {
    let monitor = &site.settings().monitor;
    let kept = match &monitor.password_file {
        Some(path) => Some(KeptSecret::given(&site.host, "monitor.password_file", path.as_str())?),
        None => KeptSecret::found(&site.host, &site.layout.secrets, "monitor")?,
    };
    let kept = kept.context("the password of the monitor is not there yet; run `camcops-provision install`")?;
    let (file, user) = (pages::login_file(&site.layout), monitor.user.as_str());
    let input = Zeroizing::new(format!("{}\n", kept.secret.reveal()));
    if !site.host.has_program("htpasswd") {
        return Err(Exit::Unreachable.because("htpasswd is missing: install apache2-utils (Debian) or httpd-tools"));
    }
    let htpasswd = |words: &[&str]| site.host.child("htpasswd").args(words).input(input.as_bytes());
    if site.host.stat(&file)?.is_some() && htpasswd(&["-v", "-i", &file, user]).end()?.status.success() {
        return Ok(());
    }
    let made = htpasswd(&["-n", "-i", "-B", "-C", "8", user]).run()?;
    put_for_apache(site, &file, &format!("{}\n", made.trim()))
}

fn put_for_apache(site: &Session, path: &str, text: &str) -> Result<()> {
    let group = site.facts.flavour.web_account;
    let group = site.host.accounts.gid(group).with_context(|| format!("this machine has no group {group}"))?;
    site.host.put_file(path, text.as_bytes(), Some((0, group)), MODE)
}
