//! The database of a site changed as a whole: its tables, its accounts, a copy of it, and a new one in its place.

use crate::harness::booted::Booted;
use crate::harness::hostile::{make_hostile, rights};
use crate::harness::installed::installed;
use crate::harness::kill;
use crate::harness::site::wait_until_well;
use crate::harness::tablet::Tablets;
use serde_json::Value;
use std::process::Stdio;
use std::time::{Duration, Instant};

const DUMPS: &str = "/var/backups/camcops";
/// What an older release has.
const OLDER: &str = "mysql camcops --execute \"DROP TABLE empsa; UPDATE _alembic_version SET version_num = '0086'\"";

/// Patients with tasks as CamCOPS itself makes them up, and words in every place where a person could be found.
const DATA: &str = r#"
camcops-provision --set site.environment=test run -- dev_add_dummy_data --config /etc/camcops/camcops.conf --confirm_add_dummy_data > /dev/null 2>&1
mysql camcops <<'END'
UPDATE patient SET forename = 'Sentinel', surname = 'Sentinel', address = 'sentinel', gp = 'sentinel', other = 'sentinel', email = 'sentinel@example.org', dob = '1871-05-17';
UPDATE patient_idnum SET idnum_value = 9876543210;
UPDATE _idnum_index SET idnum_value = 9876543210;
UPDATE _security_users SET fullname = 'sentinel', email = 'sentinel@example.org', mfa_secret_key = 'SENTINEL';
UPDATE _security_devices SET friendly_name = 'sentinel';
UPDATE _security_groups SET description = 'sentinel';
INSERT INTO _security_audit (when_access_utc, source, details) VALUES (UTC_TIMESTAMP(), 'x', 'sentinel');
SET foreign_key_checks = 0;
INSERT INTO blobs (id, tablename, tablepk, fieldname, theblob, _group_id, _device_id, _current, _addition_pending, _era) VALUES (1, 'photo', 1, 'photo', 'sentinel', 1, 1, 1, 0, 'NOW');
END
mysql --skip-column-names information_schema --execute "SELECT CONCAT('UPDATE IGNORE ', TABLE_NAME, ' SET ', COLUMN_NAME, ' = ''sentinel'';') FROM COLUMNS WHERE TABLE_SCHEMA = 'camcops' AND DATA_TYPE IN ('text', 'mediumtext', 'longtext') AND TABLE_NAME IN ('psychiatricclerking', 'progressnote', 'contactlog', 'photo', 'gmcpq', 'badls')" > /root/words.sql
mysql camcops < /root/words.sql
"#;

fn json(machine: &Booted, command: &str) -> Value {
    let (_, out, why) = machine.tried(&format!("camcops-provision --json db {command}"));
    serde_json::from_str(&out).unwrap_or_else(|_| panic!("{command}: {out}{why}"))
}

/// Refused with this code and these words, in one line.
fn refused(machine: &Booted, command: &str, code: i32, words: &str) {
    let (found, out, why) = machine.tried(&format!("camcops-provision {command}"));
    let errors: Vec<&str> = why.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!((found, errors.len()), (code, 1), "{command}: {out}{why}");
    assert!(errors[0].contains(words), "{command}: {why}");
}

fn asked(machine: &Booted, query: &str) -> String {
    let query = query.replace('"', "\\\"");
    let found = machine.run(&format!("mysql --skip-column-names --execute \"{query}\""));
    found.trim().to_owned()
}

fn databases(machine: &Booted) -> String {
    asked(machine, "SHOW DATABASES").replace('\n', " ")
}

fn dump_of(machine: &Booted, path: &str) -> String {
    let packed = std::fs::read(machine.path(path)).unwrap();
    String::from_utf8_lossy(&zstd::decode_all(&packed[..]).unwrap()).into_owned()
}

/// Kills a command as soon as it says this.
fn killed(machine: &Booted, command: &str, moment: &str) {
    let said = std::fs::File::create(machine.path("/root/said")).unwrap();
    let mut run = machine
        .command("camcops-provision")
        .args(command.split(' '))
        .stdout(Stdio::null())
        .stderr(said)
        .spawn()
        .unwrap();
    let start = Instant::now();
    let said = || std::fs::read_to_string(machine.path("/root/said")).unwrap();
    while !said().contains(moment) {
        assert!(start.elapsed() < Duration::from_secs(120), "{}", said());
        assert!(run.try_wait().unwrap().is_none(), "{}", said());
        std::thread::sleep(Duration::from_millis(10));
    }
    kill(&mut run);
}

