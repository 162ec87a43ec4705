//! What was measured of a site, for its plots: each five minutes of the last day, each hour of the last month.

use crate::host::Host;
use crate::layout::path_beside_journal;
use anyhow::Result;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;

/// The file begins with it; one with another beginning is not read.
const FORMAT: &str = "camcops-samples 1";
const FIVE_MINUTES: i64 = 300;
const HOUR: i64 = 3600;
pub(crate) const DAY: i64 = 24 * HOUR;
/// Older samples go.
pub(crate) const MONTH: i64 = 31 * DAY;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quantity {
    /// Requests in a second, since the sample before.
    Requests,
    /// Tasks that wait for the workers.
    Waiting,
    /// Memory of the services, in bytes.
    Memory,
    /// Connections to the database server.
    Connections,
    /// Free space on the fullest file system of the site, in bytes.
    Disk,
    /// Age of the newest backup, in seconds.
    BackupAge,
    /// Its size, in bytes.
    BackupSize,
}

impl Quantity {
    pub(crate) const ALL: [Quantity; 7] = [
        Quantity::Requests,
        Quantity::Waiting,
        Quantity::Memory,
        Quantity::Connections,
        Quantity::Disk,
        Quantity::BackupAge,
        Quantity::BackupSize,
    ];
}

/// What was measured at one time; nothing where it could not be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HistorySample {
    /// Seconds since 1970.
    pub(crate) at: i64,
    values: [Option<f64>; Quantity::ALL.len()],
}

impl HistorySample {
    pub(crate) fn taken(at: i64) -> HistorySample {
        HistorySample { at, values: [None; Quantity::ALL.len()] }
    }

    pub(crate) fn with(mut self, quantity: Quantity, value: Option<f64>) -> HistorySample {
        self.values[quantity as usize] = value.filter(|value| value.is_finite());
        self
    }

    pub(crate) fn get(&self, quantity: Quantity) -> Option<f64> {
        self.values[quantity as usize]
    }

    fn parse(line: &str) -> Option<HistorySample> {
        let mut words = line.split(' ');
        let mut sample = HistorySample::taken(words.next()?.parse().ok()?);
        for quantity in Quantity::ALL {
            let word = words.next()?;
            let value = if word == "-" { None } else { Some(word.parse().ok()?) };
            sample = sample.with(quantity, value);
        }
        Some(sample)
    }

    fn line(&self) -> String {
        let values =
            self.values.iter().map(|value| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}")));
        format!("{} {}\n", self.at, values.collect::<Vec<_>>().join(" "))
    }
}

/// How far Apache's log of the site was read.
#[derive(Debug, Clone, Copy, PartialEq)]
struct LogPosition {
    inode: u64,
    size: u64,
    /// Seconds since 1970.
    at: i64,
}

impl LogPosition {
    fn parse(words: &str) -> Option<LogPosition> {
        let mut words = words.split(' ');
        let (inode, size) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(LogPosition { inode, size, at: words.next()?.parse().ok()? })
    }
}

/// All samples, the oldest first.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct History {
    pub(crate) samples: Vec<HistorySample>,
    log: Option<LogPosition>,
}

impl History {
    /// What was kept of an instance; what can't be read is left out.
    pub(crate) fn read(host: &Host, instance: &str) -> Result<History> {
        let text = host.read_text(&path_beside_journal(instance, "samples"))?;
        Ok(text.map_or_else(History::default, |text| History::parse(&text)))
    }

    pub(crate) fn write(&self, host: &Host, instance: &str) -> Result<()> {
        host.put_file(&path_beside_journal(instance, "samples"), self.text().as_bytes(), Some((0, 0)), 0o600)
    }

    fn parse(text: &str) -> History {
        let mut lines = text.lines();
        if lines.next() != Some(FORMAT) {
            return History::default();
        }
        let log = lines.next().and_then(|line| LogPosition::parse(line.strip_prefix("log ")?));
        let mut samples: Vec<HistorySample> = lines.filter_map(HistorySample::parse).collect();
        samples.sort_by_key(|sample| sample.at);
        History { samples, log }
    }

    fn text(&self) -> String {
        let mut text = format!("{FORMAT}\n");
        let _ = match &self.log {
            Some(LogPosition { inode, size, at }) => writeln!(text, "log {inode} {size} {at}"),
            None => writeln!(text, "log"),
        };
        text.extend(self.samples.iter().map(HistorySample::line));
        text
    }

    /// Adds one, and thins out what is older than a day.
    pub(crate) fn add(&mut self, sample: HistorySample) {
        let now = sample.at;
        // A clock that was wrong once must not stand in the way of all that come after.
        self.samples.retain(|old| old.at < now && old.at > now - MONTH);
        self.samples.push(sample);
        let mut thinned: Vec<(i64, Vec<HistorySample>)> = Vec::new();
        for sample in self.samples.drain(..) {
            let slot = slot_of(sample.at, now);
            match thinned.last_mut() {
                Some((same, all)) if *same == slot => all.push(sample),
                _ => thinned.push((slot, vec![sample])),
            }
        }
        self.samples = thinned.into_iter().filter_map(|(_, all)| mean_of(&all)).collect();
    }

