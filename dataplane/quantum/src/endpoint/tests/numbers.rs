//! Packet numbers: 64 bits in memory, 32 on the wire.

use std::sync::Arc;
use std::time::Duration;

use super::net::{CLIENT, Net, RTT, SERVER, client_tls, config};
use crate::wire::Epoch;
use crate::{CloseReason, ConnectOptions};

/// A connection whose key seals as many packets as one likes: with AES it ends long before its numbers wrap on the wire.
fn connected() -> (Net, crate::ConnectionHandle, crate::ConnectionHandle) {
    let mut net = Net::new(&config());
    let mut tls = rustls::ClientConfig::clone(&client_tls(true));
    let mut provider = rustls::crypto::CryptoProvider::clone(tls.crypto_provider());
    provider.cipher_suites.retain(|suite| suite.suite() == rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
    let roots = Net::roots();
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(provider));
    tls = builder
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let options = ConnectOptions { tls: Arc::new(tls), ..net.options() };
    let client = net.nodes[CLIENT].endpoint.connect(net.now, options).unwrap();
    net.run_for(RTT * 5);
    let server = net.server_handle().unwrap();
    (net, client, server)
}

#[test]
fn numbers_wrap_on_the_wire_and_everything_arrives() {
    let (mut net, client, server) = connected();
    // No step is longer than what may be in flight, and after each the reports of what was before are acknowledged.
    for step in 1..=4 {
        for (place, handle, number) in [(CLIENT, client, (step << 30) - 40), (SERVER, server, (step << 30) - 25)] {
            net.nodes[place].endpoint.slots.get_mut(handle).unwrap().skip_to(number);
        }
        for _ in 0..if step < 4 { 4 } else { 0 } {
            assert!(net.delivers(client, server));
            let id = net.write(SERVER, server, b"back");
            assert!(net.wait_for(RTT, |net| net.read(CLIENT, client, id) == b"back"));
            net.run_for(RTT);
        }
    }
    // Every seventh packet is lost, so that blocks stand on both sides of the wrap.
    let mut nth = 0;
    net.hook = Box::new(move |segment| {
        nth += 1;
        if nth % 7 == 0 { Vec::new() } else { vec![segment] }
    });
    let sent = net.log.len();
    let data: Vec<u8> = (0..100_000_u32).map(|byte| (byte % 251) as u8).collect();
    let id = net.write(CLIENT, client, &data);
    let mut got = Vec::new();
    let all = net.wait_for(Duration::from_secs(10), |net| {
        got.extend(net.read(SERVER, server, id));
        got.len() == data.len()
    });
    assert!(all && got == data, "{} bytes", got.len());
    for place in [CLIENT, SERVER] {
        let own = net.log[sent..].iter().filter(|(_, it)| it.is_to_server() == (place == CLIENT));
        let numbers: Vec<u32> = own.map(|(_, it)| it.header().sequence).collect();
        assert!(numbers.first() > Some(&(u32::MAX - 50)) && numbers.last() < Some(&1_000), "they wrapped: {numbers:?}");
        assert!(numbers.windows(2).all(|pair| (1..=2).contains(&pair[1].wrapping_sub(pair[0]))));
    }
    assert!(net.closed(CLIENT).is_none() && net.closed(SERVER).is_none());
}

#[test]
fn a_connection_ends_before_its_key_has_sealed_more_than_it_may() {
    let (mut net, client, server) = Net::connected(&config());
    assert!(net.delivers(client, server));
    net.run_for(RTT * 2);
    // Nothing comes back, so the key changes once and the second one is never confirmed.
    net.hook = Box::new(|segment| if segment.is_to_server() { vec![segment] } else { Vec::new() });
    let mut sent = 0;
    for phase in [Epoch::OneRtt1, Epoch::OneRtt1] {
        net.nodes[CLIENT].endpoint.slots.get_mut(client).unwrap().wear_key(132);
        sent = net.log.len();
        net.write(CLIENT, client, &[1; 10_000]);
        net.run_for(RTT / 4);
        assert!(net.log[sent..].iter().all(|(_, it)| !it.is_to_server() || it.epoch() == phase));
    }
    net.run_for(RTT);
    assert!(matches!(net.closed(CLIENT), Some(CloseReason::Transport { code: 0, .. })), "{:?}", net.closed(CLIENT));
    assert!(matches!(net.closed(SERVER), Some(CloseReason::Peer { code: 0, application: false, .. })));
    let packets = net.log[sent..].iter().filter(|(_, it)| it.is_to_server()).count();
    assert!((4..10).contains(&packets), "{packets} packets, the close included");
}
