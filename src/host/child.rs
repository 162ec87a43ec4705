//! A program of this machine, run to its end: one way for all of them.
//!
//! What it reads and writes are files without a name in memory, not pipes. So neither side can hold the other up, and a
//! package manager goes on to a good end even if this program is killed meanwhile.

use super::Host;
use crate::base::error::Exit;
use anyhow::{Context, Result, bail};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

/// Where programs are that a restricted search path may not name.
const SYSTEM_PROGRAMS: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// An error repeats no more of a complaint than this.
const LAST_LINES: usize = 4;
/// How often lines are passed on.
const LINES: Duration = Duration::from_millis(50);
/// More than any program here has to say: what says more is another account's, or has gone wild.
const LARGEST_OUTPUT: u64 = 256 << 20;
/// How often that is looked at.
const LOOKS: Duration = Duration::from_secs(1);

/// A program that is about to run. It is never a shell, and never gets a secret as an argument.
#[derive(Debug)]
pub(crate) struct Child<'a> {
    pub(super) host: &'a Host,
    pub(super) program: &'a str,
    pub(super) command: Command,
    pub(super) input: Option<Zeroizing<Vec<u8>>>,
    patience: Option<Duration>,
}

/// How a program ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// Its standard output; its complaints too, where its lines were followed.
    pub(crate) output: String,
    pub(crate) complaint: String,
}

impl Ended {
    /// The last lines of its complaint on one line.
    pub(crate) fn last_words(&self) -> String {
        let words = match self.complaint.trim() {
            "" => &self.output,
            _ => &self.complaint,
        };
        let lines: Vec<&str> = words.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join(" / ")
    }
}

impl Host {
    /// Whether this machine has a program of this name.
    pub(crate) fn has_program(&self, name: &str) -> bool {
        #[cfg(test)]
        if let Some(is_there) = super::script::has_program(name) {
            return is_there;
        }
        which::which(name).is_ok()
    }

    /// A program of this machine, by name.
    pub(crate) fn child<'a>(&'a self, program: &'a str) -> Child<'a> {
        let mut command = Command::new(program);
        // An interrupt from the keyboard is for this program, which lets the step at hand end.
        command.process_group(0);
        self.prepared(program, command)
    }

    /// The same as another account, by its numbers. It has a session of its own, which no terminal belongs to: whoever
    /// has root's terminal can type into it.
    pub(crate) fn child_of<'a>(&'a self, user: u32, group: u32, program: &'a str) -> Child<'a> {
        let mut command = command_as(user, group);
        command.arg(program);
        self.prepared(program, command)
    }

    /// A program that goes on as another account by itself, or starts what does: in a session of its own, too.
    pub(crate) fn child_apart<'a>(&'a self, program: &'a str) -> Child<'a> {
        if !self.has_program(program) || !self.has_program("setsid") {
            return self.child(program);
        }
        let mut command = Command::new("setsid");
        command.args(["--", program]);
        self.prepared(program, command)
    }

    fn prepared<'a>(&'a self, program: &'a str, mut command: Command) -> Child<'a> {
        let path = match std::env::var("PATH") {
            Ok(path) if !path.is_empty() => format!("{path}:{SYSTEM_PROGRAMS}"),
            _ => SYSTEM_PROGRAMS.to_owned(),
        };
        command.env("PATH", path).env("LC_ALL", "C.UTF-8").current_dir("/").stdin(Stdio::null());
        Child { host: self, program, command, input: None, patience: None }
    }
}

/// What a program's name and arguments are given to, to run as an account in a session of its own. Not setsid(1) after the
/// account: until then others of that account could take the process over.
pub(super) fn command_as(user: u32, group: u32) -> Command {
    let mut command = Command::new("/usr/bin/setsid");
    command.arg("/usr/bin/setpriv").args([format!("--reuid={user}"), format!("--regid={group}")]);
    command.args(["--clear-groups", "--"]);
    command
}

