//! Small things about text.

use anyhow::{Context, Result};
use std::fmt::Write as _;
use std::path::Path;
use std::time::SystemTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// As a part of a URL.
pub(crate) fn encode_percent(text: &str) -> String {
    text.bytes().fold(String::new(), |mut url, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                url.push(char::from(byte));
            }
            other => {
                let _ = write!(url, "%{other:02X}");
            }
        }
        url
    })
}

/// Whether a file of settings has nothing but comments and empty lines.
pub(crate) fn sets_nothing(text: &[u8]) -> bool {
    text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).all(|line| line.is_empty() || line.starts_with(b"#"))
}

/// A moment as documents have it, in whole seconds.
pub(crate) fn format_time(moment: SystemTime) -> Option<String> {
    OffsetDateTime::from(moment).replace_nanosecond(0).ok()?.format(&Rfc3339).ok()
}

/// The whole path of a file that an argument names.
pub(crate) fn absolute_path(file: &Path) -> Result<String> {
    let path = std::path::absolute(file)?;
    Ok(path.to_str().context("the name of a file is not UTF-8")?.to_owned())
}

/// A text that somebody else wrote, as one harmless line: what moves a cursor, or turns the direction of writing, is shown
/// as a mark.
pub(crate) fn show_plain(text: &str, most: usize) -> String {
    let is_odd = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let mut plain: String = text.chars().take(most).map(|c| if is_odd(c) { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(most).is_some() {
        plain.push('…');
    }
    plain
}

/// The SHA-256 of bytes, as `sha256sum` writes it.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    encode_hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

/// Lower-case hexadecimal digits.
pub(crate) fn encode_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A path as a word of a command line.
pub(crate) fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:,".contains(c);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_is_one_harmless_line() {
        assert_eq!(show_plain("a\u{1b}[2Jb\n\u{9b}c\u{202e}d é", 20), "a\u{fffd}[2Jb\u{fffd}\u{fffd}c\u{fffd}d é");
        assert_eq!(show_plain("ééé", 2), "éé…");
    }
}
