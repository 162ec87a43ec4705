//! A site opened for a command: its machine, its drivers, and what is read before anything is decided.

use crate::archive::bundle::Bundle;
use crate::base::error::Exit;
use crate::base::progress::Tell;
use crate::base::secret::Secret;
use crate::base::terminal::{self, Style};
use crate::camcops_conf;
use crate::certificate::Pair;
use crate::cli::Global;
use crate::drivers::services::member::list_members;
use crate::drivers::tables::Reader;
use crate::drivers::{Drivers, acme, packages, release, services, sql, superuser, tables};
use crate::host::Host;
use crate::host::secrets::{KeptSecret, SecretName};
use crate::journal::{self, Journal};
use crate::layout::{self, Layout};
use crate::probe::{Backend, Endpoint, broker};
use crate::recipe::render::Format;
use crate::recipe::{Recipe, desired_state};
use crate::resource::{Content, Resource};
use crate::session::sources::{read_sources, settings_file};
use crate::session::timezone::resolve_settings;
use crate::settings::{ConfigValue, Environment, Mode, Origin, Settings};
use crate::site::facts::Facts;
use crate::site::listens::{self, uses_own_ports};
use crate::site::{ExistingState, OwnBroker, Site};
use anyhow::Result;
use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::ops::Deref;
use std::rc::Rc;

#[cfg(test)]
mod cases;
pub(crate) mod certificate;
pub(crate) mod converge;
pub(crate) mod guards;
pub(crate) mod sources;
pub(crate) mod timezone;
pub(crate) mod trial;
pub(crate) mod upgrade_record;

/// A site that a command works on: the machine, its drivers, and what this run is to do.
#[derive(Debug)]
pub struct Session {
    /// What is to be decided from.
    pub site: Site,
    pub(crate) host: Host,
    /// What makes the machine follow; a staged tree has none of them.
    pub(crate) drivers: Drivers,
    /// How this run tells what it does.
    pub(crate) style: Style,
    /// A secret that this run makes anew, in place of the one that is there.
    pub(crate) renewed: OnceCell<(SecretName, Secret)>,
    /// Whether this run only shows what is there, good enough to be served or not.
    pub(crate) only_shows: bool,
    /// A certificate that this run puts in place of the one that is there, whatever else could be had.
    pub(crate) new_certificate: Option<Pair>,
    /// The camcops.conf that the installed CamCOPS has read in this run.
    pub(crate) tried: RefCell<Option<Content>>,
}

impl Deref for Session {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl Session {
    /// Reads settings and facts.
    pub fn open(global: &Global) -> Result<Session> {
        let host = open_host(global)?;
        let settings_file = settings_file(&host, global);
        let sources = read_sources(&host, &settings_file, global)?;
        let resolved = resolve_settings(&host, &sources)?;
        let resolved = resolved.map_err(|problems| Exit::Settings.because(problems.to_string()))?;
        let mut facts = Facts::gather(&host)?;
        facts.untested = release::untested::read_lists(&host, &global.instance)?;
        facts.own_source = release::own::examine_source(&host, &resolved.settings);
        if uses_own_ports(&resolved.settings) {
            facts.apache_listens = listens::find_listens(&host, facts.flavour);
        }
        let layout = Layout::new(facts.flavour, &global.instance);
        let site = Site { instance: global.instance.clone(), settings_file, resolved, facts, layout };
        check_environment(&site)?;
        site.check_secrets()?;
        check_readers(&site)?;
        let drivers = match host.staged_root() {
            Some(_) => Drivers::default(),
            None => drivers(&site, Tell::SHOWN),
        };
        Ok(Session {
            site,
            host,
            drivers,
            style: Style::of(global),
            renewed: OnceCell::new(),
            only_shows: false,
            new_certificate: None,
            tried: RefCell::default(),
        })
    }

    /// Everything that an installation of this site should have.
    pub fn recipe(&self, found: &ExistingState) -> Result<Recipe> {
        desired_state(&self.site, &self.host, found)
    }

    /// One of the three servers, as the settings and the secrets say.
    pub(crate) fn endpoint(&self, role: Backend) -> Result<Endpoint> {
        Endpoint::of(&self.host, &self.site, role)
    }

    /// Dumps the tables of a database before something is done to them, and says in the dump's name what; nothing if there
    /// is nothing in them.
    pub(crate) async fn dump_before(&self, database: &str, next: &str, reader: Reader) -> Result<Option<String>> {
        let drivers = &self.drivers;
        let (known, application) = (drivers.database()?, drivers.application()?);
        tables::dump_before(&known, application, &self.host, database, next, reader).await
    }

