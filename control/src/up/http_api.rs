//! Metrics, liveness and readiness over HTTP.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::serve::ListenerExt;
use quantum_grpc::ShardMonitor;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::session::SessionStore;
use crate::statesync::DocumentStore;
use crate::store::StoreError;
use crate::telemetry::{PROTOBUF_CONTENT_TYPE, metrics_open, metrics_protobuf, metrics_text};

/// Whose readiness is asked for.
#[derive(Clone)]
pub(super) enum Store {
    Sessions(Arc<dyn SessionStore>),
    Documents(Arc<dyn DocumentStore>),
}

impl Store {
    /// Whether it reads and takes writes, and what an operator should know of it.
    async fn check(&self) -> Result<Option<String>, StoreError> {
        match self {
            Self::Sessions(store) => store.check().await,
            Self::Documents(store) => store.check().await.map(|()| None),
        }
    }
}

/// How long a store may take to show that it is there: longer than stores by default wait for their servers, which says more.
const CHECK_TIME: Duration = Duration::from_secs(5);

/// What a service is ready by.
#[derive(Clone)]
pub(super) struct Readiness {
    store: Store,
    stop: CancellationToken,
    /// What serves calls, by name.
    servers: Vec<(&'static str, AbortHandle)>,
    shards: Option<ShardMonitor>,
    /// When the last check of the store began, and what it came to. Locked while there is one.
    checked: Arc<Mutex<Option<(Instant, Answer)>>>,
}

type Answer = (StatusCode, String);

impl Readiness {
    /// Ready while `store` is, until `stop`.
    pub(super) fn new(store: Store, stop: CancellationToken) -> Self {
        Self { store, stop, servers: Vec::new(), shards: None, checked: Arc::default() }
    }

    /// Told when the service ends.
    pub(super) fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Ready only while this server runs as well.
    pub(super) fn add_server(&mut self, name: &'static str, server: AbortHandle) {
        self.servers.push((name, server));
    }

    /// Ready only while these shards run as well.
    pub(super) fn add_shards(&mut self, shards: ShardMonitor) {
        self.shards = Some(shards);
    }

    /// Ready means that everything runs, and that the store has just answered and taken a write.
    async fn answer(&self) -> Answer {
        let no = |why: String| (StatusCode::SERVICE_UNAVAILABLE, why);
        if self.stop.is_cancelled() {
            return no("shutting down\n".to_owned());
        }
        if let Some((name, _)) = self.servers.iter().find(|(_, server)| server.is_finished()) {
            return no(format!("not ready: the server of {name} has ended; restart the service\n"));
        }
        if self.shards.as_ref().is_some_and(|shards| !shards.is_alive()) {
            return no("not ready: a shard of Quantum has ended; restart the service\n".to_owned());
        }
        self.ask_store().await
    }

    /// However many ask at once, the store is asked at most twice.
    async fn ask_store(&self) -> Answer {
        let asked = Instant::now();
        let mut checked = self.checked.lock().await;
        if let Some((began, answer)) = checked.as_ref()
            && *began >= asked
        {
            return answer.clone();
        }
        let began = Instant::now();
        let answer = match tokio::time::timeout(CHECK_TIME, self.store.check()).await {
            Ok(Ok(None)) => (StatusCode::OK, "ready\n".to_owned()),
            Ok(Ok(Some(warning))) => (StatusCode::OK, format!("ready\nwarning: {warning}\n")),
            Ok(Err(error)) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {error}\n")),
            Err(_) => {
                let why = format!("not ready: the store has not read and written within {CHECK_TIME:?}\n");
                (StatusCode::SERVICE_UNAVAILABLE, why)
            }
        };
        *checked = Some((began, answer.clone()));
        answer
    }
}

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
    use crate::session::{MeasuredSessions, MemorySessions};
    use crate::store::StoreKind;

    fn on_memory() -> Readiness {
        Readiness::new(Store::Sessions(Arc::new(MemorySessions::default())), CancellationToken::new())
    }

    #[tokio::test]
    async fn ready_is_what_has_its_servers_and_is_not_asked_to_stop() {
        let mut readiness = on_memory();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let server = tokio::spawn(async move { drop(ended.await) });
        readiness.add_server("gRPC over TCP", server.abort_handle());
        assert_eq!(readiness.answer().await, (StatusCode::OK, "ready\n".to_owned()));
        end.send(()).unwrap();
        server.await.unwrap();
        let (status, why) = readiness.answer().await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(why.contains("gRPC over TCP has ended"), "{why}");
        readiness.stop.cancel();
        assert_eq!(readiness.answer().await, (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n".to_owned()));
    }

    /// How often a measured store in memory was checked; no other test has one.
    fn checks() -> u64 {
        let (text, counted) =
            (metrics_text(), "store_operation_duration_seconds_count{store=\"memory\",operation=\"check\"} ");
        text.lines().find_map(|line| line.strip_prefix(counted)).map_or(0, |count| count.parse().unwrap())
    }

    #[tokio::test]
    async fn many_who_ask_at_once_share_an_answer_and_who_asks_later_gets_another() {
        let measured = MeasuredSessions::new(Arc::new(MemorySessions::default()), StoreKind::Memory);
        let readiness = Readiness::new(Store::Sessions(Arc::new(measured)), CancellationToken::new());
        let under_way = readiness.checked.lock().await;
        let mut askers = futures_util::future::join_all((0..100).map(|_| readiness.answer()));
        assert!(futures_util::poll!(&mut askers).is_pending(), "they wait for the check under way");
        drop(under_way);
        assert!(askers.await.into_iter().all(|(status, _)| status == StatusCode::OK));
        assert_eq!(checks(), 1);
        readiness.answer().await;
        assert_eq!(checks(), 2);
    }

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
