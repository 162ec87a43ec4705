//! No secret is told: known ones are planted wherever one can come from, every command is run in every form, and all that
//! comes out is searched: what is said, what is in JSON, what others can read on the disk, names, arguments and environments.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod common;

use camcops_provision::resource::Content;
use common::tier::one_in;
use common::{Entry, HOME, Ran, Staged, Tree, Who, each, give_to, is_root, program};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Part of every planted secret. Letters and digits only, so that no escaping hides it.
const MARK: &str = "Zq7SeCrEt";
/// The group of the services in a tree with accounts.
const SERVICE: u32 = 1033;

/// A secret that is told from the others by where it was planted.
fn secret(place: &str) -> String {
    format!("{MARK}{place}")
}

/// What must not be found.
struct Hunt {
    first: Tree,
    needles: BTreeSet<String>,
}

impl Hunt {
    /// Looks for what was planted in this tree. What stands in it now is the administrator's own affair.
    fn in_(staged: &Staged) -> Hunt {
        let mut hunt = Hunt { first: staged.tree(), needles: BTreeSet::from([MARK.to_owned()]) };
        hunt.learn(staged);
        hunt
    }

    /// Looks also for what was made since: the secrets, the lines of private keys, and the digest of every file that
    /// holds a secret, by which guesses could be tried.
    fn learn(&mut self, staged: &Staged) {
        for (path, entry) in staged.tree().0 {
            let text = String::from_utf8_lossy(&entry.data).into_owned();
            if path.starts_with("/etc/camcops/secrets/") && entry.kind == "file" {
                self.needles.insert(text.trim_end().to_owned());
                self.digest(text.trim_end());
                self.digest(&text);
            }
            if text.contains("PRIVATE KEY") {
                let body = text.lines().filter(|line| !line.starts_with('-'));
                self.needles.extend(body.filter(|line| line.len() > 20).map(str::to_owned));
                self.digest(&text);
            }
        }
        let holders: Vec<String> = staged
            .tree()
            .0
            .into_values()
            .map(|entry| String::from_utf8_lossy(&entry.data).into_owned())
            .filter(|text| self.needles.iter().any(|needle| text.contains(needle)))
            .filter(|text| !text.contains("\"resource\""))
            .collect();
        holders.iter().for_each(|text| self.digest(text));
    }

    fn digest(&mut self, text: &str) {
        let digest = Content::new(text.as_bytes()).digest().to_owned();
        self.needles.insert(digest);
    }

    #[track_caller]
    fn search(&self, text: &str, what: &str) {
        for needle in &self.needles {
            assert!(!text.contains(needle), "{needle} in {what}:\n{text}");
        }
    }

    /// Whoever may not know a secret can't read it from the disk, and nothing is named after one.
    #[track_caller]
    fn search_tree(&self, staged: &Staged, what: &str) {
        let groups: &[u32] = match staged.who {
            Who::Root => &[0, SERVICE],
            Who::Ordinary => &[common::ORDINARY],
        };
        for (path, entry) in staged.tree().0 {
            if self.first.0.get(&path).is_some_and(|first| same(first, &entry)) {
                continue;
            }
            assert!(!path.contains(MARK), "{path} {what}");
            if path.starts_with(&format!("/{HOME}")) {
                let mode = if entry.kind == "directory" { 0o700 } else { 0o600 };
                assert_eq!(entry.mode, mode, "{path} {what}");
            }
            let others = entry.mode & 0o004 != 0 || entry.kind == "symlink";
            let group = entry.mode & 0o040 != 0 && !groups.contains(&entry.gid) && is_root();
            if others || group {
                let text = String::from_utf8_lossy(&entry.data);
                self.search(&text, &format!("{path}, mode {:o}, {what}", entry.mode));
            }
        }
    }

    #[track_caller]
    fn ran(&self, staged: &Staged, ran: &Ran) {
        // The command line itself is not printed: --root and the test's own flags are harmless.
        self.search(&ran.said(), &ran.to_string());
        self.search_tree(staged, &ran.to_string());
    }

