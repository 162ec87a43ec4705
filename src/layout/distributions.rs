//! The releases of distributions that CamCOPS is installed on, and what differs between them: one row each.
//!
//! A machine whose release has no row is never taken for another one: nothing is laid out on it.

use super::{DEBIAN, Flavour, RHEL};
use serde::Serialize;

/// A release of a distribution.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct DistributionRelease {
    /// The distribution, as `ID` of /etc/os-release has it; `rhel` stands for its rebuilds, too.
    pub(crate) id: &'static str,
    /// `VERSION_ID`, or what a point release has before its last dot; empty where any will do.
    pub(crate) version: &'static str,
    /// As people call them.
    pub(crate) name: &'static str,
    #[serde(skip)]
    pub(crate) flavour: &'static Flavour,
    /// The Python of its packages, as 3.MINOR.
    pub(crate) python: Option<u8>,
    /// The package of ImageMagick's library.
    pub(crate) magick_library: &'static str,
    /// How that library's file name goes on; empty where it is looked for.
    pub(crate) magick_suffix: &'static str,
    /// Whether wkhtmltopdf is one of its packages: it is no longer developed, and distributions drop it.
    pub(crate) has_wkhtmltopdf: bool,
    /// The packages that WeasyPrint needs, with a font.
    pub(crate) weasyprint: &'static [&'static str],
}

impl DistributionRelease {
    /// Whether its MariaDB is older than 10.11, which was the first to listen on several addresses.
    pub(crate) fn has_old_mariadb(&self) -> bool {
        [("ubuntu", "22.04"), ("rhel", "8"), ("rhel", "9")].contains(&(self.id, self.version))
    }
}

/// All of them.
pub(crate) const DISTRIBUTION_RELEASES: &[DistributionRelease] = &[
    debian("12", "Debian 12", 11, MAGICK_6, true),
    debian("13", "Debian 13", 13, MAGICK_7, false),
    DistributionRelease { weasyprint: WITHOUT_SUBSET, ..ubuntu("22.04", "Ubuntu 22.04", 10, MAGICK_6, true) },
    ubuntu("24.04", "Ubuntu 24.04", 12, MAGICK_6_TIME_64, true),
    ubuntu("26.04", "Ubuntu 26.04", 14, MAGICK_7, false),
    red_hat("rhel", "8", "Red Hat Enterprise Linux 8", Some(12)),
    red_hat("rhel", "9", "Red Hat Enterprise Linux 9", Some(12)),
    red_hat("rhel", "10", "Red Hat Enterprise Linux 10", Some(12)),
    // A release each half year, and whatever Python the administrator puts there.
    red_hat("fedora", "", "Fedora", None),
];

/// A library's package, and the end of its file's name.
type Magick = (&'static str, &'static str);
const MAGICK_6: Magick = ("libmagickwand-6.q16-6", "-6.Q16");
const MAGICK_6_TIME_64: Magick = ("libmagickwand-6.q16-7t64", "-6.Q16");
const MAGICK_7: Magick = ("libmagickwand-7.q16-10", "-7.Q16");

/// The library by which fonts are cut down to the letters in use is part of no package yet: WeasyPrint does it by itself.
const WITHOUT_SUBSET: &[&str] = &["libpango-1.0-0", "libpangoft2-1.0-0", "fonts-dejavu-core"];

const fn debian(
    version: &'static str,
    name: &'static str,
    python: u8,
    (magick_library, magick_suffix): Magick,
    has_wkhtmltopdf: bool,
) -> DistributionRelease {
    DistributionRelease {
        id: "debian",
        version,
        name,
        flavour: &DEBIAN,
        python: Some(python),
        magick_library,
        magick_suffix,
        has_wkhtmltopdf,
        weasyprint: DEBIAN.packages.weasyprint,
    }
}

