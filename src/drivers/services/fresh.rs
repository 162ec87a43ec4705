//! Whether a service has read what it reads since that changed.

use super::member::{Member, ServiceRole};
use super::state::{PORT_MAPPER, ServicePhase, ServiceState};
use super::{ServiceManager, sandbox};
use crate::drivers::broker;
use crate::host::{Host, processes};
use crate::layout::{MANAGED, PORT_MAPPER_SETTINGS};
use crate::settings::Bind;
use anyhow::Result;
use std::os::unix::fs::FileTypeExt;
use std::time::SystemTime;

/// Whether it started, or was told to read again, after all that it reads had changed for the last time.
pub(crate) fn is_fresh(known: &ServiceManager, host: &Host, member: &Member, seen: &ServiceState) -> Result<bool> {
    if seen.stale_files && member.role.is_ours() {
        return Ok(false);
    }
    if member.role == ServiceRole::Socket && !has_socket(known, host) {
        return Ok(false);
    }
    if member.role.is_ours() && sandbox::lacks_write_path(host, seen)? {
        return Ok(false);
    }
    let read = match member.role {
        ServiceRole::Web => seen.reloaded,
        ServiceRole::Socket | ServiceRole::Timer => seen.since,
        _ => seen.pid.and_then(processes::start_time),
    };
    let Some(read) = read else {
        // Between two processes of its own.
        return Ok(seen.phase != ServicePhase::Running);
    };
    let mut inputs = member.inputs.clone();
    if member.role.is_ours() {
        // Also the administrator's own drop-ins.
        inputs.extend(seen.files.iter().cloned());
    }
    if member.role == ServiceRole::Broker {
        // Others' settings are for others to bring to a broker.
        inputs.retain(|input| {
            let text = host.read_text(input).ok().flatten();
            text.is_some_and(|text| text.contains(MANAGED))
        });
        if !is_mapper_fresh(known, host)? {
            return Ok(false);
        }
        let settings = inputs.iter().position(|input| input.starts_with(broker::MORE_SETTINGS));
        if let Some(settings) = settings
            && !are_older(host, &inputs[settings..=settings], read)?
            && broker::is_followed(host, &inputs[settings])?
        {
            inputs.remove(settings);
        }
    }
    if let Some(part) = &member.config
        && part.changed(host)?.is_some_and(|changed| changed > read)
    {
        return Ok(false);
    }
    are_older(host, &inputs, read)
}

/// Whether visitors find the socket, if it is to be a file.
pub(crate) fn has_socket(known: &ServiceManager, host: &Host) -> bool {
    if known.settings.web.bind != Bind::Socket {
        return true;
    }
    let found = std::fs::symlink_metadata(host.outside(&known.layout.socket));
    found.is_ok_and(|found| found.file_type().is_socket())
}

/// Whether nothing of this has changed since then.
fn are_older(host: &Host, inputs: &[String], read: SystemTime) -> Result<bool> {
    for input in inputs {
        if newest_change(host, input)?.is_some_and(|changed| changed > read) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// When a path last changed, or what stands in it if it is a directory.
fn newest_change(host: &Host, path: &str) -> Result<Option<SystemTime>> {
    let path = &host.outside(path);
    let mut newest = processes::changed_time(path)?;
    // Not through a link: the release is replaced as a whole, and its link changes with it.
    let is_directory = std::fs::symlink_metadata(path).is_ok_and(|data| data.is_dir());
    if is_directory {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            newest = newest.max(processes::changed_time(&entry.path().to_string_lossy())?);
        }
    }
    Ok(newest)
}

/// Whether Erlang's port mapper, where systemd holds its socket, listens as we told it.
pub(super) fn is_mapper_fresh(known: &ServiceManager, host: &Host) -> Result<bool> {
    let Some(told) = processes::changed_time(&host.outside(PORT_MAPPER_SETTINGS))? else {
        return Ok(true);
    };
    let mapper = known.see(host)?.remove(PORT_MAPPER);
    let since = mapper.and_then(|mapper| mapper.since);
    Ok(since.is_none_or(|since| since > told))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_change_after_the_start_makes_it_stale() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("input");
        std::fs::write(&file, "").unwrap();
        let host = Host::live().unwrap();
        let later = SystemTime::now() + Duration::from_secs(5);
        let earlier = SystemTime::now() - Duration::from_secs(5);
        for input in [file.as_path(), directory.path()] {
            let inputs = [input.to_string_lossy().into_owned(), "/no/such".into()];
            assert!(are_older(&host, &inputs, later).unwrap());
            assert!(!are_older(&host, &inputs, earlier).unwrap());
        }
    }
}
