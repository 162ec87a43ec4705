//! `logs`: what the services have said, from the journal or from their files.

use super::become_it;
use super::services::{is_chosen, refuse_unwanted};
use crate::base::error::Exit;
use crate::base::report::Report;
use crate::base::terminal::strip_controls;
use crate::cli::{Global, Logs};
use crate::drivers::services::member::{Member, ServiceRole};
use crate::host::take_over::BesideProgram;
use crate::session::Session;
use crate::settings::{LogMode, ServiceName};
use crate::site::facts::Manager;
use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// As many lines as a screen or two take.
const LINES: u32 = 100;

#[derive(Debug, Serialize)]
struct LogLine {
    service: String,
    /// Where the log knows it.
    time: Option<String>,
    message: String,
}

/// Where a service logs.
struct LogSource {
    service: String,
    unit: String,
    file: String,
}

pub(crate) fn run(global: &Global, flags: &Logs) -> Result<Report> {
    let site = Session::open(global)?;
    if site.host.staged_root().is_some() {
        return Err(Exit::Usage.because("a staged tree has no logs; run without --root"));
    }
    if flags.follow && global.json {
        return Err(Exit::Usage.because("--follow cannot be used with --json, which prints one document"));
    }
    let sources = log_sources(&site, &flags.chosen.services)?;
    if is_in_journal(&site) { show_journal(&site, flags, &sources) } else { show_files(&site, flags, &sources) }
}

fn log_sources(site: &Session, wanted: &[ServiceName]) -> Result<Vec<LogSource>> {
    let known = site.drivers.services()?;
    refuse_unwanted(site, wanted)?;
    let chosen = known.members.iter().filter(|member| member.role != ServiceRole::Socket && is_chosen(member, wanted));
    Ok(chosen.map(|member| log_source(site, member)).collect())
}

fn is_in_journal(site: &Session) -> bool {
    site.manager() == Manager::Systemd && site.settings().logging.mode == LogMode::Journal
}

fn log_source(site: &Session, member: &Member) -> LogSource {
    let service = member.service.clone().unwrap_or_default();
    let program = member.name.rsplit(':').next().unwrap_or(&member.name);
    LogSource {
        file: match site.manager() {
            Manager::Systemd => format!("{}/{service}.log", site.layout.logs),
            Manager::Supervisor => format!("{}/{program}.log", site.layout.supervisor_logs),
        },
        service,
        unit: member.name.clone(),
    }
}

/// What shows the log of services from now on.
pub(super) fn follow_services<'a>(site: &Session, members: impl Iterator<Item = &'a Member>) -> Result<BesideProgram> {
    let sources: Vec<LogSource> =
        members.filter(|member| member.role != ServiceRole::Socket).map(|member| log_source(site, member)).collect();
    if is_in_journal(site) {
        let units = sources.iter().map(|source| format!("--unit={}", source.unit));
        let how = ["--follow", "--lines=0", "--output=short-iso", "--no-pager", "--quiet"].map(str::to_owned);
        return Ok(BesideProgram { program: "journalctl", arguments: units.chain(how).collect() });
    }
    let mut files: Vec<String> = sources.into_iter().map(|source| source.file).collect();
    files.dedup();
    let how = ["--follow=name", "--retry", "--lines=0", "--quiet", "--"].map(str::to_owned);
    Ok(BesideProgram { program: "tail", arguments: how.into_iter().chain(files).collect() })
}

fn show_journal(site: &Session, flags: &Logs, sources: &[LogSource]) -> Result<Report> {
    let mut arguments: Vec<String> = sources.iter().map(|source| format!("--unit={}", source.unit)).collect();
    arguments.push("--no-pager".into());
    if let Some(since) = &flags.since {
        // journalctl itself would say only that it can't parse it.
        let read = site.host.child("systemd-analyze").args(["timestamp", "--", since]).end();
        if read.is_ok_and(|read| !read.status.success()) {
            return Err(Exit::Usage.because(format!(
                "--since: \"{since}\" is not a time; examples: 09:30, \"2026-11-21 09:30\", \"1 hour ago\", today"
            )));
        }
        arguments.push(format!("--since={since}"));
    }
    let lines = flags.lines.or(flags.since.is_none().then_some(LINES));
    arguments.extend(lines.map(|lines| format!("--lines={lines}")));
    if site.style.json {
        arguments.push("--output=json".into());
        arguments.push("--all".into());
        let said = site.host.child("journalctl").args(&arguments).run()?;
        let lines: Vec<LogLine> = said.lines().filter_map(|line| parse_entry(line, sources)).collect();
        return Ok(report_lines(site, &lines));
    }
    arguments.push("--output=short-iso".into());
    if flags.follow {
        arguments.push("--follow".into());
    }
    become_it("journalctl", |command| _ = command.args(arguments))
}

