//! Builds real releases of CamCOPS in machines of their own, which have no network.

use crate::harness::certificates::Authority;
use crate::harness::{Machine, kill, wheelhouse};
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

const RELEASES: &str = "/usr/share/camcops/releases";
const LOGIN: &str = "mirror:Qz7otter@/word";
const OFFLINE: [&str; 3] = ["--offline", "--wheelhouse", "/srv/wheelhouse"];

struct Said {
    code: i32,
    text: String,
}

impl Said {
    #[track_caller]
    fn is(self, code: i32, words: &[&str]) -> String {
        assert_eq!(self.code, code, "{}", self.text);
        for word in words {
            assert!(self.text.contains(word), "{word:?} is not in {}", self.text);
        }
        for secret in ["Qz7otter", "Qz7otter%40%2Fword"] {
            assert!(!self.text.contains(secret), "{}", self.text);
        }
        self.text
    }
}

fn install(machine: &Machine, settings: &str, arguments: &[&str]) -> Said {
    run(machine, settings, "install", arguments)
}

fn run(machine: &Machine, settings: &str, command: &str, arguments: &[&str]) -> Said {
    machine.write("/etc/camcops/provision.toml", settings, 0o640);
    let mut child = machine.command("camcops-provision");
    child.args([command]).args(arguments);
    if command != "plan" {
        child.arg("--yes");
    }
    if command != "uninstall" {
        child.args(["--only", "directories,application"]);
    }
    let output = child.output().unwrap();
    Said {
        code: output.status.code().unwrap(),
        text: String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr),
    }
}

/// Starts an install and kills it as soon as it says this.
fn killed_at(machine: &Machine, words: &str) {
    let mut child = machine
        .command("camcops-provision")
        .args(["install", "--yes", "--only", "directories,application"])
        .args(OFFLINE)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = Vec::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        said.push(line.unwrap());
        if said[said.len() - 1].contains(words) {
            break;
        }
    }
    let last = said.last().unwrap();
    assert!(last.contains(words), "{words:?} is not in {said:#?}");
    kill(&mut child);
}

fn id(machine: &Machine) -> String {
    let target = machine.run("readlink /usr/share/camcops/venv");
    target.trim().strip_prefix("releases/").unwrap().to_owned()
}

/// What is in the directory of releases.
fn releases(machine: &Machine) -> Vec<String> {
    let names = machine.run(&format!("ls -A {RELEASES}"));
    names.lines().map(str::to_owned).collect()
}

fn works(machine: &Machine) {
    let version = machine.run(
        "cd /; setpriv --reuid=www-data --regid=www-data --clear-groups /usr/share/camcops/venv/bin/camcops_server --version 2>/dev/null",
    );
    assert_eq!(version, "CamCOPS 2.4.24\n");
    machine.run(
        "test -e /usr/share/camcops/static/logo_camcops.png
         test -e /usr/share/camcops/extra_strings/phq9.xml
         test -n \"$(find -L /usr/share/camcops/venv/lib/python3.11/site-packages/camcops_server/__pycache__ -name '*.pyc')\"
         test -z \"$(find /usr/share/camcops/releases -not -type l \\( -not -user root -o -perm /022 -o -not -perm -444 \\))\"
         test ! -e /root/.cache -a ! -e /root/.config",
    );
    let (id, first) = (id(machine), machine.run("head -n 1 /usr/share/camcops/venv/bin/camcops_server"));
    assert_eq!(first, format!("#!{RELEASES}/{id}/bin/python\n"));
    assert_eq!(releases(machine), [id.as_str()]);
    // No file says where it was built, except for bytecode that the interpreter corrects by itself.
    let says = machine.run(&format!("grep -rlF '{id}.new' {RELEASES} || true"));
    assert_eq!(says, "");
}

