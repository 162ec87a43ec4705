//! Whether a service really answers: a page, a ping, a login, a schedule that is kept.

use super::member::{Member, ServiceRole};
use super::{ProofResult, ServiceManager, ServiceState, apache};
use crate::base::secret::Secret;
use crate::camcops_conf::Ini;
use crate::host::secrets::KeptSecret;
use crate::host::{Host, processes};
use crate::probe::{Cause, Trouble, broker, monitor, site, web};
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// What the name of a further worker begins with, before its number and its machine.
const WORKER_NODE: &str = "workers-";

/// A question to a service with all that it takes to ask it: it can be asked in a task of its own.
#[derive(Debug)]
pub(super) enum ServiceQuestion {
    Server(web::WebAddress),
    Workers(WorkersAddress),
    Monitor(monitor::SupervisorSocket),
    Visitor(site::SiteAddress),
}

/// The workers with a number on this machine.
#[derive(Debug)]
pub(super) struct WorkersAddress {
    broker: broker::BrokerAddress,
    /// What their names end with.
    here: String,
    number: u32,
}

/// What came of a question, and the password that the broker has taken for it.
#[derive(Debug)]
pub(super) struct ServiceReply {
    result: ProofResult,
    broker_password: Option<Secret>,
}

impl ServiceQuestion {
    /// What is asked of a service; nothing where no server is.
    pub(super) fn of(host: &Host, known: &ServiceManager, member: &Member) -> Option<Result<ServiceQuestion, Trouble>> {
        Some(match member.role {
            ServiceRole::Server => {
                let name = known.names.first().map_or("", String::as_str);
                let address = web::WebAddress::of(&known.settings, &known.layout, name, &known.certificate);
                Ok(ServiceQuestion::Server(address))
            }
            ServiceRole::Workers => workers_address(host, known, member.number).map(ServiceQuestion::Workers),
            ServiceRole::Monitor => monitor_address(host, known).map(ServiceQuestion::Monitor),
            ServiceRole::Web => Ok(ServiceQuestion::Visitor(visitor_address(known))),
            _ => return None,
        })
    }

    pub(super) async fn ask(self, patience: Duration) -> ServiceReply {
        let mut broker_password = None;
        let result = match self {
            ServiceQuestion::Server(address) => address.answers(patience).await.map(drop),
            ServiceQuestion::Monitor(address) => address.answers(patience).await.map(drop),
            ServiceQuestion::Visitor(address) => address.answers(patience).await.map(drop),
            ServiceQuestion::Workers(address) => {
                let result = address.ask(patience).await;
                broker_password = result.is_ok().then_some(address.broker.password);
                result
            }
        };
        ServiceReply { result, broker_password }
    }
}

impl ServiceReply {
    /// The answer; what it says of others is taken from it.
    pub(super) fn told(self, known: &ServiceManager, role: ServiceRole) -> ProofResult {
        // While a new password is on its way, this was the former one.
        if let (Some(password), Some(broker)) = (&self.broker_password, known.broker())
            && broker.endpoint.password == *password
        {
            broker.prove();
        }
        self.result.map_err(|why| match (role, why.cause) {
            (ServiceRole::Web, Cause::Closed) => match apache::port_trouble(known) {
                Some(text) => make_trouble(Cause::Closed, text),
                None => why,
            },
            _ => why,
        })
    }
}

/// Asks it; nothing where there is nothing to ask, or where others ask better.
pub(crate) async fn ask_member(
    host: &Host,
    known: &ServiceManager,
    member: &Member,
    seen: &ServiceState,
) -> Option<ProofResult> {
    match member.role {
        ServiceRole::Scheduler => Some(ask_scheduler(host, known, seen)),
        ServiceRole::Extra => try_connection(known, member).await,
        role => Some(match ServiceQuestion::of(host, known, member)? {
            Ok(question) => question.ask(known.patience()).await.told(known, role),
            Err(why) => Err(why),
        }),
    }
}

fn make_trouble(cause: Cause, text: impl std::fmt::Display) -> Trouble {
    Trouble { cause, text: text.to_string() }
}

fn workers_address(host: &Host, known: &ServiceManager, number: u32) -> Result<WorkersAddress, Trouble> {
    let broker = broker::BrokerAddress::of(host, &known.settings, &known.layout)
        .map_err(|why| make_trouble(Cause::Other, format!("{why:#}")))?;
    let here = nix::unistd::gethostname().unwrap_or_default();
    Ok(WorkersAddress { broker, here: format!("@{}", here.to_string_lossy()), number })
}

