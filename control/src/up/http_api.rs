//! Metrics, liveness and readiness over HTTP.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::session::SessionStore;
use crate::statesync::DocumentStore;
use crate::telemetry::{PROTOBUF_CONTENT_TYPE, metrics_protobuf, metrics_text};

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

/// As protobuf, which alone has native histograms, for those who ask for it first.
async fn metrics(headers: HeaderMap) -> impl IntoResponse {
    if wants_protobuf(&headers) {
        return ([(header::CONTENT_TYPE, PROTOBUF_CONTENT_TYPE)], Body::from(metrics_protobuf()));
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], Body::from(metrics_text()))
}

/// Whether a scrape would rather have protobuf than text: its weight (`q`, RFC 9110 section 12.4.2) is no less.
fn wants_protobuf(headers: &HeaderMap) -> bool {
    let (mut protobuf, mut text) = (0.0, 0.0);
    for accepted in headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()) {
        for media in accepted.split(',') {
            let mut parts = media.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let parameters: Vec<&str> = parts.collect();
            let weight = parameters.iter().find_map(|part| part.strip_prefix("q=")?.parse::<f64>().ok()).unwrap_or(1.0);
            let is_delimited = ["proto=io.prometheus.client.MetricFamily", "encoding=delimited"]
                .iter()
                .all(|wanted| parameters.contains(wanted));
            match kind {
                "application/vnd.google.protobuf" if is_delimited => protobuf = weight.max(protobuf),
                "text/plain" | "application/openmetrics-text" => text = weight.max(text),
                _ => {}
            }
        }
    }
    protobuf > 0.0 && protobuf >= text
}

/// Ready means that the store has just answered and takes writes.
async fn ready(State(readiness): State<Readiness>) -> impl IntoResponse {
    if readiness.stop.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n".to_owned());
    }
    let checked = match &readiness.store {
        Store::Sessions(store) => store.check().await,
        Store::Documents(store) => store.check().await.map(|()| None),
    };
    match checked {
        Ok(None) => (StatusCode::OK, "ready\n".to_owned()),
        Ok(Some(warning)) => (StatusCode::OK, format!("ready\nwarning: {warning}\n")),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {error}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(accept: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        wants_protobuf(&headers)
    }

    #[test]
    fn protobuf_is_for_those_who_would_rather_have_it() {
        // As Prometheus 2.42 asks with native histograms on, and off.
        assert!(wants(
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,\
             application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
        ));
        assert!(!wants(
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
        ));
        let named = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=";
        assert!(wants(&format!("{named}delimited;q=0.6,text/plain;q=0.5")));
        assert!(!wants(&format!("{named}delimited;q=0.4,text/plain;q=0.5")));
        assert!(!wants(&format!("{named}text,text/plain;q=0.5")));
        for nonsense in ["", ";", "q=1", "*/*", "application/vnd.google.protobuf", "\u{7f}"] {
            assert!(nonsense.parse::<http::HeaderValue>().is_err() || !wants(nonsense), "{nonsense:?}");
        }
    }
}
