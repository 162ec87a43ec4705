//! `top` and `stats`: what the services use, measured twice and told as rates.

use super::services::known;
use super::{load_site, need_machine};
use crate::base::report::{Report, format_named};
use crate::base::terminal::{self, count_of};
use crate::base::text::format_time;
use crate::cli::{Global, Top};
use crate::drivers::services::member::ServiceRole;
use crate::drivers::services::{ServicePhase, ServiceState};
use crate::drivers::sql::quote;
use crate::host::processes::{self, Stat, Table};
use crate::probe::broker::Queue;
use crate::probe::{Backend as Server, Endpoint};
use crate::session::Session;
use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

/// Between the two measurements of one answer.
const MOMENT: Duration = Duration::from_secs(1);
/// A server that takes longer does not answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Where Celery puts what nobody has said another queue for.
const QUEUE: &str = "celery";

/// Shows the services again and again on a terminal, else once.
pub(crate) async fn show_top(global: &Global, flags: &Top) -> Result<Report> {
    need_machine(global, "measure the services")?;
    let site = load_site(global)?;
    if !global.json && !flags.once && terminal::is_output() {
        let pause = Duration::from_secs(flags.seconds.into());
        site.close_after(watch_site(&site, pause).await).await?;
        return Ok(Report::of_code(0));
    }
    let measured = site.close_after(measure_site(&site).await).await?;
    Ok(report_measured(&site, &measured))
}

/// Tells everything that was measured, each process by itself.
pub(crate) async fn measure_processes(global: &Global) -> Result<Report> {
    need_machine(global, "measure the services")?;
    let site = load_site(global)?;
    let measured = site.close_after(measure_site(&site).await).await?;
    Ok(report_measured(&site, &measured).with_table(format_processes(&measured)))
}

/// Measures once, for others to tell.
pub(super) async fn measure_services(global: &Global) -> Result<Measured> {
    let site = load_site(global)?;
    site.close_after(measure_site(&site).await).await
}

fn report_measured(site: &Session, measured: &Measured) -> Report {
    Report::new(json!({ "instance": site.instance, "stats": measured })).with_table(format_table(site, measured))
}

async fn measure_site(site: &Session) -> Result<Measured> {
    let first = Sample::take(site)?;
    let (servers, ()) = tokio::join!(measure_servers(site), sleep(MOMENT));
    Ok(Sample::take(site)?.since(&first, servers))
}

/// On a screen of its own, which whoever watches leaves as it was before.
async fn watch_site(site: &Session, pause: Duration) -> Result<()> {
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut ends = signal(SignalKind::terminate())?;
    terminal::print("\u{1b}[?1049h\u{1b}[?25l")?;
    let mut pauses = [MOMENT].into_iter().chain(std::iter::repeat(pause));
    let mut last = Sample::take(site);
    let failed = loop {
        let before = match last {
            Ok(before) => before,
            Err(why) => break Some(why),
        };
        let asked = measure_servers(site);
        let (servers, ()) = tokio::select! {
            both = async { tokio::join!(asked, sleep(pauses.next().unwrap_or(pause))) } => both,
            _ = interrupts.recv() => break None,
            _ = ends.recv() => break None,
        };
        last = match Sample::take(site) {
            Ok(now) => {
                let text = format_table(site, &now.since(&before, servers));
                let heading = if site.style.color { "\u{1b}[1m" } else { "" };
                let text = text.replace('\n', "\u{1b}[K\n");
                terminal::print(&format!(
                    "\u{1b}[H{heading}{}\u{1b}[J",
                    text.replacen("\u{1b}[K\n", "\u{1b}[0m\u{1b}[K\n", 1)
                ))?;
                Ok(now)
            }
            failed => failed,
        };
    };
    terminal::print("\u{1b}[?25h\u{1b}[?1049l")?;
    failed.map_or(Ok(()), Err)
}

/// What was measured at one moment.
struct Sample {
    at: Instant,
    services: Vec<ServiceNow>,
    visits: Option<Visits>,
}

struct ServiceNow {
    name: String,
    service: Option<String>,
    seen: ServiceState,
    processes: BTreeMap<u32, Stat>,
}

/// How much Apache has logged of the site, and where.
struct Visits {
    path: String,
    inode: u64,
    size: u64,
}

impl Sample {
    fn take(site: &Session) -> Result<Sample> {
        let known = known(site)?;
        known.forget();
        let all = known.see(&site.host)?;
        let table = Table::read();
        let services = known
            .members
            .iter()
            .filter(|member| member.role != ServiceRole::Socket)
            .map(|member| {
                let seen = all.get(&member.name).cloned().unwrap_or_default();
                let tree = seen.pid.map(|pid| table.tree(pid)).unwrap_or_default();
                ServiceNow {
                    name: member.name.clone(),
                    service: member.service.clone(),
                    seen,
                    processes: tree.into_iter().filter_map(|pid| Some((pid, table.get(pid)?))).collect(),
                }
            })
            .collect();
        Ok(Sample { at: Instant::now(), services, visits: count_visits(site) })
    }

