//! The whole of it on machines that have booted: from bare Debian to a site that people log in to, which comes back
//! whatever happens to it, keeps its secrets, and goes without a trace if it has to.

use crate::harness::booted::Booted;
use crate::harness::browser::Browser;
use crate::harness::installed::{PASSWORD, SUPERUSER, installed};
use crate::harness::site::{self, SERVICES, URL, as_tablet, page, unit};
use crate::harness::tablet::Tablets;
use crate::harness::watch;
use serde_json::Value;
use std::fs;

#[test]
fn from_bare_debian_to_a_site() {
    let Some((machine, seen)) = installed() else {
        return;
    };
    was_told(&seen);
    no_secret_was_seen(&seen);
    site::wait_until_well(&machine, "the first boot");
    answers(&machine);
    let tablets = Tablets::few(&machine);
    is_left_alone_by_a_second_install(&machine);
    tablets.excuse(|| serves_static_files_without_the_application(&machine));
    tablets.end_unnoticed();
    is_locked_up(&machine);
    logs_the_superuser_in(&machine);
    schedules_what_the_workers_do(&machine);
    no_secret_is_left_lying(&machine);
}

/// The first install, by what it said.
fn was_told(seen: &Value) {
    let out = seen["out"].as_str().unwrap();
    let last = out.trim_end().lines().last().unwrap();
    assert_eq!(last, format!("The CamCOPS application is running at {URL}"), "{out}");
    // What an administrator needs next, in no more than ten lines.
    assert!(out.trim_end().lines().count() <= 10, "{out}");
    for what in [format!("{URL}login as "), "path api".into(), "self-signed".into(), "/var/backups/camcops".into()] {
        assert!(out.contains(&what), "{what} is not in:\n{out}");
    }
    let told = seen["err"].as_str().unwrap();
    for what in [
        "install package",
        "create release",
        "create database",
        "create RabbitMQ vhost",
        "create tables",
        "create superuser",
        "start camcops-server@camcops.service",
    ] {
        assert!(told.contains(&format!("] {what}")), "{what} is not in:\n{told}");
    }
    let page = seen["page"].as_str().unwrap();
    assert!(page.contains("CamCOPS"), "{page}");
}

fn no_secret_was_seen(seen: &Value) {
    let seen = &seen["watched"];
    // What does not see its canaries sees nothing.
    for canaries in seen["canaries"].as_array().unwrap() {
        assert!(canaries.as_u64() > Some(0), "{seen:#}");
    }
    assert!(seen["command_lines"].as_u64() > Some(100), "{seen:#}");
    let secrets = seen["secrets"].as_array().unwrap();
    for name in ["superuser", "cookie", "database", "broker", "monitor"] {
        assert!(secrets.contains(&name.into()), "{seen:#}");
    }
    assert_eq!(seen["in_command_lines"], Value::Array(vec![]), "{seen:#}");
    assert_eq!(seen["in_environments"], Value::Array(vec![]), "{seen:#}");
}

pub fn answers(machine: &Booted) {
    let login = page(machine, "login", "");
    assert_eq!(login.status, 200);
    assert!(login.body.contains("name=\"password\""), "{}", login.body);
    assert!(login.header.contains("strict-transport-security"), "{}", login.header);

    let plain = machine.run("curl --silent --include http://machine/login");
    assert!(plain.starts_with("HTTP/1.1 301"), "{plain}");
    assert!(plain.contains(&format!("Location: {URL}login")), "{plain}");

    // Told apart by what is wrong: the superuser is let in, but is in no group yet that a tablet could send data to.
    for (password, error) in [("not-the-password", "Invalid username/password"), (PASSWORD, site::NO_GROUP)] {
        let answer = as_tablet(machine, SUPERUSER, password);
        assert_eq!(answer.status, 200);
        let lines = format!("success:0\nerror:{error}");
        assert!(answer.body.starts_with(&lines), "{}", answer.body);
    }
}

