//! The Debian package on machines that have booted: one call of apt, or a boot, ends with a site; and a new version of the
//! package disturbs nobody who is at work on it.

use crate::harness::booted::{Booted, Ground, possible};
use crate::harness::browser::Browser;
use crate::harness::installed::{PASSWORD, SUPERUSER, bare_ground, bare_ground_of, installed};
use crate::harness::site::{self, URL, all_were_answered, as_tablet, page, visit, wait_until_well};
use crate::harness::tablet::Tablets;
use crate::package::PACKAGE;
use std::fs;
use std::time::{Duration, Instant};

/// The package, and of what it recommends what is in the cache of apt.
const INSTALL: &str = "export DEBIAN_FRONTEND=noninteractive
    apt-get install --quiet --yes --no-install-recommends /root/package.deb apache2 ca-certificates libmagickwand-6.q16-6 \
        mariadb-server python3-venv rabbitmq-server 2>&1";

/// The same program as a later version.
const NEWER: &str = "cd /root; dpkg-deb --raw-extract package.deb newer
    sed --in-place 's/^Version: .*/Version: 99.0-1/' newer/DEBIAN/control
    dpkg-deb --build newer newer.deb > /dev/null";

/// There is no network: the application comes from a directory.
const SOURCE: &str = "[camcops]\nsource = 'wheelhouse'\nwheelhouse = '/srv/wheelhouse'\n";

/// How long it may take until nothing is pending.
const PATIENCE: Duration = Duration::from_secs(600);

/// Sends a form as a tablet with a slow connection does, again and again until it is told to stop.
const UPLOADS: &str = r#"
import os, socket, ssl, time
form = open("/root/form", "rb").read() + b"&padding=" + b"x" * 80000
answers = []
while not os.path.exists("/run/stop-uploads"):
    link = ssl._create_unverified_context().wrap_socket(socket.create_connection(("127.0.0.1", 443)))
    link.sendall(
        b"POST /api HTTP/1.1\r\nHost: machine\r\nConnection: close\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n" % len(form)
    )
    for start in range(0, len(form), 4000):
        link.sendall(form[start : start + 4000])
        time.sleep(0.2)
    answer = b""
    while part := link.recv(65536):
        answer += part
    good = answer.startswith(b"HTTP/1.1 200") and b"No upload group set for user admin" in answer
    answers.append("200" if good else repr(answer[:300]))
    open("/run/uploads", "w").write("\n".join(answers))
os.rename("/run/uploads", "/run/all-uploads")
"#;

#[test]
fn one_call_of_apt_ends_with_a_site_that_outlives_the_next_version() {
    let Some(machine) = bare(bare_ground) else { return };
    let said = machine.run(INSTALL);
    assert!(!said.contains(PASSWORD), "{said}");
    wait_until_done(&machine);
    wait_until_well(&machine, "the package was installed");
    is_a_site(&machine);
    machine.run(&format!("! grep --recursive {PASSWORD} /var/cache/debconf /var/log /var/lib/dpkg"));
    disturbs_nobody(&machine);
}

/// The package that is built on Debian 12.
#[test]
#[ignore = "thorough: a whole install"]
fn on_debian_13_too_it_ends_with_a_site_that_outlives_the_next_version() {
    let ground = || bare_ground_of("trixie", 13, "libmagickwand-7.q16-10");
    let Some(machine) = bare(ground) else { return };
    machine.run(
        &INSTALL.replace("libmagickwand-6.q16-6", "libmagickwand-7.q16-10").replace("python3-venv", "python3.13-venv"),
    );
    wait_until_done(&machine);
    wait_until_well(&machine, "the package was installed");
    is_a_site(&machine);
    let before = site::processes(&machine);
    machine.run(NEWER);
    machine.run("apt-get install --quiet --yes --no-install-recommends /root/newer.deb 2>&1");
    assert_eq!(site::processes(&machine), before, "the same again restarts nothing");
    assert_eq!(machine.tried("camcops-provision plan --exit-code").0, 0);
}

/// A database or a broker that is not to run, or a policy against starting anything, is no reason for dpkg to fail.
#[test]
#[ignore = "thorough: boots for each server"]
fn what_cannot_be_done_is_pending_and_completed_by_the_next_boot() {
    let Some((machine, _)) = installed() else {
        return;
    };
    wait_until_well(&machine, "the first boot");
    put_package(&machine);
    for (forbid, told, allow) in [
        ("systemctl mask --now mariadb", "mariadb", "systemctl unmask mariadb"),
        ("systemctl mask --now rabbitmq-server", "rabbitmq-server", "systemctl unmask rabbitmq-server"),
        (
            "printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d",
            "policy-rc.d",
            "rm /usr/sbin/policy-rc.d",
        ),
    ] {
        machine.run(&format!("{forbid} 2>&1"));
        let said = machine.run(
            "export DEBIAN_FRONTEND=noninteractive
             apt-get install --quiet --yes --no-install-recommends --reinstall /root/package.deb 2>&1",
        );
        let pending: Vec<&str> = said.lines().filter(|line| line.contains("pending: ")).collect();
        assert!(matches!(pending.as_slice(), [one] if one.contains(told)), "{pending:#?} {said}");
        let state = "dpkg-query --show --showformat='${db:Status-Abbrev}' camcops-provision";
        assert_eq!(machine.run(state), "ii ");
        machine.run(&format!("{allow} 2>&1"));
    }
    machine.reboot();
    wait_until_done(&machine);
    wait_until_well(&machine, "the boot");
}

