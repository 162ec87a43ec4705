//! `install`, `plan`, `uninstall`.

use super::{need_root, stop_on_signals};
use crate::cli::{Global, Install, Parts, Plan as PlanFlags, Uninstall};
use crate::desired::{Recipe, desired};
use crate::engine::{self, Plan, Scope};
use crate::error::Exit;
use crate::journal::{self, Journal, Writer};
use crate::report::{self, Lines, Style};
use crate::resource::{Resource, Wanted};
use crate::site::{Site, open_host};
use anyhow::{Context, Result};
use serde_json::json;
use std::io::{self, BufRead, IsTerminal, Write};

/// The recipe for the chosen parts, and the plan that makes the machine follow it.
pub async fn planned(site: &Site, journal: &Journal, parts: &Parts) -> Result<(Recipe, Plan)> {
    let found = site.found(journal)?;
    let mut recipe = desired(site, &found)?;
    keep_parts(&mut recipe.wanted, parts);
    let scope = Scope {
        instance: &site.instance,
        adopt: parts.adopt,
        whole: parts.whole(),
    };
    let plan = engine::plan(&site.host, journal, &recipe.wanted, scope).await?;
    Ok((recipe, plan))
}

/// Keeps the chosen parts, and the directories of other parts that something of theirs stands in.
fn keep_parts(wanted: &mut Vec<Wanted>, parts: &Parts) {
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

/// Shows what `install` would do.
pub async fn plan(global: &Global, flags: &PlanFlags, style: Style) -> Result<u8> {
    let site = Site::load(global)?;
    let (recipe, plan) = planned(&site, &site.journal()?, &flags.parts).await?;
    let document = json!({
        "instance": site.instance,
        "plan": plan,
        "kept": recipe.kept,
        "warnings": recipe.warnings,
    });
    if let Some(file) = &flags.out {
        let mut text = serde_json::to_string_pretty(&report::versioned(&document)?)?;
        text.push('\n');
        std::fs::write(file, text).map_err(|why| {
            Exit::CannotCreate.because(format!("--out {}: {why}", file.display()))
        })?;
    }
    if style.json {
        report::print_json(&document)?;
    } else {
        style.warn(&recipe.warnings);
        report::print(&report::plan(
            &site.host,
            &plan,
            &recipe.kept,
            flags.diff,
            style,
        ))?;
    }
    let pending = !plan.changes.is_empty() || !plan.conflicts.is_empty();
    Ok(if flags.exit_code && pending {
        Exit::Pending as u8
    } else {
        0
    })
}

/// Makes the machine what the settings say.
pub async fn install(global: &Global, flags: &Install, style: Style) -> Result<u8> {
    need_root(global, "install")?;
    let stop = stop_on_signals()?;
    let site = Site::load(global)?;
    if site.host.staged_root().is_none() {
        // Files alone, without modules and services, would leave a web server that does not start again.
        return Err(Exit::Usage.because(
            "this version installs into a staged tree: give --root DIR; plan shows what it would put on this machine",
        ));
    }
    let (mut recipe, mut plan) = planned(&site, &site.journal()?, &flags.parts).await?;
    style.warn(&recipe.warnings);
    if !plan.conflicts.is_empty()
        && let Some(_lock) = journal::try_lock(&site.host)?
    {
        // What another run was just making is no conflict.
        (recipe, plan) = planned(&site, &site.journal()?, &flags.parts).await?;
    }
    refuse_conflicts(&plan)?;
    if plan.changes.is_empty() {
        return finish_install(&site, &recipe, &plan, None, style);
    }
    let question = format!(
        "{} changes to {}",
        plan.changes.len(),
        site.host.outside("/")
    );
    if !agreed(&question, flags.yes || style.json)? {
        return Err(Exit::Failed.because("nothing was changed"));
    }
    let mut writer = Writer::open(&site.host, &site.instance, "install")?;
    // Somebody else may have been at work until the lock was ours: what is done now is planned now.
    (recipe, plan) = planned(&site, &writer.journal, &flags.parts).await?;
    refuse_conflicts(&plan)?;
    let mut lines = Lines {
        style,
        host: &site.host,
    };
    let outcome = engine::apply(&site.host, &mut writer, &plan, &stop, &mut lines).await?;
    finish_install(&site, &recipe, &plan, Some(&outcome), style)
}

fn finish_install(
    site: &Site,
    recipe: &Recipe,
    plan: &Plan,
    outcome: Option<&engine::Outcome>,
    style: Style,
) -> Result<u8> {
    if style.json {
        report::print_json(&json!({
            "instance": site.instance,
            "changed": outcome.map_or(0, |outcome| outcome.done),
            "left": outcome.map_or(&plan.left, |outcome| &outcome.left),
            "kept": recipe.kept,
            "on_first_boot": plan.on_first_boot,
            "url": site.url(),
        }))?;
        return Ok(0);
    }
    let nothing = engine::Outcome::default();
    report::print(&report::outcome(
        &site.host,
        "installed",
        outcome.unwrap_or(&nothing),
    ))?;
    if style.verbose {
        for kept in &recipe.kept {
            report::print_line(&format!("kept: {kept}"))?;
        }
    }
    for resource in &plan.on_first_boot {
        report::print_line(&format!("on first boot: {resource}"))?;
    }
    Ok(0)
}

fn refuse_conflicts(plan: &Plan) -> Result<()> {
    if plan.conflicts.is_empty() {
        return Ok(());
    }
    let all: Vec<&str> = plan.conflicts.iter().map(|c| c.what.as_str()).collect();
    Err(Exit::CannotCreate.because(all.join("\n")))
}

/// Undoes what this instance made.
pub async fn uninstall(global: &Global, flags: &Uninstall, style: Style) -> Result<u8> {
    need_root(global, "uninstall")?;
    let stop = stop_on_signals()?;
    let host = open_host(global)?;
    let instance = global.instance.as_str();
    if !journal::instances(&host)?
        .iter()
        .any(|name| name == instance)
    {
        journal::clear_up(&host)?;
        return finish_uninstall(&host, instance, &engine::Outcome::default(), style);
    }
    let owned = Journal::read(&host, instance)?.owned().len();
    let question = format!(
        "undo {} in {}",
        report::count(owned, "change"),
        host.outside("/")
    );
    if !agreed(&question, flags.yes || style.json)? {
        return Err(Exit::Failed.because("nothing was changed"));
    }
    let mut writer = Writer::open(&host, instance, "uninstall")?;
    let mut lines = Lines { style, host: &host };
    let outcome = engine::undo_all(&host, &mut writer, instance, &stop, &mut lines).await?;
    writer.forget().context(
        "everything is undone, but the journal could not be removed; run uninstall again",
    )?;
    finish_uninstall(&host, instance, &outcome, style)
}

fn finish_uninstall(
    host: &crate::host::Host,
    instance: &str,
    outcome: &engine::Outcome,
    style: Style,
) -> Result<u8> {
    if style.json {
        report::print_json(&json!({
            "instance": instance,
            "undone": outcome.done,
            "left": outcome.left,
        }))?;
    } else {
        report::print(&report::outcome(host, "uninstalled", outcome))?;
    }
    Ok(0)
}

/// Asks on a terminal; where nobody can answer, running the command was the answer.
fn agreed(question: &str, already: bool) -> Result<bool> {
    if already || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(true);
    }
    let mut err = io::stderr().lock();
    write!(err, "{question}: go on? [Y/n] ")?;
    err.flush()?;
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer)?;
    Ok(read > 0 && !answer.trim().to_lowercase().starts_with('n'))
}
