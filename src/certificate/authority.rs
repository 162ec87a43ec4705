//! An authority of the site's own: made once, trusted once, and good for the names of this site alone.
//!
//! Who trusts it trusts every certificate that it signs. So its certificate names what it may sign for, and a stolen key
//! vouches for no other server.

use super::read::{self, HostName};
use super::{
    LONGEST_LIFE_DAYS, Pair, Subject, first_certificate, in_time, only_key, same_server, serial_number, validity_times,
};
use anyhow::{Context, Result, anyhow, bail, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256,
};
use std::net::IpAddr;
use std::time::SystemTime;
use time::{Duration, OffsetDateTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

/// To trust another one is work for everybody who uses the site.
const LIFE_DAYS: i64 = 3652;
/// A name that nobody has: where only addresses may be signed for, some name has to be permitted for all others to be not.
const NOBODY: &str = "nobody.invalid";

/// Makes one for the names of a site.
pub(crate) fn new_authority(subject: &Subject, now: SystemTime) -> Result<Pair> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("can't make the authority's key")?;
    let names = subject.parsed_names()?;
    let now = OffsetDateTime::from(now);
    let mut authority = CertificateParams::default();
    let first = names.iter().map(HostName::to_string).find(|name| name.len() <= 24);
    let name = format!("CamCOPS authority of {} ({})", first.as_deref().unwrap_or("this site"), now.date());
    authority.distinguished_name = named(&name);
    authority.serial_number = Some(serial_number()?);
    authority.not_before = now - Duration::hours(1);
    authority.not_after = now + Duration::days(LIFE_DAYS);
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority.name_constraints = Some(constraints_of(&names));
    let made = authority.self_signed(&key).context("can't make the authority's certificate")?;
    Ok(Pair { certificate: made.pem(), key: Zeroizing::new(key.serialize_pem()) })
}

fn named(name: &str) -> DistinguishedName {
    let mut all = DistinguishedName::new();
    all.push(DnType::CommonName, name);
    all
}

/// Nothing but these names, and what stands below them.
fn constraints_of(names: &[HostName]) -> NameConstraints {
    let mut permitted: Vec<GeneralSubtree> = names
        .iter()
        .map(|name| match name {
            HostName::Host(host) => GeneralSubtree::DnsName(host.clone()),
            HostName::Address(address @ IpAddr::V4(_)) => {
                GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(*address, 32))
            }
            HostName::Address(address) => GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(*address, 128)),
        })
        .collect();
    if !names.iter().any(|name| matches!(name, HostName::Host(_))) {
        permitted.push(GeneralSubtree::DnsName(NOBODY.into()));
    }
    // What no name of its kind is permitted for would be free.
    let no_address = !names.iter().any(|name| matches!(name, HostName::Address(_)));
    let every_address = [CidrSubnet::V4([0; 4], [0; 4]), CidrSubnet::V6([0; 16], [0; 16])];
    let excluded = every_address.into_iter().filter(|_| no_address).map(GeneralSubtree::IpAddress);
    NameConstraints { permitted_subtrees: permitted, excluded_subtrees: excluded.collect() }
}

/// Has an authority sign for a key that is there, or for a new one.
pub(crate) fn sign_certificate(
    authority: &Pair,
    key: Option<&str>,
    subject: &Subject,
    now: SystemTime,
) -> Result<Pair> {
    ensure!(
        (1..=LONGEST_LIFE_DAYS).contains(&subject.days),
        "tls.days is {}: choose 1 to {LONGEST_LIFE_DAYS}",
        subject.days
    );
    let present = key.and_then(|pem| Some((KeyPair::from_pem_and_sign_algo(pem, &PKCS_ECDSA_P256_SHA256).ok()?, pem)));
    let (key, key_pem) = match present {
        Some((key, pem)) => (key, Zeroizing::new(pem.to_owned())),
        None => {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("can't make the server's key")?;
            let pem = Zeroizing::new(key.serialize_pem());
            (key, pem)
        }
    };
    let der = first_certificate(authority.certificate.as_bytes())?;
    let (_, own) = X509Certificate::from_der(&der).map_err(|_| anyhow!("the authority's certificate can't be read"))?;
    let name = own.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    let now = OffsetDateTime::from(now);
    let mut certificate = subject.parameters()?;
    certificate.serial_number = Some(serial_number()?);
    // Tablets' clocks run late.
    certificate.not_before = (now - Duration::hours(1)).max(validity_times(&own).0);
    certificate.not_after = (now + Duration::days(subject.days.into())).min(validity_times(&own).1);
    certificate.is_ca = IsCa::ExplicitNoCa;
    certificate.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    certificate.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    certificate.use_authority_key_identifier_extension = true;
    let mut issuer = CertificateParams::default();
    issuer.distinguished_name = named(name.context("the authority's certificate has no name")?);
    issuer.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let signs = KeyPair::from_pem_and_sign_algo(&authority.key, &PKCS_ECDSA_P256_SHA256)
        .context("the authority's key can't be read")?;
    let signed = certificate.signed_by(&key, &Issuer::new(issuer, signs)).context("can't sign the certificate")?;
    Ok(Pair { certificate: signed.pem(), key: key_pem })
}

