//! Transport parameters: what each side allows the other, exchanged inside the TLS handshake (RFC 9000 section 18).

use std::time::Duration;

use crate::recovery::ACK_DELAY_MAX;
use crate::wire::{REPAIR_MEMBERS_MAX, varint};
use crate::{EndpointConfig, FecMode, TransportError, TransportErrorCode};

/// Parameters that are longer than this are refused.
const PARAMETERS_BYTES_MAX: usize = 1024;

const IDLE_TIMEOUT_MS: u64 = 0x01;
const DATAGRAM_SIZE_MAX: u64 = 0x03;
const CONNECTION_WINDOW: u64 = 0x04;
const STREAM_WINDOW: u64 = 0x05;
const STREAMS_MAX: u64 = 0x08;
const ACK_DELAY_MAX_US: u64 = 0x0b;
const RESET_TOKEN: u64 = 0x0c;
const ANSWERS_CHALLENGES: u64 = 0x1e;
const FEC_MEMBERS_MAX: u64 = 0x1f;
/// RFC 9221 section 3.
const DATAGRAM_FRAME_MAX: u64 = 0x20;
const TAKES_TICKETS: u64 = 0x21;
/// Ids of known parameters are below this.
const IDS_MAX: usize = 0x22;

/// Parameters whose value is an integer.
const KNOWN: [u64; 10] = [
    IDLE_TIMEOUT_MS,
    DATAGRAM_SIZE_MAX,
    CONNECTION_WINDOW,
    STREAM_WINDOW,
    STREAMS_MAX,
    ACK_DELAY_MAX_US,
    ANSWERS_CHALLENGES,
    FEC_MEMBERS_MAX,
    DATAGRAM_FRAME_MAX,
    TAKES_TICKETS,
];

/// What one side of a connection announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TransportParameters {
    pub(crate) idle_timeout: Duration,
    pub(crate) datagram_size_max: u16,
    pub(crate) connection_window: u64,
    pub(crate) stream_window: u64,
    pub(crate) streams_max: u64,
    pub(crate) ack_delay_max: Duration,
    /// Packets of a group of forward error correction that it takes at most; none: it takes no repair symbols.
    pub(crate) fec_members_max: u64,
    /// Bytes of the longest DATAGRAM frame that it takes; none: it takes no datagrams.
    pub(crate) datagram_frame_max: u64,
    /// It answers `PATH_CHALLENGE`.
    pub(crate) answers_challenges: bool,
    /// It takes session tickets after the handshake; a client's.
    pub(crate) takes_tickets: bool,
    pub(crate) reset_token: Option<[u8; 16]>,
}

impl TransportParameters {
    /// What an endpoint with `config` announces; a server adds its reset token for the connection.
    pub(crate) fn local(config: &EndpointConfig, reset_token: Option<[u8; 16]>) -> Self {
        Self {
            idle_timeout: config.idle_timeout,
            datagram_size_max: u16::MAX,
            connection_window: config.connection_window,
            stream_window: config.stream_window,
            streams_max: config.streams_max,
            ack_delay_max: ACK_DELAY_MAX,
            datagram_frame_max: u64::from(config.datagrams.frame_bytes_max),
            takes_tickets: config.security.early_data && reset_token.is_none(),
            fec_members_max: if config.fec.mode == FecMode::Off { 0 } else { REPAIR_MEMBERS_MAX },
            answers_challenges: true,
            reset_token,
        }
    }

