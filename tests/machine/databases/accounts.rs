//! The database, its accounts and its server's settings, on the machine of the server.

use super::{MARIADB_10, MARIADB_11, MYSQL, ODD_PASSWORD, PARTS, Said, Server, provision, settings};
use crate::harness::Machine;
use crate::harness::servers::sql;

const SETTINGS: &str = "database.name = 'cam_cops'\n\
    database.password_file = '/root/database password'\n\
    database.readonly_user = 'cam_reports'\n\
    database.flush_log_at_trx_commit = 2\n";
const PASSWORD_FILE: &str = "/root/database password";
const US: &str = "cam_cops@localhost";

#[test]
fn mariadb_of_debian_12() {
    lifecycle(MARIADB_10);
}

#[test]
#[ignore = "thorough: another release of Debian"]
fn mariadb_of_debian_13() {
    lifecycle(MARIADB_11);
}

#[test]
#[ignore = "thorough: another release of Debian"]
fn mysql_of_debian_sid() {
    lifecycle(MYSQL);
}

fn install(machine: &Machine) -> Said {
    provision(machine, &format!("install --only {PARTS}"))
}

#[track_caller]
fn nothing_to_do(machine: &Machine, what: &str) {
    let said = provision(machine, &format!("plan --exit-code --only {PARTS}"));
    assert_eq!(said.code, 0, "{what}: {}", said.text);
}

/// SQL as the application; what comes of it.
fn as_application(machine: &Machine, statement: &str) -> Said {
    machine.write("/tmp/ours.sql", statement, 0o600);
    let script = "client=$(command -v mariadb || command -v mysql)
        $client --defaults-file=/etc/camcops/camcops.my.cnf --batch --skip-column-names < /tmp/ours.sql";
    let output = machine.command("bash").args(["-euc", script]).output();
    Said::of(output.unwrap())
}

fn lifecycle(server: Server) {
    let Some(machine) = server.machine() else {
        return;
    };
    settings(&machine, SETTINGS);
    machine.write(PASSWORD_FILE, &format!("{ODD_PASSWORD}\n"), 0o600);
    if server.is_mysql() {
        // Without systemd nobody but us can start it.
        install(&machine).is(69, &["mysql is not known on this machine"]);
        server.start(&machine);
    }
    install(&machine).is(0, &["database account cam_cops@localhost"]);
    install(&machine).is(0, &["nothing to do"]);
    assert!(sql(&machine, "SELECT VERSION()").starts_with(server.version));

    its_settings_are_read(&machine);
    only_its_own_database(&machine);
    sql(&machine, "SET GLOBAL general_log = ON");
    what_drifts_is_mended(server, &machine);
    what_is_not_ours_stays(&machine);
    if !server.is_mysql() {
        a_restarted_server_is_found_again(&machine);
    }

    sql(&machine, "CREATE TABLE cam_cops.kept (a INT); INSERT INTO cam_cops.kept VALUES (7);");
    provision(&machine, "uninstall").is(0, &["database cam_cops", US]);
    machine.run("test ! -e /etc/camcops/camcops.my.cnf");
    // The reader's password has gone with its file; the journal still knows that both accounts are ours.
    machine.write(PASSWORD_FILE, "Another one, 2nd\n", 0o600);
    if server.is_mysql() {
        // It has to read its settings again.
        install(&machine).is(69, &["service mysql", "mysql was not restarted"]);
        machine.run("mysqladmin shutdown; while pgrep -x mysqld > /dev/null; do sleep 0.1; done");
        server.start(&machine);
    }
    install(&machine).is(0, &[]);
    nothing_to_do(&machine, "installed anew");
    as_application(&machine, "SELECT a FROM cam_cops.kept").is(0, &["7"]);

    let logged = machine.run(
        "grep -rlF -e '()*+,-./09' -e 'Another one' -e \"$(cat /etc/camcops/secrets/camcops/readonly)\" \
         /var/lib/mysql /var/log /var/lib/camcops-provision || true",
    );
    assert_eq!(logged, "");
}

fn its_settings_are_read(machine: &Machine) {
    let read = sql(machine, "SELECT @@GLOBAL.max_allowed_packet, @@GLOBAL.innodb_flush_log_at_trx_commit");
    assert_eq!(read, "67108864\t2\n");
    let complaints =
        machine.run("cat /var/log/mysql/error.log /var/log/*.out 2>/dev/null | grep -iE 'unknown|deprecated' || true");
    assert_eq!(complaints, "");
}

fn only_its_own_database(machine: &Machine) {
    sql(machine, "CREATE DATABASE camXcops; CREATE TABLE camXcops.t (a INT);");
    as_application(machine, "SELECT CURRENT_USER()").is(0, &[US]);
    as_application(machine, "SELECT * FROM camXcops.t").is(1, &["denied"]);
    as_application(machine, "USE cam_cops; CREATE TABLE t (a INT); DROP TABLE t;").is(0, &[]);
    machine.run(
        "client=$(command -v mariadb || command -v mysql)
         printf '[client]\\nuser=cam_reports\\npassword=%s\\n' \"$(cat /etc/camcops/secrets/camcops/readonly)\" > /root/reader.cnf
         $client --defaults-file=/root/reader.cnf -e 'SELECT 1'
         if $client --defaults-file=/root/reader.cnf -e 'CREATE TABLE cam_cops.t (a INT)' 2> /dev/null; then exit 1; fi",
    );
    // No trace of it is left for the drift below.
    sql(machine, "DROP DATABASE camXcops");
}

