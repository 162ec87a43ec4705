//! A trial of a camcops.conf before it takes the place of the one in use: the installed CamCOPS reads it, as the account
//! of the services, and does what its processes do when they start, without the database and without the network.
//!
//! What CamCOPS refuses here would have ended its services. What it refuses only when it has its database is seen when
//! the services start; then the former file comes back (see [`crate::engine`]).

use crate::base::error::Exit;
use crate::base::terminal::{self, strip_controls};
use crate::camcops_conf::{self, Ini, IniEntry};
use crate::drivers::services;
use crate::engine::Plan;
use crate::journal::Journal;
use crate::recipe::Recipe;
use crate::resource::{Content, Resource};
use crate::session::Session;
use crate::settings::{Backend, Problem};
use anyhow::Result;
use serde::Deserialize;
use std::time::{Duration, Instant};

/// The part of it that runs in CamCOPS.
const START: &str = include_str!("trial/start.py");
/// To read all of CamCOPS takes five seconds, on a busy machine twenty times as long.
const PATIENCE: Duration = Duration::from_secs(240);
/// An answer is shorter, and the account of the services is not to fill the memory.
const LONGEST_ANSWER: &str = "--fsize=1000000";
/// The configuration, as the program that reads it finds it: root's copy in memory.
const STANDARD_INPUT: &str = "/proc/self/fd/0";
/// A secret shorter than this can't be told from any other text.
const SHORTEST_SECRET: usize = 4;
/// Keys of camcops.conf that have a setting of their own.
const SETTINGS: [(&str, &str); 10] = [
    ("EXTRA_STRING_FILES", "site.extra_strings"),
    ("GUNICORN_NUM_WORKERS", "web.workers"),
    ("GUNICORN_TIMEOUT_S", "web.timeout_s"),
    ("LANGUAGE", "site.language"),
    ("LOCAL_LOGO_FILE_ABSOLUTE", "site.logo"),
    ("REGION_CODE", "site.region"),
    ("SCHEDULE_TIMEZONE", "site.timezone"),
    ("SNOMED_ICD10_XML_FILENAME", "site.snomed_icd10_xml"),
    ("SNOMED_ICD9_XML_FILENAME", "site.snomed_icd9_xml"),
    ("SNOMED_TASK_XML_FILENAME", "site.snomed_task_xml"),
];

/// How a trial ended.
pub(crate) enum Verdict {
    /// CamCOPS has read it.
    Read(TrialResult),
    /// It could not be asked, for this reason.
    NotAsked(String),
}

/// What CamCOPS said of a configuration.
pub(crate) struct TrialResult {
    /// Why it would not start.
    pub(crate) refused: Vec<Problem>,
    /// What it warns of.
    pub(crate) warnings: Vec<Problem>,
    pub(crate) seconds: f64,
}

#[derive(Deserialize)]
struct TrialAnswer {
    refused: Vec<Said>,
    warnings: Vec<Said>,
}

#[derive(Deserialize)]
struct Said {
    text: String,
    section: String,
    key: String,
}

/// Has the installed CamCOPS read the configuration of a recipe.
pub(crate) fn try_configuration(site: &Session, recipe: &Recipe) -> Result<Verdict> {
    let not_asked = |why: &str| Ok(Verdict::NotAsked(why.to_owned()));
    if site.host.staged_root().is_some() {
        return not_asked("a staged tree does not run");
    }
    if !site.host.is_root() {
        return not_asked("only root can run this check");
    }
    let Some(text) = wanted_configuration(site, recipe).and_then(Content::bytes) else {
        return not_asked("the configuration is not among the chosen parts");
    };
    let text = String::from_utf8_lossy(text);
    if site.host.stat(&path_to_python(site))?.is_none() {
        return not_asked("CamCOPS is not installed yet");
    }
    let begin = Instant::now();
    let ended = match ask_camcops(site, text.as_bytes()) {
        Ok(ended) => ended,
        Err(_) if begin.elapsed() >= PATIENCE => {
            return not_asked(&format!("no answer within {} s; is this machine overloaded?", PATIENCE.as_secs()));
        }
        Err(why) => return not_asked(&format!("{why:#}")),
    };
    let Ok(answer) = serde_json::from_str::<TrialAnswer>(&ended.output) else {
        let why = ended.complaint.lines().next_back().unwrap_or_default();
        let why = without_secrets(&Ini::parse(&text), &strip_controls(why));
        return not_asked(&format!("the installed CamCOPS can't read it ({why})"));
    };
    let told = |said: &[Said]| -> Vec<Problem> {
        said.iter().map(|said| describe_problem(site, recipe, &text, said)).collect()
    };
    Ok(Verdict::Read(TrialResult {
        refused: told(&answer.refused),
        warnings: told(&answer.warnings),
        seconds: begin.elapsed().as_secs_f64(),
    }))
}

