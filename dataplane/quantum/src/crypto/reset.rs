//! Stateless resets: how an endpoint that lost a connection's state tells the peer so (RFC 9000 section 10.3).

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use rand::RngCore;

use crate::Guuid;
use crate::wire::{Epoch, Flags, HEADER_LEN, Header, VERSION};

/// Bytes of a stateless reset token.
pub(crate) const RESET_TOKEN_LEN: usize = 16;
/// Bytes of the longest stateless reset.
pub(crate) const RESET_LEN_MAX: usize = RESET_LEN_MIN + PADDING_LEN_MAX;

const RESET_LEN_MIN: usize = HEADER_LEN + RESET_TOKEN_LEN;
const PADDING_LEN_MAX: usize = 16;

/// The token that proves a reset of the connection to come from the node with that key.
pub(crate) fn reset_token(node_key: &[u8; 32], guuid: Guuid) -> [u8; RESET_TOKEN_LEN] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, node_key));
    context.update(b"quantum stateless reset");
    context.update(guuid.as_bytes());
    *context.sign().as_ref().first_chunk().expect("an HMAC-SHA256 has 32 bytes")
}

/// Writes a stateless reset that answers a packet of `trigger_len` bytes to the front of `out` and gives its length. It is
/// shorter than its trigger, so two endpoints without state do not answer each other for ever; `None` if it cannot be.
///
/// # Panics
/// If `out` is shorter than [`RESET_LEN_MAX`].
pub(crate) fn encode_reset(
    guuid: Guuid,
    token: &[u8; RESET_TOKEN_LEN],
    trigger_len: usize,
    rng: &mut impl RngCore,
    out: &mut [u8],
) -> Option<usize> {
    let room = trigger_len.checked_sub(RESET_LEN_MIN + 1)?;
    let padding_len = room.min(rng.next_u32() as usize % (PADDING_LEN_MAX + 1));
    let payload_len = padding_len + RESET_TOKEN_LEN;
    let header = Header {
        version: VERSION,
        epoch: Epoch::OneRtt0,
        flags: Flags::RST,
        guuid,
        sequence: rng.next_u32(),
        ack: rng.next_u32(),
        payload_len: payload_len as u16,
    };
    header.encode(out);
    let (padding, rest) = out[HEADER_LEN..].split_at_mut(padding_len);
    rng.fill_bytes(padding);
    rest[..RESET_TOKEN_LEN].copy_from_slice(token);
    Some(HEADER_LEN + payload_len)
}

/// Whether `segment`, a packet of the connection that failed authentication, is a stateless reset with `expected_token`.
/// Takes the same time whatever the token.
pub(crate) fn is_reset(segment: &[u8], expected_token: &[u8; RESET_TOKEN_LEN]) -> bool {
    let Ok((header, _)) = Header::decode(segment) else { return false };
    if !header.flags.contains(Flags::RST) || usize::from(header.payload_len) < RESET_TOKEN_LEN {
        return false;
    }
    let token = &segment[segment.len() - RESET_TOKEN_LEN..];
    verify_slices_are_equal(token, expected_token).is_ok()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const GUUID: Guuid = Guuid([3; 16]);

    #[test]
    fn a_reset_is_recognised_and_shorter_than_its_trigger() {
        let mut rng = StdRng::from_seed([1; 32]);
        let token = reset_token(&[9; 32], GUUID);
        let mut out = [0; RESET_LEN_MAX];
        let mut lens = [false; RESET_LEN_MAX + 1];
        for trigger_len in (0..=80).chain([1200, 65_527]).cycle().take(20_000) {
            match encode_reset(GUUID, &token, trigger_len, &mut rng, &mut out) {
                Some(len) => {
                    assert!(len < trigger_len && is_reset(&out[..len], &token));
                    assert_eq!(Header::decode(&out[..len]).expect("a packet").0.guuid, GUUID);
                    lens[len] = true;
                }
                None => assert!(trigger_len <= HEADER_LEN + RESET_TOKEN_LEN),
            }
        }
        assert!(lens[RESET_LEN_MIN..].iter().all(|&seen| seen), "every length comes up");
    }

    #[test]
    fn a_reset_with_another_token_or_without_the_flag_is_none() {
        let mut rng = StdRng::from_seed([1; 32]);
        let token = reset_token(&[9; 32], GUUID);
        let mut out = [0; RESET_LEN_MAX];
        let len = encode_reset(GUUID, &token, 1200, &mut rng, &mut out).expect("room enough");
        assert!(!is_reset(&out[..len], &reset_token(&[8; 32], GUUID)), "another node");
        assert!(!is_reset(&out[..len], &reset_token(&[9; 32], Guuid([4; 16]))), "another connection");
        assert!(!is_reset(&out[..len - 1], &token), "cut short");
        out[5] = 0;
        assert!(!is_reset(&out[..len], &token), "no RST flag");
        assert!(!is_reset(&[], &token));
    }

    #[test]
    fn a_token_depends_on_every_bit_of_key_and_id() {
        let token = reset_token(&[9; 32], GUUID);
        for bit in 0..256 {
            let mut key = [9; 32];
            key[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(reset_token(&key, GUUID), token);
        }
        for bit in 0..128 {
            let mut id = GUUID.0;
            id[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(reset_token(&[9; 32], Guuid(id)), token);
        }
    }
}
