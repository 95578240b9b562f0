//! Documents and operations as the service keeps them, and the checks of what clients send.

use bytes::Bytes;
use proto::statesync as pb;
use tonic::Status;
use uuid::Uuid;

use super::strategy;
use crate::auth::Asker;
use crate::clock::{HybridTime, UnixMicros, timestamp};
use crate::status::{self, bounded, invalid, required};

/// The most bytes in the data of one operation, and in opaque content.
pub(super) const DATA_BYTES_MAX: usize = 1 << 20;
/// The most bytes in a name, a user id and the like.
pub(super) const NAME_BYTES_MAX: usize = 255;
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;
const METADATA_ENTRIES_MAX: usize = 64;
const METADATA_VALUE_BYTES_MAX: usize = 4096;
const PERMITTED_USERS_MAX: usize = 1000;

/// Document types.
pub(super) const DOCUMENT_TYPES: [&str; 4] = ["whiteboard", "text", "canvas", "sheet"];
/// Document states.
pub(super) const DOCUMENT_STATES: [&str; 3] = ["active", "archived", "deleted"];
const OPERATION_TYPES: [&str; 8] = ["create", "update", "delete", "move", "resize", "style", "text", "insert"];

/// A document as it is stored.
#[derive(Debug, Clone)]
pub struct DocumentRecord {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its type, one of [`DOCUMENT_TYPES`].
    pub kind: String,
    /// "active", "archived" or "deleted".
    pub state: String,
    /// From 1.
    pub version: u64,
    /// Names the version line.
    pub epoch: String,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: UnixMicros,
    /// Who changed it last.
    pub updated_by: String,
    /// When.
    pub updated_at: UnixMicros,
    /// Tags, description, permissions.
    pub metadata: pb::Metadata,
    /// The version that last changed name, state or metadata.
    pub described_version: u64,
    /// The lock that was taken last; it may have been released or have expired.
    pub lock: Option<LockRecord>,
    /// The content at some version.
    pub snapshot: Snapshot,
}

/// A document's content as it was at one version.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The version.
    pub version: u64,
    /// Whether `state` is a Yjs update of everything; otherwise it is the content as it was given.
    pub typed: bool,
    /// The content.
    pub state: Bytes,
}

/// A lock on a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockRecord {
    /// Its id.
    pub id: Uuid,
    /// Who holds it.
    pub user_id: String,
    /// For which session; may be empty.
    pub session_id: String,
    /// When it was taken or last renewed.
    pub acquired_at: UnixMicros,
    /// When it frees itself; 0 once it was released.
    pub expires_at: UnixMicros,
    /// Larger than that of every lock of this document before it.
    pub fencing: u64,
}

impl LockRecord {
    /// Whether it holds at `now`.
    pub fn holds(&self, now: UnixMicros) -> bool {
        self.expires_at > now
    }

    /// Its form on the wire.
    pub fn to_proto(&self, doc_id: Uuid, now: UnixMicros) -> pb::Lock {
        pb::Lock {
            id: self.id.to_string(),
            doc_id: doc_id.to_string(),
            user_id: self.user_id.clone(),
            session_id: self.session_id.clone(),
            acquired_at: Some(timestamp(self.acquired_at)),
            expires_at: Some(timestamp(self.expires_at)),
            active: self.holds(now),
            fencing: self.fencing,
        }
    }
}

/// A conflict and, if an operation waits in it, what tells a repetition of that operation.
#[derive(Debug, Clone)]
pub struct ConflictRecord {
    /// Its id.
    pub id: Uuid,
    /// When it was found.
    pub created_at: UnixMicros,
    /// As clients see it; the operation that waits, if one does, is the last of `ops`.
    pub conflict: pb::Conflict,
    /// Of the operation that waits or waited for a decision.
    pub pending: Option<Pending>,
}

impl ConflictRecord {
    /// Whether it was decided.
    pub fn is_resolved(&self) -> bool {
        self.conflict.resolved_at.is_some()
    }
}

/// What tells a repetition of an operation that waits, and where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Its id.
    pub op_id: Uuid,
    /// Its idempotency key; may be empty.
    pub idempotency_key: String,
    /// Of what the client sent.
    pub digest: [u8; 32],
    /// The document's version when the operation began to wait; none of one that did before that was kept.
    pub since: Option<u64>,
}

impl DocumentRecord {
    /// Its form on the wire.
    pub fn to_proto(&self, content: Bytes, active_users: Vec<String>) -> pb::Document {
        pb::Document {
            id: self.id.to_string(),
            name: self.name.clone(),
            r#type: self.kind.clone(),
            state: self.state.clone(),
            version: self.version,
            content,
            created_by: self.created_by.clone(),
            created_at: Some(timestamp(self.created_at)),
            updated_at: Some(timestamp(self.updated_at)),
            updated_by: self.updated_by.clone(),
            active_users,
            metadata: Some(self.metadata.clone()),
        }
    }
}

