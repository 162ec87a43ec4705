//! What runs on this machine and what it listens to, read from /proc.

use crate::base::kernel::{kib_of, read_process, value_of};
use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The kernel counts the ages of processes in hundredths of a second, on every machine that Debian runs on.
const TICKS_PER_SECOND: u64 = 100;
/// Of what a process has open no more is looked at.
const MOST_FILES: usize = 1 << 16;
/// Of the words of a process no more is read.
const LONGEST_LINE: u64 = 64 << 10;
/// The state in which a listening TCP socket is.
const LISTENING: &str = "0A";

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Its program, in short.
    pub(crate) name: String,
}

/// When a process started, by today's clock; nothing if there is no such process.
///
/// Reckoned back from now, so that a clock which was set since does not matter.
pub(crate) fn start_time(pid: u32) -> Option<SystemTime> {
    let ticks = Duration::from_millis(start_ticks(pid)? * 1000 / TICKS_PER_SECOND);
    since_boot(ClockId::CLOCK_BOOTTIME, ticks)
}

/// A moment that systemd gave as microseconds of its own clock, by today's clock.
pub(crate) fn from_monotonic(microseconds: u64) -> Option<SystemTime> {
    since_boot(ClockId::CLOCK_MONOTONIC, Duration::from_micros(microseconds))
}

fn since_boot(clock: ClockId, moment: Duration) -> Option<SystemTime> {
    let now = Duration::from(clock_gettime(clock).ok()?);
    SystemTime::now().checked_sub(now.saturating_sub(moment))
}

/// When a process started, in ticks since the machine did: with its number, it is this process and no other.
pub(crate) fn start_ticks(pid: u32) -> Option<u64> {
    stat_field(&read_process(pid, "stat")?, 22)
}

/// A field of `/proc/PID/stat`, numbered as proc(5) does. The second one is a name that may contain anything.
fn stat_field(stat: &str, number: usize) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(number.checked_sub(3)?)?.parse().ok()
}

/// The account that a process runs as.
pub(crate) fn owner_of(pid: u32) -> Option<u32> {
    fs::metadata(format!("/proc/{pid}")).ok().map(|data| data.uid())
}

/// The account whose rights a process has, also where the kernel gives root what there is to see of it.
pub(crate) fn account_of(pid: u32) -> Option<u32> {
    let status = read_process(pid, "status")?;
    value_of(&status, "Uid:")?.split_whitespace().nth(1)?.parse().ok()
}

/// Whether somebody has stopped a process, or it is dead and only not yet buried.
pub(crate) fn is_stopped(pid: u32) -> bool {
    read_stat(pid).is_some_and(|stat| matches!(stat.state, 'T' | 't' | 'Z' | 'X'))
}

/// The program that a process runs; nothing if it is gone or nobody may know.
pub(crate) fn program_of(pid: u32) -> Option<String> {
    let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let name = path.file_name()?.to_string_lossy().into_owned();
    Some(name.trim_end_matches(" (deleted)").to_owned())
}

/// What a process was started as; nothing if it is gone. It may have written anything there, of any length.
pub(crate) fn command_words(pid: u32) -> Option<Vec<String>> {
    let mut bytes = Vec::new();
    let file = File::open(format!("/proc/{pid}/cmdline")).ok()?;
    file.take(LONGEST_LINE).read_to_end(&mut bytes).ok()?;
    // Each of them ends with it.
    let all = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    let words = all.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    Some(words.map(|word| word.into_owned()).collect())
}

/// Where the kernel counts what a process uses, below /sys/fs/cgroup.
pub(crate) fn control_group(pid: u32) -> Option<String> {
    let groups = read_process(pid, "cgroup")?;
    let unified = groups.lines().find_map(|line| line.strip_prefix("0::"));
    let named = || groups.lines().find_map(|line| line.split_once(":name=systemd:").map(|(_, path)| path));
    unified.filter(|path| *path != "/").or_else(named).map(str::to_owned)
}

/// The service of systemd that a process belongs to.
pub(crate) fn unit_of(pid: u32) -> Option<String> {
    let group = control_group(pid)?;
    let unit = group.rsplit('/').find(|part| part.ends_with(".service"))?;
    Some(unit.to_owned())
}

/// Every process.
pub(crate) fn all_processes() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// What the kernel says of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Who started it, or took it over.
    pub(crate) parent: u32,
    /// `R` runs, `S` sleeps, `D` waits for a disk or the like, `T` is stopped, `Z` is dead and not yet buried.
    pub(crate) state: char,
    /// How long it was on a processor.
    pub(crate) busy: Duration,
}

