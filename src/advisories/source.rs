//! Files of advisories: what an administrator brings. Only regular files are read, each once, and never without a bound.

use super::debsecan::{self, ListedFlaw, TrackedFlaw};
use super::parts::{PartKind, SiteParts};
use super::record::{Covers, FileFault, OsvItem, OsvRecord, parse_date, read_items};
use crate::base::text::show_plain;
use crate::host::{Host, PathInfo, PathKind};
use anyhow::Result;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use serde_json::de::{IoRead, SliceRead};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Cursor, ErrorKind, Read};
use std::rc::Rc;
use time::{Duration, OffsetDateTime};

/// All that OSV knows of an ecosystem is less.
const LARGEST_FILE: u64 = 4 << 30;
/// No record of OSV comes near to it.
const LARGEST_RECORD: u64 = 32 << 20;
/// What is smaller is read at once.
const SMALL_FILE: u64 = 8 << 20;
/// debsecan's data have a few MiB.
const LARGEST_TEXT: u64 = 256 << 20;
/// OSV's own repositories have fewer levels.
const MOST_LEVELS: usize = 8;
/// All of OSV is fewer files.
const MOST_FILES: usize = 1_000_000;
/// How the files of a directory end that have advisories in them; debsecan's data have a name without any end.
const ENDINGS: [&str; 4] = [".json", ".jsonl", ".gz", ".zip"];
/// Who is told more than this does not read it.
const MOST_PROBLEMS: usize = 20;

/// What somebody says of a flaw.
#[derive(Debug)]
pub(crate) enum Advisory {
    Osv(Box<OsvRecord>),
    Tracked(TrackedFlaw),
    Listed(ListedFlaw),
}

/// A file, or a directory of them, that was read.
#[derive(Debug, Default)]
pub(crate) struct AdvisorySource {
    pub(crate) path: String,
    pub(crate) files: usize,
    /// Files of a directory that were not read: by their names, or because they are no regular files.
    pub(crate) left_out: usize,
    /// The date of the newest file.
    pub(crate) file_date: Option<OffsetDateTime>,
    pub(crate) kinds: BTreeMap<PartKind, KnownData>,
}

/// What a source knows of a kind.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct KnownData {
    pub(crate) records: usize,
    /// When it was last worked on: what the records say, and the file's own date where they say nothing.
    pub(crate) newest: Option<OffsetDateTime>,
    /// Whether it is all that is known of the kind: what debsecan has.
    pub(crate) is_whole: bool,
}

impl KnownData {
    fn add(&mut self, records: usize, date: OffsetDateTime) {
        self.records += records;
        // What comes from the future does not make the rest any newer.
        if date <= OffsetDateTime::now_utc() + Duration::DAY {
            self.newest = self.newest.max(Some(date));
        }
    }
}

/// Reads sources, and gives each advisory to somebody.
pub(crate) struct AdvisoryReader<'a> {
    pub(crate) host: &'a Host,
    pub(crate) parts: &'a SiteParts,
    pub(crate) take: &'a mut dyn FnMut(Advisory) -> Result<()>,
    /// What is wrong with files: their names, lines, and why.
    pub(crate) problems: Vec<String>,
    /// Whether what somebody else could have written is refused.
    pub(crate) only_ours: bool,
}

