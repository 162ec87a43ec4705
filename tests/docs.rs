//! The pages in docs: what they tell to type is understood by this program, and what they name is there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod common;

use camcops_provision::cli::Cli;
use clap::CommandFactory;
use common::pages::{blocks, commands, pages, repository};
use common::{Ran, Staged, Who, program};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

#[test]
fn what_is_to_be_typed_is_understood() {
    let all = commands();
    assert!(all.len() > 50, "only {} commands were found", all.len());
    for (place, words) in all {
        let line = ["camcops-provision".to_owned()].into_iter().chain(words.clone());
        if let Err(why) = Cli::command().try_get_matches_from(line) {
            panic!("{place}: {words:?}: {why}");
        }
    }
}

/// What a recipe sets is right: each one on a tree of its own, in its order, with the files of settings that it shows.
#[test]
fn what_a_recipe_sets_is_right() {
    let mut tried = 0;
    let mut recipes: BTreeMap<String, Vec<Vec<String>>> = BTreeMap::new();
    for (place, words) in commands() {
        recipes.entry(place).or_default().push(words);
    }
    for (place, steps) in recipes {
        let staged = Staged::of(Who::Ordinary, "debian");
        staged.write("etc/hostname", "camcops.example.org\n");
        let (page, heading) = place.split_once(": ").unwrap();
        let text = pages().into_iter().find(|(path, _)| path.ends_with(page)).unwrap().1;
        for (_, settings) in blocks(&text, "toml").into_iter().filter(|(of, _)| *of == heading) {
            let name = settings.lines().next().unwrap().trim_start_matches("# /").to_owned();
            staged.write(&name, &settings);
        }
        for words in steps {
            let is_setting = words.iter().any(|word| word == "config")
                && words.iter().any(|word| word == "set" || word == "validate");
            // A secret is asked for; a key that is somebody's own is read from a file.
            let is_asked = words.last().is_some_and(|word| word.ends_with("PASSWORD") || word.starts_with("$("));
            if is_setting && !is_asked {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                let ran = Ran::of(staged.command(&words));
                assert!(ran.status.success() && !ran.err.contains("warning"), "{place}: {words:?}: {ran}");
                tried += 1;
            }
        }
        Ran::of(staged.command(&["config", "validate"])).exits(0);
    }
    assert!(tried > 12, "{tried}");
}

#[test]
fn links_lead_somewhere() {
    let pages = pages();
    let anchors = |page: &str| -> BTreeSet<String> {
        let headings = page.lines().filter(|line| line.starts_with('#'));
        headings
            .map(|line| {
                let title = line.trim_start_matches('#').trim().to_lowercase();
                let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
                kept.map(|c| if c == ' ' { '-' } else { c }).collect()
            })
            .collect()
    };
    let mut followed = 0;
    for (path, page) in &pages {
        for link in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link}", path.display());
            let target = target.canonicalize().unwrap();
            if !anchor.is_empty() {
                assert!(anchors(&pages[&target]).contains(anchor), "{}: {link}", path.display());
            }
            followed += 1;
        }
    }
    assert!(followed > 8, "{followed}");
}

fn checks() -> Vec<String> {
    let mut list = program(Who::Ordinary);
    list.args(["doctor", "--list"]);
    let listed = Ran::of(list).exits(0).out;
    listed.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn every_check_has_its_meaning() {
    let page = fs::read_to_string(repository().join("docs/checks.md")).unwrap();
    let told: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(id, _)| id).collect();
    assert_eq!(told, checks());
}

#[test]
fn the_checks_that_are_named_are_there() {
    let there = checks();
    for (place, words) in commands().into_iter().filter(|(_, words)| words[0] == "doctor") {
        for named in words[1..].iter().filter(|word| !word.starts_with('-')) {
            let found = there.iter().any(|id| id == named || id.starts_with(&format!("{named}.")));
            assert!(found, "{place}: there is no check {named}");
        }
    }
}