/// Whether an authority can sign for these names; the error completes "a new one is made because ...".
pub(crate) fn authority_serves(authority: &Pair, subject: &Subject, now: SystemTime) -> Result<()> {
    let der =
        first_certificate(authority.certificate.as_bytes()).map_err(|why| anyhow!("it can't be read ({why:#})"))?;
    let (_, certificate) = X509Certificate::from_der(&der).map_err(|_| anyhow!("it can't be read"))?;
    let key = only_key(authority.key.as_bytes()).context("its key can't be read")?;
    ensure!(key.fits(certificate.public_key()) == Some(true), "its key belongs to another certificate");
    let constraints = certificate.extensions().iter().find_map(|one| match one.parsed_extension() {
        ParsedExtension::NameConstraints(constraints) => constraints.permitted_subtrees.as_ref(),
        _ => None,
    });
    let permitted = constraints.context("it may sign for any name")?;
    let is_permitted = |name: &HostName| permitted.iter().any(|subtree| covers(&subtree.base, name));
    if let Some(other) = subject.parsed_names()?.iter().find(|name| !is_permitted(name)) {
        bail!("it may not sign for {other}");
    }
    in_time(&certificate, now)
}

fn covers(permitted: &GeneralName<'_>, name: &HostName) -> bool {
    match (permitted, name) {
        (GeneralName::DNSName(permitted), HostName::Host(host)) => {
            let above = host.strip_suffix(&permitted.to_ascii_lowercase());
            above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
        }
        // An address and its mask, which is that of a single one.
        (GeneralName::IPAddress(bytes), HostName::Address(IpAddr::V4(address))) => {
            bytes.get(..4) == Some(&address.octets()) && bytes.len() == 8
        }
        (GeneralName::IPAddress(bytes), HostName::Address(IpAddr::V6(address))) => {
            bytes.get(..16) == Some(&address.octets()) && bytes.len() == 32
        }
        _ => false,
    }
}

/// Whether an authority has signed a certificate.
pub(crate) fn is_signed_by(certificate: &str, authority: &str) -> bool {
    let (Ok(own), Ok(der)) = (first_certificate(authority.as_bytes()), first_certificate(certificate.as_bytes()))
    else {
        return false;
    };
    let (Ok((_, own)), Ok((_, certificate))) = (X509Certificate::from_der(&own), X509Certificate::from_der(&der))
    else {
        return false;
    };
    is_issued(&certificate, &own)
}

fn is_issued(certificate: &X509Certificate<'_>, authority: &X509Certificate<'_>) -> bool {
    certificate.issuer() == authority.subject() && certificate.verify_signature(Some(authority.public_key())).is_ok()
}

/// Whether an earlier pair is still right, and signed by this authority; the error completes "it is made anew because ...".
pub(crate) fn still_signed(pair: (&[u8], &[u8]), authority: &str, subject: &Subject, now: SystemTime) -> Result<()> {
    let unreadable = || anyhow!("the certificate can't be read");
    let (own, der) = (first_certificate(authority.as_bytes())?, first_certificate(pair.0).map_err(|_| unreadable())?);
    let (_, own) = X509Certificate::from_der(&own).map_err(|_| anyhow!("the authority can't be read"))?;
    let (_, certificate) = X509Certificate::from_der(&der).map_err(|_| unreadable())?;
    if !is_issued(&certificate, &own) {
        let issuer = read::distinguished_name(certificate.issuer());
        bail!("the site's own authority did not sign it, but {issuer}");
    }
    same_server(&certificate, pair.1, subject)?;
    in_time(&certificate, now)
}
