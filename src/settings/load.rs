//! From files, environment and flags to settings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use toml_edit::{ArrayOfTables, Document, Item, Table, TableLike, Value};

use super::Settings;
use super::checks::{Contradiction, find_conflicts};
use super::config;
use super::extra::{self, EXTRA};
use super::key::{self, GivenValue, Target, VARIABLE_PREFIX, all_keys, join_name, split_name};
use super::problem::{Origin, Problem, Problems, line_of};
use super::readers::READONLY_ACCOUNTS;
use super::supply::Directory;
use super::value::Setting;

/// Everything that settings can come from; later ones win over earlier ones.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    /// Files with their text, the most important one last.
    pub(crate) files: Vec<(PathBuf, String)>,
    /// How many of the files are included by the one that follows them, and less important than that.
    pub(crate) included: usize,
    /// The environment; what is not ours is ignored.
    pub(crate) environment: Vec<(String, String)>,
    /// `KEY=VALUE` of each `--set`.
    pub(crate) overrides: Vec<String>,
}

/// Settings, and where each of them comes from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Resolved {
    pub(crate) settings: Settings,
    /// The origin of each key by its dotted name.
    pub(crate) origins: BTreeMap<String, Origin>,
    /// The files that were read, the most important one last.
    pub(crate) files: Vec<PathBuf>,
    /// How many of them are included by the one that follows them.
    pub(crate) included: usize,
}

/// One line of `config show`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ShownSetting<'a> {
    /// The dotted name.
    pub key: String,
    /// The value in TOML.
    pub value: String,
    /// Where it comes from.
    pub(crate) origin: &'a Origin,
    /// Whether the value may be a secret, as anything in `[config]` may.
    pub(crate) private: bool,
}

impl Settings {
    /// Reads, merges and checks everything that was given, and reports all problems at once.
    pub(crate) fn resolve(sources: &Sources) -> Result<Resolved, Problems> {
        let mut loader = Loader::default();
        for (at, (path, text)) in sources.files.iter().enumerate() {
            loader.may_include = at == sources.included;
            loader.file(path, text);
        }
        for (variable, value) in &sources.environment {
            loader.variable(variable, value);
        }
        for assignment in &sources.overrides {
            loader.flag(assignment);
        }
        let (settings, origins) = loader.finish()?;
        let files = sources.files.iter().map(|(path, _)| path.clone()).collect();
        Ok(Resolved { settings, origins, files, included: sources.included })
    }

    /// The value of a key, by its dotted name, as TOML.
    pub fn get(&self, name: &str) -> Option<String> {
        let path = split_name(name);
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let value = Target::find(&path).ok()?.write(self)?;
        Some(value.to_string())
    }
}

impl Resolved {
    /// The files that the settings file includes: what it says itself takes precedence.
    pub(crate) fn included_files(&self) -> &[PathBuf] {
        &self.files[..self.included.min(self.files.len())]
    }

    /// Every key with its value and origin, in the order of the documentation.
    pub(crate) fn entries(&self) -> impl Iterator<Item = ShownSetting<'_>> {
        let known = all_keys().iter().map(Target::Key);
        let config = self
            .settings
            .config
            .iter()
            .flat_map(|(section, values)| values.keys().map(|key| Target::Config(section.clone(), key.clone())));
        known.chain(config).filter_map(|target| {
            let key = target.name();
            Some(ShownSetting {
                value: target.write(&self.settings)?.to_string(),
                origin: self.origins.get(&key).unwrap_or(&Origin::Default),
                private: matches!(&target, Target::Config(_, key) if !key.ends_with(config::BY_FILE)),
                key,
            })
        })
    }
}

#[derive(Default)]
struct Loader {
    settings: Settings,
    origins: BTreeMap<String, Origin>,
    problems: Vec<Problem>,
    /// Whether the file at hand is the one that may include others.
    may_include: bool,
}

impl Loader {
    fn file(&mut self, path: &Path, text: &str) {
        let before = self.problems.len();
        match Document::parse(text) {
            Ok(document) => File { path, text, loader: self }.root(document.as_table()),
            Err(error) => {
                let problem = syntax_problem(&error, text);
                let line = line_of(text, error.span().map_or(text.len(), |span| span.start));
                self.problems.push(problem.at(Origin::File { path: path.into(), line }));
            }
        }
        self.problems[before..].sort_by_key(|problem| match problem.place {
            Some(Origin::File { line, .. }) => line,
            _ => 0,
        });
    }

