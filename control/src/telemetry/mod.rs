//! What an operator sees: metrics, logs, and the layer that measures every RPC.

mod deadline;
mod red;
mod transport;

use std::sync::OnceLock;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

pub use red::measure;
pub(crate) use transport::{quantum_metrics, watch};

/// Upper bounds of the latency buckets in seconds: 0.25 ms doubled up to 16 s.
const LATENCY_BUCKETS: usize = 17;

/// The metrics of this process, in the Prometheus text format. The recorder is installed on first use; there is one per process.
pub fn metrics_handle() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let buckets: Vec<f64> = (0..LATENCY_BUCKETS).map(|power| 0.00025 * f64::from(1_u32 << power)).collect();
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_duration_seconds".into()), &buckets)
            .expect("there are buckets")
            .build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another metrics recorder is installed; /metrics stays empty");
        }
        describe();
        handle
    })
}

fn describe() {
    describe_counter!("grpc_server_requests_total", "RPCs ended, by numeric gRPC status");
    describe_histogram!(
        "grpc_server_request_duration_seconds",
        Unit::Seconds,
        "From request to status, streams included"
    );
    describe_gauge!("grpc_server_in_flight_requests", "RPCs that have not ended");
    describe_counter!("session_total", "Sessions created");
    describe_gauge!("session_active", "Sessions that have not expired");
    describe_counter!("session_heartbeat_total", "Heartbeats accepted");
    describe_counter!("statesync_documents_total", "Documents created");
    describe_counter!("statesync_operations_total", "Operations applied and on disk");
    describe_counter!("statesync_conflicts_total", "Conflicts recorded");
    describe_gauge!("statesync_subscribers_active", "Open subscriptions");
    for name in [
        "session_total",
        "session_heartbeat_total",
        "statesync_documents_total",
        "statesync_operations_total",
        "statesync_conflicts_total",
    ] {
        counter!(name).increment(0);
    }
    gauge!("session_active").increment(0);
    gauge!("statesync_subscribers_active").increment(0);
}

/// Sends logs to standard error for people, filtered by `RUST_LOG` (default: info).
pub fn init_logs() {
    init_logs_as(&Log { level: "info".to_owned(), format: LogFormat::Pretty });
}

/// Sends logs to standard error, filtered by `RUST_LOG`, or else as `log` says.
pub fn init_logs_as(log: &Log) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(&log.level));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second subscriber in one process is no reason to fail; the first stays.
    let _ = match log.format {
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
        LogFormat::Pretty => logs.try_init(),
    };
}
