//! Hosts that run a small piece of work.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use quantum::{Time, Transmit};

use super::*;
use crate::handoff::Doorbell;
use crate::socket;
use crate::work::{Port, Turn};

/// Sends back what comes, until it gets a lone zero. Sleeps in between.
struct Mirror {
    back: Vec<(SocketAddr, Vec<u8>)>,
    doorbell: Arc<Doorbell>,
    done: bool,
    parks: Arc<AtomicU32>,
}

impl Work for Mirror {
    fn turn(&mut self, port: &mut dyn Port) -> Turn {
        let mut worked = port.receive(&mut |received| {
            self.done |= *received.data == [0];
            for segment in received.data.chunks(received.segment_size) {
                self.back.push((received.remote, segment.to_vec()));
            }
        });
        for (remote, data) in self.back.drain(..) {
            port.send_buffer().unwrap()[..data.len()].copy_from_slice(&data);
            port.send(&Transmit { remote, local: None, len: data.len(), segment_size: data.len(), ecn: 0 });
            worked = true;
        }
        Turn { worked, deadline: None::<Time>, done: self.done }
    }

    fn prepare_park(&mut self) -> bool {
        self.parks.fetch_add(1, Ordering::SeqCst);
        self.doorbell.prepare_sleep();
        true
    }

    fn woke(&mut self) {
        self.doorbell.awake();
    }
}

fn mirrors(host: HostKind, spin: Duration) {
    if let Err(error) = check() {
        assert!(std::env::var_os("CI").is_none(), "{error}");
        println!("SKIPPED: {error}");
        return;
    }
    let shard = socket::bind_alone("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = shard.local_addr().unwrap();
    let settings = HostSettings { host, io: IoKind::Uring, core: Some(0), spin, transmit_len: 1200 };
    let parks = Arc::new(AtomicU32::new(0));
    let parked = Arc::clone(&parks);
    let thread = std::thread::spawn(move || {
        let doorbell = Arc::new(Doorbell::of_shard().unwrap());
        let event = doorbell.duplicate().unwrap();
        let mut work = Mirror { back: Vec::new(), doorbell, done: false, parks: parked };
        run(&settings, shard, event, &mut work, &mut || {}).unwrap();
    });
    let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut buffer = [0; 2000];
    for number in 1..300_u32 {
        client.send_to(&number.to_be_bytes(), address).unwrap();
        let (len, _) = client.recv_from(&mut buffer).expect("an answer within five seconds");
        assert_eq!(buffer[..len], number.to_be_bytes());
    }
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while parks.load(Ordering::SeqCst) == 0 {
        assert!(std::time::Instant::now() < deadline, "it sleeps when there is nothing to do");
        std::thread::yield_now();
    }
    client.send_to(&[0], address).unwrap();
    thread.join().unwrap();
}

#[test]
fn a_bare_thread_mirrors() {
    mirrors(HostKind::Bare, Duration::ZERO);
}

#[test]
fn a_glommio_executor_mirrors() {
    mirrors(HostKind::Glommio, Duration::ZERO);
}

#[test]
fn a_spinning_host_mirrors() {
    mirrors(HostKind::Glommio, Duration::from_micros(50));
}

#[test]
fn a_core_that_does_not_exist_is_told() {
    if check().is_err() {
        return;
    }
    for host in [HostKind::Bare, HostKind::Glommio] {
        let shard = socket::bind_alone("127.0.0.1:0".parse().unwrap()).unwrap();
        let settings =
            HostSettings { host, io: IoKind::Uring, core: Some(4095), spin: Duration::ZERO, transmit_len: 1200 };
        let doorbell = Arc::new(Doorbell::of_shard().unwrap());
        let event = doorbell.duplicate().unwrap();
        let mut work = Mirror { back: Vec::new(), doorbell, done: false, parks: Arc::default() };
        assert!(run(&settings, shard, event, &mut work, &mut || {}).is_err(), "{host:?}");
    }
}
