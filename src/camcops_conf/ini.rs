use std::fmt;

use anyhow::Result;

use super::value::{
    check_key, check_section, check_value, is_line_break, is_space, leading_space, section_header, trim_end, trim_space,
};

/// An INI file, read as Python's configparser with its default options reads
/// it, and kept byte for byte.
///
/// Key names ignore case, section names don't. `#` and `;` start a comment only
/// at the start of a line. A line that is indented deeper than the key above it
/// belongs to that key's value, blank lines inside included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ini {
    lines: Vec<IniLine>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct IniLine {
    text: String,
    end: String,
}

/// A key and its value as they stand in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IniEntry {
    /// The section's name, without brackets.
    pub section: String,
    /// The key as it is written.
    pub key: String,
    /// The value, lines joined by `\n`, `%` still doubled.
    pub value: String,
    line: usize,
    more: Vec<usize>,
}

impl IniEntry {
    fn is(&self, section: &str, key: &str) -> bool {
        self.section == section && self.key.to_lowercase() == key.to_lowercase()
    }

    fn last_line(&self) -> usize {
        self.more.last().copied().unwrap_or(self.line)
    }
}

/// Something for which CamCOPS refuses the whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IniProblem {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong, without the line's text, which may be a secret.
    pub(crate) reason: &'static str,
}

impl fmt::Display for IniProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

/// What a line is to configparser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineKind {
    Blank,
    Comment,
    Header,
    Key,
    More,
    Garbage,
}

struct IniScan {
    roles: Vec<LineKind>,
    headers: Vec<(String, usize)>,
    entries: Vec<IniEntry>,
    problems: Vec<IniProblem>,
}

