//! Who did what to a site, when, and how it ended.
//!
//! One line before a command that changes or reads what matters and one after it, in a file that only root can read and write.
//! Each line has a digest over itself and all before it, so a line that is removed, changed or moved is noticed. Whoever is root can
//! write a whole new chain; so every digest goes to the system's log as well, which many a hospital collects elsewhere, and the
//! last one into each backup.
//!
//! It is written on a machine with an installation, never on a staged tree. It goes with the installation, and its lines in the
//! system's log stay.

mod chain;

use crate::base::text::format_time;
use crate::host::actor::find_actor;
use crate::host::processes::start_ticks;
use crate::host::{Host, system_log};
use crate::layout::instance_directory;
use anyhow::{Context, Result, bail};
pub(crate) use chain::{HistoryEvent, HistoryLine, HistoryMark, find_breaks};
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::time::{Instant, SystemTime};

/// The name under which the system's log has the digests.
const IDENTIFIER: &str = "camcops-provision";
/// What the messages in the system's log begin with.
const PREFIX: &str = "history";
/// More than the longest line.
const LONGEST: u64 = 1 << 16;

/// A command that is in the history, or would be.
#[derive(Debug)]
pub(crate) struct Remembered {
    instance: String,
    event: HistoryEvent,
    at: String,
    began: Instant,
    /// Its entry; nothing as long as there is no installation, and so no history.
    number: Option<u64>,
}

impl Remembered {
    /// Writes that a command begins; `hands_over` where another program takes its place.
    pub(crate) fn begin(host: &Host, instance: &str, command: Vec<String>, hands_over: bool) -> Result<Remembered> {
        let pid = std::process::id();
        let started = start_ticks(pid).unwrap_or_default();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let event = HistoryEvent::Begin { by: find_actor(), command, version, hands_over, pid, started };
        let mut begun = Remembered {
            instance: instance.to_owned(),
            event,
            at: format_time(SystemTime::now()).unwrap_or_default(),
            began: Instant::now(),
            number: None,
        };
        begun.write_begin(host)?;
        Ok(begun)
    }

    fn write_begin(&mut self, host: &Host) -> Result<()> {
        if self.number.is_none() {
            self.number = append(host, &self.instance, &self.at, self.event.clone())?;
        }
        Ok(())
    }

    /// Writes how it ended. A first installation has made the place for it meanwhile, and the last uninstall has removed it.
    pub(crate) fn end(mut self, host: &Host, exit: u8) -> Result<()> {
        self.write_begin(host)?;
        let Some(of) = self.number else { return Ok(()) };
        let took_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let at = format_time(SystemTime::now()).unwrap_or_default();
        append(host, &self.instance, &at, HistoryEvent::End { of, exit, took_ms })?;
        Ok(())
    }
}

/// Where the history of an instance is.
pub(crate) fn history_path(instance: &str) -> String {
    format!("{}/history", instance_directory(instance))
}

/// All of it; nothing where there is none.
pub(crate) fn read_history(host: &Host, instance: &str) -> Result<String> {
    Ok(host.read_text(&history_path(instance))?.unwrap_or_default())
}

/// Its lines.
pub(crate) fn read_entries(text: &str) -> Vec<HistoryLine> {
    chain::read_lines(text)
}

/// Where the chain stands now, for a backup to remember.
pub(crate) fn current_mark(host: &Host, instance: &str) -> Result<Option<HistoryMark>> {
    Ok(chain::last_mark(&read_history(host, instance)?))
}

