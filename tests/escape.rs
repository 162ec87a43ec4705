//! Every escaper, judged by the programs that read the files: what is written is read back as it was, or refused.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod judge;

use camcops_provision::recipe::render::Format;
use camcops_provision::recipe::render::render_template;
use judge::{Judge, Machine, camcops_python, nasty, script};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::json;
use std::cell::RefCell;
use std::process::Command;

/// What no value may have in a kind of file, and why; everything else must be carried.
const REFUSED: &[(Format, &str, &str)] = &[
    (Format::Apache, "${", "Apache puts a variable there, and has no way to write it otherwise"),
    (Format::Supervisor, ";", "after any kind of blank, supervisor takes it for a comment, even inside quotes"),
    (Format::Supervisor, "#", "after any kind of blank, supervisor takes it for a comment, even inside quotes"),
    (Format::Supervisor, "\"", "its quoting differs from key to key"),
    (Format::Supervisor, "'", "its quoting differs from key to key"),
    (Format::Supervisor, "\\", "its quoting differs from key to key"),
    (Format::Supervisor, "%", "it is expanded once in some keys and twice in others"),
    (Format::Mysql, "\\", "a server's client takes it for an escape, PyMySQL for itself"),
    (Format::Mysql, "\"", "PyMySQL knows no way to write it inside of quotes"),
    (Format::Mysql, "'", "PyMySQL takes quotes off both ends, whichever they are"),
];

fn may_be_refused(format: Format, value: &str) -> bool {
    let listed = REFUSED.iter().any(|(of, mark, _)| *of == format && value.contains(mark));
    // None of these files has a way to write a control character that all its readers know.
    listed
        || value.chars().any(char::is_control)
        || match format {
            Format::Ini => value.trim() != value || value.contains(['\u{2028}', '\u{2029}']),
            Format::Mysql => !value.is_ascii(),
            Format::Xml => value.contains(['\u{fffe}', '\u{ffff}']),
            _ => false,
        }
}

/// Renders many values into a template and has the judge read them back.
fn judged(cases: u32, format: Format, template: &str, judge: Judge) {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let judge = RefCell::new(judge);
    let carried = RefCell::new(0);
    let outcome = TestRunner::new(config).run(&nasty(), |value| {
        match render_template("judged", format, template, &json!({ "v": value })) {
            Ok(text) => {
                let answer = judge.borrow_mut().ask(&text);
                let values = answer["values"].as_array().cloned().unwrap_or_default();
                prop_assert!(!values.is_empty(), "{text}\n{answer}");
                for read in values {
                    prop_assert_eq!(read.as_str(), Some(value.as_str()), "{}", text);
                }
                *carried.borrow_mut() += 1;
            }
            Err(why) => prop_assert!(may_be_refused(format, &value), "{value:?}: {why:#}"),
        }
        Ok(())
    });
    if let Err(why) = outcome {
        panic!("{why}");
    }
    assert!(carried.take() * 5 > cases, "too few values were judged");
}

#[test]
fn ini_as_camcops_reads_it() {
    let mut judge = Judge::here("configparser_reader.py");
    let mut read = |text: &str| judge.ask(&text)["read"]["site"]["v"].clone();
    assert_eq!(read("[site]\nV = 100%%\n"), "100%");
    let judge = RefCell::new(judge);
    let config = ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() };
    let outcome = TestRunner::new(config).run(&nasty(), |value| {
        let template = "[site]\nV = {{v}}\nW = 1\n";
        match render_template("judged", Format::Ini, template, &json!({ "v": value })) {
            Ok(text) => {
                let answer = judge.borrow_mut().ask(&text);
                prop_assert_eq!(&answer["read"], &json!({ "site": { "v": value, "w": "1" } }), "{}", text);
            }
            Err(why) => prop_assert!(may_be_refused(Format::Ini, &value), "{value:?}: {why:#}"),
        }
        Ok(())
    });
    if let Err(why) = outcome {
        panic!("{why}");
    }
}

#[test]
fn apache_reads_it_back() {
    let machine = Machine::new();
    let judge = machine.judge("read_back.py", &["apache"]);
    judged(256, Format::Apache, "Define V \"{{v}}\"\n", judge);
}

#[test]
fn systemd_reads_it_back() {
    let machine = Machine::new();
    let judge = machine.judge("read_back.py", &["systemd"]);
    let template = "Environment=\"1={{v}}\"\nReadWritePaths=\"-0={{v}}\"\n";
    judged(192, Format::Systemd, template, judge);
}

#[test]
fn supervisor_reads_it_back() {
    let machine = Machine::new();
    let judge = machine.judge("read_back.py", &["supervisor"]);
    let template = "[program:x]\ncommand = /bin/echo \"{{v}}\"\nenvironment = V=\"{{v}}\",W=\"1\"\n";
    judged(512, Format::Supervisor, template, judge);
}

#[test]
fn mariadb_s_programs_read_it_back() {
    let machine = Machine::new();
    let judge = machine.judge("read_back.py", &["mariadb"]);
    judged(256, Format::Mysql, "[client]\nuser = \"{{v}}\"\n", judge);
}

#[test]
fn pymysql_reads_it_back() {
    let judge = Judge::start(Command::new(camcops_python()).arg(script("read_back.py")).arg("pymysql"));
    let template = "[client]\npassword = \"{{v}}\"\n";
    judged(512, Format::Mysql, template, judge);
}

#[test]
fn python_reads_it_back() {
    let machine = Machine::new();
    let judge = machine.judge("read_back.py", &["python"]);
    judged(512, Format::Python, "\"{{v}}\"", judge);
}

#[test]
fn shells_read_it_back() {
    let machine = Machine::new();
    for shell in ["dash", "bash"] {
        let judge = machine.judge("read_back.py", &[shell]);
        judged(256, Format::Shell, "printf %s '{{v}}'", judge);
    }
}

#[test]
fn xml_reads_it_back() {
    let machine = Machine::new();
    let judge = machine.judge("read_back.py", &["xml"]);
    judged(512, Format::Xml, "<x a=\"{{v}}\">{{v}}</x>", judge);
}

/// A value is only refused where writing it would go wrong: here it is written, as well as one could.
#[test]
fn what_is_refused_could_not_be_carried() {
    let machine = Machine::new();
    let cases = [
        ("apache", Format::Apache, "a${b}", r#"Define V "a\${b}""#),
        (
            "supervisor",
            Format::Supervisor,
            "a ;b",
            "[program:x]\ncommand = x\nstdout_logfile = /x\nenvironment = V=\"a ;b\"",
        ),
        (
            "supervisor",
            Format::Supervisor,
            "a%",
            "[program:x]\ncommand = x\nstdout_logfile = /a%%\nenvironment = V=\"a%%\"",
        ),
        ("mariadb", Format::Mysql, r"a\nb", "[client]\nuser = \"a\\nb\""),
    ];
    for (reader, format, value, written) in cases {
        assert!(format.escaped(value).is_err(), "{value}");
        let answer = machine.judge("read_back.py", &[reader]).ask(&written);
        assert_ne!(answer["values"][0], value, "{reader}");
    }
}
