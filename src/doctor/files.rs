//! What the plan says of the settings, of files, and of all that has no check of its own.

use super::look::mended_by_install;
use super::{Finding, Health, Look, or_well};
use crate::drivers::release;
use crate::engine::Planned;
use crate::journal;
use crate::layout::RELEASES;
use crate::resource::Resource;
use anyhow::Result;

/// What only root's own hands change: the two facets of a file that are not its content.
const RIGHTS: [&str; 2] = ["owner", "mode"];

pub(crate) async fn check_settings(look: &Look<'_>) -> Result<Vec<Finding>> {
    if let Some(why) = look.site.facts.unknown_distribution() {
        return Ok(vec![Finding::failed(why, "cat /etc/os-release")]);
    }
    let (recipe, plan) = look.plan().await?;
    let open = look.site.open_secrets();
    // What the check of the broker tells, with what to do about it.
    let stored = look.site.own_broker()?.unreadable;
    let is_told = |warning: &&String| {
        open.iter().any(|open| warning.starts_with(&open.to_string()))
            || stored.as_ref().is_some_and(|stored| warning.contains(stored))
    };
    let missing = recipe.missing.iter().map(|(_, what)| Finding::failed(what, "camcops-provision plan"));
    let conflicts = plan.conflicts.iter().map(|one| Finding::failed(&one.what, "camcops-provision plan --diff"));
    let secrets = open.iter().map(|open| Finding::failed(open.to_string(), open.remedy()));
    let warnings = recipe.warnings.iter().filter(|one| !is_told(one));
    let warnings = warnings.map(|warning| Finding::warning(warning, "camcops-provision config edit"));
    let mut findings: Vec<Finding> = missing.chain(conflicts).chain(secrets).chain(warnings).collect();
    let is_cut = look.journal.owned().iter().any(|owned| owned.open);
    // What another run has begun is not interrupted.
    if is_cut && journal::at_work(&look.site.host).is_none() {
        findings.push(Finding::for_install("the last run was interrupted"));
    }
    let file = look.site.settings_file.display();
    Ok(or_well(findings, || Finding::ok(format!("{file}: settings are valid"))))
}

pub(crate) async fn check_permissions(look: &Look<'_>) -> Result<Vec<Finding>> {
    let pending = look.pending(only_rights).await?;
    let all = look.journal.owned().iter();
    let all = all.filter(|owned| owned.change.resource.is_file()).count();
    Ok(mended_by_install(pending, &format!("owners and modes of {all} files and directories are right")))
}

pub(crate) async fn check_files(look: &Look<'_>) -> Result<Vec<Finding>> {
    let pending = look
        .pending(|planned| match &planned.change.resource {
            Resource::Directory(_) | Resource::File(_) | Resource::Symlink(_) => !only_rights(planned),
            Resource::Group(_) | Resource::User(_) | Resource::Superuser(_) | Resource::Unknown { .. } => true,
            _ => false,
        })
        .await?;
    let all = look.journal.owned().len();
    let mut findings = mended_by_install(pending, &format!("{all} items unchanged since install"));
    if let Some(hole) = hole_of_release(look).await? {
        findings.retain(|finding| finding.state > Health::Ok);
        findings.push(hole);
    }
    Ok(findings)
}

/// Every file of the release in use is looked at, where install only looks into directories that have changed.
pub(crate) fn begin_search(look: &Look<'_>) -> Result<()> {
    let host = &look.site.host;
    let Some(id) = release::current_release(host)? else {
        return Ok(());
    };
    if let Some(search) = release::Search::new(host, &format!("{RELEASES}/{id}"), release::Thoroughness::Close)? {
        look.early.hole.begin(search.find_hole());
    }
    Ok(())
}

/// What the release in use lacks.
async fn hole_of_release(look: &Look<'_>) -> Result<Option<Finding>> {
    let host = &look.site.host;
    let Some(id) = release::current_release(host)? else {
        return Ok(None);
    };
    let place = format!("{RELEASES}/{id}");
    let hole = match look.early.hole.take().await {
        Some(hole) => hole?,
        None => release::find_hole(host, &place, release::Thoroughness::Close).await?,
    };
    let Some(hole) = hole else {
        return Ok(None);
    };
    let remedy = match hole.strip_suffix(" is damaged") {
        Some(path) => format!("rm '{place}/{path}' && camcops-provision install"),
        None => "camcops-provision install".to_owned(),
    };
    Ok(Some(Finding::failed(format!("release {id}: {hole}"), remedy)))
}

fn only_rights(planned: &Planned) -> bool {
    let facets = &planned.facets;
    planned.change.resource.is_file()
        && !facets.is_empty()
        && facets.iter().all(|facet| RIGHTS.contains(&facet.as_str()))
}
