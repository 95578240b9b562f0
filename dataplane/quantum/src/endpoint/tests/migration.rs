//! Clients whose address changes, and attackers who make it look so.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::net::{CLIENT, DELAY, Net, RTT, SERVER, Segment, address, config, with_fec};
use crate::connection::forge::Forged;
use crate::wire::{Epoch, Frame, FrameIter};
use crate::{
    CloseReason, ConnectionHandle, ConnectionStats, EndpointConfig, Event, MigrationStats, PathConfig, StreamId,
};

/// A translator, or an attacker, between a client and the server.
struct Between {
    /// The client's address as the server sees it.
    outer: SocketAddr,
    /// An address whose packets are copies.
    copies_from: Option<SocketAddr>,
    /// What the server sends there goes to the client, as if the server had sent it there.
    relays: bool,
    /// So many packets to the client, and to the copier, are lost.
    lose_down: usize,
    /// Bytes from and to addresses other than the first one.
    from_elsewhere: u64,
    to_elsewhere: u64,
    /// Packets to addresses other than the first one, in their order.
    down_elsewhere: Vec<Segment>,
}

type Shared = Rc<RefCell<Between>>;

/// Another port of the client's host.
fn other_port() -> SocketAddr {
    SocketAddr::new(address(CLIENT).ip(), 50_000)
}

/// Another host.
fn other_host() -> SocketAddr {
    address(9)
}

impl Between {
    fn install(net: &mut Net) -> Shared {
        let between = Self {
            outer: address(CLIENT),
            copies_from: None,
            relays: false,
            lose_down: 0,
            from_elsewhere: 0,
            to_elsewhere: 0,
            down_elsewhere: Vec::new(),
        };
        let shared = Rc::new(RefCell::new(between));
        let theirs = Rc::clone(&shared);
        net.hook = Box::new(move |segment| theirs.borrow_mut().pass(segment));
        shared
    }

    fn pass(&mut self, segment: Segment) -> Vec<Segment> {
        if segment.is_to_server() { self.pass_up(segment) } else { self.pass_down(segment) }
    }

    fn pass_up(&mut self, segment: Segment) -> Vec<Segment> {
        let len = segment.data.len() as u64;
        let packet = Segment { from: self.outer, ..segment };
        self.from_elsewhere += if self.outer == address(CLIENT) { 0 } else { len };
        let Some(from) = self.copies_from else { return vec![packet] };
        self.from_elsewhere += len;
        // The copy comes first.
        vec![Segment { from, delay: DELAY / 2, ..packet.clone() }, packet]
    }

    fn pass_down(&mut self, segment: Segment) -> Vec<Segment> {
        if segment.to != address(CLIENT) {
            self.to_elsewhere += segment.data.len() as u64;
            self.down_elsewhere.push(segment.clone());
        }
        let arrives = segment.to == self.outer || self.relays && Some(segment.to) == self.copies_from;
        if !arrives {
            return Vec::new();
        }
        if self.lose_down > 0 {
            self.lose_down -= 1;
            return Vec::new();
        }
        vec![Segment { to: address(CLIENT), ..segment }]
    }
}

fn stats(net: &mut Net, place: usize, handle: ConnectionHandle) -> ConnectionStats {
    net.nodes[place].endpoint.connection(handle).expect("it lives").stats()
}

fn migration(net: &mut Net, server: ConnectionHandle) -> MigrationStats {
    stats(net, SERVER, server).path.migration
}

/// A stream of the client on which the server has much to send, and has sent the first part.
fn download(net: &mut Net, (client, server): (ConnectionHandle, ConnectionHandle)) -> Download {
    let id = net.write(CLIENT, client, b"all of it");
    net.run_for(RTT);
    assert_eq!(net.read(SERVER, server, id), b"all of it");
    Download { client, server, id, offset: 0, got: Vec::new() }
}

struct Download {
    client: ConnectionHandle,
    server: ConnectionHandle,
    id: StreamId,
    offset: usize,
    got: Vec<u8>,
}

impl Download {
    /// Goes on until so many bytes have come in all; whether they did, as they were sent.
    fn run_to(&mut self, net: &mut Net, len: usize, most: Duration) -> bool {
        let byte = |at: usize| (at % 251) as u8;
        let whole = net.wait_for(most, |net| {
            if let Some(mut connection) = net.nodes[SERVER].endpoint.connection(self.server) {
                let end = len.min(self.offset + 100_000);
                let mut data: Bytes = (self.offset..end).map(byte).collect::<Vec<u8>>().into();
                self.offset += connection.write(self.id, &mut data).unwrap_or(0);
            }
            let more = net.read(CLIENT, self.client, self.id);
            self.got.extend_from_slice(&more);
            self.got.len() >= len
        });
        whole && self.got.iter().enumerate().all(|(at, &got)| got == byte(at))
    }
}

