//! What is inside the files: PEM blocks, names, keys.

use anyhow::{Context, Result, anyhow, ensure};
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use std::net::IpAddr;
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::ber::{BerObject, BerObjectContent};
use x509_parser::der_parser::der::parse_der;
use x509_parser::error::{PEMError, X509Error};
use x509_parser::extensions::GeneralName;
use x509_parser::pem::{Pem, parse_x509_pem};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Name};
use zeroize::Zeroizing;

/// No client takes more than some hundred kilobytes of certificates, so whatever is longer is something else.
const LONGEST_FILE: usize = 1 << 20;
const MOST_BLOCKS: usize = 64;

const RSA: &str = "1.2.840.113549.1.1.1";
const EC: &str = "1.2.840.10045.2.1";
const ED25519: &str = "1.3.101.112";
const P256: &str = "1.2.840.10045.3.1.7";
const P384: &str = "1.3.132.0.34";
const P521: &str = "1.3.132.0.35";
/// What Chromium still takes.
const LONGEST_RSA: usize = 8192;
/// Second labels under which the registries of countries give names to others.
const REGISTRIES: [&str; 12] = ["ac", "co", "com", "edu", "gov", "ltd", "mil", "net", "nhs", "org", "plc", "sch"];

/// A name that a server answers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HostName {
    Host(String),
    Address(IpAddr),
}

impl HostName {
    /// Lower case, without a final dot; an error says what is wrong with the name.
    pub(super) fn parse(given: &str) -> Result<HostName> {
        let bare = given.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(given);
        if let Ok(address) = bare.parse() {
            return Ok(HostName::Address(address));
        }
        ensure!(
            given.is_ascii(),
            "\"{given}\" has letters outside ASCII, which no certificate can carry: write its xn--… form \
             (`idn2 {given}` prints it)"
        );
        let host = given.strip_suffix('.').unwrap_or(given).to_ascii_lowercase();
        let labels = host.strip_prefix("*.").unwrap_or(&host);
        let sound = host.len() <= 253
            && labels.split('.').all(|label| {
                (1..=63).contains(&label.len())
                    && !label.starts_with('-')
                    && !label.ends_with('-')
                    && label
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            })
            // A last label of digits is an address gone wrong, such as 10.0.0 or 10.0.0.256.
            && !labels.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
        ensure!(sound, "\"{}\" is neither a host name nor an IP address", printable_text(given));
        Ok(HostName::Host(host))
    }
}

impl std::fmt::Display for HostName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HostName::Host(host) => f.write_str(host),
            HostName::Address(address) => address.fmt(f),
        }
    }
}

/// The names of a certificate's subjectAltName, or nothing if it has none.
pub(super) fn certificate_names(certificate: &X509Certificate<'_>) -> Vec<HostName> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    extension
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(host) => {
                Some(HostName::Host(printable_text(host.strip_suffix('.').unwrap_or(host)).to_ascii_lowercase()))
            }
            GeneralName::IPAddress(bytes) => <[u8; 4]>::try_from(*bytes)
                .map(IpAddr::from)
                .or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from))
                .ok()
                .map(HostName::Address),
            _ => None,
        })
        .collect()
}

/// Whether one of the certificate's names covers this one; a wildcard stands for exactly one label.
pub(super) fn is_covered(wanted: &HostName, names: &[HostName]) -> bool {
    names.iter().any(|name| match (wanted, name) {
        (HostName::Host(wanted), HostName::Host(name)) => {
            wanted == name
                || name.strip_prefix("*.").is_some_and(|base| {
                    base.contains('.')
                        && wanted
                            .split_once('.')
                            .is_some_and(|(label, rest)| label != "*" && !label.is_empty() && rest == base)
                })
        }
        (wanted, name) => wanted == name,
    })
}

/// Whether a name is a wildcard for what belongs to many: `*`, `*.com`, `*.co.uk`. No client takes it for a server's.
pub(super) fn is_too_wide(name: &HostName) -> bool {
    let HostName::Host(host) = name else {
        return false;
    };
    let Some(base) = host.strip_prefix('*') else {
        return false;
    };
    match base.trim_start_matches('.').split_once('.') {
        None => true,
        Some((second, country)) => country.len() == 2 && !country.contains('.') && REGISTRIES.contains(&second),
    }
}

