//! `history`: who did what to the site, when, and how it ended; and which commands are in it.

use crate::backup::make::list_site_backups;
use crate::base::error::Exit;
use crate::base::report::Report;
use crate::base::terminal;
use crate::base::text::show_plain;
use crate::cli::{Backup, Cert, Command, ConfigCommand, Db, Global, HistoryFlags, Releases, SecretCommand};
use crate::commands::need_machine;
use crate::history::{
    HistoryEvent, HistoryLine, HistoryMark, Remembered, find_breaks, history_path, marks_of_system_log, read_entries,
    read_history,
};
use crate::host::Host;
use crate::host::actor::Actor;
use crate::host::processes::start_ticks;
use crate::session::{Session, open_host};
use anyhow::Result;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What stands in the place of a value that may be a secret.
const HIDDEN: &str = "...";
/// Of a word no more is kept.
const LONGEST_WORD: usize = 200;

/// One command of the history, with its end.
#[derive(Debug, Serialize)]
struct Entry {
    number: u64,
    at: String,
    by: Actor,
    command: Vec<String>,
    version: String,
    state: EntryState,
    exit: Option<u8>,
    took_ms: Option<u64>,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum EntryState {
    Done,
    Failed,
    Running,
    /// It was killed, or the machine stopped.
    Unfinished,
    /// Another program took its place.
    HandedOver,
}

/// Writes that a command begins, if it is one that the history has.
pub(super) fn remember(global: &Global, command: &Command) -> Option<(Host, Remembered)> {
    let words = words_of(global, command)?;
    let host = open_host(global).ok()?;
    if host.staged_root().is_some() || !host.is_root() {
        return None;
    }
    match Remembered::begin(&host, &global.instance, words, hands_over(command)) {
        Ok(begun) => Some((host, begun)),
        // A full disk must not keep an administrator from mending it.
        Err(why) => {
            terminal::print_note(&format!("warning: this command is not in the history: {why:#}"));
            None
        }
    }
}

/// Writes how it ended.
pub(super) fn remember_end(begun: Option<(Host, Remembered)>, result: &Result<u8>) {
    let Some((host, begun)) = begun else { return };
    let exit = match result {
        Ok(code) => *code,
        Err(why) => Exit::of(why) as u8,
    };
    if let Err(why) = begun.end(&host, exit) {
        terminal::print_note(&format!("warning: the end of this command is not in the history: {why:#}"));
    }
}

fn hands_over(command: &Command) -> bool {
    matches!(
        command,
        Command::Run { foreground: None, .. }
            | Command::Exec { .. }
            | Command::Shell { .. }
            | Command::Db(Db::Shell { .. })
    )
}

/// Whether a command changes or reads what an auditor asks about; what only looks at the site is not remembered.
fn is_remembered(command: &Command) -> bool {
    match command {
        Command::Init
        | Command::Install(_)
        | Command::Start(_)
        | Command::Stop(_)
        | Command::Restart(_)
        | Command::Reload(_)
        | Command::Scale { .. }
        | Command::Service(_)
        | Command::Maintenance(_)
        | Command::Run { .. }
        | Command::Exec { .. }
        | Command::Shell { .. }
        | Command::SupportBundle(_)
        | Command::User(_)
        | Command::Rollback(_)
        | Command::Uninstall(_) => true,
        Command::Upgrade(flags) => !flags.check,
        Command::Cert(what) => !matches!(what, Cert::Show | Cert::Verify { .. }),
        Command::Secret(what) => !matches!(what, SecretCommand::List),
        Command::Backup(what) => !matches!(what, Backup::List | Backup::Verify { .. }),
        Command::Db(what) => !matches!(what, Db::Check { .. }),
        Command::Releases(what) => matches!(what, Releases::Prune { .. }),
        Command::Config(what) => {
            matches!(what, ConfigCommand::Set { .. } | ConfigCommand::Unset { .. } | ConfigCommand::Edit)
        }
        Command::Plan(_)
        | Command::Status(_)
        | Command::Doctor(_)
        | Command::Vulnerabilities(_)
        | Command::Wait(_)
        | Command::Login { .. }
        | Command::Logs(_)
        | Command::History(_)
        | Command::Top(_)
        | Command::Stats
        | Command::Traceback(_)
        | Command::BreakLocks
        | Command::CatchUp
        | Command::Observe
        | Command::WithEnvironment(_)
        | Command::Bundle(_)
        | Command::Paths
        | Command::Urls
        | Command::Ports
        | Command::Completions { .. }
        | Command::Man { .. } => false,
    }
}

/// What the history keeps of a command: what was typed, without what may be a secret.
fn words_of(global: &Global, command: &Command) -> Option<Vec<String>> {
    if !is_remembered(command) {
        return None;
    }
    let typed: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    Some(kept_words(global, command, &typed))
}

fn kept_words(global: &Global, command: &Command, typed: &[String]) -> Vec<String> {
    let words = match command {
        // Values of settings may be what nobody else should know; `config history` has the changes.
        Command::Config(ConfigCommand::Set { pairs, .. }) => {
            let kept = pairs.iter().enumerate().map(|(at, word)| match at % 2 {
                0 => kept_key(word),
                _ => HIDDEN.to_owned(),
            });
            ["config".to_owned(), "set".to_owned()].into_iter().chain(kept).collect()
        }
        // Of other programs nothing but their names is known to be harmless.
        Command::Run { arguments: words, foreground: None } | Command::Exec { words } => {
            let verb = if matches!(command, Command::Run { .. }) { "run" } else { "exec" };
            let program = words.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
            let more = (words.len() > 1).then(|| HIDDEN.to_owned());
            [verb.to_owned(), "--".to_owned(), program].into_iter().chain(more).collect()
        }
        _ => without_values(typed, &global.set),
    };
    words.iter().map(|word| show_plain(word, LONGEST_WORD)).collect()
}

/// The key of a setting. Where the words were typed in another way, this may be a value, or have one behind it.
fn kept_key(word: &str) -> String {
    let key = word.split('=').next().unwrap_or_default();
    let is_key = key.contains('.') && key.chars().all(|c| c.is_ascii_alphanumeric() || "_.:-".contains(c));
    if is_key { key.to_owned() } else { HIDDEN.to_owned() }
}

/// `--set KEY=VALUE` without the value.
fn without_values(typed: &[String], settings: &[String]) -> Vec<String> {
    typed
        .iter()
        .map(|word| {
            let setting = word.strip_prefix("--set=").unwrap_or(word);
            match setting.split_once('=') {
                Some((key, _)) if settings.iter().any(|one| one == setting) => {
                    format!("{}{key}={HIDDEN}", &word[..word.len() - setting.len()])
                }
                _ => word.clone(),
            }
        })
        .collect()
}

/// Shows it, and whether it is whole.
pub(super) fn show_history(global: &Global, flags: &HistoryFlags) -> Result<Report> {
    need_machine(global, "read the history")?;
    let site = Session::open(global)?;
    let text = read_history(&site.host, &site.instance)?;
    let since = flags.since.as_deref().map(|since| read_moment(&site.host, since)).transpose()?;
    let mut entries = join_entries(&read_entries(&text));
    if let Some(since) = since {
        entries.retain(|entry| OffsetDateTime::parse(&entry.at, &Rfc3339).is_ok_and(|at| at >= since));
    }
    let checked = flags.verify.then(|| verify(&site, &text)).transpose()?;
    let document = json!({
        "instance": site.instance,
        "file": history_path(&site.instance),
        "entries": entries,
        "verified": checked.as_ref().map(|checked| json!({ "whole": checked.breaks.is_empty(), "breaks": checked.breaks, "witnesses": checked.witnesses })),
    });
    let mut report = Report::new(document);
    for entry in &entries {
        report = report.with_table(format_entry(entry));
    }
    if text.is_empty() {
        let when = "it begins with the next command that changes something";
        report = report.with_remark(format!("no history of the instance {} yet; {when}", site.instance));
    }
    let Some(checked) = checked else { return Ok(report) };
    if checked.breaks.is_empty() {
        return Ok(report.with_remark(format!("the history is whole: {}", checked.witnesses.join(", "))));
    }
    let path = history_path(&site.instance);
    let why = format!(
        "{path} is not whole: {}; compare it with the system's log (journalctl SYSLOG_IDENTIFIER=camcops-provision _UID=0) and its copies in backups",
        checked.breaks.join("; ")
    );
    Ok(report.refusing(Exit::Unusable, why))
}

/// What came of looking at the chain, and who else was asked.
struct Checked {
    breaks: Vec<String>,
    witnesses: Vec<String>,
}

fn verify(site: &Session, text: &str) -> Result<Checked> {
    let (mut remembered, mut names, mut witnesses) = (Vec::new(), Vec::new(), Vec::new());
    witnesses.push(format!("{} in its chain", count(text.lines().count(), "line")));
    match marks_of_system_log(&site.host, &site.instance) {
        Some(marks) => {
            witnesses.push(format!("{} of them known to the system's log", marks.len()));
            remembered.extend(marks.into_iter().map(|mark| (mark, "the system's log".to_owned())));
        }
        None => witnesses.push("the system's log can not be asked".to_owned()),
    }
    let backups = list_site_backups(&site.host, site.settings(), &site.layout.slug)?;
    for backup in &backups {
        if let Some(mark) = backup.manifest.as_ref().and_then(|manifest| manifest.history.clone()) {
            names.push(backup.name.clone());
            remembered.push((mark, format!("backup {}", backup.name)));
        }
    }
    witnesses.push(format!("{} agree", count(names.len(), "backup")));
    let remembered: Vec<(HistoryMark, &str)> =
        remembered.iter().map(|(mark, of)| (mark.clone(), of.as_str())).collect();
    Ok(Checked { breaks: find_breaks(text, &remembered), witnesses })
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Each command with its end.
fn join_entries(lines: &[HistoryLine]) -> Vec<Entry> {
    let mut ends = BTreeMap::new();
    for line in lines {
        if let HistoryEvent::End { of, exit, took_ms } = line.event {
            ends.insert(of, (exit, took_ms));
        }
    }
    let mut entries = Vec::new();
    for line in lines {
        let HistoryEvent::Begin { by, command, version, hands_over, pid, started } = &line.event else {
            continue;
        };
        let end = ends.get(&line.number);
        let state = match end {
            Some((0, _)) => EntryState::Done,
            Some(_) => EntryState::Failed,
            None if start_ticks(*pid) == Some(*started) => EntryState::Running,
            None if *hands_over => EntryState::HandedOver,
            None => EntryState::Unfinished,
        };
        entries.push(Entry {
            number: line.number,
            at: line.at.clone(),
            by: by.clone(),
            command: command.clone(),
            version: version.clone(),
            state,
            exit: end.map(|(exit, _)| *exit),
            took_ms: end.map(|(_, took)| *took),
        });
    }
    entries
}

fn format_entry(entry: &Entry) -> String {
    let end = match (entry.state, entry.exit) {
        (EntryState::Done, _) => "done".to_owned(),
        (EntryState::Failed, Some(exit)) => format!("exit code {exit}"),
        (EntryState::Running, _) => "running".to_owned(),
        (EntryState::HandedOver, _) => "started".to_owned(),
        _ => "did not end: it was killed, or the machine stopped".to_owned(),
    };
    let took = match entry.took_ms {
        Some(took) if took >= 1000 => format!(", {} s", took / 1000),
        _ => String::new(),
    };
    let by = show_plain(&entry.by.to_string(), LONGEST_WORD);
    format!("{}  {by:24}  {}  ({end}{took})\n", entry.at, show_plain(&entry.command.join(" "), LONGEST_WORD))
}

/// A moment as people write it, read by the system's own tool.
fn read_moment(host: &Host, text: &str) -> Result<OffsetDateTime> {
    let no_time = || {
        Exit::Usage.because(format!(
            "--since: \"{text}\" is not a time; examples: 09:30, \"2026-11-21 09:30\", \"1 hour ago\", yesterday"
        ))
    };
    if text.trim().is_empty() {
        return Err(no_time());
    }
    let read = host.child("date").args([format!("--date={text}"), "+%s".to_owned()]).end()?;
    let seconds = read.output.trim().parse().map_err(|_| no_time())?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| no_time())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;

    fn kept(line: &str) -> Option<String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let cli = Cli::parse_words(words.iter().cloned()).unwrap();
        is_remembered(&cli.command).then(|| kept_words(&cli.global, &cli.command, &words[1..]).join(" "))
    }

