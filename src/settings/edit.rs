//! Changing one key in an administrator's file.
//!
//! The text is cut and joined at the places that the parser reports, instead of being written
//! anew from a document, so that everything else stays byte for byte, even the ends of lines.

mod table;

use std::collections::BTreeMap;
use std::ops::Range;

use toml_edit::{Document, Item, Table, TableLike, Value};

use super::Settings;
use super::key::{GivenValue, Target, join_name, split_name};
use super::load::syntax_problem;
use super::problem::{Problem, line_of};

/// Sets (`Some`) or unsets (`None`) one key in the text of a settings file.
///
/// The value is read as `--set` reads it. Comments, order and blank lines stay. A key that does
/// not exist can still be unset where the text has it, so that a mistake can be taken out. A section is unset with all its
/// keys.
pub(crate) fn edit_text(text: &str, key: &str, value: Option<&str>) -> Result<String, Problem> {
    let document = parse_document(text)?;
    let path = split_name(key);
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let found = find_value(&document, &path);
    match value {
        Some(value) => {
            let target = Target::find(&path)?;
            let wanted = as_we_write(&target, GivenValue::Text(value))?;
            let current = found.as_ref().map(|found| as_we_write(&target, GivenValue::Toml(found.value)));
            if current == Some(Ok(wanted.clone())) {
                return Ok(text.into());
            }
            let after = match found {
                Some(found) => replace_range(text, found.place, &wanted),
                None => put_value(&document, &path, &wanted)?,
            };
            confirm_edit(&document, after, &path, Some(wanted))
        }
        None => match found {
            Some(found) => confirm_edit(&document, remove_value(text, &found), &path, None),
            None if table::is_one(&document, &path) => table::remove_whole(text, &path),
            None => Target::find(&path).map(|_| text.into()),
        },
    }
}

fn parse_document(text: &str) -> Result<Document<&str>, Problem> {
    Document::parse(text).map_err(|error| {
        let problem = syntax_problem(&error, text);
        let line = line_of(text, error.span().map_or(text.len(), |span| span.start));
        Problem { what: format!("line {line}: {}", problem.what), ..problem }
    })
}

fn as_we_write(target: &Target, given: GivenValue) -> Result<String, Problem> {
    let mut settings = Settings::default();
    target.read(&mut settings, given)?;
    Ok(target.write(&settings).map_or_else(String::new, |value| value.to_string()))
}

/// A key and its value as they stand in the text.
struct Position<'a> {
    value: &'a Value,
    place: Range<usize>,
    key: Range<usize>,
    inline: bool,
}

fn find_value<'a>(document: &'a Document<&str>, path: &[&str]) -> Option<Position<'a>> {
    let (key, parents) = path.split_last()?;
    let mut table: &dyn TableLike = document.as_table();
    let mut inline = false;
    for name in parents {
        let item = table.get(name)?;
        inline |= item.is_value();
        table = item.as_table_like()?;
    }
    let (key, item) = table.get_key_value(key)?;
    let value = item.as_value().filter(|value| !value.is_inline_table())?;
    Some(Position { value, place: value.span()?, key: key.span()?, inline })
}

fn remove_value(text: &str, found: &Position) -> String {
    if !found.inline {
        let lines = line_start(text, found.key.start)..line_end(text, found.place.end);
        return replace_range(text, lines, "");
    }
    // The entry of an inline table goes with the comma behind it, or else the one before it.
    let start = text[..found.key.start].rfind(['{', ',']).unwrap_or(0);
    let behind = &text[found.place.end..];
    let blanks = behind.len() - behind.trim_start().len();
    let comma_behind = behind[blanks..].starts_with(',');
    let comma_before = text[start..].starts_with(',');
    let end = found.place.end + if comma_behind { blanks + 1 } else { 0 };
    let start = if comma_before && !comma_behind { start } else { start + 1 };
    replace_range(text, start..end, "")
}

