//! `run`, `exec`, `shell`, `db shell`: a program in the surroundings of the services. Its exit code is ours, and nothing of
//! this program's own environment reaches it.
//!
//! It is not root's, and so it never has root's terminal: see `host::terminal`.

use super::{need_machine, open_installed, open_running};
use crate::base::error::Exit;
use crate::base::report::Report;
use crate::cli::Global;
use crate::drivers::sql::Power;
use crate::drivers::sql::copy::client::{ClientLogin, ClientPurpose};
use crate::drivers::tables;
use crate::host::pty::{StandardStreams, exit_code, run_apart};
use crate::host::take_over::become_program;
use crate::session::Session;
use crate::settings::{Environment, Mode};
use anyhow::{Context, Result};
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, ExitStatus};

const SETPRIV: &str = "/usr/bin/setpriv";
const ROOTS_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What a terminal needs to be drawn on, and what says where the clock is.
const KEPT: [&str; 4] = ["TERM", "COLORTERM", "TZ", "LINES"];
/// The clients of both families of database servers, by either of their names.
const CLIENTS: [&str; 2] = ["mariadb", "mysql"];

/// CamCOPS's own command that makes up patients and tasks.
const DEMONSTRATION: &str = "dev_add_dummy_data";

pub(crate) async fn run(global: &Global, arguments: &[OsString]) -> Result<Report> {
    let site = open_running(global, "run a command of CamCOPS")?;
    if arguments.iter().any(|argument| argument == DEMONSTRATION)
        && site.settings().site.environment == Environment::Production
    {
        return Err(Exit::Settings.because(format!(
            "{DEMONSTRATION} adds invented patients to a site that is in use; if this is a test site, run `camcops-provision config set site.environment test` first",
        )));
    }
    camcops_server(&site, arguments).await
}

/// What `db upgrade` would have CamCOPS do to the tables.
pub(crate) async fn run_statements(global: &Global) -> Result<Report> {
    let site = open_running(global, "show what would change in the tables")?;
    let config = &site.layout.config;
    let arguments = ["upgrade_db", "--show_sql_only", "--config", config].map(OsString::from);
    camcops_server(&site, &arguments).await
}

async fn camcops_server(site: &Session, arguments: &[OsString]) -> Result<Report> {
    let program = format!("{}/bin/camcops_server", site.layout.venv);
    if !Path::new(&program).exists() {
        return Err(Exit::Unreachable
            .because(format!("there is no CamCOPS at {}: run `camcops-provision install`", site.layout.venv)));
    }
    become_it(site, program.as_ref(), arguments, false).await
}

pub(crate) async fn run_program(global: &Global, words: &[OsString]) -> Result<Report> {
    let site = open_running(global, "run a program as the services")?;
    let (program, arguments) = words.split_first().context("there is no program to run")?;
    become_it(&site, program, arguments, false).await
}

pub(crate) async fn run_shell(global: &Global, as_root: bool) -> Result<Report> {
    let site = open_running(global, "open a shell")?;
    let bash = Path::new("/bin/bash").exists();
    let (program, arguments): (&str, &[OsString]) = match bash {
        // Its prompt says where one is; the files of the machine would set another.
        true => ("/bin/bash", &["--norc".into(), "-i".into()]),
        false => ("/bin/sh", &["-i".into()]),
    };
    become_it(&site, program.as_ref(), arguments, as_root).await
}

/// The client of the database, logged in as the application.
pub(crate) async fn run_database(global: &Global) -> Result<Report> {
    let site = open_running(global, "open the database")?;
    let client = CLIENTS
        .into_iter()
        .find_map(|name| which::which_in(name, Some("/usr/bin:/usr/local/bin"), "/").ok())
        .ok_or_else(|| {
            Exit::Unreachable.because(match site.settings().database.mode {
                Mode::Local => "the database client is not installed; run `camcops-provision install`",
                Mode::External => "the database client is not installed; on Debian its package is mariadb-client",
            })
        })?;
    let options = &site.layout.option_file;
    if site.host.stat(options)?.is_none() {
        return Err(Exit::Unreachable.because(format!(
            "there is no {options}, which contains the application's login: run `camcops-provision install`"
        )));
    }
    let name = site.settings().database.name_or(&site.layout.slug);
    let arguments = [format!("--defaults-file={options}"), name.to_owned()].map(OsString::from);
    become_it(&site, client.as_os_str(), &arguments, false).await
}

/// The client of the database, logged in as the administrator of the server.
pub(crate) async fn run_administrator(global: &Global) -> Result<Report> {
    need_machine(global, "open the database as its administrator")?;
    let site = open_installed(global)?;
    let ended = site.close_after(run_as_administrator(&site).await).await?;
    Ok(Report::of_code(exit_code(ended)))
}

async fn run_as_administrator(site: &Session) -> Result<ExitStatus> {
    let known = site.drivers.database()?;
    let server = &known.server;
    if server.power != Power::Administrator {
        return Err(Exit::Settings.because(format!(
            "--admin: the database server {} has an administrator of its own: set database.admin_defaults_file to an option file with that login, or leave --admin out",
            server.endpoint.address
        )));
    }
    let family = server.identity().await?.family;
    // Two may be open at the same time.
    let name = format!("shell-{}-{}", known.database, std::process::id());
    let login = ClientLogin::new(&site.host, &server.endpoint, family, &name)?;
    let program = login.program(ClientPurpose::Load)?;
    run_apart(StandardStreams::ours()?, program, |command| {
        command.args(login.arguments()).arg(&known.database).env_clear().current_dir("/");
        for name in KEPT {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.envs([
            ("HOME", "/root"),
            ("USER", "root"),
            ("LOGNAME", "root"),
            ("LANG", "C.UTF-8"),
            ("PATH", ROOTS_PATH),
        ]);
    })
    .await
}

async fn become_it(site: &Session, program: &OsStr, arguments: &[OsString], as_root: bool) -> Result<Report> {
    let application = site.drivers.application()?;
    let account = if as_root { "root" } else { &application.account };
    let (uid, gid) = site.host.accounts.owner(&format!("{account}:{account}")).ok_or_else(|| {
        Exit::Unreachable.because(format!("the account {account} does not exist: run `camcops-provision install`"))
    })?;
    let with = |command: &mut Command| {
        command
            .args([format!("--reuid={uid}"), format!("--regid={gid}")])
            .args(["--init-groups", "--"])
            .arg(program)
            .args(arguments);
        set_surroundings(command, site, application, account);
    };
    if as_root {
        let why = become_program(SETPRIV, with);
        return Err(anyhow::Error::new(why).context(format!("can't start {SETPRIV}")));
    }
    Ok(Report::of_code(exit_code(run_apart(StandardStreams::ours()?, SETPRIV, with).await?)))
}

/// With the environment and the directory of the services.
fn set_surroundings(command: &mut Command, site: &Session, application: &tables::Application, account: &str) {
    command.env_clear();
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
        .env("PATH", format!("{}/bin:{ROOTS_PATH}", site.layout.venv));
    if Path::new(&site.layout.state).is_dir() {
        command.current_dir(&site.layout.state);
    }
}
