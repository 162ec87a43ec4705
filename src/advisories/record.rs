//! Records of OSV (ossf.github.io/osv-schema): one, a list, `{"vulns": [..]}`, or any number of these one after the
//! other. They are read as a stream: a file may be all that is known of an ecosystem.

use super::debsecan::TrackedFlaw;
pub(crate) use crate::archive::bundle::manifest::{CoveredData, Covers};
use anyhow::{Context, Result};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::fmt;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// One advisory, as far as it is used here.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct OsvRecord {
    pub(crate) id: String,
    /// Other names of the same flaw.
    pub(crate) aliases: Vec<String>,
    /// The flaws that a distribution's advisory is about.
    pub(crate) upstream: Vec<String>,
    pub(crate) summary: String,
    pub(crate) modified: Option<String>,
    pub(crate) published: Option<String>,
    /// It was taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) withdrawn: Option<String>,
    pub(crate) affected: Vec<AffectedPackage>,
}

/// What it says of one package.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct AffectedPackage {
    #[serde(default)]
    pub(crate) package: Option<OsvPackage>,
    #[serde(default, deserialize_with = "null_is_none")]
    pub(crate) ranges: Vec<OsvRange>,
    #[serde(default, deserialize_with = "null_is_none")]
    pub(crate) versions: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct OsvPackage {
    pub(crate) ecosystem: String,
    pub(crate) name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct OsvRange {
    #[serde(rename = "type")]
    pub(crate) form: String,
    #[serde(default, deserialize_with = "null_is_none")]
    pub(crate) events: Vec<OsvEvent>,
}

/// Each has one of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct OsvEvent {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) introduced: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fixed: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_affected: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<String>,
}

fn null_is_none<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(reader: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(reader)?.unwrap_or_default())
}

/// What stands in a file.
#[derive(Debug)]
pub(crate) enum OsvItem {
    Record(Box<OsvRecord>),
    /// A flaw as debsecan's data have it, in a list that was made for a bundle.
    Tracked(TrackedFlaw),
    /// What a list was chosen from.
    Covers(Covers),
}

/// Where a file is wrong, and what is.
#[derive(Debug)]
pub(crate) struct FileFault {
    pub(crate) line: usize,
    pub(crate) column: usize,
    pub(crate) what: String,
}

/// Reads all that stands in a file, and gives each record to somebody, whose complaint is one about that record.
pub(crate) fn read_items<'de, R: serde_json::de::Read<'de>>(
    source: R,
    take: &mut dyn FnMut(OsvItem) -> Result<()>,
) -> std::result::Result<(), FileFault> {
    let mut values = serde_json::Deserializer::new(source);
    loop {
        ItemSeed(take).deserialize(&mut values).map_err(describe_fault)?;
        if values.end().is_ok() {
            return Ok(());
        }
    }
}

fn describe_fault(why: serde_json::Error) -> FileFault {
    let (line, column) = (why.line(), why.column());
    let text = why.to_string();
    let place = format!(" at line {line} column {column}");
    FileFault { line, column, what: text.strip_suffix(&place).unwrap_or(&text).to_owned() }
}

/// A record, or a list of them.
struct ItemSeed<'a>(&'a mut dyn FnMut(OsvItem) -> Result<()>);

impl<'de> DeserializeSeed<'de> for ItemSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ItemSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an advisory of OSV or a list of them")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(ItemSeed(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut record = OsvRecord::default();
        let (mut details, mut is_list) = (String::new(), false);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "vulns" => {
                    is_list = true;
                    map.next_value_seed(ItemSeed(&mut *self.0))?;
                }
                "covers" => self.hand_over(OsvItem::Covers(map.next_value()?))?,
                "debsecan" => {
                    for flaw in map.next_value::<Vec<TrackedFlaw>>()? {
                        self.hand_over(OsvItem::Tracked(flaw))?;
                    }
                }
                "id" => record.id = map.next_value()?,
                "aliases" => record.aliases = or_none(&mut map)?,
                "upstream" => record.upstream = or_none(&mut map)?,
                "summary" => record.summary = or_none(&mut map)?,
                "details" => details = or_none(&mut map)?,
                "modified" => record.modified = map.next_value()?,
                "published" => record.published = map.next_value()?,
                "withdrawn" => record.withdrawn = map.next_value()?,
                "affected" => record.affected = or_none(&mut map)?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        if is_list {
            return Ok(());
        }
        if record.id.is_empty() {
            return Err(A::Error::custom("neither an advisory of OSV, which has an id, nor a list \"vulns\" of them"));
        }
        if record.summary.is_empty() {
            record.summary = details.lines().next().unwrap_or_default().to_owned();
        }
        self.hand_over(OsvItem::Record(Box::new(record)))
    }
}

