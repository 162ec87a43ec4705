//! Everything that is wrong with a given pair of files, all at once.

mod chain;
mod files;

use super::read::{self, HostName, PrivateKey, Worth};
use super::validity_times;
use crate::base::text::shell_word;
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use time::{Duration, OffsetDateTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::signature_algorithm::RsaSsaPssParams;

/// MD2, MD5 and SHA-1 with RSA, SHA-1 with ECDSA and with DSA.
const BROKEN_SIGNATURES: [&str; 6] = [
    "1.2.840.113549.1.1.2",
    "1.2.840.113549.1.1.4",
    "1.2.840.113549.1.1.5",
    "1.3.14.3.2.29",
    "1.2.840.10045.4.1",
    "1.2.840.10040.4.3",
];
const RSA_PSS: &str = "1.2.840.113549.1.1.10";
const SHA1: &str = "1.3.14.3.2.26";

/// What OpenSSL, and so the tablets' application, takes of a server at most: the server's certificate with its chain.
const LONGEST_CHAIN: usize = 100 * 1024;
/// Authorities give a hundred names, some 250.
const MOST_NAMES: usize = 500;
/// How many names a message lists.
const LISTED: usize = 8;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// The site would not work, or not safely.
    Refuse,
    /// It works, for now or for most.
    Warn,
}

/// One thing that is wrong; `{file} {what}: {remedy}` is a sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct CertificateFinding {
    /// How bad it is.
    pub(crate) severity: Severity,
    /// The file that has to change.
    pub(crate) file: PathBuf,
    /// What is wrong with it, and why that matters.
    pub(crate) what: String,
    /// What to do next.
    pub(crate) remedy: String,
}

impl fmt::Display for CertificateFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.file.display(), self.what, self.remedy)
    }
}

/// Whether a certificate is accepted with these others, all as they travel.
pub(crate) type IsTrusted<'a> = dyn Fn(&[u8], &[&[u8]]) -> bool + 'a;

/// The files of `tls.mode = "files"`, each with its path and its bytes.
pub(crate) struct GivenFiles<'a> {
    /// The server's certificate, and perhaps its chain after it.
    pub(crate) certificate: (&'a Path, &'a [u8]),
    /// The private key.
    pub(crate) key: (&'a Path, &'a [u8]),
    /// The rest of the chain.
    pub(crate) chain: Option<(&'a Path, &'a [u8])>,
    /// Host names and IP addresses that the server answers to.
    pub(crate) names: &'a [String],
    /// The time to judge validity by.
    pub(crate) now: SystemTime,
    /// Whether this machine's own trust store accepts the server's certificate with these others, all as they travel.
    pub(crate) is_trusted: &'a IsTrusted<'a>,
}

/// Finds every problem of the given files; none that is [`Severity::Refuse`] means that Apache can serve them.
pub(crate) fn check_given(given: &GivenFiles<'_>) -> Vec<CertificateFinding> {
    let mut findings = Findings::default();
    let key = findings.read_key(given);
    let own = findings.read_certificates(given, given.certificate, "tls.certificate");
    let chain = given.chain.map_or_else(Vec::new, |chain| findings.read_certificates(given, chain, "tls.chain"));
    if !findings.fits_a_handshake(given.certificate.0, own.iter().chain(&chain)) {
        return findings.0;
    }
    let own = findings.parse(given.certificate.0, &own);
    let own_count = own.len();
    let mut links = own;
    if let Some((path, _)) = given.chain {
        links.extend(findings.parse(path, &chain));
    }
    if own_count > 0 {
        let server = findings.find_server(given, key.as_ref(), &links, own_count);
        let leaf = links.remove(server);
        findings.check_server(given.names, given.now, &leaf);
        // What can't be read may hold what would be missed.
        if given.chain.is_none() || !chain.is_empty() {
            findings.check_chain(given, &leaf, &links);
        }
    }
    findings.0
}

