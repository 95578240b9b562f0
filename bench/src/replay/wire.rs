//! Connections of replaying clients.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use proto::session::session_service_client::SessionServiceClient;
use proto::statesync::state_sync_service_client::StateSyncServiceClient;
use proto::statesync::{
    CreateDocumentRequest, GetDocumentRequest, Metadata, OperationEvent, Permissions, SubscribeDocumentRequest,
};
use quantum_grpc::{ClientConfig, EndpointOptions, Verify};
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tower::Service;

use super::ReplayTransport;

/// The services answer every call in this time, or the call failed.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_mins(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// A document of 16 MiB and what is around it.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Makes connections.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    statesync: String,
    session: String,
    transport: ReplayTransport,
    verify: Verify,
}

/// One connection.
#[derive(Clone)]
pub(crate) enum Wire {
    Tcp(Channel),
    Quantum(quantum_grpc::Channel),
}

impl Service<http::Request<Body>> for Wire {
    type Response = http::Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Self::Tcp(channel) => channel.poll_ready(context).map_err(Into::into),
            Self::Quantum(channel) => channel.poll_ready(context).map_err(Into::into),
        }
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match self {
            Self::Tcp(channel) => {
                let answer = channel.call(request);
                Box::pin(async move { answer.await.map_err(Into::into) })
            }
            Self::Quantum(channel) => {
                let answer = channel.call(request);
                Box::pin(async move { Ok(answer.await?.map(Body::new)) })
            }
        }
    }
}

impl Dialer {
    /// Connects to the statesync service at `to`, and to the session service at `session` or one port below.
    pub(crate) fn new(
        to: &str,
        session: Option<&str>,
        transport: ReplayTransport,
        verify: Verify,
    ) -> anyhow::Result<Self> {
        let session = if let Some(address) = session {
            address.to_owned()
        } else {
            let (host, port) = to.rsplit_once(':').context("--to must be HOST:PORT")?;
            let port: u16 = port.parse().context("--to must be HOST:PORT")?;
            ensure!(port > 1, "--to has port {port}; give --session-addr");
            format!("{host}:{}", port - 1)
        };
        Ok(Self { statesync: to.to_owned(), session, transport, verify })
    }

    /// A connection to the statesync service of its own.
    pub(crate) async fn statesync(&self) -> anyhow::Result<StateSyncServiceClient<Wire>> {
        let wire = self.wire(&self.statesync).await?;
        let client = StateSyncServiceClient::new(wire);
        Ok(client.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    /// A connection to the session service of its own.
    pub(super) async fn session(&self) -> anyhow::Result<SessionServiceClient<Wire>> {
        Ok(SessionServiceClient::new(self.wire(&self.session).await?))
    }

    /// Makes an empty text document; gives its id.
    pub(super) async fn create_document(&self) -> anyhow::Result<String> {
        let permissions = Permissions { public: true, ..Permissions::default() };
        let request = CreateDocumentRequest {
            name: "replayed session".to_owned(),
            r#type: "text".to_owned(),
            created_by: "writer-0".to_owned(),
            metadata: Some(Metadata { permissions: Some(permissions), ..Metadata::default() }),
            ..CreateDocumentRequest::default()
        };
        let answer = self.statesync().await?.create_document(request).await?.into_inner();
        Ok(answer.document.context("the answer has no document")?.id)
    }

    /// What the server holds.
    pub(super) async fn document_text(&self, document: &str) -> anyhow::Result<String> {
        let request = GetDocumentRequest { doc_id: document.to_owned() };
        let answer = self.statesync().await?.get_document(request).await?.into_inner();
        let content = answer.document.context("the answer has no document")?.content;
        String::from_utf8(content.to_vec()).context("the document is not UTF-8")
    }

    /// Every operation of a document, as the events of a subscription that starts behind its creation.
    pub(crate) async fn log(&self, document: &str) -> anyhow::Result<Vec<OperationEvent>> {
        let mut statesync = self.statesync().await?;
        let whole = SubscribeDocumentRequest {
            doc_id: document.to_owned(),
            user_id: "reader of the log".to_owned(),
            want_updates: true,
            ..SubscribeDocumentRequest::default()
        };
        let mut events = statesync.subscribe_document(whole.clone()).await?.into_inner();
        let now = events.message().await?.context("the subscription ended at once")?;
        drop(events);
        let from_start = SubscribeDocumentRequest { resume_epoch: now.epoch, resume_version: 1, ..whole };
        let mut events = statesync.subscribe_document(from_start).await?.into_inner();
        let first = events.message().await?.context("the subscription ended at once")?;
        let is_whole = first.document.is_none() && first.snapshot.is_empty();
        ensure!(is_whole, "the server does not give out a log of {} versions", now.version);
        let (mut log, mut version) = (Vec::new(), first.version);
        while version < now.version {
            let event = tokio::time::timeout(CALL_TIMEOUT, events.message()).await.context("the log stopped")??;
            let event = event.context("the log ended early")?;
            if event.operation.is_some() {
                version = event.version;
                log.push(event);
            }
        }
        Ok(log)
    }

    async fn wire(&self, address: &str) -> anyhow::Result<Wire> {
        match self.transport {
            ReplayTransport::QuantumGrpc => {
                // An endpoint of its own: no two clients share a socket or a shard.
                let endpoint = quantum_grpc::Endpoint::client(&EndpointOptions::default())?;
                let channel =
                    quantum_grpc::Channel::connect_lazy(endpoint, address, ClientConfig::new(self.verify.clone()));
                let connected = tokio::time::timeout(CONNECT_TIMEOUT, channel.connection()).await;
                connected.context("no answer")?.with_context(|| format!("cannot connect to {address}"))?;
                Ok(Wire::Quantum(channel))
            }
            ReplayTransport::TcpGrpc => {
                let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
                let endpoint = endpoint.tcp_nodelay(true).connect_timeout(CONNECT_TIMEOUT);
                let channel = endpoint.connect().await.with_context(|| format!("cannot connect to {address}"))?;
                Ok(Wire::Tcp(channel))
            }
        }
    }
}

/// How a server over Quantum is verified, of what was asked for.
pub(crate) fn verify(
    transport: ReplayTransport,
    ca: Option<&PathBuf>,
    pin: Option<&String>,
    insecure_loopback: bool,
) -> anyhow::Result<Verify> {
    match (ca, pin, insecure_loopback) {
        (Some(path), None, false) => Ok(Verify::Ca(path.clone())),
        (None, Some(fingerprint), false) => Ok(Verify::Pin(fingerprint.clone())),
        (None, None, true) => Ok(Verify::InsecureLoopback),
        (None, None, false) if transport == ReplayTransport::TcpGrpc => Ok(Verify::InsecureLoopback),
        _ => anyhow::bail!("quantum-grpc needs one of --ca FILE, --pin HEX, --insecure-loopback"),
    }
}
