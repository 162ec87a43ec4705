//! Releases of the application: each a Python environment of its own, made beside the others and never changed after.
//!
//! A release is named after what it is made of. It is built under another name in the same directory, checked, and made
//! to last before it gets its own name; so a release that has its name is whole, however a run ended.
//!
//! Facets: `state` (complete, damaged, half built, not cleared up) and `python`, the interpreter that it runs on.

mod build;
mod complaints;
pub(crate) mod fetch;
pub(crate) mod hardening;
pub(super) mod index;
mod list;
mod lock;
pub(crate) mod newer;
pub(crate) mod own;
pub(crate) mod pdf;
pub(crate) mod python;
mod tool;
pub(crate) mod untested;
mod whole;

use crate::archive::bundle::Bundle;
use crate::archive::bundle::{UNPACKED, WHEELS};
use crate::base::progress::Tell;
use crate::base::text::encode_hex;
use crate::host::{Host, PathKind};
use crate::layout::RELEASES;
use crate::resource::{Enforced, FacetValue, Facets, Resource, State};
use crate::settings::{Internet, Settings, Source, Version};
use crate::site::facts::Facts;
use crate::site::facts::{Interpreter, OwnSource};
use anyhow::{Context, Result};
pub(crate) use list::{Installed, current_release, installed_releases};
use lock::lock_without;
pub(crate) use lock::{newest_pins, pinned_release};
pub(crate) use pdf::PdfEngine;
pub(crate) use python::Missing;
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
pub(crate) use whole::{Search, Thoroughness, find_hole};

const BUILD_LOCK: &str = include_str!("../../requirements/build.txt");
const OVERRIDES: &str = include_str!("../../requirements/overrides.txt");
const FINISH: &str = include_str!("release/finish.py");
/// What a whole release is said to be that is built again.
const REBUILT: &str = "to be rebuilt";
/// A link that leads to a link: more than this is not how an interpreter is found.
const MOST_LINKS: usize = 8;
/// Without one of these a release is of no use.
const PARTS: [&str; 5] = ["bin/camcops_server", "bin/celery", "bin/gunicorn", "static", "extra_strings"];

#[derive(Debug, Clone)]
pub(crate) struct WantedRelease {
    pub(crate) id: String,
    pub(crate) version: Version,
    pub(crate) python: Interpreter,
    pub(crate) pdf: PdfEngine,
    /// Its packages, where no list of this program has them.
    untested: Option<Rc<str>>,
    /// The administrator's own CamCOPS, in place of the index's.
    own: Option<OwnSource>,
}

impl WantedRelease {
    /// The release that the settings ask for on this machine; or what is missing for it.
    pub(crate) fn new(settings: &Settings, facts: &Facts) -> Result<WantedRelease, Missing> {
        WantedRelease::of(settings, facts, settings.camcops.wanted_version())
    }

    /// The release of a version on this machine; or what is missing for it.
    pub(crate) fn of(settings: &Settings, facts: &Facts, version: Version) -> Result<WantedRelease, Missing> {
        refuse_unknown(version, facts)?;
        let python = python::choose_python(&settings.camcops.python, facts, version)?;
        let pdf = PdfEngine::for_version(version, settings, facts)?;
        let untested = lock::untested_lists(version, facts).find(|list| list.minor == python.minor);
        let untested = untested.map(|list| list.lock.clone());
        let own = own::source_of(facts.own_source.as_ref(), version)?;
        let id = match (&untested, &own) {
            (None, None) => release_id(version, python.minor, pdf),
            _ => String::new(),
        };
        let mut wanted = WantedRelease { id, version, python, pdf, untested, own };
        if wanted.id.is_empty() {
            let mut made_of = wanted.lock();
            if let Some(own) = &wanted.own {
                made_of.push_str(&own.digest);
            }
            wanted.id = name_release(version, wanted.python.minor, pdf, &made_of);
        }
        Ok(wanted)
    }

