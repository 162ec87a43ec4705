//! The pages of the documentation, and what they tell to type.

// Each test file uses its own part of this.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every page, by its path in the repository.
pub fn pages() -> BTreeMap<PathBuf, String> {
    let docs = fs::read_dir(repository().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let markdown = docs.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let all = markdown.chain([repository().join("README.md")]);
    all.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The blocks of code in one language, each with the heading above it.
pub fn blocks<'a>(page: &'a str, language: &str) -> Vec<(&'a str, String)> {
    let (mut found, mut heading, mut open, mut other) = (Vec::new(), "", None::<String>, false);
    for line in page.lines() {
        match (&mut open, line) {
            (Some(_), "```") => found.extend(open.take().map(|text| (heading, text))),
            (Some(text), line) => {
                text.push_str(line);
                text.push('\n');
            }
            // What begins so in a block of another language is a comment.
            (None, line) if line.starts_with('#') && !other => heading = line.trim_start_matches('#').trim(),
            (None, line) if !other && line.strip_prefix("```") == Some(language) => open = Some(String::new()),
            (None, line) if line.starts_with("```") => other = !other,
            _ => {}
        }
    }
    found
}

/// The words of a command of ours, as a shell would split them; without what it does with the output.
pub fn words(line: &str) -> Option<Vec<String>> {
    let line = line.strip_prefix("sudo ").unwrap_or(line).strip_prefix("camcops-provision ")?;
    let line = line.split(" > ").next().unwrap();
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().unwrap().push(c),
        }
    }
    Some(words)
}

/// Every command of ours in the pages, with page and heading.
pub fn commands() -> Vec<(String, Vec<String>)> {
    let mut all = Vec::new();
    for (path, page) in pages() {
        for (heading, text) in blocks(&page, "sh") {
            let page = path.file_name().unwrap().to_string_lossy();
            let of_page = text.lines().filter_map(words).map(|words| (format!("{page}: {heading}"), words));
            all.extend(of_page);
        }
    }
    all
}
