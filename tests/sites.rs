//! Whole sites, laid out in the tree of a machine and judged by the programs that will read them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[path = "sites/addresses.rs"]
mod addresses;
mod judge;

use judge::{Machine, camcops_python, script};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

const SERVICES: [&str; 4] = ["server", "workers", "scheduler", "monitor"];
/// systemd's own measure of what a service may still do: 10 is everything.
const MOST_EXPOSED: f64 = 1.5;

/// One combination of what a site can be. Those at a path of their own run as an account of their own, those on a port log to files.
#[derive(Debug, Clone, Copy)]
struct Site {
    rhel: bool,
    supervisor: bool,
    path: &'static str,
    tcp: bool,
    two: bool,
}

impl Site {
    fn all(rhel: bool) -> Vec<Site> {
        let mut sites = Vec::new();
        for supervisor in [false, true] {
            for path in ["/", "/camcops"] {
                for tcp in [false, true] {
                    for two in [false, true] {
                        sites.push(Site { rhel, supervisor, path, tcp, two });
                    }
                }
            }
        }
        sites
    }

    fn slugs(&self) -> &'static [&'static str] {
        match self.two {
            true => &["camcops", "camcops_two"],
            false => &["camcops"],
        }
    }

    fn backend(&self, slug: &str) -> Value {
        match (self.tcp, slug) {
            (false, slug) => json!(format!("/run/{slug}/{slug}.socket")),
            (true, "camcops") => json!(8100),
            (true, _) => json!(8200),
        }
    }

    fn account(&self) -> &'static str {
        match (self.path, self.rhel) {
            ("/camcops", _) => "camcops",
            (_, true) => "apache",
            (_, false) => "www-data",
        }
    }

    /// A machine with this site laid out, as its first boot finds it.
    fn machine(&self) -> Machine {
        let machine = match self.rhel {
            true => Machine::rhel(),
            false => Machine::new(),
        };
        for program in [
            "/usr/share/camcops/venv/bin/camcops_server",
            "/usr/share/camcops/venv/bin/celery",
            "/usr/bin/camcops-provision",
        ] {
            machine.write_program(program, "#!/bin/sh\nexit 0\n");
        }
        machine.write("/usr/share/camcops/static/a.txt", "static");
        machine.write("/usr/share/camcops/static/b.py", "not for you");
        self.install(&machine);
        if self.account() == "camcops" && !self.supervisor {
            let said = machine.must(&["systemd-sysusers", "/etc/sysusers.d/camcops.conf"]);
            assert!(said.contains("Creating user 'camcops'"), "{said}");
        } else if self.account() == "camcops" {
            machine.must(&["useradd", "--system", "camcops"]);
        }
        // Now that the account is there, files can be given to it.
        self.install(&machine);
        machine
    }

    fn install(&self, machine: &Machine) -> Vec<String> {
        let layout = |slug: &&str| {
            let (instance, name, port) = match *slug {
                "camcops" => ("camcops", "one.example.org", 8100),
                _ => ("two", "two.example.org", 8200),
            };
            let manager = match self.supervisor {
                true => "supervisor",
                false => "systemd",
            };
            let account = match self.account() {
                "camcops" => "camcops",
                _ => "auto",
            };
            let (bind, logs) = match self.tcp {
                true => (format!("127.0.0.1:{port}"), "file"),
                false => ("socket".to_owned(), "journal"),
            };
            machine.install(&[
                "--instance",
                instance,
                &format!("--set=web.server_names=[\"{name}\"]"),
                &format!("--set=services.manager={manager}"),
                &format!("--set=web.path={}", self.path),
                &format!("--set=web.bind={bind}"),
                &format!("--set=logging.mode={logs}"),
                &format!("--set=account.user={account}"),
            ])
        };
        self.slugs().iter().map(layout).collect()
    }

    fn judged_by_apache(&self, machine: &Machine) {
        let start: &[&str] = match self.rhel {
            true => {
                for slug in self.slugs() {
                    // The one word that only the other family's OpenSSL knows.
                    let path = format!("/etc/httpd/conf.d/{slug}.conf");
                    let text = machine.read(&path);
                    assert!(text.contains("PROFILE=SYSTEM"));
                    machine.write(&path, &text.replace("PROFILE=SYSTEM", "DEFAULT"));
                }
                &["apache2", "-f", "/etc/httpd/conf/httpd.conf"]
            }
            false => {
                switch_on(machine);
                &["apache2ctl"]
            }
        };
        let judged = machine.run(&[start, &["-t"]].concat());
        assert_eq!((judged.success, judged.all().trim()), (true, "Syntax OK"));
        self.answers(machine, &[start, &["-DFOREGROUND"]].concat());
    }

    /// What the web server does with requests, with stand-ins for the backends.
    fn answers(&self, machine: &Machine, apache: &[&str]) {
        let base = self.path.trim_end_matches('/');
        for slug in self.slugs() {
            fs::create_dir_all(machine.path(&format!("/run/{slug}"))).unwrap();
        }
        let backends: Vec<Value> = self.slugs().iter().map(|slug| self.backend(slug)).collect();
        let spoofed = json!({
            "X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "evil.example", "Forwarded": "for=6.6.6.6",
            "X-Script-Name": "/evil", "X-Forwarded-Port": "1", "X-Real-IP": "6.6.6.6", "Proxy": "http://evil.example/",
        });
        let one = "one.example.org";
        let mut asked = vec![
            json!({ "host": one, "path": format!("{base}/login") }),
            json!({ "host": one, "path": format!("{base}/login?a=%2F"), "start": backends, "headers": spoofed }),
            json!({ "host": one, "path": format!("{base}/static/a.txt") }),
            json!({ "host": one, "path": format!("{base}/static/b.py") }),
            json!({ "host": one, "path": format!("{base}/static/../../../../etc/passwd") }),
            json!({ "host": one, "path": format!("{base}/api"), "method": "POST", "headers": { "Content-Length": "99999999999" } }),
            json!({ "host": one, "path": format!("{base}/api"), "method": "POST", "headers": { "Transfer-Encoding": "chunked" } }),
            json!({ "host": one, "path": format!("{base}/login?x=1"), "port": 80 }),
            json!({ "host": one, "path": "/" }),
            json!({ "host": one, "path": "/elsewhere" }),
        ];
        if self.two {
            asked.push(json!({ "host": "two.example.org", "path": format!("{base}/login") }));
        }
        let answers = answers(machine, apache, &asked);
        let status = |index: usize| answers[index]["status"].as_u64().unwrap();

        // No backend yet: it is starting, or being maintained.
        assert_eq!(status(0), 503, "{}", answers[0]);
        assert_eq!(answers[0]["headers"]["retry-after"], json!(["60"]));
        assert!(answers[0]["body"].as_str().unwrap().contains("CamCOPS"));

        let got = &answers[1]["body"];
        assert_eq!(status(1), 200, "{}", answers[1]);
        assert_eq!(got["backend"], self.backend("camcops"));
        assert_eq!(got["path"], "/login?a=%2F", "the backend lives at the root");
        let header = |name: &str| got["headers"].get(name).cloned();
        for (name, value) in [
            ("x-forwarded-for", json!("127.0.0.1")),
            ("x-forwarded-proto", json!("https")),
            ("x-forwarded-port", json!("443")),
            ("x-forwarded-host", json!(one)),
        ] {
            assert_eq!(header(name), Some(value), "{name}: {got}");
        }
        assert_eq!(header("x-script-name"), (self.path != "/").then(|| json!(self.path)));
        for name in ["forwarded", "x-real-ip"] {
            assert_eq!(header(name), None, "{name}");
        }
        assert_eq!(answers[1]["headers"]["strict-transport-security"], json!(["max-age=63072000"]));
        assert_eq!((status(2), &answers[2]["body"]), (200, &json!("static")));
        assert_eq!(status(3), 403, "code is not shown");
        assert!(!answers[4].to_string().contains("root:"), "{}", answers[4]);
        assert_eq!(status(5), 413, "{}", answers[5]);
        assert_eq!(status(6), 411, "{}", answers[6]);
        assert_eq!(status(7), 301);
        assert_eq!(answers[7]["headers"]["location"], json!([format!("https://{one}{base}/login?x=1")]));
        if self.path == "/" {
            assert_eq!((status(8), status(9)), (200, 200));
        } else {
            assert_eq!((status(8), status(9)), (302, 404));
        }
        if self.two {
            assert_eq!(answers[10]["body"]["backend"], self.backend("camcops_two"));
        }
        let logs = match self.rhel {
            true => "/var/log/httpd/error_log",
            false => "/var/log/apache2/error.log",
        };
        // A connection that ends while Apache is stopped: its own race, whatever it is configured to do.
        let is_of_the_stop = |line: &&str| line.contains("AH03092");
        let log = machine.read(logs);
        for line in log.lines().filter(|line| !is_of_the_stop(line)) {
            assert!(!line.contains(":warn]") && !line.contains(":error]"), "{line}");
        }
    }

    fn judged_by_systemd(&self, machine: &Machine) {
        let mut units = vec!["camcops.target".to_owned()];
        for slug in self.slugs() {
            units.push(format!("camcops@{slug}.target"));
            for service in SERVICES {
                units.push(format!("camcops-{service}@{slug}.service"));
            }
        }
        let words: Vec<&str> =
            ["systemd-analyze", "verify", "--man=no"].into_iter().chain(units.iter().map(String::as_str)).collect();
        let said = machine.run(&words);
        assert_eq!((said.success, said.all().as_str()), (true, ""));
        for unit in units.iter().filter(|unit| unit.ends_with(".service")) {
            let said = machine.run(&["systemctl", "--root=/", "is-enabled", unit]);
            assert_eq!(said.out.trim(), "enabled", "{unit}");
            let exposure = exposure(machine, unit);
            assert!(exposure <= MOST_EXPOSED, "{unit}: {exposure}");
        }
        for slug in self.slugs() {
            // The machine's /run is empty, as after a boot.
            let _ = fs::remove_dir_all(machine.path(&format!("/run/{slug}")));
            let plan = format!("/etc/tmpfiles.d/{slug}.conf");
            assert_eq!(machine.must(&["systemd-tmpfiles", "--create", &plan]), "");
            let uid = machine.must(&["id", "-u", self.account()]);
            let found = |path: String| {
                let found = machine.path(&path).metadata().unwrap();
                (found.uid().to_string(), found.mode() & 0o7777)
            };
            // systemd makes the socket and gives it away by its name: nobody else may make names there.
            for path in [format!("/run/{slug}"), format!("/run/lock/{slug}")] {
                assert_eq!(found(path), ("0".to_owned(), 0o755));
            }
            let locks = found(format!("/run/lock/{slug}/export"));
            assert_eq!(locks, (uid.trim().to_owned(), 0o700));
        }
        // What tmpfiles makes at boot is what the file plan says.
        for said in self.install(machine) {
            assert!(said.contains("nothing to do"), "{said}");
        }
    }

    fn judged_by_supervisor(&self, machine: &Machine) {
        let file = match self.rhel {
            true => "/etc/supervisord.conf",
            false => "/etc/supervisor/supervisord.conf",
        };
        fs::create_dir_all(machine.path("/var/log/supervisor")).unwrap();
        let said = machine.must(&["python3", "/run/judges/supervisor_programs.py", file]);
        let groups: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}"));
        assert_eq!(groups.as_object().unwrap().len(), self.slugs().len());
        for slug in self.slugs() {
            let programs = groups[slug].as_object().unwrap();
            assert_eq!(programs.len(), 1 + SERVICES.len());
            for service in SERVICES {
                let program = &programs[&format!("{slug}_{service}")];
                // It becomes the account by itself, once it has read the administrator's variables.
                assert!(program["user"].is_null(), "{program}");
                assert_eq!(program["autostart"], true);
                assert_eq!(program["killasgroup"], true);
                assert_eq!(program["stopsignal"], "SIGTERM");
                let config = format!("/etc/camcops/{slug}.conf");
                assert_eq!(program["environment"]["CAMCOPS_CONFIG_FILE"], config);
                let stop = if service == "workers" { 330 } else { 60 };
                assert_eq!(program["stopwaitsecs"], stop);
            }
            for program in programs.values() {
                let words: Vec<&str> =
                    program["words"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
                let start = words.iter().position(|word| *word == "/bin/sh").unwrap();
                let (before, words) = words.split_at(start);
                if !before.is_empty() {
                    assert_eq!(before[3], "with-environment");
                    assert_eq!(before[5..], ["--account", self.account(), "--"]);
                }
                assert_eq!((words[1], words.len()), ("-c", 3));
                assert_eq!(machine.must(&["sh", "-n", "-c", words[2]]), "");
            }
        }
    }

    fn judged(&self) {
        println!("{self:?}");
        let machine = self.machine();
        match self.supervisor {
            true => self.judged_by_supervisor(&machine),
            false => self.judged_by_systemd(&machine),
        }
        if self.tcp {
            for slug in self.slugs() {
                let file = format!("/etc/logrotate.d/{slug}");
                let said = machine.must(&["logrotate", "--debug", &file]);
                assert!(!said.contains("error"), "{said}");
                assert!(said.contains(&format!("/var/log/{slug}/*.log")), "{said}");
            }
        }
        self.judged_by_apache(&machine);
    }
}

