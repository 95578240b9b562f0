//! `aetherflow.statesync.StateSyncService` over the documents.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use metrics::counter;
use proto::statesync as pb;
use proto::statesync::state_sync_service_server::StateSyncService;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::content::Content;
use super::document::{Applied, Attach, Command, yjs_client};
use super::model::{self, DocumentRecord, NAME_BYTES_MAX, Submission};
use super::registry::Registry;
use super::store::DocumentStore;
use super::subscription::Subscription;
use crate::clock;
use crate::status::{self, invalid, not_found, of_store, required, unimplemented};

const PAGE_DEFAULT: u32 = 50;
const PAGE_MAX: u32 = 1000;
/// Answers the document RPCs.
#[derive(Clone)]
pub struct StateSyncServer {
    registry: Arc<Registry>,
    store: DocumentStore,
}

impl StateSyncServer {
    /// A server over `store`, whose streams end when `stop` is cancelled.
    pub fn new(store: DocumentStore, stop: tokio_util::sync::CancellationToken) -> Self {
        Self { registry: Registry::new(store.clone(), stop), store }
    }

    /// Lets every document leave memory, once no more calls come.
    pub fn close(&self) {
        self.registry.close();
    }
}

type EventStream = Pin<Box<dyn Stream<Item = Result<pb::OperationEvent, Status>> + Send>>;

#[tonic::async_trait]
impl StateSyncService for StateSyncServer {
    type SubscribeDocumentStream = EventStream;

