//! The recipe: what an installation should have. It reads as the table of contents of an installation.
//!
//! It is pure: it sees the site (settings, facts, layout) and what was found, and nothing else.

use crate::camcops_conf::{self, Ini};
use crate::facts::{Manager, Pdf};
use crate::layout::{DEDICATED_ACCOUNT, FORK_HOOK, What, Whose};
use crate::render::{Format, Renderer};
use crate::resource::broker::{NODE_SETTINGS, all_permissions, long_enough};
use crate::resource::services::member::{Role, UNIT_HOME, members};
use crate::resource::sql::{self, Purpose};
use crate::resource::{Content, Facets, Part, Resource, Shown, State, Wanted, release, tables};
use crate::settings::{AccountUser, ConfigValue, DatabaseTls, Frontend, LogMode, Mode, Service};
use crate::site::{Certificate, Found, Site};
use crate::view::view;
use anyhow::{Context, Result};
use std::collections::BTreeSet;

/// What is wanted, in the order of making, and what the administrator changed and keeps.
#[derive(Debug)]
pub struct Recipe {
    /// Parents before children, accounts before their files.
    pub wanted: Vec<Wanted>,
    /// Keys of camcops.conf that stay as the administrator set them.
    pub kept: Vec<crate::mask::Kept>,
    /// What is worth a word but stops nothing.
    pub warnings: Vec<String>,
    /// What this machine lacks for a part, and what to do about it: that part can't be planned.
    pub missing: Vec<(Part, String)>,
}

/// Everything that an installation should have.
pub fn desired(site: &Site, found: &Found) -> Result<Recipe> {
    let mut recipe = Draft::new(site, found)?;
    recipe.broker_settings()?;
    recipe.database_settings()?;
    recipe.packages();
    recipe.accounts();
    recipe.directories();
    recipe.application();
    recipe.secrets();
    recipe.certificate();
    recipe.configuration()?;
    recipe.launchers()?;
    recipe.database();
    recipe.broker();
    recipe.tables();
    recipe.superuser();
    recipe.services()?;
    recipe.web()?;
    recipe.firewall()?;
    Ok(recipe.finished())
}

struct Draft<'a> {
    site: &'a Site,
    found: &'a Found,
    view: serde_json::Value,
    renderer: Renderer,
    /// Whether CamCOPS has nobody to talk to outside of this machine.
    stays_on_machine: bool,
    recipe: Recipe,
}

/// A text file of ours.
struct Text<'a> {
    path: &'a str,
    text: String,
    whose: Whose,
    mode: &'a str,
    part: Part,
    because: &'a str,
    shown: Shown,
}

macro_rules! template {
    ($name:literal) => {
        ($name, include_str!(concat!("../templates/", $name)))
    };
}

macro_rules! unit {
    ($name:literal) => {
        ($name, include_str!(concat!("../units/", $name)))
    };
}

const UNITS: [(&str, &str); 7] = [
    unit!("camcops.target"),
    unit!("camcops@.target"),
    unit!("camcops-server@.socket"),
    unit!("camcops-server@.service"),
    unit!("camcops-workers@.service"),
    unit!("camcops-scheduler@.service"),
    unit!("camcops-monitor@.service"),
];
/// What we say about the socket of Erlang's port mapper.
pub const PORT_MAPPER_SETTINGS: &str = "/etc/systemd/system/epmd.socket.d/10-camcops.conf";

