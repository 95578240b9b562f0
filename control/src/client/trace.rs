//! How the commands that make or forward calls trace them.

use clap::Args;

use crate::telemetry::{TraceError, TraceOptions, Tracer, check_endpoint};

/// Whether calls are traced, and where to.
#[derive(Args, Clone, Debug)]
pub struct TraceArgs {
    /// Trace calls: send their spans to the collector at this address (OTLP over gRPC, such as <http://127.0.0.1:4317>)
    #[arg(long, value_name = "URL", value_parser = endpoint)]
    trace: Option<String>,
    /// The share of the traces begun here that is kept; one that a caller began is kept if the caller keeps it
    #[arg(long, value_name = "RATIO", default_value_t = 1.0, value_parser = ratio, requires = "trace")]
    trace_ratio: f64,
}

impl TraceArgs {
    /// How spans of `service_name` are made, if they are.
    pub fn options(&self, service_name: &str) -> Option<TraceOptions> {
        let endpoint = self.trace.clone()?;
        Some(TraceOptions { sample_rate: self.trace_ratio, ..TraceOptions::new(endpoint, service_name) })
    }

    /// What makes spans of `service_name`, if anything does. To be called within a tokio runtime.
    pub(super) fn tracer(&self, service_name: &str) -> Result<Option<Tracer>, TraceError> {
        self.options(service_name).as_ref().map(Tracer::start).transpose()
    }
}

fn endpoint(text: &str) -> Result<String, String> {
    check_endpoint(text).map(|()| text.to_owned())
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio: Option<f64> = text.parse().ok();
    ratio
        .filter(|ratio| (0.0..=1.0).contains(ratio))
        .ok_or_else(|| "give a number from 0 to 1, for example 0.1".to_owned())
}
