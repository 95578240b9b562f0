//! Which RPCs may be early data.

use std::collections::HashSet;
use std::sync::Arc;

/// The methods whose RPCs may happen twice, by their gRPC paths (`/package.Service/Method`). None, unless some are named: early
/// data can be replayed by who copied it, so a client sends, and a server does, nothing else before the handshake is complete.
#[derive(Clone, Debug, Default)]
pub struct IdempotentMethods(Arc<HashSet<String>>);

impl IdempotentMethods {
    /// Whether it is one of them.
    pub fn contains(&self, path: &str) -> bool {
        self.0.contains(path)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<S: Into<String>> FromIterator<S> for IdempotentMethods {
    fn from_iter<I: IntoIterator<Item = S>>(paths: I) -> Self {
        Self(Arc::new(paths.into_iter().map(Into::into).collect()))
    }
}