    /// Every command that only reads, in every form.
    fn read_everything(&mut self, staged: &Staged) {
        self.learn(staged);
        let out = staged.at("plan.json").display().to_string();
        let flags: [&[&str]; 4] = [&[], &["-v"], &["--json"], &["--color", "always"]];
        let commands: [&[&str]; 14] = [
            &["plan"],
            &["plan", "--diff"],
            &["plan", "--adopt"],
            &["plan", "--diff", "--adopt"],
            &["plan", "--adopt", "--out", &out],
            &["status"],
            &["config", "show"],
            &["config", "show", "--changed"],
            &["config", "validate"],
            &["config", "keys"],
            &["config", "render"],
            &["paths"],
            &["urls"],
            &["completions", "bash"],
        ];
        for command in commands {
            for flags in flags {
                let ran = staged.run(&[flags, command].concat());
                assert!(ran.status.code().is_some_and(|code| code < 100), "{ran}");
                self.ran(staged, &ran);
                if command.contains(&"--out") && ran.status.success() {
                    self.search(&staged.read("plan.json"), "plan --out");
                    fs::remove_file(staged.at("plan.json")).unwrap();
                }
            }
        }
        let shown = staged.run(&["config", "show", "--json"]);
        if shown.status.success() {
            for setting in shown.json()["settings"].as_array().unwrap() {
                let key = setting["key"].as_str().unwrap();
                for flags in [&[][..], &["--json"]] {
                    let ran = staged.run(&[flags, &["config", "get", key]].concat()).exits(0);
                    self.search(&ran.said(), &ran.to_string());
                }
            }
            self.search_tree(staged, "config get");
        }
        let wrong = staged.run(&["config", "render", "no/such/file"]);
        for file in wrong.err.lines().skip(1) {
            let ran = staged.run(&["config", "render", file.trim()]);
            self.ran(staged, &ran);
        }
    }
}

fn same(first: &Entry, now: &Entry) -> bool {
    (first.mode, &first.data) == (now.mode, &now.data)
}

/// Where the passwords come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    /// Files of the administrator that settings name.
    Given,
    /// Files that an earlier installation kept.
    Kept,
    /// Nowhere: they are made.
    Made,
}

#[derive(Debug, Clone, Copy)]
struct Case {
    who: Who,
    from: From,
    /// Whether a camcops.conf with secrets was written by hand before.
    lived_in: bool,
}

impl Case {
    fn all() -> Vec<Case> {
        let mut cases = Vec::new();
        for &who in Who::all() {
            for from in [From::Given, From::Kept, From::Made] {
                // On a tree without anything, an ordinary user meets nothing else than root.
                for lived_in in [false, true] {
                    if lived_in || who == Who::Root {
                        cases.push(Case { who, from, lived_in });
                    }
                }
            }
        }
        cases
    }

    fn tree(self) -> Staged {
        let staged = Staged::of(self.who, "debian").with_accounts();
        let mut settings = SETTINGS.replace("@@", MARK);
        for name in ["cookie", "database", "broker", "monitor"] {
            match self.from {
                From::Given if name != "cookie" => {
                    private(&staged, &format!("root/{name}"), &format!("{}\n", secret(name)));
                    settings.push_str(&format!("[{name}]\npassword_file = \"/root/{name}\"\n"));
                }
                From::Kept => {
                    let path = format!("etc/camcops/secrets/camcops/{name}");
                    private(&staged, &path, &format!("{}\n", secret(name)));
                }
                _ => {}
            }
        }
        private(&staged, "etc/camcops/provision.toml", &settings);
        private(&staged, "etc/camcops/provision.d/mail.toml", &MAIL.replace("@@", MARK));
        if self.lived_in {
            private(&staged, "etc/camcops/camcops.conf", &BY_HAND.replace("@@", MARK));
            // What root alone can read may hold a secret, whatever it is.
            for file in ["etc/apache2/sites-available/camcops.conf", "usr/bin/camcops_server"] {
                private(&staged, file, &format!("AuthLDAPBindPassword {}\n", secret("ldap")));
            }
        }
        staged
    }
}

fn private(staged: &Staged, path: &str, text: &str) {
    staged.write(path, text);
    staged.chmod(path, 0o600);
}

