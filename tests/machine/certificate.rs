//! From the first, self-signed certificate to one of an authority and back, while visitors come.

use crate::harness::booted::Booted;
use crate::harness::installed::installed;
use crate::harness::site::{all_were_answered, visit, wait_until_well};
use serde_json::Value;

/// An authority, one below it, and what that signs: a request, or a certificate for another name.
const AUTHORITY: &str = r#"
mkdir -p /root/ca; cd /root/ca
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 300 -subj '/CN=Root of the hospital' \
    -addext keyUsage=critical,keyCertSign -keyout root.key -out root.crt
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=Below it' -keyout below.key -out below.csr
printf 'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n' > below.ext
openssl x509 -req -in below.csr -CA root.crt -CAkey root.key -days 200 -extfile below.ext -out below.crt
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=other.example.org' -keyout other.key -out other.csr
printf 'extendedKeyUsage=serverAuth\nsubjectAltName=DNS:other.example.org\n' > other.ext
openssl x509 -req -in other.csr -CA below.crt -CAkey below.key -days 90 -extfile other.ext -out other.crt
"#;

/// Signs a request as it is, names and all.
const SIGN: &str = "cd /root/ca; printf 'extendedKeyUsage=serverAuth\\nsubjectAltName=DNS:machine\\n' > leaf.ext
    openssl x509 -req -in /root/request -CA below.crt -CAkey below.key -days 90 -extfile leaf.ext -out leaf.crt 2>&1";

const INSTALL: &str =
    "camcops-provision cert install --cert /root/ca/leaf.crt --chain /root/ca/below.crt";

#[test]
fn a_certificate_of_an_authority_takes_the_place_of_the_first_one() {
    let Some((machine, _)) = installed() else {
        return;
    };
    wait_until_well(&machine, "the first boot");
    machine.run(AUTHORITY);
    visit(&machine, "visitor", "https://machine/login");
    let first = served(&machine);
    refused(&machine, "cert verify", 65, "self-signed");

    machine.run("camcops-provision cert csr --new-key > /root/request");
    machine.run(SIGN);
    let text = machine.run("openssl req -in /root/request -noout -text");
    assert!(text.contains("DNS:machine"), "{text}");
    what_does_not_fit_changes_nothing(&machine, &first);

    machine.run(INSTALL);
    let second = served(&machine);
    assert_ne!(second, first);
    nothing_is_pending(&machine);
    refused(&machine, "cert verify", 65, "does not trust");
    machine.run(
        "cp /root/ca/root.crt /usr/local/share/ca-certificates/; update-ca-certificates > /dev/null
         camcops-provision cert verify
         echo '127.0.0.1 elsewhere.example.org' >> /etc/hosts",
    );
    refused(
        &machine,
        "cert verify --host elsewhere.example.org",
        65,
        "not for elsewhere",
    );
    refused(&machine, "cert verify --port 1", 69, "can't be met");
    refused(&machine, "cert renew", 78, "cert csr");
    assert_eq!(machine.run("ls /etc/camcops/tls | wc -l").trim(), "2");

    // The next year's, with the same key.
    machine.run("camcops-provision cert csr > /root/request");
    machine.run(SIGN);
    machine.run(INSTALL);
    assert_ne!(served(&machine), second);
    assert_eq!(machine.run("ls /etc/camcops/tls | wc -l").trim(), "2");
    nothing_is_pending(&machine);
    let told: Value =
        serde_json::from_str(&machine.run("camcops-provision --json cert show")).unwrap();
    assert_eq!(told["chain"].as_array().unwrap().len(), 1, "{told:#}");
    let former = told["former"].as_array().unwrap();
    assert!(
        former
            .iter()
            .any(|one| one["fingerprint_sha256"] == second.as_str()),
        "{told:#}"
    );

    back_to_its_own(&machine);
    all_were_answered(&machine, "visitor");
}

/// The fingerprint of what Apache shows.
fn served(machine: &Booted) -> String {
    let told = machine.run(
        "openssl s_client -connect 127.0.0.1:443 -servername machine < /dev/null 2> /dev/null | openssl x509 -noout -fingerprint -sha256",
    );
    told.trim().split_once('=').unwrap().1.to_owned()
}

fn nothing_is_pending(machine: &Booted) {
    let (code, pending, why) = machine.tried("camcops-provision plan --exit-code");
    assert_eq!(code, 0, "{pending}{why}");
}

#[track_caller]
fn refused(machine: &Booted, arguments: &str, code: i32, words: &str) {
    let (told, _, why) = machine.tried(&format!("camcops-provision {arguments}"));
    assert_eq!(told, code, "{arguments}: {why}");
    assert!(why.contains(words), "{arguments}: {why}");
}

fn what_does_not_fit_changes_nothing(machine: &Booted, first: &str) {
    let before =
        machine.run("ls /etc/camcops/tls; cat /etc/camcops/provision.toml 2> /dev/null || true");
    let ca = "/root/ca";
    for (arguments, code, words) in [
        (format!("--cert {ca}/none.crt"), 65, "no such file"),
        (format!("--cert {ca}/leaf.ext"), 65, "can't be read"),
        (
            format!("--cert {ca}/other.crt"),
            65,
            "no key of this site fits",
        ),
        (
            format!("--cert {ca}/other.crt --chain {ca}/below.crt --key {ca}/other.key"),
            65,
            "machine",
        ),
        (
            format!("--cert {ca}/leaf.crt --chain {ca}/below.crt --key {ca}/other.key"),
            65,
            "key",
        ),
    ] {
        refused(machine, &format!("cert install {arguments}"), code, words);
    }
    // Somebody else has broken Apache's configuration.
    machine.run("echo Nonsense > /etc/apache2/conf-enabled/broken.conf");
    let (code, _, why) = machine.tried(INSTALL);
    assert_eq!(code, 78, "{why}");
    assert!(why.contains("before anything was changed"), "{why}");
    machine.run("rm /etc/apache2/conf-enabled/broken.conf");
    let after =
        machine.run("ls /etc/camcops/tls; cat /etc/camcops/provision.toml 2> /dev/null || true");
    assert_eq!(before, after);
    assert_eq!(served(machine), first);
    nothing_is_pending(machine);
}

fn back_to_its_own(machine: &Booted) {
    machine.run(
        "for key in mode certificate key; do camcops-provision config unset tls.$key; done
         camcops-provision --quiet install --yes",
    );
    let own = served(machine);
    machine.run("camcops-provision cert renew");
    let renewed = served(machine);
    assert_ne!(renewed, own);
    let key = || machine.run("sha256sum /etc/camcops/tls/camcops.key");
    let before = key();
    machine.run("camcops-provision cert renew --new-key");
    assert_ne!(served(machine), renewed);
    assert_ne!(key(), before);
    nothing_is_pending(machine);
    let told = machine.run("camcops-provision cert show");
    assert!(told.contains(&format!("before       {renewed}")), "{told}");
}
