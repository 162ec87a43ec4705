//! What the administrator wants.
//!
//! Settings come from files, environment variables and `--set` flags, the later of these winning.
//! [`Settings::resolve`] turns them into one complete and checked [`Settings`], or lists everything
//! that is wrong with them at once. The list of keys below also feeds the example file, the
//! documentation and the messages.
//!
//! Nothing here touches the machine: texts come in, values and texts go out.

// A problem carries all that a message needs, and there are only a few of them in a run.
#![allow(clippy::result_large_err)]

mod checks;
mod choices;
mod config;
mod edit;
mod example;
mod extra;
mod key;
mod load;
mod problem;
mod readers;
mod supply;
mod types;
mod value;
mod version;

pub(crate) use choices::{
    AccountUser, Backend, DatabaseTls, Environment, Frontend, Hardening, Installer, LogMode, Mode, PdfChoice, Pruning,
    Service, ServiceManager, Source, TlsMode,
};
pub(crate) use config::{BY_FILE, ConfigSections, ConfigValue};
pub(crate) use edit::edit_text;
pub use example::example;
pub(crate) use extra::{ExtraService, FIELDS as EXTRA_FIELDS, ServiceName};
pub use key::{Key, VARIABLE_PREFIX, all_keys, split_name};
pub(crate) use load::{INCLUDE, Resolved, Sources, included_paths};
pub(crate) use problem::{Origin, Problem, Problems};
pub(crate) use readers::{READONLY_ACCOUNTS, ReaderAccount, ReadonlyAccount};
use std::net::SocketAddr;
pub(crate) use supply::{Directory, IndexAddress, ProxyAddress, ProxyException, Python};
pub(crate) use types::{
    AbsolutePath, AccountName, AcmeServer, Bind, ClientHost, Country, DatabaseName, DatabaseUser, Host, Language,
    Listen, Locality, Mailbox, MemoryCap, Network, OperatorGroup, Organization, Recipient, Schedule, Timezone,
    UserName, VirtualHost, WebAddress, WebPath,
};
pub(crate) use value::{Auto, OneOrMore, PortNumber, Setting, Whole, ZeroOr};
pub(crate) use version::{Version, list_numbers};

