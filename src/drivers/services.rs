//! Running services: our own under systemd or supervisor, and those of others that must pick up what we changed.
//!
//! A service that does not run is absent. Facets: `enabled` (comes back at boot), `fresh` (its main process started after
//! its newest input changed, so it has read it), `answers` (a real page, ping or login; see [`proof`]).

pub(crate) mod apache;
pub(crate) mod config_part;
mod failure;
mod fresh;
mod known;
pub(crate) mod member;
mod orders;
pub(crate) mod proof;
mod sandbox;
pub(crate) mod scripts;
mod start;
mod state;
pub(crate) mod supervisor;
pub(crate) mod systemd;
mod undo;

use crate::host::Host;
use crate::resource::{Enforced, Facets, Resource, State};
use anyhow::Result;
pub(crate) use failure::KEEPS_FAILING;
pub(crate) use fresh::{has_socket, is_fresh};
use known::look_at_service;
pub(crate) use known::{ProofResult, ServiceManager};
use member::ServiceRole;
pub(crate) use orders::{pause_stale, stop_ours, stop_service};
pub(crate) use start::NotRestarted;
pub(crate) use state::{ServicePhase, ServiceState, have_same_manager, is_ours};
pub(crate) use undo::{after_removals, after_undoing, before_undoing};

/// Whether it runs, has read its newest input, and answers.
pub(crate) async fn observe(known: Option<&ServiceManager>, host: &Host, name: &str) -> Result<State> {
    let seen = look_at_service(known, host, name)?;
    if !seen.is_up() {
        return Ok(State::Absent);
    }
    let mut facets = Facets::new();
    if let Some(enabled) = seen.enabled {
        facets = facets.with("enabled", yes_or_no(enabled));
    }
    let Some((known, member)) = known.and_then(|known| Some((known, known.find(name)?))) else {
        return Ok(State::Present(facets));
    };
    facets = facets.with("fresh", yes_or_no(is_fresh(known, host, member, &seen)?));
    // A socket that is asked would start the service behind it, and a stopping one has no answer to give.
    if seen.phase == ServicePhase::Running
        && let Some(proof) = known.answer(host, member).await?
    {
        facets = facets.with("answers", yes_or_no(proof.is_ok()));
    }
    Ok(State::Present(facets))
}

fn yes_or_no(fact: bool) -> &'static str {
    if fact { "yes" } else { "no" }
}

/// Makes a service run, fresh and answering; or stops it.
pub(crate) async fn enforce(
    known: Option<&ServiceManager>,
    host: &Host,
    name: &str,
    after: &State,
) -> Result<Enforced> {
    let done = match (after, known) {
        (State::Absent, _) => stop_service(known, host, name),
        (State::Present(wanted), Some(known)) => start::make_ready(known, host, name, wanted).await,
        (State::Present(_), None) => Ok(()),
    };
    if let Some(known) = known {
        known.forget();
    }
    done.map(|()| Enforced::Done)
}

/// Restarts a service of ours, fresh or not, and waits until it answers.
pub(crate) async fn restart_service(known: &ServiceManager, host: &Host, name: &str) -> Result<()> {
    if look_at_service(Some(known), host, name)?.is_up() {
        orders::stop_alone(Some(known), host, name)?;
    }
    bring_up(known, host, name).await
}

/// Makes a service run, fresh and answering, whether it comes back at boot or not.
pub(crate) async fn bring_up(known: &ServiceManager, host: &Host, name: &str) -> Result<()> {
    let done = start::make_ready(known, host, name, &Facets::new()).await;
    known.forget();
    done
}

/// Whether a resource is our web server, its socket, or what passes visitors on to it and is proved by its answers.
pub(crate) fn lets_visitors_in(known: &ServiceManager, resource: &Resource) -> bool {
    let Resource::Service(name) = resource else {
        return false;
    };
    let is_it = |role| matches!(role, ServiceRole::Server | ServiceRole::Socket | ServiceRole::Web);
    let mut members = known.members.iter();
    members.any(|member| member.name == *name && is_it(member.role))
}

/// Whether any of ours runs that uses the site's data.
pub(crate) fn any_of_ours_runs(known: &ServiceManager, host: &Host) -> Result<bool> {
    known.forget();
    let seen = known.see(host)?;
    let mut users = known
        .members
        .iter()
        .filter(|one| one.role.is_ours() && !matches!(one.role, ServiceRole::Timer | ServiceRole::Socket));
    Ok(users.any(|one| seen.get(&one.name).is_some_and(|seen| seen.there && seen.is_up())))
}
