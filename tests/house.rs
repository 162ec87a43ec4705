//! The rules that keep the source open: which room looks where, who writes, prints and decides, and what has a name once.
//!
//! Each rule is a function from a tree of sources to complaints. It is asked of src/, and of small trees that are made up
//! here to show that it complains.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "house/source.rs"]
mod source;

use camcops_provision::settings;
use source::{File, Tree, closing};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

/// The rooms of src/, lowest first: a file looks only into its own room and those of the rows above its own.
const ROOMS: &[&[&str]] = &[
    &["base"],
    &["settings"],
    &["layout"],
    &["camcops_conf"],
    &["certificate"],
    &["resource"],
    &["host"],
    &["journal"],
    &["history"],
    &["site"],
    &["probe"],
    &["archive"],
    &["cli"],
    &["drivers"],
    &["engine", "recipe"],
    &["session"],
    &["backup"],
    &["advisories"],
    &["doctor"],
    &["commands"],
];

/// More files than this that all reach each other can't be changed one by one.
const LARGEST_CIRCLE: usize = 12;

/// What changes files or starts programs: the end of a path that the code names.
const WRITERS: &[&[&str]] = &[
    &["fs", "write"],
    &["fs", "copy"],
    &["fs", "rename"],
    &["fs", "remove_file"],
    &["fs", "remove_dir"],
    &["fs", "remove_dir_all"],
    &["fs", "create_dir"],
    &["fs", "create_dir_all"],
    &["fs", "hard_link"],
    &["fs", "set_permissions"],
    &["fs", "symlink"],
    &["fs", "chown"],
    &["fs", "OpenOptions"],
    &["fs", "DirBuilder"],
    &["File", "create"],
    &["File", "create_new"],
    &["File", "options"],
    &["Command", "new"],
    &["unistd", "fork"],
    &["unistd", "execve"],
    &["unistd", "unlink"],
    &["unistd", "unlinkat"],
    &["unistd", "symlinkat"],
    &["unistd", "linkat"],
    &["unistd", "chown"],
    &["unistd", "fchown"],
    &["unistd", "fchownat"],
    &["stat", "fchmod"],
    &["stat", "fchmodat"],
    &["stat", "mkdirat"],
    &["fcntl", "open"],
    &["fcntl", "openat"],
    &["fcntl", "renameat"],
];

/// What reads from or writes to the terminal.
const STREAMS: &[&[&str]] = &[&["io", "stdin"], &["io", "stdout"], &["io", "stderr"]];
const PRINTING_MACROS: &[&str] = &["print", "println", "eprint", "eprintln", "dbg"];
/// Where that is done.
const TERMINAL: &[&str] = &["base/terminal.rs", "base/prompt.rs"];

/// What prints for others, and the rooms that only give back what is to be printed.
const PRINTERS: &[&[&str]] =
    &[&["terminal", "print"], &["terminal", "print_line"], &["terminal", "print_json"], &["terminal", "note"]];
const SILENT: &[&str] = &[
    "settings",
    "layout",
    "camcops_conf",
    "certificate",
    "resource",
    "journal",
    "site",
    "probe",
    "archive",
    "drivers",
    "recipe",
];

/// What follows a section's name and a dot in the name of a file or a unit.
const FILE_ENDINGS: &[&str] = &["conf", "json", "service", "socket", "target", "txt"];

// What is not as it should be yet may only become better: lower the number with it.
/// Names of types that occur more than once.
const MOST_SHARED_NAMES: usize = 0;
/// Lines of the longest file, without its tests; should be 500.
const LONGEST_FILE: usize = 500;
/// Items that are public outside of the crate.
const MOST_PUBLIC: usize = 400;
/// Functions whose names have one word, of a hundred.
const MOST_ONE_WORD: usize = 35;

