//! The database server: who we are there, and one connection that is kept for the whole run.

use crate::base::error::Exit;
use crate::host::Host;
use crate::probe::database::{DatabaseAddress, Login};
use crate::probe::{Cause, Trouble};
use crate::site::facts::DatabaseFamily;
use anyhow::{Result, anyhow};
use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, ServerError};
use std::cell::OnceCell;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::sleep;

/// How long one answer may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long a server may take to start.
const START: Duration = Duration::from_secs(30);
/// What the server says of a statement that it can't prepare.
const NOT_PREPARED: u16 = 1295;
/// Quoting relies on the mode, and a lock that somebody holds must not hold us for a day.
const SESSION: [&str; 2] =
    ["SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_BACKSLASH_ESCAPES'", "SET SESSION lock_wait_timeout = 30"];

/// In whose name we act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Power {
    /// The server's administrator.
    Administrator,
    /// The application's own account: it can look, but others have to mend.
    Application,
}

#[derive(Debug)]
pub(crate) struct DatabaseServer {
    /// Where it is and how we log in.
    pub(crate) endpoint: DatabaseAddress,
    pub(crate) power: Power,
    pub(crate) local: bool,
    connection: Mutex<Option<SessionLink>>,
    identity: OnceCell<ServerIdentity>,
}

/// What a server says about itself and about us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerIdentity {
    pub(crate) family: DatabaseFamily,
    /// The machine that we come from, as the server sees it.
    pub(crate) client: String,
    /// The account that it takes us for, as `user@host`.
    pub(crate) account: String,
}

impl DatabaseServer {
    /// Nothing is asked yet.
    pub(crate) fn new(endpoint: DatabaseAddress, power: Power, local: bool) -> DatabaseServer {
        DatabaseServer { endpoint, power, local, connection: Mutex::new(None), identity: OnceCell::new() }
    }

