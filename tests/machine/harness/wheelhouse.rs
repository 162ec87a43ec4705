//! Every file that a release is made of, fetched once and kept in the cache; and a package index that serves them.

use super::certificates::Authority;
use super::{Machine, done};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a release is built with, of a Debian that has no CamCOPS yet.
pub const BUILDING: [&str; 7] =
    ["ca-certificates", "gcc", "libc6-dev", "libmagickwand-6.q16-6", "python3.11", "python3.11-dev", "python3.11-venv"];

/// The version that is installed where nothing else is said.
pub const NEWEST: &str = "2.4.24+1";

/// The files for Debian's own Python.
pub fn kept() -> PathBuf {
    kept_for(11)
}

/// What pip installs of a version of CamCOPS on a Python.
pub fn lock(version: &str, minor: u8) -> String {
    let program = requirements().join("lock");
    let told = Command::new(program).args([version, &format!("3.{minor}")]).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    String::from_utf8(told.stdout).unwrap()
}

fn requirements() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("requirements")
}

/// The files for an interpreter of this version, which the host need not have.
pub fn kept_for(minor: u8) -> PathBuf {
    let read = |name: &str| fs::read_to_string(requirements().join(name)).unwrap();
    let locks = [read("build.txt"), lock(NEWEST, minor), read("uv.txt")];
    let name = format!("wheelhouse-3.{minor}-{}", super::key(&locks.concat()));
    super::kept(&name, "fetching the packages of CamCOPS", |home| fetch(home, minor, &locks))
}

/// The files that an older version has in place of those of the newest.
pub fn other_than_newest(version: &str) -> PathBuf {
    let packages = |lock: &str| lock.replace("\n    ", "\x01").lines().map(str::to_owned).collect::<Vec<String>>();
    let newest = packages(&lock(NEWEST, 11));
    let others: Vec<String> = packages(&lock(version, 11)).into_iter().filter(|one| !newest.contains(one)).collect();
    let others = others.join("\n").replace('\x01', "\n    ");
    let name = format!("wheelhouse-of-{version}-{}", super::key(&others));
    super::kept(&name, "fetching the packages of an older CamCOPS", |home| fetch(home, 11, &[others]))
}

/// Fetches what locks name, the first of which may be needed to look into the others.
fn fetch(home: &Path, minor: u8, locks: &[String]) {
    let venv = home.with_extension("venv");
    done(Command::new("python3.11").args(["-m", "venv", "--clear"]).arg(&venv));
    let list = venv.join("lock.txt");
    let pip = |verb: &str| {
        let mut pip = Command::new(venv.join("bin/pip"));
        pip.args([verb, "--quiet", "--no-deps", "--require-hashes", "--no-build-isolation", "--requirement"])
            .arg(&list);
        pip
    };
    fs::write(&list, fs::read(requirements().join("build.txt")).unwrap()).unwrap();
    done(&mut pip("install"));
    for lock in locks {
        fs::write(&list, lock).unwrap();
        done(pip("download").args(["--python-version", &format!("3.{minor}"), "--dest"]).arg(home));
    }
    fs::remove_dir_all(venv).unwrap();
}

/// Puts the files into /srv/wheelhouse of a machine.
pub fn put_into(machine: &Machine) {
    let to = machine.path("/srv/wheelhouse");
    fs::create_dir_all(&to).unwrap();
    for file in fs::read_dir(kept()).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// An index of them at https://index.test:8443/simple/, for who has the login, and a proxy for it at port 3128 which
/// asks for the same login.
pub fn serve(machine: &Machine, authority: &Authority, login: &str) {
    let (certificate, key) = authority.sign("index.test", false);
    machine.write("/srv/index.pem", &format!("{certificate}{key}"), 0o600);
    machine.write("/srv/index.login", login, 0o600);
    machine.write("/srv/index.py", SERVER, 0o644);
    machine.run(
        "echo 127.0.0.1 index.test proxy.test >> /etc/hosts
         for file in /srv/wheelhouse/*; do
             name=${file##*/}
             project=$(printf %s \"$name\" | sed -E 's/-[0-9].*//; s/[-_.]+/-/g' | tr A-Z a-z)
             mkdir -p /srv/simple/$project
             ln -s $file /srv/simple/$project/$name
         done",
    );
    machine.daemon("index", "root", "python3.11 /srv/index.py");
    machine.wait_for("the index", "exec 3<> /dev/tcp/127.0.0.1/8443 4<> /dev/tcp/127.0.0.1/3128");
}

const SERVER: &str = r#"
import base64, http.server, select, socket, ssl, threading
login = "Basic " + base64.b64encode(open("/srv/index.login", "rb").read()).decode()

class Index(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def __init__(self, *arguments):
        super().__init__(*arguments, directory="/srv")
    def do_GET(self):
        if self.headers.get("Authorization") == login:
            return super().do_GET()
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="index"')
        self.send_header("Content-Length", "0")
        self.end_headers()

class Proxy(http.server.BaseHTTPRequestHandler):
    def do_CONNECT(self):
        if self.headers.get("Proxy-Authorization") != login:
            self.send_response(407)
            self.send_header("Proxy-Authenticate", 'Basic realm="proxy"')
            self.end_headers()
            return
        open("/srv/proxied", "a").write(self.path + "\n")
        there = socket.create_connection(("127.0.0.1", 8443))
        self.send_response(200)
        self.end_headers()
        pair = {self.connection: there, there: self.connection}
        while True:
            for end in select.select(list(pair), [], [])[0]:
                data = end.recv(1 << 16)
                if not data:
                    return
                pair[end].sendall(data)

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/srv/index.pem")
index = http.server.ThreadingHTTPServer(("127.0.0.1", 8443), Index)
index.socket = context.wrap_socket(index.socket, server_side=True)
threading.Thread(target=index.serve_forever).start()
http.server.ThreadingHTTPServer(("127.0.0.1", 3128), Proxy).serve_forever()
"#;
