//! The manual pages: one per command, and the one of the settings file.

use crate::base::error::Exit;
use crate::base::report::Report;
use crate::cli::{Cli, examples_of};
use crate::host::named_file::{create_directory, write_output};
use crate::settings;
use anyhow::Result;
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use serde_json::json;
use std::fmt::Write as _;
use std::path::Path;

const PROGRAM: &str = "camcops-provision";

/// What a command ends with.
const EXIT_STATUS: &[(&str, &str)] = &[
    ("0", "Done, or nothing to do."),
    ("1", "Something failed. The message says what was done, what failed, and what to do next."),
    ("2", "Changes are pending (with --exit-code)."),
    ("64", "Wrong usage of the command line."),
    ("65", "Unusable input, such as a damaged backup or a certificate that does not match its key."),
    ("69", "A needed service or the network is unreachable, or this system is not supported."),
    ("73", "Something is in the way, such as a file that camcops-provision did not write."),
    ("74", "Input or output failed."),
    ("75", "Another run holds the lock."),
    ("77", "Permission denied; most commands need root."),
    ("78", "Invalid settings."),
];

const FILES: &[(&str, &str)] = &[
    ("/etc/camcops/provision.toml", "Settings, see provision.toml(5); for instance NAME provision_NAME.toml."),
    ("/etc/camcops/provision.d/*.toml", "More settings, merged in the order of their names."),
    ("/etc/camcops/camcops.conf", "Configuration of CamCOPS, written by install; your changes to it are kept."),
    ("/etc/camcops/secrets/", "Passwords and the cookie secret."),
    ("/var/lib/camcops-provision/", "Journal of what was changed, for uninstall."),
    ("/var/backups/camcops/", "Backups, unless backup.directory is set."),
];

/// Commands that belong together although their names do not say so.
const RELATED: &[(&str, &[&str])] = &[
    ("init", &["config", "install"]),
    ("install", &["plan", "status", "doctor", "uninstall"]),
    ("plan", &["install", "status"]),
    ("status", &["plan", "doctor", "stats"]),
    ("doctor", &["status", "logs", "support-bundle"]),
    ("vulnerabilities", &["doctor", "upgrade", "bundle-create"]),
    ("wait", &["start", "status"]),
    ("start", &["stop", "restart", "status", "logs"]),
    ("stop", &["start", "status"]),
    ("restart", &["reload", "status", "logs"]),
    ("reload", &["restart", "status"]),
    ("scale", &["stats", "service"]),
    ("service", &["scale", "status"]),
    ("maintenance", &["status", "stop", "restart"]),
    ("logs", &["status", "doctor", "traceback"]),
    ("top", &["stats", "status"]),
    ("stats", &["top", "status"]),
    ("traceback", &["logs", "restart"]),
    ("run", &["exec", "shell"]),
    ("exec", &["run", "shell"]),
    ("shell", &["exec", "db-shell"]),
    ("support-bundle", &["doctor", "logs"]),
    ("bundle", &["install"]),
    ("db", &["backup", "doctor"]),
    ("cert", &["doctor"]),
    ("secret", &["config"]),
    ("backup", &["db", "status"]),
    ("upgrade", &["rollback", "releases", "backup"]),
    ("rollback", &["upgrade", "releases"]),
    ("releases", &["upgrade", "rollback"]),
    ("uninstall", &["install", "backup"]),
    ("config", &["init", "plan", "install"]),
    ("paths", &["urls", "ports"]),
    ("urls", &["paths", "ports"]),
    ("ports", &["urls", "paths"]),
];

pub(crate) fn write_manual(directory: &Path) -> Result<Report> {
    let cannot = |why: std::io::Error| Exit::CannotCreate.because(format!("{}: {why}", directory.display()));
    create_directory(directory).map_err(cannot)?;
    let pages = manual_pages()?;
    for (name, page) in &pages {
        write_output(&directory.join(name), page).map_err(cannot)?;
    }
    let names: Vec<&String> = pages.iter().map(|(name, _)| name).collect();
    Ok(Report::new(json!({ "directory": directory.display().to_string(), "pages": names })))
}

fn manual_pages() -> Result<Vec<(String, Vec<u8>)>> {
    let mut pages = Vec::new();
    let mut command = without_help_command(Cli::command());
    command.build();
    collect_pages(&command, &[], &[], &mut pages)?;
    pages.push(("provision.toml.5".into(), settings_page().into_bytes()));
    Ok(pages)
}

/// There is no page about `help`.
fn without_help_command(command: Command) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    let command = command.disable_help_subcommand(true);
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, without_help_command))
}

