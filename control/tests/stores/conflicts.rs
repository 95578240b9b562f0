//! The three ways in which a write that touches what its writer did not know is dealt with, on every store.

use proto::statesync as pb;
use tonic::{Code, Status};
use uuid::Uuid;

use super::typed::act;
use crate::common::*;

crate::on_every_document_store! {
    lww_lets_the_later_write_win_and_records_both,
    a_deletion_wins_over_a_change_that_did_not_know_it,
    lww_on_a_text_replaces_what_others_wrote_into_the_range,
    merge_keeps_both_edits_of_a_text,
    merge_of_one_key_leaves_a_record,
    manual_keeps_the_write_until_somebody_picks_it,
    manual_can_pick_the_earlier_side_or_something_else,
    manual_leaves_disjoint_writes_alone,
    a_stale_replacement_follows_the_rule_that_was_chosen,
    a_repeated_write_that_waits_is_not_recorded_twice,
    conflicts_are_listed_in_order_and_paged,
    bad_decisions_say_what_is_wrong,
}

pub(crate) async fn create_with(client: &mut Documents, kind: &str, content: &str, rule: &str) -> String {
    let properties = [("conflict_resolution".to_owned(), rule.to_owned())].into();
    let request = pb::CreateDocumentRequest {
        name: "a document".into(),
        r#type: kind.into(),
        created_by: "ada".into(),
        content: content.as_bytes().to_vec().into(),
        metadata: Some(pb::Metadata { properties, ..Default::default() }),
    };
    client.create_document(request).await.unwrap().into_inner().document.unwrap().id
}

pub(crate) async fn conflicts(client: &mut Documents, doc_id: &str, unresolved_only: bool) -> Vec<pb::Conflict> {
    let request = pb::ListConflictsRequest { doc_id: doc_id.into(), unresolved_only, ..Default::default() };
    let answer = client.list_conflicts(request).await.unwrap().into_inner();
    assert_eq!(answer.total as usize, answer.conflicts.len());
    answer.conflicts
}

pub(crate) async fn resolve(
    client: &mut Documents,
    conflict: &pb::Conflict,
    operation_id: &str,
    merged: Option<pb::Operation>,
) -> Result<pb::ResolveConflictResponse, Status> {
    let request = pb::ResolveConflictRequest {
        conflict_id: conflict.id.clone(),
        doc_id: conflict.doc_id.clone(),
        user_id: "judge".into(),
        session_id: String::new(),
        operation_id: operation_id.into(),
        merged_operation: merged,
    };
    Ok(client.resolve_conflict(request).await?.into_inner())
}

/// Two writers who both saw version 1 write the same place.
async fn both_write(
    client: &mut Documents,
    doc_id: &str,
    operations: [(&str, &str); 2],
) -> [pb::ApplyOperationResponse; 2] {
    let first = act(client, doc_id, (Uuid::now_v7(), 1), operations[0]).await.unwrap();
    let second = act(client, doc_id, (Uuid::now_v7(), 1), operations[1]).await.unwrap();
    [first, second]
}

