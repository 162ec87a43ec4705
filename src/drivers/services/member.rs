//! Which services an instance has, and what each reads when it starts.

use super::config_part::ConfigPart;
use crate::drivers::broker::NODE_SETTINGS;
use crate::layout::{Layout, PYTHON_HOOK};
use crate::settings::{self, ExtraService, Frontend, Mode};
use crate::site::Site;
use crate::site::facts::{DatabaseFamily, Manager};

/// Where systemd's own administrator keeps units.
pub(crate) const UNIT_HOME: &str = "/etc/systemd/system";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ServiceRole {
    /// The database server of this machine, a service of somebody else.
    Database,
    /// The broker of this machine, a service of somebody else.
    Broker,
    /// The socket that visitors wait at while the web server starts.
    Socket,
    /// The timer of backups or metrics.
    Timer,
    /// CamCOPS's web server.
    Server,
    Workers,
    Scheduler,
    Monitor,
    /// Apache, a service of somebody else.
    Web,
    /// One of the site's own, beside those of CamCOPS.
    Extra,
}

impl ServiceRole {
    /// Whether this program may stop it.
    pub(crate) fn is_ours(self) -> bool {
        !matches!(self, ServiceRole::Database | ServiceRole::Broker | ServiceRole::Web)
    }
}

/// A service.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    /// The name that its manager has for it.
    pub(crate) name: String,
    pub(crate) role: ServiceRole,
    /// What people call it; nothing for what they don't start and stop by a name.
    pub(crate) service: Option<String>,
    /// Which of several of this kind it is, counted from 1.
    pub(crate) number: u32,
    /// What it reads when it starts: it is no longer fresh when one of these changed since. A directory stands for what
    /// is in it, too.
    pub(crate) inputs: Vec<String>,
    /// What it reads of camcops.conf, where that is not one of them.
    pub(crate) config: Option<ConfigPart>,
}

impl Member {
    /// One that people don't start and stop by a name of ours, and that does not read camcops.conf.
    fn unnamed(name: String, role: ServiceRole, inputs: Vec<String>) -> Member {
        Member { name, role, service: None, number: 1, inputs, config: None }
    }

    /// Whether it is a unit of systemd, which then also knows whether it comes back at boot.
    pub(crate) fn is_unit(&self) -> bool {
        [".service", ".socket", ".timer"].iter().any(|end| self.name.ends_with(end))
    }
}

/// The services of a site, in the order of starting.
pub(crate) fn list_members(site: &Site) -> Vec<Member> {
    let (settings, layout) = (site.settings(), &site.layout);
    let mut members = Vec::new();
    let flavour = site.facts.flavour;
    // Where the administrator prefers supervisor, the services of others are still systemd's.
    let foreign = |service: &str| match site.facts.manager {
        Manager::Systemd => format!("{service}.service"),
        Manager::Supervisor => service.to_owned(),
    };
    if settings.database.mode == Mode::Local {
        let service = match site.facts.database {
            DatabaseFamily::Mariadb => "mariadb",
            DatabaseFamily::Mysql => flavour.mysql_service,
        };
        let inputs = site.database_drop_in().into_iter().collect();
        members.push(Member::unnamed(foreign(service), ServiceRole::Database, inputs));
    }
    if settings.broker.mode == Mode::Local {
        let inputs = vec![layout.broker_drop_in(), NODE_SETTINGS.into()];
        members.push(Member::unnamed(foreign("rabbitmq-server"), ServiceRole::Broker, inputs));
    }
    members.extend(list_ours(site));
    for (what, is_wanted) in
        [("backup", settings.backup.schedule.given().is_some()), ("exports", true), ("metrics", site.is_observed())]
    {
        if site.manager() != Manager::Systemd || !is_wanted {
            continue;
        }
        let unit = format!("camcops-{what}@{}", layout.slug);
        // What it starts, too: systemd goes on with what it has read of that until it is told to read it again.
        let inputs = ["timer", "service"].into_iter().flat_map(|kind| {
            let template = format!("{UNIT_HOME}/camcops-{what}@.{kind}");
            [template, format!("{UNIT_HOME}/{unit}.{kind}.d/10-provision.conf")]
        });
        members.push(Member::unnamed(format!("{unit}.timer"), ServiceRole::Timer, inputs.collect()));
    }
    if settings.web.frontend == Frontend::Apache {
        members.push(Member::unnamed(foreign(flavour.apache_service), ServiceRole::Web, web_inputs(site)));
    }
    // Last: what is not CamCOPS's must not keep it from running.
    members.extend(settings.services.extras().map(|extra| extra_member(site, extra)));
    members
}

