//! How the two ends prove who they are: TLS 1.3 through rustls and aws-lc-rs.

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::{ParsedCertificate, ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::identity::Identity;

/// How a client verifies the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verify {
    /// The server's public key has this SHA-256 fingerprint, in hexadecimal ([`Identity::fingerprint`]).
    Pin(String),
    /// The certificate is signed by one of those in this PEM file, or is one of them, and names the server.
    Ca(PathBuf),
    /// Not at all. Only for a server on the loopback interface, where nobody is in between.
    InsecureLoopback,
}

/// Why a TLS configuration cannot be made.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TlsError {
    /// The fingerprint is not 64 hexadecimal digits.
    #[error("the fingerprint {0:?} is not the SHA-256 of a public key (64 hexadecimal digits)")]
    Fingerprint(String),
    /// A file of certificates, or of their key, cannot be read or used.
    #[error("cannot use the certificates in {path}: {reason}")]
    Ca {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An unverified peer that is not on this host.
    #[error("{0} is not a loopback address: verify the server by its fingerprint or a certificate file")]
    NotLoopback(SocketAddr),
    /// rustls refuses the configuration.
    #[error("TLS: {0}")]
    Rustls(String),
}

/// Sessions that a server remembers for early data, each for one use; beyond them the oldest is forgotten.
const SESSIONS_MAX: usize = 4096;

fn rustls_error(error: impl std::fmt::Display) -> TlsError {
    TlsError::Rustls(error.to_string())
}

/// The cryptography of all connections.
pub fn crypto_provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A server's configuration: TLS 1.3, and certificates of clients by the authorities in `client_ca`, if there is one.
///
/// # Errors
/// See [`TlsError`].
pub(crate) fn server_config(identity: &Identity, client_ca: Option<&Path>) -> Result<Arc<ServerConfig>, TlsError> {
    let builder = ServerConfig::builder_with_provider(crypto_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(rustls_error)?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(authorities(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, crypto_provider()).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| unusable(path, &error))?)
        }
    };
    let mut config = builder.with_single_cert(vec![identity.certificate()], identity.key()).map_err(rustls_error)?;
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
    Ok(Arc::new(config))
}

/// The configuration of `client` for a server at `remote`.
///
/// # Errors
/// See [`TlsError`].
pub(crate) fn client_config(
    client: &crate::endpoint::ClientConfig,
    remote: SocketAddr,
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = crypto_provider();
    let verifier: Arc<dyn ServerCertVerifier> = match &client.verify {
        Verify::Pin(text) => {
            let fingerprint = hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok());
            let fingerprint = fingerprint.ok_or_else(|| TlsError::Fingerprint(text.clone()))?;
            Arc::new(KeyVerifier { fingerprint: Some(fingerprint), provider: provider.clone() })
        }
        Verify::Ca(path) => ca_verifier(path, provider.clone())?,
        Verify::InsecureLoopback if remote.ip().to_canonical().is_loopback() => {
            Arc::new(KeyVerifier { fingerprint: None, provider: provider.clone() })
        }
        Verify::InsecureLoopback => return Err(TlsError::NotLoopback(remote)),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(rustls_error)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match &client.certificate {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let key = PrivateKeyDer::from_pem_file(&own.key).map_err(|error| unusable(&own.key, &error))?;
            let chain = certificates(&own.cert)?;
            builder.with_client_auth_cert(chain, key).map_err(|error| unusable(&own.cert, &error))?
        }
    };
    Ok(Arc::new(config))
}

fn ca_verifier(path: &Path, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    let roots = Arc::new(authorities(path)?);
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
    Ok(verifier.map_err(|error| unusable(path, &error))?)
}

/// The certificates in a PEM file as those whom to trust.
fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| unusable(path, &error))?;
    }
    Ok(roots)
}

/// The certificates in a PEM file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| unusable(path, &error))?.collect();
    let found = found.map_err(|error| unusable(path, &error))?;
    if found.is_empty() {
        return Err(unusable(path, &"there is no certificate in it"));
    }
    Ok(found)
}

fn unusable(path: &Path, reason: &dyn std::fmt::Display) -> TlsError {
    TlsError::Ca { path: path.to_owned(), reason: reason.to_string() }
}

/// Accepts a server by its public key, or any. That the server holds the key is proved by the handshake's signature, which
/// is always verified.
#[derive(Debug)]
struct KeyVerifier {
    fingerprint: Option<[u8; 32]>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for KeyVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let key = ParsedCertificate::try_from(end_entity)?.subject_public_key_info();
        match self.fingerprint {
            Some(fingerprint) if fingerprint_of(&key) != fingerprint => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// SHA-256 of a public key (`SubjectPublicKeyInfo`, RFC 7469 section 2.4).
pub(crate) fn fingerprint_of(key: &[u8]) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, key);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}
