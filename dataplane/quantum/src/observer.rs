//! What happens on connections, told to whoever keeps a log of it (qlog, for instance).

use std::fmt;
use std::net::SocketAddr;

use crate::wire::{Epoch, SackBlock, SackBlocks};
use crate::{CloseReason, ConnectionStats, Guuid, Side, Time};

/// Opens a log for each connection of an endpoint.
pub trait Observer: Send + Sync {
    /// The log of a connection that begins; none: it is not observed.
    fn open(&self, guuid: Guuid, side: Side) -> Option<Box<dyn ConnectionLog>>;
}

/// The log of one connection. It ends when it is dropped.
pub trait ConnectionLog: Send {
    /// Something happened. Must not block: packets wait meanwhile.
    fn record(&mut self, now: Time, event: &LogEvent<'_>);
}

/// Something that happened on a connection.
#[derive(Clone, Copy, Debug)]
pub enum LogEvent<'a> {
    /// It began.
    Started {
        /// Where the peer is.
        remote: SocketAddr,
    },
    /// A packet is about to leave.
    PacketSent(PacketInfo<'a>),
    /// A packet came in and was authentic.
    PacketReceived(PacketInfo<'a>),
    /// A packet that was sent is taken to be lost.
    PacketLost {
        /// Its number.
        number: u64,
    },
    /// An acknowledgement came in, or a timeout fired: this is what recovery makes of it.
    Metrics(&'a ConnectionStats),
    /// The peer proved to be at another address, which packets go to from here on.
    Migrated {
        /// Where the peer is.
        remote: SocketAddr,
    },
    /// It is over for the application.
    Closed(&'a CloseReason),
}

/// A packet.
#[derive(Clone, Copy)]
pub struct PacketInfo<'a> {
    /// Its number.
    pub number: u64,
    /// The epoch of its keys.
    pub epoch: Epoch,
    /// Bytes of UDP payload.
    pub size: usize,
    /// What its header acknowledges: low halves of numbers.
    pub blocks: &'a [SackBlock],
    /// Its frames, in plain.
    pub frames: &'a [u8],
}

impl fmt::Debug for PacketInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} of {} bytes", self.epoch, self.number, self.size)
    }
}

/// A connection's log, if it has one.
#[derive(Default)]
pub(crate) struct Log {
    log: Option<Box<dyn ConnectionLog>>,
    /// The latest time that was told.
    now: Time,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("is_on", &self.is_on()).finish()
    }
}

impl Log {
    /// Observes the connection from here on.
    pub(crate) fn start(&mut self, now: Time, log: Option<Box<dyn ConnectionLog>>, remote: SocketAddr) {
        self.log = log;
        self.record(now, &LogEvent::Started { remote });
    }

    /// Whether anybody listens.
    pub(crate) const fn is_on(&self) -> bool {
        self.log.is_some()
    }

    /// Time has come to this.
    pub(crate) fn at(&mut self, now: Time) {
        self.now = now;
    }

    pub(crate) fn record(&mut self, now: Time, event: &LogEvent<'_>) {
        if let Some(log) = &mut self.log {
            self.now = now;
            log.record(now, event);
        }
    }

    /// Records at the latest time that was told.
    pub(crate) fn record_now(&mut self, event: &LogEvent<'_>) {
        self.record(self.now, event);
    }

    pub(crate) fn sent(&mut self, (number, epoch): (u64, Epoch), blocks: &SackBlocks, size: usize, frames: &[u8]) {
        if self.is_on() {
            let blocks = blocks.as_slice();
            self.record_now(&LogEvent::PacketSent(PacketInfo { number, epoch, size, blocks, frames }));
        }
    }
}
