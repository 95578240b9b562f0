//! The seam between how bytes move and what is done with them.

use std::net::SocketAddr;

use quantum::{Received, Time, Transmit};

/// Bytes of a refused payload that are kept: more than a packet's header.
pub(crate) const QUOTED_LEN: usize = 64;

/// How bytes move. Made and used on the shard's own thread.
pub(crate) trait Port {
    /// The monotonic clock.
    fn now(&self) -> Time;

    /// Hands datagrams that have come to `take`, a bounded number of them. True if more may be waiting.
    fn receive(&mut self, take: &mut dyn FnMut(Received<'_>)) -> bool;

    /// The next that [`receive`](Self::receive) or a send found out of hosts that refused what was sent to them.
    fn unreachable(&mut self) -> Option<Unreachable>;

    /// A free buffer for a transmit; `None` while all are on their way (the shard wakes when one comes back).
    fn send_buffer(&mut self) -> Option<&mut [u8]>;

    /// Sends the first `transmit.len` bytes of the buffer that [`send_buffer`](Self::send_buffer) gave last.
    fn send(&mut self, transmit: &Transmit);

    /// What has moved so far.
    fn counters(&self) -> PortCounters;
}

/// A host says that nobody listens at the port which a datagram was sent to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unreachable {
    /// Where it was sent to.
    pub(crate) remote: SocketAddr,
    pub(crate) quoted: [u8; QUOTED_LEN],
    pub(crate) quoted_len: usize,
}

impl Unreachable {
    /// The front of the datagram's payload, as far as it was told.
    pub(crate) fn quoted(&self) -> &[u8] {
        &self.quoted[..self.quoted_len.min(QUOTED_LEN)]
    }
}

/// What a port has moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PortCounters {
    /// Datagrams received, merged ones counted once.
    pub(crate) receives: u64,
    /// UDP payload bytes received.
    pub(crate) received_bytes: u64,
    /// Datagrams received, each of those merged counted.
    pub(crate) received_datagrams: u64,
    /// Send operations, segmented ones counted once.
    pub(crate) sends: u64,
    /// UDP payload bytes sent.
    pub(crate) sent_bytes: u64,
    /// Datagrams sent, each segment counted.
    pub(crate) sent_datagrams: u64,
    /// Sends that the kernel refused: their packets are lost.
    pub(crate) send_errors: u64,
    /// Datagrams that a host refused since nobody listens at the port.
    pub(crate) unreachable: u64,
    /// Times that the kernel had more datagrams than receive buffers.
    pub(crate) buffer_shortages: u64,
}

/// What a shard does. A host calls it.
pub(crate) trait Work {
    /// One turn of the loop: what came in, commands, timers, what goes out. Never blocks.
    fn turn(&mut self, port: &mut dyn Port) -> Turn;

    /// The thread is about to sleep: says so to those who would ring, and looks once more. False if there is work after
    /// all.
    fn prepare_park(&mut self) -> bool;

    /// The thread is awake.
    fn woke(&mut self);
}

/// What a turn came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    /// Something was done, so that there may be more.
    pub(crate) worked: bool,
    /// When the next turn is due at the latest.
    pub(crate) deadline: Option<Time>,
    /// The shard is at its end.
    pub(crate) done: bool,
}
