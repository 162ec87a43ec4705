//! The services, and the locks that they may wait for.

use super::{Finding, LOG_ENDS, Look, or_well};
use crate::base::kernel::value_of;
use crate::base::terminal::count_of;
use crate::drivers::services::member::{Member, ServiceRole};
use crate::drivers::services::{self, ServicePhase, ServiceState};
use crate::host::{export_locks, processes};
use crate::site::facts::Manager;
use anyhow::Result;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// So often a service may have failed without a word.
const PATIENT: u32 = 3;

/// The command that does something to a service.
fn service_command(member: &Member, verb: &str) -> String {
    match &member.service {
        Some(service) => format!("camcops-provision {verb} {service}"),
        None if verb == "logs" => format!("journalctl --unit {}", member.name),
        None => format!("systemctl {verb} {}", member.name.trim_end_matches(".service")),
    }
}

fn all_services(look: &Look<'_>) -> Result<Vec<(Member, ServiceState)>> {
    let known = look.services()?;
    let mut seen = known.see(&look.site.host)?;
    let members = known.members.iter().cloned();
    Ok(members
        .map(|member| {
            let seen = seen.remove(&member.name).unwrap_or_default();
            (member, seen)
        })
        .collect())
}

pub(crate) async fn check_running(look: &Look<'_>) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let all = all_services(look)?;
    for (member, seen) in &all {
        let name = &member.name;
        look.measure("service_restarts", Some(name), seen.restarts.into());
        if let Some(how) = look.services()?.keeps_failing(&look.site.host, member, seen) {
            findings.push(Finding::failed(format!("{name} {how}"), service_command(member, "logs")));
            continue;
        }
        if seen.phase == ServicePhase::Starting {
            findings.push(Finding::warning(format!("{name} is starting"), service_command(member, "logs")));
            continue;
        }
        if seen.phase != ServicePhase::Running {
            findings.push(stopped_service(look, member, seen));
            continue;
        }
        if member.role == ServiceRole::Socket && !services::has_socket(look.services()?, &look.site.host) {
            findings.push(Finding::for_install(format!("{name}: its socket file is gone")));
        } else if !services::is_fresh(look.services()?, &look.site.host, member, seen)? {
            findings.push(Finding::warning(
                format!("{name} still runs with the old configuration"),
                "camcops-provision install",
            ));
        }
        // Of the web server and of Apache the layers of the web tell.
        let asked = matches!(
            member.role,
            ServiceRole::Workers | ServiceRole::Scheduler | ServiceRole::Monitor | ServiceRole::Extra
        );
        if asked && let Some(Err(why)) = look.answer(member).await? {
            findings.push(Finding::failed(
                format!("{name} runs, but does not answer: {}", why.text),
                service_command(member, "restart"),
            ));
        }
        if seen.restarts >= PATIENT {
            findings.push(Finding::warning(
                format!("{name} has failed {}", count_of(seen.restarts, "time")),
                service_command(member, "logs"),
            ));
        }
    }
    Ok(or_well(findings, || Finding::ok(format!("all {} run", all.len()))))
}

fn stopped_service(look: &Look<'_>, member: &Member, seen: &ServiceState) -> Finding {
    let name = &member.name;
    let start = service_command(member, "start");
    if seen.masked {
        return Finding::failed(format!("{name} is masked"), format!("systemctl unmask {name} && {start}"));
    }
    if !seen.there {
        return Finding::for_install(format!("{name} is not installed"));
    }
    let how = match (seen.phase, seen.result.as_str()) {
        (ServicePhase::Stopping, _) => "is stopping".to_owned(),
        (ServicePhase::Failed, result) => format!("has failed ({result} {})", seen.detail),
        (_, "" | "success") => "is stopped".to_owned(),
        (_, result) => format!("is stopped ({result})"),
    };
    let last = look
        .services()
        .ok()
        .and_then(|known| known.cause(&look.site.host, member))
        .filter(|_| seen.phase == ServicePhase::Failed)
        .map(|line| format!("{LOG_ENDS}{line}"))
        .unwrap_or_default();
    Finding::failed(format!("{name} {how}{last}"), start)
}

