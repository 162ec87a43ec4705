//! What the kernel says below /proc, read in one way.

use nix::sys::signal::Signal;
use std::fmt::Display;
use std::fs;

/// A file of a process; nothing if the process is gone or nobody may know. A name in it may have any bytes.
pub(crate) fn read_process(pid: impl Display, file: &str) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/{file}")).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// What stands behind a word at the beginning of a line, such as `Uid:`.
pub(crate) fn value_of<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// A size in KiB, such as that of `MemTotal:`.
pub(crate) fn kib_of(text: &str, name: &str) -> Option<u64> {
    value_of(text, name)?.strip_suffix("kB")?.trim().parse().ok()
}

/// Whether a signal is in a set of a process's status, such as `SigIgn:`.
pub(crate) fn has_signal(status: &str, set: &str, signal: Signal) -> bool {
    let mask = value_of(status, set).and_then(|mask| u64::from_str_radix(mask, 16).ok());
    mask.is_some_and(|mask| mask >> (signal as i32 - 1) & 1 == 1)
}

/// Something that is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) point: String,
    pub(crate) is_read_only: bool,
    /// The kind of file system.
    pub(crate) kind: String,
}

/// What is mounted for a process, in the order in which it was: later ones cover earlier ones.
pub(crate) fn list_mounts(pid: impl Display) -> Option<Vec<Mount>> {
    Some(parse_mounts(&read_process(pid, "mountinfo")?))
}

/// proc(5): the point is the fifth field, options follow, and behind a dash comes the kind.
pub(crate) fn parse_mounts(text: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let (mount, source) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(4);
        Some(Mount {
            point: unescape_field(fields.next()?),
            is_read_only: fields.next()?.split(',').any(|option| option == "ro"),
            kind: source.split(' ').next()?.to_owned(),
        })
    };
    text.lines().filter_map(mount).collect()
}

/// Blanks and the like are written as `\040`, as in fstab(5).
pub(crate) fn unescape_field(field: &str) -> String {
    let mut parts = field.split('\\');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let code = part.get(..3).and_then(|code| u8::from_str_radix(code, 8).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend_from_slice(&part.as_bytes()[3..]);
            }
            None => {
                bytes.push(b'\\');
                bytes.extend_from_slice(part.as_bytes());
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
