//! Which streams there have been: what may be opened, and what is over and forgotten.

use std::collections::HashSet;
use std::hash::BuildHasherDefault;

use super::credit::Granted;
use crate::id_map::IdHasher;
use crate::{Side, StreamId, TransportError, TransportErrorCode};

/// Ids of both sides. What has been opened and is not live is over: it takes no memory.
#[derive(Debug)]
pub(super) struct Ids {
    side: Side,
    /// Index of the next stream that this side opens.
    local_next: u64,
    /// As many streams this side may open.
    local_limit: u64,
    /// An open was refused.
    local_wanted: bool,
    /// Above the highest index that the peer has used.
    remote_end: u64,
    /// Indices below that of which nothing has come, at most as many as the peer may have streams.
    remote_unseen: HashSet<u64, BuildHasherDefault<IdHasher>>,
    /// How many streams the peer may open.
    remote: Granted,
}

/// What an id in a frame stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// A stream that the peer opens with this frame.
    Opens,
    /// A stream that is live or over.
    Known,
}

impl Ids {
    /// No streams yet; the peer may have `streams_max` at once.
    pub(super) fn new(side: Side, streams_max: u64) -> Self {
        Self {
            side,
            local_next: 0,
            local_limit: 0,
            local_wanted: false,
            remote_end: 0,
            remote_unseen: HashSet::default(),
            remote: Granted::new(streams_max.min(crate::wire::STREAMS_MAX)),
        }
    }

    /// The id of the next stream of this side, if the peer allows one.
    pub(super) fn open(&mut self) -> Option<StreamId> {
        if self.local_next >= self.local_limit {
            self.local_wanted = true;
            return None;
        }
        let id = StreamId::new(self.side, self.local_next);
        self.local_next += 1;
        Some(id)
    }

    /// The peer allows `limit` streams. Tells whether one that was refused may be opened now.
    pub(super) fn on_limit(&mut self, limit: u64) -> bool {
        self.local_limit = self.local_limit.max(limit.min(crate::wire::STREAMS_MAX));
        let available = self.local_wanted && self.local_next < self.local_limit;
        self.local_wanted &= !available;
        available
    }

    /// What was taken for the limit turns out to be `limit`.
    pub(super) fn replace_limit(&mut self, limit: u64) {
        self.local_limit = limit.max(self.local_next).min(crate::wire::STREAMS_MAX);
    }

    /// Streams that this side has opened.
    pub(super) fn local_count(&self) -> u64 {
        self.local_next
    }

    /// What the id in a frame stands for.
    pub(super) fn name(&mut self, id: StreamId) -> Result<Named, TransportError> {
        let index = id.index();
        if id.opener() == self.side {
            if index >= self.local_next {
                let reason = "a frame for a stream that this side never opened";
                return Err(TransportError::new(TransportErrorCode::StreamState, reason));
            }
            return Ok(Named::Known);
        }
        if index >= self.remote.advertised() {
            return Err(TransportError::new(TransportErrorCode::StreamLimit, "a stream beyond the limit"));
        }
        if index < self.remote_end {
            return Ok(if self.remote_unseen.remove(&index) { Named::Opens } else { Named::Known });
        }
        self.remote_unseen.extend(self.remote_end..index);
        self.remote_end = index + 1;
        self.remote.update_by_eighth(self.remote_end);
        Ok(Named::Opens)
    }

    /// A stream is over: if it was the peer's, the peer may open another.
    pub(super) fn close(&mut self, id: StreamId) {
        if id.opener() != self.side {
            self.remote.consume(1);
            self.remote.update_by_eighth(self.remote_end);
        }
    }

    /// How many streams the peer may open.
    pub(super) fn remote(&mut self) -> &mut Granted {
        &mut self.remote
    }

    /// Frees memory that holds nothing.
    pub(super) fn shrink(&mut self) {
        self.remote_unseen.shrink_to_fit();
    }

    /// Streams of the peer that were skipped.
    #[cfg(test)]
    pub(super) fn unseen(&self) -> usize {
        self.remote_unseen.len()
    }

    /// Whether the peer is to be told how many streams it may open.
    pub(super) fn wants_update(&self) -> bool {
        self.remote.is_pending()
    }
}
