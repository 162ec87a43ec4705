//! `config set` of a secret of CamCOPS: it comes from a prompt, a file or standard input, goes into a file for root alone,
//! and the setting names that.

use super::{change_settings, report_change, rewrite_file};
use crate::base::error::Exit;
use crate::base::prompt::has_terminal;
use crate::base::report::Report;
use crate::base::secret::Secret;
use crate::cli::Global;
use crate::commands::need_root;
use crate::commands::superuser::{secret_from, typed_twice};
use crate::host::Host;
use crate::layout::Layout;
use crate::session::open_host;
use crate::settings::{self, BY_FILE};
use crate::site::facts::Facts;
use crate::site::{keep_secret, kept_in, secret_key};
use anyhow::{Context, Result};
use std::path::Path;

/// Standard input, by the name that commands have for it.
const STANDARD_INPUT: &str = "-";
const FLAG: &str = "--from-file";

/// A secret that is to be set, and where it comes from; from the terminal if from nowhere.
pub(super) struct WantedSecret<'a> {
    setting: &'a str,
    from: Option<&'a Path>,
}

/// Whether the arguments are about a secret without its value.
pub(super) fn wanted_secret<'a>(pairs: &'a [String], from_file: Option<&'a Path>) -> Result<Option<WantedSecret<'a>>> {
    let setting = pairs.first().map_or("", String::as_str);
    let is_secret = secret_key(setting).is_some();
    let from = match (pairs, from_file) {
        ([_], Some(file)) if is_secret => Some(file),
        ([_], None) if is_secret => None,
        ([_, value], None) if is_secret && value == STANDARD_INPUT => Some(Path::new(STANDARD_INPUT)),
        (_, Some(_)) => {
            return Err(Exit::Usage.because(format!(
                "{FLAG} is for one secret of CamCOPS, such as config.site.EMAIL_HOST_PASSWORD, but {setting} is not one, or not the only one; nothing was changed: `camcops-provision config set KEY VALUE` sets others"
            )));
        }
        (_, None) => return Ok(None),
    };
    Ok(Some(WantedSecret { setting, from }))
}

/// Keeps it, and has the settings name the file.
pub(super) fn set_secret(global: &Global, wanted: &WantedSecret<'_>) -> Result<Report> {
    need_root(global, "change the settings")?;
    let (host, setting) = (open_host(global)?, wanted.setting);
    let (section, key) = secret_key(setting).context("this is not a secret")?;
    let secrets = secrets_of(&host, global)?;
    let secret = read_given(&host, global, wanted)?;
    let path = kept_in(&secrets, &section, &key);
    let before = host.read(&path)?;
    let by_file = format!("{setting}{BY_FILE}");
    // What is wrong with the name is told before it becomes the name of a file.
    settings::edit_text("", &by_file, Some(&path)).map_err(|why| Exit::Settings.because(why.to_string()))?;
    let changes = [(by_file.as_str(), Some(path.as_str())), (setting, None)];
    keep_secret(&host, &secrets, (&section, &key), &secret)?;
    let file = match rewrite_file(global, &changes) {
        Ok(done) => done,
        Err(why) => {
            match before {
                Some(former) => host.put_file(&path, &former, Some((0, 0)), 0o600)?,
                None => host.remove_file(&path)?,
            }
            return Err(why);
        }
    };
    let is_other = before != host.read(&path)?;
    Ok(report_change(&file.path, file.changed || is_other))
}

/// Takes it out of the settings, and removes the file if it is ours.
pub(super) fn unset_secret(global: &Global, setting: &str) -> Result<Report> {
    need_root(global, "change the settings")?;
    let host = open_host(global)?;
    let (section, key) = secret_key(setting).context("this is not a secret")?;
    let by_file = format!("{setting}{BY_FILE}");
    let file = rewrite_file(global, &[(setting, None), (&by_file, None)])?;
    host.remove_file(&kept_in(&secrets_of(&host, global)?, &section, &key))?;
    Ok(report_change(&file.path, file.changed))
}

/// Takes a setting or a whole section out, with the files that are ours of the secrets in it.
pub(super) fn unset_others(global: &Global, setting: &str) -> Result<Report> {
    let report = change_settings(global, &[(setting, None)])?;
    let path = settings::split_name(setting);
    let section = match path.as_slice() {
        [config] if config == "config" => None,
        [config, section] if config == "config" => Some(section.as_str()),
        _ => return Ok(report),
    };
    let host = open_host(global)?;
    let secrets = secrets_of(&host, global)?;
    for name in host.list(&secrets)?.unwrap_or_default() {
        let of = name.split_once('.').map(|(of, _)| of);
        if of.is_some() && (section.is_none() || section == of) {
            host.remove_file(&format!("{secrets}/{name}"))?;
        }
    }
    Ok(report)
}

fn secrets_of(host: &Host, global: &Global) -> Result<String> {
    let flavour = Facts::gather(host)?.flavour;
    Ok(Layout::new(flavour, &global.instance).secrets)
}

fn read_given(host: &Host, global: &Global, wanted: &WantedSecret<'_>) -> Result<Secret> {
    let setting = wanted.setting;
    match wanted.from {
        Some(file) => secret_from(host, FLAG, file),
        None if !global.json && has_terminal() => typed_twice(&format!("{setting}: ")),
        None => Err(Exit::Usage.because(format!(
            "{setting} is a secret: use {FLAG} FILE (- for standard input), or run on a terminal; nothing was changed"
        ))),
    }
}
