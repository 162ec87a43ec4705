//! What an error says when a service does not come up: why, as the service itself has said it, without secrets.

use super::member::Member;
use super::state::Handler;
use super::{ServiceManager, ServiceState, systemd};
use crate::base::error::Exit;
use crate::base::terminal::{count_of, strip_controls};
use crate::host::Host;
use crate::settings::AbsolutePath;
use std::time::{Duration, SystemTime};

/// Of a log, this much goes into an error.
const LAST_LINES: usize = 6;
const LONGEST_LINE: usize = 240;
/// How it begins what is told of a service that ends again and again; at its end stands a line of the log, which may
/// have anything in it.
pub(crate) const KEEPS_FAILING: &str = "keeps failing";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What failed, and the end of the log.
pub(super) fn explain_failure(
    host: &Host,
    known: &ServiceManager,
    member: &Member,
    why: &str,
    since: SystemTime,
) -> anyhow::Error {
    failure_with_log(host, known, member, why, &known.whole_log(host, member, since))
}

/// Why a service ended that was just started: whether again and again, and what it said.
pub(super) fn explain_end(
    host: &Host,
    known: &ServiceManager,
    member: &Member,
    seen: &ServiceState,
    since: SystemTime,
) -> anyhow::Error {
    let log = known.whole_log(host, member, since);
    let why = match seen.keeps_failing() {
        true => known.describe_failing(host, seen, find_cause(&log)),
        false => format!("it ended right after its start ({})", seen.result),
    };
    failure_with_log(host, known, member, &why, &log)
}

fn failure_with_log(host: &Host, known: &ServiceManager, member: &Member, why: &str, log: &str) -> anyhow::Error {
    let log = match known.without_secrets(host, &last_lines(log)) {
        log if log.is_empty() => log,
        log => format!("\nits log ends:\n{log}"),
    };
    // systemd may have said it already.
    let begin = format!("{}: ", member.name);
    Exit::Unreachable.because(format!("{begin}{}{log}", why.strip_prefix(&begin).unwrap_or(why)))
}

/// A log without colours, without Python's lists of places, and without what systemd says of every failure.
fn log_lines(log: &str) -> impl Iterator<Item = String> {
    log.lines().map(strip_controls).filter(|line| !line.trim().is_empty() && !line.starts_with("  ") && !is_noise(line))
}

fn is_noise(line: &str) -> bool {
    // SQLAlchemy's footer, and the statement before it, which may hold anything of a patient.
    const OF_ERRORS: [&str; 3] = ["(Background on this error at: ", "[SQL: ", "[parameters: "];
    const OF_SYSTEMD: [&str; 11] = [
        ": Main process exited, ",
        ": Control process exited, ",
        ": Failed with result ",
        ": Scheduled restart job, ",
        ": Start request repeated too quickly",
        ": Consumed ",
        ": Deactivated successfully",
        ": Service RestartSec=",
        ": Service has no hold-off time",
        ": Found left-over process ",
        ": Unit process ",
    ];
    const OF_JOBS: [&str; 5] = ["Started ", "Starting ", "Stopped ", "Stopping ", "Failed to start "];
    let (unit, _) = line.split_once(": ").unwrap_or_default();
    let of_unit = unit.starts_with("camcops") && [".service", ".socket"].iter().any(|end| unit.ends_with(end));
    OF_ERRORS.iter().any(|begin| line.starts_with(begin))
        || of_unit && OF_SYSTEMD.iter().any(|what| line[unit.len()..].starts_with(what))
        || OF_JOBS.iter().any(|begin| line.starts_with(begin)) && line.contains("amcops")
        || OF_JOBS.iter().any(|begin| line.starts_with(begin)) && line.contains("CamCOPS")
}

/// The end of a log.
fn last_lines(log: &str) -> String {
    let lines: Vec<String> = log_lines(log).collect();
    let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
    let shortened: Vec<String> = last.iter().map(|line| format!("  {}", shorten_line(line))).collect();
    shortened.join("\n")
}

fn shorten_line(line: &str) -> String {
    line.chars().take(LONGEST_LINE).collect()
}

/// Why a service has ended: the last line of the last exception of a Python program, else the last line that it said.
fn find_cause(log: &str) -> Option<String> {
    let (mut exception, mut in_places) = (None, false);
    for line in log.lines().map(strip_controls) {
        if line.contains("Traceback (most recent call last):") {
            in_places = true;
        } else if in_places && !line.starts_with(' ') && !line.trim().is_empty() {
            in_places = false;
            exception = Some(line);
        }
    }
    exception.or_else(|| log_lines(log).last()).map(|line| shorten_line(line.trim()))
}

impl ServiceManager {
    fn whole_log(&self, host: &Host, member: &Member, since: SystemTime) -> String {
        match Handler::of(&member.name) {
            Handler::Systemd => systemd::read_log(host, &member.name, since).unwrap_or_default(),
            Handler::Supervisor => self.supervisor_log(host, &member.name),
            Handler::Scripts => String::new(),
        }
    }

