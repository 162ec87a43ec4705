//! Signals: when a run is to stop, and what is left first.

use crate::base::error::Exit;
use crate::base::kernel;
use crate::base::prompt;
use crate::base::terminal::{self, Style};
use anyhow::Result;
use nix::sys::signal::Signal;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{SignalKind, signal};

/// Whether somebody is being asked, and nothing is done until there is an answer.
static ASKING: AtomicBool = AtomicBool::new(false);

/// Whether a signal came that asks for an end.
static STOP: AtomicBool = AtomicBool::new(false);

/// Asks, and can be left by a signal. The question is written in here: who sees it may answer it by Ctrl-C at once.
pub(crate) fn while_asking<T>(ask: impl FnOnce() -> T) -> T {
    ASKING.store(true, Ordering::SeqCst);
    if STOP.load(Ordering::SeqCst) {
        leave_question();
    }
    let answer = ask();
    ASKING.store(false, Ordering::SeqCst);
    answer
}

fn leave_question() -> ! {
    prompt::show_typing();
    terminal::print_note("nothing was changed");
    std::process::exit(i32::from(Exit::Failed as u8))
}

/// Whether what is done now must come to its end.
static GOES_ON: AtomicBool = AtomicBool::new(false);

/// As long as this is there, no signal ends anything: what is half-way would be worse than what was there and what is to
/// come.
#[derive(Debug)]
#[must_use]
pub(crate) struct GoingOn(());

pub(crate) fn go_on_to_the_end() -> GoingOn {
    GOES_ON.store(true, Ordering::SeqCst);
    GoingOn(())
}

impl Drop for GoingOn {
    fn drop(&mut self) {
        GOES_ON.store(false, Ordering::SeqCst);
    }
}

/// What a run looks at between two steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// A signal asks for an end.
    Signals,
    /// What is begun is brought to its end.
    Never,
}

/// What a command says that ends for that, where it has no more to say.
pub(crate) const STOPPED: &str = "stopped by a signal; the site's data is unchanged: run this again later";

impl Interrupt {
    /// Whether it is time to stop.
    pub(crate) fn is_set(self) -> bool {
        self == Interrupt::Signals && STOP.load(Ordering::SeqCst) && !GOES_ON.load(Ordering::SeqCst)
    }

    /// Stops with these words if it is time to.
    pub(crate) fn check(self, message: &str) -> Result<()> {
        if self.is_set() { Err(Exit::Failed.because(message)) } else { Ok(()) }
    }
}

/// Whether whoever started this wants it to outlive the terminal, as `nohup` does.
pub(crate) fn is_hang_up_ignored() -> bool {
    let status = kernel::read_process("self", "status").unwrap_or_default();
    kernel::has_signal(&status, "SigIgn:", Signal::SIGHUP)
}

/// Set by the first SIGINT, SIGTERM or SIGHUP: the step at hand is finished, then the run stops with a summary.
pub(crate) fn stop_on_signals(style: Style) -> Result<Interrupt> {
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
                        true => "continuing to the end: stopping half-way would leave the site broken".to_owned(),
                        false => "stopping after this step".to_owned(),
                    }]);
                }
            }
        });
    }
    Ok(Interrupt::Signals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_to_the_end_does_so_only_that_long() {
        {
            let _going_on = go_on_to_the_end();
            assert!(GOES_ON.load(Ordering::SeqCst));
        }
        assert!(!GOES_ON.load(Ordering::SeqCst));
    }
}
