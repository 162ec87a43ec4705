//! Questions at the terminal: the only place where somebody is asked, so that an answer means the same everywhere.

use crate::base::error::Exit;
use crate::base::secret::Secret;
use crate::base::signals::while_asking;
use crate::base::terminal::Style;
use anyhow::Result;
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use std::io::{self, BufRead, IsTerminal, Write};
use zeroize::Zeroizing;

/// What Enter alone means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Enter {
    /// Where nothing is lost by it.
    Yes,
    /// For what removes, replaces, or restarts what patients use.
    No,
}

/// A question before something is done.
pub(crate) struct Question<'a> {
    /// What would be done, as a sentence to which yes is an answer.
    pub(crate) what: &'a str,
    /// What Enter alone means.
    pub(crate) enter: Enter,
    /// What is to be typed instead of yes.
    pub(crate) name: Option<&'a str>,
    /// What `p` shows.
    pub(crate) plan: Option<&'a dyn Fn() -> Result<String>>,
}

/// What somebody has answered.
#[derive(Debug, PartialEq, Eq)]
enum Reply {
    Yes,
    No,
    Plan,
    Other,
}

impl<'a> Question<'a> {
    /// One to which yes or no is an answer.
    pub(crate) fn new(what: &'a str, enter: Enter) -> Question<'a> {
        Question { what, enter, name: None, plan: None }
    }

    fn prompt(&self) -> String {
        let plan = if self.plan.is_some() { ", p = show plan" } else { "" };
        match (self.name, self.enter) {
            (Some(name), _) => {
                format!("{}? Type the name of the instance to confirm [{name}{plan}]: ", self.what)
            }
            (None, Enter::Yes) => format!("{}? [Y/n{plan}] ", self.what),
            (None, Enter::No) => format!("{}? [y/N{plan}] ", self.what),
        }
    }

    fn understood(&self, answer: &str) -> Reply {
        let answer = answer.trim();
        if let Some(name) = self.name
            && answer == name
        {
            return Reply::Yes;
        }
        match answer.to_ascii_lowercase().as_str() {
            "n" | "no" => Reply::No,
            "" if self.name.is_some() || self.enter == Enter::No => Reply::No,
            "" => Reply::Yes,
            "y" | "yes" if self.name.is_none() => Reply::Yes,
            "p" if self.plan.is_some() => Reply::Plan,
            _ => Reply::Other,
        }
    }

    fn help(&self) -> String {
        let plan = match self.plan {
            Some(_) => ", p shows the plan",
            None => "",
        };
        let yes = match self.name {
            Some(name) => format!("type {name} for yes"),
            None => "type y or yes for yes".to_owned(),
        };
        let enter = match (self.name, self.enter) {
            (None, Enter::Yes) => "yes",
            _ => "no",
        };
        format!("{yes}, n or no for no; Enter alone means {enter}{plan}")
    }
}

/// Comes back if it is to be done. `yes` is the flag `--yes`: it is the answer to every question. Where nobody can be
/// asked, nothing is done without it.
pub(crate) fn ask_to_agree(question: &Question<'_>, yes: bool, style: Style) -> Result<()> {
    if yes {
        return Ok(());
    }
    if style.json || !has_terminal() {
        return Err(Exit::Usage.because(format!(
            "{}? To confirm without a terminal or with --json, add --yes; nothing was changed",
            question.what
        )));
    }
    loop {
        let Some(answer) = ask_line(&question.prompt())? else {
            let _ = writeln!(io::stderr());
            return Err(not_agreed());
        };
        match question.understood(&answer) {
            Reply::Yes => return Ok(()),
            Reply::No => return Err(not_agreed()),
            Reply::Plan => {
                if let Some(plan) = question.plan {
                    crate::base::terminal::print_note(plan()?.trim_end());
                }
            }
            Reply::Other => crate::base::terminal::print_note(&question.help()),
        }
    }
}

/// Whether the flag `--confirm` names what would be lost; any other name is a mistake.
pub(crate) fn is_confirmed(given: Option<&str>, name: &str, what: &str) -> Result<bool> {
    match given {
        Some(given) if given != name => {
            Err(Exit::Usage.because(format!("--confirm {given}: the name of {what} is {name}; nothing was changed")))
        }
        given => Ok(given.is_some()),
    }
}

/// Only who names the database exactly may have everything in it gone.
pub(crate) fn confirm_database(given: Option<&str>, name: &str, verb: &str, done: &str) -> Result<()> {
    match is_confirmed(given, name, &format!("the database that would be {done}"))? {
        true => Ok(()),
        false => Err(Exit::Usage.because(format!(
            "this {verb} everything in the database {name}: add --confirm {name} to confirm; nothing was changed"
        ))),
    }
}

fn not_agreed() -> anyhow::Error {
    Exit::Failed.because("nothing was changed")
}

/// Whether somebody can be asked.
pub(crate) fn has_terminal() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// What somebody answers; nothing where no more answers come.
pub(crate) fn ask_line(prompt: &str) -> Result<Option<String>> {
    let mut answer = String::new();
    let read = while_asking(|| {
        write!(io::stderr(), "{prompt}")?;
        io::stderr().flush()?;
        io::stdin().lock().read_line(&mut answer)
    })?;
    Ok((read > 0).then(|| answer.trim().to_owned()))
}

/// Asks without showing the answer.
pub(crate) fn ask_hidden(question: &str) -> Result<Secret> {
    let terminal = io::stdin();
    let shown = tcgetattr(&terminal)?;
    let mut quiet = shown.clone();
    quiet.local_flags.remove(LocalFlags::ECHO);
    quiet.local_flags.insert(LocalFlags::ECHONL);
    let answer = while_asking(|| {
        write!(io::stderr(), "{question}")?;
        tcsetattr(&terminal, SetArg::TCSAFLUSH, &quiet)?;
        read_secret()
    });
    tcsetattr(&terminal, SetArg::TCSAFLUSH, &shown)?;
    answer
}

/// Whoever is asked for a password and leaves instead sees again what is typed.
pub(crate) fn show_typing() {
    let terminal = io::stdin();
    if let Ok(mut shown) = tcgetattr(&terminal) {
        shown.local_flags.insert(LocalFlags::ECHO);
        let _ = tcsetattr(&terminal, SetArg::TCSANOW, &shown);
    }
}

/// One line of standard input.
pub(crate) fn read_secret() -> Result<Secret> {
    let mut line = Zeroizing::new(String::new());
    if io::stdin().lock().read_line(&mut line)? == 0 {
        return Err(Exit::Failed.because("no password on standard input"));
    }
    let password = line.trim_end_matches(['\n', '\r']);
    match password.chars().any(char::is_control) {
        true => Err(Exit::Usage.because("the password contains control characters")),
        false => Ok(Secret::new(password.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_yes() {
        let careful = Question::new("Make 138 changes to this machine", Enter::No);
        assert_eq!(careful.prompt(), "Make 138 changes to this machine? [y/N] ");
        for yes in ["y", "Y", "yes", " YES \n"] {
            assert_eq!(careful.understood(yes), Reply::Yes, "{yes}");
        }
        for no in ["", "\n", "n", "No"] {
            assert_eq!(careful.understood(no), Reply::No, "{no}");
        }
        for other in ["what would go?", "yes please", "nein", "q", "p", "ys", "1"] {
            assert_eq!(careful.understood(other), Reply::Other, "{other}");
        }
        let easy = Question::new("Write this to /x", Enter::Yes);
        assert_eq!(easy.understood("\n"), Reply::Yes);
        assert_eq!(easy.understood("what?"), Reply::Other);
    }

    #[test]
    fn a_name_is_typed_as_it_is() {
        let plan = || Ok("- file /x\n".to_owned());
        let question =
            Question { name: Some("camcops"), plan: Some(&plan), ..Question::new("Undo 138 changes", Enter::No) };
        assert_eq!(
            question.prompt(),
            "Undo 138 changes? Type the name of the instance to confirm [camcops, p = show plan]: "
        );
        assert_eq!(question.understood("camcops"), Reply::Yes);
        assert_eq!(question.understood("p"), Reply::Plan);
        for no in ["", "n", "no"] {
            assert_eq!(question.understood(no), Reply::No, "{no}");
        }
        for other in ["y", "yes", "Camcops", "camcops2", "\"camcops\""] {
            assert_eq!(question.understood(other), Reply::Other, "{other}");
        }
    }
}
