//! How a client comes back to a server that is gone for a while.

use std::time::{Duration, Instant};

use tonic::{Code, Status};

/// A server that stays away for longer has failed.
const RECONNECT_FOR: Duration = Duration::from_mins(1);
/// The first pause between two attempts, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Whether a call failed because the connection did.
pub(crate) fn is_lost(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded | Code::Internal
    )
}

/// Attempts to connect again, each after a longer pause.
pub(crate) struct Attempts<'a> {
    broken: &'a Status,
    until: Instant,
    pause: Duration,
}

impl<'a> Attempts<'a> {
    /// From now on, because of `broken`.
    pub(crate) fn after(broken: &'a Status) -> Self {
        Self { broken, until: Instant::now() + RECONNECT_FOR, pause: PAUSES.0 }
    }

    /// Returns when the next attempt is due.
    ///
    /// # Errors
    /// Why the last one failed, if there is no time for another.
    pub(crate) async fn failed(&mut self, error: anyhow::Error) -> anyhow::Result<()> {
        if Instant::now() > self.until {
            return Err(error.context(format!("after: {}", self.broken)));
        }
        tracing::debug!(%error, "not connected yet");
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSES.1);
        Ok(())
    }
}
