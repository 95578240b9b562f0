//! Metrics, liveness and readiness over HTTP.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;

use super::readiness::Readiness;
use crate::telemetry::{PROTOBUF_CONTENT_TYPE, metrics_open, metrics_protobuf, metrics_text};

/// Serves until it is told to stop, the metrics at `path`.
pub(super) async fn serve(listener: TcpListener, readiness: Readiness, path: String) {
    let stop = readiness.stop();
    let router = Router::new()
        .route(&path, get(metrics))
        // Only that the process still does what it is asked: a restart mends no store.
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(|State(readiness): State<Readiness>| async move { readiness.answer().await }))
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

/// What a scrape can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// With native histograms, and examples of durations.
    Protobuf,
    /// With examples of durations.
    OpenMetrics,
    Text,
}

async fn metrics(headers: HeaderMap) -> impl IntoResponse {
    let (content_type, body) = match format_for(&headers) {
        Format::Protobuf => (PROTOBUF_CONTENT_TYPE, Body::from(metrics_protobuf())),
        Format::OpenMetrics => {
            ("application/openmetrics-text; version=1.0.0; charset=utf-8", Body::from(metrics_open()))
        }
        Format::Text => ("text/plain; version=0.0.4; charset=utf-8", Body::from(metrics_text())),
    };
    ([(header::CONTENT_TYPE, content_type)], body)
}

/// What a scrape would rather have: of what it accepts with the same weight (`q`, RFC 9110 section 12.4.2), that which says most.
fn format_for(headers: &HeaderMap) -> Format {
    let (mut protobuf, mut open, mut text) = (0.0, 0.0, 0.0);
    for accepted in headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()) {
        for media in accepted.split(',') {
            let mut parts = media.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let parameters: Vec<&str> = parts.collect();
            let weight = parameters.iter().find_map(|part| part.strip_prefix("q=")?.parse::<f64>().ok()).unwrap_or(1.0);
            let is_delimited = ["proto=io.prometheus.client.MetricFamily", "encoding=delimited"]
                .iter()
                .all(|wanted| parameters.contains(wanted));
            let version = parameters.iter().find_map(|part| part.strip_prefix("version="));
            match kind {
                "application/vnd.google.protobuf" if is_delimited => protobuf = weight.max(protobuf),
                "application/openmetrics-text" if version.is_none_or(|it| it == "1.0.0") => open = weight.max(open),
                "text/plain" => text = weight.max(text),
                _ => {}
            }
        }
    }
    if protobuf > 0.0 && protobuf >= open && protobuf >= text {
        Format::Protobuf
    } else if open > 0.0 && open >= text {
        Format::OpenMetrics
    } else {
        Format::Text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format_of(accept: &str) -> Format {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        format_for(&headers)
    }

    #[test]
    fn a_scrape_gets_what_it_would_rather_have() {
        // As Prometheus 2.42 asks with native histograms on, and off.
        let asked = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,\
             application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(format_of(asked), Format::Protobuf);
        let asked = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(format_of(asked), Format::OpenMetrics);
        let named = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=";
        for (accept, format) in [
            (format!("{named}delimited;q=0.6,text/plain;q=0.5"), Format::Protobuf),
            (format!("{named}delimited;q=0.4,text/plain;q=0.5"), Format::Text),
            (format!("{named}delimited;q=0.4,application/openmetrics-text;q=0.5"), Format::OpenMetrics),
            (format!("{named}text,text/plain;q=0.5"), Format::Text),
            ("application/openmetrics-text;version=0.0.1,text/plain;q=0.5".to_owned(), Format::Text),
            ("application/openmetrics-text;q=0.4,text/plain;q=0.5".to_owned(), Format::Text),
            ("text/plain".to_owned(), Format::Text),
        ] {
            assert_eq!(format_of(&accept), format, "{accept}");
        }
        for nonsense in ["", ";", "q=1", "*/*", "application/vnd.google.protobuf", "text/plain;q=nan", "\u{7f}"] {
            let is_text = nonsense.parse::<http::HeaderValue>().is_err() || format_of(nonsense) == Format::Text;
            assert!(is_text, "{nonsense:?}");
        }
    }
}