/// Judges what a server shows, its own certificate first, as [`check_given`] judges files; `place` stands for the file.
pub(crate) fn check_served(
    place: &Path,
    chain: &[Vec<u8>],
    names: &[String],
    now: SystemTime,
) -> Vec<CertificateFinding> {
    let mut findings = Findings::default();
    if findings.fits_a_handshake(place, chain.iter())
        && let Some(leaf) = findings.parse(place, chain).first()
    {
        findings.check_server(names, now, leaf);
    }
    findings.0
}

/// What the mode and the owner of a private key's file do to its secrecy; a group may read it (Debian's `ssl-cert`).
pub(crate) fn permission_findings(key_path: &Path, mode: u32, owner_uid: u32) -> Vec<CertificateFinding> {
    let mut findings = Findings::default();
    let path = shell_word(key_path);
    if mode & 0o006 != 0 {
        findings.refuse(
            key_path,
            format!(
                "can be read or written by every account of this machine (mode {:04o}), so the key is no \
            secret",
                mode & 0o7777
            ),
            format!(
                "run `chmod 0600 {path}`, and have the certificate reissued with a new key if anybody \
            else works on this machine"
            ),
        );
    }
    if mode & 0o020 != 0 {
        findings.warn(
            key_path,
            format!("can be written by its group (mode {:04o})", mode & 0o7777),
            format!("run `chmod g-w {path}`"),
        );
    }
    if owner_uid != 0 {
        findings.warn(
            key_path,
            format!("belongs to the account number {owner_uid}, which can replace it"),
            format!("run `chown root {path}`: Apache reads it as root"),
        );
    }
    findings.0
}

struct Link<'a> {
    file: &'a Path,
    der: &'a [u8],
    certificate: X509Certificate<'a>,
}

impl Link<'_> {
    fn called(&self) -> String {
        read::distinguished_name(self.certificate.subject())
    }

    fn issued_by(&self, issuer: &Link<'_>) -> bool {
        read::same_name(self.certificate.issuer(), issuer.certificate.subject())
    }
}

#[derive(Default)]
struct Findings(Vec<CertificateFinding>);

impl Findings {
    fn add(&mut self, severity: Severity, file: &Path, what: String, remedy: String) {
        self.0.push(CertificateFinding { severity, file: file.to_path_buf(), what, remedy });
    }

    fn refuse(&mut self, file: &Path, what: impl Into<String>, remedy: impl Into<String>) {
        self.add(Severity::Refuse, file, what.into(), remedy.into());
    }

    fn warn(&mut self, file: &Path, what: impl Into<String>, remedy: impl Into<String>) {
        self.add(Severity::Warn, file, what.into(), remedy.into());
    }