    fn since(&self, before: &Sample, servers: Servers) -> Measured {
        let seconds = self.at.duration_since(before.at).as_secs_f64();
        let services = self
            .services
            .iter()
            .map(|now| {
                let then = before.services.iter().find(|then| then.name == now.name);
                measure_service(now, then, seconds)
            })
            .collect();
        let requests = match (&before.visits, &self.visits) {
            (Some(then), Some(now)) => since_then(then, now).map(|count| count as f64 / seconds),
            _ => None,
        };
        Measured { seconds, services, requests_per_second: requests.map(round_number), servers }
    }
}

fn measure_service(now: &ServiceNow, then: Option<&ServiceNow>, seconds: f64) -> Service {
    let up = now.seen.phase == ServicePhase::Running;
    let processes: Vec<ProcessUse> = now
        .processes
        .iter()
        .map(|(&pid, stat)| {
            let before = then.and_then(|then| then.processes.get(&pid));
            // One that is new was busy for all of its life within this time.
            let busy = stat.busy - before.map_or(Duration::ZERO, |before| before.busy.min(stat.busy));
            ProcessUse {
                pid,
                program: processes::program_of(pid),
                state: stat.state,
                since: processes::start_time(pid).and_then(format_time),
                cpu_percent: round_number(busy.as_secs_f64() / seconds * 100.0),
                cpu_seconds: round_number(stat.busy.as_secs_f64()),
                memory: processes::memory_share(pid),
            }
        })
        .collect();
    Service {
        name: now.name.clone(),
        service: now.service.clone(),
        state: now.seen.phase,
        restarts: now.seen.restarts,
        // A sum of nothing would be less than nothing.
        cpu_percent: round_number(processes.iter().fold(0.0, |sum, one| sum + one.cpu_percent)),
        memory: if up { processes.iter().map(|one| one.memory).sum() } else { None },
        processes,
    }
}