/// With who may do what: nothing that the application writes into its tables may change that.
fn with_data() -> Option<(Booted, String)> {
    let (machine, _) = installed()?;
    wait_until_well(&machine, "the first boot");
    machine.run(DATA);
    let rights = make_hostile(&machine);
    Some((machine, rights))
}

#[test]
fn the_database_is_upgraded_checked_and_read() {
    let Some((machine, before)) = with_data() else {
        return;
    };
    let tablets = Tablets::few(&machine);
    tablets.excuse(|| {
        fails_without_a_server(&machine);
        // While tables are changed nobody writes.
        upgrades(&machine);
    });
    checks(&machine, tablets);
    assert_eq!(rights(&machine), before);
    lets_an_analyst_read(&machine);
}

#[test]
fn the_database_is_copied_and_made_anew() {
    let Some((machine, before)) = with_data() else {
        return;
    };
    copies(&machine);
    is_made_anew(&machine);
    assert_eq!(rights(&machine), before);
}

fn fails_without_a_server(machine: &Booted) {
    machine.run("systemctl stop mariadb");
    for command in [
        "upgrade",
        "check --fix-collation",
        "grant-readonly",
        "anonymise --to research",
        "reset --confirm camcops --destroy-clinical-data",
    ] {
        refused(machine, &format!("db {command}"), 69, "database");
    }
    let (code, out, _) = machine.tried("camcops-provision db check");
    assert_eq!(code, 1, "{out}");
    assert!(out.lines().any(|line| line.starts_with("failed   database.login")), "{out}");
    machine.run("systemctl start mariadb; test ! -e /etc/camcops/secrets/camcops/readonly");
    let own = "--set database.mode=external --set database.host=127.0.0.1 --set database.password_file=/etc/camcops/secrets/camcops/database";
    for command in ["anonymise --to research", "reset --confirm camcops"] {
        let words = "set database.admin_defaults_file";
        refused(machine, &format!("{own} db {command}"), 77, words);
    }
}

fn upgrades(machine: &Booted) {
    refused(
        machine,
        "run -- dev_add_dummy_data --config /etc/camcops/camcops.conf --confirm_add_dummy_data",
        78,
        "config set site.environment test",
    );
    let asked = machine.run(
        "camcops-provision db shell --admin <<< 'SELECT CURRENT_USER(), DATABASE()'; ! ls /run/camcops-provision/shell-* 2> /dev/null",
    );
    assert!(asked.contains("root@localhost\tcamcops"), "{asked}");
    let shown = machine.run("camcops-provision db upgrade --show-sql");
    assert!(shown.contains("CREATE TABLE"), "{shown}");
    let told = json(machine, "upgrade");
    assert_eq!(told["changed"], false, "{told}");
    assert_eq!(told["before"], "0087");
    let revision = |number: &str| {
        machine.run(&format!("mysql camcops --execute \"UPDATE _alembic_version SET version_num = '{number}'\""));
    };
    revision("0099");
    refused(machine, "db upgrade", 65, "which the installed release does not know");
    revision("0087");
    machine.run(OLDER);
    let told = machine.run("camcops-provision db upgrade");
    assert!(told.contains("revision 0086 -> 0087"), "{told}");
    let (_, dump) = told.split_once("the old data is in ").unwrap();
    assert!(dump_of(machine, dump.trim()).contains("Sentinel"));
    wait_until_well(machine, "an upgrade of the tables");
}

