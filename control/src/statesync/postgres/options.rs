//! Where PostgreSQL is, and how it is spoken to.

use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};

use crate::store::StoreError;

/// Where PostgreSQL is, and how long to wait for it.
#[derive(Clone)]
pub struct PostgresOptions {
    /// A name, an address, or the folder of a Unix socket.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The role.
    pub user: String,
    /// Empty: none.
    pub password: String,
    /// The name of the database.
    pub database: String,
    /// Whether and how the connection is encrypted and the server checked.
    pub ssl_mode: PgSslMode,
    /// PEM file of the authorities that the server's certificate is checked by; none: the well-known ones.
    pub ssl_root_cert: Option<PathBuf>,
    /// Connections at most, those that write included.
    pub connections: u32,
    /// Connections for reading that are kept although nobody reads.
    pub idle_connections: u32,
    /// How long a connection may take, or a reader wait for one that is free.
    pub connect_timeout: Duration,
    /// How long a statement or a group of writes may take.
    pub statement_timeout: Duration,
}

/// Without the password.
impl fmt::Debug for PostgresOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PostgresOptions").field("server", &self.name()).finish_non_exhaustive()
    }
}

impl PostgresOptions {
    /// What the database is called in messages.
    pub(super) fn name(&self) -> String {
        format!("postgres://{}@{}:{}/{}", self.user, self.host, self.port, self.database)
    }

    /// How to connect. The server itself ends statements, waits for locks and forgotten transactions after `limit`; zero: never.
    pub(super) fn connect_options(&self, limit: Duration) -> PgConnectOptions {
        let limit = limit.as_millis().to_string();
        let options = PgConnectOptions::new_without_pgpass()
            .host(&self.host)
            .port(self.port)
            .username(&self.user)
            .database(&self.database)
            .ssl_mode(self.ssl_mode)
            .application_name("aetherflow")
            .options([
                ("statement_timeout", limit.as_str()),
                ("lock_timeout", limit.as_str()),
                ("idle_in_transaction_session_timeout", limit.as_str()),
                // What the guards of the writes count on: a row that somebody else just changed is looked at again.
                ("default_transaction_isolation", "read committed"),
            ])
            .disable_statement_logging();
        let options = if self.password.is_empty() { options } else { options.password(&self.password) };
        match &self.ssl_root_cert {
            Some(cert) => options.ssl_root_cert(cert),
            None => options,
        }
    }

    /// A connection whose statements may take `limit`.
    ///
    /// # Errors
    /// [`StoreError::Open`], which says what to do.
    pub(super) async fn connect(&self, limit: Duration) -> Result<PgConnection, StoreError> {
        let options = self.connect_options(limit);
        if let Ok(connected) = tokio::time::timeout(self.connect_timeout, options.connect()).await {
            return connected.map_err(|error| self.cannot_open(&error));
        }
        let reason = format!("no answer within {:?}. {}", self.connect_timeout, UNREACHABLE);
        Err(StoreError::Open { path: self.name().into(), reason })
    }

    /// The error of a database that cannot be used, with what to do about it.
    pub(super) fn cannot_open(&self, error: &sqlx::Error) -> StoreError {
        let code =
            error.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap_or_default().into_owned();
        let remedy = match (code.as_str(), error) {
            ("3D000", _) => format!(
                "Create the database: createdb -h {} -p {} -U {} -E UTF8 {}",
                self.host, self.port, self.user, self.database
            ),
            ("28P01" | "28000", _) => "Check Store.Postgres.User, Password and SSLMode".to_owned(),
            ("42501", _) => "Run `aetherflow migrate up -f FILE` as a role that may create tables".to_owned(),
            (_, sqlx::Error::Tls(_)) => UNTRUSTED.to_owned(),
            // That of a TLS handshake which a certificate ended.
            (_, sqlx::Error::Io(error)) if error.kind() == ErrorKind::InvalidData => UNTRUSTED.to_owned(),
            _ if self.ssl_root_cert.as_ref().is_some_and(|file| !file.exists()) => UNTRUSTED.to_owned(),
            (_, sqlx::Error::Io(_)) => UNREACHABLE.to_owned(),
            _ => return StoreError::Open { path: self.name().into(), reason: error.to_string() },
        };
        StoreError::Open { path: self.name().into(), reason: format!("{error}. {remedy}") }
    }
}

const UNTRUSTED: &str = "Check Store.Postgres.SSLMode and SSLRootCert";
const UNREACHABLE: &str = "Check that PostgreSQL runs and that Store.Postgres.Host and Port are its address";