const fn ubuntu(
    version: &'static str,
    name: &'static str,
    python: u8,
    magick: Magick,
    has_wkhtmltopdf: bool,
) -> DistributionRelease {
    DistributionRelease { id: "ubuntu", ..debian(version, name, python, magick, has_wkhtmltopdf) }
}

const fn red_hat(
    id: &'static str,
    version: &'static str,
    name: &'static str,
    python: Option<u8>,
) -> DistributionRelease {
    DistributionRelease {
        id,
        version,
        name,
        flavour: &RHEL,
        python,
        magick_library: "ImageMagick-libs",
        magick_suffix: "",
        has_wkhtmltopdf: false,
        weasyprint: RHEL.packages.weasyprint,
    }
}

impl DistributionRelease {
    /// The row of a machine, by what its /etc/os-release says.
    ///
    /// A rebuild of Red Hat's is the same release under the same number, so its `ID_LIKE` is believed. What is derived
    /// from Debian or Ubuntu counts its own releases, and brings packages of its own.
    pub(crate) fn find(id: &str, id_like: &str, version: &str) -> Option<&'static DistributionRelease> {
        let id = match is_red_hat(id, id_like) && id != "fedora" {
            true => "rhel",
            false => id,
        };
        DISTRIBUTION_RELEASES.iter().find(|row| row.id == id && row.covers(version))
    }

    fn covers(&self, version: &str) -> bool {
        let more = version.strip_prefix(self.version);
        self.version.is_empty() || more.is_some_and(|more| more.is_empty() || more.starts_with('.'))
    }
}

/// The family that a machine's files are laid out like, whether its release is known or not.
pub(crate) fn family(id: &str, id_like: &str) -> &'static Flavour {
    if is_red_hat(id, id_like) { &RHEL } else { &DEBIAN }
}

fn is_red_hat(id: &str, id_like: &str) -> bool {
    let families = ["rhel", "fedora", "centos"];
    id_like.split(' ').chain([id]).any(|like| families.contains(&like))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::alternative_names;

    fn named(id: &str, id_like: &str, version: &str) -> &'static str {
        DistributionRelease::find(id, id_like, version).map_or("", |row| row.name)
    }

    #[test]
    fn a_machine_is_known_by_its_own_words() {
        for row in DISTRIBUTION_RELEASES {
            assert_eq!(DistributionRelease::find(row.id, "", row.version), Some(row));
        }
        assert_eq!(named("debian", "", "12.9"), "Debian 12");
        assert_eq!(named("rhel", "fedora", "9.4"), "Red Hat Enterprise Linux 9");
        assert_eq!(named("rocky", "rhel centos fedora", "8.10"), "Red Hat Enterprise Linux 8");
        assert_eq!(named("ol", "fedora", "10"), "Red Hat Enterprise Linux 10");
        assert_eq!(named("fedora", "", "43"), "Fedora");
    }

    #[test]
    fn what_only_resembles_a_known_release_is_none() {
        for (id, id_like, version) in [
            ("debian", "", ""),
            ("debian", "", "11"),
            ("debian", "", "14"),
            ("debian", "", "120"),
            ("ubuntu", "debian", "22.10"),
            ("ubuntu", "debian", "25.10"),
            ("linuxmint", "ubuntu debian", "22"),
            ("linuxmint", "debian", "12"),
            ("raspbian", "debian", "12"),
            ("rhel", "fedora", "11.0"),
            ("amzn", "fedora", "2023"),
            ("nobara", "fedora", "43"),
            ("opensuse-leap", "suse opensuse", "15.6"),
            ("", "", ""),
        ] {
            assert_eq!(named(id, id_like, version), "", "{id} {id_like} {version}");
        }
    }

    #[test]
    fn every_library_is_one_that_the_family_knows() {
        for row in DISTRIBUTION_RELEASES {
            let mut known = row.flavour.packages.magick.iter().flat_map(|names| alternative_names(names));
            assert!(known.any(|name| name == row.magick_library), "{}", row.name);
        }
    }
}
