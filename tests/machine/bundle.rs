//! From a machine with a network to one that has none, by one file.

use crate::harness::booted::{Booted, Ground};
use crate::harness::installed::{SUPERUSER, bare_ground, install_by};
use crate::harness::site::wait_until_well;
use crate::harness::{Machine, twin};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;

/// What a machine without a network does not have.
const NO_SOURCES: &str = "rm -rf /var/cache/apt/archives/* /var/lib/apt/lists/* /etc/apt/sources.list*";

const FILE: &str = "/root/camcops.tar.zst";
const ADVISORIES: &str = include_str!("../fixtures/advisories/pypi-2026-11-30.jsonl");

#[test]
#[ignore = "thorough: a whole install"]
fn from_a_bundle_alone_to_a_site() {
    let Some(twin) = twin::machine() else { return };
    let bundle = create(&twin);
    let target = Booted::on(Ground { wheelhouse: None, ..bare_ground() });
    target.run(NO_SOURCES);
    fs::copy(bundle, target.path(FILE)).unwrap();
    drop(twin);
    let packages = || target.run("dpkg-query --show");
    let before = packages();
    what_is_wrong_is_refused(&target);
    assert_eq!(packages(), before);
    cut_while_it_is_unpacked(&target);

    let said = install(&target);
    assert!(said.contains("The CamCOPS application is running at https://machine/"), "{said}");
    wait_until_well(&target, "an install from a bundle");
    let brought = "/var/lib/camcops-provision/advisories/bundle.json";
    assert_eq!(target.run(&format!("stat --format %a:%U {brought}")), "600:root\n");
    let known = "camcops-provision --json vulnerabilities | grep '\"advisories\": 108'";
    target.run(known);
    // Neither the disk nor the machine is left with what only the building side needs.
    target.run(
        "[ ! -e /var/lib/camcops-provision/.bundle ]
         ! dpkg-query --show gcc 2> /dev/null
         ! command -v gcc",
    );
    let (code, pending, _) = target.tried("camcops-provision plan --exit-code");
    assert_eq!(code, 0, "{pending}");
    let again = target.run("camcops-provision install --yes");
    assert!(again.starts_with("nothing to do\n"), "{again}");
    target.run(&format!("rm {brought}"));
    let again = install(&target);
    assert!(again.starts_with("nothing to do\n"), "{again}");
    target.run(known);
    target.run(&format!("rm {brought}; camcops-provision upgrade --yes --offline --bundle {FILE}; {known}"));
    assert_eq!(target.tried("camcops-provision plan --exit-code").0, 0);
    let failed = target.run("systemctl list-units --failed --plain --no-legend");
    assert_eq!(failed, "");
}

/// Makes one on the twin, which is left as it was.
fn create(twin: &Machine) -> PathBuf {
    let before = twin.run("dpkg-query --show; ls -AR /var/lib/apt /var/cache/apt");
    let tried = |arguments: &str| {
        let output = twin
            .command("bash")
            .args(["-c", &format!("camcops-provision bundle create {arguments}")])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap(), said)
    };
    // There is no index of packages here.
    let (code, said) = tried("--out /root/none.tar.zst");
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("can't be reached"), "{said}");
    twin.run("mv /etc/apt/sources.list /root/; echo 'deb http://127.0.0.1:9/ x main' > /etc/apt/sources.list");
    let (code, said) = tried("--wheelhouse /srv/wheelhouse --out /root/none.tar.zst");
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("package archive"), "{said}");
    twin.run("mv /root/sources.list /etc/apt/; [ -z \"$(ls -A /root | grep none)\" ]");

    fs::write(twin.path("/root/pypi.jsonl"), ADVISORIES).unwrap();
    let command = "bundle create --wheelhouse /srv/wheelhouse --advisories /root/pypi.jsonl --out";
    let begin = std::time::Instant::now();
    let told: Value =
        serde_json::from_str(&twin.run(&format!("camcops-provision --json {command} {FILE}; rm /root/pypi.jsonl")))
            .unwrap();
    assert_eq!(told["advisories"]["PyPI"]["records"], 108, "{told:#}");
    eprintln!("a bundle of {} MiB in {:.0} s", told["size"].as_u64().unwrap() >> 20, begin.elapsed().as_secs_f64());
    let built = told["built"].as_array().unwrap();
    assert!(built.iter().any(|one| one["pin"] == "py-bcrypt==0.4"), "{told:#}");
    assert_eq!(twin.run(&format!("sha256sum {FILE} | cut -c -64")).trim(), told["sha256"]);
    assert_eq!(twin.run("dpkg-query --show; ls -AR /var/lib/apt /var/cache/apt"), before);
    assert_eq!(twin.run("ls -A /root | grep camcops").trim(), "camcops.tar.zst");
    let (code, said) = tried(&format!("--out {FILE}"));
    assert_eq!(code, 73, "{said}");
    twin.path(FILE)
}