fn what_drifts_is_mended(server: Server, machine: &Machine) {
    let by_socket = match server.is_mysql() {
        true => "ALTER USER cam_cops@localhost IDENTIFIED WITH auth_socket",
        false => "ALTER USER cam_cops@localhost IDENTIFIED VIA unix_socket",
    };
    let cases = [
        ("ALTER USER cam_cops@localhost IDENTIFIED BY 'Another 1'", "set its password"),
        (by_socket, "log in by password"),
        ("REVOKE INSERT ON `cam\\_cops`.* FROM cam_cops@localhost", "set its privileges"),
        ("GRANT ALL ON *.* TO cam_cops@localhost WITH GRANT OPTION", "set its privileges"),
        ("GRANT SELECT ON `cam_cops`.* TO cam_cops@localhost", "set its privileges"),
        ("GRANT SELECT (User) ON mysql.user TO cam_cops@localhost", "set its privileges"),
        ("CREATE ROLE `power full`; GRANT `power full` TO cam_cops@localhost", "set its privileges"),
        ("GRANT INSERT ON `cam\\_cops`.* TO cam_reports@localhost", "cam_reports"),
        ("DROP USER cam_cops@localhost, cam_reports@localhost", "re-check database account"),
        ("ALTER DATABASE cam_cops CHARACTER SET latin1 COLLATE latin1_swedish_ci", "utf8mb4_unicode_ci"),
        ("SET GLOBAL max_allowed_packet = 16777216", "16 MiB -> at least 64 MiB"),
        ("SET GLOBAL innodb_flush_log_at_trx_commit = 1", "flush 1 -> 2"),
        ("DROP DATABASE cam_cops", "re-check database cam_cops"),
    ];
    for (damage, words) in cases {
        sql(machine, damage);
        mended(machine, damage, words);
    }
    machine.run("echo '[client]' > /etc/camcops/camcops.my.cnf");
    mended(machine, "option file", "camcops.my.cnf");
    as_application(machine, "SELECT CURRENT_USER()").is(0, &[US]);

    sql(machine, "ALTER USER cam_cops@localhost REQUIRE SSL");
    sql(machine, "GRANT DELETE ON mysql.* TO cam_cops@localhost");
    install(machine).is(78, &["requires TLS", "REQUIRE NONE"]);
    sql(machine, "ALTER USER cam_cops@localhost REQUIRE NONE");
    mended(machine, "no TLS any more", "set its privileges");
}

#[track_caller]
fn mended(machine: &Machine, what: &str, words: &str) {
    provision(machine, &format!("plan --exit-code --only {PARTS}")).is(2, &[words]);
    let said = install(machine);
    assert_eq!(said.code, 0, "{what}: {}", said.text);
    nothing_to_do(machine, what);
}

fn what_is_not_ours_stays(machine: &Machine) {
    let before =
        |user: &str| sql(machine, &format!("SHOW CREATE USER {user}@localhost; SHOW GRANTS FOR {user}@localhost"));
    sql(
        machine,
        "CREATE USER theirs@localhost IDENTIFIED BY 'Theirs, 1'; GRANT ALL ON elsewhere.* TO theirs@localhost;",
    );
    for (user, words) in
        [("cam_cops", "instance camcops uses the account"), ("theirs", "was not made by camcops-provision")]
    {
        let was = before(user);
        machine.write("/etc/camcops/provision_two.toml", &format!("database.user = '{user}'\n"), 0o640);
        let said = provision(machine, &format!("--instance two install --only {PARTS}"));
        said.is(73, &[words, "database.user"]);
        assert_eq!(before(user), was);
        // Refused before anything was made.
        machine.run("test ! -e /srv/camcops_two");
        assert_eq!(sql(machine, "SHOW DATABASES LIKE 'camcops_two'"), "");
    }
    machine.write(
        "/etc/camcops/provision_two.toml",
        "database.user = 'theirs'\ndatabase.password_file = '/root/theirs'\n",
        0o640,
    );
    machine.write("/root/theirs", "Theirs, 1\n", 0o600);
    let said = provision(machine, &format!("--instance two install --only {PARTS}"));
    said.is(73, &["may do more than CamCOPS needs", "elsewhere"]);
    nothing_to_do(machine, "the first instance");
}

fn a_restarted_server_is_found_again(machine: &Machine) {
    let service = "pgrep -x mariadbd";
    let first = machine.run(service);
    // It has to be restarted for its settings while we hold a connection.
    machine.run("rm /etc/mysql/mariadb.conf.d/90-camcops.cnf");
    sql(machine, "GRANT DELETE ON mysql.* TO cam_cops@localhost");
    mended(machine, "restarted", "90-camcops.cnf");
    assert_ne!(machine.run(service), first);
    its_settings_are_read(machine);
    sql(machine, "SET GLOBAL general_log = ON");
}
