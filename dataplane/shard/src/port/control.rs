//! Ancillary data of datagrams: ECN bits, local addresses, segment sizes (`cmsg(3)`, `ip(7)`, `udp(7)`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes for the ancillary data of one datagram in either direction.
pub(super) const CONTROL_LEN: usize = 128;

/// Bytes of a `cmsghdr`: length, level, type.
const HEADER_LEN: usize = 16;
/// Ancillary data is aligned to so many bytes.
const ALIGN: usize = 8;

/// What ancillary data said about a received datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ancillary {
    /// The two ECN bits.
    pub(super) ecn: u8,
    /// The address it came to.
    pub(super) local: Option<IpAddr>,
    /// Size of each merged segment.
    pub(super) segment_size: Option<usize>,
}

/// Reads the ancillary data of a received datagram. What is unknown or cut short is passed over.
pub(super) fn decode(data: &[u8]) -> Ancillary {
    let mut found = Ancillary::default();
    for (level, kind, value) in Messages(data) {
        take(&mut found, level, kind, value);
    }
    found
}

/// The control messages of ancillary data: level, type, value. Ends at one that is cut short.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = (i32, i32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let data = self.0;
        let header = data.first_chunk::<HEADER_LEN>()?;
        let len = usize::from_ne_bytes(*header.first_chunk().expect("a header has 16 bytes"));
        let level = i32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
        let kind = i32::from_ne_bytes([header[12], header[13], header[14], header[15]]);
        let value = data.get(HEADER_LEN..len)?;
        self.0 = len.checked_next_multiple_of(ALIGN).and_then(|next| data.get(next..)).unwrap_or_default();
        Some((level, kind, value))
    }
}

/// Whether the ancillary data of an entry of the error queue is of an ICMP message that nobody listens at the port: ICMP type 3
/// code 3 (RFC 792), `ICMPv6` type 1 code 4 (RFC 4443 section 3.1).
pub(super) fn says_port_unreachable(data: &[u8]) -> bool {
    Messages(data).any(|(level, kind, value)| {
        // sock_extended_err: errno (4 bytes), origin, type, code.
        let Some(&[_, _, _, _, origin, icmp_type, code]) = value.first_chunk() else { return false };
        let error = (origin, icmp_type, code);
        match (level, kind) {
            // A socket for both families has both levels say both.
            (libc::SOL_IP, libc::IP_RECVERR) | (libc::SOL_IPV6, libc::IPV6_RECVERR) => {
                error == (libc::SO_EE_ORIGIN_ICMP, 3, 3) || error == (libc::SO_EE_ORIGIN_ICMP6, 1, 4)
            }
            _ => false,
        }
    })
}

fn take(found: &mut Ancillary, level: i32, kind: i32, value: &[u8]) {
    match (level, kind) {
        (libc::SOL_IP, libc::IP_TOS) | (libc::SOL_IPV6, libc::IPV6_TCLASS) => {
            // An int in native order, or a single byte: the bits are in the first byte of either on little endian.
            let byte = match value.first_chunk::<4>() {
                Some(bytes) => i32::from_ne_bytes(*bytes) as u8,
                None => value.first().copied().unwrap_or(0),
            };
            found.ecn = byte & 0b11;
        }
        (libc::SOL_IP, libc::IP_PKTINFO) => {
            let octets: Option<[u8; 4]> = value.get(8..12).and_then(|octets| octets.try_into().ok());
            found.local = octets.map(|octets| IpAddr::V4(Ipv4Addr::from(octets)));
        }
        (libc::SOL_IPV6, libc::IPV6_PKTINFO) => {
            let octets: Option<[u8; 16]> = value.get(..16).and_then(|octets| octets.try_into().ok());
            found.local = octets.map(|octets| Ipv6Addr::from(octets).to_canonical());
        }
        (libc::SOL_UDP, libc::UDP_GRO) => {
            let size = value.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
            found.segment_size = size.and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0);
        }
        _ => {}
    }
}

/// Ancillary data of a datagram to send.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    out: &'a mut [u8; CONTROL_LEN],
    len: usize,
}

