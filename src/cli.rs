//! Commands and flags, nothing else.

mod daily;
mod data;
mod site;

use crate::base::progress::ProgressMode;
use crate::base::terminal::{Color, Style};
use crate::layout;
use clap::{Args, Parser, Subcommand, ValueHint};
use std::ffi::OsString;
use std::path::PathBuf;

pub(crate) use daily::*;
pub(crate) use data::*;
pub(crate) use site::*;

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
    #[arg(long, global = true, value_name = "NAME", default_value = layout::DEFAULT_INSTANCE, value_parser = layout::parse_instance)]
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
    /// How to show the progress of long work
    #[arg(long, global = true, value_enum, value_name = "HOW", default_value = "auto")]
    pub(crate) progress: ProgressMode,
    /// When to use colours
    #[arg(long, global = true, value_enum, default_value = "auto")]
    pub(crate) color: Color,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Ask a few questions and write the settings file (on a terminal)
    Init,
    /// Install CamCOPS, or bring the machine in line with the settings
    Install(Install),
    /// Show what install would do, and why; changes nothing
    Plan(PlanFlags),
    /// Show what is installed, and what differs from the plan
    Status(Status),
    /// Find problems and say how to fix them
    Doctor(Doctor),
    /// Hold what the site is made of against published advisories, from files, and say what ends each
    Vulnerabilities(Vulnerabilities),
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
        /// server=N or workers=N; auto: as many as the machine can carry
        #[arg(required = true, value_name = "SERVICE=N", value_parser = parse_wish)]
        wishes: Vec<Wish>,
    },
    /// Switch services on and off, now and for good
    #[command(subcommand)]
    Service(ServiceSwitch),
    /// Show visitors a maintenance page for a limited time
    #[command(subcommand)]
    Maintenance(MaintenanceCommand),
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
    /// Run any program as the services run: same account, environment and Python
    Exec {
        /// The program and what it is given
        #[arg(last = true, value_name = "CMD", required = true)]
        words: Vec<OsString>,
    },
    /// Open a shell as the services run: same account, environment and Python
    Shell {
        /// As root instead of the account of the services
        #[arg(long)]
        as_root: bool,
    },
    /// Write what a helper needs to know of the site into one file: no password, nothing of a patient
    SupportBundle(Support),
    /// One file with all that an installation fetches, for a machine without a network
    #[command(subcommand)]
    Bundle(BundleCommand),
    /// Manage the database
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
    Secret(SecretCommand),
    /// Make, check, bring back and clear away backups of the site
    #[command(subcommand)]
    Backup(Backup),
    /// Change to another version of CamCOPS, and back by itself if that does not work
    Upgrade(UpgradeFlags),
    /// Go back to the release from before the last upgrade
    Rollback(Rollback),
    /// Which releases of CamCOPS are on this machine
    #[command(subcommand)]
    Releases(Releases),
    /// Undo everything that install made and that is still as it made it
    Uninstall(Uninstall),
    /// Read, check and change the settings
    #[command(subcommand)]
    Config(ConfigCommand),
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

/// What to do with the settings.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
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