    #[test]
    fn what_was_typed_is_kept_without_what_may_be_a_secret() {
        let kept = |line: &str| kept(&format!("camcops-provision {line}")).unwrap_or_default();
        assert_eq!(kept("config set site.logo /srv/hush.png"), "config set site.logo ...");
        assert_eq!(
            kept("config set config.site.EMAIL_HOST_PASSWORD -"),
            "config set config.site.EMAIL_HOST_PASSWORD ..."
        );
        assert_eq!(kept("config set config.site.X=hush"), "config set config.site.X");
        assert_eq!(kept("config set config.site.X a hush words"), "config set config.site.X ... ... ...");
        assert_eq!(kept("exec -- mysql -phush"), "exec -- mysql ...");
        assert_eq!(kept("run -- upgrade_db"), "run -- upgrade_db");
        assert_eq!(kept("--set broker.user=hush install --yes"), "--set broker.user=... install --yes");
        assert_eq!(kept("install --set=broker.user=hush"), "install --set=broker.user=...");
        assert_eq!(kept("backup restore one --confirm camcops"), "backup restore one --confirm camcops");
        assert_eq!(kept("user reset-password anna"), "user reset-password anna");
    }

    #[test]
    fn what_only_looks_is_not_remembered() {
        for line in ["status", "plan", "backup list", "secret list", "config show", "cert show", "upgrade --check"] {
            assert_eq!(kept(&format!("camcops-provision {line}")), None, "{line}");
        }
    }
}