const SETTINGS: &str = r#"
[config.site]
EMAIL_HOST = "mail.example.org"
DB_URL = "mysql+mysqldb://camcops:@@url@db.example.org/camcops"
[config."recipient:x"]
FHIR_APP_SECRET = "@@fhir"
FHIR_LAUNCH_TOKEN = "@@launch"
REDCAP_API_KEY = "@@redcap"
REDCAP_API_URL = "https://me:@@user@redcap.example.org/api?token=@@token"
[config.export]
MY_PASSWORDS = ["@@one", "@@two"]
"#;

const MAIL: &str = "[config.site]\nEMAIL_HOST_PASSWORD = \"@@mail\"\n";

const BY_HAND: &str = "\
# EMAIL_HOST_PASSWORD = @@comment
# the old password: @@prose
# The password was @@spoken
[site]
DB_URL = mysql+mysqldb://camcops:@@/@url@localhost/camcops?passwd=@@parameter
SESSION_COOKIE_SECRET = @@hand==
email_host_password =
    @@first
    @@second

    @@third
EMAIL_HOST_PASWORD = @@misspelt
SMTP_PASS = @@pass
EXTRA_STRING_FILES =
    /srv/one.xml
    https://me:@@list@example.org/two.xml
[sms_backend:twilio]
TOKEN: @@twilio
[sms_backend:kapow]
PASSWORD @@garbage = 1
PASSWORD = @@kapow
";

#[test]
fn no_command_tells_a_secret() {
    each(&one_in(3).of(Case::all()), |case| {
        let staged = case.tree();
        let mut hunt = Hunt::in_(&staged);
        hunt.read_everything(&staged);
        if case.lived_in {
            hunt.ran(&staged, &staged.run(&["install"]).exits(73));
            hunt.ran(&staged, &staged.run(&["install", "--json"]).exits(73));
        }
        let copy = staged.copy();
        hunt.ran(&copy, &copy.run(&["install", "--adopt", "--json"]).exits(0));
        hunt.ran(&staged, &staged.run(&["install", "--adopt", "-v"]).exits(0));
        hunt.read_everything(&staged);
        hunt.search_tree(&staged, "after install");

        // The administrator edits by hand, and things drift.
        let edited = staged
            .read("etc/camcops/camcops.conf")
            .replace("\nEMAIL_HOST_PASSWORD = ", &format!("\nEMAIL_HOST_PASSWORD = {}\n  ", secret("new")))
            .replace("SESSION_COOKIE_SECRET = ", &format!("SESSION_COOKIE_SECRET = {}", secret("old")));
        staged.write("etc/camcops/camcops.conf", &edited);
        staged.write("etc/camcops/camcops.my.cnf", &secret("drift"));
        staged.chmod("etc/camcops/camcops.my.cnf", 0o644);
        if case.from != From::Given {
            private(&staged, "etc/camcops/secrets/camcops/broker", &secret("changed"));
        }
        hunt.first = staged.tree();
        hunt.read_everything(&staged);
        hunt.ran(&staged, &staged.run(&["install", "--adopt", "-v"]).exits(0));
        hunt.ran(&staged, &staged.run(&["install", "--adopt", "-v"]).exits(0).says("nothing to do"));
        hunt.first = Tree(Default::default());
        let password = secret("set");
        for arguments in [
            &["config", "set", "config.site.EMAIL_HOST_PASSWORD", &password][..],
            &["config", "get", "config.site.EMAIL_HOST_PASSWORD"],
            &["config", "unset", "config.site.EMAIL_HOST_PASSWORD"],
            &["config", "set", "config.site.EMAIL_HOST_PASSWORD", "two\nlines"],
            &["config", "set", "config.site.EMAIL_HOST_PASSWRD", &password],
            &["config", "set", "database.password", &password],
            &["config", "set", "database.password_file", &password],
            &["config", "set", "database.host", &password.replace('Z', "Z Z")],
        ] {
            let ran = staged.run(arguments);
            hunt.search(&ran.said(), "config set");
            hunt.search_tree(&staged, "after config set");
        }
        hunt.first = case.tree().tree();
        hunt.ran(&staged, &staged.run(&["uninstall", "-v"]).exits(0));
        hunt.ran(&copy, &copy.run(&["uninstall", "--json"]).exits(0));
        hunt.read_everything(&staged);
    });
}

