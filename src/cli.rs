//! Commands and flags, nothing else.

use crate::base::terminal::{Color, Style};
use crate::host::secrets;
use crate::layout;
use crate::probe::Role;
use crate::resource::Part;
use crate::settings::{Pruning, Service, ServiceName, Setting};
use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueHint};
use std::ffi::OsString;
use std::path::PathBuf;

/// Installs and operates a CamCOPS server natively: files by the FHS, systemd or supervisor, Apache, without containers.
#[derive(Debug, Parser)]
#[command(
    name = "camcops-provision",
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    propagate_version = true
)]
#[command(after_help = "\
Exit codes: 0 done, or nothing to do; 1 something failed; 2 changes are pending (--exit-code);
64 usage; 65 unusable input; 69 unreachable; 73 something is in the way; 74 I/O;
75 another run holds the lock; 77 not root; 78 bad settings.

On a new machine begin with `camcops-provision plan`: it changes nothing. Where a site is broken, with `doctor`.")]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What holds for every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Settings file [default: /etc/camcops/provision.toml; for instance NAME provision_NAME.toml]; *.toml in the folder of the same name ending in .d are merged in
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// Override one setting (dotted key); repeatable
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Which instance, by its name
    #[arg(long, global = true, value_name = "NAME", default_value = layout::DEFAULT_INSTANCE, value_parser = layout::instance)]
    pub(crate) instance: String,
    /// Act on a staged tree under DIR: files only; what needs a running machine is listed for the first boot
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) root: Option<PathBuf>,
    /// One JSON document on standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// Say more
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// Only results and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// When to use colours
    #[arg(long, global = true, value_enum, default_value = "auto")]
    pub(crate) color: Color,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Ask a few questions and write the settings file (on a terminal)
    Init,
    /// Make the machine what the settings say; run it again at any time
    Install(Install),
    /// Show what install would do, and why; changes nothing
    Plan(Plan),
    /// Show what is installed, and what differs from the plan
    Status(Status),
    /// Look for what is wrong, by named checks, and say what mends it
    Doctor(Doctor),
    /// Wait until database, broker and web server answer: a real login, a real handshake, a real page
    Wait(Wait),
    /// Log in to the database as the account that runs this, without a password; `wait` uses it
    #[command(hide = true)]
    Login {
        /// The socket of the database server
        socket: PathBuf,
        /// The account in the database
        user: String,
        /// The database
        database: String,
    },
    /// Start the services of the instance and wait until they answer
    Start(Services),
    /// Stop the services of the instance
    Stop(Services),
    /// Restart the services of the instance and wait until they answer; visitors wait meanwhile
    Restart(Services),
    /// Let services read what has changed since they started; those that are up to date go on undisturbed
    Reload(Services),
    /// Change how many processes the web server or the workers have, now and for good
    Scale {
        /// server=N or workers=N; auto is what the machine bears
        #[arg(required = true, value_name = "SERVICE=N", value_parser = wish)]
        wishes: Vec<Wish>,
    },
    /// Switch services on and off, now and for good
    #[command(subcommand)]
    Service(ServiceSwitch),
    /// Read what the services have logged
    Logs(Logs),
    /// Show what the services use, again and again on a terminal, else once
    Top(Top),
    /// Tell what the services use, process by process, with the queue and the connections to the database
    Stats,
    /// Show where in its code each process of the services is, for one that is stuck
    Traceback(Services),
    /// Break export locks whose owners are dead; the services run it before they start, and a timer
    #[command(hide = true)]
    BreakLocks,
    /// Send exports that the broker could not be told of in time; a timer runs it
    #[command(hide = true)]
    CatchUp,
    /// Start a service as its account with the administrator's own variables; supervisor runs it
    #[command(hide = true)]
    WithEnvironment(WithEnvironment),
    /// Run a command of CamCOPS with the configuration of the instance, as the account of the services
    Run {
        /// What camcops_server is given
        #[arg(last = true, value_name = "ARGS", required = true)]
        arguments: Vec<OsString>,
    },
    /// Run any program in the surroundings of the services
    Exec {
        /// The program and what it is given
        #[arg(last = true, value_name = "CMD", required = true)]
        words: Vec<OsString>,
    },
    /// Open a shell in the surroundings of the services
    Shell {
        /// As root instead of the account of the services
        #[arg(long)]
        as_root: bool,
    },
    /// Write what a helper needs to know of the site into one file: no password, nothing of a patient
    SupportBundle(Support),
    /// One file with all that an installation fetches, for a machine without a network
    #[command(subcommand)]
    Bundle(Bundle),
    /// What concerns the database
    #[command(subcommand)]
    Db(Db),
    /// Help users of CamCOPS who can't log in
    #[command(subcommand)]
    User(User),
    /// The certificate that the site shows to tablets and browsers
    #[command(subcommand)]
    Cert(Cert),
    /// The passwords of a site, and the secret of its cookies
    #[command(subcommand)]
    Secret(Secret),
    /// Make, check, bring back and clear away backups of the site
    #[command(subcommand)]
    Backup(Backup),
    /// Change to another version of CamCOPS, and back by itself if that does not work
    Upgrade(Upgrade),
    /// Go back to the release from before the last upgrade
    Rollback(Rollback),
    /// Which releases of CamCOPS are on this machine
    #[command(subcommand)]
    Releases(Releases),
    /// Undo everything that install made and that is still as it made it
    Uninstall(Uninstall),
    /// Read, check and change the settings
    #[command(subcommand)]
    Config(Config),
    /// Show where everything is
    Paths,
    /// Show the addresses of the site
    Urls,
    /// Show the ports that the settings name, and who listens there
    Ports,
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a directory
    Man {
        /// Where to; it is made if needed
        #[arg(value_hint = ValueHint::DirPath)]
        directory: PathBuf,
    },
}

