//! What `status` says about backups: how old the newest one is, and whether the last try failed.

use crate::backup::{BackupKind, make};
use crate::base::terminal;
use crate::drivers::sql::copy::directory;
use crate::host::Host;
use crate::layout::HOME;
use crate::site::Site;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::fmt;
use time::{Duration, OffsetDateTime};

/// What there is to say.
#[derive(Debug, Serialize)]
pub(crate) struct BackupSummary {
    directory: String,
    /// Why the directory is not the one that it should be.
    pub(crate) absence: Option<String>,
    /// When one is made by itself.
    pub(crate) schedule: Option<String>,
    number: usize,
    unfinished: usize,
    /// The last whole one.
    pub(crate) newest: Option<Newest>,
    /// The last try, if it failed.
    pub(crate) last_failure: Option<FailedBackup>,
}

/// A whole backup.
#[derive(Debug, Serialize)]
pub(crate) struct Newest {
    name: String,
    pub(crate) bytes: u64,
    /// How long ago it was made.
    pub(crate) age_seconds: i64,
}

/// A try that failed, if no later one went well.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FailedBackup {
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    why: String,
}

impl BackupSummary {
    /// What only root may see is nothing to others.
    pub(crate) fn of(host: &Host, site: &Site) -> Result<Option<BackupSummary>> {
        if !host.is_root() {
            return Ok(None);
        }
        let backup = &site.settings().backup;
        let directory = backup.directory.as_str();
        let all = make::list_site_backups(host, site.settings(), &site.layout.slug)?;
        let mut absence = directory::explain_absence(host, &site.instance, directory)?;
        if absence.is_none() && all.is_empty() && directory::had_backups(host, &site.instance, directory)? {
            absence = Some(format!("backup.directory {directory} had backups, and is empty now"));
        }
        // One from the future says nothing of today; clocks of a network differ a little.
        let latest = OffsetDateTime::now_utc() + Duration::minutes(5);
        let whole = || {
            // What holds replaced data says nothing of the last night.
            all.iter().filter(|found| {
                let is_of_now = found.made_at <= latest && found.before().is_none();
                found.is_whole(&site.instance) && is_of_now
            })
        };
        let is_unfinished = |found: &&crate::backup::BackupEntry| found.what == BackupKind::Unfinished;
        Ok(Some(BackupSummary {
            directory: directory.to_owned(),
            absence,
            schedule: backup.schedule.given().map(str::to_owned),
            number: whole().count(),
            unfinished: all.iter().filter(is_unfinished).count(),
            newest: whole().next_back().map(|found| Newest {
                name: found.name.clone(),
                bytes: found.bytes,
                age_seconds: (OffsetDateTime::now_utc() - found.made_at).whole_seconds(),
            }),
            last_failure: last_failure(host, &site.instance)?,
        }))
    }
}

impl fmt::Display for BackupSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(absence) = &self.absence {
            f.write_str(absence)?;
        }
        match &self.newest {
            _ if self.absence.is_some() => {}
            Some(newest) => {
                let hours = newest.age_seconds / 3600;
                let age = match hours {
                    ..1 => "less than an hour".to_owned(),
                    1..48 => terminal::count_of(usize::try_from(hours).unwrap_or(0), "hour"),
                    _ => format!("{} days", hours / 24),
                };
                write!(f, "{} in {}, the newest is {age} old ({})", self.number, self.directory, newest.name)?;
            }
            None => write!(f, "no backup in {} yet", self.directory)?,
        }
        match (&self.schedule, &self.newest) {
            (Some(when), None) if self.absence.is_none() => {
                write!(f, "; the first is made {}", tell_schedule(when, true))?
            }
            (Some(when), _) => write!(f, ", made {}", tell_schedule(when, false))?,
            (None, _) => f.write_str(", not scheduled (backup.schedule)")?,
        }
        if let Some(failure) = &self.last_failure {
            let at = failure.at.format(&time::format_description::well_known::Rfc3339).unwrap_or_default();
            write!(f, "; the last attempt failed at {at}: {}", failure.why)?;
        }
        Ok(())
    }
}

/// When a schedule's next backup is made, or each of them: in words where it is a time of every day, else as it is written.
pub(crate) fn tell_schedule(schedule: &str, is_next: bool) -> String {
    let time = match schedule.split_whitespace().collect::<Vec<_>>()[..] {
        ["daily"] => Some((0, 0)),
        ["*-*-*", time] | [time] => parse_time(time),
        // As crontab(5) has it.
        [minute, hour, "*", "*", "*"] => hour.parse().ok().zip(minute.parse().ok()),
        _ => None,
    };
    match time {
        Some((hour @ (0..6 | 20..24), minute)) if is_next => format!("tonight at {hour:02}:{minute:02}"),
        Some((hour, minute)) if is_next => format!("at {hour:02}:{minute:02}"),
        Some((hour, minute)) => format!("every day at {hour:02}:{minute:02}"),
        None => format!("by the schedule {schedule}"),
    }
}

/// `02:30` or `02:30:00`
fn parse_time(time: &str) -> Option<(u8, u8)> {
    let mut numbers = time.split(':').map(|number| number.parse::<u8>().ok());
    match (numbers.next()??, numbers.next()??, numbers.next()) {
        (hour @ 0..24, minute @ 0..60, None | Some(Some(0))) => Some((hour, minute)),
        _ => None,
    }
}

fn summary_path(instance: &str) -> String {
    format!("{HOME}/{instance}/backup-failed")
}

fn last_failure(host: &Host, instance: &str) -> Result<Option<FailedBackup>> {
    let text = host.read_text(&summary_path(instance))?;
    // What can't be read was cut: then the next try tells more.
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
}

/// Remembers how a try went.
pub(crate) fn record_result(host: &Host, instance: &str, why: Option<&anyhow::Error>) -> Result<()> {
    let path = summary_path(instance);
    match why {
        None => host.remove_file(&path),
        Some(_) if host.look_into(&format!("{HOME}/{instance}"))?.is_none() => Ok(()),
        Some(why) => {
            let failure =
                FailedBackup { at: OffsetDateTime::now_utc().replace_nanosecond(0)?, why: format!("{why:#}") };
            let text = serde_json::to_vec(&failure)?;
            host.put_file(&path, &text, Some((0, 0)), 0o600)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_told_in_words_where_it_can_be() {
        for (schedule, next, each) in [
            ("*-*-* 02:30", "tonight at 02:30", "every day at 02:30"),
            ("*-*-* 21:05:00", "tonight at 21:05", "every day at 21:05"),
            ("12:15", "at 12:15", "every day at 12:15"),
            ("daily", "tonight at 00:00", "every day at 00:00"),
            ("30 2 * * *", "tonight at 02:30", "every day at 02:30"),
            ("30 2 * * 0", "by the schedule 30 2 * * 0", "by the schedule 30 2 * * 0"),
            ("*-*-* 02:30..40", "by the schedule *-*-* 02:30..40", "by the schedule *-*-* 02:30..40"),
            ("weekly", "by the schedule weekly", "by the schedule weekly"),
        ] {
            assert_eq!((tell_schedule(schedule, true).as_str(), tell_schedule(schedule, false).as_str()), (next, each));
        }
    }
}