/// Whether a certificate is signed with Ed25519, which browsers don't verify.
pub(super) fn signed_with_ed25519(certificate: &X509Certificate<'_>) -> bool {
    certificate.signature_algorithm.algorithm.to_id_string() == ED25519
}

/// Why a file is not a list of PEM blocks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    Empty,
    Binary,
    NotPem,
    Utf16,
    TooLong(String),
    Damaged(&'static str),
}

/// The PEM blocks of a file; text around them is ignored, as Apache does.
pub(super) fn read_blocks(file: &[u8]) -> Result<Vec<Pem>, Unreadable> {
    if file.len() > LONGEST_FILE {
        let size = file.len() >> 20;
        return Err(Unreadable::TooLong(format!("it has more than {size} MiB, far more than a chain of certificates")));
    }
    if file.starts_with(b"\xff\xfe") || file.starts_with(b"\xfe\xff") {
        return Err(Unreadable::Utf16);
    }
    // Whoever reads PEM passes over such a line, and over the certificate below it.
    if contains_bytes(file, b"\xef\xbb\xbf-----BEGIN ") {
        return Err(Unreadable::Damaged("a byte order mark (EF BB BF) precedes -----BEGIN"));
    }
    let mut blocks = Vec::new();
    let mut rest = file;
    loop {
        match parse_x509_pem(rest) {
            Ok(_) if blocks.len() == MOST_BLOCKS => {
                return Err(Unreadable::TooLong(format!(
                    "it has more than {MOST_BLOCKS} certificates, and a chain has two or three"
                )));
            }
            Ok((next, block)) => {
                blocks.push(block);
                rest = next;
            }
            Err(x509_parser::nom::Err::Error(PEMError::MissingHeader)) if !blocks.is_empty() => {
                return Ok(blocks);
            }
            Err(x509_parser::nom::Err::Error(PEMError::MissingHeader)) => {
                return Err(if file.trim_ascii().is_empty() {
                    Unreadable::Empty
                } else if file[0] == 0x30 && parse_der(file).is_ok() {
                    Unreadable::Binary
                } else if contains_bytes(file, b"-----BEGIN ") {
                    Unreadable::Damaged("-----BEGIN is not at the start of a line")
                } else {
                    Unreadable::NotPem
                });
            }
            Err(x509_parser::nom::Err::Error(PEMError::IncompletePEM)) => {
                return Err(Unreadable::Damaged("the last -----END line is missing"));
            }
            Err(_) => {
                return Err(Unreadable::Damaged("the text between -----BEGIN and -----END is not base64"));
            }
        }
    }
}

/// Whether a key in the older PEM form asks for a passphrase.
pub(super) fn old_style_encrypted(file: &[u8]) -> bool {
    contains_bytes(file, b"Proc-Type: 4,ENCRYPTED")
}

pub(super) fn contains_bytes(file: &[u8], text: &[u8]) -> bool {
    memchr::memmem::find(file, text).is_some()
}

pub(super) fn is_certificate(block: &Pem) -> bool {
    matches!(block.label.as_str(), "CERTIFICATE" | "X509 CERTIFICATE")
}

pub(super) fn is_private_key(block: &Pem) -> bool {
    block.label.ends_with("PRIVATE KEY")
}

/// What a kind of key is worth to the clients.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Worth {
    Good,
    Narrow(String),
    Refused(String),
}

/// A public key's kind and strength.
pub(super) fn key_worth(key: &SubjectPublicKeyInfo<'_>) -> Worth {
    let algorithm = key.algorithm.algorithm.to_id_string();
    match algorithm.as_str() {
        RSA => match rsa_bits(key) {
            Some(bits) if bits < 2048 => Worth::Refused(format!("an RSA key of only {bits} bits")),
            Some(bits) if bits > LONGEST_RSA => Worth::Refused(format!("an RSA key of {bits} bits")),
            Some(_) => Worth::Good,
            None => Worth::Refused("an RSA key that can't be read".into()),
        },
        EC => match curve_of_key(key).as_deref() {
            Some(P256 | P384) => Worth::Good,
            Some(P521) => Worth::Narrow("a P-521 key".into()),
            _ => Worth::Refused("an elliptic curve other than P-256, P-384 and P-521".into()),
        },
        ED25519 => Worth::Refused("an Ed25519 key".into()),
        other => Worth::Refused(format!("a key of an unsupported type ({other})")),
    }
}

