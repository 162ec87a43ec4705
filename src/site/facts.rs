//! What the machine is: everything that is read from it before deciding. A plain struct that a test can write by hand.

use crate::base::kernel;
use crate::host::{Host, PathKind};
use crate::layout::{self, DISTRIBUTION_RELEASES, DistributionRelease, Flavour};
use crate::settings::Python;
use anyhow::Result;
use serde::Serialize;
use std::collections::BTreeSet;
use std::rc::Rc;

/// Who starts services on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Manager {
    Systemd,
    Supervisor,
}

/// The family of the database server: the two read other files and know other settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DatabaseFamily {
    Mariadb,
    Mysql,
}

/// Where the application finds what makes PDF files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Pdf {
    /// The distribution has a package of it.
    Packaged,
    /// The administrator has put it there.
    Present,
    Missing,
}

/// What the machine is.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    /// The family of its distribution.
    pub(crate) flavour: &'static Flavour,
    /// Its distribution's own name.
    pub(crate) distribution: String,
    /// What is known of that release of it; nothing of one that CamCOPS is not to be installed on.
    pub(crate) release: Option<&'static DistributionRelease>,
    /// A tree that will become a machine, and not the machine itself.
    pub(crate) staged: bool,
    /// Whether files can be given to other accounts here.
    pub may_give_away: bool,
    /// Accounts and groups that exist, of those that may be needed.
    pub(crate) accounts: BTreeSet<String>,
    /// Who starts services.
    pub(crate) manager: Manager,
    /// The family of the database server, MariaDB where there is none yet.
    pub(crate) database: DatabaseFamily,
    /// The version of the message broker, if it is installed.
    pub(crate) broker_version: Option<(u32, u32)>,
    /// The firewall in use that has names for what is let in: `ufw` or `firewalld`.
    pub(crate) firewall: Option<&'static str>,
    /// Where the application finds what makes PDF files.
    pub(crate) pdf: Pdf,
    /// The full host name.
    pub(crate) host_name: String,
    /// The time zone, as Area/City.
    pub(crate) timezone: String,
    /// The Pythons that CamCOPS can run on, here or among the distribution's packages.
    pub(crate) pythons: Pythons,
    /// The ports that other people's configuration has Apache listen on; not looked at where the site has the usual ones.
    pub(crate) apache_listens: BTreeSet<u16>,
    /// What is known here of versions that are newer than this program.
    #[serde(skip)]
    pub(crate) untested: Vec<UntestedList>,
    /// The administrator's own CamCOPS, where the settings name one, or what is wrong with it.
    #[serde(skip)]
    pub(crate) own_source: Option<Result<OwnSource, UnfitSource>>,
    pub(crate) cores: u32,
    /// Memory in MiB.
    pub(crate) memory_mb: u64,
}

/// A CamCOPS that the administrator has: a wheel, a source archive, or a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnSource {
    pub(crate) path: String,
    /// Of all that is built from.
    pub(crate) digest: String,
    pub(crate) version: String,
}

/// What is wrong with one that the settings name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnfitSource(pub(crate) String);

/// The packages of a version that this program was never tested with, as they were found here.
#[derive(Debug, Clone)]
pub(crate) struct UntestedList {
    pub(crate) version: String,
    pub(crate) minor: u8,
    /// With their hashes.
    pub(crate) lock: Rc<str>,
}

/// The Pythons of a machine.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Pythons {
    /// Those that are there, newest first, in the places where everybody can run them.
    pub(crate) here: Vec<Interpreter>,
    /// The one that the distribution's packages have, as 3.MINOR.
    pub(crate) packaged: Option<u8>,
}

/// One Python.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Interpreter {
    pub(crate) minor: u8,
    pub(crate) path: String,
    /// Whether it can bring pip into a new environment.
    pub(crate) whole: bool,
}

/// What a staged tree is planned for, as nobody knows yet where it will run; the first boot computes anew.
const STAGED_CORES: u32 = 2;
const STAGED_MEMORY_MB: u64 = 4096;

