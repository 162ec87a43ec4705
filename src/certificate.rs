//! The server's TLS certificate: one of our own making, or a given one checked.
//!
//! Nothing here touches a file: bytes come in, and what is wrong with them goes out. [`self_signed`] makes a pair for
//! trying things out, [`still_serves`] says whether an earlier pair is still right, and [`check_given()`] finds everything
//! that is wrong with the files that an administrator brought along.

pub(crate) mod authority;
mod check;
mod order;
mod pem;
mod read;
#[cfg(test)]
mod tests;

use crate::base::terminal;
use anyhow::{Context, Result, anyhow, bail, ensure};
pub(crate) use check::{CertificateFinding, GivenFiles, Severity, check_given, check_served, permission_findings};
pub(crate) use order::order_by_key;
pub(crate) use pem::encode_base64;
pub(crate) use pem::{certificates_only, holds_key, key_only};
use rcgen::string::PrintableString;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use read::{HostName, PrivateKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Serialize;
use std::fmt;
use std::time::SystemTime;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;
use x509_parser::x509::AttributeTypeAndValue;
use zeroize::Zeroizing;

/// The longest life of a server certificate that Apple's devices accept is 825 days; ours begins an hour early.
pub(crate) const LONGEST_LIFE_DAYS: u32 = 824;

/// What a self-signed certificate says about the server.
#[derive(Debug, Clone, Default)]
pub struct Subject {
    /// Two-letter country code.
    pub country: Option<String>,
    /// State, province or county.
    pub state_or_province: Option<String>,
    /// Town.
    pub locality: Option<String>,
    /// Institution.
    pub organization: Option<String>,
    /// Host names and IP addresses that the server answers to; the first is the common name.
    pub names: Vec<String>,
    /// Days of validity.
    pub days: u32,
}

impl Subject {
    fn parsed_names(&self) -> Result<Vec<HostName>> {
        let mut names = Vec::new();
        for name in &self.names {
            let name = HostName::parse(name)?;
            if !names.contains(&name) {
                names.push(name);
            }
        }
        ensure!(!names.is_empty(), "a certificate needs at least one host name or IP address: set web.server_names");
        Ok(names)
    }

    fn parameters(&self) -> Result<CertificateParams> {
        let names = self.parsed_names()?;
        let mut certificate = CertificateParams::default();
        certificate.distinguished_name = self.distinguished_name(&names)?;
        certificate.subject_alt_names = names
            .into_iter()
            .map(|name| {
                Ok(match name {
                    HostName::Host(host) => SanType::DnsName(host.try_into()?),
                    HostName::Address(address) => SanType::IpAddress(address),
                })
            })
            .collect::<Result<_>>()?;
        Ok(certificate)
    }

    fn distinguished_name(&self, names: &[HostName]) -> Result<DistinguishedName> {
        let mut subject = DistinguishedName::new();
        if let Some(country) = non_empty_field(&self.country) {
            let country = country.to_ascii_uppercase();
            ensure!(
                country.len() == 2 && country.bytes().all(|b| b.is_ascii_uppercase()),
                "tls.country is \"{country}\": write the two letters of the country's code, such as GB"
            );
            let country = PrintableString::try_from(country)?;
            subject.push(DnType::CountryName, DnValue::PrintableString(country));
        }
        for (key, kind, value, longest) in [
            ("state_or_province", DnType::StateOrProvinceName, &self.state_or_province, 128),
            ("locality", DnType::LocalityName, &self.locality, 128),
            ("organization", DnType::OrganizationName, &self.organization, 64),
        ] {
            if let Some(value) = non_empty_field(value) {
                let length = value.chars().count();
                ensure!(
                    length <= longest,
                    "tls.{key} has {length} characters: a certificate has room for {longest}, so shorten it"
                );
                subject.push(kind, value);
            }
        }
        let common = names.iter().map(HostName::to_string).find(|name| name.len() <= 64);
        subject.push(DnType::CommonName, common.unwrap_or_else(|| "CamCOPS".into()));
        Ok(subject)
    }
}

fn non_empty_field(field: &Option<String>) -> Option<&str> {
    field.as_deref().map(str::trim).filter(|text| !text.is_empty())
}

/// A certificate and its private key.
#[derive(Clone)]
pub struct Pair {
    /// PEM text.
    pub certificate: String,
    /// PEM text, PKCS#8; wiped when dropped.
    pub key: Zeroizing<String>,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").field("certificate", &self.certificate).field("key", &"…").finish()
    }
}

/// Makes a key and a certificate that vouches for itself.
pub fn self_signed(subject: &Subject, now: SystemTime) -> Result<Pair> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("can't make the server's key")?;
    signed_with(&key, Zeroizing::new(key.serialize_pem()), subject, now)
}

