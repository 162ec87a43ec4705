//! What debsecan knows and says: the data that it fetches for a release of Debian (compressed by zlib, `VERSION 1`), and
//! its list of one machine, in its formats `summary`, `simple` and `detail`.

use super::parts::{PartKind, SitePart, SiteParts};
use super::record::FileFault;
use super::version::PartVersion;
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// How the data begin.
pub(crate) const MAGIC: &[u8] = b"VERSION 1\n";

/// One flaw in one package, as the data have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TrackedFlaw {
    pub(crate) id: String,
    pub(crate) summary: String,
    /// The package that it is in: a source, as a rule.
    package: String,
    is_binary: bool,
    unstable: Option<String>,
    /// Versions of other releases that do not have it.
    others: Vec<String>,
    pub(crate) has_fix: bool,
}

/// One flaw of one installed package, as a list has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ListedFlaw {
    pub(crate) id: String,
    pub(crate) summary: String,
    /// The installed package.
    pub(crate) package: String,
    /// Its version, where the format has it.
    pub(crate) version: Option<String>,
    pub(crate) has_fix: bool,
}

impl TrackedFlaw {
    /// What of the site has it, by debsecan's own rule.
    pub(crate) fn find_in<'a>(&self, parts: &'a SiteParts) -> Vec<(&'a str, &'a SitePart)> {
        let is_older = |version: &str| match &self.unstable {
            Some(unstable) => {
                PartVersion::parse(PartKind::System, version) < PartVersion::parse(PartKind::System, unstable)
            }
            None => true,
        };
        let is_other = |version: &str| {
            let parsed = PartVersion::parse(PartKind::System, version);
            self.others.iter().any(|other| PartVersion::parse(PartKind::System, other) == parsed)
        };
        if self.is_binary {
            let found = parts.find_binary(&self.package);
            return found.into_iter().filter(|(_, part)| is_older(&part.binaries[&self.package])).collect();
        }
        let (name, versions) = parts.find(PartKind::System, &self.package);
        let affected = versions.iter().filter(|part| is_older(&part.version) && !is_other(&part.version));
        affected.map(|part| (name, part)).collect()
    }
}

impl ListedFlaw {
    /// What of the site has it: what was installed when the list was made, and still is.
    pub(crate) fn find_in<'a>(&self, parts: &'a SiteParts) -> Option<(&'a str, &'a SitePart)> {
        let is_same = |part: &SitePart| {
            let version = self.version.as_ref();
            version.is_none_or(|version| part.binaries.get(&self.package) == Some(version))
        };
        parts.find_binary(&self.package).filter(|(_, part)| is_same(part))
    }
}

/// Reads the data.
pub(crate) fn parse_data(text: &str) -> Result<Vec<TrackedFlaw>, FileFault> {
    let mut lines = text.lines().enumerate().skip(1);
    let mut names = Vec::new();
    for (at, line) in lines.by_ref().take_while(|(_, line)| !line.is_empty()) {
        let mut words = line.splitn(3, ',');
        match (words.next(), words.next(), words.next()) {
            (Some(name), Some(_), Some(summary)) => names.push((name, summary)),
            _ => return Err(broken_line(at, "not NAME,FLAGS,SUMMARY as debsecan's data have it")),
        }
    }
    let mut flaws = Vec::new();
    for (at, line) in lines {
        if line.is_empty() {
            return Ok(flaws);
        }
        let flaw = parse_flaw(line, &names);
        flaws.push(
            flaw.ok_or_else(|| {
                broken_line(at, "not PACKAGE,NUMBER,FLAGS,VERSION,VERSIONS as debsecan's data have it")
            })?,
        );
    }
    // zlib does not say that its end is missing.
    Err(broken_line(text.lines().count(), "debsecan's data are cut short: fetch them again"))
}

