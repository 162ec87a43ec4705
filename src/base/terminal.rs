//! What is printed, and how.

use crate::base::error::Exit;
use anyhow::Result;
use rustix::termios::tcgetwinsize;
use serde::Serialize;
use serde_json::{Map, json};
use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The version of every JSON document.
pub(crate) const SCHEMA_VERSION: u32 = 1;

/// Where nobody knows how wide a terminal is.
const USUAL_WIDTH: u16 = 80;
/// Back to the first column, and nothing from there on.
const WIPE: &str = "\r\x1b[K";

/// The last line on standard error, where that is one that is drawn again and again.
static LIVE: Mutex<Option<String>> = Mutex::new(None);
/// Whether standard error is read by a program, event by event.
static EVENTS: AtomicBool = AtomicBool::new(false);

/// The instance that commands in messages are for, where that is not the usual one.
static INSTANCE: OnceLock<String> = OnceLock::new();
/// Commands in messages begin so: in quotes, as a whole line, or as the other one of two.
const COMMANDS: [&str; 3] = ["`camcops-provision ", ": camcops-provision ", "do:  camcops-provision "];

/// How to print.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Style {
    /// Colours on standard output.
    pub(crate) color: bool,
    /// One JSON document instead of text.
    pub(crate) json: bool,
    /// Only results and errors.
    pub(crate) quiet: bool,
    /// More than usual.
    pub(crate) verbose: bool,
}

