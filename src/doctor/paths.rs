//! The files and directories that camcops.conf names, for the account that needs them.

use super::{Finding, Look};
use crate::camcops_conf::{ConfSection, Ini, KEYS, ValueKind};
use crate::layout::is_hidden;
use crate::session::Session;
use crate::site::facts::Manager;
use anyhow::Result;
use nix::sys::statvfs::{FsFlags, statvfs};

/// It makes the directories that services write to.
const MADE_BY: &str = "camcops-provision install";

/// What a service does with what stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Read,
    Run,
    /// Into a directory.
    Write,
    /// Into the directory that the file is in.
    WriteBeside,
}

impl Need {
    /// That of a key; nothing for what other checks look at.
    fn of(key: &str) -> Option<Need> {
        match key {
            "FILE_FILENAME_SPEC" | "UNIX_DOMAIN_SOCKET" => None,
            "EXPORT_LOCKDIR" | "USER_DOWNLOAD_DIR" => Some(Need::Write),
            "CELERY_BEAT_SCHEDULE_DATABASE" => Some(Need::WriteBeside),
            "FILE_SCRIPT_AFTER_EXPORT" | "WKHTMLTOPDF_FILENAME" => Some(Need::Run),
            _ => Some(Need::Read),
        }
    }

    /// The letters by which test(1) asks for it, and what is told of who may not.
    fn asked(self) -> (&'static [&'static str], &'static str) {
        match self {
            Need::Read => (&["-r"], "read it"),
            Need::Run => (&["-x"], "run it"),
            Need::Write | Need::WriteBeside => (&["-w", "-x"], "write to it"),
        }
    }
}

/// A path that camcops.conf names.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NamedPath {
    key: String,
    path: String,
    need: Need,
}

impl NamedPath {
    /// What a service has to reach.
    fn place(&self) -> &str {
        match self.need {
            Need::WriteBeside => self.path.rsplit_once('/').map_or("/", |(directory, _)| directory),
            _ => &self.path,
        }
    }
}

pub(crate) fn check_paths(look: &Look<'_>) -> Result<Vec<Finding>> {
    let site = look.site;
    let config = site.host.read_text(&site.layout.config)?.unwrap_or_default();
    let named = named_paths(&Ini::parse(&config));
    let problems = find_problems(site, &named)?;
    if problems.is_empty() {
        return Ok(vec![Finding::ok(format!("all {} paths in camcops.conf can be used", named.len()))]);
    }
    Ok(problems.into_iter().map(|(found, remedy)| Finding::failed(found, remedy)).collect())
}

/// What is wrong with the paths of a configuration, a line each, but for what `install` makes.
pub(crate) fn path_problems(site: &Session, config: &str) -> Result<Vec<String>> {
    let problems = find_problems(site, &named_paths(&Ini::parse(config)))?;
    Ok(problems.into_iter().filter(|(_, remedy)| remedy != MADE_BY).map(|(found, _)| found).collect())
}

fn find_problems(site: &Session, named: &[NamedPath]) -> Result<Vec<(String, String)>> {
    let account = site.account();
    let accounts = &site.host.accounts;
    let mut problems = Vec::new();
    let Some((user, group)) = accounts.uid(account).zip(accounts.gid(account)) else {
        return Ok(problems);
    };
    // For the timer everything is mounted read-only, whoever asks.
    let in_sandbox = statvfs("/").is_ok_and(|root| root.flags().contains(FsFlags::ST_RDONLY));
    let own = [&site.layout.lock, &site.layout.downloads, &site.layout.state];
    let test = |words: &[&str]| {
        let child = site.host.child_apart("setpriv").args([format!("--reuid={user}"), format!("--regid={group}")]);
        child.args(["--init-groups", "--", "test"]).args(words).end().map(|ended| ended.status.success())
    };
    // Mostly one question is enough: which one is wrong is asked where one is.
    let is_well = named.is_empty() || test(&all_tests(named, in_sandbox))?;
    for named in named {
        let NamedPath { key, path, need } = named;
        let place = named.place();
        let edit = "camcops-provision config edit".to_owned();
        if !path.starts_with('/') {
            problems.push((format!("{key}: {path} is not an absolute path"), edit));
            continue;
        }
        let is_own = own.iter().any(|own| place == own.as_str());
        if !is_own && is_hidden(place) && site.manager() == Manager::Systemd {
            problems.push((format!("{key}: {path}: the services have no access to this directory"), edit));
            continue;
        }
        let ask = |letter: &str| if is_well { Ok(true) } else { test(&[letter, place]) };
        let is_to_be_made = matches!(need, Need::Write | Need::WriteBeside) && site.host.stat(place)?.is_none();
        if is_to_be_made {
            problems.push((format!("{key}: {place} does not exist"), MADE_BY.to_owned()));
            continue;
        }
        let is_own_pair = [&site.layout.certificate, &site.layout.key].contains(&path);
        if is_own_pair && site.host.stat(path)?.is_none() {
            problems.push((format!("{key}: {path} does not exist"), MADE_BY.to_owned()));
            continue;
        }
        if !ask("-e")? {
            let look = format!("ls -ld {place}   # create it, or change {key}");
            problems.push((format!("{key}: {place} does not exist, or {account} cannot access its directory"), look));
            continue;
        }
        let (letters, what) = need.asked();
        for letter in letters {
            if (*letter != "-w" || !in_sandbox) && !ask(letter)? {
                let look = format!("ls -ld {place}   # {account} must be able to {what}");
                problems.push((format!("{key}: {place}: the services' account {account} cannot {what}"), look));
                break;
            }
        }
    }
    Ok(problems)
}

