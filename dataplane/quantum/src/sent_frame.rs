//! What a sent packet carried, in the form that its acknowledgement or loss needs.

use smallvec::SmallVec;

use crate::StreamId;
use crate::wire::Epoch;

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
}

/// The frames of one packet. Most packets carry an acknowledgement and one or two more.
pub(crate) type SentFrames = SmallVec<[SentFrame; 4]>;