// To add a key, add its lines here, in the order in which an administrator would look for it:
// * the doc comment is one or two plain sentences; they are shown as they are;
// * a value that only some texts or numbers can be gets a type in `types`, so that nobody has to
//   check it again, and the type says what is allowed;
// * the default works on a fresh machine; `None` or an empty list where nothing would be right;
// * the example is TOML and differs from the default; it also stands in the example file where
//   the default is empty, so all of them together must make sense;
// * `shown` is the default in words, where it depends on something else; an empty one is "none";
// * what depends on another key goes to `checks`. A password is never a key.
key::settings! {
    /// CamCOPS itself.
    camcops: Camcops {
        /// The version of CamCOPS: "auto" is the newest that this program has been tested with. 2.4.24+1 is 2.4.24 with level 1 of newer packages, which fix known flaws in those that CamCOPS asks for.
        version: Auto<Version> = Auto::Auto, example "\"2.4.24\"";
        /// Whether version "auto" uses the newest level of fixed packages; "off" installs the packages that CamCOPS asks for.
        hardening: Hardening = Hardening::Auto, example "\"off\"";
        /// The Python for CamCOPS: "auto" is the newest on the machine, from 3.10 to 3.14, or to 3.12 without a level of fixed packages.
        python: Python = Python::Auto, example "\"3.11\"";
        /// The source of CamCOPS and its Python packages: the Python package index, a directory of files, or a bundle, which contains Debian's packages too. "path" is a CamCOPS of your own, whose packages come from the index, or from camcops.wheelhouse if that is set.
        source: Source = Source::Pypi, example "\"wheelhouse\"";
        /// The wheel, source archive or source tree of camcops.version that is installed, for source "path". Only root may be able to change it. `install` builds a new release whenever it has changed.
        path: Option<Directory> = None, example "\"/srv/camcops-source/camcops_server-2.4.24-py3-none-any.whl\"";
        /// The directory with the files, for source "wheelhouse".
        wheelhouse: Option<Directory> = None, example "\"/srv/wheelhouse\"";
        /// The file from `bundle create`, for source "bundle".
        bundle: Option<AbsolutePath> = None, example "\"/srv/camcops.tar.zst\"";
        /// The installer of the Python packages: "auto" is uv where it is available, otherwise pip.
        installer: Installer = Installer::Auto, example "\"pip\"";
    }

    /// The account that the services run as.
    account: Account {
        /// The account of the services: "auto" is that of the web server, "camcops" a dedicated one.
        user: AccountUser = AccountUser::Auto, example "\"camcops\"";
        /// The user id of the dedicated account.
        uid: Auto<Whole<1, 999_999>> = Auto::Auto, example "990", shown "auto: a free one";
    }

    /// The MySQL or MariaDB database.
    database: Database {
        /// Whether the database is installed on this machine ("local") or is on a server that others administer ("external").
        mode: Mode = Mode::Local, example "\"external\"";
        /// The host of an external database.
        host: Host = Host("localhost".into()), example "\"db.example.org\"";
        /// The port of an external database.
        port: PortNumber = PortNumber(3306), example "3307";
        /// The socket of a local database.
        socket: AbsolutePath = AbsolutePath("/run/mysqld/mysqld.sock".into()), example "\"/var/lib/mysql/mysql.sock\"";
        /// The name of the database.
        name: Option<DatabaseName> = None, example "\"camcops\"", shown "camcops, or camcops_NAME for another instance";
        /// The account that CamCOPS uses in the database.
        user: Option<DatabaseUser> = None, example "\"camcops\"", shown "the same as database.name";
        /// A file with the account's password, which only root can read.
        password_file: Option<AbsolutePath> = None, example "\"/root/camcops-database-password\"";
        /// An option file with the user and the password of the server's administrator. Without it, a local server is administered by root over its socket, and on an external one database and account must exist already.
        admin_defaults_file: Option<AbsolutePath> = None, example "\"/root/database-administrator.cnf\"";
        /// The host part of the accounts, as an external server sees this machine; % matches anything.
        client_host: Option<ClientHost> = None, example "\"10.0.0.%\"", shown "as the server sees it";
        /// An additional account that can only read, for reports.
        readonly_user: Option<DatabaseUser> = None, example "\"camcops_reports\"";
        /// The host part of that account, if it differs from the application's account; % matches anything.
        readonly_host: Option<ClientHost> = None, example "\"10.0.0.%\"", shown "as the application's account";
        /// A file with that account's password, which only root can read.
        readonly_password_file: Option<AbsolutePath> = None, example "\"/root/camcops-reports-password\"";
        /// Whether that account can also read the audit trail, sessions, export recipients, and the users' password hashes and two-factor secrets.
        readonly_everything: bool = false, example "true";
        /// Further accounts that can only read, each with a password of its own. host, password_file and everything are for each what readonly_host, readonly_password_file and readonly_everything are for readonly_user. An account that install created is dropped when it is no longer here.
        readonly_accounts: Vec<ReadonlyAccount> = Vec::new(), example "[{ user = \"analyst\", host = \"10.0.0.%\" }]";
        /// Whether the connection to an external database is encrypted; "verify" also checks the server's certificate.
        tls: DatabaseTls = DatabaseTls::Off, example "\"verify\"";
        /// The certificate of the authority that signed the database's certificate.
        tls_ca: Option<AbsolutePath> = None, example "\"/etc/ssl/certs/database-ca.pem\"";
        /// Whether a local database is configured for CamCOPS, such as for large uploads.
        tuning: bool = true, example "false";
        /// The addresses where a local database accepts connections from other machines, "*" for all. Allow only those that need it in the firewall; connections are encrypted only if the server has a certificate.
        listen: OneOrMore<Listen> = OneOrMore(Vec::new()), example "[\"127.0.0.1\", \"192.0.2.10\"]", shown "the server's own choice, usually this machine only";
        /// When a local database flushes to disk: 1 at each transaction, 2 each second (faster, but a power failure loses the last second).
        flush_log_at_trx_commit: Whole<1, 2> = Whole(1), example "2";
    }

    /// The RabbitMQ broker that passes tasks to the workers.
    broker: Broker {
        /// Whether the broker is installed on this machine ("local") or is on a server that others administer ("external").
        mode: Mode = Mode::Local, example "\"external\"";
        /// The host of an external broker.
        host: Host = Host("localhost".into()), example "\"mq.example.org\"";
        /// The port of the broker.
        port: Auto<PortNumber> = Auto::Auto, example "5673", shown "auto: 5672, or 5671 with broker.tls";
        /// The vhost of the instance.
        vhost: Option<VirtualHost> = None, example "\"camcops\"", shown "camcops, or camcops_NAME for another instance";
        /// The account that CamCOPS uses at the broker.
        user: Option<AccountName> = None, example "\"camcops\"", shown "camcops, or camcops_NAME for another instance";
        /// A file with the account's password, which only root can read.
        password_file: Option<AbsolutePath> = None, example "\"/root/camcops-broker-password\"";
        /// Whether the connection to an external broker is encrypted.
        tls: bool = false, example "true";
        /// The certificate of the authority that signed the broker's certificate.
        tls_ca: Option<AbsolutePath> = None, example "\"/etc/ssl/certs/broker-ca.pem\"";
        /// How many milliseconds a task may take before the broker gives it to another worker.
        consumer_timeout_ms: Whole<300_000, { u32::MAX }> = Whole(7_200_000), example "3600000";
    }

    /// The web site.
    web: Web {
        /// The web server in front of CamCOPS; "none" if you run your own, or if CamCOPS serves HTTPS itself (web.bind).
        frontend: Frontend = Frontend::Apache, example "\"none\"";
        /// The application server of CamCOPS, behind the web server.
        backend: Backend = Backend::Gunicorn, example "\"cherrypy\"";
        /// Where the application server listens: a unix socket, or a port on the loopback interface. On any other address, which takes web.frontend = "none", it serves HTTPS itself, with the certificate that the tls settings name.
        bind: Bind = Bind::Socket, example "\"127.0.0.1:8000\"";
        /// The names or addresses of the site, the main one first.
        server_names: Vec<Host> = Vec::new(), example "[\"camcops.example.org\"]", shown "the full host name of the machine";
        /// The addresses that the site is served on.
        listen: Vec<Listen> = vec![Listen::Any], example "[\"192.0.2.10\", \"2001:db8::10\"]";
        /// The port of the site.
        https_port: PortNumber = PortNumber(443), example "8443";
        /// The port that redirects to the site; 0 for none.
        http_port: ZeroOr<PortNumber> = ZeroOr(Some(PortNumber(80))), example "8080";
        /// The path of CamCOPS on the site.
        path: WebPath = WebPath("/".into()), example "\"/camcops\"";
        /// How many requests are processed at the same time; "auto": as many as the machine can carry.
        workers: Auto<Whole<1, 256>> = Auto::Auto, example "4";
        /// How many seconds a request may take.
        timeout_s: Whole<30, 3600> = Whole(300), example "600";
        /// The reverse proxies in front of the web server whose X-Forwarded-For is trusted.
        trusted_proxies: Vec<Network> = Vec::new(), example "[\"192.0.2.0/24\"]";
        /// How large an upload may be, in MiB.
        max_body_mb: Whole<1, 2047> = Whole(64), example "128";
    }

    /// The certificate of the web site.
    tls: Tls {
        /// The source of the certificate: "self-signed" generates one, "local-ca" too, but signed by an authority of this site that browsers and tablets are told to trust once, "files" uses your own, "certbot" requests one from an ACME authority.
        mode: TlsMode = TlsMode::SelfSigned, example "\"files\"";
        /// The certificate file, for mode "files".
        certificate: Option<AbsolutePath> = None, example "\"/etc/ssl/certs/camcops.example.org.pem\"";
        /// The key file, for mode "files".
        key: Option<AbsolutePath> = None, example "\"/etc/ssl/private/camcops.example.org.key\"";
        /// The file with the intermediate certificates, unless the certificate file contains them.
        chain: Option<AbsolutePath> = None, example "\"/etc/ssl/certs/chain.pem\"";
        /// The country in a certificate that is generated.
        country: Option<Country> = None, example "\"GB\"";
        /// The state or province in a certificate that is generated.
        state_or_province: Option<Locality> = None, example "\"Cambridgeshire\"";
        /// The town in a certificate that is generated.
        locality: Option<Locality> = None, example "\"Cambridge\"";
        /// The organization in a certificate that is generated.
        organization: Option<Organization> = None, example "\"Example Hospital\"";
        /// Names or addresses in a certificate that is generated, besides web.server_names.
        dns_names: Vec<Host> = Vec::new(), example "[\"camcops.internal.example.org\"]";
        /// How many days a certificate that is generated is valid.
        days: Whole<1, 825> = Whole(365), example "90";
        /// The directory of the ACME authority, for mode "certbot"; the machine has to trust its certificate.
        acme_server: AcmeServer = AcmeServer("https://acme-v02.api.letsencrypt.org/directory".into()), example "\"https://acme.example.org/directory\"";
        /// The e-mail address that the ACME authority writes to about the certificate.
        acme_email: Option<Mailbox> = None, example "\"camcops@example.org\"";
        /// Whether you agree to the terms of the ACME authority; without that it issues no certificate.
        acme_agree_tos: bool = false, example "true";
    }

    /// The services of the instance.
    services: Services {
        /// The service manager: "auto" is systemd where it runs, otherwise supervisor.
        manager: ServiceManager = ServiceManager::Auto, example "\"supervisor\"";
        /// The services that do not run on this machine.
        disabled: Vec<ServiceName> = Vec::new(), example "[\"monitor\"]";
        /// Additional services of the site, each a table [[services.extra]]: started, supervised and logged like those of CamCOPS. One of the same name in a later file replaces an earlier one.
        extra: Vec<ExtraService> = Vec::new(), example "[{ name = \"listener\", command = [\"/usr/local/bin/listener\", \"--port\", \"9000\"], path = \"/listener\", port = 9000 }]";
    }

    /// The workers that do background tasks.
    workers: Workers {
        /// The number of services of workers on this machine; each takes its own tasks, so that one can be restarted while the others go on.
        instances: Whole<1, 16> = Whole(1), example "2";
        /// How many tasks each of them processes at the same time; "auto": together as many as the machine can carry.
        concurrency: Auto<Whole<1, 256>> = Auto::Auto, example "2";
        /// The number of tasks after which a worker process is replaced.
        max_tasks_per_child: Whole<1, 1_000_000> = Whole(1000), example "200";
        /// The memory in kB beyond which a worker process is replaced; 0 for no limit. A process needs about 390 MB, so a small limit would replace it after every task.
        max_memory_kb: ZeroOr<MemoryCap> = ZeroOr(None), example "1000000";
    }

    /// The monitor of background tasks; only this machine can reach it.
    monitor: Monitor {
        /// The port of the monitor.
        port: Auto<PortNumber> = Auto::Auto, example "5556", shown "auto: 5555, or a free port for another instance";
        /// The user name that the monitor asks for.
        user: AccountName = AccountName("camcops".into()), example "\"admin\"";
        /// A file with the password that the monitor asks for, which only root can read.
        password_file: Option<AbsolutePath> = None, example "\"/root/camcops-monitor-password\"";
        /// A file with metrics of the site for the textfile collector of Prometheus' node exporter, updated every five minutes.
        metrics_file: Option<AbsolutePath> = None, example "\"/var/lib/prometheus/node-exporter/camcops.prom\"";
        /// Whether Apache shows a page, /site-status below the path of the site, with what status, doctor and stats know and with plots of the last day and month, renewed every five minutes. It asks for the user name and the password of the monitor.
        page: bool = false, example "true";
        /// Which addresses and networks may see that page; without any only this machine.
        page_networks: Vec<Network> = Vec::new(), example "[\"192.0.2.0/24\"]", shown "this machine";
    }

    /// What CamCOPS shows and where it is used.
    site: Site {
        /// The web page of the institution.
        institution_url: Option<WebAddress> = None, example "\"https://www.example.org/\"";
        /// The picture file of the institution's logo.
        logo: Option<AbsolutePath> = None, example "\"/srv/camcops/images/logo.png\"", shown "the logo of CamCOPS";
        /// Additional files of task texts, besides those of CamCOPS; * matches anything.
        extra_strings: Vec<AbsolutePath> = Vec::new(), example "[\"/srv/camcops/extra_strings/*.xml\"]";
        /// The SNOMED CT codes for tasks, which need a licence.
        snomed_task_xml: Option<AbsolutePath> = None, example "\"/srv/camcops/snomed/tasks.xml\"";
        /// The SNOMED CT codes for ICD-9-CM.
        snomed_icd9_xml: Option<AbsolutePath> = None, example "\"/srv/camcops/snomed/icd9.xml\"";
        /// The SNOMED CT codes for ICD-10.
        snomed_icd10_xml: Option<AbsolutePath> = None, example "\"/srv/camcops/snomed/icd10.xml\"";
        /// The time zone of background tasks.
        timezone: Option<Timezone> = None, example "\"Europe/London\"", shown "the machine's";
        /// The language of the web pages.
        language: Language = Language("en_GB".into()), example "\"da_DK\"";
        /// The country of telephone numbers without a country prefix.
        region: Country = Country("GB".into()), example "\"DK\"";
        /// The program that makes PDF documents: "auto" is wkhtmltopdf where this distribution has it, otherwise WeasyPrint.
        pdf_engine: PdfChoice = PdfChoice::Auto, example "\"weasyprint\"";
        /// The use of the site: "production" for real patients, "test" for trying things out.
        environment: Environment = Environment::Production, example "\"test\"";
    }

    /// The firewall of the machine. Its profile for ufw and its service for firewalld are always there.
    firewall: Firewall {
        /// Whether install opens the site's ports in ufw or in the default zone of firewalld, whichever is enabled, and uninstall closes them. The firewall itself is never switched on or off.
        manage: bool = false, example "true";
    }

    /// The first user of CamCOPS, a superuser. An existing user is not changed.
    superuser: Superuser {
        /// The name of the user.
        username: Option<UserName> = None, example "\"admin\"";
        /// A file with the user's first password, which only root can read.
        password_file: Option<AbsolutePath> = None, example "\"/root/camcops-superuser-password\"", shown "asked for on a terminal";
    }

    /// Backups of the database, configuration, secrets and files of the site.
    backup: Backup {
        /// The directory of the backups; only root can enter it.
        directory: AbsolutePath = AbsolutePath("/var/backups/camcops".into()), example "\"/mnt/backups/camcops\"";
        /// When a backup is made, in the format of systemd.time(7) (under supervisor: five fields of crontab(5)); "never" for no timer.
        schedule: Schedule = Schedule("*-*-* 02:30".into()), example "\"daily\"", shown "each night at half past two";
        /// What the timer deletes after each backup: "never" nothing, "generations" what exceeds the keep_ settings, "first-of-month" all older than 31 days except the first of each month; never the newest, nor those of the last 24 hours. Backups of data that a restore replaced are deleted after 31 days, except with "never".
        prune: Pruning = Pruning::Generations, example "\"never\"";
        /// The number of days of which the newest backup is kept.
        keep_daily: Whole<1, 3650> = Whole(7), example "14";
        /// The number of weeks of which the newest backup is kept.
        keep_weekly: Whole<0, 520> = Whole(5), example "8";
        /// The number of months of which the newest backup is kept.
        keep_monthly: Whole<0, 600> = Whole(12), example "24";
        /// The age recipient that backups are encrypted for; without one they are not encrypted. Create the key pair on another machine with `age-keygen -o FILE`: the public key that it prints goes here, and without FILE no backup can be read. The dump before an upgrade is not encrypted, because a rollback has to read it.
        encrypt_to: Option<Recipient> = None, example "\"ssh-ed25519 AAAA... backup@example.org\"";
    }

    /// The logs of the services.
    logging: Logging {
        /// Whether the services log to the journal or to files.
        mode: LogMode = LogMode::Journal, example "\"file\"";
        /// How many days log files are kept; 0 to keep them for ever, or to rotate them yourself. The journal has its limits in journald.conf(5).
        keep_days: ZeroOr<Whole<1, 3650>> = ZeroOr(Some(Whole(14))), example "90";
    }

    /// People who operate the site without being root.
    operators: Operators {
        /// The group whose members may look at the site, restart its services and make backups with `sudo`; install creates it if it does not exist. Its members may read the logs.
        group: Option<OperatorGroup> = None, example "\"camcops-operators\"";
    }

    /// Published security advisories about the site's packages.
    advisories: Advisories {
        /// The number of days after which advisories are too old to rely on.
        max_age_days: Whole<1, 365> = Whole(7), example "30";
    }

    /// Access to package archives and to the Python package index.
    network: Internet {
        /// The proxy for plain HTTP.
        http_proxy: Option<ProxyAddress> = None, example "\"http://proxy.example.org:3128\"";
        /// The proxy for HTTPS.
        https_proxy: Option<ProxyAddress> = None, example "\"http://proxy.example.org:3128\"";
        /// A file with USER:PASSWORD for both proxies, which only root can read.
        proxy_login_file: Option<AbsolutePath> = None, example "\"/root/proxy-login\"";
        /// Hosts and networks that are reached without a proxy.
        no_proxy: Vec<ProxyException> = Vec::new(), example "[\"localhost\", \".example.org\"]", shown "nothing";
        /// The CA certificates of package archives, of the Python package index, of the ACME authority or of the proxy. apt and dnf trust them beside the machine's own.
        ca_bundle: Option<AbsolutePath> = None, example "\"/etc/ssl/certs/example-ca.pem\"", shown "the machine's own";
        /// The Python package index.
        pip_index_url: Option<IndexAddress> = None, example "\"https://pypi.example.org/simple/\"", shown "index-url in /etc/pip.conf, otherwise PyPI";
        /// A file with USER:PASSWORD for the Python package index, which only root can read.
        pip_login_file: Option<AbsolutePath> = None, example "\"/root/pip-login\"";
        /// Whether all downloads are forbidden.
        offline: bool = false, example "true";
    }
}

