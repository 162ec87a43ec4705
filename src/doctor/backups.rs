//! What there is to bring the site back from.

use super::{Finding, Look};
use crate::backup::summary::BackupSummary;
use anyhow::Result;
use time::{Duration, OffsetDateTime};

const REMEDY: &str = "camcops-provision backup create";
/// The timer waits a little so that many sites don't begin at once, and a backup takes its time.
const GRACE: Duration = Duration::hours(6);

pub(crate) fn check_backups(look: &Look<'_>) -> Result<Finding> {
    let Some(summary) = BackupSummary::of(&look.site.host, look.site)? else {
        return Ok(Finding::not_applicable("only root sees backups"));
    };
    let age = summary.newest.as_ref().map(|newest| Duration::seconds(newest.age_seconds));
    if let Some(age) = age {
        look.measure("backup_age_seconds", None, age.as_seconds_f64());
    }
    let said = summary.to_string();
    if summary.absence.is_some() {
        let remedy = "mount --all && camcops-provision backup create";
        return Ok(Finding::failed(said, remedy));
    }
    if summary.last_failure.is_some() {
        return Ok(Finding::failed(said, REMEDY));
    }
    let Some(schedule) = &summary.schedule else {
        return Ok(match age {
            Some(_) => Finding::ok(said),
            None => Finding::not_applicable(said),
        });
    };
    let late = longest_gap(schedule) + GRACE;
    let since = look.journal.since();
    let waited = age.or_else(|| Some(OffsetDateTime::now_utc() - since?));
    Ok(match waited {
        Some(waited) if waited <= late => Finding::ok(said),
        _ => Finding::warning(said, REMEDY),
    })
}

/// How far apart two backups of a schedule are at most: told by which parts of it are left open.
fn longest_gap(schedule: &str) -> Duration {
    const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let small = schedule.to_ascii_lowercase();
    let words: Vec<&str> = small.split_whitespace().collect();
    match words.as_slice() {
        ["yearly" | "annually"] => Duration::days(366),
        ["semiannually"] => Duration::days(184),
        ["quarterly"] => Duration::days(92),
        ["monthly"] => Duration::days(31),
        ["weekly"] => Duration::days(7),
        // As crontab(5) has it.
        [_, _, "*", "*", "*"] => Duration::days(1),
        [_, _, "*", "*", _] => Duration::days(7),
        [_, _, _, "*", "*"] => Duration::days(31),
        [_, _, _, _, _] => Duration::days(366),
        [first, ..] if WEEKDAYS.iter().any(|day| first.starts_with(day)) => Duration::days(7),
        [date, ..] if date.contains('-') => match date.rsplit('-').collect::<Vec<_>>()[..] {
            ["*", "*", ..] => Duration::days(1),
            [_, "*", ..] => Duration::days(31),
            _ => Duration::days(366),
        },
        _ => Duration::days(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_tells_how_old_a_backup_may_be() {
        for (schedule, days) in [
            ("*-*-* 02:30", 1),
            ("hourly", 1),
            ("daily", 1),
            ("02:30", 1),
            ("Mon..Fri *-*-* 02:30", 7),
            ("weekly", 7),
            ("30 2 * * *", 1),
            ("30 2 * * 0", 7),
            ("30 2 1 * *", 31),
            ("*-*-01 03:00", 31),
            ("monthly", 31),
            ("2026-12-24 18:00", 366),
        ] {
            assert_eq!(longest_gap(schedule), Duration::days(days), "{schedule}");
        }
    }
}
