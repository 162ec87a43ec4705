//! The site as a tablet meets it: TLS 1.2 to its public name, and only the authorities that the system trusts.

use super::{Cause, Patience, Trouble, connect_to, find_cause, io_trouble, no_answer, tls};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::ServerName;
use rustls::version::TLS12;
use rustls::{CertificateError, ClientConfig, Error};
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
    let inner = WebPkiServerVerifier::builder(Arc::new(tls::system_roots())).build().map_err(|why| {
        other(format!("this machine trusts no certificate authority ({why}); install the package ca-certificates"))
    })?;
    // Judged as the system does, and what was shown is remembered.
    let seen = Arc::new(Mutex::new(Vec::new()));
    let chain = Arc::clone(&seen);
    let watching = tls::judge_by(Box::new(move |shown, others, name, response, now| {
        let all = std::iter::once(shown).chain(others).map(|one| one.to_vec());
        *chain.lock().unwrap_or_else(PoisonError::into_inner) = all.collect();
        inner.verify_server_cert(shown, others, name, response, now).map(drop)
    }));
    let client = ClientConfig::builder_with_protocol_versions(&[&TLS12])
        .dangerous()
        .with_custom_certificate_verifier(watching)
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
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
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