impl AdvisoryReader<'_> {
    /// Reads a file, or what is in a directory.
    pub(crate) fn read_source(&mut self, path: &str) -> Result<AdvisorySource> {
        let mut source = AdvisorySource { path: self.host.outside(path), ..AdvisorySource::default() };
        let path = match self.host.followed(path) {
            Ok(path) => path,
            Err(why) => {
                self.problems.push(format!("{why:#}"));
                return Ok(source);
            }
        };
        match self.host.stat(&path)? {
            Some(found) if found.kind == PathKind::Directory => self.read_directory(&path, &mut source, 0)?,
            Some(found) if found.kind == PathKind::File => self.read_file(&path, &mut source)?,
            Some(_) => self.complain(&path, "it is neither a regular file nor a directory"),
            None => self.complain(&path, "there is no such file"),
        }
        Ok(source)
    }

    fn complain(&mut self, path: &str, what: &str) {
        if self.problems.len() < MOST_PROBLEMS {
            self.problems.push(format!("{}: {}", self.host.outside(path), show_plain(what, 400)));
        }
    }

    /// Where root keeps advisories, nobody else may be able to change what they say.
    fn refuse_foreign(&self, path: &str, found: &PathInfo) -> Result<()> {
        match self.only_ours && !self.host.is_ours(found) {
            true => self.host.refuse_foreign(path, found),
            false => Ok(()),
        }
    }

    fn read_directory(&mut self, path: &str, source: &mut AdvisorySource, level: usize) -> Result<()> {
        if level > MOST_LEVELS {
            self.complain(path, "the directories are nested too deeply");
            return Ok(());
        }
        for name in self.host.list(path)?.unwrap_or_default() {
            let inside = format!("{path}/{name}");
            // Its name is no text, or it is gone.
            let Some(found) = self.host.stat(&inside)? else {
                source.left_out += 1;
                continue;
            };
            let is_meant = !name.contains('.') || ENDINGS.iter().any(|ending| name.ends_with(ending));
            match found.kind {
                _ if name.starts_with('.') => {}
                PathKind::Directory => {
                    self.refuse_foreign(&inside, &found)?;
                    self.read_directory(&inside, source, level + 1)?;
                }
                PathKind::File if is_meant && source.files < MOST_FILES => self.read_file(&inside, source)?,
                _ => source.left_out += 1,
            }
        }
        Ok(())
    }

    fn read_file(&mut self, path: &str, source: &mut AdvisorySource) -> Result<()> {
        let Some((found, file)) = self.host.open_file(path)? else {
            self.complain(path, "it is no longer a regular file");
            return Ok(());
        };
        self.refuse_foreign(path, &found)?;
        source.files += 1;
        let mut counted = FileCounts { date: found.modified.into(), kinds: BTreeMap::new(), covers: None };
        source.file_date = source.file_date.max(Some(counted.date));
        if let Err(FileFault { line, column, what }) = self.read_content(file, &mut counted) {
            let place = format!("{}:{line}:{column}", self.host.outside(path));
            if self.problems.len() < MOST_PROBLEMS {
                self.problems.push(format!("{place}: {}", show_plain(&what, 400)));
            }
            return Ok(());
        }
        for (kind, known) in counted.total(self.parts) {
            let all = source.kinds.entry(kind).or_default();
            all.records += known.records;
            all.newest = all.newest.max(known.newest);
            all.is_whole |= known.is_whole;
        }
        Ok(())
    }

    fn read_content(&mut self, file: File, counted: &mut FileCounts) -> Result<(), FileFault> {
        let size = file.metadata().map_err(unreadable)?.len();
        if size > LARGEST_FILE {
            return Err(fault(format!("it has {size} bytes, far more than expected")));
        }
        let left = Rc::new(Cell::new(LARGEST_RECORD));
        let (inner, is_packed) = unpacked_stream(file)?;
        let mut stream = BoundedStream { inner, left: left.clone(), total: LARGEST_FILE };
        let mut head = vec![0; debsecan::MAGIC.len()];
        let length = read_fully(&mut stream, &mut head).map_err(unreadable)?;
        head.truncate(length);
        if head == debsecan::MAGIC {
            let text = read_text(head, stream)?;
            return self.take_all(debsecan::parse_data(&text)?.into_iter().map(Advisory::Tracked), counted);
        }
        if begins_json(&head) {
            let parts = self.parts;
            let take = &mut *self.take;
            let mut item = |item| {
                left.set(LARGEST_RECORD);
                match item {
                    OsvItem::Record(record) => {
                        counted.count_record(&record, parts)?;
                        take(Advisory::Osv(record))
                    }
                    OsvItem::Tracked(flaw) => take(Advisory::Tracked(flaw)),
                    OsvItem::Covers(covers) => {
                        counted.covers = Some(covers);
                        Ok(())
                    }
                }
            };
            if size <= SMALL_FILE && !is_packed {
                let mut bytes = head;
                stream.read_to_end(&mut bytes).map_err(unreadable)?;
                return read_items(SliceRead::new(&bytes), &mut item);
            }
            let stream = BufReader::with_capacity(1 << 18, Cursor::new(head).chain(stream));
            return read_items(IoRead::new(stream), &mut item);
        }
        let text = read_text(head, stream)?;
        match text.lines().find(|line| !line.trim().is_empty()) {
            None => Err(fault("it is empty".into())),
            Some(line) if debsecan::is_list_line(line) || line.starts_with(' ') => {
                self.take_all(debsecan::parse_list(&text)?.into_iter().map(Advisory::Listed), counted)
            }
            Some(_) => Err(fault("neither JSON of OSV, nor debsecan's data, nor a list of debsecan's".into())),
        }
    }

    fn take_all(&mut self, all: impl Iterator<Item = Advisory>, counted: &mut FileCounts) -> Result<(), FileFault> {
        let mut records = 0;
        for one in all {
            (self.take)(one).map_err(|why| fault(format!("{why:#}")))?;
            records += 1;
        }
        let known = counted.kinds.entry(PartKind::System).or_default();
        known.add(records, counted.date);
        known.is_whole = true;
        Ok(())
    }
}

