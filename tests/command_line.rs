//! The command line as scripts and people meet it: exit codes, JSON, settings, questions, and what it prints about itself.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod common;

use camcops_provision::cli::Cli;
use camcops_provision::layout::{DEBIAN, Layout, SocketMaker};
use camcops_provision::settings;
use clap::CommandFactory;
use common::{Ran, Staged, Who, program, scratch};
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

const SETTINGS: &str = "etc/camcops/provision.toml";

fn staged() -> Staged {
    let staged = Staged::of(Who::Ordinary, "debian");
    staged.write("etc/hostname", "trial.example.org\n");
    staged
}

/// A run whose standard input is a terminal on which this was typed. `^D` at the end says that nothing more comes.
fn typed(mut command: Command, keys: &str) -> Ran {
    let pty = openpty(None, None).unwrap();
    File::from(pty.master.try_clone().unwrap()).write_all(keys.as_bytes()).unwrap();
    command.stdin(Stdio::from(pty.slave));
    Ran::of(command)
}

/// What a run writes to a terminal.
fn on_a_terminal(mut command: Command) -> String {
    let pty = openpty(None, None).unwrap();
    command.stdout(Stdio::from(pty.slave));
    let reader = std::thread::spawn(move || all_of(pty.master));
    Ran::of(command).exits(0);
    reader.join().unwrap()
}

