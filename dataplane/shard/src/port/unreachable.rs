//! What ICMP says of datagrams that were sent: the socket's error queue (`IP_RECVERR` in `ip(7)`, `IPV6_RECVERR`).
//!
//! While an error is pending the kernel has the next receive or send of the socket fail with it, whichever peer they are of.

use std::collections::VecDeque;
use std::net::UdpSocket;

use super::address::{self, NAME_LEN};
use super::control;
use super::sys::receive_error;
use crate::work::{QUOTED_LEN, Unreachable};

/// Errors that are taken at once. The kernel has the next operation fail while there are more.
const ERRORS_MAX: usize = 64;
/// Bytes for the ancillary data of an error: the error, the offender's address, and what every datagram has.
const CONTROL_LEN: usize = 256;

/// Ancillary data, aligned as the kernel wants it.
#[repr(align(8))]
struct Control([u8; CONTROL_LEN]);

/// Takes what waits in the error queue. Appended to `found` is what says that nobody listens at a port; `found` has at most
/// `max` in the end: a peer of whom more is said is told of again with the next datagram. Gives how many there were.
pub(super) fn drain(socket: &UdpSocket, found: &mut VecDeque<Unreachable>, max: usize) -> u64 {
    let mut control = Control([0; CONTROL_LEN]);
    let mut count = 0;
    for _ in 0..ERRORS_MAX {
        let (mut name, mut quoted) = ([0; NAME_LEN], [0; QUOTED_LEN]);
        let Ok(lens) = receive_error(socket, &mut name, &mut quoted, &mut control.0) else { break };
        let refuses_port = control.0.get(..lens.control).is_some_and(control::says_port_unreachable);
        if let Some(remote) = name.get(..lens.name).and_then(address::decode).filter(|_| refuses_port) {
            count += 1;
            if found.len() < max {
                found.push_back(Unreachable { remote, quoted, quoted_len: lens.quoted });
            }
        }
    }
    count
}

/// Whether a send that failed so may have failed for a datagram that was sent before, to anybody: what ICMP messages become
/// (`icmp_err_convert` and `tab_unreach` of the kernel).
pub(super) fn may_be_of_another(error: i32) -> bool {
    [
        libc::ECONNREFUSED,
        libc::EHOSTUNREACH,
        libc::ENETUNREACH,
        libc::EHOSTDOWN,
        libc::ENONET,
        libc::ENOPROTOOPT,
        libc::EOPNOTSUPP,
        libc::EPROTO,
        libc::EACCES,
        libc::EMSGSIZE,
    ]
    .contains(&error)
}
