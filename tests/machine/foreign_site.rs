//! Other people's sites under the same Apache: a broken one is not touched and stops an install, a healthy one is served
//! all the time; and visitors of our own do not notice when its configuration changes.

use crate::harness::booted::Booted;
use crate::harness::installed::installed;
use crate::harness::site::{self, OTHERS, all_were_answered, visit, wait_until_well};

const APACHE: &str = "systemctl show --property=MainPID --value apache2";

#[test]
fn lives_beside_others() {
    let Some((machine, _)) = installed() else {
        return;
    };
    wait_until_well(&machine, "the first boot");
    a_broken_one_stops_an_install(&machine);

    machine.run(OTHERS);
    visit(&machine, "other", "http://127.0.0.1:8081/");
    visit(&machine, "ours", "https://machine/login");
    let before = site::processes(&machine);
    let apache = machine.run(APACHE);
    // What only Apache reads, and what the server reads too.
    for (change, restarted) in [
        ("web.server_names=[\"machine\",\"other.example\"]", false),
        ("web.timeout_s=77", true),
    ] {
        machine.run(&format!(
            "camcops-provision install --yes --wheelhouse /srv/wheelhouse --set '{change}'"
        ));
        wait_until_well(&machine, change);
        let now = site::processes(&machine);
        assert_eq!(machine.run(APACHE), apache, "{change}");
        let server = site::unit("server");
        assert_eq!(now[&server] != before[&server], restarted, "{change}");
    }
    let asked = all_were_answered(&machine, "ours");
    eprintln!("{asked} visits to our site while its configuration changed twice");

    machine.run("camcops-provision uninstall --yes");
    let asked = all_were_answered(&machine, "other");
    eprintln!("{asked} visits to the site of somebody else until ours was gone");
}

fn a_broken_one_stops_an_install(machine: &Booted) {
    const DIGEST: &str = "find /etc/apache2 /var/lib/camcops-provision -printf '%p %m %u:%g %T@ %l\\n' | sort
        find /etc/apache2 /var/lib/camcops-provision -type f -print0 | sort --zero-terminated | xargs --null sha256sum";
    machine.run(
        "echo NoSuchDirective on > /etc/apache2/sites-available/broken.conf
         ln -s ../sites-available/broken.conf /etc/apache2/sites-enabled/",
    );
    let before = machine.run(DIGEST);
    let (code, out, told) = machine.tried(
        "camcops-provision install --yes --wheelhouse /srv/wheelhouse --set 'web.server_names=[\"machine\",\"other.example\"]'",
    );
    assert_eq!(code, 78, "{out}{told}");
    assert!(
        told.contains("Invalid command 'NoSuchDirective'") && told.contains("broken.conf"),
        "{told}"
    );
    assert_eq!(machine.run(DIGEST), before);
    assert_eq!(site::page(machine, "login", "").status, 200);
    machine
        .run("rm /etc/apache2/sites-enabled/broken.conf /etc/apache2/sites-available/broken.conf");
}
