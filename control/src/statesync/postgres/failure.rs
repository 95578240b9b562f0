//! Why something was not done, as far as it matters for what to do next.

use std::time::Duration;

use crate::store::StoreError;

/// Why something was not done.
#[derive(Debug)]
pub(super) enum Failure {
    /// The connection is gone or of no use; another one may do.
    Lost(String),
    /// Nothing came in this time, zero where the server itself gave up: another attempt would wait as long.
    Silent(Duration),
    /// The document is not as its writer believes: somebody else writes it too.
    Stale,
    /// Anything else.
    Store(StoreError),
}

/// SQLSTATE codes after which the connection, or the server behind it, is of no use: the server is shut down, was told to end the
/// connection, has crashed, starts, has no room, or became the standby of another.
const LOST: [&str; 6] = ["57P01", "57P02", "57P03", "57P05", "53300", "25006"];
/// Connection exceptions.
const LOST_CLASS: &str = "08";
/// The server gave up on a statement that took too long or waited too long for a lock, or on a forgotten transaction.
const SILENT: [&str; 3] = ["57014", "55P03", "25P03"];
/// A version, an operation or a key is there already.
const UNIQUE: &str = "23505";

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        let code =
            error.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap_or_default().into_owned();
        let code = code.as_str();
        let is_connection = matches!(
            error,
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::BeginFailed
        );
        if is_connection || code.starts_with(LOST_CLASS) || LOST.contains(&code) {
            Failure::Lost(error.to_string())
        } else if SILENT.contains(&code) {
            Failure::Silent(Duration::ZERO)
        } else if code == UNIQUE {
            Failure::Stale
        } else {
            Failure::Store(error.into())
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Failure::Store(error)
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Lost(reason) => StoreError::Failed(format!("PostgreSQL: {reason}")),
            Failure::Silent(waited) if waited.is_zero() => {
                StoreError::Failed("PostgreSQL: a statement took too long".to_owned())
            }
            Failure::Silent(waited) => StoreError::Failed(format!("PostgreSQL: no answer within {waited:?}")),
            Failure::Stale => StoreError::Failed("PostgreSQL: another service writes the same document".to_owned()),
            Failure::Store(error) => error,
        }
    }
}
