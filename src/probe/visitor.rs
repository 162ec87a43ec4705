//! The site as a tablet meets it: TLS 1.2 to its public name, and only the authorities that the system trusts.

use super::{Cause, Patience, Trouble, connect_to, find_cause, io_trouble, no_answer, tls};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::TLS12;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_rustls::TlsConnector;

/// What a site shows to whoever comes.
#[derive(Debug)]
pub(crate) struct Met {
    /// Its certificate and what it sends with it, as they travel.
    pub(crate) chain: Vec<Vec<u8>>,
    /// Why a tablet would turn away; nothing if it would not.
    pub(crate) trouble: Option<Error>,
}

/// Goes there once.
pub(crate) async fn meet_server(host: &str, port: u16, patience: Duration) -> Result<Met, Trouble> {
    let place = format!("{host}:{port}");
    let other = |why: String| Trouble::new(Cause::Other, &place, why);
    let patience = Patience::new(patience);
    let name = ServerName::try_from(host.to_owned()).map_err(|why| other(why.to_string()))?;
    tls::use_ring();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let inner = WebPkiServerVerifier::builder(Arc::new(roots)).build().map_err(|why| {
        other(format!("this machine trusts no authority ({why}); install the package ca-certificates"))
    })?;
    let watching = Arc::new(Watching { inner, seen: Mutex::default() });
    let verifier: Arc<dyn ServerCertVerifier> = watching.clone();
    let client = ClientConfig::builder_with_protocol_versions(&[&TLS12])
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let stream = connect_to(&place, host, port, "web.server_names", patience).await?;
    let connector = TlsConnector::from(Arc::new(client));
    let trouble = match patience.bears(connector.connect(name, stream)).await {
        Ok(Ok(_)) => None,
        Ok(Err(why)) => match find_cause::<Error>(&why) {
            Some(Error::InvalidMessage(_)) => {
                let what = "what listens there does not speak TLS";
                return Err(Trouble::new(Cause::NoTls, &place, what));
            }
            Some(why) => Some(why.clone()),
            None => return Err(io_trouble(&place, &why)),
        },
        Err(_) => return Err(no_answer(&place, patience)),
    };
    let mut seen = watching.seen.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Met { chain: std::mem::take(&mut *seen), trouble })
}

impl Met {
    /// Whether it was only the name that did not fit.
    pub(crate) fn is_other_name(&self) -> bool {
        use CertificateError as E;
        matches!(self.trouble, Some(Error::InvalidCertificate(E::NotValidForName | E::NotValidForNameContext { .. })))
    }

    /// Whether nobody that is trusted vouches for it.
    pub(crate) fn is_unknown(&self) -> bool {
        matches!(self.trouble, Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)))
    }
}

/// Judges as the system does, and remembers what was shown.
#[derive(Debug)]
struct Watching {
    inner: Arc<WebPkiServerVerifier>,
    seen: Mutex<Vec<Vec<u8>>>,
}

impl ServerCertVerifier for Watching {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let all = std::iter::once(end_entity).chain(intermediates);
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = all.map(|one| one.to_vec()).collect();
        self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
