//! Whether all files of a release are there: a list of them is made when it is built. A directory that has not changed
//! since has lost none, so that an ordinary look costs one question for each directory.

use crate::host::{DirectoryHandle, Host};
use anyhow::{Context, Result};
use std::fmt::Write as _;
use std::fs::{self, File, Metadata};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use tokio::task::spawn_blocking;

/// The list, in the release itself: `D MTIME PATH` for a directory, then `F SIZE NAME` for what is in it.
const LIST: &str = "release.files";
/// Where nearly all that is in it stands.
const PACKAGES: &str = "/site-packages";

/// How closely to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Thoroughness {
    /// Only into directories that have changed.
    Quick,
    /// At the size of every file.
    Close,
}

/// Writes the list of what stands in a release now.
pub(super) fn write_list(host: &Host, release: &str) -> Result<()> {
    // What else changes in the directory itself is not told from this file.
    let path = format!("{release}/{LIST}");
    host.put_file(&path, b"", None, 0o644)?;
    let mut text = String::new();
    list_tree(Path::new(&host.outside(release)), "", &mut text)?;
    host.put_file(&path, text.as_bytes(), None, 0o644)
}

fn list_tree(root: &Path, inside: &str, text: &mut String) -> Result<()> {
    let directory = root.join(inside);
    let cannot = || format!("can't read {}", directory.display());
    let _ = writeln!(text, "D {} {inside}", modified_time(&fs::metadata(&directory)?));
    let mut below = Vec::new();
    let mut entries = Vec::new();
    for entry in fs::read_dir(&directory).with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        // No file of Python has such a name.
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let found = entry.metadata().with_context(cannot)?;
        match found.is_dir() {
            true => below.push(name),
            false if name == LIST || name.contains('\n') => {}
            false => entries.push((name, found.len())),
        }
    }
    entries.sort();
    below.sort();
    for (name, size) in entries {
        let _ = writeln!(text, "F {size} {name}");
    }
    for name in below {
        let path = match inside {
            "" => name,
            inside => format!("{inside}/{name}"),
        };
        list_tree(root, &path, text)?;
    }
    Ok(())
}

fn modified_time(found: &Metadata) -> i128 {
    i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec())
}

/// The first file of a release that is missing or damaged; nothing where all are there, or where an earlier version has
/// built it, which made no list. There are thousands to look at: others are asked other things meanwhile.
pub(crate) async fn find_hole(host: &Host, release: &str, look: Thoroughness) -> Result<Option<String>> {
    match Search::new(host, release, look)? {
        Some(search) => search.find_hole().await,
        None => Ok(None),
    }
}

/// A look at a release by its list.
pub(crate) struct Search {
    root: DirectoryHandle,
    list: File,
    look: Thoroughness,
}

impl Search {
    /// Nothing where there is no list.
    pub(crate) fn new(host: &Host, release: &str, look: Thoroughness) -> Result<Option<Search>> {
        let Some((_, list)) = host.open_file(&format!("{release}/{LIST}"))? else {
            return Ok(None);
        };
        let Some(root) = host.open_directory(release)? else {
            return Ok(None);
        };
        Ok(Some(Search { root, list, look }))
    }

    pub(crate) async fn find_hole(self) -> Result<Option<String>> {
        spawn_blocking(|| self.first_hole()).await?
    }

    fn first_hole(self) -> Result<Option<String>> {
        let mut way = ShortWay { root: self.root, packages: None };
        let (mut inside, mut directory) = (String::new(), None);
        for line in BufReader::new(self.list).lines() {
            let line = line.with_context(|| format!("can't read {LIST}"))?;
            let mut words = line.splitn(3, ' ');
            let (Some(kind), Some(number), Some(name)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            match (kind, &directory) {
                ("D", _) => {
                    let (near, rest) = way.to(name);
                    let Some(found) = near.summary(rest)?.filter(|found| found.is_directory) else {
                        return Ok(Some(format!("{name} is missing")));
                    };
                    let is_same = self.look == Thoroughness::Quick && number.parse() == Ok(found.modified);
                    directory = if is_same { None } else { way.open(name)? };
                    name.clone_into(&mut inside);
                    if name.ends_with(PACKAGES) {
                        way.packages = way.open(name)?.map(|handle| (format!("{name}/"), handle));
                    }
                }
                ("F", Some(directory)) => {
                    let path = || format!("{inside}/{name}").trim_start_matches('/').to_owned();
                    match directory.summary(name)? {
                        None => return Ok(Some(format!("{} is missing", path()))),
                        Some(found) if number.parse() != Ok(found.size) => {
                            return Ok(Some(format!("{} is damaged", path())));
                        }
                        Some(_) => {}
                    }
                }
                _ => {}
            }
        }
        Ok(None)
    }
}

/// How what is in a release is reached: most of it by a short way.
struct ShortWay {
    root: DirectoryHandle,
    packages: Option<(String, DirectoryHandle)>,
}

impl ShortWay {
    fn to<'a>(&'a self, path: &'a str) -> (&'a DirectoryHandle, &'a str) {
        let near = self.packages.as_ref();
        let near = near.and_then(|(begin, handle)| Some((handle, path.strip_prefix(begin.as_str())?)));
        near.unwrap_or((&self.root, if path.is_empty() { "." } else { path }))
    }

    fn open(&self, path: &str) -> Result<Option<DirectoryHandle>> {
        let (directory, rest) = self.to(path);
        directory.open(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_gone_is_seen() {
        let home = tempfile::tempdir().unwrap();
        let host = Host::staged(home.path()).unwrap();
        let at = |path: &str| home.path().join("r").join(path);
        fs::create_dir_all(at("lib/a b/c")).unwrap();
        for name in ["one", "lib/two", "lib/a b/three", "lib/a b/c/four"] {
            fs::write(at(name), "text").unwrap();
        }
        std::os::unix::fs::symlink("two", at("lib/link")).unwrap();
        let look = |look: Thoroughness| {
            Search::new(&host, "/r", look).unwrap().and_then(|search| search.first_hole().unwrap())
        };
        // Built by a version that made no list.
        assert_eq!(look(Thoroughness::Close), None);
        write_list(&host, "/r").unwrap();
        for one in [Thoroughness::Quick, Thoroughness::Close] {
            assert_eq!(look(one), None);
        }
        // A file that is more is none of ours.
        fs::write(at("lib/a b/more"), "x").unwrap();
        assert_eq!(look(Thoroughness::Quick), None);
        fs::write(at("lib/two"), "shorter or longer").unwrap();
        assert_eq!(look(Thoroughness::Close).as_deref(), Some("lib/two is damaged"));
        fs::write(at("lib/two"), "text").unwrap();
        for (name, told) in [
            ("lib/a b/c/four", "lib/a b/c/four is missing"),
            ("lib/link", "lib/link is missing"),
            ("one", "one is missing"),
        ] {
            fs::remove_file(at(name)).unwrap();
            for one in [Thoroughness::Quick, Thoroughness::Close] {
                assert_eq!(look(one).as_deref(), Some(told));
            }
            fs::write(at(name), "text").unwrap();
            write_list(&host, "/r").unwrap();
        }
        fs::remove_dir_all(at("lib/a b/c")).unwrap();
        assert_eq!(look(Thoroughness::Quick).as_deref(), Some("lib/a b/c is missing"));
    }
}
