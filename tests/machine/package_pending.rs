//! The Debian package where systemd does not run and there is no network: whatever is missing, dpkg ends well and one line
//! names what is pending and the command that completes it.

use crate::harness::Machine;
use crate::harness::installed::{PACKAGES, PASSWORD, SUPERUSER};
use crate::harness::site::URL;
use crate::package::{PACKAGE, allow, dpkg, forbid, pending, preseed, put_package, state};

/// The application comes from a directory.
const SOURCE: &str = "[camcops]\nsource = 'wheelhouse'\nwheelhouse = '/srv/wheelhouse'\n";

#[test]
fn each_part_that_is_missing_is_named_with_the_command_that_completes_it() {
    let Some(machine) = PACKAGE.as_ref().and_then(|_| Machine::bare()) else {
        return;
    };
    put_package(&machine);
    machine.run("[ ! -e /run/systemd/system ]");
    preseed(
        &machine,
        &format!(
            "install boolean true\nserver-name string machine\nsuperuser-name string {SUPERUSER}\nsuperuser-password password {PASSWORD}\n"
        ),
    );
    names(&machine, "nothing else is there", "mariadb-server");
    forbid(&machine);
    dpkg(&machine, &format!("apt-get install --quiet --yes --no-install-recommends {} 2>&1", PACKAGES.join(" ")));
    names(&machine, "nothing may be started", "policy-rc.d");
    allow(&machine);
    names(&machine, "there is no network", "downloaded");
    machine.write("/etc/camcops/provision.d/source.toml", SOURCE, 0o644);
    hold(&machine, "mariadb");
    hold(&machine, "rabbitmq-server");
    names(&machine, "both are stopped", "mariadb");
    release(&machine, "rabbitmq-server");
    let command = names(&machine, "MariaDB is stopped", "mariadb");
    // RabbitMQ runs under the name that its package gave it, and gets another one.
    release(&machine, "mariadb");
    let said = machine.run(&format!("{command} --yes 2>&1"));
    assert!(said.contains(&format!("is running at {URL}")), "{said}");
    is_done(&machine);
    assert!(!install(&machine).contains("pending: "));
    is_done(&machine);
    for service in ["mariadb", "rabbitmq-server"] {
        hold(&machine, service);
        let command = names(&machine, service, service);
        release(&machine, service);
        machine.run(&format!("{command} --yes 2>&1"));
        is_done(&machine);
    }
}

/// Stops a server so that nobody can start it; a server that is only stopped is started by the hook.
fn hold(machine: &Machine, service: &str) {
    machine.run(&format!(
        "cd /etc/init.d; ./{service} stop 2>&1; mv {service} /root; printf '#!/bin/sh\nexit 1\n' > {service}; chmod 755 {service}"
    ));
}

/// Starts it.
fn release(machine: &Machine, service: &str) {
    machine.run(&format!("mv /root/{service} /etc/init.d; service {service} start 2>&1"));
}

fn install(machine: &Machine) -> String {
    let said = dpkg(machine, "dpkg --force-unsafe-io --install /root/package.deb 2>&1");
    assert_eq!(state(machine), "ii ");
    said
}

/// The package is configured and says in one line what is pending; gives the command that it tells.
fn names(machine: &Machine, when: &str, what: &str) -> String {
    let said = install(machine);
    let lines: Vec<&str> = said.lines().filter(|line| line.contains("pending: ")).collect();
    let [line] = lines.as_slice() else {
        panic!("{when}: {said}");
    };
    assert!(line.contains(what), "{when}: {said}");
    assert_eq!(pending(machine), "camcops\n", "{when}");
    let (_, told) = line.split_once("(then run: ").unwrap();
    told.split_once(';').unwrap().0.to_owned()
}

fn is_done(machine: &Machine) {
    assert_eq!(pending(machine), "");
    machine.run("camcops-provision plan --exit-code");
    machine.run(&format!("curl --silent --show-error --fail --insecure --max-time 60 --output /dev/null {URL}login"));
}
