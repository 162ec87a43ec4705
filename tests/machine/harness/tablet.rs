//! Tablets that upload while a test changes the machine, and what the site has of all that it promised them.

use super::booted::Booted;
use serde_json::Value;
use std::fs;
use std::time::{Duration, Instant};

const SCRIPT: &str = include_str!("tablet.py");
const HOME: &str = "/run/tablets";
/// How long it may take until each has had its first upload accepted, and until the last ones are compared.
const PATIENCE: Duration = Duration::from_secs(480);

/// Where the files of [`RECIPIENT`] are.
pub const EXPORTS: &str = "/srv/camcops/exports";

/// Settings with a recipient that gets each record when it is moved off a tablet: for a site that is [`prepared`].
pub const RECIPIENT: &str = r#"
[config."recipient:archive"]
TRANSMISSION_METHOD = "file"
PUSH = "True"
TASK_FORMAT = "xml"
ALL_GROUPS = "True"
PRIMARY_IDNUM = "1"
REQUIRE_PRIMARY_IDNUM_MANDATORY_IN_POLICY = "False"
FILE_PATIENT_SPEC = "{surname}"
FILE_PATIENT_SPEC_IF_ANONYMOUS = "anonymous"
FILE_FILENAME_SPEC = "/srv/camcops/exports/{tasktype}-{serverpk}.xml"
FILE_OVERWRITE_FILES = "True"
"#;

/// Makes the group, the user and the kind of number that the tablets need.
pub fn prepare(machine: &Booted) {
    fs::write(machine.path("/root/tablet.py"), SCRIPT).unwrap();
    machine.run("python3 /root/tablet.py prepare");
}

/// Makes the site one that exports what is uploaded, at once.
pub fn export(machine: &Booted) {
    let path = machine.path("/etc/camcops/provision.toml");
    let settings = fs::read_to_string(&path).unwrap_or_default();
    fs::write(path, settings + RECIPIENT).unwrap();
    machine.run(&format!(
        "install -d -o www-data -g www-data -m 700 {EXPORTS}; camcops-provision install --yes"
    ));
}

/// Tablets at work.
#[derive(Debug)]
pub struct Tablets<'a> {
    machine: &'a Booted,
}

impl<'a> Tablets<'a> {
    /// Lets some begin, the first of them with 1,500 records in its first upload; each has had one accepted when this
    /// returns.
    pub fn start(machine: &'a Booted, number: usize) -> Tablets<'a> {
        Tablets::with(machine, number, 1500)
    }

    /// The same with other work for the first one.
    pub fn with(machine: &'a Booted, number: usize, large: usize) -> Tablets<'a> {
        prepare(machine);
        machine.run(&format!(
            "rm -rf {HOME}; mkdir {HOME}
             setsid python3 /root/tablet.py {HOME} {number} {large} > {HOME}/out 2>&1 < /dev/null &"
        ));
        let tablets = Tablets { machine };
        tablets.wait_for("ready");
        tablets
    }

    /// Ends them: nothing that was accepted is missing or other than it was sent, and nothing is there twice. Gives the
    /// requests that failed, by operation.
    pub fn end(self) -> Value {
        let machine = self.machine;
        let report = self.report();
        if report["doubled"] != serde_json::json!({}) {
            let of = "journalctl --no-pager --output=short-precise --unit='camcops-server@*' | grep -E -B 40 -A 25 'IntegrityError' | tail -n 400";
            eprintln!("{}", machine.tried(of).1);
        }
        assert_eq!(report["doubled"], serde_json::json!({}), "{report:#}");
        report["failed"].clone()
    }

    /// Ends them, and gives all that they have to tell; what is there twice is for the caller to judge.
    pub fn report(self) -> Value {
        self.machine.run(&format!("touch {HOME}/stop"));
        self.wait_for("report.json");
        let report = fs::read(self.machine.path(&format!("{HOME}/report.json"))).unwrap();
        let report: Value = serde_json::from_slice(&report).unwrap();
        eprintln!(
            "tablets: {} records, {} accepted, failed: {}, twice: {}",
            report["records"], report["accepted"], report["failed"], report["doubled_rows"]
        );
        for wrong in ["missing", "different", "returned", "broken"] {
            assert_eq!(report[wrong], Value::Array(vec![]), "{wrong}: {report:#}");
        }
        assert_eq!(report["unsent"], 0, "{report:#}");
        assert!(report["records"].as_u64().unwrap() > 10, "{report:#}");
        report
    }

    fn wait_for(&self, name: &str) {
        let start = Instant::now();
        let there = || self.machine.path(&format!("{HOME}/{name}")).exists();
        while !there() {
            if start.elapsed() > PATIENCE {
                let said = self
                    .machine
                    .tried(&format!("cat {HOME}/out; journalctl --no-pager --lines=60"));
                panic!("{name} of the tablets did not come: {}", said.1);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}
