//! What a service can do inside its sandbox: a copy of its unit runs a program that tries it.

use super::booted::Booted;
use serde_json::Value;
use std::fs;

const PROBE: &str = include_str!("sandbox.py");
/// Where a copy may be executed.
const HOME: &str = "/usr/local/lib/sandbox.py";

/// What was found in one.
#[derive(Debug)]
pub struct Sandbox(Value);

impl Sandbox {
    /// Tries it in the surroundings of a service: as the unit file and its drop-ins have it, with another command.
    pub fn of(machine: &Booted, service: &str) -> Sandbox {
        fs::write(machine.path(HOME), PROBE).unwrap();
        run_copy(machine, service, &format!("/usr/bin/python3 -I {HOME}"), "start");
        let said = machine.run("cat /var/log/probe.out");
        let found = serde_json::from_str(&said);
        let complaint = machine.run("cat /var/log/probe.err");
        Sandbox(found.unwrap_or_else(|why| panic!("{service}: {why}: {said}{complaint}")))
    }

    /// The names of one kind.
    pub fn all(&self, kind: &str) -> Vec<&str> {
        let names = self.0[kind].as_array().unwrap().iter();
        names.map(|name| name.as_str().unwrap()).collect()
    }
}

/// Starts a copy of a service's unit with another command; `verb` is start, or `start --no-block` for what goes on.
pub fn run_copy(machine: &Booted, service: &str, command: &str, verb: &str) {
    let units = "/run/systemd/system";
    let name = format!("camcops-{service}@");
    machine.run(&format!(
        "of=/etc/systemd/system/{name}.service
         [ -e $of ] || of=/etc/systemd/system/{name}camcops.service
         sed /^PartOf=/d $of > {units}/probe-{name}.service
         mkdir -p {units}/probe-{name}camcops.service.d
         cp /etc/systemd/system/{name}camcops.service.d/* {units}/probe-{name}camcops.service.d 2> /dev/null || true
         printf '%s\\n' '[Unit]' ConditionPathExists= ConditionFileIsExecutable= '[Service]' Type=oneshot Restart=no ExecStartPre= ExecStart= 'ExecStart={command}' \\
             StandardOutput=truncate:/var/log/probe.out StandardError=truncate:/var/log/probe.err TimeoutStartSec=infinity \\
             > {units}/probe-{name}camcops.service.d/99-probe.conf
         systemctl daemon-reload
         systemctl {verb} probe-{name}camcops.service || {{ cat /var/log/probe.err >&2; exit 1; }}"
    ));
}