/// The text with a key that it does not have yet.
fn put_value(document: &Document<&str>, path: &[&str], wanted: &str) -> Result<String, Problem> {
    let text = document.raw();
    let (key, parents) = path.split_last().unwrap_or((&"", &[]));

    let mut nearest: &dyn TableLike = document.as_table();
    let mut home: (&dyn TableLike, Range<usize>, usize) = (nearest, 0..0, 0);
    let mut inline = false;
    for (depth, name) in parents.iter().enumerate() {
        let Some(item) = nearest.get(name) else { break };
        let not_a_section = || Problem::new(join_name(&path[..=depth]), "is not a section in this file");
        nearest = item.as_table_like().ok_or_else(not_a_section)?;
        let has_its_own_place = match item {
            Item::Table(table) => !table.is_implicit(),
            _ => !nearest.is_dotted(),
        };
        if has_its_own_place {
            home = (nearest, item.span().unwrap_or_default(), depth + 1);
            inline = item.is_value();
        }
    }
    let (home, place, depth) = home;
    let line = format!("{} = {wanted}", join_name(&path[depth..]));

    Ok(if inline {
        match values_end(home) {
            Some(end) => replace_range(text, end..end, &format!(", {line}")),
            None => replace_range(text, place, &format!("{{ {line} }}")),
        }
    } else if nearest.is_dotted() {
        let end = values_end(nearest).unwrap_or(text.len());
        insert_line(text, line_end(text, end), &line)
    } else if depth == parents.len() {
        let end = values_end(home).unwrap_or(place.end);
        let twin = commented_out(document, home, place, key);
        insert_line(text, twin.unwrap_or_else(|| line_end(text, end)), &line)
    } else {
        let blank = if text.trim().is_empty() { "" } else { line_break(text) };
        let header = format!("{blank}[{}]{}", join_name(parents), line_break(text));
        insert_line(text, text.len(), &format!("{header}{} = {wanted}", join_name(&[key])))
    })
}

/// Where the last value of a table ends.
fn values_end(table: &dyn TableLike) -> Option<usize> {
    let values = table.get_values();
    values.iter().filter_map(|(_, value)| Some(value.span()?.end)).max()
}

/// The end of the line in a section where the key stands as a comment, as in the example file.
fn commented_out(document: &Document<&str>, section: &dyn TableLike, header: Range<usize>, key: &str) -> Option<usize> {
    let text = document.raw();
    let mut headers = Vec::new();
    header_starts(document.as_table(), &mut headers);
    let next = headers.into_iter().filter(|start| *start > header.start).min();
    let values = section.get_values();
    let in_value = |at: usize| values.iter().filter_map(|(_, value)| value.span()).any(|span| span.contains(&at));

    let mut start = line_end(text, header.end);
    let mut found = None;
    while start < next.unwrap_or(text.len()) {
        let end = line_end(text, start);
        let comment = text[start..end].trim_start().strip_prefix('#').map(str::trim_start);
        let rest = comment.and_then(|comment| comment.strip_prefix(key));
        if rest.is_some_and(|rest| rest.trim_start().starts_with('=')) && !in_value(start) {
            found = Some(end);
        }
        start = end;
    }
    found
}

fn header_starts(table: &Table, starts: &mut Vec<usize>) {
    for (_, item) in table {
        let tables: Vec<&Table> = match item {
            Item::Table(table) => vec![table],
            Item::ArrayOfTables(tables) => tables.iter().collect(),
            _ => continue,
        };
        for table in tables {
            if !table.is_implicit() {
                starts.extend(table.span().map(|span| span.start));
            }
            header_starts(table, starts);
        }
    }
}

/// Hands out a changed text only if it differs in nothing but the key.
fn confirm_edit(
    before: &Document<&str>,
    after: String,
    path: &[&str],
    wanted: Option<String>,
) -> Result<String, Problem> {
    let mut expected = all_values(before.as_table());
    let key: Vec<String> = path.iter().map(|part| (*part).to_owned()).collect();
    match wanted {
        Some(value) => expected.insert(key, value),
        None => expected.remove(&key),
    };
    match Document::parse(after.as_str()) {
        Ok(document) if all_values(document.as_table()) == expected => Ok(after),
        _ => Err(only_an_editor(path)),
    }
}

fn only_an_editor(path: &[&str]) -> Problem {
    Problem::new(join_name(path), "is written in a way that only an editor can change: `camcops-provision config edit`")
}

fn all_values(table: &dyn TableLike) -> BTreeMap<Vec<String>, String> {
    fn collect_values(table: &dyn TableLike, path: &mut Vec<String>, found: &mut BTreeMap<Vec<String>, String>) {
        for (name, item) in table.iter() {
            path.push(name.into());
            match item.as_table_like() {
                Some(table) => collect_values(table, path, found),
                None => _ = found.insert(path.clone(), item.to_string()),
            }
            path.pop();
        }
    }
    let mut found = BTreeMap::new();
    collect_values(table, &mut Vec::new(), &mut found);
    found
}

fn replace_range(text: &str, place: Range<usize>, new: &str) -> String {
    [&text[..place.start], new, &text[place.end..]].concat()
}

fn insert_line(text: &str, at: usize, line: &str) -> String {
    let end = line_break(text);
    let before = &text[..at];
    let missing = if before.is_empty() || before.ends_with('\n') { "" } else { end };
    [before, missing, line, end, &text[at..]].concat()
}

fn line_break(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}

fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}

fn line_end(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |newline| at + newline + 1)
}

#[cfg(test)]
mod tests;