/// Makes a certificate for the key of an earlier one; a key too, where that one is not as ours are.
///
/// A key and its certificate are two files, and a run may end between them: only a key that stays fits at any moment.
pub(crate) fn renew_certificate(key_pem: &str, subject: &Subject, now: SystemTime) -> Result<Pair> {
    match KeyPair::from_pem_and_sign_algo(key_pem, &PKCS_ECDSA_P256_SHA256) {
        Ok(key) => signed_with(&key, Zeroizing::new(key_pem.to_owned()), subject, now),
        Err(_) => self_signed(subject, now),
    }
}

fn signed_with(key: &KeyPair, key_pem: Zeroizing<String>, subject: &Subject, now: SystemTime) -> Result<Pair> {
    ensure!(
        (1..=LONGEST_LIFE_DAYS).contains(&subject.days),
        "tls.days is {}: choose 1 to {LONGEST_LIFE_DAYS}, because Apple's devices refuse a server certificate with a \
         longer life",
        subject.days
    );
    let now = OffsetDateTime::from(now);
    let mut certificate = subject.parameters()?;
    certificate.serial_number = Some(serial_number()?);
    // Tablets' clocks run late.
    certificate.not_before = now - Duration::hours(1);
    certificate.not_after = now + Duration::days(subject.days.into());
    // iOS and Android offer to trust a certificate by hand only if it calls itself a CA; Windows does not mind. Without
    // keyCertSign it still can't vouch for any other server, so a stolen key is worth no more than this server.
    certificate.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    certificate.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    certificate.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let signed = certificate.self_signed(key).context("can't make the self-signed certificate")?;
    Ok(Pair { certificate: signed.pem(), key: key_pem })
}

/// A new key, as PEM text.
pub(crate) fn new_key() -> Result<Zeroizing<String>> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("can't make the server's key")?;
    Ok(Zeroizing::new(key.serialize_pem()))
}

/// Asks an authority for a certificate for a key: a request, as PEM text.
pub(crate) fn create_request(key_pem: &str, subject: &Subject) -> Result<String> {
    let key = KeyPair::from_pem(key_pem).context("this type of key can't sign a request here; use --new-key")?;
    ensure!(
        key.algorithm() != &rcgen::PKCS_ED25519,
        "it is an Ed25519 key, which browsers refuse in a certificate; use --new-key"
    );
    let request = subject.parameters()?.serialize_request(&key)?;
    Ok(request.pem()?)
}

/// Whether one of the certificates of a PEM file was issued for a key.
pub(crate) fn key_fits_certificate(certificates_pem: &[u8], key_pem: &[u8]) -> bool {
    let (Some(key), Ok(blocks)) = (only_key(key_pem), read::read_blocks(certificates_pem)) else {
        return false;
    };
    let mut certificates = blocks.iter().filter(|block| read::is_certificate(block));
    certificates.any(|block| {
        X509Certificate::from_der(&block.contents).is_ok_and(|(_, one)| key.fits(one.public_key()) == Some(true))
    })
}

fn serial_number() -> Result<SerialNumber> {
    let mut bytes = [0; 16];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        bail!("the system gave no random numbers for the certificate's serial number: try again");
    }
    // Positive, and never shorter than 128 bits.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// Whether an earlier self-signed pair is still right; the error completes "it is made anew because …".
pub(crate) fn still_serves(certificate_pem: &[u8], key_pem: &[u8], subject: &Subject, now: SystemTime) -> Result<()> {
    let der =
        first_certificate(certificate_pem).map_err(|error| anyhow!("the certificate can't be read ({error:#})"))?;
    let (_, certificate) = X509Certificate::from_der(&der).map_err(|_| anyhow!("the certificate can't be read"))?;
    if !read::self_signed(&certificate) {
        let issuer = read::distinguished_name(certificate.issuer());
        bail!("the certificate is not self-signed ({issuer} issued it)");
    }
    same_server(&certificate, key_pem, subject)?;
    in_time(&certificate, now)
}

/// Whether it is for this key and says of the server what it should.
fn same_server(certificate: &X509Certificate<'_>, key_pem: &[u8], subject: &Subject) -> Result<()> {
    let key = only_key(key_pem).context("its key can't be read")?;
    ensure!(key.fits(certificate.public_key()) == Some(true), "its key belongs to another certificate");
    let names = read::certificate_names(certificate);
    if let Some(missing) = subject.parsed_names()?.iter().find(|name| !read::is_covered(name, &names)) {
        bail!("it does not cover {missing}");
    }
    same_fields(certificate, subject)
}

fn same_fields(certificate: &X509Certificate<'_>, subject: &Subject) -> Result<()> {
    let name = certificate.subject();
    let country = non_empty_field(&subject.country).map(str::to_ascii_uppercase);
    for (what, has, wants) in [
        ("country", attribute_text(name.iter_country().next()), country.as_deref()),
        (
            "state or province",
            attribute_text(name.iter_state_or_province().next()),
            non_empty_field(&subject.state_or_province),
        ),
        ("locality", attribute_text(name.iter_locality().next()), non_empty_field(&subject.locality)),
        ("organization", attribute_text(name.iter_organization().next()), non_empty_field(&subject.organization)),
    ] {
        if has != wants {
            let shown = |field: Option<&str>| {
                field.map_or("empty".into(), |text| format!("\"{}\"", read::printable_text(text)))
            };
            bail!("its {what} is {}, but should be {}", shown(has), shown(wants));
        }
    }
    Ok(())
}

