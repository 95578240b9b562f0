//! Peers that acknowledge what they did not get, or so much that it costs work.

use std::time::Duration;

use super::net::{CLIENT, Net, RTT, SERVER, address, config};
use crate::connection::forge::Forged;
use crate::wire::{ACK_RANGES_MAX, Epoch, FrameWriter};
use crate::{CloseReason, ConnectionHandle, EndpointConfig};

const PROTOCOL_VIOLATION: u64 = 0xa;
/// How a receiver that is honest is told from one that is not.
const LEFT_OUT: &str = "acknowledges a packet number that was left out";

fn strike(net: &mut Net, from: usize, handle: ConnectionHandle, forged: &Forged) {
    let to = if from == CLIENT { SERVER } else { CLIENT };
    let data = net.nodes[from].endpoint.slots.get_mut(handle).unwrap().forge(forged).expect("the keys are there");
    net.hand(to, address(from), &data);
}

/// The newest number that the server has used.
fn newest(net: &Net, server: ConnectionHandle) -> u64 {
    net.nodes[SERVER].endpoint.slots.get(server).unwrap().next_number() - 1
}

/// A server in the middle of sending much, whose packets reach nobody from here on.
fn sending() -> (Net, ConnectionHandle, ConnectionHandle) {
    let settings = EndpointConfig { send_buffer_max: 1 << 20, stream_window: 1 << 20, ..config() };
    let (mut net, client, server) = Net::connected(&settings);
    let id = net.write(SERVER, server, &vec![5; 1 << 20]);
    net.run_for(RTT * 4);
    net.read(CLIENT, client, id);
    net.hook = Box::new(|_| Vec::new());
    (net, client, server)
}

/// RFC 9000 section 21.4; the victims of CVE-2025-4820 and CVE-2025-4821 let the window grow by such acknowledgements.
#[test]
fn a_receiver_that_acknowledges_ahead_of_what_it_got_is_found_out() {
    let (mut net, client, server) = sending();
    let sent_before = net.nodes[SERVER].endpoint.connection(server).unwrap().stats().bytes_sent;
    for _ in 0..2_000 {
        let last = newest(&net, server) as u32;
        strike(&mut net, CLIENT, client, &Forged::acks(Epoch::OneRtt0, last + 1, &[(1, last)]));
        net.run_for(Duration::from_millis(1));
        if net.closed(SERVER).is_some() {
            break;
        }
    }
    match net.closed(SERVER) {
        Some(CloseReason::Transport { code: PROTOCOL_VIOLATION, reason }) => assert_eq!(reason, LEFT_OUT),
        other => panic!("{other:?}"),
    }
    net.run_for(RTT * 200);
    assert!(net.nodes[SERVER].endpoint.is_idle());
    let numbers: Vec<u32> =
        net.log.iter().filter(|(_, it)| !it.is_to_server()).map(|(_, it)| it.header().sequence).collect();
    assert!(numbers.len() < 700, "the first number is left out within 272 packets: {}", numbers.len());
    assert!(sent_before > 0);
}

#[test]
fn an_honest_receiver_never_names_a_number_that_was_left_out() {
    let settings = EndpointConfig { stream_window: 4 << 20, ..config() };
    let (mut net, client, server) = Net::connected(&settings);
    let mut nth = 0;
    // Losses, copies and late packets: ranges of every kind.
    net.hook = Box::new(move |segment| {
        nth += 1;
        match nth % 11 {
            0 => Vec::new(),
            1 => vec![segment.clone(), segment],
            2 => vec![super::net::Segment { delay: RTT, ..segment }],
            _ => vec![segment],
        }
    });
    for _ in 0..4 {
        let data = vec![7; 600_000];
        let id = net.write(SERVER, server, &data);
        let mut got = 0;
        let all = net.wait_for(Duration::from_mins(1), |net| {
            got += net.read(CLIENT, client, id).len();
            got == data.len()
        });
        assert!(all, "{got} bytes, {:?} {:?}", net.closed(CLIENT), net.closed(SERVER));
    }
    let numbers: Vec<u32> =
        net.log.iter().filter(|(_, it)| !it.is_to_server()).map(|(_, it)| it.header().sequence).collect();
    let left_out = numbers.windows(2).filter(|pair| pair[1] == pair[0] + 2).count();
    assert!(left_out >= 2, "{left_out} of {} numbers were left out", numbers.len());
    assert!(net.closed(CLIENT).is_none() && net.closed(SERVER).is_none());
}

/// The bomb of the ranges: as many as a frame holds, as wide as can be, again and again. Work goes by packets in flight.
#[test]
fn a_bomb_of_sack_blocks_and_ack_ranges_costs_next_to_nothing() {
    let (mut net, client, server) = Net::connected(&config());
    // Numbers far apart, as after a long life: the ranges are 2^30 wide in all.
    net.nodes[SERVER].endpoint.slots.get_mut(server).unwrap().skip_to(1 << 27);
    let last = newest(&net, server);
    let ranges: Vec<_> =
        (0..ACK_RANGES_MAX as u64).map(|nth| last - (nth + 1) * 500_000..=last - nth * 500_000 - 2).collect();
    let mut buffer = vec![0; 1_400];
    let mut writer = FrameWriter::new(&mut buffer);
    let written = writer.ack(ranges, 0, None);
    assert!(written > 200, "{written}");
    let len = writer.written();
    let top = (last - 2) as u32;
    let blocks: Vec<(u32, u32)> = (0..8).map(|nth| (top - nth * 500_000 - 400_000, top - nth * 500_000)).collect();
    for _ in 0..2_000 {
        strike(&mut net, CLIENT, client, &Forged::frames(Epoch::OneRtt0, &buffer[..len]));
        strike(&mut net, CLIENT, client, &Forged::acks(Epoch::OneRtt0, top + 1, &blocks));
    }
    assert!(net.closed(SERVER).is_none(), "they are possible: {:?}", net.closed(SERVER));
    // 4000 packets, each of them naming over a hundred million numbers: a walk over those would not end before the test's time.
    assert_eq!(net.nodes[SERVER].endpoint.connection(server).unwrap().stats().congestion.in_flight_bytes, 0);
}

/// A receiver that reports every second packet only: what is kept to report and to tell duplicates stays bounded.
#[test]
fn a_sender_that_leaves_every_second_number_out_costs_256_ranges_and_no_more() {
    let (mut net, client, server) = Net::connected(&config());
    net.hook = Box::new(|_| Vec::new());
    for _ in 0..5_000 {
        let number = net.nodes[CLIENT].endpoint.slots.get(client).unwrap().next_number() + 1;
        let forged = Forged { number: Some(number), ..Forged::frames(Epoch::OneRtt0, &[1]) };
        strike(&mut net, CLIENT, client, &forged);
        net.run_for(Duration::from_micros(20));
    }
    let longest = net.log.iter().filter(|(_, it)| !it.is_to_server()).map(|(_, it)| it.data.len()).max();
    assert!(longest <= Some(1_200), "{longest:?}");
    net.hook = Box::new(|segment| vec![segment]);
    assert!(net.closed(SERVER).is_none());
    // What the attacker sent below the record counts as received; above it everything is told apart.
    let ranges = net.nodes[SERVER].endpoint.slots.get(server).unwrap().ranges_kept();
    assert!(ranges.0 <= 256 && ranges.1 <= 256, "{ranges:?}");
}
