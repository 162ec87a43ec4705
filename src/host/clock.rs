//! The time as the administrator of the machine reads it.

use super::Host;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};

const PLAIN: &[BorrowedFormatItem<'_>] =
    format_description!("[day padding:none] [month repr:long] [year], [hour]:[minute] UTC");

impl Host {
    /// How the time of the machine differs from UTC at a moment, and that moment in it; a staged tree has UTC.
    pub(crate) fn local_time(&self, moment: OffsetDateTime) -> (UtcOffset, String) {
        self.ask_date(moment).unwrap_or_else(|| {
            let moment = moment.to_offset(UtcOffset::UTC);
            (UtcOffset::UTC, moment.format(PLAIN).unwrap_or_default())
        })
    }

    /// The time zones are date(1)'s to know.
    fn ask_date(&self, moment: OffsetDateTime) -> Option<(UtcOffset, String)> {
        let date = format!("--date=@{}", moment.unix_timestamp());
        let told = self.child("date").args([date.as_str(), "+%z|%-d %B %Y, %H:%M %Z"]).run().ok()?;
        let (offset, text) = told.trim().split_once('|')?;
        Some((parse_offset(offset)?, text.to_owned()))
    }
}

/// `+0130`
fn parse_offset(text: &str) -> Option<UtcOffset> {
    let (sign, digits) = text.split_at_checked(1)?;
    let (hours, minutes) = digits.split_at_checked(2)?;
    let sign = if sign == "-" { -1 } else { 1 };
    UtcOffset::from_hms(sign * hours.parse::<i8>().ok()?, sign * minutes.parse::<i8>().ok()?, 0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_the_machine_is_read() {
        assert_eq!(parse_offset("+0130"), UtcOffset::from_hms(1, 30, 0).ok());
        assert_eq!(parse_offset("-0800"), UtcOffset::from_hms(-8, 0, 0).ok());
        assert_eq!(parse_offset(""), None);
        assert_eq!(parse_offset("é1"), None);
        let root = tempfile::tempdir().unwrap();
        let moment = OffsetDateTime::from_unix_timestamp(1_796_061_600).unwrap();
        let (offset, text) = Host::staged(root.path()).unwrap().local_time(moment);
        assert_eq!((offset, text.as_str()), (UtcOffset::UTC, "30 November 2026, 18:00 UTC"));
    }
}