fn round_number(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

fn count_visits(site: &Session) -> Option<Visits> {
    let layout = &site.layout;
    let path = format!("{}/{}_access.log", layout.apache_logs, layout.slug);
    let data = std::fs::metadata(&path).ok()?;
    Some(Visits { path, inode: data.ino(), size: data.size() })
}

/// How many lines were added; nothing where the file was changed for another one meanwhile.
fn since_then(then: &Visits, now: &Visits) -> Option<usize> {
    let added = now.size.checked_sub(then.size)?;
    if now.inode != then.inode {
        return None;
    }
    let mut file = File::open(&now.path).ok()?;
    file.seek(SeekFrom::Start(then.size)).ok()?;
    let mut bytes = Vec::new();
    file.take(added).read_to_end(&mut bytes).ok()?;
    Some(bytes.iter().filter(|byte| **byte == b'\n').count())
}

/// What the servers say.
#[derive(Serialize)]
struct Servers {
    queue: Option<Queue>,
    database: Option<Connections>,
    troubles: Vec<String>,
}

async fn measure_servers(site: &Session) -> Servers {
    let (queue, database) = tokio::join!(measure_queue(site), count_connections(site));
    let mut troubles = Vec::new();
    let mut note = |why: anyhow::Error| troubles.push(format!("{why:#}"));
    let queue = queue.map_err(&mut note).ok().flatten();
    let database = database.map_err(&mut note).ok();
    Servers { queue, database, troubles }
}

async fn measure_queue(site: &Session) -> Result<Option<Queue>> {
    let Endpoint::Broker(endpoint) = site.endpoint(Server::Broker)? else {
        return Ok(None);
    };
    let queue = endpoint.queue(QUEUE, PATIENCE).await;
    queue.map_err(|trouble| anyhow::anyhow!("broker {trouble}"))
}

async fn count_connections(site: &Session) -> Result<Connections> {
    let known = site.drivers.database()?;
    let open: Option<(String, u64)> = known.server.row("SHOW GLOBAL STATUS LIKE 'Threads_connected'").await?;
    let most = known.server.number("SELECT @@max_connections").await?;
    let ours = format!(
        "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE DB = {}",
        quote::quote_text(&known.database)
    );
    let ours = known.server.number(&ours).await?;
    Ok(Connections { open: open.map_or(0, |(_, open)| open), ours: ours.unwrap_or(0), most: most.unwrap_or(0) })
}

/// What was measured between two moments.
#[derive(Serialize)]
pub(super) struct Measured {
    /// Between the two.
    seconds: f64,
    services: Vec<Service>,
    /// Of the site, by Apache's log of it.
    requests_per_second: Option<f64>,
    #[serde(flatten)]
    servers: Servers,
}

impl Measured {
    pub(super) fn waiting_tasks(&self) -> Option<f64> {
        self.servers.queue.as_ref().map(|queue| queue.waiting.into())
    }

    pub(super) fn open_connections(&self) -> Option<f64> {
        self.servers.database.as_ref().map(|connections| connections.open as f64)
    }

    /// Of those that run, in bytes.
    pub(super) fn service_memory(&self) -> Option<f64> {
        let ours = self.services.iter().filter(|service| service.service.is_some());
        ours.filter_map(|service| service.memory).reduce(|sum, memory| sum + memory).map(|bytes| bytes as f64)
    }

    /// The services as rows of a table.
    pub(super) fn rows(&self) -> Vec<Value> {
        let row = |service: &Service| {
            json!({
                "name": service.name,
                "state": format!("{:?}", service.state).to_lowercase(),
                "cpu": format!("{:.1} %", service.cpu_percent),
                "memory": format_memory(service.memory.filter(|_| !service.processes.is_empty())),
                "processes": service.processes.len().to_string(),
                "restarts": service.restarts.to_string(),
            })
        };
        self.services.iter().map(row).collect()
    }
}

fn format_memory(memory: Option<u64>) -> String {
    memory.map_or("-".to_owned(), |bytes| format!("{} MiB", bytes >> 20))
}

#[derive(Serialize)]
struct Service {
    name: String,
    /// As people call it, where it is one of ours.
    service: Option<String>,
    state: ServicePhase,
    restarts: u32,
    /// Of one core.
    cpu_percent: f64,
    memory: Option<u64>,
    processes: Vec<ProcessUse>,
}

#[derive(Serialize)]
struct ProcessUse {
    pid: u32,
    program: Option<String>,
    state: char,
    since: Option<String>,
    cpu_percent: f64,
    cpu_seconds: f64,
    /// What is shared counted once, in bytes.
    memory: Option<u64>,
}

/// Connections to the database server.
#[derive(Serialize)]
struct Connections {
    open: u64,
    /// To the site's own database.
    ours: u64,
    /// As many as the server takes.
    most: u64,
}

fn format_table(site: &Session, measured: &Measured) -> String {
    let name = |service: &Service| service.name.trim_end_matches(".service").to_owned();
    let width = measured.services.iter().map(|service| name(service).len()).max().unwrap_or(0).max(7);
    let mut text = format!(
        "{:<width$} {:<8} {:>6} {:>9} {:>9} {:>8}\n",
        "SERVICE", "STATE", "CPU %", "MEMORY", "PROCESSES", "RESTARTS"
    );
    for service in &measured.services {
        let memory = format_memory(service.memory);
        let state = format!("{:?}", service.state).to_lowercase();
        let _ = writeln!(
            text,
            "{:<width$} {state:<8} {:>6.1} {memory:>9} {:>9} {:>8}",
            name(service),
            service.cpu_percent,
            service.processes.len(),
            service.restarts
        );
    }
    let Servers { queue, database, troubles } = &measured.servers;
    let requests = measured.requests_per_second.map(|number| format!("{number:.1} per second to {}", site.url()));
    let queue = queue.as_ref().map(|queue| {
        let (waiting, consumers) = (count_of(queue.waiting, "task"), count_of(queue.consumers, "consumer"));
        format!("{waiting} waiting, {consumers} connected")
    });
    let database = database
        .as_ref()
        .map(|Connections { open, ours, most }| format!("{open} of {most} connections, {ours} of this site"));
    text += &requests.map_or_else(String::new, |requests| format_named("requests", requests));
    text += &queue.map_or_else(String::new, |queue| format_named("queue", queue));
    text += &database.map_or_else(String::new, |database| format_named("database", database));
    text.extend(troubles.iter().map(|trouble| format_named("trouble", trouble)));
    text
}

fn format_processes(measured: &Measured) -> String {
    let mut text = String::new();
    for service in &measured.services {
        let _ = writeln!(text, "\n{}", service.name);
        for process in &service.processes {
            let memory = process.memory.map_or(0, |bytes| bytes >> 20);
            let _ = writeln!(
                text,
                "  {:>8} {} {:>6.1} % {:>9.2} s {memory:>6} MiB  {}, since {}",
                process.pid,
                process.state,
                process.cpu_percent,
                process.cpu_seconds,
                process.program.as_deref().unwrap_or("?"),
                process.since.as_deref().unwrap_or("?")
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn visits_are_the_lines_that_were_added() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"one\ntwo\n").unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        let now = || {
            let data = std::fs::metadata(&path).unwrap();
            Visits { path: path.clone(), inode: data.ino(), size: data.size() }
        };
        let then = now();
        assert_eq!(since_then(&then, &now()), Some(0));
        file.write_all(b"three\nfour\nfi").unwrap();
        assert_eq!(since_then(&then, &now()), Some(2));
        let other = Visits { inode: 0, ..now() };
        assert_eq!(since_then(&then, &other), None);
        assert_eq!(since_then(&now(), &then), None);
    }
}
