//! The Debian package in a bare Debian without a network, where policy-rc.d lets nothing be started.

use crate::harness::Machine;
use crate::harness::tier::leave_out;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

const PASSWORD: &str = "Pa55-of-the-database";
const INSTALL: &str = "dpkg --force-unsafe-io -i /root/package.deb 2>&1";
/// What nobody promises to leave as it was.
const FILES: &str = "find / -xdev \\( -path /proc -o -path /tmp -o -path /var/lib/dpkg -o -path /var/log \
    -o -path /var/cache/debconf \\) -prune -o -printf '%p %M %u %l\\n' | sort";
const EXTERNAL: &str = "install boolean true\nserver-name string camcops.example.org\n\
    database-mode select external\ndatabase-host string db.example.org\n";

/// The package around the program under test; what it takes to build it belongs to the tests.
pub static PACKAGE: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let missing: Vec<&str> = ["dh", "po2debconf", "lintian", "piuparts", "python3"]
        .into_iter()
        .filter(|program| which::which(program).is_err())
        .collect();
    if !missing.is_empty() {
        leave_out(&format!("no {missing:?}"));
        return None;
    }
    Some(build("package"))
});

fn build(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&directory);
    let built = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/build-deb"))
        .args(["--binary", env!("CARGO_BIN_EXE_camcops-provision")])
        .arg(&directory)
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(built.success());
    let mut made = fs::read_dir(&directory).unwrap();
    made.next().unwrap().unwrap().path()
}

/// A machine with the package lying in it, and nothing else of ours.
fn machine() -> Option<Machine> {
    PACKAGE.as_ref()?;
    let machine = Machine::start(&["debconf"])?;
    put_package(&machine);
    forbid(&machine);
    Some(machine)
}

/// Puts the package there instead of the program.
pub fn put_package(machine: &Machine) {
    machine.run("umount /usr/bin/camcops-provision; rm /usr/bin/camcops-provision");
    fs::copy(PACKAGE.as_ref().unwrap(), machine.path("/root/package.deb")).unwrap();
}

/// Answers questions before they are asked.
pub fn preseed(machine: &Machine, answers: &str) {
    for answer in answers.lines() {
        machine.run(&format!("echo 'camcops-provision camcops-provision/{answer}' | debconf-set-selections"));
    }
}

/// Lets nothing be started.
pub fn forbid(machine: &Machine) {
    machine.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755);
}

/// Nobody forbids to start anything.
pub fn allow(machine: &Machine) {
    machine.run("rm /usr/sbin/policy-rc.d");
}

pub fn dpkg(machine: &Machine, command: &str) -> String {
    machine.run(&format!("export DEBIAN_FRONTEND=noninteractive\n{command}"))
}

pub fn state(machine: &Machine) -> String {
    machine.run("dpkg-query --show --showformat='${db:Status-Abbrev}' camcops-provision")
}

pub fn pending(machine: &Machine) -> String {
    machine.run("cat /var/lib/camcops-provision/pending 2>/dev/null || true")
}

#[test]
fn it_is_what_debian_expects_and_comes_out_the_same_each_time() {
    let Some(package) = PACKAGE.as_ref() else {
        return;
    };
    let again = build("package-again");
    assert!(fs::read(package).unwrap() == fs::read(again).unwrap());
    let lintian = Command::new("lintian")
        .args(["--pedantic", "--fail-on", "error,warning,pedantic"])
        .arg(package)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&lintian.stdout);
    assert!(lintian.status.success(), "{said}");
}

