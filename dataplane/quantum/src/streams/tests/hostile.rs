//! A peer that breaks the rules, or bends them.

use super::*;
use crate::TransportErrorCode;

fn code(result: Result<(), TransportError>) -> TransportErrorCode {
    result.unwrap_err().code
}

fn client_stream(index: u64) -> StreamId {
    StreamId::new(Side::Client, index)
}

#[test]
fn data_beyond_the_streams_credit_is_a_flow_control_error() {
    let mut server = end(Side::Server, CONFIG);
    server.on_stream(client_stream(0), 9_999, &[1], false).unwrap();
    assert_eq!(code(server.on_stream(client_stream(0), 10_000, &[1], false)), TransportErrorCode::FlowControl);
    assert_eq!(code(server.on_stream(client_stream(1), 0, &[0; 10_001], false)), TransportErrorCode::FlowControl);
}

#[test]
fn data_beyond_the_connections_credit_is_a_flow_control_error() {
    let mut server = end(Side::Server, CONFIG);
    for index in 0..5 {
        server.on_stream(client_stream(index), 9_999, &[1], false).unwrap();
    }
    assert_eq!(code(server.on_stream(client_stream(5), 0, &[1], false)), TransportErrorCode::FlowControl);
    // Once the peer has been told of more, it may go on.
    let update = packet(&mut server, 1200).unwrap();
    assert_eq!(frames(&update), ["MaxData(100000)"]);
    server.on_stream(client_stream(5), 0, &[1], false).unwrap();
}

#[test]
fn a_reset_whose_final_size_lies_beyond_the_credit_is_a_flow_control_error() {
    let mut server = end(Side::Server, CONFIG);
    assert_eq!(code(server.on_reset_stream(client_stream(0), 1, 10_001)), TransportErrorCode::FlowControl);
    assert_eq!(code(server.on_reset_stream(client_stream(1), 1, u64::MAX)), TransportErrorCode::FlowControl);
    for index in 2..7 {
        server.on_reset_stream(client_stream(index), 1, 10_000).unwrap();
    }
    assert_eq!(code(server.on_reset_stream(client_stream(7), 1, 1)), TransportErrorCode::FlowControl);
}

#[test]
fn a_final_size_that_changes_is_a_final_size_error() {
    let id = client_stream(0);
    let ended = || {
        let mut server = end(Side::Server, CONFIG);
        server.on_stream(id, 5, b"12345", true).unwrap();
        server
    };
    assert_eq!(code(ended().on_stream(id, 5, b"1234", true)), TransportErrorCode::FinalSize);
    assert_eq!(code(ended().on_stream(id, 5, b"123456", true)), TransportErrorCode::FinalSize);
    assert_eq!(code(ended().on_stream(id, 10, b"1", false)), TransportErrorCode::FinalSize);
    assert_eq!(code(ended().on_reset_stream(id, 0, 9)), TransportErrorCode::FinalSize);
    assert_eq!(code(ended().on_reset_stream(id, 0, 11)), TransportErrorCode::FinalSize);
    ended().on_stream(id, 10, b"", true).unwrap();
    ended().on_reset_stream(id, 0, 10).unwrap();
    let mut server = end(Side::Server, CONFIG);
    server.on_stream(id, 5, b"12345", false).unwrap();
    assert_eq!(code(server.on_stream(id, 0, b"12345", true)), TransportErrorCode::FinalSize);
    assert_eq!(code(server.on_reset_stream(id, 0, 9)), TransportErrorCode::FinalSize);
}

#[test]
fn a_stream_beyond_the_limit_is_a_stream_limit_error() {
    let beyond = client_stream(16);
    let fresh = || end(Side::Server, CONFIG);
    assert_eq!(code(fresh().on_stream(beyond, 0, &[], false)), TransportErrorCode::StreamLimit);
    assert_eq!(code(fresh().on_reset_stream(beyond, 0, 0)), TransportErrorCode::StreamLimit);
    assert_eq!(code(fresh().on_stop_sending(beyond, 0)), TransportErrorCode::StreamLimit);
    assert_eq!(code(fresh().on_max_stream_data(beyond, 0)), TransportErrorCode::StreamLimit);
    assert_eq!(code(fresh().on_stream_data_blocked(beyond)), TransportErrorCode::StreamLimit);
    assert_eq!(code(fresh().on_stream(StreamId(u64::MAX - 1), 0, &[], false)), TransportErrorCode::StreamLimit);
    fresh().on_stream(client_stream(15), 0, &[], false).unwrap();
}

#[test]
fn a_frame_for_a_stream_that_was_never_opened_here_is_a_stream_state_error() {
    let never = StreamId::new(Side::Server, 0);
    let mut server = end(Side::Server, CONFIG);
    assert_eq!(code(server.on_stream(never, 0, &[], false)), TransportErrorCode::StreamState);
    assert_eq!(code(server.on_reset_stream(never, 0, 0)), TransportErrorCode::StreamState);
    assert_eq!(code(server.on_stop_sending(never, 0)), TransportErrorCode::StreamState);
    assert_eq!(code(server.on_max_stream_data(never, 0)), TransportErrorCode::StreamState);
    assert_eq!(code(server.on_stream_data_blocked(never)), TransportErrorCode::StreamState);
    assert_eq!(server.open(), Ok(never));
    server.on_stream(never, 0, &[], false).unwrap();
}

