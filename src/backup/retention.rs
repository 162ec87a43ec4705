//! Which backups stay.

use std::collections::BTreeSet;
use time::{Duration, OffsetDateTime};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// The newest one of each of so many days, weeks and months.
    Generations {
        /// Of how many days.
        daily: u32,
        /// Of how many weeks.
        weekly: u32,
        /// Of how many months.
        monthly: u32,
    },
    /// All of the last 31 days, then those of the first of each month.
    Month,
    /// All of the last 31 days: nobody wants back for longer what was replaced.
    Replaced,
}

/// For each of these moments, oldest first, whether what was made then stays. The newest one always does, and all of the
/// last day: somebody may have made one before a change that is not done yet.
pub(crate) fn mark_kept(rule: Rule, made: &[OffsetDateTime], now: OffsetDateTime) -> Vec<bool> {
    let is_recent = |moment: &OffsetDateTime| now - *moment < Duration::DAY;
    let mut stays: Vec<bool> = made.iter().map(is_recent).collect();
    if let Some(newest) = stays.last_mut().filter(|_| rule != Rule::Replaced) {
        *newest = true;
    }
    let is_of_month = |moment: &OffsetDateTime| now - *moment < Duration::days(31);
    match rule {
        Rule::Replaced => {
            for (moment, stays) in made.iter().zip(&mut stays) {
                *stays |= is_of_month(moment);
            }
        }
        Rule::Month => {
            for (moment, stays) in made.iter().zip(&mut stays) {
                *stays |= is_of_month(moment) || moment.day() == 1;
            }
        }
        Rule::Generations { daily, weekly, monthly } => {
            let day = |moment: &OffsetDateTime| i64::from(moment.to_julian_day());
            // A Julian day that 7 divides is a Monday.
            let week = |moment: &OffsetDateTime| i64::from(moment.to_julian_day()) / 7;
            let month = |moment: &OffsetDateTime| i64::from(moment.year()) * 12 + i64::from(u8::from(moment.month()));
            keep_newest(daily, made.iter().map(day), &mut stays);
            keep_newest(weekly, made.iter().map(week), &mut stays);
            keep_newest(monthly, made.iter().map(month), &mut stays);
        }
    }
    stays
}

/// The newest one of each of the last so many periods stays.
fn keep_newest(number: u32, periods: impl DoubleEndedIterator<Item = i64> + ExactSizeIterator, stays: &mut [bool]) {
    let mut seen = BTreeSet::new();
    for (period, stays) in periods.zip(stays).rev() {
        if seen.len() < number as usize && seen.insert(period) {
            *stays = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);

    /// One each night for so many days, oldest first.
    fn nights(days: i64) -> Vec<OffsetDateTime> {
        let last = datetime!(2026-11-21 02:00 UTC);
        (0..days).rev().map(|ago| last - Duration::days(ago)).collect()
    }

    fn kept(rule: Rule, made: &[OffsetDateTime]) -> Vec<String> {
        let stays = mark_kept(rule, made, NOW);
        let kept = made.iter().zip(stays).filter(|(_, stays)| *stays);
        kept.map(|(moment, _)| moment.date().to_string()).collect()
    }

    #[test]
    fn days_weeks_and_months_are_kept() {
        let rule = Rule::Generations { daily: 3, weekly: 2, monthly: 3 };
        assert_eq!(
            kept(rule, &nights(400)),
            [
                // The last of two months before this one.
                "2026-09-30",
                "2026-10-31",
                // The Sunday of the week before.
                "2026-11-15",
                "2026-11-19",
                "2026-11-20",
                "2026-11-21",
            ]
        );
    }

    #[test]
    fn a_month_and_the_first_of_each_month_are_kept() {
        let kept = kept(Rule::Month, &nights(100));
        assert_eq!(kept.len(), 31 + 2);
        assert_eq!(kept[..4], ["2026-09-01", "2026-10-01", "2026-10-22", "2026-10-23"]);
    }

    #[test]
    fn the_newest_and_those_of_the_last_day_stay_whatever_the_rule() {
        let none = Rule::Generations { daily: 0, weekly: 0, monthly: 0 };
        assert_eq!(kept(none, &nights(5)), ["2026-11-21"]);
        let hours = [9, 10, 11].map(|hour| NOW.replace_hour(hour).unwrap());
        assert_eq!(kept(none, &hours).len(), 3);
        let old = [datetime!(2020-05-05 02:00 UTC)];
        assert_eq!(kept(Rule::Month, &old).len(), 1);
        assert!(mark_kept(none, &[], NOW).is_empty());
        assert_eq!(mark_kept(Rule::Replaced, &old, NOW), [false]);
        assert_eq!(mark_kept(Rule::Replaced, &hours, NOW), [true; 3]);
    }
}
