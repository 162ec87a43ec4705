//! What `config render --for` prints, in the real servers: they take it, pass on what they should, and believe no client.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod common;

use common::{Staged, Who, scratch};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Killed, it would leave its workers behind.
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn wait_for(port: u16, what: &str) {
    for _ in 0..200 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{what} does not listen on {port}");
}

fn start(program: &str, arguments: &[&str], port: u16) -> Running {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let running = Running(command.spawn().unwrap_or_else(|why| panic!("{program}: {why}")));
    wait_for(port, program);
    running
}

/// A certificate for localhost, with its key, in one file and in two.
fn certify(directory: &Path, name: &str) {
    let at = |end: &str| directory.join(format!("{name}{end}")).to_str().unwrap().to_owned();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-keyout", &at(".key"), "-out", &at(".crt")])
        .stderr(Stdio::null())
        .status();
    assert!(made.unwrap().success());
    fs::write(at(".pem"), fs::read_to_string(at(".crt")).unwrap() + &fs::read_to_string(at(".key")).unwrap()).unwrap();
}

fn render(server: &str, settings: &[&str]) -> String {
    let staged = Staged::of(Who::Ordinary, "debian").set(settings);
    staged.run(&["config", "render", "--for", server]).exits(0).out
}

/// The rendered text with this test's own port and files in place of those that it tells to correct.
fn placed(text: &str, front: u16, directory: &Path) -> String {
    let own = directory.join("own").to_str().unwrap().to_owned();
    let site = directory.join("site.crt").to_str().unwrap().to_owned();
    text.replace("listen 443", &format!("listen 127.0.0.1:{front}"))
        .replace("    listen [::]:443 ssl;\n", "")
        .replace("*:443", &format!("127.0.0.1:{front}"))
        .replace("bind :443", &format!("bind 127.0.0.1:{front}"))
        .replace("/etc/ssl/certs/localhost.pem", &format!("{own}.crt"))
        .replace("/etc/ssl/private/localhost.key", &format!("{own}.key"))
        .replace("/etc/haproxy/localhost.pem", &format!("{own}.pem"))
        .replace("/etc/ssl/certs/camcops-site.pem", &site)
}

/// Lets a server serve it.
fn serve(server: &str, text: &str, front: u16, directory: &Path) -> Running {
    let at = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let (file, text) = match server {
        "nginx" => (
            at("nginx.conf"),
            format!(
                "daemon off;\nerror_log stderr;\npid {0}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{1}\n{text}}}\n",
                directory.display(),
                ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                    .map(|kind| format!("{kind}_temp_path {}/{kind};", directory.display()))
                    .join("\n"),
            ),
        ),
        "haproxy" => (at("haproxy.cfg"), format!("defaults\n    timeout connect 5s\n{text}")),
        _ => {
            let modules =
                ["mpm_event", "authz_core", "ssl", "socache_shmcb", "headers", "proxy", "proxy_http", "alias"];
            let load = modules.map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so"));
            (
                at("apache.conf"),
                format!(
                    "ServerRoot {0}\nServerName localhost\nPidFile {0}/pid\nErrorLog {0}/error.log\nListen 127.0.0.1:{front} https\n{1}\n{text}",
                    directory.display(),
                    load.join("\n")
                ),
            )
        }
    };
    fs::write(&file, text).unwrap();
    match server {
        "nginx" => start("nginx", &["-c", &file], front),
        "haproxy" => start("haproxy", &["-f", &file], front),
        _ => start("apache2", &["-f", &file, "-DFOREGROUND"], front),
    }
}

fn ask(front: u16, path: &str, arguments: &[&str]) -> (String, String) {
    let address = format!("https://localhost:{front}{path}");
    let asked = Command::new("curl")
        .args(["--silent", "--insecure", "--max-time", "20", "--write-out", "\n%{http_code}", &address])
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&asked.stdout).into_owned();
    let (body, code) = said.rsplit_once('\n').unwrap();
    (code.to_owned(), body.to_owned())
}

fn headers(body: &str, wanted: &str) -> Vec<String> {
    let said: Value = serde_json::from_str(body).unwrap_or_else(|why| panic!("{why}: {body}"));
    let all = said["headers"].as_array().unwrap().clone();
    let same = |name: &str| name.eq_ignore_ascii_case(wanted);
    all.iter().filter(|one| same(one[0].as_str().unwrap())).map(|one| one[1].as_str().unwrap().to_owned()).collect()
}

const LIES: [&str; 8] = [
    "--header",
    "X-Forwarded-For: 6.6.6.6",
    "--header",
    "X-Script-Name: /evil",
    "--header",
    "X_Script_Name: /evil",
    "--header",
    "X-Forwarded-Proto: http",
];

