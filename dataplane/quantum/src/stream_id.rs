//! Names of streams.

/// Which end of a connection one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The end that dialled.
    Client,
    /// The end that accepted.
    Server,
}

/// A bidirectional stream of a connection: twice its index, plus one if the server opened it. Each side gives its streams the
/// indices 0, 1, 2 ... in the order in which it opens them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u64);

impl StreamId {
    /// The `index`-th stream that `opener` opens.
    pub const fn new(opener: Side, index: u64) -> Self {
        Self(index << 1 | matches!(opener, Side::Server) as u64)
    }

    /// Who opened it.
    pub const fn opener(self) -> Side {
        if self.0 & 1 == 0 { Side::Client } else { Side::Server }
    }

    /// How many streams its opener had opened before.
    pub const fn index(self) -> u64 {
        self.0 >> 1
    }
}
