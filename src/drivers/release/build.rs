//! How a release is built: the environment, the packages, the last touches, the check, and its own name at the end.

use super::index::{mask_login, pip_environment};
use super::lock::replace_pins;
use super::python::{self, Examined, Missing};
use super::{
    About, BUILD_LOCK, FINISH, OVERRIDES, Places, ReleaseRecipe, WantedRelease, leads_to_a_program, lock, whole,
};
use crate::archive::bundle::manifest::Built;
use crate::base::error::Exit;
use crate::host::{Child, Ended, Host};
use crate::layout::RELEASES;
use crate::settings::Installer;
use anyhow::{Context, Result, bail};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Instant;

pub(super) const UV_LOCK: &str = include_str!("../../../requirements/uv.txt");
const CHECK: &str = include_str!("check.py");
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// A release with its bytecode and what is fetched for it.
pub(super) const NEEDED_MIB: u64 = 1536;
const NEEDED_FILES: u64 = 80_000;
/// Whoever owns nothing, where the machine has no such name.
const NOBODY: u32 = 65534;
/// How often a long list of packages is heard of.
const NEWS: usize = 30;

/// A build under way.
pub(super) struct Build<'a> {
    pub(super) host: &'a Host,
    pub(super) recipe: &'a ReleaseRecipe,
    pub(super) places: &'a Places,
    pub(super) wanted: &'a WantedRelease,
    /// The way to the index.
    pub(super) way: Vec<(String, String)>,
}

/// What installs packages.
enum Tool {
    /// uv by its path and version.
    Uv(String, String),
    Pip,
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
    let examined = build.prepare()?;
    let tool = build.tool(&examined)?;
    build.install(&tool)?;
    build.finish(&tool)?;
    build.check()?;
    build.name()?;
    build.tell(&format!("ready after {} s", start.elapsed().as_secs()));
    Ok(())
}

/// Refuses to fetch what may not be fetched.
pub(super) fn refuse_offline(recipe: &ReleaseRecipe, id: &str) -> Result<()> {
    if recipe.network.offline && recipe.source.is_none() {
        return Err(Exit::Unreachable.because(format!(
            "release {id} has to be fetched, and without the network (--offline, or dpkg is at work) it can't be; give its files with --wheelhouse DIR or --bundle FILE"
        )));
    }
    Ok(())
}