/// Appends one entry and gives its number; nothing where there is no installation.
fn append(host: &Host, instance: &str, at: &str, event: HistoryEvent) -> Result<Option<u64>> {
    let Some(file) = open_history(host, instance)? else {
        return Ok(None);
    };
    let (mark, cut) = find_end(host, instance, &file)?;
    let (mut lines, mut mark) = match cut {
        0 => (String::new(), mark),
        bytes => chain::format_line(&mark, at, HistoryEvent::Cut { bytes })?,
    };
    let told = describe_event(&event);
    let (line, next) = chain::format_line(&mark, at, event)?;
    lines.push_str(&line);
    mark = next;
    host.append(&file, &lines)?;
    // A machine may have no such log, and the file has it all.
    system_log::tell(IDENTIFIER, &format!("{PREFIX} {instance} {} {}: {told}", mark.number, mark.digest));
    Ok(Some(mark.number))
}

/// The file, held for this process alone; it is made where there is an installation.
fn open_history(host: &Host, instance: &str) -> Result<Option<Flock<File>>> {
    let path = history_path(instance);
    if host.stat(&instance_directory(instance))?.is_none() {
        return Ok(None);
    }
    if host.stat(&path)?.is_some_and(|entry| !host.is_ours(&entry)) {
        bail!("{} was not created by camcops-provision, or others can write to it", host.outside(&path));
    }
    match Flock::lock(host.create_for_appending(&path)?, FlockArg::LockExclusive) {
        Ok(file) => Ok(Some(file)),
        Err((_, why)) => Err(why).with_context(|| format!("can't lock {}", host.outside(&path))),
    }
}

/// Where the chain stands at the end of the file, and how many bytes of a part of a line were removed there.
fn find_end(host: &Host, instance: &str, mut file: &File) -> Result<(HistoryMark, u64)> {
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(LONGEST)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let cut = bytes.len() - whole;
    if cut > 0 {
        host.shorten(file, size - cut as u64)?;
    }
    let text = String::from_utf8_lossy(&bytes[..whole]);
    match chain::last_mark(&text) {
        Some(mark) => Ok((mark, cut as u64)),
        None if size == cut as u64 => Ok((HistoryMark::root(), cut as u64)),
        None => bail!(
            "the last line of {} is none of a history: move the file away, and a new one begins",
            host.outside(&history_path(instance))
        ),
    }
}

/// What an event is, for people who read the system's log.
fn describe_event(event: &HistoryEvent) -> String {
    match event {
        HistoryEvent::Begin { by, command, .. } => format!("{by} begins: {}", command.join(" ")),
        HistoryEvent::End { of, exit, .. } => format!("entry {of} ended with exit code {exit}"),
        HistoryEvent::Cut { bytes } => format!("{bytes} bytes of a line that was not whole were removed"),
        HistoryEvent::Unknown => String::new(),
    }
}

/// The marks that the system's log has of an instance, as far back as it goes; nothing where it can't be asked. Only what root
/// wrote counts: everybody may write to that log.
pub(crate) fn marks_of_system_log(host: &Host, instance: &str) -> Option<Vec<HistoryMark>> {
    if !host.has_program("journalctl") {
        return None;
    }
    let identifier = format!("SYSLOG_IDENTIFIER={IDENTIFIER}");
    let asked = host.child("journalctl").args(["--quiet", "--no-pager", "--output=cat", "_UID=0", &identifier]).end();
    let said = asked.ok().filter(|ended| ended.status.success())?;
    Some(said.output.lines().filter_map(|line| parse_mark(line, instance)).collect())
}

fn parse_mark(line: &str, instance: &str) -> Option<HistoryMark> {
    let mut words = line.split(' ');
    if (words.next()?, words.next()?) != (PREFIX, instance) {
        return None;
    }
    let number = words.next()?.parse().ok()?;
    let digest = words.next()?.strip_suffix(':')?;
    Some(HistoryMark { number, digest: digest.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_log_is_read_back() {
        let digest = "a".repeat(64);
        let line = format!("history camcops 7 {digest}: anna (as root, pts/0) begins: stop");
        assert_eq!(parse_mark(&line, "camcops"), Some(HistoryMark { number: 7, digest: digest.clone() }));
        assert_eq!(parse_mark(&line, "research"), None);
        assert_eq!(parse_mark("history camcops x: y", "camcops"), None);
    }
}
