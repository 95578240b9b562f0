//! What the wire and the kernel do to datagrams: ECN bits, addresses, merging, segmentation that a device lacks.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use quantum::Transmit;

use super::tests::{Open, TRANSMIT_LEN, on_both_ports, open_at, open_with};
use super::*;
use crate::host::IoKind;

/// A datagram as it was handed over.
#[derive(Debug)]
struct Arrival {
    remote: SocketAddr,
    local: Option<IpAddr>,
    ecn: u8,
    segment_size: usize,
    data: Vec<u8>,
}

/// Receives until so many bytes have come; panics if they do not within five seconds.
fn arrivals(port: &mut dyn Parkable, bytes: usize) -> Vec<Arrival> {
    let mut found: Vec<Arrival> = Vec::new();
    let mut count = 0;
    let until = port.now() + Duration::from_secs(5);
    while count < bytes {
        if !port.has_completions() {
            port.set_deadline(Some(until));
            port.wait().unwrap();
        }
        port.receive(&mut |received| {
            let (remote, local, ecn) = (received.remote, received.local, received.ecn);
            let (segment_size, data) = (received.segment_size, received.data.to_vec());
            count += data.len();
            found.push(Arrival { remote, local, ecn, segment_size, data });
        });
        assert!(port.now() < until, "{count} of {bytes} bytes came within five seconds");
    }
    found
}

fn transmit(port: &mut dyn Parkable, data: &[u8], transmit: Transmit) {
    port.send_buffer().unwrap()[..data.len()].copy_from_slice(data);
    port.send(&transmit);
    port.submit().unwrap();
}

fn to(remote: SocketAddr, len: usize) -> Transmit {
    Transmit { remote, local: None, len, segment_size: len, ecn: 0 }
}

fn pair_at(io: IoKind, ip: &str) -> (Open, Open) {
    let address = SocketAddr::new(ip.parse().unwrap(), 0);
    (open_at(io, address), open_at(io, address))
}

on_both_ports!(ecn_bits_pass_over_both_families_alone_and_in_batches);
fn ecn_bits_pass_over_both_families_alone_and_in_batches(io: IoKind) {
    for ip in ["127.0.0.1", "::1"] {
        let (mut a, mut b) = pair_at(io, ip);
        for ecn in [0b10, 0b01, 0b11, 0b00] {
            for segment_size in [600, 4 * 600] {
                let sent = Transmit { segment_size, ecn, ..to(b.address, 4 * 600) };
                transmit(&mut *a.port, &[ecn; 4 * 600], sent);
                let found = arrivals(&mut *b.port, 4 * 600);
                assert!(found.iter().all(|arrival| arrival.ecn == ecn && arrival.remote == a.address), "{found:?}");
            }
        }
    }
}

on_both_ports!(the_local_address_is_told_and_can_be_chosen);
fn the_local_address_is_told_and_can_be_chosen(io: IoKind) {
    let (mut a, mut b) = (open_at(io, "0.0.0.0:0".parse().unwrap()), open_at(io, "127.0.0.1:0".parse().unwrap()));
    for last in [1, 2, 77] {
        let local = IpAddr::from([127, 0, 0, last]);
        transmit(&mut *a.port, b"there", Transmit { local: Some(local), ecn: 0b10, ..to(b.address, 5) });
        let there = arrivals(&mut *b.port, 5).remove(0);
        assert_eq!((there.remote.ip(), there.local), (local, Some(b.address.ip())));
        transmit(&mut *b.port, b"back", to(there.remote, 4));
        assert_eq!(arrivals(&mut *a.port, 4).remove(0).local, Some(local));
    }
}

on_both_ports!(a_socket_of_both_families_tells_and_takes_ipv4_addresses_as_such);
fn a_socket_of_both_families_tells_and_takes_ipv4_addresses_as_such(io: IoKind) {
    let (mut both, mut v4) = (open_at(io, "[::]:0".parse().unwrap()), open_at(io, "127.0.0.1:0".parse().unwrap()));
    let port = both.address.port();
    let sent = Transmit { ecn: 0b01, ..to(SocketAddr::from(([127, 0, 0, 1], port)), 3) };
    transmit(&mut *v4.port, b"one", sent);
    let first = arrivals(&mut *both.port, 3).remove(0);
    assert_eq!((first.remote, first.ecn), (v4.address, 0b01));
    assert_eq!(first.local, Some(IpAddr::from([127, 0, 0, 1])));
    let answer = Transmit { local: first.local, segment_size: 500, ecn: 0b10, ..to(first.remote, 2_000) };
    transmit(&mut *both.port, &[5; 2_000], answer);
    let found = arrivals(&mut *v4.port, 2_000);
    assert!(found.iter().all(|arrival| arrival.ecn == 0b10 && arrival.remote.port() == port), "{found:?}");
    let mut v6 = open_at(io, "[::1]:0".parse().unwrap());
    transmit(&mut *v6.port, b"six", to(SocketAddr::new("::1".parse().unwrap(), port), 3));
    assert_eq!(arrivals(&mut *both.port, 3).remove(0).remote, v6.address);
}

