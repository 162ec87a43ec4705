//! `traceback`: where each thread of a service is at this moment, for one that is stuck.
//!
//! The processes tell it themselves, by what templates/sitecustomize.py.hbs prepares in each: no debugger is needed, and
//! a process that waits for something outside of Python tells it too. Places in the code are told, no values.

use super::services::{is_chosen, known, refuse_unknown};
use super::{load_site, need_machine};
use crate::base::error::Exit;
use crate::base::kernel;
use crate::base::report::Report;
use crate::base::terminal;
use crate::cli::{Global, Services};
use crate::drivers::services::member::ServiceRole;
use crate::host::named_file::open_at_once;
use crate::host::processes::{self, Table};
use anyhow::{Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use serde_json::json;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// What the processes were told to listen to.
const SIGNAL: Signal = Signal::SIGSTKFLT;
/// Into which they write, as the kernel shows it.
const MEMORY: &str = "/memfd:camcops-traceback (deleted)";
/// How long a process may take to begin.
const PATIENCE: Duration = Duration::from_secs(2);
/// For so long it has added nothing when it has come to its end.
const SILENCE: Duration = Duration::from_millis(60);
const PAUSE: Duration = Duration::from_millis(5);
/// What a process has and tells is its own affair: no more of it is read, for no longer than this, and all together have
/// no longer than that.
const MOST_HANDLES: usize = 1 << 16;
const LARGEST_ANSWER: u64 = 1 << 20;
const LONGEST_ANSWER: Duration = Duration::from_secs(5);
const ALL_ANSWERS: Duration = Duration::from_secs(60);

#[derive(Debug, Serialize)]
struct TracedProcess {
    service: String,
    pid: u32,
    program: Option<String>,
    /// As the kernel has it: R runs, S sleeps, D waits for a disk or the like, T is stopped.
    state: char,
    /// The one that tells where it is comes first.
    threads: Vec<Thread>,
    /// Why it does not tell.
    trouble: Option<String>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Thread {
    /// The most recent call first.
    frames: Vec<Frame>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Frame {
    file: String,
    line: u32,
    function: String,
}

pub(crate) async fn run(global: &Global, flags: &Services) -> Result<Report> {
    need_machine(global, "examine the services")?;
    let site = load_site(global)?;
    refuse_unknown(&site, &flags.services)?;
    let known = known(&site)?;
    let seen = known.see(&site.host)?;
    let table = Table::read();
    let mut all = Vec::new();
    let begin = Instant::now();
    for member in &known.members {
        if member.role == ServiceRole::Socket || !is_chosen(member, &flags.services) {
            continue;
        }
        let root = seen.get(&member.name).and_then(|seen| seen.pid);
        for pid in root.map(|pid| table.tree(pid)).unwrap_or_default() {
            let told = match table.get(pid).map(|stat| stat.state) {
                Some('T' | 't') => Err(anyhow!("it was stopped by a signal; continue it with `kill -CONT {pid}`")),
                _ if begin.elapsed() > ALL_ANSWERS => {
                    Err(anyhow!("not asked: the processes before it took too long; name its service to ask it alone"))
                }
                _ => ask_process(pid).await,
            };
            let (threads, trouble) = match told {
                Ok(text) => (parse_threads(&text), None),
                Err(why) => (Vec::new(), Some(why.to_string())),
            };
            all.push(TracedProcess {
                service: member.service.clone().unwrap_or_default(),
                pid,
                program: processes::program_of(pid).map(|name| terminal::strip_controls(&name)),
                state: table.get(pid).map_or('?', |stat| stat.state),
                threads,
                trouble,
            });
        }
    }
    if all.is_empty() {
        return Err(Exit::Unreachable.because("none of these services is running: see `camcops-provision status`"));
    }
    let failed = all.iter().all(|process| process.trouble.is_some());
    Ok(Report::new(json!({ "instance": site.instance, "processes": all }))
        .with_text(all.iter().map(format_process).collect::<String>())
        .with_code(if failed { Exit::Failed as u8 } else { 0 }))
}

/// What a process says where it is, or why it does not.
async fn ask_process(pid: u32) -> Result<String> {
    let gone = || anyhow!("it has ended");
    let status = kernel::read_process(pid, "status").ok_or_else(gone)?;
    let memory = open_memory(pid);
    // Whoever does not listen would die of the signal.
    let (true, Some(file)) = (is_listening(&status), memory) else {
        bail!(
            "no answer: it is not a Python process of CamCOPS, or it started before an upgrade of camcops-provision (then restart the service)"
        );
    };
    let before = file.metadata().map_err(|_| gone())?.size();
    kill(Pid::from_raw(pid as i32), SIGNAL).map_err(|_| gone())?;
    let text = read_added(file, before, LONGEST_ANSWER).await?;
    if text.is_empty() {
        let place = match kernel::read_process(pid, "wchan").unwrap_or_default().as_str() {
            "" | "0" => String::new(),
            place => format!(" in {place}"),
        };
        bail!("it does not answer: the kernel holds it{place}; a disk or a network share may hang");
    }
    Ok(text)
}

/// What comes to stand in a file behind this position, until nothing more comes; nothing if it does not begin in time.
/// Of what never ends, the beginning.
async fn read_added(mut file: File, before: u64, longest: Duration) -> io::Result<String> {
    let asked = Instant::now();
    let (mut last, mut changed) = (before, asked);
    loop {
        sleep(PAUSE).await;
        let now = file.metadata()?.size();
        if now != last {
            (last, changed) = (now, Instant::now());
        }
        let is_over = last > before && changed.elapsed() > SILENCE;
        let is_too_much = last.saturating_sub(before) > LARGEST_ANSWER;
        if is_over || is_too_much || asked.elapsed() > longest {
            break;
        }
        if last == before && asked.elapsed() > PATIENCE {
            return Ok(String::new());
        }
    }
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(before))?;
    file.take(LARGEST_ANSWER).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether a process has said what is to be done on the signal.
fn is_listening(status: &str) -> bool {
    kernel::has_signal(status, "SigCgt:", SIGNAL)
}

/// Opened so that nothing that the process may have put in its place meanwhile holds this one up.
fn open_memory(pid: u32) -> Option<File> {
    let is_it = |path: &Path| fs::read_link(path).is_ok_and(|target| target.as_os_str() == MEMORY);
    let handles = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let path = handles.take(MOST_HANDLES).filter_map(|handle| Some(handle.ok()?.path())).find(|path| is_it(path))?;
    let file = open_at_once(&path).ok()?;
    let ours = format!("/proc/self/fd/{}", file.as_raw_fd());
    let is_file = file.metadata().is_ok_and(|found| found.is_file());
    (is_file && is_it(Path::new(&ours))).then_some(file)
}

/// `Thread 0x… (most recent call first):`, and below it `  File "…", line 1 in name`
fn parse_threads(text: &str) -> Vec<Thread> {
    let mut threads = Vec::new();
    for line in text.lines() {
        if line.ends_with("(most recent call first):") {
            threads.push(Thread { frames: Vec::new() });
        } else if let (Some(frame), Some(thread)) = (parse_frame(line), threads.last_mut()) {
            thread.frames.push(frame);
        }
    }
    threads.reverse();
    threads
}

fn parse_frame(line: &str) -> Option<Frame> {
    let (file, rest) = line.trim_start().strip_prefix("File \"")?.rsplit_once("\", line ")?;
    let (number, function) = rest.split_once(" in ")?;
    Some(Frame {
        file: terminal::strip_controls(file),
        line: number.parse().ok()?,
        function: terminal::strip_controls(function),
    })
}

fn format_process(process: &TracedProcess) -> String {
    let mut text = format!(
        "{} process {} ({}), state {}",
        process.service,
        process.pid,
        process.program.as_deref().unwrap_or("?"),
        process.state
    );
    if let Some(trouble) = &process.trouble {
        let _ = writeln!(text, ": {trouble}");
    } else {
        text.push('\n');
    }
    for (at, thread) in process.threads.iter().enumerate() {
        if at > 0 {
            text.push_str("  another thread\n");
        }
        for frame in &thread.frames {
            // Where the packages of the release are is the same in every line.
            let file = frame.file.rsplit("/site-packages/").next();
            let file = file.unwrap_or(&frame.file);
            let _ = writeln!(text, "    {file}:{} {}", frame.line, frame.function);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_read_with_the_one_that_answered_first() {
        let text = "Thread 0x1 (most recent call first):\n  File \"/a b.py\", line 7 in wait\n\nCurrent thread 0x2 (most recent call first):\n  File \"/c.py\", line 12 in <module>\n  ...\n";
        let threads = parse_threads(text);
        assert_eq!(threads.len(), 2);
        assert_eq!(threads[0].frames.len(), 1);
        assert_eq!(threads[0].frames[0].function, "<module>");
        assert_eq!(threads[1].frames, [Frame { file: "/a b.py".into(), line: 7, function: "wait".into() }]);
        assert_eq!(parse_threads("nothing"), []);
    }

    #[tokio::test]
    async fn who_lies_is_read_for_a_while_only() {
        let told = |script: &str| {
            let file = tempfile::tempfile_in("/dev/shm").unwrap();
            let place = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
            let child = std::process::Command::new("sh").args(["-c", script, "sh", &place]).spawn().unwrap();
            (file, child)
        };
        let begin = Instant::now();
        for (script, most) in [
            // 2 TB of nothing.
            ("truncate --size=2T $1; sleep 60", LARGEST_ANSWER as usize),
            // A word at a time, for ever.
            ("while :; do echo x >> $1; sleep 0.02; done", 200),
            ("echo told > $1", 5),
        ] {
            let (file, mut child) = told(script);
            let text = read_added(file, 0, Duration::from_secs(1)).await.unwrap();
            assert!(!text.is_empty() && text.len() <= most, "{}", text.len());
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert!(begin.elapsed() < Duration::from_secs(15));
        let (file, mut child) = told("true");
        assert_eq!(read_added(file, 0, LONGEST_ANSWER).await.unwrap(), "");
        child.wait().unwrap();
    }

    #[test]
    fn who_does_not_listen_is_left_in_peace() {
        assert!(is_listening("SigIgn:\t0\nSigCgt:\t0000000000008000\n"));
        assert!(!is_listening("SigCgt:\t0000000000004000\n"));
        assert!(!is_listening(""));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert!(runtime.block_on(ask_process(child.id())).unwrap_err().to_string().contains("no answer"));
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(runtime.block_on(ask_process(u32::MAX >> 1)).unwrap_err().to_string().contains("has ended"));
    }
}
