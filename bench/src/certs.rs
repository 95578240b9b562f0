//! The certificate that `serve` shows and `drive` and `bulk` trust: self-made, in a folder that both can read.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

/// The folder that is used when `--certs` is not given.
pub fn default_dir() -> PathBuf {
    std::env::temp_dir().join("aetherflow-bench-certs")
}

/// The two files of a certificate folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The certificate in PEM.
    pub certificate_pem: String,
    /// Its private key in PEM.
    pub key_pem: String,
}

/// Reads the folder's certificate, or makes it. Whoever comes first makes it, in one step: both files or none are there.
///
/// # Errors
/// If the folder cannot be written, or holds something else.
pub fn load_or_create(dir: &Path) -> anyhow::Result<Certificate> {
    if !dir.exists() {
        create(dir).with_context(|| format!("cannot make a certificate in {}", dir.display()))?;
    }
    let read = |name: &str| {
        std::fs::read_to_string(dir.join(name)).with_context(|| format!("cannot read {name} in {}", dir.display()))
    };
    let certificate = Certificate { certificate_pem: read("cert.pem")?, key_pem: read("key.pem")? };
    ensure!(certificate.certificate_pem.contains("BEGIN CERTIFICATE"), "{} holds no certificate", dir.display());
    Ok(certificate)
}

fn create(dir: &Path) -> anyhow::Result<()> {
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    let made = rcgen::generate_simple_self_signed(names)?;
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent)?;
    // Mode 700 from the start, so that nobody else ever reads the key.
    let staging = tempfile::Builder::new().prefix(".aetherflow-bench-certs").tempdir_in(parent)?;
    std::fs::write(staging.path().join("cert.pem"), made.cert.pem())?;
    std::fs::write(staging.path().join("key.pem"), made.signing_key.serialize_pem())?;
    match std::fs::rename(staging.path(), dir) {
        // Renamed away: there is nothing left for the guard to delete.
        Ok(()) => {
            let _ = staging.keep();
            Ok(())
        }
        // Somebody else was first; theirs counts.
        Err(_) if dir.join("cert.pem").exists() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::load_or_create;

    #[test]
    fn everybody_gets_the_certificate_of_whoever_came_first() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("certs");
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let dir = dir.clone();
                std::thread::spawn(move || load_or_create(&dir).unwrap())
            })
            .collect();
        let made: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(made.iter().all(|certificate| *certificate == made[0]));
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1, "nothing else is left behind");
    }
}
