//! The account of the services turned against the machine: what a service can reach from inside its sandbox, and what
//! becomes of root's own files while that account swaps everything that it can write to with links to them.

use crate::harness::booted::Booted;
use crate::harness::installed::installed;
use crate::harness::sandbox::{Sandbox, run_copy};
use crate::harness::site::{page, wait_until_well};
use std::fs;
use std::time::Instant;

/// Where each service can write, and nowhere else.
const WRITABLE: [(&str, &[&str]); 7] = [
    ("server", &["/run/lock/camcops/export", "/var/cache/camcops", "/var/lib/camcops", "/var/tmp/camcops/downloads"]),
    ("workers", &["/run/lock/camcops/export", "/var/cache/camcops", "/var/lib/camcops", "/var/tmp/camcops/downloads"]),
    ("scheduler", &["/var/cache/camcops", "/var/lib/camcops"]),
    ("exports", &["/run/lock/camcops/export", "/var/cache/camcops", "/var/lib/camcops"]),
    ("monitor", &["/var/cache/camcops", "/var/lib/camcops"]),
    ("backup", &["/run/camcops-provision", "/var/backups/camcops", "/var/lib/camcops-provision"]),
    ("metrics", &["/run/camcops-provision", "/var/lib/camcops-provision"]),
];
/// The door of a container's manager, of which the systemd inside knows nothing.
const MANAGERS_DOOR: &str = "/run/host/incoming";
/// What is each service's own and goes with it.
const PRIVATE: [&str; 6] = ["/dev/hugepages", "/dev/mqueue", "/dev/shm", MANAGERS_DOOR, "/tmp", "/var/tmp"];

#[test]
fn a_service_reaches_only_what_it_needs() {
    let Some((machine, _)) = installed() else {
        return;
    };
    wait_until_well(&machine, "the first boot");
    // The first backup makes its directory.
    machine.run("systemctl start camcops-backup@camcops.service");
    is_locked_in(&machine);
    opens_the_folders_of_exports(&machine);
}

#[test]
#[ignore = "thorough: the systemd of Ubuntu 22.04"]
fn a_service_reaches_only_what_it_needs_under_systemd_249() {
    reaches_only_what_it_needs_on("jammy");
}

#[test]
#[ignore = "thorough: the systemd of Ubuntu 24.04"]
fn a_service_reaches_only_what_it_needs_under_systemd_255() {
    reaches_only_what_it_needs_on("noble");
}

#[test]
#[ignore = "thorough: the systemd of Debian 13"]
fn a_service_reaches_only_what_it_needs_under_systemd_257() {
    reaches_only_what_it_needs_on("trixie");
}

#[test]
#[ignore = "thorough: the systemd of Ubuntu 26.04"]
fn a_service_reaches_only_what_it_needs_under_systemd_259() {
    reaches_only_what_it_needs_on("resolute");
}

/// The unit files alone, without CamCOPS.
fn reaches_only_what_it_needs_on(release: &str) {
    let Some(machine) = Booted::start(release, &["python3"]) else {
        return;
    };
    machine.run("apt-get install --quiet --yes --no-install-recommends python3 > /dev/null");
    for entry in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/units")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        fs::copy(&path, machine.path(&format!("/etc/systemd/system/{name}"))).unwrap();
    }
    machine.run(
        "install -d /run/camcops /run/lock/camcops /var/tmp/camcops /run/mysqld
         install -d -m 0700 -o www-data -g www-data /run/lock/camcops/export /var/tmp/camcops/downloads
         install -d -m 0700 /var/lib/camcops-provision /var/backups/camcops
         for service in server workers scheduler monitor exports; do
             directory=/etc/systemd/system/camcops-$service@camcops.service.d
             mkdir $directory
             printf '[Service]\nUser=www-data\nGroup=www-data\n' > $directory/10-provision.conf
         done
         directory=/etc/systemd/system/camcops-backup@camcops.service.d
         mkdir $directory
         printf '[Service]\nReadWritePaths=-/var/backups/camcops\nNoExecPaths=-/var/backups/camcops\n' > $directory/10-provision.conf",
    );
    is_locked_in(&machine);
}

const RECIPIENT: &str = r#"
[config."recipient:archive"]
TRANSMISSION_METHOD = "file"
ALL_GROUPS = "True"
PRIMARY_IDNUM = "1"
REQUIRE_PRIMARY_IDNUM_MANDATORY_IN_POLICY = "False"
FILE_PATIENT_SPEC = "{surname}"
FILE_PATIENT_SPEC_IF_ANONYMOUS = "anonymous"
FILE_FILENAME_SPEC = "/srv/exports/camcops/{patient}_{tasktype}.{filetype}"
"#;

