//! What an operator sees: metrics, logs, and the layer that measures every RPC.

mod deadline;
mod durations;
mod exposition;
mod process;
mod protobuf;
mod red;
mod stores;
mod transport;

use std::sync::OnceLock;

use metrics::{counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};
use exposition::{Family, Kind, Value};

pub(crate) use protobuf::CONTENT_TYPE as PROTOBUF_CONTENT_TYPE;
pub use red::measure;
#[cfg(test)]
pub(crate) use red::method_paths;
pub use stores::{StoreCall, StoreTimer};
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
    handle.render() + &exposition::render(&own_families())
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

/// Sends logs to standard error for people, filtered by `RUST_LOG` (default: info).
pub fn init_logs() {
    init_logs_as(&Log { level: "info".to_owned(), format: LogFormat::Pretty });
}

/// Changes which logs are sent, by a filter's text.
type Refilter = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// Set with the subscriber.
static REFILTER: OnceLock<Refilter> = OnceLock::new();

/// Sends logs to standard error, filtered by `RUST_LOG`, or else as `log` says.
pub fn init_logs_as(log: &Log) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(&log.level));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second subscriber in one process is no reason to fail; the first stays.
    match log.format {
        LogFormat::Json => {
            let logs = logs.json().flatten_event(true).with_filter_reloading();
            let handle = logs.reload_handle();
            if logs.try_init().is_ok() {
                let _ = REFILTER.set(Box::new(move |level| reload(level, |filter| handle.reload(filter))));
            }
        }
        LogFormat::Pretty => {
            let logs = logs.with_filter_reloading();
            let handle = logs.reload_handle();
            if logs.try_init().is_ok() {
                let _ = REFILTER.set(Box::new(move |level| reload(level, |filter| handle.reload(filter))));
            }
        }
    }
}

fn reload<E: std::error::Error>(level: &str, put: impl Fn(EnvFilter) -> Result<(), E>) -> Result<(), String> {
    let filter = EnvFilter::try_new(level).map_err(|error| error.to_string())?;
    put(filter).map_err(|error| error.to_string())
}

/// Sends the logs of this level, as `Log.Level` has it, from now on.
///
/// # Errors
/// Why it stays as it is.
pub fn set_log_level(level: &str) -> Result<(), String> {
    if std::env::var_os("RUST_LOG").is_some() {
        return Err("RUST_LOG is set, which stands above Log.Level".to_owned());
    }
    let refilter = REFILTER.get().ok_or_else(|| "another part of the program has the logs".to_owned())?;
    refilter(level)
}
