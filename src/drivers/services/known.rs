//! The services of a site: seen once, and asked at once while other things are looked at.

use super::member::{self, Member, ServiceRole};
use super::proof::{ServiceQuestion, ServiceReply};
use super::state::{Handler, PORT_MAPPER, ServicePhase, ServiceState};
use super::{proof, scripts, supervisor, systemd};
use crate::drivers::broker;
use crate::host::Host;
use crate::host::processes::Table;
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
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};

/// One try.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a proof says when it fails.
pub(crate) type ProofResult = Result<(), Trouble>;

/// What was seen and asked in a task of its own.
#[derive(Debug)]
struct SeenApart {
    units: BTreeMap<String, ServiceState>,
    /// The names of services, and what came of asking them.
    asked: Vec<(String, ServiceReply)>,
    /// What the processes of each take, by the first of them.
    memory: BTreeMap<u32, u64>,
}

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
    begun: RefCell<Option<JoinHandle<Result<SeenApart>>>>,
    /// Whether their memory is looked at too: the kernel walks through all of it.
    is_weighed: Cell<bool>,
    memory: RefCell<BTreeMap<u32, u64>>,
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
            is_weighed: Cell::default(),
            memory: RefCell::default(),
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

    /// Has what they take looked at too, from the next [`ServiceManager::begin_to_look`] on.
    pub(crate) fn weigh_too(&self) {
        self.is_weighed.set(true);
    }

    /// What a process and all below it take, in bytes, where that was looked at or can be seen in the table.
    pub(crate) fn memory_of(&self, pid: u32, table: &Table) -> Option<u64> {
        let weighed = self.memory.borrow().get(&pid).copied();
        weighed.or_else(|| table.memory(pid))
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

    /// Begins to look, and asks at once what is seen to run, whatever this program does meanwhile;
    /// [`ServiceManager::look_ahead`] takes the answers.
    pub(crate) fn begin_to_look(&self, host: &Host) {
        if self.cache.borrow().is_some() {
            return;
        }
        let units = self.units();
        let Ok(Some(begun)) = systemd::begin_to_see(host, &units) else {
            return;
        };
        let is_asked = self.answers.borrow().is_none();
        let ours = self.members.iter().filter(|member| is_asked && units.contains(&member.name));
        // What can't be asked yet is asked when it is needed.
        let questions = ours.filter_map(|member| {
            let question = ServiceQuestion::of(host, self, member)?.ok()?;
            Some((member.name.clone(), question))
        });
        let mut questions: Vec<(String, ServiceQuestion)> = questions.collect();
        let (patience, is_weighed) = (self.patience(), self.is_weighed.get());
        self.begun.replace(Some(tokio::spawn(async move {
            let units = systemd::parse_answer(&units, &begun.end_apart().await?)?;
            let pids: Vec<u32> = units.values().filter_map(|seen| seen.pid).collect();
            let weighing = is_weighed.then(|| spawn_blocking(move || weigh_processes(&pids)));
            questions.retain(|(name, _)| units.get(name).is_some_and(|seen| seen.phase == ServicePhase::Running));
            let ask = |(name, question): (String, ServiceQuestion)| async move { (name, question.ask(patience).await) };
            let asked = questions.into_iter().map(ask).collect::<JoinSet<_>>().join_all().await;
            let memory = match weighing {
                Some(weighing) => weighing.await?,
                None => BTreeMap::new(),
            };
            Ok(SeenApart { units, asked, memory })
        })));
    }

    /// Sees and asks all of them while others are asked other things. What fails is told to whoever needs it.
    pub(crate) async fn look_ahead(&self, host: &Host) {
        let begun = self.begun.take();
        let mut answers = BTreeMap::new();
        if let Some(begun) = begun
            && let Ok(Ok(seen)) = begun.await
            && let Ok(all) = self.with_others(host, seen.units)
        {
            self.cache.replace(Some(all));
            self.memory.replace(seen.memory);
            for (name, asked) in seen.asked {
                if let Some(member) = self.find(&name) {
                    let answer = asked.told(self, member.role);
                    answers.insert(name, Some(answer));
                }
            }
        }
        if self.answers.borrow().is_none()
            && let Ok(all) = self.ask_others(host, answers).await
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
        self.begun.take();
        self.memory.take();
        self.answers.replace(Some(BTreeMap::new()));
    }

    /// What a running service answers; nothing where that is not asked. The first time all are asked, at once.
    pub(crate) async fn answer(&self, host: &Host, member: &Member) -> Result<Option<ProofResult>> {
        if self.answers.borrow().is_none() {
            let all = self.ask_others(host, BTreeMap::new()).await?;
            self.answers.replace(Some(all));
        }
        let known = self.answers.borrow().as_ref().and_then(|all| all.get(&member.name).cloned());
        if let Some(answer) = known {
            return Ok(answer);
        }
        let seen = self.see(host)?.remove(&member.name).unwrap_or_default();
        Ok(proof::ask_member(host, self, member, &seen).await)
    }

    /// Asks, at once, all that have not answered yet.
    async fn ask_others(
        &self,
        host: &Host,
        answers: BTreeMap<String, Option<ProofResult>>,
    ) -> Result<BTreeMap<String, Option<ProofResult>>> {
        let seen = self.see(host)?;
        let (seen, known) = (&seen, &answers);
        let one = async |role: ServiceRole| {
            let member = self.members.iter().find(|member| member.role == role)?;
            let seen = seen.get(&member.name)?;
            if seen.phase != ServicePhase::Running || known.contains_key(&member.name) {
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
        let asked = [server, workers, scheduler, monitor, web].into_iter().flatten();
        Ok(answers.into_iter().chain(asked).collect())
    }
}

fn weigh_processes(pids: &[u32]) -> BTreeMap<u32, u64> {
    let table = Table::read();
    pids.iter().filter_map(|pid| Some((*pid, table.memory(*pid)?))).collect()
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
