//! The table of keys, judged by the installed CamCOPS.

use crate::judge::{camcops_python, script};
use std::io::Write;
use std::process::{Command, Stdio};

use camcops_provision::camcops_conf::{ConfSection, KEYS, keys};

#[test]
fn camcops_knows_the_same_keys() {
    let mut judge = Command::new(camcops_python())
        .args(["-W", "ignore"])
        .arg(script("camcops_keys.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let table = serde_json::to_vec(KEYS).unwrap();
    judge.stdin.take().unwrap().write_all(&table).unwrap();
    let answer = judge.wait_with_output().unwrap();
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stdout));
}

#[test]
fn sections_are_told_by_their_headers() {
    assert_eq!(ConfSection::of("recipient:x"), Some(ConfSection::Recipient));
    assert_eq!(ConfSection::of("sms_backend:twilio"), Some(ConfSection::Twilio));
    for header in ["recipient", "recipient:", "Site", "sms_backend:console", "DEFAULT"] {
        assert_eq!(ConfSection::of(header), None, "{header}");
    }
}

#[test]
fn a_misspelt_key_finds_its_neighbour() {
    let nearest = |section, name| keys::nearest_key(section, name).map(|key| key.name);
    assert_eq!(nearest("site", "EMAIL_HOSTS"), Some("EMAIL_HOST"));
    assert_eq!(nearest("recipient:x", "DBURL"), Some("DB_URL"));
    assert_eq!(nearest("server", "gunicorn_timeout"), Some("GUNICORN_TIMEOUT_S"));
    assert_eq!(nearest("site", "XYZZY"), None);
    assert!(keys::find_key("site", "db_url").is_some());
    assert!(keys::find_key("server", "DB_URL").is_none());
}
