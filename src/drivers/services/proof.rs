//! Whether a service really answers: a page, a ping, a login, a schedule that is kept.

use super::member::{Member, Role};
use super::{Answered, Known, Seen, apache};
use crate::base::secret::Secret;
use crate::host::secrets::Key;
use crate::host::{Host, processes};
use crate::probe::{Cause, Trouble, broker, monitor, site, web};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// Asks it; nothing where there is nothing to ask, or where others ask better.
pub(crate) async fn ask(
    host: &Host,
    known: &Known,
    member: &Member,
    seen: &Seen,
) -> Option<Answered> {
    Some(match member.role {
        Role::Socket | Role::Timer | Role::Database | Role::Broker => return None,
        Role::Server => {
            let endpoint = web::Endpoint::of(&known.settings, &known.layout);
            endpoint.answers(known.patience()).await.map(drop)
        }
        Role::Workers => workers(host, known).await,
        Role::Scheduler => schedule(known, seen),
        Role::Monitor => monitored(host, known).await,
        Role::Web => visited(known).await,
        Role::Extra => return connected(known, member).await,
    })
}

fn trouble(cause: Cause, text: impl std::fmt::Display) -> Trouble {
    Trouble {
        cause,
        text: text.to_string(),
    }
}

/// Every worker of the vhost hears a ping; one on this machine must answer.
async fn workers(host: &Host, known: &Known) -> Answered {
    let endpoint = broker::Endpoint::of(host, &known.settings, &known.layout)
        .map_err(|why| trouble(Cause::Other, format!("{why:#}")))?;
    let here = nix::unistd::gethostname().unwrap_or_default();
    let here = format!("@{}", here.to_string_lossy());
    let names = endpoint.workers(known.patience(), &here).await?;
    match names.iter().any(|name| name.ends_with(&here)) {
        true => {
            // While a new password is on its way, this was the former one.
            if let Some(broker) = known.broker()
                && broker.endpoint.password == endpoint.password
            {
                broker.prove();
            }
            Ok(())
        }
        false => Err(trouble(
            Cause::Silent,
            format!(
                "no worker of this machine answers a ping through the broker at {}",
                endpoint.address
            ),
        )),
    }
}

/// It has its schedule open and goes on. It writes to it only when a task was due, which may be once a day.
fn schedule(known: &Known, seen: &Seen) -> Answered {
    let tell = |text: String| Err(trouble(Cause::Silent, text));
    let schedule = format!("{}/celerybeat-schedule", known.layout.state);
    let Some(pid) = seen.pid else {
        return tell("it has no process".into());
    };
    if processes::is_stopped(pid) {
        return tell(format!(
            "its process {pid} is stopped; let it go on with `kill -CONT {pid}`"
        ));
    }
    // Python's own databases have one file or several, with endings of their own.
    match processes::open_files(pid)
        .iter()
        .any(|path| path.starts_with(&schedule))
    {
        true => Ok(()),
        false => tell(format!("it has not opened its schedule {schedule} yet")),
    }
}

async fn monitored(host: &Host, known: &Known) -> Answered {
    let other = |why: anyhow::Error| trouble(Cause::Other, format!("{why:#}"));
    let settings = &known.settings.monitor;
    let password: Option<Secret> = match &settings.password_file {
        Some(path) => Some(Key::given(host, "monitor.password_file", path.as_str())),
        None => Key::found(host, &known.layout.secrets, "monitor").transpose(),
    }
    .transpose()
    .map_err(other)?
    .map(|key| key.secret);
    let Some(password) = password else {
        return Err(trouble(Cause::Other, "its password is not there yet"));
    };
    let endpoint = monitor::Endpoint {
        port: known.monitor_port,
        user: settings.user.as_str().to_owned(),
        password,
    };
    endpoint.answers(known.patience()).await.map(drop)
}

/// The site as a visitor on this machine finds it.
pub(crate) fn visitor(known: &Known) -> site::Endpoint {
    let name = known.names.first().map_or("", String::as_str);
    site::Endpoint::of(&known.settings, name, &known.certificate)
}

/// Somebody takes the connection; nothing where the settings name no place to connect to.
async fn connected(known: &Known, member: &Member) -> Option<Answered> {
    let mut extras = known.settings.services.extras();
    let extra = extras.find(|extra| member.service.as_deref() == Some(extra.name.as_str()))?;
    let (place, tried) = match (&extra.port, &extra.socket) {
        (Some(port), _) => {
            let port = port.get();
            let connect = TcpStream::connect(("127.0.0.1", port));
            let tried = timeout(known.patience(), connect).await;
            (
                format!("port {port} of 127.0.0.1"),
                tried.map(|tried| tried.map(drop)),
            )
        }
        (None, Some(path)) => {
            let tried = timeout(known.patience(), UnixStream::connect(path.as_path())).await;
            (path.to_string(), tried.map(|tried| tried.map(drop)))
        }
        (None, None) => return None,
    };
    Some(match tried {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => Err(trouble(
            Cause::Closed,
            format!("nobody takes a connection at {place}: {why}"),
        )),
        Err(_) => Err(trouble(
            Cause::Silent,
            format!(
                "no connection at {place} within {} seconds",
                known.patience().as_secs()
            ),
        )),
    })
}

async fn visited(known: &Known) -> Answered {
    let answer = visitor(known).answers(known.patience()).await;
    answer
        .map(drop)
        .map_err(|why| match (why.cause, apache::port_trouble(known)) {
            (Cause::Closed, Some(text)) => trouble(Cause::Closed, text),
            _ => why,
        })
}
