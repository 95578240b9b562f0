//! What arrives of a bulk transfer, by the receiver's clock: it counts nothing that waits in somebody's buffer, and a path
//! that delivers nothing for a while still ends its measurement in time.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;

/// Bytes in which a sender says how long to count: milliseconds.
pub const REQUEST_BYTES: usize = 8;
/// Bytes of a report: three numbers.
pub const REPORT_BYTES: usize = 24;
/// The longest measurement.
const MEASURED_MAX: Duration = Duration::from_hours(24);
/// A report that is so late will not come: its connection is dead, or as good as that.
pub const REPORT_TIMEOUT: Duration = Duration::from_secs(30);

/// What arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived {
    /// Payload.
    pub bytes: u64,
    /// Of it, in the second half of the time.
    pub bytes_second_half: u64,
    /// How long arrivals were counted.
    pub measured: Duration,
}

impl Arrived {
    /// Mbit/s over all the time.
    pub fn mbit_per_s(&self) -> f64 {
        self.bytes as f64 * 8.0 / 1e6 / self.measured.as_secs_f64()
    }

    /// Mbit/s over the second half.
    pub fn mbit_per_s_second_half(&self) -> f64 {
        self.bytes_second_half as f64 * 8.0 / 1e6 / (self.measured.as_secs_f64() / 2.0)
    }

    /// As a stream carries it.
    pub fn to_bytes(self) -> Bytes {
        let numbers = [self.bytes, self.bytes_second_half, self.measured.as_millis() as u64];
        Bytes::from_owner(numbers.map(u64::to_be_bytes).concat())
    }

    /// What a stream carried.
    ///
    /// # Errors
    /// If it is not a report.
    pub fn from_bytes(bytes: &[u8]) -> anyhow::Result<Self> {
        let (numbers, rest) = bytes.as_chunks::<8>();
        let &[bytes, bytes_second_half, ms] = numbers else { anyhow::bail!("no report came back") };
        ensure!(rest.is_empty(), "more than a report came back");
        let number = u64::from_be_bytes;
        Ok(Self { bytes: number(bytes), bytes_second_half: number(bytes_second_half), measured: measured(number(ms))? })
    }
}

/// A time that a peer names.
///
/// # Errors
/// If it is nothing or more than a day.
pub fn measured(ms: u64) -> anyhow::Result<Duration> {
    let measured = Duration::from_millis(ms);
    ensure!(!measured.is_zero() && measured <= MEASURED_MAX, "a measurement of {ms} ms");
    Ok(measured)
}

/// A time as a sender names it.
///
/// # Errors
/// See [`measured`].
pub fn request(duration: Duration) -> anyhow::Result<[u8; REQUEST_BYTES]> {
    let ms = duration.as_millis() as u64;
    measured(ms)?;
    Ok(ms.to_be_bytes())
}

/// The receiver's counters.
#[derive(Debug, Clone, Copy)]
pub struct Arrivals {
    half: Instant,
    end: Instant,
    arrived: Arrived,
}

impl Arrivals {
    /// Counts from `begin` on.
    pub fn new(begin: Instant, measured: Duration) -> Self {
        let arrived = Arrived { bytes: 0, bytes_second_half: 0, measured };
        Self { half: begin + measured / 2, end: begin + measured, arrived }
    }

    /// When counting ends.
    pub fn end(&self) -> Instant {
        self.end
    }

    /// Bytes are here.
    pub fn add(&mut self, now: Instant, bytes: usize) {
        if now < self.end {
            self.arrived.bytes += bytes as u64;
            if now >= self.half {
                self.arrived.bytes_second_half += bytes as u64;
            }
        }
    }

    /// What was counted.
    pub fn arrived(&self) -> Arrived {
        self.arrived
    }
}

/// Waits for a report for as long as one may take.
///
/// # Errors
/// The report's, or that there was none in time.
pub async fn within(
    measured: Duration,
    report: impl Future<Output = anyhow::Result<Arrived>>,
) -> anyhow::Result<Arrived> {
    let reported = tokio::time::timeout(measured + REPORT_TIMEOUT, report).await;
    reported.context("the receiver did not report what arrived")?
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Arrivals, Arrived, measured};

    #[test]
    fn arrivals_count_by_half_and_not_after_the_end() {
        let (begin, second) = (Instant::now(), Duration::from_secs(1));
        let mut arrivals = Arrivals::new(begin, 4 * second);
        for (after, bytes) in [(0, 1), (1, 10), (2, 100), (3, 1000), (4, 10_000), (9, 100_000)] {
            arrivals.add(begin + after * second, bytes);
        }
        let arrived = arrivals.arrived();
        assert_eq!((arrived.bytes, arrived.bytes_second_half), (1111, 1100));
        assert!((arrived.mbit_per_s_second_half() - 1100.0 * 8.0 / 2e6).abs() < 1e-9);
        assert_eq!(Arrived::from_bytes(&arrived.to_bytes()).unwrap(), arrived);
    }

    #[test]
    fn what_is_no_report_is_refused() {
        for bytes in [&[][..], &[1; 8], &[1; 23], &[0; 24], &[255; 24], &[1; 32]] {
            assert!(Arrived::from_bytes(bytes).is_err(), "{bytes:?}");
        }
        assert!(measured(0).is_err() && measured(u64::MAX).is_err() && measured(500).is_ok());
    }
}
