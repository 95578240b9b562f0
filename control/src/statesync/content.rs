//! What a document holds, and how an operation changes it.

use bytes::Bytes;
use proto::statesync as pb;
use tonic::{Code, Status};

use super::items::{self, Clash, ItemsEngine, ItemsError, Parsed, Root};
use super::model::{DocumentRecord, LogRow, Snapshot, Submission};
use super::strategy::{Rule, Strategy};
use super::text::{Author, Change, Logged, Mark, Payload, Seen, TextEngine, TextError, decode_payload, encode_edits};
use crate::status::{invalid, with_info};

/// Versions named in a conflict with a replacement of everything.
const REPLACED_VERSIONS_MAX: u64 = 16;

/// The content of one document in memory.
pub(super) enum Content {
    /// A text that merges.
    Text(Box<TextEngine>),
    /// The elements of a whiteboard or a canvas, or the cells, rows and columns of a sheet.
    Items(Box<ItemsEngine>),
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

impl Outcome {
    fn new(data: impl Into<Bytes>, update: Bytes) -> Self {
        Self { data: data.into(), update, sent: None }
    }
}

/// What became of an operation that could be applied.
pub(super) enum Verdict {
    /// It was. `keep` tells that the content has to be kept as a whole, because operations do not lead to it; `clashes` are the
    /// writes that it did not know and won over.
    Applied { outcome: Outcome, keep: bool, clashes: Vec<Clash> },
    /// It lost against these writes, which it did not know.
    Lost(Vec<Clash>),
    /// Somebody has to decide between it and these writes, which it did not know.
    Waits(Vec<Clash>),
}

/// Why an operation was refused.
pub(super) enum Refusal {
    /// The client is told; the document is as before.
    Status(Status),
    /// The document's memory can no longer be trusted and has to be read from disk again.
    Broken(&'static str),
}

/// How an operation is to be applied.
#[derive(Clone, Copy)]
pub(super) struct Applying<'a> {
    /// The version that it makes and who wrote it.
    pub(super) author: Author,
    /// What its writer had seen.
    pub(super) seen: Seen,
    /// What happens where it touches what it did not know.
    pub(super) strategy: Strategy,
    /// The document's type.
    pub(super) kind: &'a str,
    /// The server's own Yjs client id in the document.
    pub(super) yjs_client: u64,
}

impl Content {
    /// The content of a document that does not exist yet, as a snapshot.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if a text is not UTF-8.
    pub(super) fn initial_snapshot(kind: &str, content: &Bytes, yjs_client: u64) -> Result<Snapshot, Status> {
        let author = Author { version: 1, session: 1 };
        let typed = |state: Vec<u8>| Snapshot { version: 1, typed: true, state: state.into() };
        if kind == "text" {
            let text =
                std::str::from_utf8(content).map_err(|_| invalid("content", "a text document's content is UTF-8"))?;
            let failed = |error: TextError| invalid("content", error.to_string());
            let mut engine = TextEngine::restore(yjs_client, &[], 0).map_err(failed)?;
            engine.replace(text, author).map_err(failed)?;
            return Ok(typed(engine.state()));
        }
        let Some(items) = items::parse_content(Root::of(kind), content) else {
            return Ok(Snapshot { version: 1, typed: false, state: content.clone() });
        };
        let failed = |error: ItemsError| invalid("content", error.to_string());
        let mut engine = ItemsEngine::restore(kind, yjs_client, &[], 0).map_err(failed)?;
        engine.replace(items, author).map_err(failed)?;
        Ok(typed(engine.state()))
    }

    /// Restores the content from the stored snapshot and the log rows from `floor` on.
    ///
    /// # Errors
    /// [`TextError::Broken`] if the snapshot or a row cannot be read.
    pub(super) fn restore(record: &DocumentRecord, yjs_client: u64, log: &[LogRow]) -> Result<Self, TextError> {
        let snapshot = &record.snapshot;
        let newer = log.iter().filter(|row| row.operation.version > snapshot.version && !row.quiet);
        if record.kind == "text" {
            let mut engine = TextEngine::restore(yjs_client, &snapshot.state, snapshot.version)?;
            for row in newer {
                engine.replay(&row.update)?;
            }
            engine.finish_restore(record.version);
            return Ok(Self::Text(Box::new(engine)));
        }
        if !snapshot.typed {
            let last = newer.last().map_or_else(|| snapshot.state.clone(), |row| row.operation.data.clone());
            return Ok(Self::Opaque(last));
        }
        let broken = |_| TextError::Broken("the stored items cannot be read");
        let mut engine =
            ItemsEngine::restore(&record.kind, yjs_client, &snapshot.state, record.version).map_err(broken)?;
        for row in newer {
            engine.replay(&row.update).map_err(broken)?;
        }
        Ok(Self::Items(Box::new(engine)))
    }

