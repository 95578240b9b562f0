//! Frames: what the payload of a packet is made of.

use crate::wire::ack::{Ack, AckRanges};
use crate::wire::repair::{REPAIR_RANGES_MAX, Repair};
use crate::wire::varint::{self, VARINT_MAX};
use crate::{StreamId, TransportError, TransportErrorCode};

/// Bytes of a cookie at most.
pub const COOKIE_LEN_MAX: usize = 64;
/// Bytes of a closing side's words at most.
pub const REASON_LEN_MAX: usize = 256;
/// Streams that `MAX_STREAMS` and `STREAMS_BLOCKED` may name at most: every id stays an integer that can be encoded.
pub const STREAMS_MAX: u64 = 1 << 60;

/// The numbers of frame types. Each is one byte, below 0x40.
pub mod frame_type {
    /// PADDING.
    pub const PADDING: u8 = 0x00;
    /// PING.
    pub const PING: u8 = 0x01;
    /// ACK.
    pub const ACK: u8 = 0x02;
    /// ACK with ECN counts.
    pub const ACK_ECN: u8 = 0x03;
    /// `RESET_STREAM`.
    pub const RESET_STREAM: u8 = 0x04;
    /// `STOP_SENDING`.
    pub const STOP_SENDING: u8 = 0x05;
    /// CRYPTO.
    pub const CRYPTO: u8 = 0x06;
    /// COOKIE.
    pub const COOKIE: u8 = 0x07;
    /// STREAM, the first of eight.
    pub const STREAM: u8 = 0x08;
    /// The last type of STREAM.
    pub const STREAM_LAST: u8 = 0x0f;
    /// Bit of a STREAM type: the stream ends with this frame.
    pub const STREAM_FIN: u8 = 0x01;
    /// Bit of a STREAM type: a length is present.
    pub const STREAM_LEN: u8 = 0x02;
    /// Bit of a STREAM type: an offset is present.
    pub const STREAM_OFF: u8 = 0x04;
    /// `MAX_DATA`.
    pub const MAX_DATA: u8 = 0x10;
    /// `MAX_STREAM_DATA`.
    pub const MAX_STREAM_DATA: u8 = 0x11;
    /// `MAX_STREAMS`.
    pub const MAX_STREAMS: u8 = 0x12;
    /// `DATA_BLOCKED`.
    pub const DATA_BLOCKED: u8 = 0x14;
    /// `STREAM_DATA_BLOCKED`.
    pub const STREAM_DATA_BLOCKED: u8 = 0x15;
    /// `STREAMS_BLOCKED`.
    pub const STREAMS_BLOCKED: u8 = 0x16;
    /// REPAIR.
    pub const REPAIR: u8 = 0x18;
    /// RECOVERED.
    pub const RECOVERED: u8 = 0x19;
    /// `PATH_CHALLENGE`.
    pub const PATH_CHALLENGE: u8 = 0x1a;
    /// `PATH_RESPONSE`.
    pub const PATH_RESPONSE: u8 = 0x1b;
    /// `CONNECTION_CLOSE` by the transport.
    pub const CONNECTION_CLOSE: u8 = 0x1c;
    /// `CONNECTION_CLOSE` by the application.
    pub const APPLICATION_CLOSE: u8 = 0x1d;
    /// `HANDSHAKE_DONE`.
    pub const HANDSHAKE_DONE: u8 = 0x1e;
    /// DATAGRAM, to the end of the payload.
    pub const DATAGRAM: u8 = 0x30;
    /// DATAGRAM with a length.
    pub const DATAGRAM_LEN: u8 = 0x31;
}

