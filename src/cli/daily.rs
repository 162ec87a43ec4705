//! Arguments for daily life: logs, checks, waiting, services.

use crate::probe::Backend;
use crate::settings::{Service, ServiceName, Setting as _};
use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Subcommand, ValueHint};
use std::ffi::OsString;
use std::path::PathBuf;

/// What to do with a service.
#[derive(Debug, Subcommand)]
pub(crate) enum ServiceSwitch {
    /// Start a service now and at boot
    Enable {
        /// server, workers, scheduler, monitor, or one of services.extra
        #[arg(value_name = "NAME", value_parser = one_service)]
        service: ServiceName,
    },
    /// Stop a service and no longer start it
    Disable {
        /// server, workers, scheduler, monitor, or one of services.extra
        #[arg(value_name = "NAME", value_parser = one_service)]
        service: ServiceName,
    },
}

/// Flags of `logs`.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Which services.
    #[command(flatten)]
    pub(crate) chosen: Services,
    /// Keep printing new lines until interrupted
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only lines since T, such as "09:30", "2026-11-21 09:30", "1 hour ago" or today
    #[arg(long, value_name = "T")]
    pub(crate) since: Option<String>,
    /// Only the last N lines [default: 100, or all since T]
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) lines: Option<u32>,
}

/// Flags of `history`.
#[derive(Debug, Args)]
pub(crate) struct HistoryFlags {
    /// Only what began since T, such as "09:30", "2026-11-21 09:30", "1 hour ago" or yesterday
    #[arg(long, value_name = "T")]
    pub(crate) since: Option<String>,
    /// Also check that no line was removed, changed or moved, and that the system's log and the backups agree
    #[arg(long)]
    pub(crate) verify: bool,
}

/// Flags of `top`.
#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Refresh every S seconds
    #[arg(short = 'd', long, value_name = "S", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) seconds: u32,
    /// Print once, even on a terminal
    #[arg(long)]
    pub(crate) once: bool,
}

/// What to do with maintenance.
#[derive(Debug, Subcommand)]
pub(crate) enum MaintenanceCommand {
    /// Show visitors a maintenance page, and tablets a message, until a time
    #[command(after_help = "\
Apache answers visitors with status 503, Retry-After and a page. Tablets show the text as an error of the server and keep
their data. The services go on running, and `install`, `upgrade` and `doctor` still reach the site through Apache.

Apache compares the end with its own clock: maintenance ends on time, also after a reboot.")]
    On {
        /// When it ends: "18:30", "2026-12-01 06:00", 30min, 2h, "tomorrow 07:00"; at most 7 days from now
        #[arg(long, value_name = "T", default_value = "1h")]
        until: String,
        /// What visitors and tablets are told
        #[arg(long, value_name = "TEXT", default_value = "CamCOPS is down for maintenance.")]
        message: String,
    },
    /// Let visitors and tablets in again
    Off,
}

/// Flags of `support-bundle`.
#[derive(Debug, Args)]
pub(crate) struct Support {
    /// Output file [default: camcops-support-INSTANCE-TIME.tar.gz in the current directory]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) out: Option<PathBuf>,
    /// Do not ask before the file is written
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// Flags of `status`.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Exit with 2 if changes are pending
    #[arg(long)]
    pub(crate) exit_code: bool,
    /// Write a page of HTML with what status, doctor and stats know, and plots of the last day and month; - is standard output
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) html: Option<PathBuf>,
}

/// Flags of `doctor`.
#[derive(Debug, Default, Args)]
#[command(after_help = "\
Exit status: 0 no check failed, though there may be warnings; 1 a check failed.
With --monitoring, that of a monitoring plugin: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.")]
pub(crate) struct Doctor {
    /// Checks to run, by id or by the first word of several, such as web [default: all except e2e (--end-to-end) and database.index]
    #[arg(value_name = "CHECK")]
    pub(crate) checks: Vec<String>,
    /// Run the checks that make sense before an install; install runs them on a new machine
    #[arg(long, conflicts_with = "end_to_end")]
    pub(crate) preflight: bool,
    /// Check the site as its users see it: login page, tablet request, workers, scheduler, PDF
    #[arg(long)]
    pub(crate) end_to_end: bool,
    /// Skip this check, by id or by the first word of several; repeatable
    #[arg(long, value_name = "CHECK", value_delimiter = ',')]
    pub(crate) ignore: Vec<String>,
    /// List the checks without running them
    #[arg(long)]
    pub(crate) list: bool,
    /// Print one line and exit as a monitoring plugin, for Nagios, Icinga and similar
    #[arg(long, conflicts_with = "json")]
    pub(crate) monitoring: bool,
    /// Write the results in Prometheus' text format, for its textfile collector (- for standard output)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, num_args = 0..=1, default_missing_value = "-")]
    pub(crate) metrics: Option<PathBuf>,
}

