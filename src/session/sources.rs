//! The files that settings come from.

use crate::base::error::Exit;
use crate::cli::Global;
use crate::host::Host;
use crate::host::named_file::open_at_once;
use crate::layout::DEFAULT_INSTANCE;
use crate::settings::{INCLUDE, Sources, VARIABLE_PREFIX, included_paths};
use anyhow::Result;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// The file that holds the settings of an instance.
pub(crate) fn settings_file(host: &Host, global: &Global) -> PathBuf {
    global.config.clone().unwrap_or_else(|| {
        let name = match global.instance.as_str() {
            DEFAULT_INSTANCE => "provision.toml".to_owned(),
            other => format!("provision_{other}.toml"),
        };
        PathBuf::from(host.outside(&format!("/etc/camcops/{name}")))
    })
}

/// Everything that settings come from, read. What others could have written is refused: root is to do what it says.
pub(crate) fn read_sources(host: &Host, file: &Path, global: &Global) -> Result<Sources> {
    let text = read_settings(host, file)?;
    if text.is_none() && global.config.is_some() {
        return Err(Exit::Settings.because(format!("--config {}: no such file", file.display())));
    }
    read_sources_with(host, file, text, global)
}

/// The same with this text in the settings file.
pub(crate) fn read_sources_with(host: &Host, file: &Path, text: Option<String>, global: &Global) -> Result<Sources> {
    let mut files = match &text {
        Some(text) => read_included(host, file, text)?,
        None => Vec::new(),
    };
    let included = files.len();
    files.extend(text.map(|text| (file.to_owned(), text)));
    for name in more_settings(host, &file.with_extension("d"))? {
        if let Some(text) = read_settings(host, &name)? {
            files.push((name, text));
        }
    }
    Ok(Sources {
        files,
        included,
        environment: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with(VARIABLE_PREFIX))
            .collect(),
        overrides: global.set.clone(),
    })
}

/// What the settings file includes, in the order in which it is named there. What is named must be there: settings that are
/// missing in silence would change a site.
fn read_included(host: &Host, file: &Path, text: &str) -> Result<Vec<(PathBuf, String)>> {
    let named = included_paths(file, text).map_err(|problem| Exit::Settings.because(problem.to_string()))?;
    let mut files: Vec<(PathBuf, String)> = Vec::new();
    for path in named {
        let outside = PathBuf::from(host.outside(path.trim_end_matches('/')));
        let missing = |what: &Path| {
            Exit::Settings.because(format!("{}: {INCLUDE}: {} does not exist", file.display(), what.display()))
        };
        let pattern = outside.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let names = match pattern.split_once('*') {
            Some((begin, end)) => {
                let directory = outside.parent().unwrap_or(Path::new("/"));
                let fits = |name: &str| {
                    name.len() >= begin.len() + end.len() && name.starts_with(begin) && name.ends_with(end)
                };
                list_settings(host, directory, fits)?.ok_or_else(|| missing(directory))?
            }
            None if outside.is_dir() => {
                list_settings(host, &outside, |name| name.ends_with(".toml"))?.ok_or_else(|| missing(&outside))?
            }
            None => vec![outside],
        };
        for name in names {
            let text = read_settings(host, &name)?.ok_or_else(|| missing(&name))?;
            files.retain(|(earlier, _)| *earlier != name);
            files.push((name, text));
        }
    }
    Ok(files)
}

/// The files of the directory beside the settings, in their order.
fn more_settings(host: &Host, directory: &Path) -> Result<Vec<PathBuf>> {
    let all = list_settings(host, directory, |name| name.ends_with(".toml"))?;
    Ok(all.unwrap_or_default())
}

/// The files of a directory with such names, in their order; nothing where there is no directory.
fn list_settings(host: &Host, directory: &Path, fits: impl Fn(&str) -> bool) -> Result<Option<Vec<PathBuf>>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(unreadable_file(directory, &why)),
    };
    let found = std::fs::metadata(directory).map_err(|why| unreadable_file(directory, &why))?;
    let trust = host.trust()?;
    trust.check_opened(directory, &found, "")?;
    let mut names: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        // A hidden one is an editor's, or git's.
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            !name.starts_with('.') && fits(&name)
        })
        .collect();
    names.sort();
    Ok(Some(names))
}

fn read_settings(host: &Host, file: &Path) -> Result<Option<String>> {
    let mut handle = match open_at_once(file) {
        Ok(handle) => handle,
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(unreadable_file(file, &why)),
    };
    let found = handle.metadata().map_err(|why| unreadable_file(file, &why))?;
    if !found.is_file() {
        return Err(Exit::Settings.because(format!(
            "{} is not a regular file; move it away; settings must be regular files",
            file.display()
        )));
    }
    let trust = host.trust()?;
    trust.check_opened(file, &found, "")?;
    trust.check_way(file)?;
    let mut text = String::new();
    match handle.read_to_string(&mut text) {
        Ok(_) => Ok(Some(text)),
        Err(why) => Err(unreadable_file(file, &why)),
    }
}

fn unreadable_file(file: &Path, why: &std::io::Error) -> anyhow::Error {
    let file = file.display();
    match why.kind() {
        ErrorKind::PermissionDenied => Exit::NoPermission.because(format!("{file}: {why}; run it as root")),
        ErrorKind::InvalidData => Exit::Settings.because(format!("{file} is not UTF-8 text; save it as UTF-8")),
        ErrorKind::NotADirectory => Exit::CannotCreate
            .because(format!("{file}: a file is where one of its directories should be; move it away")),
        _ => Exit::Io.because(format!("{file}: {why}")),
    }
}
