use super::ini::{Ini, LineKind};
use super::keys::{self, ValueKind};
use super::value::{leading_space, trim_space};

const MASK: &str = "********";

/// Its comments speak of passwords and hold none.
const OURS: &str = include_str!("../../templates/camcops.conf.hbs");

/// Words in the name of an unknown key that make its value a secret.
const TELLING: [&str; 8] = ["PASS", "PWD", "SECRET", "TOKEN", "API_KEY", "APIKEY", "PRIVATE_KEY", "CREDENTIAL"];

/// The same text without secrets, for diffs and messages.
///
/// Masked are the values of secret keys, also where they are commented out or
/// misspelt, what follows a word like password in a comment that is not ours,
/// and passwords inside URLs, whatever key they belong to.
pub fn mask_secrets(text: &str) -> String {
    let file = Ini::parse(text);
    let mut shown = String::with_capacity(text.len());
    for (text, end, role, owner) in file.roles() {
        let secret = owner.is_some_and(|entry| is_secret(&entry.section, &entry.key));
        let line = match role {
            LineKind::Comment if OURS.lines().any(|ours| ours == text) => text.to_owned(),
            LineKind::Comment => mask_setting(text, false, |_| true),
            LineKind::Key | LineKind::Garbage => mask_setting(text, secret, is_name),
            LineKind::More if secret => mask_rest(text, 0),
            _ => text.to_owned(),
        };
        shown.push_str(&mask_urls(&line));
        shown.push_str(end);
    }
    shown
}

/// The value of one key as it may be shown.
pub fn masked_value(section: &str, key: &str, value: &str) -> String {
    if is_secret(section, key) && !value.is_empty() {
        return MASK.to_owned();
    }
    value.split('\n').map(mask_urls).collect::<Vec<_>>().join("\n")
}

/// Whether a key's value is a secret, or may have one in it as a URL may.
pub fn may_be_secret(section: &str, key: &str) -> bool {
    let is_url = keys::find_key(section, key).is_some_and(|known| known.kind == ValueKind::Url);
    is_url || is_secret(section, key)
}

fn is_secret(section: &str, key: &str) -> bool {
    match keys::find_key(section, key) {
        Some(known) => known.secret,
        None => sounds_secret(key) || keys::nearest_key(section, key).is_some_and(|nearest| nearest.secret),
    }
}

/// For a name whose section is not certain.
fn sounds_secret(name: &str) -> bool {
    let name = name.to_uppercase();
    let known = keys::KEYS.iter().filter(|key| key.name == name);
    let plain = known.clone().any(|key| !key.secret) && !known.clone().any(|key| key.secret);
    !plain && TELLING.iter().any(|word| name.contains(word))
}

/// Masks what follows the name in `name = value`, `# name: value` or `name value`.
fn mask_setting(text: &str, secret: bool, counts: fn(&str) -> bool) -> String {
    let Some(delimiter) = text.find(['=', ':']) else {
        return mask_after_secret_word(text, counts);
    };
    let name = text[..delimiter].trim_matches(|c: char| c.is_whitespace() || "#;".contains(c));
    let words = name.split_whitespace();
    // The value may stand before the delimiter, as in PASSWORD sesame = 1.
    let value_first = words.clone().rev().skip(1).any(|word| counts(word) && sounds_secret(word));
    if !value_first && (secret || words.clone().any(sounds_secret)) {
        mask_rest(text, delimiter + 1)
    } else {
        mask_after_secret_word(text, counts)
    }
}

/// Whether a word is written as names of keys are, and not as prose.
fn is_name(word: &str) -> bool {
    !word.contains(|c: char| c.is_lowercase())
}

fn mask_after_secret_word(text: &str, counts: fn(&str) -> bool) -> String {
    let mut at = 0;
    for word in text.split_inclusive(char::is_whitespace) {
        at += word.len();
        let name = word.trim_matches(|c: char| c.is_whitespace() || "#;".contains(c));
        if counts(name) && sounds_secret(name) {
            return mask_rest(text, at);
        }
    }
    text.to_owned()
}

/// Masks all that is not blank from there on; nothing, if nothing is there.
fn mask_rest(text: &str, from: usize) -> String {
    let rest = &text[from..];
    let blank = leading_space(rest).len();
    if trim_space(rest).is_empty() {
        return text.to_owned();
    }
    format!("{}{MASK}", &text[..from + blank])
}

/// Masks the password before the `@` of a URL, and those among its parameters.
fn mask_urls(text: &str) -> String {
    let Some(scheme) = text.find("://") else {
        return text.to_owned();
    };
    let (before, mut rest) = text.split_at(scheme + 3);
    let mut shown = before.to_owned();
    // A raw password may hold anything, even an @ or a blank: the last @ ends it.
    if let Some(at) = rest.rfind('@') {
        match rest[..at].find(':') {
            Some(colon) => {
                shown.push_str(&rest[..=colon]);
                shown.push_str(MASK);
            }
            None => shown.push_str(&rest[..at]),
        }
        rest = &rest[at..];
    }
    for part in rest.split_inclusive(['?', '&', ' ']) {
        match part.split_once('=') {
            Some((name, value)) if sounds_secret(name) && !value.is_empty() => {
                let end = value.find(['?', '&', ' ']).map_or("", |at| &value[at..]);
                shown.push_str(&format!("{name}={MASK}{end}"));
            }
            _ => shown.push_str(part),
        }
    }
    shown
}