    /// Requests in a second since this was asked last, by the lines of a log.
    pub(crate) fn count_requests(&mut self, path: &str, now: i64) -> Option<f64> {
        let data = std::fs::metadata(path).ok()?;
        let here = LogPosition { inode: data.ino(), size: data.size(), at: now };
        let then = self.log.replace(here)?;
        let lines = match then.inode == here.inode {
            true => count_lines(path, then.size, here.size)?,
            // It was rotated meanwhile.
            false => {
                let former = format!("{path}.1");
                let data = std::fs::metadata(&former).ok().filter(|data| data.ino() == then.inode)?;
                count_lines(&former, then.size, data.size())? + count_lines(path, 0, here.size)?
            }
        };
        (now > then.at).then(|| lines as f64 / (now - then.at) as f64)
    }
}

/// Samples of the same one become one: five minutes of the last day, whole hours before it. So there are never more than
/// some thousand.
fn slot_of(at: i64, now: i64) -> i64 {
    let hour = at.div_euclid(HOUR) * HOUR;
    // No five minutes are the same as an hour.
    if hour + HOUR <= now - DAY { hour } else { at.div_euclid(FIVE_MINUTES) * FIVE_MINUTES + 1 }
}

fn mean_of(samples: &[HistorySample]) -> Option<HistorySample> {
    let first = samples.first()?;
    let mut mean = HistorySample::taken(first.at);
    for quantity in Quantity::ALL {
        let values: Vec<f64> = samples.iter().filter_map(|sample| sample.get(quantity)).collect();
        let value = (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
        mean = mean.with(quantity, value);
    }
    Some(mean)
}

/// How many lines end between two places of a file; nothing where it was cut.
fn count_lines(path: &str, from: u64, to: u64) -> Option<u64> {
    let length = to.checked_sub(from)?;
    let mut file = File::open(path).ok()?;
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut reader = BufReader::with_capacity(1 << 16, file.take(length));
    let mut lines = 0;
    loop {
        let read = reader.fill_buf().ok()?;
        if read.is_empty() {
            return Some(lines);
        }
        lines += memchr::memchr_iter(b'\n', read).count() as u64;
        let length = read.len();
        reader.consume(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: i64, value: f64) -> HistorySample {
        HistorySample::taken(at).with(Quantity::Requests, Some(value)).with(Quantity::BackupAge, None)
    }

    #[test]
    fn a_month_of_samples_is_bounded_and_keeps_its_means() {
        let start = 1_796_000_000;
        let mut history = History::default();
        for step in 0..12 * 24 * 40 {
            history.add(sample(start + step * FIVE_MINUTES, (step % 12) as f64));
        }
        let last = history.samples.last().unwrap().at;
        let (day, before): (Vec<&HistorySample>, Vec<&HistorySample>) =
            history.samples.iter().partition(|sample| sample.at > last - DAY);
        assert_eq!(day.len(), 288);
        assert!((720..=744).contains(&before.len()), "{}", before.len());
        assert!(history.samples.first().unwrap().at > last - MONTH);
        // Whole hours have the mean of their twelve samples.
        assert!(before[1..700].iter().all(|sample| sample.get(Quantity::Requests) == Some(5.5)));
        assert!(history.text().len() < 100_000);
        assert_eq!(History::parse(&history.text()), history);
    }

    #[test]
    fn whoever_samples_too_often_keeps_no_more() {
        let mut history = History::default();
        for second in 0..2000 {
            history.add(sample(1_796_000_100 + second, 1.0));
        }
        assert_eq!(history.samples.len(), 7);
        // A clock that was ahead is forgotten.
        history.add(sample(1_795_999_000, 2.0));
        assert_eq!(history.samples, [sample(1_795_999_000, 2.0)]);
    }

    #[test]
    fn what_can_not_be_read_is_left_out() {
        assert_eq!(History::parse(""), History::default());
        assert_eq!(History::parse("camcops-samples 2\nlog\n1 - - - - - - -\n"), History::default());
        let history = History::parse("camcops-samples 1\nlog 7 8 9\n1 2.000 - - - - - -\nx\n5 1\n");
        assert_eq!(history.log, Some(LogPosition { inode: 7, size: 8, at: 9 }));
        assert_eq!(history.samples, [sample(1, 2.0)]);
        assert_eq!(History::parse("camcops-samples 1\nlog\n5 NaN inf - - - - -\n").samples, [HistorySample::taken(5)]);
    }

    #[test]
    fn requests_are_counted_over_the_rotation_of_a_log() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let name = path.to_str().unwrap();
        let mut history = History::default();
        assert_eq!(history.count_requests(name, 0), None);
        std::fs::write(&path, "a\nb\n").unwrap();
        assert_eq!(history.count_requests(name, 100), None);
        std::fs::write(&path, "a\nb\nc\nd\n").unwrap();
        assert_eq!(history.count_requests(name, 104), Some(0.5));
        std::fs::write(&path, "a\nb\nc\nd\ne\n").unwrap();
        std::fs::rename(&path, directory.path().join("access.log.1")).unwrap();
        std::fs::write(&path, "f\ng\nh").unwrap();
        assert_eq!(history.count_requests(name, 107), Some(1.0));
        // Cut, or rotated twice.
        std::fs::write(&path, "f\n").unwrap();
        assert_eq!(history.count_requests(name, 110), None);
        assert_eq!(history.count_requests(name, 120), Some(0.0));
        assert_eq!(history.count_requests(name, 120), None);
    }
}
