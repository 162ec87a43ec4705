//! PDF documents by one engine and by the other, on a site that is in use.

use crate::harness::booted::{Booted, archives};
use crate::harness::installed::{PASSWORD, SUPERUSER, installed};
use crate::harness::sandbox::run_copy;
use crate::harness::site::{URL, wait_until_well};
use std::fs;

const VISITOR: &str = include_str!("harness/task_pdf.py");
const CHECK: &str = include_str!("../../src/doctor/end_to_end/pdf.py");
const READ: &str = "import sys
from pypdf import PdfReader
print(' '.join(' '.join(page.extract_text() for page in PdfReader('/root/task.pdf').pages).split()))";
/// What the machine's cache does not have.
const PACKAGES: [&str; 3] = ["libpango-1.0-0", "libpangoft2-1.0-0", "libharfbuzz-subset0"];

#[test]
#[ignore = "thorough: another release is built, and the site is changed to it and back"]
fn the_engine_is_changed_and_changed_back_on_a_site_in_use() {
    let Some((machine, _)) = installed() else {
        return;
    };
    wait_until_well(&machine, "the first boot");
    machine.run("camcops-provision --set site.environment=test run -- dev_add_dummy_data --config /etc/camcops/camcops.conf --confirm_add_dummy_data > /dev/null 2>&1");
    let page = visit_task(&machine);
    assert!(page.contains("Patient Health Questionnaire-9"), "{page}");
    assert_eq!(engine(&machine), "wkhtmltopdf");
    let before = release(&machine);

    machine.run("camcops-provision config set site.pdf_engine weasyprint");
    what_is_missing_is_told(&machine);
    fetch_packages(&machine);
    machine.run("camcops-provision install --yes --wheelhouse /srv/wheelhouse");
    assert_eq!(engine(&machine), "weasyprint");
    assert_ne!(release(&machine), before);
    assert_eq!(machine.tried("camcops-provision plan --exit-code").0, 0);
    assert!(!machine.run("cat /etc/camcops/camcops.conf").contains("WKHTMLTOPDF"));
    wait_until_well(&machine, "the other engine");
    let page = visit_task(&machine);
    assert!(page.contains("Patient Health Questionnaire-9") && page.contains("Page 1 of 1."), "{page}");
    for service in ["server", "workers"] {
        let shown = machine.run(&format!(
            "systemctl show --property=MemoryDenyWriteExecute --property=Environment camcops-{service}@camcops"
        ));
        assert!(shown.contains("MemoryDenyWriteExecute=yes") && !shown.contains("JSC_useJIT"), "{shown}");
        let made = in_sandbox(&machine, service);
        assert!(made.contains(" bytes with the font DejaVu-"), "{service}: {made}");
    }
    nothing_is_logged_of_it(&machine);
    a_missing_library_is_told(&machine);

    machine.run("camcops-provision config set site.pdf_engine wkhtmltopdf && camcops-provision install --yes");
    assert_eq!(release(&machine), before);
    wait_until_well(&machine, "the first engine again");
    let page = visit_task(&machine);
    assert!(page.contains("Patient Health Questionnaire-9"), "{page}");
    for service in ["server", "workers"] {
        let made = in_sandbox(&machine, service);
        assert!(made.contains(" bytes with the font DejaVu"), "{service}: {made}");
    }
    assert_eq!(machine.tried("camcops-provision plan --exit-code").0, 0);
}

/// A person logs in, and looks at the first PHQ-9 as a PDF document: its words.
fn visit_task(machine: &Booted) -> String {
    fs::write(machine.path("/root/task_pdf.py"), VISITOR).unwrap();
    fs::write(machine.path("/root/read.py"), READ).unwrap();
    // The password stands in a file, as the others that are looked for do.
    fs::write(machine.path("/root/person"), PASSWORD).unwrap();
    machine.run(&format!(
        "python3 /root/task_pdf.py {URL} {SUPERUSER} phq9 /root/task.pdf < /root/person
         /usr/share/camcops/venv/bin/python /root/read.py"
    ))
}

fn status(machine: &Booted) -> serde_json::Value {
    serde_json::from_str(&machine.run("camcops-provision --json status")).unwrap()
}

fn engine(machine: &Booted) -> String {
    status(machine)["release"]["pdf_engine"].as_str().unwrap().to_owned()
}

fn release(machine: &Booted) -> String {
    status(machine)["release"]["name"].as_str().unwrap().to_owned()
}

/// Without a network: at once, with what to do, and nothing is changed.
fn what_is_missing_is_told(machine: &Booted) {
    let state =
        || machine.run("dpkg-query --show; ls -lR --time-style=full-iso /etc/camcops /usr/share/camcops | md5sum");
    let before = state();
    let (code, _, said) = machine.tried("camcops-provision install --yes --offline --wheelhouse /srv/wheelhouse");
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("apt-get install --no-install-recommends libpango-1.0-0 libpangoft2-1.0-0"), "{said}");
    assert_eq!(state(), before);
}

/// As if the machine had a network.
fn fetch_packages(machine: &Booted) {
    for archive in fs::read_dir(archives(&PACKAGES)).unwrap() {
        let archive = archive.unwrap();
        let name = archive.file_name().into_string().unwrap();
        fs::copy(archive.path(), machine.path(&format!("/var/cache/apt/archives/{name}"))).unwrap();
    }
}

/// What the doctor's look says in the surroundings of a service.
fn in_sandbox(machine: &Booted, service: &str) -> String {
    let path = "/usr/local/lib/pdf.py";
    fs::write(machine.path(path), CHECK).unwrap();
    run_copy(machine, service, &format!("/usr/share/camcops/venv/bin/python3 {path}"), "start");
    machine.run("cat /var/log/probe.out /var/log/probe.err")
}

fn nothing_is_logged_of_it(machine: &Booted) {
    let log = machine.run("journalctl --no-pager --boot --output=cat --unit='camcops-*@camcops.service'");
    let about = |line: &&str| {
        ["weasyprint", "fonttools", "fontconfig", "pango"].iter().any(|word| line.to_lowercase().contains(word))
    };
    let lines: Vec<&str> = log.lines().filter(about).collect();
    assert!(lines.is_empty(), "{lines:?}");
}

/// The site goes on without it.
fn a_missing_library_is_told(machine: &Booted) {
    machine.run(
        "mkdir /root/away; mv /usr/lib/*-linux-gnu/libpango-1.0.so* /root/away/; camcops-provision restart server",
    );
    wait_until_well(machine, "a library that is missing");
    let (code, told, _) = machine.tried("camcops-provision doctor e2e.pdf");
    assert_ne!(code, 0, "{told}");
    assert!(told.contains("no PDF by WeasyPrint") && told.contains("libpango"), "{told}");
    assert!(told.contains("apt-get install --reinstall libpango-1.0-0"), "{told}");
    machine.run(
        "mv /root/away/* /usr/lib/x86_64-linux-gnu/; camcops-provision doctor e2e.pdf
         mv /usr/share/fonts /root/away/",
    );
    let (_, told, _) = machine.tried("camcops-provision doctor e2e.pdf");
    assert!(told.contains("this machine has no font"), "{told}");
    machine.run("mv /root/away/fonts /usr/share/; camcops-provision restart server");
    wait_until_well(machine, "all is there again");
}
