//! How long a `plan` takes that finds nothing to do, on a staged root, and how much memory it needs: `cargo bench`.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_camcops-provision");
const RUNS: usize = 300;

fn main() {
    let root = tempfile::tempdir().expect("a place for the staged root");
    run(root.path(), &["install", "--yes", "--quiet"]);
    assert!(
        run(root.path(), &["plan"]).contains("nothing to do"),
        "the plan should have nothing to do"
    );

    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            run(root.path(), &["plan"]);
            start.elapsed()
        })
        .collect();
    times.sort();
    // How long any process takes to start and end here: the floor under the figure above.
    let mut floor: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            Command::new("true").status().expect("true");
            start.elapsed()
        })
        .collect();
    floor.sort();
    let peak = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN)
        .expect("usage of the children")
        .max_rss();

    println!("no-op plan on a staged root, {RUNS} runs");
    println!("  median      {:>8.2?}", times[RUNS / 2]);
    println!("  fastest     {:>8.2?}", times[0]);
    println!("  95 in 100   {:>8.2?}", times[RUNS * 95 / 100]);
    println!("  a process that does nothing, median {:>8.2?}", floor[RUNS / 2]);
    println!("  peak memory {:>5.1} MiB", peak as f64 / 1024.0);
}

fn run(root: &Path, arguments: &[&str]) -> String {
    let output = Command::new(PROGRAM)
        .arg("--root")
        .arg(root)
        .args(arguments)
        .output()
        .expect("the program starts");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
