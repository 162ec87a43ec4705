//! What makes PDF documents in a release. It is decided here, and here only.
//!
//! A release has the Python package of one engine: the library that CamCOPS makes PDF documents with takes no other one
//! while pdfkit is there. By that, all that runs in a release knows which one it is.

use super::Missing;
use super::lock::has_package;
use crate::settings::{ConfigValue, PdfChoice, Settings, Version};
use crate::site::facts::{Facts, Pdf};
use serde::{Deserialize, Serialize};

/// Lets CamCOPS use WeasyPrint, in the processes of a release that has it: what is put beside the packages of such a
/// release. Python itself reads the second one when it starts.
const HOOK: [(&str, &str); 2] = [
    ("camcops_provision_pdf.py", include_str!("pdf_hook.py")),
    ("camcops_provision_pdf.pth", "import camcops_provision_pdf\n"),
];

/// What makes PDF documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PdfEngine {
    Wkhtmltopdf,
    Weasyprint,
}

impl PdfEngine {
    /// The one that the settings ask for on this machine; or what stands in its way.
    pub(crate) fn of(settings: &Settings, facts: &Facts) -> Result<PdfEngine, Missing> {
        PdfEngine::for_version(settings.camcops.wanted_version(), settings, facts)
    }

    /// The same for another version than the settings'.
    pub(crate) fn for_version(version: Version, settings: &Settings, facts: &Facts) -> Result<PdfEngine, Missing> {
        let known =
            [PdfEngine::Wkhtmltopdf, PdfEngine::Weasyprint].map(|one| has_package(version, facts, one.package()));
        choose_engine(settings.site.pdf_engine, known, where_wkhtmltopdf_is(settings, facts)).map_err(|why| match why {
            Refusal::Unknown(PdfEngine::Weasyprint) => Missing(format!(
                "site.pdf_engine asks for WeasyPrint, which is not part of CamCOPS {0}: use a hardened release (camcops.hardening = \"auto\", and camcops.version not {0:?}), or set site.pdf_engine = \"auto\"",
                version.as_str(),
            )),
            Refusal::Unknown(PdfEngine::Wkhtmltopdf) => Missing(format!(
                "site.pdf_engine asks for wkhtmltopdf, which CamCOPS {} no longer uses: set site.pdf_engine = \"auto\"",
                version.as_str(),
            )),
            Refusal::NotHere => Missing(
                "site.pdf_engine asks for wkhtmltopdf, and this distribution has no package of it: put that program into /usr/local/bin, or name it in config.site.WKHTMLTOPDF_FILENAME, or set site.pdf_engine = \"weasyprint\""
                    .into(),
            ),
        })
    }

    /// Its name as people write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            PdfEngine::Wkhtmltopdf => "wkhtmltopdf",
            PdfEngine::Weasyprint => "WeasyPrint",
        }
    }

    /// The Python package by which CamCOPS uses it.
    fn package(self) -> &'static str {
        match self {
            PdfEngine::Wkhtmltopdf => "pdfkit",
            PdfEngine::Weasyprint => "weasyprint",
        }
    }

    /// The files by which a release with it uses it.
    pub(super) fn hook(self) -> &'static [(&'static str, &'static str)] {
        match self {
            PdfEngine::Wkhtmltopdf => &[],
            PdfEngine::Weasyprint => &HOOK,
        }
    }

    /// The Python package that a release with it must not have.
    pub(super) fn left_out(self) -> &'static str {
        match self {
            PdfEngine::Wkhtmltopdf => PdfEngine::Weasyprint.package(),
            PdfEngine::Weasyprint => PdfEngine::Wkhtmltopdf.package(),
        }
    }
}

/// Where wkhtmltopdf is to be had: the administrator may have put it anywhere, and say so to CamCOPS.
pub(crate) fn where_wkhtmltopdf_is(settings: &Settings, facts: &Facts) -> Pdf {
    // What runs in a staged tree is not there yet.
    let comes = facts.staged && settings.site.pdf_engine == PdfChoice::Wkhtmltopdf;
    match facts.pdf {
        Pdf::Missing if comes || given_program(settings).is_some() => Pdf::Present,
        known => known,
    }
}

/// The program that CamCOPS is told to use.
pub(crate) fn given_program(settings: &Settings) -> Option<&str> {
    match settings.config.get("site")?.get("WKHTMLTOPDF_FILENAME")? {
        ConfigValue::Line(path) => Some(path.trim()).filter(|path| !path.is_empty()),
        ConfigValue::List(_) => None,
    }
}

/// Why an engine can't be had.
#[derive(Debug, PartialEq)]
enum Refusal {
    /// This version of CamCOPS does not know it.
    Unknown(PdfEngine),
    /// This machine has no such program.
    NotHere,
}

/// `known`: whether the version knows wkhtmltopdf and WeasyPrint.
fn choose_engine(choice: PdfChoice, known: [bool; 2], here: Pdf) -> Result<PdfEngine, Refusal> {
    let [wkhtmltopdf, weasyprint] = known;
    match choice {
        PdfChoice::Wkhtmltopdf if !wkhtmltopdf => Err(Refusal::Unknown(PdfEngine::Wkhtmltopdf)),
        PdfChoice::Wkhtmltopdf if here == Pdf::Missing => Err(Refusal::NotHere),
        PdfChoice::Weasyprint if !weasyprint => Err(Refusal::Unknown(PdfEngine::Weasyprint)),
        PdfChoice::Weasyprint => Ok(PdfEngine::Weasyprint),
        PdfChoice::Auto if weasyprint && (!wkhtmltopdf || here == Pdf::Missing) => Ok(PdfEngine::Weasyprint),
        PdfChoice::Auto | PdfChoice::Wkhtmltopdf => Ok(PdfEngine::Wkhtmltopdf),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_follows_from_setting_version_and_machine() {
        use PdfEngine::{Weasyprint, Wkhtmltopdf};
        let auto = |known, here| choose_engine(PdfChoice::Auto, known, here).unwrap();
        let (old, both, new) = ([true, false], [true, true], [false, true]);
        for here in [Pdf::Packaged, Pdf::Present, Pdf::Missing] {
            assert_eq!(auto(old, here), Wkhtmltopdf);
            assert_eq!(auto(new, here), Weasyprint);
            let wanted = |known| choose_engine(PdfChoice::Weasyprint, known, here);
            assert_eq!(wanted(both), Ok(Weasyprint));
            assert_eq!(wanted(new), Ok(Weasyprint));
            assert_eq!(wanted(old), Err(Refusal::Unknown(Weasyprint)));
        }
        assert_eq!(auto(both, Pdf::Packaged), Wkhtmltopdf);
        assert_eq!(auto(both, Pdf::Present), Wkhtmltopdf);
        assert_eq!(auto(both, Pdf::Missing), Weasyprint);
        let wanted = |known, here| choose_engine(PdfChoice::Wkhtmltopdf, known, here);
        assert_eq!(wanted(both, Pdf::Present), Ok(Wkhtmltopdf));
        assert_eq!(wanted(both, Pdf::Missing), Err(Refusal::NotHere));
        assert_eq!(wanted(new, Pdf::Packaged), Err(Refusal::Unknown(Wkhtmltopdf)));
    }
}
