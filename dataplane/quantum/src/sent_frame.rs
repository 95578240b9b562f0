//! What a sent packet carried, in the form that its acknowledgement or loss needs.

use smallvec::SmallVec;

use crate::wire::Epoch;
use crate::{StreamId, Time};

/// One frame of a sent packet: enough to release or to resend what it carried, without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SentFrame {
    Stream {
        id: StreamId,
        offset: u64,
        len: u32,
        fin: bool,
    },
    ResetStream(StreamId),
    StopSending(StreamId),
    MaxData,
    MaxStreamData(StreamId),
    StreamDataBlocked(StreamId),
    MaxStreams,
    Crypto {
        epoch: Epoch,
        offset: u64,
        len: u32,
    },
    /// The packet reported received ranges; `largest` is the largest number it reported.
    Ack {
        largest: u64,
    },
    HandshakeDone,
    Ping,
    /// No frame: when the packet was sent that is lost and whose frames, stream data among them, follow.
    SentAt(Time),
    /// A datagram: never sent again.
    Datagram,
    /// The packet is a source of forward error correction: its protected frames can be restored. Comes first.
    Source {
        number: u64,
    },
    /// The packet carried a repair symbol of that group.
    Repair {
        group: u64,
    },
    /// The packet reported so many congestion marks.
    EcnCounts {
        ce: u64,
    },
    /// The packet tried whether one of its size arrives.
    MtuProbe {
        size: u16,
    },
    /// The packet reported that range of numbers as restored.
    Recovered {
        first: u64,
        last: u64,
    },
}

impl SentFrame {
    /// Whether it makes its packet one that explores the path: its loss says nothing of congestion.
    pub(crate) const fn is_exploring(&self) -> bool {
        matches!(self, Self::MtuProbe { .. })
    }

    /// Whether it is restored with its packet.
    pub(crate) const fn is_protected(&self) -> bool {
        match self {
            Self::Stream { .. }
            | Self::ResetStream(_)
            | Self::StopSending(_)
            | Self::MaxData
            | Self::MaxStreamData(_)
            | Self::StreamDataBlocked(_)
            | Self::MaxStreams
            | Self::HandshakeDone
            | Self::Datagram
            | Self::SentAt(_)
            | Self::Ping => true,
            Self::Crypto { .. }
            | Self::Ack { .. }
            | Self::Source { .. }
            | Self::Repair { .. }
            | Self::EcnCounts { .. }
            | Self::MtuProbe { .. }
            | Self::Recovered { .. } => false,
        }
    }
}

/// The frames of one packet. Most packets carry an acknowledgement and one or two more.
pub(crate) type SentFrames = SmallVec<[SentFrame; 4]>;
