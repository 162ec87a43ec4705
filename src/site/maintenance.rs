//! Maintenance of a site: until when Apache answers in place of CamCOPS. It compares the times with its own clock, so that
//! nothing has to run for it to end.

use crate::base::secret::Secret;
use crate::host::Host;
use crate::layout::Layout;
use anyhow::Result;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

/// The header with the word by which a request of this program gets through to CamCOPS.
pub(crate) const PASS_HEADER: &str = "X-Camcops-Maintenance";
/// What the page for visitors has, and no other page.
pub(crate) const PAGE_MARK: &str = "camcops-provision maintenance";

/// A date as HTTP has it.
const HTTP_DATE: &[BorrowedFormatItem<'_>] =
    format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
/// The account that runs the site and Apache have to read it, and nobody else: it has the word.
const STATE_MODE: u32 = 0o640;

/// When it begins and ends.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Maintenance {
    pub(crate) since: OffsetDateTime,
    pub(crate) until: OffsetDateTime,
    pass: String,
}

/// What Apache looks at with each request.
pub(crate) fn state_file(layout: &Layout) -> String {
    format!("{}/maintenance", layout.pages)
}

fn page_file(layout: &Layout) -> String {
    format!("{}/maintenance.html", layout.pages)
}

fn tablet_file(layout: &Layout) -> String {
    format!("{}/maintenance.txt", layout.pages)
}

impl Maintenance {
    pub(crate) fn between(since: OffsetDateTime, until: OffsetDateTime) -> Result<Maintenance> {
        Ok(Maintenance { since, until, pass: Secret::generate()?.reveal().to_owned() })
    }

    /// The one line of the file, as the site's configuration of Apache reads it.
    fn state_line(&self) -> Result<String> {
        let microseconds = |moment: OffsetDateTime| moment.unix_timestamp() * 1_000_000;
        let date = self.until.to_offset(time::UtcOffset::UTC).format(HTTP_DATE)?;
        Ok(format!("{} {} {} {date}\n", microseconds(self.since), microseconds(self.until), self.pass))
    }

    fn parse(text: &str) -> Option<Maintenance> {
        let mut words = text.split(' ');
        let mut moment = || OffsetDateTime::from_unix_timestamp(words.next()?.parse::<i64>().ok()? / 1_000_000).ok();
        let (since, until) = (moment()?, moment()?);
        Some(Maintenance { since, until, pass: words.next()?.to_owned() })
    }

    /// The one that is on at this moment.
    pub(crate) fn now(host: &Host, layout: &Layout) -> Result<Option<Maintenance>> {
        let text = host.read_text(&state_file(layout))?;
        let now = OffsetDateTime::now_utc();
        let is_on = |one: &Maintenance| one.since <= now && now < one.until;
        Ok(text.as_deref().and_then(Maintenance::parse).filter(is_on))
    }

    /// Switches it on: Apache sees it with the next request.
    pub(crate) fn begin(&self, host: &Host, layout: &Layout, group: u32, page: &str, tablets: &str) -> Result<()> {
        host.put_file(&page_file(layout), page.as_bytes(), Some((0, 0)), 0o644)?;
        host.put_file(&tablet_file(layout), tablets.as_bytes(), Some((0, 0)), 0o644)?;
        host.put_file(&state_file(layout), self.state_line()?.as_bytes(), Some((0, group)), STATE_MODE)
    }

    /// Switches it off; says whether there was anything of it.
    pub(crate) fn end(host: &Host, layout: &Layout) -> Result<bool> {
        let mut was_there = false;
        // Without this one the others have no effect.
        for path in [state_file(layout), page_file(layout), tablet_file(layout)] {
            was_there |= host.stat(&path)?.is_some();
            host.remove_file(&path)?;
        }
        Ok(was_there)
    }

    /// The end as people read it, in the time of the machine.
    pub(crate) fn shown_end(&self, host: &Host) -> String {
        host.local_time(self.until).1
    }
}

/// The line of a request that lets it through; nothing where there is no maintenance, or the caller may not see it.
pub(crate) fn pass_header(state: &str) -> String {
    let text = std::fs::read_to_string(state).unwrap_or_default();
    Maintenance::parse(&text).map_or_else(String::new, |found| format!("{PASS_HEADER}: {}\r\n", found.pass))
}

/// What a tablet is answered: CamCOPS's own form of a failure, whose text its app shows. Without a session it begins with
/// a new one when it tries again, and what it was not told to be stored it keeps.
pub(crate) fn tablet_answer(message: &str, end: &str) -> String {
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    format!(
        "success:0\nerror:{message} Expected back: {end}. Your data stay on this device; please upload again then.\nsession_id:\nsession_token:\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::DEBIAN;

    #[test]
    fn what_apache_reads_is_read_back() {
        let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        let one = Maintenance { since: at(1_796_052_600), until: at(1_796_061_600), pass: "abc".into() };
        let line = one.state_line().unwrap();
        assert_eq!(line, "1796052600000000 1796061600000000 abc Mon, 30 Nov 2026 18:00:00 GMT\n");
        assert_eq!(Maintenance::parse(&line), Some(one));
        for broken in ["", "x", "1796052600000000 18", "1 2"] {
            assert_eq!(Maintenance::parse(broken), None, "{broken}");
        }
    }

    #[test]
    fn it_is_on_from_its_beginning_to_its_end_and_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(&DEBIAN, "camcops");
        std::fs::create_dir_all(root.path().join(&layout.pages[1..])).unwrap();
        let host = Host::staged(root.path()).unwrap();
        let group = nix::unistd::getegid().as_raw();
        let now = OffsetDateTime::now_utc();
        let minutes = time::Duration::minutes;
        for (since, until, is_on) in [(-5, 5, true), (-9, -1, false), (5, 9, false)] {
            let one = Maintenance::between(now + minutes(since), now + minutes(until)).unwrap();
            one.begin(&host, &layout, group, "page", "tablets").unwrap();
            assert_eq!(Maintenance::now(&host, &layout).unwrap().is_some(), is_on, "{since} to {until}");
        }
        let header = pass_header(&host.outside(&state_file(&layout)));
        assert!(header.starts_with("X-Camcops-Maintenance: ") && header.ends_with("\r\n"), "{header}");
        assert!(Maintenance::end(&host, &layout).unwrap());
        assert!(!Maintenance::end(&host, &layout).unwrap());
        assert_eq!(host.list(&layout.pages).unwrap().unwrap(), [""; 0]);
        assert_eq!(pass_header(&host.outside(&state_file(&layout))), "");
    }

    #[test]
    fn a_tablet_finds_the_four_lines_it_looks_for() {
        let answer = tablet_answer("New disks.\n error:x\r\n success:1", "30 November 2026, 18:00 UTC");
        let lines: Vec<&str> = answer.split('\n').collect();
        assert_eq!(lines[0], "success:0");
        assert!(
            lines[1].starts_with("error:New disks. error:x success:1 Expected back: 30 November 2026, 18:00 UTC. ")
        );
        assert_eq!(&lines[2..], ["session_id:", "session_token:", ""]);
    }
}
