//! The addresses and the port that a site is served on, and whose word about a client is believed there.

use super::judge::{Machine, Said};
use super::{BACKEND, answers_of, switch_on};
use serde_json::{Value, json};
use std::fs;

const OURS: &str = "192.0.2.10";
const OURS_6: &str = "2001:db8::10";
const FRONT: &str = "192.0.2.20";
const CLIENT: &str = "192.0.2.30";
const STRANGER: &str = "192.0.2.40";
const NAME: &str = "one.example.org";
const APACHE: [&str; 2] = ["apache2ctl", "-DFOREGROUND"];
const SETTINGS: &str = "--config=/mnt/root/root/provision.toml";

/// A machine with these addresses and a site with these settings.
fn machine_with(web: &str) -> Machine {
    let machine = Machine::new();
    for address in [OURS, FRONT, CLIENT, STRANGER, OURS_6] {
        let added = Said::by(machine.enter().args(["ip", "address", "add", address, "dev", "lo"]));
        assert!(added.success, "{}", added.all());
    }
    machine.write("/usr/share/camcops/static/a.txt", "static");
    machine.write("/root/provision.toml", &format!("[web]\n{web}"));
    machine.install(&[SETTINGS]);
    switch_on(&machine);
    fs::create_dir_all(machine.path("/run/camcops")).unwrap();
    machine
}

#[test]
fn the_site_is_served_on_its_addresses_and_ports() {
    let machine = machine_with(&format!(
        "server_names = [\"{NAME}\", \"{OURS}\", \"{OURS_6}\"]\nlisten = [\"{OURS}\", \"{OURS_6}\"]\nhttps_port = 8443\nhttp_port = 8080\n"
    ));
    let get = |address: &str, host: &str| json!({ "address": address, "port": 8443, "host": host, "path": "/login" });
    let mut first = get(OURS, &format!("{NAME}:8443"));
    first["start"] = json!([BACKEND]);
    let plain = |address: &str, port: u16| json!({ "address": address, "port": port, "plain": true, "host": NAME, "path": "/login" });
    let asked = [
        first,
        get(OURS, &format!("{OURS}:8443")),
        get(OURS_6, &format!("[{OURS_6}]:8443")),
        get(OURS_6, "elsewhere.example.org"),
        plain(OURS_6, 8080),
        plain(OURS, 8080),
        // The site is not on this address, whatever else the machine has there.
        plain("127.0.0.1", 8443),
    ];
    let served = |machine: &Machine| {
        assert_eq!(machine.run(&["apache2ctl", "-t"]).all().trim(), "Syntax OK");
        let answers = answers_of(machine, json!({ "apache": APACHE, "ready": [8443, 8080], "requests": asked }));
        for answer in &answers[..3] {
            assert_eq!(answer["body"]["backend"], BACKEND, "{answer}");
            assert_eq!(answer["body"]["headers"]["x-forwarded-port"], "8443", "{answer}");
        }
        assert_eq!(answers[3]["status"], 421, "{}", answers[3]);
        for answer in &answers[4..6] {
            assert_eq!(answer["headers"]["location"], json!([format!("https://{NAME}:8443/login")]), "{answer}");
        }
        assert!(answers[6]["body"]["backend"].is_null(), "{}", answers[6]);
    };
    let ports = || machine.must(&["sh", "-c", "cd /etc/apache2/sites-enabled; ls | grep port || true"]);
    assert_eq!(ports(), "camcops-port-8080.conf\ncamcops-port-8443.conf\n");
    served(&machine);

    // The administrator has Apache listen there: twice would be once too often.
    let own = machine.read("/etc/apache2/ports.conf");
    machine.write("/etc/apache2/ports.conf", &format!("{own}\nListen 8443 https\n"));
    let twice = machine.run(&["apache2ctl", "-t"]).all();
    assert!(twice.contains("camcops-port-8443.conf") || twice.contains("multiple Listeners"), "{twice}");
    machine.install(&[SETTINGS]);
    assert_eq!(ports(), "camcops-port-8080.conf\n");
    let _ = fs::remove_file(machine.path(BACKEND));
    served(&machine);

    // And no longer; another instance shares the port.
    machine.write("/etc/apache2/ports.conf", &own);
    machine.install(&[SETTINGS]);
    assert_eq!(ports(), "camcops-port-8080.conf\ncamcops-port-8443.conf\n");
    machine.install(&["--instance=two", "--set=web.https_port=8443", "--set=web.server_names=['two.example.org']"]);
    let left = |instance: &str| {
        let said = Said::by(machine.enter().arg(env!("CARGO_BIN_EXE_camcops-provision")).args([
            "--root",
            "/mnt/root",
            "--instance",
            instance,
            "uninstall",
            "--yes",
        ]));
        assert!(said.success, "{}", said.all());
    };
    left("camcops");
    assert_eq!(ports(), "camcops-port-8443.conf\n");
    left("two");
    assert_eq!(ports(), "");
    assert_eq!(machine.must(&["sh", "-c", "ls /etc/apache2/sites-available | grep port || true"]), "");
}

