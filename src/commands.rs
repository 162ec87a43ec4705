//! The commands, each a thin use of the engine.

pub(crate) mod backup;
pub(crate) mod bundle;
pub(crate) mod cert;
pub(crate) mod config;
pub(crate) mod db;
pub(crate) mod doctor;
pub(crate) mod documents;
mod environment;
pub(crate) mod exec;
mod exports;
pub(crate) mod init;
pub(crate) mod install;
pub(crate) mod logs;
pub(crate) mod package_hook;
pub(crate) mod ports;
pub(crate) mod purge;
pub(crate) mod releases;
pub(crate) mod scale;
pub(crate) mod secret;
pub(crate) mod services;
pub(crate) mod stats;
pub(crate) mod status;
pub(crate) mod superuser;
pub(crate) mod support;
pub(crate) mod traceback;
pub(crate) mod upgrade;
pub(crate) mod user;
pub(crate) mod wait;

use crate::base::stack::boxed;
use crate::base::terminal::Style;
use crate::cli::{Cli, Command};
use crate::commands::upgrade::rollback;
use crate::session::Session;
pub(crate) use crate::session::guards::{need_machine, need_root};
use anyhow::Result;

/// Runs a command; the number is its exit code.
pub async fn run(cli: Cli) -> Result<u8> {
    let global = &cli.global;
    let style = Style::of(global);
    match cli.command {
        Command::Init => init::run(global, style),
        Command::Install(flags) => boxed(|| package_hook::install(global, &flags, style)).await,
        Command::Plan(flags) => boxed(|| install::plan(global, &flags, style)).await,
        Command::Status(flags) => boxed(|| status::run(global, &flags, style)).await,
        Command::Doctor(flags) => boxed(|| doctor::run(global, &flags, style)).await,
        Command::Wait(flags) => boxed(|| wait::run(global, &flags, style)).await,
        Command::Login {
            socket,
            user,
            database,
        } => boxed(|| wait::login(&socket, &user, &database)).await,
        Command::Start(flags) => boxed(|| services::start(global, &flags, style)).await,
        Command::Stop(flags) => boxed(|| services::stop(global, &flags, style)).await,
        Command::Restart(flags) => boxed(|| services::restart(global, &flags, style)).await,
        Command::Reload(flags) => boxed(|| services::reload(global, &flags, style)).await,
        Command::Run { arguments } => boxed(|| exec::run(global, &arguments)).await,
        Command::Exec { words } => boxed(|| exec::exec(global, &words)).await,
        Command::Shell { as_root } => boxed(|| exec::shell(global, as_root)).await,
        Command::Bundle(command) => boxed(|| bundle::run(global, &command, style)).await,
        Command::Db(command) => boxed(|| db::run(global, &command, style)).await,
        Command::Logs(flags) => logs::run(global, &flags, style),
        Command::Cert(command) => boxed(|| cert::run(global, &command, style)).await,
        Command::Scale { wishes } => boxed(|| scale::scale(global, &wishes, style)).await,
        Command::Service(command) => boxed(|| scale::switch(global, &command, style)).await,
        Command::SupportBundle(flags) => support::run(global, &flags, style),
        Command::Traceback(flags) => boxed(|| traceback::run(global, &flags, style)).await,
        Command::Top(flags) => boxed(|| stats::top(global, &flags, style)).await,
        Command::Stats => boxed(|| stats::stats(global, style)).await,
        Command::Secret(command) => boxed(|| secret::run(global, &command, style)).await,
        Command::User(command) => boxed(|| user::run(global, &command, style)).await,
        Command::Backup(command) => boxed(|| backup::run(global, &command, style)).await,
        Command::WithEnvironment(flags) => environment::run(global, &flags),
        Command::BreakLocks => exports::break_locks(global, style),
        Command::CatchUp => exports::catch_up(global),
        Command::Upgrade(flags) => boxed(|| upgrade::run(global, &flags, style)).await,
        Command::Rollback(flags) => boxed(|| rollback::rollback(global, &flags, style)).await,
        Command::Releases(command) => boxed(|| releases::run(global, &command, style)).await,
        Command::Uninstall(flags) => boxed(|| package_hook::uninstall(global, &flags, style)).await,
        Command::Config(command) => config::run(global, command, style),
        Command::Paths => documents::paths(&Session::open(global)?, style),
        Command::Ports => ports::run(&Session::open(global)?, style),
        Command::Urls => documents::urls(&Session::open(global)?, style),
        Command::Completions { shell } => documents::completions(shell, style),
        Command::Man { directory } => documents::manual(&directory, style),
    }
}
