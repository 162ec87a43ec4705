//! What installs packages: uv, where it is wanted and can be had, else pip.

use super::build::{Build, PIP};
use super::complaints::{explain_failure, is_absent};
use super::leads_to_a_program;
use super::python::Examined;
use crate::base::error::Exit;
use crate::settings::Installer;
use anyhow::Result;

/// What installs packages.
pub(super) enum Tool {
    /// uv by its path and version.
    Uv(String, String),
    Pip,
}

impl Tool {
    pub(super) fn name(&self) -> String {
        match self {
            Tool::Uv(_, version) => format!("uv {version}"),
            Tool::Pip => "pip".into(),
        }
    }
}

impl Build<'_> {
    /// uv where it is wanted and can be had, else pip.
    pub(super) fn tool(&self, examined: &Examined) -> Result<Tool> {
        let no_pip = || {
            let python = &self.wanted.python;
            Exit::Unreachable.because(format!(
                "{} has no ensurepip, and there is no uv on this machine; install python3.{}-venv (its name on Debian) or uv, and run again",
                python.path, python.minor
            ))
        };
        if self.recipe.installer != Installer::Pip {
            if let Some(tool) = self.own_uv()? {
                return Ok(tool);
            }
            if !examined.pip {
                return Err(no_pip());
            }
            if let Some(tool) = self.fetched_uv()? {
                return Ok(tool);
            }
            self.tell("uv is not available, using pip");
        }
        match examined.pip {
            true => Ok(Tool::Pip),
            false => Err(no_pip()),
        }
    }

    /// The machine's own uv, if it is not too old for what is asked of it.
    fn own_uv(&self) -> Result<Option<Tool>> {
        for path in ["/usr/bin/uv", "/usr/local/bin/uv"] {
            if !leads_to_a_program(self.host, path)? {
                continue;
            }
            let answer = self.child(path).args(["--version"]).end()?;
            let version = version_of_uv(&answer.output);
            if version.is_some_and(|(numbers, _)| numbers >= (0, 5)) {
                let (_, text) = version.unwrap_or_default();
                return Ok(Some(Tool::Uv(path.to_owned(), text.to_owned())));
            }
        }
        Ok(None)
    }

    fn fetched_uv(&self) -> Result<Option<Tool>> {
        let home = self.work("tool");
        self.tell("fetching uv");
        self.run_quietly(
            "an environment for uv could not be made",
            self.child(&self.wanted.python.path).args(["-m", "venv", &home]),
        )?;
        let ended = self
            .child(&format!("{home}/bin/python"))
            .args(PIP)
            .args(["--only-binary", ":all:", "--requirement", &self.work("uv.txt")])
            .args(self.pip_source())
            .end_telling(|_| {})?;
        if !ended.status.success() {
            return match is_absent(&ended) && self.recipe.installer == Installer::Auto {
                true => Ok(None),
                // Where nothing can be fetched, pip would not fare better.
                false => Err(explain_failure(self.recipe.source.as_deref(), "uv could not be fetched", &ended)),
            };
        }
        let path = format!("{home}/bin/uv");
        let answer = self.run_quietly("uv does not work", self.child(&path).args(["--version"]))?;
        let (_, version) = version_of_uv(&answer.output).unwrap_or_default();
        Ok(Some(Tool::Uv(path, version.to_owned())))
    }
}

fn version_of_uv(answer: &str) -> Option<((u32, u32), &str)> {
    let version = answer.strip_prefix("uv ")?.split_whitespace().next()?;
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    Some(((numbers.next()??, numbers.next()??), version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(version_of_uv("uv 0.13.8 (abc 2026)\n"), Some(((0, 13), "0.13.8")));
        assert_eq!(version_of_uv("nonsense"), None);
    }
}
