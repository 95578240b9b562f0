//! The form of a session in Redis: JSON under the names that the service's first version wrote (Go's field names).

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proto::session as pb;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::UnixMicros;
use crate::session::Session;
use crate::store::StoreError;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Record {
    #[serde(rename = "SessionID")]
    session_id: Uuid,
    #[serde(rename = "UserID")]
    user_id: String,
    #[serde(rename = "ConnectionID")]
    connection_id: Uuid,
    #[serde(rename = "ClientIP")]
    client_ip: String,
    client_port: u16,
    #[serde(default)]
    server_addr: String,
    state: i32,
    created_at: String,
    last_active_at: String,
    expires_at: String,
    #[serde(default)]
    metadata: Option<HashMap<String, String>>,
    #[serde(default, with = "Stats")]
    stats: pb::SessionStats,
    timeout_micros: u64,
    token_hash: String,
}

/// The names of the fields of [`pb::SessionStats`].
#[derive(Default, Serialize, Deserialize)]
#[serde(remote = "pb::SessionStats", rename_all = "PascalCase", default)]
struct Stats {
    packets_sent: u64,
    packets_received: u64,
    bytes_sent: u64,
    bytes_received: u64,
    retransmissions: u64,
    #[serde(rename = "CurrentRTTMs")]
    current_rtt_ms: u32,
}

/// A session as it is stored.
pub(super) fn encode(session: &Session) -> String {
    let record = Record {
        session_id: session.id,
        user_id: session.user_id.clone(),
        connection_id: session.connection_id,
        client_ip: session.client_ip.clone(),
        client_port: session.client_port,
        server_addr: String::new(),
        state: session.state.into(),
        created_at: text_of(session.created_at),
        last_active_at: text_of(session.last_active_at),
        expires_at: text_of(session.expires_at),
        metadata: Some(session.metadata.clone()),
        stats: session.stats,
        timeout_micros: session.timeout.as_micros() as u64,
        token_hash: hex::encode(session.token_hash),
    };
    serde_json::to_string(&record).expect("text and numbers always serialise")
}

/// Reads what is stored.
///
/// # Errors
/// [`StoreError::Corrupt`].
pub(super) fn decode(stored: &str) -> Result<Session, StoreError> {
    let corrupt = |what: &str| StoreError::Corrupt(format!("session: {what}"));
    let record: Record = serde_json::from_str(stored).map_err(|error| corrupt(&error.to_string()))?;
    let time = |text: &str, what: &str| time_of(text).ok_or_else(|| corrupt(what));
    let mut token_hash = [0; 32];
    hex::decode_to_slice(&record.token_hash, &mut token_hash).map_err(|_| corrupt("TokenHash"))?;
    Ok(Session {
        id: record.session_id,
        user_id: record.user_id,
        connection_id: record.connection_id,
        client_ip: record.client_ip,
        client_port: record.client_port,
        state: pb::SessionState::try_from(record.state).map_err(|_| corrupt("State"))?,
        created_at: time(&record.created_at, "CreatedAt")?,
        last_active_at: time(&record.last_active_at, "LastActiveAt")?,
        expires_at: time(&record.expires_at, "ExpiresAt")?,
        timeout: Duration::from_micros(record.timeout_micros),
        metadata: record.metadata.unwrap_or_default(),
        stats: record.stats,
        token_hash,
    })
}

/// RFC 3339 in UTC, to the microsecond.
fn text_of(time: UnixMicros) -> String {
    let since = Duration::from_micros(u64::try_from(time.0).unwrap_or_default());
    humantime::format_rfc3339_micros(UNIX_EPOCH + since).to_string()
}

fn time_of(text: &str) -> Option<UnixMicros> {
    let time: SystemTime = humantime::parse_rfc3339(text).ok()?;
    let micros = time.duration_since(UNIX_EPOCH).ok()?.as_micros();
    i64::try_from(micros).ok().map(UnixMicros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_under_the_names_of_the_contract() {
        let session = Session {
            id: Uuid::now_v7(),
            user_id: "ada \"the\" first".into(),
            connection_id: Uuid::now_v7(),
            client_ip: "2001:db8::1".into(),
            client_port: 65535,
            state: pb::SessionState::Idle,
            created_at: UnixMicros(1_700_000_000_123_456),
            last_active_at: UnixMicros(1_700_000_001_000_000),
            expires_at: UnixMicros(1_700_000_002_000_001),
            timeout: Duration::from_millis(1_500),
            metadata: [("device".to_owned(), "laptop".to_owned())].into(),
            stats: pb::SessionStats { bytes_sent: u64::MAX, current_rtt_ms: 7, ..Default::default() },
            token_hash: [0xAB; 32],
        };
        let stored = encode(&session);
        assert_eq!(decode(&stored).unwrap(), session);
        for name in ["SessionID", "UserID", "ConnectionID", "ClientIP", "CreatedAt", "CurrentRTTMs", "BytesSent"] {
            assert!(stored.contains(&format!("\"{name}\":")), "{name} is missing in {stored}");
        }
        assert!(stored.contains("2023-11-14T22:13:20.123456Z"), "{stored}");
        assert!(decode("{}").is_err() && decode("").is_err());
    }
}
