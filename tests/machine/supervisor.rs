//! The whole of it where systemd does not run: supervisor starts and watches the services, and the servers of others
//! are started by their own scripts.

use crate::harness::Machine;
use crate::harness::installed::{COMMAND, install, installed};
use crate::harness::site::{self, SERVICES, URL};
use crate::harness::tablet::{Tablets, now};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Four times Python with all of CamCOPS, on two cores, and supervisor counts fifteen seconds before it calls one running.
const PATIENCE: Duration = Duration::from_secs(240);

/// A program of somebody else, under the same supervisor.
const FOREIGN: &str = "[program:other]\ncommand = sleep infinity\n";

/// A service of the site's own.
const EXTRA: &str = r#"
[[services.extra]]
name = "teller"
command = ["/bin/sh", "-c", "id -un; echo $COLOUR $HOME; exec sleep infinity"]
"#;

/// Its variables.
const VARIABLES: &str = "/etc/camcops/env.d/camcops-teller.env";

#[test]
fn lives_and_leaves_under_supervisor() {
    let Some(machine) = Machine::bare_but_release() else {
        return;
    };
    machine.run("[ ! -e /run/systemd/system ]");
    // A release is whole only where its Python is.
    machine.run("apt-get install --quiet --yes --no-install-recommends python3.11 > /dev/null");
    machine.write("/etc/supervisor/conf.d/other.conf", FOREIGN, 0o644);
    machine.write("/etc/camcops/provision.toml", EXTRA, 0o644);
    machine.write(VARIABLES, "COLOUR='dark red'\n", 0o600);
    let (_, said, _) = install(machine.command(COMMAND[0]));
    let last = said.trim_end().lines().last().unwrap();
    assert_eq!(last, format!("The CamCOPS application is running at {URL}"), "{said}");
    machine.run("apt-get install --quiet --yes --no-install-recommends curl > /dev/null");
    assert_eq!(login(&machine), "200");
    let other = machine.run("supervisorctl pid other");

    let first = processes(&machine);
    let (_, again, _) = install(machine.command(COMMAND[0]));
    assert!(again.contains("nothing to do"), "{again}");
    assert_eq!(processes(&machine), first);

    has_its_own(&machine);
    let tablets = Tablets::few(&machine);
    let killed = comes_back(&machine);
    is_told_what_to_do(&machine);
    tablets.end_after_kills(&[killed]);
    is_looked_after(&machine);

    let said = machine.run("camcops-provision uninstall --yes");
    let left = machine.run("supervisorctl status");
    assert_eq!(left.lines().count(), 1, "{left}\n{said}");
    assert!(left.starts_with("other "), "{left}");
    assert_eq!(machine.run("supervisorctl pid other"), other);
    let ours = machine.run("pgrep --full --list-full '/usr/share/[c]amcops' || true");
    assert_eq!(ours, "");
    // Apache is others' too.
    machine.run("pgrep apache2; apache2ctl -t");
}

/// From one manager to the other and back, without a hand in between: neither has what the other needs.
#[test]
#[ignore = "thorough: all services are started anew twice"]
fn another_manager_takes_over_a_site_that_runs() {
    let Some((machine, _)) = installed() else {
        return;
    };
    site::wait_until_well(&machine, "the first boot");
    let is_well = || {
        machine.run("camcops-provision plan --exit-code");
        let page = "curl --silent --insecure --output /dev/null --write-out '%{http_code}' https://machine/login";
        assert_eq!(machine.run(page), "200");
        // Erlang's port mapper is systemd's in any case.
        machine.run("test -e /etc/systemd/system/epmd.socket.d/10-camcops.conf");
    };
    machine.run("camcops-provision config set services.manager supervisor; camcops-provision install --yes");
    is_well();
    assert_eq!(machine.run("systemctl list-units 'camcops*' --all --no-legend --plain"), "");
    machine.run("camcops-provision scale workers=2x1");
    is_well();
    machine.run("supervisorctl status camcops:camcops_workers-2 | grep RUNNING");
    machine.run("camcops-provision config unset services.manager; camcops-provision install --yes");
    is_well();
    assert_eq!(machine.tried("supervisorctl status | grep camcops").1, "");
}

/// A service of the site's own runs as the account of the services, with variables that only root can read.
fn has_its_own(machine: &Machine) {
    let said = machine.run("camcops-provision logs teller");
    assert!(said.contains("www-data\ndark red /"), "{said}");
    machine.run(&format!("[ $(stat --format %a /etc/camcops/env.d) = 700 ]; rm {VARIABLES}"));
    machine.run("camcops-provision stop teller; camcops-provision start teller");
    let started = processes(machine);
    assert!(started.contains_key(&program("teller")), "{started:?}");
}

