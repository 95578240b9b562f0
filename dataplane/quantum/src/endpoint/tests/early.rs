//! Early data: the answer after one round trip, and everything that must not come of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::net::{
    CLIENT, DELAY, Net, RTT, SERVER, Segment, address, client_tls, config, identity, server_tls, with_fec,
};
use crate::connection::forge::Forged;
use crate::wire::{Epoch, Flags};
use crate::{
    CloseReason, ConnectOptions, ConnectionHandle, ConnectionStats, EndpointConfig, Event, StreamId, Time,
    TransportErrorCode,
};

const REQUEST: &[u8] = b"what is it";
const ANSWER: &[u8] = b"this is it";
/// The probe timeout while no round trip has been seen.
const FIRST_TIMEOUT: Duration = Duration::from_millis(300);

fn with_early(config: EndpointConfig) -> EndpointConfig {
    let security = crate::SecurityConfig { early_data: true, ..config.security };
    EndpointConfig { security, ..config }
}

/// A network whose client has been connected before, and what it remembers.
struct Resumed {
    net: Net,
    config: EndpointConfig,
    client_tls: Arc<rustls::ClientConfig>,
    server_tls: Arc<rustls::ServerConfig>,
    /// When the second connection began.
    start: Time,
    client: ConnectionHandle,
}

/// What came of a request.
#[derive(Debug, Default)]
struct Outcome {
    /// When the server had the request, and the client the answer, after the connection began.
    asked: Option<Duration>,
    answered: Option<Duration>,
    requests: usize,
}

impl Resumed {
    fn new(config: EndpointConfig) -> Self {
        let (client_tls, server_tls) = (client_tls(true), server_tls(identity()));
        let mut net = Net::new(&config);
        net.restart_server(&config, &server_tls);
        let options = ConnectOptions { tls: Arc::clone(&client_tls), ..net.options() };
        let client = net.nodes[CLIENT].endpoint.connect(net.now, options).unwrap();
        net.run_for(RTT * 5);
        assert!(net.is_connected(CLIENT));
        let now = net.now;
        net.nodes[CLIENT].endpoint.connection(client).unwrap().close(now, 0, b"");
        net.run_for(Duration::from_secs(2));
        net.nodes[CLIENT].events.clear();
        net.nodes[SERVER].events.clear();
        net.log.clear();
        Self { start: net.now, net, config, client_tls, server_tls, client }
    }

    /// The second connection begins. Tells whether it has early data.
    fn connect(&mut self) -> bool {
        self.start = self.net.now;
        let options = ConnectOptions { tls: Arc::clone(&self.client_tls), ..self.net.options() };
        self.client = self.net.nodes[CLIENT].endpoint.connect(self.net.now, options).unwrap();
        let event = self.net.nodes[CLIENT].endpoint.poll_event();
        let is_early = matches!(event, Some((_, Event::Early { .. })));
        self.net.nodes[CLIENT].events.extend(event);
        is_early
    }

    fn ask(&mut self) -> StreamId {
        let mut connection = self.net.nodes[CLIENT].endpoint.connection(self.client).unwrap();
        let id = connection.open().unwrap();
        connection.write(id, &mut Bytes::from_static(REQUEST)).unwrap();
        connection.finish(id).unwrap();
        id
    }

    /// Loses what is named, once.
    fn lose(&mut self, what: &'static str) {
        let (mut syns, mut until_answer) = (0, 0);
        self.net.hook = Box::new(move |segment| {
            let (epoch, to_server) = (segment.epoch(), segment.is_to_server());
            syns += usize::from(to_server && epoch == Epoch::Initial);
            until_answer += usize::from(!to_server);
            let first = syns <= 2 && until_answer == 0;
            let is_lost = match what {
                "everything" => first,
                "the early data" => first && epoch == Epoch::ZeroRtt,
                "half of the hello" => epoch == Epoch::Initial && to_server && syns == 2,
                _ => !to_server && until_answer <= 5,
            };
            if is_lost { Vec::new() } else { vec![segment] }
        });
    }

