//! The section of a Redis server.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Refused, duration};

/// A Redis server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[expect(missing_docs, reason = "each field is the key of its name")]
pub struct Redis {
    pub addr: String,
    pub password: String,
    #[serde(rename = "DB")]
    pub db: i64,
    pub key_prefix: String,
    pub pool_size: u32,
    pub min_idle_conns: u32,
    pub max_retries: u32,
    #[serde(with = "duration")]
    pub dial_timeout: Duration,
    #[serde(with = "duration")]
    pub read_timeout: Duration,
    #[serde(with = "duration")]
    pub write_timeout: Duration,
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            addr: "localhost:6379".into(),
            password: String::new(),
            db: 0,
            key_prefix: String::new(),
            pool_size: 10,
            min_idle_conns: 5,
            max_retries: 3,
            dial_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(3),
            write_timeout: Duration::from_secs(3),
        }
    }
}

impl Redis {
    pub(super) fn check(&self) -> Result<(), Refused> {
        let port = self.addr.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(1..))) {
            return Err(("Store.Redis.Addr", format!("{:?} is not HOST:PORT, such as localhost:6379", self.addr)));
        }
        if !(0..=16_383).contains(&self.db) {
            return Err(("Store.Redis.DB", "the number of a database, 0 to 16383".into()));
        }
        if !(1..=1000).contains(&self.pool_size) {
            return Err(("Store.Redis.PoolSize", "1 to 1000 connections".into()));
        }
        for (key, time) in [
            ("Store.Redis.DialTimeout", self.dial_timeout),
            ("Store.Redis.ReadTimeout", self.read_timeout),
            ("Store.Redis.WriteTimeout", self.write_timeout),
        ] {
            if time.is_zero() {
                return Err((key, "some time, such as 3s".into()));
            }
        }
        Ok(())
    }
}
