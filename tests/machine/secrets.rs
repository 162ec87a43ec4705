//! Secrets are made anew while the site is in use: nobody is turned away, whatever moment it is cut at, and the former
//! ones are of no use afterwards.

use crate::harness::Machine;
use crate::harness::booted::Booted;
use crate::harness::installed::installed;
use crate::harness::servers::{is_debian_13, sql, start_mariadb, start_mysql};
use crate::harness::site::{processes, wait_until_well};
use crate::harness::tablet::Tablets;
use crate::harness::watch::{Watch, secrets};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const KEPT: &str = "/etc/camcops/secrets/camcops";
const JOURNAL: &str = "/var/lib/camcops-provision/camcops/journal";

/// Fifty visitors, each with a new connection for each page, and three of the services' kind, each with a new connection
/// to the database; until they are told to stop. Then they tell what came of it.
const VISITORS: &str = r#"
import collections, http.client, os, ssl, sys, threading, time
import pymysql
seen, worst, over = collections.Counter(), [0.0], []
context = ssl._create_unverified_context()
def page():
    site = http.client.HTTPSConnection("127.0.0.1", 443, context=context, timeout=100)
    site.request("GET", "/login", headers={"Host": "machine"})
    answer = site.getresponse()
    text = answer.read()
    site.close()
    return "page" if answer.status == 200 and b'name="password"' in text else f"page {answer.status}"
def database():
    pymysql.connect(read_default_file="/etc/camcops/camcops.my.cnf", database="camcops").close()
    time.sleep(0.02)
    return "login"
def visit(what):
    while not over:
        start = time.monotonic()
        try:
            told = what()
        except Exception as why:
            told = f"{what.__name__}: {why!r}"
        seen[told] += 1
        if what is page:
            worst[0] = max(worst[0], time.monotonic() - start)
all = [threading.Thread(target=visit, args=[what]) for what in [page] * 50 + [database] * 3]
for one in all: one.start()
open("/var/lib/camcops/visited", "w").close()
while os.path.exists("/var/lib/camcops/visited"): time.sleep(0.1)
over.append(True)
for one in all: one.join()
print(seen.pop("page", 0), seen.pop("login", 0), round(worst[0], 1), dict(seen), flush=True)
"#;

#[test]
fn secrets_are_made_anew_while_the_site_is_in_use() {
    let Some((machine, _)) = installed() else {
        return;
    };
    wait_until_well(&machine, "the first boot");
    write(&machine, "/root/visitors.py", VISITORS);
    let tablets = Tablets::few(&machine);
    let mut former: BTreeSet<String> = all_secrets(&machine);
    let watch = Watch::start(&machine);
    let mut said = told_where(&machine);

    said += &database(&machine);
    former.extend(all_secrets(&machine));
    if cfg!(debug_assertions) {
        cut_and_gone_on_with(&machine, &mut former);
    }
    said += &broker(&machine);
    said += &monitor(&machine);
    said += &cookie(&machine);
    said += &readers(&machine);
    // It stops the database.
    tablets.excuse(|| what_is_not_ours_is_refused(&machine));

    tablets.end_unnoticed();
    wait_until_well(&machine, "all rotations");
    nothing_is_pending(&machine);
    former.extend(all_secrets(&machine));
    let seen = watch.end(&machine);
    assert_eq!(seen["in_command_lines"], Value::Array(vec![]), "{seen:#}");
    assert_eq!(seen["in_environments"], Value::Array(vec![]), "{seen:#}");
    no_trace(&machine, &former, &said);
}

