//! What every command does that makes a machine follow its settings: plan, refuse, apply.

use crate::archive::bundle;
use crate::base::error::Exit;
use crate::base::signals::Interrupt;
use crate::cli::{Parts, SourceFlags};
use crate::drivers::{packages, release, services, sql};
use crate::engine::report::Lines;
use crate::engine::{self, Action, Plan, Scope};
use crate::journal::{Journal, Writer};
use crate::recipe::Recipe;
use crate::resource::{Part, Resource, State, Wanted};
use crate::session::{Session, trial};
use crate::site::ExistingState;
use anyhow::Result;

/// The recipe for the chosen parts, and the plan that makes the machine follow it.
pub(crate) async fn make_plan(site: &Session, journal: &Journal, parts: &Parts) -> Result<(Recipe, Plan)> {
    if parts.include(Part::Services) {
        site.drivers.begin_to_look(&site.host);
    }
    let mut found = site.read_existing(journal)?;
    site.load_secrets(&found)?;
    plan_from(site, journal, parts, &mut found).await
}

/// The same where what exists is read already, and the drivers have their secrets.
pub(crate) async fn plan_from(
    site: &Session,
    journal: &Journal,
    parts: &Parts,
    found: &mut ExistingState,
) -> Result<(Recipe, Plan)> {
    if found.database_client.is_none() && parts.include(Part::Database) && site.host.staged_root().is_none() {
        found.database_client = Some(site.drivers.database()?.client().await?);
    }
    let mut recipe = site.recipe(found)?;
    keep_parts(&mut recipe.wanted, parts);
    recipe.missing.retain(|(part, _)| parts.include(*part));
    // Where something is missing, what depends on it is not in the recipe, and wanted all the same.
    let whole = parts.whole() && recipe.missing.is_empty();
    let scope = Scope { instance: &site.instance, adopt: parts.adopt, whole };
    let plan = engine::make_plan(&site.host, &site.drivers, journal, &recipe.wanted, scope).await?;
    Ok((recipe, plan))
}

/// Keeps the chosen parts, and the directories of other parts that something of theirs stands in.
pub(crate) fn keep_parts(wanted: &mut Vec<Wanted>, parts: &Parts) {
    let chosen: Vec<String> = wanted
        .iter()
        .filter(|wanted| parts.include(wanted.part))
        .map(|wanted| wanted.resource.name().to_owned())
        .collect();
    wanted.retain(|wanted| {
        let inside = format!("{}/", wanted.resource.name());
        parts.include(wanted.part)
            || (matches!(wanted.resource, Resource::Directory(_))
                && chosen.iter().any(|name| name.starts_with(&inside)))
    });
}

/// Carries a plan out, and tells of each change.
pub(crate) async fn apply_plan(
    site: &Session,
    writer: &mut Writer<'_>,
    plan: &Plan,
    stop: Interrupt,
) -> Result<engine::RunOutcome> {
    let mut lines = Lines::new(site.style, &site.host);
    engine::apply_plan(&site.drivers, writer, plan, stop, &mut lines).await
}

/// Makes the machine what the settings say, in some of its parts; the lock is ours.
pub(crate) async fn converge_site(
    site: &Session,
    writer: &mut Writer<'_>,
    parts: &Parts,
    stop: Interrupt,
) -> Result<(Recipe, Plan, engine::RunOutcome)> {
    // Somebody else may have been at work until the lock was ours: what is done now is planned now.
    let (recipe, mut plan) = make_plan(site, &writer.journal, parts).await?;
    refuse_plan(site, &recipe, &plan)?;
    trial::refuse_verdict(site, &recipe, &plan, &writer.journal)?;
    plan.changes.retain(|planned| !is_issued(planned));
    unpack_bundle(site, &plan)?;
    let outcome = apply_plan(site, writer, &plan, stop).await?;
    let removed = plan.changes.iter().filter(|c| c.action == Action::Remove);
    let removed: Vec<&str> = removed.map(|c| c.change.resource.name()).collect();
    services::after_removals(site.drivers.services.as_ref(), &site.host, &removed)?;
    Ok((recipe, plan, outcome))
}

/// What is converged after the data was changed: all of it, but on a distribution that is not known, where nothing is laid
/// out, only what reads the data.
pub(crate) fn parts_with_data(site: &Session) -> Parts {
    match site.facts.release {
        Some(_) => Parts::default(),
        None => Parts::only_of(&[Part::Tables, Part::Superuser, Part::Services]),
    }
}

