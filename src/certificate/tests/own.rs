//! What we make ourselves.

use super::*;
use proptest::prelude::*;
use rcgen::Issuer;

#[test]
fn openssl_trusts_our_pair_once_it_is_told_to() {
    let pair = self_signed(&subject(&["camcops.example.org", "10.1.2.3", "fd00::17"]), now()).unwrap();
    let disk = on_disk(&pair);
    let file = disk.certificate.as_str();
    for (time, name, good) in [
        (now(), ["-verify_hostname", "camcops.example.org"], true),
        (now(), ["-verify_ip", "10.1.2.3"], true),
        (now(), ["-verify_ip", "fd00::17"], true),
        (now(), ["-verify_hostname", "other.example.org"], false),
        (now() - DAY / 30, ["-verify_ip", "10.1.2.3"], true),
        (now() - DAY / 12, ["-verify_ip", "10.1.2.3"], false),
        (now() + 366 * DAY, ["-verify_ip", "10.1.2.3"], false),
    ] {
        let time = seconds(time);
        let mut arguments = vec!["verify", "-x509_strict", "-purpose", "sslserver", "-attime", &time];
        arguments.extend(name);
        arguments.extend(["-CAfile", file, file]);
        let said = openssl(&arguments);
        assert_eq!(said.trim() == format!("{file}: OK"), good, "{name:?}: {said}");
    }
}

#[test]
fn what_the_certificate_says() {
    let pair = self_signed(&subject(&["camcops.example.org", "10.1.2.3"]), now()).unwrap();
    let disk = on_disk(&pair);
    let said = openssl(&["x509", "-in", &disk.certificate, "-noout", "-text", "-nameopt", "utf8,sep_comma_plus"]);
    for line in [
        "Subject: C=GB,ST=Cambridgeshire,O=Università & \"Söhne\",CN=camcops.example.org",
        "Not Before: Nov 30 23:00:00 2026 GMT",
        "Not After : Dec  1 00:00:00 2027 GMT",
        "ASN1 OID: prime256v1",
        "ecdsa-with-SHA256",
        "DNS:camcops.example.org, IP Address:10.1.2.3\n",
        "TLS Web Server Authentication\n",
        "Key Usage: critical\n                Digital Signature\n",
        "Basic Constraints: critical\n                CA:TRUE\n",
    ] {
        assert!(said.contains(line), "{line} is not in {said}");
    }
    let serial = openssl(&["x509", "-in", &disk.certificate, "-noout", "-serial"]);
    let serial = serial.trim().strip_prefix("serial=").unwrap();
    assert_eq!(serial.len(), 32, "{serial}");
    assert!(!serial.starts_with('-'));

    let bare = Subject { names: vec!["camcops.example.org".into()], days: 30, ..Subject::default() };
    let bare = self_signed(&bare, now()).unwrap();
    let summary = summarize_first(bare.certificate.as_bytes(), now()).unwrap();
    assert_eq!(summary.subject, "CN=camcops.example.org");
}

#[test]
fn a_stolen_key_vouches_for_no_other_server() {
    let pair = self_signed(&subject(&["camcops.example.org"]), now()).unwrap();
    let disk = on_disk(&pair);
    let wanted = subject(&["camcops.example.org"]);
    let mut lie = authority("");
    lie.distinguished_name = wanted.distinguished_name(&wanted.parsed_names().unwrap()).unwrap();
    let thief = Issuer::new(lie, KeyPair::from_pem(&pair.key).unwrap());
    let key = KeyPair::generate().unwrap();
    let forged = leaf(&["bank.example.org"]).params.signed_by(&key, &thief).unwrap();
    let victim = disk.directory.path().join("victim.crt").display().to_string();
    fs::write(&victim, forged.pem()).unwrap();
    let time = seconds(now());
    let said = openssl(&["verify", "-attime", &time, "-CAfile", &disk.certificate, &victim]);
    assert!(!said.contains(": OK"), "{said}");
    assert!(said.contains("key usage does not include certificate signing"), "{said}");
}

