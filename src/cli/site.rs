//! Arguments about the whole site: install, plan, upgrade, uninstall.

use crate::resource::Part;
use clap::{Args, Subcommand, ValueHint};
use std::path::PathBuf;

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
    /// Replace the self-signed certificate, or have certbot renew its certificate if that is due
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

/// What to do with bundles.
#[derive(Debug, Subcommand)]
pub(crate) enum BundleCommand {
    /// Fetch everything on a machine with a network and of the same kind, and write it into one file; nothing is installed
    #[command(after_help = "\
The sums in a bundle show what was damaged on its way. That nobody has exchanged it, show the SHA-256 that is printed
here, compared by other means, or a signature: whoever can change it decides what is installed.")]
    Create(BundleCreate),
    /// Check every file's checksum, and whether the bundle is for this machine
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
    /// Advisories for `vulnerabilities`, as that takes them: a file, or a directory of them; repeatable
    #[arg(long, value_name = "FILE", value_hint = ValueHint::AnyPath)]
    pub(crate) advisories: Vec<PathBuf>,
}

/// Which parts of an installation.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Parts {
    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART,..")]
    pub(crate) only: Vec<Part>,
    /// All but these parts
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART,..", conflicts_with = "only")]
    pub(crate) skip: Vec<Part>,
    /// Take over files that somebody else put where ours belong; uninstall brings them back
    #[arg(long)]
    pub(crate) adopt: bool,
}

impl Parts {
    /// These and nothing else.
    pub(crate) fn only_of(parts: &[Part]) -> Parts {
        Parts { only: parts.to_vec(), ..Parts::default() }
    }

    /// All but these.
    pub(crate) fn all_but(parts: &[Part]) -> Parts {
        Parts { skip: parts.to_vec(), ..Parts::default() }
    }

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
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct SourceFlags {
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
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Install {
    /// Don't ask before the first change
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Where CamCOPS comes from.
    #[command(flatten)]
    pub(crate) origin: SourceFlags,
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
pub(crate) struct PlanFlags {
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
    pub(crate) origin: SourceFlags,
    /// Which parts.
    #[command(flatten)]
    pub(crate) parts: Parts,
}

/// Flags of `upgrade`.
#[derive(Debug, Args)]
pub(crate) struct UpgradeFlags {
    /// The version [default: the newest that this program knows]
    #[arg(long, value_name = "V")]
    pub(crate) to: Option<String>,
    /// Try a version that is newer than this program knows: its packages are found in the package index, and what it does to
    /// the tables is seen when it is done
    #[arg(long, requires = "to")]
    pub(crate) untested: bool,
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
    pub(crate) origin: SourceFlags,
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
    pub(crate) origin: SourceFlags,
}

/// What to do with releases.
#[derive(Debug, Subcommand)]
pub(crate) enum Releases {
    /// Show each with its version, its Python, its size and what it is for
    List,
    /// Remove those that nobody needs; never the current one, nor the one that rollback goes back to
    Prune(Prune),
    /// Run CamCOPS's own tests in one, beside the site and at the lowest priority; takes five to ten minutes of one processor
    Test(OwnTests),
}

/// Flags of `releases test`.
#[derive(Debug, Args)]
pub(crate) struct OwnTests {
    /// The name of the release, as `releases list` tells it [default: the current one]
    pub(crate) release: Option<String>,
    /// Use a database that is made on the site's server for them, and removed after, and not one in memory
    #[arg(long)]
    pub(crate) server: bool,
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
