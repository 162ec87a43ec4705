//! What becomes of services when what they are made of goes.

use super::orders::break_stale_locks;
use super::{ServiceManager, apache, member, supervisor, systemd};
use crate::host::Host;
use anyhow::Result;

/// What becomes of our services when everything is undone: they stop first.
pub(crate) fn before_undoing(known: Option<&ServiceManager>, host: &Host, slug: &str) -> Result<()> {
    if host.staged_root().is_some() {
        return Ok(());
    }
    break_stale_locks(known, host);
    systemd::stop_instance(host, slug)?;
    supervisor::stop_group(host, slug)
}

/// After files that the settings no longer want are gone: Apache forgets what stood in them, and systemd its units.
pub(crate) fn after_removals(known: Option<&ServiceManager>, host: &Host, removed: &[&str]) -> Result<()> {
    if removed.iter().any(|path| apache::guarded_flavour(host, path).is_some()) {
        if let Some(known) = known {
            known.forget();
        }
        apache::after_undoing(known, host)?;
    }
    if let Some(known) = known
        && removed.contains(&known.layout.supervisor_programs().as_str())
        && !supervisor::see_group(host, &known.layout.slug)?.is_empty()
    {
        supervisor::update_group(host, &known.layout.slug)?;
    }
    let mut units = removed
        .iter()
        .filter_map(|path| path.strip_prefix(member::UNIT_HOME)?.strip_prefix('/'))
        .filter(|unit| unit.ends_with(".service") && !unit.contains('/'))
        .peekable();
    if units.peek().is_none() || host.staged_root().is_some() || !systemd::is_running(host)? {
        return Ok(());
    }
    systemd::reload_files(host)?;
    for unit in units {
        // It may have failed, and would be told of for ever; where it has not, this is refused.
        let _ = host.child("systemctl").args(["reset-failed", "--", unit]).end()?;
    }
    if let Some(known) = known
        && removed.contains(&format!("{}/camcops@.target", member::UNIT_HOME).as_str())
    {
        systemd::stop_forgotten(host, &format!("camcops@{}.target", known.layout.slug))?;
        systemd::stop_forgotten(host, "camcops.target")?;
    }
    Ok(())
}

/// After undoing: managers and Apache forget what is gone.
pub(crate) fn after_undoing(known: Option<&ServiceManager>, host: &Host, slug: &str) -> Result<()> {
    if host.staged_root().is_some() {
        return Ok(());
    }
    if systemd::is_running(host)? {
        systemd::reload_files(host)?;
        // Another instance may have kept it.
        systemd::stop_forgotten(host, "camcops.target")?;
    }
    if !supervisor::see_group(host, slug)?.is_empty() {
        supervisor::update_group(host, slug)?;
    }
    apache::after_undoing(known, host)
}
