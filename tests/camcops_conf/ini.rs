//! The INI editor, judged by Python's configparser.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex};

use crate::judge::Judge;
use crate::texts::{any_file, any_key, any_text, any_value, good_line, good_value};
use camcops_provision::camcops_conf::{Ini, check_value, escape_value, join_list};
use proptest::prelude::*;
use serde_json::Value;

static PYTHON: LazyLock<Mutex<Judge>> = LazyLock::new(|| Mutex::new(Judge::here("configparser_reader.py")));

type Sections = BTreeMap<String, BTreeMap<String, String>>;

/// What configparser makes of a text; `None` if it refuses it.
fn python(text: &str) -> Option<Value> {
    let answer = PYTHON.lock().unwrap().ask(&text);
    answer.get("sections").is_some().then_some(answer)
}

fn ours(file: &Ini) -> Sections {
    let mut sections = Sections::new();
    for name in file.sections() {
        sections.entry(name).or_default();
    }
    for entry in file.entries() {
        let keys = sections.entry(entry.section).or_default();
        keys.insert(entry.key.to_lowercase(), entry.value);
    }
    let defaults = sections.remove("DEFAULT").unwrap_or_default();
    for keys in sections.values_mut() {
        for (key, value) in &defaults {
            keys.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    sections.insert("DEFAULT".into(), defaults);
    sections
}

fn theirs(answer: &Value) -> Sections {
    serde_json::from_value(answer["sections"].clone()).unwrap()
}

/// Everything in a file but one key.
fn others(file: &Ini, section: &str, key: &str) -> Vec<(String, String, String)> {
    let mut entries = file.entries();
    entries.retain(|e| !(e.section == section && e.key.eq_ignore_ascii_case(key)));
    entries.into_iter().map(|e| (e.section, e.key, e.value)).collect()
}

fn comments(text: &str) -> Vec<String> {
    let mut comments: Vec<String> =
        text.lines().filter(|l| l.trim_start().starts_with(['#', ';'])).map(str::to_owned).collect();
    comments.sort();
    comments
}

proptest! {
    #[test]
    fn any_text_comes_back_byte_for_byte(text in prop_oneof![any_text(), any::<String>()]) {
        prop_assert_eq!(Ini::parse(&text).to_string(), text);
    }

    #[test]
    fn configparser_reads_the_same(text in any_text()) {
        let file = Ini::parse(&text);
        match python(&text) {
            Some(answer) => {
                prop_assert_eq!(file.problems(), vec![]);
                prop_assert_eq!(ours(&file), theirs(&answer));
            }
            None => prop_assert!(!file.problems().is_empty(), "configparser refuses it"),
        }
    }

    #[test]
    fn a_set_value_is_read_back(text in any_file(), (section, key) in any_key(), value in any_value()) {
        let mut file = Ini::parse(&text);
        let done = file.set(section, key, &value);
        prop_assert_eq!(done.is_ok(), check_value(&value).is_ok());
        if done.is_err() {
            prop_assert_eq!(file.to_string(), text);
            return Ok(());
        }
        prop_assert_eq!(file.get(section, key), Some(value.clone()));
        let answer = python(&file.to_string());
        prop_assert!(answer.is_some(), "configparser refuses {:?}", file.to_string());
        let read = theirs(&answer.unwrap());
        prop_assert_eq!(&read[section][&key.to_lowercase()], &value);
        prop_assert_eq!(read, ours(&file));
    }

    #[test]
    fn a_value_that_can_not_be_carried_is_refused_with_reason(value in any_value()) {
        let text = format!("[site]\nKEY = {}\n", value.replace('\n', "\n    "));
        let carried = python(&text).is_some_and(|answer| {
            let keys = &theirs(&answer)["site"];
            keys.len() == 1 && keys.get("key") == Some(&value)
        });
        prop_assert_eq!(check_value(&value).is_ok(), carried);
    }

    #[test]
    fn an_escaped_value_is_interpolated_to_itself(value in good_value()) {
        let mut file = Ini::parse("");
        file.set("site", "KEY", &escape_value(&value)).unwrap();
        let answer = python(&file.to_string()).unwrap();
        prop_assert_eq!(answer["read"]["site"]["key"].as_str(), Some(value.as_str()));
    }

    #[test]
    fn set_keeps_everything_else(text in any_file(), (section, key) in any_key(), value in good_value()) {
        let mut file = Ini::parse(&text);
        let before = others(&file, section, key);
        let notes = comments(&text);
        file.set(section, key, &value).unwrap();
        let after = Ini::parse(&file.to_string());
        prop_assert_eq!(others(&after, section, key), before);
        prop_assert_eq!(after.get(section, key), Some(value.clone()));
        if !text.contains(['\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}']) {
            prop_assert_eq!(comments(&file.to_string()), notes);
        }
        let once = file.to_string();
        file.set(section, key, &value).unwrap();
        prop_assert_eq!(file.to_string(), once);
    }

    #[test]
    fn remove_keeps_everything_else(text in any_text(), (section, key) in any_key()) {
        let mut file = Ini::parse(&text);
        let before = others(&file, section, key);
        let there = file.get(section, key).is_some();
        prop_assert_eq!(file.remove(section, key), there);
        let after = Ini::parse(&file.to_string());
        prop_assert_eq!(after.get(section, key), None);
        prop_assert_eq!(others(&after, section, key), before);
    }

    #[test]
    fn set_mends_a_repeated_key(text in any_text(), (section, key) in any_key(), value in good_value()) {
        let mut file = Ini::parse(&text);
        file.set(section, key, &value).unwrap();
        let again = Ini::parse(&file.to_string());
        prop_assert_eq!(again.get(section, key), Some(value));
        let same = |e: &camcops_provision::camcops_conf::IniEntry| e.section == section && e.key.eq_ignore_ascii_case(key);
        prop_assert_eq!(again.entries().iter().filter(|e| same(e)).count(), 1);
    }

    #[test]
    fn a_list_keeps_its_items(mut items in prop::collection::vec(good_line(), 1..5)) {
        items.push("last".into());
        let value = join_list(&items);
        let mut file = Ini::parse("");
        file.set("site", "KEY", &value).unwrap();
        let got = file.get("site", "KEY").unwrap();
        prop_assert_eq!(got.split('\n').skip(1).collect::<Vec<_>>(), items);
    }
}

const FILE: &str = "\
# top
[site]
  ; about A
  A = 1
  LIST =
\t\t\t# inside
\t\t\tx
\t\t\ty

# about the server
[server]
B: 2";

fn edited(edit: impl FnOnce(&mut Ini)) -> String {
    let mut file = Ini::parse(FILE);
    edit(&mut file);
    file.to_string()
}

#[test]
fn set_follows_the_style_of_the_file() {
    let text = edited(|file| {
        file.set("site", "a", "one").unwrap();
        file.set("site", "LIST", &join_list(&["p", "q", "r"])).unwrap();
        file.set("server", "B", "two\nlines").unwrap();
    });
    let expected = FILE
        .replace("A = 1", "A = one")
        .replace("LIST =\n\t\t\t# inside\n\t\t\tx\n\t\t\ty\n", "LIST =\n\t\t\tp\n\t\t\tq\n\t\t\tr\n\t\t\t# inside\n")
        .replace("B: 2", "B: two\n    lines");
    assert_eq!(text, expected);
}

#[test]
fn a_new_key_goes_before_the_blank_lines_at_the_end_of_its_section() {
    let text = edited(|file| file.set("site", "NEW", "n").unwrap());
    assert_eq!(text, FILE.replace("\t\t\ty\n", "\t\t\ty\n  NEW = n\n"));
}

#[test]
fn a_new_section_goes_to_the_end() {
    let text = edited(|file| file.set("recipient:x", "PUSH", "True").unwrap());
    assert_eq!(text, format!("{FILE}\n\n[recipient:x]\nPUSH = True\n"));
}

#[test]
fn problems_name_the_line() {
    let file = Ini::parse("x\n[site]\nA = 1\nA = 2\nnonsense\n= 3\n[site]\n");
    let lines: Vec<usize> = file.problems().iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [1, 4, 5, 6, 7]);
}

#[test]
fn names_that_would_be_read_otherwise_are_refused() {
    let mut file = Ini::parse("");
    for key in ["", " A", "#A", ";A", "[A", "A=B", "A:B", "A\nB", "A\u{2028}"] {
        assert!(file.set("site", key, "v").is_err(), "{key:?}");
    }
    for section in ["", "a\nb", "a\u{85}"] {
        assert!(file.set(section, "A", "v").is_err(), "{section:?}");
    }
    assert_eq!(file.to_string(), "");
}
