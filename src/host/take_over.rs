//! Programs that a command becomes, or that have its terminal or its output: what is not run to its end for its output.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};

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

/// A program that writes where this one does.
#[derive(Debug)]
pub(crate) struct BesideProgram {
    pub(crate) program: &'static str,
    pub(crate) arguments: Vec<String>,
}

/// One that runs, until it is ended or forgotten.
#[derive(Debug)]
pub(crate) struct RunningBeside(Child);

impl BesideProgram {
    /// Starts it, in a group of its own: an interrupt from the keyboard is for this program.
    pub(crate) fn start(self) -> io::Result<RunningBeside> {
        let mut command = Command::new(self.program);
        command.args(self.arguments).stdin(Stdio::null()).process_group(0);
        command.spawn().map(RunningBeside)
    }
}

impl RunningBeside {
    /// Ends it, if it has not ended by itself.
    pub(crate) fn end(&mut self) {
        // Either fails only for one that has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for RunningBeside {
    fn drop(&mut self) {
        self.end();
    }
}
