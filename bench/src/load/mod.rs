//! The load generator: `serve`, `drive` and `bulk`.

pub mod bulk;
pub mod drive;
mod meter;
mod pace;
mod record;
pub mod serve;

use std::future::Future;
use std::net::IpAddr;
use std::time::Instant;

use bytes::Bytes;

pub use meter::{Meter, Wire};
pub use record::{Latencies, histogram};

/// A connection that answers requests with what they carried.
pub trait Echo: Clone + Send + Sync + 'static {
    /// Sends one request and waits for its answer.
    fn call(&self, payload: Bytes) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Sends chunks until the time is over; gives the bytes that the other side says it got.
    fn upload(&self, chunk: Bytes, until: Instant) -> impl Future<Output = anyhow::Result<u64>> + Send;

    /// Who counts what the connection puts on the wire.
    fn wire(&self, peer: IpAddr) -> Wire {
        Wire::of_interfaces(peer)
    }
}
