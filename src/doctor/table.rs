//! The table.

use super::{
    Finding, Look, backups, broker, database, end_to_end, exports, files, machine, services, web,
};
use anyhow::Result;
use std::pin::Pin;

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
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
    /// What it looks at.
    pub(crate) looks_at: &'static str,
    /// Why that matters.
    pub(crate) matters: &'static str,
    /// Checks before it in the table: when one of them has failed, this one is not asked.
    pub(crate) stands_on: &'static [&'static str],
    fits: &'static [Subject],
    made: Made,
}

impl Check {
    /// Whether it is for that.
    pub(crate) fn fits(&self, subject: Subject) -> bool {
        self.fits.contains(&subject)
    }

    /// Looks at what it is about.
    pub(super) async fn findings(&self, look: &Look<'_>) -> Findings {
        match self.made {
            Seen(see) => see(look),
            Asked(ask) => ask(look).await,
        }
    }
}

type Findings = Result<Vec<Finding>>;

/// How a check is made: at once, or by asking somebody and waiting for the answer.
#[derive(Debug)]
enum Made {
    Seen(fn(&Look<'_>) -> Findings),
    Asked(for<'a> fn(&'a Look<'a>) -> Pin<Box<dyn Future<Output = Findings> + 'a>>),
}
use Made::{Asked, Seen};

const SITE: &[Subject] = &[Subject::Site];
const BOTH: &[Subject] = &[Subject::Site, Subject::Before];
/// Only by its name, or by the first word of it.
const ASKED: &[Subject] = &[];
const END_TO_END: &[Subject] = &[Subject::EndToEnd];

const fn check(
    made: Made,
    id: &'static str,
    fits: &'static [Subject],
    stands_on: &'static [&'static str],
    looks_at: &'static str,
    matters: &'static str,
) -> Check {
    Check {
        id,
        looks_at,
        matters,
        stands_on,
        fits,
        made,
    }
}

/// All of them, what others stand on first.
pub(crate) static CHECKS: [Check; 45] = [
    check(
        Asked(|look| Box::pin(files::settings(look))),
        "settings",
        BOTH,
        &[],
        "whether a plan can be made from the settings, and what stands in its way",
        "what can't be planned can't be installed or mended",
    ),
    check(
        Asked(|look| Box::pin(machine::packages(look))),
        "packages",
        BOTH,
        &["settings"],
        "the packages of the distribution that the site needs",
        "CamCOPS does not start without its libraries, and makes no PDF without wkhtmltopdf",
    ),
    check(
        Asked(|look| Box::pin(machine::python(look))),
        "python",
        BOTH,
        &["settings"],
        "the release of CamCOPS and the Python that it runs on",
        "an upgrade of the distribution may take away the Python under a release",
    ),
    check(
        Seen(machine::disk),
        "disk",
        BOTH,
        &[],
        "free space and inodes where the site writes",
        "a full disk stops the database in the middle of a record",
    ),
    check(
        Seen(machine::memory),
        "memory",
        BOTH,
        &[],
        "memory that is free, and processes that were killed for want of it",
        "the kernel ends the largest process, which is the database",
    ),
    check(
        Seen(machine::time),
        "time",
        BOTH,
        &[],
        "whether the clock is right and kept so",
        "codes of authenticators, certificates and the times of clinical records hang on it",
    ),
    check(
        Asked(|look| Box::pin(machine::names(look))),
        "names",
        BOTH,
        &[],
        "whether the names of the site lead to this machine",
        "tablets and browsers find the site by its names",
    ),
    check(
        Seen(machine::ports),
        "ports",
        BOTH,
        &[],
        "who holds the ports of the site, by address and port",
        "a service can't start where somebody else listens",
    ),
    check(
        Seen(machine::former),
        "former",
        BOTH,
        &[],
        "other installations of CamCOPS on this machine: by supervisor, Docker or the package camcops-server",
        "two schedulers export every record twice, and two servers fight for the port",
    ),
    check(
        Seen(machine::selinux),
        "selinux",
        SITE,
        &[],
        "the labels of the site's files where SELinux is enforced",
        "with a wrong label Apache may not reach the socket",
    ),
    check(
        Asked(|look| Box::pin(files::permissions(look))),
        "permissions",
        SITE,
        &["settings"],
        "owner and mode of every file and directory of the site",
        "a service that can't read its configuration does not start, and a secret that others can read is none",
    ),
    check(
        Asked(|look| Box::pin(files::files(look))),
        "files",
        SITE,
        &["settings"],
        "every file of the site, and all else that install has made",
        "what was changed by hand works until the next install, or not at all",
    ),
    check(
        Asked(|look| Box::pin(database::login(look))),
        "database.login",
        BOTH,
        &[],
        "a login to the database as the application, and the server's version",
        "without it no page is made",
    ),
    check(
        Asked(|look| Box::pin(database::packet(look))),
        "database.packet",
        SITE,
        &["database.login"],
        "max_allowed_packet of the running server",
        "a photograph travels as one packet: too large a one ends in \"server has gone away\" and a lost upload",
    ),
    check(
        Asked(|look| Box::pin(database::connections(look))),
        "database.connections",
        SITE,
        &["database.login"],
        "max_connections against what the processes of the site may open",
        "above it users are told \"Too many connections\"",
    ),
    check(
        Asked(|look| Box::pin(database::tables(look))),
        "database.tables",
        SITE,
        &["database.login"],
        "character set, collation, engine and row format of every table",
        "an illegal mix of collations fails in the middle of a search, and old row formats have no room for wide tasks",
    ),
    check(
        Asked(|look| Box::pin(database::strict(look))),
        "database.strict",
        SITE,
        &["database.login"],
        "whether the server refuses tables whose rows have no room",
        "\"Row size too large\" would come when a record is saved, not when its table is made",
    ),
    check(
        Asked(|look| Box::pin(database::accounts(look))),
        "database.accounts",
        SITE,
        &["database.login"],
        "accounts of the server without a name or a password, and root from other machines",
        "clinical records are as safe as the weakest account of their server",
    ),
    check(
        Asked(|look| Box::pin(database::grants(look))),
        "database.grants",
        SITE,
        &["settings", "database.login"],
        "what the application's account may do, no more and no less",
        "with less CamCOPS fails at some page, with more a hole in it reaches other databases",
    ),
    check(
        Asked(|look| Box::pin(database::schema(look))),
        "database.schema",
        SITE,
        &["settings", "database.login"],
        "the revision of the tables against that of the release",
        "CamCOPS fails on tables that are older or newer than itself",
    ),
    check(
        Asked(|look| Box::pin(database::index(look))),
        "database.index",
        ASKED,
        &["settings", "database.login", "database.schema"],
        "CamCOPS's own index of tasks and of patients' numbers (it takes some seconds, so only where it is asked for)",
        "a task that is not in it is found on no page, and in no export",
    ),
    check(
        Asked(|look| Box::pin(broker::login(look))),
        "broker.login",
        BOTH,
        &[],
        "a login to the broker as the application, and a message there and back",
        "without it no export, e-mail or report is made in the background",
    ),
    check(
        Asked(|look| Box::pin(broker::rights(look))),
        "broker.rights",
        SITE,
        &["settings", "broker.login"],
        "the vhost, and what the application's account may do on it",
        "Celery makes queues of many names, on its own vhost and nowhere else",
    ),
    check(
        Asked(|look| Box::pin(broker::timeout(look))),
        "broker.timeout",
        SITE,
        &["settings", "broker.login"],
        "how long the running broker lets a task take",
        "a longer one ends in PRECONDITION_FAILED and is done again from its beginning",
    ),
    check(
        Seen(broker::queue),
        "broker.queue",
        SITE,
        &["broker.login"],
        "tasks that wait, and workers that take them",
        "a queue that grows means that exports and reports come late or never",
    ),
    check(
        Asked(|look| Box::pin(services::running(look))),
        "services.running",
        SITE,
        &[],
        "whether every service runs, answers, and has not failed over and over",
        "each service is a part of the site that users miss",
    ),
    check(
        Seen(services::enabled),
        "services.enabled",
        SITE,
        &[],
        "whether every service comes back at boot",
        "otherwise the site is gone after the next power cut",
    ),
    check(
        Seen(services::account),
        "services.account",
        SITE,
        &[],
        "the account that every service runs as",
        "a hole in a service that runs as root is a hole in the machine",
    ),
    check(
        Seen(services::memory),
        "services.memory",
        SITE,
        &[],
        "the memory of every service against its limit",
        "at the limit the kernel ends processes in the middle of their tasks",
    ),
    check(
        Seen(services::locks),
        "locks",
        SITE,
        &[],
        "export locks whose owners are dead",
        "CamCOPS waits for such a lock for ever, its web server too",
    ),
    check(
        Seen(services::exports),
        "exports",
        SITE,
        &[],
        "exports that could not be sent when their uploads came",
        "the broker was away: others wait for these records",
    ),
    check(
        Seen(exports::folders),
        "exports.folders",
        SITE,
        &[],
        "the folders that recipients get files in",
        "an export that can't be written is missed by whoever waits for it",
    ),
    check(
        Asked(|look| Box::pin(web::app(look))),
        "web.app",
        SITE,
        &[],
        "CamCOPS itself: its process, and whether it makes its login page",
        "the innermost layer of the site: nothing works without it",
    ),
    check(
        Asked(|look| Box::pin(web::socket(look))),
        "web.socket",
        SITE,
        &["web.app"],
        "the socket or port between Apache and CamCOPS",
        "Apache answers 503 where it can't get through",
    ),
    check(
        Asked(|look| Box::pin(web::apache(look))),
        "web.apache",
        SITE,
        &["web.app", "web.socket"],
        "the login page through Apache, by TLS with the site's own certificate",
        "this is the way of every visitor",
    ),
    check(
        Asked(|look| Box::pin(web::public(look))),
        "web.public",
        SITE,
        &["web.app", "web.socket", "web.apache"],
        "the login page by the site's name, as the machine resolves it",
        "a proxy or firewall in front may answer in its place",
    ),
    check(
        Asked(|look| Box::pin(web::config(look))),
        "web.config",
        SITE,
        &[],
        "Apache's configuration: its own test, and the classic mistakes of a proxy",
        "a broken site of somebody else keeps ours from being loaded, too",
    ),
    check(
        Asked(|look| Box::pin(web::headers(look))),
        "web.headers",
        SITE,
        &["web.app", "web.socket", "web.apache"],
        "whether CamCOPS takes scheme and host from Apache, and from nobody else",
        "with the wrong scheme users are logged out at once; believed from anybody, addresses in the audit trail are worth nothing",
    ),
    check(
        Seen(web::certificate),
        "certificate",
        SITE,
        &[],
        "the certificate: names, chain, days left",
        "tablets refuse to upload on the day after it has expired",
    ),
    check(
        Seen(backups::backups),
        "backups",
        SITE,
        &[],
        "how old the newest backup is, and whether the last try failed",
        "what was written since the newest backup is lost with the disk",
    ),
    check(
        Asked(|look| Box::pin(end_to_end::login(look))),
        "e2e.login",
        END_TO_END,
        &[],
        "the login page over HTTPS",
        "the first page of every user",
    ),
    check(
        Asked(|look| Box::pin(end_to_end::api(look))),
        "e2e.api",
        END_TO_END,
        &[],
        "the answer to a tablet that asks whether it is registered",
        "tablets upload by this address, and a gateway may forbid what it lets browsers do",
    ),
    check(
        Asked(|look| Box::pin(end_to_end::workers(look))),
        "e2e.workers",
        END_TO_END,
        &[],
        "a question to the workers through the broker, and their answer",
        "they make exports, e-mails and reports",
    ),
    check(
        Asked(|look| Box::pin(end_to_end::scheduler(look))),
        "e2e.scheduler",
        END_TO_END,
        &[],
        "whether the scheduler keeps its schedule",
        "without it nothing is exported by itself",
    ),
    check(
        Seen(end_to_end::pdf),
        "e2e.pdf",
        END_TO_END,
        &[],
        "a PDF made by the release, as the account of the services",
        "a clinic prints and files its records as PDF",
    ),
];