#[test]
fn an_offset_that_no_integer_encodes_is_a_frame_error() {
    let mut server = end(Side::Server, CONFIG);
    for offset in [u64::MAX, 1 << 62] {
        let result = server.on_stream(client_stream(0), offset, b"1", false);
        assert_eq!(code(result), TransportErrorCode::FrameEncoding);
    }
}

#[test]
fn frames_for_a_stream_that_is_over_are_ignored() {
    let mut pair = Pair::new(CONFIG);
    let id = opened(&mut pair);
    pair.client.finish(id).unwrap();
    pair.server.finish(id).unwrap();
    pair.settle();
    assert_eq!(pair.server.read(id, 1), Read::Finished);
    assert_eq!(pair.client.read(id, 1), Read::Finished);
    pair.settle();
    for streams in [&mut pair.client, &mut pair.server] {
        assert_eq!(streams.stats(), StreamsStats::default());
        events(streams);
        streams.on_stream(id, 0, &[0; 15_000], true).unwrap();
        streams.on_reset_stream(id, 0, 1 << 40).unwrap();
        streams.on_stop_sending(id, 0).unwrap();
        streams.on_max_stream_data(id, 1 << 40).unwrap();
        streams.on_stream_data_blocked(id).unwrap();
        assert_eq!(streams.stats(), StreamsStats::default());
        assert_eq!(events(streams), []);
        assert!(!streams.has_pending());
        assert_eq!(streams.write(id, &mut Bytes::from_static(b"x")), Err(WriteError::Closed));
        assert_eq!(streams.finish(id), Err(WriteError::Closed));
        assert_eq!(streams.read(id, 1), Read::Finished);
    }
}

#[test]
fn a_peer_that_skips_streams_and_closes_the_others_gains_no_memory() {
    let mut server = end(Side::Server, CONFIG);
    let mut index = 0;
    // Every second one only. The others stay allowed, and count until they have been used.
    for _ in 0..1_000 {
        let id = client_stream(index);
        if server.on_reset_stream(id, 0, 0).is_err() {
            break;
        }
        server.on_stop_sending(id, 0).unwrap();
        assert_eq!(server.read(id, 1), Read::Reset(0));
        while let Some(packet) = packet(&mut server, 1200) {
            acknowledge(&mut server, &packet);
        }
        events(&mut server);
        index += 2;
    }
    assert!(index <= 2 * CONFIG.streams_max, "{index} were opened");
    assert_eq!(server.stats().live, 0);
}

#[test]
fn many_tiny_fragments_cost_no_more_than_the_window() {
    let config = StreamsConfig { stream_window: 1 << 18, connection_window: 1 << 20, ..CONFIG };
    let mut server = end(Side::Server, config);
    let id = client_stream(0);
    for offset in (1..config.stream_window).step_by(2) {
        server.on_stream(id, offset, &[1], false).unwrap();
    }
    let bytes = server.live[&id].receiving.memory();
    assert!(bytes <= (config.stream_window as usize + 8192) * 9 / 8 + 4096, "{bytes} bytes");
    for offset in (0..config.stream_window).step_by(2) {
        server.on_stream(id, offset, &[0], false).unwrap();
    }
    let bytes = server.live[&id].receiving.memory();
    assert!(bytes <= config.stream_window as usize * 9 / 4, "{bytes} bytes");
    let (data, end) = read_all(&mut server, id);
    assert_eq!(end, Read::Blocked);
    assert_eq!(data.len() as u64, config.stream_window);
    assert!(data.iter().zip([0, 1].iter().cycle()).all(|(have, expected)| have == expected));
}

#[test]
fn bytes_swapped_in_pairs_cost_no_more_than_the_window() {
    let config = StreamsConfig { stream_window: 1 << 18, connection_window: 1 << 20, ..CONFIG };
    let mut server = end(Side::Server, config);
    let id = client_stream(0);
    for offset in (0..config.stream_window).step_by(2) {
        server.on_stream(id, offset + 1, &[1], false).unwrap();
        server.on_stream(id, offset, &[0], false).unwrap();
    }
    let bytes = server.live[&id].receiving.memory();
    assert!(bytes <= config.stream_window as usize * 9 / 4, "{bytes} bytes");
}

#[test]
fn data_that_comes_twice_costs_nothing_and_the_first_counts() {
    let mut server = end(Side::Server, CONFIG);
    let id = client_stream(0);
    server.on_stream(id, 4, b"efgh", false).unwrap();
    for _ in 0..1_000 {
        server.on_stream(id, 2, b"CDEFGHIJ", false).unwrap();
    }
    assert_eq!(server.stats().receive_buffered_bytes, 8);
    server.on_stream(id, 0, b"ABCDEFGHIJK", true).unwrap();
    assert_eq!(read_all(&mut server, id), (b"ABCDefghIJK".to_vec(), Read::Finished));
}

#[test]
fn a_stop_for_a_stream_repeated_tells_the_application_once() {
    let mut pair = Pair::new(CONFIG);
    let id = opened(&mut pair);
    for _ in 0..3 {
        pair.server.on_stop_sending(id, 9).unwrap();
    }
    assert_eq!(events(&mut pair.server), [Event::StreamStopped(id, 9)]);
}
