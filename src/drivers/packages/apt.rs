//! dpkg and apt.

mod heard;

use super::records::{RECORDS, split_records};
use super::{PackageSource, found_nowhere};
use crate::archive::bundle::PACKAGES;
use crate::base::error::Exit;
use crate::drivers::release::index::{combine_authorities, proxy_variables};
use crate::host::{Child, Ended, Host};
use crate::journal::lock_holder;
use crate::layout::alternative_names;
use anyhow::Result;
use heard::HeardApt;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const LOCK: &str = "/var/lib/dpkg/lock-frontend";
/// How long another package manager may be at work, here and in the options of apt.
const PATIENCE: Duration = Duration::from_secs(300);
const LISTS: &str = "/var/lib/apt/lists";
/// The administrator's files stay as they are, and another package manager at work is waited for.
const OPTIONS: [&str; 10] = [
    "--option",
    "Dpkg::Options::=--force-confdef",
    "--option",
    "Dpkg::Options::=--force-confold",
    "--option",
    "DPkg::Lock::Timeout=300",
    "--option",
    "Dpkg::Use-Pty=0",
    "--option",
    "APT::Color=0",
];
/// Nobody is asked, and nobody else's services are restarted.
const ENVIRONMENT: [(&str, &str); 6] = [
    ("DEBIAN_FRONTEND", "noninteractive"),
    ("APT_LISTCHANGES_FRONTEND", "none"),
    ("NEEDRESTART_MODE", "l"),
    ("NEEDRESTART_SUSPEND", "1"),
    ("UCF_FORCE_CONFFOLD", "1"),
    ("LC_ALL", "C.UTF-8"),
];

/// The names of all installed packages, and the names that they stand in for.
pub(crate) fn list_installed(host: &Host) -> Result<BTreeSet<String>> {
    Ok(host.read_text(RECORDS)?.as_deref().map(parse_installed).unwrap_or_default())
}

fn parse_installed(records: &str) -> BTreeSet<String> {
    let mut packages = Vec::new();
    // dpkg itself is of the machine's own architecture.
    let mut own = "";
    for record in split_records(records) {
        if record.name == "dpkg" {
            own = record.architecture;
        }
        if is_whole(record.status) {
            packages.push((record.name, record.architecture, record.provides));
        }
    }
    packages
        .into_iter()
        .filter(|(_, architecture, _)| *architecture == own || *architecture == "all")
        .flat_map(|(name, _, provides)| {
            let stood_in_for = provides.split(',').filter_map(|one| {
                // A version in brackets may follow.
                one.split_whitespace().next()
            });
            std::iter::once(name).chain(stood_in_for)
        })
        .map(str::to_owned)
        .collect()
}

/// `install ok installed`; somebody else's trigger that is still to run is no defect.
fn is_whole(status: &str) -> bool {
    let mut words = status.split(' ').skip(1);
    words.next() == Some("ok") && matches!(words.next(), Some("installed" | "triggers-pending" | "triggers-awaited"))
}

