//! Behind a proxy that asks for a login: a real one, which alone knows where the archive of packages, the index and the
//! authority are. All three have certificates of an authority that only the settings know.

use crate::harness::booted::{Booted, archives};
use crate::harness::installed::installed;
use crate::harness::site::wait_until_well;
use std::fs;

const SECRET: &str = "Qz7otter";

/// What is outside, and the proxy that leads there.
const OUTSIDE: &str = r#"
apt-get install --quiet --yes --no-install-recommends pebble tinyproxy > /dev/null
systemctl disable --quiet --now tinyproxy 2> /dev/null
mkdir -p /srv/out/debs /srv/out/simple
mv /var/cache/apt/archives/*.deb /srv/out/debs
cd /srv/out/debs
for file in *.deb; do
    dpkg-deb --field $file
    echo "Filename: ./$file"
    echo "Size: $(stat --format=%s $file)"
    echo "SHA256: $(sha256sum $file | cut --characters=1-64)"
    echo
done > Packages
for file in /srv/wheelhouse/*; do
    name=${file##*/}
    project=$(printf %s "$name" | sed -E 's/-[0-9].*//; s/[-_.]+/-/g' | tr A-Z a-z)
    mkdir -p /srv/out/simple/$project
    ln -s $file /srv/out/simple/$project/$name
done
cd /srv
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 300 -subj '/CN=Authority of the site' \
    -addext keyUsage=critical,keyCertSign -keyout ca.key -out /root/ca.pem 2> /dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=archive.test -keyout out.key -out out.csr 2> /dev/null
printf 'extendedKeyUsage=serverAuth\nsubjectAltName=DNS:archive.test,DNS:index.test,DNS:acme.test\n' > out.ext
openssl x509 -req -in out.csr -CA /root/ca.pem -CAkey ca.key -days 90 -extfile out.ext -out out.crt 2> /dev/null
chmod 600 /root/ca.pem
cat > server.py <<'PYTHON'
import functools, http.server, ssl
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory="/srv/out")
server = http.server.ThreadingHTTPServer(("127.0.0.1", 8444), handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/srv/out.crt", "/srv/out.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
PYTHON
cat > pebble.json <<'JSON'
{"pebble": {"listenAddress": "127.0.0.1:14000", "managementListenAddress": "127.0.0.1:15000",
"certificate": "/srv/out.crt", "privateKey": "/srv/out.key", "httpPort": 80, "tlsPort": 443,
"ocspResponderURL": "", "externalAccountBindingRequired": false, "certificateValidityPeriod": 7776000}}
JSON
cat > tinyproxy.conf <<'CONF'
Port 8888
Listen 127.0.0.1
Timeout 600
MaxClients 100
Allow 127.0.0.1
LogLevel Connect
BasicAuth mirror Qz7otter
ConnectPort 8444
ConnectPort 14000
CONF
echo '127.0.0.1 localhost machine archive.test index.test acme.test' > hosts.outside
systemd-run --quiet --unit=outside python3 /srv/server.py
systemd-run --quiet --unit=authority --setenv=PEBBLE_VA_NOSLEEP=1 --setenv=PEBBLE_WFE_NONCEREJECT=0 pebble -config /srv/pebble.json
systemd-run --quiet --unit=proxy --property=BindReadOnlyPaths=/srv/hosts.outside:/etc/hosts tinyproxy -d -c /srv/tinyproxy.conf
for port in 8444 14000 8888; do until (exec 3<> /dev/tcp/127.0.0.1/$port) 2> /dev/null; do sleep 0.1; done; done
rm -rf /var/lib/apt/lists/* /etc/apt/sources.list.d/*
echo 'deb [trusted=yes] https://archive.test:8444/debs ./' > /etc/apt/sources.list
umask 077
echo 'mirror:Qz7otter' > /root/login
echo 'mirror:wrong' > /root/wrong
"#;

const SETTINGS: &str = r#"
[camcops]
installer = "uv"
[network]
http_proxy = "http://127.0.0.1:8888"
https_proxy = "http://127.0.0.1:8888"
proxy_login_file = "/root/login"
ca_bundle = "/root/ca.pem"
pip_index_url = "https://index.test:8444/simple/"
[tls]
mode = "certbot"
acme_server = "https://acme.test:14000/dir"
acme_agree_tos = true
"#;

#[test]
#[ignore = "thorough: builds a release, and the ways out change seldom"]
fn a_real_proxy_is_the_only_way_out() {
    let Some((machine, _)) = installed() else {
        return;
    };
    for archive in fs::read_dir(archives(&["certbot", "pebble", "tinyproxy"])).unwrap() {
        let archive = archive.unwrap();
        let to = machine.path("/var/cache/apt/archives");
        fs::copy(archive.path(), to.join(archive.file_name())).unwrap();
    }
    wait_until_well(&machine, "the first boot");
    machine.run(OUTSIDE);
    fs::write(machine.path("/etc/camcops/provision.toml"), SETTINGS).unwrap();

    // Not without the proxy, not with the wrong login, and not with the machine's own authorities alone.
    refused(&machine, "--set network.https_proxy=http://127.0.0.1:1 install --yes", 69, "package archive");
    refused(&machine, "--set network.proxy_login_file=/root/wrong install --yes", 69, "package archive");
    let authorities = "/etc/ssl/certs/ca-certificates.crt";
    refused(&machine, &format!("--set network.ca_bundle={authorities} install --yes"), 69, "package archive");

    machine.run("camcops-provision install --yes");
    let told = machine.run("camcops-provision cert show; dpkg --status certbot");
    assert!(told.contains("Pebble") && told.contains("install ok installed"), "{told}");
    let log = passed(&machine);
    assert!(log.contains("archive.test:8444") && log.contains("acme.test:14000"), "{log}");
    assert!(!log.contains("index.test"), "{log}");

    for installer in ["uv", "pip"] {
        let before = passed(&machine).matches("index.test:8444").count();
        let told = machine.run(&format!(
            "camcops-provision --set camcops.installer={installer} install --yes --only application --rebuild 2>&1"
        ));
        assert!(told.contains(&format!("packages with {installer}")), "{told}");
        assert!(passed(&machine).matches("index.test:8444").count() > before);
    }
    machine.run("camcops-provision install --yes; camcops-provision wait --for web --timeout 120");
    let (code, pending, why) = machine.tried("camcops-provision plan --exit-code");
    assert_eq!(code, 0, "{pending}{why}");

    // The login stands in its file alone, and the authorities where apt's own account can read them.
    let said = machine.run(&format!(
        "grep -rlF {SECRET} /etc /var/lib/camcops-provision /var/log /run/camcops-provision /usr/share/camcops/releases || true
         journalctl --no-pager --unit='camcops*' | grep -c {SECRET} || true
         stat --format=%a /run/camcops-provision/authorities.pem"
    ));
    assert_eq!(said, "0\n644\n");
    machine.run("camcops-provision uninstall --yes; [ ! -e /run/camcops-provision ]");
}

/// Where the proxy has led.
fn passed(machine: &Booted) -> String {
    machine.run("journalctl --no-pager --output=cat --unit=proxy | grep CONNECT || true")
}

#[track_caller]
fn refused(machine: &Booted, arguments: &str, code: i32, words: &str) {
    let (told, _, why) = machine.tried(&format!("camcops-provision {arguments}"));
    assert_eq!(told, code, "{arguments}: {why}");
    assert!(why.contains(words), "{arguments}: {why}");
    assert!(!why.contains(SECRET), "{why}");
}