#[test]
#[ignore = "thorough: builds a release several times"]
fn a_release_survives_being_killed_damaged_and_removed() {
    let Some(machine) = Machine::start(&wheelhouse::BUILDING) else {
        return;
    };
    wheelhouse::put_into(&machine);
    machine.run("mount -o remount,noexec /tmp");

    install(&machine, "", &["--offline"]).is(69, &["(--offline, or dpkg is running)", "--wheelhouse DIR"]);
    install(&machine, "camcops.python = '3.12'", &OFFLINE).is(69, &["Python 3.12", "camcops.python = \"3.11\""]);
    let said = install(&machine, "", &[]).is(69, &["can't be reached", "name resolution"]);
    assert_eq!(said.lines().filter(|line| line.starts_with("error")).count(), 1);
    assert!(said.lines().last().unwrap().starts_with("error"), "{said}");

    killed_at(&machine, "packages with");
    assert!(releases(&machine).iter().all(|name| name.starts_with('.')));
    run(&machine, "", "plan", &[]).is(0, &["finish release 2.4.24+1-py3.11-"]);
    killed_at(&machine, "compiling");
    machine.run("test ! -e /usr/share/camcops/venv");

    // What the check finds keeps a release from becoming current.
    machine.run("cd /usr/lib/x86_64-linux-gnu; mkdir /hidden; mv libMagickWand* /hidden");
    install(&machine, "", &OFFLINE).is(69, &["wand.image can't be loaded", "libmagickwand-6.q16-6"]);
    assert!(releases(&machine).iter().all(|name| name.starts_with('.')));
    machine.run("mv /hidden/* /usr/lib/x86_64-linux-gnu");

    // It has its name, but not everything is cleared up, and no link leads to it.
    killed_at(&machine, "ready after");
    let said = install(&machine, "", &OFFLINE).is(0, &["finish release"]);
    assert!(!said.contains("packages with"), "{said}");
    works(&machine);
    install(&machine, "", &OFFLINE).is(0, &["nothing to do"]);

    machine.run("ln -sfn /nowhere /usr/share/camcops/venv; rm /usr/share/camcops/static");
    let plan = run(&machine, "", "plan", &[]).is(0, &["2 changes pending"]);
    assert!(plan.contains("venv: target /nowhere -> releases/2.4.24"), "{plan}");
    install(&machine, "", &OFFLINE).is(0, &["2 changes made"]);
    works(&machine);

    // As after an upgrade of the distribution.
    let release = id(&machine);
    let status = |script: &str| machine.run(&format!("{script}; camcops-provision status"));
    let gone = status("mv /usr/bin/python3.11 /usr/bin/gone");
    assert!(
        gone.contains(&format!("{release}: the Python that it runs on is gone; run `camcops-provision install`")),
        "{gone}"
    );
    let back = status("mv /usr/bin/gone /usr/bin/python3.11");
    assert!(back.contains(&format!("release      {release}")), "{back}");

    // pip makes the same, in place of what is damaged.
    machine.run(&format!(
        "rm {RELEASES}/{release}/lib/python3.11/site-packages/celery/beat.py; touch {RELEASES}/{release}/stray"
    ));
    run(&machine, "", "plan", &[]).is(0, &["state damaged -> complete", "1 change pending"]);
    install(&machine, "camcops.installer = 'pip'", &OFFLINE).is(0, &["packages with pip"]);
    works(&machine);
    machine.run(&format!("test ! -e {RELEASES}/{release}/stray"));

    machine.run(&format!("mkdir {RELEASES}/mine; touch {RELEASES}/mine/file"));
    run(&machine, "", "uninstall", &[]).is(0, &["not empty"]);
    assert_eq!(releases(&machine), ["mine"]);
    machine.run("test ! -L /usr/share/camcops/venv -a ! -L /usr/share/camcops/static");
}

#[test]
#[ignore = "thorough: builds a release"]
fn the_way_to_the_index_is_the_administrators() {
    let Some(machine) = Machine::start(&wheelhouse::BUILDING) else {
        return;
    };
    let authority = Authority::new("ours");
    wheelhouse::put_into(&machine);
    wheelhouse::serve(&machine, &authority, LOGIN);
    machine.write("/root/ca.pem", &authority.pem, 0o600);
    machine.write("/root/other.pem", &Authority::new("other").pem, 0o600);
    machine.write("/root/login", LOGIN, 0o600);
    machine.write("/root/wrong", "mirror:wrong", 0o600);
    machine.run("mkdir -p /var/lock");
    let settings = |more: &str| format!("network.pip_index_url = 'https://index.test:8443/simple/'\n{more}");
    let ca = "network.ca_bundle = '/root/ca.pem'\n";
    let login = "network.pip_login_file = '/root/login'\n";

    install(&machine, &settings(login), &[]).is(69, &["can't be reached", "certificate"]);
    let other = "network.ca_bundle = '/root/other.pem'\n";
    install(&machine, &settings(&format!("{login}{other}")), &[]).is(69, &["certificate"]);
    let wrong = "network.pip_login_file = '/root/wrong'\n";
    for installer in ["pip", "uv", "auto"] {
        let more = format!("{wrong}{ca}camcops.installer = '{installer}'\n");
        install(&machine, &settings(&more), &[]).is(69, &["login"]);
    }
    let closed = "network.pip_index_url = 'https://index.test:1/simple/'\n";
    install(&machine, closed, &[]).is(69, &["refused"]);

    // One file that is not what it should be.
    machine.run(
        "cd /srv/wheelhouse; cp alabaster-*.whl /srv/good
         python3.11 -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1], \"a\").writestr(\"x\", \"y\")' alabaster-*.whl",
    );
    for installer in ["pip", "uv"] {
        let more = format!("{login}{ca}camcops.installer = '{installer}'\n");
        install(&machine, &settings(&more), &[]).is(65, &["alabaster==0.7.12", "differs from the one"]);
    }
    machine.run("cd /srv/wheelhouse; cp /srv/good alabaster-*.whl; test ! -e /usr/share/camcops/venv");

    // Not enough room.
    machine.run(&format!("mount -t tmpfs -o size=1g small {RELEASES}"));
    let more = format!("{login}{ca}");
    install(&machine, &settings(&more), &[]).is(74, &["1536 MiB", "free some space"]);
    machine.run(&format!("umount {RELEASES}"));

    // Through a proxy that asks for a login too.
    let more = format!(
        "{login}{ca}network.https_proxy = 'http://proxy.test:3128'\nnetwork.proxy_login_file = '/root/login'\n"
    );
    let over = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut seen = String::new();
            while !over.load(Ordering::Relaxed) {
                seen += &machine.run("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' || true");
                std::thread::sleep(std::time::Duration::from_millis(200));
            }
            seen
        });
        let said = install(&machine, &settings(&more), &[]);
        over.store(true, Ordering::Relaxed);
        said.is(0, &["packages with uv"]);
        watch.join().unwrap()
    });
    assert!(seen.contains("--require-hashes") && !seen.contains("Qz7otter"));
    works(&machine);
    machine.run("grep -q index.test:8443 /srv/proxied");
    let says =
        machine.run(&format!("grep -rlF -e Qz7otter -e index.test:8443 {RELEASES} /var/lib/camcops-provision || true"));
    assert_eq!(says, "");
}