    /// Gives the content the history in `log`, whose rows follow version `floor`.
    pub(super) fn restore_window(&mut self, floor: u64, log: &[LogRow], session: impl Fn(&LogRow) -> u32) {
        let author = |row: &LogRow| Author { version: row.operation.version, session: session(row) };
        match self {
            Self::Opaque(_) => {}
            Self::Items(engine) => {
                let roots = engine.roots();
                let rows = log.iter().filter(|row| !row.quiet);
                let changes = |row: &LogRow| match items::parse(&row.operation.r#type, &roots, &row.operation.data) {
                    Ok(Parsed::Changes(changes)) => Some(changes),
                    // A list of no changes is of an operation that had nothing left to do.
                    _ if row.operation.data.as_ref() == b"[]" => Some(Vec::new()),
                    _ => None,
                };
                engine.restore_history(floor, rows.map(|row| (author(row), changes(row))));
            }
            Self::Text(engine) => {
                let edits_of = |data: &[u8]| match decode_payload(data) {
                    Ok(Payload::Edits(edits)) => edits,
                    _ => Vec::new(),
                };
                let logged = |row: &LogRow| Logged {
                    author: author(row),
                    placed: edits_of(&row.operation.data),
                    sent: row.sent.as_ref().map(|(base, data)| (*base, edits_of(data))),
                    overwrote: row.operation.status == "resolved",
                };
                engine.restore_window(floor, &log.iter().map(logged).collect::<Vec<_>>());
            }
        }
    }

    /// What a client reads.
    pub(super) fn bytes(&self) -> Bytes {
        match self {
            Self::Text(engine) => engine.content().into(),
            Self::Items(engine) => engine.content().into(),
            Self::Opaque(bytes) => bytes.clone(),
        }
    }

    /// The state to keep on disk; of typed content also the state for subscribers that want updates.
    pub(super) fn snapshot(&mut self) -> Bytes {
        match self {
            Self::Text(engine) => {
                let state = engine.state();
                engine.set_state_bytes(state.len());
                state.into()
            }
            Self::Items(engine) => engine.state().into(),
            Self::Opaque(bytes) => bytes.clone(),
        }
    }

    /// Whether there is a Yjs document.
    pub(super) fn is_typed(&self) -> bool {
        !matches!(self, Self::Opaque(_))
    }

    /// Applies an operation.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(super) fn apply(&mut self, submission: &Submission, how: Applying<'_>) -> Result<Verdict, Refusal> {
        let current = how.author.version - 1;
        let operation = &submission.operation;
        if operation.prev_version > current {
            return Err(Refusal::Status(version_refusal(operation.prev_version, current)));
        }
        if let Self::Text(engine) = self {
            return apply_to_text(engine, submission, how);
        }
        if submission.encoding == pb::OperationEncoding::YjsUpdateV1 {
            return self.apply_items_update(submission, how);
        }
        let parsed = items::parse(&operation.r#type, Root::of(how.kind), &operation.data);
        match parsed.map_err(|error| refusal_of_items(&error, current))? {
            Parsed::Changes(changes) => self.apply_changes(changes, how),
            Parsed::Replace => match replacement(operation.prev_version, how)? {
                Replacement::Waits(clashes) => Ok(Verdict::Waits(clashes)),
                Replacement::Wins(clashes) => {
                    let (outcome, keep) = self.replace(&operation.data, how)?;
                    Ok(Verdict::Applied { outcome, keep, clashes })
                }
            },
        }
    }

    fn apply_changes(&mut self, mut changes: Vec<items::Change>, how: Applying<'_>) -> Result<Verdict, Refusal> {
        let current = how.author.version - 1;
        let refused = |error| refusal_of_items(&error, current);
        if let Self::Opaque(content) = self {
            if !is_blank(content) {
                return Err(opaque(current));
            }
            let mut engine = ItemsEngine::restore(how.kind, how.yjs_client, &[], current).map_err(refused)?;
            let latest = Seen::of(current, how.author.session);
            let (changes, update) = engine.apply(changes, latest, how.author).map_err(refused)?;
            *self = Self::Items(Box::new(engine));
            let outcome = Outcome::new(items::encode(&changes), update);
            return Ok(Verdict::Applied { outcome, keep: true, clashes: Vec::new() });
        }
        let Self::Items(engine) = self else { return Err(Refusal::Broken("the content is of another type")) };
        let clashes = engine.clashes(&changes, how.seen).map_err(refused)?;
        if !clashes.is_empty() && how.strategy.rule == Rule::Manual {
            return Ok(Verdict::Waits(clashes));
        }
        // A deletion wins over a change that did not know it.
        let deleted: Vec<&str> =
            clashes.iter().filter(|clash| clash.deletion).map(|clash| clash.place.as_str()).collect();
        changes.retain(|change| !deleted.contains(&change.item().as_str()));
        if changes.is_empty() {
            return Ok(Verdict::Lost(clashes));
        }
        let (changes, update) = engine.apply(changes, how.seen, how.author).map_err(refused)?;
        let outcome = Outcome::new(items::encode(&changes), update);
        Ok(Verdict::Applied { outcome, keep: false, clashes })
    }

