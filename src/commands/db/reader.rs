//! `db grant-readonly`: an account for whoever analyses the data. It is the one of `database.readonly_user`, which
//! `install` makes; this sets that up and makes it at once.

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
use crate::settings::{ClientHost, DatabaseUser, Setting};
use anyhow::Result;
use serde_json::json;

const USER: &str = "database.readonly_user";
const HOST: &str = "database.readonly_host";
const EVERYTHING: &str = "database.readonly_everything";

/// Makes the account, or mends it, and says where its password is.
pub(crate) async fn grant_readonly(global: &Global, flags: &GrantReadonly) -> Result<Report> {
    let stop = begin_change(global, "create a database account")?;
    let before = open_installed(global)?;
    let mut changes = wanted_settings(&before, flags)?;
    scale::refuse_overruled(&before, &changes)?;
    let password = read_password(&before, flags)?;
    let settings = &before.settings().database;
    changes.retain(|(key, value)| {
        let is = match *key {
            USER => settings.readonly_user.as_ref().map(|user| user.as_str()),
            EVERYTHING => settings.readonly_everything.then_some("true"),
            _ => settings.readonly_host.as_ref().map(|host| host.as_str()),
        };
        is != Some(value.as_str())
    });
    let mut wanted = global.clone();
    let sets = changes.iter().map(|(key, value)| format!("{key}={value}"));
    wanted.set.extend(sets);
    let (site, known) = reach_database(&wanted).await?;
    if let Some(password) = password {
        site.renewed.get_or_init(|| (SecretName::Readonly, password));
    }
    let made = async {
        let mut writer = Writer::open(&site.host, &site.instance, "db grant-readonly")?;
        let parts = Parts::only_of(&[Part::Secrets, Part::Database]);
        let (recipe, mut plan) = make_plan(&site, &writer.journal, &parts).await?;
        let name = account_in_plan(&plan, &site);
        let kept = format!("{}/{}", site.layout.secrets, SecretName::Readonly.as_str());
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
        let pairs: Vec<(&str, Option<&str>)> =
            changes.iter().map(|(key, value)| (*key, Some(value.as_str()))).collect();
        config::rewrite_file(global, &pairs)?;
        let done = apply_plan(&site, &mut writer, &plan, stop).await?;
        anyhow::Ok((done.done, listening_hint(&*site.drivers.database()?, &site).await?))
    };
    let (done, alone) = site.close_after(made.await).await?;
    Ok(report_granted(&site, &known, done, alone))
}

/// What the settings are to say; another account than the one that there is would stay behind unseen.
fn wanted_settings(site: &Session, flags: &GrantReadonly) -> Result<Vec<(&'static str, String)>> {
    let settings = &site.settings().database;
    let there = settings.readonly_user.as_ref().map(|user| user.as_str());
    let standard = format!("{}_reports", settings.user_or(&site.layout.slug));
    let user = flags.user.as_deref().or(there).unwrap_or(&standard);
    DatabaseUser::read(&user.into())
        .map_err(|why| Exit::Usage.because(format!("--user {user}: {why}; allowed: {}", DatabaseUser::allowed())))?;
    let host = settings.readonly_host.as_ref().map(|host| host.as_str());
    let wanted_host = flags.host.as_deref().or(host);
    if let Some(host) = wanted_host {
        ClientHost::read(&host.into())
            .map_err(|why| Exit::Usage.because(format!("--host {host}: {why}; allowed: {}", ClientHost::allowed())))?;
    }
    if let Some(there) = there
        && (there != user || host != wanted_host)
    {
        let from = host.unwrap_or("this machine");
        return Err(Exit::Settings.because(format!(
            "the read-only account is {there}, from {from}, and a site has one only: share it, or `camcops-provision config unset {USER}`{}, drop that account on the server, and run again",
            match host {
                Some(_) => format!(" and {HOST}"),
                None => String::new(),
            }
        )));
    }
    let mut changes = vec![(USER, user.to_owned())];
    changes.extend(wanted_host.map(|host| (HOST, host.to_owned())));
    changes.extend(flags.everything.then(|| (EVERYTHING, "true".to_owned())));
    Ok(changes)
}

/// The password that is given; without one the kept one stays, or one is made.
fn read_password(site: &Session, flags: &GrantReadonly) -> Result<Option<Secret>> {
    const FLAG: &str = "--password-file";
    let Some(file) = &flags.password.password_file else {
        return Ok(None);
    };
    if let Some(own) = &site.settings().database.readonly_password_file {
        return Err(Exit::Settings.because(format!(
            "{FLAG}: database.readonly_password_file names a file with the password, {}: write it there, or unset that setting",
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
fn account_in_plan(plan: &engine::Plan, site: &Session) -> Option<String> {
    let user = site.settings().database.readonly_user.as_ref()?.as_str();
    plan.changes.iter().find_map(|planned| {
        let Resource::SqlAccount(name) = &planned.change.resource else {
            return None;
        };
        let (of, _) = name.rsplit_once('@')?;
        (of == user).then(|| name.clone())
    })
}

/// Where a server of this machine listens, if nobody else can reach it and the account is for somebody else.
async fn listening_hint(known: &Database, site: &Session) -> Result<Option<String>> {
    let elsewhere = site.settings().database.readonly_host.as_ref();
    if !known.server.local || elsewhere.is_none_or(|host| host.as_str() == "localhost") {
        return Ok(None);
    }
    let row: Option<(Option<String>, bool)> = known.server.row("SELECT @@bind_address, @@skip_networking").await?;
    Ok(match row {
        Some((_, true)) => Some("no port at all".into()),
        Some((Some(address), _)) if ["127.0.0.1", "::1", "localhost"].contains(&address.as_str()) => Some(address),
        _ => None,
    })
}

fn report_granted(site: &Session, known: &Database, changed: usize, alone: Option<String>) -> Report {
    let settings = &site.settings().database;
    let user = settings.readonly_user.as_ref().map_or("", |user| user.as_str());
    let kept = format!("{}/{}", site.layout.secrets, SecretName::Readonly.as_str());
    let own = settings.readonly_password_file.as_ref();
    let file = own.map_or(kept.as_str(), |own| own.as_str());
    let from = settings.readonly_host.as_ref().map(|host| host.as_str());
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
        "everything": settings.readonly_everything,
        "changed": changed > 0,
        "warning": warning,
    }));
    let nothing = if changed == 0 { "nothing to do: " } else { "" };
    report.with_warnings(warning).with_remark(format!(
        "{nothing}{user}{} can read {}{}; its password is in {file}",
        from.map(|host| format!("@{host}")).unwrap_or_default(),
        known.database,
        match settings.readonly_everything {
            true => " completely, and nothing else",
            false =>
                " except the audit trail, sessions and users' secrets (--everything includes them), and nothing else",
        }
    ))
}
