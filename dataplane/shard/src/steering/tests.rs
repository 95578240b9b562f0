//! The kernel's choice and ours, over real sockets.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use quantum::GuuidGenerator;

use super::*;
use crate::socket::bind_shards;

const SECRETS: [u64; 4] = [0x9e37_79b9_7f4a_7c15, 1, u64::MAX, 0];

fn ids(count: usize, seed: u8) -> Vec<[u8; 16]> {
    let mut generator = GuuidGenerator::new([seed; 32]);
    (0..count).map(|_| *generator.next(1_700_000_000_000).as_bytes()).collect()
}

fn packet(guuid: &[u8; 16], number: u32) -> Vec<u8> {
    let mut packet = b"AFQ1\0\0".to_vec();
    packet.extend_from_slice(guuid);
    packet.extend_from_slice(&number.to_be_bytes());
    packet
}

/// Sends each datagram and asks which socket of the group has got it.
fn kernel_choices(group: &[UdpSocket], to: SocketAddr, datagrams: &[Vec<u8>]) -> Vec<usize> {
    let sender = UdpSocket::bind((to.ip(), 0)).unwrap();
    let choose = |datagram: &Vec<u8>| {
        sender.send_to(datagram, to).unwrap();
        let shard = wait_for(group, datagram);
        assert!(group.iter().all(|socket| socket.recv_from(&mut [0; 64]).is_err()), "only one socket gets it");
        shard
    };
    datagrams.iter().map(choose).collect()
}

/// Looks at the sockets, none of which blocks, until the datagram is there; for five seconds at most.
fn wait_for(group: &[UdpSocket], datagram: &[u8]) -> usize {
    let until = Instant::now() + Duration::from_secs(5);
    let mut buffer = [0; 64];
    loop {
        for (index, socket) in group.iter().enumerate() {
            if let Ok((len, _)) = socket.recv_from(&mut buffer) {
                assert_eq!(buffer[..len], *datagram);
                return index;
            }
        }
        assert!(Instant::now() < until, "the datagram came to no shard");
        std::thread::yield_now();
    }
}

#[test]
fn connections_spread_evenly() {
    let ids = ids(8_000, 7);
    for secret in [0x9e37_79b9_7f4a_7c15, 0xdead_beef, 0x0123_4567_89ab_cdef] {
        for shards in [2, 3, 8] {
            let mut counts = vec![0_usize; shards];
            for id in &ids {
                counts[shard_of(id, secret, shards)] += 1;
            }
            // Six standard deviations of a binomial.
            let even = ids.len() as f64 / shards as f64;
            let allowed = 6.0 * (even * (1.0 - 1.0 / shards as f64)).sqrt();
            assert!(counts.iter().all(|&count| (count as f64 - even).abs() < allowed), "{secret:#x}: {counts:?}");
        }
    }
}

#[test]
fn no_part_of_an_id_decides_alone() {
    // Ids that differ in one word only, as somebody would choose who wants them all on one shard.
    for word in 0..4 {
        let mut counts = [0_usize; 4];
        for number in 0..4_000_u32 {
            let mut id = [0; 16];
            id[4 * word..][..4].copy_from_slice(&number.to_be_bytes());
            counts[shard_of(&id, SECRETS[0], 4)] += 1;
        }
        assert!(counts.iter().all(|&count| count > 500), "word {word}: {counts:?}");
    }
}

#[test]
fn the_kernel_chooses_as_shard_of_does() {
    for (listen, shards) in [("127.0.0.1:0", 2), ("127.0.0.1:0", 3), ("[::1]:0", 4)] {
        for secret in SECRETS {
            let (group, address) = bind_shards(listen.parse().unwrap(), shards, secret).unwrap();
            let ids = ids(1_000, shards as u8);
            let datagrams: Vec<_> = ids.iter().map(|id| packet(id, 1)).collect();
            let expected: Vec<_> = ids.iter().map(|id| shard_of(id, secret, shards)).collect();
            assert_eq!(kernel_choices(&group, address, &datagrams), expected, "{listen}, {shards} shards, {secret:#x}");
        }
    }
}

#[test]
fn a_connection_stays_on_its_shard_when_its_address_changes() {
    let (group, address) = bind_shards("127.0.0.1:0".parse().unwrap(), 4, SECRETS[0]).unwrap();
    for id in ids(50, 1) {
        // Each call has a socket, and so an address, of its own.
        let first = kernel_choices(&group, address, &[packet(&id, 0)]);
        for number in 1..4 {
            assert_eq!(kernel_choices(&group, address, &[packet(&id, number)]), first);
        }
    }
}

#[test]
fn datagrams_without_an_id_go_to_the_first_shard() {
    let (group, address) = bind_shards("127.0.0.1:0".parse().unwrap(), 3, SECRETS[0]).unwrap();
    let short: Vec<_> = (1..22).map(|len| vec![0xa5; len]).collect();
    assert!(kernel_choices(&group, address, &short).iter().all(|&shard| shard == 0));
}
