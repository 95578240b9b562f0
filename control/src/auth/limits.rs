//! How often one caller may make calls that cost much: those that list, read a history, open a stream or make something.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::config::RateLimit;
use crate::status::DOMAIN;

/// Callers that are remembered. When it is full, those whose buckets are full again are forgotten; if there are none, further
/// callers share one bucket.
const CALLERS_MAX: usize = 10_000;
/// The methods that are counted.
const EXPENSIVE: [&str; 11] = [
    "/session.SessionService/CreateSession",
    "/session.SessionService/ListSessions",
    "/session.SessionService/GetStats",
    "/aetherflow.statesync.StateSyncService/CreateDocument",
    "/aetherflow.statesync.StateSyncService/ListDocuments",
    "/aetherflow.statesync.StateSyncService/ApplyOperations",
    "/aetherflow.statesync.StateSyncService/GetOperationHistory",
    "/aetherflow.statesync.StateSyncService/SubscribeDocument",
    "/aetherflow.statesync.StateSyncService/GetStats",
    "/aetherflow.statesync.StateSyncService/ListConflicts",
    "/aetherflow.statesync.StateSyncService/ResolveConflict",
];

/// One caller's bucket and when it was used last.
struct Bucket {
    limiter: Arc<DefaultDirectRateLimiter>,
    used: Instant,
}

/// The buckets of all callers.
pub(super) struct Limits {
    rules: RateLimit,
    quota: Quota,
    callers: Mutex<HashMap<String, Bucket>>,
    others: Arc<DefaultDirectRateLimiter>,
}

impl Limits {
    pub(super) fn new(rules: RateLimit) -> Self {
        let count = |count: u32| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(count(rules.rate)).allow_burst(count(rules.burst));
        let others = Arc::new(RateLimiter::direct(quota));
        Self { rules, quota, callers: Mutex::default(), others }
    }

    pub(super) fn rules(&self) -> &RateLimit {
        &self.rules
    }

    /// Counts a call; how long to wait if it is one too many.
    pub(super) fn check(&self, caller: &str, method: &str) -> Result<(), Duration> {
        if !self.rules.enable || !EXPENSIVE.contains(&method) {
            return Ok(());
        }
        let limiter = self.limiter(caller, Instant::now());
        limiter.check().map_err(|refused| refused.wait_time_from(DefaultClock::default().now()))
    }

    fn limiter(&self, caller: &str, now: Instant) -> Arc<DefaultDirectRateLimiter> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = callers.get_mut(caller) {
            bucket.used = now;
            return Arc::clone(&bucket.limiter);
        }
        if callers.len() >= CALLERS_MAX {
            // A bucket that is full is as good as a fresh one.
            let filled_in = self.quota.burst_size_replenished_in();
            callers.retain(|_, bucket| now.duration_since(bucket.used) < filled_in);
        }
        if callers.len() >= CALLERS_MAX {
            return Arc::clone(&self.others);
        }
        let limiter = Arc::new(RateLimiter::direct(self.quota));
        callers.insert(caller.to_owned(), Bucket { limiter: Arc::clone(&limiter), used: now });
        limiter
    }
}

/// What a caller is told whose bucket is empty.
pub(super) fn exhausted(wait: Duration) -> Status {
    let mut details = ErrorDetails::with_error_info("RATE_LIMITED", DOMAIN, HashMap::new());
    details.set_retry_info(Some(wait));
    let message = format!("too many expensive calls; try again in {} ms", wait.as_millis() + 1);
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "/session.SessionService/ListSessions";

    #[test]
    fn each_caller_has_a_bucket_and_cheap_calls_are_free() {
        let limits = Limits::new(RateLimit { enable: true, rate: 1, burst: 3 });
        for _ in 0..3 {
            assert_eq!(limits.check("ada", LIST), Ok(()));
        }
        let wait = limits.check("ada", LIST).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
        assert_eq!(limits.check("ada", "/session.SessionService/Heartbeat"), Ok(()));
        assert_eq!(limits.check("bob", LIST), Ok(()));
        let off = Limits::new(RateLimit { enable: false, rate: 1, burst: 1 });
        assert!((0..9).all(|_| off.check("ada", LIST).is_ok()));
    }

    #[test]
    fn callers_beyond_the_limit_share_a_bucket_until_others_are_forgotten() {
        let limits = Limits::new(RateLimit { enable: true, rate: 1, burst: 1 });
        let now = Instant::now();
        for caller in 0..CALLERS_MAX {
            limits.limiter(&caller.to_string(), now);
        }
        let late = limits.limiter("late", now);
        assert!(Arc::ptr_eq(&late, &limits.limiter("later", now)));
        assert_eq!(limits.callers.lock().unwrap().len(), CALLERS_MAX);
        let rested = now + Duration::from_secs(2);
        assert!(!Arc::ptr_eq(&late, &limits.limiter("late", rested)));
        assert_eq!(limits.callers.lock().unwrap().len(), 1);
    }

    #[test]
    fn every_method_that_is_counted_exists() {
        let known: Vec<String> = crate::telemetry::method_paths().collect();
        for method in EXPENSIVE {
            assert!(known.iter().any(|known| known == method), "{method}");
        }
    }
}
