//! `vulnerabilities`: what the site is made of against published advisories, and what ends each.

use super::need_root;
use crate::advisories::{AdvisorySource, AdvisoryState, Examination, KindState, SiteFlaw};
use crate::base::error::Exit;
use crate::base::report::Report;
use crate::base::terminal::count_of;
use crate::base::text::{absolute_path, format_time};
use crate::cli::{Global, Vulnerabilities};
use crate::drivers::packages::{AskedDebsecan, ask_debsecan};
use crate::layout::ADVISORIES;
use crate::session::Session;
use crate::site::facts::debian_codename;
use anyhow::Result;
use serde_json::{Value, json};

pub(crate) fn run(global: &Global, flags: &Vulnerabilities) -> Result<Report> {
    need_root(global, "see all packages of the site")?;
    let site = Session::open(global)?;
    let files = flags.advisories.iter().map(|file| absolute_path(file)).collect::<Result<Vec<_>>>()?;
    let (debsecan, unasked) = ask_distribution(&site)?;
    let examination = Examination::of(&site.host, &files, debsecan.as_deref())?;
    let most_days = site.settings().advisories.max_age_days.get();
    let kinds = examination.kinds(most_days);
    let worst = kinds.iter().map(|kind| kind.state).max().unwrap_or(AdvisoryState::NotKnown);
    if kinds.iter().all(|kind| kind.advisories == 0) {
        return Err(Exit::Unreachable.because(format!(
            "there are no advisories to check the site against: copy OSV's or debsecan's files to {}, or name them with --advisories{}",
            site.host.outside(ADVISORIES),
            unasked.map_or_else(String::new, |why| format!("; {why}"))
        )));
    }
    let document = document_of(&site, &examination, &kinds, worst, most_days, unasked.as_deref());
    Ok(Report::new(document)
        .with_lines(examination.flaws.iter().flat_map(describe_flaw))
        .with_lines(kinds.iter().map(describe_kind))
        .with_notes(examination.sources.iter().filter(|source| source.left_out > 0).map(|source| {
            format!(
                "note: {} of {} read, because their names are not those of advisory files",
                count_left_out(source),
                source.path
            )
        }))
        .with_warnings(unasked)
        .with_line(describe_verdict(&kinds, worst))
        .with_code(match worst {
            AdvisoryState::Clean => 0,
            AdvisoryState::Open => Exit::Failed as u8,
            AdvisoryState::NotKnown => Exit::Unreachable as u8,
        }))
}

/// What Debian's own tool says of this machine; and why it could not be asked.
fn ask_distribution(site: &Session) -> Result<(Option<String>, Option<String>)> {
    let (Some(suite), Some(known)) = (debian_codename(&site.host)?, &site.drivers.packages) else {
        return Ok((None, None));
    };
    Ok(match ask_debsecan(&site.host, known, &suite)? {
        AskedDebsecan::NotThere => (None, None),
        AskedDebsecan::NotAsked(why) => (None, Some(why)),
        AskedDebsecan::Told(list) => (Some(list), None),
    })
}

fn document_of(
    site: &Session,
    examination: &Examination,
    kinds: &[KindState],
    worst: AdvisoryState,
    most_days: u32,
    unasked: Option<&str>,
) -> Value {
    let kinds: Vec<Value> = kinds.iter().map(kind_document).collect();
    let sources: Vec<Value> = examination.sources.iter().map(source_document).collect();
    json!({
        "instance": site.instance,
        "state": worst,
        "release": examination.parts.release,
        "distribution": examination.parts.distribution,
        "max_age_days": most_days,
        "warnings": Vec::from_iter(unasked),
        "kinds": kinds,
        "sources": sources,
        "advisories": examination.flaws,
    })
}

fn kind_document(kind: &KindState) -> Value {
    json!({
        "kind": kind.kind,
        "state": kind.state,
        "parts": kind.parts,
        "open": kind.open,
        "judged": kind.judged,
        "advisories": kind.advisories,
        "newest": kind.newest.and_then(|newest| format_time(newest.into())),
        "age_days": kind.age.map(|age| age.whole_days()),
    })
}

fn source_document(source: &AdvisorySource) -> Value {
    let newest = source.kinds.values().filter_map(|known| known.newest).max();
    let records: std::collections::BTreeMap<&str, usize> =
        source.kinds.iter().map(|(kind, known)| (kind.as_str(), known.records)).collect();
    json!({
        "path": source.path,
        "files": source.files,
        "left_out": source.left_out,
        "records": records,
        "newest": newest.and_then(|newest| format_time(newest.into())),
        "file_date": source.file_date.and_then(|date| format_time(date.into())),
    })
}

fn describe_flaw(flaw: &SiteFlaw) -> Vec<String> {
    let names: Vec<&str> = std::iter::once(&flaw.id).chain(&flaw.aliases).map(String::as_str).collect();
    let summary = if flaw.summary.is_empty() { String::new() } else { format!(": {}", flaw.summary) };
    let fixed = match flaw.fixed.is_empty() {
        true => String::new(),
        false => format!(" (fixed in {})", flaw.fixed.join(", ")),
    };
    vec![
        format!("{} {} {}{summary}", flaw.package, flaw.version, names.join(" ")),
        format!("    fix: {}{fixed}", flaw.ending),
    ]
}

fn describe_kind(kind: &KindState) -> String {
    let known = match (kind.advisories, kind.newest, kind.age) {
        (0, _, _) => "no advisories were read".to_owned(),
        (number, Some(newest), Some(age)) => {
            format!("{}, the newest of {} ({} old)", count_advisories(number), newest.date(), days_of(age.whole_days()))
        }
        (number, _, _) => format!("{}, of an unknown date", count_advisories(number)),
    };
    let judged = if kind.judged > 0 { format!(", {} judged", kind.judged) } else { String::new() };
    format!("{}: {}, {} open{judged}; {known}", kind.kind.plural(), kind.parts, kind.open)
}

fn count_advisories(number: usize) -> String {
    if number == 1 { "1 advisory".to_owned() } else { format!("{number} advisories") }
}

fn count_left_out(source: &AdvisorySource) -> String {
    match source.left_out {
        1 => "1 file was not".to_owned(),
        number => format!("{number} files were not"),
    }
}

fn days_of(days: i64) -> String {
    count_of(days, "day")
}

/// The one line that says how the site is.
fn describe_verdict(kinds: &[KindState], worst: AdvisoryState) -> String {
    let open: usize = kinds.iter().map(|kind| kind.open).sum();
    let mut doubts = Vec::new();
    for kind in kinds {
        let name = kind.kind.plural();
        match kind.age {
            _ if kind.advisories == 0 => doubts.push(format!("no advisories for the {name}")),
            Some(age) if !kind.is_fresh => {
                doubts.push(format!("advisories for the {name} are {} old", days_of(age.whole_days())));
            }
            None => doubts.push(format!("advisories for the {name} have no date")),
            _ => {}
        }
    }
    let doubts = doubts.join("; ");
    match worst {
        AdvisoryState::Clean => "clean: no advisory is open".to_owned(),
        AdvisoryState::NotKnown => format!("unknown: {doubts}"),
        AdvisoryState::Open if doubts.is_empty() => format!("open: {}", count_advisories(open)),
        AdvisoryState::Open => format!("open: {}; there may be more: {doubts}", count_advisories(open)),
    }
}
