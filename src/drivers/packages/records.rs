//! dpkg's own records: what is installed, read as a file.

use crate::host::Host;
use anyhow::Result;

pub(super) const RECORDS: &str = "/var/lib/dpkg/status";

/// What is said of a package, as it stands there.
#[derive(Debug, Default)]
pub(super) struct RecordFields<'a> {
    pub(super) name: &'a str,
    pub(super) status: &'a str,
    pub(super) architecture: &'a str,
    pub(super) provides: &'a str,
    version: &'a str,
    source: &'a str,
}

/// Every package that dpkg has ever seen.
pub(super) fn split_records(records: &str) -> impl Iterator<Item = RecordFields<'_>> {
    records.split("\n\n").map(|record| {
        let mut fields = RecordFields::default();
        for line in record.lines() {
            match line.split_once(": ") {
                Some(("Package", value)) => fields.name = value,
                Some(("Status", value)) => fields.status = value,
                Some(("Architecture", value)) => fields.architecture = value,
                Some(("Provides", value)) => fields.provides = value,
                Some(("Version", value)) => fields.version = value,
                Some(("Source", value)) => fields.source = value,
                _ => {}
            }
        }
        fields
    })
}

/// A package whose files are on this machine, and what it was built from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct DpkgRecord {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) source: String,
    pub(crate) source_version: String,
}

/// All of them, configured or not; none where dpkg is not what installs packages.
pub(crate) fn list_records(host: &Host) -> Result<Vec<DpkgRecord>> {
    Ok(host.read_text(RECORDS)?.as_deref().map(parse_records).unwrap_or_default())
}

fn parse_records(records: &str) -> Vec<DpkgRecord> {
    let is_there = |fields: &RecordFields<'_>| {
        let state = fields.status.rsplit(' ').next().unwrap_or_default();
        !["", "not-installed", "config-files"].contains(&state) && !fields.version.is_empty()
    };
    split_records(records)
        .filter(is_there)
        .map(|fields| {
            // `Source: gcc-12 (12.2.0-14)` where its version is another one.
            let (source, version) = match fields.source.split_once(" (") {
                Some((source, version)) => (source, version.trim_end_matches(')')),
                None => (fields.source, fields.version),
            };
            DpkgRecord {
                name: fields.name.to_owned(),
                version: fields.version.to_owned(),
                source: if source.is_empty() { fields.name } else { source }.to_owned(),
                source_version: version.to_owned(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_says_what_it_was_built_from() {
        let records = parse_records(
            "Package: libssl3\nStatus: install ok installed\nSource: openssl\nVersion: 3.0.15-1\n\n\
             Package: gcc-12-base\nStatus: hold ok unpacked\nSource: gcc-12 (12.2.0-14)\nVersion: 12.2.0-14+b1\n\n\
             Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n\
             Package: never\nStatus: unknown ok not-installed\n\n\
             Package: bash\nStatus: install ok triggers-pending\nVersion: 5.2.15-2\nDescription: a shell\n Source: no\n",
        );
        let told: Vec<String> = records
            .iter()
            .map(|one| format!("{} {} {} {}", one.name, one.version, one.source, one.source_version))
            .collect();
        assert_eq!(
            told,
            [
                "libssl3 3.0.15-1 openssl 3.0.15-1",
                "gcc-12-base 12.2.0-14+b1 gcc-12 12.2.0-14",
                "bash 5.2.15-2 bash 5.2.15-2"
            ]
        );
    }
}
