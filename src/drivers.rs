//! What the drivers of live resources need besides their names: where the services are and the secrets that they take,
//! with every connection made once and kept.

pub(crate) mod accounts;
pub(crate) mod acme;
pub(crate) mod broker;
pub(crate) mod files;
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
use crate::resource::{Enforced, Resource, State};
use anyhow::Result;
use std::cell::RefCell;
use std::rc::Rc;

/// One field per driver, each filled by [`crate::site::Site`].
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// The services, and how they are asked.
    pub(crate) services: Option<services::Known>,
    /// How a release of the application is built.
    pub(crate) release: Option<release::Recipe>,
    /// The packages of the distribution.
    pub(crate) packages: Option<packages::Known>,
    /// Where the site's certificate comes from, where certbot gets it.
    pub(crate) acme: Option<acme::Known>,
    /// Where the files of both come from, if that is a bundle.
    pub(crate) bundle: Option<Bundle>,
    /// The message broker; filled when its password is known.
    pub(crate) broker: RefCell<Option<Rc<broker::Known>>>,
    /// The database; filled when its passwords are known.
    pub(crate) database: RefCell<Option<Rc<sql::Known>>>,
    /// How commands of the application are run.
    pub(crate) application: Option<tables::Application>,
    /// The password of the application's first superuser, once somebody has given one.
    pub(crate) superuser_password: RefCell<Option<Secret>>,
}

impl Live {
    /// What was seen of the machine may not hold any more.
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

    /// Begins to ask what [`Live::look_ahead`] needs first.
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

    /// Says goodbye where that matters.
    pub(crate) async fn close(&self) {
        let database = self.database.borrow().clone();
        if let Some(database) = database {
            database.server.close().await;
        }
    }
}

impl Resource {
    /// What the machine has now.
    pub(crate) async fn observe(&self, host: &Host) -> Result<State> {
        match self {
            Resource::Directory(path) | Resource::File(path) | Resource::Symlink(path) => {
                files::observe(host, path)
            }
            Resource::Group(name) => Ok(accounts::observe_group(host, name)),
            Resource::User(name) => Ok(accounts::observe_user(host, name)),
            Resource::Package(name) => packages::observe(host, name).await,
            Resource::Release(name) => release::observe(host, name).await,
            Resource::Schema(name) => sql::observe_schema(host, name).await,
            Resource::SqlAccount(name) => sql::observe_account(host, name).await,
            Resource::Vhost(name) => broker::observe_vhost(host, name).await,
            Resource::BrokerAccount(name) => broker::observe_account(host, name).await,
            Resource::Tables(name) => tables::observe(host, name).await,
            Resource::Superuser(name) => superuser::observe(host, name).await,
            Resource::AcmeCertificate(name) => acme::observe(host, name),
            Resource::Service(name) => services::observe(host, name).await,
            Resource::Unknown(..) => Ok(State::Absent),
        }
    }

    /// Makes the machine have `after`; `before` is what it has.
    pub(crate) async fn enforce(
        &self,
        host: &Host,
        before: &State,
        after: &State,
    ) -> Result<Enforced> {
        match self {
            Resource::Directory(_) | Resource::File(_) | Resource::Symlink(_) => {
                match apache::guards(host, self.name()) {
                    Some(flavour) => apache::enforce(host, flavour, self, before, after),
                    None => files::enforce(host, self, before, after),
                }
            }
            Resource::Group(name) => accounts::enforce_group(host, name, after),
            Resource::User(name) => accounts::enforce_user(host, name, after),
            Resource::Package(name) => packages::enforce(host, name, after).await,
            Resource::Release(name) => release::enforce(host, name, before, after).await,
            Resource::Schema(name) => sql::enforce_schema(host, name, before, after).await,
            Resource::SqlAccount(name) => sql::enforce_account(host, name, before, after).await,
            Resource::Vhost(name) => broker::enforce_vhost(host, name, before, after).await,
            Resource::BrokerAccount(name) => {
                broker::enforce_account(host, name, before, after).await
            }
            Resource::Tables(name) => tables::enforce(host, name, after).await,
            Resource::Superuser(name) => superuser::enforce(host, name, after).await,
            Resource::AcmeCertificate(name) => acme::enforce(host, name, after).await,
            Resource::Service(name) => services::enforce(host, name, before, after).await,
            Resource::Unknown(..) => Ok(Enforced::LeftAlone(
                "a newer version made it; use that version".into(),
            )),
        }
    }

    /// Removes what an interrupted `enforce` may have left beside the resource.
    pub(crate) fn clear_up(&self, host: &Host) -> Result<()> {
        match self {
            Resource::Directory(path) | Resource::File(path) | Resource::Symlink(path) => {
                host.remove_unfinished(path)
            }
            _ => Ok(()),
        }
    }

    /// Whether it holds what can't be made again: such a thing survives `uninstall`.
    pub(crate) fn holds_data(&self, host: &Host) -> bool {
        // Under another name the broker would not find its messages again.
        let stores = || host.look(broker::STORED).is_ok_and(|found| found.is_some());
        matches!(self, Resource::File(path) if path == broker::NODE_SETTINGS && stores())
            || matches!(
                self,
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
                | Resource::AcmeCertificate(_)
            )
            || matches!(self, Resource::Service(name) if !services::is_ours(name))
    }
}
