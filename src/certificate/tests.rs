//! Certificates made here by rcgen, fixtures made by openssl, and the openssl command as the judge.

mod authority;
mod given;
mod own;
mod unfit;

use super::check::{CertificateFinding, GivenFiles, Severity, check_given};
use super::*;
use rcgen::CertifiedIssuer;
use std::fs;
use std::path::Path;
use std::process::Command;

const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);

/// 2026-12-01, when the fixtures are valid.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + DAY * 20_788
}

fn subject(names: &[&str]) -> Subject {
    Subject {
        country: Some("gb".into()),
        state_or_province: Some("Cambridgeshire".into()),
        locality: None,
        organization: Some("Università & \"Söhne\"".into()),
        names: names.iter().map(|name| name.to_string()).collect(),
        days: 365,
    }
}

fn fixture(name: &str) -> Vec<u8> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/certificates");
    fs::read(Path::new(directory).join(name)).unwrap()
}

fn openssl(arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).output();
    let output = output.expect("these tests need the openssl command");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

struct OnDisk {
    directory: tempfile::TempDir,
    certificate: String,
}

fn on_disk(pair: &Pair) -> OnDisk {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let certificate = path("server.crt");
    fs::write(&certificate, &pair.certificate).unwrap();
    fs::write(path("server.key"), pair.key.as_bytes()).unwrap();
    OnDisk { directory, certificate }
}

fn seconds(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    since.as_secs().to_string()
}

struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    chain: Option<Vec<u8>>,
    names: Vec<String>,
    now: SystemTime,
    trusted: bool,
}

impl Files {
    fn new(certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>, names: &[&str]) -> Files {
        Files {
            certificate: certificate.into(),
            key: key.into(),
            chain: None,
            names: names.iter().map(|name| name.to_string()).collect(),
            now: now(),
            trusted: false,
        }
    }

    fn of(pair: &Pair, names: &[&str]) -> Files {
        Files::new(pair.certificate.as_str(), pair.key.as_bytes(), names)
    }

    fn fixture(certificate: &str, key: &str) -> Files {
        let name = format!("{}.example.org", certificate.split('.').next().unwrap());
        Files::new(fixture(certificate), fixture(key), &[&name])
    }

    fn with_chain(mut self, parts: &[&str]) -> Files {
        self.chain = Some(parts.concat().into_bytes());
        self
    }

    fn check(&self) -> Vec<CertificateFinding> {
        check_given(&GivenFiles {
            certificate: (Path::new("/etc/ssl/server.crt"), &self.certificate),
            key: (Path::new("/etc/ssl/my server.key"), &self.key),
            chain: self.chain.as_ref().map(|chain| (Path::new("/etc/ssl/chain.pem"), chain.as_slice())),
            names: &self.names,
            now: self.now,
            is_trusted: &|_, _| self.trusted,
        })
    }

    /// `refuse server.crt does not cover …`, one line per finding.
    fn lines(&self) -> Vec<String> {
        self.check()
            .iter()
            .map(|finding| {
                assert!(finding.remedy.len() > 10, "{finding}");
                let severity = match finding.severity {
                    Severity::Refuse => "refuse",
                    Severity::Warn => "warn",
                };
                format!("{severity} {finding}").replace("/etc/ssl/", "")
            })
            .collect()
    }
}

#[track_caller]
fn finds(files: &Files, expected: &[&str]) {
    let lines = files.lines();
    let same = lines.len() == expected.len();
    assert!(
        same && lines.iter().zip(expected).all(|(line, start)| line.starts_with(start)),
        "found {lines:#?}, expected {expected:#?}"
    );
}

struct Leaf {
    params: CertificateParams,
}

fn leaf(names: &[&str]) -> Leaf {
    let names: Vec<_> = names.iter().map(|name| name.to_string()).collect();
    let mut params = CertificateParams::new(names.clone()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, names[0].as_str());
    params.not_before = OffsetDateTime::from(now() - DAY);
    params.not_after = OffsetDateTime::from(now() + 90 * DAY);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Leaf { params }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = OffsetDateTime::from(now() - 100 * DAY);
    params.not_after = OffsetDateTime::from(now() + 2000 * DAY);
    params
}

struct Chain {
    key_pair: KeyPair,
    key: String,
    leaf: String,
    issuing: CertifiedIssuer<'static, KeyPair>,
    middle: CertifiedIssuer<'static, KeyPair>,
    root: CertifiedIssuer<'static, KeyPair>,
}

const SERVER: &str = "camcops.example.org";

impl Chain {
    fn new() -> Chain {
        let key = || KeyPair::generate().unwrap();
        let root = CertifiedIssuer::self_signed(authority("Root CA"), key()).unwrap();
        let middle = CertifiedIssuer::signed_by(authority("Middle CA"), key(), &root).unwrap();
        let issuing = CertifiedIssuer::signed_by(authority("Issuing CA"), key(), &middle).unwrap();
        let key_pair = key();
        let mut chain = Chain { key: key_pair.serialize_pem(), key_pair, leaf: String::new(), issuing, middle, root };
        chain.leaf = chain.issue(leaf(&[SERVER]));
        chain
    }

    fn issue(&self, leaf: Leaf) -> String {
        leaf.params.signed_by(&self.key_pair, &self.issuing).unwrap().pem()
    }

    /// A chain in one file.
    fn files(&self, parts: &[&str]) -> Files {
        Files::new(parts.concat(), self.key.as_str(), &[SERVER])
    }

    fn whole(&self, leaf: Leaf) -> Files {
        self.files(&[&self.issue(leaf), &self.issuing.pem(), &self.middle.pem()])
    }
}