impl Ini {
    /// Reads any text; what configparser would refuse is listed by [`Ini::problems`].
    pub fn parse(text: &str) -> Self {
        let mut lines = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (text, end) = match rest.find(is_line_break) {
                Some(at) if rest[at..].starts_with("\r\n") => (&rest[..at], "\r\n"),
                Some(at) => {
                    let width = rest[at..].chars().next().map_or(0, char::len_utf8);
                    (&rest[..at], &rest[at..at + width])
                }
                None => (rest, ""),
            };
            rest = &rest[text.len() + end.len()..];
            lines.push(IniLine { text: text.to_owned(), end: end.to_owned() });
        }
        Self { lines }
    }

    /// The value of a key as configparser joins it, `%` not interpolated.
    ///
    /// Of a repeated key it is the last. `[DEFAULT]` is a section like any other.
    pub fn get(&self, section: &str, key: &str) -> Option<String> {
        let entries = self.scan().entries;
        entries.into_iter().rfind(|entry| entry.is(section, key)).map(|entry| entry.value)
    }

    /// Every key in the order of the file.
    pub fn entries(&self) -> Vec<IniEntry> {
        self.scan().entries
    }

    /// Every section in the order of the file.
    pub fn sections(&self) -> Vec<String> {
        self.scan().headers.into_iter().map(|(name, _)| name).collect()
    }

    /// Why CamCOPS would refuse the file; empty if it would not.
    pub fn problems(&self) -> Vec<IniProblem> {
        self.scan().problems
    }

    /// Gives a key a value, so that [`Ini::get`] returns exactly that value.
    ///
    /// The first line goes beside the key, the others below it (see [`super::join_list`]).
    /// Comments, order and indentation stay. A repeated key becomes one.
    pub fn set(&mut self, section: &str, key: &str, value: &str) -> Result<()> {
        check_section(section)?;
        check_key(key)?;
        check_value(value)?;
        self.put(section, key, value, &[]);
        Ok(())
    }

    /// Takes a key out, wherever it stands; false if it was not there.
    pub fn remove(&mut self, section: &str, key: &str) -> bool {
        let found: Vec<IniEntry> = self.matching(section, key);
        self.delete(found.iter().flat_map(|entry| self.lines_of(entry)).collect());
        !found.is_empty()
    }

    /// Like `set` for names and values that come out of a parsed file; a new key
    /// gets the given comment lines above it.
    pub(super) fn put(&mut self, section: &str, key: &str, value: &str, comments: &[String]) {
        let mut found = self.matching(section, key);
        let Some(last) = found.pop() else {
            return self.insert(section, key, value, comments);
        };
        if last.value == value && found.is_empty() {
            return;
        }
        self.rewrite(&last, value);
        // Earlier ones stand above the rewritten lines, so their numbers still hold.
        self.delete(found.iter().flat_map(|entry| self.lines_of(entry)).collect());
    }

    /// The comment lines directly above a key.
    pub(super) fn comments_above(&self, section: &str, key: &str) -> Vec<String> {
        let lines = self.comment_lines_above(section, key);
        lines.map(|at| self.lines[at].text.clone()).collect()
    }

    /// Takes out a key with the comment lines directly above it.
    pub(super) fn remove_with_comments(&mut self, section: &str, key: &str) {
        let comments = self.comment_lines_above(section, key);
        let blank = comments.start.checked_sub(1).filter(|_| !comments.is_empty());
        let blank = blank.filter(|at| self.scan().roles[*at] == LineKind::Blank);
        let found = self.matching(section, key);
        let mut lines: Vec<usize> = comments.chain(blank).collect();
        lines.extend(found.iter().flat_map(|entry| self.lines_of(entry)));
        self.delete(lines);
    }

    /// Each line with its end, what it is, and the key whose value it holds.
    pub(super) fn roles(&self) -> Vec<(&str, &str, LineKind, Option<IniEntry>)> {
        let scan = self.scan();
        let mut owners: Vec<Option<IniEntry>> = vec![None; self.lines.len()];
        for entry in &scan.entries {
            for at in std::iter::once(&entry.line).chain(&entry.more) {
                owners[*at] = Some(entry.clone());
            }
        }
        self.lines
            .iter()
            .zip(scan.roles)
            .zip(owners)
            .map(|((line, role), owner)| (line.text.as_str(), line.end.as_str(), role, owner))
            .collect()
    }

    fn matching(&self, section: &str, key: &str) -> Vec<IniEntry> {
        let mut entries = self.entries();
        entries.retain(|entry| entry.is(section, key));
        entries
    }

    fn comment_lines_above(&self, section: &str, key: &str) -> std::ops::Range<usize> {
        let scan = self.scan();
        let Some(entry) = scan.entries.iter().rfind(|entry| entry.is(section, key)) else {
            return 0..0;
        };
        let above = scan.roles[..entry.line].iter().rev();
        entry.line - above.take_while(|role| **role == LineKind::Comment).count()..entry.line
    }

    /// The lines of an entry and the blank ones between them, not its comments.
    fn lines_of(&self, entry: &IniEntry) -> Vec<usize> {
        let blank = |at: &usize| trim_space(&self.lines[*at].text).is_empty();
        (entry.line..=entry.last_line())
            .filter(|at| *at == entry.line || entry.more.contains(at) || blank(at))
            .collect()
    }

    fn delete(&mut self, lines: Vec<usize>) {
        let mut at = 0;
        self.lines.retain(|_| {
            at += 1;
            !lines.contains(&(at - 1))
        });
    }

    fn rewrite(&mut self, entry: &IniEntry, value: &str) {
        let text = &self.lines[entry.line].text;
        let margin = leading_space(text);
        let inner = entry.more.first().map(|at| leading_space(&self.lines[*at].text));
        let inner = inner
            .filter(|inner| inner.chars().count() > margin.chars().count())
            .map_or_else(|| format!("{margin}    "), str::to_owned);

        // A key line always has a delimiter, or it would not be one.
        let after = text.find(['=', ':']).map_or(text.len(), |at| at + 1);
        let gap = leading_space(&text[after..]);
        let spaced = text[..after - 1].ends_with(is_space) && trim_space(&text[after..]).is_empty();
        let gap = if spaced { " " } else { gap };
        let mut values = value.split('\n');
        let first = values.next().unwrap_or_default();
        let first = trim_end(&format!("{}{gap}{first}", &text[..after])).to_owned();

        let end = self.line_end();
        let old_end = std::mem::take(&mut self.lines[entry.line].end);
        let mut new = vec![first];
        new.extend(values.map(|line| if line.is_empty() { String::new() } else { format!("{inner}{line}") }));
        let mut new: Vec<IniLine> = new.into_iter().map(|text| IniLine { text, end: end.clone() }).collect();
        if let [.., last] = &mut new[..] {
            last.end = old_end;
        }
        let gone = self.lines_of(entry);
        self.delete(gone);
        self.lines.splice(entry.line..entry.line, new);
        self.close_lines();
    }

    fn insert(&mut self, section: &str, key: &str, value: &str, comments: &[String]) {
        let scan = self.scan();
        let Some(header) = scan.headers.iter().rposition(|(name, _)| name == section) else {
            self.append_section(section);
            return self.insert(section, key, value, comments);
        };
        let start = scan.headers[header].1;
        let next = scan.headers.get(header + 1).map(|(_, line)| *line);
        let body = start..next.unwrap_or(self.lines.len());
        let last_of = |wanted: &[LineKind]| body.clone().rfind(|at| wanted.contains(&scan.roles[*at])).unwrap_or(start);
        let place = last_of(&[LineKind::Header, LineKind::Key, LineKind::More, LineKind::Garbage]) + 1;

        // As deep as its neighbours: deeper than the one above, it would be read
        // as part of that value; less deep than the next header, it would swallow it.
        let above = leading_space(&self.lines[last_of(&[LineKind::Header, LineKind::Key, LineKind::Garbage])].text);
        let below = next.map_or("", |at| leading_space(&self.lines[at].text));
        let margin = if below.chars().count() > above.chars().count() { below } else { above };

        let mut new = Vec::new();
        if !comments.is_empty() {
            let stands_apart = trim_space(&self.lines[place - 1].text).is_empty();
            new.extend((!stands_apart).then(String::new));
            new.extend(comments.iter().map(|comment| format!("{margin}{}", trim_space(comment))));
        }
        for (number, line) in value.split('\n').enumerate() {
            new.push(match (number, line.is_empty()) {
                (0, true) => format!("{margin}{key} ="),
                (0, false) => format!("{margin}{key} = {line}"),
                (_, true) => String::new(),
                (_, false) => format!("{margin}    {line}"),
            });
        }
        let end = self.line_end();
        self.lines[place - 1].end = match std::mem::take(&mut self.lines[place - 1].end) {
            none if none.is_empty() => end.clone(),
            some => some,
        };
        let new = new.into_iter().map(|text| IniLine { text, end: end.clone() });
        self.lines.splice(place..place, new);
    }

    fn append_section(&mut self, section: &str) {
        let end = self.line_end();
        if let Some(last) = self.lines.last_mut() {
            if last.end.is_empty() {
                last.end.clone_from(&end);
            }
            if !trim_space(&last.text).is_empty() {
                self.lines.push(IniLine { text: String::new(), end: end.clone() });
            }
        }
        self.lines.push(IniLine { text: format!("[{section}]"), end });
    }

    /// Only the last line of a file may lack its end.
    fn close_lines(&mut self) {
        let end = self.line_end();
        if let [before @ .., _] = &mut self.lines[..] {
            for line in before.iter_mut().filter(|line| line.end.is_empty()) {
                line.end.clone_from(&end);
            }
        }
    }

    fn line_end(&self) -> String {
        let crlf = self.lines.first().is_some_and(|line| line.end == "\r\n");
        if crlf { "\r\n" } else { "\n" }.to_owned()
    }

    fn scan(&self) -> IniScan {
        let mut scan = IniScan { roles: vec![], headers: vec![], entries: vec![], problems: vec![] };
        let mut level = 0;
        let mut open: Option<Vec<String>> = None;
        let mut seen = std::collections::HashSet::new();

        for (at, line) in self.lines.iter().enumerate() {
            let text = trim_space(&line.text);
            let role = if text.starts_with(['#', ';']) {
                LineKind::Comment
            } else if text.is_empty() {
                if let Some(value) = &mut open {
                    value.push(String::new());
                }
                LineKind::Blank
            } else {
                let depth = leading_space(&line.text).chars().count();
                match (&mut open, depth > level) {
                    (Some(value), true) => {
                        value.push(text.to_owned());
                        if let Some(entry) = scan.entries.last_mut() {
                            entry.more.push(at);
                        }
                        LineKind::More
                    }
                    _ => {
                        level = depth;
                        scan.structure(at, text, &mut open, &mut seen)
                    }
                }
            };
            scan.roles.push(role);
        }
        scan.close(&mut open);
        scan
    }
}

