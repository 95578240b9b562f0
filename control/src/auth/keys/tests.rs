use std::os::unix::fs::PermissionsExt;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::prelude::BASE64_STANDARD;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

use super::*;
use crate::clock;
use crate::config::RateLimit;

const SECRET: &str = "a secret of more than thirty-two bytes";

fn auth(keys: Vec<AuthKey>) -> Auth {
    Auth { enabled: true, keys, rate_limit: RateLimit { enable: false, rate: 1, burst: 1 }, ..Auth::default() }
}

fn hs256(id: &str, secret: &str) -> AuthKey {
    AuthKey { id: id.into(), secret: secret.into(), ..AuthKey::default() }
}

fn keyring() -> Keyring {
    Keyring::load(&auth(vec![hs256("a", SECRET)]), None).unwrap()
}

/// Seconds since 1970, this much later.
fn later(seconds: i64) -> i64 {
    clock::now().0 / 1_000_000 + seconds
}

fn signed(header: &Header, claims: &Value, key: &EncodingKey) -> String {
    jsonwebtoken::encode(header, claims, key).unwrap()
}

fn token(claims: &Value) -> String {
    let header = Header { kid: Some("a".into()), ..Header::default() };
    signed(&header, claims, &EncodingKey::from_secret(SECRET.as_bytes()))
}

fn refusal(keyring: &Keyring, token: &str) -> Refusal {
    keyring.verify(token).map(|verified| verified.subject).expect_err("the token is refused")
}

#[test]
fn a_token_says_who_calls_and_until_when() {
    let end = later(60);
    let verified = keyring().verify(&token(&json!({"sub": "ada", "exp": end}))).unwrap();
    assert_eq!((verified.subject.as_str(), verified.valid_until.0), ("ada", (end + 5) * 1_000_000));
    let fraction = keyring().verify(&token(&json!({"sub": "ada", "exp": end as f64 + 0.5}))).unwrap();
    assert_eq!(fraction.valid_until.0, (end + 5) * 1_000_000 + 500_000);
    let never = keyring().verify(&token(&json!({"sub": "ada", "exp": 1e15}))).unwrap();
    assert!(never.valid_until.0 > end);
}

#[test]
fn claims_that_are_missing_or_make_no_sense_are_refused() {
    let keyring = keyring();
    let long = "a".repeat(256);
    for (claims, expected) in [
        (json!({"sub": "ada"}), Refusal::Claims),
        (json!({"exp": later(60)}), Refusal::Claims),
        (json!({"sub": 7, "exp": later(60)}), Refusal::Claims),
        (json!({"sub": "", "exp": later(60)}), Refusal::Claims),
        (json!({"sub": "a\nb", "exp": later(60)}), Refusal::Claims),
        (json!({"sub": long, "exp": later(60)}), Refusal::Claims),
        (json!({"sub": "ada", "exp": later(-60)}), Refusal::Expired),
        (json!({"sub": "ada", "exp": later(60), "nbf": later(30)}), Refusal::NotYetValid),
    ] {
        assert_eq!(refusal(&keyring, &token(&claims)), expected, "{claims}");
    }
}

#[test]
fn issuer_and_audience_have_to_be_there_once_they_are_configured() {
    let rules = Auth { issuer: "us".into(), audience: "docs".into(), ..auth(vec![hs256("a", SECRET)]) };
    let keyring = Keyring::load(&rules, None).unwrap();
    let end = later(60);
    assert!(keyring.verify(&token(&json!({"sub": "a", "exp": end, "iss": "us", "aud": ["x", "docs"]}))).is_ok());
    let refused = |claims: Value| refusal(&keyring, &token(&claims));
    assert_eq!(refused(json!({"sub": "a", "exp": end, "iss": "them", "aud": "docs"})), Refusal::Issuer);
    assert_eq!(refused(json!({"sub": "a", "exp": end, "iss": "us", "aud": "x"})), Refusal::Audience);
    assert_eq!(refused(json!({"sub": "a", "exp": end, "aud": "docs"})), Refusal::Claims);
    assert_eq!(refused(json!({"sub": "a", "exp": end, "iss": "us"})), Refusal::Claims);
}

