//! What may be shown of CamCOPS's configuration: everything but the values of its secret keys.

pub(crate) use crate::camcops_conf::mask_secrets;
use crate::camcops_conf::{self, masked_value};
use crate::settings;
use serde::Serialize;
use std::fmt;

/// A key that stays as the administrator set it, with its values fit for showing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct KeptSetting {
    pub(crate) path: String,
    /// The section.
    pub section: String,
    /// The key.
    pub key: String,
    /// What is there; nothing if the administrator took the key out.
    pub(crate) yours: Option<String>,
    /// What the settings would make it.
    pub(crate) settings: Option<String>,
}

impl KeptSetting {
    /// From what the merge found.
    pub(crate) fn new(path: &str, kept: &camcops_conf::KeptKey) -> KeptSetting {
        let shown = |value: &Option<String>| value.as_ref().map(|value| masked_value(&kept.section, &kept.key, value));
        KeptSetting {
            path: path.to_owned(),
            section: kept.section.clone(),
            key: kept.key.clone(),
            yours: shown(&kept.theirs),
            settings: shown(&kept.ours),
        }
    }
}

/// The value of a setting as it may be shown; those in `[config]` as the keys of CamCOPS that they become.
pub(crate) fn shown_setting(name: &str, value: &str) -> String {
    match &settings::split_name(name)[..] {
        [config, section, key] if config == "config" && !key.ends_with(settings::BY_FILE) => {
            masked_value(section, key, value)
        }
        _ => value.to_owned(),
    }
}

impl fmt::Display for KeptSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one_line = |value: &Option<String>| match value {
            Some(value) if value.contains("********") => "(secret, not shown)".to_owned(),
            Some(value) => format!("{:?}", value.replace('\n', " ").trim()),
            None => "(not there)".to_owned(),
        };
        write!(
            f,
            "{} [{}] {} = {} set by you; the settings would make it {}",
            self.path,
            self.section,
            self.key,
            one_line(&self.yours),
            one_line(&self.settings)
        )
    }
}
