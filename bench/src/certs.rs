//! The certificate that `serve` shows and `drive` and `bulk` trust: self-made, in a folder that both can read.

use std::path::{Path, PathBuf};

use anyhow::Context;
use quantum_grpc::Identity;

/// The folder that is used when `--certs` is not given.
pub fn default_dir() -> PathBuf {
    std::env::temp_dir().join("aetherflow-bench-certs")
}

/// The folder's identity, which is made if there is none. Whoever comes first makes it, in one step: the folder is there with
/// everything in it, or not at all.
///
/// # Errors
/// If the folder cannot be written, or holds something else.
pub fn identity(dir: &Path) -> anyhow::Result<Identity> {
    if !dir.exists() {
        create(dir).with_context(|| format!("cannot make a certificate in {}", dir.display()))?;
    }
    Identity::load_or_create(dir, &[]).with_context(|| format!("the certificate in {}", dir.display()))
}

fn create(dir: &Path) -> anyhow::Result<()> {
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent)?;
    // Mode 700 from the start, so that nobody else ever reads the key.
    let staging = tempfile::Builder::new().prefix(".aetherflow-bench-certs").tempdir_in(parent)?;
    Identity::load_or_create(staging.path(), &[])?;
    match std::fs::rename(staging.path(), dir) {
        // Renamed away: there is nothing left for the guard to delete.
        Ok(()) => {
            let _ = staging.keep();
            Ok(())
        }
        // Somebody else was first; theirs counts.
        Err(_) if dir.exists() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::identity;

    #[test]
    fn everybody_gets_the_certificate_of_whoever_came_first() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("certs");
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let dir = dir.clone();
                std::thread::spawn(move || identity(&dir).unwrap())
            })
            .collect();
        let made: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(made.iter().all(|identity| identity.fingerprint() == made[0].fingerprint()));
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1, "nothing else is left behind");
    }
}
