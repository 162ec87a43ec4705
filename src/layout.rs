//! Where things live: one table per family of distributions, and the file plan of one instance as data.
//!
//! The plan follows the Filesystem Hierarchy Standard as CamCOPS's own manual route reads it. `/usr/local` and `/opt`
//! are not used.

mod distributions;
mod packages;

use anyhow::{Result, ensure};
pub(crate) use distributions::{DISTRIBUTION_RELEASES, DistributionRelease, family};
pub(crate) use packages::{PackageManager, Packages, alternative_names};
use serde::Serialize;

/// The instance that nobody has to name.
pub const DEFAULT_INSTANCE: &str = "camcops";
/// The dedicated account, where the settings ask for one.
pub(crate) const DEDICATED_ACCOUNT: &str = "camcops";
/// Every account that the services can have: their directories are handed over when the settings choose another one.
pub(crate) const SERVICE_ACCOUNTS: [&str; 3] = ["www-data", "apache", DEDICATED_ACCOUNT];
/// Where the application's releases live.
pub(crate) const APPLICATION: &str = "/usr/share/camcops";
/// Where the application's releases stand side by side.
pub(crate) const RELEASES: &str = "/usr/share/camcops/releases";
/// The program itself, as units and supervisor call it.
pub(crate) const TOOL: &str = "/usr/bin/camcops-provision";
/// Where Python looks first in CamCOPS's processes.
pub(crate) const PYTHON_HOME: &str = "/usr/share/camcops/python";
/// What it reads first there.
pub(crate) const PYTHON_HOOK: &str = "/usr/share/camcops/python/sitecustomize.py";
/// Sends exports that the broker could not be told of.
pub(crate) const UNSENT_SENDER: &str = "/usr/share/camcops/python/camcops_unsent.py";
/// What this program needs while it runs, for root alone.
pub(crate) const RUNTIME: &str = "/run/camcops-provision";
/// The authorities of the settings beside those of the machine, for what fetches as an account of its own.
pub(crate) const COMBINED_AUTHORITIES: &str = "authorities.pem";
/// Where an ACME client puts the answers that prove who serves a name.
pub(crate) const ACME: &str = "/var/lib/camcops-acme";

/// What differs between the families of distributions, and nothing else does.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Flavour {
    /// `debian` or `rhel`.
    pub(crate) name: &'static str,
    /// The account and group of the web server.
    pub(crate) web_account: &'static str,
    /// The group that may read logs.
    pub(crate) log_group: &'static str,
    /// Where web sites are described.
    pub(crate) apache_sites: &'static str,
    /// Where a link switches a site on, if that is how it is done.
    pub(crate) apache_enabled: Option<&'static str>,
    /// Where links switch modules of the web server on, if that is how it is done.
    pub(crate) apache_modules: Option<&'static str>,
    /// Where it is noted which of them the administrator wants.
    pub(crate) apache_notes: Option<&'static str>,
    /// The service of the web server.
    pub(crate) apache_service: &'static str,
    /// The program that tests its configuration.
    pub(crate) apache_control: &'static str,
    /// The file in which its ports are listed.
    pub(crate) apache_ports: &'static str,
    /// Where its configuration begins, and the directory that names in it are relative to.
    pub(crate) apache_main: (&'static str, &'static str),
    /// Where the web server logs.
    pub(crate) apache_logs: &'static str,
    /// Where supervisor reads its programs.
    pub(crate) supervisor_programs: &'static str,
    /// How such a file's name ends.
    pub(crate) supervisor_suffix: &'static str,
    /// Where a MariaDB server reads more settings.
    pub(crate) mariadb_settings: &'static str,
    /// Where a MySQL server reads more settings.
    pub(crate) mysql_settings: &'static str,
    /// The service of a MySQL server.
    pub(crate) mysql_service: &'static str,
    pub(crate) packages: &'static Packages,
}

/// Debian, Ubuntu and their like.
pub const DEBIAN: Flavour = Flavour {
    name: "debian",
    web_account: "www-data",
    log_group: "adm",
    apache_sites: "/etc/apache2/sites-available",
    apache_enabled: Some("/etc/apache2/sites-enabled"),
    apache_modules: Some("/etc/apache2/mods-enabled"),
    apache_notes: Some("/var/lib/apache2"),
    apache_service: "apache2",
    apache_control: "apache2ctl",
    apache_ports: "/etc/apache2/ports.conf",
    apache_main: ("/etc/apache2/apache2.conf", "/etc/apache2"),
    apache_logs: "/var/log/apache2",
    supervisor_programs: "/etc/supervisor/conf.d",
    supervisor_suffix: "conf",
    mariadb_settings: "/etc/mysql/mariadb.conf.d",
    mysql_settings: "/etc/mysql/mysql.conf.d",
    mysql_service: "mysql",
    packages: &packages::DEBIAN,
};