impl Camcops {
    /// What is to be installed.
    pub(crate) fn wanted_version(&self) -> Version {
        self.version.given().copied().unwrap_or_else(|| Version::newest(self.hardening))
    }
}

impl Database {
    /// The name of the database of the instance with this slug.
    pub(crate) fn name_or<'a>(&'a self, slug: &'a str) -> &'a str {
        self.name.as_ref().map_or(slug, DatabaseName::as_str)
    }

    /// The account of the instance with this slug.
    pub(crate) fn user_or<'a>(&'a self, slug: &'a str) -> &'a str {
        self.user.as_ref().map_or_else(|| self.name_or(slug), DatabaseUser::as_str)
    }
}

impl Services {
    /// Whether one of CamCOPS's services is wanted on this machine.
    pub(crate) fn wants(&self, service: Service) -> bool {
        !self.is_disabled(service.as_str())
    }

    /// Whether a service is there but switched off.
    pub(crate) fn is_disabled(&self, name: &str) -> bool {
        self.disabled.iter().any(|one| one.as_str() == name)
    }

    /// The services of the site's own that are wanted.
    pub(crate) fn extras(&self) -> impl Iterator<Item = &ExtraService> {
        self.extra.iter().filter(|extra| !self.is_disabled(extra.name.as_str()))
    }