/// What concerns the database.
#[derive(Debug, Subcommand)]
pub(crate) enum Db {
    /// Open the client of the database, logged in as the application
    Shell,
    /// Bring the tables to the revision of the installed release, after a dump
    Upgrade {
        /// Only show the SQL that CamCOPS would run
        #[arg(long)]
        show_sql: bool,
    },
    /// Look at the database as doctor does, and at CamCOPS's own index too
    #[command(
        after_help = "Exit codes: 0 nothing has failed, though there may be warnings; 1 a check has failed."
    )]
    Check {
        /// First give every table the collation of CamCOPS, after a dump; the services are stopped meanwhile
        #[arg(long)]
        fix_collation: bool,
    },
    /// Make the account that may only read, for whoever analyses the data
    GrantReadonly(GrantReadonly),
    /// Remove everything in the database, after a dump, and make it anew as install does
    Reset(Reset),
    /// Copy the database for research or training, without what says who a patient is; never in place
    Anonymise(Anonymise),
}

/// Flags of `db anonymise`.
#[derive(Debug, Args)]
#[command(after_help = "\
The site goes on meanwhile. Only administrators of the server can read the copy, until they give it away by a dump or a grant;
DROP DATABASE removes it. Dates, rare diagnoses and small groups may still tell who somebody is: treat the copy as your rules
for pseudonymised data say.")]
pub(crate) struct Anonymise {
    /// The name of the copy, a database that is not there yet
    #[arg(long, value_name = "DATABASE")]
    pub(crate) to: String,
}

/// Flags of `db grant-readonly`.
#[derive(Debug, Args)]
pub(crate) struct GrantReadonly {
    /// The account [default: the one in database.readonly_user, or the application's with _reports]
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// Where it comes from, such as 10.0.0.5 or 10.0.0.% [default: this machine]
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,
    /// Where its password comes from.
    #[command(flatten)]
    pub(crate) password: GivenPassword,
}

/// A password that may be given, and is made otherwise.
#[derive(Debug, Args)]
pub(crate) struct GivenPassword {
    /// A file that only root can read and that holds the password, or - for standard input or the terminal [default: the
    /// one that is kept, or a new one]
    #[arg(long, value_name = "FILE|-", value_hint = ValueHint::FilePath)]
    pub(crate) password_file: Option<PathBuf>,
}

/// Flags of `db reset`.
#[derive(Debug, Args)]
pub(crate) struct Reset {
    /// The name of the database that is to be emptied
    #[arg(long, value_name = "DATABASE")]
    pub(crate) confirm: Option<String>,
    /// Also if there are patients or tasks in it
    #[arg(long)]
    pub(crate) destroy_clinical_data: bool,
    /// Make this user of CamCOPS, who may do everything
    #[arg(long, value_name = "NAME")]
    pub(crate) superuser: Option<String>,
    /// The password of that user, the first line of a file; - is standard input
    #[arg(long, value_name = "FILE|-", value_hint = ValueHint::FilePath)]
    pub(crate) superuser_password_file: Option<PathBuf>,
}

