//! `releases test`: CamCOPS's own tests in a release, beside the site that goes on.
//!
//! They run as an account that owns nothing, in a directory of its own, at the lowest priority; a database of the site's
//! server is made for them and goes again.

use super::super::{load_site, need_machine};
use crate::base::error::Exit;
use crate::base::report::Report;
use crate::base::terminal::{count_of, strip_controls};
use crate::base::text::encode_percent;
use crate::cli::{Global, OwnTests};
use crate::drivers::release;
use crate::drivers::sql::copy::load::{self, ScratchDatabase};
use crate::drivers::sql::schema::{CHARSET, COLLATION};
use crate::journal;
use crate::layout::RELEASES;
use crate::probe::Address;
use crate::probe::database::{DatabaseAddress, Encryption, Login};
use crate::session::Session;
use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use toml_edit::Document;

const RUNNER: &str = include_str!("own_tests.py");
const KNOWN: &str = include_str!("../../../requirements/known_failures.toml");
/// They take five to ten minutes, and at the lowest priority on a busy machine much longer.
const PATIENCE: Duration = Duration::from_secs(3 * 3600);
/// How often it is said how far they are, in parts of all.
const NEWS: usize = 10;
/// Whoever owns nothing, where the machine has no such name.
const NOBODY: u32 = 65534;

/// What the tests say of themselves, line by line.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Line {
    Found { found: usize },
    Test { test: String, outcome: String, why: Option<String> },
    Ended { ended: i32 },
}

/// One that failed.
#[derive(Debug, Serialize)]
struct FailedTest {
    test: String,
    why: String,
}

/// What became of them.
#[derive(Debug, Default)]
struct Outcome {
    found: usize,
    passed: usize,
    skipped: usize,
    /// Those that fail everywhere, with the reason why.
    known: Vec<FailedTest>,
    failed: Vec<FailedTest>,
    ended: Option<i32>,
}

impl Outcome {
    fn take(&mut self, line: &str, server: bool) {
        match serde_json::from_str(line) {
            Ok(Line::Found { found }) => self.found = found,
            Ok(Line::Ended { ended }) => self.ended = Some(ended),
            Ok(Line::Test { outcome, .. }) if outcome == "passed" => self.passed += 1,
            Ok(Line::Test { outcome, .. }) if outcome == "skipped" => self.skipped += 1,
            Ok(Line::Test { test, why, .. }) => match known_reason(&test, server) {
                Some(reason) => self.known.push(FailedTest { test, why: reason.to_owned() }),
                None => {
                    let why = why.unwrap_or_default();
                    let first = why.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
                    self.failed.push(FailedTest { test: strip_controls(&test), why: strip_controls(first.trim()) });
                }
            },
            Err(_) => {}
        }
    }

    fn done(&self) -> usize {
        self.passed + self.skipped + self.known.len() + self.failed.len()
    }
}

/// Why a test fails in every release.
fn known_reason(test: &str, server: bool) -> Option<&'static str> {
    static ROWS: LazyLock<Vec<(String, bool, String)>> = LazyLock::new(|| {
        let Ok(file) = KNOWN.parse::<Document<String>>() else { return Vec::new() };
        let rows = file.get("known").and_then(|rows| rows.as_array_of_tables()).into_iter().flatten();
        let text = |row: &toml_edit::Table, key| Some(row.get(key)?.as_str()?.to_owned());
        let server = |row: &toml_edit::Table| row.get("server").and_then(|value| value.as_bool()).unwrap_or(false);
        rows.filter_map(|row| Some((text(row, "test")?, server(row), text(row, "reason")?))).collect()
    });
    let name = test.rsplit("::").next().unwrap_or(test);
    let mut rows = ROWS.iter();
    rows.find(|(known, on_server, _)| known == name && (server || !on_server)).map(|(_, _, reason)| reason.as_str())
}

