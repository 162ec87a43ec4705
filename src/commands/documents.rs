//! `paths`, `urls`, `completions`, `man`: what only has to be said.

mod completion;
mod manual;

use crate::base::report::Report;
use crate::drivers::services::member::list_members;
use crate::layout::{ADVISORIES, PlannedKind, Row, Whose};
use crate::session::Session;
use crate::settings::{Frontend, LogMode};
use crate::site::facts::Manager;
use anyhow::Result;
pub(crate) use completion::make_completions;
pub(crate) use manual::write_manual;
use serde_json::json;
use std::collections::BTreeSet;
use std::fmt::Write as _;

pub(crate) fn list_paths(site: &Session) -> Result<Report> {
    let mut rows = site.layout.rows(site.socket_maker());
    if site.settings().logging.mode != LogMode::File {
        rows.retain(|row| row.path != site.layout.logs);
    }
    if site.settings().web.frontend != Frontend::Apache {
        rows.retain(|row| row.path != site.layout.pages);
    }
    rows.extend(other_paths(site));
    let owner = |row: &Row| site.owner_of(row.whose);
    let width = rows.iter().map(|row| row.path.len()).max().unwrap_or(0) + 1;
    let owners = rows.iter().map(|row| owner(row).len()).max().unwrap_or(0);
    let mut text = String::new();
    for row in &rows {
        let slash = if row.what == PlannedKind::Directory { "/" } else { "" };
        let path = format!("{}{slash}", row.path);
        let _ = writeln!(text, "{path:width$}  {:owners$}  {:4}  {}", owner(row), row.mode, row.purpose);
    }
    Ok(Report::new(json!({ "instance": site.instance, "paths": rows })).with_text(text))
}

/// What is in no file plan, and looked for as often.
fn other_paths(site: &Session) -> Vec<Row> {
    let row = |path: String, what, mode, purpose| Row { path, what, whose: Whose::Root, mode, purpose };
    let settings = site.settings_file.to_string_lossy().into_owned();
    let more = site.settings_file.with_extension("d");
    let backups = site.settings().backup.directory.as_str().to_owned();
    let mut rows = vec![
        row(settings, PlannedKind::File, "0644", "the settings"),
        row(
            more.to_string_lossy().into_owned(),
            PlannedKind::Directory,
            "0755",
            "more settings, in files that end with .toml",
        ),
        row(backups, PlannedKind::Directory, "0700", "backups and dumps"),
        row(ADVISORIES.to_owned(), PlannedKind::Directory, "0700", "published advisories, for vulnerabilities"),
    ];
    match site.manager() {
        Manager::Systemd => {
            let ours = list_members(site).into_iter().filter(|one| one.role.is_ours());
            let units: BTreeSet<String> = ours.filter_map(|one| one.inputs.into_iter().next()).collect();
            rows.extend(units.into_iter().map(|unit| row(unit, PlannedKind::File, "0644", "a systemd unit")));
        }
        Manager::Supervisor => {
            rows.push(row(site.layout.supervisor_programs(), PlannedKind::File, "0644", "the programs for supervisor"))
        }
    }
    rows
}

pub(crate) fn list_urls(site: &Session) -> Result<Report> {
    let base = site.url();
    let monitor = format!("http://127.0.0.1:{}/", site.monitor_port());
    let host = &site.names()[0];
    let tunnel = format!("ssh -L {0}:127.0.0.1:{0} {host}", site.monitor_port());
    let report = Report::new(json!({
        "instance": site.instance,
        "site": base,
        "tablets": format!("{base}api"),
        "status_page": site.settings().monitor.page.then(|| format!("{base}site-status")),
        "monitor": monitor,
        "monitor_tunnel": tunnel,
    }));
    let page = site.settings().monitor.page.then(|| format!("status    {base}site-status\n"));
    Ok(report.with_text(format!(
        "site      {base}\ntablets   {base}api\n{}monitor   {monitor} (on this machine only; to reach it from yours: {tunnel})\n",
        page.unwrap_or_default()
    )))
}