#[test]
fn tokens_of_other_keys_and_algorithms_are_refused() {
    let pair = Ed25519KeyPair::generate().unwrap();
    let public: Vec<u8> =
        [&b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00"[..], pair.public_key().as_ref()].concat();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64_STANDARD.encode(public));
    let ed = AuthKey { id: "e".into(), algorithm: KeyAlgorithm::EdDsa, public_key: pem.clone(), ..AuthKey::default() };
    let keyring = Keyring::load(&auth(vec![hs256("a", SECRET), ed]), None).unwrap();
    let claims = json!({"sub": "ada", "exp": later(60)});
    let header = |algorithm, kid: &str| Header { kid: Some(kid.into()), ..Header::new(algorithm) };
    let private = EncodingKey::from_ed_der(pair.to_pkcs8v1().unwrap().as_ref());
    let shared = |secret: &[u8]| EncodingKey::from_secret(secret);
    assert!(keyring.verify(&signed(&header(Algorithm::EdDSA, "e"), &claims, &private)).is_ok());
    for (token, expected) in [
        (signed(&header(Algorithm::HS256, "a"), &claims, &shared(b"another secret")), Refusal::Signature),
        (signed(&header(Algorithm::HS256, "b"), &claims, &shared(SECRET.as_bytes())), Refusal::UnknownKey),
        (signed(&Header::default(), &claims, &shared(SECRET.as_bytes())), Refusal::UnknownKey),
        (signed(&header(Algorithm::HS384, "a"), &claims, &shared(SECRET.as_bytes())), Refusal::Algorithm),
        // The public key, which everybody has, as if it were a secret: as text, without its last line break, and raw.
        (signed(&header(Algorithm::HS256, "e"), &claims, &shared(pem.as_bytes())), Refusal::Algorithm),
        (signed(&header(Algorithm::HS256, "e"), &claims, &shared(pem.trim_end().as_bytes())), Refusal::Algorithm),
        (signed(&header(Algorithm::HS256, "e"), &claims, &shared(pair.public_key().as_ref())), Refusal::Algorithm),
        (signed(&header(Algorithm::EdDSA, "a"), &claims, &private), Refusal::Algorithm),
    ] {
        assert_eq!(refusal(&keyring, &token), expected, "{token}");
    }
    let critical = Header { crit: Some(vec!["b64".into()]), ..header(Algorithm::HS256, "a") };
    assert_eq!(refusal(&keyring, &signed(&critical, &claims, &shared(SECRET.as_bytes()))), Refusal::Malformed);
}

#[test]
fn what_is_no_token_is_refused() {
    let keyring = keyring();
    let good = token(&json!({"sub": "ada", "exp": later(60)}));
    let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    let none = format!("{}.{}.", part(r#"{"alg":"none","kid":"a"}"#), part(r#"{"sub":"ada","exp":99999999999}"#));
    let many = format!("{good}.x");
    let deep = format!("{}.{}.x", part(&"[".repeat(4000)), part("{}"));
    for token in
        ["", ".", "..", "...", "a.b.c", &none, &many, &deep, &good[..good.len() - 3], &good.replacen('.', "", 1)]
    {
        assert!(keyring.verify(token).is_err(), "{token}");
    }
}

#[test]
fn keys_that_are_replaced_or_gone_revoke_what_they_let_in_and_others_do_not() {
    let load = |keys| Keyring::load(&auth(keys), None).unwrap();
    let earlier = load(vec![hs256("a", SECRET), hs256("b", SECRET), hs256("c", SECRET)]);
    let revoked = ["a", "b", "c"].map(|id| earlier.keys[id].revoked.clone());
    let other = format!("{SECRET} and more");
    let now = load(vec![hs256("a", SECRET), hs256("b", &other), hs256("d", SECRET)]).after(&earlier);
    assert_eq!(revoked.each_ref().map(CancellationToken::is_cancelled), [false, true, true]);
    load(Vec::new()).after(&now);
    assert!(revoked[0].is_cancelled(), "it was the same key all the time");
}

#[test]
fn a_secret_is_made_once_and_is_its_owners() {
    let folder = tempfile::tempdir().unwrap();
    let secret = kept_secret(folder.path()).unwrap();
    assert_eq!(secret.len(), 43);
    assert_eq!(kept_secret(folder.path()).unwrap(), secret);
    let mode = fs::metadata(folder.path().join(SECRET_FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let elsewhere = tempfile::tempdir().unwrap();
    assert_ne!(kept_secret(elsewhere.path()).unwrap(), secret);
}

#[test]
fn keys_that_cannot_be_used_are_named_and_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("short");
    fs::write(&path, "hunter2\n").unwrap();
    let said = |key: AuthKey| Keyring::load(&auth(vec![key]), None).err().expect("it cannot be used").to_string();
    let short = said(AuthKey { id: "s".into(), secret_file: path, ..AuthKey::default() });
    assert!(short.contains("\"s\"") && short.contains("32 bytes") && !short.contains("hunter2"), "{short}");
    let ed = AuthKey { id: "e".into(), algorithm: KeyAlgorithm::EdDsa, ..AuthKey::default() };
    let pem = said(AuthKey { public_key: "-----BEGIN nonsense".into(), ..ed.clone() });
    assert!(pem.contains("\"e\"") && pem.contains("-pubout") && !pem.contains("nonsense"), "{pem}");
    let missing = said(AuthKey { public_key_file: "/nonexistent/e.pem".into(), ..ed });
    assert!(missing.contains("/nonexistent/e.pem"), "{missing}");
    assert!(!format!("{:?}", hs256("a", SECRET)).contains(SECRET));
}
