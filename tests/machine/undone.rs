//! What a machine looks like after `uninstall`: nothing of ours runs or serves, what others made and what patients'
//! data is in stays; and after `--purge` only a dump of that.

use crate::harness::booted::Booted;
use crate::harness::installed::{PASSWORD, SUPERUSER, installed};
use crate::harness::site::{self, OTHERS, as_tablet, page, wait_until_well};
use crate::harness::tablet::Tablets;
use std::fs;
use std::io::Write;
use std::process::Stdio;

#[test]
fn leaves_and_comes_back_and_leaves_for_good() {
    let Some((machine, _)) = installed() else {
        return;
    };
    wait_until_well(&machine, "the first boot");
    machine.run(OTHERS);
    let tablets = Tablets::few(&machine);
    let users = "mariadb --batch --skip-column-names --execute 'SELECT username FROM camcops._security_users'";
    let known = machine.run(users);
    assert!(known.contains(SUPERUSER), "{known}");

    // There is no site for a while; what it had accepted before it has again.
    tablets.excuse(|| {
        let said = machine.run("camcops-provision uninstall --yes");
        eprintln!("{said}");
        nothing_of_ours_is_there(&machine);
        assert_eq!(machine.run(users), known);
        others_are_served(&machine);
        let again = machine.run("camcops-provision uninstall --yes");
        assert!(again.contains("nothing to do"), "{again}");

        install(&machine, &[]);
        wait_until_well(&machine, "it was installed again");
    });
    tablets.end_unnoticed();
    // The password of before: nobody gave one now.
    let superuser = as_tablet(&machine, SUPERUSER, PASSWORD);
    assert!(superuser.body.contains(site::NO_GROUP), "{}", superuser.body);
    assert_eq!(machine.tried("camcops-provision plan --exit-code").0, 0);
    others_are_served(&machine);

    refuses_to_purge_what_is_not_named(&machine);
    let said = machine.run("camcops-provision uninstall --purge --confirm camcops --yes");
    eprintln!("{said}");
    nothing_of_ours_is_there(&machine);
    others_are_served(&machine);
    everything_is_gone(&machine);
    the_dump_goes_in_again(&machine, &known);
}

fn install(machine: &Booted, more: &[&str]) {
    let mut child = machine
        .command("camcops-provision")
        .args(["install", "--yes", "--wheelhouse", "/srv/wheelhouse"])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().flush().unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{complaint}");
}

pub fn nothing_of_ours_is_there(machine: &Booted) {
    let units = machine.run(
        "systemctl list-unit-files --plain --no-legend 'camcops*' || true
         systemctl list-units --all --plain --no-legend 'camcops*' | grep -v ' not-found inactive ' || true",
    );
    assert_eq!(units, "");
    let processes = machine.run("pgrep --full --list-full '/usr/share/camcop[s]' || true");
    assert_eq!(processes, "");
    let files = machine.run(
        "find /etc /usr /run /var/lib/systemd /var/lock/ -xdev -iname '*camcops*' ! -path /usr/bin/camcops-provision ! -path '/etc/camcops*' ! -path '/var/lib/mysql*'",
    );
    assert_eq!(files, "");
    // Apache is others' too, and runs on; it has nothing for our name any more.
    let (code, _, _) =
        machine.tried("curl --silent --fail --insecure --max-time 10 https://machine/login | grep -q CamCOPS");
    assert_ne!(code, 0);
}

fn others_are_served(machine: &Booted) {
    let page = machine.run("curl --silent --fail http://127.0.0.1:8081/");
    assert_eq!(page, "somebody else\n");
    machine.run("apache2ctl -t");
}

fn refuses_to_purge_what_is_not_named(machine: &Booted) {
    for wrong in ["--purge", "--purge --confirm other", "--confirm camcops"] {
        let (code, _, why) = machine.tried(&format!("camcops-provision uninstall --yes {wrong}"));
        assert_eq!(code, 64, "{wrong}: {why}");
        assert!(why.contains("--confirm"), "{wrong}: {why}");
    }
    assert_eq!(page(machine, "login", "").status, 200);
}

fn everything_is_gone(machine: &Booted) {
    let sql = |statement: &str| machine.run(&format!("mariadb --batch --skip-column-names --execute \"{statement}\""));
    assert!(!sql("SHOW DATABASES").contains("camcops"));
    assert!(!sql("SELECT User FROM mysql.user").contains("camcops"));
    let broker = machine.run("rabbitmqctl --quiet list_vhosts; rabbitmqctl --quiet list_users");
    assert!(!broker.contains("camcops"), "{broker}");
    let left = machine.run(
        "ls --directory /srv/camcops /var/lib/camcops /var/cache/camcops /var/tmp/camcops /var/log/camcops /etc/camcops/secrets /var/lib/camcops-provision 2> /dev/null || true",
    );
    assert_eq!(left, "");
}

/// A dump that can't be read back is none.
fn the_dump_goes_in_again(machine: &Booted, known: &str) {
    let dump = machine.run(
        "set -- /var/backups/camcops/camcops-*.sql.zst
         [ $# = 1 ]
         [ \"$(stat --format=%a:%U $1)\" = 600:root ]
         echo $1",
    );
    let dump = fs::read(machine.path(dump.trim())).unwrap();
    let dump = zstd::decode_all(&dump[..]).unwrap();
    fs::write(machine.path("/root/again.sql"), dump).unwrap();
    let users = machine.run(
        "mariadb --execute 'CREATE DATABASE again'
         mariadb again < /root/again.sql
         mariadb --batch --skip-column-names --execute 'SELECT username FROM again._security_users'",
    );
    assert_eq!(users, known);
}
