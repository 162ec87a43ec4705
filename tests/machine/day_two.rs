//! What an administrator does with a site that runs: read its logs, help its users, run things in its surroundings.

use crate::harness::booted::Booted;
use crate::harness::installed::{PASSWORD, SUPERUSER, installed};
use crate::harness::site::{NO_GROUP, SERVICES, as_tablet, wait_until_well};
use crate::harness::tablet::Tablets;
use serde_json::Value;

const TYPED: &str = include_str!("harness/typed.py");
const ANOTHER: &str = "three-quiet-herons";

#[test]
fn a_running_site_is_looked_after() {
    let Some((machine, _)) = installed() else {
        return;
    };
    wait_until_well(&machine, "the first boot");
    let tablets = Tablets::few(&machine);
    reads_the_journal(&machine);
    runs_in_the_foreground(&machine);
    // These stop the database, or take the socket away.
    tablets.excuse(|| lets_users_in(&machine));
    lends_no_terminal(&machine);
    tablets.excuse(|| outlives_its_own_account(&machine));
    tablets.excuse(|| tells_what_is_used(&machine));
    tells_where_it_is(&machine);
    grows(&machine, &tablets);
    reads_files(&machine);
    tablets.end_unnoticed();
    collects_for_a_helper(&machine);
    remembers_who_did_what(&machine);
}

