//! The application's first superuser.
//!
//! It has no facets: one that is there is left as it is, whatever its password and its powers are by now.

use super::sql::{self, quote};
use super::tables::{application, succeeded};
use super::{Enforced, Facets, State};
use crate::error::Exit;
use crate::host::Host;
use crate::keys::Secret;
use crate::report::plain;
use anyhow::Result;
use zeroize::Zeroizing;

/// What CamCOPS asks of every password.
pub const SHORTEST_PASSWORD: usize = 10;
/// There is no such table, or no such database.
const NOT_THERE: [u16; 2] = [1146, 1049];

/// Whether the application knows this user.
pub async fn observe(host: &Host, name: &str) -> Result<State> {
    let known = sql::known(host)?;
    if !known.server.is_there().await? {
        return Ok(State::Absent);
    }
    let rows: Option<Vec<(u8,)>> = known
        .server
        .rows_if_any(
            &format!(
                "SELECT 1 FROM {}._security_users WHERE username = {}",
                quote::name(&known.database),
                quote::text(name)
            ),
            &NOT_THERE,
        )
        .await?;
    Ok(match rows.is_some_and(|rows| !rows.is_empty()) {
        true => State::Present(Facets::new()),
        false => State::Absent,
    })
}

/// Makes the superuser.
pub async fn enforce(host: &Host, name: &str, after: &State) -> Result<Enforced> {
    if *after == State::Absent {
        return Ok(Enforced::LeftAlone("a user is never removed".into()));
    }
    let live = host.live.as_ref();
    let password = live.and_then(|live| live.superuser_password.borrow().clone());
    let Some(password) = password else {
        return Err(needed(name));
    };
    let application = application(host)?;
    (application.tell)(&format!("making the superuser {name}"));
    // Without a terminal it asks its input, twice, and holds the password against its own rules.
    let line = password.reveal();
    let twice = Zeroizing::new(format!("{line}\n{line}\n"));
    let ended = application
        .command(host, "camcops_server")?
        .args(["make_superuser", &format!("--username={name}")])
        .input(twice.as_bytes())
        .end()?;
    if !ended.status.success() && plain(&ended.complaint).contains("used too commonly") {
        return Err(Exit::Settings.because(format!(
            "CamCOPS refuses the password of the superuser {name}: it is one that many people use; choose another one, and run again"
        )));
    }
    succeeded(&ended, "make_superuser", "mend the cause and run again")?;
    Ok(Enforced::Done)
}

/// What is missing, and where it can come from.
pub fn needed(name: &str) -> anyhow::Error {
    Exit::Settings.because(format!(
        "the superuser {name} needs a password: write it into a file and set superuser.password_file, or use --superuser-password-file FILE (- for standard input), or run on a terminal"
    ))
}

/// Refuses what CamCOPS would refuse, before anything is made.
pub fn check(password: &Secret) -> Result<(), String> {
    let length = password.reveal().chars().count();
    if length < SHORTEST_PASSWORD {
        return Err(format!(
            "has {length} characters, and CamCOPS wants at least {SHORTEST_PASSWORD}"
        ));
    }
    match password.reveal().trim().is_empty() {
        true => Err("is blank".into()),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_blank_passwords_are_refused() {
        let checked = |text: &str| check(&Secret::new(text.into()));
        assert!(checked("nine char").unwrap_err().contains("has 9"));
        assert!(checked("          ").is_err());
        assert!(checked("größer als").is_ok());
    }
}
