//! `config`: read, check and change the settings.

use super::need_root;
use crate::base::error::Exit;
use crate::base::report::Report;
use crate::base::terminal::{self};
use crate::camcops_conf::kept::{self, mask_secrets};
use crate::cli::{ConfigCommand, FrontServer, Global};
use crate::doctor::paths::path_problems;
use crate::host::named_file::{hidden_beside, remove_file, replace_file, write_private};
use crate::host::take_over::run_on_terminal;
use crate::recipe::front::render_front;
use crate::resource::{Resource, Shown};
use crate::session::sources::{read_sources, read_sources_with, settings_file};
use crate::session::timezone::resolve_settings;
use crate::session::trial::{self, Verdict};
use crate::session::{Session, open_host};
use crate::settings::{self, Origin};
use crate::site::{is_open, on_command_line, secret_key};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

mod secret;

pub(crate) fn run(global: &Global, command: ConfigCommand) -> Result<Report> {
    match command {
        ConfigCommand::Show { changed } => show_settings(&Session::open(global)?, changed),
        ConfigCommand::Get { key } => get_setting(&Session::open(global)?, &key),
        ConfigCommand::Set { pairs, from_file } => match secret::wanted_secret(&pairs, from_file.as_deref())? {
            Some(wanted) => secret::set_secret(global, &wanted),
            None => set_settings(global, &pairs),
        },
        ConfigCommand::Unset { key } if secret_key(&key).is_some() => secret::unset_secret(global, &key),
        ConfigCommand::Unset { key } => secret::unset_others(global, &key),
        ConfigCommand::Edit => edit_settings(global),
        ConfigCommand::Validate => validate_settings(global),
        ConfigCommand::Render { front: Some(server), .. } => render_for(&Session::open(global)?, server),
        ConfigCommand::Render { path, front: None } => render_file(&Session::open(global)?, path.as_deref()),
        ConfigCommand::Keys => Ok(Report::new(json!({ "keys": settings::all_keys() })).with_text(settings::example())),
    }
}

fn show_settings(site: &Session, changed: bool) -> Result<Report> {
    // What goes into camcops.conf may be a secret; everything else is none by construction.
    let entries: Vec<_> = site
        .resolved
        .entries()
        .filter(|entry| !changed || *entry.origin != Origin::Default)
        .map(|entry| {
            let value = if entry.private { "********".to_owned() } else { entry.value };
            (entry.key, value, entry.origin)
        })
        .collect();
    let document: Vec<_> = entries
        .iter()
        .map(|(key, value, origin)| json!({ "key": key, "value": typed_value(value), "origin": origin }))
        .collect();
    Ok(Report::new(json!({ "instance": site.instance, "settings": document }))
        .with_lines(entries.iter().map(|(key, value, origin)| format!("{key} = {value}  # {origin}"))))
}

fn get_setting(site: &Session, key: &str) -> Result<Report> {
    let value = site.settings().get(key).ok_or_else(|| {
        // The same words as for a wrong key in the file.
        let why = settings::edit_text("", key, Some("1")).err();
        let is_secret = secret_key(key).is_some();
        let by_file = format!("{key}{}", settings::BY_FILE);
        Exit::Usage.because(match (why, site.settings().get(&by_file)) {
            (Some(why), _) => why.to_string(),
            (None, Some(path)) if is_secret => {
                format!("{key}: stored in the file {} ({by_file}), not shown", path.trim())
            }
            (None, _) if is_secret => {
                format!("{key}: not set; `camcops-provision config set {key}` asks for it")
            }
            (None, _) => {
                format!("{key}: not set; `camcops-provision config set {key} VALUE` sets it")
            }
        })
    })?;
    // What is asked for by name may be shown, but no password: terminals are shared and outputs logged, and the file has it.
    let written = kept::shown_setting(key, value.trim());
    let value = typed_value(&written);
    let report = Report::new(json!({ "key": key, "value": value }));
    Ok(match value {
        Value::String(text) => report.with_line(text),
        _ => report.with_line(written),
    })
}

/// A value as a program takes it, from how it stands in the settings.
fn typed_value(text: &str) -> Value {
    fn json_of(value: &toml_edit::Value) -> Value {
        match value {
            toml_edit::Value::String(text) => text.value().as_str().into(),
            toml_edit::Value::Integer(number) => (*number.value()).into(),
            toml_edit::Value::Boolean(fact) => (*fact.value()).into(),
            toml_edit::Value::Array(all) => all.iter().map(json_of).collect(),
            toml_edit::Value::InlineTable(table) => {
                table.iter().map(|(name, value)| (name.to_owned(), json_of(value))).collect()
            }
            other => other.to_string().trim().into(),
        }
    }
    match text.parse() {
        Ok(value) => json_of(&value),
        // A masked one.
        Err(_) => text.into(),
    }
}

