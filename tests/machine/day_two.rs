//! What an administrator does with a site that runs: read its logs, help its users, run things in its surroundings.

use crate::harness::booted::Booted;
use crate::harness::installed::{PASSWORD, SUPERUSER, installed};
use crate::harness::site::{NO_GROUP, SERVICES, as_tablet, wait_until_well};
use serde_json::Value;

const ANOTHER: &str = "three-quiet-herons";

#[test]
fn a_running_site_is_looked_after() {
    let Some((machine, _)) = installed() else {
        return;
    };
    wait_until_well(&machine, "the first boot");
    reads_the_journal(&machine);
    lets_users_in(&machine);
    lends_no_terminal(&machine);
    outlives_its_own_account(&machine);
    reads_files(&machine);
}

/// Exit code and complaint of a command that can't be done.
fn refused(machine: &Booted, command: &str) -> (i32, String) {
    let (code, out, why) = machine.tried(&format!("camcops-provision {command} < /dev/null"));
    assert_eq!(out, "", "{command}");
    assert_eq!(why.lines().count(), 1, "{command}: {why}");
    (code, why)
}

/// The lines that `logs` tells, as service and message.
fn told(machine: &Booted, arguments: &str) -> Vec<(String, String)> {
    let text = machine.run(&format!("camcops-provision --json logs {arguments}"));
    let told: Value = serde_json::from_str(&text).unwrap();
    let text = |line: &Value, field: &str| line[field].as_str().unwrap().to_owned();
    let lines = told["lines"].as_array().unwrap();
    lines
        .iter()
        .map(|line| (text(line, "service"), text(line, "message")))
        .collect()
}

