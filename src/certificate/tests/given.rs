//! What others bring along.

use super::*;
use crate::certificate::permission_findings;
use proptest::prelude::*;
use std::path::PathBuf;

#[test]
fn a_good_chain_in_one_file_or_two() {
    let chain = Chain::new();
    let (issuing, middle) = (chain.issuing.pem(), chain.middle.pem());
    finds(&chain.files(&[&chain.leaf, &issuing, &middle]), &[]);
    finds(&chain.files(&[&chain.leaf]).with_chain(&[&issuing, &middle]), &[]);
    finds(&chain.files(&[&chain.leaf, &issuing]).with_chain(&[&middle]), &[]);
    let text = format!("Bag Attributes\r\n{}", chain.leaf.replace('\n', "\r\n"));
    finds(&chain.files(&[&text, &issuing, &middle]), &[]);
}

#[test]
fn chains_out_of_order() {
    let chain = Chain::new();
    let (leaf, issuing, middle, root) = (&chain.leaf, &chain.issuing.pem(), &chain.middle.pem(), &chain.root.pem());
    finds(
        &chain.files(&[leaf, middle, issuing]),
        &["refuse server.crt has the chain in the wrong order, and some clients give up on that: \
           put the certificates in this order after the server's: \"Issuing CA\", \"Middle CA\""],
    );
    finds(
        &chain.files(&[issuing, middle, leaf]),
        &["refuse server.crt has the server's certificate (\"camcops.example.org\") in position 3"],
    );
    finds(
        &chain.files(&[leaf, middle]),
        &["refuse server.crt has a broken chain: \"Issuing CA\", which issued \"camcops.example.org\", is missing"],
    );
    finds(
        &chain.files(&[leaf]).with_chain(&[issuing, root]),
        &["refuse chain.pem has a broken chain: \"Middle CA\", which issued \"Issuing CA\", is missing"],
    );
    finds(&chain.files(&[leaf]), &["warn server.crt comes without the certificate of \"Issuing CA\""]);
    finds(&chain.files(&[leaf, issuing, middle, root]), &["warn server.crt includes the root (\"Root CA\")"]);
    // What this machine's own store accepts is no reason to worry anybody.
    let whole: [&str; 4] = [leaf, issuing, middle, root];
    for parts in [&whole[..1], &whole] {
        finds(&Files { trusted: true, ..chain.files(parts) }, &[]);
    }
    finds(
        &chain.files(&[issuing, middle]).with_chain(&[leaf]),
        &["refuse chain.pem holds the server's certificate (\"camcops.example.org\"), which belongs into server.crt"],
    );
    finds(
        &chain.files(&[leaf, issuing, middle]).with_chain(&[issuing, middle]),
        &[
            "warn chain.pem repeats the certificate of \"Issuing CA\"",
            "warn chain.pem repeats the certificate of \"Middle CA\"",
        ],
    );
    let stranger = CertifiedIssuer::self_signed(authority("Stranger"), KeyPair::generate().unwrap()).unwrap();
    finds(
        &chain.files(&[leaf, issuing, middle, root, &stranger.pem()]),
        &[
            "warn server.crt has certificates that do not belong to the chain: \"Stranger\"",
            "warn server.crt includes the root",
        ],
    );
}

#[test]
fn an_issuer_with_the_right_name_and_the_wrong_key() {
    let (chain, other) = (Chain::new(), Chain::new());
    finds(
        &chain.files(&[&chain.leaf, &other.issuing.pem(), &other.middle.pem()]),
        &["refuse server.crt has a certificate called \"Issuing CA\" that did not sign \"camcops.example.org\""],
    );
}

#[test]
fn an_issuer_that_may_not_issue_or_has_expired() {
    let key = || KeyPair::generate().unwrap();
    let root = CertifiedIssuer::self_signed(authority("Root CA"), key()).unwrap();
    let mut params = leaf(&["middle.example.org"]).params;
    params.not_after = OffsetDateTime::from(now() - DAY / 2);
    let middle = CertifiedIssuer::signed_by(params, key(), &root).unwrap();
    let server = key();
    let certificate = leaf(&[SERVER]).params.signed_by(&server, &middle).unwrap().pem();
    finds(
        &Files::new(certificate, server.serialize_pem(), &[SERVER]).with_chain(&[&middle.pem()]),
        &[
            "refuse chain.pem holds \"middle.example.org\", which may not issue certificates",
            "refuse chain.pem holds \"middle.example.org\", which expired on 2026-11-30",
        ],
    );
}

