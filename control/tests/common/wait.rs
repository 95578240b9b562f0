//! Waiting for what nobody announces.

use std::fmt::Display;
use std::time::Duration;

use tokio::time::Instant;

/// Between two looks.
const POLL: Duration = Duration::from_millis(10);

/// Looks until it is there; fails after `within`, with what was in the way last.
pub async fn eventually<T, E: Display>(within: Duration, mut look: impl AsyncFnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + within;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(obstacle) => assert!(Instant::now() < deadline, "not within {within:?}: {obstacle}"),
        }
        tokio::time::sleep(POLL).await;
    }
}
