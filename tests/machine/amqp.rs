//! Packages and the broker on a machine that has booted: from bare Debian to an account that sends and receives.

use crate::harness::booted::Booted;
use crate::harness::installed::WEASYPRINT;

const PARTS: &str = "--only packages,directories,secrets,broker";

/// Nothing else of a site is on this machine.
const ALONE: &str = "database.mode = 'external'\ndatabase.host = 'db'\nweb.frontend = 'none'\n";

#[test]
fn rabbitmq_of_debian_12() {
    let Some(machine) = Booted::start(
        "bookworm",
        &[
            "mariadb-server",
            "rabbitmq-server",
            "apache2",
            "ca-certificates",
            "libmagickwand-6.q16-6",
            "wkhtmltopdf",
            "python3.11",
            "python3.11-venv",
            "python3.11-dev",
            "gcc",
            "libc6-dev",
        ],
    ) else {
        return;
    };
    let (code, _, complaint) = install(&machine, "--offline");
    assert_eq!(code, 69, "{complaint}");
    assert!(complaint.contains("rabbitmq-server, apache2"), "{complaint}");
    assert!(complaint.contains("apt-get install"), "{complaint}");
    assert!(!machine.path("/etc/rabbitmq").exists());

    // Killed while apt is at work: apt goes on, and the next run waits for it.
    machine.run(&format!(
        "camcops-provision install --yes {PARTS} > /dev/null 2>&1 & \
         until pgrep dpkg > /dev/null; do sleep 0.1; done; kill -KILL $!"
    ));
    lifecycle(&machine);
}

/// Its package may have come before us.
#[test]
#[ignore = "thorough: another release of Debian"]
fn rabbitmq_of_debian_13() {
    let packages = [
        "rabbitmq-server",
        "ca-certificates",
        "libmagickwand-7.q16-10",
        "python3.13",
        "python3.13-venv",
        "python3.13-dev",
        "gcc",
        "libc6-dev",
    ];
    let Some(machine) = Booted::start("trixie", &[&packages[..], &WEASYPRINT].concat()) else {
        return;
    };
    machine.run("apt-get install --quiet --yes --no-install-recommends rabbitmq-server");
    std::fs::create_dir_all(machine.path("/etc/camcops")).unwrap();
    std::fs::write(machine.path("/etc/camcops/provision.toml"), ALONE).unwrap();

    // Somebody uses it: its node keeps its name, and listens where it does.
    machine.run("rabbitmqctl -q add_vhost other");
    let planned = || machine.run(&format!("camcops-provision plan {PARTS}"));
    let plan = planned();
    assert!(!plan.contains("rabbitmq-env.conf"), "{plan}");
    machine.run("rabbitmqctl -q delete_vhost other");
    let plan = planned();
    assert!(plan.contains("rabbitmq-env.conf"), "{plan}");
    lifecycle(&machine);
}

fn install(machine: &Booted, more: &str) -> (i32, String, String) {
    machine.tried(&format!("camcops-provision install --yes {PARTS} {more}"))
}

/// Somebody has damaged something: one run mends it.
fn mended(machine: &Booted, what: &str, damage: &str) {
    machine.run(damage);
    let (code, _, complaint) = install(machine, "");
    assert_eq!(code, 0, "{what}: {complaint}");
    let (code, plan, _) = machine.tried(&format!("camcops-provision plan --exit-code {PARTS}"));
    assert_eq!((code, plan.as_str()), (0, "nothing to do\n"), "{what}");
}

/// From the first account to an uninstall.
fn lifecycle(machine: &Booted) {
    let install = |more: &str| install(machine, more);
    let mended = |what: &str, damage: &str| mended(machine, what, damage);
    let (code, _, complaint) = install("");
    assert_eq!(code, 0, "{complaint}");
    let started = "systemctl show --value --property=ExecMainStartTimestampMonotonic rabbitmq-server";
    let first_start = machine.run(started);
    let (code, output, _) = install("");
    assert_eq!((code, output.as_str()), (0, "nothing to do\n"));
    assert_eq!(machine.run(started), first_start);

    let listening = machine.run("ss --no-header --listening --tcp --numeric");
    for port in [4369, 5672, 25672] {
        assert!(listening.contains(&format!("127.0.0.1:{port} ")), "{listening}");
        assert!(!listening.contains(&format!("0.0.0.0:{port} ")), "{listening}");
        assert!(!listening.contains(&format!("*:{port} ")), "{listening}");
    }

    mended("password", "rabbitmqctl -q change_password camcops another");
    mended("too little", "rabbitmqctl -q set_permissions -p camcops camcops ^x '' ''");
    mended(
        "too much",
        "rabbitmqctl -q add_vhost other; rabbitmqctl -q set_permissions -p other camcops x x x; \
         rabbitmqctl -q set_user_tags camcops administrator",
    );
    mended("no account", "rabbitmqctl -q delete_user camcops");
    mended("no vhost", "rabbitmqctl -q delete_vhost camcops");

    machine.run(
        "rabbitmqctl -q change_password camcops theirs; \
         rabbitmqctl -q set_permissions -p other camcops .* .* .*",
    );
    let (code, _, complaint) = install("");
    assert_eq!(code, 73, "{complaint}");
    assert!(complaint.contains("belongs to somebody else"), "{complaint}");
    mended("given back", "rabbitmqctl -q clear_permissions -p other camcops");

    // Nobody notices: it goes on as it runs.
    let broker = || machine.run("pgrep beam.smp");
    let before = broker();
    mended("less time for a task", "rabbitmqctl -q eval 'application:set_env(rabbit, consumer_timeout, 60000).'");
    assert_eq!(broker(), before);
    machine
        .run("echo 'consumer_timeout = 60000' > /etc/rabbitmq/conf.d/99-own.conf; systemctl restart rabbitmq-server");
    let (code, _, complaint) = install("");
    assert_eq!(code, 1, "{complaint}");
    assert!(complaint.contains("after 60000 ms") && complaint.contains("99-own.conf"), "{complaint}");
    mended("no other limit", "rm /etc/rabbitmq/conf.d/99-own.conf");

    // A name that nobody resolves, as after a careless renaming.
    machine.run("echo renamed > /etc/hostname");
    machine.reboot();
    assert_eq!(machine.run("hostname").trim(), "renamed");
    mended("renamed", "systemctl is-active rabbitmq-server");

    let (code, output, complaint) = machine.tried("camcops-provision uninstall --yes");
    assert_eq!(code, 0, "{output}{complaint}");
    for left in ["vhost camcops", "rabbitmq-env.conf"] {
        assert!(output.contains(left), "{output}");
    }
    // The password went with its file; the account is still recognized as ours.
    mended("installed anew", "true");
}
