//! What a site is made of: the Python packages of its release, the crates of this program, the packages of the distribution.

use crate::drivers::packages::{self, DpkgRecord};
use crate::drivers::release::current_release;
use crate::host::Host;
use crate::layout::RELEASES;
use crate::site::facts::distribution_release;
use anyhow::{Context, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Read;

/// What this program is linked from, as `packaging/inventory crates` lists it.
const CRATES: &str = include_str!("../../packaging/crates.txt");
/// The head of a package's description is shorter.
const LONGEST_HEAD: u64 = 64 << 10;

/// The three kinds of what a site is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PartKind {
    /// Python packages of the release.
    Python,
    /// Crates of this program.
    Program,
    /// Packages of the distribution.
    System,
}

impl PartKind {
    pub(crate) const ALL: [PartKind; 3] = [PartKind::Python, PartKind::Program, PartKind::System];

    /// The word of JSON and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            PartKind::Python => "python",
            PartKind::Program => "program",
            PartKind::System => "system",
        }
    }

    /// What there are several of.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            PartKind::Python => "Python packages",
            PartKind::Program => "crates of this program",
            PartKind::System => "packages of the distribution",
        }
    }
}

/// One version of something that the site has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SitePart {
    pub(crate) version: String,
    /// The installed packages and their versions, where advisories name what they are built from.
    pub(crate) binaries: BTreeMap<String, String>,
}

/// All that the site has.
#[derive(Debug, Default)]
pub(crate) struct SiteParts {
    /// By kind and name; a crate may be there in several versions.
    pub(crate) all: BTreeMap<(PartKind, String), Vec<SitePart>>,
    /// The release in use.
    pub(crate) release: Option<String>,
    /// The minor version of its Python.
    pub(crate) python: Option<u8>,
    /// The distribution as advisories write it: `Debian:12`.
    pub(crate) distribution: String,
}

impl SiteParts {
    /// Nothing but which distribution it is.
    pub(crate) fn of_distribution(host: &Host) -> Result<SiteParts> {
        let (distribution, version) = distribution_release(host)?;
        Ok(SiteParts { distribution: ecosystem_name(&distribution, &version), ..SiteParts::default() })
    }

    /// Reads them.
    pub(crate) fn of(host: &Host) -> Result<SiteParts> {
        let mut parts = SiteParts::of_distribution(host)?;
        parts.add_release(host)?;
        parts.add_crates();
        for record in packages::list_records(host)? {
            parts.add_system(record);
        }
        Ok(parts)
    }

    pub(crate) fn count(&self, kind: PartKind) -> usize {
        self.all.iter().filter(|((one, _), _)| *one == kind).map(|(_, versions)| versions.len()).sum()
    }

    /// Which kind an ecosystem of OSV is about here; nothing where it is about something else.
    pub(crate) fn kind_of(&self, ecosystem: &str) -> Option<PartKind> {
        match ecosystem {
            "PyPI" => Some(PartKind::Python),
            "crates.io" => Some(PartKind::Program),
            other => {
                // Ubuntu's have `:LTS` at their end, and `Pro` in between where a fix is for subscribers.
                let plain = other.strip_suffix(":LTS").unwrap_or(other).replace(":Pro:", ":");
                (plain == self.distribution).then_some(PartKind::System)
            }
        }
    }

    /// What the site has of a package that an advisory names, under the name that it has here.
    pub(crate) fn find(&self, kind: PartKind, name: &str) -> (&str, &[SitePart]) {
        let name = if kind == PartKind::Python { normal_name(name) } else { name.to_owned() };
        let found = self.all.get_key_value(&(kind, name));
        found.map_or(("", &[]), |((_, name), versions)| (name, versions))
    }

    /// The source and the version of an installed package.
    pub(crate) fn find_binary(&self, name: &str) -> Option<(&str, &SitePart)> {
        self.all.iter().find_map(|((kind, source), versions)| {
            let part = versions.iter().find(|part| *kind == PartKind::System && part.binaries.contains_key(name))?;
            Some((source.as_str(), part))
        })
    }

    fn add(&mut self, kind: PartKind, name: String, version: String, binary: Option<(String, String)>) {
        let versions = self.all.entry((kind, name)).or_default();
        match versions.iter_mut().find(|part| part.version == version) {
            Some(part) => part.binaries.extend(binary),
            None => versions.push(SitePart { version, binaries: binary.into_iter().collect() }),
        }
    }

    fn add_release(&mut self, host: &Host) -> Result<()> {
        let Some(release) = current_release(host)? else {
            return Ok(());
        };
        let libraries = format!("{RELEASES}/{release}/lib");
        for python in host.list(&libraries)?.unwrap_or_default() {
            let Some(minor) = python.strip_prefix("python3.").and_then(|minor| minor.parse().ok()) else {
                continue;
            };
            self.python = Some(minor);
            let packages = format!("{libraries}/{python}/site-packages");
            for name in host.list(&packages)?.unwrap_or_default() {
                if let Some((name, version)) = installed_package(host, &packages, &name)? {
                    self.add(PartKind::Python, name, version, None);
                }
            }
        }
        self.release = Some(release);
        Ok(())
    }

    fn add_crates(&mut self) {
        for line in CRATES.lines() {
            if let Some((name, version)) = line.split_once(' ') {
                self.add(PartKind::Program, name.to_owned(), version.to_owned(), None);
            }
        }
    }

    fn add_system(&mut self, record: DpkgRecord) {
        self.add(PartKind::System, record.source, record.source_version, Some((record.name, record.version)));
    }
}

