//! The broker: a login as the application, and a channel on its vhost.

mod greeting;

use super::tls::{self, Authority};
use super::{
    Address, Answer, Cause, Patience, Trouble, connected, find, io_trouble, password, unanswered,
};
use crate::keys::Secret;
use crate::settings::Mode;
use crate::site::Site;
use anyhow::Result;
use async_compat::CompatExt;
use async_rs::Runtime;
use greeting::Greeting;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::uri::{AMQPAuthority, AMQPUri, AMQPUserInfo};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties, ErrorKind};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A vhost, and how the application gets to it.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Where the server is.
    pub address: Address,
    /// The vhost.
    pub vhost: String,
    /// The account at the broker.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// Who is trusted, if the connection is encrypted.
    pub tls: Option<Arc<ClientConfig>>,
}

impl Endpoint {
    /// What the settings and the secrets of a site say.
    pub fn of(site: &Site) -> Result<Endpoint> {
        let broker = &site.settings().broker;
        let slug = &site.layout.slug;
        let (host, setting) = match broker.mode {
            Mode::Local => ("127.0.0.1", "broker.port"),
            Mode::External => (broker.host.as_str(), "broker.host"),
        };
        let tls = match (broker.tls, &broker.tls_ca) {
            (false, _) => None,
            (true, Some(path)) => {
                let authority = Authority::read("broker.tls_ca", path)?;
                Some(tls::client(Some(&authority))?)
            }
            (true, None) => Some(tls::client(None)?),
        };
        Ok(Endpoint {
            address: Address::Tcp {
                host: host.to_owned(),
                port: broker.port_number(),
                setting,
            },
            vhost: broker.vhost_or(slug).to_owned(),
            user: broker.user_or(slug).to_owned(),
            password: password(
                site,
                "broker.password_file",
                broker.password_file.as_ref(),
                "broker",
            )?,
            tls,
        })
    }

    /// Logs in once and opens a channel on the vhost.
    pub async fn answers(&self, patience: Duration) -> Result<Answer, Trouble> {
        let patience = Patience::new(patience);
        let place = self.address.to_string();
        let Address::Tcp {
            host,
            port,
            setting,
        } = &self.address
        else {
            return Err(Trouble::new(Cause::Other, &place, "a broker has no socket"));
        };
        let stream = connected(&place, host, *port, setting, patience).await?;
        let greeting = Greeting::default();
        let asked = async {
            let ours = match &self.tls {
                None => greeting.overheard(stream),
                Some(tls) => {
                    let stream = self.encrypted(&place, host, tls, stream).await?;
                    greeting.overheard(stream)
                }
            };
            let ours = ours.map_err(|why| io_trouble(&place, &why))?;
            self.talk(ours)
                .await
                .map_err(|why| self.trouble(&place, &greeting, &why))
        };
        match patience.bears(asked).await {
            Ok(Ok(())) => Ok(greeting.answer()),
            Ok(Err(trouble)) => Err(trouble),
            Err(_) if greeting.is_empty() => Err(Trouble::new(
                Cause::SomethingElse,
                &place,
                format_args!(
                    "something listens there but does not answer as a broker does, within {}; check broker.host and broker.port",
                    patience
                ),
            )),
            Err(_) => Err(unanswered(&place, patience)),
        }
    }

    async fn encrypted(
        &self,
        place: &str,
        host: &str,
        tls: &Arc<ClientConfig>,
        stream: TcpStream,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Trouble> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|why| Trouble::new(Cause::WrongName, place, why))?;
        let connector = TlsConnector::from(Arc::clone(tls));
        connector
            .connect(name, stream)
            .await
            .map_err(|why| match find::<rustls::Error>(&why) {
                Some(why) => tls::trouble(place, "broker", host, why),
                None => io_trouble(place, &why),
            })
    }

    async fn talk(&self, stream: TcpStream) -> lapin::Result<()> {
        let uri = AMQPUri {
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo {
                    username: self.user.clone(),
                    password: self.password.reveal().to_owned(),
                },
                ..AMQPAuthority::default()
            },
            vhost: self.vhost.clone(),
            ..AMQPUri::default()
        };
        let stream = Mutex::new(Some(stream));
        let connect =
            async move |_, _| match stream.lock().unwrap_or_else(PoisonError::into_inner).take() {
                Some(stream) => Ok(AsyncTcpStream::Plain(stream.compat())),
                None => Err(io::Error::from(io::ErrorKind::ConnectionAborted).into()),
            };
        let named = ConnectionProperties::default()
            .with_connection_name(concat!(env!("CARGO_PKG_NAME"), " probe").into());
        let connection =
            Connection::connector(uri, Runtime::tokio_current(), connect, named).await?;
        connection.create_channel().await?;
        // All is proved by now; closing properly only keeps the broker's log clean.
        let _ = connection.close(200, "OK".into()).await;
        Ok(())
    }

    fn trouble(&self, place: &str, greeting: &Greeting, why: &lapin::Error) -> Trouble {
        let (user, vhost) = (&self.user, &self.vhost);
        let tell = |cause, text: String| Trouble::new(cause, place, text);
        if let Some(what) = greeting.strange() {
            return tell(
                Cause::SomethingElse,
                format!(
                    "what listens there is {what}; check broker.host, broker.port and broker.tls"
                ),
            );
        }
        let refusal = match why.kind() {
            ErrorKind::ProtocolError(refusal) => refusal,
            ErrorKind::IOError(why) => return io_trouble(place, why),
            other => return tell(Cause::Other, format!("{other:?}")),
        };
        let said = refusal.get_message();
        match refusal.kind() {
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => tell(
                Cause::Denied,
                format!(
                    "the broker refuses the account {user} or its password; check broker.user and the password file, or run `camcops-provision install`"
                ),
            ),
            AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED)
                if said.as_str().contains("not found") =>
            {
                tell(
                    Cause::NoVhost,
                    format!(
                        "there is no vhost {vhost}; check broker.vhost, or run `camcops-provision install`"
                    ),
                )
            }
            AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) if said.as_str().contains("refused") => {
                tell(
                    Cause::NoVhost,
                    format!(
                        "the account {user} may not use the vhost {vhost}; run `camcops-provision install`, or give it the permissions there"
                    ),
                )
            }
            AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => tell(
                Cause::Busy,
                format!("the broker takes no more connections: {said}"),
            ),
            AMQPErrorKind::Hard(AMQPHardError::CONNECTIONFORCED | AMQPHardError::INTERNALERROR) => {
                tell(
                    Cause::Busy,
                    format!("the broker is starting or stopping: {said}"),
                )
            }
            _ => tell(Cause::Other, format!("the broker says: {said}")),
        }
    }
}
