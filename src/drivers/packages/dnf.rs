//! rpm and dnf.

use super::{PackageSource, found_nowhere};
use crate::base::error::Exit;
use crate::drivers::release::index::{combine_authorities, proxy_variables};
use crate::host::Host;
use crate::layout::{Packages, alternative_names};
use anyhow::Result;
use std::collections::BTreeSet;

/// An error repeats no more of what stands below dnf's own.
const CAUSE_LINES: usize = 4;

/// Those of all the names that are installed.
pub(crate) fn list_installed(host: &Host, names: &Packages) -> Result<BTreeSet<String>> {
    let asked: BTreeSet<&str> = names.all().collect();
    // Its status only counts the missing ones.
    let answer = host.child("rpm").args(["--query", "--queryformat", "%{NAME}\\n"]).args(&asked).end()?;
    Ok(answer.output.lines().filter(|line| asked.contains(line)).map(str::to_owned).collect())
}

/// Installs packages that are missing. dnf itself waits for another one at work.
pub(crate) fn install_packages(host: &Host, known: &PackageSource, missing: &[&str]) -> Result<()> {
    let chosen = missing.iter().filter_map(|name| alternative_names(name).next());
    let authorities = combine_authorities(host, &known.network)?.map(|path| format!("--setopt=sslcacert={path}"));
    let child = host
        .child("dnf")
        .args(["install", "--assumeyes", "--setopt=install_weak_deps=False"])
        .args(authorities)
        .args(chosen)
        .envs(proxy_variables(host, &known.network)?);
    let ended = child.end_telling(|line| {
        if line.starts_with("  Installing") || line.starts_with("Error") {
            known.tell.line(line.trim());
        }
    })?;
    if ended.status.success() {
        return Ok(());
    }
    let unknown = find_unknown(&ended.output);
    if !unknown.is_empty() {
        return Err(found_nowhere(known, &unknown));
    }
    let words = find_cause(&ended.output).unwrap_or_else(|| ended.last_words());
    let unreachable = ["Curl error", "Cannot download", "Failed to download", "All mirrors"]
        .iter()
        .any(|sign| ended.output.contains(sign));
    Err(match unreachable {
        true => Exit::Unreachable.because(format!(
            "the package repository can't be reached: {words}; check the network, the proxy and /etc/yum.repos.d, and run again"
        )),
        false => Exit::Failed.because(format!("dnf failed ({}): {words}", ended.status)),
    })
}

/// The last error that dnf tells of, with the first lines of what stands below it: the cause, where the line itself only
/// says what could not be done.
fn find_cause(output: &str) -> Option<String> {
    let lines: Vec<&str> = output.lines().collect();
    let at = lines.iter().rposition(|line| line.contains("rror:"))?;
    let below = lines[at + 1..].iter().take_while(|line| line.starts_with(' ')).take(CAUSE_LINES);
    let below: Vec<&str> = below.map(|line| line.trim()).collect();
    Some(format!("{} {}", lines[at].trim(), below.join(" / ")).trim_end().to_owned())
}

fn find_unknown(output: &str) -> Vec<&str> {
    output.lines().filter_map(|line| line.strip_prefix("No match for argument: ")).map(str::trim).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_stands_below_the_error() {
        let conflict = "Error: \n Problem: conflicting requests\n  - nothing provides erlang needed by rabbitmq-server\n(try to add '--skip-broken')\n";
        let cause = "Error: Problem: conflicting requests / - nothing provides erlang needed by rabbitmq-server";
        assert_eq!(find_cause(conflict).as_deref(), Some(cause));
        let source = "Errors during downloading metadata for repository 'x':\n  - Curl error (6)\nError: Failed to download metadata for repo 'x'\n";
        assert_eq!(find_cause(source).as_deref(), Some("Error: Failed to download metadata for repo 'x'"));
        assert_eq!(find_cause("Killed\n"), None);
    }

    #[test]
    fn packages_that_no_source_has_are_found_in_its_words() {
        let output = "Last metadata expiration check: 0:01:02 ago.\nNo match for argument: rabbitmq-server\nNo match for argument: supervisor\nError: Unable to find a match: rabbitmq-server supervisor\n";
        assert_eq!(find_unknown(output), ["rabbitmq-server", "supervisor"]);
        assert!(find_unknown("Error: Curl error (6)").is_empty());
    }
}