/// One accepted operation.
#[derive(Debug, Clone)]
pub struct LogRow {
    /// As it is given out: JSON, relative to the state after version - 1.
    pub operation: pb::Operation,
    /// Its id.
    pub op_id: Uuid,
    /// Its writer.
    pub session_id: Uuid,
    /// Empty if there is none.
    pub idempotency_key: String,
    /// Of what the client sent.
    pub digest: [u8; 32],
    /// When, in hybrid logical time.
    pub time: HybridTime,
    /// The number of its event.
    pub sequence: u64,
    /// As a Yjs update; empty for opaque content.
    pub update: Bytes,
    /// It made a version without changing the content.
    pub quiet: bool,
    /// The base and the data as they were sent, where that is not what `operation` has.
    pub(super) sent: Option<(u64, Bytes)>,
}

impl LogRow {
    /// The row of an operation that is given out as its client sent it and changes no mergeable content.
    pub fn new(operation: pb::Operation, op_id: Uuid, session_id: Uuid, time: HybridTime) -> Self {
        Self {
            digest: digest(&operation),
            sequence: operation.version,
            op_id,
            session_id,
            idempotency_key: String::new(),
            time,
            update: Bytes::new(),
            quiet: false,
            sent: None,
            operation,
        }
    }
}

/// An operation of a client that passed the checks that need no document.
#[derive(Debug)]
pub(super) struct Submission {
    /// As sent.
    pub operation: pb::Operation,
    /// Who sent it.
    pub asker: Asker,
    /// The document.
    pub doc_id: Uuid,
    /// Its id, minted if the client sent none.
    pub op_id: Uuid,
    /// Whether the client chose the id.
    pub id_given: bool,
    /// Its writer.
    pub session_id: Uuid,
    /// How its data is written.
    pub encoding: pb::OperationEncoding,
    /// Of what makes two operations equal.
    pub digest: [u8; 32],
}