/// Each of these settings is wrong and has a secret in it.
const WRONG: [&str; 20] = [
    "[config.site]\nEMAIL_HOST_PASSWORD = @@bare\n",
    "[config.site]\nEMAIL_HOST_PASSWORD = \"@@open\n",
    "[config.site]\nEMAIL_HOST_PASSWORD = '@@a'@@b'\n",
    "[config.site]\nEMAIL_HOST_PASSWORD: @@colon\n",
    "[config.site]\nEMAIL_HOST_PASSWORD = \"@@\\x\"\n",
    "[config.site]\nEMAIL_HOST_PASSWORD = \"a\"\nEMAIL_HOST_PASSWORD = \"@@twice\"\n",
    "[config.site]\nEMAIL_HOST_PASSWORD = \"\"\"\n@@lines\n\"\"\"\n",
    "[config.site]\nEMAIL_HOST_PASSWORD = { a = \"@@table\" }\n",
    "[config.site.EMAIL_HOST_PASSWORD]\na = \"@@section\"\n",
    "[config.site]\nEMAIL_HOST_PASSWORD = [\"@@line\\nbreak\"]\n",
    "[config.site]\nEMAIL_HOST_PASSWORD = [[\"@@nested\"]]\n",
    "[config.site]\nemail_host_password = \"@@lower\"\n",
    "[database]\npassword = \"@@key\"\n",
    "password = \"@@outside\"\n",
    "[database]\npassword_file = \"@@path\"\n",
    "[database]\nhost = \"camcops:@@@db.example.org\"\n",
    "[database]\nuser = \"camcops:@@user\"\n",
    "[broker]\nuser = \"camcops:@@user\"\nvhost = \"a @@vhost\"\n",
    "[site]\ninstitution_url = \"https://me:@@url@example.org/\"\n",
    "[web]\nserver_names = [\"https://me:@@name@example.org/\"]\npath = \"@@path\"\n",
];

#[test]
fn no_complaint_about_settings_quotes_a_secret() {
    each(&WRONG, |wrong| {
        let staged = Staged::of(Who::Ordinary, "debian");
        private(&staged, "etc/camcops/provision.toml", &wrong.replace("@@", MARK));
        let hunt = Hunt::in_(&staged);
        for command in [
            &["config", "validate"][..],
            &["config", "show"],
            &["config", "set", "web.workers", "3"],
            &["plan"],
            &["status"],
            &["install"],
        ] {
            for flags in [&[][..], &["--json"]] {
                let ran = staged.run(&[flags, command].concat());
                hunt.ran(&staged, &ran);
            }
        }
        staged.run(&["config", "validate"]).exits(78);
    });
}

#[test]
fn no_complaint_about_a_variable_quotes_a_secret() {
    let staged = Staged::of(Who::Ordinary, "debian");
    let hunt = Hunt::in_(&staged);
    for (name, value, code) in [
        ("CONFIG__SITE__EMAIL_HOST_PASSWORD", secret("fine"), 0),
        ("CONFIG__SITE__EMAIL_HOST_PASSWORD", format!("{}\n", secret("line")), 78),
        ("DATABASE__PASSWORD", secret("key"), 78),
        ("DATABASE__PASSWORD_FILE", secret("path"), 78),
        ("DATABASE__HOST", format!("a:{}@b", secret("host")), 78),
        ("DATABASE__PORT", secret("port"), 78),
    ] {
        for command in [&["config", "validate"][..], &["--json", "config", "show"], &["plan", "--diff"]] {
            let mut command = staged.command(command);
            command.env(format!("CAMCOPS_PROVISION_{name}"), &value);
            hunt.ran(&staged, &Ran::of(command).exits(code));
        }
    }
}

