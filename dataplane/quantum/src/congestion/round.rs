//! Packet-timed rounds (draft-ietf-ccwg-bbr section 5.5.1).

/// Counts round trips: one ends when a packet is acknowledged that was sent after the one before had ended.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// `delivered` at the start of the round.
    end: u64,
    count: u64,
    started: bool,
}

impl Round {
    /// A packet is acknowledged before whose sending `prior_delivered` bytes had been delivered; `delivered` are by this time.
    pub(super) fn update(&mut self, prior_delivered: u64, delivered: u64) {
        self.started = prior_delivered >= self.end;
        if self.started {
            self.end = delivered;
            self.count += 1;
        }
    }

    /// Ends the round with what is sent from here on.
    pub(super) fn restart(&mut self, delivered: u64) {
        self.end = delivered;
    }

    /// Whether the last update began a round.
    pub(super) fn started(&self) -> bool {
        self.started
    }

    /// Rounds so far.
    pub(super) fn count(&self) -> u64 {
        self.count
    }
}
