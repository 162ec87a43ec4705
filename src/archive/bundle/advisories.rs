//! Published advisories in a bundle: one file for all of them, which goes where the site keeps what was brought to it.

use super::manifest::BundledFile;
use super::{Bundle, read};
use crate::archive::pack::sum_of;
use crate::host::Host;
use crate::layout::ADVISORIES;
use anyhow::Result;

/// Its name in a bundle.
pub(crate) const ADVISORY_FILE: &str = "advisories/osv.json";
/// Where it is put.
const PLACE: &str = "/var/lib/camcops-provision/advisories/bundle.json";

impl Bundle {
    /// Puts the advisories of the bundle in the place of those of the bundle before, where it has any; the lock has to be
    /// held.
    pub(crate) fn place_advisories(&self, host: &Host) -> Result<()> {
        let manifest = self.manifest(host)?;
        let Some(wanted) = manifest.files.iter().find(|file| file.path == ADVISORY_FILE) else {
            return Ok(());
        };
        if is_there(host, wanted)? {
            return Ok(());
        }
        self.tell.line(&format!("copying the advisories of {} to {ADVISORIES}", self.path));
        if host.stat(ADVISORIES)?.is_none() {
            host.make_directory(ADVISORIES, Some((0, 0)), 0o700)?;
        }
        read::with_file(&self.path, wanted, |content| host.put_file_from(PLACE, content, Some((0, 0)), 0o600))
    }
}

fn is_there(host: &Host, wanted: &BundledFile) -> Result<bool> {
    match host.open_file(PLACE)? {
        Some((_, file)) if file.metadata()?.len() == wanted.bytes => Ok(sum_of(file)?.sha256 == wanted.sha256),
        _ => Ok(false),
    }
}
