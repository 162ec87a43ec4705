//! What camcops.conf says to Celery. CamCOPS's own launchers would pass it on; here Celery is started without them.

use super::Draft;
use crate::base::error::Exit;
use crate::camcops_conf::Ini;
use crate::layout::{Whose, is_hidden, is_plain_path};
use crate::resource::{Facets, Part, Resource};
use crate::settings::{ConfigValue, Service};
use anyhow::Result;
use serde_json::json;

const WORKERS: &str = "CELERY_WORKER_EXTRA_ARGS";
const SCHEDULER: &str = "CELERY_BEAT_EXTRA_ARGS";
const SCHEDULE: &str = "CELERY_BEAT_SCHEDULE_DATABASE";
const LOCKS: &str = "EXPORT_LOCKDIR";
const DOWNLOADS: &str = "USER_DOWNLOAD_DIR";

/// Options that something else decides.
const DECIDED: [(&str, &str); 9] = [
    ("--concurrency", "workers.concurrency in the settings"),
    ("-c", "workers.concurrency in the settings"),
    ("--max-tasks-per-child", "workers.max_tasks_per_child in the settings"),
    ("--max-memory-per-child", "workers.max_memory_kb in the settings"),
    ("--pidfile", "the manager of the services"),
    ("--detach", "the manager of the services"),
    ("--schedule", "CELERY_BEAT_SCHEDULE_DATABASE"),
    ("-s", "CELERY_BEAT_SCHEDULE_DATABASE"),
    ("--app", "camcops-provision"),
];

/// What an argument may be made of, so that it is one for systemd and for a shell alike.
fn is_plain(argument: &str) -> bool {
    argument.starts_with('-') && argument.chars().all(|c| c.is_ascii_alphanumeric() || "-_=.,:/@+".contains(c))
}

/// The lines of a value that are passed on, and why others are not.
fn read_arguments(value: &str, is_ours: impl Fn(&str) -> bool) -> (Vec<String>, Vec<String>) {
    let (mut passed, mut refused) = (Vec::new(), Vec::new());
    for line in value.lines().map(str::trim).filter(|line| !line.is_empty() && !is_ours(line)) {
        let name = line.split(['=', ' ']).next().unwrap_or_default();
        match DECIDED.iter().find(|(option, _)| *option == name) {
            Some((_, who)) => refused.push(format!("{name} is set by {who}")),
            None if is_plain(line) => passed.push(line.to_owned()),
            None => {
                refused.push(format!("{line:?} is not an option like --name=value of A-Z a-z 0-9 - _ = . , : / @ +"))
            }
        }
    }
    (passed, refused)
}

