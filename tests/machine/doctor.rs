//! Every trouble that `doctor` has a check for, provoked on a site that runs: it is found, under its name, and what
//! `doctor` says mends it mends it.

use crate::harness::booted::Booted;
use crate::harness::certificates::{Authority, old};
use crate::harness::installed::{bare, installed};
use crate::harness::site::wait_until_well;
use crate::harness::tablet::Tablets;
use serde_json::Value;

const INSTALL: &str = "camcops-provision install";

#[test]
fn what_is_wrong_is_found_and_mended() {
    let Some((machine, _)) = installed() else {
        return;
    };
    wait_until_well(&machine, "the first boot");
    all_is_well(&machine);
    services(&machine);
    told_in_time(&machine);
    // Whatever is wrong with the web server, and however it is mended; the database gets too few connections for them.
    let tablets = Tablets::few(&machine);
    web(&machine);
    certificate(&machine);
    tablets.end();
    database(&machine);
    broker(&machine);
    machine_itself(&machine);
    files(&machine);
    backups(&machine);
    wait_until_well(&machine, "all of that");
    all_is_well(&machine);
    advisories(&machine);
    maintenance(&machine);
    metrics(&machine);
}

/// What one check says: its state, what it found, and what mends it.
fn asked(machine: &Booted, id: &str) -> (String, String, Vec<String>) {
    let (code, out, why) = machine.tried(&format!("camcops-provision --json doctor {id}"));
    let told: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{id}: {out}{why}"));
    assert_eq!(why, "", "{id}");
    let check = &told["checks"][0];
    assert_eq!(check["id"], id);
    let state = check["state"].as_str().unwrap().to_owned();
    assert_eq!(code, i32::from(state == "failed"), "{out}");
    let findings = check["findings"].as_array().unwrap();
    let wrong = findings.iter().filter(|one| one["state"] == "failed" || one["state"] == "warning");
    let text = |one: &Value, field: &str| one[field].as_str().unwrap().to_owned();
    let found: Vec<String> = wrong.clone().map(|one| text(one, "found")).collect();
    let remedies = wrong.map(|one| text(one, "remedy")).collect();
    (state, found.join("\n"), remedies)
}

/// It is found as such, with these words in it; gives what mends it.
fn is(machine: &Booted, id: &str, state: &str, words: &str) -> Vec<String> {
    let (is, found, remedies) = asked(machine, id);
    assert_eq!(is, state, "{id}: {found}");
    assert!(found.contains(words), "{id}: {found}");
    remedies
}

/// Provokes it, finds it, does what is said, and finds it mended.
fn is_mended(machine: &Booted, provoke: &str, id: &str, words: &str) {
    machine.run(provoke);
    let remedies = is(machine, id, "failed", words);
    for remedy in remedies {
        machine.run(&remedy.replace(INSTALL, &format!("{INSTALL} --yes")));
    }
    let (state, found, _) = asked(machine, id);
    assert_eq!(state, "ok", "{id}: {found}");
}

fn all_is_well(machine: &Booted) {
    for flags in ["", "--end-to-end", "--preflight"] {
        let (code, out, why) = machine.tried(&format!("camcops-provision doctor {flags}"));
        assert_eq!(code, 0, "{out}{why}");
        assert!(!out.contains("failed") && why.is_empty(), "{out}{why}");
        assert!(!out.contains('\u{1b}'), "{out}");
    }
    let (code, out, _) = machine.tried("camcops-provision doctor --monitoring web certificate disk");
    assert_eq!(code, 0, "{out}");
    assert!(out.starts_with("CAMCOPS OK: "), "{out}");
    assert!(out.contains(" certificate_days_left=36"), "{out}");
    machine.run("camcops-provision doctor --metrics /run/camcops.prom disk broker");
    let metrics = machine.run("stat --format %a:%U /run/camcops.prom; cat /run/camcops.prom");
    assert!(metrics.starts_with("644:root\n"), "{metrics}");
    let line = "camcops_broker_consumers{instance=\"camcops\"} 1\n";
    assert!(metrics.contains(line), "{metrics}");
}