impl Facts {
    /// Reads them.
    pub(crate) fn gather(host: &Host) -> Result<Facts> {
        let staged = host.staged_root().is_some();
        let text = os_release(host)?;
        let value = |key: &str| release_value(&text, key);
        let release = DistributionRelease::find(&value("ID"), &value("ID_LIKE"), &value("VERSION_ID"));
        let flavour = layout::family(&value("ID"), &value("ID_LIKE"));
        let (cores, memory_mb) =
            if staged { (STAGED_CORES, STAGED_MEMORY_MB) } else { (count_cores(), memory_mb(host)?) };
        let names = [flavour.web_account, flavour.log_group, "camcops", "root"];
        let known = |name: &&str| {
            host.accounts.gid(name).is_some() && (*name == flavour.log_group || host.accounts.uid(name).is_some())
        };
        Ok(Facts {
            flavour,
            distribution: value("PRETTY_NAME"),
            release,
            staged,
            may_give_away: host.is_root(),
            accounts: names.iter().filter(|name| known(name)).map(|name| (*name).to_owned()).collect(),
            manager: find_manager(host, staged)?,
            database: find_database_family(host)?,
            broker_version: broker_version(host)?,
            firewall: find_firewall(host)?,
            pdf: find_pdf(host, release)?,
            host_name: host_name(host, staged)?,
            timezone: find_timezone(host)?,
            pythons: find_pythons(host, release)?,
            apache_listens: BTreeSet::new(),
            untested: Vec::new(),
            own_source: None,
            cores,
            memory_mb,
        })
    }

    /// Why nothing is laid out on this machine, where its distribution is not known.
    pub(crate) fn unknown_distribution(&self) -> Option<String> {
        if self.release.is_some() {
            return None;
        }
        let distribution = match self.distribution.as_str() {
            "" => "a system that /etc/os-release does not identify",
            name => name,
        };
        let known: Vec<&str> = DISTRIBUTION_RELEASES.iter().map(|row| row.name).collect();
        Some(format!(
            "this machine is {distribution}, which this version of camcops-provision does not support; supported are {} (and rebuilds of Red Hat); install CamCOPS on one of them, or use a version of camcops-provision that supports this one",
            known.join(", ")
        ))
    }

    /// How the file name of ImageMagick's library goes on; empty where that is not known.
    pub(crate) fn magick_suffix(&self) -> &'static str {
        self.release.map_or("", |release| release.magick_suffix)
    }

    /// The package of ImageMagick's library, or all that it may be called.
    pub(crate) fn magick_library(&self) -> &'static str {
        let names = self.flavour.packages.magick.first().copied().unwrap_or_default();
        self.release.map_or(names, |release| release.magick_library)
    }

    /// The packages that WeasyPrint needs.
    pub(crate) fn weasyprint_packages(&self) -> &'static [&'static str] {
        self.release.map_or(self.flavour.packages.weasyprint, |release| release.weasyprint)
    }

    /// Whether a file can be given to this `user:group` here and now.
    pub(crate) fn can_give_to(&self, user: &str, group: &str) -> bool {
        self.may_give_away && self.accounts.contains(user) && self.accounts.contains(group)
    }
}

/// The distribution and its release, in the words of programs: `debian`, `12`.
pub(crate) fn distribution_release(host: &Host) -> Result<(String, String)> {
    let release = os_release(host)?;
    Ok((release_value(&release, "ID"), release_value(&release, "VERSION_ID")))
}

/// The code name of Debian's release, by which its own tools know it; nothing on another distribution.
pub(crate) fn debian_codename(host: &Host) -> Result<Option<String>> {
    let release = os_release(host)?;
    let name = release_value(&release, "VERSION_CODENAME");
    Ok((release_value(&release, "ID") == "debian" && !name.is_empty()).then_some(name))
}

fn release_value(release: &str, key: &str) -> String {
    release
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        .map(|value| value.trim_matches(['"', '\'']).to_owned())
        .unwrap_or_default()
}

fn os_release(host: &Host) -> Result<String> {
    for path in ["/etc/os-release", "/usr/lib/os-release"] {
        if let Some(text) = host.read_text(path)? {
            return Ok(text);
        }
        // Debian's is a link to the other one.
    }
    // An empty tree will most likely become what this machine is.
    Ok(std::fs::read_to_string("/etc/os-release").unwrap_or_default())
}

fn find_manager(host: &Host, staged: bool) -> Result<Manager> {
    let there = |path: &str| -> Result<bool> { Ok(host.stat(path)?.is_some()) };
    if !staged {
        // The directory that systemd itself documents as the sign that it is running.
        return Ok(match there("/run/systemd/system")? {
            true => Manager::Systemd,
            false => Manager::Supervisor,
        });
    }
    let systemd = there("/usr/lib/systemd/systemd")? || there("/lib/systemd/systemd")?;
    Ok(match !systemd && there("/usr/bin/supervisord")? {
        true => Manager::Supervisor,
        false => Manager::Systemd,
    })
}

