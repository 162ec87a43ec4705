//! What a package has to do with an installation: its hook converges what is installed already or asked for, without
//! ever failing, and what it can't do stays pending until it is done.
//!
//! The file [`PENDING`] names the instances that are asked for and not finished, one in a line. The package writes it
//! when the administrator answers that CamCOPS is to be installed; `camcops-provision.service` runs `install --pending`
//! as long as it is there; whichever run finishes an instance takes that line out.

use super::{install, need_root};
use crate::base::error::Exit;
use crate::base::report::Report;
use crate::base::terminal::Style;
use crate::cli::{Global, Install, SourceFlags, Uninstall};
use crate::host::Host;
use crate::journal;
use crate::layout::{self, HOME};
use crate::session::open_host;
use anyhow::{Error, Result};
use serde_json::json;
use std::collections::BTreeSet;

/// Names what is not finished.
pub(crate) const PENDING: &str = "/var/lib/camcops-provision/pending";

/// `install`, for people, for the hook of a package and for the unit that finishes what the hook could not do.
pub(crate) async fn install_or_queue(global: &Global, flags: &Install) -> Result<Report> {
    if flags.from_package || flags.pending {
        return converge_instance(global, flags).await;
    }
    let report = install::install_site(global, flags).await?;
    Ok(if flags.parts.whole() { report.and_then(settle_pending(global)) } else { report })
}

/// `uninstall`; what is not wanted any more is not pending either.
pub(crate) async fn uninstall_or_queue(global: &Global, flags: &Uninstall) -> Result<Report> {
    Ok(install::uninstall_site(global, flags).await?.and_then(settle_pending(global)))
}

async fn converge_instance(global: &Global, flags: &Install) -> Result<Report> {
    need_root(global, "install")?;
    let (host, style) = (open_host(global)?, Style::of(global));
    let mut pending = read_pending(&host)?;
    if flags.from_package {
        pending.extend(journal::list_instances(&host)?);
        // A hook that is killed leaves its work to the next boot.
        write_pending(&host, &pending)?;
    }
    let mut left = Vec::new();
    let mut exit = 0;
    for instance in pending {
        // The only document on standard output is the one below.
        let global = Global { instance, json: false, quiet: global.quiet || global.json, ..global.clone() };
        let flags = Install {
            yes: true,
            // dpkg holds its lock, and nobody who waits for it waits for downloads; the unit has the time.
            origin: SourceFlags { offline: flags.origin.offline || flags.from_package, ..flags.origin.clone() },
            from_package: false,
            pending: false,
            ..flags.clone()
        };
        let installed = install::install_site(&global, &flags).await;
        match installed.and_then(|report| if style.json { Ok(0) } else { report.print(style) }) {
            Ok(_) => settle_pending(&global)?,
            Err(why) => {
                exit = Exit::of(&why) as u8;
                left.push((global.instance, one_line(&why)));
            }
        }
    }
    let document: Vec<_> = left.iter().map(|(instance, why)| json!({ "instance": instance, "why": why })).collect();
    let lines = left.iter().map(|(instance, why)| {
        let flag = match instance.as_str() {
            layout::DEFAULT_INSTANCE => String::new(),
            other => format!(" --instance {other}"),
        };
        format!("pending: {why} (then run: camcops-provision{flag} install; the next boot with systemd does it too)")
    });
    let code = if flags.from_package { 0 } else { exit };
    Ok(Report::new(json!({ "pending": document })).with_lines(lines).with_code(code))
}

/// An error as one line, however many it has.
fn one_line(why: &Error) -> String {
    let text = format!("{why:#}");
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.join("; ")
}

/// Nothing of this instance is pending any more.
fn settle_pending(global: &Global) -> Result<()> {
    let host = open_host(global)?;
    let mut pending = read_pending(&host)?;
    if pending.remove(&global.instance) {
        write_pending(&host, &pending)?;
    }
    Ok(())
}

fn read_pending(host: &Host) -> Result<BTreeSet<String>> {
    let text = host.read_text(PENDING)?.unwrap_or_default();
    Ok(text.lines().filter_map(|line| layout::parse_instance(line.trim()).ok()).collect())
}

fn write_pending(host: &Host, pending: &BTreeSet<String>) -> Result<()> {
    if !pending.is_empty() {
        let text: String = pending.iter().map(|name| format!("{name}\n")).collect();
        return host.put_file(PENDING, text.as_bytes(), Some((0, 0)), 0o600);
    }
    if host.stat(PENDING)?.is_some() {
        host.remove_file(PENDING)?;
        // A directory that only held this goes with it.
        if host.list(HOME)?.is_some_and(|names| names.is_empty()) {
            host.remove_directory(HOME)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pending_is_kept_until_it_is_settled() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("var/lib/camcops-provision")).unwrap();
        let host = Host::staged(root.path()).unwrap();
        let both = BTreeSet::from(["camcops".to_owned(), "trial".to_owned()]);
        write_pending(&host, &both).unwrap();
        assert_eq!(read_pending(&host).unwrap(), both);
        assert_eq!(journal::list_instances(&host).unwrap(), [""; 0]);
        write_pending(&host, &BTreeSet::new()).unwrap();
        assert!(host.stat(HOME).unwrap().is_none());
    }

    #[test]
    fn a_reason_is_one_line() {
        let why = Exit::Settings.because("a\n  b").context("c");
        assert_eq!(one_line(&why), "c: a; b");
    }
}
