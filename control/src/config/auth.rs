//! Who may call, and how that is proved.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Refused, duration};

/// Keys at once; rotation takes two.
const KEYS_MAX: usize = 32;
const KEY_ID_BYTES_MAX: usize = 128;
/// Below this a secret can be guessed (RFC 7518 section 3.2).
pub(crate) const SECRET_BYTES_MIN: usize = 32;
/// More than this is no difference of clocks.
const LEEWAY_MAX: Duration = Duration::from_mins(5);
const RATE_MAX: u32 = 1_000_000;

/// Who may call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Auth {
    /// Whether callers have to prove who they are, and permissions are enforced.
    pub enabled: bool,
    /// Lets a service without authentication listen on an address that is not loopback.
    pub allow_anonymous: bool,
    /// The keys whose tokens are accepted; none: the secret that is kept in the data directory.
    pub keys: Vec<AuthKey>,
    /// What `iss` has to be; empty: it is not looked at.
    pub issuer: String,
    /// What `aud` has to have; empty: it is not looked at.
    pub audience: String,
    /// By how much clocks may differ.
    #[serde(with = "duration")]
    pub leeway: Duration,
    /// How often one caller may make expensive calls.
    pub rate_limit: RateLimit,
}

/// A key whose tokens are accepted.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
pub struct AuthKey {
    /// What `kid` names it by.
    pub id: String,
    /// The one algorithm that it is for.
    pub algorithm: KeyAlgorithm,
    /// HS256: the secret.
    pub secret: String,
    /// HS256: a file of the secret; white space at its end does not count.
    pub secret_file: PathBuf,
    /// `EdDSA`: the public key in PEM.
    pub public_key: String,
    /// `EdDSA`: a PEM file of the public key.
    pub public_key_file: PathBuf,
}

/// How tokens are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum KeyAlgorithm {
    /// HMAC with SHA-256.
    #[default]
    #[serde(rename = "HS256")]
    Hs256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

/// How often one caller may make expensive calls: a bucket of `burst` calls that fills by `rate` each second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[expect(missing_docs, reason = "each field is the key of its name")]
pub struct RateLimit {
    pub enable: bool,
    pub rate: u32,
    pub burst: u32,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            enabled: false,
            allow_anonymous: false,
            keys: Vec::new(),
            issuer: String::new(),
            audience: String::new(),
            leeway: Duration::from_secs(5),
            rate_limit: RateLimit { enable: true, rate: 100, burst: 200 },
        }
    }
}

impl fmt::Debug for AuthKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = formatter.debug_struct("AuthKey");
        key.field("id", &self.id).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl Auth {
    pub(super) fn check(&self) -> Result<(), Refused> {
        if self.keys.len() > KEYS_MAX {
            return Err(("Auth.Keys", format!("{} keys; at most {KEYS_MAX}", self.keys.len())));
        }
        for (index, key) in self.keys.iter().enumerate() {
            key.check().map_err(|reason| ("Auth.Keys", format!("key {} ({:?}): {reason}", index + 1, key.id)))?;
            if self.keys[..index].iter().any(|earlier| earlier.id == key.id) {
                return Err(("Auth.Keys", format!("two keys have the id {:?}: give each its own", key.id)));
            }
        }
        if self.leeway > LEEWAY_MAX {
            return Err(("Auth.Leeway", "at most 5m: a token is as good as valid for that long after its end".into()));
        }
        for (key, value) in
            [("Auth.RateLimit.Rate", self.rate_limit.rate), ("Auth.RateLimit.Burst", self.rate_limit.burst)]
        {
            if !(1..=RATE_MAX).contains(&value) {
                return Err((key, format!("{value} is not between 1 and {RATE_MAX}")));
            }
        }
        Ok(())
    }
}

impl AuthKey {
    fn check(&self) -> Result<(), String> {
        if self.id.is_empty() || self.id.len() > KEY_ID_BYTES_MAX {
            return Err(format!("Id has to have 1 to {KEY_ID_BYTES_MAX} bytes; tokens name their key by it (kid)"));
        }
        let is_set = |path: &Path| !path.as_os_str().is_empty();
        let secrets = usize::from(!self.secret.is_empty()) + usize::from(is_set(&self.secret_file));
        let public = usize::from(!self.public_key.is_empty()) + usize::from(is_set(&self.public_key_file));
        match (self.algorithm, secrets, public) {
            (KeyAlgorithm::Hs256, 1, 0) | (KeyAlgorithm::EdDsa, 0, 1) => {}
            (KeyAlgorithm::Hs256, ..) => return Err("HS256 takes either Secret or SecretFile, and nothing else".into()),
            (KeyAlgorithm::EdDsa, ..) => {
                return Err("EdDSA takes either PublicKey or PublicKeyFile, and nothing else".into());
            }
        }
        if (1..SECRET_BYTES_MIN).contains(&self.secret.len()) {
            return Err(format!("Secret has fewer than {SECRET_BYTES_MIN} bytes; openssl rand -base64 32 makes one"));
        }
        Ok(())
    }

    /// Takes the secret out, for printing.
    pub(crate) fn hide(&mut self) {
        if !self.secret.is_empty() {
            "(hidden)".clone_into(&mut self.secret);
        }
    }
}
