//! Fuzz targets for what a peer says on a stream. `cargo test` tries the inputs in `__fuzz__/TARGET/corpus` and some random ones,
//! `make fuzz` goes on.

use std::time::Duration;

use bolero::check;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode, uri::PathAndQuery};

use super::{
    BlockReader, Decoder, Encoder, Field, FrameSplitter, HEAD_BYTES_MAX, Piece, RequestHead, ResponseHead, TAIL_MARKER,
    encode_plain, frame_block, tail_fields, tail_from_fields,
};
use crate::deadline::grpc_timeout;
use crate::fec::{FEC_HEADER, Fec};
use crate::priority::{self, PRIORITY_HEADER};

/// Random inputs of a plain test run.
const ITERATIONS: usize = 2_000;

/// The rest of an input whose first byte is even; otherwise `base` with changes: a place and a byte each.
fn message(base: &[u8], input: &[u8]) -> Vec<u8> {
    let Some((&first, rest)) = input.split_first() else { return base.to_vec() };
    if first % 2 == 0 {
        return rest.to_vec();
    }
    let mut message = base.to_vec();
    for change in rest.chunks_exact(2) {
        let place = usize::from(change[0]) % message.len();
        message[place] = change[1];
    }
    message.truncate(message.len() - message.len() * usize::from(first >> 3) / 64);
    message
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("te", HeaderValue::from_static("trailers"));
    headers.insert("grpc-timeout", HeaderValue::from_static("1S"));
    headers.insert("x-bin", HeaderValue::from_static("AAEC"));
    headers
}

/// Decodes a block as everything that it may be, in a connection that has decoded others before.
fn decode(decoder: &Decoder, block: &[u8]) -> Option<Vec<Field>> {
    let (fields, _) = decoder.decode(Bytes::copy_from_slice(block)).ok()?;
    let again = |fields: &[Field]| -> Vec<Field> {
        fields.iter().map(|field| Field { name: field.name.clone(), value: field.value.clone() }).collect()
    };
    let _ = RequestHead::from_fields(again(&fields)).map(|head| head.to_fields());
    let _ = ResponseHead::from_fields(again(&fields)).map(|head| head.to_fields());
    if let Ok(trailers) = tail_from_fields(again(&fields)) {
        assert_eq!(tail_fields(&trailers).len(), fields.len());
    }
    Some(fields)
}

#[test]
fn fuzz_head() {
    let path = PathAndQuery::from_static("/package.Service/Method");
    let head = RequestHead { path, headers: headers(), acknowledgements: Vec::new() };
    let mut base = BytesMut::new();
    Encoder::new(true).encode(&head.to_fields(), &mut base).leave_to_peer();
    check!().with_iterations(ITERATIONS).for_each(|input: &[u8]| {
        let decoder = Decoder::default();
        let block = message(&base, input);
        // The second time the first one's templates are there.
        for _ in 0..2 {
            let Some(fields) = decode(&decoder, &block) else { continue };
            assert!(fields.len() <= 256, "{}", fields.len());
            let mut plain = BytesMut::new();
            encode_plain(&fields, &mut plain);
            let (again, _) = decoder.decode(plain.freeze()).expect("what was read can be written");
            assert!(again.len() == fields.len() && again.iter().zip(&fields).all(|(a, b)| a.value == b.value));
        }
    });
}

#[test]
fn fuzz_tail() {
    let head = ResponseHead { status: StatusCode::NOT_FOUND, headers: headers() };
    let mut block = BytesMut::new();
    encode_plain(&head.to_fields(), &mut block);
    let mut base = Vec::new();
    frame_block(&block, &mut base);
    check!().with_iterations(ITERATIONS).for_each(|input: &[u8]| {
        let stream = message(&base, input);
        let read = |chunk_len: usize| {
            let mut reader = BlockReader::new(HEAD_BYTES_MAX);
            for chunk in stream.chunks(chunk_len) {
                match reader.push(&mut Bytes::copy_from_slice(chunk)) {
                    Ok(None) => {}
                    other => {
                        return other.map(|block| block.map(|block| block.to_vec())).map_err(|error| error.to_string());
                    }
                }
            }
            Ok(None)
        };
        let whole = read(stream.len().max(1));
        assert_eq!(whole, read(1), "chunks make no difference");
        if let Ok(Some(block)) = whole {
            assert!(block.len() <= HEAD_BYTES_MAX);
            decode(&Decoder::default(), &block);
        }
    });
}

/// Messages behind their lengths, and the tail behind them.
#[test]
fn fuzz_length_prefix() {
    let mut base = vec![0, 0, 0, 0, 3, 1, 2, 3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 9, 9, TAIL_MARKER];
    frame_block(&[2], &mut base);
    check!().with_iterations(ITERATIONS).for_each(|input: &[u8]| {
        let stream = message(&base, input);
        let split = |chunk_len: usize| {
            let mut splitter = FrameSplitter::new(HEAD_BYTES_MAX);
            let (mut messages, mut tail, mut fault) = (Vec::new(), None, None);
            'chunks: for chunk in stream.chunks(chunk_len) {
                let mut chunk = Bytes::copy_from_slice(chunk);
                loop {
                    match splitter.next(&mut chunk) {
                        Ok(Some(Piece::Messages(bytes))) => messages.extend_from_slice(&bytes),
                        Ok(Some(Piece::Tail(block))) => tail = Some(block.to_vec()),
                        Ok(None) => break,
                        Err(error) => {
                            fault = Some(error);
                            break 'chunks;
                        }
                    }
                }
            }
            let ended = fault.map_or_else(|| splitter.finish(), Err);
            (messages, tail, ended)
        };
        let (messages, tail, ended) = split(stream.len().max(1));
        assert!(stream.starts_with(&messages), "messages are passed on as they came");
        let (again, tail_again, ended_again) = split(1);
        assert_eq!((tail, ended), (tail_again, ended_again), "chunks make no difference");
        assert!(again.starts_with(&messages), "up to a fault more may be passed on");
    });
}

/// Metadata that a call's deadline, and its stream's priority and protection are read from.
#[test]
fn fuzz_metadata() {
    const PIECES: [&str; 16] =
        ["urgent", " ", "on", "off", "0", "1", "6", "9", "99999999", "H", "M", "S", "m", "u", "n", "-"];
    check!().with_iterations(ITERATIONS).for_each(|input: &[u8]| {
        let text = match input.split_first() {
            Some((first, rest)) if first % 2 == 1 => {
                rest.iter().map(|byte| PIECES[usize::from(byte % 16)]).collect::<String>().into_bytes()
            }
            Some((_, rest)) => rest.to_vec(),
            None => Vec::new(),
        };
        let Ok(value) = HeaderValue::from_bytes(&text) else { return };
        let names = [PRIORITY_HEADER, FEC_HEADER, http::HeaderName::from_static("grpc-timeout")];
        let headers = HeaderMap::from_iter(names.map(|name| (name, value.clone())));
        if let Some(priority) = priority::of_headers(&headers) {
            assert!((1..=64).contains(&priority.weight), "{value:?}");
        }
        assert!(
            Fec::of_headers(&headers).is_none() || grpc_timeout(&headers).is_none(),
            "{value:?} is but one of them"
        );
        assert!(grpc_timeout(&headers).is_none_or(|timeout| timeout <= Duration::from_hours(365 * 24)), "{value:?}");
    });
}
