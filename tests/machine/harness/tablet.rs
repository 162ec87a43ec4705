//! Tablets that upload while a test changes the machine, and what the site has of all that it promised them.

use super::Machine;
use super::booted::Booted;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const SCRIPT: &str = include_str!("tablet.py");
const HOME: &str = "/run/tablets";
/// How long it may take until each has had its first upload accepted, and until the last ones are compared.
const PATIENCE: Duration = Duration::from_secs(480);
/// How many seconds after something was away a request may still fail of it.
const GRACE: f64 = 3.0;

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

/// A machine of either kind.
pub trait Place: Debug {
    /// A path inside, as the host sees it.
    fn inside(&self, path: &str) -> PathBuf;
    /// Runs a shell script, which must succeed.
    fn done(&self, script: &str) -> String;
}

impl Place for Booted {
    fn inside(&self, path: &str) -> PathBuf {
        self.path(path)
    }
    fn done(&self, script: &str) -> String {
        self.run(script)
    }
}

impl Place for Machine {
    fn inside(&self, path: &str) -> PathBuf {
        self.path(path)
    }
    fn done(&self, script: &str) -> String {
        self.run(script)
    }
}

/// Makes the group, the user and the kind of number that the tablets need.
pub fn prepare(machine: &dyn Place) {
    fs::write(machine.inside("/root/tablet.py"), SCRIPT).unwrap();
    machine.done("python3 /root/tablet.py prepare");
}

/// Makes the site one that exports what is uploaded, at once.
pub fn export(machine: &Booted) {
    let path = machine.path("/etc/camcops/provision.toml");
    let settings = fs::read_to_string(&path).unwrap_or_default();
    fs::write(path, settings + RECIPIENT).unwrap();
    machine.run(&format!("install -d -o www-data -g www-data -m 700 {EXPORTS}; camcops-provision install --yes"));
}

/// Tablets at work.
#[derive(Debug)]
pub struct Tablets<'a> {
    machine: &'a dyn Place,
    began: Instant,
    /// When something was away on purpose.
    away: RefCell<Vec<(f64, f64)>>,
}

impl<'a> Tablets<'a> {
    /// Lets some begin, the first of them with 1,500 records in its first upload; each has had one accepted when this
    /// returns.
    pub fn start(machine: &'a dyn Place, number: usize) -> Tablets<'a> {
        Tablets::with(machine, number, 1500)
    }

    /// The same with other work for the first one.
    pub fn with(machine: &'a dyn Place, number: usize, large: usize) -> Tablets<'a> {
        Tablets::begin(machine, number, large, "")
    }

    /// A few that leave the processors to what the test is about: each rests for some seconds between two uploads.
    pub fn few(machine: &'a dyn Place) -> Tablets<'a> {
        Tablets::begin(machine, 4, 40, "REST=12")
    }

    /// Some whose uploads first fail in the middle.
    pub fn clumsy(machine: &'a dyn Place, number: usize) -> Tablets<'a> {
        Tablets::begin(machine, number, 40, "CLUMSY=1 REST=0")
    }

    fn begin(machine: &'a dyn Place, number: usize, large: usize, how: &str) -> Tablets<'a> {
        let began = Instant::now();
        prepare(machine);
        machine.done(&format!(
            "rm -rf {HOME}; mkdir {HOME}
             setsid env {how} python3 /root/tablet.py {HOME} {number} {large} > {HOME}/out 2>&1 < /dev/null &"
        ));
        let tablets = Tablets { machine, began, away: RefCell::default() };
        tablets.wait_for("ready");
        eprintln!("tablets after {:.0} s", began.elapsed().as_secs_f64());
        tablets
    }

    /// Does what takes the site away, or a part of it: what fails meanwhile is excused.
    pub fn excuse<T>(&self, what: impl FnOnce() -> T) -> T {
        let start = now();
        let done = what();
        self.away.borrow_mut().push((start, now() + GRACE));
        done
    }

    /// Ends them: nothing that was accepted is missing or other than it was sent, and nothing is there twice. Gives the
    /// requests that failed, by operation.
    pub fn end(self) -> Value {
        self.once()["failed"].clone()
    }

    /// The same, and no request failed but what was excused.
    pub fn end_unnoticed(self) {
        let away = self.away.borrow().clone();
        let report = self.once();
        for failure in report["failures"].as_array().unwrap() {
            // CamCOPS itself does not try again what its database could not do.
            let reason = failure["reason"].as_str().unwrap();
            let is_the_databases = reason.contains("(1213,") || reason.contains("(1020,");
            let is_excused = away.iter().any(|period| overlaps(failure, *period));
            assert!(is_the_databases || is_excused, "{failure:#} {away:?}");
        }
    }

    fn once(self) -> Value {
        let machine = self.machine;
        let report = self.report();
        if report["doubled"] != json!({}) {
            let of = "journalctl --no-pager --output=short-precise --unit='camcops-server@*' | grep -E -B 40 -A 25 'IntegrityError' | tail -n 400 || true";
            eprintln!("{}", machine.done(of));
        }
        assert_eq!(report["doubled"], json!({}), "{report:#}");
        report
    }

    /// Ends them where processes were killed at these times: what was sent again because its answer was lost with one of
    /// them may be there twice.
    pub fn end_after_kills(self, kills: &[f64]) {
        judge(&self.report(), kills);
    }

    /// Ends them, and gives all that they have to tell, but for what is there twice judged already.
    fn report(self) -> Value {
        let ending = Instant::now();
        self.machine.done(&format!("touch {HOME}/stop"));
        self.wait_for("report.json");
        let report = fs::read(self.machine.inside(&format!("{HOME}/report.json"))).unwrap();
        let report: Value = serde_json::from_slice(&report).unwrap();
        eprintln!(
            "tablets: {} records, {} accepted, failed: {}, twice: {}; {:.0} s, the last {:.0} s of them to the end",
            report["records"],
            report["accepted"],
            report["failed"],
            report["doubled_rows"],
            self.began.elapsed().as_secs_f64(),
            ending.elapsed().as_secs_f64()
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
        let there = || self.machine.inside(&format!("{HOME}/{name}")).exists();
        while !there() {
            if start.elapsed() > PATIENCE {
                let said = format!("cat {HOME}/out; journalctl --no-pager --lines=60 || true");
                let said = self.machine.done(&said);
                panic!("{name} of the tablets did not come: {said}");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// The seconds since 1970, as the tablets count them.
pub fn now() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs_f64()
}

/// Whether a request was under way in a period.
fn overlaps(failure: &Value, (start, end): (f64, f64)) -> bool {
    let (began, at) = (&failure["began"], &failure["at"]);
    began.as_f64().unwrap() <= end && start <= at.as_f64().unwrap()
}

/// Nothing is there twice but what was sent again because its answer was lost with a process that was killed.
fn judge(report: &Value, kills: &[f64]) {
    let mut excused = BTreeMap::new();
    for (upload, told) in report["doubled"].as_object().unwrap() {
        let failed = told["failed"].as_array().unwrap();
        let is_lost = |one: &Value| kills.iter().any(|kill| overlaps(one, (kill - 1.0, kill + 1.0)));
        assert!(failed.iter().any(is_lost), "{upload}: {told:#}");
        excused.insert(upload, told["rows"].as_u64().unwrap());
    }
    eprintln!(
        "twice because a process was killed: {} rows of {} uploads",
        excused.values().sum::<u64>(),
        excused.len()
    );
}
