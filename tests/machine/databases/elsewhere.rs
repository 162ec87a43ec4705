//! A server on another machine: administered from here, or looked after by others; and each way to fail.

use super::{MARIADB_10, MARIADB_11, MYSQL, ODD_PASSWORD, PARTS, Said, Server, provision, settings};
use crate::harness::Machine;
use crate::harness::certificates::Authority;
use crate::harness::servers::{certify, sql, start_mariadb};

/// The address of this machine, and of the one with the server.
pub const HERE: &str = "10.77.0.1";
pub const THERE: &str = "10.77.0.2";
const VERIFIED: &str = "database.mode = 'external'\ndatabase.tls = 'verify'\n";
const AUTHORITY: &str = "database.tls_ca = '/etc/test-tls/authority.crt'\n";
const ADMINISTRATOR: &str = "database.admin_defaults_file = '/root/admin.cnf'\n";
const HOST: &str = "database.host = 'db.test'\n";

/// Starts a server which others can reach, with a certificate for db.test and an administrator, and lays a cable to it.
pub fn start(server: Server, authority: &Authority, here: &Machine, addresses: (&str, &str)) -> Option<Machine> {
    let there = server.machine()?;
    here.connect(addresses.0, &there, addresses.1);
    certify(&there, authority, "db.test", false);
    let directory = match server.is_mysql() {
        true => "mysql.conf.d",
        false => "mariadb.conf.d",
    };
    there.write(
        &format!("/etc/mysql/{directory}/zz-test.cnf"),
        // The certificate is not for its own socket.
        "[mysqld]\nbind-address = 0.0.0.0\nskip-name-resolve\n[client-mariadb]\nskip-ssl\n",
        0o644,
    );
    server.start(&there);
    sql(
        &there,
        &format!(
            "CREATE USER admin@'%' IDENTIFIED BY '{ODD_PASSWORD}'; GRANT ALL ON *.* TO admin@'%' WITH GRANT OPTION;\n\
             CREATE USER weak@'%' IDENTIFIED BY '{ODD_PASSWORD}'; GRANT CREATE ON *.* TO weak@'%';\n"
        ),
    );
    here.write("/etc/test-tls/authority.crt", &authority.pem, 0o644);
    here.write("/root/admin.cnf", &login("admin", ODD_PASSWORD), 0o600);
    Some(there)
}

fn login(user: &str, password: &str) -> String {
    format!("[client]\nuser = {user}\npassword = \"{password}\"\n")
}

fn install(machine: &Machine, text: &[&str]) -> Said {
    settings(machine, &text.concat());
    provision(machine, &format!("install --only {PARTS}"))
}

#[test]
fn each_way_to_fail_is_told_and_leaves_nothing() {
    let Some(here) = MARIADB_10.machine() else {
        return;
    };
    let authority = Authority::new("the right one");
    let there = start(MARIADB_11, &authority, &here, (HERE, THERE)).unwrap();
    here.run(&format!("echo {THERE} db.test other.test >> /etc/hosts; echo 127.0.0.1 plain.test >> /etc/hosts"));
    here.write("/etc/test-tls/stranger.crt", &Authority::new("a stranger").pem, 0o644);
    // This one has no certificate.
    start_mariadb(&here);

    administered(&here, &there);
    made_by_others(&here, &there, "SET DEFAULT ROLE builders FOR somebody@'%'");
    drop(there);
    let there = start(MYSQL, &authority, &here, ("10.79.0.1", "10.79.0.2")).unwrap();
    here.run("hosts=$(sed 's/^10.77.0.2 /10.79.0.2 /' /etc/hosts); echo \"$hosts\" > /etc/hosts");
    made_by_others(&here, &there, "SET DEFAULT ROLE builders TO somebody@'%'");
}

