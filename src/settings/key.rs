//! The table of keys, and finding a key by its name.

use anyhow::Result;
use std::sync::LazyLock;

use serde::Serialize;
use toml_edit::Value;

use super::problem::Problem;
use super::value::{Setting, read_loosely};
use super::{Settings, config};

/// One key of `provision.toml`, as the documentation shows it.
#[derive(Debug, Serialize)]
pub struct Key {
    /// The dotted name, like `web.https_port`.
    pub name: &'static str,
    /// The section of the name.
    pub(crate) section: &'static str,
    /// What the section is about.
    #[serde(skip)]
    pub(crate) section_doc: &'static str,
    /// What the key means.
    pub(crate) doc: &'static str,
    /// What is allowed.
    pub(crate) allowed: String,
    /// The default, in words if it depends on something else.
    pub(crate) default: String,
    /// An example value, in TOML.
    pub(crate) example: &'static str,
    /// The default in TOML.
    #[serde(skip)]
    pub(super) default_toml: String,
    #[serde(skip)]
    pub(super) read: fn(&mut Settings, GivenValue) -> Result<()>,
    #[serde(skip)]
    pub(super) write: fn(&Settings) -> Value,
}

impl Key {
    /// The name without its section.
    pub fn short_name(&self) -> &'static str {
        // Every name is made as SECTION.KEY.
        self.name.split_once('.').map_or(self.name, |(_, key)| key)
    }

    /// The environment variable that sets the key.
    pub fn variable(&self) -> String {
        let name = self.name.replacen('.', "__", 1);
        format!("{VARIABLE_PREFIX}{}", name.to_ascii_uppercase())
    }
}

/// What the name of every environment variable of ours begins with.
pub const VARIABLE_PREFIX: &str = "CAMCOPS_PROVISION_";

/// A value as it comes in.
#[derive(Clone, Copy)]
pub(super) enum GivenValue<'a> {
    /// From a file.
    Toml(&'a Value),
    /// From the environment or a flag.
    Text(&'a str),
}

impl GivenValue<'_> {
    pub(super) fn read<T: Setting>(self) -> Result<T> {
        match self {
            Self::Toml(value) => T::read(value),
            Self::Text(text) => read_loosely(text),
        }
    }
}

/// Every key, in the order of the documentation.
pub fn all_keys() -> &'static [Key] {
    static KEYS: LazyLock<Vec<Key>> = LazyLock::new(super::table);
    &KEYS
}

