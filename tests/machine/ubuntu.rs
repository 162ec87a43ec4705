//! The same on Ubuntu, with the Python, the servers and the systemd that it has.

use crate::harness::booted::{Booted, Ground, base, possible};
use crate::harness::installed::{COMMAND, PACKAGES, PASSWORD, SUPERUSER, install};
use crate::harness::site::{self, as_tablet, page, processes, wait_until_well};
use crate::harness::wheelhouse;
use crate::package::PACKAGE;

#[test]
fn runs_on_22_04_with_python_3_10() {
    runs_on("jammy", 10, "libmagickwand-6.q16-6", "mariadb-server");
}

#[test]
fn runs_on_24_04_with_python_3_12_and_mysql() {
    let machine = runs_on("noble", 12, "libmagickwand-6.q16-7t64", "mysql-server");
    if let Some(machine) = machine {
        its_data_is_looked_after(&machine);
    }
}

fn runs_on(release: &str, minor: u8, magick: &str, server: &str) -> Option<Booted> {
    if !possible() {
        return None;
    }
    let [venv, headers] = ["venv", "dev"].map(|part| format!("python3.{minor}-{part}"));
    let packages = PACKAGES.map(|name| match name {
        "libmagickwand-6.q16-6" => magick,
        "python3-venv" => &venv,
        "python3-dev" => &headers,
        "mariadb-server" => server,
        other => other,
    });
    let machine = Booted::on(Ground {
        layers: vec![base(release, &packages)],
        wheelhouse: Some(wheelhouse::kept_for(minor)),
        lease: None,
    });
    // The package that is built on Debian 12.
    let package = PACKAGE.as_ref()?;
    std::fs::copy(package, machine.path("/root/package.deb")).unwrap();
    machine.run(
        "rm /usr/bin/camcops-provision
         DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends /root/package.deb
         camcops-provision --version",
    );
    if server != "mariadb-server" {
        // Who has this one keeps it.
        machine.run(&format!("DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends {server}"));
    }
    install(machine.command(COMMAND[0]));
    machine.run("apt-get install --quiet --yes --no-install-recommends curl > /dev/null");
    let python = machine.run("readlink --canonicalize /usr/share/camcops/venv/bin/python");
    assert_eq!(python, format!("/usr/bin/python3.{minor}\n"));
    assert_eq!(page(&machine, "login", "").status, 200);
    let superuser = as_tablet(&machine, SUPERUSER, PASSWORD);
    assert!(
        superuser.body.contains(site::NO_GROUP),
        "{}",
        superuser.body
    );

    let before = processes(&machine);
    let again = machine.run("camcops-provision install --yes");
    assert!(again.starts_with("nothing to do\n"), "{again}");
    assert_eq!(processes(&machine), before);
    let failed = machine.run("systemctl list-units --failed --plain --no-legend");
    assert_eq!(failed, "");
    machine.reboot();
    wait_until_well(&machine, "a reboot");
    assert_eq!(machine.tried("camcops-provision plan --exit-code").0, 0);
    Some(machine)
}

/// What an administrator does with the data of a site, on MySQL.
fn its_data_is_looked_after(machine: &Booted) {
    let users = || machine.run("mysql camcops --execute 'CHECKSUM TABLE _security_users'");
    let before = users();
    machine.run(
        "camcops-provision backup create
         camcops-provision backup verify
         mysql camcops --execute 'UPDATE _security_users SET fullname = \"somebody else\"'",
    );
    assert_ne!(users(), before);
    machine.run("camcops-provision backup restore latest --confirm camcops");
    assert_eq!(users(), before);

    machine.run("mysql camcops --execute \"DROP TABLE empsa; UPDATE _alembic_version SET version_num = '0086'\"");
    let told = machine.run("camcops-provision db upgrade");
    assert!(told.contains("revision 0086 -> 0087"), "{told}");
    machine.run(
        "mysql camcops --execute 'ALTER TABLE phq9 CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci'
         camcops-provision db check --fix-collation
         camcops-provision secret rotate database
         camcops-provision db grant-readonly --user reader
         camcops-provision db anonymise --to research
         mysql research --execute 'SELECT COUNT(*) FROM patient'",
    );
    machine.run(
        "camcops-provision doctor
         camcops-provision doctor --end-to-end
         camcops-provision plan --exit-code",
    );
}
