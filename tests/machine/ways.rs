//! Less usual ways to the site: another port, no Apache.

use crate::harness::booted::Booted;
use crate::harness::installed::{bare, install, installed};
use crate::harness::site::wait_until_well;
use crate::harness::tablet::Tablets;
use std::fs;

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

/// Nothing in front of CamCOPS, which has the whole work of HTTPS itself.
const OWN_HTTPS: &str = "[web]\nfrontend = \"none\"\nbind = \"0.0.0.0:8443\"\n";

const REGISTERED: &str = "operation=check_device_registered&device=camcops-provision&camcops_version=2.4.23";

#[test]
#[ignore = "thorough: an installation of its own, for a way that few take"]
fn camcops_serves_https_itself() {
    let Some(machine) = bare_with(OWN_HTTPS) else {
        return;
    };
    wait_until_well(&machine, "the installation");
    machine.run("! command -v apache2; cp /etc/camcops/tls/camcops.crt /root/trusted.pem");
    let ask = |more: &str| {
        machine.run(&format!("curl --silent --show-error --max-time 60 --include --cacert /root/trusted.pem {more}"))
    };
    let page = ask(
        "--header 'X-Forwarded-Host: evil.example' --header 'X-Script-Name: /evil' --header 'X-Forwarded-Proto: http' https://machine:8443/login",
    );
    assert!(page.contains("CamCOPS") && page.to_lowercase().contains("secure"), "{page}");
    assert!(!page.contains("evil") && page.contains("https://machine:8443/"), "{page}");
    let said = ask(&format!("--data '{REGISTERED}' https://machine:8443/api"));
    assert!(said.contains("Unregistered device"), "{said}");
    let (_, plain, _) = machine.tried("curl --silent --max-time 20 http://machine:8443/login");
    assert!(!plain.contains("CamCOPS"), "{plain}");
    // By an address that a sandbox for the loopback alone would keep it from.
    machine.run("ip address add 192.0.2.7/32 dev lo");
    machine.run("curl --silent --fail --insecure --max-time 20 https://192.0.2.7:8443/login > /dev/null");
    let told = machine.run("camcops-provision urls; camcops-provision cert show; camcops-provision wait --for web");
    assert!(told.contains("https://machine:8443/") && told.contains("issued by    itself"), "{told}");
    assert_eq!(machine.run("stat --format='%a %U:%G' /etc/camcops/tls/camcops.key").trim(), "640 root:www-data");
    let (_, told, _) = machine.tried("camcops-provision doctor web certificate ports");
    assert!(!told.lines().any(|line| line.starts_with("failed")), "{told}");
    nothing_is_pending(&machine);

    // Another certificate is served by another process.
    let server = "systemctl show --property=MainPID --value camcops-server@camcops";
    let before = machine.run(server);
    machine.run("camcops-provision --quiet install --yes --set 'web.server_names=[\"machine\",\"second\"]'");
    assert_ne!(machine.run(server), before);
    let names = machine.run(
        "openssl s_client -connect 127.0.0.1:8443 < /dev/null 2> /dev/null | openssl x509 -noout -ext subjectAltName",
    );
    assert!(names.contains("DNS:second"), "{names}");
    let (code, _, why) = machine.tried("camcops-provision cert renew");
    assert_eq!(code, 78, "{why}");

    // One of an authority, whose key the account can't read at first.
    machine.run(
        "mkdir --mode=755 /etc/hospital; cd /etc/hospital
         openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 300 -subj /CN=Hospital -keyout ca.key -out ca.crt 2> /dev/null
         openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=machine -keyout site.key -out site.csr 2> /dev/null
         printf 'subjectAltName=DNS:machine\nextendedKeyUsage=serverAuth\n' > site.ext
         openssl x509 -req -in site.csr -CA ca.crt -CAkey ca.key -days 90 -extfile site.ext -out site.crt 2> /dev/null
         chmod 600 site.key; cp ca.crt /root/trusted.pem
         camcops-provision config set tls.certificate /etc/hospital/site.crt
         camcops-provision config set tls.key /etc/hospital/site.key
         camcops-provision config set tls.mode files",
    );
    let (code, _, why) = machine.tried("camcops-provision install --yes");
    assert_eq!(code, 65, "{why}");
    assert!(why.contains("www-data, which can't read this key"), "{why}");
    machine.run("chgrp www-data /etc/hospital/site.key; chmod 640 /etc/hospital/site.key; camcops-provision --quiet install --yes");
    assert!(ask("https://machine:8443/login").contains("CamCOPS"));
    nothing_is_pending(&machine);

    // CherryPy, which must not be handed the socket that systemd has for Gunicorn; and back, on both families.
    for (key, value) in [("backend", "cherrypy"), ("backend", "gunicorn"), ("bind", "[::]:8443")] {
        machine
            .run(&format!("camcops-provision config set web.{key} '{value}'; camcops-provision --quiet install --yes"));
        assert!(ask("https://machine:8443/login").contains("CamCOPS"), "{value}");
        nothing_is_pending(&machine);
    }
}

