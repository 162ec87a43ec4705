//! Debian's own tool that knows which flaws its packages have: it fetches what Debian's security team has published, and
//! holds the installed packages against it.

use super::PackageSource;
use crate::drivers::release::index::proxy_variables;
use crate::host::Host;
use anyhow::Result;
use std::time::Duration;

/// It fetches a few megabytes.
const PATIENCE: Duration = Duration::from_secs(120);

/// What asking it came to.
#[derive(Debug)]
pub(crate) enum AskedDebsecan {
    /// It is not installed, or not for this distribution.
    NotThere,
    /// It is there, and could not be asked.
    NotAsked(String),
    /// Its list, in its format `detail`.
    Told(String),
}

/// Asks it about a release of Debian, by its code name.
pub(crate) fn ask_debsecan(host: &Host, known: &PackageSource, suite: &str) -> Result<AskedDebsecan> {
    if !host.has_program("debsecan") {
        return Ok(AskedDebsecan::NotThere);
    }
    if known.network.offline {
        return Ok(AskedDebsecan::NotAsked("debsecan fetches what it knows, and network.offline is set".into()));
    }
    (known.tell)("asking debsecan");
    let mut child = host.child("debsecan").envs(proxy_variables(host, &known.network)?).patience(PATIENCE);
    if let Some(bundle) = &known.network.ca_bundle {
        child = child.env("SSL_CERT_FILE", bundle.as_str());
    }
    let ended = child.args(["--suite", suite, "--format", "detail"]).end();
    Ok(match ended {
        Ok(ended) if ended.status.success() => AskedDebsecan::Told(ended.output),
        Ok(ended) => AskedDebsecan::NotAsked(format!("debsecan failed ({}): {}", ended.status, ended.last_words())),
        Err(why) => AskedDebsecan::NotAsked(format!("{why:#}")),
    })
}
