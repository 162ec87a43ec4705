use anyhow::{Result, bail};

/// Doubles `%`, which configparser would take for a reference to another key.
pub fn escape_value(value: &str) -> String {
    value.replace('%', "%%")
}

/// The value of a key that holds one item per line, each on a line of its own.
pub fn join_list<T: AsRef<str>>(items: &[T]) -> String {
    items.iter().map(|item| format!("\n{}", item.as_ref())).collect()
}

/// Says why a value would not come back from the file as it went in.
///
/// Blank lines inside are carried; blanks at either end of a line are not.
pub fn check_value(value: &str) -> Result<()> {
    let mut empty = false;
    for (number, line) in value.split('\n').enumerate() {
        if line.contains(is_line_break) {
            bail!("a line break other than a plain newline can't be kept in camcops.conf");
        }
        if trim_space(line) != line {
            bail!("spaces at the start or the end of a line get lost in camcops.conf");
        }
        if number > 0 && line.starts_with(['#', ';']) {
            bail!("a line that starts with # or ; would be read as a comment in camcops.conf");
        }
        empty = number > 0 && line.is_empty();
    }
    if empty {
        bail!("blank lines at the end of a value get lost in camcops.conf");
    }
    Ok(())
}

pub(super) fn check_key(key: &str) -> Result<()> {
    let odd = key.is_empty()
        || trim_space(key) != key
        || key.starts_with(['#', ';', '['])
        || key.contains(|c| matches!(c, '=' | ':') || is_line_break(c));
    if odd {
        bail!("{key:?} can't be the name of a key in camcops.conf");
    }
    Ok(())
}

pub(super) fn check_section(section: &str) -> Result<()> {
    if section.is_empty() || section.contains(is_line_break) {
        bail!("{section:?} can't be the name of a section in camcops.conf");
    }
    Ok(())
}

pub(super) fn section_header(text: &str) -> Option<&str> {
    let inside = text.strip_prefix('[')?;
    let name = &inside[..inside.rfind(']')?];
    (!name.is_empty()).then_some(name)
}

pub(super) fn leading_space(text: &str) -> &str {
    &text[..text.len() - text.trim_start_matches(is_space).len()]
}

pub(super) fn trim_space(text: &str) -> &str {
    text.trim_matches(is_space)
}

pub(super) fn trim_end(text: &str) -> &str {
    text.trim_end_matches(is_space)
}

/// Python counts four separators as white space that Rust does not.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// Where Python's `splitlines` cuts, which is how CamCOPS gets its lines.
pub(super) fn is_line_break(c: char) -> bool {
    matches!(c, '\n'..='\r' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}')
}