    /// Why a service has ended, as far as it has said so today.
    pub(crate) fn cause(&self, host: &Host, member: &Member) -> Option<String> {
        let cause = self.cause_today(host, member)?;
        Some(self.without_secrets(host, &cause))
    }

    fn cause_today(&self, host: &Host, member: &Member) -> Option<String> {
        let since = SystemTime::now().checked_sub(DAY)?;
        find_cause(&self.whole_log(host, member, since))
    }

    /// That a service ends again and again, and why; nothing where it does not.
    pub(crate) fn keeps_failing(&self, host: &Host, member: &Member, seen: &ServiceState) -> Option<String> {
        seen.keeps_failing().then(|| self.describe_failing(host, seen, self.cause_today(host, member)))
    }

    fn describe_failing(&self, host: &Host, seen: &ServiceState, cause: Option<String>) -> String {
        let times = match seen.restarts {
            0 => String::new(),
            times => format!(" ({})", count_of(times as usize, "restart")),
        };
        let cause = match cause {
            Some(cause) => format!(": {}", self.without_secrets(host, &cause)),
            None if seen.detail.is_empty() => String::new(),
            None => format!(": {}", seen.detail),
        };
        format!("{KEEPS_FAILING}{times}{cause}")
    }

    fn supervisor_log(&self, host: &Host, name: &str) -> String {
        let program = name.rsplit(':').next().unwrap_or(name);
        let path = format!("{}/{program}.log", self.layout.supervisor_logs);
        let text = host.read(&path).ok().flatten().unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// A text in which none of the instance's secrets stands.
    fn without_secrets(&self, host: &Host, text: &str) -> String {
        let directory = &self.layout.secrets;
        let kept = host.list(directory).ok().flatten().unwrap_or_default();
        let settings = &self.settings;
        let given = [&settings.database.password_file, &settings.broker.password_file, &settings.monitor.password_file];
        let files = kept
            .iter()
            .map(|name| format!("{directory}/{name}"))
            .chain(given.into_iter().flatten().map(|path: &AbsolutePath| path.as_str().to_owned()));
        let mut text = text.to_owned();
        for file in files {
            let secret = host.read_text(&file).ok().flatten().unwrap_or_default();
            if !secret.trim().is_empty() {
                text = text.replace(secret.trim(), "********");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRASH: &str = "Starting camcops-server@camcops.service - CamCOPS web server...\n\
        [2026-11-29 22:10:01 +0000] [812] [INFO] Starting gunicorn 23.0.0\n\
        Traceback (most recent call last):\n  File \"/x/main.py\", line 3, in main\n    boom()\n\
        MySQLdb.OperationalError: (1045, \"Access denied\")\n\n\
        The above exception was the direct cause of the following exception:\n\n\
        Traceback (most recent call last):\n  File \"/x/y.py\", line 9, in z\n    raise\n\
        sqlalchemy.exc.OperationalError: (MySQLdb.OperationalError) (1045, \"Access denied\")\n\
        [SQL: SELECT name FROM patient]\n\
        (Background on this error at: https://sqlalche.me/e/20/e3q8)\n\
        camcops-server@camcops.service: Main process exited, code=exited, status=1/FAILURE\n\
        camcops-server@camcops.service: Failed with result 'exit-code'.\n\
        Failed to start camcops-server@camcops.service - CamCOPS web server.\n\
        camcops-server@camcops.service: Scheduled restart job, restart counter is at 3.\n\
        Stopped camcops-server@camcops.service - CamCOPS web server.\n";

    #[test]
    fn a_cause_is_what_the_service_has_said_last_of_its_failure() {
        assert_eq!(
            find_cause(CRASH).unwrap(),
            "sqlalchemy.exc.OperationalError: (MySQLdb.OperationalError) (1045, \"Access denied\")"
        );
        let end = last_lines(CRASH);
        for noise in ["Background", "[SQL", "Main process", "Failed with", "Scheduled", "Stopped"] {
            assert!(!end.contains(noise), "{end}");
        }
        let log = "Error: no such option\ncamcops-workers@two.service: Main process exited, code=exited, status=2\n";
        assert_eq!(find_cause(log).unwrap(), "Error: no such option");
        let step = "camcops-server@camcops.service: Failed at step EXEC spawning /x: No such file";
        assert_eq!(find_cause(step).unwrap(), step);
        assert_eq!(find_cause("camcops-server@camcops.service: Failed with result 'signal'.\n"), None);
        assert_eq!(find_cause(""), None);
    }

    #[test]
    fn the_end_of_a_log_is_plain_and_short() {
        let log = "one\n\u{1b}[37mtwo\u{1b}[0m\n\n  File \"x.py\", line 3\nKeyError: 'y'\n";
        assert_eq!(last_lines(log), "  one\n  two\n  KeyError: 'y'");
        let long = "x".repeat(1000);
        assert_eq!(last_lines(&long).len(), LONGEST_LINE + 2);
    }
}