fn set_settings(global: &Global, pairs: &[String]) -> Result<Report> {
    let (pairs, rest) = pairs.as_chunks::<2>();
    if let [key] = rest {
        return Err(Exit::Usage.because(format!("{key}: its value is missing")));
    }
    if let Some([key, _]) = pairs.iter().find(|[key, value]| is_open(key, value)) {
        return Err(on_command_line(key));
    }
    let changes: Vec<(&str, Option<&str>)> =
        pairs.iter().map(|[key, value]| (key.as_str(), Some(value.as_str()))).collect();
    change_settings(global, &changes)
}

/// Changes keys in the administrator's file, and refuses what would make the settings wrong.
fn change_settings(global: &Global, changes: &[(&str, Option<&str>)]) -> Result<Report> {
    need_root(global, "change the settings")?;
    let file = rewrite_file(global, changes)?;
    Ok(report_change(&file.path, file.changed))
}

/// The administrator's file after a change.
pub(crate) struct RewrittenFile {
    pub(crate) path: PathBuf,
    pub(crate) before: Option<String>,
    pub(crate) changed: bool,
}

/// Changes keys in it, unless they would be wrong or somebody else has the last word.
pub(crate) fn rewrite_file(global: &Global, changes: &[(&str, Option<&str>)]) -> Result<RewrittenFile> {
    let path = settings_file(&open_host(global)?, global);
    let (before, new) = edit_file(&path, changes)?;
    let changed = before.as_deref().unwrap_or_default() != new;
    if changed {
        check_text(global, &path, &new)?;
        replace_file(&path, &new)?;
    }
    Ok(RewrittenFile { path, before, changed })
}

/// Whether a value comes from where this program can't change it: anywhere but in the administrator's file.
pub(crate) fn is_elsewhere(site: &Session, origin: &Origin) -> bool {
    match origin {
        Origin::Default => false,
        Origin::File { path, .. } => *path != site.settings_file && !site.resolved.included_files().contains(path),
        Origin::Environment(_) | Origin::Flag => true,
    }
}

/// What is in the file, and what would be with these changes.
pub(crate) fn edit_file(file: &Path, changes: &[(&str, Option<&str>)]) -> Result<(Option<String>, String)> {
    let old = read_settings_file(file)?;
    let new = changes.iter().try_fold(old.clone().unwrap_or_default(), |text, (key, value)| {
        settings::edit_text(&text, key, *value)
            .map_err(|why| Exit::Settings.because(format!("{}: {why}", file.display())))
    })?;
    Ok((old, new))
}

/// What is told of a command that may have changed the settings.
pub(crate) fn report_change(file: &Path, changed: bool) -> Report {
    let file = file.display().to_string();
    Report::new(json!({ "file": file, "changed": changed })).with_notes(changed.then(|| {
        format!("{file} saved; `camcops-provision plan` shows what changes, `camcops-provision install` applies it")
    }))
}

/// Whether the settings would be right with this text in the file.
fn check_text(global: &Global, file: &Path, text: &str) -> Result<()> {
    let host = open_host(global)?;
    let sources = read_sources_with(&host, file, Some(text.to_owned()), global)?;
    let resolved = resolve_settings(&host, &sources)?;
    resolved.map(|_| ()).map_err(|problems| Exit::Settings.because(problems.to_string()))
}

fn validate_settings(global: &Global) -> Result<Report> {
    let host = open_host(global)?;
    let file = settings_file(&host, global);
    let shown = file.display().to_string();
    if let Err(problems) = resolve_settings(&host, &read_sources(&host, &file, global)?)? {
        let why = problems.to_string();
        return Ok(Report::new(json!({ "file": shown, "problems": problems.0 })).refusing(Exit::Settings, why));
    }
    let site = Session::open(global)?;
    let (verdict, told) = try_settings(&site)?;
    let (refused, warnings, not_asked) = match &verdict {
        Verdict::Read(reading) => (&reading.refused[..], trial::problem_lines(&reading.warnings), None),
        Verdict::NotAsked(why) => (&[][..], Vec::new(), Some(why)),
    };
    let report = Report::new(json!({ "file": shown, "problems": refused, "camcops_not_asked": not_asked }))
        .with_warnings([told, warnings].concat());
    if !refused.is_empty() {
        return Ok(report.refusing(Exit::Unusable, trial::problem_lines(refused).join("\n")));
    }
    Ok(report.with_line(match &verdict {
        Verdict::Read(reading) => format!(
            "the settings are valid, and the installed CamCOPS can start with them (checked in {:.0} s)",
            reading.seconds
        ),
        Verdict::NotAsked(why) => format!("the settings are valid; not checked with CamCOPS itself: {why}"),
    }))
}