impl<'a> Child<'a> {
    /// With these arguments.
    pub(crate) fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Child<'a> {
        self.command.args(arguments);
        self
    }

    /// With this in its environment.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Child<'a> {
        self.command.env(name, value);
        self
    }

    /// With all of these in its environment.
    pub(crate) fn envs<N: AsRef<OsStr>, V: AsRef<OsStr>>(
        mut self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Child<'a> {
        self.command.envs(variables);
        self
    }

    /// With nothing in its environment but what it is given from here on.
    pub(crate) fn bare(mut self) -> Child<'a> {
        self.command.env_clear();
        self
    }

    pub(crate) fn directory(mut self, directory: &str) -> Child<'a> {
        self.command.current_dir(directory);
        self
    }

    /// With this to read.
    pub(crate) fn input(mut self, input: &[u8]) -> Child<'a> {
        self.input = Some(Zeroizing::new(input.to_vec()));
        self
    }

    /// With a file to read.
    pub(crate) fn stdin(mut self, file: File) -> Child<'a> {
        self.command.stdin(file);
        self
    }

    /// For no longer than this: then it is ended, and that is an error.
    pub(crate) fn patience(mut self, patience: Duration) -> Child<'a> {
        self.patience = Some(patience);
        self
    }

    /// Runs it; anything but success is an error with the end of its complaint. Gives its output.
    pub(crate) fn run(self) -> Result<String> {
        let program = self.program;
        let ended = self.end()?;
        if ended.status.success() {
            return Ok(ended.output);
        }
        bail!("{program} failed ({}): {}", ended.status, ended.last_words())
    }

    /// Runs it, however it ends.
    pub(crate) fn end(self) -> Result<Ended> {
        self.finish(None)
    }

    /// Runs it, however it ends, and passes each line on as it comes, complaints among them.
    pub(crate) fn end_telling(self, mut tell: impl FnMut(&str)) -> Result<Ended> {
        self.finish(Some(&mut tell))
    }

    /// Starts it, to go on with other things meanwhile.
    pub(crate) fn begin(self) -> Result<Begun> {
        let patience = self.patience.unwrap_or(Duration::MAX);
        let (ended, end) = oneshot::channel();
        let running = self.start(false, |status| ended.send(status).is_ok())?;
        Ok(Begun { running, end, patience })
    }

    fn finish(self, mut tell: Option<&mut dyn FnMut(&str)>) -> Result<Ended> {
        let (host, patience) = (self.host, self.patience);
        let (ended, end) = mpsc::channel();
        let running = self.start(tell.is_some(), move |status| ended.send(status).is_ok())?;
        let mut told = 0;
        loop {
            let left = patience.map(|all| all.saturating_sub(running.begin.elapsed()));
            let often = if tell.is_some() { LINES } else { LOOKS };
            let status = end.recv_timeout(left.unwrap_or(often).min(often));
            if let Err(why) = running.refuse_too_much() {
                end_group(running.group);
                let _ = end.recv();
                return Err(why);
            }
            if let Some(tell) = &mut tell {
                told += pass_on(&running.output, told, tell)?;
            }
            match status {
                Ok(status) => return running.ended(host, status),
                Err(_) if left.is_none_or(|left| !left.is_zero()) => {}
                Err(_) => {
                    let why = running.given_up();
                    let _ = end.recv();
                    return Err(why);
                }
            }
        }
    }

    /// What it reads lies ready in memory.
    pub(super) fn lay_input(&mut self) -> Result<()> {
        if let Some(input) = &self.input {
            let mut file = unnamed_file()?;
            file.write_all(input)?;
            file.rewind()?;
            self.command.stdin(file);
        }
        Ok(())
    }

    /// Starts it, with its complaints among its output if wanted; how it ended is told once it has.
    fn start(
        mut self,
        together: bool,
        tell_end: impl FnOnce(io::Result<ExitStatus>) -> bool + Send + 'static,
    ) -> Result<RunningChild> {
        let program = self.program;
        if self.host.staged_root().is_some() {
            bail!("{program} can't run for a staged tree");
        }
        let (output, complaint) = (unnamed_file()?, unnamed_file()?);
        let complaints_to = if together { &output } else { &complaint };
        self.command.stdout(output.try_clone()?).stderr(complaints_to.try_clone()?);
        self.lay_input()?;
        #[cfg(test)]
        if let Some(answer) = super::script::run(&self.command, self.input.as_deref().map(Vec::as_slice)) {
            let running = RunningChild {
                program: program.to_owned(),
                // No process has this number.
                group: u32::MAX,
                begin: Instant::now(),
                output,
                complaint,
            };
            return running.played(answer?, together, tell_end);
        }
        let mut child = self.command.spawn().map_err(|why| not_started(program, why))?;
        let group = child.id();
        std::thread::spawn(move || tell_end(child.wait()));
        Ok(RunningChild { program: program.to_owned(), group, begin: Instant::now(), output, complaint })
    }
}

