//! CamCOPS, installed and operated natively by one program.
//!
//! A **resource** is a name for something on the machine. Its **state** is either *absent* or a small ordered map of
//! *facets* (owner, mode, content). A **change** is a resource with a state before and a state after. Everything that
//! the program does is a fold over changes:
//!
//! ```text
//! desired(site, found) -> [Wanted]    pure; the recipe
//! plan      = those whose observed facets differ from the wanted ones   (also: dry run, diff, drift, status)
//! apply     = for each change: journal the intent, enforce it, observe again, journal "done"
//! uninstall = the journal read backwards with before and after swapped
//! repair = re-run = upgrade = apply
//! ```
//!
//! Read `main.rs`, then [`ops`], then [`desired`], then [`resource`]: that is the whole way from the command line to the
//! disk. [`engine`] and [`journal`] are what makes it safe to be cut anywhere.

pub mod accounts;
pub mod backup;
pub mod bundle;
pub mod camcops_conf;
pub mod certificate;
pub mod check;
pub mod cli;
pub mod cut;
pub mod desired;
pub mod engine;
pub mod error;
pub mod facts;
pub mod host;
pub mod journal;
pub mod keys;
pub mod layout;
pub mod live;
pub mod locks;
pub mod mask;
pub mod ops;
pub mod ports;
pub mod probe;
pub mod processes;
pub mod render;
pub mod report;
pub mod resource;
pub mod settings;
pub mod site;
mod stack;
pub mod upgrade;
pub mod view;