/// What a file has of each kind.
struct FileCounts {
    date: OffsetDateTime,
    kinds: BTreeMap<PartKind, KnownData>,
    covers: Option<Covers>,
}

impl FileCounts {
    fn count_record(&mut self, record: &OsvRecord, parts: &SiteParts) -> Result<()> {
        let date = record.newest()?.unwrap_or(self.date);
        let packages = record.affected.iter().filter_map(|one| one.package.as_ref());
        let mut kinds: Vec<PartKind> = packages.filter_map(|one| parts.kind_of(&one.ecosystem)).collect();
        kinds.sort();
        kinds.dedup();
        for kind in kinds {
            self.kinds.entry(kind).or_default().add(1, date);
        }
        Ok(())
    }

    /// What a list was chosen from counts in place of what is in it.
    fn total(self, parts: &SiteParts) -> BTreeMap<PartKind, KnownData> {
        let Some(covers) = self.covers else {
            return self.kinds;
        };
        let mut kinds: BTreeMap<PartKind, KnownData> = BTreeMap::new();
        for (ecosystem, covered) in covers {
            if let (Some(kind), Ok(date)) = (parts.kind_of(&ecosystem), parse_date(&covered.modified)) {
                kinds.entry(kind).or_default().add(covered.records, date);
            }
        }
        kinds
    }
}

fn begins_json(head: &[u8]) -> bool {
    let blank = head.iter().position(|byte| !byte.is_ascii_whitespace());
    blank.is_none_or(|at| b"{[".contains(&head[at])) && !head.is_empty()
}

/// What is in a file, and whether it is packed there.
fn unpacked_stream(mut file: File) -> Result<(Box<dyn Read>, bool), FileFault> {
    let mut magic = [0; 4];
    let length = read_fully(&mut file, &mut magic).map_err(unreadable)?;
    let whole = Cursor::new(magic[..length].to_vec()).chain(file);
    match magic {
        [0x1f, 0x8b, ..] => Ok((Box::new(MultiGzDecoder::new(whole)), true)),
        [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..] => Ok((Box::new(ZlibDecoder::new(whole)), true)),
        [b'P', b'K', 3 | 5, 4 | 6] => {
            Err(fault("it is a zip archive: unpack it with `unzip FILE -d DIRECTORY`, and name the directory".into()))
        }
        _ => Ok((Box::new(whole), false)),
    }
}

fn read_text(mut head: Vec<u8>, stream: BoundedStream) -> Result<String, FileFault> {
    stream.left.set(LARGEST_TEXT);
    { stream }.read_to_end(&mut head).map_err(unreadable)?;
    String::from_utf8(head).map_err(|why| {
        let before = &why.as_bytes()[..why.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        FileFault { line, column: 1, what: "it is not UTF-8 text".into() }
    })
}

fn read_fully(from: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < into.len() {
        match from.read(&mut into[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(why) if why.kind() == ErrorKind::Interrupted => {}
            Err(why) => return Err(why),
        }
    }
    Ok(length)
}

fn unreadable(why: io::Error) -> FileFault {
    fault(why.to_string())
}

fn fault(what: String) -> FileFault {
    FileFault { line: 1, column: 1, what }
}

/// What comes from a file; it fails where a record, or all of it, does not end.
struct BoundedStream {
    inner: Box<dyn Read>,
    /// Bytes that the record at hand may still have.
    left: Rc<Cell<u64>>,
    total: u64,
}

impl Read for BoundedStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        let left = self.left.get().checked_sub(length as u64);
        let total = self.total.checked_sub(length as u64);
        match (left, total) {
            (Some(left), Some(total)) => {
                self.left.set(left);
                self.total = total;
                Ok(length)
            }
            _ => Err(io::Error::other("it is larger than any advisory")),
        }
    }
}
