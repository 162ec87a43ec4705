//! `cert install --pfx`: a file of PKCS#12, as Windows writes it, taken apart by openssl.

use super::import::read_bytes;
use crate::base::error::Exit;
use crate::base::prompt::{ask_hidden, has_terminal};
use crate::base::secret::Secret;
use crate::certificate::order_by_key;
use crate::commands::superuser::secret_from;
use crate::host::Host;
use crate::session::Session;
use anyhow::Result;
use std::path::Path;
use std::time::Duration;
use zeroize::Zeroizing;

const FLAG: &str = "--pfx";
const PASSWORD_FLAG: &str = "--password-file";
const OPENSSL: &str = "openssl";
const PATIENCE: Duration = Duration::from_secs(30);
/// What openssl says of a wrong password.
const WRONG_PASSWORD: [&str; 3] = ["invalid password", "mac verify", "maybe wrong password"];

/// The certificate with its chain in order, and its key.
pub(super) struct UnpackedPfx {
    pub(super) certificates: Vec<u8>,
    pub(super) key: Zeroizing<Vec<u8>>,
}

/// Reads the file, and its password from a file, standard input or the terminal.
pub(super) fn unpack_pfx(site: &Session, file: &Path, password_file: Option<&Path>) -> Result<UnpackedPfx> {
    let host = &site.host;
    let (_, bytes) = read_bytes(host, FLAG, file)?;
    if !host.has_program(OPENSSL) {
        return Err(Exit::Unreachable.because(format!(
            "{FLAG} {}: {OPENSSL} reads such files and is not installed; run `apt-get install openssl`",
            file.display()
        )));
    }
    let password = match password_file {
        Some(from) => secret_from(host, PASSWORD_FLAG, from)?,
        None if !site.style.json && has_terminal() => ask_hidden(&format!("Password of {}: ", file.display()))?,
        None => {
            return Err(Exit::Usage.because(format!(
                "{FLAG} {}: give its password with {PASSWORD_FLAG} FILE (- for standard input), or run on a terminal",
                file.display()
            )));
        }
    };
    // Its own copy: what is read is what was looked at.
    let copy = host.runtime_file(&format!("pfx-{}", std::process::id()))?;
    host.put_file(&copy, &bytes, Some((0, 0)), 0o600)?;
    let unpacked = run_openssl(host, &copy, &password);
    host.remove_file(&copy)?;
    let pem = unpacked.map_err(|why| Exit::Unusable.because(format!("{FLAG} {}: {why}", file.display())))?;
    let (certificates, key) = order_by_key(pem.as_bytes()).ok_or_else(|| {
        Exit::Unusable.because(format!(
            "{FLAG} {}: it contains no certificate with its private key; export it again with the private key",
            file.display()
        ))
    })?;
    Ok(UnpackedPfx { certificates, key })
}

/// Everything in it as PEM. The password comes by standard input, where nobody sees it.
fn run_openssl(host: &Host, file: &str, password: &Secret) -> Result<Zeroizing<String>> {
    let line = Zeroizing::new(format!("{}\n", password.reveal()));
    let mut words = String::new();
    // Windows until 2019 encrypts in a way that openssl from 3.0 on reads on demand only.
    for more in [None, Some("-legacy")] {
        let arguments = ["pkcs12", "-in", file, "-nodes", "-passin", "stdin"].into_iter().chain(more);
        let child = host.child(OPENSSL).args(arguments).input(line.as_bytes()).patience(PATIENCE);
        let ended = child.end()?;
        if ended.status.success() {
            return Ok(Zeroizing::new(ended.output));
        }
        let said = ended.last_words();
        let lower = said.to_lowercase();
        if WRONG_PASSWORD.iter().any(|words| lower.contains(words)) {
            return Err(Exit::Unusable.because("the password is wrong"));
        }
        if words.is_empty() {
            words = said;
        }
    }
    Err(Exit::Unusable.because(format!("{OPENSSL} can't read it as PKCS#12: {words}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn openssl(arguments: &[&str]) {
        let ran = Command::new(OPENSSL).args(arguments).output().expect("these tests need the openssl command");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    }

    #[test]
    fn what_openssl_exports_is_read_again() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name).display().to_string();
        let (key, certificate) = (at("key"), at("crt"));
        openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            &key,
            "-out",
            &certificate,
            "-subj",
            "/CN=camcops.example.org",
            "-days",
            "30",
        ]);
        let host = Host::live().unwrap();
        let word = Secret::new("open, Sesame $1".into());
        std::fs::write(at("word"), word.reveal()).unwrap();
        let from = format!("file:{}", at("word"));
        let export = ["pkcs12", "-export", "-inkey", &key, "-in", &certificate, "-passout", &from];
        let weak = ["-legacy", "-certpbe", "PBE-SHA1-RC2-40", "-keypbe", "PBE-SHA1-3DES", "-macalg", "sha1"];
        for (name, more) in [("new.pfx", &[][..]), ("old.pfx", &weak)] {
            let file = at(name);
            openssl(&[&export[..], more, &["-out", &file]].concat());
            let pem = run_openssl(&host, &file, &word).unwrap();
            let (certificates, found) = order_by_key(pem.as_bytes()).unwrap();
            assert!(crate::certificate::key_fits_certificate(&certificates, &found), "{name}");
            let why = run_openssl(&host, &file, &Secret::new("Sesame".into())).unwrap_err();
            assert_eq!(why.to_string(), "the password is wrong", "{name}");
        }
        let why = run_openssl(&host, &certificate, &word).unwrap_err();
        assert!(why.to_string().contains("PKCS#12"), "{why}");
    }
}