/// Gives when they were killed.
fn comes_back(machine: &Machine) -> f64 {
    let before = processes(machine);
    let ours: Vec<String> = SERVICES.map(program).into();
    let pids: Vec<String> = ours.iter().map(|name| before[name].to_string()).collect();
    machine.run(&format!("kill -KILL {}", pids.join(" ")));
    let killed = now();
    let after = wait_until_well(machine, "each of them was killed");
    for name in ours {
        assert_ne!(after[&name], before[&name], "{name}");
    }
    killed
}

fn is_told_what_to_do(machine: &Machine) {
    let before = processes(machine);
    machine.run("camcops-provision stop server");
    assert_eq!(login(machine), "503");
    let stopped = processes(machine);
    assert!(!stopped.contains_key(&program("server")), "{stopped:?}");
    machine.run("camcops-provision start server");
    machine.run("camcops-provision restart scheduler");
    let after = wait_until_well(machine, "one was started and one restarted");
    for service in SERVICES {
        let is_same = after[&program(service)] == before[&program(service)];
        let was_touched = ["server", "scheduler"].contains(&service);
        assert_ne!(is_same, was_touched, "{service}: {before:?} {after:?}");
    }
    assert_eq!(login(machine), "200");
    machine.run("camcops-provision plan --exit-code");
    machine.run("camcops-provision logs scheduler | grep 'beat: Starting'");
}

/// What an administrator does later.
fn is_looked_after(machine: &Machine) {
    let told = machine.run("camcops-provision --json doctor || true");
    let told: Value = serde_json::from_str(&told).unwrap();
    let checks = told["checks"].as_array().unwrap();
    let failed: Vec<&Value> = checks.iter().filter(|check| check["state"] == "failed").collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(checks.iter().any(|check| check["id"] == "services.running" && check["state"] == "ok"));
    machine.run("camcops-provision doctor --end-to-end");
    let stats =
        machine.run("camcops-provision --json stats; camcops-provision top; camcops-provision traceback server");
    assert!(stats.contains("camcops_server") || stats.contains("gunicorn"), "{stats}");

    let boss = "mysql --skip-column-names camcops --execute 'SELECT username FROM _security_users WHERE superuser'";
    let before = machine.run(boss);
    // As cron does it.
    machine.run("sh -c \"$(sed -n 's/.* root //p' /etc/cron.d/camcops-backup)\"");
    machine.run("mysql camcops --execute 'UPDATE _security_users SET superuser = 0'");
    machine.run("camcops-provision backup restore latest --confirm camcops");
    assert_eq!(machine.run(boss), before);
    let tablets = Tablets::few(machine);
    machine.run(
        "camcops-provision secret rotate broker
         camcops-provision secret rotate cookie --yes
         camcops-provision scale workers=1
         camcops-provision service disable monitor
         camcops-provision plan --exit-code
         camcops-provision doctor --end-to-end",
    );
    assert_eq!(login(machine), "200");
    // Under supervisor nothing lets visitors wait while the server starts.
    tablets.end();
}

/// What the site's program is called by supervisor.
fn program(service: &str) -> String {
    format!("camcops:camcops_{service}")
}

/// The status of the answer of the login page.
fn login(machine: &Machine) -> String {
    machine.run(&format!(
        "curl --silent --insecure --max-time 60 --output /dev/null --write-out '%{{http_code}}' {URL}login"
    ))
}

fn status(machine: &Machine) -> Vec<Value> {
    let told = machine.run("camcops-provision --json status");
    let told: Value = serde_json::from_str(&told).unwrap();
    told["services"].as_array().unwrap().clone()
}

/// The main process of everything that runs.
fn processes(machine: &Machine) -> BTreeMap<String, u64> {
    let all = status(machine);
    let named = |one: &Value| Some((one["name"].as_str()?.to_owned(), one["pid"].as_u64()?));
    all.iter().filter_map(named).collect()
}

/// Waits until all of it runs and answers, without any help; gives the main processes.
fn wait_until_well(machine: &Machine, after: &str) -> BTreeMap<String, u64> {
    let start = Instant::now();
    loop {
        let all = status(machine);
        let ill = all.iter().find(|one| one["answers"] == Value::Bool(false) || one["state"] != "running");
        let Some(ill) = ill else {
            let seconds = start.elapsed().as_secs();
            eprintln!("well again {seconds} s after {after}");
            return processes(machine);
        };
        assert!(start.elapsed() < PATIENCE, "after {after}: {ill}");
        std::thread::sleep(Duration::from_millis(500));
    }
}