/// What test(1) is asked of all of them at once.
fn all_tests(named: &[NamedPath], in_sandbox: bool) -> Vec<&str> {
    let mut words = vec!["-e", "/"];
    for one in named.iter().filter(|one| one.path.starts_with('/')) {
        for letter in ["-e"].iter().chain(one.need.asked().0).filter(|letter| **letter != "-w" || !in_sandbox) {
            words.extend(["-a", letter, one.place()]);
        }
    }
    words
}

/// Every path of the configuration that a service may need, of recipients only those in use.
fn named_paths(config: &Ini) -> Vec<NamedPath> {
    let recipients = config.get("export", "RECIPIENTS").unwrap_or_default();
    let recipients = recipients.lines().map(str::trim).filter(|name| !name.is_empty());
    let recipients: Vec<String> = recipients.map(|name| format!("recipient:{name}")).collect();
    let mut named = Vec::new();
    for key in KEYS.iter().filter(|key| key.kind == ValueKind::Path) {
        let Some(need) = Need::of(key.name) else { continue };
        let sections = match key.section.header() {
            Some(header) => vec![header.to_owned()],
            None => recipients.clone(),
        };
        for section in sections {
            let value = config.get(&section, key.name).unwrap_or_default();
            let name = match key.section {
                ConfSection::Recipient => format!("[{section}] {}", key.name),
                _ => key.name.to_owned(),
            };
            let path = value.trim();
            if !path.is_empty() {
                named.push(NamedPath { key: name, path: path.to_owned(), need });
            }
        }
    }
    let strings = config.get("site", "EXTRA_STRING_FILES").unwrap_or_default();
    for pattern in strings.lines().map(str::trim).filter(|line| !line.is_empty()) {
        // Of a pattern only the directory before it can be looked at.
        let fixed = pattern.split(['*', '?', '[']).next().unwrap_or_default();
        let path =
            if fixed == pattern { pattern } else { fixed.rsplit_once('/').map_or("", |(directory, _)| directory) };
        named.push(NamedPath { key: "EXTRA_STRING_FILES".into(), path: path.to_owned(), need: Need::Read });
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_that_somebody_needs() {
        let config = Ini::parse(
            "[site]\nLOCAL_LOGO_FILE_ABSOLUTE = /srv/logo.png\nSNOMED_TASK_XML_FILENAME =\nUSER_DOWNLOAD_DIR = /srv/d\n\
             EXTRA_STRING_FILES =\n    /srv/strings/*.xml\n    /srv/one.xml\n[export]\nEXPORT_LOCKDIR = /srv/l\n\
             CELERY_BEAT_SCHEDULE_DATABASE = /srv/s/schedule\nRECIPIENTS =\n    a\n\
             [recipient:a]\nFILE_FILENAME_SPEC = /srv/x/{patient}\nFILE_SCRIPT_AFTER_EXPORT = /srv/after\n\
             [recipient:b]\nFILE_SCRIPT_AFTER_EXPORT = /srv/unused\n",
        );
        let found = named_paths(&config);
        let found: Vec<(&str, &str, Need)> =
            found.iter().map(|one| (one.key.as_str(), one.path.as_str(), one.need)).collect();
        assert_eq!(
            found,
            [
                ("LOCAL_LOGO_FILE_ABSOLUTE", "/srv/logo.png", Need::Read),
                ("USER_DOWNLOAD_DIR", "/srv/d", Need::Write),
                ("CELERY_BEAT_SCHEDULE_DATABASE", "/srv/s/schedule", Need::WriteBeside),
                ("EXPORT_LOCKDIR", "/srv/l", Need::Write),
                ("[recipient:a] FILE_SCRIPT_AFTER_EXPORT", "/srv/after", Need::Run),
                ("EXTRA_STRING_FILES", "/srv/strings", Need::Read),
                ("EXTRA_STRING_FILES", "/srv/one.xml", Need::Read),
            ]
        );
    }
}
