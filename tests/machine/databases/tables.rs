//! The application's tables: made, cut, upgraded and refused, with the real application.

use super::elsewhere::{self, HERE, THERE};
use super::{MARIADB_10, MARIADB_11, MYSQL, Server, provision, settings};
use crate::harness::certificates::Authority;
use crate::harness::servers::{sql, start_mariadb};
use crate::harness::{Machine, kill};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

const PARTS: &str = "accounts,directories,secrets,configuration,application,database,tables,superuser";
const SETTINGS: &str =
    "account.user = 'camcops'\nsuperuser.username = 'boss'\nsuperuser.password_file = '/root/boss'\n";
const DUMPS: &str = "/var/backups/camcops";
/// What a cut between two changes of the last migration leaves, and what an older release has.
const CUT: &str = "UPDATE camcops._alembic_version SET version_num = '0086'";
const OLDER: &str = "DROP TABLE camcops.empsa; UPDATE camcops._alembic_version SET version_num = '0086'";

#[test]
fn tables_are_made_cut_upgraded_and_refused() {
    let Some(here) = Machine::built(MARIADB_10.packages) else {
        return;
    };
    here.write("/root/boss", "correct horse battery\n", 0o600);
    settings(&here, SETTINGS);
    start_mariadb(&here);

    first_tables_are_cut(&here);
    without_any_password(&here);
    superusers(&here);
    upgrades(&here);
    refusals(&here);
    same_as_upstream(&here);
}

#[test]
#[ignore = "thorough: the servers of other releases of Debian"]
fn tables_are_made_on_other_machines() {
    let Some(here) = Machine::built(MARIADB_10.packages) else {
        return;
    };
    let authority = Authority::new("the right one");
    on_another_machine(&here, MARIADB_11, &authority, "eleven", (HERE, THERE));
    on_another_machine(&here, MYSQL, &authority, "mysql", ("10.78.0.1", "10.78.0.2"));
}

fn arguments(verb: &str) -> String {
    let wheelhouse = match verb {
        "install" => "--yes --offline --wheelhouse /srv/wheelhouse",
        _ => "--exit-code",
    };
    format!("{verb} --only {PARTS} {wheelhouse}")
}

fn install(machine: &Machine) -> super::Said {
    provision(machine, &arguments("install"))
}

#[track_caller]
fn at_head(machine: &Machine) {
    install(machine).is(0, &["nothing to do"]);
    assert_eq!(revision(machine), "0087\n");
}

fn revision(machine: &Machine) -> String {
    sql(machine, "SELECT version_num FROM camcops._alembic_version")
}

fn killed_at(machine: &Machine, words: &str) {
    let mut child = machine
        .command("camcops-provision")
        .args(arguments("install").split_whitespace())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let said: Vec<String> = lines.map(Result::unwrap).take_while(|line| !line.contains(words)).collect();
    assert!(child.try_wait().unwrap().is_none(), "{words:?} is not in {said:#?}");
    kill(&mut child);
}

fn first_tables_are_cut(machine: &Machine) {
    // Cut together with what it started, as a power failure does.
    killed_at(machine, "table revisions: ");
    machine.run("pkill -KILL -f [u]pgrade_db; until ! pgrep -f [u]pgrade_db > /dev/null; do sleep 0.1; done");
    let left = sql(machine, "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'camcops'");
    assert!((2..180).contains(&left.trim().parse().unwrap()), "{left}");
    // Cut alone: what it started goes on, with the superuser too, and the next run waits for it.
    killed_at(machine, "table revisions: ");
    install(machine)
        .is(0, &["waiting for a command of CamCOPS from an earlier run", "the tables were finished by an earlier run"]);
    let ours = sql(machine, "SHOW TABLES FROM camcops LIKE '%provision%'");
    assert_eq!(ours, "");
    at_head(machine);
}

fn without_any_password(machine: &Machine) {
    let account = sql(machine, "SHOW CREATE USER camcops@localhost");
    assert!(account.contains("unix_socket"), "{account}");
    machine.run(
        "! grep -i password /etc/camcops/camcops.my.cnf
         ! grep -iE '^ *DB_URL.*(password|:[^/]*@)' /etc/camcops/camcops.conf
         test ! -e /etc/camcops/secrets/camcops/database",
    );
    // Nobody else gets in.
    machine.run("! setpriv --reuid=www-data --regid=www-data --clear-groups mariadb --user=camcops camcops -e 'SELECT 1' 2> /dev/null");
}

fn superusers(machine: &Machine) {
    let user = || sql(machine, "SELECT * FROM camcops._security_users WHERE username = 'boss'");
    sql(machine, "UPDATE camcops._security_users SET superuser = 0 WHERE username = 'boss'");
    let was = user();
    machine.write("/root/boss", "another one entirely\n", 0o600);
    at_head(machine);
    assert_eq!(user(), was);
    let second = SETTINGS.replace("boss'\nsuper", "second'\nsuper");
    settings(machine, &second);
    machine.write("/root/boss", "too short\n", 0o600);
    install(machine).is(78, &["has 9 characters"]);
    machine.write("/root/boss", "1234567890\n", 0o600);
    install(machine).is(78, &["too common"]);
    let users = sql(machine, "SELECT username FROM camcops._security_users WHERE username = 'second'");
    assert_eq!(users, "");
    settings(machine, SETTINGS);
}

