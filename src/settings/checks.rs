//! What no single key can tell: settings that contradict each other.

use super::{AccountUser, Auto, Bind, DatabaseTls, Frontend, Mode, Settings, Source, TlsMode};

/// Keys that contradict each other; the first one is the one to change.
pub(super) struct Conflict {
    pub keys: [&'static str; 2],
    pub what: String,
    /// Whether giving the first key a value would end the conflict.
    pub needs_value: bool,
}

/// Every contradiction.
pub(super) fn conflicts(settings: &Settings) -> Vec<Conflict> {
    let mut found = Conflicts::default();
    application(settings, &mut found);
    account(settings, &mut found);
    database(settings, &mut found);
    broker(settings, &mut found);
    site(settings, &mut found);
    ports(settings, &mut found);
    network(settings, &mut found);
    found.0
}

#[derive(Default)]
struct Conflicts(Vec<Conflict>);

impl Conflicts {
    fn refuse(&mut self, when: bool, keys: [&'static str; 2], what: &str) {
        if when {
            self.0.push(Conflict {
                keys,
                what: what.into(),
                needs_value: false,
            });
        }
    }

    fn need(&mut self, when: bool, keys: [&'static str; 2], with: &str) {
        if when {
            let what = format!("is needed with {with}");
            self.0.push(Conflict {
                keys,
                what,
                needs_value: true,
            });
        }
    }
}

fn application(settings: &Settings, found: &mut Conflicts) {
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
}

fn network(settings: &Settings, found: &mut Conflicts) {
    let network = &settings.network;
    found.need(
        network.proxy_login_file.is_some()
            && network.http_proxy.is_none()
            && network.https_proxy.is_none(),
        ["network.https_proxy", "network.proxy_login_file"],
        "network.proxy_login_file",
    );
    found.need(
        network.pip_login_file.is_some() && network.pip_index_url.is_none(),
        ["network.pip_index_url", "network.pip_login_file"],
        "network.pip_login_file",
    );
}

fn account(settings: &Settings, found: &mut Conflicts) {
    let account = &settings.account;
    found.refuse(
        account.uid.given().is_some() && account.user != AccountUser::Camcops,
        ["account.uid", "account.user"],
        "is only for the dedicated account: that needs account.user = \"camcops\"",
    );
}

fn database(settings: &Settings, found: &mut Conflicts) {
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
        database.readonly_user.is_some()
            && database.readonly_user.as_ref().map(|user| user.as_str())
                == database.user.as_ref().map(|user| user.as_str()),
        ["database.readonly_user", "database.user"],
        "is the application's own account, which also writes",
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
        "would make root the user: that needs another database.user",
    );
}

fn broker(settings: &Settings, found: &mut Conflicts) {
    let broker = &settings.broker;
    let external = broker.mode == Mode::External;
    found.need(
        external && broker.host.is_localhost(),
        ["broker.host", "broker.mode"],
        "broker.mode = \"external\"",
    );
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

fn site(settings: &Settings, found: &mut Conflicts) {
    found.refuse(
        settings.web.listen.is_empty(),
        ["web.listen", "web.frontend"],
        "is empty, so that nobody could reach the site",
    );
    let tls = &settings.tls;
    let files = tls.mode == TlsMode::Files;
    let with = "tls.mode = \"files\"";
    found.need(
        files && tls.certificate.is_none(),
        ["tls.certificate", "tls.mode"],
        with,
    );
    found.need(files && tls.key.is_none(), ["tls.key", "tls.mode"], with);
}

fn ports(settings: &Settings, found: &mut Conflicts) {
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
        (
            "web.http_port",
            web.http_port
                .get()
                .filter(|_| apache)
                .map(|port| port.get()),
        ),
        ("web.bind", bind),
        ("monitor.port", monitor),
    ];
    for (index, (key, port)) in all.iter().enumerate() {
        let Some(port) = port else { continue };
        if let Some((other, _)) = all[..index].iter().find(|(_, taken)| *taken == Some(*port)) {
            found.refuse(
                true,
                [key, other],
                &format!("has port {port}, as {other} has"),
            );
        }
    }
}
