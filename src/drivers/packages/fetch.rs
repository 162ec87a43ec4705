//! Fetching packages with everything that they rely on, for another machine. This machine's own packages, lists and cache
//! are neither counted on nor changed.

use super::apt::{apt_child, apt_option, choose_candidates, explain_failure, fetching_child, state_in, update_lists};
use super::{PackageSource, found_nowhere};
use crate::base::error::Exit;
use crate::host::Host;
use crate::layout::PackageManager;
use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// The index of packages, as apt reads it.
pub(crate) const INDEX: &str = "Packages";

#[derive(Debug)]
pub(crate) struct FetchedPackages {
    pub(crate) names: BTreeSet<String>,
    /// Their files, and the index of them.
    pub(crate) files: Vec<String>,
}

/// Refuses where there is no apt.
pub(crate) fn check_possible(known: &PackageSource) -> Result<()> {
    match known.names.manager {
        PackageManager::Apt => Ok(()),
        PackageManager::Dnf => Err(Exit::Unreachable.because(
            "bundles have the packages of Debian and its like only; on this machine, give the files of CamCOPS with --wheelhouse, and mirror the packages",
        )),
    }
}

/// Fetches packages into a directory, and writes their index there; `state` is a directory of its own for apt.
pub(crate) fn fetch_packages(
    known: &PackageSource,
    host: &Host,
    names: &[&str],
    directory: &str,
    state: &str,
) -> Result<FetchedPackages> {
    let mut options = state_in(host, state)?;
    let status = format!("{state}/status");
    // As on a machine that has nothing at all: then nothing is left out that another one lacks.
    host.put_file(&status, b"", None, 0o600)?;
    options.extend(apt_option("Dir::State::status", &status));
    options.extend(apt_option("Dir::State::extended_states", &format!("{state}/extended")));
    // Nothing of this machine is changed, so nobody has to wait.
    options.extend(apt_option("Debug::NoLocking", "true"));
    known.aside.replace(options);
    let fetched = fetch_aside(host, known, names, directory);
    known.aside.take();
    fetched
}

fn fetch_aside(host: &Host, known: &PackageSource, names: &[&str], directory: &str) -> Result<FetchedPackages> {
    update_lists(host, known)?;
    let chosen = match choose_candidates(host, known, names)? {
        Ok(chosen) => chosen,
        Err(unknown) => return Err(found_nowhere(known, &unknown)),
    };
    let ended = apt_child(host, known, "apt-get")?
        .args(["install", "--simulate", "--no-install-recommends"])
        .args(&chosen)
        .end()?;
    if !ended.status.success() {
        return Err(explain_failure(&ended));
    }
    let all = parse_versions(&ended.output);
    known.tell.line(&format!("fetching {} packages", all.len()));
    let pins: Vec<String> = all.iter().map(|(name, version)| format!("{name}={version}")).collect();
    let ended = fetching_child(host, known)?.args(["download", "--quiet"]).args(&pins).directory(directory).end()?;
    if !ended.status.success() {
        return Err(explain_failure(&ended));
    }
    let shown = apt_child(host, known, "apt-cache")?.args(["show"]).args(&pins).run()?;
    let mut by_sum = BTreeMap::new();
    for name in host.list(directory)?.unwrap_or_default() {
        let fetched = format!("{directory}/{name}");
        // An escape in a name is read in one way here and in another one there.
        let name = name.replace('%', "+");
        let path = format!("{directory}/{name}");
        if path != fetched {
            host.rename(&fetched, &path)?;
        }
        let (_, file) = host.open_file(&path)?.with_context(|| format!("{path} is gone"))?;
        by_sum.insert(crate::archive::pack::sum_of(file)?.sha256, name);
    }
    let index = select_records(&shown, &by_sum);
    let indexed = index.matches("\nFilename: ").count();
    if indexed != all.len() || by_sum.len() != all.len() {
        return Err(Exit::Failed.because(format!(
            "of {} packages, {} came and {indexed} are what the archive says that they are; run again",
            all.len(),
            by_sum.len()
        )));
    }
    host.put_file(&format!("{directory}/{INDEX}"), index.as_bytes(), None, 0o644)?;
    let mut files: Vec<String> = by_sum.into_values().collect();
    files.sort();
    files.push(INDEX.into());
    let plain = |name: &str| name.split(':').next().unwrap_or_default().to_owned();
    Ok(FetchedPackages { names: all.keys().map(|name| plain(name)).collect(), files })
}

/// What would be installed: names and versions.
fn parse_versions(simulated: &str) -> BTreeMap<&str, &str> {
    simulated
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.strip_prefix("Inst ")?.split_once(" (")?;
            Some((name, rest.split([' ', ')']).next()?))
        })
        .collect()
}

/// The records of the archive for these files, by their sums, with the files beside them.
fn select_records(shown: &str, by_sum: &BTreeMap<String, String>) -> String {
    let mut index = String::new();
    let mut left = by_sum.clone();
    for record in shown.split("\n\n") {
        let sum = record.lines().find_map(|line| line.strip_prefix("SHA256: ")).unwrap_or_default();
        // The same one may be in several sources.
        let Some(name) = left.remove(sum) else {
            continue;
        };
        for line in record.lines() {
            let _ = match line.starts_with("Filename: ") {
                true => writeln!(index, "Filename: ./{name}"),
                false => writeln!(index, "{line}"),
            };
        }
        index.push('\n');
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_installed_is_read() {
        let said = "NOTE: This is only a simulation!\nInst libc6 (2.36-9 Debian:12.15/oldstable [amd64]) []\n\
            Inst x:i386 (1:2~b1 A:1/s [i386])\nConf libc6 (2.36-9 Debian:12.15/oldstable [amd64])\n";
        let versions = parse_versions(said);
        assert_eq!(versions.into_iter().collect::<Vec<_>>(), [("libc6", "2.36-9"), ("x:i386", "1:2~b1")]);
    }

    #[test]
    fn an_index_has_each_file_once_and_beside_it() {
        let shown = "Package: a\nFilename: pool/a_1.deb\nSHA256: 11\nDescription: x\n y\n\nPackage: a\n\
            Filename: other/a_1.deb\nSHA256: 11\n\nPackage: b\nFilename: pool/b.deb\nSHA256: 22\n\n";
        let files = BTreeMap::from([("11".to_owned(), "a_1+3a2.deb".to_owned())]);
        assert_eq!(
            select_records(shown, &files),
            "Package: a\nFilename: ./a_1+3a2.deb\nSHA256: 11\nDescription: x\n y\n\n"
        );
    }
}