fn attribute_text<'a>(field: Option<&'a AttributeTypeAndValue<'_>>) -> Option<&'a str> {
    field.and_then(|field| field.as_str().ok())
}

/// The last twelfth of its life or the last seven days, whichever is longer, but never more than half of its life.
fn in_time(certificate: &X509Certificate<'_>, now: SystemTime) -> Result<()> {
    let now = OffsetDateTime::from(now);
    let (begins, ends) = validity_times(certificate);
    let life = ends - begins;
    let early: Duration = (life / 12i32).max(Duration::days(7)).min(life / 2i32);
    ensure!(
        now >= begins,
        "it is valid only from {}: the clock was wrong when it was made, or is wrong now",
        begins.date()
    );
    ensure!(now <= ends, "it expired on {}", ends.date());
    ensure!(now <= ends - early, "it expires on {}", ends.date());
    Ok(())
}

fn validity_times(certificate: &X509Certificate<'_>) -> (OffsetDateTime, OffsetDateTime) {
    let validity = certificate.validity();
    (validity.not_before.to_datetime(), validity.not_after.to_datetime())
}

fn parse_certificates(pem: &[u8]) -> Result<Vec<Pem>> {
    read::read_blocks(pem).map_err(|problem| match problem {
        read::Unreadable::TooLong(how) => anyhow!("{how}"),
        _ => anyhow!("it holds no certificate in PEM form, or a damaged one"),
    })
}

fn first_certificate(pem: &[u8]) -> Result<Vec<u8>> {
    let blocks = parse_certificates(pem)?;
    blocks.into_iter().find(read::is_certificate).map(|block| block.contents).context("it holds no certificate")
}

fn only_key(pem: &[u8]) -> Option<PrivateKey> {
    let block = read::read_blocks(pem).ok()?.into_iter().find(read::is_private_key)?;
    let der = Zeroizing::new(block.contents);
    PrivateKey::parse(&block.label, &der).ok()
}

/// What `status` shows of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct CertificateSummary {
    pub(crate) subject: String,
    /// Who signed it.
    pub(crate) issuer: String,
    /// Host names and IP addresses.
    pub(crate) names: Vec<String>,
    /// Beginning of its validity, RFC 3339.
    pub(crate) not_before: String,
    /// End of its validity, RFC 3339.
    pub(crate) not_after: String,
    /// Whole days left; negative once it has expired.
    pub(crate) days_left: i64,
    /// SHA-256 fingerprint, as `openssl x509 -fingerprint -sha256` prints it.
    pub(crate) fingerprint_sha256: String,
    /// Whether it vouches for itself.
    pub(crate) self_signed: bool,
}

impl CertificateSummary {
    /// How long it is good for, or since when it is not.
    pub(crate) fn left(&self) -> String {
        let days = terminal::count_of(self.days_left.unsigned_abs() as usize, "day");
        match self.days_left {
            0.. => format!("{days} left"),
            _ => format!("expired {days} ago"),
        }
    }
}

/// Describes the first certificate of a PEM file.
pub(crate) fn summarize_first(pem: &[u8], now: SystemTime) -> Result<CertificateSummary> {
    summary_of(&first_certificate(pem)?, now)
}

/// Describes all certificates of a PEM file.
pub(crate) fn summarize_all(pem: &[u8], now: SystemTime) -> Result<Vec<CertificateSummary>> {
    let blocks = parse_certificates(pem)?;
    let certificates = blocks.iter().filter(|block| read::is_certificate(block));
    certificates.map(|block| summary_of(&block.contents, now)).collect()
}

/// Describes a certificate as it travels.
pub(crate) fn summary_of(der: &[u8], now: SystemTime) -> Result<CertificateSummary> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| anyhow!("it can't be read: {error}"))?;
    let (begins, ends) = validity_times(&certificate);
    let left = ends - OffsetDateTime::from(now);
    let digest = ring::digest::digest(&ring::digest::SHA256, der);
    let fingerprint: Vec<_> = digest.as_ref().iter().map(|b| format!("{b:02X}")).collect();
    Ok(CertificateSummary {
        subject: read::printable_text(&certificate.subject().to_string()),
        issuer: read::printable_text(&certificate.issuer().to_string()),
        names: read::certificate_names(&certificate).iter().map(HostName::to_string).collect(),
        not_before: begins.format(&Rfc3339)?,
        not_after: ends.format(&Rfc3339)?,
        days_left: left.whole_seconds().div_euclid(86_400),
        fingerprint_sha256: fingerprint.join(":"),
        self_signed: read::self_signed(&certificate),
    })
}