    /// Whether clients would take as much as that; what they would not is not looked at any further.
    fn fits_a_handshake<'a>(&mut self, file: &Path, certificates: impl Iterator<Item = &'a Vec<u8>>) -> bool {
        let length: usize = certificates.map(Vec::len).sum();
        if length > LONGEST_CHAIN {
            self.refuse(
                file,
                format!(
                    "has {} kB of certificates with its chain, and clients refuse more than {} kB",
                    length >> 10,
                    LONGEST_CHAIN >> 10
                ),
                "give the server's own certificate, for its own names only, and the two or three that lead to the root",
            );
        }
        length <= LONGEST_CHAIN
    }

    fn parse<'a>(&mut self, file: &'a Path, certificates: &'a [Vec<u8>]) -> Vec<Link<'a>> {
        let mut links = Vec::new();
        for (index, der) in certificates.iter().enumerate() {
            match X509Certificate::from_der(der) {
                Ok((_, certificate)) => links.push(Link { file, der, certificate }),
                Err(_) => self.refuse(
                    file,
                    format!("has a damaged certificate (number {} in it)", index + 1),
                    "copy it again from its source",
                ),
            }
        }
        links
    }

    /// The position of the server's own certificate: the one that the key fits, or else the first that is not a CA's.
    fn find_server(
        &mut self,
        given: &GivenFiles<'_>,
        key: Option<&PrivateKey>,
        links: &[Link<'_>],
        own_count: usize,
    ) -> usize {
        let fits = |link: &Link<'_>| key.and_then(|key| key.fits(link.certificate.public_key()));
        let server = links
            .iter()
            .position(|link| fits(link) == Some(true))
            .or_else(|| links[..own_count].iter().position(|link| !link.certificate.is_ca()))
            .unwrap_or(0);
        let link = &links[server];
        if fits(link) == Some(false) {
            self.refuse(
                given.key.0,
                format!("is not the key of {} in {}", link.called(), given.certificate.0.display()),
                "give the key that this certificate was requested with, or have the certificate reissued for \
                this key",
            );
            if let Some(bits) = key.and_then(PrivateKey::rsa_bits).filter(|bits| *bits < 2048) {
                self.refuse(
                    given.key.0,
                    format!("is an RSA key of only {bits} bits, which clients refuse"),
                    "make a new key, of P-256 or of RSA with at least 2048 bits",
                );
            }
        }
        if server >= own_count {
            self.refuse(
                link.file,
                format!(
                    "holds the server's certificate ({}), which belongs into {}",
                    link.called(),
                    given.certificate.0.display()
                ),
                "set tls.certificate to the server's certificate and tls.chain to the rest (were they swapped?)",
            );
        } else if server > 0 {
            self.refuse(
                link.file,
                format!(
                    "has the server's certificate ({}) in position {}, but it has to come first",
                    link.called(),
                    server + 1
                ),
                "move it to the top of the file, the one that issued it after it, and so on",
            );
        }
        server
    }

    fn check_server(&mut self, names: &[String], now: SystemTime, leaf: &Link<'_>) {
        let (file, certificate) = (leaf.file, &leaf.certificate);
        self.check_names(names, leaf);
        self.check_dates(now, leaf, "");
        self.check_strength(leaf, "");
        let self_signed = read::self_signed(certificate);
        let signs = match certificate.key_usage() {
            Ok(Some(usage)) => usage.value.key_cert_sign(),
            _ => true,
        };
        // Our own calls itself a CA, too, for tablets take no other, but may sign nothing.
        if certificate.is_ca() && self_signed && signs {
            self.refuse(
                file,
                "may issue certificates (CA:TRUE), so clients that trust it also trust everything its key signs",
                "make it with basicConstraints=CA:FALSE, or with `camcops-provision config unset tls.mode` and \
                `camcops-provision install`",
            );
        }
        if certificate.is_ca() && !self_signed {
            self.refuse(
                file,
                format!("has the certificate of an authority ({}) where the server's own belongs", leaf.called()),
                "set tls.certificate to the certificate that was issued for this server",
            );
        }
        if let Ok(Some(usage)) = certificate.extended_key_usage()
            && !usage.value.server_auth
            && !usage.value.any
        {
            self.refuse(
                file,
                "is not meant for servers (its extendedKeyUsage lacks serverAuth)",
                "have it reissued as a TLS server certificate",
            );
        }
        if let Ok(Some(usage)) = certificate.key_usage()
            && !usage.value.digital_signature()
        {
            self.warn(
                file,
                "may not be used for signatures (its keyUsage lacks digitalSignature), which current TLS needs",
                "have it reissued with digitalSignature, or some clients will refuse it",
            );
        }
        let (begins, ends) = validity_times(certificate);
        if ends - begins > Duration::days(825) {
            self.warn(
                file,
                format!("is valid for {} days, and Apple's devices refuse more than 825", (ends - begins).whole_days()),
                "have it reissued with a shorter life if there are iPads, iPhones or Macs",
            );
        }
    }

    fn check_names(&mut self, names: &[String], leaf: &Link<'_>) {
        let has = read::certificate_names(&leaf.certificate);
        if has.len() > MOST_NAMES {
            self.refuse(
                leaf.file,
                format!("is for {} names, and authorities give a hundred", has.len()),
                "have it reissued for the names of this server only",
            );
            return;
        }
        let wide: Vec<_> = has.iter().filter(|name| read::is_too_wide(name)).collect();
        if !wide.is_empty() {
            self.refuse(
                leaf.file,
                format!(
                    "is for {}, and no client accepts a wildcard that covers the servers of many",
                    list_names(wide)
                ),
                "have it reissued for the names of this server",
            );
        }
        if has.is_empty() {
            self.refuse(
                leaf.file,
                "has no subjectAltName, and clients no longer read the server's name from the common name",
                "have it reissued with every name of the server as subjectAltName",
            );
            return;
        }
        let mut missing = Vec::new();
        let mut textual = Vec::new();
        for name in names {
            match HostName::parse(name) {
                Ok(name) if read::is_covered(&name, &has) => (),
                Ok(name @ HostName::Address(_)) if has.contains(&HostName::Host(name.to_string())) => {
                    textual.push(name.to_string());
                }
                Ok(name) => missing.push(name.to_string()),
                Err(_) => missing.push(read::printable_text(name)),
            }
        }
        if !missing.is_empty() {
            self.refuse(
                leaf.file,
                format!("does not cover {} (it covers {})", missing.join(", "), list_names(has.iter())),
                "have it reissued with these names too, or remove them from web.server_names",
            );
        }
        if !textual.is_empty() {
            self.refuse(
                leaf.file,
                format!("has {} as a host name, and clients look for an IP address entry", textual.join(", ")),
                "have it reissued with an entry of the kind IP in its subjectAltName",
            );
        }
    }

    fn check_dates(&mut self, now: SystemTime, link: &Link<'_>, whose: &str) {
        let now = OffsetDateTime::from(now);
        let (begins, ends) = validity_times(&link.certificate);
        let renew = "renew it and give the new file";
        if now < begins {
            self.refuse(
                link.file,
                format!("{whose}is valid only from {begins}", begins = begins.date()),
                "wait until then, or set this machine's clock if it is wrong",
            );
        } else if now > ends {
            self.refuse(link.file, format!("{whose}expired on {}", ends.date()), renew);
        } else if ends - now < Duration::days(30) {
            self.warn(link.file, format!("{whose}expires on {}", ends.date()), renew);
        }
    }

    fn check_strength(&mut self, link: &Link<'_>, whose: &str) {
        match read::key_worth(link.certificate.public_key()) {
            Worth::Good => (),
            Worth::Narrow(kind) if whose.is_empty() => self.refuse(
                link.file,
                format!("has {kind}, which Chrome, Edge and Android's browsers can't use"),
                "have it reissued for a P-256 key, or for RSA with at least 2048 bits",
            ),
            Worth::Narrow(kind) => self.warn(
                link.file,
                format!("{whose}has {kind}, which many browsers and tablets can't use"),
                "have it reissued for a P-256 or RSA key",
            ),
            Worth::Refused(kind) => self.refuse(
                link.file,
                format!("{whose}has {kind}, which clients refuse"),
                "have it reissued for a P-256 key, or for RSA with 2048 to 8192 bits",
            ),
        }
        if read::signed_with_ed25519(&link.certificate)
            && !matches!(read::key_worth(link.certificate.public_key()), Worth::Refused(_))
        {
            self.refuse(
                link.file,
                format!("{whose}is signed with Ed25519, which browsers can't verify"),
                "have it reissued by an authority with a P-256, P-384 or RSA key",
            );
        }
        if broken_signature(&link.certificate) {
            self.refuse(
                link.file,
                format!("{whose}is signed with SHA-1 or older, which clients refuse"),
                "have it reissued with SHA-256",
            );
        }
    }
}

/// The names, or the first of them.
fn list_names<'a>(names: impl IntoIterator<Item = &'a HostName>) -> String {
    let names: Vec<_> = names.into_iter().map(HostName::to_string).collect();
    match names.len().checked_sub(LISTED) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more", names[..LISTED].join(", ")),
    }
}

fn broken_signature(certificate: &X509Certificate<'_>) -> bool {
    let algorithm = &certificate.signature_algorithm;
    let id = algorithm.algorithm.to_id_string();
    if id == RSA_PSS {
        let parameters = algorithm.parameters.as_ref().map(RsaSsaPssParams::try_from);
        return matches!(parameters, Some(Ok(parameters)) if parameters.hash_algorithm_oid().to_id_string() == SHA1);
    }
    BROKEN_SIGNATURES.contains(&id.as_str())
}
