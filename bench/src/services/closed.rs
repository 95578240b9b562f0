//! Callers that each send when their last call was answered, or at the times of a schedule, and what became of the calls.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::watch::{Spent, Watch};
use crate::load::{PAUSE_AFTER_FAILURE, Window, histogram};
use crate::replay::wire::Wire;

/// How long after the measured time an answer may come; then the call has failed.
pub(super) const LATE_ANSWERS: Duration = Duration::from_secs(10);
/// Callers share histograms, of a quarter of a megabyte each, and seldom meet at one.
const HISTOGRAMS: usize = 16;

/// Calls of one kind, their answers, and what has to be true in the end.
pub(super) trait Workload: Send + Sync + 'static {
    /// The generated client.
    type Client: Send + 'static;

    /// A client on a connection.
    fn client(&self, wire: Wire) -> Self::Client;

    /// What the next call needs and no time is counted for; it is the caller's `subject` then.
    fn arrange(
        &self,
        client: &mut Self::Client,
        caller: &Caller,
    ) -> impl Future<Output = anyhow::Result<String>> + Send {
        let _ = (client, caller);
        std::future::ready(Ok(String::new()))
    }

    /// Makes one call and checks its answer.
    fn call(&self, client: &mut Self::Client, caller: &Caller) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Compares what the service holds with what it acknowledged.
    fn check(&self, wire: Wire) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// Who calls.
pub(super) struct Caller {
    /// From 0.
    pub(super) number: u64,
    /// Calls it made so far.
    pub(super) calls: u64,
    /// A session id of its own.
    pub(super) session: String,
    /// What was arranged for this call.
    pub(super) subject: String,
}

/// How hard and how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Callers on each connection.
    pub(super) in_flight: usize,
    /// The time before the measured time.
    pub(super) warmup: Duration,
    /// The measured time.
    pub(super) measured: Duration,
    /// Calls in a second of all callers, at even distances, whatever became of those before; none: each when the last was answered.
    pub(super) rate: Option<f64>,
}

/// What happened in the measured time.
pub(super) struct Measured {
    /// Nanoseconds of the calls that were answered.
    pub(super) histogram: Histogram<u64>,
    /// Calls that failed, those of the warm-up too.
    pub(super) errors: u64,
    /// What the first of them said.
    pub(super) first_error: Option<String>,
    /// Processor time.
    pub(super) spent: Spent,
}

/// Latencies and failures, from many tasks.
pub(super) struct Recorder {
    histograms: Vec<Mutex<Histogram<u64>>>,
    errors: AtomicU64,
    first_error: OnceLock<String>,
}

impl Recorder {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        let histograms = (0..HISTOGRAMS).map(|_| Mutex::new(histogram())).collect();
        Self { histograms, errors: AtomicU64::new(0), first_error: OnceLock::new() }
    }

    /// Something took so long; `number` is who says so.
    pub(super) fn took(&self, number: u64, latency_ns: u64) {
        let histogram = &self.histograms[number as usize % HISTOGRAMS];
        histogram.lock().expect("no holder panics").saturating_record(latency_ns);
    }

    /// Something failed.
    pub(super) fn failed(&self, error: &anyhow::Error) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        // Only the first is kept.
        let _ = self.first_error.set(format!("{error:#}"));
    }

    /// Latencies of all.
    pub(super) fn latencies(&self) -> Histogram<u64> {
        let mut all = histogram();
        for part in &self.histograms {
            all += &*part.lock().expect("no holder panics");
        }
        all
    }

    /// How many failed, and what the first said.
    pub(super) fn errors(&self) -> (u64, Option<String>) {
        (self.errors.load(Ordering::Relaxed), self.first_error.get().cloned())
    }
}

/// When the calls of one caller are due.
#[derive(Clone, Copy)]
struct Schedule {
    first: Instant,
    interval: Duration,
}

impl Schedule {
    /// Of one of so many callers, who take turns.
    fn new(start: Instant, rate: f64, number: usize, callers: usize) -> Self {
        let turn = Duration::from_secs_f64(1.0 / rate);
        Self { first: start + turn * number as u32, interval: turn * callers as u32 }
    }

    fn due(&self, call: u64) -> Instant {
        self.first + Duration::from_nanos(self.interval.as_nanos() as u64 * call)
    }
}

