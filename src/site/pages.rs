//! What Apache shows of a site by itself. No journal has it, as it is made while the site runs.

use super::maintenance::Maintenance;
use crate::host::Host;
use crate::layout::{DEBIAN, Layout};
use anyhow::Result;

/// How the site is, as a page.
pub(crate) fn status_file(layout: &Layout) -> String {
    format!("{}/status.html", layout.pages)
}

/// The certificate of the site's own authority, for those who are to trust it.
pub(crate) fn authority_file(layout: &Layout) -> String {
    format!("{}/authority.crt", layout.pages)
}

/// Who may see it, as Apache's htpasswd writes it.
pub(crate) fn login_file(layout: &Layout) -> String {
    format!("{}/login", layout.pages)
}

/// Removes the page and its login.
pub(crate) fn remove_status(host: &Host, layout: &Layout) -> Result<()> {
    host.remove_file(&status_file(layout))?;
    host.remove_file(&login_file(layout))
}

/// Removes all of it, before the site goes.
pub(crate) fn remove_pages(host: &Host, instance: &str) -> Result<()> {
    // All families have it in the same place.
    let layout = Layout::new(&DEBIAN, instance);
    Maintenance::end(host, &layout)?;
    remove_status(host, &layout)
}
