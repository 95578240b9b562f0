//! Documents that are there: reading, listing, renaming and locking them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use proto::statesync::{
    AcquireLockRequest, Document, GetDocumentRequest, IsLockedRequest, ListDocumentsRequest, UpdateDocumentRequest,
};
use uuid::Uuid;

use super::closed::{Caller, Workload};
use super::documents::{self, Client};
use crate::replay::wire::Wire;

/// Documents at least.
const KEPT: usize = 1000;
/// That are created at once before the measurement.
const CREATED_AT_ONCE: usize = 32;
/// Of each document.
const CONTENT_BYTES: usize = 1000;
/// Of a list, which begins at a multiple of this.
const LISTED: usize = 50;
/// Who does all this.
const USER: &str = "writer";

/// Which call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DocumentCall {
    /// `GetDocument`
    Get,
    /// `ListDocuments`
    List,
    /// `UpdateDocument`
    Update,
    /// `AcquireLock`
    Lock,
}

/// Documents, and calls of one kind to them.
pub(super) struct Catalogue {
    call: DocumentCall,
    kept: Vec<Kept>,
}

/// A document and what was acknowledged of it.
struct Kept {
    id: String,
    version: AtomicU64,
    is_locked: AtomicBool,
}

impl Catalogue {
    /// Creates the documents, of which each of so many callers has one of its own.
    ///
    /// # Errors
    /// If the service refuses.
    pub(super) async fn prepare(call: DocumentCall, callers: usize, wire: &Wire) -> anyhow::Result<Self> {
        let client = Client::new(wire.clone());
        let content = Bytes::from(vec![b'.'; CONTENT_BYTES]);
        let created = stream::iter(0..KEPT.max(callers)).map(|number| {
            let (mut client, content) = (client.clone(), content.clone());
            async move {
                let document = documents::create(&mut client, format!("document {number}"), content).await?;
                let version = AtomicU64::new(document.version);
                anyhow::Ok(Kept { id: document.id, version, is_locked: AtomicBool::new(false) })
            }
        });
        let kept = created.buffer_unordered(CREATED_AT_ONCE).try_collect().await?;
        Ok(Self { call, kept })
    }

    /// The document that nobody else changes.
    fn own(&self, caller: &Caller) -> &Kept {
        &self.kept[caller.number as usize]
    }

    async fn get(&self, client: &mut Client, caller: &Caller) -> anyhow::Result<()> {
        let kept = &self.kept[((caller.number * 7919 + caller.calls) % self.kept.len() as u64) as usize];
        let found = read(client, &kept.id).await?;
        ensure!(found.id == kept.id, "document {} came for {}", found.id, kept.id);
        let bytes = found.content.len();
        ensure!(bytes == CONTENT_BYTES, "document {} has {bytes} bytes of {CONTENT_BYTES}", kept.id);
        Ok(())
    }

    async fn list(&self, client: &mut Client, caller: &Caller) -> anyhow::Result<()> {
        let page = (caller.number + caller.calls) as usize % (self.kept.len() / LISTED);
        let (offset, limit) = ((page * LISTED) as i32, LISTED as i32);
        let request = ListDocumentsRequest { offset, limit, ..ListDocumentsRequest::default() };
        let answer = client.list_documents(request).await?.into_inner();
        let (count, total, kept) = (answer.documents.len(), answer.total, self.kept.len());
        ensure!(count == LISTED && total as usize == kept, "{count} documents were listed, of {total}, not of {kept}");
        Ok(())
    }

    async fn update(&self, client: &mut Client, caller: &Caller) -> anyhow::Result<()> {
        let kept = self.own(caller);
        let document = Document {
            id: kept.id.clone(),
            name: format!("renamed {}", caller.calls),
            version: kept.version.load(Ordering::Relaxed),
            updated_by: USER.to_owned(),
            ..Document::default()
        };
        let answer = client.update_document(UpdateDocumentRequest { document: Some(document) }).await?.into_inner();
        ensure!(answer.success, "a document was not renamed: {}", answer.error);
        kept.version.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn lock(&self, client: &mut Client, caller: &Caller) -> anyhow::Result<()> {
        let kept = self.own(caller);
        let request = AcquireLockRequest {
            doc_id: kept.id.clone(),
            user_id: USER.to_owned(),
            session_id: Uuid::now_v7().to_string(),
        };
        let answer = client.acquire_lock(request).await?.into_inner();
        let lock = answer.lock.with_context(|| format!("a lock was refused: {}", answer.error))?;
        ensure!(lock.doc_id == kept.id && lock.active && lock.fencing == 1, "{lock:?} came for document {}", kept.id);
        kept.is_locked.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Workload for Catalogue {
    type Client = Client;

    fn client(&self, wire: Wire) -> Client {
        Client::new(wire)
    }

    async fn call(&self, client: &mut Client, caller: &Caller) -> anyhow::Result<()> {
        match self.call {
            DocumentCall::Get => self.get(client, caller).await,
            DocumentCall::List => self.list(client, caller).await,
            DocumentCall::Update => self.update(client, caller).await,
            DocumentCall::Lock => self.lock(client, caller).await,
        }
    }

    async fn check(&self, wire: Wire) -> anyhow::Result<()> {
        let mut client = Client::new(wire);
        for kept in &self.kept {
            let (id, version) = (&kept.id, kept.version.load(Ordering::Relaxed));
            if self.call == DocumentCall::Update {
                let found = read(&mut client, id).await?.version;
                ensure!(found == version, "document {id} has version {found}, {version} was acknowledged");
            }
            if kept.is_locked.load(Ordering::Relaxed) {
                let locked = client.is_locked(IsLockedRequest { doc_id: id.clone() }).await?.into_inner().locked;
                ensure!(locked, "document {id} has lost its lock");
            }
        }
        Ok(())
    }
}

async fn read(client: &mut Client, doc_id: &str) -> anyhow::Result<Document> {
    let answer = client.get_document(GetDocumentRequest { doc_id: doc_id.to_owned() }).await?.into_inner();
    answer.document.context("the answer has no document")
}