    /// Ends every connection that was kept.
    pub(crate) async fn close(&self) {
        self.drivers.close().await;
        if let Some(bundle) = &self.drivers.bundle
            && let Err(why) = bundle.close(&self.host)
        {
            // The next run tries it again.
            terminal::print_note(&format!("warning: {why:#}"));
        }
    }

    /// What was done, once every connection is ended.
    pub(crate) async fn close_after<T>(&self, done: Result<T>) -> Result<T> {
        self.close().await;
        done
    }

    /// Warns of another instance that already has this one's name on the same port: Apache would serve only one of them.
    pub(crate) fn name_clashes(&self) -> Result<Vec<String>> {
        let port = format!(":{}", self.settings().web.https_port.get());
        let mut clashes = Vec::new();
        for other in journal::list_instances(&self.host)? {
            let path = Layout::new(self.facts.flavour, &other).apache_site();
            if other == self.instance {
                continue;
            }
            let Some(site) = self.host.read_text(&path)? else {
                continue;
            };
            for name in self.names() {
                let named = [format!("ServerName \"{name}\""), format!("ServerAlias \"{name}\"")];
                if site.contains(&port) && named.iter().any(|line| site.contains(line)) {
                    clashes.push(format!(
                        "web.server_names: instance {other} serves {name} on the same port, and Apache answers with one of them only; give this instance another name or web.https_port"
                    ));
                }
            }
        }
        Ok(clashes)
    }

    /// The journal as it is.
    pub fn journal(&self) -> Result<Journal> {
        Journal::read(&self.host, &self.instance)
    }