#[test]
fn no_complaint_about_a_secret_file_quotes_it() {
    let texts = [
        String::new(),
        "\n".into(),
        format!("{}\n{}\n", secret("a"), secret("b")),
        format!("{}\u{7}\n", secret("bell")),
        format!("{}\"'\\${{x}} %\n", secret("marks")),
        format!("{}ü\n", secret("umlaut")),
    ];
    for &who in Who::all() {
        for name in ["database", "broker", "monitor", "cookie"] {
            for (text, mode) in texts.iter().flat_map(|text| [(text, 0o600), (text, 0o604)]) {
                for given in [true, false] {
                    if given && name == "cookie" {
                        continue;
                    }
                    let mut staged = Staged::of(who, "debian").with_accounts();
                    let path = match given {
                        true => format!("root/{name}"),
                        false => format!("etc/camcops/secrets/camcops/{name}"),
                    };
                    staged.write(&path, text);
                    staged.chmod(&path, mode);
                    if given {
                        staged = staged.set(&[&format!("{name}.password_file=/root/{name}")]);
                    }
                    let mut hunt = Hunt::in_(&staged);
                    // An empty text is part of any other.
                    hunt.needles.remove("");
                    for command in [&["plan", "--diff"][..], &["--json", "plan"], &["install"], &["--json", "status"]] {
                        let ran = staged.run(command);
                        if given && mode == 0o604 {
                            assert_eq!(ran.status.code(), Some(78), "{ran}");
                        }
                        hunt.ran(&staged, &ran);
                    }
                }
            }
        }
    }
}

#[test]
fn nothing_is_readable_by_others_wherever_the_run_is_cut() {
    let case = Case { who: Who::all()[0], from: From::Kept, lived_in: true };
    let start = case.tree();
    // The parts that hold secrets.
    let install = ["install", "--adopt", "--only", "directories,secrets,certificate,configuration"];
    let numbers: Vec<u32> = (1..200).collect();
    let mut hunt = Hunt::in_(&start);
    let whole = start.copy();
    whole.run(&install).exits(0);
    hunt.learn(&whole);
    each(&one_in(5).of(numbers), |&number| {
        let staged = start.copy();
        let ran = staged.cut("write", number, &install);
        hunt.ran(&staged, &ran);
        let undone = whole.copy();
        let ran = undone.cut("write", number, &["uninstall"]);
        hunt.ran(&undone, &ran);
    });
    let end = start.copy();
    assert!(!end.cut("write", 400, &install).was_cut());
    assert!(!whole.cut("write", 400, &["uninstall"]).was_cut());
}

#[test]
fn a_failure_in_the_middle_tells_no_secret() {
    // Started by a shell, which makes files of more than so many blocks impossible.
    let limited = r#"trap '' XFSZ; ulimit -f "$0"; exec "$@""#;
    let case = Case { who: Who::all()[0], from: From::Kept, lived_in: true };
    for blocks in ["1", "8", "16"] {
        for flags in [&["install", "--yes", "--adopt"][..], &["--json", "install", "--yes", "--adopt"]] {
            let staged = case.tree();
            let hunt = Hunt::in_(&staged);
            let mut command = Command::new("/bin/sh");
            command
                .args(["-c", limited, blocks, env!("CARGO_BIN_EXE_camcops-provision"), "--root"])
                .arg(staged.path())
                .args(flags)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            let ran = Ran::of(command).says("stopped at ");
            assert!(!ran.status.success(), "{ran}");
            hunt.ran(&staged, &ran);
            hunt.ran(&staged, &staged.run(&["install", "--adopt"]).exits(0));
        }
    }
}

