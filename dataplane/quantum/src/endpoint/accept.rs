//! Packets of connections that the endpoint does not know: the first one of a client, or none of its business.

use super::stateless::Target;
use super::{Endpoint, Source};
use crate::connection::{Arrival, Connection, ConnectionId, FIRST_NUMBER, SYN_SIZE, Start};
use crate::crypto::reset::reset_token;
use crate::crypto::session::{KeyPair, TAG_LEN};
use crate::params::TransportParameters;
use crate::wire::{Epoch, Flags, Frame, FrameIter, FrameWriter, HEADER_LEN, Header, SackBlocks, VERSION, expand};
use crate::{Guuid, Side, Time, TransportErrorCode};

use rand::RngCore;

/// Bytes of an answer to a SYN at most.
const ANSWER_LEN_MAX: usize = 128;

impl Endpoint {
    /// A packet for a GUUID that no connection has.
    pub(super) fn on_unknown(&mut self, now: Time, source: Source, arrival: &Arrival, segment: &mut [u8]) {
        let header = &arrival.header;
        if !self.provider.accepts() || self.is_closed {
            self.stats.unknown += 1;
        } else if header.epoch.is_one_rtt() {
            self.stats.unknown += 1;
            if !header.flags.contains(Flags::RST) {
                let token = reset_token(&self.config.node_key, header.guuid);
                let target = (source.remote, source.local);
                let answer = (header.guuid, &token, segment.len());
                self.stats.resets_sent += u64::from(self.stateless.reset(now, target, answer, &mut self.rng));
            }
        } else if header.epoch == Epoch::Initial
            && header.flags.contains(Flags::SYN)
            && segment.len() >= usize::from(SYN_SIZE)
        {
            self.on_syn(now, source, arrival, segment);
        } else {
            self.stats.unknown += 1;
        }
    }

    /// The first packet of a client. It is opened before anything is kept.
    fn on_syn(&mut self, now: Time, source: Source, arrival: &Arrival, segment: &mut [u8]) {
        let guuid = arrival.header.guuid;
        let number = expand(arrival.header.sequence, FIRST_NUMBER);
        if number < FIRST_NUMBER || self.recent.contains(now, guuid) {
            self.stats.refused += 1;
            return;
        }
        let keys = self.provider.initial_keys(guuid, Side::Server);
        let size = segment.len() as u64;
        let (head, payload) = segment.split_at_mut(segment.len() - usize::from(arrival.header.payload_len));
        let Some(len) = keys.remote.open(number, head, payload) else {
            self.stats.unauthenticated += 1;
            return;
        };
        let payload = &payload[..len];
        let (mut cookie, mut has_hello) = (None, false);
        for frame in FrameIter::new(payload) {
            match frame {
                Ok(Frame::Cookie(token)) => cookie = Some(token),
                Ok(Frame::Crypto { data, .. }) => has_hello |= !data.is_empty(),
                Ok(_) => {}
                Err(_) => has_hello = false,
            }
        }
        if !has_hello {
            self.stats.malformed += 1;
            return;
        }
        let target = (source.remote, source.local);
        let validated = cookie.is_some_and(|token| self.cookies.verify(now, source.remote, guuid, token));
        if self.slots.len() >= self.config.connections_max {
            self.refuse(now, target, guuid, &keys);
        } else if !validated && self.slots.half_open() >= self.config.security.handshakes_without_cookie {
            self.ask_for_cookie(now, target, guuid, &keys);
        } else if let Some(mut connection) = self.start_server(now, source, guuid, (keys, validated)) {
            self.observe_connection(now, &mut connection);
            connection.take_in(now, arrival, number, (payload, size));
            let handle = self.slots.insert(connection);
            self.touch(handle);
        }
    }

    fn start_server(
        &mut self,
        now: Time,
        source: Source,
        guuid: Guuid,
        (initial_keys, validated): (KeyPair, bool),
    ) -> Option<Connection> {
        let token = reset_token(&self.config.node_key, guuid);
        let parameters = TransportParameters::local(&self.config, Some(token)).encode();
        let start = Start {
            id: ConnectionId { guuid, side: Side::Server },
            remote: source.remote,
            local: source.local,
            validated,
            initial_keys,
            session: self.provider.accept(parameters)?,
            seed: self.rng.next_u64(),
        };
        Some(Connection::new(now, &self.config, start))
    }

    fn refuse(&mut self, now: Time, target: Target, guuid: Guuid, keys: &KeyPair) {
        self.stats.refused += 1;
        if self.stateless.take_token(now) {
            let code = TransportErrorCode::ConnectionRefused as u64;
            let packet = seal_answer(guuid, keys, Flags::SYN | Flags::FIN, |writer| {
                writer.connection_close(code, false, b"the server takes no more connections")
            });
            self.stateless.push(target, packet);
        }
    }

    fn ask_for_cookie(&mut self, now: Time, target: Target, guuid: Guuid, keys: &KeyPair) {
        let cookie = self.cookies.issue(now, target.0, guuid);
        let packet = seal_answer(guuid, keys, Flags::SYN, |writer| writer.cookie(&cookie));
        self.stats.cookies_sent += u64::from(self.stateless.push(target, packet));
    }
}

/// A packet of epoch 0 with number 0 and one frame.
fn seal_answer(
    guuid: Guuid,
    keys: &KeyPair,
    flags: Flags,
    write: impl FnOnce(&mut FrameWriter<'_>) -> bool,
) -> Vec<u8> {
    let mut out = vec![0; ANSWER_LEN_MAX];
    let mut writer = FrameWriter::new(&mut out[HEADER_LEN..ANSWER_LEN_MAX - TAG_LEN]);
    let fits = write(&mut writer);
    debug_assert!(fits, "an answer is short");
    let payload_len = writer.written() + TAG_LEN;
    let header = Header {
        version: VERSION,
        epoch: Epoch::Initial,
        flags,
        guuid,
        sequence: 0,
        ack: 0,
        payload_len: payload_len as u16,
    };
    header.encode(&mut out);
    debug_assert!(SackBlocks::new().encoded_len() == 0, "an answer acknowledges nothing");
    out.truncate(HEADER_LEN + payload_len);
    let (head, payload) = out.split_at_mut(HEADER_LEN);
    keys.local.seal(0, head, payload);
    out
}