/// What holds on whichever machine it stands.
fn passes_on(server: &str, front: u16, path: &str) {
    let (code, said) = ask(front, &format!("{path}/login?a=b"), &LIES);
    assert_eq!(code, "200", "{server}: {said}");
    assert!(said.contains(&format!("{path}/login?a=b")), "{server}: {said}");
    assert_eq!(headers(&said, "X-Forwarded-For"), ["127.0.0.1"], "{server}");
    assert_eq!(headers(&said, "Host"), [format!("localhost:{front}")], "{server}");
    let megabyte = scratch();
    let file = megabyte.path().join("body");
    let data = format!("@{}", file.display());
    fs::write(&file, vec![b'x'; 1 << 20]).unwrap();
    let (code, said) = ask(front, &format!("{path}/api"), &["--data-binary", &data]);
    assert!(code == "200" && said.contains("1048576"), "{server}: {code} {said}");
    fs::write(&file, vec![b'x'; (2 << 20) + 1]).unwrap();
    assert_eq!(ask(front, &format!("{path}/api"), &["--data-binary", &data]).0, "413", "{server}");
    // An upload may have been stored before its answer was lost: it is never passed on twice.
    let (code, _) = ask(front, &format!("{path}/cut"), &["--data", "x"]);
    assert!(["502", "000"].contains(&code.as_str()), "{server}: {code}");
    let (_, said) = ask(front, &format!("{path}/count"), &[]);
    assert!(said.contains("\"cut\": 1"), "{server}: {said}");
}

#[test]
fn another_machine_stands_in_front() {
    for server in ["nginx", "haproxy", "apache"] {
        let home = scratch();
        let (front, back) = (free_port(), free_port());
        for name in ["own", "site", "other"] {
            certify(home.path(), name);
        }
        let at = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
        let text =
            render(server, &["web.server_names=localhost", &format!("web.https_port={back}"), "web.max_body_mb=2"]);
        let text = placed(&text, front, home.path());
        let judge = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/judges/upstream.py");
        let upstream = start("python3", &[judge, &back.to_string(), &at("site.crt"), &at("site.key")], back);
        let serving = serve(server, &text, front, home.path());
        passes_on(server, front, "");
        // Somebody else's certificate is no site of ours.
        drop(upstream);
        let _other = start("python3", &[judge, &back.to_string(), &at("other.crt"), &at("other.key")], back);
        let (code, said) = ask(front, "/login", &[]);
        assert!(["502", "503", "500"].contains(&code.as_str()), "{server}: {code} {said}");
        drop(serving);
    }
}

#[test]
fn a_server_of_the_same_machine_stands_in_front() {
    for server in ["nginx", "haproxy", "apache"] {
        let home = scratch();
        let (front, back) = (free_port(), free_port());
        certify(home.path(), "own");
        let text = render(
            server,
            &[
                "web.server_names=localhost",
                "web.frontend=none",
                "web.path=/camcops",
                &format!("web.bind=127.0.0.1:{back}"),
                "web.max_body_mb=2",
            ],
        );
        let text = placed(&text, front, home.path());
        let judge = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/judges/upstream.py");
        let _upstream = start("python3", &[judge, &back.to_string()], back);
        let _serving = serve(server, &text, front, home.path());
        passes_on(server, front, "/camcops");
        let (_, said) = ask(front, "/camcops/login", &LIES);
        assert_eq!(headers(&said, "X-Script-Name"), ["/camcops"], "{server}: {said}");
        assert!(!said.contains("/evil"), "{server}: {said}");
        assert_eq!(headers(&said, "X-Forwarded-Proto"), ["https"], "{server}: {said}");
        for (arguments, codes) in
            [(["--request", "DELETE"], ["403", "405"]), (["--header", "Host: evil.example.org"], ["421", "421"])]
        {
            let (code, said) = ask(front, "/camcops/login", &arguments);
            assert!(codes.contains(&code.as_str()), "{server}: {arguments:?}: {code} {said}");
        }
    }
}

#[test]
fn iis_gets_a_web_config_and_only_for_another_machine() {
    let text = render("iis", &["web.server_names=camcops.example.org", "web.path=/camcops"]);
    let home = scratch();
    let file = home.path().join("web.config");
    fs::write(&file, &text).unwrap();
    let mut read = Command::new("python3");
    read.args(["-c", "import sys, xml.dom.minidom as m; print(m.parse(sys.argv[1]).documentElement.tagName)"])
        .arg(&file);
    assert_eq!(String::from_utf8_lossy(&read.output().unwrap().stdout).trim(), "configuration");
    assert!(text.contains("^camcops(/.*)?$") && text.contains("https://camcops.example.org/{R:0}"), "{text}");
    let staged = Staged::of(Who::Ordinary, "debian").set(&["web.frontend=none"]);
    staged.run(&["config", "render", "--for", "iis"]).exits(78).says("web.frontend");
}
