//! TLS to servers of others: whom we trust, and what went wrong in plain words.

use super::{Cause, Trouble};
use crate::base::error::Exit;
use crate::settings::AbsolutePath;
use anyhow::{Result, ensure};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

/// Settles which cryptography rustls uses; the first call wins, and every later one changes nothing.
pub(crate) fn use_ring() {
    // An error only says that this was done before.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The certificate of an authority, as PEM.
#[derive(Debug, Clone)]
pub(crate) struct Authority {
    /// The bytes of the file.
    pub(crate) pem: Vec<u8>,
}

impl Authority {
    /// Reads it and checks that there is a certificate in it.
    pub(crate) fn read(setting: &str, path: &AbsolutePath) -> Result<Authority> {
        let wrong = |what: String| Exit::Settings.because(format!("{setting}: {path}: {what}"));
        // Links are followed: certificates in /etc/ssl/certs are links.
        let pem = std::fs::read(path.as_path()).map_err(|why| wrong(why.to_string()))?;
        let authority = Authority { pem };
        match authority.roots() {
            Ok(_) => Ok(authority),
            Err(why) => Err(wrong(format!("{why}; it must hold the authority's certificate as PEM"))),
        }
    }

    fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&self.pem) {
            roots.add(certificate?)?;
        }
        ensure!(!roots.is_empty(), "there is no certificate in it");
        Ok(roots)
    }
}

/// Those that this machine trusts.
pub(super) fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// Whether this machine's own store accepts a server's certificate, with what is shown with it, for a name.
pub(crate) fn is_trusted_here(leaf: &[u8], others: &[&[u8]], name: &str, now: SystemTime) -> bool {
    is_trusted_by(system_roots(), leaf, others, name, now)
}

fn is_trusted_by(roots: RootCertStore, leaf: &[u8], others: &[&[u8]], name: &str, now: SystemTime) -> bool {
    use_ring();
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let verifier = WebPkiServerVerifier::builder(Arc::new(roots)).build();
    let (Ok(verifier), Ok(name)) = (verifier, ServerName::try_from(name.to_owned())) else {
        return false;
    };
    let others: Vec<CertificateDer<'_>> = others.iter().map(|one| CertificateDer::from(*one)).collect();
    let now = UnixTime::since_unix_epoch(since);
    verifier.verify_server_cert(&CertificateDer::from(leaf), &others, &name, &[], now).is_ok()
}

/// Decides about a certificate by that, what comes with it, the name, a response of OCSP, and the time.
type Judge = dyn Fn(&CertificateDer<'_>, &[CertificateDer<'_>], &ServerName<'_>, &[u8], UnixTime) -> Result<(), rustls::Error>
    + Send
    + Sync;

/// Has certificates judged. That the server has the key of its certificate is proved as ever.
struct JudgedBy {
    judge: Box<Judge>,
    algorithms: WebPkiSupportedAlgorithms,
}

pub(super) fn judge_by(judge: Box<Judge>) -> Arc<dyn ServerCertVerifier> {
    use_ring();
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
    Arc::new(JudgedBy { judge, algorithms })
}

impl fmt::Debug for JudgedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JudgedBy(..)")
    }
}

