//! The completion scripts of shells.

use crate::base::report::Report;
use crate::cli;
use anyhow::Result;
use clap::Command;
use clap_complete::Shell;
use serde_json::json;
use std::collections::BTreeSet;

const PROGRAM: &str = "camcops-provision";

pub(crate) fn make_completions(shell: Shell) -> Result<Report> {
    let mut command = cli::build_command();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, PROGRAM, &mut script);
    let script = String::from_utf8_lossy(&script);
    let script = match shell {
        Shell::Bash => correct_bash(&script, &command),
        _ => script.into_owned(),
    };
    Ok(Report::new(json!({ "shell": shell.to_string(), "script": script })).with_text(script))
}

/// Where the name of a program has a hyphen, the generated script leads to names of states that it has under another one,
/// so that nothing is completed after the first word (clap-rs/clap#6421). It also proposes what is hidden.
fn correct_bash(script: &str, command: &Command) -> String {
    let mut hidden = BTreeSet::new();
    collect_hidden(command, &mut hidden);
    let script = script.replace("camcops__subcmd__provision", "camcops__provision");
    let lines = script.lines().map(|line| {
        let Some((start, words)) = line.split_once("opts=\"").filter(|(start, _)| start.trim().is_empty()) else {
            return line.to_owned();
        };
        let words: Vec<&str> = words.trim_end_matches('"').split(' ').filter(|word| !hidden.contains(*word)).collect();
        format!("{start}opts=\"{}\"", words.join(" "))
    });
    lines.map(|line| line + "\n").collect()
}

/// Commands and flags that no help shows.
fn collect_hidden(command: &Command, hidden: &mut BTreeSet<String>) {
    let flags = command.get_arguments().filter(|flag| flag.is_hide_set()).filter_map(|flag| flag.get_long());
    hidden.extend(flags.map(|flag| format!("--{flag}")));
    for sub in command.get_subcommands() {
        if sub.is_hide_set() {
            hidden.insert(sub.get_name().to_owned());
        }
        collect_hidden(sub, hidden);
    }
}