/// What is told while something hangs or fails again and again.
fn told_in_time(machine: &Booted) {
    for (server, stopped, line) in [("mariadb", "mariadbd", "database "), ("rabbitmq-server", "beam.smp", "broker ")] {
        let script = format!(
            "begin=$(date +%s%N); camcops-provision status > /dev/null
             echo usual $(( ($(date +%s%N) - begin) / 1000000 ))
             pkill -STOP {stopped}; begin=$(date +%s%N); timeout 20 camcops-provision status; code=$?
             echo took $(( ($(date +%s%N) - begin) / 1000000 )); pkill -CONT {stopped}; exit $code"
        );
        let (code, told, why) = machine.tried(&script);
        assert_eq!(code, 0, "{server}: {told}{why}");
        let number = |what: &str| -> u32 {
            let line = told.lines().find_map(|line| line.strip_prefix(what));
            line.unwrap().trim().parse().unwrap()
        };
        let (took, usual) = (number("took "), number("usual "));
        eprintln!("status while {server} hangs: {took} ms, else {usual} ms");
        // This machine may be busy with other tests.
        assert!(took < usual + 2700, "{server}: {took} ms\n{told}");
        let about = told.lines().find(|told| told.starts_with(line)).unwrap();
        assert!(about.contains("within 2 s"), "{told}");
        for known in ["release ", "certificate ", "backups ", "not checked"] {
            assert!(told.contains(known), "{known} {told}");
        }
    }
    wait_until_well(machine, "both servers go on");

    machine.run(
        r#"mkdir -p /run/systemd/system/camcops-scheduler@camcops.service.d
         printf '[Service]\nExecStartPre=\nExecStart=\nExecStart=/usr/bin/python3 -c "{}[\\"y\\"]"\nRestartSec=1\n' > /run/systemd/system/camcops-scheduler@camcops.service.d/99-loop.conf
         systemctl daemon-reload"#,
    );
    let (code, _, why) = machine.tried("camcops-provision restart scheduler");
    assert_eq!(code, 69, "{why}");
    let why_it_fails = "restarts): KeyError: 'y'";
    assert!(why.contains("keeps failing (3 ") && why.contains(why_it_fails), "{why}");
    let told = machine.run("camcops-provision status");
    assert!(told.contains("keeps failing (") && told.contains(why_it_fails), "{told}");
    is(machine, "services.running", "failed", why_it_fails);
    machine.run("rm -r /run/systemd/system/camcops-scheduler@camcops.service.d; systemctl daemon-reload; camcops-provision restart scheduler");

    machine.run("systemctl stop apache2");
    let (code, told, why) = machine.tried("camcops-provision start server");
    assert_eq!(code, 69, "{told}{why}");
    assert!(told.contains("answers") && why.contains("the site does not answer"), "{told}{why}");
    machine.run("systemctl start apache2; camcops-provision start server");
}

fn backups(machine: &Booted) {
    // A share that is not mounted: nothing is written in its place.
    machine.run("cp /etc/fstab /root; echo 'nas:/share /srv/share nfs noauto 0 0' >> /etc/fstab");
    let elsewhere = "camcops-provision --set backup.directory=/srv/share/site";
    let (code, told, _) = machine.tried(&format!("{elsewhere} doctor backups"));
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("nothing is mounted at /srv/share"), "{told}");
    let (code, _, why) = machine.tried(&format!("{elsewhere} backup create"));
    assert_eq!(code, 74, "{why}");
    machine.run("[ ! -e /srv/share ]; mv /root/fstab /etc/fstab");
    let create = "camcops-provision backup create";
    machine.run(&format!("cd /var/backups/camcops; rm --recursive --force *; {create}; mv * camcops-20260101T023000Z"));
    let remedies = is(machine, "backups", "warning", "days old");
    assert_eq!(remedies, [create]);
    machine.run("mv /usr/bin/mariadb-dump /usr/bin/mysqldump /root");
    machine.tried(create);
    machine.run("mv /root/mariadb-dump /root/mysqldump /usr/bin");
    let (words, nothing) = ("the last attempt failed", "true");
    is_mended(machine, nothing, "backups", words);
}

