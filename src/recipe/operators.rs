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

impl Draft<'_> {
    pub(super) fn operators(&mut self) -> Result<()> {
        let Some(group) = &self.site.settings().operators.group else {
            return Ok(());
        };
        let because = "members operate the site with sudo";
        self.want(Resource::Group(group.as_str().to_owned()), Facets::new(), Part::Accounts, because);
        // sudo passes over names with a dot.
        let path = format!("/etc/sudoers.d/{}", self.site.layout.slug);
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
        "commands": commands.iter().map(|command| format!("{instance}{command}")).collect::<Vec<_>>(),
    })
}