fn rsa_bits(key: &SubjectPublicKeyInfo<'_>) -> Option<usize> {
    match key.parsed() {
        Ok(PublicKey::RSA(rsa)) => Some(count_bits(rsa.modulus)),
        _ => None,
    }
}

fn count_bits(number: &[u8]) -> usize {
    let number = strip_zeros(number);
    number.first().map_or(0, |top| number.len() * 8 - top.leading_zeros() as usize)
}

fn strip_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

fn curve_of_key(key: &SubjectPublicKeyInfo<'_>) -> Option<String> {
    let parameters = key.algorithm.parameters.as_ref()?;
    Some(parameters.as_oid().ok()?.to_id_string())
}

/// A private key, as far as it is needed to tell whose it is.
pub(super) enum PrivateKey {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    Ec { curve: String, scalar: Zeroizing<Vec<u8>>, public: Option<Vec<u8>> },
    Ed25519 { public: Vec<u8> },
}

impl PrivateKey {
    /// Reads PKCS#8, PKCS#1 and SEC1; an error says in a phrase what the block holds instead.
    pub(super) fn parse(label: &str, der: &[u8]) -> Result<PrivateKey> {
        let damaged = || format!("a damaged {label}");
        let unsupported = |kind: &str| anyhow!("a key of an unsupported type ({})", printable_text(kind));
        let key = match label {
            "RSA PRIVATE KEY" => read_rsa(der),
            "EC PRIVATE KEY" => read_ec(der, None),
            "PRIVATE KEY" => {
                let (algorithm, curve, inner) = unwrap_pkcs8(der).with_context(damaged)?;
                match algorithm.as_str() {
                    RSA => read_rsa(&inner),
                    EC => read_ec(&inner, curve),
                    ED25519 => read_ed25519(&inner),
                    other => return Err(unsupported(other)),
                }
            }
            other => return Err(unsupported(other)),
        };
        key.with_context(damaged)
    }

    /// Whether a certificate's public key is this one's; `None` if that can't be told.
    pub(super) fn fits(&self, public: &SubjectPublicKeyInfo<'_>) -> Option<bool> {
        let algorithm = public.algorithm.algorithm.to_id_string();
        let bytes = public.subject_public_key.data.as_ref();
        match self {
            PrivateKey::Rsa { modulus, exponent } => Some(match public.parsed() {
                Ok(PublicKey::RSA(rsa)) => strip_zeros(rsa.modulus) == modulus && strip_zeros(rsa.exponent) == exponent,
                _ => false,
            }),
            PrivateKey::Ec { curve: own, scalar, public: own_public } => {
                if algorithm != EC || curve_of_key(public).as_ref() != Some(own) {
                    return Some(false);
                }
                // What the file says about its own public half is not asked where the private half can be.
                let (signing, length): (_, usize) = match own.as_str() {
                    P256 => (&signature::ECDSA_P256_SHA256_ASN1_SIGNING, 32),
                    P384 => (&signature::ECDSA_P384_SHA384_ASN1_SIGNING, 48),
                    _ => return own_public.as_ref().map(|own| own == bytes),
                };
                let trimmed = strip_zeros(scalar);
                let padding = length.checked_sub(trimmed.len())?;
                let mut scalar = Zeroizing::new(vec![0; padding]);
                scalar.extend_from_slice(trimmed);
                let random = SystemRandom::new();
                let pair = EcdsaKeyPair::from_private_key_and_public_key(signing, &scalar, bytes, &random);
                Some(pair.is_ok())
            }
            PrivateKey::Ed25519 { public } => Some(algorithm == ED25519 && public == bytes),
        }
    }

