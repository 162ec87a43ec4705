//! The servers that CamCOPS needs, as Debian ships them, started by hand.

use super::Machine;
use super::certificates::Authority;

/// The packages with both.
pub const PACKAGES: [&str; 2] = ["mariadb-server", "rabbitmq-server"];

/// Where both servers have their certificate and its key.
pub const CERTIFICATE: &str = "/etc/test-tls/server.crt";
const KEY: &str = "/etc/test-tls/server.key";

/// Gives both servers a certificate.
pub fn certify(machine: &Machine, authority: &Authority, name: &str, expired: bool) {
    let (certificate, key) = authority.sign(name, expired);
    machine.write(CERTIFICATE, &certificate, 0o644);
    // The two run as different accounts.
    machine.write(KEY, &key, 0o644);
}

/// Starts MariaDB and waits until it answers its administrator; with TLS where there is a certificate.
pub fn start_mariadb(machine: &Machine) {
    let tls = match machine.path(CERTIFICATE).exists() {
        true => format!("--ssl-cert={CERTIFICATE} --ssl-key={KEY}"),
        false => String::new(),
    };
    machine.run("install -d -o mysql -g mysql /run/mysqld");
    machine.daemon("mariadb", "mysql", &format!("/usr/sbin/mariadbd {tls}"));
    machine.wait_for("MariaDB", "mariadb-admin --silent ping");
}

/// The Debian that has MySQL is a snapshot, on which nothing would be laid out: it says that it is Debian 13.
pub fn is_debian_13(machine: &Machine) {
    machine.write("/usr/lib/os-release", "ID=debian\nVERSION_ID=\"13\"\n", 0o644);
}

/// Starts MySQL and waits until it answers its administrator; with the certificate where there is one.
pub fn start_mysql(machine: &Machine) {
    let tls = match machine.path(CERTIFICATE).exists() {
        true => format!("--ssl-cert={CERTIFICATE} --ssl-key={KEY}"),
        false => String::new(),
    };
    machine.run("install -d -o mysql -g mysql /run/mysqld");
    machine.daemon("mysql", "mysql", &format!("/usr/sbin/mysqld {tls}"));
    machine.wait_for("MySQL", "mysqladmin --silent ping && mysql -e 'SELECT 1'");
}

/// Runs SQL as the administrator, with the client of whichever family is there.
pub fn sql(machine: &Machine, statements: &str) -> String {
    machine.write("/tmp/statements.sql", statements, 0o600);
    machine.run(
        "client=$(command -v mariadb || command -v mysql)
         $client --batch --skip-column-names < /tmp/statements.sql",
    )
}

/// A vhost and an account of RabbitMQ, which has every permission on it.
#[derive(Debug, Clone, Copy)]
pub struct BrokerAccount<'a> {
    /// The vhost.
    pub vhost: &'a str,
    /// The account.
    pub user: &'a str,
    /// Its password.
    pub password: &'a str,
}

/// Starts RabbitMQ with one account and some vhosts more, and waits until its port is open; with TLS on the usual port
/// where there is a certificate.
pub fn start_rabbitmq(machine: &Machine, account: BrokerAccount<'_>, more_vhosts: &[&str]) {
    let BrokerAccount { vhost, user, password } = account;
    let vhosts: Vec<String> =
        std::iter::once(&vhost).chain(more_vhosts).map(|name| format!(r#"{{"name": "{name}"}}"#)).collect();
    // Read while it starts, which saves one start of the Erlang machine per command.
    machine.write(
        "/etc/rabbitmq/definitions.json",
        &format!(
            r#"{{"vhosts": [{}], "users": [{{"name": "{user}", "password": "{password}", "tags": ""}}],
            "permissions": [{{"user": "{user}", "vhost": "{vhost}", "configure": ".*", "write": ".*", "read": ".*"}}]}}"#,
            vhosts.join(", ")
        ),
        0o644,
    );
    let tls = match machine.path(CERTIFICATE).exists() {
        true => format!(
            "listeners.ssl.default = 5671\nssl_options.certfile = {CERTIFICATE}\nssl_options.keyfile = {KEY}\nssl_options.verify = verify_none\n"
        ),
        false => String::new(),
    };
    machine.write(
        "/etc/rabbitmq/rabbitmq.conf",
        &format!("load_definitions = /etc/rabbitmq/definitions.json\n{tls}"),
        0o644,
    );
    machine.daemon("rabbitmq", "rabbitmq", "env HOME=/var/lib/rabbitmq /usr/lib/rabbitmq/bin/rabbitmq-server");
    machine.wait_for("RabbitMQ", "exec 3<> /dev/tcp/127.0.0.1/5672");
}

/// Opens a port inside, behind which a Python program does what it is told with each connection `c`.
pub fn listen(machine: &Machine, port: u16, action: &str) {
    let program = format!(
        "import socket\ns = socket.create_server(('127.0.0.1', {port}))\nkept = []\nwhile True:\n    c = s.accept()[0]\n    kept.append(c)\n    {action}\n"
    );
    machine.write(&format!("/tmp/listen-{port}.py"), &program, 0o644);
    machine.daemon(&format!("listen-{port}"), "daemon", &format!("python3 /tmp/listen-{port}.py"));
    // Asked without connecting: the program counts its connections.
    machine.wait_for("the port", &format!("grep -q ':{port:04X} 00000000:0000 0A' /proc/net/tcp"));
}