/// A folder that a recipient names is made, and the workers can write to it; also after it was made again.
fn opens_the_folders_of_exports(machine: &Booted) {
    let settings = "/etc/camcops/provision.toml";
    let before = fs::read_to_string(machine.path(settings)).unwrap_or_default();
    fs::write(machine.path(settings), before + RECIPIENT).unwrap();
    machine.run(
        "mariadb camcops --execute \"INSERT IGNORE INTO _idnum_definitions (which_idnum, description, short_description) VALUES (1, 'Number', 'No')\"
         camcops-provision install --yes",
    );
    let folder = machine.run("stat --format '%U %a' /srv/exports /srv/exports/camcops");
    assert_eq!(folder, "root 755\nwww-data 750\n");
    let writes = |service: &str| {
        let script = format!(
            "pid=$(systemctl show --property=MainPID --value camcops-{service}@camcops.service)
             nsenter --mount --target $pid setpriv --reuid=www-data --regid=www-data --clear-groups touch /srv/exports/camcops/tried"
        );
        machine.tried(&script).0 == 0
    };
    assert!(writes("workers") && !writes("server") && !writes("scheduler"));
    machine.run("camcops-provision doctor exports.folders");

    // What runs has the former folder.
    machine.run("rm -r /srv/exports/camcops; install -d -o www-data -m 0700 /srv/exports/camcops");
    assert!(!writes("workers"));
    let (code, plan, _) = machine.tried("camcops-provision plan --exit-code");
    assert_ne!(code, 0);
    assert!(plan.contains("camcops-workers@") && !plan.contains("camcops-server@"), "{plan}");
    machine.run("camcops-provision install --yes");
    assert!(writes("workers"));

    machine.run("chown root:root /srv/exports/camcops");
    let (code, told, _) = machine.tried("camcops-provision doctor exports.folders");
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("chown www-data: /srv/exports/camcops"), "{told}");
}

/// Tries every service of an installed site.
pub fn is_locked_in(machine: &Booted) {
    for (service, expected) in WRITABLE {
        let start = Instant::now();
        let found = Sandbox::of(machine, service);
        eprintln!("{service}: {found:?} in {:.0} s", start.elapsed().as_secs_f64());
        let below = |path: &str| expected.iter().any(|one| path == *one || path.starts_with(&format!("{one}/")));
        let is_private = |path: &str| PRIVATE.iter().any(|one| path == *one || path.starts_with(&format!("{one}/")));
        for path in found.all("directories") {
            assert!(below(path) || is_private(path), "{service} writes to {path}");
        }
        for path in expected {
            assert!(found.all("directories").contains(path), "{service} can't write to {path}");
        }
        for path in found.all("files") {
            let is_device = path.starts_with("/dev/");
            assert!(below(path) || is_private(path) || is_device, "{service} writes to {path}");
        }
        let mut executed = found.all("executed");
        executed.retain(|path| *path != MANAGERS_DOOR);
        assert_eq!(executed, [""; 0], "{service}");
        let allowed: Vec<&str> = found.all("allowed");
        // Erlang's tools, which the metrics ask, write programs into memory.
        match service {
            "metrics" => assert_eq!(allowed, ["memory written, then executed"], "{service}"),
            _ => assert_eq!(allowed, [""; 0], "{service}"),
        }
        let is_ours = |path: &&str| {
            ["/run/camcops/", "/run/mysqld/", "/run/systemd/", "/run/host/"].iter().any(|known| path.starts_with(known))
                || service == "metrics"
        };
        let others: Vec<&str> = found.all("sockets").into_iter().filter(|path| !is_ours(path)).collect();
        assert_eq!(others, [""; 0], "{service}");
    }
}

const RACER: &str = include_str!("harness/racer.c");
const SENTINELS: &str = include_str!("harness/sentinels.sh");

/// What root does, in the short form.
const COMMANDS: [&str; 8] = [
    "camcops-provision stop server",
    "camcops-provision start server",
    "systemd-tmpfiles --create",
    "camcops-provision backup create",
    "systemctl stop camcops-server@camcops.socket camcops-server@camcops.service; for _ in $(seq 30); do systemctl reset-failed camcops-server@camcops.socket; systemctl restart camcops-server@camcops.socket; done",
    "camcops-provision --set web.timeout_s=77 install --yes",
    "camcops-provision break-locks",
    "camcops-provision doctor",
];