pub(crate) async fn test_release(global: &Global, flags: &OwnTests) -> Result<Report> {
    need_machine(global, "run CamCOPS's own tests")?;
    let site = if flags.server { load_site(global)? } else { Session::open(global)? };
    let id = match &flags.release {
        Some(id) => id.clone(),
        None => release::current_release(&site.host)?.ok_or_else(|| {
            Exit::Unreachable.because("CamCOPS is not installed here: run `camcops-provision install`")
        })?,
    };
    if !release::is_whole(&site.host, &id)? {
        return Err(Exit::Usage.because(format!(
            "{id} is not a complete release on this machine: `camcops-provision releases list` shows them"
        )));
    }
    let begin = Instant::now();
    let outcome = match flags.server {
        true => site.close_after(test_with_server(&site, &id).await).await?,
        false => run_tests(&site, &id, None)?,
    };
    report_outcome(&site, &id, flags.server, &outcome, begin.elapsed())
}

async fn test_with_server(site: &Session, id: &str) -> Result<Outcome> {
    let known = site.drivers.database()?;
    load::need_power(&known, "")?;
    // Another command would take the database for what a cut run left.
    let _lock = journal::try_lock(&site.host)?;
    known.server.started(&site.host).await?;
    let name = load::create_scratch(&known, ScratchDatabase::Tests, CHARSET, COLLATION).await?;
    let outcome = async {
        let login = load::create_login(&known, &name).await?;
        known.tell.line(&format!("the tests have the database {name}"));
        run_tests(site, id, Some(&login))
    };
    let outcome = outcome.await;
    let account = load::drop_account(&known).await;
    let database = load::drop_scratch(&known, ScratchDatabase::Tests).await;
    let outcome = outcome?;
    account?;
    database?;
    Ok(outcome)
}

/// Runs them to their end.
fn run_tests(site: &Session, id: &str, login: Option<&DatabaseAddress>) -> Result<Outcome> {
    let host = &site.host;
    let application = site.drivers.application()?;
    let lock = host.runtime_file("tests.lock")?;
    if host.stat(&lock)?.is_none() {
        host.put_file(&lock, b"", Some((0, 0)), 0o600)?;
    }
    let file = host.open_for_appending(&lock)?.with_context(|| format!("there is no {lock}"))?;
    let _only = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, why)| match why {
        nix::errno::Errno::EWOULDBLOCK => Exit::Locked.because("CamCOPS's own tests are running here already"),
        why => anyhow::Error::new(why).context(format!("can't lock {lock}")),
    })?;
    let nobody = host.accounts.uid("nobody").unwrap_or(NOBODY);
    let home = host.runtime_file("tests")?;
    host.remove_tree(&home)?;
    host.make_directory(&home, Some((nobody, NOBODY)), 0o700)?;
    let authority = site.settings().database.tls_ca.as_ref().map_or("", |path| path.as_str());
    let order = json!({ "database": login.map(|login| database_url(login, authority)) });
    let mut outcome = Outcome::default();
    let mut told = 0;
    let own = [("HOME", &home), ("TMPDIR", &home), ("MPLCONFIGDIR", &home), ("XDG_CACHE_HOME", &home)];
    let ended = host
        // In a session of its own: what runs there is not root's, and could type at root's terminal.
        .child_of(nobody, NOBODY, "nice")
        .bare()
        .args(["-n", "19", "ionice", "-c", "3", "setpriv", "--pdeathsig", "KILL", "--no-new-privs", "--"])
        .args([&format!("{RELEASES}/{id}/bin/python"), "-B", "-W", "ignore", "-c", RUNNER])
        .envs(application.environment.iter().cloned())
        .envs(own)
        .input(order.to_string().as_bytes())
        .patience(PATIENCE)
        .end_telling(|line| {
            outcome.take(line, login.is_some());
            let part = (outcome.done() * NEWS).checked_div(outcome.found).unwrap_or(0);
            if part > told && part < NEWS {
                told = part;
                application.tell.line(&format!("{} of {}", outcome.done(), count_of(outcome.found as u64, "test")));
            }
        });
    let cleared = host.remove_tree(&home);
    let ended = ended?;
    cleared?;
    if outcome.ended.is_none() {
        return Err(Exit::Failed.because(format!(
            "CamCOPS's own tests did not finish ({}): {}",
            ended.status,
            strip_controls(&ended.last_words())
        )));
    }
    Ok(outcome)
}

