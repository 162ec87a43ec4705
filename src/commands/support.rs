//! `support-bundle`: what somebody who helps needs to know of a site, without a secret and without anything of a patient.
//!
//! What other commands tell is told here by those commands: one that fails is a finding too, and takes no other with it.
//! Of logs only known words leave the machine.

mod safe;

use super::open_running;
use crate::base::error::Exit;
use crate::base::prompt::{Enter, Question, ask_to_agree};
use crate::base::report::Report;
use crate::base::terminal::{self, Style};
use crate::camcops_conf::kept::mask_secrets;
use crate::cli::{Global, Support};
use crate::doctor::LOG_ENDS;
use crate::drivers::services::KEEPS_FAILING;
use crate::drivers::services::member::list_members;
use crate::session::Session;
use crate::settings::Service;
use crate::site::facts::Manager;
use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;
use time::OffsetDateTime;
use time::macros::format_description;
use zeroize::Zeroizing;

/// Lines of each log.
const LINES: &str = "3000";
/// Packages that matter to a site.
const PACKAGES: [&str; 12] = [
    "apache2*",
    "camcops*",
    "erlang-base",
    "libmagickwand*",
    "libmariadb3",
    "libmysqlclient*",
    "mariadb-server*",
    "mysql-server*",
    "python3*",
    "rabbitmq-server",
    "supervisor",
    "systemd",
];
/// What other commands of this program tell.
const TOLD: [(&str, &[&str]); 10] = [
    ("status.json", &["--json", "status"]),
    ("plan.json", &["--json", "plan"]),
    ("settings.json", &["--json", "config", "show"]),
    ("problems.json", &["--json", "config", "validate"]),
    ("paths.json", &["--json", "paths"]),
    ("urls.json", &["--json", "urls"]),
    ("ports.json", &["--json", "ports"]),
    ("doctor.json", &["--json", "doctor"]),
    ("stats.json", &["--json", "stats"]),
    ("traceback.txt", &["traceback"]),
];
/// What the machine tells.
const MACHINE: [&[&str]; 4] = [&["uname", "-a"], &["uptime"], &["free", "-m"], &["df", "-hT"]];

/// A file of the bundle.
struct Piece {
    name: String,
    text: String,
}

impl Piece {
    fn new(name: &str, text: String) -> Piece {
        Piece { name: name.to_owned(), text }
    }
}

/// Collects it, shows what it is, and writes it.
pub(crate) fn run(global: &Global, flags: &Support) -> Result<Report> {
    let site = open_running(global, "collect data for support")?;
    let now = OffsetDateTime::now_utc();
    let name = format!(
        "camcops-support-{}-{}",
        site.layout.slug,
        now.format(format_description!("[year][month][day]T[hour][minute][second]Z"))?
    );
    let out = match &flags.out {
        Some(path) => std::path::absolute(path)?,
        None => std::env::current_dir()?.join(format!("{name}.tar.gz")),
    };
    let out = out.to_str().context("--out: the name of the file is not UTF-8")?;
    if site.host.stat(out)?.is_some() {
        return Err(Exit::CannotCreate.because(format!("{out} exists already; choose another name")));
    }
    let directory = out.rsplit_once('/').map_or("/", |(directory, _)| directory);
    if !directory.is_empty() && site.host.look_into(directory)?.is_none() {
        return Err(Exit::CannotCreate
            .because(format!("--out {out}: there is no directory {directory}; create it, or choose another file")));
    }
    let mut pieces = collect_pieces(&site, global)?;
    let hidden = hide_secrets(&mut pieces, &read_secrets(&site)?);
    let list = list_pieces(&pieces, hidden);
    if !global.json && !global.quiet {
        terminal::print(&list)?;
    }
    let what = format!("Write this to {out}");
    ask_to_agree(&Question::new(&what, Enter::Yes), flags.yes, site.style)?;
    pieces.insert(0, Piece::new("README", list));
    let bytes = pack_pieces(&name, &pieces, now.unix_timestamp())?;
    site.host.put_file(out, &bytes, Some((0, 0)), 0o600)?;
    let names: Vec<&str> = pieces.iter().map(|piece| piece.name.as_str()).collect();
    Ok(Report::new(json!({ "instance": site.instance, "file": out, "contents": names }))
        .with_line(format!("{out} is written; only root can read it")))
}

fn list_pieces(pieces: &[Piece], hidden: usize) -> String {
    let mut text = "Contents (no passwords, keys or patient data; of the logs only times, places in the code and known messages of the services):\n".to_owned();
    for Piece { name, text: content } in pieces {
        let _ = writeln!(text, "  {:>9}  {name}", content.len());
    }
    if hidden > 0 {
        let _ = writeln!(
            text,
            "a password was found where none should be: {}, masked here; please report this to the maintainers of camcops-provision",
            terminal::count_of(hidden, "time")
        );
    }
    text
}

