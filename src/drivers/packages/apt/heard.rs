//! What apt and dpkg say on the way: what is worth a line, and how far they are.

use crate::base::progress::{Amount, Tell, Unit};

/// A run of apt that is listened to.
#[derive(Debug)]
pub(super) struct HeardApt<'a> {
    tell: Tell,
    /// The packages that were asked for, among those that come with them.
    wanted: &'a [&'a str],
    last: String,
    /// How many packages come, and how much of them is to be fetched.
    packages: u64,
    bytes: u64,
    fetched: u64,
    unpacked: u64,
    set_up: u64,
}

impl HeardApt<'_> {
    pub(super) fn new<'a>(tell: Tell, wanted: &'a [&'a str]) -> HeardApt<'a> {
        let last = String::new();
        HeardApt { tell, wanted, last, packages: 0, bytes: 0, fetched: 0, unpacked: 0, set_up: 0 }
    }

    pub(super) fn hear(&mut self, line: &str) {
        // While it waits it says so each second.
        if line == self.last {
            return;
        }
        line.clone_into(&mut self.last);
        if self.is_worth_a_line(line) {
            self.tell.line(line.trim_end_matches(" ..."));
        }
        let (bytes, packages) = (self.bytes, self.packages);
        if let Some(number) = count_packages(line) {
            self.packages = number;
        } else if let Some(size) = line.strip_prefix("Need to get ") {
            // Where some are here already: "12.3 MB/45.6 MB of archives."
            self.bytes = size.split(['/', 'o']).next().and_then(parse_size).unwrap_or(0);
        } else if line.starts_with("Get:") && self.bytes > 0 {
            let size = line.rsplit_once('[').and_then(|(_, size)| parse_size(size.trim_end_matches(']')));
            self.fetched = (self.fetched + size.unwrap_or(0)).min(bytes);
            self.tell.amount(Amount { what: "fetching packages", done: self.fetched, all: bytes, unit: Unit::Bytes });
        } else if line.starts_with("Unpacking ") && packages > 0 {
            self.unpacked = (self.unpacked + 1).min(packages);
            self.count("unpacking packages", self.unpacked);
        } else if line.starts_with("Setting up ") && packages > 0 {
            self.set_up = (self.set_up + 1).min(packages);
            self.count("setting up packages", self.set_up);
        }
    }

    fn count(&self, what: &str, done: u64) {
        self.tell.amount(Amount { what, done, all: self.packages, unit: Unit::Items });
    }

    /// How much comes, which of the wanted ones is being set up, what is waited for.
    fn is_worth_a_line(&self, line: &str) -> bool {
        let is_wanted = line.strip_prefix("Setting up ").is_some_and(|rest| {
            let name = rest.split([' ', ':']).next().unwrap_or_default();
            self.wanted.contains(&name)
        });
        let worth = ["Need to get ", "Fetched ", "Waiting for cache lock", "dpkg: error"];
        is_wanted || worth.iter().any(|start| line.starts_with(start))
    }
}

/// Of `1 upgraded, 12 newly installed, 0 to remove and 3 not upgraded.` those that are unpacked.
fn count_packages(line: &str) -> Option<u64> {
    let (upgraded, rest) = line.split_once(" upgraded, ")?;
    let (installed, _) = rest.split_once(" newly installed, ")?;
    Some(upgraded.parse::<u64>().ok()? + installed.parse::<u64>().ok()?)
}

/// `1,234 kB`
fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = text.trim().split_once(' ')?;
    let number: f64 = number.replace(',', "").parse().ok()?;
    let factor = match unit.trim() {
        "B" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        _ => return None,
    };
    // What apt rounded is no exact number anyway.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    (number >= 0.0).then_some((number * factor) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_apt_says_is_counted() {
        let mut heard = HeardApt::new(Tell::NOBODY, &["apache2"]);
        for line in [
            "2 upgraded, 1 newly installed, 0 to remove and 3 not upgraded.",
            "Need to get 1,500 kB/45.6 MB of archives.",
            "Get:1 http://deb.example.org bookworm/main amd64 libapr1 amd64 1.7.2-3 [500 kB]",
            "Get:2 http://deb.example.org bookworm/main amd64 apache2 amd64 2.4.62 [512 B]",
            "Unpacking apache2 (2.4.62) ...",
            "Setting up libapr1:amd64 (1.7.2-3) ...",
            "Setting up apache2 (2.4.62) ...",
        ] {
            heard.hear(line);
        }
        let HeardApt { packages, bytes, fetched, unpacked, set_up, .. } = heard;
        assert_eq!((packages, bytes, fetched, unpacked, set_up), (3, 1_500_000, 500_512, 1, 2));
        assert!(heard.is_worth_a_line("Setting up apache2 (2.4.62) ..."));
        assert!(!heard.is_worth_a_line("Setting up libapr1:amd64 (1.7.2-3) ..."));
    }

    #[test]
    fn sizes_are_read_as_apt_writes_them() {
        assert_eq!(
            ["1,234 kB", "12.3 MB", "512 B", "much"].map(parse_size),
            [Some(1_234_000), Some(12_300_000), Some(512), None]
        );
    }
}
