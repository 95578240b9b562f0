//! The closed loop: so many requests in flight, each answer brings the next request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::super::record::histogram;
use super::super::{Echo, Meter, PAUSE_AFTER_FAILURE, Window, Wire};
use super::{Measured, Plan};
use crate::transport::tcp::FramedTcp;

const LATE_ANSWERS: Duration = Duration::from_secs(2);

fn measured(histogram: Histogram<u64>, errors: u64, plan: &Plan, spent: &Meter) -> Measured {
    let sent = histogram.len();
    Measured { histogram, sent, received: sent - errors, errors, seconds: plan.seconds, spent: *spent }
}

/// Over a connection whose calls are futures: one task for each request in flight.
pub(super) fn calls<E: Echo>(runtime: &tokio::runtime::Runtime, echo: &E, plan: &Plan) -> Measured {
    let window = Window::new(plan.warmup, Duration::from_secs_f64(plan.seconds));
    let spent = window.metered(plan.meters(echo.wire(plan.remote.ip())));
    let failed = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..plan.concurrency)
        .map(|_| {
            let (echo, payload, failed) = (echo.clone(), plan.payload.clone(), failed.clone());
            runtime.spawn(async move {
                let mut histogram = histogram();
                loop {
                    let sent = Instant::now();
                    if sent >= window.end {
                        return histogram;
                    }
                    let until = window.end + LATE_ANSWERS;
                    let answer = tokio::time::timeout_at(until.into(), echo.call(payload.clone())).await;
                    if window.contains(sent) {
                        histogram.saturating_record(sent.elapsed().as_nanos() as u64);
                        failed.fetch_add(u64::from(!matches!(answer, Ok(Ok(())))), Ordering::Relaxed);
                    }
                    if let Ok(Err(error)) = answer {
                        tracing::debug!(%error, "a request failed");
                        tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                    }
                }
            })
        })
        .collect();
    let mut all = histogram();
    for task in tasks {
        all += runtime.block_on(task).expect("a task of the closed loop does not panic");
    }
    let spent = spent.join().expect("reading the meter does not panic");
    measured(all, failed.load(Ordering::Relaxed), plan, &spent)
}

/// Over frames: one thread reads answers and sends as many requests as came back, in one write.
pub(super) fn framed(connection: FramedTcp, plan: &Plan) -> anyhow::Result<Measured> {
    let (mut writer, reader) = connection.split()?;
    let window = Window::new(plan.warmup, Duration::from_secs_f64(plan.seconds));
    let spent = window.metered(plan.meters(Wire::of_interfaces(plan.remote.ip())));
    // The slot of a request in flight is its number; what is kept is when it was sent.
    let mut sent: Vec<Option<Instant>> = vec![Some(Instant::now()); plan.concurrency];
    writer.send(0..plan.concurrency as u64, &plan.payload)?;
    let mut histogram = histogram();
    let outcome = reader.run(|numbers| {
        let now = Instant::now();
        for number in numbers {
            let slot = sent.get_mut(*number as usize);
            if let Some(at) = slot.and_then(Option::take).filter(|at| window.contains(*at)) {
                histogram.saturating_record((now - at).as_nanos() as u64);
            }
        }
        if now < window.end {
            let mut again = numbers.to_vec();
            again.retain(|number| (*number as usize) < sent.len());
            for number in &again {
                sent[*number as usize] = Some(now);
            }
            writer.send(again.into_iter(), &plan.payload)?;
        } else if sent.iter().all(Option::is_none) {
            writer.close();
        }
        Ok(())
    });
    let errors = sent.iter().flatten().filter(|at| window.contains(**at)).count() as u64;
    for at in sent.into_iter().flatten().filter(|at| window.contains(*at)) {
        histogram.saturating_record(at.elapsed().as_nanos() as u64);
    }
    if let Err(error) = outcome {
        tracing::debug!(%error, "the connection ended");
    }
    let spent = spent.join().expect("reading the meter does not panic");
    Ok(measured(histogram, errors, plan, &spent))
}
