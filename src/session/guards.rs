//! What a command needs before it does anything: who may do it, where, and with which site.

use super::open_host;
use crate::base::error::Exit;
use crate::base::signals::{Interrupt, stop_on_signals};
use crate::base::terminal::Style;
use crate::cli::Global;
use crate::session::Session;
use anyhow::Result;

/// Only root may change a machine; a staged tree belongs to whoever owns it.
pub(crate) fn need_root(global: &Global, command: &str) -> Result<()> {
    let host = open_host(global)?;
    if host.staged_root().is_some() || host.is_root() {
        return Ok(());
    }
    Err(Exit::NoPermission.because(format!(
        "only root may {command} on this machine: run it with sudo, or on a staged tree with --root DIR"
    )))
}

/// For what is done with services that run: a staged tree has none.
pub(crate) fn need_machine(global: &Global, command: &str) -> Result<()> {
    if global.root.is_some() {
        return Err(
            Exit::Usage.because("a staged tree does not run; use this command without --root on the running machine")
        );
    }
    match open_host(global)?.is_root() {
        true => Ok(()),
        false => Err(Exit::NoPermission.because(format!("only root may {command} on this machine: run it with sudo"))),
    }
}

/// The same for what takes its time: a signal stops it between two steps.
pub(crate) fn begin_change(global: &Global, command: &str) -> Result<Interrupt> {
    need_machine(global, command)?;
    stop_on_signals(Style::of(global))
}

/// The site on a machine that runs.
pub(crate) fn open_running(global: &Global, command: &str) -> Result<Session> {
    need_machine(global, command)?;
    Session::open(global)
}

/// Only on a release of a distribution that is known a site is laid out; one that is there is looked at, saved and undone
/// everywhere.
pub(crate) fn refuse_unknown_distribution(site: &Session) -> Result<()> {
    match site.facts.unknown_distribution() {
        Some(why) => Err(Exit::Unreachable.because(why)),
        None => Ok(()),
    }
}

/// The site, with all that it takes to reach its data.
pub(crate) fn load_site(global: &Global) -> Result<Session> {
    let site = Session::open(global)?;
    site.load_secrets(&site.read_existing(&site.journal()?)?)?;
    Ok(site)
}

/// The same of a site that has to be there already: what is asked for is a change of it.
pub(crate) fn open_installed(global: &Global) -> Result<Session> {
    let site = load_site(global)?;
    if !site.journal()?.exists() {
        return Err(Exit::Unreachable
            .because(format!("the instance {} is not installed; run `camcops-provision install`", site.instance)));
    }
    Ok(site)
}
