//! One instance on one machine: everything that has to be known before deciding, read once.

use crate::bundle::Bundle;
use crate::camcops_conf::{self, Kind};
use crate::certificate::{Pair, Subject};
use crate::cli::Global;
use crate::error::Exit;
use crate::facts::{Facts, Manager};
use crate::host::Host;
use crate::journal::{self, Journal};
use crate::keys::{self, Key, Secret};
use crate::layout::{DEDICATED_ACCOUNT, Layout, SocketMaker, Whose};
use crate::live::Live;
use crate::probe::broker;
use crate::render::Format;
use crate::resource::services::member::members;
use crate::resource::{
    self, Content, Resource, acme, packages, release, services, sql, superuser, tables,
};
use crate::settings::{
    AccountUser, BY_FILE, ConfigValue, Environment, LogMode, Mode, Origin, Resolved,
    ServiceManager, Settings,
};
use crate::{desired, report, view};
use anyhow::Result;
use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;

mod certificate;
mod given;
mod sources;

pub use certificate::Certificate;
pub(crate) use given::{GivenSecrets, is_open, keep, kept_in, on_command_line, secret_key};
pub use sources::{settings_file, sources};

/// Where logrotate reads what is to be rotated.
pub const ROTATIONS: &str = "/etc/logrotate.d";

/// The settings of an instance, and the machine that they are for.
#[derive(Debug)]
pub struct Site {
    /// The machine.
    pub host: Host,
    /// Which instance.
    pub instance: String,
    /// The file that the administrator edits.
    pub settings_file: PathBuf,
    /// What the administrator wants, and who said so.
    pub resolved: Resolved,
    /// What the machine is.
    pub facts: Facts,
    /// Where things live.
    pub layout: Layout,
    /// A secret that this run makes anew, in place of the one that is there.
    pub renewed: OnceCell<(keys::Name, Secret)>,
    /// Whether this run only shows what is there, good enough to be served or not.
    pub only_shows: bool,
    /// A certificate that this run puts in place of the one that is there, whatever else could be had.
    pub new_certificate: Option<Pair>,
    /// The camcops.conf that the installed CamCOPS has read in this run.
    pub(crate) tried: RefCell<Option<Content>>,
}

impl Site {
    /// Reads settings and facts.
    pub fn load(global: &Global) -> Result<Site> {
        let host = open_host(global)?;
        let settings_file = settings_file(&host, global);
        let sources = sources(&host, &settings_file, global)?;
        let resolved = Settings::resolve(&sources)
            .map_err(|problems| Exit::Settings.because(problems.to_string()))?;
        let facts = Facts::gather(&host)?;
        let layout = Layout::new(facts.flavour, &global.instance);
        let mut site = Site {
            host,
            instance: global.instance.clone(),
            settings_file,
            resolved,
            facts,
            layout,
            renewed: OnceCell::new(),
            only_shows: false,
            new_certificate: None,
            tried: RefCell::default(),
        };
        site.check_environment()?;
        site.check_secrets()?;
        if site.host.staged_root().is_none() {
            let tell: fn(&str) = match global.quiet || global.json {
                true => |_| {},
                false => |line| report::note(&format!("  {line}")),
            };
            site.host.live = Some(Box::new(Live {
                packages: Some(packages::Known::new(&site, tell)),
                bundle: Bundle::of(&site, tell),
                services: Some(services::Known::of(&site)),
                acme: Some(acme::Known::new(&site, tell)),
                release: Some(release::Recipe::new(&site, tell)),
                application: Some(tables::Application::new(&site, tell)),
                ..Live::default()
            }));
        }
        Ok(site)
    }

    /// Refuses what would show patients' data or weaken the site where real patients are seen.
    fn check_environment(&self) -> Result<()> {
        if self.settings().site.environment != Environment::Production {
            return Ok(());
        }
        let config = &self.settings().config;
        let refused: Vec<String> = NOT_IN_PRODUCTION
            .iter()
            .filter(|(section, key, _)| {
                let value = config.get(*section).and_then(|values| values.get(*key));
                matches!(value, Some(ConfigValue::Line(line)) if is_true(line))
            })
            .map(|(section, key, why)| {
                format!(
                    "config.{section}.{key}: {why}, and site.environment is \"production\"; take it out, or set site.environment = \"test\" if no real patients are seen"
                )
            })
            .collect();
        match refused.is_empty() {
            true => Ok(()),
            false => Err(Exit::Settings.because(refused.join("\n"))),
        }
    }

