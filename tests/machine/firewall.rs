//! The site's ports in real firewalls.

use crate::harness::booted::{Booted, possible};

const PACKAGES: [&str; 3] = ["firewalld", "iptables", "ufw"];

/// What an install of this part alone says.
fn install(machine: &Booted) -> String {
    machine.run("camcops-provision install --yes --only firewall 2>&1")
}

fn settings(machine: &Booted, more: &str) {
    machine.run(&format!("printf '[firewall]\\nmanage = true\\n[web]\\n{more}\\n' > /etc/camcops/provision.toml"));
}

#[test]
#[ignore = "thorough: two firewalls, which no other test has"]
fn the_ports_of_the_site_are_opened_and_closed() {
    if !possible() {
        return;
    }
    let Some(machine) = Booted::start("bookworm", &PACKAGES) else {
        return;
    };
    machine.run(&format!(
        "DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends {} > /dev/null
         systemctl disable --now firewalld ufw 2> /dev/null
         mkdir -p /etc/camcops",
        PACKAGES.join(" ")
    ));
    settings(&machine, "");
    let told = install(&machine);
    assert!(told.contains("neither ufw nor firewalld is enabled"), "{told}");
    by_ufw(&machine);
    by_firewalld(&machine);
}

fn by_ufw(machine: &Booted) {
    machine.run("ufw allow 22/tcp; ufw --force enable");
    install(machine);
    assert!(install(machine).contains("nothing to do"));
    let lets_in = |ports: &str| machine.tried(&format!("iptables-save | grep -e '--dports {ports} .*ACCEPT'")).0 == 0;
    assert!(lets_in("80,443"), "{}", machine.run("iptables-save"));
    // A rule of a profile would keep its former ports.
    settings(machine, "http_port = 8080");
    install(machine);
    assert!(lets_in("443,8080") && !lets_in("80,443"), "{}", machine.run("iptables-save"));
    // What somebody takes away comes back.
    machine.run("ufw delete allow camcops");
    assert!(install(machine).contains("ufw camcops"));
    assert!(lets_in("443,8080"));
    machine.run("camcops-provision uninstall --yes");
    assert!(!lets_in("443,8080"));
    let left = machine.run("ufw status; ls /etc/ufw/applications.d");
    assert!(left.contains("Status: active") && left.contains("22/tcp") && !left.contains("camcops"), "{left}");
    machine.run("ufw --force disable");
}

fn by_firewalld(machine: &Booted) {
    let is_open = |what: &str| machine.tried(&format!("firewall-cmd --query-{what}")).0 == 0;
    // The second is open until its next start only, and somebody else's.
    machine.run("systemctl enable --now firewalld 2>&1; firewall-cmd --state; firewall-cmd --add-port=9999/tcp");
    settings(machine, "");
    install(machine);
    let all_open = |ports: [&str; 2]| ports.iter().all(|port| is_open(&format!("port={port}/tcp")));
    assert!(all_open(["80", "443"]) && is_open("port=9999/tcp"));
    machine.run("firewall-cmd --permanent --query-service=camcops");
    assert!(install(machine).contains("nothing to do"));
    // After its next start it goes by the service.
    machine.run("firewall-cmd --reload");
    assert!(is_open("service=camcops") && !is_open("port=443/tcp"));
    assert!(install(machine).contains("nothing to do"));
    settings(machine, "http_port = 8080");
    install(machine);
    assert!(all_open(["8080", "443"]) && !is_open("port=80/tcp") && !is_open("service=camcops"));
    assert!(install(machine).contains("nothing to do"));
    machine.run("systemctl restart firewalld; firewall-cmd --query-service=camcops");
    assert!(machine.run("firewall-cmd --info-service=camcops").contains("8080/tcp"));
    assert!(install(machine).contains("nothing to do"));
    machine.run("camcops-provision uninstall --yes");
    assert!(!is_open("service=camcops") && !is_open("port=443/tcp"));
    assert_eq!(machine.tried("firewall-cmd --permanent --list-all | grep camcops").0, 1);
    machine.run("firewall-cmd --state; test ! -e /etc/firewalld/services/camcops.xml");
}
