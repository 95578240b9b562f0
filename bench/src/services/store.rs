//! Where the services keep what they are given.

use clap::ValueEnum;
use control::launch::Service;

/// A kind of store, or the peer that has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Store {
    /// In memory
    Memory,
    /// In SQLite, on disk before it is acknowledged
    Sqlite,
    /// Sessions in Redis, which syncs its append-only file before it answers
    Redis,
    /// Documents in PostgreSQL, which syncs what it commits
    Postgres,
    /// Not our services: plain tonic over TCP with a map behind a mutex, sessions and fan-out; what memory is compared with
    TonicFloor,
}

impl Store {
    /// Its name in the services' configuration, on the command line and in the JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Sqlite => "sqlite",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
            Self::TonicFloor => "tonic-floor",
        }
    }

    /// What keeps a service's data where this is asked for: what Redis and PostgreSQL do not keep, SQLite does.
    pub(super) fn of(self, service: Service) -> Self {
        match (self, service) {
            (Self::Redis, Service::Statesync) | (Self::Postgres, Service::Session) => Self::Sqlite,
            _ => self,
        }
    }

    /// Whether an acknowledged call survives the loss of power.
    pub(super) fn is_durable(self) -> bool {
        matches!(self, Self::Sqlite | Self::Redis | Self::Postgres)
    }

    /// Operations on documents that it is to take in a second, if there is such a target.
    pub(super) fn operations_per_s_min(self) -> Option<f64> {
        match self {
            Self::Sqlite => Some(20_000.0),
            Self::Postgres => Some(10_000.0),
            _ => None,
        }
    }
}