/// Makes `Settings`, its sections with their defaults, and the table of keys from one list.
macro_rules! settings {
    ($(
        $(#[doc = $section_doc:literal])+
        $section:ident: $Section:ident {
            $(
                $(#[doc = $doc:literal])+
                $key:ident: $type:ty = $default:expr, example $example:literal $(, shown $shown:literal)?;
            )+
        }
    )+) => {
        /// What the administrator wants, complete and checked.
        #[derive(Debug, Clone, PartialEq, Default)]
        pub struct Settings {
            $( $(#[doc = $section_doc])+ pub(crate) $section: $Section, )+
            /// What is passed through into camcops.conf.
            pub(crate) config: ConfigSections,
        }

        $(
            $(#[doc = $section_doc])+
            #[derive(Debug, Clone, PartialEq)]
            pub(crate) struct $Section { $( $(#[doc = $doc])+ pub(crate) $key: $type, )+ }

            impl $Section {
                const ABOUT: &str = concat!($($section_doc),+);
            }

            impl Default for $Section {
                fn default() -> Self {
                    Self { $($key: $default,)+ }
                }
            }
        )+

        fn table() -> Vec<Key> {
            let defaults = Settings::default();
            vec![$($({
                let default_toml = defaults.$section.$key.write().to_string();
                Key {
                    name: concat!(stringify!($section), ".", stringify!($key)),
                    section: stringify!($section),
                    section_doc: $Section::ABOUT.trim_ascii(),
                    doc: concat!($($doc),+).trim_ascii(),
                    allowed: <$type as Setting>::allowed(),
                    default: [$($shown,)? $crate::settings::key::shown_default(&default_toml)][0].to_owned(),
                    example: $example,
                    default_toml,
                    read: |settings, given| given.read().map(|value| settings.$section.$key = value),
                    write: |settings| settings.$section.$key.write(),
                }
            }),+),+]
        }
    };
}
pub(super) use settings;

/// A default in words: an empty text or list is none.
pub(super) fn shown_default(toml: &str) -> &str {
    if ["\"\"", "[]"].contains(&toml) { "none" } else { toml }
}

/// What a dotted name stands for.
pub(super) enum Target {
    /// A key of the table.
    Key(&'static Key),
    /// A key of camcops.conf, by section and name.
    Config(String, String),
}

impl Target {
    /// Finds what a path names, or says what is wrong with it.
    pub(super) fn find(path: &[&str]) -> Result<Self, Problem> {
        match path {
            ["config", section, key] => {
                config::check_names(section, key)?;
                Ok(Self::Config((*section).into(), (*key).into()))
            }
            ["config"] => Err(Problem::new("config", "is a section, not a value")),
            [section, key] => {
                let is_it = |known: &&Key| known.section == *section && known.short_name() == *key;
                match all_keys().iter().find(is_it) {
                    Some(known) => Ok(Self::Key(known)),
                    None => Err(unknown_key(path)),
                }
            }
            _ => Err(unknown_key(path)),
        }
    }

    /// The dotted name.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Key(key) => key.name.into(),
            Self::Config(section, key) => join_name(&["config", section, key]),
        }
    }

    /// Puts a value into the settings, or says what is wrong with it.
    pub(super) fn read(&self, settings: &mut Settings, given: GivenValue) -> Result<(), Problem> {
        match self {
            Self::Key(key) => (key.read)(settings, given).map_err(|what| Problem {
                allowed: Some(key.allowed.clone()),
                example: Some(key.example.into()),
                ..Problem::new(self.name(), what)
            }),
            Self::Config(section, key) => {
                let is_path = key.ends_with(config::BY_FILE);
                let (value, allowed) = match is_path {
                    true => (config::read_path(given), "the absolute path of a file".into()),
                    false => (config::read_value(given), config::ConfigValue::allowed()),
                };
                let value =
                    value.map_err(|what| Problem { allowed: Some(allowed), ..Problem::new(self.name(), what) })?;
                let section = settings.config.entry(section.clone()).or_default();
                section.insert(key.clone(), value);
                Ok(())
            }
        }
    }

    /// The value in the settings as TOML.
    pub(super) fn write(&self, settings: &Settings) -> Option<Value> {
        match self {
            Self::Key(key) => Some((key.write)(settings)),
            Self::Config(section, key) => Some(settings.config.get(section)?.get(key)?.write()),
        }
    }
}

/// The parts of a dotted name, in which a part with a dot or a colon may be quoted.
pub fn split_name(name: &str) -> Vec<String> {
    match toml_edit::Key::parse(name) {
        Ok(keys) => keys.iter().map(|key| key.get().to_owned()).collect(),
        // So that nobody has to quote the quotes for a shell: config.recipient:NAME.KEY
        Err(_) => name.split('.').map(|part| part.trim().to_owned()).collect(),
    }
}

/// The dotted name of a path, quoted where TOML needs it.
pub(super) fn join_name(path: &[&str]) -> String {
    let quoted = path.iter().map(|part| toml_edit::Key::new(*part).display_repr().into_owned());
    quoted.collect::<Vec<_>>().join(".")
}

/// The problem of a name that is not in the table.
pub(super) fn unknown_key(path: &[&str]) -> Problem {
    let name = join_name(path);
    let (section, key) = match path {
        [key] => ("", *key),
        [section, rest @ ..] => (*section, rest.last().copied().unwrap_or_default()),
        [] => ("", ""),
    };
    if is_section(key) && path.len() == 1 {
        return Problem::new(name, format!("is a section: write [{key}] once, and its keys below it"));
    }
    if looks_like_password(key) {
        return refuse_password(name, section);
    }
    Problem { nearest: nearest_key(section, key), ..Problem::new(name, "unknown key") }
}

pub(super) fn is_section(name: &str) -> bool {
    name == "config" || all_keys().iter().any(|key| key.section == name)
}

/// The problem of a section that is not in the table.
pub(super) fn unknown_section(section: &str) -> Problem {
    let sections = all_keys().iter().map(|key| key.section).chain(["config"]);
    let nearest = sections.min_by_key(|known| edit_distance(section, known));
    Problem {
        nearest: nearest.map(|known| format!("[{known}]")),
        ..Problem::new(join_name(&[section]), "unknown section")
    }
}

fn nearest_key(section: &str, key: &str) -> Option<String> {
    let cost = |known: &&Key| {
        // A key that stands outside of any section has most likely the right name.
        let section_cost = if section.is_empty() { 1 } else { edit_distance(section, known.section) };
        edit_distance(key, known.short_name()) + section_cost
    };
    let nearest = all_keys().iter().min_by_key(cost)?;
    (cost(&nearest) <= (section.len() + key.len()).div_ceil(2)).then(|| nearest.name.into())
}

fn edit_distance(given: &str, known: &str) -> usize {
    let edits = strsim::damerau_levenshtein(given, known);
    if given.len() >= 3 && known.contains(given) { edits.min(2) } else { edits }
}

fn looks_like_password(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    // A misspelt password_file is an ordinary unknown key.
    let is_one = ["password", "passwd", "passphrase", "secret"].iter().any(|word| key.contains(word));
    (is_one && !key.contains("_f")) || key == "pass" || key == "pwd"
}

fn refuse_password(name: String, section: &str) -> Problem {
    let files = all_keys().iter().filter(|key| key.short_name() == "password_file");
    let own = files.clone().find(|key| key.section == section);
    let file = own.map_or_else(|| files.map(|key| key.name).collect::<Vec<_>>().join(" or "), |key| key.name.into());
    Problem {
        nearest: own.map(|key| key.name.into()),
        ..Problem::new(
            name,
            format!(
                "passwords are not settings: write it to a file that only root can read, and name the file in {file}"
            ),
        )
    }
}
