//! A version of CamCOPS that this program was never tested with, tried all the same: its packages are found on the spot, and
//! what they are is written down, so that all that comes later installs the same.
//!
//! Where it asks for the same as the release that is in use, the packages are those of the newest release that is known.

use super::build::{Build, list_pins};
use super::complaints::explain_failure;
use super::hardening::HARDENING;
use super::index::pip_environment;
use super::lock::lock;
use super::tool::Tool;
use super::{BUILD_LOCK, Missing, OVERRIDES, Places, ReleaseRecipe, WantedRelease, python};
use crate::base::error::Exit;
use crate::host::Host;
use crate::layout::{RELEASES, path_beside_journal};
use crate::settings::{Hardening, Settings, Source, Version};
use crate::site::facts::{Facts, UntestedList};
use anyhow::{Context, Result};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What CamCOPS itself does not ask for, and needs.
const BESIDES: &str = include_str!("../../../requirements/camcops.in");

/// How the packages of such a version differ from those of the newest release that is known.
#[derive(Debug, Default, Serialize)]
pub(crate) struct UntestedChanges {
    pub(crate) changed: Vec<String>,
    pub(crate) added: Vec<String>,
    pub(crate) removed: Vec<String>,
}

/// Where the list of a version stands.
fn list_path(instance: &str, version: &str, minor: u8) -> String {
    path_beside_journal(instance, &format!("untested-{version}-py3.{minor}.txt"))
}

/// The lists that were made here.
pub(crate) fn read_lists(host: &Host, instance: &str) -> Result<Vec<UntestedList>> {
    let home = crate::layout::instance_directory(instance);
    let mut lists = Vec::new();
    for name in host.list(&home)?.unwrap_or_default() {
        let parts = name.strip_prefix("untested-").and_then(|rest| rest.strip_suffix(".txt")?.split_once("-py3."));
        let Some((version, minor)) = parts else { continue };
        let Some(minor) = minor.parse().ok().filter(|_| Version::is_beyond(version)) else { continue };
        if let Some(lock) = host.read_text(&list_path(instance, version, minor))? {
            lists.push(UntestedList { version: version.to_owned(), minor, lock: lock.into() });
        }
    }
    // The newest Python first.
    lists.sort_by_key(|list| std::cmp::Reverse(list.minor));
    Ok(lists)
}

/// Writes a list down.
pub(crate) fn keep_list(host: &Host, instance: &str, list: &UntestedList) -> Result<()> {
    let path = list_path(instance, &list.version, list.minor);
    host.put_file(&path, list.lock.as_bytes(), Some((0, 0)), 0o600)
}

/// What the list of such a version has otherwise than the newest release that is known.
pub(crate) fn compare_list(list: &UntestedList) -> UntestedChanges {
    fn by_name(lock: &str) -> BTreeMap<&str, &str> {
        list_pins(lock).into_iter().filter_map(|pin| pin.split_once("==")).collect()
    }
    let newest = lock(Version::newest(Hardening::Auto), list.minor);
    let (old, new) = (by_name(&newest), by_name(&list.lock));
    let names: BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
    let mut changes = UntestedChanges::default();
    for name in names {
        match (old.get(name), new.get(name)) {
            (Some(old), Some(new)) if old != new => changes.changed.push(format!("{name} {old} -> {new}")),
            (None, Some(new)) => changes.added.push(format!("{name} {new}")),
            (Some(_), None) => changes.removed.push(name.to_owned()),
            _ => {}
        }
    }
    changes
}

