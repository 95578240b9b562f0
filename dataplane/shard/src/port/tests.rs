//! Two ports on loopback.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use super::*;
use crate::socket;
use crate::work::Port;
use quantum::{Time, Transmit};

pub(super) const TRANSMIT_LEN: usize = 16 * 1200;

pub(super) struct Pair {
    pub(super) port: UringPort,
    doorbell: rustix::fd::OwnedFd,
    pub(super) address: SocketAddr,
}

pub(super) fn skip() -> bool {
    let Err(error) = probe() else { return false };
    assert!(std::env::var_os("CI").is_none(), "io_uring: {error}");
    println!("SKIPPED: io_uring is not available: {error}");
    true
}

fn open() -> Pair {
    open_at("127.0.0.1:0".parse().unwrap())
}

pub(super) fn open_at(listen: SocketAddr) -> Pair {
    open_with(listen, TRANSMIT_LEN)
}

pub(super) fn open_with(listen: SocketAddr, transmit_len: usize) -> Pair {
    let socket = socket::bind_alone(listen).unwrap();
    let address = socket.local_addr().unwrap();
    let doorbell = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    let ring = doorbell.try_clone().unwrap();
    let port = UringPort::new(socket, ring, UringSettings { transmit_len }).unwrap();
    Pair { port, doorbell, address }
}

fn send(port: &mut UringPort, to: SocketAddr, data: &[u8], segment_size: usize) {
    port.send_buffer().unwrap()[..data.len()].copy_from_slice(data);
    port.send(&Transmit { remote: to, local: None, len: data.len(), segment_size, ecn: 0 });
    port.submit().unwrap();
}

/// Receives until `bytes` have come; panics if nothing comes for a second.
fn collect(port: &mut UringPort, bytes: usize) -> Vec<(Vec<u8>, usize, SocketAddr)> {
    let mut got = Vec::new();
    let (mut count, mut more) = (0, false);
    while count < bytes {
        let until = port.now() + Duration::from_secs(1);
        if !more {
            port.set_deadline(Some(until));
            port.wait().unwrap();
        }
        more = port.receive(&mut |received| {
            count += received.data.len();
            got.push((received.data.to_vec(), received.segment_size, received.remote));
        });
        assert!(count >= bytes || port.now() < until, "{count} of {bytes} bytes came");
    }
    got
}

#[test]
fn a_segmented_send_arrives_as_equal_segments_and_a_shorter_last_one() {
    if skip() {
        return;
    }
    let (mut a, mut b) = (open(), open());
    let data: Vec<u8> = (0..12 * 1200 + 77).map(|index| index as u8).collect();
    send(&mut a.port, b.address, &data, 1200);
    let got = collect(&mut b.port, data.len());
    let segments: Vec<&[u8]> = got.iter().flat_map(|(data, size, _)| data.chunks(*size)).collect();
    assert_eq!(segments.concat(), data);
    assert!(segments.iter().rev().skip(1).all(|segment| segment.len() == 1200));
    assert!(got.iter().all(|(_, _, remote)| *remote == a.address));
}

#[test]
fn more_datagrams_than_buffers_are_received() {
    if skip() {
        return;
    }
    let mut b = open();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for round in 0..20 {
        for number in 0..200_u32 {
            sender.send_to(&(round * 200 + number).to_be_bytes(), b.address).unwrap();
        }
        let mut numbers = Vec::new();
        for (data, size, _) in collect(&mut b.port, 800) {
            numbers.extend(data.chunks(size).map(|part| u32::from_be_bytes(part.try_into().unwrap())));
        }
        let expected: Vec<u32> = (round * 200..(round + 1) * 200).collect();
        assert_eq!(numbers, expected);
    }
    assert!(b.port.counters().buffer_shortages > 0, "there were more datagrams than buffers");
}

#[test]
fn empty_and_largest_datagrams_do_no_harm() {
    if skip() {
        return;
    }
    let mut b = open();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..200 {
        sender.send_to(&[], b.address).unwrap();
    }
    let large = vec![7; 65_507];
    sender.send_to(&large, b.address).unwrap();
    let got = collect(&mut b.port, large.len());
    assert!(got.len() == 1 && got[0].0 == large && got[0].1 == large.len());
}

#[test]
fn the_deadline_and_the_doorbell_wake_a_waiting_port() {
    if skip() {
        return;
    }
    let mut a = open();
    for micros in [5_000, 100, 2_000] {
        let start = a.port.now();
        let due = start + Duration::from_micros(micros);
        while a.port.now() < due {
            a.port.set_deadline(Some(due));
            a.port.wait().unwrap();
            a.port.receive(&mut |_| panic!("nobody sends"));
        }
        assert!(a.port.now() < start + Duration::from_secs(1));
    }
    let far = a.port.now() + Duration::from_secs(3);
    for _ in 0..3 {
        rustix::io::write(&a.doorbell, &1_u64.to_ne_bytes()).unwrap();
        a.port.set_deadline(Some(far));
        a.port.wait().unwrap();
        a.port.receive(&mut |_| panic!("nobody sends"));
        a.port.submit().unwrap();
    }
    assert!(a.port.now() < far, "woken by the doorbell, not by the deadline");
}

#[test]
fn a_deadline_can_be_moved_forward() {
    if skip() {
        return;
    }
    let mut a = open();
    let start = a.port.now();
    a.port.set_deadline(Some(start + Duration::from_secs(30)));
    a.port.submit().unwrap();
    let due: Time = start + Duration::from_millis(3);
    while a.port.now() < due {
        a.port.set_deadline(Some(due));
        a.port.wait().unwrap();
        a.port.receive(&mut |_| panic!("nobody sends"));
    }
    assert!(a.port.now() < start + Duration::from_secs(2));
}

#[test]
fn ports_that_come_and_go_leave_no_descriptors() {
    if skip() {
        return;
    }
    let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    drop(open());
    let before = count();
    for _ in 0..20 {
        let mut a = open();
        let own = a.address;
        send(&mut a.port, own, &[1; 100], 100);
    }
    // Other tests of this process hold descriptors too, each a few.
    assert!(count() < before + 40, "{before} before, {} after 20 ports of five each", count());
}
