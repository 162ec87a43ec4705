//! camcops.conf: the keys that CamCOPS knows, a loss-less editor, the merge
//! that keeps what the administrator changed, and the form fit for showing.

/// Reading and editing without touching anything else.
pub(crate) mod ini;
pub(crate) mod kept;
/// The table of keys.
pub mod keys;
/// The text without its secrets.
pub(crate) mod mask;
/// Three-way merge by key.
pub(crate) mod merge;
/// Sums in the place of secrets.
pub(crate) mod seal;
/// What a value may hold, and what Python takes for blanks and line breaks.
pub(crate) mod value;

pub use ini::{Ini, IniEntry, IniProblem};
pub use keys::{ConfKey, ConfSection, KEYS, ValueKind};
pub use mask::{mask_secrets, masked_value, may_be_secret};
pub use merge::{KeptKey, Merged, merge_files};
pub(crate) use seal::{holds_secrets, seal_values, unseal_values};
pub use value::{check_value, escape_value, join_list};
