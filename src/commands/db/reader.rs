//! `db grant-readonly`: an account for whoever analyses the data. It is the one of `database.readonly_user` or one of
//! `database.readonly_accounts`, which `install` makes; this sets that up and makes it at once.

use super::reach_database;
use crate::base::error::Exit;
use crate::base::prompt::has_terminal;
use crate::base::report::Report;
use crate::base::secret::Secret;
use crate::cli::{Global, GrantReadonly, Parts};
use crate::commands::superuser::{asked_twice, from_file};
use crate::commands::{begin_change, config, open_installed, scale};
use crate::drivers::sql::Database;
use crate::engine::{self, Action};
use crate::host::secrets::SecretName;
use crate::journal::Writer;
use crate::resource::{Part, Resource};
use crate::session::Session;
use crate::session::converge::{apply_plan, make_plan, refuse_undoable};
use crate::settings::{ClientHost, DatabaseUser, READONLY_ACCOUNTS, ReaderAccount, ReadonlyAccount, Setting};
use anyhow::{Context, Result};
use serde_json::json;

const USER: &str = "database.readonly_user";
const HOST: &str = "database.readonly_host";
const EVERYTHING: &str = "database.readonly_everything";

/// An account that is asked for, and what the settings have to say for it.
struct WantedReader {
    user: String,
    /// Keys that change.
    changes: Vec<(&'static str, String)>,
}

/// Makes the account, or mends it, and says where its password is.
pub(crate) async fn grant_readonly(global: &Global, flags: &GrantReadonly) -> Result<Report> {
    let stop = begin_change(global, "create a database account")?;
    let before = open_installed(global)?;
    let WantedReader { user, changes } = wanted_reader(&before, flags)?;
    scale::refuse_overruled(&before, &changes)?;
    let password = read_password(&before, flags, &user)?;
    let mut wanted = global.clone();
    let sets = changes.iter().map(|(key, value)| format!("{key}={value}"));
    wanted.set.extend(sets);
    let (site, known) = reach_database(&wanted).await?;
    let reader = site.settings().database.reader(&user).context("the settings have no such account")?;
    let secret = SecretName::of_reader(reader);
    if let Some(password) = password {
        site.renewed.get_or_init(|| (secret.clone(), password));
    }
    let made = async {
        let mut writer = Writer::open(&site.host, &site.instance, "db grant-readonly")?;
        let parts = Parts::only_of(&[Part::Secrets, Part::Database]);
        let (recipe, mut plan) = make_plan(&site, &writer.journal, &parts).await?;
        let name = account_in_plan(&plan, &user);
        let kept = format!("{}/{}", site.layout.secrets, secret.as_str());
        // Whatever else is pending is for `install`.
        plan.changes.retain(|planned| match &planned.change.resource {
            Resource::SqlAccount(account) => Some(account) == name.as_ref(),
            Resource::File(path) => *path == kept,
            Resource::Directory(_) => true,
            _ => false,
        });
        plan.changes.retain(|planned| planned.action != Action::Remove);
        plan.conflicts.clear();
        refuse_undoable(&site, &recipe, &plan).await?;
        // A list that stands there as tables makes room for the new one.
        let pairs: Vec<(&str, Option<&str>)> = changes
            .iter()
            .flat_map(|(key, value)| {
                [(*key == READONLY_ACCOUNTS).then_some((*key, None)), Some((*key, Some(value.as_str())))]
            })
            .flatten()
            .collect();
        config::rewrite_file(global, &pairs)?;
        let done = apply_plan(&site, &mut writer, &plan, stop).await?;
        anyhow::Ok((done.done, listening_hint(&*site.drivers.database()?, reader).await?))
    };
    let (done, alone) = site.close_after(made.await).await?;
    Ok(report_granted(&site, &known, reader, done, alone))
}

/// Which account is meant, and what the settings are to say: of those that there are none is changed into another.
fn wanted_reader(site: &Session, flags: &GrantReadonly) -> Result<WantedReader> {
    let settings = &site.settings().database;
    let first = settings.readers().find(|reader| reader.is_first);
    let standard = format!("{}_reports", settings.user_or(&site.layout.slug));
    let user = flags.user.as_deref().or(first.map(|reader| reader.user)).unwrap_or(&standard);
    let name = DatabaseUser::read(&user.into())
        .map_err(|why| Exit::Usage.because(format!("--user {user}: {why}; allowed: {}", DatabaseUser::allowed())))?;
    let known = settings.reader(user);
    let from = known.and_then(|reader| reader.host);
    let wanted_from = flags.host.as_deref().or(from);
    let host = wanted_from.map(|host| {
        ClientHost::read(&host.into())
            .map_err(|why| Exit::Usage.because(format!("--host {host}: {why}; allowed: {}", ClientHost::allowed())))
    });
    let host = host.transpose()?;
    if let Some(known) = known.filter(|known| known.host != wanted_from) {
        return Err(Exit::Settings.because(format!(
            "{user} logs in from {}: choose another --user for {}, or change that in {} and run `camcops-provision install`",
            known.host.unwrap_or("this machine"),
            wanted_from.unwrap_or("this machine"),
            if known.is_first { HOST } else { READONLY_ACCOUNTS }
        )));
    }
    let everything = flags.everything || known.is_some_and(|reader| reader.everything);
    let is_first = known.map_or(first.is_none(), |reader| reader.is_first);
    let mut changes = Vec::new();
    if is_first {
        if known.is_none() {
            changes.push((USER, user.to_owned()));
            changes.extend(host.map(|host| (HOST, host.as_str().to_owned())));
        }
        if everything && !settings.readonly_everything {
            changes.push((EVERYTHING, "true".to_owned()));
        }
    } else {
        let mut accounts = settings.readonly_accounts.clone();
        match accounts.iter_mut().find(|account| account.user == name) {
            Some(account) => account.everything = everything,
            None => accounts.push(ReadonlyAccount { user: name, host, password_file: None, everything }),
        }
        if accounts != settings.readonly_accounts {
            changes.push((READONLY_ACCOUNTS, accounts.write().to_string()));
        }
    }
    Ok(WantedReader { user: user.to_owned(), changes })
}

/// The password that is given; without one the kept one stays, or one is made.
fn read_password(site: &Session, flags: &GrantReadonly, user: &str) -> Result<Option<Secret>> {
    const FLAG: &str = "--password-file";
    let Some(file) = &flags.password.password_file else {
        return Ok(None);
    };
    if let Some((reader, own)) =
        site.settings().database.reader(user).and_then(|reader| Some((reader, reader.password_file?)))
    {
        return Err(Exit::Settings.because(format!(
            "{FLAG}: {} names a file with the password, {}: write it there, or unset that setting",
            reader.password_setting(),
            own.as_str()
        )));
    }
    let by_hand = file.as_os_str() == "-" && !site.style.json && has_terminal();
    match by_hand {
        true => asked_twice("Password of the read-only account: ").map(Some),
        false => from_file(&site.host, FLAG, file).map(Some),
    }
}

/// The account as the plan names it; nothing where it is as it should be.
fn account_in_plan(plan: &engine::Plan, user: &str) -> Option<String> {
    plan.changes.iter().find_map(|planned| {
        let Resource::SqlAccount(name) = &planned.change.resource else {
            return None;
        };
        let (of, _) = name.rsplit_once('@')?;
        (of == user).then(|| name.clone())
    })
}

/// Where a server of this machine listens, if nobody else can reach it and the account is for somebody else.
async fn listening_hint(known: &Database, reader: ReaderAccount<'_>) -> Result<Option<String>> {
    if !known.server.local || reader.host.is_none_or(|host| host == "localhost") {
        return Ok(None);
    }
    let row: Option<(Option<String>, bool)> = known.server.row("SELECT @@bind_address, @@skip_networking").await?;
    Ok(match row {
        Some((_, true)) => Some("no port at all".into()),
        Some((Some(address), _)) if ["127.0.0.1", "::1", "localhost"].contains(&address.as_str()) => Some(address),
        _ => None,
    })
}

fn report_granted(
    site: &Session,
    known: &Database,
    reader: ReaderAccount<'_>,
    changed: usize,
    alone: Option<String>,
) -> Report {
    let ReaderAccount { user, host: from, .. } = reader;
    let kept = format!("{}/{}", site.layout.secrets, SecretName::of_reader(reader).as_str());
    let file = reader.password_file.map_or(kept.as_str(), |own| own.as_str());
    let warning = alone.map(|address| {
        format!(
            "the database server listens on {address} only, so {} can't connect: set database.listen and run `camcops-provision install`",
            from.unwrap_or("elsewhere")
        )
    });
    let report = Report::new(json!({
        "instance": site.instance,
        "database": known.database,
        "user": user,
        "host": from,
        "password_file": file,
        "everything": reader.everything,
        "changed": changed > 0,
        "warning": warning,
    }));
    let nothing = if changed == 0 { "nothing to do: " } else { "" };
    report.with_warnings(warning).with_remark(format!(
        "{nothing}{user}{} can read {}{}; its password is in {file}",
        from.map(|host| format!("@{host}")).unwrap_or_default(),
        known.database,
        match reader.everything {
            true => " completely, and nothing else",
            false =>
                " except the audit trail, sessions and users' secrets (--everything includes them), and nothing else",
        }
    ))
}
