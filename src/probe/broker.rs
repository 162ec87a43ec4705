//! The broker: a login as the application, a channel on its vhost, and a message through it.

mod greeting;
mod workers;

use super::tls::{self, Authority};
use super::{Address, Answer, Cause, Patience, Trouble, connect_to, find_cause, io_trouble, no_answer, read_password};
use crate::base::secret::Secret;
use crate::host::Host;
use crate::layout::Layout;
use crate::settings::{Mode, Settings};
use anyhow::Result;
use async_compat::CompatExt;
use async_rs::Runtime;
use greeting::Greeting;
use lapin::options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::types::FieldTable;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPUri, AMQPUserInfo};
use lapin::{AsyncTcpStream, BasicProperties, Channel, Connection, ConnectionProperties, ErrorKind};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::Serialize;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// How long a connection may take to be closed.
const GOODBYE: Duration = Duration::from_millis(500);

/// The longest frame: the library keeps room for many of them, and ours are short.
const FRAME: u32 = 16 << 10;

/// A vhost, and how the application gets to it.
#[derive(Debug, Clone)]
pub(crate) struct BrokerAddress {
    /// Where the server is.
    pub(crate) address: Address,
    pub(crate) vhost: String,
    /// The account at the broker.
    pub(crate) user: String,
    pub(crate) password: Secret,
    /// Who is trusted, if the connection is encrypted.
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

/// A queue of the broker.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Queue {
    /// How many tasks nobody has taken yet.
    pub(crate) waiting: u32,
    /// How many workers take from it.
    pub(crate) consumers: u32,
}

/// How a queue stands; nothing if there is none. The channel is closed then.
async fn look_at(channel: &Channel, name: &str) -> lapin::Result<Option<Queue>> {
    let only_look = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let asked = channel.queue_declare(name.into(), only_look, FieldTable::default());
    match asked.await {
        Ok(queue) => Ok(Some(Queue { waiting: queue.message_count(), consumers: queue.consumer_count() })),
        Err(why) if is_not_there(&why) => Ok(None),
        Err(why) => Err(why),
    }
}

/// Why a talk with the broker came to nothing.
enum BrokerFailure {
    Lapin(lapin::Error),
    Told(Trouble),
}

impl From<lapin::Error> for BrokerFailure {
    fn from(why: lapin::Error) -> BrokerFailure {
        BrokerFailure::Lapin(why)
    }
}

impl From<Trouble> for BrokerFailure {
    fn from(why: Trouble) -> BrokerFailure {
        BrokerFailure::Told(why)
    }
}

/// Whether the broker says that there is no such thing. It closes the channel then, perhaps a moment later.
fn is_not_there(why: &lapin::Error) -> bool {
    match why.kind() {
        ErrorKind::ProtocolError(refusal) => refusal.get_id() == 404,
        ErrorKind::InvalidChannelState(..) => true,
        _ => false,
    }
}

impl BrokerAddress {
    /// What the settings and the secrets of a site say.
    pub(crate) fn of(host: &Host, settings: &Settings, layout: &Layout) -> Result<BrokerAddress> {
        let password = read_password(
            host,
            &layout.secrets,
            "broker.password_file",
            settings.broker.password_file.as_ref(),
            "broker",
        )?;
        BrokerAddress::with(settings, layout, password)
    }

    /// The same with a password that may not be kept anywhere yet.
    pub(crate) fn with(settings: &Settings, layout: &Layout, password: Secret) -> Result<BrokerAddress> {
        let broker = &settings.broker;
        let slug = &layout.slug;
        let (host, setting) = match broker.mode {
            Mode::Local => ("127.0.0.1", "broker.port"),
            Mode::External => (broker.host.as_str(), "broker.host"),
        };
        let tls = match (broker.tls, &broker.tls_ca) {
            (false, _) => None,
            (true, Some(path)) => {
                let authority = Authority::read("broker.tls_ca", path)?;
                Some(tls::client_config(Some(&authority))?)
            }
            (true, None) => Some(tls::client_config(None)?),
        };
        Ok(BrokerAddress {
            address: Address::Tcp { host: host.to_owned(), port: broker.port_number(), setting },
            vhost: broker.vhost_or(slug).to_owned(),
            user: broker.user_or(slug).to_owned(),
            password,
            tls,
        })
    }

    /// What a case has in place of a broker.
    #[cfg(test)]
    fn played(&self, what: &str) -> Option<Result<Answer, Trouble>> {
        let (place, user, vhost) = (self.address.to_string(), &self.user, &self.vhost);
        let password = self.password.reveal();
        let text = format!("{place}, vhost {vhost}, {user} with {password}: {what}");
        let refused = |_, said: String| Trouble::new(Cause::Other, &place, said);
        super::played("amqp", &text, &place, refused)
    }