pub(crate) fn check_enabled(look: &Look<'_>) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let all = all_services(look)?;
    for (member, seen) in &all {
        if seen.there && seen.enabled == Some(false) {
            findings.push(Finding::failed(
                format!("{} is not enabled at boot", member.name),
                match member.role.is_ours() {
                    true => "camcops-provision install".to_owned(),
                    false => service_command(member, "enable"),
                },
            ));
        }
    }
    Ok(or_well(findings, || Finding::ok(format!("all {} are enabled at boot", all.len()))))
}

pub(crate) fn check_account(look: &Look<'_>) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let usual = look.site.account();
    let (mut count, mut others) = (0, false);
    for (member, seen) in all_services(look)? {
        let extra =
            look.site.settings().services.extras().find(|extra| member.service.as_deref() == Some(extra.name.as_str()));
        let account = extra.and_then(|extra| extra.user.as_ref()).map_or(usual, |user| user.as_str());
        let wanted = look.site.host.accounts.uid(account);
        let Some(owner) = seen.pid.filter(|_| member.role.is_ours()).and_then(processes::owner_of) else {
            continue;
        };
        count += 1;
        others |= account != usual;
        if Some(owner) != wanted {
            let whose = match owner {
                0 => "root".to_owned(),
                other => format!("the account {other}"),
            };
            findings.push(Finding::failed(
                format!("{} runs as {whose}, not as {account}", member.name),
                format!(
                    "systemctl cat {}   # remove the drop-in with User=, then run camcops-provision install",
                    member.name
                ),
            ));
        }
    }
    Ok(or_well(findings, || match count {
        0 => Finding::not_applicable("no service is running"),
        _ if others => Finding::ok(format!("all {count} run as {usual}, or as set in services.extra")),
        _ => Finding::ok(format!("all {count} run as {usual}")),
    }))
}

pub(crate) fn check_memory(look: &Look<'_>) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut limited = Vec::new();
    for (member, seen) in all_services(look)? {
        let Some(group) = seen.pid.and_then(processes::control_group) else {
            continue;
        };
        let Some(used) = Used::read(&format!("/sys/fs/cgroup{group}")) else {
            continue;
        };
        look.measure("service_memory_bytes", Some(&member.name), used.now as f64);
        let remedy = match member.role {
            ServiceRole::Workers => {
                "camcops-provision config set workers.concurrency 1 && camcops-provision install".to_owned()
            }
            _ => format!("systemctl show --property=MemoryMax {}", member.name),
        };
        if used.killed > 0 {
            findings.push(Finding::warning(
                format!("{}: {} killed at its limit", member.name, count_of(used.killed, "time")),
                remedy.clone(),
            ));
        }
        let Some(limit) = used.limit else { continue };
        let found = format!("{}: {} of {} MiB", member.name, used.now >> 20, limit >> 20);
        limited.push(found.clone());
        if used.now * 10 > limit * 9 {
            findings.push(Finding::warning(found, remedy));
        }
    }
    Ok(or_well(findings, || match limited.is_empty() {
        true => Finding::not_applicable("no service has a memory limit"),
        false => Finding::ok(limited.join(", ")),
    }))
}

struct Used {
    now: u64,
    limit: Option<u64>,
    killed: u64,
}

impl Used {
    /// What a control group says.
    fn read(directory: &str) -> Option<Used> {
        let text = |name: &str| fs::read_to_string(format!("{directory}/{name}")).ok();
        let events = text("memory.events").unwrap_or_default();
        let killed = value_of(&events, "oom_kill ").and_then(|killed| killed.parse().ok());
        Some(Used {
            now: text("memory.current")?.trim().parse().ok()?,
            limit: text("memory.max")?.trim().parse().ok(),
            killed: killed.unwrap_or(0),
        })
    }
}

pub(crate) fn check_locks(look: &Look<'_>) -> Result<Vec<Finding>> {
    let host = &look.site.host;
    let directory = export_locks::lock_directory(host, &look.site.layout)?;
    let stale = export_locks::stale_locks(host, &directory)?;
    if stale.is_empty() {
        return Ok(vec![Finding::ok(format!("{directory}: no stale locks"))]);
    }
    let remedy = match look.site.instance.as_str() {
        crate::layout::DEFAULT_INSTANCE => "camcops-provision break-locks".to_owned(),
        other => format!("camcops-provision --instance {other} break-locks"),
    };
    let failed = |found| Finding::failed(found, remedy.clone());
    Ok(stale.into_iter().map(failed).collect())
}