/// Red Hat Enterprise Linux and its like.
pub(crate) const RHEL: Flavour = Flavour {
    name: "rhel",
    web_account: "apache",
    log_group: "root",
    apache_sites: "/etc/httpd/conf.d",
    apache_enabled: None,
    apache_modules: None,
    apache_notes: None,
    apache_service: "httpd",
    apache_control: "apachectl",
    apache_ports: "/etc/httpd/conf/httpd.conf",
    apache_main: ("/etc/httpd/conf/httpd.conf", "/etc/httpd"),
    apache_logs: "/var/log/httpd",
    supervisor_programs: "/etc/supervisord.d",
    supervisor_suffix: "ini",
    mariadb_settings: "/etc/my.cnf.d",
    mysql_settings: "/etc/my.cnf.d",
    mysql_service: "mysqld",
    packages: &packages::RHEL,
};

/// The name under which an instance appears in files, units, databases and sites: `camcops`, or `camcops_NAME`.
pub fn instance_slug(instance: &str) -> String {
    if instance == DEFAULT_INSTANCE { instance.to_owned() } else { format!("{DEFAULT_INSTANCE}_{instance}") }
}

/// The instance that a name on the command line means: its own name, or the slug that units know it by.
pub(crate) fn parse_instance(name: &str) -> Result<String> {
    let bare = name.strip_prefix("camcops_").unwrap_or(name);
    let mut letters = bare.chars();
    let good = letters.next().is_some_and(|first| first.is_ascii_lowercase())
        && letters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && bare.len() <= 16;
    // These names stand in the program's own directory or among its commands.
    let is_taken = bare == "all" || NOT_INSTANCES.contains(&bare) || (bare == DEFAULT_INSTANCE && bare != name);
    ensure!(
        good && !is_taken,
        "an instance is a lower-case letter, then up to 15 of a-z, 0-9 and _; `all`, `advisories`, `lock`, `pending` and `program` are reserved"
    );
    Ok(bare.to_owned())
}

/// Whose a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Whose {
    /// root, and root's group.
    Root,
    /// root, readable by the service's group.
    RootForService,
    /// The service's own.
    Service,
    /// The service's own, and the web server's group may enter.
    ServiceForWeb,
    /// root, readable by the group that reads logs.
    RootForLogs,
    /// Whoever the package or the system gave it to.
    System,
}

/// Who makes the socket between web server and CamCOPS, and so who must be able to write to its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketMaker {
    /// systemd, as root, by the socket's name.
    Systemd,
    /// The service, whose account is the web server's.
    Service,
    /// The service, with an account of its own: the web server's group must be let in.
    DedicatedService,
}

impl SocketMaker {
    fn directory_owner(self) -> Whose {
        match self {
            SocketMaker::Systemd => Whose::Root,
            SocketMaker::Service | SocketMaker::DedicatedService => Whose::ServiceForWeb,
        }
    }

    fn directory_mode(self) -> &'static str {
        match self {
            SocketMaker::Systemd => "0755",
            SocketMaker::Service => "0700",
            SocketMaker::DedicatedService => "0710",
        }
    }
}

/// Directory or file, and who makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PlannedKind {
    /// A directory of ours.
    Directory,
    /// A file or link of ours.
    File,
    /// Made by another program when it runs.
    Elsewhere,
}

/// One line of the file plan.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Where.
    pub path: String,
    /// Directory or file.
    pub(crate) what: PlannedKind,
    pub(crate) whose: Whose,
    /// Four octal digits; empty where it is not ours to say.
    pub mode: &'static str,
    /// What for.
    pub purpose: &'static str,
}