    fn variable(&mut self, variable: &str, value: &str) {
        // Without a section it is reserved for the program itself.
        let Some((section, key)) = variable.strip_prefix(VARIABLE_PREFIX).and_then(|name| name.split_once("__")) else {
            self.misspelt(variable);
            return;
        };
        let origin = Origin::Environment(variable.into());
        let section = section.to_ascii_lowercase();
        let config = key.split_once("__").filter(|_| section == "config");
        match config {
            Some((section, key)) => {
                let section = section.to_ascii_lowercase();
                self.assign(&["config", &section, key], GivenValue::Text(value), origin);
            }
            None => {
                let key = key.to_ascii_lowercase();
                self.assign(&[&section, &key], GivenValue::Text(value), origin);
            }
        }
    }

    /// One underscore where two belong.
    fn misspelt(&mut self, variable: &str) {
        let name = variable.strip_prefix(VARIABLE_PREFIX).unwrap_or_default();
        let meant = all_keys().iter().find(|key| key.name.replacen('.', "_", 1).eq_ignore_ascii_case(name));
        if let Some(meant) = meant {
            let problem = Problem::new(
                meant.name,
                format!("section and key are separated by two underscores: {}", meant.variable()),
            );
            self.problems.push(problem.at(Origin::Environment(variable.into())));
        }
    }

    fn flag(&mut self, assignment: &str) {
        match assignment.split_once('=') {
            Some((name, value)) => {
                let path = split_name(name);
                let path: Vec<&str> = path.iter().map(String::as_str).collect();
                self.assign(&path, GivenValue::Text(value), Origin::Flag);
            }
            None => {
                // Only the name is told: what follows it may be a secret in a mistyped form.
                let name = assignment.split([' ', ':']).next().unwrap_or_default();
                let problem = Problem::new(name, "has no value: write KEY=VALUE");
                self.problems.push(problem.at(Origin::Flag));
            }
        }
    }

    fn assign(&mut self, path: &[&str], given: GivenValue, origin: Origin) {
        let read = Target::find(path).and_then(|target| {
            target.read(&mut self.settings, given)?;
            Ok(target.name())
        });
        match read {
            Ok(name) => _ = self.origins.insert(name, origin),
            Err(problem) => self.problems.push(problem.at(origin)),
        }
    }

    fn finish(mut self) -> Result<(Settings, BTreeMap<String, Origin>), Problems> {
        // A file that could not be read at all may hold the missing half of any contradiction.
        if self.problems.iter().all(|problem| !problem.key.is_empty()) {
            for conflict in find_conflicts(&self.settings) {
                self.report(conflict);
            }
        }
        if !self.problems.is_empty() {
            return Err(Problems(self.problems));
        }
        for key in all_keys() {
            self.origins.entry(key.name.into()).or_insert(Origin::Default);
        }
        Ok((self.settings, self.origins))
    }

    fn report(&mut self, conflict: Contradiction) {
        let concerned = |problem: &Problem| {
            let key = problem.key.split('[').next().unwrap_or_default();
            conflict.keys.contains(&key)
        };
        if self.problems.iter().any(concerned) {
            return;
        }
        let given = conflict.keys.iter().find_map(|key| self.origins.get(*key));
        let place = given.cloned().unwrap_or(Origin::Default);
        let key = conflict.keys[0];
        let example = all_keys().iter().find(|known| known.name == key).map(|known| known.example);
        self.problems.push(Problem {
            example: example.filter(|_| conflict.needs_value).map(str::to_owned),
            ..Problem::new(key, conflict.what).at(place)
        });
    }
}

/// The key that stands above all sections, and names other files of settings.
pub(crate) const INCLUDE: &str = "include";

/// What a settings file includes: files, directories, and `*` in the name of a file; nothing where it is no TOML, which is
/// told when it is read.
pub(crate) fn included_paths(path: &Path, text: &str) -> Result<Vec<String>, Problem> {
    let Ok(document) = Document::parse(text) else {
        return Ok(Vec::new());
    };
    let Some((key, item)) = document.as_table().get_key_value(INCLUDE) else {
        return Ok(Vec::new());
    };
    let line = line_of(text, key.span().map_or(0, |span| span.start));
    let refused = |what: String| Problem {
        allowed: Some(
            "a list of files, directories, or patterns such as DIRECTORY/*.toml, each with its absolute path".into(),
        ),
        example: Some("[\"/srv/site-config\"]".into()),
        ..Problem::new(INCLUDE, what).at(Origin::File { path: path.into(), line })
    };
    let list: Vec<Directory> = item
        .as_value()
        .map_or_else(|| Err(anyhow::anyhow!("is not a list")), Setting::read)
        .map_err(|why| refused(format!("{why:#}")))?;
    Ok(list.into_iter().map(|one| one.as_str().to_owned()).collect())
}

