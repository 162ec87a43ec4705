//! The packages that each role needs, by the names that the families of distributions have for them.
//!
//! A name may be a list of alternatives, as in a package's own dependencies: any of them will do, and the first that can
//! be had is installed.

use serde::Serialize;

/// What installs packages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PackageManager {
    /// dpkg and apt.
    #[default]
    Apt,
    /// rpm and dnf.
    Dnf,
}

/// One list of names per role.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Packages {
    /// What installs them.
    pub(crate) manager: PackageManager,
    /// The web server.
    pub(crate) web: &'static [&'static str],
    /// The database server, of either family.
    pub(crate) database: &'static [&'static str],
    /// The message broker.
    pub(crate) broker: &'static [&'static str],
    /// What watches the services where systemd does not run.
    pub(crate) supervisor: &'static [&'static str],
    /// What CamCOPS needs to run, besides Python and ImageMagick.
    pub(crate) application: &'static [&'static str],
    /// ImageMagick's library, by all the names that releases have for it.
    pub(crate) magick: &'static [&'static str],
    /// What an upgrade of the distribution leaves behind of the former one, which can't stand beside the new one.
    pub(crate) replaced: &'static [&'static str],
    /// What makes PDF files, where that is wkhtmltopdf and the distribution has it.
    pub(crate) wkhtmltopdf: &'static [&'static str],
    /// What WeasyPrint makes PDF files with, and a font.
    pub(crate) weasyprint: &'static [&'static str],
    /// What gets certificates from an authority that speaks ACME.
    pub(crate) acme: &'static [&'static str],
    /// What keeps log files short.
    pub(crate) logs: &'static [&'static str],
    /// What encrypts backups.
    pub(crate) encryption: &'static [&'static str],
    /// What it takes to build the parts of the application that come as source.
    pub(crate) build: &'static [&'static str],
}

/// Debian, Ubuntu and their like.
pub(crate) const DEBIAN: Packages = Packages {
    manager: PackageManager::Apt,
    web: &["apache2"],
    // Every packaged server of the family says that it is one.
    database: &["mariadb-server | virtual-mysql-server"],
    broker: &["rabbitmq-server"],
    supervisor: &["supervisor"],
    application: &["ca-certificates"],
    magick: &["libmagickwand-6.q16-6 | libmagickwand-6.q16-7t64 | libmagickwand-7.q16-10"],
    replaced: &[
        "imagemagick-6-common",
        "libmagickcore-6.q16-6",
        "libmagickcore-6.q16-7t64",
        "libmagickwand-6.q16-6",
        "libmagickwand-6.q16-7t64",
    ],
    wkhtmltopdf: &["wkhtmltopdf"],
    weasyprint: &["libpango-1.0-0", "libpangoft2-1.0-0", "libharfbuzz-subset0", "fonts-dejavu-core"],
    acme: &["certbot"],
    logs: &["logrotate"],
    encryption: &["age"],
    build: &["gcc", "libc6-dev"],
};

/// Red Hat Enterprise Linux and its like. RabbitMQ, supervisor and ImageMagick come from the sources that the
/// administrator has chosen for them.
pub(crate) const RHEL: Packages = Packages {
    manager: PackageManager::Dnf,
    web: &["httpd", "mod_ssl"],
    database: &["mariadb-server | mysql-server"],
    broker: &["rabbitmq-server"],
    supervisor: &["supervisor"],
    application: &["ca-certificates"],
    magick: &["ImageMagick-libs"],
    replaced: &[],
    wkhtmltopdf: &["wkhtmltopdf"],
    weasyprint: &["pango", "harfbuzz", "dejavu-sans-fonts"],
    acme: &["certbot"],
    logs: &["logrotate"],
    encryption: &["age"],
    build: &["gcc", "glibc-devel"],
};

impl Packages {
    /// Every name, with the alternatives one by one.
    pub(crate) fn all(&self) -> impl Iterator<Item = &'static str> {
        [
            self.web,
            self.database,
            self.broker,
            self.supervisor,
            self.application,
            self.magick,
            self.wkhtmltopdf,
            self.weasyprint,
            self.acme,
            self.logs,
            self.encryption,
            self.build,
        ]
        .into_iter()
        .flatten()
        .flat_map(|name| alternative_names(name))
    }
}

/// The alternatives in a name, best first.
pub(crate) fn alternative_names(name: &str) -> impl Iterator<Item = &str> {
    name.split('|').map(str::trim)
}
