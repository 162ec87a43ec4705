//! Plan, apply, invert: the whole of what the program does to a machine.
//!
//! * a plan is the wanted resources whose observed facets differ;
//! * applying it is, for each change, to tell the journal, enforce, observe again and tell the journal that it is done;
//! * undoing is the journal read backwards with before and after swapped.
//!
//! A re-run, a repair, an upgrade and the package's hook are nothing else than `plan` and `apply` once more.

mod apply;
mod plan;
mod put_back;
pub(crate) mod report;
mod reverse;
mod undo;

pub(crate) use apply::{RunOutcome, apply_plan, expect_time};
pub(crate) use plan::{Action, Drift, Left, Plan, Planned, Scope, find_drift, make_plan};
pub(crate) use reverse::Data;
pub(crate) use undo::{undo_all, undo_resource};
