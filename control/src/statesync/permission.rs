//! What a caller may do to a document. Every call for one passes here: in its actor, or before its history is read.
//!
//! | | owner | editors | viewers, creator | anybody, if public |
//! |---|---|---|---|---|
//! | read, subscribe, history, conflicts, whether locked | yes | yes | yes | yes |
//! | operations, name, content, archive, lock, decide conflicts | yes | yes | | |
//! | permissions, delete, have it back | yes | | | |
//!
//! Who may not even read is told what everybody is told of a document that does not exist. With authentication off permissions
//! are kept and nothing is enforced.

use tonic::{Code, Status};

use super::document::Command;
use super::model::{self, DocumentRecord};
use crate::auth::Asker;
use crate::status::{not_found, with_info};

/// What is asked for; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Right {
    Read,
    Write,
    Own,
}

/// Whether `asker` has a right.
///
/// # Errors
/// `NOT_FOUND` for whoever may not read the document, `PERMISSION_DENIED` for whoever may only do less.
pub(super) fn permits(record: &DocumentRecord, asker: &Asker, asked: Right) -> Result<(), Status> {
    let Some(caller) = asker.caller() else { return Ok(()) };
    match right_of(record, caller.subject()) {
        Some(right) if right >= asked => Ok(()),
        Some(_) => {
            caller.denied("DOCUMENT_PERMISSION");
            let who = if asked == Right::Own { "its owner" } else { "its owner and editors" };
            let message = format!("this takes more than reading the document: only {who} may do it");
            Err(with_info(Code::PermissionDenied, message, "DOCUMENT_PERMISSION", &[]))
        }
        None => {
            caller.denied("DOCUMENT_HIDDEN");
            Err(not_found("document", &record.id.to_string()))
        }
    }
}

/// Whether `asker` may read, which nobody is told.
pub(super) fn may_read(record: &DocumentRecord, asker: &Asker) -> bool {
    asker.caller().is_none_or(|caller| right_of(record, caller.subject()).is_some())
}

/// The most that a user may do.
fn right_of(record: &DocumentRecord, user_id: &str) -> Option<Right> {
    let permissions = record.metadata.permissions.as_ref();
    let owner = permissions.map_or("", |permissions| permissions.owner.as_str());
    let owner = if owner.is_empty() { record.created_by.as_str() } else { owner };
    if owner == user_id {
        return Some(Right::Own);
    }
    if permissions.is_some_and(|permissions| permissions.editors.iter().any(|editor| editor == user_id)) {
        return Some(Right::Write);
    }
    let (readers, public) = model::readers(record);
    (public || readers.contains(user_id)).then_some(Right::Read)
}

/// What a command takes.
pub(super) fn asked(command: &Command, record: &DocumentRecord) -> Right {
    match command {
        Command::Read(_)
        | Command::LockState(_)
        | Command::Attach(..)
        | Command::Leave(_)
        | Command::Removed
        | Command::Unsubscribe(..) => Right::Read,
        Command::Apply(..) | Command::Lock(..) | Command::Unlock(..) | Command::Resolve(..) => Right::Write,
        Command::Delete(..) => Right::Own,
        Command::Update(wanted, _) => {
            let permissions = wanted.metadata.as_ref().and_then(|metadata| metadata.permissions.as_ref());
            let others = permissions.is_some() && permissions != record.metadata.permissions.as_ref();
            let deleted = |state: &str| state == "deleted";
            let revived = !wanted.state.is_empty() && deleted(&wanted.state) != deleted(&record.state);
            if others || revived { Right::Own } else { Right::Write }
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::statesync as pb;

    use super::*;
    use crate::clock::UnixMicros;

    fn record(permissions: Option<pb::Permissions>) -> DocumentRecord {
        DocumentRecord {
            id: uuid::Uuid::now_v7(),
            name: "n".into(),
            kind: "text".into(),
            state: "active".into(),
            version: 1,
            epoch: String::new(),
            created_by: "ada".into(),
            created_at: UnixMicros(0),
            updated_by: "ada".into(),
            updated_at: UnixMicros(0),
            metadata: pb::Metadata { permissions, ..Default::default() },
            described_version: 1,
            lock: None,
            snapshot: model::Snapshot { version: 1, typed: false, state: bytes::Bytes::new() },
        }
    }

    #[test]
    fn each_user_has_the_most_that_the_permissions_give() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let permissions = pb::Permissions {
            owner: "bob".into(),
            editors: names(&["cy", "bob"]),
            viewers: names(&["dan", "cy"]),
            public: false,
        };
        let mut shared = record(Some(permissions));
        let rights =
            |record: &DocumentRecord| ["ada", "bob", "cy", "dan", "eve", ""].map(|user| right_of(record, user));
        let (read, write, own) = (Some(Right::Read), Some(Right::Write), Some(Right::Own));
        assert_eq!(rights(&shared), [read, own, write, read, None, None]);
        shared.metadata.permissions.as_mut().unwrap().public = true;
        assert_eq!(rights(&shared), [read, own, write, read, read, read]);
        assert_eq!(rights(&record(None)), [own, None, None, None, None, None]);
    }
}
