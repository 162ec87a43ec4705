//! Who may do something here, asked before anything else is.

use super::open_host;
use crate::base::error::Exit;
use crate::cli::Global;
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
        return Err(Exit::Usage.because("a staged tree does not run; leave --root out on the machine that it becomes"));
    }
    match open_host(global)?.is_root() {
        true => Ok(()),
        false => Err(Exit::NoPermission.because(format!("only root may {command} on this machine: run it with sudo"))),
    }
}
