//! `wait` against real servers.

use crate::harness::Machine;
use crate::harness::certificates::Authority;
use crate::harness::servers::{BrokerAccount, PACKAGES, certify, listen, sql, start_mariadb, start_rabbitmq};
use serde_json::Value;
use std::process::Stdio;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const DATABASE_PASSWORD: &str = "Pa55-of-the-database";
const BROKER_PASSWORD: &str = "Pa55-of-the-broker";
const WRONG_PASSWORD: &str = "Pa55-of-nobody";
const ACCOUNT: BrokerAccount<'_> = BrokerAccount { vhost: "camcops", user: "camcops", password: BROKER_PASSWORD };
/// The same database and broker, but by name, over TCP.
const BY_NAME: &str = "database.mode = 'external'\ndatabase.host = 'db.test'\n\
    broker.mode = 'external'\nbroker.host = 'mq.test'\n";

static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| Authority::new("the right one"));
/// Both servers, up; dies with the test process.
static UP: LazyLock<Option<Machine>> = LazyLock::new(|| {
    let machine = bare()?;
    certify(&machine, &AUTHORITY, "db.test", false);
    start_mariadb(&machine);
    sql(
        &machine,
        &format!(
            "CREATE DATABASE camcops; CREATE DATABASE other;\n\
             CREATE USER camcops@'%' IDENTIFIED BY '{DATABASE_PASSWORD}';\n\
             GRANT ALL ON camcops.* TO camcops@'%'; GRANT ALL ON `not\\_there`.* TO camcops@'%';\n"
        ),
    );
    start_rabbitmq(&machine, ACCOUNT, &["closed"]);
    Some(machine)
});

/// A machine with neither server running, but with the passwords that `install` would have made.
fn bare() -> Option<Machine> {
    let machine = Machine::start(&PACKAGES)?;
    machine.run("echo 127.0.0.1 db.test mq.test other.test >> /etc/hosts");
    let secrets = "/etc/camcops/secrets/camcops";
    machine.write(&format!("{secrets}/database"), &format!("{DATABASE_PASSWORD}\n"), 0o600);
    machine.write(&format!("{secrets}/broker"), &format!("{BROKER_PASSWORD}\n"), 0o600);
    machine.write("/root/wrong-password", &format!("{WRONG_PASSWORD}\n"), 0o600);
    machine.write("/etc/test-tls/authority.crt", &AUTHORITY.pem, 0o644);
    machine.write("/etc/test-tls/stranger.crt", &Authority::new("a stranger").pem, 0o644);
    Some(machine)
}

/// What a `wait` said.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    complaint: String,
    took: Duration,
}

impl Said {
    #[track_caller]
    fn is(self, code: i32, words: &[&str]) -> Said {
        let text = format!("{}{}", self.out, self.complaint);
        assert_eq!(self.code, code, "{self:#?}");
        for word in words {
            assert!(text.contains(word), "{word:?} is not in {self:#?}");
        }
        for secret in [DATABASE_PASSWORD, BROKER_PASSWORD, WRONG_PASSWORD] {
            assert!(!text.contains(secret), "{self:#?}");
        }
        self
    }
}

fn wait(machine: &Machine, settings: &str, arguments: &[&str]) -> Said {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let file = format!("/etc/camcops/case-{}.toml", NEXT.fetch_add(1, Ordering::Relaxed));
    machine.write(&file, settings, 0o640);
    let start = Instant::now();
    let output =
        machine.command("camcops-provision").args(["--config", &file, "wait"]).args(arguments).output().unwrap();
    Said {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        complaint: String::from_utf8(output.stderr).unwrap(),
        took: start.elapsed(),
    }
}

const DATABASE: [&str; 4] = ["--for", "database", "--timeout", "0"];
const BROKER: [&str; 4] = ["--for", "broker", "--timeout", "0"];

#[test]
fn servers_that_are_up_are_seen_at_once() {
    let Some(machine) = UP.as_ref() else { return };
    let both = ["--for", "database,broker"];
    let said = wait(machine, "", &both).is(
        0,
        &["database   MariaDB 10.11.", "broker     RabbitMQ 3.10.", "/run/mysqld/mysqld.sock", "127.0.0.1:5672"],
    );
    assert_eq!(said.complaint, "");
    let took: Vec<Duration> = (0..5).map(|_| wait(machine, "", &both).took).collect();
    let best = took.into_iter().min().unwrap();
    eprintln!("wait for both took {best:?}");
    assert!(best < Duration::from_secs(2), "{best:?}");

    let said = wait(machine, "", &["--for", "database,broker", "--json"]).is(0, &[]);
    let document: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(document["schema_version"], 1);
    assert_eq!(document["answered"][0]["for"], "database");
    assert_eq!(document["answered"][0]["product"], "MariaDB");
    assert_eq!(document["answered"][1]["product"], "RabbitMQ");
    let said = wait(machine, "", &["--for", "broker", "-q"]).is(0, &[]);
    assert_eq!(said.out + &said.complaint, "");

    // By name over TCP, and to the other family's TLS without checking.
    wait(machine, BY_NAME, &both).is(0, &["db.test:3306", "mq.test:5672"]);
    wait(machine, &format!("{BY_NAME}database.tls = 'required'\n"), &DATABASE).is(0, &["MariaDB"]);
}

