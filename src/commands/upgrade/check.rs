//! What an upgrade would do, and what stands in its way, before anything is changed.

use super::super::config;
use crate::base::error::Exit;
use crate::base::report::Report;
use crate::camcops_conf::Ini;
use crate::cli::Global;
use crate::drivers::release::hardening::HardeningList;
use crate::drivers::release::untested::{self, UntestedChanges};
use crate::drivers::release::{self, Missing, PdfEngine};
use crate::drivers::sql::Power;
use crate::drivers::sql::copy::load;
use crate::drivers::tables;
use crate::host::DiskSpace;
use crate::host::named_file::replace_file;
use crate::journal;
use crate::session::Session;
use crate::settings::{Hardening, Mode, Settings, Source, Version, list_numbers};
use crate::site::facts::Facts;
use anyhow::{Context, Result};
use serde::Serialize;
use std::path::Path;

/// The key that says which version is wanted.
pub(crate) const KEY: &str = "camcops.version";

/// What is known before an upgrade.
#[derive(Debug, Serialize)]
pub(crate) struct Preflight {
    pub(crate) from: String,
    pub(crate) from_release: String,
    pub(crate) to: &'static str,
    pub(crate) to_release: Option<String>,
    /// The versions that this program knows.
    pub(crate) known: Vec<&'static str>,
    /// Whether the new release is there already.
    pub(crate) is_built: bool,
    pub(crate) python: Option<String>,
    pub(crate) revision: String,
    /// The revision that the new release works with.
    pub(crate) new_revision: Option<String>,
    /// What is another in a version that this program was never tested with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) untested: Option<UntestedChanges>,
    /// Keys of camcops.conf that are new.
    pub(crate) new_keys: Vec<String>,
    /// Keys of camcops.conf that the new version does not read any more, and that are set here.
    pub(crate) removed_keys: Vec<String>,
    /// What the packages of the new release are in place of those that CamCOPS asks for.
    pub(crate) hardening: Option<&'static HardeningList>,
    /// The room that it takes, and that there is.
    pub(crate) room: Vec<Room>,
    /// What the package index has; where nobody has asked it, nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) published: Option<Published>,
    /// Whether there is anything to do.
    pub(crate) pending: bool,
    pub(crate) problems: Vec<String>,
}

/// The newest version of CamCOPS that the package index has, or why that is not known.
#[derive(Debug, Serialize)]
pub(crate) struct Published {
    newest: Option<String>,
    unknown_because: Option<String>,
}

