//! How long a `plan` takes that finds nothing to do, on a staged root, and how much memory it needs: `cargo bench`.

#![allow(clippy::print_stdout)] // printing the figures is what it is for

use anyhow::{Result, ensure};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_camcops-provision");
const RUNS: usize = 300;

fn main() -> Result<()> {
    let root = tempfile::tempdir()?;
    run(root.path(), &["install", "--yes", "--quiet"])?;
    ensure!(run(root.path(), &["plan"])?.contains("nothing to do"), "the plan should have nothing to do");

    let times = sorted_times(|| run(root.path(), &["plan"]).map(drop))?;
    // How long any process takes to start and end here: the floor under the figure above.
    let floor = sorted_times(|| Ok(Command::new("true").status().map(drop)?))?;
    let peak = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN)?.max_rss();

    println!("no-op plan on a staged root, {RUNS} runs");
    println!("  median      {:>8.2?}", times[RUNS / 2]);
    println!("  fastest     {:>8.2?}", times[0]);
    println!("  95 in 100   {:>8.2?}", times[RUNS * 95 / 100]);
    println!("  a process that does nothing, median {:>8.2?}", floor[RUNS / 2]);
    println!("  peak memory {:>5.1} MiB", peak as f64 / 1024.0);
    Ok(())
}

fn sorted_times(step: impl Fn() -> Result<()>) -> Result<Vec<Duration>> {
    let mut times = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            step()?;
            Ok(start.elapsed())
        })
        .collect::<Result<Vec<_>>>()?;
    times.sort();
    Ok(times)
}

fn run(root: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new(PROGRAM).arg("--root").arg(root).args(arguments).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
