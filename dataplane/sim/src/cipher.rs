//! How packets are protected in a world: by TLS 1.3 as outside of it, or by nothing at all.
//!
//! With the null cipher the payload of a packet can be read, so that a world can check what its endpoints say, and nothing
//! is random, so that a trace covers every byte. Its handshake takes the messages and the round trips of TLS.

use std::collections::VecDeque;

use quantum::session::{KeyPair, KeyUpdates, PacketKey, Provider, Session, SessionError, TAG_LEN};
use quantum::wire::{Epoch, Header};
use quantum::{Alpn, ConnectError, ConnectOptions, Guuid, Side};

/// How packets are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cipher {
    /// TLS 1.3, as outside of the simulator. Its messages always have the same lengths here.
    Tls,
    /// Nothing: a checksum finds packets that were corrupted.
    Null,
}

/// Messages of the handshake: a type, a length, a body.
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const PARAMETERS: u8 = 8;
const FINISHED: u8 = 20;
const HEAD_LEN: usize = 3;
/// Bodies have so many bytes at least: about what TLS sends with a post-quantum key share and one certificate.
const HELLO_LEN: usize = 1_490;
const SERVER_HELLO_LEN: usize = 1_210;
const PARAMETERS_LEN: usize = 700;
const FINISHED_LEN: usize = 36;

/// Alerts of TLS that fit (RFC 8446 section 6).
const UNEXPECTED_MESSAGE: u8 = 10;
const DECODE_ERROR: u8 = 50;
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// Makes handshakes without secrets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NullProvider {
    /// It takes connections.
    pub(crate) accepts: bool,
}

impl Provider for NullProvider {
    fn initial_keys(&self, _guuid: Guuid, side: Side) -> KeyPair {
        keys(Epoch::Initial, side)
    }

    fn connect(&self, options: &ConnectOptions, parameters: Vec<u8>) -> Result<Box<dyn Session>, ConnectError> {
        let mut session = NullSession::new(Side::Client, Vec::new());
        session.alpn = Some(options.alpn);
        let mut body = vec![options.alpn.name().len() as u8];
        body.extend_from_slice(options.alpn.name());
        body.extend_from_slice(&(parameters.len() as u16).to_be_bytes());
        body.extend_from_slice(&parameters);
        session.say(CLIENT_HELLO, body, HELLO_LEN);
        Ok(Box::new(session))
    }

    fn accepts(&self) -> bool {
        self.accepts
    }

    fn accept(&self, parameters: Vec<u8>) -> Option<Box<dyn Session>> {
        self.accepts.then(|| Box::new(NullSession::new(Side::Server, parameters)) as Box<dyn Session>)
    }
}

/// What a session has to say next.
enum Step {
    Bytes(Vec<u8>),
    Keys(Epoch),
}

struct NullSession {
    side: Side,
    /// What the server announces.
    parameters: Vec<u8>,
    /// Bytes of a message that is not complete.
    inbox: Vec<u8>,
    outbox: VecDeque<Step>,
    /// The message that comes next; none once the handshake is over.
    expected: Option<u8>,
    peer_parameters: Option<Vec<u8>>,
    alpn: Option<Alpn>,
}

impl NullSession {
    fn new(side: Side, parameters: Vec<u8>) -> Self {
        let expected = if side == Side::Client { SERVER_HELLO } else { CLIENT_HELLO };
        Self {
            side,
            parameters,
            inbox: Vec::new(),
            outbox: VecDeque::new(),
            expected: Some(expected),
            peer_parameters: None,
            alpn: None,
        }
    }

    /// Says a message with that body, made longer to `len` bytes.
    fn say(&mut self, kind: u8, mut body: Vec<u8>, len: usize) {
        body.resize(body.len().max(len), 0);
        let mut message = vec![kind];
        message.extend_from_slice(&(body.len() as u16).to_be_bytes());
        message.extend_from_slice(&body);
        self.outbox.push_back(Step::Bytes(message));
    }

