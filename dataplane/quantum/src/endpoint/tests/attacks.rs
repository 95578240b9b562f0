//! Attacks by who has the connection's keys: floods of frames that cost their sender little.

use std::time::Duration;

use super::net::{CLIENT, Net, RTT, SERVER, address, config, frames, with_fec};
use crate::connection::forge::Forged;
use crate::wire::{Epoch, Flags, FrameIter, FrameWriter};
use crate::{CloseReason, ConnectionHandle, EndpointConfig, FecConfig, StreamId};

const FRAME_ENCODING: u64 = 0x7;
const STREAM_LIMIT: u64 = 0x4;
/// `PATH_CHALLENGE`, `PATH_RESPONSE` and their eight bytes (RFC 9000's numbers less one).
const PATH_CHALLENGE: u8 = 0x1a;
const PATH_RESPONSE: u8 = 0x1b;

/// A server and a client that hears nothing of it any more.
fn deaf(settings: &EndpointConfig) -> (Net, ConnectionHandle, ConnectionHandle) {
    let (mut net, client, server) = Net::connected(settings);
    net.hook = Box::new(|_| Vec::new());
    (net, client, server)
}

/// Sends frames from the client to the server, at once; whether the server still has the connection.
fn strike(net: &mut Net, client: ConnectionHandle, frames: &[u8]) -> bool {
    let forged = Forged::frames(Epoch::OneRtt0, frames);
    strike_with(net, client, &forged)
}

fn strike_with(net: &mut Net, client: ConnectionHandle, forged: &Forged) -> bool {
    let source = net.nodes[CLIENT].endpoint.slots.get_mut(client).expect("it hears nothing and stays");
    let data = source.forge(forged).expect("the keys are there");
    net.hand(SERVER, address(CLIENT), &data);
    net.run_for(Duration::from_micros(50));
    net.closed(SERVER).is_none()
}

fn code(net: &Net) -> Option<u64> {
    match net.closed(SERVER) {
        Some(CloseReason::Transport { code, .. } | CloseReason::Peer { code, .. }) => Some(code),
        _ => None,
    }
}

/// The shape of RUSTSEC-2023-0063 (quinn-proto panicked on unknown frames): whatever the type and the integers behind it.
#[test]
fn no_frame_type_with_any_integers_behind_it_breaks_a_connection() {
    let integers: [&[u8]; 8] =
        [&[], &[0; 40], &[0xff; 40], &[0x3f; 40], &[0x40; 40], &[0x7f; 40], &[0xc0; 40], &[0x80; 40]];
    let mut codes = std::collections::BTreeMap::new();
    let (mut net, mut client, _) = deaf(&config());
    for kind in 0..=255_u8 {
        for tail in integers {
            for len in [0, 1, 2, 7, 8, 9, 40] {
                let payload = [&[kind], &tail[..len.min(tail.len())]].concat();
                let frames = FrameIter::new(&payload).take_while(Result::is_ok).count();
                assert!(frames <= payload.len());
                // Each packet may end the connection: another one takes its place.
                if !strike(&mut net, client, &payload) {
                    *codes.entry(code(&net)).or_insert(0) += 1;
                    (net, client, _) = deaf(&config());
                }
            }
            if kind >= 0x40 {
                // All types of the upper three quarters are alike.
                break;
            }
        }
    }
    assert!(codes[&Some(FRAME_ENCODING)] > 500, "{codes:?}");
    assert!(codes.keys().all(Option::is_some), "every end has its code: {codes:?}");
}

/// The shape of CVE-2024-1410 and CVE-2024-1765: a peer that asks for answers without end, and takes none of them.
#[test]
fn a_flood_of_path_challenges_and_responses_is_answered_by_no_more_than_comes() {
    for kind in [PATH_CHALLENGE, PATH_RESPONSE] {
        let (mut net, client, server) = deaf(&config());
        let before = net.log.len();
        let mut sent_bytes = 0;
        for nth in 0..5_000_u64 {
            let many: Vec<u8> = (0..100).flat_map(|_| [&[kind][..], &nth.to_be_bytes()].concat()).collect();
            sent_bytes += many.len() + 48;
            if !strike(&mut net, client, &many) {
                break;
            }
        }
        let answered: usize =
            net.log[before..].iter().filter(|(_, it)| !it.is_to_server()).map(|(_, it)| it.data.len()).sum();
        assert!(answered <= sent_bytes + 1_200, "{answered} bytes for {sent_bytes}");
        if let Some(mut connection) = net.nodes[SERVER].endpoint.connection(server) {
            let stats = connection.stats();
            assert!(stats.congestion.in_flight_bytes <= stats.congestion.window_bytes + 10 * 1_200, "{stats:?}");
            connection.close(net.now, 0, b"");
        }
        net.run_for(Duration::from_secs(100));
        assert!(net.nodes[SERVER].endpoint.is_idle(), "it is forgotten");
    }
}

