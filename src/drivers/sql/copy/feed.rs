//! How clients are fed a dump: one with all of it, or several with a table each.

use super::deferred_keys;
use super::dump::DumpSection;
use super::scan::DumpScan;
use crate::archive::pack::{PIECE, unpack_stream};
use crate::base::error::Exit;
use crate::base::progress::{Amount, Tell, Unit};
use crate::base::signals::Interrupt;
use crate::host::{Flow, Host};
use anyhow::{Context, Result, anyhow};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::process::ChildStdin;
use std::sync::Mutex;

/// What stands before the first table of a dump is some lines.
const LARGEST_HEAD: u64 = 1 << 20;

/// From this size on, on the disk, keys of a table are made after its rows.
const LARGE: u64 = 64 << 10;

/// No statement that makes a table is longer.
const LARGEST_CREATE: usize = 1 << 20;

/// So much is read at once to find its end.
const SMALL_PIECE: u64 = 1 << 16;

/// A signal ends a load with the statement at hand: all of it may take hours.
fn go_on() -> io::Result<()> {
    match Interrupt::Signals.is_set() {
        true => Err(io::Error::other("stopped")),
        false => Ok(()),
    }
}

/// How far it is.
struct LoadProgress {
    tell: Tell,
    done: u64,
    all: u64,
}

impl LoadProgress {
    fn add(&mut self, bytes: u64) {
        self.done += bytes;
        let (done, all) = (self.done, self.all);
        self.tell.amount(Amount { what: "loading the database", done, all, unit: Unit::Bytes });
    }
}

pub(super) fn stream_dump(
    host: &Host,
    mut client: Flow,
    file: &File,
    mut decrypted: Option<Flow>,
    tell: Tell,
) -> Result<DumpScan> {
    let mut progress = LoadProgress { tell, done: 0, all: 0 };
    let mut scan = DumpScan::default();
    let mut input = client.input.take().context("the client reads nothing")?;
    let output = decrypted.as_mut().and_then(|flow| flow.output.take());
    let pump = || -> io::Result<()> {
        let mut text = match output {
            Some(output) => unpack_stream(output)?,
            None => unpack_stream(file)?,
        };
        pump_text(&mut text, &mut input, |piece| {
            scan.feed(piece);
            progress.add(piece.len() as u64);
            Ok(())
        })
    };
    let pumped = pump();
    drop(input);
    if let Err(why) = pumped {
        return Err(explain_failure(why, host, decrypted.take(), client));
    }
    if let Some(flow) = decrypted {
        flow.end(host).map_err(|why| Exit::Unusable.because(format!("the backup can't be decrypted: {why:#}")))?;
    }
    client.end(host)?;
    Ok(scan)
}

/// Passes on all of a text, and tells of each piece.
fn pump_text(
    text: &mut impl Read,
    input: &mut ChildStdin,
    mut passed: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let read = text.read(&mut piece).map_err(DumpReadError::wrapped)?;
        if read == 0 {
            return Ok(());
        }
        go_on()?;
        input.write_all(&piece[..read])?;
        passed(&piece[..read])?;
    }
}

/// A failure of the dump, and not of who should read it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct DumpReadError(io::Error);

impl DumpReadError {
    fn wrapped(why: io::Error) -> io::Error {
        io::Error::other(DumpReadError(why))
    }
}

/// Whether it is the dump that could not be read, or the client that did not read it.
fn explain_failure(why: io::Error, host: &Host, decrypted: Option<Flow>, client: Flow) -> anyhow::Error {
    if why.get_ref().is_none_or(|inner| !inner.is::<DumpReadError>()) {
        return client.failed(host, anyhow!("the client stopped reading"));
    }
    let told = decrypted.map_or_else(
        || why.to_string(),
        |flow| match flow.end(host) {
            Err(told) => told.to_string(),
            Ok(()) => why.to_string(),
        },
    );
    Exit::Unusable.because(format!(
        "the dump can't be read to its end ({told}): it is damaged or incomplete; nothing was changed"
    ))
}

/// A part that waits for a client.
#[derive(Debug)]
struct DumpPart {
    from: u64,
    to: u64,
}

/// Reads a part of a file, without a position that others could move.
#[derive(Debug)]
struct Window<'a> {
    file: &'a File,
    part: DumpPart,
}

