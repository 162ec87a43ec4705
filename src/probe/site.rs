//! The whole way of a visitor: TLS to Apache with the site's own certificate, and CamCOPS's login page behind it.

use super::web::{MARKS, fetch_answer, parse_status};
use super::{Answer, Cause, Patience, Trouble, connect_to, find_cause, io_trouble, no_answer, tls};
use crate::settings::{Listen, Settings};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::TlsConnector;

/// The site as its visitors see it.
#[derive(Debug, Clone)]
pub(crate) struct SiteAddress {
    /// Where Apache listens on this machine.
    pub(crate) host: String,
    /// The port of the site.
    pub(crate) port: u16,
    /// The main name of the site.
    pub(crate) name: String,
    /// The path of CamCOPS on the site, empty at its root.
    pub(crate) path: String,
    /// The file with its certificate.
    pub(crate) certificate: String,
}

impl SiteAddress {
    /// What the settings of a site say: as a visitor on this machine finds it.
    pub(crate) fn of(settings: &Settings, name: &str, certificate: &str) -> SiteAddress {
        let web = &settings.web;
        SiteAddress {
            host: match web.listen.first() {
                None | Some(Listen::Any) => "127.0.0.1".to_owned(),
                Some(Listen::Address(address)) => address.to_string(),
            },
            port: web.https_port.get(),
            name: name.to_owned(),
            path: web.path.prefix().to_owned(),
            certificate: certificate.to_owned(),
        }
    }

    /// Asks for the login page once.
    pub(crate) async fn answers(&self, patience: Duration) -> Result<Answer, Trouble> {
        let place = self.place();
        #[cfg(test)]
        if let Some(answer) = played(&place) {
            return answer;
        }
        let tell = |cause, text: String| Err(Trouble::new(cause, &place, text));
        let page = self.ask("GET", "/login", "", "", patience).await?;
        match parse_status(&page) {
            Some(200) if MARKS.iter().all(|mark| page.contains(mark)) => {
                Ok(Answer { product: "CamCOPS".into(), version: None })
            }
            Some(code @ 502..=504) => {
                tell(Cause::Busy, format!("Apache answers, but CamCOPS behind it does not ({code})"))
            }
            Some(code) => tell(
                Cause::SomethingElse,
                format!("Apache answers {code} and not with CamCOPS's login page; is another site in the way?"),
            ),
            None => tell(Cause::SomethingElse, "what answers there is no web server".into()),
        }
    }

    /// The address of the site.
    pub(crate) fn place(&self) -> String {
        format!("https://{}{}/", self.authority(), self.path)
    }

    /// Its name, with the port where that is not the usual one.
    pub(crate) fn authority(&self) -> String {
        match self.port {
            443 => self.name.clone(),
            port => format!("{}:{port}", self.name),
        }
    }

    /// Sends one request, with more lines of header and a form, and gives the whole answer.
    pub(crate) async fn ask(
        &self,
        method: &str,
        page: &str,
        header: &str,
        form: &str,
        patience: Duration,
    ) -> Result<String, Trouble> {
        let place = self.place();
        let patience = Patience::new(patience);
        let stream = connect_to(&place, &self.host, self.port, "web.listen", patience).await?;
        let stream = match patience.bears(self.encrypted(&place, stream)).await {
            Ok(stream) => stream?,
            Err(_) => return Err(no_answer(&place, patience)),
        };
        let length = match form.is_empty() {
            true => String::new(),
            false => format!("Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n", form.len()),
        };
        let request = format!(
            "{method} {}{page} HTTP/1.0\r\nHost: {}\r\nAccept: text/html, text/plain\r\nUser-Agent: camcops-provision\r\n{header}{length}\r\n{form}",
            self.path,
            self.authority()
        );
        match patience.bears(fetch_answer(stream, request.as_bytes())).await {
            Ok(Ok(page)) => Ok(String::from_utf8_lossy(&page).into_owned()),
            Ok(Err(why)) => Err(io_trouble(&place, &why)),
            Err(_) => Err(no_answer(&place, patience)),
        }
    }

    async fn encrypted(
        &self,
        place: &str,
        stream: tokio::net::TcpStream,
    ) -> Result<tokio_rustls::client::TlsStream<tokio::net::TcpStream>, Trouble> {
        let trouble = |cause, why: String| Trouble::new(cause, place, why);
        let pem = std::fs::read(&self.certificate)
            .map_err(|why| trouble(Cause::Other, format!("{}: {why}", self.certificate)))?;
        let certificate = CertificateDer::from_pem_slice(&pem)
            .map_err(|_| trouble(Cause::Other, format!("{} holds no certificate", self.certificate)))?;
        let name = ServerName::try_from(self.name.clone()).map_err(|why| trouble(Cause::WrongName, why.to_string()))?;
        tls::use_ring();
        let client = ClientConfig::builder()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ExactlyThis { certificate, provider: ring::default_provider() }))
            .with_no_client_auth();
        TlsConnector::from(Arc::new(client)).connect(name, stream).await.map_err(|why| {
            match find_cause::<Error>(&why) {
                Some(Error::InvalidCertificate(_)) => trouble(
                    Cause::WrongName,
                    format!(
                        "Apache shows another certificate than {}; another site answers to this name",
                        self.certificate
                    ),
                ),
                Some(Error::InvalidMessage(_)) => trouble(Cause::NoTls, "what listens there does not speak TLS".into()),
                Some(why) => trouble(Cause::Tls, format!("TLS failed: {why}")),
                None => io_trouble(place, &why),
            }
        })
    }
}

/// Trusts one certificate and no authority: it is the one that we put there.
#[derive(Debug)]
struct ExactlyThis {
    certificate: CertificateDer<'static>,
    provider: CryptoProvider,
}

impl ServerCertVerifier for ExactlyThis {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match end_entity.as_ref() == self.certificate.as_ref() {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What a case has in place of Apache.
#[cfg(test)]
fn played(place: &str) -> Option<Result<Answer, Trouble>> {
    let refused = |_, said: String| Trouble::new(Cause::Other, place, said);
    super::played("http", &format!("{place}login, as a visitor"), place, refused)
}
