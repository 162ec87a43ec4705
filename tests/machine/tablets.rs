//! What tablets were promised is there, once: whatever is changed, restarted or killed while they upload.

use crate::harness::booted::Booted;
use crate::harness::installed::installed;
use crate::harness::site::{SERVICES, unit, wait_until_at_work, wait_until_well};
use crate::harness::tablet::{self, Tablets};
use std::time::{Duration, Instant};

/// How long the long form goes on, at least.
const LONG: Duration = Duration::from_secs(600);

/// How long another command may be at work.
const LOCKED: Duration = Duration::from_secs(120);

/// Each changes what something else reads.
const SETTINGS: [&str; 10] = [
    "broker.consumer_timeout_ms=7300000",
    "workers.concurrency=1",
    "workers.max_tasks_per_child=500",
    "web.workers=3",
    "web.timeout_s=400",
    "web.max_body_mb=100",
    "monitor.user=watcher",
    "backup.schedule=daily",
    "site.timezone=Europe/London",
    "database.flush_log_at_trx_commit=2",
];

#[test]
fn the_broker_comes_and_goes() {
    let Some((machine, _)) = installed() else {
        return;
    };
    let machine = &machine;
    wait_until_well(machine, "the first boot");
    tablet::prepare(machine);
    tablet::export(machine);
    wait_until_well(machine, "a recipient of exports");
    a_stale_lock_stops_nothing(machine);
    // Its tools are processes of the same name.
    let broker = || machine.run("systemctl show --property=MainPID --value rabbitmq-server.service");
    uploads_that_fail_store_nothing(machine);
    let tablets = Tablets::with(machine, 6, 40);
    machine.run("systemctl restart rabbitmq-server");
    let restarted = broker();
    // What takes no restart gets none.
    machine.run("camcops-provision config set broker.consumer_timeout_ms 7300000 && camcops-provision install --yes");
    assert_eq!(broker(), restarted);
    let allowed = machine.run("rabbitmqctl eval 'application:get_env(rabbit, consumer_timeout).'");
    assert!(allowed.contains("7300000"), "{allowed}");
    machine.run("camcops-provision restart server");
    machine.run("systemctl stop rabbitmq-server; sleep 6; systemctl start rabbitmq-server");
    // It takes connections, and says nothing.
    machine.run("pkill -STOP beam.smp; sleep 8; pkill -CONT beam.smp");
    tablets.end_unnoticed();
    wait_until_well(machine, "a broker that was away");
    everything_is_exported_once(machine);
    let doctor = machine.tried("camcops-provision doctor exports locks").1;
    assert!(doctor.contains("none pending"), "{doctor}");
    assert_eq!(machine.tried("camcops-provision plan --exit-code").0, 0);
}

/// What the database refuses in the middle of an upload, and what comes twice in a second from one tablet, CamCOPS can't
/// store: when the tablet has sent it again, it is there once.
fn uploads_that_fail_store_nothing(machine: &Booted) {
    let tablets = Tablets::clumsy(machine, 4);
    std::thread::sleep(Duration::from_secs(10));
    let failed = tablets.end().to_string();
    assert!(failed.contains("DataError"), "{failed}");
    machine.run("camcops-provision doctor database.index");
}

fn counted(machine: &Booted, question: &str) -> u64 {
    let told = machine.run(&format!("mariadb --batch --skip-column-names camcops --execute \"{question}\""));
    told.trim().parse().unwrap()
}

fn nothing_is_exported_twice(machine: &Booted) {
    let twice = counted(
        machine,
        "SELECT COUNT(*) - COUNT(DISTINCT recipient_id, basetable, task_server_pk) FROM _exported_tasks WHERE success",
    );
    assert_eq!(twice, 0);
}