/// Refuses what the installed CamCOPS would not start with, if it is about to be started with it.
pub(crate) fn refuse_verdict(site: &Session, recipe: &Recipe, plan: &Plan, journal: &Journal) -> Result<()> {
    let Some(reading) = due_reading(site, recipe, plan, journal)? else {
        return Ok(());
    };
    site.style.warn(&problem_lines(&reading.warnings));
    if reading.refused.is_empty() {
        if !site.style.quiet && !site.style.json {
            terminal::print_note(&format!(
                "  CamCOPS can start with the new {} (it took {:.0} s to see)",
                site.layout.config, reading.seconds
            ));
        }
        return Ok(());
    }
    Err(Exit::Unusable.because(format!(
        "{}\nCamCOPS would not start with this, so nothing was changed; correct it and run again",
        problem_lines(&reading.refused).join("\n")
    )))
}

/// What CamCOPS says, if the plan has it started with a configuration that was never tried.
pub(crate) fn due_reading(
    site: &Session,
    recipe: &Recipe,
    plan: &Plan,
    journal: &Journal,
) -> Result<Option<TrialResult>> {
    let Some(content) = wanted_configuration(site, recipe).cloned() else {
        return Ok(None);
    };
    let is_tried = site.tried.borrow().as_ref() == Some(&content);
    if is_tried || !is_due(site, plan, journal, &content) {
        return Ok(None);
    }
    site.tried.replace(Some(content));
    match try_configuration(site, recipe)? {
        Verdict::Read(reading) => Ok(Some(reading)),
        Verdict::NotAsked(why) => {
            site.style.warn(&[format!("not checked with CamCOPS itself: the new {}: {why}", site.layout.config)]);
            Ok(None)
        }
    }
}

/// Whether it is new to the release that is in use and stays, or was edited by hand and is about to be read.
fn is_due(site: &Session, plan: &Plan, journal: &Journal, content: &Content) -> bool {
    let changes = |wanted: &Resource| {
        let mut all = plan.changes.iter();
        all.find(|planned| planned.change.resource == *wanted)
    };
    let config = Resource::File(site.layout.config.clone());
    let is_other_release = plan.changes.iter().any(|planned| {
        matches!(&planned.change.resource, Resource::Release(_))
            || planned.change.resource == Resource::Symlink(site.layout.venv.clone())
    });
    if site.host.staged_root().is_some() || is_other_release {
        return false;
    }
    if let Some(planned) = changes(&config) {
        return planned.facets.iter().any(|facet| facet == "content");
    }
    let is_ours = journal.find(&config).is_some_and(|owned| owned.ours().any(|state| state.content() == Some(content)));
    let starts = plan
        .changes
        .iter()
        .any(|planned| matches!(&planned.change.resource, Resource::Service(name) if services::is_ours(name)));
    !is_ours && starts
}

pub(crate) fn problem_lines(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(|problem| format!("{}: {}", problem.key, problem.what)).collect()
}

fn wanted_configuration<'a>(site: &Session, recipe: &'a Recipe) -> Option<&'a Content> {
    let wanted = recipe
        .wanted
        .iter()
        .find(|wanted| matches!(&wanted.resource, Resource::File(path) if *path == site.layout.config))?;
    wanted.state.content()
}

fn path_to_python(site: &Session) -> String {
    format!("{}/bin/python", site.layout.venv)
}

/// Runs the part that is written in Python.
fn ask_camcops(site: &Session, text: &[u8]) -> Result<crate::host::Ended> {
    let (host, application) = (&site.host, site.drivers.application()?);
    let (uid, gid) = application.account_numbers(host)?;
    // Not every container may make networks.
    let alone = host.child("unshare").args(["--net", "true"]).end();
    let (first, alone): (_, &[&str]) = match alone {
        Ok(ended) if ended.status.success() => ("unshare", &["--net", "prlimit"]),
        _ => ("prlimit", &[]),
    };
    let backend = match site.settings().web.backend {
        Backend::Gunicorn => "gunicorn",
        Backend::Cherrypy => "cherrypy",
    };
    host.child(first)
        .bare()
        .args(alone)
        .args([LONGEST_ANSWER, "setpriv"])
        .args([format!("--reuid={uid}"), format!("--regid={gid}")])
        .args(["--init-groups", "--no-new-privs", "--"])
        .args([&path_to_python(site), "-W", "ignore", "-c", START, backend])
        .input(text)
        .patience(PATIENCE)
        .envs(application.environment.iter().cloned())
        .env("CAMCOPS_CONFIG_FILE", STANDARD_INPUT)
        .end()
}

