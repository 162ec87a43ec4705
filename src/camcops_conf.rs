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

pub use ini::{Entry, Ini, Problem};
pub use keys::{ConfKey, KEYS, Kind, Section};
pub use mask::{masked, masked_value, may_be_secret};
pub use merge::{Kept, Merged, merge};
pub(crate) use seal::{holds_secrets, sealed, unsealed};
pub use value::{check, escape, list};