    /// Whether anything listens there.
    pub(crate) async fn is_open(&self, patience: Duration) -> bool {
        let Address::Tcp { host, port, .. } = &self.address else {
            return false;
        };
        #[cfg(test)]
        if let Some(answer) = self.played("connect to it") {
            return answer.is_ok();
        }
        let connecting = TcpStream::connect((host.as_str(), *port));
        matches!(Patience::new(patience).bears(connecting).await, Ok(Ok(_)))
    }

    /// Logs in once and opens a channel on the vhost.
    pub(crate) async fn answers(&self, patience: Duration) -> Result<Answer, Trouble> {
        let channel = async |connection: &Connection| {
            connection.create_channel().await?;
            Ok(())
        };
        let (answer, ()) = self.talk_of(patience, channel).await?;
        Ok(answer)
    }

    /// Logs in once, makes a queue of its own on the vhost, and sends a message there and back.
    pub(crate) async fn round_trip(&self, patience: Duration) -> Result<Answer, Trouble> {
        #[cfg(test)]
        if let Some(answer) = self.played("a message there and back") {
            return answer;
        }
        let message = async |connection: &Connection| {
            let channel = connection.create_channel().await?;
            Ok(self.there_and_back(&channel).await?)
        };
        let (answer, ()) = self.talk_of(patience, message).await?;
        Ok(answer)
    }

    /// The same, and how a queue of the vhost stands; nothing where there is no such queue.
    pub(crate) async fn round_trip_and(
        &self,
        name: &str,
        patience: Duration,
    ) -> Result<(Answer, Option<Queue>), Trouble> {
        let both = async |connection: &Connection| {
            let channel = connection.create_channel().await?;
            self.there_and_back(&channel).await?;
            Ok(look_at(&channel, name).await?)
        };
        self.talk_of(patience, both).await
    }

    /// Whether a worker answers a ping through the broker whose name ends with `here` and is right before that: every
    /// worker hears it.
    pub(crate) async fn is_worker_there(
        &self,
        patience: Duration,
        here: &str,
        is_it: impl Fn(&str) -> bool,
    ) -> Result<bool, Trouble> {
        #[cfg(test)]
        if let Some(answer) = self.played("a ping to all workers") {
            let names = answer?.product.replace("@HERE", here);
            return Ok(names.lines().filter_map(|name| name.strip_suffix(here)).any(is_it));
        }
        let reply = patience.mul_f32(0.8);
        let is_it = |name: &str| name.strip_suffix(here).is_some_and(&is_it);
        let ping = async |connection: &Connection| Ok(workers::ping_workers(connection, reply, is_it).await?);
        let (_, is_there) = self.talk_of(patience, ping).await?;
        Ok(is_there)
    }

    /// What waits in a queue of the vhost; nothing if there is no such queue.
    pub(crate) async fn queue(&self, name: &str, patience: Duration) -> Result<Option<Queue>, Trouble> {
        let look = async |connection: &Connection| {
            let channel = connection.create_channel().await?;
            Ok(look_at(&channel, name).await?)
        };
        let (_, queue) = self.talk_of(patience, look).await?;
        Ok(queue)
    }