    /// Its packages, with their hashes.
    fn lock(&self) -> String {
        let lock = match &self.untested {
            None => lock_without(self.version, self.python.minor, self.pdf.left_out()),
            Some(list) => lock::leave_out(list, self.pdf.left_out()),
        };
        match self.own {
            Some(_) => lock::leave_out(&lock, own::PACKAGE),
            None => lock,
        }
    }

    /// What is wanted of it.
    pub(crate) fn facets(&self) -> Facets {
        Facets::new().with("state", "complete").with("python", self.python.path.as_str())
    }
}

/// What it takes to build a release on this machine.
#[derive(Debug)]
pub(crate) struct ReleaseRecipe {
    wanted: Result<WantedRelease, Missing>,
    source: Option<String>,
    /// Where all of it is built already.
    from_bundle: bool,
    /// What its files are taken from, if that is a bundle.
    bundle: Option<Rc<Bundle>>,
    installer: crate::settings::Installer,
    network: Internet,
    magick_library: &'static str,
    magick_suffix: &'static str,
    /// Whether it is built again though it is whole.
    pub(crate) rebuild: Cell<bool>,
    pub(crate) tell: Tell,
}

impl ReleaseRecipe {
    /// For a site; `tell` is told what is going on.
    pub(crate) fn new(settings: &Settings, facts: &Facts, bundle: Option<Rc<Bundle>>, tell: Tell) -> ReleaseRecipe {
        let Settings { camcops, network, .. } = settings;
        ReleaseRecipe {
            wanted: WantedRelease::new(settings, facts),
            source: match camcops.source {
                Source::Pypi => None,
                Source::Wheelhouse | Source::Path => camcops.wheelhouse.as_ref().map(|path| path.as_str().into()),
                Source::Bundle => Some(format!("{UNPACKED}/{WHEELS}")),
            },
            from_bundle: camcops.source == Source::Bundle,
            bundle,
            installer: camcops.installer,
            network: network.clone(),
            magick_library: facts.magick_library(),
            magick_suffix: facts.magick_suffix(),
            rebuild: Cell::default(),
            tell,
        }
    }

    /// Whether this release is to be built again though it is whole.
    pub(crate) fn is_to_be_rebuilt(&self, id: &str) -> bool {
        self.rebuild.get() && matches!(&self.wanted, Ok(wanted) if wanted.id == id)
    }
}

