//! The programs that judge what this crate writes: each reads it as the real machine would.

// Each test file uses its own part of this.
#![allow(dead_code)]

use proptest::prelude::*;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::LazyLock;

/// The tree of the judging machines.
static DEBIAN: LazyLock<String> = LazyLock::new(|| {
    let made = Command::new(script("root.sh")).stderr(Stdio::inherit()).output().unwrap();
    assert!(
        made.status.success(),
        "no Debian tree with the programs that judge: run tests/run, or tests/judges/root.sh as root"
    );
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
});

/// A file of tests/judges.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/judges").join(name)
}

/// The Python of the CamCOPS that judges.
pub fn camcops_python() -> PathBuf {
    let venv =
        std::env::var("CAMCOPS_TEST_VENV").unwrap_or_else(|_| "/var/cache/camcops-provision-tests/venv-newest".into());
    let python = PathBuf::from(venv).join("bin/python");
    assert!(python.exists(), "no CamCOPS in {}: run tests/run, or tests/judges/venv.sh", python.display());
    python
}

/// What a command printed, and whether it succeeded.
#[derive(Debug)]
pub struct Said {
    /// Whether it succeeded.
    pub success: bool,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    /// Runs a command to its end.
    pub fn by(command: &mut Command) -> Said {
        let output = command
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|why| panic!("{command:?}: {why}; run tests/run, which installs it"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said { success: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// Both streams.
    pub fn all(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}

/// A throw-away Debian machine, on which nothing runs that the test does not start.
pub struct Machine {
    holder: Child,
    pid: String,
}

impl Machine {
    /// A new one.
    pub fn new() -> Machine {
        let mut holder = Command::new("unshare")
            .args(["--mount", "--net", "--pid", "--fork", "--kill-child"])
            .arg(script("machine.sh"))
            .args([DEBIAN.as_str().as_ref(), script("").as_os_str()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pid = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut pid).unwrap();
        let pid = pid.trim().to_owned();
        assert!(!pid.is_empty(), "no judging machine: these tests run as root");
        Machine { holder, pid }
    }

    /// One that looks like a machine of the other family; its programs stay Debian's.
    pub fn rhel() -> Machine {
        let machine = Machine::new();
        machine.write("/usr/lib/os-release", "ID=\"rhel\"\nVERSION_ID=\"9.4\"\nID_LIKE=\"fedora\"\n");
        let account = |file: &str, line: &str| {
            let text = machine.read(file);
            machine.write(file, &format!("{text}{line}\n"));
        };
        account("/etc/passwd", "apache:x:48:48::/usr/share/httpd:/sbin/nologin");
        account("/etc/group", "apache:x:48:");
        machine.write("/etc/httpd/conf/httpd.conf", include_str!("../judges/httpd.conf"));
        machine.write("/etc/supervisord.conf", "[supervisord]\n[include]\nfiles = supervisord.d/*.ini\n");
        fs::create_dir_all(machine.path("/var/log/httpd")).unwrap();
        fs::create_dir_all(machine.path("/etc/httpd/conf.d")).unwrap();
        machine
    }

    /// A path of the machine, as the test reaches it.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root/mnt/root{path}", self.pid))
    }

    /// Writes a file, and the directories that it stands in.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    }

    /// Writes a program.
    pub fn write_program(&self, path: &str, text: &str) {
        self.write(path, text);
        fs::set_permissions(self.path(path), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Reads a file.
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|why| panic!("{path}: {why}"))
    }

    /// A command of the host, in the machine's name spaces: what is its root to the machine is /mnt/root to it.
    pub fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--mount", "--net", "--pid", "--target", &self.pid])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LANG", "C.UTF-8")
            .current_dir("/");
        command
    }

    /// A command of the machine.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = self.enter();
        command.args(["chroot", "/mnt/root"]).args(words);
        command
    }

    /// Runs a command of the machine.
    pub fn run(&self, words: &[&str]) -> Said {
        Said::by(&mut self.command(words))
    }

    /// Runs a command that has to succeed.
    pub fn must(&self, words: &[&str]) -> String {
        let said = self.run(words);
        assert!(said.success, "{words:?}\n{}", said.all());
        said.all()
    }

    /// Lays a site out in the machine's tree, which has to succeed; what it said.
    pub fn install(&self, arguments: &[&str]) -> String {
        let said = Said::by(
            self.enter()
                .arg(env!("CARGO_BIN_EXE_camcops-provision"))
                .args(["--root", "/mnt/root", "install", "--yes"])
                .args(arguments),
        );
        assert!(said.success, "install {arguments:?}\n{}", said.all());
        said.all()
    }

    /// A judge of this machine that answers one line at a time.
    pub fn judge(&self, name: &str, arguments: &[&str]) -> Judge {
        let path = format!("/run/judges/{name}");
        Judge::start(self.command(&["python3", &path]).args(arguments))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

/// A judge that answers each line of JSON with one.
pub struct Judge {
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    child: Child,
}

impl Judge {
    /// Starts one.
    pub fn start(command: &mut Command) -> Judge {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|why| panic!("{command:?}: {why}; run tests/run, which installs it"));
        Judge { questions: child.stdin.take(), answers: BufReader::new(child.stdout.take().unwrap()), child }
    }

    /// One of tests/judges, read by the Python of this machine.
    pub fn here(name: &str) -> Judge {
        Judge::start(Command::new("python3").arg(script(name)))
    }

    /// Asks it.
    pub fn ask(&mut self, question: &impl serde::Serialize) -> Value {
        let line = serde_json::to_string(question).unwrap();
        writeln!(self.questions.as_ref().unwrap(), "{line}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).expect("the judge answers in JSON")
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        drop(self.questions.take());
        let _ = self.child.wait();
    }
}

/// One line, often made of what means something to some reader of configuration files.
pub fn nasty() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        6 => prop::sample::select(vec![
            "a", "Z", "0", " ", " ", "  ", "=", ":", "#", ";", " #", " ;", "%", "%%", "%(x)s", "%n", "%i", "$", "$$",
            "$x", "${x}", "$(x)", "`", "\"", "\"\"", "'", "''", "'''", "\\", "\\\\", "\\n", "\\x41", "\\\"", "[", "]",
            "{", "}", "{{", "<", ">", "&", "&amp;", "]]>", "@", "/", ",", "|", "!", "*", "?", "~", "^", "(", ")", "-",
            "+", "é", "ß", "\u{a0}", "\u{2028}", "\u{feff}", "😀",
        ]),
        2 => "[ -~]".prop_map(|one| Box::leak(one.into_boxed_str()) as &str),
        1 => any::<char>().prop_map(|one| Box::leak(one.to_string().into_boxed_str()) as &str),
    ];
    prop_oneof![
        12 => prop::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat()),
        1 => "[ -~]{200,400}",
    ]
}
