//! What the sleep flag is made of. The model checker puts its own in its place.

pub(super) use std::sync::atomic::{AtomicBool, Ordering, fence};
