//! Archives: backups' files and bundles, packed and read.

pub mod bundle;
pub mod pack;