/// The shape of the rapid reset of HTTP/2 (CVE-2023-44487): streams opened and given up at once, their answers never taken.
#[test]
fn streams_opened_and_reset_without_end_meet_the_limit_of_streams() {
    let settings = EndpointConfig { streams_max: 50, ..config() };
    let (mut net, client, server) = deaf(&settings);
    let mut opened = 0;
    for index in 0..10_000_u64 {
        let id = StreamId(index * 2);
        let payload = frames(|writer| {
            writer.begin_stream(id, 0, 3, false).unwrap().copy_from_slice(b"abc");
            assert!(writer.reset_stream(id, 1, 3) && writer.stop_sending(id, 1));
        });
        if !strike(&mut net, client, &payload) {
            break;
        }
        opened += 1;
        let streams = net.nodes[SERVER].endpoint.connection(server).unwrap().stats().streams;
        assert!(streams.live <= 50, "{streams:?}");
    }
    assert_eq!((code(&net), opened), (Some(STREAM_LIMIT), 50), "what nobody acknowledged is not over");
}

/// What a stream's end asks to be told is told once, however often it is asked for.
#[test]
fn a_flood_of_stops_resets_and_credit_for_one_stream_grows_nothing() {
    let (mut net, client, server) = deaf(&config());
    let id = StreamId(0);
    let payload = frames(|writer| {
        writer.begin_stream(id, 0, 3, false).unwrap().copy_from_slice(b"abc");
        assert!(writer.stop_sending(id, 9) && writer.max_stream_data(id, 5) && writer.stream_data_blocked(id, 3));
        assert!(
            writer.max_data(1 << 40)
                && writer.max_streams(1 << 50)
                && writer.data_blocked(1)
                && writer.streams_blocked(1)
        );
    });
    let mut told = 0;
    for nth in 0..20_000_u64 {
        assert!(strike(&mut net, client, &payload), "{:?}", net.closed(SERVER));
        net.log.clear();
        told += net.nodes[SERVER].events.len();
        net.nodes[SERVER].events.clear();
        if nth % 5_000 == 0 {
            let stats = net.nodes[SERVER].endpoint.connection(server).unwrap().stats();
            assert!(stats.streams.live <= 1 && stats.streams.send_buffered_bytes == 0, "{stats:?}");
            assert!(stats.congestion.in_flight_bytes <= stats.congestion.window_bytes + 3 * 1_200, "{stats:?}");
        }
    }
    assert!(told <= 10, "the application hears of it once: {told} events");
}

/// Symbols of groups whose members never come, and members of groups whose symbols never do.
#[test]
fn groups_that_are_never_completed_exhaust_nothing() {
    let settings = EndpointConfig { fec: FecConfig { memory_max: 64 << 10, ..FecConfig::default() }, ..with_fec() };
    let (mut net, client, server) = deaf(&settings);
    let kept = |net: &mut Net| net.nodes[SERVER].endpoint.connection(server).unwrap().stats().fec.kept_bytes;
    let mut most = 0;
    for nth in 0..20_000_u64 {
        let number = net.nodes[CLIENT].endpoint.slots.get(client).unwrap().next_number() + 70;
        let mut payload = vec![0; 1_150];
        let mut writer = FrameWriter::new(&mut payload);
        let len = if nth % 3 == 0 { 60 } else { 1_000 };
        // 192 members at most, of which none ever came.
        let members = if nth % 2 == 0 {
            vec![(number - 60, number - 1)]
        } else {
            vec![(number - 1, number - 1), (number - 40, number - 9)]
        };
        writer.begin_repair(number, &members, (nth as u8 % 30, 31), len).expect("it fits").fill(1);
        let written = writer.written();
        let forged =
            Forged { number: Some(number), flags: Flags::FEC, ..Forged::frames(Epoch::OneRtt0, &payload[..written]) };
        assert!(strike_with(&mut net, client, &forged), "{:?}", net.closed(SERVER));
        net.log.clear();
        most = most.max(kept(&mut net));
        assert!(most <= 64 << 10, "{most} bytes kept");
    }
    assert!(most > 16 << 10, "the flood reaches the limit: {most}");
    net.run_for(Duration::from_secs(3));
    assert_eq!(kept(&mut net), 0, "what waits too long goes");
}

/// The shape of quinn's and others' reassembly that kept one entry for each of ever more gaps.
#[test]
fn a_stream_full_of_gaps_costs_no_more_than_its_window() {
    let (mut net, client, server) = deaf(&config());
    let EndpointConfig { stream_window, .. } = config();
    // Every second byte of the window, the last ones first.
    for offset in (0..stream_window).rev().step_by(2).take(20_000) {
        let payload = frames(|writer| writer.begin_stream(StreamId(0), offset, 1, false).unwrap().fill(1));
        assert!(strike(&mut net, client, &payload), "{:?}", net.closed(SERVER));
        net.log.clear();
    }
    let streams = net.nodes[SERVER].endpoint.connection(server).unwrap().stats().streams;
    assert!(streams.receive_buffered_bytes as u64 <= stream_window, "{streams:?}");
    // The gaps are filled by one frame after the other, and everything is there.
    let mut offset = 0;
    while offset < stream_window {
        let len = (stream_window - offset).min(1_000) as usize;
        let payload = frames(|writer| writer.begin_stream(StreamId(0), offset, len, false).unwrap().fill(1));
        assert!(strike(&mut net, client, &payload));
        offset += len as u64;
    }
    assert_eq!(net.read(SERVER, server, StreamId(0)).len() as u64, stream_window);
    net.run_for(RTT);
}
