//! Yjs updates that are broken on purpose, on the real server, and those of another implementation.
//!
//! `HOSTILE_UPDATES` says how many (20,000), `HOSTILE_SEED` which; the seed in use is printed.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "a test")]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::commands::{path, skip, succeeds};
use common::process::{Process, UpProcess};
use common::yjs::{Peer, yjs};
use common::*;
use proto::statesync as pb;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::{Code, Status};
use uuid::Uuid;
use yrs::{GetString, Text, Transact};

/// What the server may take more than before.
const MEMORY_KIB_MAX: u64 = 100 << 10;
const IN_FLIGHT: usize = 32;
/// Valid updates are made afresh, on the document as it is, after so many that were broken.
const FRESH_EVERY: usize = 1000;
/// The version of the document when the server has met enough honest load.
const HONEST_VERSIONS: u64 = 50;
/// The bomb that may be taken: a deleted run is not held letter by letter.
const DELETED_RUN: &str = "a length of a deleted run";

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// A line of the /proc status of the server: `VmRSS`, or `VmHWM`, the most that it ever was.
fn memory_kib(server: &UpProcess, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.process.0.id())).unwrap();
    let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':')).unwrap();
    found.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A few edits in one update: text, marks, deletions. Nothing but the state that the peer received is needed to apply it.
fn edit(peer: &Peer, random: &mut StdRng) -> Vec<u8> {
    let mut transaction = peer.doc.transact_mut();
    for _ in 0..random.random_range(1..=3) {
        let letters: Vec<char> = peer.text.get_string(&transaction).chars().collect();
        let at = random.random_range(0..=letters.len());
        peer.text.insert(&mut transaction, units(&letters[..at]), "é hostile 中");
        // What stands before it stays where it is.
        let start = random.random_range(at.saturating_sub(4)..=at);
        let (start, length) = (units(&letters[..start]), units(&letters[start..at]) + 3);
        match random.random_range(0..3) {
            0 => peer.text.remove_range(&mut transaction, start, length),
            1 => peer.text.format(&mut transaction, start, length, [("bold".into(), true.into())].into()),
            _ => {}
        }
    }
    transaction.encode_update_v1()
}

fn units(letters: &[char]) -> u32 {
    letters.iter().map(|letter| letter.len_utf16() as u32).sum()
}

/// The state of the document as a Yjs update.
async fn snapshot(client: &mut Documents, doc_id: &str) -> Vec<u8> {
    let request = pb::SubscribeDocumentRequest { want_updates: true, ..subscription(doc_id, "mallory") };
    let mut events = subscribe(client, request).await;
    next(&mut events).await.snapshot.to_vec()
}

fn mutate(update: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = update.to_vec();
    for _ in 0..random.random_range(1..=4) {
        if bytes.is_empty() {
            bytes.push(random.random());
        }
        let at = random.random_range(0..bytes.len());
        match random.random_range(0..8) {
            0 | 1 => bytes[at] = random.random(),
            2 => bytes[at] ^= 1_u8 << random.random_range(0..8_u32),
            3 => bytes.truncate(at),
            4 => bytes.insert(at, random.random()),
            5 => {
                bytes.remove(at);
            }
            // A number of four thousand million, where there may have been a count.
            6 => drop(bytes.splice(at..=at, [0xFF, 0xFF, 0xFF, 0xFF, 0x0F])),
            _ => {
                let end = random.random_range(at..bytes.len());
                let piece = bytes[at..=end].to_vec();
                drop(bytes.splice(at..at, piece));
            }
        }
    }
    bytes
}

/// What an attacker was answered: the code, or `Ok`.
fn verdict(answer: &Result<pb::Operation, Status>) -> Code {
    match answer {
        Ok(_) => Code::Ok,
        Err(status) => {
            let is_clear = matches!(
                status.code(),
                Code::InvalidArgument
                    | Code::FailedPrecondition
                    | Code::Aborted
                    | Code::ResourceExhausted
                    | Code::OutOfRange
            );
            // "Try again", when the document was just being loaded afresh, is clear too.
            let reloads = status.code() == Code::Unavailable && reason(status) == "DOCUMENT_RELOADING";
            assert!((is_clear || reloads) && !status.message().is_empty(), "{status:?}");
            status.code()
        }
    }
}