    /// Warns of another instance that already has this one's name on the same port: Apache would serve only one of them.
    fn name_clashes(&self) -> Result<Vec<String>> {
        let port = format!(":{}", self.settings().web.https_port.get());
        let mut clashes = Vec::new();
        for other in journal::instances(&self.host)? {
            let path = Layout::new(self.facts.flavour, &other).apache_site();
            if other == self.instance {
                continue;
            }
            let Some(site) = self.host.read_text(&path)? else {
                continue;
            };
            for name in self.names() {
                let named = [
                    format!("ServerName \"{name}\""),
                    format!("ServerAlias \"{name}\""),
                ];
                if site.contains(&port) && named.iter().any(|line| site.contains(line)) {
                    clashes.push(format!(
                        "web.server_names: instance {other} serves {name} on the same port, and Apache answers with one of them only; give this instance another name or web.https_port"
                    ));
                }
            }
        }
        Ok(clashes)
    }

    /// What the administrator wants.
    pub fn settings(&self) -> &Settings {
        &self.resolved.settings
    }

    /// Who starts the services here.
    pub fn manager(&self) -> Manager {
        match self.settings().services.manager {
            ServiceManager::Auto => self.facts.manager,
            ServiceManager::Systemd => Manager::Systemd,
            ServiceManager::Supervisor => Manager::Supervisor,
        }
    }

    /// The account that the services run as; its group has the same name.
    pub fn account(&self) -> &str {
        match self.settings().account.user {
            AccountUser::Auto => self.facts.flavour.web_account,
            AccountUser::Camcops => DEDICATED_ACCOUNT,
        }
    }

