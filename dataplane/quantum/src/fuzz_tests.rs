//! Fuzz targets, one for each parser. `cargo test` tries the inputs in `__fuzz__/TARGET/corpus` and some random ones, `make fuzz`
//! goes on and keeps what fails.
//!
//! An input is a message from outside, or the changes to a valid one: the engine need not find out how those look.

use std::net::SocketAddr;

use bolero::check;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::crypto::cookie::CookieKey;
use crate::crypto::reset::{encode_reset, is_reset, reset_token};
use crate::fec::code;
use crate::params::TransportParameters;
use crate::wire::hostile_tests::decode_everything;
use crate::wire::{
    EcnCounts, Flags, Frame, FrameIter, FrameWriter, HEADER_LEN, Header, SackBlock, SackBlocks, VERSION,
    decode_version_negotiation, encode_version_negotiation, varint,
};
use crate::{EndpointConfig, Guuid, StreamId, Time};

/// Random inputs of a plain test run.
const ITERATIONS: usize = 2_000;

/// The rest of an input whose first byte is even; otherwise `base` with changes: a place (two bytes) and a byte each, at last perhaps
/// cut.
fn message(base: &[u8], input: &[u8]) -> Vec<u8> {
    let Some((&first, rest)) = input.split_first() else { return base.to_vec() };
    if first % 2 == 0 {
        return rest.to_vec();
    }
    let mut message = base.to_vec();
    for change in rest.chunks_exact(3) {
        let place = usize::from(u16::from_be_bytes([change[0], change[1]])) % (message.len() + 1);
        match message.get_mut(place) {
            Some(byte) => *byte = change[2],
            None => message.push(change[2]),
        }
    }
    if first & 2 != 0 {
        message.truncate(message.len() - message.len() * usize::from(first >> 2) / 64);
    }
    message
}

/// One frame of every type.
fn frames() -> Vec<u8> {
    let mut buffer = vec![0; 600];
    let mut writer = FrameWriter::new(&mut buffer);
    let ecn = Some(EcnCounts { ect0: 9, ect1: 70, ce: 1 << 40 });
    assert!(writer.ack((0..9_u64).rev().map(|nth| nth * 1_000..=nth * 1_000 + nth), 900, ecn) > 0);
    assert!(writer.reset_stream(StreamId(4), 7, 100_000) && writer.stop_sending(StreamId(8), 1));
    assert!(writer.cookie(&[7; 20]) && writer.max_data(1 << 33) && writer.max_streams(90));
    assert!(writer.max_stream_data(StreamId(4), 5) && writer.stream_data_blocked(StreamId(4), 5));
    assert!(writer.data_blocked(4) && writer.streams_blocked(77));
    assert!(writer.begin_crypto(77, 20).is_some() && writer.begin_stream(StreamId(12), 99, 30, true).is_some());
    assert!(writer.begin_repair(99, &[(90, 92), (80, 80)], (0, 2), 30).is_some());
    assert!(writer.recovered(&[(90, 92), (80, 80)]) && writer.ping() && writer.handshake_done());
    assert!(writer.datagram(b"once") && writer.connection_close(3, true, b"over"));
    let written = writer.written();
    buffer.truncate(written);
    buffer
}

fn packet() -> Vec<u8> {
    let payload = frames();
    let mut blocks = SackBlocks::new();
    assert!(blocks.push(SackBlock { start: 5, end: 9 }) && blocks.push(SackBlock { start: 1, end: 2 }));
    let header = Header {
        version: VERSION,
        epoch: crate::wire::Epoch::OneRtt0,
        flags: Flags::ACK,
        guuid: Guuid([7; 16]),
        sequence: 77,
        ack: 10,
        payload_len: payload.len() as u16,
    };
    let mut out = vec![0; HEADER_LEN + blocks.encoded_len()];
    header.encode(&mut out);
    blocks.encode(&mut out[HEADER_LEN..]);
    out.extend(payload);
    out
}

