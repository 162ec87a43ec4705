//! `secret`: the passwords of a site and the secret of its cookies: where they are, and new ones while the site is in use.
//!
//! A rotation is the recipe with one secret made anew. The engine brings it everywhere, so that a run which was cut is
//! finished by the next one, or by `install`.

use super::{need_machine, need_root};
use crate::base::error::Exit;
use crate::base::prompt::{Enter, Question, agree};
use crate::base::secret::Secret;
use crate::base::signals::stop_on_signals;
use crate::base::terminal::{self, Style};
use crate::cli::{Global, Parts, Secret as Command};
use crate::drivers::{broker, services, sql};
use crate::engine::report::Lines;
use crate::engine::{self, Plan};
use crate::host::secrets::Name;
use crate::journal::Writer;
use crate::recipe::Recipe;
use crate::resource::{Part, Resource};
use crate::session::Session;
use crate::session::converge::planned;
use crate::settings::{self, AbsolutePath, Mode};
use anyhow::Result;
use serde::Serialize;
use serde_json::json;
use std::fmt::Write as _;
use std::sync::atomic::AtomicBool;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Does it.
pub(crate) async fn run(global: &Global, command: &Command, style: Style) -> Result<u8> {
    match command {
        Command::List => list(global, style),
        Command::Rotate { name, yes } => rotate(global, *name, *yes, style).await,
    }
}

/// Whose a secret is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Origin {
    /// This program made it and keeps it.
    Generated,
    /// It is in a file of the administrator.
    Administrator,
    /// There is none.
    None,
}

/// What there is to tell of a secret.
#[derive(Debug, Serialize)]
struct Told {
    name: &'static str,
    origin: Origin,
    /// Where it is kept.
    file: Option<String>,
    /// Since when it is the one that it is; nothing where there is none yet.
    since: Option<String>,
    what: String,
}

/// The setting that names the administrator's own file for a secret, and that file if there is one.
fn given(site: &Session, name: Name) -> (&'static str, Option<&AbsolutePath>) {
    let settings = site.settings();
    match name {
        Name::Database => (
            "database.password_file",
            settings.database.password_file.as_ref(),
        ),
        Name::Readonly => (
            "database.readonly_password_file",
            settings.database.readonly_password_file.as_ref(),
        ),
        Name::Broker => (
            "broker.password_file",
            settings.broker.password_file.as_ref(),
        ),
        Name::Monitor => (
            "monitor.password_file",
            settings.monitor.password_file.as_ref(),
        ),
        Name::Cookie => ("", None),
    }
}

/// What it is for; nothing, and why, where this site has none.
fn purpose(site: &Session, name: Name) -> Result<String, String> {
    let (settings, slug) = (site.settings(), &site.layout.slug);
    let reader = settings.database.readonly_user.as_ref();
    match name {
        Name::Database if site.socket_authentication() => Err(format!(
            "the application logs in to the database as the account {} of this machine, without a password",
            site.account()
        )),
        Name::Database => Ok(format!(
            "the application logs in to the database as {}",
            settings.database.user_or(slug)
        )),
        Name::Readonly => match reader {
            Some(user) => Ok(format!(
                "reports are read from the database as {}",
                user.as_str()
            )),
            None => Err(
                "no account only reads from the database: database.readonly_user names one".into(),
            ),
        },
        Name::Broker => Ok(format!(
            "the services log in to the broker as {}",
            settings.broker.user_or(slug)
        )),
        Name::Monitor => Ok(format!(
            "the monitor's pages are for {}",
            settings.monitor.user.as_str()
        )),
        Name::Cookie => Ok("signs the cookies of those who are logged in".into()),
    }
}

fn list(global: &Global, style: Style) -> Result<u8> {
    need_root(global, "look at where the secrets are")?;
    let site = Session::open(global)?;
    let mut all = Vec::new();
    for name in Name::ALL {
        all.push(told(&site, name)?);
    }
    if style.json {
        terminal::print_json(&json!({ "instance": site.instance, "secrets": all }))?;
        return Ok(0);
    }
    let mut text = String::new();
    for told in &all {
        let Told { name, what, .. } = told;
        let (Some(file), origin) = (&told.file, told.origin) else {
            let _ = writeln!(text, "{name:<10} {what}");
            continue;
        };
        let since = match &told.since {
            Some(since) => format!("since {since}"),
            None => "not made yet".to_owned(),
        };
        let whose = match origin {
            Origin::Administrator => "your own file",
            _ => "generated",
        };
        let _ = writeln!(text, "{name:<10} {file}, {whose}, {since}: {what}");
    }
    terminal::print(&text)?;
    Ok(0)
}