    /// Goes on until the answer is there, or for `most`. The server answers what it is asked, at once.
    fn run(&mut self, id: StreamId, most: Duration) -> Outcome {
        let (start, client) = (self.start, self.client);
        let mut outcome = Outcome::default();
        let (mut asked, mut answer) = (Vec::new(), Vec::new());
        self.net.wait_for(most, |net| {
            let opened = net.nodes[SERVER].events.iter().filter(|(_, event)| *event == Event::StreamOpened(id));
            outcome.requests = opened.count();
            let server = net.nodes[SERVER].events.iter().rev().find(|(_, event)| *event == Event::StreamOpened(id));
            if let Some(&(server, _)) = server.filter(|_| outcome.asked.is_none()) {
                asked.extend(net.read(SERVER, server, id));
                if asked == REQUEST {
                    outcome.asked = Some(net.now - start);
                    let mut connection = net.nodes[SERVER].endpoint.connection(server).unwrap();
                    connection.write(id, &mut Bytes::from_static(ANSWER)).unwrap();
                    connection.finish(id).unwrap();
                    drop(connection);
                    // What was written now leaves now.
                    net.run_for(Duration::ZERO);
                }
            }
            answer.extend(net.read(CLIENT, client, id));
            if answer == ANSWER && outcome.answered.is_none() {
                outcome.answered = Some(net.now - start);
            }
            outcome.answered.is_some()
        });
        outcome
    }

    /// Goes on for a while and checks that everything was in order and nothing came twice.
    fn settle(&mut self, id: StreamId) {
        self.net.run_for(Duration::from_secs(2));
        for place in [CLIENT, SERVER] {
            assert!(self.net.is_connected(place) && self.net.closed(place).is_none(), "{place}");
        }
        let opened = self.net.nodes[SERVER].events.iter().filter(|(_, event)| matches!(event, Event::StreamOpened(_)));
        assert_eq!(opened.count(), 1);
        let delivered = (self.client, Event::StreamDelivered(id));
        assert_eq!(self.net.nodes[CLIENT].events.iter().filter(|event| **event == delivered).count(), 1);
        let server = self.net.server_handle().unwrap();
        assert!(self.net.delivers(self.client, server), "it goes on as usual");
        assert_eq!(self.stats(CLIENT, self.client).congestion.in_flight_bytes, 0);
    }

    fn stats(&mut self, place: usize, handle: ConnectionHandle) -> ConnectionStats {
        self.net.run_for(RTT * 2);
        self.net.nodes[place].endpoint.connection(handle).unwrap().stats()
    }

    fn early_packets(&self) -> usize {
        self.net.log.iter().filter(|(_, segment)| segment.epoch() == Epoch::ZeroRtt).count()
    }
}

/// The place of an event among those of the node.
fn place_of(net: &Net, place: usize, wanted: impl Fn(&Event) -> bool) -> Option<usize> {
    net.nodes[place].events.iter().position(|(_, event)| wanted(event))
}

#[test]
fn a_resumed_connection_has_its_answer_after_one_round_trip() {
    let mut early = Resumed::new(with_early(config()));
    assert!(early.connect(), "the client remembers the session");
    let id = early.ask();
    let outcome = early.run(id, RTT * 5);
    assert_eq!((outcome.asked, outcome.answered), (Some(DELAY), Some(RTT)), "{outcome:?}");
    let opened = place_of(&early.net, SERVER, |event| matches!(event, Event::StreamOpened(_)));
    let told = place_of(&early.net, SERVER, |event| matches!(event, Event::Early { .. }));
    assert_eq!((told, opened.is_some()), (Some(0), true), "the server is told that what comes is early data");
    assert!(place_of(&early.net, SERVER, |event| matches!(event, Event::Connected { .. })).is_none());
    early.settle(id);
    let client = early.stats(CLIENT, early.client).protection;
    assert!(client.early_data_accepted && client.early_packets >= 1, "{client:?}");
    for (_, segment) in early.net.log.iter().filter(|(_, segment)| segment.epoch() == Epoch::ZeroRtt) {
        assert!(!segment.has(Flags::SYN) && !segment.has(Flags::ACK) && segment.is_to_server());
    }

    let mut late = Resumed::new(config());
    assert!(!late.connect(), "it is off unless it was turned on");
    assert!(late.net.wait_for(RTT, |net| net.is_connected(CLIENT)));
    let id = late.ask();
    let outcome = late.run(id, RTT * 5);
    assert_eq!((outcome.asked, outcome.answered), (Some(RTT + DELAY), Some(RTT * 2)), "{outcome:?}");
    assert_eq!(late.early_packets(), 0);
}

