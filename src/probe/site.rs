//! The whole way of a visitor: TLS to Apache with the site's own certificate, and CamCOPS's login page behind it.

use super::http::{Page, Request};
use super::{Answer, Cause, Patience, Trouble, connect_to, find_cause, io_trouble, no_answer, tls};
use crate::layout::Layout;
use crate::settings::{Listen, Settings};
use crate::site::maintenance::{self, PAGE_MARK};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, Error};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::TlsConnector;

/// The site as its visitors see it.
#[derive(Debug, Clone)]
pub(crate) struct SiteAddress {
    /// Where it is listened on this machine.
    pub(crate) host: String,
    /// The port of the site.
    pub(crate) port: u16,
    /// The main name of the site.
    pub(crate) name: String,
    /// The path of CamCOPS on the site, empty at its root.
    pub(crate) path: String,
    /// The file with its certificate.
    pub(crate) certificate: String,
    /// The file that says how to get through during maintenance.
    pub(crate) maintenance: String,
}

impl SiteAddress {
    /// What the settings of a site say: as a visitor on this machine finds it.
    pub(crate) fn of(settings: &Settings, layout: &Layout, name: &str, certificate: &str) -> SiteAddress {
        let web = &settings.web;
        SiteAddress {
            host: match (web.own_https().map(|address| address.ip()), web.listen.first()) {
                (Some(IpAddr::V6(address)), _) if address.is_unspecified() => Ipv6Addr::LOCALHOST.to_string(),
                (Some(address), _) if !address.is_unspecified() => address.to_string(),
                (None, Some(Listen::Address(address))) => address.to_string(),
                _ => Ipv4Addr::LOCALHOST.to_string(),
            },
            port: web.public_port(),
            name: name.to_owned(),
            path: web.path.prefix().to_owned(),
            certificate: certificate.to_owned(),
            maintenance: maintenance::state_file(layout),
        }
    }

    /// As all others find it, during maintenance too.
    pub(crate) fn for_strangers(self) -> SiteAddress {
        SiteAddress { maintenance: String::new(), ..self }
    }

    /// Asks for the login page once.
    pub(crate) async fn answers(&self, patience: Duration) -> Result<Answer, Trouble> {
        let place = self.place();
        #[cfg(test)]
        if let Some(answer) = played(&place) {
            return answer;
        }
        let tell = |cause, text: String| Err(Trouble::new(cause, &place, text));
        let page = self.ask(Request::get("/login"), patience).await?;
        match page.status() {
            _ if page.is_login() => Ok(Answer { product: "CamCOPS".into(), version: None }),
            Some(503) if page.0.contains(PAGE_MARK) => tell(Cause::Busy, "the site shows its maintenance page".into()),
            Some(code @ 502..=504) => {
                tell(Cause::Busy, format!("Apache answers, but CamCOPS behind it does not ({code})"))
            }
            Some(code) => tell(
                Cause::SomethingElse,
                format!("Apache answers {code}, not CamCOPS's login page; does another site answer to this name?"),
            ),
            None => tell(Cause::SomethingElse, "what answers there is not a web server".into()),
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

    /// Sends one request for a page of CamCOPS, and gives the whole answer.
    pub(crate) async fn ask(&self, request: Request<'_>, patience: Duration) -> Result<Page, Trouble> {
        let place = self.place();
        let patience = Patience::new(patience);
        let stream = connect_to(&place, &self.host, self.port, "web.listen", patience).await?;
        let stream = match patience.bears(self.encrypted(&place, stream)).await {
            Ok(stream) => stream?,
            Err(_) => return Err(no_answer(&place, patience)),
        };
        let path = format!("{}{}", self.path, request.path);
        let header = format!("{}{}", request.header, maintenance::pass_header(&self.maintenance));
        let request = Request { path: &path, header: &header, ..request };
        patience.bears_io(&place, request.send(&self.authority(), stream)).await
    }

    /// The same without TLS, at a port where there should be none of it.
    pub(crate) async fn ask_plainly(
        &self,
        port: u16,
        request: Request<'_>,
        patience: Duration,
    ) -> Result<Page, Trouble> {
        let authority = format!("{}:{port}", self.name);
        let place = format!("http://{authority}");
        let patience = Patience::new(patience);
        let stream = connect_to(&place, &self.host, port, "web.listen", patience).await?;
        let path = format!("{}{}", self.path, request.path);
        let request = Request { path: &path, ..request };
        patience.bears_io(&place, request.send(&authority, stream)).await
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
        // No authority is asked: it is the certificate that we put there, or another site's.
        let exactly_this = tls::judge_by(Box::new(move |shown, _, _, _, _| match *shown == certificate {
            true => Ok(()),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }));
        let client =
            ClientConfig::builder().dangerous().with_custom_certificate_verifier(exactly_this).with_no_client_auth();
        TlsConnector::from(Arc::new(client)).connect(name, stream).await.map_err(|why| {
            match find_cause::<Error>(&why) {
                Some(Error::InvalidCertificate(_)) => trouble(
                    Cause::WrongName,
                    format!(
                        "another certificate is served than {}; another site answers to this name",
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

/// What a case has in place of Apache.
#[cfg(test)]
fn played(place: &str) -> Option<Result<Answer, Trouble>> {
    let refused = |_, said: String| Trouble::new(Cause::Other, place, said);
    super::played("http", &format!("{place}login, as a visitor"), place, refused)
}
