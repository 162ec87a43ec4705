//! The table.

use super::{
    Finding, Look, backups, broker, database, end_to_end, exports, files, machine, services, vulnerabilities, web,
};
use anyhow::Result;
use std::pin::Pin;

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

/// All of them, what others stand on first: the id, when it is asked, what it stands on, and the function.
macro_rules! checks {
    ($($id:literal, $fits:ident, [$($base:literal),*], $kind:ident $check:path, $looks_at:literal, $matters:literal;)*) => {
        pub(crate) static CHECKS: &[Check] = &[$(Check {
            id: $id,
            looks_at: $looks_at,
            matters: $matters,
            stands_on: &[$($base),*],
            fits: $fits,
            made: checks!(@$kind $check),
        }),*];
    };
    (@see $check:path) => { Seen(|look| Ok($check(look)?.into())) };
    (@ask $check:path) => { Asked(|look| Box::pin(async move { Ok($check(look).await?.into()) })) };
}

checks! {
    "settings", BOTH, [], ask files::check_settings,
        "whether a plan can be made from the settings, and what stands in its way",
        "what can't be planned can't be installed or mended";
    "packages", BOTH, ["settings"], ask machine::check_packages,
        "the packages of the distribution that the site needs",
        "CamCOPS does not start without its libraries, and makes no PDF documents without wkhtmltopdf or WeasyPrint";
    "python", BOTH, ["settings"], ask machine::check_python,
        "the release of CamCOPS and the Python that it runs on",
        "an upgrade of the distribution may take away the Python under a release";
    "disk", BOTH, [], see machine::check_disk,
        "free space and inodes where the site writes",
        "a full disk stops the database in the middle of a record";
    "memory", BOTH, [], see machine::check_memory,
        "memory that is free, and processes that were killed for want of it",
        "the kernel ends the largest process, which is the database";
    "time", BOTH, [], see machine::check_time,
        "whether the clock is right and kept so",
        "codes of authenticators, certificates and the times of clinical records hang on it";
    "names", BOTH, [], ask machine::check_names,
        "whether the names of the site lead to this machine",
        "tablets and browsers find the site by its names";
    "ports", BOTH, [], see machine::check_ports,
        "who holds the ports of the site, by address and port",
        "a service can't start where somebody else listens";
    "former", BOTH, [], see machine::check_former,
        "other installations of CamCOPS on this machine: by supervisor, Docker or the package camcops-server",
        "two schedulers export every record twice, and two servers fight for the port";
    "selinux", SITE, [], see machine::check_selinux,
        "the labels of the site's files where SELinux is enforced",
        "with a wrong label Apache may not reach the socket";
    "permissions", SITE, ["settings"], ask files::check_permissions,
        "owner and mode of every file and directory of the site",
        "a service that can't read its configuration does not start, and a secret that others can read is none";
    "files", SITE, ["settings"], ask files::check_files,
        "every file of the site, and all else that install has made",
        "what was changed by hand works until the next install, or not at all";
    "database.login", BOTH, [], ask database::check_login,
        "a login to the database as the application, and the server's version",
        "without it no page is made";
    "database.packet", SITE, ["database.login"], ask database::check_packet,
        "max_allowed_packet of the running server",
        "a photograph travels as one packet: too large a one ends in \"server has gone away\" and a lost upload";
    "database.connections", SITE, ["database.login"], ask database::check_connections,
        "max_connections against what the processes of the site may open",
        "above it users are told \"Too many connections\"";
    "database.tables", SITE, ["database.login"], ask database::check_tables,
        "character set, collation, engine and row format of every table",
        "an illegal mix of collations fails in the middle of a search, and old row formats have no room for wide tasks";
    "database.strict", SITE, ["database.login"], ask database::check_strict,
        "whether the server refuses tables whose rows have no room",
        "\"Row size too large\" would come when a record is saved, not when its table is made";
    "database.accounts", SITE, ["database.login"], ask database::check_accounts,
        "accounts of the server without a name or a password, and root from other machines",
        "clinical records are as safe as the weakest account of their server";
    "database.grants", SITE, ["settings", "database.login"], ask database::check_grants,
        "what the application's account may do, no more and no less",
        "with less CamCOPS fails at some page, with more a hole in it reaches other databases";
    "database.schema", SITE, ["settings", "database.login"], ask database::check_schema,
        "the revision of the tables against that of the release",
        "CamCOPS fails on tables that are older or newer than itself";
    "database.index", ASKED, ["settings", "database.login", "database.schema"], see database::check_index,
        "CamCOPS's own index of tasks and of patients' numbers (it takes some seconds, so only where it is asked for)",
        "a task that is not in it is found on no page, and in no export";
    "broker.login", BOTH, [], ask broker::check_login,
        "a login to the broker as the application, and a message there and back",
        "without it no export, e-mail or report is made in the background";
    "broker.rights", SITE, ["settings", "broker.login"], ask broker::check_rights,
        "the vhost, and what the application's account may do on it",
        "Celery makes queues of many names, on its own vhost and nowhere else";
    "broker.timeout", SITE, ["settings", "broker.login"], ask broker::check_timeout,
        "how long the running broker lets a task take",
        "a longer one ends in PRECONDITION_FAILED and is done again from its beginning";
    "broker.queue", SITE, ["broker.login"], see broker::check_queue,
        "tasks that wait, and workers that take them",
        "a queue that grows means that exports and reports come late or never";
    "services.running", SITE, [], ask services::check_running,
        "whether every service runs, answers, and has not failed over and over",
        "each service is a part of the site that users miss";
    "services.enabled", SITE, [], see services::check_enabled,
        "whether every service comes back at boot",
        "otherwise the site is gone after the next power cut";
    "services.account", SITE, [], see services::check_account,
        "the account that every service runs as",
        "a hole in a service that runs as root is a hole in the machine";
    "services.memory", SITE, [], see services::check_memory,
        "the memory of every service against its limit",
        "at the limit the kernel ends processes in the middle of their tasks";
    "locks", SITE, [], see services::check_locks,
        "export locks whose owners are dead",
        "CamCOPS waits for such a lock for ever, its web server too";
    "exports", SITE, [], see services::check_exports,
        "exports that could not be sent when their uploads came",
        "the broker was away: others wait for these records";
    "exports.folders", SITE, [], see exports::check_folders,
        "the folders that recipients get files in",
        "an export that can't be written is missed by whoever waits for it";
    "web.app", SITE, [], ask web::check_app,
        "CamCOPS itself: its process, and whether it makes its login page",
        "the innermost layer of the site: nothing works without it";
    "web.socket", SITE, ["web.app"], ask web::check_socket,
        "the socket or port between Apache and CamCOPS",
        "Apache answers 503 where it can't get through";
    "web.apache", SITE, ["web.app", "web.socket"], ask web::check_apache,
        "the login page through Apache, by TLS with the site's own certificate",
        "this is the way of every visitor";
    "web.public", SITE, ["web.app", "web.socket", "web.apache"], ask web::check_public,
        "the login page by the site's name, as the machine resolves it",
        "a proxy or firewall in front may answer in its place";
    "web.config", SITE, [], ask web::check_config,
        "Apache's configuration: its own test, and the classic mistakes of a proxy",
        "a broken site of somebody else keeps ours from being loaded, too";
    "web.headers", SITE, ["web.app", "web.socket", "web.apache"], ask web::check_headers,
        "whether CamCOPS takes scheme and host from Apache, and from nobody else",
        "with the wrong scheme users are logged out at once; believed from anybody, addresses in the audit trail are worth nothing";
    "maintenance", SITE, [], see web::check_maintenance,
        "whether visitors see the maintenance page, and until when",
        "until it ends users can't work and tablets can't upload";
    "certificate", SITE, [], see web::check_certificate,
        "the certificate: names, chain, days left",
        "tablets refuse to upload on the day after it has expired";
    "backups", SITE, [], see backups::check_backups,
        "how old the newest backup is, and whether the last try failed",
        "what was written since the newest backup is lost with the disk";
    "vulnerabilities", SITE, [], see vulnerabilities::check_vulnerabilities,
        "what the site is made of against the advisories that were brought to it",
        "a published flaw is tried on every machine that can be reached";
    "e2e.login", END_TO_END, [], ask end_to_end::check_login,
        "the login page over HTTPS",
        "the first page of every user";
    "e2e.api", END_TO_END, [], ask end_to_end::check_api,
        "the answer to a tablet that asks whether it is registered",
        "tablets upload by this address, and a gateway may forbid what it lets browsers do";
    "e2e.workers", END_TO_END, [], ask end_to_end::check_workers,
        "a question to the workers through the broker, and their answer",
        "they make exports, e-mails and reports";
    "e2e.scheduler", END_TO_END, [], ask end_to_end::check_scheduler,
        "whether the scheduler keeps its schedule",
        "without it nothing is exported by itself";
    "e2e.pdf", END_TO_END, [], see end_to_end::check_pdf,
        "a PDF made by the release, as the account of the services",
        "a clinic prints and files its records as PDF";
}
