//! Debian's versions, as deb-version(7) has it.

use std::cmp::Ordering;

/// A version of a package of Debian or Ubuntu.
#[derive(Debug, Clone)]
pub(crate) struct DebianVersion {
    epoch: u64,
    upstream: String,
    revision: String,
}

impl DebianVersion {
    pub(super) fn parse(text: &str) -> Option<DebianVersion> {
        let (epoch, rest) = match text.split_once(':') {
            Some((epoch, rest)) => (epoch.parse().ok()?, rest),
            None => (0, text),
        };
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        let is_plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".+-~:".contains(&byte));
        let begins = upstream.starts_with(|c: char| c.is_ascii_alphanumeric());
        (begins && is_plain(upstream) && is_plain(revision)).then(|| DebianVersion {
            epoch,
            upstream: upstream.to_owned(),
            revision: revision.to_owned(),
        })
    }
}

impl Ord for DebianVersion {
    fn cmp(&self, other: &DebianVersion) -> Ordering {
        let by_epoch = self.epoch.cmp(&other.epoch);
        let by_upstream = || compare_parts(self.upstream.as_bytes(), other.upstream.as_bytes());
        let by_revision = || compare_parts(self.revision.as_bytes(), other.revision.as_bytes());
        by_epoch.then_with(by_upstream).then_with(by_revision)
    }
}

impl PartialOrd for DebianVersion {
    fn partial_cmp(&self, other: &DebianVersion) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for DebianVersion {
    fn eq(&self, other: &DebianVersion) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for DebianVersion {}

/// Turn by turn what is no digit, by dpkg's own order of characters, and numbers.
fn compare_parts(mut one: &[u8], mut other: &[u8]) -> Ordering {
    while !one.is_empty() || !other.is_empty() {
        let words = (
            take_while(&mut one, |byte| !byte.is_ascii_digit()),
            take_while(&mut other, |byte| !byte.is_ascii_digit()),
        );
        for at in 0..words.0.len().max(words.1.len()) {
            let order = rank_of(words.0.get(at)).cmp(&rank_of(words.1.get(at)));
            if order != Ordering::Equal {
                return order;
            }
        }
        let numbers = (take_number(&mut one), take_number(&mut other));
        // Without zeros before it, the longer number is the larger.
        let order = numbers.0.len().cmp(&numbers.1.len()).then_with(|| numbers.0.cmp(numbers.1));
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

fn take_while<'a>(bytes: &mut &'a [u8], is_meant: impl Fn(u8) -> bool) -> &'a [u8] {
    let end = bytes.iter().position(|byte| !is_meant(*byte)).unwrap_or(bytes.len());
    let (taken, rest) = bytes.split_at(end);
    *bytes = rest;
    taken
}

fn take_number<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
    take_while(bytes, |byte| byte == b'0');
    take_while(bytes, |byte| byte.is_ascii_digit())
}

/// A tilde comes before the end, and that before letters; all else comes behind.
fn rank_of(byte: Option<&u8>) -> i32 {
    match byte {
        Some(b'~') => -1,
        None => 0,
        Some(letter) if letter.is_ascii_alphabetic() => i32::from(*letter),
        Some(other) => i32::from(*other) + 256,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_in_the_order_of_dpkg() {
        let version = |text| DebianVersion::parse(text).unwrap_or_else(|| panic!("{text}"));
        // The first line is the example of deb-version(7).
        for order in [
            &["1.0~~", "1.0~~a", "1.0~", "1.0", "1.0a"][..],
            &[
                "0",
                "1.2.3~rc1-1",
                "1.2.3-1~bpo11+1",
                "1.2.3-1~deb12u1",
                "1.2.3-1",
                "1.2.3-1+b1",
                "1.2.3-1+deb12u2",
                "1.2.3-1+deb12u10",
            ],
            &["3.0.11-1~deb12u2", "3.0.15-1~deb12u1", "3.0.17-1~deb12u2"],
            &["1.0-1", "1.0-1ubuntu1", "1.0-1ubuntu1.10", "1.0a-1", "1.0+dfsg-1", "1.0.1", "1:0.1", "2:0"],
            &["1.2-2-1", "1.2-10-1"],
        ] {
            for (at, one) in order.iter().enumerate() {
                for (other_at, other) in order.iter().enumerate() {
                    assert_eq!(version(one).cmp(&version(other)), at.cmp(&other_at), "{one} {other}");
                }
            }
        }
        for (one, other) in [("0:1.0-1", "1.0-1"), ("1.01", "1.1"), ("1.0", "1.0-0"), ("1.0-0", "1.0-00")] {
            assert_eq!(version(one), version(other), "{one} {other}");
        }
        for text in ["", ":1", "a:1", "1:", "1.0_1", "1.0 1", "-1"] {
            assert!(DebianVersion::parse(text).is_none(), "{text}");
        }
    }
}
