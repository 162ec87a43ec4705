//! What everything else stands on: errors, signals, the terminal, text.

pub mod error;
pub(crate) mod kernel;
pub(crate) mod progress;
pub(crate) mod prompt;
pub(crate) mod report;
pub(crate) mod secret;
pub(crate) mod signals;
pub(crate) mod stack;
pub mod terminal;
pub(crate) mod text;
