//! Arguments about the whole site: install, plan, upgrade, uninstall.

use crate::resource::Part;
use clap::{Args, Subcommand, ValueHint};
use std::path::PathBuf;

/// What to do with the certificate.
#[derive(Debug, Subcommand)]
pub(crate) enum Cert {
    /// Show the certificate, its chain, and the fingerprints of earlier certificates
    Show,
    /// Print a certificate signing request; the key stays on this machine
    Csr {
        /// With a new key, used once its certificate is installed
        #[arg(long)]
        new_key: bool,
    },
    /// Check a certificate from an authority and use it
    Install(CertInstall),
    /// Replace the self-signed certificate, or have certbot renew its certificate if that is due
    Renew {
        /// With a new key
        #[arg(long)]
        new_key: bool,
        /// Renew certbot's certificate even if that is not due
        #[arg(long)]
        force: bool,
    },
    /// Connect to the site as a tablet does, and check what a tablet would check
    Verify {
        /// Host name to connect to [default: the main name of the site]
        #[arg(long, value_name = "NAME")]
        host: Option<String>,
        /// Port to connect to [default: web.https_port]
        #[arg(long, value_name = "PORT")]
        port: Option<u16>,
    },
}

/// Flags of `cert install`.
#[derive(Debug, Args)]
pub(crate) struct CertInstall {
    /// Certificate, PEM; its chain may follow in the same file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, required_unless_present_any = ["from_certbot", "pfx"])]
    pub(crate) cert: Option<PathBuf>,
    /// Intermediate certificates of the authority, PEM
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) chain: Option<PathBuf>,
    /// Its key, PEM [default: the key of `cert csr`]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) key: Option<PathBuf>,
    /// Certificate, chain and key in one PKCS#12 file (.pfx, .p12), as Windows exports it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["cert", "chain", "key"])]
    pub(crate) pfx: Option<PathBuf>,
    /// File that only root can read, with the password of the .pfx (- for standard input) [default: ask on the terminal]
    #[arg(long, value_name = "FILE|-", value_hint = ValueHint::FilePath, requires = "pfx")]
    pub(crate) password_file: Option<PathBuf>,
    /// Use the certificate that certbot has for this site (tls.mode = "certbot"); certbot runs this after each renewal
    #[arg(long, conflicts_with_all = ["cert", "chain", "key", "pfx"])]
    pub(crate) from_certbot: bool,
}

/// What to do with bundles.
#[derive(Debug, Subcommand)]
pub(crate) enum BundleCommand {
    /// Download everything into one file, on a machine of the same kind with internet access; nothing is installed
    #[command(after_help = "\
The checksums in a bundle detect damage, not tampering: compare the SHA-256 that is printed here by another channel, or sign
the file. Who can change a bundle decides what is installed.")]
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
    /// Output file; its directory needs free space for twice its size
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) out: PathBuf,
    /// Use the files in DIR for CamCOPS and its Python packages
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) wheelhouse: Option<PathBuf>,
    /// Add advisories for `vulnerabilities`: a file or a directory; repeatable
    #[arg(long, value_name = "FILE", value_hint = ValueHint::AnyPath)]
    pub(crate) advisories: Vec<PathBuf>,
}

/// Which parts of an installation.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Parts {
    /// Install only these parts
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART,..")]
    pub(crate) only: Vec<Part>,
    /// Install all parts except these
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART,..", conflicts_with = "only")]
    pub(crate) skip: Vec<Part>,
    /// Replace existing files that are in the way; uninstall restores them
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
    /// Download nothing; what is missing is named
    #[arg(long)]
    pub(crate) offline: bool,
    /// Use the files in DIR for CamCOPS and its Python packages
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) wheelhouse: Option<PathBuf>,
    /// Use a file of `bundle create` for CamCOPS, its Python packages and those of the distribution
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "wheelhouse")]
    pub(crate) bundle: Option<PathBuf>,
}

