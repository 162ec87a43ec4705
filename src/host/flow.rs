//! A program that much flows through: what it reads or writes comes by pipes, as it would not fit into memory.

use super::Host;
use super::child::{Child, Ended, end_group, not_started, read_output, unnamed_file};
use anyhow::{Context, Result, bail};
use nix::fcntl::{FcntlArg, fcntl};
use std::fs::File;
use std::os::fd::AsFd;
use std::process::{self, ChildStdin, ChildStdout, Stdio};

/// As large as everybody may have it.
const PIPE: i32 = 1 << 20;

/// A program at work. Whoever lets it go ends it.
#[derive(Debug)]
pub(crate) struct Flow {
    /// Where it reads from, until that is closed.
    pub(crate) input: Option<ChildStdin>,
    /// What it writes.
    pub(crate) output: Option<ChildStdout>,
    program: String,
    child: process::Child,
    complaint: File,
    is_over: bool,
}

/// Which ends of a program are pipes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    /// What it reads.
    Input,
    /// What it writes.
    Output,
    Both,
}

impl Child<'_> {
    /// Starts it with pipes.
    pub(crate) fn flow(mut self, ends: Ends) -> Result<Flow> {
        if self.host.staged_root().is_some() {
            bail!("{} can't run for a staged tree", self.program);
        }
        #[cfg(test)]
        if super::script::is_on() {
            bail!("no case plays a program that much flows through: {}", self.program);
        }
        let complaint = unnamed_file()?;
        self.command.stderr(complaint.try_clone()?);
        self.lay_input()?;
        if ends != Ends::Output {
            self.command.stdin(Stdio::piped());
        }
        match ends {
            // What a client says is of no use.
            Ends::Input => self.command.stdout(Stdio::null()),
            _ => self.command.stdout(Stdio::piped()),
        };
        let mut child = self.command.spawn().map_err(|why| not_started(self.program, why))?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let pipes = [input.as_ref().map(AsFd::as_fd), output.as_ref().map(AsFd::as_fd)];
        for pipe in pipes.into_iter().flatten() {
            // A pipe that stays small is only slower.
            let _ = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(PIPE));
        }
        Ok(Flow { input, output, program: self.program.to_owned(), child, complaint, is_over: false })
    }
}

impl Flow {
    /// Nothing more comes for it, and its end is waited for; anything but success is an error with the end of its
    /// complaint.
    pub(crate) fn end(mut self, host: &Host) -> Result<()> {
        let ended = self.ended(host)?;
        if ended.status.success() {
            return Ok(());
        }
        // A client of a database repeats the statement that failed, with all that is in it.
        let errors: Vec<&str> = ended.complaint.lines().filter(|line| line.starts_with("ERROR ")).collect();
        let words = match errors.is_empty() {
            true => ended.last_words(),
            false => errors.join(" / "),
        };
        bail!("{} failed ({}): {words}", self.program, ended.status)
    }

    /// The same for what went wrong with a pipe of it: its own complaint tells more than a pipe that broke.
    pub(crate) fn failed(self, host: &Host, why: anyhow::Error) -> anyhow::Error {
        match self.end(host) {
            Err(told) => told,
            Ok(()) => why,
        }
    }

    fn ended(&mut self, host: &Host) -> Result<Ended> {
        drop(self.input.take());
        drop(self.output.take());
        let status = self.child.wait().with_context(|| format!("can't wait for {}", self.program))?;
        self.is_over = true;
        host.cut().after_write();
        Ok(Ended { status, output: String::new(), complaint: read_output(&self.program, &self.complaint)? })
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        if !self.is_over {
            end_group(self.child.id());
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn what_is_written_flows_through() {
        let host = Host::live().unwrap();
        let mut cat = host.child("cat").flow(Ends::Both).unwrap();
        let mut input = cat.input.take().unwrap();
        let writer = std::thread::spawn(move || input.write_all(&vec![b'x'; 3 << 20]).unwrap());
        let mut text = String::new();
        let mut output = cat.output.take().unwrap();
        output.read_to_string(&mut text).unwrap();
        writer.join().unwrap();
        assert_eq!(text.len(), 3 << 20);
        cat.end(&host).unwrap();
    }

    #[test]
    fn its_own_complaint_is_told() {
        let host = Host::live().unwrap();
        let ls = host.child("ls").args(["/nowhere"]);
        let why = ls.flow(Ends::Output).unwrap().end(&host).unwrap_err();
        assert!(why.to_string().contains("/nowhere"), "{why}");
    }

    #[test]
    fn who_is_let_go_is_ended() {
        let host = Host::live().unwrap();
        let begin = std::time::Instant::now();
        drop(host.child("sleep").args(["60"]).flow(Ends::Input).unwrap());
        assert!(begin.elapsed().as_secs() < 10);
    }
}
