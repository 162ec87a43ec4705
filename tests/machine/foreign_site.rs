//! Other people's sites under the same Apache: a broken one is not touched and stops an install, a healthy one is served
//! all the time; and visitors of our own do not notice when its configuration changes.

use crate::harness::booted::Booted;
use crate::harness::installed::installed;
use crate::harness::site::{self, OTHERS, SERVICES, all_were_answered, visit, wait_until_well};
use crate::harness::tablet::Tablets;

const APACHE: &str = "systemctl show --property=MainPID --value apache2";

#[test]
fn lives_beside_others() {
    let Some((machine, _)) = installed() else {
        return;
    };
    wait_until_well(&machine, "the first boot");
    let tablets = Tablets::few(&machine);
    a_broken_one_stops_an_install(&machine);

    machine.run(OTHERS);
    visit(&machine, "other", "http://127.0.0.1:8081/");
    visit(&machine, "ours", "https://machine/login");
    let before = site::processes(&machine);
    let apache = machine.run(APACHE);
    // What only Apache reads, and what the server reads too.
    for (change, restarted) in [("web.server_names=[\"machine\",\"other.example\"]", false), ("web.timeout_s=77", true)]
    {
        machine.run(&format!("camcops-provision install --yes --wheelhouse /srv/wheelhouse --set '{change}'"));
        wait_until_well(&machine, change);
        let now = site::processes(&machine);
        assert_eq!(machine.run(APACHE), apache, "{change}");
        for service in SERVICES {
            let unit = site::unit(service);
            let is_meant = restarted && service == "server";
            assert_eq!(now[&unit] != before[&unit], is_meant, "{change}: {service}");
        }
    }
    // Nobody tells them of another path.
    tablets.end_unnoticed();
    let asked = all_were_answered(&machine, "ours");
    eprintln!("{asked} visits to our site while its configuration changed twice");
    moves_to_a_path(&machine);

    machine.run("camcops-provision uninstall --yes");
    let asked = all_were_answered(&machine, "other");
    eprintln!("{asked} visits to the site of somebody else until ours was gone");
}

/// Asks for the login page ten times a second until the site has moved to `/moved`; prints for how long pages came whose
/// links Apache did not know yet.
const MOVING: &str = r#"
while [ ! -e /root/moved ]; do
    (
        began=$(date +%s.%N)
        links=$(curl --silent --fail --insecure --max-time 60 https://machine/login | grep --count https://machine/moved/)
        echo "$began $links $(date +%s.%N)" >> /root/moves
    ) &
    sleep 0.1
done
wait
awk '$2 && (!first || $3 < first) { first = $3 } $2 && $1 > last { last = $1 }
    END { printf "%.1f\n", (last > first ? last - first : 0) }' /root/moves > /root/astray
"#;

/// The web server and Apache learn of another path one right after the other.
fn moves_to_a_path(machine: &Booted) {
    std::fs::write(machine.path("/root/moving"), MOVING).unwrap();
    machine.run(
        "bash /root/moving > /dev/null 2>&1 &
         camcops-provision install --yes --wheelhouse /srv/wheelhouse --set web.path=/moved
         echo $SECONDS > /root/took
         touch /root/moved
         wait",
    );
    let number = |file| -> f64 { machine.run(&format!("cat {file}")).trim().parse().unwrap() };
    let (astray, took) = (number("/root/astray"), number("/root/took"));
    eprintln!("for {astray} s of {took} s a page of the site that moved led astray");
    // How long a step takes hangs on the machine; that Apache comes next does not.
    assert!(astray < took / 4.0, "{astray} of {took}");
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
    assert!(told.contains("Invalid command 'NoSuchDirective'") && told.contains("broken.conf"), "{told}");
    assert_eq!(machine.run(DIGEST), before);
    assert_eq!(site::page(machine, "login", "").status, 200);
    machine.run("rm /etc/apache2/sites-enabled/broken.conf /etc/apache2/sites-available/broken.conf");
}