    /// The parameters as a list of (id, length, value), all varints but the token.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(80);
        let values = [
            (IDLE_TIMEOUT_MS, self.idle_timeout.as_millis() as u64),
            (DATAGRAM_SIZE_MAX, u64::from(self.datagram_size_max)),
            (CONNECTION_WINDOW, self.connection_window),
            (STREAM_WINDOW, self.stream_window),
            (STREAMS_MAX, self.streams_max),
            (ANSWERS_CHALLENGES, u64::from(self.answers_challenges)),
            (ACK_DELAY_MAX_US, self.ack_delay_max.as_micros() as u64),
        ];
        let fec = (self.fec_members_max > 0).then_some((FEC_MEMBERS_MAX, self.fec_members_max));
        let datagrams = (self.datagram_frame_max > 0).then_some((DATAGRAM_FRAME_MAX, self.datagram_frame_max));
        let tickets = self.takes_tickets.then_some((TAKES_TICKETS, 1));
        for (id, value) in values.into_iter().chain(fec).chain(datagrams).chain(tickets) {
            put_varint(&mut out, id);
            put_varint(&mut out, varint::len(value) as u64);
            put_varint(&mut out, value);
        }
        if let Some(token) = self.reset_token {
            put_varint(&mut out, RESET_TOKEN);
            put_varint(&mut out, token.len() as u64);
            out.extend_from_slice(&token);
        }
        out
    }

    /// Reads what the peer announced. Unknown parameters are passed over; one that is given twice or absurd is a fault.
    pub(crate) fn decode(mut input: &[u8]) -> Result<Self, TransportError> {
        if input.len() > PARAMETERS_BYTES_MAX {
            return Err(fault("transport parameters are too long"));
        }
        let mut values: [Option<u64>; IDS_MAX] = [None; IDS_MAX];
        let mut reset_token = None;
        while !input.is_empty() {
            let id = take_varint(&mut input)?;
            let len = take_varint(&mut input)? as usize;
            let (value, rest) = input.split_at_checked(len).ok_or(fault("a transport parameter is cut off"))?;
            input = rest;
            if id == RESET_TOKEN {
                let token = value.try_into().map_err(|_| fault("a reset token has 16 bytes"))?;
                if reset_token.replace(token).is_some() {
                    return Err(fault("a transport parameter is given twice"));
                }
            } else if KNOWN.contains(&id) {
                let slot = &mut values[id as usize];
                let mut rest = value;
                let number = take_varint(&mut rest)?;
                if !rest.is_empty() || slot.replace(number).is_some() {
                    return Err(fault("a transport parameter is malformed or given twice"));
                }
            }
        }
        let get = |id: u64| values[id as usize];
        let need = |id: u64| get(id).ok_or(fault("a transport parameter is missing"));
        let datagram_size_max = get(DATAGRAM_SIZE_MAX).unwrap_or(u64::from(u16::MAX)).min(u64::from(u16::MAX)) as u16;
        if datagram_size_max < crate::connection::SYN_SIZE {
            return Err(fault("the peer takes no datagrams of 1200 bytes"));
        }
        Ok(Self {
            idle_timeout: Duration::from_millis(need(IDLE_TIMEOUT_MS)?),
            datagram_size_max,
            connection_window: need(CONNECTION_WINDOW)?,
            stream_window: need(STREAM_WINDOW)?,
            streams_max: need(STREAMS_MAX)?.min(1 << 60),
            ack_delay_max: Duration::from_micros(get(ACK_DELAY_MAX_US).unwrap_or(0).min(1 << 24)),
            datagram_frame_max: get(DATAGRAM_FRAME_MAX).unwrap_or(0),
            takes_tickets: get(TAKES_TICKETS).unwrap_or(0) > 0,
            fec_members_max: get(FEC_MEMBERS_MAX).unwrap_or(0),
            answers_challenges: get(ANSWERS_CHALLENGES).is_some_and(|value| value > 0),
            reset_token,
        })
    }
}

fn fault(reason: &'static str) -> TransportError {
    TransportError::new(TransportErrorCode::TransportParameter, reason)
}

fn put_varint(out: &mut Vec<u8>, value: u64) {
    let mut buf = [0; 8];
    let len = varint::write(value, &mut buf).expect("eight bytes hold any integer");
    out.extend_from_slice(&buf[..len]);
}

fn take_varint(input: &mut &[u8]) -> Result<u64, TransportError> {
    varint::read(input).ok_or(fault("a transport parameter is cut off"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_survive_the_wire() {
        let config = EndpointConfig::default();
        for token in [None, Some([7; 16])] {
            let parameters = TransportParameters::local(&config, token);
            assert_eq!(TransportParameters::decode(&parameters.encode()), Ok(parameters));
        }
    }

    #[test]
    fn cut_or_doubled_parameters_are_refused() {
        let encoded = TransportParameters::local(&EndpointConfig::default(), Some([7; 16])).encode();
        // The last five, whether challenges are answered, the delay of acknowledgements, forward error correction, datagrams and
        // the token, may be absent.
        let whole = [18 + 4 + 4 + 4 + 3, 18 + 4 + 4 + 4, 18 + 4 + 4, 18 + 4, 18].map(|absent| encoded.len() - absent);
        for len in 0..encoded.len() {
            assert_eq!(TransportParameters::decode(&encoded[..len]).is_ok(), whole.contains(&len), "cut at {len}");
        }
        assert!(TransportParameters::decode(&[&encoded[..], &encoded[..]].concat()).is_err());
        assert!(TransportParameters::decode(&vec![0; PARAMETERS_BYTES_MAX + 1]).is_err());
    }
}