fn administered(here: &Machine, there: &Machine) {
    let stranger = "database.tls_ca = '/etc/test-tls/stranger.crt'\n";
    let cases: [(i32, &str, &[&str]); 7] = [
        (65, "authority that is not trusted here", &[HOST, stranger]),
        (65, "is not for other.test", &["database.host = 'other.test'\n", AUTHORITY]),
        (78, "does not offer TLS", &["database.host = 'plain.test'\n", AUTHORITY]),
        (69, "connection refused", &[HOST, AUTHORITY, "database.port = 3307\n"]),
        (69, "nowhere.test", &["database.host = 'nowhere.test'\n", AUTHORITY]),
        (69, "no route to that machine", &["database.host = '10.99.0.1'\n", AUTHORITY]),
        (78, "database.tls_ca", &[HOST, "database.tls_ca = '/etc/hosts'\n"]),
    ];
    for (code, words, more) in cases {
        let text = [&[VERIFIED, ADMINISTRATOR], more].concat();
        install(here, &text).is(code, &[words]);
        nothing_made(here, there);
    }
    let full = [VERIFIED, AUTHORITY, HOST, ADMINISTRATOR];
    let refused = |text: String, mode: u32, code: i32, words: &[&str]| {
        here.write("/root/admin.cnf", &text, mode);
        install(here, &full).is(code, words);
        nothing_made(here, there);
    };
    let administrator = || login("admin", ODD_PASSWORD);
    refused(login("admin", "wrong"), 0o600, 77, &["refuses its administrator admin"]);
    refused(login("weak", ODD_PASSWORD), 0o600, 77, &["lacks a privilege", "SELECT"]);
    sql(there, "GRANT SELECT ON mysql.* TO weak@'%'");
    let lacks = ["OPTION): CREATE USER, ALTER, CREATE, ", "GRANT OPTION"];
    refused(login("weak", ODD_PASSWORD), 0o600, 77, &lacks);
    refused(administrator(), 0o644, 78, &["chmod 600"]);
    refused("[client]\n".into(), 0o600, 78, &["names no user"]);

    here.write("/root/admin.cnf", &administrator(), 0o600);
    install(here, &full).is(0, &["database account camcops@10.77.0.1"]);
    install(here, &full).is(0, &["nothing to do"]);
    let account = "camcops@'10.77.0.1'";
    assert!(sql(there, &format!("SHOW CREATE USER {account}")).contains("REQUIRE SSL"));
    let cipher = here.run(
        "mariadb --defaults-file=/etc/camcops/camcops.my.cnf --batch -e \"SHOW STATUS LIKE 'Ssl_cipher'\" camcops",
    );
    assert!(cipher.contains("TLS_"), "{cipher}");
    for damage in [
        format!("ALTER USER {account} IDENTIFIED BY 'Another 1'"),
        format!("ALTER USER {account} REQUIRE NONE"),
        format!("REVOKE INDEX ON camcops.* FROM {account}; GRANT FILE ON *.* TO {account}"),
        "SET GLOBAL max_allowed_packet = 1048576; DROP DATABASE camcops".into(),
    ] {
        sql(there, &damage);
        install(here, &full).is(0, &["installed: "]);
        install(here, &full).is(0, &["nothing to do"]);
    }
    // What is not ours is not tuned.
    assert_eq!(sql(there, "SELECT @@GLOBAL.max_allowed_packet"), "1048576\n");
}

#[track_caller]
fn nothing_made(here: &Machine, there: &Machine) {
    here.run("test ! -e /srv/camcops -a ! -e /etc/camcops/camcops.conf -a ! -e /etc/camcops/secrets");
    let made = sql(there, "SHOW DATABASES LIKE 'camcops'; SELECT User FROM mysql.user WHERE User = 'camcops'");
    assert_eq!(made, "");
}

fn made_by_others(here: &Machine, there: &Machine, by_default: &str) {
    let ours = "database.name = 'made_there'\ndatabase.user = 'somebody'\ndatabase.password_file = '/root/given'\n";
    let text = [VERIFIED, AUTHORITY, HOST, ours];
    here.write("/root/given", &format!("{ODD_PASSWORD}\n"), 0o600);
    let installed = |code: i32, words: &[&str]| install(here, &text).is(code, words);
    installed(77, &["somebody or its password", "database.password_file"]);
    sql(there, &format!("CREATE USER somebody@'%' IDENTIFIED BY '{ODD_PASSWORD}'"));
    installed(77, &["run: CREATE DATABASE `made_there` CHARACTER SET utf8mb4", "not into the database"]);
    sql(
        there,
        "CREATE DATABASE made_there CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;\n\
         GRANT ALL ON `made\\_there`.* TO somebody@'%'; REVOKE INDEX, ALTER ON `made\\_there`.* FROM somebody@'%'",
    );
    installed(77, &["without ALTER, INDEX", "run: GRANT ALTER, CREATE, ", " ON `made\\_there`.* TO 'somebody'@'%'"]);
    sql(
        there,
        &format!(
            "CREATE ROLE builders; GRANT INDEX, ALTER ON `made\\_there`.* TO builders;\n\
             GRANT builders TO somebody@'%'; {by_default}"
        ),
    );
    installed(0, &[]);
    installed(0, &["nothing to do"]);
    let grants = sql(there, "SHOW GRANTS FOR somebody@'%'");
    assert!(grants.contains("CREATE VIEW"), "{grants}");
    here.write("/root/given", "wrong\n", 0o600);
    installed(77, &["somebody or its password"]);
}