/// A tree as somebody works on it, made from the published wheel, with one line of their own.
const OWN_TREE: &str = r#"
mkdir -p /srv/own/tree && cd /srv/own/tree
python3.11 -m zipfile -e /srv/wheelhouse/camcops_server-2.4.24-*.whl .
mv *.dist-info/entry_points.txt /srv/own/; rm -r *.dist-info
{
    echo 'from setuptools import find_packages, setup'
    echo 'import configparser'
    echo 'entries = configparser.ConfigParser(); entries.optionxform = str; entries.read("entry_points.txt")'
    echo 'scripts = [f"{name}={target}" for name, target in entries["console_scripts"].items()]'
    echo 'setup(name="camcops_server", version="2.4.24", packages=find_packages(), package_data={"camcops_server": ["*", "**/*"]}, entry_points={"console_scripts": scripts})'
} > setup.py
mv /srv/own/entry_points.txt .
rm -f /srv/wheelhouse/camcops_server-2.4.24*
"#;

#[test]
#[ignore = "thorough: builds three releases"]
fn a_camcops_of_ones_own_takes_the_place_of_the_published_one() {
    let Some(machine) = Machine::start(&wheelhouse::BUILDING) else {
        return;
    };
    wheelhouse::put_into(&machine);
    machine.run("mkdir -p /var/lock /srv/own; cp /srv/wheelhouse/camcops_server-2.4.24-*.whl /srv/own/");
    machine.run(OWN_TREE);
    let wheel = machine.run("ls /srv/own/*.whl").trim().to_owned();
    let of = |path: &str, more: &str| {
        format!("camcops.source = 'path'\ncamcops.path = '{path}'\ncamcops.wheelhouse = '/srv/wheelhouse'\n{more}")
    };
    let offline = ["--offline"];
    install(&machine, &of("/srv/own/none.whl", ""), &offline)
        .is(69, &["camcops.path: /srv/own/none.whl does not exist"]);
    install(&machine, &of(&wheel, "camcops.version = '2.4.23'\n"), &offline).is(69, &["is CamCOPS 2.4.24"]);
    machine.run("chown www-data /srv/own/tree/camcops_server/__init__.py");
    install(&machine, &of("/srv/own/tree", ""), &offline).is(69, &["can be changed by others", "chown -R root:root"]);
    machine.run("chown root /srv/own/tree/camcops_server/__init__.py");

    install(&machine, &of(&wheel, ""), &offline).is(0, &["CamCOPS from /srv/own/camcops_server-2.4.24"]);
    works(&machine);
    let of_wheel = id(&machine);
    // The tree by either installer, and again when it has changed.
    for (installer, line) in [("uv", "of our own"), ("pip", "of a colleague")] {
        machine
            .run(&format!("cd /srv/own/tree; echo '/* {line} */' > camcops_server/static/own.css; ls > /root/before"));
        let before = id(&machine);
        let settings = of("/srv/own/tree", &format!("camcops.installer = '{installer}'\n"));
        install(&machine, &settings, &offline).is(0, &["CamCOPS from /srv/own/tree"]);
        assert_ne!(id(&machine), before);
        assert_eq!(machine.run("cat /usr/share/camcops/static/own.css"), format!("/* {line} */\n"));
        machine.run("cd /srv/own/tree; ls | diff - /root/before");
        install(&machine, &settings, &offline).is(0, &["nothing to do"]);
    }
    machine.run(&format!("test -e {RELEASES}/{of_wheel}"));
    // One without its data is told.
    machine.run("cd /srv/own/tree; sed -i 's/package_data=[^}]*}, //' setup.py");
    install(&machine, &of("/srv/own/tree", ""), &offline).is(65, &["has no extra_strings", "setup.py sdist --extras"]);
    run(&machine, &of(&wheel, ""), "plan", &[]).is(0, &[&of_wheel]);
}
