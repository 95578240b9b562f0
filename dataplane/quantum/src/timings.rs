//! How long things take, on all connections of an endpoint: round trips, handshakes, and how long what was lost is missing.
//!
//! A packet that is lost is recovered in one of two ways, and each is measured where it is seen best:
//!
//! - **Restored**, by the end that receives: from when the lost packet may have been due at the earliest to the moment at which
//!   its frames were there, put together from repair symbols. It may have been due when the last packet before it came, but no
//!   earlier than 5 ms before the first one beyond it: so long a sender gathers packets for a group at most, and one that had
//!   nothing to send is no recovery. Mostly it was sent later than that and took less long.
//! - **Resent**, by the end that sends: from the sending of a packet with stream data to the moment at which that data, since
//!   nobody could restore it, is to be sent again. By so much more than the path's delay it comes late. What is lost twice
//!   counts twice. Losses that turn out to be late packets count too.
//!
//! Both ends of a connection together so hold each lost packet that mattered once. Datagrams are never sent again; those that
//! are restored count.

use std::time::Duration;

use crate::histogram::{DurationHistogram, HistogramCell};

/// How long what was lost was missing, on all connections of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryStats {
    /// Packets of peers that forward error correction put together here: from when they may have been due until then.
    pub restored: DurationHistogram,
    /// Packets with stream data that were lost and not restored: from their sending until their data was to be sent again.
    pub resent: DurationHistogram,
}

impl RecoveryStats {
    /// These and those of another endpoint.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        Self { restored: self.restored.with(&other.restored), resent: self.resent.with(&other.resent) }
    }

    /// What has been counted since an earlier snapshot.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self { restored: self.restored.since(&earlier.restored), resent: self.resent.since(&earlier.resent) }
    }
}

/// How long things took, on all connections of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimingStats {
    /// How long what was lost was missing.
    pub recovery: RecoveryStats,
    /// Samples of the round-trip time, the peer's delay included.
    pub rtt: DurationHistogram,
    /// From the first packet sent, or received by a server, to the moment at which the connection can be used.
    pub handshake: DurationHistogram,
}

impl TimingStats {
    /// These and those of another endpoint.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        Self {
            recovery: self.recovery.with(&other.recovery),
            rtt: self.rtt.with(&other.rtt),
            handshake: self.handshake.with(&other.handshake),
        }
    }
}

/// What an endpoint's connections add to. Any thread may read it at any time.
#[derive(Debug, Default)]
pub struct Timings {
    restored: HistogramCell,
    resent: HistogramCell,
    rtt: HistogramCell,
    handshake: HistogramCell,
}

impl Timings {
    /// What has been counted so far.
    pub fn read(&self) -> TimingStats {
        let recovery = RecoveryStats { restored: self.restored.read(), resent: self.resent.read() };
        TimingStats { recovery, rtt: self.rtt.read(), handshake: self.handshake.read() }
    }

    /// A packet was missing for so long, and was restored.
    pub(crate) fn on_restored(&self, missing: Duration) {
        self.restored.record(missing);
    }

    /// What a packet carried is to be sent again so long after it was sent.
    pub(crate) fn on_resent(&self, after: Duration) {
        self.resent.record(after);
    }

    /// A round trip took so long.
    pub(crate) fn on_rtt(&self, rtt: Duration) {
        self.rtt.record(rtt);
    }

    /// A handshake took so long.
    pub(crate) fn on_handshake(&self, took: Duration) {
        self.handshake.record(took);
    }
}
