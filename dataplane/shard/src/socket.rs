//! The UDP sockets of shards.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use crate::error::ShardError;
use crate::{port, steering};

/// Bytes of the kernel's buffers of a socket, each way, as far as its limits allow.
const SOCKET_BUFFER: usize = 4 << 20;

/// Binds a socket for each of `shards` to the same address; the kernel steers datagrams by [`steering`]. Port 0: a free one.
///
/// # Errors
/// See [`ShardError`].
pub(crate) fn bind_shards(
    listen: SocketAddr,
    shards: usize,
    secret: u32,
) -> Result<(Vec<UdpSocket>, SocketAddr), ShardError> {
    // Whoever binds alone first finds out whether the address is taken: a group would join another process's.
    drop(bind(listen, false)?);
    let first = bind(listen, true)?;
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

fn bind(address: SocketAddr, shared: bool) -> Result<UdpSocket, ShardError> {
    let open = || -> io::Result<UdpSocket> {
        let domain = if address.is_ipv6() { Domain::IPV6 } else { Domain::IPV4 };
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_port(shared)?;
        // The kernel halves or cuts what its limits do not allow; that is no error.
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
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