/// What a real site has of published advisories, and of one that is made up for its own packages.
fn advisories(machine: &Booted) {
    let vulnerabilities = |arguments: &str, code: i32| -> Value {
        let (ended, out, why) = machine.tried(&format!("camcops-provision --json vulnerabilities {arguments}"));
        assert_eq!(ended, code, "{out}{why}");
        serde_json::from_str(&out).unwrap()
    };
    assert!(vulnerabilities("", 69)["error"].as_str().unwrap().contains("there are no advisories"));
    assert_eq!(asked(machine, "vulnerabilities").0, "not_applicable");
    let published = include_str!("../fixtures/advisories/pypi-2026-11-30.jsonl");
    std::fs::write(machine.path("/root/pypi.jsonl"), published).unwrap();
    machine.run(
        r#"now=$(date --utc +%Y-%m-%dT%H:%M:%SZ)
         printf '{"id":"DEBIAN-CVE-1","modified":"%s","summary":"made up","affected":[{"package":{"ecosystem":"Debian:12","name":"openssl"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"fixed":"99"}]}]}]}
{"id":"DEBIAN-CVE-2","modified":"%s","affected":[{"package":{"ecosystem":"Debian:12","name":"openssl"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"fixed":"0.1"}]}]}]}
' $now $now > /root/debian.jsonl"#,
    );
    let told = vulnerabilities("--advisories /root/pypi.jsonl --advisories /root/debian.jsonl", 1);
    let about = |package: &str| -> Vec<&str> {
        let all = told["advisories"].as_array().unwrap();
        all.iter().filter(|one| one["package"] == package).map(|one| one["id"].as_str().unwrap()).collect()
    };
    assert_eq!(about("openssl"), ["CVE-1"], "{told:#}");
    // The newest level has what nothing ends, and nothing else.
    let kinds = &told["kinds"];
    assert_eq!((&kinds[0]["kind"], &kinds[0]["open"]), (&"python".into(), &0.into()), "{told:#}");
    assert!(kinds[0]["parts"].as_u64().unwrap() > 150 && kinds[2]["parts"].as_u64().unwrap() > 150, "{kinds:#}");
    assert_eq!(about("setuptools").len(), 2, "{told:#}");

    machine.run("install -d -m 0700 /var/lib/camcops-provision/advisories; cp /root/*.jsonl /var/lib/camcops-provision/advisories");
    let remedies = is(machine, "vulnerabilities", "warning", "1 advisory is open about packages of the distribution");
    assert_eq!(remedies, ["camcops-provision vulnerabilities"]);
    let metrics = machine.run("camcops-provision doctor --metrics - vulnerabilities");
    let line = "camcops_advisories_open{instance=\"camcops\",of=\"system\"} 1\n";
    assert!(metrics.contains(line) && metrics.contains("camcops_advisories_age_seconds{"), "{metrics}");
    // What the account of the services puts there is not read.
    machine.run("chown www-data /var/lib/camcops-provision/advisories/pypi.jsonl");
    is(machine, "vulnerabilities", "warning", "belongs to www-data");
    machine.run("chown root /var/lib/camcops-provision/advisories/pypi.jsonl; echo '{' > /var/lib/camcops-provision/advisories/broken.json");
    is(machine, "vulnerabilities", "warning", "broken.json:2:0: EOF while parsing");
    machine.run("rm /var/lib/camcops-provision/advisories/broken.json; camcops-provision plan --exit-code");
}

/// The timer's own sandbox sees what root sees.
fn metrics(machine: &Booted) {
    let file = "/var/lib/prometheus/node-exporter/camcops.prom";
    machine.run(&format!(
        "mkdir --parents /var/lib/prometheus/node-exporter
         camcops-provision config set monitor.metrics_file {file}
         camcops-provision install --yes
         systemctl is-active camcops-metrics@camcops.timer
         systemctl start camcops-metrics@camcops.service"
    ));
    let states = |command: &str| machine.run(&format!("{command} | grep ^camcops_check_state"));
    let (timer, root) = (states(&format!("cat {file}")), states("camcops-provision doctor --metrics -"));
    assert_eq!(timer, root);
    status_page(machine);
    assert!(timer.lines().count() > 30 && !timer.contains("} 2"), "{timer}");
    machine.run("camcops-provision config unset monitor.metrics_file; camcops-provision install --yes; ! systemctl is-active camcops-metrics@camcops.timer");
}

