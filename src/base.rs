//! What everything else stands on: errors, signals, the terminal, text.

pub mod error;
pub(crate) mod prompt;
pub(crate) mod secret;
pub(crate) mod signals;
pub mod terminal;
pub(crate) mod text;
