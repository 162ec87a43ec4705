//! The table.

use super::{Finding, Look, backups, broker, database, end_to_end, exports, files, machine, services, web};
use anyhow::Result;
use std::pin::Pin;

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// A site that is installed.
    Site,
    /// A machine that is to get one.
    Before,
    /// What users of the site meet.
    EndToEnd,
}

/// A named check.
#[derive(Debug)]
pub(crate) struct Check {
    /// Its name, which never changes.
    pub(crate) id: &'static str,
    pub(crate) looks_at: &'static str,
    /// Why that matters.
    pub(crate) matters: &'static str,
    /// Checks before it in the table: when one of them has failed, this one is not asked.
    pub(crate) stands_on: &'static [&'static str],
    fits: &'static [Occasion],
    made: CheckKind,
}

impl Check {
    pub(crate) fn fits(&self, subject: Occasion) -> bool {
        self.fits.contains(&subject)
    }

    /// Looks at what it is about.
    pub(super) async fn findings(&self, look: &Look<'_>) -> CheckResult {
        match self.made {
            Seen(see) => see(look),
            Asked(ask) => ask(look).await,
        }
    }
}

type CheckResult = Result<Vec<Finding>>;

/// How a check is made: at once, or by asking somebody and waiting for the answer.
#[derive(Debug)]
enum CheckKind {
    Seen(fn(&Look<'_>) -> CheckResult),
    Asked(for<'a> fn(&'a Look<'a>) -> Pin<Box<dyn Future<Output = CheckResult> + 'a>>),
}
use CheckKind::{Asked, Seen};

const SITE: &[Occasion] = &[Occasion::Site];
const BOTH: &[Occasion] = &[Occasion::Site, Occasion::Before];
/// Only by its name, or by the first word of it.
const ASKED: &[Occasion] = &[];
const END_TO_END: &[Occasion] = &[Occasion::EndToEnd];

const fn define_check(
    made: CheckKind,
    id: &'static str,
    fits: &'static [Occasion],
    stands_on: &'static [&'static str],
    looks_at: &'static str,
    matters: &'static str,
) -> Check {
    Check { id, looks_at, matters, stands_on, fits, made }
}

/// All of them, what others stand on first.
pub(crate) static CHECKS: [Check; 45] = [
    define_check(
        Asked(|look| Box::pin(files::check_settings(look))),
        "settings",
        BOTH,
        &[],
        "whether a plan can be made from the settings, and what stands in its way",
        "what can't be planned can't be installed or mended",
    ),
    define_check(
        Asked(|look| Box::pin(machine::check_packages(look))),
        "packages",
        BOTH,
        &["settings"],
        "the packages of the distribution that the site needs",
        "CamCOPS does not start without its libraries, and makes no PDF without wkhtmltopdf",
    ),
    define_check(
        Asked(|look| Box::pin(machine::check_python(look))),
        "python",
        BOTH,
        &["settings"],
        "the release of CamCOPS and the Python that it runs on",
        "an upgrade of the distribution may take away the Python under a release",
    ),
    define_check(
        Seen(machine::check_disk),
        "disk",
        BOTH,
        &[],
        "free space and inodes where the site writes",
        "a full disk stops the database in the middle of a record",
    ),
    define_check(
        Seen(machine::check_memory),
        "memory",
        BOTH,
        &[],
        "memory that is free, and processes that were killed for want of it",
        "the kernel ends the largest process, which is the database",
    ),
    define_check(
        Seen(machine::check_time),
        "time",
        BOTH,
        &[],
        "whether the clock is right and kept so",
        "codes of authenticators, certificates and the times of clinical records hang on it",
    ),
    define_check(
        Asked(|look| Box::pin(machine::check_names(look))),
        "names",
        BOTH,
        &[],
        "whether the names of the site lead to this machine",
        "tablets and browsers find the site by its names",
    ),
    define_check(
        Seen(machine::check_ports),
        "ports",
        BOTH,
        &[],
        "who holds the ports of the site, by address and port",
        "a service can't start where somebody else listens",
    ),
    define_check(
        Seen(machine::check_former),
        "former",
        BOTH,
        &[],
        "other installations of CamCOPS on this machine: by supervisor, Docker or the package camcops-server",
        "two schedulers export every record twice, and two servers fight for the port",
    ),
    define_check(
        Seen(machine::check_selinux),
        "selinux",
        SITE,
        &[],
        "the labels of the site's files where SELinux is enforced",
        "with a wrong label Apache may not reach the socket",
    ),
    define_check(
        Asked(|look| Box::pin(files::check_permissions(look))),
        "permissions",
        SITE,
        &["settings"],
        "owner and mode of every file and directory of the site",
        "a service that can't read its configuration does not start, and a secret that others can read is none",
    ),
    define_check(
        Asked(|look| Box::pin(files::check_files(look))),
        "files",
        SITE,
        &["settings"],
        "every file of the site, and all else that install has made",
        "what was changed by hand works until the next install, or not at all",
    ),
    define_check(
        Asked(|look| Box::pin(database::check_login(look))),
        "database.login",
        BOTH,
        &[],
        "a login to the database as the application, and the server's version",
        "without it no page is made",
    ),
    define_check(
        Asked(|look| Box::pin(database::check_packet(look))),
        "database.packet",
        SITE,
        &["database.login"],
        "max_allowed_packet of the running server",
        "a photograph travels as one packet: too large a one ends in \"server has gone away\" and a lost upload",
    ),
    define_check(
        Asked(|look| Box::pin(database::check_connections(look))),
        "database.connections",
        SITE,
        &["database.login"],
        "max_connections against what the processes of the site may open",
        "above it users are told \"Too many connections\"",
    ),
    define_check(
        Asked(|look| Box::pin(database::check_tables(look))),
        "database.tables",
        SITE,
        &["database.login"],
        "character set, collation, engine and row format of every table",
        "an illegal mix of collations fails in the middle of a search, and old row formats have no room for wide tasks",
    ),
    define_check(
        Asked(|look| Box::pin(database::check_strict(look))),
        "database.strict",
        SITE,
        &["database.login"],
        "whether the server refuses tables whose rows have no room",
        "\"Row size too large\" would come when a record is saved, not when its table is made",
    ),
    define_check(
        Asked(|look| Box::pin(database::check_accounts(look))),
        "database.accounts",
        SITE,
        &["database.login"],
        "accounts of the server without a name or a password, and root from other machines",
        "clinical records are as safe as the weakest account of their server",
    ),
    define_check(
        Asked(|look| Box::pin(database::check_grants(look))),
        "database.grants",
        SITE,
        &["settings", "database.login"],
        "what the application's account may do, no more and no less",
        "with less CamCOPS fails at some page, with more a hole in it reaches other databases",
    ),
    define_check(
        Asked(|look| Box::pin(database::check_schema(look))),
        "database.schema",
        SITE,
        &["settings", "database.login"],
        "the revision of the tables against that of the release",
        "CamCOPS fails on tables that are older or newer than itself",
    ),
    define_check(
        Seen(database::check_index),
        "database.index",
        ASKED,
        &["settings", "database.login", "database.schema"],
        "CamCOPS's own index of tasks and of patients' numbers (it takes some seconds, so only where it is asked for)",
        "a task that is not in it is found on no page, and in no export",
    ),
    define_check(
        Asked(|look| Box::pin(broker::check_login(look))),
        "broker.login",
        BOTH,
        &[],
        "a login to the broker as the application, and a message there and back",
        "without it no export, e-mail or report is made in the background",
    ),
    define_check(
        Asked(|look| Box::pin(broker::check_rights(look))),
        "broker.rights",
        SITE,
        &["settings", "broker.login"],
        "the vhost, and what the application's account may do on it",
        "Celery makes queues of many names, on its own vhost and nowhere else",
    ),
    define_check(
        Asked(|look| Box::pin(broker::check_timeout(look))),
        "broker.timeout",
        SITE,
        &["settings", "broker.login"],
        "how long the running broker lets a task take",
        "a longer one ends in PRECONDITION_FAILED and is done again from its beginning",
    ),
    define_check(
        Seen(broker::check_queue),
        "broker.queue",
        SITE,
        &["broker.login"],
        "tasks that wait, and workers that take them",
        "a queue that grows means that exports and reports come late or never",
    ),
    define_check(
        Asked(|look| Box::pin(services::check_running(look))),
        "services.running",
        SITE,
        &[],
        "whether every service runs, answers, and has not failed over and over",
        "each service is a part of the site that users miss",
    ),
    define_check(
        Seen(services::check_enabled),
        "services.enabled",
        SITE,
        &[],
        "whether every service comes back at boot",
        "otherwise the site is gone after the next power cut",
    ),
    define_check(
        Seen(services::check_account),
        "services.account",
        SITE,
        &[],
        "the account that every service runs as",
        "a hole in a service that runs as root is a hole in the machine",
    ),
    define_check(
        Seen(services::check_memory),
        "services.memory",
        SITE,
        &[],
        "the memory of every service against its limit",
        "at the limit the kernel ends processes in the middle of their tasks",
    ),
    define_check(
        Seen(services::check_locks),
        "locks",
        SITE,
        &[],
        "export locks whose owners are dead",
        "CamCOPS waits for such a lock for ever, its web server too",
    ),
    define_check(
        Seen(services::check_exports),
        "exports",
        SITE,
        &[],
        "exports that could not be sent when their uploads came",
        "the broker was away: others wait for these records",
    ),
    define_check(
        Seen(exports::check_folders),
        "exports.folders",
        SITE,
        &[],
        "the folders that recipients get files in",
        "an export that can't be written is missed by whoever waits for it",
    ),
    define_check(
        Asked(|look| Box::pin(web::check_app(look))),
        "web.app",
        SITE,
        &[],
        "CamCOPS itself: its process, and whether it makes its login page",
        "the innermost layer of the site: nothing works without it",
    ),
    define_check(
        Asked(|look| Box::pin(web::check_socket(look))),
        "web.socket",
        SITE,
        &["web.app"],
        "the socket or port between Apache and CamCOPS",
        "Apache answers 503 where it can't get through",
    ),
    define_check(
        Asked(|look| Box::pin(web::check_apache(look))),
        "web.apache",
        SITE,
        &["web.app", "web.socket"],
        "the login page through Apache, by TLS with the site's own certificate",
        "this is the way of every visitor",
    ),
    define_check(
        Asked(|look| Box::pin(web::check_public(look))),
        "web.public",
        SITE,
        &["web.app", "web.socket", "web.apache"],
        "the login page by the site's name, as the machine resolves it",
        "a proxy or firewall in front may answer in its place",
    ),
    define_check(
        Asked(|look| Box::pin(web::check_config(look))),
        "web.config",
        SITE,
        &[],
        "Apache's configuration: its own test, and the classic mistakes of a proxy",
        "a broken site of somebody else keeps ours from being loaded, too",
    ),
    define_check(
        Asked(|look| Box::pin(web::check_headers(look))),
        "web.headers",
        SITE,
        &["web.app", "web.socket", "web.apache"],
        "whether CamCOPS takes scheme and host from Apache, and from nobody else",
        "with the wrong scheme users are logged out at once; believed from anybody, addresses in the audit trail are worth nothing",
    ),
    define_check(
        Seen(web::check_certificate),
        "certificate",
        SITE,
        &[],
        "the certificate: names, chain, days left",
        "tablets refuse to upload on the day after it has expired",
    ),
    define_check(
        Seen(backups::check_backups),
        "backups",
        SITE,
        &[],
        "how old the newest backup is, and whether the last try failed",
        "what was written since the newest backup is lost with the disk",
    ),
    define_check(
        Asked(|look| Box::pin(end_to_end::check_login(look))),
        "e2e.login",
        END_TO_END,
        &[],
        "the login page over HTTPS",
        "the first page of every user",
    ),
    define_check(
        Asked(|look| Box::pin(end_to_end::check_api(look))),
        "e2e.api",
        END_TO_END,
        &[],
        "the answer to a tablet that asks whether it is registered",
        "tablets upload by this address, and a gateway may forbid what it lets browsers do",
    ),
    define_check(
        Asked(|look| Box::pin(end_to_end::check_workers(look))),
        "e2e.workers",
        END_TO_END,
        &[],
        "a question to the workers through the broker, and their answer",
        "they make exports, e-mails and reports",
    ),
    define_check(
        Asked(|look| Box::pin(end_to_end::check_scheduler(look))),
        "e2e.scheduler",
        END_TO_END,
        &[],
        "whether the scheduler keeps its schedule",
        "without it nothing is exported by itself",
    ),
    define_check(
        Seen(end_to_end::check_pdf),
        "e2e.pdf",
        END_TO_END,
        &[],
        "a PDF made by the release, as the account of the services",
        "a clinic prints and files its records as PDF",
    ),
];