    /// `user:group` of a row of the file plan.
    pub fn owner_of(&self, whose: Whose) -> String {
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
    pub fn dedicated(&self) -> bool {
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
    pub fn socket_authentication(&self) -> bool {
        self.dedicated() && self.settings().database.mode == Mode::Local
    }

    /// The names of the site, the main one first.
    pub fn names(&self) -> Vec<String> {
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
            let name = name
                .parse::<IpAddr>()
                .map_or(name, |address| address.to_string());
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// The address of the site, with a slash at the end.
    pub fn url(&self) -> String {
        let web = &self.settings().web;
        let port = match web.https_port.get() {
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
    pub fn monitor_port(&self) -> u16 {
        let given = self.settings().monitor.port.given().map(|port| port.get());
        given.unwrap_or_else(|| match self.instance.as_str() {
            crate::layout::DEFAULT_INSTANCE => 5555,
            other => {
                let spread = other.bytes().fold(7u32, |sum, byte| {
                    sum.wrapping_mul(31).wrapping_add(byte.into())
                });
                20_000 + (spread % 4000) as u16
            }
        })
    }

    /// The journal as it is.
    pub fn journal(&self) -> Result<Journal> {
        Journal::read(&self.host, &self.instance)
    }

    /// The subject of a self-signed certificate.
    pub fn subject(&self) -> Subject {
        let tls = &self.settings().tls;
        Subject {
            country: tls.country.as_ref().map(|text| text.as_str().to_owned()),
            state_or_province: tls
                .state_or_province
                .as_ref()
                .map(|text| text.as_str().to_owned()),
            locality: tls.locality.as_ref().map(|text| text.as_str().to_owned()),
            organization: tls
                .organization
                .as_ref()
                .map(|text| text.as_str().to_owned()),
            names: self.served_names(),
            days: tls.days.get(),
        }
    }

    /// Reads what is already there and must not be made again: secrets, the certificate, CamCOPS's own configuration.
    pub fn found(&self, journal: &Journal) -> Result<Found> {
        let (host, layout, settings) = (&self.host, &self.layout, self.settings());
        let mut warnings = self.name_clashes()?;
        let own_rotation = self.own_rotation(&mut warnings)?;
        let config = host.read_text(&layout.config)?;
        if let Some(text) = &config {
            self.check_config(text)?;
        }
        let config_base = match &config {
            Some(text) => self.base_of(journal, &layout.config, text)?,
            None => None,
        };
        let cookie_in_use = config.as_deref().and_then(|text| {
            let cookie = camcops_conf::Ini::parse(text).get("site", "SESSION_COOKIE_SECRET")?;
            Secret::checked(cookie.replace("%%", "%")).ok()
        });
        let given_or_kept =
            |name: &str, setting: &str, given: Option<&crate::settings::AbsolutePath>| match given {
                Some(path) => Key::given(host, setting, path.as_str()),
                None => Key::kept(host, &layout.secrets, name),
            };
        let mut found = Found {
            // Logged-in users stay logged in when a site that was made by hand is taken over.
            cookie: Key::kept_or(host, &layout.secrets, "cookie", || match cookie_in_use {
                Some(cookie) => Ok(cookie),
                None => Secret::generate(),
            })?,
            database: match self.socket_authentication() {
                true => None,
                false => Some(fit_for_option_file(given_or_kept(
                    "database",
                    "database.password_file",
                    settings.database.password_file.as_ref(),
                )?)?),
            },
            readonly: match &settings.database.readonly_user {
                None => None,
                Some(_) => Some(given_or_kept(
                    "readonly",
                    "database.readonly_password_file",
                    settings.database.readonly_password_file.as_ref(),
                )?),
            },
            broker: given_or_kept(
                "broker",
                "broker.password_file",
                settings.broker.password_file.as_ref(),
            )?,
            monitor: given_or_kept(
                "monitor",
                "monitor.password_file",
                settings.monitor.password_file.as_ref(),
            )?,
            given: self.given_secrets()?,
            certificate: self.certificate()?,
            warnings,
            config,
            config_base,
            config_digests: self.config_digests(journal)?,
            own_broker: self.own_broker()?,
            own_rotation,
            release_is_whole: match release::Wanted::new(self) {
                Ok(wanted) => release::is_whole(&self.host, &wanted.id)?,
                Err(_) => false,
            },
            database_client: match settings.database.mode {
                Mode::Local => Some("localhost".into()),
                Mode::External => settings
                    .database
                    .client_host
                    .as_ref()
                    .map(|host| host.as_str().to_owned()),
            },
            former_database: None,
        };
        if let Some((name, secret)) = self.renewed.get() {
            found.renew(*name, secret);
        }
        Ok(found)
    }

    /// Those that are as this program wrote them.
    fn config_digests(&self, journal: &Journal) -> Result<BTreeMap<String, String>> {
        let mut digests = BTreeMap::new();
        for part in members(self).into_iter().filter_map(|one| one.config) {
            let Some(text) = self.host.read_text(&part.digest)? else {
                continue;
            };
            let written = journal.find(&Resource::File(part.digest.clone()));
            let written = written.and_then(|owned| owned.change.after.facets()?.content("content"));
            if written == Some(&Content::new(text.as_bytes())) {
                digests.insert(part.digest, text);
            }
        }
        Ok(digests)
    }

    /// Gives the drivers of live resources the secrets that they take.
    pub fn ready(&self, found: &Found) -> Result<()> {
        let (Some(live), broker) = (&self.host.live, &self.settings().broker) else {
            return Ok(());
        };
        let endpoint =
            broker::Endpoint::with(self.settings(), &self.layout, found.broker.secret.clone())?;
        live.broker
            .replace(Some(Rc::new(resource::broker::Known::new(
                endpoint,
                broker.mode == Mode::Local,
                broker.consumer_timeout_ms.get().into(),
            ))));
        let earlier = live.database.borrow().clone();
        let database = sql::Known::new(self, found, earlier.as_deref())?;
        live.database.replace(Some(Rc::new(database)));
        let superuser = &self.settings().superuser;
        if let Some(path) = &superuser.password_file
            && live.superuser_password.borrow().is_none()
        {
            let setting = "superuser.password_file";
            let password = Key::given(&self.host, setting, path.as_str())?.secret;
            superuser::check(&password)
                .map_err(|why| Exit::Settings.because(format!("{setting}: the password {why}")))?;
            live.superuser_password.replace(Some(password));
        }
        Ok(())
    }

    /// The administrator's own file for logrotate, if one names our logs: two would be an error to logrotate, so theirs
    /// is the one.
    fn own_rotation(&self, warnings: &mut Vec<String>) -> Result<Option<String>> {
        let (host, logging) = (&self.host, &self.settings().logging);
        let Some(directory) = self
            .log_directory()
            .filter(|_| logging.keep_days.get().is_some())
        else {
            return Ok(None);
        };
        let logs = format!("{directory}/");
        for name in host.list(ROTATIONS)?.unwrap_or_default() {
            let path = format!("{ROTATIONS}/{name}");
            let text = host.read_text(&path)?.unwrap_or_default();
            let names_them = text
                .lines()
                .any(|line| !line.trim_start().starts_with('#') && line.contains(&logs));
            if !names_them || text.contains(view::MANAGED) {
                continue;
            }
            if self.resolved.origins.get("logging.keep_days") != Some(&Origin::Default) {
                warnings.push(format!(
                    "logging.keep_days: {path} rotates these logs, and not we; take it away, or set logging.keep_days to 0"
                ));
            }
            return Ok(Some(path));
        }
        Ok(None)
    }

    /// Where the services write log files of ours to rotate, if they do.
    fn log_directory(&self) -> Option<&str> {
        (self.settings().logging.mode == LogMode::File).then_some(self.layout.logs.as_str())
    }

    /// How much of a broker on this machine is ours: one that was here before us may have other users, and messages
    /// under the name of its node, unless it was only just installed with us.
    fn own_broker(&self) -> Result<OwnBroker> {
        let host = &self.host;
        let ours = |path: &str| -> Result<Option<bool>> {
            let text = host.read_text(path)?;
            Ok(text.map(|text| text.contains(view::MANAGED)))
        };
        let settings = ours(resource::broker::NODE_SETTINGS)?;
        let stored = host.list(resource::broker::STORED)?.unwrap_or_default();
        let own = resource::broker::NODE;
        let others = stored
            .iter()
            .any(|name| name.contains('@') && !name.starts_with(own));
        let untouched = settings != Some(true)
            && host.staged_root().is_none()
            && self.settings().broker.mode == Mode::Local
            && resource::broker::is_untouched(host)?;
        let node = untouched || settings.unwrap_or(!others);
        let port_mapper = node
            && match ours(desired::PORT_MAPPER_SETTINGS)? {
                Some(ours) => ours,
                None => resource::broker::may_hide_mapper(host)?,
            };
        Ok(OwnBroker { node, port_mapper })
    }

    /// Whether CamCOPS could read its configuration at all: what it can't read can't be merged.
    fn check_config(&self, text: &str) -> Result<()> {
        let path = self.host.outside(&self.layout.config);
        let mut problems: Vec<String> = camcops_conf::Ini::parse(text)
            .problems()
            .iter()
            .map(|problem| format!("{path}:{}: {}", problem.line, problem.reason))
            .collect();
        if text.trim().is_empty() {
            problems.push(format!("{path}: it is empty"));
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(Exit::Unusable.because(format!(
            "{}\nCamCOPS can't read this file; mend it, or move it away to have a new one written",
            problems.join("\n")
        )))
    }

    /// What the settings alone made of a file when this program wrote it last, if it did.
    fn base_of(&self, journal: &Journal, path: &str, text: &str) -> Result<Option<String>> {
        let found = Content::new(text.as_bytes());
        let owned = journal.find(&Resource::File(path.to_owned()));
        let Some(base) = owned.and_then(|owned| owned.base(&found)) else {
            return Ok(None);
        };
        if *base == found {
            return Ok(Some(text.to_owned()));
        }
        let sealed = journal::recalled_base(&self.host, &self.instance, base)?;
        Ok(sealed.map(|sealed| camcops_conf::unsealed(&sealed, text)))
    }

    /// What CamCOPS would silently ignore under `[config]`: keys that it does not know, values that it can't read.
    pub fn config_warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> = self
            .open_secrets()
            .iter()
            .map(|open| {
                format!(
                    "{open}; `{}` puts it into a file for root alone",
                    open.remedy()
                )
            })
            .collect();
        for (section, values) in &self.settings().config {
            for (key, value) in values {
                let name = format!("config.{section}.{key}");
                if key.ends_with(BY_FILE) {
                    continue;
                }
                let Some(known) = camcops_conf::keys::find(section, key) else {
                    let nearest = camcops_conf::keys::nearest(section, key)
                        .map(|known| format!("; nearest: {}", known.name))
                        .unwrap_or_default();
                    warnings.push(format!(
                        "{name}: CamCOPS does not know this key and ignores it{nearest}"
                    ));
                    continue;
                };
                let ConfigValue::Line(line) = value else {
                    continue;
                };
                // The value itself may be a secret that went to the wrong key.
                let needed = match known.kind {
                    Kind::Int if line.parse::<i64>().is_err() => "a whole number",
                    Kind::Bool if !BOOLEANS.contains(&line.to_lowercase().as_str()) => {
                        "true or false"
                    }
                    _ => continue,
                };
                warnings.push(format!(
                    "{name}: is not {needed}; CamCOPS would silently take its default"
                ));
            }
        }
        warnings
    }
}

fn fit_for_option_file(key: Key) -> Result<Key> {
    match Format::Mysql.escaped(key.secret.reveal()) {
        Ok(_) => Ok(key),
        Err(why) => Err(Exit::Settings.because(format!(
            "database.password_file: the password {why}; choose another one for this account"
        ))),
    }
}

/// What is for trying out only, and why.
const NOT_IN_PRODUCTION: [(&str, &str, &str); 5] = [
    ("site", "DB_ECHO", "it writes patients' data into the log"),
    (
        "site",
        "ALLOW_INSECURE_COOKIES",
        "it sends cookies unencrypted",
    ),
    (
        "server",
        "DEBUG_TOOLBAR",
        "it shows the server's inside to whoever looks",
    ),
    (
        "server",
        "SHOW_RESPONSE",
        "it writes patients' data into the log",
    ),
    (
        "server",
        "GUNICORN_DEBUG_RELOAD",
        "it restarts the server while it works",
    ),
];

fn is_true(value: &str) -> bool {
    ["true", "yes", "on", "1"].contains(&value.trim().to_lowercase().as_str())
}

/// What CamCOPS reads as true or false.
const BOOLEANS: [&str; 8] = ["true", "false", "yes", "no", "on", "off", "1", "0"];

/// What is there already and must not be made again.
#[derive(Debug)]
pub struct Found {
    /// Signs the session cookies.
    pub cookie: Key,
    /// The application's database password; none where it logs in by its account.
    pub database: Option<Key>,
    /// The password of the account that only reads, if there is to be one.
    pub readonly: Option<Key>,
    /// The application's broker password.
    pub broker: Key,
    /// The monitor's password.
    pub monitor: Key,
    /// What goes into camcops.conf and comes from files.
    pub(crate) given: GivenSecrets,
    /// The site's certificate.
    pub certificate: Certificate,
    /// What is worth a word about other instances.
    pub warnings: Vec<String>,
    /// CamCOPS's configuration as it is.
    pub config: Option<String>,
    /// What the settings alone made of it when this program wrote it last.
    pub config_base: Option<String>,
    /// The digests of what services read of it, by the files that they stand in.
    pub config_digests: BTreeMap<String, String>,
    /// Where the application's accounts come from, as the database server sees it; nothing until that is asked.
    pub database_client: Option<String>,
    /// The administrator's own file that rotates our logs.
    pub own_rotation: Option<String>,
    /// How much of a broker on this machine is ours.
    pub own_broker: OwnBroker,
    /// Whether the release that the settings ask for is there: then nothing is needed to build it.
    pub release_is_whole: bool,
    /// The database password that is in use while a new one takes its place.
    pub former_database: Option<Secret>,
}

impl Found {
    /// Puts a new secret in the place of one that this program keeps.
    fn renew(&mut self, name: keys::Name, secret: &Secret) {
        let key = match name {
            keys::Name::Database => self.database.as_mut(),
            keys::Name::Readonly => self.readonly.as_mut(),
            keys::Name::Broker => Some(&mut self.broker),
            keys::Name::Monitor => Some(&mut self.monitor),
            keys::Name::Cookie => Some(&mut self.cookie),
        };
        let Some(key) = key.filter(|key| key.kept_in.is_some()) else {
            return;
        };
        let former = std::mem::replace(&mut key.secret, secret.clone());
        if name == keys::Name::Database {
            self.former_database = Some(former);
        }
    }
}

/// How much of a broker on this machine is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnBroker {
    /// Its node, where there was none before us.
    pub node: bool,
    /// Erlang's port mapper, where there was none before us.
    pub port_mapper: bool,
}

/// The machine, or the staged tree that the command line asks for.
pub fn open_host(global: &Global) -> Result<Host> {
    match &global.root {
        Some(root) => Host::staged(root),
        None => Host::live(),
    }
}
