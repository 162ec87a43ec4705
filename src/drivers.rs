//! The drivers: what makes the machine have a resource, and the one place that says which driver that is. Each takes what it
//! needs besides a resource's name: where the services are and the secrets that they take, with every connection made
//! once and kept.

pub(crate) mod accounts;
pub(crate) mod acme;
pub(crate) mod broker;
pub(crate) mod files;
pub(crate) mod firewall;
pub(crate) mod packages;
pub(crate) mod release;
pub(crate) mod services;
pub(crate) mod sql;
pub(crate) mod superuser;
pub(crate) mod tables;

use crate::archive::bundle::Bundle;
use crate::base::secret::Secret;
use crate::drivers::services::apache;
use crate::host::Host;
use crate::journal::Owned;
use crate::resource::{Enforced, Resource, State};
use anyhow::{Context, Result};
use std::cell::RefCell;
use std::rc::Rc;

/// The drivers of one site, one field each, as [`crate::session`] builds them. In a staged tree there are none: files are all
/// that can be made there. The broker and the database are filled when their passwords are known.
#[derive(Debug, Default)]
pub(crate) struct Drivers {
    /// The services, and how they are asked.
    pub(crate) services: Option<services::ServiceManager>,
    /// How a release of the application is built.
    pub(crate) release: Option<release::ReleaseRecipe>,
    pub(crate) packages: Option<packages::PackageSource>,
    /// Where the site's certificate comes from, where certbot gets it.
    pub(crate) acme: Option<acme::Certbot>,
    /// Where packages and release come from, if that is a bundle.
    pub(crate) bundle: Option<Rc<Bundle>>,
    /// The message broker; [`Drivers::set_broker`] fills it.
    pub(crate) broker: RefCell<Option<Rc<broker::Broker>>>,
    pub(crate) database: RefCell<Option<Rc<sql::Database>>>,
    /// How commands of the application are run.
    pub(crate) application: Option<tables::Application>,
    /// The password of the application's first superuser, once somebody has given one.
    pub(crate) superuser_password: RefCell<Option<Secret>>,
}

impl Drivers {
    pub(crate) fn services(&self) -> Result<&services::ServiceManager> {
        asked(self.services.as_ref(), "the services can't be seen here")
    }

    pub(crate) fn packages(&self) -> Result<&packages::PackageSource> {
        asked(self.packages.as_ref(), "packages can't be looked up here")
    }

    /// Where the site's certificate comes from.
    pub(crate) fn acme(&self) -> Result<&acme::Certbot> {
        asked(self.acme.as_ref(), "certbot can't be called here")
    }

    /// How commands of the application are run.
    pub(crate) fn application(&self) -> Result<&tables::Application> {
        asked(self.application.as_ref(), "the application can't be run here")
    }

    pub(crate) fn broker(&self) -> Result<Rc<broker::Broker>> {
        asked(self.broker.borrow().clone(), "the broker can't be asked here")
    }

    pub(crate) fn database(&self) -> Result<Rc<sql::Database>> {
        asked(self.database.borrow().clone(), "the database can't be asked here")
    }

    /// Whether this is an account of the database that we made, that only reads, and that we may drop.
    pub(crate) fn made_for_reading(&self, owned: &Owned) -> bool {
        let database = self.database.borrow();
        database.as_ref().is_some_and(|database| sql::account::made_for_reading(database, &owned.change))
    }

    /// Takes the broker, now that its password is known.
    pub(crate) fn set_broker(&self, broker: broker::Broker) {
        let broker = Rc::new(broker);
        if let Some(services) = &self.services {
            services.set_broker(Rc::clone(&broker));
        }
        self.broker.replace(Some(broker));
    }

    /// Has the superuser made together with the first tables, where the password is known.
    pub(crate) fn want_first_superuser(&self, name: &str) {
        if let (Some(application), Some(password)) = (&self.application, &*self.superuser_password.borrow()) {
            application.first_superuser.replace(Some((name.to_owned(), password.clone())));
        }
    }

    /// What was seen of the machine may not hold any more: it is looked at again when it is next asked for.
    pub(crate) fn forget(&self) {
        if let Some(packages) = &self.packages {
            packages.forget();
        }
        if let Some(broker) = &*self.broker.borrow() {
            broker.forget();
        }
        if let Some(application) = &self.application {
            application.forget();
        }
    }

    /// Begins to ask what [`Drivers::look_ahead`] needs first.
    pub(crate) fn begin_to_look(&self, host: &Host) {
        if let Some(services) = &self.services {
            services.begin_to_look(host);
        }
    }

    /// Asks what takes its time, and is needed later, while other things are looked at.
    pub(crate) async fn look_ahead(&self, host: &Host) {
        if let Some(services) = &self.services {
            services.look_ahead(host).await;
        }
    }

    /// Says goodbye to the servers where that matters.
    pub(crate) async fn close(&self) {
        let database = self.database.borrow().clone();
        if let Some(database) = database {
            database.server.close().await;
        }
    }

    /// Refuses to begin where Apache could not serve the site anyway.
    pub(crate) fn refuse_unfit_apache(&self, host: &Host) -> Result<()> {
        match &self.services {
            Some(services) => apache::refuse_unfit(services, self.packages()?, host),
            None => Ok(()),
        }
    }

