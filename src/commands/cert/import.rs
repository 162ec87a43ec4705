//! What an administrator brought along, checked before anything is touched.

use super::pfx::{UnpackedPfx, unpack_pfx};
use super::waiting_key;
use crate::base::error::Exit;
use crate::base::text::absolute_path;
use crate::certificate::{self, CertificateFinding, GivenFiles, Severity};
use crate::cli::CertInstall;
use crate::host::{Host, PathInfo};
use crate::session::Session;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use zeroize::Zeroizing;

/// A certificate that fits the site, its chain, and its key.
pub(crate) struct ImportedPair {
    /// With its chain, and nothing else of the files that they came in.
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: Zeroizing<Vec<u8>>,
    /// What is not wrong enough to refuse it.
    pub(crate) warnings: Vec<String>,
}

impl ImportedPair {
    /// Reads it and refuses what would not work.
    pub(crate) fn read(site: &Session, flags: &CertInstall) -> Result<ImportedPair> {
        let given = match &flags.pfx {
            Some(file) => BroughtPair::unpacked(site, file, flags.password_file.as_deref())?,
            None => BroughtPair::read(site, flags)?,
        };
        let BroughtPair { certificate, chain, key, mut findings } = given;
        let names = site.names();
        findings.extend(certificate::check_given(&GivenFiles {
            certificate: (&certificate.0, &certificate.1),
            key: (&key.0, &key.1),
            chain: chain.as_ref().map(|(path, chain)| (path.as_path(), chain.as_slice())),
            names: &names,
            now: SystemTime::now(),
            is_trusted: &|leaf, others| site.is_trusted(leaf, others),
        }));
        let (refused, warnings): (Vec<_>, Vec<_>) =
            findings.into_iter().partition(|finding| finding.severity == Severity::Refuse);
        if !refused.is_empty() {
            let lines: Vec<String> = refused.iter().map(ToString::to_string).collect();
            return Err(Exit::Unusable.because(lines.join("\n")));
        }
        let mut warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        if flags.pfx.is_none() && flags.key.is_none() && key.0 == certificate.0 {
            warnings.push(format!(
                "--cert {}: the private key in it is stored in a separate file, which only root can read",
                key.0.display()
            ));
        }
        let parts = [Some(certificate.1), chain.map(|(_, chain)| chain)];
        let certificates = parts.iter().flatten();
        let certificate = certificates.filter_map(|part| certificate::certificates_only(part)).flatten().collect();
        Ok(ImportedPair { certificate, key: key.1, warnings })
    }
}

/// A path, and what stands there.
type GivenPart = (PathBuf, Zeroizing<Vec<u8>>);

/// What was brought along, not yet checked as a pair.
struct BroughtPair {
    certificate: GivenPart,
    chain: Option<GivenPart>,
    key: GivenPart,
    findings: Vec<CertificateFinding>,
}

impl BroughtPair {
    /// From files of their own.
    fn read(site: &Session, flags: &CertInstall) -> Result<BroughtPair> {
        let host = &site.host;
        let file = flags.cert.as_deref().context("--cert is missing")?;
        let (entry, certificate) = read_bytes(host, "--cert", file)?;
        let certificate = Zeroizing::new(certificate);
        let mut findings = open_keys(file, &entry, &certificate);
        let chain = match &flags.chain {
            Some(path) => {
                let (entry, chain) = read_bytes(host, "--chain", path)?;
                let chain = Zeroizing::new(chain);
                findings.extend(open_keys(path, &entry, &chain));
                Some((path.clone(), chain))
            }
            None => None,
        };
        let key = match &flags.key {
            Some(path) => {
                let (entry, key) = read_bytes(host, "--key", path)?;
                // Root's copy is no secret where everybody has read the original.
                let open = certificate::permission_findings(path, entry.mode, 0);
                findings.extend(open);
                (path.clone(), Zeroizing::new(key))
            }
            None => present_key(site, file, &certificate)?,
        };
        Ok(BroughtPair { certificate: (file.to_owned(), certificate), chain, key, findings })
    }

    /// From one file of PKCS#12, whose password keeps its key.
    fn unpacked(site: &Session, file: &Path, password_file: Option<&Path>) -> Result<BroughtPair> {
        let UnpackedPfx { certificates, key } = unpack_pfx(site, file, password_file)?;
        Ok(BroughtPair {
            certificate: (file.to_owned(), Zeroizing::new(certificates)),
            chain: None,
            key: (file.to_owned(), key),
            findings: Vec::new(),
        })
    }
}

/// What is wrong with the file of a certificate where a key stands in it, too, that every account may read.
fn open_keys(path: &Path, entry: &PathInfo, pem: &[u8]) -> Vec<CertificateFinding> {
    if certificate::holds_key(pem) { certificate::permission_findings(path, entry.mode, 0) } else { Vec::new() }
}

pub(super) fn read_bytes(host: &Host, flag: &str, path: &Path) -> Result<(PathInfo, Vec<u8>)> {
    let path = absolute_path(path)?;
    match host.look_and_read(&host.followed(&path)?)? {
        Some((entry, Some(bytes))) => Ok((entry, bytes)),
        Some((_, None)) => Err(Exit::Unusable.because(format!("{flag} {path}: not a regular file"))),
        None => Err(Exit::Unusable.because(format!("{flag} {path}: no such file"))),
    }
}

/// The key that the certificate was requested with: the one that waits, the one in use, or the one beside it.
fn present_key(site: &Session, path: &Path, certificate: &[u8]) -> Result<(PathBuf, Zeroizing<Vec<u8>>)> {
    let file = path.display();
    let all = certificate::summarize_all(certificate, SystemTime::now())
        .map_err(|why| Exit::Unusable.because(format!("--cert {file}: {why:#}")))?;
    if all.is_empty() {
        return Err(Exit::Unusable.because(format!("--cert {file}: it holds no certificate in PEM form")));
    }
    let (_, present, _) = site.certificate_files();
    for present in [waiting_key(site), present] {
        if let Some(key) = site.host.read(&site.host.followed(&present)?)? {
            let key = Zeroizing::new(key);
            if certificate::key_fits_certificate(certificate, &key) {
                return Ok((present.into(), key));
            }
        }
    }
    if let Some(key) = certificate::key_only(certificate)
        && certificate::key_fits_certificate(certificate, &key)
    {
        return Ok((path.to_path_buf(), key));
    }
    Err(Exit::Unusable.because(format!(
        "--cert {file}: no key of this site matches it; give its key with --key, or have the request of `camcops-provision cert csr` signed"
    )))
}