/// Waits until no other package manager is at work: until then its records and lists are half of the old and half of the
/// new ones.
pub(crate) fn wait_for_others(host: &Host, known: &PackageSource) -> Result<()> {
    let begin = Instant::now();
    let mut told = false;
    while let Some(lock) = host.open_for_appending(LOCK)? {
        let Some(process) = lock_holder(&lock)? else {
            break;
        };
        if begin.elapsed() > PATIENCE {
            return Err(at_work(&format!("process {process} holds {LOCK}")));
        }
        if !told {
            known.tell.line(&format!("waiting for another package manager to finish (process {process})"));
            told = true;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

fn at_work(held: &str) -> anyhow::Error {
    Exit::Locked
        .because(format!("another package manager has been running for 5 minutes ({held}); wait for it, and run again"))
}

pub(crate) fn install_packages(host: &Host, known: &PackageSource, missing: &[&str], resumed: bool) -> Result<()> {
    if resumed {
        let finish =
            apt_child(host, known, "dpkg")?.args(["--configure", "--pending", "--force-confdef", "--force-confold"]);
        // What it can't mend, apt says more clearly.
        let mut heard = HeardApt::new(known.tell, missing);
        finish.end_telling(|line| heard.hear(line))?;
    }
    let (mut fresh, mut replaces) = (false, false);
    if !has_lists(host, known)? {
        update_lists(host, known)?;
        fresh = true;
    }
    loop {
        let chosen = match choose_candidates(host, known, missing)? {
            Ok(chosen) => chosen,
            Err(unknown) if fresh => return Err(found_nowhere(known, &unknown)),
            Err(_) => {
                update_lists(host, known)?;
                fresh = true;
                continue;
            }
        };
        let mut heard = HeardApt::new(known.tell, &chosen);
        // What conflicts with somebody else's package is not installed.
        let removing: &[&str] = if replaces { &[] } else { &["--no-remove"] };
        let ended = fetching_child(host, known)?
            .args(["install", "--yes", "--quiet", "--no-install-recommends"])
            .args(removing)
            .args(OPTIONS)
            .args(&chosen)
            .end_telling(|line| heard.hear(line))?;
        if ended.status.success() {
            return Ok(());
        }
        // The lists may be so old that the archive no longer has what they name.
        if !fresh && is_gone(&ended.output) {
            update_lists(host, known)?;
            fresh = true;
            continue;
        }
        let removed = list_removed(&ended.output);
        if !replaces && !removed.is_empty() && removed.iter().all(|name| known.names.replaced.contains(name)) {
            known.tell.line(&format!("replacing {} of an earlier release of this distribution", removed.join(", ")));
            replaces = true;
            continue;
        }
        return Err(explain_failure(&ended));
    }
}

/// How many bytes apt would fetch for these; nothing where its lists are missing or do not have them all.
pub(super) fn size_to_fetch(host: &Host, known: &PackageSource, missing: &[&str]) -> Result<Option<u64>> {
    if !has_lists(host, known)? {
        return Ok(None);
    }
    let Ok(chosen) = choose_candidates(host, known, missing)? else {
        return Ok(None);
    };
    let ended = apt_child(host, known, "apt-get")?
        .args(["install", "--print-uris", "--yes", "--no-install-recommends"])
        .args(apt_option("Debug::NoLocking", "true"))
        .args(&chosen)
        .patience(Duration::from_secs(20))
        .end()?;
    Ok(ended.status.success().then(|| parse_sizes(&ended.output)))
}

/// The sum of the sizes in lines such as `'http://…/x.deb' x.deb 1234 SHA256:…`.
fn parse_sizes(printed: &str) -> u64 {
    let files = printed.lines().filter(|line| line.starts_with('\''));
    files.filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok()).sum()
}

/// apt where it fetches something: also from archives that only the site's own authorities vouch for.
pub(super) fn fetching_child<'a>(host: &'a Host, known: &PackageSource) -> Result<Child<'a>> {
    let child = apt_child(host, known, "apt-get")?;
    Ok(match combine_authorities(host, &known.network)? {
        Some(path) => child.args(apt_option("Acquire::https::CaInfo", &path)),
        None => child,
    })
}

pub(super) fn apt_child<'a>(host: &'a Host, known: &PackageSource, program: &'a str) -> Result<Child<'a>> {
    let child = host.child(program).envs(ENVIRONMENT).envs(proxy_variables(host, &known.network)?);
    Ok(match program.starts_with("apt") {
        true => child.args(&*known.aside.borrow()),
        false => child,
    })
}

