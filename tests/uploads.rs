//! What becomes of an upload when the broker is away, and of one that fails: with CamCOPS's own code.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod judge;

use judge::{Said, camcops_python, script};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

/// What the real ones say in /usr/share/camcops/python.
fn put_templates(home: &Path) {
    for name in ["sitecustomize.py", "camcops_unsent.py"] {
        let template = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("templates/{name}.hbs"));
        let text = fs::read_to_string(template).unwrap();
        fs::write(home.join(name), text.replace("{{managed_shared}}", "")).unwrap();
    }
}

/// Runs a judge with the hook, in a home of its own: it finds all as it should be.
fn judged(name: &str, arguments: &[&str]) {
    let home = tempfile::tempdir().unwrap();
    put_templates(home.path());
    let said = Said::by(
        Command::new(camcops_python())
            .args(["-W", "ignore"])
            .arg(script(name))
            .args(arguments)
            .env("PYTHONPATH", home.path())
            .env("HOME", home.path())
            .env("CAMCOPS_CONFIG_FILE", home.path().join("camcops.conf")),
    );
    assert!(
        said.success && said.out.ends_with("as expected\n"),
        "{}",
        said.all()
    );
}

#[test]
fn an_upload_is_no_failure_while_the_broker_is_away() {
    // It takes connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().port();
    judged("uploads.py", &[&silent.to_string()]);
}

#[test]
fn an_upload_that_fails_stores_nothing() {
    judged("failed_uploads.py", &[]);
}