impl Draft<'_> {
    /// Everything that camcops.conf says of Celery and of the directories that services write to.
    pub(super) fn celery(&mut self, config: &Ini) -> Result<()> {
        let workers = self.celery_arguments(config, WORKERS)?;
        let scheduler = self.celery_arguments(config, SCHEDULER)?;
        let layout = &self.site.layout;
        let (schedule, locks, downloads) = (layout.schedule(), layout.lock.clone(), layout.downloads.clone());
        let given = config.get("export", SCHEDULE).unwrap_or_default();
        let database = layout.schedule_at(&given).unwrap_or_else(|| schedule.clone());
        if database != given.trim() {
            self.refuse_path(SCHEDULE, &given)?;
        } else if database != schedule {
            let directory = database.rsplit_once('/').map_or("/", |(directory, _)| directory).to_owned();
            self.own_directory(SCHEDULE, &directory, &layout.state, &[Service::Scheduler]);
        }
        let users: [(&str, &str, String, &[Service]); 2] = [
            ("export", LOCKS, locks, &[Service::Server, Service::Workers]),
            ("site", DOWNLOADS, downloads, &[Service::Server, Service::Workers]),
        ];
        for (section, key, usual, services) in users {
            let directory = config.get(section, key).unwrap_or_default().trim().to_owned();
            if !directory.is_empty() {
                self.own_directory(key, &directory, &usual, services);
            }
        }
        self.view["workers"]["more_arguments"] = workers.into();
        let own = if database == schedule { "" } else { database.as_str() };
        self.view["scheduler"] = json!({ "schedule": database, "own_schedule": own, "more_arguments": scheduler });
        Ok(())
    }

    fn celery_arguments(&mut self, config: &Ini, key: &str) -> Result<Vec<String>> {
        let workers = &self.view["workers"];
        let ours = [
            "--pidfile=".to_owned(),
            format!("--concurrency={}", workers["concurrency"]),
            format!("--max-tasks-per-child={}", workers["max_tasks_per_child"]),
            format!("--max-memory-per-child={}", workers["max_memory_kb"]),
        ];
        let value = config.get("export", key).unwrap_or_default();
        let is_ours = |line: &str| ours.iter().any(|own| own == line);
        let (passed, refused) = read_arguments(&value, is_ours);
        let (_, of_settings) = read_arguments(&self.passed_through(key), is_ours);
        for why in refused {
            self.refuse_or_warn(key, &why, of_settings.contains(&why))?;
        }
        Ok(passed)
    }

    /// What the settings pass through into a key of `[export]`; empty for nothing.
    fn passed_through(&self, key: &str) -> String {
        let passed = self.site.settings().config.get("export").and_then(|values| values.get(key));
        match passed {
            Some(ConfigValue::Line(line)) => line.clone(),
            Some(ConfigValue::List(lines)) => lines.join("\n"),
            None => String::new(),
        }
    }

    /// What the settings pass through is refused; what somebody wrote into camcops.conf, and maybe long ago, is told.
    fn refuse_or_warn(&mut self, key: &str, why: &str, is_of_settings: bool) -> Result<()> {
        if is_of_settings {
            return Err(Exit::Settings.because(format!("config.export.{key}: {why}")));
        }
        let file = &self.site.layout.config;
        self.recipe.warnings.push(format!("{key} in {file}: {why}; it is ignored"));
        Ok(())
    }

    fn refuse_path(&mut self, key: &str, path: &str) -> Result<()> {
        let why =
            format!("{path:?} is not a file that the scheduler can write to, such as /srv/camcops/celerybeat-schedule");
        let is_of_settings = self.passed_through(key) == path;
        self.refuse_or_warn(key, &why, is_of_settings)
    }

    /// A directory of the administrator's choice, which the services' account gets and may write to.
    fn own_directory(&mut self, key: &str, directory: &str, usual: &str, services: &[Service]) {
        if directory == usual || directory.starts_with(&format!("{usual}/")) {
            return;
        }
        if !is_plain_path(directory) || is_hidden(directory) || is_emptied(directory) {
            let instead = format!("/srv/camcops/{}", key.to_ascii_lowercase());
            self.recipe.missing.push((
                Part::Services,
                format!(
                    "{key}: the services cannot write to {directory}, or it is emptied at boot: choose another directory, such as {instead}"
                ),
            ));
            return;
        }
        let is_there = matches!(self.host.look_into(directory), Ok(Some(_)));
        let facets = match is_there {
            true => Facets::new(),
            false => self.owned(Facets::new().with("type", "directory"), Whose::Service, "0700"),
        };
        let because = "camcops.conf names it, and services write there";
        self.want(Resource::Directory(directory.to_owned()), facets, Part::Configuration, because);
        self.more_directories.extend(services.iter().map(|service| (*service, directory.to_owned())));
    }
}

/// Whether nothing is left there after a boot.
fn is_emptied(directory: &str) -> bool {
    ["/var/lock", "/var/run"].iter().any(|top| directory == *top || directory.starts_with(&format!("{top}/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_decided_elsewhere_is_not_passed_on() {
        let value = "\n--concurrency=2\n--concurrency=9\n--prefetch-multiplier=1\n-Q\ncelery\n--x=$(id)\n--pidfile=\n--max-memory-per-child=100000";
        let (passed, refused) = read_arguments(value, |line| ["--concurrency=2", "--pidfile="].contains(&line));
        assert_eq!(passed, ["--prefetch-multiplier=1", "-Q"]);
        assert_eq!(refused.len(), 4, "{refused:?}");
        assert!(
            refused[0].contains("workers.concurrency") && refused[3].contains("workers.max_memory_kb"),
            "{refused:?}"
        );
        assert!(refused[1].contains("celery") && refused[2].contains("$(id)"), "{refused:?}");
    }
}
