//! What is wrong with the settings, told all at once.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Origin {
    /// Nobody gave one.
    Default,
    /// A line of a file.
    File {
        #[serde(serialize_with = "as_text")]
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A `--set` on the command line.
    Flag,
}

// JSON has no other way to show a path that is not UTF-8.
fn as_text<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(variable) => f.write_str(variable),
            Self::Flag => f.write_str("--set"),
        }
    }
}

/// One thing that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
pub(crate) struct Problem {
    /// Where; nothing for a text that has no name.
    pub(crate) place: Option<Origin>,
    /// The dotted name of the key; empty where the text is not even TOML.
    pub(crate) key: String,
    /// What is wrong.
    pub(crate) what: String,
    /// What is allowed instead.
    pub(crate) allowed: Option<String>,
    /// The known key that looks most like an unknown one.
    pub(crate) nearest: Option<String>,
    /// A value that would do, in TOML.
    pub(crate) example: Option<String>,
}

impl Problem {
    /// An error is told with its causes.
    pub(super) fn new(key: impl Into<String>, what: impl fmt::Display) -> Self {
        Self { place: None, key: key.into(), what: format!("{what:#}"), allowed: None, nearest: None, example: None }
    }

    pub(super) fn at(self, place: Origin) -> Self {
        Self { place: Some(place), ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)?;
        if let Some(allowed) = &self.allowed {
            write!(f, "; allowed: {allowed}")?;
        }
        if let Some(example) = &self.example {
            let comma = if self.allowed.is_some() { "," } else { ";" };
            write!(f, "{comma} for example {example}")?;
        }
        if let Some(nearest) = &self.nearest {
            write!(f, "; nearest: {nearest}")?;
        }
        Ok(())
    }
}

/// Everything that is wrong with the settings, one line each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(transparent)]
pub(crate) struct Problems(pub(crate) Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

/// The known name that a mistyped one most likely means.
pub(super) fn nearest_name<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |known: &&str| strsim::damerau_levenshtein(given, known);
    known.into_iter().min_by_key(distance).filter(|known| distance(known) <= 3)
}

/// The line of a byte in a text, counted from 1.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    let before = &text.as_bytes()[..offset.min(text.len())];
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}
