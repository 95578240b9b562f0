//! System calls that no library wraps: memory, socket options, the error queue.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};

/// Bytes of the kernel's buffers of a socket, each way: 30 ms at 1 Gbit/s.
const SOCKET_BUFFER: i32 = 4 << 20;

/// Pages of anonymous memory, zeroed, at an address that does not change.
pub(super) struct Pages {
    address: *mut libc::c_void,
    len: usize,
}

impl Pages {
    /// At least `len` bytes.
    pub(super) fn new(len: usize) -> io::Result<Self> {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: an anonymous mapping at an address of the kernel's choice overlaps nothing.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { address, len })
    }

    /// Where they begin.
    pub(super) fn address(&self) -> usize {
        self.address as usize
    }

    /// `len` bytes from `start`.
    pub(super) fn slice(&mut self, start: usize, len: usize) -> &mut [u8] {
        assert!(start <= self.len && len <= self.len - start, "a buffer lies within its pages");
        // SAFETY: the range lies within the mapping, which is initialised (zeroed) and borrowed mutably; the kernel does
        // not write to a buffer that it has handed over.
        unsafe { std::slice::from_raw_parts_mut(self.address.cast::<u8>().add(start), len) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: address and length are those of a mapping that nobody else unmaps.
        unsafe { libc::munmap(self.address, self.len) };
    }
}

/// A message header of zeroes.
pub(super) fn empty_message() -> libc::msghdr {
    // SAFETY: msghdr consists of integers and pointers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

fn set_option(socket: &impl AsFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel reads four bytes from the address of an i32 that outlives the call.
    let result = unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), size_of::<i32>() as u32) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Turns on what the port wants to know of each datagram, and makes the kernel's buffers large. Old kernels may lack any of
/// it.
pub(crate) fn prepare_socket(socket: &UdpSocket, is_v6: bool) {
    // Beyond the system's limits if this process may (CAP_NET_ADMIN), up to them if not.
    for (forced, asked) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
        let _ = set_option(socket, libc::SOL_SOCKET, forced, SOCKET_BUFFER)
            .or_else(|_| set_option(socket, libc::SOL_SOCKET, asked, SOCKET_BUFFER));
    }
    // Datagrams are never fragmented (RFC 9000 section 14), and their size does not depend on what ICMP messages say.
    let _ = set_option(socket, libc::SOL_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE);
    if is_v6 {
        let _ = set_option(socket, libc::SOL_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE);
    }
    // Best effort: without GRO datagrams come one by one, without the others ECN and the local address are not known.
    let _ = set_option(socket, libc::SOL_UDP, libc::UDP_GRO, 1);
    let _ = set_option(socket, libc::SOL_IP, libc::IP_RECVTOS, 1);
    let _ = set_option(socket, libc::SOL_IP, libc::IP_PKTINFO, 1);
    // What ICMP says is kept with the datagram it is about.
    let _ = set_option(socket, libc::SOL_IP, libc::IP_RECVERR, 1);
    if is_v6 {
        let _ = set_option(socket, libc::SOL_IPV6, libc::IPV6_RECVERR, 1);
        let _ = set_option(socket, libc::SOL_IPV6, libc::IPV6_RECVTCLASS, 1);
        let _ = set_option(socket, libc::SOL_IPV6, libc::IPV6_RECVPKTINFO, 1);
    }
}

/// Datagrams do not tell `IP_PKTINFO` any more.
pub(super) fn forget_local_v4(socket: &UdpSocket) -> io::Result<()> {
    set_option(socket, libc::SOL_IP, libc::IP_PKTINFO, 0)
}

/// Bytes that an entry of the error queue has.
pub(super) struct ErrorLens {
    pub(super) name: usize,
    pub(super) quoted: usize,
    pub(super) control: usize,
}

/// Takes the oldest entry of the socket's error queue: where the datagram went, the front of its payload, ancillary data.
pub(super) fn receive_error(
    socket: &UdpSocket,
    name: &mut [u8],
    quoted: &mut [u8],
    control: &mut [u8],
) -> io::Result<ErrorLens> {
    let mut vector = libc::iovec { iov_base: quoted.as_mut_ptr().cast(), iov_len: quoted.len() };
    let mut message = empty_message();
    (message.msg_name, message.msg_namelen) = (name.as_mut_ptr().cast(), name.len() as u32);
    (message.msg_iov, message.msg_iovlen) = (&raw mut vector, 1);
    (message.msg_control, message.msg_controllen) = (control.as_mut_ptr().cast(), control.len() as _);
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    // SAFETY: the addresses and lengths in the message are those of slices that are borrowed mutably for the call.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let quoted_len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    Ok(ErrorLens {
        name: message.msg_namelen as usize,
        quoted: quoted_len.min(quoted.len()),
        control: message.msg_controllen,
    })
}

/// Gives the sockets of a group a program that picks among them for each datagram.
pub(crate) fn attach_steering(socket: &UdpSocket, program: &mut [libc::sock_filter]) -> io::Result<()> {
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    let (fd, option) = (socket.as_raw_fd(), libc::SO_ATTACH_REUSEPORT_CBPF);
    let (value, len) = (&raw const filter, size_of::<libc::sock_fprog>() as u32);
    // SAFETY: the kernel copies the program, whose address and length are those of a slice that outlives the call.
    let result = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, option, value.cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Memory that may be locked, in KiB; the largest number if there is no limit.
pub(crate) fn locked_memory_limit_kib() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Memlock).current.map_or(u64::MAX, |limit| limit >> 10)
}
