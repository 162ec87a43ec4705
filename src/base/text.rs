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

/// The columns that a text takes on a terminal: escape sequences take none.
fn columns_of(text: &str) -> usize {
    let mut columns = 0;
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => drop(rest.by_ref().find(char::is_ascii_alphabetic)),
            _ => columns += 1,
        }
    }
    columns
}

/// Breaks lines that are wider than a terminal between words. What goes on stands below the last column of its line, or a
/// little to the right of its beginning where there are no columns.
pub(crate) fn wrap_lines(text: &str, width: usize) -> String {
    text.split_inclusive('\n').map(|line| wrap_line(line, width)).collect()
}

/// What is left of a line that goes on, where its column is kept.
const LEAST_ROOM: usize = 10;

fn wrap_line(line: &str, width: usize) -> String {
    if columns_of(line.trim_end()) <= width {
        return line.to_owned();
    }
    let indent = hanging_indent(line).filter(|indent| indent + LEAST_ROOM <= width).unwrap_or_else(|| {
        let begin = line.len() - line.trim_start().len();
        (begin + 2).min(width / 2)
    });
    let (mut wrapped, mut column) = (String::new(), 0);
    for word in line.trim_end().split_inclusive(' ') {
        let columns = columns_of(word.trim_end());
        if column > indent && column + columns > width {
            wrapped.truncate(wrapped.trim_end().len());
            wrapped.push('\n');
            wrapped.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        }
        wrapped.push_str(word);
        column += columns_of(word);
    }
    wrapped.push('\n');
    wrapped
}

/// Where the last column of a line of a table begins: behind the last gap of two blanks or more in its first half.
fn hanging_indent(line: &str) -> Option<usize> {
    const FIRST: usize = 40;
    let (mut column, mut blanks, mut found) = (0, 0, None);
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => drop(rest.by_ref().find(char::is_ascii_alphabetic)),
            _ if column > FIRST => break,
            ' ' => {
                blanks += 1;
                column += 1;
            }
            _ => {
                if blanks > 1 {
                    found = Some(column);
                }
                (blanks, column) = (0, column + 1);
            }
        }
    }
    found
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
    fn what_is_too_wide_goes_on_below_its_column() {
        let row = "failed   disk                  /var: 12 of 20000 MiB free\n         why: a full disk stops it\n";
        assert_eq!(wrap_lines(row, 80), row);
        assert_eq!(
            wrap_lines("failed   disk                  /var: 12 of 20000 MiB free\nnext\n", 50),
            "failed   disk                  /var: 12 of 20000\n                               MiB free\nnext\n"
        );
        let colour = "\u{1b}[31mfailed\u{1b}[0m   one two three\n";
        assert_eq!(wrap_lines(colour, 22), colour);
        assert_eq!(wrap_lines(colour, 19), "\u{1b}[31mfailed\u{1b}[0m   one two\n         three\n");
        // A word that fits nowhere is not torn.
        assert_eq!(
            wrap_lines("+ create /a/very/long/path (because)\n", 16),
            "+ create\n  /a/very/long/path\n  (because)\n"
        );
    }

    #[test]
    fn what_others_wrote_is_one_harmless_line() {
        assert_eq!(show_plain("a\u{1b}[2Jb\n\u{9b}c\u{202e}d é", 20), "a\u{fffd}[2Jb\u{fffd}\u{fffd}c\u{fffd}d é");
        assert_eq!(show_plain("ééé", 2), "éé…");
    }
}
