//! Taking a whole section out of an administrator's file, or the tables of a list.

use super::{all_values, find_value, header_starts, line_end, line_start, only_an_editor, parse_document};
use super::{remove_value, replace_range, values_end};
use crate::settings::config;
use crate::settings::extra::EXTRA;
use crate::settings::key::is_section;
use crate::settings::problem::Problem;
use std::ops::Range;
use toml_edit::{Document, Item, Table};

/// Whether this is the name of a section, or of tables in this text.
pub(super) fn is_one(document: &Document<&str>, path: &[&str]) -> bool {
    match path {
        [section] if is_section(section) => true,
        ["config", section] if config::check_section(section).is_ok() => true,
        _ => path.join(".") == EXTRA || find_item(document, path).is_some_and(|item| !item.is_value()),
    }
}

/// The text without any key of a section. Its header goes too, unless it stands above keys that are commented out.
pub(super) fn remove_whole(text: &str, path: &[&str]) -> Result<String, Problem> {
    let mut after = text.to_owned();
    while let Some(shorter) = remove_first(&after, path)? {
        after = shorter;
    }
    while let Some(header) = empty_header(&parse_document(&after)?, path) {
        after = replace_range(&after, header, "");
    }
    let mut expected = all_values(parse_document(text)?.as_table());
    expected.retain(|key, _| !is_below(key, path));
    match all_values(parse_document(&after)?.as_table()) == expected {
        true => Ok(after),
        false => Err(only_an_editor(path)),
    }
}

fn is_below(key: &[String], path: &[&str]) -> bool {
    key.len() >= path.len() && key.iter().zip(path).all(|(one, other)| one == other)
}

/// The text without the first value of the section that is left; nothing where there is none.
fn remove_first(text: &str, path: &[&str]) -> Result<Option<String>, Problem> {
    let document = parse_document(text)?;
    let values = all_values(document.as_table());
    let Some(key) = values.into_keys().find(|key| is_below(key, path)) else {
        return Ok(None);
    };
    let key: Vec<&str> = key.iter().map(String::as_str).collect();
    if let Some(found) = find_value(&document, &key) {
        return Ok(Some(remove_value(text, &found)));
    }
    let last = find_item(&document, &key).and_then(Item::as_array_of_tables).and_then(|tables| tables.iter().last());
    let place = last.and_then(|table| place_of_table(text, table));
    place.map(|place| Some(replace_range(text, place, ""))).ok_or_else(|| only_an_editor(path))
}

/// The lines from a table's header to its last value.
fn place_of_table(text: &str, table: &Table) -> Option<Range<usize>> {
    let header = table.span()?;
    let end = values_end(table).unwrap_or(header.end).max(header.end);
    Some(line_start(text, header.start)..line_end(text, end))
}

/// The lines of a header below which there is no key any more, with the blank ones behind it.
fn empty_header(document: &Document<&str>, path: &[&str]) -> Option<Range<usize>> {
    let text = document.raw();
    let mut starts = Vec::new();
    header_starts(document.as_table(), &mut starts);
    let mut headers = Vec::new();
    find_headers(find_item(document, path)?, &mut headers);
    headers.into_iter().find_map(|header| {
        let next = starts.iter().copied().filter(|start| *start > header.start).min();
        let lines = line_start(text, header.start)..line_end(text, header.end);
        let rest = &text[lines.end..next.unwrap_or(text.len()).max(lines.end)];
        let is_key = |line: &str| line.trim_start().trim_start_matches(['#', ' ']).contains('=');
        if rest.lines().any(is_key) {
            return None;
        }
        let blank: usize = rest.split_inclusive('\n').take_while(|line| line.trim().is_empty()).map(str::len).sum();
        Some(lines.start..lines.end + blank)
    })
}

/// The headers of tables that have no values.
fn find_headers(item: &Item, found: &mut Vec<Range<usize>>) {
    let Some(table) = item.as_table() else { return };
    if !table.is_implicit() && !table.is_dotted() && table.iter().all(|(_, item)| item.is_table()) {
        found.extend(table.span());
    }
    for (_, item) in table {
        find_headers(item, found);
    }
}

fn find_item<'a>(document: &'a Document<&str>, path: &[&str]) -> Option<&'a Item> {
    path.iter().try_fold(document.as_item(), |item, name| item.as_table_like()?.get(name))
}

#[cfg(test)]
mod tests {
    use crate::settings::edit_text;

    /// Before, section, after.
    const EDITS: &[(&str, &str, &str)] = &[
        ("[web]\npath = '/a'\nworkers = 2\n\n[tls]\ndays = 9\n", "web", "[tls]\ndays = 9\n"),
        (
            "# mine\n[config.site]\nA = 1\n\n[config.\"recipient:b\"]\nP = [\n 'x',\n]\nQ = 2",
            "config.recipient:b",
            "# mine\n[config.site]\nA = 1\n\n",
        ),
        ("[config]\nsite.A = 1\nexport.B = 2\n", "config.site", "[config]\nexport.B = 2\n"),
        ("[config.site]\nA = 1\n[config.export]\nB = 2\n[web]\n", "config", "[web]\n"),
        ("config = { site = { A = 1 }, export.B = 2 }\n", "config.export", "config = { site = { A = 1 } }\n"),
        ("[web]\n# the path\n#path = '/'\nworkers = 2\n[tls]\n", "web", "[web]\n# the path\n#path = '/'\n[tls]\n"),
        ("[web]\nworkers = 2\n\n# The certificate.\n[tls]\n", "web", "# The certificate.\n[tls]\n"),
        ("web.path = '/a'\nweb.workers = 2\ntls.days = 9\n", "web", "tls.days = 9\n"),
        (
            "[[services.extra]]\nname = 'a'\ncommand = ['/x']\n\n[[services.extra]]\nname = 'b'\n[web]\nworkers = 2\n",
            "services.extra",
            "\n[web]\nworkers = 2\n",
        ),
        ("[webb]\nx = 1\n", "webb", ""),
        ("", "web", ""),
        ("[tls]\ndays = 9\n", "config.recipient:b", "[tls]\ndays = 9\n"),
    ];

    #[test]
    fn a_whole_section_goes_and_nothing_else() {
        for (before, section, expected) in EDITS {
            let after = edit_text(before, section, None).unwrap_or_else(|problem| panic!("{before}\n{problem}"));
            assert_eq!(after, *expected, "{before}");
        }
        let why = edit_text("[tls]\ndays = 9\n", "webb", None).unwrap_err();
        assert!(why.to_string().starts_with("webb: unknown key"), "{why}");
    }
}
