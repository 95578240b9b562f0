//! A gRPC server in a process of its own: what hostile datagrams, stalled readers and clients that die leave behind there.
//!
//! The other processes are this program too: a test that is told by its environment to be one (`roles.rs`).
#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

mod captured;
mod coming_and_going;
mod flood;
mod roles;
mod service;
mod syn_flood;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quantum_grpc::{Channel, ClientConfig, Endpoint, EndpointOptions, Verify};
use quantum_shard::{HostKind, Shards};

use roles::Process;
use service::Client;

/// As in the programs that are shipped: it gives memory back that glibc would keep.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What the server's process has.
#[derive(Clone, Copy, Debug)]
struct Holdings {
    rss_kib: u64,
    descriptors: usize,
    tasks: u64,
    handlers: u64,
}

impl Holdings {
    async fn of(server: &Process, keeper: &mut Client) -> Self {
        let state = keeper.state().await;
        let (tasks, handlers) = (state.tasks, state.handlers);
        Self { rss_kib: server.rss_kib(), descriptors: server.descriptors(), tasks, handlers }
    }

    /// What it has once it is at rest: the tasks of calls that have just been answered have ended.
    async fn at_rest(server: &Process, keeper: &mut Client) -> Self {
        let mut found = Self::of(server, keeper).await;
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let last = std::mem::replace(&mut found, Self::of(server, keeper).await);
            if (last.descriptors, last.tasks, last.handlers) == (found.descriptors, found.tasks, found.handlers) {
                return found;
            }
        }
        panic!("the server does not come to rest: {found:?}");
    }

    /// Whether it is back at what it was: 10 % and 8 MiB of memory are allowed for what an allocator keeps.
    fn is_back_at(&self, start: &Self) -> bool {
        self.rss_kib <= start.rss_kib + start.rss_kib / 10 + (8 << 10)
            && (self.descriptors, self.tasks, self.handlers) == (start.descriptors, start.tasks, start.handlers)
    }
}

/// Waits until the server has what it had at the start, for at most five seconds.
async fn settles(what: &str, server: &Process, keeper: &mut Client, start: &Holdings) {
    let since = Instant::now();
    loop {
        let end = Holdings::of(server, keeper).await;
        if end.is_back_at(start) {
            println!("{what}: back after {:?}: {start:?} at the start, {end:?}", since.elapsed());
            return;
        }
        assert!(
            since.elapsed() < Duration::from_secs(5),
            "{what}: not back after 5 s: {start:?} at the start, {end:?}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// These tests measure a machine: one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether shards can run here. Without them a test passes by saying so, but not where all has to be tested.
fn has_shards() -> bool {
    let Err(error) = Shards::check() else { return true };
    assert!(std::env::var_os("CI").is_none(), "{error}");
    println!("SKIPPED: {error}");
    false
}

/// A client endpoint of its own: one socket, one thread that locks no memory.
fn endpoint() -> Endpoint {
    Endpoint::client(&EndpointOptions { host: HostKind::Bare, ..EndpointOptions::default() }).unwrap()
}

fn channel(endpoint: &Endpoint, address: &str) -> Channel {
    Channel::connect_lazy(endpoint.clone(), address, ClientConfig::new(Verify::InsecureLoopback))
}
