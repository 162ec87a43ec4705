//! The database: a login as the application, and a query in its database.

use super::tls::{self, Authority};
use super::{
    Address, Answer, Cause, Patience, Trouble, find_cause, io_trouble, no_answer, read_password, resolve_host,
};
use crate::base::error::Exit;
use crate::base::secret::Secret;
use crate::host::Host;
use crate::host::own_program;
use crate::layout::Layout;
use crate::settings::{self, DatabaseTls, Mode};
use anyhow::{Context, Result};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, Opts, OptsBuilder, ServerError, SslOpts};
use nix::unistd::{getegid, geteuid};
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Of a process of another account no more is read.
const LARGEST_ANSWER: u64 = 64 << 10;

/// How the connection is encrypted.
#[derive(Debug, Clone)]
pub(crate) enum Encryption {
    Off,
    /// Encrypted, whoever answers.
    Required,
    /// Encrypted, and the certificate is checked against this authority.
    Verify(Authority),
}

/// How the application logs in.
#[derive(Debug, Clone)]
pub(crate) enum Login {
    Password(Secret),
    /// By the account that its process runs as.
    Account {
        uid: u32,
        gid: u32,
    },
}

/// A database, and how the application gets to it.
#[derive(Debug, Clone)]
pub(crate) struct DatabaseAddress {
    /// Where the server is.
    pub(crate) address: Address,
    /// The name of the database.
    pub(crate) database: String,
    /// The account in the database.
    pub(crate) user: String,
    /// How it logs in.
    pub(crate) login: Login,
    /// How the connection is encrypted.
    pub(crate) encryption: Encryption,
}

impl DatabaseAddress {
    /// What the settings and the secrets of a site say; `account` is the one that logs in by itself alone, if one does.
    pub(crate) fn of(
        host: &Host,
        database: &settings::Database,
        layout: &Layout,
        account: Option<&str>,
    ) -> Result<DatabaseAddress> {
        let (user, login) = match account {
            Some(account) => {
                let owner = host.accounts.owner(&format!("{account}:{account}"));
                let (uid, gid) = owner.ok_or_else(|| {
                    Exit::Failed.because(format!(
                        "the account {account} does not exist yet: run `camcops-provision install` first"
                    ))
                })?;
                (account, Login::Account { uid, gid })
            }
            None => (
                database.user_or(&layout.slug),
                Login::Password(read_password(
                    host,
                    &layout.secrets,
                    "database.password_file",
                    database.password_file.as_ref(),
                    "database",
                )?),
            ),
        };
        let name = database.name_or(&layout.slug).to_owned();
        DatabaseAddress::with(database, name, user.to_owned(), login)
    }

    /// A database of the same server, with a login that may not be kept anywhere yet.
    pub(crate) fn with(
        database: &settings::Database,
        name: String,
        user: String,
        login: Login,
    ) -> Result<DatabaseAddress> {
        let address = match database.mode {
            Mode::Local => Address::Socket(database.socket.as_str().to_owned()),
            Mode::External => Address::Tcp {
                host: database.host.as_str().to_owned(),
                port: database.port.get(),
                setting: "database.host",
            },
        };
        let encryption = match (database.tls, &database.tls_ca) {
            (DatabaseTls::Off, _) => Encryption::Off,
            (DatabaseTls::Required, _) => Encryption::Required,
            (DatabaseTls::Verify, authority) => {
                // The settings are checked: "verify" has one.
                let path = authority.as_ref().context("database.tls_ca is not set")?;
                Encryption::Verify(Authority::read("database.tls_ca", path)?)
            }
        };
        Ok(DatabaseAddress { address, database: name, user, login, encryption })
    }