/// Finds the packages of such a version.
pub(crate) fn find_packages(
    host: &Host,
    recipe: &ReleaseRecipe,
    settings: &Settings,
    facts: &Facts,
    version: Version,
) -> Result<UntestedList> {
    if settings.network.offline || settings.camcops.source != Source::Pypi {
        return Err(Exit::Unreachable.because(format!(
            "CamCOPS {} is not known to this camcops-provision: its packages can only be found in the package index, and not with --offline, --wheelhouse or --bundle",
            version.as_str()
        )));
    }
    // What the newest one that is known runs on is the best guess.
    let newest = Version::newest(Hardening::Auto);
    let python = python::choose_python(&settings.camcops.python, facts, newest)
        .map_err(|Missing(why)| Exit::Unreachable.because(why))?;
    let places = Places::of(&format!("{}-untested", version.as_str()));
    let wanted = WantedRelease {
        id: version.as_str().to_owned(),
        version,
        pdf: super::pdf::PdfEngine::of(settings, facts).map_err(|Missing(why)| Exit::Unreachable.because(why))?,
        python,
        untested: None,
        own: None,
    };
    let build = Build { host, recipe, places: &places, wanted: &wanted, way: pip_environment(host, &recipe.network)? };
    let found = build.find_packages();
    // Nothing of it is of use later.
    let cleared = places.remove_passing(host);
    let lock = found?;
    cleared?;
    Ok(UntestedList { version: version.as_str().to_owned(), minor: wanted.python.minor, lock: lock.into() })
}

impl Build<'_> {
    fn find_packages(&self) -> Result<String> {
        let (host, version) = (self.host, self.wanted.version.as_str());
        self.places.remove_passing(host)?;
        for path in [&self.places.new, &self.places.work, &self.work("tmp")] {
            host.make_directory(path, Some((0, 0)), 0o700)?;
        }
        let examined = python::examine_python(host, &self.wanted.python, &self.variables(), true)?;
        host.put_file(&self.work("uv.txt"), super::build::UV_LOCK.as_bytes(), None, 0o600)?;
        let Tool::Uv(uv, _) = self.tool(&examined)? else {
            return Err(Exit::Unreachable.because(
                "only uv can find the packages of a version that is not known, and it is not available here: install uv, or set camcops.installer = \"auto\"",
            ));
        };
        self.tell("asking the package index for its dependencies");
        let own = self.requirements_of_it(&uv)?;
        let overrides = self.overrides_beside(&own)?;
        let added = HARDENING.additions.iter().map(|one| one.package.as_str());
        let asked: String = BESIDES.lines().skip(1).chain(added).map(|line| format!("{line}\n")).collect();
        let newest = lock(Version::newest(Hardening::Auto), self.wanted.python.minor);
        for (name, text) in [
            ("wanted.in", format!("camcops-server=={version}\n{asked}")),
            ("overrides.txt", overrides),
            ("build.txt", BUILD_LOCK.to_owned()),
            // uv keeps the pins of what it writes again, where it may.
            ("found.txt", newest),
        ] {
            host.put_file(&self.work(name), text.as_bytes(), None, 0o600)?;
        }
        let found = self.work("found.txt");
        let ended = self
            .child(&uv)
            .args(["pip", "compile", &self.work("wanted.in"), "--python", &self.wanted.python.path])
            .args(["--overrides", &self.work("overrides.txt"), "--build-constraints", &self.work("build.txt")])
            .args(["--generate-hashes", "--no-annotate", "--no-header", "--quiet", "--output-file", &found])
            .end()?;
        if !ended.status.success() {
            return Err(explain_failure(None, &format!("there are no packages for CamCOPS {version}"), &ended));
        }
        host.read_text(&found)?.with_context(|| format!("uv wrote no {found}"))
    }

    /// What CamCOPS says that it needs, as it stands in its wheel: nothing of it is run.
    fn requirements_of_it(&self, uv: &str) -> Result<Vec<String>> {
        let version = self.wanted.version.as_str();
        let ended = self
            .child(uv)
            .args(["pip", "install", "--python", &self.wanted.python.path, "--target", &self.places.new])
            .args(["--no-deps", "--only-binary", ":all:", &format!("camcops-server=={version}")])
            .end()?;
        if !ended.status.success() {
            return Err(explain_failure(None, &format!("CamCOPS {version} is not available"), &ended));
        }
        let found = read_requirements(self.host, &self.places.new)?;
        found.with_context(|| format!("CamCOPS {version} does not say what it needs"))
    }

    /// The overrides of the newest release that is known, of what is asked for in the same words as by the release in use.
    fn overrides_beside(&self, own: &[String]) -> Result<String> {
        let current = super::current_release(self.host)?.unwrap_or_default();
        let about = super::read_about(self.host, &Places::of(&current), &current)?;
        let minor = about.and_then(|about| about.python.rsplit('.').next()?.parse::<u8>().ok());
        let minor = minor.unwrap_or(self.wanted.python.minor);
        let packages = format!("{RELEASES}/{current}/lib/python3.{minor}/site-packages");
        let theirs = read_requirements(self.host, &packages)?.unwrap_or_default();
        let asks = |all: &[String], name: &str| {
            all.iter().find(|line| requirement_name(line).eq_ignore_ascii_case(name)).cloned()
        };
        let newest = lock(Version::newest(Hardening::Auto), self.wanted.python.minor);
        let overridden =
            OVERRIDES.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split("==").next());
        let overridden: BTreeSet<&str> =
            overridden.chain(HARDENING.overrides.iter().map(|one| one.package.as_str())).collect();
        let pins = list_pins(&newest);
        let same = pins.into_iter().filter(|pin| {
            let name = pin.split("==").next().unwrap_or_default();
            overridden.contains(name) && asks(own, name) == asks(&theirs, name)
        });
        Ok(same.map(|pin| format!("{pin}\n")).collect())
    }
}

