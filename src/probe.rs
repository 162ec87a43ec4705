//! Whether the database, the broker and the web server really answer: a login, a handshake, a page.
//!
//! Each has an endpoint, a plain struct made from the site, and each endpoint has `answers`, which tries once and says
//! who answered or what the [`Trouble`] is. Nothing here changes anything, and no password ever stands in a text.

pub(crate) mod broker;
pub(crate) mod database;
pub(crate) mod http;
pub(crate) mod monitor;
pub(crate) mod site;
pub(crate) mod tls;
pub(crate) mod visitor;
pub(crate) mod web;

use crate::base::error::Exit;
use crate::base::secret::Secret;
use crate::host::Host;
use crate::host::secrets::KeptSecret;
use crate::settings::{AbsolutePath, Frontend};
use crate::site::Site;
use anyhow::Result;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};

/// What an instance needs to be answered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Backend {
    /// The database: a login as the application to its database.
    Database,
    /// The broker: a login as the application, and a channel on its vhost.
    Broker,
    /// The web site: the login page, from CamCOPS's own web server and through Apache.
    Web,
}

impl Backend {
    /// All of them.
    pub(crate) const ALL: [Backend; 3] = [Backend::Database, Backend::Broker, Backend::Web];
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backend::Database => "database",
            Backend::Broker => "broker",
            Backend::Web => "web server",
        })
    }
}

/// Who answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// The name of the program, such as MariaDB.
    pub(crate) product: String,
    /// Its version, where it says so.
    pub(crate) version: Option<String>,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.product)?;
        match &self.version {
            Some(version) => write!(f, " {version}"),
            None => Ok(()),
        }
    }
}

/// What kind of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Cause {
    /// Nothing listens.
    Closed,
    /// The name does not resolve.
    UnknownName,
    /// The machine can't be reached.
    Unreachable,
    /// No answer in time.
    Silent,
    /// The server is there, but starting, stopping or full.
    Busy,
    /// Something else answers.
    SomethingElse,
    /// The server does not offer TLS.
    NoTls,
    /// The certificate is signed by somebody who is not trusted.
    UnknownAuthority,
    /// The certificate is for another name.
    WrongName,
    /// The certificate is not valid today.
    Expired,
    /// Other trouble with TLS.
    Tls,
    /// The server refuses the account or its password.
    Denied,
    /// There is no such database, or the account may not use it.
    NoDatabase,
    /// There is no such vhost, or the account may not use it.
    NoVhost,
    /// Anything else.
    Other,
}

impl Cause {
    /// Whether it goes away by itself while machines and services start.
    pub(crate) fn passes(self) -> bool {
        use Cause::{Busy, Closed, Silent, UnknownName, Unreachable};
        matches!(self, Closed | UnknownName | Unreachable | Silent | Busy)
    }
}

/// Why there is no answer: the kind, and what, where, why and what next in one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trouble {
    /// What kind.
    pub(crate) cause: Cause,
    /// For people.
    pub(crate) text: String,
}

