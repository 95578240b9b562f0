//! What keeps shards from starting.

use std::io;
use std::net::SocketAddr;

/// Why shards cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// The UDP port is taken.
    #[error("UDP {0} is in use by another process; stop it or choose another port")]
    AddressInUse(SocketAddr),
    /// The socket cannot be had.
    #[error("cannot open a UDP socket on {address}: {source}")]
    Socket {
        /// Where.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel gives no `io_uring`.
    #[error(
        "io_uring is not available ({0}); it needs Linux 6.1 or later, and /proc/sys/kernel/io_uring_disabled and the \
         container's seccomp profile must allow it"
    )]
    Uring(io::Error),
    /// The limit of locked memory is too low.
    #[error(
        "the limit of locked memory, {limit_kib} KiB for all processes of this user, is too low: io_uring needs 512 KiB, \
         and each shard on glommio takes 256 KiB; raise it with `ulimit -l` or LimitMEMLOCK, or use host bare"
    )]
    LockedMemory {
        /// The limit.
        limit_kib: u64,
    },
    /// The host cannot run the thread.
    #[error("the shard's executor cannot start: {0}")]
    Host(String),
    /// The shard's thread cannot be made, or ended without a word.
    #[error("the shard's thread failed: {0}")]
    Thread(String),
    /// A ring, a doorbell or a wait failed.
    #[error("the shard's I/O failed: {0}")]
    Io(#[from] io::Error),
    /// Nonsense was asked for.
    #[error("{0}")]
    Config(String),
}
