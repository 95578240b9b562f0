//! How a trace's transactions are carried in operations and recognised in events.

use std::collections::HashMap;

use anyhow::Context;
use proto::statesync::{OpMetadata, Operation, OperationEncoding};
use uuid::Uuid;

use super::Encoding;
use crate::replica::{Edit, Span};

/// The key of `OpMetadata.extra` that says which transactions an operation holds, as `agent:first:end`.
const SPAN_KEY: &str = "trace_span";

/// The key that names the characters it deletes ([`Edit::deleted`]).
pub(super) const DELETED_KEY: &str = "trace_deleted";
/// The key that names the characters after which it inserts ([`Edit::after`]).
pub(super) const AFTER_KEY: &str = "trace_after";
/// The services take 4096 bytes a value, and 64 values.
const NAME_BYTES_MAX: usize = 4096;
const NAME_PIECES_MAX: usize = 31;

/// Who sends operations, and to which document.
#[derive(Debug, Clone)]
pub(super) struct Author {
    pub(super) document: String,
    pub(super) user: String,
    pub(super) session: String,
}

/// The operation that carries `edit`; `sequence` counts the author's operations from 1.
pub(super) fn operation(author: &Author, span: Span, edit: Edit, encoding: Encoding, sequence: u64) -> Operation {
    let encoding = match encoding {
        Encoding::Yjs => OperationEncoding::YjsUpdateV1,
        Encoding::Json => OperationEncoding::Json,
    };
    let id = Uuid::now_v7().to_string();
    let mut extra = HashMap::from([(SPAN_KEY.to_owned(), format!("{}:{}:{}", span.agent, span.first, span.end))]);
    name(&mut extra, DELETED_KEY, &edit.deleted);
    name(&mut extra, AFTER_KEY, &edit.after);
    Operation {
        idempotency_key: id.clone(),
        id,
        doc_id: author.document.clone(),
        user_id: author.user.clone(),
        session_id: author.session.clone(),
        r#type: "text".to_owned(),
        data: edit.data,
        client_id: author.user.clone(),
        metadata: Some(OpMetadata { extra, ..OpMetadata::default() }),
        encoding: encoding.into(),
        session_sequence: sequence,
        ..Operation::default()
    }
}

/// The names under a key, put together again.
pub(super) fn named(operation: &Operation, key: &str) -> String {
    let Some(metadata) = &operation.metadata else { return String::new() };
    (0..NAME_PIECES_MAX).map_while(|piece| metadata.extra.get(&format!("{key}_{piece}"))).map(String::as_str).collect()
}

/// Puts names under a key, in pieces that the services take.
fn name(extra: &mut HashMap<String, String>, key: &str, names: &str) {
    for (piece, bytes) in names.as_bytes().chunks(NAME_BYTES_MAX).enumerate() {
        extra.insert(format!("{key}_{piece}"), String::from_utf8_lossy(bytes).into_owned());
    }
}

/// Which transactions an operation holds.
pub(super) fn span(operation: &Operation) -> anyhow::Result<Span> {
    let metadata = operation.metadata.as_ref();
    let text = metadata.and_then(|metadata| metadata.extra.get(SPAN_KEY));
    let text = text.context("an operation that belongs to no transaction of the trace")?;
    let mut numbers = text.split(':');
    let mut next = || numbers.next().with_context(|| format!("{SPAN_KEY} {text:?} is not agent:first:end"));
    let (agent, first, end) = (next()?.parse()?, next()?.parse()?, next()?.parse()?);
    Ok(Span { agent, first, end })
}
