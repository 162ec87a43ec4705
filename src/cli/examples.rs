//! Examples of each command, for its help and its manual page.

use clap::Command;

/// A command line, and what it is for.
pub(crate) type Example = (&'static str, &'static str);

/// The examples by command: `backup create` is a subcommand, and an empty name the program itself.
static EXAMPLES: &[(&str, &[Example])] = &[
    (
        "",
        &[
            ("camcops-provision plan", "show what an installation would do"),
            ("camcops-provision install", "install CamCOPS, or apply changed settings"),
            ("camcops-provision doctor", "find problems, and how to fix them"),
        ],
    ),
    ("init", &[("camcops-provision init", "answer some questions, before the first install")]),
    (
        "install",
        &[
            ("camcops-provision install", "show how much there is to do, ask, and do it"),
            ("camcops-provision install --yes --superuser admin --superuser-password-file /root/pw", "for scripts"),
            (
                "camcops-provision install --offline --bundle /srv/camcops.tar.zst",
                "on a machine without internet access",
            ),
        ],
    ),
    (
        "plan",
        &[
            ("camcops-provision plan --diff", "show also how each file would change"),
            ("camcops-provision --set web.https_port=8443 plan", "try out a setting"),
            ("camcops-provision plan --out /root/plan.json", "save the plan, for `install --plan /root/plan.json`"),
        ],
    ),
    (
        "status",
        &[
            ("camcops-provision status", "show services, versions, certificate and backups"),
            ("camcops-provision status --exit-code --json", "for scripts: exit status 2 if changes are pending"),
            ("camcops-provision status --html /root/status.html", "as one page for a browser, with plots"),
        ],
    ),
    (
        "doctor",
        &[
            ("camcops-provision doctor", "run all checks"),
            ("camcops-provision doctor web certificate", "run the checks of the web site and of the certificate"),
            ("camcops-provision doctor --end-to-end", "check the site as users see it"),
        ],
    ),
    (
        "vulnerabilities",
        &[("camcops-provision vulnerabilities --advisories /srv/osv", "check against a copy of osv.dev's data")],
    ),
    ("wait", &[("camcops-provision wait --for database,broker --timeout 60", "wait up to a minute for both")]),
    ("start", &[("camcops-provision start", "start all services")]),
    ("stop", &[("camcops-provision stop workers scheduler", "stop background tasks; the site stays available")]),
    ("restart", &[("camcops-provision restart server", "restart the web server of CamCOPS")]),
    ("reload", &[("camcops-provision reload", "restart what still runs with an old configuration")]),
    (
        "scale",
        &[
            ("camcops-provision scale server=8 workers=4", "set both"),
            ("camcops-provision scale server=auto", "as many as the machine can carry"),
            ("camcops-provision scale workers=2x4", "two services of workers with four processes each"),
        ],
    ),
    ("service enable", &[("camcops-provision service enable monitor", "start the monitor, now and at boot")]),
    ("service disable", &[("camcops-provision service disable monitor", "stop the monitor and no longer start it")]),
    (
        "maintenance on",
        &[
            ("camcops-provision maintenance on", "for one hour"),
            (
                "camcops-provision maintenance on --until 18:30 --message \"New disks are being built in.\"",
                "with a text",
            ),
            ("camcops-provision maintenance on --until 2h", "for two hours"),
        ],
    ),
    ("maintenance off", &[("camcops-provision maintenance off", "end it now")]),
    (
        "logs",
        &[
            ("camcops-provision logs server -f", "follow the log of the web server"),
            ("camcops-provision logs --since \"1 hour ago\"", "show the last hour of all services"),
        ],
    ),
    (
        "history",
        &[
            ("camcops-provision history --since yesterday", "show who did what since then"),
            ("camcops-provision history --verify", "check that nobody changed it"),
        ],
    ),
    ("top", &[("camcops-provision top", "watch what the services use; Ctrl+C ends it")]),
    ("stats", &[("camcops-provision stats --json", "for scripts")]),
    ("traceback", &[("camcops-provision traceback server", "see where the web server hangs")]),
    (
        "run",
        &[
            ("camcops-provision run -- --help", "show the commands of camcops_server"),
            ("camcops-provision run --foreground workers", "the workers with their log, until Ctrl-C"),
        ],
    ),
    ("exec", &[("camcops-provision exec -- env", "show the environment of the services")]),
    ("shell", &[("camcops-provision shell", "work as the account of the services")]),
    ("support-bundle", &[("camcops-provision support-bundle --out /root/support.tar.gz", "for a request for help")]),
    (
        "bundle create",
        &[("camcops-provision bundle create --out /srv/camcops.tar.zst", "on a machine with internet access")],
    ),
    ("bundle verify", &[("camcops-provision bundle verify /srv/camcops.tar.zst", "on the machine that it is for")]),
    ("db shell", &[("camcops-provision db shell", "open mariadb or mysql")]),
    (
        "db upgrade",
        &[
            ("camcops-provision db upgrade --show-sql", "show what would change"),
            ("camcops-provision db upgrade", "upgrade the tables"),
        ],
    ),
    ("db check", &[("camcops-provision db check", "check tables, collations and CamCOPS's index")]),
    (
        "db grant-readonly",
        &[("camcops-provision db grant-readonly --user analyst --host 10.0.0.5", "for a colleague's computer")],
    ),
    ("db reset", &[("camcops-provision db reset --confirm camcops", "start again with an empty test site")]),
    ("db anonymise", &[("camcops-provision db anonymise --to research", "create the database research")]),
    ("user superuser", &[("camcops-provision user superuser admin", "ask for a password and create admin")]),
    ("user reset-password", &[("camcops-provision user reset-password jo", "ask for a new password for jo")]),
    ("user enable", &[("camcops-provision user enable jo", "unlock jo")]),
    ("cert show", &[("camcops-provision cert show", "show names, authority, dates and fingerprints")]),
    ("cert csr", &[("camcops-provision cert csr > /root/request.csr", "send that file to the authority")]),
    (
        "cert install",
        &[
            (
                "camcops-provision cert install --cert /root/cert.pem --chain /root/chain.pem",
                "use what the authority sent back",
            ),
            ("camcops-provision cert install --pfx /root/cert.pfx", "use a file that Windows exported"),
        ],
    ),
    ("cert renew", &[("camcops-provision cert renew", "replace a self-signed certificate before it expires")]),
    ("cert verify", &[("camcops-provision cert verify", "check whether tablets accept the certificate")]),
    ("secret list", &[("camcops-provision secret list", "show where the passwords are, and how old")]),
    (
        "secret rotate",
        &[
            ("camcops-provision secret rotate database", "replace the database password"),
            ("camcops-provision secret rotate all", "replace all passwords"),
        ],
    ),
    (
        "backup create",
        &[
            ("camcops-provision backup create", "before a risky change"),
            ("camcops-provision backup create --out /root/dump.sql.gz", "only the database, as SQL"),
        ],
    ),
    ("backup list", &[("camcops-provision backup list", "show names, sizes and ages")]),
    ("backup verify", &[("camcops-provision backup verify", "test-load the latest backup")]),
    (
        "backup restore",
        &[
            ("camcops-provision backup restore latest --confirm camcops", "replace the data by the latest backup"),
            (
                "camcops-provision backup restore /mnt/nas/camcops-20261130 --confirm camcops",
                "install the site from a backup, on a new machine",
            ),
        ],
    ),
    ("backup prune", &[("camcops-provision backup prune --dry-run", "show which backups would be deleted")]),
    (
        "upgrade",
        &[
            ("camcops-provision upgrade --check", "show what an upgrade would do"),
            ("camcops-provision upgrade", "upgrade to the newest version"),
        ],
    ),
    ("rollback", &[("camcops-provision rollback", "return to the version before the last upgrade")]),
    ("releases list", &[("camcops-provision releases list", "show releases, sizes and what they are for")]),
    ("releases prune", &[("camcops-provision releases prune --dry-run", "show which releases would be removed")]),
    ("releases test", &[("camcops-provision releases test", "test the current release")]),
    (
        "uninstall",
        &[
            ("camcops-provision uninstall", "remove CamCOPS, but keep its data"),
            ("camcops-provision uninstall --purge --confirm camcops", "remove the data too, after a dump"),
        ],
    ),
    ("config show", &[("camcops-provision config show --changed", "show what differs from the defaults")]),
    ("config get", &[("camcops-provision config get web.https_port", "print one value")]),
    (
        "config set",
        &[
            ("camcops-provision config set web.https_port 8443", "change one setting; then run install"),
            ("camcops-provision config set config.site.EMAIL_HOST_PASSWORD", "ask for a secret and store it"),
        ],
    ),
    ("config unset", &[("camcops-provision config unset web.https_port", "return to the default")]),
    ("config edit", &[("camcops-provision config edit", "change several settings")]),
    ("config validate", &[("camcops-provision config validate", "check the settings before an install")]),
    (
        "config render",
        &[
            ("camcops-provision config render", "print camcops.conf"),
            ("camcops-provision config render --for nginx", "print what an nginx in front of the site needs"),
        ],
    ),
    ("config keys", &[("camcops-provision config keys | less", "read about all settings")]),
    ("paths", &[("camcops-provision paths", "show where configuration, data and logs are")]),
    ("urls", &[("camcops-provision urls", "show what to enter in browsers and tablets")]),
    ("ports", &[("camcops-provision ports", "show what a firewall has to let through")]),
    (
        "completions",
        &[(
            "camcops-provision completions bash > /etc/bash_completion.d/camcops-provision",
            "the Debian package has it already",
        )],
    ),
    ("man", &[("camcops-provision man /usr/local/share/man/man8", "the Debian package has them already")]),
];

