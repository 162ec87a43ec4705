//! Whether all files of a release are there: a list of them is made when it is built. A directory that has not changed
//! since has lost none, so that an ordinary look costs one question for each directory.

use crate::host::Host;
use anyhow::{Context, Result};
use std::fmt::Write as _;
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The list, in the release itself: `D MTIME PATH` for a directory, then `F SIZE NAME` for what is in it.
const LIST: &str = "release.files";

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
/// built it, which made no list.
pub(crate) fn find_hole(host: &Host, release: &str, look: Thoroughness) -> Result<Option<String>> {
    let Some(text) = host.read_text(&format!("{release}/{LIST}"))? else {
        return Ok(None);
    };
    let root = host.outside(release);
    let (mut directory, mut is_same) = (String::new(), false);
    for line in text.lines() {
        let mut words = line.splitn(3, ' ');
        let (Some(kind), Some(number), Some(name)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        match kind {
            "D" => {
                directory = format!("{root}/{name}");
                match metadata_of(&directory)? {
                    Some(found) if found.is_dir() => {
                        is_same = look == Thoroughness::Quick && number == modified_time(&found).to_string();
                    }
                    _ => return Ok(Some(format!("{name} is missing"))),
                }
            }
            "F" if !is_same => {
                let path = format!("{directory}/{name}");
                let inside = path.strip_prefix(&root).unwrap_or(&path);
                let inside = inside.trim_start_matches('/');
                match metadata_of(&path)? {
                    None => return Ok(Some(format!("{inside} is missing"))),
                    Some(found) if found.len().to_string() != number => {
                        return Ok(Some(format!("{inside} is damaged")));
                    }
                    Some(_) => {}
                }
            }
            _ => {}
        }
    }
    Ok(None)
}

fn metadata_of(path: &str) -> Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(why) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&why.kind()) => Ok(None),
        Err(why) => Err(why).with_context(|| format!("can't read {path}")),
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
        let look = |look: Thoroughness| find_hole(&host, "/r", look).unwrap();
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