/// A line of the journal in its own JSON.
fn parse_entry(line: &str, sources: &[LogSource]) -> Option<LogLine> {
    let entry: Value = serde_json::from_str(line).ok()?;
    let unit = entry["_SYSTEMD_UNIT"].as_str().or(entry["UNIT"].as_str())?;
    let source = sources.iter().find(|source| source.unit == unit)?;
    let microseconds: i128 = entry["__REALTIME_TIMESTAMP"].as_str()?.parse().ok()?;
    let time = OffsetDateTime::from_unix_timestamp_nanos(microseconds * 1000).ok()?;
    let message = match &entry["MESSAGE"] {
        Value::String(text) => text.clone(),
        // What is not plain text comes as numbers.
        Value::Array(bytes) => {
            let bytes: Vec<u8> = bytes.iter().filter_map(|byte| u8::try_from(byte.as_u64()?).ok()).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        _ => return None,
    };
    Some(LogLine {
        service: source.service.clone(),
        time: time.format(&Rfc3339).ok(),
        message: strip_controls(&message),
    })
}

fn show_files(site: &Session, flags: &Logs, sources: &[LogSource]) -> Result<Report> {
    if flags.since.is_some() {
        return Err(Exit::Usage.because("--since needs the journal, but these services log to files; use --lines"));
    }
    let mut there = Vec::new();
    for source in sources {
        // Several workers may write to one.
        let is_known = there.iter().any(|known: &&LogSource| known.file == source.file);
        if !is_known && site.host.stat(&source.file)?.is_some() {
            there.push(source);
        }
    }
    if there.is_empty() {
        let names: Vec<&str> = sources.iter().map(|source| source.file.as_str()).collect();
        return Err(Exit::Unreachable.because(format!("nothing logged yet: {} does not exist", names.join(", "))));
    }
    let lines = flags.lines.unwrap_or(LINES);
    if site.style.json {
        let mut all = Vec::new();
        for source in there {
            let arguments = [&format!("--lines={lines}"), "--", source.file.as_str()];
            let said = site.host.child("tail").args(arguments).run()?;
            all.extend(said.lines().map(|line| LogLine {
                service: source.service.clone(),
                time: None,
                message: strip_controls(line),
            }));
        }
        return Ok(report_lines(site, &all));
    }
    let mut arguments = vec![format!("--lines={lines}")];
    if flags.follow {
        // Also when the file is rotated away.
        arguments.push("--follow=name".into());
        arguments.push("--retry".into());
    }
    arguments.push("--".into());
    arguments.extend(there.iter().map(|source| source.file.clone()));
    become_it("tail", |command| _ = command.args(arguments))
}

fn report_lines(site: &Session, lines: &[LogLine]) -> Report {
    Report::new(json!({ "instance": site.instance, "lines": lines }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_the_journal_is_understood() {
        let sources = [LogSource {
            service: "workers".into(),
            unit: "camcops-workers@camcops.service".into(),
            file: String::new(),
        }];
        let line = |message: &str| {
            let entry = format!(
                r#"{{"_SYSTEMD_UNIT":"camcops-workers@camcops.service","__REALTIME_TIMESTAMP":"1795286400000000","MESSAGE":{message}}}"#
            );
            entry_of(&entry, &sources)
        };
        fn entry_of(text: &str, sources: &[LogSource]) -> Option<(String, Option<String>)> {
            parse_entry(text, sources).map(|line| (line.message, line.time))
        }
        let time = Some("2026-11-21T18:40:00Z".to_owned());
        assert_eq!(line(r#""ready""#), Some(("ready".into(), time.clone())));
        assert_eq!(line("[27,91,51,54,109,104,105]"), Some(("hi".into(), time)));
        assert_eq!(line("null"), None);
        assert_eq!(entry_of("{}", &sources), None);
    }
}