impl<'a> Draft<'a> {
    fn new(site: &'a Site, found: &'a Found) -> Result<Draft<'a>> {
        let mut warnings = site.config_warnings();
        warnings.extend(found.warnings.iter().cloned());
        if let Certificate::Given { warnings: more, .. } = &found.certificate {
            warnings.extend(more.iter().cloned());
        }
        Ok(Draft {
            site,
            found,
            view: view(site, found),
            renderer: Renderer::default(),
            stays_on_machine: false,
            recipe: Recipe {
                wanted: Vec::new(),
                kept: Vec::new(),
                warnings,
                missing: Vec::new(),
            },
        })
    }

    fn accounts(&mut self) {
        if self.site.settings().account.user != AccountUser::Camcops {
            return;
        }
        let because = "the services run as an account of their own";
        self.want(
            Resource::Group(DEDICATED_ACCOUNT.into()),
            Facets::new(),
            Part::Accounts,
            because,
        );
        let facets = match self.site.settings().account.uid.given() {
            Some(uid) => Facets::new().with("uid", uid.get().to_string()),
            None => Facets::new(),
        };
        self.want(
            Resource::User(DEDICATED_ACCOUNT.into()),
            facets,
            Part::Accounts,
            because,
        );
    }

    fn directories(&mut self) {
        let logs = &self.site.layout.logs;
        let log_files = self.site.settings().logging.mode == LogMode::File;
        for row in self.site.layout.rows(self.site.dedicated()) {
            let unused = row.path == *logs && !log_files;
            if row.what != What::Directory || unused || row.mode.is_empty() {
                continue;
            }
            let facets = self.owned(Facets::new().with("type", "directory"), row.whose, row.mode);
            self.want(
                Resource::Directory(row.path),
                facets,
                Part::Directories,
                row.purpose,
            );
        }
    }

    /// The release first, and only then the links that make it the current one.
    fn application(&mut self) {
        let wanted = match release::Wanted::new(self.site) {
            Ok(wanted) => wanted,
            // A staged tree has its Python when it runs.
            Err(_) if self.site.facts.staged => return,
            Err(release::Missing(what)) => {
                self.recipe.missing.push((Part::Application, what));
                return;
            }
        };
        let because = format!(
            "CamCOPS {} on {}",
            wanted.version.as_str(),
            wanted.python.path
        );
        self.want(
            Resource::Release(wanted.id.clone()),
            wanted.facets(),
            Part::Application,
            &because,
        );
        if self.site.facts.staged {
            // The first boot knows which release it makes.
            return;
        }
        let layout = &self.site.layout;
        for (path, target, because) in [
            (
                &layout.venv,
                format!("releases/{}", wanted.id),
                "the current release",
            ),
            (
                &layout.static_files,
                "venv/static".into(),
                "its static files",
            ),
            (
                &layout.release_strings,
                "venv/extra_strings".into(),
                "its strings",
            ),
        ] {
            let path = path.clone();
            self.link(&path, &target, Part::Application, because);
        }
    }

    fn secrets(&mut self) {
        let found = self.found;
        let keys = [
            (Some(&found.cookie), "signs the session cookies"),
            (
                found.database.as_ref(),
                "the application's database password",
            ),
            (
                found.readonly.as_ref(),
                "the password of the database account that only reads",
            ),
            (Some(&found.broker), "the application's broker password"),
            (Some(&found.monitor), "the monitor's password"),
        ];
        for (key, because) in keys {
            let Some(key) = key else { continue };
            let Some(path) = &key.kept_in else { continue };
            self.text(Text {
                path,
                text: format!("{}\n", key.secret.reveal()),
                whose: Whose::Root,
                mode: "0600",
                part: Part::Secrets,
                because,
                shown: Shown::Nothing,
            });
        }
    }

    fn certificate(&mut self) {
        let Certificate::Own { pair, because } = &self.found.certificate else {
            return;
        };
        let because = match because.is_empty() {
            true => {
                "a certificate that is signed by itself, until you have a better one".to_owned()
            }
            false => format!("a new self-signed certificate: {because}"),
        };
        // The key first: a certificate without its key would stop the web server.
        let files = [
            (
                &self.site.layout.key,
                pair.key.as_str(),
                "0600",
                Shown::Nothing,
            ),
            (
                &self.site.layout.certificate,
                pair.certificate.as_str(),
                "0644",
                Shown::Whole,
            ),
        ];
        for (path, text, mode, shown) in files {
            self.text(Text {
                path,
                text: text.to_owned(),
                whose: Whose::Root,
                mode,
                part: Part::Certificate,
                because: &because,
                shown,
            });
        }
    }

    fn configuration(&mut self) -> Result<()> {
        let layout = &self.site.layout;
        let ours = self.camcops_conf()?;
        let found = self.found;
        let merged =
            camcops_conf::merge(&ours, found.config.as_deref(), found.config_base.as_deref());
        let config = Ini::parse(&merged.text);
        self.stays_on_machine = stays_on_machine(self.site, &config);
        self.view["sandbox"]["write_paths"] = export_folders(&config).into();
        self.recipe.kept = merged
            .kept
            .iter()
            .map(|kept| crate::mask::Kept::new(&layout.config, kept))
            .collect();
        self.want_text(
            Text {
                path: &layout.config,
                text: merged.text,
                whose: Whose::RootForService,
                mode: "0640",
                part: Part::Configuration,
                because: "CamCOPS's own configuration",
                shown: Shown::Masked,
            },
            Some(Content::new(ours.into_bytes())),
        );
        let login = self.rendered(Format::Mysql, template!("my.cnf.hbs"))?;
        self.text(Text {
            path: &layout.option_file,
            text: login,
            whose: Whose::RootForService,
            mode: "0640",
            part: Part::Configuration,
            because: "the application's database login",
            shown: Shown::Nothing,
        });
        if self.serves(Service::Monitor) {
            let monitor = self.rendered(Format::Python, template!("flower.py.hbs"))?;
            self.text(Text {
                path: &layout.monitor_config,
                text: monitor,
                whose: Whose::RootForService,
                mode: "0640",
                part: Part::Configuration,
                because: "the monitor answers on this machine only, and asks for a password",
                shown: Shown::Nothing,
            });
        }
        Ok(())
    }

    /// The configuration as the settings alone make it.
    fn camcops_conf(&mut self) -> Result<String> {
        let text = self.rendered(Format::Ini, template!("camcops.conf.hbs"))?;
        // An empty value leaves a blank behind its equals sign.
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        let mut file = Ini::parse(&(lines.join("\n") + "\n"));
        let passed = &self.site.settings().config;
        let recipients: Vec<&str> = passed
            .keys()
            .filter_map(|section| section.strip_prefix("recipient:"))
            .collect();
        if !recipients.is_empty() {
            file.set("export", "RECIPIENTS", &camcops_conf::list(&recipients))?;
        }
        for (section, values) in passed {
            for (key, value) in values {
                let value = match value {
                    ConfigValue::Line(line) => camcops_conf::escape(line),
                    ConfigValue::List(lines) => camcops_conf::escape(&camcops_conf::list(lines)),
                };
                file.set(section, key, &value).with_context(|| {
                    format!("config.{section}.{key} can't stand in camcops.conf")
                })?;
            }
        }
        Ok(file.to_string())
    }

    fn launchers(&mut self) -> Result<()> {
        for program in ["camcops_server", "camcops_server_meta"] {
            self.view["program"] = program.into();
            let launcher = self.rendered(Format::Shell, template!("launcher.sh.hbs"))?;
            self.public(
                &format!("/usr/bin/{program}"),
                launcher,
                "0755",
                Part::Launchers,
                "CamCOPS's own command",
            );
        }
        for (name, text) in [
            template!("camcops_server.1.hbs"),
            template!("camcops_server_meta.1.hbs"),
        ] {
            let text = self.rendered(Format::Plain, (name, text))?;
            let path = format!("/usr/share/man/man1/{}", name.trim_end_matches(".hbs"));
            self.public(&path, text, "0644", Part::Launchers, "its manual page");
        }
        Ok(())
    }

    /// Before the packages: so the database server reads this when it starts for the first time.
    fn database_settings(&mut self) -> Result<()> {
        if let Some(path) = self.site.database_drop_in() {
            let text = self.rendered(Format::Plain, template!("database.cnf.hbs"))?;
            self.public(
                &path,
                text,
                "0644",
                Part::Database,
                "uploads arrive in large packets",
            );
        }
        Ok(())
    }

    fn database(&mut self) {
        self.running(
            |role| role == Role::Database,
            Part::Database,
            "the database server of this machine",
        );
        let settings = &self.site.settings().database;
        let slug = &self.site.layout.slug;
        let name = settings.name_or(slug).to_owned();
        let local = settings.mode == Mode::Local;
        let checked_only = !local && settings.admin_defaults_file.is_none();
        let mut schema = Facets::new()
            .with("charset", sql::CHARSET)
            .with("collation", sql::COLLATION);
        if local && settings.tuning {
            schema = schema.with("max_packet", sql::LARGE_ENOUGH);
            if settings.flush_log_at_trx_commit.get() == 2 {
                schema = schema.with("flush", "2");
            }
        }
        let because = "the patients' data";
        self.want(
            Resource::Schema(name.clone()),
            schema,
            Part::Database,
            because,
        );
        let Some(from) = &self.found.database_client else {
            return;
        };
        let user = match self.site.socket_authentication() {
            true => self.site.account(),
            false => settings.user_or(slug),
        };
        let accounts = [
            (
                Some(user),
                Purpose::Application,
                "the application logs in to the database",
            ),
            (
                settings.readonly_user.as_ref().map(|user| user.as_str()),
                Purpose::Reading,
                "reports read from the database",
            ),
        ];
        for (user, purpose, because) in accounts {
            let Some(user) = user else { continue };
            let mut account = Facets::new().with("login", "works");
            if checked_only {
                if purpose == Purpose::Application {
                    account = account.with("grants", sql::ENOUGH);
                }
            } else {
                let by_socket =
                    purpose == Purpose::Application && self.site.socket_authentication();
                account = account
                    .with("method", if by_socket { "socket" } else { "password" })
                    .with("grants", purpose.grants(&name));
                if !local && settings.tls != DatabaseTls::Off {
                    account = account.with("tls", "required");
                }
            }
            let account_name = format!("{user}@{from}");
            self.want(
                Resource::SqlAccount(account_name),
                account,
                Part::Database,
                because,
            );
        }
    }

    fn tables(&mut self) {
        let name = self
            .site
            .settings()
            .database
            .name_or(&self.site.layout.slug);
        // A new release may have new migrations.
        let releases = self.recipe.wanted.iter().map(|wanted| &wanted.resource);
        let inputs = releases
            .filter(|resource| matches!(resource, Resource::Release(_)))
            .cloned()
            .collect();
        self.recipe.wanted.push(Wanted {
            resource: Resource::Tables(name.to_owned()),
            state: State::Present(Facets::new().with("revision", tables::HEAD)),
            because: "what the installed release works with".into(),
            part: Part::Tables,
            shown: Shown::Whole,
            base: None,
            inputs,
        });
    }

    fn superuser(&mut self) {
        if let Some(name) = &self.site.settings().superuser.username {
            self.want(
                Resource::Superuser(name.as_str().to_owned()),
                Facets::new(),
                Part::Superuser,
                "the first to log in, who lets the others in",
            );
        }
    }

    /// Before the packages: so the broker reads this when it starts for the first time, and never listens to others.
    fn broker_settings(&mut self) -> Result<()> {
        if self.site.settings().broker.mode != Mode::Local {
            return Ok(());
        }
        let text = self.rendered(Format::Plain, template!("rabbitmq.conf.hbs"))?;
        let path = self.site.layout.broker_drop_in();
        self.public(
            &path,
            text,
            "0644",
            Part::Broker,
            "tasks may wait long for their next attempt",
        );
        let own = self.found.own_broker;
        if own.node {
            let text = self.rendered(Format::Plain, template!("rabbitmq-env.conf.hbs"))?;
            self.public(
                NODE_SETTINGS,
                text,
                "0644",
                Part::Broker,
                "the broker keeps its name and its messages when the machine is renamed, and only this machine reaches it",
            );
        }
        if own.port_mapper && self.site.manager() == Manager::Systemd {
            let text = self.rendered(Format::Plain, template!("epmd.socket.conf.hbs"))?;
            self.public(
                PORT_MAPPER_SETTINGS,
                text,
                "0644",
                Part::Broker,
                "only this machine reaches Erlang's port mapper",
            );
        }
        Ok(())
    }

    fn packages(&mut self) {
        let (settings, facts) = (self.site.settings(), &self.site.facts);
        let names = facts.flavour.packages;
        let roles = [
            (
                names.database,
                settings.database.mode == Mode::Local,
                "the database server",
            ),
            (
                names.broker,
                settings.broker.mode == Mode::Local,
                "the message broker",
            ),
            (
                names.web,
                settings.web.frontend == Frontend::Apache,
                "the web server",
            ),
            (
                names.supervisor,
                self.site.manager() == Manager::Supervisor,
                "starts and watches the services",
            ),
            (names.application, true, "CamCOPS needs it"),
            (names.pdf, facts.pdf == Pdf::Packaged, "makes PDF documents"),
            (
                names.logs,
                settings.logging.mode == LogMode::File,
                "log files must not grow for ever",
            ),
        ];
        for (names, wanted, because) in roles {
            for name in names.iter().filter(|_| wanted) {
                let package = Resource::Package((*name).to_owned());
                self.want(package, Facets::new(), Part::Packages, because);
            }
        }
        if let Ok(release) = release::Wanted::new(self.site) {
            let (python, for_building) = release::python::packages(names.manager, &release.python);
            let building = for_building
                .into_iter()
                .chain(names.build.iter().map(|name| (*name).to_owned()));
            let building = building.filter(|_| !self.found.release_is_whole);
            let all = python.into_iter().map(|name| (name, "CamCOPS runs on it"));
            for (name, because) in
                all.chain(building.map(|name| (name, "some of CamCOPS is compiled here")))
            {
                self.want(
                    Resource::Package(name),
                    Facets::new(),
                    Part::Packages,
                    because,
                );
            }
        }
        if facts.pdf == Pdf::Missing && !facts.staged {
            self.recipe.warnings.push(
                "PDF documents can't be made: this distribution has no package of wkhtmltopdf; put that program into /usr/local/bin".into(),
            );
        }
    }

    fn broker(&mut self) {
        self.running(
            |role| role == Role::Broker,
            Part::Broker,
            "the broker of this machine",
        );
        let broker = &self.site.settings().broker;
        let slug = &self.site.layout.slug;
        let (vhost, user) = (broker.vhost_or(slug), broker.user_or(slug));
        let mut account = Facets::new().with("login", "works");
        if broker.mode == Mode::Local {
            let timeout = long_enough(broker.consumer_timeout_ms.get().into());
            self.want(
                Resource::Vhost(vhost.to_owned()),
                Facets::new().with("consumer_timeout", timeout),
                Part::Broker,
                "tasks wait here for the workers",
            );
            account = account
                .with("tags", BTreeSet::new())
                .with("permissions", BTreeSet::from([all_permissions(vhost)]));
        }
        self.want(
            Resource::BrokerAccount(user.to_owned()),
            account,
            Part::Broker,
            "the application logs in to the broker",
        );
    }

    fn services(&mut self) -> Result<()> {
        let hook = self.rendered(Format::Plain, template!("sitecustomize.py.hbs"))?;
        self.public(
            FORK_HOOK,
            hook,
            "0644",
            Part::Services,
            "web workers must not share database connections",
        );
        match self.site.manager() {
            Manager::Systemd => self.systemd()?,
            Manager::Supervisor => self.supervisor()?,
        }
        if self.site.settings().logging.mode == LogMode::File {
            let text = self.rendered(Format::Systemd, template!("logrotate.hbs"))?;
            let path = format!("/etc/logrotate.d/{}", self.site.layout.slug);
            self.public(
                &path,
                text,
                "0644",
                Part::Services,
                "log files must not grow for ever",
            );
        }
        self.running(
            Role::is_ours,
            Part::Services,
            "started, and again whenever what it reads has changed",
        );
        Ok(())
    }

    fn systemd(&mut self) -> Result<()> {
        let slug = self.site.layout.slug.clone();
        for (name, text) in UNITS {
            let path = format!("{UNIT_HOME}/{name}");
            self.public(
                &path,
                text.to_owned(),
                "0644",
                Part::Services,
                "started and watched by systemd",
            );
        }
        let link = |target: &str, unit: &str| {
            (
                format!("{UNIT_HOME}/{target}.wants/{unit}"),
                unit.to_owned(),
            )
        };
        let mut links = vec![
            link("multi-user.target", "camcops.target"),
            link("camcops.target", &format!("camcops@{slug}.target")),
        ];
        for &service in Service::ALL {
            if !self.serves(service) {
                continue;
            }
            let unit = format!("camcops-{}@{slug}.service", service.as_str());
            self.view["unit"] = service.as_str().into();
            // Scheduler and monitor talk to the broker and to nobody else.
            let local_only = match service {
                Service::Server | Service::Workers => self.stays_on_machine,
                Service::Scheduler | Service::Monitor => {
                    self.site.settings().broker.mode == Mode::Local
                }
            };
            self.view["sandbox"]["local_only"] = local_only.into();
            let text = self.rendered(Format::Systemd, template!("unit-drop-in.conf.hbs"))?;
            let path = format!("{UNIT_HOME}/{unit}.d/10-provision.conf");
            self.public(
                &path,
                text,
                "0644",
                Part::Services,
                "what the settings say about this service",
            );
            links.push(link(&format!("camcops@{slug}.target"), &unit));
        }
        if self.serves(Service::Server) && self.site.has_web_socket() {
            let unit = format!("camcops-server@{slug}.socket");
            let text = self.rendered(Format::Systemd, template!("socket-drop-in.conf.hbs"))?;
            let path = format!("{UNIT_HOME}/{unit}.d/10-provision.conf");
            self.public(
                &path,
                text,
                "0644",
                Part::Services,
                "visitors wait here while the web server starts",
            );
            links.push(link(&format!("camcops@{slug}.target"), &unit));
        }
        for (path, unit) in links {
            // A unit of an instance is a link to the template of all instances.
            let template = match unit.split_once('@') {
                Some((name, rest)) => {
                    let kind = rest.rsplit('.').next().unwrap_or_default();
                    format!("{UNIT_HOME}/{name}@.{kind}")
                }
                None => format!("{UNIT_HOME}/{unit}"),
            };
            self.link(&path, &template, Part::Services, "started at boot");
        }
        let text = self.rendered(Format::Systemd, template!("tmpfiles.conf.hbs"))?;
        self.public(
            &format!("/etc/tmpfiles.d/{slug}.conf"),
            text,
            "0644",
            Part::Services,
            "made again at each boot",
        );
        if self.site.dedicated() {
            let text = self.rendered(Format::Systemd, template!("sysusers.conf.hbs"))?;
            self.public(
                "/etc/sysusers.d/camcops.conf",
                text,
                "0644",
                Part::Services,
                "the account, for a first boot",
            );
        }
        let text = self.rendered(Format::Plain, template!("needrestart.conf.hbs"))?;
        self.public(
            "/etc/needrestart/conf.d/camcops.conf",
            text,
            "0644",
            Part::Services,
            "a package upgrade must not cut off an upload",
        );
        Ok(())
    }

    fn supervisor(&mut self) -> Result<()> {
        let text = self.rendered(Format::Supervisor, template!("supervisor.conf.hbs"))?;
        let path = self.site.layout.supervisor_programs();
        self.public(
            &path,
            text,
            "0644",
            Part::Services,
            "started and watched by supervisor",
        );
        let logs = self.site.layout.supervisor_logs.clone();
        self.want(
            Resource::Directory(logs),
            Facets::new().with("type", "directory"),
            Part::Services,
            "supervisor's logs",
        );
        Ok(())
    }

    fn web(&mut self) -> Result<()> {
        if self.site.settings().web.frontend != Frontend::Apache {
            return Ok(());
        }
        self.apache_modules();
        let text = self.rendered(Format::Apache, template!("apache-site.conf.hbs"))?;
        let path = self.site.layout.apache_site();
        self.public(&path, text, "0644", Part::Web, "HTTPS in front of CamCOPS");
        let slug = self.site.layout.slug.clone();
        if let Some(link) = self.site.layout.apache_link() {
            self.apache_note("site", &slug);
            self.link(
                &link,
                &format!("../sites-available/{slug}.conf"),
                Part::Web,
                "the site is switched on",
            );
        }
        self.running(
            |role| role == Role::Web,
            Part::Web,
            "Apache serves the site, and reads its configuration again when that changed",
        );
        Ok(())
    }

    /// What `a2enmod` does: a link per file, and the note that keeps other packages from switching the module off.
    fn apache_modules(&mut self) {
        for (link, target) in self.site.apache_modules() {
            let file = target.rsplit('/').next().unwrap_or_default();
            if let Some(module) = file.strip_suffix(".load") {
                self.apache_note("module", module);
            }
            self.link(&link, &target, Part::Web, "the site needs this module");
        }
    }

    fn apache_note(&mut self, kind: &str, name: &str) {
        if let Some(notes) = self.site.facts.flavour.apache_notes {
            self.public(
                &format!("{notes}/{kind}/enabled_by_admin/{name}"),
                String::new(),
                "0644",
                Part::Web,
                "Debian's own note that the administrator wants it",
            );
        }
    }

    fn firewall(&mut self) -> Result<()> {
        let slug = self.site.layout.slug.clone();
        let ufw = self.rendered(Format::Plain, template!("ufw.hbs"))?;
        self.public(
            &format!("/etc/ufw/applications.d/{slug}"),
            ufw,
            "0644",
            Part::Firewall,
            "a name for the site's ports in ufw",
        );
        let firewalld = self.rendered(Format::Xml, template!("firewalld.xml.hbs"))?;
        self.public(
            &format!("/etc/firewalld/services/{slug}.xml"),
            firewalld,
            "0644",
            Part::Firewall,
            "a name for the site's ports in firewalld",
        );
        Ok(())
    }

    /// The services of some roles, running and fresh.
    fn running(&mut self, chosen: impl Fn(Role) -> bool, part: Part, because: &str) {
        for member in members(self.site)
            .into_iter()
            .filter(|member| chosen(member.role))
        {
            let mut facets = Facets::new().with("fresh", "yes");
            if member.is_unit() {
                facets = facets.with("enabled", "yes");
            }
            if !matches!(member.role, Role::Socket | Role::Database | Role::Broker) {
                facets = facets.with("answers", "yes");
            }
            self.want(Resource::Service(member.name), facets, part, because);
            if let Some(wanted) = self.recipe.wanted.last_mut() {
                wanted.inputs = member
                    .inputs
                    .into_iter()
                    .flat_map(|path| [Resource::File(path.clone()), Resource::Symlink(path)])
                    .collect();
            }
        }
    }

    // How a resource gets into the recipe.

    fn serves(&self, service: Service) -> bool {
        !self.site.settings().services.disabled.contains(&service)
    }

    fn rendered(&mut self, format: Format, (name, template): (&str, &str)) -> Result<String> {
        self.renderer.render(name, format, template, &self.view)
    }

    fn want(&mut self, resource: Resource, facets: Facets, part: Part, because: &str) {
        self.recipe.wanted.push(Wanted {
            resource,
            state: State::Present(facets),
            because: because.to_owned(),
            part,
            shown: Shown::Whole,
            base: None,
            inputs: Vec::new(),
        });
    }

    fn public(&mut self, path: &str, text: String, mode: &str, part: Part, because: &str) {
        self.text(Text {
            path,
            text,
            whose: Whose::Root,
            mode,
            part,
            because,
            shown: Shown::Whole,
        });
    }

    fn text(&mut self, file: Text<'_>) {
        self.want_text(file, None);
    }

    fn want_text(&mut self, file: Text<'_>, base: Option<Content>) {
        let facets = Facets::new()
            .with("type", "file")
            .with("content", Content::new(file.text.into_bytes()));
        let facets = self.owned(facets, file.whose, file.mode);
        self.recipe.wanted.push(Wanted {
            resource: Resource::File(file.path.to_owned()),
            state: State::Present(facets),
            because: file.because.to_owned(),
            part: file.part,
            shown: file.shown,
            base,
            inputs: Vec::new(),
        });
    }

    fn link(&mut self, path: &str, target: &str, part: Part, because: &str) {
        let facets = Facets::new().with("type", "symlink").with("target", target);
        self.want(Resource::Symlink(path.to_owned()), facets, part, because);
    }

    /// With owner and mode. An owner that this tree does not know, or that an ordinary user can't give to, is left to the first boot.
    fn owned(&self, facets: Facets, whose: Whose, mode: &str) -> Facets {
        let facts = &self.site.facts;
        let owner = self.site.owner_of(whose);
        let known = owner
            .split_once(':')
            .is_some_and(|(user, group)| facts.can_give_to(user, group));
        let facets = facets.with("mode", mode);
        match !facts.staged || known {
            true => facets.with("owner", owner),
            false => facets,
        }
    }

    /// With every directory that something stands in: those that nobody asked for by name are only made if they are missing.
    fn finished(mut self) -> Recipe {
        let mut known: BTreeSet<String> = BTreeSet::new();
        let named: BTreeSet<String> = self
            .recipe
            .wanted
            .iter()
            .filter(|wanted| matches!(wanted.resource, Resource::Directory(_)))
            .map(|wanted| wanted.resource.name().to_owned())
            .collect();
        let mut all = Vec::with_capacity(self.recipe.wanted.len() * 2);
        for wanted in std::mem::take(&mut self.recipe.wanted) {
            if let Resource::Directory(path) | Resource::File(path) | Resource::Symlink(path) =
                &wanted.resource
            {
                for parent in parents(path) {
                    if !named.contains(&parent) && known.insert(parent.clone()) {
                        all.push(Wanted {
                            resource: Resource::Directory(parent),
                            state: State::Present(Facets::new()),
                            because: "something of ours stands in it".into(),
                            part: wanted.part,
                            shown: Shown::Whole,
                            base: None,
                            inputs: Vec::new(),
                        });
                    }
                }
            }
            all.push(wanted);
        }
        self.recipe.wanted = all;
        self.recipe
    }
}