/// What to do with the certificate.
#[derive(Debug, Subcommand)]
pub(crate) enum Cert {
    /// Show the certificate, its chain, and the fingerprints of those before it
    Show,
    /// Print a request for an authority to sign; the key stays on this machine
    Csr {
        /// With a new key, which takes the place of the present one when its certificate is installed
        #[arg(long)]
        new_key: bool,
    },
    /// Check a certificate that an authority issued, and serve it from now on
    Install(CertInstall),
    /// Make the self-signed certificate anew, or have certbot renew its one where that is due
    Renew {
        /// With a new key
        #[arg(long)]
        new_key: bool,
        /// Also where certbot's one is not due
        #[arg(long)]
        force: bool,
    },
    /// Meet the site as a tablet does, and say what a tablet would say
    Verify {
        /// The name to go to [default: the main name of the site]
        #[arg(long, value_name = "NAME")]
        host: Option<String>,
        /// The port to go to [default: web.https_port]
        #[arg(long, value_name = "PORT")]
        port: Option<u16>,
    },
}

/// Flags of `cert install`.
#[derive(Debug, Args)]
pub(crate) struct CertInstall {
    /// The certificate, PEM; its chain may follow in the same file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, required_unless_present = "from_certbot")]
    pub(crate) cert: Option<PathBuf>,
    /// The certificates between it and the authority, PEM
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) chain: Option<PathBuf>,
    /// Its key, PEM [default: the key that the request was made with]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) key: Option<PathBuf>,
    /// What certbot has for this site by now, with tls.mode = "certbot"; certbot runs this after each renewal
    #[arg(long, conflicts_with_all = ["cert", "chain", "key"])]
    pub(crate) from_certbot: bool,
}

/// What to do with a service.
#[derive(Debug, Subcommand)]
pub(crate) enum ServiceSwitch {
    /// Start a service, now and at boot
    Enable {
        /// server, workers, scheduler, monitor, or one of services.extra
        #[arg(value_name = "NAME", value_parser = one_service)]
        service: ServiceName,
    },
    /// Stop a service, and leave it out from now on
    Disable {
        /// server, workers, scheduler, monitor, or one of services.extra
        #[arg(value_name = "NAME", value_parser = one_service)]
        service: ServiceName,
    },
}

/// What to do with bundles.
#[derive(Debug, Subcommand)]
pub(crate) enum Bundle {
    /// Fetch everything on a machine with a network and of the same kind, and write it into one file; nothing is installed
    #[command(after_help = "\
The sums in a bundle show what was damaged on its way. That nobody has exchanged it, show the SHA-256 that is printed
here, compared by other means, or a signature: whoever can change it decides what is installed.")]
    Create(BundleCreate),
    /// Hold every file in a bundle against its sum, and say whether it is for this machine
    Verify {
        /// The bundle
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
}

/// Flags of `bundle create`.
#[derive(Debug, Args)]
pub(crate) struct BundleCreate {
    /// Where to; beside it there has to be room for twice as much
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) out: PathBuf,
    /// Take CamCOPS and its Python packages from the files in DIR
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) wheelhouse: Option<PathBuf>,
}

/// What to do with secrets.
#[derive(Debug, Subcommand)]
pub(crate) enum Secret {
    /// Show where each secret is kept, since when, and whose it is; never the secret
    List,
    /// Make a secret anew and bring it everywhere, while the site is in use: broker lets visitors wait some seconds, cookie logs everybody out
    Rotate {
        /// Which one
        #[arg(value_enum)]
        name: secrets::Name,
        /// Don't ask before everybody is logged out
        #[arg(short, long)]
        yes: bool,
    },
}

/// What to do with backups.
#[derive(Debug, Subcommand)]
pub(crate) enum Backup {
    /// Back up the database, with configuration, secrets, certificate and the site's own files, while the site runs
    Create {
        /// For the timer: clear away afterwards what backup.prune says
        #[arg(long, hide = true)]
        scheduled: bool,
    },
    /// Show the backups that there are
    List,
    /// Check a backup: its sums, and whether it can be loaded, in a database of its own
    Verify {
        /// Which one: its name, its path, or latest [default: latest]
        #[arg(value_name = "NAME", value_hint = ValueHint::DirPath)]
        name: Option<String>,
        /// Check sums and contents only, without a database
        #[arg(long)]
        quick: bool,
        /// Who can read it.
        #[command(flatten)]
        identity: Identity,
    },
    /// Put what a backup has in the place of what is there; on a machine without a site, make the site again
    Restore(Restore),
    /// Clear away backups that are no longer wanted, never the newest one
    Prune {
        /// Only show what would go
        #[arg(long)]
        dry_run: bool,
        /// Which ones stay [default: as backup.prune says] [possible values: never, generations, first-of-month]
        #[arg(long, value_name = "RULE", value_parser = one_rule)]
        rule: Option<Pruning>,
    },
}

