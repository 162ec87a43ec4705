//! `break-locks` and `catch-up`: what exports have left behind. A timer runs both as the account of the services, whose
//! directories these are: root does nothing in them by name.

use super::become_it;
use crate::base::error::Exit;
use crate::base::report::Report;
use crate::base::terminal::{self};
use crate::cli::Global;
use crate::host::export_locks;
use crate::layout::{DEBIAN, Layout, UNSENT_SENDER};
use crate::session::open_host;
use anyhow::Result;
use serde_json::json;
use std::path::Path;

/// Breaks stale export locks of an instance. It needs no settings, so that the service's own account can run it.
pub(crate) fn break_locks(global: &Global) -> Result<Report> {
    let host = open_host(global)?;
    let layout = Layout::new(&DEBIAN, &global.instance);
    if let Some(ended) = export_locks::break_as_owner(&host, &layout, global.json)? {
        terminal::print(&ended.output)?;
        let code = ended.status.code().and_then(|code| u8::try_from(code).ok());
        if code != Some(0) {
            terminal::print_note(ended.complaint.trim_end().trim_start_matches("error: "));
        }
        return Ok(Report::of_code(code.unwrap_or(1)));
    }
    let directory = export_locks::lock_directory(&host, &layout)?;
    let locks = export_locks::break_stale(&host, &directory)?;
    Ok(Report::new(json!({ "instance": global.instance, "locks": locks })).with_lines(locks.iter().map(|lock| {
        let what = if lock.broken { "broken" } else { "kept" };
        format!("export lock {what}: {}: {}", lock.path, lock.why)
    })))
}

/// Sends the exports that could not be sent when they were due. It runs in a sandbox, where [`break_locks`] could not tell
/// who is alive.
pub(crate) fn catch_up(global: &Global) -> Result<Report> {
    let host = open_host(global)?;
    if host.is_root() {
        return Err(Exit::Usage.because(
            "catch-up is for the account of the services: start camcops-exports@INSTANCE.service, which runs it",
        ));
    }
    let layout = Layout::new(&DEBIAN, &global.instance);
    if !export_locks::has_unsent(&host, &layout)? {
        return Ok(Report::of_code(0));
    }
    let python = format!("{}/bin/python", layout.venv);
    if !Path::new(&python).exists() {
        return Err(Exit::Unreachable
            .because(format!("there is no CamCOPS at {}: run `camcops-provision install`", layout.venv)));
    }
    become_it(&python, |command| {
        command.args(["-W", "ignore", UNSENT_SENDER]);
        command.env("HOME", &layout.state);
        command.current_dir(&layout.state);
    })
}
