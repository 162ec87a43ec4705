//! What runs: services under either manager, the site of the web server, names for the firewall.

use super::Draft;
use crate::base::error::Exit;
use crate::drivers::firewall::join_ports;
use crate::drivers::services::member::{Member, ServiceRole, UNIT_HOME, list_members, numbered};
use crate::layout::{PYTHON_HOOK, UNSENT_SENDER};
use crate::recipe::render::Format;
use crate::recipe::view::runtime_directory;
use crate::resource::{Facets, Part, Resource};
use crate::settings::{Frontend, LogMode, Mode, Service};
use crate::site::facts::Manager;
use anyhow::Result;
use serde_json::{Value, json};

macro_rules! unit {
    ($name:literal) => {
        ($name, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/units/", $name)))
    };
}

const UNITS: [(&str, &str); 13] = [
    unit!("camcops.target"),
    unit!("camcops@.target"),
    unit!("camcops-server@.socket"),
    unit!("camcops-server@.service"),
    unit!("camcops-workers@.service"),
    unit!("camcops-scheduler@.service"),
    unit!("camcops-monitor@.service"),
    unit!("camcops-backup@.service"),
    unit!("camcops-backup@.timer"),
    unit!("camcops-exports@.service"),
    unit!("camcops-exports@.timer"),
    unit!("camcops-metrics@.service"),
    unit!("camcops-metrics@.timer"),
];

/// The unit of further workers: that of the first under another name.
fn numbered_unit(name: &str) -> String {
    let (_, first) = unit!("camcops-workers@.service");
    let number = name.rsplit('-').next().unwrap_or_default();
    first
        .replace("camcops-workers@", &format!("camcops-{name}@"))
        .replace("CamCOPS workers (%i)", &format!("CamCOPS workers {number} (%i)"))
}
/// Those that Red Hat's policy lets a web server listen on.
const PORTS_OF_SELINUX: [u16; 8] = [80, 81, 443, 488, 8008, 8009, 8443, 9000];

impl Draft<'_> {
    /// Before the first command of CamCOPS is run, as it starts faster with it.
    pub(super) fn python_hook(&mut self) -> Result<()> {
        let because = "its processes start faster, share memory, and no database connections; uploads succeed while the broker is down, and store nothing if they fail";
        self.of_services(PYTHON_HOOK, Format::Plain, template!("sitecustomize.py.hbs"), because)?;
        let because = "sends exports that were missed while the broker was down";
        self.of_services(UNSENT_SENDER, Format::Plain, template!("camcops_unsent.py.hbs"), because)
    }

    fn of_services(&mut self, path: &str, format: Format, template: (&str, &str), because: &str) -> Result<()> {
        self.public_template(path, format, template, Part::Services, because)
    }

    pub(super) fn services(&mut self) -> Result<()> {
        match self.site.manager() {
            Manager::Systemd => self.systemd()?,
            Manager::Supervisor => self.supervisor()?,
        }
        if self.rotates() {
            let path = format!("/etc/logrotate.d/{}", self.site.layout.slug);
            let because = "rotates the log files";
            self.of_services(&path, Format::Systemd, template!("logrotate.hbs"), because)?;
        }
        Ok(())
    }

    /// CamCOPS's web server, then Apache, then the others: where the path or the socket of the site changes, what one of
    /// the two says is wrong until the other has read it, too.
    pub(super) fn all_running(&mut self) {
        let because = "running, restarted when its configuration changes";
        let is_server = |role| matches!(role, ServiceRole::Socket | ServiceRole::Server);
        self.running(is_server, Part::Services, because);
        if self.site.settings().web.frontend == Frontend::Apache {
            self.running(
                |role| role == ServiceRole::Web,
                Part::Web,
                "Apache serves the site, reloaded when its configuration changes",
            );
        }
        let is_other = |role: ServiceRole| role.is_ours() && !is_server(role) && role != ServiceRole::Extra;
        self.running(is_other, Part::Services, because);
    }

    /// Whether log files are ours to rotate.
    fn rotates(&self) -> bool {
        let logging = &self.site.settings().logging;
        logging.mode == LogMode::File && logging.keep_days.get().is_some() && self.found.own_rotation.is_none()
    }

    /// A socket that a service of the site's own makes needs a place where that account can write.
    pub(super) fn extra_sockets(&mut self) -> Result<()> {
        let (layout, group) = (&self.site.layout, self.site.facts.flavour.web_account);
        for extra in self.site.settings().services.extras() {
            let (name, Some(socket)) = (extra.name.as_str(), &extra.socket) else {
                continue;
            };
            let directory = socket.as_str().rsplit_once('/').map_or("", |(parent, _)| parent);
            let own = format!("/run/{}", runtime_directory(layout, name));
            let user = extra.user.as_ref().map_or(self.site.account(), |user| user.as_str());
            if directory == layout.socket_dir && self.site.has_web_socket() && user != "root" {
                return Err(Exit::Settings.because(format!(
                    "services.extra[{name}].socket: {directory} belongs to root, because systemd creates the web server's socket there; use {own}/{name}.socket"
                )));
            }
            // systemd makes it at each start of the service.
            if directory == own && self.site.manager() == Manager::Supervisor {
                let facets = Facets::new().with("type", "directory").with("mode", "0750");
                let facets = self.given_to(facets, format!("{user}:{group}"));
                let because = "the socket of a service of the site's own";
                self.want(Resource::Directory(own), facets, Part::Directories, because);
            }
        }
        Ok(())
    }

    /// The site's own services, after all of CamCOPS: what they do wrong must not keep it from its visitors.
    pub(super) fn extra_services(&mut self) {
        let accounts = &self.host.accounts;
        for extra in self.site.settings().services.extras() {
            if let Some(user) = &extra.user
                && !self.site.facts.staged
                && accounts.uid(user.as_str()).is_none()
            {
                self.recipe.missing.push((
                    Part::Services,
                    format!(
                        "services.extra[{}].user: this machine has no account {user}; create it, for example with `adduser --system --group {user}`",
                        extra.name
                    ),
                ));
            }
        }
        self.running(
            |role| role == ServiceRole::Extra,
            Part::Services,
            "a service of the site's own, as set in services.extra",
        );
    }

    /// Units of the site's own services: whole, because no other instance has the same.
    fn extra_units(&mut self) -> Result<()> {
        let extras = self.view["extras"].as_array().cloned().unwrap_or_default();
        for extra in extras {
            let name = extra["name"].as_str().unwrap_or_default();
            let unit = format!("camcops-{name}@{}.service", self.site.layout.slug);
            self.view["extra"] = extra;
            let path = format!("{UNIT_HOME}/{unit}");
            let because = "a service of the site's own, started and watched by systemd";
            self.of_services(&path, Format::Systemd, template!("extra.service.hbs"), because)?;
            let target = format!("camcops@{}.target", self.site.layout.slug);
            let link = format!("{UNIT_HOME}/{target}.wants/{unit}");
            self.link(&link, &path, Part::Services, "started at boot");
        }
        Ok(())
    }

    /// What is said of a unit beside its own file.
    fn drop_in(&mut self, unit: &str, template: (&str, &str), because: &str) -> Result<()> {
        self.of_services(&format!("{UNIT_HOME}/{unit}.d/10-provision.conf"), Format::Systemd, template, because)
    }

    /// Whether database and broker are on this machine, so that nobody else is asked.
    fn servers_are_local(&self) -> bool {
        let settings = self.site.settings();
        settings.database.mode == Mode::Local && settings.broker.mode == Mode::Local
    }

    /// What a service may write to beside what all sites have.
    fn write_paths(&self, service: Service) -> Value {
        let layout = &self.site.layout;
        let own = match service {
            // It makes its socket itself.
            Service::Server if !self.site.has_web_socket() => vec![layout.socket_dir.clone()],
            Service::Workers => self.export_folders.clone(),
            Service::Server | Service::Scheduler | Service::Monitor => Vec::new(),
        };
        own.into_iter().chain(self.more_paths(service)).collect::<Vec<_>>().into()
    }

    /// The directories of the administrator's choice that a service writes to.
    fn more_paths(&self, service: Service) -> impl Iterator<Item = String> {
        self.more_directories.iter().filter(move |(of, _)| *of == service).map(|(_, path)| path.clone())
    }

    fn systemd(&mut self) -> Result<()> {
        let slug = &self.site.layout.slug;
        for (name, text) in UNITS {
            let path = format!("{UNIT_HOME}/{name}");
            self.public(&path, text.to_owned(), Part::Services, "started and watched by systemd");
        }
        let link = |target: &str, unit: &str| (format!("{UNIT_HOME}/{target}.wants/{unit}"), unit.to_owned());
        let mut links = vec![
            link("multi-user.target", "camcops.target"),
            link("camcops.target", &format!("camcops@{slug}.target")),
        ];
        let workers = self.site.settings().workers.instances.get();
        let ours = Service::ALL.iter().flat_map(|service| {
            let how_many = if *service == Service::Workers { workers } else { 1 };
            (1..=how_many).map(|number| (*service, number))
        });
        for (service, number) in ours {
            if !self.serves(service) {
                continue;
            }
            let name = numbered(service.as_str(), number);
            if number > 1 {
                let text = numbered_unit(&name);
                let path = format!("{UNIT_HOME}/camcops-{name}@.service");
                self.public(&path, text, Part::Services, "started and watched by systemd");
            }
            let unit = format!("camcops-{name}@{slug}.service");
            self.view["unit"] = service.as_str().into();
            self.view["node"] = if number > 1 { name.as_str() } else { "" }.into();
            // Scheduler and monitor talk to the broker and to nobody else.
            let local_only = match service {
                Service::Server if self.site.settings().web.own_https().is_some() => false,
                Service::Server | Service::Workers => self.stays_on_machine,
                Service::Scheduler | Service::Monitor => self.site.settings().broker.mode == Mode::Local,
            };
            self.view["sandbox"]["local_only"] = local_only.into();
            self.view["sandbox"]["write_paths"] = self.write_paths(service);
            self.drop_in(&unit, template!("unit-drop-in.conf.hbs"), "settings of this service")?;
            links.push(link(&format!("camcops@{slug}.target"), &unit));
        }
        if self.serves(Service::Server) && self.site.has_web_socket() {
            let unit = format!("camcops-server@{slug}.socket");
            self.drop_in(&unit, template!("socket-drop-in.conf.hbs"), "holds requests while the web server starts")?;
            links.push(link(&format!("camcops@{slug}.target"), &unit));
        }
        if let Some(schedule) = self.site.settings().backup.schedule.given() {
            self.view["schedule"] = schedule.into();
            self.view["sandbox"]["servers_are_local"] = self.servers_are_local().into();
            let timer = format!("camcops-backup@{slug}.timer");
            self.drop_in(&timer, template!("backup-timer.conf.hbs"), "when backups are made")?;
            let service = format!("camcops-backup@{slug}.service");
            self.drop_in(&service, template!("backup-service.conf.hbs"), "where backups go")?;
            links.push(link("timers.target", &timer));
        }
        self.view["sandbox"]["local_only"] = (self.site.settings().broker.mode == Mode::Local).into();
        self.view["sandbox"]["write_paths"] = self.more_paths(Service::Workers).collect::<Vec<_>>().into();
        let service = format!("camcops-exports@{slug}.service");
        self.drop_in(&service, template!("exports-service.conf.hbs"), "which exports are sent")?;
        let timer = format!("camcops-exports@{slug}.timer");
        links.push(link("timers.target", &timer));
        if self.site.is_observed() {
            let service = format!("camcops-metrics@{slug}.service");
            self.drop_in(&service, template!("metrics-service.conf.hbs"), "metrics and the status page")?;
            let timer = format!("camcops-metrics@{slug}.timer");
            links.push(link("timers.target", &timer));
        }
        for (path, unit) in links {
            // A unit of an instance is a link to the template of all instances.
            let template = match unit.split_once('@') {
                Some((name, rest)) => {
                    let kind = rest.rsplit('.').next().unwrap_or_default();
                    format!("{UNIT_HOME}/{name}@.{kind}")
                }
                None => format!("{UNIT_HOME}/{unit}"),
            };
            self.link(&path, &template, Part::Services, "started at boot");
        }
        self.extra_units()?;
        let path = format!("/etc/tmpfiles.d/{slug}.conf");
        self.of_services(&path, Format::Systemd, template!("tmpfiles.conf.hbs"), "recreated at each boot")?;
        if self.site.dedicated() {
            let (path, because) = ("/etc/sysusers.d/camcops.conf", "the account, for a first boot");
            self.of_services(path, Format::Systemd, template!("sysusers.conf.hbs"), because)?;
        }
        let (path, because) =
            ("/etc/needrestart/conf.d/camcops.conf", "a package upgrade must not interrupt an upload");
        self.of_services(path, Format::Plain, template!("needrestart.conf.hbs"), because)
    }

    fn supervisor(&mut self) -> Result<()> {
        if let Some(schedule) = self.site.settings().backup.schedule.given() {
            let Some(crontab) = cron_times(schedule) else {
                return Err(Exit::Settings.because(format!(
                    "backup.schedule: not possible with cron: {schedule:?}; use hourly, daily, weekly, monthly, *-*-* HH:MM, the five fields of crontab(5), or never"
                )));
            };
            self.view["schedule"] = crontab.into();
            self.cron_file("backup", template!("backup.cron.hbs"), "when backups are made")?;
        }
        self.cron_file("exports", template!("exports.cron.hbs"), "sends missed exports")?;
        if self.site.is_observed() {
            self.cron_file("metrics", template!("metrics.cron.hbs"), "metrics and the status page")?;
        }
        let (path, because) = (self.site.layout.supervisor_programs(), "started and watched by supervisor");
        self.of_services(&path, Format::Supervisor, template!("supervisor.conf.hbs"), because)?;
        let logs = Resource::Directory(self.site.layout.supervisor_logs.clone());
        self.want(logs, Facets::new().with("type", "directory"), Part::Services, "supervisor's logs");
        Ok(())
    }

    fn cron_file(&mut self, what: &str, template: (&str, &str), because: &str) -> Result<()> {
        let path = format!("/etc/cron.d/{}-{what}", self.site.layout.slug);
        self.of_services(&path, Format::Plain, template, because)
    }

    pub(super) fn web(&mut self) -> Result<()> {
        if self.site.settings().web.frontend != Frontend::Apache {
            return Ok(());
        }
        self.apache_modules();
        self.apache_ports()?;
        let (path, because) = (self.site.layout.apache_site(), "HTTPS in front of CamCOPS");
        self.public_template(&path, Format::Apache, template!("apache-site.conf.hbs"), Part::Web, because)?;
        let slug = &self.site.layout.slug;
        if let Some(link) = self.site.layout.apache_link() {
            self.apache_note("site", slug);
            self.link(&link, &format!("../sites-available/{slug}.conf"), Part::Web, "the site is enabled");
        }
        Ok(())
    }

    /// Has Apache listen on ports of the site that nobody else has it listen on.
    fn apache_ports(&mut self) -> Result<()> {
        for (port, protocol) in self.site.own_ports() {
            // An Apache that is kept from listening ends.
            if self.site.facts.flavour.name == "rhel" && !PORTS_OF_SELINUX.contains(&port) {
                self.recipe.warnings.push(format!(
                    "web.{protocol}_port: where SELinux is enforcing, Apache may listen on {port} only after `semanage port --add --type http_port_t --proto tcp {port}`: run that first"
                ));
            }
            self.view["port"] = json!({ "number": port, "protocol": protocol });
            let (path, link) = self.site.layout.apache_port(port);
            let because = "Apache listens on this port";
            self.public_template(&path, Format::Apache, template!("apache-port.conf.hbs"), Part::Web, because)?;
            if let Some(link) = link {
                let file = path.rsplit('/').next().unwrap_or_default();
                self.apache_note("site", file.trim_end_matches(".conf"));
                self.link(&link, &format!("../sites-available/{file}"), Part::Web, because);
            }
        }
        Ok(())
    }

    /// What `a2enmod` does: a link per file, and the note that keeps other packages from switching the module off.
    fn apache_modules(&mut self) {
        for (link, target) in self.site.apache_modules() {
            let file = target.rsplit('/').next().unwrap_or_default();
            if let Some(module) = file.strip_suffix(".load") {
                self.apache_note("module", module);
            }
            self.link(&link, &target, Part::Web, "the site needs this module");
        }
    }

    fn apache_note(&mut self, kind: &str, name: &str) {
        if let Some(notes) = self.site.facts.flavour.apache_notes {
            let path = format!("{notes}/{kind}/enabled_by_admin/{name}");
            self.public(&path, String::new(), Part::Web, "Debian's record that it is enabled");
        }
    }

    pub(super) fn firewall(&mut self) -> Result<()> {
        let slug = &self.site.layout.slug;
        let (path, because) = (format!("/etc/ufw/applications.d/{slug}"), "the site's ports as a ufw profile");
        self.public_template(&path, Format::Plain, template!("ufw.hbs"), Part::Firewall, because)?;
        let path = format!("/etc/firewalld/services/{slug}.xml");
        let because = "the site's ports as a firewalld service";
        self.public_template(&path, Format::Xml, template!("firewalld.xml.hbs"), Part::Firewall, because)?;
        if self.site.settings().firewall.manage {
            self.firewall_rule();
        }
        Ok(())
    }

    fn firewall_rule(&mut self) {
        let web = &self.site.settings().web;
        let Some(firewall) = self.site.facts.firewall else {
            self.recipe.warnings.push(
                "firewall.manage: neither ufw nor firewalld is enabled on this machine, so no port was opened".into(),
            );
            return;
        };
        let ports = [Some(web.https_port.get()), web.http_port.get().map(|port| port.get())];
        let ports = Facets::new().with("ports", join_ports(ports.into_iter().flatten()));
        let rule = Resource::FirewallRule(format!("{firewall} {}", self.site.layout.slug));
        self.want(rule, ports, Part::Firewall, "visitors and tablets reach the site");
    }

    /// The services of some roles, running and fresh.
    pub(super) fn running(&mut self, chosen: impl Fn(ServiceRole) -> bool, part: Part, because: &str) {
        let settings = &self.site.settings().services;
        // Of a service of the site's own nothing is known but where it listens.
        let listens = |member: &Member| {
            member.role != ServiceRole::Extra
                || settings
                    .extras()
                    .any(|extra| member.service.as_deref() == Some(extra.name.as_str()) && extra.listens())
        };
        for member in list_members(self.site).into_iter().filter(|member| chosen(member.role)) {
            let mut facets = Facets::new().with("fresh", "yes");
            if member.is_unit() {
                facets = facets.with("enabled", "yes");
            }
            if !matches!(
                member.role,
                ServiceRole::Socket | ServiceRole::Timer | ServiceRole::Database | ServiceRole::Broker
            ) && listens(&member)
            {
                facets = facets.with("answers", "yes");
            }
            self.want(Resource::Service(member.name), facets, part, because);
            if let Some(wanted) = self.recipe.wanted.last_mut() {
                let digest = member.config.map(|part| part.digest);
                wanted.inputs = member
                    .inputs
                    .into_iter()
                    .chain(digest)
                    .flat_map(|path| [Resource::File(path.clone()), Resource::Symlink(path)])
                    .collect();
            }
        }
    }
}

