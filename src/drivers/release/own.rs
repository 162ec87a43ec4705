//! CamCOPS from the administrator's own wheel, source archive or tree (`camcops.source = "path"`): what it is, seen before
//! it is built. All that CamCOPS itself needs is still what the lock of its version says.

use super::build::Build;
use super::complaints::explain_failure;
use super::python::Missing;
use super::tool::Tool;
use crate::base::error::Exit;
use crate::base::text::encode_hex;
use crate::host::Host;
use crate::settings::{Settings, Source, Version};
use crate::site::facts::{OwnSource, UnfitSource};
use anyhow::{Context as _, Result, bail};
use ring::digest::{Context, SHA256};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The package that takes the place of the index's.
pub(super) const PACKAGE: &str = "camcops-server";
const ARCHIVES: [&str; 2] = [".tar.gz", ".zip"];
/// What is no part of a tree, or what building it leaves there.
const NO_SOURCE: [&str; 6] = [".git", "__pycache__", "build", "dist", ".tox", ".venv"];
/// Where a tree says which version it is: an unpacked source archive, and CamCOPS's own file.
const SAYS_VERSION: [&str; 2] = ["PKG-INFO", "camcops_server/cc_modules/cc_version_string.py"];
/// A tree that is larger is none of CamCOPS's server.
const LARGEST: u64 = 1 << 30;

/// What the settings name; nothing where CamCOPS comes from elsewhere.
pub(crate) fn examine_source(host: &Host, settings: &Settings) -> Option<Result<OwnSource, UnfitSource>> {
    let camcops = &settings.camcops;
    let path = camcops.path.as_ref().filter(|_| camcops.source == Source::Path)?;
    let seen = examine_path(host, Path::new(&host.outside(path.as_str())));
    Some(seen.map_err(|why| UnfitSource(format!("camcops.path: {why:#}"))))
}