impl ItemSeed<'_> {
    fn hand_over<E: Error>(&mut self, item: OsvItem) -> Result<(), E> {
        (self.0)(item).map_err(|why| E::custom(format!("{why:#}")))
    }
}

fn or_none<'de, A: MapAccess<'de>, T: Deserialize<'de> + Default>(map: &mut A) -> Result<T, A::Error> {
    Ok(map.next_value::<Option<T>>()?.unwrap_or_default())
}

impl OsvRecord {
    /// When it was last worked on; nothing where it does not say.
    pub(crate) fn newest(&self) -> Result<Option<OffsetDateTime>> {
        let dates = [("modified", &self.modified), ("published", &self.published)];
        let mut newest = None;
        for (name, text) in dates {
            if let Some(text) = text {
                let date = parse_date(text).with_context(|| format!("{}: {name}", self.id))?;
                newest = newest.max(Some(date));
            }
        }
        Ok(newest)
    }
}

pub(crate) fn parse_date(text: &str) -> Result<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).with_context(|| format!("{text:?} is not a time like 2026-11-30T00:00:00Z"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::de::{IoRead, SliceRead};

    /// The ids of the records of a file; or where it is wrong.
    fn ids(text: &str) -> std::result::Result<Vec<String>, (usize, String)> {
        let (mut slice, mut stream) = (Vec::new(), Vec::new());
        let keep = |all: &mut Vec<String>, item| {
            if let OsvItem::Record(record) = item {
                anyhow::ensure!(record.id != "REFUSED", "REFUSED: no good");
                all.push(record.id);
            }
            Ok(())
        };
        let by_slice = read_items(SliceRead::new(text.as_bytes()), &mut |item| keep(&mut slice, item));
        let by_stream = read_items(IoRead::new(text.as_bytes()), &mut |item| keep(&mut stream, item));
        assert_eq!(slice, stream);
        if let (Err(one), Err(other)) = (&by_slice, &by_stream) {
            assert_eq!((one.line, &one.what), (other.line, &other.what));
        }
        assert_eq!(by_slice.is_ok(), by_stream.is_ok());
        by_slice.map(|()| slice).map_err(|why| (why.line, why.what))
    }

    #[test]
    fn records_come_alone_in_lists_and_in_lines() {
        for text in [
            r#"{"id": "A"} {"id": "B", "aliases": null, "affected": [{"package": null, "ranges": null}]}"#,
            r#"[{"id": "A"}, {"affected": [], "id": "B", "withdrawn": null}]"#,
            "{\"id\": \"A\"}\n{\"id\": \"B\"}\n",
            r#"{"vulns": [{"id": "A"}, {"id": "B"}], "modified": "2026-11-30T00:00:00Z"}"#,
            r#"{"vulns": [{"id": "A"}]}[{"id": "B"}]"#,
        ] {
            assert_eq!(ids(text).unwrap(), ["A", "B"], "{text}");
        }
        assert_eq!(ids("[]").unwrap(), [""; 0]);
    }

    #[test]
    fn what_is_broken_is_told_with_its_line() {
        for (text, line, what) in [
            ("", 1, "EOF while parsing a value"),
            ("{\"id\": \"A\"}\n{\"id\": \"B\",\n", 3, "EOF while parsing a value"),
            ("[\n{\"id\": \"A\"},\n{\"id\" \"B\"}]", 3, "expected `:`"),
            ("{\"id\":\n 7}", 2, "invalid type: integer `7`, expected a string"),
            (
                "{\"id\": \"A\", \"affected\":\n[\n{\"ranges\": [{\"type\": \"SEMVER\", \"events\": 3}]}]}",
                3,
                "invalid type",
            ),
            ("{\"id\": \"A\"}\n{\"summary\": \"x\"}", 2, "neither an advisory of OSV"),
            ("{\"id\": \"A\"}\n3", 2, "invalid type: integer `3`, expected an advisory of OSV"),
            ("{\"id\": \"A\"}\n{\"id\": \"REFUSED\"}", 2, "REFUSED: no good"),
            ("\n\nnothing", 3, "expected ident"),
            ("{\"id\": \"A\"}\n\u{0}", 2, "expected value"),
            ("{\"vulns\": [],\n\"covers\": {\"PyPI\": 7}}", 2, "expected struct CoveredData"),
        ] {
            let (found, why) = ids(text).unwrap_err();
            assert!(found == line && why.contains(what), "{text}: {found}: {why}");
        }
    }

    #[test]
    fn depth_is_no_trouble() {
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        // What is not read is passed over, however deep; what would be read has an end.
        assert_eq!(ids(&format!("{{\"id\": \"A\", \"x\": {}}}", deep(100_000))).unwrap(), ["A"]);
        assert!(ids(&deep(100)).unwrap().is_empty());
        assert!(ids(&deep(100_000)).unwrap_err().1.contains("recursion limit"));
    }
}
