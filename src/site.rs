//! One instance on one machine: everything that has to be known before deciding, read once.

use crate::base::secret::Secret;
use crate::certificate::{Pair, Subject};
use crate::host::secrets::KeptSecret;
use crate::layout::{DEDICATED_ACCOUNT, Layout, SocketMaker, Whose};
use crate::settings::{
    AbsolutePath, AccountUser, Backend, Frontend, LogMode, Mode, Resolved, ServiceManager, Settings, TlsMode,
};
use crate::site::facts::{DatabaseFamily, Facts, Manager};
pub(crate) use given::{GivenSecrets, is_open, keep_secret, kept_in, on_command_line, secret_key};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use zeroize::Zeroizing;

pub(crate) mod facts;
mod given;
pub(crate) mod listens;
pub(crate) mod maintenance;
pub(crate) mod pages;
pub(crate) mod ports;
mod warnings;

/// The settings of an instance, and what the machine is that they are for.
#[derive(Debug)]
pub struct Site {
    pub(crate) instance: String,
    /// The file that the administrator edits.
    pub(crate) settings_file: PathBuf,
    /// What the administrator wants, and who said so.
    pub(crate) resolved: Resolved,
    /// What the machine is.
    pub facts: Facts,
    /// Where things live.
    pub layout: Layout,
}

impl Site {
    /// What the administrator wants.
    pub(crate) fn settings(&self) -> &Settings {
        &self.resolved.settings
    }

    /// Who starts the services here.
    pub(crate) fn manager(&self) -> Manager {
        match self.settings().services.manager {
            ServiceManager::Auto => self.facts.manager,
            ServiceManager::Systemd => Manager::Systemd,
            ServiceManager::Supervisor => Manager::Supervisor,
        }
    }

    /// The account that the services run as; its group has the same name.
    pub(crate) fn account(&self) -> &str {
        match self.settings().account.user {
            AccountUser::Auto => self.facts.flavour.web_account,
            AccountUser::Camcops => DEDICATED_ACCOUNT,
        }
    }

    /// `user:group` of a row of the file plan.
    pub(crate) fn owner_of(&self, whose: Whose) -> String {
        let (service, flavour) = (self.account(), self.facts.flavour);
        match whose {
            Whose::Root | Whose::System => "root:root".into(),
            Whose::RootForService => format!("root:{service}"),
            Whose::Service => format!("{service}:{service}"),
            Whose::ServiceForWeb => format!("{service}:{}", flavour.web_account),
            Whose::RootForLogs => format!("root:{}", flavour.log_group),
        }
    }

    /// Whether the services have an account of their own, apart from the web server's.
    pub(crate) fn dedicated(&self) -> bool {
        self.settings().account.user == AccountUser::Camcops
    }

    /// Who makes the socket between web server and CamCOPS.
    pub(crate) fn socket_maker(&self) -> SocketMaker {
        match (self.has_web_socket(), self.dedicated()) {
            (true, _) => SocketMaker::Systemd,
            (false, true) => SocketMaker::DedicatedService,
            (false, false) => SocketMaker::Service,
        }
    }

    /// Whether the application logs in to the database by its account alone, without a password.
    pub(crate) fn socket_authentication(&self) -> bool {
        self.dedicated() && self.settings().database.mode == Mode::Local
    }

    /// The account that logs in to the database by itself alone, if one does.
    pub(crate) fn socket_account(&self) -> Option<&str> {
        self.socket_authentication().then(|| self.account())
    }

    /// The names of the site, the main one first.
    pub(crate) fn names(&self) -> Vec<String> {
        let names = &self.settings().web.server_names;
        match names.is_empty() {
            true => vec![self.facts.host_name.clone()],
            false => names.iter().map(|name| name.as_str().to_owned()).collect(),
        }
    }

