//! Send buffers: what a `sendmsg` operation needs to stay where it is until it is done.

use std::net::SocketAddr;

use quantum::Transmit;

use super::address::{self, NAME_LEN};
use super::control::{CONTROL_LEN, Writer};

/// A transmit on its way.
pub(super) struct SendSlot {
    data: Vec<u8>,
    name: [u8; NAME_LEN],
    control: Control,
    /// Bytes of the ancillary data before the segment size, which is last.
    control_single_len: usize,
    control_len: usize,
    vector: libc::iovec,
    message: libc::msghdr,
    remote: SocketAddr,
    segment_size: usize,
    len: usize,
}

/// Ancillary data, aligned as the kernel wants it.
#[repr(align(8))]
struct Control([u8; CONTROL_LEN]);

impl SendSlot {
    /// A slot for transmits of at most `len` bytes. It must not move while the kernel has its addresses.
    pub(super) fn new(len: usize) -> Self {
        Self {
            data: vec![0; len],
            name: [0; NAME_LEN],
            control: Control([0; CONTROL_LEN]),
            control_single_len: 0,
            control_len: 0,
            vector: libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 },
            message: super::sys::empty_message(),
            remote: SocketAddr::from(([0, 0, 0, 0], 0)),
            segment_size: 0,
            len: 0,
        }
    }

    /// The buffer.
    pub(super) fn data(&mut self) -> &mut [u8] {
        &mut self.data
    }

    /// Makes the first bytes of the buffer a message, and gives what the kernel wants to know. Valid until the slot is
    /// used again.
    pub(super) fn prepare(&mut self, transmit: &Transmit) -> *const libc::msghdr {
        self.remote = transmit.remote;
        self.len = transmit.len.min(self.data.len());
        self.segment_size = transmit.segment_size.max(1);
        let name_len = address::encode(transmit.remote, &mut self.name);
        let mut control = Writer::new(&mut self.control.0);
        // A socket for both families wants the ancillary data of the remote address's.
        let is_v6 = transmit.remote.is_ipv6();
        if let Some(local) = transmit.local.filter(|local| local.is_ipv6() == is_v6) {
            control.local(local);
        }
        if transmit.ecn != 0 {
            control.ecn(transmit.ecn, is_v6);
        }
        self.control_single_len = control.len();
        if self.segment_size < self.len {
            control.segment_size(self.segment_size as u16);
        }
        let control_len = control.len();
        self.control_len = control_len;
        self.vector = libc::iovec { iov_base: self.data.as_mut_ptr().cast(), iov_len: self.len };
        self.message.msg_name = self.name.as_mut_ptr().cast();
        self.message.msg_namelen = name_len as u32;
        self.message.msg_iov = &raw mut self.vector;
        self.message.msg_iovlen = 1;
        self.message.msg_control =
            if control_len == 0 { std::ptr::null_mut() } else { self.control.0.as_mut_ptr().cast() };
        self.message.msg_controllen = control_len as _;
        &raw const self.message
    }

    /// Where the message goes, its ancillary data, and its bytes.
    pub(super) fn whole(&self) -> (SocketAddr, &[u8], &[u8]) {
        (self.remote, &self.control.0[..self.control_len], &self.data[..self.len])
    }

    /// Whether the message is cut into segments by the kernel.
    pub(super) fn is_segmented(&self) -> bool {
        self.segment_size < self.len
    }

    /// Where the message goes, its ancillary data but for the segment size, and its packets: for sending them one by one.
    pub(super) fn segments(&self) -> (SocketAddr, &[u8], impl Iterator<Item = &[u8]>) {
        let ancillary = &self.control.0[..self.control_single_len];
        (self.remote, ancillary, self.data[..self.len].chunks(self.segment_size))
    }
}
