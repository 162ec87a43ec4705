//! The pages in docs as an administrator follows them: each command as it is printed, in its order, on a machine with a
//! site. What a recipe needs besides, such as the hospital's authority, is there before it.

use crate::harness::booted::Booted;
use crate::harness::installed::{PASSWORD, SUPERUSER, installed};
use crate::harness::pages::{blocks, pages};
use crate::harness::site::wait_until_well;

/// What has to be there before a line of a page can be typed, by how the line begins.
const BEFORE: &[(&str, &str)] = &[
    // Whoever types the first line of all has the name in DNS.
    ("sudo camcops-provision doctor --preflight", "echo 127.0.0.1 camcops.example.org research.example.org >> /etc/hosts"),
    (
        "sudo camcops-provision cert install",
        "openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=Hospital -keyout root.key -out root.pem -addext keyUsage=critical,keyCertSign 2> /dev/null
         openssl req -newkey rsa:2048 -nodes -subj /CN=Issuing -keyout chain.key -out chain.csr 2> /dev/null
         printf 'basicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign\n' > ca.ext
         printf 'subjectAltName=DNS:camcops.example.org\nextendedKeyUsage=serverAuth\n' > server.ext
         openssl x509 -req -days 20 -in chain.csr -CA root.pem -CAkey root.key -CAcreateserial -extfile ca.ext -out chain.pem 2> /dev/null
         openssl x509 -req -days 10 -in camcops.csr -CA chain.pem -CAkey chain.key -CAcreateserial -extfile server.ext -out camcops.pem 2> /dev/null
         cp root.pem /usr/local/share/ca-certificates/hospital.crt; update-ca-certificates > /dev/null 2>&1",
    ),
    (
        "sudo camcops-provision cert install --pfx",
        "openssl req -newkey rsa:2048 -nodes -subj /CN=camcops.example.org -keyout windows.key -out windows.csr 2> /dev/null
         openssl x509 -req -days 10 -in windows.csr -CA chain.pem -CAkey chain.key -CAcreateserial -extfile server.ext -out windows.pem 2> /dev/null
         openssl pkcs12 -export -in windows.pem -inkey windows.key -certfile chain.pem -passout pass:sesame-1 -out camcops.pfx
         echo sesame-1 > /root/pfx-password; chmod 600 /root/pfx-password",
    ),
    // By hand in CamCOPS, as the recipe says.
    (
        "sudo camcops-provision config validate",
        "mariadb camcops --execute \"INSERT IGNORE INTO _idnum_definitions (which_idnum, description, short_description) VALUES (1, 'Number', 'No')\"",
    ),
    (
        "sudo camcops-provision --instance research install",
        "echo correct horse battery > /root/boss; chmod 600 /root/boss",
    ),
];

/// Recipes that are followed elsewhere, as they need what this machine has not, each with the test that does.
const ELSEWHERE: &[(&str, &str)] = &[
    ("Colleagues who are not root", "tests/staged.rs"),
    ("An external database", "databases::tables::tables_are_made_on_other_machines"),
    ("Backups to a NAS", "backup::a_site_is_backed_up_and_brought_back"),
    ("Move to another machine", "backup::a_site_is_backed_up_and_brought_back"),
    ("A machine without a network", "bundle::from_a_bundle_alone_to_a_site"),
    ("Behind a proxy", "release::the_way_to_the_index_is_the_administrators"),
    ("Behind somebody else's web server", "tests/sites.rs"),
    ("Upgrade, and back", "a_new_version::a_site_is_upgraded_and_brought_back"),
    ("Remove it", "undone::leaves_and_comes_back_and_leaves_for_good"),
];

#[test]
#[ignore = "thorough: each command of the pages, and two sites"]
fn its_commands_work_as_they_are_printed() {
    let Some((machine, _)) = installed() else {
        return;
    };
    wait_until_well(&machine, "the first boot");
    // Root is who types here.
    machine.run("printf '#!/bin/sh\nexec \"$@\"\n' > /usr/bin/sudo; chmod 755 /usr/bin/sudo");
    let all = pages();
    let page = |name: &str| all.iter().find(|(path, _)| path.ends_with(name)).unwrap().1;
    let (mut typed, mut left) = (0, Vec::new());
    for name in ["first-hour.md", "cookbook.md"] {
        let settings = blocks(page(name), "toml");
        for (heading, text) in blocks(page(name), "sh") {
            if ELSEWHERE.iter().any(|(known, _)| *known == heading) {
                left.push(heading);
                continue;
            }
            for (_, content) in settings.iter().filter(|(of, _)| *of == heading) {
                let path = content.lines().next().unwrap().trim_start_matches("# ");
                machine.run(&format!("install --directory $(dirname {path}); cat > {path} <<'END'\n{content}END\n"));
            }
            for line in text.lines() {
                if line.contains("tls.mode certbot") {
                    // The authority would have to reach this machine: certbot::* has one of its own.
                    break;
                }
                type_line(&machine, heading, line);
                typed += 1;
            }
        }
    }
    eprintln!("{typed} commands were typed; elsewhere: {left:?}");
    assert!(typed > 40, "{typed}");
    let unknown: Vec<_> = ELSEWHERE.iter().filter(|(heading, _)| !left.contains(heading)).collect();
    assert!(unknown.is_empty(), "no such recipes: {unknown:?}");
    wait_until_well(&machine, "all recipes");
}

/// Types a line as it is printed; where it would ask, the answers are those of the pages.
fn type_line(machine: &Booted, heading: &str, line: &str) {
    for (begin, script) in BEFORE {
        if line.starts_with(begin) {
            machine.run(&format!("cd /root; {script}"));
        }
    }
    let mut typed = line.to_owned();
    if ["install", "cookie"].iter().any(|verb| line.ends_with(&format!(" {verb}"))) {
        typed += " --yes";
    }
    if line.contains("--instance research install") {
        typed += &format!(" --superuser {SUPERUSER} --superuser-password-file /root/boss");
    }
    if line.ends_with("--pfx camcops.pfx") {
        typed += " --password-file /root/pfx-password";
    }
    if line.ends_with("EMAIL_HOST_PASSWORD") {
        typed = format!("echo {PASSWORD} | {typed} --from-file -");
    }
    let (code, out, why) = machine.tried(&format!("cd /root; {typed}"));
    assert_eq!(code, 0, "{heading}: {line}\n{out}\n{why}");
    eprintln!("{heading}: {line}");
}
