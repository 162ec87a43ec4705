//! The database server: a database, and the accounts that use it.
//!
//! MariaDB and MySQL are told apart by asking. A server of this machine is administered by root over its socket, or with
//! the option file of `database.admin_defaults_file`; one that is somewhere else only with that file. Without it
//! everything has to be there already, and is only checked, as the application.

pub(crate) mod account;
pub(crate) mod copy;
mod grants;
mod option_file;
mod passwords;
pub(crate) mod quote;
mod reading;
pub(crate) mod schema;
mod server;

use crate::base::error::Exit;
use crate::base::progress::Tell;
use crate::base::secret::Secret;
use crate::host::Host;
use crate::probe::database::{DatabaseAddress, Login};
use crate::resource::{Change, Resource};
use crate::settings::{self, Mode};
use crate::site::{ExistingState, Site};
use anyhow::Result;
pub(crate) use grants::{AccountPurpose, ENOUGH};
pub(crate) use reading::ALL_BUT_SECRETS;
pub(crate) use schema::{CHARSET, COLLATION, LARGE_ENOUGH};
pub(crate) use server::{DatabaseServer, Power, exit_for};
use std::rc::Rc;

/// What this driver knows of the site.
#[derive(Debug)]
pub(crate) struct Database {
    /// The server, with its one connection.
    pub(crate) server: Rc<DatabaseServer>,
    pub(crate) database: String,
    pub(crate) instance: String,
    /// What each new connection of the application reads its password from.
    pub(crate) option_file: String,
    pub(crate) tell: Tell,
    accounts: Vec<DatabaseAccount>,
}

/// An account that this instance uses.
#[derive(Debug)]
pub(crate) struct DatabaseAccount {
    /// Its name, without the host.
    pub(crate) user: String,
    pub(crate) purpose: AccountPurpose,
    way_in: WayIn,
    /// The password that is in use while another one takes its place.
    former: Option<Secret>,
    /// Whether it comes from another machine.
    is_for_others: bool,
    setting: &'static str,
    password_setting: &'static str,
}

#[derive(Debug)]
enum WayIn {
    Password(Secret),
    /// The account of this machine with the same name.
    Socket,
}

impl Database {
    /// From the settings and what was found; a connection that an earlier one opened is kept.
    pub(crate) fn new(
        host: &Host,
        site: &Site,
        found: &ExistingState,
        earlier: Option<&Database>,
        tell: Tell,
    ) -> Result<Database> {
        let settings = &site.settings().database;
        let slug = &site.layout.slug;
        let database = settings.name_or(slug).to_owned();
        let application = DatabaseAccount {
            user: site.socket_account().unwrap_or_else(|| settings.user_or(slug)).to_owned(),
            purpose: AccountPurpose::Application,
            way_in: match &found.database {
                Some(key) => WayIn::Password(key.secret.clone()),
                None => WayIn::Socket,
            },
            former: found.former_database.clone(),
            is_for_others: false,
            setting: "database.user",
            password_setting: "database.password_file",
        };
        let server = match earlier {
            Some(earlier) if earlier.server.power == Power::Administrator => Rc::clone(&earlier.server),
            _ => Rc::new(connect_server(host, settings, &application)?),
        };
        let mut accounts = vec![application];
        for reader in settings.readers() {
            let Some(key) = found.readers.get(reader.user) else { continue };
            accounts.push(DatabaseAccount {
                user: reader.user.to_owned(),
                purpose: AccountPurpose::Reading,
                way_in: WayIn::Password(key.secret.clone()),
                former: None,
                is_for_others: reader.host.is_some(),
                setting: reader.setting(),
                password_setting: reader.password_setting(),
            });
        }
        Ok(Database {
            server,
            database,
            instance: site.instance.clone(),
            option_file: site.layout.option_file.clone(),
            tell,
            accounts,
        })
    }

