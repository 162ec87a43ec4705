//! The dedicated account and its group, made with the system's own tools.
//!
//! The one facet of an account is `uid`, where the settings fix one; its group has its name.

use crate::host::Host;
use crate::resource::{Enforced, Facets, State};
use anyhow::Result;

pub(crate) fn observe_group(host: &Host, name: &str) -> State {
    match host.accounts.gid(name) {
        Some(_) => State::Present(Facets::new()),
        None => State::Absent,
    }
}

/// Whether the account is there, and its number.
pub(crate) fn observe_user(host: &Host, name: &str) -> State {
    match host.accounts.uid(name) {
        Some(uid) => State::Present(Facets::new().with("uid", uid.to_string())),
        None => State::Absent,
    }
}

/// Makes the group. It is never removed: files may still belong to it.
pub(crate) fn enforce_group(host: &Host, name: &str, after: &State) -> Result<Enforced> {
    match after {
        State::Present(_) => host.run("groupadd", &["--system", name])?,
        State::Absent => return Ok(leave_account()),
    }
    Ok(Enforced::Done)
}

/// Makes the account, without a password, a shell or a home of its own making. It is never removed.
pub(crate) fn enforce_user(host: &Host, name: &str, after: &State) -> Result<Enforced> {
    let State::Present(facets) = after else {
        return Ok(leave_account());
    };
    if let Some(now) = host.accounts.uid(name) {
        return Err(crate::base::error::Exit::CannotCreate.because(format!(
            "account {name} has user id {now}, not {} as in account.uid; change its id with usermod, or change the setting",
            facets.text("uid").unwrap_or("?")
        )));
    }
    let home = format!("/var/lib/{name}");
    let mut arguments = vec![
        "--system",
        "--gid",
        name,
        "--home-dir",
        &home,
        "--no-create-home",
        "--shell",
        "/usr/sbin/nologin",
        "--comment",
        "CamCOPS",
    ];
    if let Some(uid) = facets.text("uid") {
        arguments.extend(["--uid", uid]);
    }
    arguments.push(name);
    host.run("useradd", &arguments)?;
    Ok(Enforced::Done)
}

fn leave_account() -> Enforced {
    Enforced::LeftAlone("an account is kept: files may still belong to it".into())
}
