//! Dumps of a database and what loads them.

pub mod client;
pub mod deferred_keys;
pub(crate) mod directory;
pub mod dump;
pub mod load;
pub(crate) mod place;
pub mod scan;
