//! Looks at the command lines and the environments of a machine's processes, as often as it can, while something is done.

use super::booted::Booted;
use super::installed::PASSWORD;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

/// Where the program keeps what it made up.
const SECRETS: &str = "/etc/camcops/secrets";

/// Shown to it on purpose: what does not see this sees nothing.
const CANARY: &str = "canary-of-the-watch";

/// Everything that was seen, once each.
#[derive(Debug, Default)]
struct Seen {
    rounds: u64,
    command_lines: HashSet<Vec<u8>>,
    environments: HashSet<Vec<u8>>,
}

/// A thread that looks.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Watch {
    /// Begins.
    pub fn start(machine: &Booted) -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let processes = machine.path("/proc");
        let until = Arc::clone(&stop);
        let thread = std::thread::spawn(move || look(&processes, &until));
        Watch { stop, thread }
    }

    /// Ends, and tells what was seen: how often it looked, at how much, and every place with a secret of the machine.
    pub fn end(self, machine: &Booted) -> Value {
        // In pieces, so that the shell which runs this is no canary itself.
        let (one, other) = CANARY.split_at(6);
        machine.run(&format!(
            "echo 'sleep 0.05; :' > /tmp/canary
             word={one}; word=$word{other}
             for _ in $(seq 20); do CANARY=$word sh /tmp/canary $word; done"
        ));
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.thread.join().unwrap();
        let holds = |text: &[u8], what: &str| text.windows(what.len()).any(|window| window == what.as_bytes());
        let secrets = secrets(machine);
        let places = |all: &HashSet<Vec<u8>>| -> Vec<String> {
            all.iter()
                .filter(|text| secrets.iter().any(|(_, secret)| holds(text, secret)))
                .map(|text| String::from_utf8_lossy(text).replace('\0', " "))
                .collect()
        };
        let canaries = |all: &HashSet<Vec<u8>>| all.iter().filter(|text| holds(text, CANARY)).count();
        json!({
            "rounds": seen.rounds,
            "command_lines": seen.command_lines.len(),
            "environments": seen.environments.len(),
            "canaries": [canaries(&seen.command_lines), canaries(&seen.environments)],
            "secrets": secrets.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            "in_command_lines": places(&seen.command_lines),
            "in_environments": places(&seen.environments),
        })
    }
}

fn look(processes: &Path, until: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    while !until.load(Ordering::Relaxed) {
        for entry in fs::read_dir(processes).into_iter().flatten().flatten() {
            if !entry.file_name().as_encoded_bytes()[0].is_ascii_digit() {
                continue;
            }
            let path = entry.path();
            if let Ok(text) = fs::read(path.join("cmdline")) {
                seen.command_lines.insert(text);
            }
            if let Ok(text) = fs::read(path.join("environ")) {
                seen.environments.insert(text);
            }
        }
        seen.rounds += 1;
        // There are two cores, and what is watched needs them too.
        sleep(Duration::from_millis(2));
    }
    seen
}

/// The machine's secrets, with the names that they have.
pub fn secrets(machine: &Booted) -> Vec<(String, String)> {
    let mut all = vec![("superuser".to_owned(), PASSWORD.to_owned())];
    let mut directories: Vec<PathBuf> = vec![machine.path(SECRETS)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                let secret = fs::read_to_string(&path).unwrap().trim().to_owned();
                assert!(secret.len() > 8, "{name} is no secret");
                all.push((name, secret));
            }
        }
    }
    all
}