fn parse_flaw(line: &str, names: &[(&str, &str)]) -> Option<TrackedFlaw> {
    let words: [&str; 5] = line.splitn(5, ',').collect::<Vec<_>>().try_into().ok()?;
    let [package, number, flags, unstable, others] = words;
    let (id, summary) = names.get(usize::from_str(number).ok()?)?;
    let flags: [u8; 4] = flags.as_bytes().get(..4)?.try_into().ok()?;
    let is_version = |text: &&str| PartVersion::parse(PartKind::System, text).is_some();
    let others: Vec<&str> = others.split_whitespace().collect();
    if package.is_empty() || !(unstable.is_empty() || is_version(&unstable)) || !others.iter().all(is_version) {
        return None;
    }
    Some(TrackedFlaw {
        id: (*id).to_owned(),
        summary: (*summary).to_owned(),
        package: package.to_owned(),
        is_binary: flags[0] == b'B',
        unstable: (!unstable.is_empty()).then(|| unstable.to_owned()),
        others: others.into_iter().map(str::to_owned).collect(),
        has_fix: flags[3] == b'F',
    })
}

/// Whether a line may be the first of a list.
pub(crate) fn is_list_line(line: &str) -> bool {
    parse_head(line).is_some()
}

/// Reads a list.
pub(crate) fn parse_list(text: &str) -> Result<Vec<ListedFlaw>, FileFault> {
    let mut flaws: Vec<ListedFlaw> = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        if !line.starts_with(' ') {
            let head = parse_head(line);
            flaws
                .push(head.ok_or_else(|| broken_line(at, "not a line of debsecan's, CVE-2026-12345 PACKAGE (notes)"))?);
            continue;
        }
        // What is indented belongs to the flaw above it, in the format `detail`.
        let Some(flaw) = flaws.last_mut() else {
            return Err(broken_line(at, "it belongs to no advisory: the start of debsecan's list is missing"));
        };
        let line = line.trim();
        if let Some(installed) = line.strip_prefix("installed: ") {
            let (name, version) = installed.trim().split_once(' ').unwrap_or((installed, ""));
            flaw.package = name.to_owned();
            flaw.version = (!version.is_empty()).then(|| version.to_owned());
        } else if flaw.summary.is_empty() && flaw.package.is_empty() {
            flaw.summary = line.to_owned();
        }
    }
    if let Some(flaw) = flaws.iter().find(|flaw| flaw.package.is_empty()) {
        let what = format!("it names no package for {}: use debsecan's format summary, simple or detail", flaw.id);
        return Err(FileFault { line: text.lines().count(), column: 1, what });
    }
    Ok(flaws)
}

/// `CVE-2026-12345 PACKAGE (fixed, high urgency)`, or without the package.
fn parse_head(line: &str) -> Option<ListedFlaw> {
    let (words, notes) = match line.split_once(" (") {
        Some((words, notes)) => (words, notes.strip_suffix(')')?),
        None => (line, ""),
    };
    let mut words = words.split(' ');
    let id = words.next().filter(|id| is_flaw_name(id))?;
    let package = words.next().unwrap_or_default();
    let is_package = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.:".contains(&byte);
    (words.next().is_none() && package.bytes().all(is_package)).then(|| ListedFlaw {
        id: id.to_owned(),
        package: package.to_owned(),
        has_fix: notes.split(", ").any(|note| note == "fixed"),
        ..ListedFlaw::default()
    })
}

fn is_flaw_name(word: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'-';
    word.starts_with(|c: char| c.is_ascii_uppercase()) && word.contains('-') && word.bytes().all(is_plain)
}