fn reads_the_journal(machine: &Booted) {
    let all = told(machine, "--since '1 day ago'");
    for service in SERVICES {
        assert!(all.iter().any(|(name, _)| name == service), "{service}");
    }
    let workers = told(machine, "workers --lines 3");
    assert_eq!(workers.len(), 3);
    assert!(workers.iter().all(|(name, _)| name == "workers"));
    let shown = machine.run("camcops-provision logs server monitor --since today");
    assert!(shown.contains("camcops-server@camcops"), "{shown}");
    assert!(!shown.contains("camcops-workers@camcops"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "{shown}");

    let (code, why) = refused(machine, "logs --since tomorow");
    assert_eq!(code, 64, "{why}");
    assert!(why.contains("\"1 hour ago\""), "{why}");
    assert_eq!(
        machine.tried("camcops-provision --json logs --follow").0,
        64
    );

    machine.run(
        "camcops-provision logs scheduler --follow --lines 0 > /root/followed &
         camcops-provision restart scheduler
         for _ in $(seq 300); do ! grep -q 'beat: Starting' /root/followed || break; sleep 0.1; done
         kill %1; grep 'beat: Starting' /root/followed",
    );
}

fn lets_users_in(machine: &Booted) {
    let is_let_in = |password: &str| {
        as_tablet(machine, SUPERUSER, password)
            .body
            .contains(NO_GROUP)
    };
    assert!(is_let_in(PASSWORD));

    machine.run(&format!(
        "mysql camcops --execute \"INSERT INTO _security_account_lockouts (username, locked_until)
            VALUES ('{SUPERUSER}', UTC_TIMESTAMP() + INTERVAL 1 HOUR)\""
    ));
    let enabled = machine.run(&format!("camcops-provision user enable {SUPERUSER}"));
    assert_eq!(enabled, format!("{SUPERUSER} can log in again\n"));
    let again = machine.run(&format!("camcops-provision user enable {SUPERUSER}"));
    assert!(again.contains("was not locked out"), "{again}");

    machine.run(&format!(
        "echo {ANOTHER} | camcops-provision user reset-password {SUPERUSER} --password-file -"
    ));
    assert!(is_let_in(ANOTHER) && !is_let_in(PASSWORD));
    for (password, code) in [("short", 64), ("password123", 65)] {
        let reset = format!("user reset-password {SUPERUSER} --password-file");
        machine.run(&format!("umask 077; echo {password} > /root/password"));
        assert_eq!(
            refused_after_a_while(machine, &format!("{reset} /root/password")),
            code
        );
    }
    assert!(is_let_in(ANOTHER));

    let power = || {
        machine.run(
            "mysql --skip-column-names camcops --execute \"SELECT superuser FROM _security_users WHERE username = 'second'\"",
        )
    };
    machine
        .run("echo four-loud-herons | camcops-provision user superuser second --password-file -");
    assert_eq!(power().trim(), "1");
    machine.run("mysql camcops --execute \"UPDATE _security_users SET superuser = 0 WHERE username = 'second'\"");
    let again = machine.run("camcops-provision --json user superuser second");
    assert!(again.contains("\"changed\": true"), "{again}");
    assert_eq!(power().trim(), "1");
    let again = machine.run("camcops-provision --json user superuser second");
    assert!(again.contains("\"changed\": false"), "{again}");

    for (command, code) in [
        ("user enable nobody", 65),
        ("user reset-password nobody", 65),
        ("user superuser third", 64),
        ("user superuser 'not a name'", 64),
        ("user superuser third --password-file /root/none", 78),
    ] {
        let (told, why) = refused(machine, command);
        assert_eq!(told, code, "{command}: {why}");
    }
    machine.run("systemctl stop mariadb");
    let (code, why) = refused(machine, &format!("user enable {SUPERUSER}"));
    assert_eq!(code, 69, "{why}");
    machine.run("systemctl start mariadb");
}

/// Where CamCOPS itself is asked first, which is told too.
fn refused_after_a_while(machine: &Booted, command: &str) -> i32 {
    machine.tried(&format!("camcops-provision {command}")).0
}

fn reads_files(machine: &Booted) {
    machine.run("camcops-provision config set logging.mode file; camcops-provision install --yes");
    let (code, why) = refused(machine, "logs --since today");
    assert_eq!(code, 64, "{why}");
    let all = told(machine, "--lines 10");
    for service in SERVICES {
        assert!(all.iter().any(|(name, _)| name == service), "{service}");
    }
    machine.run(
        "camcops-provision logs scheduler --follow --lines 0 > /root/followed 2> /dev/null &
         logrotate --force /etc/logrotate.d/camcops
         camcops-provision restart scheduler
         for _ in $(seq 300); do ! grep -q 'beat: Starting' /root/followed || break; sleep 0.1; done
         kill %1; grep 'beat: Starting' /root/followed",
    );
}

/// What runs as the account of the services has no way to the terminal of whoever runs it.
fn lends_no_terminal(machine: &Booted) {
    let typed = machine.run(
        r#"script --quiet --command 'tty; camcops-provision exec -- tty; camcops-provision exec -- sh -c "exit 9"; echo $?' /dev/null < /dev/null"#,
    );
    // `script` ends its input in its own way.
    let typed = typed.replace("^@", "");
    let lines: Vec<&str> = typed.lines().map(str::trim).collect();
    assert!(lines[0].starts_with("/dev/pts/"), "{typed}");
    assert!(lines[1].starts_with("/dev/pts/"), "{typed}");
    assert_ne!(lines[0], lines[1]);
    assert_eq!(lines[2], "9");
    let typed = machine.run(
        r#"script --quiet --command 'camcops-provision exec -- sh -c ": < /dev/tty" < /dev/null || echo none' /dev/null < /dev/null"#,
    );
    assert!(typed.contains("none"), "{typed}");
    let (code, out, _) =
        machine.tried("echo piped | camcops-provision exec -- sh -c 'cat; exit 5'");
    assert_eq!((code, out.as_str()), (5, "piped\n"));
}

/// The account of the services can remove its socket, and hold the lock of its directory.
fn outlives_its_own_account(machine: &Booted) {
    let socket = "/run/camcops/camcops.socket";
    for (spoilt, mended) in [
        (format!("rm {socket}"), "restart server"),
        (
            format!("rm {socket}; ln -s /etc/passwd {socket}"),
            "install --yes",
        ),
    ] {
        machine.run(&spoilt);
        let told = machine.run("camcops-provision status");
        assert!(told.contains("nobody finds it any more"), "{told}");
        machine.run(&format!("camcops-provision {mended}"));
        assert_eq!(machine.tried("camcops-provision plan --exit-code").0, 0);
    }
    machine.run("setpriv --reuid=www-data --clear-groups flock /var/lock/camcops sleep 60 > /dev/null 2>&1 &");
    let (code, why) = refused(machine, "break-locks");
    assert_eq!(code, 75, "{why}");
    machine.run("pkill --uid www-data sleep");
}
