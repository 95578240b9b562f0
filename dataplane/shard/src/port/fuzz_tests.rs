//! Fuzz targets for what the kernel says of datagrams. `cargo test` tries the inputs in `__fuzz__/TARGET/corpus` and some random
//! ones, `make fuzz` goes on.

use bolero::check;

use super::address;
use super::control;

/// Random inputs of a plain test run.
const ITERATIONS: usize = 2_000;

/// Kinds of messages that are looked at.
const KINDS: [(i32, i32); 7] = [
    (libc::SOL_UDP, libc::UDP_GRO),
    (libc::SOL_IP, libc::IP_TOS),
    (libc::SOL_IP, libc::IP_PKTINFO),
    (libc::SOL_IP, libc::IP_RECVERR),
    (libc::SOL_IPV6, libc::IPV6_TCLASS),
    (libc::SOL_IPV6, libc::IPV6_PKTINFO),
    (libc::SOL_IPV6, libc::IPV6_RECVERR),
];

/// The rest of an input whose first byte is even; otherwise messages of known kinds, each of a kind, a length, which may be
/// wrong, and sixteen bytes.
fn ancillary(input: &[u8]) -> Vec<u8> {
    let Some((&first, rest)) = input.split_first() else { return Vec::new() };
    if first % 2 == 0 {
        return rest.to_vec();
    }
    let mut data = Vec::new();
    for message in rest.chunks(18) {
        let (level, kind) = KINDS[usize::from(message[0]) % KINDS.len()];
        let len = 16 + usize::from(*message.get(1).unwrap_or(&0)) % 24;
        data.extend(len.to_ne_bytes());
        data.extend(level.to_ne_bytes());
        data.extend(kind.to_ne_bytes());
        data.extend(message.get(2..).unwrap_or_default());
        data.resize(data.len().next_multiple_of(8), 0);
    }
    data
}

#[test]
fn fuzz_ancillary() {
    check!().with_iterations(ITERATIONS).for_each(|input: &[u8]| {
        let data = ancillary(input);
        assert!(control::decode(&data).ecn <= 3);
        let _ = control::says_port_unreachable(&data);
    });
}

#[test]
fn fuzz_address() {
    check!().with_iterations(ITERATIONS).for_each(|input: &[u8]| {
        let Some((&family, rest)) = input.split_first() else { return };
        let mut name = u16::from([libc::AF_INET as u8, libc::AF_INET6 as u8, family][usize::from(family) % 3])
            .to_ne_bytes()
            .to_vec();
        name.extend(rest);
        if let Some(read) = address::decode(&name) {
            let mut again = [0; address::NAME_LEN];
            let len = address::encode(read, &mut again);
            assert_eq!(address::decode(&again[..len]), Some(read));
        }
    });
}
