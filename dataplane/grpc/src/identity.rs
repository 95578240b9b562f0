//! Who a node is: its key, its self-signed certificate and its node key, kept in the data directory.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::tls::fingerprint_of;

const CERTIFICATE_FILE: &str = "cert.pem";
const KEY_FILE: &str = "key.pem";
const NODE_KEY_FILE: &str = "node.key";
/// What the certificate was issued for, to see when that changes without reading certificates.
const NAMES_FILE: &str = "cert.names";

/// Why an identity cannot be loaded or made.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path}: {reason}")]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The certificate cannot be issued for a name.
    #[error("cannot issue a certificate: {0}")]
    Issue(#[from] rcgen::Error),
}

/// A node's identity.
#[derive(Debug)]
pub struct Identity {
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    key: KeyPair,
    node_key: [u8; 32],
}

impl Identity {
    /// The identity in `dir`, which is made if there is none. The certificate names localhost, both loopback addresses, the
    /// host and `names`; when those change it is issued again with the same key, so that fingerprints stay.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn load_or_create(dir: &Path, names: &[String]) -> Result<Self, IdentityError> {
        fs::create_dir_all(dir).map_err(|source| IdentityError::File { path: dir.to_owned(), source })?;
        let names = all_names(names);
        let key = load_key(&dir.join(KEY_FILE))?;
        let node_key = load_node_key(&dir.join(NODE_KEY_FILE))?;
        let listed = names.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
        let fingerprint = hex::encode(fingerprint_of(&key.subject_public_key_info()));
        let issued_for = format!("{listed}\n{fingerprint}\n");
        let (certificate_path, names_path) = (dir.join(CERTIFICATE_FILE), dir.join(NAMES_FILE));
        let kept = match (read(&certificate_path)?, read(&names_path)?) {
            (Some(pem), Some(kept_for)) if kept_for == issued_for => Some(pem),
            _ => None,
        };
        let certificate_pem = if let Some(pem) = kept {
            pem
        } else {
            let pem = issue(&key, names)?;
            write(&certificate_path, pem.as_bytes(), 0o644)?;
            write(&names_path, issued_for.as_bytes(), 0o644)?;
            pem
        };
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|error| IdentityError::Content { path: certificate_path, reason: error.to_string() })?;
        Ok(Self { certificate, certificate_pem, key, node_key })
    }

    /// SHA-256 of the public key, in hexadecimal: what a client pins.
    pub fn fingerprint(&self) -> String {
        hex::encode(fingerprint_of(&self.key.subject_public_key_info()))
    }

    /// The certificate in PEM, for clients that verify by it.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The node's secret for stateless resets and cookies.
    pub fn node_key(&self) -> [u8; 32] {
        self.node_key
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()))
    }
}

fn all_names(names: &[String]) -> BTreeSet<String> {
    let mut all: BTreeSet<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    // The kernel's own name of the host, where /proc tells it.
    if let Ok(host) = fs::read_to_string("/proc/sys/kernel/hostname") {
        all.insert(host.trim().to_owned());
    }
    // An unspecified address is where a server listens, never what it is called.
    let called = |name: &&String| name.parse::<IpAddr>().map_or(true, |address| !address.is_unspecified());
    all.extend(names.iter().filter(called).cloned());
    all.retain(|name| !name.is_empty());
    all
}

fn issue(key: &KeyPair, names: BTreeSet<String>) -> Result<String, IdentityError> {
    let mut params = CertificateParams::new(names.into_iter().collect::<Vec<_>>())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "AetherFlow");
    Ok(params.self_signed(key)?.pem())
}

fn load_key(path: &Path) -> Result<KeyPair, IdentityError> {
    if let Some(pem) = read(path)? {
        let wrong = |error: rcgen::Error| IdentityError::Content { path: path.to_owned(), reason: error.to_string() };
        return KeyPair::from_pem(&pem).map_err(wrong);
    }
    let key = KeyPair::generate()?;
    write(path, key.serialize_pem().as_bytes(), 0o600)?;
    Ok(key)
}

fn load_node_key(path: &Path) -> Result<[u8; 32], IdentityError> {
    if let Some(text) = read(path)? {
        let key = hex::decode(text.trim()).ok().and_then(|bytes| bytes.try_into().ok());
        let reason = "is not a node key (64 hexadecimal digits)".to_owned();
        return key.ok_or_else(|| IdentityError::Content { path: path.to_owned(), reason });
    }
    let key: [u8; 32] = rand::random();
    write(path, hex::encode(key).as_bytes(), 0o600)?;
    Ok(key)
}

fn read(path: &Path) -> Result<Option<String>, IdentityError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IdentityError::File { path: path.to_owned(), source }),
    }
}

/// Writes a file whole or not at all, readable as `mode` says from its first moment.
fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), IdentityError> {
    let failed = |source| IdentityError::File { path: path.to_owned(), source };
    let unfinished = path.with_extension(format!("tmp{}", std::process::id()));
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&unfinished)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    };
    write().map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_identity_is_kept_and_its_key_survives_other_names() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::load_or_create(dir.path(), &[]).unwrap();
        let again = Identity::load_or_create(dir.path(), &[]).unwrap();
        assert_eq!(first.certificate_pem(), again.certificate_pem());
        assert_eq!(first.node_key(), again.node_key());
        let renamed = Identity::load_or_create(dir.path(), &["10.1.2.3".to_owned()]).unwrap();
        assert_ne!(renamed.certificate_pem(), first.certificate_pem());
        assert_eq!(renamed.fingerprint(), first.fingerprint());
    }

    #[test]
    fn secrets_are_readable_by_their_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        Identity::load_or_create(dir.path(), &[]).unwrap();
        for file in [KEY_FILE, NODE_KEY_FILE] {
            assert_eq!(fs::metadata(dir.path().join(file)).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_damaged_key_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(KEY_FILE), "no key").unwrap();
        let error = Identity::load_or_create(dir.path(), &[]).unwrap_err();
        assert!(error.to_string().contains(KEY_FILE), "{error}");
    }
}
