//! What keeps the stack small.

use std::pin::Pin;

/// A future away from the stack of the one who waits for it. Where one of many is chosen, code without optimisation keeps
/// room for all of them at once: with some 80 KiB each, the commands would take most of a stack.
pub(crate) fn box_future<F: Future>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    Box::pin(make())
}
