//! An account of a database server, as `user@host`.
//!
//! Facets: `login`, which is a real login into the database, or for an account of another machine the right password; `method`, `password` or `socket`; `passwords`, one or two;
//! `former`, a real login with the password that another one takes the place of; `tls`, whether the server insists on it;
//! `grants`, compared both ways; and `reads`, what an account that only reads may read of the tables that there are.

use super::grants::{APPLICATION, ENOUGH, lacking_grants, on_database, read_grants, replace_grants};
use super::server::{DatabaseServer, PATIENCE, Power};
use super::{AccountPurpose, Database, DatabaseAccount, checked_only, passwords, quote, reading};
use crate::base::error::Exit;
use crate::base::secret::Secret;
use crate::host::Host;
use crate::journal::{self, Journal};
use crate::probe::Cause;
use crate::probe::database::{DatabaseAddress, Encryption, Login};
use crate::resource::{Change, Enforced, FacetValue, Facets, Resource, State};
use crate::site::facts::DatabaseFamily;
use anyhow::{Context, Result};
use zeroize::Zeroizing;

/// `user@host`, split where the user ends.
pub(crate) fn split_name(name: &str) -> Result<(&str, &str)> {
    name.rsplit_once('@').with_context(|| format!("{name} is not an account as user@host"))
}

/// Whether the account is there, what it may do, and whether it gets in.
pub(crate) async fn observe(known: &Database, host: &Host, name: &str) -> Result<State> {
    let server = &known.server;
    if !server.is_there().await? {
        return Ok(State::Absent);
    }
    let (user, from) = split_name(name)?;
    let mut facets = Facets::new();
    let mut has_tables = true;
    if checked_only(server) {
        let lacking = lacking_grants(known).await?;
        facets = facets.with(
            "grants",
            match lacking.is_empty() {
                true => ENOUGH.to_owned(),
                false => format!("without {}", lacking.join(", ")),
            },
        );
    } else {
        let row: Option<(String, String)> = server
            .row(&format!(
                "SELECT plugin, ssl_type FROM mysql.user WHERE User = {} AND Host = {}",
                quote::quote_text(user),
                quote::quote_text(from)
            ))
            .await?;
        let Some((plugin, tls)) = row else {
            return Ok(State::Absent);
        };
        let method = match plugin.as_str() {
            "unix_socket" | "auth_socket" => "socket",
            _ => "password",
        };
        let tls = if tls.is_empty() { "not required" } else { "required" };
        if method == "password" {
            facets = facets.with("passwords", passwords::passwords_taken(server, user, from).await?);
        }
        let grants = read_grants(server, user, from).await?;
        if known.account(user).is_some_and(|account| account.purpose == AccountPurpose::Reading) {
            let (reads, is_any) = reading::observe_reading(known, &grants).await?;
            facets = facets.with("reads", reads);
            has_tables = is_any;
        }
        facets = facets.with("method", method).with("tls", tls).with("grants", FacetValue::Set(grants));
    }
    if let Some(account) = known.account(user) {
        let login = match account.is_for_others {
            true => try_from_elsewhere(known, account, from).await?,
            // Who may read no table yet may not enter the database either.
            false => try_login(host, known, account, has_tables).await?,
        };
        facets = facets.with("login", login);
        if let Some(former) = known.former(account) {
            facets = facets.with("former", login_answer(known, &former).await?);
        }
    }
    Ok(State::Present(facets))
}

async fn try_login(host: &Host, known: &Database, account: &DatabaseAccount, has_tables: bool) -> Result<&'static str> {
    match known.endpoint(host, account) {
        Some(endpoint) if has_tables => login_answer(known, &endpoint).await,
        Some(endpoint) => login_answer(known, &DatabaseAddress { database: String::new(), ..endpoint }).await,
        None => Ok("not yet"),
    }
}

/// Whether an account for another machine lets in whoever has our password: from here that can't be tried.
async fn try_from_elsewhere(known: &Database, account: &DatabaseAccount, from: &str) -> Result<&'static str> {
    let super::WayIn::Password(password) = &account.way_in else {
        return Ok("not yet");
    };
    let server = &known.server;
    if server.identity().await?.family == DatabaseFamily::Mysql {
        return Err(Exit::Settings.because(format!(
            "database.readonly_host: with MySQL the password of {} from {from} can't be checked from this machine; unset it, and create the account on the server yourself",
            account.user
        )));
    }
    let kept: Option<(String,)> = server
        .row(&format!(
            "SELECT COALESCE(NULLIF(authentication_string, ''), Password, '') FROM mysql.user WHERE User = {} AND Host = {}",
            quote::quote_text(&account.user),
            quote::quote_text(from)
        ))
        .await?;
    let ours = passwords::native_digest(password);
    Ok(match kept.is_some_and(|(kept,)| kept == ours) {
        true => "works",
        false => "refused",
    })
}