/// Flags of `install`.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Install {
    /// Do not ask before the first change
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Where CamCOPS comes from.
    #[command(flatten)]
    pub(crate) origin: SourceFlags,
    /// Create this CamCOPS superuser; an existing user is not changed
    #[arg(long, value_name = "NAME")]
    pub(crate) superuser: Option<String>,
    /// File whose first line is the password of that user (- for standard input)
    #[arg(long, value_name = "FILE|-", value_hint = ValueHint::FilePath)]
    pub(crate) superuser_password_file: Option<PathBuf>,
    /// Carry out exactly this plan, as `plan --out FILE` wrote it; refused if the machine or the settings have changed since
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["from_package", "pending"])]
    pub(crate) plan: Option<PathBuf>,
    /// Rebuild the release of CamCOPS even if it is complete; with --only application nothing else is done
    #[arg(long, conflicts_with = "plan")]
    pub(crate) rebuild: bool,
    /// Install although this check of `doctor --preflight` fails; repeatable
    #[arg(long, value_name = "CHECK", value_delimiter = ',')]
    pub(crate) ignore: Vec<String>,
    /// For the package's maintainer script: install or update every instance; what cannot be done now stays pending and is no failure
    #[arg(long, hide = true, conflicts_with_all = ["only", "skip", "adopt"])]
    pub(crate) from_package: bool,
    /// Finish what --from-package left pending
    #[arg(long, hide = true, conflicts_with_all = ["only", "skip", "adopt", "from_package"])]
    pub(crate) pending: bool,
    /// Which parts.
    #[command(flatten)]
    pub(crate) parts: Parts,
}

/// Flags of `plan`.
#[derive(Debug, Args)]
pub(crate) struct PlanFlags {
    /// Show a diff of each file that would change
    #[arg(long)]
    pub(crate) diff: bool,
    /// Exit with 2 if changes are pending
    #[arg(long)]
    pub(crate) exit_code: bool,
    /// Also write the plan to a file, as JSON
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
    /// Version to upgrade to [default: the newest that this program knows]
    #[arg(long, value_name = "V")]
    pub(crate) to: Option<String>,
    /// Allow a version newer than this program knows: its packages come from the package index, and its changes to the
    /// tables are not known beforehand
    #[arg(long, requires = "to")]
    pub(crate) untested: bool,
    /// Only show what would be done, and what prevents it
    #[arg(long)]
    pub(crate) check: bool,
    /// Exit with 2 if an upgrade is available
    #[arg(long, requires = "check")]
    pub(crate) exit_code: bool,
    /// Do not ask before the first change
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Where the new release comes from.
    #[command(flatten)]
    pub(crate) origin: SourceFlags,
}

/// Flags of `rollback`.
#[derive(Debug, Args)]
#[command(after_help = "\
camcops.version in the settings is set to the old version; `upgrade` tries again. If the upgrade changed the tables and data was
entered since, rollback needs --confirm.")]
pub(crate) struct Rollback {
    /// Do not ask before the first change
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Name of the database, to confirm that data entered since the upgrade is given up; it is kept in a dump
    #[arg(long, value_name = "DATABASE")]
    pub(crate) confirm: Option<String>,
    /// Where the old release comes from, if it has to be built again.
    #[command(flatten)]
    pub(crate) origin: SourceFlags,
}

/// What to do with releases.
#[derive(Debug, Subcommand)]
pub(crate) enum Releases {
    /// Show each release with its version, Python, size and use
    List,
    /// Remove unused releases; never the current one, nor the one for rollback
    Prune(Prune),
    /// Run CamCOPS's own tests in a release, at the lowest priority; takes five to ten minutes of one processor
    Test(OwnTests),
}

/// Flags of `releases test`.
#[derive(Debug, Args)]
pub(crate) struct OwnTests {
    /// Name of the release, from `releases list` [default: the current one]
    pub(crate) release: Option<String>,
    /// Use a temporary database on the site's server instead of one in memory
    #[arg(long)]
    pub(crate) server: bool,
}

/// Flags of `releases prune`.
#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Keep the N newest unused releases
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) keep: usize,
    /// Only show what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Flags of `uninstall`.
#[derive(Debug, Args)]
pub(crate) struct Uninstall {
    /// Do not ask before the first change
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Also remove the data: the database (after a dump), its accounts, the vhost and the site's directories
    #[arg(long, requires = "confirm")]
    pub(crate) purge: bool,
    /// Name of the instance whose data is removed, as a confirmation
    #[arg(long, value_name = "NAME", requires = "purge")]
    pub(crate) confirm: Option<String>,
}