/// How long exports may wait to be sent before that is worth a word: the timer has tried several times by then.
const UNSENT: Duration = Duration::from_secs(20 * 60);

pub(super) fn check_exports(look: &Look<'_>) -> Result<Vec<Finding>> {
    let host = &look.site.host;
    let layout = &look.site.layout;
    let unknown = lacking_hooks(&layout.venv);
    if !unknown.is_empty() {
        let warn = |found| Finding::warning(found, "camcops-provision upgrade");
        return Ok(unknown.into_iter().map(warn).collect());
    }
    let mut oldest = None;
    for name in ["unsent.sending", "unsent"] {
        let entry = host.stat(&format!("{}/{name}", layout.state))?;
        oldest = oldest.max(entry.and_then(|entry| entry.modified.elapsed().ok()));
    }
    let retry = match look.site.manager() {
        Manager::Systemd => format!("systemctl start camcops-exports@{}.service", layout.slug),
        Manager::Supervisor => "wait five minutes: cron tries again".to_owned(),
    };
    Ok(vec![match oldest {
        None => Finding::ok("none pending"),
        Some(age) if age < UNSENT => Finding::ok("some are pending, because the broker was down"),
        Some(age) => Finding::warning(
            format!(
                "exports of uploads have been pending for {} minutes, because the broker was down",
                age.as_secs() / 60
            ),
            retry,
        ),
    }])
}

/// Modules of CamCOPS, what `sitecustomize.py` takes the place of in each, and what a release without it does.
const HOOKS: [(&str, &str, &str); 2] = [
    (
        "cc_request.py",
        "def _process_pending_export_push_requests(self)",
        "this release of CamCOPS queues exports in an unknown way: an upload while the broker is down may be stored twice",
    ),
    (
        "client_api.py",
        "resultdict = main_client_api(req)",
        "this release of CamCOPS handles uploads in an unknown way: data of an upload that fails may be stored twice",
    ),
];

/// What the release does because `sitecustomize.py` does not know it.
fn lacking_hooks(venv: &str) -> Vec<&'static str> {
    let libraries: Vec<PathBuf> = fs::read_dir(format!("{venv}/lib"))
        // Then others say that there is no release.
        .into_iter()
        .flatten()
        .flatten()
        .map(|library| library.path().join("site-packages/camcops_server/cc_modules"))
        .collect();
    let lacks = |module: &str, name: &str| {
        let texts = libraries.iter().map(|library| fs::read_to_string(library.join(module)));
        texts.flatten().any(|text| !text.contains(name))
    };
    let lacking = HOOKS.iter().filter(|(module, name, _)| lacks(module, name));
    lacking.map(|(.., consequence)| *consequence).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_tells_which_hooks_do_not_fit() {
        let venv = tempfile::tempdir().unwrap();
        let lacking = || lacking_hooks(venv.path().to_str().unwrap());
        assert!(lacking().is_empty());
        let modules = "lib/python3.11/site-packages/camcops_server/cc_modules";
        let modules = venv.path().join(modules);
        fs::create_dir_all(&modules).unwrap();
        for (module, name, _) in HOOKS {
            fs::write(modules.join(module), format!("\n{name}:\n")).unwrap();
        }
        assert!(lacking().is_empty());
        fs::write(modules.join("client_api.py"), "answer = main(req)\n").unwrap();
        assert_eq!(lacking(), [HOOKS[1].2]);
    }

    #[test]
    fn a_control_group_tells_use_limit_and_kills() {
        let group = tempfile::tempdir().unwrap();
        let path = group.path().to_str().unwrap();
        assert!(Used::read(path).is_none());
        fs::write(group.path().join("memory.current"), "950\n").unwrap();
        fs::write(group.path().join("memory.max"), "max\n").unwrap();
        assert!(Used::read(path).unwrap().limit.is_none());
        fs::write(group.path().join("memory.max"), "1000\n").unwrap();
        fs::write(group.path().join("memory.events"), "high 0\noom 4\noom_kill 2\n").unwrap();
        let used = Used::read(path).unwrap();
        assert_eq!((used.now, used.limit, used.killed), (950, Some(1000), 2));
    }
}
