//! What a connection without traffic holds.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "it measures what real work takes"
)]

use std::alloc::System;
use std::time::Duration;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

mod crowd;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CONNECTIONS: usize = 256;
/// Beside its stream buffers, of which there are none. The goal is 4 KiB. What TLS holds in C is not counted.
const BYTES_MAX: i64 = 6 << 10;
/// Of both sides together, in an hour of keepalives: a range for each packet number that was left out, and there are few.
const GROWTH_MAX: i64 = 512;

/// Bytes that are allocated.
fn live(region: &Region<'_, System>) -> i64 {
    let change = region.change();
    change.bytes_allocated as i64 - change.bytes_deallocated as i64
}

#[test]
fn a_connection_at_rest_takes_less_than_6_kib_on_either_side_and_no_more_in_time() {
    for (part, bytes) in quantum::connection_part_sizes() {
        println!("{bytes:6} {part}");
    }
    let mut crowd = crowd::Crowd::new(CONNECTIONS);
    crowd.connect(CONNECTIONS);
    for _ in 0..8 {
        crowd.use_each(&[7; 2_000]);
    }
    crowd.rest(Duration::from_secs(35));
    let region = Region::new(ALLOCATOR);
    crowd.rest(Duration::from_hours(1));
    let growth = live(&region) / CONNECTIONS as i64;
    let region = Region::new(ALLOCATOR);
    drop(crowd.client);
    let client = -live(&region) / CONNECTIONS as i64;
    drop(crowd.server);
    let server = -live(&region) / CONNECTIONS as i64 - client;
    println!("bytes of a connection at rest: {server} at the server, {client} at the client; {growth} more in an hour");
    assert!(server < BYTES_MAX && client < BYTES_MAX, "{server} at the server, {client} at the client");
    assert!(growth < GROWTH_MAX, "{growth} bytes more in an hour");
}
