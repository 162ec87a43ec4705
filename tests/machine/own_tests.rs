//! CamCOPS's own tests judge the release as this program builds it, with the environment of the services.

use crate::harness::installed::installed;
use serde_json::Value;

/// A release of which fewer pass is none.
const ENOUGH: u64 = 700;

#[test]
#[ignore = "thorough: CamCOPS's own tests take five minutes, and they are run twice"]
fn the_release_passes_upstreams_tests_in_memory_and_on_the_server() {
    let Some((machine, _)) = installed() else {
        return;
    };
    let list = "mariadb --skip-column-names --execute 'SHOW DATABASES; SELECT user FROM mysql.user ORDER BY 1'";
    let before = machine.run(list);
    for more in ["", "--server"] {
        let (code, out, why) = machine.tried(&format!("camcops-provision --json releases test {more}"));
        eprintln!("{out}");
        assert_eq!(code, 0, "{out}{why}");
        let told: Value = serde_json::from_str(&out).unwrap();
        assert!(told["passed"].as_u64().unwrap() >= ENOUGH, "{out}");
        assert_eq!(told["failed"], Value::Array(Vec::new()), "{out}");
        assert_eq!(machine.run(list), before);
        machine.run("test ! -e /run/camcops-provision/tests; camcops-provision status --exit-code");
    }
    let (code, _, why) = machine.tried("camcops-provision releases test 2.4.99-py3.11-00000000");
    assert_eq!(code, 64, "{why}");
    assert!(why.contains("releases list"), "{why}");
}
