//! Other installations of CamCOPS on this machine.

use crate::base::kernel;
use crate::doctor::{Finding, Look, or_well};
use crate::host::processes;
use crate::layout::MANAGED;
use anyhow::Result;

/// What each of CamCOPS's own ways of starting has in its command line.
const PROGRAM: &str = "camcops_server";
/// Where its tasks are, as Celery is told.
const TASKS: &str = "camcops_server.cc_modules";
/// Where supervisor's programs are described, by both families of distributions.
const PROGRAMS: [&str; 2] = ["/etc/supervisor/conf.d", "/etc/supervisord.d"];
/// The package that CamCOPS offers itself.
const PACKAGE: &str = "camcops-server";

pub(crate) fn check_former(look: &Look<'_>) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    // Before an installation it is a hint: somebody may be about to move.
    let tell = |found: String, remedy: String| match look.before {
        true => Finding::warning(found, remedy),
        false => Finding::failed(found, remedy),
    };
    for pid in processes::all_processes() {
        if let Some(place) = foreign_place(look, pid) {
            let (found, remedy) = match place {
                FormerPlace::Container => (
                    format!("process {pid} is CamCOPS in a container"),
                    "docker ps   # and `docker compose down` in its directory".to_owned(),
                ),
                FormerPlace::Unit(unit) => (
                    format!("process {pid} is another CamCOPS, started by {unit}"),
                    match unit.starts_with("supervisor") {
                        true => "supervisorctl status   # and `supervisorctl stop NAME`".to_owned(),
                        false => format!("systemctl disable --now {unit}"),
                    },
                ),
                FormerPlace::Elsewhere => {
                    (format!("process {pid} is another CamCOPS, started by hand"), format!("kill {pid}"))
                }
            };
            findings.push(tell(found, remedy));
        }
    }
    let host = &look.site.host;
    for directory in PROGRAMS {
        for name in host.list(directory)?.unwrap_or_default() {
            let path = format!("{directory}/{name}");
            let text = host.read(&path).ok().flatten().unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let starts = text.lines().any(|line| {
                let line = line.trim();
                line.starts_with("command") && line.contains(PROGRAM)
            });
            if starts && !text.contains(MANAGED) {
                findings.push(tell(
                    format!("{path} starts another CamCOPS by supervisor"),
                    format!("mv {path} {path}.old && supervisorctl update"),
                ));
            }
        }
    }
    if host.stat(&format!("/var/lib/dpkg/info/{PACKAGE}.list"))?.is_some() {
        findings.push(Finding::warning(
            format!("the package {PACKAGE} is installed: it has its own supervisor programs"),
            format!("apt-get remove {PACKAGE}"),
        ));
    }
    Ok(or_well(findings, || Finding::ok("no other CamCOPS installation found")))
}

enum FormerPlace {
    Container,
    Unit(String),
    Elsewhere,
}

/// Whether a command line is CamCOPS's program, or Celery with its tasks; and not an editor of either.
fn is_camcops(words: &[String]) -> bool {
    let name = |at: usize| words.get(at).and_then(|word| word.rsplit('/').next());
    let Some(program) = name(0) else { return false };
    let runs = |names: &[&str]| names.iter().any(|name| program.starts_with(name));
    let is_interpreter = runs(&["python"]) || ["sh", "bash", "dash"].contains(&program);
    program == PROGRAM
        || is_interpreter && name(1) == Some(PROGRAM)
        || runs(&["python", "celery"]) && words.iter().any(|word| word.starts_with(TASKS))
}

/// Where a process of CamCOPS belongs that no instance of ours started; nothing for any other process.
fn foreign_place(look: &Look<'_>, pid: u32) -> Option<FormerPlace> {
    let words = processes::command_words(pid)?;
    let names = |part: &str| words.iter().any(|word| word.contains(part));
    // A run of our own command is no installation.
    if !is_camcops(&words) || names(&look.site.layout.venv) || names("camcops-provision") {
        return None;
    }
    let groups = kernel::read_process(pid, "cgroup")?;
    if ["docker", "containerd", "libpod"].iter().any(|name| groups.contains(name)) {
        return Some(FormerPlace::Container);
    }
    // The releases are called by the link or by what it leads to.
    if names(crate::layout::RELEASES) {
        return None;
    }
    Some(match processes::unit_of(pid) {
        Some(unit) if unit.starts_with("camcops-") => return None,
        Some(unit) => FormerPlace::Unit(unit),
        None => FormerPlace::Elsewhere,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_what_it_runs() {
        let is = |text: &str| is_camcops(&text.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert!(is("/venv/bin/python3.10 /venv/bin/camcops_server serve_gunicorn"));
        assert!(is("/usr/share/camcops/venv/bin/camcops_server launch_workers"));
        assert!(is("/venv/bin/python /venv/bin/celery --app camcops_server.cc_modules beat"));
        assert!(!is("vim /opt/camcops_server") && !is("less camcops_server") && !is(""));
        assert!(!is("grep -r camcops_server.cc_modules /etc"));
    }
}
