//! Whether the directory for backups is where it should be: a share or a disk that is not mounted leaves an empty place
//! on the machine's own disk, and nobody looks for backups there.

use crate::base::kernel::{Mount, list_mounts, unescape_field};
use crate::host::Host;
use anyhow::{Context, Result};

const TABLE: &str = "/etc/fstab";
const UNITS: &str = "/etc/systemd/system";
/// What waits for somebody to look, and mounts then.
const AUTOMATIC: &str = "autofs";

/// The mount point that a directory belongs to, if it is one of fstab or of systemd and nothing is mounted there.
pub(crate) fn missing_mount(host: &Host, directory: &str) -> Result<Option<String>> {
    if host.staged_root().is_some() {
        return Ok(None);
    }
    let mut wanted = in_table(&host.read_text(TABLE)?.unwrap_or_default());
    for name in host.list(UNITS)?.unwrap_or_default() {
        if name.ends_with(".mount") {
            let unit = host.read_text(&format!("{UNITS}/{name}")).ok().flatten();
            wanted.extend(unit.as_deref().and_then(of_unit));
        }
    }
    let Some(point) = deepest_mount(&wanted, directory) else {
        return Ok(None);
    };
    // An automatic one is mounted by this.
    let _ = std::fs::read_dir(point);
    let mounts = list_mounts("self").context("can't read /proc/self/mountinfo")?;
    Ok((!is_mounted(&mounts, point)).then(|| point.to_owned()))
}

/// The deepest of these that a directory is in, or is itself.
fn deepest_mount<'a>(points: &'a [String], directory: &str) -> Option<&'a str> {
    let holds = |point: &&String| {
        let rest = directory.strip_prefix(point.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    points.iter().filter(holds).max_by_key(|point| point.len()).map(String::as_str)
}

/// The mount points of fstab(5) but the root; swap has none.
fn in_table(text: &str) -> Vec<String> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_whitespace().nth(1))
        .map(|point| unescape_field(point).trim_end_matches('/').to_owned())
        .filter(|point| point.starts_with('/'))
        .collect()
}

fn of_unit(text: &str) -> Option<String> {
    let place = text.lines().find_map(|line| line.trim().strip_prefix("Where="))?;
    let place = place.trim().trim_end_matches('/');
    place.starts_with('/').then(|| place.to_owned())
}

/// Whether something is mounted there that does not only wait for it.
fn is_mounted(mounts: &[Mount], point: &str) -> bool {
    mounts.iter().any(|mount| mount.point == point && mount.kind != AUTOMATIC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::kernel::parse_mounts;

    #[test]
    fn the_mount_point_of_a_directory_is_found() {
        let points = in_table(
            "# a comment\nUUID=1 / ext4 defaults 0 1\nnas:/b /srv/backups nfs noauto 0 0\nnas:/c /srv/my\\040disk/ nfs\nUUID=2 none swap sw 0 0\n",
        );
        assert_eq!(points, ["/srv/backups", "/srv/my disk"]);
        assert_eq!(deepest_mount(&points, "/srv/backups/site"), Some("/srv/backups"));
        assert_eq!(deepest_mount(&points, "/srv/backups"), Some("/srv/backups"));
        assert_eq!(deepest_mount(&points, "/srv/my disk/x"), Some("/srv/my disk"));
        assert_eq!(deepest_mount(&points, "/srv/backups2"), None);
        assert_eq!(of_unit("[Mount]\nWhat=x\nWhere=/srv/y/\n").as_deref(), Some("/srv/y"));
    }

    #[test]
    fn what_only_waits_to_be_mounted_is_not() {
        let text = "36 35 98:0 / /srv/backups rw,noatime master:1 - ext3 /dev/root rw\n\
            37 35 0:5 / /srv/other rw - autofs systemd-1 rw\n\
            38 35 0:6 / /srv/my\\040disk rw - nfs nas:/c rw\n";
        let mounts = parse_mounts(text);
        assert!(is_mounted(&mounts, "/srv/backups") && is_mounted(&mounts, "/srv/my disk"));
        assert!(!is_mounted(&mounts, "/srv/other"));
    }
}