/// What lets apt see the packages of a bundle that was unpacked, and no other source. The machine's own lists and sources
/// stay as they are.
pub(crate) fn from_bundle(host: &Host, directory: &str) -> Result<Vec<String>> {
    let at = format!("{directory}/apt");
    let list = format!("{directory}/sources.list");
    // Its files were held against the manifest.
    let source = format!("deb [trusted=yes] file:{directory}/{PACKAGES} ./\n");
    host.put_file(&list, source.as_bytes(), Some((0, 0)), 0o600)?;
    let mut options = state_in(host, &at)?;
    options.extend(apt_option("Dir::Etc::sourcelist", &list));
    options.extend(apt_option("Dir::Etc::sourceparts", "/dev/null"));
    Ok(options)
}

/// What keeps the lists and the cache of apt in a directory of their own, which is made anew.
pub(super) fn state_in(host: &Host, directory: &str) -> Result<Vec<String>> {
    host.remove_tree(directory)?;
    for name in ["", "/lists", "/lists/partial", "/cache", "/cache/archives", "/cache/archives/partial"] {
        let path = format!("{directory}{name}");
        host.make_directory(&path, Some((0, 0)), 0o700)?;
    }
    let mut options = apt_option("Dir::State::lists", &format!("{directory}/lists"));
    options.extend(apt_option("Dir::Cache", &format!("{directory}/cache")));
    options.extend(apt_option("Acquire::Languages", "none"));
    // Whoever else fetches for apt can't read what only root can.
    options.extend(apt_option("APT::Sandbox::User", "root"));
    Ok(options)
}

pub(super) fn apt_option(name: &str, value: &str) -> Vec<String> {
    vec!["--option".into(), format!("{name}={value}")]
}

fn has_lists(host: &Host, known: &PackageSource) -> Result<bool> {
    if !known.aside.borrow().is_empty() {
        return Ok(false);
    }
    let names = host.list(LISTS)?.unwrap_or_default();
    Ok(names.iter().any(|name| name.contains("_Packages")))
}

pub(super) fn update_lists(host: &Host, known: &PackageSource) -> Result<()> {
    known.tell.line("updating the package lists");
    let ended = fetching_child(host, known)?.args(["update", "--quiet", "--error-on=any"]).args(OPTIONS).end()?;
    match ended.status.success() {
        true => Ok(()),
        false => Err(explain_failure(&ended)),
    }
}

/// One name per package: the first alternative that can be had. Otherwise those of which none can be had.
pub(super) fn choose_candidates<'a>(
    host: &Host,
    known: &PackageSource,
    missing: &[&'a str],
) -> Result<Result<Vec<&'a str>, Vec<&'a str>>> {
    let policy = apt_child(host, known, "apt-cache")?
        .args(["policy"])
        .args(missing.iter().flat_map(|name| alternative_names(name)))
        .run()?;
    let can_be_had = parse_candidates(&policy);
    let mut unknown = Vec::new();
    let mut chosen = Vec::new();
    for name in missing {
        match alternative_names(name).find(|name| can_be_had.contains(name)) {
            Some(name) => chosen.push(name),
            None => unknown.push(*name),
        }
    }
    Ok(match unknown.is_empty() {
        true => Ok(chosen),
        false => Err(unknown),
    })
}

fn parse_candidates(policy: &str) -> BTreeSet<&str> {
    let mut name = "";
    let mut found = BTreeSet::new();
    for line in policy.lines() {
        if let Some(heading) = line.strip_suffix(':').filter(|l| !l.starts_with(' ')) {
            name = heading;
        } else if let Some(version) = line.trim_start().strip_prefix("Candidate: ")
            && version != "(none)"
        {
            found.insert(name);
        }
    }
    found
}

fn is_gone(output: &str) -> bool {
    output.lines().any(|line| line.starts_with("E: Failed to fetch ") && line.contains(" 404 "))
}

