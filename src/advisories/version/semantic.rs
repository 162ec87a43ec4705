//! Semantic Versioning 2.0: what is behind a + does not count.

/// A version of a crate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SemanticVersion {
    numbers: [u64; 3],
    stage: ReleaseStage,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum ReleaseStage {
    Before(Vec<Identifier>),
    Released,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    Number(u64),
    Word(String),
}

impl SemanticVersion {
    pub(super) fn parse(text: &str) -> Option<SemanticVersion> {
        let text = text.split_once('+').map_or(text, |(version, _)| version);
        let (numbers, before) = match text.split_once('-') {
            Some((numbers, before)) => (numbers, Some(before)),
            None => (text, None),
        };
        let mut all = [0; 3];
        let mut given = numbers.split('.');
        // Advisories write 1 and 1.2, too.
        for (at, number) in given.by_ref().take(3).enumerate() {
            all[at] = parse_number(number)?;
        }
        if given.next().is_some() {
            return None;
        }
        let stage = match before {
            None => ReleaseStage::Released,
            Some(words) => ReleaseStage::Before(words.split('.').map(parse_identifier).collect::<Option<_>>()?),
        };
        Some(SemanticVersion { numbers: all, stage })
    }
}

fn parse_number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn parse_identifier(word: &str) -> Option<Identifier> {
    let is_plain = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    is_plain.then(|| match parse_number(word) {
        Some(number) => Identifier::Number(number),
        None => Identifier::Word(word.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_in_the_order_of_the_standard() {
        let order = [
            "0.0.0-0",
            "0",
            "0.2.99",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.2",
            "1.10.0",
            "2.0.0-rc.1-x",
        ];
        let version = |text| SemanticVersion::parse(text).unwrap();
        for pair in order.windows(2) {
            assert!(version(pair[0]) < version(pair[1]), "{pair:?}");
        }
        assert_eq!(version("1.0.0+build"), version("1.0.0"));
        for text in ["", "1.", "1.2.3.4", "1.0.0-", "1.0.0-a..b", "v1", "+1", "1.-1"] {
            assert_eq!(SemanticVersion::parse(text), None, "{text}");
        }
    }
}