const BOARD: &str = r#"{"elements":{"e":{"x":0}}}"#;
const SAME_KEY: [(&str, &str); 2] =
    [("update", r#"{"id": "e", "set": {"x": 1}}"#), ("update", r#"{"id": "e", "set": {"x": 2, "y": 2}}"#)];

async fn lww_lets_the_later_write_win_and_records_both(mut world: World) {
    let client = &mut world.documents;
    let doc_id = create(client, "whiteboard", BOARD.as_bytes()).await;
    let mut events = subscribe(client, subscription(&doc_id, "watcher")).await;
    let [first, second] = both_write(client, &doc_id, SAME_KEY).await;
    let (first, second) = (first.applied_operation.unwrap(), second.applied_operation.unwrap());
    assert_eq!((first.status.as_str(), second.status.as_str()), ("applied", "resolved"));
    assert_eq!(text(client, &doc_id).await, r#"{"elements":{"e":{"x":2,"y":2}}}"#);
    let found = conflicts(client, &doc_id, false).await;
    let [conflict] = &found[..] else { panic!("{found:?}") };
    assert_eq!(conflict.ops, [first, second.clone()]);
    assert_eq!((conflict.resolution.as_str(), conflict.resolved_op.as_ref()), ("lww", Some(&second)));
    assert!(conflict.resolved_at.is_some() && conflict.description.contains("elements/e/x"), "{conflict:?}");
    let mut kinds = Vec::new();
    while kinds.last().map(String::as_str) != Some("conflict_resolved") {
        let event = next(&mut events).await;
        if let Some(shown) = &event.conflict {
            assert_eq!(shown, conflict);
        }
        kinds.push(event.r#type);
    }
    let expected = [
        "user_joined",
        "user_joined",
        "operation_applied",
        "operation_applied",
        "conflict_detected",
        "conflict_resolved",
    ];
    assert_eq!(kinds, expected);
    let stats = client.get_stats(pb::GetStatsRequest {}).await.unwrap().into_inner().stats.unwrap();
    assert_eq!((stats.total_conflicts, stats.resolved_conflicts), (1, 1));
}

async fn a_deletion_wins_over_a_change_that_did_not_know_it(mut world: World) {
    let client = &mut world.documents;
    let doc_id = create(client, "canvas", BOARD.as_bytes()).await;
    let [_, change] = both_write(client, &doc_id, [("delete", r#"{"id": "e"}"#), SAME_KEY[0]]).await;
    let change = change.applied_operation.unwrap();
    assert_eq!((change.status.as_str(), change.version), ("rejected", 3));
    assert_eq!(text(client, &doc_id).await, r#"{"elements":{}}"#);
    let conflict = conflicts(client, &doc_id, false).await.remove(0);
    assert_eq!(conflict.resolved_op.unwrap().r#type, "delete");
    assert_eq!(conflict.ops[1].id, change.id, "what was lost is kept");

    let doc_id = create(client, "canvas", BOARD.as_bytes()).await;
    both_write(client, &doc_id, [SAME_KEY[0], ("delete", r#"{"id": "e"}"#)]).await;
    assert_eq!(text(client, &doc_id).await, r#"{"elements":{}}"#);
    assert_eq!(conflicts(client, &doc_id, false).await.len(), 1);
}

async fn lww_on_a_text_replaces_what_others_wrote_into_the_range(mut world: World) {
    let client = &mut world.documents;
    let doc_id = create_with(client, "text", "one two three", "lww").await;
    let edits = [("text", r#"{"pos": 5, "ins": "XXX"}"#), ("text", r#"{"pos": 4, "del": 3, "ins": "2"}"#)];
    let [_, winner] = both_write(client, &doc_id, edits).await;
    assert_eq!(winner.applied_operation.unwrap().status, "resolved");
    assert_eq!(text(client, &doc_id).await, "one 2 three");
    let conflict = conflicts(client, &doc_id, false).await.remove(0);
    assert!(conflict.ops[0].data.as_ref() == br#"{"pos":5,"ins":"XXX"}"#, "{conflict:?}");
    // Elsewhere nothing is in conflict.
    let disjoint = act(client, &doc_id, (Uuid::now_v7(), 1), ("text", r#"{"pos": 13, "ins": "!"}"#)).await.unwrap();
    assert_eq!(disjoint.applied_operation.unwrap().status, "applied");
    assert_eq!(text(client, &doc_id).await, "one 2 three!");
}

async fn merge_keeps_both_edits_of_a_text(mut world: World) {
    let client = &mut world.documents;
    let doc_id = create_text(client, "one two three").await;
    let edits = [("text", r#"{"pos": 5, "ins": "XXX"}"#), ("text", r#"{"pos": 4, "del": 3, "ins": "2"}"#)];
    both_write(client, &doc_id, edits).await;
    assert_eq!(text(client, &doc_id).await, "one 2XXX three");
    assert!(conflicts(client, &doc_id, false).await.is_empty());
}

async fn merge_of_one_key_leaves_a_record(mut world: World) {
    let client = &mut world.documents;
    let doc_id = create_with(client, "canvas", BOARD, "merge").await;
    both_write(client, &doc_id, SAME_KEY).await;
    assert_eq!(text(client, &doc_id).await, r#"{"elements":{"e":{"x":2,"y":2}}}"#);
    assert_eq!(conflicts(client, &doc_id, false).await[0].resolution, "merge");
}

async fn manual_keeps_the_write_until_somebody_picks_it(mut world: World) {
    let client = &mut world.documents;
    let doc_id = create_with(client, "canvas", BOARD, "manual").await;
    let mut events = subscribe(client, subscription(&doc_id, "watcher")).await;
    let [first, second] = both_write(client, &doc_id, SAME_KEY).await;
    assert!(first.success && !second.success && second.error.contains("ResolveConflict"), "{second:?}");
    let waiting = second.applied_operation.unwrap();
    assert_eq!(waiting.status, "conflict");
    assert_eq!(get(client, &doc_id).await.version, 2);
    let conflict = conflicts(client, &doc_id, true).await.remove(0);
    assert!(conflict.resolved_at.is_none());
    let resolved = resolve(client, &conflict, &waiting.id, None).await.unwrap();
    let applied = resolved.applied_operation.unwrap();
    assert_eq!((applied.id, applied.version), (waiting.id, 3));
    let conflict = resolved.conflict.unwrap();
    assert_eq!((conflict.resolved_by.as_str(), conflict.resolution.as_str()), ("judge", "manual"));
    assert_eq!(text(client, &doc_id).await, r#"{"elements":{"e":{"x":2,"y":2}}}"#);
    assert!(conflicts(client, &doc_id, true).await.is_empty());
    assert_eq!(conflicts(client, &doc_id, false).await, std::slice::from_ref(&conflict));
    let mut kinds = Vec::new();
    while kinds.last().map(String::as_str) != Some("conflict_resolved") {
        kinds.push(next(&mut events).await.r#type);
    }
    assert_eq!(kinds[3..], ["conflict_detected", "operation_applied", "conflict_resolved"]);
    let again = resolve(client, &conflict, &conflict.ops[0].id, None).await.unwrap_err();
    assert_eq!((again.code(), reason(&again).as_str()), (Code::FailedPrecondition, "CONFLICT_RESOLVED"));
}

async fn manual_can_pick_the_earlier_side_or_something_else(mut world: World) {
    let client = &mut world.documents;
    let doc_id = create_with(client, "canvas", BOARD, "manual").await;
    both_write(client, &doc_id, SAME_KEY).await;
    let conflict = conflicts(client, &doc_id, true).await.remove(0);
    let resolved = resolve(client, &conflict, &conflict.ops[0].id, None).await.unwrap();
    assert!(resolved.applied_operation.is_none());
    assert_eq!(resolved.conflict.unwrap().resolved_op.unwrap().id, conflict.ops[0].id);
    assert_eq!(text(client, &doc_id).await, r#"{"elements":{"e":{"x":1}}}"#);

    let doc_id = create_with(client, "canvas", BOARD, "manual").await;
    both_write(client, &doc_id, SAME_KEY).await;
    let conflict = conflicts(client, &doc_id, true).await.remove(0);
    let merged = pb::Operation {
        r#type: "update".into(),
        ..operation(&doc_id, Uuid::now_v7(), 2, r#"{"id": "e", "set": {"x": 12}}"#)
    };
    let stale = pb::Operation { prev_version: 1, ..merged.clone() };
    assert_eq!(resolve(client, &conflict, "", Some(stale)).await.unwrap_err().code(), Code::Aborted);
    let resolved = resolve(client, &conflict, "", Some(merged)).await.unwrap();
    assert_eq!(resolved.applied_operation.unwrap().version, 3);
    assert_eq!(text(client, &doc_id).await, r#"{"elements":{"e":{"x":12}}}"#);
}

async fn manual_leaves_disjoint_writes_alone(mut world: World) {
    let client = &mut world.documents;
    let doc_id = create_with(client, "text", "one two three", "manual").await;
    let edits = [("text", r#"{"pos": 0, "del": 3, "ins": "1"}"#), ("text", r#"{"pos": 8, "del": 5, "ins": "3"}"#)];
    both_write(client, &doc_id, edits).await;
    assert_eq!(text(client, &doc_id).await, "1 two 3");
    let overlapping = act(client, &doc_id, (Uuid::now_v7(), 1), ("delete", r#"{"pos": 2, "del": 4}"#)).await.unwrap();
    assert!(!overlapping.success);
    let several = r#"[{"pos": 13, "ins": "!"}, {"pos": 9, "del": 1}]"#;
    assert!(!act(client, &doc_id, (Uuid::now_v7(), 1), ("text", several)).await.unwrap().success);
    assert_eq!(text(client, &doc_id).await, "1 two 3");
    let waiting = conflicts(client, &doc_id, true).await;
    assert_eq!(waiting.iter().map(|conflict| conflict.ops[0].version).collect::<Vec<_>>(), [2, 3]);
    resolve(client, &waiting[0], &waiting[0].ops[1].id, None).await.unwrap();
    assert_eq!(text(client, &doc_id).await, "1o 3");
    assert_eq!(conflicts(client, &doc_id, true).await.len(), 1);
}

async fn a_stale_replacement_follows_the_rule_that_was_chosen(mut world: World) {
    let client = &mut world.documents;
    let replacements = [("update", "from ada"), ("update", "from bob")];
    let doc_id = create_with(client, "whiteboard", "opaque", "lww").await;
    both_write(client, &doc_id, replacements).await;
    assert_eq!(text(client, &doc_id).await, "from bob");
    assert_eq!(conflicts(client, &doc_id, false).await[0].ops[0].data.as_ref(), b"from ada");
    let doc_id = create_with(client, "sheet", "opaque", "manual").await;
    assert!(!both_write(client, &doc_id, replacements).await[1].success);
    assert_eq!(text(client, &doc_id).await, "from ada");
    let doc_id = create(client, "whiteboard", b"opaque").await;
    act(client, &doc_id, (Uuid::now_v7(), 1), replacements[0]).await.unwrap();
    let stale = act(client, &doc_id, (Uuid::now_v7(), 1), replacements[1]).await.unwrap_err();
    assert_eq!((stale.code(), reason(&stale).as_str()), (Code::Aborted, "VERSION_CONFLICT"));
}

async fn a_repeated_write_that_waits_is_not_recorded_twice(mut world: World) {
    let client = &mut world.documents;
    let doc_id = create_with(client, "canvas", BOARD, "manual").await;
    act(client, &doc_id, (Uuid::now_v7(), 1), SAME_KEY[0]).await.unwrap();
    let operation = pb::Operation {
        id: Uuid::now_v7().to_string(),
        idempotency_key: "key".into(),
        r#type: "update".into(),
        ..operation(&doc_id, Uuid::now_v7(), 1, SAME_KEY[1].1)
    };
    let send = |operation: &pb::Operation| pb::ApplyOperationRequest { operation: Some(operation.clone()) };
    let first = client.apply_operation(send(&operation)).await.unwrap().into_inner();
    assert_eq!(client.apply_operation(send(&operation)).await.unwrap().into_inner(), first);
    let other = pb::Operation { data: b"other".to_vec().into(), ..operation.clone() };
    assert_eq!(client.apply_operation(send(&other)).await.unwrap_err().code(), Code::AlreadyExists);
    let found = conflicts(client, &doc_id, false).await;
    assert_eq!(found.len(), 1);
    resolve(client, &found[0], &operation.id, None).await.unwrap();
    let after = client.apply_operation(send(&operation)).await.unwrap().into_inner();
    assert!(after.success);
    assert_eq!(after.applied_operation.unwrap().version, 3);
    assert_eq!(get(client, &doc_id).await.version, 3);
}

async fn conflicts_are_listed_in_order_and_paged(mut world: World) {
    let client = &mut world.documents;
    let doc_id = create(client, "canvas", BOARD.as_bytes()).await;
    for _ in 0..6 {
        act(client, &doc_id, (Uuid::now_v7(), 1), SAME_KEY[0]).await.unwrap();
    }
    let all = conflicts(client, &doc_id, false).await;
    assert_eq!(all.len(), 5);
    let versions: Vec<_> = all.iter().map(|conflict| conflict.ops.last().unwrap().version).collect();
    assert_eq!(versions, [3, 4, 5, 6, 7]);
    let page = pb::ListConflictsRequest { doc_id: doc_id.clone(), offset: 3, limit: 1, ..Default::default() };
    let page = client.list_conflicts(page).await.unwrap().into_inner();
    assert_eq!((page.total, &page.conflicts[..]), (5, &all[3..4]));
    assert!(conflicts(client, &doc_id, true).await.is_empty());
}

async fn bad_decisions_say_what_is_wrong(mut world: World) {
    let client = &mut world.documents;
    let doc_id = create_with(client, "canvas", BOARD, "manual").await;
    both_write(client, &doc_id, SAME_KEY).await;
    let conflict = conflicts(client, &doc_id, true).await.remove(0);
    let nothing = resolve(client, &conflict, "", None).await.unwrap_err();
    expect_invalid(&nothing, "operation_id");
    let stranger = resolve(client, &conflict, &Uuid::now_v7().to_string(), None).await.unwrap_err();
    expect_invalid(&stranger, "operation_id");
    let merged = operation(&Uuid::now_v7().to_string(), Uuid::now_v7(), 2, "{}");
    let elsewhere = resolve(client, &conflict, "", Some(merged)).await.unwrap_err();
    expect_invalid(&elsewhere, "merged_operation.doc_id");
    let unknown = pb::Conflict { id: Uuid::now_v7().to_string(), ..conflict.clone() };
    assert_eq!(resolve(client, &unknown, &conflict.ops[0].id, None).await.unwrap_err().code(), Code::NotFound);
    let unknown = pb::ListConflictsRequest { doc_id: Uuid::now_v7().to_string(), ..Default::default() };
    assert_eq!(client.list_conflicts(unknown).await.unwrap_err().code(), Code::NotFound);
    let negative = pb::ListConflictsRequest { doc_id: doc_id.clone(), offset: -1, ..Default::default() };
    expect_invalid(&client.list_conflicts(negative).await.unwrap_err(), "offset");
    let properties = [("conflict_resolution".to_owned(), "coin".to_owned())].into();
    let metadata = Some(pb::Metadata { properties, ..Default::default() });
    let document = pb::Document { metadata, ..get(client, &doc_id).await };
    let status = client.update_document(pb::UpdateDocumentRequest { document: Some(document) }).await.unwrap_err();
    expect_invalid(&status, "metadata.properties.conflict_resolution");
    assert_eq!(conflicts(client, &doc_id, true).await, [conflict]);
}