/// What apt or dpkg could not do, in one line with what to do next.
pub(super) fn explain_failure(ended: &Ended) -> anyhow::Error {
    // Where its lines were not followed, its complaints are apart.
    let output = &format!("{}{}", ended.output, ended.complaint);
    let complaints: Vec<&str> = output.lines().filter_map(|line| line.strip_prefix("E: ")).map(str::trim).collect();
    let said = |signs: &[&str]| signs.iter().any(|sign| output.contains(sign));
    let last = || match complaints.last() {
        Some(last) => (*last).to_owned(),
        None => ended.last_words(),
    };
    if said(&["Could not get lock", "Unable to acquire the dpkg frontend lock"]) {
        let held = complaints.first().copied().unwrap_or_default();
        return at_work(held);
    }
    if said(&["dpkg was interrupted"]) {
        return Exit::Failed.because(
            "an earlier installation of packages on this machine was interrupted: finish it with `dpkg --configure -a`, and run again",
        );
    }
    if said(&["packages need to be removed but remove is disabled", "Packages need to be removed"]) {
        return Exit::CannotCreate.because(format!(
            "needed packages conflict with {}; nothing is removed: decide which to keep, and run again",
            match list_removed(output).as_slice() {
                [] => "others".to_owned(),
                names => names.join(", "),
            }
        ));
    }
    if said(&["Unmet dependencies", "have unmet dependencies", "held broken packages"]) {
        return Exit::Failed.because(format!(
            "apt can't satisfy the dependencies of packages on this machine: {}; fix it with `apt-get --fix-broken install`, and run again",
            find_unmet(output).unwrap_or_else(last)
        ));
    }
    if said(&["You don't have enough free space", "No space left on device"]) {
        return Exit::Io.because(format!("the packages don't fit on the disk: {}", last()));
    }
    if let Some(broken) = find_broken(output) {
        return Exit::Failed.because(format!("{broken}; see /var/log/apt/term.log, fix the cause, and run again"));
    }
    if said(&[
        "Temporary failure resolving",
        "Could not resolve",
        "Could not connect",
        "Cannot initiate the connection",
        "Connection failed",
        "onnection timed out",
        "Failed to fetch",
        "Unable to fetch",
        "is not signed",
        "is no longer valid",
    ]) {
        let first = complaints.iter().find_map(|line| line.strip_prefix("Failed to fetch "));
        let words: Vec<&str> = first.unwrap_or_default().split_whitespace().collect();
        let why = match words.is_empty() {
            true => last(),
            false => words.join(" "),
        };
        return Exit::Unreachable.because(format!(
            "the package archive can't be used: {why}; check the network, the proxy and /etc/apt, and run again"
        ));
    }
    Exit::Failed.because(format!("apt-get failed ({}): {}", ended.status, last()))
}

/// The first package that could not be set up, and why.
fn find_broken(output: &str) -> Option<String> {
    let mut lines = output.lines();
    let name = lines.find_map(|line| {
        let rest = line.strip_prefix("dpkg: error processing ")?;
        let rest = rest.strip_prefix("package ").or_else(|| rest.strip_prefix("archive "))?;
        Some(rest.split(" (").next().unwrap_or(rest).to_owned())
    })?;
    let why = lines.next().unwrap_or_default().trim();
    Some(format!("dpkg could not set up {name}: {why}"))
}

/// The packages that would go, from the list that follows the heading.
fn list_removed(output: &str) -> Vec<&str> {
    output
        .lines()
        .skip_while(|line| !line.starts_with("The following packages will be REMOVED"))
        .skip(1)
        .take_while(|line| line.starts_with(' '))
        .flat_map(str::split_whitespace)
        .collect()
}

/// The first unmet dependency, as apt words it.
fn find_unmet(output: &str) -> Option<String> {
    let mut lines = output.lines().skip_while(|line| !line.contains("unmet dependencies")).skip(1);
    let words: Vec<&str> = lines.next()?.split_whitespace().collect();
    (!words.is_empty()).then(|| words.join(" "))
}

#[cfg(test)]
mod tests;
