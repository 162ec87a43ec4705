//! `scale`, `service enable|disable`: a change of the settings that fits the machine, and `install` at once.

use super::{config, install, need_machine, open_installed, services};
use crate::base::error::Exit;
use crate::base::report::Report;
use crate::cli::{Global, Install, ServiceSwitch, Wish};
use crate::drivers::sql::quote;
use crate::recipe::view::{self, Needs};
use crate::session::Session;
use crate::settings::Service;
use anyhow::Result;
use serde_json::json;

const INSTANCES: &str = "workers.instances";
/// Connections that are left for an administrator, and for whoever looks after the server.
const SPARE: u64 = 5;

pub(crate) async fn scale_services(global: &Global, wishes: &[Wish]) -> Result<Report> {
    need_machine(global, "scale the services")?;
    let site = open_installed(global)?;
    let mut wanted = global.clone();
    let mut changes = Vec::new();
    for wish in wishes {
        let key = match wish.service {
            Service::Server => "web.workers",
            _ => "workers.concurrency",
        };
        if changes.iter().any(|(other, _)| *other == key) {
            return Err(Exit::Usage.because(format!("{} is named twice", wish.service.as_str())));
        }
        let number = wish.processes.map(|number| number.to_string());
        let tried = number.as_deref().unwrap_or("\"auto\"");
        wanted.set.push(format!("{key}={tried}"));
        changes.push((key, number));
        if wish.service == Service::Workers && site.settings().workers.instances.get() != wish.instances {
            wanted.set.push(format!("{INSTANCES}={}", wish.instances));
            changes.push((INSTANCES, (wish.instances > 1).then(|| wish.instances.to_string())));
        }
    }
    let wanted = Session::open(&wanted)?;
    let (before, after) = (view::needs_of_site(&site), view::needs_of_site(&wanted));
    site.close_after(check_fit(&site, &before, &after).await).await?;
    let changes: Vec<(&str, Option<&str>)> = changes.iter().map(|(key, number)| (*key, number.as_deref())).collect();
    converge_changes(&site, global, &changes).await
}

/// Refuses what the machine or the database could not bear; less than now is always borne.
async fn check_fit(site: &Session, before: &Needs, after: &Needs) -> Result<()> {
    let told =
        format!("{} processes ({} of the web server, {} of the workers)", after.processes(), after.web, after.workers);
    let there = site.facts.memory_mb;
    if after.memory_mb > there && after.memory_mb > before.memory_mb {
        return Err(Exit::Settings.because(format!(
            "{told} may need {} MiB together, but this machine has {there} MiB; choose fewer",
            after.memory_mb
        )));
    }
    if after.processes() <= before.processes() {
        return Ok(());
    }
    let known = site.drivers.database()?;
    let most = known.server.number("SELECT @@max_connections").await?.unwrap_or(0);
    let of_others = format!(
        "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE COALESCE(DB, '') <> {}",
        quote::quote_text(&known.database)
    );
    let others = known.server.number(&of_others).await?.unwrap_or(0);
    let needed = after.connections + others + SPARE;
    if needed > most {
        return Err(Exit::Settings.because(format!(
            "{told} may need {} database connections; with those of others that makes {needed}, but the server accepts {most}: raise max_connections there, or choose fewer",
            after.connections
        )));
    }
    Ok(())
}

pub(crate) async fn switch_service(global: &Global, command: &ServiceSwitch) -> Result<Report> {
    need_machine(global, "switch services")?;
    let site = open_installed(global)?;
    let (ServiceSwitch::Enable { service } | ServiceSwitch::Disable { service }) = command;
    let mut disabled = site.settings().services.disabled.clone();
    services::refuse_unknown(&site, std::slice::from_ref(service))?;
    disabled.retain(|one| one != service);
    if matches!(command, ServiceSwitch::Disable { .. }) {
        disabled.push(service.clone());
    }
    let names: Vec<&str> = disabled.iter().map(|one| one.as_str()).collect();
    let list = json!(names).to_string();
    site.close().await;
    converge_changes(&site, global, &[("services.disabled", Some(list.as_str()))]).await
}

/// Refuses to change what another source than the settings file has the last word about.
pub(super) fn refuse_overruled<T>(site: &Session, changes: &[(&str, T)]) -> Result<()> {
    let overruled = site.resolved.entries().find_map(|entry| {
        let changed = changes.iter().any(|(key, _)| *key == entry.key);
        (changed && config::is_elsewhere(site, entry.origin)).then(|| (entry.key.to_string(), entry.origin.to_string()))
    });
    if let Some((key, origin)) = overruled {
        return Err(Exit::Settings.because(format!(
            "{key} is set by {origin}, which takes precedence: change it there, and run `camcops-provision install`"
        )));
    }
    Ok(())
}

/// Puts it into the settings, and makes the machine follow.
async fn converge_changes(site: &Session, global: &Global, changes: &[(&str, Option<&str>)]) -> Result<Report> {
    refuse_overruled(site, changes)?;
    config::rewrite_file(global, changes)?;
    install::install_site(global, &Install { yes: true, ..Install::default() }).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse_wish;

    #[test]
    fn wishes_are_read_and_others_explained() {
        let read = |text| parse_wish(text).map(|wish| (wish.service, wish.instances, wish.processes));
        assert_eq!(read("server=4").unwrap(), (Service::Server, 1, Some(4)));
        assert_eq!(read("workers=auto").unwrap(), (Service::Workers, 1, None));
        assert_eq!(read("workers=2x4").unwrap(), (Service::Workers, 2, Some(4)));
        for wrong in [
            "server",
            "server=0",
            "server=257",
            "server=2x4",
            "workers=0x4",
            "workers=17x1",
            "workers=2x",
            "web=1",
            "=",
        ] {
            assert!(read(wrong).unwrap_err().to_string().contains("server=N"), "{wrong}");
        }
        assert!(read("monitor=2").unwrap_err().to_string().contains("exactly one process"));
    }
}