on_both_ports!(segments_of_a_batch_arrive_merged_and_one_by_one_at_a_plain_socket);
fn segments_of_a_batch_arrive_merged_and_one_by_one_at_a_plain_socket(io: IoKind) {
    let (mut a, mut b) = pair_at(io, "127.0.0.1");
    let data: Vec<u8> = (0..16 * 1_200 - 500).map(|index| (index / 7) as u8).collect();
    transmit(&mut *a.port, &data, Transmit { segment_size: 1_200, ..to(b.address, data.len()) });
    let found = arrivals(&mut *b.port, data.len());
    assert!(found.len() == 1 && found[0].segment_size == 1_200, "merged on loopback: {}", found.len());
    assert_eq!(found[0].data, data);
    // A socket without UDP_GRO sees what would be on the wire.
    let plain = UdpSocket::bind("127.0.0.1:0").unwrap();
    plain.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let remote = plain.local_addr().unwrap();
    transmit(&mut *a.port, &data, Transmit { segment_size: 1_200, ..to(remote, data.len()) });
    let mut buffer = [0; 2_000];
    for segment in data.chunks(1_200) {
        let len = plain.recv(&mut buffer).expect("a segment within five seconds");
        assert_eq!(&buffer[..len], segment);
    }
}

on_both_ports!(where_segmentation_fails_the_packets_go_one_by_one_with_their_ecn_bits);
fn where_segmentation_fails_the_packets_go_one_by_one_with_their_ecn_bits(io: IoKind) {
    let (mut a, mut b) = pair_at(io, "127.0.0.1");
    // More segments than any kernel takes in one call: it says EINVAL, as it does where a device cannot do it.
    let data: Vec<u8> = (0..2_000).map(|index| (index / 10) as u8).collect();
    let batch = Transmit { segment_size: 10, ecn: 0b01, ..to(b.address, data.len()) };
    for _ in 0..3 {
        transmit(&mut *a.port, &data, batch);
        a.port.receive(&mut |_| panic!("nobody answers"));
        let found = arrivals(&mut *b.port, data.len());
        assert!(found.iter().all(|arrival| arrival.ecn == 0b01 && arrival.remote == a.address));
        let packets: Vec<u8> = found.iter().flat_map(|arrival| arrival.data.clone()).collect();
        assert_eq!(packets, data);
        assert!(found.iter().all(|arrival| arrival.segment_size == 10));
    }
    assert_eq!(a.port.counters().send_errors, 0);
}

on_both_ports!(a_send_that_the_kernel_refuses_is_a_lost_packet);
fn a_send_that_the_kernel_refuses_is_a_lost_packet(io: IoKind) {
    let (mut a, mut b) = pair_at(io, "127.0.0.1");
    let before = a.port.counters().send_errors;
    // No route for the wrong family, none to a broadcast address without leave, nobody at port 9 (which costs nothing).
    let refused: [SocketAddr; 2] = ["[::1]:9".parse().unwrap(), "255.255.255.255:9".parse().unwrap()];
    for remote in refused {
        transmit(&mut *a.port, b"lost", to(remote, 4));
    }
    for _ in 0..200 {
        let closed = SocketAddr::from(([127, 0, 0, 1], 9));
        transmit(&mut *a.port, b"nobody", to(closed, 6));
    }
    transmit(&mut *a.port, b"still", to(b.address, 5));
    assert_eq!(arrivals(&mut *b.port, 5).remove(0).data, b"still");
    a.port.receive(&mut |_| panic!("nobody answers"));
    let lost = a.port.counters().send_errors - before;
    assert!((2..=202).contains(&lost), "{lost}");
}

on_both_ports!(more_transmits_than_slots_wait_for_their_turn_and_all_arrive);
fn more_transmits_than_slots_wait_for_their_turn_and_all_arrive(io: IoKind) {
    let (mut a, mut b) = pair_at(io, "127.0.0.1");
    let mut sent = 0_u32;
    let mut expected = 0_u32;
    while expected < 3_000 {
        while sent < 3_000 && sent < expected + 300 {
            let Some(buffer) = a.port.send_buffer() else { break };
            assert!(buffer.len() >= TRANSMIT_LEN);
            buffer[..4].copy_from_slice(&sent.to_be_bytes());
            a.port.send(&to(b.address, 4));
            sent += 1;
        }
        a.port.submit().unwrap();
        a.port.receive(&mut |_| panic!("nobody answers"));
        for arrival in arrivals(&mut *b.port, 4) {
            for number in arrival.data.chunks(4) {
                assert_eq!(number, expected.to_be_bytes(), "in order");
                expected += 1;
            }
        }
    }
    assert_eq!(a.port.counters().send_errors, 0);
}

on_both_ports!(what_is_too_large_for_the_interface_is_lost_and_no_error);
fn what_is_too_large_for_the_interface_is_lost_and_no_error(io: IoKind) {
    // No interface takes more than the largest UDP payload.
    let (mut a, mut b) =
        (open_with(io, "127.0.0.1:0".parse().unwrap(), 66_000), open_at(io, "127.0.0.1:0".parse().unwrap()));
    transmit(&mut *a.port, &vec![7; 65_900], to(b.address, 65_900));
    transmit(&mut *a.port, &[8; 100], to(b.address, 100));
    let found = arrivals(&mut *b.port, 100);
    assert!(found.len() == 1 && found[0].data == [8; 100], "{found:?}");
    assert_eq!((a.port.counters().send_errors, a.port.counters().sends), (0, 2));
}
