//! The section of traces.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Refused;
use crate::telemetry::{TraceOptions, check_endpoint};

/// Seconds that a span may wait for others at most.
const BATCH_TIMEOUT_MAX: u64 = 60;
/// Spans that may wait at most; with what they say, some hundred megabytes.
const QUEUE_MAX: u64 = 262_144;
/// Bytes of a name at most.
const NAME_BYTES_MAX: usize = 255;

/// Traces, sent to a collector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Tracing {
    /// Whether they are made and sent.
    pub enable: bool,
    /// Whose spans these are.
    pub service_name: String,
    /// The collector.
    pub endpoint: String,
    /// How they are sent: `otlp`, over gRPC.
    pub exporter: String,
    /// The share of the traces begun here that is kept, from 0 to 1.
    pub sample_rate: f64,
    /// Where the service runs.
    pub environment: String,
    /// Seconds that an ended span waits for others to be sent with.
    pub batch_timeout: u64,
    /// Ended spans that wait at most.
    pub max_queue_size: u64,
}

impl Tracing {
    pub(super) fn of(service_name: &str) -> Self {
        Self {
            enable: false,
            service_name: service_name.to_owned(),
            endpoint: "http://localhost:4317".into(),
            exporter: "otlp".into(),
            sample_rate: 1.0,
            environment: "development".into(),
            batch_timeout: 5,
            max_queue_size: 2048,
        }
    }

    /// A section that is off may hold what was meant for another version.
    pub(super) fn check(&self) -> Result<(), Refused> {
        if !self.enable {
            return Ok(());
        }
        if self.exporter != "otlp" {
            let reason = format!(
                "{:?} is not spoken: use otlp, which Jaeger, Tempo and the OpenTelemetry collector take on port 4317",
                self.exporter
            );
            return Err(("Tracing.Exporter", reason));
        }
        check_endpoint(&self.endpoint).map_err(|reason| ("Tracing.Endpoint", reason))?;
        if self.service_name.is_empty() || self.service_name.len() > NAME_BYTES_MAX {
            return Err(("Tracing.ServiceName", format!("a name of 1 to {NAME_BYTES_MAX} bytes")));
        }
        if self.environment.len() > NAME_BYTES_MAX {
            return Err(("Tracing.Environment", format!("a name of at most {NAME_BYTES_MAX} bytes")));
        }
        if !(0.0..=1.0).contains(&self.sample_rate) {
            return Err(("Tracing.SampleRate", format!("{} is not between 0 and 1", self.sample_rate)));
        }
        if !(1..=BATCH_TIMEOUT_MAX).contains(&self.batch_timeout) {
            return Err(("Tracing.BatchTimeout", format!("1 to {BATCH_TIMEOUT_MAX} seconds")));
        }
        if !(1..=QUEUE_MAX).contains(&self.max_queue_size) {
            return Err(("Tracing.MaxQueueSize", format!("1 to {QUEUE_MAX} spans")));
        }
        Ok(())
    }

    /// How traces are made, if they are.
    pub(crate) fn options(&self) -> Option<TraceOptions> {
        self.enable.then(|| TraceOptions {
            endpoint: self.endpoint.clone(),
            service_name: self.service_name.clone(),
            environment: self.environment.clone(),
            sample_rate: self.sample_rate,
            batch_time: Duration::from_secs(self.batch_timeout),
            queue: self.max_queue_size as usize,
        })
    }
}
