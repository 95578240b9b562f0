//! Key updates between endpoints: often, on bad paths, forged, and before their time.

use std::time::Duration;

use super::net::{CLIENT, DELAY, Net, RTT, SERVER, address, config, with_fec};
use crate::connection::forge::Forged;
use crate::wire::Epoch;
use crate::{CloseReason, ConnectionHandle, EndpointConfig, ProtectionStats, SecurityConfig, TransportErrorCode};

/// Changes keys after so many packets.
fn updating(packets: u64, config: EndpointConfig) -> EndpointConfig {
    EndpointConfig { security: SecurityConfig { key_update_packets: packets, ..config.security }, ..config }
}

fn protection(net: &mut Net, place: usize, handle: ConnectionHandle) -> ProtectionStats {
    net.nodes[place].endpoint.connection(handle).unwrap().stats().protection
}

/// Sends so many bytes both ways; whether they came as they were.
fn exchange(net: &mut Net, client: ConnectionHandle, server: ConnectionHandle, len: usize) -> bool {
    let data: Vec<u8> = (0..len).map(|byte| (byte % 251) as u8).collect();
    let (up, down) = (net.write(CLIENT, client, &data), net.write(SERVER, server, &data));
    let (mut at_server, mut at_client) = (Vec::new(), Vec::new());
    net.wait_for(Duration::from_mins(2), |net| {
        at_server.extend(net.read(SERVER, server, up));
        at_client.extend(net.read(CLIENT, client, down));
        at_server.len() >= len && at_client.len() >= len
    }) && at_server == data
        && at_client == data
}

#[test]
fn keys_change_every_few_packets_under_loss_and_reordering_and_everything_arrives() {
    for settings in [config(), with_fec()] {
        let (mut net, client, server) = Net::connected(&updating(3, settings));
        let mut nth = 0_u64;
        net.hook = Box::new(move |mut segment| {
            nth += 1;
            // One in nine comes after those of the next milliseconds.
            segment.delay = DELAY + Duration::from_millis(if nth.is_multiple_of(9) { 4 } else { 0 });
            if nth.is_multiple_of(13) { Vec::new() } else { vec![segment] }
        });
        for round in 0..40 {
            assert!(exchange(&mut net, client, server, 60_000), "round {round}: {:?}", net.closed(CLIENT));
        }
        let stats = [protection(&mut net, CLIENT, client), protection(&mut net, SERVER, server)];
        let updates: u64 = stats.iter().map(|stats| stats.updates).sum();
        assert!(net.log.len() > 4_000 && updates > 20, "{} packets, {stats:?}", net.log.len());
        assert!(stats.iter().all(|stats| stats.not_opened == 0), "{stats:?}");
        let changes = net.log.windows(2).filter(|pair| pair[0].1.epoch() != pair[1].1.epoch()).count();
        assert!(changes as u64 >= updates, "the phase is on the wire");
    }
}

#[test]
fn both_sides_count_each_others_updates() {
    let (mut net, client, server) = Net::connected(&updating(5, config()));
    for _ in 0..10 {
        assert!(exchange(&mut net, client, server, 50_000));
        net.run_for(RTT * 5);
    }
    let (at_client, at_server) = (protection(&mut net, CLIENT, client), protection(&mut net, SERVER, server));
    let begun = |stats: ProtectionStats| stats.updates + stats.updates_by_peer;
    assert_eq!(begun(at_client), begun(at_server), "{at_client:?}, {at_server:?}");
    assert!(begun(at_client) > 1);
}

#[test]
fn a_forged_phase_bit_changes_nothing_but_a_counter() {
    let (mut net, client, server) = Net::connected(&config());
    assert!(net.delivers(client, server));
    let before = protection(&mut net, SERVER, server);
    // Each packet of the client comes with the other phase first.
    net.hook = Box::new(|segment| {
        let mut forged = segment.clone();
        forged.data[4] ^= 0x10;
        if segment.is_to_server() { vec![forged, segment] } else { vec![segment] }
    });
    let sent = net.log.len();
    assert!(exchange(&mut net, client, server, 20_000));
    let forged = net.log[sent..].iter().filter(|(_, segment)| segment.is_to_server()).count() as u64;
    net.run_for(RTT);
    let after = protection(&mut net, SERVER, server);
    assert!(forged > 10 && after.not_opened >= before.not_opened + forged, "{forged}, {after:?}");
    assert_eq!((after.updates, after.updates_by_peer), (before.updates, before.updates_by_peer));
    assert!(net.delivers(client, server) && net.closed(SERVER).is_none());
}

#[test]
fn a_key_update_before_the_first_phase_was_confirmed_ends_the_connection() {
    let mut net = Net::new(&config());
    let client = net.connect(CLIENT);
    assert!(net.wait_for(RTT * 5, |net| net.server_handle().is_some()), "the server has the client's Finished");
    let forged = Forged::frames(Epoch::OneRtt1, &[0x01]);
    let data = net.nodes[CLIENT].endpoint.slots.get_mut(client).unwrap().forge(&forged).unwrap();
    net.hand(SERVER, address(CLIENT), &data);
    net.run_for(RTT);
    let code = TransportErrorCode::KeyUpdate as u64;
    assert!(matches!(net.closed(SERVER), Some(CloseReason::Transport { code: told, .. }) if told == code));
    assert!(
        matches!(net.closed(CLIENT), Some(CloseReason::Peer { code: told, application: false, .. }) if told == code)
    );
}

#[test]
fn a_key_update_of_the_peer_is_answered() {
    let (mut net, client, server) = Net::connected(&config());
    assert!(net.delivers(client, server));
    // The first phase is confirmed when what came in it is acknowledged.
    net.run_for(RTT);
    let forged = Forged::frames(Epoch::OneRtt1, &[0x01]);
    let data = net.nodes[CLIENT].endpoint.slots.get_mut(client).unwrap().forge(&forged).unwrap();
    let sent = net.log.len();
    net.hand(SERVER, address(CLIENT), &data);
    assert!(net.delivers(client, server));
    let answers = net.log[sent..].iter().filter(|(_, segment)| !segment.is_to_server());
    assert!(answers.clone().count() > 0 && answers.clone().all(|(_, segment)| segment.epoch() == Epoch::OneRtt1));
    assert_eq!(protection(&mut net, SERVER, server).updates_by_peer, 1);
}
