//! The services of a site: seen once, and asked at once while other things are looked at.

use super::member::{self, Member, ServiceRole};
use super::state::{Handler, PORT_MAPPER, ServicePhase, ServiceState};
use super::{proof, scripts, supervisor, systemd};
use crate::drivers::broker;
use crate::host::{Begun, Host};
use crate::layout::Layout;
use crate::probe::Trouble;
use crate::settings::Settings;
use crate::site::Site;
use crate::site::facts::Manager;
use anyhow::Result;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// One try.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a proof says when it fails.
pub(crate) type ProofResult = Result<(), Trouble>;

/// The services of a site, and what is needed to look at them.
#[derive(Debug)]
pub(crate) struct ServiceManager {
    /// In the order of starting.
    pub(crate) members: Vec<Member>,
    pub(super) settings: Settings,
    pub(super) layout: Layout,
    pub(super) manager: Manager,
    pub(super) monitor_port: u16,
    pub(super) names: Vec<String>,
    pub(super) certificate: String,
    cache: RefCell<Option<BTreeMap<String, ServiceState>>>,
    begun: RefCell<Option<Begun>>,
    /// How long one of them has to answer.
    patience: Cell<Duration>,
    /// The broker that workers are asked through, once its password is known.
    broker: RefCell<Option<Rc<broker::Broker>>>,
    /// What they answered when all were asked at once; nothing until then.
    answers: RefCell<Option<BTreeMap<String, Option<ProofResult>>>>,
}

impl ServiceManager {
    /// Those of a site. Nothing is asked or read yet.
    pub(crate) fn of(site: &Site) -> ServiceManager {
        ServiceManager {
            members: member::list_members(site),
            settings: site.settings().clone(),
            layout: site.layout.clone(),
            manager: site.manager(),
            monitor_port: site.monitor_port(),
            names: site.names(),
            certificate: site.certificate_files().0,
            cache: RefCell::default(),
            begun: RefCell::default(),
            patience: Cell::new(PATIENCE),
            broker: RefCell::default(),
            answers: RefCell::default(),
        }
    }

    /// How long one of them has to answer.
    pub(super) fn patience(&self) -> Duration {
        self.patience.get()
    }

    /// Takes the broker that workers are asked through.
    pub(crate) fn set_broker(&self, broker: Rc<broker::Broker>) {
        self.broker.replace(Some(broker));
    }

    pub(super) fn broker(&self) -> Option<Rc<broker::Broker>> {
        self.broker.borrow().clone()
    }

    /// Gives each of them only so long to answer from now on.
    pub(crate) fn hurry(&self, patience: Duration) {
        self.patience.set(patience);
    }

    pub(super) fn find(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    /// All of them as their managers see them, asked once until [`ServiceManager::forget`].
    pub(crate) fn see(&self, host: &Host) -> Result<BTreeMap<String, ServiceState>> {
        if let Some(all) = &*self.cache.borrow() {
            return Ok(all.clone());
        }
        let all = self.with_others(host, systemd::see_units(host, &self.units())?)?;
        self.cache.replace(Some(all.clone()));
        Ok(all)
    }

    /// Begins to look, so that the answer is there when [`ServiceManager::look_ahead`] needs it.
    pub(crate) fn begin_to_look(&self, host: &Host) {
        if self.cache.borrow().is_none() {
            self.begun.replace(systemd::begin_to_see(host, &self.units()).ok().flatten());
        }
    }

    /// Sees and asks all of them while others are asked other things. What fails is told to whoever needs it.
    pub(crate) async fn look_ahead(&self, host: &Host) {
        if let Some(begun) = self.begun.take()
            && let Ok(said) = begun.end(host).await
            && let Ok(units) = systemd::parse_answer(&self.units(), &said)
            && let Ok(all) = self.with_others(host, units)
        {
            self.cache.replace(Some(all));
        }
        if self.answers.borrow().is_none()
            && let Ok(all) = self.ask_all(host).await
        {
            self.answers.replace(Some(all));
        }
    }

    fn units(&self) -> Vec<String> {
        let mut units = Vec::new();
        for member in &self.members {
            if Handler::of(&member.name) == Handler::Systemd {
                units.push(member.name.clone());
                if member.role == ServiceRole::Broker {
                    units.push(PORT_MAPPER.to_owned());
                }
            }
        }
        units
    }

    /// Beside systemd's units, the services that others look after.
    fn with_others(
        &self,
        host: &Host,
        units: BTreeMap<String, ServiceState>,
    ) -> Result<BTreeMap<String, ServiceState>> {
        let mut all = units;
        for Member { name, .. } in &self.members {
            if Handler::of(name) == Handler::Scripts {
                all.insert(name.clone(), scripts::see_service(host, name)?);
            }
        }
        if self.manager == Manager::Supervisor {
            all.extend(supervisor::see_group(host, &self.layout.slug)?);
        }
        Ok(all)
    }

    /// A service was stopped: it needs no further look to know that.
    pub(super) fn note_stopped(&self, name: &str) {
        if let Some(seen) = self.cache.borrow_mut().as_mut().and_then(|all| all.get_mut(name)) {
            seen.phase = ServicePhase::Stopped;
        }
    }

    /// Makes the next look a new one. From now on each service is asked by itself: some may not be up yet.
    pub(crate) fn forget(&self) {
        self.cache.take();
        self.answers.replace(Some(BTreeMap::new()));
    }

    /// What a running service answers; nothing where that is not asked. The first time all are asked, at once.
    pub(crate) async fn answer(&self, host: &Host, member: &Member) -> Result<Option<ProofResult>> {
        if self.answers.borrow().is_none() {
            let all = self.ask_all(host).await?;
            self.answers.replace(Some(all));
        }
        let known = self.answers.borrow().as_ref().and_then(|all| all.get(&member.name).cloned());
        if let Some(answer) = known {
            return Ok(answer);
        }
        let seen = self.see(host)?.remove(&member.name).unwrap_or_default();
        Ok(proof::ask_member(host, self, member, &seen).await)
    }

    async fn ask_all(&self, host: &Host) -> Result<BTreeMap<String, Option<ProofResult>>> {
        let seen = self.see(host)?;
        let seen = &seen;
        let one = async |role: ServiceRole| {
            let member = self.members.iter().find(|member| member.role == role)?;
            let seen = seen.get(&member.name)?;
            if seen.phase != ServicePhase::Running {
                return None;
            }
            Some((member.name.clone(), proof::ask_member(host, self, member, seen).await))
        };
        let (server, workers, scheduler, monitor, web) = tokio::join!(
            one(ServiceRole::Server),
            one(ServiceRole::Workers),
            one(ServiceRole::Scheduler),
            one(ServiceRole::Monitor),
            one(ServiceRole::Web),
        );
        let all = [server, workers, scheduler, monitor, web];
        Ok(all.into_iter().flatten().collect())
    }
}

/// What its manager knows of a service, one of the site or another.
pub(super) fn look_at_service(known: Option<&ServiceManager>, host: &Host, name: &str) -> Result<ServiceState> {
    if let Some(known) = known
        && known.find(name).is_some()
    {
        return Ok(known.see(host)?.remove(name).unwrap_or_default());
    }
    Ok(match Handler::of(name) {
        Handler::Systemd => systemd::see_units(host, &[name.to_owned()])?.remove(name).unwrap_or_default(),
        Handler::Supervisor => {
            let group = name.split(':').next().unwrap_or(name);
            supervisor::see_group(host, group)?.remove(name).unwrap_or_default()
        }
        Handler::Scripts => scripts::see_service(host, name)?,
    })
}
