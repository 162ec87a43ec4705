//! Reading a bundle: in one pass, each file held against the manifest.

use super::advisories::ADVISORY_FILE;
use super::manifest::{BundleManifest, BundledFile, MANIFEST};
use super::{PACKAGES, TOOL, WHEELS, unusable_bundle};
use crate::archive::pack::{PIECE, unpack_stream};
use crate::base::error::Exit;
use crate::base::text::encode_hex;
use crate::host::Host;
use anyhow::{Context, Result};
use ring::digest;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use tar::{Archive, Entries, Entry, EntryType};

/// No list of files is larger.
const LARGEST_MANIFEST: u64 = 4 << 20;
/// What the disk keeps besides the files of a bundle.
const RESERVE: u64 = 64 << 20;

type Stream = Box<dyn Read>;

/// What a bundle says of itself; nothing else of it is read.
pub(crate) fn read_manifest(path: &str) -> Result<BundleManifest> {
    let mut archive = open_archive(path)?;
    Ok(begin_reading(&mut archive, path)?.0)
}

/// Holds every file against the manifest.
pub(crate) fn verify_bundle(path: &str) -> Result<BundleManifest> {
    pass_through(path, |_| Ok(()), |_| Ok(None))
}

/// The same, and puts the files into a directory that is not there yet, for root alone.
pub(crate) fn unpack_bundle(path: &str, host: &Host, directory: &str) -> Result<BundleManifest> {
    let begin = |manifest: &BundleManifest| {
        let parent = directory.rsplit_once('/').map_or("/", |(parent, _)| parent);
        let free = host.space(parent)?.free_bytes;
        let needed = manifest.bytes() + RESERVE;
        if free < needed {
            return Err(Exit::Io.because(format!(
                "unpacking {path} needs {} MiB in {}, but {} MiB are free; free some space and run again",
                needed >> 20,
                host.outside(parent),
                free >> 20
            )));
        }
        let inside = [WHEELS, PACKAGES].map(|name| format!("{directory}/{name}"));
        for path in [directory, &inside[0], &inside[1]] {
            host.make_directory(path, Some((0, 0)), 0o700)?;
        }
        Ok(())
    };
    pass_through(path, begin, |file| match file.path.as_str() {
        // Whoever reads this has it already; advisories are put where they are kept.
        TOOL | ADVISORY_FILE => Ok(None),
        inside => host.new_file(&format!("{directory}/{inside}")).map(Some),
    })
}

/// Gives one file to somebody who reads it; what comes before it is passed over.
pub(crate) fn with_file(path: &str, wanted: &BundledFile, put: impl FnOnce(&mut dyn Read) -> Result<()>) -> Result<()> {
    let mut archive = open_archive(path)?;
    let (manifest, mut entries) = begin_reading(&mut archive, path)?;
    for file in &manifest.files {
        let entry = next_entry(&mut entries, path, &file.path)?;
        if file == wanted {
            let sum = digest::Context::new(&digest::SHA256);
            let mut content = SummedReader { inner: entry.take(wanted.bytes), sum, wanted, is_damaged: false };
            let done = put(&mut content);
            return if content.is_damaged { Err(damaged_entry(path, &wanted.path)) } else { done };
        }
    }
    Err(damaged_entry(path, &wanted.path))
}

/// Fails at the end of what is not what the manifest says, so that it is never put in place.
struct SummedReader<'a, R> {
    inner: R,
    sum: digest::Context,
    wanted: &'a BundledFile,
    is_damaged: bool,
}

impl<R: Read> Read for SummedReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.sum.update(&buffer[..read]);
        if read == 0 && encode_hex(self.sum.clone().finish().as_ref()) != self.wanted.sha256 {
            self.is_damaged = true;
            return Err(io::Error::other("not what the manifest says"));
        }
        Ok(read)
    }
}

