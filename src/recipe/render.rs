//! Templates: text files with `{{value}}` in them, and one escaper per target format.
//!
//! A template has one format. Its escaper is applied to every value, so no template can forget it; a value that the
//! format can't carry is refused with the reason.

use crate::base::error::Exit;
use crate::camcops_conf;
use anyhow::{Context, Result};
use handlebars::Handlebars;
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
        if !engine.has_template(name) {
            engine.register_template_string(name, template).with_context(|| format!("template {name}"))?;
        }
        let text = engine.render(name, view).with_context(|| format!("template {name}"))?;
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
