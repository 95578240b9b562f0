//! What an operator sees: metrics, logs, and the layer that measures every RPC.

mod deadline;
mod durations;
mod exposition;
mod logs;
mod process;
mod protobuf;
mod red;
mod request;
mod seldom;
mod stores;
mod trace;
mod transport;

use std::sync::OnceLock;

use metrics::{counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use exposition::{Family, Kind, Syntax, Value};
pub use logs::{init_logs, init_logs_as, set_log_level};
pub(crate) use protobuf::CONTENT_TYPE as PROTOBUF_CONTENT_TYPE;
pub use red::measure;
#[cfg(test)]
pub(crate) use red::method_paths;
pub use request::Origin;
pub(crate) use request::{Step, scope};
pub(crate) use seldom::Seldom;
pub use stores::{StoreCall, StoreTimer};
pub(crate) use trace::RpcSpan;
pub use trace::{TraceError, TraceOptions, Tracer, check_endpoint};
pub(crate) use transport::watch;

/// Counters and gauges of this process. The recorder is installed on first use; there is one per process.
pub fn metrics_handle() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        process::mark_start();
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another metrics recorder is installed; /metrics stays empty");
        }
        describe();
        handle
    })
}

/// What is not counted by the recorder: histograms, what shards measure, what runs, and what the system knows of the process.
fn own_families() -> Vec<Family> {
    let mut families = vec![build_info(), red::durations()];
    families.extend(stores::families());
    families.extend(transport::families());
    families.extend(process::families());
    families
}

/// Which build this is.
fn build_info() -> Family {
    let labels = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("commit", env!("AETHERFLOW_COMMIT")),
        ("rustc", env!("AETHERFLOW_RUSTC")),
    ];
    Family::new("aetherflow_build_info", "What runs; always 1", Kind::Gauge).with(&labels, Value::Number(1.0))
}

/// All metrics in the Prometheus text format, with classic histograms.
pub(crate) fn metrics_text() -> String {
    let handle = metrics_handle();
    handle.run_upkeep();
    handle.render() + &exposition::render(&own_families(), Syntax::Prometheus)
}

/// All metrics as `OpenMetrics`, with classic histograms and their examples.
pub(crate) fn metrics_open() -> String {
    let handle = metrics_handle();
    handle.run_upkeep();
    let mut families = exposition::parse(&handle.render());
    families.extend(own_families());
    exposition::render(&families, Syntax::OpenMetrics)
}

/// All metrics as protobuf, with native histograms.
pub(crate) fn metrics_protobuf() -> Vec<u8> {
    let handle = metrics_handle();
    handle.run_upkeep();
    let mut families = exposition::parse(&handle.render());
    families.extend(own_families());
    protobuf::render(&families)
}

fn describe() {
    describe_counter!("grpc_server_requests_total", "RPCs ended, by numeric gRPC status");
    describe_gauge!("grpc_server_in_flight_requests", "RPCs that have not ended");
    describe_counter!("trace_spans_total", "Spans of kept traces, by whether the collector has them");
    describe_counter!("session_total", "Sessions created");
    describe_gauge!("session_active", "Sessions that have not expired");
    describe_counter!("session_heartbeat_total", "Heartbeats accepted");
    describe_counter!("statesync_documents_total", "Documents created");
    describe_counter!("statesync_documents_purged_total", "Deleted documents removed for good");
    describe_counter!("statesync_operations_total", "Operations applied and on disk");
    describe_counter!("statesync_conflicts_total", "Conflicts recorded");
    describe_gauge!("statesync_subscribers_active", "Open subscriptions");
    for name in [
        "session_total",
        "session_heartbeat_total",
        "statesync_documents_total",
        "statesync_documents_purged_total",
        "statesync_operations_total",
        "statesync_conflicts_total",
    ] {
        counter!(name).increment(0);
    }
    gauge!("session_active").increment(0);
    gauge!("statesync_subscribers_active").increment(0);
}