/// The examples of one command.
pub(crate) fn examples_of(name: &str) -> &'static [Example] {
    EXAMPLES.iter().find(|(command, _)| *command == name).map_or(&[], |(_, examples)| examples)
}

/// Adds the examples to the help of a command and of all below it.
pub(super) fn add_examples(mut command: Command, name: &str) -> Command {
    let below: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    for sub in below {
        let whole = if name.is_empty() { sub.clone() } else { format!("{name} {sub}") };
        command = command.mut_subcommand(sub, |sub| add_examples(sub, &whole));
    }
    let said = command.get_after_help().map(|said| join_lines(&said.to_string()));
    let examples = examples_of(name);
    let lines: Vec<String> = examples.iter().map(|(line, what)| format!("  {line}\n          {what}")).collect();
    let shown = (!lines.is_empty()).then(|| format!("Examples:\n{}", lines.join("\n")));
    match said.into_iter().chain(shown).collect::<Vec<_>>().join("\n\n") {
        nothing if nothing.is_empty() => command,
        after => command.after_help(after),
    }
}

/// The same paragraphs without their line breaks: they are as wide as the terminal then.
fn join_lines(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|paragraph| paragraph.lines().collect::<Vec<_>>().join(" "));
    paragraphs.collect::<Vec<_>>().join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory;

    /// The words of a command line as a shell splits them, as far as examples need it.
    fn shell_words(line: &str) -> Vec<String> {
        let line = line.split(['>', '|']).next().unwrap_or_default();
        let quoted = line.split('"').enumerate();
        let words = quoted.flat_map(|(at, part)| match at % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect(),
            _ => vec![part.to_owned()],
        });
        words.collect()
    }

    fn command_names(command: &Command, name: &str) -> Vec<String> {
        let visible = command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help");
        let below: Vec<&Command> = visible.collect();
        if below.is_empty() {
            return vec![name.to_owned()];
        }
        let join = |sub: &str| if name.is_empty() { sub.to_owned() } else { format!("{name} {sub}") };
        below.iter().flat_map(|sub| command_names(sub, &join(sub.get_name()))).collect()
    }

    #[test]
    fn every_command_has_an_example_that_it_understands() {
        let names = command_names(&Cli::command(), "");
        for name in &names {
            assert!(!examples_of(name).is_empty(), "there is no example of {name}");
        }
        for (name, examples) in EXAMPLES {
            assert!(name.is_empty() || names.iter().any(|one| one == name), "there is no command {name}");
            for (line, what) in *examples {
                let words = shell_words(line);
                let parsed = Cli::command().try_get_matches_from(&words);
                assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
                assert!(words[1..].join(" ").contains(name), "{line} is no example of {name}");
                assert!(!what.ends_with('.') && line.len() <= 100, "{line}: {what}");
            }
        }
    }
}
