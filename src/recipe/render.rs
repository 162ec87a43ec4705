//! Templates: text files with `{{value}}` in them, and one escaper per target format.
//!
//! A template has one format. Its escaper is applied to every value, so no template can forget it; a value that the
//! format can't carry is refused with the reason.

use crate::base::error::Exit;
use crate::camcops_conf;
use anyhow::{Context as _, Result};
use handlebars::{Context, Handlebars};
use serde::Serialize;
use std::sync::{Arc, Mutex, PoisonError};

/// What will read the rendered file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Python's configparser, with interpolation.
    Ini,
    /// Apache, inside double quotes.
    Apache,
    /// systemd, tmpfiles and sysusers, inside double quotes.
    Systemd,
    /// supervisor, inside double quotes.
    Supervisor,
    /// An option file of MariaDB and MySQL, inside double quotes, as the servers' clients and PyMySQL both read it.
    Mysql,
    /// A Python string in double quotes.
    Python,
    /// A POSIX shell, inside single quotes.
    Shell,
    /// XML text and attributes.
    Xml,
    /// Nothing to escape: names and numbers that are checked elsewhere.
    Plain,
}

/// Why a format can't carry a value.
#[derive(Debug, thiserror::Error)]
pub enum UncarriedValue {
    /// It has a character that no file of ours has.
    #[error("has the control character {0:?}")]
    Control(char),
    /// It has what the format has no way to write.
    #[error("has {0:?}, which this kind of file can't carry")]
    Mark(&'static str),
    /// It would be read as something else.
    #[error("{0}")]
    Misread(&'static str),
    /// camcops.conf can't have it.
    #[error("can't be carried: {0}")]
    Ini(anyhow::Error),
}

impl Format {
    /// The value as it has to be written, or why it can't be.
    pub fn escaped(self, value: &str) -> Result<String, UncarriedValue> {
        if let Some(control) = value.chars().find(|c| c.is_control()) {
            return Err(UncarriedValue::Control(control));
        }
        let refused = |marks: &[&'static str]| match marks.iter().find(|mark| value.contains(**mark)) {
            Some(mark) => Err(UncarriedValue::Mark(mark)),
            None => Ok(()),
        };
        let backslashed = |text: &str| text.replace('\\', r"\\").replace('"', "\\\"");
        Ok(match self {
            Format::Ini => {
                camcops_conf::check_value(value).map_err(UncarriedValue::Ini)?;
                camcops_conf::escape_value(value)
            }
            Format::Apache => {
                refused(&["${"])?;
                backslashed(value)
            }
            Format::Systemd => backslashed(value).replace('%', "%%"),
            Format::Supervisor => {
                let comment = |(blank, mark): (char, char)| blank.is_whitespace() && ";#".contains(mark);
                if value.chars().zip(value.chars().skip(1)).any(comment) {
                    return Err(UncarriedValue::Misread("has a ; or # after a blank, which would begin a comment"));
                }
                // How often a percent sign is expanded, and how quotes are, differs from key to key.
                refused(&["\"", "'", "\\", "%"])?;
                value.to_owned()
            }
            Format::Mysql => {
                // PyMySQL does not unescape, and sends passwords as Latin-1.
                refused(&["\\", "\"", "'"])?;
                if !value.is_ascii() {
                    return Err(UncarriedValue::Misread("is not plain ASCII"));
                }
                value.to_owned()
            }
            Format::Python => backslashed(value),
            Format::Shell => value.replace('\'', r"'\''"),
            Format::Xml if value.contains(['\u{fffe}', '\u{ffff}']) => {
                return Err(UncarriedValue::Misread("contains an invalid character"));
            }
            Format::Xml => value.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;"),
            Format::Plain => value.to_owned(),
        })
    }
}

/// A part of a template is as long as this, or as long as the blocks in it are.
const PART: usize = 400;

/// A template in parts that are rendered one after the other. What compiles it counts lines from the beginning for every
/// tag, so that the work grows with the square of the length: it was a quarter of all that an install does.
fn split_template(template: &str) -> Vec<&str> {
    // Around these, line ends may be left out.
    let is_plain =
        |line: &str| !["{{#", "{{/", "{{^", "{{!", "{{~", "~}}", "{{else", "{{>"].iter().any(|tag| line.contains(tag));
    // What is defined in a template is known only in the part that it is defined in.
    let last_use = template.rfind("{{>").unwrap_or(0);
    let mut parts = Vec::new();
    let (mut begin, mut at, mut depth) = (0, 0, 0_usize);
    let mut lines = template.split_inclusive('\n').peekable();
    while let Some(line) = lines.next() {
        at += line.len();
        depth = (depth + line.matches("{{#").count()).saturating_sub(line.matches("{{/").count());
        let is_end = depth == 0 && is_plain(line) && lines.peek().is_some_and(|next| is_plain(next));
        if is_end && at > last_use && at - begin >= PART {
            parts.push(&template[begin..at]);
            begin = at;
        }
    }
    parts.push(&template[begin..]);
    parts
}

/// Renders templates, each compiled once: compiling is what costs.
#[derive(Debug, Default)]
pub(crate) struct Renderer {
    engines: Vec<(Format, Handlebars<'static>, RefusedValue)>,
}

/// Why a value could not be carried, left here by the escaper, which has no other way to say so.
type RefusedValue = Arc<Mutex<Option<UncarriedValue>>>;

impl Renderer {
    /// Renders a template. A variable that the view does not have is an error, and so is a value that can't be carried.
    pub(crate) fn render(
        &mut self,
        name: &str,
        format: Format,
        template: &str,
        view: &impl Serialize,
    ) -> Result<String> {
        let (engine, refusal) = self.engine(format);
        let view = Context::wraps(view)?;
        let mut text = String::new();
        for (number, part) in split_template(template).into_iter().enumerate() {
            let part_name = format!("{name} {number}");
            if !engine.has_template(&part_name) {
                engine.register_template_string(&part_name, part).with_context(|| format!("template {name}"))?;
            }
            let rendered = engine.render_with_context(&part_name, &view);
            text.push_str(&rendered.with_context(|| format!("template {name}"))?);
        }
        let refused = refusal.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(why) = refused {
            return Err(Exit::Settings.because(format!("a value for {name} {why}")));
        }
        Ok(text)
    }

    fn engine(&mut self, format: Format) -> (&mut Handlebars<'static>, &RefusedValue) {
        let known = self.engines.iter().position(|(of, ..)| *of == format);
        let index = known.unwrap_or_else(|| {
            let refusal = RefusedValue::default();
            let mut engine = Handlebars::new();
            engine.set_strict_mode(true);
            let told = Arc::clone(&refusal);
            engine.register_escape_fn(move |value| {
                format.escaped(value).unwrap_or_else(|why| {
                    *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
                    String::new()
                })
            });
            self.engines.push((format, engine, refusal));
            self.engines.len() - 1
        });
        let (_, engine, refusal) = &mut self.engines[index];
        (engine, refusal)
    }
}

/// Renders one template once.
pub fn render_template(name: &str, format: Format, template: &str, view: &impl Serialize) -> Result<String> {
    Renderer::default().render(name, format, template, view)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_template_is_split_between_lines_of_text_and_outside_of_blocks() {
        let lines = "a line of twenty chars\n".repeat(30);
        let template = format!("{lines}{{{{#if x}}}}\n{lines}{{{{/if}}}}\n{lines}{{{{! a note }}}}\n{lines}");
        let parts = split_template(&template);
        assert_eq!(parts.concat(), template);
        assert!(parts.len() > 4, "{parts:?}");
        for part in &parts {
            assert_eq!(part.matches("{{#").count(), part.matches("{{/").count(), "{part}");
            assert!(part.starts_with("a line") && part.ends_with("chars\n"), "{part}");
        }
        assert_eq!(split_template(""), [""]);
    }

    #[test]
    fn every_value_is_escaped_for_its_format() {
        let view = json!({ "v": "50% \"a\" & b" });
        let rendered = |format| render_template("t", format, "x = {{v}}", &view).unwrap();
        assert_eq!(rendered(Format::Ini), "x = 50%% \"a\" & b");
        assert_eq!(rendered(Format::Apache), r#"x = 50% \"a\" & b"#);
        assert_eq!(rendered(Format::Systemd), r#"x = 50%% \"a\" & b"#);
        assert_eq!(rendered(Format::Xml), "x = 50% &quot;a&quot; &amp; b");
    }

    #[test]
    fn what_a_format_cannot_carry_is_refused_with_the_reason() {
        let why = |format, value: &str| {
            render_template("t", format, "{{v}}", &json!({ "v": value })).unwrap_err().to_string()
        };
        assert!(why(Format::Supervisor, "a ;b").contains("comment"));
        assert!(why(Format::Apache, "a${b}").contains("${"));
        assert!(why(Format::Plain, "a\nb").contains("control character"));
    }

    #[test]
    fn a_missing_variable_is_an_error() {
        assert!(render_template("t", Format::Plain, "{{gone}}", &json!({})).is_err());
    }
}
