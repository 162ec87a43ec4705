//! The versions of CamCOPS, and their levels.

use super::choices::Hardening;
use super::value::{Setting, list_choices, one_line};
use anyhow::{Result, bail};
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use toml_edit::Value;

/// What this program can install: a version of CamCOPS with the packages that it asks for, or a hardened level of it, as
/// 2.4.24+1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version(&'static str);

/// Those that this program has been tested with, oldest first.
const KNOWN: &[&str] = include!(concat!(env!("OUT_DIR"), "/versions.rs"));

impl Version {
    /// Those that this program has been tested with, oldest first.
    pub(crate) fn known() -> impl DoubleEndedIterator<Item = Version> {
        KNOWN.iter().map(|version| Version(version))
    }

    /// The one of this name.
    pub(crate) fn named(name: &str) -> Option<Version> {
        Version::known().find(|known| known.as_str() == name)
    }

    /// The newest one.
    pub(crate) fn newest(hardening: Hardening) -> Version {
        let may_be = |version: &Version| hardening == Hardening::Auto || !version.is_hardened();
        Version::known().rfind(may_be).unwrap_or(Version(""))
    }

    /// One that is newer than all of these, by its name.
    pub(crate) fn beyond(name: &str) -> Option<Version> {
        // A few letters for each name that a run ever meets.
        static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
        if !Version::is_beyond(name) {
            return None;
        }
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        let known = names.get(name).copied();
        Some(Version(known.unwrap_or_else(|| {
            let name: &'static str = Box::leak(name.into());
            names.insert(name);
            name
        })))
    }

    /// Whether this program has been tested with it.
    pub(crate) fn is_known(self) -> bool {
        KNOWN.contains(&self.0)
    }

    /// Whether a version of CamCOPS is newer than all of these.
    pub(crate) fn is_beyond(name: &str) -> bool {
        let newest = Version::newest(Hardening::Off);
        list_numbers(name).is_some_and(|numbers| Some(numbers) > list_numbers(newest.as_str()))
    }

    /// The word in `provision.toml`.
    pub(crate) fn as_str(self) -> &'static str {
        self.0
    }

    /// The version that CamCOPS calls itself by.
    pub(crate) fn of_camcops(self) -> &'static str {
        self.0.split('+').next().unwrap_or_default()
    }

    pub(crate) fn is_hardened(self) -> bool {
        self.0.contains('+')
    }
}

/// The numbers of a version as CamCOPS has them.
pub(crate) fn list_numbers(name: &str) -> Option<[u32; 3]> {
    let numbers: Option<Vec<u32>> = name.split('.').map(|number| number.parse().ok()).collect();
    numbers?.try_into().ok()
}

impl Setting for Version {
    fn allowed() -> String {
        list_choices(KNOWN.iter().copied())
    }

    fn read(value: &Value) -> Result<Self> {
        let word = one_line(value)?;
        // A newer one is refused where it is to be installed, unless its packages were found before.
        match Version::named(word).or_else(|| Version::beyond(word)) {
            Some(version) => Ok(version),
            None => bail!("{word:?} is not one of the choices"),
        }
    }

    fn write(&self) -> Value {
        self.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_newer_than_what_it_is_a_level_of() {
        let all: Vec<&str> = Version::known().map(Version::as_str).collect();
        let rank = |name| all.iter().position(|known| *known == name).unwrap();
        assert!(rank("2.4.23") < rank("2.4.24") && rank("2.4.24") < rank("2.4.24+1"), "{all:?}");
        assert!(Version::newest(Hardening::Auto).is_hardened());
        let without = Version::newest(Hardening::Off);
        assert!(!without.is_hardened());
        assert_eq!(Version::newest(Hardening::Auto).of_camcops(), without.as_str());
        let beyond = ["2.4.100", "2.5.0", "3.0.0"];
        assert!(beyond.into_iter().all(Version::is_beyond));
        let others = ["2.4.24", "2.4.9", "2.4.24+1", "2.4", "2.4.100.1", "2.4.x", ""];
        assert!(!others.into_iter().any(Version::is_beyond));
        let newer = Version::beyond("2.4.100").unwrap();
        assert!(!newer.is_known() && newer == Version::read(&"2.4.100".into()).unwrap());
        assert!(Version::beyond("2.4.24+2").is_none() && Version::read(&"2.4.24+2".into()).is_err());
    }
}
