//! Services of the site's own, their variables, and the administrator's own words to systemd.

use crate::harness::booted::Booted;
use crate::harness::installed::installed;
use crate::harness::site::{page, services, unit, wait_until_well};
use crate::harness::tablet::Tablets;
use std::time::{Duration, Instant};

/// It tells who it is and what it was given.
const LISTENER: &str = r#"#!/usr/bin/python3
import http.server, os, sys

class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        told = [self.path, os.environ.get("COLOUR"), os.getpid(), os.getuid(), sys.argv[1:], self.headers["X-Forwarded-Prefix"]]
        text = repr(told).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Set-Cookie", "mine=1; Path=/")
        self.end_headers()
        self.wfile.write(text)

print("the listener begins", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", 9000), Page).serve_forever()
"#;

const ENTRY: &str = r#"
[[services.extra]]
name = "listener"
command = ["/usr/local/bin/listener", "$HOME of \"100%\"", "a\\b"]
path = "/extra"
port = 9000
memory_max_mb = 128
"#;

const SETTINGS: &str = "/etc/camcops/provision.toml";
const SECRET: &str = "blue-as-the-deepest-sea";

#[test]
fn services_of_the_sites_own_are_looked_after() {
    let Some((machine, _)) = installed() else {
        return;
    };
    wait_until_well(&machine, "the first boot");
    let tablets = Tablets::few(&machine);
    std::fs::write(machine.path("/usr/local/bin/listener"), LISTENER).unwrap();
    machine.run("chmod 755 /usr/local/bin/listener");
    let before = std::fs::read_to_string(machine.path(SETTINGS)).unwrap_or_default();
    std::fs::write(machine.path(SETTINGS), before.clone() + ENTRY).unwrap();
    machine.run("camcops-provision install --yes");
    assert_eq!(machine.tried("camcops-provision plan --exit-code").0, 0);

    is_there(&machine);
    comes_back(&machine);
    reads_its_variables(&machine);
    keeps_drop_ins(&machine);
    is_switched(&machine);
    refuses(&machine);

    std::fs::write(machine.path(SETTINGS), before).unwrap();
    machine.run("camcops-provision install --yes");
    is_gone(&machine);
    tablets.end_unnoticed();
    assert_eq!(machine.tried("camcops-provision plan --exit-code").0, 0);
}

/// What it tells, through Apache.
fn told(machine: &Booted, path: &str) -> String {
    let page = page(machine, path, "");
    assert_eq!(page.status, 200, "{page:?}");
    page.body
}

fn pid(machine: &Booted) -> u64 {
    services(machine)[&unit("listener")]["pid"].as_u64().unwrap()
}

fn is_there(machine: &Booted) {
    let uid = machine.run("id --user www-data");
    let expected =
        format!("['/a?b=c', None, {}, {}, ['$HOME of \"100%\"', 'a\\\\b'], '/extra']", pid(machine), uid.trim());
    assert_eq!(told(machine, "extra/a?b=c"), expected);
    assert!(told(machine, "extra").starts_with("['/', "));
    let cookie = page(machine, "extra", "").header;
    assert!(cookie.contains("path=/extra/"), "{cookie}");
    // Neither what only begins like it, nor the rest of the site.
    assert!(!page(machine, "extras", "").body.contains("COLOUR"));
    assert!(page(machine, "login", "").body.contains("CamCOPS"));

    assert_eq!(services(machine)[&unit("listener")]["answers"], true);
    let ports = machine.run("camcops-provision ports");
    let port = ports.lines().find(|line| line.starts_with("listener "));
    assert!(port.unwrap().contains("127.0.0.1:9000 (python3"), "{ports}");
    machine.run("camcops-provision logs listener | grep 'the listener begins'");
    machine.run("camcops-provision top --help > /dev/null; camcops-provision stats | grep listener");
    let doctor = machine.run("camcops-provision --json doctor services");
    assert!(!doctor.contains("\"failed\""), "{doctor}");
}

fn comes_back(machine: &Booted) {
    let before = pid(machine);
    machine.run(&format!("kill -KILL {before}"));
    let start = Instant::now();
    while page(machine, "extra", "").status != 200 {
        assert!(start.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_ne!(pid(machine), before);
    machine.run("camcops-provision stop listener");
    assert_eq!(page(machine, "extra", "").status, 503);
    machine.run("camcops-provision start listener; camcops-provision restart listener");
    told(machine, "extra");
    let doctor = machine.run("camcops-provision plan --exit-code");
    assert!(doctor.contains("nothing to do"), "{doctor}");
}

fn reads_its_variables(machine: &Booted) {
    let server = services(machine)[&unit("server")]["pid"].clone();
    machine.run(&format!(
        "umask 077; [ $(stat --format %a:%U /etc/camcops/env.d) = 700:root ]
         echo 'COLOUR=\"{SECRET}\"' > /etc/camcops/env.d/camcops-listener.env"
    ));
    assert_eq!(services(machine)[&unit("listener")]["fresh"], false);
    for command in ["plan --diff", "--json plan", "status", "--json doctor", "config show"] {
        let (_, out, err) = machine.tried(&format!("camcops-provision {command}"));
        assert!(!(out + &err).contains(SECRET), "{command}");
    }
    let said = machine.run("camcops-provision install --yes");
    assert!(said.contains("installed: 1 change"), "{said}");
    assert!(told(machine, "extra").contains(SECRET));
    // That one alone was restarted.
    assert_eq!(services(machine)[&unit("server")]["pid"], server);
}

fn keeps_drop_ins(machine: &Booted) {
    let own = "/etc/systemd/system/camcops-listener@camcops.service.d/own.conf";
    let others = "/etc/systemd/system/camcops-scheduler@camcops.service.d/own.conf";
    let text = "[Service]\nNice=7\n";
    machine.run(&format!(
        "for file in {own} {others}; do mkdir --parents ${{file%/*}}; printf '{}' > $file; done
         systemctl daemon-reload",
        text.replace('\n', "\\n")
    ));
    let said = machine.run("camcops-provision install --yes");
    assert!(said.contains("installed: 2 changes"), "{said}");
    let all = services(machine);
    for (service, path) in [("listener", own), ("scheduler", others)] {
        let seen = &all[&unit(service)];
        assert_eq!(seen["drop_ins"], serde_json::json!([path]), "{seen}");
        let nice = machine.run(&format!("ps --no-headers -o ni= -p {}", seen["pid"]));
        assert_eq!(nice.trim(), "7");
        let kept = machine.run(&format!("cat {path}"));
        assert_eq!(kept, text);
    }
    assert_eq!(all[&unit("server")]["drop_ins"], serde_json::json!([]));
    let shown = machine.run("camcops-provision status");
    assert!(shown.contains(&format!("with your {own}")), "{shown}");
    machine.run(&format!("rm {others}; systemctl daemon-reload"));
    machine.run("camcops-provision install --yes");
}

fn is_switched(machine: &Booted) {
    machine.run("camcops-provision service disable listener");
    assert_eq!(machine.tried("camcops-provision plan --exit-code").0, 0);
    assert!(!page(machine, "extra", "").body.contains("COLOUR"));
    let (code, _, why) = machine.tried("camcops-provision start listener");
    assert_eq!((code, why.lines().count()), (78, 1), "{why}");
    is_gone(machine);
    machine.run("camcops-provision service enable listener");
    told(machine, "extra");
    let enabled = machine.run(&format!("systemctl is-enabled {}", unit("listener")));
    assert_eq!(enabled.trim(), "enabled");
}

fn refuses(machine: &Booted) {
    for command in ["start nobody", "logs nobody", "service disable nobody"] {
        let (code, _, why) = machine.tried(&format!("camcops-provision {command}"));
        assert_eq!((code, why.lines().count()), (64, 1), "{command}: {why}");
        assert!(why.contains("monitor, listener"), "{why}");
    }
    let wrong = r#"[{name = "listener", command = ["/usr/local/bin/listener"], user = "nobody-here"}]"#;
    let (code, _, why) = machine.tried(&format!("camcops-provision --set 'services.extra={wrong}' install --yes"));
    assert_eq!(code, 69, "{why}");
    assert!(why.contains("no account nobody-here"), "{why}");
    // One that does not listen keeps nothing of CamCOPS from running.
    assert!(page(machine, "login", "").body.contains("CamCOPS"));
}

fn is_gone(machine: &Booted) {
    assert!(!services(machine).contains_key(&unit("listener")));
    let (code, _, _) = machine.tried(&format!("systemctl status {}", unit("listener")));
    assert_eq!(code, 4, "systemd still knows it");
    let files = machine.run(
        "find /etc/systemd/system -name 'camcops-listener@*' ! -name '*.d'; grep listener /etc/apache2/sites-available/camcops.conf || true; pgrep --full 'local/bin/[l]istener' || true",
    );
    assert_eq!(files, "");
}
