//! The commands, each a thin use of the engine.

mod ask;
pub mod backup;
pub mod bundle;
pub mod cert;
pub mod config;
pub mod db;
pub mod doctor;
pub mod documents;
mod environment;
mod exports;
pub mod from_package;
pub mod init;
pub mod inside;
pub mod install;
pub mod logs;
pub mod ports;
pub mod purge;
pub mod releases;
pub mod scale;
pub mod secret;
pub mod services;
pub mod stats;
pub mod status;
pub mod superuser;
pub mod support;
pub mod traceback;
mod trial;
pub mod upgrade;
pub mod user;
pub mod wait;

use crate::cli::{Cli, Command, Global};
use crate::error::Exit;
use crate::report::{self, Style};
use crate::site::{Site, open_host};
use crate::stack::boxed;
use anyhow::Result;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{SignalKind, signal};

/// Runs a command; the number is its exit code.
pub async fn run(cli: Cli) -> Result<u8> {
    let global = &cli.global;
    let style = Style::of(global);
    match cli.command {
        Command::Init => init::run(global, style),
        Command::Install(flags) => boxed(|| from_package::install(global, &flags, style)).await,
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
        Command::Run { arguments } => boxed(|| inside::run(global, &arguments)).await,
        Command::Exec { words } => boxed(|| inside::exec(global, &words)).await,
        Command::Shell { as_root } => boxed(|| inside::shell(global, as_root)).await,
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
        Command::Rollback(flags) => boxed(|| upgrade::back::rollback(global, &flags, style)).await,
        Command::Releases(command) => boxed(|| releases::run(global, &command, style)).await,
        Command::Uninstall(flags) => boxed(|| from_package::uninstall(global, &flags, style)).await,
        Command::Config(command) => config::run(global, command, style),
        Command::Paths => documents::paths(&Site::load(global)?, style),
        Command::Ports => ports::run(&Site::load(global)?, style),
        Command::Urls => documents::urls(&Site::load(global)?, style),
        Command::Completions { shell } => documents::completions(shell, style),
        Command::Man { directory } => documents::manual(&directory, style),
    }
}

/// Only root may change a machine; a staged tree belongs to whoever owns it.
fn need_root(global: &Global, command: &str) -> Result<()> {
    let host = open_host(global)?;
    if host.staged_root().is_some() || host.may_give_away() {
        return Ok(());
    }
    Err(Exit::NotRoot.because(format!(
        "only root may {command} on this machine: run it with sudo, or on a staged tree with --root DIR"
    )))
}

/// For what is done with services that run: a staged tree has none.
fn need_machine(global: &Global, command: &str) -> Result<()> {
    if global.root.is_some() {
        return Err(Exit::Usage.because(
            "a staged tree does not run; leave --root out on the machine that it becomes",
        ));
    }
    match open_host(global)?.may_give_away() {
        true => Ok(()),
        false => Err(Exit::NotRoot.because(format!(
            "only root may {command} on this machine: run it with sudo"
        ))),
    }
}

/// Whether somebody is being asked, and nothing is done until there is an answer.
static ASKING: AtomicBool = AtomicBool::new(false);
/// Whether a signal came that asks for an end.
static STOP: AtomicBool = AtomicBool::new(false);

/// Asks, and can be left by a signal. The question is written in here: who sees it may answer it by Ctrl-C at once.
fn asking<T>(ask: impl FnOnce() -> T) -> T {
    ASKING.store(true, Ordering::SeqCst);
    if STOP.load(Ordering::SeqCst) {
        leave_question();
    }
    let answer = ask();
    ASKING.store(false, Ordering::SeqCst);
    answer
}

fn leave_question() -> ! {
    superuser::show_typing();
    report::note("nothing was changed");
    std::process::exit(i32::from(Exit::Failed as u8))
}

/// Whether what is done now must come to its end.
static GOES_ON: AtomicBool = AtomicBool::new(false);

/// From here on no signal ends anything: what is half-way would be worse than what was there and what is to come.
pub fn go_on_to_the_end() {
    GOES_ON.store(true, Ordering::SeqCst);
}

/// Whether a signal asked for an end.
pub fn is_to_stop() -> bool {
    STOP.load(Ordering::SeqCst) && !GOES_ON.load(Ordering::SeqCst)
}

/// What a command says that ends for that.
pub fn stopped() -> anyhow::Error {
    Exit::Failed
        .because("stopped by a signal; the site's data is as it was: run again when it suits")
}

/// Whether whoever started this wants it to outlive the terminal, as `nohup` does.
fn is_hang_up_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask & 1 != 0)
}

/// Set by the first SIGINT, SIGTERM or SIGHUP: the step at hand is finished, then the run stops with a summary.
fn stop_on_signals(style: Style) -> Result<&'static AtomicBool> {
    let mut kinds = vec![SignalKind::interrupt(), SignalKind::terminate()];
    if !is_hang_up_ignored() {
        // A connection that is lost is no reason to leave a site half-way.
        kinds.push(SignalKind::hangup());
    }
    for kind in kinds {
        let mut arrivals = signal(kind)?;
        tokio::spawn(async move {
            while arrivals.recv().await.is_some() {
                let again = STOP.swap(true, Ordering::SeqCst);
                if ASKING.load(Ordering::SeqCst) {
                    leave_question();
                }
                if !again {
                    style.warn(&[match GOES_ON.load(Ordering::SeqCst) {
                        true => {
                            "going on to the end: half-way would be worse than either".to_owned()
                        }
                        false => "stopping once this step is done".to_owned(),
                    }]);
                }
            }
        });
    }
    Ok(&STOP)
}
