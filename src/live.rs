//! What the drivers of live resources need besides their names: where the services are and the secrets that they take,
//! with every connection made once and kept.

use crate::bundle::Bundle;
use crate::host::Host;
use crate::keys::Secret;
use crate::resource::{acme, broker, packages, release, services, sql, tables};
use std::cell::RefCell;
use std::rc::Rc;

/// One field per driver, each filled by [`crate::site::Site`].
#[derive(Debug, Default)]
pub struct Live {
    /// The services, and how they are asked.
    pub services: Option<services::Known>,
    /// How a release of the application is built.
    pub release: Option<release::Recipe>,
    /// The packages of the distribution.
    pub packages: Option<packages::Known>,
    /// Where the site's certificate comes from, where certbot gets it.
    pub acme: Option<acme::Known>,
    /// Where the files of both come from, if that is a bundle.
    pub bundle: Option<Bundle>,
    /// The message broker; filled when its password is known.
    pub broker: RefCell<Option<Rc<broker::Known>>>,
    /// The database; filled when its passwords are known.
    pub database: RefCell<Option<Rc<sql::Known>>>,
    /// How commands of the application are run.
    pub application: Option<tables::Application>,
    /// The password of the application's first superuser, once somebody has given one.
    pub superuser_password: RefCell<Option<Secret>>,
}

impl Live {
    /// What was seen of the machine may not hold any more.
    pub fn forget(&self) {
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
    pub fn begin_to_look(&self, host: &Host) {
        if let Some(services) = &self.services {
            services.begin_to_look(host);
        }
    }

    /// Asks what takes its time, and is needed later, while other things are looked at.
    pub async fn look_ahead(&self, host: &Host) {
        if let Some(services) = &self.services {
            services.look_ahead(host).await;
        }
    }

    /// Says goodbye where that matters.
    pub async fn close(&self) {
        let database = self.database.borrow().clone();
        if let Some(database) = database {
            database.server.close().await;
        }
    }
}
