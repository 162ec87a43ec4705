//! The clients of the database server: the same family's, logged in by a file that only root can read.

use crate::base::error::Exit;
use crate::host::{Child, Host};
use crate::probe::Address;
use crate::probe::database::{DatabaseAddress, Encryption, Login};
use crate::site::facts::DatabaseFamily;
use anyhow::Result;
use std::fmt::Write as _;
use zeroize::Zeroizing;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientPurpose {
    /// To write out what is in a database.
    Dump,
    /// To read it in again.
    Load,
}

/// How clients log in. The file goes when nobody needs it any more.
#[derive(Debug)]
pub(crate) struct ClientLogin<'a> {
    host: &'a Host,
    family: DatabaseFamily,
    login: String,
    authority: Option<String>,
}

impl<'a> ClientLogin<'a> {
    /// Writes down how an account logs in; the name tells these files from others'.
    pub(crate) fn new(
        host: &'a Host,
        endpoint: &DatabaseAddress,
        family: DatabaseFamily,
        name: &str,
    ) -> Result<ClientLogin<'a>> {
        let options = client_options(endpoint, family)?;
        let mut way = ClientLogin { host, family, login: host.runtime_file(&format!("{name}.cnf"))?, authority: None };
        host.put_file(&way.login, options.as_bytes(), Some((0, 0)), 0o600)?;
        if let Encryption::Verify(authority) = &endpoint.encryption {
            let path = host.runtime_file(&format!("{name}.pem"))?;
            host.put_file(&path, &authority.pem, Some((0, 0)), 0o600)?;
            way.authority = Some(path);
        }
        Ok(way)
    }

    /// A client that logs in this way.
    pub(crate) fn client(&self, program: &'a str) -> Child<'a> {
        self.host.child(program).bare().args(self.arguments())
    }

    /// What makes a client log in this way.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let login = format!("--defaults-file={}", self.login);
        let authority = self.authority.as_ref().map(|authority| format!("--ssl-ca={authority}"));
        [login].into_iter().chain(authority).collect()
    }

    /// Which of the clients there is: the other family's may not understand its own server.
    pub(crate) fn program(&self, purpose: ClientPurpose) -> Result<&'static str> {
        let programs: &[&str] = match (self.family, purpose) {
            (DatabaseFamily::Mariadb, ClientPurpose::Dump) => &["mariadb-dump", "mysqldump"],
            (DatabaseFamily::Mysql, ClientPurpose::Dump) => &["mysqldump"],
            (DatabaseFamily::Mariadb, ClientPurpose::Load) => &["mariadb", "mysql"],
            (DatabaseFamily::Mysql, ClientPurpose::Load) => &["mysql"],
        };
        let vendor = match self.family {
            DatabaseFamily::Mariadb => "MariaDB",
            DatabaseFamily::Mysql => "MySQL",
        };
        for program in programs {
            let Ok(said) = self.host.child(program).args(["--version"]).run() else {
                continue;
            };
            if said.contains("MariaDB") == (self.family == DatabaseFamily::Mariadb) {
                return Ok(program);
            }
        }
        Err(Exit::Unreachable
            .because(format!("{} of {vendor} is not on this machine; install {vendor}'s client programs", programs[0])))
    }
}

impl Drop for ClientLogin<'_> {
    fn drop(&mut self) {
        // What can't be removed is overwritten by the next one, and gone with the next boot.
        let _ = self.host.remove_file(&self.login);
        if let Some(authority) = &self.authority {
            let _ = self.host.remove_file(authority);
        }
    }
}

/// How we are logged in ourselves, as the clients read it.
fn client_options(endpoint: &DatabaseAddress, family: DatabaseFamily) -> Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::from("[client]\n"));
    let _ = writeln!(text, "user = {}", &*quote_option(&endpoint.user));
    if let Login::Password(password) = &endpoint.login {
        let _ = writeln!(text, "password = {}", &*quote_option(password.reveal()));
    }
    match &endpoint.address {
        Address::Socket(path) => {
            let _ = writeln!(text, "socket = {}", &*quote_option(path));
        }
        Address::Tcp { host, port, .. } => {
            let _ = writeln!(text, "host = {}\nport = {port}\nprotocol = tcp", &*quote_option(host));
        }
    }
    let socket = matches!(endpoint.address, Address::Socket(_));
    let tls = match (family, &endpoint.encryption) {
        (DatabaseFamily::Mysql, _) if socket => "",
        // Newer ones would check the server's certificate even here.
        (DatabaseFamily::Mariadb, Encryption::Off) => "skip-ssl\n",
        (DatabaseFamily::Mariadb, Encryption::Required) => "ssl\nskip-ssl-verify-server-cert\n",
        (DatabaseFamily::Mariadb, Encryption::Verify(_)) => "ssl\nssl-verify-server-cert\n",
        (DatabaseFamily::Mysql, Encryption::Off) => "ssl-mode = DISABLED\nget-server-public-key\n",
        (DatabaseFamily::Mysql, Encryption::Required) => "ssl-mode = REQUIRED\n",
        (DatabaseFamily::Mysql, Encryption::Verify(_)) => "ssl-mode = VERIFY_IDENTITY\n",
    };
    text.push_str(tls);
    Ok(text)
}

fn quote_option(value: &str) -> Zeroizing<String> {
    let escaped = value.replace('\\', r"\\").replace('"', "\\\"");
    Zeroizing::new(format!("\"{escaped}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_password_stands_in_quotes() {
        assert_eq!(*quote_option(r#"a"b\c # d"#), r#""a\"b\\c # d""#);
    }
}