static SOURCE: LazyLock<Tree> = LazyLock::new(|| Tree::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")));

fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// The room of a file or of a path into the crate.
fn room_of(module: &[String]) -> &str {
    module.first().map_or("", |room| room)
}

/// Which file looks into which, and the line where it first does.
fn arrows(tree: &Tree) -> BTreeMap<(&str, &str), usize> {
    let mut arrows = BTreeMap::new();
    for (name, file) in &tree.files {
        // These two only name what there is.
        if file.module.is_empty() {
            continue;
        }
        for (line, path) in file.own_paths() {
            if let Some(other) = tree.file_of(&path)
                && other != name
            {
                arrows.entry((name.as_str(), other)).or_insert(line);
            }
        }
    }
    arrows
}

fn find_upward_looks(tree: &Tree) -> Vec<String> {
    let row = |room: &str| ROOMS.iter().position(|row| row.contains(&room));
    let mut complaints = Vec::new();
    for (name, file) in &tree.files {
        if !file.module.is_empty() && row(room_of(&file.module)).is_none() {
            complaints.push(format!("{name} stands in no room of the list"));
        }
    }
    for ((from, to), line) in arrows(tree) {
        let (from_room, to_room) = (room_of(&tree.files[from].module), room_of(&tree.files[to].module));
        if row(from_room) < row(to_room) {
            complaints.push(format!("{from}:{line} looks up into {to}"));
        }
    }
    complaints
}

/// The largest sets whose members all reach each other, of those with more than one member.
fn circles<'a>(arrows: &BTreeSet<(&'a str, &'a str)>) -> Vec<BTreeSet<&'a str>> {
    let mut next: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for &(from, to) in arrows {
        next.entry(from).or_default().push(to);
    }
    let reach = |from: &'a str| {
        let mut reached: BTreeSet<&str> = BTreeSet::new();
        let mut open = vec![from];
        while let Some(at) = open.pop() {
            for &to in next.get(at).into_iter().flatten() {
                if reached.insert(to) {
                    open.push(to);
                }
            }
        }
        reached
    };
    let reached: BTreeMap<&str, BTreeSet<&str>> = next.keys().map(|&from| (from, reach(from))).collect();
    let mut all: BTreeSet<BTreeSet<&str>> = BTreeSet::new();
    for (&from, others) in &reached {
        let is_back = |to: &&str| reached.get(to).is_some_and(|back| back.contains(from));
        let circle: BTreeSet<&str> = others.iter().copied().filter(is_back).collect();
        if circle.len() > 1 {
            all.insert(circle);
        }
    }
    all.into_iter().collect()
}

fn list(names: &BTreeSet<&str>) -> String {
    names.iter().copied().collect::<Vec<_>>().join(", ")
}

fn find_room_circles(tree: &Tree) -> Vec<String> {
    let all = arrows(tree);
    let rooms = all
        .keys()
        .filter_map(|&(from, to)| {
            let (here, there) = (room_of(&tree.files[from].module), room_of(&tree.files[to].module));
            (here != there).then_some((here, there))
        })
        .collect();
    circles(&rooms).iter().map(|circle| format!("these rooms look into each other: {}", list(circle))).collect()
}

fn find_file_circles(tree: &Tree, largest: usize) -> Vec<String> {
    let arrows = arrows(tree).into_keys().collect();
    circles(&arrows)
        .iter()
        .filter(|circle| circle.len() > largest)
        .map(|circle| {
            let number = circle.len();
            format!("{number} files all reach each other: {}", list(circle))
        })
        .collect()
}

/// The lines where the code of a file names a path that ends like one of these.
fn named_paths(file: &File, endings: &[&[&str]]) -> Vec<(usize, String)> {
    let ends =
        |path: &[String], ending: &[&str]| path.len() >= ending.len() && path[path.len() - ending.len()..] == *ending;
    file.paths()
        .into_iter()
        .filter(|(_, path)| {
            // `fs::OpenOptions` is named where it is imported, `OpenOptions::new` where it is used.
            (2..=path.len()).any(|length| endings.iter().any(|ending| ends(&path[..length], ending)))
        })
        .map(|(line, path)| (line, path.join("::")))
        .collect()
}

fn find_writers(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (name, file) in &tree.files {
        if room_of(&file.module) != "host" {
            for (line, path) in named_paths(file, WRITERS) {
                complaints.push(format!("{name}:{line}: {path}: only host/ writes and starts programs"));
            }
        }
    }
    complaints
}

fn find_printers(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (name, file) in &tree.files {
        if !TERMINAL.contains(&&**name) {
            let macros = file
                .tokens
                .windows(2)
                .filter(|words| words[1].text == "!" && PRINTING_MACROS.contains(&&*words[0].text));
            let macros = macros.map(|words| (words[0].line, format!("{}!", words[0].text)));
            for (line, what) in macros.chain(named_paths(file, STREAMS)) {
                complaints.push(format!("{name}:{line}: {what}: only base/terminal prints and asks"));
            }
        }
        if SILENT.contains(&room_of(&file.module)) {
            for (line, path) in named_paths(file, PRINTERS) {
                complaints.push(format!("{name}:{line}: {path}: this room gives back what is to be printed"));
            }
        }
    }
    complaints
}

