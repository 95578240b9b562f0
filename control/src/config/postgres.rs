//! The section of PostgreSQL.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Refused, duration};

/// A PostgreSQL server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[expect(missing_docs, reason = "each field is the key of its name")]
pub struct Postgres {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: String,
    #[serde(rename = "DBName")]
    pub db_name: String,
    #[serde(rename = "SSLMode")]
    pub ssl_mode: SslMode,
    #[serde(rename = "SSLRootCert")]
    pub ssl_root_cert: PathBuf,
    pub max_open_conns: u32,
    pub max_idle_conns: u32,
    #[serde(with = "duration")]
    pub dial_timeout: Duration,
    #[serde(with = "duration")]
    pub statement_timeout: Duration,
}

/// Whether connections to PostgreSQL are encrypted, and what is checked of the server (libpq's `sslmode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// Plain text.
    #[default]
    Disable,
    /// Encrypted if the server can.
    Prefer,
    /// Encrypted.
    Require,
    /// Encrypted, and the server's certificate is by a known authority.
    VerifyCa,
    /// The same, and for the host's name.
    VerifyFull,
}

impl Postgres {
    pub(super) fn check(&self) -> Result<(), Refused> {
        for (key, text) in [
            ("Store.Postgres.Host", &self.host),
            ("Store.Postgres.User", &self.user),
            ("Store.Postgres.DBName", &self.db_name),
        ] {
            if text.is_empty() {
                return Err((key, "is required".into()));
            }
        }
        if self.port == 0 {
            return Err(("Store.Postgres.Port", "the server's port, such as 5432".into()));
        }
        if !(2..=1000).contains(&self.max_open_conns) {
            let reason = format!("{} is not between 2 (one writes, one reads) and 1000", self.max_open_conns);
            return Err(("Store.Postgres.MaxOpenConns", reason));
        }
        if self.max_idle_conns > self.max_open_conns {
            let reason = format!("{} is more than MaxOpenConns, {}", self.max_idle_conns, self.max_open_conns);
            return Err(("Store.Postgres.MaxIdleConns", reason));
        }
        for (key, time) in [
            ("Store.Postgres.DialTimeout", self.dial_timeout),
            ("Store.Postgres.StatementTimeout", self.statement_timeout),
        ] {
            if !(Duration::from_millis(10)..=Duration::from_hours(1)).contains(&time) {
                return Err((key, "between 10ms and 1h, such as 3s".into()));
            }
        }
        let is_checked = matches!(self.ssl_mode, SslMode::VerifyCa | SslMode::VerifyFull);
        if !is_checked && !self.ssl_root_cert.as_os_str().is_empty() {
            let reason = "is only used with SSLMode verify-ca or verify-full: choose one of them, or leave this empty";
            return Err(("Store.Postgres.SSLRootCert", reason.into()));
        }
        Ok(())
    }
}

impl Default for Postgres {
    fn default() -> Self {
        Self {
            host: "localhost".into(),
            port: 5432,
            user: "postgres".into(),
            password: "postgres".into(),
            db_name: "aetherflow".into(),
            ssl_mode: SslMode::default(),
            ssl_root_cert: PathBuf::new(),
            max_open_conns: 25,
            max_idle_conns: 5,
            dial_timeout: Duration::from_secs(1),
            statement_timeout: Duration::from_secs(3),
        }
    }
}