impl IniScan {
    /// A line that is not part of a value: header, key, or neither.
    fn structure(
        &mut self,
        at: usize,
        text: &str,
        open: &mut Option<Vec<String>>,
        seen: &mut std::collections::HashSet<(String, Option<String>)>,
    ) -> LineKind {
        let mut refuse = |reason| self.problems.push(IniProblem { line: at + 1, reason });
        if let Some(name) = section_header(text) {
            if !seen.insert((name.to_owned(), None)) && name != "DEFAULT" {
                refuse("the section occurs twice in the file");
            }
            self.close(open);
            self.headers.push((name.to_owned(), at));
            return LineKind::Header;
        }
        let Some((section, _)) = self.headers.last() else {
            refuse("a line before the first section");
            return LineKind::Garbage;
        };
        let Some(delimiter) = text.find(['=', ':']) else {
            refuse("neither a section, a key with a value, nor the next line of one");
            return LineKind::Garbage;
        };
        let key = trim_end(&text[..delimiter]);
        if key.is_empty() {
            refuse("a value without a key");
            self.close(open);
            return LineKind::Garbage;
        }
        if !seen.insert((section.clone(), Some(key.to_lowercase()))) {
            refuse("the key occurs twice in the section");
        }
        let section = section.clone();
        self.close(open);
        *open = Some(vec![trim_space(&text[delimiter + 1..]).to_owned()]);
        let (key, value, more) = (key.to_owned(), String::new(), vec![]);
        self.entries.push(IniEntry { section, key, value, line: at, more });
        LineKind::Key
    }

    fn close(&mut self, open: &mut Option<Vec<String>>) {
        if let (Some(value), Some(entry)) = (open.take(), self.entries.last_mut()) {
            entry.value = trim_end(&value.join("\n")).to_owned();
        }
    }
}

impl fmt::Display for Ini {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| write!(f, "{}{}", line.text, line.end))
    }
}