/// A frame, borrowing from the payload it was found in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// So many bytes that mean nothing.
    Padding(usize),
    /// Asks for an acknowledgement.
    Ping,
    /// Packets that have been received.
    Ack(Ack<'a>),
    /// The sender abandons its direction of a stream.
    ResetStream {
        /// The stream.
        id: StreamId,
        /// The application's code.
        code: u64,
        /// Bytes of the stream in all, for flow control.
        final_size: u64,
    },
    /// The sender asks the receiver to abandon its direction of a stream.
    StopSending {
        /// The stream.
        id: StreamId,
        /// The application's code.
        code: u64,
    },
    /// Bytes of the TLS handshake.
    Crypto {
        /// Where they lie in the epoch's handshake stream.
        offset: u64,
        /// The bytes. `offset` plus their length is at most [`VARINT_MAX`].
        data: &'a [u8],
    },
    /// A proof of the client's address: from the server to be repeated, from the client repeated.
    Cookie(&'a [u8]),
    /// Bytes of a stream.
    Stream {
        /// The stream.
        id: StreamId,
        /// Where they lie in the stream.
        offset: u64,
        /// The bytes. `offset` plus their length is at most [`VARINT_MAX`].
        data: &'a [u8],
        /// Whether the stream ends after them.
        fin: bool,
    },
    /// How many bytes the receiver may send on all streams.
    MaxData(u64),
    /// How many bytes the receiver may send on a stream.
    MaxStreamData {
        /// The stream.
        id: StreamId,
        /// Bytes since the stream began.
        max: u64,
    },
    /// How many streams the receiver may open, since the connection began.
    MaxStreams(u64),
    /// The sender has data that the connection's credit does not allow.
    DataBlocked(u64),
    /// The sender has data that the stream's credit does not allow.
    StreamDataBlocked {
        /// The stream.
        id: StreamId,
        /// The credit that is used up.
        max: u64,
    },
    /// The sender would open a stream and may not.
    StreamsBlocked(u64),
    /// A repair symbol: what packets carried can be restored from it.
    Repair(Repair<'a>),
    /// Numbers of packets that did not come, and whose frames were restored, newest first.
    Recovered(AckRanges<'a>),
    /// Asks for the same bytes in a `PATH_RESPONSE`.
    PathChallenge([u8; 8]),
    /// The bytes of a `PATH_CHALLENGE`: they arrived.
    PathResponse([u8; 8]),
    /// The sender closes the connection.
    ConnectionClose {
        /// The application's code, or a [`TransportErrorCode`](crate::TransportErrorCode).
        code: u64,
        /// Whether the application closes it, rather than the transport.
        application: bool,
        /// Words for people, not necessarily UTF-8.
        reason: &'a [u8],
    },
    /// The server has the client's Finished.
    HandshakeDone,
    /// A message of the application that is sent once (RFC 9221).
    Datagram(&'a [u8]),
}

impl Frame<'_> {
    /// Whether a packet with this frame asks for an acknowledgement (RFC 9000 section 13.2).
    pub const fn is_ack_eliciting(&self) -> bool {
        !matches!(
            self,
            Self::Padding(_)
                | Self::Ack(_)
                | Self::Cookie(_)
                | Self::PathChallenge(_)
                | Self::PathResponse(_)
                | Self::ConnectionClose { .. }
        )
    }

    /// Whether a packet with nothing else says nothing of where its sender is (RFC 9000 section 9.1).
    pub const fn is_exploring(&self) -> bool {
        matches!(self, Self::Padding(_) | Self::PathChallenge(_))
    }

    /// Whether it is part of a packet's source symbol: what forward error correction protects (PROTOCOL.md section 12.1).
    pub const fn is_protected(&self) -> bool {
        match self {
            Self::Ping
            | Self::ResetStream { .. }
            | Self::StopSending { .. }
            | Self::Stream { .. }
            | Self::MaxData(_)
            | Self::MaxStreamData { .. }
            | Self::MaxStreams(_)
            | Self::DataBlocked(_)
            | Self::StreamDataBlocked { .. }
            | Self::StreamsBlocked(_)
            | Self::Datagram(_)
            | Self::HandshakeDone => true,
            Self::Padding(_)
            | Self::Ack(_)
            | Self::Crypto { .. }
            | Self::Cookie(_)
            | Self::Repair(_)
            | Self::Recovered(_)
            | Self::PathChallenge(_)
            | Self::PathResponse(_)
            | Self::ConnectionClose { .. } => false,
        }
    }
}

/// The frames of a payload. Ends after the first error.
#[derive(Clone, Debug)]
pub struct FrameIter<'a> {
    rest: &'a [u8],
}

impl<'a> FrameIter<'a> {
    /// The frames of `payload`, a packet's plaintext.
    pub const fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    /// Bytes that have not been read.
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }
}

impl<'a> Iterator for FrameIter<'a> {
    type Item = Result<Frame<'a>, TransportError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (&kind, rest) = self.rest.split_first()?;
        self.rest = rest;
        let frame = read_frame(kind, &mut self.rest);
        if frame.is_err() {
            self.rest = &[];
        }
        Some(frame)
    }
}

fn malformed(reason: &'static str) -> TransportError {
    TransportError::new(TransportErrorCode::FrameEncoding, reason)
}

