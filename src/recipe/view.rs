//! What the templates can say: one view of the site for all of them, every field always there.

use crate::base::secret::Secret;
use crate::base::text::encode_percent;
use crate::drivers::acme;
use crate::drivers::release::PdfEngine;
use crate::drivers::services::member::{numbered, own_environment};
use crate::drivers::sql::copy::directory;
use crate::layout::{self, DEFAULT_INSTANCE, Layout, MANAGED, PYTHON_HOME};
use crate::settings::{
    AbsolutePath, Backend, Bind, DatabaseTls, ExtraService, Listen, LogMode, Mode, Origin, Service, Settings, TlsMode,
    WebAddress,
};
use crate::site::facts::Manager;
use crate::site::{Certificate, ExistingState, Site};
use serde_json::{Value, json};

/// A worker process of CamCOPS has about this much memory of its own, in MiB.
const WORKER_MB: u64 = 700;
const WEB_WORKER_MB: u64 = 250;

/// From this version on the broker refuses what Celery does, unless it is told not to.
const NEEDS_PERMITS: (u32, u32) = (4, 3);

/// The view of a site.
pub fn template_view(site: &Site, found: &ExistingState) -> Value {
    let settings = site.settings();
    let layout = &site.layout;
    let database = &settings.database;
    let broker = &settings.broker;
    let (names, served) = (site.names(), site.served_names());
    let text = |path: &Option<AbsolutePath>| path.as_ref().map_or(String::new(), |path| path.as_str().to_owned());
    let local_database = database.mode == Mode::Local;
    let local_broker = broker.mode == Mode::Local;
    let concurrency = worker_concurrency(site);
    let serves = |service| settings.services.wants(service);
    let (certificate, key, chain) = match &found.certificate {
        Certificate::Own { .. } | Certificate::Issued { .. } => {
            let (certificate, key, _) = site.certificate_files();
            (certificate, key, String::new())
        }
        Certificate::Given { certificate, key, chain, .. } => (certificate.clone(), key.clone(), chain.clone()),
    };
    let account = site.account();
    let instance = &site.instance;
    let metrics_file = settings.monitor.metrics_file.as_ref();
    let metrics_file = metrics_file.map_or("", |file| file.as_str());
    let mut view = json!({
        "managed": format!("{MANAGED} (instance {instance}): change {} and run `camcops-provision install`; edits here are overwritten.", settings_name(instance)),
        "managed_shared": format!("{MANAGED}: change its settings and run `camcops-provision install`; edits here are overwritten."),
        "instance": instance,
        "slug": layout.slug,
        "user": account,
        "group": account,
        "web_group": site.facts.flavour.web_account,
        "log_group": site.facts.flavour.log_group,
        "dedicated": site.dedicated(),
        "magick_suffix": site.facts.magick_suffix(),
        "program": "",
        "unit": "",
        "node": "",
        "schedule": "",
        "backups": settings.backup.directory.as_str(),
        "metrics_file": metrics_file,
        "metrics_directory": metrics_file.rsplit_once('/').map_or("", |(directory, _)| directory),
        "path": view_of_paths(layout),
        "account": { "uid": settings.account.uid.given().map_or(String::new(), |uid| uid.get().to_string()) },
        "service": {
            "server": serves(Service::Server),
            "workers": serves(Service::Workers),
            "scheduler": serves(Service::Scheduler),
            "monitor": serves(Service::Monitor),
        },
        "web": view_of_web(site, &names[0], &served),
        "tls": { "local_ca": settings.tls.mode == TlsMode::LocalCa, "certificate": certificate, "key": key, "chain": chain, "lineage": format!("{}/{}", acme::LIVE, layout.slug) },
        "database": {
            "local": local_database,
            "host": database.host.as_str(),
            "port": database.port.get(),
            "socket": if local_database { database.socket.as_str() } else { "" },
            "name": database.name_or(&layout.slug),
            // The server knows an account that logs in by its socket under that account's own name.
            "user": if site.socket_authentication() { account } else { database.user_or(&layout.slug) },
            "socket_auth": site.socket_authentication(),
            "tls": match database.tls { DatabaseTls::Off => "off", DatabaseTls::Required => "required", DatabaseTls::Verify => "verify" },
            "tls_ca": text(&database.tls_ca),
            "tuning": database.tuning,
            "listen": database.listen.all().iter().copied().map(bind_address).collect::<Vec<_>>().join(","),
            "flush_fast": database.flush_log_at_trx_commit.get() == 2,
        },
        "broker": {
            "local": local_broker,
            "loopback": local_broker && found.own_broker.node,
            "permits": site.facts.broker_version.is_some_and(|version| version >= NEEDS_PERMITS),
            "node": found.own_broker.name,
            "port": broker.port_number(),
            "url": broker_url(site, &found.broker.secret),
            "tls_ca": text(&broker.tls_ca),
            "consumer_timeout_ms": broker.consumer_timeout_ms.get(),
        },
        "workers": {
            "concurrency": concurrency,
            // Names of the programs under supervisor, and of the workers that have one of their own.
            "all": (1..=settings.workers.instances.get()).map(|number| {
                let name = numbered("workers", number);
                json!({ "node": if number > 1 { name.as_str() } else { layout.slug.as_str() }, "name": name })
            }).collect::<Vec<_>>(),
            "max_tasks_per_child": settings.workers.max_tasks_per_child.get(),
            "max_memory_kb": settings.workers.max_memory_kb.get().map_or(0, |cap| cap.kilobytes()),
            "memory_max_mb": workers_memory_mb(site, concurrency),
            // Until the recipe has merged the configuration and knows.
            "more_arguments": [],
        },
        "scheduler": { "schedule": layout.schedule(), "own_schedule": "", "more_arguments": [] },
        "monitor": {
            "port": site.monitor_port(),
            "user": settings.monitor.user.as_str(),
            "page": settings.monitor.page,
            "networks": settings.monitor.page_networks.iter().map(ToString::to_string).collect::<Vec<_>>(),
        },
        "site": {
            "institution_url": settings.site.institution_url.as_ref().map_or("", WebAddress::as_str),
            "logo": text(&settings.site.logo),
            "extra_strings": settings.site.extra_strings.iter().map(AbsolutePath::as_str).collect::<Vec<_>>(),
            "snomed_task": text(&settings.site.snomed_task_xml),
            "snomed_icd9": text(&settings.site.snomed_icd9_xml),
            "snomed_icd10": text(&settings.site.snomed_icd10_xml),
            "timezone": settings.site.timezone.as_ref().map_or(site.facts.timezone.as_str(), |zone| zone.as_str()),
            "language": settings.site.language.as_str(),
            "region": settings.site.region.as_str(),
        },
        "pdf": { "wkhtmltopdf": PdfEngine::of(settings, &site.facts).is_ok_and(|one| one == PdfEngine::Wkhtmltopdf) },
        "logging": { "file": settings.logging.mode == LogMode::File, "keep_days": settings.logging.keep_days.get().map_or(0, |days| days.get()), "supervisor_rotates": settings.logging.keep_days.get().is_some() },
        "sandbox": {
            "servers_are_local": false,
            // Until the recipe has merged the configuration and knows.
            "local_only": false,
            "write_paths": [],
        },
        "flavour": { "rhel": site.facts.flavour.name == "rhel" },
        "secret": {
            "cookie": found.cookie.secret.reveal(),
            "database_password": found.database.as_ref().map_or("", |key| key.secret.reveal()),
            "monitor_password": found.monitor.secret.reveal(),
        },
    });
    view["remembered_backups"] = layout::path_beside_journal(instance, directory::DIRECTORY).into();
    view["reads_homes"] = names_home(&format!("{:?}", lasting_settings(site))).into();
    view["backs_up_to_home"] = names_home(settings.backup.directory.as_str()).into();
    let extras = settings.services.extras();
    view["extras"] = extras.map(|extra| extra_view(site, extra)).collect();
    view["extra"] = json!({});
    view["port"] = json!({ "number": 0, "protocol": "" });
    view["operators"] = super::operators::view_of_operators(site);
    view
}

