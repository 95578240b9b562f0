//! What our fan-out is compared with: plain tonic over TCP, for each document a version and a broadcast channel, nothing else.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::SystemTime;

use futures_util::{Stream, StreamExt, stream};
use proto::statesync as pb;
use tokio::sync::{broadcast, watch};
use tokio_stream::wrappers::BroadcastStream;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service};
use tonic::server::{Grpc, NamedService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::service_fn;
use uuid::Uuid;

/// Events that a subscriber may be behind: as many as ours.
const QUEUE: usize = 1024;

/// A document that knows how often it was changed.
struct Document {
    version: u64,
    /// The number of its one writer's last operation: what overtakes another one on its way waits for it, as with ours.
    last: watch::Sender<u64>,
    events: broadcast::Sender<pb::OperationEvent>,
}

/// Documents by id.
#[derive(Clone, Default)]
pub(super) struct FloorDocuments(Arc<Mutex<HashMap<String, Document>>>);

impl FloorDocuments {
    fn documents(&self) -> MutexGuard<'_, HashMap<String, Document>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn create(&self, request: pb::CreateDocumentRequest) -> pb::CreateDocumentResponse {
        let (id, version) = (Uuid::now_v7().to_string(), 1);
        let created = pb::Document { id: id.clone(), version, content: request.content, ..Default::default() };
        let document = Document { version, last: watch::Sender::new(0), events: broadcast::channel(QUEUE).0 };
        self.documents().insert(id, document);
        pb::CreateDocumentResponse { document: Some(created), ..Default::default() }
    }

    async fn apply(&self, request: pb::ApplyOperationRequest) -> Result<pb::ApplyOperationResponse, Status> {
        let mut operation = request.operation.ok_or_else(|| Status::invalid_argument("there is no operation"))?;
        let mut last = self.documents().get(&operation.doc_id).ok_or_else(no_document)?.last.subscribe();
        // Without a number it waits for none.
        let is_next = |last: &u64| operation.session_sequence <= last + 1;
        last.wait_for(is_next).await.map_err(|_| no_document())?;
        let mut documents = self.documents();
        let document = documents.get_mut(&operation.doc_id).ok_or_else(no_document)?;
        document.version += 1;
        operation.version = document.version;
        operation.timestamp = Some(SystemTime::now().into());
        let event = pb::OperationEvent {
            id: operation.id.clone(),
            r#type: "operation_applied".to_owned(),
            doc_id: operation.doc_id.clone(),
            user_id: operation.user_id.clone(),
            timestamp: operation.timestamp,
            sequence: document.version,
            version: document.version,
            operation: Some(operation.clone()),
            ..Default::default()
        };
        // There may be no subscriber.
        let _ = document.events.send(event);
        document.last.send_modify(|last| *last = operation.session_sequence.max(*last));
        Ok(pb::ApplyOperationResponse { success: true, applied_operation: Some(operation), ..Default::default() })
    }

    fn subscribe(
        &self,
        request: &pb::SubscribeDocumentRequest,
    ) -> Result<impl Stream<Item = Result<pb::OperationEvent, Status>> + Send + use<>, Status> {
        let documents = self.documents();
        let document = documents.get(&request.doc_id).ok_or_else(no_document)?;
        let welcome = pb::OperationEvent { version: document.version, ..Default::default() };
        let events = BroadcastStream::new(document.events.subscribe());
        let events = events.map(|event| event.map_err(|_| Status::data_loss("the subscriber is too far behind")));
        Ok(stream::once(std::future::ready(Ok(welcome))).chain(events))
    }
}

fn no_document() -> Status {
    Status::not_found("there is no such document")
}

impl NamedService for FloorDocuments {
    const NAME: &'static str = "aetherflow.statesync.StateSyncService";
}

impl Service<http::Request<Body>> for FloorDocuments {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let this = self.clone();
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        Box::pin(async move {
            let this = &this;
            Ok(match method.as_str() {
                "CreateDocument" => {
                    let create =
                        |request: Request<_>| async move { Ok(Response::new(this.create(request.into_inner()))) };
                    Grpc::new(ProstCodec::default()).unary(service_fn(create), request).await
                }
                "ApplyOperation" => {
                    let apply =
                        |request: Request<_>| async move { this.apply(request.into_inner()).await.map(Response::new) };
                    Grpc::new(ProstCodec::default()).unary(service_fn(apply), request).await
                }
                "SubscribeDocument" => {
                    let subscribe =
                        |request: Request<_>| async move { this.subscribe(&request.into_inner()).map(Response::new) };
                    Grpc::new(ProstCodec::default()).server_streaming(service_fn(subscribe), request).await
                }
                _ => Status::unimplemented("not compared").into_http(),
            })
        })
    }
}