/// The package of a directory of descriptions: by what stands in it, or by its name.
fn installed_package(host: &Host, packages: &str, directory: &str) -> Result<Option<(String, String)>> {
    let Some((stem, file)) = directory
        .strip_suffix(".dist-info")
        .map(|stem| (stem, "METADATA"))
        .or_else(|| Some((directory.strip_suffix(".egg-info")?, "PKG-INFO")))
    else {
        return Ok(None);
    };
    let path = format!("{packages}/{directory}/{file}");
    let mut head = Vec::new();
    if let Some((_, file)) = host.open_file(&path)? {
        file.take(LONGEST_HEAD)
            .read_to_end(&mut head)
            .with_context(|| format!("can't read {}", host.outside(&path)))?;
    }
    let head = String::from_utf8_lossy(&head);
    let field = |key: &str| {
        let mut lines = head.lines().take_while(|line| !line.is_empty());
        lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(": ")).map(str::trim)
    };
    let mut words = stem.split('-');
    let named = (words.next().unwrap_or_default(), words.next());
    let Some(version) = field("Version").or(named.1) else {
        return Ok(None);
    };
    Ok(Some((normal_name(field("Name").unwrap_or(named.0)), version.to_owned())))
}

/// A name of a Python package as PEP 503 has it: small letters, one hyphen for each run of separators.
pub(crate) fn normal_name(name: &str) -> String {
    let parts = name.split(['-', '_', '.']).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("-").to_ascii_lowercase()
}

fn ecosystem_name(distribution: &str, version: &str) -> String {
    let mut name = distribution.to_owned();
    if let Some(first) = name.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    format!("{name}:{version}")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    /// A tree of a machine with a release that has these packages, and Debian's packages of these records.
    pub(crate) fn staged_machine(root: &Path, packages: &[(&str, &str)], records: &str) -> Host {
        staged_machine_with(root, 11, packages, records)
    }

    /// The same with this minor version of Python.
    pub(crate) fn staged_machine_with(root: &Path, minor: u8, packages: &[(&str, &str)], records: &str) -> Host {
        let release = root.join("usr/share/camcops/releases/2.4.24-py3.11-abcd");
        let site = release.join(format!("lib/python3.{minor}/site-packages"));
        for (name, version) in packages {
            let directory = site.join(format!("{}-{version}.dist-info", name.replace('-', "_")));
            fs::create_dir_all(&directory).unwrap();
            let text = format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nName: other\n");
            fs::write(directory.join("METADATA"), text).unwrap();
        }
        fs::create_dir_all(&site).unwrap();
        std::os::unix::fs::symlink("releases/2.4.24-py3.11-abcd", root.join("usr/share/camcops/venv")).unwrap();
        fs::create_dir_all(root.join("var/lib/dpkg")).unwrap();
        fs::write(root.join("var/lib/dpkg/status"), records).unwrap();
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc/os-release"), "ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n").unwrap();
        Host::staged(root).unwrap()
    }

    #[test]
    fn a_site_is_made_of_what_is_really_there() {
        let home = tempfile::tempdir().unwrap();
        let records = "Package: libssl3\nStatus: install ok installed\nArchitecture: amd64\nSource: openssl\nVersion: 3.0.15-1\n\n\
            Package: openssl\nStatus: install ok installed\nArchitecture: amd64\nVersion: 3.0.15-1\n\n\
            Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n\n\
            Package: gcc-12-base\nStatus: install ok installed\nArchitecture: amd64\nSource: gcc-12 (12.2.0-14)\nVersion: 12.2.0-14+b1\n";
        let host = staged_machine(home.path(), &[("Zope.Interface", "5.4"), ("pypdf", "6.6.0")], records);
        let site = home.path().join("usr/share/camcops/releases/2.4.24-py3.11-abcd/lib/python3.11/site-packages");
        // Without a description, the name of the directory says it.
        fs::create_dir_all(site.join("typing_extensions-4.1.dist-info")).unwrap();
        fs::create_dir_all(site.join("old.thing-1.5-py3.11.egg-info")).unwrap();
        fs::create_dir_all(site.join("pypdf")).unwrap();
        let parts = SiteParts::of(&host).unwrap();
        assert_eq!(parts.count(PartKind::Python), 4);
        let version =
            |kind, name| parts.find(kind, name).1.iter().map(|part| part.version.as_str()).collect::<Vec<_>>();
        assert_eq!(version(PartKind::Python, "zope_interface"), ["5.4"]);
        assert_eq!(version(PartKind::Python, "typing-extensions"), ["4.1"]);
        assert_eq!(version(PartKind::Python, "old-thing"), ["1.5"]);
        assert_eq!((parts.release.as_deref(), parts.python), (Some("2.4.24-py3.11-abcd"), Some(11)));
        assert_eq!(version(PartKind::System, "gcc-12"), ["12.2.0-14"]);
        assert!(version(PartKind::System, "gone").is_empty());
        let (source, part) = parts.find_binary("libssl3").unwrap();
        assert_eq!((source, part.binaries.len()), ("openssl", 2));
        assert_eq!(parts.kind_of("Debian:12"), Some(PartKind::System));
        assert_eq!(parts.kind_of("Debian:13"), None);
        assert!(parts.count(PartKind::Program) > 100);
        assert!(!version(PartKind::Program, "serde_json").is_empty());
    }

    #[test]
    fn ubuntu_writes_its_ecosystem_in_several_ways() {
        let parts = SiteParts { distribution: ecosystem_name("ubuntu", "24.04"), ..SiteParts::default() };
        for name in ["Ubuntu:24.04:LTS", "Ubuntu:24.04", "Ubuntu:Pro:24.04:LTS"] {
            assert_eq!(parts.kind_of(name), Some(PartKind::System), "{name}");
        }
        assert_eq!(parts.kind_of("Ubuntu:22.04:LTS"), None);
    }
}
