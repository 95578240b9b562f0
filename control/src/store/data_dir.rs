//! The data directory: one process at a time for each service, private to its owner.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A process that was killed holds its locks until the kernel has taken it apart. Whoever is started at once after it waits that
/// long.
const FREED_WITHIN: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(10);

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// It cannot be created or written.
    #[error(
        "the data directory {path} is not writable: {source}. Choose another with --data DIR, or make this one writable"
    )]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process uses it.
    #[error(
        "the data directory {0} is in use by another aetherflow process. Stop that one, or give this one its own with \
         --data DIR (Server.Data in a configuration file)"
    )]
    Locked(PathBuf),
}

/// A data directory in which this process holds the locks of some services. Dropping it releases them.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _locks: Vec<File>,
}

impl DataDir {
    /// Creates `path` if it is missing (mode 700) and locks it for `services`.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub fn open(path: &Path, services: &[&str]) -> Result<Self, DataDirError> {
        let not_writable = |source| DataDirError::NotWritable { path: path.to_owned(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(not_writable)?;
        let mut locks = Vec::new();
        for service in services {
            let lock = lock_file(&path.join(format!("{service}.lock"))).map_err(not_writable)?;
            match lock_once_free(&lock) {
                Ok(()) => locks.push(lock),
                Err(TryLockError::WouldBlock) => return Err(DataDirError::Locked(path.to_owned())),
                Err(TryLockError::Error(source)) => return Err(not_writable(source)),
            }
        }
        Ok(Self { path: path.to_owned(), _locks: locks })
    }

    /// Runs `make` while no other process does, in this directory: for files that the services share.
    ///
    /// # Errors
    /// [`DataDirError::NotWritable`].
    pub fn alone<T>(&self, make: impl FnOnce() -> T) -> Result<T, DataDirError> {
        let not_writable = |source| DataDirError::NotWritable { path: self.path.clone(), source };
        let lock = lock_file(&self.path.join("lock")).map_err(not_writable)?;
        lock.lock().map_err(not_writable)?;
        Ok(make())
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

fn lock_once_free(lock: &File) -> Result<(), TryLockError> {
    let until = Instant::now() + FREED_WITHIN;
    loop {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(POLL),
            outcome => return outcome,
        }
    }
}

fn lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)
}