    /// A connection; the one that is open already, or a new one where the server was restarted meanwhile.
    async fn connection(&self) -> Result<MutexGuard<'_, Option<SessionLink>>, Trouble> {
        let mut kept = self.connection.lock().await;
        if let Some(connection) = kept.as_mut()
            && !connection.is_alive().await
        {
            *kept = None;
        }
        if kept.is_none() {
            *kept = Some(SessionLink::open(&self.endpoint).await?);
        }
        Ok(kept)
    }

    /// Whether it can be asked; a local server that does not run may not be installed yet.
    pub(crate) async fn is_there(&self) -> Result<bool> {
        match self.connection().await {
            Ok(_) => Ok(true),
            Err(trouble) if self.local && trouble.cause == Cause::Closed => Ok(false),
            Err(trouble) => Err(self.told(&trouble)),
        }
    }

    /// Waits for a server that is just starting.
    pub(crate) async fn started(&self, host: &Host) -> Result<()> {
        let begin = Instant::now();
        loop {
            let trouble = match self.connection().await {
                Ok(_) => return Ok(()),
                Err(trouble) => trouble,
            };
            let starting = self.local && trouble.cause.passes() && is_installed(host)?;
            if !starting || begin.elapsed() > START {
                return Err(self.told(&trouble));
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    fn told(&self, trouble: &Trouble) -> anyhow::Error {
        let exit = exit_for(trouble.cause);
        if trouble.cause != Cause::Denied {
            return exit.because(format!("database {trouble}"));
        }
        let place = &self.endpoint.address;
        let user = &self.endpoint.user;
        if self.power == Power::Application {
            return exit.because(format!(
                "database {place}: the server refuses the account {user} or its password; check database.user and database.password_file (without database.admin_defaults_file the account must exist already)"
            ));
        }
        exit.because(match &self.endpoint.login {
            Login::Password(_) => format!(
                "database {place}: the server refuses its administrator {user} or the password; check database.admin_defaults_file"
            ),
            Login::Account { .. } => format!(
                "database {place}: the server does not accept {user} by the socket; set database.admin_defaults_file to an option file with an administrator's user and password, or give {user} socket authentication"
            ),
        })
    }

    pub(crate) async fn rows<T: FromRow + Send + 'static>(&self, query: &str) -> Result<Vec<T>> {
        let rows = self.rows_if_any(query, &[]).await?;
        Ok(rows.unwrap_or_default())
    }

    /// The rows of a query; nothing where the server refuses it with one of these numbers.
    pub(crate) async fn rows_if_any<T: FromRow + Send + 'static>(
        &self,
        query: &str,
        nothing: &[u16],
    ) -> Result<Option<Vec<T>>> {
        let mut kept = self.connection().await.map_err(|why| self.told(&why))?;
        // The line before has put one there.
        let connection = kept.as_mut().ok_or_else(|| anyhow!("no connection"))?;
        match connection.ask(query).await {
            Ok(rows) => Ok(Some(rows)),
            Err(mysql_async::Error::Server(why)) if nothing.contains(&why.code) => Ok(None),
            Err(mysql_async::Error::Server(why)) => Err(self.refused(&why)),
            Err(why) => {
                // The server has gone: whoever asks next connects anew.
                *kept = None;
                let place = self.endpoint.address.to_string();
                Err(self.told(&self.endpoint.trouble(&place, &place, &why)))
            }
        }
    }

    /// The only column of a query.
    pub(crate) async fn texts(&self, query: &str) -> Result<Vec<String>> {
        let rows: Vec<(String,)> = self.rows(query).await?;
        Ok(rows.into_iter().map(|(text,)| text).collect())
    }

    pub(crate) async fn row<T: FromRow + Send + 'static>(&self, query: &str) -> Result<Option<T>> {
        Ok(self.rows(query).await?.into_iter().next())
    }

    /// The number that a query asks for.
    pub(crate) async fn number(&self, query: &str) -> Result<Option<u64>> {
        Ok(self.row(query).await?.map(|(number,)| number))
    }

    pub(crate) async fn change(&self, statement: &str) -> Result<()> {
        self.rows::<mysql_async::Row>(statement).await?;
        Ok(())
    }

    /// A refusal, without the statement: that may have a password in it.
    fn refused(&self, why: &ServerError) -> anyhow::Error {
        let ServerError { code, message, .. } = why;
        let (exit, text) = match code {
            1044 | 1045 | 1142 | 1143 | 1227 | 1410 => (
                Exit::NoPermission,
                format!(
                    "{} lacks a privilege that is needed ({message}); grant it there, or have the server's administrator do it",
                    self.endpoint.user
                ),
            ),
            1819 => (
                Exit::Settings,
                format!(
                    "the password does not satisfy the server's password policy ({message}); choose another one in the password file"
                ),
            ),
            1205 => {
                (Exit::Failed, format!("another session holds a lock ({message}); end that session, and run again"))
            }
            code => (Exit::Failed, format!("the server says: {message} ({code})")),
        };
        exit.because(format!("database {}: {text}", self.endpoint.address))
    }

    /// Who it is and who we are there, asked once.
    pub(crate) async fn identity(&self) -> Result<&ServerIdentity> {
        if let Some(identity) = self.identity.get() {
            return Ok(identity);
        }
        let row: Option<(String, String, String, String)> =
            self.row("SELECT VERSION(), @@version_comment, USER(), CURRENT_USER()").await?;
        let (version, comment, user, account) = row.unwrap_or_default();
        let family = match [version, comment].iter().any(|text| text.contains("MariaDB")) {
            true => DatabaseFamily::Mariadb,
            false => DatabaseFamily::Mysql,
        };
        let client = user.rsplit_once('@').map_or("", |(_, host)| host).to_owned();
        Ok(self.identity.get_or_init(|| ServerIdentity { family, client, account }))
    }

    /// Where another account gets to a database of this server.
    pub(crate) fn address_of(&self, user: &str, login: Login, database: &str) -> DatabaseAddress {
        DatabaseAddress { database: database.to_owned(), user: user.to_owned(), login, ..self.endpoint.clone() }
    }

    /// Says goodbye: a connection that is just dropped is an aborted one in the server's log.
    pub(crate) async fn close(&self) {
        if let Some(connection) = self.connection.lock().await.take() {
            connection.close().await;
        }
    }
}

/// A connection.
#[derive(Debug)]
enum SessionLink {
    Open(Conn),
    /// What a case says of it, in place of a server.
    #[cfg(test)]
    Played,
}

impl SessionLink {
    async fn open(endpoint: &DatabaseAddress) -> Result<SessionLink, Trouble> {
        #[cfg(test)]
        if let Some(answer) = endpoint.played() {
            return answer.map(|_| SessionLink::Played);
        }
        Ok(SessionLink::Open(endpoint.connect(PATIENCE, &SESSION).await?))
    }

    async fn is_alive(&mut self) -> bool {
        match self {
            SessionLink::Open(connection) => connection.ping().await.is_ok(),
            #[cfg(test)]
            SessionLink::Played => true,
        }
    }