#[test]
fn fuzz_header() {
    let base = packet();
    check!().with_iterations(ITERATIONS).for_each(|input: &[u8]| {
        let segment = message(&base, input);
        decode_everything(&segment);
        if let Ok((header, blocks)) = Header::decode(&segment) {
            // What was read writes the same bytes.
            let mut again = segment.clone();
            header.encode(&mut again);
            blocks.encode(&mut again[HEADER_LEN..]);
            assert_eq!(again, segment);
        }
    });
}

#[test]
fn fuzz_frames() {
    let base = frames();
    check!().with_iterations(ITERATIONS).for_each(|input: &[u8]| {
        let payload = message(&base, input);
        decode_everything(&payload);
        let mut at = 0;
        let mut frames = FrameIter::new(&payload);
        while let Some(Ok(frame)) = frames.next() {
            // A frame gives what it had in it when it is read by itself as well.
            let end = payload.len() - frames.remaining();
            let alone = FrameIter::new(&payload[at..end]).next();
            assert!(end > at, "a frame takes bytes");
            assert_eq!(alone, Some(Ok(frame)));
            at = end;
        }
    });
}

/// Frames with ranges of numbers: ACK, RECOVERED, REPAIR.
#[test]
fn fuzz_ack() {
    let mut base = vec![0; 300];
    let mut writer = FrameWriter::new(&mut base);
    assert!(writer.ack((0..60_u64).rev().map(|nth| nth * 5..=nth * 5 + 2), 900, None) > 0);
    let written = writer.written();
    base.truncate(written);
    check!().with_iterations(ITERATIONS).for_each(|input: &[u8]| {
        let payload = message(&base, input);
        decode_everything(&payload);
        let Some(Ok(Frame::Ack(ack))) = FrameIter::new(&payload).next() else { return };
        let ranges: Vec<_> = ack.ranges.collect();
        let mut out = vec![0; 256 * 16 + 64];
        let mut writer = FrameWriter::new(&mut out);
        assert_eq!(writer.ack(ranges.iter().cloned(), ack.delay_micros, ack.ecn), ranges.len());
        let written = writer.written();
        let Some(Ok(Frame::Ack(again))) = FrameIter::new(&out[..written]).next() else { panic!("it was just written") };
        assert!(again.ranges.eq(ranges) && again.largest == ack.largest && again.ecn == ack.ecn);
    });
}

#[test]
fn fuzz_repair() {
    let mut base = vec![0; 300];
    let mut writer = FrameWriter::new(&mut base);
    assert!(writer.begin_repair(999, &[(900, 920), (880, 890), (870, 870)], (1, 3), 200).is_some());
    let written = writer.written();
    base.truncate(written);
    check!().with_iterations(ITERATIONS).for_each(|input: &[u8]| {
        let payload = message(&base, input);
        decode_everything(&payload);
        let Some(Ok(Frame::Repair(repair))) = FrameIter::new(&payload).next() else { return };
        for number in [0, 1, 64, 999, 1 << 16, 1 << 40, varint::VARINT_MAX] {
            let Some(members) = repair.members(number) else { continue };
            let members: Vec<(u64, u64)> = members.map(|range| (*range.start(), *range.end())).collect();
            assert!(members.windows(2).all(|pair| pair[1].1 + 1 < pair[0].0), "{members:?}");
            assert!(members[0].1 < number, "a group is older than its symbol");
        }
    });
}

#[test]
fn fuzz_transport_parameters() {
    let base = TransportParameters::local(&EndpointConfig::default(), Some([7; 16])).encode();
    check!().with_iterations(ITERATIONS).for_each(|input: &[u8]| {
        if let Ok(parameters) = TransportParameters::decode(&message(&base, input)) {
            assert!(parameters.datagram_size_max >= 1_200 && parameters.streams_max <= 1 << 60);
        }
    });
}

#[test]
fn fuzz_varint() {
    check!().with_iterations(ITERATIONS).for_each(|input: &[u8]| {
        let mut rest = input;
        while let Some(value) = varint::read(&mut rest) {
            assert!(value <= varint::VARINT_MAX);
            let mut out = [0; 8];
            let len = varint::write(value, &mut out).unwrap();
            assert_eq!(len, varint::len(value));
            assert_eq!(varint::read(&mut &out[..len]), Some(value));
        }
        assert!(rest.len() < 8, "an integer has at most eight bytes");
    });
}

