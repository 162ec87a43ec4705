//! `wait`: until database, broker and web server answer.

use super::services;
use crate::base::error::Exit;
use crate::base::report::Report;
use crate::base::terminal::{self, Style};
use crate::cli::{Global, Wait};
use crate::probe::{self, Answer, Backend, Cause, Endpoint, Trouble, format_seconds};
use crate::session::Session;
use crate::settings::Service;
use anyhow::Result;
use serde::Serialize;
use serde_json::json;
use std::path::Path;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Between two tries: this long at first, twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// After what does not go away by itself: many wrong passwords in a row may lock the account.
const LONG_PAUSE: Duration = Duration::from_secs(5);
/// How long one try may take.
const SHORTEST_TRY: Duration = Duration::from_secs(1);
const LONGEST_TRY: Duration = Duration::from_secs(15);

#[derive(Debug, Serialize)]
struct AnsweredRole {
    #[serde(rename = "for")]
    role: Backend,
    at: String,
    #[serde(flatten)]
    answer: Answer,
    waited_ms: u64,
}

pub(crate) async fn run(global: &Global, flags: &Wait) -> Result<Report> {
    let site = Session::open(global)?;
    if site.host.staged_root().is_some() {
        return Err(Exit::Usage.because("wait needs running services; run without --root"));
    }
    let limit = Duration::from_secs(flags.timeout.into());
    let start = Instant::now();
    let mut waiting = JoinSet::new();
    for role in roles_to_ask(&site, &flags.roles) {
        let endpoint = site.endpoint(role)?;
        waiting.spawn(until_it_answers(role, endpoint, start, limit, site.style));
    }
    let mut answered = Vec::new();
    let mut missing = Vec::new();
    while let Some(result) = waiting.join_next().await {
        match result? {
            Ok(one) => answered.push(one),
            Err((role, trouble)) => missing.push((role, trouble)),
        }
    }
    answered.sort_by_key(|one| one.role);
    missing.sort_by_key(|(role, _)| *role);
    if !missing.is_empty() {
        let mut text = gave_up(&missing, limit);
        if missing.iter().any(|(role, _)| *role == Backend::Web) {
            text += &failing_services(&site);
        }
        return Err(Exit::Unreachable.because(text));
    }
    let report = Report::new(json!({ "instance": site.instance, "answered": answered }));
    Ok(answered.iter().map(format_answer).fold(report, Report::with_remark))
}

/// Logs in to the database as the account that runs this, for a `wait` of root.
pub(crate) async fn try_login(socket: &Path, user: &str, database: &str) -> Result<Report> {
    let result = probe::database::by_account(socket, user, database, LONGEST_TRY).await;
    Ok(Report::of_code(0).with_line(serde_json::to_string(&result)?))
}

/// Those asked for, or all that this machine has.
fn roles_to_ask(site: &Session, asked: &[Backend]) -> Vec<Backend> {
    let served = site.settings().services.wants(Service::Server);
    let mut roles: Vec<Backend> = match asked {
        [] => Backend::ALL.into_iter().filter(|role| served || *role != Backend::Web).collect(),
        asked => asked.to_vec(),
    };
    roles.sort();
    roles.dedup();
    roles
}

/// Which services end again and again, and why.
fn failing_services(site: &Session) -> String {
    let mut text = String::new();
    let Ok(known) = services::known(site) else {
        return text;
    };
    let Ok(mut all) = known.see(&site.host) else {
        return text;
    };
    for member in &known.members {
        let seen = all.remove(&member.name).unwrap_or_default();
        if let Some(how) = known.keeps_failing(&site.host, member, &seen) {
            text += &format!("\n  {} {how}", member.name);
        }
    }
    text
}

async fn until_it_answers(
    role: Backend,
    endpoint: Endpoint,
    start: Instant,
    limit: Duration,
    style: Style,
) -> Result<AnsweredRole, (Backend, Trouble)> {
    let mut pause = FIRST_PAUSE;
    let mut last: Option<Cause> = None;
    loop {
        let left = limit.saturating_sub(start.elapsed());
        let trouble = match endpoint.answers(left.clamp(SHORTEST_TRY, LONGEST_TRY)).await {
            Ok(answer) => {
                return Ok(AnsweredRole {
                    role,
                    at: endpoint.place(),
                    answer,
                    waited_ms: start.elapsed().as_millis() as u64,
                });
            }
            Err(trouble) => trouble,
        };
        let left = limit.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Err((role, trouble));
        }
        if last != Some(trouble.cause) && !style.quiet && !style.json {
            terminal::print_note(&format!("waiting for the {role} at {trouble}"));
        }
        last = Some(trouble.cause);
        if trouble.cause.passes() {
            sleep(pause.min(left)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        } else {
            sleep(LONG_PAUSE.min(left)).await;
        }
    }
}

fn format_answer(one: &AnsweredRole) -> String {
    let name = one.role.to_string();
    format!(
        "{name:<10} {} answers at {} after {}",
        one.answer,
        one.at,
        format_seconds(Duration::from_millis(one.waited_ms))
    )
}

fn gave_up(missing: &[(Backend, Trouble)], limit: Duration) -> String {
    let each: Vec<String> = missing.iter().map(|(role, trouble)| format!("the {role} at {trouble}")).collect();
    let time = if limit.is_zero() { String::new() } else { format!(" within {}", format_seconds(limit)) };
    format!("not ready{time}: {}", each.join("\n  and "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_cause_of_each_is_told() {
        let trouble = |text: &str| Trouble { cause: Cause::Closed, text: text.into() };
        let missing = [
            (Backend::Database, trouble("db:3306: connection refused")),
            (Backend::Broker, trouble("mq:5672: no answer")),
        ];
        assert_eq!(
            gave_up(&missing, Duration::from_secs(5)),
            "not ready within 5 s: the database at db:3306: connection refused\n  and the broker at mq:5672: no answer"
        );
        assert_eq!(gave_up(&missing[..1], Duration::ZERO), "not ready: the database at db:3306: connection refused");
    }
}