#[test]
fn the_pair_belongs_together_and_keeps_its_key_to_itself() {
    let pair = self_signed(&subject(&["camcops.example.org"]), now()).unwrap();
    let disk = on_disk(&pair);
    let key = disk.directory.path().join("server.key").display().to_string();
    assert_eq!(
        openssl(&["pkey", "-in", &key, "-pubout"]),
        openssl(&["x509", "-in", &disk.certificate, "-noout", "-pubkey"])
    );
    assert!(pair.key.starts_with("-----BEGIN PRIVATE KEY-----"));
    let shown = format!("{pair:?}");
    let secret: Vec<_> = pair.key.lines().filter(|line| !line.starts_with('-')).collect();
    assert!(secret.iter().all(|line| !shown.contains(line)));
    assert!(!shown.contains("PRIVATE"));
    let again = self_signed(&subject(&["camcops.example.org"]), now()).unwrap();
    assert_ne!(*pair.key, *again.key);
}

#[test]
fn a_renewed_certificate_is_for_the_key_that_is_there() {
    let names = subject(&["camcops.example.org"]);
    let pair = self_signed(&names, now()).unwrap();
    let more = subject(&["camcops.example.org", "10.1.2.3"]);
    let again = renew_certificate(&pair.key, &more, now()).unwrap();
    assert_eq!(*again.key, *pair.key);
    still_serves(again.certificate.as_bytes(), pair.key.as_bytes(), &more, now()).unwrap();
    // What is no key, or another kind of key than ours, is replaced.
    let other = String::from_utf8(fixture("rsa.key")).unwrap();
    for no_key in ["", "nonsense", &other] {
        let new = renew_certificate(no_key, &names, now()).unwrap();
        assert_ne!(*new.key, no_key);
        let (certificate, key) = (new.certificate.as_bytes(), new.key.as_bytes());
        still_serves(certificate, key, &names, now()).unwrap();
    }
}

#[test]
fn a_subject_that_no_certificate_can_carry_is_refused() {
    let refused = |change: &dyn Fn(&mut Subject)| {
        let mut subject = subject(&["camcops.example.org"]);
        change(&mut subject);
        self_signed(&subject, now()).unwrap_err().to_string()
    };
    assert!(refused(&|s| s.names = vec!["küche.example.org".into()]).contains("xn--"));
    assert!(refused(&|s| s.names = vec!["a b".into()]).contains("neither a host name"));
    assert!(refused(&|s| s.names = vec!["10.0.0.256".into()]).contains("neither a host name"));
    assert!(refused(&|s| s.names = vec!["a..b".into()]).contains("neither a host name"));
    assert!(refused(&|s| s.names.clear()).contains("web.server_name"));
    assert!(refused(&|s| s.country = Some("England".into())).contains("two letters"));
    assert!(refused(&|s| s.organization = Some("o".repeat(65))).contains("room for 64"));
    assert!(refused(&|s| s.days = 0).contains("1 to 824"));
    assert!(refused(&|s| s.days = 3650).contains("Apple"));
}

#[test]
fn names_once_each_and_a_long_first_one_is_no_common_name() {
    let long = format!("{}.example.org", "a".repeat(60));
    let given = [long.as_str(), "B.Example.org.", "b.example.org", "[fd00::1]", "FD00:0::1"];
    let pair = self_signed(&subject(&given), now()).unwrap();
    let summary = summarize_first(pair.certificate.as_bytes(), now()).unwrap();
    assert_eq!(summary.names, [long.as_str(), "b.example.org", "fd00::1"]);
    assert!(summary.subject.ends_with("CN=b.example.org"), "{summary:?}");
    let pair = self_signed(&subject(&[&long]), now()).unwrap();
    let summary = summarize_first(pair.certificate.as_bytes(), now()).unwrap();
    assert!(summary.subject.ends_with("CN=CamCOPS"), "{summary:?}");
}

fn host() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?(\\.[a-z0-9]{1,5}){0,2}\\.[a-z]{2,6}",
        any::<std::net::Ipv4Addr>().prop_map(|a| a.to_string()),
        any::<std::net::Ipv6Addr>().prop_map(|a| a.to_string()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_pair_serves_exactly_its_names(names in prop::collection::vec(host(), 1..5), other in host()) {
        let list: Vec<_> = names.iter().map(String::as_str).collect();
        let pair = self_signed(&subject(&list), now()).unwrap();
        let disk = on_disk(&pair);
        for name in names.iter().chain([&other]) {
            let is_address = name.parse::<std::net::IpAddr>().is_ok();
            let flag = if is_address { "-checkip" } else { "-checkhost" };
            let said = openssl(&["x509", "-in", &disk.certificate, "-noout", flag, name]);
            prop_assert_eq!(said.contains("does match"), names.contains(name), "{}: {}", name, said);
            prop_assert_eq!(said.contains("does NOT match"), !names.contains(name));
        }
        prop_assert!(still_serves(pair.certificate.as_bytes(), pair.key.as_bytes(), &subject(&list), now()).is_ok());
        let given = Files::of(&pair, &list);
        prop_assert_eq!(given.check(), vec![]);
    }
}

