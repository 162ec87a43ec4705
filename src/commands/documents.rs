//! `paths`, `urls`, `completions`, `man`: what only has to be said.

use crate::base::error::Exit;
use crate::base::report::Report;
use crate::cli::Cli;
use crate::drivers::services::member::list_members;
use crate::host::named_file::{create_directory, write_output};
use crate::layout::{ADVISORIES, PlannedKind, Row, Whose};
use crate::session::Session;
use crate::settings::{self, Frontend, LogMode};
use crate::site::facts::Manager;
use anyhow::Result;
use clap::CommandFactory;
use serde_json::json;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

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

/// What is nobody's in the file plan, and looked for as often.
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
            "more of them, in files that end with .toml",
        ),
        row(backups, PlannedKind::Directory, "0700", "backups and dumps"),
        row(ADVISORIES.to_owned(), PlannedKind::Directory, "0700", "published advisories, for vulnerabilities"),
    ];
    match site.manager() {
        Manager::Systemd => {
            let ours = list_members(site).into_iter().filter(|one| one.role.is_ours());
            let units: BTreeSet<String> = ours.filter_map(|one| one.inputs.into_iter().next()).collect();
            rows.extend(units.into_iter().map(|unit| row(unit, PlannedKind::File, "0644", "a unit of systemd")));
        }
        Manager::Supervisor => {
            rows.push(row(site.layout.supervisor_programs(), PlannedKind::File, "0644", "the programs of supervisor"))
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
        "monitor": monitor,
        "monitor_tunnel": tunnel,
    }));
    Ok(report.with_text(format!(
        "site      {base}\ntablets   {base}api\nmonitor   {monitor} (on this machine only; from yours: {tunnel})\n"
    )))
}

pub(crate) fn make_completions(shell: clap_complete::Shell) -> Result<Report> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "camcops-provision", &mut script);
    let script = String::from_utf8_lossy(&script);
    Ok(Report::new(json!({ "shell": shell.to_string(), "script": script })).with_text(script))
}

/// The manual pages, one per command, and the one of the settings file.
pub(crate) fn write_manual(directory: &Path) -> Result<Report> {
    let cannot = |why: std::io::Error| Exit::CannotCreate.because(format!("{}: {why}", directory.display()));
    create_directory(directory).map_err(cannot)?;
    let pages = manual_pages()?;
    for (name, page) in &pages {
        write_output(&directory.join(name), page).map_err(cannot)?;
    }
    let names: Vec<&String> = pages.iter().map(|(name, _)| name).collect();
    Ok(Report::new(json!({ "directory": directory.display().to_string(), "pages": names })))
}

fn manual_pages() -> Result<Vec<(String, Vec<u8>)>> {
    let mut pages = Vec::new();
    let mut command = Cli::command();
    command.build();
    collect_pages(&command, "camcops-provision", &mut pages)?;
    pages.push(("provision.toml.5".into(), settings_page().into_bytes()));
    Ok(pages)
}

fn collect_pages(command: &clap::Command, name: &str, pages: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone())
        .title(name)
        .section("8")
        .source(concat!("camcops-provision ", env!("CARGO_PKG_VERSION")))
        .manual("CamCOPS")
        .render(&mut page)?;
    pages.push((format!("{name}.8"), page));
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help" && !sub.is_hide_set()) {
        collect_pages(sub, &format!("{name}-{}", sub.get_name()), pages)?;
    }
    Ok(())
}

/// provision.toml(5), from the same table as everything else about the settings.
fn settings_page() -> String {
    let roff = |text: &str| {
        let text = text.replace('\\', "\\e").replace('-', "\\-");
        if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
    };
    let mut page = String::from(
        ".TH provision.toml 5\n.nh\n.SH NAME\nprovision.toml \\- what camcops\\-provision makes of a machine\n.SH DESCRIPTION\n\
         Settings in TOML, in /etc/camcops/provision.toml, or provision_NAME.toml for instance NAME; files in the\n\
         folder provision.d beside it are merged in, in the order of their names. Environment variables win over\n\
         files, and \\fB\\-\\-set\\fR over both. Every key has a default. Passwords are never settings.\n",
    );
    let mut section = "";
    for key in settings::all_keys() {
        if key.section != section {
            section = key.section;
            let _ = writeln!(page, ".SH [{}]\n{}", section, roff(key.section_doc));
        }
        let _ = writeln!(
            page,
            ".TP\n.B {}\n{}\n.br\nAllowed: {}. Default: {}. Example: {}. Environment: {}.",
            roff(key.short_name()),
            roff(key.doc),
            roff(&key.allowed),
            roff(&key.default),
            roff(key.example),
            roff(&key.variable())
        );
        if key.name == "services.extra" {
            page.push_str(".RS\n");
            for field in settings::EXTRA_FIELDS {
                let default = field
                    .default
                    .map_or_else(|| "It must be given".to_owned(), |default| format!("Default: {default}"));
                let _ = writeln!(
                    page,
                    ".TP\n.B {}\n{}\n.br\nAllowed: {}. {}. Example: {}.",
                    roff(field.name),
                    roff(field.doc),
                    roff(&(field.allowed)()),
                    roff(&default),
                    roff(field.example)
                );
            }
            page.push_str(".RE\n");
        }
    }
    page.push_str(
        ".SH [config]\nAnything under [config.site], [config.server], [config.export] and [config.\"recipient:NAME\"] goes into\n\
         camcops.conf by key.\n.SH SEE ALSO\n.BR camcops\\-provision (8)\n",
    );
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_every_setting_a_line() {
        let pages = manual_pages().unwrap();
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        assert!(names.contains(&"camcops-provision-config-set.8"), "{names:?}");
        let settings_page = settings_page();
        for key in settings::all_keys() {
            assert!(settings_page.contains(&key.variable().replace('-', "\\-")), "{}", key.name);
        }
    }
}
