//! CamCOPS's own tests judge the releases as this program builds them, with the environment of the services: a level is
//! only published when they pass on each Python.

use crate::harness::booted::{Booted, possible};
use crate::harness::installed::{bare_ground_of, installed};
use serde_json::Value;

/// A release of which fewer pass is none.
const ENOUGH: u64 = 700;

#[test]
#[ignore = "thorough: CamCOPS's own tests take five minutes, and they are run twice"]
fn python_3_11_passes_them_in_memory_and_on_the_server() {
    let Some((machine, _)) = installed() else {
        return;
    };
    let list = "mariadb --skip-column-names --execute 'SHOW DATABASES; SELECT user FROM mysql.user ORDER BY 1'";
    let before = machine.run(list);
    passes(&machine, "");
    passes(&machine, "--server");
    assert_eq!(machine.run(list), before);
    machine.run("camcops-provision status --exit-code");
    let (code, _, why) = machine.tried("camcops-provision releases test 2.4.99-py3.11-00000000");
    assert_eq!(code, 64, "{why}");
    assert!(why.contains("releases list"), "{why}");
}

#[test]
#[ignore = "thorough: CamCOPS's own tests take five minutes"]
fn python_3_10_passes_them() {
    judges("jammy", 10, "libmagickwand-6.q16-6");
}

#[test]
#[ignore = "thorough: CamCOPS's own tests take five minutes"]
fn python_3_12_passes_them() {
    judges("noble", 12, "libmagickwand-6.q16-7t64");
}

#[test]
#[ignore = "thorough: CamCOPS's own tests take five minutes"]
fn python_3_13_passes_them() {
    judges("trixie", 13, "libmagickwand-7.q16-10");
}

#[test]
#[ignore = "thorough: CamCOPS's own tests take five minutes"]
fn python_3_14_passes_them() {
    judges("resolute", 14, "libmagickwand-7.q16-10");
}

/// With nothing but the release.
fn judges(distribution: &str, minor: u8, magick: &str) {
    if !possible() {
        return;
    }
    let machine = Booted::on(bare_ground_of(distribution, minor, magick));
    machine.run(
        "camcops-provision install --yes --wheelhouse /srv/wheelhouse --only packages,accounts,directories,application",
    );
    let built = machine.run("camcops-provision releases list");
    assert!(built.contains(&format!("-py3.{minor}-")), "{built}");
    passes(&machine, "");
}

fn passes(machine: &Booted, more: &str) {
    let (code, out, why) = machine.tried(&format!("camcops-provision --json releases test {more}"));
    eprintln!("{out}");
    assert_eq!(code, 0, "{out}{why}");
    let told: Value = serde_json::from_str(&out).unwrap();
    assert!(told["passed"].as_u64().unwrap() >= ENOUGH, "{out}");
    assert_eq!(told["failed"], Value::Array(Vec::new()), "{out}");
    machine.run("test ! -e /run/camcops-provision/tests");
}