fn one_rule(name: &str) -> Result<Pruning, String> {
    let found = Pruning::ALL.iter().find(|one| one.as_str() == name);
    found
        .copied()
        .ok_or_else(|| "choose from never, generations and first-of-month".into())
}

/// Who can read an encrypted backup.
#[derive(Debug, Args)]
pub(crate) struct Identity {
    /// The file with the identity of age that can read it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) identity: Option<PathBuf>,
}

/// Flags of `backup restore`.
#[derive(Debug, Args)]
#[command(after_help = "\
On a new machine: install camcops-provision, copy the whole directory of the backup there, and restore it by its path, with
--confirm; settings, secrets and certificate come from the backup, and everything is installed.
A backup decides what runs here, as settings do: restore none whose way you don't know.")]
pub(crate) struct Restore {
    /// A backup: its name, its path, or latest; or a dump of the database, plain, by gzip or by zstd
    #[arg(value_name = "NAME|FILE", value_hint = ValueHint::AnyPath)]
    pub(crate) what: String,
    /// The name of the database that is to be replaced; always wanted
    #[arg(long, value_name = "DATABASE")]
    pub(crate) confirm: Option<String>,
    /// Also replace settings, secrets, certificate and the site's own files by those of the backup
    #[arg(long)]
    pub(crate) with_configuration: bool,
    /// Who can read it.
    #[command(flatten)]
    pub(crate) identity: Identity,
}

/// What to do for a user of CamCOPS.
#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// Make a superuser; a user that is there becomes one and keeps the password
    Superuser {
        /// Which user.
        #[command(flatten)]
        user: UserFlags,
        /// Where its password comes from.
        #[command(flatten)]
        password: PasswordFlags,
    },
    /// Give a user a new password
    ResetPassword {
        /// Which user.
        #[command(flatten)]
        user: UserFlags,
        /// Where its password comes from.
        #[command(flatten)]
        password: PasswordFlags,
    },
    /// Let a user in again who was locked out after too many wrong passwords
    Enable {
        /// Which user.
        #[command(flatten)]
        user: UserFlags,
    },
}

/// Which user.
#[derive(Debug, Args)]
pub(crate) struct UserFlags {
    /// The user's name
    pub(crate) name: String,
}

/// Where a password comes from.
#[derive(Debug, Args)]
pub(crate) struct PasswordFlags {
    /// A file that only root can read and that holds the password, or - for standard input [default: asked for on the
    /// terminal]
    #[arg(long, value_name = "FILE|-", value_hint = ValueHint::FilePath)]
    pub(crate) password_file: Option<PathBuf>,
}

/// Flags of `logs`.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Which services.
    #[command(flatten)]
    pub(crate) chosen: Services,
    /// Go on with what they log from now on, until interrupted
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only what was logged since then: "09:30", "2026-11-21 09:30", "1 hour ago", today
    #[arg(long, value_name = "T")]
    pub(crate) since: Option<String>,
    /// No more than the last N lines [default: 100, or all since T]
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) lines: Option<u32>,
}

/// Flags of `top`.
#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Measure anew every S seconds
    #[arg(short = 'd', long, value_name = "S", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) seconds: u32,
    /// Print it once, on a terminal too
    #[arg(long)]
    pub(crate) once: bool,
}

/// Flags of `support-bundle`.
#[derive(Debug, Args)]
pub(crate) struct Support {
    /// Where to [default: camcops-support-INSTANCE-TIME.tar.gz here]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) out: Option<PathBuf>,
    /// Don't ask before it is written
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// Which parts of an installation.
#[derive(Debug, Clone, Args)]
pub(crate) struct Parts {
    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART,..")]
    pub(crate) only: Vec<Part>,
    /// All but these parts
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "PART,..",
        conflicts_with = "only"
    )]
    pub(crate) skip: Vec<Part>,
    /// Take over files that somebody else put where ours belong; uninstall brings them back
    #[arg(long)]
    pub(crate) adopt: bool,
}

impl Parts {
    /// Whether a part was asked for.
    pub(crate) fn include(&self, part: Part) -> bool {
        (self.only.is_empty() || self.only.contains(&part)) && !self.skip.contains(&part)
    }

