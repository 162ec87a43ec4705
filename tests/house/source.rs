//! The source of the crate as words, without comments and tests: as much of Rust as the rules need.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A word or a sign of the code, and its line.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    pub text: String,
    pub line: usize,
}

/// One file of the source.
#[derive(Debug)]
pub struct File {
    /// `host::child` for host/child.rs.
    pub module: Vec<String>,
    /// The words of its code, but not of its tests.
    pub tokens: Vec<Token>,
    /// Its literal texts outside of tests, with their lines.
    pub texts: Vec<(usize, String)>,
    /// How many lines it has that are not of tests.
    pub lines: usize,
    /// Modules in files of their own that are there for tests only.
    test_modules: Vec<Vec<String>>,
}

/// All files by their path below src/.
pub struct Tree {
    pub files: BTreeMap<String, File>,
    /// What a file hands on under its own name, and where that is.
    handed_on: BTreeMap<(String, String), Vec<String>>,
}

impl Tree {
    /// Reads the files of a directory and those below it. Files of tests alone are no part of it.
    pub fn read(root: &Path) -> Tree {
        let mut files = BTreeMap::new();
        read_directory(root, "", &mut files);
        let of_tests: Vec<Vec<String>> = files.values_mut().flat_map(|file| file.test_modules.drain(..)).collect();
        files.retain(|_, file| !of_tests.iter().any(|test| file.module.starts_with(test)));
        let mut handed_on = BTreeMap::new();
        for (name, file) in &files {
            for path in file.handed_on() {
                if let Some(last) = path.last() {
                    handed_on.insert((name.clone(), last.clone()), path);
                }
            }
        }
        Tree { files, handed_on }
    }

    /// The file that a path of modules and items leads to: the one that defines the item.
    pub fn file_of(&self, path: &[String]) -> Option<&str> {
        (1..=path.len()).rev().find_map(|length| {
            let name = format!("{}.rs", path[..length].join("/"));
            let (name, _) = self.files.get_key_value(&name)?;
            let item = path.get(length).map(|item| (name.clone(), item.clone()));
            match item.and_then(|item| self.handed_on.get(&item)) {
                Some(on) if on[..] != path[..on.len().min(path.len())] => self.file_of(on),
                _ => Some(name.as_str()),
            }
        })
    }
}

fn read_directory(root: &Path, below: &str, files: &mut BTreeMap<String, File>) {
    for entry in fs::read_dir(root.join(below)).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = match below {
            "" => name.clone(),
            below => format!("{below}/{name}"),
        };
        if entry.file_type().unwrap().is_dir() {
            if name != "tests" {
                read_directory(root, &path, files);
            }
        } else if let Some(stem) = path.strip_suffix(".rs")
            && name != "tests.rs"
        {
            let module = match stem {
                "lib" | "main" => Vec::new(),
                stem => stem.split('/').map(str::to_owned).collect(),
            };
            let text = fs::read_to_string(root.join(&path)).unwrap();
            files.insert(path, read_file(module, &text));
        }
    }
}

fn read_file(module: Vec<String>, text: &str) -> File {
    let (tokens, texts) = split_words(text);
    let tests = find_tests(&tokens);
    let is_test = |line: usize| tests.iter().any(|&(first, last)| first <= line && line <= last);
    let test_modules = tokens
        .windows(3)
        .filter(|words| words[0].text == "mod" && words[2].text == ";" && is_test(words[0].line))
        .map(|words| [&module[..], &[words[1].text.clone()]].concat())
        .collect();
    File {
        module,
        test_modules,
        lines: (1..=text.lines().count()).filter(|&line| !is_test(line)).count(),
        texts: texts.into_iter().filter(|&(line, _)| !is_test(line)).collect(),
        tokens: tokens.into_iter().filter(|token| !is_test(token.line)).collect(),
    }
}

/// Words, signs (`::` and `->` are one each) and literal texts; comments are left out.
fn split_words(text: &str) -> (Vec<Token>, Vec<(usize, String)>) {
    let (mut tokens, mut texts) = (Vec::new(), Vec::new());
    let chars: Vec<char> = text.chars().collect();
    let (mut at, mut line) = (0, 1);
    while at < chars.len() {
        let begin = at;
        let rest = &chars[at..];
        let mut word = String::new();
        if rest.starts_with(&['/', '/']) {
            at += rest.iter().position(|&c| c == '\n').unwrap_or(rest.len());
        } else if rest.starts_with(&['/', '*']) {
            at += comment_length(rest);
        } else if let Some(hashes) = raw_text(rest) {
            at += rest.iter().position(|&c| c == '"').unwrap() + 1;
            let end: Vec<char> = ['"'].into_iter().chain(vec!['#'; hashes]).collect();
            let length = (0..).find(|&n| chars[at + n..].starts_with(&end)).unwrap();
            texts.push((line, chars[at..at + length].iter().collect()));
            at += length + end.len();
        } else if rest[0] == '"' {
            at += 1;
            while chars[at] != '"' {
                at += if chars[at] == '\\' { 2 } else { 1 };
            }
            texts.push((line, unescaped(&chars[begin + 1..at])));
            at += 1;
        } else if rest[0] == '\'' {
            // A letter, or else a lifetime.
            at += match rest {
                ['\'', '\\', ..] => 4 + rest[3..].iter().position(|&c| c == '\'').unwrap(),
                ['\'', _, '\'', ..] => 3,
                _ => 1,
            };
        } else if is_letter(rest[0]) {
            let length = rest.iter().position(|&c| !is_letter(c));
            at += length.unwrap_or(rest.len());
            word = chars[begin..at].iter().collect();
        } else if rest.starts_with(&[':', ':']) || rest.starts_with(&['-', '>']) {
            at += 2;
            word = chars[begin..at].iter().collect();
        } else {
            at += 1;
            if !rest[0].is_whitespace() {
                word.push(rest[0]);
            }
        }
        if !word.is_empty() {
            tokens.push(Token { text: word, line });
        }
        line += chars[begin..at].iter().filter(|&&c| c == '\n').count();
    }
    (tokens, texts)
}