#[test]
fn each_connection_brings_a_ticket_for_the_next_one() {
    let mut early = Resumed::new(with_early(config()));
    for nth in 0..4 {
        assert!(early.connect(), "connection {nth}");
        let id = early.ask();
        assert_eq!(early.run(id, RTT * 5).answered, Some(RTT), "connection {nth}");
        early.net.run_for(RTT * 5);
        early.net.nodes[SERVER].events.clear();
    }
}

#[test]
fn early_data_that_is_refused_is_sent_again_without_the_application_seeing_it() {
    let without = config();
    let narrow = EndpointConfig { stream_window: 64, connection_window: 128, streams_max: 1, ..with_early(config()) };
    for server in [with_early(config()), without, narrow] {
        let mut early = Resumed::new(with_early(config()));
        early.net.restart_server(&server, &server_tls(identity()));
        assert!(early.connect());
        let id = early.ask();
        let outcome = early.run(id, RTT * 10);
        assert_eq!((outcome.asked, outcome.answered), (Some(RTT + DELAY), Some(RTT * 2)), "{outcome:?}");
        assert!(place_of(&early.net, SERVER, |event| matches!(event, Event::Early { .. })).is_none());
        assert!(early.early_packets() > 0, "it was tried");
        early.net.run_for(Duration::from_secs(2));
        assert!(!early.stats(CLIENT, early.client).protection.early_data_accepted);
        let stats = early.stats(CLIENT, early.client);
        assert_eq!((stats.packets_lost, stats.congestion.in_flight_bytes), (0, 0), "refused is not lost");
    }
}

#[test]
fn a_server_that_allows_less_than_was_used_ends_the_connection() {
    let mut early = Resumed::new(with_early(config()));
    let narrow = EndpointConfig { stream_window: 4, ..with_early(config()) };
    early.net.restart_server(&narrow, &server_tls(identity()));
    assert!(early.connect());
    early.ask();
    early.net.run_for(RTT * 5);
    assert!(early.net.closed(CLIENT).is_some());
    assert!(place_of(&early.net, SERVER, |event| matches!(event, Event::StreamOpened(_))).is_none());
}

#[test]
fn a_replayed_first_flight_is_not_accepted_a_second_time() {
    let mut early = Resumed::new(with_early(config()));
    assert!(early.connect());
    let id = early.ask();
    assert_eq!(early.run(id, RTT * 5).asked, Some(DELAY));
    let start = early.start;
    let flight = early.net.log.iter().filter(|(at, segment)| *at == start && segment.is_to_server());
    let flight: Vec<Segment> = flight.map(|(_, segment)| segment.clone()).collect();
    assert!(flight.iter().any(|segment| segment.epoch() == Epoch::ZeroRtt));

    // To the same server while the connection lives, and after it: its id is known.
    let replay = |net: &mut Net| {
        net.nodes[SERVER].events.clear();
        for segment in &flight {
            net.inject(segment.clone());
        }
        net.run_for(RTT * 5);
        place_of(net, SERVER, |event| matches!(event, Event::Early { .. } | Event::StreamOpened(_)))
    };
    assert_eq!(replay(&mut early.net), None);
    let (now, client) = (early.net.now, early.client);
    early.net.nodes[CLIENT].endpoint.connection(client).unwrap().close(now, 0, b"");
    early.net.run_for(Duration::from_secs(2));
    assert_eq!(replay(&mut early.net), None);
    // To another shard of the node, which has never heard of the id: the ticket was used up.
    early.net.restart_server(&early.config, &early.server_tls);
    early.net.hook = Box::new(|segment| if segment.is_to_server() { Vec::new() } else { vec![segment] });
    assert_eq!(replay(&mut early.net), None);
    assert_eq!(early.net.nodes[SERVER].endpoint.stats().connections, 1, "but for a handshake that nobody completes");
}