/// Goes through all of it: `put` may say where a file goes.
fn pass_through(
    path: &str,
    start: impl FnOnce(&BundleManifest) -> Result<()>,
    put: impl Fn(&BundledFile) -> Result<Option<File>>,
) -> Result<BundleManifest> {
    let mut archive = open_archive(path)?;
    let (manifest, mut entries) = begin_reading(&mut archive, path)?;
    start(&manifest)?;
    for wanted in &manifest.files {
        let entry = next_entry(&mut entries, path, &wanted.path)?;
        if entry.size() != wanted.bytes {
            return Err(damaged_entry(path, &wanted.path));
        }
        let sum = copy_entry(entry, put(wanted)?, path)?;
        if sum != wanted.sha256 {
            return Err(damaged_entry(path, &wanted.path));
        }
    }
    if let Some(more) = entries.next() {
        more.map_err(|why| failed_reading(path, why))?;
        return Err(unusable_bundle(path, "is damaged: it contains files that its manifest does not list"));
    }
    // The sum of zstd's own comes last.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(|why| failed_reading(path, why))?;
    Ok(manifest)
}

fn open_archive(path: &str) -> Result<Archive<Stream>> {
    let cant = |why: io::Error| Exit::Unusable.because(format!("the bundle {path}: {why}"));
    if !Path::new(path).metadata().map_err(cant)?.is_file() {
        return Err(unusable_bundle(path, "is not a file"));
    }
    let file = File::open(path).map_err(cant)?;
    let stream = unpack_stream(file).map_err(|why| failed_reading(path, why))?;
    Ok(Archive::new(stream))
}

fn begin_reading<'a>(archive: &'a mut Archive<Stream>, path: &str) -> Result<(BundleManifest, Entries<'a, Stream>)> {
    let is_none = || unusable_bundle(path, "is not a bundle of camcops-provision, or is damaged");
    let mut entries = archive.entries().map_err(|why| failed_reading(path, why))?;
    let entry = next_entry(&mut entries, path, MANIFEST).map_err(|_| is_none())?;
    if entry.size() > LARGEST_MANIFEST {
        return Err(is_none());
    }
    let mut text = Vec::new();
    entry.take(LARGEST_MANIFEST).read_to_end(&mut text).map_err(|why| failed_reading(path, why))?;
    let manifest = BundleManifest::parse(&text).map_err(|why| unusable_bundle(path, &why.to_string()))?;
    Ok((manifest, entries))
}

/// The next file, which must have this name.
fn next_entry<'a>(entries: &mut Entries<'a, Stream>, path: &str, name: &str) -> Result<Entry<'a, Stream>> {
    let Some(entry) = entries.next() else {
        return Err(unusable_bundle(path, &format!("is damaged: it ends before {name}")));
    };
    let entry = entry.map_err(|why| failed_reading(path, why))?;
    match entry.header().entry_type() == EntryType::Regular && *entry.path_bytes() == *name.as_bytes() {
        true => Ok(entry),
        false => Err(damaged_entry(path, name)),
    }
}

/// The sum of what is read, which is written too if that is wanted.
fn copy_entry(mut from: impl Read, mut to: Option<File>, path: &str) -> Result<String> {
    let mut sum = digest::Context::new(&digest::SHA256);
    let mut piece = vec![0; PIECE];
    loop {
        let read = from.read(&mut piece).map_err(|why| failed_reading(path, why))?;
        if read == 0 {
            return Ok(encode_hex(sum.finish().as_ref()));
        }
        sum.update(&piece[..read]);
        if let Some(to) = &mut to {
            to.write_all(&piece[..read]).context("can't unpack the bundle")?;
        }
    }
}

fn damaged_entry(path: &str, name: &str) -> anyhow::Error {
    unusable_bundle(path, &format!("is damaged: {name} does not match its manifest; copy it again, or create it again"))
}

/// What the disk itself can't do is no fault of the bundle.
fn failed_reading(path: &str, why: io::Error) -> anyhow::Error {
    match why.raw_os_error() {
        Some(_) => anyhow::Error::new(why).context(format!("can't read {path}")),
        None => unusable_bundle(path, &format!("is damaged: {why}; copy it again, or create it again")),
    }
}
