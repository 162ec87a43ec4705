//! `run`, `exec`, `shell`, `db shell`: a program in the surroundings of the services. Its exit code is ours, and nothing of
//! this program's own environment reaches it.
//!
//! It is not root's, and so it never has root's terminal: whoever has a terminal can type into it. It gets one of its own,
//! or none where its input comes from elsewhere.

use super::need_machine;
use crate::cli::Global;
use crate::error::Exit;
use crate::resource::tables;
use crate::settings::{Environment, Mode};
use crate::site::Site;
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::Command;
use tokio::signal::unix::{SignalKind, signal};

/// What a terminal needs to be drawn on, and what says where the clock is.
const KEPT: [&str; 4] = ["TERM", "COLORTERM", "TZ", "LINES"];
/// The clients of both families of database servers, by either of their names.
const CLIENTS: [&str; 2] = ["mariadb", "mysql"];

/// CamCOPS's own command that makes up patients and tasks.
const DEMONSTRATION: &str = "dev_add_dummy_data";

/// CamCOPS's own command.
pub async fn run(global: &Global, arguments: &[OsString]) -> Result<u8> {
    let site = open(global, "run a command of CamCOPS")?;
    if arguments.iter().any(|argument| argument == DEMONSTRATION)
        && site.settings().site.environment == Environment::Production
    {
        return Err(Exit::Settings.because(format!(
            "{DEMONSTRATION} puts invented patients among those of a site that is in use: where it is not, say so first with `camcops-provision config set site.environment test`",
        )));
    }
    camcops_server(&site, arguments).await
}

/// What `db upgrade` would have CamCOPS do to the tables.
pub async fn statements(global: &Global) -> Result<u8> {
    let site = open(global, "show what would change in the tables")?;
    let config = &site.layout.config;
    let arguments = ["upgrade_db", "--show_sql_only", "--config", config].map(OsString::from);
    camcops_server(&site, &arguments).await
}

async fn camcops_server(site: &Site, arguments: &[OsString]) -> Result<u8> {
    let program = format!("{}/bin/camcops_server", site.layout.venv);
    if !Path::new(&program).exists() {
        return Err(Exit::Unreachable.because(format!(
            "there is no CamCOPS at {}: run `camcops-provision install`",
            site.layout.venv
        )));
    }
    become_it(site, program.as_ref(), arguments, false).await
}

/// Any other program.
pub async fn exec(global: &Global, words: &[OsString]) -> Result<u8> {
    let site = open(global, "run a program as the services")?;
    let (program, arguments) = words.split_first().context("there is no program to run")?;
    become_it(&site, program, arguments, false).await
}

/// A shell.
pub async fn shell(global: &Global, as_root: bool) -> Result<u8> {
    let site = open(global, "open a shell")?;
    let bash = Path::new("/bin/bash").exists();
    let (program, arguments): (&str, &[OsString]) = match bash {
        // Its prompt says where one is; the files of the machine would set another.
        true => ("/bin/bash", &["--norc".into(), "-i".into()]),
        false => ("/bin/sh", &["-i".into()]),
    };
    become_it(&site, program.as_ref(), arguments, as_root).await
}

/// The client of the database, logged in as the application.
pub async fn database(global: &Global) -> Result<u8> {
    let site = open(global, "open the database")?;
    let client = CLIENTS
        .into_iter()
        .find_map(|name| which::which_in(name, Some("/usr/bin:/usr/local/bin"), "/").ok())
        .ok_or_else(|| {
            Exit::Unreachable.because(match site.settings().database.mode {
                Mode::Local => "the client of the database is not installed; run `camcops-provision install`",
                Mode::External => "the client of the database is not installed: on Debian its package is mariadb-client",
            })
        })?;
    let options = &site.layout.option_file;
    if site.host.look(options)?.is_none() {
        return Err(Exit::Unreachable.because(format!(
            "there is no {options}, which holds the application's login: run `camcops-provision install`"
        )));
    }
    let name = site.settings().database.name_or(&site.layout.slug);
    let arguments = [format!("--defaults-file={options}"), name.to_owned()].map(OsString::from);
    become_it(&site, client.as_os_str(), &arguments, false).await
}

fn open(global: &Global, what: &str) -> Result<Site> {
    need_machine(global, what)?;
    Site::load(global)
}

/// Runs it to its end.
async fn become_it(
    site: &Site,
    program: &OsStr,
    arguments: &[OsString],
    as_root: bool,
) -> Result<u8> {
    let application = tables::application(&site.host)?;
    let account = match as_root {
        true => "root",
        false => &application.account,
    };
    let (uid, gid) = site
        .host
        .accounts
        .owner(&format!("{account}:{account}"))
        .ok_or_else(|| {
            Exit::Unreachable.because(format!(
                "the account {account} does not exist: run `camcops-provision install`"
            ))
        })?;
    let home = format!("HOME={}", site.layout.state);
    let surroundings: &[&str] = match (as_root, io::stdin().is_terminal()) {
        (true, _) => &[],
        // It sets HOME anew.
        (false, true) => &[
            "/usr/sbin/runuser",
            "-u",
            "root",
            "--pty",
            "--",
            "/usr/bin/env",
            &home,
        ],
        (false, false) => &["/usr/bin/setsid"],
    };
    let words = surroundings.iter().chain(&["/usr/bin/setpriv"]);
    let mut words = words.map(OsString::from);
    let first = words.next().unwrap_or_default();
    let mut command = Command::new(&first);
    command
        .args(words)
        .args([format!("--reuid={uid}"), format!("--regid={gid}")])
        .args(["--init-groups", "--"])
        .arg(program)
        .args(arguments)
        .env_clear();
    for name in KEPT {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    for (name, value) in &application.environment {
        command.env(name, value);
    }
    command
        .env("USER", account)
        .env("LOGNAME", account)
        .env("PS1", format!("{} \\w \\$ ", site.layout.slug))
        .env(
            "PATH",
            format!(
                "{}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                site.layout.venv
            ),
        );
    if Path::new(&site.layout.state).is_dir() {
        command.current_dir(&site.layout.state);
    }
    let cannot = |why| anyhow::Error::new(why).context(format!("can't start {}", first.display()));
    if first != "/usr/bin/setsid" {
        return Err(cannot(command.exec()));
    }
    accompany(command, cannot).await
}

/// Passes on to a program without a terminal what the terminal tells this one.
async fn accompany(command: Command, cannot: impl Fn(io::Error) -> anyhow::Error) -> Result<u8> {
    let mut child = tokio::process::Command::from(command)
        .spawn()
        .map_err(cannot)?;
    let group = child.id().and_then(|pid| i32::try_from(pid).ok());
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut ends = signal(SignalKind::terminate())?;
    let mut hang_ups = signal(SignalKind::hangup())?;
    loop {
        let told = tokio::select! {
            status = child.wait() => {
                let status = status?;
                let code = status.code().or(status.signal().map(|signal| 128 + signal));
                return Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1));
            }
            _ = interrupts.recv() => Signal::SIGINT,
            _ = ends.recv() => Signal::SIGTERM,
            _ = hang_ups.recv() => Signal::SIGHUP,
        };
        if let Some(group) = group {
            let _ = killpg(Pid::from_raw(group), told);
        }
    }
}