pub fn is_left_alone_by_a_second_install(machine: &Booted) {
    let before = site::processes(machine);
    assert!(before.len() >= SERVICES.len(), "{before:?}");
    let again = machine.run("camcops-provision install --yes --wheelhouse /srv/wheelhouse");
    assert!(again.contains("nothing to do"), "{again}");
    assert!(again.trim_end().ends_with(&format!("The CamCOPS application is running at {URL}")), "{again}");
    assert_eq!(site::processes(machine), before);
    let (code, pending, _) = machine.tried("camcops-provision plan --exit-code");
    assert_eq!(code, 0, "{pending}");
}

fn serves_static_files_without_the_application(machine: &Booted) {
    const LOGO: &str = "static/logo_camcops.png";
    machine.run("camcops-provision stop server");
    assert_eq!(page(machine, "login", "").status, 503);
    let logo = page(machine, LOGO, "");
    assert_eq!(logo.status, 200, "{}", logo.header);
    assert!(logo.header.contains("server: apache"), "{}", logo.header);
    assert!(logo.header.contains("content-type: image/png"), "{}", logo.header);
    machine.run("camcops-provision start server");
    site::wait_until_well(machine, "the server was stopped and started");
}

/// What the services may do, who they are, and where they listen.
pub fn is_locked_up(machine: &Booted) {
    let units = machine
        .run("systemctl list-units --plain --no-legend --type=service --state=running 'camcops*' | cut -d' ' -f1");
    let units: Vec<&str> = units.lines().collect();
    for service in SERVICES {
        assert!(units.contains(&unit(service).as_str()), "{units:?}");
    }
    for unit in units {
        let told = machine.run(&format!("systemd-analyze security --no-pager {unit} | tail -n 1"));
        let exposure = told
            .split_whitespace()
            .find_map(|word| word.parse::<f64>().ok())
            .unwrap_or_else(|| panic!("{unit}: {told}"));
        eprintln!("{unit}: {exposure}");
        assert!(exposure <= 1.5, "{unit}: {told}");
    }

    let roots = machine.run(
        "for p in /proc/[0-9]*; do
             if tr '\\0' ' ' < $p/cmdline 2> /dev/null | grep -q '/usr/share/camcop[s]'; then
                 echo \"$(stat --format=%U $p) $(tr '\\0' ' ' < $p/cmdline)\"
             fi
         done",
    );
    assert!(roots.lines().count() >= SERVICES.len(), "{roots}");
    assert!(!roots.lines().any(|line| line.starts_with("root ")), "{roots}");

    let listening = machine.run("ss --no-header --listening --tcp --udp --processes --numeric");
    let mut public = Vec::new();
    for line in listening.lines() {
        let address = line.split_whitespace().nth(4).unwrap();
        let (host, port) = address.rsplit_once(':').unwrap();
        let host = host.trim_matches(['[', ']']).split('%').next().unwrap();
        let loopback = host == "::1" || host.starts_with("127.");
        if !loopback {
            assert!(line.contains("\"apache2\""), "{line}");
            public.push(port);
        }
    }
    public.sort_unstable();
    public.dedup();
    assert_eq!(public, ["443", "80"], "{listening}");
}

/// As a person does it, with a browser that knows nothing of how the page is made.
fn logs_the_superuser_in(machine: &Booted) {
    let browser = Browser::open(machine);
    browser.go(&format!("{URL}login"));
    browser.enter("input[name=username]", SUPERUSER);
    browser.enter("input[name=password]", "not-the-password");
    browser.click("[type=submit]");
    browser.wait_for_text("Invalid username/password");

    browser.log_in();
    browser.wait_for_text(&format!("Logged in as {SUPERUSER}."));
}