/// The problem of a text that is not TOML.
pub(super) fn syntax_problem(error: &toml_edit::TomlError, text: &str) -> Problem {
    // toml_edit has no other sign of a duplicate, and its span is the second key's name.
    match (error.message(), error.span().and_then(|span| text.get(span))) {
        ("duplicate key", Some(name)) => Problem::new("", format!("{name} is set twice in this file")),
        (message, _) => Problem::new("", format!("is not TOML: {message}")),
    }
}

struct File<'a> {
    path: &'a Path,
    text: &'a str,
    loader: &'a mut Loader,
}

impl File<'_> {
    fn root(&mut self, root: &Table) {
        for (name, item) in root {
            match item.as_table_like() {
                Some(sections) if name == "config" => self.config(sections),
                Some(section) if key::is_section(name) => self.section(&[name], section),
                Some(_) => self.problem(key::unknown_section(name), root, name),
                // They were read before this one.
                None if name == INCLUDE && self.loader.may_include => {}
                None if name == INCLUDE => {
                    let what = "is only for the settings file itself, not for one that is included or in provision.d";
                    self.problem(Problem::new(INCLUDE, what), root, name);
                }
                None => self.problem(key::unknown_key(&[name]), root, name),
            }
        }
    }

    fn config(&mut self, sections: &dyn TableLike) {
        for (name, item) in sections.iter() {
            match (config::check_section(name), item.as_table_like()) {
                (Err(problem), _) => self.problem(problem, sections, name),
                (Ok(()), Some(section)) => self.section(&["config", name], section),
                (Ok(()), None) => {
                    let what = format!("is a section: write [{}]", join_name(&["config", name]));
                    let problem = Problem::new(join_name(&["config", name]), what);
                    self.problem(problem, sections, name);
                }
            }
        }
    }

    fn section(&mut self, path: &[&str], section: &dyn TableLike) {
        for (name, item) in section.iter() {
            let path = [path, &[name]].concat();
            let origin = self.origin(section, name);
            match item {
                Item::Value(value) => self.loader.assign(&path, GivenValue::Toml(value), origin),
                Item::ArrayOfTables(tables) if path.join(".") == EXTRA => self.extra(tables),
                Item::ArrayOfTables(tables) if path.join(".") == READONLY_ACCOUNTS => {
                    let list = Value::Array(tables.clone().into_array());
                    self.loader.assign(&path, GivenValue::Toml(&list), origin);
                }
                _ => {
                    let known = Target::find(&path);
                    let problem = known.map(|known| Problem::new(known.name(), "is a key, not a section"));
                    self.loader.problems.push(problem.unwrap_or_else(|unknown| unknown).at(origin));
                }
            }
        }
    }

    /// Those of one file are added to those of earlier ones.
    fn extra(&mut self, tables: &ArrayOfTables) {
        let mut here: Vec<String> = Vec::new();
        for (index, table) in tables.iter().enumerate() {
            let given = table.get("name").and_then(Item::as_str);
            let label = given.map_or_else(|| (index + 1).to_string(), str::to_owned);
            let place = Origin::File {
                path: self.path.into(),
                line: line_of(self.text, table.span().map_or(0, |span| span.start)),
            };
            match extra::read_service(table) {
                Ok(entry) if here.contains(&label) => {
                    let name = format!("{EXTRA}[{}].name", entry.name);
                    let problem = Problem::new(name, "is used twice in this file");
                    self.problem(problem, table, "name");
                }
                Ok(entry) => {
                    let all = &mut self.loader.settings.services.extra;
                    all.retain(|earlier| earlier.name != entry.name);
                    all.push(entry);
                    here.push(label);
                    self.loader.origins.insert(EXTRA.into(), place);
                }
                Err(wrongs) => {
                    for wrong in wrongs {
                        let origin = match table.contains_key(&wrong.key) {
                            true => self.origin(table, &wrong.key),
                            false => place.clone(),
                        };
                        let key = format!("{EXTRA}[{label}].{}", wrong.key);
                        self.loader.problems.push(Problem { key, ..wrong }.at(origin));
                    }
                }
            }
        }
    }

    fn problem(&mut self, problem: Problem, parent: &dyn TableLike, name: &str) {
        let origin = self.origin(parent, name);
        self.loader.problems.push(problem.at(origin));
    }

    fn origin(&self, parent: &dyn TableLike, name: &str) -> Origin {
        let span = parent.key(name).and_then(toml_edit::Key::span);
        let line = line_of(self.text, span.map_or(0, |span| span.start));
        Origin::File { path: self.path.into(), line }
    }
}

#[cfg(test)]
mod tests;
