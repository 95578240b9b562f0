//! What a document holds, and how an operation changes it.

use bytes::Bytes;
use proto::statesync as pb;
use tonic::{Code, Status};

use super::model::{DATA_BYTES_MAX, DocumentRecord, LogRow, Snapshot, Submission};
use super::text::{Author, Logged, Payload, TextEngine, TextError, decode_payload, encode_edits};
use crate::status::{invalid, with_info};

/// The content of one document in memory.
pub(super) enum Content {
    /// A text that merges.
    Text(Box<TextEngine>),
    /// Bytes that are kept as given.
    Opaque(Bytes),
}

/// What an operation did to the content.
pub(super) struct Outcome {
    /// The operation in JSON, relative to the state before it.
    pub data: Bytes,
    /// The same as a Yjs update; empty for opaque content.
    pub update: Bytes,
    /// The base and the data as they were sent, where they do not follow from the rest.
    pub(super) sent: Option<(u64, Bytes)>,
}

/// Why an operation was refused.
pub(super) enum Refusal {
    /// The client is told; the document is as before.
    Status(Status),
    /// The document's memory can no longer be trusted and has to be read from disk again.
    Broken(&'static str),
}

impl Content {
    /// The content of a document that does not exist yet, as a snapshot.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if a text is not UTF-8.
    pub(super) fn initial_snapshot(kind: &str, content: &Bytes, yjs_client: u64) -> Result<Snapshot, Status> {
        if kind != "text" {
            return Ok(Snapshot { version: 1, typed: false, state: content.clone() });
        }
        let text =
            std::str::from_utf8(content).map_err(|_| invalid("content", "a text document's content is UTF-8"))?;
        let failed = |error: TextError| invalid("content", error.to_string());
        let mut engine = TextEngine::restore(yjs_client, &[], 0).map_err(failed)?;
        engine.replace(text, Author { version: 1, session: 1 }).map_err(failed)?;
        Ok(Snapshot { version: 1, typed: true, state: engine.state().into() })
    }

    /// Restores the content from the stored snapshot and the log rows from `floor` on.
    ///
    /// # Errors
    /// [`TextError::Broken`] if the snapshot or a row cannot be read.
    pub(super) fn restore(record: &DocumentRecord, yjs_client: u64, log: &[LogRow]) -> Result<Self, TextError> {
        let newer = log.iter().filter(|row| row.operation.version > record.snapshot.version && !row.quiet);
        if record.kind != "text" {
            let last = newer.last().map_or_else(|| record.snapshot.state.clone(), |row| row.operation.data.clone());
            return Ok(Self::Opaque(last));
        }
        let mut engine = TextEngine::restore(yjs_client, &record.snapshot.state, record.snapshot.version)?;
        for row in newer {
            engine.replay(&row.update)?;
        }
        engine.finish_restore(record.version);
        Ok(Self::Text(Box::new(engine)))
    }

    /// Gives the text's window the history in `log`, whose rows follow version `floor`.
    pub(super) fn restore_window(&mut self, floor: u64, log: &[LogRow], session: impl Fn(&LogRow) -> u32) {
        let Self::Text(engine) = self else { return };
        let edits_of = |data: &[u8]| match decode_payload(data) {
            Ok(Payload::Edits(edits)) => edits,
            _ => Vec::new(),
        };
        let logged = |row: &LogRow| Logged {
            author: Author { version: row.operation.version, session: session(row) },
            placed: edits_of(&row.operation.data),
            sent: row.sent.as_ref().map(|(base, data)| (*base, edits_of(data))),
        };
        engine.restore_window(floor, &log.iter().map(logged).collect::<Vec<_>>());
    }

    /// What a client reads.
    pub(super) fn bytes(&self) -> Bytes {
        match self {
            Self::Text(engine) => engine.content().into(),
            Self::Opaque(bytes) => bytes.clone(),
        }
    }

    /// The state to keep on disk; of a text also the state for subscribers that want updates.
    pub(super) fn snapshot(&mut self) -> Bytes {
        match self {
            Self::Text(engine) => {
                let state = engine.state();
                engine.set_state_bytes(state.len());
                state.into()
            }
            Self::Opaque(bytes) => bytes.clone(),
        }
    }

    /// Whether there is a Yjs document.
    pub(super) fn is_typed(&self) -> bool {
        matches!(self, Self::Text(_))
    }

    /// Applies an operation that makes `author.version`. The flag tells that the content has to be kept as a whole, because
    /// operations do not lead to it.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(super) fn apply(&mut self, submission: &Submission, author: Author) -> Result<(Outcome, bool), Refusal> {
        let current = author.version - 1;
        let operation = &submission.operation;
        if operation.prev_version > current {
            return Err(Refusal::Status(version_refusal(operation.prev_version, current)));
        }
        match self {
            Self::Text(engine) => apply_to_text(engine, submission, author).map(|outcome| (outcome, false)),
            Self::Opaque(content) => {
                check_opaque(submission, current)?;
                content.clone_from(&operation.data);
                Ok((Outcome { data: operation.data.clone(), update: Bytes::new(), sent: None }, false))
            }
        }
    }