impl Published {
    fn describe(&self) -> String {
        match (&self.newest, &self.unknown_because) {
            (Some(newest), _) if Version::is_beyond(newest) => {
                format!("has CamCOPS {newest}, which this camcops-provision does not know; a newer one may")
            }
            (Some(newest), _) => format!("has no newer CamCOPS than {newest}"),
            (None, why) => format!(
                "could not check for a newer CamCOPS: {}",
                why.as_deref().unwrap_or("the index lists no version of it")
            ),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Room {
    pub(crate) what: &'static str,
    pub(crate) path: String,
    pub(crate) needed_mib: u64,
    pub(crate) free_mib: u64,
}

impl Preflight {
    /// Adds what people are told.
    fn tell(&self, report: Report) -> Report {
        let Preflight { from, to, revision, new_revision, .. } = self;
        let release = self.to_release.as_ref().zip(self.python.as_ref()).map(|(release, python)| {
            let built = match self.is_built {
                true => "exists already",
                false => "is built beside the current one, while the site runs",
            };
            ("release", format!("{release} on {python} {built}"))
        });
        let tables = match new_revision {
            None => format!(
                "at revision {revision}; that of CamCOPS {to} is known once it is built: the site may stop while they are dumped and upgraded"
            ),
            Some(new_revision) if new_revision != revision => {
                format!("from revision {revision} to {new_revision}: the site stops while they are dumped and upgraded")
            }
            Some(_) => format!("stay at revision {revision}: requests wait while the services restart"),
        };
        let room = self.room.iter().map(|one| {
            ("room", format!("{}: {} MiB of {} MiB in {}", one.what, one.needed_mib, one.free_mib, one.path))
        });
        let new = (!self.new_keys.is_empty()).then(|| format!("new: {}", self.new_keys.join(", ")));
        let removed = (!self.removed_keys.is_empty())
            .then(|| format!("set here, but no longer read: {}", self.removed_keys.join(", ")));
        let keys: Vec<String> = new.into_iter().chain(removed).collect();
        report
            .with_row("CamCOPS", format!("{from} is in use, upgrade to {to}; known versions: {}", self.known.join(", ")))
            .with_rows(release)
            .with_row("tables", tables)
            .with_rows(room)
            .with_rows(self.published.as_ref().map(|one| ("index", one.describe())))
            .with_rows(self.hardening.map(|list| ("packages", describe_hardening(list))))
            .with_rows(self.untested.as_ref().map(|changes| ("packages", describe_changes(changes))))
            .with_rows(self.untested.as_ref().map(|_| ("unknown", format!("this camcops-provision was not tested with CamCOPS {to}: its keys of camcops.conf and its requirements are not known"))))
            .with_row("keys", if keys.is_empty() { "the same".to_owned() } else { keys.join("; ") })
            .with_lines(self.problems.iter().map(|problem| format!("! {problem}")))
            .with_line(match (self.problems.is_empty(), self.pending) {
                (false, _) => "this prevents an upgrade".to_owned(),
                (true, true) => format!("`camcops-provision upgrade --to {to}` does it"),
                (true, false) => format!("nothing to do: CamCOPS {to} is in use"),
            })
    }
}

fn describe_changes(changes: &UntestedChanges) -> String {
    let UntestedChanges { changed, added, removed } = changes;
    let removed = removed.iter().map(|name| format!("without {name}"));
    let all: Vec<String> = changed.iter().chain(added).cloned().chain(removed).collect();
    format!(
        "{} from those of the newest release that is known: {}",
        match all.len() {
            1 => "one differs".to_owned(),
            many => format!("{many} differ"),
        },
        all.join(", ")
    )
}

fn describe_hardening(list: &HardeningList) -> String {
    let mut names: Vec<&str> =
        list.overrides.iter().filter(|one| !one.ends.is_empty()).map(|one| one.package.as_str()).collect();
    names.dedup();
    format!(
        "{} known flaws in the packages that CamCOPS asks for are fixed by newer {}",
        list.ended(),
        names.join(", ")
    )
}

/// The version that is asked for.
pub(crate) fn target_version(asked: Option<&str>, untested: bool, hardening: Hardening) -> Result<Version> {
    let Some(asked) = asked else {
        return Ok(Version::newest(hardening));
    };
    let known = Version::named(asked);
    if known.is_some_and(|known| known.is_hardened()) && hardening == Hardening::Off {
        return Err(Exit::Usage.because(format!("--to {asked}: camcops.hardening is \"off\", which keeps the packages as CamCOPS asks for them: set it to \"auto\" first")));
    }
    let beyond = Version::beyond(asked);
    known.or(beyond.filter(|_| untested)).ok_or_else(|| {
        Exit::Usage.because(format!(
            "--to {asked}: this camcops-provision has been tested with CamCOPS {} and no other; a newer camcops-provision may know it{}",
            version_names().join(", "),
            if beyond.is_some() { ", and --untested tries it nevertheless" } else { "" }
        ))
    })
}

fn version_names() -> Vec<&'static str> {
    Version::known().map(Version::as_str).collect()
}

/// Where a version stands among those that are known; older than all of them where it is not known.
fn version_rank(version: &str) -> Option<(usize, Option<[u32; 3]>)> {
    let known = Version::known().position(|known| known.as_str() == version).map(|rank| (rank, None));
    // What is newer than all that are known stands by its numbers.
    known.or_else(|| Version::is_beyond(version).then(|| (usize::MAX, list_numbers(version))))
}

/// Looks at everything; changes nothing.
pub(crate) async fn check_upgrade(site: &Session, facts: &Facts, to: Version) -> Result<Preflight> {
    let host = &site.host;
    let not_installed = || {
        Exit::Failed.because(
            "CamCOPS is not installed here: run `camcops-provision install`, which installs the version of camcops.version",
        )
    };
    let from_release = release::current_release(host)?.ok_or_else(not_installed)?;
    if !site.journal()?.exists() {
        return Err(not_installed());
    }
    let mut problems = Vec::new();
    let from = match release::version_of(host, &from_release)? {
        Some(version) => version,
        None => {
            problems.push(format!(
                "the current release, {from_release}, is incomplete: run `camcops-provision install` first"
            ));
            String::new()
        }
    };
    if version_rank(&from) > version_rank(to.as_str()) {
        problems.push(format!(
            "CamCOPS {from} is newer than {}, and its tables may not work with an older one: use `camcops-provision rollback` after an upgrade",
            to.as_str()
        ));
    }
    let others: Vec<String> =
        journal::list_instances(host)?.into_iter().filter(|other| *other != site.instance).collect();
    if !others.is_empty() {
        problems.push(format!(
            "the instances {} run on the same release: set camcops.version for each of them, and run `camcops-provision install` for each, one after the other",
            others.join(", ")
        ));
    }
    problems.extend(set_elsewhere(site));
    if let Some(version) = Version::named(&from)
        && PdfEngine::for_version(version, site.settings(), facts).is_err()
    {
        problems.push(format!(
            "site.pdf_engine: CamCOPS {from} does not have it, so rollback would be impossible: set it to \"auto\" until the upgrade is done"
        ));
    }
    let wanted = match release::WantedRelease::of(site.settings(), facts, to) {
        Ok(wanted) => Some(wanted),
        Err(Missing(why)) => {
            problems.push(why);
            None
        }
    };
    let is_built = match &wanted {
        Some(wanted) => release::is_whole(host, &wanted.id)?,
        None => false,
    };
    let to_release = wanted.as_ref().map(|wanted| wanted.id.clone());
    let new_revision = match &wanted {
        Some(wanted) if is_built => tables::head_of(&site.host, &wanted.id)?,
        _ => None,
    };
    let pinned = Some(release::pinned_release(to).revision).filter(|revision| !revision.is_empty());
    let new_revision = new_revision.or(pinned);
    let (revision, room) = check_database(site, is_built).await?;
    let may_migrate = new_revision.as_ref() != Some(&revision);
    if may_migrate && site.drivers.database()?.server.power == Power::Application {
        problems.push(
            "the tables have to be upgraded, and without an administrator of the database they could not be restored: set database.admin_defaults_file".into(),
        );
    }
    if may_migrate && let Err(why) = load::refuse_triggers(&*site.drivers.database()?).await {
        problems.push(why.to_string());
    }
    for one in &room {
        if one.free_mib < one.needed_mib {
            problems.push(format!(
                "{} needs {} MiB in {}, and only {} MiB are free: free some space there",
                one.what, one.needed_mib, one.path, one.free_mib
            ));
        }
    }
    let lists = wanted.as_ref().filter(|_| !to.is_known()).and_then(|wanted| {
        facts.untested.iter().find(|list| list.version == to.as_str() && list.minor == wanted.python.minor)
    });
    let (new_keys, removed_keys) = check_keys(site, &from, to)?;
    Ok(Preflight {
        pending: to_release.as_ref() != Some(&from_release) || may_migrate,
        from,
        from_release,
        to: to.as_str(),
        to_release,
        known: version_names(),
        is_built,
        python: wanted.map(|wanted| wanted.python.path),
        revision,
        new_revision,
        untested: lists.map(untested::compare_list),
        new_keys,
        removed_keys,
        hardening: HardeningList::of(to),
        room,
        published: None,
        problems,
    })
}

/// The facts, with the packages of a version that this program does not know: as they are found now, unless it is in use.
pub(crate) fn with_untested(site: &Session, to: Version, is_begun: bool) -> Result<Facts> {
    let mut facts = site.facts.clone();
    if to.is_known() {
        return Ok(facts);
    }
    let host = &site.host;
    let current = release::current_release(host)?.unwrap_or_default();
    let in_use = is_begun || release::version_of(host, &current)?.as_deref() == Some(to.as_str());
    if in_use && facts.untested.iter().any(|list| list.version == to.as_str()) {
        return Ok(facts);
    }
    let recipe = site.drivers.release.as_ref().context("a release can't be built on this machine")?;
    let list = untested::find_packages(host, recipe, site.settings(), &site.facts, to)?;
    facts.untested.retain(|other| other.version != list.version || other.minor != list.minor);
    facts.untested.push(list);
    Ok(facts)
}

/// Asks the package index which CamCOPS is the newest, unless the settings say not to.
pub(crate) fn ask_index(site: &Session) -> Published {
    let Settings { camcops, network, .. } = site.settings();
    let unknown = |why: String| Published { newest: None, unknown_because: Some(why) };
    if network.offline {
        return unknown("not checked, because of --offline or network.offline".into());
    }
    if camcops.source != Source::Pypi {
        return unknown(format!("not checked, because camcops.source is {:?}", camcops.source.as_str()));
    }
    let Some(python) = site.facts.pythons.here.first() else {
        return unknown("there is no Python to query the package index".into());
    };
    match release::newer::list_published(&site.host, network, &python.path) {
        Ok(versions) => Published { newest: versions.last().cloned(), unknown_because: None },
        Err(why) => unknown(format!("the package index could not be queried: {why:#}")),
    }
}

/// The revision of the tables; the room for a release, for a dump, and for the tables once more.
async fn check_database(site: &Session, is_built: bool) -> Result<(String, Vec<Room>)> {
    let host = &site.host;
    let known = site.drivers.database()?;
    let revision = tables::read_revision(&known, &known.database).await?.with_context(|| {
        format!("the database {} has no tables of CamCOPS: run `camcops-provision install`", known.database)
    })?;
    let bytes = tables::database_size(&known).await?;
    let mut all = Vec::new();
    if !is_built {
        let (needed_mib, free_mib) = release::room_needed(host)?;
        all.push(Room { what: "the new release", path: crate::layout::RELEASES.to_owned(), needed_mib, free_mib });
    }
    let mut add = |what, path: &str, bytes: u64| -> Result<()> {
        // The nearest directory above that is there.
        let there = Path::new(path).ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
        let space = DiskSpace::at(there).with_context(|| format!("can't measure {}", there.display()))?;
        all.push(Room {
            what,
            path: path.to_owned(),
            needed_mib: bytes.div_ceil(1 << 20),
            free_mib: space.free_bytes >> 20,
        });
        Ok(())
    };
    let dumps = site.settings().backup.directory.as_str();
    add("the dump of the database", dumps, bytes / 5 * 6)?;
    if site.settings().database.mode == Mode::Local {
        let home: Option<(String,)> = known.server.row("SELECT @@datadir").await?;
        let home = home.map_or_else(|| "/var/lib/mysql".to_owned(), |(home,)| home);
        add("the database once more", &home, bytes)?;
    }
    Ok((revision, all))
}

/// The keys that came and went between two versions; of those that went, those that are set here.
fn check_keys(site: &Session, from: &str, to: Version) -> Result<(Vec<String>, Vec<String>)> {
    let text = site.host.read_text(&site.layout.config)?.unwrap_or_default();
    let config = Ini::parse(&text);
    let between = |version: &Version| {
        version_rank(version.as_str()) > version_rank(from)
            && version_rank(version.as_str()) <= version_rank(to.as_str())
    };
    let (mut new, mut removed) = (Vec::new(), Vec::new());
    for version in Version::known().filter(between) {
        let known = release::pinned_release(version);
        new.extend(known.new_keys);
        for name in &known.removed_keys {
            let (section, key) = name.split_once('.').unwrap_or(("site", name));
            if config.get(section, key).is_some() {
                removed.push(name.clone());
            }
        }
    }
    Ok((new, removed))
}

/// Where the version is set if not in the administrator's file: there this program could not change it, nor back.
fn set_elsewhere(site: &Session) -> Option<String> {
    let origin = site.resolved.origins.get(KEY)?;
    config::is_elsewhere(site, origin).then(|| {
        format!("{KEY} is set by {origin}: remove it there, so that it can be set in {}", site.settings_file.display())
    })
}

/// Lets the settings ask for a version; they stay as they are where they do already.
pub(crate) fn set_version(global: &Global, version: &str) -> Result<()> {
    let site = Session::open(global)?;
    if site.settings().camcops.wanted_version().as_str() == version {
        return Ok(());
    }
    let file = &site.settings_file;
    let (_, new) = config::edit_file(file, &[(KEY, Some(version))])?;
    replace_file(file, &new)
}

pub(crate) fn report_preflight(site: &Session, found: &Preflight, exit_code: bool) -> Result<Report> {
    let mut document = serde_json::to_value(found)?;
    document["instance"] = site.instance.as_str().into();
    let code = match (found.problems.is_empty(), found.pending) {
        (false, _) => Exit::Failed as u8,
        (true, true) if exit_code => Exit::Pending as u8,
        _ => 0,
    };
    Ok(found.tell(Report::new(document).with_code(code)))
}
