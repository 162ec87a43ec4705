//! What the newest hardened release has in place of what CamCOPS pins, and why: requirements/hardening.toml, as data.

use crate::settings::Version;
use serde::Serialize;
use std::collections::BTreeSet;
use std::sync::LazyLock;
use toml_edit::{Document, Table};

const TEXT: &str = include_str!("../../../requirements/hardening.toml");

/// A package in place of the one that CamCOPS pins.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Override {
    pub(crate) package: String,
    pub(crate) version: String,
    pub(crate) reason: String,
    /// The advisories that it ends.
    pub(crate) ends: Vec<String>,
}

/// An advisory that nothing ends, and why that can be lived with.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Remainder {
    pub(crate) package: String,
    pub(crate) advisory: String,
    pub(crate) reason: String,
}

/// The whole of the file.
#[derive(Debug, Default, Serialize)]
pub(crate) struct HardeningList {
    pub(crate) release: String,
    pub(crate) overrides: Vec<Override>,
    /// What CamCOPS does not ask for.
    pub(crate) additions: Vec<Override>,
    pub(crate) left: Vec<Remainder>,
}

impl HardeningList {
    /// What a release has in place of what CamCOPS pins; nothing of one that has what CamCOPS pins, or of an older level.
    pub(crate) fn of(version: Version) -> Option<&'static HardeningList> {
        (version.as_str() == HARDENING.release).then(|| &*HARDENING)
    }

    /// How many known flaws it ends.
    pub(crate) fn ended(&self) -> usize {
        let ids: BTreeSet<&String> = self.overrides.iter().flat_map(|one| &one.ends).collect();
        ids.len()
    }
}

/// The file as it is compiled in.
pub(crate) static HARDENING: LazyLock<HardeningList> = LazyLock::new(|| {
    let Ok(file) = TEXT.parse::<Document<String>>() else { return HardeningList::default() };
    let rows = |name: &str| file.get(name).and_then(|rows| rows.as_array_of_tables()).into_iter().flatten();
    let text = |row: &Table, key: &str| row.get(key).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
    let words = |row: &Table, key: &str| {
        let words = row.get(key).and_then(|value| value.as_array()).into_iter().flatten();
        words.filter_map(|word| word.as_str().map(str::to_owned)).collect()
    };
    let packages = |name: &str| {
        let one = |row: &Table| Override {
            package: text(row, "package"),
            version: text(row, "version"),
            reason: text(row, "reason"),
            ends: words(row, "ends"),
        };
        rows(name).map(one).collect()
    };
    HardeningList {
        release: text(&file, "release"),
        overrides: packages("override"),
        additions: packages("addition"),
        left: rows("left")
            .map(|row| Remainder {
                package: text(row, "package"),
                advisory: text(row, "advisory"),
                reason: text(row, "reason"),
            })
            .collect(),
    }
});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::release::lock::{lock, pythons_of};
    use crate::settings::Hardening;

    #[test]
    fn each_override_is_in_the_lists_of_the_newest_level_with_its_reason() {
        let newest = Version::newest(Hardening::Auto);
        assert_eq!(HARDENING.release, newest.as_str());
        let locks: String = pythons_of(newest).map(|minor| lock(newest, minor)).collect();
        assert!(!HARDENING.overrides.is_empty());
        assert!(!HARDENING.additions.is_empty());
        for one in HARDENING.overrides.iter().chain(&HARDENING.additions) {
            assert!(locks.contains(&format!("{}=={} \\\n", one.package, one.version)), "{one:?}");
            assert!(!one.reason.is_empty(), "{one:?}");
        }
        assert!(HARDENING.ended() > 100);
        assert!(HardeningList::of(newest).is_some() && HardeningList::of(Version::newest(Hardening::Off)).is_none());
        for one in &HARDENING.left {
            assert!(!one.reason.is_empty() && locks.contains(&format!("\n{}==", one.package)), "{one:?}");
        }
    }
}
