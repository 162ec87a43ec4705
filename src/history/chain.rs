//! The lines of the history and what holds them together: each begins with a digest over the one before and itself.

use crate::base::text::sha256_hex;
use crate::host::actor::Actor;
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// What the first line continues.
const ROOT: &str = "camcops-provision history 1";

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum HistoryEvent {
    Begin {
        by: Actor,
        command: Vec<String>,
        version: String,
        /// Another program took over, which tells no end.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        hands_over: bool,
        /// The process, to tell what still runs from what was killed.
        pid: u32,
        /// When that process began, in the kernel's own count.
        started: u64,
    },
    End {
        of: u64,
        exit: u8,
        took_ms: u64,
    },
    /// A power cut or a full disk left a part of a line, which was removed.
    Cut {
        bytes: u64,
    },
    /// An event of a newer version.
    #[serde(other)]
    Unknown,
}

/// One line, without its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HistoryLine {
    pub(crate) number: u64,
    pub(crate) at: String,
    #[serde(flatten)]
    pub(crate) event: HistoryEvent,
}

/// Where the chain stands: the number and the digest of a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HistoryMark {
    pub(crate) number: u64,
    pub(crate) digest: String,
}

impl HistoryMark {
    /// Before the first line.
    pub(crate) fn root() -> HistoryMark {
        HistoryMark { number: 0, digest: sha256_hex(ROOT.as_bytes()) }
    }
}

/// A line as it is written, and where the chain stands after it.
pub(crate) fn format_line(after: &HistoryMark, at: &str, event: HistoryEvent) -> Result<(String, HistoryMark)> {
    let line = HistoryLine { number: after.number + 1, at: at.to_owned(), event };
    let text = serde_json::to_string(&line)?;
    let digest = digest_after(&after.digest, &text);
    Ok((format!("{digest} {text}\n"), HistoryMark { number: line.number, digest }))
}

fn digest_after(before: &str, text: &str) -> String {
    sha256_hex(format!("{before}\n{text}").as_bytes())
}

/// A line with its digest; nothing where it is none.
fn parse_line(line: &str) -> Option<(&str, &str, HistoryLine)> {
    let (digest, text) = line.split_once(' ')?;
    Some((digest, text, serde_json::from_str(text).ok()?))
}

/// The lines that can be read.
pub(crate) fn read_lines(text: &str) -> Vec<HistoryLine> {
    text.lines().filter_map(parse_line).map(|(_, _, line)| line).collect()
}

/// Where the chain stands after the last whole line of a text; nothing where that is no line of ours.
pub(crate) fn last_mark(text: &str) -> Option<HistoryMark> {
    let (digest, _, line) = parse_line(text.lines().next_back()?)?;
    Some(HistoryMark { number: line.number, digest: digest.to_owned() })
}