    /// Refuses to begin what a server that does not run would stop.
    pub(crate) async fn need_server(&self) -> Result<()> {
        match self.server.is_there().await? {
            true => Ok(()),
            false => Err(Exit::Unreachable
                .because("the database server is not running on this machine: start it, and run again")),
        }
    }

    /// Where the accounts come from, as a server on another machine sees this one.
    pub(crate) async fn client(&self) -> Result<String> {
        let identity = self.server.identity().await?;
        Ok(match self.server.power {
            Power::Administrator => identity.client.clone(),
            // The account is there already, under the name that the server has for it.
            Power::Application => identity.account.rsplit_once('@').map_or("%", |(_, host)| host).to_owned(),
        })
    }

    fn account(&self, user: &str) -> Option<&DatabaseAccount> {
        self.accounts.iter().find(|account| account.user == user)
    }

    /// How an account logs in; nothing while the account of this machine that it needs is not there.
    fn login(&self, host: &Host, account: &DatabaseAccount) -> Option<Login> {
        match &account.way_in {
            WayIn::Password(password) => Some(Login::Password(password.clone())),
            WayIn::Socket => {
                let owner = format!("{user}:{user}", user = account.user);
                let (uid, gid) = host.accounts.owner(&owner)?;
                Some(Login::Account { uid, gid })
            }
        }
    }

    /// The account with the password that another one takes the place of.
    fn former(&self, account: &DatabaseAccount) -> Option<DatabaseAddress> {
        Some(self.server.address_of(&account.user, Login::Password(account.former.clone()?), &self.database))
    }

    fn endpoint(&self, host: &Host, account: &DatabaseAccount) -> Option<DatabaseAddress> {
        Some(self.server.address_of(&account.user, self.login(host, account)?, &self.database))
    }
}

/// Who asks: root over the socket, the administrator's option file, or the application itself.
fn connect_server(host: &Host, settings: &settings::Database, application: &DatabaseAccount) -> Result<DatabaseServer> {
    let local = settings.mode == Mode::Local;
    let (power, user, login) = match (&settings.admin_defaults_file, &application.way_in) {
        (Some(path), _) => {
            let setting = "database.admin_defaults_file";
            let file = option_file::read_file(host, setting, path.as_str())?;
            let password = file.password.unwrap_or_else(|| Secret::new(String::new()));
            let user = file.user.unwrap_or_default();
            (Power::Administrator, user, Login::Password(password))
        }
        (None, WayIn::Password(password)) if !local => {
            (Power::Application, application.user.clone(), Login::Password(password.clone()))
        }
        _ => (Power::Administrator, "root".to_owned(), Login::Account { uid: 0, gid: 0 }),
    };
    let endpoint = DatabaseAddress::with(settings, String::new(), user, login)?;
    Ok(DatabaseServer::new(endpoint, power, local))
}

/// Whether others have to mend what is wrong.
fn checked_only(server: &DatabaseServer) -> bool {
    server.power == Power::Application
}

fn for_others(what: String) -> anyhow::Error {
    Exit::NoPermission.because(format!("{what} (or set database.admin_defaults_file to let camcops-provision do it)"))
}

/// Refuses, before anything is done, what could not be brought to its end: what others have to do on a server that we
/// may only look at, what an administrator of another machine's server may not do, and accounts of somebody else.
pub(crate) async fn refuse_undoable(
    known: Option<&Database>,
    host: &Host,
    changes: impl Iterator<Item = &Change>,
) -> Result<()> {
    let changes: Vec<&Change> =
        changes.filter(|change| matches!(change.resource, Resource::Schema(_) | Resource::SqlAccount(_))).collect();
    let Some(known) = known.filter(|_| !changes.is_empty()) else {
        return Ok(());
    };
    let mut for_others = Vec::new();
    for Change { resource, before, after } in changes {
        match (resource, checked_only(&known.server)) {
            (Resource::Schema(name), true) => {
                for_others.push(schema::for_others(known, name, before).to_string());
            }
            (Resource::SqlAccount(name), true) => {
                for_others.push(account::for_others(known, name, before)?.to_string());
            }
            (Resource::SqlAccount(name), false) => {
                account::refuse_account(host, known, name, before, after)?;
            }
            _ => {}
        }
    }
    if !for_others.is_empty() {
        return Err(Exit::NoPermission.because(for_others.join("\n")));
    }
    if !known.server.local {
        grants::refuse_weak_administrator(known).await?;
    }
    Ok(())
}

