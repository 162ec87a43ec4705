//! The administrator's option file: the `[client]` section as the clients of both families read it.

use crate::base::error::Exit;
use crate::base::secret::Secret;
use crate::host::Host;
use anyhow::{Context, Result};
use std::io::Read;
use zeroize::Zeroizing;

/// No option file is larger.
const LARGEST: u64 = 1 << 20;

/// What an option file says about a login.
#[derive(Debug, Clone, Default)]
pub(crate) struct OptionFile {
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
}

/// Reads the administrator's option file.
pub(crate) fn read_file(host: &Host, setting: &str, path: &str) -> Result<OptionFile> {
    let wrong = |what: &str| Exit::Settings.because(format!("{setting}: {} {what}", host.outside(path)));
    let missing = || {
        wrong(
            "does not exist; write [client], user = … and password = … into it, for an account that may create databases and accounts",
        )
    };
    let (entry, file) = match host.open_file(path)? {
        Some(opened) => opened,
        None if host.stat(path)?.is_none() => return Err(missing()),
        None => return Err(wrong("is not a regular file")),
    };
    host.refuse_foreign(path, &entry).with_context(|| setting.to_owned())?;
    if entry.mode & 0o007 != 0 {
        return Err(wrong("can be read by everybody; run chmod 600 on it"));
    }
    let mut text = String::new();
    file.take(LARGEST).read_to_string(&mut text).map_err(|_| wrong("is not UTF-8 text"))?;
    let found = parse_file(&Zeroizing::new(text));
    match &found.user {
        Some(_) => Ok(found),
        None => Err(wrong("names no user in its [client] section")),
    }
}

fn parse_file(text: &str) -> OptionFile {
    let mut found = OptionFile::default();
    let mut ours = false;
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            ours = section.split(']').next().map(str::trim) == Some("client");
            continue;
        }
        if !ours || line.starts_with(['#', ';']) {
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            continue;
        };
        match key.trim() {
            "user" => found.user = Some(strip_quotes(value).to_string()),
            "password" => found.password = Some(Secret::new(strip_quotes(value).to_string())),
            _ => {}
        }
    }
    found
}

/// A value without its quotes or the remark behind it, and with its escapes read.
fn strip_quotes(value: &str) -> Zeroizing<String> {
    let value = value.trim();
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
    let inner = match quote {
        Some(quote) if value.len() > 1 && value.ends_with(quote) => &value[1..value.len() - 1],
        _ => value.split(" #").next().unwrap_or_default().trim_end(),
    };
    let mut text = Zeroizing::new(String::with_capacity(inner.len()));
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            text.push(letter);
            continue;
        }
        match letters.next() {
            Some('b') => text.push('\u{8}'),
            Some('t') => text.push('\t'),
            Some('n') => text.push('\n'),
            Some('r') => text.push('\r'),
            Some('s') => text.push(' '),
            Some(quoted @ ('\\' | '"' | '\'')) => text.push(quoted),
            Some(other) => {
                text.push('\\');
                text.push(other);
            }
            None => text.push('\\'),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_section_is_read() {
        let file = parse_file(
            "[mysqld]\nuser = mysql\n[client]\n# user = nobody\nuser = admin # the one\npassword=\"a#b 'c' \\\\ d\"\n[mysqldump]\npassword = other\n",
        );
        assert_eq!(file.user.as_deref(), Some("admin"));
        assert_eq!(file.password.unwrap().reveal(), r"a#b 'c' \ d");
    }

    #[test]
    fn values_are_read_as_the_clients_do() {
        for (written, meant) in [
            ("plain", "plain"),
            (" 'single' ", "single"),
            (r#""dou\"ble""#, "dou\"ble"),
            (r"a\sb\tc", "a b\tc"),
            ("x#y # remark", "x#y"),
            (r"\q", r"\q"),
            ("", ""),
            ("\"", "\""),
        ] {
            assert_eq!(*strip_quotes(written), meant, "{written}");
        }
    }
}
