//! Connections without traffic on one endpoint: what a round of keepalives costs, and what memory they hold. Virtual time, real
//! handshakes and keys. `IDLE_CONNECTIONS=1000` for fewer of them.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "it measures what real work takes"
)]

use std::time::{Duration, Instant};

#[path = "../tests/crowd/mod.rs"]
mod crowd;

const CONNECTIONS: usize = 100_000;
/// An endpoint's interval of keepalives, and a little for the packets of one.
const KEEPALIVE: Duration = Duration::from_millis(10_200);
const ROUNDS: u32 = 3;

fn main() {
    let count = std::env::var("IDLE_CONNECTIONS").map_or(CONNECTIONS, |count| count.parse().unwrap());
    let mut crowd = crowd::Crowd::new(count);
    let (before, begun) = (resident_bytes(), Instant::now());
    crowd.connect(count);
    println!("{count} handshakes: {:.1} s for both sides", begun.elapsed().as_secs_f64());
    crowd.use_each(&[7; 256]);
    // The first round still carries what the handshakes left.
    crowd.rest(KEEPALIVE + Duration::from_secs(1));
    let held = resident_bytes().saturating_sub(before);
    println!("resident memory of both sides: {} bytes for each connection and side", held / count as u64 / 2);
    for round in 1..=ROUNDS {
        crowd.server_took = Duration::ZERO;
        let longest = crowd.rest(KEEPALIVE);
        let each = crowd.server_took / count as u32;
        println!(
            "keepalive round {round}: {:?} of the server, {each:?} for each connection, {longest:?} at one moment at most",
            crowd.server_took
        );
    }
    assert_eq!(crowd.server.stats().connections, count as u64);
}

/// Memory of this process; 0 where the kernel does not say.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() << 10
}
