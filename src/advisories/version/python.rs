//! PEP 440.

/// A version of a Python package; what stands first decides first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PythonVersion {
    epoch: u128,
    /// Without zeros at its end: 1.0 is 1.
    release: Vec<u128>,
    pre: PreStage,
    /// None is before each.
    post: Option<u128>,
    dev: DevStage,
    local: Option<Vec<LocalPart>>,
}

/// Where a version stands before its release.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum PreStage {
    /// A development version of the release itself comes before its alphas.
    Undecided,
    Alpha(u128),
    Beta(u128),
    Candidate(u128),
    Final,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum DevStage {
    Dev(u128),
    Done,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum LocalPart {
    Word(String),
    Number(u128),
}

impl PythonVersion {
    pub(super) fn parse(text: &str) -> Option<PythonVersion> {
        let lower = text.to_ascii_lowercase();
        let (public, local) = match lower.split_once('+') {
            Some((public, local)) => (public, Some(parse_local(local)?)),
            None => (lower.as_str(), None),
        };
        let mut rest = Rest(public.strip_prefix('v').unwrap_or(public));
        let mut first = rest.number()?;
        let mut epoch = 0;
        if rest.skip("!") {
            epoch = first;
            first = rest.number()?;
        }
        let mut release = vec![first];
        while rest.0.starts_with('.') && rest.0[1..].starts_with(|c: char| c.is_ascii_digit()) {
            rest.skip(".");
            release.push(rest.number()?);
        }
        while release.last() == Some(&0) {
            release.pop();
        }
        let pre = rest.stage(&["alpha", "a", "beta", "b", "preview", "pre", "rc", "c"]);
        // A number behind a hyphen alone is a post release, too.
        let is_bare = rest.0.starts_with('-') && rest.0[1..].starts_with(|c: char| c.is_ascii_digit());
        let post = match is_bare {
            true => {
                rest.skip("-");
                Some(rest.number()?)
            }
            false => rest.stage(&["post", "rev", "r"]).map(|(_, number)| number),
        };
        let dev = rest.stage(&["dev"]);
        if !rest.0.is_empty() {
            return None;
        }
        let pre = match pre {
            Some(("alpha" | "a", number)) => PreStage::Alpha(number),
            Some(("beta" | "b", number)) => PreStage::Beta(number),
            Some((_, number)) => PreStage::Candidate(number),
            None if post.is_none() && dev.is_some() => PreStage::Undecided,
            None => PreStage::Final,
        };
        let dev = dev.map_or(DevStage::Done, |(_, number)| DevStage::Dev(number));
        Some(PythonVersion { epoch, release, pre, post, dev, local })
    }
}

fn parse_local(text: &str) -> Option<Vec<LocalPart>> {
    let parts = text.split(['.', '-', '_']).map(|part| {
        let is_plain = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
        is_plain.then(|| match part.bytes().all(|byte| byte.is_ascii_digit()) {
            true => part.parse().ok().map(LocalPart::Number),
            false => Some(LocalPart::Word(part.to_owned())),
        })?
    });
    parts.collect()
}

/// What is still to be read.
struct Rest<'a>(&'a str);

impl Rest<'_> {
    fn skip(&mut self, word: &str) -> bool {
        match self.0.strip_prefix(word) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn number(&mut self) -> Option<u128> {
        let end = self.0.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.0.len());
        let (digits, rest) = self.0.split_at(end);
        self.0 = rest;
        digits.parse().ok()
    }

    /// One of these words with its number, which may be missing; separators may stand before both.
    fn stage(&mut self, words: &[&'static str]) -> Option<(&'static str, u128)> {
        let behind = self.0.strip_prefix(['.', '-', '_']).unwrap_or(self.0);
        let (word, rest) = words.iter().find_map(|word| Some((*word, behind.strip_prefix(word)?)))?;
        self.0 = rest;
        let mut number = Rest(rest.strip_prefix(['.', '-', '_']).unwrap_or(rest));
        // A separator without a number behind it belongs to what comes next.
        match number.number() {
            Some(value) => {
                self.0 = number.0;
                Some((word, value))
            }
            None => Some((word, 0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> PythonVersion {
        PythonVersion::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    /// The order that PEP 440 gives as an example, with local versions and epochs.
    #[test]
    fn they_are_in_the_order_of_the_standard() {
        let order = [
            "1.dev0",
            "1.0.dev456",
            "1.0a1",
            "1.0a2.dev456",
            "1.0a12.dev456",
            "1.0a12",
            "1.0b1.dev456",
            "1.0b2",
            "1.0b2.post345.dev456",
            "1.0b2.post345",
            "1.0rc1.dev456",
            "1.0rc1",
            "1.0",
            "1.0+abc.5",
            "1.0+abc.7",
            "1.0+5",
            "1.0+5.1",
            "1.0.post456.dev34",
            "1.0.post456",
            "1.0.15",
            "1.1.dev1",
            "1.1",
            "20260107",
            "1!0.5",
            "1!1.0.post2",
        ];
        for (at, one) in order.iter().enumerate() {
            for (other_at, other) in order.iter().enumerate() {
                assert_eq!(version(one).cmp(&version(other)), at.cmp(&other_at), "{one} {other}");
            }
        }
    }

    #[test]
    fn the_same_is_written_in_many_ways() {
        for (one, other) in [
            ("1.0", "1.0.0"),
            ("v1.0", "1"),
            ("1.0alpha1", "1.0a1"),
            ("1.0-Beta.2", "1.0b2"),
            ("1.0C1", "1.0rc1"),
            ("1.0pre", "1.0rc0"),
            ("1.0preview3", "1.0rc3"),
            ("1.0-1", "1.0.post1"),
            ("1.0-r4", "1.0.post4"),
            ("1.0_rev", "1.0.post0"),
            ("1.0-dev", "1.0.dev0"),
            ("1.0rc.dev1", "1.0rc0.dev1"),
            ("1.0+Ubuntu-1", "1.0+ubuntu.1"),
            ("0!1.2.3", "1.2.3"),
            ("01.002", "1.2"),
            ("2026.10.19.post1", "2026.10.19-1"),
        ] {
            assert_eq!(version(one), version(other), "{one} {other}");
        }
    }

    #[test]
    fn what_is_no_version_is_none() {
        for text in
            ["", "v", "x", "1.", "1..2", "1.0x", "1.0+", "1.0+a..b", "1.0+a+b", "1.0 beta", "-1", "1!", "1.0a1b2", "é"]
        {
            assert_eq!(PythonVersion::parse(text), None, "{text}");
        }
    }
}
