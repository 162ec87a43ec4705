//! Less usual ways to the site: another port, no Apache.

use crate::harness::booted::Booted;
use crate::harness::installed::installed;
use crate::harness::site::wait_until_well;

const APACHE: &str = "systemctl show --property=MainPID --value apache2";

#[test]
#[ignore = "thorough: the rendered configuration is served by tests/sites/addresses.rs"]
fn the_site_moves_to_a_port_and_to_no_apache() {
    let Some((machine, _)) = installed() else {
        return;
    };
    wait_until_well(&machine, "the first boot");
    let apache = machine.run(APACHE);
    machine.run("camcops-provision config set web.https_port 8443; camcops-provision --quiet install --yes");
    let page = machine.run("curl --silent --insecure --fail https://machine:8443/login");
    assert!(page.contains("CamCOPS"), "{page}");
    nothing_is_pending(&machine);
    let told = machine.run("camcops-provision doctor ports; camcops-provision urls");
    assert!(told.contains("8443, used by apache2") && told.contains("https://machine:8443/"), "{told}");

    // Somebody else has the next one, and Apache would end if it were told to listen there too.
    machine.run("systemd-run --quiet --unit=other python3 -m http.server 8444; sleep 1");
    let (code, _, why) = machine.tried("camcops-provision --set web.https_port=8444 install --yes");
    assert_eq!(code, 73, "{why}");
    assert!(why.contains("port 8444 is held by python3"), "{why}");
    let (code, _, why) = machine.tried("camcops-provision --set web.http_port=8444 install --yes");
    assert_eq!(code, 73, "{why}");
    assert!(why.contains("choose another web.http_port"), "{why}");

    machine.run("camcops-provision config unset web.https_port; camcops-provision --quiet install --yes");
    machine.run("! (exec 3<> /dev/tcp/127.0.0.1/8443) 2> /dev/null; ! ls /etc/apache2/*/*port-8443*");
    nothing_is_pending(&machine);

    // What is no longer served is no longer served at once.
    machine.run("camcops-provision config set web.frontend none; camcops-provision --quiet install --yes");
    let (_, page, _) = machine.tried("curl --silent --insecure --max-time 20 https://machine/login");
    assert!(!page.contains("CamCOPS"), "{page}");
    nothing_is_pending(&machine);
    assert_eq!(machine.run(APACHE), apache, "Apache is never restarted");
}

fn nothing_is_pending(machine: &Booted) {
    let (code, pending, why) = machine.tried("camcops-provision plan --exit-code");
    assert_eq!(code, 0, "{pending}{why}");
}
