//! `aetherflow token`: issues tokens, for tests and for operators who have no issuer of their own.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

use super::keys::{AuthError, read};
use crate::clock;

/// Help with examples.
pub const EXAMPLES: &str = "Examples:
  aetherflow token --key-file data/auth.key --sub ada
  export AETHERFLOW_TOKEN=$(aetherflow token --key-file data/auth.key --sub ada --ttl 8h)
  aetherflow token --key-file issuer.pem --key-id issuer-1 --sub ada

The last one is for services that have the issuer's public key in their files, and no secret: \
Auth.Keys: [{Id: issuer-1, Algorithm: EdDSA, PublicKeyFile: issuer.pub}]. `openssl genpkey -algorithm ed25519 -out issuer.pem` \
makes the private key, `openssl pkey -in issuer.pem -pubout -out issuer.pub` the public one.";

/// Arguments of `aetherflow token`.
#[derive(Args, Clone, Debug)]
pub struct TokenArgs {
    /// The secret (HS256), or the private Ed25519 key in PEM (`EdDSA`); the secret that is kept is DATA/auth.key
    #[arg(long, value_name = "FILE")]
    pub key_file: PathBuf,
    /// The user whom the token is for
    #[arg(long, value_name = "USER")]
    pub sub: String,
    /// How long it is valid, such as 30s, 10m or 8h
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    pub ttl: Duration,
    /// The key's Id in Auth.Keys
    #[arg(long, value_name = "ID", default_value = super::KEPT_KEY_ID)]
    pub key_id: String,
    /// Auth.Issuer of the services, if it is set
    #[arg(long, value_name = "TEXT")]
    pub issuer: Option<String>,
    /// Auth.Audience of the services, if it is set
    #[arg(long, value_name = "TEXT")]
    pub audience: Option<String>,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The key's file.
    #[error(transparent)]
    File(#[from] AuthError),
    /// The key.
    #[error("{0} holds no key to sign with: give the secret, or a private Ed25519 key in PEM")]
    Key(PathBuf),
    /// The subject.
    #[error("--sub has to name a user, in 1 to 255 bytes")]
    Subject,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
}

/// The token that `args` ask for.
///
/// # Errors
/// [`TokenError`].
pub fn issue(args: &TokenArgs) -> Result<String, TokenError> {
    if args.sub.is_empty() || args.sub.len() > 255 || args.sub.chars().any(char::is_control) {
        return Err(TokenError::Subject);
    }
    let no_key = |_| TokenError::Key(args.key_file.clone());
    let text = read(&args.key_file)?;
    let text = text.trim_end();
    let (algorithm, key) = if text.contains("-----BEGIN") {
        (Algorithm::EdDSA, EncodingKey::from_ed_pem(text.as_bytes()).map_err(no_key)?)
    } else {
        (Algorithm::HS256, EncodingKey::from_secret(text.as_bytes()))
    };
    let iat = (clock::now().0 / 1_000_000) as u64;
    let exp = iat.saturating_add(args.ttl.as_secs());
    let claims = Claims { sub: &args.sub, iat, exp, iss: args.issuer.as_deref(), aud: args.audience.as_deref() };
    let header = Header { kid: Some(args.key_id.clone()), ..Header::new(algorithm) };
    jsonwebtoken::encode(&header, &claims, &key).map_err(no_key)
}