    /// Replaces the whole content, as an operation that makes `author.version`; the flag is as in [`apply`](Self::apply).
    ///
    /// # Errors
    /// [`Refusal`].
    pub(super) fn replace(&mut self, content: &Bytes, author: Author) -> Result<(Outcome, bool), Refusal> {
        match self {
            Self::Text(engine) => {
                let text = std::str::from_utf8(content)
                    .map_err(|_| Refusal::Status(invalid("document.content", "a text document's content is UTF-8")))?;
                let change =
                    engine.replace(text, author).map_err(|error| refusal_of_text(&error, author.version - 1))?;
                let data = encode_edits(&change.edits).into();
                Ok((Outcome { data, update: change.update, sent: None }, false))
            }
            Self::Opaque(opaque) => {
                opaque.clone_from(content);
                Ok((Outcome { data: content.clone(), update: Bytes::new(), sent: None }, false))
            }
        }
    }

    /// What a version that leaves the content as it is has in the log.
    pub(super) fn no_change(&self) -> Outcome {
        let data = match self {
            Self::Text(_) => encode_edits(&[]).into(),
            Self::Opaque(_) => Bytes::new(),
        };
        Outcome { data, update: Bytes::new(), sent: None }
    }
}

/// Why a write that names another version than the current one is refused.
pub(super) fn version_refusal(named: u64, current: u64) -> Status {
    if named > current {
        precondition_status(&format!("prev_version {named} is ahead of the document"), "VERSION_AHEAD", current)
    } else {
        stale_status(named, current)
    }
}

fn apply_to_text(engine: &mut TextEngine, submission: &Submission, author: Author) -> Result<Outcome, Refusal> {
    let current = author.version - 1;
    let operation = &submission.operation;
    let refused = |error| refusal_of_text(&error, current);
    let mut sent = None;
    let change = if submission.encoding == pb::OperationEncoding::YjsUpdateV1 {
        engine.apply_update(&operation.data, author).map_err(refused)?
    } else {
        match operation.r#type.as_str() {
            "resize" => return Err(Refusal::Status(invalid("operation.type", "a text has no size to change"))),
            "style" => return Err(not_yet("style operations in JSON; send marks as a Yjs update")),
            _ => {}
        }
        match decode_payload(&operation.data).map_err(refused)? {
            Payload::Edits(edits) => {
                let change = engine.apply_edits(&edits, operation.prev_version, author).map_err(refused)?;
                if change.edits != edits {
                    sent = Some((operation.prev_version, operation.data.clone()));
                }
                change
            }
            Payload::Replace(_) if operation.prev_version != current => {
                return Err(stale(operation.prev_version, current));
            }
            Payload::Replace(content) => engine.replace(&content, author).map_err(refused)?,
        }
    };
    Ok(Outcome { data: encode_edits(&change.edits).into(), update: change.update, sent })
}

fn check_opaque(submission: &Submission, current: u64) -> Result<(), Refusal> {
    let operation = &submission.operation;
    if submission.encoding == pb::OperationEncoding::YjsUpdateV1 {
        return Err(not_yet("Yjs updates of whiteboards, canvases and sheets"));
    }
    let typed = serde_json::from_slice::<serde_json::Value>(&operation.data)
        .is_ok_and(|value| value.get("id").is_some() && value.get("set").is_some());
    if typed {
        return Err(not_yet("typed operations on whiteboards, canvases and sheets"));
    }
    if operation.prev_version != current {
        return Err(stale(operation.prev_version, current));
    }
    if operation.data.len() > DATA_BYTES_MAX {
        return Err(Refusal::Status(invalid("operation.data", "is too large")));
    }
    Ok(())
}

fn refusal_of_text(error: &TextError, current: u64) -> Refusal {
    let message = error.to_string();
    match error {
        TextError::Invalid(_) => Refusal::Status(invalid("operation.data", message.trim_start_matches("data: "))),
        TextError::MissingDependency(_) => precondition(&message, "MISSING_DEPENDENCY", current),
        TextError::TooOld(_) => precondition(&message, "VERSION_TOO_OLD", current),
        TextError::Full(_) => Refusal::Status(with_info(Code::ResourceExhausted, message, "DOCUMENT_FULL", &[])),
        TextError::Broken(what) => Refusal::Broken(what),
    }
}

fn precondition(message: &str, reason: &str, current: u64) -> Refusal {
    Refusal::Status(precondition_status(message, reason, current))
}

fn precondition_status(message: &str, reason: &str, current: u64) -> Status {
    let metadata = [("current_version", current.to_string())];
    let message = format!("{message}; the document is at version {current}");
    with_info(Code::FailedPrecondition, message, reason, &metadata)
}

fn stale(prev_version: u64, current: u64) -> Refusal {
    Refusal::Status(stale_status(prev_version, current))
}

fn stale_status(prev_version: u64, current: u64) -> Status {
    let message = format!(
        "replacing what version {prev_version} had would undo what others did since; the document is at version {current}: \
         read it and try again"
    );
    with_info(Code::Aborted, message, "VERSION_CONFLICT", &[("current_version", current.to_string())])
}

fn not_yet(what: &str) -> Refusal {
    Refusal::Status(with_info(Code::Unimplemented, format!("this server does not take {what}"), "NOT_IMPLEMENTED", &[]))
}
