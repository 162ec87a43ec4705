//! A program of another account, in the place of this one, that has no terminal of root's: whoever has a terminal open
//! can read what is typed into it, and type into it (TIOCSTI).
//!
//! Each of its standard descriptors that would be a terminal is one of its own, and this program carries what is written
//! there to root's. Only where its input is a terminal, what is typed is carried to it. What else it is given, a file or a
//! pipe, it has as it is.

use crate::base::{kernel, terminal};
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::termios::{OutputFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{Pid, close, tcgetpgrp};
use rustix::termios::{tcgetwinsize, tcsetwinsize};
use std::fs::{self, File};
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::time::Duration;
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;

const SETSID: &str = "/usr/bin/setsid";
const LARGEST_PIECE: usize = 1 << 16;
const PAUSE: Duration = Duration::from_millis(5);

/// What the program is given as its standard input, output and error, if it may have them.
#[derive(Debug)]
pub(crate) struct StandardStreams {
    input: File,
    output: File,
    complaint: File,
}

impl StandardStreams {
    /// What this program has itself.
    pub(crate) fn ours() -> Result<StandardStreams> {
        let [input, output, complaint] = terminal::copy_streams()?.map(File::from);
        Ok(StandardStreams { input, output, complaint })
    }

    /// The terminal on which is shown what the program writes to its own.
    fn shown_on(&self) -> Option<&File> {
        let all = [&self.output, &self.complaint, &self.input];
        all.into_iter().find(|file| file.is_terminal())
    }
}

/// Runs a program to its end. `with` gives it its arguments, environment and directory; it is expected to change the
/// account.
pub(crate) async fn run_apart(
    given: StandardStreams,
    program: &str,
    with: impl FnOnce(&mut Command),
) -> Result<ExitStatus> {
    close_terminals();
    let typed = given.input.is_terminal();
    let mut command = Command::new(SETSID);
    if typed {
        // So that Ctrl-C and a change of the window's size reach whom they concern.
        command.arg("--ctty");
    }
    command.arg("--").arg(program);
    with(&mut command);
    let own = given.shown_on().map(|shown| Own::like(shown, typed)).transpose()?;
    let end = |file: &File| match &own {
        Some(own) if file.is_terminal() => own.theirs.try_clone(),
        _ => file.try_clone().map(OwnedFd::from),
    };
    command.stdin(end(&given.input)?).stdout(end(&given.output)?).stderr(end(&given.complaint)?);
    let child = tokio::process::Command::from(command).spawn().with_context(|| format!("can't start {SETSID}"))?;
    match own {
        Some(own) => own.carry(child, &given, typed).await,
        None => run_without_terminal(child).await,
    }
}

/// Its exit code as a shell tells it.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// A shell may have left more open than the three.
fn close_terminals() {
    let handles = fs::read_dir("/proc/self/fd").into_iter().flatten();
    let numbers: Vec<i32> = handles
        .filter_map(|handle| {
            let path = handle.ok()?.path();
            let target = fs::read_link(&path).ok()?;
            let target = target.to_str()?;
            let is_terminal = ["/dev/tty", "/dev/pts/", "/dev/console"].iter().any(|begin| target.starts_with(begin));
            let number = path.file_name()?.to_str()?.parse().ok()?;
            (is_terminal && number > 2 && !is_closed_on_exec(number)).then_some(number)
        })
        .collect();
    for number in numbers {
        let _ = close(number);
    }
}

/// As the kernel shows it: what this program itself has opened is closed anyway.
fn is_closed_on_exec(number: i32) -> bool {
    let info = kernel::read_process("self", &format!("fdinfo/{number}")).unwrap_or_default();
    let flags = kernel::value_of(&info, "flags:").and_then(|flags| i32::from_str_radix(flags, 8).ok());
    flags.is_some_and(|flags| flags & OFlag::O_CLOEXEC.bits() != 0)
}

/// Without any terminal: what this program is told by signals is passed on.
async fn run_without_terminal(mut child: Child) -> Result<ExitStatus> {
    let mut told = EndSignals::listen()?;
    loop {
        tokio::select! {
            status = child.wait() => return Ok(status?),
            signal = told.next() => pass_on(&child, signal, None),
        }
    }
}

/// To the program and what it has started, and on a terminal to whoever is in its foreground.
fn pass_on(child: &Child, signal: Signal, terminal: Option<&OwnedFd>) {
    let Some(leader) = child.id().and_then(|pid| i32::try_from(pid).ok()) else {
        return;
    };
    let leader = Pid::from_raw(leader);
    let foreground =
        terminal.and_then(|terminal| tcgetpgrp(terminal).ok()).filter(|group| group.as_raw() > 0 && *group != leader);
    if let Some(foreground) = foreground {
        let _ = killpg(foreground, signal);
        if matches!(signal, Signal::SIGINT | Signal::SIGQUIT) {
            return;
        }
    }
    // Before it has its session there is no such group yet.
    if killpg(leader, signal).is_err() {
        let _ = kill(leader, signal);
    }
}

/// The signals that ask for an end.
struct EndSignals {
    interrupts: tokio::signal::unix::Signal,
    quits: tokio::signal::unix::Signal,
    ends: tokio::signal::unix::Signal,
    hang_ups: tokio::signal::unix::Signal,
}

impl EndSignals {
    fn listen() -> Result<EndSignals> {
        Ok(EndSignals {
            interrupts: signal(SignalKind::interrupt())?,
            quits: signal(SignalKind::quit())?,
            ends: signal(SignalKind::terminate())?,
            hang_ups: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupts.recv() => Signal::SIGINT,
            _ = self.quits.recv() => Signal::SIGQUIT,
            _ = self.ends.recv() => Signal::SIGTERM,
            _ = self.hang_ups.recv() => Signal::SIGHUP,
        }
    }
}

/// A terminal of its own, with both its ends.
struct Own {
    ours: OwnedFd,
    theirs: OwnedFd,
}

impl Own {
    /// As large as root's, and behaving like it.
    fn like(shown: &File, typed: bool) -> Result<Own> {
        let mut settings = tcgetattr(shown)?;
        if !typed {
            // Root's terminal does it, which is left as it is then.
            settings.output_flags.remove(OutputFlags::OPOST);
        }
        let pair = openpty(None, &settings).context("can't get a terminal for the program")?;
        for end in [&pair.master, &pair.slave] {
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        }
        fcntl(&pair.master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let own = Own { ours: pair.master, theirs: pair.slave };
        copy_size(shown, &own.ours);
        Ok(own)
    }

    /// Carries what is written and typed until the program has ended and all that it wrote is shown.
    async fn carry(self, mut child: Child, given: &StandardStreams, typed: bool) -> Result<ExitStatus> {
        let Some(shown) = given.shown_on() else {
            return Ok(child.wait().await?);
        };
        // Held open: a program that closes its terminal may come back to it.
        let Own { ours, theirs: _theirs } = self;
        let raw = typed.then(|| Raw::set(&given.input)).transpose()?;
        if typed {
            let (keys, ours) = (given.input.try_clone()?, ours.try_clone()?);
            // It waits for the next key when all is over, and nobody waits for it.
            std::thread::spawn(move || carry_keys(keys, &ours));
        }
        let (over, end) = io::pipe()?;
        let (written, shown_on) = (ours.try_clone()?, shown.try_clone()?);
        let carrying = spawn_blocking(move || carry_written(&written, &over, &shown_on));
        let mut told = EndSignals::listen()?;
        let mut sizes = signal(SignalKind::window_change())?;
        let mut continued = signal(SignalKind::from_raw(Signal::SIGCONT as i32))?;
        let status = loop {
            tokio::select! {
                status = child.wait() => break status?,
                signal = told.next() => pass_on(&child, signal, Some(&ours)),
                _ = sizes.recv() => copy_size(shown, &ours),
                // A shell that stopped this program has set the terminal as the shell needs it.
                _ = continued.recv() => if let Some(raw) = &raw { let _ = raw.apply(); },
            }
        };
        drop(end);
        carrying.await?;
        Ok(status)
    }
}

/// What the program writes, to root's terminal; until the other end of `over` is closed, and then what is left. What the
/// program has left behind may hold its terminal open for ever.
fn carry_written(ours: &OwnedFd, over: &io::PipeReader, shown: &File) {
    let mut piece = vec![0; LARGEST_PIECE];
    let mut is_open = true;
    loop {
        let at_end = PollFd::new(over.as_fd(), PollFlags::POLLIN);
        let written = PollFd::new(ours.as_fd(), PollFlags::POLLIN);
        let mut watched = [at_end, written];
        // One that was hung up would be ready for ever.
        let count = if is_open { 2 } else { 1 };
        let _ = poll(&mut watched[..count], PollTimeout::NONE);
        let is_over = watched[0].any().unwrap_or(true);
        loop {
            match nix::unistd::read(ours, &mut piece) {
                Ok(size @ 1..) => write_shown(shown, &piece[..size]),
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                _ => {
                    is_open = false;
                    break;
                }
            }
            if !is_over {
                break;
            }
        }
        if is_over {
            return;
        }
    }
}

/// What is typed, to the program. Root's terminal is also others', so it can't be told not to wait.
fn carry_keys(mut keys: File, ours: &OwnedFd) {
    let mut piece = vec![0; LARGEST_PIECE];
    loop {
        let mut typed = match keys.read(&mut piece) {
            Ok(size @ 1..) => &piece[..size],
            Err(why) if why.kind() == ErrorKind::Interrupted => continue,
            _ => return,
        };
        while !typed.is_empty() {
            match nix::unistd::write(ours, typed) {
                Ok(written) => typed = &typed[written..],
                Err(Errno::EINTR) => {}
                // The program has not read yet what was typed before.
                Err(Errno::EAGAIN) => {
                    let mut room = [PollFd::new(ours.as_fd(), PollFlags::POLLOUT)];
                    let _ = poll(&mut room, PollTimeout::NONE);
                }
                Err(_) => return,
            }
        }
    }
}

/// All of it. Where nobody reads it any more, the program is not held up for that.
fn write_shown(mut shown: &File, mut text: &[u8]) {
    while !text.is_empty() {
        match shown.write(text) {
            Ok(0) => return,
            Ok(written) => text = &text[written..],
            Err(why) if why.kind() == ErrorKind::Interrupted => {}
            // Somebody else told root's terminal not to wait.
            Err(why) if why.kind() == ErrorKind::WouldBlock => std::thread::sleep(PAUSE),
            Err(_) => return,
        }
    }
}

fn copy_size(shown: &File, own: &OwnedFd) {
    if let Ok(size) = tcgetwinsize(shown) {
        let _ = tcsetwinsize(own, size);
    }
}

/// Root's terminal while each key goes to the program as it is, and as it was before from the end of this on.
struct Raw {
    terminal: File,
    before: Termios,
}

impl Raw {
    fn set(terminal: &File) -> Result<Raw> {
        let raw = Raw { before: tcgetattr(terminal)?, terminal: terminal.try_clone()? };
        raw.apply()?;
        Ok(raw)
    }

    fn apply(&self) -> Result<()> {
        let mut settings = self.before.clone();
        cfmakeraw(&mut settings);
        Ok(tcsetattr(&self.terminal, SetArg::TCSADRAIN, &settings)?)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, SetArg::TCSADRAIN, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::pty::{OpenptyResult, Winsize};
    use std::os::fd::AsRawFd;
    use std::sync::{Arc, Mutex};
    use std::time::Instant;

    const STRANGER: u32 = 64_242;
    /// What is open in this process is the same for all tests.
    static TURN: Mutex<()> = Mutex::new(());

    /// Root's terminal, as who sits at it sees it.
    struct Sitting {
        master: File,
        slave: File,
        seen: Arc<Mutex<Vec<u8>>>,
    }

    impl Sitting {
        fn down() -> Sitting {
            let size = Winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 };
            let OpenptyResult { master, slave } = openpty(&size, None).unwrap();
            for end in [&master, &slave] {
                fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
            }
            let mut reader = File::from(master.try_clone().unwrap());
            let seen = Arc::new(Mutex::new(Vec::new()));
            let all = seen.clone();
            std::thread::spawn(move || {
                let mut piece = [0; 4096];
                while let Ok(size @ 1..) = reader.read(&mut piece) {
                    all.lock().unwrap().extend_from_slice(&piece[..size]);
                }
            });
            Sitting { master: master.into(), slave: slave.into(), seen }
        }

        fn terminal(&self) -> File {
            self.slave.try_clone().unwrap()
        }

        fn types(&self, text: &str) {
            (&self.master).write_all(text.as_bytes()).unwrap();
        }

        fn sees(&self) -> String {
            String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
        }

        fn waits_for(&self, text: &str) {
            let begin = Instant::now();
            while !self.sees().contains(text) {
                assert!(begin.elapsed().as_secs() < 20, "no {text:?} in {}", self.sees());
                std::thread::sleep(PAUSE);
            }
        }
    }

    fn turn() -> std::sync::MutexGuard<'static, ()> {
        TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn run(given: StandardStreams, script: &str) -> ExitStatus {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let status = runtime.block_on(run_apart(given, "/usr/bin/setpriv", |command| {
            if nix::unistd::geteuid().is_root() {
                command.args([format!("--reuid={STRANGER}"), format!("--regid={STRANGER}")]);
                command.arg("--clear-groups");
            }
            // A shell can't trap what is ignored where the tests run in the background.
            let env = ["--", "/usr/bin/env", "--default-signal=INT,QUIT"];
            command.args(env).args(["/bin/sh", "-c", script]);
        }));
        runtime.shutdown_background();
        status.unwrap()
    }

    fn nowhere() -> File {
        File::open("/dev/null").unwrap()
    }

    fn file() -> File {
        tempfile::tempfile().unwrap()
    }

    #[test]
    fn what_root_types_is_not_for_others_where_input_comes_from_elsewhere() {
        let _turn = turn();
        let script = "for at in /proc/self/fd/1 /proc/self/fd/2 /dev/tty; do { timeout 0.4 head -n 1 < $at; } 2> /dev/null; done; timeout 0.4 head -n 1 <&1; timeout 0.4 head -n 1 <&2; ls -l /proc/$$/fd; exit 3";
        for (output, complaint) in [(true, true), (true, false), (false, true)] {
            let root = Sitting::down();
            let of = |terminal: bool| if terminal { root.terminal() } else { file() };
            let given = StandardStreams { input: nowhere(), output: of(output), complaint: of(complaint) };
            let written = given.output.try_clone().unwrap();
            // A shell of root's may have its terminal open besides.
            let besides = root.terminal();
            fcntl(&besides, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
            std::mem::forget(besides);
            root.types("hush\nhush\nhush\n");
            let name = fs::read_link(format!("/proc/self/fd/{}", root.slave.as_raw_fd())).unwrap();
            let status = run(given, script);
            assert_eq!(exit_code(status), 3);
            let mut told = String::new();
            if output {
                root.waits_for("total");
                // Whoever types sees it at once, by root's own terminal.
                told = root.sees().replacen("hush\r\n", "", 3);
            } else {
                let mut written = written;
                io::Seek::rewind(&mut written).unwrap();
                written.read_to_string(&mut told).unwrap();
            }
            assert!(told.contains("total"), "{told}");
            assert!(!told.contains("hush"), "{told}");
            assert!(!told.contains(name.to_str().unwrap()), "{told}");
            // It is still there for whom it was typed.
            let mut line = [0; 16];
            let size = root.terminal().read(&mut line).unwrap();
            assert_eq!(&line[..size], b"hush\n");
        }
    }

    #[test]
    fn a_terminal_is_like_roots_and_all_that_is_written_arrives() {
        let _turn = turn();
        let root = Sitting::down();
        let given = StandardStreams { input: root.terminal(), output: root.terminal(), complaint: file() };
        let mut complaint = given.complaint.try_clone().unwrap();
        let before = tcgetattr(&root.slave).unwrap();
        let typing = std::thread::spawn({
            let again = Sitting {
                master: root.master.try_clone().unwrap(),
                slave: root.slave.try_clone().unwrap(),
                seen: root.seen.clone(),
            };
            move || {
                again.waits_for("33 77");
                again.types("a line\n");
                again.waits_for("read a line");
                let size = rustix::termios::Winsize { ws_row: 44, ws_col: 88, ws_xpixel: 0, ws_ypixel: 0 };
                tcsetwinsize(&again.slave, size).unwrap();
                // This process is not in the foreground of that terminal, so that nobody else tells it.
                kill(nix::unistd::getpid(), Signal::SIGWINCH).unwrap();
                again.waits_for("44 88");
                again.types("\x03");
            }
        });
        let script = "trap 'seq 30000; exit 7' INT; echo complaint >&2; tty; stty size; read line; echo read $line; trap 'stty size' WINCH; while [ \"$(stty size)\" = '33 77' ]; do sleep 0.05; done; while :; do sleep 0.05; done";
        let status = run(given, script);
        typing.join().unwrap();
        assert_eq!(exit_code(status), 7);
        root.waits_for("\r\n30000\r\n");
        let all = root.sees();
        for number in [2, 9_999, 29_999] {
            assert!(all.contains(&format!("\r\n{number}\r\n")), "{number}");
        }
        assert!(tcgetattr(&root.slave).unwrap() == before);
        let mut text = String::new();
        io::Seek::rewind(&mut complaint).unwrap();
        complaint.read_to_string(&mut text).unwrap();
        assert_eq!(text, "complaint\n");
    }

    #[test]
    fn without_a_terminal_it_has_what_it_is_given() {
        let _turn = turn();
        let (mut input, output) = (file(), file());
        input.write_all(b"piped\n").unwrap();
        io::Seek::rewind(&mut input).unwrap();
        let mut written = output.try_clone().unwrap();
        let given = StandardStreams { input, output, complaint: nowhere() };
        let status = run(given, "cat; tty; cat < /dev/tty && exit 1; kill -TERM $$");
        assert_eq!(exit_code(status), 128 + 15);
        let mut text = String::new();
        io::Seek::rewind(&mut written).unwrap();
        written.read_to_string(&mut text).unwrap();
        assert_eq!(text, "piped\nnot a tty\n");
    }
}
