//! `user`: superusers, passwords and lockouts of the application, for whoever can't get in by its pages.
//!
//! CamCOPS's own commands do it, so that its rules hold. Whether they did is seen in the database: their exit code is
//! not always told.

use super::superuser::{asked_twice, from_file};
use super::{load_site, need_machine};
use crate::base::error::Exit;
use crate::base::prompt::has_terminal;
use crate::base::report::Report;
use crate::base::secret::Secret;
use crate::base::signals::stop_on_signals;
use crate::base::terminal::Style;
use crate::cli::{Global, PasswordFlags, User};
use crate::drivers::sql::{self, quote};
use crate::drivers::superuser;
use crate::session::Session;
use crate::settings::{Setting, UserName};
use anyhow::Result;
use serde_json::json;

/// What the database knows of a user.
#[derive(Debug, PartialEq, Eq)]
struct UserAccount {
    superuser: bool,
    /// Changes with the password, and does not tell it.
    mark: String,
    locked: bool,
}

pub(crate) async fn run(global: &Global, command: &User) -> Result<Report> {
    need_machine(global, "change users of CamCOPS")?;
    let (User::Superuser { user, .. } | User::ResetPassword { user, .. } | User::Enable { user }) = command;
    UserName::read(&user.name.as_str().into())
        .map_err(|why| Exit::Usage.because(format!("{}: {why}; allowed: {}", user.name, UserName::allowed())))?;
    stop_on_signals(Style::of(global))?;
    let site = load_site(global)?;
    site.close_after(change_user(&site, command, &user.name).await).await
}

async fn change_user(site: &Session, command: &User, name: &str) -> Result<Report> {
    let tell = |changed: bool, text: String| {
        Ok(Report::new(json!({ "instance": site.instance, "user": name, "changed": changed })).with_remark(text))
    };
    let before = find_user(site, name).await?;
    match command {
        User::Superuser { password, .. } => match before {
            Some(before) if before.superuser => tell(false, format!("{name} is a superuser")),
            Some(_) => {
                ask_camcops(site, "make_superuser", name, None)?;
                confirm_change(find_user(site, name).await?.is_some_and(|now| now.superuser))?;
                tell(true, format!("{name} is a superuser now, with the same password"))
            }
            None => {
                let password = wanted_password(site, password, name)?;
                ask_camcops(site, "make_superuser", name, Some(&password))?;
                confirm_change(find_user(site, name).await?.is_some_and(|now| now.superuser))?;
                tell(true, format!("superuser {name} created"))
            }
        },
        User::ResetPassword { password, .. } => {
            let before = before.ok_or_else(|| unknown_user(site, name))?;
            let password = wanted_password(site, password, name)?;
            ask_camcops(site, "reset_password", name, Some(&password))?;
            let now = find_user(site, name).await?;
            confirm_change(now.as_ref().is_some_and(|now| now.mark != before.mark))?;
            let locked = match now.is_some_and(|now| now.locked) {
                true => {
                    format!("; {name} is locked out: `camcops-provision user enable {name}`")
                }
                false => String::new(),
            };
            tell(true, format!("{name} has the new password{locked}"))
        }
        User::Enable { .. } => {
            let before = before.ok_or_else(|| unknown_user(site, name))?;
            // Also clears the count of failures, which is no lockout yet.
            ask_camcops(site, "enable_user", name, None)?;
            confirm_change(find_user(site, name).await?.is_some_and(|now| !now.locked))?;
            match before.locked {
                true => tell(true, format!("{name} can log in again")),
                false => tell(false, format!("{name} was not locked out; failed logins were cleared")),
            }
        }
    }
}

fn unknown_user(site: &Session, name: &str) -> anyhow::Error {
    Exit::Unusable.because(format!(
        "CamCOPS has no user {name}; {}/view_all_users lists them, for a superuser",
        site.url().trim_end_matches('/')
    ))
}

fn confirm_change(is_so: bool) -> Result<()> {
    match is_so {
        true => Ok(()),
        false => Err(Exit::Failed.because(
            "CamCOPS's command succeeded, but the database does not show its result; see `camcops-provision logs server`",
        )),
    }
}

async fn find_user(site: &Session, name: &str) -> Result<Option<UserAccount>> {
    let known = site.drivers.database()?;
    let database = quote::quote_name(&known.database);
    let user = quote::quote_text(name);
    let question = format!(
        "SELECT superuser, SHA2(hashedpw, 256), EXISTS (SELECT 1 FROM {database}._security_account_lockouts WHERE username = {user} AND locked_until > UTC_TIMESTAMP()) FROM {database}._security_users WHERE username = {user}"
    );
    let tables = ["_security_users", "_security_account_lockouts"];
    sql::tables_among(&known.server, &known.database, &tables).await?;
    let rows: Option<Vec<(Option<bool>, String, bool)>> =
        known.server.rows_if_any(&question, &superuser::NOT_THERE).await?;
    let Some(rows) = rows else {
        return Err(Exit::Unreachable.because(format!(
            "the database {} has no tables of CamCOPS: run `camcops-provision install`",
            known.database
        )));
    };
    Ok(rows.into_iter().next().map(|(superuser, mark, locked)| UserAccount {
        superuser: superuser.unwrap_or(false),
        mark,
        locked,
    }))
}

fn wanted_password(site: &Session, flags: &PasswordFlags, name: &str) -> Result<Secret> {
    match &flags.password_file {
        Some(file) => from_file(&site.host, "--password-file", file),
        None if !site.style.json && has_terminal() => asked_twice(&format!("New password of {name}: ")),
        None => Err(Exit::Usage.because(format!(
            "{name} needs a password: use --password-file FILE (- for standard input), or run on a terminal"
        ))),
    }
}

/// Does it by CamCOPS's own command.
fn ask_camcops(site: &Session, verb: &str, name: &str, password: Option<&Secret>) -> Result<()> {
    let application = site.drivers.application()?;
    application.tell.line(&format!("running CamCOPS's {verb} (some seconds)"));
    superuser::by_camcops(site.drivers.application()?, &site.host, verb, name, password, Exit::Unusable)
}