    /// Merges a Yjs update. The CRDT's result stands whatever the strategy: a Yjs client has it already.
    fn apply_items_update(&mut self, submission: &Submission, how: Applying<'_>) -> Result<Verdict, Refusal> {
        let (operation, current) = (&submission.operation, how.author.version - 1);
        let refused = |error| refusal_of_items(&error, current);
        let mut fresh = None;
        let engine = match self {
            Self::Items(engine) => engine,
            Self::Text(_) => return Err(Refusal::Broken("the content is of another type")),
            Self::Opaque(content) => {
                if !is_blank(content) {
                    return Err(opaque(current));
                }
                let engine = ItemsEngine::restore(how.kind, how.yjs_client, &[], current).map_err(refused)?;
                fresh.insert(Box::new(engine))
            }
        };
        let merged = engine.apply_update(&operation.data, operation.prev_version, how.author);
        let (changes, clashes, update) = merged.map_err(refused)?;
        let keep = fresh.is_some();
        if let Some(engine) = fresh {
            *self = Self::Items(engine);
        }
        let outcome = Outcome::new(items::encode_each(&changes), update);
        Ok(Verdict::Applied { outcome, keep, clashes })
    }

    /// Replaces the whole content; the flag tells that it has to be kept as a whole.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(super) fn replace(&mut self, content: &Bytes, how: Applying<'_>) -> Result<(Outcome, bool), Refusal> {
        let current = how.author.version - 1;
        if let Self::Text(engine) = self {
            let text = std::str::from_utf8(content)
                .map_err(|_| Refusal::Status(invalid("document.content", "a text document's content is UTF-8")))?;
            let change = engine.replace(text, how.author).map_err(|error| refusal_of_text(&error, current))?;
            return Ok((Outcome::new(encode_edits(&change.edits), change.update), false));
        }
        let refused = |error| refusal_of_items(&error, current);
        match items::parse_content(Root::of(how.kind), content) {
            None => {
                let was_typed = self.is_typed();
                *self = Self::Opaque(content.clone());
                Ok((Outcome::new(content.clone(), Bytes::new()), was_typed))
            }
            Some(items) => {
                let was_typed = self.is_typed();
                if !was_typed {
                    let engine = ItemsEngine::restore(how.kind, how.yjs_client, &[], current).map_err(refused)?;
                    engine.check_forest(&items).map_err(refused)?;
                    *self = Self::Items(Box::new(engine));
                }
                let Self::Items(engine) = self else { return Err(Refusal::Broken("the content is of another type")) };
                let update = engine.replace(items, how.author).map_err(refused)?;
                Ok((Outcome::new(content.clone(), update), !was_typed))
            }
        }
    }

    /// What a version that leaves the content as it is has in the log.
    pub(super) fn no_change(&self) -> Outcome {
        match self {
            Self::Text(_) | Self::Items(_) => Outcome::new("[]", Bytes::new()),
            Self::Opaque(_) => Outcome::new(Bytes::new(), Bytes::new()),
        }
    }
}

/// Content that stands for nothing, which a first typed operation may build on.
fn is_blank(content: &[u8]) -> bool {
    matches!(content.trim_ascii(), b"" | b"{}" | b"[]" | b"null")
}

enum Replacement {
    Wins(Vec<Clash>),
    Waits(Vec<Clash>),
}

/// Whether a whole content may take the place of another. From an older version it may only where somebody chose so.
fn replacement(base: u64, how: Applying<'_>) -> Result<Replacement, Refusal> {
    let current = how.author.version - 1;
    if base == current {
        return Ok(Replacement::Wins(Vec::new()));
    }
    let first = base.max(current.saturating_sub(REPLACED_VERSIONS_MAX)) + 1;
    let clashes = (first..=current).map(|version| Clash { version, place: "content".into(), deletion: false });
    match how.strategy {
        Strategy { rule: Rule::Manual, .. } => Ok(Replacement::Waits(clashes.collect())),
        Strategy { rule: Rule::Lww, chosen: true, .. } => Ok(Replacement::Wins(clashes.collect())),
        _ => Err(stale(base, current)),
    }
}

