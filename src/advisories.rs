//! Published advisories against what a site is made of: which flaws it has, what ends each, and how much is known.
//!
//! Nothing is fetched here, but for what Debian's own tool fetches. An administrator brings files: OSV's records, which
//! PyPI, crates.io and distributions have, or debsecan's data. What is not known is never taken for good: without
//! advisories of a kind, or with old ones, a site is not known to be clean.

mod compact;
pub(crate) mod debsecan;
mod ending;
mod fold;
mod matching;
pub(crate) mod parts;
mod record;
mod source;
mod version;

use crate::base::error::Exit;
use crate::base::text::show_plain;
use crate::drivers::release::hardening::HARDENING;
use crate::drivers::release::newest_pins;
use crate::host::Host;
use crate::layout::ADVISORIES;
use anyhow::{Context, Result};
pub(crate) use compact::compact_advisories;
use debsecan::parse_list;
pub(crate) use ending::{FlawEnding, NewestRelease};
use fold::{FlawReport, FoldedFlaw, fold_reports};
use matching::{fixed_versions, is_affected};
use parts::{PartKind, SitePart, SiteParts};
use record::OsvRecord;
use serde::Serialize;
pub(crate) use source::AdvisorySource;
use source::{Advisory, AdvisoryReader, KnownData};
use std::collections::BTreeMap;
use time::{Duration, OffsetDateTime};

/// What is longer is cut: it is somebody's else text.
const LONGEST_NAME: usize = 80;
const LONGEST_SUMMARY: usize = 200;

/// A flaw that the site has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct SiteFlaw {
    pub(crate) kind: PartKind,
    /// As advisories name it: the source of packages of the distribution.
    pub(crate) package: String,
    pub(crate) version: String,
    /// The installed packages of the distribution.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) packages: Vec<String>,
    pub(crate) id: String,
    pub(crate) aliases: Vec<String>,
    pub(crate) summary: String,
    pub(crate) fixed: Vec<String>,
    pub(crate) ending: FlawEnding,
}

/// All that was found out.
#[derive(Debug, Default)]
pub(crate) struct Examination {
    pub(crate) parts: SiteParts,
    pub(crate) flaws: Vec<SiteFlaw>,
    pub(crate) sources: Vec<AdvisorySource>,
}

/// How a site, or a kind of its parts, is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AdvisoryState {
    /// No advisory is open but for those that were judged, and what is known is new enough.
    Clean,
    /// Too little, or too old, is what is known.
    NotKnown,
    /// Advisories are open.
    Open,
}

/// What is known of one kind.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct KindState {
    pub(crate) kind: PartKind,
    /// How many the site has.
    pub(crate) parts: usize,
    pub(crate) open: usize,
    pub(crate) judged: usize,
    /// How many advisories were read.
    pub(crate) advisories: usize,
    /// The newest of them.
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) newest: Option<OffsetDateTime>,
    #[serde(skip)]
    pub(crate) age: Option<Duration>,
    #[serde(skip)]
    pub(crate) is_fresh: bool,
    pub(crate) state: AdvisoryState,
}

impl Examination {
    /// Holds the site against what stands in the directory for it, against these files, and against what debsecan has said.
    pub(crate) fn of(host: &Host, files: &[String], debsecan: Option<&str>) -> Result<Examination> {
        let parts = SiteParts::of(host)?;
        let newest = newest_release(parts.python);
        let mut matcher = Matcher { parts: &parts, newest: &newest, found: BTreeMap::new() };
        let (mut sources, mut problems) = (Vec::new(), Vec::new());
        let own = own_files(host)?;
        let live = Host::live()?;
        for (host, paths, only_ours) in [(host, own, true), (&live, files.to_vec(), false)] {
            let mut take = |advisory| matcher.take(advisory);
            let mut reader = AdvisoryReader { host, parts: &parts, take: &mut take, problems: Vec::new(), only_ours };
            for path in paths {
                sources.push(reader.read_source(&path)?);
            }
            problems.append(&mut reader.problems);
        }
        if let Some(list) = debsecan {
            let flaws = parse_list(list).map_err(|why| {
                let what = show_plain(&why.what, LONGEST_SUMMARY);
                Exit::Unreachable.because(format!("unexpected output of debsecan in line {}: {what}", why.line))
            })?;
            let known =
                KnownData { records: flaws.len().max(1), newest: Some(OffsetDateTime::now_utc()), is_whole: true };
            flaws.into_iter().try_for_each(|flaw| matcher.take(Advisory::Listed(flaw)))?;
            let kinds = BTreeMap::from([(PartKind::System, known)]);
            sources.push(AdvisorySource { path: "debsecan".into(), kinds, ..AdvisorySource::default() });
        }
        refuse_broken(&problems)?;
        let flaws = matcher.flaws();
        Ok(Examination { parts, flaws, sources })
    }

    /// What is known of each kind, where nothing may be older than so many days.
    pub(crate) fn kinds(&self, most_days: u32) -> Vec<KindState> {
        PartKind::ALL.into_iter().map(|kind| self.kind_state(kind, most_days)).filter(|one| one.parts > 0).collect()
    }

