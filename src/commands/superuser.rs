//! The name and the password of the first superuser, where `install` gets them from: flags, settings, or whoever sits at
//! the terminal. The password is never an argument and never in the environment.

use crate::base::error::Exit;
use crate::base::prompt::{self, ask_hidden, has_terminal, read_secret};
use crate::base::secret::Secret;
use crate::base::terminal::print_note;
use crate::base::text::absolute_path;
use crate::cli::Install;
use crate::drivers::superuser;
use crate::engine::{Action, Plan};
use crate::host::Host;
use crate::host::secrets::KeptSecret;
use crate::resource::Resource;
use crate::session::Session;
use crate::settings::{Setting, UserName};
use anyhow::Result;
use std::path::Path;

/// Takes the password from the file that a flag names, or from standard input.
pub(crate) fn take_file(site: &Session, file: Option<&Path>) -> Result<()> {
    const FLAG: &str = "--superuser-password-file";
    if let Some(file) = file {
        keep_password(site, from_file(&site.host, FLAG, file)?);
    }
    Ok(())
}

/// The password that a file holds, or standard input if it is called `-`.
pub(crate) fn from_file(host: &Host, flag: &str, file: &Path) -> Result<Secret> {
    let password = secret_from(host, flag, file)?;
    superuser::check_password(&password).map_err(|why| Exit::Usage.because(format!("{flag}: the password {why}")))?;
    Ok(password)
}

/// The secret that a file holds, whatever it looks like.
pub(crate) fn secret_from(host: &Host, flag: &str, file: &Path) -> Result<Secret> {
    if file.as_os_str() == "-" {
        return read_secret();
    }
    Ok(KeptSecret::given(host, flag, &absolute_path(file)?)?.secret)
}

/// Asks for a name if the first tables are about to be made and nobody is going to be able to log in.
pub(crate) fn ask_name(site: &Session, plan: &Plan, flags: &Install) -> Result<Option<String>> {
    let first_tables = plan
        .changes
        .iter()
        .any(|planned| planned.action == Action::Create && matches!(planned.change.resource, Resource::Tables(_)));
    let named = site.settings().superuser.username.is_some();
    if named || !first_tables || flags.yes || site.style.json || !has_terminal() {
        return Ok(None);
    }
    loop {
        let answer = prompt::ask_line("Name of the first superuser (empty for none): ")?
            .ok_or_else(|| Exit::Failed.because("nothing was changed"))?;
        if answer.is_empty() {
            return Ok(None);
        }
        match UserName::read(&answer.as_str().into()) {
            Ok(_) => return Ok(Some(answer)),
            Err(why) => print_note(&format!("{why}; allowed: {}", UserName::allowed())),
        }
    }
}

/// Makes sure that there is a password if the plan needs one, before anything is done.
pub(crate) fn ask_password(site: &Session, plan: &Plan) -> Result<()> {
    let wanted = plan.changes.iter().find_map(|planned| match (&planned.change.resource, planned.action) {
        (Resource::Superuser(name), Action::Create | Action::Finish) => Some(name),
        _ => None,
    });
    match wanted {
        Some(name) => need_password(site, name),
        None => Ok(()),
    }
}

/// Makes sure that there is a password for this superuser.
pub(crate) fn need_password(site: &Session, name: &str) -> Result<()> {
    if site.host.staged_root().is_some() || site.drivers.superuser_password.borrow().is_some() {
        return Ok(());
    }
    if site.style.json || !has_terminal() {
        return Err(superuser::password_needed(name));
    }
    keep_password(site, asked_twice(&format!("Password of the superuser {name}: "))?);
    Ok(())
}

/// The password that somebody types at the terminal.
pub(crate) fn asked_twice(question: &str) -> Result<Secret> {
    loop {
        let first = ask_hidden(question)?;
        match superuser::check_password(&first) {
            Err(why) => print_note(&format!("the password {why}")),
            Ok(()) if is_typed_again(&first)? => return Ok(first),
            Ok(()) => print_note("the two passwords differ"),
        }
    }
}

fn is_typed_again(first: &Secret) -> Result<bool> {
    Ok(*first == ask_hidden("Repeat it: ")?)
}

/// A secret of somebody else that is typed at the terminal, whatever it looks like.
pub(crate) fn typed_twice(question: &str) -> Result<Secret> {
    loop {
        let first = ask_hidden(question)?;
        if first.reveal().is_empty() {
            return Err(Exit::Failed.because("empty password; nothing was changed"));
        }
        if is_typed_again(&first)? {
            return Ok(first);
        }
        print_note("the two inputs differ");
    }
}

fn keep_password(site: &Session, password: Secret) {
    site.drivers.superuser_password.replace(Some(password));
}