    /// A connection that stays open, after these statements. Without a name of a database it is in none.
    pub(crate) async fn connect(&self, patience: Duration, first: &[&str]) -> Result<Conn, Trouble> {
        let patience = Patience::new(patience);
        let place = self.address.to_string();
        let (options, host) = self.options(&place, patience).await?;
        let first: Vec<String> = first.iter().map(|each| (*each).to_owned()).collect();
        let options = OptsBuilder::from_opts(options).init(first);
        match patience.bears(Conn::new(options)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(why)) => Err(self.trouble(&place, host, &why)),
            Err(_) => Err(self.silence(&place, patience).await),
        }
    }

    /// Logs in once and asks for the version, in the application's database.
    ///
    /// An account that logs in by its socket can only do so from a process of its own, so that root starts one for it.
    pub(crate) async fn answers(&self, patience: Duration) -> Result<Answer, Trouble> {
        #[cfg(test)]
        if let Some(answer) = self.played() {
            return answer;
        }
        let patience = Patience::new(patience);
        match (&self.login, &self.address) {
            (Login::Account { uid, gid }, Address::Socket(socket)) if geteuid().is_root() => {
                self.asked_as(*uid, *gid, socket, patience).await
            }
            _ => self.asked(patience).await,
        }
    }

    /// The login that a case has in place of a server.
    #[cfg(test)]
    pub(crate) fn played(&self) -> Option<Result<Answer, Trouble>> {
        let place = self.address.to_string();
        let how = match &self.login {
            Login::Password(password) => format!("with {}", password.reveal()),
            Login::Account { .. } => "as the account of its process".into(),
        };
        let what = match self.database.as_str() {
            "" => place.clone(),
            database => format!("{place}, database {database}"),
        };
        let text = format!("{} at {what}, {how}", self.user);
        let refused = |code, message| {
            let state = "HY000".into();
            let why = mysql_async::Error::Server(ServerError { code, message, state });
            self.trouble(&place, &place, &why)
        };
        super::played("login", &text, &place, refused)
    }

    async fn asked(&self, patience: Patience) -> Result<Answer, Trouble> {
        let place = self.address.to_string();
        let (options, host) = self.options(&place, patience).await?;
        match patience.bears(first_words(options)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(why)) => Err(self.trouble(&place, host, &why)),
            Err(_) => Err(self.silence(&place, patience).await),
        }
    }

    async fn options(&self, place: &str, patience: Patience) -> Result<(Opts, &str), Trouble> {
        let options = OptsBuilder::default()
            .user(Some(&self.user))
            .db_name(Some(&self.database).filter(|name| !name.is_empty()))
            .pass(match &self.login {
                Login::Password(password) => Some(password.reveal()),
                Login::Account { .. } => None,
            })
            // Without these, the first thing would be to ask the server for them.
            .max_allowed_packet(Some(1 << 20))
            .wait_timeout(Some(60))
            // A port that was asked for must not turn into a socket.
            .prefer_socket(false)
            .stmt_cache_size(0);
        let (options, host) = match &self.address {
            Address::Socket(path) => (options.socket(Some(path)), path.as_str()),
            Address::Tcp { host, port, setting } => {
                let found = resolve_host(place, host, *port, setting, patience).await?;
                let addresses: Vec<_> = found.iter().map(|address| address.ip()).collect();
                let options = options.ip_or_hostname(host).tcp_port(*port).resolved_ips(Some(addresses));
                (options, host.as_str())
            }
        };
        let encryption = match &self.encryption {
            Encryption::Off => None,
            Encryption::Required => {
                Some(SslOpts::default().with_danger_accept_invalid_certs(true).with_danger_skip_domain_validation(true))
            }
            Encryption::Verify(authority) => Some(
                SslOpts::default()
                    .with_disable_built_in_roots(true)
                    .with_root_certs(vec![authority.pem.clone().into()]),
            ),
        };
        if encryption.is_some() {
            tls::use_ring();
        }
        Ok((options.ssl_opts(encryption).into(), host))
    }

    /// The same from a process of that account.
    async fn asked_as(&self, uid: u32, gid: u32, socket: &str, patience: Patience) -> Result<Answer, Trouble> {
        let other = |why: &str| Trouble::new(Cause::Other, socket, why);
        let words = ["login", socket, &self.user, &self.database];
        let child = own_program::ask_as((uid, gid), &words, LARGEST_ANSWER);
        match patience.bears(child).await {
            Err(_) => Err(no_answer(socket, patience)),
            Ok(Err(why)) => Err(other(&format!("a process of the account {} can't be started: {why}", self.user))),
            Ok(Ok(said)) => serde_json::from_slice(&said)
                .unwrap_or_else(|_| Err(other(&format!("the process of the account {} did not answer", self.user)))),
        }
    }

    /// What went wrong, in the words of somebody who has to mend it.
    pub(crate) fn trouble(&self, place: &str, host: &str, why: &mysql_async::Error) -> Trouble {
        use mysql_async::Error as E;
        let tell = |cause, text: String| Trouble::new(cause, place, text);
        let something_else = || {
            tell(
                Cause::SomethingElse,
                "what listens there is not a MySQL or MariaDB server; check database.host and database.port".into(),
            )
        };
        if let Some(why) = find_cause::<rustls::Error>(why) {
            return tls::tls_trouble(place, "database", host, why);
        }
        match why {
            E::Server(why) => self.refusal(place, why),
            E::Driver(DriverError::NoClientSslFlagFromServer) => {
                tell(Cause::NoTls, "the server does not offer TLS; enable it there, or change database.tls".into())
            }
            E::Driver(DriverError::UnknownAuthPlugin { name }) => tell(
                Cause::Denied,
                format!(
                    "the account {} uses the authentication plugin {name}, which is not supported; give it a password",
                    self.user
                ),
            ),
            E::Driver(DriverError::ConnectionClosed) => io_trouble(place, &io::ErrorKind::UnexpectedEof.into()),
            E::Driver(
                DriverError::PacketOutOfOrder
                | DriverError::UnexpectedPacket { .. }
                | DriverError::PacketTooLarge
                | DriverError::CantParseServerVersion { .. },
            ) => something_else(),
            E::Driver(other) => tell(Cause::Other, other.to_string()),
            other => match find_cause::<io::Error>(other) {
                Some(why) if packets_are_strange(why) => something_else(),
                Some(why) => io_trouble(place, why),
                None => tell(Cause::Other, other.to_string()),
            },
        }
    }

    fn refusal(&self, place: &str, why: &ServerError) -> Trouble {
        let (user, database) = (&self.user, &self.database);
        let said = &why.message;
        let (cause, text) = match why.code {
            1040 | 1203 | 1226 => (
                Cause::Busy,
                format!("the server has no connection left ({said}); raise max_connections there"),
            ),
            1053 | 1152 | 1158..=1161 => {
                (Cause::Busy, format!("the server is starting or stopping ({said})"))
            }
            1044 => (
                Cause::NoDatabase,
                format!(
                    "the account {user} may not use the database {database}, or it does not exist; run `camcops-provision install`, or grant it there"
                ),
            ),
            1049 => (
                Cause::NoDatabase,
                format!(
                    "there is no database {database}; check database.name, or run `camcops-provision install`"
                ),
            ),
            1129 => (
                Cause::Denied,
                "the server has blocked this machine after too many broken connections; flush its hosts (FLUSH HOSTS) there".into(),
            ),
            1130 => (
                Cause::Denied,
                format!("the server does not accept connections from this machine ({said}); allow them there"),
            ),
            3159 | 4031 => (
                Cause::NoTls,
                "the server requires TLS; set database.tls".into(),
            ),
            1045 | 1698 => (
                Cause::Denied,
                match &self.login {
                    Login::Password(_) => format!(
                        "the server refuses the account {user} or its password; check database.user and the password file, or run `camcops-provision install`"
                    ),
                    Login::Account { .. } => format!(
                        "the server does not accept the account {user} by the socket; run this as root, or run `camcops-provision install`"
                    ),
                },
            ),
            code => (Cause::Other, format!("the server says: {said} ({code})")),
        };
        Trouble::new(cause, place, text)
    }

    /// Who listens but does not speak first is no database; who does not even listen may be behind a firewall.
    async fn silence(&self, place: &str, patience: Patience) -> Trouble {
        let Address::Tcp { host, port, .. } = &self.address else {
            return no_answer(place, patience);
        };
        let connection = TcpStream::connect((host.as_str(), *port));
        match timeout(Duration::from_secs(1), connection).await {
            Ok(Ok(_)) => Trouble::new(
                Cause::SomethingElse,
                place,
                format_args!(
                    "something listens there but does not answer like a MySQL or MariaDB server within {}; check database.host and database.port",
                    patience
                ),
            ),
            _ => no_answer(place, patience),
        }
    }
}

