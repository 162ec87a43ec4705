//! What an error says when a service does not come up: the end of its log, without secrets.

use super::member::Member;
use super::{Handler, Known, systemd};
use crate::error::Exit;
use crate::host::Host;
use crate::report::plain;
use crate::settings::AbsolutePath;
use std::time::{Duration, SystemTime};

/// Of a log, this much goes into an error.
const LAST_LINES: usize = 6;
const LONGEST_LINE: usize = 240;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What failed, and the end of the log.
pub fn failure(
    host: &Host,
    known: &Known,
    member: &Member,
    why: &str,
    since: SystemTime,
) -> anyhow::Error {
    let log = known.log(host, member, since);
    let log = match log.is_empty() {
        true => String::new(),
        false => format!("\nits log ends:\n{log}"),
    };
    Exit::Unreachable.because(format!("{}: {why}{log}", member.name))
}

/// The end of a log without colours and Python's lists of places.
fn last_lines(log: &str) -> String {
    let lines: Vec<String> = log
        .lines()
        .map(plain)
        .filter(|line| !line.trim().is_empty() && !line.starts_with("  "))
        .collect();
    let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
    let shortened: Vec<String> = last
        .iter()
        .map(|line| format!("  {}", line.chars().take(LONGEST_LINE).collect::<String>()))
        .collect();
    shortened.join("\n")
}

impl Known {
    /// The end of a service's log since then, short, plain and without secrets.
    fn log(&self, host: &Host, member: &Member, since: SystemTime) -> String {
        let log = match Handler::of(&member.name) {
            Handler::Systemd => systemd::log(host, &member.name, since).unwrap_or_default(),
            Handler::Supervisor => self.supervisor_log(host, &member.name),
            Handler::Scripts => String::new(),
        };
        self.without_secrets(host, &last_lines(&log))
    }

    /// The last thing that a service has said today.
    pub fn last_line(&self, host: &Host, member: &Member) -> Option<String> {
        let since = SystemTime::now().checked_sub(DAY)?;
        let log = self.log(host, member, since);
        log.lines().last().map(|line| line.trim().to_owned())
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
        let given = [
            &settings.database.password_file,
            &settings.broker.password_file,
            &settings.monitor.password_file,
        ];
        let files = kept.iter().map(|name| format!("{directory}/{name}")).chain(
            given
                .into_iter()
                .flatten()
                .map(|path: &AbsolutePath| path.as_str().to_owned()),
        );
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

    #[test]
    fn the_end_of_a_log_is_plain_and_short() {
        let log = "one\n\u{1b}[37mtwo\u{1b}[0m\n\n  File \"x.py\", line 3\nKeyError: 'y'\n";
        assert_eq!(last_lines(log), "  one\n  two\n  KeyError: 'y'");
        let long = "x".repeat(1000);
        assert_eq!(last_lines(&long).len(), LONGEST_LINE + 2);
    }
}