impl Trouble {
    fn new(cause: Cause, place: &str, why: impl fmt::Display) -> Trouble {
        Trouble { cause, text: format!("{place}: {why}") }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Trouble {}

/// One of the three.
#[derive(Debug, Clone)]
pub(crate) enum Endpoint {
    /// The database.
    Database(database::DatabaseAddress),
    /// The broker.
    Broker(broker::BrokerAddress),
    /// The web server, and Apache in front of it where that is ours.
    Web(web::WebAddress, Option<site::SiteAddress>),
}

impl Endpoint {
    /// What the settings and the secrets of a site say.
    pub(crate) fn of(host: &Host, site: &Site, role: Backend) -> Result<Endpoint> {
        Ok(match role {
            Backend::Database => Endpoint::Database(database::DatabaseAddress::of(
                host,
                &site.settings().database,
                &site.layout,
                site.socket_account(),
            )?),
            Backend::Broker => Endpoint::Broker(broker::BrokerAddress::of(host, site.settings(), &site.layout)?),
            Backend::Web => {
                let settings = site.settings();
                let (name, (certificate, ..)) = (&site.names()[0], site.certificate_files());
                let front = (settings.web.frontend == Frontend::Apache)
                    .then(|| site::SiteAddress::of(settings, &site.layout, name, &certificate));
                Endpoint::Web(web::WebAddress::of(settings, &site.layout, name, &certificate), front)
            }
        })
    }

    /// Where it is.
    pub(crate) fn place(&self) -> String {
        match self {
            Endpoint::Database(endpoint) => endpoint.address.to_string(),
            Endpoint::Broker(endpoint) => endpoint.address.to_string(),
            Endpoint::Web(_, Some(front)) => front.place(),
            Endpoint::Web(server, None) => server.address.to_string(),
        }
    }

    /// Tries once.
    pub(crate) async fn answers(&self, patience: Duration) -> Result<Answer, Trouble> {
        match self {
            Endpoint::Database(endpoint) => endpoint.answers(patience).await,
            Endpoint::Broker(endpoint) => endpoint.answers(patience).await,
            Endpoint::Web(server, front) => {
                // Whoever is behind Apache says more of what is wrong than Apache can.
                let answer = server.answers(patience).await?;
                match front {
                    Some(front) => front.answers(patience).await,
                    None => Ok(answer),
                }
            }
        }
    }
}

/// What a case has in place of a server.
#[cfg(test)]
fn played(
    kind: &str,
    text: &str,
    place: &str,
    refused: impl FnOnce(u16, String) -> Trouble,
) -> Option<Result<Answer, Trouble>> {
    let step = match crate::host::script::ask(kind, text)? {
        Ok(step) => step,
        Err(why) => return Some(Err(Trouble::new(Cause::Other, place, why))),
    };
    if let Some((code, message)) = step.refused {
        return Some(Err(refused(code, message)));
    }
    let answer = Answer { product: step.output.unwrap_or_default(), version: None };
    let Some(cause) = step.trouble else {
        return Some(Ok(answer));
    };
    Some(Err(match cause.as_str() {
        "closed" => io_trouble(place, &ErrorKind::ConnectionRefused.into()),
        cause => Trouble {
            cause: serde_json::from_value(cause.into()).unwrap_or(Cause::Other),
            text: format!("{place}: {}", answer.product),
        },
    }))
}

/// How long one try may take in all.
#[derive(Debug, Clone, Copy)]
struct Patience {
    time: Duration,
    until: Instant,
}

impl Patience {
    fn new(time: Duration) -> Patience {
        Patience { time, until: Instant::now() + time }
    }

    async fn bears<F: Future>(self, work: F) -> Result<F::Output, Elapsed> {
        timeout_at(self.until, work).await
    }

    /// The same for what the system may refuse.
    async fn bears_io<T>(self, place: &str, work: impl Future<Output = io::Result<T>>) -> Result<T, Trouble> {
        match self.bears(work).await {
            Ok(done) => done.map_err(|why| io_trouble(place, &why)),
            Err(_) => Err(no_answer(place, self)),
        }
    }
}

impl fmt::Display for Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_seconds(self.time))
    }
}

/// Where something listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// A unix socket of this machine.
    Socket(String),
    /// A port.
    Tcp {
        /// Name or address of the machine.
        host: String,
        /// The port.
        port: u16,
        /// The settings that say so, for messages.
        setting: &'static str,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Socket(path) => f.write_str(path),
            Address::Tcp { host, port, .. } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
        }
    }
}

/// The application's password: the administrator's own file, or the one that `install` made.
fn read_password(
    host: &Host,
    secrets: &str,
    setting: &str,
    given: Option<&AbsolutePath>,
    name: &str,
) -> Result<Secret> {
    let key = match given {
        Some(path) => KeptSecret::given(host, setting, path.as_str()).map(Some),
        None => KeptSecret::found(host, secrets, name),
    };
    let not_allowed =
        |why: &anyhow::Error| why.chain().any(|cause| cause.downcast_ref::<Errno>() == Some(&Errno::EACCES));
    match key {
        Ok(Some(key)) => Ok(key.secret),
        Ok(None) => Err(Exit::Failed.because(format!(
            "the {name} password does not exist yet ({secrets}/{name}): run `camcops-provision install` first"
        ))),
        Err(why) if not_allowed(&why) => Err(Exit::NoPermission.because(format!("{why:#}; run it as root"))),
        Err(why) => Err(why),
    }
}