fn what_is_wrong_is_refused(target: &Booted) {
    let refused = |arguments: &str, code: i32, words: &str| {
        let (told, _, why) = target.tried(&format!("camcops-provision {arguments}"));
        assert_eq!(told, code, "{arguments}: {why}");
        assert!(why.contains(words), "{arguments}: {why}");
    };
    refused("install --yes --offline", 69, "these packages are missing");
    target.run(&format!("camcops-provision bundle verify {FILE}"));
    // One bit, in the middle of all of it.
    target.run(&format!(
        "cp {FILE} /root/bad
         middle=$(($(stat --format=%s {FILE}) / 2))
         byte=$(tail --bytes=+$((middle + 1)) {FILE} | head --bytes=1 | od -An -tu1)
         printf \"\\\\$(printf %o $((byte ^ 1)))\" | dd of=/root/bad bs=1 seek=$middle conv=notrunc status=none"
    ));
    refused("bundle verify /root/bad", 65, "is damaged");
    refused("install --yes --bundle /root/bad", 65, "is damaged");
    target.run("[ ! -e /var/lib/camcops-provision/.bundle ]; truncate --size=-1 /root/bad");
    refused("bundle verify /root/bad", 65, "is damaged");
    refused("install --yes --bundle /root/none", 65, "No such file");
    target.run("rm /root/bad; cp /etc/os-release /root/; rm /etc/os-release; sed s/^VERSION_ID=.*/VERSION_ID=12.9/ /root/os-release > /etc/os-release");
    let words = "is for debian 12 on";
    refused(&format!("bundle verify {FILE}"), 65, words);
    refused(&format!("install --yes --bundle {FILE}"), 65, words);
    target.run("rm /etc/os-release; ln -s ../usr/lib/os-release /etc/os-release");
    refused(
        &format!("--set camcops.version=2.4.23 install --yes --bundle {FILE}"),
        65,
        "but this machine needs 2.4.23",
    );
}

fn cut_while_it_is_unpacked(target: &Booted) {
    let mut child = target
        .command("camcops-provision")
        .args(["install", "--yes", "--bundle", FILE])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let told = BufReader::new(child.stderr.take().unwrap());
    let at_it = told.lines().any(|line| line.unwrap().contains("checking and unpacking"));
    assert!(at_it);
    target.run("until [ -e /var/lib/camcops-provision/.bundle/wheels ]; do sleep 0.01; done");
    crate::harness::kill(&mut child);
    target.run("[ -e /var/lib/camcops-provision/.bundle ]");
}

fn install(target: &Booted) -> String {
    let command = "install --yes --offline --superuser-password-file - --bundle";
    let mut arguments: Vec<&str> = command.split(' ').collect();
    arguments.extend([FILE, "--superuser", SUPERUSER]);
    install_by(target.command("camcops-provision"), &arguments).1
}