/// All processes at one moment.
#[derive(Debug, Default)]
pub(crate) struct Table(BTreeMap<u32, Stat>);

impl Table {
    pub(crate) fn read() -> Table {
        Table(all_processes().into_iter().filter_map(|pid| Some((pid, read_stat(pid)?))).collect())
    }

    /// One of them.
    pub(crate) fn get(&self, pid: u32) -> Option<Stat> {
        self.0.get(&pid).copied()
    }

    /// The children of a process.
    pub(crate) fn children(&self, parent: u32) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().filter(move |(_, stat)| stat.parent == parent).map(|(pid, _)| *pid)
    }

    /// A process and all below it, parents before their children; nothing if it is gone.
    pub(crate) fn tree(&self, root: u32) -> Vec<u32> {
        let mut tree: Vec<u32> = self.0.contains_key(&root).then_some(root).into_iter().collect();
        let mut next = 0;
        while let Some(pid) = tree.get(next).copied() {
            // The kernel's own first process is its own child in some tables.
            let below: Vec<u32> = self.children(pid).filter(|one| !tree.contains(one)).collect();
            tree.extend(below);
            next += 1;
        }
        tree
    }

    /// The memory of a process and all below it that is theirs alone or their share, in bytes; nothing where that is
    /// not told.
    pub(crate) fn memory(&self, root: u32) -> Option<u64> {
        let mut shares = self.tree(root).into_iter().map(memory_share);
        let first = shares.next()??;
        Some(first + shares.flatten().sum::<u64>())
    }
}

fn read_stat(pid: u32) -> Option<Stat> {
    parse_stat(&read_process(pid, "stat")?)
}

fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(") ")?;
    let busy = stat_field(text, 14)? + stat_field(text, 15)?;
    Some(Stat {
        parent: u32::try_from(stat_field(text, 4)?).ok()?,
        state: rest.chars().next()?,
        busy: Duration::from_millis(busy * 1000 / TICKS_PER_SECOND),
    })
}

/// The memory of a process that is its own alone or its share, in bytes; nothing where that is not told.
pub(crate) fn memory_share(pid: u32) -> Option<u64> {
    Some(kib_of(&read_process(pid, "smaps_rollup")?, "Pss:")? * 1024)
}

/// What a process has open, as the kernel calls it: a path, `socket:[1234]`.
fn open_handles(pid: u32) -> impl Iterator<Item = String> {
    let handles = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
    let target =
        |handle: io::Result<fs::DirEntry>| fs::read_link(handle.ok()?.path()).ok()?.into_os_string().into_string().ok();
    handles.take(MOST_FILES).filter_map(target)
}

/// The files that a process has open.
pub(crate) fn open_files(pid: u32) -> Vec<String> {
    open_handles(pid).filter(|path| path.starts_with('/')).collect()
}

/// Something that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    inode: u64,
}

/// Every TCP socket that listens.
pub(crate) fn list_listeners() -> Result<Vec<Listener>> {
    let mut all = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        // A kernel without IPv6 has no such table.
        // Each read costs the kernel a walk through it.
        let mut text = String::with_capacity(1 << 16);
        let read = File::open(table).and_then(|mut file| file.read_to_string(&mut text));
        if read.is_err() {
            continue;
        }
        all.extend(text.lines().skip(1).filter_map(parse_listener));
    }
    Ok(all)
}

fn parse_listener(line: &str) -> Option<Listener> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    if *fields.get(3)? != LISTENING {
        return None;
    }
    Some(Listener { address: parse_address(fields[1])?, inode: fields.get(9)?.parse().ok()? })
}

