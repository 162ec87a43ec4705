//! Archives: backups' files and bundles, packed and read.

pub(crate) mod bundle;
pub(crate) mod pack;
