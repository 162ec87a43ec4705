//! Secrets: read back if they exist, made once, never made again.

use crate::base::error::Exit;
use crate::base::secret::Secret;
use crate::host::Host;
use crate::settings::ReaderAccount;
use anyhow::{Context, Result};
use std::borrow::Cow;
use std::io::Read;

/// No file with a secret is larger.
const LARGEST: u64 = 1 << 16;

/// What stands before the name of an account in the name of its password.
pub(crate) const READONLY_OF: &str = "readonly-";

/// The secrets of a site, by the names that people use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecretName {
    /// The application's database password.
    Database,
    /// The password of the read-only database account.
    Readonly,
    /// The password of a further one.
    ReadonlyOf(String),
    /// The application's broker password.
    Broker,
    /// The monitor's password.
    Monitor,
    /// The secret that signs the session cookies.
    Cookie,
}

impl SecretName {
    /// All that every site can have.
    pub(crate) const ALL: [SecretName; 5] =
        [SecretName::Database, SecretName::Readonly, SecretName::Broker, SecretName::Monitor, SecretName::Cookie];

    /// The name, which is also that of the file that keeps it.
    pub(crate) fn as_str(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            SecretName::Database => "database",
            SecretName::Readonly => "readonly",
            SecretName::ReadonlyOf(user) => return Cow::Owned(format!("{READONLY_OF}{user}")),
            SecretName::Broker => "broker",
            SecretName::Monitor => "monitor",
            SecretName::Cookie => "cookie",
        })
    }

    /// The one of this name.
    pub(crate) fn find(name: &str) -> Option<SecretName> {
        let of_reader = || name.strip_prefix(READONLY_OF).filter(|user| !user.is_empty());
        let known = SecretName::ALL.into_iter().find(|known| known.as_str() == name);
        known.or_else(|| of_reader().map(|user| SecretName::ReadonlyOf(user.to_owned())))
    }

    /// The password of an account that can only read.
    pub(crate) fn of_reader(reader: ReaderAccount<'_>) -> SecretName {
        match reader.is_first {
            true => SecretName::Readonly,
            false => SecretName::ReadonlyOf(reader.user.to_owned()),
        }
    }
}

/// One secret: its value, and where it is kept if this program keeps it.
#[derive(Debug, Clone)]
pub(crate) struct KeptSecret {
    /// The value.
    pub(crate) secret: Secret,
    /// The file that this program keeps it in; none if the administrator's own file holds it.
    pub(crate) kept_in: Option<String>,
}

impl KeptSecret {
    /// Reads a secret back from where it is kept, or makes it.
    pub(crate) fn kept(host: &Host, directory: &str, name: &str) -> Result<KeptSecret> {
        KeptSecret::kept_or(host, directory, name, Secret::generate)
    }

    /// Reads a secret back from where it is kept, or takes it from somewhere else.
    pub(crate) fn kept_or(
        host: &Host,
        directory: &str,
        name: &str,
        otherwise: impl FnOnce() -> Result<Secret>,
    ) -> Result<KeptSecret> {
        match KeptSecret::found(host, directory, name)? {
            Some(key) => Ok(key),
            None => Ok(KeptSecret { secret: otherwise()?, kept_in: Some(format!("{directory}/{name}")) }),
        }
    }

    /// Reads a secret back from where it is kept, if it is there.
    pub(crate) fn found(host: &Host, directory: &str, name: &str) -> Result<Option<KeptSecret>> {
        let path = format!("{directory}/{name}");
        let Some(text) = host.read_text(&path)? else {
            return Ok(None);
        };
        let secret = Secret::checked(text).map_err(|why| {
            Exit::Unusable.because(format!(
                "{} {why}; restore the secret that is in use, or remove the file to have a new one generated",
                host.outside(&path)
            ))
        })?;
        Ok(Some(KeptSecret { secret, kept_in: Some(path) }))
    }

    /// Reads a secret from the administrator's own file.
    pub(crate) fn given(host: &Host, setting: &str, path: &str) -> Result<KeptSecret> {
        let wrong = |what: &str| Exit::Settings.because(format!("{setting}: {} {what}", host.outside(path)));
        let followed = host.followed(path)?;
        let path = followed.as_str();
        let missing = || wrong("does not exist; write the password to it");
        let (entry, mut file) = match host.open_file(path)? {
            Some(opened) => opened,
            None if host.stat(path)?.is_none() => return Err(missing()),
            None => return Err(wrong("is not a regular file")),
        };
        // A file that a flag names is read this once, on the word of whoever runs the command.
        if !setting.starts_with("--") {
            host.refuse_foreign(path, &entry).with_context(|| setting.to_owned())?;
        }
        if entry.mode & 0o007 != 0 {
            return Err(wrong("can be read by everybody; run chmod 600 on it"));
        }
        let mut text = String::new();
        (&mut file).take(LARGEST).read_to_string(&mut text).map_err(|_| wrong("is not UTF-8 text"))?;
        let secret = Secret::checked(text).map_err(|why| wrong(&why.to_string()))?;
        Ok(KeptSecret { secret, kept_in: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::secret::LENGTH;

    #[test]
    fn a_secret_is_long_plain_and_unprinted() {
        let secret = Secret::generate().unwrap();
        assert_eq!(secret.reveal().len(), LENGTH);
        assert!(secret.reveal().bytes().all(|b| b.is_ascii_alphanumeric()));
        assert_ne!(secret, Secret::generate().unwrap());
        assert!(!format!("{secret:?}").contains(secret.reveal()));
    }
}
