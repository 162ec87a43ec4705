//! A login that can read the copy, and nothing else.

use crate::base::error::Exit;
use crate::base::prompt::has_terminal;
use crate::base::secret::Secret;
use crate::cli::Anonymise;
use crate::commands::superuser::{asked_twice, from_file};
use crate::drivers::sql::Database;
use crate::drivers::sql::account::{account_exists, create_reader};
use crate::drivers::sql::copy::load;
use crate::session::Session;
use crate::settings::{ClientHost, DatabaseUser, Setting};
use anyhow::Result;

const PASSWORD_FLAG: &str = "--password-file";

/// An account that is to be made when the copy is there.
pub(super) struct CopyLogin {
    user: String,
    from: String,
    password: Secret,
}

/// The login that is asked for; its password comes from a file or the terminal, before anything is copied.
pub(super) async fn wanted_login(site: &Session, known: &Database, flags: &Anonymise) -> Result<Option<CopyLogin>> {
    let Some(user) = &flags.login else { return Ok(None) };
    DatabaseUser::read(&user.as_str().into())
        .map_err(|why| Exit::Usage.because(format!("--login {user}: {why}; allowed: {}", DatabaseUser::allowed())))?;
    load::need_power(known, "")?;
    let from = match &flags.login_host {
        Some(host) => ClientHost::read(&host.as_str().into())
            .map_err(|why| {
                Exit::Usage.because(format!("--login-host {host}: {why}; allowed: {}", ClientHost::allowed()))
            })?
            .as_str()
            .to_owned(),
        None => known.client().await?,
    };
    if account_exists(known, user, &from).await? {
        return Err(Exit::CannotCreate.because(format!(
            "--login {user}: the database server already has an account {user}@{from}; choose another name, or grant it SELECT on the copy yourself; nothing was changed"
        )));
    }
    let password = match &flags.password_file {
        Some(file) => from_file(&site.host, PASSWORD_FLAG, file)?,
        None if !site.style.json && has_terminal() => asked_twice(&format!("Password of {user}: "))?,
        None => {
            return Err(Exit::Usage.because(format!(
                "--login {user}: give its password with {PASSWORD_FLAG} FILE (- for standard input), or run on a terminal; nothing was changed"
            )));
        }
    };
    Ok(Some(CopyLogin { user: user.clone(), from, password }))
}

impl CopyLogin {
    pub(super) fn name(&self) -> String {
        format!("{}@{}", self.user, self.from)
    }

    /// Makes it, for the database that was just made.
    pub(super) async fn create(&self, known: &Database, database: &str) -> Result<()> {
        create_reader(known, &self.user, &self.from, database, &self.password).await.map_err(|why| {
            why.context(format!("the copy is in the database {database}, but {} could not be created", self.name()))
        })
    }
}