pub(super) fn not_started(program: &str, why: io::Error) -> anyhow::Error {
    match why.kind() {
        io::ErrorKind::NotFound => Exit::Unreachable.because(format!("{program} is not installed on this machine")),
        _ => anyhow::Error::new(why).context(format!("can't start {program}")),
    }
}

/// A program that was started, and whose end somebody will wait for.
#[derive(Debug)]
pub(crate) struct Begun {
    running: RunningChild,
    end: oneshot::Receiver<io::Result<ExitStatus>>,
    patience: Duration,
}

impl Begun {
    /// Waits for its end, however it ends.
    pub(crate) async fn end(self, host: &Host) -> Result<Ended> {
        let ended = self.end_apart().await?;
        host.cut.after_write();
        Ok(ended)
    }

    /// The same in a task of its own.
    pub(crate) async fn end_apart(mut self) -> Result<Ended> {
        match tokio::time::timeout(self.patience, &mut self.end).await {
            Ok(status) => self.running.read_end(status?),
            Err(_) => {
                let why = self.running.given_up();
                let _ = self.end.await;
                Err(why)
            }
        }
    }
}

/// A program at work.
#[derive(Debug)]
struct RunningChild {
    program: String,
    group: u32,
    begin: Instant,
    output: File,
    complaint: File,
}

impl RunningChild {
    /// What a case says of it, in place of a process.
    #[cfg(test)]
    fn played(
        self,
        answer: super::script::Step,
        together: bool,
        tell_end: impl FnOnce(io::Result<ExitStatus>) -> bool,
    ) -> Result<RunningChild> {
        use std::os::unix::process::ExitStatusExt;
        if answer.missing {
            return Err(not_started(&self.program, io::ErrorKind::NotFound.into()));
        }
        let complaint = answer.complaint.unwrap_or_default();
        let complaints_to = if together { &self.output } else { &self.complaint };
        (&self.output).write_all(answer.output.unwrap_or_default().as_bytes())?;
        let mut complaints_to = complaints_to;
        complaints_to.write_all(complaint.as_bytes())?;
        tell_end(Ok(ExitStatus::from_raw(answer.status.unwrap_or(0) << 8)));
        Ok(self)
    }

    fn refuse_too_much(&self) -> Result<()> {
        for file in [&self.output, &self.complaint] {
            if file.metadata()?.len() > LARGEST_OUTPUT {
                return Err(too_much(&self.program));
            }
        }
        Ok(())
    }

    fn ended(self, host: &Host, status: io::Result<ExitStatus>) -> Result<Ended> {
        let ended = self.read_end(status)?;
        host.cut.after_write();
        Ok(ended)
    }

    fn read_end(self, status: io::Result<ExitStatus>) -> Result<Ended> {
        let status = status.with_context(|| format!("can't wait for {}", self.program))?;
        Ok(Ended {
            status,
            output: read_output(&self.program, &self.output)?,
            complaint: read_output(&self.program, &self.complaint)?,
        })
    }

    /// Ends it; whoever gives up waits for its end all the same, so that nobody is left behind.
    fn given_up(&self) -> anyhow::Error {
        end_group(self.group);
        Exit::Unreachable.because(format!(
            "{} did not finish within {} s",
            self.program,
            self.begin.elapsed().as_secs()
        ))
    }
}