    fn on_message(&mut self, kind: u8, body: &[u8]) -> Result<(), SessionError> {
        if self.expected != Some(kind) {
            return Err(SessionError { alert: UNEXPECTED_MESSAGE, reason: format!("message {kind}") });
        }
        match kind {
            CLIENT_HELLO => {
                let (name, rest) = bytes_after_len(body, 1)?;
                self.alpn = Alpn::from_name(name);
                if self.alpn.is_none() {
                    let reason = "no common application protocol".to_owned();
                    return Err(SessionError { alert: NO_APPLICATION_PROTOCOL, reason });
                }
                self.peer_parameters = Some(bytes_after_len(rest, 2)?.0.to_vec());
                self.say(SERVER_HELLO, Vec::new(), SERVER_HELLO_LEN);
                self.outbox.push_back(Step::Keys(Epoch::Handshake));
                let mut body = (self.parameters.len() as u16).to_be_bytes().to_vec();
                body.extend_from_slice(&self.parameters);
                self.say(PARAMETERS, body, PARAMETERS_LEN);
                self.outbox.push_back(Step::Keys(Epoch::OneRtt0));
                self.expected = Some(FINISHED);
            }
            SERVER_HELLO => {
                self.outbox.push_back(Step::Keys(Epoch::Handshake));
                self.expected = Some(PARAMETERS);
            }
            PARAMETERS => {
                self.peer_parameters = Some(bytes_after_len(body, 2)?.0.to_vec());
                self.say(FINISHED, Vec::new(), FINISHED_LEN);
                self.outbox.push_back(Step::Keys(Epoch::OneRtt0));
                self.expected = None;
            }
            _ => self.expected = None,
        }
        Ok(())
    }
}

/// The bytes after their length, which has `len_len` bytes, and what follows.
fn bytes_after_len(input: &[u8], len_len: usize) -> Result<(&[u8], &[u8]), SessionError> {
    let cut = || SessionError { alert: DECODE_ERROR, reason: "a message is cut short".to_owned() };
    let (len, rest) = input.split_at_checked(len_len).ok_or_else(cut)?;
    let len = len.iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
    rest.split_at_checked(len).ok_or_else(cut)
}

impl Session for NullSession {
    fn read(&mut self, data: &[u8]) -> Result<(), SessionError> {
        self.inbox.extend_from_slice(data);
        while let Some(&[kind, high, low]) = self.inbox.first_chunk::<HEAD_LEN>() {
            let end = HEAD_LEN + usize::from(u16::from_be_bytes([high, low]));
            if self.inbox.len() < end {
                break;
            }
            let rest = self.inbox.split_off(end);
            let message = std::mem::replace(&mut self.inbox, rest);
            self.on_message(kind, &message[HEAD_LEN..])?;
        }
        Ok(())
    }

    fn write(&mut self, out: &mut Vec<u8>) -> Option<(Epoch, KeyPair)> {
        loop {
            match self.outbox.pop_front()? {
                Step::Bytes(bytes) => out.extend_from_slice(&bytes),
                Step::Keys(epoch) => return Some((epoch, keys(epoch, self.side))),
            }
        }
    }

    fn is_handshaking(&self) -> bool {
        self.expected.is_some()
    }

    fn peer_parameters(&self) -> Option<Vec<u8>> {
        self.peer_parameters.clone()
    }

    fn alpn(&self) -> Option<Alpn> {
        self.alpn
    }

    fn key_updates(&mut self) -> Option<Box<dyn KeyUpdates>> {
        Some(Box::new(NullKeyUpdates { side: self.side, phase: 0 }))
    }
}

/// Keys that differ from phase to phase.
struct NullKeyUpdates {
    side: Side,
    phase: u64,
}

impl KeyUpdates for NullKeyUpdates {
    fn next_keys(&mut self) -> KeyPair {
        self.phase += 1;
        phase_keys(Epoch::OneRtt0, self.side, self.phase)
    }
}

/// Seals a packet again that was changed: what a hostile peer with the connection's keys can do. Nothing, if it is none.
pub(crate) fn seal_again(sender: Side, segment: &mut [u8]) {
    let Ok((header, _)) = Header::decode(segment) else { return };
    let Some(start) = segment.len().checked_sub(usize::from(header.payload_len)) else { return };
    if usize::from(header.payload_len) >= TAG_LEN {
        let (head, payload) = segment.split_at_mut(start);
        let pair = match header.epoch {
            Epoch::OneRtt1 => phase_keys(Epoch::OneRtt0, sender, 1),
            epoch => keys(epoch, sender),
        };
        pair.local.seal(u64::from(header.sequence), head, payload);
    }
}