/// A decision is a [`Wanted`](camcops_provision::resource) that is made.
fn find_deciders(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (name, file) in &tree.files {
        let is_meant = file.own_paths().iter().any(|(_, path)| path[..] == ["resource", "Wanted"]);
        if room_of(&file.module) == "recipe" || !is_meant {
            continue;
        }
        for words in file.tokens.windows(3) {
            let is_made = words[1].text == "Wanted" && words[2].text == "{";
            let is_type = ["struct", "impl", "for", "->"].contains(&&*words[0].text);
            if is_made && !is_type {
                let line = words[1].line;
                complaints.push(format!("{name}:{line}: only recipe/ says what is wanted"));
            }
        }
    }
    complaints
}

/// Words of the form `section.key` in the texts of the program that are no key, no check of `doctor` and no file.
fn find_unknown_keys(tree: &Tree, keys: &BTreeSet<&str>) -> Vec<String> {
    let sections: BTreeSet<&str> = keys.iter().filter_map(|key| key.split('.').next()).collect();
    let checks: BTreeSet<&str> = tree
        .files
        .get("doctor/table.rs")
        .map(|file| file.texts.iter().map(|(_, text)| &**text).collect())
        .unwrap_or_default();
    let mut complaints = Vec::new();
    for (name, file) in &tree.files {
        for (line, text) in &file.texts {
            for word in text.split(|c: char| !is_of_path(c)) {
                // A sentence ends with a full stop.
                let word = word.trim_end_matches('.');
                let Some((section, key)) = word.split_once('.') else {
                    continue;
                };
                let is_key = key.starts_with(|c: char| c.is_ascii_lowercase())
                    && key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
                if is_key
                    && sections.contains(section)
                    && !FILE_ENDINGS.contains(&key)
                    && !keys.contains(word)
                    && !checks.contains(word)
                {
                    complaints.push(format!("{name}:{line}: there is no setting {word}"));
                }
            }
        }
    }
    complaints
}

/// What a name of a setting, a file, a host or an address is made of.
fn is_of_path(c: char) -> bool {
    c.is_alphanumeric() || "._-/@%{}".contains(c)
}

/// The types of the crate by their names: where each is defined.
fn types_by_name(tree: &Tree) -> BTreeMap<&str, Vec<String>> {
    let mut all: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, file) in &tree.files {
        let mut at = 0;
        while at + 1 < file.tokens.len() {
            let (word, next) = (&*file.tokens[at].text, &file.tokens[at + 1]);
            // A type of an `impl` or a `trait` belongs to that.
            if ["impl", "trait"].contains(&word)
                && let Some(end) = end_of_block(file, at)
            {
                if word == "trait" {
                    let place = format!("{name}:{}", next.line);
                    all.entry(&next.text).or_default().push(place);
                }
                at = end;
            } else if ["struct", "enum", "union", "type"].contains(&word) && next.text.starts_with(char::is_uppercase) {
                let place = format!("{name}:{}", next.line);
                all.entry(&next.text).or_default().push(place);
            }
            at += 1;
        }
    }
    all
}

/// The end of an `impl` or a `trait` that begins here; none for a type that is one, `impl Fn()`.
fn end_of_block(file: &File, at: usize) -> Option<usize> {
    let before = at.checked_sub(1).map(|at| &*file.tokens[at].text);
    let begins_item = matches!(before, None | Some("}" | ";" | "]" | ")" | "pub" | "unsafe" | "{"));
    if !begins_item {
        return None;
    }
    let open = (at..file.tokens.len()).find(|&at| ["{", ";"].contains(&&*file.tokens[at].text))?;
    Some(closing(&file.tokens, open))
}

fn find_shared_names(tree: &Tree) -> Vec<String> {
    types_by_name(tree)
        .into_iter()
        .filter(|(_, places)| places.len() > 1)
        .map(|(name, places)| format!("{name} is defined in {}", places.join(", ")))
        .collect()
}

fn find_long_files(tree: &Tree, longest: usize) -> Vec<String> {
    tree.files
        .iter()
        .filter(|(_, file)| file.lines > longest)
        .map(|(name, file)| format!("{name} has {} lines without its tests", file.lines))
        .collect()
}