fn find_database_family(host: &Host) -> Result<DatabaseFamily> {
    for path in ["/usr/sbin/mariadbd", "/usr/libexec/mariadbd"] {
        if host.stat(path)?.is_some() {
            return Ok(DatabaseFamily::Mariadb);
        }
    }
    for path in ["/usr/sbin/mysqld", "/usr/libexec/mysqld"] {
        if host.stat(path)?.is_some_and(|entry| entry.kind == PathKind::File) {
            return Ok(DatabaseFamily::Mysql);
        }
    }
    Ok(DatabaseFamily::Mariadb)
}

fn host_name(host: &Host, staged: bool) -> Result<String> {
    let short = match host.read_text("/etc/hostname")? {
        Some(text) if staged => text.trim().to_owned(),
        _ if staged => "localhost".to_owned(),
        _ => nix::unistd::gethostname()?.to_string_lossy().into_owned(),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if short.is_empty() || !short.chars().all(plain) {
        // Nothing that could stand in a URL or a certificate.
        return Ok("localhost".into());
    }
    if short.contains('.') {
        return Ok(short);
    }
    // The full name is the first name of the line that also has the short one.
    let hosts = host.read_text("/etc/hosts")?.unwrap_or_default();
    let full = hosts.lines().find_map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace().skip(1);
        let first = words.clone().next()?;
        (first.contains('.') && words.any(|word| word == short)).then(|| first.to_owned())
    });
    Ok(full.unwrap_or(short))
}

fn find_timezone(host: &Host) -> Result<String> {
    let linked = host.read_link("/etc/localtime")?;
    let zone = match linked.as_deref().and_then(|target| target.split_once("zoneinfo/")) {
        Some((_, zone)) => Some(zone.to_owned()),
        None => host.read_text("/etc/timezone")?.map(|text| text.trim().to_owned()),
    };
    Ok(zone.filter(|zone| !zone.is_empty()).unwrap_or_else(|| "Etc/UTC".into()))
}

/// By what says that it is started at boot.
fn find_firewall(host: &Host) -> Result<Option<&'static str>> {
    let ufw = host.read_text("/etc/ufw/ufw.conf")?.unwrap_or_default();
    if ufw.lines().any(|line| line.trim().eq_ignore_ascii_case("ENABLED=yes")) {
        return Ok(Some("ufw"));
    }
    let wanted = "/etc/systemd/system/multi-user.target.wants/firewalld.service";
    Ok(host.stat(wanted)?.map(|_| "firewalld"))
}

fn find_pythons(host: &Host, release: Option<&DistributionRelease>) -> Result<Pythons> {
    let mut here = Vec::new();
    for minor in Python::MINORS {
        for prefix in ["/usr", "/usr/local"] {
            let path = format!("{prefix}/bin/python3.{minor}");
            if host.stat(&path)?.is_none() {
                continue;
            }
            let mut whole = false;
            for library in ["lib", "lib64"] {
                let module = format!("{prefix}/{library}/python3.{minor}/ensurepip/__init__.py");
                whole |= host.stat(&module)?.is_some();
            }
            here.push(Interpreter { minor, path, whole });
        }
    }
    let packaged = release.and_then(|release| release.python);
    Ok(Pythons { here, packaged: packaged.filter(|minor| Python::MINORS.contains(minor)) })
}

/// Each version of the broker has a directory of its own, `rabbitmq_server-4.0.5`.
fn broker_version(host: &Host) -> Result<Option<(u32, u32)>> {
    let names = host.list(layout::VERSIONS)?.unwrap_or_default();
    let version = |name: &String| {
        let mut numbers = name.strip_prefix("rabbitmq_server-")?.split('.');
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    };
    Ok(names.iter().filter_map(version).max())
}

fn find_pdf(host: &Host, release: Option<&DistributionRelease>) -> Result<Pdf> {
    if release.is_some_and(|release| release.has_wkhtmltopdf) {
        return Ok(Pdf::Packaged);
    }
    for path in ["/usr/bin/wkhtmltopdf", "/usr/local/bin/wkhtmltopdf"] {
        if host.stat(path)?.is_some() {
            return Ok(Pdf::Present);
        }
    }
    Ok(Pdf::Missing)
}

fn count_cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32)
}

fn memory_mb(host: &Host) -> Result<u64> {
    let text = host.read_text("/proc/meminfo")?.unwrap_or_default();
    Ok(kernel::kib_of(&text, "MemTotal:").map_or(STAGED_MEMORY_MB, |kib| kib / 1024))
}
