//! Commands and flags, nothing else.

mod daily;
mod data;
mod examples;
mod hints;
mod site;

use crate::base::progress::ProgressMode;
use crate::base::terminal::{Color, Style};
use crate::layout;
use crate::settings::ServiceName;
use clap::error::Error;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueHint};
use std::ffi::OsString;
use std::path::PathBuf;

pub(crate) use daily::*;
pub(crate) use data::*;
pub(crate) use examples::examples_of;
pub(crate) use site::*;

/// Installs and operates a CamCOPS server without containers: packages, database, broker, services and Apache
#[derive(Debug, Parser)]
#[command(
    name = "camcops-provision",
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    propagate_version = true
)]
#[command(after_help = "\
Exit status: 0 done, or nothing to do; 1 something failed; 2 changes are pending (--exit-code);
64 usage; 65 unusable input; 69 unreachable; 73 something is in the way; 74 I/O;
75 another run holds the lock; 77 not root; 78 bad settings.

On a new machine start with `camcops-provision plan`, which changes nothing. If a site is broken, start with `doctor`.")]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands with their flags, and with examples in their help.
pub(crate) fn build_command() -> clap::Command {
    examples::add_examples(Cli::command(), "")
}

impl Cli {
    /// Reads a command line. Help and the version are an error that is for standard output.
    pub fn parse_words(words: impl IntoIterator<Item = impl Into<OsString>>) -> Result<Cli, Error> {
        let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
        let texts = || words.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>();
        let matches = match build_command().try_get_matches_from(&words) {
            Err(why) if hints::asks_for_version(&why, &texts()) => {
                build_command().try_get_matches_from(["camcops-provision", "--version"])
            }
            matches => matches,
        };
        let matches = matches.map_err(|why| hints::improve_error(why, &texts()))?;
        Cli::from_arg_matches(&matches)
    }
}

/// What holds for every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Settings file [default: /etc/camcops/provision.toml, or provision_NAME.toml for instance NAME]; *.toml files in the directory of the same name ending in .d are merged in
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// Override one setting for this run (dotted key); repeatable
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Name of the instance
    #[arg(long, global = true, value_name = "NAME", default_value = layout::DEFAULT_INSTANCE, value_parser = layout::parse_instance)]
    pub(crate) instance: String,
    /// Work on a file tree under DIR, such as an image: files only; what needs a running machine is left to its first boot
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) root: Option<PathBuf>,
    /// Print one JSON document on standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// Print more details
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// Print only results and errors
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
    /// Show what install would do and why, without changing anything
    Plan(PlanFlags),
    /// Show what is installed and running, and what differs from the settings
    Status(Status),
    /// Find problems and say how to fix them
    Doctor(Doctor),
    /// Check the site's packages against published security advisories, read from files, and say how to fix each
    Vulnerabilities(Vulnerabilities),
    /// Wait until database, broker and web server answer a login, a handshake and a request for a page
    Wait(Wait),
    /// Log in to the database by its socket, as the account that runs this; `wait` uses it
    #[command(hide = true)]
    Login {
        /// The socket of the database server
        socket: PathBuf,
        /// The account in the database
        user: String,
        /// The database
        database: String,
    },
    /// Start services and wait until they answer
    Start(Services),
    /// Stop services
    Stop(Services),
    /// Restart services and wait until they answer; requests wait meanwhile
    Restart(Services),
    /// Restart only those running services whose configuration has changed since they started
    Reload(Services),
    /// Change the number of processes of the web server or the workers, now and permanently
    Scale {
        /// server=N, workers=N, or workers=MxN for M services of workers with N processes each; auto: as many as the
        /// machine can carry
        #[arg(required = true, value_name = "SERVICE=N", value_parser = parse_wish)]
        wishes: Vec<Wish>,
    },
    /// Enable or disable services, now and permanently
    #[command(subcommand)]
    Service(ServiceSwitch),
    /// Show visitors a maintenance page for a limited time
    #[command(subcommand)]
    Maintenance(MaintenanceCommand),
    /// Show the logs of the services
    Logs(Logs),
    /// Show who did what to the site, when, and how it ended
    History(HistoryFlags),
    /// Show what the services use, refreshed on a terminal, otherwise once
    Top(Top),
    /// Show what each process of the services uses, the task queue and the database connections
    Stats,
    /// Show where in its code each process of the services is, for one that hangs
    Traceback(Services),
    /// Remove export locks of processes that have ended; services and a timer run it
    #[command(hide = true)]
    BreakLocks,
    /// Queue exports that were missed while the broker was down; a timer runs it
    #[command(hide = true)]
    CatchUp,
    /// Keep a sample of the site, and write its metrics and its page; a timer runs it
    #[command(hide = true)]
    Observe,
    /// Start a service with the administrator's environment variables; supervisor runs it
    #[command(hide = true)]
    WithEnvironment(WithEnvironment),
    /// Run camcops_server with the configuration of the instance, as the account of the services
    Run {
        /// Start these services, or all, show what they log, and stop them again when interrupted (Ctrl-C)
        #[arg(long, value_name = "SERVICE", num_args = 0.., value_parser = one_service, conflicts_with = "arguments")]
        foreground: Option<Vec<ServiceName>>,
        /// Arguments of camcops_server
        #[arg(last = true, value_name = "ARGS", required_unless_present = "foreground")]
        arguments: Vec<OsString>,
    },
    /// Run any program as the services run: same account, environment and Python
    Exec {
        /// The program and its arguments
        #[arg(last = true, value_name = "CMD", required = true)]
        words: Vec<OsString>,
    },
    /// Open a shell as the services run: same account, environment and Python
    Shell {
        /// Run as root instead of the account of the services
        #[arg(long)]
        as_root: bool,
    },
    /// Collect versions, status, configuration and logs in one file for support, without passwords and patient data
    SupportBundle(Support),
    /// Prepare one file with everything that an installation downloads, for a machine without internet access
    #[command(subcommand)]
    Bundle(BundleCommand),
    /// Manage the database
    #[command(subcommand)]
    Db(Db),
    /// Help CamCOPS users who cannot log in
    #[command(subcommand)]
    User(User),
    /// Manage the TLS certificate of the site
    #[command(subcommand)]
    Cert(Cert),
    /// Manage the passwords of the site and the secret that signs its cookies
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Create, check, restore and delete backups of the site
    #[command(subcommand)]
    Backup(Backup),
    /// Upgrade CamCOPS, and return to the old version if that fails
    Upgrade(UpgradeFlags),
    /// Return to the release from before the last upgrade
    Rollback(Rollback),
    /// Manage the releases of CamCOPS on this machine
    #[command(subcommand)]
    Releases(Releases),
    /// Undo what install did; data and files changed since are kept
    Uninstall(Uninstall),
    /// Read, check and change the settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Show the files and directories of the site
    Paths,
    /// Show the addresses of the site
    Urls,
    /// Show the ports of the site, and which process listens on each
    Ports,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages to a directory
    Man {
        /// The directory; it is created if it does not exist
        #[arg(value_hint = ValueHint::DirPath)]
        directory: PathBuf,
    },
}

