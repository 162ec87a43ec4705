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
mod foreground;
mod history;
pub(crate) mod init;
pub(crate) mod install;
pub(crate) mod logs;
pub(crate) mod maintenance;
mod overview;
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
pub(crate) mod vulnerabilities;
pub(crate) mod wait;
pub(crate) mod watch;

use crate::base::error::Exit;
use crate::base::progress;
use crate::base::report::Report;
use crate::base::stack::box_future;
use crate::base::terminal::{self, Style};
use crate::cli::{Cli, Command, Global};
use crate::commands::upgrade::rollback;
use crate::host::take_over::become_program;
use crate::layout::DEFAULT_INSTANCE;
use crate::session::Session;
pub(crate) use crate::session::guards::{
    begin_change, load_site, need_machine, need_root, open_installed, open_running, refuse_unknown_distribution,
};
use anyhow::Result;
use std::process;

/// Runs a command and tells what came of it; the number is its exit code.
pub async fn run(cli: Cli) -> Result<u8> {
    let style = Style::of(&cli.global);
    progress::show_as(cli.global.progress, style.quiet || style.json);
    if cli.global.instance != DEFAULT_INSTANCE {
        terminal::speak_of_instance(&cli.global.instance);
    }
    let begun = history::remember(&cli.global, &cli.command);
    let result = match do_command(&cli.global, cli.command).await {
        Ok(report) => report.print(style),
        Err(why) => Err(why),
    };
    history::remember_end(begun, &result);
    result
}

async fn do_command(global: &Global, command: Command) -> Result<Report> {
    match command {
        Command::Init => init::run(global),
        Command::Install(flags) => box_future(|| package_hook::install_or_queue(global, &flags)).await,
        Command::Plan(flags) => box_future(|| install::make_plan_report(global, &flags)).await,
        Command::Status(flags) => box_future(|| status::run(global, &flags)).await,
        Command::Doctor(flags) => box_future(|| doctor::run(global, &flags)).await,
        Command::Vulnerabilities(flags) => vulnerabilities::run(global, &flags),
        Command::Wait(flags) => box_future(|| wait::run(global, &flags)).await,
        Command::Login { socket, user, database } => box_future(|| wait::try_login(&socket, &user, &database)).await,
        Command::Start(flags) => box_future(|| services::start_services(global, &flags)).await,
        Command::Stop(flags) => box_future(|| services::stop_services(global, &flags)).await,
        Command::Restart(flags) => box_future(|| services::restart_services(global, &flags)).await,
        Command::Reload(flags) => box_future(|| services::reload_services(global, &flags)).await,
        Command::Bundle(command) => box_future(|| bundle::run(global, &command)).await,
        Command::Db(command) => box_future(|| db::run(global, &command)).await,
        Command::Maintenance(command) => box_future(|| maintenance::run(global, &command)).await,
        Command::Logs(flags) => logs::run(global, &flags),
        Command::History(flags) => history::show_history(global, &flags),
        Command::Cert(command) => box_future(|| cert::run(global, &command)).await,
        Command::Scale { wishes } => box_future(|| scale::scale_services(global, &wishes)).await,
        Command::Service(command) => box_future(|| scale::switch_service(global, &command)).await,
        Command::SupportBundle(flags) => support::run(global, &flags),
        Command::Traceback(flags) => box_future(|| traceback::run(global, &flags)).await,
        Command::Top(flags) => box_future(|| stats::show_top(global, &flags)).await,
        Command::Stats => box_future(|| stats::measure_processes(global)).await,
        Command::Secret(command) => box_future(|| secret::run(global, &command)).await,
        Command::User(command) => box_future(|| user::run(global, &command)).await,
        Command::Backup(command) => box_future(|| backup::run(global, &command)).await,
        Command::BreakLocks => exports::break_locks(global),
        Command::Upgrade(flags) => box_future(|| upgrade::run(global, &flags)).await,
        Command::Rollback(flags) => box_future(|| rollback::roll_back(global, &flags)).await,
        Command::Releases(command) => box_future(|| releases::run(global, &command)).await,
        Command::Uninstall(flags) => box_future(|| package_hook::uninstall_or_queue(global, &flags)).await,
        Command::Config(command) => config::run(global, command),
        Command::Paths => documents::list_paths(&Session::open(global)?),
        Command::Ports => ports::run(&Session::open(global)?),
        Command::Urls => documents::list_urls(&Session::open(global)?),
        Command::Completions { shell } => documents::make_completions(shell),
        Command::Man { directory } => documents::write_manual(&directory),
        // What another program tells, it tells itself.
        Command::Run { foreground: Some(services), .. } => {
            box_future(|| foreground::run_services(global, &services)).await
        }
        Command::Run { foreground: None, arguments } => box_future(|| exec::run(global, &arguments)).await,
        Command::Exec { words } => box_future(|| exec::run_program(global, &words)).await,
        Command::Shell { as_root } => box_future(|| exec::run_shell(global, as_root)).await,
        Command::WithEnvironment(flags) => environment::run(global, &flags),
        Command::Observe => box_future(|| watch::observe_site(global)).await,
        Command::CatchUp => exports::catch_up(global),
    }
}

/// This process becomes another program; only comes back where that can't be started.
fn become_it<T>(program: &str, prepare: impl FnOnce(&mut process::Command)) -> Result<T> {
    let why = become_program(program, prepare);
    Err(Exit::Unreachable.because(format!("can't start {program}: {why}")))
}
