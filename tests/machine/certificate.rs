//! From the first, self-signed certificate to one of an authority and back, while visitors come.

use crate::harness::booted::Booted;
use crate::harness::installed::installed;
use crate::harness::site::{all_were_answered, visit, wait_until_well};
use crate::harness::tablet::Tablets;
use crate::harness::tier::one_in;
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
# Only `openssl ca` makes one that is over.
touch index
printf '[ca]\ndefault_ca=a\n[a]\ndatabase=index\nserial=serial\nrand_serial=yes\nnew_certs_dir=.\ndefault_md=sha256\npolicy=p\nunique_subject=no\n[p]\ncommonName=supplied\n' > ca.conf
printf 'extendedKeyUsage=serverAuth\nsubjectAltName=DNS:machine\n' > leaf.ext
openssl ca -batch -notext -config ca.conf -in other.csr -cert below.crt -keyfile below.key -extfile leaf.ext \
    -startdate 20250101000000Z -enddate 20251201000000Z -out expired.crt
cp other.key open.key
chmod 644 open.key
# Certificates for this machine that no browser takes, or none should.
bad() {
    openssl req -newkey $2 -nodes -subj '/CN=machine' -keyout $1.key -out $1.csr
    printf "$3" > $1.ext
    openssl x509 -req -in $1.csr -CA below.crt -CAkey below.key -days 90 -extfile $1.ext -out $1.crt
}
p256='ec -pkeyopt ec_paramgen_curve:P-256'
bad ed25519 ed25519 'subjectAltName=DNS:machine'
bad p521 'ec -pkeyopt ec_paramgen_curve:P-521' 'subjectAltName=DNS:machine'
bad wide "$p256" 'subjectAltName=DNS:machine,DNS:*.com'
bad all "$p256" 'subjectAltName=DNS:machine,DNS:*'
bad signs "$p256" 'basicConstraints=critical,CA:TRUE\nsubjectAltName=DNS:machine'
bad many "$p256" "subjectAltName=DNS:machine$(printf ',DNS:%d.example.org' $(seq 10000))"
for _ in $(seq 4000); do cat below.crt; done > endless.crt
"#;

/// Signs a request as it is, names and all.
const SIGN: &str = "cd /root/ca
    openssl x509 -req -in /root/request -CA below.crt -CAkey below.key -days 90 -extfile leaf.ext -out leaf.crt 2>&1
    cat below.crt leaf.crt > upside_down.crt
    openssl x509 -in leaf.crt -outform der -out leaf.der
    head --bytes=300 leaf.crt > half.crt";

const INSTALL: &str = "camcops-provision cert install --cert /root/ca/leaf.crt --chain /root/ca/below.crt";

#[test]
fn a_certificate_of_an_authority_takes_the_place_of_the_first_one() {
    let Some((machine, _)) = installed() else {
        return;
    };
    wait_until_well(&machine, "the first boot");
    machine.run(AUTHORITY);
    let tablets = Tablets::few(&machine);
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
    refused(&machine, "cert verify", 65, "not from an authority that this machine trusts");
    machine.run(
        "cp /root/ca/root.crt /usr/local/share/ca-certificates/; update-ca-certificates > /dev/null
         camcops-provision cert verify
         echo '127.0.0.1 elsewhere.example.org' >> /etc/hosts",
    );
    refused(&machine, "cert verify --host elsewhere.example.org", 65, "not for elsewhere");
    refused(&machine, "cert verify --port 1", 69, "can't connect to the site");
    refused(&machine, "cert verify --port 5672", 65, "does not speak TLS");
    refused(&machine, "cert verify --host 'a b'", 64, "neither a host name");
    refused(&machine, "cert renew", 78, "cert csr");
    assert_eq!(machine.run("ls /etc/camcops/tls | wc -l").trim(), "2");

    // The next year's, with the same key, and both in one file, which only root may read.
    machine.run("camcops-provision cert csr > /root/request");
    machine.run(SIGN);
    machine.run("cd /root/ca; cat leaf.crt /etc/camcops/tls/camcops-*.key > both.pem; chmod 644 both.pem");
    let arguments = "cert install --cert /root/ca/both.pem --chain /root/ca/below.crt";
    refused(&machine, arguments, 65, "can be read or written by every account");
    machine.run(&format!("chmod 600 /root/ca/both.pem; camcops-provision {arguments}"));
    let published = machine.run("cat /etc/camcops/tls/*.crt");
    assert_eq!(published.matches("-----BEGIN").count(), 2, "{published}");
    assert!(!published.contains("PRIVATE"), "a key in a file for everybody");
    machine.run("! grep -rl 'PRIVATE KEY-----' /etc/camcops /var/lib/camcops-provision --exclude-dir=secrets | xargs stat --format='%a %n' | grep -v '^600'");
    assert_ne!(served(&machine), second);
    assert_eq!(machine.run("ls /etc/camcops/tls | wc -l").trim(), "2");
    nothing_is_pending(&machine);
    let told: Value = serde_json::from_str(&machine.run("camcops-provision --json cert show")).unwrap();
    assert_eq!(told["chain"].as_array().unwrap().len(), 1, "{told:#}");
    let former = told["former"].as_array().unwrap();
    assert!(former.iter().any(|one| one["fingerprint_sha256"] == second.as_str()), "{told:#}");

    comes_in_one_file(&machine);
    back_to_its_own(&machine);
    tablets.end_unnoticed();
    all_were_answered(&machine, "visitor");
}

