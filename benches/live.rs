//! What a provisioned site costs, as ratios, on a machine that was just installed: `cargo bench --bench live`, as root; or
//! a part of it: `cargo bench --bench live -- nothing tables build site`.
//!
//! It says how long an `install` takes that finds nothing to do, against what it asks; a build of the application against
//! plain pip; the first tables against plain `upgrade_db`; and login pages per second and memory against the same
//! CamCOPS with the configuration that it demonstrates itself.

#![allow(clippy::print_stdout)] // printing the figures is what it is for
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

#[path = "../tests/machine/harness/mod.rs"]
mod harness;

use harness::booted::Booted;
use harness::installed::installed;
use harness::wheelhouse;

const RUNS: u32 = 20;
const VENV: &str = "/usr/share/camcops/venv";
const AS_SERVICE: &str = "setpriv --reuid=www-data --regid=www-data --init-groups env HOME=/var/lib/camcops";

/// Asks for the login page again and again, several at a time, and prints how many came per second.
const VISITORS: &str = r#"
import socket, threading, time
ASK = b"GET /login HTTP/1.1\r\nHost: machine\r\nConnection: close\r\n\r\n"
def visit():
    link = socket.socket(socket.AF_UNIX)
    link.connect("/run/camcops/camcops.socket")
    link.sendall(ASK)
    page = b""
    while part := link.recv(65536):
        page += part
    assert page.startswith(b"HTTP/1.1 200"), page[:200]
def visitor(until):
    while time.monotonic() < until:
        visit()
        seen.append(1)
for seconds in (5, 20):
    seen, until = [], time.monotonic() + seconds
    all = [threading.Thread(target=visitor, args=(until,)) for _ in range(8)]
    [one.start() for one in all]
    [one.join() for one in all]
print(len(seen) / seconds)
"#;

/// The memory of CamCOPS's processes in MiB, what they share counted once.
const MEMORY: &str = r#"
for process in $(pgrep --uid www-data --full camcops); do
    grep ^Pss: "/proc/$process/smaps_rollup" 2> /dev/null || true
done | awk '{ n += $2 } END { print n / 1024 }'
"#;

fn main() {
    let Some((machine, _)) = installed() else {
        return;
    };
    machine.run("camcops-provision wait --quiet --timeout 300; camcops-provision install --yes --quiet");
    let parts: Vec<String> = std::env::args().skip(1).filter(|part| !part.starts_with('-')).collect();
    for (part, run) in
        [("nothing", nothing_to_do as fn(&Booted)), ("site", site), ("tables", first_tables), ("build", build)]
    {
        if parts.is_empty() || parts.iter().any(|wanted| wanted == part) {
            run(&machine);
        }
    }
}

/// The site against CamCOPS's own demonstration.
fn site(machine: &Booted) {
    let ours = (pages(machine), memory(machine));
    demonstration(machine);
    let theirs = (pages(machine), memory(machine));
    machine.run("systemctl stop 'demo-*'; camcops-provision install --yes --quiet");
    println!(
        "login pages per second  {:6.1} against {:6.1}: {:.2} (aim 1.3 or more)",
        ours.0,
        theirs.0,
        ours.0 / theirs.0
    );
    println!(
        "memory (PSS) in MiB     {:6.0} against {:6.0}: {:.2} (aim 0.6 or less)",
        ours.1,
        theirs.1,
        ours.1 / theirs.1
    );
}

fn number(text: &str) -> f64 {
    let number = text.trim().parse();
    number.unwrap_or_else(|_| panic!("no number: {text}"))
}

/// How long a command takes in milliseconds, on average.
fn milliseconds(machine: &Booted, command: &str, runs: u32) -> f64 {
    let took = machine.run(&format!(
        "begin=$(date +%s%N)
         for _ in $(seq {runs}); do {{ {command}; }} > /dev/null 2>&1; done
         echo $(($(date +%s%N) - begin))"
    ));
    number(&took) / 1e6 / f64::from(runs)
}

fn nothing_to_do(machine: &Booted) {
    let whole = milliseconds(machine, "camcops-provision install --yes --quiet", RUNS);
    let mut parts = 0.0;
    println!("an install that finds nothing to do: {whole:.0} ms (aim 60); what it asks, each by itself:");
    for (what, command) in [
        ("a login at the database", "camcops-provision wait --quiet --for database"),
        ("a login at the broker", "camcops-provision wait --quiet --for broker"),
        ("a login page", "camcops-provision wait --quiet --for web"),
        (
            "systemd",
            "systemctl show camcops-server@camcops.service mariadb.service rabbitmq-server.service apache2.service",
        ),
        ("the files", "camcops-provision plan --quiet --only directories,secrets,certificate,configuration,launchers"),
    ] {
        let part = milliseconds(machine, command, RUNS);
        parts += part;
        println!("    {what:<26} {part:5.0} ms");
    }
    println!("    the whole against its parts: {:.2}", whole / parts);
}

