//! The packages of each version that this program knows, with their hashes, and what else is known of it before it is
//! built.

use crate::settings::{Hardening, Version};
use crate::site::facts::{Facts, UntestedList};
use std::collections::BTreeMap;
use std::sync::LazyLock;
use toml_edit::Document;

/// What is known of a version before it is built.
#[derive(Debug, Default)]
pub(crate) struct PinnedRelease {
    /// The revision of its tables.
    pub(crate) revision: String,
    /// Keys of camcops.conf that the version before does not know, as `section.KEY`.
    pub(crate) new_keys: Vec<String>,
    /// Keys that the version before knew and this one does not.
    pub(crate) removed_keys: Vec<String>,
}

/// The files about a release, of requirements/releases.
struct PinnedFiles {
    version: &'static str,
    about: &'static str,
    /// Its pins by the minor of its Python, newest first.
    lists: &'static [(u8, &'static str)],
}

static RELEASES: &[PinnedFiles] = include!(concat!(env!("OUT_DIR"), "/releases.rs"));

fn files_of(version: Version) -> Option<&'static PinnedFiles> {
    RELEASES.iter().find(|files| files.version == version.as_str())
}

/// What is known of a version.
pub(crate) fn pinned_release(version: Version) -> PinnedRelease {
    let about = files_of(version).and_then(|files| files.about.parse::<Document<String>>().ok());
    let Some(about) = about else { return PinnedRelease::default() };
    let words = |key: &str| {
        let words = about.get(key).and_then(|value| value.as_array()).into_iter().flatten();
        words.filter_map(|word| word.as_str().map(str::to_owned)).collect()
    };
    let revision = about.get("revision").and_then(|value| value.as_str()).unwrap_or_default();
    PinnedRelease { revision: revision.to_owned(), new_keys: words("new_keys"), removed_keys: words("removed_keys") }
}

/// A package of the lists of releases, with the hashes of its files, by its pin: several lists have the same.
static PACKAGES: LazyLock<BTreeMap<&str, String>> = LazyLock::new(|| {
    let all = include_str!("../../../requirements/packages.txt");
    entries_by(all, |first| first.strip_suffix(" \\").unwrap_or(first))
});

/// The Pythons that a version runs on, as 3.MINOR, newest first.
pub(crate) fn pythons_of(version: Version) -> impl Iterator<Item = u8> {
    lists_of(version).iter().map(|(minor, _)| *minor)
}

/// Its pins by the minor of its Python, newest first.
fn lists_of(version: Version) -> &'static [(u8, &'static str)] {
    files_of(version).map_or(&[], |files| files.lists)
}

/// The lists of a version that were made here.
pub(super) fn untested_lists(version: Version, facts: &Facts) -> impl Iterator<Item = &UntestedList> {
    facts.untested.iter().filter(move |list| !version.is_known() && list.version == version.as_str())
}

/// Whether it has a package of this name, on whatever Python.
pub(super) fn has_package(version: Version, facts: &Facts, name: &str) -> bool {
    let pin = format!("{name}==");
    let has = |list: &str| list.lines().any(|line| line.starts_with(&pin));
    lists_of(version).iter().any(|(_, list)| has(list)) || untested_lists(version, facts).any(|list| has(&list.lock))
}

/// A lock without one of its packages.
pub(super) fn leave_out(lock: &str, name: &str) -> String {
    let mut entries = entries_by(lock, |first| first.split_once("==").map_or(first, |(name, _)| name));
    entries.remove(name);
    entries.into_values().collect()
}

/// Its packages on a Python, with their hashes; none on one that it does not run on.
pub(super) fn lock(version: Version, minor: u8) -> String {
    lock_without(version, minor, "")
}

/// The same, but for one that is left out.
pub(super) fn lock_without(version: Version, minor: u8, name: &str) -> String {
    let pin = format!("{name}==");
    let list = lists_of(version).iter().find(|(known, _)| *known == minor).map_or("", |(_, list)| list);
    let list = list.lines().filter(|line| !line.starts_with(&pin));
    // A comment stays; pip would refuse a pin without hashes.
    list.map(|line| PACKAGES.get(line).cloned().unwrap_or_else(|| format!("{line}\n"))).collect()
}

/// The packages of the newest release on a Python, by their names; nothing where there is none for it.
pub(crate) fn newest_pins(minor: u8) -> Option<(String, BTreeMap<String, String>)> {
    let newest = Version::newest(Hardening::Auto);
    let lock = lock(newest, minor);
    let first_lines = lock.lines().filter(|line| !line.starts_with([' ', '#']));
    let pins = first_lines.filter_map(|line| line.trim_end_matches(" \\").split_once("=="));
    let pins: BTreeMap<String, String> = pins.map(|(name, version)| (name.to_owned(), version.to_owned())).collect();
    (!pins.is_empty()).then(|| (newest.as_str().to_owned(), pins))
}

/// A lock with other packages in place of those of the same names.
pub(super) fn replace_pins(lock: &str, others: &str) -> String {
    let name = |first| str::split_once(first, "==").map_or(first, |(name, _)| name);
    let mut entries = entries_by(lock, name);
    entries.extend(entries_by(others, name));
    entries.into_values().collect()
}

/// Each package by what its first line is known by: that line, and those with its hashes.
fn entries_by<'a>(lock: &'a str, key: impl Fn(&'a str) -> &'a str) -> BTreeMap<&'a str, String> {
    let mut entries: BTreeMap<&str, String> = BTreeMap::new();
    let mut known_by = "";
    for line in lock.lines().filter(|line| !line.starts_with('#')) {
        if !line.starts_with(' ') {
            known_by = key(line);
        }
        let entry = entries.entry(known_by).or_default();
        entry.push_str(line);
        entry.push('\n');
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_release_says_what_is_known_of_it() {
        for version in Version::known() {
            assert!(pinned_release(version).revision.parse::<u32>().is_ok(), "{version:?}");
            assert!(pythons_of(version).count() > 2, "{version:?}");
        }
    }

    #[test]
    fn an_older_version_has_other_packages_in_place_of_the_same() {
        let lock = "# words\na==1 \\\n    --hash=sha256:aa\nb==1 \\\n    --hash=sha256:bb \\\n    --hash=sha256:bc\n";
        assert_eq!(
            replace_pins(lock, "# more\nb==2 \\\n    --hash=sha256:22\nc==3 \\\n    --hash=sha256:33\n"),
            "a==1 \\\n    --hash=sha256:aa\nb==2 \\\n    --hash=sha256:22\nc==3 \\\n    --hash=sha256:33\n"
        );
        assert_eq!(replace_pins(lock, "# nothing\n").lines().count(), 5);
    }
}
