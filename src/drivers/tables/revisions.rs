//! The revisions that a release knows, read from the texts of its migrations.

use crate::base::error::Exit;
use crate::host::Host;
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

const MIGRATIONS: &str = "site-packages/camcops_server/alembic/versions";
/// So much of a migration has its own number and the one before in it, and mostly a text about it.
const BEGIN: u64 = 4096;

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
            texts.push(read_begin(&path).with_context(|| format!("can't read {}", path.display()))?);
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

/// A migration as far as it says which one it is and which one it follows.
fn read_begin(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut bytes = Vec::with_capacity(BEGIN as usize);
    file.by_ref().take(BEGIN).read_to_end(&mut bytes)?;
    let begin = String::from_utf8_lossy(&bytes);
    let whole_lines = begin.rsplit_once('\n').map_or("", |(lines, _)| lines);
    if ["revision", "down_revision"].iter().any(|name| assigned_value(whole_lines, name).is_none()) {
        file.read_to_end(&mut bytes)?;
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    Ok(whole_lines.to_owned())
}

/// The quoted words of the first assignment to a name at the beginning of a line.
fn quoted_words(text: &str, name: &str) -> Vec<String> {
    let value = assigned_value(text, name).unwrap_or_default();
    value.split(['"', '\'']).skip(1).step_by(2).map(str::to_owned).collect()
}

fn assigned_value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?;
        let (annotation, value) = rest.split_once('=')?;
        let annotation = annotation.trim();
        (annotation.is_empty() || annotation.starts_with(':')).then_some(value)
    })
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
    fn a_migration_is_read_until_it_has_said_enough() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("1.py");
        let about = "revision = 'b'\ndown_revision = 'a'\n";
        let long = "def upgrade():\n".repeat(1000);
        let cut = "#".repeat(BEGIN as usize - 20) + "\n";
        for text in [format!("{about}{long}"), format!("{long}{about}"), format!("{cut}{about}")] {
            fs::write(&path, text).unwrap();
            let text = read_begin(&path).unwrap();
            assert_eq!(quoted_words(&text, "revision"), ["b"]);
            assert_eq!(quoted_words(&text, "down_revision"), ["a"]);
        }
    }

    #[test]
    fn no_release_has_no_revisions() {
        assert_eq!(Revisions::read(&Host::live().unwrap(), "/nowhere").unwrap(), None);
    }
}
