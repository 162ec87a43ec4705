//! `init`: a few questions, each with a default, and the settings file.

use super::config::answered;
use super::need_root;
use crate::base::error::Exit;
use crate::base::prompt as questions;
use crate::base::terminal::{self, Style};
use crate::cli::Global;
use crate::host::named_file::replace_file;
use crate::session::open_host;
use crate::session::sources::settings_file;
use crate::settings;
use crate::site::facts::Facts;
use anyhow::Result;

struct Question {
    key: &'static str,
    text: &'static str,
    /// Only asked if this key was answered with this word.
    only_if: Option<(&'static str, &'static str)>,
}

const fn ask(key: &'static str, text: &'static str) -> Question {
    Question {
        key,
        text,
        only_if: None,
    }
}

const fn ask_if(
    other: &'static str,
    is: &'static str,
    key: &'static str,
    text: &'static str,
) -> Question {
    Question {
        key,
        text,
        only_if: Some((other, is)),
    }
}

const QUESTIONS: [Question; 13] = [
    ask(
        "web.server_names",
        "Name of the site, as users will type it",
    ),
    ask("web.path", "Path of CamCOPS on that site"),
    ask(
        "account.user",
        "Account of the services: auto (the web server's) or camcops (their own)",
    ),
    ask("database.mode", "Database: local or external"),
    ask_if(
        "database.mode",
        "external",
        "database.host",
        "Machine of the database",
    ),
    ask_if(
        "database.mode",
        "external",
        "database.password_file",
        "File with the database password",
    ),
    ask("broker.mode", "RabbitMQ broker: local or external"),
    ask_if(
        "broker.mode",
        "external",
        "broker.host",
        "Machine of the broker",
    ),
    ask_if(
        "broker.mode",
        "external",
        "broker.password_file",
        "File with the broker password",
    ),
    ask("tls.mode", "Certificate: self-signed or files"),
    ask_if("tls.mode", "files", "tls.certificate", "Certificate file"),
    ask_if("tls.mode", "files", "tls.key", "Key file"),
    ask(
        "site.environment",
        "Real patients (production) or trying out (test)",
    ),
];

/// Asks and writes.
pub(crate) fn run(global: &Global, style: Style) -> Result<u8> {
    need_root(global, "write the settings")?;
    let host = open_host(global)?;
    let file = settings_file(&host, global);
    if file.exists() {
        return Err(Exit::CannotCreate.because(format!(
            "{} exists; change it with: camcops-provision config edit",
            file.display()
        )));
    }
    if !terminal::is_input() {
        return Err(Exit::Usage.because(format!(
            "init asks questions and needs a terminal; without one, write {} yourself: `camcops-provision config keys` prints every key",
            file.display()
        )));
    }
    let facts = Facts::gather(&host)?;
    let defaults = settings::Settings::default();
    let mut text = settings::edited("", "web.server_names", Some(&facts.host_name))?;
    for question in &QUESTIONS {
        let current = |key: &str| -> String {
            let set = toml_value(&text, key);
            set.or_else(|| defaults.get(key))
                .unwrap_or_default()
                .trim()
                .trim_matches('"')
                .to_owned()
        };
        if question
            .only_if
            .is_some_and(|(other, is)| current(other) != is)
        {
            continue;
        }
        let shown = match question.key {
            "web.server_names" => facts.host_name.clone(),
            key => current(key),
        };
        loop {
            let prompt = format!("{} [{shown}]: ", question.text);
            let Some(answer) = questions::line(&prompt)? else {
                return Err(Exit::Failed.because("no more answers; nothing was written"));
            };
            let answer = if answer.is_empty() {
                shown.clone()
            } else {
                answer
            };
            if answer.is_empty() {
                break;
            }
            match settings::edited(&text, question.key, Some(&answer)) {
                Ok(next) => {
                    text = next;
                    break;
                }
                Err(why) => terminal::note(&why.to_string()),
            }
        }
    }
    let sources = settings::Sources {
        files: vec![(file.clone(), text.clone())],
        ..settings::Sources::default()
    };
    settings::Settings::resolve(&sources).map_err(|problems| {
        Exit::Settings.because(format!(
            "nothing was written, because together the answers are wrong:\n{problems}"
        ))
    })?;
    replace_file(&file, &text)?;
    answered(&file, true, style)
}

fn toml_value(text: &str, key: &str) -> Option<String> {
    let (section, key) = key.split_once('.')?;
    let document: toml_edit::DocumentMut = text.parse().ok()?;
    Some(document.get(section)?.get(key)?.to_string())
}