/// A real login. That the database is not there or not granted yet is not the account's fault, but it is no login either.
async fn login_answer(known: &Database, endpoint: &DatabaseAddress) -> Result<&'static str> {
    match endpoint.answers(PATIENCE).await {
        Ok(_) => Ok("works"),
        Err(trouble) => match trouble.cause {
            Cause::Denied => Ok("refused"),
            Cause::NoDatabase => Ok("not into the database"),
            Cause::NoTls if known.server.endpoint_is_plain() => Ok("only with TLS"),
            cause => Err(super::exit_for(cause).because(format!("database {trouble}"))),
        },
    }
}

/// Makes the account, or mends it: its login, then what it may do; or drops it.
pub(crate) async fn enforce(known: &Database, host: &Host, name: &str, after: &State) -> Result<Enforced> {
    let server = &known.server;
    server.started(host).await?;
    let (user, from) = split_name(name)?;
    let Some(wanted) = after.facets() else {
        let gone = format!("DROP USER IF EXISTS {}", quote::quote_account(user, from));
        server.change(&gone).await?;
        return Ok(Enforced::Done);
    };
    let before = observe(known, host, name).await?;
    let account = known.account(user).with_context(|| format!("nothing is known about the account {name}"))?;
    if checked_only(server) {
        return Err(explain_refusal(known, account, name, &before));
    }
    let ours = refuse_foreign(host, known, name, &before, wanted)?;
    let found = |facet: &str| before.text(facet);
    let quoted = quote::quote_account(user, from);
    let family = server.identity().await?.family;
    let verb = match before {
        State::Absent => "CREATE",
        State::Present(_) => "ALTER",
    };
    if wanted.text("passwords") == Some(passwords::TWO) {
        if before == State::Absent {
            return Err(Exit::Unreachable.because(format!(
                "the account {name} is missing on the database server: run `camcops-provision install`"
            )));
        }
        passwords::accept_both(known, account, &quoted, found("passwords")).await?;
        return Ok(Enforced::Done);
    }
    let too_many =
        wanted.text("passwords").is_some() && found("passwords").is_some_and(|passwords| passwords != passwords::ONE);
    if before == State::Absent || (ours && (too_many || !gets_in(&before, wanted))) {
        let method = found("method");
        if too_many && account.purpose == AccountPurpose::Application {
            passwords::let_readers_in(known).await?;
        }
        let verb = format!("{verb} USER {quoted}");
        set_identity(host, known, account, &verb, family, method).await?;
        if too_many && family == DatabaseFamily::Mysql {
            let alone = format!("ALTER USER {quoted} DISCARD OLD PASSWORD");
            server.change(&alone).await?;
        }
    }
    if wanted.text("tls") == Some("required") && found("tls") != Some("required") {
        server.change(&format!("ALTER USER {quoted} REQUIRE SSL")).await?;
    }
    if wanted.text("reads").is_some() {
        reading::set_reading(known, &quoted, user, from).await?;
    }
    if let Some(FacetValue::Set(wanted)) = wanted.get("grants") {
        // MySQL takes what is granted on the database, too, when everything on the server is revoked.
        for _ in 0..2 {
            let has = read_grants(server, user, from).await?;
            replace_grants(server, &quoted, wanted, &has).await?;
        }
    }
    Ok(Enforced::Done)
}

/// Whether the login was seen working, by the wanted method.
fn gets_in(before: &State, wanted: &Facets) -> bool {
    let method = wanted.text("method");
    !matches!(before.text("login"), Some("refused" | "not yet"))
        && (method.is_none() || method == before.text("method"))
}