/// The fields of crontab(5) for a calendar of systemd, where they can say it.
fn cron_times(schedule: &str) -> Option<String> {
    let words: Vec<&str> = schedule.split_whitespace().collect();
    let number = |text: &str, below: u8| text.parse::<u8>().ok().filter(|number| *number < below);
    match words[..] {
        ["hourly"] => Some("0 * * * *".into()),
        ["daily"] => Some("0 0 * * *".into()),
        ["weekly"] => Some("0 0 * * 1".into()),
        ["monthly"] => Some("0 0 1 * *".into()),
        ["*-*-*", time] => {
            let mut parts = time.split(':');
            let hour = number(parts.next()?, 24)?;
            let minute = number(parts.next()?, 60)?;
            Some(format!("{minute} {hour} * * *"))
        }
        [_, _, _, _, _] => Some(words.join(" ")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cron_follows_what_it_can() {
        for (schedule, fields) in [
            ("*-*-* 02:30", Some("30 2 * * *")),
            ("*-*-* 02:30:00", Some("30 2 * * *")),
            ("daily", Some("0 0 * * *")),
            ("5 4 * * 0", Some("5 4 * * 0")),
            ("Mon *-*-* 02:30", None),
            ("*-*-* 24:00", None),
        ] {
            assert_eq!(cron_times(schedule).as_deref(), fields, "{schedule}");
        }
    }
}
