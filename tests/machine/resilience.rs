//! Whatever dies on a machine with a site, all of it comes back by itself; nobody calls the program meanwhile but to look.

use crate::harness::booted::Booted;
use crate::harness::installed::installed;
use crate::harness::site::{SERVICES, page, processes, unit, wait_until_well};
use crate::harness::tablet::Tablets;

#[test]
fn comes_back_by_itself() {
    let Some((machine, _)) = installed() else {
        return;
    };
    wait_until_well(&machine, "the first boot");
    let before = processes(&machine);
    machine.reboot();
    wait_until_well(&machine, "a reboot");
    assert_ne!(processes(&machine), before);
    let tablets = Tablets::few(&machine);

    for service in SERVICES {
        let main = killed(&machine, &[&unit(service)]);
        wait_until_well(&machine, &format!("{service} was killed"));
        all_are_others(&machine, &main);
    }
    children_are_killed(&machine);

    // One after the other, and each before the last one is back.
    for order in [["rabbitmq-server.service", "mariadb.service"], ["mariadb.service", "rabbitmq-server.service"]] {
        for server in order {
            machine.run(&format!("systemctl restart {server}"));
        }
        wait_until_well(&machine, &format!("{} were restarted", order.join(" and ")));
        let dead = killed(&machine, &order);
        wait_until_well(&machine, &format!("{} were killed", order.join(" and ")));
        all_are_others(&machine, &dead);
    }

    // Without the database and the broker nothing of ours can start; it has to wait for them.
    machine.run("systemctl stop mariadb rabbitmq-server");
    let units = SERVICES.map(unit);
    let dead = killed(&machine, &units.each_ref().map(String::as_str));
    // Each is seen waiting before what it waits for comes.
    for unit in &units {
        machine.run(&format!(
            "for _ in $(seq 600); do
                 [ -z \"$(systemctl show --property=Job --value {unit})\" ] || exit 0
                 sleep 0.1
             done
             systemctl status {unit}; exit 1"
        ));
    }
    machine.run("systemctl start rabbitmq-server mariadb");
    wait_until_well(&machine, "everything was killed while both servers were stopped");
    all_are_others(&machine, &dead);
    let kills = machine.run("cat /run/kills");
    let kills: Vec<f64> = kills.lines().map(|line| line.parse().unwrap()).collect();
    tablets.end_after_kills(&kills);

    let login = page(&machine, "login", "");
    assert_eq!(login.status, 200);
    assert_eq!(machine.run("systemctl list-units --failed --plain --no-legend"), "");
    assert_eq!(machine.tried("camcops-provision plan --exit-code").0, 0);
}

/// Kills the main processes of units at once; gives them.
fn killed(machine: &Booted, units: &[&str]) -> Vec<(String, u64)> {
    let units = units.join(" ");
    let before = machine.run(&format!("systemctl show --property=MainPID --value {units}"));
    let dead: Vec<(String, u64)> = units
        .split(' ')
        .zip(before.split_whitespace())
        .map(|(unit, pid)| (unit.to_owned(), pid.parse().unwrap()))
        .collect();
    assert!(dead.iter().all(|(_, pid)| *pid > 1), "{dead:?}");
    let numbers: Vec<String> = dead.iter().map(|(_, pid)| pid.to_string()).collect();
    kill(machine, &format!("echo {}", numbers.join(" ")));
    dead
}

/// Kills processes; only once they are gone, and whoever watches them knows it, can "well" mean what came after
/// them. A command tells which they are.
fn kill(machine: &Booted, pids: &str) {
    machine.run(&format!(
        "pids=$({pids})
         kill -KILL $pids
         date +%s.%N >> /run/kills
         for pid in $pids; do while [ -d /proc/$pid ]; do sleep 0.02; done; done"
    ));
}

fn all_are_others(machine: &Booted, dead: &[(String, u64)]) {
    let now = processes(machine);
    for (unit, pid) in dead {
        let present = now.get(unit);
        assert!(present.is_some_and(|new| new != pid), "{unit}: {present:?}");
    }
}

/// The processes that a service has made for its work: it makes others, and stays itself.
fn children_are_killed(machine: &Booted) {
    let main = processes(machine);
    for service in ["server", "workers"] {
        let main = main[&unit(service)];
        kill(machine, &format!("pgrep --parent {main}"));
    }
    wait_until_well(machine, "the children of the server and of the workers were killed");
    for service in ["server", "workers"] {
        let children = machine.run(&format!("pgrep --count --parent {}", main[&unit(service)]));
        assert_ne!(children.trim(), "0", "{service}");
    }
}
