//! Writing a bundle: under another name until it is whole.

use super::manifest::{BundleManifest, BundledFile, MANIFEST};
use crate::archive::pack::{self, Packer, sum_of};
use crate::host::{Host, unfinished_path};
use anyhow::{Context, Result};
use std::fs::File;
use std::io::Read;
use tar::{Builder, EntryType, Header};

/// What the manifest says of a file.
pub(crate) fn describe_file(host: &Host, source: &str, path: &str) -> Result<BundledFile> {
    let sum = sum_of(open_source(host, source)?).with_context(|| format!("can't read {source}"))?;
    Ok(BundledFile { path: path.to_owned(), bytes: sum.bytes, sha256: sum.sha256 })
}

/// Writes it; `source` says where each file of the manifest is. Gives its size and its sum.
pub(crate) fn write_bundle(
    host: &Host,
    out: &str,
    manifest: &BundleManifest,
    source: impl Fn(&str) -> String,
) -> Result<pack::PackedSum> {
    let unfinished = unfinished_path(out);
    host.remove_unfinished(out)?;
    let written = (|| -> Result<_> {
        let file = host.new_file(&unfinished)?;
        let mut archive = Builder::new(Packer::new(host, file, None)?);
        let mut text = serde_json::to_vec_pretty(manifest)?;
        text.push(b'\n');
        append_entry(&mut archive, MANIFEST, text.len() as u64, text.as_slice())?;
        // The manifest can be read, and its frame's sum checked, without the rest.
        archive.get_mut().end_frame()?;
        for file in &manifest.files {
            let from = open_source(host, &source(&file.path))?;
            append_entry(&mut archive, &file.path, file.bytes, from.take(file.bytes))?;
        }
        let written = archive.into_inner()?.finish()?;
        // It has no secret, and is to be carried elsewhere.
        host.set(&unfinished, None, Some(0o644))?;
        host.rename(&unfinished, out)?;
        Ok(written)
    })();
    if written.is_err() {
        host.remove_unfinished(out)?;
    }
    written.with_context(|| format!("can't write {out}"))
}

fn append_entry(archive: &mut Builder<Packer<'_>>, path: &str, bytes: u64, from: impl Read) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_size(bytes);
    header.set_mode(if path == super::TOOL { 0o755 } else { 0o644 });
    archive.append_data(&mut header, path, from)?;
    Ok(())
}

fn open_source(host: &Host, path: &str) -> Result<File> {
    let found = host.open_file(path)?;
    let (_, file) = found.with_context(|| format!("there is no file {path}"))?;
    Ok(file)
}
