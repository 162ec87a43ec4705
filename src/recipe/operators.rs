//! What a group of operators may do without being root: one file for sudo.

use super::*;
use crate::layout::DEFAULT_INSTANCE;
use serde_json::{Value, json};

/// What they may run as it stands here. None of it takes a file or a setting: with one, root would read or write what an
/// operator names.
const LOOKS: [&str; 18] = [
    "status",
    "status --json",
    "status --exit-code",
    "doctor",
    "doctor --json",
    "doctor --end-to-end",
    "doctor --monitoring",
    "vulnerabilities",
    "top",
    "stats",
    "stats --json",
    "urls",
    "ports",
    "paths",
    "cert show",
    "releases list",
    "backup list",
    "backup create",
];

/// Where sudo has its own settings.
const SUDOERS: &str = "/etc/sudoers";
/// Where root's programs are.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Whether a sudoers file gives everybody's commands a search path of its own, as Debian's does.
fn has_secure_path(sudoers: &str) -> bool {
    let defaults = sudoers.lines().filter_map(|line| line.trim_start().strip_prefix("Defaults"));
    // With anything but space behind it, it is for some users, hosts or commands.
    defaults
        .filter(|rest| rest.starts_with(char::is_whitespace))
        .any(|rest| rest.split(',').any(|one| one.split('=').next().is_some_and(|name| name.trim() == "secure_path")))
}

impl Draft<'_> {
    pub(super) fn operators(&mut self) -> Result<()> {
        let Some(group) = &self.site.settings().operators.group else {
            return Ok(());
        };
        let because = "members operate the site with sudo";
        self.want(Resource::Group(group.as_str().to_owned()), Facets::new(), Part::Accounts, because);
        // sudo passes over names with a dot.
        let path = format!("/etc/sudoers.d/{}", self.site.layout.slug);
        // Without it the programs that a command starts would be looked for where the operator says.
        if self.host.read_text(SUDOERS)?.is_some_and(|text| !has_secure_path(&text)) {
            self.view["operators"]["search_path"] = SEARCH_PATH.into();
        }
        let text = self.rendered(Format::Plain, template!("sudoers.hbs"))?;
        let (whose, part, shown) = (Whose::Root, Part::Services, Shown::Whole);
        self.text(Text { path: &path, text, whose, mode: "0440", part, because: "what operators may run", shown });
        Ok(())
    }
}

/// What the template can say of them.
pub(super) fn view_of_operators(site: &Site) -> Value {
    let settings = site.settings();
    let services = settings.services.names();
    let mut commands: Vec<String> = LOOKS.iter().map(|command| (*command).to_owned()).collect();
    for verb in ["logs", "logs -f", "logs --follow", "restart"] {
        commands.push(verb.to_owned());
        commands.extend(services.iter().map(|service| match verb.split_once(' ') {
            Some((verb, flag)) => format!("{verb} {service} {flag}"),
            None => format!("{verb} {service}"),
        }));
    }
    let instance = match site.instance.as_str() {
        DEFAULT_INSTANCE => String::new(),
        other => format!("--instance {other} "),
    };
    json!({
        "group": settings.operators.group.as_ref().map_or("", |group| group.as_str()),
        "tool": crate::layout::TOOL,
        "search_path": "",
        "commands": commands.iter().map(|command| format!("{instance}{command}")).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::has_secure_path;

    #[test]
    fn a_search_path_for_some_is_none() {
        let debian = "Defaults\tenv_reset\nDefaults\tsecure_path=\"/usr/sbin:/usr/bin\"\n";
        assert!(has_secure_path(debian));
        assert!(has_secure_path("Defaults env_reset, secure_path = /usr/bin"));
        for missing in
            ["", "#Defaults secure_path=/usr/bin", "Defaults:anne secure_path=/usr/bin", "Defaults !secure_path"]
        {
            assert!(!has_secure_path(missing), "{missing}");
        }
    }
}