/// And what it does besides.
const MORE: [&str; 12] = [
    "camcops-provision restart",
    "camcops-provision reload",
    "camcops-provision --set logging.mode=file install --yes",
    "logrotate --force /etc/logrotate.d/camcops",
    "camcops-provision secret rotate cookie --yes",
    "camcops-provision secret rotate broker",
    "camcops-provision db check",
    "camcops-provision scale workers=1",
    "systemctl start camcops-backup@camcops.service camcops-metrics@camcops.service",
    "camcops-provision support-bundle --yes --out /root/support.tar.gz",
    "camcops-provision backup restore latest --confirm camcops",
    "camcops-provision uninstall --yes",
];

#[test]
fn links_in_the_way_of_root_lead_nowhere() {
    let Some((machine, _)) = installed() else {
        return;
    };
    wait_until_well(&machine, "the first boot");
    let raced = Raced::start(&machine);
    raced.while_root(&COMMANDS);
    raced.end();
    machine.run("camcops-provision install --yes");
    wait_until_well(&machine, "the racers ended");
    assert_eq!(page(&machine, "login", "").status, 200);
    assert_eq!(machine.tried("camcops-provision plan --exit-code").0, 0);
}

#[test]
#[ignore = "thorough: every command that root has, three times"]
fn links_in_the_way_of_root_lead_nowhere_whatever_it_does() {
    let Some((machine, _)) = installed() else {
        return;
    };
    wait_until_well(&machine, "the first boot");
    let raced = Raced::start(&machine);
    for _ in 0..3 {
        raced.while_root(&COMMANDS);
        raced.while_root(&MORE);
        raced.while_root(&["camcops-provision install --yes --wheelhouse /srv/wheelhouse"]);
    }
    raced.end();
    machine.run("camcops-provision install --yes --wheelhouse /srv/wheelhouse");
    wait_until_well(&machine, "the racers ended");
}

/// Racers at work: one as the account of the services that is quick and aims at what is made at each start, one that swaps
/// everything, and one in the sandbox of the workers.
struct Raced<'a> {
    machine: &'a Booted,
    sentinels: String,
}

impl Raced<'_> {
    fn start(machine: &Booted) -> Raced<'_> {
        machine.run("apt-get install --quiet --yes --no-install-recommends gcc libc6-dev > /dev/null");
        fs::write(machine.path("/root/racer.c"), RACER).unwrap();
        fs::write(machine.path("/root/sentinels.sh"), SENTINELS).unwrap();
        machine.run("gcc -O2 -o /usr/local/bin/racer /root/racer.c");
        let sentinels = machine.run("bash /root/sentinels.sh");
        let account = "setpriv --reuid=www-data --regid=www-data --clear-groups";
        machine.run(&format!(
            "find /srv/sentinels -mindepth 1 -maxdepth 1 > /srv/sentinels.list
             [ $(wc --lines < /srv/sentinels.list) -ge 12 ]
             {account} find / /run /run/lock /dev/shm -xdev -type d -writable 2> /dev/null | grep -v ^/proc | sort --unique > /srv/places.list || true
             grep --quiet /var/lib/camcops /srv/places.list
             grep -E '^/run/(lock/)?camcops' /srv/places.list > /srv/aimed.list
             {account} /usr/local/bin/racer 0 /srv/sentinels.list /srv/aimed.list > /dev/null 2>&1 < /dev/null &
             {account} /usr/local/bin/racer 100 /srv/sentinels.list /srv/places.list > /dev/null 2>&1 < /dev/null &"
        ));
        let command = "/usr/local/bin/racer 5000 /srv/sentinels.list /srv/places.list";
        run_copy(machine, "workers", command, "start --no-block");
        Raced { machine, sentinels }
    }

    /// The commands may fail: they are hindered. They may not be led astray, and must end.
    fn while_root(&self, commands: &[&str]) {
        for command in commands {
            let start = Instant::now();
            let (code, _, said) = self.machine.tried(&format!("timeout 240 bash -c '{command}'"));
            let last = said.lines().last().unwrap_or_default();
            eprintln!("{code} after {:.0} s: {command}: {last}", start.elapsed().as_secs_f64());
            assert!(code < 124, "{command}: {code}: {said}");
            self.assert_untouched(command);
        }
    }

    fn assert_untouched(&self, after: &str) {
        let now = self.machine.run("bash /root/sentinels.sh");
        assert_eq!(now, self.sentinels, "after {after}");
    }

    fn end(self) {
        let running = self.machine.run("pgrep --count racer");
        assert_eq!(running.trim(), "3", "a racer has ended by itself");
        self.machine.run("pkill --exact racer; while pgrep --exact racer > /dev/null; do sleep 0.1; done");
        self.assert_untouched("all");
    }
}
