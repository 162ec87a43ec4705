//! Every capability has a row in capabilities.toml, with tests that are there, or with what is missing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

use std::fs;
use std::path::Path;
use toml_edit::{DocumentMut, Item, Table};

fn read(path: &str) -> Option<String> {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).ok()
}

/// Whether a test has this name in a source.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let begins = |line: &&str| line.starts_with(&format!("fn {name}("));
    let Some(at) = lines.iter().position(begins) else { return false };
    lines[..at].iter().rev().take_while(|line| line.starts_with("#[")).any(|line| *line == "#[test]")
}

/// Whether what a row names is there.
fn is_there(named: &str) -> bool {
    if let Some(case) = named.strip_prefix("case: ") {
        return case.starts_with("tests/") && case.ends_with(".toml") && read(case).is_some();
    }
    let Some((place, name)) = named.rsplit_once("::") else { return false };
    let file = match place.strip_prefix("unit: ") {
        Some(file) => file.to_owned(),
        None => format!("tests/{}.rs", place.replace("::", "/")),
    };
    read(&file).is_some_and(|source| has_test(&source, name))
}

/// What is wrong with a row.
fn complaints(id: &str, row: &Table) -> Vec<String> {
    let text = |key: &str| row.get(key).and_then(Item::as_str).unwrap_or_default();
    let tests: Vec<&str> =
        row.get("tests").and_then(Item::as_array).into_iter().flatten().filter_map(|one| one.as_str()).collect();
    let unknown = row.iter().map(|(key, _)| key).filter(|key| !["what", "tests", "open", "not"].contains(key));
    let mut wrong: Vec<String> = unknown.map(|key| format!("{id}: {key}?")).collect();
    if text("what").is_empty() {
        wrong.push(format!("{id}: it does not say what it is"));
    }
    if tests.is_empty() && text("open").is_empty() && text("not").is_empty() {
        wrong.push(format!("{id}: it has no test, and does not say why"));
    }
    wrong.extend(tests.iter().filter(|named| !is_there(named)).map(|named| format!("{id}: there is no {named}")));
    wrong
}

#[test]
fn every_row_has_its_tests_or_says_what_is_missing() {
    let table: DocumentMut = read("tests/capabilities.toml").unwrap().parse().unwrap();
    let count = table["count"].as_table().unwrap().iter();
    let expected: Vec<String> = count
        .flat_map(|(letter, most)| (1..=most.as_integer().unwrap()).map(move |number| format!("{letter}{number:02}")))
        .collect();
    let rows: Vec<(&str, &Table)> = table.iter().skip(1).map(|(id, row)| (id, row.as_table().unwrap())).collect();
    assert_eq!(rows.iter().map(|(id, _)| *id).collect::<Vec<_>>(), expected);
    let wrong: Vec<String> = rows.iter().flat_map(|(id, row)| complaints(id, row)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let of = |key: &str| rows.iter().filter(|(_, row)| row.contains_key(key)).count();
    eprintln!("{} capabilities, of which {} are open and {} are not done", rows.len(), of("open"), of("not"));
}

#[test]
fn what_is_made_up_is_found() {
    let of = |text: &str| complaints("X01", text.parse::<DocumentMut>().unwrap().as_table());
    let mine = "capabilities::what_is_made_up_is_found";
    assert_eq!(of(&format!("what = 'x'\ntests = ['{mine}', 'case: tests/golden/default.toml']")), [""; 0]);
    for made_up in [
        "capabilities::no_such_test",
        // A function that is no test.
        "capabilities::complaints",
        "no_such_file::what_is_made_up_is_found",
        "unit: src/lib.rs::no_such_test",
        "case: tests/cases/apt/no-such-case.toml",
        "what_is_made_up_is_found",
    ] {
        assert_eq!(of(&format!("what = 'x'\ntests = ['{made_up}']")), [format!("X01: there is no {made_up}")]);
    }
    assert!("[A01]\n[A01]".parse::<DocumentMut>().is_err(), "an id that stands twice");
    assert_eq!(of("what = 'x'").len(), 1);
    assert_eq!(of("open = 'x'").len(), 1);
    assert_eq!(of("what = 'x'\nopne = 'y'").len(), 2);
}
