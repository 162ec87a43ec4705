//! Settings that CamCOPS would silently ignore.

use super::Site;
use crate::camcops_conf::{self, ValueKind};
use crate::settings::{BY_FILE, ConfigValue};

/// What CamCOPS reads as true or false.
const BOOLEANS: [&str; 8] = ["true", "false", "yes", "no", "on", "off", "1", "0"];

impl Site {
    /// What CamCOPS would silently ignore under `[config]`: keys that it does not know, values that it can't read.
    pub(crate) fn config_warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> = self
            .open_secrets()
            .iter()
            .map(|open| format!("{open}; `{}` stores it in a file that only root can read", open.remedy()))
            .collect();
        for (section, values) in &self.settings().config {
            for (key, value) in values {
                let name = format!("config.{section}.{key}");
                if key.ends_with(BY_FILE) {
                    continue;
                }
                let Some(known) = camcops_conf::keys::find_key(section, key) else {
                    let nearest = camcops_conf::keys::nearest_key(section, key)
                        .map(|known| format!("; nearest: {}", known.name))
                        .unwrap_or_default();
                    warnings.push(format!("{name}: CamCOPS does not know this key and ignores it{nearest}"));
                    continue;
                };
                let ConfigValue::Line(line) = value else {
                    continue;
                };
                // The value itself may be a secret that went to the wrong key.
                let needed = match known.kind {
                    ValueKind::Int if line.parse::<i64>().is_err() => "a whole number",
                    ValueKind::Bool if !BOOLEANS.contains(&line.to_lowercase().as_str()) => "true or false",
                    _ => continue,
                };
                warnings.push(format!("{name}: is not {needed}; CamCOPS would silently use its default"));
            }
        }
        warnings
    }
}