    fn kind_state(&self, kind: PartKind, most_days: u32) -> KindState {
        let (advisories, newest) = governing_data(&self.sources, kind);
        let age = newest.map(|newest| (OffsetDateTime::now_utc() - newest).max(Duration::ZERO));
        let flaws = self.flaws.iter().filter(|flaw| flaw.kind == kind);
        let (judged, open): (Vec<_>, Vec<_>) = flaws.partition(|flaw| flaw.is_judged());
        let is_fresh = age.is_some_and(|age| age <= Duration::days(most_days.into()));
        let state = match (open.is_empty(), is_fresh) {
            (false, _) => AdvisoryState::Open,
            (true, true) => AdvisoryState::Clean,
            (true, false) => AdvisoryState::NotKnown,
        };
        let (open, judged) = (open.len(), judged.len());
        KindState { kind, parts: self.parts.count(kind), open, judged, advisories, newest, age, is_fresh, state }
    }
}

/// How many advisories about a kind there are, and how new they are: a few new ones beside all the old ones do not make
/// those any newer.
fn governing_data(sources: &[AdvisorySource], kind: PartKind) -> (usize, Option<OffsetDateTime>) {
    let all = sources.iter().filter_map(|source| source.kinds.get(&kind));
    let largest = all.clone().max_by_key(|known| (known.records, known.newest));
    let whole = all.clone().filter(|known| known.is_whole);
    let newest = whole.chain(largest).filter_map(|known| known.newest).max();
    (all.map(|known| known.records).sum(), newest)
}

/// What stands in the directory for it.
pub(crate) fn own_files(host: &Host) -> Result<Vec<String>> {
    let names = host.list(ADVISORIES)?.unwrap_or_default();
    if let Some(found) = host.look_into(ADVISORIES)? {
        host.refuse_foreign(ADVISORIES, &found)?;
    }
    Ok(names.into_iter().filter(|name| !name.starts_with('.')).map(|name| format!("{ADVISORIES}/{name}")).collect())
}

fn refuse_broken(problems: &[String]) -> Result<()> {
    match problems.is_empty() {
        true => Ok(()),
        false => Err(Exit::Unusable.because(problems.join("\n"))),
    }
}

impl SiteFlaw {
    pub(crate) fn is_judged(&self) -> bool {
        matches!(self.ending, FlawEnding::Judged { .. })
    }
}

/// What the newest release that this program knows has on a Python.
fn newest_release(python: Option<u8>) -> NewestRelease {
    let Some((name, pins)) = python.and_then(newest_pins) else {
        return NewestRelease::default();
    };
    NewestRelease { name, pins, left: &HARDENING.left }
}

/// Holds advisories against the parts, as they come.
struct Matcher<'a> {
    parts: &'a SiteParts,
    newest: &'a NewestRelease,
    found: BTreeMap<(PartKind, &'a str, &'a SitePart), Vec<FlawReport>>,
}

impl<'a> Matcher<'a> {
    fn take(&mut self, advisory: Advisory) -> Result<()> {
        let parts = self.parts;
        let (found, report) = match advisory {
            Advisory::Osv(record) => return self.take_record(&record),
            Advisory::Tracked(flaw) => {
                let found = flaw.find_in(parts);
                (
                    found,
                    FlawReport { id: flaw.id, summary: flaw.summary, has_fix: flaw.has_fix, ..FlawReport::default() },
                )
            }
            Advisory::Listed(flaw) => {
                let found = flaw.find_in(parts).into_iter().collect();
                (
                    found,
                    FlawReport { id: flaw.id, summary: flaw.summary, has_fix: flaw.has_fix, ..FlawReport::default() },
                )
            }
        };
        for (package, part) in found {
            self.found.entry((PartKind::System, package, part)).or_default().push(report.clone());
        }
        Ok(())
    }

    fn take_record(&mut self, record: &OsvRecord) -> Result<()> {
        if record.withdrawn.is_some() {
            return Ok(());
        }
        for affected in &record.affected {
            let Some(package) = &affected.package else { continue };
            let Some(kind) = self.parts.kind_of(&package.ecosystem) else { continue };
            let (name, versions) = self.parts.find(kind, &package.name);
            for part in versions {
                let in_record = || format!("{}: {}", record.id, package.name);
                if !is_affected(kind, &part.version, affected).with_context(in_record)? {
                    continue;
                }
                let fixed = fixed_versions(kind, &part.version, affected);
                self.found.entry((kind, name, part)).or_default().push(FlawReport {
                    id: record.id.clone(),
                    aliases: record.aliases.clone(),
                    upstream: record.upstream.clone(),
                    summary: record.summary.clone(),
                    // What only subscribers get is no package that apt has for everybody.
                    has_fix: !fixed.is_empty() && !package.ecosystem.contains(":Pro:"),
                    is_ended: kind == PartKind::Python
                        && self.newest.is_without(name, record).with_context(in_record)?,
                    fixed,
                });
            }
        }
        Ok(())
    }

    fn flaws(self) -> Vec<SiteFlaw> {
        let newest = self.newest;
        let of_part = |((kind, package, part), reports): ((PartKind, &str, &SitePart), Vec<FlawReport>)| {
            let folded = fold_reports(kind, reports).into_iter();
            let one = |flaw: FoldedFlaw| {
                let plain = |text: &String| show_plain(text, LONGEST_NAME);
                SiteFlaw {
                    kind,
                    package: package.to_owned(),
                    version: part.version.clone(),
                    packages: part.binaries.keys().cloned().collect(),
                    ending: newest.find_ending(kind, package, part, &flaw),
                    id: plain(&flaw.id),
                    aliases: flaw.aliases.iter().map(plain).collect(),
                    summary: show_plain(&flaw.summary, LONGEST_SUMMARY),
                    fixed: flaw.fixed,
                }
            };
            folded.map(one).collect::<Vec<_>>()
        };
        self.found.into_iter().flat_map(of_part).collect()
    }
}

#[cfg(test)]
mod tests;
