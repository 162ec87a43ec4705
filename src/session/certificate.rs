//! The site's certificate: made once and kept, or the administrator's own, checked.

use crate::base::error::Exit;
use crate::certificate::{self, Pair, authority};
use crate::drivers::acme;
use crate::probe::tls::is_trusted_here;
use crate::session::Session;
use crate::settings::TlsMode;
use crate::site::Certificate;
use anyhow::{Context, Result, anyhow, bail};
use std::path::PathBuf;
use std::time::SystemTime;
use zeroize::Zeroizing;

impl Session {
    /// Whether this machine's own trust store accepts a certificate for the main name of the site. A staged tree has none.
    pub(crate) fn is_trusted(&self, leaf: &[u8], others: &[&[u8]]) -> bool {
        self.host.staged_root().is_none() && is_trusted_here(leaf, others, &self.names()[0], SystemTime::now())
    }

    /// The certificate that is there, or a new one.
    pub(crate) fn certificate(&self) -> Result<Certificate> {
        match self.settings().tls.mode {
            TlsMode::SelfSigned => self.own_certificate(),
            TlsMode::LocalCa => self.locally_signed(),
            TlsMode::Files => self.given_certificate(),
            TlsMode::Certbot => self.issued_certificate(),
        }
    }

    /// What certbot has for the site, key first; or why that can't be served.
    pub(crate) fn at_certbot(&self) -> Result<Option<Result<Zeroizing<String>>>> {
        let home = format!("{}/{}", acme::LIVE, self.layout.slug);
        let file = |name: &str| -> Result<(PathBuf, Option<Zeroizing<String>>)> {
            let path = format!("{home}/{name}");
            let text = self.host.read_text(&self.host.followed(&path)?)?;
            Ok((self.host.outside(&path).into(), text.map(Zeroizing::new)))
        };
        let (certificate_path, certificate) = file("fullchain.pem")?;
        let (key_path, key) = file("privkey.pem")?;
        let (Some(certificate), Some(key)) = (certificate, key) else {
            return Ok(None);
        };
        let names = self.names();
        let findings = certificate::check_given(&certificate::GivenFiles {
            certificate: (&certificate_path, certificate.as_bytes()),
            key: (&key_path, key.as_bytes()),
            chain: None,
            names: &names,
            now: SystemTime::now(),
            is_trusted: &|_, _| false,
        });
        let refused: Vec<String> = findings
            .iter()
            .filter(|finding| finding.severity == certificate::Severity::Refuse)
            .map(|finding| format!("{} {}", finding.file.display(), finding.what))
            .collect();
        Ok(Some(match refused.is_empty() {
            true => Ok(join_pair(&key, &certificate)),
            false => Err(anyhow!(refused.join("; "))),
        }))
    }

    fn issued_certificate(&self) -> Result<Certificate> {
        if let Some(pair) = &self.new_certificate {
            return Ok(Certificate::Issued {
                text: join_pair(&pair.key, &pair.certificate),
                because: "the previous certificate again".to_owned(),
                warnings: Vec::new(),
            });
        }
        let mut warnings = Vec::new();
        match self.at_certbot()? {
            Some(Ok(text)) => {
                return Ok(Certificate::Issued {
                    text,
                    because: "the certificate from the authority".to_owned(),
                    warnings,
                });
            }
            Some(Err(why)) => warnings.push(format!("certbot's certificate is not used: {why}")),
            None => {}
        }
        let (text, because) = self.until_it_is_issued()?;
        Ok(Certificate::Issued { text, because, warnings })
    }

    /// The one that is served, as long as it can be; the one from before certbot; or a new one.
    fn until_it_is_issued(&self) -> Result<(Zeroizing<String>, String)> {
        let (host, layout) = (&self.host, &self.layout);
        let (subject, now) = (self.subject(), SystemTime::now());
        let serves = |text: &str| {
            let bytes = text.as_bytes();
            let is_own = certificate::summarize_first(bytes, now).is_ok_and(|one| one.self_signed);
            match is_own {
                true => certificate::still_serves(bytes, bytes, &subject, now).is_ok(),
                false => certificate::key_fits_certificate(bytes, bytes),
            }
        };
        let read = |path: &str| -> Result<Option<Zeroizing<String>>> { Ok(host.read_text(path)?.map(Zeroizing::new)) };
        if let Some(text) = read(&layout.certificate_with_key)?.filter(|text| serves(text)) {
            return Ok((text, "used until certbot has another one".to_owned()));
        }
        if let (Some(key), Some(certificate)) = (read(&layout.key)?, read(&layout.certificate)?) {
            let text = join_pair(&key, &certificate);
            if serves(&text) {
                let because = "the present certificate, until certbot has one";
                return Ok((text, because.to_owned()));
            }
        }
        let pair = certificate::self_signed(&subject, now)
            .map_err(|why| Exit::Settings.because(format!("web.server_names, tls: {why:#}")))?;
        let because = "self-signed, until certbot has one";
        Ok((join_pair(&pair.key, &pair.certificate), because.to_owned()))
    }

