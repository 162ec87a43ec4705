//! A certificate of an authority that speaks ACME: issued, renewed while visitors come, and what goes wrong with that.
//! Certbot is Debian's, and so is the authority, which is made for tests.

use crate::harness::booted::{Booted, archives};
use crate::harness::installed::installed;
use crate::harness::site::{all_were_answered, visit, wait_until_well};
use std::fs;

/// The authority, with a certificate that the machine trusts; it asks each name anew.
const AUTHORITY: &str = r#"
apt-get install --quiet --yes --no-install-recommends pebble > /dev/null
mkdir /srv/pebble; cd /srv/pebble
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 300 -subj '/CN=The authority itself' \
    -addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem 2> /dev/null
cp cert.pem /usr/local/share/ca-certificates/pebble.crt
update-ca-certificates > /dev/null 2>&1
cat > config.json <<'JSON'
{"pebble": {"listenAddress": "127.0.0.1:14000", "managementListenAddress": "127.0.0.1:15000",
"certificate": "/srv/pebble/cert.pem", "privateKey": "/srv/pebble/key.pem", "httpPort": 80, "tlsPort": 443,
"ocspResponderURL": "", "externalAccountBindingRequired": false, "certificateValidityPeriod": 7776000}}
JSON
cat > /etc/systemd/system/pebble.service <<'UNIT'
[Service]
Environment=PEBBLE_VA_NOSLEEP=1 PEBBLE_WFE_NONCEREJECT=0 PEBBLE_AUTHZREUSE=0
ExecStart=/usr/bin/pebble -config /srv/pebble/config.json
UNIT
systemctl daemon-reload
"#;

const UP: &str = "systemctl start pebble
    until curl --silent --fail --output /dev/null https://localhost:14000/dir; do sleep 0.1; done";

const SETTINGS: &str = r#"
[tls]
mode = "certbot"
acme_server = "https://localhost:14000/dir"
acme_email = "camcops@example.org"
"#;

const HOOK: &str = "/etc/letsencrypt/renewal-hooks/deploy/50-camcops";
const BROKEN: &str = "/etc/apache2/conf-enabled/broken.conf";