/// Asks from a process that the application's account runs itself, and hence without a password.
pub(crate) async fn by_account(
    socket: &Path,
    user: &str,
    database: &str,
    patience: Duration,
) -> Result<Answer, Trouble> {
    let endpoint = DatabaseAddress {
        address: Address::Socket(socket.to_string_lossy().into_owned()),
        database: database.to_owned(),
        user: user.to_owned(),
        login: Login::Account { uid: geteuid().as_raw(), gid: getegid().as_raw() },
        encryption: Encryption::Off,
    };
    endpoint.asked(Patience::new(patience)).await
}

async fn first_words(options: Opts) -> mysql_async::Result<Answer> {
    let mut connection = Conn::new(options).await?;
    #[allow(clippy::disallowed_methods)]
    let row: Option<(String, String)> = connection.query_first("SELECT VERSION(), @@version_comment").await?;
    let (version, comment) = row.unwrap_or_default();
    // A connection that is just dropped is an aborted one in the server's log.
    let _ = connection.disconnect().await;
    Ok(parse_greeting(&version, &comment))
}

/// `10.11.6-MariaDB-0+deb12u1`, `8.4.3` with the comment `MySQL Community Server - GPL`
fn parse_greeting(version: &str, comment: &str) -> Answer {
    let product = ["MariaDB", "Percona"]
        .into_iter()
        .find(|name| version.contains(name) || comment.contains(name))
        .unwrap_or("MySQL");
    let number = version.split('-').next().unwrap_or_default();
    Answer { product: product.to_owned(), version: (!number.is_empty()).then(|| number.to_owned()) }
}