impl Style {
    /// Says what is worth a word but stops nothing.
    pub(crate) fn warn(self, warnings: &[String]) {
        if !self.quiet {
            for warning in warnings {
                print_note(&format!("warning: {warning}"));
            }
        }
    }
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Color {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Color {
    /// Whether to use them on standard output.
    pub(crate) fn wanted(self) -> bool {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0");
        match self {
            Color::Always => true,
            Color::Never => false,
            Color::Auto if is_set("NO_COLOR") => false,
            Color::Auto if is_set("CLICOLOR_FORCE") => true,
            Color::Auto => io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb"),
        }
    }
}

/// Whether somebody can type an answer.
pub(crate) fn is_input() -> bool {
    io::stdin().is_terminal()
}

/// Whether results are shown on a terminal.
pub(crate) fn is_output() -> bool {
    io::stdout().is_terminal()
}

/// Standard input, output and error, for a program that gets them as its own.
pub(crate) fn copy_streams() -> io::Result<[OwnedFd; 3]> {
    Ok([
        io::stdin().as_fd().try_clone_to_owned()?,
        io::stdout().as_fd().try_clone_to_owned()?,
        io::stderr().as_fd().try_clone_to_owned()?,
    ])
}

/// Whether a line on standard error can be drawn again and again.
pub(crate) fn can_redraw() -> bool {
    io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// How wide the terminal is that complaints go to.
pub(crate) fn complaint_width() -> u16 {
    let width = tcgetwinsize(io::stderr()).map_or(0, |size| size.ws_col);
    if width == 0 { USUAL_WIDTH } else { width }
}

/// Draws the line that lives, in place of what it was before.
pub(crate) fn draw_live(line: &str) {
    let line = strip_controls(line);
    let mut live = LIVE.lock().unwrap_or_else(PoisonError::into_inner);
    if live.as_deref() != Some(&*line) {
        let mut out = io::stderr().lock();
        let _ = write!(out, "{WIPE}{line}").and_then(|()| out.flush());
        *live = Some(line);
    }
}

/// Takes the line that lives away.
pub(crate) fn wipe_live() {
    let mut live = LIVE.lock().unwrap_or_else(PoisonError::into_inner);
    if live.take().is_some() {
        let mut out = io::stderr().lock();
        let _ = write!(out, "{WIPE}").and_then(|()| out.flush());
    }
}

/// From now on all that is said on standard error are events, one JSON document a line.
pub(crate) fn speak_in_events(yes: bool) {
    EVENTS.store(yes, Ordering::SeqCst);
}

/// Says an event on standard error.
pub(crate) fn print_event(event: &impl Serialize) {
    if let Ok(event) = with_version(event) {
        let _ = writeln!(io::stderr().lock(), "{event}");
    }
}

/// How wide the terminal is that results go to, where it is one.
pub(crate) fn output_width() -> Option<u16> {
    let width = tcgetwinsize(io::stdout()).ok()?.ws_col;
    Some(if width == 0 { USUAL_WIDTH } else { width })
}

/// Prints a result. A reader that went away is no error.
pub(crate) fn print(text: &str) -> Result<()> {
    wipe_live();
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(why) if why.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Prints a result line.
pub(crate) fn print_line(text: &str) -> Result<()> {
    print(&format!("{text}\n"))
}

/// Without escape sequences and other control characters.
pub(crate) fn strip_controls(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        if c == '\u{1b}' {
            // A colour ends with a letter.
            let _ = rest.by_ref().find(char::is_ascii_alphabetic);
        } else if !c.is_control() {
            plain.push(c);
        }
    }
    plain
}

/// A JSON document with its schema version.
pub(crate) fn with_version(document: &impl Serialize) -> Result<serde_json::Value> {
    let mut whole = Map::new();
    whole.insert("schema_version".into(), json!(SCHEMA_VERSION));
    match serde_json::to_value(document)? {
        serde_json::Value::Object(fields) => whole.extend(fields),
        other => {
            whole.insert("result".into(), other);
        }
    }
    Ok(whole.into())
}

/// Prints a JSON document.
pub(crate) fn print_json(document: &impl Serialize) -> Result<()> {
    print_line(&serde_json::to_string_pretty(&with_version(document)?)?)
}

/// Says what failed: one line, or one JSON document where that was asked for.
pub fn report_failure(why: &anyhow::Error, exit: Exit, json: bool) {
    if EVENTS.load(Ordering::SeqCst) {
        print_event(&json!({ "event": "error", "text": format!("{why:#}"), "exit_code": exit as u8 }));
    } else {
        print_note(&format!("error: {why:#}"));
    }
    if json {
        failure_document(&format!("{why:#}"), exit);
    }
}

/// The JSON document of a failure.
pub fn failure_document(why: &str, exit: Exit) {
    // Standard output may be what failed.
    let _ = print_json(&json!({ "error": why, "exit_code": exit as u8 }));
}

/// From now on the commands in messages are for this instance.
pub(crate) fn speak_of_instance(name: &str) {
    // It is the one of the command line, and that has one.
    let _ = INSTANCE.set(name.to_owned());
}

/// A message whose commands are for the instance at hand, so that nobody who follows it changes another site.
pub(crate) fn for_instance(text: &str) -> Cow<'_, str> {
    match INSTANCE.get() {
        Some(name) => Cow::Owned(insert_instance(text, name)),
        None => Cow::Borrowed(text),
    }
}

fn insert_instance(text: &str, name: &str) -> String {
    COMMANDS.iter().fold(text.to_owned(), |text, begin| {
        let named = format!("{begin}--instance {name} ");
        text.replace(begin, &named).replace(&format!("{named}--instance "), &format!("{begin}--instance "))
    })
}

/// Says something on standard error.
pub(crate) fn print_note(text: &str) {
    let text = for_instance(text);
    if EVENTS.load(Ordering::SeqCst) {
        return print_event(&json!({ "event": "note", "text": text.trim_start() }));
    }
    wipe_live();
    // There is nobody left to tell if standard error is closed.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// `1 change`, `2 changes`.
pub(crate) fn count_of<N: Display + PartialEq + From<u8>>(number: N, what: &str) -> String {
    let plural = if number == N::from(1) { "" } else { "s" };
    format!("{number} {what}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_in_messages_are_for_the_instance_at_hand() {
        let told = |text| insert_instance(text, "two");
        assert_eq!(told("run `camcops-provision install`"), "run `camcops-provision --instance two install`");
        assert_eq!(told("do:  camcops-provision plan"), "do:  camcops-provision --instance two plan");
        assert_eq!(
            told("kill 1   # or: camcops-provision start"),
            "kill 1   # or: camcops-provision --instance two start"
        );
        let named = "`camcops-provision --instance two plan` shows it";
        assert_eq!(told(named), named);
    }
}