pub(crate) async fn tables_of(server: &DatabaseServer, database: &str) -> Result<Vec<String>> {
    server
        .texts(&format!(
            "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} AND TABLE_TYPE = 'BASE TABLE' ORDER BY TABLE_NAME",
            quote::quote_text(database)
        ))
        .await
}

/// Which of these tables a database has. A view by the name of one is none: reading it could do whatever its maker wants,
/// in the name of whoever reads.
pub(crate) async fn tables_among(server: &DatabaseServer, database: &str, names: &[&str]) -> Result<Vec<String>> {
    let names: Vec<String> = names.iter().map(|name| quote::quote_text(name)).collect();
    let rows: Vec<(String, String)> = server
        .rows(&format!(
            "SELECT TABLE_NAME, TABLE_TYPE FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} AND TABLE_NAME IN ({})",
            quote::quote_text(database),
            names.join(", ")
        ))
        .await?;
    if let Some((name, kind)) = rows.iter().find(|(_, kind)| kind != "BASE TABLE") {
        return Err(Exit::Unusable.because(format!(
            "{name} in the database {database} is not a table ({kind}) and replaces CamCOPS's own table; examine it with SHOW CREATE VIEW, drop it, and restore a backup"
        )));
    }
    Ok(rows.into_iter().map(|(name, _)| name).collect())
}

pub(crate) async fn views_of(server: &DatabaseServer, database: &str) -> Result<Vec<String>> {
    let database = quote::quote_text(database);
    server.texts(&format!("SELECT TABLE_NAME FROM information_schema.VIEWS WHERE TABLE_SCHEMA = {database}")).await
}

/// What [`others_of`] begins a trigger with.
pub(crate) const TRIGGER: &str = "trigger ";

/// What else a database has than tables: views, triggers, routines and events, each with what it is.
pub(crate) async fn others_of(server: &DatabaseServer, database: &str) -> Result<Vec<String>> {
    let database = quote::quote_text(database);
    server
        .texts(&format!(
            "SELECT CONCAT('view ', TABLE_NAME) FROM information_schema.VIEWS WHERE TABLE_SCHEMA = {database} \
             UNION ALL SELECT CONCAT('{TRIGGER}', TRIGGER_NAME) FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = {database} \
             UNION ALL SELECT CONCAT(LOWER(ROUTINE_TYPE), ' ', ROUTINE_NAME) FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = {database} \
             UNION ALL SELECT CONCAT('event ', EVENT_NAME) FROM information_schema.EVENTS WHERE EVENT_SCHEMA = {database}"
        ))
        .await
}

/// The tables of a database with a column of another collation than CamCOPS's, and the first such one.
pub(crate) async fn other_collations(server: &DatabaseServer, database: &str) -> Result<Vec<(String, String)>> {
    server
        .rows(&format!(
            "SELECT TABLE_NAME, MIN(COLLATION_NAME) FROM information_schema.COLUMNS JOIN information_schema.TABLES USING (TABLE_SCHEMA, TABLE_NAME) \
             WHERE TABLE_SCHEMA = {} AND TABLE_TYPE = 'BASE TABLE' AND COLLATION_NAME <> '{COLLATION}' GROUP BY TABLE_NAME ORDER BY TABLE_NAME",
            quote::quote_text(database)
        ))
        .await
}
