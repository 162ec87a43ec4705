//! What becomes of an upload when the broker is away, of one that fails, and of export locks: with CamCOPS's own code.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod judge;

use camcops_provision::host::Host;
use camcops_provision::host::export_locks::Lock;
use camcops_provision::host::export_locks::break_stale;
use judge::{Said, camcops_python, script};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// What the real ones say in /usr/share/camcops/python.
fn put_templates(home: &Path) {
    for name in ["sitecustomize.py", "camcops_unsent.py"] {
        let template = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("templates/{name}.hbs"));
        let text = fs::read_to_string(template).unwrap();
        fs::write(home.join(name), text.replace("{{managed_shared}}", "")).unwrap();
    }
}

/// Runs a judge with the hook, in a home of its own: it finds all as it should be.
fn judged(name: &str, arguments: &[&str]) {
    let home = tempfile::tempdir().unwrap();
    put_templates(home.path());
    let said = Said::by(
        Command::new(camcops_python())
            .args(["-W", "ignore"])
            .arg(script(name))
            .args(arguments)
            .env("PYTHONPATH", home.path())
            .env("HOME", home.path())
            .env("CAMCOPS_CONFIG_FILE", home.path().join("camcops.conf")),
    );
    assert!(said.success && said.out.ends_with("as expected\n"), "{}", said.all());
}

#[test]
fn an_upload_is_no_failure_while_the_broker_is_away() {
    // It takes connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().port();
    judged("uploads.py", &[&silent.to_string()]);
}

#[test]
fn an_upload_that_fails_stores_nothing() {
    judged("failed_uploads.py", &[]);
}

/// The umask is that of the services. Threads of the server would keep the process from its end.
const SOCKET: &str = "import os, sys
from cheroot import wsgi
os.umask(0o077)
wsgi.Server(sys.argv[1], lambda *_: []).prepare()
print(oct(os.stat(sys.argv[1]).st_mode & 0o777), oct(os.umask(0)), flush=True)
os._exit(0)
";

#[test]
fn who_gets_to_the_socket_of_cherrypy_may_use_it() {
    let home = tempfile::tempdir().unwrap();
    let made = || {
        let mut python = Command::new(camcops_python());
        python.args(["-W", "ignore", "-c", SOCKET]).arg(home.path().join("socket")).env("PYTHONPATH", home.path());
        Said::by(&mut python).out
    };
    assert_eq!(made(), "0o700 0o77\n", "as CherryPy makes it by itself");
    put_templates(home.path());
    assert_eq!(made(), "0o777 0o77\n");
}

const HOLDER: &str = "import lockfile, sys, time
lock = lockfile.FileLock(sys.argv[1])
lock.acquire(timeout=0)
lock.release()
lock.acquire(timeout=0)
assert lock.i_am_locking()
print(flush=True)
time.sleep(600)
";

/// A process that holds a lock as CamCOPS does.
struct Holder(Child);

impl Holder {
    fn start(home: &Path, lock: &str) -> Holder {
        let mut child = Command::new(camcops_python())
            .args(["-c", HOLDER])
            .arg(home.join(lock))
            .env("PYTHONPATH", home)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let out = child.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        assert_eq!(line, "\n");
        Holder(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_lock_says_which_process_holds_it() {
    let home = tempfile::tempdir().unwrap();
    let locks = || -> Vec<Lock> {
        let host = Host::staged(home.path()).unwrap();
        break_stale(&host, "/").unwrap()
    };
    let kept = |lock: &str| home.path().join(format!("{lock}.lock")).exists();
    // As CamCOPS names it by itself, and with the hook.
    let plain = Holder::start(home.path(), "plain");
    put_templates(home.path());
    let named = Holder::start(home.path(), "named");
    let other = Holder::start(home.path(), "other");
    let (pid, files) = (named.0.id(), fs::read_dir(home.path()).unwrap());
    let mut names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    assert!(names.any(|name| name.contains(&format!(".{pid}-"))));
    let found = locks();
    assert!(found.len() == 3 && !found.iter().any(|lock| lock.broken));
    drop(plain);
    drop(named);
    locks();
    assert!(!kept("plain") && !kept("named") && kept("other"));
    // Whoever waits for it has it then.
    let again = Holder::start(home.path(), "named");
    drop(other);
    locks();
    assert!(kept("named") && !kept("other"));
    drop(again);
}
