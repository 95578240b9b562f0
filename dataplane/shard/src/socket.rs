//! The UDP sockets of shards.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::error::ShardError;
use crate::{port, steering};

/// The kernel takes a ring apart in the background, so that its socket outlives its process (measured: by 4 to 9 ms on an idle
/// host), and a process that this one is just starting has this one's sockets until its program is loaded. Whoever binds waits
/// that long.
const FREED_WITHIN: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(5);

/// Binds a socket for each of `shards` to the same address; the kernel steers datagrams by [`steering`]. Port 0: a free one.
///
/// # Errors
/// See [`ShardError`].
pub(crate) fn bind_shards(
    listen: SocketAddr,
    shards: usize,
    secret: u64,
) -> Result<(Vec<UdpSocket>, SocketAddr), ShardError> {
    // Whoever binds alone first finds out whether the address is taken: a group would join another process's.
    drop(bind_once_free(listen, false)?);
    let first = bind_once_free(listen, true)?;
    let address = first.local_addr().map_err(|source| ShardError::Socket { address: listen, source })?;
    let mut sockets = vec![first];
    for _ in 1..shards {
        sockets.push(bind(address, true)?);
    }
    if shards > 1 {
        let mut program = steering::program(secret, shards);
        port::attach_steering(&sockets[0], &mut program).map_err(|source| ShardError::Socket { address, source })?;
    }
    Ok((sockets, address))
}

/// Binds a socket of its own.
///
/// # Errors
/// See [`ShardError`].
pub(crate) fn bind_alone(listen: SocketAddr) -> Result<UdpSocket, ShardError> {
    bind(listen, false)
}

fn bind_once_free(address: SocketAddr, shared: bool) -> Result<UdpSocket, ShardError> {
    let until = Instant::now() + FREED_WITHIN;
    loop {
        match bind(address, shared) {
            Err(ShardError::AddressInUse(_)) if Instant::now() < until => std::thread::sleep(POLL),
            outcome => return outcome,
        }
    }
}

fn bind(address: SocketAddr, shared: bool) -> Result<UdpSocket, ShardError> {
    let open = || -> io::Result<UdpSocket> {
        let domain = if address.is_ipv6() { Domain::IPV6 } else { Domain::IPV4 };
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_port(shared)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        Ok(socket.into())
    };
    let socket = open().map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ShardError::AddressInUse(address),
        _ => ShardError::Socket { address, source },
    })?;
    port::prepare_socket(&socket, address.is_ipv6());
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn an_address_that_is_taken_is_told_with_the_address() {
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            let (_group, address) = bind_shards(listen.parse().unwrap(), 2, 1).unwrap();
            for shards in [1, 2] {
                let error = bind_shards(address, shards, 1).expect_err("no other group joins").to_string();
                assert!(error.contains(&address.to_string()) && error.contains("in use"), "{error}");
            }
            assert!(matches!(bind_alone(address), Err(ShardError::AddressInUse(taken)) if taken == address));
        }
    }

    #[test]
    fn an_address_that_is_about_to_be_free_is_waited_for() {
        let (group, address) = bind_shards("127.0.0.1:0".parse().unwrap(), 2, 1).unwrap();
        let leaving = std::thread::spawn(move || {
            std::thread::sleep(FREED_WITHIN / 10);
            drop(group);
        });
        let (again, _) = bind_shards(address, 2, 1).unwrap();
        assert_eq!(again[1].local_addr().unwrap(), address);
        leaving.join().unwrap();
    }

    #[test]
    fn processes_that_start_meanwhile_do_not_take_the_address() {
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let start = || {
                while !is_done.load(Ordering::Relaxed) {
                    assert!(Command::new("true").status().unwrap().success());
                }
            };
            scope.spawn(start);
            scope.spawn(start);
            // A port that one group has left is bound again, as a server does that is told which one.
            let (group, address) = bind_shards("127.0.0.1:0".parse().unwrap(), 2, 1).unwrap();
            drop(group);
            let outcomes = std::array::from_fn::<_, 200, _>(|_| bind_shards(address, 2, 1).map(drop));
            is_done.store(true, Ordering::Relaxed);
            let refused = outcomes.iter().filter(|outcome| outcome.is_err()).count();
            assert_eq!(refused, 0, "{outcomes:?}");
        });
    }

    #[test]
    fn an_address_of_another_machine_is_told() {
        let error = bind_shards("192.0.2.1:4433".parse().unwrap(), 2, 1).unwrap_err().to_string();
        assert!(error.contains("192.0.2.1:4433"), "{error}");
    }

    #[test]
    fn a_group_shares_the_port_that_the_kernel_chose() {
        for listen in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"] {
            let (group, address) = bind_shards(listen.parse().unwrap(), 3, 1).unwrap();
            assert_ne!(address.port(), 0);
            assert!(group.len() == 3 && group.iter().all(|socket| socket.local_addr().unwrap() == address));
        }
    }

    #[test]
    fn buffers_are_as_large_as_the_system_allows() {
        let socket = socket2::Socket::from(bind_alone("127.0.0.1:0".parse().unwrap()).unwrap());
        let limit = |name: &str| -> usize {
            std::fs::read_to_string(format!("/proc/sys/net/core/{name}_max")).unwrap().trim().parse().unwrap()
        };
        let (receive, send) = (socket.recv_buffer_size().unwrap(), socket.send_buffer_size().unwrap());
        // The kernel counts its own bookkeeping too and says twice what was asked for.
        assert!(receive >= 2 * limit("rmem").min(4 << 20), "{receive}");
        assert!(send >= 2 * limit("wmem").min(4 << 20), "{send}");
    }
}