/// Where an empty database is, for SQLAlchemy. It goes through standard input: it has a password in it.
fn database_url(login: &DatabaseAddress, authority: &str) -> String {
    let DatabaseAddress { address, database, user, login, encryption } = login;
    let password = match login {
        Login::Password(password) => encode_percent(password.reveal()),
        Login::Account { .. } => String::new(),
    };
    let (place, socket) = match address {
        Address::Socket(path) => ("localhost".to_owned(), format!("&unix_socket={}", encode_percent(path))),
        Address::Tcp { host, port, .. } => (format!("{host}:{port}"), String::new()),
    };
    let tls = match encryption {
        Encryption::Off => "&ssl_disabled=true".to_owned(),
        Encryption::Required => "&ssl_check_hostname=false".to_owned(),
        Encryption::Verify(_) => format!("&ssl_ca={}", encode_percent(authority)),
    };
    let database = encode_percent(database);
    format!("mysql+pymysql://{user}:{password}@{place}/{database}?charset=utf8mb4{socket}{tls}")
}

fn report_outcome(site: &Session, id: &str, server: bool, outcome: &Outcome, took: Duration) -> Result<Report> {
    let is_well = outcome.failed.is_empty() && outcome.passed > 0;
    let place = if server { "in a temporary database on the site's server" } else { "in a database in memory" };
    let report = Report::new(json!({
        "instance": site.instance,
        "release": id,
        "database": if server { "server" } else { "memory" },
        "passed": outcome.passed,
        "skipped": outcome.skipped,
        "known": outcome.known,
        "failed": outcome.failed,
        "seconds": took.as_secs(),
    }));
    let lines = |tests: &[FailedTest], how: &str| -> Vec<String> {
        tests.iter().map(|one| format!("{how}: {}: {}", one.test, one.why)).collect()
    };
    Ok(report
        .with_lines(lines(&outcome.known, "fails in every release"))
        .with_lines(lines(&outcome.failed, "failed"))
        .with_line(format!(
            "{id}, {place}: CamCOPS's own tests: {} passed, {} failed, {} skipped, {} known to fail in every release ({} s)",
            outcome.passed,
            outcome.failed.len(),
            outcome.skipped,
            outcome.known.len(),
            took.as_secs()
        ))
        .with_code(if is_well { 0 } else { Exit::Failed as u8 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_everywhere_is_told_apart() {
        let mut outcome = Outcome::default();
        for line in [
            r#"{"found": 5}"#,
            r#"{"test": "a.py::ATests::test_all_tasks", "outcome": "failed", "why": "no folder"}"#,
            r#"{"test": "a.py::ATests::test_other", "outcome": "failed", "why": "\n  AssertionError: x\u001b[31m\n y"}"#,
            r#"{"test": "a.py::ATests::test_exported_task_saved", "outcome": "passed"}"#,
            r#"{"test": "a.py::ATests::test_well", "outcome": "passed"}"#,
            r#"{"test": "a.py::ATests::test_no", "outcome": "skipped"}"#,
            "a line of somebody else",
            r#"{"ended": 1}"#,
        ] {
            outcome.take(line, false);
        }
        assert_eq!((outcome.found, outcome.done(), outcome.passed, outcome.skipped), (5, 5, 2, 1));
        assert_eq!(outcome.ended, Some(1));
        assert!(known_reason("a.py::B::test_exported_task_saved", false).is_none());
        assert!(known_reason("a.py::B::test_exported_task_saved", true).is_some());
        assert!(outcome.known[0].why.contains("documentation"));
        assert_eq!(outcome.failed[0].test, "a.py::ATests::test_other");
        assert!(outcome.failed[0].why.starts_with("AssertionError: x") && !outcome.failed[0].why.contains('\u{1b}'));
    }
}
