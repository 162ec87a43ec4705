//! The same on Ubuntu, with the Python, the servers and the systemd that it has.

use crate::harness::booted::{Booted, Ground, base, possible};
use crate::harness::installed::{COMMAND, PACKAGES, PASSWORD, SUPERUSER, install};
use crate::harness::site::{self, as_tablet, page, processes, wait_until_well};
use crate::harness::wheelhouse;
use crate::package::PACKAGE;

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

fn runs_on(release: &str, minor: u8, magick: &str) {
    if !possible() {
        return;
    }
    let [venv, headers] = ["venv", "dev"].map(|part| format!("python3.{minor}-{part}"));
    let packages = PACKAGES.map(|name| match name {
        "libmagickwand-6.q16-6" => magick,
        "python3-venv" => &venv,
        "python3-dev" => &headers,
        other => other,
    });
    let machine = Booted::on(Ground {
        layers: vec![base(release, &packages)],
        wheelhouse: Some(wheelhouse::kept_for(minor)),
        lease: None,
    });
    // The package that is built on Debian 12.
    let Some(package) = PACKAGE.as_ref() else {
        return;
    };
    std::fs::copy(package, machine.path("/root/package.deb")).unwrap();
    machine.run(
        "rm /usr/bin/camcops-provision
         DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends /root/package.deb
         camcops-provision --version",
    );
    install(machine.command(COMMAND[0]));
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
