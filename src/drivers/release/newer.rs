//! What the package index has that this program may not know yet.

use super::build::{NOBODY, bare_child};
use super::index::{mask_login, pip_environment};
use crate::base::terminal::strip_controls;
use crate::host::Host;
use crate::settings::Internet;
use anyhow::{Result, bail};
use serde_json::json;
use std::time::Duration;

const ASK: &str = include_str!("ask_index.py");
const INDEX: &str = "https://pypi.org/simple";
/// An index that is not reached is no reason to wait long.
const PATIENCE: Duration = Duration::from_secs(10);

/// The versions of CamCOPS that the package index has, oldest first.
pub(crate) fn list_published(host: &Host, network: &Internet, python: &str) -> Result<Vec<String>> {
    let way = pip_environment(host, network)?;
    let value = |name: &str| way.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let authorities = value("SSL_CERT_FILE").map(|path| host.read_text(path)).transpose()?.flatten();
    let proxies = [("http", value("http_proxy")), ("https", value("https_proxy"))];
    let proxies: serde_json::Map<_, _> =
        proxies.into_iter().filter_map(|(scheme, proxy)| Some((scheme.to_owned(), proxy?.into()))).collect();
    // A login stays out of what others can see of a process. Who owns nothing asks: what comes back is anybody's text.
    let question = json!({
        "index": value("PIP_INDEX_URL").unwrap_or(INDEX),
        "authorities": authorities,
        "proxies": proxies,
        "direct": value("no_proxy").unwrap_or_default(),
        "seconds": PATIENCE.as_secs(),
    });
    let nobody = host.accounts.uid("nobody").unwrap_or(NOBODY);
    let ended = bare_child(host.child_of(nobody, NOBODY, "setpriv"), python, &[])
        .args(["-I", "-B", "-c", ASK])
        .input(question.to_string().as_bytes())
        .patience(PATIENCE * 2)
        .end()?;
    if !ended.status.success() {
        // The index may have said it, and it comes to a terminal.
        bail!("{}", strip_controls(&mask_login(&ended.last_words())));
    }
    Ok(ended.output.lines().map(str::to_owned).collect())
}
