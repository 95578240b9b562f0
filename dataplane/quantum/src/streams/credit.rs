//! Credit: how far one side may send, and when to tell it that it may go on (RFC 9000 section 4).

use crate::wire::varint::VARINT_MAX;

/// Credit that this side gives to the peer: for bytes of a stream, of the connection, or for streams.
#[derive(Debug)]
pub(super) struct Granted {
    /// How far beyond `consumed` the peer may go.
    window: u64,
    /// What does not weigh on the window any more.
    consumed: u64,
    /// The limit that the peer has been told.
    advertised: u64,
    /// The peer is to be told the latest limit.
    pending: bool,
}

impl Granted {
    /// Credit for `window`, which the transport parameters tell the peer.
    pub(super) fn new(window: u64) -> Self {
        let window = window.min(VARINT_MAX);
        Self { window, consumed: 0, advertised: window, pending: false }
    }

    /// The limit that the peer has been told.
    pub(super) fn advertised(&self) -> u64 {
        self.advertised
    }

    /// How far the peer may go beyond what is consumed.
    pub(super) fn window(&self) -> u64 {
        self.window
    }

    /// Lets the peer go further by `amount`.
    pub(super) fn grow(&mut self, amount: u64) {
        self.window = self.window.saturating_add(amount).min(VARINT_MAX);
        self.pending |= amount > 0;
    }

    /// What has been consumed so far.
    pub(super) fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Returns `amount` to the peer.
    pub(super) fn consume(&mut self, amount: u64) {
        self.consumed = self.consumed.saturating_add(amount).min(VARINT_MAX);
    }

    /// Has the peer told once half of the window is to be gained, so that an update costs a frame per half window.
    pub(super) fn update_by_half(&mut self) {
        self.pending |= self.gain() >= (self.window / 2).max(1);
    }

    /// Has the peer told once an eighth of the window is to be gained, or an eighth is left beyond `used` and anything at
    /// all is to be gained: what is in use for long must not keep the rest from being given out.
    pub(super) fn update_by_eighth(&mut self, used: u64) {
        let eighth = self.window / 8;
        let scarce = self.advertised.saturating_sub(used) <= eighth;
        self.pending |= self.gain() >= if scarce { 1 } else { eighth.max(1) };
    }

    /// Whether the peer is to be told.
    pub(super) fn is_pending(&self) -> bool {
        self.pending
    }

    /// The latest limit, whether or not the peer knows it.
    pub(super) fn latest(&self) -> u64 {
        self.consumed.saturating_add(self.window).min(VARINT_MAX)
    }

    /// The latest limit has been put into a packet.
    pub(super) fn sent(&mut self) {
        self.advertised = self.latest();
        self.pending = false;
    }

    /// A packet that told the peer was lost.
    pub(super) fn lost(&mut self) {
        self.pending = true;
    }

    fn gain(&self) -> u64 {
        self.latest() - self.advertised
    }
}

/// Credit that the peer gives to this side for the connection's bytes.
#[derive(Debug, Default)]
pub(super) struct Received {
    limit: u64,
    used: u64,
}

impl Received {
    /// The peer allows `limit` in all. A limit never shrinks.
    pub(super) fn raise(&mut self, limit: u64) {
        self.limit = self.limit.max(limit);
    }

    /// What was taken for the limit turns out to be `limit`, which covers what has been used.
    pub(super) fn replace(&mut self, limit: u64) {
        self.limit = limit.max(self.used);
    }

    /// What has been used.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// What may still be used.
    pub(super) fn available(&self) -> u64 {
        self.limit - self.used
    }

    /// Uses `amount`, at most what is available.
    pub(super) fn consume(&mut self, amount: u64) {
        debug_assert!(amount <= self.available());
        self.used += amount;
    }
}
