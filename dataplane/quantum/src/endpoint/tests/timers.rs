//! Timers: none is due twice at one moment, and a connection at rest sleeps.

use std::time::Duration;

use super::net::{CLIENT, Net, RTT, SERVER, config, with_fec};
use crate::{ConnectionHandle, EndpointConfig, Event, PathConfig, SecurityConfig, StreamId};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A network that loses, copies and delays.
fn bad_network(net: &mut Net, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let (loss, copies, jitter) =
        (rng.random_range(0.0..0.3), rng.random_range(0.0..0.2), rng.random_range(1..20_000_u64));
    net.hook = Box::new(move |mut segment| {
        segment.delay += Duration::from_micros(rng.random_range(0..jitter));
        match rng.random::<f64>() {
            chance if chance < loss => Vec::new(),
            chance if chance > 1.0 - copies => vec![segment.clone(), segment],
            _ => vec![segment],
        }
    });
}

/// Writes, finishes and reads at random.
fn act(net: &mut Net, rng: &mut StdRng, client: ConnectionHandle, open: &mut Vec<StreamId>) {
    let Some(mut connection) = net.nodes[CLIENT].endpoint.connection(client) else { return };
    match rng.random_range(0..4) {
        0 => open.extend(connection.open().ok()),
        1 | 2 => {
            if let Some(&id) = open.last() {
                let _ = connection.write(id, &mut Bytes::from(vec![1; rng.random_range(0..40_000)]));
            }
        }
        _ => {
            if let Some(id) = open.pop() {
                let _ = connection.finish(id);
            }
        }
    }
    drop(connection);
    if let Some(server) = net.server_handle() {
        let ids: Vec<StreamId> = net.nodes[SERVER]
            .events
            .iter()
            .filter_map(|(_, event)| match event {
                Event::StreamReadable(id) => Some(*id),
                _ => None,
            })
            .collect();
        for id in ids {
            net.read(SERVER, server, id);
        }
        net.nodes[SERVER].events.retain(|(_, event)| !matches!(event, Event::StreamReadable(_)));
    }
}

/// The network's fixture checks at every moment that no timer is due after what was due is done.
#[test]
fn no_timer_is_due_again_at_the_moment_at_which_it_was_served() {
    for seed in 0..150 {
        let mut rng = StdRng::seed_from_u64(seed);
        let settings = EndpointConfig {
            stream_window: 1 << rng.random_range(10..19),
            connection_window: 1 << rng.random_range(11..22),
            send_buffer_max: 1 << rng.random_range(10..18),
            security: SecurityConfig { handshakes_without_cookie: rng.random_range(0..2), ..SecurityConfig::default() },
            segments_max: rng.random_range(1..40),
            path: PathConfig {
                datagram_size: rng.random_range(1_200..=1_500),
                datagram_size_max: 1_500,
                ..PathConfig::default()
            },
            idle_timeout: Duration::from_secs(rng.random_range(3..40)),
            fec: if rng.random() { with_fec().fec } else { config().fec },
            keepalive: (rng.random_range(0..3) > 0).then(|| Duration::from_millis(rng.random_range(500..9_000))),
            ..config()
        };
        let mut net = Net::new(&settings);
        bad_network(&mut net, seed);
        let client = net.connect(CLIENT);
        let mut open = Vec::new();
        for _ in 0..60 {
            act(&mut net, &mut rng, client, &mut open);
            net.run_for(Duration::from_micros(rng.random_range(0..60_000)));
            assert!(net.nodes.iter().all(|node| node.endpoint.timers.len() <= 1), "one entry a connection");
        }
        if let Some(mut connection) = net.nodes[CLIENT].endpoint.connection(client) {
            connection.close(net.now, 0, b"");
        }
        net.run_for(Duration::from_mins(2));
        assert!(net.nodes.iter().all(|node| node.endpoint.is_idle() && node.endpoint.timers.is_empty()), "seed {seed}");
    }
}

#[test]
fn a_connection_at_rest_sleeps() {
    let (mut net, client, server) = Net::connected(&config());
    assert!(net.delivers(client, server));
    net.run_for(RTT * 5);
    let before = net.moments;
    net.run_for(Duration::from_mins(10));
    let moments = net.moments - before;
    // Every ten seconds a ping, its arrival, its acknowledgement, and the timers that find nothing to do.
    assert!(moments <= 60 * 8, "{moments} moments at which something happened");
}

#[test]
fn a_message_wakes_few_timers() {
    let (mut net, client, server) = Net::connected(&config());
    let before = net.moments;
    for _ in 0..100 {
        assert!(net.delivers(client, server));
        net.run_for(RTT);
    }
    let each = (net.moments - before) / 100;
    assert!(each <= 8, "{each} moments a message");
}
