//! Where the servers' programs are.

use std::path::PathBuf;

use crate::StartError;

/// Where Debian installs PostgreSQL, a folder for each version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// Folders in which programs are looked for.
#[derive(Debug, Clone, Default)]
pub struct Programs {
    first: Vec<PathBuf>,
    path: Vec<PathBuf>,
}

impl Programs {
    /// In `first`, then in Debian's folders, then in those of `path`.
    pub fn new(first: impl IntoIterator<Item = PathBuf>, path: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { first: first.into_iter().collect(), path: path.into_iter().collect() }
    }

    /// The program `redis-server`.
    ///
    /// # Errors
    /// [`StartError::Missing`].
    pub fn redis_server(&self) -> Result<PathBuf, StartError> {
        let mut programs = self.first.iter().chain(&self.path).map(|folder| folder.join("redis-server"));
        let missing = StartError::Missing { program: "redis-server", package: "redis-server" };
        programs.find(|program| program.is_file()).ok_or(missing)
    }

    /// The folder of `initdb` and `postgres`, of the newest version where Debian has installed several.
    ///
    /// # Errors
    /// [`StartError::Missing`].
    pub fn postgres_folder(&self) -> Result<PathBuf, StartError> {
        let versions = std::fs::read_dir(DEBIAN).into_iter().flatten().flatten();
        let mut debian: Vec<(u32, PathBuf)> = versions
            .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
            .collect();
        debian.sort();
        let debian = debian.into_iter().rev().map(|(_, folder)| folder);
        let mut folders = self.first.iter().cloned().chain(debian).chain(self.path.iter().cloned());
        let missing = StartError::Missing { program: "initdb or postgres", package: "postgresql" };
        folders.find(|folder| folder.join("initdb").is_file() && folder.join("postgres").is_file()).ok_or(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::{Programs, StartError};

    #[test]
    fn what_is_named_first_is_taken_and_what_is_nowhere_is_told() {
        let folder = |name: &str| {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(name), "").unwrap();
            folder
        };
        let (first, second) = (folder("redis-server"), folder("redis-server"));
        let paths = |folder: &tempfile::TempDir| [folder.path().to_owned()];
        let found = Programs::new(paths(&first), paths(&second)).redis_server().unwrap();
        assert_eq!(found, first.path().join("redis-server"));
        let other = folder("redis-cli");
        let missing = Programs::new(paths(&other), []).redis_server();
        assert!(matches!(missing, Err(StartError::Missing { .. })));
        std::fs::write(other.path().join("initdb"), "").unwrap();
        std::fs::write(other.path().join("postgres"), "").unwrap();
        assert_eq!(Programs::new(paths(&other), []).postgres_folder().unwrap(), other.path());
    }
}
