//! Packages, the database and the broker: what the services of a site stand on.

use super::{Draft, wanted};
use crate::drivers::broker::{NODE_SETTINGS, all_permissions, long_enough};
use crate::drivers::release::pdf::{given_program, where_wkhtmltopdf_is};
use crate::drivers::services::member::ServiceRole;
use crate::drivers::sql::{self, AccountPurpose};
use crate::drivers::{acme, release, tables};
use crate::layout::{DistributionRelease, PORT_MAPPER_SETTINGS};
use crate::recipe::render::Format;
use crate::resource::{Facets, Part, Resource, Wanted};
use crate::settings::{DatabaseTls, Frontend, LogMode, Mode, Source, TlsMode};
use crate::site::facts::{DatabaseFamily, Manager, Pdf};
use anyhow::Result;
use std::collections::BTreeSet;

impl Draft<'_> {
    /// Before the packages: so the database server reads this when it starts for the first time.
    pub(super) fn database_settings(&mut self) -> Result<()> {
        if let Some(path) = self.site.database_drop_in() {
            let because = "uploads arrive in large packets";
            self.public_template(&path, Format::Plain, template!("database.cnf.hbs"), Part::Database, because)?;
        }
        Ok(())
    }

    /// Before a new password stands anywhere: the server takes it beside the one that is in use, so that whoever logs in
    /// meanwhile gets in, with whichever of them.
    pub(super) fn second_password(&mut self) {
        let (Some(from), Some(_)) = (&self.found.database_client, &self.found.former_database) else {
            return;
        };
        let user = self.site.settings().database.user_or(&self.site.layout.slug);
        let account = Facets::new()
            .with("method", "password")
            .with("passwords", "two")
            .with("former", "works")
            .with("login", "works");
        self.want(
            Resource::SqlAccount(format!("{user}@{from}")),
            account,
            Part::Database,
            "the application can log in with the new password and with the old one",
        );
    }

    pub(super) fn database(&mut self) {
        self.running(|role| role == ServiceRole::Database, Part::Database, "the database server of this machine");
        let settings = &self.site.settings().database;
        let slug = &self.site.layout.slug;
        let name = settings.name_or(slug).to_owned();
        let local = settings.mode == Mode::Local;
        let checked_only = !local && settings.admin_defaults_file.is_none();
        let host = settings.host.as_str();
        let made = self.found.database.as_ref().and_then(|key| key.kept_in.as_ref());
        if let Some(path) = made.filter(|_| checked_only) {
            self.recipe.warnings.push(format!(
                "database.password_file: is not set, so the password of {} was generated in {path}: the administrator of {host} has to set it for the account",
                settings.user_or(slug)
            ));
        }
        if !local && !settings.host.is_loopback() && settings.tls == DatabaseTls::Off {
            self.recipe.warnings.push(format!(
                "database.tls: is \"off\", so patients' data goes to {host} unencrypted: set \"required\", or \"verify\" with database.tls_ca"
            ));
        }
        if !local && !settings.listen.all().is_empty() {
            let warning = "database.listen: has no effect on an external database, which is configured where it runs";
            self.recipe.warnings.push(warning.into());
        }
        let facts = &self.site.facts;
        let binds_one = facts.database == DatabaseFamily::Mariadb
            && facts.release.is_some_and(DistributionRelease::has_old_mariadb);
        if local && binds_one && settings.listen.all().len() > 1 {
            self.recipe.missing.push((
                Part::Database,
                "database.listen: MariaDB before 10.11, as in this distribution, listens on one address or on all: give one, or \"*\"".into(),
            ));
        }
        let mut schema = Facets::new().with("charset", sql::CHARSET).with("collation", sql::COLLATION);
        if local && settings.tuning {
            schema = schema.with("max_packet", sql::LARGE_ENOUGH);
            if settings.flush_log_at_trx_commit.get() == 2 {
                schema = schema.with("flush", "2");
            }
        }
        let because = "the patients' data";
        self.want(Resource::Schema(name.clone()), schema, Part::Database, because);
        let Some(from) = &self.found.database_client else {
            return;
        };
        let user = match self.site.socket_authentication() {
            true => self.site.account(),
            false => settings.user_or(slug),
        };
        let account_name = format!("{user}@{from}");
        let account = self.sql_account(AccountPurpose::Application, true);
        let because = "the application logs in to the database";
        self.want(Resource::SqlAccount(account_name), account, Part::Database, because);
    }

    /// After the tables: each reads of each table what is for readers, and none is there before.
    pub(super) fn readers(&mut self) {
        let settings = &self.site.settings().database;
        let Some(from) = &self.found.database_client else {
            return;
        };
        for reader in settings.readers() {
            let account = Resource::SqlAccount(format!("{}@{}", reader.user, reader.host.unwrap_or(from)));
            let facets = self.sql_account(AccountPurpose::Reading, reader.everything);
            let reader = wanted(account, facets, Part::Database, "reports read from the database");
            let tables = Resource::Tables(settings.name_or(&self.site.layout.slug).to_owned());
            self.recipe.wanted.push(Wanted { inputs: vec![tables], ..reader });
        }
    }

    /// What an account of the database should be.
    fn sql_account(&self, purpose: AccountPurpose, has_everything: bool) -> Facets {
        let settings = &self.site.settings().database;
        let local = settings.mode == Mode::Local;
        let name = settings.name_or(&self.site.layout.slug);
        let is_application = purpose == AccountPurpose::Application;
        let mut account = Facets::new().with("login", "works");
        if !local && settings.admin_defaults_file.is_none() {
            return if is_application { account.with("grants", sql::ENOUGH) } else { account };
        }
        account = match is_application && self.site.socket_authentication() {
            true => account.with("method", "socket"),
            false => account.with("method", "password").with("passwords", "one"),
        };
        account = match has_everything {
            true => account.with("grants", purpose.grants(name)),
            false => account.with("reads", sql::ALL_BUT_SECRETS),
        };
        match !local && settings.tls != DatabaseTls::Off {
            true => account.with("tls", "required"),
            false => account,
        }
    }

    pub(super) fn tables(&mut self) {
        let name = self.site.settings().database.name_or(&self.site.layout.slug);
        // A new release may have new migrations.
        let releases = self.recipe.wanted.iter().map(|wanted| &wanted.resource);
        let venv = Resource::Symlink(self.site.layout.venv.clone());
        let inputs = releases
            .filter(|resource| matches!(resource, Resource::Release(_)) || **resource == venv)
            .cloned()
            .collect();
        let revision = Facets::new().with("revision", tables::HEAD);
        let because = "the revision of the installed release";
        let tables = wanted(Resource::Tables(name.to_owned()), revision, Part::Tables, because);
        self.recipe.wanted.push(Wanted { inputs, ..tables });
    }

    pub(super) fn superuser(&mut self) {
        if let Some(name) = &self.site.settings().superuser.username {
            self.want(
                Resource::Superuser(name.as_str().to_owned()),
                Facets::new(),
                Part::Superuser,
                "the first user, who creates the others",
            );
        }
    }

    /// Before the packages: so the broker reads this when it starts for the first time, and never listens to others.
    pub(super) fn broker_settings(&mut self) -> Result<()> {
        if self.site.settings().broker.mode != Mode::Local {
            return Ok(());
        }
        let (own, path) = (self.found.own_broker.clone(), self.site.layout.broker_drop_in());
        if let Some(stored) = &own.unreadable {
            self.unreadable_broker(own.node, own.name, stored);
        }
        let because = "tasks may wait long for their next attempt";
        let mut files = vec![(path.as_str(), template!("rabbitmq.conf.hbs"), because)];
        if own.node {
            let because = "the broker keeps its name and its messages when the machine is renamed, and only this machine reaches it";
            files.push((NODE_SETTINGS, template!("rabbitmq-env.conf.hbs"), because));
        }
        // It is not one of the services that the administrator may prefer another manager for.
        if own.port_mapper && self.site.facts.manager == Manager::Systemd {
            let because = "only this machine reaches Erlang's port mapper";
            files.push((PORT_MAPPER_SETTINGS, template!("epmd.socket.conf.hbs"), because));
        }
        for (path, template, because) in files {
            self.public_template(path, Format::Plain, template, Part::Broker, because)?;
        }
        Ok(())
    }

    /// After an upgrade of the distribution: the broker's package could not start it, and it does not start by itself.
    fn unreadable_broker(&mut self, is_own: bool, name: &str, stored: &str) {
        let refuses = format!("this RabbitMQ does not start with the data of an earlier version in {stored}");
        if is_own {
            self.recipe.warnings.push(format!(
                "{refuses}: it starts empty, as {name}, and its vhost and account are created again; tasks waiting there are lost, and that directory is kept until you remove it"
            ));
        } else {
            self.recipe.missing.push((Part::Broker, format!(
                "{refuses}, and others use it too: move that directory and {stored}-feature_flags away, or reinstall the earlier version and upgrade it via 3.13 (https://www.rabbitmq.com/docs/upgrade), and run again"
            )));
        }
    }

    pub(super) fn packages(&mut self) {
        let (settings, facts) = (self.site.settings(), &self.site.facts);
        let names = facts.flavour.packages;
        let magick = [facts.magick_library()];
        let engine = release::PdfEngine::of(settings, facts).ok();
        let wkhtmltopdf = engine == Some(release::PdfEngine::Wkhtmltopdf);
        let weasyprint = engine == Some(release::PdfEngine::Weasyprint);
        let roles = [
            (names.database, settings.database.mode == Mode::Local, "the database server"),
            (names.broker, settings.broker.mode == Mode::Local, "the message broker"),
            (names.web, settings.web.frontend == Frontend::Apache, "the web server"),
            (names.supervisor, self.site.manager() == Manager::Supervisor, "starts and watches the services"),
            (names.application, true, "CamCOPS needs it"),
            (magick.as_slice(), true, "CamCOPS needs it"),
            (names.wkhtmltopdf, wkhtmltopdf && facts.pdf == Pdf::Packaged, "makes PDF documents"),
            (facts.weasyprint_packages(), weasyprint, "WeasyPrint makes PDF documents with it"),
            (names.acme, settings.tls.mode == TlsMode::Certbot, "gets the site's certificate and renews it"),
            (names.logs, settings.logging.mode == LogMode::File, "rotates the log files"),
            (names.encryption, settings.backup.encrypt_to.is_some(), "encrypts backups"),
            (&["sudo"], settings.operators.group.is_some(), "operators run commands with it"),
        ];
        for (names, is_needed, because) in roles {
            for name in names.iter().filter(|_| is_needed) {
                let package = Resource::Package((*name).to_owned());
                self.want(package, Facets::new(), Part::Packages, because);
            }
        }
        if let Ok(release) = release::WantedRelease::new(self.site.settings(), &self.site.facts) {
            let [python, for_building, for_compiling] =
                release::python::python_packages(names.manager, &release.python);
            let compiler = names.build.iter().map(|name| (*name).to_owned());
            let compiler = for_compiling.into_iter().chain(compiler);
            // In a bundle all of it is compiled already.
            let compiler = compiler.filter(|_| settings.camcops.source != Source::Bundle);
            let building = for_building.into_iter().chain(compiler);
            let building = building.filter(|_| !self.found.release_is_whole);
            let all = python.into_iter().map(|name| (name, "CamCOPS runs on it"));
            for (name, because) in all.chain(building.map(|name| (name, "some of CamCOPS is compiled here"))) {
                self.want(Resource::Package(name), Facets::new(), Part::Packages, because);
            }
        }
        if wkhtmltopdf && where_wkhtmltopdf_is(settings, facts) == Pdf::Missing && !facts.staged {
            self.recipe.warnings.push(
                "PDF documents can't be made: this distribution has no package wkhtmltopdf; install that program in /usr/local/bin".into(),
            );
        }
        if weasyprint && given_program(settings).is_some() {
            self.recipe.warnings.push(
                "config.site.WKHTMLTOPDF_FILENAME: that program is not used, because WeasyPrint makes the PDF documents"
                    .into(),
            );
        }
    }

    pub(super) fn broker(&mut self) {
        self.running(|role| role == ServiceRole::Broker, Part::Broker, "the broker of this machine");
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
            account =
                account.with("tags", BTreeSet::new()).with("permissions", BTreeSet::from([all_permissions(vhost)]));
        }
        self.want(
            Resource::BrokerAccount(user.to_owned()),
            account,
            Part::Broker,
            "the application logs in to the broker",
        );
    }

    pub(super) fn certificate_from_certbot(&mut self, text: &str, because: &str) -> Result<()> {
        let layout = &self.site.layout;
        self.secret(&layout.certificate_with_key, text.to_owned(), Part::Certificate, because);
        let hook = self.rendered(Format::Shell, template!("certbot-deploy.sh.hbs"))?;
        self.program(&layout.certbot_hook, hook, Part::Certificate, "brings a renewed certificate to Apache");
        Ok(())
    }

    /// After the site: the authority asks it whether it is the one.
    pub(super) fn issued_certificate(&mut self) {
        let settings = self.site.settings();
        if settings.tls.mode != TlsMode::Certbot {
            return;
        }
        let facets = Facets::new()
            .with("names", acme::joined_names(&self.site.names()))
            .with("server", settings.tls.acme_server.as_str())
            .with("authenticator", acme::AUTHENTICATOR)
            .with("valid", "yes");
        self.want(
            Resource::AcmeCertificate(self.site.layout.slug.clone()),
            facets,
            Part::Certificate,
            "certificate from the authority",
        );
        let is_public = settings.tls.acme_server.as_str().contains(".letsencrypt.org");
        let names = self.site.names();
        if let Some(name) = names.iter().find(|name| is_public && !name.contains('.')) {
            self.recipe.missing.push((
                Part::Certificate,
                format!("web.server_names: Let's Encrypt gives certificates for full names of the public network, which {name} is not: set names such as camcops.example.org"),
            ));
        }
        let network = &settings.network;
        let ways = [
            (network.ca_bundle.is_some(), "network.ca_bundle"),
            (network.https_proxy.is_some(), "network.https_proxy"),
        ];
        for (_, key) in ways.iter().filter(|(is_set, _)| *is_set) {
            self.recipe
                .warnings
                .push(format!("{key}: certbot's renewal timer does not use it; set it for the whole machine too"));
        }
    }
}