fn collect_pages(
    command: &Command,
    path: &[&str],
    siblings: &[&str],
    pages: &mut Vec<(String, Vec<u8>)>,
) -> Result<()> {
    let name = page_name(path);
    let man = Man::new(command.clone())
        .title(&name)
        .section("8")
        .source(concat!("camcops-provision ", env!("CARGO_PKG_VERSION")))
        .manual("CamCOPS");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if command.get_arguments().any(|argument| !argument.is_hide_set()) {
        man.render_options_section(&mut page)?;
    }
    let below: Vec<&Command> = command.get_subcommands().filter(|sub| !sub.is_hide_set()).collect();
    if !below.is_empty() {
        man.render_subcommands_section(&mut page)?;
    }
    page.extend(own_sections(command, path, siblings).into_bytes());
    pages.push((format!("{name}.8"), page));
    let names: Vec<&str> = below.iter().map(|sub| sub.get_name()).collect();
    for sub in below {
        let path = [path, &[sub.get_name()]].concat();
        let siblings: Vec<&str> = match path.len() {
            // Those of the program itself are too many.
            1 => Vec::new(),
            _ => names.iter().copied().filter(|name| *name != sub.get_name()).collect(),
        };
        collect_pages(sub, &path, &siblings, pages)?;
    }
    Ok(())
}

fn page_name(path: &[&str]) -> String {
    std::iter::once(&PROGRAM).chain(path).copied().collect::<Vec<_>>().join("-")
}

/// Notes, exit status, files, examples, and what to read besides.
fn own_sections(command: &Command, path: &[&str], siblings: &[&str]) -> String {
    let said = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let (status, notes): (Vec<&str>, Vec<&str>) =
        said.split("\n\n").filter(|part| !part.is_empty()).partition(|part| part.starts_with("Exit status:"));
    let mut text = String::new();
    if !notes.is_empty() {
        let notes: Vec<String> = notes.iter().map(|note| escape_lines(note)).collect();
        let _ = writeln!(text, ".SH NOTES\n{}", notes.join("\n.PP\n"));
    }
    text.push_str(".SH EXIT STATUS\n");
    match status.as_slice() {
        [own, ..] if !path.is_empty() => {
            let own = own.trim_start_matches("Exit status:").trim();
            let _ =
                writeln!(text, "{}\n.PP\nOther values are those of\n.BR camcops\\-provision (8).", escape_lines(own));
        }
        _ => write_terms(&mut text, EXIT_STATUS),
    }
    text.push_str(".SH FILES\n");
    write_terms(&mut text, FILES);
    let examples = examples_of(&path.join(" "));
    if !examples.is_empty() {
        text.push_str(".SH EXAMPLES\n");
        write_terms(&mut text, examples);
    }
    text.push_str(".SH SEE ALSO\n");
    let pages = see_also(path, siblings);
    let pages: Vec<String> =
        pages.iter().map(|(name, section)| format!(".BR {} ({section})", escape_roff(name))).collect();
    let _ = writeln!(text, "{}", pages.join(",\n"));
    text
}

/// The pages to read besides one, by name and section.
fn see_also(path: &[&str], siblings: &[&str]) -> Vec<(String, u8)> {
    let mut pages = Vec::new();
    if let Some((_, above)) = path.split_last() {
        pages.extend((0..=above.len()).map(|depth| (page_name(&above[..depth]), 8)));
        pages.extend(siblings.iter().map(|name| (page_name(&[above, &[*name]].concat()), 8)));
    }
    let name = path.join("-");
    let related = RELATED.iter().find(|(one, _)| *one == name).map_or(&[][..], |(_, related)| related);
    pages.extend(related.iter().map(|name| (page_name(&[name]), 8)));
    pages.push(("provision.toml".to_owned(), 5));
    if path.is_empty() {
        pages.extend([("systemctl".to_owned(), 1), ("journalctl".to_owned(), 1)]);
    }
    pages
}

fn write_terms(text: &mut String, terms: &[(&str, &str)]) {
    for (term, meaning) in terms {
        let _ = writeln!(text, ".TP\n.B {}\n{}", escape_roff(term), escape_roff(meaning));
    }
}

fn escape_lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(escape_roff).collect();
    lines.join("\n")
}

/// A line as roff shows it, whatever is in it.
fn escape_roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

