//! What an administrator needs to know when a site has just been installed.

use crate::backup::summary::tell_schedule;
use crate::engine::{Action, Plan};
use crate::layout::DEFAULT_INSTANCE;
use crate::resource::Resource;
use crate::settings::{Frontend, Settings, TlsMode};
use crate::site::Site;

/// Whether a plan starts the site's web server for the first time.
pub(super) fn is_first(plan: &Plan) -> bool {
    plan.changes.iter().any(|planned| {
        let is_server = matches!(&planned.change.resource, Resource::Service(name) if name.starts_with("camcops") && name.contains("server"));
        is_server && planned.action == Action::Create
    })
}

/// Where to log in, what tablets need, and what is left to do.
pub(super) fn list_next_steps(site: &Site) -> Vec<(&'static str, String)> {
    describe_site(site.settings(), &site.instance, &site.url(), &site.names()[0])
}

fn describe_site(settings: &Settings, instance: &str, url: &str, name: &str) -> Vec<(&'static str, String)> {
    let tool = match instance {
        DEFAULT_INSTANCE => "camcops-provision".to_owned(),
        other => format!("camcops-provision --instance {other}"),
    };
    let login = match &settings.superuser.username {
        Some(name) => format!("{url}login as {}", name.as_str()),
        None => format!("{url}login, once `{tool} user superuser NAME` has created the first user"),
    };
    let path = format!("{}/api", settings.web.path.prefix());
    let tablets =
        format!("server address {name}, port {}, path {}", settings.web.public_port(), path.trim_start_matches('/'));
    let is_served = settings.web.frontend == Frontend::Apache || settings.web.own_https().is_some();
    let certificate = match (is_served, settings.tls.mode) {
        (false, _) => "that of the reverse proxy in front".to_owned(),
        (_, TlsMode::SelfSigned) => format!("self-signed, so browsers warn; better: `{tool} cert csr`"),
        (_, TlsMode::LocalCa) if settings.web.frontend == Frontend::Apache => {
            format!("of the site's own authority; browsers and tablets trust {url}camcops-authority.crt once")
        }
        (_, TlsMode::LocalCa) => {
            format!("of the site's own authority, which is to be trusted once: `{tool} cert show`")
        }
        (_, TlsMode::Files) => format!("from your files; `{tool} cert install` replaces it before it expires"),
        (_, TlsMode::Certbot) => "from certbot, which renews it".to_owned(),
    };
    let directory = settings.backup.directory.as_str();
    let backups = match settings.backup.schedule.given() {
        Some(when) => format!("{directory}, {}; copy them elsewhere too", tell_schedule(when, false)),
        None => format!("none are scheduled (backup.schedule); `{tool} backup create` makes one in {directory}"),
    };
    let has_mail = settings.config.get("site").is_some_and(|values| values.contains_key("EMAIL_HOST"));
    let mail = match has_mail {
        true => "by config.site.EMAIL_HOST".to_owned(),
        false => format!("not set up: config.site.EMAIL_HOST, and `{tool} install`"),
    };
    vec![
        ("log in", login),
        ("tablets", tablets),
        ("certificate", certificate),
        ("backups", backups),
        ("mail", mail),
        ("check", format!("`{tool} doctor --end-to-end`, as users see the site")),
        ("help", format!("`{tool} --help`")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_administrator_is_told_what_comes_next() {
        let settings = Settings::default();
        let told = |instance| {
            let rows = describe_site(&settings, instance, "https://camcops.example.org/", "camcops.example.org");
            rows.iter().map(|(name, what)| format!("{name}: {what}\n")).collect::<String>()
        };
        let said = told("camcops");
        for words in [
            "log in: https://camcops.example.org/login, once `camcops-provision user superuser NAME`",
            "tablets: server address camcops.example.org, port 443, path api",
            "certificate: self-signed",
            "backups: /var/backups/camcops, every day at 02:30",
            "mail: not set up",
            "doctor --end-to-end",
        ] {
            assert!(said.contains(words), "{words} is not in {said}");
        }
        // With the line before and the one after it, ten at most.
        assert!(said.lines().count() <= 8, "{said}");
        assert!(told("two").contains("`camcops-provision --instance two doctor --end-to-end`"));
    }
}
