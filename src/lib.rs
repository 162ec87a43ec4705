//! CamCOPS, installed and operated natively by one program.
//!
//! A **resource** is a name for something on the machine. Its **state** is either *absent* or a small ordered map of
//! *facets* (owner, mode, content). A **change** is a resource with a state before and a state after. Everything that
//! the program does is a fold over changes:
//!
//! ```text
//! desired(site, found) -> [Wanted]    decides, and changes nothing; the recipe
//! plan      = those whose observed facets differ from the wanted ones   (also: dry run, diff, drift, status)
//! apply     = for each change: journal the intent, enforce it, observe again, journal "done"
//! uninstall = the journal read backwards with before and after swapped
//! repair = re-run = upgrade = apply
//! ```
//!
//! Read `main.rs`, then [`commands`], then [`recipe`], then [`resource`]: that is the whole way from the command line to the
//! disk. [`engine`] and [`journal`] are what makes it safe to be cut anywhere.

// `pub` is only what main.rs, the tests and the benches take.
#![warn(unreachable_pub)]

mod advisories;
mod archive;
mod backup;
pub mod base;
pub mod camcops_conf;
pub mod certificate;
pub mod cli;
pub mod commands;
mod doctor;
mod drivers;
pub mod engine;
mod history;
pub mod host;
mod journal;
pub mod layout;
mod probe;
pub mod recipe;
pub mod resource;
pub mod session;
pub mod settings;
pub mod site;
