//! The application's first superuser.
//!
//! It has no facets: one that is there is left as it is, whatever its password and its powers are by now.

use super::sql::{self, Database, quote};
use super::tables::{Application, check_success};
use crate::base::error::Exit;
use crate::base::progress::Tell;
use crate::base::secret::Secret;
use crate::base::terminal::strip_controls;
use crate::host::Host;
use crate::resource::{Enforced, Facets, State};
use anyhow::Result;
use zeroize::Zeroizing;

/// What CamCOPS asks of every password.
pub(crate) const SHORTEST_PASSWORD: usize = 10;
/// There is no such table, or no such database.
pub(crate) const NOT_THERE: [u16; 2] = [1146, 1049];

/// Whether the application knows this user.
pub(crate) async fn observe(known: &Database, name: &str) -> Result<State> {
    if !known.server.is_there().await? {
        return Ok(State::Absent);
    }
    sql::tables_among(&known.server, &known.database, &["_security_users"]).await?;
    let rows: Option<Vec<(u8,)>> = known
        .server
        .rows_if_any(
            &format!(
                "SELECT 1 FROM {}._security_users WHERE username = {}",
                quote::quote_name(&known.database),
                quote::quote_text(name)
            ),
            &NOT_THERE,
        )
        .await?;
    Ok(match rows.is_some_and(|rows| !rows.is_empty()) {
        true => State::Present(Facets::new()),
        false => State::Absent,
    })
}

/// Why a superuser stays when it is no longer wanted.
pub(crate) const KEPT: &str = "users are never removed";

pub(crate) fn make(application: &Application, host: &Host, name: &str, password: &Secret) -> Result<Enforced> {
    tell_begin(application.tell, name);
    by_camcops(application, host, "make_superuser", name, Some(password), Exit::Settings)?;
    Ok(Enforced::Done)
}

pub(crate) fn tell_begin(tell: Tell, name: &str) {
    tell.line(&format!("making the superuser {name}"));
}

/// What CamCOPS reads where it asks for a password.
pub(crate) fn type_twice(password: Option<&Secret>) -> Zeroizing<String> {
    let line = password.map_or("", Secret::reveal);
    Zeroizing::new(format!("{line}\n{line}\n"))
}

/// CamCOPS's own command for a user, so that its rules hold. Without a terminal it asks its input for a password, twice.
/// A password that it refuses is an error of the kind that is given.
pub(crate) fn by_camcops(
    application: &Application,
    host: &Host,
    verb: &str,
    name: &str,
    password: Option<&Secret>,
    refusal: Exit,
) -> Result<()> {
    let twice = type_twice(password);
    let ended = application
        .command(host, "camcops_server")?
        .args([verb, &format!("--username={name}")])
        .input(twice.as_bytes())
        .end()?;
    if !ended.status.success() && strip_controls(&ended.complaint).contains("used too commonly") {
        return Err(refusal.because(format!(
            "CamCOPS refuses the password of {name} because it is too common; choose another one, and run again"
        )));
    }
    check_success(&ended, verb, "fix the cause and run again")
}

/// What is missing, and where it can come from.
pub(crate) fn password_needed(name: &str) -> anyhow::Error {
    Exit::Settings.because(format!(
        "the superuser {name} needs a password: write it into a file and set superuser.password_file, or use --superuser-password-file FILE (- for standard input), or run on a terminal"
    ))
}

/// Why CamCOPS would refuse a password.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnfitPassword {
    /// It has only so many characters.
    #[error("has {0} characters, and CamCOPS wants at least {SHORTEST_PASSWORD}")]
    Short(usize),
    #[error("is blank")]
    Blank,
}

/// Refuses what CamCOPS would refuse, before anything is made.
pub(crate) fn check_password(password: &Secret) -> Result<(), UnfitPassword> {
    match password.reveal().chars().count() {
        length if length < SHORTEST_PASSWORD => Err(UnfitPassword::Short(length)),
        _ if password.reveal().trim().is_empty() => Err(UnfitPassword::Blank),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_blank_passwords_are_refused() {
        let checked = |text: &str| check_password(&Secret::new(text.into()));
        assert_eq!(checked("nine char"), Err(UnfitPassword::Short(9)));
        assert_eq!(checked("          "), Err(UnfitPassword::Blank));
        assert!(checked("größer als").is_ok());
    }
}