fn apply_to_text(engine: &mut TextEngine, submission: &Submission, how: Applying<'_>) -> Result<Verdict, Refusal> {
    let (author, operation) = (how.author, &submission.operation);
    let current = author.version - 1;
    let refused = |error| refusal_of_text(&error, current);
    let applied = |outcome, clashes| Verdict::Applied { outcome, keep: false, clashes };
    let of_change = |change: Change| Outcome::new(encode_edits(&change.edits), change.update);
    if submission.encoding == pb::OperationEncoding::YjsUpdateV1 {
        let change = engine.apply_update(&operation.data, author).map_err(refused)?;
        return Ok(applied(of_change(change), Vec::new()));
    }
    match operation.r#type.as_str() {
        "resize" => return Err(Refusal::Status(invalid("operation.type", "a text has no size to change"))),
        "style" => {
            let mark = Mark::decode(&operation.data).map_err(refused)?;
            let (mark, update) = engine.mark(mark, operation.prev_version, author).map_err(refused)?;
            return Ok(applied(Outcome::new(mark.encode(), update), Vec::new()));
        }
        _ => {}
    }
    match decode_payload(&operation.data).map_err(refused)? {
        Payload::Edits(edits) => {
            let base = operation.prev_version;
            if how.seen.waited.is_some() {
                let (change, over) = engine.decide(&edits, how.seen, author).map_err(refused)?;
                return Ok(applied(of_change(change), clashes_of_text(over)));
            }
            if how.strategy.rule != Rule::Merge && base < current {
                let clashes = clashes_of_text(engine.overlaps(&edits, base, author).map_err(refused)?);
                if !clashes.is_empty() && how.strategy.rule == Rule::Manual {
                    return Ok(Verdict::Waits(clashes));
                }
                if !clashes.is_empty() {
                    let change = engine.overwrite(&edits, base, author).map_err(refused)?;
                    let sent = Some((base, operation.data.clone()));
                    return Ok(applied(Outcome { sent, ..of_change(change) }, clashes));
                }
            }
            let change = engine.apply_edits(&edits, base, author).map_err(refused)?;
            let sent = (change.edits != edits).then(|| (base, operation.data.clone()));
            Ok(applied(Outcome { sent, ..of_change(change) }, Vec::new()))
        }
        Payload::Replace(content) => match replacement(operation.prev_version, how)? {
            Replacement::Waits(clashes) => Ok(Verdict::Waits(clashes)),
            Replacement::Wins(clashes) => {
                let change = engine.replace(&content, author).map_err(refused)?;
                Ok(applied(of_change(change), clashes))
            }
        },
    }
}

fn clashes_of_text(versions: Vec<u64>) -> Vec<Clash> {
    versions.into_iter().map(|version| Clash { version, place: "content".into(), deletion: false }).collect()
}

/// Why a write that names another version than the current one is refused.
pub(super) fn version_refusal(named: u64, current: u64) -> Status {
    if named > current {
        precondition_status(&format!("prev_version {named} is ahead of the document"), "VERSION_AHEAD", current)
    } else {
        stale_status(named, current)
    }
}

fn refusal_of_text(error: &TextError, current: u64) -> Refusal {
    let message = error.to_string();
    match error {
        TextError::Invalid(_) => Refusal::Status(invalid("operation.data", message.trim_start_matches("data: "))),
        TextError::MissingDependency(_) => precondition(&message, "MISSING_DEPENDENCY", current),
        TextError::TooOld(_) => precondition(&message, "VERSION_TOO_OLD", current),
        TextError::Full(_) => full(message),
        TextError::Broken(what) => Refusal::Broken(what),
    }
}

fn refusal_of_items(error: &ItemsError, current: u64) -> Refusal {
    let message = error.to_string();
    let of_item = |code, reason, item: &str| {
        let metadata = [("item", item.to_owned()), ("current_version", current.to_string())];
        Refusal::Status(with_info(code, message.clone(), reason, &metadata))
    };
    match error {
        ItemsError::Invalid(_) => Refusal::Status(invalid("operation.data", message)),
        ItemsError::Missing(item) => of_item(Code::NotFound, "ITEM_NOT_FOUND", item),
        ItemsError::Exists(item) => of_item(Code::AlreadyExists, "ITEM_EXISTS", item),
        ItemsError::MissingDependency(_) => precondition(&message, "MISSING_DEPENDENCY", current),
        ItemsError::TooOld(_) => precondition(&message, "VERSION_TOO_OLD", current),
        ItemsError::Full(_) => full(message),
        ItemsError::Broken(what) => Refusal::Broken(what),
    }
}

fn full(message: String) -> Refusal {
    Refusal::Status(with_info(Code::ResourceExhausted, message, "DOCUMENT_FULL", &[]))
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

fn opaque(current: u64) -> Refusal {
    let message = "the content is not of typed operations; replace it by typed content first, such as \
         {\"elements\": {}}, or {\"cells\": {}} for a sheet";
    precondition(message, "OPAQUE_CONTENT", current)
}
