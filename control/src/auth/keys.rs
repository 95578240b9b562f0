//! The keys whose tokens are accepted, and what makes a token valid.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rand::TryRngCore;
use rand::rngs::OsRng;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::{KEPT_KEY_ID, SECRET_FILE};
use crate::clock::UnixMicros;
use crate::config::{Auth, AuthKey, KeyAlgorithm, SECRET_BYTES_MIN};

/// Bytes of a key file at most.
const FILE_BYTES_MAX: u64 = 16 << 10;
/// Bytes of a subject at most: what user ids have.
const SUBJECT_BYTES_MAX: usize = 255;

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// A file of a key or a token cannot be read or written.
    #[error("cannot use the file {path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A key is none.
    #[error("Auth.Keys: the key {id:?}: {reason}")]
    Key {
        /// Its id.
        id: String,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers for a secret")]
    Random,
}

/// Why a token is not accepted. Which it is only the audit has, but for a token that was valid once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Malformed,
    UnknownKey,
    Algorithm,
    Signature,
    Expired,
    NotYetValid,
    Issuer,
    Audience,
    Claims,
}

impl Refusal {
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "TOKEN_MALFORMED",
            Self::UnknownKey => "TOKEN_KEY_UNKNOWN",
            Self::Algorithm => "TOKEN_ALGORITHM",
            Self::Signature => "TOKEN_SIGNATURE",
            Self::Expired => "TOKEN_EXPIRED",
            Self::NotYetValid => "TOKEN_NOT_YET_VALID",
            Self::Issuer => "TOKEN_ISSUER",
            Self::Audience => "TOKEN_AUDIENCE",
            Self::Claims => "TOKEN_CLAIMS",
        }
    }

    fn of(error: &jsonwebtoken::errors::Error) -> Self {
        match error.kind() {
            ErrorKind::InvalidSignature => Self::Signature,
            ErrorKind::ExpiredSignature => Self::Expired,
            ErrorKind::ImmatureSignature => Self::NotYetValid,
            ErrorKind::InvalidIssuer => Self::Issuer,
            ErrorKind::InvalidAudience => Self::Audience,
            ErrorKind::InvalidAlgorithm => Self::Algorithm,
            // The signature has been checked by then; claims are missing, or not of their types.
            ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) | ErrorKind::Json(_) => Self::Claims,
            _ => Self::Malformed,
        }
    }
}

/// A token that is valid.
pub(super) struct Verified {
    pub(super) subject: String,
    /// The leeway is in it.
    pub(super) valid_until: UnixMicros,
    /// Cancelled when the key is gone.
    pub(super) revoked: CancellationToken,
}

/// The keys by id.
pub(super) struct Keyring {
    keys: HashMap<String, Key>,
}

struct Key {
    decoding: DecodingKey,
    validation: Validation,
    /// Of the algorithm and the key: another key under the same id is another key.
    digest: [u8; 32],
    revoked: CancellationToken,
}

/// What is read of a token's claims beside what the library checks.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
}

impl Keyring {
    /// The keys that `auth` names; if it names none, the secret that is kept in `data`.
    pub(super) fn load(auth: &Auth, data: Option<&Path>) -> Result<Self, AuthError> {
        let mut keys = HashMap::new();
        for key in &auth.keys {
            keys.insert(key.id.clone(), Key::load(key, auth)?);
        }
        if let Some(data) = data.filter(|_| auth.keys.is_empty()) {
            let secret = kept_secret(data)?;
            let key = AuthKey { id: KEPT_KEY_ID.to_owned(), secret, ..AuthKey::default() };
            keys.insert(key.id.clone(), Key::load(&key, auth)?);
        }
        Ok(Self { keys })
    }

    /// These keys after `earlier` ones: what has stayed stays, and tokens of what is gone are told.
    pub(super) fn after(mut self, earlier: &Self) -> Self {
        for (id, key) in &earlier.keys {
            match self.keys.get_mut(id) {
                Some(same) if same.digest == key.digest => same.revoked = key.revoked.clone(),
                _ => key.revoked.cancel(),
            }
        }
        self
    }