/// Apart from the rest also because a macro can nest only so deep.
fn view_of_web(site: &Site, name: &str, served: &[String]) -> Value {
    let (web, layout) = (&site.settings().web, &site.layout);
    json!({
        "server_name": url_host(name),
        "virtual_host": virtual_host(served, layout),
        "redirects": served.iter().map(|name| view_of_redirect(name, layout)).collect::<Vec<_>>(),
        "own_https": web.own_https().is_some(),
        "https_port": web.public_port(),
        "http_port": web.http_port.get().filter(|_| web.own_https().is_none()).map_or(0, |port| port.get()),
        "listen": web.listen.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "path": web.path.prefix(),
        // Of what such a path may contain, only the dot means something in a pattern.
        "path_pattern": web.path.prefix().replace('.', r"\."),
        "at_root": web.path.is_root(),
        "timeout_s": web.timeout_s.get(),
        "socket": web.bind == Bind::Socket,
        "held_socket": site.has_web_socket(),
        "backend_host": backend_host(web.bind, web.backend),
        "backend_port": backend_address(web.bind).1,
        "backend_authority": backend_address(web.bind).2,
        "backend": match web.backend { Backend::Gunicorn => "gunicorn", Backend::Cherrypy => "cherrypy" },
        "workers": web_workers(site),
        "trusted_proxies": web.trusted_proxies.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "worker_host": dummy_host(layout),
        "believed": believed_headers(),
        "max_body_bytes": u64::from(web.max_body_mb.get()) << 20,
    })
}

