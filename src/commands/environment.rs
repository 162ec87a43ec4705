//! `with-environment`: what `EnvironmentFile=` and `User=` do under systemd, for a supervisor that has no such thing.
//!
//! The file is for root alone, so it is read before the account changes.

use super::become_it;
use crate::base::error::Exit;
use crate::base::report::Report;
use crate::base::terminal;
use crate::cli::{Global, WithEnvironment};
use crate::drivers::services::member::own_environment;
use crate::layout::{DEBIAN, Layout};
use crate::session::open_host;
use anyhow::{Context, Result};

const ROOTS_HOME: &str = "/root";

/// Becomes the program; only comes back where it could not start.
pub(crate) fn run(global: &Global, flags: &WithEnvironment) -> Result<Report> {
    super::need_machine(global, "start a service")?;
    let host = open_host(global)?;
    let path = own_environment(&Layout::new(&DEBIAN, &global.instance), flags.service.as_str());
    let text = host.read_text(&path)?.unwrap_or_default();
    let (variables, wrong) = parse_variables(&text);
    for line in wrong {
        // What stands there may be a secret.
        terminal::print_note(&format!("{path}:{line}: not NAME=VALUE, ignored"));
    }
    let account = &flags.account;
    let user = nix::unistd::User::from_name(account)?
        .ok_or_else(|| Exit::Unreachable.because(format!("this machine has no account {account}")))?;
    let group = match &flags.group {
        Some(group) => group.clone(),
        None => user.gid.to_string(),
    };
    let (program, arguments) = flags.words.split_first().context("there is no program to run")?;
    become_it("/usr/bin/setpriv", |command| {
        command
            .args([format!("--reuid={account}"), format!("--regid={group}")])
            .args(["--init-groups", "--"])
            .arg(program)
            .args(arguments);
        // That of supervisor itself is root's.
        if std::env::var_os("HOME").is_none_or(|home| home == ROOTS_HOME) {
            command.env("HOME", &user.dir);
        }
        command.envs(variables);
    })
}

/// The variables of a file as systemd.exec(5) reads it, and the numbers of the lines that are none.
fn parse_variables(text: &str) -> (Vec<(String, String)>, Vec<usize>) {
    let (mut all, mut wrong) = (Vec::new(), Vec::new());
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let is_name = |name: &&str| {
            !name.is_empty()
                && !name.starts_with(|c: char| c.is_ascii_digit())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        let split = line.split_once('=');
        let Some((name, first)) = split.filter(|(name, _)| is_name(&name.trim_end())) else {
            wrong.push(number + 1);
            continue;
        };
        let mut value = EnvironmentValue::default();
        value.read(first.trim_start());
        while value.goes_on() {
            let Some((_, more)) = lines.next() else { break };
            value.read(more);
        }
        all.push((name.trim_end().to_owned(), value.end()));
    }
    (all, wrong)
}

/// A value while it is read: it may go on over several lines.
#[derive(Default)]
struct EnvironmentValue {
    text: String,
    /// How much of it blanks at the end may not be taken off again.
    fixed: usize,
    quote: Option<char>,
    escaped: bool,
}

impl EnvironmentValue {
    fn read(&mut self, line: &str) {
        let mut letters = line.chars();
        // The end of a line that goes on is part of a value in quotes alone.
        if std::mem::take(&mut self.escaped) {
        } else if self.quote.is_some() {
            self.keep('\n');
        }
        while let Some(letter) = letters.next() {
            match (letter, self.quote) {
                ('\\', None) => match letters.next() {
                    Some(next) => self.keep(next),
                    None => self.escaped = true,
                },
                ('\\', Some('"')) => match letters.next() {
                    Some(next @ ('"' | '\\' | '`' | '$')) => self.keep(next),
                    Some(next) => {
                        self.keep('\\');
                        self.keep(next);
                    }
                    None => self.escaped = true,
                },
                (_, Some(quote)) if letter == quote => self.quote = None,
                ('"' | '\'', None) => {
                    self.quote = Some(letter);
                    self.fixed = self.text.len();
                }
                (_, Some(_)) => self.keep(letter),
                (_, None) => self.text.push(letter),
            }
        }
    }

    fn keep(&mut self, letter: char) {
        self.text.push(letter);
        self.fixed = self.text.len();
    }

    fn goes_on(&self) -> bool {
        self.escaped || self.quote.is_some()
    }

    fn end(self) -> String {
        let bare = self.text.trim_end().len();
        self.text[..bare.max(self.fixed)].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_variables_is_read_as_systemd_reads_it() {
        let text = "# said\n; too\n\nA=1\n B = two words  \nC=\"a \\\"b\\\" \\n \"\nD='$x \\y'\nE=one\\\n two\nF=\"x\ny\"\nG=\nH=a\\ \n1=no\nnothing\nI='end";
        let (all, wrong) = parse_variables(text);
        let read: Vec<(&str, &str)> = all.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(
            read,
            [
                ("A", "1"),
                ("B", "two words"),
                ("C", "a \"b\" \\n "),
                ("D", "$x \\y"),
                ("E", "one two"),
                ("F", "x\ny"),
                ("G", ""),
                ("H", "a "),
                ("I", "end"),
            ]
        );
        assert_eq!(wrong, [14, 15]);
    }
}