    /// Reads what is already there and must not be made again: secrets, the certificate, CamCOPS's own configuration.
    pub fn read_existing(&self, journal: &Journal) -> Result<ExistingState> {
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
        let given_or_kept = |name: &str, setting: &str, given: Option<&crate::settings::AbsolutePath>| match given {
            Some(path) => KeptSecret::given(host, setting, path.as_str()),
            None => KeptSecret::kept(host, &layout.secrets, name),
        };
        let mut found = ExistingState {
            // Logged-in users stay logged in when a site that was made by hand is taken over.
            cookie: KeptSecret::kept_or(host, &layout.secrets, "cookie", || match cookie_in_use {
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
            readers: settings
                .database
                .readers()
                .map(|reader| {
                    let name = SecretName::of_reader(reader);
                    let secret = given_or_kept(&name.as_str(), reader.password_setting(), reader.password_file)?;
                    anyhow::Ok((reader.user.to_owned(), secret))
                })
                .collect::<Result<_>>()?,
            broker: given_or_kept("broker", "broker.password_file", settings.broker.password_file.as_ref())?,
            monitor: given_or_kept("monitor", "monitor.password_file", settings.monitor.password_file.as_ref())?,
            given: self.given_secrets(host)?,
            certificate: self.certificate()?,
            warnings,
            config,
            config_base,
            config_digests: self.config_digests(journal)?,
            own_broker: self.own_broker()?,
            own_rotation,
            release_is_whole: match release::WantedRelease::new(self.settings(), &self.facts) {
                // What is to be built again needs all that building needs.
                Ok(wanted) if self.drivers.release.as_ref().is_some_and(|one| one.is_to_be_rebuilt(&wanted.id)) => {
                    false
                }
                Ok(wanted) => release::is_whole(&self.host, &wanted.id)?,
                Err(_) => false,
            },
            database_client: match settings.database.mode {
                Mode::Local => Some("localhost".into()),
                Mode::External => settings.database.client_host.as_ref().map(|host| host.as_str().to_owned()),
            },
            former_database: None,
        };
        if let Some((name, secret)) = self.renewed.get() {
            found.renew(name, self.settings(), secret);
        }
        Ok(found)
    }

    /// Those that are as this program wrote them.
    pub(crate) fn config_digests(&self, journal: &Journal) -> Result<BTreeMap<String, String>> {
        let mut digests = BTreeMap::new();
        for part in list_members(self).into_iter().filter_map(|one| one.config) {
            let Some(text) = self.host.read_text(&part.digest)? else {
                continue;
            };
            let written = journal.find(&Resource::File(part.digest.clone()));
            let written = written.and_then(|owned| owned.change.after.content());
            if written == Some(&Content::new(text.as_bytes())) {
                digests.insert(part.digest, text);
            }
        }
        Ok(digests)
    }

    /// Gives the drivers of live resources the secrets that they take.
    pub(crate) fn load_secrets(&self, found: &ExistingState) -> Result<()> {
        if self.host.staged_root().is_some() {
            return Ok(());
        }
        let (drivers, settings) = (&self.drivers, self.settings());
        let endpoint = broker::BrokerAddress::with(settings, &self.layout, found.broker.secret.clone())?;
        drivers.set_broker(crate::drivers::broker::Broker::new(
            endpoint,
            settings.broker.mode == Mode::Local,
            settings.broker.consumer_timeout_ms.get().into(),
        ));
        let earlier = drivers.database.borrow().clone();
        let database = sql::Database::new(&self.host, self, found, earlier.as_deref(), drivers.application()?.tell)?;
        drivers.database.replace(Some(Rc::new(database)));
        if let Some(path) = &settings.superuser.password_file
            && drivers.superuser_password.borrow().is_none()
        {
            let setting = "superuser.password_file";
            let password = KeptSecret::given(&self.host, setting, path.as_str())?.secret;
            superuser::check_password(&password)
                .map_err(|why| Exit::Settings.because(format!("{setting}: the password {why}")))?;
            drivers.superuser_password.replace(Some(password));
        }
        Ok(())
    }

    /// The administrator's own file for logrotate, if one names our logs: two would be an error to logrotate, so theirs
    /// is the one.
    pub(crate) fn own_rotation(&self, warnings: &mut Vec<String>) -> Result<Option<String>> {
        let (host, logging) = (&self.host, &self.settings().logging);
        let Some(directory) = self.log_directory().filter(|_| logging.keep_days.get().is_some()) else {
            return Ok(None);
        };
        let logs = format!("{directory}/");
        for name in host.list(ROTATIONS)?.unwrap_or_default() {
            let path = format!("{ROTATIONS}/{name}");
            let text = host.read_text(&path)?.unwrap_or_default();
            let names_them = text.lines().any(|line| !line.trim_start().starts_with('#') && line.contains(&logs));
            if !names_them || text.contains(layout::MANAGED) {
                continue;
            }
            if self.resolved.origins.get("logging.keep_days") != Some(&Origin::Default) {
                warnings.push(format!(
                    "logging.keep_days: {path} rotates these logs already; remove it, or set logging.keep_days to 0"
                ));
            }
            return Ok(Some(path));
        }
        Ok(None)
    }

    /// How much of a broker on this machine is ours: one that was here before us may have other users, and messages
    /// under the name of its node, unless it was only just installed with us.
    pub(crate) fn own_broker(&self) -> Result<OwnBroker> {
        let host = &self.host;
        let ours = |path: &str| -> Result<Option<bool>> {
            let text = host.read_text(path)?;
            Ok(text.map(|text| text.contains(layout::MANAGED)))
        };
        let settings = ours(crate::drivers::broker::NODE_SETTINGS)?;
        let stored = host.list(crate::drivers::broker::STORED)?.unwrap_or_default();
        let own = crate::drivers::broker::NODES;
        let is_own = |name: &str| own.iter().any(|own| name.starts_with(own));
        let others = stored.iter().any(|name| name.contains('@') && !is_own(name));
        let untouched = settings != Some(true)
            && host.staged_root().is_none()
            && self.settings().broker.mode == Mode::Local
            && crate::drivers::broker::is_untouched(host)?;
        let node = untouched || settings.unwrap_or(!others);
        let port_mapper = node
            && match ours(layout::PORT_MAPPER_SETTINGS)? {
                Some(ours) => ours,
                None => crate::drivers::broker::may_hide_mapper(host)?,
            };
        let version = self.facts.broker_version;
        let is_local = self.settings().broker.mode == Mode::Local;
        Ok(OwnBroker {
            node,
            name: crate::drivers::broker::choose_node(host, version)?,
            unreadable: match is_local {
                true => crate::drivers::broker::find_unreadable(host, version)?,
                false => None,
            },
            port_mapper,
        })
    }

    /// Whether CamCOPS could read its configuration at all: what it can't read can't be merged.
    pub(crate) fn check_config(&self, text: &str) -> Result<()> {
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
            "{}\nCamCOPS can't read this file; correct it, or move it away to have a new one written",
            problems.join("\n")
        )))
    }

    /// What the settings alone made of a file when this program wrote it last, if it did.
    pub(crate) fn base_of(&self, journal: &Journal, path: &str, text: &str) -> Result<Option<String>> {
        let found = Content::new(text.as_bytes());
        let owned = journal.find(&Resource::File(path.to_owned()));
        let Some(base) = owned.and_then(|owned| owned.base(&found)) else {
            return Ok(None);
        };
        if *base == found {
            return Ok(Some(text.to_owned()));
        }
        let sealed = journal::recalled_base(&self.host, &self.instance, base)?;
        Ok(sealed.map(|sealed| camcops_conf::unseal_values(&sealed, text)))
    }
}

