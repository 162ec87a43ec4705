//! What a backup says of itself, and the sums of its files.

use crate::archive::pack::PackedSum;
use crate::base::error::Exit;
use crate::drivers::sql::copy::dump::DumpSection;
use crate::history::HistoryMark;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The format that this version writes. A newer one is refused.
pub(crate) const FORMAT: u32 = 1;
/// What the backup says of itself.
pub(crate) const MANIFEST: &str = "manifest.json";
/// The sums of the other files, as `sha256sum` writes and checks them.
pub(crate) const SUMS: &str = "SHA256SUMS";

/// What a backup says of itself. It never has a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BackupManifest {
    pub(crate) format: u32,
    pub(crate) instance: String,
    pub(crate) made_at: String,
    pub(crate) tool: String,
    /// The release of CamCOPS that was in use.
    pub(crate) release: Option<String>,
    /// The server that the database was on.
    pub(crate) server: String,
    pub(crate) machine: String,
    /// The recipient of age that its contents are for.
    pub(crate) encrypted_to: Option<String>,
    /// What it was made before, if that is why there is one: it holds what was to be replaced.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) before: Option<String>,
    /// Where the history stood, so that one that was written anew later is noticed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) history: Option<HistoryMark>,
    pub(crate) database: DumpedDatabase,
    /// Configuration, keys and the site's own files.
    pub(crate) files: Vec<BackedUpFile>,
}

/// The database of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DumpedDatabase {
    pub(crate) name: String,
    pub(crate) file: String,
    pub(crate) revision: Option<String>,
    pub(crate) charset: String,
    pub(crate) collation: String,
    /// How much it took on the server.
    pub(crate) data_bytes: u64,
    /// How much its dump is as text.
    pub(crate) text_bytes: u64,
    /// Each table with the number of its rows.
    pub(crate) tables: BTreeMap<String, u64>,
    /// Where the parts of its dump begin.
    pub(crate) sections: Vec<DumpSection>,
    /// What else is in the database, and not in its dump: views, triggers, routines and events, of which CamCOPS has none.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) left_out: Vec<String>,
}

impl DumpedDatabase {
    /// How many rows all of its tables have.
    pub(crate) fn rows(&self) -> u64 {
        self.tables.values().sum()
    }
}

/// A file that is kept besides the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BackedUpFile {
    pub(crate) path: String,
    pub(crate) bytes: u64,
}

impl BackupManifest {
    /// Reads one, after its sum was found to be right.
    pub(crate) fn parse(text: &[u8], place: &str) -> Result<BackupManifest> {
        let unfit = |what: String| Exit::Unusable.because(format!("{place}/{MANIFEST}: {what}"));
        let whole: serde_json::Value = serde_json::from_slice(text).map_err(|why| unfit(why.to_string()))?;
        match whole["format"].as_u64() {
            Some(format) if format > FORMAT.into() => {
                Err(unfit(format!("a newer version of camcops-provision wrote it (format {format}); use that version")))
            }
            _ => serde_json::from_value(whole).map_err(|why| unfit(why.to_string())),
        }
    }
}

/// The sums as a text.
pub(crate) fn format_sums(files: &[(&str, &PackedSum)]) -> String {
    files.iter().map(|(name, packed)| format!("{}  {name}\n", packed.sha256)).collect()
}

/// Reads the sums, which name each file of a backup once, and nothing else.
pub(crate) fn parse_sums(text: &[u8]) -> Option<BTreeMap<String, String>> {
    let text = std::str::from_utf8(text).ok()?;
    let mut sums = BTreeMap::new();
    for line in text.strip_suffix('\n')?.split('\n') {
        let (sum, name) = line.split_once("  ")?;
        let is_sum = |c: char| matches!(c, '0'..='9' | 'a'..='f');
        let known = [MANIFEST, super::DATABASE, super::FILES, super::DATABASE_ENCRYPTED, super::FILES_ENCRYPTED];
        if sum.len() != 64 || !sum.chars().all(is_sum) || !known.contains(&name) {
            return None;
        }
        if sums.insert(name.to_owned(), sum.to_owned()).is_some() {
            return None;
        }
    }
    let has = |one: &str, other: &str| sums.contains_key(one) != sums.contains_key(other);
    let whole = sums.len() == 3
        && sums.contains_key(MANIFEST)
        && has(super::DATABASE, super::DATABASE_ENCRYPTED)
        && has(super::FILES, super::FILES_ENCRYPTED);
    whole.then_some(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_read_strictly() {
        let packed = PackedSum { bytes: 1, sha256: "0f".repeat(32) };
        let text =
            format_sums(&[(super::super::DATABASE, &packed), (super::super::FILES, &packed), (MANIFEST, &packed)]);
        assert_eq!(parse_sums(text.as_bytes()).unwrap().len(), 3);
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut flipped = text.clone().into_bytes();
                flipped[at] ^= 1 << bit;
                // Another sum is found out when it is compared.
                let other = parse_sums(&flipped);
                let same_sums = other.is_some_and(|sums| sums.values().all(|sum| *sum == packed.sha256));
                assert!(!same_sums, "{}", String::from_utf8_lossy(&flipped));
            }
        }
        assert!(parse_sums(b"").is_none());
        let twice = format!("{text}{text}");
        assert!(parse_sums(twice.as_bytes()).is_none());
    }
}