/// Flags of `vulnerabilities`.
#[derive(Debug, Args)]
#[command(after_help = "\
Nothing is downloaded, except by debsecan where that is installed and network.offline is not set. Advisories are OSV's JSON
(`all.zip` of PyPI, crates.io and the distribution from osv.dev, unpacked), debsecan's data or its list. Those in
/var/lib/camcops-provision/advisories are always read; `bundle create --advisories` adds them to a bundle.

Exit status: 0 no advisory is open, and all parts were checked against advisories that are recent enough; 1 advisories are open;
65 a file cannot be read (its line is named); 69 unknown: no advisories, none for a part of the site, or they are too old.")]
pub(crate) struct Vulnerabilities {
    /// File or directory with advisories; repeatable
    #[arg(long, value_name = "FILE", value_hint = ValueHint::AnyPath)]
    pub(crate) advisories: Vec<PathBuf>,
}

/// Flags of `wait`.
#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// What to wait for [default: everything that this machine serves]
    #[arg(long = "for", value_enum, value_delimiter = ',', value_name = "ROLE,..")]
    pub(crate) roles: Vec<Backend>,
    /// Give up after S seconds with exit status 69; 0 tries once
    #[arg(long, value_name = "S", default_value_t = 120)]
    pub(crate) timeout: u32,
}

/// Which services.
#[derive(Debug, Args)]
pub(crate) struct Services {
    /// server, workers, scheduler, monitor, or one of services.extra [default: all]
    #[arg(value_name = "SERVICE", value_parser = one_service)]
    pub(crate) services: Vec<ServiceName>,
}

/// What a program of supervisor is started as.
#[derive(Debug, Args)]
pub(crate) struct WithEnvironment {
    /// Whose variables
    #[arg(value_parser = one_service)]
    pub(crate) service: ServiceName,
    /// The account of the program
    #[arg(long, value_name = "USER")]
    pub(crate) account: String,
    /// The group of the program [default: the account's own]
    #[arg(long)]
    pub(crate) group: Option<String>,
    /// The program
    #[arg(last = true, value_name = "CMD", required = true)]
    pub(crate) words: Vec<OsString>,
}

/// The settings know which there are.
pub(crate) fn one_service(name: &str) -> Result<ServiceName> {
    ServiceName::from_text(name)
        .map_err(|_| anyhow!("choose from server, workers, scheduler, monitor and services.extra"))
}

/// More processes than any machine has use for.
pub(crate) const MOST: u32 = 256;
/// The largest value of `workers.instances`.
const MOST_INSTANCES: u32 = 16;

/// How many of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wish {
    /// The web server or the workers.
    pub(crate) service: Service,
    /// How many processes; nothing for as many as the machine takes.
    pub(crate) processes: Option<u32>,
    /// How many services with so many each.
    pub(crate) instances: u32,
}

/// Reads `server=4`, `workers=auto`, `workers=2x4`.
pub(crate) fn parse_wish(text: &str) -> Result<Wish> {
    let allowed = "write server=N, workers=N or workers=MxN, for M services with N processes each; N is 1 to 256, or auto, M is 1 to 16";
    let (service, number) = text.split_once('=').context(allowed)?;
    let service = match service {
        "server" => Service::Server,
        "workers" => Service::Workers,
        "scheduler" | "monitor" => bail!("the {service} has exactly one process"),
        _ => bail!(allowed),
    };
    let (instances, number) = match number.split_once('x') {
        Some((instances, number)) if service == Service::Workers => match instances.parse() {
            Ok(instances @ 1..=MOST_INSTANCES) => (instances, number),
            _ => bail!(allowed),
        },
        _ => (1, number),
    };
    let processes = match number {
        "auto" => None,
        _ => match number.parse() {
            Ok(number @ 1..=MOST) => Some(number),
            _ => bail!(allowed),
        },
    };
    Ok(Wish { service, processes, instances })
}
