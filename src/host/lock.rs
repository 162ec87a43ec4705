//! Locks between runs.

use crate::base::error::Exit;
use crate::host::Host;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, Flock, FlockArg, OFlag, fcntl, openat};
use nix::sys::stat::Mode;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// To make the program's directory takes far less.
pub(crate) const LONGEST_TURN: Duration = Duration::from_secs(5);

/// A turn at a directory: who wants one at the same time waits here, but not for ever.
pub(crate) fn wait_turn(host: &Host, base: &str) -> Result<Flock<OwnedFd>> {
    let handle = host.directory(base)?.with_context(|| format!("{} is not a directory", host.outside(base)))?;
    let readable = openat(&handle, ".", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let begin = Instant::now();
    let mut handle = readable;
    loop {
        handle = match Flock::lock(handle, FlockArg::LockExclusiveNonblock) {
            Ok(turn) => return Ok(turn),
            // Everybody who may read the directory can hold this lock, for as long as it likes.
            Err((_, Errno::EWOULDBLOCK)) if begin.elapsed() > LONGEST_TURN => {
                return Err(Exit::Locked.because(format!(
                    "another process holds a lock on {}; end it (`lslocks` shows it) and run again",
                    host.outside(base)
                )));
            }
            Err((handle, Errno::EWOULDBLOCK)) => handle,
            Err((_, why)) => {
                return Err(why).with_context(|| format!("can't lock {}", host.outside(base)));
            }
        };
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The process that holds a lock on a file, if one does.
pub(crate) fn lock_holder(lock: &File) -> Result<Option<i32>> {
    let mut found = lock_request();
    found.l_type = nix::libc::F_WRLCK as i16;
    fcntl(lock, FcntlArg::F_GETLK(&mut found))?;
    Ok((i32::from(found.l_type) != nix::libc::F_UNLCK).then_some(found.l_pid))
}

pub(crate) fn lock_request() -> nix::libc::flock {
    nix::libc::flock { l_type: 0, l_whence: nix::libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 }
}
