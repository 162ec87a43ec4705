use proptest::prelude::*;

use super::*;
use crate::settings::{Sources, all_keys, example};

fn set(text: &str, key: &str, value: &str) -> String {
    edit_text(text, key, Some(value)).unwrap_or_else(|problem| panic!("{problem}"))
}

fn unset(text: &str, key: &str) -> String {
    edit_text(text, key, None).unwrap_or_else(|problem| panic!("{problem}"))
}

/// Before, key, value (empty to unset), after.
const EDITS: &[(&str, &str, &str, &str)] = &[
    ("", "web.path", "/a", "[web]\npath = \"/a\"\n"),
    ("# mine", "web.path", "/a", "# mine\n\n[web]\npath = \"/a\"\n"),
    ("[web]", "web.path", "/a", "[web]\npath = \"/a\"\n"),
    ("\u{feff}[web]\nworkers=2", "web.path", "/a", "\u{feff}[web]\nworkers=2\npath = \"/a\"\n"),
    ("# ü\n[web]\nworkers=2\n", "web.workers", "3", "# ü\n[web]\nworkers=3\n"),
    ("[web] # w\n\n[tls]\n", "web.path", "/a", "[web] # w\npath = \"/a\"\n\n[tls]\n"),
    (
        "[web]\nworkers = 2 # two\n\n# t\n[tls]\n",
        "web.path",
        "/a",
        "[web]\nworkers = 2 # two\npath = \"/a\"\n\n# t\n[tls]\n",
    ),
    ("[web]\r\nworkers = 2\r\n[tls]\r\n", "web.path", "/a", "[web]\r\nworkers = 2\r\npath = \"/a\"\r\n[tls]\r\n"),
    (
        "[web]\n#workers = \"auto\"\n# path is /\n# path = \"/\"\n\n#listen\n[tls]\n#path = 1\n",
        "web.path",
        "/a",
        "[web]\n#workers = \"auto\"\n# path is /\n# path = \"/\"\npath = \"/a\"\n\n#listen\n[tls]\n#path = 1\n",
    ),
    ("[web]\n  path   =   '/b'   # why\n", "web.path", "/a", "[web]\n  path   =   \"/a\"   # why\n"),
    ("[web]\npath = '/a'\n", "web.path", "/a", "[web]\npath = '/a'\n"),
    ("[web]\nlisten = [ # all\n  '*',\n]\n", "web.listen", "*", "[web]\nlisten = [ # all\n  '*',\n]\n"),
    (
        "[web]\nlisten = [ # all\n  '*',\n] # so\n",
        "web.listen",
        "::1,127.0.0.1",
        "[web]\nlisten = [\"::1\", \"127.0.0.1\"] # so\n",
    ),
    (
        "[web]\nserver_names = [\n  'a',\n]\n#path = '/'\n",
        "web.path",
        "/a",
        "[web]\nserver_names = [\n  'a',\n]\n#path = '/'\npath = \"/a\"\n",
    ),
    ("web.workers = 2\n", "web.path", "/a", "web.workers = 2\nweb.path = \"/a\"\n"),
    ("web = { workers = 2 }\n", "web.path", "/a", "web = { workers = 2, path = \"/a\" }\n"),
    ("web = {}\n", "web.path", "/a", "web = { path = \"/a\" }\n"),
    (
        "[config.site]\nA = 1\n",
        "config.\"recipient:b\".P",
        "x",
        "[config.site]\nA = 1\n\n[config.\"recipient:b\"]\nP = \"x\"\n",
    ),
    (
        "[config.\"recipient:b\"]\nA = 1\n",
        "config.recipient:b.P",
        "[\"x\"]",
        "[config.\"recipient:b\"]\nA = 1\nP = [\"x\"]\n",
    ),
    ("[config]\nsite.A = 1\n", "config.site.B", "2", "[config]\nsite.A = 1\nsite.B = \"2\"\n"),
    ("config = { site = { A = 1 } }\n", "config.export.B", "2", "config = { site = { A = 1 }, export.B = \"2\" }\n"),
    ("config = { site.A = 1 }\n", "config.site.B", "2", "config = { site.A = 1, site.B = \"2\" }\n"),
    ("[web]\n# why\npath = '/a' # that\nworkers = 2\n", "web.path", "", "[web]\n# why\nworkers = 2\n"),
    ("[web]\nlisten = [\n '*', # all\n]\nworkers = 2", "web.listen", "", "[web]\nworkers = 2"),
    ("[web]\nworkers = 2", "web.workers", "", "[web]\n"),
    ("[web]\nworkers = 2\n", "web.path", "", "[web]\nworkers = 2\n"),
    ("web.path = '/a'\nweb.workers = 2\n", "web.path", "", "web.workers = 2\n"),
    ("web = { path = '/a', workers = 2 }\n", "web.path", "", "web = { workers = 2 }\n"),
    ("web = { workers = 2, path = '/a' }\n", "web.path", "", "web = { workers = 2 }\n"),
    ("web = { path = '/a' }\n", "web.path", "", "web = { }\n"),
    ("[web]\npth = '/a'\n", "web.pth", "", "[web]\n"),
    ("pth = '/a'\n", "pth", "", ""),
];

