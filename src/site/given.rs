//! Secrets of CamCOPS's own configuration: given by files, as `config.site.EMAIL_HOST_PASSWORD_file`, and told of where
//! one stands openly in the settings.

use super::Site;
use crate::base::error::Exit;
use crate::base::secret::Secret;
use crate::camcops_conf::{self, masked_value};
use crate::host::Host;
use crate::host::secrets::KeptSecret;
use crate::settings::{BY_FILE, ConfigValue, Origin, split_name};
use anyhow::Result;
use std::collections::BTreeMap;
use std::fmt;

/// The secrets that files give, by section and key of camcops.conf.
pub(crate) type GivenSecrets = BTreeMap<(String, String), Secret>;

/// A secret that stands in the settings themselves.
#[derive(Debug)]
pub(crate) struct OpenSecret {
    key: String,
    origin: Origin,
}

impl OpenSecret {
    /// The command that puts it where nobody sees it.
    pub(crate) fn remedy(&self) -> String {
        format!("camcops-provision config set {}", self.key)
    }
}

impl fmt::Display for OpenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: this secret is in plain text in {}", self.key, self.origin)
    }
}

/// The section and key of camcops.conf that a setting is about, if it may be given by a file.
pub(crate) fn secret_key(setting: &str) -> Option<(String, String)> {
    let path = split_name(setting);
    let [config, section, key] = path.as_slice() else {
        return None;
    };
    let may_be = config == "config" && !key.ends_with(BY_FILE) && camcops_conf::may_be_secret(section, key);
    may_be.then(|| (section.clone(), key.clone()))
}

/// Whether a setting with this value would show a secret.
pub(crate) fn is_open(setting: &str, value: &str) -> bool {
    secret_key(setting).is_some_and(|(section, key)| masked_value(&section, &key, value) != value)
}

/// Where this program keeps a secret that it was told.
pub(crate) fn kept_in(secrets: &str, section: &str, key: &str) -> String {
    format!("{secrets}/{section}.{key}")
}

impl Site {
    /// Refuses files for what is no secret, what is given twice, and secrets on the command line.
    pub(crate) fn check_secrets(&self) -> Result<()> {
        let mut refused = Vec::new();
        for (section, values) in &self.settings().config {
            for key in values.keys() {
                let Some(base) = key.strip_suffix(BY_FILE) else {
                    continue;
                };
                let name = format!("config.{section}.{base}");
                if !camcops_conf::may_be_secret(section, base) {
                    refused.push(format!(
                        "{name}{BY_FILE}: only a secret is given by a file, but {base} is not one: set {name} itself"
                    ));
                } else if values.contains_key(base) {
                    refused.push(format!(
                        "{name} is set, and {name}{BY_FILE} too: `camcops-provision config unset` one of them"
                    ));
                }
            }
        }
        if !refused.is_empty() {
            return Err(Exit::Settings.because(refused.join("\n")));
        }
        let shown = self.open_secrets();
        match shown.iter().find(|open| open.origin == Origin::Flag) {
            Some(open) => Err(on_command_line(&open.key)),
            None => Ok(()),
        }
    }

    /// The secrets that stand in the settings themselves.
    pub(crate) fn open_secrets(&self) -> Vec<OpenSecret> {
        let config = &self.settings().config;
        let entries = self.resolved.entries().filter(|entry| entry.private);
        entries
            .filter(|entry| {
                let path = split_name(&entry.key);
                let [_, section, key] = path.as_slice() else {
                    return false;
                };
                let value = config.get(section).and_then(|values| values.get(key));
                match value {
                    Some(ConfigValue::Line(line)) => is_open(&entry.key, line),
                    Some(ConfigValue::List(lines)) => is_open(&entry.key, &lines.join("\n")),
                    None => false,
                }
            })
            .map(|entry| OpenSecret { origin: entry.origin.clone(), key: entry.key })
            .collect()
    }

    /// The paths of the files that give secrets.
    pub(crate) fn secret_files(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        let all = self.settings().config.iter();
        all.flat_map(|(section, values)| {
            values.iter().filter_map(|(key, value)| match value {
                ConfigValue::Line(path) => Some((section.as_str(), key.strip_suffix(BY_FILE)?, path.as_str())),
                ConfigValue::List(_) => None,
            })
        })
    }

    /// Reads the secrets that files give.
    pub(crate) fn given_secrets(&self, host: &Host) -> Result<GivenSecrets> {
        let mut given = GivenSecrets::new();
        for (section, key, path) in self.secret_files() {
            let setting = format!("config.{section}.{key}{BY_FILE}");
            let secret = KeptSecret::given(host, &setting, path)?.secret;
            given.insert((section.to_owned(), key.to_owned()), secret);
        }
        Ok(given)
    }
}

/// What to do instead of giving a secret as an argument.
pub(crate) fn on_command_line(setting: &str) -> anyhow::Error {
    Exit::Usage.because(format!(
        "{setting} is a secret, and command lines are visible to all users; nothing was changed: `camcops-provision config set {setting}` asks for it, or use `--from-file FILE` (- for standard input)"
    ))
}

/// Puts a secret into a file for root alone; gives the path.
pub(crate) fn keep_secret(host: &Host, secrets: &str, (section, key): (&str, &str), secret: &Secret) -> Result<String> {
    for (end, _) in secrets.match_indices('/').skip(1) {
        if host.look_into(&secrets[..end])?.is_none() {
            let mode = if secrets[..end].ends_with("secrets") { 0o700 } else { 0o755 };
            host.make_directory(&secrets[..end], Some((0, 0)), mode)?;
        }
    }
    if host.look_into(secrets)?.is_none() {
        host.make_directory(secrets, Some((0, 0)), 0o700)?;
    }
    let path = kept_in(secrets, section, key);
    let line = zeroize::Zeroizing::new(format!("{}\n", secret.reveal()));
    host.put_file(&path, line.as_bytes(), Some((0, 0)), 0o600)?;
    Ok(path)
}
