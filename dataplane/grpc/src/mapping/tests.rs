use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, uri::PathAndQuery};

use super::*;

fn request(path: &'static str, headers: &[(&'static str, &'static str)]) -> RequestHead {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, HeaderValue::from_static(value));
    }
    RequestHead { path: PathAndQuery::from_static(path), headers: map, acknowledgements: Vec::new() }
}

fn encode(encoder: &std::sync::Arc<Encoder>, head: &RequestHead) -> (Bytes, Ticket) {
    let mut block = BytesMut::new();
    let ticket = encoder.encode(&head.to_fields(), &mut block);
    let mut framed = BytesMut::new();
    frame_block(&block, &mut framed);
    (framed.freeze(), ticket)
}

fn decode(decoder: &Decoder, mut framed: Bytes) -> RequestHead {
    let block = BlockReader::new(HEAD_BYTES_MAX).push(&mut framed).unwrap().unwrap();
    RequestHead::from_fields(decoder.decode(block).unwrap().0).unwrap()
}

const HEADERS: [(&str, &str); 4] = [
    ("te", "trailers"),
    ("content-type", "application/grpc"),
    ("authorization", "Bearer 0123456789abcdef"),
    ("x-own", "kept"),
];

#[test]
fn a_repeated_head_costs_at_most_four_bytes() {
    let (encoder, decoder) = (Encoder::new(true), Decoder::default());
    let head = request("/statesync.StateSyncService/ApplyOperation", &HEADERS);
    let (first, ticket) = encode(&encoder, &head);
    assert!(first.len() > 60);
    assert_eq!(decode(&decoder, first).headers, head.headers);
    ticket.settle();
    for _ in 0..100 {
        let (again, ticket) = encode(&encoder, &head);
        assert!(again.len() <= 4, "{} bytes", again.len());
        let decoded = decode(&decoder, again);
        assert_eq!((decoded.headers, decoded.path), (head.headers.clone(), head.path.clone()));
        ticket.settle();
    }
}

#[test]
fn an_entry_is_not_referred_to_before_its_definition_is_known_to_be_decoded() {
    let encoder = Encoder::new(true);
    let head = request("/a/b", &HEADERS);
    let (_, first) = encode(&encoder, &head);
    let (second, _second) = encode(&encoder, &head);
    // Whole, so that a decoder which has not seen the first one can read it.
    assert_eq!(decode(&Decoder::default(), second).headers, head.headers);
    drop(first);
    let (third, _third) = encode(&encoder, &head);
    assert_eq!(decode(&Decoder::default(), third).headers, head.headers);
}

#[test]
fn a_definition_that_arrives_late_does_not_replace_a_later_one() {
    let (encoder, decoder) = (Encoder::new(true), Decoder::default());
    let head = request("/a/b", &HEADERS);
    let (late, ticket) = encode(&encoder, &head);
    drop(ticket);
    let heads: Vec<_> = (0..200).map(request_numbered).collect();
    for head in &heads {
        let (block, ticket) = encode(&encoder, head);
        decode(&decoder, block);
        ticket.settle();
    }
    decode(&decoder, late);
    for head in &heads {
        let (block, ticket) = encode(&encoder, head);
        assert_eq!(decode(&decoder, block).path, head.path);
        ticket.settle();
    }
}

fn request_numbered(number: usize) -> RequestHead {
    let path = PathAndQuery::from_maybe_shared(format!("/service/Method{number}")).unwrap();
    RequestHead { path, headers: HeaderMap::new(), acknowledgements: Vec::new() }
}

#[test]
fn an_entry_with_a_reference_on_the_way_is_not_replaced() {
    let (encoder, decoder) = (Encoder::new(true), Decoder::default());
    let head = request("/kept/Method", &HEADERS);
    let (block, ticket) = encode(&encoder, &head);
    decode(&decoder, block);
    ticket.settle();
    let (slow, _slow_ticket) = encode(&encoder, &head);
    for number in 0..500 {
        let (block, ticket) = encode(&encoder, &request_numbered(number));
        decode(&decoder, block);
        ticket.settle();
    }
    assert_eq!(decode(&decoder, slow).path, head.path);
}