#[test]
fn only_the_key_changes() {
    for (before, key, value, expected) in EDITS {
        let value = Some(*value).filter(|value| !value.is_empty());
        let after = edit_text(before, key, value).unwrap_or_else(|problem| panic!("{before}\n{problem}"));
        assert_eq!(after, *expected, "{before}");
        if value.is_some() {
            assert_eq!(edit_text(&after, key, value).as_ref(), Ok(&after), "{before}");
        }
    }
}

#[test]
fn refusals_say_why() {
    for (text, key, value, expected) in [
        ("", "web.pth", Some("/a"), "web.pth: unknown key; nearest: web.path"),
        ("", "web.pth", None, "web.pth: unknown key; nearest: web.path"),
        ("", "web", Some("1"), "web: is a section"),
        ("", "web.workers", Some("0"), "web.workers: 0 is too small; allowed: \"auto\" or 1 to 256, for example 4"),
        ("", "database.password", Some("x"), "database.password: passwords are not settings"),
        ("web = 1", "web.path", Some("/a"), "web: is not a section in this file"),
        ("[[web]]", "web.path", Some("/a"), "web: is not a section in this file"),
        ("[web]\n\n[web", "web.path", Some("/a"), "line 3: is not TOML"),
        ("[web.path]", "web.path", Some("/a"), "web.path: is written in a way that only an editor can change"),
    ] {
        let problem = edit_text(text, key, value).expect_err(key).to_string();
        assert!(problem.starts_with(expected), "{problem}");
    }
}

#[test]
fn in_the_example_a_key_goes_below_its_description() {
    let after = set(&example(), "web.timeout_s", "600");
    assert!(after.contains("\n#timeout_s = 300\ntimeout_s = 600\n"));
    assert_eq!(unset(&after, "web.timeout_s"), example());
}

fn arbitrary_file() -> impl Strategy<Value = String> {
    let lines = example().lines().map(str::to_owned).collect::<Vec<_>>();
    let count = lines.len();
    let choices = prop::collection::vec((any::<bool>(), any::<bool>()), count);
    (choices, prop_oneof![Just("\n"), Just("\r\n")], any::<bool>()).prop_map(move |(choices, end, ends)| {
        let mut kept = Vec::new();
        for (line, (keep, bare)) in lines.iter().zip(choices) {
            match line.strip_prefix('#') {
                Some(key) if bare && key.starts_with(char::is_alphabetic) => kept.push(format!("{key}  # set")),
                _ if keep || line.starts_with('[') => kept.push(line.clone()),
                _ => {}
            }
        }
        kept.join(end) + if ends { end } else { "" }
    })
}

fn is_subsequence(short: &str, long: &str) -> bool {
    let mut long = long.lines();
    short.lines().all(|line| long.any(|other| other == line))
}

proptest! {
    #[test]
    fn setting_keeps_every_other_line_and_gives_the_value(text in arbitrary_file(), key in 0..all_keys().len()) {
        let key = &all_keys()[key];
        let after = set(&text, key.name, key.example);
        let others = text.lines().filter(|line| !line.starts_with(&format!("{} ", key.short_name())));
        prop_assert!(is_subsequence(&others.collect::<Vec<_>>().join("\n"), &after));
        prop_assert_eq!(&set(&after, key.name, key.example), &after);

        let path = [key.section, key.short_name()];
        let document = parse_document(&after).expect("it was checked");
        let value = find_value(&document, &path).expect("it was set").value.to_string();
        let target = Target::find(&path).expect("a known key");
        prop_assert_eq!(as_we_write(&target, GivenValue::Text(&value)), Ok(key.example.to_owned()));

        let before = unset(&text, key.name);
        prop_assert!(is_subsequence(&before, &text));
        let again = unset(&after, key.name);
        prop_assert!(is_subsequence(&before, &again) && again.len() <= before.len() + 2);
    }

    #[test]
    fn set_then_resolve_gives_the_value(value in "[^\\p{Cc}\u{2028}\u{2029}]{1,20}", name in "[A-Z][A-Z0-9_]{0,8}") {
        let key = format!("config.site.{name}");
        let quoted = Value::from(value.as_str()).to_string();
        let text = set(&example(), &key, &quoted);
        let sources = Sources { files: vec![("a".into(), text)], ..Sources::default() };
        let settings = Settings::resolve(&sources).expect("any such text is allowed").settings;
        prop_assert_eq!(settings.get(&key), Some(quoted));
    }

    #[test]
    fn arbitrary_text_never_panics(text in "[\\[\\]{}=.,\"'#\n a-c0-1]{0,40}", value in ".*") {
        for key in ["a.b", "web.path", "a", "config.site.A"] {
            _ = edit_text(&text, key, Some(&value));
            _ = edit_text(&text, key, None);
        }
    }
}

#[test]
fn tables_of_a_list_are_left_to_an_editor() {
    let text = "[[services.extra]]\nname = 'a'\ncommand = ['/x']\n";
    let why = edit_text(text, "services.extra", Some("[]")).unwrap_err();
    assert!(why.to_string().contains("only an editor"), "{why}");
    let other = set(text, "services.disabled", "a");
    assert_eq!(other, format!("{text}\n[services]\ndisabled = [\"a\"]\n"));
}
