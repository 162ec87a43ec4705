//! The revisions that a release knows, read from the texts of its migrations.

use crate::base::error::Exit;
use crate::host::Host;
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const MIGRATIONS: &str = "site-packages/camcops_server/alembic/versions";

/// The revisions of a release.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Revisions {
    pub(crate) head: String,
    pub(crate) all: BTreeSet<String>,
}

impl Revisions {
    /// Reads those of the release in a Python environment; nothing where there is none.
    pub(crate) fn read(host: &Host, venv: &str) -> Result<Option<Revisions>> {
        let Some(directory) = find_migrations(Path::new(&host.outside(venv))) else {
            return Ok(None);
        };
        let mut texts = Vec::new();
        let entries = fs::read_dir(&directory).with_context(|| format!("can't list {}", directory.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_none_or(|end| end != "py") {
                continue;
            }
            let bytes = fs::read(&path).with_context(|| format!("can't read {}", path.display()))?;
            texts.push(String::from_utf8_lossy(&bytes).into_owned());
        }
        Revisions::of(texts.iter().map(String::as_str)).map(Some).map_err(|heads| {
            Exit::Unusable.because(format!(
                "the migrations in {} end in {}; reinstall the release",
                directory.display(),
                match heads.as_slice() {
                    [] => "nothing".to_owned(),
                    heads => heads.join(" and in "),
                }
            ))
        })
    }

    fn of<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Revisions, Vec<String>> {
        let mut all = BTreeSet::new();
        let mut passed = BTreeSet::new();
        for text in texts {
            let (revision, before) = (quoted_words(text, "revision"), quoted_words(text, "down_revision"));
            if let Some(revision) = revision.into_iter().next() {
                all.insert(revision);
                passed.extend(before);
            }
        }
        let heads: Vec<String> = all.difference(&passed).cloned().collect();
        match heads.as_slice() {
            [head] => Ok(Revisions { head: head.clone(), all }),
            _ => Err(heads),
        }
    }
}

fn find_migrations(venv: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(venv.join("lib")).ok()?;
    entries.filter_map(|entry| Some(entry.ok()?.path().join(MIGRATIONS))).find(|path| path.is_dir())
}

/// The quoted words of the first assignment to a name at the beginning of a line.
fn quoted_words(text: &str, name: &str) -> Vec<String> {
    let value = text.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?;
        let (annotation, value) = rest.split_once('=')?;
        let annotation = annotation.trim();
        (annotation.is_empty() || annotation.starts_with(':')).then_some(value)
    });
    value.unwrap_or_default().split(['"', '\'']).skip(1).step_by(2).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_is_the_revision_that_none_follows() {
        let of = |texts: &[&str]| Revisions::of(texts.iter().copied());
        let found = of(&[
            "\"\"\"Revision ID: 9\"\"\"\nrevision = \"0002\"\ndown_revision = \"0001\"\n",
            "revision: str = '0001'\ndown_revision: Union[str, None] = None\n",
            "# nothing\n",
        ]);
        let found = found.unwrap();
        assert_eq!(found.head, "0002");
        assert_eq!(found.all.len(), 2);
        let merged = of(&[
            "revision = 'c'\ndown_revision = ('a', 'b')",
            "revision = 'a'\ndown_revision = None",
            "revision = 'b'\ndown_revision = None",
        ]);
        assert_eq!(merged.unwrap().head, "c");
        assert_eq!(of(&[]).unwrap_err(), Vec::<String>::new());
        assert_eq!(of(&["revision = 'a'", "revision = 'b'"]).unwrap_err(), ["a", "b"]);
    }

    #[test]
    fn no_release_has_no_revisions() {
        assert_eq!(Revisions::read(&Host::live().unwrap(), "/nowhere").unwrap(), None);
    }
}