/// What the installed CamCOPS says of the configuration that the settings make, and what this program says of it.
fn try_settings(site: &Session) -> Result<(Verdict, Vec<String>)> {
    if site.host.staged_root().is_some() || !site.host.is_root() {
        let why = "only root can, and only on the machine itself".into();
        return Ok((Verdict::NotAsked(why), site.config_warnings()));
    }
    let recipe = site.recipe(&site.read_existing(&site.journal()?)?)?;
    let config = Resource::File(site.layout.config.clone());
    let config = recipe.wanted.iter().find(|wanted| wanted.resource == config);
    let text = config.and_then(|wanted| wanted.state.content()?.bytes());
    let text = text.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default();
    let told = recipe.warnings.iter().chain(recipe.missing.iter().map(|(_, what)| what)).cloned();
    let told = told.chain(path_problems(site, &text)?).collect();
    Ok((trial::try_configuration(site, &recipe)?, told))
}

fn render_for(site: &Session, server: FrontServer) -> Result<Report> {
    let found = site.read_existing(&site.journal()?)?;
    let text = render_front(site, &found, server)?;
    Ok(Report::new(json!({ "for": format!("{server:?}").to_lowercase(), "content": text })).with_text(text))
}

fn render_file(site: &Session, path: Option<&str>) -> Result<Report> {
    let found = site.read_existing(&site.journal()?)?;
    let recipe = site.recipe(&found)?;
    let wanted_path = path.unwrap_or(&site.layout.config);
    let files: Vec<_> = recipe.wanted.iter().filter(|wanted| matches!(wanted.resource, Resource::File(_))).collect();
    let fits: Vec<_> = files
        .iter()
        .filter(|wanted| {
            let name = wanted.resource.name();
            name == wanted_path || name.ends_with(&format!("/{}", wanted_path.trim_start_matches('/')))
        })
        .collect();
    let [wanted] = fits[..] else {
        let names: Vec<&str> = files.iter().map(|wanted| wanted.resource.name()).collect();
        let what = if fits.is_empty() { "is not one of" } else { "matches more than one of" };
        return Err(Exit::Usage.because(format!("{wanted_path} {what}:\n  {}", names.join("\n  "))));
    };
    let bytes = wanted
        .state
        .facets()
        .and_then(|facets| facets.content())
        .and_then(|content| content.bytes())
        .context("an empty file")?;
    let text = String::from_utf8_lossy(bytes);
    let text = match wanted.shown {
        Shown::Whole => text.into_owned(),
        Shown::Masked => mask_secrets(&text),
        Shown::Nothing => {
            return Err(Exit::Usage.because(format!("{} is secret and is not shown", wanted.resource)));
        }
    };
    Ok(Report::new(json!({ "path": wanted.resource.name(), "content": text })).with_text(text))
}

/// Lets the administrator edit a copy, and puts it in place only if it is right.
fn edit_settings(global: &Global) -> Result<Report> {
    need_root(global, "change the settings")?;
    if !terminal::is_input() {
        return Err(Exit::Usage.because("config edit needs a terminal; use config set KEY VALUE without one"));
    }
    let file = settings_file(&open_host(global)?, global);
    let old = read_settings_file(&file)?;
    let copy = hidden_beside(&file, "edit");
    let text = old.clone().unwrap_or_else(settings::example);
    if copy.exists() {
        terminal::print_note(&format!("continuing with {}, which was not saved last time", copy.display()));
    } else {
        write_private(&copy, &text)?;
    }
    let result = edit_copy(global, &file, &copy, &text);
    // Kept after a failure: nobody wants to type it again.
    if result.is_ok() {
        remove_file(&copy).with_context(|| format!("can't remove {}", copy.display()))?;
    }
    let changed = result.with_context(|| {
        format!(
            "{} is unchanged; your text is in {}, and config edit continues with it",
            file.display(),
            copy.display()
        )
    })?;
    Ok(report_change(&file, changed))
}

/// Whether the file is another one now.
fn edit_copy(global: &Global, file: &Path, copy: &Path, before: &str) -> Result<bool> {
    let editor = ["VISUAL", "EDITOR"]
        .iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|editor| !editor.trim().is_empty())
        .or_else(|| ["editor", "vi", "nano"].into_iter().find(|editor| which::which(editor).is_ok()).map(str::to_owned))
        .ok_or_else(|| Exit::Unreachable.because("no editor found; set EDITOR"))?;
    let mut words = editor.split_whitespace();
    let program = words.next().context("EDITOR is empty")?;
    let status = run_on_terminal(program, |command| {
        command.args(words).arg(copy);
    })
    .with_context(|| format!("can't start the editor {program}, which EDITOR or VISUAL names"))?;
    if !status.success() {
        return Err(Exit::Failed.because(format!("the editor ended with {status}")));
    }
    let after = std::fs::read_to_string(copy).with_context(|| format!("can't read {}", copy.display()))?;
    if after == before && file.exists() {
        return Ok(false);
    }
    check_text(global, file, &after)?;
    replace_file(file, &after)?;
    Ok(true)
}

/// The administrator's file, or nothing if there is none yet.
fn read_settings_file(file: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(why).with_context(|| format!("can't read {}", file.display())),
    }
}
