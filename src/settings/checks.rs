//! What no single key can tell: settings that contradict each other.

use super::{
    AccountUser, Auto, Bind, Database, DatabaseTls, DatabaseUser, Frontend, Hardening, Listen, Mode, READONLY_ACCOUNTS,
    Settings, Source, TlsMode,
};

/// What the tablets and every page of CamCOPS need, and what Apache shows by itself.
const PATHS_OF_CAMCOPS: [&str; 8] = [
    "/api",
    "/camcops-authority.crt",
    "/camcops-maintenance",
    "/database",
    "/login",
    "/site-status",
    "/static",
    "/upload",
];

const EXTRA: &str = super::extra::EXTRA;

/// Keys that contradict each other; the first one is the one to change.
pub(super) struct Contradiction {
    pub(crate) keys: [&'static str; 2],
    pub(crate) what: String,
    /// Whether giving the first key a value would end the conflict.
    pub(crate) needs_value: bool,
}

/// Every contradiction.
pub(super) fn find_conflicts(settings: &Settings) -> Vec<Contradiction> {
    let mut found = Contradictions::default();
    check_application(settings, &mut found);
    check_account(settings, &mut found);
    check_database(settings, &mut found);
    check_broker(settings, &mut found);
    check_site(settings, &mut found);
    check_ports(settings, &mut found);
    check_network(settings, &mut found);
    check_services(settings, &mut found);
    check_monitor(settings, &mut found);
    found.0
}

#[derive(Default)]
struct Contradictions(Vec<Contradiction>);

impl Contradictions {
    fn refuse(&mut self, when: bool, keys: [&'static str; 2], what: &str) {
        if when {
            self.0.push(Contradiction { keys, what: what.into(), needs_value: false });
        }
    }

    fn need(&mut self, when: bool, keys: [&'static str; 2], with: &str) {
        if when {
            let what = format!("is needed with {with}");
            self.0.push(Contradiction { keys, what, needs_value: true });
        }
    }
}

fn check_application(settings: &Settings, found: &mut Contradictions) {
    let camcops = &settings.camcops;
    found.need(
        camcops.source == Source::Wheelhouse && camcops.wheelhouse.is_none(),
        ["camcops.wheelhouse", "camcops.source"],
        "camcops.source = \"wheelhouse\"",
    );
    found.need(
        camcops.source == Source::Bundle && camcops.bundle.is_none(),
        ["camcops.bundle", "camcops.source"],
        "camcops.source = \"bundle\"",
    );
    found.need(
        camcops.source == Source::Path && camcops.path.is_none(),
        ["camcops.path", "camcops.source"],
        "camcops.source = \"path\"",
    );
    if let Auto::Given(version) = camcops.version {
        found.refuse(
            version.is_hardened() && camcops.hardening == Hardening::Off,
            ["camcops.version", "camcops.hardening"],
            &format!("{} has newer packages than CamCOPS asks for, but camcops.hardening is \"off\"", version.as_str()),
        );
    }
}

fn check_network(settings: &Settings, found: &mut Contradictions) {
    let network = &settings.network;
    found.need(
        network.proxy_login_file.is_some() && network.http_proxy.is_none() && network.https_proxy.is_none(),
        ["network.https_proxy", "network.proxy_login_file"],
        "network.proxy_login_file",
    );
    found.need(
        network.pip_login_file.is_some() && network.pip_index_url.is_none(),
        ["network.pip_index_url", "network.pip_login_file"],
        "network.pip_login_file",
    );
}

fn check_monitor(settings: &Settings, found: &mut Contradictions) {
    found.refuse(
        settings.monitor.page && settings.web.frontend == Frontend::None,
        ["monitor.page", "web.frontend"],
        "is shown by Apache: that needs web.frontend = \"apache\"",
    );
}

fn check_account(settings: &Settings, found: &mut Contradictions) {
    let account = &settings.account;
    found.refuse(
        account.uid.given().is_some() && account.user != AccountUser::Camcops,
        ["account.uid", "account.user"],
        "is only for the dedicated account: that needs account.user = \"camcops\"",
    );
}

fn check_database(settings: &Settings, found: &mut Contradictions) {
    let database = &settings.database;
    let external = database.mode == Mode::External;
    found.need(
        external && database.host.is_localhost(),
        ["database.host", "database.mode"],
        "database.mode = \"external\"",
    );
    found.refuse(
        !external && !database.host.is_loopback(),
        ["database.host", "database.mode"],
        "is another machine: that needs database.mode = \"external\"",
    );
    found.refuse(
        !external && database.tls != DatabaseTls::Off,
        ["database.tls", "database.mode"],
        "is only for an external database: a local one is reached without leaving the machine",
    );
    found.need(
        database.tls == DatabaseTls::Verify && database.tls_ca.is_none(),
        ["database.tls_ca", "database.tls"],
        "database.tls = \"verify\"",
    );
    found.refuse(
        database.readonly_user.is_none() && database.readonly_password_file.is_some(),
        ["database.readonly_password_file", "database.readonly_user"],
        "is only for database.readonly_user, which is not set",
    );
    found.refuse(
        database.readonly_user.is_none() && database.readonly_host.is_some(),
        ["database.readonly_host", "database.readonly_user"],
        "is only for database.readonly_user, which is not set",
    );
    found.refuse(
        database.readonly_user.is_none() && database.readonly_everything,
        ["database.readonly_everything", "database.readonly_user"],
        "is only for database.readonly_user, which is not set",
    );
    found.refuse(
        database.readonly_user.is_some()
            && database.readonly_user.as_ref().map(|user| user.as_str())
                == database.user.as_ref().map(|user| user.as_str()),
        ["database.readonly_user", "database.user"],
        "is the application's own account, which also writes",
    );
    check_readers(database, found);
    let listen = database.listen.all();
    found.refuse(
        listen.len() > 1 && listen.contains(&Listen::Any),
        ["database.listen", "database.mode"],
        "has \"*\", which is every address, and others: keep one or the other",
    );
    let superuser = &settings.superuser;
    found.refuse(
        superuser.username.is_none() && superuser.password_file.is_some(),
        ["superuser.password_file", "superuser.username"],
        "is only for superuser.username, which is not set",
    );
    let name = database.name.as_ref().map_or("", |name| name.as_str());
    found.need(
        database.user.is_none() && name.len() > 32,
        ["database.user", "database.name"],
        "a database.name of more than 32 characters",
    );
    found.refuse(
        database.user.is_none() && name.eq_ignore_ascii_case("root"),
        ["database.name", "database.user"],
        "would make root the user: set another database.user",
    );
}

fn check_readers(database: &Database, found: &mut Contradictions) {
    let is = |other: &Option<DatabaseUser>, user: &str| other.as_ref().is_some_and(|other| other.as_str() == user);
    for (index, account) in database.readonly_accounts.iter().enumerate() {
        let user = account.user.as_str();
        let is_double = database.readonly_accounts[..index].iter().any(|earlier| earlier.user == account.user);
        let keys = |other| [READONLY_ACCOUNTS, other];
        found.refuse(is_double, keys(READONLY_ACCOUNTS), &format!("names {user} twice"));
        found.refuse(
            is(&database.readonly_user, user),
            keys("database.readonly_user"),
            &format!("names {user}, which is also database.readonly_user"),
        );
        found.refuse(
            is(&database.user, user),
            keys("database.user"),
            &format!("names {user}, the application's own account, which also writes"),
        );
    }
}

fn check_broker(settings: &Settings, found: &mut Contradictions) {
    let broker = &settings.broker;
    let external = broker.mode == Mode::External;
    found.need(external && broker.host.is_localhost(), ["broker.host", "broker.mode"], "broker.mode = \"external\"");
    found.refuse(
        !external && !broker.host.is_loopback(),
        ["broker.host", "broker.mode"],
        "is another machine: that needs broker.mode = \"external\"",
    );
    found.refuse(
        !external && broker.tls,
        ["broker.tls", "broker.mode"],
        "is only for an external broker: a local one is reached without leaving the machine",
    );
}

fn check_site(settings: &Settings, found: &mut Contradictions) {
    found.refuse(
        settings.web.listen.is_empty(),
        ["web.listen", "web.frontend"],
        "is empty, so the site could not be reached",
    );
    check_own_https(settings, found);
    let tls = &settings.tls;
    let files = tls.mode == TlsMode::Files;
    let with = "tls.mode = \"files\"";
    found.need(files && tls.certificate.is_none(), ["tls.certificate", "tls.mode"], with);
    found.need(files && tls.key.is_none(), ["tls.key", "tls.mode"], with);
    let certbot = tls.mode == TlsMode::Certbot;
    let web = &settings.web;
    found.refuse(
        certbot && web.frontend != Frontend::Apache,
        ["tls.mode", "web.frontend"],
        "needs web.frontend = \"apache\": otherwise the certificate belongs to the reverse proxy in front",
    );
    found.refuse(
        certbot && web.http_port.get().is_none(),
        ["web.http_port", "tls.mode"],
        "is 0, but the ACME authority checks the site there: tls.mode = \"certbot\" needs a port that it reaches as port 80",
    );
    found.refuse(
        certbot && !tls.acme_agree_tos,
        ["tls.acme_agree_tos", "tls.mode"],
        "is false, and the ACME authority issues no certificate without your agreement to its terms: read them, and set true",
    );
    found.refuse(
        certbot && web.server_names.iter().any(|name| name.ip().is_some()),
        ["web.server_names", "tls.mode"],
        "contains an address, and tls.mode = \"certbot\" needs names",
    );
}

/// Without Apache, and where others can reach it, CamCOPS encrypts by itself.
fn check_own_https(settings: &Settings, found: &mut Contradictions) {
    let web = &settings.web;
    let Some(address) = web.bind.open_address() else {
        return;
    };
    let what = format!(
        "{} can be reached from other machines, but behind Apache the backend does not encrypt and accepts forwarding headers from any client: use \"socket\" or a loopback address, or web.frontend = \"none\" to let CamCOPS serve HTTPS itself",
        address.ip()
    );
    found.refuse(web.frontend == Frontend::Apache, ["web.bind", "web.frontend"], &what);
    found.refuse(
        web.frontend == Frontend::None && !web.path.is_root(),
        ["web.path", "web.bind"],
        "needs a web server in front: CamCOPS that serves HTTPS itself is at \"/\"",
    );
    found.refuse(
        web.frontend == Frontend::None && settings.tls.chain.is_some(),
        ["tls.chain", "web.bind"],
        "is not read by CamCOPS that serves HTTPS itself: put the intermediate certificates into tls.certificate, below the certificate",
    );
}

fn check_ports(settings: &Settings, found: &mut Contradictions) {
    let web = &settings.web;
    let apache = web.frontend == Frontend::Apache;
    let bind = match web.bind {
        Bind::Tcp(address) => Some(address.port()),
        Bind::Socket => None,
    };
    let monitor = match settings.monitor.port {
        Auto::Given(port) => Some(port.get()),
        Auto::Auto => None,
    };
    found.refuse(
        monitor.is_some_and(|port| port < 1024),
        ["monitor.port", "monitor.port"],
        "is below 1024, which only root may open, and the monitor does not run as root",
    );
    let all = [
        ("web.https_port", apache.then(|| web.https_port.get())),
        ("web.http_port", web.http_port.get().filter(|_| apache).map(|port| port.get())),
        ("web.bind", bind),
        ("monitor.port", monitor),
    ];
    for extra in &settings.services.extra {
        let Some(port) = extra.port.map(|port| port.get()) else {
            continue;
        };
        let others = all.iter().filter(|(_, taken)| *taken == Some(port));
        for (other, _) in others {
            let what = format!("{} uses port {port}, which is also {other}", extra.name);
            found.refuse(true, [EXTRA, other], &what);
        }
    }
    for (index, (key, port)) in all.iter().enumerate() {
        let Some(port) = port else { continue };
        if let Some((other, _)) = all[..index].iter().find(|(_, taken)| *taken == Some(*port)) {
            found.refuse(true, [key, other], &format!("is {port}, which is also {other}"));
        }
    }
}

fn check_services(settings: &Settings, found: &mut Contradictions) {
    let services = &settings.services;
    let names = services.names();
    for disabled in &services.disabled {
        let what =
            format!("names {:?}, but there is no such service; there are {}", disabled.as_str(), names.join(", "));
        found.refuse(!names.contains(&disabled.as_str()), ["services.disabled", EXTRA], &what);
    }
    for (index, extra) in services.extra.iter().enumerate() {
        let mut refuse = |other: &'static str, what: String| {
            let what = format!("{}: {what}", extra.name);
            found.refuse(true, [EXTRA, other], &what);
        };
        for earlier in &services.extra[..index] {
            let shared = [
                ("name", extra.name == earlier.name),
                ("path", extra.path.is_some() && extra.path == earlier.path),
                ("port", extra.port.is_some() && extra.port == earlier.port),
                ("socket", extra.socket.is_some() && extra.socket == earlier.socket),
            ];
            for (field, _) in shared.into_iter().filter(|(_, is_same)| *is_same) {
                refuse("services.disabled", format!("its {field} is also that of {}", earlier.name));
            }
        }
        let Some(path) = &extra.path else { continue };
        let prefix = settings.web.path.prefix();
        let taken = PATHS_OF_CAMCOPS.map(|known| format!("{prefix}{known}"));
        let is_below = |known: &str| {
            let rest = path.as_str().strip_prefix(known);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if path.as_str() == settings.web.path.as_str() {
            refuse("web.path", "its path is that of CamCOPS".into());
        } else if taken.iter().any(|known| is_below(known)) {
            refuse("web.path", format!("{path} is used by CamCOPS itself"));
        }
    }
}