#[test]
fn the_same_flight_is_accepted_where_the_ticket_is_new() {
    // What the replay test counts on: a flight that was never seen is accepted by a shard which did not make the ticket.
    let mut early = Resumed::new(with_early(config()));
    early.net.restart_server(&early.config, &early.server_tls);
    assert!(early.connect());
    let id = early.ask();
    assert_eq!(early.run(id, RTT * 5).answered, Some(RTT));
    early.settle(id);
}

#[test]
fn a_first_flight_that_was_lost_is_sent_again_with_its_early_data() {
    for what in ["everything", "the early data", "half of the hello", "the answer"] {
        let mut early = Resumed::new(with_early(config()));
        assert!(early.connect());
        let start = early.start;
        early.lose(what);
        let id = early.ask();
        let outcome = early.run(id, Duration::from_secs(3));
        // A probe timeout, and what was lost one round trip later; or without it, as other lost data.
        let most = if what == "the early data" { RTT * 3 } else { FIRST_TIMEOUT + RTT * 2 };
        assert!(outcome.answered.is_some_and(|after| after <= most), "{what}: {outcome:?}");
        assert_eq!(outcome.requests, 1, "{what}");
        assert_eq!(early.start, start);
        early.settle(id);
    }
}

#[test]
fn early_data_that_was_lost_and_is_refused_costs_one_timeout_and_one_round_trip_at_most() {
    // Without the loss the answer would be there after two round trips.
    for (what, answered) in [("the early data", RTT * 2), ("everything", FIRST_TIMEOUT + RTT * 2)] {
        let mut early = Resumed::new(with_early(config()));
        early.net.restart_server(&early.config, &server_tls(identity()));
        assert!(early.connect());
        early.lose(what);
        let id = early.ask();
        let outcome = early.run(id, Duration::from_secs(3));
        assert_eq!(outcome.answered, Some(answered), "{what}: {outcome:?}");
        assert_eq!(outcome.requests, 1, "{what}");
        assert!(!early.stats(CLIENT, early.client).protection.early_data_accepted, "{what}");
        early.settle(id);
    }
}

#[test]
fn early_data_that_overtakes_the_hello_waits_for_it() {
    let mut early = Resumed::new(with_early(config()));
    assert!(early.connect());
    let mut syns = 0;
    early.net.hook = Box::new(move |mut segment| {
        syns += usize::from(segment.epoch() == Epoch::Initial && segment.is_to_server());
        if segment.epoch() == Epoch::Initial && segment.is_to_server() && syns == 2 {
            segment.delay += Duration::from_millis(2);
        }
        vec![segment]
    });
    let id = early.ask();
    let outcome = early.run(id, RTT * 5);
    assert_eq!(outcome.answered, Some(RTT + Duration::from_millis(2)), "{outcome:?}");
    early.settle(id);
}

#[test]
fn early_data_goes_again_with_the_cookie() {
    let mut early = Resumed::new(with_early(config()));
    let security = crate::SecurityConfig { handshakes_without_cookie: 0, ..early.config.security };
    let busy = EndpointConfig { security, ..early.config.clone() };
    early.net.restart_server(&busy, &early.server_tls);
    assert!(early.connect());
    let id = early.ask();
    let outcome = early.run(id, RTT * 5);
    assert_eq!(outcome.answered, Some(RTT * 2), "one round trip for the cookie, one for the answer: {outcome:?}");
    assert!(early.stats(CLIENT, early.client).protection.early_data_accepted);
    early.settle(id);
}

