//! What the program has CamCOPS read before it puts a camcops.conf in the place of another.

use crate::judge::camcops_python;
use crate::template::written;
use serde_json::Value;
use std::fs;
use std::io::{Seek, Write};
use std::process::{Command, Stdio};

const RECIPIENTS: &str = r#"
[recipient:archive]
TRANSMISSION_METHOD = file
TASKS =
    phq9
    photo
    no_such_task
[recipient:two]
TRANSMISSION_METHOD = hl7
ALL_GROUPS = True
TASK_FORMAT = doc
"#;

/// Where the texts of the CamCOPS that judges are.
fn strings() -> String {
    let venv = camcops_python().parent().unwrap().join("../lib");
    let found = fs::read_dir(venv).unwrap().flatten().find_map(|python| {
        let strings = python.path().join("site-packages/camcops_server/extra_strings");
        strings.exists().then_some(strings)
    });
    found.unwrap().to_str().unwrap().to_owned()
}

/// What CamCOPS refuses of a file: section and key of each, and all of its words.
fn refused(text: &str) -> (Vec<(String, String)>, String) {
    // On a machine they stand in the release.
    let text = text.replace("/usr/share/camcops/extra_strings", &strings());
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.rewind().unwrap();
    let child = Command::new(camcops_python())
        .args(["-W", "ignore", "-c"])
        .args([include_str!("../../src/session/trial/start.py"), "gunicorn"])
        .env("CAMCOPS_CONFIG_FILE", "/proc/self/fd/0")
        .stdin(file)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let all = answer["refused"].as_array().unwrap();
    let text = |one: &Value, field: &str| one[field].as_str().unwrap().to_owned();
    let places = all.iter().map(|one| (text(one, "section"), text(one, "key")));
    let words: Vec<String> = all.iter().map(|one| text(one, "text")).collect();
    (places.collect(), words.join("\n"))
}

#[test]
fn all_that_recipients_lack_is_told_at_once() {
    let good = written(&[], "a-cookie");
    assert_eq!(refused(&good), (vec![], String::new()));
    let bad = good.replace("RECIPIENTS =", "RECIPIENTS =\n    archive\n    two") + RECIPIENTS;
    let (places, words) = refused(&bad);
    let places: Vec<String> = places.iter().map(|(section, key)| format!("{section} {key}")).collect();
    assert_eq!(
        places,
        [
            "recipient:archive GROUPS",
            "recipient:archive TASKS",
            "recipient:archive FILE_PATIENT_SPEC",
            "recipient:archive FILE_FILENAME_SPEC",
            "recipient:archive PRIMARY_IDNUM",
            "recipient:two PRIMARY_IDNUM",
            "recipient:two TASK_FORMAT",
            "recipient:two HL7_HOST",
        ],
        "{words}"
    );
    assert!(words.contains("Task 'no_such_task' doesn't exist"), "{words}");
}

#[test]
fn what_only_gunicorn_or_celery_refuses_is_told() {
    let good = written(&[], "a-cookie");
    let bad = good
        .replace("GUNICORN_TIMEOUT_S = ", "GUNICORN_TIMEOUT_S = -")
        .replace("SCHEDULE_TIMEZONE = ", "SCHEDULE_TIMEZONE = Mars/")
        .replace("EXPORT_TASK_RATE_LIMIT =", "EXPORT_TASK_RATE_LIMIT = fast");
    let (places, words) = refused(&bad);
    let keys: Vec<&str> = places.iter().map(|(_, key)| key.as_str()).collect();
    assert_eq!(keys, ["GUNICORN_TIMEOUT_S", "SCHEDULE_TIMEZONE", "CELERY_EXPORT_TASK_RATE_LIMIT"], "{words}");
    let (places, words) = refused(&good.replace("a-cookie", "half%of-a-secret"));
    assert_eq!(places[0].1, "SESSION_COOKIE_SECRET");
    assert!(!words.contains("half") && !words.contains("secret"), "{words}");
}