/// What the package's first start would have done to Apache.
fn switch_on(machine: &Machine) {
    machine.must(&["a2enmod", "-q", "ssl", "proxy_http", "headers", "remoteip"]);
    machine.must(&["a2dissite", "-q", "000-default"]);
    let name = "/etc/apache2/conf-enabled/name.conf";
    machine.write(name, "ServerName stand-in.invalid\n");
}

/// Starts Apache, asks it, and gives what it answered.
fn answers(machine: &Machine, apache: &[&str], asked: &[Value]) -> Vec<Value> {
    answers_of(machine, json!({ "apache": apache, "requests": asked }))
}

/// The same for a task of the judge's own form.
fn answers_of(machine: &Machine, task: Value) -> Vec<Value> {
    let mut child = machine
        .command(&["python3", "/run/judges/web.py"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(task.to_string().as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(told, "", "Apache has nothing to complain of");
    let answers: Vec<Value> =
        String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), task["requests"].as_array().unwrap().len());
    answers
}

/// What `systemd-analyze security` gives a unit of a tree that no systemd runs in.
fn exposure(machine: &Machine, unit: &str) -> f64 {
    let said = machine.must(&["systemd-analyze", "security", "--offline=true", "--no-pager", unit]);
    let line = said.lines().rfind(|line| line.contains("Overall exposure")).unwrap();
    println!("{line}");
    let words = line.split_once(": ").unwrap().1;
    words.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn every_kind_of_site_on_debian() {
    Site::all(false).iter().for_each(Site::judged);
}

#[test]
fn every_kind_of_site_on_the_other_family() {
    Site::all(true).iter().for_each(Site::judged);
}

/// The headers that some layer behind Apache has a use for: gunicorn (SCRIPT_NAME and those of a secure scheme), the
/// middleware of CamCOPS (all its candidates, trusted or not), Pyramid's virtual root, and what CGI makes of "Proxy".
const BELIEVED: [&str; 20] = [
    "Script-Name",
    "Path-Info",
    "X-Forwarded-Protocol",
    "X-Forwarded-Proto",
    "X-Forwarded-Ssl",
    "X-Host",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-For",
    "X-Real-IP",
    "X-Forwarded-Scheme",
    "X-Scheme",
    "X-Forwarded-Https",
    "X-Https",
    "X-Script-Name",
    "X-Forwarded-Script-Name",
    "X-Forwarded-Server",
    "X-Vhm-Root",
    "Forwarded",
    "Proxy",
];

/// A machine with one site, served at two names and an address, and an extra service beside CamCOPS.
fn with_one_site() -> Machine {
    with_one_site_at("/", "")
}

fn with_one_site_at(path: &str, more: &str) -> Machine {
    let machine = Machine::new();
    for program in ["camcops_server", "celery"] {
        let path = format!("/usr/share/camcops/venv/bin/{program}");
        machine.write_program(&path, "#!/bin/sh\n");
    }
    machine.write("/usr/share/camcops/static/a.txt", "static");
    machine.write(
        "/root/provision.toml",
        &format!(
            "[web]\nserver_names = [\"one.example.org\", \"10.1.2.3\", \"fd00:0::1\"]\npath = \"{path}\"\n[tls]\ndns_names = [\"inside.example.org\"]\n\
             [[services.extra]]\nname = \"api\"\ncommand = [\"/usr/bin/python3\", \"-m\", \"api\"]\nport = 8300\npath = \"/extra\"\n{more}"
        ),
    );
    machine.install(&["--config=/mnt/root/root/provision.toml"]);
    switch_on(&machine);
    fs::create_dir_all(machine.path("/run/camcops")).unwrap();
    machine
}

const BACKEND: &str = "/run/camcops/camcops.socket";

#[test]
fn nothing_that_a_client_says_of_its_way_reaches_camcops() {
    let machine = with_one_site();
    let one = "one.example.org";
    let mut asked = vec![json!({ "host": one, "path": "/login", "start": [BACKEND] })];
    let spellings =
        |header: &str| [header.to_owned(), header.replace('-', "_"), header.to_uppercase().replace('-', "_")];
    let headers: Vec<String> = BELIEVED.into_iter().flat_map(spellings).collect();
    for header in &headers {
        asked.push(json!({ "host": one, "path": "/login", "headers": { header: "/evil" } }));
    }
    let raw = |text: String| json!({ "host": one, "raw": text });
    for hidden in ["X-Forwarded-Proto", "close, x-forwarded-for", "keep-alive,X-Forwarded-Host , te"] {
        asked.push(raw(format!("GET /login HTTP/1.1\r\nHost: {one}\r\nConnection: {hidden}\r\n\r\n")));
    }
    let answers = answers(&machine, &["apache2ctl", "-DFOREGROUND"], &asked);
    let usual = &answers[0]["body"]["headers"];
    for name in ["x-forwarded-proto", "x-forwarded-port", "x-forwarded-for"] {
        assert!(usual[name].is_string(), "{name}: {usual}");
    }
    let (with_headers, hidden) = answers[1..].split_at(headers.len());
    for (header, answer) in headers.iter().zip(with_headers) {
        assert_eq!(answer["status"], 200, "{header}");
        assert_eq!(&answer["body"]["headers"], usual, "{header}");
    }
    for answer in hidden {
        assert_eq!(answer["status"], 400, "{answer}");
    }
}

#[test]
fn only_known_names_and_methods_get_through() {
    let machine = with_one_site();
    // Somebody else's site of the same Apache, before ours and after it.
    for (file, name) in [("zoo", "zoo.example.org"), ("zoo-two", "two.example.org")] {
        machine.write(&format!("/srv/{file}/index.html"), file);
        machine.write(
            &format!("/etc/apache2/sites-enabled/{file}.conf"),
            &format!(
                "<VirtualHost *:443>\nServerName {name}\nDocumentRoot /srv/{file}\n<Directory /srv/{file}>\nRequire all granted\n</Directory>\nSSLEngine on\n\
                 SSLCertificateFile /etc/camcops/tls/camcops.crt\nSSLCertificateKeyFile /etc/camcops/tls/camcops.key\n</VirtualHost>\n"
            ),
        );
    }
    let one = "one.example.org";
    let get = |host: &str| json!({ "host": host, "path": "/login" });
    let raw = |sni: Option<&str>, text: &str| {
        let text = text.replace('\n', "\r\n");
        json!({ "sni": sni, "raw": format!("{text}Connection: close\r\n\r\n") })
    };
    let mut start = get(one);
    start["start"] = json!([BACKEND, 8300]);
    let with_host = |host: &str| format!("GET /login HTTP/1.1\nHost: {host}\n");
    let hosts = [
        (start, 200),
        (get("ONE.example.org"), 200),
        (get("inside.example.org"), 200),
        (raw(Some(one), &with_host("one.example.org.")), 200),
        (raw(Some(one), &with_host("one.example.org:443")), 200),
        (raw(None, &with_host("10.1.2.3")), 200),
        (raw(None, &with_host("[fd00::1]")), 200),
        (raw(None, &with_host("[fd00::2]")), 421),
        (raw(Some("evil.example"), &with_host(one)), 200),
        (get("evil.example"), 421),
        (get("none.camcops.invalid"), 421),
        (get("camcops.invalid"), 421),
        (get("localhost"), 421),
        (raw(None, &with_host("evil.example")), 421),
        (raw(None, &with_host("10.1.2.4")), 421),
        (raw(Some(one), &with_host("evil.example")), 421),
        (raw(Some(one), &format!("GET https://evil.example/login HTTP/1.1\nHost: {one}\n")), 421),
        (raw(Some(one), "GET /login HTTP/1.0\n"), 400),
        (raw(Some(one), &with_host("one.example.org:80@evil.example")), 400),
        (raw(Some(one), &format!("{}Host: evil.example\n", with_host(one))), 400),
    ];
    let methods = [
        ("GET", 200),
        ("HEAD", 200),
        ("POST", 200),
        ("OPTIONS", 405),
        ("PUT", 405),
        ("DELETE", 405),
        ("PATCH", 405),
        ("TRACE", 405),
        ("PROPFIND", 405),
        ("FOO", 405),
        ("get", 405),
        ("CONNECT", 400),
    ];
    let post = format!("POST /api HTTP/1.1\nHost: {one}\n");
    let bodies = [
        ("Content-Length: 5\nTransfer-Encoding: chunked\n", 411),
        ("Transfer-Encoding: gzip, chunked\n", 411),
        ("Transfer-Encoding : chunked\n", 400),
        ("Transfer-Encoding: \u{b}chunked\n", 400),
        ("Content-Length: 5\nContent-Length: 6\n", 400),
        ("Content-Length: +5\n", 400),
        ("Content-Length: 5, 5\n", 400),
        ("Content-Length: 99999999999\n", 413),
    ];
    let mut asked: Vec<Value> = hosts.iter().map(|(asked, _)| asked.clone()).collect();
    let method = |(method, _): &(&str, u64)| json!({ "host": one, "path": "/login", "method": method, "headers": { "Content-Length": "0" } });
    asked.extend(methods.iter().map(method));
    asked.extend(bodies.iter().map(|(header, _)| raw(Some(one), &format!("{post}{header}"))));
    let last = asked.len();
    asked.extend([
        json!({ "host": one, "path": "/static/a.txt" }),
        json!({ "host": one, "path": "/static/none" }),
        json!({ "host": one, "path": "/extra/x", "method": "PUT", "headers": { "Content-Length": "0" } }),
        get("zoo.example.org"),
        json!({ "host": "two.example.org", "path": "/" }),
    ]);
    let answers = answers(&machine, &["apache2ctl", "-DFOREGROUND"], &asked);
    let expected = hosts.iter().map(|(_, status)| *status);
    let expected = expected.chain(methods.iter().map(|(_, status)| *status));
    let expected = expected.chain(bodies.iter().map(|(_, status)| *status));
    let expected: Vec<u64> = expected.chain([200, 404, 200, 404, 200]).collect();
    for ((asked, answer), status) in asked.iter().zip(&answers).zip(expected) {
        assert_eq!(answer["status"], status, "{asked}\n{answer}");
        let server = &answer["headers"]["server"];
        assert_eq!(*server, json!(["Apache"]), "{asked}\n{answer}");
        if status == 405 {
            // Apache adds a line of its own, an empty one.
            let allow = &answer["headers"]["allow"][0];
            assert_eq!(*allow, "GET, HEAD, POST", "{asked}\n{answer}");
        }
        assert!(!answer.to_string().contains("2.4."), "{answer}");
        if answer["body"]["backend"].is_string() {
            let told = answer["body"]["headers"]["x-forwarded-host"].to_string();
            assert!(!told.contains("evil"), "{asked}\n{answer}");
        }
    }
    assert_eq!(answers[last + 2]["body"]["backend"], 8300);
    assert_eq!(answers[last + 4]["body"].as_str().unwrap().trim(), "zoo-two");
}

#[test]
fn during_maintenance_apache_answers_by_itself_until_its_end() {
    for path in ["/", "/base"] {
        maintenance_answers(path.trim_end_matches('/'), &with_one_site_at(path, ""));
    }
}

fn maintenance_answers(base: &str, machine: &Machine) {
    const PAGES: &str = "/var/lib/camcops-pages";
    const END: &str = "Mon, 30 Nov 2026 18:00:00 GMT";
    const TOLD: &str = "success:0\nerror:Größe\nsession_id:\nsession_token:\n";
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    let state = |from: i64, to: i64| format!("{}000000 {}000000 w0rd {END}\n", now + from, now + to);
    let get = |path: &str| json!({ "host": "one.example.org", "path": format!("{base}{path}") });
    let with = |path: &str, headers: Value| json!({ "host": "one.example.org", "path": format!("{base}{path}"), "headers": headers });
    let sent = |method: &str, path: &str| {
        let mut asked = with(path, json!({ "Content-Length": "0" }));
        asked["method"] = json!(method);
        asked
    };
    let after = |text: &str, mut asked: Value| {
        asked["write"] = json!({ format!("{PAGES}/maintenance"): text });
        asked
    };
    let mut first = get("/login");
    first["start"] = json!([BACKEND, 8300]);
    let mut begins = after(&state(-60, 3600), get("/login"));
    begins["write"][format!("{PAGES}/maintenance.html")] = json!("<p>Größe");
    begins["write"][format!("{PAGES}/maintenance.txt")] = json!(TOLD);
    let earlier = json!({ "X-Camcops-Received": format!("t={}000000", now - 7000) });
    let cases = [
        (first, 200),
        (begins, 503),
        (sent("POST", "/login"), 503),
        (sent("POST", "/api"), 299),
        (sent("POST", "/database"), 299),
        (get("/api"), 503),
        (sent("POST", "/api/x"), 503),
        (sent("PUT", "/login"), 405),
        (get("/static/a.txt"), 503),
        (json!({ "host": "one.example.org", "path": "/extra/x" }), 503),
        (get("/camcops-maintenance"), 403),
        (get("/camcops-maintenance/x"), 403),
        (with("/login", json!({ "X-Camcops-Maintenance": "word" })), 503),
        (with("/login", json!({ "X-Camcops-Maintenance": "w0rd" })), 200),
        (with("/login", earlier), 503),
        (after(&state(-3600, -1), get("/login")), 200),
        (with("/login", json!({ "X-Camcops-Received": format!("t={}000000", now - 60) })), 200),
        (sent("POST", "/api"), 200),
        (get("/camcops-maintenance"), 403),
        (after(&state(60, 3600), get("/login")), 200),
        (after("", get("/login")), 200),
        (after("0 99999999999999999", get("/login")), 200),
    ];
    let asked: Vec<Value> = cases.iter().map(|(asked, _)| asked.clone()).collect();
    let answers = answers(machine, &["apache2ctl", "-DFOREGROUND"], &asked);
    for ((asked, expected), answer) in cases.iter().zip(&answers) {
        let headers = &answer["headers"];
        let seen = answer["status"].as_u64().unwrap();
        match expected {
            // CamCOPS itself, which never sees what is between the two of us.
            200 => {
                assert!(answer["body"]["backend"].is_string(), "{asked}\n{answer}");
                assert!(!answer["body"]["headers"].to_string().contains("camcops-"), "{asked}\n{answer}");
            }
            299 => {
                assert_eq!(answer["body"], TOLD, "{asked}\n{answer}");
                assert_eq!(headers["content-type"], json!(["text/plain; charset=utf-8"]), "{asked}\n{answer}");
            }
            503 => {
                assert_eq!(answer["body"], "<p>Größe", "{asked}\n{answer}");
                assert_eq!(headers["content-type"], json!(["text/html; charset=utf-8"]), "{asked}\n{answer}");
                assert_eq!(headers["retry-after"], json!([END]), "{asked}\n{answer}");
            }
            _ => {}
        }
        if [299, 503].contains(expected) {
            assert_eq!(headers["cache-control"], json!(["no-store"]), "{asked}\n{answer}");
        }
        let expected = if *expected == 299 { 200 } else { *expected };
        assert_eq!(seen, expected, "{asked}\n{answer}");
    }
}

#[test]
fn the_status_page_is_for_those_who_have_its_password_on_its_networks() {
    const PAGES: &str = "/var/lib/camcops-pages";
    // admin:right and admin:wrong
    let (right, wrong) = ("Basic YWRtaW46cmlnaHQ=", "Basic YWRtaW46d3Jvbmc=");
    for (path, networks, is_let_in) in [("/", "", true), ("/base", "page_networks = [\"192.0.2.0/24\"]", false)] {
        let machine = with_one_site_at(path, &format!("[monitor]\npage = true\n{networks}\n"));
        let base = path.trim_end_matches('/');
        let get = |path: &str, login: &str| {
            let headers = if login.is_empty() { json!({}) } else { json!({ "Authorization": login }) };
            json!({ "host": "one.example.org", "path": format!("{base}{path}"), "headers": headers })
        };
        let mut first = get("/site-status", right);
        first["start"] = json!([BACKEND, 8300]);
        machine.write(&format!("{PAGES}/status.html"), "<p>Größe");
        let login = "printf 'right\\n' | htpasswd -n -i -B -C 8 admin > /var/lib/camcops-pages/login";
        machine.must(&["sh", "-c", login]);
        let let_in = |status: u64| if is_let_in { status } else { 403 };
        let begins = "1000000 99999999999999999 w0rd x\n";
        let mut during = get("/site-status", right);
        during["write"] = json!({ format!("{PAGES}/maintenance"): begins });
        let cases = [
            (first, let_in(200)),
            (get("/site-status", ""), let_in(401)),
            (get("/site-status", wrong), let_in(401)),
            (get("/site-status/x", wrong), let_in(401)),
            (get("/site-status.html", right), 200),
            (during, let_in(200)),
            (get("/login", ""), 503),
        ];
        let asked: Vec<Value> = cases.iter().map(|(asked, _)| asked.clone()).collect();
        let answers = answers(&machine, &["apache2ctl", "-DFOREGROUND"], &asked);
        for ((asked, expected), answer) in cases.iter().zip(&answers) {
            assert_eq!(answer["status"], *expected, "{asked}\n{answer}");
        }
        if is_let_in {
            let headers = &answers[0]["headers"];
            assert_eq!(answers[0]["body"], "<p>Größe");
            assert_eq!(headers["content-type"], json!(["text/html; charset=utf-8"]));
            assert_eq!(headers["cache-control"], json!(["no-store"]));
            assert!(headers["content-security-policy"].to_string().contains("default-src 'none'"), "{headers}");
        }
        // What is no longer the page is CamCOPS's.
        assert!(answers[4]["body"]["backend"].is_string(), "{}", answers[4]);
    }
}

#[test]
fn the_database_server_and_its_programs_take_our_settings() {
    let machine = Machine::new();
    machine.install(&["--set=database.flush_log_at_trx_commit=2"]);
    let server = machine.must(&["mariadbd", "--user=mysql", "--verbose", "--help"]);
    let has = |text: &str, name: &str, value: &str| text.lines().any(|line| line.split_whitespace().eq([name, value]));
    assert!(has(&server, "max-allowed-packet", "67108864"));
    assert!(has(&server, "innodb-flush-log-at-trx-commit", "2"));
    assert!(!server.contains("unknown variable") && !server.contains("[ERROR]"), "{server}");
    for program in ["mariadb", "mariadb-dump"] {
        let said = machine.must(&[program, "--help"]);
        assert!(has(&said, "max-allowed-packet", "67108864"), "{program}");
    }
    let login = "--defaults-file=/etc/camcops/camcops.my.cnf";
    let said = machine.must(&["mariadb", login, "--help"]);
    assert!(has(&said, "socket", "/run/mysqld/mysqld.sock"), "{said}");
    // Asked for help, a client only mentions an option that it does not know.
    assert!(!said.contains("unknown"), "{said}");

    machine.write("/root/password", "a b#;%=[x]");
    machine.must(&["chmod", "600", "/root/password"]);
    machine.install(&[
        "--set=database.mode=external",
        "--set=database.host=db.example.org",
        "--set=database.tls=verify",
        "--set=database.tls_ca=/etc/ssl/ca with blank.pem",
        "--set=database.password_file=/root/password",
    ]);
    let said = machine.must(&["mariadb", login, "--help"]);
    assert!(!said.contains("unknown"), "{said}");
    for (name, value) in [("host", "db.example.org"), ("ssl-verify-server-cert", "TRUE")] {
        assert!(has(&said, name, value), "{name}\n{said}");
    }
    let options = machine.must(&["my_print_defaults", login, "client"]);
    assert!(options.contains("--password=a b#;%=[x]\n"), "{options}");
    assert!(options.contains("--ssl-ca=/etc/ssl/ca with blank.pem\n"), "{options}");
}

#[test]
fn the_broker_takes_our_settings() {
    let machine = Machine::new();
    // As before its package came: a broker that was here before us keeps its own port and name.
    machine.must(&["sh", "-c", "rm -rf /var/lib/rabbitmq/mnesia/* /etc/rabbitmq/rabbitmq-env.conf"]);
    machine.install(&["--set=broker.port=5673"]);
    let home = "/usr/lib/rabbitmq/lib/rabbitmq_server-3.10.8/plugins";
    let judged = |file: &str| {
        let question = format!(
            "S = cuttlefish_schema:files(filelib:wildcard(\"{home}/rabbit-3*/priv/schema/rabbit.schema\")), \
             io:format(\"~p\", [cuttlefish_generator:map(S, cuttlefish_conf:file(\"{file}\"))]), halt()."
        );
        machine.run(&["sh", "-c", &format!("exec erl -noinput -noshell -pa {home}/*/ebin -eval '{question}'")])
    };
    let said = judged("/etc/rabbitmq/conf.d/90-camcops.conf");
    assert!(said.out.contains("{consumer_timeout,7200000}"), "{said:?}");
    assert!(said.out.contains("{tcp_listeners,[{\"127.0.0.1\",5673}]}"), "{said:?}");
    machine.write("/tmp/wrong.conf", "consumer_timeouts = 1\n");
    let said = judged("/tmp/wrong.conf");
    assert!(said.all().contains("error"), "{said:?}");
}

#[test]
fn camcops_reads_every_configuration_without_a_complaint() {
    let scratch = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for rhel in [false, true] {
        let machine = match rhel {
            true => Machine::rhel(),
            false => Machine::new(),
        };
        let sites = Site::all(rhel).into_iter().filter(|site| site.two);
        for (number, site) in sites.enumerate() {
            site.install(&machine);
            for slug in site.slugs() {
                let file = scratch.path().join(format!("{rhel}-{number}-{slug}.conf"));
                fs::write(&file, machine.read(&format!("/etc/camcops/{slug}.conf"))).unwrap();
                files.push(file);
            }
        }
    }
    let judged = Command::new(camcops_python()).arg(script("camcops_config.py")).args(&files).output().unwrap();
    // 1 is its word for a complaint, and there are those that are expected.
    assert!(matches!(judged.status.code(), Some(0 | 1)), "{judged:?}");
    let text = String::from_utf8(judged.stdout).unwrap();
    for line in text.lines() {
        let verdict: Value = serde_json::from_str(line).unwrap();
        // Where there is no wkhtmltopdf, WeasyPrint makes the PDF documents, and that key says nothing.
        let left_out = match verdict["file"].as_str().unwrap().contains("/true-") {
            true => json!(["[site] WKHTMLTOPDF_FILENAME is missing"]),
            false => json!([]),
        };
        assert_eq!(verdict["complaints"], left_out, "{line}");
    }
    assert_eq!(text.lines().count(), files.len());
}
