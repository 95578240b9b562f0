//! Clients whose process dies: their sockets are closed and say nothing, and their host refuses what is sent there.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use quantum::{ConnectOptions, ConnectionHandle, Endpoint, Event, GuuidGenerator, Received, Time};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::*;
use crate::handoff::ControlEnd;

/// A client on a plain socket, which the test turns. Dropped it says nothing.
struct Client {
    endpoint: Endpoint,
    handle: ConnectionHandle,
    socket: UdpSocket,
    started: Instant,
    /// The last packet that it received.
    received: Vec<u8>,
    is_connected: bool,
}

impl Client {
    fn dial(tls: &Tls, remote: SocketAddr) -> Self {
        let ip = if remote.is_ipv6() { "[::1]:0" } else { "127.0.0.1:0" };
        let socket = UdpSocket::bind(ip).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), rand::random());
        let guuid = GuuidGenerator::new(rand::random()).next(1_700_000_000_000);
        let server_name = "localhost".to_owned();
        let options = ConnectOptions { guuid, remote, server_name, alpn: Alpn::Stream, tls: Arc::clone(&tls.client) };
        let handle = endpoint.connect(Time::ZERO, options).unwrap();
        let mut client =
            Self { endpoint, handle, socket, started: Instant::now(), received: Vec::new(), is_connected: false };
        client.turn_until(|client| client.is_connected);
        // The server is, once it has what the client says in the end.
        client.turn();
        client
    }

    /// Turns until something is so, ten seconds at most.
    fn turn_until(&mut self, is_so: impl Fn(&Self) -> bool) {
        while !is_so(self) {
            assert!(self.started.elapsed() < Duration::from_secs(10), "the client waits for something in vain");
            self.turn();
        }
    }

    fn turn(&mut self) {
        let mut buffer = [0; 2048];
        while let Some(transmit) = self.endpoint.poll_transmit(self.now(), &mut buffer) {
            for segment in buffer[..transmit.len].chunks(transmit.segment_size) {
                self.socket.send_to(segment, transmit.remote).unwrap();
            }
        }
        match self.socket.recv_from(&mut buffer) {
            Ok((len, remote)) => {
                let data = &mut buffer[..len];
                self.received = data.to_vec();
                let received = Received { remote, local: None, ecn: 0, segment_size: len, data };
                self.endpoint.handle_datagram(self.now(), received);
            }
            Err(error) => assert!([ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()), "{error}"),
        }
        self.endpoint.handle_timeout(self.now());
        while let Some((_, event)) = self.endpoint.poll_event() {
            self.is_connected |= matches!(event, Event::Connected { .. });
            assert!(!matches!(event, Event::Closed(_)), "{event:?}");
        }
    }

    fn now(&self) -> Time {
        Time::from_nanos(self.started.elapsed().as_nanos() as u64)
    }

    /// Sends bytes on a stream and waits until the server has acknowledged all it has.
    fn say(&mut self, text: &'static [u8]) {
        let mut connection = self.endpoint.connection(self.handle).unwrap();
        let id = connection.open().unwrap();
        connection.write(id, &mut Bytes::from_static(text)).unwrap();
        drop(connection);
        let count = self.received.clone();
        self.turn_until(|client| client.received != count);
    }
}

/// The next end of a connection, with when it came. Everything else is answered or passed over.
fn next_closed(ends: &mut [ControlEnd]) -> (usize, ConnectionKey, CloseReason) {
    loop {
        if let (end, ToControl::Closed { connection, reason, .. }) = next(ends) {
            return (end, connection, reason);
        }
    }
}

/// The name that the server has for its next connection, by shard.
fn accepted_key(ends: &mut [ControlEnd]) -> (usize, ConnectionKey) {
    loop {
        if let (end, ToControl::Connected { connection, .. }) = next(ends) {
            return (end, connection);
        }
    }
}