#[test]
#[ignore = "thorough: what it needs of certbot changes seldom"]
fn certbot_gets_the_certificate_and_renews_it() {
    let Some((machine, _)) = installed() else {
        return;
    };
    for archive in fs::read_dir(archives(&["certbot", "pebble"])).unwrap() {
        let archive = archive.unwrap();
        let to = machine.path("/var/cache/apt/archives");
        fs::copy(archive.path(), to.join(archive.file_name())).unwrap();
    }
    wait_until_well(&machine, "the first boot");
    machine.run(AUTHORITY);
    visit(&machine, "visitor", "https://machine/login");
    let own = served(&machine);

    fs::write(machine.path("/etc/camcops/provision.toml"), SETTINGS).unwrap();
    refused(&machine, "install --yes", 78, "tls.acme_agree_tos");
    machine.run("camcops-provision config set tls.acme_agree_tos true");
    refused(&machine, "--set web.http_port=0 install --yes", 78, "web.http_port");

    // Nobody answers there, and the site goes on.
    let why = refused(&machine, "install --yes", 69, "certbot got no certificate");
    assert!(why.contains("localhost"), "{why}");
    assert_eq!(served(&machine), own);
    refused(&machine, "cert renew", 69, "run `camcops-provision install`");
    machine.run(UP);
    machine.run("camcops-provision --quiet install --yes");
    let first = served(&machine);
    assert_eq!(first, at_certbot(&machine));
    nothing_is_pending(&machine);
    let told = machine.run("camcops-provision cert show; camcops-provision status");
    for words in ["renewed by   certbot.timer", "from certbot, for machine", "Pebble"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    machine.run("camcops-provision doctor certificate");
    assert_eq!(machine.run("stat --format='%a %U' /etc/camcops/tls/*").trim(), "600 root");

    it_is_renewed(&machine, first);
    what_goes_wrong_changes_nothing(&machine);
    all_were_answered(&machine, "visitor");
    it_leaves(&machine);
}

fn it_is_renewed(machine: &Booted, first: String) {
    // It is not due.
    machine.run("camcops-provision cert renew");
    assert_eq!(served(machine), first);
    machine.run("camcops-provision cert renew --force");
    let second = served(machine);
    assert_ne!(second, first);
    // As the timer does it.
    machine.run("certbot -q renew --no-random-sleep-on-renew --force-renewal");
    let third = served(machine);
    assert_ne!(third, second);
    assert_eq!(third, at_certbot(machine));
    nothing_is_pending(machine);
    let told = machine.run("camcops-provision cert show");
    assert!(told.contains(&second), "{told}");
    assert!(!told.contains("PRIVATE"), "{told}");
    machine.run(&format!("RENEWED_LINEAGE=/etc/letsencrypt/live/other RENEWED_DOMAINS=other.test {HOOK}"));
    assert_eq!(served(machine), third);
}

fn what_goes_wrong_changes_nothing(machine: &Booted) {
    let before = served(machine);
    // Somebody else has broken Apache's configuration when it is renewed.
    machine.run(&format!("echo Nonsense > {BROKEN}"));
    refused(machine, "cert renew --force", 78, "Apache's configuration");
    machine.run("certbot -q renew --no-random-sleep-on-renew --force-renewal || true");
    assert_ne!(at_certbot(machine), before);
    assert_eq!(served(machine), before);
    machine.run(&format!("rm {BROKEN}"));
    let (_, told, _) = machine.tried("camcops-provision doctor certificate");
    assert!(told.contains("cert install --from-certbot"), "{told}");
    machine.run("camcops-provision cert install --from-certbot");
    let before = served(machine);
    assert_eq!(before, at_certbot(machine));

    // A key that is not the certificate's.
    let key = "$(readlink --canonicalize /etc/letsencrypt/live/camcops/privkey.pem)";
    machine.run(&format!(
        "cp {key} /root/kept; openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {key}"
    ));
    refused(machine, "cert install --from-certbot", 65, "can't be used");
    assert_eq!(served(machine), before);
    machine.run(&format!("cp /root/kept {key}"));

    // A name that leads nowhere.
    machine.run("camcops-provision config set web.server_names '[\"machine\", \"nowhere.test\"]'");
    refused(machine, "install --yes", 69, "nowhere.test");
    assert_eq!(served(machine), before);
    // The authority remembers that for five seconds.
    machine.run("echo '127.0.0.1 nowhere.test' >> /etc/hosts; sleep 6");
    machine.run("camcops-provision --quiet install --yes");
    let both = served(machine);
    assert_ne!(both, before);
    let names = machine.run("camcops-provision cert show | grep names");
    assert!(names.contains("machine, nowhere.test"), "{names}");

    machine.run("systemctl stop pebble");
    refused(machine, "cert renew --force", 69, "localhost");
    assert_eq!(served(machine), both);
    nothing_is_pending(machine);
}

fn it_leaves(machine: &Booted) {
    machine.run(
        "camcops-provision config unset tls.mode
         camcops-provision --quiet install --yes",
    );
    let (_, own, _) = machine.tried("camcops-provision cert show");
    assert!(own.contains("issued by    itself"), "{own}");
    nothing_is_pending(machine);
    machine
        .run(&format!("[ ! -e {HOOK} ]; [ ! -e /etc/camcops/tls/camcops.pem ]; [ -e /etc/letsencrypt/live/camcops ]"));
    // What an authority once issued and nothing names any more goes with the rest.
    machine.run("touch /etc/camcops/tls/camcops-0123456789abcdef.crt");
    let told = machine.run("camcops-provision uninstall --yes");
    assert!(told.contains("certbot delete --cert-name camcops"), "{told}");
    machine.run("[ ! -e /etc/camcops/tls ]; [ -e /etc/letsencrypt/live/camcops ]; apache2ctl -t");
    machine.run("camcops-provision uninstall --yes --purge --confirm camcops");
    machine.run("[ ! -e /etc/letsencrypt/live/camcops ]");
}

const FINGERPRINT: &str = "openssl x509 -noout -fingerprint -sha256 | cut --delimiter='=' --fields=2";

/// The fingerprint of what Apache shows.
fn served(machine: &Booted) -> String {
    let told = machine.run(&format!(
        "openssl s_client -connect 127.0.0.1:443 -servername machine < /dev/null 2> /dev/null | {FINGERPRINT}"
    ));
    told.trim().to_owned()
}

fn at_certbot(machine: &Booted) -> String {
    let told = machine.run(&format!("cat /etc/letsencrypt/live/camcops/cert.pem | {FINGERPRINT}"));
    told.trim().to_owned()
}

fn nothing_is_pending(machine: &Booted) {
    let (code, pending, why) = machine.tried("camcops-provision plan --exit-code");
    assert_eq!(code, 0, "{pending}{why}");
}

#[track_caller]
fn refused(machine: &Booted, arguments: &str, code: i32, words: &str) -> String {
    let (told, _, why) = machine.tried(&format!("camcops-provision {arguments}"));
    assert_eq!(told, code, "{arguments}: {why}");
    assert!(why.contains(words), "{arguments}: {why}");
    why
}
