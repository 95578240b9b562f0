//! Whether the machine ran while something was measured: on each processor a thread that only sleeps, and looks how late it wakes.
//! Where a hypervisor takes processors away, everything that is measured stands still with them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};

use super::model::Standstill;
use crate::link::be_punctual;

/// A measurement whose machine stood still for a greater part of its time is made again.
pub(super) const DISTURBED_PERCENT: f64 = 0.5;
const SLEEP: Duration = Duration::from_millis(5);
/// Who wakes no later than this was waited for by nobody.
const USUAL: Duration = Duration::from_millis(5);

/// Watches until its end.
pub(super) struct Watch {
    stop: Arc<AtomicBool>,
    started: Instant,
    threads: Vec<JoinHandle<Late>>,
}

/// What one processor was late.
#[derive(Default)]
struct Late {
    longest: Duration,
    all: Duration,
}

impl Watch {
    /// One thread for each processor, before all others there.
    pub(super) fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let watch = |processor: usize| {
            let stop = Arc::clone(&stop);
            thread::Builder::new().name("stillness".to_owned()).spawn(move || watch(processor, &stop)).ok()
        };
        let threads = (0..processors).filter_map(watch).collect();
        Self { stop, started: Instant::now(), threads }
    }

    /// What there was of the processor that stood still most.
    pub(super) fn end(mut self) -> Standstill {
        let took = self.started.elapsed().as_secs_f64();
        self.stop.store(true, Ordering::Relaxed);
        let late = self.threads.drain(..).filter_map(|thread| thread.join().ok());
        let worst = late.max_by_key(|late| late.all).unwrap_or_default();
        Standstill {
            longest_ms: worst.longest.as_secs_f64() * 1e3,
            percent: worst.all.as_secs_f64() / took * 100.0,
            repeats: 0,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn watch(processor: usize, stop: &AtomicBool) -> Late {
    let mut processors = CpuSet::new();
    processors.set(processor);
    // Where it may not stay it looks wherever it is.
    let _ = sched_setaffinity(None, &processors);
    be_punctual();
    let mut late = Late::default();
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        thread::sleep(SLEEP);
        let more = start.elapsed().saturating_sub(SLEEP + USUAL);
        late.longest = late.longest.max(more);
        late.all += more;
    }
    late
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Watch;

    #[test]
    fn a_watch_ends_and_says_a_part_of_its_time() {
        let watch = Watch::start();
        std::thread::sleep(Duration::from_millis(100));
        let stood = watch.end();
        assert!((0.0..=100.0).contains(&stood.percent), "{stood:?}");
        assert_eq!(stood.longest_ms > 0.0, stood.percent > 0.0, "{stood:?}");
    }
}