#[test]
fn servers_that_start_late_are_waited_for() {
    let Some(machine) = bare() else { return };
    machine.write("/etc/camcops/provision.toml", "", 0o640);
    let waiting = machine
        .command("camcops-provision")
        .args(["wait", "--for", "database,broker", "--timeout", "60"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    start_rabbitmq(&machine, ACCOUNT, &[]);
    start_mariadb(&machine);
    let repaired = Instant::now();
    std::thread::sleep(Duration::from_millis(500));
    sql(
        &machine,
        &format!(
            "CREATE DATABASE camcops; CREATE USER camcops@localhost IDENTIFIED BY '{DATABASE_PASSWORD}';\n\
             GRANT ALL ON camcops.* TO camcops@localhost;\n"
        ),
    );
    let output = waiting.wait_with_output().unwrap();
    assert!(repaired.elapsed() < Duration::from_secs(8));
    let out = String::from_utf8(output.stdout).unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{out}{complaint}");
    assert!(out.contains("RabbitMQ") && out.contains("MariaDB"), "{out}");
    // One line per change, not per try.
    let lines = |text: &str| complaint.lines().filter(|line| line.contains(text)).count();
    assert_eq!(lines("there is no such socket"), 1, "{complaint}");
    assert_eq!(lines("connection refused"), 1, "{complaint}");
    assert!(complaint.lines().count() <= 5, "{complaint}");
}

#[test]
fn nothing_there_is_told_and_the_time_is_kept() {
    let Some(machine) = bare() else { return };
    let said = wait(&machine, "", &["--timeout", "2"]).is(
        69,
        &[
            "error: not ready within 2 s: the database at /run/mysqld/mysqld.sock: there is no such socket",
            "and the broker at 127.0.0.1:5672: connection refused",
            "and the web server at /run/camcops/camcops.socket: there is no such socket",
        ],
    );
    assert!(said.took > Duration::from_secs(2), "{said:#?}");
    assert!(said.took < Duration::from_secs(4), "{said:#?}");
    // What is not served is not waited for.
    let said = wait(&machine, "services.disabled = ['server']\n", &["--timeout", "0", "--json"]).is(69, &[]);
    let document: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(document["exit_code"], 69);
    assert!(!said.out.contains("web server"), "{said:#?}");

    machine.run("rm /etc/camcops/secrets/camcops/broker");
    wait(&machine, "", &BROKER).is(1, &["does not exist yet", "run `camcops-provision install` first"]);
    wait(&machine, "", &["--for", "nonsense"]).is(64, &["nonsense"]);
}

#[test]
fn each_trouble_with_the_database_has_its_own_words() {
    let Some(machine) = UP.as_ref() else { return };
    let database = |settings: &str| wait(machine, settings, &DATABASE);
    let named = |settings: &str| wait(machine, &format!("{BY_NAME}{settings}"), &DATABASE);
    database("database.password_file = '/root/wrong-password'\n")
        .is(69, &["refuses the account camcops or its password"]);
    named("database.password_file = '/root/wrong-password'\n")
        .is(69, &["db.test:3306: the server refuses the account"]);
    named("database.user = 'nobody'\n").is(69, &["refuses the account nobody"]);
    database("database.name = 'not_there'\ndatabase.user = 'camcops'\n").is(69, &["there is no database not_there"]);
    database("database.name = 'other'\ndatabase.user = 'camcops'\n").is(69, &["may not use the database other"]);
    database("database.socket = '/run/mysqld/none.sock'\n").is(69, &["there is no such socket"]);
    named("database.port = 3307\n").is(69, &["db.test:3307: connection refused"]);
    let elsewhere = "database.mode = 'external'\ndatabase.host = 'nowhere.invalid'\n";
    wait(machine, elsewhere, &DATABASE).is(69, &["the name nowhere.invalid does not resolve", "database.host"]);
    wait(machine, "database.mode = 'external'\ndatabase.host = '192.0.2.1'\n", &DATABASE)
        .is(69, &["192.0.2.1:3306: no route to that machine"]);

    listen(machine, 4001, "pass");
    named("database.port = 4001\n").is(69, &["does not answer like a MySQL or MariaDB server"]);
    listen(machine, 4002, "c.sendall(b'SSH-2.0-OpenSSH_9.2p1 Debian-2\\r\\n')");
    named("database.port = 4002\n").is(69, &["is not a MySQL or MariaDB server"]);
    listen(machine, 4003, "kept.pop().close()");
    named("database.port = 4003\n").is(69, &["the connection was closed at once"]);
    named("database.port = 5672\n").is(69, &["does not answer like"]);
}

#[test]
fn each_trouble_with_the_broker_has_its_own_words() {
    let Some(machine) = UP.as_ref() else { return };
    let broker = |settings: &str| wait(machine, settings, &BROKER);
    let named = |settings: &str| wait(machine, &format!("{BY_NAME}{settings}"), &BROKER);
    broker("broker.password_file = '/root/wrong-password'\n").is(69, &["refuses the account camcops or its password"]);
    broker("broker.vhost = 'not-there'\n").is(69, &["there is no vhost not-there"]);
    broker("broker.vhost = 'closed'\n").is(69, &["the account camcops may not use the vhost closed"]);
    broker("broker.port = 5673\n").is(69, &["127.0.0.1:5673: connection refused"]);
    wait(machine, "broker.mode = 'external'\nbroker.host = 'nowhere.invalid'\n", &BROKER)
        .is(69, &["the name nowhere.invalid does not resolve", "broker.host"]);

    listen(machine, 4011, "pass");
    named("broker.port = 4011\n").is(69, &["does not answer like a broker"]);
    listen(machine, 4012, "c.sendall(b'HTTP/1.1 400 Bad Request\\r\\n\\r\\n')");
    named("broker.port = 4012\n").is(69, &["a web server listens there"]);
    // Plain AMQP to the port with TLS, and the other way round.
    named("broker.port = 5671\n").is(69, &["a server that requires TLS listens there"]);
    named("broker.tls = true\nbroker.port = 5672\nbroker.tls_ca = '/etc/test-tls/authority.crt'\n")
        .is(69, &["does not speak TLS"]);
    named("broker.port = 3306\n").is(69, &["not an AMQP broker"]);
}

#[test]
fn certificates_are_checked_against_the_given_authority() {
    let Some(machine) = bare() else { return };
    start_mariadb(&machine);
    let database = |host: &str, authority: &str| {
        let settings = format!(
            "database.mode = 'external'\ndatabase.host = '{host}'\ndatabase.tls = 'verify'\ndatabase.tls_ca = '/etc/test-tls/{authority}.crt'\n"
        );
        wait(&machine, &settings, &DATABASE)
    };
    let broker = |host: &str, authority: &str| {
        let settings = format!(
            "broker.mode = 'external'\nbroker.host = '{host}'\nbroker.tls = true\nbroker.tls_ca = '/etc/test-tls/{authority}.crt'\n"
        );
        wait(&machine, &settings, &BROKER)
    };
    database("db.test", "authority").is(69, &["does not offer TLS"]);
    machine.run("mariadb-admin shutdown");
    certify(&machine, &AUTHORITY, "db.test", false);
    start_mariadb(&machine);
    sql(
        &machine,
        &format!(
            "CREATE DATABASE camcops; CREATE USER camcops@'%' IDENTIFIED BY '{DATABASE_PASSWORD}' REQUIRE SSL;\n\
             GRANT ALL ON camcops.* TO camcops@'%';\n"
        ),
    );
    start_rabbitmq(&machine, ACCOUNT, &[]);
    database("db.test", "authority").is(0, &["MariaDB"]);
    broker("db.test", "authority").is(0, &["RabbitMQ 3.10.", "db.test:5671"]);
    for said in [database("db.test", "stranger"), broker("db.test", "stranger")] {
        said.is(69, &["signed by an authority that is not trusted here", "tls_ca"]);
    }
    for said in [database("other.test", "authority"), broker("other.test", "authority")] {
        said.is(69, &["is not for other.test but for", "db.test"]);
    }
    for said in [database("db.test", "missing"), broker("db.test", "missing")] {
        said.is(78, &["tls_ca: /etc/test-tls/missing.crt: No such file"]);
    }
    // The authorities of the system are not those of a hospital.
    let public = "broker.mode = 'external'\nbroker.host = 'db.test'\nbroker.tls = true\n";
    wait(&machine, public, &BROKER).is(69, &["signed by an authority that is not trusted here"]);

    certify(&machine, &AUTHORITY, "db.test", true);
    sql(&machine, "FLUSH SSL;");
    database("db.test", "authority").is(69, &["has expired"]);
}

#[test]
fn an_account_without_a_password_is_asked_as_itself() {
    let Some(machine) = bare() else { return };
    let settings = "account.user = 'camcops'\n";
    wait(&machine, settings, &DATABASE).is(1, &["the account camcops does not exist yet"]);
    machine.run("useradd --system --user-group --no-create-home camcops");
    machine.run("rm /etc/camcops/secrets/camcops/database");
    wait(&machine, settings, &DATABASE).is(69, &["there is no such socket"]);
    start_mariadb(&machine);
    wait(&machine, settings, &DATABASE).is(69, &["does not accept the account camcops by the socket"]);
    sql(
        &machine,
        "CREATE DATABASE camcops; CREATE USER camcops@localhost IDENTIFIED VIA unix_socket; GRANT ALL ON camcops.* TO camcops@localhost;",
    );
    wait(&machine, settings, &DATABASE).is(0, &["MariaDB"]);
    machine.run("rm -rf /var/lib/camcops-provision");
}
