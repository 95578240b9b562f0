//! Authentication and permissions, over TCP and over Quantum: who gets in, what they may do, and when they have to go.

mod commands;
mod credentials;
mod documents;
mod sessions;
mod streams;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use control::config::{Auth, AuthKey, RateLimit};
use jsonwebtoken::{EncodingKey, Header};
use proto::session as session_pb;
use proto::session::session_service_client::SessionServiceClient;
use proto::statesync as pb;
use proto::statesync::state_sync_service_client::StateSyncServiceClient;
use quantum_grpc::{AnyChannel, AnyConfig, ClientConfig, Endpoint, Transport, Verify};
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt;

use crate::common::{World, has_shards};

/// The secret of the key "test".
pub(super) const SECRET: &str = "the secret of the tests, thirty-two bytes and more";

/// A server that authenticates, as seen over one transport.
pub(super) struct Guarded {
    _world: World,
    pub(super) sessions: SessionServiceClient<AnyChannel>,
    pub(super) documents: StateSyncServiceClient<AnyChannel>,
    pub(super) session_channel: AnyChannel,
    pub(super) document_channel: AnyChannel,
}

pub(super) fn rules() -> Auth {
    let key = AuthKey { id: "test".into(), secret: SECRET.into(), ..AuthKey::default() };
    let rate_limit = RateLimit { enable: false, rate: 1, burst: 1 };
    Auth { enabled: true, keys: vec![key], leeway: Duration::ZERO, rate_limit, ..Auth::default() }
}

impl Guarded {
    /// None, and the test is skipped, where this transport cannot run.
    pub(super) async fn start(transport: Transport, rules: Auth) -> Option<Self> {
        if transport == Transport::Quantum && !has_shards() {
            return None;
        }
        let world = World::start_with(|up| up.auth = rules).await;
        let channel = |address: std::net::SocketAddr| {
            let client = ClientConfig::new(Verify::InsecureLoopback);
            let config = AnyConfig { transport, client, tls: false, allows_plain_text: true };
            match transport {
                Transport::Tcp => AnyChannel::tcp(&address.to_string()),
                _ => AnyChannel::connect_lazy(Endpoint::shared().unwrap(), &address.to_string(), config),
            }
        };
        let (session_channel, document_channel) =
            (channel(world.running.session_addr), channel(world.running.statesync_addr));
        let sessions = SessionServiceClient::new(session_channel.clone());
        let documents = StateSyncServiceClient::new(document_channel.clone());
        Some(Self { _world: world, sessions, documents, session_channel, document_channel })
    }

    /// A session of this user and its token.
    pub(super) async fn session(&mut self, user: &str, seconds: u32) -> (session_pb::Session, String) {
        let request = session_pb::CreateSessionRequest {
            client_ip: "127.0.0.1".into(),
            timeout_seconds: seconds,
            ..Default::default()
        };
        let answer = self.sessions.create_session(by(user, request)).await.unwrap().into_inner();
        let session = answer.session.unwrap();
        assert_eq!(session.user_id, user, "a user who is not named is the caller");
        (session, answer.token)
    }

    /// A document of this user.
    pub(super) async fn document(&mut self, owner: &str, permissions: pb::Permissions) -> pb::Document {
        let metadata = pb::Metadata { permissions: Some(permissions), ..Default::default() };
        let request = pb::CreateDocumentRequest {
            name: "a private name".into(),
            r#type: "text".into(),
            content: b"private words".to_vec().into(),
            metadata: Some(metadata),
            ..Default::default()
        };
        self.documents.create_document(by(owner, request)).await.unwrap().into_inner().document.unwrap()
    }
}

/// Makes a test over each transport of each function, which takes a [`Transport`].
macro_rules! over_each_transport {
    ($($test:ident),* $(,)?) => {
        mod tcp {
            $(#[tokio::test]
            async fn $test() {
                super::$test(quantum_grpc::Transport::Tcp).await;
            })*
        }
        mod quantum {
            $(#[tokio::test]
            async fn $test() {
                super::$test(quantum_grpc::Transport::Quantum).await;
            })*
        }
    };
}
pub(super) use over_each_transport;

/// Seconds since 1970.
pub(super) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A token of this user that is valid until then.
pub(super) fn token_until(user: &str, end: u64) -> String {
    signed("test", SECRET, &serde_json::json!({"sub": user, "exp": end}))
}

pub(super) fn token(user: &str) -> String {
    token_until(user, unix_now() + 600)
}

/// A token signed by HS256.
pub(super) fn signed(key_id: &str, secret: &str, claims: &serde_json::Value) -> String {
    let header = Header { kid: Some(key_id.into()), ..Header::default() };
    jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

/// A request with this bearer token.
pub(super) fn bearing<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

/// A request of this user.
pub(super) fn by<T>(user: &str, message: T) -> Request<T> {
    bearing(&token(user), message)
}

/// A request with a session's token.
pub(super) fn in_session<T>(session_id: &str, token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-session-id", session_id.parse().unwrap());
    request.metadata_mut().insert("x-session-token", token.parse().unwrap());
    request
}

/// What a call was refused with: the code and the reason. `secrets` may not be in it.
pub(super) fn refused<T: std::fmt::Debug>(result: Result<Response<T>, Status>, secrets: &[&str]) -> (Code, String) {
    let status = result.expect_err("the call is refused");
    let mut headers = status.metadata().clone().into_headers();
    // Its digits are random: they may spell a name.
    headers.remove("x-request-id");
    let values: Vec<_> = headers.values().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    let said = format!("{} {} {values:?}", status.message(), String::from_utf8_lossy(status.details()));
    for secret in [SECRET, "private"].iter().chain(secrets) {
        assert!(!said.contains(secret), "{secret} is told: {said}");
    }
    let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
    (status.code(), reason)
}

pub(super) fn is(code: Code, reason: &str) -> (Code, String) {
    (code, reason.to_owned())
}