fn upgrades(machine: &Machine) {
    let dumps = || machine.run(&format!("ls -A {DUMPS} 2> /dev/null || true"));
    assert_eq!(dumps(), "");
    sql(machine, OLDER);
    machine.run("mkdir /hidden; mv /usr/bin/mariadb-dump /usr/bin/mysqldump /hidden");
    install(machine).is(69, &["mariadb-dump of MariaDB is not on this machine"]);
    assert_eq!((revision(machine).as_str(), dumps().as_str()), ("0086\n", ""));
    machine.run("mv /hidden/* /usr/bin");

    provision(machine, &arguments("plan")).is(2, &["tables in database camcops"]);
    install(machine).is(0, &["dumping the database camcops", "table revisions: 87 of 87"]);
    at_head(machine);
    let dump = dumps();
    assert!(dump.trim().ends_with("-0086-before-0087.sql.zst") && dump.lines().count() == 1, "{dump}");
    machine.run(&format!("test \"$(stat -c %a:%U {DUMPS} {DUMPS}/*.zst | tr '\\n' ' ')\" = '700:root 600:root '"));

    // A migration that can't be made twice: the dump from before the first try stays the way back.
    machine.run(&format!("rm {DUMPS}/*"));
    sql(machine, CUT);
    let said = install(machine).is(1, &["the old data is in the dump", "backup restore"]);
    let first = dumps().lines().find(|name| name.ends_with(".sql.zst")).unwrap().to_owned();
    assert!(said.contains(&first), "{said}");
    install(machine).is(1, &[&format!("the old data is in the dump {DUMPS}/{first}")]);
    let boss = "SELECT username FROM camcops._security_users";
    let users = sql(machine, boss);
    sql(machine, "DROP DATABASE camcops; CREATE DATABASE camcops CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci");
    let dump = fs::read(machine.path(&format!("{DUMPS}/{first}"))).unwrap();
    let dump = zstd::decode_all(&dump[..]).unwrap();
    fs::write(machine.path("/root/dump.sql"), dump).unwrap();
    machine.run("mariadb camcops < /root/dump.sql");
    assert_eq!(sql(machine, boss), users);
    sql(machine, OLDER.split(';').next().unwrap());
    install(machine).is(0, &["dumping"]);
    at_head(machine);
    assert!(!dumps().contains("before-upgrade"), "{}", dumps());
}

fn refusals(machine: &Machine) {
    sql(machine, "UPDATE camcops._alembic_version SET version_num = '9999'");
    install(machine).is(65, &["revision 9999", "newer CamCOPS"]);
    assert_eq!(revision(machine), "9999\n");
    sql(machine, "UPDATE camcops._alembic_version SET version_num = '0087'");
    install(machine).is(0, &["finish tables in database camcops"]);
    at_head(machine);
    sql(machine, "CREATE DATABASE wards; CREATE TABLE wards.beds (a INT)");
    let arguments = arguments("install");
    let said = provision(machine, &format!("{arguments} --set database.name=wards"));
    said.is(73, &["not those of CamCOPS (beds, …)"]);
    sql(machine, "DROP DATABASE wards");
    // The configuration is the other database's now.
    install(machine).is(0, &["camcops.conf"]);
    at_head(machine);
}

/// The same tables as upstream's own command makes, column by column.
fn same_as_upstream(machine: &Machine) {
    let start = Instant::now();
    sql(
        machine,
        "CREATE DATABASE plain CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci; GRANT ALL ON plain.* TO camcops@localhost",
    );
    machine.run(
        "sed 's,///camcops?,///plain?,' /etc/camcops/camcops.conf > /etc/camcops/plain.conf
         chgrp camcops /etc/camcops/plain.conf; chmod 640 /etc/camcops/plain.conf
         cd /var/lib/camcops
         HOME=$PWD setpriv --reuid=camcops --regid=camcops --init-groups \
             /usr/share/camcops/venv/bin/camcops_server upgrade_db --no_reindex --config /etc/camcops/plain.conf 2> /dev/null
         schema() { mariadb-dump --no-data --skip-comments $1 | sed 's/ AUTO_INCREMENT=[0-9]*//'; }
         diff <(schema plain) <(schema camcops)",
    );
    eprintln!("upstream's own upgrade_db: {:?}", start.elapsed());
    sql(machine, "DROP DATABASE plain; REVOKE ALL ON plain.* FROM camcops@localhost");
}

fn on_another_machine(here: &Machine, server: Server, authority: &Authority, instance: &str, addresses: (&str, &str)) {
    let there = elsewhere::start(server, authority, here, addresses).unwrap();
    let name = format!("{instance}.test");
    crate::harness::servers::certify(&there, authority, "db.test", false);
    here.run(&format!("sed -i '/db.test/d' /etc/hosts || true; echo {} db.test {name} >> /etc/hosts", addresses.1));
    here.write("/root/given", &format!("{}\n", super::ODD_PASSWORD), 0o600);
    here.write("/root/boss", "correct horse battery\n", 0o600);
    here.write(
        &format!("/etc/camcops/provision_{instance}.toml"),
        &format!(
            "{SETTINGS}database.mode = 'external'\ndatabase.host = 'db.test'\ndatabase.tls = 'verify'\n\
             database.tls_ca = '/etc/test-tls/authority.crt'\ndatabase.admin_defaults_file = '/root/admin.cnf'\n\
             database.password_file = '/root/given'\n"
        ),
        0o640,
    );
    let install = || provision(here, &format!("--instance {instance} {}", arguments("install")));
    let begin = Instant::now();
    let said = install().is(0, &["making the superuser boss"]);
    eprintln!("tables on {instance}: {:?}", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_secs(600));
    let told = said.lines().filter(|line| line.contains("table revisions: ")).count();
    assert!((5..=11).contains(&told), "{said}");
    install().is(0, &["nothing to do"]);
    let database = format!("camcops_{instance}");
    let found = sql(
        &there,
        &format!(
            "SELECT version_num FROM {database}._alembic_version; SELECT username FROM {database}._security_users WHERE username = 'boss' AND superuser"
        ),
    );
    assert_eq!(found, "0087\nboss\n");
}