/// Where people have their own files, which services do not see.
const HOMES: [&str; 2] = ["/home/", "/root/"];

fn names_home(text: &str) -> bool {
    HOMES.iter().any(|home| text.contains(home))
}

/// The settings without what an option of this run alone names: where CamCOPS is installed from this time.
fn lasting_settings(site: &Site) -> Settings {
    let mut settings = site.settings().clone();
    let is_of_this_run = |key: &str| site.resolved.origins.get(key) == Some(&Origin::Flag);
    if is_of_this_run("camcops.bundle") {
        settings.camcops.bundle = None;
    }
    if is_of_this_run("camcops.wheelhouse") {
        settings.camcops.wheelhouse = None;
    }
    settings
}

/// One of the site's own services. Every field is there, empty where nothing is said.
fn extra_view(site: &Site, extra: &ExtraService) -> Value {
    let (layout, name) = (&site.layout, extra.name.as_str());
    let user = extra.user.as_ref().map_or(site.account(), |user| user.as_str());
    let as_services = user == site.account();
    let directory = extra.directory.as_ref().map_or("", |path| path.as_str());
    let socket = extra.socket.as_ref().map_or("", |path| path.as_str());
    let program = match extra.command.program() {
        path if path.starts_with('/') => path.to_owned(),
        name => format!("{}/bin/{name}", layout.venv),
    };
    let web_group = site.facts.flavour.web_account;
    // Apache connects by its group, unless the service is Apache's own account.
    let by_group = !socket.is_empty() && user != web_group;
    let socket_directory = socket.rsplit_once('/').map_or("", |(parent, _)| parent);
    let runtime = runtime_directory(layout, name);
    let runtime = if socket_directory == format!("/run/{runtime}") { runtime } else { String::new() };
    let write_paths = [directory, socket_directory];
    let holds_program = |place: &&str| program.starts_with(&format!("{}/", place.trim_end_matches('/')));
    let no_programs = write_paths.iter().filter(|place| !place.is_empty() && !holds_program(place));
    let at_home = [&program, directory, socket].iter().any(|path| HOMES.iter().any(|home| path.starts_with(home)));
    // What `$` means to systemd it would mean in the middle of any word.
    let arguments = extra.command.arguments().iter();
    let arguments = arguments.map(|word| match site.manager() {
        Manager::Systemd => word.replace('$', "$$"),
        Manager::Supervisor => word.clone(),
    });
    let path = extra.path.as_ref().map_or("", |path| path.as_str());
    json!({
        "name": name,
        "user": user,
        "root": user == "root",
        "group": if by_group { web_group } else { "" },
        "second_group": if by_group && as_services { user } else { "" },
        "program": program,
        "arguments": arguments.collect::<Vec<_>>(),
        "directory": directory,
        "runtime": runtime,
        "no_programs": no_programs.collect::<Vec<_>>(),
        "write_paths": write_paths.into_iter().filter(|path| !path.is_empty()).collect::<Vec<_>>(),
        "at_home": at_home,
        "environment": own_environment(layout, name),
        "memory_max_mb": extra.memory_max_mb.map_or(0, |limit| limit.get()),
        "path": path,
        "path_pattern": path.replace('.', r"\."),
        "socket": socket,
        "port": extra.port.map_or(0, |port| port.get()),
        "worker_host": format!("{name}.{}", dummy_host(layout)),
    })
}

