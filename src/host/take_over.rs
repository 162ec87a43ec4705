//! Programs that a command becomes, or that have its terminal: what is not run to its end for its output.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};

/// The process becomes this program; comes back only with why it could not.
pub(crate) fn become_program(program: &str, prepare: impl FnOnce(&mut Command)) -> io::Error {
    let mut command = Command::new(program);
    prepare(&mut command);
    command.exec()
}

/// An editor or the like, with the terminal, to its end.
pub(crate) fn run_on_terminal(program: &str, prepare: impl FnOnce(&mut Command)) -> io::Result<ExitStatus> {
    let mut command = Command::new(program);
    prepare(&mut command);
    command.stdin(Stdio::inherit()).status()
}