#[test]
fn no_process_shows_a_secret_in_its_arguments_or_environment() {
    let case = Case { who: Who::Ordinary, from: From::Given, lived_in: true };
    let hunt = Hunt::in_(&case.tree());
    let mut seen = 0;
    for _ in 0..5 {
        let staged = case.tree();
        let mut child =
            staged.command(&["install", "--adopt"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while child.try_wait().unwrap().is_none() {
            for process in family(child.id()) {
                for what in ["cmdline", "environ"] {
                    let bytes = fs::read(format!("/proc/{process}/{what}")).unwrap_or_default();
                    seen += usize::from(!bytes.is_empty());
                    hunt.search(&String::from_utf8_lossy(&bytes), what);
                }
            }
        }
    }
    assert!(seen > 5, "the runs were too quick to be watched");
}

/// A process and its children.
fn family(process: u32) -> Vec<u32> {
    let mut all = vec![process];
    for task in fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        all.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
    }
    all
}

#[test]
fn waiting_in_vain_tells_no_secret() {
    let directory = common::scratch();
    let file = directory.path().join("provision.toml");
    let mut settings = SETTINGS.replace("@@", MARK);
    settings.push_str(&MAIL.replace("@@", MARK).replace("[config.site]", "[config.server]"));
    for (name, more) in [
        ("database", "mode = 'external'\nhost = '127.0.0.1'\nport = 1\n"),
        ("broker", "mode = 'external'\nhost = '127.0.0.1'\nport = 1\n"),
        ("monitor", ""),
    ] {
        let path = directory.path().join(name);
        fs::write(&path, format!("{}\n", secret(name))).unwrap();
        chmod(&path, 0o600);
        settings.push_str(&format!("[{name}]\npassword_file = '{}'\n{more}", path.display()));
    }
    fs::write(&file, settings).unwrap();
    for flags in [&[][..], &["--json"], &["-v"]] {
        let mut command = program(Who::Root);
        command.arg("--config").arg(&file).args(flags).args(["wait", "--timeout", "0", "--for", "database,broker"]);
        let ran = Ran::of(command).exits(69);
        assert!(!ran.said().contains(MARK), "{ran}");
    }
}

fn chmod(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_setting_that_is_no_secret_is_shown() {
    let staged = Staged::of(Who::Ordinary, "debian");
    staged.write(
        "etc/camcops/provision.toml",
        "[config.site]\nEMAIL_HOST = 'mail.example.org'\nEMAIL_HOST_PASSWORD = 'x'\n\
         [config.'recipient:x']\nREDCAP_API_URL = 'https://me:x@redcap.example.org/'\n",
    );
    for (key, shown) in [
        ("config.site.EMAIL_HOST", "mail.example.org\n"),
        ("config.site.EMAIL_HOST_PASSWORD", "********\n"),
        ("config.recipient:x.REDCAP_API_URL", "https://me:********@redcap.example.org/\n"),
        ("database.password_file", "\n"),
    ] {
        assert_eq!(staged.run(&["config", "get", key]).exits(0).out, shown);
    }
}

/// A cookie secret that does not fit on one line can't be kept in a file of ours, and must not break the next run.
#[test]
fn a_cookie_secret_of_several_lines_stays_where_it_is() {
    let staged = Staged::of(Who::Ordinary, "debian").with_accounts();
    let text = format!("[site]\nSESSION_COOKIE_SECRET = {}\n  {}\n", secret("one"), secret("two"));
    private(&staged, "etc/camcops/camcops.conf", &text);
    let hunt = Hunt::in_(&staged);
    hunt.ran(&staged, &staged.run(&["install", "--adopt", "-v"]).exits(0));
    hunt.ran(&staged, &staged.run(&["install"]).exits(0).says("nothing to do"));
    assert!(staged.read("etc/camcops/camcops.conf").contains(&secret("two")));
}

#[test]
fn the_search_finds_what_is_there() {
    let staged = Staged::empty(Who::Ordinary);
    let hunt = Hunt::in_(&staged);
    let found = |path: &str, mode: u32| {
        staged.write(path, &secret("x"));
        staged.chmod(path, mode);
        let search = std::panic::AssertUnwindSafe(|| hunt.search_tree(&staged, "here"));
        let found = std::panic::catch_unwind(search).is_err();
        fs::remove_file(staged.at(path)).unwrap();
        found
    };
    assert!(found("a", 0o644));
    assert!(found("a", 0o604));
    assert!(!found("a", 0o600));
    assert!(found(&secret("name"), 0o600));
    if is_root() {
        staged.write("group", &secret("x"));
        staged.chmod("group", 0o640);
        hunt.search_tree(&staged, "its own group");
        give_to(&staged.at("group"), 0, 4);
        let search = std::panic::AssertUnwindSafe(|| hunt.search_tree(&staged, "another group"));
        assert!(std::panic::catch_unwind(search).is_err());
    }
}
