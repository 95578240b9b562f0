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

/// All hosts with all I/O that they run with.
const PAIRS: [(HostKind, IoKind); 5] = [
    (HostKind::Bare, IoKind::Uring),
    (HostKind::Glommio, IoKind::Uring),
    (HostKind::Monoio, IoKind::Uring),
    (HostKind::Bare, IoKind::Mmsg),
    (HostKind::Monoio, IoKind::Mmsg),
];

fn skip() -> bool {
    let Err(error) = check() else { return false };
    assert!(std::env::var_os("CI").is_none(), "{error}");
    println!("SKIPPED: {error}");
    true
}

fn mirrors((host, io): (HostKind, IoKind), spin: Duration) {
    let shard = socket::bind_alone("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = shard.local_addr().unwrap();
    let settings = HostSettings { host, io, core: Some(0), spin, transmit_len: 1200 };
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
fn every_host_mirrors_sleeping_and_spinning() {
    if skip() {
        return;
    }
    for pair in PAIRS {
        mirrors(pair, Duration::ZERO);
        mirrors(pair, Duration::from_micros(50));
    }
}

#[test]
fn glommio_without_io_uring_is_refused_with_what_to_choose_instead() {
    let error = check_pair(HostKind::Glommio, IoKind::Mmsg).unwrap_err().to_string();
    assert!(error.contains("monoio or bare"), "{error}");
    assert!(PAIRS.iter().all(|(host, io)| check_pair(*host, *io).is_ok()));
}

#[test]
fn a_core_that_does_not_exist_is_told() {
    if skip() {
        return;
    }
    for (host, io) in PAIRS {
        let shard = socket::bind_alone("127.0.0.1:0".parse().unwrap()).unwrap();
        let settings = HostSettings { host, io, core: Some(4095), spin: Duration::ZERO, transmit_len: 1200 };
        let doorbell = Arc::new(Doorbell::of_shard().unwrap());
        let event = doorbell.duplicate().unwrap();
        let mut work = Mirror { back: Vec::new(), doorbell, done: false, parks: Arc::default() };
        assert!(run(&settings, shard, event, &mut work, &mut || {}).is_err(), "{host:?} {io:?}");
    }
}

/// Runs work on a thread of its own and gives it back.
fn run_on_thread<W: Work + Send + 'static>(
    settings: HostSettings,
    doorbell: &Doorbell,
    mut work: W,
) -> std::thread::JoinHandle<W> {
    let socket = socket::bind_alone("127.0.0.1:0".parse().unwrap()).unwrap();
    let event = doorbell.duplicate().unwrap();
    std::thread::spawn(move || {
        run(&settings, socket, event, &mut work, &mut || {}).unwrap();
        work
    })
}

fn settings((host, io): (HostKind, IoKind), spin: Duration) -> HostSettings {
    HostSettings { host, io, core: None, spin, transmit_len: 1200 }
}

/// Wants to be woken every two milliseconds, and counts.
#[derive(Default)]
struct Alarm {
    due: Option<Time>,
    late: Vec<Duration>,
    turns: usize,
    parks: usize,
}

const ALARMS: usize = 50;

impl Work for Alarm {
    fn turn(&mut self, port: &mut dyn Port) -> Turn {
        port.receive(&mut |_| panic!("nobody sends"));
        self.turns += 1;
        let now = port.now();
        let worked = self.due.is_some_and(|due| due <= now);
        if worked || self.due.is_none() {
            self.late.extend(self.due.map(|due| now.saturating_since(due)));
            self.due = Some(now + Duration::from_millis(2));
        }
        Turn { worked, deadline: self.due, done: self.late.len() == ALARMS }
    }

    fn prepare_park(&mut self) -> bool {
        self.parks += 1;
        true
    }

    fn woke(&mut self) {}
}

#[test]
fn deadlines_wake_a_sleeping_host_and_nothing_else_does() {
    if skip() {
        return;
    }
    for (host, io) in PAIRS {
        let doorbell = Doorbell::of_shard().unwrap();
        let alarm = run_on_thread(settings((host, io), Duration::ZERO), &doorbell, Alarm::default()).join().unwrap();
        let mut late = alarm.late;
        late.sort();
        println!(
            "{host:?} {io:?}: late by {:?} (median), {:?} (most); {} turns",
            late[ALARMS / 2],
            late[ALARMS - 1],
            alarm.turns
        );
        assert!(late[ALARMS / 2] < Duration::from_millis(20), "{host:?} {io:?}: {late:?}");
        // For each alarm: the turn that finds it, one that finds nothing before it sleeps, and one for a late completion.
        assert!(
            alarm.turns <= 3 * ALARMS + 10 && alarm.parks <= 2 * ALARMS + 10,
            "{host:?} {io:?}: {} turns",
            alarm.turns
        );
    }
}

/// Counts what others have asked for, and answers each.
struct Answers {
    doorbell: Arc<Doorbell>,
    asked: std::sync::mpsc::Receiver<u32>,
    /// What came between the last look and the sleep.
    found: Option<u32>,
    answer: std::sync::mpsc::Sender<u32>,
    turns: usize,
}

impl Work for Answers {
    fn turn(&mut self, port: &mut dyn Port) -> Turn {
        port.receive(&mut |_| panic!("nobody sends"));
        self.turns += 1;
        let mut turn = Turn { worked: false, deadline: None, done: false };
        while let Some(number) = self.found.take().or_else(|| self.asked.try_recv().ok()) {
            turn.worked = true;
            turn.done |= number == u32::MAX;
            self.answer.send(number).unwrap();
        }
        turn
    }

    fn prepare_park(&mut self) -> bool {
        self.doorbell.prepare_sleep();
        self.found = self.asked.try_recv().ok();
        self.found.is_none()
    }

    fn woke(&mut self) {
        self.doorbell.awake();
    }
}

#[test]
fn a_doorbell_wakes_a_sleeping_host_each_time() {
    if skip() {
        return;
    }
    for ((host, io), spin) in PAIRS.into_iter().flat_map(|pair| [(pair, 0), (pair, 20)]) {
        let doorbell = Arc::new(Doorbell::of_shard().unwrap());
        let (ask, asked) = std::sync::mpsc::channel();
        let (answer, answered) = std::sync::mpsc::channel();
        let work = Answers { doorbell: Arc::clone(&doorbell), asked, found: None, answer, turns: 0 };
        let thread = run_on_thread(settings((host, io), Duration::from_micros(spin)), &doorbell, work);
        for number in (0..2_000).chain([u32::MAX]) {
            ask.send(number).unwrap();
            doorbell.ring();
            let back = answered.recv_timeout(Duration::from_secs(5));
            assert_eq!(back, Ok(number), "{host:?} {io:?}, {spin} us of spinning");
        }
        let work = thread.join().unwrap();
        assert!(spin > 0 || work.turns < 4 * 2_000, "{host:?} {io:?} sleeps: {} turns", work.turns);
    }
}

#[test]
fn a_host_that_is_rung_again_and_again_never_sleeps_through_it() {
    if skip() {
        return;
    }
    for (host, io) in PAIRS {
        let doorbell = Arc::new(Doorbell::of_shard().unwrap());
        let (ask, asked) = std::sync::mpsc::channel();
        let (answer, answered) = std::sync::mpsc::channel();
        let work = Answers { doorbell: Arc::clone(&doorbell), asked, found: None, answer, turns: 0 };
        let thread = run_on_thread(settings((host, io), Duration::ZERO), &doorbell, work);
        // Nobody waits for answers: it is often rung just when it is about to sleep, or has just woken.
        let (mut random, count) = (1_u32, 100_000);
        let started = std::time::Instant::now();
        for number in 0..count {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            for _ in 0..random >> 22 {
                std::hint::spin_loop();
            }
            ask.send(number).unwrap();
            doorbell.ring();
        }
        for number in 0..count {
            let back = answered.recv_timeout(Duration::from_secs(5));
            assert_eq!(back, Ok(number), "{host:?} {io:?} after {:?}", started.elapsed());
        }
        ask.send(u32::MAX).unwrap();
        doorbell.ring();
        let turns = thread.join().unwrap().turns;
        println!("{host:?} {io:?}: {count} answers and {turns} turns in {:?}", started.elapsed());
    }
}
