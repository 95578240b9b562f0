//! Configuration files: YAML with the keys of [`SessionConfig`] and [`StateSyncConfig`], every one with a default, each
//! overridden by an environment variable (`Server.Port` by `AETHERFLOW_SERVER_PORT`).

mod auth;
mod duration;
mod fec;
mod postgres;
mod redis_server;
mod sections;
mod session_manager;
mod traces;
mod tree;

#[cfg(test)]
mod tests;

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use auth::SECRET_BYTES_MIN;
pub use auth::{Auth, AuthKey, KeyAlgorithm, RateLimit};
pub use fec::{Fec, FecMode};
pub use postgres::{Postgres, SslMode};
pub use redis_server::Redis;
pub use sections::{
    Congestion, Log, LogFormat, Manager, Metrics, Quantum, QuantumHost, QuantumIo, Server, SessionConfig,
    SessionService, SessionStore, StateSyncConfig, StateSyncStore, StoreType, SyncMode, Tls,
};
pub use session_manager::SessionManager;
pub use traces::Tracing;

/// Bytes of a configuration file at most.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// What the environment variables that override keys begin with.
const PREFIX: &str = "AETHERFLOW";

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no YAML, or no mapping of sections.
    #[error("{path} is no configuration file: {reason}")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// A key that does not exist.
    #[error("{path}: there is no key {key}{}", .nearest.as_ref().map(|key| format!("; is {key} meant?")).unwrap_or_default())]
    UnknownKey {
        /// Which file.
        path: PathBuf,
        /// The key, its sections before it.
        key: String,
        /// The key that looks most like it.
        nearest: Option<String>,
    },
    /// A value that its key cannot have.
    #[error("{origin}: {key}: {reason}")]
    Value {
        /// The file or the environment variable that it comes from.
        origin: String,
        /// The key, its sections before it.
        key: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
}

/// A value that its key cannot have: the key and what is wrong with it.
pub type Refused = (&'static str, String);

/// A service's configuration.
pub trait Config: Default + Serialize + DeserializeOwned {
    /// Where it lies unless the command line says otherwise.
    const DEFAULT_FILE: &'static str;

    /// Whether the values make sense together.
    ///
    /// # Errors
    /// The key that does not, and why.
    fn check(&self) -> Result<(), Refused>;

    /// Its logs.
    fn log(&self) -> &Log;

    /// Who may call.
    fn auth(&self) -> &Auth;
}

/// A configuration and where it came from.
#[derive(Debug)]
pub struct Loaded<T> {
    /// The configuration.
    pub config: T,
    /// The file, if there was one.
    pub file: Option<PathBuf>,
    /// Environment variables that were heeded.
    pub variables: Vec<String>,
    /// Environment variables that look as if they were meant to be heeded.
    pub ignored: Vec<String>,
}

/// Reads `file`, or the default file where that exists, or neither; and the environment.
///
/// # Errors
/// See [`ConfigError`].
pub fn load<T: Config>(file: Option<&Path>) -> Result<Loaded<T>, ConfigError> {
    let default_file = Some(Path::new(T::DEFAULT_FILE)).filter(|path| path.exists());
    let file = file.or(default_file);
    let text = file.map(read).transpose()?.unwrap_or_default();
    let variables: Vec<_> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    parse(&text, file, &variables)
}

/// Like [`load`], of a file's text and variables that are given.
pub(crate) fn parse<T: Config>(
    text: &str,
    file: Option<&Path>,
    variables: &[(String, String)],
) -> Result<Loaded<T>, ConfigError> {
    let path = file.unwrap_or(Path::new(T::DEFAULT_FILE)).to_owned();
    let defaults = serde_json::to_value(T::default()).expect("a configuration is a tree of plain values");
    let mut given = tree::parse(text).map_err(|reason| ConfigError::Syntax { path: path.clone(), reason })?;
    tree::drop_nulls(&mut given);
    if let Some((key, nearest)) = tree::unknown(&given, &defaults) {
        return Err(ConfigError::UnknownKey { path, key, nearest });
    }
    let mut merged = defaults.clone();
    tree::merge(&mut merged, given);
    let heeded = tree::overlay(&mut merged, &defaults, PREFIX, variables);
    let origin = |key: &str| {
        heeded.iter().find(|(heeded, _)| heeded == key).map_or(path.display().to_string(), |(_, name)| name.clone())
    };
    let config: T = serde_path_to_error::deserialize(merged).map_err(|error| {
        let key = error.path().to_string();
        ConfigError::Value { origin: origin(&key), key, reason: error.into_inner().to_string() }
    })?;
    config.check().map_err(|(key, reason)| ConfigError::Value { origin: origin(key), key: key.to_owned(), reason })?;
    let ignored = tree::ignored(&defaults, PREFIX, variables);
    Ok(Loaded {
        config,
        file: file.map(Path::to_owned),
        variables: heeded.into_iter().map(|(_, name)| name).collect(),
        ignored,
    })
}

/// A configuration as a file would have it, every key with its value.
pub fn to_yaml<T: Config>(config: &T) -> String {
    serde_saphyr::to_string(config).expect("a configuration is a tree of plain values")
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::File { path: path.to_owned(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        let reason = format!("it has more than {FILE_BYTES_MAX} bytes");
        return Err(ConfigError::Syntax { path: path.to_owned(), reason });
    }
    Ok(text)
}
