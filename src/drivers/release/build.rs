//! How a release is built: the environment, the packages, the last touches, the check, and its own name at the end.

use super::complaints::explain_failure;
use super::hardening::HARDENING;
use super::index::{mask_login, pip_environment};
use super::lock::replace_pins;
use super::own;
use super::python::{self, Examined, Missing};
use super::tool::Tool;
use super::{About, BUILD_LOCK, FINISH, OVERRIDES, Places, ReleaseRecipe, WantedRelease, whole};
use crate::archive::bundle::manifest::Built;
use crate::base::error::Exit;
use crate::base::progress::{Amount, Unit};
use crate::host::{Child, Ended, Host};
use crate::layout::RELEASES;
use crate::settings::Version;
use anyhow::{Context, Result, bail};
use std::fmt::Write as _;
use std::time::Instant;

pub(super) const UV_LOCK: &str = include_str!("../../../requirements/uv.txt");
const CHECK: &str = include_str!("check.py");
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// A release with its bytecode and what is fetched for it.
pub(super) const NEEDED_MIB: u64 = 1536;
const NEEDED_FILES: u64 = 80_000;
/// Whoever owns nothing, where the machine has no such name.
pub(super) const NOBODY: u32 = 65534;
/// Where pip and uv keep what they have fetched.
const DOWNLOADS: [&str; 2] = ["pip", "uv"];

/// A build under way.
pub(super) struct Build<'a> {
    pub(super) host: &'a Host,
    pub(super) recipe: &'a ReleaseRecipe,
    pub(super) places: &'a Places,
    pub(super) wanted: &'a WantedRelease,
    /// The way to the index.
    pub(super) way: Vec<(String, String)>,
}

/// Builds a release, and gives it its name when it is whole.
pub(super) fn build_release(host: &Host, recipe: &ReleaseRecipe, id: &str, places: &Places) -> Result<()> {
    let wanted = match &recipe.wanted {
        Ok(wanted) if wanted.id == id => wanted,
        Ok(wanted) => bail!("release {id} can't be built, only {}", wanted.id),
        Err(Missing(why)) => return Err(Exit::Unreachable.because(why)),
    };
    refuse_offline(recipe, id)?;
    let build = Build { host, recipe, places, wanted, way: pip_environment(host, &recipe.network)? };
    let start = Instant::now();
    if let Some(bundle) = &recipe.bundle {
        bundle.unpacked(host)?;
    }
    if let Err(why) = build.make() {
        // The next run clears up what can't be removed now, or says why not.
        let _ = build.leave_downloads();
        return Err(why);
    }
    build.tell(&format!("ready after {} s", start.elapsed().as_secs()));
    Ok(())
}

/// Refuses to fetch what may not be fetched.
pub(super) fn refuse_offline(recipe: &ReleaseRecipe, id: &str) -> Result<()> {
    if recipe.network.offline && recipe.source.is_none() {
        return Err(Exit::Unreachable.because(format!(
            "release {id} has to be downloaded, which is not possible now (--offline, or dpkg is running); give its files with --wheelhouse DIR or --bundle FILE"
        )));
    }
    Ok(())
}