    async fn create_document(
        &self,
        request: Request<pb::CreateDocumentRequest>,
    ) -> Result<Response<pb::CreateDocumentResponse>, Status> {
        let request = request.into_inner();
        model::check_create(&request)?;
        let id = Uuid::now_v7();
        let snapshot = Content::initial_snapshot(&request.r#type, &request.content, yjs_client(id))?;
        let now = clock::now();
        let record = DocumentRecord {
            id,
            name: request.name,
            kind: request.r#type,
            state: "active".into(),
            version: 1,
            epoch: Uuid::new_v4().to_string(),
            metadata: model::metadata_of_new(request.metadata, &request.created_by),
            created_by: request.created_by.clone(),
            created_at: now,
            updated_by: request.created_by,
            updated_at: now,
            snapshot_version: 1,
            snapshot,
        };
        let document = record.to_proto(request.content, Vec::new());
        self.store.create(record).await.map_err(|error| of_store(&error))?;
        counter!("statesync_documents_total").increment(1);
        Ok(Response::new(pb::CreateDocumentResponse { document: Some(document), error: String::new() }))
    }

    async fn get_document(
        &self,
        request: Request<pb::GetDocumentRequest>,
    ) -> Result<Response<pb::GetDocumentResponse>, Status> {
        let id = status::uuid("doc_id", &request.get_ref().doc_id)?;
        let document = self.registry.ask(id, Command::Read).await?;
        Ok(Response::new(pb::GetDocumentResponse { document: Some(document), error: String::new() }))
    }

    async fn apply_operation(
        &self,
        request: Request<pb::ApplyOperationRequest>,
    ) -> Result<Response<pb::ApplyOperationResponse>, Status> {
        let submission = Arc::new(Submission::check(request.into_inner().operation)?);
        let doc_id = submission.doc_id;
        let applied = self.registry.ask(doc_id, |reply| Command::Apply(Arc::clone(&submission), reply)).await?;
        let operation = match applied {
            Applied::Now(published) => published.applied_operation().cloned(),
            Applied::Before(version) => {
                self.store.operation(doc_id, version).await.map_err(|error| of_store(&error))?
            }
        };
        Ok(Response::new(pb::ApplyOperationResponse {
            success: true,
            applied_operation: operation,
            error: String::new(),
        }))
    }

    async fn get_operation_history(
        &self,
        request: Request<pb::GetOperationHistoryRequest>,
    ) -> Result<Response<pb::GetOperationHistoryResponse>, Status> {
        let request = request.get_ref();
        let id = status::uuid("doc_id", &request.doc_id)?;
        let limit = match u32::try_from(request.limit) {
            Ok(0) => PAGE_DEFAULT,
            Ok(limit) => limit.min(PAGE_MAX),
            Err(_) => return Err(invalid("limit", "is negative")),
        };
        if self.store.document(id).await.map_err(|error| of_store(&error))?.is_none() {
            return Err(not_found("document", &request.doc_id));
        }
        let operations = self.store.operations_last(id, limit).await.map_err(|error| of_store(&error))?;
        Ok(Response::new(pb::GetOperationHistoryResponse { operations, error: String::new() }))
    }

    async fn subscribe_document(
        &self,
        request: Request<pb::SubscribeDocumentRequest>,
    ) -> Result<Response<Self::SubscribeDocumentStream>, Status> {
        let request = request.into_inner();
        let doc_id = status::uuid("doc_id", &request.doc_id)?;
        required("user_id", &request.user_id, NAME_BYTES_MAX)?;
        if !request.session_id.is_empty() {
            status::uuid("session_id", &request.session_id)?;
        }
        status::bounded("resume_epoch", &request.resume_epoch, 64)?;
        let resume = (!request.resume_epoch.is_empty()).then_some((request.resume_epoch, request.resume_version));
        let attach = Attach {
            subscriber: Uuid::now_v7(),
            user_id: request.user_id,
            want_updates: request.want_updates,
            resume,
            again: false,
        };
        let (subscription, welcome) =
            Subscription::start(Arc::clone(&self.registry), self.store.clone(), doc_id, attach).await?;
        Ok(Response::new(Box::pin(events(subscription, welcome))))
    }

    async fn update_document(
        &self,
        _: Request<pb::UpdateDocumentRequest>,
    ) -> Result<Response<pb::UpdateDocumentResponse>, Status> {
        Err(unimplemented("UpdateDocument"))
    }

    async fn delete_document(
        &self,
        _: Request<pb::DeleteDocumentRequest>,
    ) -> Result<Response<pb::DeleteDocumentResponse>, Status> {
        Err(unimplemented("DeleteDocument"))
    }

    async fn list_documents(
        &self,
        _: Request<pb::ListDocumentsRequest>,
    ) -> Result<Response<pb::ListDocumentsResponse>, Status> {
        Err(unimplemented("ListDocuments"))
    }

    async fn unsubscribe_document(
        &self,
        _: Request<pb::UnsubscribeDocumentRequest>,
    ) -> Result<Response<pb::UnsubscribeDocumentResponse>, Status> {
        Err(unimplemented("UnsubscribeDocument"))
    }

    async fn acquire_lock(
        &self,
        _: Request<pb::AcquireLockRequest>,
    ) -> Result<Response<pb::AcquireLockResponse>, Status> {
        Err(unimplemented("AcquireLock"))
    }

    async fn release_lock(
        &self,
        _: Request<pb::ReleaseLockRequest>,
    ) -> Result<Response<pb::ReleaseLockResponse>, Status> {
        Err(unimplemented("ReleaseLock"))
    }

    async fn is_locked(&self, _: Request<pb::IsLockedRequest>) -> Result<Response<pb::IsLockedResponse>, Status> {
        Err(unimplemented("IsLocked"))
    }

    async fn get_stats(&self, _: Request<pb::GetStatsRequest>) -> Result<Response<pb::GetStatsResponse>, Status> {
        Err(unimplemented("GetStats"))
    }

    async fn list_conflicts(
        &self,
        _: Request<pb::ListConflictsRequest>,
    ) -> Result<Response<pb::ListConflictsResponse>, Status> {
        Err(unimplemented("ListConflicts"))
    }

    async fn resolve_conflict(
        &self,
        _: Request<pb::ResolveConflictRequest>,
    ) -> Result<Response<pb::ResolveConflictResponse>, Status> {
        Err(unimplemented("ResolveConflict"))
    }
}

/// The welcome, then what the subscription gives, up to and with the first error.
fn events(
    mut subscription: Subscription,
    welcome: pb::OperationEvent,
) -> impl Stream<Item = Result<pb::OperationEvent, Status>> + Send {
    async_stream::stream! {
        yield Ok(welcome);
        loop {
            let event = subscription.next().await;
            let ended = event.is_err();
            yield event;
            if ended {
                break;
            }
        }
    }
}
