//! Secrets: read back if they exist, made once, never made again.

use crate::error::Exit;
use crate::host::Host;
use anyhow::{Context, Result, bail};
use ring::rand::{SecureRandom, SystemRandom};
use std::fmt;
use std::io::Read;
use zeroize::Zeroizing;

/// Generated secrets have only these, so that every file format and every URL can carry them.
const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
/// 62 to the 40th is more than 2 to the 238th.
const LENGTH: usize = 40;

/// No file with a secret is larger.
const LARGEST: u64 = 1 << 16;

/// A password or the like. It is not printed, and its memory is wiped when it goes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a secret over.
    pub fn new(text: String) -> Secret {
        Secret(Zeroizing::new(text))
    }

    /// Takes a line over, with or without its end, if it can be kept in a file of one line.
    pub fn checked(text: String) -> Result<Secret> {
        let text = Zeroizing::new(text);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        if line.is_empty() {
            bail!("is empty");
        }
        if line.chars().any(char::is_control) {
            bail!("has more than one line, or control characters");
        }
        Ok(Secret::new(line.to_owned()))
    }

    /// Makes one.
    pub fn generate() -> Result<Secret> {
        let random = SystemRandom::new();
        let mut text = Zeroizing::new(String::with_capacity(LENGTH));
        while text.len() < LENGTH {
            let mut bytes = Zeroizing::new([0u8; 64]);
            random
                .fill(&mut *bytes)
                .map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
            // Bytes past the last whole multiple of 62 would make some letters likelier.
            for byte in bytes.iter().filter(|byte| **byte < 248) {
                if text.len() < LENGTH {
                    text.push(char::from(ALPHABET[usize::from(byte % 62)]));
                }
            }
        }
        Ok(Secret(text))
    }

    /// The secret itself, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(********)")
    }
}

/// The secrets of a site, by the names that people use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Name {
    /// The application's database password.
    Database,
    /// The password of the database account that only reads.
    Readonly,
    /// The application's broker password.
    Broker,
    /// The monitor's password.
    Monitor,
    /// Signs the session cookies.
    Cookie,
}

impl Name {
    /// All of them.
    pub const ALL: [Name; 5] = [
        Name::Database,
        Name::Readonly,
        Name::Broker,
        Name::Monitor,
        Name::Cookie,
    ];

    /// The name, which is also that of the file that keeps it.
    pub fn as_str(self) -> &'static str {
        match self {
            Name::Database => "database",
            Name::Readonly => "readonly",
            Name::Broker => "broker",
            Name::Monitor => "monitor",
            Name::Cookie => "cookie",
        }
    }
}

/// One secret: its value, and where it is kept if this program keeps it.
#[derive(Debug, Clone)]
pub struct Key {
    /// The value.
    pub secret: Secret,
    /// The file that this program keeps it in; none if the administrator's own file holds it.
    pub kept_in: Option<String>,
}

impl Key {
    /// Reads a secret back from where it is kept, or makes it.
    pub fn kept(host: &Host, directory: &str, name: &str) -> Result<Key> {
        Key::kept_or(host, directory, name, Secret::generate)
    }

    /// Reads a secret back from where it is kept, or takes it from somewhere else.
    pub fn kept_or(
        host: &Host,
        directory: &str,
        name: &str,
        otherwise: impl FnOnce() -> Result<Secret>,
    ) -> Result<Key> {
        match Key::found(host, directory, name)? {
            Some(key) => Ok(key),
            None => Ok(Key {
                secret: otherwise()?,
                kept_in: Some(format!("{directory}/{name}")),
            }),
        }
    }

    /// Reads a secret back from where it is kept, if it is there.
    pub fn found(host: &Host, directory: &str, name: &str) -> Result<Option<Key>> {
        let path = format!("{directory}/{name}");
        let Some(text) = host.read_text(&path)? else {
            return Ok(None);
        };
        let secret = Secret::checked(text).map_err(|why| {
            Exit::Unusable.because(format!(
                "{} {why}; put the secret that is in use back, or remove the file to have a new one made",
                host.outside(&path)
            ))
        })?;
        Ok(Some(Key {
            secret,
            kept_in: Some(path),
        }))
    }

    /// Reads a secret from the administrator's own file.
    pub fn given(host: &Host, setting: &str, path: &str) -> Result<Key> {
        let wrong = |what: &str| {
            Exit::Settings.because(format!("{setting}: {} {what}", host.outside(path)))
        };
        let followed = host.followed(path)?;
        let path = followed.as_str();
        let missing = || wrong("does not exist; write the password into it");
        let (entry, mut file) = match host.open_file(path)? {
            Some(opened) => opened,
            None if host.look(path)?.is_none() => return Err(missing()),
            None => return Err(wrong("is not a regular file")),
        };
        // A file that a flag names is read this once, on the word of whoever runs the command.
        if !setting.starts_with("--") {
            host.refuse_foreign(path, &entry)
                .with_context(|| setting.to_owned())?;
        }
        if entry.mode & 0o007 != 0 {
            return Err(wrong("can be read by everybody; chmod 600 it"));
        }
        let mut text = String::new();
        (&mut file)
            .take(LARGEST)
            .read_to_string(&mut text)
            .map_err(|_| wrong("is not UTF-8 text"))?;
        let secret = Secret::checked(text).map_err(|why| wrong(&why.to_string()))?;
        Ok(Key {
            secret,
            kept_in: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_long_plain_and_unprinted() {
        let secret = Secret::generate().unwrap();
        assert_eq!(secret.reveal().len(), LENGTH);
        assert!(secret.reveal().bytes().all(|b| b.is_ascii_alphanumeric()));
        assert_ne!(secret, Secret::generate().unwrap());
        assert!(!format!("{secret:?}").contains(secret.reveal()));
    }
}
