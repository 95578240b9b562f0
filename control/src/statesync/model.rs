//! Documents and operations as the service keeps them, and the checks of what clients send.

use bytes::Bytes;
use proto::statesync as pb;
use tonic::Status;
use uuid::Uuid;

use crate::clock::{HybridTime, UnixMicros, timestamp};
use crate::status::{self, bounded, invalid, required};
use crate::store::StoreError;

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
    /// The version that `snapshot` is of.
    pub snapshot_version: u64,
    /// A text's whole state as a Yjs update, or opaque content.
    pub snapshot: Bytes,
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
#[derive(Debug)]
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
    /// The base and the data as they were sent, where that is not what `operation` has.
    pub(super) sent: Option<(u64, Bytes)>,
}

/// How far a document's log is on disk.
#[derive(Debug, Clone, Default)]
pub struct Durability {
    /// Up to this version.
    pub version: u64,
    /// A write failed; nothing after `version` will get there.
    pub failed: Option<StoreError>,
}

/// An operation of a client that passed the checks that need no document.
#[derive(Debug)]
pub(super) struct Submission {
    /// As sent.
    pub operation: pb::Operation,
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
        if !OPERATION_TYPES.contains(&operation.r#type.as_str()) {
            return Err(invalid("operation.type", format!("is not one of {}", OPERATION_TYPES.join(", "))));
        }
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
        Ok(Self { operation, doc_id, op_id, id_given, session_id, encoding, digest })
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
    if !DOCUMENT_TYPES.contains(&request.r#type.as_str()) {
        return Err(invalid("type", format!("is not one of {}", DOCUMENT_TYPES.join(", "))));
    }
    if request.content.len() > DATA_BYTES_MAX {
        return Err(invalid("content", format!("has more than {DATA_BYTES_MAX} bytes")));
    }
    let Some(metadata) = &request.metadata else { return Ok(()) };
    bounded("metadata.description", &metadata.description, METADATA_VALUE_BYTES_MAX)?;
    check_list("metadata.tags", &metadata.tags, METADATA_ENTRIES_MAX)?;
    check_map("metadata.properties", &metadata.properties)?;
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
