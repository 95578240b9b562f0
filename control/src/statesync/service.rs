//! `aetherflow.statesync.StateSyncService` over the documents.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::Empty;
use metrics::counter;
use proto::statesync as pb;
use proto::statesync::state_sync_service_server::StateSyncService;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use super::content::Content;
use super::document::{Attach, Choice, Command, LockRequest, Resolution, yjs_client};
use super::events::{Event, EventStream};
use super::model::{self, DocumentRecord, NAME_BYTES_MAX};
use super::operations::{self, OutcomeStream, check_operation};
use super::permission::{self, Right};
use super::registry::{DocumentOptions, Registry};
use super::store::{ConflictFilter, DocumentFilter, DocumentStore};
use super::subscription::Subscription;
use crate::auth::Asker;
use crate::clock::{self, UnixMicros};
use crate::status::{self, invalid, not_found, of_store, required};
use crate::store::StoreError;

const PAGE_DEFAULT: u32 = 50;
const PAGE_MAX: u32 = 1000;

/// Answers the document RPCs.
#[derive(Clone)]
pub struct StateSyncServer {
    registry: Arc<Registry>,
}

impl StateSyncServer {
    /// A server over `store`, whose streams end when `stop` is cancelled.
    pub fn new(
        store: Arc<dyn DocumentStore>,
        options: DocumentOptions,
        stop: tokio_util::sync::CancellationToken,
    ) -> Self {
        Self { registry: Registry::new(store, options, stop) }
    }

    /// Removes for good what was deleted so long before `now` that nobody can have it back; gives how many documents.
    ///
    /// # Errors
    /// [`StoreError`]; what was not done is done the next time.
    pub async fn purge_deleted(&self, now: UnixMicros) -> Result<usize, StoreError> {
        let removed = self.registry.purge(now).await?;
        counter!("statesync_documents_purged_total").increment(removed as u64);
        Ok(removed)
    }

    /// Checks that a document exists and may be read, for what is read from the store.
    async fn check_readable(&self, id: Uuid, asker: &Asker) -> Result<(), Status> {
        let record = self.registry.store().document(id).await.map_err(|error| of_store(&error))?;
        let record = record.ok_or_else(|| not_found("document", &id.to_string()))?;
        permission::permits(&record, asker, Right::Read)
    }

    /// Answers `SubscribeDocument`.
    ///
    /// # Errors
    /// The status that refuses it.
    pub(super) async fn subscribe(
        &self,
        request: Request<pb::SubscribeDocumentRequest>,
    ) -> Result<Response<EventStream>, Status> {
        let asker = Asker::of(&request);
        let mut request = request.into_inner();
        let doc_id = status::uuid("doc_id", &request.doc_id)?;
        asker.acts_as("user_id", &mut request.user_id)?;
        required("user_id", &request.user_id, NAME_BYTES_MAX)?;
        if !request.session_id.is_empty() {
            asker.acts_in("session_id", &request.session_id).await?;
        }
        status::bounded("resume_epoch", &request.resume_epoch, 64)?;
        let resume = (!request.resume_epoch.is_empty()).then_some((request.resume_epoch, request.resume_version));
        let attach = Attach {
            subscriber: Uuid::now_v7(),
            user_id: request.user_id,
            asker,
            session_id: request.session_id,
            ended: Arc::default(),
            want_updates: request.want_updates,
            resume,
            again: false,
        };
        let (subscription, welcome) = Subscription::start(Arc::clone(&self.registry), doc_id, attach).await?;
        Ok(Response::new(Box::pin(events(subscription, welcome))))
    }

    /// Lets every document leave memory, once no more calls come.
    pub fn close(&self) {
        self.registry.close();
    }
}

#[tonic::async_trait]
impl StateSyncService for StateSyncServer {
    type ApplyOperationsStream = OutcomeStream;
    type SubscribeDocumentStream = Empty<Result<pb::OperationEvent, Status>>;

