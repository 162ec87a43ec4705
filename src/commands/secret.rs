//! `secret`: the passwords of a site and the secret of its cookies: where they are, and new ones while the site is in use.
//!
//! A rotation is the recipe with one secret made anew. The engine brings it everywhere, so that a run which was cut is
//! finished by the next one, or by `install`.

use super::{begin_change, need_root, watch};
use crate::base::error::Exit;
use crate::base::prompt::{Enter, Question, ask_to_agree};
use crate::base::report::Report;
use crate::base::secret::Secret;
use crate::base::signals::Interrupt;
use crate::base::text::format_time;
use crate::cli::{Global, Parts, RotateTarget, SecretCommand as Command};
use crate::drivers::{broker, services, sql};
use crate::engine::{self, Plan};
use crate::host::secrets::SecretName;
use crate::journal::Writer;
use crate::recipe::Recipe;
use crate::resource::{Part, Resource};
use crate::session::Session;
use crate::session::converge::{self, make_plan};
use crate::settings::{self, AbsolutePath, Mode, READONLY_ACCOUNTS};
use anyhow::{Result, anyhow};
use serde::Serialize;
use serde_json::json;

pub(crate) async fn run(global: &Global, command: &Command) -> Result<Report> {
    match command {
        Command::List => list_secrets(global),
        Command::Rotate { name: RotateTarget::One(name), yes } => rotate_one(global, name, *yes).await,
        Command::Rotate { name: RotateTarget::All, yes } => rotate_all(global, *yes).await,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum SecretOrigin {
    /// This program made it and keeps it.
    Generated,
    /// It is in a file of the administrator.
    Administrator,
    None,
}

/// What there is to tell of a secret.
#[derive(Debug, Serialize)]
struct SecretReport {
    name: String,
    origin: SecretOrigin,
    file: Option<String>,
    /// Since when it is the one that it is; nothing where there is none yet.
    since: Option<String>,
    what: String,
}

/// The setting that names the administrator's own file for a secret, and that file if there is one.
fn given_file<'a>(site: &'a Session, name: &SecretName) -> (&'static str, Option<&'a AbsolutePath>) {
    let settings = site.settings();
    match name {
        SecretName::Database => ("database.password_file", settings.database.password_file.as_ref()),
        SecretName::Readonly => ("database.readonly_password_file", settings.database.readonly_password_file.as_ref()),
        SecretName::ReadonlyOf(user) => {
            (READONLY_ACCOUNTS, settings.database.reader(user).and_then(|reader| reader.password_file))
        }
        SecretName::Broker => ("broker.password_file", settings.broker.password_file.as_ref()),
        SecretName::Monitor => ("monitor.password_file", settings.monitor.password_file.as_ref()),
        SecretName::Cookie => ("", None),
    }
}

/// What it is for; nothing, and why, where this site has none.
fn secret_purpose(site: &Session, name: &SecretName) -> Result<String> {
    let (settings, slug) = (site.settings(), &site.layout.slug);
    let reader = settings.database.readers().find(|reader| SecretName::of_reader(*reader) == *name);
    match name {
        SecretName::Database if site.socket_authentication() => Err(anyhow!(
            "the application logs in to the database as the account {} of this machine, without a password",
            site.account()
        )),
        SecretName::Database => {
            Ok(format!("the application logs in to the database as {}", settings.database.user_or(slug)))
        }
        SecretName::Readonly | SecretName::ReadonlyOf(_) => match (reader, name) {
            (Some(reader), _) => Ok(format!("reports are read from the database as {}", reader.user)),
            (None, SecretName::ReadonlyOf(user)) => Err(anyhow!("{READONLY_ACCOUNTS} has no account {user}")),
            (None, _) => Err(anyhow!("there is no read-only database account: set database.readonly_user")),
        },
        SecretName::Broker => Ok(format!("the services log in to the broker as {}", settings.broker.user_or(slug))),
        SecretName::Monitor => {
            let page = if settings.monitor.page { " and to the status page" } else { "" };
            Ok(format!("login of {} to the monitor's pages{page}", settings.monitor.user.as_str()))
        }
        SecretName::Cookie => Ok("signs the session cookies".into()),
    }
}

fn list_secrets(global: &Global) -> Result<Report> {
    need_root(global, "look at where the secrets are")?;
    let site = Session::open(global)?;
    let all = secret_names(&site).iter().map(|name| secret_report(&site, name)).collect::<Result<Vec<_>>>()?;
    Ok(Report::new(json!({ "instance": site.instance, "secrets": all }))
        .with_table(all.iter().map(|one| format_secret(one) + "\n").collect::<String>()))
}

/// Every secret that this site can have.
fn secret_names(site: &Session) -> Vec<SecretName> {
    let of_readers = site.settings().database.readers().filter(|reader| !reader.is_first).map(SecretName::of_reader);
    SecretName::ALL.into_iter().chain(of_readers).collect()
}

fn format_secret(secret: &SecretReport) -> String {
    let SecretReport { name, what, .. } = secret;
    let Some(file) = &secret.file else {
        return format!("{name:<10} {what}");
    };
    let since = match &secret.since {
        Some(since) => format!("since {since}"),
        None => "not made yet".to_owned(),
    };
    let whose = match secret.origin {
        SecretOrigin::Administrator => "your own file",
        _ => "generated",
    };
    format!("{name:<10} {file}, {whose}, {since}: {what}")
}

fn secret_report(site: &Session, name: &SecretName) -> Result<SecretReport> {
    let (origin, file) = match (secret_purpose(site, name), given_file(site, name)) {
        (Err(_), _) => (SecretOrigin::None, None),
        (Ok(_), (_, Some(path))) => (SecretOrigin::Administrator, Some(path.as_str().to_owned())),
        (Ok(_), (_, None)) => {
            let path = format!("{}/{}", site.layout.secrets, name.as_str());
            (SecretOrigin::Generated, Some(path))
        }
    };
    let mut since = None;
    if let Some(file) = &file {
        let entry = site.host.stat(&site.host.followed(file)?)?;
        since = entry.and_then(|entry| format_time(entry.modified));
    }
    Ok(SecretReport {
        name: name.as_str().into_owned(),
        origin,
        file: file.map(|file| site.host.outside(&file)),
        since,
        what: secret_purpose(site, name).unwrap_or_else(|why| why.to_string()),
    })
}

async fn rotate_one(global: &Global, name: &SecretName, yes: bool) -> Result<Report> {
    let stop = begin_change(global, "change secrets")?;
    let site = Session::open(global)?;
    refuse_rotation(&site, name)?;
    if *name == SecretName::Cookie {
        // Nobody loses data, but everybody notices.
        let what = "Replace the cookie secret, which logs everybody out at once";
        ask_to_agree(&Question::new(what, Enter::No), yes, site.style)?;
    }
    let rotated = rotate_secret(&site, name, stop).await?;
    let report = Report::new(json!({
        "instance": site.instance,
        "secret": name.as_str(),
        "file": rotated.file,
        "changed": rotated.changed,
    }));
    Ok(report.with_remark(describe_rotation(&site, name, &rotated.file)))
}

/// A secret that has just been replaced.
struct RotatedSecret {
    file: String,
    changed: usize,
}

async fn rotate_secret(site: &Session, name: &SecretName, stop: Interrupt) -> Result<RotatedSecret> {
    let mut writer = Writer::open(&site.host, &site.instance, "secret rotate")?;
    let made = async {
        // Where an earlier run was cut, the services may still use what no file has any more but theirs.
        apply_rotation(site, &mut writer, name, stop).await?;
        site.drivers.forget();
        let secret = Secret::generate()?;
        site.renewed.get_or_init(|| (name.clone(), secret));
        apply_rotation(site, &mut writer, name, stop).await
    };
    let outcome = site.close_after(made.await).await?;
    if *name == SecretName::Monitor && site.settings().monitor.page {
        watch::keep_login(site)?;
    }
    Ok(RotatedSecret { file: format!("{}/{}", site.layout.secrets, name.as_str()), changed: outcome.done })
}

/// Replaces every secret that is ours to replace. Each is finished before the next one: a run that is cut leaves none half.
async fn rotate_all(global: &Global, yes: bool) -> Result<Report> {
    let stop = begin_change(global, "change secrets")?;
    let site = Session::open(global)?;
    refuse_missing(&site)?;
    let (mut names, mut skipped) = (Vec::new(), Vec::new());
    for name in secret_names(&site) {
        match refuse_rotation(&site, &name) {
            Ok(()) => names.push(name),
            Err(why) => skipped.push((name, format!("{why:#}"))),
        }
    }
    let all: Vec<_> = names.iter().map(SecretName::as_str).collect();
    let what =
        format!("Replace the secrets {}: users wait some seconds, then they have to log in again", all.join(", "));
    ask_to_agree(&Question::new(&what, Enter::No), yes, site.style)?;
    let mut report = Report::new(json!({}));
    let mut rotated = Vec::new();
    for (at, name) in names.iter().enumerate() {
        // A session replaces one secret.
        let session = Session::open(global)?;
        let done = rotate_secret(&session, name, stop).await.map_err(|why| {
            why.context(format!(
                "replaced: {}; not replaced: {}; run `camcops-provision secret rotate NAME` for each of these",
                if at == 0 { "none".to_owned() } else { all[..at].join(", ") },
                all[at..].join(", ")
            ))
        })?;
        report = report.with_remark(describe_rotation(&session, name, &done.file));
        rotated.push(json!({ "secret": name.as_str(), "file": done.file, "changed": done.changed }));
    }
    let left: Vec<_> = skipped.iter().map(|(name, why)| json!({ "secret": name.as_str(), "why": why })).collect();
    let notes = skipped.iter().map(|(name, why)| format!("not replaced: {}: {why}", name.as_str()));
    Ok(report
        .with_document(json!({ "instance": site.instance, "secrets": rotated, "skipped": left }))
        .with_notes(notes))
}

/// Brings a secret everywhere, as it is or made anew.
async fn apply_rotation(
    site: &Session,
    writer: &mut Writer<'_>,
    name: &SecretName,
    stop: Interrupt,
) -> Result<engine::RunOutcome> {
    let (recipe, plan) = make_plan(site, &writer.journal, &parts_using(name)).await?;
    let plan = only_ours(plan);
    refuse_kept(site, name, &recipe)?;
    let differing = plan.changes.iter().filter(|c| !c.facets.is_empty());
    sql::refuse_undoable(site.drivers.database().ok().as_deref(), &site.host, differing.map(|planned| &planned.change))
        .await?;
    // Nothing is announced that can't be done.
    match name {
        SecretName::Broker => broker::wait_for_answer(&*site.drivers.broker()?, &site.host).await?,
        SecretName::Database | SecretName::Readonly | SecretName::ReadonlyOf(_) => {
            site.drivers.database()?.need_server().await?;
        }
        SecretName::Monitor | SecretName::Cookie => {}
    }
    converge::apply_plan(site, writer, &plan, stop).await
}

fn describe_rotation(site: &Session, name: &SecretName, file: &str) -> String {
    match name {
        SecretName::Database => format!(
            "the application logs in to the database with a new password, stored in {file}; the site was available throughout, and the old password no longer works"
        ),
        SecretName::Readonly => {
            format!("the read-only database account has a new password, in {file}; its users need it from now on")
        }
        SecretName::ReadonlyOf(user) => {
            format!(
                "the read-only database account {user} has a new password, in {file}; its users need it from now on"
            )
        }
        SecretName::Broker => format!(
            "the services log in to the broker with a new password, stored in {file}; the old password no longer works"
        ),
        SecretName::Monitor => {
            format!("the monitor has a new password for {}, in {file}", site.settings().monitor.user.as_str())
        }
        SecretName::Cookie => "the cookie secret was replaced: all users have to log in again".to_owned(),
    }
}

/// What a secret goes through. Another part may have changes that are pending: they are for `install`.
fn parts_using(name: &SecretName) -> Parts {
    let server = match name {
        SecretName::Database | SecretName::Readonly | SecretName::ReadonlyOf(_) => Some(Part::Database),
        SecretName::Broker => Some(Part::Broker),
        SecretName::Monitor | SecretName::Cookie => None,
    };
    let services = match name {
        // Each new connection reads it.
        SecretName::Database | SecretName::Readonly | SecretName::ReadonlyOf(_) => None,
        _ => Some(Part::Services),
    };
    let always = [Part::Secrets, Part::Configuration];
    Parts { only: always.into_iter().chain(server).chain(services).collect(), ..Parts::default() }
}

/// Servers that are not ours go on as they are.
fn only_ours(mut plan: Plan) -> Plan {
    let is_meant = |resource: &Resource| match resource {
        Resource::Service(name) => services::is_ours(name),
        Resource::Schema(_) | Resource::Vhost(_) => false,
        _ => true,
    };
    plan.changes.retain(|planned| is_meant(&planned.change.resource));
    plan
}

/// Refuses what is not ours to change.
fn refuse_rotation(site: &Session, name: &SecretName) -> Result<()> {
    if let Err(why) = secret_purpose(site, name) {
        return Err(Exit::Usage.because(format!("there is no secret {}: {why}", name.as_str())));
    }
    if let (setting, Some(path)) = given_file(site, name) {
        return Err(Exit::Settings.because(format!(
            "the secret {} is in a file of yours, {}: change it on its server, write it to that file, and run `camcops-provision install`; or unset {setting} to have one generated",
            name.as_str(),
            path.as_str()
        )));
    }
    let settings = site.settings();
    let database = &settings.database;
    let elsewhere = match name {
        SecretName::Database | SecretName::Readonly | SecretName::ReadonlyOf(_)
            if database.mode == Mode::External && database.admin_defaults_file.is_none() =>
        {
            Some(("database", "or set database.admin_defaults_file to let camcops-provision do it"))
        }
        SecretName::Broker if settings.broker.mode == Mode::External => {
            Some(("broker", "camcops-provision does not administer that server"))
        }
        _ => None,
    };
    if let Some((server, more)) = elsewhere {
        let (setting, _) = given_file(site, name);
        return Err(Exit::Settings.because(format!(
            "the account is on a {server} server that this program does not administer: have its password changed there, write it to a file that only root can read, set {setting} to that file, and run `camcops-provision install` ({more})"
        )));
    }
    refuse_missing(site)
}

fn refuse_missing(site: &Session) -> Result<()> {
    match site.journal()?.exists() {
        true => Ok(()),
        false => Err(Exit::Unreachable
            .because("nothing is installed yet, so no secret is in use: run `camcops-provision install`")),
    }
}

/// Refuses where camcops.conf would go on with what the administrator wrote there.
fn refuse_kept(site: &Session, name: &SecretName, recipe: &Recipe) -> Result<()> {
    let (section, needed) = match name {
        SecretName::Database => ("site", "DB_URL"),
        SecretName::Broker => ("export", "CELERY_BROKER_URL"),
        SecretName::Cookie => ("site", "SESSION_COOKIE_SECRET"),
        SecretName::Readonly | SecretName::ReadonlyOf(_) | SecretName::Monitor => return Ok(()),
    };
    let passed = site.settings().config.get(section);
    let by_file = format!("{needed}{}", settings::BY_FILE);
    if passed.is_some_and(|values| values.contains_key(needed) || values.contains_key(&by_file)) {
        return Err(Exit::Settings.because(format!(
            "config.{section}.{needed} in the settings overrides it: change it there and run `camcops-provision install`, or unset it first"
        )));
    }
    let Some(kept) = recipe.kept.iter().find(|kept| kept.key.eq_ignore_ascii_case(needed)) else {
        return Ok(());
    };
    let reads_it = format!("read_default_file={}", site.layout.option_file);
    let still_follows =
        kept.yours.as_ref().is_some_and(|value| *name == SecretName::Database && value.contains(&reads_it));
    if still_follows {
        return Ok(());
    }
    Err(Exit::Settings.because(format!(
        "{} in {} was set by you, so a new secret would not be used: change it there, or remove that line and run `camcops-provision install` first",
        kept.key, kept.path
    )))
}
