//! Whether a service really answers: a page, a ping, a login, a schedule that is kept.

use super::member::{Member, ServiceRole};
use super::{ProofResult, ServiceManager, ServiceState, apache};
use crate::base::secret::Secret;
use crate::camcops_conf::Ini;
use crate::host::secrets::KeptSecret;
use crate::host::{Host, processes};
use crate::probe::{Cause, Trouble, broker, monitor, site, web};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// What the name of a further worker begins with, before its number and its machine.
const WORKER_NODE: &str = "workers-";

/// Asks it; nothing where there is nothing to ask, or where others ask better.
pub(crate) async fn ask_member(
    host: &Host,
    known: &ServiceManager,
    member: &Member,
    seen: &ServiceState,
) -> Option<ProofResult> {
    Some(match member.role {
        ServiceRole::Socket | ServiceRole::Timer | ServiceRole::Database | ServiceRole::Broker => {
            return None;
        }
        ServiceRole::Server => {
            let name = known.names.first().map_or("", String::as_str);
            let endpoint = web::WebAddress::of(&known.settings, &known.layout, name, &known.certificate);
            endpoint.answers(known.patience()).await.map(drop)
        }
        ServiceRole::Workers => ask_workers(host, known, member.number).await,
        ServiceRole::Scheduler => ask_scheduler(host, known, seen),
        ServiceRole::Monitor => ask_monitor(host, known).await,
        ServiceRole::Web => ask_as_visitor(known).await,
        ServiceRole::Extra => return try_connection(known, member).await,
    })
}

fn make_trouble(cause: Cause, text: impl std::fmt::Display) -> Trouble {
    Trouble { cause, text: text.to_string() }
}

/// Every worker of the vhost hears a ping; the one with this number on this machine must answer.
async fn ask_workers(host: &Host, known: &ServiceManager, number: u32) -> ProofResult {
    let endpoint = broker::BrokerAddress::of(host, &known.settings, &known.layout)
        .map_err(|why| make_trouble(Cause::Other, format!("{why:#}")))?;
    let here = nix::unistd::gethostname().unwrap_or_default();
    let here = format!("@{}", here.to_string_lossy());
    // The first may have a name of the administrator's choice.
    let is_it = |node: &str| match number {
        1 => !node.starts_with(WORKER_NODE),
        _ => node == format!("{WORKER_NODE}{number}"),
    };
    match endpoint.is_worker_there(known.patience(), &here, is_it).await? {
        true => {
            // While a new password is on its way, this was the former one.
            if let Some(broker) = known.broker()
                && broker.endpoint.password == endpoint.password
            {
                broker.prove();
            }
            Ok(())
        }
        false => Err(make_trouble(
            Cause::Silent,
            match number {
                1 => format!("no worker of this machine answers a ping through the broker at {}", endpoint.address),
                _ => format!("{WORKER_NODE}{number} answers no ping through the broker at {}", endpoint.address),
            },
        )),
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

async fn ask_monitor(host: &Host, known: &ServiceManager) -> ProofResult {
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
    let endpoint =
        monitor::SupervisorSocket { port: known.monitor_port, user: settings.user.as_str().to_owned(), password };
    endpoint.answers(known.patience()).await.map(drop)
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

async fn ask_as_visitor(known: &ServiceManager) -> ProofResult {
    let answer = visitor_address(known).answers(known.patience()).await;
    answer.map(drop).map_err(|why| match (why.cause, apache::port_trouble(known)) {
        (Cause::Closed, Some(text)) => make_trouble(Cause::Closed, text),
        _ => why,
    })
}