fn all_of(master: OwnedFd) -> String {
    let (mut master, mut bytes) = (File::from(master), Vec::new());
    let mut part = [0; 4096];
    // A terminal that nobody holds any more is an error to its reader, not an end.
    while let Ok(count @ 1..) = master.read(&mut part) {
        bytes.extend_from_slice(&part[..count]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A failure as people and scripts see it: a message on standard error that says what to do, with `--json` the same in a document.
#[track_caller]
fn fails(make: impl Fn() -> Command, code: i32, says: &[&str]) {
    let ran = Ran::of(make()).exits(code);
    assert_eq!(ran.out, "", "standard output is for results: {ran}");
    assert!(ran.err.starts_with("error: "), "{ran}");
    for text in says {
        assert!(ran.err.contains(text), "{text:?} is not in {ran}");
    }
    let mut command = make();
    command.arg("--json");
    let ran = Ran::of(command).exits(code);
    let document = document(&ran);
    assert_eq!(document["exit_code"], code, "{ran}");
    let error = document["error"].as_str().unwrap();
    for text in says {
        assert!(error.contains(text), "{text:?} is not in {ran}");
    }
}

/// The one document of a run with `--json`.
#[track_caller]
fn document(ran: &Ran) -> Value {
    let document = ran.json();
    assert_eq!(document["schema_version"], 1, "{ran}");
    assert!(!ran.out.contains('\x1b'), "{ran}");
    document
}

/// Every command that does something, with its names: `config set` is `["config", "set"]`.
fn commands() -> Vec<(Vec<String>, clap::Command)> {
    fn add(command: &clap::Command, names: &[String], all: &mut Vec<(Vec<String>, clap::Command)>) {
        all.push((names.to_vec(), command.clone()));
        for sub in command.get_subcommands() {
            if !sub.is_hide_set() && sub.get_name() != "help" {
                add(sub, &[names, &[sub.get_name().to_owned()]].concat(), all);
            }
        }
    }
    let mut command = Cli::command();
    command.build();
    let mut all = Vec::new();
    add(&command, &[], &mut all);
    all
}

fn read_repository(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

// Exit codes.

#[test]
fn a_wrong_command_line_is_64() {
    let staged = staged();
    let cases: [(&[&str], &str); 18] = [
        (&["frobnicate"], "--help"),
        (&["plan", "--bogus"], "--help"),
        (&["plan", "-q", "-v"], "--verbose"),
        (&["plan", "--instance", "A-b"], "a lower-case letter"),
        (&["plan", "--only", "nonsense"], "possible values"),
        (&["config", "get", "web.https_prt"], "nearest: web.https_port"),
        (&["config", "get", "config.site.NOTHING"], "config set"),
        (&["config", "render", "nowhere"], "/etc/camcops/camcops.conf"),
        (&["wait"], "without --root"),
        (&["bundle", "verify", "/x"], "without --root"),
        (&["bundle", "create", "--out", "/x"], "without --root"),
        (&["doctor"], "without --root"),
        (&["doctor", "disc"], "nearest: disk"),
        (&["doctor", "--preflight", "--end-to-end"], "cannot be used with"),
        (&["doctor", "--ignore", "disc"], "nearest: disk"),
        (&["install", "--ignore", "memory,disc"], "nearest: disk"),
        (&["db", "upgrade", "--show-sql", "--no-reindex"], "cannot be used with"),
        (&["install", "--rebuild", "--only", "web"], "about the part application"),
    ];
    for (arguments, says) in cases {
        fails(|| staged.command(arguments), 64, &[says]);
    }
    fails(|| staged.command(&["init"]), 64, &["terminal", "config keys"]);
    fails(|| staged.command(&["config", "edit"]), 64, &["terminal", "config set"]);
    fails(|| staged.command(&["install", "--dry-run"]), 64, &["tip: ", "camcops-provision plan"]);
    fails(|| staged.command(&["update"]), 64, &["tip: ", "camcops-provision upgrade"]);
    fails(|| staged.command(&["stauts"]), 64, &["tip: ", "'status'"]);
    let version = staged.run(&["--version"]).exits(0).out;
    assert_eq!(staged.run(&["version"]).exits(0).out, version);
    // Who gives no command at all is shown what there is.
    let ran = Ran::of(program(Who::Ordinary)).exits(64);
    assert!(ran.out.is_empty() && ran.err.contains("Commands:"), "{ran}");
}

#[test]
fn unusable_input_is_65() {
    let staged = staged();
    let nowhere = || {
        let mut command = program(Who::Ordinary);
        command.args(["plan", "--root", "/nowhere/at/all"]);
        command
    };
    fails(nowhere, 65, &["--root /nowhere/at/all", "create the directory first"]);
    let file = staged.at("etc/hostname");
    let no_directory = || {
        let mut command = program(Who::Ordinary);
        command.arg("plan").arg("--root").arg(&file);
        command
    };
    fails(no_directory, 65, &["etc/hostname", "not a directory"]);

    staged.write("srv/site.pem", "nonsense\n");
    staged.write("srv/site.key", "nonsense\n");
    let given = ["--set", "tls.mode=files", "--set", "tls.certificate=/srv/site.pem", "--set", "tls.key=/srv/site.key"];
    fails(|| staged.command(&[&["plan"], &given[..]].concat()), 65, &["srv/site.pem"]);
    fs::remove_file(staged.at("srv/site.pem")).unwrap();
    fails(
        || staged.command(&[&["install"], &given[..]].concat()),
        65,
        &["srv/site.pem", "copy the certificate and its key there"],
    );

    staged.write("etc/camcops/camcops.conf", "[site]\nX = 1\nno key\n");
    fails(|| staged.command(&["install"]), 65, &["etc/camcops/camcops.conf:3", "correct it"]);
}

#[test]
fn pending_changes_are_2_only_if_asked() {
    let staged = staged();
    for command in ["plan", "status"] {
        staged.run(&[command]).exits(0);
        staged.run(&[command, "--exit-code"]).exits(2);
        document(&staged.run(&[command, "--exit-code", "--json"]).exits(2));
    }
    staged.run(&["install"]).exits(0).says("installed: ");
    for command in ["plan", "status"] {
        staged.run(&[command, "--exit-code"]).exits(0);
    }
    staged.run(&["install"]).exits(0).says("nothing to do");
    staged.run(&["uninstall"]).exits(0).says("uninstalled: ");
    staged.run(&["uninstall"]).exits(0).says("nothing to do");
}

#[test]
fn a_distribution_that_is_not_known_is_69_and_its_site_can_still_be_undone() {
    let staged = staged();
    staged.run(&["install"]).exits(0);
    let before = staged.tree().untimed();
    for (os_release, name) in [
        ("ID=debian\nVERSION_ID=\"14\"\nPRETTY_NAME=\"Debian GNU/Linux 14 (forky)\"\n", "Debian GNU/Linux 14 (forky)"),
        ("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\nVERSION_ID=22\nPRETTY_NAME=\"Linux Mint 22\"\n", "Linux Mint 22"),
        ("ID=arch\nPRETTY_NAME=\"Arch Linux\"\n", "Arch Linux"),
        ("", "/etc/os-release does not identify"),
    ] {
        staged.write("etc/os-release", os_release);
        let says = [name, "Debian 12, Debian 13, Ubuntu 22.04", "install CamCOPS on one of them"];
        for command in ["install", "plan"] {
            fails(|| staged.command(&[command]), 69, &says);
            assert_eq!(Ran::of(staged.command(&[command])).err.lines().count(), 1);
        }
        let told = staged.run(&["status"]).exits(0);
        assert!(told.out.contains(name) && !told.out.contains("pending"), "{told}");
    }
    staged.write("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian 12\"\n");
    before.assert_same(&staged.tree().untimed(), "nothing was laid out");
    staged.write("etc/os-release", "ID=arch\n");
    staged.run(&["uninstall", "--yes"]).exits(0).says("uninstalled");
}

#[test]
fn what_is_in_the_way_is_73() {
    let staged = staged();
    staged.write("etc/apache2/sites-available/camcops.conf", "# mine\n");
    fails(|| staged.command(&["install"]), 73, &["etc/apache2/sites-available/camcops.conf", "--adopt"]);
    staged.write(SETTINGS, "");
    fails(|| staged.command(&["init"]), 73, &["provision.toml exists", "config edit"]);
    fails(|| staged.command(&["man", "/dev/null/man"]), 73, &["/dev/null/man"]);
    fails(|| staged.command(&["plan", "--out", "/dev/null/plan"]), 73, &["/dev/null/plan"]);
}

#[test]
fn what_cannot_be_written_is_74_and_what_is_in_the_way_73() {
    let staged = staged();
    staged.write("etc/camcops/provision.d", "");
    fails(|| staged.command(&["plan"]), 73, &["etc/camcops/provision.d", "move it away"]);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut command = staged.command(&["config", "keys"]);
    command.stdout(full);
    Ran::of(command).exits(74).says("error: ");
}

#[test]
fn an_ordinary_user_may_not_change_the_machine() {
    for arguments in [
        &["install"][..],
        &["uninstall"],
        &["init"],
        &["config", "set", "web.https_port", "8443"],
        &["config", "unset", "web.https_port"],
        &["config", "edit"],
    ] {
        let command = || {
            let mut command = program(Who::Ordinary);
            command.args(arguments);
            command
        };
        fails(command, 77, &["only root may", "sudo", "--root DIR"]);
    }
}

// Settings.

#[test]
fn every_wrong_setting_is_told_at_once_with_its_place() {
    let staged = staged();
    staged.write(SETTINGS, "[web]\nhttps_port = 99999\nhttps_prt = 1\n\n[tls]\nmode = \"file\"\n");
    staged.write("etc/camcops/provision.d/20.toml", "[broker]\nmode = 1\n");
    staged.write("etc/camcops/provision.d/10.toml", "[webb]\nx = 1\n");
    staged.write("etc/camcops/provision.d/15.toml", "[web\n");
    let make = |arguments: &[&str]| {
        let mut command = staged.command(arguments);
        command.args(["--set", "site.region=123", "--set", "web.path"]);
        command.env("CAMCOPS_PROVISION_DATABASE__PORT", "none");
        command
    };
    let path = |name: &str| staged.at("etc/camcops").join(name).display().to_string();
    let expected = [
        (path("provision.toml:2"), "web.https_port: ", "allowed: 1 to 65535"),
        (path("provision.toml:3"), "web.https_prt: ", "nearest: web.https_port"),
        (path("provision.toml:6"), "tls.mode: ", "allowed: \"self-signed\", \"local-ca\", \"files\" or \"certbot\""),
        (path("provision.d/10.toml:1"), "webb: ", "nearest: [web]"),
        (path("provision.d/15.toml:1"), "", "is not TOML"),
        (path("provision.d/20.toml:2"), "broker.mode: ", "allowed: \"local\" or \"external\""),
        ("CAMCOPS_PROVISION_DATABASE__PORT".into(), "database.port: ", "allowed: 1 to 65535"),
        ("--set".into(), "site.region: ", "allowed: "),
        ("--set".into(), "web.path: ", "write KEY=VALUE"),
    ];
    for arguments in [&["plan"][..], &["install"], &["status"], &["config", "show"], &["config", "validate"], &["urls"]]
    {
        let ran = Ran::of(make(arguments)).exits(78);
        let lines: Vec<&str> = ran.err.trim_start_matches("error: ").lines().collect();
        assert_eq!(lines.len(), expected.len(), "{ran}");
        for (line, (place, key, what)) in lines.iter().zip(&expected) {
            assert!(line.starts_with(&format!("{place}: {key}")), "{line}\n{place}: {key}");
            assert!(line.contains(what), "{what:?} is not in {line}");
        }
    }
    fails(|| make(&["plan"]), 78, &["web.https_port"]);
    let ran = Ran::of(make(&["config", "validate", "--json"])).exits(78);
    assert_eq!(document(&ran)["problems"].as_array().unwrap().len(), expected.len());
}

#[test]
fn a_missing_settings_file_that_was_named_is_told() {
    let staged = staged();
    fails(|| staged.command(&["plan", "--config", "/nowhere.toml"]), 78, &["--config /nowhere.toml"]);
}

#[test]
fn what_others_can_change_is_not_followed() {
    let staged = Staged::of(Who::Root, "debian");
    staged.write(SETTINGS, "");
    let more = "etc/camcops/provision.d/more.toml";
    let password = "etc/camcops/word";
    staged.write(more, "database.password_file = \"/etc/camcops/word\"");
    staged.write(password, "a-word-of-mine\n");
    let mode = |path: &str, mode| {
        fs::set_permissions(staged.at(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    let owner = |path: &str, user, group| {
        std::os::unix::fs::chown(staged.at(path), Some(user), Some(group)).unwrap();
    };
    mode(password, 0o600);
    staged.run(&["plan"]).exits(0);
    let refused = |path: &str, words: &[&str]| {
        fails(|| staged.command(&["plan"]), 73, &[&[path], words].concat());
    };
    for path in [SETTINGS, more, "etc/camcops/provision.d"] {
        let right = if path.ends_with('d') { 0o755 } else { 0o644 };
        mode(path, right | 0o022);
        refused(path, &["changed by everybody", "`chmod go-w "]);
        mode(path, right | 0o020);
        owner(path, 0, 33);
        refused(path, &["changed by the group", "`chmod g-w "]);
        owner(path, 33, 33);
        mode(path, right);
        refused(path, &["belongs to ", "`chown root:root "]);
        owner(path, 0, 0);
        staged.run(&["plan"]).exits(0);
    }
    owner(password, 33, 33);
    refused(password, &["database.password_file: ", "`chown root:root "]);
    owner(password, 0, 0);
    staged.run(&["plan"]).exits(0);
}

#[test]
fn an_empty_camcops_conf_is_no_wish_for_nothing() {
    let staged = staged();
    staged.run(&["install"]).exits(0);
    staged.write("etc/camcops/camcops.conf", "\n");
    fails(|| staged.command(&["plan"]), 65, &["camcops.conf: it is empty", "move it away"]);
}

#[test]
fn a_question_can_be_left() {
    let staged = staged();
    let terminal = openpty(None, None).unwrap();
    let mut command = staged.asking(&["install"]);
    command.stdin(terminal.slave.try_clone().unwrap()).stdout(Stdio::null()).stderr(terminal.slave);
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut master = File::from(terminal.master);
    let mut told = String::new();
    let mut part = [0; 1024];
    while let Ok(size @ 1..) = master.read(&mut part) {
        let asked = told.contains("? [y/N");
        told += &String::from_utf8_lossy(&part[..size]);
        if !asked && told.contains("? [y/N") {
            kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
        }
    }
    assert_eq!(child.wait().unwrap().code(), Some(1), "{told}");
    assert!(told.contains("nothing was changed"), "{told}");
    assert!(!staged.at("etc/camcops").exists());
}

#[test]
fn the_later_source_wins() {
    let staged = staged();
    let port = |arguments: &[&str], variable: Option<&str>| {
        let mut command = staged.command(&["config", "get", "web.https_port"]);
        command.args(arguments);
        if let Some(value) = variable {
            command.env("CAMCOPS_PROVISION_WEB__HTTPS_PORT", value);
        }
        Ran::of(command).exits(0).out.trim().to_owned()
    };
    assert_eq!(port(&[], None), "443");
    staged.write(SETTINGS, "[web]\nhttps_port = 1001\n");
    assert_eq!(port(&[], None), "1001");
    staged.write("etc/camcops/provision.d/20.toml", "[web]\nhttps_port = 1003\n");
    staged.write("etc/camcops/provision.d/10.toml", "[web]\nhttps_port = 1002\n");
    staged.write("etc/camcops/provision.d/90.toml~", "[web]\nhttps_port = 1009\n");
    assert_eq!(port(&[], None), "1003");
    assert_eq!(port(&[], Some("1004")), "1004");
    assert_eq!(port(&["--set", "web.https_port=1005"], Some("1004")), "1005");
    assert_eq!(port(&["--set", "web.https_port=1005", "--set", "web.https_port=1006"], None), "1006");
    // Another instance has files of its own.
    let other = staged.on("two", &["config", "get", "web.https_port"]).exits(0);
    assert_eq!(other.out, "443\n");
}

/// What shows patients' data or weakens the site is for test sites alone.
#[test]
fn no_debuggers_where_patients_are() {
    let staged = staged();
    for key in ["server.DEBUG_TOOLBAR", "server.SHOW_RESPONSE", "site.DB_ECHO"] {
        let set = format!("config.{key}=true");
        let words = [format!("config.{key}: "), "site.environment is \"production\"".to_owned()];
        fails(|| staged.command(&["plan", "--set", &set]), 78, &words.each_ref().map(String::as_str));
        staged.run(&["plan", "--set", &set, "--set", "site.environment=test"]).exits(0);
    }
}

/// A tracked directory comes before the settings file itself, which `config set` changes.
#[test]
fn included_settings_are_overridden_by_the_file_that_includes_them() {
    let staged = staged();
    let get = |key: &str| staged.run(&["config", "get", key]).exits(0).out.trim().to_owned();
    staged.write("srv/site/10.toml", "[web]\nhttps_port = 1001\nhttp_port = 1081\ntimeout_s = 100\n");
    staged.write("srv/site/20.toml", "[web]\nhttps_port = 1002\nhttp_port = 1082\n");
    staged.write("srv/site/.git.toml", "not TOML");
    staged.write(SETTINGS, "include = ['/srv/site']\n[web]\nhttps_port = 1003\n");
    assert_eq!(
        (get("web.https_port"), get("web.http_port"), get("web.timeout_s")),
        ("1003".into(), "1082".into(), "100".into())
    );
    staged.run(&["config", "set", "web.http_port", "1083"]).exits(0);
    assert_eq!(get("web.http_port"), "1083");
    staged.write("etc/camcops/provision.d/10.toml", "[web]\nhttps_port = 1004\n");
    assert_eq!(get("web.https_port"), "1004");
    let shown = staged.run(&["config", "show", "--changed"]).exits(0);
    assert!(shown.out.contains("web.timeout_s = 100") && shown.out.contains("srv/site/10.toml:4"), "{shown}");
    // A pattern, a file, and what is not there.
    staged.write(SETTINGS, "include = ['/srv/site/1*.toml']\n");
    assert_eq!(get("web.http_port"), "1081");
    staged.write(SETTINGS, "include = ['/srv/site/20.toml', '/srv/site/10.toml']\n");
    assert_eq!(get("web.http_port"), "1081");
    for (text, words) in [
        ("include = ['/srv/none']\n", &["include", "srv/none does not exist"]),
        ("include = ['site/*.toml']\n", &["include", "not an absolute path"]),
        ("include = '/srv/site'\n", &["include", "not a list"]),
    ] {
        staged.write(SETTINGS, text);
        fails(|| staged.command(&["config", "show"]), 78, words);
    }
    staged.write(SETTINGS, "include = ['/srv/site']\n");
    staged.write("srv/site/20.toml", "include = ['/srv/other']\n");
    fails(|| staged.command(&["config", "show"]), 78, &["20.toml:1: include", "only for the settings file itself"]);
}

#[test]
fn a_time_zone_is_one_that_the_machine_knows() {
    let staged = staged();
    let zone = |zone: &str| format!("site.timezone={zone}");
    staged.run(&["plan", "--set", &zone("Nowhere/At_All")]).exits(0);
    // A minimal machine has no package tzdata; the release of CamCOPS has one.
    staged.write("usr/share/camcops/venv/lib/python3.11/site-packages/tzdata/zones", "Europe/Paris\nEtc/UTC\n");
    staged.run(&["plan", "--set", &zone("Europe/Paris")]).exits(0);
    fails(|| staged.command(&["plan", "--set", &zone("Paris")]), 78, &["tzdata/zones", "nearest: Europe/Paris"]);
    staged.write(
        "usr/share/zoneinfo/tzdata.zi",
        "# version 2025b\nZ Europe/London 0 - GMT\nZ Etc/UTC 0 - UTC\nL Etc/UTC UTC\n",
    );
    staged.write("usr/share/zoneinfo/Europe/Berlin", "TZif2");
    for right in ["Europe/London", "UTC", "Europe/Berlin"] {
        staged.run(&["plan", "--set", &zone(right)]).exits(0);
    }
    let words = ["--set: site.timezone: there is no time zone \"Europe/Lodnon\"", "nearest: Europe/London"];
    fails(|| staged.command(&["plan", "--set", &zone("Europe/Lodnon")]), 78, &words);
    fails(|| staged.command(&["plan", "--set", &zone("Europe")]), 78, &["no time zone"]);
    let says = ["provision.toml:2: site.timezone", "nearest: UTC"];
    fails(|| staged.command(&["config", "set", "site.timezone", "utc"]), 78, &says);
    assert!(!staged.at(SETTINGS).exists());
    staged.write(SETTINGS, "[site]\ntimezone = \"utc\"\n");
    let ran = staged.run(&["config", "validate", "--json"]).exits(78);
    assert_eq!(document(&ran)["problems"][0]["nearest"], "UTC", "{ran}");
}

#[test]
fn a_whole_section_is_unset_with_the_files_of_its_secrets() {
    let staged = staged();
    staged.write("root/word", "a-key-of-redcap\n");
    staged.chmod("root/word", 0o600);
    let set = |arguments: &[&str]| staged.run(&[&["config", "set"], arguments].concat()).exits(0);
    set(&["config.recipient:a.REDCAP_API_KEY", "--from-file", "/root/word"]);
    set(&["config.recipient:a.TRANSMISSION_METHOD", "redcap", "config.recipient:b.PUSH", "true", "web.workers", "2"]);
    let kept = || fs::read_dir(staged.at("etc/camcops/secrets/camcops")).unwrap().count();
    assert_eq!(kept(), 1);
    staged.run(&["config", "unset", "config.recipient:a"]).exits(0);
    assert_eq!(kept(), 0);
    let text = fs::read_to_string(staged.at(SETTINGS)).unwrap();
    assert!(!text.contains("recipient:a") && text.contains("recipient:b") && text.contains("workers = 2"), "{text}");
    staged.run(&["config", "unset", "config"]).exits(0);
    staged.run(&["config", "unset", "web"]).exits(0);
    assert_eq!(fs::read_to_string(staged.at(SETTINGS)).unwrap().trim(), "");
    fails(|| staged.command(&["config", "unset", "webb"]), 78, &["webb: unknown"]);
}

#[test]
fn what_somebody_set_is_shown_with_its_place() {
    let staged = staged();
    let every = staged.run(&["config", "show"]).exits(0);
    assert_eq!(every.out.lines().count(), settings::all_keys().len());
    assert_eq!(staged.run(&["config", "show", "--changed"]).exits(0).out, "");
    staged.write(SETTINGS, "\n[web]\nhttps_port = 8443\n[config.site]\nSECRET = \"hushhush\"\n");
    let mut command = staged.command(&["config", "show", "--changed", "--set", "web.path=/x"]);
    command.env("CAMCOPS_PROVISION_SITE__REGION", "DK");
    let ran = Ran::of(command).exits(0);
    let file = staged.at(SETTINGS);
    let expected = [
        format!("web.https_port = 8443  # {}:3", file.display()),
        "web.path = \"/x\"  # --set".to_owned(),
        "site.region = \"DK\"  # CAMCOPS_PROVISION_SITE__REGION".to_owned(),
        format!("config.site.SECRET = ********  # {}:5", file.display()),
    ];
    assert_eq!(ran.out.lines().collect::<Vec<_>>(), expected);
    for arguments in [&["config", "show", "--json"][..], &["config", "get", "config.site.SECRET", "--json"]] {
        let ran = staged.run(arguments).exits(0);
        document(&ran);
        assert!(!ran.out.contains("hushhush"), "{ran}");
    }
}

#[test]
fn a_link_to_the_settings_stays_one_where_nobody_else_can_have_put_it() {
    let staged = staged();
    let elsewhere = SETTINGS.replace("provision.toml", "kept.toml");
    staged.write(&elsewhere, "[tls]\ndays = 90\n");
    std::os::unix::fs::symlink("kept.toml", staged.at(SETTINGS)).unwrap();
    staged.run(&["config", "set", "tls.days", "91"]).exits(0);
    assert_eq!(staged.read(&elsewhere), "[tls]\ndays = 91\n");
    assert!(fs::symlink_metadata(staged.at(SETTINGS)).unwrap().is_symlink());

    let directory = staged.at(SETTINGS);
    let directory = directory.parent().unwrap();
    fs::set_permissions(directory, fs::Permissions::from_mode(0o777)).unwrap();
    let ran = staged.run(&["config", "set", "tls.days", "92"]).exits(73);
    assert!(ran.err.contains("is not followed"), "{ran}");
    assert_eq!(staged.read(&elsewhere), "[tls]\ndays = 91\n");
}

#[test]
fn one_key_is_changed_and_the_rest_stays() {
    let staged = staged();
    let before =
        "# ours\n[web]\nhttp_port = 8080   # the proxy\n# why\nhttps_port = 8443 # tablets\n\n[tls]\ndays = 90\n";
    staged.write(SETTINGS, before);
    staged.run(&["config", "set", "web.https_port", "9443"]).exits(0);
    assert_eq!(staged.read(SETTINGS), before.replace("8443", "9443"));
    staged.run(&["config", "set", "tls.days", "91"]).exits(0);
    staged.run(&["config", "set", "web.server_names", "a.example.org,b.example.org"]).exits(0);
    let got = staged.run(&["config", "get", "web.server_names"]).exits(0);
    assert_eq!(got.out, "[\"a.example.org\", \"b.example.org\"]\n");
    staged.run(&["config", "unset", "web.server_names"]).exits(0);
    assert_eq!(staged.read(SETTINGS), before.replace("8443", "9443").replace("90\n", "91\n"));

    // Once more: nothing to do, and nothing is done.
    let inode = |path: &str| fs::metadata(staged.at(path)).unwrap().ino();
    let now = inode(SETTINGS);
    staged.run(&["config", "set", "web.https_port", "9443"]).exits(0);
    staged.run(&["config", "unset", "web.server_names"]).exits(0);
    assert_eq!(inode(SETTINGS), now);
}

#[test]
fn a_change_that_would_be_wrong_is_refused() {
    let staged = staged();
    staged.write(SETTINGS, "[web]\nhttps_port = 8443\n");
    staged.run(&["plan"]).exits(0);
    let before = staged.tree();
    let cases: [(&[&str], &str); 6] = [
        (&["set", "web.https_prt", "1"], "nearest: web.https_port"),
        (&["set", "web.https_port", "0"], "allowed: 1 to 65535"),
        (&["set", "web.http_port", "8443"], "also web.http"),
        (&["set", "database.mode", "external"], "database.host"),
        (&["set", "database.password", "hushhush"], "password_file"),
        (&["unset", "web.https_prt"], "nearest: web.https_port"),
    ];
    for (arguments, says) in cases {
        fails(|| staged.command(&[&["config"], arguments].concat()), 78, &["provision.toml", says]);
    }
    let ran = staged.run(&["config", "set", "database.password", "hushhush"]);
    assert!(!ran.said().contains("hushhush"), "{ran}");
    before.assert_same(&staged.tree(), "a refused change");
    // A mistake in the file can be taken out by the same way.
    staged.write(SETTINGS, "[web]\nhttps_prt = 8443\n");
    staged.run(&["config", "unset", "web.https_prt"]).exits(0);
    staged.run(&["config", "validate"]).exits(0);
}

#[test]
fn a_changed_file_keeps_its_mode_and_owner_and_a_new_one_is_not_for_everybody() {
    for who in Who::all() {
        let mut staged = staged();
        staged.who = *who;
        staged.write(SETTINGS, "");
        staged.chmod(SETTINGS, 0o604);
        let owner = match who {
            Who::Root => {
                common::give_away(&staged.at(SETTINGS), 0, 64_002);
                (0, 64_002)
            }
            Who::Ordinary => {
                let found = fs::metadata(staged.at(SETTINGS)).unwrap();
                (found.uid(), found.gid())
            }
        };
        staged.run(&["config", "set", "tls.days", "90"]).exits(0);
        let found = fs::metadata(staged.at(SETTINGS)).unwrap();
        assert_eq!((found.uid(), found.gid()), owner);
        assert_eq!(found.mode() & 0o7777, 0o604);
        assert_eq!(staged.read(SETTINGS), "[tls]\ndays = 90\n");
    }
    let staged = staged();
    staged.on("two", &["config", "set", "tls.days", "90"]).exits(0);
    assert!(!staged.at(SETTINGS).exists());
    let file = staged.at("etc/camcops/provision_two.toml");
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o640);
    let names: Vec<_> = fs::read_dir(file.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["provision_two.toml"]);
}

/// A staged tree, and an editor that does what this script says to the file that it is given.
fn edited(before: Option<&str>, script: &str) -> (Staged, Ran) {
    let staged = staged();
    if let Some(before) = before {
        staged.write(SETTINGS, before);
    }
    let editor = staged.beside("editor");
    fs::write(&editor, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&editor, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = staged.command(&["config", "edit"]);
    command.env("EDITOR", format!("/bin/sh {}", editor.display()));
    let ran = typed(command, "");
    (staged, ran)
}

/// The names in the directory of the settings.
fn beside_settings(staged: &Staged) -> BTreeSet<String> {
    let entries = fs::read_dir(staged.at("etc/camcops")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn an_editor_changes_the_settings() {
    let (staged, ran) = edited(Some("# ours\n"), "printf '[tls]\\ndays = 90\\n' >> \"$1\"");
    ran.exits(0);
    assert_eq!(staged.read(SETTINGS), "# ours\n[tls]\ndays = 90\n");
    assert_eq!(beside_settings(&staged).len(), 1);

    // Without a file it begins with every key.
    let (staged, ran) = edited(None, "grep -q '^#https_port = 443$' \"$1\"");
    ran.exits(0);
    assert_eq!(staged.read(SETTINGS), settings::example());
}

#[test]
fn what_an_editor_left_wrong_is_kept_beside_the_settings() {
    for (script, code, says, text) in [
        ("printf '[tls]\\ndys = 90\\n' >> \"$1\"", 78, "nearest: tls.days", "# ours\n[tls]\ndys = 90\n"),
        ("printf 'mine\\n' >> \"$1\"; exit 3", 1, "the editor ended with exit status: 3", "# ours\nmine\n"),
    ] {
        let (staged, ran) = edited(Some("# ours\n"), script);
        let copy = staged.at("etc/camcops/.provision.toml.edit");
        let ran = ran.exits(code).says(says).says(&copy.display().to_string());
        assert!(ran.err.contains("is unchanged"), "{ran}");
        assert_eq!(staged.read(SETTINGS), "# ours\n");
        assert_eq!(fs::read_to_string(copy).unwrap(), text);
        // The next edit goes on from there.
        let mut command = staged.command(&["config", "edit"]);
        command.env("EDITOR", "/bin/sed -i -e s/dys/days/ -e /mine/d");
        typed(command, "").exits(0).says(".provision.toml.edit");
        assert_eq!(staged.read(SETTINGS), text.replace("dys", "days").replace("mine\n", ""));
        assert_eq!(beside_settings(&staged).len(), 1);
    }
}

#[test]
fn an_editor_that_is_not_there_is_named() {
    let staged = staged();
    let mut command = staged.command(&["config", "edit"]);
    command.env("EDITOR", "/nowhere/editor");
    typed(command, "").exits(74).says("/nowhere/editor").says("EDITOR");
    assert!(!staged.at(SETTINGS).exists());
}

#[test]
fn a_file_can_be_seen_before_it_is_written() {
    let staged = staged();
    staged.run(&["install"]).exits(0);
    let written = staged.read("etc/camcops/camcops.conf");
    let shown = staged.run(&["config", "render"]).exits(0).out;
    assert_eq!(shown.lines().count(), written.lines().count());
    let secret = staged.read("etc/camcops/secrets/camcops/cookie");
    assert!(written.contains(secret.trim()) && !shown.contains(secret.trim()));
    let site = staged.run(&["config", "render", "sites-available/camcops.conf"]).exits(0);
    assert_eq!(site.out, staged.read("etc/apache2/sites-available/camcops.conf"));
    staged.run(&["config", "render", "secrets/camcops/cookie"]).exits(64).says("is secret");
    let ran = staged.run(&["config", "render", "--json"]).exits(0);
    assert_eq!(document(&ran)["content"], shown);
}

#[test]
fn the_example_with_every_key_is_right() {
    let staged = staged();
    let example = staged.run(&["config", "keys"]).exits(0).out;
    let uncommented: String = example
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if key.starts_with(|c: char| c.is_ascii_alphabetic()) => format!("{key}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    staged.write(SETTINGS, &uncommented);
    // What it includes has to be there.
    staged.write("srv/site-config/10.toml", "");
    staged.run(&["config", "validate"]).exits(0).says("the settings are valid");
    let shown = staged.run(&["config", "show", "--changed"]).exits(0).out;
    for key in settings::all_keys() {
        assert!(shown.lines().any(|line| line.starts_with(&format!("{} = ", key.name))), "{}", key.name);
    }
}

// Questions.

#[test]
fn enter_alone_takes_every_default() {
    let staged = staged();
    let ran = typed(staged.command(&["init"]), &"\n".repeat(20)).exits(0);
    let written = format!("{} saved; ", staged.at(SETTINGS).display());
    assert!(ran.err.contains(&written), "{ran}");
    assert!(ran.err.contains("[trial.example.org]: "), "{ran}");
    let changed = staged.run(&["config", "show", "--changed", "--json"]).exits(0).json();
    let defaults = settings::Settings::default();
    for entry in changed["settings"].as_array().unwrap() {
        let key = entry["key"].as_str().unwrap();
        match key {
            "web.server_names" => assert_eq!(entry["value"], json!(["trial.example.org"])),
            _ => assert_eq!(entry["value"].as_str(), Some(defaults.get(key).unwrap().trim_matches('"')), "{key}"),
        }
    }
    staged.run(&["install"]).exits(0);
    typed(staged.command(&["init"]), &"\n".repeat(20)).exits(73).says("config edit");
}

#[test]
fn answers_become_settings_and_a_wrong_one_is_asked_again() {
    let staged = staged();
    let answers = "camcops.example.org\n/camcops\nnobody\ncamcops\nexternal\ndb.example.org\n/root/db\n\nfiles\n/a.pem\n/a.key\ntest\n";
    let ran = typed(staged.command(&["init"]), answers).exits(0);
    assert_eq!(ran.err.matches("Account of the services").count(), 2, "{ran}");
    assert!(ran.err.contains("\"auto\" or \"camcops\""), "{ran}");
    let shown = staged.run(&["config", "show", "--changed"]).exits(0).out;
    let given: Vec<&str> = shown.lines().map(|line| line.split("  #").next().unwrap()).collect();
    for expected in [
        "web.server_names = [\"camcops.example.org\"]",
        "web.path = \"/camcops\"",
        "account.user = \"camcops\"",
        "database.mode = \"external\"",
        "database.host = \"db.example.org\"",
        "database.password_file = \"/root/db\"",
        "tls.mode = \"files\"",
        "tls.certificate = \"/a.pem\"",
        "tls.key = \"/a.key\"",
        "site.environment = \"test\"",
    ] {
        assert!(given.contains(&expected), "{expected} is not in {shown}");
    }
    let json = typed(staged.command(&["--instance", "two", "init", "--json"]), &"\n".repeat(20)).exits(0);
    document(&json);
}

#[test]
fn nothing_is_written_if_the_answers_end() {
    let staged = staged();
    let before = staged.tree();
    typed(staged.command(&["init"]), "camcops.example.org\n\x04").exits(1).says("nothing was written");
    // Together these answers are wrong: an external database needs its machine.
    typed(staged.command(&["init"]), &format!("\n\n\nexternal\nlocalhost\n{}", "\n".repeat(20)))
        .exits(78)
        .says("database.host");
    before.assert_same(&staged.tree(), "init without an end");
}

/// A run on a terminal, on which this is typed; its code, and what it says there.
fn answered(staged: &Staged, arguments: &[&str], keys: &str) -> (i32, String) {
    answered_by(staged.asking(arguments), keys)
}

fn answered_by(mut command: Command, keys: &str) -> (i32, String) {
    let pty = openpty(None, None).unwrap();
    File::from(pty.master.try_clone().unwrap()).write_all(keys.as_bytes()).unwrap();
    command.stdin(Stdio::from(pty.slave.try_clone().unwrap())).stderr(Stdio::from(pty.slave));
    let reader = std::thread::spawn(move || all_of(pty.master));
    let ran = Ran::of(command);
    let code = ran.status.code().unwrap();
    (code, format!("{}{}", reader.join().unwrap(), ran.out))
}

#[test]
fn who_says_no_changes_nothing() {
    let staged = staged();
    let before = staged.tree();
    // Whatever is no answer is asked about again, until no more comes.
    for keys in ["\n", "n\n", "No\n", "\x04", "what would go?\n\x04", "ja\nq\nn\n"] {
        let (code, said) = answered(&staged, &["install"], keys);
        assert_eq!(code, 1, "{keys:?}: {said}");
        assert!(said.contains("? [y/N, p = show plan]") && said.contains("nothing was changed"), "{said}");
    }
    let (_, said) = answered(&staged, &["install"], "p\nn\n");
    assert!(said.contains("+ create ") && said.contains("/etc/camcops/camcops.conf"), "{said}");
    before.assert_same(&staged.tree(), "no");
}

#[test]
fn what_removes_needs_more_than_enter() {
    let staged = staged();
    let (code, said) = answered(&staged, &["install"], "yes\n");
    assert_eq!(code, 0, "{said}");
    let installed = staged.tree().untimed();
    let all = "what would go?\ny\nyes\np\nCAMCOPS\n\n";
    for keys in ["\n", "n\n", "\x04", all] {
        let (code, said) = answered(&staged, &["uninstall"], keys);
        assert_eq!(code, 1, "{keys:?}: {said}");
        assert!(said.contains("nothing was changed"), "{said}");
        assert!(keys != all || said.contains("- remove ") && said.contains("/etc/camcops/camcops.conf"), "{said}");
    }
    staged.write(SETTINGS, "[web]\npath = '/other'\n");
    let changed = staged.tree();
    for keys in ["\n", "sure\n\n"] {
        let (code, said) = answered(&staged, &["install"], keys);
        assert_eq!(code, 1, "{keys:?}: {said}");
        assert!(said.contains("? [y/N, p = show plan]"), "{said}");
    }
    changed.assert_same(&staged.tree(), "an answer that is none");
    fs::remove_file(staged.at(SETTINGS)).unwrap();
    installed.assert_same(&staged.tree().untimed(), "no");
    let (code, said) = answered(&staged, &["uninstall"], "camcops\n");
    assert_eq!(code, 0, "{said}");
    assert!(!staged.at("etc/camcops/camcops.conf").exists());
}

#[test]
fn where_nobody_can_be_asked_nothing_is_done_without_yes() {
    let staged = staged();
    let before = staged.tree();
    fails(|| staged.asking(&["install"]), 64, &["--yes", "nothing was changed"]);
    before.assert_same(&staged.tree(), "install");
    staged.run(&["install"]).exits(0);
    let installed = staged.tree();
    fails(|| staged.asking(&["uninstall"]), 64, &["--yes", "nothing was changed"]);
    installed.assert_same(&staged.tree(), "uninstall");
    // Where nothing is to be done there is no question.
    assert_eq!(Ran::of(staged.asking(&["install"])).exits(0).out, "nothing to do\n");
}

#[test]
fn the_page_of_a_site_is_one_file_that_fetches_nothing() {
    let staged = staged();
    let file = staged.at("status.html").display().to_string();
    staged.run(&["install"]).exits(0);
    let said = staged.run(&["status", "--html", &file]).exits(0);
    assert_eq!(said.out, format!("{file} is written\n"));
    let page = fs::read_to_string(&file).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"), "{page}");
    assert!(
        page.contains(">unknown</span>") && page.contains("<th>installed</th>") && page.contains("No samples are kept"),
        "{page}"
    );
    for word in ["<script", "src=", "href=", "url(", "@import", "<link"] {
        assert!(!page.contains(word), "{word}");
    }
    // It takes the place of the one that is there in one step, with its mode.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o604)).unwrap();
    staged.run(&["status", "--html", &file, "--quiet"]).exits(0);
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o604);
    assert!(staged.run(&["status", "--html", "-"]).exits(0).out.starts_with("<!DOCTYPE html>"));
    fails(
        || staged.command(&["status", "--html", "/dev/null/x.html"]),
        73,
        &["--html /dev/null/x.html", "no directory"],
    );
    assert!(staged.run(&["status", "--html", "-", "--json"]).exits(64).err.contains("name a file"));
}

// Output.

#[test]
fn json_is_one_document_from_every_command() {
    let staged = staged();
    let directory = staged.at("man").display().to_string();
    let page = staged.at("status.html").display().to_string();
    let cases: Vec<Vec<&str>> = vec![
        vec!["plan", "--diff", "--color", "always"],
        vec!["install"],
        vec!["status"],
        vec!["status", "--html", &page],
        vec!["doctor", "--list"],
        vec!["paths"],
        vec!["urls"],
        vec!["releases", "list"],
        vec!["config", "show"],
        vec!["config", "get", "web.path"],
        vec!["config", "set", "tls.days", "90"],
        vec!["config", "unset", "tls.days"],
        vec!["config", "validate"],
        vec!["config", "render"],
        vec!["config", "keys"],
        vec!["cert", "show"],
        vec!["cert", "csr"],
        vec!["cert", "csr", "--new-key"],
        vec!["secret", "list"],
        vec!["completions", "bash"],
        vec!["man", &directory],
        vec!["uninstall"],
    ];
    let mut seen = BTreeSet::from(
        [
            "init",
            "wait",
            "config edit",
            // These need a machine that runs.
            "cert install",
            "cert renew",
            "cert verify",
            "backup create",
            "backup list",
            "backup prune",
            "backup restore",
            "backup verify",
            "bundle create",
            "bundle verify",
            "db anonymise",
            "db check",
            "db grant-readonly",
            "db reset",
            "db shell",
            "db upgrade",
            "exec",
            "history",
            "logs",
            "maintenance off",
            "maintenance on",
            "ports",
            "releases prune",
            "releases test",
            "reload",
            "restart",
            "rollback",
            "run",
            "scale",
            "service disable",
            "service enable",
            "secret rotate",
            "shell",
            "start",
            "stats",
            "stop",
            "support-bundle",
            "top",
            "traceback",
            "upgrade",
            "user enable",
            "user reset-password",
            "user superuser",
            // Without advisories it says that there are none.
            "vulnerabilities",
        ]
        .map(str::to_owned),
    );
    for arguments in &cases {
        let ran = staged.run(&[&arguments[..], &["--json"]].concat()).exits(0);
        document(&ran);
        assert_eq!(ran.err, "", "{ran}");
        let words = match arguments[0] {
            "cert" | "config" | "releases" | "secret" => 2,
            _ => 1,
        };
        seen.insert(arguments[..words].join(" "));
    }
    let mut command = staged.command(&["config", "edit", "--json"]);
    command.env("EDITOR", "/bin/true");
    document(&typed(command, "").exits(0));
    let all = commands();
    let leaves = all.iter().filter(|(_, command)| !command.has_subcommands());
    assert_eq!(leaves.map(|(names, _)| names.join(" ")).collect::<BTreeSet<_>>(), seen);
}

#[test]
fn colours_are_for_terminals() {
    let staged = staged();
    let coloured = |arguments: &[&str], environment: &[(&str, &str)]| {
        let mut command = staged.command(&[&["plan"], arguments].concat());
        command.env("TERM", "xterm").envs(environment.iter().copied());
        on_a_terminal(command).contains("\x1b[")
    };
    assert!(coloured(&[], &[]));
    assert!(coloured(&[], &[("NO_COLOR", "")]));
    assert!(!coloured(&[], &[("NO_COLOR", "1")]));
    assert!(!coloured(&[], &[("TERM", "dumb")]));
    assert!(!coloured(&["--color", "never"], &[]));
    assert!(!coloured(&["--json"], &[]));
    assert!(!staged.run(&["plan"]).exits(0).out.contains('\x1b'));
    assert!(staged.run(&["plan", "--color", "always"]).exits(0).out.contains('\x1b'));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let staged = staged();
    for arguments in
        [&["plan", "--diff"][..], &["config", "keys"], &["plan", "--json"], &["paths"], &["--help"], &["install"]]
    {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = staged.command(arguments);
        command.stdout(writer);
        let ran = Ran::of(command).exits(0);
        assert!(!ran.err.contains("error") && !ran.err.contains("panic"), "{ran}");
    }
    staged.run(&["plan", "--exit-code"]).exits(0);
}

#[test]
fn quiet_leaves_results_and_errors_and_verbose_says_more() {
    let staged = staged().set(&["config.site.NO_SUCH_KEY=1"]);
    assert!(staged.run(&["plan"]).exits(0).err.contains("warning: "));
    assert_eq!(staged.run(&["plan", "-q"]).exits(0).err, "");
    let loud = staged.run(&["install"]).exits(0);
    assert!(loud.err.contains("] create "), "{loud}");
    assert!(!loud.out.contains("] create "), "{loud}");
    staged.run(&["uninstall", "-q"]).exits(0);
    let quiet = staged.run(&["install", "-q"]).exits(0);
    assert_eq!(quiet.err, "");
    assert!(quiet.out.starts_with("installed: "), "{quiet}");
    staged.run(&["plan", "-q", "--root", "/nowhere"]).exits(65).says("error: ");

    // A key that somebody changed by hand.
    let config = staged.read("etc/camcops/camcops.conf");
    let line = config.lines().find(|line| line.starts_with("SESSION_TIMEOUT_MINUTES")).unwrap();
    staged.write("etc/camcops/camcops.conf", &config.replace(line, "SESSION_TIMEOUT_MINUTES = 7"));
    let short = staged.run(&["install"]).exits(0);
    let long = staged.run(&["install", "-v"]).exits(0);
    assert!(!short.out.contains("kept: ") && long.out.contains("kept: "), "{short}{long}");
}

// What it prints about the site and about itself.

#[test]
fn every_path_of_the_file_plan_is_shown() {
    for (instance, extra) in [("camcops", &[][..]), ("two", &["--set", "logging.mode=file"])] {
        let staged = staged();
        let ran = staged.on(instance, &[&["paths", "--json"], extra].concat()).exits(0);
        let document = document(&ran);
        let mut expected = Layout::new(&DEBIAN, instance).rows(SocketMaker::Systemd);
        if extra.is_empty() {
            expected.retain(|row| row.path != "/var/log/camcops");
        }
        let (planned, others) = document["paths"].as_array().unwrap().split_at(expected.len());
        assert_eq!(planned, serde_json::to_value(&expected).unwrap().as_array().unwrap());
        let others: Vec<&str> = others.iter().map(|row| row["path"].as_str().unwrap()).collect();
        let settings = match instance {
            "camcops" => "provision",
            _ => "provision_two",
        };
        let ends = [&format!("/{settings}.toml"), &format!("/{settings}.d"), "/var/backups/camcops"];
        assert!(others.iter().zip(ends).all(|(path, end)| path.ends_with(end)), "{others:?}");
        let units = &others[ends.len()..];
        assert!(units.contains(&"/etc/systemd/system/camcops-server@.service"), "{units:?}");
        let text = staged.on(instance, &[&["paths"], extra].concat()).exits(0).out;
        assert_eq!(text.lines().count(), expected.len() + others.len());
        for (line, row) in text.lines().zip(&expected) {
            assert!(line.starts_with(&row.path) && line.contains(row.mode) && line.ends_with(row.purpose), "{line}");
        }
    }
}

#[test]
fn the_addresses_of_the_site() {
    let staged = staged();
    for (given, site) in [
        (&[][..], "https://trial.example.org/"),
        (&["web.server_names=a.example.org,b.example.org"], "https://a.example.org/"),
        (
            &["web.server_names=2001:db8::1", "web.https_port=8443", "web.path=/camcops"],
            "https://[2001:db8::1]:8443/camcops/",
        ),
    ] {
        let mut arguments = vec!["urls"];
        for setting in given {
            arguments.extend(["--set", setting]);
        }
        let text = staged.run(&arguments).exits(0).out;
        assert!(text.starts_with(&format!("site      {site}\ntablets   {site}api\n")), "{text}");
        arguments.push("--json");
        let document = document(&staged.run(&arguments).exits(0));
        assert_eq!(document["site"], site);
        assert_eq!(document["tablets"], format!("{site}api"));
        assert_eq!(document["monitor"], "http://127.0.0.1:5555/");
    }
}

#[test]
fn completions_are_scripts() {
    for shell in ["bash", "zsh", "fish"] {
        let mut command = program(Who::Ordinary);
        command.args(["completions", shell]);
        let script = Ran::of(command).exits(0).out;
        for (names, _) in commands() {
            let name = names.last().map_or("camcops-provision", String::as_str);
            assert!(script.contains(name), "{shell}: {name}");
        }
        // Every Debian has bash; the others are judged where they are.
        let there = shell == "bash" || which::which(shell).is_ok();
        if there {
            let file = scratch();
            let file = file.path().join("script");
            fs::write(&file, &script).unwrap();
            let mut command = Command::new(shell);
            command.arg("-n").arg(&file).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let ran = Ran::of(command).exits(0);
            assert_eq!(ran.said(), "");
        }
    }
}

#[test]
fn every_command_and_every_key_has_its_place_in_the_manual() {
    let staged = staged();
    let directory = staged.at("man");
    staged.run(&["man", &directory.display().to_string()]).exits(0);
    let pages: BTreeSet<String> =
        fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let mut expected = BTreeSet::from(["provision.toml.5".to_owned()]);
    for (names, command) in commands() {
        let name = [&["camcops-provision".to_owned()], &names[..]].concat().join("-");
        let page = fs::read_to_string(directory.join(format!("{name}.8"))).unwrap().replace("\\-", "-");
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            if let Some(long) = argument.get_long() {
                assert!(page.contains(&format!("--{long}")), "{name}: --{long}");
            }
        }
        expected.insert(format!("{name}.8"));
    }
    assert_eq!(pages, expected);
    for page in &pages {
        let mut command = Command::new("groff");
        command.args(["-ww", "-man", "-Tutf8", "-rLL=200n", "-P-cbou"]).arg(directory.join(page));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let ran = Ran::of(command).exits(0);
        assert_eq!(ran.err, "", "{page}");
        if page == "provision.toml.5" {
            for key in settings::all_keys() {
                assert!(
                    ran.out.lines().any(|line| line.split_whitespace().next() == Some(key.short_name())),
                    "{}",
                    key.name
                );
                assert!(ran.out.contains(&key.variable()), "{}", key.name);
            }
        }
    }
}

#[test]
fn everything_has_a_help_text_without_a_period() {
    for (names, command) in commands() {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        assert!(!about.is_empty() && !about.ends_with('.'), "{names:?}: {about:?}");
        for argument in command.get_arguments() {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(!help.is_empty() && !help.ends_with('.'), "{names:?} {}: {help:?}", argument.get_id());
        }
        let mut run = program(Who::Ordinary);
        run.args(&names).arg("--help");
        let ran = Ran::of(run).exits(0);
        assert!(ran.out.contains("Usage: camcops-provision") && ran.err.is_empty(), "{ran}");
    }
}

/// What bash proposes after these words, the last one unfinished.
fn completed(script: &Path, words: &[&str]) -> BTreeSet<String> {
    let ask = r#"source "$0"
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        known=$(complete -p camcops-provision)
        known=${known#* -F }
        "${known%% *}" camcops-provision "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let mut command = Command::new("bash");
    command.args(["--norc", "-c", ask]).arg(script).args(words).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let ran = Ran::of(command).exits(0);
    assert_eq!(ran.err, "", "{ran}");
    ran.out.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_every_word() {
    let mut command = program(Who::Ordinary);
    command.args(["completions", "bash"]);
    let home = scratch();
    let script = home.path().join("completion");
    fs::write(&script, Ran::of(command).exits(0).out).unwrap();
    let proposed = |words: &[&str]| completed(&script, &[&["camcops-provision"], words].concat());
    let backup = proposed(&["backup", ""]);
    for name in ["create", "list", "verify", "restore", "prune"] {
        assert!(backup.contains(name), "{name} is not in {backup:?}");
    }
    let is = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(proposed(&["cert", "re"]), is(&["renew"]));
    assert_eq!(proposed(&["install", "--o"]), is(&["--offline", "--only"]));
    assert_eq!(proposed(&["support-bundle", "--o"]), is(&["--out"]));
    let all = proposed(&[""]);
    assert!(all.contains("install") && all.contains("backup"), "{all:?}");
    for hidden in ["login", "break-locks", "catch-up", "with-environment"] {
        assert!(!all.contains(hidden), "{hidden} is in {all:?}");
    }
    assert!(!proposed(&["install", "--"]).contains("--from-package"));
}

#[test]
fn the_readme_names_the_commands_that_there_are() {
    let readme = read_repository("README.md");
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `"));
    let quoted = |text: &str| -> BTreeSet<String> { text.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let mut named = BTreeSet::new();
    for row in rows {
        let row = format!("`{row}");
        let (first, second) = row.split_once(" | ").unwrap();
        let names = quoted(first);
        for group in
            ["backup", "bundle", "cert", "config", "db", "maintenance", "releases", "secret", "service", "user"]
        {
            if names.contains(group) {
                let subcommands = quoted(second);
                named.extend(subcommands.iter().map(|name| format!("{group} {name}")));
            }
        }
        named.extend(names);
    }
    let there = commands().into_iter().map(|(names, _)| names.join(" ")).filter(|name| !name.is_empty());
    assert_eq!(there.collect::<BTreeSet<_>>(), named);
}

#[test]
fn the_readme_names_scripts_that_there_are() {
    let readme = read_repository("README.md");
    for script in ["packaging/from-source", "tests/run"] {
        assert!(readme.contains(&format!("    {script}\n")) || readme.contains(&format!("&& {script} ")), "{script}");
        let found = fs::metadata(Path::new(env!("CARGO_MANIFEST_DIR")).join(script)).unwrap();
        assert!(found.is_file() && found.mode() & 0o111 == 0o111, "{script}");
    }
}

/// packaging/from-source in a tree of its own, with programs in the place of cargo and of the one that it builds, and as
/// root as far as it can tell.
fn from_source(home: &Path, cargo: &str, arguments: &[&str]) -> Command {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tools = home.join("bin");
    for directory in [&tools, &home.join("packaging")] {
        fs::create_dir_all(directory).unwrap();
    }
    for path in ["packaging/from-source", "Cargo.toml"] {
        fs::copy(repository.join(path), home.join(path)).unwrap();
    }
    let built = "#!/bin/sh\necho \"ran $*\"; [ -t 0 ] || sed 's/^/read /'";
    for (name, text) in [
        (
            "cargo",
            format!(
                "[ \"$1\" = build ] || {{ echo 'cargo {cargo} (2026-01-01)'; exit; }}\necho \"cargo $*\" >&2; mkdir -p target/release\ncat > target/release/camcops-provision <<'EOF'\n{built}\nEOF\nchmod +x target/release/camcops-provision"
            ),
        ),
        ("rustc", "echo 'rustc 1.95.0 (2026-01-01)'".to_owned()),
        ("rustup", String::new()),
        ("cc", String::new()),
        ("id", "echo 0".to_owned()),
        // Nothing is put into /usr/bin.
        ("dpkg-query", String::new()),
    ] {
        fs::write(tools.join(name), format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(tools.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new(home.join("packaging/from-source"));
    command.args(arguments).current_dir(home).env("PATH", format!("{}:/usr/bin:/bin", tools.display()));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn an_old_toolchain_is_told_with_what_to_do() {
    let home = scratch();
    for old in ["1.75.0", "1.9.0", "1.87.2"] {
        let ran = Ran::of(from_source(home.path(), old, &["plan"])).exits(69);
        assert!(
            ran.err.contains(&format!("cargo {old} is too old")) && ran.err.contains("rustup update stable"),
            "{ran}"
        );
        assert!(!ran.err.contains("cargo build"), "{ran}");
    }
    for new in ["1.88.0", "1.100.0", "2.0.0-nightly"] {
        let ran = Ran::of(from_source(home.path(), new, &["plan"])).exits(0);
        // Its progress is to be seen.
        assert!(ran.err.contains("cargo build --release --locked") && !ran.err.contains("--quiet"), "{ran}");
        assert!(ran.out.starts_with("ran plan\n"), "{ran}");
    }
}

#[test]
fn what_is_built_first_asks_before_it_builds() {
    let home = scratch();
    let asked = |arguments: &[&str], keys: &str| {
        let (code, said) = answered_by(from_source(home.path(), "1.95.0", arguments), keys);
        (code, said.replace('\r', ""))
    };
    for keys in ["\n", "no\n", "\x04", "what?\n\x04", "y\nanna\nlong enough\n\x04"] {
        let (code, said) = asked(&["install"], keys);
        assert!(code == 1 && said.contains("nothing was changed") && !said.contains("cargo build"), "{keys:?}: {said}");
    }
    let (code, said) = asked(&["install"], "y\nan na\nanna\nshort\nlong enough\nother one\nlong enough\nlong enough\n");
    assert_eq!(code, 0, "{said}");
    let (before, after) = said.split_once("cargo build").unwrap();
    assert!(before.contains("Name of the first superuser") && before.contains("the two passwords differ"), "{said}");
    // Whoever looks at the processes of the machine does not see it.
    assert!(
        after.contains("ran install --superuser anna --superuser-password-file - --yes\nread long enough"),
        "{said}"
    );
    for (arguments, keys, ran) in [
        (&["install"][..], "y\n\n", "ran install --yes\n"),
        (&["--root", "x", "install"], "y\n", "ran --root x install --yes\n"),
        // The program asks itself.
        (&["install"], "p\n", "ran install\n"),
        (&["install", "--yes"], "", "ran install --yes\n"),
        (&["--set", "install", "plan"], "", "ran --set install plan\n"),
    ] {
        let (code, said) = asked(arguments, keys);
        assert!(code == 0 && said.contains(ran), "{arguments:?}: {said}");
    }
}

#[test]
fn a_plan_that_was_agreed_to_is_carried_out_or_refused() {
    let staged = staged();
    // The tree lies in a directory of its owner.
    let file = staged.at("agreed.json");
    let file = file.to_str().unwrap();
    staged.run(&["plan", "--out", file]).exits(0);
    let before = staged.tree();
    fails(|| staged.command(&["install", "--yes", "--plan", "/nowhere"]), 65, &["--plan /nowhere", "No such file"]);
    let other = staged.beside("other.json");
    fs::write(&other, "{\"instance\": \"other\"}").unwrap();
    fails(|| staged.command(&["install", "--yes", "--plan", other.to_str().unwrap()]), 65, &["instance camcops"]);
    // Another setting is another plan.
    let set = ["install", "--yes", "--plan", file, "--set", "web.timeout_s=77"];
    fails(|| staged.command(&set), 1, &["have changed since", "nothing was changed", "--out"]);
    before.assert_same(&staged.tree(), "a plan that was refused");
    staged.run(&["install", "--yes", "--plan", file]).exits(0);
    // It is done: the same plan is none any more.
    fails(|| staged.command(&["install", "--yes", "--plan", file]), 1, &["no longer due"]);
}

#[test]
fn a_plan_is_told_by_part_and_says_what_it_comes_to() {
    let staged = staged();
    let plan = staged.run(&["plan"]).exits(0).out;
    assert!(plan.lines().any(|line| line.starts_with("directories: ")), "{plan}");
    let lines =
        |plan: &str, what: &str| plan.lines().filter(|line| line.starts_with("+ ") && line.contains(what)).count();
    // What is above another new directory goes without saying, but for who asks.
    assert_eq!(lines(&plan, "/usr/share/camcops/ "), 0, "{plan}");
    let all = staged.run(&["--verbose", "plan"]).exits(0).out;
    assert_eq!(lines(&all, "/usr/share/camcops/ "), 1, "{all}");
    assert!(all.lines().count() > plan.lines().count());
}

/// A key of CamCOPS whose value is a secret.
const MAIL_PASSWORD: &str = "config.site.EMAIL_HOST_PASSWORD";

#[test]
fn a_secret_is_never_an_argument() {
    let staged = staged();
    let url = "mysql://camcops:hushhush@db.example.org/camcops";
    for (key, value) in [
        (MAIL_PASSWORD, "hushhush"),
        ("config.recipient:x.REDCAP_API_KEY", "hushhush"),
        ("config.sms_backend:twilio.TOKEN", "hushhush"),
        ("config.site.DB_URL", url),
    ] {
        let words = [key, "is a secret", "--from-file"];
        fails(|| staged.command(&["config", "set", key, value]), 64, &words);
        let assigned = format!("{key}={value}");
        let plan = Ran::of(staged.command(&["plan", "--set", &assigned])).exits(64);
        assert!(plan.err.contains("is a secret"), "{plan}");
        assert!(!plan.said().contains("hushhush"), "{plan}");
    }
    assert!(!staged.at(SETTINGS).exists());
    // A URL without a password is none, and a file is for secrets alone.
    let plain = "mysql:///camcops?read_default_file=/etc/my.cnf";
    staged.run(&["config", "set", "config.site.DB_URL", plain]).exits(0);
    let by_file = "config.site.EMAIL_HOST_file";
    staged.run(&["config", "set", by_file, "/root/x"]).exits(0);
    fails(|| staged.command(&["plan"]), 78, &[by_file, "EMAIL_HOST is not one"]);
    fails(|| staged.command(&["config", "set", "tls.days", "--from-file", "/root/x"]), 64, &["tls.days is not one"]);
    fails(|| staged.command(&["config", "set", MAIL_PASSWORD]), 64, &["run on a terminal"]);
    let elsewhere = "config.\"../../../etc/cron.d/x\".PASSWORD";
    staged.write("root/word", "hush\n");
    staged.chmod("root/word", 0o600);
    staged.run(&["config", "set", elsewhere, "--from-file", "/root/word"]).exits(78);
    assert!(!staged.at("etc/cron.d").exists());
}

#[test]
fn a_secret_is_kept_for_root_alone_and_nowhere_else() {
    let staged = staged();
    let (word, kept) = ("root/word", "etc/camcops/secrets/camcops/site.EMAIL_HOST_PASSWORD");
    let put = |secret: &str| {
        staged.write(word, secret);
        staged.chmod(word, 0o600);
        staged.run(&["config", "set", MAIL_PASSWORD, "--from-file", "/root/word"]).exits(0);
        staged.run(&["install"]).exits(0);
        fs::remove_file(staged.at(word)).unwrap();
    };
    let conf = || staged.read("etc/camcops/camcops.conf");
    staged.write(SETTINGS, "[config.site]\nEMAIL_HOST_PASSWORD = \"hush-open\"\n");
    let plan = staged.run(&["plan"]).exits(0);
    let words = format!("{MAIL_PASSWORD}: this secret is in plain text in ");
    assert!(plan.err.contains(&words), "{plan}");
    staged.run(&["install"]).exits(0);
    assert!(conf().contains("EMAIL_HOST_PASSWORD = hush-open\n"));
    // In its file it is not seen, and what was merged before goes on to be.
    put("100% hush-first\n");
    assert_eq!(staged.read(kept), "100% hush-first\n");
    let mode = fs::metadata(staged.at(kept)).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let settings = staged.read(SETTINGS);
    assert_eq!(settings, format!("[config.site]\nEMAIL_HOST_PASSWORD_file = \"/{kept}\"\n"));
    assert!(conf().contains("EMAIL_HOST_PASSWORD = 100%% hush-first\n"));
    let plan = staged.run(&["plan", "--exit-code"]).exits(0);
    assert!(!plan.err.contains("plain text"), "{plan}");
    let edited = conf().replace("SESSION_TIMEOUT_MINUTES = 30", "SESSION_TIMEOUT_MINUTES = 7");
    staged.write("etc/camcops/camcops.conf", &edited);
    put("hush-second\n");
    assert_eq!(conf(), edited.replace("100%% hush-first", "hush-second"));
    put("hush-third\n");
    assert_eq!(conf(), edited.replace("100%% hush-first", "hush-third"));
    let cookie = staged.read("etc/camcops/secrets/camcops/cookie");
    for (path, entry) in staged.tree().0 {
        let text = String::from_utf8_lossy(&entry.data);
        let holds_it = text.contains("hush-") || text.contains(cookie.trim());
        let may = path.starts_with("/etc/camcops/");
        assert!(may || !holds_it, "{path}: {text}");
    }
    let shown = staged.run(&["config", "get", &format!("{MAIL_PASSWORD}_file")]);
    assert_eq!(shown.exits(0).out, format!("/{kept}\n"));
    let told = staged.run(&["config", "get", MAIL_PASSWORD]).exits(64);
    assert!(told.err.contains(&format!("/{kept}")), "{told}");
    staged.run(&["config", "unset", MAIL_PASSWORD]).exits(0);
    assert!(!staged.at(kept).exists());
    staged.run(&["install"]).exits(0);
    assert!(!conf().contains("hush-"));
}

#[test]
fn secrets_that_an_earlier_version_kept_beside_the_journal_go() {
    let mut staged = staged();
    staged.run(&["install"]).exits(0);
    let path = "etc/camcops/camcops.conf";
    let first = staged.read(path);
    let contents = format!("{}/camcops/contents", common::HOME);
    let digest = |text: &str| {
        let content = camcops_provision::resource::Content::new(text.as_bytes());
        content.digest().to_owned()
    };
    // As it was kept: what the settings alone made, and what that took the place of.
    let old = first.replace("SESSION_COOKIE_SECRET = ", "SESSION_COOKIE_SECRET = old");
    fs::remove_dir_all(staged.at(&contents)).unwrap();
    for text in [first.as_str(), &old, "# nobody's secret\n"] {
        let kept = format!("{contents}/{}", digest(text));
        staged.write(&kept, text);
        staged.chmod(&kept, 0o600);
    }
    staged.chmod(&contents, 0o700);
    let edited = first.replace("SESSION_TIMEOUT_MINUTES = 30", "SESSION_TIMEOUT_MINUTES = 7");
    staged.write(path, &edited);
    staged.settings = vec!["site.language=da_DK".into()];
    staged.run(&["install"]).exits(0);
    assert_eq!(staged.read(path), edited.replace("LANGUAGE = en_GB", "LANGUAGE = da_DK"));
    let cookie = staged.read("etc/camcops/secrets/camcops/cookie");
    let kept = staged.tree().0;
    let kept = kept.iter().filter(|(path, _)| path.contains("/contents/"));
    let texts: Vec<String> = kept.map(|(_, entry)| String::from_utf8_lossy(&entry.data).into_owned()).collect();
    assert!(texts.iter().all(|text| !text.contains(cookie.trim())), "{texts:?}");
    assert!(texts.iter().any(|text| text == "# nobody's secret\n"), "{texts:?}");
}

#[test]
fn an_engine_of_pdf_documents_that_a_release_does_not_have_is_69() {
    let staged = staged();
    staged.write("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=Debian\n");
    let before = staged.tree().untimed();
    for (settings, why) in [
        (["camcops.version=2.4.24", "site.pdf_engine=weasyprint"], "which is not part of CamCOPS 2.4.24"),
        (["camcops.hardening=off", "site.pdf_engine=weasyprint"], "camcops.hardening = \"auto\""),
    ] {
        let install = || {
            let mut command = staged.command(&["install"]);
            command.args(settings.iter().flat_map(|setting| ["--set", *setting]));
            command
        };
        fails(install, 69, &["site.pdf_engine asks for WeasyPrint", why]);
        before.assert_same(&staged.tree().untimed(), "nothing was laid out");
    }
}

// Advisories.

/// A staged machine whose release has one package, and Debian's openssl.
fn with_release() -> Staged {
    let staged = staged();
    staged.write("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=Debian\n");
    let site = "usr/share/camcops/releases/2.4.24-py3.11-abcd/lib/python3.11/site-packages";
    staged.write(&format!("{site}/pypdf-6.6.0.dist-info/METADATA"), "Name: pypdf\nVersion: 6.6.0\n");
    std::os::unix::fs::symlink("releases/2.4.24-py3.11-abcd", staged.at("usr/share/camcops/venv")).unwrap();
    staged.write(
        "var/lib/dpkg/status",
        "Package: libssl3\nStatus: install ok installed\nSource: openssl\nVersion: 3.0.15-1\n",
    );
    staged
}

fn advisory(id: &str, ecosystem: &str, package: &str, fixed: &str, modified: &str) -> String {
    json!({
        "id": id,
        "modified": modified,
        "summary": "a flaw\u{1b}[31m",
        "affected": [{
            "package": { "ecosystem": ecosystem, "name": package },
            "ranges": [{ "type": "ECOSYSTEM", "events": [{ "introduced": "0" }, { "fixed": fixed }] }],
        }],
    })
    .to_string()
}

#[test]
fn what_is_open_is_told_and_what_is_not_known_is_not_clean() {
    let staged = with_release();
    let home = scratch();
    let file = home.path().join("advisories.jsonl");
    let run = |text: &str, flags: &[&str], code| {
        fs::write(&file, text).unwrap();
        let arguments = ["vulnerabilities", "--advisories", file.to_str().unwrap()];
        staged.run(&[&arguments[..], flags].concat()).exits(code)
    };
    let before = staged.tree();
    fails(
        || staged.command(&["vulnerabilities"]),
        69,
        &["there are no advisories", "/var/lib/camcops-provision/advisories"],
    );
    let now = time::OffsetDateTime::now_utc().format(&time::format_description::well_known::Rfc3339).unwrap();
    let others = [
        advisory("RUSTSEC-1", "crates.io", "serde_json", "0.1.0", &now),
        advisory("DEBIAN-CVE-1", "Debian:12", "openssl", "3.0.14-1", &now),
    ]
    .join("\n");
    let clean = run(&format!("{others}\n{}", advisory("GHSA-1", "PyPI", "pypdf", "6.6.0", &now)), &[], 0);
    assert!(
        clean.out.contains("clean: no advisory is open") && clean.out.contains("Python packages: 1, 0 open"),
        "{clean}"
    );

    let open =
        [advisory("GHSA-1", "PyPI", "pypdf", "99", &now), advisory("DSA-2", "Debian:12", "openssl", "3.0.15-2", &now)];
    let open = format!("{others}\n{}", open.join("\n"));
    let told = run(&open, &[], 1);
    for words in [
        "pypdf 6.6.0 GHSA-1: a flaw",
        "openssl 3.0.15-1 DSA-2: a flaw",
        "fix: `apt-get install --only-upgrade libssl3` (fixed in 3.0.15-2)",
        "open: 2 advisories",
    ] {
        assert!(told.out.contains(words), "{words}: {told}");
    }
    assert!(!told.out.contains('\u{1b}'), "{told}");
    let told = document(&run(&open, &["--json"], 1));
    assert_eq!((&told["state"], &told["kinds"][0]["open"]), (&json!("open"), &json!(1)));
    assert_eq!(told["advisories"][1]["ending"]["command"], "apt-get install --only-upgrade libssl3");

    let old =
        run(&format!("{others}\n{}", advisory("GHSA-1", "PyPI", "pypdf", "6.6.0", "2024-01-01T00:00:00Z")), &[], 69);
    assert!(old.out.contains("unknown: advisories for the Python packages are "), "{old}");
    let lacking = run(&others, &[], 69);
    assert!(lacking.out.contains("unknown: no advisories for the Python packages"), "{lacking}");
    let told = run("{\"id\": \"A\"}\n{\"id\": ", &[], 65);
    assert!(told.err.contains("advisories.jsonl:2:7: EOF while parsing a value"), "{told}");
    before.assert_same(&staged.tree(), "vulnerabilities");
}