impl Build<'_> {
    pub(super) fn tell(&self, what: &str) {
        (self.recipe.tell)(&format!("release {}: {what}", self.wanted.id));
    }

    /// Checks what can be checked before anything is fetched, and clears up after an earlier attempt; what that one
    /// has fetched is kept.
    fn prepare(&self) -> Result<Examined> {
        let Places { new, old, work, .. } = self.places;
        if let Some(source) = &self.recipe.source
            && self.host.directory(source)?.is_none()
        {
            return Err(Exit::Settings.because(format!("camcops.wheelhouse: {source}: there is no such directory")));
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

    pub(super) fn lock(&self) -> Cow<'static, str> {
        lock(self.wanted.version, self.wanted.python.minor)
    }

    /// The same with the hashes of what was built from source for a bundle.
    fn lock_of_files(&self) -> Result<Cow<'static, str>> {
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
        Ok(replace_pins(&lock, &built).into())
    }

    pub(super) fn work(&self, name: &str) -> String {
        format!("{}/{name}", self.places.work)
    }

    /// The interpreter of the new environment.
    pub(super) fn python(&self) -> String {
        format!("{}/bin/python", self.places.new)
    }

    /// uv where it is wanted and can be had, else pip.
    fn tool(&self, examined: &Examined) -> Result<Tool> {
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
            self.tell("uv can't be had here, so pip does its work");
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
        let what = "uv could not be fetched";
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
            let said = format!("{}{}", ended.output, ended.complaint);
            let absent = find_line(&said, &ABSENT).is_some() && find_line(&said, &NO_CONNECTION).is_none();
            return match absent && self.recipe.installer == Installer::Auto {
                true => Ok(None),
                // Where nothing can be fetched, pip would not fare better.
                false => Err(self.failure(what, &ended)),
            };
        }
        let path = format!("{home}/bin/uv");
        let answer = self.run_quietly("uv does not work", self.child(&path).args(["--version"]))?;
        let (_, version) = version_of_uv(&answer.output).unwrap_or_default();
        Ok(Some(Tool::Uv(path, version.to_owned())))
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
                    if fetched % NEWS == 0 {
                        self.tell(&format!("{fetched} of {all} packages looked at"));
                    }
                } else if line.starts_with("Downloading ") {
                    self.tell(&mask_login(&line.replacen('D', "d", 1)));
                } else if line.starts_with("Installing collected") {
                    self.tell("unpacking");
                }
            })?;
            if !ended.status.success() {
                return Err(self.failure("the packages could not be installed", &ended));
            }
        }
        if let Tool::Pip = tool {
            // It is not part of what was tested together, and nothing here needs it any more.
            self.run_quietly(
                "pip could not be taken out again",
                self.child(&self.python()).args(["-m", "pip", "uninstall", "--yes", "--quiet", "pip"]),
            )?;
        }
        Ok(())
    }

    /// Stable names inside, the final path in its programs, bytecode, and what it says of itself.
    fn finish(&self, tool: &Tool) -> Result<()> {
        let Places { own, new, .. } = self.places;
        let package = format!("lib/python3.{}/site-packages/camcops_server", self.wanted.python.minor);
        for name in ["static", "extra_strings"] {
            self.host.put_link(&format!("{new}/{name}"), &format!("{package}/{name}"))?;
        }
        let about = About {
            release: self.wanted.id.clone(),
            version: self.wanted.version.as_str().to_owned(),
            python: self.wanted.python.path.clone(),
            installer: tool.name(),
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
        let overridden = overridden_pins();
        let mut arguments = vec!["-c", CHECK];
        arguments.extend(&overridden);
        let ended = child(&arguments).input(wanted.join("\n").as_bytes()).end()?;
        if !ended.status.success() {
            return Err(self.unfit(&ended));
        }
        let program = format!("{}/bin/camcops_server", self.places.new);
        let ended = child(&[&program, "--version"]).end()?;
        let version = self.wanted.version.as_str();
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
        match problems.iter().all(|line| line.starts_with("wand.")) && !problems.is_empty() {
            true => Exit::Unreachable.because(format!(
                "{words}: install ImageMagick's library (libmagickwand-6.q16-6 on Debian 12) and run again"
            )),
            false => Exit::Failed.because(format!("the new release is not fit for use: {words}")),
        }
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
            ("PIP_CACHE_DIR", self.work("pip")),
            ("UV_CACHE_DIR", self.work("uv")),
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
            false => Err(self.failure(what, &ended)),
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

    pub(super) fn failure(&self, what: &str, ended: &Ended) -> anyhow::Error {
        let said = mask_login(&format!("{}\n{}", ended.output, ended.complaint));
        let last = mask_login(&ended.last_words());
        if let Some(line) = find_line(&said, &["do not match the hashes", "hash mismatch"]) {
            return Exit::Unusable.because(format!(
                "{what}: a file is not the one that this version was tested with: {}; take it from a source that you trust",
                package_in(&said).unwrap_or(line)
            ));
        }
        if let Some(line) = find_line(&said, &["failed to extract", "not a zip file", "invalid zip"]) {
            return Exit::Unusable.because(format!("{what}: a file is damaged: {line}; fetch it anew"));
        }
        if let Some(line) = find_line(&said, &["no space left on device"]) {
            return Exit::Io.because(format!("{what}: {line}; make room and run again"));
        }
        let unreachable = |why: String| Exit::Unreachable.because(format!("{what}: {why}"));
        match &self.recipe.source {
            Some(directory) => {
                if let Some(line) = find_line(&said, &ABSENT) {
                    return unreachable(format!("{directory} does not have all of its files: {line}"));
                }
            }
            None => {
                if let Some(line) = find_line(&said, &NO_CONNECTION) {
                    return unreachable(format!(
                        "the Python package index can't be reached ({line}); see [network] in the settings, or give the files with --wheelhouse DIR"
                    ));
                }
                if let Some(line) = find_line(&said, &ABSENT) {
                    return unreachable(format!(
                        "the Python package index does not give it: {line}; either it does not have that, or it wants another login (network.pip_login_file)"
                    ));
                }
            }
        }
        Exit::Failed.because(format!("{what} ({}): {last}", ended.status))
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

/// What pip and uv say when they can't get through, the most telling first.
pub(super) const NO_CONNECTION: [&str; 14] = [
    "name resolution",
    "name or service not known",
    "failed to lookup address",
    "connection refused",
    "network is unreachable",
    "no route to host",
    "timed out",
    "certificate verify failed",
    "invalid peer certificate",
    "tunnel",
    "proxy authentication",
    "connection reset",
    "error sending request",
    "newconnectionerror",
];

/// What they say when the other side has no such file, or denies that it has.
pub(super) const ABSENT: [&str; 8] = [
    "no matching distribution",
    "was not found",
    "not found in",
    "no solution found",
    "not available",
    "unauthorized",
    "forbidden",
    "could not find a version",
];

impl Tool {
    fn name(&self) -> String {
        match self {
            Tool::Uv(_, version) => format!("uv {version}"),
            Tool::Pip => "pip".into(),
        }
    }
}

/// A program with an environment of its own, which ends when this program does.
pub(super) fn build_child<'a>(host: &'a Host, program: &str, variables: &[(String, String)]) -> Child<'a> {
    bare_child(host.child("setpriv"), program, variables)
}

fn bare_child<'a>(setpriv: Child<'a>, program: &str, variables: &[(String, String)]) -> Child<'a> {
    let mut child = setpriv.bare().env("PATH", PATH).env("LANG", "C.UTF-8");
    for (name, value) in variables {
        child = child.env(name, value);
    }
    // An orphan would write into a tree that the next run clears away.
    child.args(["--pdeathsig", "KILL", "--", program])
}