fn told(site: &Session, name: Name) -> Result<Told> {
    let (origin, file) = match (purpose(site, name), given(site, name)) {
        (Err(_), _) => (Origin::None, None),
        (Ok(_), (_, Some(path))) => (Origin::Administrator, Some(path.as_str().to_owned())),
        (Ok(_), (_, None)) => {
            let path = format!("{}/{}", site.layout.secrets, name.as_str());
            (Origin::Generated, Some(path))
        }
    };
    let mut since = None;
    if let Some(file) = &file {
        let entry = site.host.look(&site.host.followed(file)?)?;
        since = entry.and_then(|entry| {
            let moment = OffsetDateTime::from(entry.modified).replace_nanosecond(0);
            moment.ok()?.format(&Rfc3339).ok()
        });
    }
    Ok(Told {
        name: name.as_str(),
        origin,
        file: file.map(|file| site.host.outside(&file)),
        since,
        what: purpose(site, name).unwrap_or_else(|why| why),
    })
}

async fn rotate(global: &Global, name: Name, yes: bool, style: Style) -> Result<u8> {
    need_machine(global, "change secrets")?;
    let stop = stop_on_signals(style)?;
    let site = Session::open(global)?;
    refuse(&site, name)?;
    if name == Name::Cookie {
        // Nobody loses data, but everybody notices.
        let what = "a new secret of the cookies logs everybody out, whatever they are at";
        agree(&Question::new(what, Enter::No), yes, style)?;
    }
    let mut writer = Writer::open(&site.host, &site.instance, "secret rotate")?;
    let made = async {
        // Where an earlier run was cut, the services may still use what no file has any more but theirs.
        apply(&site, &mut writer, name, stop, style).await?;
        site.drivers.forget();
        let secret = Secret::generate()?;
        site.renewed.get_or_init(|| (name, secret));
        apply(&site, &mut writer, name, stop, style).await
    };
    let outcome = made.await;
    site.close().await;
    let outcome = outcome?;
    let file = format!("{}/{}", site.layout.secrets, name.as_str());
    if style.json {
        terminal::print_json(&json!({
            "instance": site.instance,
            "secret": name.as_str(),
            "file": file,
            "changed": outcome.done,
        }))?;
    } else if !style.quiet {
        terminal::print_line(&done(&site, name, &file))?;
    }
    Ok(0)
}

/// Brings a secret everywhere, as it is or made anew.
async fn apply(
    site: &Session,
    writer: &mut Writer<'_>,
    name: Name,
    stop: &AtomicBool,
    style: Style,
) -> Result<engine::Outcome> {
    let (recipe, plan) = planned(site, &writer.journal, &parts(name)).await?;
    let plan = only_ours(plan);
    refuse_kept(site, name, &recipe)?;
    let differing = plan.changes.iter().filter(|c| !c.facets.is_empty());
    sql::refuse_undoable(
        site.drivers.database().ok().as_deref(),
        &site.host,
        differing.map(|planned| &planned.change),
    )
    .await?;
    // Nothing is announced that can't be done.
    match name {
        Name::Broker => broker::answers(&*site.drivers.broker()?, &site.host).await?,
        Name::Database | Name::Readonly => {
            site.drivers.database()?.need_server().await?;
        }
        Name::Monitor | Name::Cookie => {}
    }
    let mut lines = Lines {
        style,
        host: &site.host,
    };
    engine::apply(&site.host, &site.drivers, writer, &plan, stop, &mut lines).await
}

fn done(site: &Session, name: Name, file: &str) -> String {
    match name {
        Name::Database => format!(
            "the application logs in to the database by a new password, kept in {file}; nobody was turned away, and the former one is refused now"
        ),
        Name::Readonly => format!(
            "the account that only reads from the database has a new password, in {file}; whoever reads needs it from now on"
        ),
        Name::Broker => format!(
            "the services log in to the broker by a new password, kept in {file}; the former one is refused now"
        ),
        Name::Monitor => format!(
            "the monitor asks {} for a new password, in {file}",
            site.settings().monitor.user.as_str()
        ),
        Name::Cookie => "the cookies have a new secret: everybody has to log in again".to_owned(),
    }
}

