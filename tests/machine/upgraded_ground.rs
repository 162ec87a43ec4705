//! Debian is upgraded in place under a site, from 12 to 13: the broker does not start on what it had stored, and the Python
//! under the release goes.

use crate::backup::{ROWS, checksums};
use crate::harness::booted::Booted;
use crate::harness::installed::{PASSWORD, SUPERUSER, upgradable};
use crate::harness::site::{NO_GROUP, as_tablet, wait_until_well};

/// As the release notes of Debian have it done.
const UPGRADE: &str = "DEBIAN_FRONTEND=noninteractive apt-get --quiet --yes --no-download \
     --option Dpkg::Options::=--force-confdef --option Dpkg::Options::=--force-confold full-upgrade > /root/upgrade.log 2>&1";

/// What Debian 13 no longer has; its release notes say to remove such packages.
const OBSOLETE: &str = "dpkg --purge $(dpkg-query --show --showformat='${Package}\n' '*python3.11*') 2>&1";

#[test]
#[ignore = "thorough: Debian is upgraded, and a second release is built"]
fn one_install_mends_it_and_nothing_is_lost() {
    let Some(machine) = upgradable() else {
        return;
    };
    wait_until_well(&machine, "the first boot");
    machine.run(ROWS);
    machine.run("camcops-provision --quiet stop");
    let before = checksums(&machine);
    machine.run("camcops-provision --quiet start");
    let (code, _, _) = machine.tried(UPGRADE);
    let log = machine.run("tr -d '\\r' < /root/upgrade.log");
    // The package can't start the broker.
    assert_eq!(code, 100, "{log}");
    assert!(log.contains("Errors were encountered while processing:\n rabbitmq-server\nE:"), "{log}");
    machine.run(OBSOLETE);
    // systemd starts the broker again and again.
    machine.reboot_until("systemctl is-active mariadb");
    is_told(&machine);

    let said = machine.run("camcops-provision install --yes --wheelhouse /srv/wheelhouse 2>&1");
    eprintln!("{said}");
    wait_until_well(&machine, "it was installed again");
    machine.run("camcops-provision --quiet stop");
    assert_eq!(checksums(&machine), before);
    machine.run("camcops-provision --quiet start");
    let python = machine.run("readlink --canonicalize /usr/share/camcops/venv/bin/python");
    assert_eq!(python, "/usr/bin/python3.13\n");
    let superuser = as_tablet(&machine, SUPERUSER, PASSWORD);
    assert!(superuser.body.contains(NO_GROUP), "{}", superuser.body);
    let again = machine.run("camcops-provision install --yes");
    assert!(again.starts_with("nothing to do\n"), "{again}");
    let (code, found, _) = machine.tried("camcops-provision doctor");
    assert_eq!(code, 0, "{found}");
    let (code, found, _) = machine.tried("camcops-provision doctor --end-to-end");
    assert_eq!(code, 0, "{found}");

    let releases = || machine.run("ls /usr/share/camcops/releases");
    assert_eq!(releases().lines().count(), 2);
    machine.run("camcops-provision releases prune");
    assert!(releases().contains("-py3.13-") && releases().lines().count() == 1, "{}", releases());
    let status = machine.run("camcops-provision status");
    assert!(!status.contains("\ndrift "), "{status}");
    machine.reboot();
    wait_until_well(&machine, "a reboot");
    assert_eq!(machine.run("systemctl list-units --failed --plain --no-legend"), "");
}

/// Nobody has to find out what is wrong: it is said, with what to do.
fn is_told(machine: &Booted) {
    let (_, status, warnings) = machine.tried("camcops-provision status");
    eprintln!("{status}{warnings}");
    assert!(status.contains("the Python that it runs on is gone; run `camcops-provision install`"), "{status}");
    let stored = "does not start with the data of an earlier version in /var/lib/rabbitmq/mnesia/rabbit@localhost";
    assert!(warnings.contains(stored), "{warnings}");
    let (code, found, _) = machine.tried("camcops-provision doctor");
    eprintln!("{found}");
    assert_eq!(code, 1, "{found}");
    assert!(found.contains("the Python of the release is gone"), "{found}");
    assert!(found.contains(stored), "{found}");
}