fn first_tables(machine: &Booted) {
    machine.run("camcops-provision stop --quiet; mysql -e 'DROP DATABASE camcops'");
    let ours = milliseconds(machine, "camcops-provision install --yes --quiet --only database,tables", 1);
    machine.run(
        "mysql -e 'CREATE DATABASE plain CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci'
         mysql -e \"GRANT ALL ON plain.* TO camcops@localhost\"
         sed 's|/camcops?|/plain?|' /etc/camcops/camcops.conf > /etc/camcops/plain.conf
         chgrp www-data /etc/camcops/plain.conf; chmod 640 /etc/camcops/plain.conf
         grep -q /plain? /etc/camcops/plain.conf",
    );
    let plain = milliseconds(
        machine,
        &format!("{AS_SERVICE} {VENV}/bin/camcops_server upgrade_db --config /etc/camcops/plain.conf"),
        1,
    );
    println!("first tables            {:6.1} s against {:6.1} s: {:.2}", ours / 1e3, plain / 1e3, ours / plain);
}

fn build(machine: &Booted) {
    machine.run(&format!("rm {VENV}/release.json"));
    let ours = milliseconds(
        machine,
        "camcops-provision install --yes --quiet --only application --wheelhouse /srv/wheelhouse",
        1,
    );
    let tools = concat!(env!("CARGO_MANIFEST_DIR"), "/requirements/build.txt");
    std::fs::copy(tools, machine.path("/root/build.txt")).unwrap();
    std::fs::write(machine.path("/root/camcops.txt"), wheelhouse::lock(wheelhouse::NEWEST, 11)).unwrap();
    let pip = "/root/plain/bin/pip install --quiet --no-index --find-links /srv/wheelhouse --no-deps";
    let plain = milliseconds(
        machine,
        &format!(
            "python3.11 -m venv /root/plain;
             {pip} -r /root/build.txt; {pip} --no-build-isolation -r /root/camcops.txt"
        ),
        1,
    );
    println!(
        "a build                 {:6.1} s against {:6.1} s by pip from the same files: {:.2}",
        ours / 1e3,
        plain / 1e3,
        ours / plain
    );
}

/// Puts CamCOPS's own demonstration in the place of the site.
fn demonstration(machine: &Booted) {
    machine.run(&format!(
        r#"systemctl stop camcops@camcops.target camcops-server@camcops.socket
        systemctl stop 'camcops-*@camcops.service'
        mkdir -p /run/camcops /var/lock/camcops; chown www-data /run/camcops /var/lock/camcops
        {AS_SERVICE} {VENV}/bin/camcops_server demo_camcops_config > /etc/camcops/demo.conf 2> /dev/null
        value() {{ sed -n "s/^$1 *= *//p" /etc/camcops/camcops.conf | head -n 1; }}
        for key in DB_URL CELERY_BROKER_URL SESSION_COOKIE_SECRET UNIX_DOMAIN_SOCKET; do
            value=$(value "$key") awk -v key="$key" \
                '$1 == key {{ print key " = " ENVIRON["value"]; next }} {{ print }}' \
                /etc/camcops/demo.conf > /etc/camcops/demo.new
            mv /etc/camcops/demo.new /etc/camcops/demo.conf
        done
        chgrp www-data /etc/camcops/demo.conf; chmod 640 /etc/camcops/demo.conf
        for command in serve_gunicorn launch_workers launch_scheduler launch_monitor; do
            systemd-run --quiet --unit "demo-$command" --uid www-data --gid www-data \
                --working-directory /var/lib/camcops \
                --setenv HOME=/var/lib/camcops --setenv MPLCONFIGDIR=/var/cache/camcops/matplotlib \
                --setenv PATH={VENV}/bin:/usr/bin:/bin --setenv WAND_MAGICK_LIBRARY_SUFFIX=-6.Q16 \
                {VENV}/bin/camcops_server "$command" --config /etc/camcops/demo.conf
        done
        until curl --silent --output /dev/null --unix-socket /run/camcops/camcops.socket http://machine/login; do
            sleep 1
        done
        sleep 30"#
    ));
}

fn pages(machine: &Booted) -> f64 {
    std::fs::write(machine.path("/root/visitors.py"), VISITORS).unwrap();
    number(&machine.run("python3 /root/visitors.py"))
}

fn memory(machine: &Booted) -> f64 {
    number(&machine.run(MEMORY))
}