/// Makes the paths of an instance from one list, in which `@` stands for its name in files.
macro_rules! layout {
    ($( $(#[$about:meta])* $scope:vis $path:ident = $place:expr; )+) => {
        /// The paths of one instance on one family of distributions.
        #[derive(Debug, Clone, Serialize)]
        pub struct Layout {
            /// The family's own places.
            #[serde(skip)]
            pub(crate) flavour: &'static Flavour,
            /// The instance's name in files.
            pub(crate) slug: String,
            /// The web server's logs.
            pub(crate) apache_logs: &'static str,
            $( $(#[$about])* $scope $path: String, )+
        }

        impl Layout {
            /// The paths of an instance.
            pub fn new(flavour: &'static Flavour, instance: &str) -> Layout {
                let slug = instance_slug(instance);
                Layout {
                    flavour,
                    apache_logs: flavour.apache_logs,
                    $( $path: $place.replace('@', &slug), )+
                    slug,
                }
            }
        }
    };
}

layout! {
    /// What CamCOPS reads.
    pub config = "/etc/camcops/@.conf";
    /// The database login, as database clients read it.
    pub(crate) option_file = "/etc/camcops/@.my.cnf";
    /// The monitor's settings, with its login.
    pub(crate) monitor_config = "/etc/camcops/@.flower.py";
    /// The administrator's own environment files, one per service.
    pub(crate) env_dir = "/etc/camcops/env.d";
    /// Secrets, for root alone.
    pub(crate) secrets = "/etc/camcops/secrets/@";
    /// The self-signed certificate.
    pub(crate) certificate = "/etc/camcops/tls/@.crt";
    pub(crate) key = "/etc/camcops/tls/@.key";
    /// The site's own authority.
    pub(crate) authority = "/etc/camcops/tls/@-authority.crt";
    pub(crate) authority_key = "/etc/camcops/tls/@-authority.key";
    /// Both in one file, where certbot gets them: so one is never replaced without the other.
    pub(crate) certificate_with_key = "/etc/camcops/tls/@.pem";
    /// What certbot runs after it has renewed.
    pub(crate) certbot_hook = "/etc/letsencrypt/renewal-hooks/deploy/50-@";
    /// Holds the socket. Where systemd makes that one, nobody but root can write here.
    pub(crate) socket_dir = "/run/@";
    /// Where the web server reaches CamCOPS.
    pub(crate) socket = "/run/@/@.socket";
    /// What CamCOPS has to remember.
    pub(crate) state = "/var/lib/@";
    /// What can be made again.
    pub(crate) cache = "/var/cache/@";
    /// matplotlib's part of it.
    pub(crate) matplotlib = "/var/cache/@/matplotlib";
    /// Root's own place among what everybody can write to: what is in it can't be exchanged for a link.
    pub(crate) lock_home = "/var/lock/@";
    /// Locks of exports.
    pub(crate) lock = "/var/lock/@/export";
    /// Root's own place again.
    pub(crate) downloads_home = "/var/tmp/@";
    /// Files that users asked for, until they fetch them.
    pub(crate) downloads = "/var/tmp/@/downloads";
    /// The site's own data.
    pub(crate) data = "/srv/@";
    pub(crate) extra_strings = "/srv/@/extra_strings";
    pub(crate) images = "/srv/@/images";
    /// Its SNOMED codes.
    pub(crate) snomed = "/srv/@/snomed";
    /// Log files, where the journal is not used.
    pub(crate) logs = "/var/log/@";
    /// supervisor's logs.
    pub(crate) supervisor_logs = "/var/log/supervisor";
    /// The current release.
    pub(crate) venv = "/usr/share/camcops/venv";
    #[serde(rename = "static")]
    pub(crate) static_files = "/usr/share/camcops/static";
    pub(crate) release_strings = "/usr/share/camcops/extra_strings";
    pub(crate) tool = TOOL;
    /// What Apache shows by itself, made while the site runs.
    pub(crate) pages = "/var/lib/@-pages";
    /// For ACME clients.
    pub(crate) acme = ACME;
}

impl Layout {
    /// The file plan: what `paths` prints, and the directories that `install` makes.
    pub fn rows(&self, socket: SocketMaker) -> Vec<Row> {
        use PlannedKind::{Directory, Elsewhere, File};
        use Whose::{Root, RootForLogs, RootForService, Service, System};
        let row = |path: &str, what, whose, mode, purpose| Row { path: path.to_owned(), what, whose, mode, purpose };
        vec![
            row("/etc/camcops", Directory, Root, "0755", "configuration"),
            row(&self.config, File, RootForService, "0640", "CamCOPS's own configuration"),
            row(&self.option_file, File, RootForService, "0640", "the database login"),
            row(&self.monitor_config, File, RootForService, "0640", "the monitor's settings"),
            row(&self.env_dir, Directory, Root, "0700", "your environment files, INSTANCE-SERVICE.env"),
            row("/etc/camcops/secrets", Directory, Root, "0700", "passwords and the cookie secret"),
            row(&self.secrets, Directory, Root, "0700", "those of this instance"),
            row("/etc/camcops/tls", Directory, Root, "0755", "the self-signed certificate"),
            row(&self.certificate, File, Root, "0644", "the certificate"),
            row(&self.key, File, Root, "0600", "its private key"),
            row(&self.authority, File, Root, "0644", "the site's own authority, with tls.mode = \"local-ca\""),
            row(&self.authority_key, File, Root, "0600", "its private key"),
            row(&self.certificate_with_key, File, Root, "0600", "both in one file, with tls.mode = \"certbot\""),
            row(
                &self.socket_dir,
                Directory,
                socket.directory_owner(),
                socket.directory_mode(),
                "runtime socket directory",
            ),
            row(&self.socket, Elsewhere, Service, "", "the socket between web server and CamCOPS"),
            row(&self.data, Directory, RootForService, "0750", "the site's own data"),
            row(&self.images, Directory, RootForService, "0750", "logos"),
            row(&self.extra_strings, Directory, RootForService, "0750", "extra strings"),
            row(&self.snomed, Directory, RootForService, "0750", "SNOMED CT codes"),
            row(&self.cache, Directory, Service, "0700", "caches"),
            row(&self.matplotlib, Elsewhere, Service, "", "matplotlib's cache"),
            row(&self.lock_home, Directory, Root, "0755", "locks"),
            row(&self.lock, Directory, Service, "0700", "locks of exports"),
            row(&self.state, Directory, Service, "0700", "the scheduler's state"),
            row(&self.downloads_home, Directory, Root, "0755", "temporary files that survive a reboot"),
            row(&self.downloads, Directory, Service, "0700", "downloads, until users fetch them"),
            row(&self.logs, Directory, RootForLogs, "0750", "logs, with logging.mode = \"file\""),
            row(&self.supervisor_logs, Directory, System, "", "logs, under supervisor"),
            row("/usr/bin/camcops_server", File, Root, "0755", "CamCOPS's own command"),
            row("/usr/bin/camcops_server_meta", File, Root, "0755", "the same for several configurations"),
            row("/usr/share/man/man1/camcops_server.1", File, Root, "0644", "its manual page"),
            row("/usr/share/man/man1/camcops_server_meta.1", File, Root, "0644", "its manual page"),
            row(APPLICATION, Directory, Root, "0755", "the application"),
            row(RELEASES, Directory, Root, "0755", "its releases"),
            row(&self.venv, Elsewhere, Root, "", "the current release"),
            row(&self.static_files, Elsewhere, Root, "", "its static files"),
            row(&self.pages, Directory, Root, "0755", "pages that Apache shows by itself, as during maintenance"),
            row(ACME, Directory, Root, "0755", "answers for an ACME client"),
        ]
    }

    /// The site's file for the web server.
    pub(crate) fn apache_site(&self) -> String {
        format!("{}/{}.conf", self.flavour.apache_sites, self.slug)
    }

    /// The link that switches the site on, where that is how it is done.
    pub(crate) fn apache_link(&self) -> Option<String> {
        let enabled = self.flavour.apache_enabled?;
        Some(format!("{enabled}/{}.conf", self.slug))
    }

    /// The file that has Apache listen on a port, and the link that switches it on where that is how it is done. All
    /// instances on that port share it.
    pub(crate) fn apache_port(&self, port: u16) -> (String, Option<String>) {
        let name = format!("{APACHE_PORT}{port}.conf");
        let link = self.flavour.apache_enabled.map(|enabled| format!("{enabled}/{name}"));
        (format!("{}/{name}", self.flavour.apache_sites), link)
    }

    /// The file with our settings of a local broker.
    pub(crate) fn broker_drop_in(&self) -> String {
        format!("/etc/rabbitmq/conf.d/90-{}.conf", self.slug)
    }

    /// supervisor's programs of this instance.
    pub(crate) fn supervisor_programs(&self) -> String {
        format!("{}/{}.{}", self.flavour.supervisor_programs, self.slug, self.flavour.supervisor_suffix)
    }
}

/// How the names of the files begin by which Apache listens on a port of ours.
pub(crate) const APACHE_PORT: &str = "camcops-port-";

/// Every file that all instances share has this in its first line.
pub(crate) const MANAGED: &str = "Managed by camcops-provision";

/// What we say about the socket of Erlang's port mapper.
pub(crate) const PORT_MAPPER_SETTINGS: &str = "/etc/systemd/system/epmd.socket.d/10-camcops.conf";

/// Published advisories that the site is held against, for root alone: an administrator or a bundle brings them.
pub(crate) const ADVISORIES: &str = "/var/lib/camcops-provision/advisories";

/// What stands there beside the instances: advisories, the lock, what a package left pending, and the program that a
/// removed package keeps for its purge.
pub(crate) const NOT_INSTANCES: [&str; 4] = ["advisories", "lock", "pending", "program"];

/// The path of what is remembered of an instance beside its journal; it goes with that.
pub(crate) fn path_beside_journal(instance: &str, name: &str) -> String {
    format!("{}/{name}", instance_directory(instance))
}

/// Holds one directory per installed version.
pub(crate) const VERSIONS: &str = "/usr/lib/rabbitmq/lib";

/// Where the program keeps what it has to remember.
pub(crate) const HOME: &str = "/var/lib/camcops-provision";

pub(crate) fn instance_directory(instance: &str) -> String {
    format!("{HOME}/{instance}")
}

/// Where a service finds nothing that the rest of the machine sees, or may not look.
const HIDDEN: [&str; 8] = ["/dev", "/home", "/proc", "/root", "/run", "/sys", "/tmp", "/var/tmp"];

/// Whether a service would find another place there than everybody else.
pub(crate) fn is_hidden(folder: &str) -> bool {
    HIDDEN.iter().any(|hidden| folder.strip_prefix(hidden).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// Whether this is an absolute path without detours.
pub(crate) fn is_plain_path(path: &str) -> bool {
    path.len() > 1 && path.starts_with('/') && path.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."))
}

impl Layout {
    /// Where the scheduler remembers what it has run.
    pub(crate) fn schedule(&self) -> String {
        format!("{}/celerybeat-schedule", self.state)
    }

    /// The same at the administrator's choice; nothing where the scheduler could not write there.
    pub(crate) fn schedule_at(&self, given: &str) -> Option<String> {
        let path = given.trim();
        let (directory, _) = path.rsplit_once('/')?;
        (is_plain_path(path) && !directory.is_empty() && !is_hidden(directory)).then(|| path.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn what_a_service_does_not_share_is_hidden() {
        assert!(is_hidden("/tmp/exports") && is_hidden("/home/me/x") && is_hidden("/tmp"));
        assert!(!is_hidden("/srv/tmp") && !is_hidden("/tmpfiles/x"));
        let layout = Layout::new(&DEBIAN, "camcops");
        assert_eq!(layout.schedule_at(" /srv/x/schedule ").as_deref(), Some("/srv/x/schedule"));
        for bad in ["", "schedule", "/schedule", "/tmp/schedule", "/srv/../x/schedule", "/srv/x/"] {
            assert_eq!(layout.schedule_at(bad), None, "{bad}");
        }
    }

    #[test]
    fn instances_share_no_path_that_is_theirs() {
        let shared = |layout: &Layout| -> BTreeSet<String> {
            let rows = layout.rows(SocketMaker::Systemd).into_iter();
            rows.map(|row| row.path).collect()
        };
        let (one, two) = (Layout::new(&DEBIAN, "camcops"), Layout::new(&DEBIAN, "two"));
        for path in shared(&one).intersection(&shared(&two)) {
            assert!(!path.contains("camcops_two"), "{path}");
        }
        assert_ne!(one.apache_site(), two.apache_site());
        assert_ne!(one.supervisor_programs(), two.supervisor_programs());
        assert_ne!(one.socket, two.socket);
    }

    #[test]
    fn what_the_plan_says_is_not_used_is_not_used() {
        for flavour in [&DEBIAN, &RHEL] {
            for row in Layout::new(flavour, "two").rows(SocketMaker::Systemd) {
                assert!(!row.path.starts_with("/opt"), "{}", row.path);
                assert!(!row.path.starts_with("/usr/local"), "{}", row.path);
            }
        }
    }

    #[test]
    fn an_instance_has_one_name() {
        assert_eq!(parse_instance("two").unwrap(), "two");
        assert_eq!(parse_instance("camcops_two").unwrap(), "two");
        assert_eq!(parse_instance("camcops").unwrap(), "camcops");
        for bad in ["", "Two", "2", "a-b", "lock", "../x", "camcops_camcops", "camcops_"] {
            assert!(parse_instance(bad).is_err(), "{bad}");
        }
    }
}
