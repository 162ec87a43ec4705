//! Arguments about data: database, backups, users, secrets.

use crate::host::secrets::SecretName;
use crate::settings::{Pruning, Setting as _};
use anyhow::{Result, anyhow};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, Args, Command, Subcommand, ValueEnum, ValueHint};
use std::ffi::OsStr;
use std::path::PathBuf;

/// What concerns the database.
#[derive(Debug, Subcommand)]
pub(crate) enum Db {
    /// Open a database client, logged in as the application
    Shell {
        /// Log in as the administrator of the server, with all privileges
        #[arg(long)]
        admin: bool,
    },
    /// Upgrade the tables to the revision of the installed release, after a dump
    Upgrade {
        /// Only print the SQL that CamCOPS would run
        #[arg(long)]
        show_sql: bool,
        /// Do not rebuild CamCOPS's index of tasks; `run -- reindex` does it later
        #[arg(long, conflicts_with = "show_sql")]
        no_reindex: bool,
    },
    /// Run doctor's checks of the database, and check CamCOPS's own index too
    #[command(after_help = "Exit status: 0 no check failed, though there may be warnings; 1 a check failed.")]
    Check {
        /// First convert every table to the collation of CamCOPS, after a dump; the services are stopped meanwhile
        #[arg(long)]
        fix_collation: bool,
    },
    /// Create an account that can only read, for data analysts
    GrantReadonly(GrantReadonly),
    /// Empty the database, after a dump, and create its tables again
    Reset(Reset),
    /// Copy the database for research or training, without what identifies patients
    Anonymise(Anonymise),
}

/// Flags of `db anonymise`.
#[derive(Debug, Args)]
#[command(after_help = "\
The site keeps running. Only administrators of the server can read the copy, unless --login creates an account for it;
DROP DATABASE and DROP USER remove them.

FILE of --rules is TOML: [TABLE], and below it COLUMN = \"keep\", \"year\" (of a date) or \"empty\"; * in a name stands for
anything, and the most specific rule applies. What CamCOPS declares as identifying a patient is never kept.

Dates, rare diagnoses and small groups may still identify somebody: treat the copy by your rules
for pseudonymised data.")]
pub(crate) struct Anonymise {
    /// Name of the copy; a database that does not exist yet
    #[arg(long, value_name = "DATABASE")]
    pub(crate) to: String,
    /// Your own rules for columns, in addition to CamCOPS's declarations
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) rules: Option<PathBuf>,
    /// Create this account, which can read the copy and nothing else
    #[arg(long, value_name = "NAME")]
    pub(crate) login: Option<String>,
    /// Where that account logs in from, such as 10.0.0.5 or 10.0.0.% [default: this machine]
    #[arg(long, value_name = "HOST", requires = "login")]
    pub(crate) login_host: Option<String>,
    /// File that only root can read, with the password of that account (- for standard input) [default: ask on the terminal]
    #[arg(long, value_name = "FILE|-", value_hint = ValueHint::FilePath, requires = "login")]
    pub(crate) password_file: Option<PathBuf>,
}

/// Flags of `db grant-readonly`.
#[derive(Debug, Args)]
pub(crate) struct GrantReadonly {
    /// The account; a site can have several, each with its own password [default: the one in database.readonly_user, or
    /// the application's with _reports]
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// Where it logs in from, such as 10.0.0.5 or 10.0.0.% [default: this machine]
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,
    /// Include the audit trail, sessions, export recipients, and the users' password hashes and two-factor secrets
    #[arg(long)]
    pub(crate) everything: bool,
    /// Where its password comes from.
    #[command(flatten)]
    pub(crate) password: GivenPassword,
}

/// A password that may be given, and is made otherwise.
#[derive(Debug, Args)]
pub(crate) struct GivenPassword {
    /// File with the password, readable by root alone, or - for standard input or the terminal [default: the
    /// stored password, or a new one]
    #[arg(long, value_name = "FILE|-", value_hint = ValueHint::FilePath)]
    pub(crate) password_file: Option<PathBuf>,
}

/// Flags of `db reset`.
#[derive(Debug, Args)]
pub(crate) struct Reset {
    /// Name of the database to empty, as a confirmation
    #[arg(long, value_name = "DATABASE")]
    pub(crate) confirm: Option<String>,
    /// Empty it even if it contains patients or tasks
    #[arg(long)]
    pub(crate) destroy_clinical_data: bool,
    /// Create this CamCOPS superuser
    #[arg(long, value_name = "NAME")]
    pub(crate) superuser: Option<String>,
    /// File whose first line is the password of that user (- for standard input)
    #[arg(long, value_name = "FILE|-", value_hint = ValueHint::FilePath)]
    pub(crate) superuser_password_file: Option<PathBuf>,
}

/// What to do with secrets.
#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    /// Show where each secret is stored, its age and its purpose, never the secret itself
    List,
    /// Replace a password everywhere, while the site is in use; broker delays visitors by some seconds, cookie logs everybody out
    Rotate {
        /// The secret to replace: database, readonly, readonly-USER (of one of database.readonly_accounts), broker,
        /// monitor or cookie; all: every secret that is not in a file of your own
        #[arg(value_parser = TargetParser)]
        name: RotateTarget,
        /// Do not ask before everybody is logged out
        #[arg(short, long)]
        yes: bool,
    },
}