fn collect_pieces(site: &Session, global: &Global) -> Result<Vec<Piece>> {
    let machine = MACHINE.map(|words| program_output(site, words[0], &words[1..])).concat();
    let mut pieces = vec![
        Piece::new("versions.txt", list_versions(site)),
        Piece::new("machine.txt", machine),
        Piece::new("services.txt", list_services(site)),
    ];
    for (name, arguments) in TOLD {
        tell_piece(site.style, name);
        pieces.push(Piece::new(name, without_log(run_ourselves(site, global, arguments)?)));
    }
    for (name, path) in [("camcops.conf", site.layout.config.clone()), ("apache-site.conf", site.layout.apache_site())]
    {
        let text = match site.host.read_text(&path) {
            Ok(Some(text)) => mask_secrets(&text),
            Ok(None) => format!("there is no {path}\n"),
            Err(why) => format!("{why:#}\n"),
        };
        pieces.push(Piece::new(name, text));
    }
    for service in Service::ALL {
        if !site.settings().services.wants(*service) {
            continue;
        }
        let name = format!("logs/{}.txt", service.as_str());
        tell_piece(site.style, &name);
        let told = run_ourselves(site, global, &["--json", "logs", service.as_str(), "-n", LINES])?;
        pieces.push(Piece::new(&name, service_log(&told)));
    }
    let log = format!("{}/{}_error.log", site.layout.apache_logs, site.layout.slug);
    let lines = program_output(site, "tail", &["-n", LINES, "--", &log]);
    let lines = lines.lines().filter_map(safe::safe_apache_line).fold(String::new(), |all, line| all + &line + "\n");
    pieces.push(Piece::new("logs/apache.txt", lines));
    Ok(pieces)
}

fn tell_piece(style: Style, name: &str) {
    if !style.quiet && !style.json {
        terminal::print_note(&format!("  collecting {name}"));
    }
}

fn list_versions(site: &Session) -> String {
    let mut text =
        format!("camcops-provision {}\n{}\n{:?}\n", env!("CARGO_PKG_VERSION"), site.facts.distribution, site.manager());
    if let Ok(Some(release)) = site.host.read_link(&site.layout.venv) {
        let _ = writeln!(text, "release {release}");
    }
    if site.facts.flavour.name == "debian" {
        let format = "--showformat=${db:Status-Abbrev} ${Package} ${Version}\n";
        let mut arguments = vec!["--show", format, "--"];
        arguments.extend(PACKAGES);
        // It complains of each pattern that fits nothing.
        if let Ok(ended) = site.host.child("dpkg-query").args(arguments).end() {
            text += &ended.output;
        }
    }
    text
}

/// What a program says, under its own name.
fn program_output(site: &Session, program: &str, arguments: &[&str]) -> String {
    let heading = format!("$ {program} {}\n", arguments.join(" "));
    match site.host.child(program).args(arguments).end() {
        Ok(ended) => format!("{heading}{}{}\n", ended.output, ended.complaint),
        Err(why) => format!("{heading}{why:#}\n"),
    }
}

fn list_services(site: &Session) -> String {
    let names: Vec<String> = list_members(site).into_iter().map(|member| member.name).collect();
    match site.manager() {
        Manager::Systemd => {
            let mut arguments = vec!["--no-pager", "--full", "--lines=0", "status", "--"];
            arguments.extend(names.iter().map(String::as_str));
            program_output(site, "systemctl", &arguments)
        }
        Manager::Supervisor => program_output(site, "supervisorctl", &["status"]),
    }
}

/// What this program tells, asked as whoever runs this asked it.
fn run_ourselves(site: &Session, global: &Global, arguments: &[&str]) -> Result<String> {
    let program = std::env::current_exe()?;
    let program = program.to_str().context("this program's name is not UTF-8")?;
    let mut all = vec![format!("--instance={}", global.instance)];
    if let Some(config) = &global.config {
        all.push(format!("--config={}", std::path::absolute(config)?.display()));
    }
    all.extend(global.set.iter().map(|assignment| format!("--set={assignment}")));
    all.extend(arguments.iter().map(|word| (*word).to_owned()));
    Ok(match site.host.child(program).args(all).end() {
        Ok(ended) => ended.output + &ended.complaint,
        Err(why) => format!("{why:#}\n"),
    })
}

/// What was told, without the lines of logs that a check found worth telling.
fn without_log(told: String) -> String {
    if !told.contains(LOG_ENDS) && !told.contains(KEEPS_FAILING) {
        return told;
    }
    match serde_json::from_str(&told) {
        Ok(mut document) => {
            mask_log_lines(&mut document);
            format!("{document:#}\n")
        }
        // Nothing is better than what nobody has looked at.
        Err(_) => "it contains log lines, and can't be read\n".to_owned(),
    }
}

/// Leaves known words alone of the lines of logs in a document.
pub(super) fn mask_log_lines(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some((found, line)) = before_log(text) {
                *text = match safe::safe_service_line(line) {
                    Some(line) => format!("{found}{line}"),
                    None => found.to_owned(),
                };
            }
        }
        Value::Array(all) => all.iter_mut().for_each(mask_log_lines),
        Value::Object(all) => all.values_mut().for_each(mask_log_lines),
        _ => {}
    }
}