/// Ends it and what it has started: they are a group of their own.
pub(super) fn end_group(leader: u32) {
    if let Ok(group) = i32::try_from(leader) {
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
}

pub(super) fn unnamed_file() -> Result<File> {
    let handle = memfd_create("camcops-provision", MFdFlags::MFD_CLOEXEC)?;
    Ok(File::from(handle))
}

/// Read by position: the child's own position in the file is not to be moved. Its length is what the child says it is.
pub(super) fn read_output(program: &str, file: &File) -> Result<String> {
    let size = file.metadata()?.len();
    if size > LARGEST_OUTPUT {
        return Err(too_much(program));
    }
    let mut bytes = vec![0; usize::try_from(size)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn too_much(program: &str) -> anyhow::Error {
    Exit::Unusable.because(format!(
        "{program} printed more than {} MiB and was stopped; run it by hand to see its output",
        LARGEST_OUTPUT >> 20
    ))
}

/// Passes on the whole lines from a position on, and says how many bytes they were.
fn pass_on(file: &File, from: u64, tell: &mut dyn FnMut(&str)) -> Result<u64> {
    let size = file.metadata()?.len().saturating_sub(from);
    let mut bytes = vec![0; usize::try_from(size)?];
    file.read_exact_at(&mut bytes, from)?;
    let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else {
        return Ok(0);
    };
    for line in String::from_utf8_lossy(&bytes[..end]).split(['\n', '\r']) {
        if !line.trim().is_empty() {
            tell(line.trim_end());
        }
    }
    Ok(end as u64 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_output_and_complaint_are_carried() {
        let host = Host::live().unwrap();
        let said = host.child("cat").input(b"Sesame").run().unwrap();
        assert_eq!(said, "Sesame");
        let ended = host.child("ls").args(["/nowhere"]).end().unwrap();
        assert!(!ended.status.success());
        assert!(ended.last_words().contains("/nowhere"), "{ended:?}");
        let why = host.child("ls").args(["/nowhere"]).run().unwrap_err();
        assert!(format!("{why:#}").starts_with("ls failed (exit status: 2)"));
    }

    #[test]
    fn lines_are_passed_on_whole() {
        let host = Host::live().unwrap();
        let mut lines = Vec::new();
        let ended = host
            .child("printf")
            .args(["one\n\ntwo\rthree\nrest"])
            .end_telling(|line| lines.push(line.to_owned()))
            .unwrap();
        assert_eq!(lines, ["one", "two", "three"]);
        assert!(ended.output.ends_with("rest"));
    }

    #[test]
    fn what_never_stops_talking_is_ended() {
        let host = Host::live().unwrap();
        let begin = Instant::now();
        let claim = "truncate --size=1T /proc/self/fd/1";
        for words in [
            &["sh", "-c", claim][..],
            &["sh", "-c", &format!("{claim}; sleep 60")],
            &["sh", "-c", &format!("{claim} 2>&1 >&2; sleep 60")],
        ] {
            let why = host.child(words[0]).args(&words[1..]).run().unwrap_err();
            assert!(why.to_string().contains("more than 256 MiB"), "{why}");
        }
        assert!(begin.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn another_account_has_no_terminal() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let host = Host::live().unwrap();
        let child = host.child_of(64_242, 64_243, "sh");
        let said = child.args(["-c", "id -u; id -g; id -G; cut -d ' ' -f 6,7 /proc/$$/stat; echo $$"]).run().unwrap();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(&lines[..3], ["64242", "64243", "64243"]);
        // Its session is its own, and has no terminal.
        assert_eq!(lines[3], format!("{} 0", lines[4]));
        let child = host.child_apart("sh");
        let script = "cut -d ' ' -f 6,7 /proc/$$/stat; echo $$";
        let said = child.args(["-c", script]).run().unwrap();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[0], format!("{} 0", lines[1]));
        let why = host.child_apart("no-such-program").run().unwrap_err();
        assert_eq!(Exit::of(&why), Exit::Unreachable);
    }

    #[test]
    fn what_hangs_is_ended() {
        let host = Host::live().unwrap();
        let child = host.child("sh").args(["-c", "sleep 60 & sleep 60"]);
        let begin = Instant::now();
        let why = child.patience(Duration::from_millis(200)).run().unwrap_err();
        assert_eq!(Exit::of(&why), Exit::Unreachable);
        assert!(begin.elapsed() < Duration::from_secs(10));
    }

    #[tokio::test]
    async fn what_was_begun_is_ended() {
        let host = Host::live().unwrap();
        let cat = host.child("cat").input(b"Sesame").begin().unwrap();
        let sleep = host.child("sleep").args(["60"]);
        let sleep = sleep.patience(Duration::from_millis(200)).begin().unwrap();
        let why = sleep.end(&host).await.unwrap_err();
        assert_eq!(Exit::of(&why), Exit::Unreachable);
        assert_eq!(cat.end(&host).await.unwrap().output, "Sesame");
    }

    #[test]
    fn what_is_missing_is_named() {
        let why = Host::live().unwrap().child("no-such-program").run();
        let why = why.unwrap_err();
        assert_eq!(Exit::of(&why), Exit::Unreachable);
        assert!(why.to_string().starts_with("no-such-program is not"));
    }
}