/// The name at the beginning of a requirement.
fn requirement_name(line: &str) -> String {
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c))).unwrap_or(line.len());
    line[..end].replace(['_', '.'], "-")
}

/// What the CamCOPS in a directory of packages says that it needs.
fn read_requirements(host: &Host, packages: &str) -> Result<Option<Vec<String>>> {
    let names = host.list(packages)?.unwrap_or_default();
    let Some(own) = names.iter().find(|name| name.starts_with("camcops_server-") && name.ends_with(".dist-info"))
    else {
        return Ok(None);
    };
    let text = host.read_text(&format!("{packages}/{own}/METADATA"))?.unwrap_or_default();
    let head = text.lines().take_while(|line| !line.is_empty());
    let lines = head.filter_map(|line| line.strip_prefix("Requires-Dist: ")).map(str::to_owned);
    Ok(Some(lines.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_kept_beside_the_journal() {
        let home = tempfile::tempdir().unwrap();
        let host = Host::staged(home.path()).unwrap();
        std::fs::create_dir_all(home.path().join("var/lib/camcops-provision/camcops")).unwrap();
        let list = |version: &str, minor| UntestedList {
            version: version.into(),
            minor,
            lock: "camcops-server==2.4.99 \\\n    --hash=sha256:aa\n".into(),
        };
        for one in [list("2.4.99", 11), list("2.4.99", 13), list("2.4.9", 11)] {
            keep_list(&host, "camcops", &one).unwrap();
        }
        let found = read_lists(&host, "camcops").unwrap();
        // One that is known by now is of no use.
        assert_eq!(found.iter().map(|list| list.minor).collect::<Vec<_>>(), [13, 11]);
        assert!(read_lists(&host, "other").unwrap().is_empty());
        let changes = compare_list(&found[1]);
        assert!(changes.changed.iter().any(|one| one.starts_with("camcops-server 2.4.24 -> 2.4.99")), "{changes:?}");
        assert!(changes.removed.contains(&"pymysql".to_owned()) && changes.added.is_empty());
    }

    #[test]
    fn requirements_are_read_from_the_head() {
        let home = tempfile::tempdir().unwrap();
        let host = Host::staged(home.path()).unwrap();
        let info = home.path().join("p/camcops_server-2.4.99.dist-info");
        std::fs::create_dir_all(&info).unwrap();
        std::fs::write(
            info.join("METADATA"),
            "Name: x\nRequires-Dist: Flower==2.0\nRequires-Dist: a_b>=1; x\n\nRequires-Dist: no\n",
        )
        .unwrap();
        let found = read_requirements(&host, "/p").unwrap().unwrap();
        assert_eq!(found.iter().map(|line| requirement_name(line)).collect::<Vec<_>>(), ["Flower", "a-b"]);
        assert!(read_requirements(&host, "/q").unwrap().is_none());
    }
}