/// All of them, for the machine that the program runs on; nothing is asked or read yet.
fn drivers(site: &Site, tell: Tell) -> Drivers {
    let (settings, facts, layout) = (site.settings(), &site.facts, &site.layout);
    let network = &settings.network;
    let bundle = Bundle::of(&settings.camcops, tell).map(Rc::new);
    Drivers {
        packages: Some(packages::PackageSource::new(facts.flavour.packages, network, bundle.clone(), tell)),
        services: Some(services::ServiceManager::of(site)),
        acme: Some(acme::Certbot::new(site.names(), &settings.tls, network, tell)),
        release: Some(release::ReleaseRecipe::new(settings, facts, bundle.clone(), tell)),
        application: Some(tables::Application::new(
            site.account(),
            layout,
            &settings.backup,
            facts.magick_suffix(),
            tell,
        )),
        bundle,
        ..Drivers::default()
    }
}

/// Refuses a reader with the name of the application's account, which the settings need not name.
fn check_readers(site: &Site) -> Result<()> {
    let database = &site.settings().database;
    let application = database.user_or(&site.layout.slug);
    match database.reader(application) {
        Some(reader) => Err(Exit::Settings.because(format!(
            "{}: {application} is the application's own account, which also writes: choose another name",
            reader.setting()
        ))),
        None => Ok(()),
    }
}

/// Refuses what would show patients' data or weaken the site where real patients are seen.
fn check_environment(site: &Site) -> Result<()> {
    if site.settings().site.environment != Environment::Production {
        return Ok(());
    }
    let config = &site.settings().config;
    let refused: Vec<String> = NOT_IN_PRODUCTION
        .iter()
        .filter(|(section, key, _)| {
            let value = config.get(*section).and_then(|values| values.get(*key));
            matches!(value, Some(ConfigValue::Line(line)) if is_true(line))
        })
        .map(|(section, key, why)| {
            format!(
                "config.{section}.{key}: {why}, and site.environment is \"production\"; remove it, or set site.environment = \"test\" if there are no real patients"
            )
        })
        .collect();
    match refused.is_empty() {
        true => Ok(()),
        false => Err(Exit::Settings.because(refused.join("\n"))),
    }
}

impl ExistingState {
    /// Puts a new secret in the place of one that this program keeps.
    pub(crate) fn renew(&mut self, name: &SecretName, settings: &Settings, secret: &Secret) {
        let key = match name {
            SecretName::Database => self.database.as_mut(),
            SecretName::Readonly | SecretName::ReadonlyOf(_) => {
                let reader = settings.database.readers().find(|reader| SecretName::of_reader(*reader) == *name);
                reader.and_then(|reader| self.readers.get_mut(reader.user))
            }
            SecretName::Broker => Some(&mut self.broker),
            SecretName::Monitor => Some(&mut self.monitor),
            SecretName::Cookie => Some(&mut self.cookie),
        };
        let Some(key) = key.filter(|key| key.kept_in.is_some()) else {
            return;
        };
        let former = std::mem::replace(&mut key.secret, secret.clone());
        if *name == SecretName::Database {
            self.former_database = Some(former);
        }
    }
}

/// Where logrotate reads what is to be rotated.
pub(crate) const ROTATIONS: &str = "/etc/logrotate.d";

pub(crate) fn fit_for_option_file(key: KeptSecret) -> Result<KeptSecret> {
    match Format::Mysql.escaped(key.secret.reveal()) {
        Ok(_) => Ok(key),
        Err(why) => Err(Exit::Settings
            .because(format!("database.password_file: the password {why}; choose another one for this account"))),
    }
}

/// What is for trying out only, and why.
pub(crate) const NOT_IN_PRODUCTION: [(&str, &str, &str); 5] = [
    ("site", "DB_ECHO", "it writes patient data to the log"),
    ("site", "ALLOW_INSECURE_COOKIES", "it sends cookies unencrypted"),
    ("server", "DEBUG_TOOLBAR", "it shows internals of the server to anybody"),
    ("server", "SHOW_RESPONSE", "it writes patient data to the log"),
    ("server", "GUNICORN_DEBUG_RELOAD", "it restarts the server during use"),
];

pub(crate) fn is_true(value: &str) -> bool {
    ["true", "yes", "on", "1"].contains(&value.trim().to_lowercase().as_str())
}

/// The machine, or the staged tree that the command line asks for.
pub(crate) fn open_host(global: &Global) -> Result<Host> {
    match &global.root {
        Some(root) => Host::staged(root),
        None => Host::live(),
    }
}
