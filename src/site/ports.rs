//! The ports and sockets that the settings of a site name, and who really listens there.

use crate::host::processes::{self, Process};
use crate::settings::{Bind, Frontend, Mode, Service};
use crate::site::Site;
use anyhow::Result;
use serde::Serialize;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;

/// One line: what for, where, and who is there.
#[derive(Debug, Serialize)]
pub(crate) struct UsedPort {
    pub(crate) purpose: String,
    /// A port of this machine; nothing for a socket or another machine's port.
    pub(crate) port: Option<u16>,
    /// As the settings have it.
    pub(crate) declared: String,
    /// Whether only root can tell.
    pub(crate) hidden: bool,
    /// Where it is really listened on.
    pub(crate) listening: Vec<Listening>,
}

/// Somebody who listens.
#[derive(Debug, Serialize)]
pub(crate) struct Listening {
    /// Address and port, or the path of a socket.
    pub(crate) address: String,
    /// Nothing where only root may know.
    pub(crate) by: Option<Process>,
}

/// The ports of a site, and who listens there now.
pub(crate) fn observe_ports(site: &Site) -> Result<Vec<UsedPort>> {
    let listeners = processes::list_listeners()?;
    let mut ports = declare_ports(site);
    let ours: Vec<_> =
        listeners.into_iter().filter(|one| ports.iter().any(|port| port.port == Some(one.address.port()))).collect();
    let holders = processes::find_holders(&ours);
    for port in &mut ports {
        let mut here: Vec<SocketAddr> =
            ours.iter().map(|one| one.address).filter(|address| port.port == Some(address.port())).collect();
        here.sort();
        here.dedup();
        port.listening.extend(
            here.into_iter()
                .map(|address| Listening { by: holders.get(&address).cloned(), address: address.to_string() }),
        );
    }
    Ok(ports)
}

fn declare_ports(site: &Site) -> Vec<UsedPort> {
    let settings = site.settings();
    let serves = |service| settings.services.wants(service);
    let port = |purpose: &str, port: Option<u16>, declared: String| UsedPort {
        purpose: purpose.to_owned(),
        port,
        declared,
        hidden: false,
        listening: Vec::new(),
    };
    let mut ports = Vec::new();
    let web = &settings.web;
    if web.frontend == Frontend::Apache {
        let https = web.https_port.get();
        ports.push(port("https", Some(https), https.to_string()));
        if let Some(http) = web.http_port.get() {
            ports.push(port("http", Some(http.get()), http.get().to_string()));
        }
    }
    if serves(Service::Server) {
        ports.push(match web.bind {
            Bind::Socket => socket_port("server", &site.layout.socket),
            Bind::Tcp(address) => port("server", Some(address.port()), address.to_string()),
        });
    }
    if serves(Service::Monitor) {
        let number = site.monitor_port();
        ports.push(port("monitor", Some(number), format!("127.0.0.1:{number}")));
    }
    for extra in settings.services.extras() {
        let name = extra.name.as_str();
        if let Some(number) = extra.port.map(|port| port.get()) {
            ports.push(port(name, Some(number), format!("127.0.0.1:{number}")));
        } else if let Some(path) = &extra.socket {
            ports.push(socket_port(name, path.as_str()));
        }
    }
    let database = &settings.database;
    ports.push(match database.mode {
        Mode::Local => socket_port("database", database.socket.as_str()),
        Mode::External => port("database", None, format!("{}:{}", database.host.as_str(), database.port.get())),
    });
    let broker = &settings.broker;
    let number = broker.port_number();
    ports.push(match broker.mode {
        Mode::Local => port("broker", Some(number), format!("127.0.0.1:{number}")),
        Mode::External => port("broker", None, format!("{}:{number}", broker.host.as_str())),
    });
    ports
}

fn socket_port(purpose: &str, path: &str) -> UsedPort {
    let found = std::fs::symlink_metadata(path);
    let hidden = matches!(&found, Err(why) if why.kind() == ErrorKind::PermissionDenied);
    let there = found.is_ok_and(|data| data.file_type().is_socket());
    UsedPort {
        purpose: purpose.to_owned(),
        port: None,
        declared: path.to_owned(),
        hidden,
        listening: match there {
            true => vec![Listening { address: path.to_owned(), by: None }],
            false => Vec::new(),
        },
    }
}