/// The history has what was done above, and each way to tamper with it is found.
fn remembers_who_did_what(machine: &Booted) {
    const FILE: &str = "/var/lib/camcops-provision/camcops/history";
    machine.run("SUDO_USER=anna camcops-provision --set web.timeout_s=301 config set web.timeout_s 302");
    machine.run("camcops-provision exec -- printf hush-hush > /dev/null");
    machine.run("(camcops-provision restart monitor > /dev/null 2>&1 & sleep 1; kill -9 $!); sleep 0.3");
    machine.run("camcops-provision backup create");
    let read = |arguments: &str| -> Value {
        serde_json::from_str(&machine.tried(&format!("camcops-provision --json history {arguments}")).1).unwrap()
    };
    let all = read("");
    let entries = all["entries"].as_array().unwrap();
    let of = |words: &str| {
        let is_it = |entry: &&Value| {
            entry["command"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect::<Vec<_>>().join(" ")
                == words
        };
        let found = entries.iter().rev().find(is_it).unwrap_or_else(|| panic!("no {words} in {all}"));
        (found["state"].as_str().unwrap(), found["by"]["account"].as_str().unwrap())
    };
    assert_eq!(of("config set web.timeout_s ..."), ("done", "anna"));
    assert_eq!(of("exec -- printf ..."), ("done", "root"));
    assert_eq!(of("backup create"), ("done", "root"));
    assert_eq!(of("restart monitor"), ("unfinished", "root"));
    assert!(!all.to_string().contains("hush"), "{all}");
    assert_eq!(read("--since tomorrow")["entries"], Value::Array(Vec::new()));
    assert_eq!(refused(machine, "history --since sometime").0, 64);
    assert_eq!(machine.run(&format!("stat -c '%a %U' {FILE}")), "600 root\n");

    // What another account tells the system's log is no witness.
    machine.run(
        "setpriv --reuid=www-data --regid=www-data --clear-groups logger --tag camcops-provision \
         \"history camcops 99999 $(printf x | sha256sum | cut -c1-64): anna begins: nothing\"; sleep 0.5",
    );
    let whole = read("--verify");
    assert_eq!(whole["verified"]["whole"], true, "{whole}");
    assert!(whole["verified"]["witnesses"].to_string().contains("backup"), "{whole}");
    let tampered = |script: &str, words: &str| {
        machine.run(&format!("cp -p {FILE} /root/history; {script}"));
        let (code, _, why) = machine.tried("camcops-provision history --verify --quiet");
        machine.run(&format!("cp -p /root/history {FILE}"));
        assert_eq!(code, 65, "{script}: {why}");
        assert!(why.contains(words), "{script}: {why}");
    };
    tampered(&format!("sed -i 4d {FILE}"), "entry 4 is missing");
    tampered(&format!("sed -i '4s/\"at\":\"20/\"at\":\"19/' {FILE}"), "was changed");
    tampered(&format!("sed -i '4{{h;d}};5G' {FILE}"), "stands after entry");
    tampered(&format!("sed -i '$d' {FILE}"), "the system's log remembers");
    tampered(&format!("rm {FILE}"), "the system's log remembers");
    // Nothing is left of all that: the next command continues the chain.
    machine.run("camcops-provision restart monitor");
    assert_eq!(read("--verify")["verified"]["whole"], true);
    // A line that a power cut left half is no end of it.
    machine.run(&format!("printf 'abc' >> {FILE}; camcops-provision restart monitor"));
    assert_eq!(read("--verify")["verified"]["whole"], true);
    machine.run(&format!("grep -q '\"event\":\"cut\"' {FILE}"));
}

/// Exit code and complaint of a command that can't be done.
fn refused(machine: &Booted, command: &str) -> (i32, String) {
    let (code, out, why) = machine.tried(&format!("camcops-provision {command} < /dev/null"));
    assert_eq!(out, "", "{command}");
    assert_eq!(why.lines().count(), 1, "{command}: {why}");
    (code, why)
}

/// The lines that `logs` tells, as service and message.
fn told(machine: &Booted, arguments: &str) -> Vec<(String, String)> {
    let text = machine.run(&format!("camcops-provision --json logs {arguments}"));
    let told: Value = serde_json::from_str(&text).unwrap();
    let text = |line: &Value, field: &str| line[field].as_str().unwrap().to_owned();
    let lines = told["lines"].as_array().unwrap();
    lines.iter().map(|line| (text(line, "service"), text(line, "message"))).collect()
}

fn reads_the_journal(machine: &Booted) {
    let all = told(machine, "--since '1 day ago'");
    for service in SERVICES {
        assert!(all.iter().any(|(name, _)| name == service), "{service}");
    }
    let workers = told(machine, "workers --lines 3");
    assert_eq!(workers.len(), 3);
    assert!(workers.iter().all(|(name, _)| name == "workers"));
    let shown = machine.run("camcops-provision logs server monitor --since today");
    assert!(shown.contains("camcops-server@camcops"), "{shown}");
    assert!(!shown.contains("camcops-workers@camcops"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "{shown}");

    let (code, why) = refused(machine, "logs --since tomorow");
    assert_eq!(code, 64, "{why}");
    assert!(why.contains("\"1 hour ago\""), "{why}");
    assert_eq!(machine.tried("camcops-provision --json logs --follow").0, 64);

    machine.run(
        "camcops-provision logs scheduler --follow --lines 0 > /root/followed &
         camcops-provision restart scheduler
         for _ in $(seq 300); do ! grep -q 'beat: Starting' /root/followed || break; sleep 0.1; done
         kill %1; grep 'beat: Starting' /root/followed",
    );
}

/// In the foreground until it is interrupted, or ended by somebody else; what ran before runs afterwards.
fn runs_in_the_foreground(machine: &Booted) {
    let begin = "camcops-provision stop scheduler > /dev/null
         camcops-provision run --foreground scheduler monitor > /root/shown 2>&1 & shown=$!
         for _ in $(seq 300); do ! grep -q 'beat: Starting' /root/shown || break; sleep 0.1; done
         systemctl is-active camcops-scheduler@camcops > /dev/null || exit 9";
    let state = "systemctl is-active camcops-scheduler@camcops camcops-monitor@camcops; cat /root/shown";
    let told = machine.run(&format!("{begin}; kill -INT $shown; wait $shown && echo 0 || echo $?; {state} || true"));
    assert!(told.starts_with("0\ninactive\nactive\n"), "{told}");
    assert!(told.contains("camcops-monitor@camcops.service runs already") && told.contains("beat: Starting"), "{told}");
    let ended = format!(
        "{begin}; sleep 3; systemctl stop camcops-scheduler@camcops; wait $shown && echo 0 || echo $?; {state} || true"
    );
    let told = machine.run(&ended);
    assert!(
        told.starts_with("1\ninactive\nactive\n") && told.contains("scheduler@camcops.service was stopped"),
        "{told}"
    );
    machine.run("camcops-provision start scheduler");
}

fn lets_users_in(machine: &Booted) {
    let is_let_in = |password: &str| as_tablet(machine, SUPERUSER, password).body.contains(NO_GROUP);
    assert!(is_let_in(PASSWORD));

    machine.run(&format!(
        "mysql camcops --execute \"INSERT INTO _security_account_lockouts (username, locked_until)
            VALUES ('{SUPERUSER}', UTC_TIMESTAMP() + INTERVAL 1 HOUR)\""
    ));
    let enabled = machine.run(&format!("camcops-provision user enable {SUPERUSER}"));
    assert_eq!(enabled, format!("{SUPERUSER} can log in again\n"));
    let again = machine.run(&format!("camcops-provision user enable {SUPERUSER}"));
    assert!(again.contains("was not locked out"), "{again}");

    machine.run(&format!("echo {ANOTHER} | camcops-provision user reset-password {SUPERUSER} --password-file -"));
    assert!(is_let_in(ANOTHER) && !is_let_in(PASSWORD));
    for (password, code) in [("short", 64), ("password123", 65)] {
        let reset = format!("user reset-password {SUPERUSER} --password-file");
        machine.run(&format!("umask 077; echo {password} > /root/password"));
        assert_eq!(refused_after_a_while(machine, &format!("{reset} /root/password")), code);
    }
    assert!(is_let_in(ANOTHER));

    let power = || {
        machine.run(
            "mysql --skip-column-names camcops --execute \"SELECT superuser FROM _security_users WHERE username = 'second'\"",
        )
    };
    machine.run("echo four-loud-herons | camcops-provision user superuser second --password-file -");
    assert_eq!(power().trim(), "1");
    machine.run("mysql camcops --execute \"UPDATE _security_users SET superuser = 0 WHERE username = 'second'\"");
    let again = machine.run("camcops-provision --json user superuser second");
    assert!(again.contains("\"changed\": true"), "{again}");
    assert_eq!(power().trim(), "1");
    let again = machine.run("camcops-provision --json user superuser second");
    assert!(again.contains("\"changed\": false"), "{again}");

    for (command, code) in [
        ("user enable nobody", 65),
        ("user reset-password nobody", 65),
        ("user superuser third", 64),
        ("user superuser 'not a name'", 64),
        ("user superuser third --password-file /root/none", 78),
    ] {
        let (told, why) = refused(machine, command);
        assert_eq!(told, code, "{command}: {why}");
    }
    machine.run("systemctl stop mariadb");
    let (code, why) = refused(machine, &format!("user enable {SUPERUSER}"));
    assert_eq!(code, 69, "{why}");
    machine.run("systemctl start mariadb");
}

/// Where CamCOPS itself is asked first, which is told too.
fn refused_after_a_while(machine: &Booted, command: &str) -> i32 {
    machine.tried(&format!("camcops-provision {command}")).0
}

/// A service of the site's own that counts, as fast as it can be read.
const COUNTER: &str = r#"
[[services.extra]]
name = "counter"
command = ["python3", "-uc", "import itertools, time; any(print(n) or time.sleep(0.0002) for n in itertools.count(1))"]
"#;

/// Rotations while a service writes cost no line.
fn rotates(machine: &Booted) {
    let counted = machine.run(
        "log=/var/log/camcops/counter.log
         camcops-provision stop counter > /dev/null; rm -f /var/log/camcops/*.log-*; : > $log
         camcops-provision start counter > /dev/null
         for time in 1 2 3 4 5; do
             sleep 0.5
             logrotate --force /etc/logrotate.d/camcops
             mv $log-* /root/counted.$time
             rm -f /var/log/camcops/*.log-*
         done
         systemctl show --property=FreezerState --value camcops-counter@camcops.service
         camcops-provision stop counter > /dev/null
         cat /root/counted.? $log",
    );
    let mut lines = counted.lines();
    assert_eq!(lines.next(), Some("running"));
    let numbers: Vec<usize> = lines.map(|line| line.parse().unwrap()).collect();
    let all: Vec<usize> = (1..=numbers.len()).collect();
    assert!(numbers.len() > 1000 && numbers == all, "{}", numbers.len());
}

/// One of the administrator's takes the place of ours: two would be an error to logrotate.
fn leaves_rotation(machine: &Booted) {
    machine.run(
        "echo '/var/log/camcops/*.log { copytruncate }' > /etc/logrotate.d/mine
         camcops-provision install --yes; [ ! -e /etc/logrotate.d/camcops ]
         logrotate --debug /etc/logrotate.conf 2>&1 | { ! grep 'duplicate log entry'; }
         rm /etc/logrotate.d/mine; camcops-provision --set logging.keep_days=0 plan --exit-code
         camcops-provision install --yes; [ -e /etc/logrotate.d/camcops ]",
    );
}

fn reads_files(machine: &Booted) {
    let settings = machine.path("/etc/camcops/provision.toml");
    let before = std::fs::read_to_string(&settings).unwrap_or_default();
    std::fs::write(&settings, before + COUNTER).unwrap();
    machine.run("camcops-provision config set logging.mode file; camcops-provision install --yes");
    let (code, why) = refused(machine, "logs --since today");
    assert_eq!(code, 64, "{why}");
    let all = told(machine, "--lines 10");
    for service in SERVICES {
        assert!(all.iter().any(|(name, _)| name == service), "{service}");
    }
    machine.run(
        "camcops-provision logs scheduler --follow --lines 0 > /root/followed 2> /dev/null &
         logrotate --force /etc/logrotate.d/camcops
         camcops-provision restart scheduler
         for _ in $(seq 300); do ! grep -q 'beat: Starting' /root/followed || break; sleep 0.1; done
         kill %1; grep 'beat: Starting' /root/followed",
    );
    rotates(machine);
    let with = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, with.replace(COUNTER, "")).unwrap();
    leaves_rotation(machine);
}

/// What runs as the account of the services has no way to the terminal of whoever runs it.
fn lends_no_terminal(machine: &Booted) {
    let typed = machine.run(
        r#"script --quiet --command 'tty; camcops-provision exec -- tty; camcops-provision exec -- sh -c "exit 9"; echo $?' /dev/null < /dev/null"#,
    );
    // `script` ends its input in its own way.
    let typed = typed.replace("^@", "");
    let lines: Vec<&str> = typed.lines().map(str::trim).collect();
    assert!(lines[0].starts_with("/dev/pts/"), "{typed}");
    assert!(lines[1].starts_with("/dev/pts/"), "{typed}");
    assert_ne!(lines[0], lines[1]);
    assert_eq!(lines[2], "9");
    let typed = machine.run(
        r#"script --quiet --command 'camcops-provision exec -- sh -c ": < /dev/tty" < /dev/null || echo none' /dev/null < /dev/null"#,
    );
    assert!(typed.contains("none"), "{typed}");
    let (code, out, _) = machine.tried("echo piped | camcops-provision exec -- sh -c 'cat; exit 5'");
    assert_eq!((code, out.as_str()), (5, "piped\n"));
    // It reads what is typed for it, and nothing where its input comes from elsewhere.
    std::fs::write(machine.path("/root/typed.py"), TYPED).unwrap();
    let read = machine.run("python3 /root/typed.py");
    let lines: Vec<&str> = read.lines().map(str::trim_end).collect();
    assert_eq!(lines.first(), Some(&"4 True"), "{read}");
    assert_eq!(lines.last(), Some(&"4 True > /root/written"), "{read}");
    for line in &lines[1..lines.len() - 1] {
        assert!(line.starts_with("4 False < /dev/null"), "{read}");
    }
}

/// A socket that is gone comes back; the account of the services can't remove it, but it can hold the lock of its directory.
fn outlives_its_own_account(machine: &Booted) {
    let socket = "/run/camcops/camcops.socket";
    for (spoilt, mended) in [
        (format!("rm {socket}"), "restart server"),
        (format!("rm {socket}; ln -s /etc/passwd {socket}"), "install --yes"),
    ] {
        machine.run(&spoilt);
        let told = machine.run("camcops-provision status");
        assert!(told.contains("its file is gone"), "{told}");
        machine.run(&format!("camcops-provision {mended}"));
        assert_eq!(machine.tried("camcops-provision plan --exit-code").0, 0);
    }
    machine.run(&format!("setpriv --reuid=www-data --clear-groups sh -c '! rm {socket}' 2> /dev/null"));
    machine.run("setpriv --reuid=www-data --clear-groups flock /var/lock/camcops/export sleep 60 > /dev/null 2>&1 &");
    let (code, why) = refused(machine, "break-locks");
    assert_eq!(code, 75, "{why}");
    machine.run("pkill --uid www-data sleep");
}

/// What `stats` tells.
fn stats(machine: &Booted) -> Value {
    let text = machine.run("camcops-provision --json stats");
    serde_json::from_str::<Value>(&text).unwrap()["stats"].clone()
}

/// One service of what `stats` tells.
fn used_by<'a>(stats: &'a Value, service: &str) -> &'a Value {
    let services = stats["services"].as_array().unwrap();
    let found = services.iter().find(|one| one["service"] == service);
    found.unwrap()
}

fn tells_what_is_used(machine: &Booted) {
    // Somebody visits meanwhile.
    machine.run(
        "(while [ ! -e /root/enough ]; do curl --silent --insecure --output /dev/null https://machine/; done) > /dev/null 2>&1 &",
    );
    let busy = stats(machine);
    machine.run("touch /root/enough");
    assert!(busy["requests_per_second"].as_f64().unwrap() > 0.0, "{busy}");
    assert!(busy["queue"]["consumers"].as_u64().unwrap() > 0, "{busy}");
    let database = &busy["database"];
    assert!(database["ours"].as_u64() <= database["open"].as_u64(), "{busy}");
    assert!(database["open"].as_u64() < database["most"].as_u64(), "{busy}");
    let server = used_by(&busy, "server");
    assert!(server["cpu_percent"].as_f64().unwrap() > 0.0, "{server}");
    assert!(server["memory"].as_u64().unwrap() > 100 << 20, "{server}");
    for service in SERVICES {
        assert_eq!(used_by(&busy, service)["state"], "running", "{busy}");
    }
    machine.run("systemctl stop mariadb camcops-workers@camcops");
    let troubled = stats(machine);
    assert_eq!(troubled["database"], Value::Null);
    assert_eq!(troubled["queue"]["consumers"], 0);
    assert_eq!(used_by(&troubled, "workers")["state"], "stopped");
    assert_eq!(troubled["troubles"].as_array().unwrap().len(), 1, "{troubled}");
    let shown = machine.run("camcops-provision top");
    assert!(shown.contains("trouble      database /run/mysqld/mysqld.sock"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "{shown}");
    machine.run("systemctl start mariadb camcops-workers@camcops");

    // Live, on a terminal, and left by Ctrl-C with the screen as it was.
    let live = machine.run(
        r#"timeout --signal=INT --preserve-status 4 script --quiet --return --command 'timeout --foreground --signal=INT 3 camcops-provision top --seconds 1; echo left' /dev/null < /dev/null"#,
    );
    assert!(live.matches("SERVICE").count() >= 2, "{live}");
    let (_, after) = live.rsplit_once("\u{1b}[?1049l").unwrap();
    assert!(after.contains("left"), "{live}");
}

fn tells_where_it_is(machine: &Booted) {
    let text = machine.run("camcops-provision --json traceback");
    let told: Value = serde_json::from_str(&text).unwrap();
    let processes = told["processes"].as_array().unwrap();
    for service in SERVICES {
        let of_it = processes.iter().filter(|one| one["service"] == service);
        let frames: Vec<&Value> = of_it.flat_map(|one| one["threads"].as_array().unwrap()).collect();
        assert!(!frames.is_empty(), "{service}: {text}");
    }
    // One that is stuck in the middle of a visit says where.
    let stuck = machine.run(
        r#"mysql --execute 'LOCK TABLES camcops._security_webviewer_sessions WRITE; SELECT SLEEP(100)' > /dev/null 2>&1 &
         holder="SELECT ID FROM information_schema.PROCESSLIST WHERE INFO LIKE 'SELECT SLEEP%'"
         for _ in $(seq 100); do [ -z "$(mysql --skip-column-names --execute "$holder")" ] || break; sleep 0.1; done
         curl --silent --insecure --output /dev/null --max-time 90 https://machine/ > /dev/null 2>&1 &
         for _ in $(seq 100); do camcops-provision traceback server > /root/stuck; ! grep -q _read_query_result /root/stuck || break; sleep 0.2; done
         mysql --execute "KILL $(mysql --skip-column-names --execute "$holder")"
         cat /root/stuck"#,
    );
    assert!(stuck.contains("_read_query_result") && stuck.contains("camcops_server/cc_modules/"), "{stuck}");
    machine.run("kill -STOP $(systemctl show --property MainPID --value camcops-scheduler@camcops)");
    let (code, out, _) = machine.tried("camcops-provision traceback scheduler");
    assert_eq!(code, 1);
    assert!(out.contains("kill -CONT"), "{out}");
    machine.run("kill -CONT $(systemctl show --property MainPID --value camcops-scheduler@camcops)");
    // Nobody has died of being asked.
    for service in SERVICES {
        assert_eq!(used_by(&stats(machine), service)["restarts"], 0);
    }
}

fn grows(machine: &Booted, tablets: &Tablets<'_>) {
    let processes = |service: &str| {
        let stats = stats(machine);
        used_by(&stats, service)["processes"].as_array().unwrap().len()
    };
    // Two services of workers, each of which answers for itself.
    machine.run("camcops-provision scale server=4 workers=2x1");
    assert_eq!((processes("server"), processes("workers")), (5, 2));
    let answers = || {
        let told = machine.tried("camcops-provision status").1;
        let of = |unit: &str| told.lines().any(|line| line.contains(unit) && line.contains(" answers, since"));
        (of("camcops-workers@camcops.service"), of("camcops-workers-2@camcops.service"))
    };
    assert_eq!(answers(), (true, true));
    machine.run("systemctl kill --signal=STOP camcops-workers-2@camcops");
    assert_eq!(answers(), (true, false));
    machine.run("systemctl kill --signal=CONT camcops-workers-2@camcops");
    for (wish, code, why) in
        [("server=4 server=5", 64, "named twice"), ("monitor=2", 64, "exactly one process"), ("server=250", 78, "MiB")]
    {
        let (told, complaint) = refused_shortly(machine, &format!("scale {wish}"));
        assert_eq!(told, code, "{wish}: {complaint}");
        assert!(complaint.contains(why), "{wish}: {complaint}");
    }
    tablets.excuse(|| {
        machine.run("mysql --execute 'SET GLOBAL max_connections = 10'");
        let (code, why) = refused(machine, "scale server=12");
        assert_eq!(code, 78);
        assert!(why.contains("max_connections"), "{why}");
        machine.run("mysql --execute 'SET GLOBAL max_connections = 151'");
    });
    machine.run("mkdir -p /etc/camcops/provision.d; printf '[web]\nworkers = 3\n' > /etc/camcops/provision.d/9.toml");
    let (code, why) = refused(machine, "scale server=2");
    assert_eq!(code, 78);
    assert!(why.contains("provision.d/9.toml"), "{why}");
    machine.run("rm /etc/camcops/provision.d/9.toml");
    machine.run("camcops-provision scale server=auto workers=auto");
    assert_eq!(processes("server"), 3);
    assert_eq!(machine.tried("systemctl is-active camcops-workers-2@camcops").1, "inactive\n");
    assert_eq!(machine.tried("ls /etc/systemd/system | grep workers-2").0, 1);

    machine.run("camcops-provision service disable monitor");
    assert_eq!(machine.tried("systemctl is-active camcops-monitor@camcops").1, "inactive\n");
    let again = machine.run("camcops-provision service disable monitor");
    assert!(again.contains("nothing to do"), "{again}");
    machine.run("camcops-provision service enable monitor");
    machine.run("systemctl is-active camcops-monitor@camcops");
    assert_eq!(machine.tried("camcops-provision plan --exit-code").0, 0);
}

/// Where the command line itself says how it is used, too.
fn refused_shortly(machine: &Booted, command: &str) -> (i32, String) {
    let (code, out, why) = machine.tried(&format!("camcops-provision {command} < /dev/null"));
    assert_eq!(out, "", "{command}");
    (code, why)
}

/// What leaves the machine has no password in it and nothing of a patient, wherever somebody has put one.
fn collects_for_a_helper(machine: &Booted) {
    machine.run(
        r#"cd /etc/camcops/secrets/camcops
        for file in *; do
            echo "2026-11-21 12:00:00.000 camcops_server.cc_modules.cc_patient:ERROR: Plantagenet, born 1901-02-03: $(cat $file)"
            echo "[parameters: ('Plantagenet', '$(cat $file)')]"
        done >> /var/log/camcops/server.log
        echo "[Sat Nov 21 12:00:00 2026] [core:error] [client 192.0.2.77:1] AH00001: Plantagenet, referer: https://x/?s=Plantagenet" >> /var/log/apache2/camcops_error.log
        printf '# The password is %s\n' $(cat database) >> /etc/camcops/camcops.conf
        systemctl stop rabbitmq-server"#,
    );
    let told = machine.run("umask 022; cd /root; camcops-provision support-bundle --out help.tar.gz --yes 2>&1");
    for name in ["status.json", "camcops.conf", "logs/server.txt", "traceback.txt"] {
        assert!(told.contains(name), "{told}");
    }
    machine.run("systemctl start rabbitmq-server");
    assert_eq!(machine.run("stat --format %a:%U /root/help.tar.gz"), "600:root\n");
    let found = machine.run(
        r#"cd /root; tar xzf help.tar.gz; cd camcops-support-*
        for file in /etc/camcops/secrets/camcops/*; do ! grep -rlF "$(cat $file)" . || echo "leaks $file"; done
        ! grep -rl -e 1901-02-03 -e 192.0.2.77 . || echo leaks
        ! grep -rl Plantagenet logs *.json || echo leaks
        grep -h cc_patient logs/server.txt | sort -u; grep -h AH00001 logs/apache.txt"#,
    );
    assert!(!found.contains("leaks"), "{found}");
    assert!(found.contains("cc_patient:ERROR: …"), "{found}");
    assert!(found.contains("[core:error] AH00001"), "{found}");
    machine.run("sed -i '/^# The password is/d' /etc/camcops/camcops.conf");
    for (command, code) in [
        ("support-bundle --yes --out /root/help.tar.gz", 73),
        ("support-bundle --yes --out /nowhere/help.tar.gz", 73),
        ("support-bundle --yes --root /tmp", 64),
    ] {
        let (told, why) = refused_shortly(machine, &format!("--quiet {command}"));
        assert_eq!(told, code, "{command}: {why}");
    }
}
