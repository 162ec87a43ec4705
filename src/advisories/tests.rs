//! What a made-up site has of made-up advisories, and what it makes of files that nobody should bring.

use super::parts::tests::staged_machine_with;
use super::*;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use time::format_description::well_known::Rfc3339;

const RECORDS: &str = "Package: libssl3\nStatus: install ok installed\nSource: openssl\nVersion: 3.0.15-1~deb12u1\n\n\
    Package: openssl\nStatus: install ok installed\nVersion: 3.0.15-1~deb12u1\n\n\
    Package: bash\nStatus: install ok installed\nVersion: 5.2.15-2+b7\nSource: bash (5.2.15-2)\n";

/// A staged machine, and a directory beside it for files of advisories.
struct Trial {
    home: TempDir,
    host: Host,
}

impl Trial {
    fn new(packages: &[(&str, &str)]) -> Trial {
        Trial::on_python(11, packages)
    }

    fn on_python(minor: u8, packages: &[(&str, &str)]) -> Trial {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("root");
        fs::create_dir(&root).unwrap();
        let host = staged_machine_with(&root, minor, packages, RECORDS);
        fs::create_dir(home.path().join("given")).unwrap();
        Trial { home, host }
    }

    fn given(&self) -> PathBuf {
        self.home.path().join("given")
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> &Trial {
        let path = self.given().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn examine(&self) -> Result<Examination> {
        let path = fs::canonicalize(self.given()).unwrap();
        Examination::of(&self.host, &[path.to_str().unwrap().to_owned()], None)
    }

    fn found(&self) -> Vec<String> {
        let flaws = self.examine().unwrap().flaws;
        flaws.iter().map(|flaw| format!("{} {} {}", flaw.package, flaw.version, flaw.id)).collect()
    }

    #[track_caller]
    fn refused(&self, name: &str, words: &str) {
        let why = self.examine().unwrap_err();
        assert_eq!(Exit::of(&why), Exit::Unusable, "{why:#}");
        let why = format!("{why:#}");
        assert!(why.contains(&format!("/given/{name}")) && why.contains(words), "{why}");
        assert!(!why.contains('\u{1b}'), "{why:?}");
    }
}

fn record(id: &str, ecosystem: &str, package: &str, events: Value) -> Value {
    json!({
        "id": id,
        "modified": "2026-11-30T00:00:00Z",
        "affected": [{
            "package": { "ecosystem": ecosystem, "name": package },
            "ranges": [{ "type": "ECOSYSTEM", "events": events }],
        }],
    })
}

fn lines(records: &[Value]) -> String {
    records.iter().map(|record| format!("{record}\n")).collect()
}

#[test]
fn a_site_has_exactly_what_is_about_its_versions() {
    use PartKind::{Program, Python, System};
    let trial = Trial::new(&[("pypdf", "6.6.0"), ("Zope.Interface", "5.4"), ("urllib3", "2.6.3")]);
    let before = |version: &str| json!([{ "introduced": "0" }, { "fixed": version }]);
    let mut withdrawn = record("GHSA-withdrawn", "PyPI", "pypdf", before("7"));
    withdrawn["withdrawn"] = json!("2026-11-01T00:00:00Z");
    let mut alias = record("PYSEC-1", "PyPI", "PyPDF", before("6.6.2"));
    alias["aliases"] = json!(["GHSA-1"]);
    let mut subscribers = record("DSA-9", "Debian:12", "bash", json!([{ "introduced": "0" }]));
    subscribers["upstream"] = json!(["CVE-9"]);
    trial.write(
        "pypi.json",
        json!([
            record("GHSA-1", "PyPI", "pypdf", before("6.6.2")),
            alias,
            withdrawn,
            record("GHSA-older", "PyPI", "pypdf", before("6.6.0")),
            record("GHSA-2", "PyPI", "zope-interface", before("5.5")),
            record("GHSA-other", "PyPI", "other", before("99")),
            record("GHSA-npm", "npm", "pypdf", before("99")),
        ])
        .to_string(),
    );
    trial.write(
        "more/system.jsonl",
        lines(&[
            record("DEBIAN-CVE-1", "Debian:12", "openssl", before("3.0.15-1~deb12u2")),
            record("DEBIAN-CVE-2", "Debian:12", "openssl", before("3.0.15-1~deb12u1")),
            record("DEBIAN-CVE-3", "Debian:13", "openssl", before("99")),
            subscribers,
            record("RUSTSEC-1", "crates.io", "serde_json", before("99.0.0")),
            record("RUSTSEC-2", "crates.io", "serde_json", before("1.0.0")),
        ]),
    );
    let crates = SiteParts::of(&trial.host).unwrap();
    let version = &crates.find(Program, "serde_json").1[0].version;
    assert_eq!(
        trial.found(),
        [
            "pypdf 6.6.0 GHSA-1",
            "zope-interface 5.4 GHSA-2",
            &format!("serde_json {version} RUSTSEC-1"),
            "bash 5.2.15-2 DSA-9",
            "openssl 3.0.15-1~deb12u1 CVE-1",
        ]
    );
    let flaws = trial.examine().unwrap().flaws;
    assert_eq!(flaws[0].aliases, ["PYSEC-1"]);
    let endings: Vec<String> = flaws.iter().map(|flaw| flaw.ending.to_string()).collect();
    assert_eq!(endings[2], "a newer version of camcops-provision");
    assert_eq!(endings[3], "no known fix");
    assert_eq!(endings[4], "`apt-get install --only-upgrade libssl3 openssl`");
    let kinds = trial.examine().unwrap().kinds(7);
    let told: Vec<_> = kinds.iter().map(|kind| (kind.kind, kind.parts > 0, kind.open, kind.advisories)).collect();
    assert_eq!(told, [(Python, true, 2, 6), (Program, true, 1, 2), (System, true, 2, 3)]);
}

#[test]
fn a_flaw_that_came_back_is_not_ended_by_what_has_it_again() {
    let trial = Trial::new(&[("pypdf", "6.6.0")]);
    let mut one = record("GHSA-1", "PyPI", "pypdf", json!([{ "introduced": "0" }, { "fixed": "6.7" }]));
    let ending = |one: &Value| {
        trial.write("a.json", one.to_string());
        trial.examine().unwrap().flaws.remove(0).ending
    };
    assert!(matches!(ending(&one), FlawEnding::Release { version: Some(_), .. }));
    let again = record("GHSA-1", "PyPI", "PyPDF", json!([{ "introduced": "7.0" }]));
    one["affected"].as_array_mut().unwrap().push(again["affected"][0].clone());
    assert_eq!(ending(&one), FlawEnding::Nothing);
}

#[test]
fn what_is_packed_or_of_debsecan_is_read_too() {
    let trial = Trial::new(&[("pypdf", "6.6.0")]);
    let text = record("GHSA-1", "PyPI", "pypdf", json!([{ "introduced": "0" }])).to_string();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(text.as_bytes()).unwrap();
    let data = "VERSION 1\nCVE-1,,a flaw\n\nbash,0,SHRF,5.3-1,\n\n";
    let mut compressed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    compressed.write_all(data.as_bytes()).unwrap();
    trial.write("all.json.gz", packed.finish().unwrap()).write("bookworm", compressed.finish().unwrap());
    trial.write("list", "CVE-2 libssl3 (fixed)\nCVE-3 absent\nCVE-1 bash (fixed)\n").write("README.md", "no advisory");
    assert_eq!(trial.found(), ["pypdf 6.6.0 GHSA-1", "bash 5.2.15-2 CVE-1", "openssl 3.0.15-1~deb12u1 CVE-2"]);
    let source = &trial.examine().unwrap().sources[0];
    assert_eq!((source.files, source.left_out), (3, 1));
}

#[test]
fn what_debsecan_says_is_new_and_may_be_nothing() {
    let trial = Trial::new(&[("pypdf", "6.6.0")]);
    let asked = |list: &str| Examination::of(&trial.host, &[], Some(list));
    let state = |examination: &Examination| {
        let kinds = examination.kinds(7);
        kinds.iter().find(|kind| kind.kind == PartKind::System).unwrap().state
    };
    assert_eq!(state(&asked("").unwrap()), AdvisoryState::Clean);
    let told =
        asked("CVE-1 (fixed)\n  a flaw\n  installed: bash 5.2.15-2+b7\n\nCVE-2\n  x\n  installed: bash 5.2.15-2\n")
            .unwrap();
    assert_eq!(state(&told), AdvisoryState::Open);
    // The second is about a version that is not installed any more.
    assert_eq!(
        (told.flaws.len(), told.flaws[0].ending.to_string()),
        (1, "`apt-get install --only-upgrade bash`".into())
    );
    assert_eq!(Exit::of(&asked("Traceback").unwrap_err()), Exit::Unreachable);
}

#[test]
fn what_a_bundle_brings_says_the_same_and_what_it_was_chosen_from() {
    let trial = Trial::new(&[("pypdf", "6.6.0")]);
    let now = OffsetDateTime::now_utc().format(&Rfc3339).unwrap();
    let dated = |mut record: Value, date: &str| {
        record["modified"] = json!(date);
        record["details"] = json!("long ".repeat(1000));
        record
    };
    let always = || json!([{ "introduced": "0" }]);
    let mut withdrawn = record("GHSA-2", "PyPI", "pypdf", always());
    withdrawn["withdrawn"] = json!("2026-01-01T00:00:00Z");
    trial.write(
        "pypi.jsonl",
        lines(&[
            dated(record("GHSA-1", "PyPI", "pypdf", always()), "2024-01-01T00:00:00Z"),
            // Nothing that the site has: but it says how new the list is.
            dated(record("GHSA-3", "PyPI", "other", always()), &now),
            record("GHSA-4", "npm", "pypdf", always()),
            record("DEBIAN-CVE-5", "Debian:13", "bash", always()),
            withdrawn,
        ]),
    );
    let mut compressed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    compressed.write_all(b"VERSION 1\nCVE-1,,a flaw\n\nbash,0,SHRF,5.3-1,\n\n").unwrap();
    trial.write("bookworm", compressed.finish().unwrap());
    let found = trial.found();
    assert_eq!(found, ["pypdf 6.6.0 GHSA-1", "bash 5.2.15-2 CVE-1"]);

    let out = trial.home.path().join("root/osv.json");
    let given = fs::canonicalize(trial.given()).unwrap();
    let compact = |to: &str| compact_advisories(&trial.host, &[given.to_str().unwrap().to_owned()], to);
    let covers = compact("/osv.json").unwrap();
    assert_eq!(covers.keys().collect::<Vec<_>>(), ["Debian:12", "PyPI"]);
    assert_eq!((covers["PyPI"].records, &covers["PyPI"].modified[..10]), (3, &now[..10]));
    let text = fs::read_to_string(&out).unwrap();
    assert!(text.len() < 1500 && !text.contains("npm") && !text.contains("GHSA-2"), "{text}");
    fs::remove_dir_all(&given).unwrap();
    fs::create_dir(&given).unwrap();
    fs::rename(&out, given.join("osv.json")).unwrap();
    assert_eq!(trial.found(), found);
    let told = trial.examine().unwrap().kinds(7);
    assert_eq!((told[0].advisories, told[0].is_fresh, told[2].advisories), (3, true, 1));
    // And again, of itself.
    assert_eq!(compact("/again.json").unwrap(), covers);

    trial.write("list", "CVE-1 bash\n");
    assert!(compact("/other.json").unwrap_err().to_string().contains("is about one machine"));
    fs::remove_file(given.join("list")).unwrap();
    trial.write("osv.json", record("GHSA-4", "npm", "pypdf", always()).to_string());
    assert!(compact("/none.json").unwrap_err().to_string().contains("no advisory about PyPI, crates.io or Debian:12"));
}

#[test]
fn the_directory_of_the_site_is_read_where_it_is_roots() {
    let trial = Trial::new(&[("pypdf", "6.6.0")]);
    let own = trial.home.path().join("root").join(&ADVISORIES[1..]);
    fs::create_dir_all(&own).unwrap();
    fs::write(own.join("one.json"), record("GHSA-1", "PyPI", "pypdf", json!([{ "introduced": "0" }])).to_string())
        .unwrap();
    let examine = || Examination::of(&trial.host, &[], None);
    assert_eq!(examine().unwrap().flaws.len(), 1);
    // What everybody can write says nothing.
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(own.join("one.json"), fs::Permissions::from_mode(0o666)).unwrap();
    let why = examine().unwrap_err();
    assert_eq!(Exit::of(&why), Exit::CannotCreate, "{why:#}");
}

#[test]
fn old_advisories_make_nothing_clean() {
    let trial = Trial::new(&[("pypdf", "6.6.0")]);
    let now = OffsetDateTime::now_utc();
    let one = |id: &str, days: i64| {
        let mut one = record(id, "PyPI", "pypdf", json!([{ "introduced": "9" }]));
        one["modified"] = json!((now - Duration::days(days)).format(&Rfc3339).unwrap());
        one
    };
    let state = || {
        let kind = trial.examine().unwrap().kinds(7).remove(0);
        (kind.state, kind.age.map(|age| age.whole_days()))
    };
    trial.write("a.jsonl", lines(&[one("A", 30), one("B", 10)]));
    assert_eq!(state(), (AdvisoryState::NotKnown, Some(10)));
    trial.write("a.jsonl", lines(&[one("A", 30), one("B", 6)]));
    assert_eq!(state(), (AdvisoryState::Clean, Some(6)));
    // What comes from the future is not believed.
    trial.write("a.jsonl", lines(&[one("A", 30), one("B", -400)]));
    assert_eq!(state(), (AdvisoryState::NotKnown, Some(30)));
    // No advisories at all about two of three kinds.
    let states: Vec<AdvisoryState> = trial.examine().unwrap().kinds(60).iter().map(|kind| kind.state).collect();
    assert_eq!(states, [AdvisoryState::Clean, AdvisoryState::NotKnown, AdvisoryState::NotKnown]);
}

#[test]
fn a_few_new_advisories_do_not_renew_the_old_ones() {
    let trial = Trial::new(&[("pypdf", "6.6.0")]);
    let now = OffsetDateTime::now_utc().format(&Rfc3339).unwrap();
    let mut fresh = record("GHSA-3", "PyPI", "pypdf", json!([{ "introduced": "9" }]));
    fresh["modified"] = json!(now);
    let old = |id: &str| {
        let mut old = record(id, "PyPI", "pypdf", json!([{ "introduced": "9" }]));
        old["modified"] = json!("2024-01-01T00:00:00Z");
        old
    };
    trial.write("old.jsonl", lines(&[old("GHSA-1"), old("GHSA-2")])).write("new.json", fresh.to_string());
    let paths = ["old.jsonl", "new.json"].map(|name| trial.given().join(name).to_str().unwrap().to_owned());
    let kinds = Examination::of(&trial.host, &paths, None).unwrap().kinds(7);
    assert_eq!((kinds[0].state, kinds[0].advisories), (AdvisoryState::NotKnown, 3));
}

#[test]
fn broken_files_are_told_with_their_lines() {
    let odd = record("GHSA-1", "PyPI", "pypdf", json!([{ "introduced": "0" }, { "fixed": "next week" }]));
    let mut undated = record("GHSA-1", "PyPI", "other", json!([]));
    undated["modified"] = json!("last week");
    for (name, text, words) in [
        ("a.json", "{\"id\": \"A\",\n".to_owned(), "a.json:2:0: EOF while parsing"),
        ("a.json", "[{\"id\": \"A\"}\n{\"id\": \"B\"}]".to_owned(), "a.json:2:1: expected `,` or `]`"),
        (
            "a.json",
            format!("{{\"id\": \"A\"}}\n{odd}\n"),
            "GHSA-1: pypdf: \"next week\" is not a version of Python packages",
        ),
        ("a.json", format!("\n\n{odd}"), "a.json:3:"),
        ("a.json", format!("\n{undated}"), "GHSA-1: modified: \"last week\" is not a time"),
        ("a.json", "{\"id\": \"\u{1b}[2J\", \"modified\": \"\u{1b}[2J\"}".to_owned(), "control character"),
        ("a.json", "{\"id\": \"\\u001b[2J\", \"modified\": \"x\", \"affected\": []}".to_owned(), "is not a time"),
        ("a.json", String::new(), "it is empty"),
        ("a.json", "  \n".to_owned(), "EOF while parsing a value"),
        ("a.json", "<html>".to_owned(), "neither JSON of OSV, nor"),
        ("a.json", "7".to_owned(), "neither JSON of OSV, nor"),
        ("list", "CVE-1 bash\nnothing\n".to_owned(), "list:2:1: not a line of debsecan's"),
        ("bookworm", "VERSION 1\nCVE-1,,x\n\nbash,7,S   ,,\n".to_owned(), "bookworm:4:1: not PACKAGE,NUMBER"),
        ("all.zip", "PK\u{3}\u{4}rest".to_owned(), "unzip"),
    ] {
        let trial = Trial::new(&[("pypdf", "6.6.0")]);
        trial.write(name, text).refused(name, words);
    }
    // What was cut on its way.
    let trial = Trial::new(&[("pypdf", "6.6.0")]);
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(format!("VERSION 1\nCVE-1,,x\n\n{}\n", "bash,0,S   ,1,\n".repeat(90_000)).as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    trial.write("bookworm", &packed).examine().unwrap();
    trial.write("bookworm", &packed[..packed.len() / 2]).refused("bookworm", "");
    let trial = Trial::new(&[]);
    trial.write("a.gz", b"\x1f\x8bnot packed").write("b.json", b"\xff\xfe").write("c", b"CVE-1 bash\n\xff\n");
    for words in ["a.gz:1:1: ", "b.json:1:1: it is not UTF-8", "c:2:1: it is not UTF-8"] {
        trial.refused("", words);
    }
}

#[test]
fn what_hangs_or_grows_elsewhere_does_not_here() {
    let trial = Trial::new(&[("pypdf", "6.6.0")]);
    let deep = format!("{{\"id\": \"A\", \"affected\": {}{}}}", "[".repeat(200_000), "]".repeat(200_000));
    trial.write("deep.json", deep).refused("deep.json", "invalid type");
    fs::remove_file(trial.given().join("deep.json")).unwrap();

    let sparse = fs::File::create(trial.given().join("sparse.json")).unwrap();
    sparse.set_len(5 << 30).unwrap();
    trial.refused("sparse.json", "far more than expected");
    // As large as it may be: nothing but zeros behind what looks right.
    (&sparse).write_all(b"[").unwrap();
    sparse.set_len(LARGEST_SPARSE).unwrap();
    trial.refused("sparse.json", "expected value");
    (&sparse).write_all(b"{\"id\": \"").unwrap();
    trial.refused("sparse.json", "control character");
    fs::remove_file(trial.given().join("sparse.json")).unwrap();

    // A record without an end, out of a small file.
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    bomb.write_all(b"{\"id\": \"").unwrap();
    for _ in 0..64 {
        bomb.write_all(&[b'a'; 1 << 20]).unwrap();
    }
    trial.write("bomb.json.gz", bomb.finish().unwrap()).refused("bomb.json.gz", "it is larger than");
    fs::remove_file(trial.given().join("bomb.json.gz")).unwrap();

    // A pipe and links in a directory are left out; where one is named, that is said.
    nix::unistd::mkfifo(&trial.given().join("pipe.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::os::unix::fs::symlink("/dev/zero", trial.given().join("link.json")).unwrap();
    std::os::unix::fs::symlink("link2.json", trial.given().join("link2.json")).unwrap();
    assert_eq!(trial.examine().unwrap().sources[0].left_out, 3);
    for (name, words) in
        [("pipe.json", "neither a regular file"), ("link.json", "neither a regular file"), ("absent", "no such file")]
    {
        let path = fs::canonicalize(trial.given()).unwrap().join(name);
        let why = Examination::of(&trial.host, &[path.to_str().unwrap().to_owned()], None).unwrap_err();
        assert!(Exit::of(&why) == Exit::Unusable && why.to_string().contains(words), "{why:#}");
    }
}

/// Large, and below the bound of a file.
const LARGEST_SPARSE: u64 = 3 << 30;

#[test]
fn texts_of_others_are_shown_as_they_can_do_no_harm() {
    let trial = Trial::new(&[("pypdf", "6.6.0")]);
    let mut one = record("GHSA-\u{202e}1\u{7}", "PyPI", "pypdf", json!([{ "introduced": "0" }]));
    one["summary"] = json!(format!("\u{1b}]0;title\u{7}\r\n{}", "x".repeat(1000)));
    one["aliases"] = json!(["CVE\n1"]);
    trial.write("a.json", one.to_string());
    let flaw = trial.examine().unwrap().flaws.remove(0);
    for text in [&flaw.id, &flaw.summary, &flaw.aliases[0]] {
        assert!(!text.contains(|c: char| c.is_control() || c == '\u{202e}') && text.chars().count() <= 201, "{text:?}");
    }
}

/// The pins of a list of this program, as a site has them.
fn pins_of(list: &str) -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("requirements/releases").join(list);
    let text = fs::read_to_string(path).unwrap();
    let pins = text.lines().filter_map(|line| line.split_once("=="));
    pins.map(|(name, version)| (name.to_owned(), version.to_owned())).collect()
}

/// By id, package and range, what was published until then about what CamCOPS 2.4.24 pins: what of it a list of pins has.
fn of_today(release: &str, minor: u8) -> Vec<SiteFlaw> {
    let pins = pins_of(&format!("{release}/python3.{minor}.txt"));
    let pins: Vec<(&str, &str)> = pins.iter().map(|(name, version)| (name.as_str(), version.as_str())).collect();
    let trial = Trial::on_python(minor, &pins);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/advisories/pypi-2026-11-30.jsonl");
    Examination::of(&trial.host, &[path.to_owned()], None).unwrap().flaws
}

#[test]
fn what_camcops_pins_has_all_that_was_published_and_a_newer_level_ends_it() {
    let flaws = of_today("2.4.24", 11);
    assert_eq!(flaws.len(), 108);
    let ended = flaws.iter().filter(|flaw| matches!(flaw.ending, FlawEnding::Release { .. }));
    assert_eq!(ended.count(), 105);
    let pypdf = flaws.iter().find(|flaw| flaw.package == "pypdf").unwrap();
    assert_eq!(pypdf.ending.to_string(), "`camcops-provision upgrade --to 2.4.24+1`, which has 7.1.1");
}

#[test]
fn the_newest_level_has_what_was_judged_and_nothing_else() {
    let judged = ["pdfkit GHSA-9g3x-6x24-vf9f", "setuptools GHSA-h35f-9h28-mq5c", "setuptools GHSA-xmj3-9gf7-h52w"];
    for minor in 10..=14 {
        let flaws = of_today("2.4.24+1", minor);
        assert!(flaws.iter().all(SiteFlaw::is_judged), "{flaws:?}");
        // What is newer than Python 3.10 can have is named there as well.
        if minor > 10 {
            let told: Vec<String> = flaws.iter().map(|flaw| format!("{} {}", flaw.package, flaw.id)).collect();
            assert_eq!(told, judged, "{minor}");
        }
    }
}