/// A bare machine on which CamCOPS is installed with these settings.
fn bare_with(settings: &str) -> Option<Booted> {
    let machine = bare()?;
    machine.run(
        "mkdir /etc/camcops; apt-get install --quiet --yes --no-install-recommends ca-certificates curl > /dev/null",
    );
    fs::write(machine.path("/etc/camcops/provision.toml"), settings).unwrap();
    install(machine.command("camcops-provision"));
    Some(machine)
}

/// CherryPy behind Apache, as an account with a number of the administrator's choice.
const CHERRYPY: &str = "[web]\nbackend = \"cherrypy\"\n[account]\nuser = \"camcops\"\nuid = 4321\n";

#[test]
#[ignore = "thorough: an installation of its own, for a server that few choose"]
fn cherrypy_serves_a_site_as_an_account_with_a_number_of_choice() {
    let Some(machine) = bare_with(CHERRYPY) else {
        return;
    };
    wait_until_well(&machine, "the first boot");
    let ask = |path: &str, more: &str| {
        machine.run(&format!("curl --silent --insecure --max-time 60 --include {more} https://machine/{path}"))
    };
    let page = ask("login", "--header 'X-Forwarded-Host: evil.example'");
    assert!(page.contains("CamCOPS") && page.contains("https://machine/") && !page.contains("evil"), "{page}");
    let said = ask("api", &format!("--data '{REGISTERED}'"));
    assert!(said.contains("Unregistered device"), "{said}");
    assert_eq!(machine.run("id --user camcops").trim(), "4321");
    let processes = machine.run(
        "for service in server workers scheduler monitor; do
             pid=$(systemctl show --property=MainPID --value camcops-$service@camcops)
             stat --format=%u /proc/$pid; tr '\\0' ' ' < /proc/$pid/cmdline; echo
         done",
    );
    assert_eq!(processes.lines().filter(|line| *line == "4321").count(), 4, "{processes}");
    assert!(processes.contains("serve_cherrypy"), "{processes}");
    nothing_is_pending(&machine);

    // A kill is survived, and a restart; a file's owner follows no other number.
    machine.run("systemctl kill --signal=KILL camcops-server@camcops");
    wait_until_well(&machine, "after it was killed");
    machine.run("camcops-provision restart server; camcops-provision wait --for web");
    assert!(ask("login", "").contains("CamCOPS"));
    machine.run("camcops-provision config set web.bind 127.0.0.1:8100; camcops-provision --quiet install --yes");
    assert!(ask("login", "").contains("CamCOPS"));
    machine.run("camcops-provision config unset web.backend; camcops-provision --quiet install --yes");
    assert!(ask("login", "").contains("CamCOPS"));
    nothing_is_pending(&machine);
    let (_, told, _) = machine.tried("camcops-provision doctor");
    let wrong: Vec<&str> = told.lines().filter(|line| line.starts_with("failed")).collect();
    assert!(wrong.is_empty(), "{told}");
    let (code, _, why) = machine.tried("camcops-provision --set account.uid=4322 install --yes");
    assert_eq!(code, 73, "{why}");
    assert!(why.contains("has user id 4321, not 4322"), "{why}");
}