/// The name of a release: version, Python, and a digest of what else it is made of.
fn release_id(version: Version, minor: u8, pdf: PdfEngine) -> String {
    // Several ask for it in one run, and a lock is long.
    static NAMES: Mutex<BTreeMap<(&str, u8, PdfEngine), String>> = Mutex::new(BTreeMap::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    names
        .entry((version.as_str(), minor, pdf))
        .or_insert_with(|| name_release(version, minor, pdf, &lock_without(version, minor, pdf.left_out())))
        .clone()
}

fn name_release(version: Version, minor: u8, pdf: PdfEngine, lock: &str) -> String {
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    for text in [BUILD_LOCK, lock, FINISH].into_iter().chain(pdf.hook().iter().map(|(_, text)| *text)) {
        digest.update(text.as_bytes());
    }
    let digest = encode_hex(&digest.finish().as_ref()[..4]);
    format!("{}-py3.{minor}-{digest}", version.as_str())
}

/// Refuses a version of which nothing is known here.
fn refuse_unknown(version: Version, facts: &Facts) -> Result<(), Missing> {
    if version.is_known() || lock::untested_lists(version, facts).next().is_some() {
        return Ok(());
    }
    Err(Missing(format!(
        "camcops.version asks for CamCOPS {0}, which this camcops-provision does not know; a newer one may know it, or try `camcops-provision upgrade --to {0} --untested`",
        version.as_str()
    )))
}

/// The places of one release: its own, and those that are there only while it is made or removed.
#[derive(Debug)]
struct Places {
    own: String,
    /// Where it is built.
    new: String,
    /// What it replaces, or what is being removed.
    old: String,
    /// Downloads and temporary files.
    work: String,
}

impl Places {
    fn of(id: &str) -> Places {
        Places {
            own: format!("{RELEASES}/{id}"),
            new: format!("{RELEASES}/.{id}.new"),
            old: format!("{RELEASES}/.{id}.old"),
            work: format!("{RELEASES}/.{id}.work"),
        }
    }

    fn passing(&self) -> [&str; 3] {
        [&self.new, &self.old, &self.work]
    }

    fn remove_passing(&self, host: &Host) -> Result<()> {
        self.passing().into_iter().try_for_each(|path| host.remove_tree(path))
    }
}

/// What a release says of itself.
#[derive(Debug, Serialize, Deserialize)]
struct About {
    release: String,
    version: String,
    python: String,
    installer: String,
    /// Releases of earlier versions know wkhtmltopdf only.
    #[serde(default)]
    pdf_engine: Option<PdfEngine>,
}

/// What there is of a release, of one that is to be built again as if it were damaged.
pub(crate) async fn observe_with(recipe: Option<&ReleaseRecipe>, host: &Host, id: &str) -> Result<State> {
    let seen = observe(host, id).await?;
    Ok(match recipe.is_some_and(|recipe| recipe.is_to_be_rebuilt(id)) && seen != State::Absent {
        true => with_state(REBUILT),
        false => seen,
    })
}

/// What there is of a release.
async fn observe(host: &Host, id: &str) -> Result<State> {
    let places = Places::of(id);
    let mut left_over = false;
    for path in places.passing() {
        left_over |= host.stat(path)?.is_some();
    }
    let about = match host.stat(&places.own)? {
        None if left_over => return Ok(with_state("half built")),
        None => return Ok(State::Absent),
        Some(_) => read_about(host, &places, id)?,
    };
    let Some(about) = about else {
        return Ok(with_state("damaged"));
    };
    if find_hole(host, &places.own, Thoroughness::Quick).await?.is_some() {
        return Ok(with_state("damaged"));
    }
    let state = match left_over {
        true => "not cleared up",
        false => "complete",
    };
    Ok(State::Present(Facets::new().with("state", state).with("python", about.python)))
}

pub(crate) fn is_whole(host: &Host, id: &str) -> Result<bool> {
    Ok(read_about(host, &Places::of(id), id)?.is_some())
}

/// The version that a whole release says it is.
pub(crate) fn version_of(host: &Host, id: &str) -> Result<Option<String>> {
    Ok(read_about(host, &Places::of(id), id)?.map(|about| about.version))
}

/// What makes PDF documents in a whole release.
pub(crate) fn pdf_engine_of(host: &Host, id: &str) -> Result<Option<PdfEngine>> {
    let about = read_about(host, &Places::of(id), id)?;
    Ok(about.map(|about| about.pdf_engine.unwrap_or(PdfEngine::Wkhtmltopdf)))
}

/// MiB that a release needs where releases are, and that are free there.
pub(crate) fn room_needed(host: &Host) -> Result<(u64, u64)> {
    let free = host.space(RELEASES)?.free_bytes;
    Ok((build::NEEDED_MIB, free >> 20))
}

fn with_state(state: &str) -> State {
    State::Present(Facets::new().with("state", state))
}

/// What a whole release says of itself; nothing if something of it is missing.
fn read_about(host: &Host, places: &Places, id: &str) -> Result<Option<About>> {
    let is_directory = |entry: &crate::host::PathInfo| entry.kind == PathKind::Directory;
    if !host.stat(&places.own)?.as_ref().is_some_and(is_directory) {
        return Ok(None);
    }
    let Some(text) = host.read_text(&format!("{}/release.json", places.own))? else {
        return Ok(None);
    };
    let about: Option<About> = serde_json::from_str(&text).ok();
    for part in PARTS {
        if host.stat(&format!("{}/{part}", places.own))?.is_none() {
            return Ok(None);
        }
    }
    if !leads_to_a_program(host, &format!("{}/bin/python", places.own))? {
        return Ok(None);
    }
    Ok(about.filter(|about| about.release == id))
}

/// Whether a path is a program, or a link that leads to one.
fn leads_to_a_program(host: &Host, path: &str) -> Result<bool> {
    Ok(end_of(host, path)?.is_some_and(|mode| mode & 0o111 != 0))
}

/// Whether a path is a file, or a link that leads to one.
fn leads_somewhere(host: &Host, path: &str) -> Result<bool> {
    Ok(end_of(host, path)?.is_some())
}

/// The mode of the file that a path leads to.
fn end_of(host: &Host, path: &str) -> Result<Option<u32>> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let Some(entry) = host.stat(&path)? else {
            return Ok(None);
        };
        match entry.kind {
            PathKind::File => return Ok(Some(entry.mode)),
            PathKind::Symlink => {}
            _ => return Ok(None),
        }
        let target = host.read_link(&path)?.unwrap_or_default();
        path = match (target.starts_with('/'), path.rsplit_once('/')) {
            (false, Some((directory, _))) => format!("{directory}/{target}"),
            _ => target,
        };
    }
    Ok(None)
}