impl Read for Window<'_> {
    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.part.to - self.part.from).unwrap_or(usize::MAX);
        let most = piece.len().min(left);
        let read = self.file.read_at(&mut piece[..most], self.part.from)?;
        self.part.from += read as u64;
        Ok(read)
    }
}

pub(super) fn side_by_side(
    host: &Host,
    mut clients: Vec<Flow>,
    file: &File,
    sections: &[DumpSection],
    text_bytes: u64,
    tell: Tell,
) -> Result<DumpScan> {
    let end = file.metadata()?.len();
    let parts = sections.iter().enumerate().map(|(at, section)| {
        let to = sections.get(at + 1).map_or(end, |next| next.offset);
        let is_in_order = section.offset <= to && to <= end;
        is_in_order.then_some((section.table.is_some(), DumpPart { from: section.offset, to }))
    });
    let damaged = || Exit::Unusable.because("the manifest does not match the dump");
    let parts: Vec<(bool, DumpPart)> = parts.collect::<Option<_>>().ok_or_else(damaged)?;
    let mut parts = parts.into_iter();
    let mut head = Vec::new();
    let (_, part) = parts.next().ok_or_else(damaged)?;
    unpack_stream(Window { file, part })?.take(LARGEST_HEAD + 1).read_to_end(&mut head)?;
    if head.len() as u64 > LARGEST_HEAD {
        return Err(damaged());
    }
    let mut tables: Vec<DumpPart> = parts.filter(|(is_table, _)| *is_table).map(|(_, part)| part).collect();
    // The largest first: the last ones to be loaded should be small.
    tables.sort_by_key(|part| part.to - part.from);
    let queue = Mutex::new(tables);
    let progress = Mutex::new(LoadProgress { tell, done: 0, all: text_bytes });
    let inputs: Vec<ChildStdin> = clients
        .iter_mut()
        .map(|client| client.input.take().context("the client reads nothing"))
        .collect::<Result<_>>()?;
    let fed: Vec<io::Result<()>> = std::thread::scope(|scope| {
        let workers: Vec<_> = inputs
            .into_iter()
            .map(|input| scope.spawn(|| feed_client(input, &head, file, &queue, &progress)))
            .collect();
        workers
            .into_iter()
            .map(|worker| {
                let gone = || Err(io::Error::other("a thread ended"));
                worker.join().unwrap_or_else(|_| gone())
            })
            .collect()
    });
    let mut first = Ok(());
    for (client, fed) in clients.into_iter().zip(fed) {
        let ended = match fed {
            Ok(()) => client.end(host),
            Err(why) => Err(explain_failure(why, host, None, client)),
        };
        first = first.and(ended);
    }
    first?;
    Ok(DumpScan::default())
}

fn feed_client(
    mut input: ChildStdin,
    head: &[u8],
    file: &File,
    queue: &Mutex<Vec<DumpPart>>,
    progress: &Mutex<LoadProgress>,
) -> io::Result<()> {
    fn lock_failed<T>(_: T) -> io::Error {
        io::Error::other("another thread failed")
    }
    loop {
        let Some(part) = queue.lock().map_err(lock_failed)?.pop() else {
            return Ok(());
        };
        // What is set for a dump: the end of the part before may have set it back.
        input.write_all(head)?;
        let is_large = part.to - part.from > LARGE;
        let mut text = unpack_stream(Window { file, part })?;
        let mut keys = None;
        if is_large {
            let begin = read_beginning(&mut text).map_err(DumpReadError::wrapped)?;
            let without = deferred_keys::split_keys(&begin).map(|(without, statement)| {
                keys = Some(statement);
                without
            });
            input.write_all(without.as_ref().unwrap_or(&begin))?;
            progress.lock().map_err(lock_failed)?.add(begin.len() as u64);
        }
        pump_text(&mut text, &mut input, |piece| {
            progress.lock().map_err(lock_failed)?.add(piece.len() as u64);
            Ok(())
        })?;
        if let Some(keys) = keys {
            input.write_all(keys.as_bytes())?;
        }
    }
}

/// A part up to where the statement that makes its table is whole, if it comes early.
fn read_beginning(text: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut begin = Vec::new();
    while begin.len() < LARGEST_CREATE && !deferred_keys::is_whole(&begin) {
        let before = begin.len();
        text.take(SMALL_PIECE).read_to_end(&mut begin)?;
        if begin.len() == before {
            break;
        }
    }
    Ok(begin)
}