fn enough_space(host: &Host) -> Result<()> {
    let space = host.space(RELEASES)?;
    let free = space.free_bytes >> 20;
    if free < NEEDED_MIB {
        return Err(Exit::Io.because(format!(
            "a release needs {NEEDED_MIB} MiB in {RELEASES}, and {free} MiB are free; make room and run again"
        )));
    }
    // Some file systems do not count files.
    if space.inodes > 0 && space.free_inodes < NEEDED_FILES {
        return Err(Exit::Io.because(format!(
            "a release needs {NEEDED_FILES} inodes in {RELEASES}, and {} are free; make room and run again",
            space.free_inodes
        )));
    }
    Ok(())
}

fn version_of_uv(answer: &str) -> Option<((u32, u32), &str)> {
    let version = answer.strip_prefix("uv ")?.split_whitespace().next()?;
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    Some(((numbers.next()??, numbers.next()??), version))
}

/// `name==version` of every package in a lock.
pub(super) fn list_pins(lock: &str) -> Vec<&str> {
    lock.lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_alphanumeric()))
        .filter_map(|line| line.split_whitespace().next())
        .collect()
}

/// The packages that are another version than CamCOPS asks for.
fn overridden_pins() -> Vec<&'static str> {
    let names = OVERRIDES.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split("==").next());
    let mut names: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
    names.dedup();
    names
}

/// The last line that has one of these words, the first word that is found at all.
pub(super) fn find_line<'a>(said: &'a str, words: &[&str]) -> Option<&'a str> {
    words.iter().find_map(|word| {
        let mut lines = said.lines().rev();
        let line = lines.find(|line| line.to_lowercase().contains(word))?;
        // pip puts the reason last, in the name of an exception of its own.
        let reason = line.rsplit(": ").find(|part| part.to_lowercase().contains(word));
        Some(reason.unwrap_or(line).trim_matches(|c: char| " '\")(│├╰─▶".contains(c)))
    })
}

/// `name==version` in what pip or uv say of a hash.
fn package_in(said: &str) -> Option<&str> {
    let mut lines = said.lines();
    lines
        .find(|line| {
            let line = line.to_lowercase();
            line.contains("do not match the hashes") || line.contains("hash mismatch")
        })
        .and_then(|line| line.split(['`', '\'']).find(|word| word.contains("==")))
        .or_else(|| {
            let mut words = lines.flat_map(str::split_whitespace);
            words.find(|word| word.contains("=="))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_wrong_is_found_in_what_was_said() {
        let pip = "WARNING: Retrying (Retry(total=1)) after connection broken by 'NewConnectionError('<x>: \
            Failed to establish a new connection: [Errno -3] Temporary failure in name resolution')': /simple/uv/\n\
            ERROR: No matching distribution found for uv==0.13.8";
        let reason = find_line(pip, &NO_CONNECTION).unwrap();
        assert!(reason.contains("Temporary failure in name resolution"), "{reason}");
        let uv =
            "  × Failed to fetch: `https://x/`\n  ├─▶ client error (Connect)\n  ╰─▶ Connection refused (os error 111)";
        assert_eq!(find_line(uv, &NO_CONNECTION), Some("Connection refused (os error 111"));
        assert_eq!(find_line("all is well", &NO_CONNECTION), None);
        let uv = "error: Hash mismatch for `alembic==1.14.1`\n\nExpected:\n";
        assert_eq!(package_in(uv), Some("alembic==1.14.1"));
        let pip = "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM\n    alembic==1.14.1 from file:///x:\n";
        assert_eq!(package_in(pip), Some("alembic==1.14.1"));
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(version_of_uv("uv 0.13.8 (abc 2026)\n"), Some(((0, 13), "0.13.8")));
        assert_eq!(version_of_uv("nonsense"), None);
        assert_eq!(overridden_pins(), ["pandas", "cherrypy"]);
        assert!(list_pins(BUILD_LOCK).contains(&"setuptools==80.10.2"));
    }
}