/// The headers by which CamCOPS, WebOb, Pyramid, Gunicorn or CherryPy let whoever asks say how they were asked.
pub(super) const BELIEVED_HEADERS: [&str; 21] = [
    "Forwarded",
    "Path-Info",
    "Proxy",
    "Script-Name",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Https",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Proto",
    "X-Forwarded-Protocol",
    "X-Forwarded-Scheme",
    "X-Forwarded-Script-Name",
    "X-Forwarded-Server",
    "X-Forwarded-Ssl",
    "X-Host",
    "X-Https",
    "X-Real-IP",
    "X-Scheme",
    "X-Script-Name",
    "X-Vhm-Root",
];

/// Each of them, and as it is written with underscores.
pub(super) fn believed_headers() -> Vec<String> {
    let other = |header: &str| header.contains('-').then(|| header.replace('-', "_"));
    BELIEVED_HEADERS.iter().flat_map(|header| [Some((*header).to_owned()), other(header)]).flatten().collect()
}

/// The directory below /run that is made for a service of the site's own, when its socket stands there.
pub(crate) fn runtime_directory(layout: &Layout, service: &str) -> String {
    format!("{}-{service}", layout.slug)
}

/// A host name that is nobody's.
fn dummy_host(layout: &Layout) -> String {
    format!("{}.invalid", layout.slug.replace('_', "-"))
}

/// A name or address as it stands in a URL.
pub(super) fn url_host(name: &str) -> String {
    match name.contains(':') {
        true => format!("[{name}]"),
        false => name.to_owned(),
    }
}

/// What Apache calls a host with these names. Apache would read an IPv6 address as a name with a port, but knows it as an alias.
fn virtual_host(names: &[String], layout: &Layout) -> Value {
    let (main, aliases) = match &names[0] {
        address if address.contains(':') => {
            let dummy = format!("{}.{}", address.replace(':', "-"), dummy_host(layout));
            (dummy, names)
        }
        name => (name.clone(), &names[1..]),
    };
    json!({ "server_name": main, "aliases": aliases })
}

/// A host that only leads to the same one over HTTPS.
fn view_of_redirect(name: &str, layout: &Layout) -> Value {
    let mut host = virtual_host(&[name.to_owned()], layout);
    host["url"] = url_host(name).into();
    host
}

fn settings_name(instance: &str) -> String {
    match instance {
        DEFAULT_INSTANCE => "provision.toml".into(),
        other => format!("provision_{other}.toml"),
    }
}

fn view_of_paths(layout: &Layout) -> Value {
    let mut paths = serde_json::to_value(layout).unwrap_or_default();
    paths["python"] = PYTHON_HOME.into();
    paths["default_config"] = format!("/etc/camcops/{DEFAULT_INSTANCE}.conf").into();
    paths
}

/// An address as the options of MariaDB and MySQL have it.
fn bind_address(listen: Listen) -> String {
    match listen {
        Listen::Any => "*".to_owned(),
        Listen::Address(address) => address.to_string(),
    }
}

/// Where the backend listens if it has no socket: address, port, and both as a URL has them.
fn backend_address(bind: Bind) -> (String, u16, String) {
    match bind {
        Bind::Socket => ("127.0.0.1".into(), 8000, "127.0.0.1:8000".into()),
        Bind::Tcp(address) => (address.ip().to_string(), address.port(), address.to_string()),
    }
}

