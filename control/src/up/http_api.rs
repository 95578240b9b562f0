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
pub(super) enum Readiness {
    Sessions(Arc<dyn SessionStore>),
    Documents(Arc<dyn DocumentStore>),
}

#[derive(Clone)]
struct Api {
    readiness: Readiness,
    stop: CancellationToken,
}

/// Serves until `stop`.
pub(super) async fn serve(listener: TcpListener, readiness: Readiness, stop: CancellationToken) {
    let api = Api { readiness, stop: stop.clone() };
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .with_state(api);
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
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], handle.render())
}

/// Ready means that the store has just answered and takes writes.
async fn ready(State(api): State<Api>) -> impl IntoResponse {
    if api.stop.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n".to_owned());
    }
    let checked = match &api.readiness {
        Readiness::Sessions(store) => store.check().await,
        Readiness::Documents(store) => store.check().await,
    };
    match checked {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {error}\n")),
    }
}
