//! This very program, asked as another account.

use super::child::command_as;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::process::Stdio;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// What it says without a terminal, wherever its file is and even if that is being replaced, up to so many bytes. Others
/// of that account could make it say anything.
pub(crate) async fn ask_as((uid, gid): (u32, u32), arguments: &[&str], most: u64) -> io::Result<Vec<u8>> {
    let program = File::open("/proc/self/exe")?;
    fcntl(&program, FcntlArg::F_SETFD(FdFlag::empty()))?;
    let mut command = Command::from(command_as(uid, gid));
    let mut child = command
        .arg(format!("/proc/self/fd/{}", program.as_raw_fd()))
        .args(arguments)
        // Settings in it may be secrets, and that account could read it.
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut said = Vec::new();
    if let Some(output) = child.stdout.take() {
        output.take(most).read_to_end(&mut said).await?;
    }
    Ok(said)
}