/// Sends broken updates; counts what they were answered.
async fn attack(client: &Documents, doc_id: &str, count: usize, seed: u64) -> BTreeMap<String, usize> {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut valid, mut answers, mut calls) = (Vec::<Vec<u8>>::new(), BTreeMap::new(), JoinSet::new());
    let mut count_one = |code: Code| *answers.entry(format!("{code:?}")).or_insert(0) += 1;
    for number in 0..count {
        if number % FRESH_EVERY == 0 {
            let state = snapshot(&mut client.clone(), doc_id).await;
            let made = (0..40).map(|peer| {
                let peer = Peer::new(1_000_000 + (number + peer) as u64);
                peer.receive(&state);
                edit(&peer, &mut random)
            });
            valid = made.collect();
        }
        let update = mutate(valid.choose(&mut random).unwrap(), &mut random);
        let (mut client, operation) = (client.clone(), yjs(doc_id, Uuid::from_u128(7), update));
        calls.spawn(async move { verdict(&apply(&mut client, operation).await) });
        while calls.len() >= IN_FLIGHT {
            count_one(calls.join_next().await.unwrap().unwrap());
        }
    }
    while let Some(code) = calls.join_next().await {
        count_one(code.unwrap());
    }
    answers
}

/// Somebody who types all the while. Everything is taken, if not at once then soon.
async fn type_on(mut client: Documents, doc_id: String, stop: Arc<AtomicBool>) -> (u64, u64) {
    let session = Uuid::now_v7();
    let (mut version, mut typed, mut repeated) = (1, 0, 0);
    while !stop.load(Ordering::Relaxed) {
        let typing = insertion(&doc_id, session, version, 0, "t");
        let typing = pb::Operation { id: Uuid::now_v7().to_string(), ..typing };
        let deadline = Instant::now() + Duration::from_secs(10);
        version = loop {
            match apply(&mut client, typing.clone()).await {
                Ok(applied) => break applied.version,
                Err(status) if status.code() == Code::Unavailable && Instant::now() < deadline => repeated += 1,
                Err(status) => panic!("an honest edit was refused: {status:?}"),
            }
        };
        typed += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (typed, repeated)
}

/// Somebody who reads all the while, up to the version that is named in the end: the text by JSON, and by Yjs updates.
async fn read_on(
    mut client: Documents,
    doc_id: String,
    mut until: watch::Receiver<Option<u64>>,
) -> (String, String, u64) {
    let request = pb::SubscribeDocumentRequest { want_updates: true, ..subscription(&doc_id, "reader") };
    let mut events = subscribe(&mut client, request).await;
    let first = next(&mut events).await;
    let peer = Peer::new(5);
    peer.receive(&first.snapshot);
    let mut units: Vec<u16> = peer.content().encode_utf16().collect();
    let mut version = first.version;
    loop {
        let last = *until.borrow();
        if last.is_some_and(|last| version >= last) {
            return (String::from_utf16(&units).unwrap(), peer.content(), version);
        }
        tokio::select! {
            event = events.message() => {
                let event = event.unwrap().expect("the stream goes on");
                assert!(event.document.is_none() && event.snapshot.is_empty(), "no operation is left out");
                let Some(operation) = event.operation else { continue };
                assert_eq!(event.version, version + 1);
                version = event.version;
                follow(&mut units, &serde_json::from_slice(&operation.data).unwrap());
                if !event.update.is_empty() {
                    peer.receive(&event.update);
                }
            }
            changed = until.changed() => changed.unwrap(),
        }
    }
}

/// Makes the edits of an operation.
fn follow(units: &mut Vec<u16>, data: &Value) {
    let edits = data.as_array().map_or_else(|| std::slice::from_ref(data), Vec::as_slice);
    for edit in edits {
        let number = |key: &str| edit[key].as_u64().unwrap_or(0) as usize;
        let (start, end) = (number("pos"), number("pos") + number("del"));
        drop(units.splice(start..end, edit["ins"].as_str().unwrap_or_default().encode_utf16()));
    }
}

/// What costs far more to take in than to send, if nobody looks.
fn bombs() -> Vec<(&'static str, pb::Operation)> {
    let typed = |data: String| pb::Operation { data: data.into_bytes().into(), ..operation("", Uuid::now_v7(), 1, "") };
    let update = |bytes: Vec<u8>| yjs("", Uuid::now_v7(), bytes);
    // A number of four thousand million.
    let huge = [0xFF, 0xFF, 0xFF, 0xFF, 0x0F];
    // One block of client 1 at clock 0 in the root "content", up to the length of its string.
    let block = [1, 1, 1, 0, 0x04, 1, 7, b'c', b'o', b'n', b't', b'e', b'n', b't'];
    // The same with a run of 2^30 deleted letters, and nothing else deleted.
    let deleted = [&[1, 1, 1, 0, 0x01][..], &block[5..], &[0x80, 0x80, 0x80, 0x80, 0x04, 0]].concat();
    vec![
        ("a count of clients", update(vec![0x80, 0x80, 0x80, 0x80, 0x01])),
        ("a count of blocks", update([&[1][..], &huge].concat())),
        ("a length of a string", update([&block[..], &huge].concat())),
        (DELETED_RUN, update(deleted)),
        ("a count of deleted ranges", update([&[0, 1, 1][..], &huge].concat())),
        ("a number without an end", update(vec![0x80; 1 << 20])),
        ("nothing but zeroes", update(vec![0; 1 << 20])),
        ("brackets", typed("[".repeat(1 << 20))),
        ("objects", typed("{\"pos\":".repeat(100_000))),
        ("edits", typed(json!(vec![json!({"pos": 0, "ins": "x"}); 10_001]).to_string())),
        ("a deletion of everything", typed(json!({"pos": 0, "del": u32::MAX}).to_string())),
        ("an end that overflows", typed(json!({"pos": u32::MAX, "del": u32::MAX}).to_string())),
        ("a long text", typed(json!({"pos": 0, "ins": "x".repeat(1 << 20)}).to_string())),
        ("a long replacement", typed("x".repeat((1 << 20) + 1))),
        ("a message that is too large", update(vec![1; 5 << 20])),
    ]
}

/// Sends every bomb several times over at once.
async fn bomb(client: &Documents, doc_id: &str) {
    for (name, bomb) in bombs() {
        let mut calls = JoinSet::new();
        for _ in 0..IN_FLIGHT {
            let mut client = client.clone();
            let (doc_id, session_id) = (doc_id.to_owned(), Uuid::now_v7().to_string());
            let bomb = pb::Operation { doc_id, session_id, ..bomb.clone() };
            calls.spawn(async move { verdict(&apply(&mut client, bomb).await) });
        }
        let mut codes = calls.join_all().await;
        codes.dedup();
        println!("{name}: {codes:?}");
        assert!(!codes.contains(&Code::Ok) || name == DELETED_RUN, "{name}: {codes:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_updates_are_refused_while_others_edit_and_memory_stays_small() {
    let seed = setting("HOSTILE_SEED", rand::random());
    let count = setting("HOSTILE_UPDATES", 20_000) as usize;
    println!("HOSTILE_SEED={seed}");
    let data = tempfile::tempdir().unwrap();
    let mut server = UpProcess::start(data.path());
    let address = server.address(2);
    let mut client = documents(address).await;
    let doc_id = create_text(&mut client, "a document that others edit ").await;
    let stop = Arc::new(AtomicBool::new(false));
    let until = watch::Sender::new(None);
    let typing = tokio::spawn(type_on(documents(address).await, doc_id.clone(), Arc::clone(&stop)));
    let reading = tokio::spawn(read_on(documents(address).await, doc_id.clone(), until.subscribe()));
    // The server has met honest load before its memory is taken for the start.
    let mut events = subscribe(&mut client, subscription(&doc_id, "watcher")).await;
    while next_operation(&mut events).await.version < HONEST_VERSIONS {}
    drop(events);
    let before = memory_kib(&server, "VmRSS");
    let started = Instant::now();
    let attacker = documents(address).await;
    bomb(&attacker, &doc_id).await;
    let answers = attack(&attacker, &doc_id, count, seed).await;
    let (seconds, peak) = (started.elapsed().as_secs_f64(), memory_kib(&server, "VmHWM"));
    stop.store(true, Ordering::Relaxed);
    let (typed, repeated) = typing.await.unwrap();
    let document = get(&mut client, &doc_id).await;
    until.send_replace(Some(document.version));
    let read = tokio::time::timeout(Duration::from_secs(30), reading).await.expect("the reader comes to the end");
    let (by_json, by_yjs, version) = read.unwrap();
    println!(
        "{count} broken updates in {seconds:.1} s: {answers:?}; {typed} honest edits, {repeated} calls repeated; memory {before} \
         KiB before, {peak} KiB at most"
    );
    let content = String::from_utf8(document.content.to_vec()).unwrap();
    assert_eq!(version, document.version);
    assert!(by_json == content && by_yjs == content, "readers hold what the server holds");
    assert!(typed > 10, "others went on: {typed}");
    assert_eq!(answers.values().sum::<usize>(), count);
    assert!(answers.get("InvalidArgument").is_some_and(|refused| *refused > count / 10), "{answers:?}");
    assert!(peak < before + MEMORY_KIB_MAX, "{before} KiB before, {peak} KiB at most");
    // What was kept can be read again.
    server.kill_and_start(data.path());
    let mut client = documents(address).await;
    assert_eq!(text(&mut client, &doc_id).await, content);
    let fresh = Peer::new(6);
    fresh.receive(&snapshot(&mut client, &doc_id).await);
    assert_eq!(fresh.content(), content);
}

/// A document in pycrdt, in a process of its own.
struct PycrdtPeer {
    _process: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl PycrdtPeer {
    fn start(client: u64, seed: u64) -> Self {
        let mut command = Command::new("python");
        command.env("PATH", path()).arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/pycrdt_peer.py"));
        command.args([client.to_string(), seed.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start(&mut command);
        let (input, output) = (process.0.stdin.take().unwrap(), BufReader::new(process.0.stdout.take().unwrap()));
        Self { _process: process, input, output }
    }

    fn ask(&mut self, request: &Value) -> Value {
        writeln!(self.input, "{request}").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).expect("the peer answers in JSON; what went wrong is above")
    }

    fn apply(&mut self, updates: &[Vec<u8>]) -> String {
        let updates: Vec<String> = updates.iter().map(hex::encode).collect();
        self.ask(&json!({ "apply": updates }))["text"].as_str().unwrap().to_owned()
    }

    fn edit(&mut self, count: usize) -> Vec<Vec<u8>> {
        let answer = self.ask(&json!({ "edit": count }));
        let updates = answer["updates"].as_array().unwrap().iter();
        updates.map(|update| hex::decode(update.as_str().unwrap()).unwrap()).collect()
    }
}

#[tokio::test]
async fn pycrdt_and_the_server_hold_the_same_text_after_the_same_updates() {
    if !succeeds("python", &["-c", "import pycrdt"]) {
        return skip("no Python with pycrdt: .ci/tools.sh installs it");
    }
    let seed = setting("HOSTILE_SEED", rand::random());
    println!("HOSTILE_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::start().await;
    let client = &mut world.documents;
    let doc_id = create_text(client, "shared é🦀中 text").await;
    let request = pb::SubscribeDocumentRequest { want_updates: true, ..subscription(&doc_id, "reader") };
    let mut events = subscribe(client, request).await;
    let first = next(&mut events).await;
    let mut version = first.version;
    let mut peers: Vec<PycrdtPeer> = (0..3).map(|peer| PycrdtPeer::start(11 + peer, seed ^ peer)).collect();
    let content = text(client, &doc_id).await;
    for peer in &mut peers {
        assert_eq!(peer.apply(&[first.snapshot.to_vec()]), content);
    }
    let session = Uuid::now_v7();
    for round in 0..10 {
        // Everybody edits alone; the server gets the updates of one in their order, those of different ones mixed.
        let mut edits: Vec<_> = peers.iter_mut().map(|peer| peer.edit(15).into_iter()).collect();
        let mut order: Vec<usize> = (0..edits.len()).flat_map(|peer| [peer; 15]).collect();
        order.shuffle(&mut random);
        for peer in order {
            let update = edits[peer].next().unwrap();
            apply(client, yjs(&doc_id, Uuid::from_u128(peer as u128 + 1), update)).await.unwrap();
        }
        // And somebody types in JSON, who needs to know of nothing.
        let typed = apply(client, insertion(&doc_id, session, version, 0, "json 🦀 ")).await.unwrap();
        let mut updates = Vec::new();
        while version < typed.version {
            let event = next_operation(&mut events).await;
            version = event.version;
            updates.push(event.update.to_vec());
        }
        updates.retain(|update| !update.is_empty());
        let content = text(client, &doc_id).await;
        for peer in &mut peers {
            assert_eq!(peer.apply(&updates), content, "round {round}");
        }
        let state = peers[0].ask(&json!({}));
        let copy = Peer::new(6);
        copy.receive(&hex::decode(state["state"].as_str().unwrap()).unwrap());
        assert_eq!(copy.content(), content, "round {round}, the state as pycrdt writes it");
    }
}
