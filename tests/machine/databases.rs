//! The database on real servers of both families, here and on other machines; the application's tables in it.

mod accounts;
mod elsewhere;
mod tables;

use crate::harness::Machine;
use crate::harness::servers::{is_debian_13, start_mariadb, start_mysql};
use std::process::Output;

/// The parts that need no release of the application.
const PARTS: &str = "directories,secrets,configuration,database";
/// What a release of the application is built with.
const APPLICATION: [&str; 8] = [
    "ca-certificates",
    "gcc",
    "libc6-dev",
    "libmagickwand-6.q16-6",
    "mariadb-server",
    "python3.11",
    "python3.11-dev",
    "python3.11-venv",
];
/// All that an option file can carry, with a blank at either end.
const ODD_PASSWORD: &str = " !#$%&()*+,-./09:;<=>?@AZ[]^_`az{|}~ # ; x ";

/// A server as Debian ships it.
#[derive(Debug, Clone, Copy)]
struct Server {
    release: &'static str,
    packages: &'static [&'static str],
    version: &'static str,
}

const MARIADB_10: Server = Server { release: "bookworm", packages: &APPLICATION, version: "10.11." };
const MARIADB_11: Server = Server { release: "trixie", packages: &["mariadb-server"], version: "11.8." };
const MYSQL: Server = Server { release: "sid", packages: &["mysql-server"], version: "9." };

impl Server {
    fn is_mysql(self) -> bool {
        self.release == "sid"
    }

    fn machine(self) -> Option<Machine> {
        let machine = Machine::of(self.release, self.packages)?;
        if self.is_mysql() {
            is_debian_13(&machine);
        }
        Some(machine)
    }

    fn start(self, machine: &Machine) {
        match self.is_mysql() {
            true => start_mysql(machine),
            false => start_mariadb(machine),
        }
    }
}

/// What the program said.
#[derive(Debug)]
struct Said {
    code: i32,
    text: String,
}

impl Said {
    fn of(output: Output) -> Said {
        Said {
            code: output.status.code().unwrap_or(-1),
            text: String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    fn is(self, code: i32, words: &[&str]) -> String {
        assert_eq!(self.code, code, "{}", self.text);
        for word in words {
            assert!(self.text.contains(word), "{word:?} is not in {}", self.text);
        }
        self.text
    }
}

fn provision(machine: &Machine, arguments: &str) -> Said {
    let output = machine
        .command("camcops-provision")
        .args(arguments.split_whitespace())
        .args(said_yes(arguments))
        .output()
        .unwrap();
    Said::of(output)
}

/// Nobody is there who could be asked.
fn said_yes(arguments: &str) -> Option<&'static str> {
    let words = ["install", "uninstall"];
    let is_asked = arguments.split_whitespace().any(|word| words.contains(&word));
    (is_asked && !arguments.contains("--yes")).then_some("--yes")
}

fn settings(machine: &Machine, text: &str) {
    machine.write("/etc/camcops/provision.toml", text, 0o640);
}