    /// What the machine has now of a resource.
    pub(crate) async fn observe(&self, host: &Host, resource: &Resource) -> Result<State> {
        match resource {
            Resource::Directory(path) | Resource::File(path) | Resource::Symlink(path) => files::observe(host, path),
            Resource::Group(name) => Ok(accounts::observe_group(host, name)),
            Resource::User(name) => Ok(accounts::observe_user(host, name)),
            Resource::Package(name) => packages::observe(self.packages()?, host, name),
            Resource::Release(name) => release::observe_with(self.release.as_ref(), host, name).await,
            Resource::Schema(name) => sql::schema::observe(&*self.database()?, name).await,
            Resource::SqlAccount(name) => sql::account::observe(&*self.database()?, host, name).await,
            Resource::Vhost(name) => broker::observe_vhost(&*self.broker()?, host, name).await,
            Resource::BrokerAccount(name) => broker::observe_account(&*self.broker()?, host, name).await,
            Resource::Tables(name) => tables::observe(&*self.database()?, self.application()?, host, name).await,
            Resource::Superuser(name) => superuser::observe(&*self.database()?, name).await,
            Resource::AcmeCertificate(name) => acme::observe(host, name),
            Resource::FirewallRule(name) => firewall::observe(host, name),
            Resource::Service(name) => services::observe(self.services.as_ref(), host, name).await,
            Resource::Unknown { .. } => Ok(State::Absent),
        }
    }

    /// Makes the machine have `after` of a resource; `before` is what it has.
    pub(crate) async fn enforce(
        &self,
        host: &Host,
        resource: &Resource,
        before: &State,
        after: &State,
    ) -> Result<Enforced> {
        let services = self.services.as_ref();
        let goes = *after == State::Absent;
        match resource {
            Resource::Directory(_) | Resource::File(_) | Resource::Symlink(_) => {
                match apache::guarded_flavour(host, resource.name()) {
                    Some(flavour) => apache::enforce_guarded(host, flavour, resource, before, after),
                    None => files::enforce(host, resource, before, after),
                }
            }
            Resource::Group(name) => accounts::enforce_group(host, name, after),
            Resource::User(name) => accounts::enforce_user(host, name, after),
            Resource::Package(_) if goes => left_alone(packages::KEPT),
            Resource::Package(name) => {
                packages::install_packages(self.packages()?, host, &[name], false)?;
                Ok(Enforced::Done)
            }
            Resource::Release(name) => release::enforce(self.release.as_ref(), host, name, before, after),
            Resource::Schema(name) => sql::schema::enforce(&*self.database()?, host, name, before, after).await,
            Resource::SqlAccount(name) => sql::account::enforce(&*self.database()?, host, name, after).await,
            Resource::Vhost(name) => broker::enforce_vhost(&*self.broker()?, host, name, before, after).await,
            Resource::BrokerAccount(name) => {
                let broker = self.broker()?;
                let pause = || services.map_or(Ok(()), |services| services::pause_stale(services, host));
                broker::enforce_account(&broker, host, name, before, after, pause).await
            }
            Resource::Tables(_) if goes => left_alone(tables::KEPT),
            Resource::Tables(name) => tables::make(&*self.database()?, self.application()?, host, name).await,
            Resource::Superuser(_) if goes => left_alone(superuser::KEPT),
            Resource::Superuser(name) => {
                let password = self.superuser_password.borrow().clone();
                let password = password.ok_or_else(|| superuser::password_needed(name))?;
                superuser::make(self.application()?, host, name, &password)
            }
            Resource::AcmeCertificate(name) if goes => acme::forget_certificate(host, name),
            Resource::AcmeCertificate(name) => acme::issue(self.acme()?, host, name),
            Resource::FirewallRule(name) => firewall::enforce(host, name, before, after),
            Resource::Service(name) => services::enforce(services, host, name, after).await,
            Resource::Unknown { .. } => left_alone("created by a newer version of camcops-provision; use that version"),
        }
    }
}

/// The one place that says what can't be asked where there is no driver for it.
fn asked<T>(driver: Option<T>, why: &'static str) -> Result<T> {
    driver.context(why)
}

fn left_alone(why: &str) -> Result<Enforced> {
    Ok(Enforced::LeftAlone(why.into()))
}

impl Resource {
    /// Removes what an interrupted `enforce` may have left beside the resource.
    pub(crate) fn clear_up(&self, host: &Host) -> Result<()> {
        match self {
            Resource::Directory(path) | Resource::File(path) | Resource::Symlink(path) => host.remove_unfinished(path),
            _ => Ok(()),
        }
    }

    /// Whether it holds what can't be made again: such a thing survives `uninstall`.
    pub(crate) fn holds_data(&self, host: &Host) -> bool {
        // Under another name the broker would not find its messages again.
        let stores = || host.stat(broker::STORED).is_ok_and(|found| found.is_some());
        // Each kind is named: what is forgotten here would be removed.
        match self {
            Resource::File(path) => path == broker::NODE_SETTINGS && stores(),
            Resource::Service(name) => !services::is_ours(name),
            // An account is kept because files that it owns may remain; Debian's own packages do the same.
            Resource::Group(_)
            | Resource::User(_)
            // Somebody else may rely on a package by now.
            | Resource::Package(_)
            | Resource::Schema(_)
            | Resource::SqlAccount(_)
            | Resource::Vhost(_)
            | Resource::BrokerAccount(_)
            | Resource::Tables(_)
            | Resource::Superuser(_)
            // An authority gives only so many in a week.
            | Resource::AcmeCertificate(_) => true,
            Resource::Directory(_)
            | Resource::Symlink(_)
            | Resource::Release(_)
            | Resource::FirewallRule(_)
            | Resource::Unknown { .. } => false,
        }
    }
}