    /// The names of all services, wanted or not.
    pub(crate) fn names(&self) -> Vec<&str> {
        let ours = Service::ALL.iter().map(|service| service.as_str());
        let extra = self.extra.iter().map(|extra| extra.name.as_str());
        ours.chain(extra).collect()
    }
}

impl Web {
    /// Where CamCOPS serves HTTPS itself, with no web server in front of it; nothing where there is one.
    pub(crate) fn own_https(&self) -> Option<SocketAddr> {
        self.bind.open_address().filter(|_| self.frontend == Frontend::None)
    }

    /// The port of the site.
    pub(crate) fn public_port(&self) -> u16 {
        self.own_https().map_or_else(|| self.https_port.get(), |address| address.port())
    }
}

impl Broker {
    /// The port, which depends on encryption unless it is given.
    pub(crate) fn port_number(&self) -> u16 {
        let usual = if self.tls { 5671 } else { 5672 };
        self.port.given().map_or(usual, |port| port.get())
    }

    /// The vhost of the instance with this slug.
    pub(crate) fn vhost_or<'a>(&'a self, slug: &'a str) -> &'a str {
        self.vhost.as_ref().map_or(slug, VirtualHost::as_str)
    }

    /// The account of the instance with this slug.
    pub(crate) fn user_or<'a>(&'a self, slug: &'a str) -> &'a str {
        self.user.as_ref().map_or(slug, AccountName::as_str)
    }
}
