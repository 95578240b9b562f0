//! Bytes that nobody meant to be a packet.

use proptest::collection::vec;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

use super::tests::{frames, header, packet};
use super::varint::VARINT_MAX;
use super::*;
use crate::StreamId;

proptest! {
    #[test]
    fn arbitrary_bytes_decode_to_something_or_an_error(bytes in vec(any::<u8>(), 0..400)) {
        decode_everything(&bytes);
    }
}

/// Decodes `bytes` as whatever they may be and walks through all that came of it.
pub(crate) fn decode_everything(bytes: &[u8]) {
    let _ = decode_version_negotiation(bytes);
    let _ = encode_version_negotiation(bytes, &mut [0; VERSION_NEGOTIATION_LEN]);
    let payload = match Header::decode(bytes) {
        Ok((header, sack)) => {
            let payload = &bytes[HEADER_LEN + sack.encoded_len()..];
            assert_eq!(payload.len(), usize::from(header.payload_len));
            payload
        }
        Err(_) => bytes,
    };
    let mut decoded_len = 0;
    for frame in FrameIter::new(payload).map_while(Result::ok) {
        decoded_len += match frame {
            Frame::Ack(ack) => {
                let mut above = u64::MAX;
                let ranges = ack.ranges.len();
                assert!((1..=ACK_RANGES_MAX).contains(&ranges));
                assert_eq!(ack.ranges.clone().next().map(|range| *range.end()), Some(ack.largest));
                for range in ack.ranges {
                    assert!(range.start() <= range.end() && *range.end() < above && above - range.end() > 1);
                    above = *range.start();
                }
                ranges + 3
            }
            Frame::Padding(len) => len,
            Frame::Repair(repair) => {
                let members: u64 = repair.members(1 << 40).unwrap().map(|range| range.end() - range.start() + 1).sum();
                assert!((1..=REPAIR_MEMBERS_MAX).contains(&members) && repair.index < repair.repairs);
                repair.data.len() + 4
            }
            Frame::Recovered(ranges) => {
                assert!((1..=REPAIR_RANGES_MAX).contains(&ranges.len()));
                ranges.count() + 1
            }
            Frame::Stream { data, offset, .. } | Frame::Crypto { data, offset } => {
                assert!(offset + data.len() as u64 <= VARINT_MAX);
                data.len() + 2
            }
            Frame::Cookie(bytes) | Frame::ConnectionClose { reason: bytes, .. } => bytes.len() + 2,
            _ => 1,
        };
    }
    assert!(decoded_len <= payload.len(), "more was decoded than there was");
}

#[test]
fn two_hundred_thousand_mutated_packets_decode_without_panic() {
    let mut rng = StdRng::from_seed([42; 32]);
    let mut plaintext = [0; 600];
    let mut writer = FrameWriter::new(&mut plaintext);
    let ecn = Some(EcnCounts { ect0: 9, ect1: 70, ce: 1 << 40 });
    let ranges = (0..40_u64).rev().map(|index| index * 1000..=index * 1000 + index);
    assert_eq!(writer.ack(ranges, 900, ecn), 40);
    assert!(writer.reset_stream(StreamId(4), 7, 100_000) && writer.stop_sending(StreamId(8), 1));
    assert!(writer.cookie(&[7; 20]) && writer.max_data(1 << 33) && writer.max_streams(90));
    assert!(writer.max_stream_data(StreamId(4), 5) && writer.stream_data_blocked(StreamId(4), 5));
    assert!(writer.begin_crypto(77, 50).is_some() && writer.begin_stream(StreamId(12), 99, 200, true).is_some());
    assert!(writer.connection_close(3, true, b"over") && writer.handshake_done() && writer.ping());
    assert!(writer.begin_repair(99, &[(90, 92), (80, 80)], (0, 2), 30).is_some());
    assert!(writer.recovered(&[(90, 92), (80, 80)]));
    writer.padding(5);
    let len = writer.written();
    let blocks = [SackBlock { start: 5, end: 9 }, SackBlock { start: 1, end: 2 }];
    let valid = packet(&header(len as u16), &blocks, &plaintext[..len]);
    assert_eq!(frames(&plaintext[..len]).map(|frames| frames.len()), Ok(16));
    for round in 0..200_000_u32 {
        let mut bytes = valid.clone();
        for _ in 0..rng.random_range(1..6) {
            // Half of the rounds leave the header whole, so that the frames are reached.
            let from = if round % 2 == 0 { HEADER_LEN } else { 0 };
            let place = rng.random_range(from..bytes.len());
            match rng.random_range(0..4) {
                0 => bytes[place] ^= 1 << rng.random_range(0..8),
                1 => bytes[place] = rng.random(),
                2 => bytes[place] = 0xff,
                _ => rng.fill_bytes(&mut bytes[place..][..1]),
            }
        }
        if round % 3 == 0 {
            bytes.truncate(rng.random_range(0..=bytes.len()));
        }
        decode_everything(&bytes);
        decode_everything(bytes.get(HEADER_LEN + 16..).unwrap_or_default());
    }
}
