//! `releases`: which releases of CamCOPS are on the machine, and away with those that nobody needs.

mod own_tests;

use super::begin_change;
use super::purge::is_shared;
use crate::base::error::Exit;
use crate::base::report::Report;
use crate::base::text::format_time;
use crate::cli::{Global, Prune, Releases};
use crate::drivers::release::{self, Installed};
use crate::engine::report::Lines;
use crate::engine::{self, Left};
use crate::journal::{Journal, Writer};
use crate::resource::Resource;
use crate::session::Session;
use crate::session::upgrade_record::{self, UpgradePhase};
use anyhow::Result;
use serde::Serialize;
use serde_json::json;

pub(crate) async fn run(global: &Global, command: &Releases) -> Result<Report> {
    match command {
        Releases::List => list_releases(&Session::open(global)?),
        Releases::Prune(flags) => prune_releases(global, flags).await,
        Releases::Test(flags) => own_tests::test_release(global, flags).await,
    }
}

/// What a release is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Use {
    /// The services run on it.
    Current,
    /// A rollback would bring it back.
    Previous,
    /// The settings ask for it, or an upgrade to it was begun.
    Next,
    /// Nobody needs it.
    Unused,
    /// It was put there by somebody else.
    NotOurs,
}

/// What is told of a release.
#[derive(Debug, Serialize)]
struct ReleaseRow {
    name: String,
    version: Option<String>,
    python: Option<String>,
    bytes: u64,
    built: Option<String>,
    whole: bool,
    #[serde(rename = "use")]
    purpose: Use,
}

impl ReleaseRow {
    fn new(one: Installed, purpose: Use) -> ReleaseRow {
        ReleaseRow {
            name: one.id,
            version: one.version,
            python: one.python,
            bytes: one.size,
            built: one.built.and_then(format_time),
            whole: one.whole,
            purpose,
        }
    }

    fn line(&self) -> String {
        let purpose = match self.purpose {
            Use::Current => "current",
            Use::Previous => "previous: for rollback",
            Use::Next => "next: for install or upgrade",
            Use::Unused => "unused: releases prune removes it",
            Use::NotOurs => "not made by camcops-provision",
        };
        let whole = if self.whole { "" } else { ", incomplete" };
        let built = self.built.as_ref().map_or_else(String::new, |built| format!(", built {built}"));
        let python = self.python.as_ref().map_or_else(String::new, |python| format!(", on {python}"));
        format!("{:<28} {:>5} MiB{built}{python}{whole}; {purpose}", self.name, self.bytes >> 20)
    }
}

fn find_uses(site: &Session, journal: &Journal) -> Result<Vec<(Installed, Use)>> {
    let host = &site.host;
    let upgrade = upgrade_record::read_record(host, &site.instance)?;
    let previous =
        upgrade.as_ref().filter(|upgrade| upgrade.phase == UpgradePhase::Done).map(|upgrade| &upgrade.from.release);
    let wanted = release::WantedRelease::new(site.settings(), &site.facts).ok().map(|wanted| wanted.id);
    let kept = upgrade_record::kept_resources(host, &site.instance)?;
    let mut all = Vec::new();
    for one in release::installed_releases(host)? {
        let resource = Resource::Release(one.id.clone());
        let purpose = if one.current {
            Use::Current
        } else if previous == Some(&one.id) {
            Use::Previous
        } else if wanted.as_ref() == Some(&one.id) || kept.contains(&resource) {
            Use::Next
        } else if journal.find(&resource).is_some() || is_shared(site, &resource)? {
            Use::Unused
        } else {
            Use::NotOurs
        };
        all.push((one, purpose));
    }
    Ok(all)
}

fn list_releases(site: &Session) -> Result<Report> {
    let all = find_uses(site, &site.journal()?)?;
    let rows: Vec<ReleaseRow> = all.into_iter().map(|(one, purpose)| ReleaseRow::new(one, purpose)).collect();
    let report = Report::new(json!({ "instance": site.instance, "releases": rows }));
    Ok(match rows.is_empty() {
        true => report.with_line("no release of CamCOPS on this machine"),
        false => report.with_table(rows.iter().map(|row| row.line() + "\n").collect::<String>()),
    })
}

async fn prune_releases(global: &Global, flags: &Prune) -> Result<Report> {
    let stop = begin_change(global, "remove releases")?;
    let site = Session::open(global)?;
    if !site.journal()?.exists() {
        return Err(Exit::Usage.because(format!("instance {} is not installed on this machine", site.instance)));
    }
    // A build or an upgrade under way needs what nobody seems to need.
    let mut writer = Writer::open(&site.host, &site.instance, "releases prune")?;
    let mut unused: Vec<Installed> = find_uses(&site, &writer.journal)?
        .into_iter()
        .filter(|(_, purpose)| *purpose == Use::Unused)
        .map(|(one, _)| one)
        .collect();
    unused.sort_by_key(|one| std::cmp::Reverse((one.whole, one.built)));
    let going = unused.split_off(flags.keep.min(unused.len()));
    let (mut removed, mut bytes, mut left) = (Vec::new(), 0, Vec::new());
    for one in going {
        stop.check("stopped by a signal; run again to continue")?;
        let resource = Resource::Release(one.id.clone());
        if !flags.dry_run {
            let mut lines = Lines::new(site.style, &site.host);
            if writer.journal.find(&resource).is_none() {
                left.push(Left {
                    resource,
                    why: "created by another instance: prune it there, with --instance".into(),
                });
                continue;
            }
            let undone = engine::undo_resource(&site.drivers, &mut writer, &site.instance, &resource, &mut lines);
            if let Some(kept) = undone.await? {
                left.push(kept);
                continue;
            }
        }
        bytes += one.size;
        removed.push(one.id);
    }
    let report = Report::new(json!({
        "instance": site.instance,
        "dry_run": flags.dry_run,
        "removed": removed,
        "bytes": bytes,
        "left": left,
    }));
    Ok(report.with_lines(left.iter().map(|one| format!("kept: {} ({})", one.resource.name(), one.why))).with_line(
        match (removed.as_slice(), flags.dry_run) {
            ([], _) => "nothing to remove: every release is in use or kept".to_owned(),
            (names, true) => format!("would remove {}: {} MiB", names.join(", "), bytes >> 20),
            (names, false) => format!("removed {}: {} MiB", names.join(", "), bytes >> 20),
        },
    ))
}