/// Which secrets are replaced.
#[derive(Debug, Clone)]
pub(crate) enum RotateTarget {
    One(SecretName),
    All,
}

/// Reads the name of a secret; what is offered for completion are those that every site can have.
#[derive(Debug, Clone)]
struct TargetParser;

impl TypedValueParser for TargetParser {
    type Value = RotateTarget;

    fn parse_ref(&self, command: &Command, of: Option<&Arg>, value: &OsStr) -> Result<RotateTarget, clap::Error> {
        let target = value.to_str().and_then(|name| match name {
            ALL_SECRETS => Some(RotateTarget::All),
            name => SecretName::find(name).map(RotateTarget::One),
        });
        match target {
            Some(target) => Ok(target),
            // Its words about what there is.
            None => {
                let names = self.possible_values().into_iter().flatten();
                let refused = PossibleValuesParser::new(names).parse_ref(command, of, value);
                refused.and_then(|_| Err(clap::Error::new(ErrorKind::InvalidValue).with_cmd(command)))
            }
        }
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(TARGETS.into_iter().map(PossibleValue::new)))
    }
}

/// What every site can have, and what stands for all of it.
const TARGETS: [&str; 6] = ["database", "readonly", "broker", "monitor", "cookie", ALL_SECRETS];
const ALL_SECRETS: &str = "all";

/// What to do with backups.
#[derive(Debug, Subcommand)]
pub(crate) enum Backup {
    /// Back up the database, with configuration, secrets, certificate and the site's own files, while the site runs
    Create {
        /// For the timer: delete old backups afterwards, by backup.prune
        #[arg(long, hide = true, conflicts_with_all = ["out", "format"])]
        scheduled: bool,
        /// Write only the database, as SQL, to this new file; `backup restore FILE` restores it
        #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        out: Option<PathBuf>,
        /// Format of FILE [default: by the end of its name, else sql.zst]
        #[arg(long, value_enum, value_name = "FORMAT", requires = "out")]
        format: Option<DumpFormat>,
    },
    /// Show the existing backups
    List,
    /// Check a backup: its checksums, and whether it loads into a temporary database
    Verify {
        /// The backup: its name, its path, or latest [default: latest]
        #[arg(value_name = "NAME", value_hint = ValueHint::DirPath)]
        name: Option<String>,
        /// Check only checksums and contents, without a database
        #[arg(long)]
        quick: bool,
        /// Who can read it.
        #[command(flatten)]
        identity: IdentityFlags,
    },
    /// Replace the data by that of a backup; on a new machine, install the whole site from it
    Restore(Restore),
    /// Delete old backups, never the newest one
    Prune {
        /// Only show what would be deleted
        #[arg(long)]
        dry_run: bool,
        /// Which ones to keep [default: backup.prune] [possible values: never, generations, first-of-month]
        #[arg(long, value_name = "RULE", value_parser = one_rule)]
        rule: Option<Pruning>,
    },
}

/// How a dump of the database is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DumpFormat {
    #[value(name = "sql.zst")]
    Zstd,
    #[value(name = "sql.gz")]
    Gzip,
    #[value(name = "sql")]
    Plain,
}

pub(crate) fn one_rule(name: &str) -> Result<Pruning> {
    Pruning::from_text(name).map_err(|_| anyhow!("choose from never, generations and first-of-month"))
}

/// Who can read an encrypted backup.
#[derive(Debug, Args)]
pub(crate) struct IdentityFlags {
    /// File with the age identity that decrypts it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) identity: Option<PathBuf>,
}

/// Flags of `backup restore`.
#[derive(Debug, Args)]
#[command(after_help = "\
On a new machine: install camcops-provision, copy the whole directory of the backup there, and restore it by its path, with
--confirm; settings, secrets and certificate come from the backup, and everything is installed.
A backup decides what runs here, as the settings do: only restore backups from a source that you trust.")]
pub(crate) struct Restore {
    /// A backup: its name, its path, or latest; or a dump of the database, plain or compressed by gzip or zstd
    #[arg(value_name = "NAME|FILE", value_hint = ValueHint::AnyPath)]
    pub(crate) what: String,
    /// Name of the database to replace, as a confirmation; always required
    #[arg(long, value_name = "DATABASE")]
    pub(crate) confirm: Option<String>,
    /// Also replace settings, secrets, certificate and the site's files by those of the backup
    #[arg(long)]
    pub(crate) with_configuration: bool,
    /// Who can read it.
    #[command(flatten)]
    pub(crate) identity: IdentityFlags,
}

/// What to do for a user of CamCOPS.
#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// Create a superuser; an existing user becomes one and keeps the password
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
    /// Unlock a user who was locked out after too many wrong passwords
    Enable {
        /// Which user.
        #[command(flatten)]
        user: UserFlags,
    },
}

/// Which user.
#[derive(Debug, Args)]
pub(crate) struct UserFlags {
    /// Name of the user
    pub(crate) name: String,
}

/// Where a password comes from.
#[derive(Debug, Args)]
pub(crate) struct PasswordFlags {
    /// File with the password, readable by root alone, or - for standard input [default: asked for on the
    /// terminal]
    #[arg(long, value_name = "FILE|-", value_hint = ValueHint::FilePath)]
    pub(crate) password_file: Option<PathBuf>,
}