    /// The length of an RSA key.
    pub(super) fn rsa_bits(&self) -> Option<usize> {
        match self {
            PrivateKey::Rsa { modulus, .. } => Some(count_bits(modulus)),
            _ => None,
        }
    }
}

fn object_id(object: &BerObject<'_>) -> Option<String> {
    Some(object.as_oid().ok()?.to_id_string())
}

/// The kind of key in PKCS#8, the curve if it names one, and the key's own form.
fn unwrap_pkcs8(der: &[u8]) -> Option<(String, Option<String>, Zeroizing<Vec<u8>>)> {
    let (_, outer) = parse_der(der).ok()?;
    let fields = outer.as_sequence().ok()?;
    let algorithm = fields.get(1)?.as_sequence().ok()?;
    let inner = Zeroizing::new(fields.get(2)?.as_slice().ok()?.to_vec());
    Some((object_id(algorithm.first()?)?, algorithm.get(1).and_then(object_id), inner))
}

fn read_rsa(der: &[u8]) -> Option<PrivateKey> {
    let (_, outer) = parse_der(der).ok()?;
    let fields = outer.as_sequence().ok()?;
    let number = |index: usize| Some(strip_zeros(fields.get(index)?.as_slice().ok()?).to_vec());
    let (modulus, exponent) = (number(1)?, number(2)?);
    (fields.len() >= 9).then_some(PrivateKey::Rsa { modulus, exponent })
}

fn read_ec(der: &[u8], curve: Option<String>) -> Option<PrivateKey> {
    let (_, outer) = parse_der(der).ok()?;
    let fields = outer.as_sequence().ok()?;
    let tagged = |number: u32| {
        fields.iter().find_map(|field| match &field.content {
            BerObjectContent::Unknown(any) if any.header.tag().0 == number => {
                parse_der(any.data).ok().map(|(_, object)| object)
            }
            _ => None,
        })
    };
    let public = tagged(1).and_then(|object| match object.content {
        BerObjectContent::BitString(_, bits) => Some(bits.data.to_vec()),
        _ => None,
    });
    Some(PrivateKey::Ec {
        curve: curve.or_else(|| object_id(&tagged(0)?))?,
        scalar: Zeroizing::new(fields.get(1)?.as_slice().ok()?.to_vec()),
        public,
    })
}

fn read_ed25519(der: &[u8]) -> Option<PrivateKey> {
    let (_, seed) = parse_der(der).ok()?;
    let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_slice().ok()?).ok()?;
    Some(PrivateKey::Ed25519 { public: pair.public_key().as_ref().to_vec() })
}

/// Whether one certificate's signature was made by another's key; `None` if this program can't verify its kind.
pub(super) fn signed_by(child: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> Option<bool> {
    if rsa_bits(issuer.public_key()).is_some_and(|bits| !(2048..=8192).contains(&bits)) {
        return None;
    }
    match child.verify_signature(Some(issuer.public_key())) {
        Ok(()) => Some(true),
        Err(X509Error::SignatureUnsupportedAlgorithm) => None,
        Err(_) => Some(false),
    }
}

/// Whether a certificate vouches for itself.
pub(super) fn self_signed(certificate: &X509Certificate<'_>) -> bool {
    same_name(certificate.subject(), certificate.issuer()) && signed_by(certificate, certificate) != Some(false)
}

/// Whether two names are the same to those who build chains, who ignore case and the kind of string.
pub(super) fn same_name(one: &X509Name<'_>, other: &X509Name<'_>) -> bool {
    one.as_raw() == other.as_raw() || one.to_string().to_lowercase() == other.to_string().to_lowercase()
}

/// What to call a certificate in a message.
pub(super) fn distinguished_name(name: &X509Name<'_>) -> String {
    let common = name.iter_common_name().next().and_then(|name| name.as_str().ok());
    match common {
        Some(common) => format!("\"{}\"", printable_text(common)),
        None if name.as_raw().len() > 2 => format!("\"{}\"", printable_text(&name.to_string())),
        None => "a certificate without a name".into(),
    }
}

/// Text from a file, fit for a terminal.
pub(super) fn printable_text(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
