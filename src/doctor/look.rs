//! What the checks share, each thing asked once.

use super::{Finding, Measure, NotApplicable};
use crate::cli::Parts;
use crate::drivers::services::member::{Member, ServiceRole};
use crate::drivers::services::{ProofResult, ServiceManager, ServiceState};
use crate::drivers::sql;
use crate::engine::{Plan, Planned};
use crate::host::Ended;
use crate::journal::Journal;
use crate::probe::broker::Queue;
use crate::probe::{Answer, Trouble};
use crate::recipe::Recipe;
use crate::session::Session;
use crate::session::converge::make_plan;
use anyhow::{Context, Result};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;

/// A site, and what was found out about it so far.
pub(crate) struct Look<'a> {
    pub(crate) site: &'a Session,
    /// What is installed already.
    pub(crate) journal: Journal,
    /// Whether nothing is, and the question is whether it could be.
    pub(crate) before: bool,
    pub(super) measures: Measures,
    pub(super) early: EarlyAnswers,
    plan: OnceCell<Result<(Recipe, Plan), NoPlan>>,
    queue: RefCell<Option<Queue>>,
}

/// What takes its time and needs nobody else's answer: it begins with the first check, and is there when its turn comes.
/// Not the site itself: who asks for a page starts a server that is stopped.
#[derive(Default)]
pub(super) struct EarlyAnswers {
    /// The first file that the release lacks.
    pub(super) hole: Early<Result<Option<String>>>,
    /// Apache's own test of its configuration.
    pub(super) configtest: Early<Result<Ended>>,
    pub(super) clock: Early<Result<Ended>>,
    pub(super) broker: Early<Result<(Answer, Option<Queue>), Trouble>>,
}

/// An answer that may be on its way.
pub(super) struct Early<T>(RefCell<Option<JoinHandle<T>>>);

impl<T> Default for Early<T> {
    fn default() -> Early<T> {
        Early(RefCell::default())
    }
}

impl<T: Send + 'static> Early<T> {
    pub(super) fn begin(&self, asking: impl Future<Output = T> + Send + 'static) {
        self.0.replace(Some(tokio::spawn(asking)));
    }

    /// The answer; nothing where it was not asked for.
    pub(super) async fn take(&self) -> Option<T> {
        let asked = self.0.take()?;
        asked.await.ok()
    }
}

/// Why no plan can be made: each check that needs one says it again.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
struct NoPlan(String);

#[derive(Default)]
pub(super) struct Measures(Cell<Vec<Measure>>);

impl Measures {
    pub(super) fn take(&self) -> Vec<Measure> {
        self.0.take()
    }

    fn add(&self, measure: Measure) {
        let mut all = self.0.take();
        all.push(measure);
        self.0.set(all);
    }
}

impl<'a> Look<'a> {
    pub(crate) fn at(site: &'a Session, journal: Journal, before: bool) -> Look<'a> {
        Look {
            site,
            journal,
            before,
            measures: Measures::default(),
            early: EarlyAnswers::default(),
            plan: OnceCell::new(),
            queue: RefCell::default(),
        }
    }

    /// Takes a number down.
    pub(super) fn measure(&self, name: &'static str, of: Option<&str>, value: f64) {
        self.measures.add(Measure { name, of: of.map(str::to_owned), value });
    }

    /// What `install` would do.
    pub(super) async fn plan(&self) -> Result<&(Recipe, Plan)> {
        let made = self
            .plan
            .get_or_init(async || {
                // What stands in the way is a conflict all the same where it can't be taken over.
                let made = make_plan(self.site, &self.journal, &Parts::default()).await;
                made.map_err(|why| NoPlan(format!("{why:#}")))
            })
            .await;
        made.as_ref().map_err(|why| why.clone().into())
    }

    /// The changes that one check tells of, each as what differs; `install` mends them.
    pub(super) async fn pending(&self, concerns: impl Fn(&Planned) -> bool) -> Result<Vec<String>> {
        let (_, plan) = self.plan().await?;
        let told = |planned: &Planned| match planned.facets.as_slice() {
            [one] if one == "presence" => format!("{} is missing", planned.change.resource),
            facets => format!("{} differs from the plan ({})", planned.change.resource, facets.join(", ")),
        };
        let changes = plan.changes.iter();
        Ok(changes.filter(|planned| concerns(planned)).map(told).collect())
    }

    /// The services of the site.
    pub(super) fn services(&self) -> Result<&ServiceManager> {
        let services = self.site.drivers.services.as_ref();
        services.context("a staged tree has no services")
    }

    /// A service of the site, and what its manager says.
    pub(super) fn service(&self, role: ServiceRole) -> Result<Option<(Member, ServiceState)>> {
        let known = self.services()?;
        let Some(member) = known.members.iter().find(|member| member.role == role) else {
            return Ok(None);
        };
        let seen = known.see(&self.site.host)?.remove(&member.name);
        Ok(Some((member.clone(), seen.unwrap_or_default())))
    }

    /// Whether a service that runs answers, asked once.
    pub(super) async fn answer(&self, member: &Member) -> Result<Option<ProofResult>> {
        self.services()?.answer(&self.site.host, member).await
    }

    /// The database server, as its administrator where we can be that. Its passwords are read for the plan: where no
    /// plan can be made, there may be none.
    pub(super) async fn database(&self) -> Result<Rc<sql::Database>> {
        let _ = self.plan().await;
        let database = self.site.drivers.database();
        database.map_err(|_| NotApplicable("not checked: no plan can be made, see the check `settings`").into())
    }

    pub(super) fn keep_queue(&self, queue: Queue) {
        self.queue.replace(Some(queue));
    }

    pub(super) fn queue(&self) -> Option<Queue> {
        *self.queue.borrow()
    }
}

/// What is pending as findings, or that all is well.
pub(super) fn mended_by_install(pending: Vec<String>, well: &str) -> Vec<Finding> {
    if pending.is_empty() {
        return vec![Finding::ok(well)];
    }
    pending.into_iter().map(Finding::for_install).collect()
}