/// Its address as CamCOPS is told it, which puts it before the port for Gunicorn.
fn backend_host(bind: Bind, backend: Backend) -> String {
    match (backend_address(bind).0, backend) {
        (host, Backend::Gunicorn) => url_host(&host),
        (host, Backend::Cherrypy) => host,
    }
}

/// More web workers than cores gain nothing and cost memory; one alone would block while it makes a PDF.
fn web_workers(site: &Site) -> u32 {
    site.settings().web.workers.given().map_or_else(
        || {
            let by_memory = site.facts.memory_mb / 4 / WEB_WORKER_MB;
            site.facts.cores.min(by_memory as u32).clamp(2, 16)
        },
        |workers| workers.get(),
    )
}

/// How many tasks are worked on at the same time.
fn worker_concurrency(site: &Site) -> u32 {
    let workers = &site.settings().workers;
    workers.concurrency.given().map_or_else(
        || {
            let by_memory = site.facts.memory_mb / 3 / WORKER_MB;
            (site.facts.cores.min(by_memory as u32).clamp(1, 8) / workers.instances.get()).max(1)
        },
        |concurrency| concurrency.get(),
    )
}

/// A limit for all worker processes together, so that a leak ends in a restart of the workers and not of the database; 0 where the machine has no more than that anyway.
fn workers_memory_mb(site: &Site, concurrency: u32) -> u64 {
    let needed = WORKER_MB * 2 * (u64::from(concurrency) + 1);
    if needed < site.facts.memory_mb { needed } else { 0 }
}

/// What the processes of a site need.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Needs {
    /// Processes of the web server.
    pub(crate) web: u32,
    /// Processes of the workers.
    pub(crate) workers: u32,
    /// Memory of all of them together, in MiB, when they have grown.
    pub(crate) memory_mb: u64,
    /// Connections to the database that they may open.
    pub(crate) connections: u64,
}

impl Needs {
    /// All of them.
    pub(crate) fn processes(&self) -> u32 {
        self.web + self.workers
    }
}

/// What the settings ask for, or this machine bears.
pub(crate) fn needs_of_site(site: &Site) -> Needs {
    let serves = |service| site.settings().services.wants(service);
    let web = match serves(Service::Server) {
        true => web_workers(site),
        false => 0,
    };
    let workers = match serves(Service::Workers) {
        true => worker_concurrency(site) * site.settings().workers.instances.get(),
        false => 0,
    };
    Needs {
        web,
        workers,
        memory_mb: u64::from(web) * WEB_WORKER_MB + u64::from(workers) * WORKER_MB,
        connections: connections_needed(site, web, workers),
    }
}

/// What the processes may open: one of the web server for its page, its session and what a page fetches beside.
fn connections_needed(site: &Site, web: u32, workers: u32) -> u64 {
    const PER_WEB_PROCESS: u64 = 3;
    const PER_WORKER: u64 = 2;
    // CherryPy answers each visitor in a thread of its own, up to this many.
    const THREADS: u64 = 100;
    let web = match site.settings().web.backend {
        Backend::Gunicorn => u64::from(web) * PER_WEB_PROCESS,
        Backend::Cherrypy => THREADS,
    };
    web + (u64::from(workers) + 1) * PER_WORKER
}

fn broker_url(site: &Site, password: &Secret) -> String {
    let broker = &site.settings().broker;
    let slug = &site.layout.slug;
    let scheme = if broker.tls { "amqps" } else { "amqp" };
    let host = match (broker.mode, broker.host.as_str()) {
        (Mode::Local, _) => "127.0.0.1".to_owned(),
        (Mode::External, host) if host.contains(':') => format!("[{host}]"),
        (Mode::External, host) => host.to_owned(),
    };
    format!(
        "{scheme}://{}:{}@{host}:{}/{}",
        encode_percent(broker.user_or(slug)),
        encode_percent(password.reveal()),
        broker.port_number(),
        encode_percent(broker.vhost_or(slug)),
    )
}