/// What stands before a line of a log, and that line.
fn before_log(text: &str) -> Option<(&str, &str)> {
    let ends = text.find(LOG_ENDS).map(|at| at + LOG_ENDS.len());
    let fails = text.find(KEEPS_FAILING).and_then(|at| Some(at + text[at..].find(": ")? + 2));
    let at = ends.into_iter().chain(fails).min()?;
    text.split_at_checked(at)
}

fn service_log(told: &str) -> String {
    let document: Value = serde_json::from_str(told).unwrap_or_default();
    let Some(lines) = document["lines"].as_array() else {
        return told.to_owned();
    };
    let mut text = String::new();
    for line in lines {
        if let Some(message) = line["message"].as_str().and_then(safe::safe_service_line) {
            let time = line["time"].as_str().unwrap_or_default();
            let _ = writeln!(text, "{time} {message}");
        }
    }
    text
}

/// Every secret of the site.
fn read_secrets(site: &Session) -> Result<Vec<Zeroizing<String>>> {
    let settings = site.settings();
    let mut files: Vec<String> = site
        .host
        .list(&site.layout.secrets)?
        .unwrap_or_default()
        .iter()
        .map(|name| format!("{}/{name}", site.layout.secrets))
        .collect();
    let given = [
        &settings.database.password_file,
        &settings.broker.password_file,
        &settings.monitor.password_file,
        &settings.superuser.password_file,
    ];
    let of_readers = settings.database.readers().filter_map(|reader| reader.password_file);
    files.extend(given.into_iter().flatten().chain(of_readers).map(|path| path.as_str().to_owned()));
    let mut secrets = Vec::new();
    for file in files {
        if !Path::new(&file).is_file() {
            continue;
        }
        if let Some(text) = site.host.read(&file)? {
            let text = Zeroizing::new(String::from_utf8_lossy(&text).into_owned());
            let secret = text.trim();
            // A shorter one would be found everywhere.
            if secret.len() >= 6 {
                secrets.push(Zeroizing::new(secret.to_owned()));
            }
        }
    }
    Ok(secrets)
}

/// Masks what should not be there in the first place; says how often that was so.
fn hide_secrets(pieces: &mut [Piece], secrets: &[Zeroizing<String>]) -> usize {
    let mut hidden = 0;
    for piece in pieces {
        for secret in secrets {
            let times = piece.text.matches(secret.as_str()).count();
            if times > 0 {
                piece.text = piece.text.replace(secret.as_str(), "********");
                hidden += times;
            }
        }
    }
    hidden
}

fn pack_pieces(folder: &str, pieces: &[Piece], now: i64) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for piece in pieces {
        let mut header = tar::Header::new_gnu();
        header.set_size(piece.text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(now)?);
        let path = format!("{folder}/{}", piece.name);
        archive.append_data(&mut header, path, piece.text.as_bytes())?;
    }
    Ok(archive.into_inner()?.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_that_stands_where_none_should_is_masked_and_told() {
        let piece = |text: &str| Piece::new("a", text.into());
        let mut pieces = [piece("x hushhush y hushhush"), piece("nothing")];
        let secrets = [Zeroizing::new("hushhush".to_owned())];
        assert_eq!(hide_secrets(&mut pieces, &secrets), 2);
        assert_eq!(pieces[0].text, "x ******** y ********");
        assert!(list_pieces(&pieces, 2).contains("2 times"));
        assert!(!list_pieces(&pieces, 0).contains("stood"));
    }

    #[test]
    fn what_a_check_tells_of_a_log_is_known_words_alone() {
        let told = |line: &str| {
            let finding = json!({ "checks": [{ "found": format!("workers failed{LOG_ENDS}{line}") }] });
            without_log(finding.to_string())
        };
        let exception = told("ValueError: Alice Doe, born 1970");
        assert!(exception.contains("ValueError: …") && !exception.contains("Alice"));
        assert!(!told("Patient Alice Doe").contains("Alice"));
        let failing = json!({ "trouble": "keeps failing (3 restarts): ValueError: Alice: Doe" });
        let failing = without_log(failing.to_string());
        assert!(failing.contains("(3 restarts): ValueError: …") && !failing.contains("Alice"));
        assert_eq!(without_log("no log".into()), "no log");
        let cut = without_log(format!("{{ {LOG_ENDS}Alice"));
        assert!(!cut.contains("Alice"), "{cut}");
    }

    #[test]
    fn a_log_that_can_t_be_read_tells_why() {
        assert_eq!(service_log("error: no journal\n"), "error: no journal\n");
        let log = r#"{"lines":[{"time":"now","message":"Patient Alice"},{"time":"then","message":"Traceback (most recent call last):"}]}"#;
        assert_eq!(service_log(log), "then Traceback (most recent call last):\n");
    }
}
