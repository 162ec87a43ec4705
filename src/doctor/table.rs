//! The table.

use super::{
    Finding, Look, backups, broker, database, end_to_end, exports, files, machine, paths, services, tablets,
    vulnerabilities, web,
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
const BEFORE: &[Occasion] = &[Occasion::Before];
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
        "whether the settings are valid and can be applied",
        "invalid settings can't be installed";
    "packages", BOTH, ["settings"], ask machine::check_packages,
        "the packages of the distribution that the site needs",
        "CamCOPS does not start without its libraries, and makes no PDF documents without wkhtmltopdf or WeasyPrint";
    "python", BOTH, ["settings"], ask machine::check_python,
        "the release of CamCOPS and its Python",
        "an upgrade of the distribution may remove the Python of a release";
    "disk", BOTH, [], see machine::check_disk,
        "free space and inodes where the site writes",
        "a full disk stops the database in the middle of a write";
    "memory", BOTH, [], see machine::check_memory,
        "free memory, and processes killed for lack of it",
        "without memory the kernel kills the largest process, usually the database";
    "processors", BEFORE, [], see machine::check_processors,
        "the number of processors",
        "an export or a large PDF occupies one processor, and pages wait for another";
    "time", BOTH, [], ask machine::check_time,
        "whether the clock is right and synchronised",
        "two-factor codes, certificates and the times of clinical records depend on it";
    "names", BOTH, [], ask machine::check_names,
        "whether the names of the site resolve to this machine",
        "tablets and browsers find the site by its names";
    "ports", BOTH, [], see machine::check_ports,
        "which process listens on the ports of the site",
        "a service can't start if its port is taken";
    "former", BOTH, [], see machine::check_former,
        "other installations of CamCOPS on this machine: by supervisor, Docker or the package camcops-server",
        "two schedulers export every record twice, and two servers compete for the port";
    "selinux", SITE, [], see machine::check_selinux,
        "the labels of the site's files where SELinux is enforced",
        "with a wrong label Apache may not reach the socket";
    "permissions", SITE, ["settings"], ask files::check_permissions,
        "owner and mode of every file and directory of the site",
        "a service that can't read its configuration does not start, and a secret that others can read is not secret";
    "files", SITE, ["settings"], ask files::check_files,
        "every file of the site, and everything else that install created",
        "manual changes are lost at the next install";
    "database.login", BOTH, [], ask database::check_login,
        "a login to the database as the application, and the server's version",
        "without the database CamCOPS shows no page";
    "database.packet", SITE, ["database.login"], ask database::check_packet,
        "max_allowed_packet of the running server",
        "a photograph is sent as one packet: if it is too large, the upload fails with \"server has gone away\"";
    "database.connections", SITE, ["database.login"], ask database::check_connections,
        "max_connections, compared with what the site may open",
        "beyond the limit users get \"Too many connections\"";
    "database.tables", SITE, ["database.login"], ask database::check_tables,
        "character set, collation, engine and row format of every table",
        "mixed collations make searches fail, and old row formats are too small for wide tasks";
    "database.strict", SITE, ["database.login"], ask database::check_strict,
        "whether the server refuses tables whose rows are too large",
        "otherwise \"Row size too large\" occurs when a record is saved, not when its table is created";
    "database.accounts", SITE, ["database.login"], ask database::check_accounts,
        "accounts of the server without a name or a password, and root from other machines",
        "clinical records are as safe as the weakest account of their server";
    "database.grants", SITE, ["settings", "database.login"], ask database::check_grants,
        "the privileges of the application's account",
        "with fewer privileges CamCOPS fails, with more a flaw in it reaches other databases";
    "database.schema", SITE, ["settings", "database.login"], ask database::check_schema,
        "the revision of the tables, compared with that of the release",
        "CamCOPS fails with tables that are older or newer than itself";
    "database.index", ASKED, ["settings", "database.login", "database.schema"], see database::check_index,
        "CamCOPS's own index of tasks and of patients' numbers (takes some seconds; runs only if named)",
        "tasks missing in it appear on no page and in no export";
    "broker.login", BOTH, [], ask broker::check_login,
        "a login to the broker as the application, and a test message",
        "without the broker there are no background exports, e-mails or reports";
    "broker.rights", SITE, ["settings", "broker.login"], ask broker::check_rights,
        "the vhost, and the permissions of the application's account on it",
        "Celery needs to create queues on its own vhost, and nowhere else";
    "broker.timeout", SITE, ["settings", "broker.login"], ask broker::check_timeout,
        "how long the running broker allows a task to take",
        "a longer task is aborted with PRECONDITION_FAILED and starts over";
    "broker.queue", SITE, ["broker.login"], see broker::check_queue,
        "waiting tasks, and workers connected",
        "a growing queue means that exports and reports are late or missing";
    "services.running", SITE, [], ask services::check_running,
        "whether every service runs, answers, and does not fail repeatedly",
        "each service is a part of the site";
    "services.enabled", SITE, [], see services::check_enabled,
        "whether every service is enabled at boot",
        "otherwise the site is down after a reboot";
    "services.account", SITE, [], see services::check_account,
        "the account that every service runs as",
        "a flaw in a service that runs as root exposes the whole machine";
    "services.memory", SITE, [], see services::check_memory,
        "the memory of every service, compared with its limit",
        "at the limit the kernel kills processes in the middle of their tasks";
    "locks", SITE, [], see services::check_locks,
        "export locks of processes that have ended",
        "CamCOPS and its web server wait for such a lock for ever";
    "exports", SITE, [], see services::check_exports,
        "exports that could not be queued when their uploads came",
        "the broker was down, and the recipients wait for these records";
    "exports.folders", SITE, [], see exports::check_folders,
        "the folders of export recipients",
        "exports that can't be written do not reach their recipients";
    "paths", SITE, [], see paths::check_paths,
        "the files and directories named in camcops.conf",
        "a service that can't read or write them fails when they are needed";
    "web.app", SITE, [], ask web::check_app,
        "CamCOPS itself: its process and its login page",
        "nothing works without it";
    "web.socket", SITE, ["web.app"], ask web::check_socket,
        "the socket or port between Apache and CamCOPS",
        "otherwise Apache answers 503";
    "web.apache", SITE, ["web.app", "web.socket"], ask web::check_apache,
        "the login page through Apache, over TLS with the site's certificate",
        "this is how every user reaches the site";
    "web.public", SITE, ["web.app", "web.socket", "web.apache"], ask web::check_public,
        "the login page at the site's name, as this machine resolves it",
        "a proxy or firewall in front may answer instead";
    "web.config", SITE, [], ask web::check_config,
        "Apache's configuration: configtest, and typical mistakes of a reverse proxy",
        "one broken site prevents Apache from loading the others";
    "web.headers", SITE, ["web.app", "web.socket", "web.apache"], ask web::check_headers,
        "whether CamCOPS accepts scheme and host from Apache only",
        "with the wrong scheme users are logged out at once; if anybody can set them, addresses in the audit trail are worthless";
    "maintenance", SITE, [], see web::check_maintenance,
        "whether visitors see the maintenance page, and until when",
        "until it ends users can't work and tablets can't upload";
    "certificate", SITE, [], see web::check_certificate,
        "the certificate: names, chain, days left",
        "tablets refuse to upload on the day after it has expired";
    "backups", SITE, [], see backups::check_backups,
        "the age of the newest backup, and whether the last attempt failed",
        "data written since the newest backup is lost if the disk fails";
    "vulnerabilities", SITE, [], see vulnerabilities::check_vulnerabilities,
        "the site's packages, checked against the advisories in its directory",
        "published flaws are tried on every reachable machine";
    "e2e.login", END_TO_END, [], ask end_to_end::check_login,
        "the login page over HTTPS",
        "the first page of every user";
    "e2e.api", END_TO_END, [], ask end_to_end::check_api,
        "the answer to a tablet's registration request",
        "tablets upload to this address, and a gateway may block it although it lets browsers through";
    "e2e.upload", END_TO_END, ["e2e.api"], ask end_to_end::check_upload,
        "a request of 1 MiB to the address that tablets upload to",
        "a limit on the size of requests rejects uploads with pictures, and nothing else";
    "e2e.http", END_TO_END, [], ask end_to_end::check_plain_http,
        "whether plain HTTP is refused or redirected to HTTPS",
        "over plain HTTP everybody on the network can read passwords";
    "e2e.tablets", END_TO_END, [], see tablets::check_tablets,
        "the versions of the tablets that connect, from the web server's log",
        "tablets with an old or a newer application may lack tasks, or be refused";
    "e2e.workers", END_TO_END, [], ask end_to_end::check_workers,
        "a ping of the workers through the broker",
        "they do exports, e-mails and reports";
    "e2e.scheduler", END_TO_END, [], ask end_to_end::check_scheduler,
        "whether the scheduler keeps its schedule",
        "without it there are no automatic exports";
    "e2e.pdf", END_TO_END, [], see end_to_end::check_pdf,
        "a PDF made by the release, as the account of the services",
        "clinics print and file records as PDF";
}
