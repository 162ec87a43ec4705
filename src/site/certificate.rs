//! The site's certificate: made once and kept, or the administrator's own, checked.

use super::Site;
use crate::certificate::{self, Pair};
use crate::error::Exit;
use crate::settings::TlsMode;
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::time::SystemTime;
use zeroize::Zeroizing;

/// Whose the certificate is.
#[derive(Debug)]
pub enum Certificate {
    /// Made by this program; `because` says why it is made anew, and is empty where it is not.
    Own {
        /// Certificate and key.
        pair: Pair,
        /// Why it is made.
        because: String,
    },
    /// The administrator's own files, checked.
    Given {
        /// Its path.
        certificate: String,
        /// The path of its key.
        key: String,
        /// The path of the chain, or empty.
        chain: String,
        /// What is not wrong enough to refuse it.
        warnings: Vec<String>,
    },
}

impl Site {
    /// The certificate that is there, or a new one.
    pub(super) fn certificate(&self) -> Result<Certificate> {
        match self.settings().tls.mode {
            TlsMode::SelfSigned => self.own_certificate(),
            TlsMode::Files => self.given_certificate(),
        }
    }

    fn own_certificate(&self) -> Result<Certificate> {
        let (host, layout) = (&self.host, &self.layout);
        let (subject, now) = (self.subject(), SystemTime::now());
        let certificate = host.read_text(&layout.certificate)?;
        let key = host.read_text(&layout.key)?.map(Zeroizing::new);
        let summary = certificate
            .as_ref()
            .zip(key.as_ref())
            .map(|(certificate, _)| certificate::summary(certificate.as_bytes(), now));
        if let Some(Ok(summary)) = summary
            && !summary.self_signed
        {
            return Err(Exit::Settings.because(format!(
                "tls.mode is self-signed, but {} was issued by {}: move it and its key elsewhere and set tls.mode = \"files\", tls.certificate and tls.key, or remove it",
                host.outside(&layout.certificate),
                summary.issuer
            )));
        }
        if let Some(pair) = &self.new_certificate {
            return Ok(Certificate::Own {
                pair: pair.clone(),
                because: "you asked for it".to_owned(),
            });
        }
        let because = match (&certificate, &key) {
            (Some(certificate), Some(key)) => {
                let (certificate, key) = (certificate.as_bytes(), key.as_bytes());
                let serves = certificate::still_serves(certificate, key, &subject, now);
                serves.err().unwrap_or_default()
            }
            _ => "there is none yet".to_owned(),
        };
        let pair = match (certificate, key) {
            (Some(certificate), Some(key)) if because.is_empty() => Ok(Pair { certificate, key }),
            (_, Some(key)) => certificate::renewed(&key, &subject, now),
            (_, None) => certificate::self_signed(&subject, now),
        };
        let pair =
            pair.map_err(|why| Exit::Settings.because(format!("web.server_names, tls: {why:#}")))?;
        Ok(Certificate::Own { pair, because })
    }

    fn given_certificate(&self) -> Result<Certificate> {
        let tls = &self.settings().tls;
        let read = |path: &str| -> Result<Vec<u8>> {
            let followed = self.host.followed(path)?;
            self.host.read(&followed)?.ok_or_else(|| {
                Exit::Unusable.because(format!(
                    "{}: there is no such file; put the certificate and its key there, or change the [tls] settings",
                    self.host.outside(path)
                ))
            })
        };
        // The settings are checked: mode "files" has both.
        let certificate = tls
            .certificate
            .as_ref()
            .context("tls.certificate is not set")?
            .as_str();
        let key = tls.key.as_ref().context("tls.key is not set")?.as_str();
        let chain = tls.chain.as_ref().map(|path| path.as_str());
        let (certificate_bytes, key_bytes) = (read(certificate)?, Zeroizing::new(read(key)?));
        let chain_bytes = chain.map(read).transpose()?;
        let names = self.names();
        let outside = |path: &str| PathBuf::from(self.host.outside(path));
        let (shown_certificate, shown_key) = (outside(certificate), outside(key));
        let shown_chain = chain.map(outside);
        let mut findings = certificate::check(&certificate::Given {
            certificate: (&shown_certificate, &certificate_bytes),
            key: (&shown_key, &key_bytes),
            chain: shown_chain.as_deref().zip(chain_bytes.as_deref()),
            names: &names,
            now: SystemTime::now(),
        });
        if let Some(entry) = self.host.look(&self.host.followed(key)?)? {
            // In a staged tree of an ordinary user everything is that user's.
            let uid = if self.host.may_give_away() {
                entry.uid
            } else {
                0
            };
            findings.extend(certificate::permission_findings(
                &shown_key, entry.mode, uid,
            ));
        }
        let (refused, warnings): (Vec<_>, Vec<_>) = findings.into_iter().partition(|finding| {
            finding.severity == certificate::Severity::Refuse && !self.only_shows
        });
        if !refused.is_empty() {
            let lines: Vec<String> = refused.iter().map(ToString::to_string).collect();
            return Err(Exit::Unusable.because(lines.join("\n")));
        }
        Ok(Certificate::Given {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            chain: chain.unwrap_or_default().to_owned(),
            warnings: warnings.iter().map(ToString::to_string).collect(),
        })
    }
}