#[test]
fn a_big_request_goes_as_early_data_as_far_as_the_first_window() {
    let mut early = Resumed::new(with_early(config()));
    assert!(early.connect());
    let sent: Vec<u8> = (0..200_000_u32).map(|at| at as u8).collect();
    let id = early.net.write(CLIENT, early.client, &sent);
    let mut got = Vec::new();
    let arrived = early.net.wait_for(Duration::from_secs(5), |net| {
        let opened = net.nodes[SERVER].events.iter().find(|(_, event)| *event == Event::StreamOpened(id));
        let Some(&(server, _)) = opened else { return false };
        got.extend(net.read(SERVER, server, id));
        got.len() >= sent.len()
    });
    assert!(arrived && got == sent);
    let packets = early.early_packets();
    assert!((10..=64).contains(&packets), "{packets} packets of early data");
}

#[test]
fn early_data_may_not_carry_what_is_not_for_it() {
    // CRYPTO, COOKIE, ACK, HANDSHAKE_DONE, DATAGRAM, RECOVERED; a stream for comparison.
    let frames: [&[u8]; 7] =
        [&[0x06, 0, 1, 7], &[0x07, 1, 7], &[0x02, 1, 0, 0, 0], &[0x1e], &[0x30, 7], &[0x19, 1, 0, 0], &[0x08, 0, 7]];
    let with_ack = Forged::acks(Epoch::ZeroRtt, 2, &[(1, 1)]);
    let forged = frames.map(|frames| Forged::frames(Epoch::ZeroRtt, frames));
    for (nth, forged) in forged.into_iter().chain([with_ack]).enumerate() {
        let mut early = Resumed::new(with_early(config()));
        assert!(early.connect());
        early.net.run_for(DELAY + Duration::from_millis(1));
        let endpoint = &mut early.net.nodes[CLIENT].endpoint;
        let packet = endpoint.slots.get_mut(early.client).unwrap().forge(&forged).expect("the client is early still");
        early.net.hand(SERVER, address(CLIENT), &packet);
        early.net.run_for(Duration::from_millis(1));
        let closed = early.net.closed(SERVER);
        let code = TransportErrorCode::ProtocolViolation as u64;
        let is_violation = matches!(closed, Some(CloseReason::Transport { code: told, .. }) if told == code);
        assert_eq!(is_violation, nth != 6, "{nth}: {closed:?}");
    }
}

#[test]
fn whatever_is_lost_a_request_comes_once_and_is_answered() {
    let mut accepted = 0;
    for seed in 0..30 {
        let mut early = Resumed::new(with_early(if seed % 2 == 0 { config() } else { with_fec() }));
        let is_refused = seed % 5 == 0;
        if is_refused {
            early.net.restart_server(&early.config, &server_tls(identity()));
        }
        assert!(early.connect());
        let mut rng = StdRng::seed_from_u64(seed);
        early.net.hook = Box::new(move |mut segment| {
            if rng.random_bool(0.25) {
                return Vec::new();
            }
            segment.delay += Duration::from_micros(rng.random_range(0..8_000));
            if rng.random_bool(0.1) { vec![segment.clone(), segment] } else { vec![segment] }
        });
        let id = early.ask();
        let outcome = early.run(id, Duration::from_secs(8));
        let closed = [CLIENT, SERVER].map(|place| early.net.closed(place));
        assert!(outcome.answered.is_some() && outcome.requests == 1, "seed {seed}: {outcome:?}, {closed:?}");
        early.net.run_for(Duration::from_secs(1));
        let is_accepted = early.stats(CLIENT, early.client).protection.early_data_accepted;
        assert!(!(is_refused && is_accepted), "seed {seed}");
        accepted += u32::from(is_accepted);
        let opened = early.net.nodes[SERVER].events.iter().filter(|(_, event)| *event == Event::StreamOpened(id));
        assert_eq!(opened.count(), 1, "seed {seed}");
    }
    assert_eq!(accepted, 24);
}