/// Each `pub` that is not `pub(crate)` or less.
fn find_public(tree: &Tree) -> Vec<String> {
    find_words(tree, |words| words[0] == "pub" && words[1] != "(")
}

fn find_text_errors(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (name, file) in &tree.files {
        for at in 0..file.tokens.len() {
            let word = |at: usize| file.tokens.get(at).map_or("", |token| &*token.text);
            if word(at) != "Result" || word(at + 1) != "<" {
                continue;
            }
            let (mut depth, mut end) = (1, at + 1);
            while depth > 0 {
                end += 1;
                depth += match word(end) {
                    "<" => 1,
                    ">" => -1,
                    _ => 0,
                };
            }
            if word(end - 1) == "String" && word(end - 2) == "," {
                complaints.push(format!("{name}:{}", file.tokens[at].line));
            }
        }
    }
    complaints
}

/// All functions, and those whose names have one word.
fn find_functions(tree: &Tree) -> (usize, Vec<String>) {
    let is_name = |word: &str| word.starts_with(|c: char| c.is_lowercase() || c == '_');
    let all = find_words(tree, |words| words[0] == "fn" && is_name(words[1]));
    let short = find_words(tree, |words| {
        words[0] == "fn" && is_name(words[1]) && !words[1].trim_start_matches('_').contains('_')
    });
    (all.len(), short)
}

fn find_words(tree: &Tree, is_meant: impl Fn([&str; 2]) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (name, file) in &tree.files {
        for words in file.tokens.windows(2) {
            if is_meant([&words[0].text, &words[1].text]) {
                found.push(format!("{name}:{} {}", words[1].line, words[1].text));
            }
        }
    }
    found
}

fn assert_at_most(what: &str, found: &[String], most: usize) {
    let number = found.len();
    assert!(number <= most, "{what}: {number}, and at most {most} may be:\n{}", found.join("\n"));
}

fn setting_names() -> BTreeSet<&'static str> {
    settings::all_keys().iter().map(|key| key.name).collect()
}

#[test]
fn a_file_looks_only_downwards() {
    assert_none(&find_upward_looks(&SOURCE));
}

#[test]
fn no_room_looks_back_and_no_circle_is_large() {
    assert_none(&find_room_circles(&SOURCE));
    assert_none(&find_file_circles(&SOURCE, LARGEST_CIRCLE));
}

#[test]
fn only_the_host_writes_and_starts_programs() {
    assert_none(&find_writers(&SOURCE));
}

#[test]
fn only_the_terminal_prints_and_asks() {
    assert_none(&find_printers(&SOURCE));
}

#[test]
fn only_the_recipe_decides() {
    assert_none(&find_deciders(&SOURCE));
}

#[test]
fn every_setting_that_a_message_names_exists() {
    assert_none(&find_unknown_keys(&SOURCE, &setting_names()));
}

#[test]
fn a_type_has_its_name_alone() {
    assert_at_most("names of several types", &find_shared_names(&SOURCE), MOST_SHARED_NAMES);
}

#[test]
fn files_are_short() {
    assert_none(&find_long_files(&SOURCE, LONGEST_FILE));
}

#[test]
fn little_is_public() {
    assert_at_most("public items", &find_public(&SOURCE), MOST_PUBLIC);
}

#[test]
fn a_function_says_what_it_does_to_what() {
    let (all, short) = find_functions(&SOURCE);
    assert_at_most(&format!("names of one word, of {all} functions"), &short, all * MOST_ONE_WORD / 100);
}

#[test]
fn an_error_is_more_than_a_text() {
    assert_none(&find_text_errors(&SOURCE));
}

/// The program holds it against advisories, and a package has it as its list of components.
#[test]
fn what_is_tested_in_turn_is_a_file_of_tests() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/machine");
    let list = fs::read_to_string(tests.join("in_turn")).unwrap();
    let names: Vec<&str> = list.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace).collect();
    assert!(names.len() > 1);
    for name in names {
        assert!(tests.join(format!("{name}.rs")).is_file(), "tests/machine/in_turn: there is no {name}.rs");
    }
}

#[test]
fn the_list_of_crates_is_that_of_cargo() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let made = std::process::Command::new(root.join("packaging/inventory")).args(["crates", "--offline"]).output();
    let made = String::from_utf8(made.unwrap().stdout).unwrap();
    let kept = fs::read_to_string(root.join("packaging/crates.txt")).unwrap();
    assert!(made == kept, "run `packaging/inventory crates >packaging/crates.txt`");
}

