//! The open loop: a thread that does nothing but keep the schedule.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::{Echo, Latencies, Meter, Meters, Wire, pace};
use super::{Measured, Plan};
use crate::transport::tcp::FramedTcp;

/// Answers are waited for this long at the end, or ten round trips if that is longer.
const LATE_ANSWERS: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(5);

/// The requests of a run: which are warm-up, which are measured.
struct Schedule {
    latencies: Arc<Latencies>,
    first_measured: usize,
    window: Duration,
}

impl Schedule {
    fn new(plan: &Plan) -> Self {
        let interval = Duration::from_secs_f64(1.0 / plan.rate);
        let first_measured = (plan.warmup.as_secs_f64() * plan.rate).round() as usize;
        let measured = ((plan.seconds * plan.rate).round() as usize).max(1);
        // A little ahead, so that the first request is not late.
        let start = Instant::now() + Duration::from_millis(5);
        let latencies = Arc::new(Latencies::new(start, interval, first_measured + measured));
        Self { latencies, first_measured, window: Duration::from_secs_f64(plan.seconds) }
    }

    /// Calls `send` for every request when it is due, then waits for the answers.
    fn run(&self, plan: &Plan, meters: &Meters, mut send: impl FnMut(usize) -> bool) -> Measured {
        pace::prepare_thread();
        let mut before = Meter::default();
        let window_start = self.latencies.intended(self.first_measured);
        for index in 0..self.latencies.count() {
            pace::sleep_until(self.latencies.intended(index));
            if index == self.first_measured {
                before = meters.read();
            }
            if !send(index) {
                break;
            }
        }
        pace::sleep_until(window_start + self.window);
        let spent = meters.read().since(&before);
        let until =
            Instant::now() + self.latencies.least().map_or(LATE_ANSWERS, |least| (10 * least).max(LATE_ANSWERS));
        while Instant::now() < until && !self.latencies.complete_from(self.first_measured) {
            std::thread::sleep(POLL);
        }
        let recorded = self.latencies.recorded(self.first_measured, Instant::now());
        Measured {
            histogram: recorded.histogram,
            sent: recorded.received + recorded.errors,
            received: recorded.received,
            errors: recorded.errors,
            seconds: plan.seconds,
            spent,
        }
    }
}

/// Over a connection whose calls are futures.
pub(super) fn calls<E: Echo>(runtime: &tokio::runtime::Runtime, echo: &E, plan: &Plan) -> Measured {
    let schedule = Schedule::new(plan);
    schedule.run(plan, &plan.meters(echo.wire(plan.remote.ip())), |index| {
        let (echo, payload, latencies) = (echo.clone(), plan.payload.clone(), schedule.latencies.clone());
        runtime.spawn(async move {
            match echo.call(payload).await {
                Ok(()) => latencies.answered(index),
                Err(error) => tracing::debug!(%error, "a request failed"),
            }
        });
        true
    })
}

/// Over frames: this thread writes, another reads.
pub(super) fn framed(connection: FramedTcp, plan: &Plan) -> anyhow::Result<Measured> {
    let (mut writer, reader) = connection.split()?;
    let schedule = Schedule::new(plan);
    let latencies = schedule.latencies.clone();
    let reading = std::thread::spawn(move || {
        reader.run(|numbers| {
            for number in numbers {
                latencies.answered(*number as usize);
            }
            Ok(())
        })
    });
    let measured = schedule.run(plan, &plan.meters(Wire::of_interfaces(plan.remote.ip())), |index| {
        // What a broken connection did not answer shows as errors.
        writer
            .send([index as u64].into_iter(), &plan.payload)
            .inspect_err(|error| tracing::warn!(%error, "cannot send"))
            .is_ok()
    });
    writer.close();
    let _ = reading.join();
    Ok(measured)
}
