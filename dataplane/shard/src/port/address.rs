//! Socket addresses as the kernel has them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Bytes of the longest address: `sockaddr_in6`.
pub(super) const NAME_LEN: usize = size_of::<libc::sockaddr_in6>();

/// Writes an address as `sockaddr_in` or `sockaddr_in6`. Gives its length.
pub(super) fn encode(address: SocketAddr, out: &mut [u8; NAME_LEN]) -> usize {
    out.fill(0);
    out[2..4].copy_from_slice(&address.port().to_be_bytes());
    match address {
        SocketAddr::V4(v4) => {
            out[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            out[4..8].copy_from_slice(&v4.ip().octets());
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            out[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            out[4..8].copy_from_slice(&v6.flowinfo().to_be_bytes());
            out[8..24].copy_from_slice(&v6.ip().octets());
            out[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
            NAME_LEN
        }
    }
}

/// Reads a `sockaddr_in` or `sockaddr_in6`.
pub(super) fn decode(name: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes(*name.first_chunk()?));
    let port = u16::from_be_bytes(*name.get(2..)?.first_chunk()?);
    match family {
        libc::AF_INET => {
            let octets: [u8; 4] = *name.get(4..)?.first_chunk()?;
            Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(octets)), port))
        }
        libc::AF_INET6 => {
            let flow = u32::from_be_bytes(*name.get(4..)?.first_chunk()?);
            let octets: [u8; 16] = *name.get(8..)?.first_chunk()?;
            let scope = u32::from_ne_bytes(*name.get(24..)?.first_chunk()?);
            let address = Ipv6Addr::from(octets);
            // A socket for both families has the other one's addresses mapped; the protocol compares them as they are.
            Some(match address.to_ipv4_mapped() {
                Some(v4) => SocketAddr::new(IpAddr::V4(v4), port),
                None => SocketAddr::V6(SocketAddrV6::new(address, port, flow, scope)),
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_and_cut_ones_are_none() {
        for text in ["127.0.0.1:65535", "[::1]:1", "[fe80::1%3]:4433"] {
            let address: SocketAddr = text.parse().unwrap();
            let mut name = [0; NAME_LEN];
            let len = encode(address, &mut name);
            assert_eq!(decode(&name[..len]), Some(address));
            for cut in 0..8 {
                assert_eq!(decode(&name[..cut]), None);
            }
        }
        assert_eq!(decode(&[0xff; NAME_LEN]), None);
    }
}
