//! Writers of random operations from old states, on the real server, over a link that loses packets and without one.
//!
//! `WRITERS_SECONDS` says how long they write, `WRITERS_SEED` what; the seed in use is printed.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod server;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use server::{Server, binary, free_base, has_quantum, setting};

/// How long they write, in seconds: over a link that loses packets, and on loopback.
const ON_THE_LINK: u64 = 60;
const ON_LOOPBACK: u64 = 8;

/// One after the other: each is a full load.
static ALONE: Mutex<()> = Mutex::new(());

/// Whether links can be made here. A machine that tests the project must be able to.
fn has_links() -> bool {
    let is_able = rustix::process::geteuid().is_root()
        && Path::new("/dev/net/tun").exists()
        && Command::new("ip").args(["netns", "list"]).output().is_ok_and(|output| output.status.success());
    if !is_able {
        assert!(std::env::var_os("CI").is_none(), "links need root, /dev/net/tun and iproute2");
        println!("SKIPPED: writers over a link that loses packets: it needs root, /dev/net/tun and iproute2");
    }
    is_able
}

/// What calls can be carried by here.
fn transports() -> Vec<&'static str> {
    if has_quantum("writers over Quantum") { vec!["quantum-grpc", "tcp-grpc"] } else { vec!["tcp-grpc"] }
}

/// A link between two network namespaces, until it is dropped.
struct Link {
    child: Child,
    namespaces: [String; 2],
    address: String,
}

impl Link {
    /// 25 ms and 3 % loss each way.
    fn start(seed: u64) -> Self {
        let name = format!("writers-{}", std::process::id());
        let mut child = Command::new(binary("aetherflow-bench"))
            .args(["link", "--name", &name, "--delay-ms", "25", "--loss", "3", "--seed", &seed.to_string()])
            // The link ends with its command, whose input ends with this process.
            .args(["--", "sh", "-c", "echo $NS_A $NS_B $ADDR_B; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let [near, far, address] = <[String; 3]>::try_from(words).expect("the command sees three variables");
        Self { child, namespaces: [near, far], address }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It takes its namespaces with it.
        let _ = self.child.wait();
    }
}

/// Runs `writers` and checks what it says.
fn write(mut writers: Command, transport: &str, seconds: u64, seed: u64) {
    writers.args(["--transport", transport, "--seconds", &seconds.to_string(), "--seed", &seed.to_string()]);
    let output = writers.stdin(Stdio::null()).output().unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "WRITERS_SEED={seed} over {transport}: {said}\n{errors}");
    let outcome: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    println!("WRITERS_SEED={seed}: {outcome}");
    assert_eq!(outcome["violations"], serde_json::json!([]));
    let sum = |key: &str| {
        let documents = outcome["documents"].as_object().unwrap();
        assert_eq!(documents.len(), 6);
        documents.values().map(|tally| tally[key].as_u64().unwrap()).sum::<u64>()
    };
    let [applied, won, lost, kept, refused] = ["applied", "won", "lost", "kept", "refused"].map(sum);
    assert_eq!(applied + won + lost + kept + refused, outcome["operations"].as_u64().unwrap());
    // Eight writers, 300 ms between operations, six documents: more than 100 a second. A busy machine may make fewer.
    assert!(applied > 40 * seconds, "{applied} operations were applied in {seconds} s");
    assert!(won > 0 && kept > 0, "nobody met anybody: {outcome}");
}

#[test]
fn eight_writers_with_old_states_over_a_lossy_link_lose_nothing_silently() {
    if !has_links() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let seconds = setting("WRITERS_SECONDS", ON_THE_LINK);
    let seed = setting("WRITERS_SEED", rand::random());
    println!("WRITERS_SEED={seed}");
    let transports = transports();
    for transport in &transports {
        let link = Link::start(seed);
        let data = tempfile::tempdir().unwrap();
        let server = Server::start_inside(&link.namespaces[1], &link.address, data.path());
        let mut writers = Command::new("ip");
        writers.args(["netns", "exec", &link.namespaces[0]]).arg(binary("aetherflow-bench"));
        writers.args(["writers", "--to", &format!("{}:9002", link.address)]);
        if *transport == "quantum-grpc" {
            writers.arg("--ca").arg(data.path().join("cert.pem"));
        }
        write(writers, transport, seconds / transports.len() as u64, seed);
        drop(server);
    }
}

#[test]
fn eight_writers_with_old_states_on_loopback_lose_nothing_silently() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let seconds = setting("WRITERS_SECONDS", ON_LOOPBACK);
    let seed = setting("WRITERS_SEED", rand::random());
    println!("WRITERS_SEED={seed}");
    for transport in transports() {
        let data = tempfile::tempdir().unwrap();
        let base = free_base();
        let server = Server::start(data.path(), base);
        let mut writers = Command::new(binary("aetherflow-bench"));
        writers.args(["writers", "--to", &format!("127.0.0.1:{}", base + 2)]);
        if transport == "quantum-grpc" {
            writers.arg("--insecure-loopback");
        }
        write(writers, transport, seconds, seed);
        drop(server);
    }
}