fn is_letter(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn comment_length(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    loop {
        match rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
}

/// How many `#` a raw text has, if one begins here.
fn raw_text(rest: &[char]) -> Option<usize> {
    let after = match rest {
        ['b', 'r', after @ ..] | ['r', after @ ..] => after,
        _ => return None,
    };
    let hashes = after.iter().take_while(|&&c| c == '#').count();
    (after.get(hashes) == Some(&'"')).then_some(hashes)
}

/// Escapes are no part of a word: `\n` ends one.
fn unescaped(text: &[char]) -> String {
    let mut plain = String::new();
    let mut chars = text.iter();
    while let Some(&c) = chars.next() {
        match c {
            '\\' => {
                chars.next();
                plain.push(' ');
            }
            c => plain.push(c),
        }
    }
    plain
}

/// The first and the last line of each item that is there for tests only.
fn find_tests(tokens: &[Token]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let words: Vec<&str> = tokens[at..].iter().take(7).map(|t| &*t.text).collect();
        if words.starts_with(&["#", "[", "cfg", "("])
            && (words.get(4) == Some(&"test") || words[4..] == ["all", "(", "test"])
        {
            let first = tokens[at].line;
            let mut end = at;
            while !matches!(&*tokens[end].text, "{" | ";") {
                end += 1;
            }
            if tokens[end].text == "{" {
                end = closing(tokens, end);
            }
            found.push((first, tokens[end].line));
            at = end;
        }
        at += 1;
    }
    found
}

/// Where the bracket is closed that is opened here.
pub fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match &*token.text {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    tokens.len() - 1
}

impl File {
    /// Every path with `::` that its code names, each branch of a `use` by itself, with its line.
    pub fn paths(&self) -> Vec<(usize, Vec<String>)> {
        let mut all = Vec::new();
        let mut at = 0;
        while at < self.tokens.len() {
            // `pub(in crate::drivers)` looks nowhere.
            let before = at.checked_sub(2).map(|at| &self.tokens[at..at + 2]);
            let is_scope = before.is_some_and(|it| it[0].text == "(" && it[1].text == "in");
            let is_path = !is_scope && self.tokens.get(at + 1).is_some_and(|it| it.text == "::");
            if is_path && self.tokens[at].text.starts_with(is_letter) {
                at = read_branches(&self.tokens, at, &[], &mut all).max(at + 1);
            } else {
                at += 1;
            }
        }
        all
    }

    /// Where what it hands on by `pub use` is.
    fn handed_on(&self) -> Vec<Vec<String>> {
        let mut all = Vec::new();
        for (at, token) in self.tokens.iter().enumerate() {
            let before = at.checked_sub(1).map(|at| &*self.tokens[at].text);
            if token.text == "use" && matches!(before, Some("pub" | ")")) {
                read_branches(&self.tokens, at + 1, &[], &mut all);
            }
        }
        self.resolve(all).into_iter().map(|(_, path)| path).collect()
    }

    /// The same, where they lead inside of the crate: `crate::`, `super::` and its own modules are resolved.
    pub fn own_paths(&self) -> Vec<(usize, Vec<String>)> {
        self.resolve(self.paths())
    }

    fn resolve(&self, paths: Vec<(usize, Vec<String>)>) -> Vec<(usize, Vec<String>)> {
        let children: Vec<&str> = self
            .tokens
            .windows(3)
            .filter(|words| words[0].text == "mod" && words[2].text == ";")
            .map(|words| &*words[1].text)
            .collect();
        let resolve = |path: Vec<String>| {
            let ups = path.iter().take_while(|part| *part == "super").count();
            match &*path[0] {
                "crate" => Some(path[1..].to_vec()),
                "super" => {
                    let base = &self.module[..self.module.len().checked_sub(ups)?];
                    Some([base, &path[ups..]].concat())
                }
                "self" => Some([&self.module, &path[1..]].concat()),
                first if children.contains(&first) => Some([&self.module, &path[..]].concat()),
                _ => None,
            }
        };
        paths.into_iter().filter_map(|(line, path)| Some((line, resolve(path)?))).collect()
    }
}

/// Reads a path and what it branches into; gives the place behind it.
fn read_branches(tokens: &[Token], mut at: usize, before: &[String], all: &mut Vec<(usize, Vec<String>)>) -> usize {
    let mut path = before.to_vec();
    let text = |at: usize| tokens.get(at).map_or("", |token| &*token.text);
    let line = tokens[at].line;
    loop {
        if text(at) == "{" {
            let end = closing(tokens, at);
            at += 1;
            while at < end {
                at = match text(at) {
                    "," => at + 1,
                    _ => read_branches(tokens, at, &path, all).max(at + 1),
                };
            }
            return end + 1;
        }
        match text(at) {
            "self" if !path.is_empty() => {}
            word if word.starts_with(is_letter) || word == "*" => path.push(word.to_owned()),
            // `::<`
            _ => break,
        }
        at += 1;
        if text(at) != "::" {
            break;
        }
        at += 1;
    }
    if text(at) == "as" {
        at += 2;
    }
    all.push((line, path));
    at
}
