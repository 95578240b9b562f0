//! Metrics, liveness and readiness over HTTP.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::session::SessionStore;
use crate::statesync::DocumentStore;

/// Whose readiness is asked for.
#[derive(Clone)]
pub(super) enum Store {
    Sessions(Arc<dyn SessionStore>),
    Documents(Arc<dyn DocumentStore>),
}

/// What a service is ready by.
#[derive(Clone)]
pub(super) struct Readiness {
    pub(super) store: Store,
    pub(super) stop: CancellationToken,
}

/// Serves until it is told to stop, the metrics at `path`.
pub(super) async fn serve(listener: TcpListener, readiness: Readiness, path: String) {
    let stop = readiness.stop.clone();
    let router = Router::new()
        .route(&path, get(metrics))
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .with_state(readiness);
    let listener = listener.tap_io(|stream| {
        // A socket that refuses the option still works, only slower.
        let _ = stream.set_nodelay(true);
    });
    let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "the HTTP server ended");
    }
}

async fn metrics() -> impl IntoResponse {
    let handle = crate::telemetry::metrics_handle();
    handle.run_upkeep();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], handle.render() + &crate::telemetry::quantum_metrics())
}

/// Ready means that the store has just answered and takes writes.
async fn ready(State(readiness): State<Readiness>) -> impl IntoResponse {
    if readiness.stop.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n".to_owned());
    }
    let checked = match &readiness.store {
        Store::Sessions(store) => store.check().await,
        Store::Documents(store) => store.check().await,
    };
    match checked {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {error}\n")),
    }
}
