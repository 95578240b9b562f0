//! Fields of a head: a name, a value, and whether the value is expected again.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{MappingError, varint};

/// Names that cost one byte. Their numbers are part of the protocol: append only.
const NAMES: [&str; 33] = [
    ":path",
    ":status",
    "te",
    "content-type",
    "user-agent",
    "grpc-timeout",
    "grpc-encoding",
    "grpc-accept-encoding",
    "grpc-status",
    "grpc-message",
    "grpc-status-details-bin",
    "grpc-trace-bin",
    "authorization",
    "traceparent",
    "tracestate",
    "baggage",
    "x-request-id",
    "date",
    "server",
    "host",
    "x-forwarded-for",
    "x-forwarded-proto",
    "forwarded",
    "cookie",
    "grpc-previous-rpc-attempts",
    "grpc-retry-pushback-ms",
    "x-user-id",
    "x-session-id",
    "x-session-token",
    "idempotency-key",
    "accept-encoding",
    "accept",
    ":ack",
];

/// Names whose values are different each time, so that no template holds them.
const CHANGING: [&str; 12] = [
    ":ack",
    "grpc-timeout",
    "grpc-status",
    "grpc-message",
    "grpc-status-details-bin",
    "grpc-trace-bin",
    "traceparent",
    "tracestate",
    "baggage",
    "x-request-id",
    "date",
    "idempotency-key",
];

/// One field of a head. The names are lower case, pseudo fields begin with a colon.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Field {
    pub(crate) name: Bytes,
    pub(crate) value: Bytes,
}

impl Field {
    pub(crate) fn new(name: &'static str, value: Bytes) -> Self {
        Self { name: Bytes::from_static(name.as_bytes()), value }
    }

    /// Whether a template may hold the field.
    pub(crate) fn lasting(&self) -> bool {
        !CHANGING.iter().any(|name| name.as_bytes() == self.name)
    }

    /// Bytes that count for a template that holds the field: its own and what keeping it costs.
    pub(crate) fn cost(&self) -> usize {
        self.name.len() + self.value.len() + 32
    }

    /// `varint(number << 1 | templated)`, number 0: `varint(length) name` follows; then `varint(length) value`.
    pub(super) fn encode(&self, out: &mut BytesMut, templated: bool) {
        let number = NAMES.iter().position(|name| name.as_bytes() == self.name).map_or(0, |at| at as u64 + 1);
        varint::put(out, number << 1 | u64::from(templated));
        if number == 0 {
            varint::put(out, self.name.len() as u64);
            out.put_slice(&self.name);
        }
        varint::put(out, self.value.len() as u64);
        out.put_slice(&self.value);
    }

    /// The field at the front of `block`, and whether the template that the head defines holds it.
    pub(super) fn decode(block: &mut Bytes) -> Result<(Self, bool), MappingError> {
        let tag = varint::get(block)?;
        let name = match tag >> 1 {
            0 => take(block)?,
            number => {
                let name = NAMES.get(number as usize - 1).ok_or(MappingError::UnknownEntry(number))?;
                Bytes::from_static(name.as_bytes())
            }
        };
        Ok((Self { name, value: take(block)? }, tag & 1 == 1))
    }
}

fn take(block: &mut Bytes) -> Result<Bytes, MappingError> {
    let len = varint::get(block)?;
    if len > block.remaining() as u64 {
        return Err(MappingError::Truncated);
    }
    Ok(block.split_to(len as usize))
}
