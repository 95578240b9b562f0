//! The stores of a run: the servers that they need, and an empty space in them for each measurement.

mod postgres;
mod redis;
mod url;

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use private_stores::{Programs, StartError};

use super::args::ServerArgs;
use super::store::Store;
use postgres::PostgresServer;
// Not the crate.
use self::redis::RedisServer;

/// How long a server may take to start, and how often it is asked.
const START_TIME: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(10);

/// The servers that were asked for.
#[derive(Default)]
pub(super) struct Stores {
    redis: Option<RedisServer>,
    postgres: Option<PostgresServer>,
    /// What is left out of the run, and why.
    pub(super) skipped: Vec<String>,
}

/// Room for the data of one measurement, empty.
pub(super) struct Space {
    /// What keeps it.
    pub(super) store: Store,
    /// The section `Store` of the service's configuration.
    pub(super) section: String,
    /// The store's server, if this program started it.
    pub(super) server: Option<u32>,
    /// The port of the store's server.
    pub(super) port: Option<u16>,
    /// The database or the prefix of keys.
    name: String,
}

impl Stores {
    /// Starts or finds the servers of `wanted`, their data in folders of their own in `parent`.
    ///
    /// # Errors
    /// If one does not start. One that is not installed is left out where `may_skip`.
    pub(super) async fn start(
        args: &ServerArgs,
        wanted: &[Store],
        parent: &Path,
        may_skip: bool,
    ) -> anyhow::Result<Self> {
        let programs = programs(args);
        let mut stores = Self::default();
        if wanted.contains(&Store::Redis) {
            let started = RedisServer::start(args.redis_url.as_deref(), &programs, parent).await;
            stores.redis = stores.found(started, may_skip, "--tools DIR or --redis-url URL")?;
        }
        if wanted.contains(&Store::Postgres) {
            let started = PostgresServer::start(args.postgres_url.as_deref(), &programs, parent).await;
            stores.postgres = stores.found(started, may_skip, "--tools DIR or --postgres-url URL")?;
        }
        Ok(stores)
    }

    fn found<T>(&mut self, started: anyhow::Result<T>, may_skip: bool, fix: &str) -> anyhow::Result<Option<T>> {
        match started {
            Err(error) if may_skip && is_missing(&error) => {
                self.skipped.push(format!("{error:#}; give {fix}"));
                Ok(None)
            }
            Err(error) if is_missing(&error) => Err(error.context(format!("give {fix}"))),
            started => started.map(Some),
        }
    }

    /// Whether a store can be measured.
    pub(super) fn has(&self, store: Store) -> bool {
        match store {
            Store::Redis => self.redis.is_some(),
            Store::Postgres => self.postgres.is_some(),
            Store::Memory | Store::Sqlite | Store::TonicFloor => true,
        }
    }

    /// An empty space, to be given back with [`Self::close`].
    ///
    /// # Errors
    /// If the store's server refuses.
    pub(super) async fn open(&self, store: Store) -> anyhow::Result<Space> {
        match store {
            Store::Redis => Ok(self.redis.as_ref().context("there is no Redis")?.open()),
            Store::Postgres => self.postgres.as_ref().context("there is no PostgreSQL")?.open().await,
            Store::Memory | Store::Sqlite | Store::TonicFloor => Ok(Space::embedded(store)),
        }
    }

    /// Removes what was kept in a space.
    ///
    /// # Errors
    /// If the store's server refuses.
    pub(super) async fn close(&self, space: &Space) -> anyhow::Result<()> {
        match (space.store, &self.redis, &self.postgres) {
            (Store::Redis, Some(redis), _) => redis.close(space).await,
            (Store::Postgres, _, Some(postgres)) => postgres.close(space).await,
            _ => Ok(()),
        }
    }
}

impl Space {
    /// In the service's process, or in files of its data folder.
    pub(super) fn embedded(store: Store) -> Self {
        let section = format!("Store:\n  Type: {}\n", store.name());
        Self { store, section, server: None, port: None, name: String::new() }
    }
}

fn is_missing(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(StartError::Missing { .. }))
}

/// Waits until a server is up, so that an interruption is heard meanwhile.
async fn up(what: &str, mut is_up: impl FnMut() -> Result<bool, StartError>) -> anyhow::Result<()> {
    let waiting = async {
        while !is_up()? {
            tokio::time::sleep(POLL).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(START_TIME, waiting).await.with_context(|| format!("{what} does not answer"))?
}

/// Where the servers' programs are looked for.
fn programs(args: &ServerArgs) -> Programs {
    let named = args.tools.iter().flat_map(|folder| [folder.clone(), folder.join("bin"), folder.join("usr/bin")]);
    let path = std::env::var_os("PATH").unwrap_or_default();
    Programs::new(named, std::env::split_paths(&path))
}

/// Text in JSON's quotes is text in YAML's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