/// A machine with nothing but Debian, the package lying in it, and the answers to its questions.
fn bare(ground: impl FnOnce() -> Ground) -> Option<Booted> {
    PACKAGE.as_ref().filter(|_| possible())?;
    let machine = Booted::on(ground());
    put_package(&machine);
    machine.run("rm /usr/bin/camcops-provision; mkdir --parents /etc/camcops/provision.d");
    fs::write(machine.path("/etc/camcops/provision.d/source.toml"), SOURCE).unwrap();
    let answers = format!(
        "install boolean true\nserver-name string machine\nsuperuser-name string {SUPERUSER}\nsuperuser-password password {PASSWORD}\n"
    );
    let answers: String =
        answers.lines().map(|answer| format!("camcops-provision camcops-provision/{answer}\n")).collect();
    fs::write(machine.path("/root/answers"), answers).unwrap();
    machine.run("debconf-set-selections /root/answers; rm /root/answers");
    Some(machine)
}

fn put_package(machine: &Booted) {
    let package = PACKAGE.as_ref().unwrap();
    fs::copy(package, machine.path("/root/package.deb")).unwrap();
}

fn wait_until_done(machine: &Booted) {
    let start = Instant::now();
    while machine.path("/var/lib/camcops-provision/pending").exists() {
        if start.elapsed() > PATIENCE {
            let log = machine.run("journalctl --no-pager --unit camcops-provision");
            panic!("still pending\n{log}");
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    eprintln!("nothing pending after {:.0} s", start.elapsed().as_secs_f64());
}

fn is_a_site(machine: &Booted) {
    machine.run("apt-get install --quiet --yes --no-install-recommends curl > /dev/null");
    assert_eq!(page(machine, "login", "").status, 200);
    let superuser = as_tablet(machine, SUPERUSER, PASSWORD);
    assert!(superuser.body.contains(site::NO_GROUP), "{}", superuser.body);
    assert_eq!(machine.tried("camcops-provision plan --exit-code").0, 0);
    // Whichever package was there first.
    let open = machine
        .run("ss --no-header --listening --tcp --numeric | awk '{ print $4 }' | grep --invert-match '^127' | sort");
    assert_eq!(open, "*:443\n*:80\n");
}

/// Somebody is logged in, tablets are sending and visitors come while the package is upgraded, with a setting that makes the
/// web server start anew.
fn disturbs_nobody(machine: &Booted) {
    let browser = Browser::open(machine);
    browser.log_in();

    machine.run(NEWER);
    fs::write(machine.path("/root/uploads.py"), UPLOADS).unwrap();
    machine.run("python3 /root/uploads.py > /dev/null 2> /run/uploads.err < /dev/null &");
    let tablets = Tablets::few(machine);
    visit(machine, "ours", "https://machine/login");
    machine.run("until [ -s /run/uploads ]; do sleep 0.1; done");
    let before = site::processes(machine);

    machine.run("dpkg --force-unsafe-io --install /root/newer.deb 2>&1");
    assert_eq!(site::processes(machine), before, "the same again restarts nothing");
    machine.run("camcops-provision config set web.timeout_s 77");
    machine.run("dpkg --force-unsafe-io --install /root/newer.deb 2>&1");
    wait_until_done(machine);
    wait_until_well(machine, "the upgrade");
    let server = site::unit("server");
    assert_ne!(site::processes(machine)[&server], before[&server]);

    let visits = all_were_answered(machine, "ours");
    tablets.end_unnoticed();
    let uploads = machine.run(
        "touch /run/stop-uploads
         for _ in $(seq 300); do [ ! -e /run/all-uploads ] || break; sleep 0.2; done
         cat /run/uploads.err >&2; cat /run/all-uploads",
    );
    assert!(uploads.lines().all(|answer| answer == "200"), "{uploads}");
    assert!(uploads.lines().count() > 1, "{uploads}");
    eprintln!("{visits} visits and {} uploads during two upgrades", uploads.lines().count());
    browser.go(&format!("{URL}login"));
    browser.go(URL);
    browser.wait_for_text(&format!("Logged in as {SUPERUSER}."));
}