fn broken_line(at: usize, what: &str) -> FileFault {
    FileFault { line: at + 1, column: 1, what: what.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::super::parts::tests::staged_machine;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nothing_that_is_read_stops_the_program(text in "(VERSION 1\n)?([A-Z]{3}-[0-9],|[a-z ]{0,4}|,|\n|\\(|\\)|[0-9.:~+-]{1,4}|\\PC){0,40}") {
            let _ = (parse_data(&text), parse_list(&text));
            for kind in PartKind::ALL {
                let other = text.chars().rev().collect::<String>();
                let (one, other) = (PartVersion::parse(kind, &text), PartVersion::parse(kind, &other));
                prop_assert_eq!(one.cmp(&other), other.cmp(&one).reverse());
            }
        }
    }

    const DATA: &str = "VERSION 1\n\
        CVE-2026-1,,a flaw, with a comma\nCVE-2026-2,,another\nCVE-2026-3,,of one package\n\n\
        openssl,0,S FF,3.2.0-1,3.0.15-1~deb12u1 1.1.1w-0\n\
        openssl,1,SHR ,,3.0.15-1\n\
        libssl3,2,BL? ,3.0.16-1,\n\
        absent,2,S  F,1,\n\n\
        openssl,libssl3 openssl\n";

    #[test]
    fn data_are_judged_as_debsecan_does() {
        let flaws = parse_data(DATA).unwrap();
        assert_eq!(flaws.len(), 4);
        assert_eq!(
            (flaws[0].summary.as_str(), flaws[0].has_fix, flaws[1].has_fix),
            ("a flaw, with a comma", true, false)
        );
        let found = |version: &str| -> Vec<String> {
            let home = tempfile::tempdir().unwrap();
            let records =
                format!("Package: libssl3\nStatus: install ok installed\nSource: openssl\nVersion: {version}\n");
            let parts = SiteParts::of(&staged_machine(home.path(), &[], &records)).unwrap();
            let all = flaws.iter().filter(|flaw| !flaw.find_in(&parts).is_empty());
            all.map(|flaw| flaw.id.clone()).collect()
        };
        assert_eq!(found("3.0.14-1"), ["CVE-2026-1", "CVE-2026-2", "CVE-2026-3"]);
        // Fixed on a branch means this very version, and no other.
        assert_eq!(found("3.0.15-1~deb12u1"), ["CVE-2026-2", "CVE-2026-3"]);
        assert_eq!(found("3.0.15-1"), ["CVE-2026-1", "CVE-2026-3"]);
        assert_eq!(found("3.2.0-1"), ["CVE-2026-2"]);
    }

    #[test]
    fn a_list_comes_in_three_formats() {
        let summary =
            parse_list("CVE-2026-1 libssl3 (fixed, remotely exploitable, high urgency)\nTEMP-0123456-ABCDEF bash\n")
                .unwrap();
        assert_eq!((summary[0].package.as_str(), summary[0].has_fix), ("libssl3", true));
        assert_eq!((summary[1].package.as_str(), summary[1].has_fix), ("bash", false));
        let detail = parse_list(
            "CVE-2026-1 (fixed)\n  a flaw in the thing\n  installed: libssl3 3.0.14-1\n             (built from openssl 3.0.14-1)\n  fixed in unstable: openssl 3.2.0-1 (source package)\n\nCVE-2026-2\n  another\n  installed: bash 5\n",
        )
        .unwrap();
        assert_eq!(detail.len(), 2);
        assert_eq!(detail[0].summary, "a flaw in the thing");
        assert_eq!(
            (detail[0].package.as_str(), detail[0].version.as_deref(), detail[0].has_fix),
            ("libssl3", Some("3.0.14-1"), true)
        );
        assert!(!detail[1].has_fix);
    }

    #[test]
    fn what_is_broken_is_told_with_its_line() {
        for (text, line) in [
            ("VERSION 1\nCVE-1,no summary\n", 2),
            ("VERSION 1\nCVE-1,,x\n\nopenssl,1,S   ,1,\n", 4),
            ("VERSION 1\nCVE-1,,x\n\nopenssl,0,S   ,1,\nopenssl,0,S,1,\n", 5),
            ("VERSION 1\nCVE-1,,x\n\nopenssl,0,S   ,a_b,\n", 4),
            ("VERSION 1\nCVE-1,,x\n\nopenssl,0,S   \n", 4),
            ("VERSION 1\nCVE-1,,x\n\nopenssl,0,S   ,1,\n", 5),
            ("VERSION 1\nCVE-1,,x\n", 3),
        ] {
            assert_eq!(parse_data(text).unwrap_err().line, line, "{text}");
        }
        for (text, line) in [
            ("CVE-2026-1 bash\nsomething else\n", 2),
            ("  a flaw\nCVE-2026-1 bash\n", 1),
            ("CVE-2026-1 bash\nCVE-2026-1 bash (fixed\n", 2),
            ("CVE-2026-1\nCVE-2026-2\n", 2),
            ("CVE-2026-1 Bash\n", 1),
        ] {
            assert_eq!(parse_list(text).unwrap_err().line, line, "{text}");
        }
    }
}