impl Build<'_> {
    pub(super) fn tell(&self, what: &str) {
        self.recipe.tell.line(&format!("release {}: {what}", self.wanted.id));
    }

    fn tell_amount(&self, what: &str, done: usize, all: usize) {
        let what = format!("release {}: {what}", self.wanted.id);
        self.recipe.tell.amount(Amount { what: &what, done: done as u64, all: all as u64, unit: Unit::Items });
    }

    fn make(&self) -> Result<()> {
        let examined = self.prepare()?;
        let tool = self.tool(&examined)?;
        self.copy_own_source()?;
        self.install(&tool)?;
        self.finish(&tool)?;
        self.check()?;
        self.name()
    }

    /// After a failure: removes what is of no use to the next attempt, which is all but what was fetched.
    fn leave_downloads(&self) -> Result<()> {
        let Places { new, work, .. } = self.places;
        for path in [new, &self.work("tmp"), &self.work("tool"), &self.work("own")] {
            self.host.remove_tree(path)?;
        }
        let left = self.host.list(work)?.unwrap_or_default();
        match left.iter().any(|name| DOWNLOADS.contains(&name.as_str())) {
            true => Ok(()),
            false => self.host.remove_tree(work),
        }
    }

    /// Checks what can be checked before anything is fetched, and clears up after an earlier attempt; what that one
    /// has fetched is kept.
    fn prepare(&self) -> Result<Examined> {
        let Places { new, old, work, .. } = self.places;
        if let Some(source) = &self.recipe.source
            && self.host.directory(source)?.is_none()
        {
            return Err(Exit::Settings.because(format!("camcops.wheelhouse: {source}: no such directory")));
        }
        for path in [new, old, &self.work("tmp"), &self.work("tool")] {
            self.host.remove_tree(path)?;
        }
        for (path, mode) in [(new.as_str(), 0o755), (work, 0o700), (&self.work("tmp"), 0o700)] {
            if self.host.stat(path)?.is_none() {
                self.host.make_directory(path, Some((0, 0)), mode)?;
            }
        }
        let examined =
            python::examine_python(self.host, &self.wanted.python, &self.variables(), !self.recipe.from_bundle)?;
        enough_space(self.host)?;
        for (name, text) in [("uv.txt", UV_LOCK), ("build.txt", BUILD_LOCK), ("camcops.txt", &self.lock_of_files()?)] {
            self.host.put_file(&self.work(name), text.as_bytes(), None, 0o600)?;
        }
        Ok(examined)
    }

    pub(super) fn lock(&self) -> String {
        self.wanted.lock()
    }

    /// The same with the hashes of what was built from source for a bundle.
    fn lock_of_files(&self) -> Result<String> {
        let lock = self.lock();
        let Some(bundle) = &self.recipe.bundle else {
            return Ok(lock);
        };
        let manifest = bundle.manifest(self.host)?;
        let mut built = String::new();
        for Built { pin, path } in &manifest.built {
            let file = manifest.files.iter().find(|file| file.path == *path);
            let file = file.with_context(|| format!("{} has no {path}, which it names", bundle.path))?;
            let _ = writeln!(built, "{pin} \\\n    --hash=sha256:{}", file.sha256);
        }
        Ok(replace_pins(&lock, &built))
    }

    pub(super) fn work(&self, name: &str) -> String {
        format!("{}/{name}", self.places.work)
    }

    /// The interpreter of the new environment.
    pub(super) fn python(&self) -> String {
        format!("{}/bin/python", self.places.new)
    }

    /// The environment with its packages: first those that the others are built with.
    fn install(&self, tool: &Tool) -> Result<()> {
        let new = self.places.new.as_str();
        let mut venv = vec!["-m", "venv", "--prompt", self.wanted.id.as_str()];
        if let Tool::Uv(..) = tool {
            venv.push("--without-pip");
        }
        venv.push(new);
        self.run_quietly("the Python environment could not be made", self.child(&self.wanted.python.path).args(venv))?;
        let all = list_pins(&self.lock()).len();
        self.tell(&format!("{all} packages with {}", tool.name()));
        for lock in ["build.txt", "camcops.txt"] {
            let lock = self.work(lock);
            let child = match tool {
                Tool::Uv(path, _) => self
                    .child(path)
                    .args(["pip", "install", "--python", &self.python()])
                    .args(["--no-deps", "--require-hashes", "--no-build-isolation"])
                    .args(["--requirement", &lock])
                    .args(self.uv_source()),
                Tool::Pip => {
                    self.child(&self.python()).args(PIP).args(["--requirement", &lock]).args(self.pip_source())
                }
            };
            let mut fetched = 0;
            let ended = child.end_telling(|line| {
                if line.starts_with("Collecting ") {
                    fetched += 1;
                    self.tell_amount("packages", fetched.min(all), all);
                } else if line.starts_with("Downloading ") {
                    self.tell(&mask_login(&line.replacen('D', "d", 1)));
                } else if line.starts_with("Installing collected") {
                    self.tell("unpacking");
                }
            })?;
            if !ended.status.success() {
                return Err(explain_failure(
                    self.recipe.source.as_deref(),
                    "the packages could not be installed",
                    &ended,
                ));
            }
        }
        self.install_own_source(tool)?;
        if let Tool::Pip = tool {
            // It is not part of what was tested together, and nothing here needs it any more.
            self.run_quietly(
                "pip could not be removed again",
                self.child(&self.python()).args(["-m", "pip", "uninstall", "--yes", "--quiet", "pip"]),
            )?;
        }
        Ok(())
    }

    /// Stable names inside, the final path in its programs, bytecode, and what it says of itself.
    fn finish(&self, tool: &Tool) -> Result<()> {
        let Places { own, new, .. } = self.places;
        let packages = format!("lib/python3.{}/site-packages", self.wanted.python.minor);
        for name in ["static", "extra_strings"] {
            self.host.put_link(&format!("{new}/{name}"), &format!("{packages}/camcops_server/{name}"))?;
        }
        for (name, text) in self.wanted.pdf.hook() {
            self.host.put_file(&format!("{new}/{packages}/{name}"), text.as_bytes(), None, 0o644)?;
        }
        let about = About {
            release: self.wanted.id.clone(),
            version: self.wanted.version.as_str().to_owned(),
            python: self.wanted.python.path.clone(),
            installer: tool.name(),
            pdf_engine: Some(self.wanted.pdf),
        };
        let mut text = serde_json::to_string_pretty(&about)?;
        text.push('\n');
        self.host.put_file(&format!("{new}/release.json"), text.as_bytes(), None, 0o644)?;
        self.tell("compiling");
        self.run_quietly(
            "the release could not be finished",
            self.child(&self.python()).args(["-I", "-B", "-c", FINISH, new, own]),
        )?;
        let program = self.host.read_text(&format!("{new}/bin/camcops_server"))?;
        let first = format!("#!{own}/bin/python");
        if !program.is_some_and(|text| text.starts_with(&first)) {
            bail!("camcops_server was not made for {own}");
        }
        whole::write_list(self.host, new)
    }

    /// Whether the release works, for an account that owns nothing.
    fn check(&self) -> Result<()> {
        self.tell("checking");
        let nobody = self.host.accounts.uid("nobody").unwrap_or(NOBODY);
        let python = self.python();
        let child = |arguments: &[&str]| {
            let child = self.host.child_of(nobody, NOBODY, "setpriv");
            let mut child =
                bare_child(child, &python, &[]).env("PYTHONWARNINGS", "ignore").args(["-B"]).args(arguments);
            if !self.recipe.magick_suffix.is_empty() {
                child = child.env("WAND_MAGICK_LIBRARY_SUFFIX", self.recipe.magick_suffix);
            }
            child
        };
        let lock = self.lock();
        let mut wanted = list_pins(BUILD_LOCK);
        wanted.extend(list_pins(&lock));
        let own = self.wanted.own.as_ref().map(|own| format!("{}=={}", own::PACKAGE, own.version));
        wanted.extend(own.as_deref());
        let overridden = overridden_pins(self.wanted.version);
        let mut arguments = vec!["-c", CHECK];
        arguments.extend(&overridden);
        let ended = child(&arguments).input(wanted.join("\n").as_bytes()).end()?;
        if !ended.status.success() {
            return Err(self.unfit(&ended));
        }
        let program = format!("{}/bin/camcops_server", self.places.new);
        let ended = child(&[&program, "--version"]).end()?;
        let version = self.wanted.version.of_camcops();
        if !ended.status.success() || !ended.output.contains(version) {
            bail!("the new release does not say that it is CamCOPS {version}: {}", ended.last_words());
        }
        Ok(())
    }

    fn unfit(&self, ended: &Ended) -> anyhow::Error {
        let problems: Vec<&str> = ended.output.lines().filter(|line| !line.is_empty()).collect();
        let words = match problems.is_empty() {
            true => ended.last_words(),
            false => problems.join("; "),
        };
        let all_of = |module: &str| !problems.is_empty() && problems.iter().all(|line| line.starts_with(module));
        if all_of("wand.") {
            return Exit::Unreachable.because(format!(
                "{words}: install ImageMagick's library ({}) and run again",
                self.recipe.magick_library
            ));
        }
        if all_of("weasyprint ") {
            return Exit::Unreachable.because(format!(
                "{words}: install Pango (libpango-1.0-0, libpangoft2-1.0-0 and libharfbuzz-subset0 on Debian) and run again"
            ));
        }
        Exit::Failed.because(format!("the new release does not work: {words}"))
    }

    /// Everything is on the disk before the name says that it is whole.
    fn name(&self) -> Result<()> {
        let Places { own, new, .. } = self.places;
        self.host.sync_file_system(RELEASES)?;
        self.host.cut().after_write();
        match self.host.stat(own)? {
            None => self.host.rename(new, own),
            Some(_) => self.host.exchange(new, own),
        }
    }

    // Children.

    /// For a child that installs or builds.
    pub(super) fn variables(&self) -> Vec<(String, String)> {
        let own = [
            ("HOME", self.work("tmp")),
            // The usual one may be mounted so that nothing can be run from it.
            ("TMPDIR", self.work("tmp")),
            ("PIP_CACHE_DIR", self.work(DOWNLOADS[0])),
            ("UV_CACHE_DIR", self.work(DOWNLOADS[1])),
            ("PIP_DISABLE_PIP_VERSION_CHECK", "1".into()),
            ("PIP_ROOT_USER_ACTION", "ignore".into()),
            ("PIP_NO_INPUT", "1".into()),
            ("UV_NO_PROGRESS", "1".into()),
            ("UV_PYTHON_DOWNLOADS", "never".into()),
            ("UV_HTTP_TIMEOUT", "30".into()),
            // Distributed with the release is only what was compiled under its final path.
            ("PYTHONDONTWRITEBYTECODE", "1".into()),
        ];
        let own = own.map(|(name, value)| (name.to_owned(), value));
        own.into_iter().chain(self.way.iter().cloned()).collect()
    }

    pub(super) fn child(&self, program: &str) -> Child<'_> {
        build_child(self.host, program, &self.variables())
    }

    pub(super) fn run_quietly(&self, what: &str, child: Child<'_>) -> Result<Ended> {
        let ended = child.end()?;
        match ended.status.success() {
            true => Ok(ended),
            false => Err(explain_failure(self.recipe.source.as_deref(), what, &ended)),
        }
    }

    pub(super) fn pip_source(&self) -> Vec<&str> {
        match &self.recipe.source {
            Some(directory) => vec!["--no-index", "--find-links", directory],
            None => Vec::new(),
        }
    }

    fn uv_source(&self) -> Vec<&str> {
        match &self.recipe.source {
            Some(directory) => vec!["--offline", "--no-index", "--find-links", directory],
            None => Vec::new(),
        }
    }
}