mod made_up {
    use super::*;

    /// A tree of sources that keeps every rule, with these files changed or added.
    fn tree_with(files: &[(&str, &str)]) -> Tree {
        let good = [
            ("lib.rs", "mod base;\nmod commands;\nmod host;\n"),
            ("resource/cases.rs", "fn play() { println!(); }\nstruct Host;\n"),
            ("base.rs", "pub(crate) mod terminal;\n"),
            ("base/terminal.rs", "pub(crate) fn print_line() { println!(\"'\\\" // \"); } // print!\n"),
            (
                "host.rs",
                "use crate::base::terminal;\nuse std::fs;\npub(crate) struct Host;\nimpl Host { fn write_text<'a>(c: char) { if c == '\"' { fs::write(\"a\", r#\"b\"\"#); } } }\n",
            ),
            ("recipe.rs", "use crate::resource::Wanted;\nfn decide() -> Wanted { Wanted { a: 1 } }\n"),
            ("resource.rs", "pub(crate) struct Wanted { a: u8 }\n#[cfg(test)]\nmod cases;\n"),
            (
                "commands.rs",
                "use crate::{base::terminal::{self, print_line}, host::Host};\n#[cfg(test)]\nmod tests {\n    use crate::nowhere;\n    fn print() { println!(); std::fs::write(); }\n}\n",
            ),
        ];
        let root = tempfile::tempdir().unwrap();
        for (name, text) in good.iter().chain(files) {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Tree::read(root.path())
    }

    fn assert_found(complaints: &[String], words: &[&str]) {
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        for word in words {
            assert!(complaints[0].contains(word), "{complaints:?}");
        }
    }

    #[test]
    fn what_keeps_the_rules_is_not_complained_about() {
        let tree = tree_with(&[]);
        let keys = BTreeSet::from(["web.path"]);
        for complaints in [
            find_upward_looks(&tree),
            find_room_circles(&tree),
            find_file_circles(&tree, LARGEST_CIRCLE),
            find_writers(&tree),
            find_printers(&tree),
            find_deciders(&tree),
            find_unknown_keys(&tree, &keys),
            find_shared_names(&tree),
            find_long_files(&tree, 5),
            find_public(&tree),
            find_text_errors(&tree),
        ] {
            assert_none(&complaints);
        }
        assert_eq!(find_functions(&tree), (3, vec!["recipe.rs:2 decide".into()]));
    }

    #[test]
    fn a_look_upwards_is_found() {
        for text in [
            "use crate::commands::run;\n",
            "use crate::{base, commands as up};\n",
            "fn f() { crate::commands::run() }\n",
            "use super::commands;\n",
        ] {
            let tree = tree_with(&[("host.rs", text)]);
            let found = find_upward_looks(&tree);
            assert_found(&found, &["host.rs:1", "commands.rs"]);
        }
        let tree = tree_with(&[("attic.rs", "")]);
        assert_found(&find_upward_looks(&tree), &["attic.rs", "no room"]);
    }

    #[test]
    fn rooms_that_look_into_each_other_are_found() {
        let tree =
            tree_with(&[("engine.rs", "use crate::recipe::Recipe;\n"), ("recipe.rs", "use crate::engine::Plan;\n")]);
        assert_none(&find_upward_looks(&tree));
        assert_found(&find_room_circles(&tree), &["engine", "recipe"]);
    }

    #[test]
    fn a_large_circle_of_files_is_found() {
        let ring = |number: usize| {
            let file = |at: usize| {
                let next = (at + 1) % number;
                (format!("doctor/f{at}.rs"), format!("use super::f{next}::X;\n"))
            };
            let files: Vec<(String, String)> = (0..number).map(file).collect();
            let files: Vec<(&str, &str)> = files.iter().map(|(a, b)| (&**a, &**b)).collect();
            find_file_circles(&tree_with(&files), LARGEST_CIRCLE)
        };
        assert_none(&ring(LARGEST_CIRCLE));
        assert_found(&ring(LARGEST_CIRCLE + 1), &["13 files", "doctor/f12.rs"]);
    }

    #[test]
    fn a_room_and_those_below_it_are_told_apart() {
        // A module and its own parts may need each other; that is a circle of two files, not of rooms.
        let tree =
            tree_with(&[("host.rs", "mod child;\nuse child::Child;\n"), ("host/child.rs", "use super::Host;\n")]);
        assert_none(&find_room_circles(&tree));
        let arrows = arrows(&tree).into_keys().collect();
        let all = circles(&arrows);
        assert_eq!(all, [BTreeSet::from(["host.rs", "host/child.rs"])]);
    }

    #[test]
    fn what_writes_or_starts_programs_elsewhere_is_found() {
        for text in [
            "fn f() { std::fs::write(a, b); }\n",
            "use std::fs::{self, remove_file};\n",
            "fn f() { fs::remove_dir_all(a); }\n",
            "use std::fs::OpenOptions;\n",
            "fn f() { std::fs::OpenOptions::new(); }\n",
            "fn f() { File::create(a); }\n",
            "fn f() { Command::new(a); }\n",
            "fn f() { tokio::process::Command::new(a); }\n",
            "use nix::unistd::{Pid, unlinkat};\n",
        ] {
            let tree = tree_with(&[("drivers.rs", text)]);
            assert_found(&find_writers(&tree), &["drivers.rs:1"]);
        }
        let reads = "use std::fs::File;\nfn f() { File::open(a); fs::read(b); }\n";
        assert_none(&find_writers(&tree_with(&[("drivers.rs", reads)])));
    }

    #[test]
    fn what_prints_or_asks_elsewhere_is_found() {
        for text in [
            "fn f() { println!(); }\n",
            "fn f() { std::eprint!(\"\"); }\n",
            "use std::io::{self, stdin};\n",
            "fn f() { writeln!(io::stderr(), \"\"); }\n",
            "fn f() { terminal::print_line(); }\n",
            "use crate::base::terminal::{self, note};\n",
        ] {
            let tree = tree_with(&[("drivers.rs", text)]);
            assert_found(&find_printers(&tree), &["drivers.rs:1"]);
        }
    }

    #[test]
    fn a_decision_elsewhere_is_found() {
        let text = "use crate::resource::{State, Wanted};\nfn f() -> Wanted {\n    Wanted { a: 2 }\n}\n";
        let tree = tree_with(&[("drivers.rs", text)]);
        assert_found(&find_deciders(&tree), &["drivers.rs:3"]);
    }

    #[test]
    fn a_setting_that_does_not_exist_is_found() {
        let keys = BTreeSet::from(["web.path", "tls.key"]);
        let find = |message: &str| {
            let text = format!("fn f() {{ message({message}); }}\n");
            let check = "const CHECK: &str = \"web.public\";\n";
            let tree = tree_with(&[("drivers.rs", &text), ("doctor/table.rs", check)]);
            find_unknown_keys(&tree, &keys)
        };
        assert_found(&find("\"set web.alias\""), &["drivers.rs:1", "web.alias"]);
        assert_found(&find("\"`web.path` or\\ntls.keys.\""), &["tls.keys"]);
        for good in [
            "\"set web.path, tls.key.\"",
            "\"check web.public of /etc/web.conf and web.txt\"",
            "\"at web.example.org\"",
            "web.alias",
        ] {
            assert_none(&find(good));
        }
    }

    #[test]
    fn a_type_named_twice_is_found() {
        for text in
            ["pub(crate) struct Host;\n", "enum Host { A }\n", "type Host = u8;\n", "trait Host { type Item; }\n"]
        {
            let tree = tree_with(&[("drivers.rs", text)]);
            assert_found(&find_shared_names(&tree), &["host.rs:3", "drivers.rs:1"]);
        }
        let parts = "impl Iterator for A { type Host = u8; }\nfn f(a: impl Fn()) {}\n";
        assert_none(&find_shared_names(&tree_with(&[("drivers.rs", parts)])));
    }

    #[test]
    fn what_is_counted_is_counted() {
        let text = "pub fn a(b: Result<Vec<u8>, String>) -> Result<(), Error> {}\n\
            pub(crate) fn c_d(e: Result<String>) {}\n#[cfg(test)]\nfn f(g: Result<u8, String>) {}\n";
        let tree = tree_with(&[("drivers.rs", text)]);
        assert_found(&find_public(&tree), &["drivers.rs:1"]);
        assert_found(&find_text_errors(&tree), &["drivers.rs:1"]);
        assert_found(&find_long_files(&tree_with(&[("a.rs", "\n\n\n\n\n\n\n\n")]), 7), &["a.rs", "8"]);
        assert_eq!(find_functions(&tree).0, 5);
        assert_eq!(find_functions(&tree).1[0], "drivers.rs:1 a");
    }
}