    fn own_certificate(&self) -> Result<Certificate> {
        let (host, layout) = (&self.host, &self.layout);
        let (subject, now) = (self.subject(), SystemTime::now());
        let certificate = host.read_text(&layout.certificate)?;
        let key = host.read_text(&layout.key)?.map(Zeroizing::new);
        let summary = certificate
            .as_ref()
            .zip(key.as_ref())
            .map(|(certificate, _)| certificate::summarize_first(certificate.as_bytes(), now));
        if let Some(Ok(summary)) = summary
            && !summary.self_signed
            && !self.is_of_own_authority(certificate.as_deref())?
        {
            return Err(Exit::Settings.because(format!(
                "tls.mode is self-signed, but {} was issued by {}: move it and its key elsewhere and set tls.mode = \"files\", tls.certificate and tls.key, or remove it",
                host.outside(&layout.certificate),
                summary.issuer
            )));
        }
        if let Some(pair) = &self.new_certificate {
            let because = "you asked for it".to_owned();
            return Ok(Certificate::Own { pair: pair.clone(), because, authority: None });
        }
        let because = match (&certificate, &key) {
            (Some(certificate), Some(key)) => {
                let (certificate, key) = (certificate.as_bytes(), key.as_bytes());
                let serves = certificate::still_serves(certificate, key, &subject, now);
                serves.err().map(|why| why.to_string()).unwrap_or_default()
            }
            _ => "none exists yet".to_owned(),
        };
        let pair = match (certificate, key) {
            (Some(certificate), Some(key)) if because.is_empty() => Ok(Pair { certificate, key }),
            (_, Some(key)) => certificate::renew_certificate(&key, &subject, now),
            (_, None) => certificate::self_signed(&subject, now),
        };
        let pair = pair.map_err(|why| Exit::Settings.because(format!("web.server_names, tls: {why:#}")))?;
        Ok(Certificate::Own { pair, because, authority: None })
    }

    /// One that the site's own authority has signed.
    fn locally_signed(&self) -> Result<Certificate> {
        let (host, layout) = (&self.host, &self.layout);
        let (subject, now) = (self.subject(), SystemTime::now());
        let (authority, mut because) = self.own_authority()?;
        if let Some(pair) = &self.new_certificate {
            let because = "you asked for it".to_owned();
            return Ok(Certificate::Own { pair: pair.clone(), because, authority: Some(authority) });
        }
        let certificate = host.read_text(&layout.certificate)?;
        let key = host.read_text(&layout.key)?.map(Zeroizing::new);
        if let (Some(certificate), Some(key)) = (&certificate, &key) {
            let pair = (certificate.as_bytes(), key.as_bytes());
            let serves = authority::still_signed(pair, &authority.certificate, &subject, now);
            match serves {
                Ok(()) if because.is_empty() => {
                    let pair = Pair { certificate: certificate.clone(), key: key.clone() };
                    return Ok(Certificate::Own { pair, because, authority: Some(authority) });
                }
                Err(why) if because.is_empty() => because = why.to_string(),
                _ => {}
            }
        }
        if because.is_empty() {
            because = "none exists yet".to_owned();
        }
        let pair = authority::sign_certificate(&authority, key.as_ref().map(|key| key.as_str()), &subject, now);
        let pair = pair.map_err(|why| Exit::Settings.because(format!("web.server_names, tls: {why:#}")))?;
        Ok(Certificate::Own { pair, because, authority: Some(authority) })
    }

    /// The site's own authority, and why it is a new one; nothing where it is not.
    pub(crate) fn own_authority(&self) -> Result<(Pair, String)> {
        let (host, layout) = (&self.host, &self.layout);
        let (subject, now) = (self.subject(), SystemTime::now());
        let certificate = host.read_text(&layout.authority)?;
        let key = host.read_text(&layout.authority_key)?.map(Zeroizing::new);
        let mut because = "the site has no authority yet".to_owned();
        if let (Some(certificate), Some(key)) = (certificate, key) {
            let present = Pair { certificate, key };
            match authority::authority_serves(&present, &subject, now) {
                Ok(()) => return Ok((present, String::new())),
                Err(why) => because = format!("everybody has to trust a new authority: of the present one, {why}"),
            }
        }
        let made = authority::new_authority(&subject, now)
            .map_err(|why| Exit::Settings.because(format!("web.server_names, tls: {why:#}")))?;
        Ok((made, because))
    }

    /// Whether the site's own authority, which the settings may have left meanwhile, has signed it.
    fn is_of_own_authority(&self, certificate: Option<&str>) -> Result<bool> {
        let (authority, Some(certificate)) = (self.host.read_text(&self.layout.authority)?, certificate) else {
            return Ok(false);
        };
        Ok(authority.is_some_and(|authority| authority::is_signed_by(certificate, &authority)))
    }

