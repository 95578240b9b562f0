//! Parts that a connection at rest does without.

use std::ops::{Deref, DerefMut};

/// What a connection holds only while it has work.
pub(super) trait Work: Default + 'static {
    /// What is read while there is none.
    fn none() -> &'static Self;

    /// Frees memory that holds nothing. Tells whether there is nothing at all.
    fn shrink(&mut self) -> bool;
}

/// A value that takes memory from when it is first changed until it holds nothing and is told to [shrink](Self::shrink).
#[derive(Debug)]
pub(super) struct OnDemand<T>(Option<Box<T>>);

impl<T> Default for OnDemand<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Work> OnDemand<T> {
    pub(super) fn shrink(&mut self) {
        if self.0.as_deref_mut().is_some_and(T::shrink) {
            self.0 = None;
        }
    }
}

impl<T: Work> Deref for OnDemand<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or_else(|| T::none())
    }
}

impl<T: Work> DerefMut for OnDemand<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }
}
