use super::ini::Ini;
use super::mask::masked_value;
use anyhow::{Result, anyhow};
use ring::pbkdf2::{self, PBKDF2_HMAC_SHA256};
use ring::rand::{SecureRandom, SystemRandom};
use std::fmt::Write as _;
use std::num::NonZeroU32;

/// What stands in the place of a secret begins with this.
const MARK: &str = "sealed:";
const SALT: usize = 16;
const SUM: usize = 32;
/// Enough to make guessing slow, and nothing that anybody notices where a file has five secrets.
const ROUNDS: NonZeroU32 = match NonZeroU32::new(20_000) {
    Some(rounds) => rounds,
    None => NonZeroU32::MIN,
};

/// The same text with a salted sum in the place of each secret: later one can tell whether a value was this one, and not
/// what it was.
pub(crate) fn seal_values(text: &str) -> Result<String> {
    let mut file = Ini::parse(text);
    for entry in file.entries() {
        if masked_value(&entry.section, &entry.key, &entry.value) != entry.value {
            let seal = seal_value(&entry.value)?;
            file.set(&entry.section, &entry.key, &seal)?;
        }
    }
    Ok(file.to_string())
}

/// A sealed text with those secrets that are still the same in a later one. The others stay sealed: they differ from
/// whatever is there now.
pub(crate) fn unseal_values(text: &str, later: &str) -> String {
    let (mut file, later) = (Ini::parse(text), Ini::parse(later));
    for entry in file.entries() {
        let Some(value) = later.get(&entry.section, &entry.key) else {
            continue;
        };
        if seal_fits(&entry.value, &value) {
            file.put(&entry.section, &entry.key, &value, &[]);
        }
    }
    file.to_string()
}

/// Whether a text holds anything that is masked where it is shown.
pub(crate) fn holds_secrets(text: &str) -> bool {
    let is_private_key = text.contains("PRIVATE KEY-----");
    is_private_key
        || Ini::parse(text).entries().iter().any(|entry| {
            let is_sealed = split_seal(&entry.value).is_some();
            !is_sealed && masked_value(&entry.section, &entry.key, &entry.value) != entry.value
        })
}

fn seal_value(value: &str) -> Result<String> {
    let mut salt = [0; SALT];
    SystemRandom::new().fill(&mut salt).map_err(|_| anyhow!("the system provides no random numbers"))?;
    let mut sum = [0; SUM];
    pbkdf2::derive(PBKDF2_HMAC_SHA256, ROUNDS, &salt, value.as_bytes(), &mut sum);
    Ok(format!("{MARK}{}:{}", encode_hex(&salt), encode_hex(&sum)))
}

fn seal_fits(sealed: &str, value: &str) -> bool {
    let Some((salt, sum)) = split_seal(sealed) else {
        return false;
    };
    pbkdf2::verify(PBKDF2_HMAC_SHA256, ROUNDS, &salt, value.as_bytes(), &sum).is_ok()
}

/// Salt and sum.
fn split_seal(sealed: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let (salt, sum) = sealed.strip_prefix(MARK)?.split_once(':')?;
    let (salt, sum) = (decode_hex(salt)?, decode_hex(sum)?);
    (salt.len() == SALT && sum.len() == SUM).then_some((salt, sum))
}

fn encode_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn decode_hex(hex: &str) -> Option<Vec<u8>> {
    let pairs = hex.as_bytes().chunks(2);
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "[site]\n# a remark\nDB_URL = mysql://a:hush1@b/c\nLANGUAGE = en_GB\nEMAIL_HOST_PASSWORD = hush%%2\n\n[recipient:x]\nREDCAP_API_KEY = hush3\n";

    #[test]
    fn what_is_sealed_tells_no_secret_and_knows_it_again() {
        let kept = seal_values(FILE).unwrap();
        assert!(!kept.contains("hush"), "{kept}");
        assert!(holds_secrets(FILE) && !holds_secrets(&kept));
        assert_eq!(unseal_values(&kept, FILE), FILE);
        assert_ne!(kept, seal_values(FILE).unwrap());
        // What has changed since is not what it was.
        let later = FILE.replace("hush3", "hush4").replace("en_GB", "da_DK");
        let again = unseal_values(&kept, &later);
        let (again, kept) = (Ini::parse(&again), Ini::parse(&kept));
        let value = |file: &Ini, section: &str, key: &str| file.get(section, key).unwrap();
        let key = ("recipient:x", "REDCAP_API_KEY");
        assert_eq!(value(&again, key.0, key.1), value(&kept, key.0, key.1));
        assert_eq!(value(&again, "site", "EMAIL_HOST_PASSWORD"), "hush%%2");
        assert_eq!(value(&again, "site", "LANGUAGE"), "en_GB");
    }
}
