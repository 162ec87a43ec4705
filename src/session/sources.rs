//! The files that settings come from.

use crate::base::error::Exit;
use crate::cli::Global;
use crate::host::Host;
use crate::host::named_file::open_at_once;
use crate::layout::DEFAULT_INSTANCE;
use crate::settings::{Sources, VARIABLE_PREFIX};
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
    let mut files = Vec::new();
    match read_settings(host, file)? {
        Some(text) => files.push((file.to_owned(), text)),
        None if global.config.is_some() => {
            return Err(Exit::Settings.because(format!("--config {}: no such file", file.display())));
        }
        None => {}
    }
    for name in more_settings(host, &file.with_extension("d"))? {
        if let Some(text) = read_settings(host, &name)? {
            files.push((name, text));
        }
    }
    Ok(Sources {
        files,
        environment: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with(VARIABLE_PREFIX))
            .collect(),
        overrides: global.set.clone(),
    })
}

/// The files of the directory beside the settings, in their order.
fn more_settings(host: &Host, directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(why) => return Err(unreadable_file(directory, &why)),
    };
    let found = std::fs::metadata(directory).map_err(|why| unreadable_file(directory, &why))?;
    let trust = host.trust()?;
    trust.check_opened(directory, &found, "")?;
    let mut names: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "toml"))
        .collect();
    names.sort();
    Ok(names)
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
