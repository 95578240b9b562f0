//! Packets that a server sends without keeping anything: cookies, refusals, resets, version negotiation.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use rand::RngCore;

use super::Transmit;
use crate::crypto::reset::{RESET_LEN_MAX, encode_reset};
use crate::wire::{VERSION_NEGOTIATION_LEN, encode_version_negotiation};
use crate::{Guuid, Time};

/// Packets that wait to be sent at most; one more is dropped like a lost one.
const WAITING_MAX: usize = 256;
/// Answers to packets that prove nothing, per second, and at once.
const ANSWERS_PER_SECOND: u64 = 1000;

/// Where an answer goes, and from which local address.
pub(super) type Target = (SocketAddr, Option<IpAddr>);

/// The queue of such packets.
#[derive(Debug, Default)]
pub(super) struct Stateless {
    waiting: VecDeque<(Target, Vec<u8>)>,
    /// Answers that may go, in billionths; filled over time.
    tokens: u64,
    filled_at: Time,
}

impl Stateless {
    /// Sends a packet, unless too many wait.
    pub(super) fn push(&mut self, target: Target, packet: Vec<u8>) -> bool {
        let has_room = self.waiting.len() < WAITING_MAX;
        if has_room {
            self.waiting.push_back((target, packet));
        }
        has_room
    }

    /// Tells the sender of `trigger`, a packet of another version, which ones are spoken here.
    pub(super) fn negotiate_version(&mut self, now: Time, target: Target, trigger: &[u8]) {
        let mut out = [0; VERSION_NEGOTIATION_LEN];
        if let Some(len) = encode_version_negotiation(trigger, &mut out)
            && self.take_token(now)
        {
            self.push(target, out[..len].to_vec());
        }
    }

    /// Tells the sender of a packet of `trigger_len` bytes that its connection is not known. False if it is not told.
    pub(super) fn reset(
        &mut self,
        now: Time,
        target: Target,
        (guuid, token, trigger_len): (Guuid, &[u8; 16], usize),
        rng: &mut impl RngCore,
    ) -> bool {
        let mut out = [0; RESET_LEN_MAX];
        let Some(len) = encode_reset(guuid, token, trigger_len, rng, &mut out) else { return false };
        self.take_token(now) && self.push(target, out[..len].to_vec())
    }

    /// Whether another answer may go.
    pub(super) fn take_token(&mut self, now: Time) -> bool {
        const TOKEN: u64 = 1_000_000_000;
        let nanos = now.as_nanos().saturating_sub(self.filled_at.as_nanos());
        let burst = ANSWERS_PER_SECOND * TOKEN;
        // The first call comes long after the clock's origin and finds a full bucket.
        self.tokens = self.tokens.saturating_add(nanos.saturating_mul(ANSWERS_PER_SECOND)).min(burst);
        self.filled_at = self.filled_at.max(now);
        let may = self.tokens >= TOKEN;
        if may {
            self.tokens -= TOKEN;
        }
        may
    }

    /// The next packet.
    pub(super) fn poll_transmit(&mut self, buf: &mut [u8]) -> Option<Transmit> {
        let ((remote, local), packet) = self.waiting.pop_front()?;
        buf[..packet.len()].copy_from_slice(&packet);
        Some(Transmit { remote, local, len: packet.len(), segment_size: packet.len(), ecn: 0 })
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
