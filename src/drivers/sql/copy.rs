//! Dumps of a database and what loads them.

pub(crate) mod client;
pub(crate) mod deferred_keys;
pub(crate) mod directory;
pub(crate) mod dump;
mod feed;
pub(crate) mod load;
pub(crate) mod place;
pub(crate) mod scan;
mod scratch;