fn keys(epoch: Epoch, side: Side) -> KeyPair {
    phase_keys(epoch, side, 0)
}

fn phase_keys(epoch: Epoch, side: Side, phase: u64) -> KeyPair {
    let salt = phase << 4 | u64::from(epoch.bits()) << 1;
    let key = |side: Side| Box::new(NullKey { salt: salt | u64::from(side == Side::Server) });
    let other = if side == Side::Client { Side::Server } else { Side::Client };
    KeyPair { local: key(side), remote: key(other) }
}

/// The plaintext, and a checksum over everything that sealing protects.
struct NullKey {
    salt: u64,
}

impl NullKey {
    fn tag(&self, number: u64, header: &[u8], plaintext: &[u8]) -> [u8; TAG_LEN] {
        let mut sum = mix(self.salt ^ 0x9e37_79b9_7f4a_7c15, number);
        for part in [header, plaintext] {
            sum = mix(sum, part.len() as u64);
            for chunk in part.chunks(8) {
                let word = chunk.iter().fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
                sum = mix(sum, word);
            }
        }
        u128::from(sum).wrapping_mul(0x0001_0000_0000_01b3_0000_0000_0000_0001).to_be_bytes()
    }
}

/// A step of a checksum: a flipped bit changes every one after it.
const fn mix(sum: u64, word: u64) -> u64 {
    let mixed = (sum ^ word).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 29)
}

impl PacketKey for NullKey {
    fn seal(&self, number: u64, header: &[u8], payload: &mut [u8]) {
        let (plaintext, tag) = payload.split_at_mut(payload.len() - TAG_LEN);
        tag.copy_from_slice(&self.tag(number, header, plaintext));
    }

    fn open(&self, number: u64, header: &[u8], payload: &mut [u8]) -> Option<usize> {
        let len = payload.len().checked_sub(TAG_LEN)?;
        let (plaintext, tag) = payload.split_at(len);
        (tag == self.tag(number, header, plaintext)).then_some(len)
    }

    fn packets_max(&self) -> u64 {
        u64::MAX
    }

    fn failures_max(&self) -> u64 {
        u64::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_anywhere_is_found() {
        let pair = (keys(Epoch::OneRtt0, Side::Client), keys(Epoch::OneRtt0, Side::Server));
        let (header, plaintext) = ([5_u8; 40], [9_u8; 50]);
        let mut sealed = [&plaintext[..], &[0; TAG_LEN]].concat();
        pair.0.local.seal(7, &header, &mut sealed);
        assert_eq!(pair.1.remote.open(7, &header, &mut sealed.clone()), Some(50));
        assert_eq!(pair.1.remote.open(8, &header, &mut sealed.clone()), None);
        assert_eq!(pair.1.local.open(7, &header, &mut sealed.clone()), None, "the other direction");
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(pair.1.remote.open(7, &header, &mut flipped), None);
        }
        for bit in 0..header.len() * 8 {
            let mut flipped = header;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(pair.1.remote.open(7, &flipped, &mut sealed.clone()), None);
        }
    }

    #[test]
    fn messages_that_are_cut_or_out_of_turn_end_a_handshake() {
        let mut server = NullSession::new(Side::Server, Vec::new());
        assert_eq!(server.read(&[FINISHED, 0, 0]).map_err(|error| error.alert), Err(UNEXPECTED_MESSAGE));
        let mut server = NullSession::new(Side::Server, Vec::new());
        assert_eq!(server.read(&[CLIENT_HELLO, 0, 2, 9, 9]).map_err(|error| error.alert), Err(DECODE_ERROR));
        let mut server = NullSession::new(Side::Server, Vec::new());
        assert_eq!(server.read(&[CLIENT_HELLO, 0, 1, 0]).map_err(|error| error.alert), Err(NO_APPLICATION_PROTOCOL));
    }
}