    /// The names by which it is served: also those that only its own certificate has.
    pub(crate) fn served_names(&self) -> Vec<String> {
        let more = self.settings().tls.dns_names.iter();
        let all = self.names().into_iter();
        let mut names = Vec::new();
        for name in all.chain(more.map(|name| name.as_str().to_owned())) {
            // Browsers ask for an address as it is usually written.
            let name = name.parse::<IpAddr>().map_or(name, |address| address.to_string());
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// The address of the site, with a slash at the end.
    pub(crate) fn url(&self) -> String {
        let web = &self.settings().web;
        let port = match web.public_port() {
            443 => String::new(),
            port => format!(":{port}"),
        };
        let name = &self.names()[0];
        let name = match name.contains(':') {
            true => format!("[{name}]"),
            false => name.clone(),
        };
        format!("https://{name}{port}{}/", web.path.prefix())
    }

    /// The port of the monitor: each instance needs its own, so another instance's follows from its name.
    pub(crate) fn monitor_port(&self) -> u16 {
        let given = self.settings().monitor.port.given().map(|port| port.get());
        given.unwrap_or_else(|| match self.instance.as_str() {
            crate::layout::DEFAULT_INSTANCE => 5555,
            other => {
                let spread = other.bytes().fold(7u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
                20_000 + (spread % 4000) as u16
            }
        })
    }

    /// Whether a timer looks at the site every five minutes.
    pub(crate) fn is_observed(&self) -> bool {
        let monitor = &self.settings().monitor;
        monitor.metrics_file.is_some() || monitor.page
    }

    /// Where the services write log files of ours to rotate, if they do.
    pub(crate) fn log_directory(&self) -> Option<&str> {
        (self.settings().logging.mode == LogMode::File).then_some(self.layout.logs.as_str())
    }

    /// Whether systemd holds the web server's socket, so that visitors wait while it starts. CherryPy can't take one over.
    pub(crate) fn has_web_socket(&self) -> bool {
        self.manager() == Manager::Systemd && self.settings().web.backend == Backend::Gunicorn
    }

    /// The ports on which nobody but this program has Apache listen, each with its protocol.
    pub(crate) fn own_ports(&self) -> Vec<(u16, &'static str)> {
        let web = &self.settings().web;
        let http = web.http_port.get().map(|port| (port.get(), "http"));
        let ports = [Some((web.https_port.get(), "https")), http];
        let is_own = |port: u16| !listens::is_usual(port) && !self.facts.apache_listens.contains(&port);
        match web.frontend {
            Frontend::Apache => ports.into_iter().flatten().filter(|(port, _)| is_own(*port)).collect(),
            Frontend::None => Vec::new(),
        }
    }

    /// Modules of Apache that the site needs and that Debian does not switch on by itself: link and target.
    pub(crate) fn apache_modules(&self) -> Vec<(String, String)> {
        let Some(directory) = self.facts.flavour.apache_modules else {
            return Vec::new();
        };
        let mut files = vec![
            "headers.load",
            "proxy.load",
            "proxy.conf",
            "proxy_http.load",
            "socache_shmcb.load",
            "ssl.load",
            "ssl.conf",
        ];
        if !self.settings().web.trusted_proxies.is_empty() {
            files.push("remoteip.load");
        }
        files.into_iter().map(|file| (format!("{directory}/{file}"), format!("../mods-available/{file}"))).collect()
    }

    /// Certificate, key and chain of the web site.
    pub(crate) fn certificate_files(&self) -> (String, String, Option<String>) {
        let tls = &self.settings().tls;
        let text = |path: &Option<AbsolutePath>, own: &str| {
            path.as_ref().map_or_else(|| own.to_owned(), |path| path.as_str().to_owned())
        };
        match tls.mode {
            TlsMode::SelfSigned | TlsMode::LocalCa => (self.layout.certificate.clone(), self.layout.key.clone(), None),
            TlsMode::Certbot => {
                let both = &self.layout.certificate_with_key;
                (both.clone(), both.clone(), None)
            }
            TlsMode::Files => (
                text(&tls.certificate, &self.layout.certificate),
                text(&tls.key, &self.layout.key),
                tls.chain.as_ref().map(|path| path.as_str().to_owned()),
            ),
        }
    }

    /// The file that tunes a local database, if there is one.
    pub(crate) fn database_drop_in(&self) -> Option<String> {
        let database = &self.settings().database;
        if database.mode != Mode::Local || (!database.tuning && database.listen.all().is_empty()) {
            return None;
        }
        let flavour = self.facts.flavour;
        let directory = match self.facts.database {
            DatabaseFamily::Mariadb => flavour.mariadb_settings,
            DatabaseFamily::Mysql => flavour.mysql_settings,
        };
        Some(format!("{directory}/90-{}.cnf", self.layout.slug))
    }

    /// The subject of a self-signed certificate.
    pub(crate) fn subject(&self) -> Subject {
        let tls = &self.settings().tls;
        Subject {
            country: tls.country.as_ref().map(|text| text.as_str().to_owned()),
            state_or_province: tls.state_or_province.as_ref().map(|text| text.as_str().to_owned()),
            locality: tls.locality.as_ref().map(|text| text.as_str().to_owned()),
            organization: tls.organization.as_ref().map(|text| text.as_str().to_owned()),
            names: self.served_names(),
            days: tls.days.get(),
        }
    }
}

/// What is there already and must not be made again.
#[derive(Debug)]
pub struct ExistingState {
    /// Signs the session cookies.
    pub(crate) cookie: KeptSecret,
    /// The application's database password; none where it logs in by its account.
    pub(crate) database: Option<KeptSecret>,
    /// The passwords of the accounts that only read, by account.
    pub(crate) readers: BTreeMap<String, KeptSecret>,
    /// The application's broker password.
    pub(crate) broker: KeptSecret,
    /// The monitor's password.
    pub(crate) monitor: KeptSecret,
    /// What goes into camcops.conf and comes from files.
    pub(crate) given: GivenSecrets,
    /// The site's certificate.
    pub(crate) certificate: Certificate,
    /// What is worth a word about other instances.
    pub(crate) warnings: Vec<String>,
    /// CamCOPS's configuration as it is.
    pub(crate) config: Option<String>,
    /// What the settings alone made of it when this program wrote it last.
    pub(crate) config_base: Option<String>,
    /// The digests of what services read of it, by the files that they stand in.
    pub(crate) config_digests: BTreeMap<String, String>,
    /// Where the application's accounts come from, as the database server sees it; nothing until that is asked.
    pub(crate) database_client: Option<String>,
    /// The administrator's own file that rotates our logs.
    pub(crate) own_rotation: Option<String>,
    /// How much of a broker on this machine is ours.
    pub(crate) own_broker: OwnBroker,
    /// Whether the release that the settings ask for is there: then nothing is needed to build it.
    pub(crate) release_is_whole: bool,
    /// The database password that is in use while a new one takes its place.
    pub(crate) former_database: Option<Secret>,
}

/// How much of a broker on this machine is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnBroker {
    /// Its node, where there was none before us.
    pub(crate) node: bool,
    /// What that is called.
    pub(crate) name: &'static str,
    /// Where the node that is set up has stored what the broker does not start on.
    pub(crate) unreadable: Option<String>,
    /// Erlang's port mapper, where there was none before us.
    pub(crate) port_mapper: bool,
}

#[derive(Debug)]
pub(crate) enum Certificate {
    /// Made by this program; `because` says why it is made anew, and is empty where it is not.
    Own {
        /// Certificate and key.
        pair: Pair,
        /// Why it is made.
        because: String,
        /// The site's own authority, where that has signed it.
        authority: Option<Pair>,
    },
    /// What an authority issued to certbot, and until then one that is signed by itself.
    Issued {
        /// Key and certificate, as they stand in one file.
        text: Zeroizing<String>,
        /// Why it has to be this one.
        because: String,
        /// Why it is not what certbot has.
        warnings: Vec<String>,
    },
    /// The administrator's own files, checked.
    Given {
        certificate: String,
        /// The path of its key.
        key: String,
        /// The path of the chain, or empty.
        chain: String,
        /// What is not wrong enough to refuse it.
        warnings: Vec<String>,
    },
}