    /// Whether everything was asked for.
    pub(crate) fn whole(&self) -> bool {
        self.only.is_empty() && self.skip.is_empty()
    }
}

/// Where CamCOPS and its Python packages come from, for this one run.
#[derive(Debug, Clone, Args)]
pub(crate) struct Origin {
    /// Open no connection to fetch anything; what is missing is named
    #[arg(long)]
    pub(crate) offline: bool,
    /// Take CamCOPS and its Python packages from the files in DIR
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) wheelhouse: Option<PathBuf>,
    /// Take CamCOPS, its Python packages and those of the distribution from a file that `bundle create` made
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "wheelhouse")]
    pub(crate) bundle: Option<PathBuf>,
}

/// Flags of `install`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Install {
    /// Don't ask before the first change
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Where CamCOPS comes from.
    #[command(flatten)]
    pub(crate) origin: Origin,
    /// Make this user of CamCOPS, who may do everything; one that is there is left as it is
    #[arg(long, value_name = "NAME")]
    pub(crate) superuser: Option<String>,
    /// The password of that user, the first line of a file; - is standard input
    #[arg(long, value_name = "FILE|-", value_hint = ValueHint::FilePath)]
    pub(crate) superuser_password_file: Option<PathBuf>,
    /// For the hook of a package: see to every instance that is installed or asked for; what can't be done now is named, stays pending, and is no failure
    #[arg(long, conflicts_with_all = ["only", "skip", "adopt"])]
    pub(crate) from_package: bool,
    /// Finish what --from-package left pending; nothing if nothing is
    #[arg(long, conflicts_with_all = ["only", "skip", "adopt", "from_package"])]
    pub(crate) pending: bool,
    /// Which parts.
    #[command(flatten)]
    pub(crate) parts: Parts,
}

/// Flags of `plan`.
#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// Show how the content of each file would change
    #[arg(long)]
    pub(crate) diff: bool,
    /// Exit with 2 if changes are pending
    #[arg(long)]
    pub(crate) exit_code: bool,
    /// Write the plan to a file too, as JSON
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) out: Option<PathBuf>,
    /// Where CamCOPS would come from.
    #[command(flatten)]
    pub(crate) origin: Origin,
    /// Which parts.
    #[command(flatten)]
    pub(crate) parts: Parts,
}

/// Flags of `status`.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Exit with 2 if changes are pending
    #[arg(long)]
    pub(crate) exit_code: bool,
}

/// Flags of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 nothing has failed, though there may be warnings; 1 a check has failed.
With --monitoring, as monitoring plugins do: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.")]
pub(crate) struct Doctor {
    /// Which checks, by id or by the first word of several, such as web [default: all but e2e (--end-to-end) and database.index (name it)]
    #[arg(value_name = "CHECK")]
    pub(crate) checks: Vec<String>,
    /// What can be known before an install; install itself asks it of a new machine
    #[arg(long, conflicts_with = "end_to_end")]
    pub(crate) preflight: bool,
    /// What users meet: the login page, a tablet's question, workers, scheduler, a PDF
    #[arg(long)]
    pub(crate) end_to_end: bool,
    /// Name the checks and run none
    #[arg(long)]
    pub(crate) list: bool,
    /// One line and the exit codes of a monitoring plugin, for Nagios, Icinga and their like
    #[arg(long, conflicts_with = "json")]
    pub(crate) monitoring: bool,
    /// Write what was found in Prometheus' text format, for its textfile collector; - is standard output
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, num_args = 0..=1, default_missing_value = "-")]
    pub(crate) metrics: Option<PathBuf>,
}

/// Flags of `wait`.
#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// What to wait for [default: all that this machine serves]
    #[arg(
        long = "for",
        value_enum,
        value_delimiter = ',',
        value_name = "ROLE,.."
    )]
    pub(crate) roles: Vec<Role>,
    /// Give up after S seconds, with exit code 69; 0 tries once
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
fn one_service(name: &str) -> Result<ServiceName, String> {
    ServiceName::from_text(name)
        .map_err(|_| "choose from server, workers, scheduler, monitor and services.extra".into())
}

/// Flags of `upgrade`.
#[derive(Debug, Args)]
pub(crate) struct Upgrade {
    /// The version [default: the newest that this program knows]
    #[arg(long, value_name = "V")]
    pub(crate) to: Option<String>,
    /// Only tell what would be done, and what stands in the way
    #[arg(long)]
    pub(crate) check: bool,
    /// Exit with 2 if there is something to upgrade
    #[arg(long, requires = "check")]
    pub(crate) exit_code: bool,
    /// Don't ask before the first change
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Where the new release comes from.
    #[command(flatten)]
    pub(crate) origin: Origin,
}