    /// Whether the pair that this program made is still right; the error says what is wrong with it.
    pub(crate) fn judge_own(&self, pair: (&[u8], &[u8]), now: SystemTime) -> Result<()> {
        let subject = self.subject();
        if self.settings().tls.mode != TlsMode::LocalCa {
            return certificate::still_serves(pair.0, pair.1, &subject, now);
        }
        let (authority, because) = self.own_authority()?;
        if !because.is_empty() {
            bail!(because);
        }
        authority::still_signed(pair, &authority.certificate, &subject, now)
    }

    /// Another certificate in the place of the one that this program made, for the key that is there or a new one.
    pub(crate) fn make_another(&self, key: Option<&str>) -> Result<Pair> {
        let (subject, now) = (self.subject(), SystemTime::now());
        let made = match (self.settings().tls.mode, key) {
            (TlsMode::LocalCa, key) => {
                let (authority, because) = self.own_authority()?;
                if !because.is_empty() {
                    return Err(Exit::Settings.because(format!("{because}; run `camcops-provision install`")));
                }
                authority::sign_certificate(&authority, key, &subject, now)
            }
            (_, Some(key)) => certificate::renew_certificate(key, &subject, now),
            (_, None) => certificate::self_signed(&subject, now),
        };
        made.map_err(|why| Exit::Settings.because(format!("web.server_names, tls: {why:#}")))
    }

    fn given_certificate(&self) -> Result<Certificate> {
        let tls = &self.settings().tls;
        let read = |path: &str| -> Result<Vec<u8>> {
            let followed = self.host.followed(path)?;
            self.host.read(&followed)?.ok_or_else(|| {
                Exit::Unusable.because(format!(
                    "{}: no such file; copy the certificate and its key there, or change the [tls] settings",
                    self.host.outside(path)
                ))
            })
        };
        // The settings are checked: mode "files" has both.
        let certificate = tls.certificate.as_ref().context("tls.certificate is not set")?.as_str();
        let key = tls.key.as_ref().context("tls.key is not set")?.as_str();
        let chain = tls.chain.as_ref().map(|path| path.as_str());
        let (certificate_bytes, key_bytes) = (read(certificate)?, Zeroizing::new(read(key)?));
        let chain_bytes = chain.map(read).transpose()?;
        let names = self.names();
        let outside = |path: &str| PathBuf::from(self.host.outside(path));
        let (shown_certificate, shown_key) = (outside(certificate), outside(key));
        let shown_chain = chain.map(outside);
        let mut findings = certificate::check_given(&certificate::GivenFiles {
            certificate: (&shown_certificate, &certificate_bytes),
            key: (&shown_key, &key_bytes),
            chain: shown_chain.as_deref().zip(chain_bytes.as_deref()),
            names: &names,
            now: SystemTime::now(),
            is_trusted: &|leaf, others| self.is_trusted(leaf, others),
        });
        let with_key = |path, bytes: Option<&[u8]>| {
            let holds_key = bytes.is_some_and(certificate::holds_key);
            (path != Some(key) && holds_key).then_some(path).flatten()
        };
        for path in
            [Some(key), with_key(Some(certificate), Some(&certificate_bytes)), with_key(chain, chain_bytes.as_deref())]
                .into_iter()
                .flatten()
        {
            let Some(entry) = self.host.stat(&self.host.followed(path)?)? else {
                continue;
            };
            // In a staged tree of an ordinary user everything is that user's.
            let uid = if self.host.is_root() { entry.uid } else { 0 };
            findings.extend(certificate::permission_findings(&outside(path), entry.mode, uid));
        }
        self.refuse_unreadable_key(key)?;
        let (refused, warnings): (Vec<_>, Vec<_>) = findings
            .into_iter()
            .partition(|finding| finding.severity == certificate::Severity::Refuse && !self.only_shows);
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

impl Session {
    /// Where CamCOPS serves HTTPS itself, its account reads the key.
    fn refuse_unreadable_key(&self, key: &str) -> Result<()> {
        let (host, account) = (&self.host, self.account());
        let reader = host.accounts.uid(account).zip(host.accounts.gid(account));
        let (Some(_), Some((user, group)), None) = (self.settings().web.own_https(), reader, host.staged_root()) else {
            return Ok(());
        };
        if self.only_shows || host.child_of(user, group, "test").args(["-r", key]).end()?.status.success() {
            return Ok(());
        }
        Err(Exit::Unusable.because(format!(
            "{key}: CamCOPS serves HTTPS itself, as {account}, which can't read this key: `chgrp {account} {key} && chmod 0640 {key}`, in a directory that {account} can enter"
        )))
    }
}

fn join_pair(key: &str, certificate: &str) -> Zeroizing<String> {
    let between = match key.is_empty() || key.ends_with('\n') {
        true => "",
        false => "\n",
    };
    Zeroizing::new(format!("{key}{between}{certificate}"))
}
