use bytes::Bytes;
use yrs::Transact;
use yrs::updates::decoder::Decode;

use super::{PositionalReplica, Received, Replica, Span, YjsReplica};
use crate::trace::{Causality, Patch, Trace, generate};

/// A server with one version line: takes operations as JSON relative to everything the sender held, and gives them out
/// relative to the state before them. It is a positional replica too, so only the plumbing is its own.
fn play(trace: &Trace, mut replicas: Vec<Replica>, yjs: bool) {
    let causality = Causality::new(trace).unwrap();
    let mut done = vec![0u32; usize::from(trace.agents)];
    // Every transaction is its own operation and reaches everybody at once, but is seen only when its time comes.
    let mut server = PositionalReplica::default();
    let relay = yrs::Doc::new();
    let _ = relay.get_or_insert_text("content");
    for (index, transaction) in trace.transactions.iter().enumerate() {
        let agent = usize::from(transaction.agent);
        let span = Span { agent: transaction.agent, first: done[agent], end: done[agent] + 1 };
        done[agent] += 1;
        replicas[agent].see(causality.frontier(index as u32)).unwrap();
        let edit = replicas[agent].edit(span, transaction.patches.iter()).unwrap();
        let mut received =
            Received { span, data: edit.data.clone(), update: edit.data, deleted: edit.deleted, after: edit.after };
        if yjs {
            // As the server gives it out: only what changed there.
            let update = yrs::Update::decode_v1(&received.update).unwrap();
            let mut transaction = relay.transact_mut();
            transaction.apply_update(update).unwrap();
            received.update = Bytes::from(transaction.encode_update_v1());
        } else {
            server.receive(&received, false).unwrap();
        }
        for (other, replica) in replicas.iter_mut().enumerate() {
            replica.receive(received.clone(), other == agent).unwrap();
        }
    }
    for replica in &mut replicas {
        replica.see(&done).unwrap();
        assert_eq!(replica.text(), trace.end_content);
    }
    if !yjs {
        server.see(&done);
        assert_eq!(server.text(), trace.end_content);
    }
}

#[test]
fn yjs_replicas_that_see_only_ancestors_end_equal() {
    for (writers, seed) in [(1, 1), (2, 2), (3, 3), (5, 4)] {
        let trace = generate(writers, 600, seed);
        let replicas = (0..writers).map(|agent| Replica::Yjs(YjsReplica::new(trace.is_basic_plane(), agent))).collect();
        play(&trace, replicas, true);
    }
}

#[test]
fn positional_replicas_that_see_only_ancestors_end_equal() {
    for (writers, seed) in [(1, 1), (2, 2), (3, 3), (5, 4), (8, 5)] {
        let trace = generate(writers, 600, seed);
        let replicas = (0..writers).map(|_| Replica::Positional(PositionalReplica::default())).collect();
        play(&trace, replicas, false);
    }
}

#[test]
fn a_deletion_around_text_that_the_editor_has_not_seen_leaves_it() {
    let mut replica = PositionalReplica::default();
    let insert = Patch { position: 0, deleted: 0, inserted: "a🦀bc".to_owned() };
    replica.edit(Span { agent: 0, first: 0, end: 1 }, [&insert].into_iter()).unwrap();
    replica.receive(&received(0, b""), true).unwrap();
    replica.receive(&received(1, br#"{"pos":3,"ins":"X"}"#), false).unwrap();
    let delete = Patch { position: 1, deleted: 2, inserted: "-".to_owned() };
    let edit = replica.edit(Span { agent: 0, first: 1, end: 2 }, [&delete].into_iter()).unwrap();
    assert_eq!(edit.deleted, "0:0:1:3");
    assert_eq!(edit.data, br#"[{"pos":1,"del":2},{"pos":2,"del":1},{"pos":1,"ins":"-"}]"#.as_slice());
    assert_eq!(replica.text(), "a-c");
    replica.see(&[2, 1]);
    assert_eq!(replica.text(), "a-Xc");
}

#[test]
fn operations_past_the_end_or_inside_a_surrogate_pair_are_refused() {
    let mut replica = PositionalReplica::default();
    replica.receive(&received(1, r#"{"pos":0,"ins":"🦀"}"#.as_bytes()), false).unwrap();
    for (first, data) in [
        r#"{"pos":1,"ins":"x"}"#,
        r#"{"pos":9}"#,
        r#"{"pos":0,"del":1}"#,
        "7",
        r#"{"pos":4294967295,"del":4294967295}"#,
    ]
    .into_iter()
    .enumerate()
    {
        let span = Span { agent: 2, first: first as u32, end: first as u32 + 1 };
        let received = Received {
            span,
            data: Bytes::from(data),
            update: Bytes::new(),
            deleted: String::new(),
            after: String::new(),
        };
        assert!(replica.receive(&received, false).is_err(), "{data}");
    }
    for deleted in ["x", "1:0", "9:9:0:1", "1:0:0:1:1", "70000:0:0:1"] {
        let span = Span { agent: 3, first: 0, end: 1 };
        let received = Received {
            span,
            data: Bytes::from_static(b"[]"),
            update: Bytes::new(),
            deleted: deleted.to_owned(),
            after: String::new(),
        };
        assert!(replica.receive(&received, false).is_err(), "{deleted}");
    }
    let past = Patch { position: u32::MAX, deleted: u32::MAX, inserted: String::new() };
    assert!(replica.edit(Span { agent: 0, first: 0, end: 1 }, [&past].into_iter()).is_err());
    let mut replica = YjsReplica::new(true, 0);
    assert!(replica.edit([&past].into_iter()).is_err());
}

fn received(agent: u16, data: &[u8]) -> Received {
    Received {
        span: Span { agent, first: 0, end: 1 },
        data: Bytes::copy_from_slice(data),
        update: Bytes::new(),
        deleted: String::new(),
        after: String::new(),
    }
}
