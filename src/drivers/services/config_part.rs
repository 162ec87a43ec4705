//! The part of camcops.conf that a service reads. A change of another part is no reason to restart it.
//!
//! Beside the secrets stands a digest of that part, written again only when the part has changed. Where the configuration
//! still has it, the part is as old as that file; where it has not, somebody has changed it since, and it is as old as the
//! configuration.

use super::member::ServiceRole;
use crate::camcops_conf::Ini;
use crate::host::{Host, processes};
use crate::layout::Layout;
use anyhow::Result;
use ring::digest::{Context, SHA256};
use std::time::SystemTime;

/// The part that one service reads.
#[derive(Debug, Clone)]
pub(crate) struct ConfigPart {
    role: ServiceRole,
    config: String,
    /// Holds the digest. It tells something about secrets, so it lies beside them.
    pub(crate) digest: String,
}

impl ConfigPart {
    /// That of a service which reads less than the whole.
    pub(crate) fn of(layout: &Layout, service: &str, role: ServiceRole) -> Option<ConfigPart> {
        matches!(role, ServiceRole::Workers | ServiceRole::Scheduler | ServiceRole::Monitor).then(|| ConfigPart {
            role,
            config: layout.config.clone(),
            digest: format!("{}/{service}.conf-digest", layout.secrets),
        })
    }

    /// The digest for a configuration, in hexadecimal.
    pub(crate) fn digest_of(&self, config: &str) -> String {
        let mut digest = Context::new(&SHA256);
        for entry in Ini::parse(config).entries() {
            if is_read(self.role, &entry.section, &entry.key) {
                // No line of the file can contain the mark between them.
                for text in [&entry.section, &entry.key, &entry.value] {
                    digest.update(text.as_bytes());
                    digest.update(b"\0");
                }
            }
        }
        let digest = digest.finish();
        digest.as_ref().iter().map(|b| format!("{b:02x}")).collect()
    }

    /// When it last changed.
    pub(crate) fn changed(&self, host: &Host) -> Result<Option<SystemTime>> {
        let edited = processes::changed_time(&host.outside(&self.config))?;
        // Who may not read them sees the whole.
        let text = |path: &str| host.read_text(path).ok().flatten();
        let (Some(config), Some(known)) = (text(&self.config), text(&self.digest)) else {
            return Ok(edited);
        };
        match known.trim() == self.digest_of(&config) {
            true => processes::changed_time(&host.outside(&self.digest)),
            false => Ok(edited),
        }
    }
}

/// Whether a service reads a key: workers write links, and know the web server by these only; scheduler and monitor need
/// the broker and the schedule.
fn is_read(role: ServiceRole, section: &str, key: &str) -> bool {
    match role {
        ServiceRole::Workers => section != "server" || key.to_ascii_uppercase().starts_with("EXTERNAL_"),
        ServiceRole::Scheduler | ServiceRole::Monitor => section == "export",
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "[site]\nEMAIL_HOST = a\n[server]\nGUNICORN_NUM_WORKERS = 2\nEXTERNAL_SCRIPT_NAME =\n[export]\nCELERY_BROKER_URL = amqp\n[recipient:x]\nFILE = y\n";

    fn part(role: ServiceRole, directory: &str) -> ConfigPart {
        ConfigPart { role, config: format!("{directory}/camcops.conf"), digest: format!("{directory}/x.conf-digest") }
    }

    #[test]
    fn only_what_a_service_reads_counts() {
        for (from, to, concerned) in [
            ("WORKERS = 2", "WORKERS = 3", [false, false]),
            ("NAME =", "NAME = /camcops", [true, false]),
            ("HOST = a", "HOST = b", [true, false]),
            ("FILE = y", "FILE = z", [true, false]),
            ("amqp", "amqps", [true, true]),
        ] {
            let other = CONFIG.replace(from, to);
            for (role, concerned) in [ServiceRole::Workers, ServiceRole::Scheduler].into_iter().zip(concerned) {
                let part = part(role, "/");
                let differs = part.digest_of(CONFIG) != part.digest_of(&other);
                assert_eq!(differs, concerned, "{role:?}: {to}");
            }
        }
        assert!(
            ConfigPart::of(&Layout::new(&crate::layout::DEBIAN, "camcops"), "server", ServiceRole::Server).is_none()
        );
    }

    #[test]
    fn a_part_is_as_old_as_its_last_change() {
        let directory = tempfile::tempdir().unwrap();
        let part = part(ServiceRole::Workers, directory.path().to_str().unwrap());
        let host = Host::live().unwrap();
        let write = |path: &str, text: &str| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            std::fs::write(path, text).unwrap();
            processes::changed_time(path).unwrap()
        };
        let first = write(&part.config, CONFIG);
        assert_eq!(part.changed(&host).unwrap(), first);
        let second = write(&part.digest, &part.digest_of(CONFIG));
        assert_eq!(part.changed(&host).unwrap(), second);
        write(&part.config, &CONFIG.replace("WORKERS = 2", "WORKERS = 3"));
        assert_eq!(part.changed(&host).unwrap(), second);
        // Edited by hand, and back.
        let edited = write(&part.config, &CONFIG.replace("HOST = a", "HOST = b"));
        assert_eq!(part.changed(&host).unwrap(), edited);
        write(&part.config, CONFIG);
        assert_eq!(part.changed(&host).unwrap(), second);
    }
}
