//! The site's own authority.

use super::*;
use crate::certificate::authority::{authority_serves, is_signed_by, new_authority, sign_certificate, still_signed};

const NAMES: [&str; 3] = ["camcops.example.org", "10.1.2.3", "fd00::17"];

/// Whether openssl, which trusts the authority alone, takes a certificate for one of its names.
fn is_taken(authority: &Pair, pair: &Pair, name: [&str; 2]) -> String {
    let (root, leaf) = (on_disk(authority), on_disk(pair));
    let time = seconds(now());
    let mut arguments = vec!["verify", "-x509_strict", "-purpose", "sslserver", "-attime", &time];
    arguments.extend(name);
    arguments.extend(["-CAfile", &root.certificate, &leaf.certificate]);
    let said = openssl(&arguments);
    match said.trim() == format!("{}: OK", leaf.certificate) {
        true => String::new(),
        false => said,
    }
}

#[test]
fn who_trusts_it_trusts_every_certificate_that_it_signs() {
    let wanted = subject(&NAMES);
    let authority = new_authority(&wanted, now()).unwrap();
    authority_serves(&authority, &wanted, now()).unwrap();
    let first = sign_certificate(&authority, None, &wanted, now()).unwrap();
    let second = sign_certificate(&authority, Some(&first.key), &wanted, now() + 300 * DAY).unwrap();
    assert_eq!(*first.key, *second.key);
    assert_ne!(first.certificate, second.certificate);
    for name in [["-verify_hostname", NAMES[0]], ["-verify_ip", NAMES[1]], ["-verify_ip", NAMES[2]]] {
        assert_eq!(is_taken(&authority, &first, name), "", "{name:?}");
    }
    let pair = (first.certificate.as_bytes(), first.key.as_bytes());
    still_signed(pair, &authority.certificate, &wanted, now()).unwrap();
    assert!(is_signed_by(&first.certificate, &authority.certificate));
    let disk = on_disk(&authority);
    let said = openssl(&["x509", "-in", &disk.certificate, "-noout", "-text"]);
    for line in [
        "CN = CamCOPS authority of camcops.example.org (2026-12-01)",
        "CA:TRUE, pathlen:0",
        "Certificate Sign, CRL Sign",
        "X509v3 Name Constraints: critical",
        "DNS:camcops.example.org",
        "IP:10.1.2.3/255.255.255.255",
    ] {
        assert!(said.contains(line), "{line} is not in {said}");
    }
}

#[test]
fn it_vouches_for_no_other_server() {
    for (names, other, name) in [
        (&NAMES[..1], "bank.example.org", ["-verify_hostname", "bank.example.org"]),
        (&NAMES[..1], "10.1.2.4", ["-verify_ip", "10.1.2.4"]),
        (&NAMES[1..], "10.1.2.4", ["-verify_ip", "10.1.2.4"]),
        (&NAMES[1..], "camcops.example.org", ["-verify_hostname", "camcops.example.org"]),
    ] {
        let authority = new_authority(&subject(names), now()).unwrap();
        let forged = sign_certificate(&authority, None, &subject(&[other]), now()).unwrap();
        let said = is_taken(&authority, &forged, name);
        assert!(said.contains("permitted subtree violation") || said.contains("excluded subtree violation"), "{said}");
        // Nor does this program have it do so.
        let why = authority_serves(&authority, &subject(&[other]), now()).unwrap_err().to_string();
        assert_eq!(why, format!("it may not sign for {other}"));
    }
}

#[test]
fn what_no_longer_serves_is_told() {
    let wanted = subject(&NAMES[..1]);
    let (authority, other) = (new_authority(&wanted, now()).unwrap(), new_authority(&wanted, now()).unwrap());
    let mixed = Pair { certificate: authority.certificate.clone(), key: other.key.clone() };
    let damaged = Pair { certificate: "nonsense".into(), key: authority.key.clone() };
    for (authority, time, words) in [
        (&mixed, now(), "its key belongs to another certificate"),
        (&damaged, now(), "it can't be read"),
        (&authority, now() + 3400 * DAY, "it expires on 2036"),
        (&authority, now() - DAY, "the clock was wrong"),
    ] {
        let why = authority_serves(authority, &wanted, time).unwrap_err().to_string();
        assert!(why.contains(words), "{why}");
    }
    let pair = sign_certificate(&authority, None, &wanted, now()).unwrap();
    let bytes = (pair.certificate.as_bytes(), pair.key.as_bytes());
    let more = subject(&["camcops.example.org", "x.camcops.example.org"]);
    // What stands below a name, it may sign for.
    authority_serves(&authority, &more, now()).unwrap();
    for (authority, wanted, time, words) in [
        (&other, &wanted, now(), "did not sign it"),
        (&authority, &more, now(), "does not cover x.camcops.example.org"),
        (&authority, &wanted, now() + 350 * DAY, "it expires on"),
    ] {
        let why = still_signed(bytes, &authority.certificate, wanted, time).unwrap_err().to_string();
        assert!(why.contains(words), "{why}");
    }
    // No certificate outlives what signed it.
    let late = sign_certificate(&authority, None, &wanted, now() + 3500 * DAY).unwrap();
    let ends = |pair: &Pair| summarize_first(pair.certificate.as_bytes(), now()).unwrap().not_after;
    assert_eq!(ends(&late), ends(&authority));
}
