//! Advisories for a bundle: one list of all that concerns this kind of machine, without what nobody reads here.

use super::debsecan::TrackedFlaw;
use super::matching::is_of_versions;
use super::parts::{PartKind, SiteParts};
use super::record::{CoveredData, Covers, OsvRecord};
use super::source::{Advisory, AdvisoryReader, AdvisorySource};
use super::{LONGEST_SUMMARY, governing_data, refuse_broken};
use crate::base::error::Exit;
use crate::base::text::{format_time, show_plain};
use crate::host::Host;
use anyhow::{Result, bail};
use serde_json::json;
use std::io::{BufWriter, Write};

/// Reads files and directories, and writes what of it a machine like this one may need; says what that was chosen from.
pub(crate) fn compact_advisories(host: &Host, files: &[String], out: &str) -> Result<Covers> {
    let parts = SiteParts::of_distribution(host)?;
    let mut written = BufWriter::new(host.new_file(out)?);
    written.write_all(b"{\"vulns\":[")?;
    let (mut tracked, mut number): (Vec<TrackedFlaw>, usize) = (Vec::new(), 0);
    let mut take = |advisory| {
        match advisory {
            Advisory::Osv(record) => {
                if let Some(record) = choose_parts(&parts, *record) {
                    written.write_all(if number == 0 { b"\n" } else { b",\n" })?;
                    serde_json::to_writer(&mut written, &record)?;
                    number += 1;
                }
            }
            Advisory::Tracked(flaw) => tracked.push(flaw),
            Advisory::Listed(_) => {
                bail!("a list from debsecan is about one machine: give the data that debsecan downloads")
            }
        }
        Ok(())
    };
    let live = Host::live()?;
    let mut reader =
        AdvisoryReader { host: &live, parts: &parts, take: &mut take, problems: Vec::new(), only_ours: false };
    let sources = files.iter().map(|file| reader.read_source(file)).collect::<Result<Vec<AdvisorySource>>>()?;
    refuse_broken(&reader.problems)?;
    let covers = cover_of(&parts, &sources);
    write!(written, "\n],\n\"debsecan\":{},\n\"covers\":{}}}\n", json!(tracked), json!(covers))?;
    if covers.is_empty() {
        let what = format!("PyPI, crates.io or {}", parts.distribution);
        return Err(Exit::Unusable.because(format!("{}: there is no advisory about {what}", files.join(", "))));
    }
    written.into_inner().map_err(|why| why.into_error())?.sync_all()?;
    Ok(covers)
}

/// What a record says of this kind of machine; nothing where that is nothing.
fn choose_parts(parts: &SiteParts, mut record: OsvRecord) -> Option<OsvRecord> {
    record.affected.retain(|affected| {
        let package = affected.package.as_ref();
        package.is_some_and(|package| parts.kind_of(&package.ecosystem).is_some())
    });
    record.summary = show_plain(&record.summary, LONGEST_SUMMARY);
    for affected in &mut record.affected {
        affected.ranges.retain(is_of_versions);
    }
    (record.withdrawn.is_none() && !record.affected.is_empty()).then_some(record)
}

fn cover_of(parts: &SiteParts, sources: &[AdvisorySource]) -> Covers {
    let mut covers = Covers::new();
    for kind in PartKind::ALL {
        let (records, newest) = governing_data(sources, kind);
        if let Some(modified) = newest.and_then(|newest| format_time(newest.into())) {
            let ecosystem = match kind {
                PartKind::Python => "PyPI",
                PartKind::Program => "crates.io",
                PartKind::System => &parts.distribution,
            };
            covers.insert(ecosystem.to_owned(), CoveredData { records, modified });
        }
    }
    covers
}