/// What CamCOPS said, without secrets, and the setting that it is about.
fn describe_problem(site: &Session, recipe: &Recipe, text: &str, said: &Said) -> Problem {
    let config = Ini::parse(text);
    let words = without_secrets(&config, &strip_controls(&said.text.replace('\n', " ")));
    let about_recipient = format!("For export recipient [{}]: ", recipient_name(&said.section));
    let words = words.strip_prefix(&about_recipient).unwrap_or(&words);
    let (section, key) = key_of(said, words, &config);
    Problem {
        place: None,
        key: setting_behind(site, recipe, &config, &section, &key),
        what: format!("CamCOPS says: {words}"),
        allowed: None,
        nearest: None,
        example: None,
    }
}

fn recipient_name(section: &str) -> &str {
    section.strip_prefix("recipient:").unwrap_or_default()
}

/// The section and the key that something is about: the one that it names, else the one that was read before.
fn key_of(said: &Said, words: &str, config: &Ini) -> (String, String) {
    let names = words.split(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'));
    let named = names.filter(|name| name.len() > 2).find_map(|name| {
        camcops_conf::keys::find_key(&said.section, name).map(|known| (said.section.clone(), known.name)).or_else(
            || {
                let all = camcops_conf::KEYS.iter();
                let mut all = all.filter(|known| known.name == name);
                let known = all.next()?;
                let header = known.section.header()?;
                Some((header.to_owned(), known.name))
            },
        )
    });
    if let Some((section, key)) = named {
        return (section, key.to_owned());
    }
    if !said.key.is_empty() {
        return (said.section.clone(), said.key.clone());
    }
    // A file that is not there is named by its path.
    let quoted = |entry: &IniEntry| words.contains(&format!("'{}'", entry.value));
    match config.entries().into_iter().find(quoted) {
        Some(entry) => (entry.section, entry.key),
        None => (said.section.clone(), said.key.clone()),
    }
}

/// What to change: a setting, or a key of the file where the administrator has set it there.
fn setting_behind(site: &Session, recipe: &Recipe, config: &Ini, section: &str, key: &str) -> String {
    let file = &site.layout.config;
    if section.is_empty() {
        return file.clone();
    }
    let in_file = match key {
        "" => format!("{file} [{section}]"),
        key => format!("{file} [{section}] {key}"),
    };
    let is_kept = |kept: &camcops_conf::kept::KeptSetting| {
        kept.section == section && kept.key.eq_ignore_ascii_case(key) && kept.yours.is_some()
    };
    if recipe.kept.iter().any(is_kept) {
        return in_file;
    }
    let is_in_file = || config.entries().iter().any(|entry| entry.section == section);
    let passed = site.settings().config.get(section);
    let is_passed = passed.is_some_and(|values| {
        let mut names = values.keys();
        names.any(|name| name.eq_ignore_ascii_case(key))
    });
    match SETTINGS.iter().find(|(known, _)| *known == key) {
        Some((_, setting)) if !is_passed => (*setting).to_owned(),
        // A section that the file lacks is yet to be written, and the settings are where.
        _ if passed.is_none() && section.contains(':') && is_in_file() => in_file,
        _ if key.is_empty() => format!("config.{section}"),
        _ => format!("config.{section}.{key}"),
    }
}

/// A text in which none of the configuration's secrets stands.
fn without_secrets(config: &Ini, text: &str) -> String {
    let mut text = text.to_owned();
    for entry in config.entries() {
        let shown = camcops_conf::masked_value(&entry.section, &entry.key, &entry.value);
        let value = entry.value.trim();
        if shown == entry.value || value.len() < SHORTEST_SECRET {
            continue;
        }
        for secret in [value.to_owned(), value.replace("%%", "%")] {
            text = text.replace(&secret, &shown);
        }
    }
    camcops_conf::masked_value("", "", &text)
}

#[cfg(test)]
mod tests;
