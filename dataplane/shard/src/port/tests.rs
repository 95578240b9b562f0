//! Two ports on loopback.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use super::*;
use crate::host::IoKind;
use crate::socket;
use quantum::{Time, Transmit};

pub(super) const TRANSMIT_LEN: usize = 16 * 1200;

/// A port and what belongs to it.
pub(super) struct Open {
    pub(super) port: Box<dyn Parkable>,
    doorbell: rustix::fd::OwnedFd,
    pub(super) address: SocketAddr,
}

/// Makes a test of a function for each kind of port.
macro_rules! on_both_ports {
    ($name:ident) => {
        mod $name {
            use crate::host::IoKind;

            #[test]
            fn over_io_uring() {
                if !crate::port::tests::skip() {
                    super::$name(IoKind::Uring);
                }
            }

            #[test]
            fn over_system_calls() {
                super::$name(IoKind::Mmsg);
            }
        }
    };
}
pub(super) use on_both_ports;

pub(super) fn skip() -> bool {
    let Err(error) = probe() else { return false };
    assert!(std::env::var_os("CI").is_none(), "io_uring: {error}");
    println!("SKIPPED: io_uring is not available: {error}");
    true
}

fn open(io: IoKind) -> Open {
    open_at(io, "127.0.0.1:0".parse().unwrap())
}

pub(super) fn open_at(io: IoKind, listen: SocketAddr) -> Open {
    open_with(io, listen, TRANSMIT_LEN)
}

pub(super) fn open_with(io: IoKind, listen: SocketAddr, transmit_len: usize) -> Open {
    let socket = socket::bind_alone(listen).unwrap();
    let address = socket.local_addr().unwrap();
    let doorbell = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    let ring = doorbell.try_clone().unwrap();
    let port: Box<dyn Parkable> = match io {
        IoKind::Uring => Box::new(UringPort::new(socket, ring, UringSettings { transmit_len }).unwrap()),
        IoKind::Mmsg => Box::new(MmsgPort::new(socket, ring, transmit_len).unwrap()),
    };
    Open { port, doorbell, address }
}

fn send(port: &mut dyn Parkable, to: SocketAddr, data: &[u8], segment_size: usize) {
    port.send_buffer().unwrap()[..data.len()].copy_from_slice(data);
    port.send(&Transmit { remote: to, local: None, len: data.len(), segment_size, ecn: 0 });
    port.submit().unwrap();
}

/// Receives until `bytes` have come; panics if nothing comes for a second.
fn collect(port: &mut dyn Parkable, bytes: usize) -> Vec<(Vec<u8>, usize, SocketAddr)> {
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

on_both_ports!(a_segmented_send_arrives_as_equal_segments_and_a_shorter_last_one);
fn a_segmented_send_arrives_as_equal_segments_and_a_shorter_last_one(io: IoKind) {
    let (mut a, mut b) = (open(io), open(io));
    let data: Vec<u8> = (0..12 * 1200 + 77).map(|index| index as u8).collect();
    send(&mut *a.port, b.address, &data, 1200);
    let got = collect(&mut *b.port, data.len());
    let segments: Vec<&[u8]> = got.iter().flat_map(|(data, size, _)| data.chunks(*size)).collect();
    assert_eq!(segments.concat(), data);
    assert!(segments.iter().rev().skip(1).all(|segment| segment.len() == 1200));
    assert!(got.iter().all(|(_, _, remote)| *remote == a.address));
}

on_both_ports!(more_datagrams_than_buffers_are_received);
fn more_datagrams_than_buffers_are_received(io: IoKind) {
    let mut b = open(io);
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for round in 0..20 {
        for number in 0..200_u32 {
            sender.send_to(&(round * 200 + number).to_be_bytes(), b.address).unwrap();
        }
        let mut numbers = Vec::new();
        for (data, size, _) in collect(&mut *b.port, 800) {
            numbers.extend(data.chunks(size).map(|part| u32::from_be_bytes(part.try_into().unwrap())));
        }
        let expected: Vec<u32> = (round * 200..(round + 1) * 200).collect();
        assert_eq!(numbers, expected);
    }
    assert!(io == IoKind::Mmsg || b.port.counters().buffer_shortages > 0, "there were more datagrams than buffers");
}

on_both_ports!(empty_and_largest_datagrams_do_no_harm);
fn empty_and_largest_datagrams_do_no_harm(io: IoKind) {
    let mut b = open(io);
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..200 {
        sender.send_to(&[], b.address).unwrap();
    }
    let large = vec![7; 65_507];
    sender.send_to(&large, b.address).unwrap();
    let got = collect(&mut *b.port, large.len());
    assert!(got.len() == 1 && got[0].0 == large && got[0].1 == large.len());
}

on_both_ports!(the_deadline_and_the_doorbell_wake_a_waiting_port);
fn the_deadline_and_the_doorbell_wake_a_waiting_port(io: IoKind) {
    let mut a = open(io);
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

on_both_ports!(a_deadline_can_be_moved_forward);
fn a_deadline_can_be_moved_forward(io: IoKind) {
    let mut a = open(io);
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

on_both_ports!(ports_that_come_and_go_leave_no_descriptors);
fn ports_that_come_and_go_leave_no_descriptors(io: IoKind) {
    let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    drop(open(io));
    let before = count();
    for _ in 0..20 {
        let mut a = open(io);
        let own = a.address;
        send(&mut *a.port, own, &[1; 100], 100);
    }
    // Other tests of this process hold descriptors too, each a few.
    assert!(count() < before + 40, "{before} before, {} after 20 ports of five each", count());
}