    /// Verifies a token: by the key that it names, with that key's algorithm and no other (RFC 8725 section 3.1).
    pub(super) fn verify(&self, token: &str) -> Result<Verified, Refusal> {
        let header = jsonwebtoken::decode_header(token).map_err(|error| Refusal::of(&error))?;
        // Whoever marks something critical wants it understood (RFC 7515 section 4.1.11).
        if header.crit.is_some() {
            return Err(Refusal::Malformed);
        }
        let key = header.kid.and_then(|id| self.keys.get(&id)).ok_or(Refusal::UnknownKey)?;
        if !key.validation.algorithms.contains(&header.alg) {
            return Err(Refusal::Algorithm);
        }
        let decoded = jsonwebtoken::decode::<Claims>(token, &key.decoding, &key.validation);
        let Claims { sub: subject, exp } = decoded.map_err(|error| Refusal::of(&error))?.claims;
        if subject.is_empty() || subject.len() > SUBJECT_BYTES_MAX || subject.chars().any(char::is_control) {
            return Err(Refusal::Claims);
        }
        // A cast of a float stops at the largest integer.
        let valid_until = UnixMicros(((exp + key.validation.leeway as f64) * 1e6) as i64);
        Ok(Verified { subject, valid_until, revoked: key.revoked.clone() })
    }
}

impl Key {
    fn load(key: &AuthKey, auth: &Auth) -> Result<Self, AuthError> {
        let wrong = |reason: &str| AuthError::Key { id: key.id.clone(), reason: reason.to_owned() };
        let (algorithm, inline, file) = match key.algorithm {
            KeyAlgorithm::Hs256 => (Algorithm::HS256, &key.secret, &key.secret_file),
            KeyAlgorithm::EdDsa => (Algorithm::EdDSA, &key.public_key, &key.public_key_file),
        };
        let text = if inline.is_empty() { read(file)? } else { inline.clone() };
        let text = text.trim_end();
        let decoding = match key.algorithm {
            KeyAlgorithm::Hs256 if text.len() < SECRET_BYTES_MIN => {
                return Err(wrong("the secret has fewer than 32 bytes; openssl rand -base64 32 makes one"));
            }
            KeyAlgorithm::Hs256 => DecodingKey::from_secret(text.as_bytes()),
            KeyAlgorithm::EdDsa => DecodingKey::from_ed_pem(text.as_bytes()).map_err(|_| {
                wrong("it is no public Ed25519 key in PEM; openssl pkey -in PRIVATE.pem -pubout gives it")
            })?,
        };
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&[u8::from(algorithm == Algorithm::EdDSA)]);
        context.update(text.as_bytes());
        let digest = context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes");
        Ok(Self { decoding, validation: validation(algorithm, auth), digest, revoked: CancellationToken::new() })
    }
}

fn validation(algorithm: Algorithm, auth: &Auth) -> Validation {
    let mut validation = Validation::new(algorithm);
    let mut required = vec!["exp", "sub"];
    validation.leeway = auth.leeway.as_secs();
    validation.validate_nbf = true;
    validation.validate_aud = !auth.audience.is_empty();
    if !auth.audience.is_empty() {
        validation.set_audience(&[&auth.audience]);
        required.push("aud");
    }
    if !auth.issuer.is_empty() {
        validation.set_issuer(&[&auth.issuer]);
        required.push("iss");
    }
    validation.set_required_spec_claims(&required);
    validation
}

/// Reads a file of a key or a token.
pub(crate) fn read(path: &Path) -> Result<String, AuthError> {
    let failed = |source| AuthError::File { path: path.to_owned(), source };
    let mut text = String::new();
    File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(failed(io::Error::other(format!("it has more than {FILE_BYTES_MAX} bytes"))));
    }
    Ok(text)
}

/// The secret that is kept in a data directory, made if there is none: 32 random bytes as text, for its owner's eyes.
pub(super) fn kept_secret(data: &Path) -> Result<String, AuthError> {
    let path = data.join(SECRET_FILE);
    match read(&path) {
        Err(AuthError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        secret => return Ok(secret?.trim_end().to_owned()),
    }
    let mut bytes = [0; 32];
    OsRng.try_fill_bytes(&mut bytes).map_err(|_| AuthError::Random)?;
    let secret = BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let failed = |source| AuthError::File { path: path.clone(), source };
    let unfinished = path.with_extension(format!("tmp{}", std::process::id()));
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        writeln!(file, "{secret}")?;
        file.sync_all()?;
        fs::rename(&unfinished, &path)
    };
    write().map_err(failed)?;
    Ok(secret)
}

#[cfg(test)]
mod tests;