#[test]
#[ignore = "thorough: certificate.rs has the same steps with other certificates"]
fn an_authority_of_the_site_is_trusted_once() {
    let Some((machine, _)) = installed() else {
        return;
    };
    wait_until_well(&machine, "the first boot");
    let tablets = Tablets::few(&machine);
    machine.run("camcops-provision config set tls.mode local-ca; camcops-provision --quiet install --yes");
    nothing_is_pending(&machine);
    machine.run(
        "curl --silent --fail --insecure --dump-header /root/header --output /root/authority.crt https://machine/camcops-authority.crt
         grep --ignore-case 'content-type: application/x-x509-ca-cert' /root/header
         cmp /root/authority.crt /etc/camcops/tls/camcops-authority.crt",
    );
    let kept = machine.run("stat --format='%a %U:%G %n' /etc/camcops/tls/*");
    assert!(kept.contains("600 root:root /etc/camcops/tls/camcops-authority.key"), "{kept}");
    let fingerprint =
        machine.run("openssl x509 -in /root/authority.crt -noout -fingerprint -sha256 | cut --delimiter== --fields=2");
    let told = machine.run("camcops-provision cert show; camcops-provision status");
    assert!(told.contains(fingerprint.trim()) && told.contains("of the site's own authority"), "{told}");
    machine.run("cp /root/authority.crt /usr/local/share/ca-certificates/; update-ca-certificates > /dev/null; camcops-provision cert verify");

    // Each renewal, with the key or another one, is trusted by who trusts the authority.
    let trusted = "curl --silent --fail --cacert /root/authority.crt https://machine/login > /dev/null
        openssl s_client -connect 127.0.0.1:443 -servername machine < /dev/null 2> /dev/null | openssl x509 -noout -fingerprint";
    let mut seen = vec![machine.run(trusted)];
    for renew in ["cert renew", "cert renew --new-key", "--set tls.organization=Hospital install --yes"] {
        machine.run(&format!("camcops-provision --quiet {renew}"));
        let now = machine.run(trusted);
        assert!(!seen.contains(&now), "{renew}: {now}");
        seen.push(now);
    }
    machine.run(
        "camcops-provision --quiet install --yes; camcops-provision cert verify; camcops-provision doctor certificate",
    );
    nothing_is_pending(&machine);
    tablets.end_unnoticed();

    // A name that it may not sign for takes another one, and that is said before.
    let name = "--set 'web.server_names=[\"machine\",\"other.test\"]'";
    let plan = machine.run(&format!("camcops-provision {name} plan"));
    assert!(
        plan.contains("everybody has to trust a new authority") && plan.contains("may not sign for other.test"),
        "{plan}"
    );
    machine.run(&format!("camcops-provision {name} --quiet install --yes"));
    let (code, _, _) = machine.tried("curl --silent --fail --cacert /root/authority.crt https://machine/login");
    assert_eq!(code, 60);

    // Back to a certificate that nobody has signed, and nothing of the authority stays.
    machine.run("camcops-provision config unset tls.mode; camcops-provision --quiet install --yes");
    nothing_is_pending(&machine);
    machine.run("! ls /etc/camcops/tls/*authority* /var/lib/camcops-pages/authority.crt 2> /dev/null");
    let told = machine.run("camcops-provision cert show");
    assert!(told.contains("issued by    itself"), "{told}");
    let page = machine.run("curl --silent --insecure https://machine/camcops-authority.crt");
    assert!(!page.contains("BEGIN CERTIFICATE"), "{page}");
}

fn nothing_is_pending(machine: &Booted) {
    let (code, pending, why) = machine.tried("camcops-provision plan --exit-code");
    assert_eq!(code, 0, "{pending}{why}");
}