/// Calls over `wires` for as long as `pace` says.
pub(super) async fn run<W: Workload>(workload: &Arc<W>, wires: &[Wire], pace: &Pace, watch: Watch) -> Measured {
    let window = Window::new(pace.warmup, pace.measured);
    let start = window.begin.checked_sub(pace.warmup).unwrap_or(window.begin);
    let spent = std::thread::spawn(move || {
        let (before, after) = window.read(|| watch.read());
        after.since(&before)
    });
    let recorder = Arc::new(Recorder::new());
    let mut callers = JoinSet::new();
    let count = wires.len() * pace.in_flight;
    for number in 0..count {
        let client = workload.client(wires[number % wires.len()].clone());
        let session = Uuid::now_v7().to_string();
        let caller = Caller { number: number as u64, calls: 0, session, subject: String::new() };
        let times = Times { window, schedule: pace.rate.map(|rate| Schedule::new(start, rate, number, count)) };
        callers.spawn(keep_calling(Arc::clone(workload), client, caller, times, Arc::clone(&recorder)));
    }
    let all_ended = async {
        while let Some(ended) = callers.join_next().await {
            ended.expect("a caller does not panic");
        }
    };
    let in_time = tokio::time::timeout_at((window.end + LATE_ANSWERS).into(), all_ended).await;
    if in_time.is_err() {
        for _ in 0..callers.len() {
            recorder.failed(&anyhow::anyhow!("no answer within {} s", LATE_ANSWERS.as_secs()));
        }
        callers.shutdown().await;
    }
    let spent = spent.join().expect("reading the meters does not panic");
    let (errors, first_error) = recorder.errors();
    Measured { histogram: recorder.latencies(), errors, first_error, spent }
}

/// When a caller calls.
#[derive(Clone, Copy)]
struct Times {
    window: Window,
    schedule: Option<Schedule>,
}

impl Times {
    /// Waits until a call is to be made; gives when that was to be, or nothing once the time is over. Calls that were due and are
    /// late are made: they count with the time that they waited.
    async fn next(&self, call: u64) -> Option<Instant> {
        let due = match self.schedule {
            Some(schedule) => schedule.due(call),
            None => Instant::now(),
        };
        if due >= self.window.end {
            return None;
        }
        if due > Instant::now() {
            tokio::time::sleep_until(due.into()).await;
        }
        Some(due)
    }
}

async fn keep_calling<W: Workload>(
    workload: Arc<W>,
    mut client: W::Client,
    mut caller: Caller,
    times: Times,
    recorder: Arc<Recorder>,
) {
    loop {
        let arranged = workload.arrange(&mut client, &caller).await;
        let Some(due) = times.next(caller.calls).await else { return };
        let called = match arranged {
            Ok(subject) => {
                caller.subject = subject;
                workload.call(&mut client, &caller).await
            }
            Err(error) => Err(error),
        };
        match called {
            Ok(()) if due >= times.window.begin => recorder.took(caller.number, due.elapsed().as_nanos() as u64),
            Ok(()) => {}
            Err(error) => {
                recorder.failed(&error);
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
            }
        }
        caller.calls += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Recorder, Schedule};

    #[test]
    fn callers_take_turns_at_even_distances() {
        let start = Instant::now();
        let mut due: Vec<_> = (0..4).map(|number| Schedule::new(start, 1000.0, number, 4)).collect();
        due.rotate_left(1);
        let mut times: Vec<Instant> = due.iter().flat_map(|schedule| [schedule.due(0), schedule.due(1)]).collect();
        times.sort();
        let expected: Vec<Instant> = (0..8).map(|call| start + Duration::from_millis(call)).collect();
        assert_eq!(times, expected);
    }

    #[test]
    fn latencies_of_all_are_put_together_and_the_first_failure_is_kept() {
        let recorder = Recorder::new();
        for number in 0..100 {
            recorder.took(number, 1000 * (number + 1));
        }
        let all = recorder.latencies();
        assert_eq!((all.len(), all.max() / 1000), (100, 100));
        assert_eq!(recorder.errors(), (0, None));
        recorder.failed(&anyhow::anyhow!("one"));
        recorder.failed(&anyhow::anyhow!("two"));
        assert_eq!(recorder.errors(), (2, Some("one".to_owned())));
    }
}