    /// Logs in once and does something with the connection.
    async fn talk_of<T>(
        &self,
        patience: Duration,
        what: impl AsyncFnOnce(&Connection) -> Result<T, BrokerFailure>,
    ) -> Result<(Answer, T), Trouble> {
        let patience = Patience::new(patience);
        let place = self.address.to_string();
        let Address::Tcp { host, port, setting } = &self.address else {
            return Err(Trouble::new(Cause::Other, &place, "a broker has no socket"));
        };
        let stream = connect_to(&place, host, *port, setting, patience).await?;
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
            let result = self.talk(ours, what).await;
            result.map_err(|why| match why {
                BrokerFailure::Lapin(why) => self.trouble(&place, &greeting, &why),
                BrokerFailure::Told(trouble) => trouble,
            })
        };
        match patience.bears(asked).await {
            Ok(Ok(result)) => Ok((greeting.answer(), result)),
            Ok(Err(trouble)) => Err(trouble),
            Err(_) if greeting.is_empty() => Err(Trouble::new(
                Cause::SomethingElse,
                &place,
                format_args!(
                    "something listens there but does not answer like a broker within {}; check broker.host and broker.port",
                    patience
                ),
            )),
            Err(_) => Err(no_answer(&place, patience)),
        }
    }

    async fn encrypted(
        &self,
        place: &str,
        host: &str,
        tls: &Arc<ClientConfig>,
        stream: TcpStream,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Trouble> {
        let name = ServerName::try_from(host.to_owned()).map_err(|why| Trouble::new(Cause::WrongName, place, why))?;
        let connector = TlsConnector::from(Arc::clone(tls));
        connector.connect(name, stream).await.map_err(|why| match find_cause::<rustls::Error>(&why) {
            Some(why) => tls::tls_trouble(place, "broker", host, why),
            None => io_trouble(place, &why),
        })
    }

    async fn talk<T>(
        &self,
        stream: TcpStream,
        what: impl AsyncFnOnce(&Connection) -> Result<T, BrokerFailure>,
    ) -> Result<T, BrokerFailure> {
        let uri = AMQPUri {
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo { username: self.user.clone(), password: self.password.reveal().to_owned() },
                ..AMQPAuthority::default()
            },
            vhost: self.vhost.clone(),
            query: AMQPQueryString { frame_max: Some(FRAME), ..AMQPQueryString::default() },
            ..AMQPUri::default()
        };
        let stream = Mutex::new(Some(stream));
        let connect = async move |_, _| match stream.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(stream) => Ok(AsyncTcpStream::Plain(stream.compat())),
            None => Err(io::Error::from(io::ErrorKind::ConnectionAborted).into()),
        };
        let named =
            ConnectionProperties::default().with_connection_name(concat!(env!("CARGO_PKG_NAME"), " probe").into());
        let connection = Connection::connector(uri, Runtime::tokio_current(), connect, named).await?;
        let result = what(&connection).await?;
        // All is proved by now; closing properly only keeps the broker's log clean. The library's own thread may end
        // before it says that it has done so, and then that is never said.
        let _ = timeout(GOODBYE, connection.close(200, "OK".into())).await;
        Ok(result)
    }

    /// A message through a queue that nobody else sees, and that goes with the connection.
    async fn there_and_back(&self, channel: &Channel) -> Result<(), Trouble> {
        let place = &self.address.to_string();
        let refused = |why: lapin::Error| {
            let said = match why.kind() {
                ErrorKind::ProtocolError(refusal) => refusal.get_message().to_string(),
                other => format!("{other:?}"),
            };
            Trouble::new(
                Cause::NoVhost,
                place,
                format_args!(
                    "the account {} can log in, but a test message does not get through its vhost {}: {said}; give it the permissions to configure, write and read there (`.*` each)",
                    self.user, self.vhost
                ),
            )
        };
        let own = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        let queue = channel.queue_declare("".into(), own, FieldTable::default()).await.map_err(refused)?;
        let (name, message) = (queue.name(), b"camcops-provision".as_slice());
        let mandatory = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(refused)?;
        channel
            .basic_publish("".into(), name.clone(), mandatory, message, BasicProperties::default())
            .await
            .map_err(refused)?
            .await
            .map_err(refused)?;
        let got = channel.basic_get(name.clone(), BasicGetOptions { no_ack: true }).await.map_err(refused)?;
        match got.is_some_and(|got| got.delivery.data == message) {
            true => Ok(()),
            false => Err(Trouble::new(
                Cause::Other,
                place,
                "a test message was accepted but not delivered; see the broker's log",
            )),
        }
    }

    fn trouble(&self, place: &str, greeting: &Greeting, why: &lapin::Error) -> Trouble {
        let (user, vhost) = (&self.user, &self.vhost);
        let tell = |cause, text: String| Trouble::new(cause, place, text);
        if let Some(what) = greeting.strange() {
            return tell(
                Cause::SomethingElse,
                format!("{what} listens there; check broker.host, broker.port and broker.tls"),
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
            AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) if said.as_str().contains("not found") => tell(
                Cause::NoVhost,
                format!("there is no vhost {vhost}; check broker.vhost, or run `camcops-provision install`"),
            ),
            AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) if said.as_str().contains("refused") => tell(
                Cause::NoVhost,
                format!(
                    "the account {user} may not use the vhost {vhost}; run `camcops-provision install`, or give it the permissions there"
                ),
            ),
            AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => {
                tell(Cause::Busy, format!("the broker accepts no more connections: {said}"))
            }
            AMQPErrorKind::Hard(AMQPHardError::CONNECTIONFORCED | AMQPHardError::INTERNALERROR) => {
                tell(Cause::Busy, format!("the broker is starting or stopping: {said}"))
            }
            _ => tell(Cause::Other, format!("the broker says: {said}")),
        }
    }
}
