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
        return Ok(AskedDebsecan::NotAsked("debsecan downloads its data, but network.offline is set".into()));
    }
    known.tell.line("asking debsecan");
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::progress::Tell;
    use crate::host::script::{Playing, Step};
    use crate::layout::DEBIAN;
    use crate::settings::{Settings, Sources};

    fn asked(overrides: &[&str], lacks: &[&str], answer: Option<Step>) -> (AskedDebsecan, Vec<Step>) {
        let home = tempfile::tempdir().unwrap();
        let host = Host::staged(home.path()).unwrap();
        let all = |words: &[&str]| -> Vec<String> { words.iter().map(|word| (*word).to_owned()).collect() };
        let sources = Sources { overrides: all(overrides), ..Sources::default() };
        let settings = Settings::resolve(&sources).unwrap().settings;
        let known = PackageSource::new(DEBIAN.packages, &settings.network, None, Tell::NOBODY);
        let playing = Playing::begin(home.path(), &[], &all(lacks), &answer.into_iter().collect::<Vec<_>>(), false);
        let asked = ask_debsecan(&host, &known, "bookworm").unwrap();
        let (steps, left) = playing.end();
        assert!(left.is_empty(), "{left:?}");
        (asked, steps)
    }

    fn question() -> Step {
        Step { run: Some("debsecan --suite bookworm --format detail".into()), ..Step::default() }
    }

    #[test]
    fn it_is_asked_by_the_way_that_leads_out_and_never_offline() {
        let proxy = "network.https_proxy=http://proxy.example.org:3128";
        let mut step = Step { output: Some("CVE-2026-1 bash\n".into()), ..question() };
        step.env.insert("https_proxy".into(), "http://proxy.example.org:3128".into());
        step.env.insert("SSL_CERT_FILE".into(), "/etc/ssl/own.pem".into());
        let (told, _) = asked(&[proxy, "network.ca_bundle=/etc/ssl/own.pem"], &[], Some(step));
        assert!(matches!(told, AskedDebsecan::Told(list) if list == "CVE-2026-1 bash\n"));
        let (told, steps) = asked(&["network.offline=true"], &[], None);
        assert!(steps.is_empty() && matches!(told, AskedDebsecan::NotAsked(why) if why.contains("network.offline")));
        assert!(matches!(asked(&[], &["debsecan"], None).0, AskedDebsecan::NotThere));
    }

    #[test]
    fn what_it_could_not_fetch_is_told() {
        let complaint = Some("error: while downloading https://x/:\nerror: no route\n".into());
        let (told, _) = asked(&[], &[], Some(Step { status: Some(1), complaint, ..question() }));
        assert!(
            matches!(told, AskedDebsecan::NotAsked(why) if why.contains("exit status: 1") && why.contains("no route"))
        );
    }
}