#[test]
fn fuzz_cookie() {
    let (now, remote, guuid) = (Time::from_nanos(77_000_000_000), SocketAddr::from(([10, 0, 0, 1], 5)), Guuid([7; 16]));
    let base = CookieKey::new(&[1; 32]).issue(now, remote, guuid);
    check!().with_iterations(ITERATIONS).for_each(|input: &[u8]| {
        let cookie = message(&base, input);
        let is_good = CookieKey::new(&[1; 32]).verify(now, remote, guuid, &cookie);
        assert_eq!(is_good, cookie == base, "nothing but what was issued is good");
    });
}

#[test]
fn fuzz_reset() {
    let token = reset_token(&[1; 32], Guuid([7; 16]));
    let mut base = [0; 64];
    let len = encode_reset(Guuid([7; 16]), &token, 100, &mut StdRng::seed_from_u64(1), &mut base).unwrap();
    let base = &base[..len];
    check!().with_iterations(ITERATIONS).for_each(|input: &[u8]| {
        let segment = message(base, input);
        assert!(!is_reset(&segment, &token) || segment.ends_with(&token));
        let mut out = [0; 64];
        if let Some(len) = encode_version_negotiation(&segment, &mut out) {
            assert!(len <= segment.len(), "an answer is no longer than what it answers");
            assert!(decode_version_negotiation(&out[..len]).is_ok());
        }
        let _ = decode_version_negotiation(&segment);
    });
}

/// Shards of a group, of which some are lost, and some of the repair shards changed.
#[test]
fn fuzz_restore() {
    check!().with_iterations(ITERATIONS).for_each(|input: &[u8]| {
        let [members, repairs, lost, len, bytes @ ..] = input else { return };
        let (members, repairs, len) =
            (1 + usize::from(*members), 1 + usize::from(*repairs) % 8, usize::from(*len) % 40);
        let byte = |at: usize| if bytes.is_empty() { at as u8 } else { bytes[at % bytes.len()] };
        // Of different lengths, as packets are.
        let data: Vec<Vec<u8>> =
            (0..members).map(|nth| (0..=(len + nth) % 40).map(|at| byte(at + 7 * nth)).collect()).collect();
        let shards: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
        let Some(mut symbols) = code::encode(&shards, repairs) else { return assert!(members + repairs > 255) };
        let is_lost = |nth: usize| lost >> (nth % 8) & 1 == 1 && nth < 16;
        let left: Vec<Option<&[u8]>> = (0..members).map(|nth| (!is_lost(nth)).then_some(shards[nth])).collect();
        let lost: Vec<usize> = (0..members).filter(|nth| is_lost(*nth)).collect();
        let received = |symbols: &[Vec<u8>]| -> Vec<(usize, Vec<u8>)> { symbols.iter().cloned().enumerate().collect() };
        let decode = |symbols: &[(usize, Vec<u8>)]| {
            let symbols: Vec<code::Repair<'_>> = symbols.iter().map(|(nth, bytes)| (*nth, bytes.as_slice())).collect();
            code::decode(&left, repairs, &symbols)
        };
        match decode(&received(&symbols)) {
            Some(restored) => {
                assert_eq!(restored.iter().map(|(nth, _)| *nth).collect::<Vec<_>>(), lost);
                for (nth, bytes) in restored {
                    let (shard, rest) = bytes.split_at(shards[nth].len());
                    assert!(shard == shards[nth] && rest.iter().all(|byte| *byte == 0), "{nth}");
                }
            }
            None => assert!(lost.is_empty() || lost.len() > repairs, "{lost:?} lost, {repairs} repair shards"),
        }
        // What makes no sense is no shard, or another one, and nothing worse.
        symbols[0].truncate(usize::from(byte(0)) % 40);
        let mut odd = received(&symbols);
        odd.push((usize::from(byte(1)), vec![byte(2); len]));
        let _ = decode(&odd);
    });
}