fn checks(machine: &Booted, tablets: Tablets<'_>) {
    finds_weak_accounts(machine);
    finds_open_secrets(machine);
    machine.run(
        r#"mysql camcops <<'END'
ALTER TABLE `t``; DROP DATABASE mysql; -- ''\` CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci;
END
"#,
    );
    machine.run(
        "mysql camcops --execute 'DELETE FROM _task_index ORDER BY index_entry_pk LIMIT 2; ALTER TABLE phq9 CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci; ALTER DATABASE COLLATE utf8mb4_general_ci'
         mysql --execute 'SET GLOBAL innodb_strict_mode = 0'",
    );
    let (code, out, _) = machine.tried("camcops-provision db check");
    assert_eq!(code, 1, "{out}");
    let reindex = "camcops-provision run -- reindex --config /etc/camcops/camcops.conf";
    for words in [
        "phq9 has columns in utf8mb4_general_ci",
        "database camcops differs from the plan (collation)",
        "innodb_strict_mode is off",
        "missing or wrong",
        "do:  camcops-provision db check --fix-collation",
        reindex,
    ] {
        assert!(out.contains(words), "{words}: {out}");
    }
    machine.run("mysql --execute 'SET GLOBAL innodb_strict_mode = 1'");
    let fixed = tablets.excuse(|| json(machine, "check --fix-collation"));
    // The index is made again while nobody uploads.
    tablets.end_unnoticed();
    let failed = fixed["checks"].as_array().unwrap().iter();
    let failed: Vec<&Value> = failed.filter(|one| one["state"] != "ok").map(|one| &one["id"]).collect();
    assert_eq!(failed, ["database.index"], "{fixed}");
    machine.run(&format!("ls {DUMPS}/*-before-collation.sql.zst"));
    machine.run(reindex);
    machine.run("camcops-provision db check");
}

fn finds_weak_accounts(machine: &Booted) {
    machine.run("mysql --execute \"CREATE USER ''@'%', root@'10.%' IDENTIFIED BY 'x'\"");
    let command = "camcops-provision --json doctor database.accounts";
    let told: Value = serde_json::from_str(&machine.tried(command).1).unwrap();
    let found = told["checks"][0]["findings"].as_array().unwrap();
    assert_eq!(found.len(), 2, "{told}");
    for finding in found {
        assert_eq!(finding["state"], "warning", "{told}");
        machine.run(finding["remedy"].as_str().unwrap());
    }
    let told = machine.run("camcops-provision doctor database.accounts");
    assert!(told.starts_with("ok "), "{told}");
}

fn finds_open_secrets(machine: &Booted) {
    let doctor = "camcops-provision doctor settings";
    machine.run("install --directory /etc/camcops/provision.d; printf '[config.site]\nEMAIL_HOST_PASSWORD = \"hush\"\n' > /etc/camcops/provision.d/open.toml");
    let (code, out, why) = machine.tried(doctor);
    assert_eq!(code, 1, "{out}{why}");
    let words = "is in plain text in /etc/camcops/provision.d/open.toml:2";
    assert!(out.contains(words) && !out.contains("hush\n"), "{out}{why}");
    assert!(out.contains("do:  camcops-provision config set config.site.EMAIL_HOST_PASSWORD"), "{out}");
    machine.run("rm -r /etc/camcops/provision.d");
    // What the site's own account could change is not followed, and what it says is not done.
    machine.run("cp -a /etc/camcops/provision.toml /root/kept.toml 2> /dev/null || : > /etc/camcops/provision.toml; chown www-data /etc/camcops/provision.toml");
    refused(machine, "install --yes", 73, "`chown root:root /etc/camcops/provision.toml`");
    machine.run(&format!(
        "chown root:root /etc/camcops/provision.toml; {doctor}
         install --directory --mode 777 /srv/open
         install --mode 600 /dev/null /srv/open/site.toml"
    ));
    refused(
        machine,
        "--config /srv/open/site.toml plan",
        73,
        "/srv/open (/srv/open/site.toml is in it) can be changed by everybody",
    );
}

fn lets_an_analyst_read(machine: &Booted) {
    let grant = "camcops-provision db grant-readonly";
    let told = machine.run(grant);
    assert!(told.contains("camcops_reports can read camcops except"), "{told}");
    assert!(machine.run(grant).contains("nothing to do"));
    refused(machine, "db grant-readonly --host 10.0.0.9", 78, "logs in from this machine");
    refused(machine, "db grant-readonly --user a/b", 64, "--user a/b");
    let (code, _, why) = machine.tried(&format!("echo short | {grant} --password-file -"));
    assert_eq!(code, 64, "{why}");
    machine.run(&format!("echo a-word-of-mine | {grant} --password-file -"));
    machine.run(
        "printf '[client]\\nuser = camcops_reports\\npassword = a-word-of-mine\\n' > /root/reader.cnf
         mysql --defaults-file=/root/reader.cnf camcops --execute 'SELECT COUNT(*) FROM patient'
         if mysql --defaults-file=/root/reader.cnf camcops --execute 'DELETE FROM patient' 2> /dev/null; then exit 1; fi
         if mysql --defaults-file=/root/reader.cnf mysql --execute 'SELECT 1' 2> /dev/null; then exit 1; fi
         mysql --defaults-file=/root/reader.cnf camcops --execute 'SELECT username, superuser FROM _security_users'
         for secret in hashedpw mfa_secret_key '*'; do
             if mysql --defaults-file=/root/reader.cnf camcops --execute \"SELECT $secret FROM _security_users\" 2> /dev/null; then exit 1; fi
         done
         for table in _security_audit _security_webviewer_sessions _export_recipients; do
             if mysql --defaults-file=/root/reader.cnf camcops --execute \"SELECT 1 FROM $table\" 2> /dev/null; then exit 1; fi
         done
         test \"$(stat --format=%a:%U /etc/camcops/secrets/camcops/readonly)\" = 600:root
         camcops-provision plan --exit-code
         camcops-provision db grant-readonly --everything
         mysql --defaults-file=/root/reader.cnf camcops --execute 'SELECT hashedpw FROM _security_users; SELECT 1 FROM _security_audit LIMIT 1'
         camcops-provision config unset database.readonly_everything
         camcops-provision install --yes --only database
         if mysql --defaults-file=/root/reader.cnf camcops --execute 'SELECT hashedpw FROM _security_users' 2> /dev/null; then exit 1; fi
         camcops-provision plan --exit-code
         camcops-provision config unset database.readonly_user",
    );
    let elsewhere = "grant-readonly --user analyst --host 10.0.0.%";
    let told = json(machine, elsewhere);
    assert_eq!(told["changed"], true, "{told}");
    assert!(told["warning"].as_str().unwrap().contains("127.0.0.1"), "{told}");
    assert_eq!(json(machine, elsewhere)["changed"], false);
    machine.run("camcops-provision config set database.listen '127.0.0.1, 127.0.0.2'; camcops-provision install --yes");
    let told = machine.run(
        "ss --listening --tcp --numeric | grep -c -e '127.0.0.[12]:3306'; camcops-provision doctor database.login",
    );
    assert!(told.starts_with('2') && told.contains("it listens on 127.0.0.1, 127.0.0.2"), "{told}");
    machine.run("camcops-provision config set database.listen '*'");
    lets_several_read(machine);
    machine.run("camcops-provision plan --exit-code");
    assert_eq!(json(machine, elsewhere)["warning"], Value::Null);
    let told = machine.run("ss --listening --tcp --numeric | grep -c -e '0.0.0.0:3306' -e '\\*:3306'; camcops-provision doctor database.login");
    assert!(told.starts_with('1') && told.contains("it listens on *"), "{told}");
    machine.run("camcops-provision config unset database.listen && camcops-provision install --yes");
    assert!(json(machine, elsewhere)["warning"].as_str().unwrap().contains("127.0.0.1"));
    // A rotation and a stranger's password are noticed, although nobody can log in from here.
    machine.run("camcops-provision secret rotate readonly; camcops-provision plan --exit-code");
    asked(machine, "SET PASSWORD FOR 'analyst'@'10.0.0.%' = PASSWORD('other')");
    assert_eq!(json(machine, elsewhere)["changed"], true);
}

/// Each with a password of its own; who is no longer in the settings is dropped.
fn lets_several_read(machine: &Booted) {
    let is_let_in = |user: &str, secret: &str, question: &str| {
        let file = format!("/etc/camcops/secrets/camcops/readonly-{secret}");
        let words = format!(
            "printf '[client]\\nuser = {user}\\npassword = %s\\n' \"$(cat {file})\" > /root/one.cnf
             mysql --defaults-file=/root/one.cnf camcops --execute '{question}'"
        );
        machine.tried(&words).0 == 0
    };
    const PATIENTS: &str = "SELECT COUNT(*) FROM patient";
    const HASHES: &str = "SELECT hashedpw FROM _security_users";
    machine.run(
        "camcops-provision db grant-readonly --user anne; camcops-provision db grant-readonly --user bob --everything",
    );
    assert_eq!(json(machine, "grant-readonly --user anne")["changed"], false);
    assert!(is_let_in("anne", "anne", PATIENTS) && !is_let_in("anne", "anne", HASHES));
    assert!(is_let_in("bob", "bob", PATIENTS) && is_let_in("bob", "bob", HASHES));
    assert!(!is_let_in("anne", "bob", PATIENTS));
    machine.run(
        "set -e
         former=$(cat /etc/camcops/secrets/camcops/readonly-anne)
         camcops-provision secret rotate readonly-anne
         test \"$(cat /etc/camcops/secrets/camcops/readonly-anne)\" != \"$former\"
         camcops-provision secret list | grep -c '^readonly-anne.*as anne'",
    );
    assert!(is_let_in("anne", "anne", PATIENTS));
    refused(machine, "secret rotate readonly-carl", 64, "has no account carl");
    // Those of before are no longer in the settings, nor anne now.
    let listed = "database.readonly_accounts '[{ user = \"bob\", everything = true }]'";
    machine.run(&format!("camcops-provision config set {listed}; camcops-provision install --yes"));
    let left =
        "SELECT GROUP_CONCAT(User ORDER BY User) FROM mysql.user WHERE User IN ('anne', 'bob', 'camcops_reports')";
    assert_eq!(machine.run(&format!("mysql --skip-column-names --execute \"{left}\"")).trim(), "bob");
    machine.run("ls /etc/camcops/secrets/camcops | grep --invert-match --quiet anne");
    assert!(is_let_in("bob", "bob", HASHES));
}

fn copies(machine: &Booted) {
    for taken in ["camcops", "mysql"] {
        let (code, _, why) = machine.tried(&format!("camcops-provision db anonymise --to {taken}"));
        assert!([64, 73].contains(&code), "{why}");
    }
    machine.run("mysql camcops --execute \"CREATE TABLE notours (x TEXT); INSERT INTO notours VALUES ('sentinel')\"");
    let (before, allowed) = (databases(machine), rights(machine));
    killed(machine, "db anonymise --to research", "copying tables: ");
    assert!(!databases(machine).contains("research"));
    let told = json(machine, "anonymise --to research");
    assert_eq!(told["left_out"][0], "notours", "{told}");
    let tables = told["tables"].as_array().unwrap();
    let of = |name: &str| tables.iter().find(|one| one["table"] == name).unwrap();
    assert_eq!(of("patient")["year_only"][0], "dob");
    assert_eq!(of("patient")["pseudonyms"].as_array().unwrap().len(), 3);
    assert!(of("phq9")["kept"].as_array().unwrap().iter().any(|one| one == "q1"));
    assert_eq!(databases(machine).replace("research ", ""), before);
    refused(machine, "db anonymise --to research", 73, "this database exists already");

    assert_eq!(rights(machine), allowed);
    // Nothing of anybody, in any table, as text or as bytes.
    machine.run("mysqldump --skip-hex-blob research > /root/research.sql; ! grep --ignore-case --quiet -e sentinel -e 9876543210 -e 1871-05-17 /root/research.sql");
    let same = |query: &str| {
        let of = |database: &str| asked(machine, &query.replace("DB", database));
        assert_eq!(of("research"), of("camcops"), "{query}");
    };
    same("SELECT COUNT(*), SUM(q1), MIN(when_created) FROM DB.phq9");
    same("SELECT COUNT(*), MAX(era) FROM DB._task_index");
    same("SELECT COUNT(*) FROM DB.patient");
    same("SELECT version_num FROM DB._alembic_version");
    same("SELECT COUNT(*) > 500 FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = 'DB'");
    // The same number of a person stays one number everywhere.
    let numbers = "SELECT COUNT(DISTINCT n), MIN(n) <> 9876543210 FROM (SELECT idnum_value AS n FROM research.patient_idnum UNION ALL SELECT idnum_value FROM research._idnum_index) AS x";
    assert_eq!(asked(machine, numbers), "1\t1");
    let users = "SELECT COUNT(*) FROM research._security_users WHERE hashedpw <> '' OR superuser OR username = 'admin'";
    assert_eq!(asked(machine, users), "0");
    let gone = "SELECT (SELECT COUNT(*) FROM research._security_audit) + (SELECT COUNT(*) FROM research._security_webviewer_sessions) + (SELECT COUNT(*) FROM research.blobs)";
    assert_eq!(asked(machine, gone), "0");
    machine.run("mysql camcops --execute 'DROP TABLE notours'");
    follows_rules_and_has_a_login(machine);
}

fn is_made_anew(machine: &Booted) {
    refused(machine, "db reset", 64, "--confirm camcops");
    refused(machine, "db reset --confirm camcop", 64, "is camcops");
    refused(machine, "db reset --confirm camcops", 1, "--destroy-clinical-data");
    let reset = "db reset --confirm camcops --destroy-clinical-data";
    refused(machine, &format!("{reset} --superuser boss"), 78, "needs a password");
    wait_until_well(machine, "what was refused");
    let recipient = machine.run(
        "apt-get install --quiet --yes --no-install-recommends age > /dev/null
         age-keygen --output /root/reader 2> /dev/null; age-keygen -y /root/reader",
    );
    let encrypted = format!("--set backup.encrypt_to={} {reset}", recipient.trim());
    killed(machine, &encrypted, "revisions: 18 of 87");
    let dump = machine.run(&format!("ls {DUMPS}/*-before-reset.sql.zst.age"));
    machine.run(&format!("age --decrypt --identity /root/reader --output /root/reset.sql.zst {dump}"));
    assert!(dump_of(machine, "/root/reset.sql.zst").contains("Sentinel"));
    machine.run("echo another-word-1 | camcops-provision db reset --confirm camcops --superuser boss --superuser-password-file -");
    wait_until_well(machine, "a reset");
    assert_eq!(asked(machine, "SELECT superuser FROM camcops._security_users WHERE username = 'boss'"), "1");
    assert_eq!(asked(machine, "SELECT COUNT(*) FROM camcops.patient"), "0");
    let admin = "SELECT COUNT(*) FROM camcops._security_users WHERE username = 'admin'";
    assert_eq!(asked(machine, admin), "0");
    assert!(!databases(machine).contains('-'), "{}", databases(machine));
    machine.run("camcops-provision plan --exit-code");
    let restore = format!("backup restore {} --confirm camcops", dump.trim());
    refused(machine, &restore, 64, "--identity FILE");
    machine.run(&format!("camcops-provision --quiet {restore} --identity /root/reader"));
    assert_eq!(asked(machine, admin), "1");
}

/// A copy by the site's own rules, for an account that can read it and nothing else.
fn follows_rules_and_has_a_login(machine: &Booted) {
    machine.run(
        "printf '[\"*\"]\\nwhen_created = \"year\"\\n[phq9]\\nq9 = \"empty\"\\nwhen_created = \"keep\"\\n' > /root/rules.toml
         printf '[patient]\\nsurname = \"keep\"\\n' > /root/open.toml
         printf 'a-word-of-mine\\n' > /root/word; chmod 600 /root/word",
    );
    refused(machine, "db anonymise --to course --rules /root/open.toml", 65, "it identifies the patient");
    refused(machine, "db anonymise --to course --login student", 64, "--password-file");
    let told =
        json(machine, "anonymise --to course --rules /root/rules.toml --login student --password-file /root/word");
    assert_eq!(told["login"], "student@localhost", "{told}");
    machine.run("printf '[client]\\nuser = student\\npassword = a-word-of-mine\\n' > /root/student.cnf");
    let asked = |query: &str| {
        machine.tried(&format!("mysql --defaults-file=/root/student.cnf --skip-column-names --execute \"{query}\""))
    };
    assert_eq!(asked("SELECT COUNT(q9), COUNT(q8) > 0 FROM course.phq9").1, "0\t1\n");
    let years = asked("SELECT DISTINCT SUBSTRING(when_created, 5) FROM course.gad7").1;
    assert_eq!(years, "-01-01T00:00:00.000000+00:00\n");
    assert_ne!(asked("SELECT when_created FROM course.phq9 LIMIT 1").1.get(4..10), Some("-01-01"));
    assert_ne!(asked("SELECT 1 FROM camcops.patient").0, 0);
    assert_ne!(asked("DELETE FROM course.patient").0, 0);
    refused(
        machine,
        "db anonymise --to other --login student --password-file /root/word",
        73,
        "already has an account",
    );
    machine.run("mysql --execute 'DROP DATABASE course; DROP USER student@localhost'");
}
