//! Sockets: their buffers, and what the kernel splits and merges for them.

use std::fmt::Display;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};

use quinn_udp::{UdpSockRef, UdpSocketState};

use crate::finding::{Finding, Wish};
use crate::host::Host;

/// Bytes of socket buffers.
const BUFFER_BYTES: u64 = 8 << 20;
/// Packets that may wait for a core.
const BACKLOG_PACKETS: u64 = 4096;

fn buffer(host: &Host, wish: Wish, key: &str) -> Finding {
    let Some(bytes) = host.number(&format!("proc/sys/net/core/{key}")) else {
        return wish.unknown(format!("no net.core.{key} here, perhaps because of a network namespace"));
    };
    let fix = format!("sysctl -w net.core.{key}={BUFFER_BYTES}; keep it in /etc/sysctl.d/");
    wish.judge(bytes >= BUFFER_BYTES, format!("{} KiB", bytes >> 10), &fix)
}

/// The largest receive buffer that a socket may ask for.
pub(super) fn receive_buffers(host: &Host) -> Finding {
    let wish = Wish {
        name: "receive buffers",
        wanted: "net.core.rmem_max of 8 MiB or more",
        why: "packets that come while a shard is busy wait there; what does not fit is lost",
    };
    buffer(host, wish, "rmem_max")
}

/// The largest send buffer that a socket may ask for.
pub(super) fn send_buffers(host: &Host) -> Finding {
    let wish = Wish {
        name: "send buffers",
        wanted: "net.core.wmem_max of 8 MiB or more",
        why: "a batch of packets waits there for the device; a full one makes the shard wait",
    };
    buffer(host, wish, "wmem_max")
}

fn socket() -> io::Result<UdpSocketState> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    UdpSocketState::new(UdpSockRef::from(&socket))
}

/// Generic segmentation offload.
pub(super) fn segmentation_offload(host: &Host) -> Finding {
    let wish = Wish {
        name: "GSO",
        wanted: "UDP_SEGMENT supported",
        why: "one system call sends up to 64 packets: 24 times as many packets per second on one core",
    };
    offload(host, &wish, UdpSocketState::max_gso_segments, "install a kernel of 4.18 or later")
}

/// Generic receive offload.
pub(super) fn receive_offload(host: &Host) -> Finding {
    let wish = Wish {
        name: "GRO",
        wanted: "UDP_GRO supported",
        why: "packets of a sender come merged: a tenth of the processor time per packet",
    };
    offload(host, &wish, UdpSocketState::gro_segments, "install a kernel of 5.0 or later")
}

fn offload<N>(host: &Host, wish: &Wish, segments: impl Fn(&UdpSocketState) -> N, remedy: &'static str) -> Finding
where
    N: PartialOrd + From<u8> + Display,
{
    if !host.is_here() {
        return wish.unknown("a socket of another host");
    }
    match socket().map(|state| segments(&state)) {
        Ok(segments) if segments > N::from(1) => wish.good(format!("up to {segments} packets per system call")),
        Ok(_) => wish.change("not supported", remedy),
        Err(error) => wish.unknown(format!("no UDP socket: {error}")),
    }
}

/// Packets that may wait between the device and the socket.
pub(super) fn backlog(host: &Host) -> Finding {
    let wish = Wish {
        name: "device backlog",
        wanted: "net.core.netdev_max_backlog of 4096 or more",
        why: "bursts wait there for a core; what does not fit is lost without a trace in the socket's counters",
    };
    let Some(packets) = host.number("proc/sys/net/core/netdev_max_backlog") else {
        return wish.unknown("no net.core.netdev_max_backlog here, perhaps because of a network namespace");
    };
    wish.judge(packets >= BACKLOG_PACKETS, format!("{packets} packets"), "sysctl -w net.core.netdev_max_backlog=4096")
}
