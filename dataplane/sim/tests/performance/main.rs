//! What the protocol achieves on paths that lose packets, in virtual time. The figures are printed.

mod bulk;
mod bursts;
mod changes;
mod cubic;
mod fairness;
mod messages;
mod priority;
mod transfer;

use std::time::Duration;

use quantum::{CongestionControl, EndpointConfig, Event, FecConfig, FecMode};
use quantum_sim::{Cipher, LinkConfig, Pair};

fn path(delay_ms: u64, loss_percent: f64, rate_bits_per_s: Option<u64>) -> LinkConfig {
    LinkConfig { delay: Duration::from_millis(delay_ms), loss_percent, rate_bits_per_s, ..LinkConfig::default() }
}

/// A client and a server that are connected.
fn connected(link: &LinkConfig, config: &EndpointConfig, seed: u64) -> Pair {
    let mut pair = Pair::new(link, config, seed, Cipher::Null).expect("the link makes sense");
    let mut connected = 0;
    let limit = pair.now() + Duration::from_secs(30);
    while connected < 2 {
        pair.step(limit, |_, _, event| connected += u32::from(matches!(event, Event::Connected { .. })));
        assert!(pair.now() < limit, "no connection");
    }
    pair
}

fn with_fec() -> EndpointConfig {
    fec(FecMode::Adaptive)
}

fn without_fec() -> EndpointConfig {
    fec(FecMode::Off)
}

fn fec(mode: FecMode) -> EndpointConfig {
    EndpointConfig { fec: FecConfig { mode, ..FecConfig::default() }, ..EndpointConfig::default() }
}

fn percentile(times: &[Duration], share: f64) -> Duration {
    times[((times.len() as f64 * share).ceil() as usize).clamp(1, times.len()) - 1]
}

fn cubic() -> EndpointConfig {
    EndpointConfig { congestion: CongestionControl::Cubic, ..EndpointConfig::default() }
}
