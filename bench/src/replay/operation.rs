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
const DELETED_KEY: &str = "trace_deleted";

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
    if !edit.deleted.is_empty() {
        extra.insert(DELETED_KEY.to_owned(), edit.deleted);
    }
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

/// The names of the characters that an operation deletes.
pub(super) fn deleted(operation: &Operation) -> String {
    let extra = operation.metadata.as_ref().and_then(|metadata| metadata.extra.get(DELETED_KEY));
    extra.cloned().unwrap_or_default()
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
