//! The order in which a server shows its certificates.

use super::pem::encode_pem;
use super::read::{self, PrivateKey};
use x509_parser::certificate::X509Certificate;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;
use zeroize::{Zeroize, Zeroizing};

/// The certificates of a PEM file in the order in which a server shows them, its own first, and the root and what does not
/// belong to its chain left out; with the key of that one. Nothing where no key fits any certificate.
pub(crate) fn order_by_key(pem: &[u8]) -> Option<(Vec<u8>, Zeroizing<Vec<u8>>)> {
    let mut blocks = read::read_blocks(pem).ok()?;
    let found = choose_pair(&blocks);
    for block in &mut blocks {
        block.contents.zeroize();
    }
    found
}

fn choose_pair(blocks: &[Pem]) -> Option<(Vec<u8>, Zeroizing<Vec<u8>>)> {
    let all: Vec<(&[u8], X509Certificate<'_>)> = blocks
        .iter()
        .filter(|block| read::is_certificate(block))
        .filter_map(|block| Some((block.contents.as_slice(), X509Certificate::from_der(&block.contents).ok()?.1)))
        .collect();
    let (mut tip, key) = blocks.iter().filter(|block| read::is_private_key(block)).find_map(|block| {
        let key = PrivateKey::parse(&block.label, &block.contents).ok()?;
        let own = all.iter().position(|(_, one)| key.fits(one.public_key()) == Some(true))?;
        Some((own, Zeroizing::new(encode_pem(&block.label, &block.contents).into_bytes())))
    })?;
    let mut path = vec![tip];
    while !read::self_signed(&all[tip].1) {
        let is_issuer = |at: &usize| {
            let issuer = &all[*at].1;
            !path.contains(at)
                && read::same_name(all[tip].1.issuer(), issuer.subject())
                && read::signed_by(&all[tip].1, issuer) != Some(false)
        };
        let Some(issuer) = (0..all.len()).find(is_issuer) else { break };
        if read::self_signed(&all[issuer].1) {
            break;
        }
        path.push(issuer);
        tip = issuer;
    }
    let text: String = path.into_iter().map(|at| encode_pem("CERTIFICATE", all[at].0)).collect();
    Some((text.into_bytes(), key))
}