/// Has an authority issue the certificate, where the site is to have one and has not, and lets Apache serve it. Nothing
/// else waits for an authority, which may be away or refuse.
pub(crate) async fn issue_certificate(
    site: &Session,
    writer: &mut Writer<'_>,
    parts: &Parts,
    stop: Interrupt,
) -> Result<engine::RunOutcome> {
    let mut outcome = engine::RunOutcome::default();
    let served = Parts { only: vec![Part::Certificate, Part::Web], ..parts.clone() };
    // Only when it is there it is known what Apache has to serve.
    for of_authority in [true, false] {
        let (_, mut plan) = make_plan(site, &writer.journal, &served).await?;
        plan.changes.retain(|planned| is_issued(planned) == of_authority);
        if plan.changes.is_empty() {
            break;
        }
        let made = apply_plan(site, writer, &plan, stop).await?;
        outcome.done += made.done;
        outcome.planned += made.planned;
    }
    Ok(outcome)
}

pub(crate) fn is_issued(planned: &engine::Planned) -> bool {
    matches!(planned.change.resource, Resource::AcmeCertificate(_))
}

/// Where CamCOPS comes from, as settings of one run.
pub(crate) fn overriding_sources(origin: &SourceFlags) -> Result<Vec<String>> {
    let mut overrides = Vec::new();
    if origin.offline {
        overrides.push("network.offline=true".into());
    }
    for (name, given) in [("wheelhouse", &origin.wheelhouse), ("bundle", &origin.bundle)] {
        let Some(given) = given else { continue };
        let path = given
            .canonicalize()
            .map_err(|why| Exit::Unusable.because(format!("--{name} {}: {why}", given.display())))?;
        let path = path.to_str().ok_or_else(|| Exit::Unusable.because(format!("--{name}: its name is not UTF-8")))?;
        overrides.push(format!("camcops.source={name}"));
        overrides.push(format!("camcops.{name}={path}"));
    }
    Ok(overrides)
}

/// Refuses a plan that can't be carried out as a whole, also what the database does not let this account do.
pub(crate) async fn refuse_undoable(site: &Session, recipe: &Recipe, plan: &Plan) -> Result<()> {
    refuse_plan(site, recipe, plan)?;
    let differing = plan.changes.iter().filter(|c| !c.facets.is_empty());
    sql::refuse_undoable(site.drivers.database().ok().as_deref(), &site.host, differing.map(|planned| &planned.change))
        .await
}

/// What can't be carried out is refused before any of it is.
pub(crate) fn refuse_plan(site: &Session, recipe: &Recipe, plan: &Plan) -> Result<()> {
    let missing: Vec<&str> = recipe.missing.iter().map(|(_, what)| what.as_str()).collect();
    if !missing.is_empty() {
        return Err(Exit::Unreachable.because(missing.join("\n")));
    }
    let unfetched = missing_from_bundle(site, plan)?;
    if !unfetched.is_empty() {
        return Err(Exit::Unreachable.because(unfetched.join("\n")));
    }
    if plan.conflicts.is_empty() {
        return Ok(());
    }
    let all: Vec<&str> = plan.conflicts.iter().map(|c| c.what.as_str()).collect();
    Err(Exit::CannotCreate.because(all.join("\n")))
}

/// What would have to be fetched, where nothing may be.
pub(crate) fn missing_from_bundle(site: &Session, plan: &Plan) -> Result<Vec<String>> {
    let made = plan.changes.iter().filter(|c| c.change.after != State::Absent);
    let made: Vec<&Resource> = made.map(|c| &c.change.resource).collect();
    let (host, drivers) = (&site.host, &site.drivers);
    let packages = drivers.packages.as_ref();
    let release = drivers.release.as_ref();
    let refusals = [
        packages.map(|known| packages::refuse_offline(known, host, made.iter().copied())),
        release.map(|recipe| release::refuse_offline(recipe, host, made.iter().copied())),
    ];
    let mut unfetched = Vec::new();
    for refusal in refusals.into_iter().flatten() {
        match refusal {
            Ok(()) => {}
            Err(why) if Exit::of(&why) == Exit::Unreachable => unfetched.push(format!("{why:#}")),
            Err(why) => return Err(why),
        }
    }
    Ok(unfetched)
}

/// Checks and unpacks the bundle that a plan needs, before anything is changed; the lock is ours.
pub(crate) fn unpack_bundle(site: &Session, plan: &Plan) -> Result<()> {
    let fetched = plan.changes.iter().any(|planned| {
        planned.change.after != State::Absent
            && matches!(planned.change.resource, Resource::Package(_) | Resource::Release(_))
    });
    match &site.drivers.bundle {
        Some(bundle) if fetched => {
            bundle.unpacked(&site.host)?;
            bundle.place_advisories(&site.host)
        }
        // An earlier run may have been cut.
        _ => bundle::clear_unpacked(&site.host),
    }
}

/// Puts the advisories of a bundle that was named where the site keeps them, also where nothing else of it is needed; the
/// lock is ours.
pub(crate) fn place_advisories(site: &Session, origin: &SourceFlags) -> Result<()> {
    match &site.drivers.bundle {
        Some(bundle) if origin.bundle.is_some() => bundle.place_advisories(&site.host),
        _ => Ok(()),
    }
}