impl ServerCertVerifier for JudgedBy {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        (self.judge)(end_entity, intermediates, server_name, ocsp_response, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Trusts one authority alone, or those of the system where none is given.
pub(crate) fn client_config(authority: Option<&Authority>) -> Result<Arc<ClientConfig>> {
    use_ring();
    let roots = match authority {
        Some(authority) => authority.roots().map_err(|why| anyhow::anyhow!("the authority's certificate: {why}"))?,
        None => system_roots(),
    };
    Ok(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}

/// What went wrong. `settings` are the name of the section, such as `database`.
pub(super) fn tls_trouble(place: &str, section: &str, host: &str, why: &rustls::Error) -> Trouble {
    let tell = |cause, text: String| Trouble::new(cause, place, text);
    let certificate = match why {
        rustls::Error::InvalidCertificate(certificate) => certificate,
        rustls::Error::InvalidMessage(_) => {
            return tell(
                Cause::NoTls,
                format!("what listens there does not speak TLS; check {section}.port and {section}.tls"),
            );
        }
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired | AlertDescription::BadCertificate) => {
            return tell(
                Cause::Tls,
                "TLS: the server asks for a client certificate, which CamCOPS does not have".into(),
            );
        }
        other => return tell(Cause::Tls, format!("TLS failed: {other}")),
    };
    use CertificateError as E;
    match certificate {
        E::UnknownIssuer => tell(
            Cause::UnknownAuthority,
            format!(
                "TLS: the server's certificate is signed by an authority that is not trusted here; {section}.tls_ca must name the certificate of the right one"
            ),
        ),
        E::BadSignature | E::UnsupportedSignatureAlgorithmContext { .. } => tell(
            Cause::UnknownAuthority,
            format!(
                "TLS: the signature of the server's certificate does not match the authority's ({certificate}); check {section}.tls_ca"
            ),
        ),
        E::NotValidForName | E::NotValidForNameContext { .. } => tell(
            Cause::WrongName,
            format!(
                "TLS: the server's certificate is not for {host}{}; {section}.host must be a name in it",
                names_in_error(certificate)
            ),
        ),
        E::Expired | E::ExpiredContext { .. } => tell(
            Cause::Expired,
            "TLS: the server's certificate has expired; renew it there, or set this machine's clock".into(),
        ),
        E::NotValidYet | E::NotValidYetContext { .. } => tell(
            Cause::Expired,
            "TLS: the server's certificate is not valid yet; is this machine's clock right?".into(),
        ),
        other => {
            let other = format!("{other:?}");
            if other.contains("CaUsedAsEndEntity") {
                return tell(
                    Cause::Tls,
                    "TLS: the server uses the authority's certificate; it needs its own, signed by that authority"
                        .into(),
                );
            }
            tell(Cause::Tls, format!("TLS: the server's certificate can't be used: {other}"))
        }
    }
}

fn names_in_error(why: &CertificateError) -> String {
    match why {
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            " (it has no names at all: a common name alone does not count)".into()
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            format!(" but for {}", presented.join(", "))
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(why: CertificateError) -> Trouble {
        tls_trouble("db:3306", "database", "db", &rustls::Error::InvalidCertificate(why))
    }

    #[test]
    fn each_cause_has_its_own_words() {
        let unknown = told(CertificateError::UnknownIssuer);
        assert_eq!(unknown.cause, Cause::UnknownAuthority);
        assert!(unknown.text.contains("database.tls_ca"), "{unknown}");
        let expired = told(CertificateError::Expired);
        assert_eq!(expired.cause, Cause::Expired);
        let name = told(CertificateError::NotValidForName);
        assert_eq!(name.cause, Cause::WrongName);
        assert!(name.text.contains("is not for db;"), "{name}");
        let plain = tls_trouble(
            "mq:5671",
            "broker",
            "mq",
            &rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType),
        );
        assert_eq!(plain.cause, Cause::NoTls);
    }

    #[test]
    fn only_a_store_with_the_root_accepts() {
        let key = || rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = rcgen::CertifiedIssuer::self_signed(params, key()).unwrap();
        let leaf = rcgen::CertificateParams::new(vec!["camcops.example.org".into()]).unwrap();
        let leaf = leaf.signed_by(&key(), &root).unwrap();
        let roots = |with: bool| {
            let mut roots = RootCertStore::empty();
            if with {
                roots.add(root.der().clone()).unwrap();
            }
            roots
        };
        let now = SystemTime::now();
        let accepts = |with, others: &[&[u8]], name| is_trusted_by(roots(with), leaf.der(), others, name, now);
        assert!(accepts(true, &[], "camcops.example.org"));
        assert!(accepts(true, &[root.der()], "camcops.example.org"));
        assert!(!accepts(true, &[], "other.example.org") && !accepts(false, &[root.der()], "camcops.example.org"));
    }

    #[test]
    fn a_file_without_a_certificate_is_refused() {
        let authority = |pem: &str| Authority { pem: pem.into() }.roots().map(|roots| roots.len());
        assert!(authority("").is_err());
        assert!(authority("nothing\n").is_err());
        let real = include_str!("../../tests/fixtures/certificates/p256.crt");
        assert_eq!(authority(real).unwrap(), 1);
    }
}
