//! Replays against a running control plane in this process.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod server;

use std::path::{Path, PathBuf};
use std::time::Duration;

use aetherflow_bench::replay::{Encoding, Outcome, ReplayArgs, ReplayTransport, play};
use aetherflow_bench::trace::{self, Trace};
use control::up::{Ports, UpOptions, start};
use server::documents::reaches;
use server::{free_base, has_quantum};

/// The version of the document at which the services are restarted.
const RESTART_AT: u64 = 30;

/// What calls can be carried by here.
fn transports() -> Vec<ReplayTransport> {
    if !has_quantum("replays over Quantum") {
        return vec![ReplayTransport::TcpGrpc];
    }
    vec![ReplayTransport::TcpGrpc, ReplayTransport::QuantumGrpc]
}

/// A replay's arguments against services on free ports.
fn arguments(statesync: &str, session: &str, transport: ReplayTransport, encoding: Encoding) -> ReplayArgs {
    ReplayArgs {
        trace: String::new(),
        to: statesync.to_owned(),
        session_addr: Some(session.to_owned()),
        transport,
        ca: None,
        pin: None,
        insecure_loopback: true,
        encoding,
        speed: 0.0,
        resume: false,
        check_history: true,
        json: true,
    }
}

async fn replayed(trace: Trace, transport: ReplayTransport, encoding: Encoding) -> Outcome {
    let data = tempfile::tempdir().unwrap();
    let running = start(UpOptions::new(data.path())).await.unwrap();
    let addresses = (running.statesync_addr.to_string(), running.session_addr.to_string());
    let mut args = arguments(&addresses.0, &addresses.1, transport, encoding);
    // A longer log is not given out whole.
    args.check_history = trace.transactions.len() < 10_000;
    let outcome = tokio::time::timeout(Duration::from_mins(4), play(&args, trace)).await.unwrap().unwrap();
    running.shutdown().await;
    if let Some(history) = &outcome.history {
        assert_eq!(history.violations, Vec::<String>::new());
        assert!(history.operations > 0 && history.acknowledged == history.operations, "{history:?}");
    }
    outcome
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generated_traces_converge_over_every_transport_in_both_encodings() {
    for transport in transports() {
        for (writers, operations) in [(1, 200), (2, 800), (4, 800)] {
            for encoding in [Encoding::Yjs, Encoding::Json] {
                let trace = trace::generate(writers, operations, 11);
                let outcome = replayed(trace, transport, encoding).await;
                assert!(outcome.converged, "{transport:?}, {writers} writers, {encoding:?}: {:?}", outcome.differences);
                assert_eq!((outcome.operations, outcome.clients), (operations, usize::from(writers.max(2))));
                assert!(outcome.p50_us > 50.0 && outcome.p99_us >= outcome.p50_us, "{outcome:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_over_quantum_is_verified_by_its_certificate_or_its_pin() {
    if !transports().contains(&ReplayTransport::QuantumGrpc) {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let running = start(UpOptions::new(data.path())).await.unwrap();
    let addresses = (running.statesync_addr.to_string(), running.session_addr.to_string());
    let verified = |ca: Option<PathBuf>, pin: Option<String>| {
        let quantum = arguments(&addresses.0, &addresses.1, ReplayTransport::QuantumGrpc, Encoding::Yjs);
        let args = ReplayArgs { ca, pin, insecure_loopback: false, ..quantum };
        async move { play(&args, trace::generate(2, 50, 1)).await }
    };
    let right = data.path().join("cert.pem");
    assert!(verified(Some(right), None).await.unwrap().converged);
    assert!(verified(None, Some(running.fingerprint.clone())).await.unwrap().converged);
    let other = tempfile::tempdir().unwrap();
    let identity = quantum_grpc::Identity::load_or_create(other.path(), &[]).unwrap();
    for error in [
        verified(Some(other.path().join("cert.pem")), None).await.unwrap_err(),
        verified(None, Some(identity.fingerprint())).await.unwrap_err(),
        verified(Some(other.path().join("missing.pem")), None).await.unwrap_err(),
        verified(None, Some("not hex".to_owned())).await.unwrap_err(),
    ] {
        assert!(format!("{error:#}").contains("cannot connect"), "{error:#}");
    }
    let error = verified(None, None).await.unwrap_err();
    assert!(error.to_string().contains("one of --ca FILE, --pin HEX, --insecure-loopback"), "{error:#}");
    running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_that_does_not_end_as_it_says_is_found_out() {
    let mut trace = trace::generate(2, 100, 3);
    trace.end_content.push('!');
    let outcome = replayed(trace, ReplayTransport::TcpGrpc, Encoding::Yjs).await;
    assert!(!outcome.converged);
    assert_eq!(outcome.differences.len(), 3, "two clients and the server: {:?}", outcome.differences);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_past_the_end_is_an_error_that_names_the_transaction() {
    let json = br#"{"endContent":"x","txns":[{"patches":[[0,0,"x"]]},{"patches":[[5,1,""]]}]}"#;
    let data = tempfile::tempdir().unwrap();
    let running = start(UpOptions::new(data.path())).await.unwrap();
    let addresses = (running.statesync_addr.to_string(), running.session_addr.to_string());
    for encoding in [Encoding::Yjs, Encoding::Json] {
        let args = arguments(&addresses.0, &addresses.1, ReplayTransport::TcpGrpc, encoding);
        let error = format!("{:#}", play(&args, trace::parse(json).unwrap()).await.unwrap_err());
        assert!(error.contains("position 5") && error.contains("past the end"), "{error}");
    }
    running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_traces_converge_over_every_transport_in_both_encodings() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let named: Vec<PathBuf> =
        ["friendsforever.json.gz", "sveltecomponent.json.gz"].map(|name| shared.join(name)).into();
    for file in named {
        let trace = if file.exists() {
            trace::load(file.to_str().unwrap()).unwrap()
        } else {
            println!("{} is not there; a generated trace takes its place", file.display());
            trace::generate(2, 5000, 1)
        };
        for transport in transports() {
            for encoding in [Encoding::Yjs, Encoding::Json] {
                let outcome = replayed(trace.clone(), transport, encoding).await;
                assert!(outcome.converged, "{transport:?}, {encoding:?}: {:?}", outcome.differences);
                println!("{}", outcome.summary());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_resumes_goes_on_after_the_services_were_restarted() {
    let data = tempfile::tempdir().unwrap();
    let base = free_base();
    let options = UpOptions { ports: Ports::Base(base), ..UpOptions::new(data.path()) };
    let ways = transports().into_iter().flat_map(|transport| [(transport, Encoding::Yjs), (transport, Encoding::Json)]);
    for (number, (transport, encoding)) in ways.enumerate() {
        let running = start(options.clone()).await.unwrap();
        let addresses = (running.statesync_addr.to_string(), running.session_addr.to_string());
        let mut args = arguments(&addresses.0, &addresses.1, transport, encoding);
        // 400 transactions, 20 ms apart: 2 seconds at four times the pace, with the restart in it.
        (args.resume, args.speed) = (true, 4.0);
        let playing = tokio::spawn(async move { play(&args, trace::generate(2, 400, 8)).await });
        reaches(base, number, RESTART_AT).await;
        running.shutdown().await;
        let running = start(options.clone()).await.unwrap();
        let outcome = tokio::time::timeout(Duration::from_mins(1), playing).await.unwrap().unwrap().unwrap();
        assert!(outcome.converged, "{transport:?}, {encoding:?}: {:?}", outcome.differences);
        assert_eq!(outcome.history.as_ref().unwrap().violations, Vec::<String>::new());
        assert!(outcome.reconnections >= 2, "both clients lost their connection: {outcome:?}");
        running.shutdown().await;
    }
}
