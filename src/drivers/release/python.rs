//! Which Python a release runs on.

use super::lock::{pythons_of, untested_lists};
use crate::base::error::Exit;
use crate::host::Host;
use crate::layout::PackageManager;
use crate::settings::{Hardening, Python, Version};
use crate::site::facts::{Facts, Interpreter, Pythons};
use anyhow::{Context, Result};
use serde::Deserialize;

/// What stands in the way of a release, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Missing(pub(crate) String);

/// The Python that the settings ask for; one that the distribution's packages are about to bring is as good.
pub(crate) fn choose_python(wanted: &Python, facts: &Facts, version: Version) -> Result<Interpreter, Missing> {
    let may_run = |minor: &u8| runs_on(version, facts, *minor);
    let pythons = Pythons {
        here: facts.pythons.here.iter().filter(|one| may_run(&one.minor)).cloned().collect(),
        packaged: facts.pythons.packaged.filter(may_run),
    };
    let packaged = |minor| Interpreter { minor, path: format!("/usr/bin/python3.{minor}"), whole: false };
    let choice = match wanted {
        Python::Interpreter(minor, _) | Python::Minor(minor) if !may_run(minor) => None,
        Python::Interpreter(minor, path) => Some(Interpreter { minor: *minor, path: path.clone(), whole: true }),
        Python::Minor(minor) => {
            let mut fit = pythons.here.iter().filter(|one| one.minor == *minor);
            let whole = fit.clone().find(|one| one.whole);
            whole
                .or_else(|| fit.next())
                .cloned()
                .or_else(|| (pythons.packaged == Some(*minor)).then(|| packaged(*minor)))
        }
        Python::Auto => {
            // What lacks only a part that the distribution's packages bring is as good as whole.
            let usable = |one: &&Interpreter| one.whole || pythons.packaged == Some(one.minor);
            let mut here = pythons.here.iter();
            here.clone().find(usable).or_else(|| here.next()).cloned().or_else(|| pythons.packaged.map(packaged))
        }
    };
    choice.ok_or_else(|| missing_python(wanted, facts, version))
}

/// The Pythons that a version runs on, as 3.MINOR, newest first.
fn list_pythons(version: Version, facts: &Facts) -> impl Iterator<Item = u8> {
    pythons_of(version).chain(untested_lists(version, facts).map(|list| list.minor))
}

fn runs_on(version: Version, facts: &Facts, minor: u8) -> bool {
    list_pythons(version, facts).any(|known| known == minor)
}

fn missing_python(wanted: &Python, facts: &Facts, version: Version) -> Missing {
    let known: Vec<String> = list_pythons(version, facts).map(|minor| format!("3.{minor}")).collect();
    let (last, others) = known.split_last().map_or(("", &known[..]), |(last, others)| (last.as_str(), others));
    let known = if others.is_empty() { last.to_owned() } else { format!("{} or {last}", others.join(", ")) };
    let needs = format!("CamCOPS {} needs Python {known}", version.as_str());
    let fits = |minor: &u8| runs_on(version, facts, *minor);
    // A level has newer packages, which run on newer Pythons.
    let newest = Version::newest(Hardening::Auto);
    let runs_on_newest = |minor: u8| pythons_of(newest).any(|known| known == minor);
    let hardened =
        format!("; {} runs on newer ones: set camcops.version and camcops.hardening to \"auto\"", newest.as_str());
    let needed = match wanted {
        Python::Interpreter(minor, _) | Python::Minor(minor) if !fits(minor) => {
            let instead = if runs_on_newest(*minor) { hardened.as_str() } else { "" };
            return Missing(format!("{needs}, and camcops.python asks for 3.{minor}{instead}"));
        }
        Python::Minor(minor) => format!("camcops.python asks for Python 3.{minor}"),
        _ => needs,
    };
    let distribution = match facts.distribution.as_str() {
        "" => "this distribution",
        name => name,
    };
    let instead = match facts.pythons.packaged {
        Some(minor) if !fits(&minor) => {
            return Missing(format!("{needed}, and {distribution} has Python 3.{minor}{hardened}"));
        }
        Some(minor) => format!("set camcops.python = \"3.{minor}\", which {distribution} has"),
        None => format!(
            "{distribution} has no package of it: install one from a source that you trust, with its venv module and headers, and name its interpreter in camcops.python"
        ),
    };
    Missing(format!("{needed}, but there is none in /usr/bin or /usr/local/bin; {instead}"))
}

/// The packages that bring an interpreter of the distribution, what a build needs of it, and what it takes to compile for
/// it; none for one that did not come as a package.
pub(crate) fn python_packages(manager: PackageManager, python: &Interpreter) -> [Vec<String>; 3] {
    if !python.path.starts_with("/usr/bin/") {
        return Default::default();
    }
    let name = format!("python3.{}", python.minor);
    match manager {
        PackageManager::Apt => [vec![name.clone()], vec![format!("{name}-venv")], vec![format!("{name}-dev")]],
        PackageManager::Dnf => {
            [vec![format!("{name} | python3")], Vec::new(), vec![format!("{name}-devel | python3-devel")]]
        }
    }
}

/// What an interpreter says of itself.
#[derive(Debug, Deserialize)]
pub(super) struct Examined {
    version: (u8, u8),
    pub(crate) pip: bool,
    venv: bool,
    headers: bool,
    compiler: Option<String>,
}