/// The scheduler and the monitor don't load what tasks work on, unless there is a recipient, whose tasks CamCOPS looks up;
/// they know the same tasks and the same schedule.
fn schedules_what_the_workers_do(machine: &Booted) {
    machine.run(
        r#"sed -e 's/^RECIPIENTS *=.*/&\n    archive/' -e 's/^SCHEDULE *=.*/&\n    0 3 * * * archive/' \
            /etc/camcops/camcops.conf > /root/with-export.conf
        cat >> /root/with-export.conf << 'END'
[recipient:archive]
TRANSMISSION_METHOD = file
ALL_GROUPS = True
PRIMARY_IDNUM = 1
REQUIRE_PRIMARY_IDNUM_MANDATORY_IN_POLICY = False
FILE_PATIENT_SPEC = {surname}
FILE_PATIENT_SPEC_IF_ANONYMOUS = anonymous
FILE_FILENAME_SPEC = /srv/{tasktype}
TASKS = photo
END
        cat > /root/knows.py <<'END'
import sys
from camcops_server.cc_modules.celery import celery_app as app
app.finalize()
print(sorted(app.tasks), app.conf.beat_schedule, app.conf.timezone, app.conf.task_annotations)
print("camcops_server.tasks" in sys.modules, file=sys.stderr)
END"#,
    );
    let knows = |how: &str| {
        let (code, known, told) = machine.tried(&format!(
            "cd / && env CAMCOPS_CONFIG_FILE=/root/with-export.conf PYTHONPATH=/usr/share/camcops/python {how} \
                 /usr/share/camcops/venv/bin/python -W ignore /root/knows.py"
        ));
        assert_eq!(code, 0, "{told}");
        (known, told.trim_end().ends_with("True"))
    };
    let (whole, loaded) = knows("");
    assert!(whole.contains("export_to_archive") && loaded, "{whole}");
    assert_eq!(knows("CAMCOPS_RUNS_NO_TASKS=yes"), (whole, true));
    let plain = "CAMCOPS_CONFIG_FILE=/etc/camcops/camcops.conf";
    let (whole, loaded) = knows(plain);
    assert!(loaded && !whole.contains("export_to_archive"), "{whole}");
    assert_eq!(knows(&format!("{plain} CAMCOPS_RUNS_NO_TASKS=yes")), (whole, false));
    let units = ["scheduler", "monitor"].map(unit);
    for unit in units {
        let told = machine.run(&format!("systemctl show --property=Environment {unit}"));
        assert!(told.contains("CAMCOPS_RUNS_NO_TASKS=yes"), "{told}");
    }
    machine.run("rm /root/with-export.conf /root/knows.py");
}

fn no_secret_is_left_lying(machine: &Booted) {
    let patterns: Vec<String> = watch::secrets(machine).into_iter().map(|(_, secret)| secret).collect();
    fs::write(machine.path("/root/patterns"), patterns.join("\n")).unwrap();
    machine.run("chmod 600 /root/patterns; rm -f /root/form");
    let found = |what: &str| machine.run(&format!("{what} || true"));
    // It finds what is there.
    let own = found("grep --recursive --files-with-matches --fixed-strings --file=/root/patterns /etc/camcops/secrets");
    assert_eq!(own.lines().count(), patterns.len() - 1, "{own}");
    for place in [
        "journalctl --no-pager --output=export --all | grep --text --fixed-strings --file=/root/patterns",
        "grep --recursive --files-with-matches --fixed-strings --file=/root/patterns /var/log",
        "find / /run /tmp /var/tmp /dev/shm -xdev -type f -perm -o=r -print0 | xargs --null grep --files-with-matches --fixed-strings --file=/root/patterns",
    ] {
        assert_eq!(found(place), "", "{place}");
    }
    for command in [
        "status",
        "plan",
        "plan --diff",
        "config show",
        "paths",
        "urls",
        "ports",
        "wait --timeout 60",
        "config render",
        "install --yes",
    ] {
        let json = found(&format!(
            "camcops-provision --json {command} 2>&1 | grep --text --fixed-strings --file=/root/patterns"
        ));
        assert_eq!(json, "", "{command}");
    }
}