#[test]
fn a_client_behind_another_port_is_followed_and_keeps_what_is_known_of_the_path() {
    for settings in [config(), with_fec()] {
        let (mut net, client, server) = Net::connected(&settings);
        let between = Between::install(&mut net);
        let mut download = download(&mut net, (client, server));
        assert!(download.run_to(&mut net, 400_000, Duration::from_secs(10)));
        let before = stats(&mut net, SERVER, server);
        for turn in 1..=3 {
            between.borrow_mut().outer = SocketAddr::new(address(CLIENT).ip(), 50_000 + turn);
            net.write(CLIENT, client, b"a call");
            assert!(download.run_to(&mut net, 400_000 + 200_000 * usize::from(turn), Duration::from_secs(5)), "{turn}");
            net.run_for(RTT);
            assert_eq!(migration(&mut net, server).migrations, u64::from(turn));
        }
        let after = stats(&mut net, SERVER, server);
        assert_eq!((after.rtt_min, after.path.datagram_size), (before.rtt_min, before.path.datagram_size));
        assert_eq!(after.congestion.persistent_congestions, 0, "a change of address is no congestion");
        assert!(net.delivers(client, server));
    }
}

#[test]
fn a_client_that_only_listens_is_found_again_when_it_says_something() {
    let (mut net, client, server) = Net::connected(&config());
    let between = Between::install(&mut net);
    let id = net.write(SERVER, server, b"before");
    net.run_for(RTT);
    assert_eq!(net.read(CLIENT, client, id), b"before");
    between.borrow_mut().outer = other_port();
    net.nodes[SERVER].endpoint.connection(server).unwrap().write(id, &mut Bytes::from_static(b"after")).unwrap();
    let mut got = Vec::new();
    let keepalive = config().keepalive.expect("clients have one");
    let found = net.wait_for(keepalive + RTT * 4, |net| {
        got.extend(net.read(CLIENT, client, id));
        got == b"after"
    });
    assert!(found, "{got:?}, {:?}", migration(&mut net, server));
}

#[test]
fn a_client_in_another_network_begins_its_path_anew() {
    let (mut net, client, server) = Net::connected(&config());
    let between = Between::install(&mut net);
    let mut download = download(&mut net, (client, server));
    assert!(download.run_to(&mut net, 2_000_000, Duration::from_secs(20)));
    let before = stats(&mut net, SERVER, server);
    assert!(before.path.datagram_size > 1_200 && before.congestion.window_bytes > 50_000, "{before:?}");
    between.borrow_mut().outer = other_host();
    let id = net.write(CLIENT, client, b"from elsewhere");
    assert!(net.wait_for(RTT * 4, |net| migration(net, server).migrations == 1));
    let after = stats(&mut net, SERVER, server);
    assert_eq!((after.path.datagram_size, after.rtt_min), (1_200, Duration::ZERO), "nothing is known");
    assert!(after.congestion.window_bytes <= 32 * 1_200, "{after:?}");
    assert_eq!(net.read(SERVER, server, id), b"from elsewhere");
    assert!(download.run_to(&mut net, 3_000_000, Duration::from_secs(20)));
    let found = stats(&mut net, SERVER, server);
    assert!(found.path.datagram_size > 1_200 && found.rtt_min >= RTT, "it is found out again: {found:?}");
    assert_eq!(found.path.ecn, before.path.ecn);
}

#[test]
fn a_challenge_that_is_lost_is_sent_again() {
    for lost in 1..=4 {
        let (mut net, client, server) = Net::connected(&config());
        let between = Between::install(&mut net);
        between.borrow_mut().outer = other_port();
        between.borrow_mut().lose_down = lost;
        let id = net.write(CLIENT, client, &[7; 1_000]);
        assert!(net.wait_for(Duration::from_secs(3), |net| migration(net, server).migrations == 1), "{lost}");
        assert!(migration(&mut net, server).challenges > lost as u64);
        assert_eq!(net.read(SERVER, server, id), [7; 1_000]);
        assert!(net.delivers(client, server) && net.closed(CLIENT).is_none());
    }
}

