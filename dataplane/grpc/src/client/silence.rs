//! Whether anything comes over a connection on which something is waited for.

use std::time::Duration;

use tokio::time::Instant;

use crate::connection::Connection;

/// How often a connection with streams is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A peer is silent that has left something unacknowledged, and sent nothing else, for so long. By then probe timeouts have asked
/// it again four times at a round trip of 50 ms, with two packets each, and ten times on a local network: of a path that loses a
/// quarter of its packets in each direction, one lull in two thousand lasts as long.
const SILENT_AFTER: Duration = Duration::from_secs(2);
/// Where round trips are long, it takes as many of them.
const SILENT_AFTER_ROUND_TRIPS: u32 = 10;

/// Listens to a connection.
#[derive(Debug)]
pub(super) struct Listening {
    connection: Connection,
    packets_received: u64,
    /// Since when nothing has come that was waited for, as far as it was looked at.
    since: Instant,
}

/// A look at a connection.
struct Look {
    has_come: bool,
    silent_after: Duration,
}

impl Listening {
    pub(super) fn to(connection: Connection) -> Self {
        Self { connection, packets_received: 0, since: Instant::now() }
    }

    /// Waits until the peer is silent; `None` once the connection is over.
    pub(super) async fn until_silent(&mut self) -> Option<()> {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if self.connection.close_reason().is_some() {
                return None;
            }
            if self.connection.streams_open() == 0 {
                // Nobody waits for anything, so a shard without work is left alone.
                self.since = Instant::now();
                continue;
            }
            let look = self.look().await?;
            if self.since.elapsed() >= look.silent_after {
                return Some(());
            }
        }
    }

    /// Waits until something comes; `None` once the connection is over.
    pub(super) async fn until_heard(&mut self) -> Option<()> {
        while !self.look().await?.has_come {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Some(())
    }

    /// Lets the connection go: its calls end with UNAVAILABLE.
    pub(super) fn give_up(self) {
        self.connection.close(0, b"nothing was heard");
    }

    async fn look(&mut self) -> Option<Look> {
        let stats = self.connection.statistics().await.ok()?;
        let has_come = stats.packets_received != self.packets_received;
        if has_come || stats.congestion.in_flight_bytes == 0 {
            (self.packets_received, self.since) = (stats.packets_received, Instant::now());
        }
        Some(Look { has_come, silent_after: SILENT_AFTER.max(stats.rtt_smoothed * SILENT_AFTER_ROUND_TRIPS) })
    }
}
