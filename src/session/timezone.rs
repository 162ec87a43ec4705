//! The time zone of the settings against the machine's own list of them.

use crate::host::{Host, PathKind};
use crate::layout::APPLICATION;
use crate::settings::{Origin, Problem, Problems, Resolved, Settings, Sources};
use anyhow::Result;

const ZONES: &str = "/usr/share/zoneinfo";
/// Every zone and every other name of one, also those whose files are in a package of their own.
const LIST: &str = "/usr/share/zoneinfo/tzdata.zi";
const KEY: &str = "site.timezone";

/// The settings, with what only this machine can tell of them.
pub(crate) fn resolve_settings(host: &Host, sources: &Sources) -> Result<Result<Resolved, Problems>> {
    let resolved = match Settings::resolve(sources) {
        Ok(resolved) => resolved,
        wrong => return Ok(wrong),
    };
    Ok(match find_problem(host, &resolved)? {
        Some(problem) => Err(Problems(vec![problem])),
        None => Ok(resolved),
    })
}

/// What is wrong with the time zone; nothing where the machine has no list to look it up in.
fn find_problem(host: &Host, resolved: &Resolved) -> Result<Option<Problem>> {
    let Some(zone) = resolved.settings.site.timezone.as_ref().map(|zone| zone.as_str()) else {
        return Ok(None);
    };
    let entry = host.stat(&format!("{ZONES}/{zone}"))?;
    if entry.is_some_and(|entry| entry.kind != PathKind::Directory) {
        return Ok(None);
    }
    let Some((path, names)) = known_zones(host)? else {
        return Ok(None);
    };
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    if names.is_empty() || names.contains(&zone) {
        return Ok(None);
    }
    let place = resolved.origins.get(KEY).cloned().unwrap_or(Origin::Default);
    Ok(Some(Problem {
        place: Some(place),
        key: KEY.into(),
        what: format!("there is no time zone {zone:?} in {path}"),
        allowed: None,
        nearest: nearest_zone(zone, &names),
        example: Some("\"Europe/London\"".into()),
    }))
}

/// Every time zone of this machine, or of the installed release where the package tzdata is not there; with where that is.
fn known_zones(host: &Host) -> Result<Option<(String, Vec<String>)>> {
    if let Some(list) = host.read_text(LIST)? {
        return Ok(Some((LIST.into(), list.lines().filter_map(name_of_zone).map(str::to_owned).collect())));
    }
    let libraries = host.followed(&format!("{APPLICATION}/venv"))? + "/lib";
    for python in host.list(&libraries)?.unwrap_or_default() {
        let path = format!("{libraries}/{python}/site-packages/tzdata/zones");
        if let Some(list) = host.read_text(&path)? {
            return Ok(Some((path, list.lines().map(str::to_owned).collect())));
        }
    }
    Ok(None)
}

/// `Z NAME ...` is a zone, `L ZONE NAME` another name of one.
fn name_of_zone(line: &str) -> Option<&str> {
    let mut words = line.split_ascii_whitespace();
    match words.next()? {
        "Z" => words.next(),
        "L" => words.nth(1),
        _ => None,
    }
}

/// A mistyped name, or the city alone.
fn nearest_zone(given: &str, names: &[&str]) -> Option<String> {
    let given = given.to_ascii_lowercase();
    let likeness = |name: &&&str| {
        let name = name.to_ascii_lowercase();
        let city = name.rsplit('/').next().unwrap_or_default();
        strsim::jaro_winkler(&given, &name).max(strsim::jaro_winkler(&given, city) - 0.01)
    };
    let nearest = names.iter().max_by(|one, other| likeness(one).total_cmp(&likeness(other)))?;
    (likeness(&nearest) > 0.85).then(|| (*nearest).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZI: &str = "# version 2025b\nR d 1916 o - Jun 14 23s 1 S\nZ Africa/Abidjan -0:16:8 - LMT 1912\n0 - GMT\n\
        Z Europe/London -0:1:15 - LMT 1847 D\nL Europe/London GB\nL Etc/UTC UTC\nZ Etc/UTC 0 - UTC\n";

    #[test]
    fn zones_and_their_other_names_are_known() {
        let names: Vec<&str> = ZI.lines().filter_map(name_of_zone).collect();
        assert_eq!(names, ["Africa/Abidjan", "Europe/London", "GB", "UTC", "Etc/UTC"]);
        let nearest = |given| nearest_zone(given, &names);
        assert_eq!(nearest("Europe/Lodnon").as_deref(), Some("Europe/London"));
        assert_eq!(nearest("London").as_deref(), Some("Europe/London"));
        assert_eq!(nearest("utc").as_deref(), Some("UTC"));
        assert_eq!(nearest("Mars/Base_One"), None);
    }
}
