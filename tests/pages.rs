//! What a task looks like as a PDF document, by wkhtmltopdf and by WeasyPrint: with CamCOPS's own code. Pictures of the pages
//! side by side are kept in target/tmp/pages, to be looked at.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod judge;

use judge::{Said, camcops_python, script};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// As a release of one engine alone: the other one's package can't be loaded.
const WITHOUT_PDFKIT: &str = "import sys; sys.modules['pdfkit'] = None; import camcops_provision_pdf";

/// A machine without a font.
const NO_FONTS: &str = "<?xml version='1.0'?><!DOCTYPE fontconfig SYSTEM 'fonts.dtd'><fontconfig><dir>/nowhere</dir><cachedir>/nowhere</cachedir></fontconfig>";

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A home for a process of one engine, and the process.
fn python(engine: &str) -> (tempfile::TempDir, Command) {
    let home = tempfile::tempdir().unwrap();
    if engine == "weasyprint" {
        fs::copy(source("src/drivers/release/pdf_hook.py"), home.path().join("camcops_provision_pdf.py")).unwrap();
        fs::write(home.path().join("sitecustomize.py"), WITHOUT_PDFKIT).unwrap();
    }
    let demo =
        Said::by(Command::new(camcops_python()).args(["-m", "camcops_server.camcops_server", "demo_camcops_config"]));
    let config = home.path().join("camcops.conf");
    fs::write(&config, demo.out).unwrap();
    let mut command = Command::new(camcops_python());
    command.args(["-W", "ignore"]).env("PYTHONPATH", home.path()).env("HOME", home.path());
    command.env("CAMCOPS_CONFIG_FILE", config).env("PYTHONDONTWRITEBYTECODE", "1");
    (home, command)
}

/// Documents of tasks by an engine, and what is seen in them.
fn documents(engine: &str, into: &Path) -> Value {
    fs::create_dir_all(into).unwrap();
    let (home, mut command) = python(engine);
    let said = Said::by(
        command
            .args(["-m", "pytest", "-p", "no:cacheprovider", "-p", "camcops_server.conftest", "--database-in-memory"])
            .args(["--override-ini=log_cli=false", "--quiet", "--tb=short", "--show-capture=no", "--rootdir"])
            .arg(home.path())
            .arg(script("task_pages.py"))
            .env("PAGES", into)
            .current_dir(home.path()),
    );
    assert!(said.success, "{engine}: {}", said.all());
    let seen: Value = serde_json::from_slice(&fs::read(into.join("seen.json")).unwrap()).unwrap();
    seen["documents"].clone()
}