/// The addresses of a name.
async fn resolve_host(
    place: &str,
    host: &str,
    port: u16,
    setting: &str,
    patience: Patience,
) -> Result<Vec<SocketAddr>, Trouble> {
    let unknown = |why: &str| {
        Trouble::new(
            Cause::UnknownName,
            place,
            format_args!("the name {host} does not resolve{why}; check {setting} and this machine's name service"),
        )
    };
    match patience.bears(lookup_host((host, port))).await {
        Err(_) => Err(unknown(" in time")),
        Ok(Err(_)) => Err(unknown("")),
        Ok(Ok(addresses)) => {
            Some(addresses.collect::<Vec<_>>()).filter(|all| !all.is_empty()).ok_or_else(|| unknown(""))
        }
    }
}

/// A connection to a port, by name or address.
async fn connect_to(
    place: &str,
    host: &str,
    port: u16,
    setting: &str,
    patience: Patience,
) -> Result<TcpStream, Trouble> {
    let addresses = resolve_host(place, host, port, setting, patience).await?;
    let stream = patience.bears_io(place, TcpStream::connect(&*addresses)).await?;
    // Questions are small, and each waits for its answer: the kernel is not to collect them.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

fn no_answer(place: &str, patience: Patience) -> Trouble {
    Trouble::new(
        Cause::Silent,
        place,
        format_args!("no answer within {patience}; is the machine up, and does a firewall drop the connection?"),
    )
}

/// `1.5 s`
pub(crate) fn format_seconds(duration: Duration) -> String {
    match duration.as_millis() {
        whole if whole % 1000 == 0 => format!("{} s", whole / 1000),
        short if short < 1000 => format!("{short} ms"),
        _ => format!("{:.1} s", duration.as_secs_f64()),
    }
}

/// What the system says, in the words of somebody who has to mend it.
fn io_trouble(place: &str, why: &io::Error) -> Trouble {
    let (cause, text) = match why.kind() {
        ErrorKind::NotFound => (Cause::Closed, "there is no such socket; is the service started?"),
        ErrorKind::ConnectionRefused => {
            (Cause::Closed, "connection refused; is the service started, and does it listen there?")
        }
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            (Cause::Unreachable, "no route to that machine; check the network")
        }
        ErrorKind::TimedOut => {
            (Cause::Silent, "no answer; is the machine up, and does a firewall drop the connection?")
        }
        ErrorKind::PermissionDenied => (Cause::Denied, "this account may not use the socket; run this as root"),
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::UnexpectedEof => (
            Cause::Busy,
            "the connection was closed at once; is the service starting, or does another program listen there?",
        ),
        _ => return Trouble::new(Cause::Other, place, why),
    };
    Trouble::new(cause, place, text)
}

/// Finds an error of one type in a chain, also inside of I/O errors, which hide what they carry.
fn find_cause<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_inside_an_io_error_is_found() {
        let trouble = Trouble::new(Cause::Busy, "here", "why");
        let twice = io::Error::other(io::Error::other(trouble.clone()));
        assert_eq!(find_cause::<Trouble>(&twice), Some(&trouble));
        assert_eq!(find_cause::<Trouble>(&io::Error::from(ErrorKind::NotFound)), None);
    }

    #[test]
    fn addresses_and_times_read_well() {
        let address = |host: &str| Address::Tcp { host: host.into(), port: 5672, setting: "broker.host" };
        assert_eq!(address("mq.example.org").to_string(), "mq.example.org:5672");
        assert_eq!(address("2001:db8::1").to_string(), "[2001:db8::1]:5672");
        assert_eq!(format_seconds(Duration::from_secs(2)), "2 s");
        assert_eq!(format_seconds(Duration::from_millis(250)), "250 ms");
        assert_eq!(format_seconds(Duration::from_millis(1530)), "1.5 s");
    }

    #[test]
    fn a_closed_port_passes_and_a_wrong_password_does_not() {
        let refused = io_trouble("db:3306", &ErrorKind::ConnectionRefused.into());
        assert_eq!(refused.cause, Cause::Closed);
        assert!(refused.text.starts_with("db:3306: connection refused;"));
        assert!(refused.cause.passes());
        assert!(!Cause::Denied.passes());
        assert!(!Cause::UnknownAuthority.passes());
    }
}