#[test]
fn a_pair_serves_until_something_changes() {
    let wanted = subject(&["a.example.org", "10.1.2.3"]);
    let pair = self_signed(&wanted, now()).unwrap();
    let (certificate, key) = (pair.certificate.as_bytes(), pair.key.as_bytes());
    let verdict = |subject: &Subject, time| still_serves(certificate, key, subject, time);
    verdict(&wanted, now()).unwrap();
    verdict(&wanted, now() + 334 * DAY).unwrap();
    let because = |subject: &Subject, time| verdict(subject, time).unwrap_err().to_string();
    assert_eq!(because(&wanted, now() + 335 * DAY), "it expires on 2027-12-01");
    assert_eq!(because(&wanted, now() + 366 * DAY), "it expired on 2027-12-01");
    assert!(because(&wanted, now() - DAY).starts_with("it is valid only from 2026-11-30"));

    let fewer = subject(&["A.EXAMPLE.org"]);
    verdict(&fewer, now()).unwrap();
    let more = subject(&["a.example.org", "10.1.2.3", "b.example.org"]);
    assert_eq!(because(&more, now()), "it does not cover b.example.org");
    let mut moved = wanted.clone();
    moved.locality = Some("Ely".into());
    assert_eq!(because(&moved, now()), "its locality is empty, but should be \"Ely\"");
    moved.locality = Some("  ".into());
    verdict(&moved, now()).unwrap();

    let other = self_signed(&wanted, now()).unwrap();
    let mixed = still_serves(certificate, other.key.as_bytes(), &wanted, now());
    assert_eq!(mixed.unwrap_err().to_string(), "its key belongs to another certificate");
    assert_eq!(still_serves(certificate, b"", &wanted, now()).unwrap_err().to_string(), "its key can't be read");
    assert!(still_serves(b"x", key, &wanted, now()).unwrap_err().to_string().contains("can't be read"));
    let chain = Chain::new();
    let foreign = still_serves(chain.leaf.as_bytes(), chain.key.as_bytes(), &wanted, now());
    assert_eq!(foreign.unwrap_err().to_string(), "the certificate is not self-signed (\"Issuing CA\" issued it)");
}

#[test]
fn a_short_life_is_not_renewed_on_every_run() {
    for days in 1..=LONGEST_LIFE_DAYS {
        let subject = Subject { days, ..subject(&["a.example.org"]) };
        let Ok(pair) = self_signed(&subject, now()) else { panic!("{days}") };
        let verdict = |time| still_serves(pair.certificate.as_bytes(), pair.key.as_bytes(), &subject, time);
        assert!(verdict(now() + DAY / 3).is_ok(), "{days}");
        assert!(verdict(now() + (days - 1) * DAY + DAY / 2).is_err(), "{days}");
    }
}

#[test]
fn the_summary_is_what_openssl_prints() {
    let file = fixture("rsa.crt");
    let shown = summarize_first(&file, now()).unwrap();
    let path = format!("{}/tests/fixtures/certificates/rsa.crt", env!("CARGO_MANIFEST_DIR"));
    let print = openssl(&["x509", "-in", &path, "-noout", "-fingerprint", "-sha256"]);
    assert_eq!(print.trim().split_once('=').unwrap().1, shown.fingerprint_sha256);
    assert_eq!(shown.subject, "CN=rsa.example.org");
    assert_eq!(shown.issuer, shown.subject);
    assert_eq!(shown.names, ["rsa.example.org"]);
    assert!(shown.not_before.starts_with("2026-11-21T") && shown.not_before.ends_with('Z'));
    assert!(shown.self_signed);
    assert_eq!(shown.days_left, 790);
    assert_eq!(summarize_first(&file, now() + 791 * DAY).unwrap().days_left, -1);
    let chain = Chain::new();
    assert!(!summarize_first(chain.leaf.as_bytes(), now()).unwrap().self_signed);
    assert!(summarize_first(b"nothing", now()).is_err());
}
