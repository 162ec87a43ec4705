//! What a running service may write to: the kernel tells, of its main process.
//!
//! systemd opens a directory for a service when that starts. One that is made later, or made again, stays closed to it.

use super::ServiceState;
use crate::base::kernel::{Mount, list_mounts};
use crate::host::Host;
use anyhow::Result;

/// Whether a service can't write to a directory that its own unit file opens for it.
pub(super) fn lacks_write_path(host: &Host, seen: &ServiceState) -> Result<bool> {
    let Some(pid) = seen.pid else {
        return Ok(false);
    };
    let mut paths = Vec::new();
    for file in &seen.files {
        let text = host.read_text(file).ok().flatten().unwrap_or_default();
        paths.extend(text.lines().filter_map(opened_path));
    }
    // What is not there is opened for nobody.
    paths.retain(|path| matches!(host.look_into(path), Ok(Some(_))));
    if paths.is_empty() {
        return Ok(false);
    }
    // A process that is just ending has none.
    let Some(mounts) = list_mounts(pid) else {
        return Ok(false);
    };
    // systemd has followed links before it opened the path.
    let real = |path: &String| {
        let found = std::fs::canonicalize(path);
        found.map_or_else(|_| path.clone(), |real| real.to_string_lossy().into_owned())
    };
    Ok(paths.iter().any(|path| !is_writable(&mounts, &real(path))))
}

/// The path of a line as this program writes it.
fn opened_path(line: &str) -> Option<String> {
    let quoted = line.strip_prefix("ReadWritePaths=\"-")?.strip_suffix('"')?;
    let plain = quoted.replace("%%", "%");
    Some(plain.replace("\\\"", "\"").replace(r"\\", r"\"))
}

/// Whether the last mount over a path is not read-only.
fn is_writable(mounts: &[Mount], path: &str) -> bool {
    let holds = |mount: &&Mount| {
        let rest = path.strip_prefix(mount.point.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    // Of several that are as deep, this gives the last one.
    let over = mounts.iter().filter(holds).max_by_key(|mount| mount.point.len());
    over.is_none_or(|mount| !mount.is_read_only)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::kernel::parse_mounts;

    const MOUNTS: &str = "1 0 0:1 / / ro,relatime shared:1 - overlay machine rw\n\
        2 1 0:2 /srv/exports /srv/exports rw,relatime - overlay machine rw\n\
        3 1 0:2 /srv/a\\040b /srv/a\\040b rw - overlay machine rw\n\
        4 1 0:3 / /run rw - tmpfs run rw\n5 4 0:3 / /run ro - tmpfs run rw\n\
        6 1 0:4 / /srv/gone//deleted rw - tmpfs x rw\n";

    #[test]
    fn the_last_mount_over_a_path_tells() {
        for (path, writable) in [
            ("/srv/exports", true),
            ("/srv/exports/today", true),
            ("/srv/exports2", false),
            ("/srv/a b", true),
            ("/srv/gone", false),
            ("/run/x", false),
        ] {
            assert_eq!(is_writable(&parse_mounts(MOUNTS), path), writable, "{path}");
        }
    }

    #[test]
    fn paths_are_read_as_they_were_written() {
        let read = |line: &str| opened_path(line);
        assert_eq!(read("ReadWritePaths=\"-/srv/100%% a\\\\b\""), Some("/srv/100% a\\b".into()));
        assert_eq!(read("ReadWritePaths=-/var/lock/%i"), None);
        assert_eq!(read("ReadOnlyPaths=\"-/srv\""), None);
    }
}
