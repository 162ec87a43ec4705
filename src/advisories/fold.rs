//! One flaw, one finding: what several advisories say of the same flaw in the same package is told once.

use super::parts::PartKind;
use std::collections::{BTreeMap, BTreeSet};

/// What one advisory says of one part of the site.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FlawReport {
    pub(crate) id: String,
    /// Other names of the same flaw.
    pub(crate) aliases: Vec<String>,
    /// The flaws that it is about, where it is a distribution's advisory.
    pub(crate) upstream: Vec<String>,
    pub(crate) summary: String,
    /// Versions that do not have it any more.
    pub(crate) fixed: Vec<String>,
    /// Whether the distribution has a package without it.
    pub(crate) has_fix: bool,
    /// Whether what the newest level has in its place does not have it.
    pub(crate) is_ended: bool,
}

/// What all of them say of one flaw.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FoldedFlaw {
    pub(crate) id: String,
    pub(crate) aliases: Vec<String>,
    pub(crate) summary: String,
    pub(crate) fixed: Vec<String>,
    pub(crate) has_fix: bool,
    pub(crate) is_ended: bool,
}

/// Puts together what is about the same flaw of one package.
pub(crate) fn fold_reports(kind: PartKind, reports: Vec<FlawReport>) -> Vec<FoldedFlaw> {
    let mut groups: Vec<Vec<FlawReport>> = Vec::new();
    let mut group_of: BTreeMap<String, usize> = BTreeMap::new();
    for report in reports {
        let names = names_of(&report);
        let mut known: BTreeSet<usize> = names.iter().filter_map(|name| group_of.get(name).copied()).collect();
        let home = known.pop_first().unwrap_or_else(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        // What it says is the same was two until now.
        for other in known {
            let moved = std::mem::take(&mut groups[other]);
            for name in moved.iter().flat_map(names_of) {
                group_of.insert(name, home);
            }
            groups[home].extend(moved);
        }
        for name in names {
            group_of.insert(name, home);
        }
        groups[home].push(report);
    }
    let known: BTreeSet<String> = groups.iter().flatten().flat_map(names_of).collect();
    let is_told = |group: &Vec<FlawReport>| {
        // An advisory about several flaws that are all here by their own names.
        group.iter().all(|one| one.upstream.len() > 1 && one.upstream.iter().all(|name| known.contains(name)))
    };
    let mut folded: Vec<FoldedFlaw> =
        groups.into_iter().filter(|group| !is_told(group)).map(|group| fold_group(kind, group)).collect();
    folded.sort_by(|one, other| one.id.cmp(&other.id));
    folded
}

/// The names that mean this one flaw.
fn names_of(report: &FlawReport) -> BTreeSet<String> {
    let only = report.upstream.iter().filter(|_| report.upstream.len() == 1);
    std::iter::once(&report.id).chain(&report.aliases).chain(only).map(|name| plain_name(name).to_owned()).collect()
}

/// Distributions put their own word before the name of a flaw.
fn plain_name(name: &str) -> &str {
    ["DEBIAN-", "UBUNTU-"].iter().find_map(|own| name.strip_prefix(own)).unwrap_or(name)
}

fn fold_group(kind: PartKind, group: Vec<FlawReport>) -> FoldedFlaw {
    let mut names: BTreeSet<String> = group.iter().flat_map(names_of).collect();
    names.extend(group.iter().flat_map(|one| one.upstream.iter().cloned()));
    // The name that its own advisory has comes first: who looks for it finds that.
    let rank = |name: &String| {
        let order: &[&str] = match kind {
            PartKind::System => &["CVE-"],
            _ => &["RUSTSEC-", "GHSA-", "CVE-", "PYSEC-"],
        };
        (order.iter().position(|start| name.starts_with(start)).unwrap_or(order.len()), name.clone())
    };
    let own: BTreeSet<String> = group.iter().map(|one| plain_name(&one.id).to_owned()).collect();
    let id = own.iter().min_by_key(|name| rank(name)).cloned().unwrap_or_default();
    names.remove(&id);
    let summary = group.iter().map(|one| one.summary.as_str()).find(|summary| !summary.is_empty());
    let fixed: BTreeSet<String> = group.iter().flat_map(|one| one.fixed.iter().cloned()).collect();
    FoldedFlaw {
        id,
        aliases: names.into_iter().collect(),
        summary: summary.unwrap_or_default().to_owned(),
        fixed: fixed.into_iter().collect(),
        has_fix: group.iter().any(|one| one.has_fix),
        is_ended: group.iter().all(|one| one.is_ended),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(id: &str, aliases: &[&str], upstream: &[&str]) -> FlawReport {
        let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        FlawReport { id: id.into(), aliases: all(aliases), upstream: all(upstream), ..FlawReport::default() }
    }

    fn ids(kind: PartKind, reports: &[FlawReport]) -> Vec<String> {
        // In whatever order they come.
        let mut backwards = reports.to_vec();
        backwards.reverse();
        let folded = fold_reports(kind, reports.to_vec());
        assert_eq!(folded, fold_reports(kind, backwards));
        folded.into_iter().map(|flaw| format!("{} {}", flaw.id, flaw.aliases.join(" ")).trim().to_owned()).collect()
    }

    #[test]
    fn a_flaw_of_many_names_stands_once() {
        let python = [
            report("PYSEC-2026-1", &["CVE-2026-1"], &[]),
            report("CVE-2026-1", &[], &[]),
            report("GHSA-aaaa", &["CVE-2026-1"], &[]),
            report("GHSA-bbbb", &["CVE-2026-2"], &[]),
            report("PYSEC-2026-3", &[], &[]),
        ];
        assert_eq!(
            ids(PartKind::Python, &python),
            ["GHSA-aaaa CVE-2026-1 PYSEC-2026-1", "GHSA-bbbb CVE-2026-2", "PYSEC-2026-3"]
        );
        // Two that seemed to be different, until a third says that they are not.
        let late =
            [report("GHSA-a", &[], &[]), report("GHSA-b", &[], &[]), report("GHSA-c", &["GHSA-a", "GHSA-b"], &[])];
        assert_eq!(ids(PartKind::Python, &late), ["GHSA-a GHSA-b GHSA-c"]);
        assert_eq!(
            ids(PartKind::Program, &[report("GHSA-x", &["RUSTSEC-2026-1"], &[]), report("RUSTSEC-2026-1", &[], &[])]),
            ["RUSTSEC-2026-1 GHSA-x"]
        );
    }

    #[test]
    fn an_advisory_of_a_distribution_is_told_by_its_flaws() {
        let flaws = [report("DEBIAN-CVE-2026-1", &[], &["CVE-2026-1"]), report("CVE-2026-2", &[], &[])];
        let both = report("DSA-1-1", &[], &["CVE-2026-1", "CVE-2026-2"]);
        assert_eq!(
            ids(PartKind::System, &[&flaws[..], std::slice::from_ref(&both)].concat()),
            ["CVE-2026-1", "CVE-2026-2"]
        );
        assert_eq!(ids(PartKind::System, &[flaws[0].clone(), both]), ["CVE-2026-1", "DSA-1-1 CVE-2026-1 CVE-2026-2"]);
    }
}
