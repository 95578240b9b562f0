//! The load generator: `serve`, `drive` and `bulk`.

pub mod arrivals;
pub mod bulk;
pub mod drive;
mod meter;
pub(crate) mod pace;
mod record;
mod recovery;
pub mod serve;
mod window;

use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;

pub use arrivals::{Arrivals, Arrived};
pub use meter::{Meter, Meters, Wire};
pub use record::{Latencies, histogram};
pub use recovery::{Recovery, RecoveryBucket, RecoveryResult};
pub(crate) use window::Window;

/// A server that refuses everything is not asked a million times.
pub(crate) const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(1);

/// A connection that answers requests with what they carried.
pub trait Echo: Clone + Send + Sync + 'static {
    /// Sends one request and waits for its answer.
    fn call(&self, payload: Bytes) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Sends chunks for so long; gives what the other side says it got.
    fn upload(&self, chunk: Bytes, measured: Duration) -> impl Future<Output = anyhow::Result<Arrived>> + Send;

    /// Who counts what the connection puts on the wire.
    fn wire(&self, peer: IpAddr) -> Wire {
        Wire::of_interfaces(peer)
    }
}