    async fn ask<T: FromRow + Send + 'static>(&mut self, query: &str) -> mysql_async::Result<Vec<T>> {
        if is_misread(query) {
            let why = "a text in the statement has a backslash, and the statement has a colon";
            return Err(mysql_async::Error::Other(why.into()));
        }
        match self {
            SessionLink::Open(connection) => run_query(connection, query).await,
            #[cfg(test)]
            SessionLink::Played => played::rows(query),
        }
    }

    async fn close(self) {
        match self {
            SessionLink::Open(connection) => {
                let _ = connection.disconnect().await;
            }
            #[cfg(test)]
            SessionLink::Played => {}
        }
    }
}

/// Asks one thing. The driver lets a connection take several statements in one text and can't be told not to; a text that
/// is prepared is one statement, whatever stands in the names in it.
async fn run_query<T: FromRow + Send + 'static>(connection: &mut Conn, query: &str) -> mysql_async::Result<Vec<T>> {
    let statement = match connection.prep(query).await {
        Ok(statement) => statement,
        // The server has read it to its end: it is one statement, of a kind that is never prepared.
        Err(mysql_async::Error::Server(why)) if why.code == NOT_PREPARED => {
            #[allow(clippy::disallowed_methods)]
            return connection.query(query).await;
        }
        Err(why) => return Err(why),
    };
    let rows = connection.exec(&statement, ()).await;
    let closed = connection.close(statement).await;
    let rows = rows?;
    closed?;
    Ok(rows)
}

/// Whether the driver could take a part of a text for a parameter: it reads a backslash as the start of an escape, which
/// it is not in our sessions, and then misses the end of the text.
fn is_misread(query: &str) -> bool {
    let mut quote = None;
    let mut backslash = false;
    for letter in query.chars() {
        match (quote, letter) {
            (None, '\'' | '`') => quote = Some(letter),
            (Some(open), _) if open == letter => quote = None,
            (Some('\''), '\\') => backslash = true,
            _ => {}
        }
    }
    backslash && query.contains(':')
}

/// What each trouble means to a script.
pub(crate) fn exit_for(cause: Cause) -> Exit {
    match cause {
        Cause::UnknownAuthority | Cause::WrongName | Cause::Expired | Cause::Tls => Exit::Unusable,
        Cause::NoTls | Cause::NoDatabase | Cause::NoVhost => Exit::Settings,
        Cause::Denied => Exit::NoPermission,
        _ => Exit::Unreachable,
    }
}

/// Whether this machine has a database server at all.
fn is_installed(host: &Host) -> Result<bool> {
    for path in ["/usr/sbin/mariadbd", "/usr/sbin/mysqld", "/usr/libexec/mariadbd", "/usr/libexec/mysqld"] {
        if host.stat(path)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod played {
    //! The rows that a case has for a statement.

    use crate::host::script::{self, Step};
    use mysql_async::prelude::FromRow;
    use mysql_async::{Error, ServerError, Value};
    use mysql_common::constants::ColumnType;
    use mysql_common::packets::Column;
    use mysql_common::row::new_row;
    use serde_json::Value as Json;

    pub(super) fn rows<T: FromRow>(query: &str) -> mysql_async::Result<Vec<T>> {
        let answer: Step = script::ask("sql", query)
            .ok_or_else(|| Error::Other("no case".into()))?
            .map_err(|why| Error::Other(why.into_boxed_dyn_error()))?;
        if let Some((code, message)) = answer.refused {
            let state = "HY000".into();
            return Err(Error::Server(ServerError { code, message, state }));
        }
        let rows = answer.rows.into_iter().map(|row| {
            let values: Vec<Value> = row.iter().map(value).collect();
            let columns = vec![Column::new(ColumnType::MYSQL_TYPE_STRING); values.len()];
            let row = new_row(values, columns.into());
            T::from_row_opt(row).map_err(|why| Error::Other(why.to_string().into()))
        });
        rows.collect()
    }

    fn value(cell: &Json) -> Value {
        match cell {
            Json::Number(number) => Value::Int(number.as_i64().unwrap_or_default()),
            Json::String(text) if text == "NULL" => Value::NULL,
            Json::String(text) => Value::Bytes(text.clone().into_bytes()),
            other => panic!("{other} is not a value of a column"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_text_with_a_backslash_can_be_misread() {
        for whole in [r"GRANT SELECT ON `cam\_cops`.* TO 'a:b'@'::1'", r"SELECT 'a\b'", "SELECT '12:30' FROM `a:b`"] {
            assert!(!is_misread(whole), "{whole}");
        }
        assert!(is_misread(r"SELECT 'a\', ':b'"));
        assert!(is_misread(r"SELECT 'it''s\', COUNT(*) FROM `a:b`"));
    }
}