fn examine_path(host: &Host, path: &Path) -> Result<OwnSource> {
    let shown = path.display();
    let Ok(found) = fs::metadata(path) else {
        bail!("{shown} does not exist");
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let is_archive = name.ends_with(".whl") || ARCHIVES.iter().any(|end| name.ends_with(end));
    let root = match found.is_dir() {
        true => root_of_tree(path)?,
        false if found.is_file() && is_archive => path.to_owned(),
        false => bail!("{shown} is neither a wheel, a source archive nor a directory"),
    };
    if host.is_root() && host.staged_root().is_none() {
        host.trust()?.check_way(&root)?;
    }
    let version = match found.is_dir() {
        true => version_of_tree(&root),
        false => version_of_file(&name),
    };
    let Some(version) = version else {
        bail!("{shown} does not say which version of CamCOPS it is");
    };
    Ok(OwnSource { digest: digest_of(host, &root)?, path: root.to_string_lossy().into_owned(), version })
}

/// The directory with the server, of a tree of the whole of CamCOPS too.
fn root_of_tree(path: &Path) -> Result<PathBuf> {
    let is_package =
        |directory: &Path| directory.join("setup.py").is_file() || directory.join("pyproject.toml").is_file();
    let below = path.join("server");
    match (is_package(path), is_package(&below)) {
        (true, _) => Ok(path.to_owned()),
        (false, true) => Ok(below),
        _ => bail!("{} has no setup.py or pyproject.toml, and no server/ with one", path.display()),
    }
}

/// `camcops_server-2.4.24-py3-none-any.whl`, `camcops_server-2.4.24.tar.gz`
fn version_of_file(name: &str) -> Option<String> {
    let rest = name.to_lowercase().replace('-', "_");
    let rest = rest.strip_prefix("camcops_server_")?;
    let rest = [".whl", ".tar.gz", ".zip"].iter().find_map(|end| rest.strip_suffix(end))?;
    rest.split('_').next().map(str::to_owned)
}

fn version_of_tree(root: &Path) -> Option<String> {
    SAYS_VERSION.iter().find_map(|file| {
        let text = fs::read_to_string(root.join(file)).ok()?;
        let line = text.lines().find_map(|line| {
            line.strip_prefix("Version:")
                .or_else(|| line.strip_prefix("CAMCOPS_SERVER_VERSION_STRING")?.split_once('=').map(|(_, value)| value))
        })?;
        Some(line.trim().trim_matches(['"', '\'']).to_owned())
    })
}

/// A digest of all that is built from, by names and contents. Who else could change it could have root build theirs.
fn digest_of(host: &Host, root: &Path) -> Result<String> {
    let mut digest = Context::new(&SHA256);
    let mut size = 0;
    add_to_digest(host, root, Path::new(""), &mut digest, &mut size)?;
    Ok(encode_hex(digest.finish().as_ref()))
}

fn add_to_digest(host: &Host, path: &Path, name: &Path, digest: &mut Context, size: &mut u64) -> Result<()> {
    let found = fs::symlink_metadata(path).with_context(|| format!("can't look at {}", path.display()))?;
    refuse_foreign(host, path, &found)?;
    let mut add = |bytes: &[u8]| {
        digest.update(&(bytes.len() as u64).to_be_bytes());
        digest.update(bytes);
    };
    add(name.to_string_lossy().as_bytes());
    if found.is_dir() {
        let mut names = fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>>>()?;
        names.retain(|name| is_source(&name.to_string_lossy()));
        names.sort();
        for entry in names {
            add_to_digest(host, &path.join(&entry), &name.join(&entry), digest, size)?;
        }
    } else if found.is_symlink() {
        add(fs::read_link(path)?.to_string_lossy().as_bytes());
    } else if found.is_file() {
        *size += found.len();
        if *size > LARGEST {
            bail!("there are more than {} MiB below it", LARGEST >> 20);
        }
        add(&fs::read(path).with_context(|| format!("can't read {}", path.display()))?);
    } else {
        bail!("{} is neither a file nor a directory", path.display());
    }
    Ok(())
}

fn is_source(name: &str) -> bool {
    !NO_SOURCE.contains(&name) && !name.ends_with(".egg-info") && !name.ends_with(".pyc")
}

fn refuse_foreign(host: &Host, path: &Path, found: &Metadata) -> Result<()> {
    let by_others = !found.is_symlink() && found.mode() & 0o022 != 0;
    if !host.is_root() || host.staged_root().is_some() || (found.uid() == 0 && !by_others) {
        return Ok(());
    }
    bail!(
        "{} can be changed by others, and root builds from it: copy it to a directory of root, such as /srv/camcops-source, and run `chown -R root:root` and `chmod -R go-w` on the copy",
        path.display()
    )
}

/// The one that the settings ask for, if it is of this version.
pub(super) fn source_of(
    seen: Option<&Result<OwnSource, UnfitSource>>,
    version: Version,
) -> Result<Option<OwnSource>, Missing> {
    let source = match seen {
        None => return Ok(None),
        Some(Err(UnfitSource(why))) => return Err(Missing(why.clone())),
        Some(Ok(source)) => source,
    };
    // A site may mark its own with +SOMETHING.
    let own = source.version.split('+').next().unwrap_or_default();
    match own == version.of_camcops() {
        true => Ok(Some(source.clone())),
        false => Err(Missing(format!(
            "camcops.path: {} is CamCOPS {}, but camcops.version asks for {}: give a source of that version, or set camcops.version to one that this camcops-provision knows",
            source.path,
            source.version,
            version.as_str()
        ))),
    }
}

impl Build<'_> {
    /// Where the copy stands that is built from: building leaves files in a tree.
    fn own_copy(&self, source: &OwnSource) -> String {
        let name = source.path.rsplit('/').next().unwrap_or_default();
        self.work(&format!("own/{name}"))
    }

    /// Takes the copy, and sees that it is what was seen before.
    pub(super) fn copy_own_source(&self) -> Result<()> {
        let Some(source) = &self.wanted.own else {
            return Ok(());
        };
        self.host.remove_tree(&self.work("own"))?;
        self.host.make_directory(&self.work("own"), Some((0, 0)), 0o700)?;
        let copy = self.own_copy(source);
        self.host
            .child("cp")
            .args(["--recursive", "--no-dereference", "--preserve=mode,timestamps", "--", &source.path, &copy])
            .run()
            .with_context(|| format!("camcops.path: {} could not be copied", source.path))?;
        match digest_of(self.host, Path::new(&self.host.outside(&copy)))? == source.digest {
            true => Ok(()),
            false => Err(Exit::Failed.because(format!("camcops.path: {} has just changed; run again", source.path))),
        }
    }

    /// Installs it, when all that it needs is there.
    pub(super) fn install_own_source(&self, tool: &Tool) -> Result<()> {
        let Some(source) = &self.wanted.own else {
            return Ok(());
        };
        self.tell(&format!("CamCOPS from {}", source.path));
        let copy = self.own_copy(source);
        let child = match tool {
            Tool::Uv(path, _) => self
                .child(path)
                .args(["pip", "install", "--python", &self.python(), "--offline"])
                .args(["--no-deps", "--no-build-isolation", "--no-index", &copy]),
            Tool::Pip => self
                .child(&self.python())
                .args(["-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index"])
                .args(["--no-compile", "--no-warn-script-location", &copy]),
        };
        let ended = child.end()?;
        if !ended.status.success() {
            let what = format!("camcops.path: {} could not be installed", source.path);
            return Err(explain_failure(None, &what, &ended));
        }
        let packages = format!("{}/lib/python3.{}/site-packages", self.places.new, self.wanted.python.minor);
        for part in ["static", "extra_strings", "alembic.ini"] {
            if self.host.stat(&format!("{packages}/camcops_server/{part}"))?.is_none() {
                return Err(Exit::Unusable.because(format!(
                    "camcops.path: what was built from {} has no {part}: a tree of CamCOPS has its data files listed only after `python setup.py sdist --extras` in its directory server; give the archive that this makes in dist/",
                    source.path
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Hardening;

    #[test]
    fn a_name_tells_the_version() {
        let read = |name| version_of_file(name);
        assert_eq!(read("camcops_server-2.4.24-py3-none-any.whl").as_deref(), Some("2.4.24"));
        assert_eq!(read("camcops-server-2.4.24.tar.gz").as_deref(), Some("2.4.24"));
        assert_eq!(read("camcops_server-2.4.24+site.1-py3-none-any.whl").as_deref(), Some("2.4.24+site.1"));
        assert_eq!(read("other-2.4.24.tar.gz"), None);
    }

    #[test]
    fn a_tree_is_known_by_what_is_in_it() {
        let place = tempfile::tempdir().unwrap();
        let host = Host::staged(place.path()).unwrap();
        let tree = place.path().join("camcops");
        let version = tree.join("server/camcops_server/cc_modules");
        fs::create_dir_all(&version).unwrap();
        let see = || examine_path(&host, &tree);
        assert!(see().unwrap_err().to_string().contains("no setup.py"));
        fs::write(tree.join("server/setup.py"), "setup()").unwrap();
        assert!(see().unwrap_err().to_string().contains("which version"));
        let line = "CAMCOPS_SERVER_VERSION_STRING = \"2.4.24\"\n";
        fs::write(version.join("cc_version_string.py"), line).unwrap();
        let first = see().unwrap();
        assert_eq!((first.version.as_str(), first.path.ends_with("/camcops/server")), ("2.4.24", true));
        // What building leaves changes nothing, another line does.
        fs::create_dir(tree.join("server/build")).unwrap();
        fs::write(version.join("x.pyc"), "").unwrap();
        assert_eq!(see().unwrap().digest, first.digest);
        fs::write(tree.join("server/setup.py"), "setup(0)").unwrap();
        let second = see().unwrap();
        assert_ne!(second.digest, first.digest);
        let newest = Version::newest(Hardening::Auto);
        assert_eq!(source_of(Some(&Ok(second.clone())), newest).unwrap(), Some(second.clone()));
        let other = OwnSource { version: "2.5.0".into(), ..second };
        let Err(Missing(why)) = source_of(Some(&Ok(other)), newest) else { panic!() };
        assert!(why.contains("is CamCOPS 2.5.0"), "{why}");
    }
}