/// What is wrong with the chain, and with what others remember of it: each with where that is from.
pub(crate) fn find_breaks(text: &str, remembered: &[(HistoryMark, &str)]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut before = HistoryMark::root();
    let mut marks = std::collections::BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        let Some((digest, text, line)) = parse_line(line) else {
            wrong.push(format!("line {} of the file can not be read", at + 1));
            continue;
        };
        let next = before.number + 1;
        let problem = match line.number {
            number if number > next + 1 => Some(format!("entries {next} to {} are missing", number - 1)),
            number if number > next => Some(format!("entry {next} is missing")),
            number if number < next => Some(format!("entry {number} stands after entry {}", before.number)),
            number if digest_after(&before.digest, text) != digest => Some(match before.number {
                0 => format!("entry {number} was changed"),
                last => format!("entry {number} does not continue entry {last}: one of them was changed"),
            }),
            _ => None,
        };
        wrong.extend(problem);
        before = HistoryMark { number: line.number, digest: digest.to_owned() };
        marks.insert(line.number, digest.to_owned());
    }
    if !text.is_empty() && !text.ends_with('\n') {
        wrong.push("the last line is not whole".to_owned());
    }
    let last = marks.last_key_value().map_or(0, |(number, _)| *number);
    let mut lost = 0;
    let mut lost_by = "";
    for (mark, of) in remembered {
        match marks.get(&mark.number) {
            Some(digest) if *digest == mark.digest => {}
            Some(_) => wrong.push(format!("entry {} is not the one that {of} remembers", mark.number)),
            None if mark.number > last && mark.number > lost => (lost, lost_by) = (mark.number, of),
            None => {}
        }
    }
    if lost > 0 {
        wrong.push(format!("the file ends with entry {last}, but {lost_by} remembers entry {lost}"));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(entries: u8) -> (String, Vec<HistoryMark>) {
        let (mut text, mut mark, mut marks) = (String::new(), HistoryMark::root(), Vec::new());
        for exit in 0..entries {
            let event = HistoryEvent::End { of: 1, exit, took_ms: 5 };
            let (line, next) = format_line(&mark, "2026-11-30T10:00:00Z", event).unwrap();
            text.push_str(&line);
            mark = next.clone();
            marks.push(next);
        }
        (text, marks)
    }

    fn lines_of(text: &str) -> Vec<&str> {
        text.split_inclusive('\n').collect()
    }

    #[test]
    fn what_is_whole_has_no_breaks() {
        let (text, marks) = history(5);
        let remembered: Vec<_> = marks.iter().map(|mark| (mark.clone(), "the system's log")).collect();
        assert_eq!(find_breaks(&text, &remembered), [""; 0]);
        assert_eq!(find_breaks("", &[]), [""; 0]);
        assert_eq!(last_mark(&text).as_ref(), marks.last());
        assert_eq!(read_lines(&text).len(), 5);
    }

    #[test]
    fn each_way_to_tamper_is_found() {
        let (text, marks) = history(6);
        let lines = lines_of(&text);
        let without = |gone: &[usize]| -> String {
            lines.iter().enumerate().filter(|(at, _)| !gone.contains(at)).map(|(_, line)| *line).collect()
        };
        assert_eq!(find_breaks(&without(&[2]), &[]), ["entry 3 is missing"]);
        assert_eq!(find_breaks(&without(&[0, 1]), &[]), ["entries 1 to 2 are missing"]);
        let changed = text.replacen("\"exit\":3", "\"exit\":0", 1);
        assert_eq!(find_breaks(&changed, &[]), ["entry 4 does not continue entry 3: one of them was changed"]);
        assert_eq!(find_breaks(&text.replacen("\"exit\":0", "\"exit\":1", 1), &[]), ["entry 1 was changed"]);
        let swapped = [lines[0], lines[2], lines[1], lines[3]].concat();
        let found = find_breaks(&swapped, &[]);
        assert!(found.contains(&"entry 2 stands after entry 3".to_owned()), "{found:?}");
        assert_eq!(find_breaks(&text[..text.len() - 9], &[]).len(), 2);
        assert_eq!(find_breaks(&format!("{text}nonsense\n"), &[]), ["line 7 of the file can not be read"]);
        // What has only lost its end is in itself whole.
        let shorter = lines[..4].concat();
        assert_eq!(find_breaks(&shorter, &[]), [""; 0]);
        let of_log = [(marks[4].clone(), "the system's log"), (marks[5].clone(), "the system's log")];
        assert_eq!(
            find_breaks(&shorter, &of_log),
            ["the file ends with entry 4, but the system's log remembers entry 6"]
        );
    }

    #[test]
    fn a_chain_that_was_made_anew_is_found_by_what_others_remember() {
        let (_, marks) = history(3);
        let (other, _) = {
            let event = HistoryEvent::Cut { bytes: 1 };
            format_line(&HistoryMark::root(), "2026-11-30T10:00:00Z", event).unwrap()
        };
        assert_eq!(find_breaks(&other, &[]), [""; 0]);
        assert_eq!(
            find_breaks(&other, &[(marks[0].clone(), "backup x")]),
            ["entry 1 is not the one that backup x remembers"]
        );
    }
}
