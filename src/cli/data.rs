//! Arguments about data: database, backups, users, secrets.

use crate::host::secrets;
use crate::settings::{Pruning, Setting as _};
use anyhow::{Result, anyhow};
use clap::{Args, Subcommand, ValueHint};
use std::path::PathBuf;

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
    #[command(after_help = "Exit codes: 0 nothing has failed, though there may be warnings; 1 a check has failed.")]
    Check {
        /// First give every table the collation of CamCOPS, after a dump; the services are stopped meanwhile
        #[arg(long)]
        fix_collation: bool,
    },
    /// Make the account that may only read, for whoever analyses the data
    GrantReadonly(GrantReadonly),
    /// Empty the database, after a dump, and create its tables again
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

/// What to do with secrets.
#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    /// Show where each secret is kept, since when, and whose it is; never the secret
    List,
    /// Replace a password everywhere, while the site is in use; broker delays visitors by some seconds, cookie logs everybody out
    Rotate {
        /// Which one
        #[arg(value_enum)]
        name: secrets::SecretName,
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
        identity: IdentityFlags,
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

pub(crate) fn one_rule(name: &str) -> Result<Pruning> {
    Pruning::from_text(name).map_err(|_| anyhow!("choose from never, generations and first-of-month"))
}

/// Who can read an encrypted backup.
#[derive(Debug, Args)]
pub(crate) struct IdentityFlags {
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
    pub(crate) identity: IdentityFlags,
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