    async fn create_document(
        &self,
        request: Request<pb::CreateDocumentRequest>,
    ) -> Result<Response<pb::CreateDocumentResponse>, Status> {
        let asker = Asker::of(&request);
        let mut request = request.into_inner();
        asker.acts_as("created_by", &mut request.created_by)?;
        if let Some(permissions) = request.metadata.as_mut().and_then(|metadata| metadata.permissions.as_mut()) {
            asker.acts_as("metadata.permissions.owner", &mut permissions.owner)?;
        }
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
            described_version: 1,
            lock: None,
            snapshot,
        };
        let content =
            Content::restore(&record, yjs_client(id), &[]).map_err(|error| invalid("content", error.to_string()))?;
        let document = record.to_proto(content.bytes(), Vec::new());
        self.registry.store().create(record).await.map_err(|error| of_store(&error))?;
        counter!("statesync_documents_total").increment(1);
        Ok(Response::new(pb::CreateDocumentResponse { document: Some(document), error: String::new() }))
    }

    async fn get_document(
        &self,
        request: Request<pb::GetDocumentRequest>,
    ) -> Result<Response<pb::GetDocumentResponse>, Status> {
        let id = status::uuid("doc_id", &request.get_ref().doc_id)?;
        let document = self.registry.ask(id, &Asker::of(&request), Command::Read).await?;
        Ok(Response::new(pb::GetDocumentResponse { document: Some(document), error: String::new() }))
    }

    async fn apply_operation(
        &self,
        request: Request<pb::ApplyOperationRequest>,
    ) -> Result<Response<pb::ApplyOperationResponse>, Status> {
        let asker = Asker::of(&request);
        let submission = Arc::new(check_operation(request.into_inner().operation, &asker).await?);
        let doc_id = submission.doc_id;
        let applied = self.registry.ask(doc_id, &asker, |reply| Command::Apply(Arc::clone(&submission), reply)).await?;
        Ok(Response::new(operations::response(&self.registry, doc_id, applied).await?))
    }

    async fn apply_operations(
        &self,
        request: Request<Streaming<pb::ApplyOperationsRequest>>,
    ) -> Result<Response<Self::ApplyOperationsStream>, Status> {
        let asker = Asker::of(&request);
        let outcomes = operations::outcomes(Arc::clone(&self.registry), asker, request.into_inner());
        Ok(Response::new(Box::pin(outcomes)))
    }

    async fn get_operation_history(
        &self,
        request: Request<pb::GetOperationHistoryRequest>,
    ) -> Result<Response<pb::GetOperationHistoryResponse>, Status> {
        let asker = Asker::of(&request);
        let request = request.into_inner();
        let id = status::uuid("doc_id", &request.doc_id)?;
        let limit = limit(request.limit)?;
        self.check_readable(id, &asker).await?;
        let operations = self.registry.store().operations_last(id, limit).await.map_err(|error| of_store(&error))?;
        Ok(Response::new(pb::GetOperationHistoryResponse { operations, error: String::new() }))
    }

    /// `StateSyncRoutes` takes these calls.
    async fn subscribe_document(
        &self,
        _: Request<pb::SubscribeDocumentRequest>,
    ) -> Result<Response<Self::SubscribeDocumentStream>, Status> {
        Err(Status::internal("a subscription came the wrong way"))
    }

    async fn update_document(
        &self,
        request: Request<pb::UpdateDocumentRequest>,
    ) -> Result<Response<pb::UpdateDocumentResponse>, Status> {
        let asker = Asker::of(&request);
        let mut document = request.into_inner().document.ok_or_else(|| invalid("document", "is required"))?;
        // As GetDocument gave it, it names who changed it last.
        if let Some(caller) = asker.caller() {
            caller.subject().clone_into(&mut document.updated_by);
        }
        let id = model::check_update(&document)?;
        let document = Arc::new(document);
        self.registry.ask(id, &asker, |reply| Command::Update(Arc::clone(&document), reply)).await?;
        Ok(Response::new(pb::UpdateDocumentResponse { success: true, error: String::new() }))
    }

    async fn delete_document(
        &self,
        request: Request<pb::DeleteDocumentRequest>,
    ) -> Result<Response<pb::DeleteDocumentResponse>, Status> {
        let asker = Asker::of(&request);
        let mut request = request.into_inner();
        let id = status::uuid("doc_id", &request.doc_id)?;
        asker.acts_as("user_id", &mut request.user_id)?;
        required("user_id", &request.user_id, NAME_BYTES_MAX)?;
        self.registry.ask(id, &asker, |reply| Command::Delete(request.user_id.clone(), reply)).await?;
        Ok(Response::new(pb::DeleteDocumentResponse { success: true, error: String::new() }))
    }

    async fn list_documents(
        &self,
        request: Request<pb::ListDocumentsRequest>,
    ) -> Result<Response<pb::ListDocumentsResponse>, Status> {
        let asker = Asker::of(&request);
        let mut request = request.into_inner();
        asker.acts_as("user_id", &mut request.user_id)?;
        if !request.r#type.is_empty() {
            model::one_of("type", &request.r#type, &model::DOCUMENT_TYPES)?;
        }
        if !request.state.is_empty() {
            model::one_of("state", &request.state, &model::DOCUMENT_STATES)?;
        }
        status::bounded("created_by", &request.created_by, NAME_BYTES_MAX)?;
        status::bounded("user_id", &request.user_id, NAME_BYTES_MAX)?;
        let filter = DocumentFilter {
            kind: request.r#type,
            state: request.state,
            created_by: request.created_by,
            user_id: request.user_id,
            offset: offset(request.offset)?,
            limit: limit(request.limit)?,
        };
        let (records, total) = self.registry.store().list(&filter).await.map_err(|error| of_store(&error))?;
        let documents = records.iter().map(|record| record.to_proto(Bytes::new(), Vec::new()));
        Ok(Response::new(pb::ListDocumentsResponse {
            documents: documents.collect(),
            total: i32::try_from(total).unwrap_or(i32::MAX),
            error: String::new(),
        }))
    }

    async fn unsubscribe_document(
        &self,
        request: Request<pb::UnsubscribeDocumentRequest>,
    ) -> Result<Response<pb::UnsubscribeDocumentResponse>, Status> {
        let asker = Asker::of(&request);
        let mut request = request.into_inner();
        let id = status::uuid("doc_id", &request.doc_id)?;
        let subscriber = status::uuid("subscriber_id", &request.subscriber_id)?;
        asker.acts_as("user_id", &mut request.user_id)?;
        required("user_id", &request.user_id, NAME_BYTES_MAX)?;
        self.registry.ask(id, &asker, |reply| Command::Unsubscribe(subscriber, request.user_id.clone(), reply)).await?;
        Ok(Response::new(pb::UnsubscribeDocumentResponse { success: true, error: String::new() }))
    }

    async fn acquire_lock(
        &self,
        request: Request<pb::AcquireLockRequest>,
    ) -> Result<Response<pb::AcquireLockResponse>, Status> {
        let asker = Asker::of(&request);
        let mut request = request.into_inner();
        let id = status::uuid("doc_id", &request.doc_id)?;
        asker.acts_as("user_id", &mut request.user_id)?;
        required("user_id", &request.user_id, NAME_BYTES_MAX)?;
        if !request.session_id.is_empty() {
            asker.acts_in("session_id", &request.session_id).await?;
        }
        let wanted = LockRequest { user_id: request.user_id, session_id: request.session_id };
        let answer = self.registry.ask(id, &asker, |reply| Command::Lock(wanted.clone(), reply)).await?;
        Ok(Response::new(match answer {
            Ok(lock) => pb::AcquireLockResponse { lock: Some(lock), error: String::new() },
            Err(error) => pb::AcquireLockResponse { lock: None, error },
        }))
    }

    async fn release_lock(
        &self,
        request: Request<pb::ReleaseLockRequest>,
    ) -> Result<Response<pb::ReleaseLockResponse>, Status> {
        let asker = Asker::of(&request);
        let mut request = request.into_inner();
        let id = status::uuid("doc_id", &request.doc_id)?;
        asker.acts_as("user_id", &mut request.user_id)?;
        required("user_id", &request.user_id, NAME_BYTES_MAX)?;
        self.registry.ask(id, &asker, |reply| Command::Unlock(request.user_id.clone(), reply)).await?;
        Ok(Response::new(pb::ReleaseLockResponse { success: true, error: String::new() }))
    }

    async fn is_locked(&self, request: Request<pb::IsLockedRequest>) -> Result<Response<pb::IsLockedResponse>, Status> {
        let id = status::uuid("doc_id", &request.get_ref().doc_id)?;
        let lock = self.registry.ask(id, &Asker::of(&request), Command::LockState).await?;
        Ok(Response::new(pb::IsLockedResponse { locked: lock.is_some(), lock, error: String::new() }))
    }

    async fn get_stats(&self, _: Request<pb::GetStatsRequest>) -> Result<Response<pb::GetStatsResponse>, Status> {
        let now = clock::now();
        let counts = self.registry.store().counts(now).await.map_err(|error| of_store(&error))?;
        let stats = pb::Stats {
            total_documents: counts.documents as i64,
            active_documents: counts.active as i64,
            archived_documents: counts.archived as i64,
            total_operations: counts.operations as i64,
            total_conflicts: counts.conflicts as i64,
            resolved_conflicts: counts.resolved as i64,
            active_subscribers: self.registry.subscribers() as i64,
            active_locks: counts.locks as i64,
            last_updated: Some(clock::timestamp(now)),
        };
        Ok(Response::new(pb::GetStatsResponse { stats: Some(stats), error: String::new() }))
    }

    async fn list_conflicts(
        &self,
        request: Request<pb::ListConflictsRequest>,
    ) -> Result<Response<pb::ListConflictsResponse>, Status> {
        let asker = Asker::of(&request);
        let request = request.into_inner();
        let id = status::uuid("doc_id", &request.doc_id)?;
        let (offset, limit) = (offset(request.offset)?, limit(request.limit)?);
        let filter = ConflictFilter { unresolved_only: request.unresolved_only, offset, limit };
        self.check_readable(id, &asker).await?;
        let (records, total) = self.registry.store().conflicts(id, filter).await.map_err(|error| of_store(&error))?;
        Ok(Response::new(pb::ListConflictsResponse {
            conflicts: records.into_iter().map(|record| record.conflict).collect(),
            total: i32::try_from(total).unwrap_or(i32::MAX),
        }))
    }

    async fn resolve_conflict(
        &self,
        request: Request<pb::ResolveConflictRequest>,
    ) -> Result<Response<pb::ResolveConflictResponse>, Status> {
        let asker = Asker::of(&request);
        let mut request = request.into_inner();
        let id = status::uuid("doc_id", &request.doc_id)?;
        let conflict_id = status::uuid("conflict_id", &request.conflict_id)?;
        asker.acts_as("user_id", &mut request.user_id)?;
        required("user_id", &request.user_id, NAME_BYTES_MAX)?;
        let choice = match (request.operation_id.is_empty(), request.merged_operation) {
            (false, None) => Choice::Side(status::uuid("operation_id", &request.operation_id)?),
            (true, Some(operation)) => {
                let submission = check_operation(Some(operation), &asker).await?;
                if submission.operation.session_sequence != 0 {
                    return Err(invalid(
                        "merged_operation.session_sequence",
                        "is 0 here: a decision waits for nothing",
                    ));
                }
                if submission.doc_id != id {
                    return Err(invalid("merged_operation.doc_id", "is another document's"));
                }
                Choice::Merged(Box::new(submission))
            }
            _ => {
                let message = "send the id of the operation that wins, or else a merged_operation, and not both";
                return Err(invalid("operation_id", message));
            }
        };
        let resolution = Arc::new(Resolution { conflict_id, user_id: request.user_id, choice });
        let (conflict, applied_operation) =
            self.registry.ask(id, &asker, |reply| Command::Resolve(Arc::clone(&resolution), reply)).await?;
        Ok(Response::new(pb::ResolveConflictResponse { conflict: Some(conflict), applied_operation }))
    }
}

/// The welcome, then what the subscription gives, up to and with the first error.
fn events(
    mut subscription: Subscription,
    welcome: pb::OperationEvent,
) -> impl Stream<Item = Result<Event, Status>> + Send {
    async_stream::stream! {
        yield Ok(Event::Own(Box::new(welcome)));
        loop {
            let Some(event) = subscription.next().await.transpose() else { break };
            let ended = event.is_err();
            yield event;
            if ended {
                break;
            }
        }
    }
}

/// The size of a page; 0 means the default.
fn limit(limit: i32) -> Result<u32, Status> {
    match u32::try_from(limit) {
        Ok(0) => Ok(PAGE_DEFAULT),
        Ok(limit) => Ok(limit.min(PAGE_MAX)),
        Err(_) => Err(invalid("limit", format!("{limit} is negative; send 1 to {PAGE_MAX}, or 0 for {PAGE_DEFAULT}"))),
    }
}

fn offset(offset: i32) -> Result<u32, Status> {
    u32::try_from(offset).map_err(|_| invalid("offset", format!("{offset} is negative; the first page starts at 0")))
}
