//! The states that positions refer to.

use super::SessionIndex;

/// What the writer of an operation had seen: the state after a version, plus its own session's later operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::statesync) struct Seen {
    /// The base.
    pub(in crate::statesync) version: u64,
    /// The writer.
    pub(in crate::statesync) session: SessionIndex,
    /// Of an operation that waited: the last version before it did, and the version that it makes now. What its session wrote
    /// between the two was not there yet when it was written.
    pub(in crate::statesync) waited: Option<(u64, u64)>,
}

impl Seen {
    /// What the writer of an operation had seen that did not wait.
    pub(in crate::statesync) fn of(version: u64, session: SessionIndex) -> Self {
        Self { version, session, waited: None }
    }

    /// Whether it had seen what `session` made as `version`.
    pub(in crate::statesync) fn knows(self, version: u64, session: SessionIndex) -> bool {
        version <= self.version || session == self.session && !self.came_meanwhile(version)
    }

    fn came_meanwhile(self, version: u64) -> bool {
        self.waited.is_some_and(|(since, until)| since < version && version < until)
    }
}

/// A state that positions refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::statesync) enum View {
    /// The text as it is.
    Latest,
    /// The text as somebody had seen it.
    Of(Seen),
}

impl View {
    pub(super) fn knows(self, version: u64, session: SessionIndex) -> bool {
        match self {
            View::Latest => true,
            View::Of(seen) => seen.knows(version, session),
        }
    }

    /// Whether the writer itself made `version`, while what it had written before waited.
    pub(super) fn wrote_meanwhile(self, version: u64, session: SessionIndex) -> bool {
        match self {
            View::Latest => false,
            View::Of(seen) => session == seen.session && seen.came_meanwhile(version),
        }
    }
}
