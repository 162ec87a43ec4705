//! Fetching the files of a release for another machine, and building there and then what comes as source: so that one
//! needs no compiler.

use super::build::{Build, PIP, UV_LOCK, list_pins};
use super::complaints::{explain_failure, is_absent};
use super::index::pip_environment;
use super::{BUILD_LOCK, Missing, Places, ReleaseRecipe, WantedRelease, python};
use crate::archive::bundle::WHEELS;
use crate::archive::bundle::manifest::Built;
use crate::base::error::Exit;
use crate::host::Host;
use crate::settings::Installer;
use anyhow::{Context, Result};

/// The files of a release.
#[derive(Debug)]
pub(crate) struct FetchedRelease {
    pub(crate) files: Vec<String>,
    /// Those that were built here.
    pub(crate) built: Vec<Built>,
}

/// Which release would be fetched; its Python has to be one that packages bring, and all has to be here that it takes to
/// build what comes as source.
pub(crate) fn wanted_release<'a>(host: &Host, recipe: &'a ReleaseRecipe) -> Result<&'a WantedRelease> {
    let wanted = match &recipe.wanted {
        Ok(wanted) => wanted,
        Err(Missing(why)) => return Err(Exit::Unreachable.because(why)),
    };
    if let Some(own) = &wanted.own {
        return Err(Exit::Settings.because(format!(
            "a bundle can only have a published CamCOPS, but camcops.path is {}; set camcops.source to something else for this command, such as --set camcops.source=pypi",
            own.path
        )));
    }
    let python = &wanted.python;
    if !python.path.starts_with("/usr/bin/") {
        return Err(Exit::Unreachable.because(format!(
            "a bundle can only have a Python of the distribution's packages, but {} is not; choose another one, such as --set camcops.python=3.11",
            python.path
        )));
    }
    let examined = python::examine_python(host, python, &[], true)?;
    match examined.pip {
        true => Ok(wanted),
        false => Err(Exit::Unreachable.because(format!(
            "{} has no ensurepip; install python3.{}-venv (its name on Debian) and run again",
            python.path, python.minor
        ))),
    }
}

/// Fetches them into a directory; `work` is a directory of its own for what is needed meanwhile.
pub(crate) fn fetch_release(
    host: &Host,
    recipe: &ReleaseRecipe,
    wanted: &WantedRelease,
    directory: &str,
    work: &str,
) -> Result<FetchedRelease> {
    let places = Places { own: String::new(), new: format!("{work}/venv"), old: String::new(), work: work.to_owned() };
    let build = Build { host, recipe, places: &places, wanted, way: pip_environment(host, &recipe.network)? };
    host.make_directory(&build.work("tmp"), None, 0o700)?;
    let lock = wanted.lock();
    for (name, text) in [("build.txt", BUILD_LOCK), ("camcops.txt", &lock), ("uv.txt", UV_LOCK)] {
        host.put_file(&build.work(name), text.as_bytes(), None, 0o600)?;
    }
    build.run_quietly(
        "the Python environment could not be made",
        build.child(&wanted.python.path).args(["-m", "venv", &places.new]),
    )?;
    build.tell(&format!("fetching {} packages", list_pins(&lock).len()));
    build.run_quietly(
        "the packages that others are built with could not be installed",
        build
            .child(&build.python())
            .args(PIP)
            .args(["--requirement", &build.work("build.txt")])
            .args(build.pip_source()),
    )?;
    for name in ["build.txt", "camcops.txt", "uv.txt"] {
        let ended = build
            .child(&build.python())
            .args(["-m", "pip", "download", "--no-cache-dir", "--no-deps"])
            .args(["--require-hashes", "--no-build-isolation"])
            .args(["--progress-bar", "off", "--retries", "2", "--timeout", "30"])
            .args(["--requirement", &build.work(name), "--dest", directory])
            .args(build.pip_source())
            .end()?;
        if ended.status.success() {
            continue;
        }
        // Where there is no uv, pip does its work.
        if name != "uv.txt" || !is_absent(&ended) || recipe.installer == Installer::Uv {
            return Err(explain_failure(recipe.source.as_deref(), "the packages could not be fetched", &ended));
        }
    }
    let built = build_all(&build, directory, &lock)?;
    Ok(FetchedRelease { files: list_files(host, directory)?, built })
}

fn list_files(host: &Host, directory: &str) -> Result<Vec<String>> {
    Ok(host.list(directory)?.unwrap_or_default())
}

/// Builds what came as source, and takes that away.
fn build_all(build: &Build<'_>, directory: &str, lock: &str) -> Result<Vec<Built>> {
    let (host, aside) = (build.host, build.work("built"));
    let mut all = Vec::new();
    for source in list_files(host, directory)? {
        if source.ends_with(".whl") {
            continue;
        }
        let pin = pin_of(&source, lock).with_context(|| format!("{source} is not a package of this release"))?;
        build.tell(&format!("building {pin}"));
        host.make_directory(&aside, None, 0o700)?;
        let path = format!("{directory}/{source}");
        build.run_quietly(
            &format!("{pin} could not be built"),
            build.child(&build.python()).args(["-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]).args([
                "--no-index",
                "--wheel-dir",
                &aside,
                &path,
            ]),
        )?;
        for name in list_files(host, &aside)? {
            host.rename(&format!("{aside}/{name}"), &format!("{directory}/{name}"))?;
            all.push(Built { pin: pin.to_owned(), path: format!("{WHEELS}/{name}") });
        }
        host.remove_file(&path)?;
        host.remove_tree(&aside)?;
    }
    Ok(all)
}

/// The pin of a source, by the name of its file.
fn pin_of<'a>(source: &str, lock: &'a str) -> Option<&'a str> {
    let plain = |name: &str| name.to_lowercase().replace(['_', '.'], "-");
    let stem = [".tar.gz", ".zip", ".tar.bz2"].iter().find_map(|ending| source.strip_suffix(ending))?;
    let (name, version) = stem.rsplit_once('-')?;
    list_pins(lock).into_iter().find(|pin| {
        pin.split_once("==").is_some_and(|(known, pinned)| plain(known) == plain(name) && pinned == version)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_one_of_the_pins() {
        let lock = "chameleon==3.8.1 \\\n    --hash=sha256:aa\ndogpile-cache==0.9.2 \\\n    --hash=sha256:bb\n";
        assert_eq!(pin_of("Chameleon-3.8.1.tar.gz", lock), Some("chameleon==3.8.1"));
        assert_eq!(pin_of("dogpile.cache-0.9.2.tar.gz", lock), Some("dogpile-cache==0.9.2"));
        assert_eq!(pin_of("chameleon-3.8.2.tar.gz", lock), None);
    }
}