#[test]
fn names_are_covered_or_named() {
    let chain = Chain::new();
    let covers = |has: &[&str], wants: &[&str]| {
        let mut files = chain.whole(leaf(has));
        files.names = wants.iter().map(|name| name.to_string()).collect();
        files.lines()
    };
    let wild: &[&str] = &["*.example.org", "10.1.2.3", "fd00::1"];
    assert!(covers(wild, &["camcops.example.org", "CAMCOPS.Example.ORG", "*.example.org"]).is_empty());
    assert!(covers(wild, &["10.1.2.3", "fd00:0::1", "[fd00::1]"]).is_empty());
    for missing in
        ["example.org", "a.b.example.org", "10.1.2.4", "aexample.org", "*.b.example.org", "küche.example.org"]
    {
        let lines = covers(wild, &[missing]);
        assert_eq!(lines.len(), 1, "{missing}");
        let start = format!("refuse server.crt does not cover {missing} (it covers *.example.org, 10.1.2.3, fd00::1)");
        assert!(lines[0].starts_with(&start), "{lines:?}");
    }
    let wide = covers(&["*.org"], &["example.org"]);
    assert!(wide.len() == 2 && wide[1].contains("does not cover example.org"), "{wide:?}");
    let both = covers(&["a.example.org"], &["b.example.org", "a.example.org", "c.example.org"]);
    assert!(both[0].contains("does not cover b.example.org, c.example.org (it"), "{both:?}");

    let mut textual = leaf(&["a.example.org"]);
    textual.params.subject_alt_names.push(SanType::DnsName("10.1.2.3".try_into().unwrap()));
    let mut files = chain.whole(textual);
    files.names = vec!["10.1.2.3".into()];
    finds(&files, &["refuse server.crt has 10.1.2.3 as a host name, and clients look for an IP address entry"]);
}

#[test]
fn dates_and_purposes_all_at_once() {
    let chain = Chain::new();
    let mut files = chain.whole(leaf(&[SERVER]));
    files.now = now() + 61 * DAY;
    finds(&files, &["warn server.crt expires on 2027-03-01"]);
    files.now = now() + 91 * DAY;
    finds(&files, &["refuse server.crt expired on 2027-03-01"]);
    files.now = now() - 2 * DAY;
    finds(&files, &["refuse server.crt is valid only from 2026-11-30"]);

    let mut wrong = leaf(&["other.example.org"]);
    wrong.params.not_after = OffsetDateTime::from(now() - DAY / 2);
    wrong.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    wrong.params.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
    wrong.params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let mut files = chain.whole(wrong);
    files.key = KeyPair::generate().unwrap().serialize_pem().into_bytes();
    // Nothing marks the server's certificate any more: neither its key nor its purpose. The first one is taken.
    finds(
        &files,
        &[
            "refuse my server.key is not the key of \"other.example.org\" in server.crt",
            "refuse server.crt does not cover camcops.example.org",
            "refuse server.crt expired on 2026-11-30",
            "refuse server.crt has the certificate of an authority (\"other.example.org\")",
            "refuse server.crt is not meant for servers",
            "warn server.crt may not be used for signatures",
        ],
    );
    let mut long = leaf(&[SERVER]);
    long.params.not_after = OffsetDateTime::from(now() + 900 * DAY);
    finds(&chain.whole(long), &["warn server.crt is valid for 901 days, and Apple's devices refuse more than 825"]);
}

#[test]
fn every_kind_of_key_is_matched() {
    for (certificate, key) in [
        ("rsa.crt", "rsa.key"),
        ("rsa.crt", "rsa-pkcs1.key"),
        ("p256.crt", "p256.key"),
        ("p256.crt", "p256-sec1.key"),
        ("p256.crt", "p256-sec1-bare.key"),
        ("p256.crt", "p256-sec1-params.key"),
        ("p384.crt", "p384.key"),
    ] {
        finds(&Files::fixture(certificate, key), &[]);
    }
    for (name, what) in
        [("p521", "a P-521 key, which Chrome, Edge"), ("ed25519", "an Ed25519 key, which clients refuse")]
    {
        let files = Files::fixture(&format!("{name}.crt"), &format!("{name}.key"));
        finds(&files, &[&format!("refuse server.crt has {what}")]);
    }
    let keys = [
        "rsa.key",
        "sha1.key",
        "rsa-pkcs1.key",
        "p256.key",
        "p256-sec1-bare.key",
        "no-san.key",
        "p384.key",
        "p521.key",
        "ed25519.key",
    ];
    for certificate in ["rsa.crt", "p256.crt", "p384.crt"] {
        let own = certificate.strip_suffix(".crt").unwrap();
        for key in keys.iter().filter(|key| !key.starts_with(own)) {
            let files = Files::fixture(certificate, key);
            finds(&files, &[&format!("refuse my server.key is not the key of \"{own}.example.org\" in server.crt")]);
        }
    }
}

