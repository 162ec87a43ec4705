//! The contents that the journal knows by their digests: what stood in a file before us, and what the settings alone
//! would have written.

use super::Writer;
use crate::camcops_conf;
use crate::host::Host;
use crate::layout::instance_directory;
use crate::resource::{Content, State};
use anyhow::Result;
use std::borrow::Cow;

/// The name of what the settings alone would have written ends with this.
const BASE: &str = ".base";

fn base_path(instance: &str, base: &Content) -> String {
    format!("{}{BASE}", memory_path(instance, base))
}

fn memory_path(instance: &str, content: &Content) -> String {
    format!("{}/{}", directory_of(instance), content.digest())
}

pub(super) fn directory_of(instance: &str) -> String {
    format!("{}/contents", instance_directory(instance))
}

impl Writer<'_> {
    /// Keeps content that the journal knows by its digest only.
    pub(crate) fn remember(&self, content: &Content) -> Result<()> {
        let Some(bytes) = content.bytes() else {
            return Ok(());
        };
        self.keep_bytes(&memory_path(&self.instance, content), || Ok(bytes.into()))
    }

    /// Keeps what the settings alone would have written, with sums in the place of secrets: enough to tell what an
    /// administrator has changed since.
    pub(crate) fn remember_base(&self, base: &Content) -> Result<()> {
        let Some(text) = base.bytes().and_then(|bytes| str::from_utf8(bytes).ok()) else {
            return Ok(());
        };
        let seal = || Ok(camcops_conf::seal_values(text)?.into_bytes().into());
        self.keep_bytes(&base_path(&self.instance, base), seal)
    }

    fn keep_bytes<'a>(&self, path: &str, bytes: impl FnOnce() -> Result<Cow<'a, [u8]>>) -> Result<()> {
        if self.host.stat(path)?.is_some() {
            return Ok(());
        }
        let directory = directory_of(&self.instance);
        if self.host.stat(&directory)?.is_none() {
            self.host.make_directory(&directory, Some((0, 0)), 0o700)?;
        }
        self.host.put_file(path, &bytes()?, Some((0, 0)), 0o600)
    }

    /// Removes what is kept and not needed any more, as far as it holds secrets. What stood in a file before us is
    /// needed until that is undone.
    pub(super) fn forget_superseded(&self) -> Result<()> {
        let directory = directory_of(&self.instance);
        let (mut originals, mut bases) = (Vec::new(), Vec::new());
        for owned in self.journal.owned() {
            originals.extend(owned.change.before.content());
            bases.extend(owned.made().filter_map(|(_, base)| base));
        }
        for name in self.host.list(&directory)?.unwrap_or_default() {
            let path = format!("{directory}/{name}");
            let is = |content: &&&Content| *content.digest() == *name.trim_end_matches(BASE);
            let base = bases.iter().find(is);
            if name.ends_with(BASE) {
                if base.is_none() {
                    self.host.remove_file(&path)?;
                }
                continue;
            }
            if originals.iter().any(|content| is(&content)) {
                continue;
            }
            let Some(bytes) = self.host.read(&path)? else {
                continue;
            };
            if !camcops_conf::holds_secrets(&String::from_utf8_lossy(&bytes)) {
                continue;
            }
            // An earlier version kept it as it was.
            if base.is_some() {
                self.remember_base(&Content::new(bytes))?;
            }
            self.host.remove_file(&path)?;
        }
        Ok(())
    }
}

/// Content that the journal knows by its digest, with its bytes if they were kept.
fn recall_content(host: &Host, instance: &str, content: &Content) -> Result<Option<Content>> {
    Ok(host.read(&memory_path(instance, content))?.map(Content::new).filter(|found| found == content))
}

/// What the settings alone would have written, sealed, if it was kept.
pub(crate) fn recalled_base(host: &Host, instance: &str, base: &Content) -> Result<Option<String>> {
    let sealed = host.read_text(&base_path(instance, base))?;
    if sealed.is_some() {
        return Ok(sealed);
    }
    // As an earlier version kept it.
    let content = recall_content(host, instance, base)?;
    let bytes = content.and_then(|content| content.bytes().map(<[u8]>::to_vec));
    Ok(bytes.and_then(|bytes| String::from_utf8(bytes).ok()))
}

/// Every content that was kept for an instance.
pub(crate) fn kept_contents(host: &Host, instance: &str) -> Result<Vec<Vec<u8>>> {
    let directory = directory_of(instance);
    let mut all = Vec::new();
    for name in host.list(&directory)?.unwrap_or_default() {
        all.extend(host.read(&format!("{directory}/{name}"))?);
    }
    Ok(all)
}

/// A state from the journal, with the bytes of its content if they were kept.
pub(crate) fn recalled_state(host: &Host, instance: &str, state: &State) -> Result<State> {
    let State::Present(facets) = state else {
        return Ok(State::Absent);
    };
    let mut facets = facets.clone();
    if let Some(content) = facets.content()
        && let Some(content) = recall_content(host, instance, content)?
    {
        facets = facets.with("content", content);
    }
    Ok(State::Present(facets))
}
