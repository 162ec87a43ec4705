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
/// How often the site and the demonstration are measured.
const TURNS: usize = 2;
const VENV: &str = "/usr/share/camcops/venv";
const AS_SERVICE: &str = "setpriv --reuid=www-data --regid=www-data --init-groups env HOME=/var/lib/camcops";

/// A user of the bench, and the password.
const USER: &str = "bench";
const PASSWORD: &str = "bench-password";

/// Logs in as that user, and keeps the cookie.
const LOGIN: &str = r#"
import http.cookiejar, re, ssl, sys, urllib.parse, urllib.request
jar = http.cookiejar.CookieJar()
tls = urllib.request.HTTPSHandler(context=ssl._create_unverified_context())
opener = urllib.request.build_opener(tls, urllib.request.HTTPCookieProcessor(jar))
def ask(path, **form):
    data = urllib.parse.urlencode(form).encode() if form else None
    answer = opener.open("https://machine" + path, data, timeout=60)
    return answer.geturl(), answer.read().decode()
def token(page):
    return re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page)[1]
_, page = ask("/login")
place, page = ask("/login", csrf_token=token(page), username=sys.argv[1], password=sys.argv[2], submit="Log_in")
if "offer_terms" in place:
    ask("/offer_terms", csrf_token=token(page), agree="agree")
_, page = ask("/")
assert sys.argv[1] in page, page[:300]
print("; ".join(f"{cookie.name}={cookie.value}" for cookie in jar))
"#;

/// Asks for a page again and again, over TLS, several at a time, and prints how many came per second.
const VISITORS: &str = r#"
import http.client, ssl, sys, threading, time
path, cookie = sys.argv[1:]
header = {"Cookie": cookie} if cookie else {}
def visitor(until):
    link = http.client.HTTPSConnection("machine", context=ssl._create_unverified_context(), timeout=60)
    while time.monotonic() < until:
        link.request("GET", path, headers=header)
        answer = link.getresponse()
        page = answer.read()
        assert answer.status == 200, page[:200]
        seen.append(1)
for seconds in (5, 20):
    seen, until = [], time.monotonic() + seconds
    all = [threading.Thread(target=visitor, args=(until,)) for _ in range(8)]
    [one.start() for one in all]
    [one.join() for one in all]
print(len(seen) / seconds)
"#;

/// How much memory a command takes at its peak, in KiB.
const PEAK: &str = r#"
import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
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

/// The site against CamCOPS's own demonstration, over TLS through the same Apache, in turns.
fn site(machine: &Booted) {
    machine.run(&format!(
        "echo {PASSWORD} > /root/bench-password
         camcops-provision user superuser {USER} --password-file /root/bench-password --quiet"
    ));
    for (file, text) in [("login.py", LOGIN), ("visitors.py", VISITORS)] {
        std::fs::write(machine.path(&format!("/root/{file}")), text).unwrap();
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        ours.push([pages(machine, false), pages(machine, true), memory(machine)]);
        demonstration(machine);
        theirs.push([pages(machine, false), pages(machine, true), memory(machine)]);
        machine.run("systemctl stop 'demo-*'; camcops-provision install --yes --quiet; sleep 30");
    }
    let mean = |all: &[[f64; 3]], at: usize| all.iter().map(|one| one[at]).sum::<f64>() / all.len() as f64;
    for (at, what) in
        ["login pages per second", "menus per second, logged in", "memory (PSS) in MiB"].iter().enumerate()
    {
        let (ours, theirs) = (mean(&ours, at), mean(&theirs, at));
        println!("{what:<28} {ours:6.1} against {theirs:6.1}: {:.2}", ours / theirs);
    }
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
    println!("an install that finds nothing to do: {whole:.0} ms (aim 30); what it asks, each by itself:");
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
    std::fs::write(machine.path("/root/peak.py"), PEAK).unwrap();
    for (command, aim) in [("install --yes --quiet", 30), ("status", 60), ("doctor", 80)] {
        let command = format!("camcops-provision {command}");
        let took = milliseconds(machine, &command, RUNS);
        let peak = number(&machine.run(&format!("python3 /root/peak.py {command}"))) * 1024.0 / 1e6;
        println!("{command:<42} {took:4.0} ms (aim {aim}), {peak:.1} MB at its peak (aim 20)");
    }
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

fn pages(machine: &Booted, is_user: bool) -> f64 {
    number(&machine.run(&match is_user {
        false => "python3 /root/visitors.py /login ''".to_owned(),
        true => format!("python3 /root/visitors.py / \"$(python3 /root/login.py {USER} {PASSWORD})\""),
    }))
}

fn memory(machine: &Booted) -> f64 {
    number(&machine.run(MEMORY))
}