/// What the broker was not told of is sent by the timer's service, and nothing twice.
fn everything_is_exported_once(machine: &Booted) {
    let left = || {
        let of = |table: &str| {
            counted(
                machine,
                &format!(
                    "SELECT COUNT(*) FROM {table} t WHERE t._current AND t._era <> 'NOW' AND NOT EXISTS (SELECT 1
                     FROM _exported_tasks e WHERE e.basetable = '{table}' AND e.task_server_pk = t._pk AND e.success)"
                ),
            )
        };
        of("progressnote") + of("photo")
    };
    let start = Instant::now();
    machine.run("systemctl start camcops-exports@camcops.service");
    assert!(!machine.path("/var/lib/camcops/unsent").exists());
    assert!(!machine.path("/var/lib/camcops/unsent.sending").exists());
    while left() > 0 {
        assert!(
            start.elapsed() < Duration::from_secs(600),
            "{} are not exported: {}",
            left(),
            machine.tried("journalctl --no-pager --lines=60 --unit=camcops-workers@camcops").1
        );
        std::thread::sleep(Duration::from_secs(1));
    }
    eprintln!("all is exported after {:.0} s", start.elapsed().as_secs_f64());
    nothing_is_exported_twice(machine);
}

/// A lock of a living process stays; that of a dead one is broken by the timer's service, and before anything waits for
/// who waits for it.
fn a_stale_lock_stops_nothing(machine: &Booted) {
    const MASTER: &str = "camcops_master_export_recipient";
    let holder = "import lockfile, sys, time\nlockfile.FileLock(sys.argv[1]).acquire(timeout=9)\nprint(flush=True)\ntime.sleep(600)\n";
    std::fs::write(machine.path("/var/tmp/holder.py"), holder).unwrap();
    let directory = machine.run("sed -n 's/^EXPORT_LOCKDIR *= *//p' /etc/camcops/camcops.conf");
    let directory = directory.trim();
    let account = "setsid setpriv --reuid=www-data --regid=www-data --clear-groups";
    // The services' own processes say in a lock's name where their number ends; others leave that open.
    let (service, other) = ("env PYTHONPATH=/usr/share/camcops/python", "env");
    let hold = |name: &str, surroundings: &str| {
        machine.run(&format!(
            "chmod 644 /var/tmp/holder.py; rm -f /run/held
             {account} {surroundings} /usr/share/camcops/venv/bin/python /var/tmp/holder.py {directory}/{name} > /run/held 2>&1 < /dev/null &
             until [ -s /run/held ]; do sleep 0.1; done; cat /run/held"
        ));
    };
    let kill = |name: &str| {
        // Until it is buried it counts as alive.
        machine.run(&format!("pkill --signal KILL -f '[h]older.py.*{name}'; sleep 1"))
    };
    let is_held = |name: &str| {
        let path = format!("{directory}/{}.lock", name.trim_end_matches(".lock"));
        machine.tried(&format!("[ -e {path} ] || [ -e {path}.lock ]")).0 == 0
    };
    // One that the timer has just started would have looked before.
    machine.run(
        "systemctl stop camcops-exports@camcops.timer
         until [ \"$(systemctl show --property=ActiveState --value camcops-exports@camcops.service)\" = inactive ]; do sleep 0.1; done",
    );
    hold("alive", service);
    hold("other", other);
    hold(MASTER, other);
    kill(MASTER);
    // The sandbox hides processes of its own account, and signals reach them: the number may be that of one.
    machine.run(&format!(
        "{account} sleep 600 > /dev/null 2>&1 < /dev/null &
         until sleeper=$(pgrep --uid www-data --exact sleep); do sleep 0.1; done
         holder=$(find {directory} -samefile {directory}/{MASTER}.lock -not -name '*.lock')
         mv $holder ${{holder%.*}}.${{sleeper}}1234567890123456789"
    ));
    machine.run("systemctl start camcops-exports@camcops.service");
    let said = || {
        let unit = "camcops-exports@camcops.service";
        machine.tried(&format!("ls {directory}; journalctl --no-pager --unit {unit}")).1
    };
    assert!(is_held("alive") && is_held("other"), "{}", said());
    assert!(!is_held(MASTER), "{}", said());
    machine.run("systemctl start camcops-exports@camcops.timer");
    // A worker that waits for it would be waited for until it is killed.
    hold(MASTER, service);
    kill(MASTER);
    let start = Instant::now();
    machine.run("camcops-provision restart workers");
    assert!(!is_held(MASTER) && is_held("alive") && is_held("other"));
    assert!(start.elapsed() < Duration::from_secs(120), "{:?}", start.elapsed());
    kill("alive");
    kill("other");
    machine.run("pkill --uid www-data --exact sleep; camcops-provision break-locks; rm /var/tmp/holder.py");
    assert!(!is_held("alive") && !is_held("other"));
}

#[test]
#[ignore = "thorough: ten minutes of uploads under all that is done to a site"]
fn twenty_tablets_for_ten_minutes() {
    let Some((machine, _)) = installed() else {
        return;
    };
    wait_until_well(&machine, "the first boot");
    tablet::prepare(&machine);
    tablet::export(&machine);
    wait_until_well(&machine, "a recipient of exports");
    let tablets = Tablets::start(&machine, 20);
    let mut kills = Vec::new();
    let begin = Instant::now();
    let mut rounds = 0;
    while rounds == 0 || begin.elapsed() < LONG {
        rounds += 1;
        for setting in SETTINGS {
            let (key, value) = setting.split_once('=').unwrap();
            let step = match rounds {
                1 => format!("set {key} {value}"),
                // There and back.
                _ if rounds % 2 == 0 => format!("unset {key}"),
                _ => format!("set {key} {value}"),
            };
            done(&machine, &format!("config {step}"));
            done(&machine, "install --yes");
        }
        for command in [
            "reload",
            "restart",
            "scale server=2 workers=2",
            "secret rotate database",
            "secret rotate broker",
            "secret rotate monitor",
            "secret rotate cookie --yes",
            "cert renew --force",
            "backup create",
            "db upgrade",
        ] {
            done(&machine, command);
        }
        let (code, ..) = machine.tried("camcops-provision backup restore latest --confirm camcop");
        assert_ne!(code, 0);
        for server in ["rabbitmq-server", "mariadb"] {
            machine.run(&format!("systemctl restart {server}; sleep 5"));
        }
        for service in ["server", "workers"] {
            kills.push(killed(&machine, service));
            wait_until_at_work(&machine, &format!("children of {service} were killed"));
        }
    }
    eprintln!("{rounds} rounds in {:.0} s", begin.elapsed().as_secs_f64());
    tablets.end_after_kills(&kills);
    for service in SERVICES {
        machine.run(&format!("systemctl is-active {}", unit(service)));
    }
    // There are more than the workers can have exported by now.
    machine.run("systemctl start camcops-exports@camcops.service");
    nothing_is_exported_twice(&machine);
    let index = machine.run("camcops-provision doctor database.index 2>&1");
    eprintln!("{}", index.lines().last().unwrap_or_default());
}

fn done(machine: &Booted, command: &str) {
    let start = Instant::now();
    let run = || machine.tried(&format!("camcops-provision {command}"));
    let (mut code, mut out, mut why) = run();
    // Between half past two and ten to three it may be the timer's backup.
    while code == 75 && why.contains("is already running") && start.elapsed() < LOCKED {
        eprint!("{command}: {why}");
        std::thread::sleep(Duration::from_secs(2));
        (code, out, why) = run();
    }
    assert_eq!(code, 0, "{command}: {out}{why}");
    eprintln!("{command}: {:.0} s", start.elapsed().as_secs_f64());
}

/// Kills all children of a service, in whatever they are at; gives when.
fn killed(machine: &Booted, service: &str) -> f64 {
    machine.run(&format!(
        "main=$(systemctl show --property=MainPID --value {}); kill -KILL $(pgrep --parent $main)",
        unit(service)
    ));
    tablet::now()
}