impl WorkersAddress {
    /// Every worker of the vhost hears a ping; the one with this number on this machine must answer.
    async fn ask(&self, patience: Duration) -> ProofResult {
        let (number, address) = (self.number, &self.broker.address);
        // The first may have a name of the administrator's choice.
        let is_it = |node: &str| match number {
            1 => !node.starts_with(WORKER_NODE),
            _ => node == format!("{WORKER_NODE}{number}"),
        };
        match self.broker.is_worker_there(patience, &self.here, is_it).await? {
            true => Ok(()),
            false => Err(make_trouble(
                Cause::Silent,
                match number {
                    1 => format!("no worker of this machine answers a ping through the broker at {address}"),
                    _ => format!("{WORKER_NODE}{number} answers no ping through the broker at {address}"),
                },
            )),
        }
    }
}

/// It has its schedule open and goes on. It writes to it only when a task was due, which may be once a day.
fn ask_scheduler(host: &Host, known: &ServiceManager, seen: &ServiceState) -> ProofResult {
    let tell = |text: String| Err(make_trouble(Cause::Silent, text));
    let config = host.read_text(&known.layout.config).ok().flatten().unwrap_or_default();
    let given = Ini::parse(&config).get("export", "CELERY_BEAT_SCHEDULE_DATABASE").unwrap_or_default();
    let schedule = known.layout.schedule_at(&given).unwrap_or_else(|| known.layout.schedule());
    let Some(pid) = seen.pid else {
        return tell("it has no process".into());
    };
    if processes::is_stopped(pid) {
        return tell(format!("its process {pid} is suspended; resume it with `kill -CONT {pid}`"));
    }
    // Python's own databases have one file or several, with endings of their own.
    match processes::open_files(pid).iter().any(|path| path.starts_with(&schedule)) {
        true => Ok(()),
        false => tell(format!("it has not opened its schedule {schedule} yet")),
    }
}

fn monitor_address(host: &Host, known: &ServiceManager) -> Result<monitor::SupervisorSocket, Trouble> {
    let other = |why: anyhow::Error| make_trouble(Cause::Other, format!("{why:#}"));
    let settings = &known.settings.monitor;
    let password: Option<Secret> = match &settings.password_file {
        Some(path) => Some(KeptSecret::given(host, "monitor.password_file", path.as_str())),
        None => KeptSecret::found(host, &known.layout.secrets, "monitor").transpose(),
    }
    .transpose()
    .map_err(other)?
    .map(|key| key.secret);
    let Some(password) = password else {
        return Err(make_trouble(Cause::Other, "its password does not exist yet"));
    };
    Ok(monitor::SupervisorSocket { port: known.monitor_port, user: settings.user.as_str().to_owned(), password })
}

/// The site as a visitor on this machine finds it.
pub(crate) fn visitor_address(known: &ServiceManager) -> site::SiteAddress {
    let name = known.names.first().map_or("", String::as_str);
    site::SiteAddress::of(&known.settings, &known.layout, name, &known.certificate)
}

/// Somebody takes the connection; nothing where the settings name no place to connect to.
async fn try_connection(known: &ServiceManager, member: &Member) -> Option<ProofResult> {
    let mut extras = known.settings.services.extras();
    let extra = extras.find(|extra| member.service.as_deref() == Some(extra.name.as_str()))?;
    let (place, tried) = match (&extra.port, &extra.socket) {
        (Some(port), _) => {
            let port = port.get();
            let connect = TcpStream::connect(("127.0.0.1", port));
            let tried = timeout(known.patience(), connect).await;
            (format!("port {port} of 127.0.0.1"), tried.map(|tried| tried.map(drop)))
        }
        (None, Some(path)) => {
            let tried = timeout(known.patience(), UnixStream::connect(path.as_path())).await;
            (path.to_string(), tried.map(|tried| tried.map(drop)))
        }
        (None, None) => return None,
    };
    Some(match tried {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => Err(make_trouble(Cause::Closed, format!("no connection is accepted at {place}: {why}"))),
        Err(_) => Err(make_trouble(
            Cause::Silent,
            format!("no connection at {place} within {} seconds", known.patience().as_secs()),
        )),
    })
}
