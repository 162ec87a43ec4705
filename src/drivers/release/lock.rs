//! The packages of each version that this program knows, with their hashes, and what else is known of it before it is
//! built.

use crate::settings::Version;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// What is known of a version before it is built.
#[derive(Debug)]
pub(crate) struct PinnedRelease {
    /// The revision of its tables.
    pub(crate) revision: &'static str,
    /// Keys of camcops.conf that the version before does not know, as `section.KEY`.
    pub(crate) new_keys: &'static [&'static str],
    /// Keys that the version before knew and this one does not.
    pub(crate) removed_keys: &'static [&'static str],
}

/// What is known of a version.
pub(crate) fn pinned_release(version: Version) -> PinnedRelease {
    match version {
        Version::V2_4_23 | Version::V2_4_24 | Version::V2_4_24_1 => {
            PinnedRelease { revision: "0087", new_keys: &[], removed_keys: &[] }
        }
    }
}

/// A package of the lists of releases, with the hashes of its files, by its pin: several lists have the same.
static PACKAGES: LazyLock<BTreeMap<&str, String>> = LazyLock::new(|| {
    let all = include_str!("../../../requirements/packages.txt");
    entries_by(all, |first| first.strip_suffix(" \\").unwrap_or(first))
});

macro_rules! release_list {
    ($name:literal) => {
        include_str!(concat!("../../../requirements/releases/", $name, ".txt"))
    };
}

/// The pins of a version by the minor of its Python, newest first.
const fn lists(version: Version) -> &'static [(u8, &'static str)] {
    match version {
        Version::V2_4_23 => &[
            (12, release_list!("2.4.23/python3.12")),
            (11, release_list!("2.4.23/python3.11")),
            (10, release_list!("2.4.23/python3.10")),
        ],
        Version::V2_4_24 => &[
            (12, release_list!("2.4.24/python3.12")),
            (11, release_list!("2.4.24/python3.11")),
            (10, release_list!("2.4.24/python3.10")),
        ],
        Version::V2_4_24_1 => &[
            (14, release_list!("2.4.24+1/python3.14")),
            (13, release_list!("2.4.24+1/python3.13")),
            (12, release_list!("2.4.24+1/python3.12")),
            (11, release_list!("2.4.24+1/python3.11")),
            (10, release_list!("2.4.24+1/python3.10")),
        ],
    }
}

/// The Pythons that a version runs on, as 3.MINOR, newest first.
pub(crate) fn pythons_of(version: Version) -> impl Iterator<Item = u8> {
    lists(version).iter().map(|(minor, _)| *minor)
}

/// Its packages on a Python, with their hashes; none on one that it does not run on.
pub(super) fn lock(version: Version, minor: u8) -> String {
    let list = lists(version).iter().find(|(known, _)| *known == minor).map_or("", |(_, list)| list);
    // A comment stays; pip would refuse a pin without hashes.
    list.lines().map(|line| PACKAGES.get(line).cloned().unwrap_or_else(|| format!("{line}\n"))).collect()
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
    fn an_older_version_has_other_packages_in_place_of_the_same() {
        let lock = "# words\na==1 \\\n    --hash=sha256:aa\nb==1 \\\n    --hash=sha256:bb \\\n    --hash=sha256:bc\n";
        assert_eq!(
            replace_pins(lock, "# more\nb==2 \\\n    --hash=sha256:22\nc==3 \\\n    --hash=sha256:33\n"),
            "a==1 \\\n    --hash=sha256:aa\nb==2 \\\n    --hash=sha256:22\nc==3 \\\n    --hash=sha256:33\n"
        );
        assert_eq!(replace_pins(lock, "# nothing\n").lines().count(), 5);
    }
}
