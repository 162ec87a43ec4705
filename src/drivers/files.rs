//! Directories, files and links: what stands at a path, and how it comes to stand there.
//!
//! Facets: `type` (file, directory, symlink or special), `owner` (`user:group`), `mode` (four octal digits), `content` of
//! a file, `target` of a link.

use crate::base::error::Exit;
use crate::host::{Host, PathKind};
use crate::resource::{Content, Enforced, Facets, Resource, State};
use anyhow::{Context, Result};

/// Why a directory is not removed.
pub(crate) const NOT_EMPTY: &str = "not empty";

/// What stands at a path.
pub(crate) fn observe(host: &Host, path: &str) -> Result<State> {
    let Some((entry, bytes)) = host.look_and_read(path)? else {
        return Ok(State::Absent);
    };
    let mut facets =
        Facets::new().with("type", type_name(entry.kind)).with("owner", host.accounts.owner_name(entry.uid, entry.gid));
    if entry.kind != PathKind::Symlink {
        facets = facets.with("mode", format!("{:04o}", entry.mode));
    }
    if let Some(bytes) = bytes {
        facets = facets.with("content", Content::new(bytes));
    }
    if entry.kind == PathKind::Symlink
        && let Some(target) = host.read_link(path)?
    {
        facets = facets.with("target", target);
    }
    Ok(State::Present(facets))
}

/// Makes what stands at a path be `after`.
pub(crate) fn enforce(host: &Host, resource: &Resource, before: &State, after: &State) -> Result<Enforced> {
    let path = resource.name();
    let old = before.text("type");
    let State::Present(wanted) = after else {
        return remove_file(host, path, old);
    };
    let new = wanted.text("type").or(old).unwrap_or(match resource {
        Resource::Directory(_) => "directory",
        Resource::Symlink(_) => "symlink",
        _ => "file",
    });
    if let Some(what) = old.and_then(|old| find_obstacle(host, path, old, new)) {
        return Err(Exit::CannotCreate.because(what));
    }
    let owner = owner_numbers(host, wanted)?;
    match new {
        "symlink" => {
            let target = wanted.text("target").unwrap_or_default();
            if before.get("target") != wanted.get("target") || old != Some(new) {
                host.put_link(path, target)?;
            }
            if let Some(owner) = owner {
                host.set_link_owner(path, owner)?;
            }
        }
        "directory" => match old {
            None => host.make_directory(path, owner, mode_bits(wanted)?.unwrap_or(0o755))?,
            Some(_) => host.set(path, owner, mode_bits(wanted)?)?,
        },
        "file" => {
            let content = wanted.content();
            let rewrite = old != Some(new) || content.is_some() && before.content() != content;
            if rewrite {
                let bytes = content
                    .and_then(Content::bytes)
                    .with_context(|| format!("the content of {} is not known", host.outside(path)))?;
                // What is not wanted stays as it was.
                let kept = before.facets();
                let owner = match owner {
                    None => kept.map(|facets| owner_numbers(host, facets)).transpose()?.flatten(),
                    some => some,
                };
                let mode = match mode_bits(wanted)? {
                    None => kept.map(mode_bits).transpose()?.flatten().unwrap_or(0o644),
                    Some(mode) => mode,
                };
                host.put_file(path, bytes, owner, mode)?;
            } else {
                host.set(path, owner, mode_bits(wanted)?)?;
            }
        }
        other => {
            return Err(Exit::CannotCreate.because(format!("{}: a {other} can't be made", host.outside(path))));
        }
    }
    Ok(Enforced::Done)
}

/// Why what stands at a path does not make room for something of another type; nothing where it does.
pub(crate) fn find_obstacle(host: &Host, path: &str, found: &str, needed: &str) -> Option<String> {
    let makes_room = |kind| ["file", "symlink"].contains(&kind);
    if found == needed || makes_room(found) && makes_room(needed) {
        return None;
    }
    let found = match found {
        "special" => "device, socket or pipe",
        other => other,
    };
    let path = host.outside(path);
    Some(format!("{path} is a {found} where a {needed} is needed; move it away and run again"))
}

fn remove_file(host: &Host, path: &str, old: Option<&str>) -> Result<Enforced> {
    match old {
        None => {}
        Some("directory") if !host.remove_directory(path)? => {
            return Ok(Enforced::LeftAlone(NOT_EMPTY.into()));
        }
        Some("directory") => {}
        Some("special") => {
            return Ok(Enforced::LeftAlone("camcops-provision did not create it".into()));
        }
        Some(_) => host.remove_file(path)?,
    }
    Ok(Enforced::Done)
}

fn owner_numbers(host: &Host, facets: &Facets) -> Result<Option<(u32, u32)>> {
    let Some(owner) = facets.text("owner") else {
        return Ok(None);
    };
    if !host.is_root() {
        return Ok(None);
    }
    let numbers = host.accounts.owner(owner);
    numbers.map(Some).with_context(|| format!("this machine has no account or group for {owner}"))
}

fn mode_bits(facets: &Facets) -> Result<Option<u32>> {
    let Some(mode) = facets.text("mode") else {
        return Ok(None);
    };
    let bits = u32::from_str_radix(mode, 8).with_context(|| format!("{mode} is not an octal mode"))?;
    Ok(Some(bits & 0o7777))
}

fn type_name(kind: PathKind) -> &'static str {
    match kind {
        PathKind::File => "file",
        PathKind::Directory => "directory",
        PathKind::Symlink => "symlink",
        PathKind::Special => "special",
    }
}