/// Mail, text messages and the exports of recipients leave the machine, whoever wrote them into the configuration.
fn stays_on_machine(site: &Site, config: &Ini) -> bool {
    let settings = site.settings();
    let is_any = |section: &str, key: &str, idle: &[&str]| {
        let value = config.get(section, key).unwrap_or_default();
        !idle.contains(&value.trim())
    };
    settings.database.mode == Mode::Local
        && settings.broker.mode == Mode::Local
        && !is_any("site", "EMAIL_HOST", &[""])
        && !is_any("site", "SMS_BACKEND", &["", "console"])
        && !is_any("export", "RECIPIENTS", &[""])
}

/// The folders that recipients export files to: the part of the name before anything variable.
fn export_folders(config: &Ini) -> Vec<String> {
    let mut folders: Vec<String> = config
        .entries()
        .into_iter()
        .filter(|entry| entry.key.eq_ignore_ascii_case("FILE_FILENAME_SPEC"))
        .filter_map(|entry| {
            let fixed = entry.value.split('{').next().unwrap_or_default();
            let (folder, _) = fixed.rsplit_once('/')?;
            (folder.len() > 1 && folder.starts_with('/')).then(|| folder.to_owned())
        })
        .collect();
    folders.sort();
    folders.dedup();
    folders
}

/// `/a/b/c` stands in `/a` and `/a/b`.
fn parents(path: &str) -> Vec<String> {
    path.match_indices('/')
        .skip(1)
        .map(|(end, _)| path[..end].to_owned())
        .collect()
}