#[test]
fn an_address_that_does_not_answer_is_given_up_after_six_challenges() {
    let (mut net, client, server) = Net::connected(&config());
    let between = Between::install(&mut net);
    between.borrow_mut().outer = other_host();
    net.write(CLIENT, client, &[7; 1_100]);
    net.run_for(DELAY / 2);
    // From here on nothing of the client arrives, and nothing that goes to the other address.
    let theirs = Rc::clone(&between);
    net.hook = Box::new(move |segment| {
        if !segment.is_to_server() {
            theirs.borrow_mut().pass_down(segment);
        }
        Vec::new()
    });
    net.run_for(Duration::from_secs(10));
    let expected = MigrationStats { migrations: 0, challenges: 6, given_up: 1 };
    assert_eq!(migration(&mut net, server), expected);
    let (asked, bytes) = (between.borrow().down_elsewhere.len(), between.borrow().to_elsewhere);
    assert!(asked == 6 && bytes <= 3 * between.borrow().from_elsewhere, "{asked} packets of {bytes} bytes");
    // The client is where it was.
    between.borrow_mut().outer = address(CLIENT);
    net.hook = Box::new(move |segment| between.borrow_mut().pass(segment));
    assert!(net.delivers(client, server));
    assert_eq!(migration(&mut net, server), expected);
}

/// RFC 9000 sections 9.3.1 and 9.3.3: whoever copies packets, and is faster than the path.
#[test]
fn copies_of_packets_from_elsewhere_divert_nothing() {
    for relays in [false, true] {
        let (mut net, client, server) = Net::connected(&config());
        let between = Between::install(&mut net);
        let mut download = download(&mut net, (client, server));
        between.borrow_mut().copies_from = Some(other_host());
        if relays {
            // It hands the question on to the client, and does not copy the answer.
            between.borrow_mut().relays = true;
            let theirs = Rc::clone(&between);
            let key = |segment: &Segment| segment.data.len() == 57;
            net.hook = Box::new(move |segment| {
                let is_short = key(&segment);
                let mut passed = theirs.borrow_mut().pass(segment);
                if is_short && passed.len() == 2 {
                    passed.remove(0);
                }
                passed
            });
        }
        assert!(download.run_to(&mut net, 600_000, Duration::from_secs(20)), "it goes on");
        let seen = migration(&mut net, server);
        assert!(seen.migrations == 0 && seen.challenges > 0, "{seen:?}");
        let between = between.borrow();
        assert!(between.to_elsewhere <= 3 * between.from_elsewhere, "{} bytes", between.to_elsewhere);
        let only_questions = between.down_elsewhere.iter().all(|it| it.data.len() == 57 || it.data.len() == 1_200);
        assert!(only_questions && between.down_elsewhere.len() as u64 == seen.challenges, "no data goes there");
    }
}

/// Who copies and relays everything is on the path. When it leaves, the connection is where the client is.
#[test]
fn who_relays_everything_for_a_while_loses_the_connection_again() {
    let (mut net, client, server) = Net::connected(&config());
    let between = Between::install(&mut net);
    let mut download = download(&mut net, (client, server));
    (between.borrow_mut().copies_from, between.borrow_mut().relays) = (Some(other_host()), true);
    assert!(download.run_to(&mut net, 300_000, Duration::from_secs(20)));
    assert_eq!(net.nodes[SERVER].endpoint.connection(server).unwrap().remote(), other_host(), "it is on the path");
    (between.borrow_mut().copies_from, between.borrow_mut().relays) = (None, false);
    assert!(net.delivers(client, server), "packets are taken from anywhere");
    net.run_for(RTT * 2);
    assert_eq!(net.nodes[SERVER].endpoint.connection(server).unwrap().remote(), address(CLIENT));
    assert!(download.run_to(&mut net, 600_000, Duration::from_secs(20)));
}

#[test]
fn an_older_packet_from_elsewhere_moves_nothing() {
    let (mut net, client, server) = Net::connected(&config());
    let mut held = Vec::new();
    let kept = Rc::new(RefCell::new(None));
    let theirs = Rc::clone(&kept);
    net.hook = Box::new(move |segment| {
        if segment.is_to_server() && theirs.borrow().is_none() {
            *theirs.borrow_mut() = Some(segment);
            return Vec::new();
        }
        vec![segment]
    });
    net.write(CLIENT, client, b"first");
    net.run_for(DELAY);
    assert!(net.delivers(client, server));
    let segment = kept.borrow_mut().take().expect("one was held back");
    held.extend_from_slice(&segment.data);
    net.hand(SERVER, other_host(), &held);
    net.run_for(RTT * 2);
    assert_eq!(migration(&mut net, server), MigrationStats::default());
    // Nor does one that came before.
    net.hand(SERVER, other_host(), &held);
    net.run_for(RTT * 2);
    assert_eq!(migration(&mut net, server), MigrationStats::default());
}

