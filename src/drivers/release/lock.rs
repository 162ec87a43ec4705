//! The packages of each version that this program knows, with their hashes, and what else is known of it before it is
//! built.

use crate::settings::Version;
use std::borrow::Cow;
use std::collections::BTreeMap;

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
        Version::V2_4_23 | Version::V2_4_24 => PinnedRelease { revision: "0087", new_keys: &[], removed_keys: &[] },
    }
}

/// Its packages on a Python, with their hashes.
pub(super) fn lock(version: Version, minor: u8) -> Cow<'static, str> {
    let newest = match minor {
        10 => include_str!("../../../requirements/python3.10.txt"),
        11 => include_str!("../../../requirements/python3.11.txt"),
        _ => include_str!("../../../requirements/python3.12.txt"),
    };
    match version {
        Version::V2_4_24 => newest.into(),
        Version::V2_4_23 => replace_pins(newest, include_str!("../../../requirements/2.4.23.txt")).into(),
    }
}

/// A lock with other packages in place of those of the same names.
pub(super) fn replace_pins(lock: &str, others: &str) -> String {
    let mut entries = lock_entries(lock);
    entries.extend(lock_entries(others));
    entries.into_values().collect()
}

/// Each package by its name: its line, and those with its hashes.
fn lock_entries(lock: &str) -> BTreeMap<&str, String> {
    let mut entries: BTreeMap<&str, String> = BTreeMap::new();
    let mut name = "";
    for line in lock.lines().filter(|line| !line.starts_with('#')) {
        if let Some((first, _)) = line.split_once("==") {
            name = first;
        }
        let entry = entries.entry(name).or_default();
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
