//! `run --foreground`: services as long as this command runs, with their log on the terminal. They are those of the
//! manager, in their sandbox and with their socket; who is interrupted leaves the machine as it was.

use super::logs::follow_services;
use super::services::{choose_services, known};
use crate::base::error::Exit;
use crate::base::report::Report;
use crate::base::signals::stop_on_signals;
use crate::base::terminal::print_note;
use crate::cli::{Global, Services};
use crate::drivers::services::member::Member;
use crate::drivers::services::{self, ServicePhase};
use crate::session::Session;
use crate::settings::ServiceName;
use anyhow::{Context, Result};
use serde_json::json;
use std::time::Duration;
use tokio::time::sleep;

/// Between two looks at the services.
const PAUSE: Duration = Duration::from_millis(500);
/// What the log has still to say of an end is given this long.
const LAST_LINES: Duration = Duration::from_millis(700);

/// Starts what does not run yet, follows all of it, and stops what it has started.
pub(crate) async fn run_services(global: &Global, wanted: &[ServiceName]) -> Result<Report> {
    if global.json {
        return Err(Exit::Usage.because("--foreground cannot be used with --json, which prints one document"));
    }
    let (site, chosen) = choose_services(global, &Services { services: wanted.to_vec() }, "run services")?;
    let stop = stop_on_signals(site.style)?;
    let seen = known(&site)?.see(&site.host)?;
    let is_up = |member: &Member| seen.get(&member.name).is_some_and(|seen| seen.is_up());
    let (up, down): (Vec<Member>, Vec<Member>) = chosen.into_iter().partition(is_up);
    for member in &up {
        print_note(&format!("{} runs already, and keeps running afterwards", member.name));
    }
    let program = follow_services(&site, up.iter().chain(&down))?;
    let mut log = program.start().context("can't show the log")?;
    let ran = async {
        for member in &down {
            if !stop.is_set() {
                services::bring_up(known(&site)?, &site.host, &member.name).await?;
            }
        }
        let all: Vec<&Member> = up.iter().chain(&down).collect();
        while !stop.is_set() {
            if let Some(ended) = find_ended(&site, &all)? {
                return Ok(Some(ended));
            }
            sleep(PAUSE).await;
        }
        anyhow::Ok(None)
    };
    let ran = ran.await;
    // The last one first, whatever came of them.
    let mut stopped = Ok(());
    for member in down.iter().rev() {
        let ended = services::stop_service(site.drivers.services.as_ref(), &site.host, &member.name);
        stopped = stopped.and(ended);
    }
    sleep(LAST_LINES).await;
    log.end();
    let names: Vec<&str> = down.iter().map(|member| member.name.as_str()).collect();
    let report = Report::new(json!({ "instance": site.instance, "stopped": names }));
    match (ran?, stopped?) {
        (Some(ended), ()) => {
            Err(Exit::Failed.because(format!("{ended}; the services that were started are stopped again")))
        }
        (None, ()) if names.is_empty() => Ok(report),
        (None, ()) => Ok(report.with_remark(format!("stopped {}", names.join(", ")))),
    }
}

/// A service that has ended by itself, or that somebody has stopped.
fn find_ended(site: &Session, all: &[&Member]) -> Result<Option<String>> {
    let known = known(site)?;
    known.forget();
    let seen = known.see(&site.host)?;
    Ok(all.iter().find_map(|member| {
        let phase = seen.get(&member.name).map_or(ServicePhase::Stopped, |seen| seen.phase);
        match phase {
            ServicePhase::Stopped => Some(format!("{} was stopped", member.name)),
            ServicePhase::Failed => Some(format!("{} has failed", member.name)),
            _ => None,
        }
    }))
}