const QUESTIONS: &str = "\
import importlib.util, json, os, shlex, shutil, sys, sysconfig
found = lambda name: importlib.util.find_spec(name) is not None
compiler = (shlex.split(sysconfig.get_config_var('CC') or '') or ['cc'])[0]
print(json.dumps({
    'version': sys.version_info[:2],
    'pip': found('ensurepip'),
    'venv': found('venv'),
    'headers': os.path.exists(os.path.join(sysconfig.get_path('include'), 'Python.h')),
    'compiler': None if shutil.which(compiler) else compiler,
}))";

/// Asks an interpreter whether a release can be built on it, with what has to be compiled.
pub(super) fn examine_python(
    host: &Host,
    python: &Interpreter,
    environment: &[(String, String)],
    compiles: bool,
) -> Result<Examined> {
    let Interpreter { minor, path, .. } = python;
    let lacks =
        |what: String, packages: String| Exit::Unreachable.because(format!("{what}; install {packages} and run again"));
    let debian = |packages: &str| match packages.contains(' ') {
        true => format!("{packages} (the names on Debian)"),
        false => format!("{packages} (its name on Debian)"),
    };
    if !super::leads_to_a_program(host, path)? {
        return Err(lacks(
            format!("there is no {path}"),
            debian(&format!("python3.{minor}, python3.{minor}-venv and python3.{minor}-dev")),
        ));
    }
    let answer = super::build::build_child(host, path, environment)
        .args(["-I", "-c", QUESTIONS])
        .run()
        .map_err(|why| Exit::Unreachable.because(format!("{path} does not work: {why:#}")))?;
    let examined: Examined =
        serde_json::from_str(&answer).with_context(|| format!("{path} does not answer as a Python does"))?;
    let (major, found) = examined.version;
    if (major, found) != (3, *minor) {
        return Err(Exit::Unreachable.because(format!(
            "{path} is Python {major}.{found}, not 3.{minor}; name the right one in camcops.python"
        )));
    }
    if !examined.venv {
        return Err(lacks(format!("{path} has no venv module"), debian(&format!("python3.{minor}-venv"))));
    }
    if let Some(compiler) = examined.compiler.as_ref().filter(|_| compiles) {
        return Err(lacks(
            format!("py-bcrypt has to be compiled, and there is no {compiler}"),
            debian("gcc and libc6-dev"),
        ));
    }
    if compiles && !examined.headers {
        return Err(lacks(
            format!("py-bcrypt has to be compiled, and the headers of {path} are missing"),
            debian(&format!("python3.{minor}-dev")),
        ));
    }
    Ok(examined)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newest() -> Version {
        Version::newest(Hardening::Auto)
    }

    /// What CamCOPS asks for itself, whatever a level of it has.
    fn plain() -> Version {
        Version::newest(Hardening::Off)
    }

    fn facts(here: &[(u8, bool)], packaged: Option<u8>) -> Facts {
        let mut facts = Facts::gather(&Host::live().unwrap()).unwrap();
        facts.distribution = "Somelinux 1".into();
        facts.pythons = Pythons {
            here: here
                .iter()
                .map(|(minor, whole)| Interpreter {
                    minor: *minor,
                    path: format!("/usr/bin/python3.{minor}"),
                    whole: *whole,
                })
                .collect(),
            packaged,
        };
        facts
    }

    #[test]
    fn the_newest_usable_python_is_chosen() {
        let minor = |wanted, here: &[_], packaged| {
            choose_python(&wanted, &facts(here, packaged), newest()).map(|python| python.minor)
        };
        assert_eq!(minor(Python::Auto, &[(12, true), (11, true)], Some(11)), Ok(12));
        assert_eq!(minor(Python::Auto, &[(12, false), (11, true)], Some(11)), Ok(11));
        assert_eq!(minor(Python::Auto, &[(12, false), (10, true)], Some(12)), Ok(12));
        assert_eq!(minor(Python::Auto, &[(10, false)], None), Ok(10));
        assert_eq!(minor(Python::Auto, &[], Some(11)), Ok(11));
        assert_eq!(minor(Python::Minor(10), &[(12, true), (10, true)], None), Ok(10));
        assert_eq!(minor(Python::Minor(11), &[(12, true)], Some(11)), Ok(11));
        assert_eq!(minor(Python::Auto, &[(14, true), (13, true)], Some(13)), Ok(14));
    }

    #[test]
    fn upstreams_pins_run_on_no_newer_python() {
        let pythons = facts(&[(13, true), (11, true)], Some(13));
        assert_eq!(choose_python(&Python::Auto, &pythons, plain()).map(|python| python.minor), Ok(11));
        let pythons = facts(&[(13, true)], Some(13));
        let said = |wanted| choose_python(&wanted, &pythons, plain()).unwrap_err().0;
        for wanted in [Python::Auto, Python::Minor(13), Python::Interpreter(13, "/opt/python3.13".into())] {
            let why = said(wanted);
            assert!(
                why.contains("2.4.24 needs Python 3.12, 3.11 or 3.10") && why.contains("2.4.24+1 runs on"),
                "{why}"
            );
        }
        assert_eq!(choose_python(&Python::Auto, &pythons, newest()).map(|python| python.minor), Ok(13));
    }

    #[test]
    fn no_python_is_refused_with_what_to_do() {
        let said = |wanted, packaged| choose_python(&wanted, &facts(&[], packaged), plain()).unwrap_err().0;
        let why = said(Python::Auto, None);
        assert!(why.contains("3.12, 3.11 or 3.10") && why.contains("camcops.python"), "{why}");
        assert!(why.contains("Somelinux 1 has no package"), "{why}");
        let why = said(Python::Minor(12), Some(11));
        assert!(why.contains("camcops.python = \"3.11\""), "{why}");
    }
}