impl Submission {
    /// Checks an operation.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` or `RESOURCE_EXHAUSTED`.
    pub(super) fn check(operation: Option<pb::Operation>) -> Result<Self, Status> {
        let operation = operation.ok_or_else(|| invalid("operation", "is required"))?;
        let doc_id = status::uuid("operation.doc_id", &operation.doc_id)?;
        required("operation.user_id", &operation.user_id, NAME_BYTES_MAX)?;
        let session_id = status::uuid("operation.session_id", &operation.session_id)?;
        bounded("operation.client_id", &operation.client_id, NAME_BYTES_MAX)?;
        bounded("operation.idempotency_key", &operation.idempotency_key, IDEMPOTENCY_KEY_BYTES_MAX)?;
        one_of("operation.type", &operation.r#type, &OPERATION_TYPES)?;
        let Ok(encoding) = pb::OperationEncoding::try_from(operation.encoding) else {
            return Err(invalid("operation.encoding", "is neither 0 (JSON) nor 1 (Yjs update v1)"));
        };
        if operation.data.len() > DATA_BYTES_MAX {
            return Err(invalid("operation.data", format!("has more than {DATA_BYTES_MAX} bytes")));
        }
        check_operation_metadata(operation.metadata.as_ref())?;
        let id_given = !operation.id.is_empty();
        let op_id = if id_given { status::uuid("operation.id", &operation.id)? } else { Uuid::now_v7() };
        let digest = digest(&operation);
        Ok(Self { operation, asker: Asker::default(), doc_id, op_id, id_given, session_id, encoding, digest })
    }

    /// Whether the client can name it when it sends it again.
    pub(super) fn is_named(&self) -> bool {
        self.id_given || !self.operation.idempotency_key.is_empty()
    }
}

/// SHA-256 over what makes two operations equal, each part with its length.
fn digest(operation: &pb::Operation) -> [u8; 32] {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    let numbers = [operation.prev_version, operation.encoding as u64, operation.session_sequence];
    for text in [&operation.user_id, &operation.session_id, &operation.r#type] {
        context.update(&(text.len() as u64).to_be_bytes());
        context.update(text.as_bytes());
    }
    for number in numbers {
        context.update(&number.to_be_bytes());
    }
    context.update(&operation.data);
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn check_operation_metadata(metadata: Option<&pb::OpMetadata>) -> Result<(), Status> {
    let Some(metadata) = metadata else { return Ok(()) };
    bounded("operation.metadata.ip", &metadata.ip, NAME_BYTES_MAX)?;
    bounded("operation.metadata.user_agent", &metadata.user_agent, 1024)?;
    bounded("operation.metadata.platform", &metadata.platform, NAME_BYTES_MAX)?;
    check_map("operation.metadata.extra", &metadata.extra)
}

fn check_map(field: &str, map: &std::collections::HashMap<String, String>) -> Result<(), Status> {
    if map.len() > METADATA_ENTRIES_MAX {
        return Err(invalid(field, format!("has more than {METADATA_ENTRIES_MAX} entries")));
    }
    for (key, value) in map {
        required(field, key, 128)?;
        bounded(field, value, METADATA_VALUE_BYTES_MAX)?;
    }
    Ok(())
}

/// Checks a request to create a document.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub(super) fn check_create(request: &pb::CreateDocumentRequest) -> Result<(), Status> {
    required("name", &request.name, NAME_BYTES_MAX)?;
    required("created_by", &request.created_by, NAME_BYTES_MAX)?;
    one_of("type", &request.r#type, &DOCUMENT_TYPES)?;
    if request.content.len() > DATA_BYTES_MAX {
        return Err(invalid("content", format!("has more than {DATA_BYTES_MAX} bytes")));
    }
    check_metadata(request.metadata.as_ref())
}

/// Checks that a text is one of a closed set.
///
/// # Errors
/// `INVALID_ARGUMENT` that names `field` and the set.
pub(super) fn one_of(field: &str, value: &str, set: &[&str]) -> Result<(), Status> {
    if set.contains(&value) { Ok(()) } else { Err(invalid(field, format!("is not one of {}", set.join(", ")))) }
}

/// Checks a request to change a document's description.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub(super) fn check_update(document: &pb::Document) -> Result<Uuid, Status> {
    let id = status::uuid("document.id", &document.id)?;
    bounded("document.name", &document.name, NAME_BYTES_MAX)?;
    required("document.updated_by", &document.updated_by, NAME_BYTES_MAX)?;
    if document.version == 0 {
        return Err(invalid("document.version", "is required: send the version that you read and changed"));
    }
    if !document.state.is_empty() {
        one_of("document.state", &document.state, &DOCUMENT_STATES)?;
    }
    if document.content.len() > DATA_BYTES_MAX {
        return Err(invalid("document.content", format!("has more than {DATA_BYTES_MAX} bytes")));
    }
    check_metadata(document.metadata.as_ref())?;
    Ok(id)
}

fn check_metadata(metadata: Option<&pb::Metadata>) -> Result<(), Status> {
    let Some(metadata) = metadata else { return Ok(()) };
    bounded("metadata.description", &metadata.description, METADATA_VALUE_BYTES_MAX)?;
    check_list("metadata.tags", &metadata.tags, METADATA_ENTRIES_MAX)?;
    check_map("metadata.properties", &metadata.properties)?;
    if let Some(rule) = metadata.properties.get(strategy::PROPERTY) {
        one_of("metadata.properties.conflict_resolution", rule, &strategy::RULES)?;
    }
    let Some(permissions) = &metadata.permissions else { return Ok(()) };
    bounded("metadata.permissions.owner", &permissions.owner, NAME_BYTES_MAX)?;
    check_list("metadata.permissions.editors", &permissions.editors, PERMITTED_USERS_MAX)?;
    check_list("metadata.permissions.viewers", &permissions.viewers, PERMITTED_USERS_MAX)
}

fn check_list(field: &str, list: &[String], entries_max: usize) -> Result<(), Status> {
    if list.len() > entries_max {
        return Err(invalid(field, format!("has more than {entries_max} entries")));
    }
    list.iter().try_for_each(|entry| bounded(field, entry, NAME_BYTES_MAX))
}

/// The metadata of a new document: as asked for, with the creator as owner unless another is named.
pub(super) fn metadata_of_new(request: Option<pb::Metadata>, created_by: &str) -> pb::Metadata {
    let mut metadata = request.unwrap_or_default();
    let permissions = metadata.permissions.get_or_insert_default();
    if permissions.owner.is_empty() {
        created_by.clone_into(&mut permissions.owner);
    }
    metadata
}

/// Everybody whom a document's permissions name, and whether it is public.
pub(super) fn readers(record: &DocumentRecord) -> (std::collections::BTreeSet<&str>, bool) {
    let permissions = record.metadata.permissions.as_ref();
    let named = permissions.iter().flat_map(|permissions| {
        std::iter::once(&permissions.owner).chain(&permissions.editors).chain(&permissions.viewers)
    });
    let users = std::iter::once(&record.created_by).chain(named).map(String::as_str).filter(|user| !user.is_empty());
    (users.collect(), permissions.is_some_and(|permissions| permissions.public))
}
