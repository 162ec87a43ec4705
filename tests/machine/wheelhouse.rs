//! Every file that a release is made of, fetched once and kept in the cache; and a package index that serves them.

use super::certificates::Authority;
use super::{Machine, cache};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The wheelhouse of the host.
pub fn kept() -> PathBuf {
    made(11, Path::new("python3.11"))
}

/// The wheelhouse of the host for an interpreter of this version, made where it is not there yet.
fn made(minor: u8, python: &Path) -> PathBuf {
    let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("requirements");
    let locks = ["build.txt", &format!("python3.{minor}.txt"), "uv.txt"];
    let key = locks
        .iter()
        .flat_map(|lock| fs::read(requirements.join(lock)).unwrap())
        .fold(0xcbf2_9ce4_8422_2325_u64, |key, byte| {
            (key ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
    let home = cache().join(format!("wheelhouse-{key:016x}"));
    fs::create_dir_all(cache()).unwrap();
    let lock = File::create(home.with_extension("lock")).unwrap();
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
    if home.exists() {
        return home;
    }
    eprintln!("fetching the packages of CamCOPS: once, a minute or two");
    let unfinished = home.with_extension("unfinished");
    let _ = fs::remove_dir_all(&unfinished);
    let venv = home.with_extension("venv");
    run(Command::new(python)
        .args(["-m", "venv", "--clear"])
        .arg(&venv));
    let pip = |verb: &str, lock: &str| {
        let mut pip = Command::new(venv.join("bin/pip"));
        pip.args([verb, "--quiet", "--no-deps", "--require-hashes"])
            .args(["--no-build-isolation", "--requirement"])
            .arg(requirements.join(lock));
        pip
    };
    run(&mut pip("install", "build.txt"));
    for lock in locks {
        run(pip("download", lock).arg("--dest").arg(&unfinished));
    }
    fs::remove_dir_all(venv).unwrap();
    fs::rename(unfinished, &home).unwrap();
    home
}

fn run(command: &mut Command) {
    let done = command.stdin(Stdio::null()).status().unwrap();
    assert!(done.success(), "{command:?}");
}

/// Puts the files into /srv/wheelhouse of a machine.
pub fn put_into(machine: &Machine) {
    put_into_for(machine, 11, Path::new("python3.11"));
}

/// The same for another version of Python, which the host has.
pub fn put_into_for(machine: &Machine, minor: u8, python: &Path) {
    let to = machine.path("/srv/wheelhouse");
    fs::create_dir_all(&to).unwrap();
    for file in fs::read_dir(made(minor, python)).unwrap() {
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
    machine.wait_for(
        "the index",
        "exec 3<> /dev/tcp/127.0.0.1/8443 4<> /dev/tcp/127.0.0.1/3128",
    );
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