/// What to do with the settings.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show every setting with its value and its source
    Show {
        /// Only settings that differ from their defaults
        #[arg(long)]
        changed: bool,
    },
    /// Print the value of one setting
    Get {
        /// Dotted key, such as web.https_port
        key: String,
    },
    /// Change settings in the file, keeping its comments and order; if one is wrong, none is changed
    #[command(after_help = "\
A secret of CamCOPS, such as config.site.EMAIL_HOST_PASSWORD, is never an argument: `config set KEY` asks for it, `config set KEY -`
reads it from standard input. It is stored in a file that only root can read, and the setting KEY_file names that file.")]
    Set {
        /// Dotted key and new value; repeatable; for a secret the key alone
        #[arg(required = true, num_args = 1.., value_names = ["KEY", "VALUE"])]
        pairs: Vec<String>,
        /// Read one secret from this file (- for standard input)
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        from_file: Option<PathBuf>,
    },
    /// Remove a setting from the file, so that its default applies, or a whole section
    Unset {
        /// Dotted key, or a section: web, config.recipient:NAME, services.extra
        key: String,
    },
    /// Open the file in your editor, and check it before it is saved
    Edit,
    /// Check the settings and list all problems
    Validate,
    /// Print a file as install would write it, with secrets masked
    Render {
        /// Path of the file, or the end of its path [default: camcops.conf]
        path: Option<String>,
        /// Instead print the configuration for your own web server in front of the site
        #[arg(long = "for", value_enum, value_name = "SERVER", conflicts_with = "path")]
        front: Option<FrontServer>,
    },
    /// Print an example settings file with every key, its meaning and its default
    Keys,
}

/// Web servers that may stand in front of the site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum FrontServer {
    /// A server block
    Nginx,
    /// A virtual host
    Apache,
    /// A frontend and a backend
    Haproxy,
    /// A web.config for Application Request Routing
    Iis,
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
