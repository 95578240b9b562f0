//! How ended spans leave: a queue that never waits, and a task that sends what is in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::counter;
use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Spans sent at once.
const BATCH_MAX: usize = 512;
/// The collector may take so long for them, with what the exporter tries again.
pub(super) const EXPORT_TIME: Duration = Duration::from_secs(5);
/// That spans are lost is said so often at most.
const COMPLAINT_PAUSE: Duration = Duration::from_mins(1);

/// Where spans go when they end. One that finds no room is lost, and counted.
#[derive(Debug)]
pub(super) struct Queue {
    spans: mpsc::Sender<SpanData>,
    dropped: Arc<AtomicU64>,
}

/// Sends spans, a batch after the other.
#[derive(Debug)]
pub(super) struct Sending<E> {
    exporter: E,
    spans: mpsc::Receiver<SpanData>,
    dropped: Arc<AtomicU64>,
    /// The first span of a batch waits so long for others.
    batch_time: Duration,
    stop: CancellationToken,
    lost: u64,
    complained: Option<Instant>,
}

/// A queue of `room` spans, and what sends them; from `stop` on, it sends what is there and ends.
pub(super) fn queue<E: SpanExporter>(
    exporter: E,
    room: usize,
    batch_time: Duration,
    stop: CancellationToken,
) -> (Queue, Sending<E>) {
    let (sender, spans) = mpsc::channel(room);
    let dropped = Arc::new(AtomicU64::new(0));
    let queue = Queue { spans: sender, dropped: Arc::clone(&dropped) };
    (queue, Sending { exporter, spans, dropped, batch_time, stop, lost: 0, complained: None })
}

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.spans.try_send(span).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl<E: SpanExporter> Sending<E> {
    /// Sends until it is stopped, or nobody can make spans any more.
    pub(super) async fn run(mut self) {
        while let Some(batch) = self.gather().await {
            self.send(batch).await;
        }
    }

    /// The next batch; none at the end.
    async fn gather(&mut self) -> Option<Vec<SpanData>> {
        let mut batch = Vec::new();
        let mut due = std::pin::pin!(tokio::time::sleep(Duration::MAX));
        loop {
            let is_first = batch.is_empty();
            let room = BATCH_MAX - batch.len();
            tokio::select! {
                biased;
                taken = self.spans.recv_many(&mut batch, room) => {
                    if taken == 0 || batch.len() == BATCH_MAX {
                        return Some(batch).filter(|batch| !batch.is_empty());
                    }
                    if is_first {
                        due.as_mut().reset(Instant::now() + self.batch_time);
                    }
                }
                () = self.stop.cancelled(), if !self.spans.is_closed() => self.spans.close(),
                () = &mut due => return Some(batch),
            }
        }
    }

    async fn send(&mut self, batch: Vec<SpanData>) {
        let count = batch.len() as u64;
        let outcome = tokio::time::timeout(EXPORT_TIME, self.exporter.export(batch)).await;
        let failure = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_elapsed) => Some(format!("the collector did not answer within {EXPORT_TIME:?}")),
        };
        let (sent, failed) = if failure.is_none() { (count, 0) } else { (0, count) };
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        for (outcome, count) in [("sent", sent), ("failed", failed), ("dropped", dropped)] {
            counter!("trace_spans_total", "outcome" => outcome).increment(count);
        }
        self.lost += failed + dropped;
        let is_time = self.complained.is_none_or(|last| last.elapsed() >= COMPLAINT_PAUSE);
        if self.lost > 0 && is_time {
            let reason = failure.unwrap_or_else(|| "more ended than could be sent: see Tracing.SampleRate".to_owned());
            tracing::warn!(spans = self.lost, reason, "spans of traces were lost; calls are not affected");
            (self.lost, self.complained) = (0, Some(Instant::now()));
        }
    }
}
