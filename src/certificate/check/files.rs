//! Files that are not what they should be: binary, encrypted, empty, swapped.

use super::{Findings, GivenFiles};
use crate::base::text::shell_word;
use crate::certificate::read::{self, PrivateKey, Unreadable};
use std::path::{Path, PathBuf};
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::der::parse_der;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;
use zeroize::Zeroize;

impl Findings {
    fn unreadable(&mut self, file: &Path, problem: Unreadable, holds: &str) {
        match problem {
            Unreadable::Damaged(how) => {
                self.refuse(file, format!("is damaged: {how}"), "copy it again from its source")
            }
            Unreadable::Empty => self.refuse(file, "is empty", format!("put {holds} into it, in PEM form")),
            Unreadable::TooLong(how) => self.refuse(
                file,
                format!("is not a file of {holds}: {how}"),
                format!("put {holds} into it and nothing else"),
            ),
            Unreadable::Utf16 => {
                let word = shell_word(file);
                let new = shell_word(&file_beside(file, "ascii.pem"));
                self.refuse(
                    file,
                    "is UTF-16 text, and Apache reads plain ASCII",
                    format!("convert it, `(umask 077; iconv --from-code=UTF-16 --to-code=ASCII {word} > {new})`, and give the new file"),
                );
            }
            Unreadable::NotPem | Unreadable::Binary => self.refuse(
                file,
                "has no line that starts with -----BEGIN, so it is not in PEM form",
                format!("give a PEM file with {holds}"),
            ),
        }
    }

    pub(super) fn read_key(&mut self, given: &GivenFiles<'_>) -> Option<PrivateKey> {
        let (path, bytes) = given.key;
        let (word, plain) = (shell_word(path), shell_word(&file_beside(path, "plain.key")));
        let encrypted = (
            "is encrypted, but Apache starts without anybody to type its passphrase",
            format!(
                "write it without one, `(umask 077; openssl pkey -in {word} -out {plain})`, and set tls.key to \
                that file"
            ),
        );
        if read::old_style_encrypted(bytes) {
            self.refuse(path, encrypted.0, encrypted.1);
            return None;
        }
        let mut blocks = match read::read_blocks(bytes) {
            Ok(blocks) => blocks,
            Err(Unreadable::Binary) => {
                let pem = shell_word(&file_beside(path, "key.pem"));
                let convert = match binary_kind(bytes) {
                    Binary::Pkcs12 => {
                        format!("(umask 077; openssl pkcs12 -in {word} -nocerts -nodes -out {pem})")
                    }
                    _ => format!("(umask 077; openssl pkey -inform DER -in {word} -out {pem})"),
                };
                self.refuse(
                    path,
                    "is in binary form, and Apache reads keys in PEM form",
                    format!("convert it, `{convert}`, and set tls.key to the new file"),
                );
                return None;
            }
            Err(problem) => {
                self.unreadable(path, problem, "the private key");
                return None;
            }
        };
        let position = blocks.iter().position(read::is_private_key);
        let key = match position.map(|index| &blocks[index]) {
            Some(block) if block.label == "ENCRYPTED PRIVATE KEY" => {
                self.refuse(path, encrypted.0, encrypted.1);
                None
            }
            Some(block) => match PrivateKey::parse(&block.label, &block.contents) {
                Ok(key) => Some(key),
                Err(what) => {
                    self.refuse(
                        path,
                        format!("holds {what:#}"),
                        "give an RSA, P-256 or P-384 key in PEM form, the one that the certificate was \
                        requested with",
                    );
                    None
                }
            },
            None if blocks.iter().any(read::is_certificate) => {
                self.refuse(
                    path,
                    "holds a certificate and no private key",
                    "set tls.key to the key's file, and tls.certificate to the certificate's (were they swapped?)",
                );
                None
            }
            None => {
                self.refuse(
                    path,
                    format!("holds {} and no private key", list_blocks(&blocks)),
                    "set tls.key to the file with the line -----BEGIN PRIVATE KEY-----",
                );
                None
            }
        };
        blocks.iter_mut().for_each(|block| block.contents.zeroize());
        key
    }

