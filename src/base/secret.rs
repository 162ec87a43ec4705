//! Secrets in memory: never printed, wiped when they go.

use anyhow::{Result, bail};
use ring::rand::{SecureRandom, SystemRandom};
use std::fmt;
use zeroize::Zeroizing;

/// Generated secrets have only these, so that every file format and every URL can carry them.
pub(crate) const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// 62 to the 40th is more than 2 to the 238th.
pub(crate) const LENGTH: usize = 40;

/// A password or the like. It is not printed, and its memory is wiped when it goes.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a secret over.
    pub(crate) fn new(text: String) -> Secret {
        Secret(Zeroizing::new(text))
    }

    /// Takes a line over, with or without its end, if it can be kept in a file of one line.
    pub(crate) fn checked(text: String) -> Result<Secret> {
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
    pub(crate) fn generate() -> Result<Secret> {
        let random = SystemRandom::new();
        let mut text = Zeroizing::new(String::with_capacity(LENGTH));
        while text.len() < LENGTH {
            let mut bytes = Zeroizing::new([0u8; 64]);
            random.fill(&mut *bytes).map_err(|_| anyhow::anyhow!("the system provides no random numbers"))?;
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
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(********)")
    }
}