/// `0100007F:15B3`: each four bytes in the machine's own order.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let words: Vec<[u8; 4]> = ip
        .as_bytes()
        .chunks(8)
        .map(|word| {
            let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
            Some(word.to_ne_bytes())
        })
        .collect::<Option<_>>()?;
    let ip: IpAddr = match words.as_slice() {
        [word] => Ipv4Addr::from(*word).into(),
        [_, _, _, _] => {
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Ipv6Addr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// Who holds these sockets: one look through all processes. Only root sees those of others.
pub(crate) fn find_holders(listeners: &[Listener]) -> BTreeMap<SocketAddr, Process> {
    let mut holders = BTreeMap::new();
    for pid in all_processes() {
        let inode = |target: String| target.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok();
        for inode in open_handles(pid).filter_map(inode) {
            for listener in listeners.iter().filter(|one| one.inode == inode) {
                // The parent comes before its children, which have the same sockets.
                holders
                    .entry(listener.address)
                    .or_insert_with(|| Process { pid, name: program_of(pid).unwrap_or_else(|| "?".into()) });
            }
        }
    }
    holders
}

/// When something at a path last changed, in content or otherwise; the newest of a link and what it leads to.
pub(crate) fn changed_time(path: &str) -> Result<Option<SystemTime>> {
    let own = match fs::symlink_metadata(path) {
        Ok(data) => data,
        Err(why) if matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(why) => return Err(why).with_context(|| format!("can't look at {path}")),
    };
    let mut newest = latest_time(&own);
    if own.is_symlink()
        && let Ok(data) = fs::metadata(path)
        && data.is_file()
    {
        newest = newest.max(latest_time(&data));
    }
    Ok(Some(newest))
}

fn latest_time(data: &fs::Metadata) -> SystemTime {
    let seconds = u64::try_from(data.ctime()).unwrap_or(0);
    let nanoseconds = u32::try_from(data.ctime_nsec()).unwrap_or(0);
    UNIX_EPOCH + Duration::new(seconds, nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_words() {
        let mut child = std::process::Command::new("sleep").args(["--", "60"]).spawn().unwrap();
        // It may not have become the program yet.
        let begin = std::time::Instant::now();
        while command_words(child.id()).is_none_or(|words| words != ["sleep", "--", "60"]) {
            assert!(begin.elapsed().as_secs() < 10, "{:?}", command_words(child.id()));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_name_with_anything_in_it_does_not_shift_the_fields() {
        let stat = "12 (a) b ) S 7 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2";
        assert_eq!(stat_field(stat, 4), Some(7));
        assert_eq!(stat_field(stat, 22), Some(98765));
        assert_eq!(stat_field("", 22), None);
        let read = parse_stat(stat).unwrap();
        assert_eq!((read.parent, read.state), (7, 'S'));
        assert_eq!(read.busy, Duration::from_millis(110));
    }

    #[test]
    fn this_process_started_a_moment_ago() {
        let age = start_time(std::process::id()).unwrap().elapsed().unwrap();
        assert!(age < Duration::from_secs(600), "{age:?}");
        assert_eq!(start_time(u32::MAX), None);
        assert_eq!(account_of(std::process::id()), Some(nix::unistd::geteuid().as_raw()));
        assert_eq!(account_of(u32::MAX), None);
        let file = tempfile::NamedTempFile::new().unwrap();
        let written = changed_time(file.path().to_str().unwrap()).unwrap().unwrap();
        assert!(written > start_time(std::process::id()).unwrap());
        assert_eq!(changed_time("/no/such/file").unwrap(), None);
    }

    #[test]
    fn a_tree_is_a_process_and_all_below_it() {
        let mut child = std::process::Command::new("sh").args(["-c", "sleep 60 & wait"]).spawn().unwrap();
        // Other tests of this process have children, too.
        let (table, sleeper) = loop {
            let table = Table::read();
            let sleeper = table.children(child.id()).next();
            if let Some(sleeper) = sleeper {
                break (table, sleeper);
            }
        };
        let memory = table.memory(std::process::id());
        assert!(memory.is_some_and(|bytes| bytes > 0));
        let tree = table.tree(std::process::id());
        assert_eq!(tree[0], std::process::id());
        assert!(tree.contains(&child.id()));
        assert!(tree.contains(&sleeper));
        for pid in [sleeper, child.id()] {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
        }
        child.wait().unwrap();
        assert!(Table::read().tree(u32::MAX).is_empty());
    }

    #[test]
    fn addresses_are_read_as_the_kernel_writes_them() {
        let read = |text: &str| parse_address(text).map(|address| address.to_string());
        assert_eq!(read("0100007F:15B3").as_deref(), Some("127.0.0.1:5555"));
        assert_eq!(read("00000000:01BB").as_deref(), Some("0.0.0.0:443"));
        let six = "00000000000000000000000001000000:0050";
        assert_eq!(read(six).as_deref(), Some("[::1]:80"));
        let any = "00000000000000000000000000000000:0050";
        assert_eq!(read(any).as_deref(), Some("[::]:80"));
        assert_eq!(read("0100007F"), None);
        assert_eq!(read("xx:1"), None);
    }

    #[test]
    fn a_listener_of_our_own_is_found_with_its_holder() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let all = list_listeners().unwrap();
        let ours: Vec<Listener> = all.into_iter().filter(|one| one.address == address).collect();
        assert_eq!(find_holders(&ours)[&address].pid, std::process::id());
    }
}