/// A peer that seems to be everywhere, or that has its questions answered at an address of its choice.
#[test]
fn packets_from_a_thousand_addresses_are_answered_by_no_more_than_three_times_as_much() {
    let (mut net, client, server) = Net::connected(&config());
    net.hook = Box::new(|_| Vec::new());
    let question = [&[0x1a][..], &[5; 8]].concat();
    for frames in [vec![0x01], [question.clone(), vec![0x01]].concat(), question.repeat(20)] {
        let (from, mut sent) = (net.log.len(), 0);
        for nth in 0..1_000_u16 {
            let source = net.nodes[CLIENT].endpoint.slots.get_mut(client).unwrap();
            let data = source.forge(&Forged::frames(Epoch::OneRtt0, &frames)).unwrap();
            sent += data.len();
            let [high, low] = nth.to_be_bytes();
            net.hand(SERVER, SocketAddr::from(([10, 9, high, low], 443)), &data);
            net.run_for(Duration::from_micros(10));
        }
        let elsewhere = |it: &Segment| !it.is_to_server() && it.to != address(CLIENT);
        let answered: usize = net.log[from..].iter().filter(|(_, it)| elsewhere(it)).map(|(_, it)| it.data.len()).sum();
        assert!(answered > 0 && answered <= 3 * sent, "{answered} bytes for {sent}");
    }
    let flight = stats(&mut net, SERVER, server).congestion.in_flight_bytes;
    assert!(flight <= 3 * 1_500, "neither questions nor answers are in flight: {flight}");
    assert_eq!(migration(&mut net, server).migrations, 0);
}

#[test]
fn an_answer_to_a_question_that_nobody_asked_is_ignored() {
    let (mut net, client, server) = Net::connected(&config());
    net.hook = Box::new(|_| Vec::new());
    for nth in 0..10_u8 {
        let frames = [&[0x1b][..], &[nth; 8]].concat();
        let source = net.nodes[CLIENT].endpoint.slots.get_mut(client).unwrap();
        let data = source.forge(&Forged::frames(Epoch::OneRtt0, &frames)).unwrap();
        net.hand(SERVER, other_host(), &data);
        net.run_for(Duration::from_micros(50));
    }
    assert_eq!((migration(&mut net, server).migrations, net.closed(SERVER)), (0, None));
    // A frame that is cut short is not one.
    let source = net.nodes[CLIENT].endpoint.slots.get_mut(client).unwrap();
    let data = source.forge(&Forged::frames(Epoch::OneRtt0, &[0x1b, 1, 2, 3])).unwrap();
    net.hand(SERVER, other_host(), &data);
    net.run_for(Duration::from_micros(50));
    assert!(matches!(net.closed(SERVER), Some(CloseReason::Transport { code: 7, .. })));
}

#[test]
fn a_server_that_is_told_not_to_follow_asks_nobody() {
    let settings = EndpointConfig { path: PathConfig { migration: false, ..PathConfig::default() }, ..config() };
    let (mut net, client, server) = Net::connected(&settings);
    let between = Between::install(&mut net);
    between.borrow_mut().outer = other_port();
    let id = net.write(CLIENT, client, b"from elsewhere");
    net.run_for(RTT * 4);
    assert_eq!(net.read(SERVER, server, id), b"from elsewhere", "what opens is taken in");
    assert_eq!((migration(&mut net, server), between.borrow().to_elsewhere), (MigrationStats::default(), 0));
    // A client follows nobody at all.
    between.borrow_mut().outer = address(CLIENT);
    net.hook = Box::new(|segment| {
        let from = if segment.is_to_server() { segment.from } else { other_host() };
        vec![Segment { from, ..segment }]
    });
    net.write(SERVER, server, b"from another server");
    net.run_for(RTT * 4);
    assert_eq!(stats(&mut net, CLIENT, client).path.migration, MigrationStats::default());
    let heard = |event: &Event| matches!(event, Event::StreamOpened(_));
    assert!(net.nodes[CLIENT].events.iter().any(|(_, event)| heard(event)));
}

#[test]
fn frames_of_paths_are_read_as_they_were_written() {
    let mut buffer = [0; 40];
    let mut writer = crate::wire::FrameWriter::new(&mut buffer);
    assert!(writer.path([1, 2, 3, 4, 5, 6, 7, 8], false) && writer.path([9; 8], true));
    assert_eq!(writer.written(), 18);
    let frames: Vec<Frame<'_>> = FrameIter::new(&buffer[..18]).map(Result::unwrap).collect();
    assert_eq!(frames, [Frame::PathChallenge([1, 2, 3, 4, 5, 6, 7, 8]), Frame::PathResponse([9; 8])]);
    assert!(frames.iter().all(|frame| !frame.is_ack_eliciting() && !frame.is_protected()));
}
