//! Whether a service can do what it is for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use quantum_grpc::ShardMonitor;
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::session::SessionStore;
use crate::statesync::DocumentStore;
use crate::store::StoreError;

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

/// The status of `/readyz`, and the reason for it.
pub(super) type Answer = (StatusCode, String);

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
    pub(super) async fn answer(&self) -> Answer {
        self.answer_within(Duration::ZERO).await
    }

    /// The same, but the store may have answered `age` ago.
    pub(super) async fn answer_within(&self, age: Duration) -> Answer {
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
        self.ask_store(age).await
    }

    /// However many ask at once, the store is asked at most twice.
    async fn ask_store(&self, age: Duration) -> Answer {
        let asked = Instant::now();
        let mut checked = self.checked.lock().await;
        if let Some((began, answer)) = checked.as_ref()
            && *began + age >= asked
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{MeasuredSessions, MemorySessions};
    use crate::store::StoreKind;
    use crate::telemetry::metrics_text;

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
        readiness.answer_within(Duration::from_mins(1)).await;
        assert_eq!(checks(), 2);
    }
}