/// Flags of `rollback`.
#[derive(Debug, Args)]
#[command(after_help = "\
camcops.version in the settings becomes the version that is gone back to; `upgrade` tries again. Where the upgrade changed the
tables, and something was entered since, that is refused without --confirm.")]
pub(crate) struct Rollback {
    /// Don't ask before the first change
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// The name of the database whose new data is to be given up: what was entered since the upgrade stays in a dump only
    #[arg(long, value_name = "DATABASE")]
    pub(crate) confirm: Option<String>,
    /// Where the old release comes from, if it has to be built again.
    #[command(flatten)]
    pub(crate) origin: Origin,
}

/// What to do with releases.
#[derive(Debug, Subcommand)]
pub(crate) enum Releases {
    /// Show each with its version, its Python, its size and what it is for
    List,
    /// Remove those that nobody needs; never the current one, nor the one that rollback goes back to
    Prune(Prune),
}

/// Flags of `releases prune`.
#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Keep the N newest of those that nobody needs
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) keep: usize,
    /// Only tell what would go
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Flags of `uninstall`.
#[derive(Debug, Args)]
pub(crate) struct Uninstall {
    /// Don't ask before the first change
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Remove the data too: the database after a dump of it, the accounts, the vhost, the site's directories
    #[arg(long, requires = "confirm")]
    pub(crate) purge: bool,
    /// The name of the instance whose data is to be removed
    #[arg(long, value_name = "NAME", requires = "purge")]
    pub(crate) confirm: Option<String>,
}

/// What to do with the settings.
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Show every setting with its value and where that comes from
    Show {
        /// Only those that somebody set
        #[arg(long)]
        changed: bool,
    },
    /// Print the value of one setting
    Get {
        /// Dotted key, such as web.https_port
        key: String,
    },
    /// Change settings in the file, all of them or none; comments and order stay
    #[command(after_help = "\
A secret of CamCOPS, such as config.site.EMAIL_HOST_PASSWORD, is never an argument: `config set KEY` asks for it, `config set KEY -`
reads it from standard input. It is put into a file for root alone, and the setting KEY_file names that.")]
    Set {
        /// Dotted key and new value; repeatable. A secret has no value here
        #[arg(required = true, num_args = 1.., value_names = ["KEY", "VALUE"])]
        pairs: Vec<String>,
        /// Take one secret from this file (- for standard input)
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        from_file: Option<PathBuf>,
    },
    /// Take one setting out of the file, back to its default
    Unset {
        /// Dotted key
        key: String,
    },
    /// Open the file in your editor and check it before it is saved
    Edit,
    /// Check the settings; all problems at once
    Validate,
    /// Print a file as install would write it, secrets masked
    Render {
        /// Its path, or the end of it [default: CamCOPS's own configuration]
        path: Option<String>,
    },
    /// Print the settings file with every key, its meaning and its default
    Keys,
}

/// More processes than any machine has use for.
pub(crate) const MOST: u32 = 256;

/// How many of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wish {
    /// The web server or the workers.
    pub(crate) service: Service,
    /// How many processes; nothing for as many as the machine takes.
    pub(crate) processes: Option<u32>,
}

/// Reads `server=4`, `workers=auto`.
pub(crate) fn wish(text: &str) -> Result<Wish, String> {
    let allowed = || "write server=N or workers=N; N is 1 to 256, or auto".to_owned();
    let (service, number) = text.split_once('=').ok_or_else(allowed)?;
    let service = match service {
        "server" => Service::Server,
        "workers" => Service::Workers,
        "scheduler" | "monitor" => {
            return Err(format!(
                "there is one {service}, and more would do its work twice"
            ));
        }
        _ => return Err(allowed()),
    };
    let processes = match number {
        "auto" => None,
        _ => match number.parse() {
            Ok(number @ 1..=MOST) => Some(number),
            _ => return Err(allowed()),
        },
    };
    Ok(Wish { service, processes })
}

impl Style {
    /// What the command line asks for.
    pub(crate) fn of(global: &Global) -> Style {
        Style {
            color: global.color.wanted() && !global.json,
            json: global.json,
            quiet: global.quiet,
            verbose: global.verbose,
        }
    }
}
