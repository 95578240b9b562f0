//! The real server, killed in the middle of replays.
//!
//! `CRASH_KILLS` says how often (3), `CRASH_SEED` which replays and when; the seed in use is printed.

mod server;

use std::time::{Duration, Instant};

use aetherflow_bench::replay::{Encoding, ReplayArgs, ReplayTransport, play};
use aetherflow_bench::trace;
use proto::statesync::GetDocumentRequest;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use server::documents::{document, documents, reaches};
use server::{Server, free_base, has_quantum, setting};

const WRITERS: u16 = 3;
/// Of one replay. At `SPEED` times the recorded pace, 20 ms apart, they take 1.5 seconds.
const TRANSACTIONS: usize = 600;
const SPEED: f64 = 8.0;

/// What calls are carried by, and in which encoding, replay after replay.
fn ways() -> Vec<(ReplayTransport, Encoding)> {
    let over = |transport| [(transport, Encoding::Json), (transport, Encoding::Yjs)];
    if !has_quantum("kill -9 in replays over Quantum") {
        return over(ReplayTransport::TcpGrpc).into();
    }
    let [first, third] = over(ReplayTransport::QuantumGrpc);
    let [fourth, second] = over(ReplayTransport::TcpGrpc);
    vec![first, second, third, fourth]
}

fn arguments(base: u16, (transport, encoding): (ReplayTransport, Encoding)) -> ReplayArgs {
    ReplayArgs {
        trace: String::new(),
        to: format!("127.0.0.1:{}", base + 2),
        session_addr: None,
        transport,
        ca: None,
        pin: None,
        insecure_loopback: true,
        encoding,
        speed: SPEED,
        resume: true,
        check_history: true,
        json: true,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replays_go_on_after_kill_9_with_nothing_lost_and_nothing_applied_twice() {
    let kills = setting("CRASH_KILLS", 3) as usize;
    let seed = setting("CRASH_SEED", rand::random());
    println!("CRASH_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let data = tempfile::tempdir().unwrap();
    let base = free_base();
    let mut server = Server::start(data.path(), base);
    let ways = ways();
    let (mut texts, mut operations, mut slowest) = (Vec::new(), 0, Duration::ZERO);
    for kill in 0..kills {
        let way = ways[kill % ways.len()];
        let trace = trace::generate(WRITERS, TRANSACTIONS, random.random());
        texts.push(trace.end_content.clone());
        let args = arguments(base, way);
        let playing = tokio::spawn(async move { play(&args, trace).await });
        let version = random.random_range(5..60);
        reaches(base, kill, version).await;
        server.kill();
        let killed = Instant::now();
        server = Server::start(data.path(), base);
        let outcome = tokio::time::timeout(Duration::from_mins(2), playing).await.unwrap().unwrap();
        let outcome = outcome.unwrap_or_else(|error| panic!("kill {kill} at version {version}, {way:?}: {error:#}"));
        slowest = slowest.max(killed.elapsed());
        assert!(outcome.converged, "kill {kill} at version {version}, {way:?}: {:?}", outcome.differences);
        assert!(outcome.reconnections >= 1, "kill {kill}: the replay was over before version {version}: {outcome:?}");
        let history = outcome.history.unwrap();
        assert_eq!(history.violations, Vec::<String>::new(), "kill {kill} at version {version}, {way:?}");
        operations += history.operations;
    }
    // What one kill left whole the later ones have not touched.
    let mut client = documents(base).await;
    for (number, text) in texts.iter().enumerate() {
        let (doc_id, _) = document(&mut client, number).await.unwrap();
        let answer = client.get_document(GetDocumentRequest { doc_id }).await.unwrap().into_inner();
        assert!(answer.document.unwrap().content.as_ref() == text.as_bytes(), "document {number} has changed");
    }
    println!("{kills} kills, {operations} operations; from a kill to the end of its replay {slowest:?} at most");
}