fn texts(document: &Value) -> Vec<&str> {
    document["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

/// Where pictures stay.
static PICTURES: LazyLock<PathBuf> = LazyLock::new(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("pages"));

/// The first page of a document by each engine, in one picture.
fn show(name: &str) {
    let mut pictures = Vec::new();
    for engine in ["wkhtmltopdf", "weasyprint"] {
        let file = PICTURES.join(engine).join(name);
        let drawn = Said::by(
            Command::new("pdftoppm")
                .args(["-r", "80", "-png", "-singlefile"])
                .arg(file.with_extension("pdf"))
                .arg(&file),
        );
        assert!(drawn.success, "{}", drawn.all());
        pictures.push(file.with_extension("png"));
    }
    let out = PICTURES.join(name).with_extension("png");
    let said = Said::by(Command::new(camcops_python()).arg(script("side_by_side.py")).arg(&out).args(&pictures));
    assert!(said.success, "{}", said.all());
    eprintln!("wkhtmltopdf and WeasyPrint: {}", out.display());
}

#[test]
fn pages_of_both_engines_have_the_same_in_them() {
    let [old, new] = ["wkhtmltopdf", "weasyprint"].map(|engine| documents(engine, &PICTURES.join(engine)));
    for name in ["phq9", "cape42", "note", "tracker"] {
        show(name);
        for (engine, document) in [("wkhtmltopdf", &old[name]), ("WeasyPrint", &new[name])] {
            let all = texts(document).join(" ");
            assert!(all.contains("ŁUKASIEWICZ") && all.contains("30 March 1979"), "{engine} {name}: {all}");
            assert!(!document["embedded"].as_array().unwrap().is_empty(), "{engine} {name}: {document}");
            assert_eq!(document["missing"], Value::Array(vec![]), "{engine} {name}: {document}");
            for size in document["sizes"].as_array().unwrap() {
                assert_eq!(size.to_string(), "[595,842]", "{engine} {name}");
            }
        }
        // Not longer than before.
        let pages = texts(&new[name]);
        assert_eq!(pages.len(), texts(&old[name]).len(), "{name}");
        for (number, text) in pages.iter().enumerate() {
            let place = format!("Page {} of {}.", number + 1, pages.len());
            assert!(text.contains(&place), "{name}, page {}: {text}", number + 1);
            assert!(text.contains("DOB: 30 Mar 1979"), "{name}, page {}: {text}", number + 1);
        }
    }
    let first = texts(&new["phq9"])[0];
    for answer in ["1. Little interest or pleasure in doing things 1 — Several days", "Total score 13 / 27"] {
        assert!(first.contains(answer), "{first}");
    }
    // What somebody has written is text.
    for document in [&old, &new] {
        let note = texts(&document["note"]).join(" ");
        assert!(note.contains("<b>плохо</b>"), "{note}");
        assert!((0..2000).all(|n| note.contains(&format!("word{n}"))), "{note}");
    }
    // An answer is on the page of its question.
    for number in 1..=42 {
        let is_answered = |text: &str| {
            let question = format!(" {text}");
            question.split(&format!(" {number}. ")).skip(1).any(|rest| {
                let answer = rest.split_once("? (").and_then(|(_, kind)| kind.split_once(") "));
                answer.is_some_and(|(_, answer)| answer.starts_with(&format!("{} 1", number % 4 + 1)))
            })
        };
        assert!(texts(&new["cape42"]).into_iter().any(is_answered), "{number}: {}", new["cape42"]);
    }
}

#[test]
fn the_doctor_looks_into_the_page() {
    let judged = |engine: &str, more: &[(&str, &Path)]| {
        let (_home, mut command) = python(engine);
        let check = fs::read_to_string(source("src/doctor/end_to_end/pdf.py")).unwrap();
        Said::by(command.args(["-c", &check]).envs(more.iter().copied()))
    };
    let home = tempfile::tempdir().unwrap();
    let no_fonts = home.path().join("fonts.conf");
    fs::write(&no_fonts, NO_FONTS).unwrap();
    for engine in ["wkhtmltopdf", "weasyprint"] {
        let said = judged(engine, &[]);
        assert!(said.success && said.out.contains(" bytes with the font "), "{engine}: {}", said.all());
        let said = judged(engine, &[("FONTCONFIG_FILE", &no_fonts)]);
        let words = "this machine has no font: install a font (on Debian the package fonts-dejavu-core)";
        assert!(!said.success && said.err.contains(words), "{engine}: {}", said.all());
    }
    let said = judged("wkhtmltopdf", &[("PATH", home.path())]);
    assert!(!said.success && said.err.contains("No wkhtmltopdf executable found"), "{}", said.all());
}

/// Kilobytes that a process of the web server has more of after twenty more documents.
const GROWTH: &str = "
import sys
sys.argv = ['camcops_server', 'serve_gunicorn']
from camcops_server.cc_modules.cc_pdf import pdf_from_html
def make(number):
    for _ in range(number):
        pdf_from_html(None, '<html><head></head><body>A page</body></html>')
def resident():
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * 4
make(5)
before = resident()
make(20)
print(resident() - before)";

#[test]
fn a_process_does_not_grow_with_each_document() {
    let (_home, mut command) = python("weasyprint");
    let said = Said::by(command.args(["-c", GROWTH]));
    assert!(said.success, "{}", said.all());
    let grown: i64 = said.out.trim().parse().unwrap();
    assert!(grown < 2000, "{grown} kB");
}