/// Refuses what would be felt by somebody else who relies on the account; says whether the account is ours.
fn refuse_foreign(host: &Host, known: &Database, name: &str, before: &State, wanted: &Facets) -> Result<bool> {
    let (user, from) = split_name(name)?;
    let account = known.account(user).with_context(|| format!("nothing is known about the account {name}"))?;
    let quoted = quote::quote_account(user, from);
    refuse_shared(host, known, name)?;
    let State::Present(found) = before else {
        return Ok(true);
    };
    let insists = found.text("tls") == Some("required");
    if insists && wanted.text("tls").is_none() {
        return Err(Exit::Settings.because(format!(
            "the account {name} of the database server requires TLS, but database.tls is \"off\": change that setting, or run there: ALTER USER {quoted} REQUIRE NONE"
        )));
    }
    // With its journal, this program also forgets what it made; an account here that may do exactly what we grant, and
    // nothing else, is such a one.
    let as_we_make_it = known.server.local
        && account.purpose == AccountPurpose::Application
        && wanted.get("grants") == found.get("grants");
    if as_we_make_it || is_ours(host, known, name)? {
        return Ok(true);
    }
    if wanted.text("passwords") == Some(passwords::TWO) {
        return Err(Exit::CannotCreate.because(format!(
            "the account {name} of the database server was not made by camcops-provision, so others may use it: change its password there, write it to a file that only root can read, name that file in {}, and run `camcops-provision install`",
            account.password_setting
        )));
    }
    let not_ours = |what: &str, instead: &str| {
        Err(Exit::CannotCreate.because(format!(
            "the database server already has an account {name} that was not made by camcops-provision, and it {what}; choose another {}, {instead}",
            account.setting
        )))
    };
    if !gets_in(before, wanted) {
        return not_ours(
            "does not accept the password of this site",
            &format!("give its password in {}, or drop the account if it is not needed", account.password_setting),
        );
    }
    if wanted.text("passwords").is_some() && found.text("passwords") == Some(passwords::TWO) {
        return not_ours("accepts two passwords, which somebody may rely on", "or give it one password only");
    }
    if wanted.text("tls") == Some("required") && !insists {
        return not_ours("does not require TLS", &format!("or require it: ALTER USER {quoted} REQUIRE SSL"));
    }
    if let (Some(FacetValue::Set(wanted)), Some(FacetValue::Set(has))) = (wanted.get("grants"), found.get("grants")) {
        let scope = format!(" ON {}", on_database(&quote::quote_pattern(&known.database)));
        let elsewhere = |grant: &&String| !grant.ends_with(&scope);
        if let Some(grant) = has.difference(wanted).find(elsewhere) {
            return not_ours(
                &format!("may do more than CamCOPS needs ({grant}), which somebody may rely on"),
                "or revoke that yourself",
            );
        }
    }
    if let (Some(_), Some(FacetValue::Set(has))) = (wanted.text("reads"), found.get("grants")) {
        let of_a_table = format!(" ON {}.", quote::quote_name(&known.database));
        let of_all = format!(" ON {}", on_database(&quote::quote_pattern(&known.database)));
        if let Some(grant) = has.iter().find(|grant| !grant.contains(&of_a_table) && !grant.ends_with(&of_all)) {
            return not_ours(
                &format!("may do more than read CamCOPS's data ({grant}), which somebody may rely on"),
                "or revoke that yourself",
            );
        }
    }
    Ok(false)
}

/// Gives an account its way in, by a statement that begins with `verb`.
async fn set_identity(
    host: &Host,
    known: &Database,
    account: &DatabaseAccount,
    verb: &str,
    family: DatabaseFamily,
    method: Option<&str>,
) -> Result<()> {
    let server = &known.server;
    let login = known
        .login(host, account)
        .with_context(|| format!("the account {} of this machine does not exist yet", account.user))?;
    let password = match login {
        Login::Account { .. } => {
            let by = match family {
                DatabaseFamily::Mariadb => "VIA unix_socket",
                DatabaseFamily::Mysql => "WITH auth_socket",
            };
            return server.change(&format!("{verb} IDENTIFIED {by}")).await;
        }
        Login::Password(password) => password,
    };
    identify_by_password(server, verb, family, method, &password).await
}

/// Gives an account a password, by a statement that begins with `verb`.
async fn identify_by_password(
    server: &DatabaseServer,
    verb: &str,
    family: DatabaseFamily,
    method: Option<&str>,
    password: &Secret,
) -> Result<()> {
    if family == DatabaseFamily::Mariadb {
        // Its digest, so that the password itself is in no log and no list of sessions.
        let by_digest = format!(
            "{verb} IDENTIFIED VIA mysql_native_password USING {}",
            quote::quote_text(&passwords::native_digest(password))
        );
        let made: Option<Vec<mysql_async::Row>> = server.rows_if_any(&by_digest, &passwords::WANTS_TO_SEE_IT).await?;
        if made.is_some() {
            return Ok(());
        }
    }
    let by = match (family, method) {
        // This one would keep its method, and the password would mean nothing.
        (DatabaseFamily::Mysql, Some("socket")) => "WITH caching_sha2_password BY",
        _ => "BY",
    };
    let statement = Zeroizing::new(format!("{verb} IDENTIFIED {by} {}", quote::quote_text(password.reveal())));
    server.change(&statement).await
}

/// Whether the server has an account of this name.
pub(crate) async fn account_exists(known: &Database, user: &str, from: &str) -> Result<bool> {
    let count = known
        .server
        .number(&format!(
            "SELECT COUNT(*) FROM mysql.user WHERE User = {} AND Host = {}",
            quote::quote_text(user),
            quote::quote_text(from)
        ))
        .await?;
    Ok(count.is_some_and(|count| count > 0))
}