/// Those that this program makes.
fn list_ours(site: &Site) -> Vec<Member> {
    let settings = site.settings();
    let all = [
        (settings::Service::Server, ServiceRole::Socket),
        (settings::Service::Server, ServiceRole::Server),
        (settings::Service::Workers, ServiceRole::Workers),
        (settings::Service::Scheduler, ServiceRole::Scheduler),
        (settings::Service::Monitor, ServiceRole::Monitor),
    ];
    let how_many = |role| if role == ServiceRole::Workers { settings.workers.instances.get() } else { 1 };
    all.into_iter()
        .filter(|(service, role)| {
            settings.services.wants(*service) && (*role != ServiceRole::Socket || site.has_web_socket())
        })
        .flat_map(|(service, role)| (1..=how_many(role)).map(move |number| (service, role, number)))
        .map(|(service, role, number)| Member {
            name: member_name(site, &numbered(service.as_str(), number), role),
            role,
            service: Some(service.as_str().to_owned()),
            number,
            inputs: member_inputs(site, service, role, number),
            config: ConfigPart::of(&site.layout, service.as_str(), role),
        })
        .collect()
}

/// The name of one of several services of a kind: the first has that of the kind.
pub(crate) fn numbered(service: &str, number: u32) -> String {
    match number {
        1 => service.to_owned(),
        _ => format!("{service}-{number}"),
    }
}

fn extra_member(site: &Site, extra: &ExtraService) -> Member {
    let (layout, service) = (&site.layout, extra.name.as_str());
    let name = member_name(site, service, ServiceRole::Extra);
    let program = extra.command.program();
    Member {
        inputs: vec![
            match site.manager() {
                Manager::Systemd => format!("{UNIT_HOME}/{name}"),
                Manager::Supervisor => layout.supervisor_programs(),
            },
            own_environment(layout, service),
            match program.starts_with('/') {
                true => program.to_owned(),
                false => layout.venv.clone(),
            },
        ],
        name,
        role: ServiceRole::Extra,
        service: Some(service.to_owned()),
        number: 1,
        config: None,
    }
}

fn member_name(site: &Site, service: &str, role: ServiceRole) -> String {
    let slug = &site.layout.slug;
    match (site.manager(), role) {
        (Manager::Systemd, ServiceRole::Socket) => format!("camcops-{service}@{slug}.socket"),
        (Manager::Systemd, _) => format!("camcops-{service}@{slug}.service"),
        (Manager::Supervisor, _) => format!("{slug}:{slug}_{service}"),
    }
}

fn member_inputs(site: &Site, service: settings::Service, role: ServiceRole, number: u32) -> Vec<String> {
    let layout = &site.layout;
    let unit = numbered(service.as_str(), number);
    let name = member_name(site, &unit, role);
    let mut inputs = match site.manager() {
        Manager::Systemd => {
            let template = match role {
                ServiceRole::Socket => format!("camcops-{unit}@.socket"),
                _ => format!("camcops-{unit}@.service"),
            };
            vec![format!("{UNIT_HOME}/{template}"), format!("{UNIT_HOME}/{name}.d/10-provision.conf")]
        }
        Manager::Supervisor => vec![layout.supervisor_programs()],
    };
    if role == ServiceRole::Socket {
        return inputs;
    }
    if role == ServiceRole::Server {
        inputs.push(layout.config.clone());
        if site.settings().web.own_https().is_some() {
            let (certificate, key, _) = site.certificate_files();
            inputs.extend([certificate, key]);
        }
    }
    inputs.extend([layout.venv.clone(), own_environment(layout, service.as_str()), PYTHON_HOOK.into()]);
    if matches!(role, ServiceRole::Server | ServiceRole::Workers) {
        // Not the option file: each new connection reads it. What else is in it, the service's own file repeats.
        inputs.push(layout.extra_strings.clone());
    }
    if role == ServiceRole::Workers && site.settings().broker.mode == Mode::Local {
        // A worker learns how long its tasks may take when it connects to the broker.
        inputs.push(layout.broker_drop_in());
    }
    if role == ServiceRole::Monitor {
        inputs.push(layout.monitor_config.clone());
    }
    inputs
}

/// The administrator's own variables for a service.
pub(crate) fn own_environment(layout: &Layout, service: &str) -> String {
    format!("{}/{}-{service}.env", layout.env_dir, layout.slug)
}

fn web_inputs(site: &Site) -> Vec<String> {
    let layout = &site.layout;
    let mut inputs = vec![layout.apache_site()];
    inputs.extend(layout.apache_link());
    for (port, _) in site.own_ports() {
        let (file, link) = layout.apache_port(port);
        inputs.extend([Some(file), link].into_iter().flatten());
    }
    inputs.extend(site.apache_modules().into_iter().map(|(link, _)| link));
    let (certificate, key, chain) = site.certificate_files();
    inputs.extend([certificate, key].into_iter().chain(chain));
    inputs
}
