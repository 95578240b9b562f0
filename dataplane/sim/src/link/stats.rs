//! What a link has done.

/// Counters of one direction. `sent + duplicated` is `delivered` plus what was dropped plus what is still under way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Datagrams that went in.
    pub sent: u64,
    /// Datagrams that came out.
    pub delivered: u64,
    /// Dropped by independent loss.
    pub dropped_loss: u64,
    /// Dropped by burst loss, by packets or by time.
    pub dropped_burst: u64,
    /// Dropped because the queue before the bottleneck was full.
    pub dropped_queue: u64,
    /// Dropped in a blackout.
    pub dropped_blackout: u64,
    /// Dropped because they were larger than the path's MTU.
    pub dropped_mtu: u64,
    /// Dropped because of their ECN bits.
    pub dropped_ecn: u64,
    /// Copies made.
    pub duplicated: u64,
    /// Datagrams of which a bit was flipped.
    pub corrupted: u64,
    /// Datagrams that came out after one that had gone in later.
    pub reordered: u64,
    /// Bytes that went in.
    pub bytes_sent: u64,
    /// Bytes that came out.
    pub bytes_delivered: u64,
    /// The queue before the bottleneck.
    pub queue: QueueStats,
}

impl LinkStats {
    /// Datagrams dropped, for whatever cause.
    pub const fn dropped(&self) -> u64 {
        self.dropped_loss
            + self.dropped_burst
            + self.dropped_queue
            + self.dropped_blackout
            + self.dropped_mtu
            + self.dropped_ecn
    }
}

/// What a queue has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Datagrams marked there: congestion experienced.
    pub marked: u64,
    /// Most bytes that it held.
    pub bytes_peak: u64,
    /// Bytes in it, summed over time up to the latest datagram that came: byte nanoseconds. Divided by a time it is the mean.
    pub byte_ns: u64,
}