/// As an authority on Windows hands it out.
fn comes_in_one_file(machine: &Booted) {
    let before = served(machine);
    machine.run("camcops-provision cert csr > /root/request");
    machine.run(SIGN);
    machine.run(
        "cd /root/ca; umask 077; printf 'open, Sesame' > word; printf other > wrong
         openssl pkcs12 -export -inkey /etc/camcops/tls/camcops-*.key -in leaf.crt -certfile below.crt -passout file:word -out site.pfx",
    );
    let arguments = "cert install --pfx /root/ca/site.pfx";
    refused(machine, arguments, 64, "--password-file");
    refused(machine, &format!("{arguments} --password-file /root/ca/wrong"), 65, "the password is wrong");
    let told = machine.run(&format!("camcops-provision {arguments} --password-file - < /root/ca/word 2>&1"));
    assert!(!told.contains("warning"), "{told}");
    assert_ne!(served(machine), before);
    machine.run("camcops-provision cert verify; ! ls /run/camcops-provision/pfx-* 2> /dev/null");
    assert_eq!(machine.run("ls /etc/camcops/tls | wc -l").trim(), "2");
    nothing_is_pending(machine);
}

/// The pair that Apache's site names is whole, Apache takes it, and serves it.
const WHOLE: &str = r#"
site=/etc/apache2/sites-enabled/camcops.conf
certificate=$(sed -n 's/.*SSLCertificateFile "\(.*\)"/\1/p' $site | sort -u)
key=$(sed -n 's/.*SSLCertificateKeyFile "\(.*\)"/\1/p' $site | sort -u)
[ "$(openssl x509 -in "$certificate" -noout -pubkey)" = "$(openssl pkey -in "$key" -pubout)" ]
[ "$(stat --format=%a "$key")" = 600 ]
apache2ctl -t 2> /dev/null
systemctl reset-failed apache2
systemctl restart apache2
wanted=$(openssl x509 -in "$certificate" -noout -fingerprint -sha256)
shown=$(openssl s_client -connect 127.0.0.1:443 -servername machine < /dev/null 2> /dev/null | openssl x509 -noout -fingerprint -sha256)
[ "$wanted" = "$shown" ]
"#;

#[test]
fn wherever_it_is_cut_a_whole_pair_is_served() {
    // A program that is built for release has no scissors.
    if !cfg!(debug_assertions) {
        return;
    }
    let Some((machine, _)) = installed() else {
        return;
    };
    wait_until_well(&machine, "the first boot");
    machine.run(AUTHORITY);
    machine.run("camcops-provision cert csr --new-key > /root/request");
    cut_everywhere(&machine, INSTALL);
    without_the_application_or_apache(&machine);
    machine.run(
        "for key in mode certificate key; do camcops-provision config unset tls.$key; done
         camcops-provision --quiet install --yes",
    );
    cut_everywhere(&machine, "camcops-provision cert renew --new-key");
}

/// Cuts a command after each of its writes, or after some, until it comes to its end.
fn cut_everywhere(machine: &Booted, command: &str) {
    let share = one_in(7);
    for cut in (1 + share.first..).step_by(share.step as usize) {
        machine.run(SIGN);
        let (code, _, why) =
            machine.tried(&format!("CAMCOPS_PROVISION_CUT=write:{cut} {command} > /dev/null; exit $?"));
        machine.run(WHOLE);
        if code == 0 {
            eprintln!("{command}: {cut} writes are its last ones");
            assert!(cut > 20, "{cut}");
            break;
        }
        assert_eq!(code, 134, "{command}, {cut}: {why}");
        // Now and then it goes on from where it was cut.
        if cut % 4 == 0 {
            machine.run("camcops-provision --quiet install --yes");
            nothing_is_pending(machine);
            machine.run(WHOLE);
        }
    }
    nothing_is_pending(machine);
    if command == INSTALL {
        assert_eq!(machine.run("ls -A /etc/camcops/tls | wc -l").trim(), "2");
    }
}