/// Makes an account that can read one database and nothing else; all of it, or none.
pub(crate) async fn create_reader(
    known: &Database,
    user: &str,
    from: &str,
    database: &str,
    password: &Secret,
) -> Result<()> {
    let server = &known.server;
    let family = server.identity().await?.family;
    let quoted = quote::quote_account(user, from);
    identify_by_password(server, &format!("CREATE USER {quoted}"), family, None, password).await?;
    let is_encrypted = !matches!(server.endpoint.encryption, Encryption::Off);
    let insist = (!server.local && is_encrypted).then(|| format!("ALTER USER {quoted} REQUIRE SSL"));
    let grants = AccountPurpose::Reading.grants(database);
    let granted = async {
        if let Some(insist) = &insist {
            server.change(insist).await?;
        }
        replace_grants(server, &quoted, &grants, &Default::default()).await
    };
    if let Err(why) = granted.await {
        server.change(&format!("DROP USER IF EXISTS {quoted}")).await?;
        return Err(why);
    }
    Ok(())
}

/// Refuses what `enforce` would refuse.
pub(crate) fn refuse_account(host: &Host, known: &Database, name: &str, before: &State, after: &State) -> Result<()> {
    match after.facets() {
        Some(wanted) => refuse_foreign(host, known, name, before, wanted).map(drop),
        None => Ok(()),
    }
}

/// What others have to do about an account that this program can only look at.
pub(crate) fn for_others(known: &Database, name: &str, before: &State) -> Result<anyhow::Error> {
    let (user, _) = split_name(name)?;
    let account = known.account(user).with_context(|| format!("nothing is known about the account {name}"))?;
    Ok(explain_refusal(known, account, name, before))
}

fn explain_refusal(known: &Database, account: &DatabaseAccount, name: &str, before: &State) -> anyhow::Error {
    let place = &known.server.endpoint.address;
    match before.text("login") {
        Some("works") => {}
        other => {
            return super::for_others(format!(
                "account {name} at {place}: login {}; check {} and {}",
                other.unwrap_or("not known"),
                account.setting,
                account.password_setting
            ));
        }
    }
    let (user, from) = name.rsplit_once('@').unwrap_or((name, "%"));
    super::for_others(format!(
        "account {name} at {place} has its privileges {}; have the server's administrator run: GRANT {} ON {} TO {};",
        before.text("grants").unwrap_or("not known"),
        APPLICATION.join(", "),
        on_database(&quote::quote_pattern(&known.database)),
        quote::quote_account(user, from)
    ))
}

/// Whether the account was made by this program for this instance: it was not there before us.
fn is_ours(host: &Host, known: &Database, name: &str) -> Result<bool> {
    let journal = Journal::read(host, &known.instance)?;
    let owned = journal.find(&Resource::SqlAccount(name.to_owned()));
    Ok(owned.is_some_and(|owned| owned.change.before == State::Absent))
}

/// Whether this program made the account for somebody who reads, and may drop it.
pub(crate) fn made_for_reading(known: &Database, change: &Change) -> bool {
    let only_reads = |facets: &Facets| match (facets.get("reads"), facets.get("grants")) {
        (Some(_), _) => true,
        (None, Some(FacetValue::Set(grants))) => grants.iter().all(|grant| grant.starts_with("SELECT ")),
        _ => false,
    };
    matches!(change.resource, Resource::SqlAccount(_))
        && change.before == State::Absent
        && change.after.facets().is_some_and(only_reads)
        && !checked_only(&known.server)
}

/// An account that another instance relies on is not changed under it.
fn refuse_shared(host: &Host, known: &Database, name: &str) -> Result<()> {
    let resource = Resource::SqlAccount(name.to_owned());
    for other in journal::list_instances(host)? {
        if other != known.instance && Journal::read(host, &other)?.find(&resource).is_some() {
            return Err(Exit::CannotCreate.because(format!(
                "instance {other} uses the account {name} of the database server too, and would need changes; give each instance its own account with database.user"
            )));
        }
    }
    Ok(())
}

impl DatabaseServer {
    fn endpoint_is_plain(&self) -> bool {
        matches!(self.endpoint.encryption, Encryption::Off) && self.power == Power::Administrator
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_counts_by_the_wanted_method_only() {
        let found =
            |login: &str, method: &str| State::Present(Facets::new().with("login", login).with("method", method));
        let wanted = Facets::new().with("login", "works").with("method", "socket");
        assert!(gets_in(&found("works", "socket"), &wanted));
        assert!(gets_in(&found("not into the database", "socket"), &wanted));
        assert!(!gets_in(&found("works", "password"), &wanted));
        assert!(!gets_in(&found("refused", "socket"), &wanted));
        assert!(!gets_in(&found("not yet", "socket"), &wanted));
    }

    #[test]
    fn an_account_ends_at_the_last_at_sign() {
        assert_eq!(split_name("camcops@10.0.0.%").unwrap(), ("camcops", "10.0.0.%"));
        assert!(split_name("camcops").is_err());
    }
}
