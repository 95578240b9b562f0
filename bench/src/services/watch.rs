//! What a stretch of time cost the client, the service and the store's server.

use super::process;
use crate::load::{Meter, Meters};

/// Whom to watch.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    meters: Meters,
    store: Option<u32>,
}

/// A reading, or the difference of two.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spent {
    pub(super) meter: Meter,
    /// Processor time of the store's server, if it is one that this program started.
    pub(super) store_cpu_s: Option<f64>,
}

impl Watch {
    /// This process and the service by `meters`, and the server of a store by its process id.
    pub(super) fn new(meters: Meters, store: Option<u32>) -> Self {
        Self { meters, store }
    }

    /// Reads the counters.
    pub(super) fn read(&self) -> Spent {
        Spent { meter: self.meters.read(), store_cpu_s: self.store.and_then(process::cpu_s_of_server) }
    }
}

impl Spent {
    /// What was counted since an earlier reading.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let store_cpu_s = self.store_cpu_s.zip(earlier.store_cpu_s).map(|(later, earlier)| later - earlier);
        Self { meter: self.meter.since(&earlier.meter), store_cpu_s }
    }
}