impl<'a> Writer<'a> {
    pub(super) fn new(out: &'a mut [u8; CONTROL_LEN]) -> Self {
        Self { out, len: 0 }
    }

    /// Cuts the payload into segments of that size.
    pub(super) fn segment_size(&mut self, size: u16) {
        self.push(libc::SOL_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes());
    }

    /// Sends from that address.
    pub(super) fn local(&mut self, local: IpAddr) {
        match local {
            IpAddr::V4(v4) => {
                // in_pktinfo: interface, source, destination.
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&v4.octets());
                self.push(libc::SOL_IP, libc::IP_PKTINFO, &info);
            }
            IpAddr::V6(v6) => {
                let mut info = [0; 20];
                info[..16].copy_from_slice(&v6.octets());
                self.push(libc::SOL_IPV6, libc::IPV6_PKTINFO, &info);
            }
        }
    }

    /// Sets the two ECN bits.
    pub(super) fn ecn(&mut self, ecn: u8, is_v6: bool) {
        let (level, kind) = if is_v6 { (libc::SOL_IPV6, libc::IPV6_TCLASS) } else { (libc::SOL_IP, libc::IP_TOS) };
        self.push(level, kind, &i32::from(ecn & 0b11).to_ne_bytes());
    }

    /// Bytes written.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn push(&mut self, level: i32, kind: i32, value: &[u8]) {
        let len = HEADER_LEN + value.len();
        let out = &mut self.out[self.len..][..len.next_multiple_of(ALIGN)];
        out.fill(0);
        out[..8].copy_from_slice(&len.to_ne_bytes());
        out[8..12].copy_from_slice(&level.to_ne_bytes());
        out[12..16].copy_from_slice(&kind.to_ne_bytes());
        out[HEADER_LEN..len].copy_from_slice(value);
        self.len += len.next_multiple_of(ALIGN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nonsense_is_passed_over() {
        let mut out = [0; CONTROL_LEN];
        let mut writer = Writer::new(&mut out);
        writer.segment_size(1200);
        writer.local(IpAddr::from([10, 0, 0, 7]));
        writer.ecn(0b01, false);
        let len = writer.len();
        let found = decode(&out[..len]);
        assert_eq!(found.ecn, 0b01);
        for cut in 0..len {
            decode(&out[..cut]);
        }
        for byte in 0..=255 {
            decode(&[byte; CONTROL_LEN]);
            assert!(!says_port_unreachable(&[byte; CONTROL_LEN]));
        }
    }

    #[test]
    fn of_all_errors_only_an_unreachable_port_is_one() {
        let error = |level: i32, kind: i32, error: [u8; 7]| {
            let mut out = [0; CONTROL_LEN];
            let mut writer = Writer::new(&mut out);
            writer.ecn(0b01, false);
            let mut value = [0; 32];
            value[..7].copy_from_slice(&error);
            writer.push(level, kind, &value);
            let len = writer.len();
            assert!((0..len).all(|cut| !says_port_unreachable(&out[..cut])), "cut short");
            says_port_unreachable(&out[..len])
        };
        let (v4, v6) = ((libc::SOL_IP, libc::IP_RECVERR), (libc::SOL_IPV6, libc::IPV6_RECVERR));
        assert!(error(v4.0, v4.1, [111, 0, 0, 0, 2, 3, 3]));
        assert!(error(v6.0, v6.1, [111, 0, 0, 0, 3, 1, 4]));
        assert!(error(v6.0, v6.1, [111, 0, 0, 0, 2, 3, 3]), "of an IPv4 peer of a socket for both families");
        for other in
            [[113, 0, 0, 0, 2, 3, 1], [110, 0, 0, 0, 2, 11, 0], [90, 0, 0, 0, 1, 0, 0], [111, 0, 0, 0, 3, 3, 3]]
        {
            assert!(!error(v4.0, v4.1, other) && !error(v6.0, v6.1, other), "{other:?}");
        }
        assert!(!error(libc::SOL_IP, libc::IP_TTL, [111, 0, 0, 0, 2, 3, 3]));
    }
}