/// The Apache of another machine, as `config render --for apache` has it.
fn front(machine: &Machine) -> Vec<Value> {
    let rendered = Said::by(machine.enter().arg(env!("CARGO_BIN_EXE_camcops-provision")).args([
        "--root",
        "/mnt/root",
        SETTINGS,
        "config",
        "render",
        "--for",
        "apache",
    ]));
    assert!(rendered.success, "{}", rendered.all());
    let site = rendered
        .out
        .replace("*:443", "*:9443")
        .replace("/etc/ssl/certs/one.example.org.pem", "/etc/camcops/tls/camcops.crt")
        .replace("/etc/ssl/private/one.example.org.key", "/etc/camcops/tls/camcops.key");
    let modules = ["mpm_event", "authz_core", "ssl", "socache_shmcb", "headers", "proxy", "proxy_http", "alias"];
    let load = modules.map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"));
    machine.write(
        "/srv/front/apache.conf",
        &format!(
            "ServerRoot /srv/front\nServerName front.invalid\nPidFile /srv/front/pid\nErrorLog /srv/front/error.log\nListen 9443 https\n{}ProxySourceAddress {FRONT}\n{site}",
            load.concat()
        ),
    );
    machine.must(&["cp", "/etc/camcops/tls/camcops.crt", "/etc/ssl/certs/camcops-site.pem"]);
    machine.must(&["sh", "-c", &format!("echo {OURS} {NAME} >> /etc/hosts")]);
    ["apache2", "-f", "/srv/front/apache.conf", "-DFOREGROUND"].map(|word| json!(word)).into()
}

#[test]
fn a_server_in_front_is_believed_where_it_is_trusted() {
    let machine = machine_with(&format!(
        "server_names = [\"{NAME}\"]\nlisten = [\"{OURS}\"]\nhttps_port = 8443\ntrusted_proxies = [\"{FRONT}\"]\n"
    ));
    let front = front(&machine);
    let through = |more: Value| {
        let mut asked = json!({ "address": FRONT, "source": CLIENT, "port": 9443, "host": NAME, "path": "/login" });
        asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        asked
    };
    let lies = json!({ "X-Forwarded-For": "6.6.6.6", "X-Real-IP": "6.6.6.6", "Forwarded": "for=6.6.6.6", "X-Forwarded-Proto": "http" });
    let body = format!("POST /api HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
    let asked = [
        through(json!({ "start": [BACKEND] })),
        through(json!({ "headers": lies })),
        through(json!({ "raw": body, "sni": NAME })),
        // Past it.
        json!({ "address": OURS, "source": STRANGER, "port": 8443, "host": NAME, "path": "/login", "headers": lies }),
    ];
    let task = json!({ "apache": APACHE, "front": front, "ready": [8443, 9443], "requests": asked });
    let answers = answers_of(&machine, task);
    for (answer, client) in answers.iter().zip([CLIENT, CLIENT, CLIENT, STRANGER]) {
        assert_eq!(answer["status"], 200, "{answer}");
        let headers = &answer["body"]["headers"];
        assert_eq!(headers["x-forwarded-for"], client, "{answer}");
        assert_eq!(headers["x-forwarded-proto"], "https", "{answer}");
        assert_eq!(headers["x-forwarded-host"], NAME, "{answer}");
        assert!(!answer.to_string().contains("6.6.6.6"), "{answer}");
    }
    assert_eq!(answers[2]["body"]["body"], 5, "{}", answers[2]);
    let log = machine.read("/var/log/apache2/camcops_access.log");
    let clients: Vec<&str> = log.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(clients, [CLIENT, CLIENT, CLIENT, STRANGER], "{log}");
}
