//! Commands and flags, nothing else.

use crate::layout;
use crate::probe::Role;
use crate::report::Color;
use crate::resource::Part;
use clap::{Args, Parser, Subcommand, ValueHint};
use std::path::PathBuf;

/// Installs and operates a CamCOPS server natively: files by the FHS, systemd or supervisor, Apache, without containers.
#[derive(Debug, Parser)]
#[command(
    name = "camcops-provision",
    version,
    max_term_width = 100,
    propagate_version = true
)]
#[command(after_help = "\
Exit codes: 0 done, or nothing to do; 1 something failed; 2 changes are pending (--exit-code);
64 usage; 65 unusable input; 69 unreachable; 73 something is in the way; 74 I/O;
75 another run holds the lock; 77 not root; 78 bad settings.

Start with `camcops-provision plan`: it changes nothing.")]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Settings file [default: /etc/camcops/provision.toml; for instance NAME provision_NAME.toml]; *.toml in the folder of the same name ending in .d are merged in
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Override one setting (dotted key); repeatable
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Which instance, by its name
    #[arg(long, global = true, value_name = "NAME", default_value = layout::DEFAULT_INSTANCE, value_parser = layout::instance)]
    pub instance: String,
    /// Act on a staged tree under DIR: files only; what needs a running machine is listed for the first boot
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub root: Option<PathBuf>,
    /// One JSON document on standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// Say more
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// Only results and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// When to use colours
    #[arg(long, global = true, value_enum, default_value = "auto")]
    pub color: Color,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Ask a few questions and write the settings file (on a terminal)
    Init,
    /// Make the machine what the settings say; run it again at any time
    Install(Install),
    /// Show what install would do, and why; changes nothing
    Plan(Plan),
    /// Show what is installed, and what differs from the plan
    Status(Status),
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
    /// Undo everything that install made and that is still as it made it
    Uninstall(Uninstall),
    /// Read, check and change the settings
    #[command(subcommand)]
    Config(Config),
    /// Show where everything is
    Paths,
    /// Show the addresses of the site
    Urls,
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

/// Which parts of an installation.
#[derive(Debug, Clone, Args)]
pub struct Parts {
    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART,..")]
    pub only: Vec<Part>,
    /// All but these parts
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "PART,..",
        conflicts_with = "only"
    )]
    pub skip: Vec<Part>,
    /// Take over files that somebody else put where ours belong; uninstall brings them back
    #[arg(long)]
    pub adopt: bool,
}

impl Parts {
    /// Whether a part was asked for.
    pub fn include(&self, part: Part) -> bool {
        (self.only.is_empty() || self.only.contains(&part)) && !self.skip.contains(&part)
    }

    /// Whether everything was asked for.
    pub fn whole(&self) -> bool {
        self.only.is_empty() && self.skip.is_empty()
    }
}

/// Flags of `install`.
#[derive(Debug, Args)]
pub struct Install {
    /// Don't ask before the first change
    #[arg(short, long)]
    pub yes: bool,
    /// Which parts.
    #[command(flatten)]
    pub parts: Parts,
}

/// Flags of `plan`.
#[derive(Debug, Args)]
pub struct Plan {
    /// Show how the content of each file would change
    #[arg(long)]
    pub diff: bool,
    /// Exit with 2 if changes are pending
    #[arg(long)]
    pub exit_code: bool,
    /// Write the plan to a file too, as JSON
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: Option<PathBuf>,
    /// Which parts.
    #[command(flatten)]
    pub parts: Parts,
}

/// Flags of `status`.
#[derive(Debug, Args)]
pub struct Status {
    /// Exit with 2 if changes are pending
    #[arg(long)]
    pub exit_code: bool,
}

/// Flags of `wait`.
#[derive(Debug, Args)]
pub struct Wait {
    /// What to wait for [default: all that this machine serves]
    #[arg(
        long = "for",
        value_enum,
        value_delimiter = ',',
        value_name = "ROLE,.."
    )]
    pub roles: Vec<Role>,
    /// Give up after S seconds, with exit code 69; 0 tries once
    #[arg(long, value_name = "S", default_value_t = 120)]
    pub timeout: u32,
}

/// Flags of `uninstall`.
#[derive(Debug, Args)]
pub struct Uninstall {
    /// Don't ask before the first change
    #[arg(short, long)]
    pub yes: bool,
}

/// What to do with the settings.
#[derive(Debug, Subcommand)]
pub enum Config {
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
    /// Change one setting in the file; comments and order stay
    Set {
        /// Dotted key
        key: String,
        /// The new value
        value: String,
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
