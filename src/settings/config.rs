//! `[config]`: what goes into camcops.conf as it is.

use anyhow::{Result, bail};
use std::collections::BTreeMap;
use std::fmt;

use toml_edit::{Array, Value};

use super::key::{GivenValue, join_name};
use super::problem::{Problem, nearest_name};
use super::value::{Setting, one_line, wrong_type};

/// Section, then key, then value of what is passed through into camcops.conf.
pub(crate) type ConfigSections = BTreeMap<String, BTreeMap<String, ConfigValue>>;

/// A value for camcops.conf. It may be a secret, so its debug form does not show it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum ConfigValue {
    Line(String),
    /// A list, one line per entry.
    List(Vec<String>),
}

impl fmt::Debug for ConfigValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConfigValue(..)")
    }
}

impl Setting for ConfigValue {
    fn allowed() -> String {
        "a string, a number, true or false, or a list of strings".into()
    }

    fn read(value: &Value) -> Result<Self> {
        match value {
            Value::String(_) => one_line(value).map(|line| Self::Line(line.into())),
            Value::Integer(number) => Ok(Self::Line(number.value().to_string())),
            Value::Float(number) => Ok(Self::Line(number.value().to_string())),
            Value::Boolean(truth) => Ok(Self::Line(truth.value().to_string())),
            Value::Array(list) => {
                let lines = list.iter().map(|line| one_line(line).map(str::to_owned));
                lines.collect::<Result<_, _>>().map(Self::List)
            }
            Value::Datetime(_) | Value::InlineTable(_) => Err(wrong_type(value, "one of these")),
        }
    }

    fn write(&self) -> Value {
        match self {
            Self::Line(line) => line.into(),
            Self::List(lines) => Array::from_iter(lines).into(),
        }
    }
}

/// What the name of a key ends with that names a file with the value of another key.
pub(crate) const BY_FILE: &str = "_file";

/// Reads the path of a file with a secret.
pub(super) fn read_path(given: GivenValue) -> Result<ConfigValue> {
    match read_value(given)? {
        ConfigValue::Line(path) if path.starts_with('/') => Ok(ConfigValue::Line(path)),
        _ => bail!("is not the absolute path of a file"),
    }
}

/// Reads a value; plain text keeps its spelling, so that `1.10` does not become `1.1`.
pub(super) fn read_value(given: GivenValue) -> Result<ConfigValue> {
    match given {
        GivenValue::Toml(value) => ConfigValue::read(value),
        GivenValue::Text(text) => match text.parse() {
            Ok(value @ (Value::String(_) | Value::Array(_))) => ConfigValue::read(&value),
            _ => ConfigValue::from_text(text),
        },
    }
}

/// Checks the names of a section and a key of camcops.conf.
pub(super) fn check_names(section: &str, key: &str) -> Result<(), Problem> {
    check_section(section)?;
    // A secret may be given by a file: its key ends with this, as those of our own do.
    let key = key.strip_suffix(BY_FILE).unwrap_or(key);
    let is_fine = |key: &str| {
        key.starts_with(|c: char| c.is_ascii_uppercase())
            && key.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
    };
    if is_fine(key) {
        return Ok(());
    }
    // camcops.conf does not tell the two spellings apart, so only one of them may exist here.
    let upper = key.to_ascii_uppercase();
    Err(Problem {
        allowed: Some("A-Z 0-9 _".into()),
        nearest: is_fine(&upper).then(|| join_name(&["config", section, &upper])),
        ..Problem::new(join_name(&["config", section, key]), "is not a valid key of camcops.conf")
    })
}

/// Checks the name of a section of camcops.conf.
pub(super) fn check_section(section: &str) -> Result<(), Problem> {
    const SECTIONS: [&str; 5] = ["site", "server", "export", "sms_backend:kapow", "sms_backend:twilio"];
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    let is_recipient = |name: &str| !name.is_empty() && name.bytes().all(is_plain);
    if SECTIONS.contains(&section) || section.strip_prefix("recipient:").is_some_and(is_recipient) {
        return Ok(());
    }
    let nearest = nearest_name(section, SECTIONS);
    Err(Problem {
        allowed: Some(
            "site, server, export, sms_backend:kapow, sms_backend:twilio, or recipient:NAME of A-Z a-z 0-9 _ -".into(),
        ),
        nearest: nearest.map(|known| format!("[{}]", join_name(&["config", known]))),
        ..Problem::new(join_name(&["config", section]), "is not a section of camcops.conf")
    })
}