/// Refuses a plan that can't be carried out, before any of it is.
pub(crate) fn refuse_offline<'a>(
    recipe: &ReleaseRecipe,
    host: &Host,
    planned: impl Iterator<Item = &'a Resource>,
) -> Result<()> {
    for resource in planned {
        if let Resource::Release(id) = resource {
            build::refuse_offline(recipe, id)?;
            if let Some(bundle) = &recipe.bundle {
                bundle.refuse_other(host, id)?;
            }
        }
    }
    Ok(())
}

pub(crate) fn enforce(
    recipe: Option<&ReleaseRecipe>,
    host: &Host,
    id: &str,
    before: &State,
    after: &State,
) -> Result<Enforced> {
    let places = Places::of(id);
    let State::Present(wanted) = after else {
        return remove_release(host, id, &places);
    };
    match wanted.text("state") {
        // Taken back, to what an attempt had left before: of no use to anybody.
        Some("half built") => {
            return Ok(match remove_release(host, id, &places)? {
                Enforced::Done => Enforced::LeftAlone("an unfinished earlier one was removed too".into()),
                left => left,
            });
        }
        // Taken back: whoever had put it there before has as much of it as then, and more.
        Some("damaged" | REBUILT) => {
            return Ok(Enforced::LeftAlone("it was there before camcops-provision, and is left as it is".into()));
        }
        _ => {}
    }
    let is_whole = before.get("state") == Some(&FacetValue::from("not cleared up"))
        && before.get("python") == wanted.get("python");
    if !is_whole {
        let recipe = recipe.context("a release can't be built on this machine")?;
        build::build_release(host, recipe, id, &places)?;
        recipe.rebuild.set(false);
    }
    places.remove_passing(host)?;
    Ok(Enforced::Done)
}

