//! Strict rendering does not notice `{{#if missing}}`, and nothing notices a value that no template uses: this does.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use camcops_provision::cli::Cli;
use camcops_provision::recipe::front::view_of_front;
use camcops_provision::recipe::view::template_view;
use camcops_provision::session::Session;
use clap::Parser;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// What templates may say that is not in the view: of the item of a list.
const OF_AN_ITEM: [&str; 6] = ["this", "@first", "@last", "server_name", "aliases", "url"];
/// The layout is in the view as it is, whether or not a template needs all of it.
const LAYOUT: &str = "path.";

/// Every dotted name in a template that is neither a helper nor a word of the language.
fn names(template: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for tag in template.split("{{").skip(1) {
        let tag = tag.split("}}").next().unwrap();
        if tag.starts_with(['>', '!', '/']) || tag.starts_with("#*") {
            continue;
        }
        let mut quoted = false;
        for word in tag.split([' ', '(', ')', '#', '/']) {
            quoted ^= word.matches('"').count() % 2 == 1;
            let helper = ["if", "unless", "each", "else", "eq", "ne", "or", "and", ""];
            let number = word.parse::<u32>().is_ok();
            if quoted || word.contains('"') || number || helper.contains(&word) {
                continue;
            }
            names.insert(word.trim_start_matches("@root.").to_owned());
        }
    }
    names
}

/// Every dotted name of the view that has a value of its own; a list is one.
fn leaves(view: &Value, prefix: &str, into: &mut BTreeSet<String>) {
    match view {
        Value::Object(map) => {
            for (key, value) in map {
                let name = match prefix {
                    "" => key.clone(),
                    prefix => format!("{prefix}.{key}"),
                };
                leaves(value, &name, into);
            }
        }
        _ => {
            into.insert(prefix.to_owned());
        }
    }
}

#[test]
fn templates_and_view_know_the_same_names() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().to_str().unwrap();
    let extra = "services.extra=[{ name = 'x', command = ['/x'] }]";
    let words = ["camcops-provision", "--root", root, "--set", extra, "plan"];
    let global = Cli::parse_from(words).global;
    let site = Session::open(&global).unwrap();
    let found = site.read_existing(&site.journal().unwrap()).unwrap();
    let mut known = BTreeSet::new();
    let mut view = template_view(&site, &found);
    view["front"] = view_of_front(&site);
    leaves(&view, "", &mut known);
    // A service of the site's own: an item of a list, or `extra` in the template of its unit.
    let of_an_extra: BTreeSet<String> = view["extras"][0].as_object().unwrap().keys().cloned().collect();
    assert!(known.contains("path.socket") && known.contains("web.listen"));

    let mut used = BTreeMap::new();
    let templates = concat!(env!("CARGO_MANIFEST_DIR"), "/templates");
    for entry in fs::read_dir(templates).unwrap() {
        let path = entry.unwrap().path();
        for name in names(&fs::read_to_string(&path).unwrap()) {
            used.insert(name, path.clone());
        }
    }
    assert!(used.len() > 50, "{used:?}");
    for (name, template) in &used {
        let of_extra = name.strip_prefix("extra.").unwrap_or(name);
        assert!(
            known.contains(name) || OF_AN_ITEM.contains(&name.as_str()) || of_an_extra.contains(of_extra),
            "{}: {name:?} is not in the view",
            template.display()
        );
    }
    let unused: Vec<&String> =
        known.iter().filter(|name| !used.contains_key(*name) && !name.starts_with(LAYOUT)).collect();
    assert!(unused.is_empty(), "no template uses {unused:?}");
    for field in of_an_extra {
        let is_used = used.contains_key(&field) || used.contains_key(&format!("extra.{field}"));
        assert!(is_used, "no template uses {field} of an extra service");
    }
}