/// What a secret goes through. Another part may have changes that are pending: they are for `install`.
fn parts(name: Name) -> Parts {
    let server = match name {
        Name::Database | Name::Readonly => Some(Part::Database),
        Name::Broker => Some(Part::Broker),
        Name::Monitor | Name::Cookie => None,
    };
    let services = match name {
        // Each new connection reads it.
        Name::Database | Name::Readonly => None,
        _ => Some(Part::Services),
    };
    let always = [Part::Secrets, Part::Configuration];
    Parts {
        only: always.into_iter().chain(server).chain(services).collect(),
        skip: Vec::new(),
        adopt: false,
    }
}

/// Servers that are not ours go on as they are.
fn only_ours(mut plan: Plan) -> Plan {
    let is_meant = |resource: &Resource| match resource {
        Resource::Service(name) => services::is_ours(name),
        Resource::Schema(_) | Resource::Vhost(_) => false,
        _ => true,
    };
    plan.changes
        .retain(|planned| is_meant(&planned.change.resource));
    plan
}

/// Refuses what is not ours to change.
fn refuse(site: &Session, name: Name) -> Result<()> {
    if let Err(why) = purpose(site, name) {
        return Err(Exit::Usage.because(format!("there is no secret {}: {why}", name.as_str())));
    }
    if let (setting, Some(path)) = given(site, name) {
        return Err(Exit::Settings.because(format!(
            "the secret {} is your own, in {}: change it where it is asked for, write it into that file, and run `camcops-provision install`; or take {setting} out of the settings to have one made and kept here",
            name.as_str(),
            path.as_str()
        )));
    }
    let settings = site.settings();
    let database = &settings.database;
    let elsewhere = match name {
        Name::Database | Name::Readonly
            if database.mode == Mode::External && database.admin_defaults_file.is_none() =>
        {
            Some((
                "database",
                "or set database.admin_defaults_file, and camcops-provision does it",
            ))
        }
        Name::Broker if settings.broker.mode == Mode::External => {
            Some(("broker", "which camcops-provision only logs in to"))
        }
        _ => None,
    };
    if let Some((server, more)) = elsewhere {
        let (setting, _) = given(site, name);
        return Err(Exit::Settings.because(format!(
            "the account is on a {server} server that others look after: have them give it another password, write that into a file that only root can read, name the file in {setting}, and run `camcops-provision install` ({more})"
        )));
    }
    if !site.journal()?.exists() {
        return Err(Exit::Unreachable.because(
            "nothing is installed here yet, so no secret is in use: run `camcops-provision install`",
        ));
    }
    Ok(())
}

/// Refuses where camcops.conf would go on with what the administrator wrote there.
fn refuse_kept(site: &Session, name: Name, recipe: &Recipe) -> Result<()> {
    let (section, needed) = match name {
        Name::Database => ("site", "DB_URL"),
        Name::Broker => ("export", "CELERY_BROKER_URL"),
        Name::Cookie => ("site", "SESSION_COOKIE_SECRET"),
        Name::Readonly | Name::Monitor => return Ok(()),
    };
    let passed = site.settings().config.get(section);
    let by_file = format!("{needed}{}", settings::BY_FILE);
    if passed.is_some_and(|values| values.contains_key(needed) || values.contains_key(&by_file)) {
        return Err(Exit::Settings.because(format!(
            "config.{section}.{needed} in the settings says what is used instead: change it there and run `camcops-provision install`, or take it out first"
        )));
    }
    let Some(kept) = recipe
        .kept
        .iter()
        .find(|kept| kept.key.eq_ignore_ascii_case(needed))
    else {
        return Ok(());
    };
    let reads_it = format!("read_default_file={}", site.layout.option_file);
    let still_follows = kept
        .yours
        .as_ref()
        .is_some_and(|value| name == Name::Database && value.contains(&reads_it));
    if still_follows {
        return Ok(());
    }
    Err(Exit::Settings.because(format!(
        "{} in {} is as you set it, so a new secret would not be used: change it there, or take that line out and run `camcops-provision install` first",
        kept.key, kept.path
    )))
}