fn read_frame<'a>(kind: u8, input: &mut &'a [u8]) -> Result<Frame<'a>, TransportError> {
    Ok(match kind {
        frame_type::PADDING => {
            let len = input.iter().position(|&byte| byte != frame_type::PADDING).unwrap_or(input.len());
            *input = &input[len..];
            Frame::Padding(len + 1)
        }
        frame_type::PING => Frame::Ping,
        frame_type::ACK | frame_type::ACK_ECN => {
            let ack = Ack::read(input, kind == frame_type::ACK_ECN);
            Frame::Ack(ack.ok_or_else(|| malformed("ACK frame cut short or with impossible ranges"))?)
        }
        frame_type::RESET_STREAM => {
            Frame::ResetStream { id: read_id(input)?, code: read_integer(input)?, final_size: read_integer(input)? }
        }
        frame_type::STOP_SENDING => Frame::StopSending { id: read_id(input)?, code: read_integer(input)? },
        frame_type::CRYPTO => {
            let offset = read_integer(input)?;
            let data = read_bytes(input)?;
            check_end(offset, data)?;
            Frame::Crypto { offset, data }
        }
        frame_type::COOKIE => match read_bytes(input)? {
            [] => return Err(malformed("empty cookie")),
            cookie if cookie.len() > COOKIE_LEN_MAX => return Err(malformed("cookie too long")),
            cookie => Frame::Cookie(cookie),
        },
        frame_type::STREAM..=frame_type::STREAM_LAST => read_stream(kind, input)?,
        frame_type::MAX_DATA => Frame::MaxData(read_integer(input)?),
        frame_type::MAX_STREAM_DATA => Frame::MaxStreamData { id: read_id(input)?, max: read_integer(input)? },
        frame_type::MAX_STREAMS => Frame::MaxStreams(read_streams(input)?),
        frame_type::DATA_BLOCKED => Frame::DataBlocked(read_integer(input)?),
        frame_type::STREAM_DATA_BLOCKED => Frame::StreamDataBlocked { id: read_id(input)?, max: read_integer(input)? },
        frame_type::STREAMS_BLOCKED => Frame::StreamsBlocked(read_streams(input)?),
        frame_type::REPAIR => {
            let repair = Repair::read(input);
            Frame::Repair(repair.ok_or_else(|| malformed("REPAIR frame cut short or of an impossible group"))?)
        }
        frame_type::RECOVERED => {
            let largest = read_integer(input)?;
            let more = read_integer(input)?;
            let ranges =
                if more < REPAIR_RANGES_MAX as u64 { AckRanges::read(input, largest, more as u16) } else { None };
            Frame::Recovered(ranges.ok_or_else(|| malformed("RECOVERED frame cut short or with impossible ranges"))?)
        }
        frame_type::PATH_CHALLENGE => Frame::PathChallenge(read_array(input)?),
        frame_type::PATH_RESPONSE => Frame::PathResponse(read_array(input)?),
        frame_type::CONNECTION_CLOSE | frame_type::APPLICATION_CLOSE => {
            let code = read_integer(input)?;
            let reason = read_bytes(input)?;
            if reason.len() > REASON_LEN_MAX {
                return Err(malformed("reason of a close too long"));
            }
            Frame::ConnectionClose { code, application: kind == frame_type::APPLICATION_CLOSE, reason }
        }
        frame_type::HANDSHAKE_DONE => Frame::HandshakeDone,
        frame_type::DATAGRAM => Frame::Datagram(std::mem::take(input)),
        frame_type::DATAGRAM_LEN => Frame::Datagram(read_bytes(input)?),
        _ => return Err(malformed("unknown frame type")),
    })
}

fn read_stream<'a>(kind: u8, input: &mut &'a [u8]) -> Result<Frame<'a>, TransportError> {
    let id = read_id(input)?;
    let offset = if kind & frame_type::STREAM_OFF != 0 { read_integer(input)? } else { 0 };
    let data = if kind & frame_type::STREAM_LEN != 0 { read_bytes(input)? } else { std::mem::take(input) };
    check_end(offset, data)?;
    Ok(Frame::Stream { id, offset, data, fin: kind & frame_type::STREAM_FIN != 0 })
}

fn read_integer(input: &mut &[u8]) -> Result<u64, TransportError> {
    varint::read(input).ok_or_else(|| malformed("frame cut short"))
}

fn read_array(input: &mut &[u8]) -> Result<[u8; 8], TransportError> {
    let (bytes, rest) = input.split_first_chunk().ok_or_else(|| malformed("frame cut short"))?;
    *input = rest;
    Ok(*bytes)
}

fn read_id(input: &mut &[u8]) -> Result<StreamId, TransportError> {
    read_integer(input).map(StreamId)
}

fn read_streams(input: &mut &[u8]) -> Result<u64, TransportError> {
    match read_integer(input)? {
        streams @ ..=STREAMS_MAX => Ok(streams),
        _ => Err(malformed("more streams than there are ids")),
    }
}

fn read_bytes<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], TransportError> {
    let len = read_integer(input)?;
    let split = usize::try_from(len).ok().and_then(|len| input.split_at_checked(len));
    let (bytes, rest) = split.ok_or_else(|| malformed("frame cut short"))?;
    *input = rest;
    Ok(bytes)
}

fn check_end(offset: u64, data: &[u8]) -> Result<(), TransportError> {
    if offset + data.len() as u64 > VARINT_MAX {
        return Err(malformed("stream offset beyond 2^62 - 1"));
    }
    Ok(())
}
