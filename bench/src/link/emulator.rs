//! The link in real time: one thread a direction, from one device through the effects into the other.

use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use quantum::Time;
use quantum_sim::{Datagram, Link, LinkConfig, LinkStats};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tokio::sync::mpsc;
use tun_rs::SyncDevice;

use super::namespace::call;

/// Packets read before those that are due are written.
const BATCH_PACKETS: usize = 64;
/// The largest packet of a device.
const PACKET_LEN_MAX: usize = 1 << 16;
/// The lowest of the real-time priorities: enough to be woken before every thread that is none.
const REAL_TIME_PRIORITY: &str = "1";
/// The most urgent of the other priorities.
const PRIORITY: i32 = -20;
/// A sleep ends so long before something is due, and the rest is spent on reading the clock: waking an idle processor of a
/// virtual machine takes 50 to 150 us.
const SPIN: Duration = Duration::from_micros(60);
/// Shorter sleeps do not spin, so that a busy link leaves the processor to those that use it.
const SPIN_SLEEP_MIN: Duration = Duration::from_micros(500);

/// Two threads that carry packets until they are stopped.
pub(super) struct Emulator {
    threads: [JoinHandle<io::Result<Direction>>; 2],
    stop: Arc<OwnedFd>,
    ended: mpsc::Receiver<()>,
}

/// What one direction did.
#[derive(Debug)]
pub(super) struct Direction {
    pub(super) stats: LinkStats,
    /// Packets under way when the link was taken down.
    pub(super) in_flight: u64,
    /// Packets that the receiving device refused.
    pub(super) refused: u64,
}

impl Emulator {
    /// Joins two devices, with the same effects in both directions and a seed for each.
    pub(super) fn start(devices: [SyncDevice; 2], config: &LinkConfig, seed: u64) -> anyhow::Result<Self> {
        let [device_a, device_b] = devices.map(Arc::new);
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).context("eventfd")?);
        let (ending, ended) = mpsc::channel(1);
        let start = |name: &str, from: &Arc<SyncDevice>, to: &Arc<SyncDevice>, seed| -> anyhow::Result<_> {
            let link = Link::new(config, seed)?;
            let carrier = Carrier { from: from.clone(), to: to.clone(), link, stop: stop.clone(), refused: 0 };
            let ending = ending.clone();
            let work = move || {
                // Dropped when the thread ends, by a panic too.
                let _ending = ending;
                carrier.run()
            };
            Ok(thread::Builder::new().name(name.to_owned()).spawn(work)?)
        };
        let thread_a = start("link-a-to-b", &device_a, &device_b, seed)?;
        let thread_b = start("link-b-to-a", &device_b, &device_a, seed.wrapping_add(1))?;
        Ok(Self { threads: [thread_a, thread_b], stop, ended })
    }

    /// Waits until both threads have ended, which they should not.
    pub(super) async fn ended(&mut self) {
        while self.ended.recv().await.is_some() {}
    }

    /// Tells the threads to stop, without waiting for them.
    pub(super) fn tell_to_stop(&self) -> anyhow::Result<()> {
        rustix::io::write(&self.stop, &1_u64.to_ne_bytes()).context("stopping the emulator")?;
        Ok(())
    }

    /// Stops the threads and gives what they did, from the first device to the second and back.
    pub(super) fn stop(self) -> anyhow::Result<[Direction; 2]> {
        self.tell_to_stop()?;
        let [there, back] = self.threads.map(|thread| {
            thread.join().map_err(|_| anyhow!("the emulator panicked"))?.context("the emulator lost its device")
        });
        Ok([there?, back?])
    }
}

/// One direction.
struct Carrier {
    from: Arc<SyncDevice>,
    to: Arc<SyncDevice>,
    link: Link<()>,
    stop: Arc<OwnedFd>,
    refused: u64,
}

impl Carrier {
    fn run(mut self) -> io::Result<Direction> {
        be_punctual();
        let origin = Instant::now();
        let clock = || Time::from_nanos(u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX));
        let mut buffer = vec![0; PACKET_LEN_MAX];
        loop {
            let more = self.read(clock, &mut buffer)?;
            let now = clock();
            while let Some(datagram) = self.link.poll(now) {
                if self.to.send(&datagram.payload).is_err() {
                    self.refused += 1;
                }
            }
            if !more && self.wait(clock)? {
                let in_flight = self.link.in_flight();
                return Ok(Direction { stats: self.link.stats().clone(), in_flight, refused: self.refused });
            }
        }
    }

    /// Takes a batch of packets in; whether there may be more.
    fn read(&mut self, clock: impl Fn() -> Time, buffer: &mut [u8]) -> io::Result<bool> {
        for _ in 0..BATCH_PACKETS {
            match self.from.recv(buffer) {
                Ok(len) => self.link.process(clock(), Datagram { payload: buffer[..len].to_vec(), meta: () }),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Sleeps until there is something to read, something is due, or the end has come; whether it has.
    fn wait(&self, clock: impl Fn() -> Time) -> io::Result<bool> {
        let due = self.link.next_time();
        let sleep = due.map(|due| due - clock());
        let spins = sleep.is_some_and(|sleep| sleep >= SPIN_SLEEP_MIN);
        let timeout = sleep.map(|sleep| timespec(if spins { sleep.saturating_sub(SPIN) } else { sleep }));
        let mut polled =
            [PollFd::from_borrowed_fd(self.from.as_fd(), PollFlags::IN), PollFd::new(&*self.stop, PollFlags::IN)];
        match poll(&mut polled, timeout.as_ref()) {
            Ok(0) if spins => {
                while due.is_some_and(|due| clock() < due) {
                    std::hint::spin_loop();
                }
                Ok(false)
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(!polled[1].revents().is_empty()),
            Err(error) => Err(error.into()),
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: duration.subsec_nanos().into() }
}

/// Asks the kernel to wake this thread when its timers are due rather than up to 50 us later, and before others.
pub(crate) fn be_punctual() {
    if let Err(error) = rustix::thread::set_current_timer_slack(NonZeroU64::new(1)) {
        tracing::debug!(%error, "the timer slack stays as it is");
    }
    let thread = rustix::thread::gettid();
    if let Err(error) = call("chrt", &["--fifo", "--pid", REAL_TIME_PRIORITY, &thread.to_string()]) {
        tracing::debug!(%error, "no real-time priority");
        if let Err(error) = rustix::process::setpriority_process(Some(thread), PRIORITY) {
            tracing::debug!(%error, "the priority stays as it is");
        }
    }
}
