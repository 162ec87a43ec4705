//! What no client takes, or no machine should: refused, and quickly.

use super::*;
use rcgen::PKCS_ED25519;
use std::time::Instant;

#[test]
fn only_certificates_leave_a_file() {
    let chain = Chain::new();
    let file = format!("Bag Attributes\n    friendlyName: x\n{}{}junk\n{}", chain.leaf, chain.key, chain.issuing.pem());
    let published = certificates_only(file.as_bytes()).unwrap();
    let published = String::from_utf8(published).unwrap();
    assert_eq!(published.replace('\r', ""), format!("{}{}", chain.leaf, chain.issuing.pem()).replace('\r', ""));
    assert!(holds_key(file.as_bytes()) && !holds_key(published.as_bytes()));
    let key = key_only(file.as_bytes()).unwrap();
    assert!(key_fits_certificate(chain.leaf.as_bytes(), &key) && !key.windows(4).any(|text| text == b"CERT"));
    assert_eq!(certificates_only(chain.key.as_bytes()), None);
    assert!(key_only(chain.leaf.as_bytes()).is_none());

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("published");
    fs::write(&path, &published).unwrap();
    let text = openssl(&["x509", "-noout", "-subject", "-in", &path.display().to_string()]);
    assert!(text.contains(SERVER), "{text}");
}

#[test]
fn a_certificate_that_vouches_for_others_is_not_served() {
    let key = KeyPair::generate().unwrap();
    let mut params = leaf(&[SERVER]).params;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let files = |params: &CertificateParams| {
        let pem = params.self_signed(&key).unwrap().pem();
        Files::new(pem, key.serialize_pem(), &[SERVER])
    };
    // As ours are: it calls itself an authority and may sign nothing.
    finds(&files(&params), &[]);
    params.key_usages.push(KeyUsagePurpose::KeyCertSign);
    finds(&files(&params), &["refuse server.crt may issue certificates (CA:TRUE)"]);
    params.key_usages.clear();
    finds(&files(&params), &["refuse server.crt may issue certificates (CA:TRUE)"]);
}

#[test]
fn a_wildcard_for_the_servers_of_many_is_refused() {
    let chain = Chain::new();
    for wide in ["*", "*.com", "*.hospital", "*.co.uk", "*.NHS.uk"] {
        let files = chain.whole(leaf(&[SERVER, wide]));
        let wide = wide.to_ascii_lowercase();
        finds(&files, &[&format!("refuse server.crt is for {wide}, and no client")]);
    }
    for fine in ["*.example.org", "*.example.co.uk", "*.co.example", "*.de.example.com"] {
        finds(&chain.whole(leaf(&[SERVER, fine])), &[]);
    }
}

#[test]
fn what_is_too_much_is_refused_in_no_time() {
    let begin = Instant::now();
    let chain = Chain::new();
    let named = |count: usize| {
        let names: Vec<_> = (0..count).map(|at| format!("host-{at}.example.org")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).chain([SERVER]).collect();
        chain.whole(leaf(&names))
    };
    finds(&named(400), &[]);
    finds(&named(600), &["refuse server.crt is for 601 names"]);
    finds(&named(10_000), &["refuse server.crt has 2"]);
    let mut missing = named(400);
    missing.names = vec!["other.example.org".into()];
    let lines = missing.lines();
    assert!(lines[0].contains(" and 393 more)") && lines[0].len() < 500, "{lines:?}");

    for count in [65, 4_000] {
        let long = vec![chain.issuing.pem(); count].concat();
        finds(
            &chain.files(&[&chain.leaf]).with_chain(&[&long]),
            &["refuse chain.pem is not a file of the certificate: it has more than"],
        );
        let both = format!("{}{long}", chain.leaf);
        assert!(summarize_all(both.as_bytes(), now()).is_err());
        assert!(!key_fits_certificate(both.as_bytes(), chain.key.as_bytes()));
    }
    let huge = [chain.leaf.as_bytes(), &vec![b' '; 2 << 20]].concat();
    let mut files = chain.files(&[]);
    files.certificate = huge;
    finds(&files, &["refuse server.crt is not a file of the certificate: it has more than 2 MiB"]);
    assert!(begin.elapsed().as_secs() < 20, "{:?}", begin.elapsed());
}

#[test]
fn signatures_that_browsers_do_not_verify_are_refused() {
    let chain = Chain::new();
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let issuer = CertifiedIssuer::self_signed(authority("Modern CA"), key).unwrap();
    let signed = leaf(&[SERVER]).params.signed_by(&chain.key_pair, &issuer).unwrap();
    finds(
        &chain.files(&[&signed.pem()]),
        &["refuse server.crt is signed with Ed25519", "warn server.crt comes without"],
    );
    let ed25519 = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let why = create_request(&ed25519.serialize_pem(), &subject(&[SERVER])).unwrap_err();
    assert!(why.to_string().contains("--new-key"), "{why}");
}

#[test]
fn text_that_openssl_passes_over_is_refused() {
    let chain = Chain::new();
    let utf16: Vec<u8> = format!("\u{feff}{}", chain.leaf).encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut files = chain.files(&[]);
    files.certificate = utf16;
    finds(&files, &["refuse server.crt is UTF-16 text"]);
    files.certificate = format!("{}\u{feff}{}", chain.leaf, chain.issuing.pem()).into_bytes();
    finds(&files, &["refuse server.crt is damaged: a byte order mark"]);
}

#[test]
fn what_is_served_is_judged_as_files_are() {
    let chain = Chain::new();
    let served = |pem: &[u8], name: &str| {
        let blocks = read::read_blocks(pem).unwrap();
        let chain: Vec<_> = blocks.into_iter().map(|block| block.contents).collect();
        let found = check_served(Path::new("host:443"), &chain, &[name.to_owned()], now());
        found.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(served(chain.leaf.as_bytes(), SERVER), Vec::<String>::new());
    assert!(served(chain.leaf.as_bytes(), "elsewhere")[0].contains("does not cover elsewhere"));
    let ed25519 = served(&fixture("ed25519.crt"), "ed25519.example.org");
    assert!(ed25519[0].starts_with("host:443 has an Ed25519 key"), "{ed25519:?}");
    assert_eq!(served(b"-----BEGIN X-----\nAAAA\n-----END X-----\n", SERVER).len(), 1);
}
