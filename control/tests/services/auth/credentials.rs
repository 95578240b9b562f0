//! Who gets in.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use control::config::{Auth, AuthKey, KeyAlgorithm, RateLimit};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use prost::Message;
use proto::session as session_pb;
use proto::statesync as pb;
use quantum_grpc::{AnyChannel, Transport};
use serde_json::json;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use super::*;
use crate::common::reason;

over_each_transport! {
    nobody_calls_any_method_without_credentials_and_anybody_asks_for_health,
    forged_tokens_are_refused_and_told_nothing,
    credentials_that_are_sent_twice_or_in_parts_are_refused,
    expensive_calls_are_limited_for_each_caller,
}

/// Calls a method with an empty message.
async fn call_empty(channel: AnyChannel, path: &str) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let answer = grpc.server_streaming(Request::new(()), path.parse().unwrap(), codec).await?;
    answer.into_inner().message().await.map(drop)
}

async fn nobody_calls_any_method_without_credentials_and_anybody_asks_for_health(transport: Transport) {
    let Some(guarded) = Guarded::start(transport, rules()).await else { return };
    let set = prost_types::FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).unwrap();
    let mut called = 0;
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                for channel in [&guarded.session_channel, &guarded.document_channel] {
                    let status = call_empty(channel.clone(), &path).await.unwrap_err();
                    let said = (status.code(), reason(&status));
                    assert_eq!(said, is(Code::Unauthenticated, "CREDENTIALS_MISSING"), "{path}");
                    called += 1;
                }
            }
        }
    }
    assert!(called >= 2 * 22, "{called}");
    for path in ["/a.B/C", "/grpc.health.v1.HealthX/Check", "/grpc.health.v1.Health/../x"] {
        let status = call_empty(guarded.session_channel.clone(), path).await.unwrap_err();
        assert!(matches!(status.code(), Code::Unauthenticated | Code::Unimplemented), "{path}: {status:?}");
    }
    for channel in [&guarded.session_channel, &guarded.document_channel] {
        let health = HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await.unwrap();
        assert_eq!(health.into_inner().status, 1, "SERVING");
    }
}

