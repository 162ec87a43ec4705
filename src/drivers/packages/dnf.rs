//! rpm and dnf.

use super::{PackageSource, found_nowhere};
use crate::base::error::Exit;
use crate::drivers::release::index::proxy_variables;
use crate::host::Host;
use crate::layout::{Packages, alternative_names};
use anyhow::Result;
use std::collections::BTreeSet;

/// Those of all the names that are installed.
pub(crate) fn list_installed(host: &Host, names: &Packages) -> Result<BTreeSet<String>> {
    let asked: BTreeSet<&str> = names.all().collect();
    // Its status only counts the missing ones.
    let answer = host
        .child("rpm")
        .args(["--query", "--queryformat", "%{NAME}\\n"])
        .args(&asked)
        .env("LC_ALL", "C.UTF-8")
        .end()?;
    Ok(answer.output.lines().filter(|line| asked.contains(line)).map(str::to_owned).collect())
}

/// Installs packages that are missing. dnf itself waits for another one at work.
pub(crate) fn install_packages(host: &Host, known: &PackageSource, missing: &[&str]) -> Result<()> {
    let chosen = missing.iter().filter_map(|name| alternative_names(name).next());
    let mut child = host
        .child("dnf")
        .args(["install", "--assumeyes", "--setopt=install_weak_deps=False"])
        .args(chosen)
        .env("LC_ALL", "C.UTF-8");
    for (name, value) in proxy_variables(host, &known.network)? {
        child = child.env(&name, &value);
    }
    let ended = child.end_telling(|line| {
        if line.starts_with("  Installing") || line.starts_with("Error") {
            (known.tell)(line.trim());
        }
    })?;
    if ended.status.success() {
        return Ok(());
    }
    let unknown = find_unknown(&ended.output);
    if !unknown.is_empty() {
        return Err(found_nowhere(known, &unknown));
    }
    let words = ended.output.lines().rev().find(|line| line.contains("rror: "));
    let words = words.map_or_else(|| ended.last_words(), |line| line.trim().to_owned());
    let unreachable = ["Curl error", "Cannot download", "Failed to download", "All mirrors"]
        .iter()
        .any(|sign| ended.output.contains(sign));
    Err(match unreachable {
        true => Exit::Unreachable.because(format!(
            "the source of packages can't be reached: {words}; check the network, the proxy and /etc/yum.repos.d, and run again"
        )),
        false => Exit::Failed.because(format!("dnf failed ({}): {words}", ended.status)),
    })
}

fn find_unknown(output: &str) -> Vec<&str> {
    output.lines().filter_map(|line| line.strip_prefix("No match for argument: ")).map(str::trim).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_that_no_source_has_are_found_in_its_words() {
        let output = "Last metadata expiration check: 0:01:02 ago.\nNo match for argument: rabbitmq-server\nNo match for argument: supervisor\nError: Unable to find a match: rabbitmq-server supervisor\n";
        assert_eq!(find_unknown(output), ["rabbitmq-server", "supervisor"]);
        assert!(find_unknown("Error: Curl error (6)").is_empty());
    }
}
