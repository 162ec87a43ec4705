//! The same on Ubuntu, with the Python, the servers and the systemd that it has.

use crate::harness::booted::{Booted, possible};
use crate::harness::installed::{COMMAND, PASSWORD, SUPERUSER, bare_ground_of, install};
use crate::harness::site::{self, as_tablet, page, processes, wait_until_well};
use crate::package::PACKAGE;
use crate::trixie;

#[test]
#[ignore = "thorough: a whole install"]
fn runs_on_22_04_with_python_3_10() {
    runs_on("jammy", 10, "libmagickwand-6.q16-6");
}

#[test]
#[ignore = "thorough: a whole install"]
fn runs_on_24_04_with_python_3_12() {
    runs_on("noble", 12, "libmagickwand-6.q16-7t64");
}

#[test]
#[ignore = "thorough: a whole install"]
fn runs_on_26_04_with_python_3_14() {
    if let Some(machine) = installed_by_package("resolute", 14, "libmagickwand-7.q16-10") {
        trixie::lives(&machine, 14);
    }
}

fn installed_by_package(release: &str, minor: u8, magick: &str) -> Option<Booted> {
    // The package that is built on Debian 12.
    let package = PACKAGE.as_ref().filter(|_| possible())?;
    let machine = Booted::on(bare_ground_of(release, minor, magick));
    std::fs::copy(package, machine.path("/root/package.deb")).unwrap();
    machine.run(
        "rm /usr/bin/camcops-provision
         DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends /root/package.deb
         camcops-provision --version",
    );
    install(machine.command(COMMAND[0]));
    Some(machine)
}

fn runs_on(release: &str, minor: u8, magick: &str) {
    let Some(machine) = installed_by_package(release, minor, magick) else {
        return;
    };
    machine.run("apt-get install --quiet --yes --no-install-recommends curl > /dev/null");
    let python = machine.run("readlink --canonicalize /usr/share/camcops/venv/bin/python");
    assert_eq!(python, format!("/usr/bin/python3.{minor}\n"));
    assert_eq!(page(&machine, "login", "").status, 200);
    let superuser = as_tablet(&machine, SUPERUSER, PASSWORD);
    assert!(superuser.body.contains(site::NO_GROUP), "{}", superuser.body);

    let before = processes(&machine);
    let again = machine.run("camcops-provision install --yes");
    assert!(again.starts_with("nothing to do\n"), "{again}");
    assert_eq!(processes(&machine), before);
    let failed = machine.run("systemctl list-units --failed --plain --no-legend");
    assert_eq!(failed, "");
    machine.reboot();
    wait_until_well(&machine, "a reboot");
    assert_eq!(machine.tried("camcops-provision plan --exit-code").0, 0);
}