/// A round trip over a dialled connection to a server that echoes: the stream with that number.
fn echo(dialled: &mut [ControlEnd], key: ConnectionKey, number: u64) -> Duration {
    let (start, id) = (Instant::now(), StreamId(2 * number));
    tell(&mut dialled[0], ToShard::Open(key, id));
    tell(&mut dialled[0], ToShard::Finish(key, id, Bytes::from_static(b"there and back")));
    loop {
        match next(dialled) {
            (_, ToControl::Finished(_, from, _)) if from == id => return start.elapsed(),
            (_, ToControl::Closed { reason, .. }) => panic!("closed: {reason}"),
            _ => {}
        }
    }
}

#[test]
fn killed_clients_are_noticed_in_seconds_on_any_shard_of_either_family() {
    if skip() {
        return;
    }
    std::thread::scope(|scope| {
        for (listen, shards) in [("127.0.0.1:0", 1), ("127.0.0.1:0", 2), ("[::1]:0", 2), ("[::]:0", 2)] {
            scope.spawn(move || kill_clients(listen, shards));
        }
    });
}

fn kill_clients(listen: &str, shards: usize) {
    let tls = tls();
    let (server, mut accepted) = start_at(listen, Some(&tls), shards, HostKind::Glommio, AppKind::Control);
    let mut remote = server.local_addr();
    if remote.ip().is_unspecified() {
        // A socket for both families, and clients of the other one.
        remote.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    // Eight are killed: of two shards, what ICMP says of many of them comes to the other one.
    let mut keys = Vec::new();
    let mut clients: Vec<Client> = (0..9)
        .map(|_| {
            let mut client = Client::dial(&tls, remote);
            keys.push(accepted_key(&mut accepted));
            client.say(b"a request");
            client
        })
        .collect();
    let mut survivor = clients.pop().unwrap();
    let survivor_key = keys.pop().unwrap();
    drop(clients);
    let killed_at = Instant::now();
    let turning = std::thread::spawn(move || {
        while killed_at.elapsed() < Duration::from_secs(4) {
            survivor.turn();
        }
        survivor.say(b"still here");
    });
    let mut gone = Vec::new();
    while gone.len() < keys.len() {
        let (shard, key, reason) = next_closed(&mut accepted);
        assert_eq!(reason, CloseReason::Unreachable);
        assert_ne!((shard, key), survivor_key, "the connection of a client that lives");
        gone.push((shard, key));
    }
    let after = killed_at.elapsed();
    println!("{listen}, {shards} shards: all noticed after {after:?}; {:?}", counters(&server));
    assert!(after < Duration::from_secs(4), "after {after:?}");
    gone.sort();
    keys.sort();
    assert_eq!(gone, keys);
    turning.join().unwrap();
}

/// What ICMP said, and packets that were handed to other shards.
fn counters(shards: &Shards) -> Vec<(u64, u64)> {
    shards.stats().iter().map(|stats| (stats.unreachable, stats.strays_sent)).collect()
}

#[test]
fn refused_packets_of_one_client_delay_and_lose_nothing_of_another() {
    if skip() {
        return;
    }
    let tls = tls();
    let (server, _) = start(Some(&tls), 1, HostKind::Glommio, AppKind::Echo);
    let (_client, mut dialled) = start(None, 1, HostKind::Bare, AppKind::Control);
    let key = connect(&mut dialled[0], &tls, server.local_addr(), 1);
    connected(&mut dialled);
    for round in 0..20 {
        // Killed before it has acknowledged the answer: the server sends it again and again.
        let mut client = Client::dial(&tls, server.local_addr());
        client.say(b"a request");
        drop(client);
        for number in 0..100 {
            let took = echo(&mut dialled, key, round * 100 + number);
            assert!(took < Duration::from_secs(1), "{took:?}");
        }
    }
    let deadline = Instant::now() + Duration::from_secs(6);
    while server.stats()[0].endpoint.connections > 1 {
        assert!(Instant::now() < deadline, "{:?}", server.stats());
        wait_a_moment(&dialled);
    }
    let stats = &server.stats()[0];
    println!("{} refused packets, {} sends failed", stats.unreachable, stats.send_errors);
    assert!(stats.unreachable > 0 && stats.send_errors == 0, "{stats:?}");
}

/// Waits as an event loop would, a tenth of a second at most.
fn wait_a_moment(dialled: &[ControlEnd]) {
    let mut polls = [rustix::event::PollFd::new(&dialled[0], rustix::event::PollFlags::IN)];
    let tenth = rustix::event::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    rustix::event::poll(&mut polls, Some(&tenth)).unwrap();
}

#[test]
fn forged_and_cut_refusals_end_nothing() {
    if skip() {
        return;
    }
    let Some(raw) = raw_icmp() else { return };
    let tls = tls();
    let (server, mut accepted) = start(Some(&tls), 1, HostKind::Glommio, AppKind::Control);
    let mut client = Client::dial(&tls, server.local_addr());
    accepted_key(&mut accepted);
    client.say(b"a request");
    let (from, to) = (v4(server.local_addr()), v4(client.socket.local_addr().unwrap()));
    let told = SockAddr::from(SocketAddr::V4(from));
    let mut sent = 0;
    let last = client.received.clone();
    while client.started.elapsed() < Duration::from_secs(4) {
        // The client says nothing for moments, and lives: what the server waits for comes a little later.
        let mut other = last.clone();
        other[6..22].copy_from_slice(&rand::random::<[u8; 16]>());
        for (code, quoted) in [(3, &last[..]), (3, &last[..25]), (3, &[]), (3, &[0xff; 200]), (3, &other), (1, &last)] {
            raw.send_to(&icmp(code, from, to, quoted), &told).unwrap();
            sent += 1;
        }
        client.turn();
    }
    client.say(b"still here");
    assert!(accepted.iter_mut().all(|end| !matches!(end.try_recv(), Some(ToControl::Closed { .. }))));
    let stats = &server.stats()[0];
    println!(
        "{sent} forged messages, {} said that a port is unreachable, {} sends failed",
        stats.unreachable, stats.send_errors
    );
    assert!(stats.unreachable > 100 && stats.endpoint.connections == 1, "{stats:?}");
}

fn v4(address: SocketAddr) -> SocketAddrV4 {
    let SocketAddr::V4(v4) = address else { panic!("{address} is of IPv4") };
    v4
}

/// A socket that sends ICMP messages, if this process may have one.
fn raw_icmp() -> Option<Socket> {
    match Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)) {
        Ok(socket) => Some(socket),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "a raw socket: {error}");
            println!("SKIPPED: forging ICMP messages needs a raw socket (CAP_NET_RAW): {error}");
            None
        }
    }
}

/// An ICMP message (RFC 792): a destination is unreachable, of a UDP datagram with that payload.
fn icmp(code: u8, from: SocketAddrV4, to: SocketAddrV4, quoted: &[u8]) -> Vec<u8> {
    let (udp_len, total) = ((8 + quoted.len()) as u16, (28 + quoted.len()) as u16);
    let octets = |ip: &Ipv4Addr| ip.octets();
    let mut message = vec![3, code, 0, 0, 0, 0, 0, 0];
    let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0];
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    ip.extend(octets(from.ip()));
    ip.extend(octets(to.ip()));
    let checked = checksum(&ip);
    ip[10..12].copy_from_slice(&checked.to_be_bytes());
    message.extend(ip);
    for field in [from.port(), to.port(), udp_len, 0] {
        message.extend(field.to_be_bytes());
    }
    message.extend_from_slice(quoted);
    let checked = checksum(&message);
    message[2..4].copy_from_slice(&checked.to_be_bytes());
    message
}

/// The checksum of RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    let sum: u32 = bytes.chunks(2).map(word).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}
