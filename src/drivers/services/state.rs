//! Where a service is in its life, as its manager sees it, and who that is.

use std::time::{Duration, SystemTime};

/// After so many failures it is not waited for any longer.
pub(super) const MANY_RESTARTS: u32 = 3;

/// What has run so long since its last failure runs.
const SETTLED: Duration = Duration::from_secs(60);

/// What systemd calls Erlang's port mapper.
pub(super) const PORT_MAPPER: &str = "epmd.socket";

/// Where a service is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ServicePhase {
    /// It does not run.
    #[default]
    Stopped,
    /// It does not run yet.
    Starting,
    Running,
    /// It still runs.
    Stopping,
    /// It does not run, because something went wrong.
    Failed,
}

/// What its manager knows of a service.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServiceState {
    /// Whether the manager knows it at all.
    pub(crate) there: bool,
    /// Whether the administrator forbade it.
    pub(crate) masked: bool,
    pub(crate) phase: ServicePhase,
    /// More about that, in the manager's own words.
    pub(crate) detail: String,
    /// Its main process.
    pub(crate) pid: Option<u32>,
    pub(crate) since: Option<SystemTime>,
    /// When it last read its configuration again without a restart.
    pub(crate) reloaded: Option<SystemTime>,
    /// Whether it comes back at boot, where the manager tells.
    pub(crate) enabled: Option<bool>,
    /// Whether its manager has not read its files since they changed.
    pub(crate) stale_files: bool,
    /// The files that describe it.
    pub(crate) files: Vec<String>,
    /// How often it was restarted after a failure.
    pub(crate) restarts: u32,
    /// How its last run ended, in the manager's own words.
    pub(crate) result: String,
    /// Whether its manager is just about to start it once more after a failure.
    pub(crate) again: bool,
}

impl ServiceState {
    /// Whether it runs, or is about to, or not to any more.
    pub(crate) fn is_up(&self) -> bool {
        !matches!(self.phase, ServicePhase::Stopped | ServicePhase::Failed)
    }

    /// Whether it ends soon after each start. It is never only starting then, even if it seems so at this moment.
    pub(crate) fn keeps_failing(&self) -> bool {
        let is_young = || {
            let age = self.since.and_then(|since| since.elapsed().ok());
            age.is_some_and(|age| age < SETTLED)
        };
        match self.phase {
            ServicePhase::Starting => self.again || self.restarts > 0,
            ServicePhase::Running => self.restarts >= MANY_RESTARTS && is_young(),
            ServicePhase::Failed => self.again || self.restarts > 0,
            ServicePhase::Stopped | ServicePhase::Stopping => false,
        }
    }
}

/// Who manages a service: its name tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handler {
    Systemd,
    Supervisor,
    Scripts,
}

impl Handler {
    pub(super) fn of(name: &str) -> Handler {
        if [".service", ".socket", ".timer"].iter().any(|end| name.ends_with(end)) {
            Handler::Systemd
        } else if name.contains(':') {
            Handler::Supervisor
        } else {
            Handler::Scripts
        }
    }
}

/// Whether two services have the same manager.
pub(crate) fn have_same_manager(one: &str, other: &str) -> bool {
    Handler::of(one) == Handler::of(other)
}

/// Whether a service is one that this program makes, and not one of somebody else.
pub(crate) fn is_ours(name: &str) -> bool {
    name.starts_with("camcops")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_who_manages_it() {
        assert_eq!(Handler::of("camcops-server@camcops.socket"), Handler::Systemd);
        assert_eq!(Handler::of("camcops:camcops_server"), Handler::Supervisor);
        assert_eq!(Handler::of("rabbitmq-server"), Handler::Scripts);
        assert!(is_ours("camcops_two:camcops_two_server") && !is_ours("apache2.service"));
    }
}
