//! The certificates between the server's and the root.

use super::{Findings, GivenFiles, Link};
use crate::certificate::read;

impl Findings {
    /// Each certificate must have issued the one before it.
    pub(super) fn check_chain(&mut self, given: &GivenFiles<'_>, leaf: &Link<'_>, others: &[Link<'_>]) {
        let mut rest: Vec<&Link<'_>> = Vec::new();
        for link in others {
            if link.der == leaf.der || rest.iter().any(|known| known.der == link.der) {
                self.warn(
                    link.file,
                    format!("repeats the certificate of {}", link.called()),
                    "keep it in one place only",
                );
            } else {
                rest.push(link);
            }
        }
        let mut path: Vec<&Link<'_>> = Vec::new();
        let mut tip = leaf;
        let mut forged = false;
        while !read::self_signed(&tip.certificate) {
            let mut issuers = rest
                .iter()
                .filter(|link| tip.issued_by(link) && !path.iter().any(|known| known.der == link.der))
                .peekable();
            let namesake = issuers.peek().copied();
            match issuers.find(|issuer| read::signed_by(&tip.certificate, &issuer.certificate) != Some(false)) {
                Some(issuer) => {
                    path.push(issuer);
                    tip = issuer;
                }
                None => {
                    if let Some(namesake) = namesake {
                        forged = true;
                        self.refuse(
                            namesake.file,
                            format!(
                                "has a certificate called {} that did not sign {}: it has the issuer's name and \
                                another key",
                                namesake.called(),
                                tip.called()
                            ),
                            "download the authority's chain again: it may have a new key under the same name",
                        );
                    }
                    break;
                }
            }
        }
        self.check_order(given, leaf, tip, &path, &rest, forged);
        for link in path {
            self.check_link(given, link);
        }
    }

    fn check_order(
        &mut self,
        given: &GivenFiles<'_>,
        leaf: &Link<'_>,
        tip: &Link<'_>,
        path: &[&Link<'_>],
        rest: &[&Link<'_>],
        forged: bool,
    ) {
        // Reading the store takes its time, so it is only asked about what would be a warning.
        let is_trusted = || {
            let others: Vec<&[u8]> = path.iter().map(|link| link.der).collect();
            (given.is_trusted)(leaf.der, &others)
        };
        let on_path = |link: &&&Link<'_>| path.iter().any(|known| known.der == link.der);
        let in_order = rest.iter().filter(on_path).zip(path).all(|(one, other)| one.der == other.der);
        let first = rest.first().unwrap_or(&leaf);
        if !in_order {
            let order: Vec<_> = path.iter().map(|link| link.called()).collect();
            self.refuse(
                first.file,
                "has the chain in the wrong order, and some clients give up on that",
                format!("put the certificates in this order after the server's: {}", order.join(", ")),
            );
        }
        let strangers: Vec<_> = rest.iter().filter(|link| !on_path(link)).collect();
        let names: Vec<_> = strangers.iter().map(|link| link.called()).collect();
        let whole = read::self_signed(&tip.certificate);
        let issuer = read::distinguished_name(tip.certificate.issuer());
        if let Some(stranger) = strangers.first()
            && !forged
        {
            if whole {
                self.warn(
                    stranger.file,
                    format!("has certificates that do not belong to the chain: {}", names.join(", ")),
                    "remove them",
                );
            } else {
                self.refuse(
                    stranger.file,
                    format!("has a broken chain: {issuer}, which issued {}, is missing", tip.called()),
                    format!("add its certificate, or remove {} if it does not belong here", names.join(", ")),
                );
            }
        }
        if rest.is_empty() && !whole && !is_trusted() {
            self.warn(
                leaf.file,
                format!(
                    "comes without the certificate of {issuer}, which issued it, so clients may not be able \
                to trust it"
                ),
                format!(
                    "give the authority's intermediate certificates too (--chain, or tls.chain), unless {issuer} is a root \
                that every tablet has"
                ),
            );
        }
        if whole && !path.is_empty() && !is_trusted() {
            self.warn(
                tip.file,
                format!("includes the root ({}), which clients take from their own store", tip.called()),
                "remove it: it only makes every connection slower",
            );
        }
    }

    fn check_link(&mut self, given: &GivenFiles<'_>, link: &Link<'_>) {
        let whose = format!("holds {}, which ", link.called());
        let signs = match link.certificate.key_usage() {
            Ok(Some(usage)) => usage.value.key_cert_sign(),
            _ => true,
        };
        if !link.certificate.is_ca() || !signs {
            self.refuse(
                link.file,
                format!("{whose}may not issue certificates"),
                "use a certificate from an authority: clients refuse what this one issued",
            );
        }
        self.check_dates(given.now, link, &whose);
        // Nobody asks how a root signed itself.
        if !read::self_signed(&link.certificate) {
            self.check_strength(link, &whose);
        }
    }
}