#[test]
fn weak_keys_and_signatures_are_refused() {
    finds(&Files::fixture("rsa-short.crt", "rsa-short.key"), &["refuse server.crt has an RSA key of only 1024 bits"]);
    finds(&Files::fixture("sha1.crt", "sha1.key"), &["refuse server.crt is signed with SHA-1"]);
    finds(&Files::fixture("secp256k1.crt", "secp256k1.key"), &["refuse server.crt has an elliptic curve other than"]);
    finds(&Files::fixture("no-san.crt", "no-san.key"), &["refuse server.crt has no subjectAltName"]);
    finds(
        &Files::fixture("rsa.crt", "rsa-short.key"),
        &["refuse my server.key is not the key of", "refuse my server.key is an RSA key of only 1024 bits"],
    );
}

#[test]
fn files_of_the_wrong_kind() {
    for key in ["rsa-encrypted.key", "rsa-pkcs1-encrypted.key"] {
        finds(
            &Files::fixture("rsa.crt", key),
            &["refuse my server.key is encrypted, but Apache starts without anybody to type its passphrase: write \
               it without one, `(umask 077; openssl pkey -in 'my server.key' -out 'my server.plain.key')`, and set tls.key"],
        );
    }
    finds(
        &Files::fixture("rsa.crt.der", "rsa.key.der"),
        &[
            "refuse my server.key is in binary form, and Apache reads keys in PEM form: convert it, \
             `(umask 077; openssl pkey -inform DER -in 'my server.key' -out 'my server.key.pem')`",
            "refuse server.crt is in binary form (DER), and Apache reads certificates in PEM form: convert it, \
             `openssl x509 -inform DER -in server.crt -out server.crt.pem`, and set tls.certificate",
        ],
    );
    finds(
        &Files::fixture("rsa.p12", "rsa.p12"),
        &["refuse my server.key is in binary form", "refuse server.crt is a PKCS#12 bundle"],
    );
    finds(
        &Files::fixture("rsa.key", "rsa.crt"),
        &[
            "refuse my server.key holds a certificate and no private key: set tls.key",
            "refuse server.crt holds a private key and no certificate: set tls.certificate",
        ],
    );
    let with = |certificate: &[u8], key: &[u8]| Files::new(certificate, key, &["rsa.example.org"]);
    let (certificate, key) = (fixture("rsa.crt"), fixture("rsa.key"));
    finds(&with(b"", b" \n"), &["refuse my server.key is empty", "refuse server.crt is empty"]);
    finds(&with(b"hello", b"0"), &["refuse my server.key has no line", "refuse server.crt has no line"]);
    let both = [certificate.as_slice(), &key].concat();
    finds(&with(&both, &key), &["warn server.crt holds a private key as well"]);
    finds(&with(&certificate, &both), &[]);
    let cut = certificate.len() - 40;
    finds(&with(&certificate[..cut], &key), &["refuse server.crt is damaged: the last -----END line is missing"]);
    let marked = ["\u{feff}".as_bytes(), &certificate].concat();
    finds(&with(&marked, &key), &["refuse server.crt is damaged: a byte order mark"]);
    let bad = String::from_utf8(certificate.clone()).unwrap().replacen("MII", "M!I", 1);
    finds(&with(bad.as_bytes(), &key), &["refuse server.crt is damaged: the text between"]);
    let wrong = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    finds(&with(wrong.as_bytes(), &key), &["refuse server.crt has a damaged certificate (number 1 in it)"]);
    let request = wrong.replace("CERTIFICATE", "CERTIFICATE REQUEST");
    finds(&with(request.as_bytes(), &key), &["refuse server.crt holds a certificate request"]);
    let bundle = wrong.replace("CERTIFICATE", "PKCS7");
    finds(&with(bundle.as_bytes(), &key), &["refuse server.crt holds a PKCS#7 bundle: unpack it"]);
    let ssh = wrong.replace("CERTIFICATE", "OPENSSH PRIVATE KEY");
    finds(&with(&certificate, ssh.as_bytes()), &["refuse my server.key holds a key of an unsupported type (OPENSSH"]);
    let damaged = wrong.replace("CERTIFICATE", "PRIVATE KEY");
    finds(&with(&certificate, damaged.as_bytes()), &["refuse my server.key holds a damaged PRIVATE KEY"]);
}