/// What is carried to a machine without a network can be checked there.
#[test]
fn the_offline_set_is_signed_and_every_change_is_noticed() {
    if PACKAGE.is_none() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let set = home.path().join("set");
    let script = |script: &str| {
        Command::new("bash")
            .args(["-euc", script])
            .env("GNUPGHOME", home.path())
            .env("SET", &set)
            .env("BINARY", env!("CARGO_BIN_EXE_camcops-provision"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let made = script(
        "gpg --batch --quiet --passphrase '' --quick-generate-key tester@example.org
         packaging/offline-set --binary \"$BINARY\" --sign tester@example.org \"$SET\"",
    );
    assert!(made.status.success(), "{made:?}");
    const CHECK: &str =
        "cd \"$SET\" && gpg --verify SHA256SUMS.asc SHA256SUMS && sha256sum --check --strict SHA256SUMS";
    let checked = script(CHECK);
    assert!(checked.status.success(), "{checked:?}");
    let parts = script("cat \"$SET\"/*.cdx.json").stdout;
    let parts: serde_json::Value = serde_json::from_slice(&parts).unwrap();
    let names = parts["components"].as_array().unwrap();
    assert!(names.iter().any(|part| part["name"] == "tokio"), "{parts}");
    for damage in ["*.deb", "*.cdx.json", "SHA256SUMS", "SHA256SUMS.asc"] {
        let noticed = script(&format!(
            "cd \"$SET\"; cp -r . ../kept; truncate --size=-100 $(echo {damage})
             code=0; ({CHECK}) || code=$?
             rm -r \"$SET\"; mv ../kept \"$SET\"; exit $code"
        ));
        assert!(!noticed.status.success(), "{damage}");
    }
    script("gpgconf --kill all");
}

#[test]
fn without_answers_nothing_is_installed_and_a_purge_leaves_nothing() {
    let Some(machine) = machine() else { return };
    let before = machine.run(FILES);
    let said = dpkg(&machine, INSTALL);
    assert!(said.contains("CamCOPS itself is not installed yet"), "{said}");
    assert_eq!(state(&machine), "ii ");
    machine.run("camcops-provision --version; test ! -e /etc/camcops; test ! -e /var/lib/camcops-provision");
    // The same again is what an upgrade does.
    dpkg(&machine, INSTALL);
    assert_eq!(state(&machine), "ii ");
    dpkg(&machine, "dpkg --remove camcops-provision 2>&1");
    dpkg(&machine, "dpkg --purge camcops-provision 2>&1");
    assert_eq!(machine.run(FILES), before);
    let left = machine.run("debconf-show camcops-provision; ls /var/lib/dpkg/info | grep camcops || true");
    assert_eq!(left, "");
}

#[test]
fn answers_become_settings_and_what_cannot_be_done_yet_is_pending() {
    let Some(machine) = machine() else { return };
    let before = machine.run(FILES);
    preseed(
        &machine,
        &format!(
            "{EXTERNAL}database-password password {PASSWORD}\nsuperuser-name string admin\nsuperuser-password password {PASSWORD}\n"
        ),
    );
    let said = dpkg(&machine, INSTALL);
    let pending_lines = said.lines().filter(|line| line.contains("pending: "));
    assert_eq!(pending_lines.count(), 1, "{said}");
    assert!(said.contains("policy-rc.d does not allow services to be started"), "{said}");
    assert!(!said.contains(PASSWORD));
    assert_eq!(state(&machine), "ii ");
    assert_eq!(pending(&machine), "camcops\n");
    let settings = machine.run("cat /etc/camcops/provision.toml");
    for line in [
        "server_names = [\"camcops.example.org\"]",
        "mode = \"external\"",
        "host = \"db.example.org\"",
        "password_file = \"/etc/camcops/secrets-in/database\"",
    ] {
        assert!(settings.contains(line), "{line}: {settings}");
    }
    let file = machine.run("cd /etc/camcops/secrets-in; stat -c '%a %U' . database; cat database");
    assert_eq!(file, format!("700 root\n600 root\n{PASSWORD}\n"));
    machine.run(&format!("! grep -r {PASSWORD} /var/cache/debconf /var/log /var/lib/dpkg"));
    // An upgrade keeps what the administrator has changed since.
    machine.run("echo '# mine' >> /etc/camcops/provision.toml");
    dpkg(&machine, INSTALL);
    assert_eq!(pending(&machine), "camcops\n");
    assert_eq!(machine.run("cat /etc/camcops/provision.toml"), format!("{settings}# mine\n"));
    dpkg(&machine, "dpkg --remove camcops-provision 2>&1");
    machine.run("test -e /etc/camcops/provision.toml; test -e /etc/camcops/secrets-in/database");
    let said = dpkg(&machine, "dpkg --purge camcops-provision 2>&1");
    assert!(said.contains("databases, backups and uploads are kept"), "{said}");
    assert_eq!(machine.run(FILES), before);
}

#[test]
fn settings_that_are_there_already_are_followed_and_not_touched() {
    let Some(machine) = machine() else { return };
    let settings = "[web]\nserver_names = ['mine.example.org']\n";
    machine.write("/etc/camcops/provision.toml", settings, 0o644);
    // They are no answer to the question, which says no where nobody was asked.
    let said = dpkg(&machine, INSTALL);
    assert!(said.contains("settings are in /etc/camcops/provision.toml"), "{said}");
    assert_eq!(pending(&machine), "");
    dpkg(&machine, "dpkg --purge camcops-provision 2>&1");
    machine.write("/etc/camcops/provision.toml", settings, 0o644);
    preseed(&machine, "install boolean true\n");
    dpkg(&machine, INSTALL);
    assert_eq!(pending(&machine), "camcops\n");
    assert_eq!(machine.run("cat /etc/camcops/provision.toml"), settings);
    // Whoever uninstalls does not want the next upgrade to install again.
    machine.run("camcops-provision uninstall --yes 2>&1");
    dpkg(&machine, INSTALL);
    assert_eq!(pending(&machine), "");
    // And whoever says no is believed.
    dpkg(&machine, "dpkg --purge camcops-provision 2>&1");
    machine.write("/etc/camcops/provision.toml", settings, 0o644);
    preseed(&machine, "install boolean false\n");
    dpkg(&machine, INSTALL);
    assert_eq!(pending(&machine), "");
}

#[test]
fn answers_that_make_no_settings_and_settings_that_are_wrong_block_nothing() {
    let Some(machine) = machine() else { return };
    allow(&machine);
    preseed(&machine, "install boolean true\nserver-name string no such name\n");
    let said = dpkg(&machine, INSTALL);
    assert!(said.contains("pending: the answers are not valid settings"), "{said}");
    assert_eq!((state(&machine).as_str(), pending(&machine).as_str()), ("ii ", ""));
    dpkg(&machine, "dpkg --purge camcops-provision 2>&1");
    machine.write("/etc/camcops/provision.toml", "[wbe]\n", 0o644);
    preseed(&machine, "install boolean true\n");
    let said = dpkg(&machine, INSTALL);
    assert!(said.contains("pending: /etc/camcops/provision.toml"), "{said}");
    assert_eq!((state(&machine).as_str(), pending(&machine).as_str()), ("ii ", "camcops\n"));
}

#[test]
#[ignore = "thorough: each step"]
fn killed_at_each_step_of_its_hook_it_still_ends_right() {
    let Some(machine) = machine() else { return };
    allow(&machine);
    preseed(&machine, &format!("{EXTERNAL}database-password password {PASSWORD}\n"));
    dpkg(&machine, "dpkg --force-unsafe-io --unpack /root/package.deb 2>&1");
    const HOOK: &str = "/var/lib/dpkg/info/camcops-provision.postinst";
    let hook = fs::read_to_string(machine.path(HOOK)).unwrap();
    let lines: Vec<&str> = hook.lines().collect();
    let statement = |number: usize| {
        let line = lines[number].trim_start();
        let begins = [
            "[",
            "\"$tool\"",
            "(umask",
            "db_",
            "echo",
            "if ",
            "install",
            "mv",
            "printf '%s' \"$secrets",
            "rm",
            "set --",
            "value=",
        ];
        let goes_on = lines[number - 1].ends_with("||") || lines[number - 1].ends_with('\\');
        begins.iter().any(|begin| line.starts_with(begin)) && !goes_on
    };
    let begin = hook.lines().position(|line| line.starts_with("password_file()"));
    let mut killed = 0;
    for number in (begin.unwrap()..lines.len()).filter(|number| statement(*number)) {
        let mut cut = lines.clone();
        // All of dpkg's processes: it leads the group.
        cut.insert(number, "kill -9 0");
        machine.write(HOOK, &(cut.join("\n") + "\n"), 0o755);
        let script =
            "export DEBIAN_FRONTEND=noninteractive; exec 2>/dev/null; setsid --wait dpkg --configure -a >/dev/null";
        let done = machine.command("bash").args(["-c", script]).status().unwrap();
        if done.success() {
            // The statement was not on the way; what was done is forgotten, so that the next cut is met.
            dpkg(
                &machine,
                "dpkg --purge camcops-provision 2>&1; dpkg --force-unsafe-io --unpack /root/package.deb 2>&1",
            );
            preseed(&machine, &format!("{EXTERNAL}database-password password {PASSWORD}\n"));
        } else {
            killed += 1;
        }
    }
    assert!(killed > 20, "{killed}");
    machine.write(HOOK, &hook, 0o755);
    dpkg(&machine, "dpkg --configure -a 2>&1");
    assert_eq!((state(&machine).as_str(), pending(&machine).as_str()), ("ii ", "camcops\n"));
    let settings = machine.run("cat /etc/camcops/provision.toml");
    assert!(settings.contains("/etc/camcops/secrets-in/database"), "{settings}");
    assert_eq!(machine.run("cat /etc/camcops/secrets-in/database"), format!("{PASSWORD}\n"));
    machine.run(&format!("! grep -r {PASSWORD} /var/cache/debconf"));
}

#[test]
fn what_is_installed_survives_a_removal_and_is_undone_by_a_purge() {
    let Some(machine) = machine() else { return };
    let before = machine.run(FILES);
    dpkg(&machine, INSTALL);
    // As somebody who has built a machine's image would.
    machine.run("camcops-provision --root / install --yes 2>&1");
    machine.run("test -e /etc/camcops/camcops.conf; test -e /etc/apache2/sites-available/camcops.conf");
    let said = dpkg(&machine, INSTALL);
    assert!(said.contains("pending: "), "{said}");
    dpkg(&machine, "dpkg --remove camcops-provision 2>&1");
    machine.run("test -e /etc/camcops/camcops.conf; test -x /var/lib/camcops-provision/program");
    // Back again, and away for good.
    dpkg(&machine, INSTALL);
    machine.run("test ! -e /var/lib/camcops-provision/program");
    dpkg(&machine, "dpkg --purge camcops-provision 2>&1");
    assert_eq!(machine.run(FILES), before);
}

#[test]
fn a_purge_that_can_undo_nothing_says_so_and_keeps_the_journal() {
    let Some(machine) = machine() else { return };
    dpkg(&machine, INSTALL);
    machine.run("camcops-provision --root / install --yes 2>&1");
    dpkg(&machine, "dpkg --remove camcops-provision 2>&1");
    machine.run("echo broken > /var/lib/camcops-provision/program");
    let said = dpkg(&machine, "dpkg --purge camcops-provision 2>&1");
    assert!(said.contains("could not undo: camcops"), "{said}");
    dpkg(&machine, INSTALL);
    machine.run("camcops-provision uninstall --yes 2>&1; test ! -e /etc/camcops/camcops.conf");
}

#[test]
fn an_older_version_takes_over_and_other_packages_are_not_disturbed() {
    let Some(machine) = machine() else { return };
    allow(&machine);
    let settings = "[web]\nserver_names = ['mine.example.org']\n";
    machine.write("/etc/camcops/provision.toml", settings, 0o644);
    preseed(&machine, "install boolean true\n");
    dpkg(&machine, INSTALL);
    machine.run(
        "cd /root; dpkg-deb --raw-extract package.deb older; sed -i 's/^Version: .*/Version: 0.0.9-1/' older/DEBIAN/control\n\
         dpkg-deb --build older older.deb",
    );
    dpkg(&machine, "dpkg --force-unsafe-io -i /root/older.deb 2>&1");
    assert_eq!((state(&machine).as_str(), pending(&machine).as_str()), ("ii ", "camcops\n"));
    // A Python that comes is no news; the one that CamCOPS runs on, going, is.
    machine.run(
        "cd /root; mkdir -p other/DEBIAN other/usr/bin; printf '#!/bin/sh\\n' > other/usr/bin/python3.12; chmod 755 other/usr/bin/python3.12\n\
         printf 'Package: other\\nVersion: 1\\nArchitecture: all\\nMaintainer: x <x@example.org>\\nDescription: x\\n' > other/DEBIAN/control\n\
         dpkg-deb --build other other.deb\n\
         mkdir -p /usr/share/camcops/releases/one/bin; ln -s releases/one /usr/share/camcops/venv\n\
         ln -s /usr/bin/python3.12 /usr/share/camcops/releases/one/bin/python3",
    );
    let said = dpkg(&machine, "dpkg -i /root/other.deb 2>&1");
    assert!(said.contains("Processing triggers for camcops-provision"), "{said}");
    assert!(!said.contains("is gone"), "{said}");
    let said = dpkg(&machine, "dpkg --remove other 2>&1");
    assert!(said.contains("the Python of CamCOPS is gone; run: camcops-provision install"), "{said}");
}

/// Debian's own judge: it installs, upgrades, removes and purges, without answers and with a site, and looks for what is
/// left.
#[test]
#[ignore = "thorough: minutes of dpkg"]
fn piuparts_finds_nothing_left() {
    let Some(package) = PACKAGE.as_ref() else {
        return;
    };
    let Some(base) = Machine::base(&["debconf"]) else {
        return;
    };
    let home = tempfile::tempdir().unwrap();
    let done = Command::new("unshare")
        .args(["--net", "bash", "-euc", PIUPARTS, "piuparts"])
        .arg(package)
        .arg(base)
        .current_dir(home.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}{done:?}");
    let passed = said.matches("PASS: Installation, upgrade and purging");
    assert_eq!(passed.count(), 2, "{said}");
}

/// The only source of packages is a directory with an older version of ours.
const PIUPARTS: &str = r#"
package=$1 base=$2 here=$PWD
mkdir repository alone site
dpkg-deb --raw-extract "$package" older
sed -i 's/^Version: .*/Version: 0.0.9-1/' older/DEBIAN/control
dpkg-deb --build older repository/camcops-provision_0.0.9-1_amd64.deb
(cd repository && dpkg-scanpackages . > Packages)
printf '#!/bin/sh\nrm -f /etc/apt/sources.list.d/*\necho deb "[trusted=yes]" file:%s ./ > /etc/apt/sources.list\n' "$here/repository" > alone/post_chroot_unpack_alone
cp alone/* site
printf '#!/bin/sh\necho camcops-provision camcops-provision/install boolean true | debconf-set-selections\n' > site/pre_install_answers
printf '#!/bin/sh\ncamcops-provision --root / install --yes\n' > site/post_install_site
chmod 755 alone/* site/*
for scripts in alone site; do
    piuparts --existing-chroot "$base" --keep-sources-list --bindmount="$here/repository" --scriptsdir="$here/$scripts" "$package"
done
"#;