fn remove_release(host: &Host, id: &str, places: &Places) -> Result<Enforced> {
    let current = format!("{}/venv", crate::layout::APPLICATION);
    let target = host.read_link(&current)?.unwrap_or_default();
    if target.rsplit('/').next() == Some(id) {
        return Ok(Enforced::LeftAlone(format!("{} still points to it", host.outside(&current))));
    }
    host.remove_tree(&places.old)?;
    if host.stat(&places.own)?.is_some() {
        // All of it goes at once: half a release under its own name would look like a whole one.
        host.rename(&places.own, &places.old)?;
    }
    places.remove_passing(host)?;
    Ok(Enforced::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Python;

    fn block_on<T>(looking: impl Future<Output = Result<T>>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(looking).unwrap()
    }

    #[test]
    fn every_lock_pins_this_version_with_hashes() {
        let all = Version::known();
        for (version, minor) in all.flat_map(|version| lock::pythons_of(version).map(move |minor| (version, minor))) {
            let lock = lock::lock(version, minor);
            assert!(Python::MINORS.contains(&minor));
            let version = version.of_camcops();
            assert!(lock.contains(&format!("\ncamcops-server=={version} \\\n    --hash=sha256:")));
            let pins = build::list_pins(&lock);
            assert!(pins.iter().any(|pin| pin.starts_with("pymysql==")));
            let hashed = lock.matches("== \\\n").count();
            assert_eq!(hashed, 0);
            assert_eq!(lock.matches(" \\\n    --hash=").count(), lock.matches("--hash=").count());
        }
        assert!(
            release_id(Version::named("2.4.23").unwrap(), 11, PdfEngine::Wkhtmltopdf).starts_with("2.4.23-py3.11-")
        );
        assert_eq!(release_id(Version::named("2.4.24").unwrap(), 11, PdfEngine::Wkhtmltopdf), "2.4.24-py3.11-8abb04ce");
    }

    #[test]
    fn taking_back_leaves_a_release_that_was_there_before() {
        let home = tempfile::tempdir().unwrap();
        let host = Host::staged(home.path()).unwrap();
        std::fs::create_dir_all(home.path().join(&Places::of("x").own[1..])).unwrap();
        let back_to = |state| enforce(None, &host, "x", &with_state("complete"), &with_state(state)).unwrap();
        let done = back_to("damaged");
        assert!(matches!(done, Enforced::LeftAlone(_)), "{done:?}");
        assert_eq!(block_on(observe(&host, "x")), with_state("damaged"));
        assert!(matches!(back_to("half built"), Enforced::LeftAlone(_)));
        assert_eq!(block_on(observe(&host, "x")), State::Absent);
    }

    #[test]
    fn a_whole_release_is_built_again_where_that_is_asked_for() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join("etc")).unwrap();
        std::fs::write(home.path().join("etc/os-release"), "ID=debian\nVERSION_ID=\"12\"\n").unwrap();
        let host = Host::staged(home.path()).unwrap();
        let recipe = ReleaseRecipe::new(&Settings::default(), &Facts::gather(&host).unwrap(), None, Tell::NOBODY);
        let id = recipe.wanted.as_ref().unwrap().id.clone();
        let state = |id: &str| block_on(observe_with(Some(&recipe), &host, id));
        recipe.rebuild.set(true);
        assert_eq!(state(&id), State::Absent);
        for one in [id.as_str(), "x"] {
            std::fs::create_dir_all(home.path().join(&Places::of(one).own[1..])).unwrap();
        }
        assert_eq!((state(&id), state("x")), (with_state(REBUILT), with_state("damaged")));
        let back = enforce(None, &host, &id, &with_state("complete"), &with_state(REBUILT)).unwrap();
        assert!(matches!(back, Enforced::LeftAlone(_)));
        recipe.rebuild.set(false);
        assert_eq!(state(&id), with_state("damaged"));
    }

    #[test]
    fn an_unfinished_release_is_none() {
        let home = tempfile::tempdir().unwrap();
        let host = Host::staged(home.path()).unwrap();
        let places = Places::of("x");
        let at = |path: &str| home.path().join(&path[1..]);
        let state = || block_on(observe(&host, "x"));
        assert_eq!(state(), State::Absent);
        std::fs::create_dir_all(at(&places.work)).unwrap();
        assert_eq!(state(), with_state("half built"));
        std::fs::create_dir_all(at(&places.own)).unwrap();
        assert_eq!(state(), with_state("damaged"));
        enforce(None, &host, "x", &state(), &State::Absent).unwrap();
        assert_eq!(state(), State::Absent);
        assert_eq!(host.list(RELEASES).unwrap().unwrap().len(), 0);
    }
}
