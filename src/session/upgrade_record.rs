//! What is remembered of the last upgrade of an instance: from what to what, how far it came, and the way back.
//!
//! The settings say which version is wanted, and `install` converges to that; this only says which release is kept for a
//! way back, and what has to be brought back with it.

use crate::base::error::Exit;
use crate::host::Host;
use crate::layout;
use crate::resource::Resource;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The file beside the journal.
const FILE: &str = "upgrade.json";

/// How far an upgrade came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum UpgradePhase {
    /// The settings ask for the new version, or are about to.
    Switching,
    /// The new version works.
    Done,
    /// It is being undone: the settings ask for the old version once the tables are the old ones.
    GoingBack,
}

/// One side of an upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Side {
    pub(crate) version: String,
    pub(crate) release: String,
}

/// The last upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UpgradeRecord {
    pub(crate) phase: UpgradePhase,
    pub(crate) from: Side,
    pub(crate) to: Side,
    /// The dump of the database from before, where there was anything to dump.
    pub(crate) dump: Option<String>,
    /// The revision of the tables from before.
    pub(crate) revision: String,
    /// Whether the tables are changed: then the old release can't work with the new ones.
    pub(crate) migrates: bool,
    /// A sum over each table right after the migration, before anybody could write: what differs from it is new.
    pub(crate) sums: Option<BTreeMap<String, String>>,
}

/// Where it is remembered.
pub(crate) fn record_path(instance: &str) -> String {
    layout::path_beside_journal(instance, FILE)
}

/// What is remembered; nothing where nothing was ever upgraded.
pub(crate) fn read_record(host: &Host, instance: &str) -> Result<Option<UpgradeRecord>> {
    let path = record_path(instance);
    let Some(text) = host.read_text(&path)? else {
        return Ok(None);
    };
    let upgrade = serde_json::from_str(&text).map_err(|why| {
        Exit::Unusable.because(format!(
            "can't use {}: {why}; a newer version of camcops-provision may have written it; move it away (then rollback is impossible)",
            host.outside(&path)
        ))
    })?;
    Ok(Some(upgrade))
}

/// Remembers it for good.
pub(crate) fn write_record(host: &Host, instance: &str, upgrade: &UpgradeRecord) -> Result<()> {
    let text = serde_json::to_string_pretty(upgrade)? + "\n";
    host.put_file(&record_path(instance), text.as_bytes(), Some((0, 0)), 0o600)
}

/// Forgets it: there is no way back any more.
pub(crate) fn forget_record(host: &Host, instance: &str) -> Result<()> {
    host.remove_file(&record_path(instance))
}

/// The releases that an upgrade or its way back needs.
pub(crate) fn kept_resources(host: &Host, instance: &str) -> Result<Vec<Resource>> {
    let Some(upgrade) = read_record(host, instance)? else {
        return Ok(Vec::new());
    };
    let sides = [upgrade.from, upgrade.to].into_iter();
    Ok(sides.map(|side| Resource::Release(side.release)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_read_back() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join("var/lib/camcops-provision/camcops")).unwrap();
        let host = Host::staged(home.path()).unwrap();
        assert_eq!(read_record(&host, "camcops").unwrap(), None);
        let side = |name: &str| Side { version: name.into(), release: format!("{name}-py3.11") };
        let upgrade = UpgradeRecord {
            phase: UpgradePhase::Switching,
            from: side("2.4.23"),
            to: side("2.4.24"),
            dump: None,
            revision: "0086".into(),
            migrates: true,
            sums: Some(BTreeMap::from([("patient".into(), "17".into())])),
        };
        write_record(&host, "camcops", &upgrade).unwrap();
        assert_eq!(read_record(&host, "camcops").unwrap(), Some(upgrade));
        let kept = kept_resources(&host, "camcops").unwrap();
        assert_eq!(kept.len(), 2);
        forget_record(&host, "camcops").unwrap();
        forget_record(&host, "camcops").unwrap();
        assert_eq!(read_record(&host, "camcops").unwrap(), None);
    }
}
