//! What comes out of the recipe, case by case, for a reader.
//!
//! A case is a file tests/golden/NAME.toml: a machine, settings, and more files if they need them. What comes out stands
//! beside it in NAME.txt: for the case `default` everything, for all others what differs from that. A new case is a new
//! file. `UPDATE_GOLDEN=1 cargo test --test golden` writes the results anew, for you to read in `git diff`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use camcops_provision::certificate::{Subject, self_signed};
use camcops_provision::cli::Cli;
use camcops_provision::layout;
use camcops_provision::resource::{Resource, State};
use camcops_provision::session::Session;
use clap::Parser;
use similar::TextDiff;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use toml_edit::{DocumentMut, Item};

/// What came out: the listing under the name "", each file's text under its path.
type Outcome = BTreeMap<String, String>;

/// A machine as a case has it unless it says otherwise.
const MACHINE: &str = r#"
os_release = "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"
host_name = "camcops.example.org"
timezone = "Europe/London"
accounts = ["root", "www-data", "adm", "apache", "camcops"]
"#;

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

struct Case {
    document: DocumentMut,
    instance: String,
    root: tempfile::TempDir,
}

impl Case {
    fn read(name: &str) -> Case {
        let file = cases().join(name).with_extension("toml");
        let document: DocumentMut = fs::read_to_string(&file).unwrap().parse().unwrap();
        for (key, _) in document.iter() {
            let known = ["instance", "machine", "files", "pair", "settings"].contains(&key);
            assert!(known, "{}: {key}?", file.display());
        }
        let instance = document.get("instance").and_then(Item::as_str);
        Case {
            instance: instance.unwrap_or(layout::DEFAULT_INSTANCE).to_owned(),
            document,
            root: tempfile::tempdir().unwrap(),
        }
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// The machine of the case, with secrets that are the same each time.
    fn lay_out(&self) {
        let usual: DocumentMut = MACHINE.parse().unwrap();
        let machine = |key: &str| {
            let own = self.document.get("machine").and_then(|own| own.get(key));
            own.unwrap_or(&usual[key]).clone()
        };
        self.write("/etc/os-release", machine("os_release").as_str().unwrap());
        self.write("/etc/hostname", machine("host_name").as_str().unwrap());
        self.write("/etc/timezone", machine("timezone").as_str().unwrap());
        let (mut passwd, mut group) = (String::new(), String::new());
        for (number, name) in machine("accounts").as_array().unwrap().iter().enumerate() {
            let name = name.as_str().unwrap();
            let _ = writeln!(passwd, "{name}:x:{number}:{number}::/:/bin/false");
            let _ = writeln!(group, "{name}:x:{number}:");
        }
        self.write("/etc/passwd", &passwd);
        self.write("/etc/group", &group);
        let slug = layout::instance_slug(&self.instance);
        for name in ["cookie", "database", "broker", "monitor"] {
            let path = format!("/etc/camcops/secrets/{slug}/{name}");
            self.write(&path, &format!("{name}-secret\n"));
        }
        let table = |key: &str| self.document.get(key).and_then(Item::as_table).cloned();
        for (path, text) in table("files").unwrap_or_default().iter() {
            self.write(path, text.as_str().unwrap());
        }
        if let Some(pair) = table("pair") {
            let subject = Subject {
                names: vec![machine("host_name").as_str().unwrap().to_owned()],
                days: 365,
                country: None,
                state_or_province: None,
                locality: None,
                organization: None,
            };
            let made = self_signed(&subject, SystemTime::now()).unwrap();
            self.write(pair["certificate"].as_str().unwrap(), &made.certificate);
            self.write(pair["key"].as_str().unwrap(), &made.key);
        }
        let settings = DocumentMut::from(table("settings").unwrap_or_default());
        self.write("/settings.toml", &settings.to_string());
    }

    /// What comes out.
    fn outcome(&self) -> Outcome {
        self.lay_out();
        let root = self.root.path();
        let settings = root.join("settings.toml");
        let arguments = [
            "camcops-provision".as_ref(),
            "--root".as_ref(),
            root.as_os_str(),
            "--config".as_ref(),
            settings.as_os_str(),
            "--instance".as_ref(),
            self.instance.as_ref(),
            "plan".as_ref(),
        ];
        let mut site = Session::open(&Cli::parse_from(arguments).global).unwrap();
        // An ordinary user may run the tests, too.
        site.site.facts.may_give_away = true;
        let found = site.read_existing(&site.journal().unwrap()).unwrap();
        let recipe = site.recipe(&found).unwrap();

        let mut outcome = Outcome::new();
        let mut listing = String::new();
        for warning in &recipe.warnings {
            let _ = writeln!(listing, "warning: {warning}");
        }
        for wanted in &recipe.wanted {
            let State::Present(facets) = &wanted.state else { panic!("{}: not wanted", wanted.resource) };
            let facet = |name: &str| facets.text(name).unwrap_or("-");
            let (path, kind) = (wanted.resource.name(), wanted.resource.kind());
            let because = &wanted.because;
            let _ = match &wanted.resource {
                Resource::Symlink(_) => {
                    writeln!(listing, "{kind:9} {path} -> {}: {because}", facet("target"))
                }
                Resource::Group(_) | Resource::User(_) => {
                    let uid = facets.text("uid").map(|uid| format!(" {uid}"));
                    writeln!(listing, "{kind:9} {path}{}: {because}", uid.unwrap_or_default())
                }
                _ => writeln!(listing, "{kind:9} {:4} {:17} {path}: {because}", facet("mode"), facet("owner")),
            };
            // A certificate of our own is another one each time, and a digest tells a reader nothing.
            if let Some(content) = facets.content()
                && !path.starts_with("/etc/camcops/tls/")
                && !path.ends_with("/authority.crt")
                && !path.ends_with(".conf-digest")
            {
                let text = String::from_utf8(content.bytes().unwrap().to_vec()).unwrap();
                outcome.insert(path.to_owned(), text);
            }
        }
        outcome.insert(String::new(), listing);
        outcome
    }
}

/// The whole outcome.
fn whole(outcome: &Outcome) -> String {
    outcome.iter().fold(String::new(), |mut text, (path, content)| {
        let _ = writeln!(text, "{}{content}", heading(path));
        text
    })
}

fn heading(path: &str) -> String {
    match path {
        "" => "==== what is wanted\n".into(),
        path => format!("==== {path}\n"),
    }
}

/// What differs from the default case: an instance's own paths and those of another family are paired with the default's.
fn difference(default: &Outcome, outcome: &Outcome, slug: &str) -> String {
    let mut left = default.clone();
    let mut text = String::new();
    for (path, content) in outcome {
        let twin = match_of(path, slug, &left);
        let old = twin.as_ref().and_then(|twin| left.remove(twin));
        let title = match &twin {
            Some(twin) if twin != path => format!("==== {path} (default: {twin})\n"),
            _ => heading(path),
        };
        match old {
            None => {
                let _ = writeln!(text, "{title}{content}");
            }
            Some(old) if old != *content => {
                let diff = TextDiff::from_lines(old.as_str(), content.as_str());
                let _ = writeln!(text, "{title}{}", diff.unified_diff().context_radius(0));
            }
            Some(_) => {}
        }
    }
    for path in left.keys() {
        let _ = writeln!(text, "==== no {path}");
    }
    text
}

fn match_of(path: &str, slug: &str, others: &Outcome) -> Option<String> {
    let general = path.replace(slug, layout::DEFAULT_INSTANCE);
    let other_family =
        [("/etc/httpd/conf.d/", "/etc/apache2/sites-available/"), ("/etc/my.cnf.d/", "/etc/mysql/mariadb.conf.d/")]
            .iter()
            .map(|(theirs, debian)| general.replace(theirs, debian));
    [path.to_owned(), general.clone()].into_iter().chain(other_family).find(|name| others.contains_key(name))
}

#[test]
fn every_case_comes_out_as_accepted() {
    let mut names: Vec<String> = fs::read_dir(cases())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "toml"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let default = Case::read("default").outcome();
    let mut wrong = String::new();
    for name in &names {
        let case = Case::read(name);
        let text = match name.as_str() {
            "default" => whole(&default),
            _ => difference(&default, &case.outcome(), &layout::instance_slug(&case.instance)),
        };
        let file = cases().join(name).with_extension("txt");
        if update {
            fs::write(&file, &text).unwrap();
            continue;
        }
        let accepted = fs::read_to_string(&file).unwrap_or_default();
        if accepted != text {
            let diff = TextDiff::from_lines(accepted.as_str(), text.as_str());
            let _ = writeln!(wrong, "{name}:\n{}", diff.unified_diff());
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}\nIf that is right: UPDATE_GOLDEN=1 cargo test --test golden");
    let orphans = fs::read_dir(cases()).unwrap().count() - 2 * names.len();
    assert_eq!(orphans, 0, "results without a case in tests/golden");
}