fn without_the_application_or_apache(machine: &Booted) {
    let before = served(machine);
    machine.run(SIGN);
    machine.run("systemctl stop mariadb apache2");
    machine.run(INSTALL);
    let second = served(machine);
    assert_ne!(second, before);
    machine.run("systemctl start mariadb");
    wait_until_well(machine, "a certificate without a database");
    nothing_is_pending(machine);

    machine.run(SIGN);
    machine.run("systemctl stop apache2; systemctl mask --quiet apache2");
    let arguments = INSTALL.split_once(' ').unwrap().1;
    refused(machine, arguments, 69, "was refused");
    machine.run("systemctl unmask --quiet apache2; systemctl start apache2");
    assert_eq!(served(machine), second);
    nothing_is_pending(machine);
    assert_eq!(machine.run("ls -A /etc/camcops/tls | wc -l").trim(), "2");

    // It is over, and nobody has seen that: everything tells so, and what comes after it is taken.
    machine.run(
        "file=$(sed -n 's/^certificate = \"\\(.*\\)\"/\\1/p' /etc/camcops/provision.toml)
         cd /root/ca
         openssl req -new -key ${file%.crt}.key -subj /CN=machine -out over.csr
         openssl ca -batch -notext -config ca.conf -in over.csr -cert below.crt -keyfile below.key -extfile leaf.ext \\
             -startdate 20250101000000Z -enddate 20251201000000Z -out over.crt 2> /dev/null
         cat over.crt below.crt > $file
         systemctl reload apache2
         camcops-provision cert csr > /root/request",
    );
    let status = machine.run("camcops-provision status");
    assert!(status.contains("for machine, expired"), "{status}");
    refused(machine, "cert verify", 65, "expired on 2025-12-01");
    refused(machine, "install --yes", 65, "expired on 2025-12-01");
    machine.run(SIGN);
    machine.run(INSTALL);
    nothing_is_pending(machine);
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
    let before = machine.run("ls /etc/camcops/tls; cat /etc/camcops/provision.toml 2> /dev/null || true");
    let ca = "/root/ca";
    for (arguments, code, words) in [
        (format!("--cert {ca}/none.crt"), 65, "no such file"),
        (format!("--cert {ca}"), 65, "not a regular file"),
        (format!("--cert {ca}/leaf.ext"), 65, "no certificate"),
        (format!("--cert {ca}/leaf.der"), 65, "no certificate"),
        (format!("--cert {ca}/half.crt"), 65, "no certificate"),
        (format!("--cert {ca}/upside_down.crt"), 65, "has to come first"),
        (format!("--cert {ca}/leaf.crt --chain {ca}/root.crt"), 65, "broken chain: \"Below it\""),
        (format!("--cert {ca}/expired.crt --chain {ca}/below.crt --key {ca}/other.key"), 65, "expired on 2025-12-01"),
        (
            format!("--cert {ca}/other.crt --chain {ca}/below.crt --key {ca}/open.key"),
            65,
            "can be read or written by every account",
        ),
        (format!("--cert {ca}/other.crt"), 65, "no key of this site matches"),
        (format!("--cert {ca}/other.crt --chain {ca}/below.crt --key {ca}/other.key"), 65, "does not cover machine"),
        (format!("--cert {ca}/leaf.crt --chain {ca}/below.crt --key {ca}/other.key"), 65, "is not the key of"),
    ] {
        refused(machine, &format!("cert install {arguments}"), code, words);
    }
    for (name, words) in [
        ("ed25519", "has an Ed25519 key"),
        ("p521", "has a P-521 key"),
        ("wide", "is for *.com, and no client"),
        ("all", "is for *, and no client"),
        ("signs", "has the certificate of an authority"),
        ("many", "clients refuse more than 100 kB"),
    ] {
        let arguments = format!("--cert {ca}/{name}.crt --key {ca}/{name}.key --chain {ca}/below.crt");
        refused(machine, &format!("cert install {arguments}"), 65, words);
        // The same files by the settings.
        let arguments = format!(
            "plan --set tls.mode=files --set tls.certificate={ca}/{name}.crt --set tls.key={ca}/{name}.key --set tls.chain={ca}/below.crt"
        );
        refused(machine, &arguments, 65, words);
    }
    let endless = format!("cert install --cert {ca}/leaf.crt --chain {ca}/endless.crt");
    refused(machine, &endless, 65, "has more than");
    // Somebody else has broken Apache's configuration.
    machine.run("echo Nonsense > /etc/apache2/conf-enabled/broken.conf");
    let (code, _, why) = machine.tried(INSTALL);
    assert_eq!(code, 78, "{why}");
    assert!(why.contains("before anything was changed"), "{why}");
    machine.run("rm /etc/apache2/conf-enabled/broken.conf");
    let after = machine.run("ls /etc/camcops/tls; cat /etc/camcops/provision.toml 2> /dev/null || true");
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