/// All that this program keeps, one after the other; what is in a file of the administrator stays and is named.
#[test]
#[ignore = "thorough: each of them is rotated by itself in another test"]
fn every_secret_is_replaced_by_one_command() {
    let Some((machine, _)) = installed() else {
        return;
    };
    wait_until_well(&machine, "the first boot");
    machine.run(
        "umask 077; echo a-password-of-mine > /root/mine
         camcops-provision config set monitor.password_file /root/mine
         camcops-provision db grant-readonly; camcops-provision db grant-readonly --user anne
         camcops-provision --quiet install --yes",
    );
    let all = || secrets(&machine).into_iter().collect::<BTreeMap<String, String>>();
    let former = all();
    let told = machine.run("camcops-provision --json secret rotate all --yes");
    let told: Value = serde_json::from_str(&told).unwrap();
    let names = |list: &str| -> Vec<String> {
        told[list].as_array().unwrap().iter().map(|one| one["secret"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("secrets"), ["database", "readonly", "broker", "cookie", "readonly-anne"]);
    assert_eq!(names("skipped"), ["monitor"]);
    let now = all();
    for name in names("secrets") {
        assert_ne!(former[&name], now[&name], "{name}");
    }
    wait_until_well(&machine, "all rotations");
    assert!(gets_in(&machine, "anne", &now["readonly-anne"]) && !gets_in(&machine, "anne", &former["readonly-anne"]));
    machine.run("camcops-provision plan --exit-code");
}

fn write(machine: &Booted, path: &str, text: &str) {
    std::fs::write(machine.path(path), text).unwrap();
}

/// Everything that is kept now.
fn all_secrets(machine: &Booted) -> BTreeSet<String> {
    let all = secrets(machine).into_iter();
    all.filter(|(name, _)| name != "superuser").map(|(_, secret)| secret).collect()
}

fn kept(machine: &Booted, name: &str) -> String {
    machine.run(&format!("cat {KEPT}/{name}")).trim().to_owned()
}

fn nothing_is_pending(machine: &Booted) {
    let (code, pending, why) = machine.tried("camcops-provision plan --exit-code");
    assert_eq!(code, 0, "{pending}{why}");
}

fn told_where(machine: &Booted) -> String {
    let told = machine.run("camcops-provision secret list");
    assert!(told.contains(&format!("{KEPT}/database, generated, since 2")), "{told}");
    let json = machine.run("camcops-provision --json secret list");
    let all: Value = serde_json::from_str(&json).unwrap();
    let of = |name: &str, field: &str| {
        let all = all["secrets"].as_array().unwrap();
        let one = all.iter().find(|one| one["name"] == name).unwrap();
        one[field].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(of("broker", "origin"), "generated");
    assert_eq!(of("cookie", "file"), format!("{KEPT}/cookie"));
    assert_eq!(of("readonly", "origin"), "none");
    told + &json
}

fn begin_to_visit(machine: &Booted) {
    machine.run(
        "rm -f /var/lib/camcops/visited; chmod 644 /root/visitors.py; cp /root/visitors.py /var/lib/camcops/
         setsid setpriv --reuid=www-data --regid=www-data --init-groups \
            /usr/share/camcops/venv/bin/python /var/lib/camcops/visitors.py > /run/visits 2>&1 < /dev/null &
         until [ -e /var/lib/camcops/visited ]; do sleep 0.1; done; sleep 1",
    );
}

/// Ends the visits: all of them had success.
fn all_were_served(machine: &Booted, during: &str) {
    let told = machine.run(
        "sleep 1; rm /var/lib/camcops/visited
         while pgrep -f '[v]isitors.py' > /dev/null; do sleep 0.1; done; cat /run/visits",
    );
    let words: Vec<&str> = told.trim().splitn(4, ' ').collect();
    eprintln!("{during}: {} pages, the slowest {} s, {} logins", words[0], words[2], words[1]);
    assert_eq!(words[3], "{}", "{during}: {told}");
    assert!(words[0].parse::<u32>().unwrap() > 50, "{told}");
    assert!(words[1].parse::<u32>().unwrap() > 20, "{told}");
}

/// Whether the database lets an account in by a password.
fn gets_in(machine: &Booted, user: &str, password: &str) -> bool {
    write(machine, "/root/login.cnf", &format!("[client]\nuser={user}\npassword={password}\n"));
    let (code, _, why) = machine.tried(
        "mysql --defaults-file=/root/login.cnf camcops --execute 'SELECT 1'; code=$?; rm /root/login.cnf; exit $code",
    );
    assert!(code == 0 || why.contains("Access denied"), "{why}");
    code == 0
}

fn database(machine: &Booted) -> String {
    let (before, running) = (kept(machine, "database"), processes(machine));
    begin_to_visit(machine);
    let (code, out, why) = machine.tried("camcops-provision secret rotate database");
    all_were_served(machine, "a new database password");
    assert_eq!(code, 0, "{why}");
    // Nothing had to start again for it.
    assert_eq!(processes(machine), running);
    let now = kept(machine, "database");
    assert_ne!(now, before);
    assert!(gets_in(machine, "camcops", &now) && !gets_in(machine, "camcops", &before));
    nothing_is_pending(machine);
    out + &why
}

/// Killed after each of its steps was announced, and while files are written; then gone on with, by either command.
fn cut_and_gone_on_with(machine: &Booted, former: &mut BTreeSet<String>) {
    begin_to_visit(machine);
    let cuts = ["intent:1", "intent:2", "intent:3", "intent:4", "write:4"];
    for (index, cut) in cuts.into_iter().enumerate() {
        let before = kept(machine, "database");
        let rotate = "camcops-provision secret rotate database";
        let (code, ..) = machine.tried(&format!("CAMCOPS_PROVISION_CUT={cut} {rotate}; exit $?"));
        assert_eq!(code, 134, "{cut}");
        former.extend(all_secrets(machine));
        let again = match index % 2 {
            0 => rotate,
            _ => "camcops-provision install --yes",
        };
        machine.run(again);
        former.extend(all_secrets(machine));
        nothing_is_pending(machine);
        let now = kept(machine, "database");
        assert!(gets_in(machine, "camcops", &now), "{cut}");
        assert!(now == before || !gets_in(machine, "camcops", &before), "{cut}");
        // MariaDB keeps the other ways in here; none is left.
        let ways =
            sql_of(machine, "SELECT JSON_EXTRACT(Priv, '$.auth_or') FROM mysql.global_priv WHERE User = 'camcops'");
        assert!(["NULL", "[{}]"].contains(&ways.trim()), "{cut}: {ways}");
    }
    all_were_served(machine, "new database passwords, cut");
}

fn sql_of(machine: &Booted, question: &str) -> String {
    machine.run(&format!("mysql --batch --skip-column-names --execute \"{}\"", question.replace('$', "\\$")))
}

fn broker(machine: &Booted) -> String {
    let before = kept(machine, "broker");
    begin_to_visit(machine);
    if cfg!(debug_assertions) {
        // Between the files and the broker, and before what was stopped is started again.
        let rotate = "CAMCOPS_PROVISION_CUT=intent:4 camcops-provision secret rotate broker; exit $?";
        assert_eq!(machine.tried(rotate).0, 134);
    }
    let (code, out, why) = machine.tried("camcops-provision secret rotate broker");
    assert_eq!(code, 0, "{why}");
    all_were_served(machine, "a new broker password");
    wait_until_well(machine, "a new broker password");
    let now = kept(machine, "broker");
    assert_ne!(now, before);
    let knows = |password: &str| {
        write(machine, "/root/tried", password);
        let ask = "rabbitmqctl --quiet authenticate_user camcops < /root/tried";
        machine.tried(ask).0 == 0
    };
    assert!(knows(&now) && !knows(&before));
    machine.run("rm /root/tried");
    nothing_is_pending(machine);
    out + &why
}

fn monitor(machine: &Booted) -> String {
    let before = kept(machine, "monitor");
    let told = machine.run("camcops-provision secret rotate monitor 2>&1");
    let now = kept(machine, "monitor");
    assert_ne!(now, before);
    let status = |password: &str| {
        write(machine, "/root/curlrc", &format!("user = \"camcops:{password}\"\n"));
        machine.run(
            "curl --silent --config /root/curlrc --output /dev/null --write-out '%{http_code}' http://127.0.0.1:5555/; rm /root/curlrc",
        )
    };
    assert_eq!((status(&now), status(&before)), ("200".into(), "401".into()));
    told
}

fn cookie(machine: &Booted) -> String {
    let before = kept(machine, "cookie");
    let (code, _, why) = machine.tried("camcops-provision secret rotate cookie < /dev/null");
    assert_eq!(code, 64, "{why}");
    assert!(why.contains("logs everybody out"), "{why}");
    assert_eq!(kept(machine, "cookie"), before);
    let told = machine.run("camcops-provision --json secret rotate cookie --yes");
    let now = kept(machine, "cookie");
    assert_ne!(now, before);
    let configuration = std::fs::read_to_string(machine.path("/etc/camcops/camcops.conf")).unwrap();
    assert!(configuration.contains(&format!("\nSESSION_COOKIE_SECRET = {now}\n")));
    told
}

fn readers(machine: &Booted) -> String {
    machine.run(
        "camcops-provision config set database.readonly_user reports
         camcops-provision --quiet install --yes",
    );
    let before = kept(machine, "readonly");
    let told = machine.run("camcops-provision secret rotate readonly 2>&1");
    let now = kept(machine, "readonly");
    assert!(gets_in(machine, "reports", &now) && !gets_in(machine, "reports", &before));
    told
}

fn what_is_not_ours_is_refused(machine: &Booted) {
    let refused = |arguments: &str, code: i32, words: &str| {
        let (told, out, why) = machine.tried(&format!("camcops-provision {arguments} < /dev/null"));
        assert_eq!((told, out.as_str()), (code, ""), "{arguments}: {why}");
        assert!(why.contains(words) && why.lines().count() == 1, "{arguments}: {why}");
    };
    let before = all_secrets(machine);
    machine.run("umask 077; echo a-password-of-mine > /root/mine");
    let mine = "--set monitor.password_file=/root/mine";
    refused(&format!("{mine} secret rotate monitor"), 78, "/root/mine");
    let elsewhere = "--set database.mode=external --set database.host=db.invalid";
    refused(&format!("{elsewhere} secret rotate database"), 78, "database.admin_defaults_file");
    let by_socket = "--set account.user=camcops";
    refused(&format!("{by_socket} secret rotate database"), 64, "without a password");
    machine.run("systemctl stop mariadb");
    refused_after_a_while(machine, "secret rotate database", 69);
    machine.run("systemctl start mariadb; rm /root/mine");
    assert_eq!(all_secrets(machine), before);
}

/// Where steps are told first.
fn refused_after_a_while(machine: &Booted, command: &str, code: i32) {
    let (told, _, why) = machine.tried(&format!("camcops-provision {command}"));
    assert_eq!(told, code, "{why}");
}

/// No secret, former or present, in what was said, in what is logged, or in what others can read.
fn no_trace(machine: &Booted, secrets: &BTreeSet<String>, said: &str) {
    assert!(secrets.len() > 10, "{}", secrets.len());
    for secret in secrets {
        assert!(!said.contains(secret.as_str()), "{said}");
    }
    let lines: Vec<&str> = secrets.iter().map(String::as_str).collect();
    write(machine, "/run/looked-for", &lines.join("\n"));
    let found = machine.run(&format!(
        "chmod 600 /run/looked-for
         {{ grep --recursive --files-with-matches --fixed-strings --file /run/looked-for /var/log /tmp /var/tmp /run/log {JOURNAL} || true
         journalctl --no-pager | grep --fixed-strings --file /run/looked-for || true
         find /etc /var/lib /run -xdev -type f -perm /o+r -exec grep --files-with-matches --fixed-strings --file /run/looked-for {{}} + || true; }}"
    ));
    assert_eq!(found, "");
}

/// The database alone, of each family, with the parts that need no release of the application.
const PARTS: &str = "install --yes --only directories,secrets,configuration,database";

#[test]
#[ignore = "thorough: another release of Debian"]
fn mariadb_of_debian_13_takes_two_passwords_for_a_while() {
    by_two_passwords(Machine::of("trixie", &["mariadb-server"]), start_mariadb);
}

#[test]
#[ignore = "thorough: another release of Debian"]
fn mysql_takes_two_passwords_for_a_while() {
    let machine = Machine::of("sid", &["mysql-server"]);
    machine.iter().for_each(is_debian_13);
    by_two_passwords(machine, start_mysql);
}

fn by_two_passwords(machine: Option<Machine>, start: fn(&Machine)) {
    let Some(machine) = machine else {
        return;
    };
    // Without systemd, MySQL waits for somebody to start it.
    let first = provision(&machine, PARTS, "");
    if first != 0 {
        start(&machine);
        assert_eq!(provision(&machine, PARTS, ""), 0);
    }
    let password = || machine.run("cat /etc/camcops/secrets/camcops/database");
    let gets_in = |password: &str| {
        let options = format!("[client]\nuser=camcops\npassword={password}");
        machine.write("/tmp/login.cnf", &options, 0o600);
        let client = "client=$(command -v mariadb || command -v mysql); $client --defaults-file=/tmp/login.cnf camcops -e 'SELECT 1'";
        let done = machine.command("bash").args(["-c", client]).output().unwrap();
        done.status.success()
    };
    let mut former = vec![password()];
    sql(&machine, "SET GLOBAL general_log = ON");
    assert_eq!(provision(&machine, "secret rotate database", ""), 0);
    assert!(gets_in(&password()) && !gets_in(&former[0]));
    if !cfg!(debug_assertions) {
        return;
    }
    for (cut, again) in [
        ("intent:2", "secret rotate database"),
        ("intent:2", PARTS),
        ("intent:3", PARTS),
        ("intent:4", "secret rotate database"),
    ] {
        let before = password();
        assert_ne!(provision(&machine, "secret rotate database", cut), 0);
        // Whoever still has the former one, and whoever has the new one already.
        assert!(gets_in(&before) && gets_in(&password()), "{cut}");
        assert_eq!(provision(&machine, again, ""), 0, "{cut} {again}");
        assert!(gets_in(&password()), "{cut} {again}");
        former.push(before);
        former.retain(|one| *one != password());
        for one in &former {
            assert!(!gets_in(one), "{cut} {again}");
        }
    }
}

fn provision(machine: &Machine, arguments: &str, cut: &str) -> i32 {
    let mut command = machine.command("camcops-provision");
    if !cut.is_empty() {
        command.env("CAMCOPS_PROVISION_CUT", cut);
    }
    let output = command.args(arguments.split(' ')).output().unwrap();
    eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    output.status.code().unwrap_or(-1)
}