/// The page that the timer writes, through Apache with its login; a new password holds at once, and nothing is left of it.
fn status_page(machine: &Booted) {
    machine.run(
        "camcops-provision config set monitor.page true
         camcops-provision install --yes
         systemctl start camcops-metrics@camcops.service",
    );
    let page = |password: &str| {
        let url = "$(camcops-provision urls | sed -n 's/^status *//p')";
        let ask = "curl --silent --insecure --output /root/page --write-out '%{http_code}'";
        machine.run(&format!("echo \"user = \\\"camcops:{password}\\\"\" | {ask} --config - {url}"))
    };
    let password = "$(cat /etc/camcops/secrets/camcops/monitor)";
    assert_eq!(page(password).trim(), "200");
    assert_eq!(page("wrong").trim(), "401");
    page(password);
    let text = machine.run("cat /root/page");
    assert!(text.contains("<svg ") && text.contains("camcops-server@camcops.service"), "{text}");
    assert_eq!(text.matches("class=\"line\"").count(), 14, "{text}");
    let former = machine
        .run("cat /etc/camcops/secrets/camcops/monitor; grep --count . /var/lib/camcops-provision/camcops/samples");
    let (former, lines) = former.trim().split_once('\n').unwrap();
    assert!(!text.contains(former) && lines.trim().parse::<u32>().unwrap() >= 3, "{lines}");
    machine.run("camcops-provision secret rotate monitor");
    assert_eq!((page(former).trim(), page(password).trim()), ("401", "200"));
    machine.run("camcops-provision config unset monitor.page; camcops-provision install --yes; test -z \"$(ls /var/lib/camcops-pages)\"");
}

/// Visitors see the page, tablets a message, and this program goes through.
fn maintenance(machine: &Booted) {
    let code = |words: &str| {
        let url = "$(camcops-provision urls | sed -n 's/^site *//p')";
        machine.run(&format!("curl --silent --insecure --output /root/page --write-out '%{{http_code}}' {words} {url}"))
    };
    let api = "--data operation=check_device_registered";
    let tablets = Tablets::few(machine);
    machine.run("camcops-provision maintenance on --until 10min --message 'New <disks>'");
    assert_eq!(code("").trim(), "503");
    assert!(machine.run("cat /root/page").contains("<p>New &lt;disks&gt;</p>"));
    is(machine, "maintenance", "warning", "maintenance is on until ");
    assert!(machine.run("camcops-provision status").contains("\nmaintenance  on until "));
    machine.run("camcops-provision doctor web e2e.api; camcops-provision wait --for web --timeout 30; camcops-provision install --yes; camcops-provision restart server");
    let api_url = "$(camcops-provision urls | sed -n 's/^tablets *//p')";
    let told = machine.run(&format!("curl --silent --insecure {api} {api_url}"));
    assert!(told.starts_with("success:0\nerror:New <disks> Expected back: "), "{told}");
    // A tablet that tries meanwhile is told so, keeps its data, and uploads them afterwards.
    machine.run("sleep 5; camcops-provision maintenance off");
    assert_eq!(code("").trim(), "200");
    let failed = tablets.end();
    assert!(failed.as_object().is_some_and(|operations| !operations.is_empty()), "{failed}");
    machine.run("test -z \"$(ls /var/lib/camcops-pages)\"; camcops-provision plan --exit-code");
}

fn database(machine: &Booted) {
    is_mended(
        machine,
        "mysql --execute 'SET GLOBAL max_allowed_packet = 1048576'",
        "database.packet",
        "max_allowed_packet is 1 MiB",
    );
    is_mended(
        machine,
        "mysql --execute 'SET GLOBAL max_connections = 12'",
        "database.connections",
        "of 12 connections",
    );
    for (change, words) in [
        ("CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci", "phq9 has columns in utf8mb4_general_ci"),
        ("ROW_FORMAT = COMPACT", "row format Compact"),
    ] {
        is_mended(machine, &format!("mysql camcops --execute 'ALTER TABLE phq9 {change}'"), "database.tables", words);
    }
    is_mended(
        machine,
        "mysql --execute 'REVOKE DROP ON camcops.* FROM camcops@localhost'",
        "database.grants",
        "camcops@localhost differs from the plan (grants)",
    );
    let revision = |change: &str| {
        machine.run(&format!("mysql camcops --execute 'UPDATE _alembic_version SET version_num = {change}'"));
    };
    revision("\"0086\"");
    is(machine, "database.schema", "failed", "differs from the plan (revision)");
    revision("\"0087\"");
    is(machine, "database.schema", "ok", "");

    machine.run("systemctl stop mariadb");
    let (code, out, _) = machine.tried("camcops-provision doctor -q database web");
    assert_eq!(code, 1, "{out}");
    assert!(out.lines().any(|line| line.starts_with("failed   database.login ")), "{out}");
    // What stands on it is not told again.
    assert!(!out.contains("database.packet"), "{out}");
    machine.run("systemctl start mariadb");
    is(machine, "database.login", "ok", "");
}

