//! Cookies: how a server has a client prove its address without remembering it.

use std::net::SocketAddr;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;

use crate::{Guuid, Time};

/// Bytes of a cookie: when it was made (seconds, four bytes) and a truncated HMAC.
pub(crate) const COOKIE_LEN: usize = TIME_LEN + MAC_LEN;
/// How long a cookie is good, to the second.
pub(crate) const COOKIE_LIFETIME: Duration = Duration::from_secs(30);

const TIME_LEN: usize = 4;
const MAC_LEN: usize = 16;
/// The key changes so often. A cookie's lifetime is no longer, so it spans two keys at most.
const ROTATION_SECS: u32 = 30;

const _: () = assert!(COOKIE_LIFETIME.as_secs() <= ROTATION_SECS as u64);
const _: () = assert!(COOKIE_LEN <= crate::wire::COOKIE_LEN_MAX);

/// The key of a server's cookies.
#[derive(Debug)]
pub(crate) struct CookieKey {
    root: hmac::Key,
    /// The keys of the latest even and the latest odd period, with their periods: verifying in turn with both of two
    /// neighbouring periods derives no key again.
    periods: [Option<(u32, hmac::Key)>; 2],
}

impl CookieKey {
    /// The cookie key of a node.
    pub(crate) fn new(node_key: &[u8; 32]) -> Self {
        let label = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, node_key), b"quantum cookie");
        Self { root: hmac::Key::new(hmac::HMAC_SHA256, label.as_ref()), periods: [None, None] }
    }

    /// A cookie for the client at `remote` and its connection.
    pub(crate) fn issue(&mut self, now: Time, remote: SocketAddr, guuid: Guuid) -> [u8; COOKIE_LEN] {
        self.seal(seconds(now), remote, guuid)
    }

    /// Whether `cookie` was issued to `remote` for this connection, at most [`COOKIE_LIFETIME`] ago.
    pub(crate) fn verify(&mut self, now: Time, remote: SocketAddr, guuid: Guuid, cookie: &[u8]) -> bool {
        let Some((issued, _)) = cookie.split_first_chunk::<TIME_LEN>() else { return false };
        let issued = u32::from_be_bytes(*issued);
        match seconds(now).checked_sub(issued) {
            Some(age) if u64::from(age) <= COOKIE_LIFETIME.as_secs() => {}
            _ => return false,
        }
        verify_slices_are_equal(&self.seal(issued, remote, guuid), cookie).is_ok()
    }

    fn seal(&mut self, issued: u32, remote: SocketAddr, guuid: Guuid) -> [u8; COOKIE_LEN] {
        let mut context = hmac::Context::with_key(self.period_key(issued / ROTATION_SECS));
        context.update(&issued.to_be_bytes());
        context.update(&address_bytes(remote));
        context.update(guuid.as_bytes());
        let mut cookie = [0; COOKIE_LEN];
        cookie[..TIME_LEN].copy_from_slice(&issued.to_be_bytes());
        cookie[TIME_LEN..].copy_from_slice(&context.sign().as_ref()[..MAC_LEN]);
        cookie
    }

    fn period_key(&mut self, period: u32) -> &hmac::Key {
        let slot = &mut self.periods[(period & 1) as usize];
        if slot.as_ref().is_none_or(|(of, _)| *of != period) {
            *slot = None;
        }
        let root = &self.root;
        let (_, key) = slot.get_or_insert_with(|| {
            let derived = hmac::sign(root, &period.to_be_bytes());
            (period, hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()))
        });
        key
    }
}

fn seconds(now: Time) -> u32 {
    (now.as_nanos() / 1_000_000_000) as u32
}

/// The address as IPv6 and the port. A socket of both families names an IPv4 peer either way; both are the same peer.
fn address_bytes(remote: SocketAddr) -> [u8; 18] {
    let ip = match remote {
        SocketAddr::V4(v4) => v4.ip().to_ipv6_mapped(),
        SocketAddr::V6(v6) => *v6.ip(),
    };
    let mut bytes = [0; 18];
    bytes[..16].copy_from_slice(&ip.octets());
    bytes[16..].copy_from_slice(&remote.port().to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guuid(last: u8) -> Guuid {
        Guuid([last; 16])
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn at(secs: u64) -> Time {
        Time::from_nanos(secs * 1_000_000_000)
    }

    #[test]
    fn a_cookie_is_good_for_its_lifetime_and_no_longer() {
        let mut key = CookieKey::new(&[7; 32]);
        let client = address("192.0.2.1:4000");
        for issued in [0, 1, 29, 30, 31, 59, 1_000_000] {
            let cookie = key.issue(at(issued), client, guuid(1));
            for age in 0..=30 {
                assert!(key.verify(at(issued + age), client, guuid(1), &cookie), "issued {issued}, age {age}");
            }
            assert!(!key.verify(at(issued + 31), client, guuid(1), &cookie));
            assert!(!key.verify(at(issued + 3600), client, guuid(1), &cookie));
        }
        let cookie = key.issue(at(100), client, guuid(1));
        assert!(!key.verify(at(99), client, guuid(1), &cookie), "a cookie from the future");
    }

    #[test]
    fn a_cookie_is_bound_to_address_port_connection_and_node() {
        let mut key = CookieKey::new(&[7; 32]);
        let client = address("192.0.2.1:4000");
        let cookie = key.issue(at(5), client, guuid(1));
        assert!(key.verify(at(6), address("[::ffff:192.0.2.1]:4000"), guuid(1), &cookie), "the same peer");
        assert!(!key.verify(at(6), address("192.0.2.2:4000"), guuid(1), &cookie));
        assert!(!key.verify(at(6), address("192.0.2.1:4001"), guuid(1), &cookie));
        assert!(!key.verify(at(6), client, guuid(2), &cookie));
        assert!(!CookieKey::new(&[8; 32]).verify(at(6), client, guuid(1), &cookie));
        assert!(CookieKey::new(&[7; 32]).verify(at(6), client, guuid(1), &cookie), "another shard of the node");
    }

    #[test]
    fn a_changed_cut_or_lengthened_cookie_is_refused() {
        let mut key = CookieKey::new(&[7; 32]);
        let client = address("[2001:db8::1]:4000");
        let cookie = key.issue(at(5), client, guuid(1));
        for bit in 0..COOKIE_LEN * 8 {
            let mut changed = cookie;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!key.verify(at(6), client, guuid(1), &changed), "bit {bit}");
        }
        for len in 0..COOKIE_LEN {
            assert!(!key.verify(at(6), client, guuid(1), &cookie[..len]));
        }
        assert!(!key.verify(at(6), client, guuid(1), &[&cookie[..], &[0]].concat()));
    }
}
