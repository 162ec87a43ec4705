//! What a command has to tell, once for programs and once for people; printed in one place.

use crate::base::error::Exit;
use crate::base::terminal::{self, Style};
use crate::base::text::wrap_lines;
use anyhow::Result;
use serde_json::Value;
use std::borrow::Cow;
use std::fmt::Display;

/// What a command has to tell: a document for programs, a text for people, and an exit code for both.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Report {
    document: Option<Value>,
    told: Vec<(Loudness, String)>,
    refusal: Option<(Exit, String)>,
    failure: Option<String>,
    code: u8,
}

/// Where something is told, and to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loudness {
    /// A result: always, on standard output.
    Result,
    /// A result in columns, which a terminal that is too narrow does not break anywhere.
    Table,
    /// On standard output, but not to who asks for results only.
    Remark,
    /// On standard error, but not to who asks for results only.
    Note,
}

impl Report {
    /// With what programs are told.
    pub(crate) fn new(document: Value) -> Report {
        Report { document: Some(document), ..Report::default() }
    }

    /// With another document for programs.
    pub(crate) fn with_document(self, document: Value) -> Report {
        Report { document: Some(document), ..self }
    }

    /// Nothing to tell but an exit code: that of another program, as a rule.
    pub(crate) fn of_code(code: u8) -> Report {
        Report { code, ..Report::default() }
    }

    /// A text for people, with the ends of its lines.
    pub(crate) fn with_text(self, text: impl Into<String>) -> Report {
        self.with(Loudness::Result, text.into())
    }

    pub(crate) fn with_line(self, line: impl Into<String>) -> Report {
        self.with(Loudness::Result, line.into() + "\n")
    }

    pub(crate) fn with_lines(self, lines: impl IntoIterator<Item = String>) -> Report {
        lines.into_iter().fold(self, Report::with_line)
    }

    /// Lines in columns.
    pub(crate) fn with_table(self, text: impl Into<String>) -> Report {
        self.with(Loudness::Table, text.into())
    }

    /// What something is, behind its name.
    pub(crate) fn with_row(self, name: &str, what: impl Display) -> Report {
        self.with_table(format_named(name, what))
    }

    pub(crate) fn with_rows<'a>(self, rows: impl IntoIterator<Item = (&'a str, String)>) -> Report {
        rows.into_iter().fold(self, |report, (name, what)| report.with_row(name, what))
    }

    /// A line that is left out where only results are asked for.
    pub(crate) fn with_remark(self, line: impl Into<String>) -> Report {
        self.with(Loudness::Remark, line.into() + "\n")
    }

    pub(crate) fn with_note(self, line: impl Into<String>) -> Report {
        self.with(Loudness::Note, line.into())
    }

    pub(crate) fn with_notes(self, lines: impl IntoIterator<Item = String>) -> Report {
        lines.into_iter().fold(self, Report::with_note)
    }

    pub(crate) fn with_warnings(self, warnings: impl IntoIterator<Item = impl Display>) -> Report {
        warnings.into_iter().fold(self, |report, warning| report.with_note(format!("warning: {warning}")))
    }

    pub(crate) fn with_code(self, code: u8) -> Report {
        Report { code, ..self }
    }

    /// The document says what is wrong; to people it is an error like any other.
    pub(crate) fn refusing(self, exit: Exit, why: impl Into<String>) -> Report {
        Report { refusal: Some((exit, why.into())), code: exit as u8, ..self }
    }

    /// What failed although all of this was done, told after it.
    pub(crate) fn but_failed(self, exit: Exit, why: impl Into<String>) -> Report {
        Report { failure: Some(why.into()), code: exit as u8, ..self }
    }

    /// The same if what came after it failed.
    pub(crate) fn and_then(self, later: Result<()>) -> Report {
        match later {
            Ok(()) => self,
            Err(why) => self.but_failed(Exit::of(&why), format!("{why:#}")),
        }
    }

    fn with(mut self, loudness: Loudness, text: String) -> Report {
        self.told.push((loudness, text));
        self
    }

    /// Prints it as that is wanted; gives the exit code.
    pub(crate) fn print(self, style: Style) -> Result<u8> {
        match (style.json, self.document, self.refusal) {
            (true, Some(document), _) => terminal::print_json(&document)?,
            (false, _, Some((exit, why))) => {
                print_told(&self.told, style)?;
                return Err(exit.because(why));
            }
            // What has no document, as a plugin's line, is told to whoever asks.
            _ => print_told(&self.told, style)?,
        }
        if let Some(why) = self.failure {
            terminal::print_note(&format!("error: {why}"));
        }
        Ok(self.code)
    }
}

/// As wide as the terminal, if it goes to one.
fn fit_terminal(text: &str) -> Cow<'_, str> {
    match terminal::output_width() {
        Some(width) => wrap_lines(text, width.into()).into(),
        None => text.into(),
    }
}

/// A line that says what something is, behind its name.
pub(crate) fn format_named(name: &str, what: impl Display) -> String {
    format!("{name:<12} {what}\n")
}

fn print_told(told: &[(Loudness, String)], style: Style) -> Result<()> {
    for (loudness, text) in told {
        match loudness {
            Loudness::Result => terminal::print(text)?,
            Loudness::Table => terminal::print(&fit_terminal(&terminal::for_instance(text)))?,
            _ if style.quiet => {}
            Loudness::Remark => terminal::print(&terminal::for_instance(text))?,
            Loudness::Note => terminal::print_note(text),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_refusal_is_an_error_to_people_and_a_code_to_programs() {
        let report = || Report::new(json!({ "problem": "x" })).refusing(Exit::Unusable, "x");
        let why = report().print(Style::default()).unwrap_err();
        assert_eq!((Exit::of(&why), why.to_string().as_str()), (Exit::Unusable, "x"));
        assert_eq!(report().print(Style { json: true, ..Style::default() }).unwrap(), Exit::Unusable as u8);
        assert_eq!(Report::of_code(7).print(Style { quiet: true, ..Style::default() }).unwrap(), 7);
    }

    #[test]
    fn a_name_stands_before_what_it_is() {
        assert_eq!(format_named("site", "https://x/"), "site         https://x/\n");
    }
}
