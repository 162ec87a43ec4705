//! Debian 13: Python 3.13, MariaDB 11.8, RabbitMQ 4.0, systemd 257, a /tmp in memory, and no wkhtmltopdf.

use crate::backup::{ROWS, checksums};
use crate::harness::booted::{Booted, possible};
use crate::harness::installed::{COMMAND, bare_ground_of, install};
use crate::harness::site::{SERVICES, processes, unit, wait_until_well};
use crate::{live, undone};

#[test]
fn from_bare_debian_13_to_a_site_and_back() {
    if !possible() {
        return;
    }
    let machine = Booted::on(bare_ground_of("trixie", 13, "libmagickwand-7.q16-10"));
    install(machine.command(COMMAND[0]));
    lives(&machine, 13);
}

/// All that a site does between its first day and its last, on a machine where it was just installed.
pub fn lives(machine: &Booted, minor: u8) {
    machine.run("apt-get install --quiet --yes --no-install-recommends curl > /dev/null");
    let python = machine.run("readlink --canonicalize /usr/share/camcops/venv/bin/python");
    assert_eq!(python, format!("/usr/bin/python3.{minor}\n"));
    live::answers(machine);
    live::is_left_alone_by_a_second_install(machine);
    live::is_locked_up(machine);
    is_exposed_little(machine);
    is_well_from_end_to_end(machine);
    comes_back_from_a_backup(machine);
    let before = processes(machine);
    machine.reboot();
    wait_until_well(machine, "a reboot");
    assert_ne!(processes(machine), before);
    let failed = machine.run("systemctl list-units --failed --plain --no-legend");
    assert_eq!(failed, "");
    assert_eq!(machine.tried("camcops-provision plan --exit-code").0, 0);
    machine.run("camcops-provision uninstall --yes");
    // Where it came as one.
    machine.run("! dpkg --status camcops-provision > /dev/null 2>&1 || dpkg --purge camcops-provision > /dev/null");
    undone::nothing_of_ours_is_there(machine);
}

/// As this release's own systemd measures it.
fn is_exposed_little(machine: &Booted) {
    for service in SERVICES {
        let unit = unit(service);
        let told = machine.run(&format!("systemd-analyze security --no-pager {unit} | tail -n 1"));
        let exposure = told.split_whitespace().find_map(|word| word.parse::<f64>().ok());
        assert!(exposure.is_some_and(|exposure| exposure <= 1.0), "{unit}: {told}");
    }
}

/// The login page, a tablet's question, the way to the workers and back, and a page as PDF.
fn is_well_from_end_to_end(machine: &Booted) {
    let (code, found, complaint) = machine.tried("camcops-provision doctor --end-to-end");
    assert_eq!(code, 0, "{found}{complaint}");
    let (code, found, complaint) = machine.tried("camcops-provision doctor");
    assert_eq!(code, 0, "{found}{complaint}");
}

fn comes_back_from_a_backup(machine: &Booted) {
    machine.run(ROWS);
    machine.run("camcops-provision --quiet stop");
    let before = checksums(machine);
    machine.run(
        "camcops-provision backup create
         mysql camcops --execute 'DELETE FROM _security_audit WHERE id > 1000; DROP TABLE phq9'
         camcops-provision backup restore latest --confirm camcops",
    );
    wait_until_well(machine, "a restore");
    machine.run("camcops-provision --quiet stop");
    assert_eq!(checksums(machine), before);
    machine.run("camcops-provision --quiet start");
}