#[test]
fn heads_that_change_in_deadline_and_trace_only_still_use_their_entry() {
    let (encoder, decoder) = (Encoder::new(true), Decoder::default());
    let (first, ticket) = encode(&encoder, &request("/a/b", &[("te", "trailers"), ("grpc-timeout", "100m")]));
    decode(&decoder, first);
    ticket.settle();
    let head = request("/a/b", &[("te", "trailers"), ("grpc-timeout", "7S")]);
    let (second, ticket) = encode(&encoder, &head);
    assert!(second.len() <= 4 + 4, "{} bytes", second.len());
    assert_eq!(decode(&decoder, second).headers, head.headers);
    ticket.settle();
}

#[test]
fn a_block_is_gathered_from_single_bytes_and_leaves_what_follows() {
    let (framed, _ticket) = encode(&Encoder::new(true), &request("/a/b", &HEADERS));
    let mut reader = BlockReader::new(HEAD_BYTES_MAX);
    let (last, before) = framed.split_last().unwrap();
    for byte in before {
        assert_eq!(reader.push(&mut Bytes::copy_from_slice(&[*byte])).unwrap(), None);
    }
    let mut rest = Bytes::copy_from_slice(&[*last, 7, 8]);
    assert!(reader.push(&mut rest).unwrap().is_some());
    assert_eq!(&rest[..], [7, 8]);
}

#[test]
fn a_block_over_the_limit_is_refused_from_its_length_alone() {
    let mut framed = BytesMut::new();
    varint::put(&mut framed, 20_000);
    let error = BlockReader::new(HEAD_BYTES_MAX).push(&mut framed.freeze()).unwrap_err();
    assert_eq!(error, MappingError::TooLarge(20_000));
}

#[test]
fn messages_and_tail_are_told_apart_at_every_cut() {
    let mut stream = BytesMut::new();
    for message in [&b"hello"[..], b"", b"\x80\x80\x80"] {
        stream.extend_from_slice(&[0, 0, 0, 0, message.len() as u8]);
        stream.extend_from_slice(message);
    }
    let messages = stream.clone().freeze();
    stream.extend_from_slice(&[TAIL_MARKER]);
    frame_block(&[6], &mut stream);
    let stream = stream.freeze();
    for cut in 0..=stream.len() {
        let mut splitter = FrameSplitter::new(HEAD_BYTES_MAX);
        let (mut seen, mut tail) = (BytesMut::new(), None);
        for mut chunk in [stream.slice(..cut), stream.slice(cut..)] {
            while let Some(piece) = splitter.next(&mut chunk).unwrap() {
                match piece {
                    Piece::Messages(bytes) => seen.extend_from_slice(&bytes),
                    Piece::Tail(block) => tail = Some(block),
                }
            }
        }
        assert_eq!(seen, messages);
        assert_eq!(tail.as_deref(), Some(&[6][..]));
        splitter.finish().unwrap();
    }
}

#[test]
fn what_is_no_message_and_no_tail_is_an_error() {
    let mut splitter = FrameSplitter::new(HEAD_BYTES_MAX);
    assert_eq!(splitter.next(&mut Bytes::from_static(&[9])), Err(MappingError::Marker(9)));
    let mut splitter = FrameSplitter::new(HEAD_BYTES_MAX);
    let mut chunk = Bytes::from_static(&[TAIL_MARKER, 1, 6, 5]);
    assert!(matches!(splitter.next(&mut chunk), Ok(Some(Piece::Tail(_)))));
    assert_eq!(splitter.next(&mut chunk), Err(MappingError::AfterTail));
}

#[test]
fn random_blocks_never_panic() {
    use rand::{Rng, SeedableRng};
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    let decoder = Decoder::default();
    let (valid, _ticket) = encode(&Encoder::new(true), &request("/a/b", &HEADERS));
    for round in 0..50_000 {
        let mut bytes: Vec<u8> = valid[1..].to_vec();
        if round % 2 == 0 {
            bytes = (0..random.random_range(0..64)).map(|_| random.random()).collect();
        } else {
            for _ in 0..random.random_range(1..5) {
                let at = random.random_range(0..bytes.len());
                bytes[at] = random.random();
            }
            bytes.truncate(random.random_range(0..=bytes.len()));
        }
        if let Ok((fields, _)) = decoder.decode(Bytes::from(bytes)) {
            let _ = RequestHead::from_fields(fields.clone());
            let _ = ResponseHead::from_fields(fields.clone());
            let _ = tail_from_fields(fields);
        }
    }
}