pub(super) const PIP: [&str; 14] = [
    "-m",
    "pip",
    "install",
    "--no-deps",
    "--require-hashes",
    "--no-build-isolation",
    "--no-compile",
    "--no-warn-script-location",
    "--progress-bar",
    "off",
    "--retries",
    "2",
    "--timeout",
    "30",
];

/// A program with an environment of its own, which ends when this program does.
pub(super) fn build_child<'a>(host: &'a Host, program: &str, variables: &[(String, String)]) -> Child<'a> {
    bare_child(host.child("setpriv"), program, variables)
}

pub(super) fn bare_child<'a>(setpriv: Child<'a>, program: &str, variables: &[(String, String)]) -> Child<'a> {
    let child = setpriv.bare().env("PATH", PATH).env("LANG", "C.UTF-8").envs(variables.iter().cloned());
    // An orphan would write into a tree that the next run clears away.
    child.args(["--pdeathsig", "KILL", "--", program])
}

fn enough_space(host: &Host) -> Result<()> {
    let space = host.space(RELEASES)?;
    let free = space.free_bytes >> 20;
    if free < NEEDED_MIB {
        return Err(Exit::Io.because(format!(
            "a release needs {NEEDED_MIB} MiB in {RELEASES}, and {free} MiB are free; free some space and run again"
        )));
    }
    // Some file systems do not count files.
    if space.inodes > 0 && space.free_inodes < NEEDED_FILES {
        return Err(Exit::Io.because(format!(
            "a release needs {NEEDED_FILES} inodes in {RELEASES}, and {} are free; free some space and run again",
            space.free_inodes
        )));
    }
    Ok(())
}

/// `name==version` of every package in a lock.
pub(super) fn list_pins(lock: &str) -> Vec<&str> {
    lock.lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_alphanumeric()))
        .filter_map(|line| line.split_whitespace().next())
        .collect()
}

/// The packages that are another version than CamCOPS asks for.
fn overridden_pins(version: Version) -> Vec<&'static str> {
    let names = OVERRIDES.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split("==").next());
    let hardened = HARDENING
        .overrides
        .iter()
        .map(|one| one.package.as_str())
        .filter(|_| version.is_hardened() || !version.is_known());
    let mut names: Vec<&str> = names.filter(|name| !name.is_empty()).chain(hardened).collect();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Hardening;

    #[test]
    fn pins_are_read() {
        assert_eq!(overridden_pins(Version::newest(Hardening::Off)), ["pandas", "cherrypy"]);
        assert!(overridden_pins(Version::newest(Hardening::Auto)).contains(&"pypdf"));
        assert!(list_pins(BUILD_LOCK).contains(&"setuptools==80.10.2"));
    }
}
