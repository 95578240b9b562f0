//! A peer that wants no more of a stream, told while the control plane is writing on it. No sockets: two endpoints in memory.

use quantum::{ConnectOptions, ConnectionHandle, Endpoint, Event, GuuidGenerator, Received, Time};

use super::*;
use crate::engine::{App, ControlApp};
use crate::handoff::{Doorbell, pair};

const CODE: u64 = 7;

/// A client's endpoint and a server's with its application, and time.
struct Pair {
    client: Endpoint,
    handle: ConnectionHandle,
    server: Endpoint,
    app: ControlApp,
    now: Time,
    is_connected: bool,
}

impl Pair {
    fn new(tls: &Tls, app: ControlApp) -> Self {
        let config = EndpointConfig { server: Some(Arc::clone(&tls.server)), ..EndpointConfig::default() };
        let server = Endpoint::new(Arc::new(config), [1; 32]);
        let mut client = Endpoint::new(Arc::new(EndpointConfig::default()), [2; 32]);
        let guuid = GuuidGenerator::new([3; 32]).next(1_700_000_000_000);
        let (remote, server_name) = (address(2), "localhost".to_owned());
        let options = ConnectOptions { guuid, remote, server_name, alpn: Alpn::Stream, tls: Arc::clone(&tls.client) };
        let handle = client.connect(Time::ZERO, options).unwrap();
        let mut pair = Self { client, handle, server, app, now: Time::ZERO, is_connected: false };
        while !pair.is_connected {
            pair.exchange();
            pair.tell_server();
        }
        pair
    }

    /// Carries what either side has to say for ten milliseconds. The server's application hears of nothing.
    fn exchange(&mut self) {
        for _ in 0..10 {
            self.now += Duration::from_millis(1);
            carry(self.now, &mut self.client, &mut self.server, address(1));
            carry(self.now, &mut self.server, &mut self.client, address(2));
            self.client.handle_timeout(self.now);
            self.server.handle_timeout(self.now);
            while let Some((_, event)) = self.client.poll_event() {
                self.is_connected |= matches!(event, Event::Connected { .. });
            }
        }
        assert!(self.now < Time::ZERO + Duration::from_secs(10), "nothing comes of it");
    }

    fn tell_server(&mut self) {
        while let Some((handle, event)) = self.server.poll_event() {
            self.app.on_event(self.now, &mut self.server, handle, event);
        }
        self.app.poll(self.now, &mut self.server);
    }
}

fn address(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], 4433))
}

fn carry(now: Time, from: &mut Endpoint, to: &mut Endpoint, remote: SocketAddr) {
    let mut buffer = vec![0; 64 << 10];
    while let Some(sent) = from.poll_transmit(now, &mut buffer) {
        let data = &mut buffer[..sent.len];
        to.handle_datagram(now, Received { remote, local: None, ecn: 0, segment_size: sent.segment_size, data });
    }
}

#[test]
fn a_stop_that_a_write_meets_first_is_told_all_the_same() {
    let (mut control, shard) = pair(1024, Arc::new(Doorbell::of_shard().unwrap())).unwrap();
    let mut pair = Pair::new(&tls(), ControlApp::new(shard, [4; 32]));
    // A whole request, so that nothing but the answer is left of the stream.
    let mut client = pair.client.connection(pair.handle).unwrap();
    let id = client.open().unwrap();
    client.write(id, &mut Bytes::from_static(b"all of it")).unwrap();
    client.finish(id).unwrap();
    drop(client);
    pair.exchange();
    pair.tell_server();
    let mut key = None;
    while let Some(message) = control.try_recv() {
        if let ToControl::Finished(of, ..) = message {
            key = Some(of);
        }
    }
    let key = key.expect("the server has the request");
    tell(&mut control, ToShard::Data(key, id, Bytes::from_static(b"the answer's first part")));
    pair.tell_server();
    pair.exchange();
    // The client's stop is here, but the application has not been told when the control plane writes on.
    pair.client.connection(pair.handle).unwrap().stop(id, CODE);
    pair.exchange();
    tell(&mut control, ToShard::Data(key, id, Bytes::from_static(b"more")));
    pair.app.poll(pair.now, &mut pair.server);
    pair.tell_server();
    let told = std::iter::from_fn(|| control.try_recv())
        .any(|message| matches!(message, ToControl::Stopped(of, on, CODE) if of == key && on == id));
    assert!(told, "whoever answers has to hear that nobody wants it");
}