/// provision.toml(5), from the same table as everything else about the settings.
fn settings_page() -> String {
    let mut page = String::from(
        ".TH provision.toml 5\n.nh\n.SH NAME\nprovision.toml \\- settings of camcops\\-provision\n.SH DESCRIPTION\n\
         Settings in TOML, in /etc/camcops/provision.toml, or provision_NAME.toml for instance NAME; files in the\n\
         directory provision.d beside it are merged in, in the order of their names. Environment variables override\n\
         files, and \\fB\\-\\-set\\fR overrides both. Every key has a default. Passwords are never settings.\n\
         .PP\n\\fBinclude\\fR = [\\(dq/srv/site\\-config\\(dq] above all sections names files, directories (their files *.toml), or patterns\n\
         with * in the name of a file, of settings that provision.toml itself overrides. They must belong to root, too.\n",
    );
    let mut section = "";
    for key in settings::all_keys() {
        if key.section != section {
            section = key.section;
            let _ = writeln!(page, ".SH [{}]\n{}", section, escape_roff(key.section_doc));
        }
        let _ = writeln!(
            page,
            ".TP\n.B {}\n{}\n.br\nAllowed: {}. Default: {}. Example: {}. Environment: {}.",
            escape_roff(key.short_name()),
            escape_roff(key.doc),
            escape_roff(&key.allowed),
            escape_roff(&key.default),
            escape_roff(key.example),
            escape_roff(&key.variable())
        );
        if key.name == "services.extra" {
            page.push_str(".RS\n");
            for field in settings::EXTRA_FIELDS {
                let default =
                    field.default.map_or_else(|| "Required".to_owned(), |default| format!("Default: {default}"));
                let _ = writeln!(
                    page,
                    ".TP\n.B {}\n{}\n.br\nAllowed: {}. {}. Example: {}.",
                    escape_roff(field.name),
                    escape_roff(field.doc),
                    escape_roff(&(field.allowed)()),
                    escape_roff(&default),
                    escape_roff(field.example)
                );
            }
            page.push_str(".RE\n");
        }
    }
    page.push_str(
        ".SH [config]\nAnything under [config.site], [config.server], [config.export] and [config.\"recipient:NAME\"] is copied to\n\
         camcops.conf by key.\n.SH EXAMPLES\n.nf\n[web]\nserver_names = [\"camcops.example.org\"]\n\n\
         [backup]\ndirectory = \"/mnt/nas/camcops\"\nkeep_daily = 14\n.fi\n\
         .SH FILES\n.TP\n.B /usr/share/doc/camcops\\-provision/examples/provision.toml\n\
         Every key with its default (also printed by camcops\\-provision config keys).\n\
         .SH SEE ALSO\n.BR camcops\\-provision (8),\n.BR camcops\\-provision\\-config (8),\n.BR systemd.time (7),\n.BR crontab (5),\n.BR journald.conf (5)\n",
    );
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_command_has_a_page_and_every_setting_a_line() {
        let pages = manual_pages().unwrap();
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        assert!(names.contains(&"camcops-provision-config-set.8"), "{names:?}");
        let settings_page = settings_page();
        for key in settings::all_keys() {
            assert!(settings_page.contains(&key.variable().replace('-', "\\-")), "{}", key.name);
        }
    }

    /// Every NAME(SECTION) that a page names.
    fn references(page: &str) -> BTreeSet<String> {
        let plain = page.replace("\\-", "-").replace("\\fB", "").replace("\\fR", "").replace(" (", "(");
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let mut found = BTreeSet::new();
        for (at, _) in plain.match_indices('(') {
            let rest = &plain.as_bytes()[at..];
            let start = plain[..at].rfind(|c| !is_of_name(c)).map_or(0, |before| before + 1);
            if rest.get(1).is_some_and(u8::is_ascii_digit) && rest.get(2) == Some(&b')') && start < at {
                found.insert(format!("{}.{}", &plain[start..at], char::from(rest[1])));
            }
        }
        found
    }

    #[test]
    fn every_page_has_its_sections_and_names_only_pages_that_exist() {
        let others = ["systemctl.1", "journalctl.1", "systemd.time.7", "crontab.5", "journald.conf.5"];
        let pages = manual_pages().unwrap();
        let names: BTreeSet<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for (name, page) in &pages {
            let page = String::from_utf8_lossy(page);
            for section in ["NAME", "FILES", "EXAMPLES", "SEE ALSO", "EXIT STATUS"] {
                let heading = format!(".SH {section}\n");
                let quoted = format!(".SH \"{section}\"\n");
                let is_due = match section {
                    // Where there are subcommands, they have the examples.
                    "EXAMPLES" => name == "camcops-provision.8" || !page.contains(".SH SUBCOMMANDS"),
                    "EXIT STATUS" => name.ends_with(".8"),
                    _ => true,
                };
                assert!(!is_due || page.contains(&heading) || page.contains(&quoted), "{name}: {section}\n{page}");
            }
            for reference in references(&page) {
                let exists = names.contains(reference.as_str()) || others.contains(&reference.as_str());
                assert!(exists, "{name} names {reference}");
            }
        }
        assert!(references("see\n.BR camcops\\-provision\\-nothing (8)").contains("camcops-provision-nothing.8"));
    }
}
