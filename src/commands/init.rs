//! `init`: a few questions, each with a default, and the settings file.

use super::config::report_change;
use super::need_root;
use crate::base::error::Exit;
use crate::base::prompt as questions;
use crate::base::report::Report;
use crate::base::terminal;
use crate::cli::Global;
use crate::host::named_file::replace_file;
use crate::session::open_host;
use crate::session::sources::settings_file;
use crate::settings;
use crate::site::facts::Facts;
use anyhow::Result;

/// A key, how it is asked for, and the answer to another key without which it is not.
type InitQuestion = (&'static str, &'static str, Option<(&'static str, &'static str)>);

const QUESTIONS: [InitQuestion; 13] = [
    ("web.server_names", "Name of the site, as users will type it", None),
    ("web.path", "Path of CamCOPS on that site", None),
    ("account.user", "Account of the services: auto (that of the web server) or camcops (a dedicated one)", None),
    ("database.mode", "Database: local or external", None),
    ("database.host", "Host of the database", Some(("database.mode", "external"))),
    ("database.password_file", "File with the database password", Some(("database.mode", "external"))),
    ("broker.mode", "RabbitMQ broker: local or external", None),
    ("broker.host", "Host of the broker", Some(("broker.mode", "external"))),
    ("broker.password_file", "File with the broker password", Some(("broker.mode", "external"))),
    ("tls.mode", "Certificate: self-signed, local-ca or files", None),
    ("tls.certificate", "Certificate file", Some(("tls.mode", "files"))),
    ("tls.key", "Key file", Some(("tls.mode", "files"))),
    ("site.environment", "Use: production (real patients) or test", None),
];

pub(crate) fn run(global: &Global) -> Result<Report> {
    need_root(global, "write the settings")?;
    let host = open_host(global)?;
    let file = settings_file(&host, global);
    if file.exists() {
        return Err(Exit::CannotCreate
            .because(format!("{} exists; change it with: camcops-provision config edit", file.display())));
    }
    if !terminal::is_input() {
        return Err(Exit::Usage.because(format!(
            "init asks questions and needs a terminal; without one, write {} yourself (`camcops-provision config keys` prints every key)",
            file.display()
        )));
    }
    let facts = Facts::gather(&host)?;
    let defaults = settings::Settings::default();
    let mut text = settings::edit_text("", "web.server_names", Some(&facts.host_name))?;
    for (key, question, only_if) in QUESTIONS {
        let current = |key: &str| -> String {
            let set = toml_value(&text, key);
            set.or_else(|| defaults.get(key)).unwrap_or_default().trim().trim_matches('"').to_owned()
        };
        if only_if.is_some_and(|(other, is)| current(other) != is) {
            continue;
        }
        let shown = match key {
            "web.server_names" => facts.host_name.clone(),
            key => current(key),
        };
        loop {
            let prompt = format!("{} [{shown}]: ", question);
            let Some(answer) = questions::ask_line(&prompt)? else {
                return Err(Exit::Failed.because("no more answers; nothing was written"));
            };
            let answer = if answer.is_empty() { shown.clone() } else { answer };
            if answer.is_empty() {
                break;
            }
            match settings::edit_text(&text, key, Some(&answer)) {
                Ok(next) => {
                    text = next;
                    break;
                }
                Err(why) => terminal::print_note(&why.to_string()),
            }
        }
    }
    let sources = settings::Sources { files: vec![(file.clone(), text.clone())], ..settings::Sources::default() };
    settings::Settings::resolve(&sources).map_err(|problems| {
        Exit::Settings.because(format!("nothing was written, because the answers contradict each other:\n{problems}"))
    })?;
    replace_file(&file, &text)?;
    Ok(report_change(&file, true))
}

fn toml_value(text: &str, key: &str) -> Option<String> {
    let (section, key) = key.split_once('.')?;
    let document: toml_edit::DocumentMut = text.parse().ok()?;
    Some(document.get(section)?.get(key)?.to_string())
}