fn broker(machine: &Booted) {
    machine.run("rabbitmqctl --quiet eval 'application:set_env(rabbit, consumer_timeout, 1800000).'");
    let remedies = is(machine, "broker.timeout", "failed", "after 1800000 ms");
    assert_eq!(remedies, ["systemctl restart rabbitmq-server"]);
    machine.run(&remedies[0]);
    is(machine, "broker.timeout", "ok", "");
    is_mended(
        machine,
        "rabbitmqctl --quiet set_permissions -p camcops camcops '' '' ''",
        "broker.rights",
        "RabbitMQ account camcops",
    );
}

fn machine_itself(machine: &Booted) {
    machine.run(
        "mount -t tmpfs -o size=4m,uid=33,gid=33,mode=0700 small /var/tmp/camcops/downloads
         head -c 8M /dev/zero > /var/tmp/camcops/downloads/much || true",
    );
    is(machine, "disk", "failed", "/var/tmp/camcops/downloads: 0 of 4 MiB free");
    machine.run(
        "umount /var/tmp/camcops/downloads
         mount -t tmpfs -o size=4m,nr_inodes=20,uid=33,gid=33,mode=0700 small /var/tmp/camcops/downloads
         touch $(seq --format /var/tmp/camcops/downloads/%g 30) || true",
    );
    is(machine, "disk", "failed", "of 20 inodes free");
    machine.run("umount /var/tmp/camcops/downloads");
    is(machine, "disk", "ok", "");

    // Somebody else on the site's port, under a name of its own.
    machine.run(
        "systemctl stop apache2
         systemd-run --quiet --unit=other /usr/share/camcops/venv/bin/python3 -m http.server 443
         until (exec 3<> /dev/tcp/127.0.0.1/443) 2> /dev/null; do sleep 0.1; done",
    );
    let remedies = is(machine, "ports", "failed", "https at 0.0.0.0:443 is in use by python3");
    assert!(remedies[0].starts_with("systemctl disable --now other.service "), "{remedies:?}");
    assert!(remedies[0].contains("config set web.https_port"), "{remedies:?}");
    is(machine, "web.apache", "failed", "does not run");
    machine.run("systemctl stop other; systemctl start apache2");
    is(machine, "ports", "ok", "");

    machine.run(
        "mkdir -p /opt/old /etc/supervisor/conf.d
         printf '#!/bin/sh\nsleep 600; :\n' > /opt/old/camcops_server
         chmod +x /opt/old/camcops_server
         printf '[program:camcops_server]\ncommand = /opt/old/camcops_server serve_cherrypy\n' > /etc/supervisor/conf.d/old.conf
         systemd-run --quiet --unit=old /opt/old/camcops_server serve_cherrypy
         until pgrep --full old/camcops_server; do sleep 0.1; done",
    );
    let remedies = is(machine, "former", "failed", "started by old.service");
    assert_eq!(remedies[0], "systemctl disable --now old.service");
    assert!(remedies[1].starts_with("mv /etc/supervisor/conf.d/old.conf "), "{remedies:?}");
    machine.run("systemctl stop old; rm -r /opt/old /etc/supervisor/conf.d/old.conf");
    is(machine, "former", "ok", "");

    machine.run("printf '[web]\\nserver_names = [\"nowhere.invalid\"]\\n' > /root/names.toml");
    let (code, out, _) = machine.tried("camcops-provision --config /root/names.toml doctor names");
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("warning  names                 nowhere.invalid does not resolve"), "{out}");
}