/// What a packet reader says to the greeting of something that is no database.
fn packets_are_strange(why: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, Other};
    matches!(why.kind(), InvalidData | Other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(login: Login) -> DatabaseAddress {
        DatabaseAddress {
            address: Address::Socket("/run/mysqld/mysqld.sock".into()),
            database: "camcops".into(),
            user: "ward".into(),
            login,
            encryption: Encryption::Off,
        }
    }

    fn refused(code: u16) -> Trouble {
        let login = Login::Password(Secret::new("hushhush".into()));
        let why = ServerError { code, message: "no".into(), state: "HY000".into() };
        endpoint(login).trouble("db:3306", "db", &mysql_async::Error::Server(why))
    }

    #[test]
    fn each_refusal_has_its_own_cause() {
        let causes = [
            (1040, Cause::Busy),
            (1044, Cause::NoDatabase),
            (1045, Cause::Denied),
            (1049, Cause::NoDatabase),
            (1053, Cause::Busy),
            (1129, Cause::Denied),
            (1130, Cause::Denied),
            (1698, Cause::Denied),
            (3159, Cause::NoTls),
            (1064, Cause::Other),
        ];
        for (code, cause) in causes {
            let trouble = refused(code);
            assert_eq!(trouble.cause, cause, "{trouble}");
            assert!(!trouble.text.contains("hushhush"));
        }
        assert!(!format!("{:?}", endpoint(Login::Password(Secret::new("hushhush".into())))).contains("hushhush"));
    }

    #[test]
    fn versions_of_both_families_are_read() {
        let read = |version, comment| parse_greeting(version, comment).to_string();
        assert_eq!(read("10.11.6-MariaDB-0+deb12u1", "Debian 12"), "MariaDB 10.11.6");
        assert_eq!(read("8.4.3", "MySQL Community Server - GPL"), "MySQL 8.4.3");
        assert_eq!(read("11.4.2-1", "MariaDB Server"), "MariaDB 11.4.2");
        assert_eq!(read("8.0.36-28", "Percona Server (GPL)"), "Percona 8.0.36");
    }
}
