//! Which versions an advisory is about: OSV's own rule, by ranges and by lists.

use super::parts::PartKind;
use super::record::{AffectedPackage, OsvEvent, OsvRange};
use super::version::PartVersion;
use anyhow::{Context, Result};

/// Commits of a repository are no versions.
pub(crate) fn is_of_versions(range: &OsvRange) -> bool {
    range.form != "GIT"
}

/// Whether a version is one of those that an advisory is about.
pub(crate) fn is_affected(kind: PartKind, version: &str, affected: &AffectedPackage) -> Result<bool> {
    let parsed = PartVersion::parse(kind, version);
    let is_listed = |listed: &String| {
        let is_same = || parsed.is_some() && PartVersion::parse(kind, listed) == parsed;
        listed == version || is_same()
    };
    if affected.versions.iter().any(is_listed) {
        return Ok(true);
    }
    for range in affected.ranges.iter().filter(|range| is_of_versions(range)) {
        let parsed = parsed.as_ref().with_context(|| format!("the installed version {version:?} can't be compared"))?;
        if is_in_range(kind, parsed, range)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The versions of an advisory that are not affected any more, and newer than this one.
pub(crate) fn fixed_versions(kind: PartKind, version: &str, affected: &AffectedPackage) -> Vec<String> {
    let parsed = PartVersion::parse(kind, version);
    let events = affected.ranges.iter().filter(|range| is_of_versions(range)).flat_map(|range| &range.events);
    let fixed = events.filter_map(|event| event.fixed.as_ref());
    let newer = fixed.filter(|fixed| PartVersion::parse(kind, fixed) > parsed);
    newer.cloned().collect()
}

/// An event, with the version at which it happens.
enum Turn {
    Introduced,
    Fixed,
    LastAffected,
}

fn is_in_range(kind: PartKind, version: &PartVersion, range: &OsvRange) -> Result<bool> {
    let mut turns = Vec::new();
    let (mut limits, mut is_before_limit) = (0, false);
    for event in &range.events {
        let OsvEvent { introduced, fixed, last_affected, limit } = event;
        for (turn, text) in [(Turn::Introduced, introduced), (Turn::Fixed, fixed), (Turn::LastAffected, last_affected)]
        {
            let Some(text) = text else { continue };
            // Before every version.
            let at = match text.as_str() {
                "0" => None,
                text => Some(parse_event(kind, text)?),
            };
            turns.push((at, turn));
        }
        if let Some(limit) = limit {
            limits += 1;
            is_before_limit |= limit == "*" || *version < parse_event(kind, limit)?;
        }
    }
    if limits > 0 && !is_before_limit {
        return Ok(false);
    }
    turns.sort_by(|one, other| one.0.cmp(&other.0));
    let mut affected = false;
    for (at, turn) in &turns {
        let order = at.as_ref().map_or(std::cmp::Ordering::Greater, |at| version.cmp(at));
        match turn {
            Turn::Introduced if order.is_ge() => affected = true,
            Turn::Fixed if order.is_ge() => affected = false,
            Turn::LastAffected if order.is_gt() => affected = false,
            _ => {}
        }
    }
    Ok(affected)
}

fn parse_event(kind: PartKind, text: &str) -> Result<PartVersion> {
    PartVersion::parse(kind, text).with_context(|| format!("{text:?} is not a version of {}", kind.plural()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn affected(ranges: serde_json::Value) -> AffectedPackage {
        serde_json::from_value(ranges).unwrap()
    }

    #[track_caller]
    fn check(kind: PartKind, events: serde_json::Value, inside: &[&str], outside: &[&str]) {
        let one = affected(json!({ "ranges": [{ "type": "ECOSYSTEM", "events": events }] }));
        for version in inside {
            assert!(is_affected(kind, version, &one).unwrap(), "{version}");
        }
        for version in outside {
            assert!(!is_affected(kind, version, &one).unwrap(), "{version}");
        }
    }

    #[test]
    fn a_range_begins_and_ends_with_its_events() {
        use PartKind::{Program, Python, System};
        check(
            Python,
            json!([{"introduced": "0"}, {"fixed": "6.6.2"}]),
            &["0.dev1", "6.6.0", "6.6.2rc1"],
            &["6.6.2", "7", "6.6.2+local"],
        );
        check(
            Python,
            json!([{"introduced": "1.0"}, {"last_affected": "1.5"}]),
            &["1.0", "1.5", "1.5.0"],
            &["1.0rc1", "1.5.post1", "2"],
        );
        // Two spans in one range, in any order.
        check(
            Python,
            json!([{"fixed": "2.5"}, {"introduced": "2.0"}, {"fixed": "1.5"}, {"introduced": "1.0"}]),
            &["1.0", "1.4", "2.0", "2.4"],
            &["0.9", "1.5", "1.9", "2.5"],
        );
        check(Python, json!([{"introduced": "0"}]), &["1", "1!1"], &[]);
        check(Python, json!([{"introduced": "0"}, {"limit": "2.0"}]), &["1"], &["2.0", "3"]);
        check(Python, json!([{"introduced": "0"}, {"limit": "2.0"}, {"limit": "*"}]), &["1", "3"], &[]);
        check(
            Program,
            json!([{"introduced": "0.0.0-0"}, {"fixed": "0.23.5"}]),
            &["0.1.0-alpha", "0.23.4"],
            &["0.23.5", "1.0.0"],
        );
        check(
            System,
            json!([{"introduced": "0"}, {"fixed": "3.0.17-1~deb12u2"}]),
            &["3.0.17-1~deb12u1"],
            &["3.0.17-1~deb12u2", "1:1"],
        );
        check(System, json!([{"introduced": "0"}, {"fixed": "0"}]), &[], &["1"]);
        check(Python, json!([]), &[], &["1"]);
    }

    #[test]
    fn a_list_names_versions_however_they_are_written() {
        let one = affected(
            json!({ "versions": ["1.0", "strange_one"], "ranges": [{ "type": "GIT", "events": [{ "introduced": "0" }] }] }),
        );
        let is = |version| is_affected(PartKind::Python, version, &one).unwrap();
        assert!(is("1.0") && is("1") && is("1.0.0") && is("strange_one"));
        assert!(!is("1.0.1") && !is("1.0.post1") && !is("other_one"));
    }

    #[test]
    fn what_can_t_be_compared_is_an_error() {
        let one = affected(
            json!({ "ranges": [{ "type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "next week"}] }] }),
        );
        let why = is_affected(PartKind::Python, "1.0", &one).unwrap_err();
        assert_eq!(why.to_string(), "\"next week\" is not a version of Python packages");
        assert!(is_affected(PartKind::Python, "a b", &one).is_err());
    }

    #[test]
    fn what_ends_it_is_newer() {
        let one = affected(
            json!({ "ranges": [{ "type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.5"}, {"introduced": "2.0"}, {"fixed": "2.5"}] }] }),
        );
        assert_eq!(fixed_versions(PartKind::Python, "1.0", &one), ["1.5", "2.5"]);
        assert_eq!(fixed_versions(PartKind::Python, "2.1", &one), ["2.5"]);
    }
}
