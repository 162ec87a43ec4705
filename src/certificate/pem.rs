//! PEM text, written from what was understood of it.

use super::read;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use zeroize::{Zeroize, Zeroizing};

/// How many characters RFC 7468 has in a line.
const LINE: usize = 64;

/// The certificates of a PEM file and nothing else of it: no key, no text around them; nothing if there are none.
///
/// Each is written again from what was read, so that nothing gets into a file that everybody reads along with it.
pub(crate) fn certificates_only(pem: &[u8]) -> Option<Vec<u8>> {
    let mut blocks = read::read_blocks(pem).ok()?;
    let mut text = String::new();
    for block in blocks.iter().filter(|block| read::is_certificate(block)) {
        let (rest, _) = X509Certificate::from_der(&block.contents).ok()?;
        let length = block.contents.len() - rest.len();
        text.push_str(&encode_pem("CERTIFICATE", &block.contents[..length]));
    }
    blocks.iter_mut().for_each(|block| block.contents.zeroize());
    (!text.is_empty()).then(|| text.into_bytes())
}

/// The first private key of a PEM file and nothing else of it.
pub(crate) fn key_only(pem: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut blocks = read::read_blocks(pem).ok()?;
    let key = blocks.iter().find(|block| read::is_private_key(block));
    let key = key.map(|block| Zeroizing::new(encode_pem(&block.label, &block.contents).into_bytes()));
    blocks.iter_mut().for_each(|block| block.contents.zeroize());
    key
}

/// Whether a private key stands in a file, be it damaged or encrypted.
pub(crate) fn holds_key(pem: &[u8]) -> bool {
    read::contains_bytes(pem, b"PRIVATE KEY-----")
}

pub(super) fn encode_pem(label: &str, der: &[u8]) -> String {
    let base64 = Zeroizing::new(encode_base64(der));
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(LINE.min(rest.len()));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// Bytes as text, as RFC 4648 has it.
pub(crate) fn encode_base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    bytes
        .chunks(3)
        .flat_map(|chunk| {
            let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
            let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
            let used = chunk.len() + 1;
            (0..4).map(move |index| match index < used {
                true => char::from(LETTERS[(bits >> (18 - 6 * index) & 63) as usize]),
                false => '=',
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_as_everybody_writes_it() {
        assert_eq!(encode_base64(b""), "");
        assert_eq!(encode_base64(b"f"), "Zg==");
        assert_eq!(encode_base64(b"fo"), "Zm8=");
        assert_eq!(encode_base64(b"foo"), "Zm9v");
        assert_eq!(encode_base64(b"camcops:\xff\xfe"), "Y2FtY29wczr//g==");
    }
}