async fn forged_tokens_are_refused_and_told_nothing(transport: Transport) {
    let pair = Ed25519KeyPair::generate().unwrap();
    let public: Vec<u8> =
        [&b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00"[..], pair.public_key().as_ref()].concat();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64_STANDARD.encode(public));
    let mut rules = rules();
    rules.keys.push(AuthKey {
        id: "ed".into(),
        algorithm: KeyAlgorithm::EdDsa,
        public_key: pem.clone(),
        ..AuthKey::default()
    });
    let Some(mut guarded) = Guarded::start(transport, rules).await else { return };
    let claims = json!({"sub": "ada", "exp": unix_now() + 600});
    let header = |algorithm, key: &str| Header { kid: Some(key.into()), ..Header::new(algorithm) };
    let private = EncodingKey::from_ed_der(pair.to_pkcs8v1().unwrap().as_ref());
    let by_ed = jsonwebtoken::encode(&header(Algorithm::EdDSA, "ed"), &claims, &private).unwrap();
    let list = session_pb::ListSessionsRequest::default;
    guarded.sessions.list_sessions(bearing(&by_ed, list())).await.expect("what the key has signed is accepted");

    let part = |value: &serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let good = token("ada");
    let [head, _, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("a token has three parts") };
    let others_claims = part(&json!({"sub": "bob", "exp": unix_now() + 600}));
    let forged = [
        ("another secret", signed("test", "another secret, also of thirty-two bytes", &claims)),
        ("an unknown key", signed("other", SECRET, &claims)),
        ("alg none", format!("{}.{}.", part(&json!({"alg": "none", "kid": "test"})), part(&claims))),
        ("alg none with a signature", format!("{}.{}.{signature}", part(&json!({"alg": "none"})), part(&claims))),
        ("HS256 by the public key", signed("ed", &pem, &claims)),
        ("HS256 by the public key's text", signed("ed", pem.trim_end(), &claims)),
        (
            "EdDSA by the name of a secret",
            jsonwebtoken::encode(&header(Algorithm::EdDSA, "test"), &claims, &private).unwrap(),
        ),
        ("another user's claims", format!("{head}.{others_claims}.{signature}")),
        ("no expiry", signed("test", SECRET, &json!({"sub": "ada"}))),
        ("no subject", signed("test", SECRET, &json!({"exp": unix_now() + 600}))),
        ("nobody", signed("test", SECRET, &json!({"sub": "", "exp": unix_now() + 600}))),
        ("garbage", "garbage".to_owned()),
        ("too long", "x".repeat(9000)),
    ];
    let mut told = Vec::new();
    for (how, token) in &forged {
        let result = guarded.sessions.list_sessions(bearing(token, list())).await;
        let message = result.as_ref().map_err(|status| status.message().to_owned()).unwrap_err();
        let said = refused(result, &[token, "ada", "signature", "algorithm"]);
        assert_eq!(said.0, Code::Unauthenticated, "{how}");
        let document = pb::GetDocumentRequest { doc_id: "x".into() };
        let said = refused(guarded.documents.get_document(bearing(token, document)).await, &[token, "ada"]);
        assert_eq!(said.0, Code::Unauthenticated, "{how}");
        told.push(message);
    }
    told.dedup();
    assert_eq!(told.len(), 1, "what is wrong with a token is for the audit alone: {told:?}");
    let expired = guarded.sessions.list_sessions(bearing(&token_until("ada", unix_now() - 60), list())).await;
    assert_eq!(refused(expired, &["ada"]), is(Code::Unauthenticated, "TOKEN_EXPIRED"));
}

async fn credentials_that_are_sent_twice_or_in_parts_are_refused(transport: Transport) {
    let Some(mut guarded) = Guarded::start(transport, rules()).await else { return };
    let (session, session_token) = guarded.session("ada", 60).await;
    let list = session_pb::ListSessionsRequest::default;
    let mut twice = by("ada", list());
    twice.metadata_mut().append("authorization", format!("Bearer {}", token("bob")).parse().unwrap());
    let said = refused(guarded.sessions.list_sessions(twice).await, &[]);
    assert_eq!(said, is(Code::Unauthenticated, "CREDENTIALS_AMBIGUOUS"));
    for missing in ["x-session-id", "x-session-token"] {
        let mut half = in_session(&session.session_id, &session_token, list());
        half.metadata_mut().remove(missing);
        let said = refused(guarded.sessions.list_sessions(half).await, &[&session_token]);
        assert_eq!(said, is(Code::Unauthenticated, "SESSION_CREDENTIALS_INCOMPLETE"));
    }
    // Another user's session beside a token is no way to two names.
    let mut both = in_session(&session.session_id, &session_token, list());
    both.metadata_mut().insert("authorization", format!("Bearer {}", token("bob")).parse().unwrap());
    let said = refused(guarded.sessions.list_sessions(both).await, &[&session_token, "ada"]);
    assert_eq!(said, is(Code::Unauthenticated, "SESSION_TOKEN_INVALID"));
    for scheme in ["Basic", "", "Bearer  x"] {
        let mut request = Request::new(list());
        let value = if scheme.is_empty() { token("ada") } else { format!("{scheme} {}", token("ada")) };
        request.metadata_mut().insert("authorization", value.parse().unwrap());
        assert_eq!(refused(guarded.sessions.list_sessions(request).await, &["ada"]).0, Code::Unauthenticated);
    }
}

async fn expensive_calls_are_limited_for_each_caller(transport: Transport) {
    let rules = Auth { rate_limit: RateLimit { enable: true, rate: 1, burst: 5 }, ..rules() };
    let Some(mut guarded) = Guarded::start(transport, rules).await else { return };
    let mut limited = None;
    // The bucket fills while it is emptied: by one call in a second.
    for _ in 0..100 {
        match guarded.documents.list_documents(by("ada", pb::ListDocumentsRequest::default())).await {
            Ok(_) => {}
            Err(status) => {
                limited = Some(status);
                break;
            }
        }
    }
    let status = limited.expect("one call is too many");
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "RATE_LIMITED"));
    let wait = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!(!wait.is_zero() && wait <= std::time::Duration::from_secs(1), "{wait:?}");
    guarded.documents.list_documents(by("bob", pb::ListDocumentsRequest::default())).await.unwrap();
    let missing = pb::GetDocumentRequest { doc_id: uuid::Uuid::now_v7().to_string() };
    let cheap = guarded.documents.get_document(by("ada", missing)).await;
    assert_eq!(refused(cheap, &[]).0, Code::NotFound);
}
