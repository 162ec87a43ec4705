//! Scissors for the tests: they cut the program in the middle on purpose, at a point that they choose.

use std::cell::Cell;

/// Where to end the process without any cleaning up; nowhere, in a released program.
#[derive(Debug, Default)]
pub(crate) struct Cut {
    write: Cell<Option<u32>>,
    intent: Cell<Option<u32>>,
}

impl Cut {
    /// Reads `CAMCOPS_PROVISION_CUT=write:7` or `=intent:3`: a program built for release does not look.
    pub(crate) fn from_environment() -> Cut {
        let cut = Cut::default();
        if cfg!(debug_assertions)
            && let Ok(point) = std::env::var("CAMCOPS_PROVISION_CUT")
            && let Some((kind, number)) = point.split_once(':')
        {
            let counter = match kind {
                "write" => &cut.write,
                _ => &cut.intent,
            };
            counter.set(number.parse().ok());
        }
        cut
    }

    /// Something on the disk has just changed.
    pub(crate) fn after_write(&self) {
        count_down(&self.write);
    }

    /// The journal has just been told what comes next.
    pub(crate) fn after_intent(&self) {
        count_down(&self.intent);
    }
}

fn count_down(counter: &Cell<Option<u32>>) {
    match counter.get() {
        Some(1) => std::process::abort(),
        Some(more) => counter.set(Some(more - 1)),
        None => {}
    }
}
