//! What the clients of one replay share: the trace, the clock and the counters. Never text: that goes through the server.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::Barrier;

use super::{Encoding, ReplayArgs};
use crate::history::{Entry, Recorder};
use crate::trace::{Causality, Trace};

/// The trace, the clock and the counters.
pub(super) struct Shared {
    pub(super) trace: Trace,
    pub(super) causality: Causality,
    pub(super) document: String,
    pub(super) encoding: Encoding,
    pub(super) speed: f64,
    pub(super) resume: bool,
    /// Everybody has subscribed before anybody edits.
    pub(super) start: Barrier,
    pub(super) progress: ProgressBar,
    pub(super) requests: AtomicU64,
    pub(super) reconnections: AtomicU64,
    /// What clients take down, if the log is to be held against it.
    pub(super) history: Option<Recorder>,
    origin: Instant,
    started_ns: AtomicU64,
    /// When the operation that begins with this transaction was sent.
    sent_ns: Vec<AtomicU64>,
    latencies_ns: Mutex<Histogram<u64>>,
}

impl Shared {
    pub(super) fn new(args: &ReplayArgs, trace: Trace, causality: Causality, document: String, clients: usize) -> Self {
        let progress =
            ProgressBar::with_draw_target(Some(trace.transactions.len() as u64), ProgressDrawTarget::stderr_with_hz(8));
        if args.json {
            progress.set_draw_target(ProgressDrawTarget::hidden());
        }
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} transactions, {per_sec}, {eta} left");
        progress.set_style(style.expect("the template is constant and valid"));
        Self {
            sent_ns: trace.transactions.iter().map(|_| AtomicU64::new(0)).collect(),
            trace,
            causality,
            document,
            encoding: args.encoding,
            speed: args.speed,
            resume: args.resume,
            start: Barrier::new(clients),
            progress,
            requests: AtomicU64::new(0),
            reconnections: AtomicU64::new(0),
            history: args.check_history.then(Recorder::default),
            origin: Instant::now(),
            started_ns: AtomicU64::new(0),
            latencies_ns: Mutex::new(crate::load::histogram()),
        }
    }

    /// Starts the clock; the first caller decides.
    pub(super) fn begin(&self) {
        let now = self.now_ns();
        let _ = self.started_ns.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    pub(super) fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.now_ns() - self.started_ns.load(Ordering::Relaxed))
    }

    /// When a transaction may be made, at the recorded pace; `None` is at once.
    pub(super) fn due(&self, transaction: u32) -> Option<Instant> {
        if self.speed == 0.0 {
            return None;
        }
        let recorded_ms = self.trace.transactions[transaction as usize].time_ms - self.trace.transactions[0].time_ms;
        let after = Duration::try_from_secs_f64(recorded_ms.max(0) as f64 / 1e3 / self.speed).ok()?;
        self.origin.checked_add(Duration::from_nanos(self.started_ns.load(Ordering::Relaxed)))?.checked_add(after)
    }

    /// Takes down what happened to a client, if anybody wants to know.
    pub(super) fn record(&self, entry: impl FnOnce() -> Entry) {
        if let Some(history) = &self.history {
            history.record(entry());
        }
    }

    pub(super) fn sent(&self, transaction: u32) {
        self.sent_ns[transaction as usize].store(self.now_ns(), Ordering::Relaxed);
    }

    pub(super) fn seen(&self, transaction: u32) {
        let latency = self.now_ns().saturating_sub(self.sent_ns[transaction as usize].load(Ordering::Relaxed));
        self.latencies_ns.lock().expect("no holder panics").saturating_record(latency);
    }

    /// The latency in microseconds that this share (0 to 1) of the operations did not exceed.
    pub(super) fn quantile_us(&self, share: f64) -> f64 {
        self.latencies_ns.lock().expect("no holder panics").value_at_quantile(share) as f64 / 1e3
    }

    fn now_ns(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64 + 1
    }
}
