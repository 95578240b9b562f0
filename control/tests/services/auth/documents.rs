//! Documents are whose their permissions say.

use proto::statesync as pb;
use quantum_grpc::Transport;
use tonic::{Code, Response, Status};
use uuid::Uuid;

use super::*;
use crate::common::{insertion, subscription};

over_each_transport! {
    everybody_may_do_what_the_permissions_say_and_no_more,
    nobody_acts_for_somebody_else,
    a_change_of_permissions_takes_the_owner,
    lists_have_what_their_caller_may_read,
}

fn shared(editors: &[&str], viewers: &[&str]) -> pb::Permissions {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    pb::Permissions { editors: names(editors), viewers: names(viewers), ..Default::default() }
}

/// The code of each call and all that it says, with the document's id taken out; what changes the document comes last.
struct Said(Vec<(&'static str, Code, String)>);

impl Said {
    fn push<T>(&mut self, call: &'static str, id: &str, result: Result<Response<T>, Status>) {
        let said = result.map_or_else(
            |status| (status.code(), format!("{} {}", status.message(), String::from_utf8_lossy(status.details()))),
            |_| (Code::Ok, String::new()),
        );
        self.0.push((call, said.0, said.1.replace(id, "ID")));
    }

    fn codes(&self) -> Vec<(&'static str, Code)> {
        self.0.iter().map(|(call, code, _)| (*call, *code)).collect()
    }
}

const READS: [&str; 5] = ["get", "history", "conflicts", "is locked", "subscribe"];
const WRITES: [&str; 4] = ["apply", "lock", "unlock", "rename"];

/// Makes every call for one document as `user`, in `session`.
async fn every_call(guarded: &mut Guarded, user: &str, document: &pb::Document, session: &str) -> Said {
    let (client, id) = (&mut guarded.documents, document.id.as_str());
    let (doc_id, mut said) = (|| id.to_owned(), Said(Vec::new()));
    let get = pb::GetDocumentRequest { doc_id: doc_id() };
    let current = client.get_document(by(user, get)).await;
    let version = current.as_ref().map_or(1, |answer| answer.get_ref().document.as_ref().unwrap().version);
    said.push("get", id, current);
    let history = pb::GetOperationHistoryRequest { doc_id: doc_id(), limit: 0 };
    said.push("history", id, client.get_operation_history(by(user, history)).await);
    let conflicts = pb::ListConflictsRequest { doc_id: doc_id(), ..Default::default() };
    said.push("conflicts", id, client.list_conflicts(by(user, conflicts)).await);
    said.push("is locked", id, client.is_locked(by(user, pb::IsLockedRequest { doc_id: doc_id() })).await);
    said.push("subscribe", id, client.subscribe_document(by(user, subscription(id, user))).await);
    let mut operation = insertion(id, session.parse().unwrap(), version, 0, "x");
    operation.user_id = user.into();
    let apply = pb::ApplyOperationRequest { operation: Some(operation) };
    said.push("apply", id, client.apply_operation(by(user, apply)).await);
    let lock = pb::AcquireLockRequest { doc_id: doc_id(), session_id: session.into(), ..Default::default() };
    said.push("lock", id, client.acquire_lock(by(user, lock)).await);
    let unlock = pb::ReleaseLockRequest { doc_id: doc_id(), ..Default::default() };
    said.push("unlock", id, client.release_lock(by(user, unlock)).await);
    let renamed = pb::Document { id: doc_id(), name: "n".into(), version: version + 1, ..Default::default() };
    let rename = pb::UpdateDocumentRequest { document: Some(renamed) };
    said.push("rename", id, client.update_document(by(user, rename)).await);
    let delete = pb::DeleteDocumentRequest { doc_id: doc_id(), ..Default::default() };
    said.push("delete", id, client.delete_document(by(user, delete)).await);
    said
}

fn expected(reads: Code, writes: Code, delete: Code) -> Vec<(&'static str, Code)> {
    let reads = READS.map(|call| (call, reads));
    [&reads[..], &WRITES.map(|call| (call, writes)), &[("delete", delete)]].concat()
}

async fn everybody_may_do_what_the_permissions_say_and_no_more(transport: Transport) {
    let Some(mut guarded) = Guarded::start(transport, rules()).await else { return };
    let document = guarded.document("ada", shared(&["bob"], &["cy"])).await;
    let public = guarded.document("ada", pb::Permissions { public: true, ..Default::default() }).await;
    let missing = pb::Document { id: Uuid::now_v7().to_string(), ..Default::default() };
    let mut calls = async |user: &str, document: &pb::Document| {
        let (session, _) = guarded.session(user, 600).await;
        every_call(&mut guarded, user, document, &session.session_id).await
    };
    let outsider = calls("dan", &document).await;
    assert_eq!(outsider.codes(), expected(Code::NotFound, Code::NotFound, Code::NotFound));
    assert_eq!(outsider.0, calls("dan", &missing).await.0, "whether it exists is nobody's business");
    let viewer = calls("cy", &document).await;
    assert_eq!(viewer.codes(), expected(Code::Ok, Code::PermissionDenied, Code::PermissionDenied));
    assert!(viewer.0.iter().all(|(_, _, said)| !said.contains("ada") && !said.contains("private")));
    assert_eq!(calls("dan", &public).await.codes(), viewer.codes(), "anybody views what is public");
    let editor = calls("bob", &document).await;
    assert_eq!(editor.codes(), expected(Code::Ok, Code::Ok, Code::PermissionDenied));
    assert_eq!(calls("ada", &document).await.codes(), expected(Code::Ok, Code::Ok, Code::Ok));
}

async fn nobody_acts_for_somebody_else(transport: Transport) {
    let Some(mut guarded) = Guarded::start(transport, rules()).await else { return };
    let document = guarded.document("ada", shared(&["bob"], &[])).await;
    let (adas, adas_token) = guarded.session("ada", 600).await;
    let (bobs, bobs_token) = guarded.session("bob", 600).await;
    let id = document.id.as_str();
    let client = &mut guarded.documents;
    let named = |user: &str, session: &str| {
        let mut operation = insertion(id, session.parse().unwrap(), 1, 0, "x");
        operation.user_id = user.into();
        pb::ApplyOperationRequest { operation: Some(operation) }
    };
    let another_user = is(Code::PermissionDenied, "ANOTHER_USER");
    let (doc_id, user_id) = (|| id.to_owned(), || "ada".to_owned());
    assert_eq!(refused(client.apply_operation(by("bob", named("ada", &bobs.session_id))).await, &[]), another_user);
    let streamed = pb::ApplyOperationsRequest { operation: named("ada", &bobs.session_id).operation };
    let answers = client.apply_operations(by("bob", tokio_stream::once(streamed))).await.unwrap();
    let told = answers.into_inner().message().await.unwrap().unwrap().outcome;
    let Some(pb::apply_operations_response::Outcome::Refusal(told)) = told else { panic!("{told:?}") };
    assert_eq!((told.code, told.reason.as_str()), (Code::PermissionDenied.into(), "ANOTHER_USER"));
    let subscribe = client.subscribe_document(by("bob", subscription(id, "ada"))).await.map(|_| Response::new(()));
    assert_eq!(refused(subscribe, &[]), another_user);
    let lock = pb::AcquireLockRequest { doc_id: doc_id(), user_id: user_id(), ..Default::default() };
    assert_eq!(refused(client.acquire_lock(by("bob", lock)).await, &[]), another_user);
    let unlock = pb::ReleaseLockRequest { doc_id: doc_id(), user_id: user_id() };
    assert_eq!(refused(client.release_lock(by("bob", unlock)).await, &[]), another_user);
    let delete = pb::DeleteDocumentRequest { doc_id: doc_id(), user_id: user_id() };
    assert_eq!(refused(client.delete_document(by("bob", delete)).await, &[]), another_user);
    let list = pb::ListDocumentsRequest { user_id: user_id(), ..Default::default() };
    assert_eq!(refused(client.list_documents(by("bob", list)).await, &[]), another_user);
    let conflict_id = Uuid::now_v7().to_string();
    let resolve =
        pb::ResolveConflictRequest { doc_id: doc_id(), conflict_id, user_id: user_id(), ..Default::default() };
    assert_eq!(refused(client.resolve_conflict(by("bob", resolve)).await, &[]), another_user);
    let subscriber_id = Uuid::now_v7().to_string();
    let leave = pb::UnsubscribeDocumentRequest { subscriber_id, doc_id: doc_id(), user_id: user_id() };
    assert_eq!(refused(client.unsubscribe_document(by("bob", leave)).await, &[]), another_user);
    let create = pb::CreateDocumentRequest {
        name: "n".into(),
        r#type: "text".into(),
        created_by: user_id(),
        ..Default::default()
    };
    assert_eq!(refused(client.create_document(by("bob", create.clone())).await, &[]), another_user);
    let permissions = Some(pb::Permissions { owner: user_id(), ..Default::default() });
    let metadata = Some(pb::Metadata { permissions, ..Default::default() });
    let given = pb::CreateDocumentRequest { created_by: String::new(), metadata, ..create };
    assert_eq!(refused(client.create_document(by("bob", given)).await, &[]), another_user);

    // In another's session, or in none that lives.
    for session in [&adas.session_id, &Uuid::now_v7().to_string()] {
        let said = refused(client.apply_operation(by("bob", named("bob", session))).await, &[&adas_token]);
        assert_eq!(said, is(Code::NotFound, "SESSION_NOT_FOUND"));
    }
    // A session's token is as good as its user's for operations in it.
    let own = in_session(&bobs.session_id, &bobs_token, named("bob", &bobs.session_id));
    let applied = client.apply_operation(own).await.unwrap().into_inner().applied_operation.unwrap();
    assert_eq!((applied.user_id.as_str(), applied.version), ("bob", 2));
    let wrong = in_session(&bobs.session_id, &adas_token, named("bob", &bobs.session_id));
    let said = refused(client.apply_operation(wrong).await, &[&adas_token, &bobs_token]);
    assert_eq!(said, is(Code::Unauthenticated, "SESSION_TOKEN_INVALID"));
}

async fn a_change_of_permissions_takes_the_owner(transport: Transport) {
    let Some(mut guarded) = Guarded::start(transport, rules()).await else { return };
    let document = guarded.document("ada", shared(&["bob"], &[])).await;
    let owned = document.metadata.as_ref().and_then(|metadata| metadata.permissions.clone()).unwrap();
    assert_eq!((owned.owner.as_str(), &owned.editors[..]), ("ada", &["bob".to_owned()][..]), "as asked for");
    let client = &mut guarded.documents;
    let with = |version: u64, permissions: pb::Permissions| {
        let metadata = pb::Metadata { permissions: Some(permissions), ..Default::default() };
        let document =
            pb::Document { id: document.id.clone(), version, metadata: Some(metadata), ..Default::default() };
        pb::UpdateDocumentRequest { document: Some(document) }
    };
    let denied = is(Code::PermissionDenied, "DOCUMENT_PERMISSION");
    for taken in [pb::Permissions { owner: "bob".into(), ..owned.clone() }, shared(&["bob", "eve"], &[])] {
        assert_eq!(refused(client.update_document(by("bob", with(1, taken))).await, &[]), denied);
    }
    let revived = pb::Document { id: document.id.clone(), version: 1, state: "deleted".into(), ..Default::default() };
    let delete = pb::UpdateDocumentRequest { document: Some(revived) };
    assert_eq!(refused(client.update_document(by("bob", delete)).await, &[]), denied, "to delete by another name");
    // What an editor read and sends back with another name is no change of permissions, whoever changed it before.
    let mut read = document.clone();
    (read.name, read.content) = ("another name".into(), bytes::Bytes::new());
    client.update_document(by("bob", pb::UpdateDocumentRequest { document: Some(read) })).await.unwrap();
    // The owner gives it away: no owner named is the owner of before.
    client.update_document(by("ada", with(2, shared(&[], &["cy"])))).await.unwrap();
    let get = || pb::GetDocumentRequest { doc_id: document.id.clone() };
    assert_eq!(refused(client.get_document(by("bob", get())).await, &["cy"]).0, Code::NotFound);
    let given = pb::Permissions { owner: "cy".into(), ..shared(&[], &[]) };
    client.update_document(by("ada", with(3, given.clone()))).await.unwrap();
    assert_eq!(refused(client.update_document(by("ada", with(4, owned))).await, &[]), denied);
    client.get_document(by("ada", get())).await.expect("who made it may read it");
    client.update_document(by("cy", with(4, shared(&["ada"], &[])))).await.unwrap();
    let kept = client.get_document(by("cy", get())).await.unwrap().into_inner().document.unwrap();
    let kept = kept.metadata.and_then(|metadata| metadata.permissions).unwrap();
    assert_eq!((kept.owner.as_str(), &kept.editors[..]), ("cy", &["ada".to_owned()][..]));
}

async fn lists_have_what_their_caller_may_read(transport: Transport) {
    let Some(mut guarded) = Guarded::start(transport, rules()).await else { return };
    let own = guarded.document("ada", shared(&[], &[])).await.id;
    let seen = guarded.document("ada", shared(&[], &["bob"])).await.id;
    let public = guarded.document("ada", pb::Permissions { public: true, ..Default::default() }).await.id;
    for (user, expected) in [("ada", vec![&own, &seen, &public]), ("bob", vec![&seen, &public]), ("cy", vec![&public])]
    {
        let listed = guarded.documents.list_documents(by(user, pb::ListDocumentsRequest::default())).await.unwrap();
        let listed = listed.into_inner();
        assert_eq!(listed.documents.iter().map(|document| &document.id).collect::<Vec<_>>(), expected, "{user}");
        assert_eq!(listed.total as usize, expected.len());
    }
}