    pub(super) fn read_certificates(
        &mut self,
        given: &GivenFiles<'_>,
        (path, bytes): (&Path, &[u8]),
        setting: &str,
    ) -> Vec<Vec<u8>> {
        // Files that differ only in their extension must not be converted into one.
        let extension = if setting == "tls.chain" { "chain.pem" } else { "crt.pem" };
        let (word, pem) = (shell_word(path), shell_word(&file_beside(path, extension)));
        let blocks = match read::read_blocks(bytes) {
            Ok(blocks) => blocks,
            Err(Unreadable::Binary) => {
                let (what, convert) = match binary_kind(bytes) {
                    Binary::Pkcs12 => ("a PKCS#12 bundle", format!("openssl pkcs12 -in {word} -nokeys -out {pem}")),
                    Binary::Certificate => {
                        ("in binary form (DER)", format!("openssl x509 -inform DER -in {word} -out {pem}"))
                    }
                    Binary::Other => (
                        "in binary form, perhaps a PKCS#7 bundle",
                        format!("openssl pkcs7 -inform DER -in {word} -print_certs -out {pem}"),
                    ),
                };
                self.refuse(
                    path,
                    format!("is {what}, and Apache reads certificates in PEM form"),
                    format!("convert it, `{convert}`, and set {setting} to the new file"),
                );
                return Vec::new();
            }
            Err(problem) => {
                self.unreadable(path, problem, "the certificate");
                return Vec::new();
            }
        };
        let has_key = blocks.iter().any(read::is_private_key);
        if !blocks.iter().any(read::is_certificate) {
            let kind = list_blocks(&blocks);
            let (what, remedy) = if has_key {
                (
                    "a private key and no certificate".to_string(),
                    format!("set {setting} to the certificate's file, and tls.key to the key's (were they swapped?)"),
                )
            } else if kind.contains("PKCS7") {
                (
                    "a PKCS#7 bundle".into(),
                    format!(
                        "unpack it, `openssl pkcs7 -in {word} -print_certs -out {pem}`, and set {setting} to \
                        the new file"
                    ),
                )
            } else if kind.contains("REQUEST") {
                (
                    "a certificate request, which is what the authority answers with a certificate".into(),
                    format!("set {setting} to the certificate that the authority sent back"),
                )
            } else {
                (
                    format!("{kind} and no certificate"),
                    format!("set {setting} to the file with the line -----BEGIN CERTIFICATE-----"),
                )
            };
            self.refuse(path, format!("holds {what:#}"), remedy);
        } else if has_key && path != given.key.0 {
            self.warn(
                path,
                "holds a private key as well, and certificate files are often readable by every account",
                "remove the key from it; `camcops-provision cert install` copies the certificates only",
            );
        }
        blocks
            .into_iter()
            .filter_map(|mut block| {
                if read::is_certificate(&block) {
                    return Some(block.contents);
                }
                block.contents.zeroize();
                None
            })
            .collect()
    }
}

enum Binary {
    Certificate,
    Pkcs12,
    Other,
}

fn binary_kind(bytes: &[u8]) -> Binary {
    if X509Certificate::from_der(bytes).is_ok() {
        return Binary::Certificate;
    }
    let version = parse_der(bytes).ok().and_then(|(_, outer)| outer.as_sequence().ok()?.first()?.as_u32().ok());
    match version {
        Some(3) => Binary::Pkcs12,
        _ => Binary::Other,
    }
}

fn list_blocks(blocks: &[Pem]) -> String {
    let labels: Vec<_> = blocks.iter().map(|block| read::printable_text(&block.label)).collect();
    labels.join(", ")
}

/// A name for the converted file, next to the given one.
fn file_beside(path: &Path, extension: &str) -> PathBuf {
    let new = path.with_extension(extension);
    if new == path { path.with_extension(format!("new.{extension}")) } else { new }
}