#[test]
fn our_own_pair_passes_as_given_files() {
    let pair = self_signed(&subject(&[SERVER, "10.1.2.3"]), now()).unwrap();
    finds(&Files::of(&pair, &[SERVER, "10.1.2.3"]), &[]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn nothing_that_stands_in_a_file_breaks_the_check(
        which in 0..3usize, at in any::<prop::sample::Index>(), bytes in prop::collection::vec(any::<u8>(), 0..9)
    ) {
        let mut files = [fixture("rsa.crt"), fixture("rsa.key"), fixture("p256.crt")];
        let file = &mut files[which];
        let at = at.index(file.len());
        let end = (at + bytes.len()).min(file.len());
        file.splice(at..end, bytes);
        let [certificate, key, chain] = files;
        let mut files = Files::new(certificate, key, &["rsa.example.org"]);
        files.chain = Some(chain);
        for finding in files.check() {
            prop_assert!(!finding.to_string().contains(char::is_control));
        }
    }

    #[test]
    fn damaged_der_breaks_nothing(
        which in 0..3usize, at in any::<prop::sample::Index>(), byte in any::<u8>()
    ) {
        let names = ["rsa.crt", "p256-sec1.key", "ed25519.key"];
        let block = read::read_blocks(&fixture(names[which])).unwrap().remove(0);
        let mut der = block.contents;
        let at = at.index(der.len());
        der[at] = byte;
        let pem = pem_text(&block.label, &der);
        let key = if which == 0 { fixture("rsa.key") } else { pem.clone() };
        let certificate = if which == 0 { pem } else { fixture("p256.crt") };
        for finding in Files::new(certificate, key, &["rsa.example.org"]).check() {
            prop_assert!(!finding.to_string().contains(char::is_control));
        }
    }
}

fn pem_text(label: &str, der: &[u8]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("der");
    fs::write(&path, der).unwrap();
    let base64 = openssl(&["base64", "-in", &path.display().to_string()]);
    format!("-----BEGIN {label}-----\n{base64}-----END {label}-----\n").into_bytes()
}

#[test]
fn who_may_read_the_key() {
    let path = PathBuf::from("/etc/ssl/private/server.key");
    let found = |mode, uid| permission_findings(&path, mode, uid);
    assert_eq!(found(0o100600, 0), []);
    assert_eq!(found(0o100640, 0), []);
    assert_eq!(found(0o100400, 0), []);
    assert!(
        matches!(found(0o100644, 0).as_slice(), [one] if one.severity == Severity::Refuse && one.what.contains("0644"))
    );
    assert!(matches!(found(0o100660, 0).as_slice(), [one] if one.severity == Severity::Warn));
    assert!(matches!(found(0o100600, 1000).as_slice(), [one] if one.severity == Severity::Warn));
    assert_eq!(found(0o100666, 1000).len(), 3);
}

#[test]
fn a_finding_is_plain_data() {
    let files = Files::fixture("no-san.crt", "no-san.key");
    let finding = files.check().remove(0);
    assert!(finding.to_string().starts_with("/etc/ssl/server.crt has no subjectAltName, and clients no longer"));
}

#[test]
fn a_bag_of_certificates_is_put_in_order() {
    let chain = Chain::new();
    let (leaf, issuing, middle, root) = (&chain.leaf, &chain.issuing.pem(), &chain.middle.pem(), &chain.root.pem());
    let stranger = CertifiedIssuer::self_signed(authority("Stranger"), KeyPair::generate().unwrap()).unwrap();
    let other = KeyPair::generate().unwrap().serialize_pem();
    let key = String::from_utf8(chain.files(&[leaf]).key).unwrap();
    let bag = [root, &stranger.pem(), issuing, &other, leaf, middle, &key]
        .map(|one| format!("Bag Attributes\n    x\n{one}"))
        .concat();
    let (certificates, found) = order_by_key(bag.as_bytes()).unwrap();
    let summaries = summarize_all(&certificates, now()).unwrap();
    let names: Vec<&str> = summaries.iter().map(|one| one.subject.as_str()).collect();
    assert_eq!(names, ["CN=camcops.example.org", "CN=Issuing CA", "CN=Middle CA"]);
    assert!(key_fits_certificate(&certificates, &found));
    let files = Files::new(certificates, found.to_vec(), &["camcops.example.org"]);
    finds(&files, &[]);
    assert!(order_by_key([root, issuing, &key].map(String::as_str).concat().as_bytes()).is_none());
}