fn files(machine: &Booted) {
    is_mended(
        machine,
        "chmod 0600 /etc/camcops/camcops.conf; chown root:root /etc/camcops/camcops.conf",
        "permissions",
        "/etc/camcops/camcops.conf differs from the plan",
    );
    is_mended(machine, "rm /etc/camcops/camcops.my.cnf", "files", "/etc/camcops/camcops.my.cnf is missing");
    let holder = "machine-7f00aa40.4194304-12345";
    is_mended(
        machine,
        &format!(
            "cd /var/lock/camcops/export
             setpriv --reuid=33 --regid=33 --clear-groups touch {holder}
             setpriv --reuid=33 --regid=33 --clear-groups ln {holder} camcops_master_export_recipient.lock"
        ),
        "locks",
        "camcops_master_export_recipient.lock: its owner has ended",
    );
}

fn services(machine: &Booted) {
    machine.run("systemctl stop camcops-workers@camcops");
    is(machine, "services.running", "failed", "camcops-workers@camcops.service is stopped");
    let (code, out, _) = machine.tried("camcops-provision doctor --monitoring services broker");
    assert_eq!(code, 2, "{out}");
    assert!(out.starts_with("CAMCOPS CRITICAL: "), "{out}");
    assert!(out.contains("broker.queue failed, services.running failed | "), "{out}");
    is_mended(machine, ":", "services.running", "is stopped");
    is_mended(
        machine,
        "systemctl disable --quiet mariadb",
        "services.enabled",
        "mariadb.service is not enabled at boot",
    );
    machine.run(
        "mkdir -p /run/systemd/system/camcops-monitor@camcops.service.d
         printf '[Service]\\nUser=root\\nGroup=root\\n' > /run/systemd/system/camcops-monitor@camcops.service.d/99-root.conf
         systemctl daemon-reload
         systemctl restart --no-block camcops-monitor@camcops
         until [ \"$(stat --format %U /proc/$(systemctl show --property=MainPID --value camcops-monitor@camcops))\" = root ]; do sleep 0.2; done
         sleep 1",
    );
    let remedies = is(machine, "services.account", "failed", "runs as root, not as www-data");
    assert!(remedies[0].starts_with("systemctl cat camcops-monitor@camcops.service "), "{remedies:?}");
    machine.run(
        "rm -r /run/systemd/system/camcops-monitor@camcops.service.d
         systemctl daemon-reload
         camcops-provision restart monitor",
    );
    is(machine, "services.account", "ok", "");
}

fn web(machine: &Booted) {
    // The first layer that fails is named, and those on it are not asked.
    let first = |layer: &str, words: &str| {
        let (code, out, _) = machine.tried("camcops-provision doctor -q web.app web.socket web.apache web.public");
        assert_eq!(code, 1, "{out}");
        assert!(out.starts_with(&format!("failed   {layer:<21} ")), "{out}");
        assert!(out.contains(words) && out.matches("failed ").count() == 1, "{out}");
    };
    machine.run("rm /run/camcops/camcops.socket");
    first("web.socket", "there is no such socket");
    machine.run(&format!("{INSTALL} --yes"));
    machine.run("chmod 0700 /run/camcops; setpriv --reuid=33 --regid=33 --clear-groups sh -c '! test -w /run/camcops/camcops.socket'");
    first("web.socket", "Apache's account www-data cannot access it");
    machine.run(&format!("{INSTALL} --yes"));
    machine.run("mv /etc/apache2/sites-enabled/camcops.conf /root/; systemctl reload apache2; sleep 1");
    first("web.apache", "https://machine/");
    machine.run(&format!("{INSTALL} --yes"));
    machine.run("kill -STOP $(systemctl show --property=MainPID --value camcops-server@camcops) $(pgrep -P $(systemctl show --property=MainPID --value camcops-server@camcops))");
    first("web.app", "no page within 5 s");
    machine.run("kill -CONT $(systemctl show --property=MainPID --value camcops-server@camcops) $(pgrep -P $(systemctl show --property=MainPID --value camcops-server@camcops))");

    is_mended(
        machine,
        "sed -i '/unset X-Forwarded-Host/d' /etc/apache2/sites-available/camcops.conf; systemctl reload apache2; sleep 1",
        "web.headers",
        "believes host and path headers of any client",
    );
    is_mended(machine, "a2dismod --quiet --force proxy_http", "web.config", "proxy_http.load is missing");
    let other = "/etc/apache2/sites-enabled/other.conf";
    for (line, words) in [
        (
            "ProxyPass /x \"unix:/run/camcops/camcops.socket|https://x.invalid/\"",
            "other.conf:1: passes requests to a socket by https",
        ),
        ("ProxyPass /x/ \"unix:/run/camcops/camcops.socket|http://x.invalid\"", "ends with a slash"),
        ("ProxyPass /x \"unix:/run/other.socket|http://camcops.invalid/\"", "share the worker"),
        ("Nonsense on", "Invalid command 'Nonsense'"),
    ] {
        machine.run(&format!("echo '{line}' > {other}"));
        is(machine, "web.config", "failed", words);
        machine.run(&format!("rm {other}"));
    }
    is(machine, "web.config", "ok", "");
}

fn certificate(machine: &Booted) {
    let authority = Authority::new("An authority");
    let directory = "/etc/camcops/given";
    machine.run(&format!("mkdir -p {directory}"));
    let settings =
        format!("[tls]\nmode = 'files'\ncertificate = '{directory}/site.crt'\nkey = '{directory}/site.key'\n");
    std::fs::write(machine.path("/root/given.toml"), settings).unwrap();
    for (expired, state, words) in [(false, "warning", "days left"), (true, "failed", "expired")] {
        let (certificate, key) = authority.sign("machine", expired);
        std::fs::write(machine.path(&format!("{directory}/site.crt")), certificate).unwrap();
        std::fs::write(machine.path(&format!("{directory}/site.key")), key).unwrap();
        machine.run(&format!("chmod 0600 {directory}/site.key"));
        let (_, out, _) = machine.tried("camcops-provision --json --config /root/given.toml doctor certificate");
        let told: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(told["state"], state, "{out}");
        assert!(out.contains(words), "{out}");
    }
    machine.run(&format!("rm -r {directory}"));

    // One of our own that is about to expire is made anew.
    let (certificate, key) = ("/etc/camcops/tls/camcops.crt", "/etc/camcops/tls/camcops.key");
    let key = std::fs::read_to_string(machine.path(key)).unwrap();
    std::fs::write(machine.path(certificate), old(&key, "machine")).unwrap();
    is_mended(machine, ":", "certificate", "4 days left");
}

/// A machine that can't get a site says so before anything is changed.
#[test]
fn an_unfit_machine_is_refused_before_the_first_change() {
    let Some(machine) = bare() else {
        return;
    };
    let (code, out, why) = machine.tried("camcops-provision doctor");
    assert_eq!(code, 1, "{out}{why}");
    assert!(why.contains("doctor --preflight"), "{why}");
    machine.run(
        "systemd-run --quiet --unit=other perl -MIO::Socket::INET -e '@socket = IO::Socket::INET->new(LocalPort => 80, Listen => 1, ReuseAddr => 1) or die; sleep 600'
         until (exec 3<> /dev/tcp/127.0.0.1/80) 2> /dev/null; do sleep 0.1; done",
    );
    // RabbitMQ's package would fail after a minute.
    let refused = machine.tried(
        "hostname nameless; camcops-provision install --yes --wheelhouse /srv/wheelhouse; code=$?; hostname machine; exit $code",
    );
    assert_eq!(refused.0, 73, "{}", refused.2);
    let line = "echo '127.0.1.1 nameless' >> /etc/hosts";
    assert!(refused.2.contains(line), "{}", refused.2);
    let (code, out, _) = machine.tried("camcops-provision doctor --preflight ports");
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("http at 0.0.0.0:80 is in use by"), "{out}");
    let (code, _, why) = machine.tried("camcops-provision install --yes --wheelhouse /srv/wheelhouse");
    assert_eq!(code, 73, "{why}");
    assert!(why.contains("not ready; nothing was changed"), "{why}");
    assert!(why.contains("http at 0.0.0.0:80 is in use by"), "{why}");
    assert!(why.contains("install --ignore ports"), "{why}");
    let (code, out, _) = machine.tried("camcops-provision doctor --preflight ports --ignore ports");
    assert!(code == 0 && out.contains("skipped (--ignore)"), "{out}");
    assert_eq!(machine.run("ls /var/lib/camcops-provision 2> /dev/null || echo none"), "none\n");
}
