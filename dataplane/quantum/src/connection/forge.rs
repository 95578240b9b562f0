//! Packets that no connection sends, sealed with its keys: a hostile peer, for tests.

use super::Connection;
use crate::crypto::session::TAG_LEN;
use crate::wire::{Epoch, Flags, HEADER_LEN, Header, SackBlock, SackBlocks, VERSION};

/// Such a packet.
#[derive(Clone, Debug)]
pub(crate) struct Forged {
    pub(crate) epoch: Epoch,
    /// The connection's next one if not given.
    pub(crate) number: Option<u64>,
    pub(crate) flags: Flags,
    pub(crate) ack: u32,
    pub(crate) blocks: Vec<(u32, u32)>,
    pub(crate) plaintext: Vec<u8>,
}

impl Forged {
    /// Frames, in a packet with the connection's next number.
    pub(crate) fn frames(epoch: Epoch, plaintext: &[u8]) -> Self {
        let flags = if epoch.is_application() { Flags::NONE } else { Flags::SYN };
        Self { epoch, number: None, flags, ack: 0, blocks: Vec::new(), plaintext: plaintext.to_vec() }
    }

    /// An acknowledgement by blocks, which may be impossible.
    pub(crate) fn acks(epoch: Epoch, ack: u32, blocks: &[(u32, u32)]) -> Self {
        let frames = Self::frames(epoch, &[]);
        Self { flags: frames.flags | Flags::ACK, ack, blocks: blocks.to_vec(), ..frames }
    }
}

impl Connection {
    /// Seals the packet; `None` if the keys of its epoch are not there.
    pub(crate) fn forge(&mut self, forged: &Forged) -> Option<Vec<u8>> {
        let is_other_phase = forged.epoch.is_one_rtt() && forged.epoch != self.keys.epoch_on_wire(forged.epoch);
        let key = match self.keys.phases() {
            Some(phases) if is_other_phase => phases.next_local()?,
            _ => self.keys.local(forged.epoch)?,
        };
        let number = forged.number.unwrap_or(self.pending.number);
        self.pending.number = self.pending.number.max(number + 1);
        let mut blocks = SackBlocks::new();
        for &(start, end) in &forged.blocks {
            assert!(blocks.push(SackBlock { start, end }), "a header holds eight blocks");
        }
        let payload_len = forged.plaintext.len() + TAG_LEN;
        let head = HEADER_LEN + blocks.encoded_len();
        let mut out = vec![0; head + payload_len];
        let header = Header {
            version: VERSION,
            epoch: forged.epoch,
            flags: forged.flags,
            guuid: self.id.guuid,
            sequence: number as u32,
            ack: forged.ack,
            payload_len: payload_len as u16,
        };
        header.encode(&mut out);
        blocks.encode(&mut out[HEADER_LEN..]);
        out[head..][..forged.plaintext.len()].copy_from_slice(&forged.plaintext);
        let (head, payload) = out.split_at_mut(head);
        key.seal(number, head, payload);
        Some(out)
    }

    /// Goes on with that number, as after so many packets.
    pub(crate) fn skip_to(&mut self, number: u64) {
        assert!(number >= self.pending.number, "a number is used once");
        self.pending.number = number;
    }

    /// The number that its next packet gets.
    pub(crate) fn next_number(&self) -> u64 {
        self.pending.number
    }

    /// Ranges kept to tell duplicates, and to report.
    pub(crate) fn ranges_kept(&self) -> (usize, usize) {
        self.received.ranges_kept()
    }

    /// Its 1-RTT key has sealed all but so many of the packets that it may.
    pub(crate) fn wear_key(&mut self, left: u64) {
        self.keys.phases().expect("the handshake is complete").wear(left);
    }
}
